/* syscalls/sys_stat.c - attributes read: stat's descendants, statfs, access. */
#include <linux/stat.h>

#include "abi/stat.h"
#include "syscalls/syscalls.h"
#include "syscalls/util.h"

#define STAT_AT_FLAGS (AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | AT_STATX_SYNC_TYPE)

/* What struct stat needs of statx. */
#define STAT_MASK STATX_BASIC_STATS

static unsigned at_lookup(unsigned flags)
{
	return (flags & AT_SYMLINK_NOFOLLOW ? 0 : LOOKUP_FOLLOW) |
	       (flags & AT_EMPTY_PATH ? LOOKUP_EMPTY : 0) |
	       (flags & AT_NO_AUTOMOUNT ? LOOKUP_NO_AUTOMOUNT : 0);
}

static int stat_fd(struct task *t, int fd, const struct stat_args *args, struct moat_statx *ret)
{
	struct file *f = sys_fd_raw(t, fd);
	int err;

	if (!f)
		return -EBADF;
	err = file_stat(f, args, ret);
	file_unref(f);
	return err;
}

/* vfs_statx: an empty path with AT_EMPTY_PATH is the descriptor itself. Since 6.11 so is a NULL one. */
static int stat_at(struct task *t, int dirfd, uint64_t upath, unsigned flags, uint32_t mask,
		   struct moat_statx *ret)
{
	struct stat_args args = {.mask = mask, .flags = flags & AT_STATX_SYNC_TYPE};
	struct sys_path p;
	ssize_t len;
	int err;

	if (flags & ~(unsigned)STAT_AT_FLAGS)
		return -EINVAL;
	memset(ret, 0, sizeof(*ret));
	if ((flags & AT_EMPTY_PATH) && !upath) {
		if (dirfd >= 0)
			return stat_fd(t, dirfd, &args, ret);
		p.path[0] = '\0';
	} else {
		len = mm_copy_in_string(t->mm, p.path, upath, sizeof(p.path));
		if (len < 0)
			return (int)len;
	}
	if ((flags & AT_EMPTY_PATH) && !p.path[0] && dirfd >= 0)
		return stat_fd(t, dirfd, &args, ret);
	err = sys_path_init(t, dirfd, at_lookup(flags), &p);
	if (err)
		return err;
	err = vfs_stat(&p.lk, &args, ret);
	sys_path_put(&p);
	return err;
}

static uint64_t encode_dev(uint32_t major, uint32_t minor)
{
	return (minor & 0xff) | (major & 0xfff) << 8 | (uint64_t)(minor & ~0xffu) << 12;
}

static int64_t stat_out(struct task *t, const struct moat_statx *sx, uint64_t uaddr)
{
	struct moat_stat st = {
		.dev = encode_dev(sx->dev_major, sx->dev_minor),
		.ino = sx->ino,
		.nlink = sx->nlink,
		.mode = sx->mode,
		.uid = sx->uid,
		.gid = sx->gid,
		.rdev = encode_dev(sx->rdev_major, sx->rdev_minor),
		.size = (int64_t)sx->size,
		.blksize = sx->blksize,
		.blocks = (int64_t)sx->blocks,
		.atime = sx->atime.sec,
		.atime_nsec = sx->atime.nsec,
		.mtime = sx->mtime.sec,
		.mtime_nsec = sx->mtime.nsec,
		.ctime = sx->ctime.sec,
		.ctime_nsec = sx->ctime.nsec,
	};

	return task_copy_out(t, uaddr, &st, sizeof(st));
}

static int64_t stat_common(struct task *t, int dirfd, uint64_t upath, unsigned flags,
			   uint64_t uaddr)
{
	struct moat_statx sx;
	/* As vfs_fstatat(). */
	int err = stat_at(t, dirfd, upath, flags | AT_NO_AUTOMOUNT, STAT_MASK, &sx);

	return err ? err : stat_out(t, &sx, uaddr);
}

int64_t sys_stat(struct task *t, const struct syscall_args *a)
{
	return stat_common(t, SYS_AT_FDCWD, a->a[0], 0, a->a[1]);
}

int64_t sys_lstat(struct task *t, const struct syscall_args *a)
{
	return stat_common(t, SYS_AT_FDCWD, a->a[0], AT_SYMLINK_NOFOLLOW, a->a[1]);
}

int64_t sys_newfstatat(struct task *t, const struct syscall_args *a)
{
	return stat_common(t, ARG_INT(0), a->a[1], ARG_UINT(3), a->a[2]);
}

int64_t sys_fstat(struct task *t, const struct syscall_args *a)
{
	struct stat_args args = {.mask = STAT_MASK};
	struct moat_statx sx = {0};
	int err = stat_fd(t, ARG_INT(0), &args, &sx);

	return err ? err : stat_out(t, &sx, a->a[1]);
}

int64_t sys_statx(struct task *t, const struct syscall_args *a)
{
	unsigned flags = ARG_UINT(2), mask = ARG_UINT(3);
	struct moat_statx sx;
	int err;

	if (mask & STATX__RESERVED)
		return -EINVAL;
	if ((flags & AT_STATX_SYNC_TYPE) == AT_STATX_SYNC_TYPE)
		return -EINVAL;
	err = stat_at(t, ARG_INT(0), a->a[1], flags, mask, &sx);
	return err ? err : task_copy_out(t, a->a[4], &sx, sizeof(sx));
}

static int64_t statfs_path(struct task *t, const struct vfs_path *path, uint64_t uaddr)
{
	struct statfs st = {0};
	int err = vfs_statfs(path, &st);

	return err ? err : task_copy_out(t, uaddr, &st, sizeof(st));
}

int64_t sys_statfs(struct task *t, const struct syscall_args *a)
{
	struct vfs_path place;
	struct sys_path p;
	int64_t ret;

	ret = sys_path_get(t, SYS_AT_FDCWD, a->a[0], LOOKUP_FOLLOW, &p);
	if (ret)
		return ret;
	ret = vfs_get_path(&p.lk, &place);
	sys_path_put(&p);
	if (ret)
		return ret;
	ret = statfs_path(t, &place, a->a[1]);
	vfs_path_unref(&place);
	return ret;
}

int64_t sys_fstatfs(struct task *t, const struct syscall_args *a)
{
	struct file *f = sys_fd_raw(t, ARG_INT(0));
	int64_t ret;

	if (!f)
		return -EBADF;
	ret = statfs_path(t, &f->path, a->a[1]);
	file_unref(f);
	return ret;
}

/* ---- access(2): asks with the real ids ---- */

#define SECBIT_NO_SETUID_FIXUP_ (1u << 2)

/* access_override_creds. Returns a reference. */
static int real_cred(const struct cred *cred, struct cred **ret)
{
	uint64_t caps = cred->cap_effective;
	struct cred *c;
	int err;

	if (!(cred->securebits & SECBIT_NO_SETUID_FIXUP_))
		caps = cred->uid == 0 ? cred->cap_permitted : 0;
	if (cred->fsuid == cred->uid && cred->fsgid == cred->gid && caps == cred->cap_effective) {
		*ret = cred_ref(cred);
		return 0;
	}
	err = cred_prepare(cred, &c);
	if (err)
		return err;
	c->fsuid = cred->uid;
	c->fsgid = cred->gid;
	c->cap_effective = caps;
	cred_commit(c);
	*ret = c;
	return 0;
}

static int64_t access_at(struct task *t, int dirfd, uint64_t upath, int mode, unsigned flags)
{
	struct cred *cred;
	struct sys_path p;
	int err;

	if (mode & ~(R_OK | W_OK | X_OK))
		return -EINVAL;
	if (flags & ~(unsigned)(AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH))
		return -EINVAL;
	if (flags & AT_EACCESS) {
		cred = cred_ref(t->cred);
	} else {
		err = real_cred(t->cred, &cred);
		if (err)
			return err;
	}
	err = sys_path_get(t, dirfd, upath, at_lookup(flags), &p);
	if (err)
		goto out_cred;
	p.lk.cred = cred;
	err = vfs_access(&p.lk, mode);
	sys_path_put(&p);
out_cred:
	cred_unref(cred);
	return err;
}

int64_t sys_access(struct task *t, const struct syscall_args *a)
{
	return access_at(t, SYS_AT_FDCWD, a->a[0], ARG_INT(1), 0);
}

int64_t sys_faccessat(struct task *t, const struct syscall_args *a)
{
	return access_at(t, ARG_INT(0), a->a[1], ARG_INT(2), 0);
}

int64_t sys_faccessat2(struct task *t, const struct syscall_args *a)
{
	return access_at(t, ARG_INT(0), a->a[1], ARG_INT(2), ARG_UINT(3));
}
