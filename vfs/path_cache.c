/*
 * vfs/path_cache.c - from a whole path to its place in constant time.
 *
 * The idea is that of Tsai et al., "How to Get More Value From Your File System Directory Cache" (SOSP 2015): a hit must not look at each
 * directory of the path. So a change of a directory looks for what is cached below it instead.
 *
 * An entry is found by (root, start, credentials id, flags, the path's bytes) in a table of PATH_CACHE_SETS sets of
 * PATH_CACHE_WAYS, and leads to (mount, dentry), or to ENOENT. It holds no references, so it pins neither files nor mounts.
 * Instead it lists generations: cells of one array, picked by hashing a pointer, never freed. Every cell was
 * read when the entry was made, and a hit compares them:
 *
 *   - the final dentry's. A path runs straight down from its start to its end, so any change of a directory on the
 *     way is a change above the end, and reaches its cell;
 *   - that of each dentry where the way bends: ".." leaves it, something is mounted on it, it is a symlink that was followed, names were
 *     missing in it. Each ends a straight piece in the sense above;
 *   - that of each filesystem on the way (filesystem_paths_changed(): "everything in here");
 *   - the mount epoch (any change of any mount table);
 *   - of a missing name: the directory's own count of changes to its names.
 *
 * A dentry's cell also moves when the dentry is freed, so an entry whose cells agree has only live dentries, as long as the
 * reader stays in its read section; likewise the mount epoch for mounts. Roots and starts are the caller's and live, but an
 * entry must not be met by a later root at the same address: mounts are compared by their unique ids, and dentries
 * that are no mount's root have their cells listed too.
 *
 * Making an entry. A path that is seen a second time by a thread is walked once more by a recording walk, which marks what it
 * passes (DENTRY_PATH_BELOW on directories, DENTRY_PATH_CACHED on what has its cell listed), so that changes elsewhere cost nothing. Writers count
 * themselves in path_changes, by thread: in its low bits those at work, above them those that are done; the sum of what the threads have grows always.
 *
 *	recording walk					change
 *	1 read path_changes: nobody at work		1 count in (seq_cst)
 *	2 walk, mark (seq_cst)				2 read marks, move cells
 *	3 read cells					3 change
 *	4 path_changes as in 1? enter it		4 count out
 *
 * If the walk saw the state before the change (its 2 before the change's 3), then either its 4 comes before the change's 1: all its marks and
 * its cells are older than the change's 2, which finds the marks and moves the cells; or its 4 sees the count differ. And since cells move
 * before the change can be seen, whoever has seen the change meets no entry from before it.
 *
 * Mounts: the epoch moves before and after each change and an entry has the value from before its walk.
 *
 * Never entered: paths with magic links or through filesystems without FS_PATH_CACHE, RESOLVE_* walks, final symlinks in sticky
 * world-writable directories (fs.protected_symlinks looks at more than directories), credentials without an id.
 *
 * Replacement is CLOCK within a set. Watch: vfs_path_cache_stats() (`moat debug`).
 */
#include "vfs/path_cache.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/shard.h"
#include "vfs/mount.h"
#include "vfs/resolving_path.h"
#include "vfs/vfs_internal.h"

#define CELL_BITS 14
#define SEEN_SLOTS 256u
#define WRITERS_MASK 0xffffull
#define KEY_FLAGS (LOOKUP_FOLLOW | LOOKUP_DIRECTORY)
#define CELLS_MAX (PATH_WITNESS_MAX + PATH_LINKS_MAX + PATH_FS_MAX + 1)

struct path_cell {
	uint32_t index;
	uint64_t value;
};

/* Immutable once in the table, but for `used`; freed by RCU. */
struct path_entry {
	uint64_t hash;
	uint64_t cred_id;
	uint64_t mount_epoch;
	uint64_t root_mount, start_mount; /* unique ids; 0: an absolute path, no start */
	const struct dentry *root, *start;
	struct mount *mount; /* the place; NULL: the last name is missing */
	struct dentry *dentry;
	const struct seqcount *children; /* of a missing name's directory */
	uint32_t children_seq;
	uint16_t len;
	uint8_t flags, ncells, nlinks;
	_Atomic bool used; /* since the clock came by */
	struct rcu_cb rcu;
	struct path_cell cells[CELLS_MAX];
	/* struct vfs_path links[nlinks], then the path */
};

enum counter { HITS, NEGATIVE_HITS, MISSES, STALE, INSERTS, UNCACHEABLE, COUNTERS };

struct shard {
	_Alignas(64) _Atomic uint64_t n[COUNTERS];
};

bool vfs_path_cache_on = true;
void (*vfs_path_cache_pause)(void);

static struct path_entry *_Atomic table[PATH_CACHE_SETS][PATH_CACHE_WAYS];
static _Atomic uint64_t cells[1u << CELL_BITS];
static _Atomic int64_t total_entries, total_bytes;
/* Threads share a shard only beyond SHARDS; an update may then be lost. */
static struct shard shards[SHARDS];
/* Hashes that this thread looked up and did not find: the second time it records. */
static _Thread_local uint32_t seen[SEEN_SLOTS];
/* Filesystems may share a count: then a change in one spoils what another's walk would have recorded. */
#define CHANGES_SLOTS 8u
static struct {
	_Alignas(SHARD_LINE) _Atomic uint64_t n[CHANGES_SLOTS];
} path_changes[SHARDS];

static void count(enum counter c)
{
	_Atomic uint64_t *n = &shards[shard_mine()].n[c];

	atomic_store_explicit(n, atomic_load_explicit(n, memory_order_relaxed) + 1,
			      memory_order_relaxed);
}

/* ---- cells ---- */

static inline uint32_t cell_of(const void *p)
{
	return (uint32_t)(((uintptr_t)p >> 4) * 0x9e3779b97f4a7c15ull >> (64 - CELL_BITS));
}

static void cell_move(const void *p)
{
	atomic_fetch_add_explicit(&cells[cell_of(p)], 1, memory_order_acq_rel);
}

void dentry_paths_gone(struct dentry *d)
{
	/* The marks first: a walk that marks anew reads the cell after this, or meets path_changes. */
	atomic_fetch_and_explicit(&d->flags, ~(uint32_t)(DENTRY_PATH_CACHED | DENTRY_PATH_BELOW),
				  memory_order_seq_cst);
	cell_move(d);
}

void filesystem_paths_changed(struct filesystem *fs)
{
	cell_move(fs);
}

static _Atomic uint64_t *changes_mine(const struct filesystem *fs)
{
	return &path_changes[shard_mine()].n[cell_of(fs) % CHANGES_SLOTS];
}

void path_change_begin(struct filesystem *fs)
{
	/* seq_cst: before the reading of marks; pairs with record_unchanged(). */
	atomic_fetch_add_explicit(changes_mine(fs), 1, memory_order_seq_cst);
}

void path_change_end(struct filesystem *fs)
{
	atomic_fetch_add_explicit(changes_mine(fs), WRITERS_MASK, memory_order_seq_cst);
}

static uint64_t changes_of(const struct filesystem *fs)
{
	unsigned slot = cell_of(fs) % CHANGES_SLOTS;
	uint64_t sum = 0;

	for (unsigned i = 0; i < SHARDS; i++)
		sum += atomic_load_explicit(&path_changes[i].n[slot], memory_order_seq_cst);
	return sum;
}

/* ---- hits ---- */

static inline uint64_t rotate(uint64_t v)
{
	return v << 29 | v >> 35;
}

/* Four words at a time, which do not wait for each other. */
static uint64_t path_hash(const char *p, size_t len, uint64_t h)
{
	const uint64_t k = 0x9e3779b97f4a7c15ull;
	uint64_t a = h, b = h ^ k, c = h + k, d = h - k;
	const char *end = p + len;

	for (; end - p >= 32; p += 32) {
		a = rotate(a ^ name_word(p)) * k;
		b = rotate(b ^ name_word(p + 8)) * k;
		c = rotate(c ^ name_word(p + 16)) * k;
		d = rotate(d ^ name_word(p + 24)) * k;
	}
	for (; end - p >= 8; p += 8)
		a = rotate(a ^ name_word(p)) * k;
	if (end > p) {
		uint64_t w = 0;

		if (len >= 8)
			w = name_word(end - 8);
		else
			memcpy(&w, p, (size_t)(end - p));
		b = rotate(b ^ w) * k;
	}
	a = rotate(a ^ b) * k + rotate(c ^ d) * k + len;
	return (a ^ a >> 32) * k;
}

static inline bool entry_matches(const struct path_entry *e, const struct resolving_path *rp,
				 uint64_t hash, size_t len, bool absolute)
{
	const struct vfs_lookup *lk = rp->lk;

	if (e->hash != hash || e->len != len || e->cred_id != lk->cred->id ||
	    e->root != lk->root.dentry || e->root_mount != lk->root.mount->unique_id ||
	    e->flags != (lk->flags & KEY_FLAGS))
		return false;
	if (absolute ? e->start != NULL
		     : e->start != lk->start.dentry || e->start_mount != lk->start.mount->unique_id)
		return false;
	return !memcmp((const struct vfs_path *)(e + 1) + e->nlinks, lk->path, len);
}

static inline bool entry_is_valid(const struct path_entry *e)
{
	if (e->mount_epoch != mount_epoch())
		return false;
	for (unsigned i = 0; i < e->ncells; i++)
		if (atomic_load_explicit(&cells[e->cells[i].index], memory_order_acquire) !=
		    e->cells[i].value)
			return false;
	/* The directory lives: its cell was just looked at. */
	return e->mount ||
	       atomic_load_explicit(&e->children->seq, memory_order_acquire) == e->children_seq;
}

static struct path_entry *find(const struct resolving_path *rp, uint64_t hash, size_t len,
			       bool absolute)
{
	struct path_entry *_Atomic *set = table[hash % PATH_CACHE_SETS];

	for (unsigned i = 0; i < PATH_CACHE_WAYS; i++) {
		struct path_entry *e = rcu_load(set[i]);

		if (e && entry_matches(e, rp, hash, len, absolute))
			return e;
	}
	return NULL;
}

/* rp stands at e's place, in the read section that the caller began. */
static void hit(struct resolving_path *rp, struct path_entry *e)
{
	const struct vfs_path *links = (const struct vfs_path *)(e + 1);

	if (unlikely(!atomic_load_explicit(&e->used, memory_order_relaxed)))
		atomic_store_explicit(&e->used, true, memory_order_relaxed);
	for (unsigned i = 0; unlikely(i < e->nlinks); i++)
		links[i].dentry->fs->ops->link_followed(links[i].dentry, links[i].mount);
	rp->trailing_slash = false;
	rp->final_dot = false;
	rp->have_next = false;
	rp->climbing = false;
	rp->symlinks = 0;
	rp->flags = rp->lk->flags;
	rp->nparts = 0;
	rp->must_dir = false; /* it is one, or the entry would not exist */
	rp->comp = NULL;
	rp->comp_len = 0;
	rp->comp_final = false;
	rp->parts[0].owned = NULL;
	rp->root = rp->lk->root;
	if (unlikely(!e->mount)) {
		count(NEGATIVE_HITS);
		rp->error = -ENOENT;
		rp->place = NULL;
		rcu_read_end();
		return;
	}
	count(HITS);
	rp->error = 0;
	rp->mount = e->mount;
	rp->start = e->dentry;
	rp->place = e->dentry;
	rp->in_rcu = true;
}

/* ---- recording ---- */

static void record_begin(struct resolving_path *rp, uint64_t hash, size_t len, bool absolute)
{
	const struct vfs_lookup *lk = rp->lk;
	struct path_record *r = &rp->record;

	r->hash = hash;
	r->len = (uint32_t)len;
	r->mount_epoch = mount_epoch();
	r->nwitness = r->nlinks = r->nfs = 0;
	rp->recording = true;
	/* Places that are pinned by nothing that an epoch or an id stands for. */
	if (lk->root.dentry != lk->root.mount->root)
		path_record_witness(rp, lk->root.dentry);
	if (!absolute && lk->start.dentry != lk->start.mount->root)
		path_record_witness(rp, lk->start.dentry);
	path_record_fs(rp, absolute ? lk->root.mount : lk->start.mount);
}

static void give_up(struct resolving_path *rp)
{
	rp->recording = false;
	count(UNCACHEABLE);
}

void path_record_fs(struct resolving_path *rp, struct mount *m)
{
	struct path_record *r = &rp->record;
	struct filesystem *fs = m->fs;
	uint64_t changes;

	for (unsigned i = 0; i < r->nfs; i++)
		if (r->fs[i].fs == fs)
			return;
	changes = changes_of(fs);
	if (!fs->path_cache || (changes & WRITERS_MASK) || r->nfs == PATH_FS_MAX) {
		give_up(rp);
		return;
	}
	r->fs[r->nfs].fs = fs;
	r->fs[r->nfs++].changes = changes;
}

void path_record_witness(struct resolving_path *rp, struct dentry *d)
{
	struct path_record *r = &rp->record;

	for (unsigned i = 0; i < r->nwitness; i++)
		if (r->witness[i] == d)
			return;
	if (r->nwitness == PATH_WITNESS_MAX) {
		give_up(rp);
		return;
	}
	r->witness[r->nwitness++] = d;
}

void path_record_link(struct resolving_path *rp, struct dentry *link)
{
	struct path_record *r = &rp->record;

	if (r->nlinks == PATH_LINKS_MAX) {
		give_up(rp);
		return;
	}
	r->links[r->nlinks].mount = rp->mount;
	r->links[r->nlinks++].dentry = link;
}

static void entry_add_cell(struct path_entry *e, const void *p)
{
	uint32_t index = cell_of(p);

	e->cells[e->ncells].index = index;
	e->cells[e->ncells++].value = atomic_load_explicit(&cells[index], memory_order_seq_cst);
}

/* False: d is going away, and what changes above it no longer finds it (dentry_release_begin()). */
static must_check bool entry_add_dentry(struct path_entry *e, struct dentry *d)
{
	dentry_mark_path(d, DENTRY_PATH_CACHED);
	entry_add_cell(e, d);
	return !(atomic_load_explicit(&d->flags, memory_order_seq_cst) & DENTRY_RELEASED);
}

static size_t entry_size(const struct path_entry *e)
{
	return sizeof(*e) + e->nlinks * sizeof(struct vfs_path) + e->len;
}

static void entry_free_cb(struct rcu_cb *cb)
{
	free(container_of(cb, struct path_entry, rcu));
}

static void entry_drop(struct path_entry *e)
{
	if (!e)
		return;
	atomic_fetch_sub_explicit(&total_entries, 1, memory_order_relaxed);
	atomic_fetch_sub_explicit(&total_bytes, (int64_t)entry_size(e), memory_order_relaxed);
	rcu_call(&e->rcu, entry_free_cb);
}

/* Step 4 of the essay's table. */
static bool record_unchanged(const struct path_record *r)
{
	for (unsigned i = 0; i < r->nfs; i++)
		if (changes_of(r->fs[i].fs) != r->fs[i].changes)
			return false;
	return true;
}

/* The way that a new entry takes: a stale one of the same path, a free one, one that was not used, else any. */
static struct path_entry *_Atomic *choose_way(uint64_t hash)
{
	struct path_entry *_Atomic *set = table[hash % PATH_CACHE_SETS], *_Atomic *way = NULL;

	for (unsigned i = 0; i < PATH_CACHE_WAYS; i++) {
		struct path_entry *e = rcu_load(set[i]);

		if (e && e->hash == hash)
			return &set[i];
		if (!e)
			way = &set[i];
	}
	if (way && atomic_load_explicit(&total_bytes, memory_order_relaxed) < PATH_CACHE_BYTES_MAX)
		return way;
	for (unsigned i = 0; i < PATH_CACHE_WAYS; i++) {
		struct path_entry *e = rcu_load(set[i]);

		if (e && !atomic_exchange_explicit(&e->used, false, memory_order_relaxed))
			return &set[i];
	}
	/* Too much memory in other sets and nothing here to replace: not entered. */
	return way ? NULL : &set[(hash >> 32) % PATH_CACHE_WAYS];
}

/* What the key and the record say. NULL without memory. */
static struct path_entry *entry_create(const struct resolving_path *rp)
{
	const struct path_record *r = &rp->record;
	const struct vfs_lookup *lk = rp->lk;
	struct path_entry *e;
	struct vfs_path *links;

	if (unlikely(vfs_path_cache_pause))
		vfs_path_cache_pause();
	e = malloc(sizeof(*e) + r->nlinks * sizeof(struct vfs_path) + r->len);
	if (!e)
		return NULL;
	memset(e, 0, sizeof(*e));
	e->hash = r->hash;
	e->cred_id = lk->cred->id;
	e->mount_epoch = r->mount_epoch;
	e->root = lk->root.dentry;
	e->root_mount = lk->root.mount->unique_id;
	if (lk->path[0] != '/') {
		e->start = lk->start.dentry;
		e->start_mount = lk->start.mount->unique_id;
	}
	e->len = (uint16_t)r->len;
	e->flags = (uint8_t)(lk->flags & KEY_FLAGS);
	e->nlinks = (uint8_t)r->nlinks;
	links = (struct vfs_path *)(e + 1);
	memcpy(links, r->links, r->nlinks * sizeof(*links));
	memcpy(links + r->nlinks, lk->path, r->len);
	return e;
}

/* The cells of the way and of `end`. False: one of them is going away. */
static bool entry_take_cells(struct path_entry *e, const struct path_record *r, struct dentry *end)
{
	bool live = true;

	for (unsigned i = 0; i < r->nwitness; i++)
		live &= entry_add_dentry(e, r->witness[i]);
	for (unsigned i = 0; i < r->nlinks; i++)
		live &= entry_add_dentry(e, r->links[i].dentry);
	for (unsigned i = 0; i < r->nfs; i++)
		entry_add_cell(e, r->fs[i].fs);
	return entry_add_dentry(e, end) && live;
}

static void entry_publish(struct resolving_path *rp, struct path_entry *e, struct dentry *end)
{
	struct path_entry *_Atomic *way;
	bool live = entry_take_cells(e, &rp->record, end);

	rp->recording = false;
	if (unlikely(vfs_path_cache_pause))
		vfs_path_cache_pause();
	way = live && record_unchanged(&rp->record) ? choose_way(e->hash) : NULL;
	if (!way) {
		free(e);
		count(UNCACHEABLE);
		return;
	}
	atomic_fetch_add_explicit(&total_entries, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&total_bytes, (int64_t)entry_size(e), memory_order_relaxed);
	entry_drop(atomic_exchange_explicit(way, e, memory_order_acq_rel));
	count(INSERTS);
}

void path_record_end(struct resolving_path *rp, struct dentry *place)
{
	struct path_entry *e = entry_create(rp);

	if (!e) {
		give_up(rp);
		return;
	}
	e->mount = rp->mount;
	e->dentry = place;
	entry_publish(rp, e, place);
}

void path_record_miss(struct resolving_path *rp, struct dentry *dir,
		      const struct seqcount *children, uint32_t seq)
{
	struct path_entry *e = entry_create(rp);

	if (!e) {
		give_up(rp);
		return;
	}
	e->children = children;
	e->children_seq = seq;
	entry_publish(rp, e, dir);
}

/* ---- the way in ---- */

bool path_cache_begin(struct resolving_path *rp)
{
	const struct vfs_lookup *lk = rp->lk;
	bool absolute = lk->path[0] == '/';
	const struct vfs_path *start = absolute ? &lk->root : &lk->start;
	struct path_entry *e;
	uint64_t hash;
	size_t len;

	if (unlikely(!lk->root.mount || !start->mount || !start->mount->fs->path_cache ||
		     !lk->cred->id))
		return false;
	len = strlen(lk->path);
	if (unlikely(len - 1 >= PATH_CACHE_PATH_MAX))
		return false;
	hash = path_hash(lk->path, len,
			 vfs_name_seed ^ (uintptr_t)lk->root.dentry ^
				 (absolute ? 0 : (uintptr_t)lk->start.dentry << 16) ^
				 (lk->cred->id << 32 | (lk->flags & KEY_FLAGS)));
	rcu_read_begin();
	e = find(rp, hash, len, absolute);
	if (likely(e && entry_is_valid(e))) {
		hit(rp, e);
		return true;
	}
	rcu_read_end();
	count(e ? STALE : MISSES);
	if (seen[hash % SEEN_SLOTS] == (uint32_t)(hash >> 32))
		record_begin(rp, hash, len, absolute);
	else
		seen[hash % SEEN_SLOTS] = (uint32_t)(hash >> 32);
	return false;
}

void vfs_path_cache_enable(bool on)
{
	vfs_path_cache_on = on;
	if (on)
		return;
	for (unsigned i = 0; i < PATH_CACHE_SETS; i++)
		for (unsigned j = 0; j < PATH_CACHE_WAYS; j++)
			entry_drop(
				atomic_exchange_explicit(&table[i][j], NULL, memory_order_acq_rel));
}

void vfs_path_cache_stats(struct path_cache_stats *ret)
{
	uint64_t n[COUNTERS] = {0};

	for (unsigned i = 0; i < SHARDS; i++)
		for (unsigned c = 0; c < COUNTERS; c++)
			n[c] += atomic_load_explicit(&shards[i].n[c], memory_order_relaxed);
	*ret = (struct path_cache_stats){
		.hits = n[HITS],
		.negative_hits = n[NEGATIVE_HITS],
		.misses = n[MISSES],
		.stale = n[STALE],
		.inserts = n[INSERTS],
		.uncacheable = n[UNCACHEABLE],
		.entries = (uint64_t)atomic_load_explicit(&total_entries, memory_order_relaxed),
		.bytes = (uint64_t)atomic_load_explicit(&total_bytes, memory_order_relaxed)};
}
