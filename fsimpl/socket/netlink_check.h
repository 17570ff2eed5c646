/* fsimpl/socket/netlink_check.h - which requests of the guest's the host's rtnetlink may see. Pure: no host, no state. */
#ifndef MOAT_FSIMPL_SOCKET_NETLINK_CHECK_H
#define MOAT_FSIMPL_SOCKET_NETLINK_CHECK_H

#include <linux/netlink.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/ref.h"

/*
 * The message at buf + *inout_off, which moves behind it: NULL at the end or at something that is none. Of a message it gives
 * nlmsg_len bytes lie in buf.
 */
const struct nlmsghdr *netlink_next_message(const void *buf, size_t size, size_t *inout_off);
/*
 * May the host have the request h, of nlmsg_len bytes? admin: the sender may change the namespace. Return: 0, or the error to
 * answer with.
 */
must_check int netlink_check_route(const struct nlmsghdr *h, bool admin);

#endif
