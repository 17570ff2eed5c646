/*
 * fsimpl/memfs/flags.c - inode flags: FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR as tmpfs has them.
 *
 * Append-only, immutable, nodump and noatime are kept (chattr's a, i, d, A); the first two are asked of whatever is changed, by vfs/perm.c
 * through perm_inode.flags. A new file has its directory's nodump and noatime.
 */
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/fs.h>

#include "fsimpl/memfs/internal.h"

#define USER_FLAGS (FS_IMMUTABLE_FL | FS_APPEND_FL | FS_NODUMP_FL | FS_NOATIME_FL)
/* FS_XFLAG_COMMON: what both pairs of calls can say, kept here or not. */
#define XFLAGS_COMMON                                                             \
	(FS_XFLAG_SYNC | FS_XFLAG_IMMUTABLE | FS_XFLAG_APPEND | FS_XFLAG_NODUMP | \
	 FS_XFLAG_NOATIME | FS_XFLAG_DAX | FS_XFLAG_PROJINHERIT)
/* What only a filesystem sets: not looked at. */
#define XFLAGS_READ_ONLY (FS_XFLAG_PREALLOC | FS_XFLAG_HASATTR)

static const struct {
	uint32_t flag, xflag;
} names[] = {
	{FS_IMMUTABLE_FL, FS_XFLAG_IMMUTABLE},
	{FS_APPEND_FL, FS_XFLAG_APPEND},
	{FS_NODUMP_FL, FS_XFLAG_NODUMP},
	{FS_NOATIME_FL, FS_XFLAG_NOATIME},
};

uint32_t memfs_flags_inherited(const struct memfs_inode *dir)
{
	return atomic_load_explicit(&dir->flags, memory_order_relaxed) &
	       (FS_NODUMP_FL | FS_NOATIME_FL);
}

static uint32_t xflags_of(uint32_t flags)
{
	uint32_t xflags = 0;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		xflags |= flags & names[i].flag ? names[i].xflag : 0;
	return xflags;
}

/* fileattr_set_prepare()'s look at what only xfs and its like have; extents' sizes of 0 take their flags away. */
static int check_xattr(const struct memfs_inode *i, struct fsxattr *inout)
{
	uint32_t mode = memfs_mode(i);

	if (inout->fsx_projid == UINT32_MAX)
		return -EINVAL;
	if ((inout->fsx_xflags & FS_XFLAG_EXTSIZE) && !S_ISREG(mode))
		return -EINVAL;
	if ((inout->fsx_xflags & FS_XFLAG_EXTSZINHERIT) && !S_ISDIR(mode))
		return -EINVAL;
	if (!inout->fsx_extsize)
		inout->fsx_xflags &= ~(uint32_t)(FS_XFLAG_EXTSIZE | FS_XFLAG_EXTSZINHERIT);
	if (!inout->fsx_cowextsize)
		inout->fsx_xflags &= ~(uint32_t)FS_XFLAG_COWEXTSIZE;
	if ((inout->fsx_xflags & ~(uint32_t)XFLAGS_COMMON) || inout->fsx_extsize ||
	    inout->fsx_projid || inout->fsx_cowextsize)
		return -EOPNOTSUPP;
	return 0;
}

/* vfs_fileattr_set(). `x` is what FS_IOC_FSSETXATTR said, else NULL. */
static int set_flags_locked(struct memfs_inode *i, const struct cred *cred, uint32_t flags,
			    struct fsxattr *x)
{
	uint32_t old = atomic_load_explicit(&i->flags, memory_order_relaxed);
	int err;

	if (cred->fsuid != atomic_load_explicit(&i->uid, memory_order_relaxed) &&
	    !cred_has_cap(cred, CAP_FOWNER))
		return -EPERM;
	if (((flags ^ old) & (FS_APPEND_FL | FS_IMMUTABLE_FL)) &&
	    !cred_has_cap(cred, CAP_LINUX_IMMUTABLE))
		return -EPERM;
	err = x ? check_xattr(i, x) : 0;
	if (err)
		return err;
	if (flags & ~(uint32_t)USER_FLAGS)
		return -EOPNOTSUPP;
	atomic_store_explicit(&i->flags, flags, memory_order_release);
	return 0;
}

static int set_flags(struct file *f, uint32_t flags, struct fsxattr *x)
{
	struct memfs_inode *i = memfs_dentry_of(f->path.dentry)->inode;
	const struct cred *cred = cred_current();
	int err = mount_begin_write(f->path.mount);

	if (err)
		return err;
	mutex_lock(&i->lock);
	err = set_flags_locked(i, cred ? cred : f->cred, flags, x);
	mutex_unlock(&i->lock);
	if (!err)
		memfs_touch(i, MEMFS_CTIME, memfs_now());
	mount_end_write(f->path.mount);
	return err;
}

static int set_xattr(struct file *f, uint64_t arg)
{
	struct fsxattr x;
	uint32_t flags = 0;
	int err = vfs_user_copy_in(&x, arg, sizeof(x));

	if (err)
		return err;
	x.fsx_xflags &= ~(uint32_t)XFLAGS_READ_ONLY;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		flags |= x.fsx_xflags & names[i].xflag ? names[i].flag : 0;
	/* Flags that tmpfs does not have, by the names of the other call. */
	if (x.fsx_xflags & FS_XFLAG_SYNC)
		flags |= FS_SYNC_FL;
	if (x.fsx_xflags & FS_XFLAG_DAX)
		flags |= FS_DAX_FL;
	if (x.fsx_xflags & FS_XFLAG_PROJINHERIT)
		flags |= FS_PROJINHERIT_FL;
	return set_flags(f, flags, &x);
}

int64_t memfs_ioctl(struct file *f, unsigned cmd, uint64_t arg)
{
	struct memfs_inode *i = memfs_dentry_of(f->path.dentry)->inode;
	uint32_t flags = atomic_load_explicit(&i->flags, memory_order_acquire);
	struct fsxattr x = {.fsx_xflags = xflags_of(flags)};
	int err;

	switch (cmd) {
	case FS_IOC_GETFLAGS:
		return vfs_user_copy_out(arg, &flags, sizeof(flags));
	case FS_IOC_SETFLAGS:
		err = vfs_user_copy_in(&flags, arg, sizeof(flags));
		return err ? err : set_flags(f, flags, NULL);
	case FS_IOC_FSGETXATTR:
		return vfs_user_copy_out(arg, &x, sizeof(x));
	case FS_IOC_FSSETXATTR:
		return set_xattr(f, arg);
	default:
		return -ENOTTY;
	}
}

bool memfs_append_only(struct file *f)
{
	struct memfs_inode *i = memfs_dentry_of(f->path.dentry)->inode;

	return atomic_load_explicit(&i->flags, memory_order_relaxed) & FS_APPEND_FL;
}

/* setfl(): what may only be appended to stays open so. */
int memfs_set_file_flags(struct file *f, unsigned new_flags)
{
	return ((new_flags ^ file_flags(f)) & O_APPEND) && memfs_append_only(f) ? -EPERM : 0;
}
