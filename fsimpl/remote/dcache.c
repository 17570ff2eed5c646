/* fsimpl/remote/dcache.c - see dcache.h. */
#include "fsimpl/remote/dcache.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "vfs/inotify.h"

#define EVICT_SCAN_MAX 64

static uint64_t key_hash(const struct remote_dentry *dir, const char *name, size_t len)
{
	return hash_bytes(name, len) ^ hash_u64((uint64_t)(uintptr_t)dir);
}

static struct remote_dentry *_Atomic *bucket_of(struct remote_dcache *c, uint64_t hash)
{
	return &c->buckets[hash % REMOTE_DENTRY_BUCKETS];
}

void remote_dcache_init(struct remote_dcache *c, struct filesystem *fs,
			void (*inode_unref)(struct remote_inode *in),
			bool (*inode_gone)(struct remote_inode *in), unsigned max)
{
	c->fs = fs;
	c->inode_unref = inode_unref;
	c->inode_gone = inode_gone;
	c->max = max;
	mutex_init(&c->lock, LOCK_FS_DIR, "remote dentries");
	TAILQ_INIT(&c->clock);
}

/* ---- life ---- */

struct remote_dentry *remote_dentry_ref(struct remote_dentry *d)
{
	dentry_ref(&d->d);
	return d;
}

void remote_dentry_unref(struct remote_dentry *d)
{
	if (d)
		dentry_unref(&d->d);
}

static void key_free_rcu(struct rcu_cb *cb)
{
	free(container_of(cb, struct remote_key, rcu));
}

static void dentry_free_rcu(struct rcu_cb *cb)
{
	struct remote_dentry *d = container_of(cb, struct remote_dentry, rcu);

	free(atomic_load_explicit(&d->key, memory_order_relaxed));
	free(d);
}

void *remote_inode_hold(struct dentry *d)
{
	struct remote_inode *in = remote_dentry_of(d)->inode;

	ref_get(&in->ref);
	return in;
}

/* It is not in the table, since that held a reference. */
void remote_dentry_release(struct remote_dcache *c, struct remote_dentry *d)
{
	struct remote_dentry *parent = remote_parent(d);

	/* A chain of last references upwards, without recursion. */
	while (d) {
		assert(!d->hashed);
		if (vfs_notify_wanted() && d->inode && c->inode_gone(d->inode))
			vfs_notify_gone_slow(&d->d);
		if (d->inode)
			c->inode_unref(d->inode);
		dentry_fini(&d->d);
		rcu_call(&d->rcu, dentry_free_rcu);
		if (!parent || !ref_put(&parent->d.ref))
			return;
		d = parent;
		parent = remote_parent(d);
	}
}

static struct remote_key *key_create(struct remote_dentry *dir, const char *name, size_t len)
{
	struct remote_key *key = malloc(sizeof(*key) + len + 1);

	if (!key)
		return NULL;
	key->parent = dir ? remote_dentry_ref(dir) : NULL;
	key->hash = key_hash(dir, name, len);
	key->len = (uint16_t)len;
	memcpy(key->name, name, len);
	key->name[len] = '\0';
	return key;
}

struct remote_dentry *remote_dentry_create(struct remote_dcache *c, struct remote_dentry *dir,
					   const char *name, size_t len, struct remote_inode *in)
{
	struct remote_dentry *d = calloc(1, sizeof(*d));
	struct remote_key *key = d ? key_create(dir, name, len) : NULL;

	if (!key) {
		free(d);
		if (in)
			c->inode_unref(in);
		return NULL;
	}
	dentry_init(&d->d, c->fs);
	d->inode = in;
	if (in)
		atomic_fetch_or_explicit(&d->d.flags, in->dentry_flags, memory_order_relaxed);
	atomic_init(&d->key, key);
	atomic_init(&d->recent, true);
	return d;
}

/* ---- the table ---- */

static bool key_matches(const struct remote_key *key, uint64_t hash,
			const struct remote_dentry *dir, const char *name, size_t len)
{
	return key->hash == hash && key->parent == dir && key->len == len &&
	       memcmp(key->name, name, len) == 0;
}

static struct remote_dentry *table_find(struct remote_dcache *c, struct remote_dentry *dir,
					uint64_t hash, const char *name, size_t len)
{
	struct remote_dentry *d = rcu_load(*bucket_of(c, hash));

	while (d && !key_matches(rcu_load(d->key), hash, dir, name, len))
		d = rcu_load(d->hash_next);
	return d;
}

/* Locked. The caller gives one reference to the table. */
static void table_insert(struct remote_dcache *c, struct remote_dentry *d)
{
	struct remote_dentry *_Atomic *b = bucket_of(c, rcu_load(d->key)->hash);

	assert(!d->hashed);
	d->hashed = true;
	rcu_store(d->hash_next, rcu_load(*b));
	rcu_store(*b, d);
	TAILQ_INSERT_TAIL(&c->clock, d, clock);
	c->count++;
}

/* Locked. The table's reference becomes the caller's. */
static void table_remove(struct remote_dcache *c, struct remote_dentry *d)
{
	struct remote_dentry *_Atomic *p = bucket_of(c, rcu_load(d->key)->hash);

	assert(d->hashed);
	while (rcu_load(*p) != d)
		p = &rcu_load(*p)->hash_next;
	/* d's own link stays: a reader that stands on it goes on. */
	rcu_store(*p, rcu_load(d->hash_next));
	TAILQ_REMOVE(&c->clock, d, clock);
	c->count--;
	d->hashed = false;
}

/* Drops the table's reference if it is the only one. Locked. */
static bool put_if_last(struct remote_dentry *d)
{
	int32_t one = 1;

	return atomic_compare_exchange_strong(&d->d.ref.count, &one, 0);
}

/* Takes up to `steps` steps of the clock while there are more than `keep`. Locked; the caller releases the victims. */
static unsigned evict(struct remote_dcache *c, unsigned keep, unsigned steps, bool even_recent,
		      struct remote_dentry **victims, unsigned max)
{
	unsigned count = 0;

	while (steps-- && c->count > keep && count < max) {
		struct remote_dentry *d = TAILQ_FIRST(&c->clock);

		if (!d)
			break;
		TAILQ_REMOVE(&c->clock, d, clock);
		TAILQ_INSERT_TAIL(&c->clock, d, clock);
		if (atomic_load_explicit(&d->recent, memory_order_relaxed) && !even_recent) {
			atomic_store_explicit(&d->recent, false, memory_order_relaxed);
			continue;
		}
		if (!put_if_last(d))
			continue;
		table_remove(c, d);
		victims[count++] = d;
	}
	return count;
}

static void release_all(struct remote_dcache *c, struct remote_dentry **victims, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		remote_dentry_release(c, victims[i]);
}

void remote_shrink(struct remote_dcache *c)
{
	struct remote_dentry *victims[EVICT_SCAN_MAX];
	unsigned count;

	/* Leaves first: a directory is free once what was below it is gone. */
	do {
		mutex_lock(&c->lock);
		count = evict(c, 0, c->count, true, victims, EVICT_SCAN_MAX);
		mutex_unlock(&c->lock);
		release_all(c, victims, count);
	} while (count);
}

static void trim(struct remote_dcache *c)
{
	struct remote_dentry *victims[8];
	unsigned count;

	if (likely(c->count <= c->max))
		return;
	mutex_lock(&c->lock);
	count = evict(c, c->max, EVICT_SCAN_MAX, false, victims, ARRAY_SIZE(victims));
	mutex_unlock(&c->lock);
	release_all(c, victims, count);
}

/* ---- lookups ---- */

struct remote_dentry *remote_find_rcu(struct remote_dcache *c, struct remote_dentry *dir,
				      const char *name, size_t len)
{
	struct remote_dentry *d = table_find(c, dir, key_hash(dir, name, len), name, len);

	if (d && !atomic_load_explicit(&d->recent, memory_order_relaxed))
		atomic_store_explicit(&d->recent, true, memory_order_relaxed);
	return d;
}

struct remote_dentry *remote_find(struct remote_dcache *c, struct remote_dentry *dir,
				  const char *name, size_t len)
{
	struct remote_dentry *d;

	rcu_read_begin();
	d = remote_find_rcu(c, dir, name, len);
	if (d && !ref_tryget(&d->d.ref))
		d = NULL; /* being evicted */
	rcu_read_end();
	return d;
}

/* ---- changes ---- */

void remote_forget(struct remote_dcache *c, struct remote_dentry *d)
{
	bool was_hashed;

	mutex_lock(&c->lock);
	was_hashed = d->hashed;
	if (was_hashed)
		table_remove(c, d);
	mutex_unlock(&c->lock);
	if (!was_hashed)
		return;
	dentry_path_changed(&d->d);
	remote_dentry_unref(d);
}

void remote_forget_negative(struct remote_dcache *c, struct remote_dentry *dir, const char *name,
			    size_t len)
{
	struct remote_dentry *d = remote_find(c, dir, name, len);

	if (d && !d->inode)
		remote_forget(c, d);
	remote_dentry_unref(d);
}

/* In a read section. */
static bool is_below(const struct remote_dentry *d, const struct remote_dentry *dir)
{
	do
		d = remote_parent(d);
	while (d && d != dir);
	return d != NULL;
}

TAILQ_HEAD(remote_dentries, remote_dentry);

/* Takes what is below dir out of the table, at any depth: what holds it may itself be out already. Its references become the list's. */
static void take_below(struct remote_dcache *c, const struct remote_dentry *dir,
		       struct remote_dentries *ret)
{
	struct remote_dentry *d, *next;

	mutex_lock(&c->lock);
	/* The tree lock is not held: keys change. */
	rcu_read_begin();
	for (d = TAILQ_FIRST(&c->clock); d; d = next) {
		next = TAILQ_NEXT(d, clock);
		if (!is_below(d, dir))
			continue;
		table_remove(c, d);
		/* Only who took it out could put it in again: its link is ours. */
		TAILQ_INSERT_TAIL(ret, d, clock);
	}
	rcu_read_end();
	mutex_unlock(&c->lock);
}

void remote_watched_gone(struct remote_dcache *c, struct remote_dentry *dir)
{
	struct remote_dentries below = TAILQ_HEAD_INITIALIZER(below);
	struct remote_dentry *d;

	if (!vfs_notify_wanted() || !vfs_notify_watched(&dir->d))
		return;
	take_below(c, dir, &below);
	while ((d = TAILQ_FIRST(&below))) {
		TAILQ_REMOVE(&below, d, clock);
		dentry_path_changed(&d->d);
		/* The server has just found dir empty: somebody else removed it. */
		if (d->inode)
			remote_dentry_lost(d);
		remote_dentry_unref(d);
	}
}

/* Inserts d, or finds who was first. A reference; consumes d's in that case. */
static struct remote_dentry *insert_or_get(struct remote_dcache *c, struct remote_dentry *dir,
					   struct remote_dentry *d)
{
	const struct remote_key *key = rcu_load(d->key);
	struct remote_dentry *old;

	mutex_lock(&c->lock);
	old = table_find(c, dir, key->hash, key->name, key->len);
	if (old)
		remote_dentry_ref(old);
	else
		table_insert(c, remote_dentry_ref(d));
	mutex_unlock(&c->lock);
	if (!old) {
		trim(c);
		return d;
	}
	remote_dentry_unref(d);
	return old;
}

int remote_enter(struct remote_dcache *c, struct remote_dentry *dir, const char *name, size_t len,
		 struct remote_inode *in, int64_t valid_until, struct remote_dentry **ret)
{
	for (;;) {
		struct remote_dentry *d = remote_find(c, dir, name, len), *got;

		if (d && d->inode == in) {
			atomic_store_explicit(&d->valid_until, valid_until, memory_order_relaxed);
			if (in)
				c->inode_unref(in);
			*ret = d;
			return 0;
		}
		if (d) {
			remote_forget(c, d);
			/* Open files keep it: by its old name another file is reached. */
			if (d->inode)
				remote_dentry_lost(d);
			remote_dentry_unref(d);
		}
		if (in)
			ref_get(&in->ref);
		d = remote_dentry_create(c, dir, name, len, in);
		if (!d) {
			if (in)
				c->inode_unref(in);
			return -ENOMEM;
		}
		atomic_store_explicit(&d->valid_until, valid_until, memory_order_relaxed);
		got = insert_or_get(c, dir, d);
		if (got == d) {
			if (in)
				c->inode_unref(in);
			*ret = d;
			return 0;
		}
		/* Another reader of the tree entered something first: look at that. */
		remote_dentry_unref(got);
	}
}

/* Gives d a new key; the caller has it out of the table. */
static int rekey(struct remote_dentry *d, struct remote_dentry *dir, const char *name, size_t len)
{
	struct remote_key *key = key_create(dir, name, len), *old = rcu_load(d->key);

	if (!key)
		return -ENOMEM;
	rcu_store(d->key, key);
	remote_dentry_unref(old->parent);
	rcu_call(&old->rcu, key_free_rcu);
	return 0;
}

/* Out of the table without a change of paths. True: it was in, and its reference is the caller's. */
static bool take_out(struct remote_dcache *c, struct remote_dentry *d)
{
	bool was_hashed;

	mutex_lock(&c->lock);
	was_hashed = d->hashed;
	if (was_hashed)
		table_remove(c, d);
	mutex_unlock(&c->lock);
	return was_hashed;
}

/* d, out of the table with its reference, at its new place. */
static void put_at(struct remote_dcache *c, struct remote_dentry *d, struct remote_dentry *dir,
		   const char *name, size_t len)
{
	dentry_path_changed(&d->d);
	if (rekey(d, dir, name, len)) {
		remote_dentry_unref(d);
		return;
	}
	mutex_lock(&c->lock);
	table_insert(c, d);
	mutex_unlock(&c->lock);
}

void remote_move(struct remote_dcache *c, struct remote_dentry *d, struct remote_dentry *dir,
		 const char *name, size_t len)
{
	struct remote_dentry *there = remote_find(c, dir, name, len);

	if (there) {
		remote_forget(c, there);
		remote_dentry_unref(there);
	}
	if (take_out(c, d)) {
		put_at(c, d, dir, name, len);
	} else {
		dentry_path_changed(&d->d);
		/* Not cached, but open: its path is the new one. On -ENOMEM it keeps the old. */
		(void)!rekey(d, dir, name, len);
	}
}

void remote_exchange(struct remote_dcache *c, struct remote_dentry *a, struct remote_dentry *b)
{
	struct remote_dentry *pa = remote_dentry_ref(remote_parent(a)),
			     *pb = remote_dentry_ref(remote_parent(b));
	char na[VFS_NAME_MAX + 1], nb[VFS_NAME_MAX + 1];
	size_t la = rcu_load(a->key)->len, lb = rcu_load(b->key)->len;
	bool a_in, b_in;

	memcpy(na, rcu_load(a->key)->name, la);
	memcpy(nb, rcu_load(b->key)->name, lb);
	/* Both leave the table for a moment; nobody walks while the tree lock is held for writing, RCU readers only miss. */
	a_in = take_out(c, a);
	b_in = take_out(c, b);
	if (a_in)
		put_at(c, a, pb, nb, lb);
	if (b_in)
		put_at(c, b, pa, na, la);
	remote_dentry_unref(pa);
	remote_dentry_unref(pb);
}

int remote_get_parent(struct dentry *base, struct dentry **ret_parent, char *name, size_t size)
{
	struct remote_dentry *d = remote_dentry_of(base), *parent;
	const struct remote_key *key;

	for (;;) {
		rcu_read_begin();
		key = rcu_load(d->key);
		parent = key->parent;
		if (size)
			snprintf(name, size, "%s", key->name);
		if (!parent || ref_tryget(&parent->d.ref)) {
			rcu_read_end();
			break;
		}
		/* A rename replaced the key while we looked. */
		rcu_read_end();
	}
	*ret_parent = parent ? &parent->d : NULL;
	return remote_is_dead(d) ? -ENOENT : 0;
}
