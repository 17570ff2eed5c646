/*
 * fsimpl/virtiofs/lock.c - locks of files: the daemon's, where it has them (FUSE_POSIX_LOCKS, FUSE_FLOCK_LOCKS).
 *
 * An owner of locks of a file (a descriptor table, or an open file) has a number for the daemon, which sets locks for it that other clients and the host's
 * programs see. A lock that is not free is waited for by our own daemon (SETLKW), which a signal asks to give up (INTERRUPT). Each such request holds a place in
 * a ring: there are LOCK_WAITS_MAX at most. Further ones, and all with other daemons (the stock one refuses SETLKW and dies of INTERRUPT), ask again, after
 * 1 ms to begin with and LOCK_TICK_MAX_NS in the end.
 *
 * A daemon that is started anew is asked for every lock that was held. One that somebody else got meanwhile is lost: its owner is told by EIO of what reads, writes
 * and locks would have relied on it (an open file's lock: through that file; a process's: through any of the sandbox's on that inode) until it gives it up,
 * as Linux's NFS client does. Mappings go on.
 *
 * Cannot: tell who has a lock outside (F_GETLK's pid is 0); lock directories there: as under Linux that is the client's own business.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/sleep.h"
#include "fsimpl/virtiofs/internal.h"
#include "vfs/locks.h"

#define LOCK_TICK_MIN_NS 1000000ll
#define LOCK_TICK_MAX_NS (50 * 1000000ll)
#define LOCK_WAITS_MAX 32 /* of a device: a daemon of ours waits for 64, a ring has 128 places */
#define INTERRUPT_TICK_NS (10 * 1000000ll) /* until it is asked again to give up */
#define INTERRUPT_NS 1000000000ll /* until it is given up */
#define RELOCK_TICK_NS (5 * 1000000ll)

struct virtiofs_lock_owner {
	LIST_ENTRY(virtiofs_lock_owner) link; /* guarded by the inode's lock */
	const void *owner; /* immutable; compared only */
	enum file_lock_kind kind; /* immutable */
	unsigned refs; /* guarded by the inode's lock: the list's and one a call */
	uint64_t id; /* immutable: the daemon's name for it */
	const struct virtiofs_handle *handle; /* immutable: flock(2)'s file's; compared only */
	bool lost; /* guarded by the inode's lock: a daemon did not give it its locks again; counted in inode->locks_lost */
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

static void owner_put(struct virtiofs_inode *in, struct virtiofs_lock_owner *o)
{
	bool last;

	mutex_lock(&in->lock);
	last = --o->refs == 0;
	mutex_unlock(&in->lock);
	if (last)
		free(o);
}

/* It has given up what it lost. Pre: the inode's lock. */
static void forgive_locked(struct virtiofs_inode *in, struct virtiofs_lock_owner *o)
{
	if (o->lost)
		atomic_fetch_sub(&in->locks_lost, 1);
	o->lost = false;
}

/* A use of the owner's. h: make a new one if need be, of that handle's file; or NULL. NULL: none, or no memory. */
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

/* A signal came. Return: 0: there is an answer; -ETIMEDOUT: none. */
static int take_back(struct vdev_pending *p)
{
	int64_t end = time_monotonic_ns() + INTERRUPT_NS, now;
	int err;

	/* What did not come to wait yet when the INTERRUPT came is asked again. */
	do {
		(void)!vdev_interrupt(p);
		now = time_monotonic_ns();
		err = vdev_wait(p, SLEEP_UNINTERRUPTIBLE, now + INTERRUPT_TICK_NS);
	} while (err && now < end);
	return err;
}

/* The daemon waits. Return: 0: it has the lock; -EINTR: a signal; -EAGAIN: not so; -EIO. */
static int wait_there(struct file *f, uint64_t owner, const struct file_lock *req)
{
	struct virtiofs_inode *in = inode_of(f);
	uint64_t node = in->nodeid;
	const struct fuse_lk_in arg = lk_in(atomic_load(&virtiofs_file_handle(f)->fh), owner, req);
	const struct vdev_call call = {.req = {.opcode = FUSE_SETLKW, .nodeid = node, .arg = &arg}};
	struct vdev_pending p;
	bool interrupted;
	int err = vdev_begin(in->fs->dev, &call, true, &p);

	if (err)
		return err;
	interrupted = vdev_wait(&p, SLEEP_INTERRUPTIBLE, TIME_FOREVER) != 0;
	if (interrupted && take_back(&p)) {
		vdev_leave(&p);
		return -EINTR;
	}
	err = lock_errno(vdev_end(&p, NULL));
	if (!err || err == -EIO)
		return err;
	return interrupted ? -EINTR : -EAGAIN;
}

/* Until it is worth asking again. Return: 1; 0: the lock was got while waiting; -errno. */
static int wait_turn(struct file *f, uint64_t owner, const struct file_lock *req,
		     int64_t *inout_tick)
{
	struct virtiofs_fs *fs = inode_of(f)->fs, *top = fs->top ? fs->top : fs;
	int err = -EAGAIN;

	if (fs->init_flags & FUSE_HAS_MOAT_WALK) {
		if (atomic_fetch_add(&top->lock_waits, 1) < LOCK_WAITS_MAX)
			err = wait_there(f, owner, req);
		atomic_fetch_sub(&top->lock_waits, 1);
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

int virtiofs_remote_lock(struct file *f, const struct file_lock *req, bool wait)
{
	struct virtiofs_inode *in = inode_of(f);
	struct virtiofs_lock_owner *o;
	bool lost;
	int err;

	if (!is_remote(in, req->kind))
		return -EOPNOTSUPP;
	virtiofs_await(in->fs);
	o = owner_get(in, req->owner, req->kind,
		      req->type != F_UNLCK ? virtiofs_file_handle(f) : NULL);
	if (!o)
		return req->type == F_UNLCK ? -EOPNOTSUPP : -ENOLCK;
	mutex_lock(&in->lock);
	if (req->type == F_UNLCK)
		forgive_locked(in, o);
	lost = o->lost;
	mutex_unlock(&in->lock);
	if (lost)
		err = -EIO;
	else
		err = wait ? lock_waiting(f, o->id, req)
			   : file_request(f, FUSE_SETLK, o->id, req, NULL);
	owner_put(in, o);
	return err;
}

int virtiofs_remote_lock_test(struct file *f, const struct file_lock *req, struct file_lock *ret)
{
	struct virtiofs_inode *in = inode_of(f);
	struct fuse_lk_out out = {.lk = {.type = F_UNLCK}};
	struct virtiofs_lock_owner *o;
	int err;

	if (!is_remote(in, req->kind))
		return -EOPNOTSUPP;
	/* Who has no locks asks as somebody who never will. */
	o = owner_get(in, req->owner, req->kind, NULL);
	err = file_request(f, FUSE_GETLK, o ? o->id : atomic_fetch_add(&in->fs->next_key, 1), req,
			   &out);
	if (o)
		owner_put(in, o);
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
		forgive_locked(in, o);
	/* Somebody else's call of the same owner goes on: what it gets is dropped by a later close. */
	if (o && o->refs == 2) {
		LIST_REMOVE(o, link);
		o->refs--;
	}
	mutex_unlock(&in->lock);
	if (!o)
		return;
	/* One that is being asked for the locks anew may have this one already. */
	virtiofs_await(in->fs);
	/* What fails here went with the daemon. */
	(void)!file_request(f, FUSE_SETLK, o->id, &all, NULL);
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

/* The daemon's name for a handle that is still open; UINT64_MAX: there is none. */
static uint64_t handle_named(struct virtiofs_inode *in, const struct virtiofs_handle *wanted)
{
	uint64_t fh = UINT64_MAX;
	struct virtiofs_handle *h;

	for (h = virtiofs_handle_next(in, NULL); h; h = virtiofs_handle_next(in, h))
		if (h == wanted)
			fh = atomic_load(&h->fh);
	return fh;
}

/* Return: 0, -EAGAIN: somebody has it; -errno. */
static int relock_one(struct virtiofs_inode *in, uint64_t node, const struct virtiofs_lock_owner *o,
		      const struct file_lock *l, int64_t until)
{
	uint64_t fh = handle_named(in, o->handle);
	int err;

	while ((err = request(in, node, fh, FUSE_SETLK, o->id, l, NULL)) == -EAGAIN &&
	       time_monotonic_ns() < until)
		(void)!sleeper_wait(sleeper_current(), SLEEP_UNINTERRUPTIBLE,
				    time_monotonic_ns() + RELOCK_TICK_NS);
	return err;
}

static void lose(struct virtiofs_inode *in, struct virtiofs_lock_owner *o)
{
	mutex_lock(&in->lock);
	if (!o->lost)
		atomic_fetch_add(&in->locks_lost, 1);
	o->lost = true;
	mutex_unlock(&in->lock);
	file_locks_lost(&in->fs->fs, in->key, o->owner, o->kind);
	log_warn("virtio-fs: a lock was lost with the daemon, and is somebody else's now: its "
		 "file gives EIO to whom it was until he gives it up");
}

void virtiofs_relock(struct virtiofs_inode *in, uint64_t node, int64_t until)
{
	unsigned max, count;
	struct file_lock *locks;

	if (!atomic_load(&in->locked))
		return;
	max = file_locks_of(&in->fs->fs, in->key, NULL, 0);
	locks = calloc(max + 1, sizeof(*locks));
	count = locks ? file_locks_of(&in->fs->fs, in->key, locks, max) : 0;
	for (unsigned i = 0; i < MIN(count, max); i++) {
		struct virtiofs_lock_owner *o = owner_get(in, locks[i].owner, locks[i].kind, NULL);

		/* Without one it is given up by now. */
		if (!o)
			continue;
		if (relock_one(in, node, o, &locks[i], until) && virtiofs_device_alive(in->fs->dev))
			lose(in, o);
		owner_put(in, o);
	}
	free(locks);
}

bool virtiofs_lock_is_lost(struct file *f)
{
	struct virtiofs_inode *in = inode_of(f);
	const struct virtiofs_lock_owner *o;
	bool lost = false;

	mutex_lock(&in->lock);
	LIST_FOREACH (o, &in->lock_owners, link)
		lost |= o->lost && (o->kind == FILE_LOCK_POSIX || o->owner == f);
	mutex_unlock(&in->lock);
	return lost;
}
