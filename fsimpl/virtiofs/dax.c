/* fsimpl/virtiofs/dax.c - DAX files: setting ranges up, reads and writes by memory, mappings. See dax.h. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fsimpl/virtiofs/internal_dax.h"
#include "mem/guard.h"

#define IOVS 8

static struct dax_window *window_of(const struct virtiofs_inode *in)
{
	return virtiofs_device_dax(in->fs->dev);
}

/* ---- setting up ---- */

/* Is the range there, as writable as is wanted? */
static bool range_ready(struct virtiofs_inode *in, uint64_t index, bool write)
{
	struct dax_window *w = window_of(in);
	struct dax_range *r;
	bool ready;

	mutex_lock(&w->lock);
	r = dax_range_find(w, in, index);
	ready = r && (r->writable || !write);
	mutex_unlock(&w->lock);
	return ready;
}

/*
 * The daemon has answered: the range r is the inode's. One that was mapped for reading only gives way, and so does a memory file; then what is mapped
 * of it faults again.
 */
static int adopt(struct virtiofs_inode *in, struct dax_range *r)
{
	struct virtiofs_dax_inode *dax = &in->dax;
	struct dax_window *w = window_of(in);
	struct dax_range *before;
	struct memfile *old;
	bool drop = false;
	struct stat st;
	int err = dax_range_look(w, r, &st);

	rwlock_write_lock(&in->map.data_lock);
	mutex_lock(&w->lock);
	old = r->fresh;
	if (!err && dax->mf && (dax->dev != st.st_dev || dax->ino != st.st_ino))
		err = -EIO; /* another file */
	if (!err) {
		if (!dax->mf || (r->writable && !dax->writable)) {
			old = dax->mf;
			dax->mf = r->fresh;
			dax->writable = r->writable;
			dax->dev = st.st_dev;
			dax->ino = st.st_ino;
		}
		before = dax_range_find(w, in, r->index);
		if (before) {
			dax_range_remove(w, before, DAX_LEFT);
			before->in = NULL;
		}
		dax_range_enter(w, r);
		drop = in->dax.on && (before || old != r->fresh);
	}
	r->fresh = NULL;
	if (err) {
		r->state = r->old ? DAX_FREE : DAX_LEFT;
		r->in = NULL;
	}
	mutex_unlock(&w->lock);
	/* Takes the platform's locks, which rank below the window's; nobody maps anew while data_lock is held. */
	if (drop)
		mappable_invalidate(&in->map, 0, UINT64_MAX, false);
	rwlock_write_unlock(&in->map.data_lock);
	if (old)
		memfile_unref(old);
	return err;
}

/* The request failed, or its caller was killed. */
static void give_up(struct dax_window *w, struct dax_range *r, ssize_t err)
{
	struct memfile *fresh;

	mutex_lock(&w->lock);
	fresh = r->fresh;
	r->fresh = NULL;
	r->in = NULL;
	r->state = r->old ? DAX_FREE : fresh ? DAX_LEFT : err == -EINTR ? DAX_LOST : DAX_FREE;
	mutex_unlock(&w->lock);
	if (fresh)
		memfile_unref(fresh);
}

/* Does what came for the inode's other ranges do for this one? Pre: window->lock. */
static bool has_file(const struct virtiofs_inode *in, bool write)
{
	return in->dax.mf && (in->dax.writable || !write) &&
	       vdev_node_current(in->fs->dev, in->nodeid);
}

/*
 * A descriptor that came for one range is of the whole file: another range of it needs no request, and the daemon does not hear of that. Pre: fill_lock.
 * Return: 0; -EAGAIN: it does need one; -errno.
 */
static int setup_here(struct virtiofs_inode *in, uint64_t index, bool write)
{
	struct dax_window *w = window_of(in);
	struct memfile *fresh = NULL;
	struct dax_range *r;
	bool can;
	int err;

	mutex_lock(&w->lock);
	can = has_file(in, write);
	r = can ? dax_range_find(w, in, index) : NULL;
	/* Set up before the inode's file was for writing. */
	if (r)
		r->writable = in->dax.writable;
	mutex_unlock(&w->lock);
	if (!can || r)
		return can ? 0 : -EAGAIN;
	err = dax_range_take(w, in, index, write, &r);
	if (err)
		return err;
	mutex_lock(&w->lock);
	/* The last of the others may have gone to make room. A message for this place was none that anybody asked for. */
	can = has_file(in, write);
	fresh = r->fresh;
	r->fresh = NULL;
	if (can) {
		r->old = true;
		r->writable = in->dax.writable;
		dax_range_enter(w, r);
	} else {
		r->in = NULL;
		r->state = fresh ? DAX_LEFT : DAX_FREE;
	}
	mutex_unlock(&w->lock);
	if (fresh)
		memfile_unref(fresh);
	return can ? 0 : -EAGAIN;
}

/* Pre: fill_lock. */
static int setup_locked(struct virtiofs_inode *in, uint64_t index, bool write)
{
	struct dax_window *w = window_of(in);
	struct fuse_setupmapping_in arg = {
		.fh = UINT64_MAX,
		.foffset = index << VIRTIOFS_DAX_SHIFT,
		.len = VIRTIOFS_DAX_RANGE,
		.flags = FUSE_SETUPMAPPING_FLAG_READ | (write ? FUSE_SETUPMAPPING_FLAG_WRITE : 0),
	};
	struct vdev_call call = {
		.req = {.opcode = FUSE_SETUPMAPPING, .nodeid = in->nodeid, .arg = &arg},
		.owner = &in->filler.base,
		/* The daemon waits for its message to be answered: waking the housekeeping thread for that takes longer than all else. */
		.meanwhile = dax_window_look,
		.meanwhile_arg = w,
	};
	struct dax_range *r;
	ssize_t got;
	int err;

	if (atomic_load(&w->broken))
		return -EIO;
	err = setup_here(in, index, write);
	if (err != -EAGAIN)
		return err;
	err = dax_range_take(w, in, index, write, &r);
	if (err)
		return err;
	arg.moffset = (uint64_t)(r - w->ranges) << VIRTIOFS_DAX_SHIFT;
	got = virtiofs_call(in->fs, &call);
	if (got < 0) {
		give_up(w, r, got);
		return (int)got;
	}
	return adopt(in, r);
}

int virtiofs_dax_setup(struct virtiofs_inode *in, uint64_t index, bool write)
{
	int err = virtiofs_fill_begin_killable(in);

	if (err)
		return err;
	if (!range_ready(in, index, write))
		err = setup_locked(in, index, write);
	virtiofs_fill_end(in);
	return err;
}

/* ---- reads and writes ---- */

struct pin {
	struct memfile *mf;
	uint64_t off, size; /* what is referenced */
	char *at;
	uint64_t len; /* bytes there */
};

/* Bytes of the file from `off` on in memory, within one range. Return: 0; -EAGAIN: it is not mapped so; -errno. */
static int pin(struct virtiofs_inode *in, uint64_t off, uint64_t size, bool write, struct pin *ret)
{
	struct dax_window *w = window_of(in);
	struct dax_range *r;
	int err = -EAGAIN;

	mutex_lock(&w->lock);
	r = dax_range_find(w, in, off >> VIRTIOFS_DAX_SHIFT);
	if (r && (r->writable || !write)) {
		r->recent = true;
		ret->mf = in->dax.mf;
		ret->off = off;
		ret->size = MIN(size,
				round_down_u64(off, VIRTIOFS_DAX_RANGE) + VIRTIOFS_DAX_RANGE - off);
		err = memfile_range_ref(ret->mf, off, ret->size);
	}
	mutex_unlock(&w->lock);
	if (err)
		return err;
	ret->at = memfile_ptr(ret->mf, off);
	ret->len = memfile_ptr_len(ret->mf, off, ret->size);
	return 0;
}

static void unpin(const struct pin *p)
{
	memfile_range_unref(p->mf, p->off, p->size);
}

/* Between the iterator and the file. *ret_gone: the file's page is not there any more. Return: bytes. */
static uint64_t copy(struct io_iter *it, const struct pin *p, bool write, bool *ret_gone)
{
	uint64_t done = 0;

	*ret_gone = false;
	while (done < p->len && it->remaining) {
		struct iovec iov[IOVS];
		int count = io_iter_window(it, p->len - done, iov, IOVS);
		size_t left = 0;

		if (count <= 0)
			break;
		for (int i = 0; i < count && !left; i++) {
			char *file = p->at + done;
			size_t n = iov[i].iov_len;

			left = write ? guard_copy(file, iov[i].iov_base, n)
				     : guard_copy(iov[i].iov_base, file, n);
			done += n - left;
			io_iter_advance(it, n - left);
			if (left && guard_probe(p->at + done, write))
				*ret_gone = true;
		}
		if (left)
			break;
	}
	return done;
}

/* ---- long reads of what is not mapped ---- */

/*
 * A descriptor that came for one range is of the whole file: who reads much of what no range is mapped of has the host copy it, which is one call
 * instead of a message to the daemon and a fault for every few pages. CALL_PASSES times the file: what is read again and again is mapped, which is
 * twice a call's time at first and a fifth less than it ever after.
 */
#define CALL_BYTES (64u << 10)
#define CALL_PASSES 8

/* The inode's memory file, if `off` is in no range; a reference. */
static struct memfile *unmapped_file(struct virtiofs_inode *in, uint64_t off)
{
	struct dax_window *w = window_of(in);
	struct memfile *mf = NULL;

	mutex_lock(&w->lock);
	if (in->dax.mf && !dax_range_find(w, in, off >> VIRTIOFS_DAX_SHIFT)) {
		mf = in->dax.mf;
		memfile_ref(mf);
	}
	mutex_unlock(&w->lock);
	return mf;
}

struct memfile *virtiofs_dax_file(struct virtiofs_inode *in)
{
	struct dax_window *w = window_of(in);
	struct memfile *mf;

	mutex_lock(&w->lock);
	mf = in->dax.mf;
	if (mf)
		memfile_ref(mf);
	mutex_unlock(&w->lock);
	return mf;
}

uint64_t virtiofs_dax_call(struct io_iter *it, const struct memfile *mf, uint64_t off, uint64_t end,
			   int *ret_err)
{
	uint64_t done = 0;

	*ret_err = 0;
	while (off + done < end) {
		struct iovec iov[IOVS];
		int count = io_iter_window(it, end - off - done, iov, IOVS);
		ssize_t got =
			count > 0 ? preadv(memfile_fd(mf), iov, count, (off_t)(off + done)) : -1;

		if (got <= 0) {
			*ret_err = count <= 0 || (got < 0 && errno == EFAULT) ? -EFAULT
				   : got < 0				      ? -EAGAIN
									      : -ESTALE;
			break;
		}
		io_iter_advance(it, (size_t)got);
		done += (uint64_t)got;
	}
	return done;
}

/*
 * [off, end) by memory as far as it goes. Return: bytes. *ret_err, where that is not all: -ESTALE: the file ended; -EAGAIN: requests must do the rest;
 * -EFAULT, -EINTR.
 */
static uint64_t transfer(struct virtiofs_inode *in, struct io_iter *it, uint64_t off, uint64_t end,
			 bool write, int *ret_err)
{
	uint64_t done = 0;
	int err = 0;

	while (off + done < end && !err) {
		struct memfile *mf;
		bool gone = false;
		struct pin p = {0};
		uint64_t n;

		err = pin(in, off + done, end - off - done, write, &p);
		mf = err == -EAGAIN && !write && end - off - done >= CALL_BYTES &&
				     atomic_load(&in->dax.called) / CALL_PASSES <
					     virtiofs_inode_size(in)
			     ? unmapped_file(in, off + done)
			     : NULL;
		if (mf) {
			n = virtiofs_dax_call(it, mf, off + done,
					      MIN(end,
						  round_down_u64(off + done, VIRTIOFS_DAX_RANGE) +
							  VIRTIOFS_DAX_RANGE),
					      &err);
			memfile_unref(mf);
			atomic_fetch_add(&in->dax.called, n);
			done += n;
			continue;
		}
		if (err == -EAGAIN) {
			err = virtiofs_dax_setup(in, (off + done) >> VIRTIOFS_DAX_SHIFT, write);
			/* Whatever keeps the range from being mapped keeps no request from being made. */
			if (err && err != -EINTR)
				err = -EAGAIN;
			continue;
		}
		if (err) {
			err = -EAGAIN;
			continue;
		}
		n = copy(it, &p, write, &gone);
		unpin(&p);
		done += n;
		if (n < p.len)
			err = gone ? -ESTALE : -EFAULT;
	}
	*ret_err = err;
	return done;
}

ssize_t virtiofs_dax_read(struct virtiofs_inode *in, struct virtiofs_handle *h, struct io_iter *it,
			  uint64_t off)
{
	uint64_t size = virtiofs_inode_size(in), done;
	ssize_t more;
	int err;

	if (off >= size)
		return 0;
	done = transfer(in, it, off, MIN(size, off + it->remaining), false, &err);
	/* Somebody made it shorter: how much so? What its last page has behind its end was not read. */
	if (err == -ESTALE) {
		err = virtiofs_inode_refresh(in, VIRTIOFS_ASK) ?: -EAGAIN;
		size = MAX(virtiofs_inode_size(in), off);
		if (off + done > size) {
			io_iter_revert(it, off + done - size);
			done = size - off;
		}
	}
	if (err == -EAGAIN && off + done < virtiofs_inode_size(in)) {
		more = virtiofs_data_read_direct(in, h, it, off + done);
		if (more >= 0)
			return (ssize_t)done + more;
		err = (int)more;
	}
	return done || !err || err == -EAGAIN ? (ssize_t)done : err;
}

/* As a write by request would have it, told to the server later. */
static void written(struct virtiofs_inode *in, uint64_t end)
{
	virtiofs_inode_grown(in, end);
	atomic_store(&in->dax.times, true);
}

ssize_t virtiofs_dax_write(struct virtiofs_inode *in, struct virtiofs_handle *h, struct io_iter *it,
			   uint64_t off)
{
	uint64_t done = 0;
	ssize_t more;
	int err = -EAGAIN;

	/* What makes it longer, and what must be on the disk at once, is the server's. */
	if (off + it->remaining <= virtiofs_inode_size(in) && !(h->flags & (O_SYNC | O_DSYNC)))
		done = transfer(in, it, off, off + it->remaining, true, &err);
	if (done)
		written(in, off + done);
	/* Shorter than was believed, or no range to be had. */
	if ((err == -ESTALE || err == -EAGAIN) && it->remaining) {
		more = virtiofs_data_write_through(in, h, it, off + done);
		if (more >= 0)
			return (ssize_t)done + more;
		err = (int)more;
	}
	return done || !err || err == -EAGAIN ? (ssize_t)done : err;
}

void virtiofs_dax_push_times(struct virtiofs_inode *in)
{
	struct fuse_setattr_in arg = {.valid = FATTR_MTIME};
	struct fuse_attr_out out;
	struct vdev_call call = {
		.req = {.opcode = FUSE_SETATTR, .nodeid = in->nodeid, .arg = &arg},
		.reply = &out,
		.reply_size = sizeof(out),
	};

	if (!atomic_exchange(&in->dax.times, false))
		return;
	mutex_lock(&in->lock);
	arg.mtime = in->attr.mtime;
	arg.mtimensec = in->attr.mtimensec;
	mutex_unlock(&in->lock);
	/* The host gave the file a time of its own when its page was first written to: near enough if this fails. */
	(void)!virtiofs_call(in->fs, &call);
	virtiofs_inode_stale(in);
}

void virtiofs_dax_free(struct virtiofs_inode *in)
{
	struct dax_window *w = window_of(in);
	struct dax_range *r;
	struct memfile *mf;

	mutex_lock(&w->lock);
	while ((r = in->dax.ranges)) {
		dax_range_remove(w, r, DAX_LEFT);
		r->in = NULL;
	}
	mf = in->dax.mf;
	in->dax.mf = NULL;
	mutex_unlock(&w->lock);
	if (mf)
		memfile_unref(mf);
}

/* ---- as a mappable ---- */

static struct virtiofs_inode *inode_of_map(struct mappable *m)
{
	return container_of(m, struct virtiofs_inode, map);
}

static int dax_translate(struct mappable *m, uint64_t off, uint64_t hint_start, uint64_t hint_end,
			 unsigned access, struct mem_trans *ret)
{
	struct virtiofs_inode *in = inode_of_map(m);
	uint64_t first = round_down_u64(off, VIRTIOFS_DAX_RANGE), start, end, file_end;
	bool write = access & MEM_WRITE;
	struct dax_window *w = window_of(in);
	struct dax_range *r;
	struct stat st;
	int err;

	mutex_lock(&w->lock);
	r = dax_range_find(w, in, off >> VIRTIOFS_DAX_SHIFT);
	if (!r || (write && !r->writable)) {
		mutex_unlock(&w->lock);
		return -EAGAIN;
	}
	r->recent = true;
	write = r->writable;
	mutex_unlock(&w->lock);
	/* data_lock keeps the range, and mf with it. The host knows where the file ends now, for all who share it. */
	if (fstat(memfile_fd(in->dax.mf), &st) < 0)
		return -EFAULT;
	file_end = round_up_u64((uint64_t)st.st_size, MOAT_PAGE_SIZE);
	if (off >= file_end)
		return -EFAULT;
	start = MAX(hint_start, first);
	end = MIN(MIN(hint_end, first + VIRTIOFS_DAX_RANGE), file_end);
	err = memfile_range_ref(in->dax.mf, start, end - start);
	if (err)
		return err;
	*ret = (struct mem_trans){
		.mf = in->dax.mf,
		.mf_off = start,
		.start = start,
		.size = end - start,
		.access = MEM_READ | MEM_EXEC | (write ? MEM_WRITE : 0),
	};
	return 0;
}

static int dax_populate(struct mappable *m, uint64_t off, uint64_t size, unsigned access)
{
	struct virtiofs_inode *in = inode_of_map(m);
	uint64_t last = (off + size - 1) >> VIRTIOFS_DAX_SHIFT;
	int err = 0;

	for (uint64_t i = off >> VIRTIOFS_DAX_SHIFT; i <= last && !err; i++)
		err = virtiofs_dax_setup(in, i, access & MEM_WRITE);
	/* Linux's SIGBUS, not a second try without end. */
	return err == -EAGAIN ? -ENOMEM : err;
}

static int dax_sync(struct mappable *m, uint64_t off, uint64_t size)
{
	struct virtiofs_inode *in = inode_of_map(m);
	struct virtiofs_handle *h = virtiofs_handle_any(in, false);
	struct fuse_fsync_in arg = {.fsync_flags = 1};
	struct vdev_call call = {
		.req = {.opcode = FUSE_FSYNC, .nodeid = in->nodeid, .arg = &arg},
	};
	ssize_t got;

	(void)off;
	(void)size;
	if (!h)
		h = virtiofs_handle_any(in, true);
	if (!h)
		return 0; /* nobody has it open: close(2) has said it all */
	arg.fh = h->fh;
	virtiofs_dax_push_times(in);
	got = virtiofs_call(in->fs, &call);
	virtiofs_handle_unref(h);
	return got < 0 && got != -ENOSYS ? (int)got : 0;
}

static void dax_map_ref(struct mappable *m)
{
	virtiofs_mappable_ops.ref(m);
}

static void dax_map_unref(struct mappable *m)
{
	virtiofs_mappable_ops.unref(m);
}

const struct mappable_ops virtiofs_dax_mappable_ops = {
	.translate = dax_translate,
	.populate = dax_populate,
	.sync = dax_sync,
	.ref = dax_map_ref,
	.unref = dax_map_unref,
};
