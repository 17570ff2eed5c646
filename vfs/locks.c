/*
 * vfs/locks.c - the lock table.
 *
 * One hash of inodes that have locks or waiters, one mutex. Locks are rare next to the I/O they guard, so nothing here is
 * scaled; what must be cheap is a close(2) of a file that has none, which is one load of its bucket's count.
 *
 * A blocked request registers on its inode's wait queue, lets go of the mutex and sleeps; every change of the inode's locks wakes all of its
 * waiters, who try again. Deadlocks among record locks are looked for before sleeping: who waits is on the `blocked` list, for whom is found anew whenever
 * somebody asks, since it may change meanwhile.
 *
 * A file with remote locks is locked at its server, which also decides who comes next among our own; a request that waits there stands on the `blocked`
 * list too. What was granted is entered here without a look at conflicts: two replies may come in the wrong order, and the server has looked.
 */
#include "vfs/locks.h"

#include <fcntl.h>
#include <linux/stat.h>
#include <poll.h>
#include <stdlib.h>

#include "base/hash.h"

#define BUCKETS 256
#define DEADLOCK_STEPS_MAX 10 /* as Linux's MAX_DEADLK_ITERATIONS */

struct lock_inode {
	LIST_ENTRY(lock_inode) link;
	struct filesystem *fs; /* identity only: a file that is open here pins it */
	uint64_t key;
	uint64_t ino; /* for /proc/locks */
	LIST_HEAD(, file_lock) locks;
	unsigned waiters, blocked; /* who pins it; entries of blocked_list */
	struct wait_queue wait;
};

/* A request that sleeps, here or at a server, until nobody has its range of li. */
struct blocked {
	LIST_ENTRY(blocked) link;
	struct lock_inode *li;
	const struct file_lock *req;
	const struct file_lock *meets; /* file_locks_show() */
};

static struct mutex table_lock = MUTEX_INIT(LOCK_FILE_LOCKS, "file locks");
/* All guarded by table_lock; a bucket's count is also read without it. */
static struct {
	LIST_HEAD(, lock_inode) inodes;
	_Atomic unsigned count;
} buckets[BUCKETS];
static LIST_HEAD(, blocked) blocked_list = LIST_HEAD_INITIALIZER(blocked_list);
static unsigned lock_count;

/* ---- inodes ---- */

static uint64_t key_of(struct file *f)
{
	struct dentry *d = f->path.dentry;

	return d->fs->ops->inode_key(d);
}

static unsigned bucket_of(const struct filesystem *fs, uint64_t key)
{
	return (unsigned)(hash_u64(key ^ (uint64_t)(uintptr_t)fs) % BUCKETS);
}

static struct lock_inode *find_inode_locked(struct filesystem *fs, uint64_t key)
{
	struct lock_inode *li;

	LIST_FOREACH (li, &buckets[bucket_of(fs, key)].inodes, link)
		if (li->fs == fs && li->key == key)
			return li;
	return NULL;
}

static struct lock_inode *get_inode_locked(struct filesystem *fs, uint64_t key, uint64_t ino)
{
	struct lock_inode *li = find_inode_locked(fs, key);
	unsigned b = bucket_of(fs, key);

	if (li)
		return li;
	li = calloc(1, sizeof(*li));
	if (!li)
		return NULL;
	li->fs = fs;
	li->key = key;
	li->ino = ino;
	LIST_INIT(&li->locks);
	wait_queue_init(&li->wait);
	LIST_INSERT_HEAD(&buckets[b].inodes, li, link);
	atomic_fetch_add_explicit(&buckets[b].count, 1, memory_order_release);
	return li;
}

static void put_inode_locked(struct lock_inode *li)
{
	unsigned b = bucket_of(li->fs, li->key);

	if (!LIST_EMPTY(&li->locks) || li->waiters)
		return;
	LIST_REMOVE(li, link);
	atomic_fetch_sub_explicit(&buckets[b].count, 1, memory_order_release);
	wait_queue_fini(&li->wait);
	free(li);
}

static void free_lock_locked(struct file_lock *l)
{
	LIST_REMOVE(l, link);
	lock_count--;
	free(l);
}

static void insert_locked(struct lock_inode *li, struct file_lock *l)
{
	lock_count++;
	LIST_INSERT_HEAD(&li->locks, l, link);
}

/* ---- conflicts ---- */

static bool same_owner(const struct file_lock *x, const struct file_lock *y)
{
	return x->owner == y->owner && x->kind == y->kind;
}

static bool overlaps(const struct file_lock *l, const struct file_lock *x)
{
	return l->start <= x->end && x->start <= l->end;
}

/* flock locks and record locks do not see each other. */
static bool conflicts(const struct file_lock *x, const struct file_lock *y)
{
	if (same_owner(x, y) || (x->kind == FILE_LOCK_FLOCK) != (y->kind == FILE_LOCK_FLOCK))
		return false;
	if (!overlaps(x, y))
		return false;
	return x->type == F_WRLCK || y->type == F_WRLCK;
}

static struct file_lock *find_conflict_locked(struct lock_inode *li, const struct file_lock *req)
{
	struct file_lock *l, *first = NULL;

	LIST_FOREACH (l, &li->locks, link)
		if (conflicts(l, req) && (!first || l->start < first->start))
			first = l;
	return first;
}

/* The owner's own lock, of an F_OFD_GETLK that asks for F_UNLCK. */
static struct file_lock *find_own_locked(struct lock_inode *li, const struct file_lock *req)
{
	struct file_lock *l, *first = NULL;

	LIST_FOREACH (l, &li->locks, link)
		if (same_owner(l, req) && overlaps(l, req) && (!first || l->start < first->start))
			first = l;
	return first;
}

/* NULL: nobody of this sandbox. */
static const void *holder_locked(struct lock_inode *li, const struct file_lock *req)
{
	const struct file_lock *l = find_conflict_locked(li, req);

	return l ? l->owner : NULL;
}

/* posix_locks_deadlock: does `holder` wait, by however many steps, for `owner`? */
static bool would_deadlock_locked(const void *owner, const void *holder)
{
	for (int i = 0; holder && i < DEADLOCK_STEPS_MAX; i++) {
		struct blocked *b;

		LIST_FOREACH (b, &blocked_list, link)
			if (b->req->kind == FILE_LOCK_POSIX && b->req->owner == holder)
				break;
		if (!b)
			return false;
		holder = holder_locked(b->li, b->req);
		if (holder == owner)
			return true;
	}
	return false;
}

/* ---- changing a range ---- */

static bool touches(const struct file_lock *l, const struct file_lock *x)
{
	return l->start <= (x->end == INT64_MAX ? x->end : x->end + 1) &&
	       x->start <= (l->end == INT64_MAX ? l->end : l->end + 1);
}

/*
 * The owner's range becomes add->type: neighbours of that type are swallowed, others cut. `spare` is used when one is cut in two.
 * Return: true if `spare` was used.
 */
static bool set_range_locked(struct lock_inode *li, struct file_lock *add, struct file_lock *spare)
{
	struct file_lock *l, *next;
	bool used = false;

	LIST_FOREACH_SAFE (l, &li->locks, link, next) {
		if (!same_owner(l, add))
			continue;
		if (l->type == add->type) {
			if (!touches(l, add))
				continue;
			add->start = MIN(add->start, l->start);
			add->end = MAX(add->end, l->end);
			free_lock_locked(l);
		} else if (overlaps(l, add)) {
			if (l->start < add->start && l->end > add->end) {
				*spare = *l;
				spare->start = add->end + 1;
				l->end = add->start - 1;
				insert_locked(li, spare);
				used = true;
			} else if (l->start < add->start) {
				l->end = add->start - 1;
			} else if (l->end > add->end) {
				l->start = add->end + 1;
			} else {
				free_lock_locked(l);
			}
		}
	}
	return used;
}

/* flock(2) converts by giving up first: on failure the old lock is lost. Return: it has that lock already. */
static bool give_up_flock_locked(struct lock_inode *li, const struct file_lock *req)
{
	struct file_lock *l, *next;

	LIST_FOREACH_SAFE (l, &li->locks, link, next)
		if (same_owner(l, req)) {
			if (l->type == req->type)
				return true;
			free_lock_locked(l);
			wait_queue_wake(&li->wait, POLLIN);
		}
	return false;
}

/* Enters, or clears, req's range, whoever has locks there. Return: 0, -ENOLCK. */
static int enter_locked(struct lock_inode *li, const struct file_lock *req)
{
	struct file_lock *add = malloc(sizeof(*add)), *spare = malloc(sizeof(*spare));
	bool used;

	if (!add || !spare) {
		free(add);
		free(spare);
		return -ENOLCK;
	}
	*add = *req;
	used = set_range_locked(li, add, spare);
	if (!used)
		free(spare);
	if (req->type == F_UNLCK)
		free(add);
	else
		insert_locked(li, add);
	wait_queue_wake(&li->wait, POLLIN);
	return 0;
}

static bool too_many_locked(const struct file_lock *req)
{
	return lock_count + 2 > FILE_LOCKS_MAX && req->type != F_UNLCK;
}

/* One attempt. Return: 0, -EAGAIN with *ret_holder, -ENOLCK. */
static int try_set_locked(struct lock_inode *li, const struct file_lock *req,
			  const void **ret_holder)
{
	struct file_lock *holder;

	if (req->kind == FILE_LOCK_FLOCK && give_up_flock_locked(li, req))
		return 0;
	holder = req->type == F_UNLCK ? NULL : find_conflict_locked(li, req);
	if (holder) {
		*ret_holder = holder->owner;
		return -EAGAIN;
	}
	return too_many_locked(req) ? -ENOLCK : enter_locked(li, req);
}

static void block_locked(struct blocked *b)
{
	LIST_INSERT_HEAD(&blocked_list, b, link);
	b->li->blocked++;
}

static void unblock_locked(struct blocked *b)
{
	LIST_REMOVE(b, link);
	b->li->blocked--;
}

/* Sleeps until the inode's locks change. table_lock held on entry and return. Return: 0, -EINTR, -EDEADLK. */
static int wait_locked(struct lock_inode *li, const struct file_lock *req, const void *holder)
{
	struct sleeper *s = sleeper_current();
	struct blocked b = {.li = li, .req = req};
	struct waiter w;
	int err;

	if (req->kind == FILE_LOCK_POSIX && would_deadlock_locked(req->owner, holder))
		return -EDEADLK;
	block_locked(&b);
	li->waiters++;
	waiter_init_sleeper(&w, s, POLLIN);
	wait_queue_add(&li->wait, &w);
	mutex_unlock(&table_lock);
	err = sleeper_wait(s, SLEEP_INTERRUPTIBLE, TIME_FOREVER);
	wait_queue_remove(&w);
	mutex_lock(&table_lock);
	li->waiters--;
	unblock_locked(&b);
	return err;
}

/* Waits at f's server. table_lock held on entry and return. Return: 0, -EINTR, -EDEADLK, -errno. */
static int remote_wait_locked(struct file *f, struct lock_inode *li, const struct file_lock *req)
{
	struct blocked b = {.li = li, .req = req};
	int err;

	if (req->kind == FILE_LOCK_POSIX &&
	    would_deadlock_locked(req->owner, holder_locked(li, req)))
		return -EDEADLK;
	block_locked(&b);
	mutex_unlock(&table_lock);
	err = f->ops->remote_lock(f, req, true);
	mutex_lock(&table_lock);
	unblock_locked(&b);
	return err;
}

static unsigned remote_epoch(struct file *f)
{
	return f->ops->remote_lock_epoch ? f->ops->remote_lock_epoch(f) : 0;
}

/* Asks f's server once. table_lock held on entry and return; li is pinned. Return: as remote_set_locked(). */
static int remote_ask_locked(struct file *f, struct lock_inode *li, const struct file_lock *req,
			     bool wait)
{
	int err;

	mutex_unlock(&table_lock);
	err = f->ops->remote_lock(f, req, false);
	mutex_lock(&table_lock);
	if (err == -EAGAIN && req->kind == FILE_LOCK_FLOCK)
		(void)give_up_flock_locked(li, req);
	return err == -EAGAIN && wait ? remote_wait_locked(f, li, req) : err;
}

/* Asks f's server. table_lock held on entry and return; li is pinned. Return: as file_lock_set(), -EOPNOTSUPP: it has none. */
static int remote_set_locked(struct file *f, struct lock_inode *li, const struct file_lock *req,
			     bool wait)
{
	unsigned epoch;
	int err;

	if (too_many_locked(req))
		return -ENOLCK;
	/* First, as in drop_owner(). */
	if (req->type == F_UNLCK)
		(void)!enter_locked(li, req);
	/* Who asks the next server reads the table after the epoch is another: he finds what is entered here, or it is seen here that it is too late for that. */
	do {
		epoch = remote_epoch(f);
		err = remote_ask_locked(f, li, req, wait);
	} while (!err && req->type != F_UNLCK && epoch != remote_epoch(f));
	/* Without memory for it only /proc/locks and deadlocks are not told of it: what the server has goes with its owner. */
	if (!err && req->type != F_UNLCK)
		(void)!enter_locked(li, req);
	return err;
}

static int local_set_locked(struct lock_inode *li, const struct file_lock *req, bool wait)
{
	const void *holder = NULL;
	int err;

	while ((err = try_set_locked(li, req, &holder)) == -EAGAIN && wait) {
		err = wait_locked(li, req, holder);
		if (err)
			break;
	}
	return err;
}

int file_lock_set(struct file *f, const struct file_lock *req, bool wait)
{
	struct moat_statx st = {0};
	uint64_t key = key_of(f);
	struct lock_inode *li;
	int err = -EOPNOTSUPP;

	/* No system call's result depends on it: where it cannot be had it is 0. */
	if (req->type != F_UNLCK && f->path.mount &&
	    file_stat(f, &(struct stat_args){.mask = STATX_INO}, &st))
		st.ino = 0;
	mutex_lock(&table_lock);
	li = get_inode_locked(f->path.dentry->fs, key, st.ino);
	if (!li) {
		mutex_unlock(&table_lock);
		return -ENOLCK;
	}
	li->waiters++;
	if (f->ops && f->ops->remote_lock)
		err = remote_set_locked(f, li, req, wait);
	if (err == -EOPNOTSUPP)
		err = local_set_locked(li, req, wait);
	li->waiters--;
	put_inode_locked(li);
	mutex_unlock(&table_lock);
	return err;
}

int file_lock_test(struct file *f, const struct file_lock *req, struct file_lock *ret)
{
	bool own = req->type == F_UNLCK;
	struct file_lock *l = NULL;
	uint64_t key = key_of(f);
	struct lock_inode *li;
	int err = 0;

	mutex_lock(&table_lock);
	li = find_inode_locked(f->path.dentry->fs, key);
	if (li)
		l = own ? find_own_locked(li, req) : find_conflict_locked(li, req);
	*ret = l ? *l : *req;
	mutex_unlock(&table_lock);
	if (l)
		return 0;
	ret->type = F_UNLCK;
	if (!own && f->ops && f->ops->remote_lock)
		err = f->ops->remote_lock_test(f, req, ret);
	return err == -EOPNOTSUPP ? 0 : err;
}

/* ---- the ends of descriptors and descriptions ---- */

static void drop_owner(struct file *f, const void *owner, bool posix)
{
	struct file_lock *l, *next;
	struct lock_inode *li;
	bool changed = false;
	struct dentry *d = f->path.dentry;
	uint64_t key;

	if (!d)
		return;
	key = key_of(f);
	/* acquire: pairs with get_inode_locked(); a lock of ours was counted before. */
	if (likely(!atomic_load_explicit(&buckets[bucket_of(d->fs, key)].count,
					 memory_order_acquire)))
		goto remote;
	mutex_lock(&table_lock);
	li = find_inode_locked(d->fs, key);
	if (li) {
		LIST_FOREACH_SAFE (l, &li->locks, link, next)
			if (l->owner == owner && (l->kind == FILE_LOCK_POSIX) == posix) {
				free_lock_locked(l);
				changed = true;
			}
		if (changed)
			wait_queue_wake(&li->wait, POLLIN);
		put_inode_locked(li);
	}
	mutex_unlock(&table_lock);
remote:
	/* After the entries: a server that is started anew now is not asked for them (file_locks_of()). */
	if (f->ops && f->ops->remote_lock)
		f->ops->remote_lock_drop(f, owner, posix);
}

void file_locks_close(struct file *f, const void *owner)
{
	drop_owner(f, owner, true);
}

void file_locks_gone(struct file *f)
{
	drop_owner(f, f, false);
}

/* ---- servers that lost them ---- */

unsigned file_locks_of(struct filesystem *fs, uint64_t key, struct file_lock *ret, unsigned max)
{
	const struct lock_inode *li;
	const struct file_lock *l;
	unsigned count = 0, i;

	mutex_lock(&table_lock);
	li = find_inode_locked(fs, key);
	if (li)
		LIST_FOREACH (l, &li->locks, link)
			count++;
	/* The last one that came is the first of the list. */
	i = count;
	if (li)
		LIST_FOREACH (l, &li->locks, link)
			if (--i < max)
				ret[i] = *l;
	mutex_unlock(&table_lock);
	return count;
}

void file_locks_lost(struct filesystem *fs, uint64_t key, const void *owner,
		     enum file_lock_kind kind)
{
	struct file_lock *l, *next;
	struct lock_inode *li;

	mutex_lock(&table_lock);
	li = find_inode_locked(fs, key);
	if (li) {
		LIST_FOREACH_SAFE (l, &li->locks, link, next)
			if (l->owner == owner && l->kind == kind)
				free_lock_locked(l);
		wait_queue_wake(&li->wait, POLLIN);
		put_inode_locked(li);
	}
	mutex_unlock(&table_lock);
}

/* ---- /proc/locks ---- */

void file_lock_show(struct buf *b, unsigned number, bool blocked, const char *kind,
		    const struct filesystem *fs, uint64_t ino, const struct file_lock *l)
{
	const char *type = l->type == F_WRLCK ? "WRITE" : l->type == F_RDLCK ? "READ" : "UNLCK";
	int32_t pid = l->pid;

	if (pid > 0 && vfs_hooks.pid_seen)
		pid = vfs_hooks.pid_seen(pid);
	if (!pid)
		return; /* of a process that the caller cannot see */
	buf_printf(b, "%u: %s%s %s %d 00:%02x:%llu %llu ", number, blocked ? "-> " : "", kind, type,
		   pid, fs->dev_minor, (unsigned long long)ino, (unsigned long long)l->start);
	if (l->end == INT64_MAX)
		buf_puts(b, "EOF\n");
	else
		buf_printf(b, "%llu\n", (unsigned long long)l->end);
}

/* Lock l, and the requests that wait for it. */
static void show_locked(struct buf *b, unsigned number, struct lock_inode *li,
			const struct file_lock *l)
{
	static const char *const kinds[] = {"POSIX  ADVISORY ", "OFDLCK ADVISORY ",
					    "FLOCK  ADVISORY "};
	const struct blocked *w;

	file_lock_show(b, number, false, kinds[l->kind], li->fs, li->ino, l);
	if (!li->blocked)
		return;
	LIST_FOREACH (w, &blocked_list, link)
		if (w->li == li && w->meets == l)
			file_lock_show(b, number, true, kinds[w->req->kind], li->fs, li->ino,
				       w->req);
}

void file_locks_show(struct buf *b, unsigned *number)
{
	struct blocked *w;

	mutex_lock(&table_lock);
	/* Once for each, not for each lock: everybody waits for table_lock. */
	LIST_FOREACH (w, &blocked_list, link)
		w->meets = find_conflict_locked(w->li, w->req);
	for (unsigned i = 0; i < BUCKETS; i++) {
		struct lock_inode *li;
		const struct file_lock *l;

		LIST_FOREACH (li, &buckets[i].inodes, link)
			LIST_FOREACH (l, &li->locks, link)
				show_locked(b, ++*number, li, l);
	}
	mutex_unlock(&table_lock);
}
