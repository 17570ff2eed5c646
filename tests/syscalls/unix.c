/* AF_UNIX: socketpair, named and abstract streams, datagrams, descriptor passing, credentials. */
#include "t.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

TEST(stream_pair)
{
	char buf[16] = "";
	int s[2], n;

	CHECK_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s));
	CHECK_EQ(fcntl(s[0], F_GETFD), FD_CLOEXEC);
	CHECK_EQ(write(s[0], "abc", 3), 3);
	CHECK_EQ(send(s[0], "def", 3, 0), 3);
	CHECK_OK(ioctl(s[1], FIONREAD, &n));
	CHECK_EQ(n, 6);
	CHECK_EQ(recv(s[1], buf, 4, MSG_PEEK), 4);
	CHECK_EQ(read(s[1], buf, 16), 6);
	CHECK_STR(buf, "abcdef");
	CHECK_ERR(recv(s[1], buf, 1, MSG_DONTWAIT), EAGAIN);
	CHECK_OK(shutdown(s[0], SHUT_WR));
	CHECK_EQ(read(s[1], buf, 1), 0);
	CHECK_EQ(write(s[1], "x", 1), 1);
	CHECK_EQ(read(s[0], buf, 1), 1);
	signal(SIGPIPE, SIG_IGN);
	CHECK_ERR(write(s[0], "x", 1), EPIPE);
	close(s[1]);
	CHECK_EQ(read(s[0], buf, 1), 0);
	CHECK_ERR(send(s[0], "x", 1, MSG_NOSIGNAL), EPIPE);
	CHECK_ERR(lseek(s[0], 0, SEEK_SET), ESPIPE);
}

TEST(errors)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int s[2], fd;

	CHECK_ERR(socket(AF_UNIX, 99, 0), EINVAL);
	CHECK_ERR(socket(99, SOCK_STREAM, 0), EAFNOSUPPORT);
	CHECK_ERR(socket(AF_UNIX, SOCK_STREAM, 77), EPROTONOSUPPORT);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	CHECK(fd >= 0);
	strcpy(un.sun_path, "none");
	CHECK_ERR(connect(fd, (struct sockaddr *)&un, sizeof(un)), ENOENT);
	close(t_file("plain", ""));
	strcpy(un.sun_path, "plain");
	CHECK_ERR(connect(fd, (struct sockaddr *)&un, sizeof(un)), ECONNREFUSED);
	CHECK_ERR(bind(fd, (struct sockaddr *)&un, sizeof(un)), EADDRINUSE);
	CHECK_ERR(listen(fd, 1), EINVAL);
	CHECK_ERR(accept(fd, NULL, NULL), EINVAL);
	CHECK_ERR(send(fd, "x", 1, MSG_NOSIGNAL), ENOTCONN);
	CHECK_ERR(recv(fd, &(char){0}, 1, 0), EINVAL);
	CHECK_ERR(send(t_file("f", ""), "x", 1, 0), ENOTSOCK);
	CHECK_ERR(getsockopt(fd, SOL_SOCKET, 9999, &s, &(socklen_t){4}), ENOPROTOOPT);
}

static int listen_at(const char *path, socklen_t *len, struct sockaddr_un *un)
{
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	memset(un, 0, sizeof(*un));
	un->sun_family = AF_UNIX;
	if (path[0] == '@') {
		strcpy(un->sun_path + 1, path + 1);
		*len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
	} else {
		strcpy(un->sun_path, path);
		*len = sizeof(*un);
	}
	CHECK_OK(bind(fd, (struct sockaddr *)un, *len));
	CHECK_OK(listen(fd, 5));
	return fd;
}

static void echo_client(void *arg)
{
	struct sockaddr_un *un = arg;
	socklen_t len = un->sun_path[0] ? sizeof(*un)
					: (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 5);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	char buf[8] = "";

	CHECK_OK(connect(fd, (struct sockaddr *)un, len));
	CHECK_EQ(write(fd, "ping", 4), 4);
	CHECK_EQ(read(fd, buf, 8), 4);
	CHECK_STR(buf, "pong");
}

static void serve_once(const char *path)
{
	struct sockaddr_un un, peer;
	struct ucred cred;
	socklen_t len;
	char buf[8] = "";
	int fd = listen_at(path, &len, &un), c;
	pid_t pid = t_spawn(echo_client, &un);

	len = sizeof(peer);
	c = accept4(fd, (struct sockaddr *)&peer, &len, SOCK_CLOEXEC);
	CHECK(c >= 0);
	CHECK_EQ(len, sizeof(sa_family_t));
	len = sizeof(cred);
	CHECK_OK(getsockopt(c, SOL_SOCKET, SO_PEERCRED, &cred, &len));
	CHECK_EQ(cred.pid, pid);
	CHECK_EQ(cred.uid, getuid());
	CHECK_EQ(read(c, buf, 8), 4);
	CHECK_STR(buf, "ping");
	CHECK_EQ(write(c, "pong", 4), 4);
	t_wait_ok(pid);
	len = sizeof(peer);
	CHECK_OK(getsockname(c, (struct sockaddr *)&peer, &len));
	CHECK_EQ(peer.sun_family, AF_UNIX);
	CHECK(!memcmp(peer.sun_path, un.sun_path, 4));
}

TEST(named_stream)
{
	struct stat st;

	serve_once("sock");
	CHECK_OK(stat("sock", &st));
	CHECK(S_ISSOCK(st.st_mode));
	CHECK_OK(unlink("sock"));
}

TEST(abstract_stream)
{
	serve_once("@abst");
}

TEST(backlog_and_refused)
{
	struct sockaddr_un un;
	socklen_t len;
	int fd = listen_at("sock", &len, &un), c = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	struct pollfd pfd = {fd, POLLIN, 0};

	CHECK_EQ(poll(&pfd, 1, 0), 0);
	CHECK_OK(connect(c, (struct sockaddr *)&un, len));
	CHECK_EQ(poll(&pfd, 1, 0), 1);
	CHECK_ERR(connect(c, (struct sockaddr *)&un, len), EISCONN);
	close(fd);
	CHECK_ERR(connect(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&un, len),
		  ECONNREFUSED);
	CHECK_EQ(read(c, &(char){0}, 1), -1);
}

TEST(datagrams)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX, .sun_path = "d"}, from;
	socklen_t len = sizeof(from);
	char buf[16] = "";
	int s[2], a, b;

	CHECK_OK(socketpair(AF_UNIX, SOCK_DGRAM, 0, s));
	CHECK_EQ(write(s[0], "one", 3), 3);
	CHECK_EQ(write(s[0], "three", 5), 5);
	CHECK_EQ(read(s[1], buf, 2), 2);
	CHECK_EQ(recv(s[1], buf, 2, MSG_TRUNC), 5);
	a = socket(AF_UNIX, SOCK_DGRAM, 0);
	b = socket(AF_UNIX, SOCK_DGRAM, 0);
	CHECK_OK(bind(a, (struct sockaddr *)&un, sizeof(un)));
	strcpy(from.sun_path, "e");
	from.sun_family = AF_UNIX;
	CHECK_OK(bind(b, (struct sockaddr *)&from, sizeof(from)));
	CHECK_EQ(sendto(b, "hi", 2, 0, (struct sockaddr *)&un, sizeof(un)), 2);
	memset(&from, 0, sizeof(from));
	CHECK_EQ(recvfrom(a, buf, 16, 0, (struct sockaddr *)&from, &len), 2);
	CHECK_STR(from.sun_path, "e");
	CHECK_ERR(send(b, "x", 1, 0), ENOTCONN);
	CHECK_OK(connect(b, (struct sockaddr *)&un, sizeof(un)));
	CHECK_EQ(send(b, "x", 1, 0), 1);
	close(a);
	CHECK_ERR(send(b, "x", 1, MSG_NOSIGNAL), ECONNREFUSED);
}

TEST(seqpacket)
{
	char buf[16];
	int s[2];

	CHECK_OK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, s));
	CHECK_EQ(write(s[0], "one", 3), 3);
	CHECK_EQ(write(s[0], "three", 5), 5);
	CHECK_EQ(read(s[1], buf, 16), 3);
	CHECK_EQ(read(s[1], buf, 16), 5);
	close(s[0]);
	CHECK_EQ(read(s[1], buf, 16), 0);
}

static int send_fd(int sock, const int *fds, int count)
{
	char control[CMSG_SPACE(sizeof(int) * 8)] = "";
	struct iovec iov = {"F", 1};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control};
	struct cmsghdr *c;

	msg.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)count);
	c = CMSG_FIRSTHDR(&msg);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)count);
	memcpy(CMSG_DATA(c), fds, sizeof(int) * (size_t)count);
	return (int)sendmsg(sock, &msg, 0);
}

static int recv_fd(int sock, int *fds, int max, int *flags)
{
	char control[CMSG_SPACE(sizeof(int) * 8)] = "", byte;
	struct iovec iov = {&byte, 1};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control};
	struct cmsghdr *c;

	msg.msg_controllen = max ? CMSG_LEN(sizeof(int) * (size_t)max) : 0;
	CHECK_EQ(recvmsg(sock, &msg, MSG_CMSG_CLOEXEC), 1);
	*flags = msg.msg_flags;
	c = CMSG_FIRSTHDR(&msg);
	if (!c)
		return 0;
	memcpy(fds, CMSG_DATA(c), c->cmsg_len - CMSG_LEN(0));
	return (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
}

TEST(pass_descriptors)
{
	int s[2], p[2], got[4], flags, fd = t_file("f", "passed");
	char buf[8] = "";

	CHECK_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	CHECK_OK(pipe(p));
	CHECK_EQ(send_fd(s[0], (int[]){fd, p[1]}, 2), 1);
	CHECK_EQ(recv_fd(s[1], got, 4, &flags), 2);
	CHECK_EQ(fcntl(got[0], F_GETFD), FD_CLOEXEC);
	CHECK_EQ(read(got[0], buf, 8), 6);
	CHECK_STR(buf, "passed");
	/* The same open file: the position moved for both. */
	CHECK_EQ(lseek(fd, 0, SEEK_CUR), 6);
	close(p[1]);
	CHECK_EQ(write(got[1], "x", 1), 1);
	CHECK_EQ(read(p[0], buf, 1), 1);
	close(got[1]);
	CHECK_EQ(read(p[0], buf, 1), 0);
	/* In flight it stays open although the sender closed it. */
	CHECK_OK(pipe(p));
	CHECK_EQ(send_fd(s[0], &p[1], 1), 1);
	close(p[1]);
	CHECK_EQ(recv_fd(s[1], got, 4, &flags), 1);
	CHECK_EQ(write(got[0], "y", 1), 1);
	CHECK_EQ(read(p[0], buf, 1), 1);
	CHECK_ERR(send_fd(s[0], (int[]){999}, 1), EBADF);
}

TEST(pass_truncated)
{
	int s[2], p[2], got[4], flags;
	char c;

	CHECK_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	CHECK_OK(pipe(p));
	CHECK_EQ(send_fd(s[0], (int[]){p[1], p[1]}, 2), 1);
	CHECK_EQ(recv_fd(s[1], got, 1, &flags), 1);
	CHECK(flags & MSG_CTRUNC);
	close(got[0]);
	CHECK_EQ(send_fd(s[0], (int[]){p[1]}, 1), 1);
	CHECK_EQ(recv_fd(s[1], got, 0, &flags), 0);
	CHECK(flags & MSG_CTRUNC);
	close(p[1]);
	CHECK_EQ(read(p[0], &c, 1), 0);
	/* A queue that is dropped drops what it carries. */
	CHECK_OK(pipe(p));
	CHECK_EQ(send_fd(s[0], &p[1], 1), 1);
	close(p[1]);
	close(s[0]);
	close(s[1]);
	CHECK_EQ(read(p[0], &c, 1), 0);
}

/* A socket sent to itself, and closed: the cycle must not keep the pipe open. */
TEST(pass_cycle)
{
	int s[2], p[2];
	char c;

	CHECK_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	CHECK_OK(pipe2(p, O_NONBLOCK));
	CHECK_EQ(send_fd(s[0], (int[]){s[1], p[1]}, 2), 1);
	close(p[1]);
	close(s[0]);
	close(s[1]);
	/* The collector of Linux runs when sockets come and go. */
	for (int i = 0; i < 200; i++) {
		CHECK_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
		CHECK_EQ(send_fd(s[0], &s[1], 1), 1);
		close(s[0]);
		close(s[1]);
		if (read(p[0], &c, 1) == 0)
			return;
		t_sleep_ms(5);
	}
	CHECK_EQ(read(p[0], &c, 1), 0);
}

TEST(credentials)
{
	char control[CMSG_SPACE(sizeof(struct ucred))] = "", byte;
	struct iovec iov = {&byte, 1};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};
	struct ucred cred;
	struct cmsghdr *c;
	int s[2];

	CHECK_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	CHECK_OK(setsockopt(s[1], SOL_SOCKET, SO_PASSCRED, &(int){1}, sizeof(int)));
	CHECK_EQ(write(s[0], "x", 1), 1);
	CHECK_EQ(recvmsg(s[1], &msg, 0), 1);
	c = CMSG_FIRSTHDR(&msg);
	CHECK(c && c->cmsg_type == SCM_CREDENTIALS);
	memcpy(&cred, CMSG_DATA(c), sizeof(cred));
	CHECK_EQ(cred.pid, getpid());
	CHECK_EQ(cred.uid, getuid());
}

TEST(options)
{
	socklen_t len = sizeof(int);
	int s[2], v;

	CHECK_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	CHECK_OK(getsockopt(s[0], SOL_SOCKET, SO_TYPE, &v, &len));
	CHECK_EQ(v, SOCK_STREAM);
	CHECK_OK(getsockopt(s[0], SOL_SOCKET, SO_DOMAIN, &v, &len));
	CHECK_EQ(v, AF_UNIX);
	CHECK_OK(getsockopt(s[0], SOL_SOCKET, SO_ERROR, &v, &len));
	CHECK_EQ(v, 0);
	CHECK_OK(getsockopt(s[0], SOL_SOCKET, SO_ACCEPTCONN, &v, &len));
	CHECK_EQ(v, 0);
	CHECK_OK(setsockopt(s[0], SOL_SOCKET, SO_SNDBUF, &(int){100000}, sizeof(int)));
	CHECK_OK(getsockopt(s[0], SOL_SOCKET, SO_SNDBUF, &v, &len));
	CHECK_EQ(v, 200000);
	CHECK_OK(setsockopt(s[0], SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){0, 30000},
			    sizeof(struct timeval)));
	CHECK_ERR(recv(s[0], &v, 1, 0), EAGAIN);
}

TEST(flow_control)
{
	static char buf[1 << 16];
	size_t sent = 0, received = 0;
	ssize_t n;
	int s[2];

	CHECK_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, s));
	while ((n = write(s[0], buf, sizeof(buf))) > 0)
		sent += (size_t)n;
	CHECK(sent > 32768 && sent < 8 << 20);
	CHECK_EQ(poll(&(struct pollfd){s[0], POLLOUT, 0}, 1, 0), 0);
	while ((n = read(s[1], buf, sizeof(buf))) > 0)
		received += (size_t)n;
	CHECK_EQ(sent, received);
	CHECK_EQ(poll(&(struct pollfd){s[0], POLLOUT, 0}, 1, 0), 1);
}

TEST(recvmmsg_sendmmsg)
{
	char a[4], b[4];
	struct iovec ia = {a, 4}, ib = {b, 4}, oa = {"aa", 2}, ob = {"bbb", 3};
	struct mmsghdr out[2] = {{.msg_hdr = {.msg_iov = &oa, .msg_iovlen = 1}},
				 {.msg_hdr = {.msg_iov = &ob, .msg_iovlen = 1}}};
	struct mmsghdr in[2] = {{.msg_hdr = {.msg_iov = &ia, .msg_iovlen = 1}},
				{.msg_hdr = {.msg_iov = &ib, .msg_iovlen = 1}}};
	int s[2];

	CHECK_OK(socketpair(AF_UNIX, SOCK_DGRAM, 0, s));
	CHECK_EQ(sendmmsg(s[0], out, 2, 0), 2);
	CHECK_EQ(out[1].msg_len, 3);
	CHECK_EQ(recvmmsg(s[1], in, 2, 0, NULL), 2);
	CHECK_EQ(in[0].msg_len, 2);
	CHECK_EQ(in[1].msg_len, 3);
}

TEST(poll_hangup)
{
	struct pollfd pfd;
	int s[2];

	CHECK_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	pfd = (struct pollfd){s[0], POLLIN | POLLOUT | POLLRDHUP, 0};
	CHECK_EQ(poll(&pfd, 1, 0), 1);
	CHECK_EQ(pfd.revents, POLLOUT);
	CHECK_OK(shutdown(s[1], SHUT_WR));
	CHECK_EQ(poll(&pfd, 1, 0), 1);
	CHECK_EQ(pfd.revents, POLLIN | POLLOUT | POLLRDHUP);
	close(s[1]);
	CHECK_EQ(poll(&pfd, 1, 0), 1);
	CHECK_EQ(pfd.revents, POLLIN | POLLOUT | POLLRDHUP | POLLHUP);
}
