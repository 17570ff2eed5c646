/*
 * fsimpl/virtiofs/write.c - writes: through to the server, or into the cache and back from there. The page cache is data.c's.
 *
 * Writing back gathers dirty pages of a file into WRITEs as large as the server takes, of many pieces of memory, and keeps several under way.
 * It is not given up when its caller is killed: the pages count as clean from when they are taken, so that nobody else would write them.
 */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "fsimpl/virtiofs/internal.h"

#define WRITES_MAX 4 /* under way for one caller */

static struct memfile *memory(const struct virtiofs_inode *in)
{
	return virtiofs_device_memory(in->fs->dev);
}

/* ---- requests ---- */

/* Pieces of memory that go to one place of the file. */
struct run {
	uint64_t off, size;
	struct vdev_data data[VDEV_DATA_MAX];
	unsigned count;
};

/* Cuts `n` bytes off the beginning. */
static void advance(struct run *r, uint64_t n)
{
	unsigned gone = 0;

	r->off += n;
	r->size -= n;
	while (n && gone < r->count) {
		uint32_t part = (uint32_t)MIN(n, (uint64_t)r->data[gone].size);

		r->data[gone].off += part;
		r->data[gone].size -= part;
		n -= part;
		if (!r->data[gone].size)
			gone++;
	}
	r->count -= gone;
	memmove(r->data, r->data + gone, r->count * sizeof(r->data[0]));
}

/* Sends a WRITE of the run. wait: for room. */
static int write_begin(struct virtiofs_handle *h, const struct run *r, bool cached, bool wait,
		       struct vdev_pending *ret)
{
	uint64_t node = h->in->nodeid;
	const struct fuse_write_in arg = {
		.fh = h->fh,
		.offset = r->off,
		.size = (uint32_t)r->size,
		/* Who wrote what comes from the cache was seen to when it was written there. */
		.write_flags = cached			    ? FUSE_WRITE_CACHE
			       : virtiofs_kills_priv(h->in) ? FUSE_WRITE_KILL_SUIDGID
							    : 0,
		.flags = h->flags,
	};
	const struct vdev_call call = {
		.req = {.opcode = FUSE_WRITE, .nodeid = node, .arg = &arg},
		.owner = &h->filler.base,
		.unkillable = cached,
		.send = r->data,
		.send_count = r->count,
		.reply_size = sizeof(struct fuse_write_out),
	};

	return vdev_begin(h->in->fs->dev, &call, wait, ret);
}

/* Waits for one, and for what it left over. Return: 0, -errno. */
static int write_end(struct virtiofs_handle *h, struct run *r, bool cached, struct vdev_pending *p)
{
	for (;;) {
		struct fuse_write_out out;
		ssize_t got = vdev_end(p, &out);

		if (got < 0)
			return (int)got;
		if (!out.size || out.size > r->size)
			return -EIO;
		advance(r, out.size);
		if (!r->size)
			return 0;
		got = write_begin(h, r, cached, true, p);
		if (got)
			return (int)got;
	}
}

/* ---- through ---- */

/* New bytes in pages that are cached: brought up to date from `src`. */
static void update_cached(struct virtiofs_inode *in, uint64_t off, uint64_t src, uint64_t size)
{
	rwlock_write_lock(&in->map.data_lock);
	for (uint64_t at = off; at < off + size;) {
		uint64_t n =
			MIN(off + size, round_down_u64(at, MOAT_PAGE_SIZE) + MOAT_PAGE_SIZE) - at;
		struct virtiofs_chunk *c = virtiofs_chunk_at(in, at);

		if (c && (c->valid & VIRTIOFS_PAGE_BIT(at)))
			memcpy(memfile_ptr(memory(in), c->off + (at & (MEM_CHUNK_SIZE - 1))),
			       memfile_ptr(memory(in), src + (at - off)), n);
		at += n;
	}
	rwlock_write_unlock(&in->map.data_lock);
}

/* [data, data + size) at off. *ret_put: how much of it is there for certain. Return: 0: all; -errno. */
static int write_one(struct virtiofs_handle *h, uint64_t off, uint64_t data, uint64_t size,
		     uint64_t *ret_put)
{
	struct run r = {.off = off, .size = size, .data = {{data, (uint32_t)size}}, .count = 1};
	struct vdev_pending p;
	int err = write_begin(h, &r, false, true, &p);

	if (!err)
		err = write_end(h, &r, false, &p);
	*ret_put = r.off - off;
	return err;
}

ssize_t virtiofs_data_write_through(struct virtiofs_inode *in, struct virtiofs_handle *h,
				    struct io_iter *it, uint64_t off)
{
	uint64_t bounce, done = 0;
	int err = virtiofs_bounce_get(in->fs, &bounce);

	if (err)
		return err;
	while (it->remaining && !err) {
		size_t want = MIN(it->remaining, (uint64_t)in->fs->max_write), n;
		uint64_t at = off + done, put;

		n = io_iter_get(it, memfile_ptr(memory(in), bounce), want);
		if (!n) {
			err = -EFAULT;
			break;
		}
		virtiofs_fill_begin(in);
		if (at == off)
			virtiofs_data_extended(in, off, true);
		err = write_one(h, at, bounce, n, &put);
		if (put) {
			update_cached(in, at, bounce, put);
			done += put;
			virtiofs_inode_grown(in, off + done);
		}
		/* Of the rest nobody knows what the server made of it. */
		if (err)
			virtiofs_data_drop(in, round_down_u64(at + put, MOAT_PAGE_SIZE),
					   round_up_u64(at + n, MOAT_PAGE_SIZE));
		virtiofs_fill_end(in);
		if (n < want)
			break;
	}
	virtiofs_bounce_put(in->fs, bounce, err == -EINTR);
	/* The server's times and blocks are news. */
	virtiofs_inode_touched(in);
	return done ? (ssize_t)done : err;
}

/* ---- into the cache ---- */

/*
 * `n` bytes into one cached page, which is dirty from then on. blank: a page that is not valid gets zeros around them (pre: fill_lock); without
 * it such a page is left alone. Return: done.
 */
static bool store(struct virtiofs_inode *in, uint64_t off, const char *data, uint64_t n, bool blank)
{
	const uint16_t bit = VIRTIOFS_PAGE_BIT(off);
	uint64_t at = off & ~MOAT_PAGE_MASK;
	struct virtiofs_chunk *c;
	bool done;

	rwlock_write_lock(&in->map.data_lock);
	c = virtiofs_chunk_at(in, off);
	done = c && (blank || (c->valid & bit));
	if (done) {
		char *page = memfile_ptr(memory(in), c->off + (off & (MEM_CHUNK_SIZE - 1)) - at);

		if (!(c->valid & bit)) {
			memset(page, 0, at);
			memset(page + at + n, 0, MOAT_PAGE_SIZE - at - n);
		}
		memcpy(page + at, data, n);
		if (!(c->dirty & bit))
			atomic_fetch_add(&in->dirty_pages, 1);
		c->valid |= bit;
		c->dirty |= bit;
	}
	rwlock_write_unlock(&in->map.data_lock);
	return done;
}

/* The same where the page was not valid. A page that lies wholly past the end, or is overwritten whole, needs no READ. */
static int complete(struct virtiofs_inode *in, struct virtiofs_handle *h, uint64_t off,
		    const char *data, uint64_t n, bool *ret_done)
{
	uint64_t page = round_down_u64(off, MOAT_PAGE_SIZE);
	int err = virtiofs_fill_begin_killable(in);

	if (err)
		return err;
	if (page >= virtiofs_inode_size(in) || n == MOAT_PAGE_SIZE) {
		err = virtiofs_data_provide(in, page, page + MOAT_PAGE_SIZE);
		if (!err)
			*ret_done = store(in, off, data, n, true);
	} else {
		err = virtiofs_data_fill_locked(in, h, page, page + MOAT_PAGE_SIZE);
	}
	virtiofs_fill_end(in);
	return err;
}

/* Up to `n` bytes within one page. What is to be done to it is decided by what the caller's memory really had. Return: bytes, -errno. */
static ssize_t write_page(struct virtiofs_inode *in, struct virtiofs_handle *h, struct io_iter *it,
			  uint64_t off, uint64_t n)
{
	char copy[MOAT_PAGE_SIZE];
	size_t got = io_iter_get(it, copy, n);
	bool done;
	int err = 0;

	if (!got)
		return -EFAULT;
	done = store(in, off, copy, got, false);
	while (!done && !err) {
		err = complete(in, h, off, copy, got, &done);
		/* Read, and perhaps dropped again meanwhile. */
		if (!err && !done)
			done = store(in, off, copy, got, false);
	}
	if (err) {
		io_iter_revert(it, got);
		return err;
	}
	return (ssize_t)got;
}

ssize_t virtiofs_data_write_back(struct virtiofs_inode *in, struct virtiofs_handle *h,
				 struct io_iter *it, uint64_t off)
{
	uint64_t done = 0;
	ssize_t got = 0;

	virtiofs_data_extended(in, off, false);
	while (it->remaining) {
		uint64_t at = off + done, n = MOAT_PAGE_SIZE - (at & ~MOAT_PAGE_MASK);

		got = write_page(in, h, it, at, MIN(n, it->remaining));
		if (got < 0)
			break;
		done += (uint64_t)got;
		virtiofs_inode_grown(in, off + done);
	}
	return done ? (ssize_t)done : got;
}

/* ---- writing back ---- */

/* The next run of dirty pages from *inout_off on, below end: now clean, unmapped, and pinned. Return: there is one. */
static bool take_dirty(struct virtiofs_inode *in, uint64_t *inout_off, uint64_t end, struct run *r)
{
	uint64_t at = *inout_off, index = at >> MEM_CHUNK_SHIFT, max = in->fs->max_write;
	struct virtiofs_chunk *c;

	*r = (struct run){0};
	rwlock_write_lock(&in->map.data_lock);
	for (; (c = chunks_next(&in->chunks, &index)) && index << MEM_CHUNK_SHIFT < end; index++) {
		uint64_t start = MAX(at, index << MEM_CHUNK_SHIFT);
		uint64_t stop = MIN(end, (index + 1) << MEM_CHUNK_SHIFT);

		while (start < stop && !(c->dirty & VIRTIOFS_PAGE_BIT(start)) && !r->size)
			start += MOAT_PAGE_SIZE;
		if (r->size && start != r->off + r->size)
			break;
		for (; start < stop && (c->dirty & VIRTIOFS_PAGE_BIT(start)) && r->size < max;
		     start += MOAT_PAGE_SIZE) {
			uint64_t mem = c->off + (start & (MEM_CHUNK_SIZE - 1));
			struct vdev_data *last = r->count ? &r->data[r->count - 1] : NULL;

			if (last && last->off + last->size == mem)
				last->size += MOAT_PAGE_SIZE;
			else if (r->count < VDEV_DATA_MAX)
				r->data[r->count++] = (struct vdev_data){mem, MOAT_PAGE_SIZE};
			else
				break;
			if (!r->size)
				r->off = start;
			r->size += MOAT_PAGE_SIZE;
			c->dirty &= (uint16_t)~VIRTIOFS_PAGE_BIT(start);
			atomic_fetch_sub(&in->dirty_pages, 1);
		}
		if (r->size && start < stop)
			break;
	}
	if (r->size) {
		/* The next store by a mapping faults and makes it dirty again. */
		mappable_invalidate(&in->map, r->off, r->size, false);
		for (unsigned i = 0; i < r->count; i++)
			if (memfile_range_ref(memory(in), r->data[i].off, r->data[i].size))
				abort(); /* cannot fail on memory that is allocated */
	}
	rwlock_write_unlock(&in->map.data_lock);
	/* Nothing left: the pass ends here, though what lies behind may be dirty again. */
	*inout_off = r->size ? r->off + r->size : MAX(at, end);
	return r->size;
}

/* One WRITE under way. */
struct writing {
	struct vdev_pending p;
	struct run run, pinned; /* what is left to write; all of it, with references */
};

static void unpin(struct virtiofs_inode *in, const struct run *r)
{
	for (unsigned i = 0; i < r->count; i++)
		memfile_range_unref(memory(in), r->data[i].off, r->data[i].size);
}

/* Was that the end of the daemon that there was at `epoch`? */
static bool died(struct virtiofs_inode *in, unsigned epoch)
{
	return !virtiofs_device_alive(in->fs->dev) || vdev_epoch(in->fs->dev) != epoch;
}

void virtiofs_data_lost(struct virtiofs_inode *in, int err)
{
	atomic_store(&in->lost_err, err);
	atomic_fetch_add(&in->lost_seq, 1);
}

/* Ends a WRITE that gave err. What the daemon's death took is dirty again: it is written when there is another daemon. */
static void conclude(struct virtiofs_inode *in, const struct run *r, unsigned epoch, int err)
{
	uint64_t at = r->off;

	if (err && died(in, epoch)) {
		rwlock_write_lock(&in->map.data_lock);
		for (; at < r->off + r->size; at += MOAT_PAGE_SIZE) {
			struct virtiofs_chunk *c = virtiofs_chunk_at(in, at);
			uint16_t bit = VIRTIOFS_PAGE_BIT(at);

			if (!c || !(c->valid & bit) || (c->dirty & bit))
				continue;
			c->dirty |= bit;
			atomic_fetch_add(&in->dirty_pages, 1);
		}
		rwlock_write_unlock(&in->map.data_lock);
	}
	unpin(in, r);
}

static int finish_writing(struct virtiofs_inode *in, struct virtiofs_handle *h, struct writing *w,
			  unsigned epoch)
{
	int err = write_end(h, &w->run, true, &w->p);

	conclude(in, &w->pinned, epoch, err);
	return err;
}

/* The tail of the last page is nobody's. */
static void cut_to_size(struct run *r, uint64_t size)
{
	uint64_t keep = r->off < size ? MIN(r->size, size - r->off) : 0, at = 0;
	unsigned i = 0;

	for (; i < r->count && at < keep; i++) {
		r->data[i].size = (uint32_t)MIN((uint64_t)r->data[i].size, keep - at);
		at += r->data[i].size;
	}
	r->count = i;
	r->size = keep;
}

/* Pre: fill_lock. Return: 0, the first error. */
static int write_dirty(struct virtiofs_inode *in, struct virtiofs_handle *h, uint64_t off,
		       uint64_t end, struct writing *ring)
{
	unsigned first = 0, count = 0, epoch = vdev_epoch(in->fs->dev);
	int err = 0, one;

	for (;;) {
		struct writing *w = &ring[(first + count) % WRITES_MAX];

		if (count == WRITES_MAX || !take_dirty(in, &off, end, &w->run)) {
			if (!count)
				return err;
			one = finish_writing(in, h, &ring[first % WRITES_MAX], epoch);
			err = err ? err : one;
			first++;
			count--;
			continue;
		}
		w->pinned = w->run;
		cut_to_size(&w->run, virtiofs_inode_size(in));
		one = -EAGAIN;
		while (w->run.size && one == -EAGAIN) {
			one = write_begin(h, &w->run, true, !count, &w->p);
			if (one == -EAGAIN && count) {
				int old = finish_writing(in, h, &ring[first % WRITES_MAX], epoch);

				err = err ? err : old;
				first++;
				count--;
			}
		}
		if (!w->run.size || one) {
			conclude(in, &w->pinned, epoch, w->run.size ? one : 0);
			err = err || !w->run.size ? err : one;
			continue;
		}
		count++;
	}
}

/* Nothing is dirty, but what somebody else writes may be under way still. Return: 0, -EINTR. */
static int await_writing(struct virtiofs_inode *in)
{
	int err;

	/* It counts before the first page is clean, and as long as fill_lock is held for it. */
	if (likely(!atomic_load(&in->writing)))
		return 0;
	err = virtiofs_fill_begin_killable(in);
	if (!err)
		virtiofs_fill_end(in);
	return err;
}

int virtiofs_data_writeback(struct virtiofs_inode *in, uint64_t off, uint64_t end)
{
	unsigned epoch = vdev_epoch(in->fs->dev);
	struct virtiofs_handle *h;
	struct writing *ring;
	int err;

	if (!atomic_load(&in->dirty_pages))
		return await_writing(in);
	if (!virtiofs_device_alive(in->fs->dev))
		return -EIO;
	h = virtiofs_handle_any(in, true);
	if (!h)
		return -EIO;
	ring = malloc(WRITES_MAX * sizeof(*ring));
	if (!ring) {
		virtiofs_handle_unref(h);
		return -ENOMEM;
	}
	virtiofs_fill_begin(in);
	/* From here to the end the server's size and times are not to be believed, nor those it gave meanwhile (touched). */
	atomic_fetch_add(&in->writing, 1);
	err = write_dirty(in, h, round_down_u64(off, MOAT_PAGE_SIZE), end, ring);
	/* What a daemon's death took is kept, and written to the next. */
	if (err && !died(in, epoch))
		virtiofs_data_lost(in, err);
	virtiofs_fill_end(in);
	virtiofs_inode_touched(in);
	atomic_fetch_sub(&in->writing, 1);
	virtiofs_handle_unref(h);
	free(ring);
	if (err)
		log_warn("virtio-fs: data of node %llu could not be written: %s",
			 (unsigned long long)in->nodeid, strerror(-err));
	return err;
}
