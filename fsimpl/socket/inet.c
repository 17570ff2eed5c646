/*
 * fsimpl/socket/inet.c - AF_INET and AF_INET6: the host's stack inside the container's network namespace.
 *
 * A guest's socket is a host socket (host.h). Names, connections and data are the host's business; the sentry decides what the
 * guest may ask for (domains, types, protocols, ports, raw sockets) with the guest's credentials, because the host
 * sees only the sentry's; it waits for the guest; and it raises the guest's signals. Options are a table in inet_opt.c, control
 * messages are checked in inet_cmsg.c, data goes straight between guest pages and the host's socket in inet_io.c.
 *
 * Cannot do: MSG_ZEROCOPY (pages would be in flight after the call, and may be another's by then), MPTCP, SCTP, DCCP.
 */
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <linux/capability.h>
#include <linux/sockios.h>

#include "fsimpl/socket/host.h"

#define IPPROTO_MAX_NR 263

static const struct socket_family inet_family;

bool net_capable(int cap)
{
	return cred_has_cap(cred_current(), cap);
}

/* ---- making one ---- */

static bool may_ping(void)
{
	const struct cred *c = cred_current();

	if (!c || hostnet_may_ping(c->egid))
		return true;
	for (unsigned i = 0; i < c->ngroups; i++)
		if (hostnet_may_ping(c->groups[i]))
			return true;
	return false;
}

/* inet_create(): what there is of each type. */
static int inet_check_protocol(int family, int type, int protocol)
{
	int icmp = family == AF_INET ? IPPROTO_ICMP : IPPROTO_ICMPV6;

	if (protocol < 0 || protocol >= IPPROTO_MAX_NR)
		return -EINVAL;
	switch (type) {
	case SOCK_STREAM:
		return protocol && protocol != IPPROTO_TCP ? -EPROTONOSUPPORT : 0;
	case SOCK_DGRAM:
		if (protocol == icmp)
			return may_ping() ? 0 : -EACCES;
		return protocol && protocol != IPPROTO_UDP && protocol != IPPROTO_UDPLITE
			       ? -EPROTONOSUPPORT
			       : 0;
	case SOCK_RAW:
		if (!protocol || protocol > IPPROTO_RAW)
			return -EPROTONOSUPPORT;
		if (!net_capable(CAP_NET_RAW) || hostnet_mode() != HOSTNET_OWN)
			return -EPERM;
		return 0;
	default:
		return -ESOCKTNOSUPPORT;
	}
}

static int inet_file_create(int fd, int domain, int type, int protocol, unsigned flags,
			    struct host_socket **ret)
{
	struct host_socket *hs = calloc(1, sizeof(*hs));
	int err = hs ? host_socket_init(hs, &inet_family, fd, domain, type, protocol, flags)
		     : -ENOMEM;

	if (err) {
		close(fd);
		free(hs);
		return err;
	}
	*ret = hs;
	return 0;
}

int inet_socket_create(int family, int type, int protocol, unsigned flags, struct file **ret)
{
	struct host_socket *hs;
	int err, fd;

	if (hostnet_mode() == HOSTNET_NONE)
		return -EAFNOSUPPORT;
	err = inet_check_protocol(family, type, protocol);
	if (err)
		return err;
	fd = host_socket_open(family, type, protocol);
	if (fd < 0)
		return fd;
	err = inet_file_create(fd, family, type, protocol, flags, &hs);
	if (!err)
		*ret = &hs->sf.f;
	return err;
}

static void inet_release(struct file *f)
{
	struct host_socket *hs = host_socket_of(f);

	host_socket_fini(hs);
	file_free(f);
}

/* ---- names and connections ---- */

static int check_port(const struct host_socket *hs, const struct socket_addr *addr)
{
	unsigned port;

	if (hs->type == SOCK_RAW || hs->protocol == IPPROTO_ICMP || hs->protocol == IPPROTO_ICMPV6)
		return 0; /* no ports */
	if (hs->domain == AF_INET && addr->len >= sizeof(struct sockaddr_in))
		port = ntohs(((const struct sockaddr_in *)&addr->ss)->sin_port);
	else if (hs->domain == AF_INET6 &&
		 addr->len >= offsetof(struct sockaddr_in6, sin6_scope_id))
		port = ntohs(((const struct sockaddr_in6 *)&addr->ss)->sin6_port);
	else
		return 0; /* the host says EINVAL */
	return hostnet_port_privileged(port) && !net_capable(CAP_NET_BIND_SERVICE) ? -EACCES : 0;
}

static int inet_bind(struct file *f, const struct socket_addr *addr,
		     unused_arg const struct vfs_lookup *lookup, unused_arg uint32_t umask)
{
	struct host_socket *hs = host_socket_of(f);
	int err = check_port(hs, addr);

	if (err)
		return err;
	return bind(hs->fd, &addr->sa, addr->len) < 0 ? -errno : 0;
}

static int inet_connect(struct file *f, const struct socket_addr *addr,
			unused_arg const struct vfs_lookup *lookup)
{
	struct host_socket *hs = host_socket_of(f);
	int err = connect(hs->fd, &addr->sa, addr->len) < 0 ? -errno : 0;

	/* It was writable before, and will be again: that is how its end is told. */
	if (err == -EINPROGRESS)
		host_socket_full(hs);
	return err;
}

static int inet_connect_wait(struct file *f, int64_t deadline)
{
	int err = file_wait(f, POLLOUT, deadline);

	return err == -ETIMEDOUT ? -EAGAIN : err;
}

static int inet_listen(struct file *f, int backlog)
{
	return listen(host_socket_of(f)->fd, backlog) < 0 ? -errno : 0;
}

static int inet_accept(struct file *f, int flags, struct socket_addr *addr, struct file **ret)
{
	struct host_socket *l = host_socket_of(f), *hs;
	struct socket_addr dummy, *from = addr ? addr : &dummy;
	socklen_t len = sizeof(from->ss);
	int fd, err;

	fd = accept4(l->fd, &from->sa, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0)
		return errno == EMFILE ? -ENFILE : errno == EINTR ? -EAGAIN : -errno;
	from->len = MIN(len, (socklen_t)sizeof(from->ss));
	err = inet_file_create(fd, l->domain, l->type, l->protocol,
			       flags & SOCK_NONBLOCK ? O_NONBLOCK : 0, &hs);
	if (err)
		return err;
	/* Copied with the rest of the listener (sk_clone_lock). */
	hs->rcvtimeo_ns = l->rcvtimeo_ns;
	hs->sndtimeo_ns = l->sndtimeo_ns;
	hs->rcvlowat = l->rcvlowat;
	hs->linger_s = l->linger_s;
	*ret = &hs->sf.f;
	return 0;
}

static int inet_shutdown(struct file *f, int how)
{
	return shutdown(host_socket_of(f)->fd, how) < 0 ? -errno : 0;
}

static unsigned inet_rcvlowat(struct file *f)
{
	return atomic_load_explicit(&host_socket_of(f)->rcvlowat, memory_order_relaxed);
}

/* ---- ioctl ---- */

#ifndef SIOCOUTQNSD
#define SIOCOUTQNSD 0x894B
#endif

static int64_t inet_ioctl(struct file *f, unsigned cmd, uint64_t arg)
{
	struct host_socket *hs = host_socket_of(f);
	int value = 0;

	switch (cmd) {
	case SIOCINQ:
	case SIOCOUTQ:
	case SIOCOUTQNSD:
	case SIOCATMARK:
		if (ioctl(hs->fd, cmd, &value) < 0)
			return -errno;
		return vfs_user_copy_out(arg, &value, sizeof(value));
	default:
		return netdev_ioctl(cmd, arg);
	}
}

static const struct socket_family inet_family = {
	.family = AF_INET,
	.raw_control = true,
	.bind = inet_bind,
	.connect = inet_connect,
	.connect_wait = inet_connect_wait,
	.listen = inet_listen,
	.accept = inet_accept,
	.getname = host_socket_getname,
	.shutdown = inet_shutdown,
	.setsockopt = inet_setsockopt,
	.getsockopt = inet_getsockopt,
	.sendmsg = inet_sendmsg,
	.recvmsg = inet_recvmsg,
	.timeout_ns = host_socket_timeout_ns,
	.rcvlowat = inet_rcvlowat,
	.poll = host_socket_poll,
	.poll_add = host_socket_poll_add,
	.ioctl = inet_ioctl,
	.set_flags = host_socket_set_flags,
	.release = inet_release,
};
