/* syscalls/sys_fds.c - calls that make files without a path: pipe, eventfd, timerfd, signalfd, memfd, inotify. */
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <time.h>

#include "fsimpl/anon/anon.h"
#include "fsimpl/memfs/memfs.h"
#include "fsimpl/pipe/pipe.h"
#include "syscalls/syscalls.h"
#include "syscalls/util.h"
#include "vfs/inotify.h"

/* ---- pipe ---- */

static int64_t make_pipe(struct task *t, uint64_t uaddr, unsigned flags)
{
	struct file *f[2];
	int err;

	if (flags & ~(unsigned)(O_CLOEXEC | O_NONBLOCK | O_DIRECT))
		return -EINVAL;
	err = pipe_create(flags & ~(unsigned)O_CLOEXEC, f);
	return err ? err : sys_fd_install_pair(t, f[0], f[1], flags & O_CLOEXEC, uaddr);
}

int64_t sys_pipe(struct task *t, const struct syscall_args *a)
{
	return make_pipe(t, a->a[0], 0);
}

int64_t sys_pipe2(struct task *t, const struct syscall_args *a)
{
	return make_pipe(t, a->a[0], ARG_UINT(1));
}

/* ---- eventfd ---- */

static int64_t make_eventfd(struct task *t, unsigned count, unsigned flags)
{
	struct file *f;
	int err;

	if (flags & ~(unsigned)(EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE))
		return -EINVAL;
	err = eventfd_create(count, flags & ~(unsigned)EFD_CLOEXEC, &f);
	return err ? err : sys_fd_install(t, f, flags & EFD_CLOEXEC);
}

int64_t sys_eventfd(struct task *t, const struct syscall_args *a)
{
	return make_eventfd(t, ARG_UINT(0), 0);
}

int64_t sys_eventfd2(struct task *t, const struct syscall_args *a)
{
	return make_eventfd(t, ARG_UINT(0), ARG_UINT(1));
}

/* ---- signalfd ---- */

static int64_t make_signalfd(struct task *t, int fd, uint64_t umask_, uint64_t size, unsigned flags)
{
	struct file *f;
	uint64_t mask;
	int err = 0;

	if (size != sizeof(mask))
		return -EINVAL;
	if (task_copy_in(t, &mask, umask_, sizeof(mask)))
		return -EFAULT;
	if (flags & ~(unsigned)(SFD_CLOEXEC | SFD_NONBLOCK))
		return -EINVAL;
	mask &= ~SIGMASK_UNBLOCKABLE;
	if (fd == -1) {
		err = signalfd_create(mask, flags & ~(unsigned)SFD_CLOEXEC, &f);
		return err ? err : sys_fd_install(t, f, flags & SFD_CLOEXEC);
	}
	f = sys_fd(t, fd);
	if (!f)
		return -EBADF;
	if (signalfd_is(f))
		signalfd_set_mask(f, mask);
	else
		err = -EINVAL;
	file_unref(f);
	return err ? err : fd;
}

int64_t sys_signalfd(struct task *t, const struct syscall_args *a)
{
	return make_signalfd(t, ARG_INT(0), a->a[1], a->a[2], 0);
}

int64_t sys_signalfd4(struct task *t, const struct syscall_args *a)
{
	return make_signalfd(t, ARG_INT(0), a->a[1], a->a[2], ARG_UINT(3));
}

/* ---- timerfd ---- */

#define CAP_WAKE_ALARM_ 35

int64_t sys_timerfd_create(struct task *t, const struct syscall_args *a)
{
	int clock = ARG_INT(0);
	unsigned flags = ARG_UINT(1);
	struct file *f;
	int err;

	if (flags & ~(unsigned)(TFD_CLOEXEC | TFD_NONBLOCK))
		return -EINVAL;
	switch (clock) {
	case CLOCK_REALTIME:
	case CLOCK_MONOTONIC:
	case CLOCK_BOOTTIME:
		break;
	case CLOCK_REALTIME_ALARM:
	case CLOCK_BOOTTIME_ALARM:
		if (!cred_has_cap(t->cred, CAP_WAKE_ALARM_))
			return -EPERM;
		break;
	default:
		return -EINVAL;
	}
	err = timerfd_create_file(clock, flags & ~(unsigned)TFD_CLOEXEC, &f);
	return err ? err : sys_fd_install(t, f, flags & TFD_CLOEXEC);
}

static bool timespec_valid(const struct timespec *ts)
{
	return ts->tv_sec >= 0 && (uint64_t)ts->tv_nsec < 1000000000;
}

int64_t sys_timerfd_settime(struct task *t, const struct syscall_args *a)
{
	struct itimerspec value, old;
	int flags = ARG_INT(1);
	struct file *f;
	int err;

	if (task_copy_in(t, &value, a->a[2], sizeof(value)))
		return -EFAULT;
	if ((flags & ~(TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET)) ||
	    !timespec_valid(&value.it_value) || !timespec_valid(&value.it_interval))
		return -EINVAL;
	f = sys_fd(t, ARG_INT(0));
	if (!f)
		return -EBADF;
	err = timerfd_is(f) ? timerfd_settime_file(f, flags, &value, &old) : -EINVAL;
	file_unref(f);
	if (!err && a->a[3])
		err = task_copy_out(t, a->a[3], &old, sizeof(old));
	return err;
}

int64_t sys_timerfd_gettime(struct task *t, const struct syscall_args *a)
{
	struct file *f = sys_fd(t, ARG_INT(0));
	struct itimerspec value;
	int err = 0;

	if (!f)
		return -EBADF;
	if (timerfd_is(f))
		timerfd_gettime_file(f, &value);
	else
		err = -EINVAL;
	file_unref(f);
	return err ? err : task_copy_out(t, a->a[1], &value, sizeof(value));
}

/* ---- memfd ---- */

#define MFD_NAME_PREFIX "memfd:"
#define MFD_NAME_MAX (VFS_NAME_MAX - sizeof(MFD_NAME_PREFIX) + 1)
#define MFD_NOEXEC_SEAL_ 8u
#define MFD_EXEC_ 16u

int64_t sys_memfd_create(struct task *t, const struct syscall_args *a)
{
	char name[VFS_NAME_MAX + 1] = MFD_NAME_PREFIX;
	unsigned flags = ARG_UINT(1), kind = 0;
	struct file *f;
	ssize_t len;
	int err;

	if (flags & ~(MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB | MFD_NOEXEC_SEAL_ | MFD_EXEC_ |
		      (flags & MFD_HUGETLB ? 0x3fu << 26 : 0)))
		return -EINVAL;
	if ((flags & MFD_EXEC_) && (flags & MFD_NOEXEC_SEAL_))
		return -EINVAL;
	len = mm_copy_in_string(t->mm, name + strlen(MFD_NAME_PREFIX), a->a[0], MFD_NAME_MAX);
	if (len < 0)
		return len == -ENAMETOOLONG ? -EINVAL : len;
	/* As without CONFIG_HUGETLBFS. */
	if (flags & MFD_HUGETLB)
		return -ENOSYS;
	if (flags & (MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL_))
		kind |= MEMFS_FILE_SEALABLE;
	if (flags & MFD_NOEXEC_SEAL_)
		kind |= MEMFS_FILE_NOEXEC;
	err = memfs_create_unlinked_file(memfs_internal_mount(), name, kind, &f);
	return err ? err : sys_fd_install(t, f, flags & MFD_CLOEXEC);
}

/* ---- inotify ---- */

static int64_t make_inotify(struct task *t, unsigned flags)
{
	const struct anon_args args = {.kind = ANON_INODE, .name = "inotify", .mode = 0600};
	struct vfs_path place;
	struct file *f;
	int err;

	if (flags & ~(unsigned)(IN_CLOEXEC | IN_NONBLOCK))
		return -EINVAL;
	err = anon_path_create(&args, &place);
	if (err)
		return err;
	err = inotify_file_create(&place, flags & ~(unsigned)IN_CLOEXEC, &f);
	vfs_path_unref(&place);
	return err ? err : sys_fd_install(t, f, flags & IN_CLOEXEC);
}

int64_t sys_inotify_init(struct task *t, unused_arg const struct syscall_args *a)
{
	return make_inotify(t, 0);
}

int64_t sys_inotify_init1(struct task *t, const struct syscall_args *a)
{
	return make_inotify(t, ARG_UINT(0));
}

int64_t sys_inotify_add_watch(struct task *t, const struct syscall_args *a)
{
	unsigned mask = ARG_UINT(2), lookup = 0;
	struct vfs_lookup at;
	struct vfs_path place;
	struct sys_path p;
	struct file *f;
	int ret;

	if (!mask || (mask & ~(unsigned)INOTIFY_MASK))
		return -EINVAL;
	f = sys_fd(t, ARG_INT(0));
	if (!f)
		return -EBADF;
	ret = -EINVAL;
	if (((mask & IN_MASK_ADD) && (mask & IN_MASK_CREATE)) || !file_is_inotify(f))
		goto out_unref;
	if (!(mask & IN_DONT_FOLLOW))
		lookup |= LOOKUP_FOLLOW;
	if (mask & IN_ONLYDIR)
		lookup |= LOOKUP_DIRECTORY;
	ret = sys_path_get(t, SYS_AT_FDCWD, a->a[1], lookup, &p);
	if (ret)
		goto out_unref;
	ret = vfs_get_path(&p.lk, &place);
	if (ret)
		goto out_put;
	at = p.lk;
	at.start = place;
	at.path = "";
	at.flags = LOOKUP_EMPTY;
	ret = vfs_access(&at, R_OK);
	if (!ret)
		ret = inotify_file_add_watch(f, &place, mask);
	vfs_path_unref(&place);
out_put:
	sys_path_put(&p);
out_unref:
	file_unref(f);
	return ret;
}

int64_t sys_inotify_rm_watch(struct task *t, const struct syscall_args *a)
{
	struct file *f = sys_fd(t, ARG_INT(0));
	int ret;

	if (!f)
		return -EBADF;
	ret = file_is_inotify(f) ? inotify_file_rm_watch(f, ARG_INT(1)) : -EINVAL;
	file_unref(f);
	return ret;
}
