/*
 * fsimpl/overlay/tree.c - overlay dentries.
 *
 * A dentry exists while somebody refers to it; a child pins its parent. The filesystem's cache (a ring of references) keeps
 * recently used ones alive, so that a repeated walk does not ask the layers again.
 */
#include <stdlib.h>
#include <string.h>

#include "fsimpl/overlay/internal.h"

static int inode_compare(struct overlay_inode *a, struct overlay_inode *b)
{
	return (a->upper_key > b->upper_key) - (a->upper_key < b->upper_key);
}

RB_GENERATE_LOCAL(overlay_inodes, overlay_inode, node, inode_compare)

static REF_TYPE(overlay_inode_type, "overlay inode");

void overlay_found_fini(struct overlay_found *f)
{
	free(f->redirect);
	f->redirect = NULL;
	if (f->upper)
		dentry_unref(f->upper);
	for (unsigned i = 0; i < f->nlowers; i++)
		vfs_path_unref(&f->lowers[i]);
	f->upper = NULL;
	f->nlowers = 0;
}

/* ---- inodes ---- */

static void inode_hash_locked(struct overlay_fs *fs, struct overlay_inode *inode, uint64_t key)
{
	inode->upper_key = key;
	inode->hashed = !RB_INSERT(overlay_inodes, &fs->inodes, inode);
}

/* The inode of what was found: shared with the other names of the same upper file. */
static int inode_get(struct overlay_fs *fs, const struct overlay_found *f,
		     struct overlay_inode **ret)
{
	struct overlay_inode want = {.upper_key = f->upper_key}, *inode, *fresh;
	bool shared = f->upper_key && !S_ISDIR(f->type);

	fresh = calloc(1, sizeof(*fresh));
	if (!fresh)
		return -ENOMEM;
	ref_init(&fresh->ref, &overlay_inode_type);
	atomic_init(&fresh->ino, f->ino);
	*ret = fresh;
	if (!shared)
		return 0;
	mutex_lock(&fs->inodes_lock);
	inode = RB_FIND(overlay_inodes, &fs->inodes, &want);
	if (inode && ref_tryget(&inode->ref)) {
		*ret = inode;
	} else {
		if (inode) { /* dying */
			RB_REMOVE(overlay_inodes, &fs->inodes, inode);
			inode->hashed = false;
		}
		inode_hash_locked(fs, fresh, f->upper_key);
	}
	mutex_unlock(&fs->inodes_lock);
	if (*ret != fresh) {
		if (ref_put(&fresh->ref))
			ref_fini(&fresh->ref, &overlay_inode_type);
		free(fresh);
	}
	return 0;
}

static void inode_free(struct rcu_cb *cb)
{
	free(container_of(cb, struct overlay_inode, rcu));
}

static void inode_unref(struct overlay_fs *fs, struct overlay_inode *inode)
{
	if (!ref_put(&inode->ref))
		return;
	mutex_lock(&fs->inodes_lock);
	if (inode->hashed)
		RB_REMOVE(overlay_inodes, &fs->inodes, inode);
	mutex_unlock(&fs->inodes_lock);
	ref_fini(&inode->ref, &overlay_inode_type);
	rcu_call(&inode->rcu, inode_free);
}

void *overlay_inode_hold(struct dentry *d)
{
	ref_get(&overlay_of(d)->inode->ref);
	return overlay_of(d)->inode;
}

void overlay_inode_drop(struct filesystem *fs, void *inode)
{
	inode_unref(overlay_fs_of(fs), inode);
}

/* For inotify, as d is released. Watches keep the inode for a while yet, but the upper file's key may soon be another's. */
static void notify_gone(struct overlay_fs *fs, struct overlay_dentry *d)
{
	bool dead = atomic_load_explicit(&d->base.flags, memory_order_acquire) & DENTRY_DEAD;

	/* O_TMPFILE's has no name from the start. */
	if ((!dead && overlay_name(d)->len) || !overlay_parent(d) || !overlay_gone(fs, d))
		return;
	vfs_notify_gone_slow(&d->base);
	mutex_lock(&fs->inodes_lock);
	if (d->inode->hashed)
		RB_REMOVE(overlay_inodes, &fs->inodes, d->inode);
	d->inode->hashed = false;
	mutex_unlock(&fs->inodes_lock);
}

void overlay_inode_set_upper(struct overlay_fs *fs, struct overlay_dentry *d, struct dentry *upper,
			     uint64_t ino)
{
	struct overlay_inode want = {.upper_key = fs->upper_mount->fs->ops->inode_key(upper)};

	atomic_store_explicit(&d->inode->ino, ino, memory_order_relaxed);
	if (S_ISDIR(d->type))
		return;
	mutex_lock(&fs->inodes_lock);
	if (!d->inode->hashed && !RB_FIND(overlay_inodes, &fs->inodes, &want))
		inode_hash_locked(fs, d->inode, want.upper_key);
	mutex_unlock(&fs->inodes_lock);
}

/* ---- dentries ---- */

int overlay_dentry_create(struct overlay_fs *fs, struct overlay_dentry *parent, const char *name,
			  size_t len, struct overlay_found *f, struct overlay_dentry **ret)
{
	struct overlay_dentry *d = calloc(1, sizeof(*d));
	struct name *at;
	int err;

	if (!d)
		return -ENOMEM;
	err = inode_get(fs, f, &d->inode);
	if (err) {
		free(d);
		return err;
	}
	d->lowers = f->nlowers ? calloc(f->nlowers, sizeof(*d->lowers)) : NULL;
	if ((f->nlowers && !d->lowers) || name_create(parent, name, len, &at)) {
		inode_unref(fs, d->inode);
		free(d->lowers);
		free(d);
		return -ENOMEM;
	}
	dentry_init(&d->base, &fs->base);
	atomic_init(&d->at.name, at);
	d->id = atomic_fetch_add_explicit(&fs->next_id, 1, memory_order_relaxed);
	d->type = f->type;
	d->redirect = f->redirect;
	d->impure = f->impure;
	f->redirect = NULL;
	atomic_init(&d->upper, f->upper);
	if (f->nlowers)
		memcpy(d->lowers, f->lowers, f->nlowers * sizeof(*d->lowers));
	d->nlowers = f->nlowers;
	mutex_init(&d->lock, LOCK_FS_DIR, "overlay directory");
	atomic_init(&d->cache_slot, -1);
	f->upper = NULL;
	f->nlowers = 0;
	if (parent)
		dentry_ref(&parent->base);
	*ret = d;
	return 0;
}

static struct overlay_dentry *child_of(struct name_node *n)
{
	return n ? container_of(n, struct overlay_dentry, at) : NULL;
}

struct overlay_dentry *overlay_child_find(struct overlay_dentry *dir, const char *name, size_t len)
{
	struct overlay_dentry *d;

	rcu_read_begin();
	d = child_of(names_find(&dir->children, dir, vfs_name_hash(name, len), name, len));
	if (d && !ref_tryget(&d->base.ref))
		d = NULL;
	rcu_read_end();
	return d;
}

/* Who is in the place of `name` in its parent, live or dying. The parent's lock held. */
static struct overlay_dentry *find_at(const struct name *name)
{
	struct overlay_dentry *dir = name->parent;

	return child_of(names_find(&dir->children, dir, name->hash, name->s, name->len));
}

static void cache_add(struct overlay_fs *fs, struct overlay_dentry *d)
{
	uint32_t slot = atomic_fetch_add_explicit(&fs->cache_next, 1, memory_order_relaxed) %
			OVERLAY_CACHE_MAX;
	struct overlay_dentry *old;

	dentry_ref(&d->base);
	atomic_store(&d->cache_slot, (int32_t)slot);
	old = atomic_exchange(&fs->cache[slot], d);
	if (old)
		dentry_unref(&old->base);
	/* Entered, then looked: who removes d marks it dead, then takes it out (overlay_child_unlink()). */
	old = d;
	if (unlikely(atomic_load(&d->base.flags) & DENTRY_DEAD) &&
	    atomic_compare_exchange_strong(&fs->cache[slot], &old, NULL))
		dentry_unref(&d->base);
}

static void cache_remove(struct overlay_fs *fs, struct overlay_dentry *d)
{
	int32_t slot = atomic_exchange(&d->cache_slot, -1);
	struct overlay_dentry *expected = d;

	if (slot >= 0 && atomic_compare_exchange_strong(&fs->cache[slot], &expected, NULL))
		dentry_unref(&d->base);
}

/* Its release waits for dir's lock. Until then nobody may find it by a cached path that no change above finds. */
static void remove_dying(struct overlay_dentry *dir, struct overlay_dentry *d)
{
	dentry_release_begin(&d->base);
	names_remove(&dir->children, &d->at);
}

struct overlay_dentry *overlay_child_insert(struct overlay_dentry *dir, struct overlay_dentry *d,
					    uint32_t changes)
{
	struct overlay_dentry *other, *winner = NULL;

	mutex_lock(&dir->lock);
	if (seqcount_read_begin(&dir->changes) == changes && !(changes & 1)) {
		other = find_at(overlay_name(d));
		if (other && ref_tryget(&other->base.ref)) {
			winner = other;
		} else {
			if (other)
				remove_dying(dir, other);
			names_insert(&dir->children, &d->at);
			winner = d;
		}
	}
	mutex_unlock(&dir->lock);
	if (winner == d)
		cache_add(overlay_fs_of_dentry(d), d);
	else
		dentry_unref(&d->base);
	return winner;
}

void overlay_dir_change_begin(struct overlay_dentry *dir)
{
	mutex_lock(&dir->lock);
	assert(!(seqcount_read_begin(&dir->changes) & 1));
	seqcount_write_begin(&dir->changes);
	mutex_unlock(&dir->lock);
}

void overlay_dir_change_end(struct overlay_dentry *dir)
{
	mutex_lock(&dir->lock);
	seqcount_write_end(&dir->changes);
	mutex_unlock(&dir->lock);
}

static void unlink_from_parent(struct overlay_dentry *d)
{
	struct overlay_dentry *dir = overlay_parent(d);

	mutex_lock(&dir->lock);
	names_remove(&dir->children, &d->at);
	mutex_unlock(&dir->lock);
}

void overlay_child_unlink(struct overlay_dentry *d)
{
	unlink_from_parent(d);
	cache_remove(overlay_fs_of_dentry(d), d);
}

void overlay_child_move(struct overlay_dentry *d, struct name *name)
{
	struct overlay_dentry *dir = name->parent, *old_dir = overlay_parent(d), *dying;
	struct name *old = name_of(&d->at);

	unlink_from_parent(d);
	mutex_lock(&dir->lock);
	dying = find_at(name);
	if (dying)
		remove_dying(dir, dying);
	rcu_store(d->at.name, name);
	names_insert(&dir->children, &d->at);
	mutex_unlock(&dir->lock);
	name_free_later(old);
	dentry_unref(&old_dir->base);
}

static void free_dentry(struct rcu_cb *cb)
{
	struct overlay_dentry *d = container_of(cb, struct overlay_dentry, rcu);

	free(name_of(&d->at));
	free(d->lowers);
	free(d->redirect);
	free(d);
}

/* filesystem_ops.dentry_release: the count is zero. Lock-free walks may still stand on d: what they read stays until they are gone. */
void overlay_dentry_release(struct dentry *base)
{
	struct overlay_dentry *d = overlay_of(base), *parent = overlay_parent(d);
	struct dentry *upper = overlay_upper(d);

	dentry_release_begin(base);
	if (parent)
		unlink_from_parent(d);
	if (vfs_notify_wanted())
		notify_gone(overlay_fs_of_dentry(d), d);
	/* Before the upper file goes: its key may then be another's. */
	inode_unref(overlay_fs_of_dentry(d), d->inode);
	if (upper)
		dentry_unref(upper);
	for (unsigned i = 0; i < d->nlowers; i++) {
		dentry_unref(d->lowers[i].dentry);
		mount_unref(d->lowers[i].mount);
	}
	names_fini(&d->children);
	dentry_fini(base);
	rcu_call(&d->rcu, free_dentry);
	if (parent)
		dentry_unref(&parent->base);
}

int overlay_get_parent(struct dentry *base, struct dentry **ret_parent, char *name, size_t size)
{
	struct overlay_dentry *d = overlay_of(base), *parent;
	const struct name *n;
	int err = 0;
	bool ok;

	do {
		rcu_read_begin();
		n = overlay_name(d);
		parent = n->parent;
		/* It is pinned by d; it can only have been moved away from just now. */
		ok = !parent || ref_tryget(&parent->base.ref);
		if (ok && n->len < size)
			memcpy(name, n->s, n->len + 1u);
		else if (ok && size)
			err = -ENAMETOOLONG;
		rcu_read_end();
	} while (!ok);
	*ret_parent = parent ? &parent->base : NULL;
	if (!err && (atomic_load(&d->base.flags) & DENTRY_DEAD))
		err = -ENOENT;
	return err;
}

bool overlay_is_descendant(struct dentry *base, struct dentry *ancestor)
{
	struct overlay_dentry *d = overlay_of(base);

	rcu_read_begin();
	while (d && &d->base != ancestor)
		d = overlay_parent(d);
	rcu_read_end();
	return d != NULL;
}
