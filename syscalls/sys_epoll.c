/* syscalls/sys_epoll.c - epoll. */
#include <stdlib.h>

#include "fsimpl/anon/anon.h"
#include "syscalls/syscalls.h"
#include "syscalls/util.h"
#include "vfs/epoll.h"

#define EPOLL_FAST 32 /* events gathered on the stack */
#define EPOLL_BATCH 65536 /* at most in one call; the caller comes back for the rest */

_Static_assert(sizeof(struct epoll_event) == 12, "epoll_event ABI");

static int64_t make_epoll(struct task *t, unsigned flags)
{
	const struct anon_args args = {.kind = ANON_INODE, .name = "[eventpoll]", .mode = 0600};
	struct vfs_path place;
	struct file *f;
	int err;

	if (flags & ~(unsigned)EPOLL_CLOEXEC)
		return -EINVAL;
	err = anon_path_create(&args, &place);
	if (err)
		return err;
	err = epoll_file_create(&place, 0, &f);
	vfs_path_unref(&place);
	return err ? err : sys_fd_install(t, f, flags & EPOLL_CLOEXEC);
}

int64_t sys_epoll_create(struct task *t, const struct syscall_args *a)
{
	return ARG_INT(0) <= 0 ? -EINVAL : make_epoll(t, 0);
}

int64_t sys_epoll_create1(struct task *t, const struct syscall_args *a)
{
	return make_epoll(t, ARG_UINT(0));
}

int64_t sys_epoll_ctl(struct task *t, const struct syscall_args *a)
{
	struct epoll_event ev = {0};
	struct file *ep, *target;
	int err;

	if (ARG_INT(1) != EPOLL_CTL_DEL && task_copy_in(t, &ev, a->a[3], sizeof(ev)))
		return -EFAULT;
	ep = sys_fd(t, ARG_INT(0));
	if (!ep)
		return -EBADF;
	target = sys_fd(t, ARG_INT(2));
	err = target ? epoll_file_ctl(ep, ARG_INT(1), target, ARG_INT(2), &ev) : -EBADF;
	if (target)
		file_unref(target);
	file_unref(ep);
	return err;
}

static int64_t wait_events(struct task *t, int fd, uint64_t uevents, int max, int64_t deadline)
{
	struct epoll_event fast[EPOLL_FAST], *ev = fast;
	struct file *ep;
	int64_t ret;

	if (max <= 0 || max > EPOLL_EVENTS_MAX)
		return -EINVAL;
	if (!sys_range_ok(uevents, (uint64_t)max * sizeof(*ev)))
		return -EFAULT;
	ep = sys_fd(t, fd);
	if (!ep)
		return -EBADF;
	max = MIN(max, EPOLL_BATCH);
	if (max > EPOLL_FAST) {
		ev = malloc((size_t)max * sizeof(*ev));
		ret = -ENOMEM;
		if (!ev)
			goto out_unref;
	}
	ret = epoll_file_wait(ep, ev, max, deadline);
	if (ret > 0 && task_copy_out(t, uevents, ev, (size_t)ret * sizeof(*ev)))
		ret = -EFAULT;
	if (ev != fast)
		free(ev);
out_unref:
	file_unref(ep);
	return ret;
}

static int64_t ms_deadline(int timeout)
{
	if (timeout < 0)
		return TIME_FOREVER;
	return timeout ? sys_deadline_after((int64_t)timeout * 1000000) : 0;
}

int64_t sys_epoll_wait(struct task *t, const struct syscall_args *a)
{
	return wait_events(t, ARG_INT(0), a->a[1], ARG_INT(2), ms_deadline(ARG_INT(3)));
}

int64_t sys_epoll_pwait(struct task *t, const struct syscall_args *a)
{
	int err = sys_temp_mask(t, a->a[4], a->a[5]);

	return err ? err : wait_events(t, ARG_INT(0), a->a[1], ARG_INT(2), ms_deadline(ARG_INT(3)));
}

int64_t sys_epoll_pwait2(struct task *t, const struct syscall_args *a)
{
	int64_t deadline;
	bool zero;
	int err;

	err = sys_timespec_deadline(t, a->a[3], &deadline, &zero);
	if (!err)
		err = sys_temp_mask(t, a->a[4], a->a[5]);
	return err ? err : wait_events(t, ARG_INT(0), a->a[1], ARG_INT(2), zero ? 0 : deadline);
}
