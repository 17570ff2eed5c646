/* tests/syscalls/inet.c - AF_INET and AF_INET6: datagrams, control messages, options, ioctls, and what sockets do with the rest. */
#include <netinet/tcp.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <linux/errqueue.h>
#include <linux/sockios.h>

#include "inet.h"

TEST(datagrams)
{
	struct sockaddr_in a, b, from;
	int s = udp(&a), c = udp(&b);
	socklen_t len = sizeof(from);
	struct iovec iov[2];
	struct msghdr h;
	char buf[16], big[70000] = {0};

	CHECK_EQ(sendto(c, "abcdef", 6, 0, (struct sockaddr *)&a, sizeof(a)), 6);
	CHECK_EQ(sendto(c, "", 0, 0, (struct sockaddr *)&a, sizeof(a)), 0);
	CHECK_EQ(sendto(c, "ghi", 3, 0, (struct sockaddr *)&a, sizeof(a)), 3);
	CHECK_EQ(recv(s, buf, 2, MSG_PEEK | MSG_TRUNC), 6);
	CHECK_EQ(recvfrom(s, buf, 4, 0, (struct sockaddr *)&from, &len), 4);
	CHECK_EQ(from.sin_port, b.sin_port);
	CHECK_EQ(len, sizeof(from));
	CHECK_EQ(recv(s, buf, sizeof(buf), 0), 0);
	iov[0] = (struct iovec){buf, 1};
	iov[1] = (struct iovec){buf + 8, 1};
	h = (struct msghdr){.msg_iov = iov, .msg_iovlen = 2};
	CHECK_EQ(recvmsg(s, &h, 0), 2);
	CHECK_EQ(h.msg_flags, MSG_TRUNC);
	CHECK(buf[0] == 'g' && buf[8] == 'h');
	CHECK_ERR(recv(s, buf, 1, MSG_DONTWAIT), EAGAIN);
	CHECK_ERR(sendto(c, big, sizeof(big), 0, (struct sockaddr *)&a, sizeof(a)), EMSGSIZE);
	CHECK_ERR(send(c, "x", 1, 0), EDESTADDRREQ);
	CHECK_OK(connect(c, (struct sockaddr *)&a, sizeof(a)));
	CHECK_EQ(send(c, "x", 1, 0), 1);
	CHECK_EQ(recv(s, buf, 1, 0), 1);
	close(s);
	CHECK_EQ(send(c, "x", 1, 0), 1);
	CHECK_ERR(recv(c, buf, 1, 0), ECONNREFUSED);
	CHECK_ERR(listen(c, 1), EOPNOTSUPP);
	CHECK_ERR(accept(c, NULL, NULL), EOPNOTSUPP);
}

/* More pieces than any kernel's window of pinned memory. */
TEST(scattered_datagram)
{
	struct sockaddr_in a;
	int s = udp(&a), c = socket(AF_INET, SOCK_DGRAM, 0);
	char *area =
		mmap(NULL, 64 * 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *out =
		mmap(NULL, 64 * 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct iovec in[64], dst[64];
	struct msghdr h = {
		.msg_name = &a, .msg_namelen = sizeof(a), .msg_iov = in, .msg_iovlen = 64};
	struct msghdr r = {.msg_iov = dst, .msg_iovlen = 64};

	for (int i = 0; i < 64; i++) {
		in[i] = (struct iovec){area + i * 8192, 100};
		dst[i] = (struct iovec){out + i * 8192 + 4000, 100};
		memset(in[i].iov_base, 'A' + i % 26, 100);
	}
	CHECK_EQ(sendmsg(c, &h, 0), 6400);
	CHECK_EQ(recvmsg(s, &r, 0), 6400);
	for (int i = 0; i < 64; i++)
		CHECK(!memcmp(in[i].iov_base, dst[i].iov_base, 100));
}

/* A count without bytes: a TCP peek with MSG_TRUNC leaves the buffer as it was, in however many pieces. */
TEST(stream_peek_without_data)
{
	static char area[64 * 8192], data[6400];
	struct iovec dst[64];
	struct msghdr r = {.msg_iov = dst, .msg_iovlen = 64};
	int p[2];

	connected(p);
	memset(area, 0xa5, sizeof(area));
	CHECK_EQ(write(p[0], data, sizeof(data)), (ssize_t)sizeof(data));
	CHECK_EQ(recv(p[1], data, sizeof(data), MSG_PEEK | MSG_WAITALL), (ssize_t)sizeof(data));
	for (int i = 0; i < 64; i++)
		dst[i] = (struct iovec){area + i * 8192, 100};
	CHECK_EQ(recvmsg(p[1], &r, MSG_PEEK | MSG_TRUNC), 6400);
	for (size_t i = 0; i < sizeof(area); i++)
		CHECK_EQ((unsigned char)area[i], 0xa5);
}

TEST(mmsg)
{
	struct sockaddr_in a;
	int s = udp(&a), c = socket(AF_INET, SOCK_DGRAM, 0);
	char data[3][4] = {"one", "two", "six"}, buf[4][8];
	struct mmsghdr m[4];
	struct iovec iov[4];
	struct timespec ts = {.tv_nsec = 50000000};

	memset(m, 0, sizeof(m));
	for (int i = 0; i < 3; i++) {
		iov[i] = (struct iovec){data[i], 3};
		m[i].msg_hdr = (struct msghdr){.msg_iov = &iov[i],
					       .msg_iovlen = 1,
					       .msg_name = &a,
					       .msg_namelen = sizeof(a)};
	}
	CHECK_EQ(sendmmsg(c, m, 3, 0), 3);
	CHECK_EQ(m[1].msg_len, 3);
	memset(m, 0, sizeof(m));
	for (int i = 0; i < 4; i++) {
		iov[i] = (struct iovec){buf[i], 8};
		m[i].msg_hdr = (struct msghdr){.msg_iov = &iov[i], .msg_iovlen = 1};
	}
	CHECK_EQ(recvmmsg(s, m, 4, MSG_WAITFORONE, &ts), 3);
	CHECK_EQ(m[2].msg_len, 3);
	CHECK(!memcmp(buf[2], "six", 3));
	CHECK_ERR(recvmmsg(s, m, 4, MSG_DONTWAIT, NULL), EAGAIN);
}

TEST(control_messages)
{
	union {
		char buf[256];
		struct cmsghdr align;
	} u;
	struct sockaddr_in a;
	int s = udp(&a), c = socket(AF_INET, SOCK_DGRAM, 0), tos = 0x10, seen = 0;
	struct iovec iov = {"x", 1};
	struct msghdr h = {.msg_name = &a,
			   .msg_namelen = sizeof(a),
			   .msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = u.buf,
			   .msg_controllen = CMSG_SPACE(sizeof(int))};
	struct cmsghdr *cm = CMSG_FIRSTHDR(&h);
	char data[4];

	set_int(s, IPPROTO_IP, IP_PKTINFO, 1);
	set_int(s, IPPROTO_IP, IP_RECVTTL, 1);
	set_int(s, IPPROTO_IP, IP_RECVTOS, 1);
	set_int(s, SOL_SOCKET, SO_TIMESTAMP, 1);
	cm->cmsg_level = IPPROTO_IP;
	cm->cmsg_type = IP_TOS;
	cm->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cm), &tos, sizeof(tos));
	CHECK_EQ(sendmsg(c, &h, 0), 1);
	iov = (struct iovec){data, 4};
	h = (struct msghdr){.msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = u.buf,
			    .msg_controllen = sizeof(u.buf)};
	CHECK_EQ(recvmsg(s, &h, 0), 1);
	CHECK_EQ(h.msg_flags, 0);
	for (cm = CMSG_FIRSTHDR(&h); cm; cm = CMSG_NXTHDR(&h, cm)) {
		if (cm->cmsg_level == IPPROTO_IP && cm->cmsg_type == IP_PKTINFO) {
			struct in_pktinfo pi;

			memcpy(&pi, CMSG_DATA(cm), sizeof(pi));
			CHECK_EQ(pi.ipi_addr.s_addr, htonl(INADDR_LOOPBACK));
			seen |= 1;
		} else if (cm->cmsg_level == IPPROTO_IP && cm->cmsg_type == IP_TTL) {
			seen |= 2;
		} else if (cm->cmsg_level == IPPROTO_IP && cm->cmsg_type == IP_TOS) {
			CHECK_EQ(*CMSG_DATA(cm), tos);
			seen |= 4;
		} else if (cm->cmsg_level == SOL_SOCKET && cm->cmsg_type == SO_TIMESTAMP) {
			seen |= 8;
		}
	}
	CHECK_EQ(seen, 15);
	/* No room: the first in part, and a flag. */
	CHECK_EQ(sendto(c, "y", 1, 0, (struct sockaddr *)&a, sizeof(a)), 1);
	h.msg_controllen = 20;
	CHECK_EQ(recvmsg(s, &h, 0), 1);
	CHECK_EQ(h.msg_flags, MSG_CTRUNC);
	/* Nonsense. */
	h = (struct msghdr){.msg_name = &a,
			    .msg_namelen = sizeof(a),
			    .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = u.buf,
			    .msg_controllen = CMSG_SPACE(sizeof(int))};
	cm = CMSG_FIRSTHDR(&h);
	cm->cmsg_len = 1000;
	CHECK_ERR(sendmsg(c, &h, 0), EINVAL);
	cm->cmsg_len = CMSG_LEN(sizeof(int));
	cm->cmsg_level = SOL_SOCKET;
	cm->cmsg_type = 12345;
	CHECK_ERR(sendmsg(c, &h, 0), EINVAL);
	/* Descriptors mean nothing here. */
	cm->cmsg_type = SCM_RIGHTS;
	memcpy(CMSG_DATA(cm), &s, sizeof(s));
	CHECK_EQ(sendmsg(c, &h, 0), 4);
}

TEST(error_queue)
{
	union {
		char buf[512];
		struct cmsghdr align;
	} u;
	struct sockaddr_in a, b;
	int s = udp(&a), c = udp(&b);
	char data[16];
	struct iovec iov = {data, sizeof(data)};
	struct msghdr h = {.msg_name = &b,
			   .msg_namelen = sizeof(b),
			   .msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = u.buf,
			   .msg_controllen = sizeof(u.buf)};
	struct sock_extended_err ee;

	close(s);
	CHECK_ERR(recv(c, data, 1, MSG_ERRQUEUE), EAGAIN);
	set_int(c, IPPROTO_IP, IP_RECVERR, 1);
	CHECK_EQ(sendto(c, "dead", 4, 0, (struct sockaddr *)&a, sizeof(a)), 4);
	becomes_ready(c, 0, POLLERR);
	CHECK_EQ(recvmsg(c, &h, MSG_ERRQUEUE), 4);
	CHECK_EQ(h.msg_flags & MSG_ERRQUEUE, MSG_ERRQUEUE);
	CHECK_EQ(b.sin_port, a.sin_port);
	memcpy(&ee, CMSG_DATA(CMSG_FIRSTHDR(&h)), sizeof(ee));
	CHECK_EQ(ee.ee_errno, ECONNREFUSED);
	CHECK_EQ(ee.ee_origin, SO_EE_ORIGIN_ICMP);
}

TEST(options)
{
	struct linger lg = {.l_onoff = 1, .l_linger = 3}, got;
	socklen_t len = sizeof(got);
	struct tcp_info ti;
	char name[16];
	int fd = tcp(), u = socket(AF_INET, SOCK_DGRAM, 0), v = 1;

	CHECK_EQ(get_int(fd, SOL_SOCKET, SO_TYPE), SOCK_STREAM);
	CHECK_EQ(get_int(fd, SOL_SOCKET, SO_DOMAIN), AF_INET);
	CHECK_EQ(get_int(fd, SOL_SOCKET, SO_PROTOCOL), IPPROTO_TCP);
	CHECK_EQ(get_int(u, SOL_SOCKET, SO_PROTOCOL), IPPROTO_UDP);
	CHECK_EQ(get_int(fd, SOL_SOCKET, SO_ACCEPTCONN), 0);
	set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	CHECK_EQ(get_int(fd, SOL_SOCKET, SO_REUSEADDR), 1);
	set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	CHECK_EQ(get_int(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
	set_int(fd, SOL_SOCKET, SO_RCVBUF, 10000);
	CHECK_EQ(get_int(fd, SOL_SOCKET, SO_RCVBUF), 20000);
	set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	CHECK_EQ(get_int(fd, IPPROTO_TCP, TCP_NODELAY), 1);
	set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, 77);
	CHECK_EQ(get_int(fd, IPPROTO_TCP, TCP_KEEPIDLE), 77);
	set_int(fd, IPPROTO_IP, IP_TTL, 9);
	CHECK_EQ(get_int(fd, IPPROTO_IP, IP_TTL), 9);
	CHECK_OK(setsockopt(fd, SOL_SOCKET, SO_LINGER, &lg, sizeof(lg)));
	CHECK_OK(getsockopt(fd, SOL_SOCKET, SO_LINGER, &got, &len));
	CHECK_EQ(got.l_linger, 3);
	CHECK_EQ(got.l_onoff, 1);
	len = sizeof(ti);
	CHECK_OK(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &ti, &len));
	CHECK_EQ(ti.tcpi_state, TCP_CLOSE);
	len = sizeof(name);
	CHECK_OK(getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &len));
	CHECK_ERR(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &v, 1), EINVAL);
	CHECK_ERR(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, (void *)1, 4), EFAULT);
	CHECK_ERR(setsockopt(fd, SOL_SOCKET, 9999, &v, sizeof(v)), ENOPROTOOPT);
	CHECK_ERR(setsockopt(fd, IPPROTO_TCP, 9999, &v, sizeof(v)), ENOPROTOOPT);
	CHECK_ERR(setsockopt(fd, SOL_SOCKET, SO_TYPE, &v, sizeof(v)), ENOPROTOOPT);
	len = sizeof(v);
	CHECK_ERR(getsockopt(fd, SOL_SOCKET, 9999, &v, &len), ENOPROTOOPT);
	len = (socklen_t)-1;
	CHECK_ERR(getsockopt(fd, SOL_SOCKET, SO_TYPE, &v, &len), EINVAL);
	len = 2;
	CHECK_OK(getsockopt(fd, SOL_SOCKET, SO_TYPE, &v, &len));
	CHECK_EQ(len, 2);
}

enum { SOURCES_MAX = 64, FILTER_HEAD = GROUP_FILTER_SIZE(0), FILTER_EACH = 128 };

/* Guard bytes behind what any answer takes. */
static union {
	struct group_filter f;
	struct ip_msfilter f4;
	unsigned char b[FILTER_HEAD + (SOURCES_MAX + 2) * FILTER_EACH];
} filter;

/* 232.1.1.1 or ff3e::1 (a group that has sources), and 10.1.1.N or 2001:db8::N. */
static void multicast(int family, struct sockaddr_storage *ret, bool group, int n)
{
	memset(ret, 0, sizeof(*ret));
	ret->ss_family = (sa_family_t)family;
	if (family == AF_INET)
		((struct sockaddr_in *)ret)->sin_addr.s_addr =
			htonl(group ? 0xe8010101u : 0x0a010100u + (unsigned)n);
	else
		CHECK_EQ(inet_pton(AF_INET6, group ? "ff3e::1" : "2001:db8::",
				   &((struct sockaddr_in6 *)ret)->sin6_addr),
			 1);
	if (family == AF_INET6 && !group)
		((struct sockaddr_in6 *)ret)->sin6_addr.s6_addr[15] = (unsigned char)n;
}

/* A socket that is in the group for n sources; -1: not here. */
static int with_sources(int family, int n)
{
	struct group_source_req r = {.gsr_interface = 1};
	int level = family == AF_INET ? IPPROTO_IP : IPPROTO_IPV6;
	int fd = socket(family, SOCK_DGRAM, 0);

	multicast(family, &r.gsr_group, true, 0);
	for (int i = 0; fd >= 0 && i < n; i++) {
		multicast(family, &r.gsr_source, false, i + 1);
		if (setsockopt(fd, level, MCAST_JOIN_SOURCE_GROUP, &r, sizeof(r)) < 0 && i == 0)
			return -1;
		CHECK_EQ(get_int(fd, SOL_SOCKET, SO_ERROR), 0);
	}
	return fd;
}

/* Asks for `wanted` sources with `room` bytes: n are there; Linux writes as many as were wanted, in a room of whatever size. */
static void ask_sources(int fd, int family, int n, unsigned wanted, unsigned room)
{
	int level = family == AF_INET ? IPPROTO_IP : IPPROTO_IPV6;
	unsigned some = wanted < (unsigned)n ? wanted : (unsigned)n;
	struct sockaddr_storage one;
	socklen_t len = room;

	memset(&filter, 0xa5, sizeof(filter));
	filter.f.gf_interface = 1;
	multicast(family, &filter.f.gf_group, true, 0);
	filter.f.gf_numsrc = wanted;
	if (room < FILTER_HEAD) {
		CHECK_ERR(getsockopt(fd, level, MCAST_MSFILTER, &filter, &len), EINVAL);
		CHECK_EQ(filter.f.gf_numsrc, wanted);
		return;
	}
	CHECK_OK(getsockopt(fd, level, MCAST_MSFILTER, &filter, &len));
	CHECK_EQ(len, FILTER_HEAD + some * FILTER_EACH);
	CHECK_EQ(filter.f.gf_fmode, MCAST_INCLUDE);
	CHECK_EQ(filter.f.gf_numsrc, (unsigned)n);
	for (unsigned i = 0; i < some; i++) {
		multicast(family, &one, false, (int)i + 1);
		CHECK(!memcmp(filter.b + FILTER_HEAD + i * FILTER_EACH, &one, sizeof(one)));
	}
	for (size_t i = FILTER_HEAD + some * FILTER_EACH; i < sizeof(filter); i++)
		CHECK_EQ(filter.b[i], 0xa5);
}

static void multicast_sources(int family, int n)
{
	static const unsigned rooms[] = {0, 4, FILTER_HEAD - 1, FILTER_HEAD, 1024, sizeof(filter)};
	const unsigned wanted[] = {0, 1, (unsigned)n - 1, (unsigned)n, 1000, 100000, ~0u};
	int level = family == AF_INET ? IPPROTO_IP : IPPROTO_IPV6, fd = with_sources(family, n);
	unsigned char *page =
		mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned whole = FILTER_HEAD + (unsigned)n * FILTER_EACH;
	socklen_t len = FILTER_HEAD;

	if (fd < 0)
		SKIP("no multicast on lo");
	for (size_t i = 0; i < sizeof(rooms) / sizeof(*rooms); i++)
		for (size_t k = 0; k < sizeof(wanted) / sizeof(*wanted); k++)
			ask_sources(fd, family, n, wanted[k], rooms[i]);
	/* The whole list back at once, one source less, and one that does not fit the length. */
	ask_sources(fd, family, n, (unsigned)n, FILTER_HEAD);
	CHECK_OK(setsockopt(fd, level, MCAST_MSFILTER, &filter, whole));
	ask_sources(fd, family, n, (unsigned)n, FILTER_HEAD);
	filter.f.gf_numsrc--;
	CHECK_OK(setsockopt(fd, level, MCAST_MSFILTER, &filter, whole));
	ask_sources(fd, family, n - 1, (unsigned)n, FILTER_HEAD);
	filter.f.gf_numsrc = (unsigned)n;
	CHECK_ERR(setsockopt(fd, level, MCAST_MSFILTER, &filter, whole - 1), EINVAL);
	/* No memory behind the head. */
	CHECK_OK(munmap(page + 4096, 4096));
	memcpy(page + 4096 - FILTER_HEAD, &filter, FILTER_HEAD);
	CHECK_ERR(getsockopt(fd, level, MCAST_MSFILTER, page + 4096 - FILTER_HEAD, &len), EFAULT);
}

TEST(multicast_sources_4)
{
	multicast_sources(AF_INET, 10);
}

TEST(multicast_sources_6)
{
	multicast_sources(AF_INET6, 64);
}

/* The older form: addresses only. */
TEST(multicast_sources_short)
{
	static const unsigned rooms[] = {15, 16, 20, 1024};
	static const unsigned wanted[] = {0, 3, 10, 1000, 100000, ~0u};
	int fd = with_sources(AF_INET, 10);
	socklen_t len;

	if (fd < 0)
		SKIP("no multicast on lo");
	for (size_t i = 0; i < 4 * 6; i++) {
		unsigned some = wanted[i % 6] < 10 ? wanted[i % 6] : 10;

		memset(&filter, 0xa5, sizeof(filter));
		filter.f4.imsf_multiaddr.s_addr = htonl(0xe8010101u);
		filter.f4.imsf_interface.s_addr = htonl(INADDR_LOOPBACK);
		filter.f4.imsf_numsrc = wanted[i % 6];
		len = rooms[i / 6];
		if (len < 16) {
			CHECK_ERR(getsockopt(fd, IPPROTO_IP, IP_MSFILTER, &filter, &len), EINVAL);
			continue;
		}
		CHECK_OK(getsockopt(fd, IPPROTO_IP, IP_MSFILTER, &filter, &len));
		CHECK_EQ(len, 16 + 4 * some);
		CHECK_EQ(filter.f4.imsf_numsrc, 10);
		for (unsigned k = 0; k < some; k++)
			CHECK_EQ(filter.b[16 + 4 * k + 3], k + 1);
		for (size_t k = 16 + 4 * some; k < sizeof(filter); k++)
			CHECK_EQ(filter.b[k], 0xa5);
	}
}

TEST(options_need_capabilities)
{
	int fd = tcp(), v = 5;

	t_become(1000, 1000);
	CHECK_ERR(setsockopt(fd, SOL_SOCKET, SO_MARK, &v, sizeof(v)), EPERM);
	CHECK_ERR(setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &v, sizeof(v)), EPERM);
	CHECK_OK(setsockopt(fd, SOL_SOCKET, SO_PRIORITY, &v, sizeof(v)));
	v = 7;
	CHECK_ERR(setsockopt(fd, SOL_SOCKET, SO_PRIORITY, &v, sizeof(v)), EPERM);
	v = 1;
	CHECK_ERR(setsockopt(fd, SOL_SOCKET, SO_DEBUG, &v, sizeof(v)), EACCES);
	CHECK_ERR(setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &v, sizeof(v)), EPERM);
}

TEST(ipv6)
{
	struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT}, b;
	int l = socket(AF_INET6, SOCK_STREAM, 0), c, s;
	socklen_t len = sizeof(a);
	char buf[8];

	if (l < 0)
		SKIP("no IPv6");
	if (bind(l, (struct sockaddr *)&a, sizeof(a)) < 0)
		SKIP("no ::1");
	CHECK_OK(listen(l, 1));
	CHECK_OK(getsockname(l, (struct sockaddr *)&a, &len));
	CHECK_EQ(len, sizeof(a));
	c = socket(AF_INET6, SOCK_STREAM, 0);
	CHECK_OK(connect(c, (struct sockaddr *)&a, sizeof(a)));
	len = sizeof(b);
	s = accept(l, (struct sockaddr *)&b, &len);
	CHECK(s >= 0);
	CHECK(IN6_IS_ADDR_LOOPBACK(&b.sin6_addr));
	CHECK_EQ(write(c, "six", 3), 3);
	CHECK_EQ(read(s, buf, 8), 3);
	set_int(c, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 12);
	CHECK_EQ(get_int(c, IPPROTO_IPV6, IPV6_UNICAST_HOPS), 12);
	CHECK_EQ(get_int(socket(AF_INET6, SOCK_STREAM, 0), IPPROTO_IPV6, IPV6_V6ONLY),
		 atoi(t_read("/proc/sys/net/ipv6/bindv6only")));
	CHECK_ERR(setsockopt(tcp(), IPPROTO_IPV6, IPV6_V6ONLY, &(int){1}, 4), ENOPROTOOPT);
}

TEST(reuseport_and_backlog)
{
	struct sockaddr_in a = loop4(0);
	socklen_t len = sizeof(a);
	int one = tcp(), two = tcp();

	set_int(one, SOL_SOCKET, SO_REUSEPORT, 1);
	CHECK_OK(bind(one, (struct sockaddr *)&a, sizeof(a)));
	CHECK_OK(getsockname(one, (struct sockaddr *)&a, &len));
	CHECK_ERR(bind(two, (struct sockaddr *)&a, sizeof(a)), EADDRINUSE);
	set_int(two, SOL_SOCKET, SO_REUSEPORT, 1);
	CHECK_OK(bind(two, (struct sockaddr *)&a, sizeof(a)));
	CHECK_OK(listen(one, 1));
	CHECK_OK(listen(one, 5));
	CHECK_EQ(get_int(one, SOL_SOCKET, SO_ACCEPTCONN), 1);
	fcntl(one, F_SETFL, O_NONBLOCK);
	CHECK_ERR(accept(one, NULL, NULL), EAGAIN);
	CHECK_ERR(accept4(one, NULL, NULL, 0x40000000), EINVAL);
}

TEST(linger_close)
{
	struct linger lg = {.l_onoff = 1, .l_linger = 20};
	static char buf[1 << 18];
	int p[2], go[2];
	int64_t start;
	pid_t pid;

	connected(p);
	CHECK_OK(setsockopt(p[0], SOL_SOCKET, SO_LINGER, &lg, sizeof(lg)));
	start = t_now_ms();
	close(p[0]);
	CHECK(t_now_ms() - start < 15000);
	CHECK_EQ(read(p[1], buf, 1), 0);
	/* Data that nobody reads: close waits for as long as it was told. */
	connected(p);
	fcntl(p[0], F_SETFL, O_NONBLOCK);
	while (write(p[0], buf, sizeof(buf)) > 0)
		;
	lg.l_linger = 1;
	CHECK_OK(setsockopt(p[0], SOL_SOCKET, SO_LINGER, &lg, sizeof(lg)));
	start = t_now_ms();
	close(p[0]);
	CHECK(t_now_ms() - start >= 900);
	CHECK(t_now_ms() - start < 20000);
	/* A process that ends does not linger. */
	connected(p);
	CHECK_OK(pipe(go));
	lg.l_linger = 20;
	start = t_now_ms();
	pid = fork();
	if (pid == 0) {
		close(p[1]);
		/* Once the parent has closed its own: who closes last lingers. */
		CHECK_EQ(read(go[0], buf, 1), 1);
		fcntl(p[0], F_SETFL, O_NONBLOCK);
		while (write(p[0], buf, sizeof(buf)) > 0)
			;
		setsockopt(p[0], SOL_SOCKET, SO_LINGER, &lg, sizeof(lg));
		_exit(0);
	}
	close(p[0]);
	CHECK_EQ(write(go[1], "g", 1), 1);
	t_wait_ok(pid);
	CHECK(t_now_ms() - start < 10000);
}

TEST(urgent)
{
	int p[2], mark = -1;
	char buf[8];

	connected(p);
	CHECK_EQ(send(p[0], "ab", 2, 0), 2);
	CHECK_EQ(send(p[0], "!", 1, MSG_OOB), 1);
	becomes_ready(p[1], POLLIN | POLLPRI, POLLIN | POLLPRI);
	CHECK_EQ(recv(p[1], buf, 1, MSG_OOB), 1);
	CHECK_EQ(buf[0], '!');
	CHECK_EQ(recv(p[1], buf, 8, 0), 2);
	CHECK_OK(ioctl(p[1], SIOCATMARK, &mark));
	CHECK_EQ(mark, 1);
	CHECK_ERR(recv(p[1], buf, 1, MSG_OOB), EINVAL);
}

TEST(ioctls)
{
	struct ifreq ifr = {.ifr_name = "lo"};
	struct ifconf ifc = {0};
	char buf[1024];
	int p[2], n = -1;
	struct sockaddr_in a;
	int u = udp(&a);

	connected(p);
	CHECK_EQ(write(p[0], "12345", 5), 5);
	becomes_ready(p[1], POLLIN, POLLIN);
	CHECK_OK(ioctl(p[1], FIONREAD, &n));
	CHECK_EQ(n, 5);
	/* Acknowledged, when that comes. */
	for (int i = 0; i < 4000 && n; i++) {
		CHECK_OK(ioctl(p[0], SIOCOUTQ, &n));
		t_sleep_ms(n ? 5 : 0);
	}
	CHECK_EQ(n, 0);
	CHECK_OK(ioctl(u, SIOCGIFINDEX, &ifr));
	CHECK_EQ(ifr.ifr_ifindex, 1);
	CHECK_OK(ioctl(u, SIOCGIFFLAGS, &ifr));
	CHECK(ifr.ifr_flags & IFF_LOOPBACK);
	CHECK(ifr.ifr_flags & IFF_UP);
	CHECK_OK(ioctl(p[0], SIOCGIFMTU, &ifr));
	CHECK_EQ(ifr.ifr_mtu, 65536);
	CHECK_OK(ioctl(u, SIOCGIFADDR, &ifr));
	CHECK_EQ(((struct sockaddr_in *)&ifr.ifr_addr)->sin_addr.s_addr, htonl(INADDR_LOOPBACK));
	strcpy(ifr.ifr_name, "nonesuch");
	CHECK_ERR(ioctl(u, SIOCGIFFLAGS, &ifr), ENODEV);
	ifc.ifc_len = sizeof(buf);
	ifc.ifc_buf = buf;
	CHECK_OK(ioctl(u, SIOCGIFCONF, &ifc));
	CHECK(ifc.ifc_len >= (int)sizeof(struct ifreq));
	CHECK_STR(ifc.ifc_req[0].ifr_name, "lo");
	CHECK_ERR(ioctl(u, 0x12345678, &n), ENOTTY);
	CHECK_OK(ioctl(u, FIONBIO, &(int){1}));
	CHECK_ERR(recv(u, buf, 1, 0), EAGAIN);
	n = socket(AF_UNIX, SOCK_DGRAM, 0);
	strcpy(ifr.ifr_name, "lo");
	CHECK_OK(ioctl(n, SIOCGIFINDEX, &ifr));
}

TEST(sendfile_and_splice)
{
	char text[5000], buf[6000];
	int p[2], fd, pp[2];
	size_t got = 0;
	off_t off = 1000;
	ssize_t n;

	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (char)('a' + i % 23);
	fd = open("data", O_RDWR | O_CREAT, 0600);
	CHECK_EQ(write(fd, text, sizeof(text)), (ssize_t)sizeof(text));
	connected(p);
	CHECK_EQ(sendfile(p[0], fd, &off, 4000), 4000);
	CHECK_EQ(off, 5000);
	while (got < 4000 && (n = read(p[1], buf + got, 4000 - got)) > 0)
		got += (size_t)n;
	CHECK(!memcmp(buf, text + 1000, 4000));
	CHECK_OK(pipe(pp));
	CHECK_EQ(write(pp[1], "pipe!", 5), 5);
	CHECK_EQ(splice(pp[0], NULL, p[0], NULL, 100, 0), 5);
	CHECK_EQ(splice(p[1], NULL, pp[1], NULL, 100, 0), 5);
	CHECK_EQ(read(pp[0], buf, 10), 5);
	CHECK(!memcmp(buf, "pipe!", 5));
}

static volatile sig_atomic_t got_io;

static void on_io(int s)
{
	(void)s;
	got_io = 1;
}

TEST(sigio)
{
	int p[2];

	connected(p);
	signal(SIGIO, on_io);
	CHECK_OK(fcntl(p[0], F_SETOWN, getpid()));
	CHECK_OK(fcntl(p[0], F_SETFL, O_ASYNC));
	t_sleep_ms(20);
	got_io = 0;
	CHECK_EQ(write(p[1], "x", 1), 1);
	for (int i = 0; i < 4000 && !got_io; i++)
		t_sleep_ms(5);
	CHECK_EQ(got_io, 1);
}

TEST(faults)
{
	char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct sockaddr_in a;
	int p[2], s = udp(&a);

	CHECK_OK(munmap(page + 4096, 4096));
	connected(p);
	CHECK_ERR(send(p[0], (void *)8, 4, 0), EFAULT);
	CHECK_EQ(write(p[1], "abcdef", 6), 6);
	becomes_ready(p[0], POLLIN, POLLIN);
	CHECK_ERR(recv(p[0], (void *)8, 4, 0), EFAULT);
	CHECK_EQ(recv(p[0], page, 6, 0), 6);
	CHECK_ERR(sendto(s, page + 4090, 20, 0, (struct sockaddr *)&a, sizeof(a)), EFAULT);
	CHECK_ERR(recv(s, page, 1, MSG_DONTWAIT), EAGAIN);
	CHECK_ERR(sendmsg(p[0], (struct msghdr *)8, 0), EFAULT);
	CHECK_ERR(recvmsg(p[0], (struct msghdr *)8, MSG_DONTWAIT), EFAULT);
}

TEST(fastopen)
{
	struct sockaddr_in a;
	int l = listener(&a), c = tcp(), s;
	char buf[8];

	set_int(l, IPPROTO_TCP, TCP_FASTOPEN, 5);
	CHECK_EQ(sendto(c, "fast", 4, MSG_FASTOPEN, (struct sockaddr *)&a, sizeof(a)), 4);
	s = accept(l, NULL, NULL);
	CHECK(s >= 0);
	CHECK_EQ(recv(s, buf, 8, 0), 4);
}

TEST(rights_over_unix)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} u;
	int p[2], sp[2], fd;
	struct iovec iov = {"x", 1};
	struct msghdr h = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = u.buf,
			   .msg_controllen = sizeof(u.buf)};
	struct cmsghdr *cm = CMSG_FIRSTHDR(&h);
	char c;

	connected(p);
	CHECK_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, sp));
	cm->cmsg_level = SOL_SOCKET;
	cm->cmsg_type = SCM_RIGHTS;
	cm->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cm), &p[0], sizeof(int));
	CHECK_EQ(sendmsg(sp[0], &h, 0), 1);
	close(p[0]);
	iov.iov_base = &c;
	CHECK_EQ(recvmsg(sp[1], &h, 0), 1);
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&h)), sizeof(fd));
	CHECK_EQ(write(fd, "via", 3), 3);
	CHECK_EQ(read(p[1], &c, 1), 1);
	CHECK_EQ(c, 'v');
}

TEST(families_that_are_not)
{
	CHECK_ERR(socket(AF_APPLETALK, SOCK_DGRAM, 0), EAFNOSUPPORT);
	CHECK_ERR(socket(AF_X25, SOCK_SEQPACKET, 0), EAFNOSUPPORT);
}
