/*
 * fsimpl/memfs/dir.c - directories: names to dentries, and entries in a stable order.
 *
 * Lookup is a hash table of singly linked chains, read under RCU, that doubles as the directory grows. Whoever finds a
 * matching name has its answer; a miss counts only if children_seq did not move meanwhile (an insertion, a removal or a
 * resize that moved a chain away under the reader).
 *
 * getdents needs cookies that survive concurrent changes: every entry gets the directory's next number when it comes, and a
 * red-black tree by number finds where to go on. Newest first, as Linux's tmpfs lists: a position says "what is older
 * than this", so what comes after the first read is not met and renaming what one reads ends. A number belongs to a name
 * rather than to a file: what replaces another takes that one's, and a name changed within the directory keeps it, so that
 * no rename hides from a listing a name that is there all the time.
 *
 * Listings take the directory's lock only to find where they go on. From there each entry points at the next older one, and
 * readers follow that under RCU as long as children_seq does not move: whoever stays in the directory stays in the chain, and
 * new entries come only before its first, so that nothing is missed or met twice.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/pool.h"
#include "fsimpl/memfs/internal.h"

#define TABLE_FIRST 4u
#define TABLE_MAX (1u << 26)
#define FIND_TRIES 4
#define POOL_NAME_MAX 31u /* names up to it have their memory from pools */
#define POS_START 2 /* after "." and "..": below every cookie, and no cookie itself */
#define LIST_RUN_MAX 4096 /* entries that a listing emits in one RCU read section */

static inline uint64_t cookie_of(const struct memfs_dentry *c)
{
	return atomic_load_explicit(&c->cookie, memory_order_acquire);
}

static int order_compare(struct memfs_dentry *a, struct memfs_dentry *b)
{
	return (cookie_of(a) > cookie_of(b)) - (cookie_of(a) < cookie_of(b));
}

RB_GENERATE_LOCAL(memfs_order, memfs_dentry, order, order_compare)

/* ---- names and dentries ---- */

/* A name that came by a rename. */
struct renamed {
	struct rcu_cb rcu;
	struct memfs_name name;
};

static struct pool dentry_pool =
	POOL_INIT(sizeof(struct memfs_dentry) + sizeof(struct memfs_name) + POOL_NAME_MAX + 1,
		  "memfs dentries");
static struct pool renamed_pool =
	POOL_INIT(sizeof(struct renamed) + POOL_NAME_MAX + 1, "memfs names");

static void name_init(struct memfs_name *n, struct memfs_dentry *parent, const char *s, size_t len)
{
	n->parent = parent;
	n->hash = vfs_name_hash(s, len);
	n->len = (uint16_t)len;
	memset(n->s, 0, sizeof(uint64_t));
	memcpy(n->s, s, len);
	n->s[len] = '\0';
}

int memfs_name_create(struct memfs_dentry *parent, const char *s, size_t len,
		      struct memfs_name **ret)
{
	struct renamed *r =
		len <= POOL_NAME_MAX ? pool_alloc(&renamed_pool) : malloc(sizeof(*r) + len + 1);

	if (!r)
		return -ENOMEM;
	name_init(&r->name, parent, s, len);
	r->name.inlined = false;
	*ret = &r->name;
	return 0;
}

void memfs_name_free(struct memfs_name *name)
{
	struct renamed *r;

	if (!name || name->inlined)
		return;
	r = container_of(name, struct renamed, name);
	if (name->len <= POOL_NAME_MAX)
		pool_free(&renamed_pool, r);
	else
		free(r);
}

int memfs_dentry_create(struct memfs_fs *fs, struct memfs_dentry *dir, const char *name, size_t len,
			struct memfs_inode *inode, struct memfs_dentry **ret)
{
	struct memfs_dentry *c = len <= POOL_NAME_MAX
					 ? pool_alloc(&dentry_pool)
					 : malloc(sizeof(*c) + sizeof(struct memfs_name) + len + 1);
	struct memfs_name *n;

	if (!c)
		return -ENOMEM;
	memset(c, 0, sizeof(*c));
	n = (struct memfs_name *)(c + 1);
	name_init(n, dir, name, len);
	n->inlined = true;
	dentry_init(&c->d, &fs->fs);
	c->inode = inode;
	atomic_init(&c->name, n);
	if (dir)
		dentry_ref(&dir->d);
	*ret = c;
	return 0;
}

static void dentry_free_cb(struct rcu_cb *cb)
{
	struct memfs_dentry *c = container_of(cb, struct memfs_dentry, rcu);
	const struct memfs_name *first = (const struct memfs_name *)(c + 1);

	memfs_name_free(memfs_name_of(c));
	if (first->len <= POOL_NAME_MAX)
		pool_free(&dentry_pool, c);
	else
		free(c);
}

void memfs_dentry_release(struct dentry *d)
{
	struct memfs_dentry *c = memfs_dentry_of(d), *parent;

	/* A loop, not a recursion: a chain of removed directories may be as deep as they were. */
	for (;;) {
		parent = memfs_name_of(c)->parent;
		if (vfs_notify_wanted() &&
		    !atomic_load_explicit(&c->inode->nlink, memory_order_acquire))
			vfs_notify_gone_slow(&c->d);
		memfs_inode_unref(c->inode);
		dentry_fini(&c->d);
		rcu_call_local(&c->rcu, dentry_free_cb);
		if (!parent || !ref_put(&parent->d.ref))
			return;
		c = parent;
	}
}

static void name_free_cb(struct rcu_cb *cb)
{
	memfs_name_free(&container_of(cb, struct renamed, rcu)->name);
}

void memfs_dentry_rename(struct memfs_dentry *c, struct memfs_name *name,
			 struct memfs_dentry **ret_old)
{
	struct memfs_name *old = atomic_exchange_explicit(&c->name, name, memory_order_acq_rel);

	*ret_old = old->parent;
	if (name->parent)
		dentry_ref(&name->parent->d);
	if (!old->inlined)
		rcu_call_local(&container_of(old, struct renamed, name)->rcu, name_free_cb);
}

int memfs_get_parent(struct dentry *d, struct dentry **ret_parent, char *name, size_t size)
{
	struct memfs_dentry *c = memfs_dentry_of(d);
	struct memfs_name *n;
	bool ok;

	do {
		rcu_read_begin();
		n = memfs_name_of(c);
		ok = !n->parent || ref_tryget(&n->parent->d.ref);
		*ret_parent = n->parent ? &n->parent->d : NULL;
		if (ok && size) {
			size_t len = MIN((size_t)n->len, size - 1);

			memcpy(name, n->s, len);
			name[len] = '\0';
		}
		rcu_read_end();
		/* The parent of a referenced dentry is pinned; it can only have been renamed away just now. */
	} while (!ok);
	return memfs_is_dead(c) ? -ENOENT : 0;
}

bool memfs_is_descendant(struct dentry *d, struct dentry *ancestor)
{
	struct memfs_dentry *c = memfs_dentry_of(d);

	rcu_read_begin();
	while (c && &c->d != ancestor)
		c = memfs_name_of(c)->parent;
	rcu_read_end();
	return c != NULL;
}

/* ---- lookup ---- */

static inline struct memfs_dentry *table_find(struct memfs_table *t, struct memfs_dentry *dir,
					      uint32_t hash, const char *name, size_t len)
{
	struct memfs_dentry *c;

	for (c = rcu_load(t->buckets[hash & t->mask]); c; c = rcu_load(c->hash_next)) {
		const struct memfs_name *n = memfs_name_of(c);

		if (n->hash == hash && n->len == len && n->parent == dir &&
		    !memcmp(n->s, name, len))
			return c;
	}
	return NULL;
}

static struct memfs_dentry *dir_find(struct memfs_dentry *dentry, uint32_t hash, const char *name,
				     size_t len)
{
	struct memfs_dir *dir = memfs_dir_of(dentry);
	struct memfs_dentry *c;
	struct memfs_table *t;
	uint32_t seq;

	for (int tries = 0; tries < FIND_TRIES; tries++) {
		seq = seqcount_read_begin(&dir->inode.children_seq);
		t = rcu_load(dir->inode.table);
		c = t ? table_find(t, dentry, hash, name, len) : NULL;
		/* A dentry that was just removed may still be seen: then the removal is what the caller is ordered before. */
		if (likely(c != NULL))
			return c;
		if (!seqcount_read_retry_acquired(&dir->inode.children_seq, seq))
			return NULL;
	}
	mutex_lock(&dir->lock);
	t = rcu_load(dir->inode.table);
	c = t ? table_find(t, dentry, hash, name, len) : NULL;
	mutex_unlock(&dir->lock);
	return c;
}

struct memfs_dentry *memfs_dir_find(struct memfs_dentry *dentry, const char *name, size_t len)
{
	return dir_find(dentry, vfs_name_hash(name, len), name, len);
}

struct memfs_dentry *memfs_dir_find_again(struct memfs_dentry *dentry,
					  const struct resolving_path *rp)
{
	return dir_find(dentry, rp_component_hash(rp), rp_component(rp), rp_component_len(rp));
}

struct memfs_dentry *memfs_dir_find_locked(struct memfs_dir *dir, const char *name, size_t len)
{
	uint32_t hash = vfs_name_hash(name, len);
	struct memfs_table *t = rcu_load(dir->inode.table);
	struct memfs_dentry *c;

	mutex_assert_held(&dir->lock);
	for (c = t ? rcu_load(t->buckets[hash & t->mask]) : NULL; c; c = rcu_load(c->hash_next)) {
		const struct memfs_name *n = memfs_name_of(c);

		if (n->hash == hash && n->len == len && !memcmp(n->s, name, len))
			return c;
	}
	return NULL;
}

/* ---- changes ---- */

static void table_free_cb(struct rcu_cb *cb)
{
	free(container_of(cb, struct memfs_table, rcu));
}

static void table_link(struct memfs_table *t, struct memfs_dentry *c)
{
	struct memfs_dentry *_Atomic *bucket = &t->buckets[memfs_name_of(c)->hash & t->mask];

	rcu_store(c->hash_next, rcu_load(*bucket));
	rcu_store(*bucket, c);
}

static int table_create(uint32_t size, struct memfs_table **ret)
{
	struct memfs_table *t = calloc(1, sizeof(*t) + size * sizeof(t->buckets[0]));

	if (!t)
		return -ENOMEM;
	t->mask = size - 1;
	*ret = t;
	return 0;
}

int memfs_dir_reserve_locked(struct memfs_dir *dir)
{
	struct memfs_table *old = rcu_load(dir->inode.table), *t;
	uint32_t count = atomic_load_explicit(&dir->count, memory_order_relaxed);
	uint32_t size = old ? (old->mask + 1) * 2 : TABLE_FIRST;
	int err;

	mutex_assert_held(&dir->lock);
	if (count == UINT32_MAX - 1)
		return -ENOSPC;
	if (old && (count <= old->mask || old->mask + 1 >= TABLE_MAX))
		return 0;
	err = table_create(size, &t);
	if (err) /* a longer chain will do */
		return old ? 0 : err;
	seqcount_write_begin(&dir->inode.children_seq);
	for (uint32_t i = 0; old && i <= old->mask; i++) {
		struct memfs_dentry *c = rcu_load(old->buckets[i]), *next;

		for (; c; c = next) {
			next = rcu_load(c->hash_next);
			table_link(t, c);
		}
	}
	rcu_store(dir->inode.table, t);
	seqcount_write_end(&dir->inode.children_seq);
	if (old)
		rcu_call(&old->rcu, table_free_cb);
	return 0;
}

void memfs_dir_insert_locked(struct memfs_dir *dir, struct memfs_dentry *c)
{
	memfs_dir_insert_at_locked(dir, c, dir->next_cookie++);
}

void memfs_dir_insert_at_locked(struct memfs_dir *dir, struct memfs_dentry *c, uint64_t cookie)
{
	struct memfs_dentry *newer;

	mutex_assert_held(&dir->lock);
	assert(atomic_load_explicit(&dir->inode.children_seq.seq, memory_order_relaxed) & 1);
	dentry_ref(&c->d);
	atomic_store_explicit(&c->cookie, cookie, memory_order_release);
	RB_INSERT(memfs_order, &dir->order, c);
	newer = RB_NEXT(memfs_order, &dir->order, c);
	rcu_store(c->older, RB_PREV(memfs_order, &dir->order, c));
	rcu_store(*(newer ? &newer->older : &dir->newest), c);
	table_link(rcu_load(dir->inode.table), c);
	atomic_fetch_add_explicit(&dir->count, 1, memory_order_relaxed);
}

int memfs_dir_enter(struct memfs_dentry *dir, const char *name, size_t len,
		    struct memfs_inode *inode, struct memfs_dentry **ret)
{
	struct memfs_dir *md = memfs_dir_of(dir);
	int64_t now = memfs_now();
	struct memfs_dentry *d;
	int err;

	err = memfs_dentry_create(memfs_of(dir->d.fs), dir, name, len, inode, &d);
	if (err) {
		memfs_inode_unref(inode);
		return err;
	}
	mutex_lock(&md->lock);
	if (memfs_is_dead(dir))
		err = -ENOENT;
	else if (memfs_dir_find_locked(md, name, len))
		err = -EEXIST;
	else
		err = memfs_dir_reserve_locked(md);
	if (!err) {
		memfs_dir_change_begin(md);
		memfs_dir_insert_locked(md, d);
		memfs_dir_change_end(md);
		memfs_touch(dir->inode, MEMFS_MTIME | MEMFS_CTIME, now);
		if (S_ISDIR(memfs_mode(inode)))
			memfs_add_links(dir->inode, 1, now);
	}
	mutex_unlock(&md->lock);
	if (err)
		dentry_unref(&d->d);
	else
		*ret = d;
	return err;
}

uint64_t memfs_dir_remove_locked(struct memfs_dir *dir, struct memfs_dentry *c)
{
	struct memfs_table *t = rcu_load(dir->inode.table);
	struct memfs_dentry *_Atomic *link = &t->buckets[memfs_name_of(c)->hash & t->mask];
	struct memfs_dentry *entry, *newer;

	mutex_assert_held(&dir->lock);
	assert(atomic_load_explicit(&dir->inode.children_seq.seq, memory_order_relaxed) & 1);
	newer = RB_NEXT(memfs_order, &dir->order, c);
	rcu_store(*(newer ? &newer->older : &dir->newest), rcu_load(c->older));
	RB_REMOVE(memfs_order, &dir->order, c);
	while ((entry = rcu_load(*link)) != c) {
		assert(entry);
		link = &entry->hash_next;
	}
	/* c keeps its own link: a reader that stands on it goes on. */
	rcu_store(*link, rcu_load(c->hash_next));
	atomic_fetch_sub_explicit(&dir->count, 1, memory_order_relaxed);
	return cookie_of(c);
}

/* Nobody else is there any more: everything below the root goes, leaves first. */
void memfs_tree_destroy(struct memfs_fs *fs)
{
	struct memfs_dentry *at = fs->root, *child;

	while (at) {
		struct memfs_dir *dir = memfs_dir_of(at);

		child = RB_MIN(memfs_order, &dir->order);
		if (child && memfs_is_dir(child)) {
			at = child;
		} else if (child) {
			RB_REMOVE(memfs_order, &dir->order, child);
			dentry_unref(&child->d);
		} else {
			struct memfs_dentry *up = memfs_name_of(at)->parent;

			if (up)
				RB_REMOVE(memfs_order, &memfs_dir_of(up)->order, at);
			dentry_unref(&at->d);
			at = up;
		}
	}
}

/* ---- open directories ---- */

static struct memfs_dentry *file_dentry(struct file *f)
{
	return memfs_dentry_of(f->path.dentry);
}

static uint64_t parent_ino(struct memfs_dentry *d)
{
	struct memfs_dentry *up;
	uint64_t ino;

	rcu_read_begin();
	up = memfs_name_of(d)->parent;
	ino = up ? up->inode->ino : d->inode->ino;
	rcu_read_end();
	return ino;
}

static bool emit(struct file *f, struct dir_emit *ctx, const char *name, size_t len, uint64_t ino,
		 uint32_t mode, int64_t next)
{
	if (!ctx->emit(ctx, name, len, ino, (mode & S_IFMT) >> 12, next))
		return false;
	f->pos = next;
	return true;
}

/* The newest entry whose cookie is below `pos`; at POS_START, the newest. dir's lock held. */
static struct memfs_dentry *entry_before(struct memfs_dir *dir, uint64_t pos)
{
	struct memfs_dentry key, *c;

	if (pos == POS_START)
		return rcu_load(dir->newest);
	atomic_init(&key.cookie, pos);
	c = RB_NFIND(memfs_order, &dir->order, &key);
	return c ? RB_PREV(memfs_order, &dir->order, c) : RB_MAX(memfs_order, &dir->order);
}

/* An entry as a listing sees it. */
struct listed {
	struct memfs_dentry *c, *older; /* c is NULL at the end */
	const struct memfs_name *name;
	uint64_t cookie;
};

/* What it read belongs together if children_seq did not move. */
static inline void entry_read(struct listed *l, struct memfs_dentry *c)
{
	l->c = c;
	if (!c)
		return;
	l->cookie = cookie_of(c);
	l->name = memfs_name_of(c);
	l->older = rcu_load(c->older);
}

/* Begins a read section, and finds the entry where a listing at `pos` goes on. Return: children_seq, for what comes after it. */
static uint32_t list_begin(struct memfs_dir *dir, uint64_t pos, struct listed *ret)
{
	uint32_t seq;

	if (pos == POS_START) {
		rcu_read_begin();
		seq = seqcount_read_begin(&dir->inode.children_seq);
		entry_read(ret, rcu_load(dir->newest));
		if (!seqcount_read_retry_acquired(&dir->inode.children_seq, seq))
			return seq;
		rcu_read_end();
	}
	mutex_lock(&dir->lock);
	rcu_read_begin();
	seq = seqcount_read_begin(&dir->inode.children_seq);
	entry_read(ret, entry_before(dir, pos));
	mutex_unlock(&dir->lock);
	return seq;
}

/* Emits what is older than f's position. Return: it stopped for a change, or to let others have their grace period. */
static bool list_run(struct file *f, struct dir_emit *ctx, struct memfs_dir *dir)
{
	struct listed l;
	uint32_t seq = list_begin(dir, (uint64_t)f->pos, &l);
	bool more = false;

	for (unsigned n = 0; l.c; n++) {
		/* What was emitted is where to go on: at least one entry a run, however much the directory changes. */
		if (n)
			more = n == LIST_RUN_MAX ||
			       seqcount_read_retry_acquired(&dir->inode.children_seq, seq);
		if (more || !emit(f, ctx, l.name->s, l.name->len, l.c->inode->ino,
				  memfs_mode(l.c->inode), (int64_t)l.cookie))
			break;
		entry_read(&l, l.older);
	}
	rcu_read_end();
	return more;
}

static int memfs_dir_iterate(struct file *f, struct dir_emit *ctx)
{
	struct memfs_dentry *d = file_dentry(f);
	struct memfs_dir *dir = memfs_dir_of(d);

	if (memfs_is_dead(d))
		return -ENOENT;
	memfs_update_atime(d->inode, f->path.mount, file_flags(f));
	if (f->pos == 0 && !emit(f, ctx, ".", 1, d->inode->ino, S_IFDIR, 1))
		return 0;
	if (f->pos == 1 && !emit(f, ctx, "..", 2, parent_ino(d), S_IFDIR, POS_START))
		return 0;
	while (list_run(f, ctx, dir))
		continue;
	return 0;
}

static void memfs_dir_release(struct file *f)
{
	file_free(f);
}

static int memfs_dir_fsync(struct file *f unused_arg, bool data_only unused_arg,
			   uint64_t start unused_arg, uint64_t end unused_arg)
{
	return 0;
}

static const struct file_ops memfs_dir_file_ops = {
	.name = "directory",
	.release = memfs_dir_release,
	.iterate = memfs_dir_iterate,
	.seek = file_seek_cookie,
	.fsync = memfs_dir_fsync,
	.ioctl = memfs_ioctl,
};

int memfs_open_dir(struct memfs_dentry *d unused_arg, const struct vfs_path *place, unsigned flags,
		   struct file **ret)
{
	struct file *f = calloc(1, sizeof(*f));

	if (!f)
		return -ENOMEM;
	file_init(f, &memfs_dir_file_ops, place, flags, 0);
	*ret = f;
	return 0;
}
