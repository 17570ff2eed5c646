/* syscalls/sys_sockmsg.c - messages: send and receive in all their forms, with control messages. */
#include <limits.h>
#include <stdlib.h>

#include "syscalls/sock.h"
#include "syscalls/syscalls.h"

#define SOCK_CONTROL_MAX 20480 /* net.core.optmem_max's order */
#define CAP_SETGID_ 6
#define CAP_SETUID_ 7
#define CAP_SYS_ADMIN_ 21
#define MSG_WAITFORONE_ 0x10000
#define SCM_PIDFD_ 4

struct user_msghdr {
	uint64_t name;
	int32_t namelen, pad0;
	uint64_t iov, iovlen, control, controllen;
	uint32_t flags, pad1;
};
_Static_assert(sizeof(struct user_msghdr) == 56, "msghdr ABI");

struct user_mmsghdr {
	struct user_msghdr hdr;
	uint32_t len, pad;
};

struct cmsg_head {
	uint64_t len;
	int32_t level, type;
};

static void drop_files(struct socket_msg *m)
{
	while (m->nfiles)
		file_unref(m->files[--m->nfiles]);
}

/* ---- sending ---- */

/* scm_fp_copy */
static int scm_rights(struct task *t, struct socket_msg *m, const uint8_t *data, size_t size)
{
	size_t n = size / sizeof(int);
	int fd;

	if (n > SOCKET_RIGHTS_MAX - m->nfiles)
		return -EINVAL;
	for (size_t i = 0; i < n; i++) {
		memcpy(&fd, data + i * sizeof(fd), sizeof(fd));
		m->files[m->nfiles] = sys_fd_raw(t, fd);
		if (!m->files[m->nfiles])
			return -EBADF;
		m->nfiles++;
	}
	return 0;
}

/* scm_check_creds: who may claim to be whom. */
static int scm_creds(struct task *t, struct socket_msg *m, const uint8_t *data, size_t size)
{
	const struct cred *c = t->cred;
	struct socket_cred sc;

	if (size != sizeof(sc))
		return -EINVAL;
	memcpy(&sc, data, sizeof(sc));
	if (sc.pid != t->group->vtgid && !cred_has_cap(c, CAP_SYS_ADMIN_))
		return -EPERM;
	if (sc.uid != c->uid && sc.uid != c->euid && sc.uid != c->suid &&
	    !cred_has_cap(c, CAP_SETUID_))
		return -EPERM;
	if (sc.gid != c->gid && sc.gid != c->egid && sc.gid != c->sgid &&
	    !cred_has_cap(c, CAP_SETGID_))
		return -EPERM;
	m->cred = sc;
	/* It travels as a root number; the receiver gets its own. */
	m->cred.pid = t->group->tgid;
	if (sc.pid != t->group->vtgid) {
		struct task *other = task_find_v(t, sc.pid);

		if (!other)
			return -ESRCH;
		m->cred.pid = other->tid;
		task_unref(other);
	}
	m->has_cred = true;
	return 0;
}

/* __scm_send: control messages of level SOL_SOCKET; others are somebody else's. */
static int parse_scm(struct task *t, struct socket_msg *m, const uint8_t *buf, uint64_t size)
{
	size_t off = 0;
	int err = 0;

	while (!err && size - off >= sizeof(struct cmsg_head)) {
		struct cmsg_head h;

		memcpy(&h, buf + off, sizeof(h));
		if (h.len < sizeof(h) || h.len > size - off) {
			err = -EINVAL;
			break;
		}
		if (h.level == SOL_SOCKET) {
			const uint8_t *data = buf + off + sizeof(h);

			if (h.type == SCM_RIGHTS)
				err = scm_rights(t, m, data, h.len - sizeof(h));
			else if (h.type == SCM_CREDENTIALS)
				err = scm_creds(t, m, data, h.len - sizeof(h));
			else
				err = -EINVAL;
		}
		off += round_up_u64(h.len, 8);
		if (off > size)
			break;
	}
	return err;
}

/* Reads the control messages; for a family that looks at them itself they stay in m->control, for free(). */
static int get_control(struct task *t, struct file *f, struct socket_msg *m, uint64_t ucontrol,
		       uint64_t size)
{
	uint8_t *buf;
	int err;

	if (!size)
		return 0;
	if (size > SOCK_CONTROL_MAX)
		return -ENOBUFS;
	buf = malloc(size);
	if (!buf)
		return -ENOBUFS;
	err = task_copy_in(t, buf, ucontrol, size) ? -EFAULT : 0;
	if (!err && socket_raw_control(f)) {
		m->control = buf;
		m->control_size = size;
		return 0;
	}
	if (!err)
		err = parse_scm(t, m, buf, size);
	free(buf);
	return err;
}

/* Waits until a send may go on. 0 or what the call returns. */
static int64_t send_wait(struct file *f, struct socket_msg *m, int64_t ret, int *inout_flags,
			 int64_t deadline, unsigned *inout_spins)
{
	int err;

	if (ret == -EAGAIN)
		return sock_wait(f, POLLOUT, deadline, inout_spins);
	/* MSG_FASTOPEN without a cookie: the connection is made first, then the data goes. */
	err = socket_connect_wait(f, deadline);
	*inout_flags &= ~MSG_FASTOPEN;
	m->addr = NULL;
	if (err == -EINTR)
		return deadline == TIME_FOREVER ? -ERESTARTSYS_ : -EINTR;
	return err;
}

/* Sends what m->it holds; a blocking stream goes on until all is sent. */
static int64_t send_loop(struct file *f, struct socket_msg *m, int flags)
{
	int64_t deadline = sock_deadline(socket_timeout_ns(f, true)), done = 0, ret, err;
	unsigned spins = 0;

	for (;;) {
		ret = socket_sendmsg(f, m, flags);
		if (ret >= 0) {
			done += ret;
			spins = 0;
			if (!m->it->remaining || m->it->error || !ret)
				return done;
			/* The first part carried the descriptors; what fails after it raises no SIGPIPE. */
			drop_files(m);
			m->has_cred = false;
			m->control_size = 0;
			flags |= MSG_NOSIGNAL;
			continue;
		}
		if ((ret != -EAGAIN && (ret != -EINPROGRESS || !(flags & MSG_FASTOPEN))) ||
		    !sock_may_wait(f, flags))
			return done ? done : ret;
		err = send_wait(f, m, ret, &flags, deadline, &spins);
		if (err)
			return done ? done : err;
	}
}

/* The address and the lookup it may need. Fills m->addr and m->lookup; sys_path_put(p) if *ret_path. */
static int send_dest(struct task *t, uint64_t uaddr, int len, struct socket_addr *addr,
		     struct sys_path *p, struct socket_msg *m, bool *ret_path)
{
	int err;

	if (!uaddr || !len)
		return 0;
	err = sock_addr_in(t, uaddr, len, addr);
	if (!err)
		err = sock_addr_lookup(t, addr, p, ret_path);
	if (err)
		return err;
	m->addr = addr;
	m->lookup = *ret_path ? &p->lk : NULL;
	return 0;
}

int64_t sys_sendto(struct task *t, const struct syscall_args *a)
{
	struct socket_msg m = {0};
	struct socket_addr addr;
	bool have_path = false;
	struct sys_path p;
	struct io_iter it;
	struct iovec one;
	struct file *f;
	int err = 0;
	int64_t ret;

	if (!sys_range_ok(a->a[1], a->a[2]))
		return -EFAULT;
	f = sock_fd(t, ARG_INT(0), &err);
	if (!f)
		return err;
	ret = send_dest(t, a->a[4], ARG_INT(5), &addr, &p, &m, &have_path);
	if (ret)
		goto out_unref;
	mm_iter_init_one(t->mm, &it, &one, a->a[1], MIN(a->a[2], FILE_IO_MAX), false);
	m.it = &it;
	ret = send_loop(f, &m, ARG_INT(3));
	io_iter_fini(&it);
	if (have_path)
		sys_path_put(&p);
out_unref:
	file_unref(f);
	return ret;
}

static int64_t send_msg(struct task *t, struct file *f, const struct user_msghdr *h, int flags)
{
	struct iovec fast[SYS_IOV_FAST], *iov = fast;
	struct socket_msg m = {0};
	struct socket_addr addr;
	bool have_path = false;
	struct sys_path p;
	struct io_iter it;
	int64_t ret;

	if (h->iovlen > SYS_IOV_MAX)
		return -EMSGSIZE;
	if (h->namelen < 0)
		return -EINVAL;
	if (h->controllen > INT_MAX)
		return -ENOBUFS;
	ret = send_dest(t, h->name, MIN(h->namelen, (int)sizeof(addr.ss)), &addr, &p, &m,
			&have_path);
	if (ret)
		return ret;
	ret = sys_iov_get(t, h->iov, h->iovlen, fast, &iov);
	if (ret < 0)
		goto out_path;
	ret = get_control(t, f, &m, h->control, h->control ? h->controllen : 0);
	if (ret)
		goto out_files;
	mm_iter_init(t->mm, &it, iov, (unsigned)h->iovlen, false);
	m.it = &it;
	ret = send_loop(f, &m, flags);
	io_iter_fini(&it);
out_files:
	free(m.control);
	drop_files(&m);
	sys_iov_free(fast, iov);
out_path:
	if (have_path)
		sys_path_put(&p);
	return ret;
}

int64_t sys_sendmsg(struct task *t, const struct syscall_args *a)
{
	struct user_msghdr h;
	struct file *f;
	int err = 0;
	int64_t ret;

	f = sock_fd(t, ARG_INT(0), &err);
	if (!f)
		return err;
	ret = task_copy_in(t, &h, a->a[1], sizeof(h)) ? -EFAULT : send_msg(t, f, &h, ARG_INT(2));
	file_unref(f);
	return ret;
}

int64_t sys_sendmmsg(struct task *t, const struct syscall_args *a)
{
	unsigned count = MIN(ARG_UINT(2), (unsigned)SYS_IOV_MAX), done = 0;
	struct user_msghdr h;
	struct file *f;
	int err = 0;
	int64_t ret = 0;

	f = sock_fd(t, ARG_INT(0), &err);
	if (!f)
		return err;
	for (; done < count; done++) {
		uint64_t at = a->a[1] + done * sizeof(struct user_mmsghdr);
		uint32_t len;

		ret = task_copy_in(t, &h, at, sizeof(h));
		if (!ret)
			ret = send_msg(t, f, &h, ARG_INT(3));
		if (ret < 0)
			break;
		len = (uint32_t)ret;
		ret = task_copy_out(t, at + offsetof(struct user_mmsghdr, len), &len, sizeof(len));
		if (ret)
			break;
	}
	file_unref(f);
	return done ? done : ret;
}

/* ---- receiving ---- */

/* Is what came enough, or does a blocking stream go on? */
static bool recv_enough(struct file *f, const struct socket_msg *m, int flags, int64_t done)
{
	if ((flags & MSG_PEEK) || !(f->mode & FILE_STREAM) || !m->it->remaining || m->it->error ||
	    m->nfiles || (m->flags & (MSG_EOR | MSG_TRUNC)))
		return true;
	/* MSG_WAITALL: until full, the end, or a control message. */
	return !(flags & MSG_WAITALL) &&
	       (done >= (int64_t)socket_rcvlowat(f) || !sock_may_wait(f, flags));
}

static int64_t recv_loop(struct file *f, struct socket_msg *m, int flags)
{
	int64_t deadline = sock_deadline(socket_timeout_ns(f, false)), done = 0, ret;
	unsigned spins = 0;
	int err;

	for (;;) {
		ret = socket_recvmsg(f, m, flags);
		if (ret >= 0) {
			done += ret;
			if (!ret || recv_enough(f, m, flags, done))
				return done;
			spins = 0;
			continue;
		}
		/* Urgent data and the error queue are never waited for. */
		if (ret != -EAGAIN || !sock_may_wait(f, flags) ||
		    (flags & (MSG_OOB | MSG_ERRQUEUE)))
			return done ? done : ret;
		err = sock_wait(f, POLLIN | POLLRDHUP, deadline, &spins);
		if (err)
			return done ? done : err;
	}
}

int64_t sys_recvfrom(struct task *t, const struct syscall_args *a)
{
	struct socket_addr addr = {0};
	struct socket_msg m = {0};
	struct io_iter it;
	struct iovec one;
	struct file *f;
	int err = 0;
	int64_t ret;

	if (!sys_range_ok(a->a[1], a->a[2]))
		return -EFAULT;
	f = sock_fd(t, ARG_INT(0), &err);
	if (!f)
		return err;
	mm_iter_init_one(t->mm, &it, &one, a->a[1], MIN(a->a[2], FILE_IO_MAX), true);
	m.it = &it;
	m.addr = a->a[4] ? &addr : NULL;
	ret = recv_loop(f, &m, ARG_INT(3));
	io_iter_fini(&it);
	drop_files(&m);
	if (ret >= 0 && a->a[4]) {
		err = sock_addr_out(t, &addr, a->a[4], a->a[5]);
		if (err)
			ret = err;
	}
	file_unref(f);
	return ret;
}

/* Where control messages go, and how much of that is used. */
struct control_out {
	uint64_t addr, left, used;
	uint32_t flags; /* MSG_CTRUNC */
};

/* put_cmsg */
static int put_cmsg(struct task *t, struct control_out *c, int type, const void *data, size_t size)
{
	struct cmsg_head h = {.len = sizeof(h) + size, .level = SOL_SOCKET, .type = type};
	uint64_t step;

	if (!c->addr || c->left < sizeof(h)) {
		c->flags |= MSG_CTRUNC;
		return 0;
	}
	if (c->left < h.len) {
		c->flags |= MSG_CTRUNC;
		h.len = c->left;
	}
	if (task_copy_out(t, c->addr, &h, sizeof(h)) ||
	    task_copy_out(t, c->addr + sizeof(h), data, h.len - sizeof(h)))
		return -EFAULT;
	step = MIN(round_up_u64(h.len, 8), c->left);
	c->addr += step;
	c->left -= step;
	c->used += step;
	return 0;
}

/* scm_detach_fds: as many descriptors as fit; the rest are dropped and MSG_CTRUNC says so. */
static int put_rights(struct task *t, struct control_out *c, struct socket_msg *m, bool cloexec)
{
	int fds[SOCKET_RIGHTS_MAX];
	unsigned room = 0, n = 0;
	int err = 0;

	if (c->addr && c->left > sizeof(struct cmsg_head))
		room = (unsigned)MIN((c->left - sizeof(struct cmsg_head)) / sizeof(int),
				     (uint64_t)SOCKET_RIGHTS_MAX);
	for (; n < m->nfiles && n < room; n++) {
		fds[n] = fd_install(t->fdtable, m->files[n], 0, sys_fd_limit(t), cloexec);
		if (fds[n] < 0)
			break;
	}
	if (n < m->nfiles)
		c->flags |= MSG_CTRUNC;
	if (n)
		err = put_cmsg(t, c, SCM_RIGHTS, fds, n * sizeof(int));
	if (err)
		while (n)
			(void)!fd_close(t->fdtable, fds[--n]);
	drop_files(m);
	return err;
}

/* scm_pidfd_recv: without room no descriptor is made; one that cannot be made is told in its place. */
static int put_pidfd(struct task *t, struct control_out *c, int32_t pid)
{
	int fd, err;

	if (!c->addr || c->left < sizeof(struct cmsg_head) + sizeof(fd)) {
		c->flags |= MSG_CTRUNC;
		return 0;
	}
	fd = socket_hooks.pidfd_install ? socket_hooks.pidfd_install(pid, false) : -ESRCH;
	err = put_cmsg(t, c, SCM_PIDFD_, &fd, sizeof(fd));
	if (err && fd >= 0)
		(void)!fd_close(t->fdtable, fd);
	return err;
}

static int put_control(struct task *t, struct control_out *c, struct socket_msg *m, int flags)
{
	int64_t stamp[2] = {m->stamp_ns / 1000000000, m->stamp_ns % 1000000000 / 1000};
	struct socket_cred cred = m->cred;
	int err = 0;

	cred.pid = pid_vnr(t, cred.pid);

	if (m->has_stamp)
		err = put_cmsg(t, c, SO_TIMESTAMP, stamp, sizeof(stamp));
	if (!err && m->has_cred)
		err = put_cmsg(t, c, SCM_CREDENTIALS, &cred, sizeof(cred));
	if (!err && m->nfiles)
		err = put_rights(t, c, m, flags & MSG_CMSG_CLOEXEC);
	if (!err && m->has_pidfd)
		err = put_pidfd(t, c, m->cred.pid);
	return err;
}

/* What a family with socket_raw_control() filled in. */
static int put_raw_control(struct task *t, struct control_out *c, struct socket_msg *m)
{
	if (m->control_len && task_copy_out(t, c->addr, m->control, m->control_len))
		return -EFAULT;
	c->used = m->control_len;
	return 0;
}

/* Room for the family to fill in, as much as the guest has (bounded). -ENOBUFS. */
static int control_room(struct file *f, const struct user_msghdr *h, struct socket_msg *m)
{
	if (!socket_raw_control(f) || !h->control || !h->controllen)
		return 0;
	m->control_size = MIN(h->controllen, (uint64_t)SOCK_CONTROL_MAX);
	m->control = malloc(m->control_size);
	return m->control ? 0 : -ENOBUFS;
}

static int64_t recv_msg(struct task *t, struct file *f, uint64_t umsg, int flags)
{
	struct iovec fast[SYS_IOV_FAST], *iov;
	struct socket_addr addr = {0};
	struct socket_msg m = {0};
	struct control_out c;
	struct user_msghdr h;
	struct io_iter it;
	int64_t ret;
	int len;

	if (task_copy_in(t, &h, umsg, sizeof(h)))
		return -EFAULT;
	if (h.namelen < 0)
		return -EINVAL;
	if (h.iovlen > SYS_IOV_MAX)
		return -EMSGSIZE;
	ret = sys_iov_get(t, h.iov, h.iovlen, fast, &iov);
	if (ret < 0)
		return ret;
	ret = control_room(f, &h, &m);
	if (ret < 0) {
		sys_iov_free(fast, iov);
		return ret;
	}
	mm_iter_init(t->mm, &it, iov, (unsigned)h.iovlen, true);
	m.it = &it;
	m.addr = h.name ? &addr : NULL;
	ret = recv_loop(f, &m, flags);
	io_iter_fini(&it);
	sys_iov_free(fast, iov);
	if (ret < 0)
		goto out_files;
	c = (struct control_out){.addr = h.control, .left = h.control ? h.controllen : 0};
	len = socket_raw_control(f) ? put_raw_control(t, &c, &m) : put_control(t, &c, &m, flags);
	if (!len && h.name && addr.len)
		len = task_copy_out(t, h.name, &addr.ss, MIN(addr.len, (unsigned)h.namelen));
	if (len) {
		ret = len;
		goto out_files;
	}
	h.namelen = (int)addr.len;
	h.controllen = c.used;
	h.flags = (m.flags & ~(uint32_t)MSG_CMSG_CLOEXEC) | c.flags |
		  ((unsigned)flags & MSG_CMSG_CLOEXEC);
	if ((h.name && task_copy_out(t, umsg + offsetof(struct user_msghdr, namelen), &h.namelen,
				     sizeof(h.namelen))) ||
	    task_copy_out(t, umsg + offsetof(struct user_msghdr, controllen), &h.controllen,
			  sizeof(h.controllen)) ||
	    task_copy_out(t, umsg + offsetof(struct user_msghdr, flags), &h.flags, sizeof(h.flags)))
		ret = -EFAULT;
out_files:
	free(m.control);
	drop_files(&m);
	return ret;
}

int64_t sys_recvmsg(struct task *t, const struct syscall_args *a)
{
	struct file *f;
	int err = 0;
	int64_t ret;

	f = sock_fd(t, ARG_INT(0), &err);
	if (!f)
		return err;
	ret = recv_msg(t, f, a->a[1], ARG_INT(2));
	file_unref(f);
	return ret;
}

int64_t sys_recvmmsg(struct task *t, const struct syscall_args *a)
{
	unsigned count = MIN(ARG_UINT(2), (unsigned)SYS_IOV_MAX), done = 0;
	int flags = ARG_INT(3), err = 0;
	int64_t ret = 0, deadline;
	struct file *f;

	err = sys_timespec_deadline(t, a->a[4], &deadline, NULL);
	if (err)
		return err;
	f = sock_fd(t, ARG_INT(0), &err);
	if (!f)
		return err;
	while (done < count) {
		uint64_t at = a->a[1] + done * sizeof(struct user_mmsghdr);
		uint32_t len;

		ret = recv_msg(t, f, at, flags & ~MSG_WAITFORONE_);
		if (ret < 0)
			break;
		len = (uint32_t)ret;
		ret = task_copy_out(t, at + offsetof(struct user_mmsghdr, len), &len, sizeof(len));
		if (ret)
			break;
		done++;
		if (flags & MSG_WAITFORONE_)
			flags |= MSG_DONTWAIT;
		/* The timeout is looked at between messages only, as on Linux. */
		if (time_monotonic_ns() >= deadline)
			break;
	}
	file_unref(f);
	return done ? done : ret;
}
