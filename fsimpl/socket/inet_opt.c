/*
 * fsimpl/socket/inet_opt.c - the options of internet sockets: one table.
 *
 * A row says what happens to an option in either direction: it goes to the host as it is, needs a capability of the guest's
 * first (the host looks at the sentry's), is kept here, or does not exist. What has no row is ENOPROTOOPT, as an option that
 * Linux was built without; refuse_set() and level_known() know where Linux has another error. The host checks
 * lengths and values: a value is copied in once, and passed on with its length.
 *
 * A get that goes to the host must not write more than the length that it is given: Linux's all keep to that but IP_MSFILTER and MCAST_MSFILTER,
 * which write as many sources as the value asks for (OPT_SOURCES: the count is cut to the room first). IPV6_FLOWLABEL_MGR reads the
 * value too, but wants and writes one fixed size.
 *
 * Not passed on: options with pointers or descriptors of the caller's inside (BPF programs but classic ones, TCP_ZEROCOPY_RECEIVE,
 * netfilter's IPT_*), SO_GET_FILTER (counts in instructions), TCP_ULP (kTLS), TCP-AO, IPsec policies, and SO_ZEROCOPY (inet.c says why).
 * tests/net/sockopts.c tries them all beside the host.
 */
#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>
#include <linux/capability.h>

#include "fsimpl/socket/host.h"

enum opt_how {
	OPT_NO, /* not in this direction: ENOPROTOOPT */
	OPT_PASS, /* the host's */
	OPT_ADMIN, /* the host's, with CAP_NET_ADMIN: else EPERM */
	OPT_RAW, /* the host's, with CAP_NET_RAW or CAP_NET_ADMIN */
	OPT_HERE, /* option_set_here(), option_get_here() */
	OPT_SOURCES, /* the host's: a list of multicast sources, bounded by the system call layer and get_sources() */
	OPT_UNSUPPORTED, /* EOPNOTSUPP */
};

struct inet_option {
	uint16_t level, name;
	uint8_t set, get; /* enum opt_how */
};

#define OPT_IN_MAX 1024u /* the system call layer's bound on a value */

/* What older C library headers lack. */
enum {
	SO_BSDCOMPAT_NR = 14,
	SO_ATTACH_REUSEPORT_CBPF_NR = 51,
	SO_CNX_ADVICE_NR = 53,
	SO_MEMINFO_NR = 55,
	SO_INCOMING_NAPI_ID_NR = 56,
	SO_COOKIE_NR = 57,
	SO_PEERGROUPS_NR = 59,
	SO_ZEROCOPY_NR = 60,
	SO_TXTIME_NR = 61,
	SO_BINDTOIFINDEX_NR = 62,
	SO_TIMESTAMP_NEW_NR = 63,
	SO_TIMESTAMPNS_NEW_NR = 64,
	SO_TIMESTAMPING_NEW_NR = 65,
	SO_RCVTIMEO_NEW_NR = 66,
	SO_SNDTIMEO_NEW_NR = 67,
	SO_DETACH_REUSEPORT_BPF_NR = 68,
	SO_PREFER_BUSY_POLL_NR = 69,
	SO_BUSY_POLL_BUDGET_NR = 70,
	SO_NETNS_COOKIE_NR = 71,
	SO_BUF_LOCK_NR = 72,
	SO_RESERVE_MEM_NR = 73,
	SO_TXREHASH_NR = 74,
	SO_RCVMARK_NR = 75,
	SO_PASSPIDFD_NR = 76,
	SO_PEERPIDFD_NR = 77,
	SO_RCVPRIORITY_NR = 82,
	SO_PASSRIGHTS_NR = 83,
	IP_BIND_ADDRESS_NO_PORT_NR = 24,
	IP_RECVFRAGSIZE_NR = 25,
	IP_RECVERR_RFC4884_NR = 26,
	IP_LOCAL_PORT_RANGE_NR = 51,
	IP_PROTOCOL_NR = 52,
	IPV6_FLOWINFO_NR = 11,
	IPV6_HDRINCL_NR = 36,
	IPV6_ADDR_PREFERENCES_NR = 72,
	IPV6_MINHOPCOUNT_NR = 73,
	IPV6_ORIGDSTADDR_NR = 74,
	IPV6_TRANSPARENT_NR = 75,
	IPV6_UNICAST_IF_NR = 76,
	IPV6_RECVFRAGSIZE_NR = 77,
	IPV6_FREEBIND_NR = 78,
	IPV6_FLOWINFO_SEND_NR = 33,
	IPV6_FLOWLABEL_MGR_NR = 32,
	IPV6_AUTOFLOWLABEL_NR = 70,
	IPV6_MULTICAST_ALL_NR = 29,
	IPV6_ROUTER_ALERT_ISOLATE_NR = 30,
	IPV6_RECVERR_RFC4884_NR = 31,
	TCP_THIN_LINEAR_NR = 16,
	TCP_THIN_DUPACK_NR = 17,
	TCP_REPAIR_QUEUE_NR = 20,
	TCP_QUEUE_SEQ_NR = 21,
	TCP_REPAIR_OPTIONS_NR = 22,
	TCP_REPAIR_WINDOW_NR = 29,
	TCP_IS_MPTCP_NR = 43,
	TCP_CC_INFO_NR = 26,
	TCP_SAVE_SYN_NR = 27,
	TCP_SAVED_SYN_NR = 28,
	TCP_FASTOPEN_CONNECT_NR = 30,
	TCP_FASTOPEN_KEY_NR = 33,
	TCP_FASTOPEN_NO_COOKIE_NR = 34,
	TCP_INQ_NR = 36,
	TCP_TX_DELAY_NR = 37,
	TCP_RTO_MAX_MS_NR = 44,
	TCP_RTO_MIN_US_NR = 45,
	TCP_DELACK_MAX_US_NR = 46,
	TCP_MD5SIG_EXT_NR = 32,
	UDP_CORK_NR = 1,
	UDP_ENCAP_NR = 100,
	UDP_NO_CHECK6_TX_NR = 101,
	UDP_NO_CHECK6_RX_NR = 102,
	UDP_SEGMENT_NR = 103,
	UDP_GRO_NR = 104,
	UDPLITE_SEND_CSCOV_NR = 10,
	UDPLITE_RECV_CSCOV_NR = 11,
	RAW_ICMP_FILTER_NR = 1,
	ICMPV6_FILTER_NR = 1,
	IPV6_CHECKSUM_NR = 7,
};

#define P OPT_PASS
#define A OPT_ADMIN
#define R OPT_RAW
#define H OPT_HERE
#define N OPT_NO
#define U OPT_UNSUPPORTED
#define S OPT_SOURCES

/* clang-format off */
static const struct inet_option options[] = {
	/* level, name, set, get */
	{SOL_SOCKET, SO_DEBUG, A, P},
	{SOL_SOCKET, SO_REUSEADDR, P, P},
	{SOL_SOCKET, SO_TYPE, N, P},
	{SOL_SOCKET, SO_ERROR, N, P},
	{SOL_SOCKET, SO_DONTROUTE, P, P},
	{SOL_SOCKET, SO_BROADCAST, P, P},
	{SOL_SOCKET, SO_SNDBUF, P, P},
	{SOL_SOCKET, SO_RCVBUF, P, P},
	{SOL_SOCKET, SO_KEEPALIVE, P, P},
	{SOL_SOCKET, SO_OOBINLINE, P, P},
	{SOL_SOCKET, SO_NO_CHECK, P, P},
	{SOL_SOCKET, SO_PRIORITY, H, P},
	{SOL_SOCKET, SO_LINGER, H, H},
	{SOL_SOCKET, SO_REUSEPORT, P, P},
	{SOL_SOCKET, SO_PASSCRED, P, P},
	{SOL_SOCKET, SO_PEERCRED, N, P},
	{SOL_SOCKET, SO_RCVLOWAT, H, P},
	{SOL_SOCKET, SO_SNDLOWAT, N, P},
	{SOL_SOCKET, SO_RCVTIMEO, H, H},
	{SOL_SOCKET, SO_SNDTIMEO, H, H},
	{SOL_SOCKET, SO_RCVTIMEO_NEW_NR, H, H},
	{SOL_SOCKET, SO_SNDTIMEO_NEW_NR, H, H},
	{SOL_SOCKET, SO_BINDTODEVICE, H, P},
	{SOL_SOCKET, SO_BINDTOIFINDEX_NR, H, P},
	{SOL_SOCKET, SO_BSDCOMPAT_NR, P, P},
	{SOL_SOCKET, SO_PASSSEC, P, P},
	{SOL_SOCKET, SO_PASSPIDFD_NR, P, P},
	{SOL_SOCKET, SO_PASSRIGHTS_NR, P, P},
	{SOL_SOCKET, SO_PEERGROUPS_NR, N, H},
	{SOL_SOCKET, SO_PEERPIDFD_NR, N, H},
	{SOL_SOCKET, SO_CNX_ADVICE_NR, P, N},
	{SOL_SOCKET, SO_ATTACH_FILTER, H, N},
	{SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF_NR, H, N},
	{SOL_SOCKET, SO_DETACH_REUSEPORT_BPF_NR, P, N},
	{SOL_SOCKET, SO_DETACH_FILTER, P, N},
	{SOL_SOCKET, SO_LOCK_FILTER, P, P},
	{SOL_SOCKET, SO_PEERNAME, N, P},
	{SOL_SOCKET, SO_TIMESTAMP, P, P},
	{SOL_SOCKET, SO_TIMESTAMPNS, P, P},
	{SOL_SOCKET, SO_TIMESTAMPING, P, P},
	{SOL_SOCKET, SO_TIMESTAMP_NEW_NR, P, P},
	{SOL_SOCKET, SO_TIMESTAMPNS_NEW_NR, P, P},
	{SOL_SOCKET, SO_TIMESTAMPING_NEW_NR, P, P},
	{SOL_SOCKET, SO_ACCEPTCONN, N, P},
	{SOL_SOCKET, SO_SNDBUFFORCE, A, N},
	{SOL_SOCKET, SO_RCVBUFFORCE, A, N},
	{SOL_SOCKET, SO_MARK, R, P},
	{SOL_SOCKET, SO_PROTOCOL, N, P},
	{SOL_SOCKET, SO_DOMAIN, N, P},
	{SOL_SOCKET, SO_RXQ_OVFL, P, P},
	{SOL_SOCKET, SO_WIFI_STATUS, P, P},
	{SOL_SOCKET, SO_PEEK_OFF, P, P},
	{SOL_SOCKET, SO_NOFCS, P, P},
	{SOL_SOCKET, SO_SELECT_ERR_QUEUE, P, P},
	{SOL_SOCKET, SO_BUSY_POLL, A, P},
	{SOL_SOCKET, SO_PREFER_BUSY_POLL_NR, A, P},
	{SOL_SOCKET, SO_BUSY_POLL_BUDGET_NR, A, P},
	{SOL_SOCKET, SO_MAX_PACING_RATE, P, P},
	{SOL_SOCKET, SO_BPF_EXTENSIONS, N, P},
	{SOL_SOCKET, SO_INCOMING_CPU, P, P},
	{SOL_SOCKET, SO_INCOMING_NAPI_ID_NR, N, P},
	{SOL_SOCKET, SO_COOKIE_NR, N, P},
	{SOL_SOCKET, SO_MEMINFO_NR, N, P},
	{SOL_SOCKET, SO_TXTIME_NR, A, P},
	{SOL_SOCKET, SO_NETNS_COOKIE_NR, N, P},
	{SOL_SOCKET, SO_BUF_LOCK_NR, P, P},
	{SOL_SOCKET, SO_RESERVE_MEM_NR, P, P},
	{SOL_SOCKET, SO_TXREHASH_NR, P, P},
	{SOL_SOCKET, SO_RCVMARK_NR, R, P},
	{SOL_SOCKET, SO_RCVPRIORITY_NR, P, P},
	{SOL_SOCKET, SO_ZEROCOPY_NR, U, P},

	{IPPROTO_IP, IP_TOS, P, P},
	{IPPROTO_IP, IP_TTL, P, P},
	{IPPROTO_IP, IP_HDRINCL, P, P},
	{IPPROTO_IP, IP_OPTIONS, P, P},
	{IPPROTO_IP, IP_ROUTER_ALERT, P, P},
	{IPPROTO_IP, IP_RECVOPTS, P, P},
	{IPPROTO_IP, IP_RETOPTS, P, P},
	{IPPROTO_IP, IP_PKTINFO, P, P},
	{IPPROTO_IP, IP_PKTOPTIONS, N, P},
	{IPPROTO_IP, IP_MTU_DISCOVER, P, P},
	{IPPROTO_IP, IP_RECVERR, P, P},
	{IPPROTO_IP, IP_RECVTTL, P, P},
	{IPPROTO_IP, IP_RECVTOS, P, P},
	{IPPROTO_IP, IP_MTU, N, P},
	{IPPROTO_IP, IP_FREEBIND, P, P},
	{IPPROTO_IP, IP_PASSSEC, P, P},
	{IPPROTO_IP, IP_TRANSPARENT, R, P},
	{IPPROTO_IP, IP_RECVORIGDSTADDR, P, P},
	{IPPROTO_IP, IP_MINTTL, P, P},
	{IPPROTO_IP, IP_NODEFRAG, P, P},
	{IPPROTO_IP, IP_CHECKSUM, P, P},
	{IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT_NR, P, P},
	{IPPROTO_IP, IP_RECVFRAGSIZE_NR, P, P},
	{IPPROTO_IP, IP_RECVERR_RFC4884_NR, P, P},
	{IPPROTO_IP, IP_MULTICAST_IF, P, P},
	{IPPROTO_IP, IP_MULTICAST_TTL, P, P},
	{IPPROTO_IP, IP_MULTICAST_LOOP, P, P},
	{IPPROTO_IP, IP_ADD_MEMBERSHIP, P, N},
	{IPPROTO_IP, IP_DROP_MEMBERSHIP, P, N},
	{IPPROTO_IP, IP_UNBLOCK_SOURCE, P, N},
	{IPPROTO_IP, IP_BLOCK_SOURCE, P, N},
	{IPPROTO_IP, IP_ADD_SOURCE_MEMBERSHIP, P, N},
	{IPPROTO_IP, IP_DROP_SOURCE_MEMBERSHIP, P, N},
	{IPPROTO_IP, IP_MSFILTER, S, S},
	{IPPROTO_IP, MCAST_JOIN_GROUP, P, N},
	{IPPROTO_IP, MCAST_BLOCK_SOURCE, P, N},
	{IPPROTO_IP, MCAST_UNBLOCK_SOURCE, P, N},
	{IPPROTO_IP, MCAST_LEAVE_GROUP, P, N},
	{IPPROTO_IP, MCAST_JOIN_SOURCE_GROUP, P, N},
	{IPPROTO_IP, MCAST_LEAVE_SOURCE_GROUP, P, N},
	{IPPROTO_IP, MCAST_MSFILTER, S, S},
	{IPPROTO_IP, IP_MULTICAST_ALL, P, P},
	{IPPROTO_IP, IP_UNICAST_IF, P, P},
	{IPPROTO_IP, IP_LOCAL_PORT_RANGE_NR, P, P},
	{IPPROTO_IP, IP_PROTOCOL_NR, N, P},

	{IPPROTO_IPV6, IPV6_ADDRFORM, P, P},
	{IPPROTO_IPV6, IPV6_FLOWINFO_NR, P, P},
	{IPPROTO_IPV6, IPV6_2292PKTINFO, P, P},
	{IPPROTO_IPV6, IPV6_2292HOPOPTS, P, P},
	{IPPROTO_IPV6, IPV6_2292DSTOPTS, P, P},
	{IPPROTO_IPV6, IPV6_2292RTHDR, P, P},
	{IPPROTO_IPV6, IPV6_2292PKTOPTIONS, R, P},
	{IPPROTO_IPV6, IPV6_CHECKSUM_NR, P, P},
	{IPPROTO_IPV6, IPV6_2292HOPLIMIT, P, P},
	{IPPROTO_IPV6, IPV6_NEXTHOP, P, P},
	{IPPROTO_IPV6, IPV6_UNICAST_HOPS, P, P},
	{IPPROTO_IPV6, IPV6_MULTICAST_IF, P, P},
	{IPPROTO_IPV6, IPV6_MULTICAST_HOPS, P, P},
	{IPPROTO_IPV6, IPV6_MULTICAST_LOOP, P, P},
	{IPPROTO_IPV6, IPV6_JOIN_GROUP, P, N},
	{IPPROTO_IPV6, IPV6_LEAVE_GROUP, P, N},
	{IPPROTO_IPV6, IPV6_ROUTER_ALERT, P, P},
	{IPPROTO_IPV6, IPV6_MTU_DISCOVER, P, P},
	{IPPROTO_IPV6, IPV6_MTU, P, P},
	{IPPROTO_IPV6, IPV6_RECVERR, P, P},
	{IPPROTO_IPV6, IPV6_V6ONLY, P, P},
	{IPPROTO_IPV6, IPV6_JOIN_ANYCAST, P, N},
	{IPPROTO_IPV6, IPV6_LEAVE_ANYCAST, P, N},
	{IPPROTO_IPV6, IPV6_MULTICAST_ALL_NR, P, P},
	{IPPROTO_IPV6, IPV6_ROUTER_ALERT_ISOLATE_NR, P, P},
	{IPPROTO_IPV6, IPV6_RECVERR_RFC4884_NR, P, P},
	{IPPROTO_IPV6, IPV6_FLOWLABEL_MGR_NR, P, P},
	{IPPROTO_IPV6, IPV6_FLOWINFO_SEND_NR, P, P},
	{IPPROTO_IPV6, MCAST_JOIN_GROUP, P, N},
	{IPPROTO_IPV6, MCAST_BLOCK_SOURCE, P, N},
	{IPPROTO_IPV6, MCAST_UNBLOCK_SOURCE, P, N},
	{IPPROTO_IPV6, MCAST_LEAVE_GROUP, P, N},
	{IPPROTO_IPV6, MCAST_JOIN_SOURCE_GROUP, P, N},
	{IPPROTO_IPV6, MCAST_LEAVE_SOURCE_GROUP, P, N},
	{IPPROTO_IPV6, MCAST_MSFILTER, S, S},
	{IPPROTO_IPV6, IPV6_RECVPKTINFO, P, P},
	{IPPROTO_IPV6, IPV6_PKTINFO, P, P},
	{IPPROTO_IPV6, IPV6_RECVHOPLIMIT, P, P},
	{IPPROTO_IPV6, IPV6_HOPLIMIT, P, P},
	{IPPROTO_IPV6, IPV6_RECVHOPOPTS, P, P},
	{IPPROTO_IPV6, IPV6_HOPOPTS, R, P},
	{IPPROTO_IPV6, IPV6_RTHDRDSTOPTS, R, P},
	{IPPROTO_IPV6, IPV6_RECVRTHDR, P, P},
	{IPPROTO_IPV6, IPV6_RTHDR, P, P},
	{IPPROTO_IPV6, IPV6_RECVDSTOPTS, P, P},
	{IPPROTO_IPV6, IPV6_DSTOPTS, R, P},
	{IPPROTO_IPV6, IPV6_RECVPATHMTU, P, P},
	{IPPROTO_IPV6, IPV6_PATHMTU, N, P},
	{IPPROTO_IPV6, IPV6_DONTFRAG, P, P},
	{IPPROTO_IPV6, IPV6_RECVTCLASS, P, P},
	{IPPROTO_IPV6, IPV6_TCLASS, P, P},
	{IPPROTO_IPV6, IPV6_AUTOFLOWLABEL_NR, P, P},
	{IPPROTO_IPV6, IPV6_ADDR_PREFERENCES_NR, P, P},
	{IPPROTO_IPV6, IPV6_MINHOPCOUNT_NR, P, P},
	{IPPROTO_IPV6, IPV6_ORIGDSTADDR_NR, P, P},
	{IPPROTO_IPV6, IPV6_HDRINCL_NR, P, P},
	{IPPROTO_IPV6, IPV6_TRANSPARENT_NR, R, P},
	{IPPROTO_IPV6, IPV6_UNICAST_IF_NR, P, P},
	{IPPROTO_IPV6, IPV6_RECVFRAGSIZE_NR, P, P},
	{IPPROTO_IPV6, IPV6_FREEBIND_NR, P, P},

	{IPPROTO_TCP, TCP_NODELAY, P, P},
	{IPPROTO_TCP, TCP_MAXSEG, P, P},
	{IPPROTO_TCP, TCP_CORK, P, P},
	{IPPROTO_TCP, TCP_KEEPIDLE, P, P},
	{IPPROTO_TCP, TCP_KEEPINTVL, P, P},
	{IPPROTO_TCP, TCP_KEEPCNT, P, P},
	{IPPROTO_TCP, TCP_SYNCNT, P, P},
	{IPPROTO_TCP, TCP_LINGER2, P, P},
	{IPPROTO_TCP, TCP_DEFER_ACCEPT, P, P},
	{IPPROTO_TCP, TCP_WINDOW_CLAMP, P, P},
	{IPPROTO_TCP, TCP_INFO, N, P},
	{IPPROTO_TCP, TCP_QUICKACK, P, P},
	{IPPROTO_TCP, TCP_CONGESTION, P, P},
	{IPPROTO_TCP, TCP_MD5SIG, P, N},
	{IPPROTO_TCP, TCP_MD5SIG_EXT_NR, P, N},
	{IPPROTO_TCP, TCP_THIN_LINEAR_NR, P, P},
	{IPPROTO_TCP, TCP_THIN_DUPACK_NR, P, P},
	{IPPROTO_TCP, TCP_USER_TIMEOUT, P, P},
	{IPPROTO_TCP, TCP_REPAIR, A, P},
	/* The host has them for a socket that is being repaired only. */
	{IPPROTO_TCP, TCP_REPAIR_QUEUE_NR, P, P},
	{IPPROTO_TCP, TCP_QUEUE_SEQ_NR, P, P},
	{IPPROTO_TCP, TCP_REPAIR_OPTIONS_NR, P, N},
	{IPPROTO_TCP, TCP_REPAIR_WINDOW_NR, P, P},
	{IPPROTO_TCP, TCP_IS_MPTCP_NR, N, P},
	{IPPROTO_TCP, TCP_FASTOPEN, P, P},
	{IPPROTO_TCP, TCP_TIMESTAMP, P, P},
	{IPPROTO_TCP, TCP_NOTSENT_LOWAT, P, P},
	{IPPROTO_TCP, TCP_CC_INFO_NR, N, P},
	{IPPROTO_TCP, TCP_SAVE_SYN_NR, P, P},
	{IPPROTO_TCP, TCP_SAVED_SYN_NR, N, P},
	{IPPROTO_TCP, TCP_FASTOPEN_CONNECT_NR, P, P},
	{IPPROTO_TCP, TCP_FASTOPEN_KEY_NR, P, P},
	{IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE_NR, P, P},
	{IPPROTO_TCP, TCP_INQ_NR, P, P},
	{IPPROTO_TCP, TCP_TX_DELAY_NR, P, P},
	{IPPROTO_TCP, TCP_RTO_MAX_MS_NR, P, P},
	{IPPROTO_TCP, TCP_RTO_MIN_US_NR, P, P},
	{IPPROTO_TCP, TCP_DELACK_MAX_US_NR, P, P},

	{IPPROTO_UDP, UDP_CORK_NR, P, P},
	{IPPROTO_UDP, UDP_NO_CHECK6_TX_NR, P, P},
	{IPPROTO_UDP, UDP_NO_CHECK6_RX_NR, P, P},
	{IPPROTO_UDP, UDP_SEGMENT_NR, P, P},
	{IPPROTO_UDP, UDP_GRO_NR, P, P},
	{IPPROTO_UDP, UDP_ENCAP_NR, N, P},
	/* The two levels have one table in Linux. */
	{IPPROTO_UDP, UDPLITE_SEND_CSCOV_NR, P, P},
	{IPPROTO_UDP, UDPLITE_RECV_CSCOV_NR, P, P},
	{IPPROTO_UDPLITE, UDP_CORK_NR, P, P},
	{IPPROTO_UDPLITE, UDP_ENCAP_NR, N, P},
	{IPPROTO_UDPLITE, UDP_NO_CHECK6_TX_NR, P, P},
	{IPPROTO_UDPLITE, UDP_NO_CHECK6_RX_NR, P, P},
	{IPPROTO_UDPLITE, UDP_SEGMENT_NR, P, P},
	{IPPROTO_UDPLITE, UDP_GRO_NR, P, P},
	{IPPROTO_UDPLITE, UDPLITE_SEND_CSCOV_NR, P, P},
	{IPPROTO_UDPLITE, UDPLITE_RECV_CSCOV_NR, P, P},

	{IPPROTO_RAW, RAW_ICMP_FILTER_NR, P, P},
	{IPPROTO_RAW, IPV6_CHECKSUM_NR, P, P}, /* IPv6's raw sockets take these two at either level */
	{IPPROTO_RAW, IPV6_HDRINCL_NR, P, P},
	{IPPROTO_ICMPV6, ICMPV6_FILTER_NR, P, P},
};
/* clang-format on */

static const struct inet_option *find_option(int level, int name)
{
	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		if (options[i].level == level && options[i].name == name)
			return &options[i];
	return NULL;
}

static int host_set(struct host_socket *hs, int level, int opt, const void *val, unsigned len)
{
	return setsockopt(hs->fd, level, opt, val, len) < 0 ? -errno : 0;
}

/* ---- options that are kept here ---- */

/* The host closes without waiting (host.c): it only hears of no lingering at all, and of a reset at close. */
static int set_linger(struct host_socket *hs, const void *val, unsigned len)
{
	struct linger l, off = {0};
	int err;

	if (len < sizeof(l))
		return -EINVAL;
	memcpy(&l, val, sizeof(l));
	err = host_set(hs, SOL_SOCKET, SO_LINGER, l.l_onoff && l.l_linger > 0 ? &off : &l,
		       sizeof(l));
	if (!err)
		atomic_store_explicit(&hs->linger_s, l.l_onoff && l.l_linger > 0 ? l.l_linger : -1,
				      memory_order_relaxed);
	return err;
}

static int set_priority(struct host_socket *hs, const void *val, unsigned len)
{
	int v;

	if (len < sizeof(v))
		return -EINVAL;
	memcpy(&v, val, sizeof(v));
	if ((v < 0 || v > 6) && !net_capable(CAP_NET_RAW) && !net_capable(CAP_NET_ADMIN))
		return -EPERM;
	return host_set(hs, SOL_SOCKET, SO_PRIORITY, val, len);
}

static int set_rcvlowat(struct host_socket *hs, const void *val, unsigned len)
{
	int v, err = host_set(hs, SOL_SOCKET, SO_RCVLOWAT, val, len);
	socklen_t got = sizeof(v);

	if (err)
		return err;
	if (getsockopt(hs->fd, SOL_SOCKET, SO_RCVLOWAT, &v, &got) == 0 && v > 0)
		atomic_store_explicit(&hs->rcvlowat, (unsigned)v, memory_order_relaxed);
	return 0;
}

/* A socket may be bound to a device once; to change that needs the right to. */
static int set_device(struct host_socket *hs, int opt, const void *val, unsigned len)
{
	int bound = 0;
	socklen_t got = sizeof(bound);

	if (getsockopt(hs->fd, SOL_SOCKET, SO_BINDTOIFINDEX_NR, &bound, &got) < 0)
		return -errno;
	if (bound && !net_capable(CAP_NET_RAW))
		return -EPERM;
	return host_set(hs, SOL_SOCKET, opt, val, len);
}

/* struct sock_fprog points to the program: copied in, checked by the host. */
static int attach_filter(struct host_socket *hs, int opt, const void *val, unsigned len)
{
	struct {
		uint16_t len;
		uint64_t filter;
	} guest;
	struct sock_fprog prog;
	int err;

	if (len != sizeof(guest))
		return -EINVAL;
	memcpy(&guest, val, sizeof(guest));
	if (!guest.filter || !guest.len || guest.len > BPF_MAXINSNS)
		return -EINVAL;
	prog.len = guest.len;
	prog.filter = calloc(guest.len, sizeof(*prog.filter));
	if (!prog.filter)
		return -ENOMEM;
	if (vfs_user_copy_in(prog.filter, guest.filter, guest.len * sizeof(*prog.filter)))
		err = -EFAULT;
	else
		err = host_set(hs, SOL_SOCKET, opt, &prog, sizeof(prog));
	free(prog.filter);
	return err;
}

static int option_set_here(struct host_socket *hs, int opt, const void *val, unsigned len)
{
	int64_t ns;
	int err;

	switch (opt) {
	case SO_LINGER:
		return set_linger(hs, val, len);
	case SO_PRIORITY:
		return set_priority(hs, val, len);
	case SO_RCVLOWAT:
		return set_rcvlowat(hs, val, len);
	case SO_BINDTODEVICE:
	case SO_BINDTOIFINDEX_NR:
		return set_device(hs, opt, val, len);
	case SO_ATTACH_FILTER:
	case SO_ATTACH_REUSEPORT_CBPF_NR:
		return attach_filter(hs, opt, val, len);
	}
	err = socket_timeout_set(val, len, &ns);
	if (!err)
		atomic_store_explicit(opt == SO_RCVTIMEO || opt == SO_RCVTIMEO_NEW_NR
					      ? &hs->rcvtimeo_ns
					      : &hs->sndtimeo_ns,
				      ns, memory_order_relaxed);
	return err;
}

static int option_get_here(struct host_socket *hs, int opt, void *val, unsigned *inout_len)
{
	int seconds = atomic_load_explicit(&hs->linger_s, memory_order_relaxed);
	struct linger l = {.l_onoff = 1, .l_linger = seconds};
	socklen_t len = sizeof(l);
	bool receive = opt == SO_RCVTIMEO || opt == SO_RCVTIMEO_NEW_NR;

	/* Only AF_UNIX knows who is at the other end. */
	if (opt == SO_PEERGROUPS_NR || opt == SO_PEERPIDFD_NR)
		return -ENODATA;
	if (opt != SO_LINGER)
		return socket_timeout_get(val, inout_len,
					  host_socket_timeout_ns(&hs->sf.f, !receive));
	if (seconds < 0 && getsockopt(hs->fd, SOL_SOCKET, SO_LINGER, &l, &len) < 0)
		return -errno;
	*inout_len = MIN(*inout_len, (unsigned)sizeof(l));
	memcpy(val, &l, *inout_len);
	return 0;
}

/* ---- lists of multicast sources ---- */

unsigned socket_sources_head(int level, int opt, unsigned *ret_each)
{
	if (level == IPPROTO_IP && opt == IP_MSFILTER) {
		*ret_each = sizeof(struct in_addr);
		return IP_MSFILTER_SIZE(0);
	}
	if ((level == IPPROTO_IP || level == IPPROTO_IPV6) && opt == MCAST_MSFILTER) {
		*ret_each = sizeof(struct sockaddr_storage);
		return GROUP_FILTER_SIZE(0);
	}
	return 0;
}

static_assert(offsetof(struct ip_msfilter, imsf_numsrc) + 4 == IP_MSFILTER_SIZE(0), "count last");
static_assert(offsetof(struct group_filter, gf_numsrc) + 4 == GROUP_FILTER_SIZE(0), "count last");

/* Linux looks at the count in the value, not at the length: no more than there is room for. */
static int get_sources(struct host_socket *hs, int level, int opt, uint8_t *val,
		       unsigned *inout_len)
{
	unsigned each = 1, head = socket_sources_head(level, opt, &each);
	uint8_t none[GROUP_FILTER_SIZE(0)] = {0};
	socklen_t len = *inout_len;
	uint32_t count;

	/* EINVAL, but that IPv6's raw sockets have none of IPv4's options. */
	if (len < head)
		return getsockopt(hs->fd, level, opt, none, &len) < 0 ? -errno : -EINVAL;
	if (!head)
		return -ENOPROTOOPT;
	memcpy(&count, val + head - sizeof(count), sizeof(count));
	count = MIN(count, (len - head) / each);
	memcpy(val + head - sizeof(count), &count, sizeof(count));
	if (getsockopt(hs->fd, level, opt, val, &len) < 0)
		return -errno;
	*inout_len = MIN((unsigned)len, *inout_len);
	return 0;
}

/* ---- entry points ---- */

/* Does a socket of this kind look at the level itself? (IPv6's sockets hand on what they do not know to IPv6, which says ENOPROTOOPT.) */
static bool level_known(const struct host_socket *hs, int level)
{
	switch (level) {
	case SOL_SOCKET:
	case IPPROTO_IP:
		return true;
	case IPPROTO_TCP:
		return hs->type == SOCK_STREAM;
	case IPPROTO_UDP:
	case IPPROTO_UDPLITE:
		return hs->type == SOCK_DGRAM && hs->protocol != IPPROTO_ICMP;
	case IPPROTO_RAW:
		return hs->type == SOCK_RAW;
	default:
		return hs->domain != AF_INET;
	}
}

/* An option that cannot be set: but for IP's, Linux wants an int before it looks at the option's number. */
static int refuse_set(const struct host_socket *hs, int level, unsigned len, int err)
{
	bool reads_int = level == SOL_SOCKET;

	switch (level) {
	case IPPROTO_TCP:
		reads_int = hs->type == SOCK_STREAM;
		break;
	case IPPROTO_UDP:
	case IPPROTO_UDPLITE:
		reads_int = level_known(hs, IPPROTO_UDP) && hs->protocol != IPPROTO_ICMPV6;
		break;
	case IPPROTO_RAW:
		reads_int = hs->type == SOCK_RAW && hs->domain == AF_INET6;
		break;
	}
	return reads_int && len < sizeof(int) ? -EINVAL : err;
}

int inet_setsockopt(struct file *f, int level, int opt, const void *val, unsigned len)
{
	struct host_socket *hs = host_socket_of(f);
	const struct inet_option *o = find_option(level, opt);

	if (level == IPPROTO_IPV6 && hs->domain == AF_INET)
		return -ENOPROTOOPT;
	switch (o ? (enum opt_how)o->set : OPT_NO) {
	case OPT_PASS:
		break;
	case OPT_ADMIN:
		if (!net_capable(CAP_NET_ADMIN))
			return opt == SO_DEBUG && level == SOL_SOCKET ? -EACCES : -EPERM;
		break;
	case OPT_RAW:
		if (!net_capable(CAP_NET_RAW) && !net_capable(CAP_NET_ADMIN))
			return -EPERM;
		break;
	case OPT_HERE:
		return option_set_here(hs, opt, val, len);
	case OPT_SOURCES:
		return host_set(hs, level, opt, val, len);
	case OPT_UNSUPPORTED:
		return refuse_set(hs, level, len, -EOPNOTSUPP);
	case OPT_NO:
		return refuse_set(hs, level, len, -ENOPROTOOPT);
	}
	return host_set(hs, level, opt, val, MIN(len, OPT_IN_MAX));
}

int inet_getsockopt(struct file *f, int level, int opt, void *val, unsigned *inout_len)
{
	struct host_socket *hs = host_socket_of(f);
	const struct inet_option *o = find_option(level, opt);
	socklen_t len = *inout_len;

	if (hs->domain == AF_INET && !level_known(hs, level))
		return -EOPNOTSUPP;
	if (!o || o->get == OPT_NO)
		return -ENOPROTOOPT;
	if (o->get == OPT_HERE)
		return option_get_here(hs, opt, val, inout_len);
	if (o->get == OPT_SOURCES)
		return get_sources(hs, level, opt, val, inout_len);
	if (getsockopt(hs->fd, level, opt, val, &len) < 0)
		return -errno;
	*inout_len = MIN((unsigned)len, *inout_len);
	return 0;
}
