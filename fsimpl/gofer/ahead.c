/*
 * fsimpl/gofer/ahead.c - directories that a program is about to list are asked for ahead.
 *
 * find, du, tar, ls -R go through a tree in the order of its listings, each directory before what follows it there. What they will list next is known
 * from the listings that they have seen: the list of `struct gofer_ahead_item`, in that order, says where the program stands. A *run* is the rest of a
 * directory's listing, whose subdirectories come next; an *unused* item is a directory that was asked for and has not been listed yet, with a run behind it
 * when the answer is there. Once two directories were listed in that order the next one is asked for, and twice as many with each that is then listed; one that
 * was not expected halves their number, and one elsewhere ends it. So who lists at random pays nothing but the list.
 *
 * What comes is what anybody's listing brings, entries and their attributes, and goes into the same caches; the directory's atime stays. Whoever lists that
 * directory takes all answers in that are there. Only trees that nobody else changes are read ahead, and each change of ours
 * drops what was asked for, under the tree lock: an answer is entered only if nothing has changed since it was asked for. What is known already is not
 * touched by it: a descriptor may have changed that file since.
 *
 * Bounds: GOFER_AHEAD_MAX directories that nobody has listed yet, of GOFER_AHEAD_BYTES at most each, and GOFER_AHEAD_ITEMS_MAX items; each listing is
 * gone through once. Nothing here waits but for a directory that the caller lists.
 *
 *	tree_lock, for reading -> ahead.lock (LOCK_FS_DIR; not with the dentry cache's) -> inode->lock, the connection's locks
 */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "fsimpl/gofer/internal.h"

/* A place in the order of the walk. */
struct gofer_ahead_item {
	TAILQ_ENTRY(gofer_ahead_item) link;
	struct remote_dentry *dir; /* a reference */
	bool unused; /* immutable: no run */
	struct p9_call *call; /* unused: owned; NULL: the answer was taken in */
	/* a run */
	struct gofer_listing *listing; /* a reference; NULL: not looked for yet */
	size_t off; /* what of it comes next */
	uint64_t after; /* 0, or the qid_path behind which that is, once there is a listing */
};

TAILQ_HEAD(gofer_ahead_items, gofer_ahead_item);

struct gofer_ahead {
	struct mutex lock;
	/* guarded by lock */
	struct gofer_ahead_items items;
	unsigned count, unused, asked;
	unsigned window; /* `unused` may grow up to it */
	/* without it */
	_Atomic bool any; /* there are items */
	_Atomic bool stale; /* a descriptor that could write was closed: what it wrote may be newer than an answer */
};

int gofer_ahead_create(struct gofer_ahead **ret)
{
	struct gofer_ahead *a = calloc(1, sizeof(*a));

	if (!a)
		return -ENOMEM;
	mutex_init(&a->lock, LOCK_FS_DIR, "gofer_ahead");
	TAILQ_INIT(&a->items);
	*ret = a;
	return 0;
}

void gofer_ahead_destroy(struct gofer_ahead *a)
{
	assert(!a || !a->count);
	free(a);
}

void gofer_ahead_stale(struct gofer_fs *fs)
{
	if (fs->ahead)
		atomic_store(&fs->ahead->stale, true);
}

/* ---- the list; all with the lock ---- */

/* Moves it to `gone`, which item_free_all() frees without the lock. */
static void item_remove(struct gofer_ahead *a, struct gofer_ahead_item *it,
			struct gofer_ahead_items *gone)
{
	TAILQ_REMOVE(&a->items, it, link);
	TAILQ_INSERT_TAIL(gone, it, link);
	a->count--;
	if (it->unused) {
		a->unused--;
		a->asked -= it->call != NULL;
		atomic_store_explicit(&gofer_inode_of(it->dir)->ahead, false, memory_order_relaxed);
	}
	atomic_store_explicit(&a->any, a->count != 0, memory_order_release);
}

static void item_free_all(struct gofer_fs *fs, struct gofer_ahead_items *gone)
{
	struct gofer_ahead_item *it;

	while ((it = TAILQ_FIRST(gone))) {
		TAILQ_REMOVE(gone, it, link);
		if (it->call)
			p9_call_drop(fs->conn, it->call);
		gofer_listing_unref(it->listing);
		remote_dentry_unref(it->dir);
		free(it);
	}
}

static void remove_all(struct gofer_ahead *a, struct gofer_ahead_items *gone)
{
	struct gofer_ahead_item *it;

	while ((it = TAILQ_FIRST(&a->items)))
		item_remove(a, it, gone);
	a->window = 0;
}

static void item_insert(struct gofer_ahead *a, struct gofer_ahead_item *it,
			struct gofer_ahead_item *next)
{
	if (next)
		TAILQ_INSERT_BEFORE(next, it, link);
	else
		TAILQ_INSERT_TAIL(&a->items, it, link);
	a->count++;
	atomic_store_explicit(&a->any, true, memory_order_release);
}

/* A run of all of dir before `next` (NULL: at the end). NULL: no memory. */
static struct gofer_ahead_item *run_add(struct gofer_ahead *a, struct remote_dentry *dir,
					struct gofer_ahead_item *next)
{
	struct gofer_ahead_item *it = calloc(1, sizeof(*it));

	if (!it)
		return NULL;
	it->dir = remote_dentry_ref(dir);
	item_insert(a, it, next);
	return it;
}

static struct gofer_ahead_item *item_find(struct gofer_ahead *a, const struct remote_dentry *dir)
{
	struct gofer_ahead_item *it;

	TAILQ_FOREACH (it, &a->items, link)
		if (it->dir == dir)
			break;
	return it;
}

/* What comes before `it` was left out. Return: some of that had been asked for. */
static bool remove_before(struct gofer_ahead *a, struct gofer_ahead_item *it,
			  struct gofer_ahead_items *gone)
{
	struct gofer_ahead_item *first;
	bool unused = false;

	while ((first = TAILQ_FIRST(&a->items)) != it) {
		unused |= first->unused;
		item_remove(a, first, gone);
	}
	return unused;
}

/* ---- runs ---- */

static bool is_subdir(const struct p9_dirent *e)
{
	bool dots = e->name.data[0] == '.' &&
		    (e->name.len == 1 || (e->name.len == 2 && e->name.data[1] == '.'));

	return e->type == DT_DIR && !dots;
}

/* The next subdirectory, whose entry ends at *ret_off. */
static bool run_next(const struct gofer_ahead_item *it, struct p9_dirent *ret, size_t *ret_off)
{
	size_t off = it->off;

	while (p9_dirent_get(it->listing->data, it->listing->size, &off, true, ret) == 1)
		if (is_subdir(ret)) {
			*ret_off = off;
			return true;
		}
	return false;
}

/* Goes behind the subdirectory of that number, if it comes yet. */
static void run_skip_to(struct gofer_ahead_item *it, uint64_t qid_path)
{
	struct gofer_ahead_item look = *it;
	struct p9_dirent e;

	while (run_next(&look, &e, &look.off))
		if (e.qid.path == qid_path) {
			it->off = look.off;
			return;
		}
}

/* Return: it has a listing. */
static bool run_load(struct gofer_ahead_item *it)
{
	struct gofer_inode *in = gofer_inode_of(it->dir);

	if (it->listing)
		return true;
	mutex_lock(&in->lock);
	it->listing = in->listing;
	if (it->listing)
		ref_get(&it->listing->ref);
	mutex_unlock(&in->lock);
	if (it->listing && it->after)
		run_skip_to(it, it->after);
	return it->listing;
}

/* ---- where the program stands ---- */

/* d, and above it what comes when all below is done. */
static void start_over(struct gofer_ahead *a, struct remote_dentry *d,
		       struct gofer_ahead_items *gone)
{
	uint64_t after = 0;

	remove_all(a, gone);
	for (unsigned i = 0; d && i < GOFER_AHEAD_LEVELS; i++) {
		struct gofer_ahead_item *it = run_add(a, d, NULL);

		if (!it)
			return;
		it->after = after;
		after = gofer_inode_of(d)->qid_path;
		d = remote_parent(d);
	}
}

/* d is listed next, and was not asked for; its parent's run is `up`. */
static void step_down(struct gofer_ahead *a, struct gofer_ahead_item *up, struct remote_dentry *d,
		      struct gofer_ahead_items *gone)
{
	uint64_t qid_path = gofer_inode_of(d)->qid_path;
	bool left_out = remove_before(a, up, gone);
	bool next = false;
	struct p9_dirent e;
	size_t off;

	if (run_load(up)) {
		next = run_next(up, &e, &off) && e.qid.path == qid_path;
		run_skip_to(up, qid_path);
	}
	if (next && !left_out)
		a->window = MAX(a->window, 1u);
	else
		a->window /= 2;
	(void)run_add(a, d, up);
}

static void stand_at(struct gofer_ahead *a, struct remote_dentry *d, struct gofer_ahead_items *gone)
{
	struct gofer_ahead_item *it = item_find(a, d), *up;

	if (it && it->unused) {
		if (remove_before(a, it, gone))
			a->window /= 2;
		else
			a->window = MIN(MAX(a->window * 2, 1u), GOFER_AHEAD_MAX);
		item_remove(a, it, gone);
		return;
	}
	/* Once more. */
	if (it)
		return;
	up = item_find(a, remote_parent(d));
	if (up && !up->unused)
		step_down(a, up, d, gone);
	else
		start_over(a, d, gone);
}

/* ---- asking ---- */

static void fill_request(struct p9_msg *t, const struct gofer_fs *fs,
			 const struct gofer_where *where)
{
	*t = (struct p9_msg){.type = P9_Tmreaddir};
	t->Tmreaddir.newfid = P9_NOFID;
	t->Tmreaddir.count = MIN(GOFER_AHEAD_BYTES, fs->conn->msize - P9_IO_OVERHEAD);
	t->Tmreaddir.want = P9_WANT_NODES | P9_WANT_ACL | P9_WANT_QUIET;
	if (where) {
		t->Tmreaddir.fid = where->fid;
		t->Tmreaddir.path = gofer_where_path(where);
	}
}

/* A reference to the child if it is a directory of which nothing is known or was asked yet. */
static struct remote_dentry *candidate(struct gofer_fs *fs, struct remote_dentry *dir,
				       const struct p9_dirent *e)
{
	struct remote_dentry *d;
	struct gofer_inode *in;
	bool unknown = false;

	rcu_read_begin();
	d = remote_find_rcu(&fs->dcache, dir, e->name.data, e->name.len);
	if (d && d->inode && remote_is_dir(d) &&
	    !(atomic_load(&d->d.flags) & (DENTRY_DEAD | DENTRY_MAYBE_MOUNTPOINT))) {
		in = gofer_inode_of(d);
		/* Who has it is just learning something of it. */
		if (mutex_trylock(&in->lock)) {
			unknown = !in->listing && !atomic_load(&in->ahead);
			mutex_unlock(&in->lock);
		}
	}
	if (!unknown || !ref_tryget(&d->d.ref))
		d = NULL;
	rcu_read_end();
	return d;
}

/* Asks for the child, if anything can be learnt by that; it comes before its directory's run. Return: false: not now. */
static bool ask(struct gofer_fs *fs, struct gofer_ahead_item *run, const struct p9_dirent *e,
		struct gofer_ahead_items *gone)
{
	struct gofer_ahead *a = fs->ahead;
	struct gofer_ahead_item *it = calloc(1, sizeof(*it));
	struct gofer_where where;
	struct p9_msg t;

	if (!it)
		return false;
	it->dir = candidate(fs, run->dir, e);
	if (!it->dir) {
		free(it);
		return true;
	}
	it->unused = true;
	item_insert(a, it, run);
	a->unused++;
	atomic_store(&gofer_inode_of(it->dir)->ahead, true);
	if (gofer_where_known(it->dir, &where)) {
		fill_request(&t, fs, &where);
		if (p9_call_start(fs->conn, &t, &it->call))
			it->call = NULL;
	}
	if (it->call)
		a->asked++;
	else
		item_remove(a, it, gone);
	return a->count < GOFER_AHEAD_ITEMS_MAX;
}

/* The subdirectories that come next, as many as may be. */
static void ask_on(struct gofer_fs *fs, struct gofer_ahead_items *gone)
{
	struct gofer_ahead *a = fs->ahead;
	struct gofer_ahead_item *it = TAILQ_FIRST(&a->items), *next;

	/* More could not be kept. */
	if (atomic_load(&fs->listing_bytes) > GOFER_LISTINGS_MAX)
		return;
	for (; it && a->unused < a->window; it = next) {
		struct p9_dirent e;
		bool more = false;

		next = TAILQ_NEXT(it, link);
		/* Without a listing: what was asked for is just being taken in, or was too much. */
		if (it->unused || !run_load(it))
			continue;
		while (a->unused < a->window && (more = run_next(it, &e, &it->off)))
			if (a->count >= GOFER_AHEAD_ITEMS_MAX || !ask(fs, it, &e, gone))
				return;
		if (!more)
			item_remove(a, it, gone);
	}
}

/* ---- answers ---- */

/* Pre: tree_lock, since before it was asked for. */
static void take_answer(struct remote_dentry *d, struct p9_call *call)
{
	const struct p9_Rmreaddir *r = &call->r.Rmreaddir;

	gofer_dir_told(d, &r->data, r->eof);
	p9_call_fini(call);
	free(call);
}

static void take(struct gofer_fs *fs, struct remote_dentry *d, struct p9_call *call)
{
	struct p9_msg t;

	fill_request(&t, fs, NULL);
	/* What goes wrong here goes wrong again, and is reported, where the program asks. */
	if (!p9_call_wait(fs->conn, call, &t))
		take_answer(d, call);
}

struct answer {
	struct remote_dentry *d; /* a reference */
	struct p9_call *call;
};

/* Its answer is the caller's to take in; a run of what that tells comes behind it. */
static struct p9_call *claim(struct gofer_ahead *a, struct gofer_ahead_item *it)
{
	struct p9_call *call = it->call;

	it->call = NULL;
	a->asked--;
	(void)run_add(a, it->dir, TAILQ_NEXT(it, link));
	return call;
}

/* What has come. */
static unsigned collect(struct gofer_fs *fs, struct answer *ret)
{
	struct gofer_ahead_item *it;
	unsigned count = 0;

	TAILQ_FOREACH (it, &fs->ahead->items, link)
		if (it->call && p9_call_is_done(fs->conn, it->call)) {
			ret[count].d = remote_dentry_ref(it->dir);
			ret[count++].call = claim(fs->ahead, it);
		}
	return count;
}

/* ---- what others call ---- */

/* What a descriptor wrote that is closed by now may be newer than what was asked for before. Pre: the lock. */
static void drop_stale(struct gofer_ahead *a, struct gofer_ahead_items *gone)
{
	if (unlikely(atomic_load_explicit(&a->stale, memory_order_relaxed)) &&
	    atomic_exchange(&a->stale, false))
		remove_all(a, gone);
}

bool gofer_ahead_take(struct gofer_fs *fs, struct remote_dentry *d)
{
	struct gofer_ahead_items gone = TAILQ_HEAD_INITIALIZER(gone);
	struct gofer_ahead *a = fs->ahead;
	struct gofer_ahead_item *it = NULL;
	struct p9_call *call = NULL;

	if (!a || !atomic_load_explicit(&gofer_inode_of(d)->ahead, memory_order_relaxed))
		return false;
	mutex_lock(&a->lock);
	drop_stale(a, &gone);
	it = item_find(a, d);
	if (it && it->call)
		call = claim(a, it);
	mutex_unlock(&a->lock);
	item_free_all(fs, &gone);
	if (call)
		take(fs, d, call);
	return call;
}

void gofer_ahead_listed(struct gofer_fs *fs, struct remote_dentry *d)
{
	struct gofer_ahead_items gone = TAILQ_HEAD_INITIALIZER(gone);
	struct answer answers[GOFER_AHEAD_MAX];
	struct gofer_ahead *a = fs->ahead;
	unsigned count;

	if (!a)
		return;
	mutex_lock(&a->lock);
	drop_stale(a, &gone);
	stand_at(a, d, &gone);
	if (a->asked)
		p9_conn_poll(fs->conn);
	count = collect(fs, answers);
	/* The server has something to do meanwhile. */
	ask_on(fs, &gone);
	mutex_unlock(&a->lock);
	for (unsigned i = 0; i < count; i++) {
		take(fs, answers[i].d, answers[i].call);
		remote_dentry_unref(answers[i].d);
	}
	if (count) {
		mutex_lock(&a->lock);
		ask_on(fs, &gone);
		mutex_unlock(&a->lock);
	}
	item_free_all(fs, &gone);
}

void gofer_ahead_drop(struct gofer_fs *fs)
{
	struct gofer_ahead_items gone = TAILQ_HEAD_INITIALIZER(gone);
	struct gofer_ahead *a = fs->ahead;

	if (!a || !atomic_load_explicit(&a->any, memory_order_acquire))
		return;
	mutex_lock(&a->lock);
	remove_all(a, &gone);
	mutex_unlock(&a->lock);
	item_free_all(fs, &gone);
}

void gofer_change_lock(struct gofer_fs *fs)
{
	rwlock_write_lock(&fs->tree_lock);
	gofer_ahead_drop(fs);
}
