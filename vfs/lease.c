/*
 * vfs/lease.c - leases.
 *
 * Whether others have the file open is asked of the layer that knows the descriptor tables (vfs_hooks.opened_elsewhere), after the lease
 * is in the list: an open that comes later meets the lease, one that came before is found. A description that only a
 * socket's queue or a mapping refers to is not seen.
 */
#include "vfs/lease.h"

#include <fcntl.h>
#include <linux/stat.h>
#include <stdlib.h>

#include "vfs/locks.h"
#include "vfs/wait.h"

struct lease {
	LIST_ENTRY(lease) link; /* guarded by lease_lock */
	struct file *f; /* not a reference: file_lease_gone() */
	struct filesystem *fs; /* identity */
	uint64_t key;
	uint64_t ino; /* for /proc/locks */
	int32_t pid; /* of the process that took it first */
	int type; /* F_RDLCK, F_WRLCK */
	int target; /* what a break wants it to be; `type` when there is none */
	int64_t deadline; /* of the break */
};

/* A call that breaks leases: it counts as a description that is open, as on Linux. On its stack. */
struct breaker {
	LIST_ENTRY(breaker) link; /* guarded by lease_lock */
	struct filesystem *fs;
	uint64_t key;
	bool write;
};

_Atomic uint32_t vfs_lease_count;
_Atomic uint32_t vfs_lease_break_s = LEASE_BREAK_DEFAULT_S;

static struct mutex lease_lock = MUTEX_INIT(LOCK_FILE_LOCKS, "leases");
static LIST_HEAD(, lease) leases = LIST_HEAD_INITIALIZER(leases); /* guarded by lease_lock */
static LIST_HEAD(, breaker) breakers = LIST_HEAD_INITIALIZER(breakers); /* guarded by lease_lock */
static struct wait_queue changed; /* some lease went or changed */

__attribute__((constructor)) static void lease_init(void)
{
	wait_queue_init(&changed);
}

static struct lease *find_of_file(const struct file *f)
{
	struct lease *l;

	LIST_FOREACH (l, &leases, link)
		if (l->f == f)
			break;
	return l;
}

static void drop_locked(struct lease *l)
{
	LIST_REMOVE(l, link);
	atomic_fetch_sub_explicit(&vfs_lease_count, 1, memory_order_release);
	free(l);
	wait_queue_wake(&changed, POLLIN);
}

static int unlease(struct file *f)
{
	struct lease *l;

	mutex_lock(&lease_lock);
	l = find_of_file(f);
	if (l)
		drop_locked(l);
	mutex_unlock(&lease_lock);
	return l ? 0 : -EAGAIN;
}

/* Another's lease on the inode that `type` does not go with. */
static bool conflicts_locked(const struct lease *mine, struct filesystem *fs, uint64_t key,
			     int type)
{
	const struct lease *l;

	LIST_FOREACH (l, &leases, link)
		if (l != mine && l->fs == fs && l->key == key &&
		    (type == F_WRLCK || l->type == F_WRLCK || l->target == F_UNLCK))
			return true;
	return false;
}

/* Somebody who waits for a lease's end would be kept out by a lease of `type` for good. */
static bool is_awaited_locked(struct filesystem *fs, uint64_t key, int type)
{
	const struct breaker *b;

	LIST_FOREACH (b, &breakers, link)
		if (b->fs == fs && b->key == key && (b->write || type == F_WRLCK))
			return true;
	return false;
}

/* lease_modify(): the break that waits for F_UNLCK goes on, one that waits for F_RDLCK ends with it. */
static void change_locked(struct lease *l, int type)
{
	if (l->target == l->type || (l->target == F_RDLCK && type == F_RDLCK))
		l->target = type;
	l->type = type;
}

/* What f had before enter(). */
struct lease_before {
	int type, target; /* F_UNLCK: nothing */
};

/* Enters the lease as it is asked for. */
static int enter(struct file *f, int type, int32_t pid, struct lease_before *ret_old)
{
	struct moat_statx st = {0};
	struct dentry *d = f->path.dentry;
	uint64_t key = d->fs->ops->inode_key(d);
	struct lease *fresh = calloc(1, sizeof(*fresh)), *l;
	int err = 0;

	if (!fresh)
		return -ENOMEM;
	/* Where the number cannot be had it is 0. */
	if (file_stat(f, &(struct stat_args){.mask = STATX_INO}, &st))
		st.ino = 0;
	mutex_lock(&lease_lock);
	l = find_of_file(f);
	*ret_old = l ? (struct lease_before){l->type, l->target}
		     : (struct lease_before){F_UNLCK, F_UNLCK};
	if (is_awaited_locked(d->fs, key, type) || conflicts_locked(l, d->fs, key, type)) {
		err = -EAGAIN;
	} else if (l) {
		change_locked(l, type);
	} else if (atomic_load_explicit(&vfs_lease_count, memory_order_relaxed) >= LEASES_MAX) {
		err = -ENOLCK;
	} else {
		*fresh = (struct lease){.f = f,
					.fs = d->fs,
					.key = key,
					.ino = st.ino,
					.pid = pid,
					.type = type,
					.target = type};
		LIST_INSERT_HEAD(&leases, fresh, link);
		atomic_fetch_add_explicit(&vfs_lease_count, 1, memory_order_seq_cst);
		fresh = NULL;
	}
	mutex_unlock(&lease_lock);
	free(fresh);
	return err;
}

/* check_conflicting_open(): a read lease bears no writer, a write lease nobody else. */
static bool is_opened(struct file *f, int type)
{
	if (type == F_RDLCK && (f->mode & FILE_WRITE))
		return true;
	return vfs_hooks.opened_elsewhere && vfs_hooks.opened_elsewhere(f, type == F_RDLCK);
}

int file_lease_set(struct file *f, int type, int32_t pid, bool *ret_new)
{
	struct lease_before old;
	struct lease *l;
	int err;

	*ret_new = false;
	if (type == F_UNLCK)
		return unlease(f);
	err = enter(f, type, pid, &old);
	if (err)
		return err;
	if (is_opened(f, type)) {
		mutex_lock(&lease_lock);
		l = find_of_file(f);
		if (l && old.type == F_UNLCK) {
			drop_locked(l);
		} else if (l) {
			/* A break that came meanwhile stays. */
			if (l->target == l->type)
				l->target = old.target;
			l->type = old.type;
			/* Who waits for what was asked for need not for what is left. */
			wait_queue_wake(&changed, POLLIN);
		}
		mutex_unlock(&lease_lock);
		return -EAGAIN;
	}
	/* A step down lets waiters go on. */
	wait_queue_wake(&changed, POLLIN);
	*ret_new = old.type == F_UNLCK;
	return 0;
}

int file_lease_get(struct file *f)
{
	struct lease *l;
	int type;

	mutex_lock(&lease_lock);
	l = find_of_file(f);
	type = l ? l->target : F_UNLCK;
	mutex_unlock(&lease_lock);
	return type;
}

void file_lease_gone_slow(struct file *f)
{
	(void)unlease(f);
}

/* ---- breaking ---- */

/* Leases in the way of (fs, key): their breaks begin, or end by force when their time is up. Return: *ret_deadline of the first that is left. */
static bool blocked_locked(struct filesystem *fs, uint64_t key, bool write, struct file **ret_tell,
			   int64_t *ret_deadline)
{
	int64_t now = time_monotonic_ns();
	struct lease *l, *next;
	bool blocked = false;

	*ret_tell = NULL;
	LIST_FOREACH_SAFE (l, &leases, link, next) {
		if (l->fs != fs || l->key != key || (!write && l->type != F_WRLCK))
			continue;
		if (write ? l->target != F_UNLCK : l->target == l->type) {
			l->target = write ? F_UNLCK : F_RDLCK;
			l->deadline = now + (int64_t)atomic_load(&vfs_lease_break_s) * 1000000000;
			if (file_tryref(l->f))
				*ret_tell = l->f;
		}
		if (now < l->deadline) {
			*ret_deadline = blocked ? MIN(*ret_deadline, l->deadline) : l->deadline;
			blocked = true;
		} else if (l->target == F_UNLCK) {
			drop_locked(l);
		} else {
			l->type = l->target;
		}
		/* One is told at a time: the caller comes back. */
		if (*ret_tell)
			break;
	}
	return blocked;
}

int vfs_lease_break(struct dentry *d, bool write, bool nonblock)
{
	struct breaker me = {.fs = d->fs, .key = d->fs->ops->inode_key(d), .write = write};
	struct sleeper *s = sleeper_current();
	struct file *tell;
	int64_t deadline = TIME_FOREVER;
	struct waiter w;
	int err = 0;

	waiter_init_sleeper(&w, s, POLLIN);
	wait_queue_add(&changed, &w);
	mutex_lock(&lease_lock);
	LIST_INSERT_HEAD(&breakers, &me, link);
	mutex_unlock(&lease_lock);
	while (!err) {
		bool blocked;

		mutex_lock(&lease_lock);
		blocked = blocked_locked(me.fs, me.key, write, &tell, &deadline);
		mutex_unlock(&lease_lock);
		if (tell) {
			if (vfs_hooks.send_sigio)
				vfs_hooks.send_sigio(tell, POLLIN | POLLRDNORM | POLLMSG);
			file_unref(tell);
			continue;
		}
		if (!blocked)
			break;
		if (nonblock) {
			err = -EAGAIN;
			break;
		}
		err = sleeper_wait(s, SLEEP_INTERRUPTIBLE, deadline);
		if (err == -ETIMEDOUT)
			err = 0;
	}
	mutex_lock(&lease_lock);
	LIST_REMOVE(&me, link);
	mutex_unlock(&lease_lock);
	wait_queue_remove(&w);
	return err;
}

/* ---- /proc/locks ---- */

void file_leases_show(struct buf *b, unsigned *number)
{
	const struct lease *l;

	mutex_lock(&lease_lock);
	LIST_FOREACH (l, &leases, link) {
		const struct file_lock lock = {
			.type = (short)l->target, .pid = l->pid, .end = INT64_MAX};

		file_lock_show(b, ++*number, false,
			       l->target == l->type ? "LEASE  ACTIVE   " : "LEASE  BREAKING ",
			       l->fs, l->ino, &lock);
	}
	mutex_unlock(&lease_lock);
}
