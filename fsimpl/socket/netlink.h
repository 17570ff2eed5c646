/* fsimpl/socket/netlink.h - shared by netlink.c and unix_diag.c. */
#ifndef MOAT_FSIMPL_SOCKET_NETLINK_H
#define MOAT_FSIMPL_SOCKET_NETLINK_H

#include <linux/netlink.h>
#include <bsd/sys/queue.h>

#include "fsimpl/socket/host.h"

struct netlink_answer {
	STAILQ_ENTRY(netlink_answer) link;
	size_t size;
	char data[];
};

struct netlink_socket {
	struct host_socket hs;
	struct mutex lock; /* LOCK_LEAF */
	STAILQ_HEAD(, netlink_answer) queue; /* guarded by lock */
	size_t queued; /* bytes; guarded by lock */
	_Atomic bool cap_ack; /* NETLINK_CAP_ACK */
};

/* Adds a datagram to what the guest reads. -ENOBUFS. */
must_check int netlink_queue(struct netlink_socket *ns, const void *data, size_t size);
/* The socket's port, given now if it had none. */
uint32_t netlink_portid(struct netlink_socket *ns);
/* unix_diag.c: answers SOCK_DIAG_BY_FAMILY of AF_UNIX. Return: 0, or the error to answer. */
must_check int netlink_unix_diag(struct netlink_socket *ns, const struct nlmsghdr *req);

#endif
