/* tests/syscalls/unix_more.c - AF_UNIX's finer points: autobind, peers' pidfds, peeking, accounting. */
#include <grp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <linux/sockios.h>

#include "t.h"

#ifndef SO_PEERGROUPS
#define SO_PEERGROUPS 59
#endif
#define SO_PASSPIDFD_NR 76
#define SO_PEERPIDFD_NR 77
#define SCM_PIDFD_NR 4

static void pair(int type, int sp[2])
{
	CHECK_OK(socketpair(AF_UNIX, type, 0, sp));
}

static void set_int(int fd, int opt, int v)
{
	CHECK_OK(setsockopt(fd, SOL_SOCKET, opt, &v, sizeof(v)));
}

static int get_int(int fd, int opt)
{
	int v = -1;
	socklen_t len = sizeof(v);

	CHECK_OK(getsockopt(fd, SOL_SOCKET, opt, &v, &len));
	return v;
}

/* The process that a pidfd is for. */
static int pidfd_pid(int fd)
{
	char path[64];
	const char *p;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	p = strstr(t_read(path), "Pid:");
	return p ? atoi(p + 4) : -1;
}

TEST(autobind)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX}, b = {0};
	socklen_t len = sizeof(b);
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0), two = socket(AF_UNIX, SOCK_DGRAM, 0);

	CHECK_OK(bind(fd, (struct sockaddr *)&a, sizeof(sa_family_t)));
	CHECK_OK(getsockname(fd, (struct sockaddr *)&b, &len));
	CHECK_EQ(len, sizeof(sa_family_t) + 6);
	CHECK_EQ(b.sun_path[0], 0);
	CHECK_EQ(strspn(b.sun_path + 1, "0123456789abcdef"), 5);
	/* A second bind without a name is nothing; with one it is an error. */
	CHECK_OK(bind(fd, (struct sockaddr *)&a, sizeof(sa_family_t)));
	strcpy(a.sun_path, "x");
	CHECK_ERR(bind(fd, (struct sockaddr *)&a, sizeof(a)), EINVAL);
	/* Sending with SO_PASSCRED names the sender. */
	set_int(two, SO_PASSCRED, 1);
	CHECK_EQ(sendto(two, "x", 1, 0, (struct sockaddr *)&b, len), 1);
	len = sizeof(b);
	CHECK_OK(getsockname(two, (struct sockaddr *)&b, &len));
	CHECK_EQ(len, sizeof(sa_family_t) + 6);
}

TEST(peer_credentials)
{
	struct ucred uc = {0};
	socklen_t len = sizeof(uc);
	gid_t groups[8] = {0};
	int sp[2], fd;

	CHECK_OK(setgroups(2, (gid_t[]){7, 9}));
	pair(SOCK_STREAM, sp);
	CHECK_OK(getsockopt(sp[0], SOL_SOCKET, SO_PEERCRED, &uc, &len));
	CHECK_EQ(uc.pid, getpid());
	len = sizeof(groups);
	CHECK_OK(getsockopt(sp[0], SOL_SOCKET, SO_PEERGROUPS, groups, &len));
	CHECK_EQ(len, 2 * sizeof(gid_t));
	CHECK(groups[0] == 7 && groups[1] == 9);
	len = sizeof(gid_t);
	CHECK_ERR(getsockopt(sp[0], SOL_SOCKET, SO_PEERGROUPS, groups, &len), ERANGE);
	CHECK_EQ(len, 2 * sizeof(gid_t));
	fd = get_int(sp[0], SO_PEERPIDFD_NR);
	CHECK(fd >= 0);
	CHECK_EQ(pidfd_pid(fd), getpid());
	CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	len = sizeof(int);
	CHECK_ERR(getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD_NR, groups, &len), ENODATA);
}

TEST(pidfd_messages)
{
	union {
		char buf[128];
		struct cmsghdr align;
	} u;
	char c;
	struct iovec iov = {&c, 1};
	struct msghdr h = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = u.buf,
			   .msg_controllen = sizeof(u.buf)};
	int sp[2], fd = -1;
	bool cred = false;
	pid_t pid;

	pair(SOCK_STREAM, sp);
	set_int(sp[0], SO_PASSPIDFD_NR, 1);
	CHECK_EQ(get_int(sp[0], SO_PASSPIDFD_NR), 1);
	set_int(sp[0], SO_PASSCRED, 1);
	pid = fork();
	if (pid == 0) {
		CHECK_EQ(write(sp[1], "x", 1), 1);
		pause();
	}
	CHECK_EQ(recvmsg(sp[0], &h, MSG_CMSG_CLOEXEC), 1);
	for (struct cmsghdr *cm = CMSG_FIRSTHDR(&h); cm; cm = CMSG_NXTHDR(&h, cm)) {
		CHECK_EQ(cm->cmsg_level, SOL_SOCKET);
		if (cm->cmsg_type == SCM_PIDFD_NR)
			memcpy(&fd, CMSG_DATA(cm), sizeof(fd));
		else if (cm->cmsg_type == SCM_CREDENTIALS)
			cred = true;
	}
	CHECK(cred);
	CHECK(fd >= 0);
	CHECK_EQ(pidfd_pid(fd), pid);
	CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
	kill(pid, SIGKILL);
	t_wait_status(pid);
}

TEST(peek_offset)
{
	char buf[8];
	int sp[2];

	pair(SOCK_STREAM, sp);
	CHECK_EQ(write(sp[0], "abcdef", 6), 6);
	set_int(sp[1], SO_PEEK_OFF, 1);
	CHECK_EQ(recv(sp[1], buf, 2, MSG_PEEK), 2);
	CHECK(!memcmp(buf, "bc", 2));
	CHECK_EQ(get_int(sp[1], SO_PEEK_OFF), 3);
	CHECK_EQ(recv(sp[1], buf, 8, MSG_PEEK), 3);
	CHECK(!memcmp(buf, "def", 3));
	CHECK_EQ(get_int(sp[1], SO_PEEK_OFF), 6);
	CHECK_EQ(recv(sp[1], buf, 2, 0), 2);
	CHECK_EQ(get_int(sp[1], SO_PEEK_OFF), 4);
	pair(SOCK_DGRAM, sp);
	CHECK_EQ(send(sp[0], "abcdef", 6, 0), 6);
	set_int(sp[1], SO_PEEK_OFF, 2);
	CHECK_EQ(recv(sp[1], buf, 8, MSG_PEEK), 4);
	CHECK(!memcmp(buf, "cdef", 4));
}

TEST(stream_truncate)
{
	char buf[8] = "zzzz";
	int sp[2];

	pair(SOCK_STREAM, sp);
	CHECK_EQ(write(sp[0], "abcdef", 6), 6);
	CHECK_EQ(recv(sp[1], buf, 2, MSG_TRUNC), 2);
	CHECK_EQ(recv(sp[1], buf, 8, 0), 4);
	CHECK_EQ(recv(sp[1], buf, 0, MSG_DONTWAIT), -1);
}

TEST(dgram_truncate)
{
	char buf[4];
	struct iovec iov = {buf, 2};
	struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};
	int sp[2];

	pair(SOCK_SEQPACKET, sp);
	CHECK_EQ(send(sp[0], "abcdef", 6, 0), 6);
	CHECK_EQ(send(sp[0], "gh", 2, 0), 2);
	CHECK_EQ(recv(sp[1], buf, 2, MSG_PEEK | MSG_TRUNC), 6);
	CHECK_EQ(recvmsg(sp[1], &h, 0), 2);
	CHECK_EQ(h.msg_flags & MSG_TRUNC, MSG_TRUNC);
	CHECK_EQ(recvmsg(sp[1], &h, 0), 2);
	CHECK_EQ(h.msg_flags & MSG_TRUNC, 0);
}

TEST(queues)
{
	int sp[2], n = -1, before;
	char buf[64];

	pair(SOCK_STREAM, sp);
	CHECK_OK(ioctl(sp[0], SIOCOUTQ, &n));
	CHECK_EQ(n, 0);
	CHECK_EQ(write(sp[0], buf, 10), 10);
	CHECK_EQ(write(sp[0], buf, 20), 20);
	CHECK_OK(ioctl(sp[1], FIONREAD, &n));
	CHECK_EQ(n, 30);
	CHECK_OK(ioctl(sp[0], SIOCOUTQ, &before));
	CHECK(before >= 30);
	CHECK_EQ(read(sp[1], buf, 64), 30);
	CHECK_OK(ioctl(sp[0], SIOCOUTQ, &n));
	CHECK_EQ(n, 0);
	pair(SOCK_DGRAM, sp);
	CHECK_EQ(write(sp[0], buf, 10), 10);
	CHECK_EQ(write(sp[0], buf, 20), 20);
	CHECK_OK(ioctl(sp[1], FIONREAD, &n));
	CHECK_EQ(n, 10);
}

TEST(send_buffer)
{
	static char buf[300000];
	int sp[2];
	ssize_t n, total = 0;
	struct pollfd p;

	pair(SOCK_STREAM, sp);
	set_int(sp[0], SO_SNDBUF, 5000);
	CHECK_EQ(get_int(sp[0], SO_SNDBUF), 10000);
	fcntl(sp[0], F_SETFL, O_NONBLOCK);
	while ((n = write(sp[0], buf, 1000)) > 0)
		total += n;
	CHECK(total >= 1000 && total < 20000);
	p = (struct pollfd){.fd = sp[0], .events = POLLOUT};
	CHECK_EQ(poll(&p, 1, 0), 0);
	CHECK_EQ(read(sp[1], buf, sizeof(buf)), total);
	CHECK_EQ(poll(&p, 1, 0), 1);
	pair(SOCK_DGRAM, sp);
	CHECK_ERR(send(sp[0], buf, sizeof(buf), 0), EMSGSIZE);
	set_int(sp[0], SO_SNDBUF, 1);
	CHECK_EQ(get_int(sp[0], SO_SNDBUF), 4608);
}

TEST(errors)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = "s"};
	int l = socket(AF_UNIX, SOCK_STREAM, 0), d = socket(AF_UNIX, SOCK_DGRAM, 0), sp[2], v;
	socklen_t len = sizeof(v);

	CHECK_ERR(listen(l, 1), EINVAL);
	CHECK_OK(bind(l, (struct sockaddr *)&a, sizeof(a)));
	CHECK_ERR(connect(d, (struct sockaddr *)&a, sizeof(a)), EPROTOTYPE);
	CHECK_ERR(connect(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&a, sizeof(a)),
		  ECONNREFUSED);
	CHECK_ERR(bind(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&a, sizeof(a)),
		  EADDRINUSE);
	CHECK_OK(listen(l, 1));
	CHECK_EQ(get_int(l, SO_ACCEPTCONN), 1);
	CHECK_ERR(connect(l, (struct sockaddr *)&a, sizeof(a)), EINVAL);
	CHECK_ERR(accept(d, NULL, NULL), EOPNOTSUPP);
	CHECK_ERR(send(d, "x", 1, 0), ENOTCONN);
	CHECK_ERR(sendto(d, "x", 1, 0, (struct sockaddr *)&a, sizeof(a)), EPROTOTYPE);
	pair(SOCK_STREAM, sp);
	CHECK_ERR(sendto(sp[0], "x", 1, 0, (struct sockaddr *)&a, sizeof(a)), EISCONN);
	CHECK_ERR(setsockopt(sp[0], SOL_SOCKET, 9999, &v, sizeof(v)), ENOPROTOOPT);
	CHECK_ERR(getsockopt(sp[0], 6, 1, &v, &len), EOPNOTSUPP);
	CHECK_ERR(socket(AF_UNIX, SOCK_RDM, 0), ESOCKTNOSUPPORT);
	CHECK_ERR(socket(AF_UNIX, SOCK_STREAM, 5), EPROTONOSUPPORT);
}

TEST(options)
{
	int sp[2], fd = socket(AF_UNIX, SOCK_STREAM, 0), v = 1;
	struct linger lg;
	socklen_t len = sizeof(lg);

	pair(SOCK_STREAM, sp);
	CHECK_EQ(get_int(sp[0], SO_DOMAIN), AF_UNIX);
	CHECK_EQ(get_int(sp[0], SO_TYPE), SOCK_STREAM);
	CHECK_EQ(get_int(sp[0], SO_PROTOCOL), 0);
	CHECK_EQ(get_int(sp[0], SO_SNDLOWAT), 1);
	set_int(fd, SO_KEEPALIVE, 1);
	CHECK_EQ(get_int(fd, SO_KEEPALIVE), 1);
	CHECK_OK(getsockopt(fd, SOL_SOCKET, SO_LINGER, &lg, &len));
	CHECK_EQ(len, sizeof(lg));
	CHECK_ERR(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &v, sizeof(v)), EOPNOTSUPP);
	CHECK_ERR(setsockopt(fd, SOL_SOCKET, 60 /* SO_ZEROCOPY */, &v, sizeof(v)), EOPNOTSUPP);
	CHECK_EQ(get_int(fd, SO_BUSY_POLL), 0);
	t_become(1000, 1000);
	CHECK_ERR(setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &v, sizeof(v)), EPERM);
	CHECK_ERR(setsockopt(fd, SOL_SOCKET, SO_MARK, &v, sizeof(v)), EPERM);
}

TEST(disconnect)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = "d"},
			   none = {.sun_family = AF_UNSPEC};
	int s = socket(AF_UNIX, SOCK_DGRAM, 0), c = socket(AF_UNIX, SOCK_DGRAM, 0);
	char buf[4];

	CHECK_OK(bind(s, (struct sockaddr *)&a, sizeof(a)));
	CHECK_OK(connect(c, (struct sockaddr *)&a, sizeof(a)));
	CHECK_EQ(send(c, "x", 1, 0), 1);
	CHECK_EQ(recv(s, buf, 4, 0), 1);
	CHECK_OK(connect(c, (struct sockaddr *)&none, sizeof(sa_family_t)));
	CHECK_ERR(send(c, "x", 1, 0), ENOTCONN);
	CHECK_OK(connect(c, (struct sockaddr *)&a, sizeof(a)));
	close(s);
	CHECK_ERR(send(c, "x", 1, 0), ECONNREFUSED);
	CHECK_ERR(send(c, "x", 1, 0), ENOTCONN);
}

static volatile sig_atomic_t got_io;

static void on_io(int s)
{
	(void)s;
	got_io = 1;
}

TEST(sigio)
{
	int sp[2];

	pair(SOCK_STREAM, sp);
	signal(SIGIO, on_io);
	CHECK_OK(fcntl(sp[0], F_SETOWN, getpid()));
	CHECK_OK(fcntl(sp[0], F_SETFL, O_ASYNC));
	got_io = 0;
	CHECK_EQ(write(sp[1], "x", 1), 1);
	for (int i = 0; i < 4000 && !got_io; i++)
		t_sleep_ms(5);
	CHECK_EQ(got_io, 1);
}

TEST(poll_says_band)
{
	static const int types[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET};

	for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++) {
		struct pollfd p = {.events = POLLOUT | POLLWRNORM | POLLWRBAND};
		int fds[2];

		CHECK_OK(socketpair(AF_UNIX, types[i], 0, fds));
		p.fd = fds[0];
		CHECK_EQ(poll(&p, 1, 0), 1);
		CHECK_EQ(p.revents, POLLOUT | POLLWRNORM | POLLWRBAND);
		p.events = POLLWRBAND;
		CHECK_EQ(poll(&p, 1, 0), 1);
		close(fds[0]);
		close(fds[1]);
	}
}
