/*
 * fsimpl/pipe/fifo.c - named pipes: which ring belongs to which inode, and the rules of opening one (fifo(7)).
 *
 * A FIFO's ring exists while somebody has it open. The table's lock (LOCK_LEAF) guards the table only; a ring that is
 * found there is taken with tryref.
 */
#include <fcntl.h>
#include <stdlib.h>

#include "base/hash.h"
#include "fsimpl/pipe/internal.h"

#define FIFO_BUCKETS 64

static struct mutex fifo_lock = MUTEX_INIT(LOCK_LEAF, "fifo_table");
static LIST_HEAD(, pipe) fifo_table[FIFO_BUCKETS]; /* guarded by fifo_lock */

static unsigned fifo_bucket(const struct filesystem *fs, uint64_t key)
{
	return hash_u64((uintptr_t)fs ^ key * 0x9e3779b97f4a7c15ull) % FIFO_BUCKETS;
}

void pipe_fifo_forget(struct pipe *p)
{
	mutex_lock(&fifo_lock);
	if (p->hashed)
		LIST_REMOVE(p, link);
	p->hashed = false;
	mutex_unlock(&fifo_lock);
}

static int fifo_get(struct filesystem *fs, uint64_t key, struct pipe **ret)
{
	unsigned bucket = fifo_bucket(fs, key);
	struct pipe *p, *fresh;
	int err = pipe_alloc(&fresh);

	if (err)
		return err;
	mutex_lock(&fifo_lock);
	LIST_FOREACH (p, &fifo_table[bucket], link)
		if (p->fs == fs && p->inode_key == key && ref_tryget(&p->ref))
			break;
	if (!p) {
		p = fresh;
		fresh = NULL;
		p->fs = fs;
		p->inode_key = key;
		p->hashed = true;
		LIST_INSERT_HEAD(&fifo_table[bucket], p, link);
	}
	mutex_unlock(&fifo_lock);
	if (fresh)
		pipe_unref(fresh);
	*ret = p;
	return 0;
}

/* open(2) of an existing ring: a FIFO's, or a pipe's through /proc/PID/fd. */
int pipe_open_on(struct pipe *p, const struct file_ops *ops, const struct vfs_path *path,
		 unsigned flags, struct file **ret)
{
	/* A pipe without a name is there already: its opens never wait (fs/pipe.c, is_pipe). */
	bool named = ops == &fifo_ops;
	unsigned accmode = flags & O_ACCMODE;
	struct pipe_file *pf;
	struct file *f;
	int err;

	if (accmode == O_ACCMODE)
		return -EINVAL;
	if (named && accmode == O_WRONLY && (flags & O_NONBLOCK)) {
		mutex_lock(&p->lock);
		err = p->readers ? 0 : -ENXIO;
		mutex_unlock(&p->lock);
		if (err)
			return err;
	}
	err = pipe_file_create(
		p, ops, path,
		flags & ~(unsigned)(O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_CLOEXEC), &f);
	if (err)
		return err;
	pf = pipe_file_of(f);
	mutex_lock(&p->lock);
	if (named && accmode == O_RDONLY && !p->writers) {
		if (flags & O_NONBLOCK)
			pf->hup_seq = p->writer_seq; /* no POLLHUP before the first writer */
		else
			pf->must_wait = true;
		pf->open_seq = p->writer_seq;
	} else if (named && accmode == O_WRONLY && !p->readers) {
		pf->must_wait = true;
		pf->open_seq = p->reader_seq;
	}
	mutex_unlock(&p->lock);
	/* Whoever waits in pipe_open_wait() for this side. */
	wait_queue_wake(&p->wait, POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM);
	*ret = f;
	return 0;
}

int pipe_fifo_open(const struct vfs_path *place, uint64_t inode_key, unsigned flags,
		   struct file **ret)
{
	struct pipe *p;
	int err = fifo_get(place->dentry->fs, inode_key, &p);

	if (err)
		return err;
	err = pipe_open_on(p, &fifo_ops, place, flags, ret);
	pipe_unref(p);
	return err;
}

static bool fifo_peer_came(void *arg)
{
	struct pipe_file *pf = arg;
	struct pipe *p = pf->pipe;
	bool came;

	mutex_lock(&p->lock);
	came = (pf->f.mode & FILE_READ ? p->writer_seq : p->reader_seq) != pf->open_seq;
	mutex_unlock(&p->lock);
	return came;
}

int pipe_open_wait(struct file *f)
{
	struct pipe_file *pf = pipe_file_of(f);
	int err;

	if (!pipe_is(f) || !pf->must_wait)
		return 0;
	err = wait_event(&pf->pipe->wait, fifo_peer_came, pf, SLEEP_INTERRUPTIBLE, TIME_FOREVER);
	if (!err)
		pf->must_wait = false;
	return err;
}
