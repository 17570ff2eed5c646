/*
 * fsimpl/overlay/ops.c - the overlay filesystem: walks and attributes.
 *
 * How it performs: a walk costs a look into a hash table a component, without a lock, while the dentries are cached (walk.c), otherwise a
 * lookup in each layer of the directory. Permission checks ask the topmost layer for attributes and ACL. What it cannot do: share a lower
 * file's hard links after a copy-up (index=on), copy up only attributes (metacopy).
 */
#include <fcntl.h>
#include <linux/stat.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fsimpl/overlay/internal.h"

static int may_search(struct overlay_fs *fs, struct resolving_path *rp, struct overlay_dentry *dir)
{
	return S_ISDIR(dir->type) ? overlay_may(fs, dir, rp_cred(rp), X_OK) : -ENOTDIR;
}

int overlay_follow(struct overlay_fs *fs, struct resolving_path *rp, struct overlay_dentry *dir,
		   struct overlay_dentry *link)
{
	struct vfs_path real = overlay_real(link);
	struct vfs_lookup lk = overlay_layer_lookup(fs, &real, "", 0);
	char *target = malloc(VFS_PATH_MAX);
	struct perm_inode dpi, lpi;
	size_t len;
	int err = target ? 0 : -ENOMEM;

	if (!err)
		err = overlay_perm(fs, dir, &dpi);
	if (!err) {
		err = overlay_perm(fs, link, &lpi);
		if (!err && rp_trailing(rp))
			err = vfs_may_follow_link(rp_cred(rp), &dpi, &lpi);
		overlay_perm_put(&dpi);
	}
	if (!err)
		err = vfs_readlink(&lk, target, VFS_PATH_MAX - 1, &len);
	if (!err)
		err = rp_follow_symlink(rp, target, len);
	free(target);
	return err;
}

/* d's parent with a reference; NULL: d is the filesystem's root. */
static struct overlay_dentry *parent_ref(struct overlay_dentry *d)
{
	struct overlay_dentry *parent;

	rcu_read_begin();
	/* A parent that cannot be referenced is one that d was just moved away from. */
	do
		parent = overlay_parent(d);
	while (parent && !ref_tryget(&parent->base.ref));
	rcu_read_end();
	return parent;
}

/* One component from *inout_d (a reference) on. 0, -errno, restart; *inout_d stays a reference in any case. */
static int step(struct overlay_fs *fs, struct resolving_path *rp, struct overlay_dentry **inout_d)
{
	struct overlay_dentry *d = *inout_d, *child;
	/* ".." from the root of a mount: what covers d was searched, not d. */
	int err = rp->climbing ? 0 : may_search(fs, rp, d);

	if (err)
		return err;
	if (rp_is_dotdot(rp)) {
		err = rp_check_root(rp, &d->base);
		if (err && err != RP_STAY)
			return err;
		child = err ? NULL : parent_ref(d);
		if (!child) {
			rp_advance(rp);
			return 0;
		}
	} else {
		err = rp_check_name(rp) ? overlay_name_error(d) : 0;
		if (!err)
			err = overlay_lookup(fs, d, rp_component(rp), rp_component_len(rp), &child);
		if (err)
			return err;
	}
	err = rp_check_mount(rp, &child->base);
	if (err) {
		dentry_unref(&child->base); /* a restart has its own references */
		return err;
	}
	if (S_ISLNK(child->type) && rp_should_follow(rp)) {
		err = overlay_follow(fs, rp, d, child);
		dentry_unref(&child->base);
		return err;
	}
	rp_advance(rp);
	*inout_d = child;
	dentry_unref(&d->base);
	return 0;
}

/* The rest of the way in reference mode; *ret is a reference. */
static int walk_on(struct overlay_fs *fs, struct resolving_path *rp, bool to_parent,
		   struct overlay_dentry **ret)
{
	struct overlay_dentry *d = overlay_of(rp_start(rp));
	int err = 0;

	dentry_ref(&d->base);
	while (!err && !rp_done(rp) && !(to_parent && rp_final(rp)))
		err = step(fs, rp, &d);
	if (!err && to_parent) {
		err = rp_done(rp) ? 0 : may_search(fs, rp, d);
	} else if (!err) {
		err = rp_must_dir(rp) && !S_ISDIR(d->type) ? -ENOTDIR : 0;
		if (!err && rp->final_dot)
			err = may_search(fs, rp, d);
	}
	if (err) {
		dentry_unref(&d->base);
		return err;
	}
	rp->place = &d->base;
	*ret = d;
	return 0;
}

static int walk(struct overlay_fs *fs, struct resolving_path *rp, bool to_parent,
		struct overlay_dentry **ret)
{
	struct overlay_dentry *d;
	int err, settled;

	if (rp_locked(rp))
		return walk_on(fs, rp, to_parent, ret);
	err = overlay_walk_quick(fs, rp, to_parent, &d);
	if (err && err != OVERLAY_ASK)
		return err;
	settled = overlay_settle(rp, d);
	if (settled)
		return settled;
	if (err == OVERLAY_ASK)
		return walk_on(fs, rp, to_parent, ret);
	dentry_ref(&d->base);
	*ret = d;
	return 0;
}

int overlay_walk(struct overlay_fs *fs, struct resolving_path *rp, struct overlay_dentry **ret)
{
	return walk(fs, rp, false, ret);
}

int overlay_walk_parent(struct overlay_fs *fs, struct resolving_path *rp,
			struct overlay_dentry **ret)
{
	return walk(fs, rp, true, ret);
}

static int overlay_get_dentry_at(struct filesystem *base, struct resolving_path *rp,
				 struct dentry **ret)
{
	struct overlay_dentry *d;
	int err = overlay_walk(overlay_fs_of(base), rp, &d);

	if (!err)
		*ret = &d->base;
	return err;
}

/* For operations that may end without a reference: 0 with *ret, standing there lock-free; else, and when that will not do, look_on(). */
static int look(struct overlay_fs *fs, struct resolving_path *rp, struct overlay_dentry **ret)
{
	return rp_locked(rp) ? OVERLAY_ASK : overlay_walk_quick(fs, rp, false, ret);
}

/* On from what look() said to a reference. */
static int look_on(struct overlay_fs *fs, struct resolving_path *rp, int err,
		   struct overlay_dentry **inout_d)
{
	if (err && err != OVERLAY_ASK)
		return err;
	if (!rp_locked(rp)) {
		int settled = overlay_settle(rp, *inout_d);

		if (settled)
			return settled;
	}
	return walk_on(fs, rp, false, inout_d);
}

static int overlay_stat_at(struct filesystem *base, struct resolving_path *rp,
			   const struct stat_args *args, struct moat_statx *ret)
{
	struct overlay_fs *fs = overlay_fs_of(base);
	struct overlay_dentry *d;
	struct vfs_path real;
	struct vfs_lookup lk;
	int err = look(fs, rp, &d);

	if (!err && overlay_peek_stat(&d->base, ret))
		return 0;
	err = look_on(fs, rp, err, &d);
	if (err)
		return err;
	real = overlay_real(d);
	lk = overlay_layer_lookup(fs, &real, "", 0);
	err = vfs_stat(&lk, args, ret);
	if (!err)
		overlay_attr(fs, d, ret);
	dentry_unref(&d->base);
	return err;
}

/* The layer is changed with the overlay's credentials, which would keep setuid and setgid. */
static void kill_priv(const struct cred *cred, const struct perm_inode *pi,
		      struct setattr_args *change)
{
	uint32_t mode = vfs_kill_priv_mode_gid(cred, pi->mode, pi->gid);

	if (mode != pi->mode && !(change->valid & SETATTR_MODE)) {
		change->valid |= SETATTR_MODE;
		change->mode = mode & 07777;
	}
}

static int may_set_stat(struct overlay_fs *fs, struct resolving_path *rp, struct overlay_dentry *d,
			struct setattr_args *change)
{
	/* What a chown takes from the mode, as if the group stayed. */
	struct setattr_args killed = {.valid = SETATTR_KILL_PRIV};
	bool size = change->valid & SETATTR_SIZE, mode = change->valid & SETATTR_MODE;
	struct perm_inode pi;
	int err = overlay_perm(fs, d, &pi);

	if (err)
		return err;
	if (size && !S_ISREG(d->type))
		err = S_ISDIR(d->type) ? -EISDIR : -EINVAL;
	if (!err && size && !(change->valid & (SETATTR_FILE | SETATTR_OPEN)))
		err = vfs_permission(rp_cred(rp), &pi, W_OK);
	if (!err)
		err = rp_begin_write(rp);
	if (!err)
		err = vfs_may_setattr(rp_cred(rp), &pi, change);
	/* It is decided anew in the layer (ovl_setattr() clears ATTR_MODE), where nobody asks whether the caller is in the new group. */
	if (!err && !mode && (change->valid & SETATTR_MODE) &&
	    !vfs_may_setattr(rp_cred(rp), &pi, &killed))
		change->mode = killed.mode;
	if (!err && size)
		kill_priv(rp_cred(rp), &pi, change);
	overlay_perm_put(&pi);
	return err;
}

int overlay_truncate(struct overlay_fs *fs, struct resolving_path *rp, struct overlay_dentry *d)
{
	struct setattr_args change = {.valid = SETATTR_SIZE | SETATTR_OPEN};
	struct vfs_path real = overlay_real(d);
	struct vfs_lookup lk = overlay_layer_lookup(fs, &real, "", 0);
	struct perm_inode pi;
	int err = overlay_perm(fs, d, &pi);

	if (err)
		return err;
	kill_priv(rp_cred(rp), &pi, &change);
	overlay_perm_put(&pi);
	return vfs_set_stat(&lk, &change);
}

static int overlay_set_stat_at(struct filesystem *base, struct resolving_path *rp,
			       const struct setattr_args *args)
{
	struct overlay_fs *fs = overlay_fs_of(base);
	struct setattr_args change = *args;
	struct overlay_dentry *d;
	int err = overlay_walk(fs, rp, &d);

	if (err)
		return err;
	err = may_set_stat(fs, rp, d, &change);
	if (!err)
		err = overlay_copy_up(fs, d, !((args->valid & SETATTR_SIZE) && args->size == 0));
	if (!err) {
		struct vfs_path real = overlay_real(d);
		struct vfs_lookup lk = overlay_layer_lookup(fs, &real, "", 0);

		overlay_perm_change_begin(d);
		err = vfs_set_stat(&lk, &change);
		overlay_perm_change_end(d);
	}
	if (!err)
		vfs_notify_change(&d->base, change.valid);
	dentry_unref(&d->base);
	return err;
}

static int overlay_access_at(struct filesystem *base, struct resolving_path *rp, int mask)
{
	struct overlay_fs *fs = overlay_fs_of(base);
	struct overlay_dentry *d;
	struct perm_inode pi;
	int err = look(fs, rp, &d);

	if (!err && !(mask & W_OK) &&
	    !((mask & X_OK) && (atomic_load(&rp_mount(rp)->flags) & MNT_NOEXEC_F)) &&
	    overlay_peek_perm(&d->base, &pi))
		return vfs_permission(rp_cred(rp), &pi, mask);
	err = look_on(fs, rp, err, &d);
	if (err)
		return err;
	if ((mask & X_OK) && S_ISREG(d->type) && (atomic_load(&rp_mount(rp)->flags) & MNT_NOEXEC_F))
		err = -EACCES;
	if (!err)
		err = overlay_may(fs, d, rp_cred(rp), mask);
	if (!err && (mask & W_OK) && (S_ISREG(d->type) || S_ISDIR(d->type) || S_ISLNK(d->type)))
		err = rp_begin_write(rp);
	dentry_unref(&d->base);
	return err;
}

static int overlay_readlink_at(struct filesystem *base, struct resolving_path *rp, char *buf,
			       size_t size, size_t *ret_len)
{
	struct overlay_fs *fs = overlay_fs_of(base);
	struct overlay_dentry *d;
	struct vfs_path real;
	struct vfs_lookup lk;
	const char *target;
	size_t len;
	int err = look(fs, rp, &d);

	if (!err && S_ISLNK(d->type) && (target = overlay_peek_link(&d->base, &len))) {
		*ret_len = MIN(len, size);
		memcpy(buf, target, *ret_len);
		overlay_link_followed(&d->base, rp_mount(rp));
		return 0;
	}
	err = look_on(fs, rp, err, &d);
	if (err)
		return err;
	real = overlay_real(d);
	lk = overlay_layer_lookup(fs, &real, "", 0);
	err = vfs_readlink(&lk, buf, size, ret_len);
	dentry_unref(&d->base);
	return err;
}

static int overlay_statfs(struct filesystem *base, struct dentry *dentry, struct statfs *ret)
{
	struct overlay_fs *fs = overlay_fs_of(base);
	struct vfs_path real = overlay_real(overlay_of(dentry));
	int err;

	if (fs->upper_mount)
		real = (struct vfs_path){fs->upper_mount, overlay_upper(fs->root)};
	err = vfs_statfs(&real, ret);
	if (!err)
		ret->f_type = OVERLAY_MAGIC;
	return err;
}

static int overlay_get_endpoint_at(struct filesystem *base, struct resolving_path *rp,
				   struct vfs_endpoint **ret)
{
	struct overlay_fs *fs = overlay_fs_of(base);
	struct overlay_dentry *d;
	int err = overlay_walk(fs, rp, &d);

	if (err)
		return err;
	err = overlay_may(fs, d, rp_cred(rp), W_OK);
	if (!err) {
		struct vfs_path real = overlay_real(d);
		struct vfs_lookup lk = overlay_layer_lookup(fs, &real, "", 0);

		err = vfs_get_endpoint(&lk, ret);
	}
	dentry_unref(&d->base);
	return err;
}

static uint32_t overlay_dentry_type(struct dentry *d)
{
	return overlay_of(d)->type;
}

static uint64_t overlay_inode_key(struct dentry *d)
{
	return (uint64_t)(uintptr_t)overlay_of(d)->inode;
}

static int overlay_sync(struct filesystem *base)
{
	struct overlay_fs *fs = overlay_fs_of(base);

	return fs->upper_mount && !fs->config.is_volatile
		       ? fs->upper_mount->fs->ops->sync(fs->upper_mount->fs)
		       : 0;
}

static int overlay_get_acl(struct dentry *d, bool is_default, struct vfs_acl **ret)
{
	struct vfs_path real = overlay_real(overlay_of(d));

	return real.mount->fs->ops->get_acl(real.dentry, is_default, ret);
}

struct filesystem_ops overlay_filesystem_ops = {
	.get_dentry_at = overlay_get_dentry_at,
	.open_at = overlay_open_at,
	.stat_at = overlay_stat_at,
	.set_stat_at = overlay_set_stat_at,
	.access_at = overlay_access_at,
	.mkdir_at = overlay_mkdir_at,
	.mknod_at = overlay_mknod_at,
	.link_at = overlay_link_at,
	.symlink_at = overlay_symlink_at,
	.readlink_at = overlay_readlink_at,
	.rename_at = overlay_rename_at,
	.unlink_at = overlay_unlink_at,
	.rmdir_at = overlay_rmdir_at,
	.statfs = overlay_statfs,
	.get_xattr_at = overlay_get_xattr_at,
	.set_xattr_at = overlay_set_xattr_at,
	.list_xattr_at = overlay_list_xattr_at,
	.remove_xattr_at = overlay_remove_xattr_at,
	.get_endpoint_at = overlay_get_endpoint_at,
	.get_parent = overlay_get_parent,
	.dentry_type = overlay_dentry_type,
	.inode_key = overlay_inode_key,
	.inode_hold = overlay_inode_hold,
	.inode_drop = overlay_inode_drop,
	.get_acl = overlay_get_acl,
	.is_descendant = overlay_is_descendant,
	.dentry_release = overlay_dentry_release,
	.link_followed = overlay_link_followed,
	.peek_perm = overlay_peek_perm,
	.peek_stat = overlay_peek_stat,
	.peek_link = overlay_peek_link,
	.sync = overlay_sync,
	.show_options = overlay_show_options,
	.release = overlay_release,
};
