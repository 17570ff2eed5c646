/*
 * fsimpl/socket/netlink_check.c - see netlink_check.h.
 *
 * Beside its type a request is refused for what it says about other network namespaces. Those attributes name them by process, descriptor
 * or nsid, and the host would look the numbers up as the sentry's: the guest means others by them, and a veth pair makes the
 * host's own namespace an nsid that the sentry may be privileged in. The same holds for descriptors of BPF programs.
 * Devices are of a few kinds: the host would load a module for any other.
 */
#include <errno.h>
#include <linux/if_link.h>
#include <linux/net_namespace.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>

#include "fsimpl/socket/netlink_check.h"

/* What older headers lack. */
enum { IFLA_TARGET_NETNSID_NR = 46, IFA_TARGET_NETNSID_NR = 10, VETH_INFO_PEER_NR = 1 };

enum { KIND_NEW, KIND_DEL, KIND_GET, KIND_SET };

/* Objects of rtnetlink, by the number of their RTM_NEW*. */
static const struct {
	uint16_t first;
	bool change;
} route_objects[] = {
	{RTM_NEWLINK, true},	     {RTM_NEWADDR, true},	{RTM_NEWROUTE, true},
	{RTM_NEWNEIGH, true},	     {RTM_NEWRULE, true},	{RTM_NEWQDISC, false},
	{56, false} /* multicast */, {60, false} /* anycast */, {RTM_NEWNEIGHTBL, false},
	{RTM_NEWADDRLABEL, true},    {RTM_NEWNETCONF, false},	{RTM_NEWNSID, false},
	{RTM_NEWSTATS, false},	     {RTM_NEWNEXTHOP, true},	{RTM_NEWLINKPROP, false},
};

static const char *const link_kinds[] = {"bridge", "dummy", "ipvlan", "macvlan",
					 "veth",   "vlan",  "vxlan",  "wireguard"};

const struct nlmsghdr *netlink_next_message(const void *buf, size_t size, size_t *inout_off)
{
	const struct nlmsghdr *h = (const void *)((const char *)buf + *inout_off);
	size_t left = size - *inout_off;

	if (left < sizeof(*h) || h->nlmsg_len < sizeof(*h) || h->nlmsg_len > left)
		return NULL;
	*inout_off += MIN((size_t)NLMSG_ALIGN(h->nlmsg_len), left);
	return h;
}

/* ---- attributes ---- */

struct attr_list {
	const char *at;
	size_t size;
};

/* nla_for_each_attr(): the next one's type (without flags) or -1; *ret_data is what it carries. */
static int next_attr(struct attr_list *l, struct attr_list *ret_data)
{
	struct nlattr a;
	size_t step;

	if (l->size < sizeof(a))
		return -1;
	memcpy(&a, l->at, sizeof(a));
	if (a.nla_len < sizeof(a) || a.nla_len > l->size)
		return -1;
	*ret_data = (struct attr_list){l->at + sizeof(a), a.nla_len - sizeof(a)};
	step = MIN((size_t)NLA_ALIGN(a.nla_len), l->size);
	l->at += step;
	l->size -= step;
	return a.nla_type & NLA_TYPE_MASK;
}

/* What follows a header of `skip` bytes. */
static struct attr_list after(struct attr_list l, size_t skip)
{
	skip = MIN((size_t)NLMSG_ALIGN(skip), l.size);
	return (struct attr_list){l.at + skip, l.size - skip};
}

static int check_kind(const struct attr_list *name)
{
	size_t len = strnlen(name->at, name->size);

	for (size_t i = 0; i < ARRAY_SIZE(link_kinds); i++)
		if (strlen(link_kinds[i]) == len && memcmp(link_kinds[i], name->at, len) == 0)
			return 0;
	return -EOPNOTSUPP;
}

static int check_link_attr(int type)
{
	switch (type) {
	case IFLA_NET_NS_PID:
		return -ESRCH;
	case IFLA_NET_NS_FD:
	case IFLA_LINK_NETNSID:
	case IFLA_TARGET_NETNSID_NR:
		return -EINVAL;
	case IFLA_XDP:
		return -EOPNOTSUPP;
	default:
		return 0;
	}
}

static int check_peer(struct attr_list l)
{
	struct attr_list data;
	int type, err = 0;

	l = after(l, sizeof(struct ifinfomsg));
	while (!err && (type = next_attr(&l, &data)) >= 0)
		err = check_link_attr(type);
	return err;
}

/* IFLA_LINKINFO. Of the kinds that there are only veth has so long a first attribute: its peer, a link again. */
static int check_linkinfo(struct attr_list l, bool change)
{
	struct attr_list data, inner;
	int type, err = 0;

	while (!err && (type = next_attr(&l, &data)) >= 0) {
		if (type == IFLA_INFO_KIND && change)
			err = check_kind(&data);
		while (!err && type == IFLA_INFO_DATA && (type = next_attr(&data, &inner)) >= 0) {
			if (type == VETH_INFO_PEER_NR && inner.size >= sizeof(struct ifinfomsg))
				err = check_peer(inner);
			type = IFLA_INFO_DATA;
		}
	}
	return err;
}

static int check_link(struct attr_list payload, bool change)
{
	struct attr_list data, l;
	int type, err = 0;

	/* A dump may begin with a struct rtgenmsg only. */
	l = after(payload, payload.size < sizeof(struct ifinfomsg) ? sizeof(struct rtgenmsg)
								   : sizeof(struct ifinfomsg));
	while (!err && (type = next_attr(&l, &data)) >= 0)
		err = type == IFLA_LINKINFO ? check_linkinfo(data, change) : check_link_attr(type);
	return err;
}

static int refuse_attr(struct attr_list l, int which)
{
	struct attr_list data;
	int type;

	while ((type = next_attr(&l, &data)) >= 0)
		if (type == which)
			return -EINVAL;
	return 0;
}

/* Namespaces by the numbers of processes, descriptors and other namespaces' ids. */
static int check_nsid(struct attr_list payload)
{
	struct attr_list data, l = after(payload, sizeof(struct rtgenmsg));
	int type;

	while ((type = next_attr(&l, &data)) >= 0)
		if (type != NETNSA_NSID)
			return -EINVAL;
	return 0;
}

/* ---- requests ---- */

/* Bridges' forwarding tables, multicast routing and labels are left out. */
static bool family_may_change(unsigned family)
{
	return family == AF_UNSPEC || family == AF_INET || family == AF_INET6 ||
	       family == AF_PACKET;
}

static int check_payload(const struct nlmsghdr *h, unsigned object, unsigned kind)
{
	struct attr_list payload = {(const char *)h + sizeof(*h), h->nlmsg_len - sizeof(*h)};

	if (payload.size && kind != KIND_GET && !family_may_change((uint8_t)payload.at[0]))
		return -EOPNOTSUPP;
	switch (object) {
	case RTM_NEWLINK:
		return check_link(payload, kind != KIND_GET);
	case RTM_NEWADDR:
		return refuse_attr(after(payload, sizeof(struct ifaddrmsg)), IFA_TARGET_NETNSID_NR);
	case RTM_NEWNSID:
		return check_nsid(payload);
	default:
		return 0;
	}
}

int netlink_check_route(const struct nlmsghdr *h, bool admin)
{
	unsigned kind = (h->nlmsg_type - RTM_BASE) & 3u, object = h->nlmsg_type - kind;

	if (h->nlmsg_type < RTM_BASE || h->nlmsg_type > RTM_MAX)
		return -EOPNOTSUPP;
	if (kind != KIND_GET && !admin)
		return -EPERM;
	for (size_t i = 0; i < ARRAY_SIZE(route_objects); i++)
		if (route_objects[i].first == object)
			return kind == KIND_GET || route_objects[i].change
				       ? check_payload(h, object, kind)
				       : -EOPNOTSUPP;
	return -EOPNOTSUPP;
}
