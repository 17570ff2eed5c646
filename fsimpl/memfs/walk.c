/*
 * fsimpl/memfs/walk.c - the walk: lock-free, for both modes.
 *
 * Children are found in RCU hash chains; modes, owners and ACLs are read as they are now; a name and its parent are one
 * pointer. So a step is true at the moment it is taken, which is all that a walk with locks per directory gives. References are taken once, on
 * the final place, by tryref: if that place died in the meantime the whole walk starts again in reference mode.
 */
#include <unistd.h>

#include "fsimpl/memfs/internal.h"

/* Search permission for the common directory: everybody's x, or root's. */
static inline int may_search(const struct memfs_inode *i, uint32_t mode, const struct cred *cred)
{
	struct perm_inode pi;

	if (likely((mode & 0111) == 0111 && !atomic_load_explicit(&i->acl, memory_order_relaxed)))
		return 0;
	pi = memfs_perm(i);
	return vfs_permission(cred, &pi, X_OK);
}

static int follow_link(struct resolving_path *rp, struct memfs_dentry *dir,
		       struct memfs_dentry *link)
{
	struct memfs_link *l = memfs_link_of(link->inode);
	int err;

	if (rp_trailing(rp)) {
		struct perm_inode dir_perm = memfs_perm(dir->inode);
		struct perm_inode link_perm = memfs_perm(link->inode);

		err = vfs_may_follow_link(rp_cred(rp), &dir_perm, &link_perm);
		if (err)
			return err;
	}
	if (unlikely(rp->recording)) {
		/* What fs.protected_symlinks asks is about the link's inode, which may have other names. */
		if (rp_trailing(rp) &&
		    (memfs_mode(dir->inode) & (S_ISVTX | S_IWOTH)) == (S_ISVTX | S_IWOTH))
			rp->recording = false;
		else
			path_record_link(rp, &link->d);
	}
	memfs_update_atime(link->inode, rp_mount(rp), 0);
	return rp_follow_symlink(rp, l->target, l->len);
}

/* A missing name may be cached with the count that says its directory has not changed since. */
static void record_miss(struct resolving_path *rp, struct memfs_dentry *dir)
{
	const struct seqcount *children = &dir->inode->children_seq;
	uint32_t seq = seqcount_read_begin(children);

	if (!(seq & 1) && !memfs_dir_find_again(dir, rp) &&
	    !seqcount_read_retry_acquired(children, seq))
		path_record_miss(rp, &dir->d, children, seq);
	rp->recording = false;
}

/* One step down or up. Return: 0 with *ret, RP_STAY, a restart, -errno. */
static inline int step(struct resolving_path *rp, struct memfs_dentry *d, struct memfs_dentry **ret)
{
	uint32_t mode = memfs_mode(d->inode);
	struct memfs_dentry *child;
	int err;

	if (unlikely(!S_ISDIR(mode)))
		return -ENOTDIR;
	if (unlikely(rp->recording))
		dentry_mark_path(&d->d, DENTRY_PATH_BELOW);
	err = may_search(d->inode, mode, rp_cred(rp));
	if (unlikely(err) && !rp->climbing)
		return err;
	if (unlikely(rp_is_dotdot(rp))) {
		if (unlikely(rp->recording))
			path_record_witness(rp, &d->d);
		err = rp_check_root(rp, &d->d);
		if (err)
			return err;
		child = memfs_name_of(d)->parent;
		if (!child) /* the filesystem's root, reached through a mount of something below it */
			child = d;
	} else {
		if (unlikely(rp_component_len(rp) > VFS_NAME_MAX))
			return memfs_name_error(d);
		child = memfs_dir_find_quick(d, rp);
		if (unlikely(!child)) {
			child = memfs_dir_find_again(d, rp);
			if (!child) {
				if (unlikely(rp->recording))
					record_miss(rp, d);
				return -ENOENT;
			}
		}
	}
	*ret = child;
	return 0;
}

int memfs_walk(struct resolving_path *rp, bool to_parent, struct memfs_dentry **ret)
{
	struct memfs_dentry *d = memfs_dentry_of(rp_start(rp)), *child;
	int err;

	while (!rp_done(rp) && !(to_parent && rp_final(rp))) {
		err = step(rp, d, &child);
		if (unlikely(err)) {
			if (err != RP_STAY)
				return err;
			rp_advance(rp);
			continue;
		}
		if (unlikely(atomic_load_explicit(&child->d.flags, memory_order_acquire) &
			     DENTRY_MAYBE_MOUNTPOINT)) {
			struct dentry *mounted;

			err = rp_check_mount(rp, &child->d);
			if (err == RP_RESTART_MOUNT && unlikely(rp->recording))
				path_record_witness(rp, &child->d);
			if (err == RP_RESTART_MOUNT && (mounted = rp_cross(rp, &memfs_ops))) {
				d = memfs_dentry_of(mounted);
				continue;
			}
			if (err)
				return err;
		}
		if (unlikely(S_ISLNK(memfs_mode(child->inode))) && rp_should_follow(rp)) {
			err = follow_link(rp, d, child);
			if (err)
				return err;
			continue;
		}
		rp_advance(rp);
		d = child;
	}
	if (to_parent && !rp_done(rp)) {
		if (!memfs_is_dir(d))
			return -ENOTDIR;
		err = may_search(d->inode, memfs_mode(d->inode), rp_cred(rp));
		if (err)
			return err;
	} else if (unlikely(rp_must_dir(rp))) {
		if (!memfs_is_dir(d))
			return -ENOTDIR;
		if (rp->final_dot) {
			err = may_search(d->inode, memfs_mode(d->inode), rp_cred(rp));
			if (err)
				return err;
		}
	}
	rp->place = &d->d;
	if (unlikely(rp->recording))
		path_record_end(rp, &d->d);
	*ret = d;
	return 0;
}

int memfs_resolve(struct resolving_path *rp, bool to_parent, struct memfs_dentry **ret)
{
	struct memfs_dentry *d;
	int err;

	if (!rp_locked(rp)) {
		err = memfs_walk(rp, to_parent, &d);
		if (!err)
			err = rp_unlazy(rp, &d->d);
		if (err)
			return err;
	} else {
		rcu_read_begin();
		err = memfs_walk(rp, to_parent, &d);
		if (!err && !ref_tryget(&d->d.ref))
			err = RP_RESTART_REFWALK;
		rcu_read_end();
		if (err)
			return err;
		rp_hold(rp, &d->d);
	}
	rp->start = &d->d;
	*ret = d;
	return 0;
}

int memfs_permission(const struct memfs_inode *i, const struct cred *cred, int mask)
{
	struct perm_inode pi;
	int err;

	rcu_read_begin();
	pi = memfs_perm(i);
	err = vfs_permission(cred, &pi, mask);
	rcu_read_end();
	return err;
}

/* ---- what a change does to cached paths (vfs/path_cache.h) ---- */

#define PATHS_SCAN_MAX \
	1024 /* buckets and entries below a changed directory; beyond, all paths of the filesystem go */

static bool forget_below(struct memfs_dentry *d, unsigned *budget);

static bool forget(struct memfs_dentry *d, unsigned *budget)
{
	uint32_t marks = atomic_load_explicit(&d->d.flags, memory_order_seq_cst);

	dentry_path_changed(&d->d);
	return !(marks & DENTRY_PATH_BELOW) || forget_below(d, budget);
}

/* False when it is too much, or the directory changes under our feet. Recursion is bounded by the budget. */
static bool forget_below(struct memfs_dentry *d, unsigned *budget)
{
	struct memfs_inode *i = d->inode;
	uint32_t seq = seqcount_read_begin(&i->children_seq);
	struct memfs_table *t = rcu_load(i->table);

	for (uint32_t b = 0; t && b <= t->mask; b++) {
		struct memfs_dentry *c = rcu_load(t->buckets[b]);

		do {
			if (!(*budget)--) {
				*budget = 0;
				return false;
			}
			if (c && !forget(c, budget))
				return false;
			c = c ? rcu_load(c->hash_next) : NULL;
		} while (c);
	}
	return !seqcount_read_retry_acquired(&i->children_seq, seq);
}

void memfs_paths_forget(struct memfs_dentry *d)
{
	unsigned budget = PATHS_SCAN_MAX;

	rcu_read_begin();
	if (!forget(d, &budget))
		filesystem_paths_changed(d->d.fs);
	rcu_read_end();
}

void memfs_link_followed(struct dentry *d, struct mount *m)
{
	memfs_update_atime(memfs_dentry_of(d)->inode, m, 0);
}

/* ---- what a stacked filesystem asks ---- */

bool memfs_peek_perm(struct dentry *d, struct perm_inode *ret)
{
	*ret = memfs_perm(memfs_dentry_of(d)->inode);
	return true;
}

bool memfs_peek_stat(struct dentry *d, struct moat_statx *ret)
{
	memfs_inode_stat(memfs_dentry_of(d)->inode, ret);
	return true;
}

const char *memfs_peek_link(struct dentry *d, size_t *ret_len)
{
	struct memfs_link *l = memfs_link_of(memfs_dentry_of(d)->inode);

	*ret_len = l->len;
	return l->target;
}
