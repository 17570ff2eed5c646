/*
 * syscalls/sys_socket.c - sockets: addresses, options, and the making of connections. Messages are in sys_sockmsg.c.
 *
 * Operations of fsimpl/socket never wait; blocking is here: try, wait for readiness (with SO_RCVTIMEO or SO_SNDTIMEO), try again.
 */
#include <linux/netlink.h>
#include <netinet/in.h>

#include "sentry/pidfd.h"
#include "syscalls/sock.h"

#include "syscalls/syscalls.h"

#define SOCK_TYPE_MASK_ 0xf
#define SOCK_MAX_ 11
#define SOCKOPT_MAX 1024u

struct file *sock_fd(struct task *t, int fd, int *ret_err)
{
	struct file *f = sys_fd(t, fd);

	if (f && socket_is(f))
		return f;
	*ret_err = f ? -ENOTSOCK : -EBADF;
	if (f)
		file_unref(f);
	return NULL;
}

bool sock_may_wait(struct file *f, int flags)
{
	return !(file_flags(f) & O_NONBLOCK) && !(flags & MSG_DONTWAIT);
}

int64_t sock_deadline(int64_t timeout_ns)
{
	return timeout_ns > 0 ? sys_deadline_after(timeout_ns) : TIME_FOREVER;
}

int sock_wait(struct file *f, uint32_t events, int64_t deadline, unsigned *inout_spins)
{
	int64_t start = time_monotonic_ns();
	int err = file_wait(f, events, deadline);

	/* Ready, yet the operation said -EAGAIN (a full peer of a datagram): do not spin on it. */
	if (!err && time_monotonic_ns() - start < 20000 && ++*inout_spins > 8)
		err = sleeper_wait(sleeper_current(), SLEEP_INTERRUPTIBLE,
				   MIN(deadline, time_monotonic_ns() + 500000));
	if (err == -ETIMEDOUT)
		return time_monotonic_ns() >= deadline ? -EAGAIN : 0;
	/* sock_intr_errno: with a timeout the wait cannot be restarted whole. */
	if (err == -EINTR)
		return deadline == TIME_FOREVER ? -ERESTARTSYS_ : -EINTR;
	return err;
}

int sock_addr_in(struct task *t, uint64_t uaddr, int len, struct socket_addr *ret)
{
	if (len < 0 || (size_t)len > sizeof(ret->ss))
		return -EINVAL;
	memset(ret, 0, sizeof(*ret));
	ret->len = (unsigned)len;
	return len ? task_copy_in(t, &ret->ss, uaddr, (size_t)len) : 0;
}

int sock_addr_out(struct task *t, const struct socket_addr *addr, uint64_t uaddr, uint64_t ulen)
{
	int len;

	if (task_copy_in(t, &len, ulen, sizeof(len)))
		return -EFAULT;
	if (len < 0)
		return -EINVAL;
	len = MIN(len, (int)addr->len);
	if (len && task_copy_out(t, uaddr, &addr->ss, (size_t)len))
		return -EFAULT;
	return task_copy_out(t, ulen, &addr->len, sizeof(addr->len));
}

int sock_addr_lookup(struct task *t, const struct socket_addr *addr, struct sys_path *p,
		     bool *ret_path)
{
	int err;

	if (addr->len < sizeof(sa_family_t) || addr->sa.sa_family != AF_UNIX)
		return 0;
	strcpy(p->path, ".");
	err = sys_path_init(t, SYS_AT_FDCWD, 0, p);
	*ret_path = !err;
	return err;
}

int sock_pidfd_install(int32_t pid, bool nonblock)
{
	struct task *target = task_find(pid);
	struct file *f;
	int err;

	if (!target)
		return -ESRCH;
	err = pidfd_create_file(target, nonblock ? O_NONBLOCK : 0, &f);
	task_unref(target);
	return err ? err : (int)sys_fd_install(task_current(), f, true);
}

static int check_type(int type)
{
	if (type & ~(SOCK_TYPE_MASK_ | SOCK_CLOEXEC | SOCK_NONBLOCK))
		return -EINVAL;
	return 0;
}

static int check_family(int family, int type)
{
	if (family < 0 || family >= AF_MAX)
		return -EAFNOSUPPORT;
	if ((type & SOCK_TYPE_MASK_) >= SOCK_MAX_)
		return -EINVAL;
	return 0;
}

int64_t sys_socket(struct task *t, const struct syscall_args *a)
{
	int type = ARG_INT(1), err = check_type(type);
	struct file *f;

	if (!err)
		err = check_family(ARG_INT(0), type);
	if (!err)
		err = socket_create(ARG_INT(0), type & ~SOCK_CLOEXEC, ARG_INT(2), &f);
	return err ? err : sys_fd_install(t, f, type & SOCK_CLOEXEC);
}

int64_t sys_socketpair(struct task *t, const struct syscall_args *a)
{
	int type = ARG_INT(1), err = check_type(type);
	struct file *f[2];

	if (!err)
		err = check_family(ARG_INT(0), type);
	if (!err)
		err = socket_pair(ARG_INT(0), type & ~SOCK_CLOEXEC, ARG_INT(2), f);
	return err ? err : sys_fd_install_pair(t, f[0], f[1], type & SOCK_CLOEXEC, a->a[3]);
}

/* A socket, and an address that a caller gives it. */
struct addressed {
	struct file *f; /* a reference */
	struct socket_addr addr;
	const struct vfs_lookup *lookup; /* of an address that is a path; else NULL */
	struct sys_path path;
};

/* Return: 0, to be followed by addressed_put(); -errno. */
static int addressed_get(struct task *t, const struct syscall_args *a, struct addressed *ret)
{
	bool have_path = false;
	int err = 0;

	ret->f = sock_fd(t, ARG_INT(0), &err);
	if (!ret->f)
		return err;
	err = sock_addr_in(t, a->a[1], ARG_INT(2), &ret->addr);
	if (!err)
		err = sock_addr_lookup(t, &ret->addr, &ret->path, &have_path);
	ret->lookup = have_path ? &ret->path.lk : NULL;
	if (err)
		file_unref(ret->f);
	return err;
}

static void addressed_put(struct addressed *ad)
{
	if (ad->lookup)
		sys_path_put(&ad->path);
	file_unref(ad->f);
}

int64_t sys_bind(struct task *t, const struct syscall_args *a)
{
	struct addressed ad;
	int err = addressed_get(t, a, &ad);

	if (err)
		return err;
	err = socket_bind(ad.f, &ad.addr, ad.lookup, fs_context_umask(t->fsctx));
	addressed_put(&ad);
	return err;
}

/* Calls again until it is done; a connection that is being made is waited for. */
static int connect_loop(struct file *f, const struct socket_addr *addr,
			const struct vfs_lookup *lookup)
{
	int64_t deadline = sock_deadline(socket_timeout_ns(f, true));
	int err, wait;

	for (;;) {
		err = socket_connect(f, addr, lookup);
		if ((err != -EAGAIN && err != -EINPROGRESS && err != -EALREADY) ||
		    !sock_may_wait(f, 0))
			return err;
		wait = socket_connect_wait(f, deadline);
		if (wait == -EINTR)
			return deadline == TIME_FOREVER ? -ERESTARTSYS_ : -EINTR;
		if (wait)
			return wait == -EAGAIN ? err : wait; /* the deadline */
	}
}

int64_t sys_connect(struct task *t, const struct syscall_args *a)
{
	struct addressed ad;
	int err = addressed_get(t, a, &ad);

	if (err)
		return err;
	err = connect_loop(ad.f, &ad.addr, ad.lookup);
	addressed_put(&ad);
	return err;
}

int64_t sys_listen(struct task *t, const struct syscall_args *a)
{
	int err = 0;
	struct file *f = sock_fd(t, ARG_INT(0), &err);

	if (!f)
		return err;
	err = socket_listen(f, ARG_INT(1));
	file_unref(f);
	return err;
}

static int64_t accept_conn(struct task *t, int fd, uint64_t uaddr, uint64_t ulen, int flags)
{
	struct socket_addr addr = {0};
	struct file *f, *conn = NULL;
	int64_t deadline;
	unsigned spins = 0;
	int err = 0, newfd;

	if (flags & ~(SOCK_CLOEXEC | SOCK_NONBLOCK))
		return -EINVAL;
	f = sock_fd(t, fd, &err);
	if (!f)
		return err;
	newfd = fd_reserve(t->fdtable, 0, sys_fd_limit(t), flags & SOCK_CLOEXEC);
	if (newfd < 0) {
		err = newfd;
		goto out_unref;
	}
	deadline = sock_deadline(socket_timeout_ns(f, false));
	for (;;) {
		err = socket_accept(f, flags & SOCK_NONBLOCK, &addr, &conn);
		if (err != -EAGAIN || !sock_may_wait(f, 0))
			break;
		err = sock_wait(f, POLLIN, deadline, &spins);
		if (err)
			break;
	}
	if (!err && uaddr)
		err = sock_addr_out(t, &addr, uaddr, ulen);
	if (err) {
		fd_cancel(t->fdtable, newfd);
	} else {
		fd_commit(t->fdtable, newfd, conn);
		err = newfd;
	}
	if (conn)
		file_unref(conn);
out_unref:
	file_unref(f);
	return err;
}

int64_t sys_accept(struct task *t, const struct syscall_args *a)
{
	return accept_conn(t, ARG_INT(0), a->a[1], a->a[2], 0);
}

int64_t sys_accept4(struct task *t, const struct syscall_args *a)
{
	return accept_conn(t, ARG_INT(0), a->a[1], a->a[2], ARG_INT(3));
}

static int64_t getname(struct task *t, const struct syscall_args *a, bool peer)
{
	struct socket_addr addr = {0};
	int err = 0;
	struct file *f = sock_fd(t, ARG_INT(0), &err);

	if (!f)
		return err;
	err = socket_getname(f, peer, &addr);
	file_unref(f);
	return err ? err : sock_addr_out(t, &addr, a->a[1], a->a[2]);
}

int64_t sys_getsockname(struct task *t, const struct syscall_args *a)
{
	return getname(t, a, false);
}

int64_t sys_getpeername(struct task *t, const struct syscall_args *a)
{
	return getname(t, a, true);
}

int64_t sys_shutdown(struct task *t, const struct syscall_args *a)
{
	int err = 0;
	struct file *f = sock_fd(t, ARG_INT(0), &err);

	if (!f)
		return err;
	err = ARG_UINT(1) > SHUT_RDWR ? -EINVAL : socket_shutdown(f, ARG_INT(1));
	file_unref(f);
	return err;
}

/* IPV6_FLOWLABEL_MGR; not in glibc. Its get reads struct in6_flowlabel_req. */
#define IPV6_FLOWLABEL_MGR_ 32
#define FLOWLABEL_REQ_SIZE 32u
/* ICMP_FILTER, the one option of IPPROTO_RAW that IPv4's raw sockets have; IPv6's have others, and do not mind a negative length. */
#define RAW_ICMP_FILTER_ 1

/* Memory for an option's value of len bytes: small (SOCKOPT_MAX bytes), or allocated where it is longer. NULL: none. */
static uint8_t *sockopt_room(uint8_t *small, unsigned len)
{
	return len <= SOCKOPT_MAX ? small : calloc(1, len);
}

int64_t sys_setsockopt(struct task *t, const struct syscall_args *a)
{
	unsigned each, len, head = socket_sources_head(ARG_INT(1), ARG_INT(2), &each);
	uint8_t small[SOCKOPT_MAX], *val;
	int err = 0;
	struct file *f;

	if (ARG_INT(4) < 0)
		return -EINVAL;
	f = sock_fd(t, ARG_INT(0), &err);
	if (!f)
		return err;
	len = MIN(ARG_UINT(4), head ? head + SOCKET_SOURCES_MAX * each : SOCKOPT_MAX);
	val = sockopt_room(small, len);
	if (!val)
		err = -ENOBUFS;
	else if (len && task_copy_in(t, val, a->a[3], len))
		err = -EFAULT;
	else
		err = socket_setsockopt(f, ARG_INT(1), ARG_INT(2), val, len);
	if (val != small)
		free(val);
	file_unref(f);
	return err;
}

/* What is asked for stands in the buffer: so many bytes of it. */
static unsigned sockopt_get_reads(int level, int opt)
{
	unsigned each;

	if (level == IPPROTO_IPV6 && opt == IPV6_FLOWLABEL_MGR_)
		return FLOWLABEL_REQ_SIZE;
	return socket_sources_head(level, opt, &each);
}

/* A get of multicast sources writes as many as the value asks for: *inout_val, *inout_len grow to hold them, or as many as there may be. */
static int sockopt_sources_room(int level, int opt, uint8_t **inout_val, unsigned *inout_len)
{
	unsigned each, head = socket_sources_head(level, opt, &each);
	uint8_t *val = *inout_val;
	uint32_t count;

	if (!head || *inout_len < head)
		return 0;
	memcpy(&count, val + head - sizeof(count), sizeof(count));
	*inout_len = head + MIN(count, SOCKET_SOURCES_MAX) * each;
	*inout_val = sockopt_room(val, *inout_len);
	if (!*inout_val)
		return -ENOBUFS;
	if (*inout_val != val)
		memcpy(*inout_val, val, head);
	return 0;
}

int64_t sys_getsockopt(struct task *t, const struct syscall_args *a)
{
	uint8_t small[SOCKOPT_MAX] = {0}, *val = small;
	int err = 0, ulen, level = ARG_INT(1), opt = ARG_INT(2);
	unsigned len, room, reads = sockopt_get_reads(level, opt);
	struct file *f;

	f = sock_fd(t, ARG_INT(0), &err);
	if (!f)
		return err;
	err = -EFAULT;
	if (task_copy_in(t, &ulen, a->a[4], sizeof(ulen)))
		goto out_unref;
	err = -EINVAL;
	if (ulen < 0 && (level == SOL_SOCKET || level == IPPROTO_IP || level == IPPROTO_TCP ||
			 level == SOL_NETLINK || reads))
		goto out_unref;
	/* The other levels look at the option first, and most of IPv6's take the length for a large one. */
	len = MIN((unsigned)ulen, SOCKOPT_MAX);
	if (reads && task_copy_in(t, val, a->a[3], MIN(len, reads))) {
		err = -EFAULT;
		goto out_unref;
	}
	err = sockopt_sources_room(level, opt, &val, &len);
	if (err)
		goto out_unref;
	room = len;
	err = socket_getsockopt(f, level, opt, val, &len);
	if (!err && ulen < 0 && level != IPPROTO_IPV6 &&
	    (level != IPPROTO_RAW || opt == RAW_ICMP_FILTER_))
		err = -EINVAL;
	/* SO_PEERGROUPS: too little room, and here is how much it takes. */
	if (err == -ERANGE && task_copy_out(t, a->a[4], &len, sizeof(len)))
		err = -EFAULT;
	if (err)
		goto out_free;
	err = -EFAULT;
	if ((len && task_copy_out(t, a->a[3], val, MIN(len, room))) ||
	    task_copy_out(t, a->a[4], &len, sizeof(len)))
		goto out_free;
	err = 0;
out_free:
	if (val != small)
		free(val);
out_unref:
	file_unref(f);
	return err;
}
