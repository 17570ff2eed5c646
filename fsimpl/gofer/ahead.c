/*
 * fsimpl/gofer/ahead.c - directories that a program is about to list are asked for together.
 *
 * find, du, tar, ls -R go through a tree in the order of its listings, each directory before what follows it there. What they will list next is known
 * from the listings that they have seen: the list of `struct gofer_ahead_item`, in that order, says where the program stands. A *run* is the rest of a
 * directory's listing, whose subdirectories come next; an *unused* item is a directory that was asked for and has not been listed yet, with a run behind it.
 * When a directory has to be asked for that was next in that order, those that follow it are too: requests that are under way at once, for whose answers
 * the program waits. Their number doubles each time; it halves when one was left out, and one that is elsewhere ends it.
 * So who lists at random pays nothing but the list.
 *
 * All answers are waited for, although the program wants only the first: where a server works on while the program runs,
 * the two and the sentry take turns on the cores of a small machine, which costs more than was saved. While it waits the server's threads have them.
 * An answer is what anybody's listing brings, goes into the same caches, and is entered under the tree lock that it was asked for under. The
 * directory's atime stays. Only trees that nobody else changes are read ahead. A change of ours ends it: the list holds dentries.
 *
 * Bounds: GOFER_AHEAD_MAX directories that nobody has listed yet, of GOFER_AHEAD_BYTES at most each, and GOFER_AHEAD_ITEMS_MAX items; each listing is
 * gone through once.
 *
 *	tree_lock, for reading -> gofer_ahead.lock (LOCK_FS_DIR; not with the dentry cache's) -> inode->lock, the connection's locks
 */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "base/sleep.h"
#include "fsimpl/gofer/internal.h"

/* A place in the order of the walk. */
struct gofer_ahead_item {
	TAILQ_ENTRY(gofer_ahead_item) link;
	struct remote_dentry *dir; /* a reference */
	bool unused; /* immutable: no run */
	/* a run */
	struct gofer_listing *listing; /* a reference; NULL: not looked for yet */
	size_t off; /* what of it comes next */
	uint64_t after; /* 0, or the qid_path behind which that is, once there is a listing */
	uint32_t after_at; /* where that may be found */
};

TAILQ_HEAD(gofer_ahead_items, gofer_ahead_item);

struct gofer_ahead {
	struct mutex lock;
	/* guarded by lock */
	struct gofer_ahead_items items;
	unsigned count, unused;
	unsigned window; /* `unused` may grow up to it */
	_Atomic bool any; /* there are items; read without the lock, too */
};

/* A request that is under way. */
struct asked {
	struct remote_dentry *d; /* a reference */
	struct p9_call *call; /* owned */
	uint32_t want;
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
		atomic_store_explicit(&gofer_inode_of(it->dir)->ahead, false, memory_order_relaxed);
	}
	atomic_store_explicit(&a->any, a->count != 0, memory_order_release);
}

static void item_free_all(struct gofer_ahead_items *gone)
{
	struct gofer_ahead_item *it;

	while ((it = TAILQ_FIRST(gone))) {
		TAILQ_REMOVE(gone, it, link);
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
	const char *name = e->name.data;
	unsigned len = e->name.len;

	/* No name, which is no entry of a directory, is in the middle of one only (run_skip_to()). */
	if (e->type != DT_DIR || !len)
		return false;
	return name[0] != '.' || len > 2 || (len == 2 && name[1] != '.');
}

/* The next subdirectory, whose entry ends at *ret_off. What comes before it is not looked at again. */
static bool run_next(struct gofer_ahead_item *it, struct p9_dirent *ret, size_t *ret_off)
{
	size_t off = it->off;

	while (p9_dirent_get(it->listing->data, it->listing->size, &off, true, ret) == 1) {
		if (is_subdir(ret)) {
			*ret_off = off;
			return true;
		}
		it->off = off;
	}
	return false;
}

/* Goes behind the subdirectory of that number, if it comes yet: at the place where it should be, or else soon. */
static void run_skip_to(struct gofer_ahead_item *it, uint64_t qid_path, uint32_t at)
{
	struct gofer_ahead_item look = *it;
	struct p9_dirent e;
	size_t off = at;

	if (at <= it->listing->size &&
	    p9_dirent_get(it->listing->data, it->listing->size, &off, true, &e) == 1 &&
	    e.qid.path == qid_path) {
		it->off = MAX(it->off, off);
		return;
	}
	for (unsigned i = 0; i < GOFER_AHEAD_LOOK && run_next(&look, &e, &look.off); i++)
		if (e.qid.path == qid_path) {
			it->off = look.off;
			return;
		}
}

/* Return: it has a listing. */
static bool run_load(struct gofer_ahead_item *it)
{
	if (it->listing)
		return true;
	it->listing = gofer_listing_of(gofer_inode_of(it->dir));
	if (it->listing && it->after)
		run_skip_to(it, it->after, it->after_at);
	return it->listing;
}

/* ---- where the program stands ---- */

/* d, and above it what comes when all below is done. */
static void start_over(struct gofer_ahead *a, struct remote_dentry *d,
		       struct gofer_ahead_items *gone)
{
	uint64_t after = 0;
	uint32_t after_at = 0;

	remove_all(a, gone);
	for (unsigned i = 0; d && i < GOFER_AHEAD_LEVELS; i++) {
		struct gofer_ahead_item *it = run_add(a, d, NULL);

		if (!it)
			return;
		it->after = after;
		it->after_at = after_at;
		after = gofer_inode_of(d)->qid_path;
		after_at =
			atomic_load_explicit(&gofer_inode_of(d)->listed_at, memory_order_relaxed);
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
		run_skip_to(up, qid_path,
			    atomic_load_explicit(&gofer_inode_of(d)->listed_at,
						 memory_order_relaxed));
	}
	if (next && !left_out)
		a->window = MIN(MAX(a->window * 2, GOFER_AHEAD_MIN), GOFER_AHEAD_MAX);
	else
		a->window /= 2;
	(void)run_add(a, d, up);
}

/* Return: it had to be asked for, in the order that was expected. */
static bool stand_at(struct gofer_ahead *a, struct remote_dentry *d, struct gofer_ahead_items *gone)
{
	struct gofer_ahead_item *it = item_find(a, d), *up;

	if (it && it->unused) {
		if (remove_before(a, it, gone))
			a->window /= 2;
		item_remove(a, it, gone);
		return false;
	}
	/* Once more. */
	if (it)
		return false;
	up = item_find(a, remote_parent(d));
	if (up && !up->unused) {
		step_down(a, up, d, gone);
		return a->window != 0;
	}
	start_over(a, d, gone);
	return false;
}

/* ---- asking ---- */

static void fill_request(struct p9_msg *t, const struct gofer_fs *fs,
			 const struct gofer_where *where)
{
	*t = (struct p9_msg){.type = P9_Tmreaddir};
	t->Tmreaddir.newfid = P9_NOFID;
	t->Tmreaddir.count = MIN(GOFER_AHEAD_BYTES, fs->conn->msize - P9_IO_OVERHEAD);
	t->Tmreaddir.want = gofer_light_want(fs) | P9_WANT_QUIET;
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
	    !(atomic_load(&d->d.flags) & (DENTRY_DEAD | DENTRY_MAYBE_MOUNTPOINT)) &&
	    !atomic_load_explicit(&gofer_inode_of(d)->too_much, memory_order_relaxed)) {
		in = gofer_inode_of(d);
		/* Who has it is just learning something of it. */
		if (mutex_trylock(&in->lock)) {
			unknown = (!in->listing || gofer_light_misses(in)) &&
				  !atomic_load(&in->ahead);
			mutex_unlock(&in->lock);
		}
	}
	if (!unknown || !ref_tryget(&d->d.ref))
		d = NULL;
	rcu_read_end();
	return d;
}

/* Asks for the child, if anything can be learnt by that; it comes before its directory's run, with a run of its own. Return: false: not now. */
static bool ask(struct gofer_fs *fs, struct gofer_ahead_item *run, const struct p9_dirent *e,
		struct asked *ret, unsigned *inout_count)
{
	struct gofer_ahead *a = fs->ahead;
	struct gofer_ahead_item *it = calloc(1, sizeof(*it));
	struct gofer_where where;
	struct p9_call *call;
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
	(void)run_add(a, it->dir, run);
	if (!gofer_where_known(it->dir, &where))
		return false;
	fill_request(&t, fs, &where);
	if (p9_call_start(fs->conn, &t, &call))
		return false;
	ret[(*inout_count)++] = (struct asked){remote_dentry_ref(it->dir), call, t.Tmreaddir.want};
	return true;
}

/* The subdirectories that come next, until `max` are unused. Return: how many were asked for. */
static unsigned ask_on(struct gofer_fs *fs, unsigned max, struct asked *ret,
		       struct gofer_ahead_items *gone)
{
	struct gofer_ahead *a = fs->ahead;
	struct gofer_ahead_item *it = TAILQ_FIRST(&a->items), *next;
	unsigned count = 0;

	/* More could not be kept. */
	if (atomic_load(&fs->listing_bytes) > GOFER_LISTINGS_MAX)
		return 0;
	for (; it && a->unused < max; it = next) {
		struct p9_dirent e;
		bool more = false;

		next = TAILQ_NEXT(it, link);
		/* Without a listing: it is just being asked for, or was too much. */
		if (it->unused || !run_load(it))
			continue;
		while (a->unused < max && (more = run_next(it, &e, &it->off)))
			if (a->count + 2 > GOFER_AHEAD_ITEMS_MAX || !ask(fs, it, &e, ret, &count))
				return count;
		if (!more)
			item_remove(a, it, gone);
	}
	return count;
}

/* ---- what others call ---- */

static void take(struct gofer_fs *fs, struct asked *asked)
{
	struct p9_call *call = asked->call;
	struct p9_msg t;

	fill_request(&t, fs, NULL);
	/* What goes wrong here goes wrong again, and is reported, where the program asks. */
	if (!p9_call_wait(fs->conn, call, &t)) {
		gofer_dir_told(asked->d, &call->r.Rmreaddir.data, asked->want,
			       call->r.Rmreaddir.eof);
		if (!call->r.Rmreaddir.eof)
			atomic_store_explicit(&gofer_inode_of(asked->d)->too_much, true,
					      memory_order_relaxed);
		p9_call_fini(call);
		free(call);
	}
	remote_dentry_unref(asked->d);
}

void gofer_ahead_listed(struct gofer_fs *fs, struct remote_dentry *d)
{
	struct gofer_ahead_items gone = TAILQ_HEAD_INITIALIZER(gone);
	struct asked asked[GOFER_AHEAD_MAX];
	struct gofer_ahead *a = fs->ahead;
	bool more;

	if (!a)
		return;
	mutex_lock(&a->lock);
	more = stand_at(a, d, &gone);
	mutex_unlock(&a->lock);
	/* Half of them, and then what those have below them first. */
	for (unsigned round = 0; more && round < 2 && !sleeper_was_killed(); round++) {
		unsigned count, room;

		mutex_lock(&a->lock);
		room = a->window > a->unused ? a->window - a->unused : 0;
		count = ask_on(fs, a->unused + (round ? room : (room + 1) / 2), asked, &gone);
		mutex_unlock(&a->lock);
		for (unsigned i = 0; i < count; i++)
			take(fs, &asked[i]);
	}
	item_free_all(&gone);
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
	item_free_all(&gone);
}

void gofer_change_lock(struct gofer_fs *fs)
{
	rwlock_write_lock(&fs->tree_lock);
	gofer_ahead_drop(fs);
}
