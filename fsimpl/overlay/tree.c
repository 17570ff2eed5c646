/*
 * fsimpl/overlay/tree.c - overlay dentries.
 *
 * A dentry exists while somebody refers to it; a child pins its parent. The filesystem's cache (a ring of references) keeps
 * recently used ones alive, so that a repeated walk does not ask the layers again.
 */
#include <stdlib.h>
#include <string.h>

#include "fsimpl/overlay/internal.h"

static int compare_names(const char *a, size_t alen, const char *b, size_t blen)
{
	int c = memcmp(a, b, MIN(alen, blen));

	return c ? c : (alen > blen) - (alen < blen);
}

static int overlay_compare(struct overlay_dentry *a, struct overlay_dentry *b)
{
	return compare_names(a->name, a->name_len, b->name, b->name_len);
}

RB_GENERATE_LOCAL(overlay_children, overlay_dentry, node, overlay_compare)

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
	int err;

	if (!d)
		return -ENOMEM;
	err = inode_get(fs, f, &d->inode);
	if (err) {
		free(d);
		return err;
	}
	d->name = strndup(name, len);
	d->lowers = f->nlowers ? calloc(f->nlowers, sizeof(*d->lowers)) : NULL;
	if (!d->name || (f->nlowers && !d->lowers)) {
		inode_unref(fs, d->inode);
		free(d->name);
		free(d->lowers);
		free(d);
		return -ENOMEM;
	}
	dentry_init(&d->base, &fs->base);
	d->name_len = len;
	d->type = f->type;
	d->redirect = f->redirect;
	d->impure = f->impure;
	f->redirect = NULL;
	atomic_init(&d->upper, f->upper);
	if (f->nlowers)
		memcpy(d->lowers, f->lowers, f->nlowers * sizeof(*d->lowers));
	d->nlowers = f->nlowers;
	mutex_init(&d->lock, LOCK_FS_DIR, "overlay directory");
	RB_INIT(&d->children);
	atomic_init(&d->cache_slot, -1);
	f->upper = NULL;
	f->nlowers = 0;
	if (parent) {
		dentry_ref(&parent->base);
		d->parent = parent;
	}
	*ret = d;
	return 0;
}

static struct overlay_dentry *find_locked(struct overlay_dentry *dir, const char *name, size_t len)
{
	struct overlay_dentry *d = RB_ROOT(&dir->children);

	while (d) {
		int c = compare_names(name, len, d->name, d->name_len);

		if (c == 0)
			return d;
		d = c < 0 ? RB_LEFT(d, node) : RB_RIGHT(d, node);
	}
	return NULL;
}

struct overlay_dentry *overlay_child_find(struct overlay_dentry *dir, const char *name, size_t len)
{
	struct overlay_dentry *d;

	mutex_lock(&dir->lock);
	d = find_locked(dir, name, len);
	if (d && !ref_tryget(&d->base.ref))
		d = NULL;
	mutex_unlock(&dir->lock);
	return d;
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
}

static void cache_remove(struct overlay_fs *fs, struct overlay_dentry *d)
{
	int32_t slot = atomic_exchange(&d->cache_slot, -1);
	struct overlay_dentry *expected = d;

	if (slot >= 0 && atomic_compare_exchange_strong(&fs->cache[slot], &expected, NULL))
		dentry_unref(&d->base);
}

struct overlay_dentry *overlay_child_insert(struct overlay_dentry *dir, struct overlay_dentry *d,
					    uint64_t gen)
{
	struct overlay_dentry *other, *winner = NULL;

	mutex_lock(&dir->lock);
	if (atomic_load(&dir->gen) == gen) {
		other = find_locked(dir, d->name, d->name_len);
		if (other && ref_tryget(&other->base.ref)) {
			winner = other;
		} else {
			if (other) { /* dying: its release finds that it is no longer linked */
				RB_REMOVE(overlay_children, &dir->children, other);
				other->linked = false;
			}
			RB_INSERT(overlay_children, &dir->children, d);
			d->linked = true;
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

void overlay_dir_changed(struct overlay_dentry *dir)
{
	mutex_lock(&dir->lock);
	atomic_fetch_add(&dir->gen, 1);
	mutex_unlock(&dir->lock);
}

static void unlink_from_parent(struct overlay_dentry *d)
{
	struct overlay_dentry *dir = d->parent;

	mutex_lock(&dir->lock);
	if (d->linked) {
		RB_REMOVE(overlay_children, &dir->children, d);
		d->linked = false;
	}
	atomic_fetch_add(&dir->gen, 1);
	mutex_unlock(&dir->lock);
}

void overlay_child_unlink(struct overlay_dentry *d)
{
	unlink_from_parent(d);
	cache_remove(overlay_fs_of_dentry(d), d);
}

void overlay_child_move(struct overlay_dentry *d, struct overlay_dentry *dir, char *name,
			size_t len)
{
	struct overlay_fs *fs = overlay_fs_of_dentry(d);
	struct overlay_dentry *old_dir = d->parent, *dying;
	char *old_name = d->name;

	unlink_from_parent(d);
	dentry_ref(&dir->base);
	mutex_lock(&dir->lock);
	mutex_lock(&fs->names_lock);
	d->parent = dir;
	d->name = name;
	d->name_len = len;
	mutex_unlock(&fs->names_lock);
	dying = find_locked(dir, name, len);
	if (dying) {
		RB_REMOVE(overlay_children, &dir->children, dying);
		dying->linked = false;
	}
	RB_INSERT(overlay_children, &dir->children, d);
	d->linked = true;
	atomic_fetch_add(&dir->gen, 1);
	mutex_unlock(&dir->lock);
	free(old_name);
	dentry_unref(&old_dir->base);
}

static void free_dentry(struct rcu_cb *cb)
{
	struct overlay_dentry *d = container_of(cb, struct overlay_dentry, rcu);

	free(d->name);
	free(d->lowers);
	free(d->redirect);
	free(d);
}

/* filesystem_ops.dentry_release: the count is zero. */
void overlay_dentry_release(struct dentry *base)
{
	struct overlay_dentry *d = overlay_of(base), *parent = d->parent;
	struct dentry *upper = overlay_upper(d);

	if (parent) {
		mutex_lock(&parent->lock);
		if (d->linked) {
			RB_REMOVE(overlay_children, &parent->children, d);
			d->linked = false;
		}
		mutex_unlock(&parent->lock);
	}
	/* Before the upper file goes: its key may then be another's. */
	inode_unref(overlay_fs_of_dentry(d), d->inode);
	if (upper)
		dentry_unref(upper);
	for (unsigned i = 0; i < d->nlowers; i++)
		vfs_path_unref(&d->lowers[i]);
	dentry_fini(base);
	rcu_call(&d->rcu, free_dentry);
	if (parent)
		dentry_unref(&parent->base);
}

int overlay_get_parent(struct dentry *base, struct dentry **ret_parent, char *name, size_t size)
{
	struct overlay_dentry *d = overlay_of(base);
	struct overlay_fs *fs = overlay_fs_of_dentry(d);
	int err = 0;

	mutex_lock(&fs->names_lock);
	*ret_parent = NULL;
	if (d->parent) {
		dentry_ref(&d->parent->base);
		*ret_parent = &d->parent->base;
	}
	if (d->name_len < size) {
		memcpy(name, d->name, d->name_len);
		name[d->name_len] = '\0';
	} else if (size) {
		err = -ENAMETOOLONG;
	}
	mutex_unlock(&fs->names_lock);
	if (!err && (atomic_load(&d->base.flags) & DENTRY_DEAD))
		err = -ENOENT;
	return err;
}
