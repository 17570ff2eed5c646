/*
 * fsimpl/overlay/walk.c - the lock-free walk, and what changes do to cached paths.
 *
 * Live children are found under RCU; modes, owners and targets of links are what the layers' peek operations say. Where no live child
 * is found, or a layer has to be asked, the walk takes references on where it stands and goes on from there (ops.c): so the first
 * walk of a path asks the layers, later ones nobody.
 *
 * Cached paths (vfs/path_cache.h): a rename, a removal or a change of a directory's mode, owner or ACL forgets what is cached at and below it
 * before the layers show it. What is below is found in the tables of live children. A dentry that leaves them for want of
 * references has forgotten its paths before (dentry_release_begin()).
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fsimpl/overlay/internal.h"

#define PATHS_SCAN_MAX 1024 /* live children below a changed directory; beyond, all paths go */

/* ---- what the layers know ---- */

static struct dentry *real_of(const struct overlay_dentry *d)
{
	struct dentry *upper = atomic_load_explicit(&d->upper, memory_order_acquire);

	return upper ? upper : d->lowers[0].dentry;
}

bool overlay_peek_perm(struct dentry *d, struct perm_inode *ret)
{
	struct dentry *real = real_of(overlay_of(d));

	return real->fs->ops->peek_perm(real, ret);
}

bool overlay_peek_stat(struct dentry *d, struct moat_statx *ret)
{
	struct overlay_dentry *od = overlay_of(d);
	struct dentry *real = real_of(od);

	if (!real->fs->ops->peek_stat(real, ret))
		return false;
	overlay_attr(overlay_fs_of_dentry(od), od, ret);
	return true;
}

const char *overlay_peek_link(struct dentry *d, size_t *ret_len)
{
	struct dentry *real = real_of(overlay_of(d));

	return real->fs->ops->peek_link(real, ret_len);
}

void overlay_link_followed(struct dentry *d, struct mount *m unused_arg)
{
	struct vfs_path real = overlay_real(overlay_of(d));

	real.dentry->fs->ops->link_followed(real.dentry, real.mount);
}

/* ---- the walk ---- */

/* 0, -EACCES, -ENOTDIR, OVERLAY_ASK. */
static int may_search(const struct resolving_path *rp, struct overlay_dentry *dir)
{
	struct perm_inode pi;

	if (!S_ISDIR(dir->type))
		return -ENOTDIR;
	if (!overlay_peek_perm(&dir->base, &pi))
		return OVERLAY_ASK;
	return vfs_permission(rp_cred(rp), &pi, X_OK);
}

/* The layers were asked for this name before, and dir has not changed since: -ENOENT. */
static int look_missing(struct overlay_fs *fs, struct resolving_path *rp,
			struct overlay_dentry *dir)
{
	uint32_t changes = seqcount_read_begin(&dir->changes);

	if ((changes & 1) || !overlay_missing_find(fs, dir, rp_component_hash(rp), rp_component(rp),
						   rp_component_len(rp), changes))
		return OVERLAY_ASK;
	if (rp->recording)
		path_record_miss(rp, &dir->base, &dir->changes, changes);
	rp->recording = false;
	return -ENOENT;
}

static int step_up(struct resolving_path *rp, struct overlay_dentry *d, struct overlay_dentry **ret)
{
	int err;

	if (unlikely(rp->recording))
		path_record_witness(rp, &d->base);
	err = rp_check_root(rp, &d->base);
	if (!err) {
		*ret = overlay_parent(d);
		/* The filesystem's root, reached through a mount of something below it. */
		if (!*ret)
			*ret = d;
	}
	return err;
}

/* One step down or up. 0 with *ret, RP_STAY, OVERLAY_ASK (nothing was changed), a restart, -errno. */
static int step(struct overlay_fs *fs, struct resolving_path *rp, struct overlay_dentry *d,
		struct overlay_dentry **ret)
{
	struct name_node *n;
	int err = S_ISDIR(d->type) ? 0 : -ENOTDIR;

	if (unlikely(rp->recording) && !err)
		dentry_mark_path(&d->base, DENTRY_PATH_BELOW);
	/* ".." from the root of a mount: what covers d was searched, not d. */
	if (!err && likely(!rp->climbing))
		err = may_search(rp, d);
	if (unlikely(err))
		return err;
	if (unlikely(rp_is_dotdot(rp)))
		return step_up(rp, d, ret);
	if (unlikely(rp_component_len(rp) > VFS_NAME_MAX))
		return overlay_name_error(d);
	n = names_find(&d->children, d, rp_component_hash(rp), rp_component(rp),
		       rp_component_len(rp));
	if (unlikely(!n))
		return look_missing(fs, rp, d);
	*ret = container_of(n, struct overlay_dentry, at);
	return 0;
}

/* 0: the link at the current component was entered. */
static int follow(struct resolving_path *rp, struct overlay_dentry *dir,
		  struct overlay_dentry *link)
{
	struct perm_inode dir_perm, link_perm;
	size_t len;
	const char *target = overlay_peek_link(&link->base, &len);
	int err;

	if (!target || !overlay_peek_perm(&dir->base, &dir_perm) ||
	    !overlay_peek_perm(&link->base, &link_perm))
		return OVERLAY_ASK;
	err = rp_trailing(rp) ? vfs_may_follow_link(rp_cred(rp), &dir_perm, &link_perm) : 0;
	if (err)
		return err;
	if (unlikely(rp->recording)) {
		/* What fs.protected_symlinks asks is about the link's inode, which may have other names. */
		if (rp_trailing(rp) && (dir_perm.mode & (S_ISVTX | S_IWOTH)) == (S_ISVTX | S_IWOTH))
			rp->recording = false;
		else
			path_record_link(rp, &link->base);
	}
	overlay_link_followed(&link->base, rp_mount(rp));
	return rp_follow_symlink(rp, target, len);
}

/* What is asked of the place itself. */
static int check_end(const struct resolving_path *rp, bool to_parent, struct overlay_dentry *d)
{
	if (to_parent && !rp_done(rp))
		return may_search(rp, d);
	if (!rp_must_dir(rp))
		return 0;
	if (!S_ISDIR(d->type))
		return -ENOTDIR;
	return rp->final_dot ? may_search(rp, d) : 0;
}

int overlay_walk_quick(struct overlay_fs *fs, struct resolving_path *rp, bool to_parent,
		       struct overlay_dentry **ret)
{
	struct overlay_dentry *d = overlay_of(rp_start(rp)), *child;
	int err;

	*ret = d;
	while (!rp_done(rp) && !(to_parent && rp_final(rp))) {
		err = step(fs, rp, d, &child);
		if (unlikely(err)) {
			if (err != RP_STAY)
				return err;
			rp_advance(rp);
			continue;
		}
		if (unlikely(atomic_load_explicit(&child->base.flags, memory_order_acquire) &
			     DENTRY_MAYBE_MOUNTPOINT)) {
			err = rp_check_mount(rp, &child->base);
			if (err == RP_RESTART_MOUNT && unlikely(rp->recording))
				path_record_witness(rp, &child->base);
			if (err)
				return err;
		}
		if (S_ISLNK(child->type) && rp_should_follow(rp)) {
			err = follow(rp, d, child);
			if (err)
				return err;
			continue;
		}
		rp_advance(rp);
		*ret = d = child;
	}
	err = check_end(rp, to_parent, d);
	if (err)
		return err;
	rp->place = &d->base;
	if (unlikely(rp->recording))
		path_record_end(rp, &d->base);
	return 0;
}

int overlay_settle(struct resolving_path *rp, struct overlay_dentry *d)
{
	int err;

	rp->recording = false;
	err = rp_unlazy(rp, &d->base);
	if (!err)
		rp->start = &d->base;
	return err;
}

/* ---- what a change does to cached paths ---- */

/* Recursion is bounded by the budget. */
static bool forget(void *arg, struct name_node *n)
{
	struct overlay_dentry *d = container_of(n, struct overlay_dentry, at);
	uint32_t marks = atomic_load_explicit(&d->base.flags, memory_order_seq_cst);
	unsigned *budget = arg;

	if (!*budget)
		return false;
	--*budget;
	dentry_path_changed(&d->base);
	return !(marks & DENTRY_PATH_BELOW) || names_each(&d->children, forget, budget);
}

void overlay_paths_forget(struct overlay_dentry *d)
{
	unsigned budget = PATHS_SCAN_MAX;

	rcu_read_begin();
	/* Too much, or it changed under our feet. */
	if (!forget(&budget, &d->at))
		filesystem_paths_changed(d->base.fs);
	rcu_read_end();
}

void overlay_perm_change_begin(struct overlay_dentry *d)
{
	if (!S_ISDIR(d->type))
		return;
	path_change_begin(d->base.fs);
	overlay_paths_forget(d);
}

void overlay_perm_change_end(struct overlay_dentry *d)
{
	if (S_ISDIR(d->type))
		path_change_end(d->base.fs);
}
