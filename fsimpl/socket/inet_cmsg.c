/*
 * fsimpl/socket/inet_cmsg.c - control messages (cmsg(3)) on their way to and from the host.
 *
 * The layout is the same on both sides, so a message passes as it is, if it is one of the table's and the guest may
 * send it. Descriptors and credentials mean nothing to an internet socket: Linux ignores them there, and the host never sees them.
 */
#include <netinet/in.h>
#include <netinet/udp.h>
#include <string.h>
#include <linux/capability.h>

#include "fsimpl/socket/host.h"

struct cmsg_rule {
	int level, type;
	enum { CMSG_SEND, CMSG_SEND_RAW, CMSG_SEND_MARK, CMSG_IGNORE } how;
};

#ifndef SO_MARK
#define SO_MARK 36
#endif
#ifndef SCM_TXTIME
#define SCM_TXTIME 61
#endif
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#define SCM_TS_OPT_ID_NR 81
#define SO_TIMESTAMPING_NEW_NR 65
#define IP_PROTOCOL_NR 52
#define IPV6_2292PKTINFO_NR 2
#define IPV6_2292HOPOPTS_NR 3
#define IPV6_2292DSTOPTS_NR 4
#define IPV6_2292RTHDR_NR 5
#define IPV6_2292HOPLIMIT_NR 8
#define IPV6_FLOWINFO_NR 11

static const struct cmsg_rule rules[] = {
	{SOL_SOCKET, SCM_RIGHTS, CMSG_IGNORE},
	{SOL_SOCKET, SCM_CREDENTIALS, CMSG_IGNORE},
	{SOL_SOCKET, SO_MARK, CMSG_SEND_MARK},
	{SOL_SOCKET, SO_PRIORITY, CMSG_SEND_MARK},
	{SOL_SOCKET, SO_TIMESTAMPING, CMSG_SEND},
	{SOL_SOCKET, SO_TIMESTAMPING_NEW_NR, CMSG_SEND},
	{SOL_SOCKET, SCM_TXTIME, CMSG_SEND},
	{SOL_SOCKET, SCM_TS_OPT_ID_NR, CMSG_SEND},
	{IPPROTO_IP, IP_TOS, CMSG_SEND},
	{IPPROTO_IP, IP_TTL, CMSG_SEND},
	{IPPROTO_IP, IP_RETOPTS, CMSG_SEND},
	{IPPROTO_IP, IP_PKTINFO, CMSG_SEND},
	{IPPROTO_IP, IP_PROTOCOL_NR, CMSG_SEND},
	{IPPROTO_IPV6, IPV6_PKTINFO, CMSG_SEND},
	{IPPROTO_IPV6, IPV6_2292PKTINFO_NR, CMSG_SEND},
	{IPPROTO_IPV6, IPV6_FLOWINFO_NR, CMSG_SEND},
	{IPPROTO_IPV6, IPV6_HOPLIMIT, CMSG_SEND},
	{IPPROTO_IPV6, IPV6_2292HOPLIMIT_NR, CMSG_SEND},
	{IPPROTO_IPV6, IPV6_TCLASS, CMSG_SEND},
	{IPPROTO_IPV6, IPV6_DONTFRAG, CMSG_SEND},
	{IPPROTO_IPV6, IPV6_RTHDR, CMSG_SEND},
	{IPPROTO_IPV6, IPV6_2292RTHDR_NR, CMSG_SEND},
	{IPPROTO_IPV6, IPV6_HOPOPTS, CMSG_SEND_RAW},
	{IPPROTO_IPV6, IPV6_2292HOPOPTS_NR, CMSG_SEND_RAW},
	{IPPROTO_IPV6, IPV6_DSTOPTS, CMSG_SEND_RAW},
	{IPPROTO_IPV6, IPV6_2292DSTOPTS_NR, CMSG_SEND_RAW},
	{IPPROTO_IPV6, IPV6_RTHDRDSTOPTS, CMSG_SEND_RAW},
	{IPPROTO_UDP, UDP_SEGMENT, CMSG_SEND},
};

static const struct cmsg_rule *find_rule(int level, int type)
{
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++)
		if (rules[i].level == level && rules[i].type == type)
			return &rules[i];
	return NULL;
}

/* 1: goes to the host. 0: dropped. */
static int rule_apply(const struct cmsg_rule *rule)
{
	if (!rule)
		return -EINVAL;
	switch (rule->how) {
	case CMSG_IGNORE:
		return 0;
	case CMSG_SEND_RAW:
		return net_capable(CAP_NET_RAW) ? 1 : -EPERM;
	case CMSG_SEND_MARK:
		return net_capable(CAP_NET_RAW) || net_capable(CAP_NET_ADMIN) ? 1 : -EPERM;
	case CMSG_SEND:
		break;
	}
	return 1;
}

int inet_control_send(struct socket_msg *sm)
{
	char *buf = sm->control;
	size_t size = sm->control_size, from = 0, to = 0;

	/* In place: what is kept moves down over what is dropped. */
	while (size - from >= sizeof(struct cmsghdr)) {
		struct cmsghdr h;
		size_t step;
		int keep;

		memcpy(&h, buf + from, sizeof(h));
		if (h.cmsg_len < sizeof(h) || h.cmsg_len > size - from)
			return -EINVAL;
		keep = rule_apply(find_rule(h.cmsg_level, h.cmsg_type));
		if (keep < 0)
			return keep;
		step = MIN(CMSG_ALIGN(h.cmsg_len), size - from);
		if (keep) {
			memmove(buf + to, buf + from, step);
			to += step;
		}
		from += step;
	}
	sm->control_size = to;
	return 0;
}

size_t host_control_check(const void *control, size_t size)
{
	const char *buf = control;
	size_t off = 0;

	if (!buf)
		return 0;
	while (size - off >= sizeof(struct cmsghdr)) {
		struct cmsghdr h;

		memcpy(&h, buf + off, sizeof(h));
		if (h.cmsg_len < sizeof(h) || h.cmsg_len > size - off ||
		    (h.cmsg_level == SOL_SOCKET && h.cmsg_type == SCM_RIGHTS))
			return off;
		off += MIN(CMSG_ALIGN(h.cmsg_len), size - off);
	}
	return off;
}
