/*
 * fsimpl/virtiofs/lock.c - locks of files: the daemon's, where it has them (FUSE_POSIX_LOCKS, FUSE_FLOCK_LOCKS).
 *
 * An owner of locks of a file (a descriptor table, or an open file) has a number for the daemon, which sets locks for it that other clients and the host's
 * programs see. A lock that is not free is asked for again, after 1 ms to begin with and LOCK_TICK_MAX_NS in the end: a request that waits in the daemon would
 * hold a place in the ring, the stock daemon refuses it (EOPNOTSUPP), and dies of the INTERRUPT that a signal would take.
 *
 * Cannot: keep locks over a restart of the daemon; tell who has one outside (F_GETLK's pid is 0); lock directories there.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/sleep.h"
#include "fsimpl/virtiofs/internal.h"
#include "vfs/locks.h"

#define LOCK_TICK_MIN_NS 1000000ll
#define LOCK_TICK_MAX_NS (50 * 1000000ll)

struct virtiofs_lock_owner {
	LIST_ENTRY(virtiofs_lock_owner) link; /* guarded by the inode's lock */
	const void *owner; /* immutable; compared only */
	enum file_lock_kind kind; /* immutable */
	unsigned refs; /* guarded by the inode's lock: the list's and one a call */
	uint64_t id; /* immutable: the daemon's name for it */
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

/* A use of the owner's. make: of a new one if need be. NULL: none, or no memory. */
static struct virtiofs_lock_owner *owner_get(struct virtiofs_inode *in, const void *owner,
					     enum file_lock_kind kind, bool make)
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

/* Return: 0, -EAGAIN (taken), -EOPNOTSUPP: the daemon has none after all, -EINTR, -EIO, -ENOLCK. */
static int request(struct file *f, uint32_t opcode, uint64_t owner, const struct file_lock *req,
		   struct fuse_lk_out *ret)
{
	struct virtiofs_inode *in = inode_of(f);
	const struct fuse_lk_in arg = {
		.fh = atomic_load(&virtiofs_file_handle(f)->fh),
		.owner = owner,
		.lk = {.start = req->start,
		       .end = req->end,
		       .type = (uint32_t)req->type,
		       .pid = (uint32_t)req->pid},
		.lk_flags = req->kind == FILE_LOCK_FLOCK ? FUSE_LK_FLOCK : 0,
	};
	struct vdev_call call = {
		.req = {.opcode = opcode, .nodeid = in->nodeid, .arg = &arg},
		.reply = ret,
		.reply_size = ret ? sizeof(*ret) : 0,
		/* Who is killed gives them up: nobody does it later. */
		.unkillable = opcode == FUSE_SETLK && req->type == F_UNLCK,
	};
	ssize_t got = virtiofs_call(in->fs, &call);

	if (got >= 0)
		return 0;
	if (got == -ENOSYS)
		return -EOPNOTSUPP;
	return got == -EAGAIN || got == -EINTR || got == -EIO ? (int)got : -ENOLCK;
}

int virtiofs_remote_lock(struct file *f, const struct file_lock *req, bool wait)
{
	int64_t tick = LOCK_TICK_MIN_NS;
	struct virtiofs_inode *in = inode_of(f);
	struct virtiofs_lock_owner *o;
	int err, slept = 0;

	if (!is_remote(in, req->kind))
		return -EOPNOTSUPP;
	o = owner_get(in, req->owner, req->kind, req->type != F_UNLCK);
	if (!o)
		return req->type == F_UNLCK ? -EOPNOTSUPP : -ENOLCK;
	while ((err = request(f, FUSE_SETLK, o->id, req, NULL)) == -EAGAIN && wait) {
		slept = sleeper_wait(sleeper_current(), SLEEP_INTERRUPTIBLE,
				     time_monotonic_ns() + tick);
		tick = MIN(tick * 2, LOCK_TICK_MAX_NS);
		if (slept == -EINTR) {
			err = slept;
			break;
		}
	}
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
	o = owner_get(in, req->owner, req->kind, false);
	err = request(f, FUSE_GETLK, o ? o->id : atomic_fetch_add(&in->fs->next_key, 1), req, &out);
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
	/* Somebody else's call of the same owner goes on: what it gets is dropped by a later close. */
	if (o && o->refs == 2) {
		LIST_REMOVE(o, link);
		o->refs--;
	}
	mutex_unlock(&in->lock);
	if (!o)
		return;
	/* What fails here went with the daemon. */
	(void)!request(f, FUSE_SETLK, o->id, &all, NULL);
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
