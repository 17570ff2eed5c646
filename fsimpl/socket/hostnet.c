/*
 * fsimpl/socket/hostnet.c - see hostnet.h.
 *
 * In a namespace of its own the sentry opens two doors before it is confined: it makes every port unprivileged and lets every
 * group ping. The guest's rules (CAP_NET_BIND_SERVICE, ping_group_range) are then the sentry's to apply, with the
 * values that were there before; so it needs no capability for them.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/lock.h"
#include "base/log.h"
#include "base/sysctl.h"
#include "fsimpl/socket/hostnet.h"

struct hostnet_file {
	const char *name;
	int fd; /* -1: the host has none; immutable once confined */
};

#define F(file_name)                        \
	{                                   \
		.name = file_name, .fd = -1 \
	}

static struct hostnet_file net_files[] = {
	F("arp"),	F("dev"),	   F("dev_mcast"), F("fib_trie"),     F("icmp"),
	F("icmp6"),	F("if_inet6"),	   F("igmp"),	   F("igmp6"),	      F("ipv6_route"),
	F("mcfilter"),	F("mcfilter6"),	   F("netlink"),   F("netstat"),      F("packet"),
	F("protocols"), F("psched"),	   F("ptype"),	   F("raw"),	      F("raw6"),
	F("route"),	F("rt6_stats"),	   F("snmp"),	   F("snmp6"),	      F("sockstat"),
	F("sockstat6"), F("tcp"),	   F("tcp6"),	   F("udp"),	      F("udp6"),
	F("udplite"),	F("udplite6"),	   F("anycast6"),  F("fib_triestat"), F("ip6_flowlabel"),
	F("rt_cache"),	F("softnet_stat"),
};

/* What programs and container configurations read and set; docs/network.md. */
static struct hostnet_file sysctl_files[] = {
	F("core/netdev_max_backlog"),
	F("core/optmem_max"),
	F("core/rmem_default"),
	F("core/rmem_max"),
	F("core/somaxconn"),
	F("core/wmem_default"),
	F("core/wmem_max"),
	F("ipv4/conf/all/arp_announce"),
	F("ipv4/conf/all/arp_ignore"),
	F("ipv4/conf/all/forwarding"),
	F("ipv4/conf/all/route_localnet"),
	F("ipv4/conf/all/rp_filter"),
	F("ipv4/conf/default/forwarding"),
	F("ipv4/conf/default/rp_filter"),
	F("ipv4/conf/lo/forwarding"),
	F("ipv4/conf/lo/rp_filter"),
	F("ipv4/icmp_echo_ignore_all"),
	F("ipv4/icmp_echo_ignore_broadcasts"),
	F("ipv4/igmp_max_memberships"),
	F("ipv4/ip_default_ttl"),
	F("ipv4/ip_forward"),
	F("ipv4/ip_local_port_range"),
	F("ipv4/ip_local_reserved_ports"),
	F("ipv4/ip_no_pmtu_disc"),
	F("ipv4/ip_nonlocal_bind"),
	F(SYSCTL_PORT_START),
	F(SYSCTL_PING_RANGE),
	F("ipv4/tcp_abort_on_overflow"),
	F("ipv4/tcp_available_congestion_control"),
	F("ipv4/tcp_congestion_control"),
	F("ipv4/tcp_ecn"),
	F("ipv4/tcp_fastopen"),
	F("ipv4/tcp_fin_timeout"),
	F("ipv4/tcp_keepalive_intvl"),
	F("ipv4/tcp_keepalive_probes"),
	F("ipv4/tcp_keepalive_time"),
	F("ipv4/tcp_max_syn_backlog"),
	F("ipv4/tcp_max_tw_buckets"),
	F("ipv4/tcp_mem"),
	F("ipv4/tcp_mtu_probing"),
	F("ipv4/tcp_notsent_lowat"),
	F("ipv4/tcp_retries1"),
	F("ipv4/tcp_retries2"),
	F("ipv4/tcp_rmem"),
	F("ipv4/tcp_sack"),
	F("ipv4/tcp_slow_start_after_idle"),
	F("ipv4/tcp_syn_retries"),
	F("ipv4/tcp_synack_retries"),
	F("ipv4/tcp_syncookies"),
	F("ipv4/tcp_timestamps"),
	F("ipv4/tcp_tw_reuse"),
	F("ipv4/tcp_window_scaling"),
	F("ipv4/tcp_wmem"),
	F("ipv4/udp_mem"),
	F("ipv4/udp_rmem_min"),
	F("ipv4/udp_wmem_min"),
	F("ipv6/bindv6only"),
	F("ipv6/conf/all/accept_ra"),
	F("ipv6/conf/all/disable_ipv6"),
	F("ipv6/conf/all/forwarding"),
	F("ipv6/conf/default/accept_ra"),
	F("ipv6/conf/default/disable_ipv6"),
	F("ipv6/conf/lo/disable_ipv6"),
};
#undef F

static enum hostnet_mode mode = HOSTNET_NONE; /* immutable once confined */
/* The guest's view of what is the sentry's to decide. */
static _Atomic unsigned port_start = 1024;
static _Atomic unsigned ping_low = 1, ping_high;

enum hostnet_mode hostnet_mode(void)
{
	return mode;
}

static struct hostnet_file *find(struct hostnet_file *files, size_t count, const char *name)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(files[i].name, name) == 0)
			return files[i].fd >= 0 ? &files[i] : NULL;
	return NULL;
}

static int read_whole(int fd, struct buf *b)
{
	char chunk[4096];
	off_t off = 0;

	while (off < (off_t)HOSTNET_FILE_MAX) {
		ssize_t n = pread(fd, chunk, sizeof(chunk), off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		buf_append(b, chunk, (size_t)n);
		off += n;
	}
	return 0;
}

int hostnet_read(const char *name, struct buf *b)
{
	struct hostnet_file *hf = find(net_files, ARRAY_SIZE(net_files), name);

	return hf ? read_whole(hf->fd, b) : -ENOENT;
}

const char *hostnet_sysctl_name(const char *name)
{
	struct hostnet_file *hf = find(sysctl_files, ARRAY_SIZE(sysctl_files), name);

	return hf ? hf->name : NULL;
}

const char *hostnet_sysctl_at(unsigned index)
{
	for (size_t i = 0; i < ARRAY_SIZE(sysctl_files); i++)
		if (sysctl_files[i].fd >= 0 && index-- == 0)
			return sysctl_files[i].name;
	return NULL;
}

int hostnet_sysctl_read(const char *name, struct buf *b)
{
	struct hostnet_file *hf = find(sysctl_files, ARRAY_SIZE(sysctl_files), name);

	if (!hf)
		return -ENOENT;
	if (mode == HOSTNET_OWN && strcmp(name, SYSCTL_PORT_START) == 0) {
		buf_printf(b, "%u\n", atomic_load_explicit(&port_start, memory_order_relaxed));
		return 0;
	}
	if (mode == HOSTNET_OWN && strcmp(name, SYSCTL_PING_RANGE) == 0) {
		buf_printf(b, "%u\t%u\n", atomic_load_explicit(&ping_low, memory_order_relaxed),
			   atomic_load_explicit(&ping_high, memory_order_relaxed));
		return 0;
	}
	return read_whole(hf->fd, b);
}

/* One or two decimal numbers of at most `max`. */
static bool parse_numbers(const char *data, size_t size, unsigned long max, unsigned *ret,
			  unsigned count)
{
	char text[64], *p = text, *end;

	if (size >= sizeof(text))
		return false;
	memcpy(text, data, size);
	text[size] = '\0';
	for (unsigned i = 0; i < count; i++) {
		unsigned long v;

		p += strspn(p, " \t");
		if (*p < '0' || *p > '9')
			return false;
		v = strtoul(p, &end, 10);
		if (v > max)
			return false;
		ret[i] = (unsigned)v;
		p = end;
	}
	return p[strspn(p, " \t\n")] == '\0';
}

int hostnet_sysctl_write(const char *name, const char *data, size_t size)
{
	struct hostnet_file *hf = find(sysctl_files, ARRAY_SIZE(sysctl_files), name);
	unsigned v[2];

	if (!hf)
		return -ENOENT;
	if (mode != HOSTNET_OWN)
		return -EPERM; /* not this sandbox's to change */
	if (strcmp(name, SYSCTL_PORT_START) == 0) {
		if (!parse_numbers(data, size, 65536, v, 1))
			return -EINVAL;
		atomic_store_explicit(&port_start, v[0], memory_order_relaxed);
		return 0;
	}
	if (strcmp(name, SYSCTL_PING_RANGE) == 0) {
		if (!parse_numbers(data, size, 0x7fffffff, v, 2))
			return -EINVAL;
		atomic_store_explicit(&ping_low, v[0], memory_order_relaxed);
		atomic_store_explicit(&ping_high, v[1], memory_order_relaxed);
		return 0;
	}
	return pwrite(hf->fd, data, size, 0) < 0 ? -errno : 0;
}

bool hostnet_port_privileged(unsigned port)
{
	return mode != HOSTNET_NONE && port &&
	       port < atomic_load_explicit(&port_start, memory_order_relaxed);
}

bool hostnet_may_ping(uint32_t gid)
{
	return mode != HOSTNET_OWN ||
	       (gid >= atomic_load_explicit(&ping_low, memory_order_relaxed) &&
		gid <= atomic_load_explicit(&ping_high, memory_order_relaxed));
}

/* ---- before confinement ---- */

static void open_files(struct hostnet_file *files, size_t count, const char *dir, bool write)
{
	char path[128];

	for (size_t i = 0; i < count; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, files[i].name);
		files[i].fd = write ? open(path, O_RDWR | O_CLOEXEC | O_NOCTTY) : -1;
		if (files[i].fd < 0)
			files[i].fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	}
}

static bool sysctl_numbers(const char *name, unsigned *ret, unsigned count)
{
	struct hostnet_file *hf = find(sysctl_files, ARRAY_SIZE(sysctl_files), name);
	char text[64];
	ssize_t n = hf ? pread(hf->fd, text, sizeof(text) - 1, 0) : -1;

	return n > 0 && parse_numbers(text, (size_t)n, UINT32_MAX, ret, count);
}

static void sysctl_set(const char *name, const char *value, const char *what)
{
	struct hostnet_file *hf = find(sysctl_files, ARRAY_SIZE(sysctl_files), name);

	if (!hf || pwrite(hf->fd, value, strlen(value), 0) < 0)
		log_warn("/proc/sys/net/%s cannot be set: %s need the host's permission", name,
			 what);
}

void hostnet_prepare(enum hostnet_mode new_mode)
{
	unsigned v[2];

	mode = new_mode;
	if (mode == HOSTNET_NONE)
		return;
	open_files(net_files, ARRAY_SIZE(net_files), "/proc/self/net", false);
	open_files(sysctl_files, ARRAY_SIZE(sysctl_files), "/proc/sys/net", mode == HOSTNET_OWN);
	if (sysctl_numbers(SYSCTL_PORT_START, v, 1))
		port_start = v[0];
	if (mode != HOSTNET_OWN)
		return;
	if (sysctl_numbers(SYSCTL_PING_RANGE, v, 2)) {
		ping_low = v[0];
		ping_high = v[1];
	}
	sysctl_set(SYSCTL_PORT_START, "0", "ports below 1024");
	sysctl_set(SYSCTL_PING_RANGE, "0 2147483647", "ICMP datagram sockets");
}

int hostnet_sysctl_configure(const char *name, const char *value)
{
	if (mode != HOSTNET_OWN)
		return -EPERM;
	if (sysctl_is_sentrys(name))
		return hostnet_sysctl_write(name, value, strlen(value));
	return sysctl_network_write(name, value);
}
