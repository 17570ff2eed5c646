/* tests/syscalls/inet.h - sockets on the loopback interface, for the programs inet*.c. */
#ifndef MOAT_TESTS_SYSCALLS_INET_H
#define MOAT_TESTS_SYSCALLS_INET_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include "t.h"

static inline struct sockaddr_in loop4(int port)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
				.sin_port = htons((uint16_t)port),
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	return a;
}

static inline int tcp(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	CHECK(fd >= 0);
	return fd;
}

/* A listener on a port of the host's choice. */
static inline int listener(struct sockaddr_in *ret)
{
	struct sockaddr_in a = loop4(0);
	socklen_t len = sizeof(*ret);
	int fd = tcp();

	CHECK_OK(bind(fd, (struct sockaddr *)&a, sizeof(a)));
	CHECK_OK(listen(fd, 8));
	CHECK_OK(getsockname(fd, (struct sockaddr *)ret, &len));
	CHECK_EQ(len, sizeof(*ret));
	return fd;
}

static inline void connected(int p[2])
{
	struct sockaddr_in a;
	int l = listener(&a);

	p[0] = tcp();
	CHECK_OK(connect(p[0], (struct sockaddr *)&a, sizeof(a)));
	p[1] = accept(l, NULL, NULL);
	CHECK(p[1] >= 0);
	close(l);
}

static inline int udp(struct sockaddr_in *ret)
{
	struct sockaddr_in a = loop4(0);
	socklen_t len = sizeof(*ret);
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	CHECK(fd >= 0);
	CHECK_OK(bind(fd, (struct sockaddr *)&a, sizeof(a)));
	CHECK_OK(getsockname(fd, (struct sockaddr *)ret, &len));
	return fd;
}

static inline int get_int(int fd, int level, int opt)
{
	int v = -1;
	socklen_t len = sizeof(v);

	CHECK_OK(getsockopt(fd, level, opt, &v, &len));
	CHECK_EQ(len, sizeof(v));
	return v;
}

static inline void set_int(int fd, int level, int opt, int v)
{
	CHECK_OK(setsockopt(fd, level, opt, &v, sizeof(v)));
}

static inline short ready(int fd, short events)
{
	struct pollfd p = {.fd = fd, .events = events};

	CHECK(poll(&p, 1, 0) >= 0);
	return p.revents;
}

/* Until poll(2) says exactly `want`: what comes over the loopback interface may take its time. */
static inline __attribute__((unused)) void becomes_ready(int fd, short events, short want)
{
	for (int i = 0; i < 4000 && ready(fd, events) != want; i++)
		t_sleep_ms(5);
	CHECK_EQ(ready(fd, events), want);
}

#endif
