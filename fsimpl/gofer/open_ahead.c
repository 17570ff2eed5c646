/*
 * fsimpl/gofer/open_ahead.c - files that a program is about to open are opened together.
 *
 * tar, cp -r, grep -r open the files of a directory in the order of its listing. Where a descriptor has to be asked for, the directory's entries are
 * kept and the file is what follows those asked for last, the descriptors of files behind it are asked for too: requests that are under way at
 * once, all of which are waited for (ahead.c says why). Their number doubles each time up to GOFER_OPEN_AHEAD_MAX; it halves when the program is elsewhere,
 * or when more than half of those that came before were not opened.
 *
 * A descriptor that came so is an idle one, as any that a program had and closed (hostfd.c): whoever opens the file is checked first, and the oldest
 * close when there are too many. Opening has no effect on a file. Only files that nobody else changes, of which all is known but a descriptor.
 *
 * Bounds: besides the number, GOFER_OPEN_AHEAD_LOOK entries that are looked at each time. Nothing is held between requests but a number per directory.
 *
 *	tree_lock, for reading -> open_ahead.lock (LOCK_FS_DIR; not with the dentry cache's) -> inode->lock
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "fsimpl/gofer/internal.h"

/* An open that is planned, then under way. */
struct asked {
	struct remote_dentry *d; /* a reference; the first is the caller's */
	struct p9_call *call; /* owned; NULL: it could not be sent */
};

/* ---- what comes next ---- */

/* The entry's regular file, if its attributes are known; borrowed within the RCU read section. */
static struct remote_dentry *file_rcu(struct gofer_fs *fs, struct remote_dentry *dir,
				      const struct p9_dirent *e)
{
	struct remote_dentry *d;

	if (e->type != DT_REG)
		return NULL;
	d = remote_find_rcu(&fs->dcache, dir, e->name.data, e->name.len);
	if (!d || !d->inode || d->inode->type != S_IFREG || remote_is_dead(d))
		return NULL;
	return d;
}

/* Who has its lock is about to have one. */
static bool has_fd(struct gofer_inode *in)
{
	bool ret = true;

	if (mutex_trylock(&in->lock)) {
		ret = in->rd_fd >= 0 || in->rw_fd >= 0;
		mutex_unlock(&in->lock);
	}
	return ret;
}

/* Is d one of the first few files without a descriptor from *inout_off on? Then that goes behind it. */
static bool is_near(struct gofer_fs *fs, struct remote_dentry *dir, const struct gofer_listing *l,
		    struct remote_dentry *d, size_t *inout_off)
{
	unsigned looked = 0, files = 0;
	size_t off = *inout_off;
	struct p9_dirent e;
	bool found = false;

	rcu_read_begin();
	while (!found && files < GOFER_OPEN_AHEAD_NEAR && looked++ < GOFER_OPEN_AHEAD_LOOK &&
	       p9_dirent_get(l->data, l->size, &off, true, &e) == 1) {
		struct remote_dentry *other = file_rcu(fs, dir, &e);

		found = other == d;
		files += other && !found && !has_fd(gofer_inode_of(other));
	}
	rcu_read_end();
	if (found)
		*inout_off = off;
	return found;
}

/* The files behind `*inout_off` that have no descriptor, `max` at most, with references. Return: how many. */
static unsigned collect(struct gofer_fs *fs, struct remote_dentry *dir,
			const struct gofer_listing *l, size_t *inout_off, unsigned max,
			struct asked *ret)
{
	unsigned count = 0, looked = 0;
	struct p9_dirent e;

	rcu_read_begin();
	while (count < max && looked++ < GOFER_OPEN_AHEAD_LOOK &&
	       p9_dirent_get(l->data, l->size, inout_off, true, &e) == 1) {
		struct remote_dentry *d = file_rcu(fs, dir, &e);

		if (d && !has_fd(gofer_inode_of(d)) && ref_tryget(&d->d.ref))
			ret[count++] = (struct asked){.d = d};
	}
	rcu_read_end();
	return count;
}

/* Where d's listing goes on behind it, if that can be told. */
static bool find_place(const struct gofer_listing *l, const struct remote_dentry *d, size_t *ret)
{
	const struct remote_key *key = rcu_load(d->key);
	struct p9_dirent e;

	return gofer_listing_at(l, gofer_inode_of(d), &e, ret) && e.name.len == key->len &&
	       !memcmp(e.name.data, key->name, key->len);
}

/* Pre: the lock. d, of dir, is asked for; what else? */
static unsigned plan_locked(struct gofer_fs *fs, struct remote_dentry *dir,
			    const struct gofer_listing *l, struct remote_dentry *d,
			    struct asked *ret)
{
	struct gofer_open_ahead *a = &fs->open_ahead;
	struct gofer_inode *in = gofer_inode_of(dir);
	unsigned unused = atomic_load_explicit(&a->unused, memory_order_relaxed);
	size_t off = in->open_off <= l->size ? in->open_off : 0;
	bool begun = off != 0, near = is_near(fs, dir, l, d, &off);
	bool placed = near;

	if (!near) {
		rcu_read_begin();
		placed = find_place(l, d, &off);
		rcu_read_end();
	}
	if (!near || unused * 2 > a->asked)
		a->window /= 2;
	else if (a->window || begun)
		a->window = MIN(MAX(a->window * 2, GOFER_OPEN_AHEAD_MIN), GOFER_OPEN_AHEAD_MAX);
	if (!placed)
		return 0;
	a->asked = a->window ? collect(fs, dir, l, &off, a->window, ret) : 0;
	in->open_off = (uint32_t)off;
	for (unsigned i = 0; i < a->asked; i++)
		atomic_store_explicit(&gofer_inode_of(ret[i].d)->open_ahead, true,
				      memory_order_relaxed);
	atomic_store_explicit(&a->unused, a->asked, memory_order_relaxed);
	return a->asked;
}

static unsigned plan(struct gofer_fs *fs, struct remote_dentry *d, struct asked *ret)
{
	struct remote_dentry *dir = remote_parent(d);
	struct gofer_listing *l;
	unsigned count;

	if (fs->shared || fs->conn->plain || !dir || remote_is_dead(d) ||
	    atomic_load(&fs->conn->host_fds) + GOFER_OPEN_AHEAD_MAX >= GOFER_HOST_FDS_MAX)
		return 0;
	l = gofer_listing_of(gofer_inode_of(dir));
	if (!l)
		return 0;
	mutex_lock(&fs->open_ahead.lock);
	count = plan_locked(fs, dir, l, d, ret);
	mutex_unlock(&fs->open_ahead.lock);
	gofer_listing_unref(l);
	return count;
}

/* ---- asking ---- */

static void start(struct gofer_fs *fs, struct asked *asked)
{
	struct gofer_where where;
	struct p9_msg t;

	if (!gofer_where_known(asked->d, &where))
		return;
	gofer_fill_open(&t, &where, 0, O_RDONLY);
	if (p9_call_start(fs->conn, &t, &asked->call))
		asked->call = NULL;
}

/* Return: the descriptor or -errno. */
static int finish(struct gofer_fs *fs, struct asked *asked)
{
	struct gofer_where none = {0};
	struct p9_call *call = asked->call;
	struct p9_msg t;
	int fd;

	if (!call)
		return -EAGAIN;
	gofer_fill_open(&t, &none, 0, O_RDONLY);
	fd = p9_call_wait(fs->conn, call, &t);
	if (fd)
		return fd;
	fd = gofer_take_opened(call);
	p9_call_fini(call);
	free(call);
	return fd;
}

int gofer_open_ahead(struct remote_dentry *d)
{
	struct gofer_fs *fs = gofer_fs_of(d->d.fs);
	struct asked asked[1 + GOFER_OPEN_AHEAD_MAX];
	unsigned count = plan(fs, d, asked + 1);
	int ret;

	if (!count)
		return gofer_ask_fd(d, 0, O_RDONLY);
	asked[0] = (struct asked){.d = d};
	for (unsigned i = 0; i <= count; i++)
		start(fs, &asked[i]);
	ret = finish(fs, &asked[0]);
	for (unsigned i = 1; i <= count; i++) {
		int fd = finish(fs, &asked[i]);

		/* What goes wrong here goes wrong again, and is reported, where the program asks. */
		if (fd >= 0)
			gofer_inode_keep_fd(asked[i].d, fd);
		remote_dentry_unref(asked[i].d);
	}
	return asked[0].call ? ret : gofer_ask_fd(d, 0, O_RDONLY);
}

void gofer_open_ahead_used(struct gofer_inode *in)
{
	_Atomic unsigned *unused = &in->fs->open_ahead.unused;
	unsigned old = atomic_load_explicit(unused, memory_order_relaxed);

	if (!atomic_exchange_explicit(&in->open_ahead, false, memory_order_relaxed))
		return;
	/* Those of an earlier batch count as well: it is an estimate, and stops at none. */
	while (old && !atomic_compare_exchange_weak_explicit(
			      unused, &old, old - 1, memory_order_relaxed, memory_order_relaxed))
		;
}
