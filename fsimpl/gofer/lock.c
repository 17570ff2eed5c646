/*
 * fsimpl/gofer/lock.c - locks of files in shared trees: the host's (vfs/locks.h, file_ops.remote_lock).
 *
 * Each owner of locks of a file (a descriptor table, or an open file) has an open fid of its own at the gofer, and the locks are that descriptor's: other
 * owners, other sandboxes and the host's programs conflict with it. The fid goes when its owner closes the file. A lock that is not free is waited for by the
 * gofer, which sends a notice (notify.c); it keeps no tag and no reader busy. Where it waits for as many as it can we ask again every LOCK_TICK_NS.
 *
 * Cannot: tell who has a lock outside (F_GETLK's pid is 0), find deadlocks with locks outside, lock a file at the host that somebody else has renamed or
 * removed since it was opened: such locks are this sandbox's alone.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/sleep.h"
#include "fsimpl/gofer/internal.h"
#include "vfs/locks.h"

#define LOCK_TICK_NS (50 * 1000000ll)
#define NOTICE_LATE_NS (1000 * 1000000ll) /* for a notice that was sent before a reply that came */

#define LATE_LOCKS_MAX 64 /* of an owner */

/* What a call got after its owner had closed the file. */
struct late_lock {
	LIST_ENTRY(late_lock) link;
	uint64_t start, end;
};

struct gofer_lock_owner {
	LIST_ENTRY(gofer_lock_owner) link; /* guarded by the inode's lock */
	const void *owner; /* immutable; compared only */
	bool posix; /* immutable */
	unsigned refs; /* guarded by the inode's lock: the list's and one a request */
	uint32_t fid; /* open; P9_NOFID: given back by who took it off the list */
	/*
	 * The owner closed the file while calls of it were under way: its locks are `late` alone, and when it has none and no call goes on it is given
	 * back: nobody may ever close that file again for it (fcntl(2) undoes what it got for a descriptor that is closed). Guarded by the inode's lock.
	 */
	bool closed;
	LIST_HEAD(, late_lock) late;
	unsigned late_count; /* in the list */
};

static struct gofer_inode *inode_of(struct file *f)
{
	return gofer_inode_of(remote_dentry_of(f->path.dentry));
}

/* ---- owners ---- */

static struct gofer_lock_owner *find_locked(struct gofer_inode *in, const void *owner, bool posix)
{
	struct gofer_lock_owner *o;

	LIST_FOREACH (o, &in->lock_owners, link)
		if (o->owner == owner && o->posix == posix)
			break;
	if (o)
		o->refs++;
	return o;
}

static struct gofer_lock_owner *owner_get(struct gofer_inode *in, const void *owner, bool posix)
{
	struct gofer_lock_owner *o;

	mutex_lock(&in->lock);
	o = find_locked(in, owner, posix);
	mutex_unlock(&in->lock);
	return o;
}

/* The server's locks of that owner are gone when this returns: others may know already that we have closed the file. */
static void clunk_now(struct p9_conn *c, struct gofer_lock_owner *o)
{
	struct p9_msg t = {.type = P9_Tclunk};
	struct p9_call call;

	t.Tclunk.fid = o->fid;
	o->fid = P9_NOFID;
	/* Whoever was killed: nobody does it later. What fails here ends with the connection. */
	if (!p9_rpc_one(c, &call, &t, P9_MUST_WAIT))
		p9_call_fini(&call);
}

/* Forgets what is wholly in the range. Pre: the inode's lock. */
static void late_clear_locked(struct gofer_lock_owner *o, uint64_t start, uint64_t end)
{
	struct late_lock *l, *next;

	LIST_FOREACH_SAFE (l, &o->late, link, next)
		if (start <= l->start && l->end <= end) {
			LIST_REMOVE(l, link);
			o->late_count--;
			free(l);
		}
}

/* A call of the owner's changed req's range at the gofer. */
static void late_note(struct gofer_inode *in, struct gofer_lock_owner *o,
		      const struct file_lock *req)
{
	struct late_lock *l = NULL;

	mutex_lock(&in->lock);
	if (o->closed) {
		late_clear_locked(o, req->start, req->end);
		if (req->type != F_UNLCK && o->late_count < LATE_LOCKS_MAX)
			l = malloc(sizeof(*l));
		if (l) {
			*l = (struct late_lock){.start = req->start, .end = req->end};
			LIST_INSERT_HEAD(&o->late, l, link);
			o->late_count++;
		} else if (req->type != F_UNLCK) {
			/* Without room for it the owner stays until it closes the file again. */
			o->closed = false;
		}
	}
	mutex_unlock(&in->lock);
}

static void owner_put(struct gofer_inode *in, struct gofer_lock_owner *o)
{
	struct p9_conn *c = in->fs->conn;
	bool last, given_up;

	mutex_lock(&in->lock);
	given_up = o->refs == 2 && o->closed && LIST_EMPTY(&o->late);
	if (given_up) {
		LIST_REMOVE(o, link);
		o->refs--;
	}
	last = --o->refs == 0;
	if (last)
		late_clear_locked(o, 0, UINT64_MAX);
	mutex_unlock(&in->lock);
	if (!last)
		return;
	/* Whoever was killed does not know whether it got its lock. */
	if (given_up)
		clunk_now(c, o);
	p9_fid_clunk(c, o->fid);
	atomic_fetch_sub(&c->lock_fids, 1);
	free(o);
}

/* Opens d's file as a fid of its own. Return: 0, -ESTALE: another file has its name; -errno. */
static int open_fid(struct remote_dentry *d, uint32_t accmode, uint32_t *ret)
{
	struct p9_conn *c = gofer_fs_of(d->d.fs)->conn;
	struct p9_msg t = {.type = P9_Tmopen};
	struct gofer_where where;
	struct p9_node node = {0};
	struct p9_call call;
	int err = gofer_where(d, &where);

	if (err)
		return err;
	t.Tmopen.fid = where.fid;
	t.Tmopen.newfid = p9_fid_alloc(c);
	t.Tmopen.want = P9_WANT_SELF;
	t.Tmopen.flags = accmode;
	t.Tmopen.skip = where.depth;
	t.Tmopen.path = gofer_where_path(&where);
	err = p9_rpc(c, &call, &t);
	if (err)
		return err;
	if (call.r.Rmopen.nodes.count == 1)
		p9_nodes_get(&call.r.Rmopen.nodes, 0, &node);
	if (call.r.Rmopen.err)
		err = call.r.Rmopen.err < 4096 ? -(int)call.r.Rmopen.err : -EIO;
	else if (!call.r.Rmopen.bound)
		err = -EIO;
	else if (node.qid.path != gofer_inode_of(d)->qid_path)
		err = -ESTALE;
	if (err && call.r.Rmopen.bound)
		p9_fid_clunk(c, t.Tmopen.newfid);
	p9_call_fini(&call);
	*ret = t.Tmopen.newfid;
	return err;
}

/* For writing where that can be: an exclusive record lock wants it. What the guest's file is open for was checked. */
static int open_owner_fid(struct remote_dentry *d, uint32_t *ret)
{
	struct gofer_fs *fs = gofer_fs_of(d->d.fs);
	int err = rwlock_read_lock_killable(&fs->tree_lock);

	if (err)
		return err;
	err = -EISDIR;
	if (!remote_is_dir(d))
		err = open_fid(d, O_RDWR, ret);
	if (err == -EISDIR || err == -EROFS || err == -EACCES || err == -EPERM || err == -ETXTBSY)
		err = open_fid(d, O_RDONLY, ret);
	rwlock_read_unlock(&fs->tree_lock);
	/* What cannot be found there any more nobody else opens either. */
	return err == -ESTALE || err == -ENOENT || err == -ENOTDIR || err == -ELOOP ? -EOPNOTSUPP
										    : err;
}

/* A use of the owner's; its fid is opened if need be. Return: 0, -EOPNOTSUPP, -ENOLCK, -EINTR, -EIO. */
static int owner_make(struct file *f, const void *owner, bool posix, struct gofer_lock_owner **ret)
{
	struct remote_dentry *d = remote_dentry_of(f->path.dentry);
	struct gofer_inode *in = gofer_inode_of(d);
	struct p9_conn *c = in->fs->conn;
	struct gofer_lock_owner *o = owner_get(in, owner, posix), *fresh;
	int err;

	*ret = o;
	if (o)
		return 0;
	fresh = malloc(sizeof(*fresh));
	if (!fresh || atomic_fetch_add(&c->lock_fids, 1) >= GOFER_LOCK_OWNERS_MAX) {
		if (fresh)
			atomic_fetch_sub(&c->lock_fids, 1);
		free(fresh);
		return -ENOLCK;
	}
	*fresh = (struct gofer_lock_owner){.owner = owner, .posix = posix, .refs = 1};
	err = open_owner_fid(d, &fresh->fid);
	if (err) {
		atomic_fetch_sub(&c->lock_fids, 1);
		free(fresh);
		return err == -EOPNOTSUPP || err == -EINTR || err == -EIO ? err : -ENOLCK;
	}
	mutex_lock(&in->lock);
	o = find_locked(in, owner, posix);
	if (!o) {
		LIST_INSERT_HEAD(&in->lock_owners, fresh, link);
		atomic_store(&in->locked, true);
		fresh->refs++;
		o = fresh;
		fresh = NULL;
	}
	mutex_unlock(&in->lock);
	/* Another thread's came first. */
	if (fresh)
		owner_put(in, fresh);
	*ret = o;
	return 0;
}

void gofer_lock_owners_free(struct gofer_inode *in)
{
	struct gofer_lock_owner *o;

	while ((o = LIST_FIRST(&in->lock_owners))) {
		LIST_REMOVE(o, link);
		owner_put(in, o);
	}
}

/* ---- requests ---- */

static uint8_t type_of(const struct file_lock *req)
{
	return req->type == F_RDLCK ? P9_LOCK_RDLCK
				    : (req->type == F_WRLCK ? P9_LOCK_WRLCK : P9_LOCK_UNLCK);
}

static uint64_t length_of(const struct file_lock *req)
{
	return req->end == INT64_MAX ? 0 : req->end - req->start + 1;
}

/* Return: 0 with *ret_status, -errno. */
static int ask(struct p9_conn *c, uint32_t fid, const struct file_lock *req, uint64_t wait,
	       uint8_t *ret_status)
{
	struct p9_msg t = {.type = P9_Tmlock};
	struct p9_call call;
	int err;

	t.Tmlock.fid = fid;
	t.Tmlock.kind = req->kind == FILE_LOCK_FLOCK ? P9_LOCK_FLOCK : P9_LOCK_RECORD;
	t.Tmlock.type = type_of(req);
	t.Tmlock.wait = wait;
	t.Tmlock.start = req->start;
	t.Tmlock.length = length_of(req);
	/* Who is killed gives locks up: nobody does it later. */
	err = p9_rpc_one(c, &call, &t, req->type == F_UNLCK ? P9_MUST_WAIT : P9_MAY_LEAVE);
	if (err)
		return err;
	*ret_status = call.r.Rmlock.status;
	p9_call_fini(&call);
	return 0;
}

static bool is_done(struct p9_conn *c, const struct p9_lock_wait *w)
{
	bool done;

	mutex_lock(&c->lock);
	done = w->done;
	mutex_unlock(&c->lock);
	return done;
}

/* A signal came. Return: 0: too late, the lock is there; -EINTR; -errno. */
static int cancel_wait(struct p9_conn *c, const struct p9_lock_wait *w)
{
	struct p9_msg t = {.type = P9_Tmlockcancel};
	int64_t late = time_monotonic_ns() + NOTICE_LATE_NS;
	struct p9_call call;
	int err, ended = 0;

	t.Tmlockcancel.wait = w->id;
	err = p9_rpc(c, &call, &t);
	if (!err) {
		ended = call.r.Rmlockcancel.err ? -EINTR : 0;
		p9_call_fini(&call);
		return ended;
	}
	if (err != -ENOENT)
		return err;
	while (!is_done(c, w) && ended != -ETIMEDOUT)
		ended = sleeper_wait(sleeper_current(), SLEEP_UNINTERRUPTIBLE, late);
	return is_done(c, w) ? w->err : -EIO;
}

static int wait_notice(struct p9_conn *c, const struct p9_lock_wait *w)
{
	int err = 0;

	while (!is_done(c, w)) {
		err = sleeper_wait(sleeper_current(), SLEEP_INTERRUPTIBLE, TIME_FOREVER);
		if (err == -EINTR)
			return cancel_wait(c, w);
	}
	return w->err;
}

static int wait_tick(void)
{
	int err = sleeper_wait(sleeper_current(), SLEEP_INTERRUPTIBLE,
			       time_monotonic_ns() + LOCK_TICK_NS);

	return err == -EINTR ? err : 0;
}

/* Return: 0, -EINTR, -errno. */
static int ask_and_wait(struct p9_conn *c, uint32_t fid, const struct file_lock *req)
{
	struct p9_lock_wait w = {.sleeper = sleeper_current()};
	uint8_t status = P9_LOCK_RETRY;
	int err = 0;

	mutex_lock(&c->lock);
	w.id = ++c->last_wait;
	LIST_INSERT_HEAD(&c->lock_waits, &w, link);
	mutex_unlock(&c->lock);
	while (!err && status == P9_LOCK_RETRY) {
		err = ask(c, fid, req, w.id, &status);
		if (!err && status == P9_LOCK_QUEUED)
			err = wait_notice(c, &w);
		else if (!err && status == P9_LOCK_RETRY)
			err = wait_tick();
		else if (!err && status != P9_LOCK_SUCCESS)
			err = -EIO;
	}
	mutex_lock(&c->lock);
	LIST_REMOVE(&w, link);
	mutex_unlock(&c->lock);
	return err;
}

static bool is_shared(const struct gofer_inode *in)
{
	return in->fs->shared && !in->fs->conn->plain;
}

int gofer_remote_lock(struct file *f, const struct file_lock *req, bool wait)
{
	struct gofer_inode *in = inode_of(f);
	bool posix = req->kind == FILE_LOCK_POSIX;
	struct p9_conn *c = in->fs->conn;
	struct gofer_lock_owner *o;
	uint8_t status;
	int err = 0;

	if (!is_shared(in))
		return -EOPNOTSUPP;
	if (req->type == F_UNLCK) {
		o = owner_get(in, req->owner, posix);
		/* It never locked there. */
		if (!o)
			return -EOPNOTSUPP;
	} else {
		err = owner_make(f, req->owner, posix, &o);
	}
	if (err)
		return err;
	if (wait) {
		err = ask_and_wait(c, o->fid, req);
	} else {
		err = ask(c, o->fid, req, 0, &status);
		if (!err && status != P9_LOCK_SUCCESS)
			err = status == P9_LOCK_BLOCKED ? -EAGAIN : -EIO;
	}
	if (!err)
		late_note(in, o, req);
	owner_put(in, o);
	return err;
}

int gofer_remote_lock_test(struct file *f, const struct file_lock *req, struct file_lock *ret)
{
	struct gofer_inode *in = inode_of(f);
	struct p9_msg t = {.type = P9_Tgetlock};
	const struct p9_Rgetlock *r;
	struct gofer_lock_owner *o;
	struct p9_call call;
	int err;

	if (!is_shared(in))
		return -EOPNOTSUPP;
	err = owner_make(f, req->owner, req->kind == FILE_LOCK_POSIX, &o);
	if (err)
		return err;
	t.Tgetlock.fid = o->fid;
	t.Tgetlock.type = type_of(req);
	t.Tgetlock.start = req->start;
	t.Tgetlock.length = length_of(req);
	t.Tgetlock.client_id = p9_str("");
	err = p9_rpc(in->fs->conn, &call, &t);
	owner_put(in, o);
	if (err)
		return err;
	r = &call.r.Rgetlock;
	if (r->type == P9_LOCK_UNLCK) {
		ret->type = F_UNLCK;
	} else if (r->type > P9_LOCK_UNLCK || r->start > INT64_MAX ||
		   r->length > INT64_MAX - r->start) {
		err = -EIO;
	} else {
		*ret = (struct file_lock){
			.kind = req->kind,
			.type = r->type == P9_LOCK_RDLCK ? F_RDLCK : F_WRLCK,
			.start = r->start,
			.end = r->length ? r->start + r->length - 1 : INT64_MAX,
		};
	}
	p9_call_fini(&call);
	return err;
}

void gofer_remote_lock_drop(struct file *f, const void *owner, bool posix)
{
	static const struct file_lock records = {.type = F_UNLCK, .end = INT64_MAX},
				      whole = {.kind = FILE_LOCK_FLOCK, .type = F_UNLCK};
	struct gofer_inode *in = inode_of(f);
	struct gofer_lock_owner *o;
	uint8_t status;
	bool busy;

	/* Its locks were made by calls that are over, or that will hold them themselves. */
	if (likely(!atomic_load_explicit(&in->locked, memory_order_acquire)))
		return;
	mutex_lock(&in->lock);
	o = find_locked(in, owner, posix);
	/* A lock that is being waited for is the owner's when it is granted, whatever it gave up before. */
	busy = o && o->refs > 2;
	if (o && !busy) {
		LIST_REMOVE(o, link);
		o->closed = false;
		o->refs--;
	} else if (o) {
		o->closed = true;
		late_clear_locked(o, 0, UINT64_MAX);
	}
	mutex_unlock(&in->lock);
	if (!o)
		return;
	if (!busy) {
		clunk_now(in->fs->conn, o);
	} else {
		(void)!ask(in->fs->conn, o->fid, &records, 0, &status);
		if (!posix)
			(void)!ask(in->fs->conn, o->fid, &whole, 0, &status);
	}
	owner_put(in, o);
}
