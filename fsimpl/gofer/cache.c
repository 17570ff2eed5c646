/*
 * fsimpl/gofer/cache.c - the dentry cache: what the server said about names, positive and negative.
 *
 * A hash table keyed by (parent dentry, name), read under RCU without a lock, changed under cache_lock. The cache holds one
 * reference on every dentry in it, and a dentry one on its parent, so cached directories stay while anything below
 * them does. A clock hand goes round the unused ones when there are more than max_dentries: a dentry used since it last
 * came by gets another round.
 *
 * A dentry's place (its key) changes only under tree_lock held for writing; whoever holds it for reading sees a still tree.
 * A dentry leaves the table by eviction only when the cache's reference is the last: nobody can have two dentries for one place.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "fsimpl/gofer/internal.h"

#define EVICT_SCAN_MAX 64

static uint64_t key_hash(const struct gofer_dentry *dir, const char *name, size_t len)
{
	return hash_bytes(name, len) ^ hash_u64((uint64_t)(uintptr_t)dir);
}

static struct gofer_dentry *_Atomic *bucket_of(struct gofer_fs *fs, uint64_t hash)
{
	return &fs->dentries[hash % GOFER_DENTRY_BUCKETS];
}

struct gofer_dentry *gofer_dentry_ref(struct gofer_dentry *d)
{
	dentry_ref(&d->d);
	return d;
}

void gofer_dentry_unref(struct gofer_dentry *d)
{
	if (d)
		dentry_unref(&d->d);
}

static void key_free_rcu(struct rcu_cb *cb)
{
	free(container_of(cb, struct gofer_key, rcu));
}

static void dentry_free_rcu(struct rcu_cb *cb)
{
	struct gofer_dentry *d = container_of(cb, struct gofer_dentry, rcu);

	free(atomic_load_explicit(&d->key, memory_order_relaxed));
	free(d);
}

/* filesystem_ops.dentry_release: it is not in the table, since that held a reference. */
void gofer_dentry_release(struct dentry *base)
{
	struct gofer_dentry *d = gofer_dentry_of(base);
	struct gofer_dentry *parent = gofer_parent(d);

	/* A chain of last references upwards, without recursion. */
	while (d) {
		assert(!d->hashed);
		if (d->inode)
			gofer_inode_unref(d->inode);
		dentry_fini(&d->d);
		rcu_call(&d->rcu, dentry_free_rcu);
		if (!parent || !ref_put(&parent->d.ref))
			return;
		d = parent;
		parent = gofer_parent(d);
	}
}

/* Takes the inode's reference and one on dir. */
static struct gofer_dentry *dentry_alloc(struct gofer_fs *fs, struct gofer_dentry *dir,
					 const char *name, size_t len, struct gofer_inode *inode)
{
	struct gofer_key *key = malloc(sizeof(*key) + len + 1);
	struct gofer_dentry *d = calloc(1, sizeof(*d));

	if (!d || !key) {
		free(d);
		free(key);
		return NULL;
	}
	key->parent = dir ? gofer_dentry_ref(dir) : NULL;
	key->hash = key_hash(dir, name, len);
	key->len = (uint16_t)len;
	memcpy(key->name, name, len);
	key->name[len] = '\0';
	dentry_init(&d->d, &fs->fs);
	d->inode = inode;
	atomic_init(&d->key, key);
	atomic_init(&d->recent, true);
	return d;
}

/* ---- the table ---- */

static bool key_matches(const struct gofer_key *key, uint64_t hash, const struct gofer_dentry *dir,
			const char *name, size_t len)
{
	return key->hash == hash && key->parent == dir && key->len == len &&
	       memcmp(key->name, name, len) == 0;
}

static struct gofer_dentry *table_find(struct gofer_fs *fs, struct gofer_dentry *dir, uint64_t hash,
				       const char *name, size_t len)
{
	struct gofer_dentry *d = rcu_load(*bucket_of(fs, hash));

	while (d && !key_matches(rcu_load(d->key), hash, dir, name, len))
		d = rcu_load(d->hash_next);
	return d;
}

/* Pre: cache_lock. The caller gives one reference to the table. */
static void table_insert_locked(struct gofer_fs *fs, struct gofer_dentry *d)
{
	struct gofer_dentry *_Atomic *b = bucket_of(fs, rcu_load(d->key)->hash);

	assert(!d->hashed);
	d->hashed = true;
	rcu_store(d->hash_next, rcu_load(*b));
	rcu_store(*b, d);
	TAILQ_INSERT_TAIL(&fs->clock, d, clock);
	fs->dentry_count++;
}

/* Pre: cache_lock. The table's reference becomes the caller's. */
static void table_remove_locked(struct gofer_fs *fs, struct gofer_dentry *d)
{
	struct gofer_dentry *_Atomic *p = bucket_of(fs, rcu_load(d->key)->hash);

	assert(d->hashed);
	while (rcu_load(*p) != d)
		p = &rcu_load(*p)->hash_next;
	/* d's own link stays: a reader that stands on it goes on. */
	rcu_store(*p, rcu_load(d->hash_next));
	TAILQ_REMOVE(&fs->clock, d, clock);
	fs->dentry_count--;
	d->hashed = false;
}

/* Drops the table's reference if it is the only one. Pre: d is hashed, cache_lock. */
static bool put_if_last(struct gofer_dentry *d)
{
	int32_t one = 1;

	return atomic_compare_exchange_strong(&d->d.ref.count, &one, 0);
}

/* Takes up to `steps` steps of the clock while there are more than `keep`. Pre: cache_lock. The caller releases the victims. */
static void evict_locked(struct gofer_fs *fs, unsigned keep, unsigned steps, bool even_recent,
			 struct gofer_dentry **victims, unsigned *inout_count, unsigned max)
{
	while (steps-- && fs->dentry_count > keep && *inout_count < max) {
		struct gofer_dentry *d = TAILQ_FIRST(&fs->clock);

		if (!d)
			return;
		TAILQ_REMOVE(&fs->clock, d, clock);
		TAILQ_INSERT_TAIL(&fs->clock, d, clock);
		if (atomic_load_explicit(&d->recent, memory_order_relaxed) && !even_recent) {
			atomic_store_explicit(&d->recent, false, memory_order_relaxed);
			continue;
		}
		if (!put_if_last(d))
			continue;
		table_remove_locked(fs, d);
		victims[(*inout_count)++] = d;
	}
}

static void release_all(struct gofer_dentry **victims, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		gofer_dentry_release(&victims[i]->d);
}

void gofer_cache_shrink(struct gofer_fs *fs)
{
	struct gofer_dentry *victims[EVICT_SCAN_MAX];
	unsigned count;

	/* Leaves first: a directory is free once what was below it is gone. */
	do {
		unsigned scanned = 0;

		count = 0;
		mutex_lock(&fs->cache_lock);
		while (count < EVICT_SCAN_MAX && scanned++ < fs->dentry_count)
			evict_locked(fs, 0, 1, true, victims, &count, EVICT_SCAN_MAX);
		mutex_unlock(&fs->cache_lock);
		release_all(victims, count);
	} while (count);
}

static void trim(struct gofer_fs *fs)
{
	struct gofer_dentry *victims[8];
	unsigned count = 0;

	if (likely(fs->dentry_count <= fs->max_dentries))
		return;
	mutex_lock(&fs->cache_lock);
	evict_locked(fs, fs->max_dentries, EVICT_SCAN_MAX, false, victims, &count,
		     ARRAY_SIZE(victims));
	mutex_unlock(&fs->cache_lock);
	release_all(victims, count);
}

/* ---- lookups ---- */

struct gofer_dentry *gofer_cache_find_rcu(struct gofer_fs *fs, struct gofer_dentry *dir,
					  const char *name, size_t len)
{
	struct gofer_dentry *d = table_find(fs, dir, key_hash(dir, name, len), name, len);

	if (d && !atomic_load_explicit(&d->recent, memory_order_relaxed))
		atomic_store_explicit(&d->recent, true, memory_order_relaxed);
	return d;
}

struct gofer_dentry *gofer_cache_find(struct gofer_fs *fs, struct gofer_dentry *dir,
				      const char *name, size_t len, bool *ret_negative)
{
	struct gofer_dentry *d;

	*ret_negative = false;
	rcu_read_begin();
	d = gofer_cache_find_rcu(fs, dir, name, len);
	if (d && !d->inode) {
		*ret_negative = true;
		d = NULL;
	} else if (d && !ref_tryget(&d->d.ref)) {
		d = NULL; /* being evicted */
	}
	rcu_read_end();
	return d;
}

/* ---- entering ---- */

/* The inode for a node: the one that is known, or a new one. A reference. */
static int inode_for(struct gofer_fs *fs, const struct p9_node *node, const struct p9_str *target,
		     struct gofer_inode **ret)
{
	struct gofer_inode *in, *fresh;
	unsigned b = hash_u64(node->qid.path) % GOFER_INODE_BUCKETS;
	int err;

	mutex_lock(&fs->cache_lock);
	LIST_FOREACH (in, &fs->inodes[b], hash_link)
		if (in->qid_path == node->qid.path && in->type == (node->mode & S_IFMT) &&
		    ref_tryget(&in->ref))
			break;
	mutex_unlock(&fs->cache_lock);
	if (in) {
		gofer_inode_update(in, node);
		*ret = in;
		return 0;
	}
	err = gofer_inode_create(fs, node, target, &fresh);
	if (err)
		return err;
	mutex_lock(&fs->cache_lock);
	LIST_FOREACH (in, &fs->inodes[b], hash_link)
		if (in->qid_path == node->qid.path && in->type == (node->mode & S_IFMT) &&
		    ref_tryget(&in->ref))
			break;
	if (!in) {
		LIST_INSERT_HEAD(&fs->inodes[b], fresh, hash_link);
		fresh->hashed = true;
		in = fresh;
		fresh = NULL;
	}
	mutex_unlock(&fs->cache_lock);
	if (fresh)
		gofer_inode_unref(fresh);
	*ret = in;
	return 0;
}

/* Takes d out of the table for good (its file is gone, or another is there). Gives the table's reference back. */
static void drop_stale(struct gofer_fs *fs, struct gofer_dentry *d)
{
	bool was_hashed;

	mutex_lock(&fs->cache_lock);
	was_hashed = d->hashed;
	if (was_hashed)
		table_remove_locked(fs, d);
	mutex_unlock(&fs->cache_lock);
	if (was_hashed) {
		gofer_path_changed(fs, d);
		gofer_dentry_unref(d);
	}
}

/* What the table has under the name, with a reference; negative ones too. */
static struct gofer_dentry *find_any(struct gofer_fs *fs, struct gofer_dentry *dir,
				     const char *name, size_t len)
{
	struct gofer_dentry *d;

	mutex_lock(&fs->cache_lock);
	d = table_find(fs, dir, key_hash(dir, name, len), name, len);
	if (d)
		gofer_dentry_ref(d);
	mutex_unlock(&fs->cache_lock);
	return d;
}

/* Inserts d unless the name has come to be there meanwhile; consumes the reference. Return: what is there, a reference. */
static struct gofer_dentry *insert_or_get(struct gofer_fs *fs, struct gofer_dentry *dir,
					  struct gofer_dentry *d)
{
	const struct gofer_key *key = rcu_load(d->key);
	struct gofer_dentry *old;

	mutex_lock(&fs->cache_lock);
	old = table_find(fs, dir, key->hash, key->name, key->len);
	if (old)
		gofer_dentry_ref(old);
	else
		table_insert_locked(fs, gofer_dentry_ref(d));
	mutex_unlock(&fs->cache_lock);
	if (!old) {
		trim(fs);
		return d;
	}
	gofer_dentry_unref(d);
	return old;
}

int gofer_cache_enter(struct gofer_fs *fs, struct gofer_dentry *dir, const char *name, size_t len,
		      const struct p9_node *node, const struct p9_str *target,
		      struct gofer_dentry **ret)
{
	for (;;) {
		struct gofer_dentry *d = find_any(fs, dir, name, len), *got;
		struct gofer_inode *in;
		int err;

		if (d && d->inode && d->inode->qid_path == node->qid.path &&
		    d->inode->type == (node->mode & S_IFMT)) {
			gofer_inode_update(d->inode, node);
			*ret = d;
			return 0;
		}
		if (d) {
			/* Negative, or (in a shared tree) another file by now. */
			drop_stale(fs, d);
			if (d->inode)
				atomic_fetch_or(&d->d.flags, DENTRY_DEAD);
			gofer_dentry_unref(d);
		}
		err = inode_for(fs, node, target, &in);
		if (err)
			return err;
		d = dentry_alloc(fs, dir, name, len, in);
		if (!d) {
			gofer_inode_unref(in);
			return -ENOMEM;
		}
		got = insert_or_get(fs, dir, d);
		if (got == d) {
			*ret = d;
			return 0;
		}
		/* Another reader of the tree entered it first: look at that. */
		gofer_dentry_unref(got);
	}
}

void gofer_cache_enter_negative(struct gofer_fs *fs, struct gofer_dentry *dir, const char *name,
				size_t len)
{
	struct gofer_dentry *d;

	if (fs->shared)
		return;
	d = dentry_alloc(fs, dir, name, len, NULL);
	if (d)
		gofer_dentry_unref(insert_or_get(fs, dir, d));
}

void gofer_cache_forget_negative(struct gofer_fs *fs, struct gofer_dentry *dir, const char *name,
				 size_t len)
{
	struct gofer_dentry *d = find_any(fs, dir, name, len);

	if (d && !d->inode)
		drop_stale(fs, d);
	gofer_dentry_unref(d);
}

void gofer_cache_vanished(struct gofer_fs *fs, struct gofer_dentry *dir, const char *name,
			  size_t len)
{
	struct gofer_dentry *d = find_any(fs, dir, name, len);

	if (!d)
		return;
	drop_stale(fs, d);
	/* Open files keep it: by its old name another file might be reached. */
	atomic_fetch_or(&d->d.flags, DENTRY_DEAD);
	gofer_dentry_unref(d);
}

/* The table's entry for the name, positive or not, goes; the dentry itself lives on elsewhere or is about to die. */
static void forget(struct gofer_fs *fs, struct gofer_dentry *dir, const char *name, size_t len)
{
	struct gofer_dentry *d = find_any(fs, dir, name, len);

	if (d) {
		drop_stale(fs, d);
		gofer_dentry_unref(d);
	}
}

void gofer_cache_remove(struct gofer_fs *fs, struct gofer_dentry *d)
{
	const struct gofer_key *key = rcu_load(d->key);

	drop_stale(fs, d);
	gofer_cache_enter_negative(fs, key->parent, key->name, key->len);
}

/* Gives d a new key; the caller has it out of the table. */
static int rekey(struct gofer_dentry *d, struct gofer_dentry *dir, const char *name, size_t len)
{
	struct gofer_key *key = malloc(sizeof(*key) + len + 1), *old = rcu_load(d->key);

	if (!key)
		return -ENOMEM;
	key->parent = gofer_dentry_ref(dir);
	key->hash = key_hash(dir, name, len);
	key->len = (uint16_t)len;
	memcpy(key->name, name, len);
	key->name[len] = '\0';
	rcu_store(d->key, key);
	gofer_dentry_unref(old->parent);
	rcu_call(&old->rcu, key_free_rcu);
	return 0;
}

void gofer_cache_move(struct gofer_fs *fs, struct gofer_dentry *d, struct gofer_dentry *dir,
		      const char *name, size_t len)
{
	bool was_hashed;

	forget(fs, dir, name, len);
	mutex_lock(&fs->cache_lock);
	was_hashed = d->hashed;
	if (was_hashed)
		table_remove_locked(fs, d);
	mutex_unlock(&fs->cache_lock);
	gofer_path_changed(fs, d);
	if (rekey(d, dir, name, len) == 0 && was_hashed) {
		mutex_lock(&fs->cache_lock);
		table_insert_locked(fs, d);
		mutex_unlock(&fs->cache_lock);
	} else if (was_hashed) {
		gofer_dentry_unref(d);
	}
}

void gofer_cache_exchange(struct gofer_fs *fs, struct gofer_dentry *a, struct gofer_dentry *b)
{
	const struct gofer_key *ka = rcu_load(a->key), *kb = rcu_load(b->key);
	struct gofer_dentry *pa = gofer_dentry_ref(ka->parent), *pb = gofer_dentry_ref(kb->parent);
	char na[P9_NAME_MAX + 1], nb[P9_NAME_MAX + 1];
	size_t la = ka->len, lb = kb->len;

	memcpy(na, ka->name, la);
	memcpy(nb, kb->name, lb);
	/* b leaves the table for a moment; nobody walks while tree_lock is held for writing, RCU readers only miss. */
	mutex_lock(&fs->cache_lock);
	if (b->hashed) {
		table_remove_locked(fs, b);
		mutex_unlock(&fs->cache_lock);
		gofer_cache_move(fs, a, pb, nb, lb);
		gofer_path_changed(fs, b);
		if (rekey(b, pa, na, la) == 0) {
			mutex_lock(&fs->cache_lock);
			table_insert_locked(fs, b);
			mutex_unlock(&fs->cache_lock);
		} else {
			gofer_dentry_unref(b);
		}
	} else {
		mutex_unlock(&fs->cache_lock);
	}
	gofer_dentry_unref(pa);
	gofer_dentry_unref(pb);
}

int gofer_dentry_create_root(struct gofer_fs *fs, const struct p9_node *node)
{
	struct gofer_inode *in;
	int err = inode_for(fs, node, NULL, &in);

	if (err)
		return err;
	fs->root = dentry_alloc(fs, NULL, "", 0, in);
	if (!fs->root) {
		gofer_inode_unref(in);
		return -ENOMEM;
	}
	return 0;
}

int gofer_dentry_create_unnamed(struct gofer_fs *fs, struct gofer_dentry *dir,
				const struct p9_node *node, struct gofer_dentry **ret)
{
	struct gofer_inode *in;
	char name[32];
	int err = inode_for(fs, node, NULL, &in);

	if (err)
		return err;
	/* Linux shows "#ino (deleted)". */
	snprintf(name, sizeof(name), "#%llu", (unsigned long long)node->qid.path);
	*ret = dentry_alloc(fs, dir, name, strlen(name), in);
	if (!*ret) {
		gofer_inode_unref(in);
		return -ENOMEM;
	}
	return 0;
}

void gofer_inode_unhash(struct gofer_inode *in)
{
	mutex_lock(&in->fs->cache_lock);
	if (in->hashed) {
		LIST_REMOVE(in, hash_link);
		in->hashed = false;
	}
	mutex_unlock(&in->fs->cache_lock);
}

void gofer_path_changed(struct gofer_fs *fs, struct gofer_dentry *d)
{
	dentry_path_changed(&d->d);
	/* What is cached below a directory is not looked for: all cached paths of the filesystem go. */
	if (d->inode && gofer_is_dir(d))
		filesystem_paths_changed(&fs->fs);
}
