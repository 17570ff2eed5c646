/* syscalls/sys_dir.c - names: creation, removal, renaming, links, and reading directories. */
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "syscalls/syscalls.h"
#include "syscalls/util.h"

#define DIRENT_BUF_MAX 65536u /* what one getdents gathers before it copies out */

static int64_t mkdir_at(struct task *t, int dirfd, uint64_t upath, uint32_t mode)
{
	struct mkdir_args args = {.mode = mode & 01777, .umask = fs_context_umask(t->fsctx)};
	struct sys_path p;
	int err = sys_path_get(t, dirfd, upath, 0, &p);

	if (err)
		return err;
	err = vfs_mkdir(&p.lk, &args);
	sys_path_put(&p);
	return err;
}

int64_t sys_mkdir(struct task *t, const struct syscall_args *a)
{
	return mkdir_at(t, SYS_AT_FDCWD, a->a[0], ARG_UINT(1));
}

int64_t sys_mkdirat(struct task *t, const struct syscall_args *a)
{
	return mkdir_at(t, ARG_INT(0), a->a[1], ARG_UINT(2));
}

static int64_t mknod_at(struct task *t, int dirfd, uint64_t upath, uint32_t mode, uint32_t dev)
{
	struct mknod_args args = {
		.mode = mode & (S_IFMT | 07777),
		.umask = fs_context_umask(t->fsctx),
		.rdev_major = (dev & 0xfff00) >> 8,
		.rdev_minor = (dev & 0xff) | ((dev >> 12) & 0xfff00),
	};
	struct sys_path p;
	int err;

	switch (mode & S_IFMT) {
	case 0:
		args.mode |= S_IFREG;
		break;
	case S_IFREG:
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		break;
	case S_IFDIR:
		return -EPERM;
	default:
		return -EINVAL;
	}
	if (!S_ISCHR(args.mode) && !S_ISBLK(args.mode))
		args.rdev_major = args.rdev_minor = 0;
	err = sys_path_get(t, dirfd, upath, 0, &p);
	if (err)
		return err;
	err = vfs_mknod(&p.lk, &args);
	sys_path_put(&p);
	return err;
}

int64_t sys_mknod(struct task *t, const struct syscall_args *a)
{
	return mknod_at(t, SYS_AT_FDCWD, a->a[0], ARG_UINT(1), ARG_UINT(2));
}

int64_t sys_mknodat(struct task *t, const struct syscall_args *a)
{
	return mknod_at(t, ARG_INT(0), a->a[1], ARG_UINT(2), ARG_UINT(3));
}

static int64_t remove_at(struct task *t, int dirfd, uint64_t upath, bool isdir)
{
	struct sys_path p;
	int err = sys_path_get(t, dirfd, upath, 0, &p);

	if (err)
		return err;
	err = isdir ? vfs_rmdir(&p.lk) : vfs_unlink(&p.lk);
	sys_path_put(&p);
	return err;
}

int64_t sys_rmdir(struct task *t, const struct syscall_args *a)
{
	return remove_at(t, SYS_AT_FDCWD, a->a[0], true);
}

int64_t sys_unlink(struct task *t, const struct syscall_args *a)
{
	return remove_at(t, SYS_AT_FDCWD, a->a[0], false);
}

int64_t sys_unlinkat(struct task *t, const struct syscall_args *a)
{
	if (ARG_UINT(2) & ~(unsigned)AT_REMOVEDIR)
		return -EINVAL;
	return remove_at(t, ARG_INT(0), a->a[1], ARG_UINT(2) & AT_REMOVEDIR);
}

static int64_t rename_at(struct task *t, int olddir, uint64_t uold, int newdir, uint64_t unew,
			 unsigned flags)
{
	struct rename_args args = {.flags = flags};
	struct sys_path from, to;
	int err;

	if (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT))
		return -EINVAL;
	if ((flags & (RENAME_NOREPLACE | RENAME_WHITEOUT)) && (flags & RENAME_EXCHANGE))
		return -EINVAL;
	err = sys_path_get(t, olddir, uold, 0, &from);
	if (err)
		return err;
	err = sys_path_get(t, newdir, unew, 0, &to);
	if (err)
		goto out_from;
	err = vfs_rename(&from.lk, &to.lk, &args);
	sys_path_put(&to);
out_from:
	sys_path_put(&from);
	return err;
}

int64_t sys_rename(struct task *t, const struct syscall_args *a)
{
	return rename_at(t, SYS_AT_FDCWD, a->a[0], SYS_AT_FDCWD, a->a[1], 0);
}

int64_t sys_renameat(struct task *t, const struct syscall_args *a)
{
	return rename_at(t, ARG_INT(0), a->a[1], ARG_INT(2), a->a[3], 0);
}

int64_t sys_renameat2(struct task *t, const struct syscall_args *a)
{
	return rename_at(t, ARG_INT(0), a->a[1], ARG_INT(2), a->a[3], ARG_UINT(4));
}

static int64_t link_at(struct task *t, int olddir, uint64_t uold, int newdir, uint64_t unew,
		       unsigned flags)
{
	struct sys_path from, to;
	unsigned lookup = 0;
	int err;

	if (flags & ~(unsigned)(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH))
		return -EINVAL;
	if (flags & AT_SYMLINK_FOLLOW)
		lookup |= LOOKUP_FOLLOW;
	if (flags & AT_EMPTY_PATH)
		lookup |= LOOKUP_EMPTY;
	err = sys_path_get(t, olddir, uold, lookup, &from);
	if (err)
		return err;
	/* Without the capability only an opener with the same credentials may link a bare descriptor. */
	err = -ENOENT;
	if (from.empty && !cred_has_cap(t->cred, 2 /* CAP_DAC_READ_SEARCH */) &&
	    !(from.file && from.file->cred && from.file->cred->id == t->cred->id))
		goto out_from;
	err = sys_path_get(t, newdir, unew, 0, &to);
	if (err)
		goto out_from;
	err = vfs_link(&from.lk, &to.lk);
	sys_path_put(&to);
out_from:
	sys_path_put(&from);
	return err;
}

int64_t sys_link(struct task *t, const struct syscall_args *a)
{
	return link_at(t, SYS_AT_FDCWD, a->a[0], SYS_AT_FDCWD, a->a[1], 0);
}

int64_t sys_linkat(struct task *t, const struct syscall_args *a)
{
	return link_at(t, ARG_INT(0), a->a[1], ARG_INT(2), a->a[3], ARG_UINT(4));
}

static int64_t symlink_at(struct task *t, uint64_t utarget, int dirfd, uint64_t upath)
{
	char target[VFS_PATH_MAX];
	struct sys_path p;
	ssize_t len = mm_copy_in_string(t->mm, target, utarget, sizeof(target));
	int err;

	if (len <= 0)
		return len ? len : -ENOENT;
	err = sys_path_get(t, dirfd, upath, 0, &p);
	if (err)
		return err;
	err = vfs_symlink(&p.lk, target);
	sys_path_put(&p);
	return err;
}

int64_t sys_symlink(struct task *t, const struct syscall_args *a)
{
	return symlink_at(t, a->a[0], SYS_AT_FDCWD, a->a[1]);
}

int64_t sys_symlinkat(struct task *t, const struct syscall_args *a)
{
	return symlink_at(t, a->a[0], ARG_INT(1), a->a[2]);
}

static int64_t readlink_at(struct task *t, int dirfd, uint64_t upath, uint64_t ubuf, int size)
{
	char target[VFS_PATH_MAX];
	struct sys_path p;
	size_t len;
	int err;

	if (size <= 0)
		return -EINVAL;
	err = sys_path_get(t, dirfd, upath, LOOKUP_EMPTY, &p);
	if (err)
		return err;
	if (p.empty && dirfd == SYS_AT_FDCWD) {
		err = -ENOENT;
		goto out_put;
	}
	err = vfs_readlink(&p.lk, target, sizeof(target), &len);
	if (err == -EINVAL && p.empty)
		err = -ENOENT;
	if (err)
		goto out_put;
	len = MIN(len, (size_t)size);
	err = task_copy_out(t, ubuf, target, len) ? -EFAULT : (int)len;
out_put:
	sys_path_put(&p);
	return err;
}

int64_t sys_readlink(struct task *t, const struct syscall_args *a)
{
	return readlink_at(t, SYS_AT_FDCWD, a->a[0], a->a[1], ARG_INT(2));
}

int64_t sys_readlinkat(struct task *t, const struct syscall_args *a)
{
	return readlink_at(t, ARG_INT(0), a->a[1], a->a[2], ARG_INT(3));
}

/* ---- getdents: entries are gathered in sentry memory, because directories are locked while they emit ---- */

struct dirent_buf {
	struct dir_emit ctx;
	char *data;
	size_t used, size;
	bool full; /* an entry did not fit */
	bool is64;
};

/* struct linux_dirent64; struct linux_dirent has the type in its last byte instead. */
struct dirent_head {
	uint64_t ino;
	int64_t off;
	uint16_t reclen;
} __attribute__((packed));

static bool dirent_emit(struct dir_emit *ctx, const char *name, size_t len, uint64_t ino,
			unsigned type, int64_t next)
{
	struct dirent_buf *b = container_of(ctx, struct dirent_buf, ctx);
	size_t head = sizeof(struct dirent_head) + (b->is64 ? 1 : 0);
	size_t reclen = round_up_u64(head + len + (b->is64 ? 1 : 2), 8);
	struct dirent_head h = {.ino = ino, .off = next, .reclen = (uint16_t)reclen};
	char *at = b->data + b->used;

	if (reclen > b->size - b->used) {
		b->full = true;
		return false;
	}
	memset(at, 0, reclen);
	memcpy(at, &h, sizeof(h));
	memcpy(at + head, name, len);
	at[b->is64 ? sizeof(h) : reclen - 1] = (char)type;
	b->used += reclen;
	return true;
}

static int64_t getdents(struct task *t, int fd, uint64_t uaddr, unsigned count, bool is64)
{
	struct dirent_buf b = {
		.ctx = {.emit = dirent_emit},
		.size = MIN(count, DIRENT_BUF_MAX),
		.is64 = is64,
	};
	struct file *f = sys_fd(t, fd);
	int64_t ret;

	if (!f)
		return -EBADF;
	b.data = malloc(MAX(b.size, 1ul));
	if (!b.data) {
		file_unref(f);
		return -ENOMEM;
	}
	ret = file_iterate(f, &b.ctx);
	if (b.used)
		ret = task_copy_out(t, uaddr, b.data, b.used) ? -EFAULT : (int64_t)b.used;
	else if (!ret && b.full)
		ret = -EINVAL;
	free(b.data);
	file_unref(f);
	return ret;
}

int64_t sys_getdents(struct task *t, const struct syscall_args *a)
{
	return getdents(t, ARG_INT(0), a->a[1], ARG_UINT(2), false);
}

int64_t sys_getdents64(struct task *t, const struct syscall_args *a)
{
	return getdents(t, ARG_INT(0), a->a[1], ARG_UINT(2), true);
}
