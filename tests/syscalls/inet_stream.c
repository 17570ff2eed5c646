/* tests/syscalls/inet_stream.c - AF_INET connections: making, waiting, readiness, interruption, ends. */
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <linux/sockios.h>

#include "inet.h"

TEST(socket_errors)
{
	CHECK_ERR(socket(AF_INET, SOCK_STREAM, IPPROTO_UDP), EPROTONOSUPPORT);
	CHECK_ERR(socket(AF_INET, SOCK_DGRAM, IPPROTO_TCP), EPROTONOSUPPORT);
	CHECK_ERR(socket(AF_INET, SOCK_RDM, 0), ESOCKTNOSUPPORT);
	CHECK_ERR(socket(AF_INET, 0, 0), ESOCKTNOSUPPORT);
	CHECK_ERR(socket(AF_INET, 11, 0), EINVAL);
	CHECK_ERR(socket(AF_INET, SOCK_STREAM, -1), EINVAL);
	CHECK_ERR(socket(AF_INET, SOCK_STREAM, 5000), EINVAL);
	CHECK_ERR(socket(AF_INET, SOCK_RAW, 0), EPROTONOSUPPORT);
	CHECK_ERR(socket(AF_INET, SOCK_STREAM | 0x100000, 0), EINVAL);
	CHECK_ERR(socket(-1, SOCK_STREAM, 0), EAFNOSUPPORT);
	CHECK_ERR(socket(9999, SOCK_STREAM, 0), EAFNOSUPPORT);
	CHECK_ERR(socketpair(AF_INET, SOCK_STREAM, 0, (int[2]){0}), EOPNOTSUPP);
}

TEST(socket_flags)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct stat st;
	char link[64] = {0}, want[64];

	CHECK(fd >= 0);
	CHECK_EQ(fcntl(fd, F_GETFL), O_RDWR | O_NONBLOCK);
	CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
	CHECK_OK(fstat(fd, &st));
	CHECK(S_ISSOCK(st.st_mode));
	snprintf(want, sizeof(want), "/proc/self/fd/%d", fd);
	CHECK(readlink(want, link, sizeof(link) - 1) > 0);
	snprintf(want, sizeof(want), "socket:[%lu]", (unsigned long)st.st_ino);
	CHECK_STR(link, want);
	CHECK_ERR(lseek(fd, 0, SEEK_SET), ESPIPE);
}

TEST(stream_echo)
{
	char buf[64];
	int p[2];

	connected(p);
	CHECK_EQ(write(p[0], "hello", 5), 5);
	CHECK_EQ(read(p[1], buf, sizeof(buf)), 5);
	CHECK(!memcmp(buf, "hello", 5));
	CHECK_EQ(send(p[1], "back", 4, 0), 4);
	CHECK_EQ(recv(p[0], buf, 2, MSG_PEEK), 2);
	CHECK_EQ(recv(p[0], buf, sizeof(buf), 0), 4);
	CHECK(!memcmp(buf, "back", 4));
	CHECK_ERR(recv(p[0], buf, 1, MSG_DONTWAIT), EAGAIN);
	CHECK_EQ(read(p[0], buf, 0), 0);
	CHECK_OK(shutdown(p[1], SHUT_WR));
	CHECK_EQ(read(p[0], buf, sizeof(buf)), 0);
	CHECK_EQ(write(p[0], "x", 1), 1);
	CHECK_EQ(read(p[1], buf, sizeof(buf)), 1);
}

TEST(names)
{
	struct sockaddr_in a, b;
	socklen_t len = sizeof(b);
	int l = listener(&a), c = tcp(), s;

	CHECK_ERR(getpeername(c, (struct sockaddr *)&b, &len), ENOTCONN);
	CHECK_OK(connect(c, (struct sockaddr *)&a, sizeof(a)));
	len = sizeof(b);
	CHECK_OK(getpeername(c, (struct sockaddr *)&b, &len));
	CHECK_EQ(b.sin_port, a.sin_port);
	len = sizeof(b);
	memset(&b, 0, sizeof(b));
	s = accept4(l, (struct sockaddr *)&b, &len, SOCK_NONBLOCK);
	CHECK(s >= 0);
	CHECK_EQ(len, sizeof(b));
	CHECK_EQ(b.sin_addr.s_addr, htonl(INADDR_LOOPBACK));
	CHECK_EQ(fcntl(s, F_GETFL), O_RDWR | O_NONBLOCK);
	/* A short buffer is filled as far as it goes; the length is the whole. */
	len = 4;
	memset(&b, 0xff, sizeof(b));
	CHECK_OK(getsockname(c, (struct sockaddr *)&b, &len));
	CHECK_EQ(len, sizeof(b));
	CHECK_EQ(b.sin_addr.s_addr, 0xffffffff);
	len = (socklen_t)-1;
	CHECK_ERR(getsockname(c, (struct sockaddr *)&b, &len), EINVAL);
}

TEST(bind_errors)
{
	struct sockaddr_in a, b;
	int l = listener(&a), fd = tcp();

	CHECK_ERR(bind(fd, (struct sockaddr *)&a, sizeof(a)), EADDRINUSE);
	CHECK_ERR(bind(fd, (struct sockaddr *)&a, 4), EINVAL);
	b = a;
	b.sin_family = AF_INET6;
	CHECK_ERR(bind(fd, (struct sockaddr *)&b, sizeof(b)), EAFNOSUPPORT);
	b = loop4(0);
	b.sin_addr.s_addr = htonl(0x01020304);
	CHECK_ERR(bind(fd, (struct sockaddr *)&b, sizeof(b)), EADDRNOTAVAIL);
	CHECK_ERR(bind(l, (struct sockaddr *)&a, sizeof(a)), EINVAL);
	CHECK_ERR(bind(fd, (struct sockaddr *)1, sizeof(a)), EFAULT);
	CHECK_ERR(bind(fd, (struct sockaddr *)&a, 4096), EINVAL);
	CHECK_ERR(bind(999, (struct sockaddr *)&a, sizeof(a)), EBADF);
	CHECK_ERR(bind(t_file("f", ""), (struct sockaddr *)&a, sizeof(a)), ENOTSOCK);
}

TEST(privileged_port)
{
	struct sockaddr_in a = loop4(1001);
	int fd = tcp();

	CHECK_OK(bind(fd, (struct sockaddr *)&a, sizeof(a)));
	close(fd);
	t_become(1000, 1000);
	fd = tcp();
	CHECK_ERR(bind(fd, (struct sockaddr *)&a, sizeof(a)), EACCES);
	a.sin_port = htons(10001);
	CHECK_OK(bind(fd, (struct sockaddr *)&a, sizeof(a)));
	CHECK_ERR(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP), EPERM);
}

TEST(connect_errors)
{
	struct sockaddr_in a;
	int l = listener(&a), fd = tcp();

	close(l);
	CHECK_ERR(connect(fd, (struct sockaddr *)&a, sizeof(a)), ECONNREFUSED);
	CHECK_ERR(connect(fd, (struct sockaddr *)&a, 3), EINVAL);
	a.sin_family = AF_UNIX;
	CHECK_ERR(connect(fd, (struct sockaddr *)&a, sizeof(a)), EAFNOSUPPORT);
	CHECK_ERR(accept(fd, NULL, NULL), EINVAL);
	CHECK_ERR(send(fd, "x", 1, MSG_NOSIGNAL), EPIPE);
	CHECK_ERR(recv(fd, &a, 1, 0), ENOTCONN);
	CHECK_ERR(shutdown(fd, SHUT_RD), ENOTCONN);
	CHECK_ERR(shutdown(fd, 5), EINVAL);
}

TEST(connect_nonblocking)
{
	struct sockaddr_in a;
	struct pollfd p;
	int l = listener(&a), fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), err;

	err = connect(fd, (struct sockaddr *)&a, sizeof(a)) ? errno : 0;
	CHECK(err == 0 || err == EINPROGRESS);
	p = (struct pollfd){.fd = fd, .events = POLLOUT};
	CHECK_EQ(poll(&p, 1, 5000), 1);
	CHECK_EQ(p.revents, POLLOUT);
	CHECK_EQ(get_int(fd, SOL_SOCKET, SO_ERROR), 0);
	err = connect(fd, (struct sockaddr *)&a, sizeof(a)) ? errno : 0;
	CHECK(err == 0 || err == EISCONN);
	CHECK_ERR(connect(fd, (struct sockaddr *)&a, sizeof(a)), EISCONN);
	/* Refused. */
	close(l);
	close(fd);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	err = connect(fd, (struct sockaddr *)&a, sizeof(a)) ? errno : 0;
	CHECK(err == EINPROGRESS || err == ECONNREFUSED);
	if (err == EINPROGRESS) {
		p = (struct pollfd){.fd = fd, .events = POLLIN | POLLOUT};
		CHECK_EQ(poll(&p, 1, 5000), 1);
		CHECK_EQ(p.revents, POLLIN | POLLOUT | POLLERR | POLLHUP);
		CHECK_EQ(get_int(fd, SOL_SOCKET, SO_ERROR), ECONNREFUSED);
		CHECK_EQ(get_int(fd, SOL_SOCKET, SO_ERROR), 0);
	}
}

TEST(blocking_accept_wakes)
{
	struct sockaddr_in a;
	int l = listener(&a), c;
	pid_t pid = fork();

	if (pid == 0) {
		t_sleep_ms(100);
		c = tcp();
		CHECK_OK(connect(c, (struct sockaddr *)&a, sizeof(a)));
		t_sleep_ms(100);
		CHECK_EQ(write(c, "z", 1), 1);
		_exit(0);
	}
	c = accept(l, NULL, NULL);
	CHECK(c >= 0);
	CHECK_EQ(read(c, &(char){0}, 1), 1);
	CHECK_EQ(read(c, &(char){0}, 1), 0);
	t_wait_ok(pid);
}

static void on_signal(int s)
{
	(void)s;
}

TEST(interrupted)
{
	struct sigaction sa = {.sa_handler = on_signal};
	struct timeval tv = {.tv_sec = 25};
	struct sockaddr_in a;
	int l = listener(&a), p[2];
	char c;

	connected(p);
	sigaction(SIGUSR1, &sa, NULL);
	t_signal_sleeper(SIGUSR1, 0);
	CHECK_ERR(accept(l, NULL, NULL), EINTR);
	t_signal_sleeper(SIGUSR1, 0);
	CHECK_ERR(read(p[0], &c, 1), EINTR);
	t_signal_sleeper(SIGUSR1, 0);
	CHECK_ERR(recv(p[0], &c, 1, 0), EINTR);
	/* With a timeout SA_RESTART restarts nothing. */
	sa.sa_flags = SA_RESTART;
	sigaction(SIGUSR1, &sa, NULL);
	CHECK_OK(setsockopt(p[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)));
	t_signal_sleeper(SIGUSR1, 0);
	CHECK_ERR(recv(p[0], &c, 1, 0), EINTR);
	t_signal_sleeper(SIGUSR1, 0);
	CHECK_ERR(read(p[0], &c, 1), EINTR);
}

TEST(restarted)
{
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
	int p[2];
	char c = 0;
	pid_t parent = getpid(), pid;

	connected(p);
	sigaction(SIGUSR1, &sa, NULL);
	pid = fork();
	if (pid == 0) {
		t_wait_state(parent, "S");
		CHECK_OK(kill(parent, SIGUSR1));
		t_sleep_ms(50);
		CHECK_EQ(write(p[1], "r", 1), 1);
		_exit(0);
	}
	CHECK_EQ(recv(p[0], &c, 1, 0), 1);
	CHECK_EQ(c, 'r');
	t_wait_ok(pid);
}

TEST(timeouts)
{
	struct timeval tv = {.tv_usec = 80000}, got;
	socklen_t len = sizeof(got);
	struct sockaddr_in a;
	int p[2], l = listener(&a);
	int64_t start;
	char c;

	connected(p);
	CHECK_OK(setsockopt(p[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)));
	CHECK_OK(getsockopt(p[0], SOL_SOCKET, SO_RCVTIMEO, &got, &len));
	CHECK_EQ(got.tv_usec, 80000);
	start = t_now_ms();
	CHECK_ERR(recv(p[0], &c, 1, 0), EAGAIN);
	CHECK(t_now_ms() - start >= 70);
	start = t_now_ms();
	CHECK_ERR(read(p[0], &c, 1), EAGAIN);
	CHECK(t_now_ms() - start >= 70);
	CHECK_OK(setsockopt(l, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)));
	CHECK_ERR(accept(l, NULL, NULL), EAGAIN);
	tv.tv_usec = 1000000;
	CHECK_ERR(setsockopt(p[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)), EDOM);
	CHECK_ERR(setsockopt(p[0], SOL_SOCKET, SO_RCVTIMEO, &tv, 4), EINVAL);
}

/* A peer that does not read: the window closes, the sender waits, and goes on when it opens. */
TEST(zero_window)
{
	static char buf[1 << 20];
	size_t sent = 0, got = 0;
	int p[2];
	pid_t pid;
	ssize_t n;

	connected(p);
	fcntl(p[0], F_SETFL, O_NONBLOCK);
	while ((n = write(p[0], buf, sizeof(buf))) > 0)
		sent += (size_t)n;
	CHECK_ERR(write(p[0], buf, 1), EAGAIN);
	CHECK(sent > 65536);
	CHECK_EQ(ready(p[0], POLLIN | POLLOUT), 0);
	CHECK(({
		      int q = 0;
		      ioctl(p[0], SIOCOUTQ, &q);
		      q;
	      }) > 0);
	fcntl(p[0], F_SETFL, 0);
	pid = fork();
	if (pid == 0) {
		close(p[0]);
		while ((n = read(p[1], buf, sizeof(buf))) > 0)
			got += (size_t)n;
		CHECK_EQ(got, sent + 3000000);
		_exit(0);
	}
	close(p[1]);
	for (size_t more = 3000000; more; more -= (size_t)n) {
		n = write(p[0], buf, more < sizeof(buf) ? more : sizeof(buf));
		CHECK(n > 0);
	}
	close(p[0]);
	t_wait_ok(pid);
}

TEST(waitall_and_lowat)
{
	char buf[32];
	int p[2], low;
	pid_t pid;

	connected(p);
	pid = fork();
	if (pid == 0) {
		for (int i = 0; i < 12; i++) {
			CHECK_EQ(write(p[1], "a", 1), 1);
			t_sleep_ms(10);
		}
		_exit(0);
	}
	CHECK_EQ(recv(p[0], buf, 6, MSG_WAITALL), 6);
	low = 4;
	CHECK_OK(setsockopt(p[0], SOL_SOCKET, SO_RCVLOWAT, &low, sizeof(low)));
	CHECK_EQ(get_int(p[0], SOL_SOCKET, SO_RCVLOWAT), 4);
	CHECK(recv(p[0], buf, sizeof(buf), 0) >= 4);
	t_wait_ok(pid);
}

TEST(poll_events)
{
	struct linger lg = {.l_onoff = 1};
	struct sockaddr_in a;
	int p[2], fd = tcp(), l = listener(&a);

	CHECK_EQ(ready(fd, POLLIN | POLLOUT), POLLOUT | POLLHUP);
	CHECK_EQ(ready(l, POLLIN | POLLOUT), 0);
	CHECK_OK(connect(fd, (struct sockaddr *)&a, sizeof(a)));
	becomes_ready(l, POLLIN | POLLOUT, POLLIN);
	connected(p);
	CHECK_EQ(ready(p[0], POLLIN | POLLOUT | POLLRDHUP), POLLOUT);
	CHECK_OK(shutdown(p[1], SHUT_WR));
	becomes_ready(p[0], POLLIN | POLLOUT | POLLRDHUP, POLLIN | POLLOUT | POLLRDHUP);
	CHECK_OK(shutdown(p[0], SHUT_WR));
	becomes_ready(p[0], POLLIN | POLLOUT | POLLRDHUP, POLLIN | POLLOUT | POLLRDHUP | POLLHUP);
	connected(p);
	CHECK_OK(setsockopt(p[1], SOL_SOCKET, SO_LINGER, &lg, sizeof(lg)));
	close(p[1]);
	becomes_ready(p[0], POLLIN | POLLOUT | POLLRDHUP,
		      POLLIN | POLLOUT | POLLRDHUP | POLLHUP | POLLERR);
	CHECK_ERR(read(p[0], &(char){0}, 1), ECONNRESET);
	CHECK_EQ(read(p[0], &(char){0}, 1), 0);
}

TEST(epoll_edges)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLET | EPOLLRDHUP}, got;
	int p[2], ep = epoll_create1(0);
	char buf[8];

	connected(p);
	CHECK_OK(epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &ev));
	CHECK_EQ(epoll_wait(ep, &got, 1, 1000), 1);
	CHECK_EQ(got.events, EPOLLOUT);
	/* An edge may be reported once more (epoll(7), spurious), and not again. */
	if (epoll_wait(ep, &got, 1, 50))
		CHECK_EQ(epoll_wait(ep, &got, 1, 50), 0);
	CHECK_EQ(write(p[1], "ab", 2), 2);
	CHECK_EQ(epoll_wait(ep, &got, 1, 1000), 1);
	CHECK_EQ(got.events, EPOLLIN | EPOLLOUT);
	CHECK_EQ(epoll_wait(ep, &got, 1, 50), 0);
	CHECK_EQ(write(p[1], "c", 1), 1);
	CHECK_EQ(epoll_wait(ep, &got, 1, 1000), 1);
	CHECK_EQ(read(p[0], buf, sizeof(buf)), 3);
	close(p[1]);
	CHECK_EQ(epoll_wait(ep, &got, 1, 1000), 1);
	CHECK_EQ(got.events, EPOLLIN | EPOLLOUT | EPOLLRDHUP);
}

/* Registered when fresh, its first event taken: the end of a connect is an edge. */
TEST(epoll_edge_of_connect)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLET}, got;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), ep = epoll_create1(0), l, q[4],
	    n = 0;
	struct sockaddr_in a = loop4(0);
	socklen_t len = sizeof(a);

	/* A listener whose queue is full makes connections wait. */
	l = tcp();
	CHECK_OK(bind(l, (struct sockaddr *)&a, sizeof(a)));
	CHECK_OK(listen(l, 0));
	CHECK_OK(getsockname(l, (struct sockaddr *)&a, &len));
	for (int i = 0; i < 4; i++) {
		q[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		(void)!connect(q[i], (struct sockaddr *)&a, sizeof(a));
	}
	CHECK_OK(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev));
	CHECK_EQ(epoll_wait(ep, &got, 1, 1000), 1);
	CHECK_EQ(got.events, EPOLLOUT | EPOLLHUP);
	CHECK_ERR(connect(fd, (struct sockaddr *)&a, sizeof(a)), EINPROGRESS);
	t_sleep_ms(50);
	/* Room for all of them: whose retransmission comes first is TCP's affair. */
	CHECK_OK(fcntl(l, F_SETFL, O_NONBLOCK));
	for (int i = 0; i < 250 && n == 0; i++) {
		while (accept(l, NULL, NULL) >= 0)
			;
		n = epoll_wait(ep, &got, 1, 100);
	}
	CHECK_EQ(n, 1);
	CHECK(got.events & EPOLLOUT);
}

TEST(sigpipe)
{
	struct linger lg = {.l_onoff = 1};
	int p[2];
	pid_t pid;
	int status;

	connected(p);
	CHECK_OK(setsockopt(p[1], SOL_SOCKET, SO_LINGER, &lg, sizeof(lg)));
	close(p[1]);
	becomes_ready(p[0], 0, POLLERR | POLLHUP);
	CHECK_ERR(send(p[0], "x", 1, MSG_NOSIGNAL), ECONNRESET);
	CHECK_ERR(send(p[0], "x", 1, MSG_NOSIGNAL), EPIPE);
	pid = fork();
	if (pid == 0) {
		signal(SIGPIPE, SIG_DFL);
		(void)!write(p[0], "x", 1);
		_exit(0);
	}
	status = t_wait_status(pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGPIPE);
}
