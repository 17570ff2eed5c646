/*
 * socker VERB stream|seqpacket|dgram PATH: one side of a conversation over a Unix socket, on the host as inside.
 *
 * serve	binds, makes PATH.ready, answers one client ("got hello" ...) and ends when that does; serve2: two clients
 * serve-fds	the same; the answer carries a descriptor
 * ask		connects, sends, waits by poll(2) for the answer, prints it and what is known of the peer
 * ask-fds	sends a descriptor
 * bulk		connects, writes 4 MiB without blocking and shuts down, reads them back from `echo`
 * echo		binds, and returns what one client sends
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BULK (4u << 20)

static int type_of(const char *s)
{
	return !strcmp(s, "stream")  ? SOCK_STREAM
	       : !strcmp(s, "dgram") ? SOCK_DGRAM
				     : SOCK_SEQPACKET;
}

static int fail(const char *what)
{
	printf("%s: %s\n", what, strerrorname_np(errno));
	fflush(stdout);
	exit(3);
}

/* The name is relative to its directory: a path of the host's may be longer than an address. */
static struct sockaddr_un name_of(const char *path)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	char *dir = strdup(path), *base = strdup(path);

	if (strlen(path) < sizeof(un.sun_path)) {
		strcpy(un.sun_path, path);
	} else {
		if (chdir(dirname(dir)))
			fail("chdir");
		strncpy(un.sun_path, basename(base), sizeof(un.sun_path) - 1);
	}
	return un;
}

static void await(int fd, short events)
{
	struct pollfd p = {.fd = fd, .events = events};

	if (poll(&p, 1, 60000) != 1)
		fail("poll");
}

static ssize_t send_with(int fd, const char *text, int right)
{
	union {
		struct cmsghdr h;
		char room[CMSG_SPACE(sizeof(int))];
	} c = {.h = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS}};
	struct iovec iov = {(void *)text, strlen(text)};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

	if (right >= 0) {
		memcpy(CMSG_DATA(&c.h), &right, sizeof(right));
		m.msg_control = &c;
		m.msg_controllen = sizeof(c.room);
	}
	return sendmsg(fd, &m, 0);
}

static int ready(const char *path)
{
	char name[4096];
	int fd;

	snprintf(name, sizeof(name), "%s.ready", path);
	fd = open(name, O_CREAT | O_WRONLY, 0666);
	return fd < 0 ? -1 : close(fd);
}

static void serve_one(int l, int type, int fds)
{
	struct sockaddr_un from;
	socklen_t len = sizeof(from);
	char buf[64] = "";
	struct ucred cred;
	ssize_t n;
	int fd = l;

	await(l, POLLIN);
	if (type != SOCK_DGRAM)
		fd = accept(l, (struct sockaddr *)&from, &len);
	if (fd < 0)
		fail("accept");
	await(fd, POLLIN);
	n = recv(fd, buf, sizeof(buf) - 1, 0);
	len = sizeof(cred);
	if (n < 0 || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len))
		fail("recv");
	printf("got %s\n", buf);
	fflush(stdout);
	if (type == SOCK_DGRAM)
		return;
	if (send_with(fd, "answer", fds ? 1 : -1) != 6)
		fail("send");
	/* The client's end. */
	await(fd, POLLIN);
	if (recv(fd, buf, sizeof(buf), 0) != 0)
		fail("end");
	close(fd);
}

static int serve(const char *verb, int type, const char *path)
{
	struct sockaddr_un un;
	int l = socket(AF_UNIX, type, 0), clients = !strcmp(verb, "serve2") ? 2 : 1;
	char *abs = strdup(path);

	un = name_of(path);
	if (bind(l, (struct sockaddr *)&un, sizeof(un)))
		fail("bind");
	chmod(un.sun_path, 0777);
	if (type != SOCK_DGRAM && listen(l, 4))
		fail("listen");
	if (ready(abs))
		fail("ready");
	for (int i = 0; i < clients; i++)
		serve_one(l, type, !strcmp(verb, "serve-fds"));
	return 0;
}

static int ask(const char *verb, int type, const char *path)
{
	struct sockaddr_un un = name_of(path), peer;
	socklen_t len = sizeof(peer);
	char buf[64] = "", control[256];
	struct iovec iov = {buf, sizeof(buf) - 1};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = control,
			   .msg_controllen = sizeof(control)};
	struct ucred cred = {0};
	int fd = socket(AF_UNIX, type, 0);
	ssize_t n;

	if (connect(fd, (struct sockaddr *)&un, sizeof(un)))
		fail("connect");
	if (getpeername(fd, (struct sockaddr *)&peer, &len))
		fail("getpeername");
	if (send_with(fd, "hello", !strcmp(verb, "ask-fds") ? 1 : -1) != 5)
		fail("send");
	if (type == SOCK_DGRAM) {
		printf("sent\n");
		return 0;
	}
	await(fd, POLLIN);
	n = recvmsg(fd, &m, 0);
	len = sizeof(cred);
	if (n < 0 || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len))
		fail("recv");
	printf("%s uid %d%s%s\n", buf, (int)cred.uid, m.msg_controllen ? " control" : "",
	       m.msg_flags & MSG_CTRUNC ? " ctrunc" : "");
	if (shutdown(fd, SHUT_WR) || send(fd, "x", 1, MSG_NOSIGNAL) != -1 || errno != EPIPE)
		fail("shutdown");
	await(fd, POLLIN);
	n = recv(fd, buf, sizeof(buf), 0);
	if (n != 0)
		fail("end");
	return 0;
}

static int echo(int type, const char *path)
{
	struct sockaddr_un un = name_of(path);
	static char buf[BULK];
	size_t size = 0, done = 0;
	int l = socket(AF_UNIX, type, 0), fd;
	ssize_t n;

	if (bind(l, (struct sockaddr *)&un, sizeof(un)) || listen(l, 4) || ready(path))
		fail("bind");
	chmod(un.sun_path, 0777);
	fd = accept(l, NULL, NULL);
	/* Until the writer has filled the socket. */
	usleep(300000);
	while (size < BULK && (n = read(fd, buf + size, BULK - size)) > 0)
		size += (size_t)n;
	while (done < size && (n = write(fd, buf + done, size - done)) > 0)
		done += (size_t)n;
	return 0;
}

static int bulk(int type, const char *path)
{
	struct sockaddr_un un = name_of(path);
	static unsigned char out[BULK], in[BULK];
	size_t sent = 0, got = 0;
	int fd = socket(AF_UNIX, type | SOCK_NONBLOCK, 0), full = 0;
	ssize_t n;

	for (size_t i = 0; i < BULK; i++)
		out[i] = (unsigned char)(i * 7 + (i >> 12));
	if (connect(fd, (struct sockaddr *)&un, sizeof(un)))
		fail("connect");
	while (sent < BULK) {
		n = write(fd, out + sent, BULK - sent);
		if (n > 0)
			sent += (size_t)n;
		else if (n < 0 && errno == EAGAIN)
			full = 1, await(fd, POLLOUT);
		else
			fail("write");
	}
	if (shutdown(fd, SHUT_WR))
		fail("shutdown");
	for (;;) {
		n = got < BULK ? read(fd, in + got, BULK - got) : 0;
		if (n == 0)
			break;
		if (n > 0)
			got += (size_t)n;
		else if (errno == EAGAIN)
			await(fd, POLLIN);
		else
			fail("read");
	}
	printf("%s %s\n", got == BULK && !memcmp(in, out, BULK) ? "same" : "differs",
	       full ? "waited" : "never-full");
	return 0;
}

int main(int argc, char **argv)
{
	int type;

	if (argc != 4)
		return 2;
	type = type_of(argv[2]);
	if (!strncmp(argv[1], "serve", 5))
		return serve(argv[1], type, argv[3]);
	if (!strcmp(argv[1], "echo"))
		return echo(type, argv[3]);
	if (!strcmp(argv[1], "bulk"))
		return bulk(type, argv[3]);
	return ask(argv[1], type, argv[3]);
}
