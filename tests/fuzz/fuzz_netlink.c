// LINK: moat_socket moat_base
/* A datagram of rtnetlink requests: what is let through names no other network namespace, however it is nested. */
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>

#include "fsimpl/socket/netlink_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_one(const struct nlmsghdr *h)
{
	/* Exactly as long as it says: a read behind it is seen. */
	struct nlmsghdr *copy = malloc(h->nlmsg_len);
	unsigned kind = (h->nlmsg_type - RTM_BASE) & 3u;

	if (!copy)
		return;
	memcpy(copy, h, h->nlmsg_len);
	if (netlink_check_route(copy, true) == 0 && h->nlmsg_len == NLMSG_LENGTH(16 + 8) &&
	    h->nlmsg_type - kind == RTM_NEWLINK) {
		struct nlattr a;

		memcpy(&a, (const char *)copy + NLMSG_LENGTH(16), sizeof(a));
		if (a.nla_len == 8 && ((a.nla_type & NLA_TYPE_MASK) == IFLA_NET_NS_PID ||
				       (a.nla_type & NLA_TYPE_MASK) == IFLA_NET_NS_FD ||
				       (a.nla_type & NLA_TYPE_MASK) == 46))
			abort();
	}
	if (netlink_check_route(copy, false) == 0 && kind != 2)
		abort();
	free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct nlmsghdr *h;
	size_t off = 0, before = 0;
	void *buf = malloc(size + 1);

	if (!buf)
		return 0;
	memcpy(buf, data, size);
	while ((h = netlink_next_message(buf, size, &off)) != NULL) {
		if (off <= before || off > size)
			abort();
		before = off;
		check_one(h);
	}
	free(buf);
	return 0;
}
