/*
 * fsimpl/gofer/hostfd.c - descriptors of regular files that the gofer donated.
 *
 * An inode has at most one for reading and one for reading and writing, shared by all its open files and mappings (its pins).
 * When the last pin goes the descriptors stay, on a list of idle ones: opening again is then no request at all. The oldest
 * idle ones are closed when there are too many; what they know about size and times is kept then. A file that inotify watches keeps none:
 * the host tells of a removed file's end when the last descriptor is closed.
 */
#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fsimpl/gofer/internal.h"

#define LOST_PART \
	8u /* where one was lost, so small a part of those that are there is closed, if idle */
#define TRIM_BATCH(c) (fds_max(c) / 8)
#define PLAIN_FDS_MAX \
	512 /* open fids that a plain server has to bear; more if as many files are open */

static unsigned fds_max(const struct p9_conn *c)
{
	return c->plain ? PLAIN_FDS_MAX : GOFER_HOST_FDS_MAX;
}

/* Pre: in->lock. */
static int usable_fd_locked(const struct gofer_inode *in, bool write)
{
	return write || in->rw_fd >= 0 ? in->rw_fd : in->rd_fd;
}

/* What put_fds() gives back without the lock: on a plain connection that may be a request. */
static void take_fds_locked(struct gofer_inode *in, int ret_fds[2])
{
	gofer_inode_refresh_locked(in);
	ret_fds[0] = in->rd_fd;
	ret_fds[1] = in->rw_fd;
	in->rd_fd = -1;
	in->rw_fd = -1;
}

static void put_fd(struct gofer_inode *in, int fd, uint64_t place, bool write)
{
	struct gofer_own_io *own = gofer_own_close(in, place, write);

	p9_fd_put(in->fs->conn, fd);
	gofer_own_end(in->fs, own);
}

static uint64_t fd_place(struct gofer_inode *in, bool write)
{
	uint64_t place;

	mutex_lock(&in->lock);
	place = write ? in->rw_place : in->rd_place;
	mutex_unlock(&in->lock);
	return place;
}

/* What take_fds_locked() took. Return: how many there were. */
static unsigned put_fds(struct gofer_inode *in, const int fds[2])
{
	unsigned count = 0;

	for (unsigned i = 0; i < 2; i++) {
		if (fds[i] < 0)
			continue;
		put_fd(in, fds[i], fd_place(in, i == 1), i == 1);
		count++;
	}
	return count;
}

/* The mapping's own descriptor goes when nothing maps the file. Return: how many were closed. */
static unsigned drop_memfile(struct gofer_inode *in)
{
	struct gofer_own_io *own, *own_rw;
	struct memfile *mf = NULL;

	rwlock_write_lock(&in->map.data_lock);
	if (LIST_EMPTY(&in->map.mappings)) {
		mf = in->mf;
		in->mf = NULL;
		in->mf_writable = false;
	}
	rwlock_write_unlock(&in->map.data_lock);
	if (!mf)
		return 0;
	/* It is another of either's, and may be the last one. */
	own = gofer_own_close(in, fd_place(in, false), false);
	own_rw = gofer_own_close(in, fd_place(in, true), true);
	memfile_unref(mf);
	gofer_own_end(in->fs, own_rw);
	gofer_own_end(in->fs, own);
	return 1;
}

void gofer_inode_close_fds(struct gofer_inode *in)
{
	struct p9_conn *c = in->fs->conn;
	unsigned count;
	int fds[2];

	mutex_lock(&c->fd_lock);
	if (in->on_idle) {
		TAILQ_REMOVE(&c->idle_fds, in, idle_link);
		in->on_idle = false;
	}
	mutex_unlock(&c->fd_lock);
	mutex_lock(&in->lock);
	take_fds_locked(in, fds);
	mutex_unlock(&in->lock);
	count = put_fds(in, fds);
	count += drop_memfile(in);
	atomic_fetch_sub(&c->host_fds, count);
}

void gofer_inode_close_idle(struct gofer_inode *in)
{
	struct p9_conn *c = in->fs->conn;
	int fds[2] = {-1, -1};
	unsigned count;

	mutex_lock(&in->lock);
	if (!atomic_load(&in->pins))
		take_fds_locked(in, fds);
	mutex_unlock(&in->lock);
	count = put_fds(in, fds);
	if (count)
		count += drop_memfile(in);
	atomic_fetch_sub(&c->host_fds, count);
}

void gofer_host_fds_trim(struct p9_conn *c, unsigned keep)
{
	while (atomic_load(&c->host_fds) > keep) {
		struct gofer_inode *in;

		mutex_lock(&c->fd_lock);
		while ((in = TAILQ_FIRST(&c->idle_fds))) {
			TAILQ_REMOVE(&c->idle_fds, in, idle_link);
			in->on_idle = false;
			/* Going away by itself otherwise. */
			if (ref_tryget(&in->base.ref))
				break;
		}
		mutex_unlock(&c->fd_lock);
		if (!in)
			return;
		gofer_inode_close_idle(in);
		gofer_inode_unref(in);
	}
}

int gofer_inode_take_fd(struct remote_dentry *d, int fd, bool write)
{
	struct gofer_inode *in = gofer_inode_of(d);
	struct p9_conn *c = in->fs->conn;
	uint64_t place = gofer_place_of(d);
	int *slot, use;
	bool keep;

	mutex_lock(&in->lock);
	slot = write ? &in->rw_fd : &in->rd_fd;
	keep = *slot < 0;
	if (keep) {
		*slot = fd;
		*(write ? &in->rw_place : &in->rd_place) = place;
	}
	atomic_fetch_add(&in->pins, 1);
	use = usable_fd_locked(in, write);
	mutex_unlock(&in->lock);
	/* Another thread's came first. */
	if (!keep)
		put_fd(in, fd, place, write);
	else if (atomic_fetch_add(&c->host_fds, 1) >= fds_max(c))
		gofer_host_fds_trim(c, fds_max(c) - TRIM_BATCH(c));
	return use;
}

static bool pin_existing(struct gofer_inode *in, bool write, int *ret_fd)
{
	int fd;

	mutex_lock(&in->lock);
	fd = usable_fd_locked(in, write);
	if (fd >= 0) {
		atomic_fetch_add(&in->pins, 1);
		*ret_fd = fd;
	}
	mutex_unlock(&in->lock);
	if (unlikely(atomic_load_explicit(&in->open_ahead, memory_order_relaxed)) && fd >= 0)
		gofer_open_ahead_used(in);
	return fd >= 0;
}

void gofer_inode_keep_fd(struct remote_dentry *d, int fd)
{
	struct gofer_inode *in = gofer_inode_of(d);
	struct p9_conn *c = in->fs->conn;
	uint64_t place = gofer_place_of(d);
	bool keep;

	mutex_lock(&in->lock);
	keep = in->rd_fd < 0 && in->rw_fd < 0;
	if (keep) {
		in->rd_fd = fd;
		in->rd_place = place;
	}
	mutex_unlock(&in->lock);
	if (!keep) {
		put_fd(in, fd, place, false);
		return;
	}
	mutex_lock(&c->fd_lock);
	if (!in->on_idle)
		TAILQ_INSERT_TAIL(&c->idle_fds, in, idle_link);
	in->on_idle = true;
	mutex_unlock(&c->fd_lock);
	if (atomic_fetch_add(&c->host_fds, 1) >= fds_max(c))
		gofer_host_fds_trim(c, fds_max(c) - TRIM_BATCH(c));
}

void gofer_fill_open(struct p9_msg *t, const struct gofer_where *where, uint32_t want,
		     uint32_t accmode)
{
	*t = (struct p9_msg){.type = P9_Tmopen};
	t->Tmopen.fid = where->fid;
	t->Tmopen.newfid = P9_NOFID;
	t->Tmopen.want = P9_WANT_FD | want;
	t->Tmopen.flags = accmode;
	t->Tmopen.skip = where->depth;
	t->Tmopen.path = gofer_where_path(where);
}

int gofer_take_opened(struct p9_call *call)
{
	int fd = call->fd;

	if (call->r.Rmopen.err)
		return call->r.Rmopen.err < 4096 ? -(int)call->r.Rmopen.err : -EIO;
	if (fd < 0)
		return call->r.Rmopen.donated ? -ENFILE : -EIO;
	call->fd = -1;
	return fd;
}

int gofer_ask_fd(struct remote_dentry *d, uint32_t want, uint32_t accmode)
{
	struct p9_conn *c = gofer_fs_of(d->d.fs)->conn;
	struct gofer_where where;
	struct p9_call call;
	struct p9_msg t;
	int err = gofer_where(d, &where);

	if (err)
		return err;
	gofer_fill_open(&t, &where, want, accmode);
	err = p9_rpc(c, &call, &t);
	if (err)
		return err;
	err = gofer_take_opened(&call);
	p9_call_fini(&call);
	return err;
}

int gofer_inode_pin(struct remote_dentry *d, bool write, int *ret_fd)
{
	struct gofer_inode *in = gofer_inode_of(d);
	struct p9_conn *c = in->fs->conn;
	int fd;

	if (pin_existing(in, write, ret_fd))
		return 0;
	if (atomic_load(&c->host_fds) >= fds_max(c)) {
		gofer_host_fds_trim(c, fds_max(c) - TRIM_BATCH(c));
		if (!c->plain && atomic_load(&c->host_fds) >= GOFER_HOST_FDS_MAX)
			return -ENFILE;
	}
	fd = write ? gofer_ask_fd(d, 0, O_RDWR) : gofer_open_ahead(d);
	/* There are fewer than GOFER_HOST_FDS_MAX to be had: idle ones make room. */
	if (fd == -ENFILE && !c->plain) {
		unsigned held = atomic_load(&c->host_fds);

		gofer_host_fds_trim(c, held - MIN(held, MAX(held / LOST_PART, 1u)));
		fd = gofer_ask_fd(d, 0, write ? O_RDWR : O_RDONLY);
	}
	if (fd < 0)
		return fd;
	*ret_fd = gofer_inode_take_fd(d, fd, write);
	return 0;
}

void gofer_inode_pin_again(struct gofer_inode *in)
{
	uint32_t old = atomic_fetch_add(&in->pins, 1);

	assert(old > 0);
	(void)old;
}

void gofer_inode_unpin(struct gofer_inode *in)
{
	struct p9_conn *c = in->fs->conn;

	if (atomic_fetch_sub(&in->pins, 1) != 1)
		return;
	/* Who watches it sees that nothing pins it, or we see who watches. */
	if (unlikely(atomic_load(&in->watch) != NULL)) {
		gofer_inode_close_idle(in);
		return;
	}
	mutex_lock(&in->lock);
	gofer_inode_refresh_locked(in);
	mutex_unlock(&in->lock);
	mutex_lock(&c->fd_lock);
	if (in->on_idle)
		TAILQ_REMOVE(&c->idle_fds, in, idle_link);
	TAILQ_INSERT_TAIL(&c->idle_fds, in, idle_link);
	in->on_idle = true;
	mutex_unlock(&c->fd_lock);
}
