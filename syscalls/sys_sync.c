/* syscalls/sys_sync.c - sizes, preallocation, write-back and read-ahead hints. */
#include <linux/falloc.h>
#include <linux/fs.h>
#include <signal.h>
#include <sys/stat.h>

#include "syscalls/syscalls.h"
#include "syscalls/util.h"

static uint32_t file_type(struct file *f)
{
	struct dentry *d = f->path.dentry;

	return d ? d->fs->ops->dentry_type(d) : 0;
}

/* inode_newsize_ok: growing past RLIMIT_FSIZE is -EFBIG and SIGXFSZ. `old` is asked for only then. */
static int check_fsize(struct task *t, uint64_t size, uint64_t old)
{
	if (size <= old || size <= task_rlimit(t, RLIMIT_FSIZE))
		return 0;
	(void)signal_send_self(t, SIGXFSZ);
	return -EFBIG;
}

int64_t sys_truncate(struct task *t, const struct syscall_args *a)
{
	struct setattr_args sa = {.valid = SETATTR_SIZE, .size = a->a[1]};
	struct moat_statx st = {0};
	struct sys_path p;
	int err;

	if (ARG_LONG(1) < 0)
		return -EINVAL;
	err = sys_path_get(t, SYS_AT_FDCWD, a->a[0], LOOKUP_FOLLOW, &p);
	if (err)
		return err;
	err = vfs_stat(&p.lk, &(struct stat_args){.mask = STATX_TYPE | STATX_SIZE}, &st);
	if (err)
		goto out_put;
	err = -EISDIR;
	if (S_ISDIR(st.mode))
		goto out_put;
	err = -EINVAL;
	if (!S_ISREG(st.mode))
		goto out_put;
	err = check_fsize(t, sa.size, st.size);
	if (err)
		goto out_put;
	err = vfs_set_stat(&p.lk, &sa);
out_put:
	sys_path_put(&p);
	return err;
}

int64_t sys_ftruncate(struct task *t, const struct syscall_args *a)
{
	struct moat_statx st = {0};
	struct file *f;
	int err;

	if (ARG_LONG(1) < 0)
		return -EINVAL;
	f = sys_fd(t, ARG_INT(0));
	if (!f)
		return -EBADF;
	err = -EINVAL;
	if (!S_ISREG(file_type(f)) || !(f->mode & FILE_WRITE))
		goto out_unref;
	if (a->a[1] > task_rlimit(t, RLIMIT_FSIZE)) {
		err = file_stat(f, &(struct stat_args){.mask = STATX_SIZE}, &st);
		if (!err)
			err = check_fsize(t, a->a[1], st.size);
		if (err)
			goto out_unref;
	}
	err = file_truncate(f, a->a[1]);
out_unref:
	file_unref(f);
	return err;
}

/* vfs_fallocate's view of the mode bits. */
static int check_falloc_mode(int mode)
{
	const int known = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_COLLAPSE_RANGE |
			  FALLOC_FL_ZERO_RANGE | FALLOC_FL_INSERT_RANGE | FALLOC_FL_UNSHARE_RANGE;

	if (mode & ~known)
		return -EOPNOTSUPP;
	switch (mode & ~FALLOC_FL_KEEP_SIZE) {
	case 0:
	case FALLOC_FL_ZERO_RANGE:
	case FALLOC_FL_UNSHARE_RANGE:
		return 0;
	case FALLOC_FL_PUNCH_HOLE:
		return mode & FALLOC_FL_KEEP_SIZE ? 0 : -EOPNOTSUPP;
	case FALLOC_FL_COLLAPSE_RANGE:
	case FALLOC_FL_INSERT_RANGE:
		return mode & FALLOC_FL_KEEP_SIZE ? -EOPNOTSUPP : 0;
	default:
		return -EOPNOTSUPP;
	}
}

int64_t sys_fallocate(struct task *t, const struct syscall_args *a)
{
	int64_t off = ARG_LONG(2), size = ARG_LONG(3), end;
	struct file *f = sys_fd(t, ARG_INT(0));
	struct moat_statx st = {0};
	int mode = ARG_INT(1), err;
	uint32_t type;

	if (!f)
		return -EBADF;
	err = -EINVAL;
	if (off < 0 || size <= 0)
		goto out_unref;
	err = check_falloc_mode(mode);
	if (err)
		goto out_unref;
	err = -EBADF;
	if (!(f->mode & FILE_WRITE))
		goto out_unref;
	type = file_type(f);
	err = S_ISFIFO(type) ? -ESPIPE : S_ISDIR(type) ? -EISDIR : -ENODEV;
	if (!S_ISREG(type) && !S_ISBLK(type))
		goto out_unref;
	err = -EFBIG;
	if (__builtin_add_overflow(off, size, &end))
		goto out_unref;
	if (!(mode & FALLOC_FL_KEEP_SIZE) && (uint64_t)end > task_rlimit(t, RLIMIT_FSIZE)) {
		err = file_stat(f, &(struct stat_args){.mask = STATX_SIZE}, &st);
		if (!err)
			err = check_fsize(t, (uint64_t)end, st.size);
		if (err)
			goto out_unref;
	}
	err = file_fallocate(f, mode, (uint64_t)off, (uint64_t)size);
out_unref:
	file_unref(f);
	return sys_restart(err);
}

static int64_t fsync_fd(struct task *t, int fd, bool data_only)
{
	struct file *f = sys_fd(t, fd);
	int err;

	if (!f)
		return -EBADF;
	err = file_fsync(f, data_only, 0, INT64_MAX);
	file_unref(f);
	return err;
}

int64_t sys_fsync(struct task *t, const struct syscall_args *a)
{
	return fsync_fd(t, ARG_INT(0), false);
}

int64_t sys_fdatasync(struct task *t, const struct syscall_args *a)
{
	return fsync_fd(t, ARG_INT(0), true);
}

int64_t sys_syncfs(struct task *t, const struct syscall_args *a)
{
	struct file *f = sys_fd(t, ARG_INT(0));
	struct filesystem *fs;
	int err;

	if (!f)
		return -EBADF;
	fs = f->path.mount->fs;
	err = fs->ops->sync ? fs->ops->sync(fs) : 0;
	file_unref(f);
	return err;
}

int64_t sys_sync_file_range(struct task *t, const struct syscall_args *a)
{
	int64_t off = ARG_LONG(1), size = ARG_LONG(2), end;
	struct file *f = sys_fd(t, ARG_INT(0));
	uint32_t type;
	int err;

	if (!f)
		return -EBADF;
	err = -EINVAL;
	if (ARG_UINT(3) & ~(unsigned)(SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
				      SYNC_FILE_RANGE_WAIT_AFTER))
		goto out_unref;
	if (off < 0 || size < 0 || __builtin_add_overflow(off, size, &end))
		goto out_unref;
	type = file_type(f);
	err = -ESPIPE;
	if (!S_ISREG(type) && !S_ISBLK(type) && !S_ISDIR(type) && !S_ISLNK(type))
		goto out_unref;
	err = 0;
	if (ARG_UINT(3) & SYNC_FILE_RANGE_WRITE)
		err = file_fsync(f, true, (uint64_t)off, size ? (uint64_t)end : INT64_MAX);
out_unref:
	file_unref(f);
	return err;
}

/* Hints: the host's page cache reads ahead by itself; only the checks are ours. */
int64_t sys_readahead(struct task *t, const struct syscall_args *a)
{
	struct file *f = sys_fd(t, ARG_INT(0));
	int err = 0;

	if (!f)
		return -EBADF;
	if (!(f->mode & FILE_READ))
		err = -EBADF;
	else if (!S_ISREG(file_type(f)) && !S_ISBLK(file_type(f)))
		err = -EINVAL;
	file_unref(f);
	return err;
}

int64_t sys_fadvise64(struct task *t, const struct syscall_args *a)
{
	struct file *f = sys_fd(t, ARG_INT(0));
	int err = 0;

	if (!f)
		return -EBADF;
	if (S_ISFIFO(file_type(f)))
		err = -ESPIPE;
	else if (ARG_LONG(2) < 0 || ARG_UINT(3) > POSIX_FADV_NOREUSE)
		err = -EINVAL;
	file_unref(f);
	return err;
}

static int sync_fs(struct filesystem *fs)
{
	return fs->ops->sync ? fs->ops->sync(fs) : 0;
}

/* The filesystems that the caller stands on; no other keeps dirty data in the sentry. sync(2) has no errors. */
int64_t sys_sync(struct task *t, unused_arg const struct syscall_args *a)
{
	struct vfs_path p[2];

	fs_context_get_root(t->fsctx, &p[0]);
	fs_context_get_cwd(t->fsctx, &p[1]);
	for (int i = 0; i < 2; i++)
		if (!i || p[1].mount->fs != p[0].mount->fs)
			(void)sync_fs(p[i].mount->fs);
	vfs_path_unref(&p[1]);
	vfs_path_unref(&p[0]);
	return 0;
}
