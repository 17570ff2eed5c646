/* syscalls/sys_open.c - open and close, and the copies of descriptors. */
#include <linux/close_range.h>
#include <linux/openat2.h>

#include "fsimpl/pipe/pipe.h"
#include "syscalls/syscalls.h"
#include "syscalls/util.h"

#define OPEN_PATH_FLAGS (O_DIRECTORY | O_NOFOLLOW | O_PATH | O_CLOEXEC)
#define OPEN_VALID_FLAGS                                                                         \
	(O_ACCMODE | O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_APPEND | O_NONBLOCK | O_SYNC |    \
	 O_DSYNC | O_ASYNC | O_DIRECT | SYS_O_LARGEFILE | O_DIRECTORY | O_NOFOLLOW | O_NOATIME | \
	 O_CLOEXEC | O_PATH | SYS_O_TMPFILE)
#define RESOLVE_VALID                                                                      \
	(RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH | \
	 RESOLVE_IN_ROOT | RESOLVE_CACHED)

static bool flags_write(uint64_t flags)
{
	return (flags & O_ACCMODE) == O_WRONLY || (flags & O_ACCMODE) == O_RDWR;
}

/* build_open_flags: checks `how` and gives the lookup flags it asks for. Return: 0, -EINVAL, -EAGAIN. */
static int check_open_how(struct open_how *how, unsigned *ret_lookup)
{
	uint64_t flags = how->flags;
	unsigned lookup = 0;

	if ((flags & ~(uint64_t)OPEN_VALID_FLAGS) || (how->resolve & ~(uint64_t)RESOLVE_VALID))
		return -EINVAL;
	if ((how->resolve & RESOLVE_BENEATH) && (how->resolve & RESOLVE_IN_ROOT))
		return -EINVAL;
	if (flags & (O_CREAT | SYS_O_TMPFILE) ? how->mode & ~07777ull : how->mode != 0)
		return -EINVAL;
	if ((flags & (O_DIRECTORY | O_CREAT)) == (O_DIRECTORY | O_CREAT))
		return -EINVAL;
	if ((flags & SYS_O_TMPFILE) && (!(flags & O_DIRECTORY) || !flags_write(flags)))
		return -EINVAL;
	if ((flags & O_PATH) && (flags & ~(uint64_t)OPEN_PATH_FLAGS))
		return -EINVAL;
	if ((how->resolve & RESOLVE_CACHED) && (flags & (O_TRUNC | O_CREAT | SYS_O_TMPFILE)))
		return -EAGAIN;
	if (flags & (O_SYNC & ~O_DSYNC))
		how->flags |= O_DSYNC;
	if (flags & O_DIRECTORY)
		lookup |= LOOKUP_DIRECTORY;
	if (!(flags & O_NOFOLLOW) && (flags & (O_CREAT | O_EXCL)) != (O_CREAT | O_EXCL))
		lookup |= LOOKUP_FOLLOW;
	if (how->resolve & RESOLVE_NO_XDEV)
		lookup |= LOOKUP_NO_XDEV;
	if (how->resolve & RESOLVE_NO_MAGICLINKS)
		lookup |= LOOKUP_NO_MAGICLINKS;
	if (how->resolve & RESOLVE_NO_SYMLINKS)
		lookup |= LOOKUP_NO_SYMLINKS;
	if (how->resolve & RESOLVE_BENEATH)
		lookup |= LOOKUP_BENEATH;
	if (how->resolve & RESOLVE_IN_ROOT)
		lookup |= LOOKUP_IN_ROOT;
	if (how->resolve & RESOLVE_CACHED)
		lookup |= LOOKUP_CACHED;
	*ret_lookup = lookup;
	return 0;
}

/* do_sys_openat2: the descriptor comes first, so that -EMFILE creates nothing. */
static int64_t open_common(struct task *t, int dirfd, uint64_t upath, struct open_how *how)
{
	struct open_args args;
	struct sys_path p;
	struct file *f;
	unsigned lookup;
	int fd, err;

	err = check_open_how(how, &lookup);
	if (err)
		return err;
	err = sys_path_get(t, dirfd, upath, lookup, &p);
	if (err)
		return err;
	fd = fd_reserve(t->fdtable, 0, sys_fd_limit(t), how->flags & O_CLOEXEC);
	if (fd < 0) {
		err = fd;
		goto out_put;
	}
	args = (struct open_args){
		.flags = (unsigned)how->flags & ~(unsigned)O_CLOEXEC,
		.mode = (uint32_t)how->mode,
		.umask = fs_context_umask(t->fsctx),
	};
	err = vfs_open(&p.lk, &args, &f);
	/* What is not there is not in the cache: a tmpfs keeps no negative entries, and elsewhere it may be asked for. */
	if (err == -ENOENT && (lookup & LOOKUP_CACHED))
		err = -EAGAIN;
	if (!err && !(args.flags & O_PATH)) {
		err = pipe_open_wait(f);
		if (err)
			file_unref(f);
	}
	if (err) {
		fd_cancel(t->fdtable, fd);
		goto out_put;
	}
	fd_commit(t->fdtable, fd, f);
	file_unref(f);
	err = fd;
out_put:
	sys_path_put(&p);
	/* A FIFO's open waits for its other end. */
	return sys_restart(err);
}

/* open(2) ignores what it does not know, as it always has. */
static int64_t open_legacy(struct task *t, int dirfd, uint64_t upath, int flags, uint32_t mode)
{
	struct open_how how = {
		.flags = (unsigned)(flags | SYS_O_LARGEFILE) & (unsigned)OPEN_VALID_FLAGS,
		.mode = mode & 07777,
	};

	if (how.flags & O_PATH)
		how.flags &= OPEN_PATH_FLAGS;
	if (!(how.flags & (O_CREAT | SYS_O_TMPFILE)))
		how.mode = 0;
	return open_common(t, dirfd, upath, &how);
}

int64_t sys_open(struct task *t, const struct syscall_args *a)
{
	return open_legacy(t, SYS_AT_FDCWD, a->a[0], ARG_INT(1), ARG_UINT(2));
}

int64_t sys_creat(struct task *t, const struct syscall_args *a)
{
	return open_legacy(t, SYS_AT_FDCWD, a->a[0], O_CREAT | O_WRONLY | O_TRUNC, ARG_UINT(1));
}

int64_t sys_openat(struct task *t, const struct syscall_args *a)
{
	return open_legacy(t, ARG_INT(0), a->a[1], ARG_INT(2), ARG_UINT(3));
}

int64_t sys_openat2(struct task *t, const struct syscall_args *a)
{
	uint64_t usize = a->a[3];
	struct open_how how;
	int err;

	if (usize < 24) /* OPEN_HOW_SIZE_VER0 */
		return -EINVAL;
	if (usize > MOAT_PAGE_SIZE)
		return -E2BIG;
	err = sys_copy_struct_in(t, &how, sizeof(how), a->a[2], usize);
	if (err)
		return err;
	if (!(how.flags & O_PATH))
		how.flags |= SYS_O_LARGEFILE;
	return open_common(t, ARG_INT(0), a->a[1], &how);
}

int64_t sys_close(struct task *t, const struct syscall_args *a)
{
	int err = fd_close(t->fdtable, ARG_INT(0));

	/* The descriptor is gone: never restarted. */
	return err <= -ERESTARTSYS_ ? -EINTR : err;
}

int64_t sys_close_range(struct task *t, const struct syscall_args *a)
{
	unsigned first = ARG_UINT(0), last = ARG_UINT(1), flags = ARG_UINT(2);
	struct fd_table *copy, *old;
	int err;

	if (flags & ~(unsigned)(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC))
		return -EINVAL;
	if (first > last)
		return -EINVAL;
	if ((flags & CLOSE_RANGE_UNSHARE) && fd_table_shared(t->fdtable)) {
		unsigned max = FD_TABLE_MAX;

		/* What would be closed at once need not be copied. */
		if (!(flags & CLOSE_RANGE_CLOEXEC) && last >= FD_TABLE_MAX - 1)
			max = first;
		err = fd_table_fork(t->fdtable, &copy, max);
		if (err)
			return err;
		mutex_lock(&t->lock);
		old = t->fdtable;
		t->fdtable = copy;
		mutex_unlock(&t->lock);
		fd_table_unref(old);
	}
	return fd_close_range(t->fdtable, first, last, flags & CLOSE_RANGE_CLOEXEC);
}

int64_t sys_dup(struct task *t, const struct syscall_args *a)
{
	struct file *f = sys_fd_raw(t, ARG_INT(0));

	return f ? sys_fd_install(t, f, false) : -EBADF;
}

static int64_t dup_at(struct task *t, int oldfd, int newfd, bool cloexec)
{
	struct file *f;
	int fd;

	if ((unsigned)newfd >= sys_fd_limit(t))
		return -EBADF;
	f = sys_fd_raw(t, oldfd);
	if (!f)
		return -EBADF;
	fd = fd_install_at(t->fdtable, f, newfd, sys_fd_limit(t), cloexec);
	file_unref(f);
	return fd;
}

int64_t sys_dup2(struct task *t, const struct syscall_args *a)
{
	struct file *f;

	if (ARG_UINT(0) != ARG_UINT(1))
		return dup_at(t, ARG_INT(0), ARG_INT(1), false);
	f = sys_fd_raw(t, ARG_INT(0));
	if (!f)
		return -EBADF;
	file_unref(f);
	return ARG_INT(1);
}

int64_t sys_dup3(struct task *t, const struct syscall_args *a)
{
	if ((ARG_UINT(2) & ~(unsigned)O_CLOEXEC) || ARG_UINT(0) == ARG_UINT(1))
		return -EINVAL;
	return dup_at(t, ARG_INT(0), ARG_INT(1), ARG_UINT(2) & O_CLOEXEC);
}
