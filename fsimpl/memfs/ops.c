/*
 * fsimpl/memfs/ops.c - path operations but open, rename and xattrs.
 *
 * Creations check in the order of filename_create() and vfs_mkdir() and friends, removals in that of do_rmdir(), do_unlinkat() and may_delete().
 */
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fsimpl/memfs/internal.h"
#include "vfs/acl.h"

static int memfs_get_dentry_at(struct filesystem *fs unused_arg, struct resolving_path *rp,
			       struct dentry **ret_dentry)
{
	struct memfs_dentry *d;
	int err = memfs_resolve(rp, false, &d);

	if (err)
		return err;
	dentry_ref(&d->d);
	*ret_dentry = &d->d;
	return 0;
}

static int memfs_stat_at(struct filesystem *fs unused_arg, struct resolving_path *rp,
			 const struct stat_args *args unused_arg, struct moat_statx *ret)
{
	struct memfs_dentry *d;
	bool began;
	int err;

	/* The path cache led here: nothing to walk, and the VFS's read section is there. */
	if (rp->in_rcu && rp_done(rp) && !rp_must_dir(rp)) {
		memfs_inode_stat(memfs_dentry_of(rp_start(rp))->inode, ret);
		return 0;
	}
	began = memfs_look_begin(rp);
	err = memfs_walk(rp, false, &d);
	if (likely(!err))
		memfs_inode_stat(d->inode, ret);
	memfs_look_end(began);
	return err;
}

static int memfs_access_at(struct filesystem *fs unused_arg, struct resolving_path *rp, int mask)
{
	bool began = memfs_look_begin(rp);
	struct memfs_dentry *d;
	struct perm_inode pi;
	int err = memfs_walk(rp, false, &d);

	if (!err) {
		struct mount *m = rp_mount(rp);
		unsigned flags = atomic_load_explicit(&m->flags, memory_order_relaxed);
		bool special;

		pi = memfs_perm(d->inode);
		special = !S_ISREG(pi.mode) && !S_ISDIR(pi.mode) && !S_ISLNK(pi.mode);
		/* noexec speaks first, a read-only mount last, a read-only filesystem before the bits. */
		if ((mask & X_OK) && S_ISREG(pi.mode) && (flags & MNT_NOEXEC_F))
			err = -EACCES;
		else if ((mask & W_OK) && !special &&
			 (atomic_load_explicit(&m->fs->sb_flags, memory_order_relaxed) & FS_RDONLY))
			err = -EROFS;
		else
			err = vfs_permission(rp_cred(rp), &pi, mask);
		if (!err && (mask & W_OK) && !special && (flags & MNT_RDONLY_F))
			err = -EROFS;
	}
	memfs_look_end(began);
	return err;
}

static int memfs_readlink_at(struct filesystem *fs unused_arg, struct resolving_path *rp, char *buf,
			     size_t size, size_t *ret_len)
{
	bool began = memfs_look_begin(rp);
	struct memfs_dentry *d;
	int err = memfs_walk(rp, false, &d);

	if (!err && !S_ISLNK(memfs_mode(d->inode)))
		err = -EINVAL;
	if (!err) {
		struct memfs_link *l = memfs_link_of(d->inode);

		*ret_len = MIN((size_t)l->len, size);
		memcpy(buf, l->target, *ret_len);
		memfs_update_atime(d->inode, rp_mount(rp), 0);
	}
	memfs_look_end(began);
	return err;
}

static int memfs_set_stat_at(struct filesystem *fs unused_arg, struct resolving_path *rp,
			     const struct setattr_args *args)
{
	struct memfs_dentry *d;
	int err = memfs_resolve(rp, false, &d);

	if (err)
		return err;
	if ((args->valid & SETATTR_SIZE) && !S_ISREG(memfs_mode(d->inode)))
		return S_ISDIR(memfs_mode(d->inode)) ? -EISDIR : -EINVAL;
	/* truncate(2) asks for permission before it looks at the mount. */
	if ((args->valid & SETATTR_SIZE) && !(args->valid & (SETATTR_FILE | SETATTR_OPEN)))
		err = memfs_permission(d->inode, rp_cred(rp), W_OK);
	if (!err)
		err = rp_begin_write(rp);
	if (err)
		return err;
	err = memfs_inode_setattr(d, rp_cred(rp), args);
	if (!err)
		vfs_notify_change(&d->d, args->valid);
	return err;
}

/* ---- creations ---- */

/*
 * The directory in which the final component is to be made, after the checks that come before the operation's own:
 * -EEXIST, -ENOENT (trailing slash, removed directory), -EROFS, -EACCES.
 */
static int create_begin(struct resolving_path *rp, bool is_dir, struct memfs_dentry **ret_dir)
{
	struct memfs_dentry *dir;
	bool exists;
	int err, name_err, write_err;

	err = memfs_resolve(rp, true, &dir);
	if (err)
		return err;
	name_err = rp_check_create_name(rp, is_dir);
	if (name_err == -ENAMETOOLONG)
		return memfs_name_error(dir);
	if (name_err && name_err != -ENOENT)
		return name_err;
	write_err = rp_begin_write(rp);
	rcu_read_begin();
	exists = memfs_dir_find(dir, rp_component(rp), rp_component_len(rp)) != NULL;
	rcu_read_end();
	if (exists)
		return -EEXIST;
	if (memfs_is_dead(dir))
		return -ENOENT;
	if (name_err)
		return name_err;
	if (write_err)
		return write_err;
	err = memfs_permission(dir->inode, rp_cred(rp), W_OK | X_OK);
	if (err)
		return err;
	*ret_dir = dir;
	return 0;
}

/* Enters inode (takes the reference) under the final component. old: another name of it, or NULL. */
static int create_finish(struct resolving_path *rp, struct memfs_dentry *dir,
			 struct memfs_inode *inode, struct memfs_dentry *old)
{
	const char *name = rp_component(rp);
	unsigned len = rp_component_len(rp);
	bool is_dir = S_ISDIR(memfs_mode(inode));
	struct memfs_dentry *d;
	int err;

	err = memfs_dir_enter(dir, name, len, inode, &d);
	if (err)
		return err;
	dentry_unref(&d->d);
	if (old)
		vfs_notify_self(&old->d, IN_ATTRIB, false);
	vfs_notify_name(&dir->d, IN_CREATE, 0, name, len, is_dir);
	return 0;
}

static int create_inode(struct resolving_path *rp, struct memfs_dentry *dir, struct memfs_new *how)
{
	struct memfs_inode *inode;
	int err;

	how->cred = rp_cred(rp);
	how->dir = dir;
	err = memfs_inode_create(memfs_of(dir->d.fs), how, &inode);
	return err ? err : create_finish(rp, dir, inode, NULL);
}

static int memfs_mkdir_at(struct filesystem *fs unused_arg, struct resolving_path *rp,
			  const struct mkdir_args *args)
{
	struct memfs_new how = {.mode = S_IFDIR | (args->mode & 01777), .umask = args->umask};
	struct memfs_dentry *dir;
	int err = create_begin(rp, true, &dir);

	return err ? err : create_inode(rp, dir, &how);
}

static int memfs_mknod_at(struct filesystem *fs unused_arg, struct resolving_path *rp,
			  const struct mknod_args *args)
{
	struct memfs_new how = {.mode = args->mode & (S_IFMT | 07777),
				.umask = args->umask,
				.rdev_major = args->rdev_major,
				.rdev_minor = args->rdev_minor,
				.endpoint = args->endpoint};
	bool whiteout = S_ISCHR(args->mode) && !args->rdev_major && !args->rdev_minor;
	struct memfs_dentry *dir;
	int err;

	if (!(how.mode & S_IFMT))
		how.mode |= S_IFREG;
	err = create_begin(rp, false, &dir);
	if (err)
		return err;
	switch (how.mode & S_IFMT) {
	case S_IFCHR:
	case S_IFBLK:
		if (!whiteout && !cred_has_cap(rp_cred(rp), CAP_MKNOD))
			return -EPERM;
		break;
	case S_IFREG:
	case S_IFIFO:
	case S_IFSOCK:
		break;
	case S_IFDIR:
		return -EPERM;
	default:
		return -EINVAL;
	}
	return create_inode(rp, dir, &how);
}

static int memfs_symlink_at(struct filesystem *fs unused_arg, struct resolving_path *rp,
			    const char *target)
{
	struct memfs_new how = {.mode = S_IFLNK | 0777, .target = target};
	struct memfs_dentry *dir;
	int err = create_begin(rp, false, &dir);

	return err ? err : create_inode(rp, dir, &how);
}

/* One more name for an inode, unless it has none left (O_TMPFILE's first name aside). */
static int link_count_up(struct memfs_dentry *old, int64_t now)
{
	struct memfs_inode *i = old->inode;
	bool linkable = atomic_load_explicit(&old->d.flags, memory_order_relaxed) & DENTRY_LINKABLE;
	int err = 0;

	mutex_lock(&i->lock);
	if (!atomic_load_explicit(&i->nlink, memory_order_relaxed) && !linkable) {
		err = -ENOENT;
	} else if (atomic_load_explicit(&i->nlink, memory_order_relaxed) == MEMFS_LINKS_MAX) {
		err = -EMLINK;
	} else {
		seqcount_write_begin(&i->seq);
		atomic_fetch_add_explicit(&i->nlink, 1, memory_order_release);
		atomic_store_explicit(&i->ctime, now, memory_order_release);
		seqcount_write_end(&i->seq);
	}
	mutex_unlock(&i->lock);
	return err;
}

static int memfs_link_at(struct filesystem *fs unused_arg, struct resolving_path *rp,
			 struct dentry *old_dentry)
{
	struct memfs_dentry *dir, *old = memfs_dentry_of(old_dentry);
	struct memfs_inode *inode = old->inode;
	struct perm_inode pi;
	int err, access;

	err = create_begin(rp, false, &dir);
	/* may_linkat() speaks before the new directory's permissions. */
	access = err == -EACCES ? err : 0;
	if (err && !access)
		return err;
	rcu_read_begin();
	pi = memfs_perm(inode);
	err = vfs_may_linkat(rp_cred(rp), &pi);
	rcu_read_end();
	if (err || access)
		return err ? err : access;
	if (S_ISDIR(pi.mode) || pi.flags)
		return -EPERM;
	err = link_count_up(old, memfs_now());
	if (err)
		return err;
	memfs_inode_ref(inode);
	err = create_finish(rp, dir, inode, old);
	if (err)
		memfs_add_links(inode, -1, memfs_now());
	return err;
}

/* ---- removals ---- */

/* dir's lock held; victim is in it. */
static void remove_locked(struct memfs_dentry *dir, struct memfs_dentry *victim, int64_t now)
{
	path_change_begin(dir->d.fs);
	memfs_paths_forget(victim);
	memfs_dir_change_begin(memfs_dir_of(dir));
	memfs_dir_remove_locked(memfs_dir_of(dir), victim);
	memfs_dir_change_end(memfs_dir_of(dir));
	vfs_dentry_delete_end(&victim->d);
	path_change_end(dir->d.fs);
	memfs_touch(dir->inode, MEMFS_MTIME | MEMFS_CTIME, now);
}

static int remove_check(struct resolving_path *rp, struct memfs_dentry *dir,
			struct memfs_dentry *victim, bool isdir)
{
	struct perm_inode dir_perm, pi;
	int err;

	rcu_read_begin();
	dir_perm = memfs_perm(dir->inode);
	pi = memfs_perm(victim->inode);
	err = vfs_may_delete(rp_cred(rp), &dir_perm, &pi, isdir);
	rcu_read_end();
	if (!err && memfs_is_dead(dir))
		err = -ENOENT;
	return err ? err : vfs_dentry_delete_begin(rp, &victim->d);
}

/* "." and "..", then a read-only mount, then a name too long. */
static int remove_begin(struct resolving_path *rp, struct memfs_dentry *dir, bool isdir)
{
	int err = rp_check_remove_name(rp, isdir), write_err;

	if (err && err != -ENAMETOOLONG)
		return err;
	write_err = rp_begin_write(rp);
	if (write_err)
		return write_err;
	return err ? memfs_name_error(dir) : 0;
}

static int memfs_unlink_at(struct filesystem *fs unused_arg, struct resolving_path *rp)
{
	struct memfs_dentry *dir, *victim;
	struct memfs_dir *md;
	int64_t now;
	int err;

	err = memfs_resolve(rp, true, &dir);
	if (!err)
		err = remove_begin(rp, dir, false);
	if (err)
		return err;
	md = memfs_dir_of(dir);
	now = memfs_now();
	mutex_lock(&md->lock);
	victim = memfs_dir_find_locked(md, rp_component(rp), rp_component_len(rp));
	if (!victim)
		err = -ENOENT;
	else if (rp->trailing_slash)
		err = memfs_is_dir(victim) ? -EISDIR : -ENOTDIR;
	else
		err = remove_check(rp, dir, victim, false);
	if (!err)
		remove_locked(dir, victim, now);
	mutex_unlock(&md->lock);
	if (err)
		return err;
	memfs_add_links(victim->inode, -1, now);
	vfs_notify_removed(&dir->d, &victim->d, rp_component(rp), rp_component_len(rp), false);
	return 0;
}

static int memfs_rmdir_at(struct filesystem *fs unused_arg, struct resolving_path *rp)
{
	struct memfs_dentry *dir, *victim;
	struct memfs_dir *md, *vd = NULL;
	int64_t now;
	int err;

	err = memfs_resolve(rp, true, &dir);
	if (!err)
		err = remove_begin(rp, dir, true);
	if (err)
		return err;
	md = memfs_dir_of(dir);
	now = memfs_now();
	mutex_lock(&md->lock);
	victim = memfs_dir_find_locked(md, rp_component(rp), rp_component_len(rp));
	err = victim ? remove_check(rp, dir, victim, true) : -ENOENT;
	if (!err) {
		vd = memfs_dir_of(victim);
		mutex_lock_nested(&vd->lock); /* a child after its parent */
		if (atomic_load_explicit(&vd->count, memory_order_relaxed))
			err = -ENOTEMPTY;
		else
			remove_locked(dir, victim, now);
		mutex_unlock(&vd->lock);
	}
	if (!err)
		memfs_add_links(dir->inode, -1, now);
	mutex_unlock(&md->lock);
	if (err)
		return err;
	memfs_add_links(victim->inode, -2, now);
	vfs_notify_removed(&dir->d, &victim->d, rp_component(rp), rp_component_len(rp), true);
	return 0;
}

/* ---- the rest ---- */

static int memfs_statfs(struct filesystem *fs, struct dentry *d unused_arg, struct statfs *ret)
{
	struct memfs_fs *mfs = memfs_of(fs);
	uint64_t pages = memfs_limit(mfs, MEMFS_PAGES);
	uint64_t inodes = memfs_limit(mfs, MEMFS_INODES);

	*ret = (struct statfs){.f_type = (long)fs->magic,
			       .f_bsize = MOAT_PAGE_SIZE,
			       .f_frsize = MOAT_PAGE_SIZE,
			       .f_namelen = VFS_NAME_MAX};
	memcpy(&ret->f_fsid, &fs->dev_minor, sizeof(fs->dev_minor));
	if (pages) {
		uint64_t used = memfs_used(mfs, MEMFS_PAGES);

		ret->f_blocks = pages;
		ret->f_bfree = ret->f_bavail = used < pages ? pages - used : 0;
	}
	if (inodes) {
		uint64_t used = memfs_used(mfs, MEMFS_INODES);

		ret->f_files = inodes;
		ret->f_ffree = used < inodes ? inodes - used : 0;
	}
	return 0;
}

static int memfs_get_endpoint_at(struct filesystem *fs unused_arg, struct resolving_path *rp,
				 struct vfs_endpoint **ret)
{
	struct memfs_dentry *d;
	struct memfs_special *s;
	uint32_t mode;
	int err;

	err = memfs_resolve(rp, false, &d);
	if (err)
		return err;
	err = memfs_permission(d->inode, rp_cred(rp), W_OK);
	if (err)
		return err;
	mode = memfs_mode(d->inode);
	if (!S_ISSOCK(mode))
		return -ECONNREFUSED;
	s = memfs_special_of(d->inode);
	if (!s->endpoint)
		return -ECONNREFUSED;
	ref_get(&s->endpoint->ref);
	*ret = s->endpoint;
	return 0;
}

static uint32_t memfs_dentry_type(struct dentry *d)
{
	return memfs_mode(memfs_dentry_of(d)->inode) & S_IFMT;
}

static uint64_t memfs_inode_key(struct dentry *d)
{
	return (uint64_t)(uintptr_t)memfs_dentry_of(d)->inode;
}

static void *memfs_inode_hold(struct dentry *d)
{
	memfs_inode_ref(memfs_dentry_of(d)->inode);
	return memfs_dentry_of(d)->inode;
}

static void memfs_inode_drop(struct filesystem *fs unused_arg, void *inode)
{
	memfs_inode_unref(inode);
}

static int memfs_get_acl(struct dentry *base, bool is_default, struct vfs_acl **ret)
{
	struct memfs_inode *i = memfs_dentry_of(base)->inode;
	struct vfs_acl *_Atomic *slot = is_default ? NULL : &i->acl;
	struct vfs_acl *acl;

	if (is_default && S_ISDIR(memfs_mode(i)))
		slot = &((struct memfs_dir *)i)->default_acl;
	*ret = NULL;
	if (!slot || !atomic_load_explicit(slot, memory_order_relaxed))
		return 0;
	mutex_lock(&i->lock);
	acl = atomic_load_explicit(slot, memory_order_relaxed);
	if (acl)
		vfs_acl_ref(acl);
	mutex_unlock(&i->lock);
	*ret = acl;
	return 0;
}

struct filesystem_ops memfs_ops = {
	.get_dentry_at = memfs_get_dentry_at,
	.open_at = memfs_open_at,
	.stat_at = memfs_stat_at,
	.set_stat_at = memfs_set_stat_at,
	.access_at = memfs_access_at,
	.mkdir_at = memfs_mkdir_at,
	.mknod_at = memfs_mknod_at,
	.link_at = memfs_link_at,
	.symlink_at = memfs_symlink_at,
	.readlink_at = memfs_readlink_at,
	.rename_at = memfs_rename_at,
	.unlink_at = memfs_unlink_at,
	.rmdir_at = memfs_rmdir_at,
	.statfs = memfs_statfs,
	.get_xattr_at = memfs_get_xattr_at,
	.set_xattr_at = memfs_set_xattr_at,
	.list_xattr_at = memfs_list_xattr_at,
	.remove_xattr_at = memfs_remove_xattr_at,
	.get_endpoint_at = memfs_get_endpoint_at,
	.get_parent = memfs_get_parent,
	.is_descendant = memfs_is_descendant,
	.dentry_type = memfs_dentry_type,
	.inode_key = memfs_inode_key,
	.inode_hold = memfs_inode_hold,
	.inode_drop = memfs_inode_drop,
	.get_acl = memfs_get_acl,
	.dentry_release = memfs_dentry_release,
	.link_followed = memfs_link_followed,
	.peek_perm = memfs_peek_perm,
	.peek_stat = memfs_peek_stat,
	.peek_link = memfs_peek_link,
	.remount = memfs_remount,
	.show_options = memfs_show_options,
	.release = memfs_release,
};
