/*
 * fsimpl/socket/family.c - the socket as a file, whatever its family: calls go to the family's table (family.h).
 *
 * A family that is not here does not exist: EAFNOSUPPORT, as on a kernel built without it.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "fsimpl/socket/family.h"
#include "vfs/async.h"

struct socket_hooks socket_hooks;

/* ---- the file ---- */

static ssize_t socket_read(struct file *f, struct io_iter *it, unused_arg int64_t off,
			   unused_arg int rwf)
{
	struct socket_msg m;
	ssize_t n;

	if (!it->remaining)
		return 0; /* sock_read_iter(): "Match SYS5 behaviour" */
	m.it = it;
	m.addr = NULL;
	m.control = NULL;
	m.control_size = 0;
	m.nfiles = 0;
	n = socket_family_of(f)->recvmsg(f, &m, 0);
	/* read(2) has nowhere to put descriptors. */
	for (unsigned i = 0; i < m.nfiles; i++)
		file_unref(m.files[i]);
	return n;
}

static ssize_t socket_write(struct file *f, struct io_iter *it, unused_arg int64_t *inout_off,
			    int rwf)
{
	struct socket_msg m;

	m.it = it;
	m.addr = NULL;
	m.lookup = NULL;
	m.nfiles = 0;
	m.has_cred = false;
	m.control = NULL;
	m.control_size = 0;
	return socket_family_of(f)->sendmsg(f, &m, rwf & RWF_NOSIGNAL ? MSG_NOSIGNAL : 0);
}

static uint32_t socket_poll(struct file *f)
{
	return socket_family_of(f)->poll(f);
}

static void socket_poll_add(struct file *f, struct waiter *w)
{
	socket_family_of(f)->poll_add(f, w);
}

static void socket_poll_remove(unused_arg struct file *f, struct waiter *w)
{
	wait_queue_remove(w);
	waiter_await_end(w);
}

static int64_t socket_ioctl(struct file *f, unsigned cmd, uint64_t arg)
{
	return socket_family_of(f)->ioctl(f, cmd, arg);
}

static int socket_set_flags(struct file *f, unsigned new_flags)
{
	const struct socket_family *fam = socket_family_of(f);

	if (fam->set_flags)
		return fam->set_flags(f, new_flags);
	return new_flags & O_ASYNC ? file_async_set(f, true) : 0;
}

static void socket_release(struct file *f)
{
	socket_family_of(f)->release(f);
}

const struct file_ops socket_ops = {
	.name = "socket",
	.release = socket_release,
	.read_iter = socket_read,
	.write_iter = socket_write,
	.poll = socket_poll,
	.poll_add = socket_poll_add,
	.poll_remove = socket_poll_remove,
	.stat = anon_file_stat,
	.set_stat = anon_file_set_stat,
	.ioctl = socket_ioctl,
	.set_flags = socket_set_flags,
	.io_timeout_ns = socket_timeout_ns,
};

bool socket_is(struct file *f)
{
	return f->ops == &socket_ops;
}

int socket_file_init(struct socket_file *sf, const struct socket_family *fam, uint64_t ino,
		     unsigned flags)
{
	struct anon_args args = {.kind = ANON_SOCKET, .ino = ino, .mode = S_IFSOCK | 0777};

	sf->fam = fam;
	return anon_file_init(&sf->f, &socket_ops, &args, O_RDWR | flags,
			      FILE_READ | FILE_WRITE | FILE_STREAM);
}

/* ---- making one ---- */

static int socket_check(int family, int type)
{
	if (type & ~(0xf | SOCK_NONBLOCK | SOCK_CLOEXEC))
		return -EINVAL;
	if (family < 0 || family >= AF_MAX)
		return -EAFNOSUPPORT;
	if ((type & 0xf) > SOCK_PACKET)
		return -EINVAL;
	return 0;
}

int socket_create(int family, int type, int protocol, struct file **ret)
{
	unsigned flags = type & SOCK_NONBLOCK ? O_NONBLOCK : 0;
	int err = socket_check(family, type);

	if (err)
		return err;
	type &= 0xf;
	switch (family) {
	case AF_UNIX:
		return unix_socket_create(type, protocol, flags, ret);
	case AF_INET:
	case AF_INET6:
		return inet_socket_create(family, type, protocol, flags, ret);
	case AF_NETLINK:
		return netlink_socket_create(type, protocol, flags, ret);
	default:
		return -EAFNOSUPPORT;
	}
}

int socket_pair(int family, int type, int protocol, struct file *ret[2])
{
	unsigned flags = type & SOCK_NONBLOCK ? O_NONBLOCK : 0;
	struct file *f;
	int err = socket_check(family, type);

	if (err)
		return err;
	if (family == AF_UNIX)
		return unix_socket_pair(type & 0xf, protocol, flags, ret);
	/* Other families have sockets, not pairs; what socket(2) refuses is told first. */
	err = socket_create(family, type, protocol, &f);
	if (!err)
		file_unref(f);
	return err ? err : -EOPNOTSUPP;
}

/* ---- dispatch ---- */

int socket_bind(struct file *f, const struct socket_addr *addr, const struct vfs_lookup *lookup,
		uint32_t umask)
{
	return socket_family_of(f)->bind(f, addr, lookup, umask);
}

int socket_connect(struct file *f, const struct socket_addr *addr, const struct vfs_lookup *lookup)
{
	return socket_family_of(f)->connect(f, addr, lookup);
}

int socket_connect_wait(struct file *f, int64_t deadline)
{
	return socket_family_of(f)->connect_wait(f, deadline);
}

int socket_listen(struct file *f, int backlog)
{
	return socket_family_of(f)->listen(f, backlog);
}

int socket_accept(struct file *f, int flags, struct socket_addr *addr, struct file **ret)
{
	return socket_family_of(f)->accept(f, flags, addr, ret);
}

int socket_getname(struct file *f, bool peer, struct socket_addr *ret)
{
	return socket_family_of(f)->getname(f, peer, ret);
}

int socket_shutdown(struct file *f, int how)
{
	if (how < SHUT_RD || how > SHUT_RDWR)
		return -EINVAL;
	return socket_family_of(f)->shutdown(f, how);
}

int socket_setsockopt(struct file *f, int level, int opt, const void *val, unsigned len)
{
	return socket_family_of(f)->setsockopt(f, level, opt, val, len);
}

int socket_getsockopt(struct file *f, int level, int opt, void *val, unsigned *inout_len)
{
	return socket_family_of(f)->getsockopt(f, level, opt, val, inout_len);
}

ssize_t socket_sendmsg(struct file *f, struct socket_msg *m, int flags)
{
	return socket_family_of(f)->sendmsg(f, m, flags);
}

ssize_t socket_recvmsg(struct file *f, struct socket_msg *m, int flags)
{
	return socket_family_of(f)->recvmsg(f, m, flags);
}

bool socket_raw_control(struct file *f)
{
	return socket_family_of(f)->raw_control;
}

unsigned socket_rcvlowat(struct file *f)
{
	const struct socket_family *fam = socket_family_of(f);

	return fam->rcvlowat ? fam->rcvlowat(f) : 1;
}

int64_t socket_timeout_ns(struct file *f, bool send)
{
	return socket_family_of(f)->timeout_ns(f, send);
}

/* ---- timeouts ---- */

struct timeval64 {
	int64_t tv_sec, tv_usec;
};

int socket_timeout_set(const void *val, unsigned len, int64_t *ret_ns)
{
	struct timeval64 tv;

	if (len < sizeof(tv))
		return -EINVAL;
	memcpy(&tv, val, sizeof(tv));
	if (tv.tv_usec < 0 || tv.tv_usec >= 1000000)
		return -EDOM;
	if (tv.tv_sec < 0) {
		/* Linux: a negative time is the shortest wait. */
		*ret_ns = 1;
		return 0;
	}
	*ret_ns =
		tv.tv_sec > INT64_MAX / 2000000000 ? 0 : tv.tv_sec * 1000000000 + tv.tv_usec * 1000;
	return 0;
}

int socket_timeout_get(void *dst, unsigned *inout_len, int64_t ns)
{
	struct timeval64 tv = {.tv_sec = ns / 1000000000, .tv_usec = ns % 1000000000 / 1000};

	*inout_len = MIN(*inout_len, (unsigned)sizeof(tv));
	memcpy(dst, &tv, *inout_len);
	return 0;
}
