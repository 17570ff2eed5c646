/*
 * fsimpl/virtiofs/lock.c - locks of files: the daemon's, where it has them (FUSE_POSIX_LOCKS, FUSE_FLOCK_LOCKS).
 *
 * An owner of locks of a file (a descriptor table, or an open file) has a number for the daemon, which sets locks for it that other clients and the host's
 * programs see. A lock that is not free is waited for by our own daemon (SETLKW), which a signal asks to give up (INTERRUPT). Each such request holds a place in
 * a ring: there are LOCK_WAITS_MAX at most, with those whose waiters were killed and left. Further ones, and all with other daemons (the stock one refuses SETLKW and dies of INTERRUPT), ask again, after
 * 1 ms to begin with and LOCK_TICK_MAX_NS in the end.
 *
 * A daemon that is started anew is asked for every lock that was held. If one of an owner's cannot be had again, all of his on the file are lost: they are given up there
 * too, and he is told by EIO of what reads, writes, truncations and locks would have relied on them (an open file's lock: through that file; a process's: through
 * any of the sandbox's on that inode) until he gives up those ranges or closes the file. Without memory to ask for them all owners on the file count as having lost
 * all, and nobody is asked. Mappings go on, and pages that he wrote before and that wait in memory are
 * written nevertheless.
 *
 * Who gives a lock up takes it from the table (vfs/locks.c) before he asks here, and asks again if the file system was being brought back meanwhile: then the new daemon may have been
 * asked for it already. What a daemon granted that is gone before it is in the table (virtiofs_remote_lock_epoch()) is asked for again.
 *
 * Cannot: tell who has a lock outside (F_GETLK's pid is 0); lock directories there: as under Linux that is the client's own business.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/sleep.h"
#include "fsimpl/virtiofs/internal.h"
#include "fsimpl/virtiofs/internal_device.h"
#include "vfs/locks.h"

#define LOCK_TICK_MIN_NS 1000000ll
#define LOCK_TICK_MAX_NS (50 * 1000000ll)
#define LOCK_WAITS_MAX 32 /* of a device: a daemon of ours waits for 64, a ring has 128 places */
#define INTERRUPT_TICK_MIN_NS (10 * 1000000ll) /* until it is asked again to give up; doubles */
#define INTERRUPT_TICK_MAX_NS 1000000000ll
#define INTERRUPT_NS 1000000000ll /* until who is killed leaves it */
#define RELOCK_TICK_NS (5 * 1000000ll)
#define RELOCK_ALL_NS \
	(VDEV_RESTORE_NS / 2) /* of the restoring: what is not asked for by then is lost */

struct range {
	uint64_t start, end;
};

struct virtiofs_lock_owner {
	LIST_ENTRY(virtiofs_lock_owner) link; /* guarded by the inode's lock */
	const void *owner; /* immutable; compared only */
	enum file_lock_kind kind; /* immutable */
	unsigned refs; /* guarded by the inode's lock: the list's, one a call, the reconnector's */
	unsigned calls; /* guarded by the inode's lock: that may get it locks */
	unsigned drops; /* guarded by the inode's lock: how often it gave up all */
	uint64_t id; /* immutable: the daemon's name for it */
	const struct virtiofs_handle *handle; /* immutable: flock(2)'s file's; compared only */
	/* Guarded by the inode's lock: what a daemon did not give it again; who has any counts in inode->locks_lost. */
	struct range *lost; /* owned, or &whole */
	unsigned lost_count;
	struct range whole; /* without memory for all of them */
};

static struct virtiofs_inode *inode_of(struct file *f)
{
	return virtiofs_inode_of(remote_dentry_of(f->path.dentry));
}

static bool is_remote(const struct virtiofs_inode *in, enum file_lock_kind kind)
{
	return in->fs->init_flags & (kind == FILE_LOCK_FLOCK ? FUSE_FLOCK_LOCKS : FUSE_POSIX_LOCKS);
}

/* ---- owners ---- */

static struct virtiofs_lock_owner *find_locked(struct virtiofs_inode *in, const void *owner,
					       enum file_lock_kind kind)
{
	struct virtiofs_lock_owner *o;

	LIST_FOREACH (o, &in->lock_owners, link)
		if (o->owner == owner && o->kind == kind)
			break;
	if (o)
		o->refs++;
	return o;
}

static void forget_lost_locked(struct virtiofs_lock_owner *o)
{
	if (o->lost != &o->whole)
		free(o->lost);
	o->lost = NULL;
	o->lost_count = 0;
}

static void owner_put(struct virtiofs_inode *in, struct virtiofs_lock_owner *o)
{
	bool last;

	mutex_lock(&in->lock);
	last = --o->refs == 0;
	mutex_unlock(&in->lock);
	if (!last)
		return;
	forget_lost_locked(o);
	free(o);
}

/* A call of owner_get()'s ends. */
static void owner_end(struct virtiofs_inode *in, struct virtiofs_lock_owner *o)
{
	mutex_lock(&in->lock);
	o->calls--;
	mutex_unlock(&in->lock);
	owner_put(in, o);
}

/* It gives up [start, end]. A range that it gives up the middle of stays lost as a whole. Pre: the inode's lock. */
static void forgive_locked(struct virtiofs_inode *in, struct virtiofs_lock_owner *o, uint64_t start,
			   uint64_t end)
{
	unsigned kept = 0;

	if (!o->lost_count)
		return;
	for (unsigned i = 0; i < o->lost_count; i++) {
		struct range r = o->lost[i];

		if (start <= r.start && end >= r.end)
			continue;
		if (start <= r.start && end >= r.start)
			r.start = end + 1;
		else if (start <= r.end && end >= r.end)
			r.end = start - 1;
		o->lost[kept++] = r;
	}
	o->lost_count = kept;
	if (kept)
		return;
	forget_lost_locked(o);
	atomic_fetch_sub(&in->locks_lost, 1);
}

/* It has lost those, which are consumed; NULL: all. Pre: the inode's lock. */
static void lose_locked(struct virtiofs_inode *in, struct virtiofs_lock_owner *o,
			struct range *lost, unsigned count)
{
	if (!o->lost_count)
		atomic_fetch_add(&in->locks_lost, 1);
	forget_lost_locked(o);
	o->whole = (struct range){0, INT64_MAX};
	o->lost = lost ? lost : &o->whole;
	o->lost_count = lost ? count : 1;
}

/* A call of the owner's. make: a new one if need be, of that handle's file; or NULL. NULL: none, or no memory. */
static struct virtiofs_lock_owner *owner_get(struct virtiofs_inode *in, const void *owner,
					     enum file_lock_kind kind,
					     const struct virtiofs_handle *make)
{
	struct virtiofs_lock_owner *fresh = make ? malloc(sizeof(*fresh)) : NULL, *o;

	mutex_lock(&in->lock);
	o = find_locked(in, owner, kind);
	if (!o && fresh) {
		*fresh = (struct virtiofs_lock_owner){
			.owner = owner,
			.kind = kind,
			.refs = 2,
			.id = atomic_fetch_add(&in->fs->next_key, 1),
			.handle = make,
		};
		LIST_INSERT_HEAD(&in->lock_owners, fresh, link);
		atomic_store(&in->locked, true);
		o = fresh;
		fresh = NULL;
	}
	if (o)
		o->calls++;
	mutex_unlock(&in->lock);
	free(fresh);
	return o;
}

void virtiofs_lock_owners_free(struct virtiofs_inode *in)
{
	struct virtiofs_lock_owner *o;

	while ((o = LIST_FIRST(&in->lock_owners))) {
		LIST_REMOVE(o, link);
		owner_put(in, o);
	}
}

/* ---- requests ---- */

static struct fuse_lk_in lk_in(uint64_t fh, uint64_t owner, const struct file_lock *req)
{
	return (struct fuse_lk_in){
		.fh = fh,
		.owner = owner,
		.lk = {.start = req->start,
		       .end = req->end,
		       .type = (uint32_t)req->type,
		       .pid = (uint32_t)req->pid},
		.lk_flags = req->kind == FILE_LOCK_FLOCK ? FUSE_LK_FLOCK : 0,
	};
}

static int lock_errno(ssize_t got)
{
	if (got >= 0)
		return 0;
	if (got == -ENOSYS)
		return -EOPNOTSUPP;
	return got == -EAGAIN || got == -EINTR || got == -EIO ? (int)got : -ENOLCK;
}

/* Return: 0, -EAGAIN (taken), -EOPNOTSUPP: the daemon has none after all, -EINTR, -EIO, -ENOLCK. */
static int request(struct virtiofs_inode *in, uint64_t node, uint64_t fh, uint32_t opcode,
		   uint64_t owner, const struct file_lock *req, struct fuse_lk_out *ret)
{
	const struct fuse_lk_in arg = lk_in(fh, owner, req);
	struct vdev_call call = {
		.req = {.opcode = opcode, .nodeid = node, .arg = &arg},
		.reply = ret,
		.reply_size = ret ? sizeof(*ret) : 0,
		/* Who is killed gives them up: nobody does it later. */
		.unkillable = opcode == FUSE_SETLK && req->type == F_UNLCK,
	};

	return lock_errno(virtiofs_call(in->fs, &call));
}

static int file_request(struct file *f, uint32_t opcode, uint64_t owner,
			const struct file_lock *req, struct fuse_lk_out *ret)
{
	struct virtiofs_inode *in = inode_of(f);
	uint64_t node = in->nodeid;

	return request(in, node, atomic_load(&virtiofs_file_handle(f)->fh), opcode, owner, req,
		       ret);
}

/* ---- waiting ---- */

/* A signal came. Who is killed leaves in the end; others must know whether they have it. Return: 0: there is an answer; -EINTR: none. */
static int take_back(struct vdev_pending *p)
{
	int64_t tick = INTERRUPT_TICK_MIN_NS, now = time_monotonic_ns(), end = now + INTERRUPT_NS;
	int err;

	/* What did not come to wait yet when the INTERRUPT came is asked again. */
	do {
		(void)!vdev_interrupt(p);
		err = vdev_wait(p, now < end ? SLEEP_UNINTERRUPTIBLE : SLEEP_KILLABLE, now + tick);
		tick = MIN(tick * 2, INTERRUPT_TICK_MAX_NS);
		now = time_monotonic_ns();
	} while (err == -ETIMEDOUT);
	return err;
}

/* A wait that its caller, who was killed, may leave: what it gets is given up. */
struct left_wait {
	struct vdev_owner base;
	struct virtiofs_handle *h; /* borrowed; once left a reference, and one on the filesystem */
	uint64_t node;
	struct fuse_lk_in arg;
	struct left_wait *next; /* of left_waits */
	bool unlock; /* there was no room to say so */
	struct deferred_work work;
};

/* This thread's, that the daemon is through with. */
static _Thread_local struct left_wait *left_waits;
static _Thread_local bool giving_back;

/* The daemon's place that a wait has, which LOCK_WAITS_MAX of the device's have at most. */
static _Atomic unsigned *waits_of(struct virtiofs_fs *fs)
{
	return &(fs->top ? fs->top : fs)->lock_waits;
}

static void wait_leave(struct vdev_owner *base)
{
	struct left_wait *w = container_of(base, struct left_wait, base);

	/* Until the daemon's handle and the owner's number are not named any more. */
	filesystem_ref(&w->h->in->fs->fs);
	ref_get(&w->h->ref);
}

static void left_work(struct deferred_work *work)
{
	struct left_wait *w = container_of(work, struct left_wait, work);
	struct virtiofs_fs *fs = w->h->in->fs;
	struct vdev_call call = {.req = {.opcode = FUSE_SETLK, .nodeid = w->node, .arg = &w->arg},
				 .unkillable = true};

	if (w->unlock)
		(void)!virtiofs_call(fs, &call); /* nobody is left to tell */
	virtiofs_handle_unref(w->h);
	filesystem_unref(&fs->fs);
	free(w);
}

static void give_back(struct left_wait *w)
{
	const struct vdev_call call = {
		.req = {.opcode = FUSE_SETLK, .nodeid = w->node, .arg = &w->arg}};

	/* A daemon that is gone has no locks. */
	w->arg.lk.type = F_UNLCK;
	w->unlock = vdev_begin_unwaited(w->h->in->fs->dev, &call) == -EAGAIN;
}

/* From within a request, which may be one that is made here: then it is in turn later, on no deeper stack. */
static void wait_left(struct vdev_owner *base, int err)
{
	struct left_wait *w = container_of(base, struct left_wait, base);

	atomic_fetch_sub(waits_of(w->h->in->fs), 1);
	if (err) {
		vfs_defer(&w->work);
		return;
	}
	w->next = left_waits;
	left_waits = w;
	if (giving_back)
		return;
	giving_back = true;
	while ((w = left_waits)) {
		left_waits = w->next;
		give_back(w);
		vfs_defer(&w->work);
	}
	giving_back = false;
}

/* The daemon waits. *ret_left: and goes on to. Return: 0: it has the lock; -EINTR: a signal; -EAGAIN: not so; -EIO. */
static int wait_there(struct file *f, uint64_t owner, const struct file_lock *req, bool *ret_left)
{
	struct virtiofs_inode *in = inode_of(f);
	struct left_wait *w = malloc(sizeof(*w));
	struct vdev_call call = {.req = {.opcode = FUSE_SETLKW}};
	struct vdev_pending p;
	bool interrupted;
	int err;

	if (!w)
		return -EAGAIN;
	*w = (struct left_wait){
		.base = {wait_leave, wait_left},
		.h = virtiofs_file_handle(f),
		.work.run = left_work,
	};
	w->node = in->nodeid;
	w->arg = lk_in(atomic_load(&w->h->fh), owner, req);
	call.req.nodeid = w->node;
	call.req.arg = &w->arg;
	call.owner = &w->base;
	err = vdev_begin(in->fs->dev, &call, true, &p);
	if (err) {
		free(w);
		return err;
	}
	interrupted = vdev_wait(&p, SLEEP_INTERRUPTIBLE, TIME_FOREVER) != 0;
	if (interrupted && take_back(&p)) {
		*ret_left = true;
		vdev_leave(&p); /* and w, with the wait's place */
		return -EINTR;
	}
	err = lock_errno(vdev_end(&p, NULL));
	free(w);
	if (!err || err == -EIO)
		return err;
	return interrupted ? -EINTR : -EAGAIN;
}

/* Until it is worth asking again. Return: 1; 0: the lock was got while waiting; -errno. */
static int wait_turn(struct file *f, uint64_t owner, const struct file_lock *req,
		     int64_t *inout_tick)
{
	struct virtiofs_fs *fs = inode_of(f)->fs;
	bool left = false;
	int err = -EAGAIN;

	if (fs->init_flags & FUSE_HAS_MOAT_WALK) {
		if (atomic_fetch_add(waits_of(fs), 1) < LOCK_WAITS_MAX)
			err = wait_there(f, owner, req, &left);
		if (!left)
			atomic_fetch_sub(waits_of(fs), 1);
	}
	if (err != -EAGAIN)
		return err;
	err = sleeper_wait(sleeper_current(), SLEEP_INTERRUPTIBLE,
			   time_monotonic_ns() + *inout_tick);
	*inout_tick = MIN(*inout_tick * 2, LOCK_TICK_MAX_NS);
	return err == -EINTR ? err : 1;
}

/* As SETLK, and SETLKW over any number of daemons. */
static int lock_waiting(struct file *f, uint64_t owner, const struct file_lock *req)
{
	struct virtiofs_device *dev = inode_of(f)->fs->dev;
	int64_t tick = LOCK_TICK_MIN_NS;
	int err;

	do {
		unsigned epoch = vdev_epoch(dev);

		err = file_request(f, FUSE_SETLK, owner, req, NULL);
		if (err == -EAGAIN)
			err = wait_turn(f, owner, req, &tick);
		if (err == -EIO && (epoch != vdev_epoch(dev) || !virtiofs_device_alive(dev))) {
			virtiofs_device_await(dev);
			err = virtiofs_device_alive(dev) && epoch != vdev_epoch(dev) ? 1 : -EIO;
		}
	} while (err == 1);
	return err;
}

/*
 * Unlocks, at the daemon that is there once the file system is not being brought back any more: while it is, only the reconnector's requests go through, and he may have taken
 * this lock. One that comes later does not (the table has it no more). Return: as request().
 */
static int give_up(struct file *f, uint64_t owner, const struct file_lock *req,
		   enum sleep_mode mode)
{
	struct virtiofs_device *dev = inode_of(f)->fs->dev;
	unsigned epoch;
	bool was;
	int err;

	do {
		was = virtiofs_device_settle(dev, mode);
		if (virtiofs_device_restoring(dev) && !was)
			return -EIO; /* killed: its end gives up all */
		epoch = vdev_epoch(dev);
		err = file_request(f, FUSE_SETLK, owner, req, NULL);
	} while (err == -EIO &&
		 (virtiofs_device_restoring(dev) ||
		  (virtiofs_device_alive(dev) && (!was || epoch != vdev_epoch(dev)))));
	return err;
}

unsigned virtiofs_remote_lock_epoch(struct file *f)
{
	return vdev_epoch(inode_of(f)->fs->dev);
}

int virtiofs_remote_lock(struct file *f, const struct file_lock *req, bool wait)
{
	struct virtiofs_inode *in = inode_of(f);
	bool unlock = req->type == F_UNLCK, lost;
	struct virtiofs_lock_owner *o;
	int err = -EIO;

	if (!is_remote(in, req->kind))
		return -EOPNOTSUPP;
	virtiofs_await(in->fs);
	o = owner_get(in, req->owner, req->kind, unlock ? NULL : virtiofs_file_handle(f));
	if (!o)
		return unlock ? -EOPNOTSUPP : -ENOLCK;
	mutex_lock(&in->lock);
	lost = o->lost_count;
	mutex_unlock(&in->lock);
	if (unlock)
		err = give_up(f, o->id, req, SLEEP_KILLABLE);
	else if (!lost)
		err = wait ? lock_waiting(f, o->id, req)
			   : file_request(f, FUSE_SETLK, o->id, req, NULL);
	mutex_lock(&in->lock);
	/* After the request: it may have been lost meanwhile. */
	if (unlock)
		forgive_locked(in, o, req->start, req->end);
	mutex_unlock(&in->lock);
	owner_end(in, o);
	return err;
}

int virtiofs_remote_lock_test(struct file *f, const struct file_lock *req, struct file_lock *ret)
{
	struct virtiofs_inode *in = inode_of(f);
	struct fuse_lk_out out = {.lk = {.type = F_UNLCK}};
	struct file_lock ask = *req;
	struct virtiofs_lock_owner *o;
	int err;

	if (!is_remote(in, req->kind))
		return -EOPNOTSUPP;
	/* As from Linux's client: the stock daemon hands it to F_OFD_GETLK, which takes no other. */
	ask.pid = 0;
	/* Who has no locks asks as somebody who never will. */
	o = owner_get(in, req->owner, req->kind, NULL);
	err = file_request(f, FUSE_GETLK, o ? o->id : atomic_fetch_add(&in->fs->next_key, 1), &ask,
			   &out);
	if (o)
		owner_end(in, o);
	if (err)
		return err;
	ret->type = F_UNLCK;
	if (out.lk.type == F_UNLCK)
		return 0;
	if (out.lk.type > F_UNLCK || out.lk.start > out.lk.end || out.lk.start > INT64_MAX)
		return -EIO;
	*ret = (struct file_lock){
		.kind = req->kind,
		.type = (short)out.lk.type,
		.start = out.lk.start,
		.end = MIN(out.lk.end, (uint64_t)INT64_MAX),
	};
	return 0;
}

static void drop(struct file *f, const void *owner, enum file_lock_kind kind)
{
	const struct file_lock all = {.kind = kind, .type = F_UNLCK, .end = INT64_MAX};
	struct virtiofs_inode *in = inode_of(f);
	struct virtiofs_lock_owner *o;

	mutex_lock(&in->lock);
	o = find_locked(in, owner, kind);
	if (o)
		forgive_locked(in, o, 0, INT64_MAX);
	if (o)
		o->drops++;
	/* Somebody else's call of the same owner goes on: what it gets is dropped by a later close. */
	if (o && !o->calls) {
		LIST_REMOVE(o, link);
		o->refs--;
	}
	mutex_unlock(&in->lock);
	if (!o)
		return;
	/* Whoever is killed gives them up: nobody does it later. What fails went with the daemon. */
	(void)!give_up(f, o->id, &all, SLEEP_UNINTERRUPTIBLE);
	owner_put(in, o);
}

void virtiofs_remote_lock_drop(struct file *f, const void *owner, bool posix)
{
	if (likely(!atomic_load_explicit(&inode_of(f)->locked, memory_order_acquire)))
		return;
	if (posix) {
		drop(f, owner, FILE_LOCK_POSIX);
	} else {
		drop(f, owner, FILE_LOCK_OFD);
		drop(f, owner, FILE_LOCK_FLOCK);
	}
}

/* ---- another daemon ---- */

/* An owner whose locks are taken again. */
struct relock {
	struct virtiofs_lock_owner *o; /* a reference */
	unsigned
		drops; /* o's, before the table was read: what it gives up since is not ours to lose */
	uint64_t fh;
	bool named; /* fh is known */
	bool got, lost;
};

static int relock_compare(const void *a, const void *b)
{
	const struct virtiofs_lock_owner *x = ((const struct relock *)a)->o,
					 *y = ((const struct relock *)b)->o;

	if (x->owner != y->owner)
		return (uintptr_t)x->owner < (uintptr_t)y->owner ? -1 : 1;
	return (int)x->kind - (int)y->kind;
}

/* The daemon's name for the handle that a lock is asked for through: flock(2)'s own, any other's any. UINT64_MAX: there is none. */
static uint64_t handle_named(struct virtiofs_inode *in, const struct virtiofs_lock_owner *o)
{
	uint64_t fh = UINT64_MAX;
	struct virtiofs_handle *h;

	for (h = virtiofs_handle_next(in, NULL); h; h = virtiofs_handle_next(in, h))
		if (o->kind != FILE_LOCK_FLOCK || h == o->handle) {
			fh = atomic_load(&h->fh);
			virtiofs_handle_unref(h);
			break;
		}
	return fh;
}

/* All owners, sorted; owned, with references. NULL: no memory. */
static struct relock *owners_of(struct virtiofs_inode *in, unsigned *ret_count)
{
	struct virtiofs_lock_owner *o;
	struct relock *all;
	unsigned count, room = 0;

	do {
		count = 0;
		all = calloc(room + 1, sizeof(*all));
		if (!all)
			return NULL;
		mutex_lock(&in->lock);
		LIST_FOREACH (o, &in->lock_owners, link)
			count++;
		if (count <= room) {
			count = 0;
			LIST_FOREACH (o, &in->lock_owners, link) {
				o->refs++;
				all[count++] = (struct relock){.o = o, .drops = o->drops};
			}
		}
		mutex_unlock(&in->lock);
		if (count <= room)
			break;
		free(all);
		room = count;
	} while (true);
	qsort(all, count, sizeof(*all), relock_compare);
	*ret_count = count;
	return all;
}

/* All locks; owned. NULL: no memory. */
static struct file_lock *locks_of(struct virtiofs_inode *in, unsigned *ret_count)
{
	unsigned room = file_locks_of(&in->fs->fs, in->key, NULL, 0);

	for (;;) {
		struct file_lock *all = calloc(room + 1, sizeof(*all));

		if (!all)
			return NULL;
		*ret_count = file_locks_of(&in->fs->fs, in->key, all, room);
		if (*ret_count <= room)
			return all;
		free(all);
		room = *ret_count;
	}
}

/* until: it may be asked for again; end: it may be asked for at all. Return: 0, -EAGAIN: somebody has it; -errno. */
static int relock_one(struct virtiofs_inode *in, uint64_t node, struct relock *r,
		      const struct file_lock *l, int64_t until, int64_t end)
{
	int err;

	if (time_monotonic_ns() >= end)
		return -ETIMEDOUT;
	if (!r->named)
		r->fh = handle_named(in, r->o);
	r->named = true;
	while ((err = request(in, node, r->fh, FUSE_SETLK, r->o->id, l, NULL)) == -EAGAIN &&
	       time_monotonic_ns() < until)
		(void)!sleeper_wait(sleeper_current(), SLEEP_UNINTERRUPTIBLE,
				    time_monotonic_ns() + RELOCK_TICK_NS);
	r->got |= !err;
	return err;
}

/* One of r's among those cannot be had: none of them is. */
static void lose(struct virtiofs_inode *in, uint64_t node, struct relock *r,
		 const struct file_lock *locks, unsigned count, int err)
{
	const struct file_lock all = {.kind = r->o->kind, .type = F_UNLCK, .end = INT64_MAX};
	struct range *lost = calloc(count, sizeof(*lost));
	unsigned lost_count = 0;
	bool given_up;

	for (unsigned i = 0; lost && i < count; i++)
		if (locks[i].owner == r->o->owner && locks[i].kind == r->o->kind)
			lost[lost_count++] = (struct range){locks[i].start, locks[i].end};
	mutex_lock(&in->lock);
	given_up = r->o->drops != r->drops;
	if (!given_up)
		lose_locked(in, r->o, lost, lost_count);
	mutex_unlock(&in->lock);
	r->lost = true;
	/* Who gave them up meanwhile tells the daemon himself. */
	if (given_up) {
		free(lost);
		return;
	}
	file_locks_lost(&in->fs->fs, in->key, r->o->owner, r->o->kind);
	if (r->got)
		(void)!request(in, node, r->fh, FUSE_SETLK, r->o->id, &all, NULL);
	log_warn("virtio-fs: a lock was lost with the daemon (%s): its file gives EIO to whom it "
		 "was until he "
		 "gives it up",
		 err == -EAGAIN ? "it is somebody else's now" : strerror(-err));
}

static void lose_all(struct virtiofs_inode *in)
{
	struct virtiofs_lock_owner *o;

	mutex_lock(&in->lock);
	LIST_FOREACH (o, &in->lock_owners, link)
		lose_locked(in, o, NULL, 0);
	mutex_unlock(&in->lock);
	log_warn("virtio-fs: no memory to take a file's locks again: they are lost");
}

void virtiofs_relock(struct virtiofs_inode *in, uint64_t node, int64_t until)
{
	int64_t end = atomic_load(&in->fs->dev->restore_end) - VDEV_RESTORE_NS + RELOCK_ALL_NS;
	unsigned owner_count = 0, count = 0;
	struct file_lock *locks = NULL;
	struct relock *owners;

	if (!atomic_load(&in->locked))
		return;
	/* First: who is no owner yet has no locks yet. */
	owners = owners_of(in, &owner_count);
	if (owners)
		locks = locks_of(in, &count);
	if (!locks)
		lose_all(in);
	for (unsigned i = 0; locks && i < count; i++) {
		struct virtiofs_lock_owner like = {.owner = locks[i].owner, .kind = locks[i].kind};
		struct relock key = {.o = &like};
		struct relock *r =
			bsearch(&key, owners, owner_count, sizeof(*owners), relock_compare);
		int err;

		/* Without one it is given up by now. */
		if (!r || r->lost)
			continue;
		err = relock_one(in, node, r, &locks[i], until, end);
		if (err && virtiofs_device_alive(in->fs->dev))
			lose(in, node, r, locks, count, err);
	}
	for (unsigned i = 0; i < owner_count; i++)
		owner_put(in, owners[i].o);
	free(owners);
	free(locks);
}

bool virtiofs_lock_is_lost(struct file *f)
{
	struct virtiofs_inode *in = inode_of(f);
	const struct virtiofs_lock_owner *o;
	bool lost = false;

	mutex_lock(&in->lock);
	LIST_FOREACH (o, &in->lock_owners, link)
		lost |= o->lost_count && (o->kind == FILE_LOCK_POSIX || o->owner == f);
	mutex_unlock(&in->lock);
	return lost;
}
