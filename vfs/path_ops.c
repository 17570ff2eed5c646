/*
 * vfs/path_ops.c - the vfs_* operations on paths.
 *
 * Each is one loop: hand the path to the filesystem where it stands, and again to the next one while the answer is
 * a restart (vfs/resolving_path.c). Operations with two paths resolve the parents first, because Linux does:
 * it decides about different mounts and "." or ".." before it looks at names.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <linux/fs.h>
#include <linux/limits.h>
#include <linux/stat.h>
#include <linux/xattr.h>

#include "vfs/inotify.h"
#include "vfs/lease.h"
#include "vfs/resolving_path.h"
#include "vfs/vfs_internal.h"
#include "vfs/write_access.h"

#define RP_RUN(rp, ret, call)                               \
	do {                                                \
		struct filesystem *fs = rp_enter(rp);       \
                                                            \
		(ret) = fs ? (ssize_t)(call) : (rp)->error; \
	} while (rp_again(rp, &(ret)))

static int rp_get_path(struct resolving_path *rp, struct vfs_path *ret)
{
	struct dentry *d = NULL;
	ssize_t err;

	RP_RUN(rp, err, fs->ops->get_dentry_at(fs, rp, &d));
	if (!err) {
		/* A filesystem that answers in reference mode stands on a mount that the rp pins. */
		mount_ref(rp->mount);
		ret->mount = rp->mount;
		ret->dentry = d;
	}
	rp_end(rp);
	return (int)err;
}

int vfs_get_path(const struct vfs_lookup *lk, struct vfs_path *ret)
{
	struct resolving_path rp;

	rp_init(&rp, lk, false);
	return rp_get_path(&rp, ret);
}

/*
 * Before an open or a truncation by path: calls check(place, ...) if the path leads to a regular file that the caller may access so. What
 * is wrong with the path the operation itself says.
 */
static int precheck(const struct vfs_lookup *lk, int mask,
		    int (*check)(struct dentry *d, bool write, bool nonblock), bool write,
		    bool nonblock)
{
	struct vfs_lookup at = *lk;
	struct vfs_path p;
	int err = 0;

	if (vfs_get_path(lk, &p))
		return 0;
	at.start = p;
	at.path = "";
	at.flags = LOOKUP_EMPTY;
	if (S_ISREG(p.dentry->fs->ops->dentry_type(p.dentry)) && !vfs_access(&at, mask))
		err = check(p.dentry, write, nonblock);
	vfs_path_unref(&p);
	return err;
}

/* do_dentry_open()'s break_lease(), while leases exist. */
static int open_break_lease(const struct vfs_lookup *lk, unsigned flags)
{
	bool write = (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC);
	int mask = ((flags & O_ACCMODE) != O_WRONLY ? R_OK : 0) | (write ? W_OK : 0);

	return precheck(lk, mask, vfs_lease_break, write, flags & O_NONBLOCK);
}

static int check_not_running(struct dentry *d, unused_arg bool write, unused_arg bool nonblock)
{
	return vfs_may_truncate(d);
}

/* vfs_truncate()'s get_write_access(). */
static int truncate_not_running(const struct vfs_lookup *lk)
{
	return precheck(lk, W_OK, check_not_running, true, false);
}

/* handle_truncate() speaks after the open: a regular file, empty already or not. */
static void notify_truncated(struct file *f)
{
	struct dentry *d = f->path.dentry;

	if (vfs_notify_wanted() && d && S_ISREG(d->fs->ops->dentry_type(d)))
		vfs_notify_change(d, SETATTR_SIZE);
}

/* RESOLVE_CACHED: Linux leaves its walk under RCU for whatever is wrong before the end of a path, and then only says that it did. */
static ssize_t cached_error(const struct resolving_path *rp, ssize_t err)
{
	bool on_the_way = !rp_done(rp) || rp->final_dot;

	return on_the_way && (err == -ENOTDIR || err == -EACCES || err == -ENAMETOOLONG) ? -EAGAIN
											 : err;
}

int vfs_open(const struct vfs_lookup *lk, const struct open_args *args, struct file **ret_file)
{
	struct vfs_lookup look = *lk;
	struct resolving_path rp;
	struct file *f;
	bool create = (args->flags & O_CREAT) && !(args->flags & O_PATH);
	ssize_t err;

	/* O_EXCL means that the name itself must be new: a symlink there counts. */
	if (create && (args->flags & O_EXCL))
		look.flags &= ~(unsigned)LOOKUP_FOLLOW;
	if (vfs_leases_exist() && !(args->flags & O_PATH)) {
		err = open_break_lease(&look, args->flags);
		if (err)
			return (int)err;
	}
	rp_init(&rp, &look, create);
	RP_RUN(&rp, err, fs->ops->open_at(fs, &rp, args, &f));
	if (unlikely(lk->flags & LOOKUP_CACHED))
		err = cached_error(&rp, err);
	rp_end(&rp);
	if (err)
		return (int)err;
	err = vfs_write_access_open(f, args->exec);
	if (err) {
		f->mode |= FILE_NO_NOTIFY;
		file_unref(f);
		return (int)err;
	}
	if (!(args->flags & O_PATH)) {
		vfs_notify_open(f);
		if ((args->flags & O_TRUNC) && !(f->mode & FILE_CREATED))
			notify_truncated(f);
	}
	*ret_file = f;
	return (int)err;
}

int vfs_stat(const struct vfs_lookup *lk, const struct stat_args *args, struct moat_statx *ret)
{
	struct resolving_path rp;
	ssize_t err;

	rp_init(&rp, lk, false);
	RP_RUN(&rp, err, fs->ops->stat_at(fs, &rp, args, ret));
	if (!err) {
		stat_add_mount(rp.mount, args, ret);
		ret->attributes_mask |= STATX_ATTR_MOUNT_ROOT;
		if (rp.place == rp.mount->root)
			ret->attributes |= STATX_ATTR_MOUNT_ROOT;
	}
	rp_end(&rp);
	return (int)err;
}

int vfs_set_stat(const struct vfs_lookup *lk, const struct setattr_args *args)
{
	struct resolving_path rp;
	ssize_t err;

	/* truncate(2) waits even where open(2) would not. */
	if (vfs_leases_exist() && (args->valid & SETATTR_SIZE)) {
		err = open_break_lease(lk, O_WRONLY);
		if (err)
			return (int)err;
	}
	if ((args->valid & SETATTR_SIZE) && !(args->valid & SETATTR_FILE)) {
		err = truncate_not_running(lk);
		if (err)
			return (int)err;
	}
	rp_init(&rp, lk, false);
	RP_RUN(&rp, err, fs->ops->set_stat_at(fs, &rp, args));
	rp_end(&rp);
	return (int)err;
}

int vfs_access(const struct vfs_lookup *lk, int mask)
{
	struct resolving_path rp;
	ssize_t err;

	rp_init(&rp, lk, false);
	RP_RUN(&rp, err, fs->ops->access_at(fs, &rp, mask));
	rp_end(&rp);
	return (int)err;
}

int vfs_mkdir(const struct vfs_lookup *lk, const struct mkdir_args *args)
{
	struct resolving_path rp;
	ssize_t err;

	rp_init(&rp, lk, true);
	RP_RUN(&rp, err, fs->ops->mkdir_at(fs, &rp, args));
	rp_end(&rp);
	return (int)err;
}

int vfs_mknod(const struct vfs_lookup *lk, const struct mknod_args *args)
{
	struct resolving_path rp;
	ssize_t err;

	rp_init(&rp, lk, true);
	RP_RUN(&rp, err, fs->ops->mknod_at(fs, &rp, args));
	rp_end(&rp);
	return (int)err;
}

int vfs_symlink(const struct vfs_lookup *lk, const char *target)
{
	struct resolving_path rp;
	size_t len = strnlen(target, VFS_PATH_MAX);
	ssize_t err;

	if (!len)
		return -ENOENT;
	if (len == VFS_PATH_MAX)
		return -ENAMETOOLONG;
	rp_init(&rp, lk, true);
	RP_RUN(&rp, err, fs->ops->symlink_at(fs, &rp, target));
	rp_end(&rp);
	return (int)err;
}

int vfs_readlink(const struct vfs_lookup *lk, char *buf, size_t size, size_t *ret_len)
{
	struct resolving_path rp;
	ssize_t err;

	rp_init(&rp, lk, false);
	RP_RUN(&rp, err, fs->ops->readlink_at(fs, &rp, buf, size, ret_len));
	rp_end(&rp);
	return (int)err;
}

int vfs_unlink(const struct vfs_lookup *lk)
{
	struct resolving_path rp;
	ssize_t err;

	rp_init(&rp, lk, true);
	RP_RUN(&rp, err, fs->ops->unlink_at(fs, &rp));
	rp_end(&rp);
	return (int)err;
}

int vfs_rmdir(const struct vfs_lookup *lk)
{
	struct resolving_path rp;
	ssize_t err;

	rp_init(&rp, lk, true);
	RP_RUN(&rp, err, fs->ops->rmdir_at(fs, &rp));
	rp_end(&rp);
	return (int)err;
}

int vfs_statfs(const struct vfs_path *p, struct statfs *ret)
{
	unsigned mf = atomic_load_explicit(&p->mount->flags, memory_order_relaxed);
	struct filesystem *fs = p->mount->fs;
	long flags = 0x20; /* ST_VALID */
	int err;

	err = fs->ops->statfs(fs, p->dentry, ret);
	if (err)
		return err;
	if ((mf & MNT_RDONLY_F) ||
	    (atomic_load_explicit(&fs->sb_flags, memory_order_relaxed) & FS_RDONLY))
		flags |= 1;
	flags |= mf & MNT_NOSUID_F ? 2 : 0;
	flags |= mf & MNT_NODEV_F ? 4 : 0;
	flags |= mf & MNT_NOEXEC_F ? 8 : 0;
	flags |= mf & MNT_NOATIME_F ? 0x400 : 0;
	flags |= mf & MNT_NODIRATIME_F ? 0x800 : 0;
	flags |= mf & MNT_RELATIME_F ? 0x1000 : 0;
	flags |= mf & MNT_NOSYMFOLLOW_F ? 0x2000 : 0;
	ret->f_flags = flags;
	if (!ret->f_frsize)
		ret->f_frsize = ret->f_bsize;
	return 0;
}

/* ---- xattrs ---- */

static int xattr_check_name(const char *name)
{
	size_t len = strnlen(name, VFS_XATTR_NAME_MAX + 1);

	/* strncpy_from_user's empty or long names: -ERANGE. */
	return len == 0 || len > VFS_XATTR_NAME_MAX ? -ERANGE : 0;
}

ssize_t vfs_get_xattr(const struct vfs_lookup *lk, const struct xattr_args *args)
{
	struct resolving_path rp;
	ssize_t ret;

	ret = xattr_check_name(args->name);
	if (ret)
		return ret;
	rp_init(&rp, lk, false);
	RP_RUN(&rp, ret, fs->ops->get_xattr_at(fs, &rp, args));
	rp_end(&rp);
	return ret;
}

int vfs_set_xattr(const struct vfs_lookup *lk, const struct xattr_args *args)
{
	struct resolving_path rp;
	ssize_t err;

	if (args->flags & ~(XATTR_CREATE | XATTR_REPLACE))
		return -EINVAL;
	err = xattr_check_name(args->name);
	if (err)
		return (int)err;
	if (args->size > VFS_XATTR_SIZE_MAX)
		return -E2BIG;
	rp_init(&rp, lk, false);
	RP_RUN(&rp, err, fs->ops->set_xattr_at(fs, &rp, args));
	rp_end(&rp);
	return (int)err;
}

ssize_t vfs_list_xattr(const struct vfs_lookup *lk, char *buf, size_t size)
{
	struct resolving_path rp;
	ssize_t ret;

	rp_init(&rp, lk, false);
	RP_RUN(&rp, ret, fs->ops->list_xattr_at(fs, &rp, buf, size));
	rp_end(&rp);
	return ret;
}

int vfs_remove_xattr(const struct vfs_lookup *lk, const char *name)
{
	struct resolving_path rp;
	ssize_t err;

	err = xattr_check_name(name);
	if (err)
		return (int)err;
	rp_init(&rp, lk, false);
	RP_RUN(&rp, err, fs->ops->remove_xattr_at(fs, &rp, name));
	rp_end(&rp);
	return (int)err;
}

int vfs_get_endpoint(const struct vfs_lookup *lk, struct vfs_endpoint **ret)
{
	struct resolving_path rp;
	ssize_t err;

	rp_init(&rp, lk, false);
	RP_RUN(&rp, err, fs->ops->get_endpoint_at(fs, &rp, ret));
	rp_end(&rp);
	return (int)err;
}

/* ---- two paths ---- */

/* A path split before its last component, as Linux's filename_parentat() does. */
struct last_name {
	struct vfs_path parent; /* references */
	char name[VFS_NAME_MAX + 2]; /* cut: too long a name is found out by its length */
	size_t len; /* 0: the path was "/" */
	bool slash; /* trailing */
};

static bool last_is_dots(const struct last_name *l)
{
	return l->len == 0 || (l->len == 1 && l->name[0] == '.') ||
	       (l->len == 2 && l->name[0] == '.' && l->name[1] == '.');
}

static int resolve_parent(const struct vfs_lookup *lk, struct last_name *ret)
{
	struct vfs_lookup up = *lk;
	size_t len = strnlen(lk->path, VFS_PATH_MAX), start, end;
	struct resolving_path rp;
	char *path;
	int err;

	if (len == VFS_PATH_MAX)
		return -ENAMETOOLONG;
	if (!len)
		return -ENOENT;
	end = len;
	while (end && lk->path[end - 1] == '/')
		end--;
	ret->slash = end < len;
	start = end;
	while (start && lk->path[start - 1] != '/')
		start--;
	ret->len = end - start;
	memcpy(ret->name, lk->path + start, MIN(ret->len, sizeof(ret->name) - 1));
	ret->name[MIN(ret->len, sizeof(ret->name) - 1)] = '\0';
	/* The parent must be a directory that the caller may search: exactly what a final "." says. */
	path = malloc(start + 2);
	if (!path)
		return -ENOMEM;
	memcpy(path, lk->path, start);
	path[start] = '.';
	path[start + 1] = '\0';
	up.path = path;
	up.flags = (lk->flags | LOOKUP_FOLLOW | LOOKUP_DIRECTORY) & ~(unsigned)LOOKUP_EMPTY;
	if (start + 1 >= VFS_PATH_MAX)
		path[start] = '\0';
	rp_init(&rp, &up, false);
	err = rp_get_path(&rp, &ret->parent);
	free(path);
	return err;
}

/* The last component, with its trailing slash, as the path of an operation below the parent. */
static void last_path(const struct last_name *l, char *buf)
{
	strcpy(buf, l->name);
	if (l->slash)
		strcat(buf, "/");
}

/* link(2) across mounts: the name is still looked up first. Return: -EEXIST, -EXDEV, ... */
static int link_other_mount(const struct vfs_lookup *new_, const struct last_name *last)
{
	struct vfs_lookup lk = *new_;
	struct vfs_path found;
	int err;

	lk.start = last->parent;
	lk.path = last->name;
	lk.flags = 0;
	err = vfs_get_path(&lk, &found);
	if (!err) {
		vfs_path_unref(&found);
		return -EEXIST;
	}
	if (err != -ENOENT)
		return err;
	if (last->slash ||
	    (atomic_load_explicit(&last->parent.dentry->flags, memory_order_relaxed) & DENTRY_DEAD))
		return -ENOENT;
	err = mount_begin_write(last->parent.mount);
	if (err)
		return err;
	mount_end_write(last->parent.mount);
	return -EXDEV;
}

int vfs_link(const struct vfs_lookup *old, const struct vfs_lookup *new_)
{
	char name[VFS_NAME_MAX + 4];
	struct resolving_path rp;
	struct last_name last;
	struct vfs_path source;
	ssize_t err;

	err = vfs_get_path(old, &source);
	if (err)
		return (int)err;
	err = resolve_parent(new_, &last);
	if (err)
		goto out_source;
	if (last_is_dots(&last)) {
		err = -EEXIST;
		goto out_parent;
	}
	if (last.parent.mount != source.mount) {
		err = link_other_mount(new_, &last);
		goto out_parent;
	}
	last_path(&last, name);
	rp_init_child(&rp, new_, &last.parent, name);
	RP_RUN(&rp, err, fs->ops->link_at(fs, &rp, source.dentry));
	rp_end(&rp);
out_parent:
	vfs_path_unref(&last.parent);
out_source:
	vfs_path_unref(&source);
	return (int)err;
}

int vfs_rename(const struct vfs_lookup *old, const struct vfs_lookup *new_,
	       const struct rename_args *args)
{
	char name[VFS_NAME_MAX + 4];
	struct last_name from, to;
	struct resolving_path rp;
	ssize_t err;

	if (args->flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT))
		return -EINVAL;
	if ((args->flags & (RENAME_NOREPLACE | RENAME_WHITEOUT)) && (args->flags & RENAME_EXCHANGE))
		return -EINVAL;
	err = resolve_parent(old, &from);
	if (err)
		return (int)err;
	err = resolve_parent(new_, &to);
	if (err)
		goto out_from;
	if (from.parent.mount != to.parent.mount)
		err = -EXDEV;
	else if (last_is_dots(&from))
		err = -EBUSY;
	else if (last_is_dots(&to))
		err = args->flags & RENAME_NOREPLACE ? -EEXIST : -EBUSY;
	if (err)
		goto out_to;
	last_path(&to, name);
	rp_init_child(&rp, new_, &to.parent, name);
	RP_RUN(&rp, err,
	       fs->ops->rename_at(fs, &rp, from.parent.dentry, from.name, from.slash, args));
	rp_end(&rp);
out_to:
	vfs_path_unref(&to.parent);
out_from:
	vfs_path_unref(&from.parent);
	return (int)err;
}
