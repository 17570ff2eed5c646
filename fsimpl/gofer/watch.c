/*
 * fsimpl/gofer/watch.c - inotify on a shared tree hears of what others do on the host.
 *
 * The VFS tells when a program begins to watch something (filesystem_ops.watch_begin): the gofer then watches the same, as a fid that is held until the
 * last watch of that inode has gone. Its notices (Tmevent) come on the second connection, and the housekeeping thread hands them to the VFS. A
 * tree that nothing watches pays for one load a request.
 *
 * Nothing comes twice. What the sandbox asks the gofer to do the VFS has reported, and the gofer leaves it out. What is done here with
 * donated descriptors (reads, writes, their closing) the gofer cannot tell from others' doings: it is noted here, with its times, the file and the name that
 * the descriptor was opened by, and an event of that kind about them is taken for it if it may have happened between them. So an event of
 * somebody else's is missed if it falls between those times too: the same done to the very file that the sandbox is using. A host that renames a file which the sandbox
 * has open makes the sandbox's own doings come twice.
 *
 * In a shared tree nothing cached is believed without asking, so events have nothing to invalidate. A watched file keeps no descriptor that
 * nothing uses, since the host tells of its end when the last one is closed.
 *
 * Cannot: hear of the end of a removed directory that lies so deep that it has a fid; watch on a plain server.
 *
 *	watch_lock (LOCK_FS_DIR) -> LOCK_INOTIFY ; own_lock (leaf)
 */
#include <stdlib.h>
#include <sys/inotify.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/sleep.h"
#include "fsimpl/gofer/internal.h"
#include "vfs/inotify.h"

#define WATCH_BUCKETS 1024
#define OWN_IO_MAX 256 /* remembered; past it the oldest may be told twice */
#define HOST_COOKIE 0x80000000u /* the VFS's own have it never or late */

/* One inode that is watched. */
struct gofer_watch {
	LIST_ENTRY(gofer_watch) link, key_link; /* guarded by watch_lock */
	struct gofer_inode *in; /* a reference */
	unsigned refs; /* watch_begin calls */
	uint32_t fid; /* P9_NOFID: the host's side cannot be watched */
	uint32_t watch; /* what notices call it */
	uint32_t mask; /* what was asked for */
	int64_t since; /* the first of it: what happened before is nothing to it */
};

/* Something that we do, or have done, ourselves. */
struct gofer_own_io {
	uint32_t mask; /* IN_*; 0: free */
	unsigned busy; /* under way so many times */
	uint64_t qid, place; /* the file, and hash of its directory and name */
	int64_t begun, ended; /* of all that may not have been told of yet */
};

struct gofer_watches {
	LIST_HEAD(, gofer_watch) table[WATCH_BUCKETS]; /* by watch; guarded by watch_lock */
	LIST_HEAD(, gofer_watch)
	keyed[WATCH_BUCKETS]; /* by the inode's key; guarded by watch_lock */
	struct mutex own_lock; /* LOCK_LEAF */
	struct gofer_own_io own[OWN_IO_MAX]; /* guarded by own_lock */
	_Atomic bool warned; /* that the host has no more of them */
	int64_t told; /* guarded by own_lock: all events before that have come */
};

/* ---- what we do ourselves ---- */

static uint64_t place_hash(uint64_t dir_qid, const char *name, size_t len)
{
	return hash_u64(hash_bytes(name, len) ^ dir_qid) | 1;
}

uint64_t gofer_place_of(struct remote_dentry *d)
{
	const struct remote_key *key;
	uint64_t place = 0;

	if (!gofer_fs_of(d->d.fs)->shared)
		return 0;
	rcu_read_begin();
	key = rcu_load(d->key);
	if (key->parent)
		place = place_hash(gofer_inode_of(key->parent)->qid_path, key->name, key->len);
	rcu_read_end();
	return place;
}

void gofer_place_moved(struct remote_dentry *d, uint64_t old)
{
	struct gofer_inode *in = gofer_inode_of(d);
	uint64_t place = gofer_place_of(d);

	mutex_lock(&in->lock);
	if (in->rd_place == old)
		in->rd_place = place;
	if (in->rw_place == old)
		in->rw_place = place;
	mutex_unlock(&in->lock);
}

/* A slot for it: its own, a free one, or the one whose last use is the longest ago. NULL: all are in use. */
static struct gofer_own_io *slot_locked(struct gofer_watches *ws, uint64_t qid, uint64_t place,
					uint32_t mask)
{
	struct gofer_own_io *best = NULL;

	for (unsigned i = 0; i < OWN_IO_MAX; i++) {
		struct gofer_own_io *o = &ws->own[i];

		if (o->mask == mask && o->qid == qid && o->place == place)
			return o;
		if (!o->busy && (!best || o->ended < best->ended))
			best = o;
	}
	if (best)
		*best = (struct gofer_own_io){.mask = mask, .qid = qid, .place = place};
	return best;
}

static struct gofer_own_io *own_begin(struct gofer_inode *in, uint64_t place, uint32_t mask)
{
	struct gofer_watches *ws = atomic_load(&in->fs->conn->watches);
	struct gofer_own_io *o;

	mutex_lock(&ws->own_lock);
	o = slot_locked(ws, in->qid_path, place, mask);
	if (o) {
		if (!o->begun || (!o->busy && o->ended < ws->told))
			o->begun = time_monotonic_ns();
		o->busy++;
	}
	mutex_unlock(&ws->own_lock);
	return o;
}

/* The host tells of the name that the descriptor was opened by, whichever our caller has. */
struct gofer_own_io *gofer_own_begin_slow(struct gofer_inode *in, int fd, uint32_t mask)
{
	uint64_t place;

	mutex_lock(&in->lock);
	place = fd == in->rw_fd ? in->rw_place : in->rd_place;
	mutex_unlock(&in->lock);
	return own_begin(in, place, mask);
}

struct gofer_own_io *gofer_own_close_slow(struct gofer_inode *in, uint64_t place, bool write)
{
	return own_begin(in, place, write ? IN_CLOSE_WRITE : IN_CLOSE_NOWRITE);
}

void gofer_own_end_slow(struct gofer_fs *fs, struct gofer_own_io *own)
{
	struct gofer_watches *ws = atomic_load(&fs->conn->watches);

	mutex_lock(&ws->own_lock);
	own->ended = time_monotonic_ns();
	own->busy--;
	mutex_unlock(&ws->own_lock);
}

/* May ev, of the inode qid, be our own doing? */
static bool is_own(struct gofer_watches *ws, uint64_t qid, const struct p9_Tmevent *ev)
{
	uint64_t place = ev->name.len ? place_hash(qid, ev->name.data, ev->name.len) : 0;
	bool own = false;

	mutex_lock(&ws->own_lock);
	for (unsigned i = 0; i < OWN_IO_MAX && !own; i++) {
		const struct gofer_own_io *o = &ws->own[i];

		if (!(o->mask & ev->mask) || o->begun > (int64_t)ev->until ||
		    (!o->busy && o->ended < (int64_t)ev->since))
			continue;
		own = place ? o->place == place : o->qid == qid;
	}
	mutex_unlock(&ws->own_lock);
	return own;
}

/* ---- notices ---- */

static void told(struct gofer_watches *ws, int64_t since)
{
	mutex_lock(&ws->own_lock);
	ws->told = MAX(ws->told, since);
	mutex_unlock(&ws->own_lock);
}

/* Pre: watch_lock. */
static void lost_locked(struct gofer_watches *ws)
{
	struct gofer_watch *w;
	struct filesystem *last = NULL;

	/* A filesystem may be told more than once: one such event follows another only when it was read. */
	for (unsigned i = 0; i < WATCH_BUCKETS; i++)
		LIST_FOREACH (w, &ws->table[i], link) {
			if (&w->in->fs->fs != last)
				vfs_notify_lost(&w->in->fs->fs);
			last = &w->in->fs->fs;
		}
}

void p9_watch_event(struct p9_conn *c, const struct p9_Tmevent *ev)
{
	struct gofer_watches *ws = atomic_load(&c->watches);
	struct gofer_watch *w;

	/* A name that is none: as if it had none either. */
	if (!ws || (ev->name.len && !p9_name_ok(ev->name.data, ev->name.len)))
		return;
	told(ws, MIN((int64_t)ev->since, time_monotonic_ns()));
	mutex_lock(&c->watch_lock);
	if (ev->mask & IN_Q_OVERFLOW)
		lost_locked(ws);
	LIST_FOREACH (w, &ws->table[ev->watch % WATCH_BUCKETS], link) {
		struct gofer_inode *in = w->in;

		if (w->watch != ev->watch || w->fid == P9_NOFID || (int64_t)ev->until <= w->since ||
		    is_own(ws, in->qid_path, ev))
			continue;
		vfs_notify_outside(&in->fs->fs, in->qid_path, ev->mask,
				   ev->cookie ? ev->cookie | HOST_COOKIE : 0, ev->name.data,
				   ev->name.len);
	}
	mutex_unlock(&c->watch_lock);
}

/* ---- watches ---- */

static struct gofer_watches *watches_of(struct p9_conn *c)
{
	struct gofer_watches *ws = atomic_load(&c->watches), *fresh;

	if (ws)
		return ws;
	fresh = calloc(1, sizeof(*fresh));
	if (!fresh)
		return NULL;
	mutex_init(&fresh->own_lock, LOCK_LEAF, "p9_own_io");
	if (atomic_compare_exchange_strong(&c->watches, &ws, fresh))
		return fresh;
	free(fresh);
	return ws;
}

void p9_watches_fini(struct p9_conn *c)
{
	free(atomic_load(&c->watches));
}

/* Return: 0, -ESTALE (something else is there by now), -errno. */
static int ask(struct remote_dentry *d, uint32_t mask, uint32_t *ret_fid, uint32_t *ret_watch)
{
	struct gofer_fs *fs = gofer_fs_of(d->d.fs);
	struct p9_msg t = {.type = P9_Tmwatch};
	struct gofer_where where;
	struct p9_call call;
	int err;

	err = rwlock_read_lock_killable(&fs->tree_lock);
	if (err)
		return err;
	err = gofer_where(d, &where);
	if (!err) {
		t.Tmwatch.fid = where.fid;
		t.Tmwatch.path = gofer_where_path(&where);
		t.Tmwatch.newfid = p9_fid_alloc(fs->conn);
		t.Tmwatch.mask = mask;
		err = p9_rpc(fs->conn, &call, &t);
	}
	rwlock_read_unlock(&fs->tree_lock);
	if (err)
		return err;
	*ret_fid = t.Tmwatch.newfid;
	*ret_watch = call.r.Rmwatch.watch;
	if (call.r.Rmwatch.qid.path != gofer_inode_of(d)->qid_path) {
		p9_fid_clunk(fs->conn, t.Tmwatch.newfid);
		*ret_fid = P9_NOFID;
		err = -ESTALE;
	}
	p9_call_fini(&call);
	return err;
}

static unsigned key_bucket(uint64_t inode_key)
{
	return hash_u64(inode_key) % WATCH_BUCKETS;
}

/* The host's limits are not the guest's: its watch hears of the sandbox alone then. */
static void warn_once(struct gofer_watches *ws)
{
	if (!atomic_exchange(&ws->warned, true))
		log_warn("inotify: the host gives no more watches (the gofer's own limit, "
			 "fs.inotify.max_user_watches and max_user_instances): "
			 "further ones in shared mounts do not hear of changes made outside");
}

static bool enough_locked(const struct gofer_watch *w, uint32_t mask)
{
	return w && !(mask & ~w->mask);
}

/* What the gofer answered (fid NOFID: it cannot) is the inode's watch now. Return: the fid to give back. Pre: watch_lock. */
static uint32_t enter_locked(struct gofer_watches *ws, struct gofer_watch *w, uint32_t fid,
			     uint32_t watch, uint32_t mask)
{
	uint32_t old = w->fid;

	if (fid == P9_NOFID)
		return P9_NOFID;
	w->mask |= mask;
	LIST_REMOVE(w, link);
	w->fid = fid;
	w->watch = watch;
	LIST_INSERT_HEAD(&ws->table[watch % WATCH_BUCKETS], w, link);
	return old;
}

int gofer_watch_begin(struct dentry *base, uint32_t mask)
{
	struct remote_dentry *d = remote_dentry_of(base);
	struct gofer_inode *in = gofer_inode_of(d);
	struct p9_conn *c = in->fs->conn;
	uint32_t fid = P9_NOFID, watch = 0;
	struct gofer_watches *ws;
	struct gofer_watch *w;
	int err;

	if (!in->fs->shared || c->plain || c->notify_sock < 0)
		return 0;
	ws = watches_of(c);
	w = calloc(1, sizeof(*w));
	if (!ws || !w) {
		free(w);
		return -ENOMEM;
	}
	/* From here on what we do is noted: the host's watch is not there yet. */
	atomic_fetch_add(&in->fs->watch_count, 1);
	w->in = in;
	w->fid = P9_NOFID;
	mutex_lock(&c->watch_lock);
	if (enough_locked(in->watch, mask)) {
		in->watch->refs++;
		mutex_unlock(&c->watch_lock);
		free(w);
		return 0;
	}
	mutex_unlock(&c->watch_lock);
	err = ask(d, mask, &fid, &watch);
	if (err == -ENOSPC)
		warn_once(ws);
	if (err == -ENOMEM || err == -EINTR) {
		atomic_fetch_sub(&in->fs->watch_count, 1);
		free(w);
		return err;
	}
	/* It took out what was there before. */
	w->since = time_monotonic_ns();
	/* What the gofer may not read, has no watch for, or somebody removed: the sandbox's own doings are told all the same. */
	mutex_lock(&c->watch_lock);
	if (!in->watch) {
		in->watch = w;
		gofer_inode_ref(in);
		LIST_INSERT_HEAD(&ws->table[0], w, link);
		LIST_INSERT_HEAD(&ws->keyed[key_bucket(in->qid_path)], w, key_link);
		w = NULL;
	}
	in->watch->refs++;
	fid = enter_locked(ws, in->watch, fid, watch, mask);
	mutex_unlock(&c->watch_lock);
	gofer_inode_close_idle(in);
	p9_fid_clunk(c, fid);
	free(w);
	return 0;
}

/* The VFS still holds the inode. */
void gofer_watch_end(struct filesystem *base, uint64_t inode_key)
{
	struct gofer_fs *fs = gofer_fs_of(base);
	struct p9_conn *c = fs->conn;
	struct gofer_watches *ws = atomic_load(&c->watches);
	struct gofer_watch *w;

	if (!ws)
		return;
	mutex_lock(&c->watch_lock);
	LIST_FOREACH (w, &ws->keyed[key_bucket(inode_key)], key_link)
		if (w->in->fs == fs && w->in->qid_path == inode_key)
			break;
	if (w)
		atomic_fetch_sub(&fs->watch_count, 1);
	if (w && --w->refs) {
		w = NULL;
	} else if (w) {
		LIST_REMOVE(w, link);
		LIST_REMOVE(w, key_link);
		w->in->watch = NULL;
	}
	mutex_unlock(&c->watch_lock);
	if (!w)
		return;
	p9_fid_clunk(c, w->fid);
	gofer_inode_unref(w->in);
	free(w);
}
