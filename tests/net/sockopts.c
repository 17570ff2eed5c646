/*
 * tests/net/sockopts.c - every option of every level, read and set with good, short, long and negative lengths, on each kind of socket: a line
 * per kind, level and option that says what happened. tests/net/run compares the host's lines with the sandbox's.
 *
 * `sockopts [KIND]`. A line is KIND LEVEL/OPTION and then what was tried: g for getsockopt with that length, s for setsockopt
 * with that length and value; =errno, or for a get :length:value. Values that differ from socket to socket are printed as *. A member is in a
 * multicast group for some sources, and has a filter and datagrams; m COUNT,LENGTH asks it for so many of the sources.
 */
#include <errno.h>
#include <linux/filter.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof(*(a)))

enum how { NEW, BOUND, LISTENING, CONNECTED, MEMBER };

#define SOURCES 7

struct kind {
	const char *name;
	int family, type, protocol;
	enum how how;
};

static const struct kind kinds[] = {
	{"tcp", AF_INET, SOCK_STREAM, 0, NEW},
	{"tcp-listening", AF_INET, SOCK_STREAM, 0, LISTENING},
	{"tcp-connected", AF_INET, SOCK_STREAM, 0, CONNECTED},
	{"tcp6", AF_INET6, SOCK_STREAM, 0, NEW},
	{"tcp6-connected", AF_INET6, SOCK_STREAM, 0, CONNECTED},
	{"udp", AF_INET, SOCK_DGRAM, 0, NEW},
	{"udp-connected", AF_INET, SOCK_DGRAM, 0, CONNECTED},
	{"udp6", AF_INET6, SOCK_DGRAM, 0, NEW},
	{"udp6-bound", AF_INET6, SOCK_DGRAM, 0, BOUND},
	{"udp-member", AF_INET, SOCK_DGRAM, 0, MEMBER},
	{"udp6-member", AF_INET6, SOCK_DGRAM, 0, MEMBER},
	{"ping", AF_INET, SOCK_DGRAM, IPPROTO_ICMP, NEW},
	{"ping6", AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6, NEW},
	{"raw", AF_INET, SOCK_RAW, IPPROTO_ICMP, NEW},
	{"raw6", AF_INET6, SOCK_RAW, IPPROTO_ICMPV6, NEW},
	{"netlink", AF_NETLINK, SOCK_RAW, 0, NEW},
	{"unix", AF_UNIX, SOCK_STREAM, 0, NEW},
	{"unix-dgram", AF_UNIX, SOCK_DGRAM, 0, NEW},
	{"unix-connected", AF_UNIX, SOCK_STREAM, 0, CONNECTED},
};

/* A level and its highest option's number, or a little more. */
static const struct {
	int level, last;
} levels[] = {
	{SOL_SOCKET, 90},
	{IPPROTO_IP, 60},
	{IPPROTO_IPV6, 80},
	{IPPROTO_TCP, 50},
	{IPPROTO_UDP, 12},
	{IPPROTO_UDP, 106},
	{IPPROTO_RAW, 40},
	{IPPROTO_ICMP, 3},
	{IPPROTO_ICMPV6, 3},
	{IPPROTO_UDPLITE, 12},
	{270, 14} /* netlink */,
	{7777, 2},
	{-1, 2},
};

/* Numbers that are a socket's own, the machine's or the moment's: only whether there is one is compared. */
static bool varies(const struct kind *k, int level, int opt)
{
	static const int socket_level[] = {4 /* error */,	  17 /* peercred */,
					   28 /* peername */,	  49 /* incoming cpu */,
					   55 /* meminfo */,	  56 /* napi */,
					   57 /* cookie */,	  59 /* peergroups */,
					   71 /* netns cookie */, 77 /* peer pidfd */};

	if (level == SOL_SOCKET)
		for (size_t i = 0; i < ARRAY_SIZE(socket_level); i++)
			if (socket_level[i] == opt)
				return true;
	/* The sandbox has Linux's own bounds on AF_UNIX buffers, not this machine's. */
	if (level == SOL_SOCKET && k->family == AF_UNIX && (opt == SO_SNDBUF || opt == SO_RCVBUF))
		return true;
	if (level == IPPROTO_IP)
		return opt == 52 /* protocol's port range's */;
	if (level == IPPROTO_TCP)
		return opt == 11 /* info */ || opt == 24 /* timestamp */ ||
		       opt == 26 /* cc info */ || (opt == 2 /* maxseg */ && k->how == CONNECTED);
	return false;
}

static bool fill(const struct kind *k, struct sockaddr_storage *a, socklen_t *len)
{
	memset(a, 0, sizeof(*a));
	a->ss_family = (sa_family_t)k->family;
	if (k->family == AF_INET) {
		((struct sockaddr_in *)a)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		*len = sizeof(struct sockaddr_in);
	} else if (k->family == AF_INET6) {
		((struct sockaddr_in6 *)a)->sin6_addr = in6addr_loopback;
		*len = sizeof(struct sockaddr_in6);
	} else {
		return false;
	}
	return true;
}

/* 232.1.1.1 or ff3e::1, whose members name sources: 10.1.1.N or 2001:db8::N. */
static void multicast(int family, struct sockaddr_storage *ret, bool group, int n)
{
	struct sockaddr_in *in = (struct sockaddr_in *)ret;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ret;

	memset(ret, 0, sizeof(*ret));
	ret->ss_family = (sa_family_t)family;
	if (family == AF_INET)
		in->sin_addr.s_addr = htonl(group ? 0xe8010101u : 0x0a010100u + (unsigned)n);
	else
		inet_pton(AF_INET6, group ? "ff3e::1" : "2001:db8::", &in6->sin6_addr);
	if (family == AF_INET6 && !group)
		in6->sin6_addr.s6_addr[15] = (unsigned char)n;
}

/* In a group on lo, any source's and some sources'; with a filter and two datagrams. */
static bool join(int fd, const struct kind *k, const struct sockaddr_storage *a, socklen_t len)
{
	int level = k->family == AF_INET ? IPPROTO_IP : IPPROTO_IPV6;
	struct sock_filter all = BPF_STMT(BPF_RET | BPF_K, 0xffff);
	struct sock_fprog prog = {1, &all};
	struct group_source_req r = {.gsr_interface = 1};
	struct group_req any = {.gr_interface = 1};

	multicast(k->family, &r.gsr_group, true, 0);
	for (int i = 1; i <= SOURCES; i++) {
		multicast(k->family, &r.gsr_source, false, i);
		if (setsockopt(fd, level, MCAST_JOIN_SOURCE_GROUP, &r, sizeof(r)) < 0)
			return false;
	}
	if (k->family == AF_INET)
		((struct sockaddr_in *)&any.gr_group)->sin_addr.s_addr = htonl(0xe00000fb);
	else
		inet_pton(AF_INET6, "ff02::fb", &((struct sockaddr_in6 *)&any.gr_group)->sin6_addr);
	any.gr_group.ss_family = (sa_family_t)k->family;
	return setsockopt(fd, level, MCAST_JOIN_GROUP, &any, sizeof(any)) == 0 &&
	       setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog)) == 0 &&
	       sendto(fd, "data", 4, 0, (const void *)a, len) == 4 &&
	       sendto(fd, "more", 4, 0, (const void *)a, len) == 4;
}

static int other = -1, listener = -1;

/* A socket of the kind, in its state; the far ends stay open in other and listener. */
static int make(const struct kind *k)
{
	struct sockaddr_storage a;
	socklen_t len;
	int fd, pair[2];

	if (other >= 0)
		close(other);
	if (listener >= 0)
		close(listener);
	other = listener = -1;
	if (k->family == AF_UNIX && k->how == CONNECTED) {
		if (socketpair(k->family, k->type, 0, pair) < 0)
			return -1;
		other = pair[1];
		return pair[0];
	}
	fd = socket(k->family, k->type, k->protocol);
	if (fd < 0 || k->how == NEW || !fill(k, &a, &len))
		return fd;
	if (k->how == CONNECTED) {
		listener = socket(k->family, k->type, k->protocol);
		if (bind(listener, (void *)&a, len) < 0 ||
		    getsockname(listener, (void *)&a, &len) < 0)
			return -1;
		if (k->type == SOCK_STREAM && listen(listener, 1) < 0)
			return -1;
		if (connect(fd, (void *)&a, len) < 0)
			return -1;
		if (k->type == SOCK_STREAM)
			other = accept(listener, NULL, NULL);
		return fd;
	}
	if (bind(fd, (void *)&a, len) < 0 || (k->how == LISTENING && listen(fd, 1) < 0))
		return -1;
	if (k->how == MEMBER && (getsockname(fd, (void *)&a, &len) < 0 || !join(fd, k, &a, len)))
		return -1;
	return fd;
}

static char line[65536];
static size_t used;

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	used += (size_t)vsnprintf(line + used, sizeof(line) - used, format, ap);
	va_end(ap);
}

static bool absent(void)
{
	return errno == ENOPROTOOPT || errno == EOPNOTSUPP;
}

static bool get(int fd, const struct kind *k, int level, int opt, int length)
{
	unsigned char val[512];
	socklen_t len = (socklen_t)length;

	memset(val, 0xa5, sizeof(val));
	if (getsockopt(fd, level, opt, val, &len) < 0) {
		say(" g%d=%d", length, errno);
		return !absent();
	}
	say(" g%d:%u:", length, len);
	if (varies(k, level, opt)) {
		say("*");
		return true;
	}
	for (unsigned i = 0; i < len && i < 40; i++)
		say("%02x", val[i]);
	return true;
}

static bool set(int fd, const struct kind *k, int level, int opt, int length, int value)
{
	unsigned char val[512] = {0};

	memcpy(val, &value, sizeof(value));
	if (setsockopt(fd, level, opt, val, (socklen_t)length) < 0) {
		say(" s%d,%d=%d", length, value, errno);
		return !absent();
	}
	say(" s%d,%d", length, value);
	get(fd, k, level, opt, 16);
	return true;
}

/* A get with each length; the lengths of a set, and values; a set that succeeds is read back. What is not there at all is not asked so often. */
static void one(const struct kind *k, int level, int opt)
{
	static const int get_lengths[] = {4, 1, 0, 2, 8, 16, 256, -1};
	static const int set_lengths[] = {4, 0, 3, 8, 12, 16, 20, 32, 136, 256, -1};
	static const int values[] = {0, -1, 7, 300, 65536, 1 << 30};
	int fd = make(k);
	bool there;

	if (fd < 0) {
		say(" socket=%d", errno);
		return;
	}
	there = get(fd, k, level, opt, get_lengths[0]);
	there |= set(fd, k, level, opt, set_lengths[0], 1);
	for (size_t i = 1; i < (there ? ARRAY_SIZE(get_lengths) : 2); i++)
		get(fd, k, level, opt, get_lengths[i]);
	for (size_t i = 1; i < (there ? ARRAY_SIZE(set_lengths) : 2); i++)
		set(fd, k, level, opt, set_lengths[i], 1);
	for (size_t i = 0; there && i < ARRAY_SIZE(values); i++)
		set(fd, k, level, opt, 4, values[i]);
	close(fd);
}

/* The sources of both groups, and of one that it is not in: what is written, and how far. */
static void sources(const struct kind *k)
{
	static const char *const groups[2][3] = {{"232.1.1.1", "224.0.0.251", "232.1.1.2"},
						 {"ff3e::1", "ff02::fb", "ff3e::2"}};
	static const unsigned counts[] = {0, 1, SOURCES - 1, SOURCES, 100, 70000, ~0u};
	static const int lengths[] = {-1, 0, 4, 15, 16, 143, 144, 272, 1024, 4096};
	int level = k->family == AF_INET ? IPPROTO_IP : IPPROTO_IPV6, fd = make(k);
	static union {
		struct group_filter f;
		struct ip_msfilter f4;
		unsigned char b[4096];
	} v;

	for (unsigned i = 0; i < 2 * 3 * ARRAY_SIZE(counts) * ARRAY_SIZE(lengths); i++) {
		int length = lengths[i % ARRAY_SIZE(lengths)];
		unsigned count = counts[i / ARRAY_SIZE(lengths) % ARRAY_SIZE(counts)], sum = 0;
		unsigned which = i / (ARRAY_SIZE(counts) * ARRAY_SIZE(lengths)), end = sizeof(v);
		const char *group = groups[k->family == AF_INET6][which % 3];
		socklen_t len = (socklen_t)length;
		void *at = k->family == AF_INET
				   ? (void *)&((struct sockaddr_in *)&v.f.gf_group)->sin_addr
				   : &((struct sockaddr_in6 *)&v.f.gf_group)->sin6_addr;
		int ret;

		memset(&v, 0xa5, sizeof(v));
		if (which < 3) {
			memset(&v.f.gf_group, 0, sizeof(v.f.gf_group));
			v.f.gf_interface = 1;
			v.f.gf_group.ss_family = (sa_family_t)k->family;
			v.f.gf_numsrc = count;
			inet_pton(k->family, group, at);
			ret = getsockopt(fd, level, MCAST_MSFILTER, &v, &len);
		} else {
			v.f4.imsf_interface.s_addr = htonl(INADDR_LOOPBACK);
			v.f4.imsf_numsrc = count;
			inet_pton(AF_INET, groups[0][which % 3], &v.f4.imsf_multiaddr);
			ret = getsockopt(fd, IPPROTO_IP, IP_MSFILTER, &v, &len);
		}
		while (end > 0 && v.b[end - 1] == 0xa5)
			end--;
		for (unsigned b = 0; b < end; b++)
			sum = sum * 31 + v.b[b];
		used = 0;
		say("%s sources of %s%s m%u,%d=%d:%u:%u:%08x", k->name,
		    which < 3 ? group : groups[0][which % 3], which < 3 ? "" : " short", count,
		    length, ret < 0 ? errno : 0, len, end, sum);
		puts(line);
	}
	close(fd);
}

int main(int argc, char **argv)
{
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (argc > 1 && strcmp(argv[1], kinds[i].name) != 0)
			continue;
		for (size_t l = 0; l < ARRAY_SIZE(levels); l++)
			for (int opt = levels[l].last > 100 ? 100 : -1; opt <= levels[l].last;
			     opt++) {
				used = 0;
				say("%s %d/%d", kinds[i].name, levels[l].level, opt);
				one(&kinds[i], levels[l].level, opt);
				puts(line);
			}
		if (kinds[i].how == MEMBER)
			sources(&kinds[i]);
	}
	return 0;
}
