/* syscalls/sys_attr.c - attributes changed: modes, owners, times, umask. */
#include <fcntl.h>
#include <sys/stat.h>

#include "syscalls/syscalls.h"
#include "syscalls/util.h"

static unsigned at_lookup(unsigned flags)
{
	return (flags & AT_SYMLINK_NOFOLLOW ? 0 : LOOKUP_FOLLOW) |
	       (flags & AT_EMPTY_PATH ? LOOKUP_EMPTY : 0);
}

static int64_t setattr_at(struct task *t, int dirfd, uint64_t upath, unsigned flags,
			  const struct setattr_args *sa)
{
	struct sys_path p;
	int err;

	if (flags & ~(unsigned)(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH))
		return -EINVAL;
	err = sys_path_get(t, dirfd, upath, at_lookup(flags), &p);
	if (err)
		return err;
	/* A bare descriptor of a nameless file (pipe, socket) is no path: its own operation. */
	err = p.empty && p.file ? file_set_stat(p.file, sa) : vfs_set_stat(&p.lk, sa);
	sys_path_put(&p);
	return err;
}

static int64_t setattr_fd(struct task *t, int fd, const struct setattr_args *sa)
{
	struct file *f = sys_fd(t, fd);
	int err;

	if (!f)
		return -EBADF;
	err = file_set_stat(f, sa);
	file_unref(f);
	return err;
}

static struct setattr_args mode_args(uint32_t mode)
{
	return (struct setattr_args){.valid = SETATTR_MODE, .mode = mode & 07777};
}

int64_t sys_chmod(struct task *t, const struct syscall_args *a)
{
	struct setattr_args sa = mode_args(ARG_UINT(1));

	return setattr_at(t, SYS_AT_FDCWD, a->a[0], 0, &sa);
}

int64_t sys_fchmod(struct task *t, const struct syscall_args *a)
{
	struct setattr_args sa = mode_args(ARG_UINT(1));

	return setattr_fd(t, ARG_INT(0), &sa);
}

int64_t sys_fchmodat(struct task *t, const struct syscall_args *a)
{
	struct setattr_args sa = mode_args(ARG_UINT(2));

	return setattr_at(t, ARG_INT(0), a->a[1], 0, &sa);
}

int64_t sys_fchmodat2(struct task *t, const struct syscall_args *a)
{
	struct setattr_args sa = mode_args(ARG_UINT(2));

	return setattr_at(t, ARG_INT(0), a->a[1], ARG_UINT(3), &sa);
}

static struct setattr_args owner_args(uint32_t uid, uint32_t gid)
{
	struct setattr_args sa = {.uid = uid, .gid = gid};

	if (uid != UINT32_MAX)
		sa.valid |= SETATTR_UID;
	if (gid != UINT32_MAX)
		sa.valid |= SETATTR_GID;
	return sa;
}

int64_t sys_chown(struct task *t, const struct syscall_args *a)
{
	struct setattr_args sa = owner_args(ARG_UINT(1), ARG_UINT(2));

	return setattr_at(t, SYS_AT_FDCWD, a->a[0], 0, &sa);
}

int64_t sys_lchown(struct task *t, const struct syscall_args *a)
{
	struct setattr_args sa = owner_args(ARG_UINT(1), ARG_UINT(2));

	return setattr_at(t, SYS_AT_FDCWD, a->a[0], AT_SYMLINK_NOFOLLOW, &sa);
}

int64_t sys_fchown(struct task *t, const struct syscall_args *a)
{
	struct setattr_args sa = owner_args(ARG_UINT(1), ARG_UINT(2));

	return setattr_fd(t, ARG_INT(0), &sa);
}

int64_t sys_fchownat(struct task *t, const struct syscall_args *a)
{
	struct setattr_args sa = owner_args(ARG_UINT(2), ARG_UINT(3));

	return setattr_at(t, ARG_INT(0), a->a[1], ARG_UINT(4), &sa);
}

/*
 * vfs_utimes: no times, or "now" twice, is a touch, which writers may do; all else is the owner's, so a single "now" becomes an
 * explicit time.
 */
static int times_args(const struct moat_timespec *ts, struct setattr_args *ret)
{
	struct moat_timestamp now = vfs_now();

	*ret = (struct setattr_args){0};
	if (!ts || (ts[0].nsec == UTIME_NOW && ts[1].nsec == UTIME_NOW)) {
		ret->valid = SETATTR_ATIME_NOW | SETATTR_MTIME_NOW;
		return 0;
	}
	for (int i = 0; i < 2; i++) {
		struct moat_timestamp *to = i ? &ret->mtime : &ret->atime;

		if (ts[i].nsec == UTIME_OMIT)
			continue;
		if (ts[i].nsec == UTIME_NOW)
			*to = now;
		else if (ts[i].nsec < 0 || ts[i].nsec > 999999999)
			return -EINVAL;
		else
			*to = (struct moat_timestamp){.sec = ts[i].sec,
						      .nsec = (uint32_t)ts[i].nsec};
		ret->valid |= i ? SETATTR_MTIME : SETATTR_ATIME;
	}
	return 0;
}

/* do_utimes: a NULL path with a descriptor is that descriptor. */
static int64_t utimes_at(struct task *t, int dirfd, uint64_t upath, const struct moat_timespec *ts,
			 unsigned flags)
{
	struct setattr_args sa;
	int err = times_args(ts, &sa);

	if (err)
		return err;
	if (!upath && dirfd != SYS_AT_FDCWD)
		return flags ? -EINVAL : setattr_fd(t, dirfd, &sa);
	return setattr_at(t, dirfd, upath, flags, &sa);
}

int64_t sys_utimensat(struct task *t, const struct syscall_args *a)
{
	struct moat_timespec ts[2];

	if (!a->a[2])
		return utimes_at(t, ARG_INT(0), a->a[1], NULL, ARG_UINT(3));
	if (task_copy_in(t, ts, a->a[2], sizeof(ts)))
		return -EFAULT;
	/* Nothing to do: not even the path is looked at. */
	if (ts[0].nsec == UTIME_OMIT && ts[1].nsec == UTIME_OMIT)
		return 0;
	return utimes_at(t, ARG_INT(0), a->a[1], ts, ARG_UINT(3));
}

static int64_t utimes_timeval(struct task *t, int dirfd, uint64_t upath, uint64_t utimes)
{
	struct moat_timespec ts[2];
	struct moat_timeval tv[2];

	if (!utimes)
		return utimes_at(t, dirfd, upath, NULL, 0);
	if (task_copy_in(t, tv, utimes, sizeof(tv)))
		return -EFAULT;
	for (int i = 0; i < 2; i++) {
		if (tv[i].usec < 0 || tv[i].usec >= 1000000)
			return -EINVAL;
		ts[i] = (struct moat_timespec){tv[i].sec, tv[i].usec * 1000};
	}
	return utimes_at(t, dirfd, upath, ts, 0);
}

int64_t sys_utimes(struct task *t, const struct syscall_args *a)
{
	return utimes_timeval(t, SYS_AT_FDCWD, a->a[0], a->a[1]);
}

int64_t sys_futimesat(struct task *t, const struct syscall_args *a)
{
	return utimes_timeval(t, ARG_INT(0), a->a[1], a->a[2]);
}

int64_t sys_utime(struct task *t, const struct syscall_args *a)
{
	struct moat_timespec ts[2] = {0};
	int64_t sec[2];

	if (!a->a[1])
		return utimes_at(t, SYS_AT_FDCWD, a->a[0], NULL, 0);
	if (task_copy_in(t, sec, a->a[1], sizeof(sec)))
		return -EFAULT;
	ts[0].sec = sec[0];
	ts[1].sec = sec[1];
	return utimes_at(t, SYS_AT_FDCWD, a->a[0], ts, 0);
}

int64_t sys_umask(struct task *t, const struct syscall_args *a)
{
	return fs_context_set_umask(t->fsctx, ARG_UINT(0) & 0777);
}
