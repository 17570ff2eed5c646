/*
 * tests/net/sockopts.c - every option of every level, read and set with good, short, long and negative lengths, on each kind of socket: a line
 * per kind, level and option that says what happened. tests/net/run compares the host's lines with the sandbox's.
 *
 * `sockopts [KIND]`. A line is KIND LEVEL/OPTION and then what was tried: g for getsockopt with that length, s for setsockopt
 * with that length and value; =errno, or for a get :length:value. Values that differ from socket to socket are printed as *.
 */
#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof(*(a)))

enum how { NEW, BOUND, LISTENING, CONNECTED };

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
	{IPPROTO_RAW, 3},
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
	}
	return 0;
}
