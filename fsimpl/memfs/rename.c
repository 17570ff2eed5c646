/*
 * fsimpl/memfs/rename.c - renameat2(2), with the checks in the order of do_renameat2() and vfs_rename().
 *
 * A rename between directories holds the filesystem's rename_lock, so that who is whose ancestor stands still; then the two
 * directories' locks, ancestor first (else by address), then the lock of a directory that is replaced.
 */
#include <linux/fs.h>
#include <string.h>
#include <unistd.h>

#include "fsimpl/memfs/internal.h"

struct rename {
	struct resolving_path *rp;
	struct memfs_fs *fs;
	struct memfs_dentry *from_dir, *to_dir;
	struct memfs_dentry *from, *to; /* `to` NULL: nothing there */
	const char *from_name, *to_name;
	size_t from_len, to_len;
	unsigned flags;
	bool from_slash;
	int64_t now;
	/* made before the locks */
	struct memfs_name *new_name, *back_name; /* back: RENAME_EXCHANGE's other half */
	struct memfs_dentry *whiteout;
	/* dropped after them */
	struct memfs_dentry *drop[4];
	unsigned ndrop;
};

static bool is_ancestor(struct memfs_dentry *a, struct memfs_dentry *d)
{
	return memfs_is_descendant(&d->d, &a->d);
}

static void lock_dirs(struct rename *r)
{
	struct memfs_dir *a = memfs_dir_of(r->from_dir), *b = memfs_dir_of(r->to_dir);

	if (a == b) {
		mutex_lock(&a->lock);
		return;
	}
	mutex_lock(&r->fs->fs.rename_lock);
	if (is_ancestor(r->to_dir, r->from_dir) ||
	    (!is_ancestor(r->from_dir, r->to_dir) && (uintptr_t)b < (uintptr_t)a)) {
		mutex_lock(&b->lock);
		mutex_lock_nested(&a->lock);
	} else {
		mutex_lock(&a->lock);
		mutex_lock_nested(&b->lock);
	}
}

static void unlock_dirs(struct rename *r)
{
	struct memfs_dir *a = memfs_dir_of(r->from_dir), *b = memfs_dir_of(r->to_dir);

	mutex_unlock(&b->lock);
	if (a == b)
		return;
	mutex_unlock(&a->lock);
	mutex_unlock(&r->fs->fs.rename_lock);
}

/* Names and what they lead to. Both directories locked. */
static int lookup_locked(struct rename *r)
{
	r->from = memfs_dir_find_locked(memfs_dir_of(r->from_dir), r->from_name, r->from_len);
	if (!r->from)
		return -ENOENT;
	if (memfs_is_dead(r->to_dir))
		return -ENOENT;
	if (r->to_len > VFS_NAME_MAX)
		return memfs_name_error(r->to_dir);
	r->to = memfs_dir_find_locked(memfs_dir_of(r->to_dir), r->to_name, r->to_len);
	if (r->to && (r->flags & RENAME_NOREPLACE))
		return -EEXIST;
	if (r->flags & RENAME_EXCHANGE) {
		if (!r->to)
			return -ENOENT;
		if (!memfs_is_dir(r->to) && r->rp->trailing_slash)
			return -ENOTDIR;
	}
	/* Trailing slashes are for directories. */
	if (!memfs_is_dir(r->from)) {
		if (r->from_slash)
			return -ENOTDIR;
		if (!(r->flags & RENAME_EXCHANGE) && r->rp->trailing_slash)
			return -ENOTDIR;
	}
	/* Neither may lie in the other. */
	if (r->from_dir != r->to_dir) {
		if (is_ancestor(r->from, r->to_dir))
			return -EINVAL;
		if (r->to && is_ancestor(r->to, r->from_dir))
			return r->flags & RENAME_EXCHANGE ? -EINVAL : -ENOTEMPTY;
	}
	return 0;
}

static int may_delete(struct rename *r, struct memfs_dentry *dir, struct memfs_dentry *victim,
		      bool isdir)
{
	struct perm_inode dir_perm = memfs_perm(dir->inode), pi = memfs_perm(victim->inode);
	int err = vfs_may_delete(rp_cred(r->rp), &dir_perm, &pi, isdir);

	return !err && memfs_is_dead(dir) ? -ENOENT : err;
}

/* The part of vfs_rename() that asks. Locks held; an RCU section keeps the ACLs. */
static int check_locked(struct rename *r)
{
	const struct cred *cred = rp_cred(r->rp);
	bool is_dir = memfs_is_dir(r->from);
	bool to_is_dir = r->to && memfs_is_dir(r->to);
	struct perm_inode pi;
	int err;

	err = may_delete(r, r->from_dir, r->from, is_dir);
	if (err)
		return err;
	if (!r->to) {
		if (memfs_is_dead(r->to_dir))
			return -ENOENT;
		pi = memfs_perm(r->to_dir->inode);
		err = vfs_permission(cred, &pi, W_OK | X_OK);
	} else {
		err = may_delete(r, r->to_dir, r->to,
				 r->flags & RENAME_EXCHANGE ? to_is_dir : is_dir);
	}
	if (err)
		return err;
	/* A directory that moves has its ".." written. */
	if (r->from_dir != r->to_dir) {
		if (is_dir) {
			pi = memfs_perm(r->from->inode);
			err = vfs_permission(cred, &pi, W_OK);
		}
		if (!err && (r->flags & RENAME_EXCHANGE) && to_is_dir) {
			pi = memfs_perm(r->to->inode);
			err = vfs_permission(cred, &pi, W_OK);
		}
	}
	if (!err)
		err = vfs_dentry_delete_begin(r->rp, &r->from->d);
	if (!err && r->to)
		err = vfs_dentry_delete_begin(r->rp, &r->to->d);
	return err;
}

static void drop_later(struct rename *r, struct memfs_dentry *d)
{
	assert(r->ndrop < ARRAY_SIZE(r->drop));
	r->drop[r->ndrop++] = d;
}

static void move_name(struct rename *r, struct memfs_dentry *c, struct memfs_name **name)
{
	struct memfs_dentry *old_parent;

	memfs_dentry_rename(c, *name, &old_parent);
	*name = NULL;
	drop_later(r, old_parent);
}

static void exchange_locked(struct rename *r)
{
	bool from_is_dir = memfs_is_dir(r->from), to_is_dir = memfs_is_dir(r->to);
	struct memfs_dir *a = memfs_dir_of(r->from_dir), *b = memfs_dir_of(r->to_dir);
	uint64_t from_place = memfs_dir_remove_locked(a, r->from);
	uint64_t to_place = memfs_dir_remove_locked(b, r->to);

	move_name(r, r->from, &r->new_name);
	move_name(r, r->to, &r->back_name);
	/* Room is there: each directory lost one entry. */
	memfs_dir_insert_at_locked(b, r->from, to_place);
	memfs_dir_insert_at_locked(a, r->to, from_place);
	/* The insertions took references; the removals' go back. */
	drop_later(r, r->from);
	drop_later(r, r->to);
	if (r->from_dir != r->to_dir && from_is_dir != to_is_dir) {
		memfs_add_links(r->from_dir->inode, to_is_dir ? 1 : -1, r->now);
		memfs_add_links(r->to_dir->inode, from_is_dir ? 1 : -1, r->now);
	}
	memfs_touch(r->to->inode, MEMFS_CTIME, r->now);
}

/* A directory that is replaced must be empty, and nothing may come into it meanwhile. */
static int remove_target_locked(struct rename *r, uint64_t *ret_place)
{
	struct memfs_dir *victim = memfs_is_dir(r->to) ? memfs_dir_of(r->to) : NULL;
	int err = 0;

	if (victim) {
		mutex_lock_nested(&victim->lock); /* after its parent */
		if (atomic_load_explicit(&victim->count, memory_order_relaxed))
			err = -ENOTEMPTY;
	}
	if (!err) {
		*ret_place = memfs_dir_remove_locked(memfs_dir_of(r->to_dir), r->to);
		vfs_dentry_delete_end(&r->to->d);
		memfs_add_links(r->to->inode, victim ? -2 : -1, r->now);
		if (victim)
			memfs_add_links(r->to_dir->inode, -1, r->now);
		drop_later(r, r->to);
	}
	if (victim)
		mutex_unlock(&victim->lock);
	return err;
}

static int move_locked(struct rename *r)
{
	bool is_dir = memfs_is_dir(r->from);
	struct memfs_dir *a = memfs_dir_of(r->from_dir), *b = memfs_dir_of(r->to_dir);
	uint64_t from_place, to_place = 0;
	int err = 0;

	if (r->to)
		err = remove_target_locked(r, &to_place);
	if (err)
		return err;
	/* The new place first would need two names at once: readers that miss both look again (children_seq). */
	from_place = memfs_dir_remove_locked(a, r->from);
	move_name(r, r->from, &r->new_name);
	if (!r->to && a == b && !r->whiteout)
		to_place = from_place;
	if (to_place)
		memfs_dir_insert_at_locked(b, r->from, to_place);
	else
		memfs_dir_insert_locked(b, r->from);
	drop_later(r, r->from);
	if (r->whiteout)
		memfs_dir_insert_at_locked(a, r->whiteout, from_place);
	if (is_dir && r->from_dir != r->to_dir) {
		memfs_add_links(r->from_dir->inode, -1, r->now);
		memfs_add_links(r->to_dir->inode, 1, r->now);
	}
	return 0;
}

/* The two directories change as one for whoever looks names up, and for cached paths. */
static int change_locked(struct rename *r)
{
	struct memfs_dir *a = memfs_dir_of(r->from_dir), *b = memfs_dir_of(r->to_dir);
	bool exchange = r->flags & RENAME_EXCHANGE;
	int err = 0;

	/* An exchange needs no room: each directory loses one entry. */
	if (!exchange)
		err = memfs_dir_reserve_locked(b);
	if (!err && r->whiteout)
		err = memfs_dir_reserve_locked(a);
	if (err)
		return err;
	path_change_begin(&r->fs->fs);
	memfs_paths_forget(r->from);
	if (r->to)
		memfs_paths_forget(r->to);
	memfs_dir_change_begin(a);
	if (a != b)
		memfs_dir_change_begin(b);
	if (exchange)
		exchange_locked(r);
	else
		err = move_locked(r);
	if (a != b)
		memfs_dir_change_end(b);
	memfs_dir_change_end(a);
	path_change_end(&r->fs->fs);
	return err;
}

static int rename_locked(struct rename *r, bool *ret_same)
{
	int err;

	err = lookup_locked(r);
	if (err)
		return err;
	/* Two names of one file: nothing to do, and no question asked. */
	*ret_same = r->to && r->to->inode == r->from->inode;
	if (*ret_same)
		return 0;
	rcu_read_begin();
	err = check_locked(r);
	rcu_read_end();
	if (err)
		return err;
	err = change_locked(r);
	if (err)
		return err;
	memfs_touch(r->from_dir->inode, MEMFS_MTIME | MEMFS_CTIME, r->now);
	memfs_touch(r->to_dir->inode, MEMFS_MTIME | MEMFS_CTIME, r->now);
	memfs_touch(r->from->inode, MEMFS_CTIME, r->now);
	return 0;
}

static int make_whiteout(struct rename *r)
{
	struct memfs_new how = {.mode = S_IFCHR, .cred = rp_cred(r->rp), .dir = r->from_dir};
	struct memfs_inode *inode;
	int err;

	err = memfs_inode_create(r->fs, &how, &inode);
	if (err)
		return err;
	err = memfs_dentry_create(r->fs, r->from_dir, r->from_name, r->from_len, inode,
				  &r->whiteout);
	if (err)
		memfs_inode_unref(inode);
	return err;
}

static int prepare(struct rename *r)
{
	int err;

	err = memfs_name_create(r->to_dir, r->to_name, r->to_len, &r->new_name);
	if (!err && (r->flags & RENAME_EXCHANGE))
		err = memfs_name_create(r->from_dir, r->from_name, r->from_len, &r->back_name);
	if (!err && (r->flags & RENAME_WHITEOUT))
		err = make_whiteout(r);
	return err;
}

static void notify(struct rename *r)
{
	struct vfs_moved m = {.from_dir = &r->from_dir->d,
			      .to_dir = &r->to_dir->d,
			      .from = r->from_name,
			      .from_len = r->from_len,
			      .to = r->to_name,
			      .to_len = r->to_len,
			      .d = &r->from->d,
			      .isdir = memfs_is_dir(r->from)};

	if (r->flags & RENAME_EXCHANGE)
		m.exchanged = &r->to->d;
	else if (r->to)
		m.replaced = &r->to->d;
	vfs_notify_moved(&m);
}

static int rename_run(struct rename *r)
{
	bool same = false;
	int err;

	err = prepare(r);
	if (!err) {
		r->now = memfs_now();
		lock_dirs(r);
		err = rename_locked(r, &same);
		unlock_dirs(r);
	}
	if (!err && !same && vfs_notify_wanted())
		notify(r);
	memfs_name_free(r->new_name);
	memfs_name_free(r->back_name);
	for (unsigned i = 0; i < r->ndrop; i++)
		dentry_unref(&r->drop[i]->d);
	if (r->whiteout)
		dentry_unref(&r->whiteout->d);
	return err;
}

int memfs_rename_at(struct filesystem *fs, struct resolving_path *rp, struct dentry *old_parent,
		    const char *old_name, bool old_must_be_dir, const struct rename_args *args)
{
	struct rename r = {.rp = rp,
			   .fs = memfs_of(fs),
			   .from_dir = memfs_dentry_of(old_parent),
			   .from_name = old_name,
			   .from_len = strlen(old_name),
			   .from_slash = old_must_be_dir,
			   .flags = args->flags};
	int err;

	err = memfs_resolve(rp, true, &r.to_dir);
	if (!err)
		err = rp_begin_write(rp);
	if (err)
		return err;
	if (!memfs_is_dir(r.from_dir))
		return -ENOTDIR;
	if (r.from_len > VFS_NAME_MAX)
		return memfs_name_error(r.from_dir);
	r.to_name = rp_component(rp);
	r.to_len = rp_component_len(rp);
	return rename_run(&r);
}
