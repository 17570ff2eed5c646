/*
 * fsimpl/socket/netlink.c - AF_NETLINK: routes and sock_diag of the container's namespace through a host socket, with each request
 * looked at first.
 *
 * What asks (RTM_GET*, inet_diag) goes to the host as it came. What changes something needs the guest's CAP_NET_ADMIN, in a namespace
 * that is the container's own; the host then looks at the sentry's. What is refused, and unix_diag, whose sockets are in the
 * sentry, is answered here: the answers lie in a queue that is read after the host's.
 * Traffic control, bridges' and DCB's requests are refused even for who has the capability: they are a large part of the host's
 * network code that containers do not need. Kernel object events are a socket on which nothing ever comes.
 *
 * Locks: netlink_socket.lock (LOCK_LEAF) around the queue.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>
#include <linux/capability.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>

#include "fsimpl/socket/netlink.h"
#include "fsimpl/socket/netlink_check.h"

#define NETLINK_SEND_MAX (256u << 10) /* bytes of one send */
#define NETLINK_RECV_MAX (1u << 20) /* bytes of one datagram */
#define NETLINK_QUEUE_MAX (4u << 20) /* bytes of answers that wait */
#define TCPDIAG_GETSOCK_NR 18

static const struct socket_family netlink_family;

static struct netlink_socket *netlink_of(struct file *f)
{
	return (struct netlink_socket *)f;
}

/* ---- answers of our own ---- */

int netlink_queue(struct netlink_socket *ns, const void *data, size_t size)
{
	struct netlink_answer *a = malloc(sizeof(*a) + size);
	int err = 0;

	if (!a)
		return -ENOBUFS;
	a->size = size;
	memcpy(a->data, data, size);
	mutex_lock(&ns->lock);
	if (ns->queued + size > NETLINK_QUEUE_MAX) {
		err = -ENOBUFS;
	} else {
		STAILQ_INSERT_TAIL(&ns->queue, a, link);
		ns->queued += size;
	}
	mutex_unlock(&ns->lock);
	if (err)
		free(a);
	else
		wait_queue_wake(&ns->hs.wait, POLLIN | POLLRDNORM);
	return err;
}

bool netlink_is(struct file *f)
{
	return f->ops == &socket_ops && socket_family_of(f) == &netlink_family;
}

int netlink_deliver(struct file *f, const void *data, size_t size)
{
	return netlink_is(f) ? netlink_queue(netlink_of(f), data, size) : -EINVAL;
}

uint32_t netlink_portid(struct netlink_socket *ns)
{
	struct sockaddr_nl nl = {.nl_family = AF_NETLINK};
	socklen_t len = sizeof(nl);

	if (getsockname(ns->hs.fd, (struct sockaddr *)&nl, &len) < 0)
		return 0;
	/* As a first send does (netlink_autobind); the error is that it has a name already. */
	if (!nl.nl_pid && bind(ns->hs.fd, (struct sockaddr *)&nl, sizeof(nl)) == 0)
		(void)!getsockname(ns->hs.fd, (struct sockaddr *)&nl, &len);
	return nl.nl_pid;
}

/* netlink_ack(): `error` 0 is a success. */
static int netlink_ack(struct netlink_socket *ns, const struct nlmsghdr *req, int error)
{
	bool capped = !error || ns->cap_ack;
	size_t payload = capped ? 0 : NLMSG_ALIGN(req->nlmsg_len) - sizeof(*req);
	size_t size = NLMSG_LENGTH(sizeof(struct nlmsgerr)) + payload;
	struct nlmsghdr *h = calloc(1, size);
	struct nlmsgerr *e;
	int err;

	if (!h)
		return -ENOBUFS;
	h->nlmsg_len = (uint32_t)size;
	h->nlmsg_type = NLMSG_ERROR;
	h->nlmsg_flags = capped ? NLM_F_CAPPED : 0;
	h->nlmsg_seq = req->nlmsg_seq;
	h->nlmsg_pid = netlink_portid(ns);
	e = NLMSG_DATA(h);
	e->error = error;
	memcpy(&e->msg, req, capped ? sizeof(*req) : req->nlmsg_len);
	err = netlink_queue(ns, h, size);
	free(h);
	return err;
}

/* ---- requests ---- */

enum verdict { TO_HOST, ANSWERED_HERE, REFUSED };

static enum verdict judge_route(const struct nlmsghdr *h, int *ret_err)
{
	*ret_err =
		netlink_check_route(h, net_capable(CAP_NET_ADMIN) && hostnet_mode() == HOSTNET_OWN);
	return *ret_err ? REFUSED : TO_HOST;
}

static enum verdict judge_diag(struct netlink_socket *ns, const struct nlmsghdr *h, int *ret_err)
{
	uint8_t family;

	switch (h->nlmsg_type) {
	case TCPDIAG_GETSOCK_NR:
		return TO_HOST;
	case SOCK_DIAG_BY_FAMILY:
		break;
	case SOCK_DESTROY:
		*ret_err = net_capable(CAP_NET_ADMIN) ? -EOPNOTSUPP : -EPERM;
		return REFUSED;
	default:
		*ret_err = -EINVAL;
		return REFUSED;
	}
	if (h->nlmsg_len < NLMSG_LENGTH(sizeof(struct sock_diag_req))) {
		*ret_err = -EINVAL;
		return REFUSED;
	}
	memcpy(&family, NLMSG_DATA(h), 1);
	if (family == AF_INET || family == AF_INET6)
		return TO_HOST;
	if (family == AF_UNIX) {
		*ret_err = netlink_unix_diag(ns, h);
		return *ret_err ? REFUSED : ANSWERED_HERE;
	}
	*ret_err = -ENOENT; /* as where the family's module is not there */
	return REFUSED;
}

/* netlink_rcv_skb() of one message. */
static int netlink_request(struct netlink_socket *ns, const struct nlmsghdr *h)
{
	enum verdict v;
	int err = 0;

	if (!(h->nlmsg_flags & NLM_F_REQUEST) || h->nlmsg_type < NLMSG_MIN_TYPE)
		v = ANSWERED_HERE;
	else if (ns->hs.protocol == NETLINK_SOCK_DIAG)
		v = judge_diag(ns, h, &err);
	else
		v = judge_route(h, &err);
	if (v == TO_HOST)
		return send(ns->hs.fd, h, h->nlmsg_len, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno
											 : 0;
	if (v == REFUSED)
		return netlink_ack(ns, h, err);
	/* A dump ends by itself; the rest is acknowledged if it asks for that. */
	if ((h->nlmsg_flags & NLM_F_ACK) && (h->nlmsg_flags & NLM_F_DUMP) != NLM_F_DUMP)
		return netlink_ack(ns, h, 0);
	return 0;
}

static int netlink_requests(struct netlink_socket *ns, const char *buf, size_t size)
{
	const struct nlmsghdr *h;
	size_t off = 0, before;
	int err = 0;

	do {
		before = off;
		h = netlink_next_message(buf, size, &off);
		if (h)
			err = netlink_request(ns, h);
	} while (h && !err);
	/* What went to the host before a failure is done. */
	return before && err == -EAGAIN ? 0 : err;
}

static ssize_t netlink_sendmsg(struct file *f, struct socket_msg *sm, int flags)
{
	struct netlink_socket *ns = netlink_of(f);
	size_t size = sm->it->remaining;
	const struct sockaddr_nl *to;
	char *buf;
	int err;

	if (flags & MSG_OOB)
		return -EOPNOTSUPP;
	if (sm->addr && sm->addr->len) {
		to = (const struct sockaddr_nl *)&sm->addr->ss;
		if (sm->addr->len < sizeof(*to) || to->nl_family != AF_NETLINK)
			return -EINVAL;
		if (to->nl_pid || to->nl_groups)
			return -EPERM; /* between programs: nobody of ours listens */
	}
	if (ns->hs.protocol == NETLINK_KOBJECT_UEVENT)
		return -ECONNREFUSED;
	if (size > NETLINK_SEND_MAX)
		return -EMSGSIZE;
	buf = calloc(1, size + NLMSG_ALIGNTO);
	if (!buf)
		return -ENOBUFS;
	err = io_iter_get(sm->it, buf, size) == size ? netlink_requests(ns, buf, size) : -EFAULT;
	free(buf);
	return err ? err : (ssize_t)size;
}

/* ---- receiving ---- */

/* The host names the sentry's user: the maker is somebody inside. */
static void patch_inet_diag(char *buf, size_t size)
{
	size_t off = 0;

	while (size - off >= sizeof(struct nlmsghdr)) {
		struct nlmsghdr *h = (struct nlmsghdr *)(buf + off);
		struct inet_diag_msg *d = NLMSG_DATA(h);

		if (h->nlmsg_len < sizeof(*h) || h->nlmsg_len > size - off)
			return;
		if (h->nlmsg_type >= NLMSG_MIN_TYPE && h->nlmsg_len >= NLMSG_LENGTH(sizeof(*d)) &&
		    d->idiag_inode && !host_socket_find(d->idiag_inode, &d->idiag_uid))
			d->idiag_uid = d->idiag_uid == HOSTNET_SENTRY_UID ? 0 : d->idiag_uid;
		off += MIN((size_t)NLMSG_ALIGN(h->nlmsg_len), size - off);
	}
}

static ssize_t recv_result(struct socket_msg *sm, const char *data, size_t size, size_t room,
			   int flags)
{
	size_t got = MIN(size, room);

	if (got && io_iter_put(sm->it, data, got) != got)
		return -EFAULT;
	if (size > room)
		sm->flags |= MSG_TRUNC;
	return (ssize_t)(flags & MSG_TRUNC ? size : got);
}

/* One answer of our own. */
static ssize_t recv_queued(struct netlink_socket *ns, struct socket_msg *sm, int flags)
{
	struct netlink_answer *a;
	ssize_t n;

	mutex_lock(&ns->lock);
	a = STAILQ_FIRST(&ns->queue);
	if (a) {
		STAILQ_REMOVE_HEAD(&ns->queue, link);
		ns->queued -= a->size;
	}
	mutex_unlock(&ns->lock);
	if (!a)
		return -EAGAIN;
	if (sm->addr) {
		memset(&sm->addr->ss, 0, sizeof(struct sockaddr_nl));
		sm->addr->sa.sa_family = AF_NETLINK;
		sm->addr->len = sizeof(struct sockaddr_nl);
	}
	n = recv_result(sm, a->data, a->size, sm->it->remaining, flags);
	if (!(flags & MSG_PEEK)) {
		free(a);
		return n;
	}
	mutex_lock(&ns->lock);
	STAILQ_INSERT_HEAD(&ns->queue, a, link);
	ns->queued += a->size;
	mutex_unlock(&ns->lock);
	return n;
}

static ssize_t recv_host(struct netlink_socket *ns, struct socket_msg *sm, int flags)
{
	size_t room = MIN(sm->it->remaining, (uint64_t)NETLINK_RECV_MAX);
	struct iovec one = {malloc(room + 1), room};
	struct msghdr h = {.msg_iov = &one, .msg_iovlen = 1};
	ssize_t n;

	if (!one.iov_base)
		return -ENOBUFS;
	if (sm->addr) {
		h.msg_name = &sm->addr->ss;
		h.msg_namelen = sizeof(sm->addr->ss);
	}
	h.msg_control = sm->control_size ? sm->control : NULL;
	h.msg_controllen = sm->control_size;
	do
		n = recvmsg(ns->hs.fd, &h,
			    (flags & (MSG_PEEK | MSG_TRUNC)) | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0) {
		n = -errno;
		goto out_free;
	}
	if (sm->addr)
		sm->addr->len = MIN(h.msg_namelen, (socklen_t)sizeof(sm->addr->ss));
	sm->control_len = host_control_check(sm->control, MIN(h.msg_controllen, sm->control_size));
	sm->flags = (unsigned)h.msg_flags & ~(unsigned)MSG_CMSG_CLOEXEC;
	if (ns->hs.protocol == NETLINK_SOCK_DIAG)
		patch_inet_diag(one.iov_base, MIN((size_t)n, room));
	n = recv_result(sm, one.iov_base, (size_t)n, room, flags);
out_free:
	free(one.iov_base);
	return n;
}

static ssize_t netlink_recvmsg(struct file *f, struct socket_msg *sm, int flags)
{
	struct netlink_socket *ns = netlink_of(f);
	ssize_t n;

	sm->nfiles = 0;
	sm->flags = 0;
	sm->control_len = 0;
	sm->has_cred = sm->has_stamp = false;
	if (sm->addr)
		sm->addr->len = 0;
	if (flags & MSG_OOB)
		return -EOPNOTSUPP;
	n = recv_host(ns, sm, flags);
	return n == -EAGAIN ? recv_queued(ns, sm, flags) : n;
}

static uint32_t netlink_poll(struct file *f)
{
	struct netlink_socket *ns = netlink_of(f);
	uint32_t events = host_socket_poll(f);

	mutex_lock(&ns->lock);
	if (!STAILQ_EMPTY(&ns->queue))
		events |= POLLIN | POLLRDNORM;
	mutex_unlock(&ns->lock);
	return events;
}

/* ---- names and options ---- */

static int netlink_bind(struct file *f, const struct socket_addr *addr,
			unused_arg const struct vfs_lookup *lookup, unused_arg uint32_t umask)
{
	struct netlink_socket *ns = netlink_of(f);
	struct sockaddr_nl nl;

	if (addr->len < sizeof(nl))
		return -EINVAL;
	memcpy(&nl, &addr->ss, sizeof(nl));
	if (nl.nl_family != AF_NETLINK)
		return -EINVAL;
	/* Events of the host's objects are not the container's. */
	if (ns->hs.protocol == NETLINK_KOBJECT_UEVENT)
		nl.nl_groups = 0;
	return bind(ns->hs.fd, (struct sockaddr *)&nl, sizeof(nl)) < 0 ? -errno : 0;
}

static int netlink_connect(struct file *f, const struct socket_addr *addr,
			   unused_arg const struct vfs_lookup *lookup)
{
	struct netlink_socket *ns = netlink_of(f);
	const struct sockaddr_nl *nl = (const struct sockaddr_nl *)&addr->ss;

	if (addr->len < sizeof(sa_family_t))
		return -EINVAL;
	if (addr->sa.sa_family != AF_UNSPEC) {
		if (addr->sa.sa_family != AF_NETLINK || addr->len < sizeof(*nl))
			return -EINVAL;
		if (nl->nl_pid || nl->nl_groups)
			return -EPERM;
	}
	return connect(ns->hs.fd, &addr->sa, addr->len) < 0 ? -errno : 0;
}

static int netlink_connect_wait(unused_arg struct file *f, unused_arg int64_t deadline)
{
	return -EAGAIN; /* a netlink connect never has to wait */
}

static int netlink_listen(unused_arg struct file *f, unused_arg int backlog)
{
	return -EOPNOTSUPP;
}

static int netlink_accept(unused_arg struct file *f, unused_arg int flags,
			  unused_arg struct socket_addr *addr, unused_arg struct file **ret)
{
	return -EOPNOTSUPP;
}

static int netlink_shutdown(unused_arg struct file *f, unused_arg int how)
{
	return -EOPNOTSUPP;
}

static int netlink_setsockopt(struct file *f, int level, int opt, const void *val, unsigned len)
{
	struct netlink_socket *ns = netlink_of(f);
	int v = 0;

	if (level == SOL_SOCKET)
		return inet_setsockopt(f, level, opt, val, len);
	if (level != SOL_NETLINK)
		return -ENOPROTOOPT;
	if (len >= sizeof(v))
		memcpy(&v, val, sizeof(v));
	switch (opt) {
	case NETLINK_ADD_MEMBERSHIP:
	case NETLINK_DROP_MEMBERSHIP:
		if (ns->hs.protocol == NETLINK_KOBJECT_UEVENT)
			return 0;
		break;
	case NETLINK_PKTINFO:
	case NETLINK_BROADCAST_ERROR:
	case NETLINK_NO_ENOBUFS:
	case NETLINK_CAP_ACK:
	case NETLINK_EXT_ACK:
	case NETLINK_GET_STRICT_CHK:
		break;
	case NETLINK_LISTEN_ALL_NSID:
		return -EPERM; /* other namespaces are none of the container's */
	default:
		return -ENOPROTOOPT;
	}
	if (setsockopt(ns->hs.fd, level, opt, val, len) < 0)
		return -errno;
	if (opt == NETLINK_CAP_ACK)
		ns->cap_ack = v;
	return 0;
}

static int netlink_getsockopt(struct file *f, int level, int opt, void *val, unsigned *inout_len)
{
	struct netlink_socket *ns = netlink_of(f);
	socklen_t len = *inout_len;
	int proto = ns->hs.protocol, type = ns->hs.type;

	if (level == SOL_SOCKET && (opt == SO_PROTOCOL || opt == SO_TYPE)) {
		*inout_len = MIN(*inout_len, (unsigned)sizeof(int));
		memcpy(val, opt == SO_TYPE ? &type : &proto, *inout_len);
		return 0;
	}
	if (level == SOL_SOCKET)
		return inet_getsockopt(f, level, opt, val, inout_len);
	if (level != SOL_NETLINK)
		return -ENOPROTOOPT;
	if (getsockopt(ns->hs.fd, level, opt, val, &len) < 0)
		return -errno;
	/* NETLINK_LIST_MEMBERSHIPS tells how much there would be. */
	*inout_len = (unsigned)len;
	return 0;
}

static int64_t netlink_ioctl(unused_arg struct file *f, unsigned cmd, uint64_t arg)
{
	return netdev_ioctl(cmd, arg);
}

static void netlink_release(struct file *f)
{
	struct netlink_socket *ns = netlink_of(f);
	struct netlink_answer *a;

	host_socket_fini(&ns->hs);
	while ((a = STAILQ_FIRST(&ns->queue))) {
		STAILQ_REMOVE_HEAD(&ns->queue, link);
		free(a);
	}
	file_free(f);
}

static const struct socket_family netlink_family = {
	.family = AF_NETLINK,
	.raw_control = true,
	.bind = netlink_bind,
	.connect = netlink_connect,
	.connect_wait = netlink_connect_wait,
	.listen = netlink_listen,
	.accept = netlink_accept,
	.getname = host_socket_getname,
	.shutdown = netlink_shutdown,
	.setsockopt = netlink_setsockopt,
	.getsockopt = netlink_getsockopt,
	.sendmsg = netlink_sendmsg,
	.recvmsg = netlink_recvmsg,
	.timeout_ns = host_socket_timeout_ns,
	.poll = netlink_poll,
	.poll_add = host_socket_poll_add,
	.ioctl = netlink_ioctl,
	.set_flags = host_socket_set_flags,
	.release = netlink_release,
};

int netlink_socket_create(int type, int protocol, unsigned flags, struct file **ret)
{
	struct netlink_socket *ns;
	int fd, err;

	if (hostnet_mode() == HOSTNET_NONE)
		return -EAFNOSUPPORT;
	if (type != SOCK_RAW && type != SOCK_DGRAM)
		return -ESOCKTNOSUPPORT;
	if (protocol != NETLINK_ROUTE && protocol != NETLINK_SOCK_DIAG &&
	    protocol != NETLINK_KOBJECT_UEVENT)
		return -EPROTONOSUPPORT;
	/* For kernel objects' events any socket will do that is in no group. */
	fd = host_socket_open(AF_NETLINK, SOCK_RAW,
			      protocol == NETLINK_SOCK_DIAG ? NETLINK_SOCK_DIAG : NETLINK_ROUTE);
	if (fd < 0)
		return fd;
	ns = calloc(1, sizeof(*ns));
	err = ns ? host_socket_init(&ns->hs, &netlink_family, fd, AF_NETLINK, type, protocol, flags)
		 : -ENOMEM;
	if (err) {
		close(fd);
		free(ns);
		return err;
	}
	mutex_init(&ns->lock, LOCK_LEAF, "netlink_queue");
	STAILQ_INIT(&ns->queue);
	*ret = &ns->hs.sf.f;
	return 0;
}
