/* syscalls/sys_mq.c - POSIX message queues: what crosses to and from the application; the work is sentry/ipc/mq*.c. */
#include "syscalls/syscalls.h"

#include <signal.h>

#include "fsimpl/socket/socket.h"
#include "sentry/ipc/mq.h"
#include "syscalls/util.h"

static int name_get(struct task *t, uint64_t addr, char *name, size_t size)
{
	ssize_t len = mm_copy_in_string(t->mm, name, addr, size);

	return len < 0 ? (int)len : 0;
}

int64_t sys_mq_open(struct task *t, const struct syscall_args *a)
{
	char name[VFS_PATH_MAX];
	struct mq_attr_k attr;
	struct file *f;
	int fd, err;

	if (a->a[3] && task_copy_in(t, &attr, a->a[3], sizeof(attr)))
		return -EFAULT;
	err = name_get(t, a->a[0], name, sizeof(name));
	if (err)
		return err;
	fd = fd_reserve(t->fdtable, 0, sys_fd_limit(t), true);
	if (fd < 0)
		return fd;
	err = mq_open_file(t, name, ARG_UINT(1), ARG_UINT(2), a->a[3] ? &attr : NULL, &f);
	if (err) {
		fd_cancel(t->fdtable, fd);
		return err;
	}
	fd_commit(t->fdtable, fd, f);
	file_unref(f);
	return fd;
}

int64_t sys_mq_unlink(struct task *t, const struct syscall_args *a)
{
	char name[VFS_PATH_MAX];
	int err = name_get(t, a->a[0], name, sizeof(name));

	return err ? err : mq_unlink_name(t, name);
}

/* An absolute CLOCK_REALTIME timeout as a deadline; none: for ever. */
static int deadline_get(struct task *t, uint64_t addr, int64_t *ret)
{
	struct moat_timespec ts;
	int64_t ns;

	*ret = TIME_FOREVER;
	if (!addr)
		return 0;
	if (task_copy_in(t, &ts, addr, sizeof(ts)))
		return -EFAULT;
	if (ts.sec < 0 || ts.nsec < 0 || ts.nsec >= 1000000000)
		return -EINVAL;
	if (__builtin_mul_overflow(ts.sec, (int64_t)1000000000, &ns) ||
	    __builtin_add_overflow(ns, ts.nsec, &ns))
		return 0;
	ns -= time_realtime_ns();
	*ret = ns <= 0 ? time_monotonic_ns() : sys_deadline_after(ns);
	return 0;
}

static int64_t send_to(struct task *t, struct file *f, const struct syscall_args *a,
		       int64_t deadline)
{
	uint64_t size = ARG_U64(2), max;
	struct mq_message *m;
	int err;

	if (!mq_is_queue(f) || !(f->mode & FILE_WRITE))
		return -EBADF;
	err = mq_message_max(f, &max);
	if (err)
		return err;
	if (size > max)
		return -EMSGSIZE;
	err = mq_message_create(f, size, ARG_UINT(3), &m);
	if (err)
		return err;
	if (task_copy_in(t, mq_message_text(m), ARG_U64(1), size))
		err = -EFAULT;
	else
		err = mq_send(f, m, deadline);
	if (err)
		mq_message_free(m);
	return err;
}

int64_t sys_mq_timedsend(struct task *t, const struct syscall_args *a)
{
	struct file *f;
	int64_t deadline, ret = deadline_get(t, a->a[4], &deadline);

	if (ret)
		return ret;
	if (ARG_UINT(3) >= MQ_PRIORITIES)
		return -EINVAL;
	f = sys_fd(t, ARG_INT(0));
	if (!f)
		return -EBADF;
	ret = send_to(t, f, a, deadline);
	file_unref(f);
	return ret;
}

static int64_t receive_from(struct task *t, struct file *f, const struct syscall_args *a,
			    int64_t deadline)
{
	struct mq_message *m;
	uint64_t max;
	uint32_t prio;
	int64_t ret;
	int err;

	if (!mq_is_queue(f) || !(f->mode & FILE_READ))
		return -EBADF;
	err = mq_message_max(f, &max);
	if (err)
		return err;
	if (ARG_U64(2) < max)
		return -EMSGSIZE;
	err = mq_receive(f, deadline, &m);
	if (err)
		return err;
	prio = mq_message_prio(m);
	ret = (int64_t)mq_message_size(m);
	if ((a->a[3] && task_copy_out(t, a->a[3], &prio, sizeof(prio))) ||
	    task_copy_out(t, ARG_U64(1), mq_message_text(m), (size_t)ret))
		ret = -EFAULT;
	mq_message_free(m);
	return ret;
}

int64_t sys_mq_timedreceive(struct task *t, const struct syscall_args *a)
{
	struct file *f;
	int64_t deadline, ret = deadline_get(t, a->a[4], &deadline);

	if (ret)
		return ret;
	f = sys_fd(t, ARG_INT(0));
	if (!f)
		return -EBADF;
	ret = receive_from(t, f, a, deadline);
	file_unref(f);
	return ret;
}

/* SIGEV_THREAD: the value is the address of a cookie, the number a netlink socket's descriptor. */
static int thread_args(struct task *t, const struct mq_sigevent *ev, uint8_t *cookie,
		       struct file **ret_sock)
{
	struct file *sock;

	if (task_copy_in(t, cookie, ev->value, MQ_COOKIE_SIZE))
		return -EFAULT;
	sock = sys_fd(t, ev->signo);
	if (!sock)
		return -EBADF;
	if (!netlink_is(sock)) {
		file_unref(sock);
		return -EINVAL;
	}
	*ret_sock = sock;
	return 0;
}

int64_t sys_mq_notify(struct task *t, const struct syscall_args *a)
{
	uint8_t cookie[MQ_COOKIE_SIZE] = {0};
	struct file *f, *sock = NULL;
	struct mq_sigevent ev;
	int err = 0;

	if (a->a[1]) {
		if (task_copy_in(t, &ev, a->a[1], sizeof(ev)))
			return -EFAULT;
		if (ev.notify != SIGEV_NONE && ev.notify != SIGEV_SIGNAL &&
		    ev.notify != SIGEV_THREAD)
			return -EINVAL;
		if (ev.notify == SIGEV_SIGNAL && (ev.signo < 0 || ev.signo > SIG_COUNT))
			return -EINVAL;
		if (ev.notify == SIGEV_THREAD)
			err = thread_args(t, &ev, cookie, &sock);
		if (err)
			return err;
	}
	f = sys_fd(t, ARG_INT(0));
	err = f ? mq_notify_set(t, f, a->a[1] ? &ev : NULL, sock, cookie) : -EBADF;
	if (f)
		file_unref(f);
	if (sock)
		file_unref(sock);
	return err;
}

int64_t sys_mq_getsetattr(struct task *t, const struct syscall_args *a)
{
	struct mq_attr_k set, old;
	struct file *f;
	int err;

	if (a->a[1] && task_copy_in(t, &set, a->a[1], sizeof(set)))
		return -EFAULT;
	if (a->a[1] && (set.flags & ~(int64_t)O_NONBLOCK))
		return -EINVAL;
	f = sys_fd(t, ARG_INT(0));
	if (!f)
		return -EBADF;
	err = mq_getset(f, a->a[1] ? &set : NULL, a->a[2] ? &old : NULL);
	file_unref(f);
	if (!err && a->a[2] && task_copy_out(t, a->a[2], &old, sizeof(old)))
		err = -EFAULT;
	return err;
}
