/*
 * fsimpl/virtiofs/data.c - file data: the page cache of the mount. Reads through it are in ahead.c, writes in write.c.
 *
 * Cached pages live in the memory that is shared with the daemon, in chunks of 64 KiB, so that READ lands in them and WRITE is read
 * from them without a copy. A page is valid (may be read and mapped) and perhaps dirty. Dirtiness of mapped pages is known by write faults: a
 * clean page is never mapped writable.
 *
 * A READ into the cache is made under fill_lock, and so is a WRITE past the cache or a truncation: what lands in a page is never older than what
 * was written meanwhile. Pages are dropped or cleaned under map.data_lock with the mappings invalidated first.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "fsimpl/virtiofs/internal.h"

#define MAP_AHEAD_BYTES (128ul << 10)

static struct memfile *memory(const struct virtiofs_inode *in)
{
	return virtiofs_device_memory(in->fs->dev);
}

/* ---- bounce buffers ---- */

int virtiofs_bounce_get(struct virtiofs_fs *fs, uint64_t *ret_off)
{
	struct memfile *mf = virtiofs_device_memory(fs->dev);

	mutex_lock(&fs->forget_lock);
	if (fs->bounce_count) {
		*ret_off = fs->bounces[--fs->bounce_count];
		mutex_unlock(&fs->forget_lock);
		return 0;
	}
	mutex_unlock(&fs->forget_lock);
	return memfile_alloc(mf, VIRTIOFS_READ_MAX, 0, 0, ret_off);
}

/* killed: the device may still write there. */
void virtiofs_bounce_put(struct virtiofs_fs *fs, uint64_t off, bool killed)
{
	struct memfile *mf = virtiofs_device_memory(fs->dev);

	mutex_lock(&fs->forget_lock);
	if (!killed && fs->bounce_count < VIRTIOFS_BOUNCES_MAX) {
		fs->bounces[fs->bounce_count++] = off;
		off = 0;
	}
	mutex_unlock(&fs->forget_lock);
	if (off)
		memfile_range_unref(mf, off, VIRTIOFS_READ_MAX);
}

/* ---- requests ---- */

int virtiofs_data_read_begin(struct virtiofs_inode *in, struct virtiofs_handle *h, uint64_t off,
			     const struct vdev_data *data, unsigned count, struct vdev_pending *ret)
{
	uint64_t node = in->nodeid;
	struct fuse_read_in arg = {.fh = h->fh, .offset = off, .flags = h->flags};
	const struct vdev_call call = {
		.req = {.opcode = FUSE_READ, .nodeid = node, .arg = &arg},
		.owner = &h->filler.base,
		.receive = data,
		.receive_count = count,
	};

	for (unsigned i = 0; i < count; i++)
		arg.size += data[i].size;
	return vdev_begin(in->fs->dev, &call, false, ret);
}

/* READ into pieces of the shared memory. Return: bytes, -errno. */
static ssize_t read_rpc(struct virtiofs_inode *in, struct virtiofs_handle *h, uint64_t off,
			const struct vdev_data *data, unsigned count, struct vdev_owner *owner)
{
	uint64_t node = in->nodeid;
	struct fuse_read_in arg = {.fh = h->fh, .offset = off, .flags = h->flags};
	struct vdev_call call = {
		.req = {.opcode = FUSE_READ, .nodeid = node, .arg = &arg},
		.owner = owner,
		.receive = data,
		.receive_count = count,
	};

	for (unsigned i = 0; i < count; i++)
		arg.size += data[i].size;
	return virtiofs_call(in->fs, &call);
}

/* ---- chunks: all with map.data_lock held ---- */

/*
 * The memory of the chunk that lies VIRTIOFS_STREAM_BYTES before `at`, taken away from it: nobody else holds it, and it was never mapped (who reads
 * through a mapping without a reference does so in an RCU section, which is not waited for here). 0: none. Pre: map.data_lock (write).
 */
static uint64_t take_behind(struct virtiofs_inode *in, uint64_t at)
{
	struct virtiofs_chunk *c = at < VIRTIOFS_STREAM_BYTES
					   ? NULL
					   : virtiofs_chunk_at(in, at - VIRTIOFS_STREAM_BYTES);
	uint64_t mem;

	if (!c || c->dirty || c->mapped ||
	    !memfile_range_exclusive(memory(in), c->off, MEM_CHUNK_SIZE))
		return 0;
	mem = c->off;
	*c = (struct virtiofs_chunk){0};
	return mem;
}

/* Memory for the chunk at `at`. *inout_mem: fresh memory, or 0; what is left of it is the caller's again. Return: 0, -EAGAIN: it takes fresh memory, -ENOMEM. */
static int provide_chunk(struct virtiofs_inode *in, uint64_t at, bool stream, uint64_t *inout_mem)
{
	struct virtiofs_chunk *c;
	uint64_t mem = 0;
	int err = 0;

	rwlock_write_lock(&in->map.data_lock);
	if (virtiofs_chunk_at(in, at))
		goto out;
	c = chunks_make(&in->chunks, at >> MEM_CHUNK_SHIFT);
	if (!c)
		err = -ENOMEM;
	else if (*inout_mem)
		mem = *inout_mem;
	else if (!stream || !(mem = take_behind(in, at)))
		err = -EAGAIN;
	if (err)
		goto out;
	*c = (struct virtiofs_chunk){.off = mem};
	*inout_mem = 0;
out:
	rwlock_write_unlock(&in->map.data_lock);
	return err;
}

/* Memory for every chunk of [off, end). stream: see virtiofs_data_provide_stream(). No locks held. */
static int provide(struct virtiofs_inode *in, uint64_t off, uint64_t end, bool stream)
{
	if (end > 1ull << (CHUNKS_INDEX_BITS + MEM_CHUNK_SHIFT))
		return -EFBIG;
	for (uint64_t at = round_down_u64(off, MEM_CHUNK_SIZE); at < end; at += MEM_CHUNK_SIZE) {
		uint64_t mem = 0;
		bool have;
		int err;

		rwlock_read_lock(&in->map.data_lock);
		have = virtiofs_chunk_at(in, at) != NULL;
		rwlock_read_unlock(&in->map.data_lock);
		if (have)
			continue;
		err = stream ? provide_chunk(in, at, true, &mem) : -EAGAIN;
		if (err == -EAGAIN) {
			err = memfile_alloc(memory(in), MEM_CHUNK_SIZE, 0, 0, &mem);
			if (!err)
				err = provide_chunk(in, at, false, &mem);
		}
		if (mem)
			memfile_range_unref(memory(in), mem, MEM_CHUNK_SIZE);
		if (err)
			return err;
	}
	return 0;
}

int virtiofs_data_provide(struct virtiofs_inode *in, uint64_t off, uint64_t end)
{
	return provide(in, off, end, false);
}

int virtiofs_data_provide_stream(struct virtiofs_inode *in, uint64_t off, uint64_t end)
{
	return provide(in, off, end, true);
}

/* ---- filling ---- */

unsigned virtiofs_data_collect(struct virtiofs_inode *in, uint64_t *inout_off, uint64_t end,
			       struct vdev_data *data, unsigned max)
{
	uint64_t at = *inout_off;
	unsigned count = 0;

	rwlock_read_lock(&in->map.data_lock);
	while (at < end && virtiofs_page_valid(in, at))
		at += MOAT_PAGE_SIZE;
	*inout_off = at;
	while (at < end && !virtiofs_page_valid(in, at)) {
		struct virtiofs_chunk *c = virtiofs_chunk_at(in, at);
		uint64_t mem;

		if (!c)
			break;
		mem = c->off + (at & (MEM_CHUNK_SIZE - 1));
		if (count && data[count - 1].off + data[count - 1].size == mem) {
			data[count - 1].size += MOAT_PAGE_SIZE;
		} else {
			if (count == max)
				break;
			data[count++] = (struct vdev_data){mem, MOAT_PAGE_SIZE};
		}
		at += MOAT_PAGE_SIZE;
	}
	for (unsigned i = 0; i < count; i++)
		if (memfile_range_ref(memory(in), data[i].off, data[i].size))
			abort(); /* cannot fail on memory that is allocated */
	rwlock_read_unlock(&in->map.data_lock);
	return count;
}

void virtiofs_data_arrived(struct virtiofs_inode *in, uint64_t off, const struct vdev_data *data,
			   unsigned count, uint64_t got)
{
	for (unsigned i = 0; i < count; i++) {
		char *p = memfile_ptr(memory(in), data[i].off);

		if (got < data[i].size)
			memset(p + got, 0, data[i].size - got);
		got -= MIN(got, (uint64_t)data[i].size);
	}
	rwlock_write_lock(&in->map.data_lock);
	for (unsigned i = 0; i < count; i++)
		for (uint64_t at = 0; at < data[i].size;
		     at += MOAT_PAGE_SIZE, off += MOAT_PAGE_SIZE) {
			struct virtiofs_chunk *c = virtiofs_chunk_at(in, off);

			if (c && c->off + (off & (MEM_CHUNK_SIZE - 1)) == data[i].off + at)
				c->valid |= VIRTIOFS_PAGE_BIT(off);
		}
	rwlock_write_unlock(&in->map.data_lock);
}

/* Makes the pages of [off, end) valid. Pre: fill_lock. Return: 0, -errno. */
int virtiofs_data_fill_locked(struct virtiofs_inode *in, struct virtiofs_handle *h, uint64_t off,
			      uint64_t end)
{
	struct vdev_data data[VDEV_DATA_MAX];
	int err;

	off = round_down_u64(off, MOAT_PAGE_SIZE);
	end = round_up_u64(end, MOAT_PAGE_SIZE);
	err = virtiofs_data_provide(in, off, end);
	while (!err && off < end) {
		uint64_t stop = MIN(end, off + in->fs->max_read), size = 0;
		unsigned count = virtiofs_data_collect(in, &off, stop, data, VDEV_DATA_MAX);
		ssize_t got;

		if (!count) {
			if (off < stop)
				break; /* dropped under us: the caller looks again */
			continue;
		}
		for (unsigned i = 0; i < count; i++)
			size += data[i].size;
		got = read_rpc(in, h, off, data, count, &h->filler.base);
		if (got >= 0)
			virtiofs_data_arrived(in, off, data, count, (uint64_t)got);
		else
			err = (int)got;
		for (unsigned i = 0; i < count; i++)
			memfile_range_unref(memory(in), data[i].off, data[i].size);
		off += size;
	}
	return err;
}

static int fill(struct virtiofs_inode *in, struct virtiofs_handle *h, uint64_t off, uint64_t end)
{
	int err = virtiofs_fill_begin_killable(in);

	if (err)
		return err;
	err = virtiofs_data_fill_locked(in, h, off, end);
	virtiofs_fill_end(in);
	return err;
}

/* ---- reading past the cache ---- */

ssize_t virtiofs_data_read_direct(struct virtiofs_inode *in, struct virtiofs_handle *h,
				  struct io_iter *it, uint64_t off)
{
	uint64_t bounce, done = 0;
	ssize_t got = 0;
	/* What a mapping of ours wrote comes first. */
	int err = virtiofs_data_writeback(in, off, off + it->remaining);

	if (!err)
		err = virtiofs_bounce_get(in->fs, &bounce);
	if (err)
		return err;
	do {
		struct vdev_data piece = {bounce,
					  (uint32_t)MIN(it->remaining, (uint64_t)in->fs->max_read)};
		size_t put;

		if (!piece.size)
			break;
		got = read_rpc(in, h, off + done, &piece, 1, &h->user.base);
		if (got <= 0)
			break;
		put = io_iter_put(it, memfile_ptr(memory(in), bounce), (size_t)got);
		done += put;
		if (put < (size_t)got || (uint32_t)got < piece.size) {
			got = put ? 0 : -EFAULT;
			break;
		}
	} while (it->remaining);
	virtiofs_bounce_put(in->fs, bounce, it->remaining && got == -EINTR);
	return done ? (ssize_t)done : got;
}

/* ---- dropping ---- */

/* Under data_lock (write), mappings invalidated. */
static void drop_pages(struct virtiofs_inode *in, uint64_t off, uint64_t end, bool dirty_too)
{
	uint64_t index = off >> MEM_CHUNK_SHIFT;
	struct virtiofs_chunk *c;

	for (; (c = chunks_next(&in->chunks, &index)) && index << MEM_CHUNK_SHIFT < end; index++) {
		uint64_t start = MAX(off, index << MEM_CHUNK_SHIFT);
		uint64_t stop = MIN(end, (index + 1) << MEM_CHUNK_SHIFT);

		for (uint64_t at = start; at < stop; at += MOAT_PAGE_SIZE) {
			uint16_t bit = VIRTIOFS_PAGE_BIT(at);

			if ((c->dirty & bit) && !dirty_too)
				continue;
			if (c->dirty & bit)
				atomic_fetch_sub(&in->dirty_pages, 1);
			c->dirty &= (uint16_t)~bit;
			c->valid &= (uint16_t)~bit;
		}
		if (!c->valid) {
			memfile_range_unref(memory(in), c->off, MEM_CHUNK_SIZE);
			c->off = 0;
		}
	}
}

void virtiofs_data_drop(struct virtiofs_inode *in, uint64_t off, uint64_t end)
{
	rwlock_write_lock(&in->map.data_lock);
	mappable_invalidate(&in->map, off, end == UINT64_MAX ? end : end - off, false);
	drop_pages(in, off, end, false);
	rwlock_write_unlock(&in->map.data_lock);
}

void virtiofs_data_truncated(struct virtiofs_inode *in, uint64_t size)
{
	uint64_t whole = round_up_u64(size, MOAT_PAGE_SIZE), tail = size & ~MOAT_PAGE_MASK;
	struct virtiofs_chunk *c;

	rwlock_write_lock(&in->map.data_lock);
	mappable_invalidate(&in->map, whole, UINT64_MAX, true);
	drop_pages(in, whole, UINT64_MAX, true);
	c = tail ? virtiofs_chunk_at(in, size) : NULL;
	if (c && (c->valid & VIRTIOFS_PAGE_BIT(size)))
		memset(memfile_ptr(memory(in), c->off + (size & (MEM_CHUNK_SIZE - 1))), 0,
		       MOAT_PAGE_SIZE - tail);
	rwlock_write_unlock(&in->map.data_lock);
}

void virtiofs_data_extended(struct virtiofs_inode *in, uint64_t to, bool filling)
{
	uint64_t from = virtiofs_inode_size(in), end = MIN(to, round_up_u64(from, MOAT_PAGE_SIZE));
	uint64_t page = round_down_u64(from, MOAT_PAGE_SIZE);
	struct virtiofs_chunk *c;

	if (end <= from)
		return;
	rwlock_write_lock(&in->map.data_lock);
	c = virtiofs_chunk_at(in, from);
	if (c && (c->valid & VIRTIOFS_PAGE_BIT(from))) {
		if (!filling || (c->dirty & VIRTIOFS_PAGE_BIT(from))) {
			memset(memfile_ptr(memory(in), c->off + (from & (MEM_CHUNK_SIZE - 1))), 0,
			       end - from);
		} else {
			/* The server knows all that is to stay, and perhaps of more: others may have written behind the end that is believed. */
			mappable_invalidate(&in->map, page, MOAT_PAGE_SIZE, false);
			drop_pages(in, page, page + MOAT_PAGE_SIZE, false);
		}
	}
	rwlock_write_unlock(&in->map.data_lock);
}

void virtiofs_data_revalidate(struct virtiofs_inode *in)
{
	struct fuse_attr a;
	int64_t mtime, ctime;
	uint64_t seen;
	bool same;

	mutex_lock(&in->lock);
	a = in->attr;
	/* Two changes within one tick of the host's clock have one time. */
	seen = in->fs->versions ? in->attr_seen : 0;
	mutex_unlock(&in->lock);
	mtime = (int64_t)(a.mtime * 1000000000ull + a.mtimensec);
	ctime = (int64_t)(a.ctime * 1000000000ull + a.ctimensec);
	rwlock_read_lock(&in->map.data_lock);
	same = in->cached_mtime == mtime && in->cached_ctime == ctime &&
	       in->cached_size == a.size && in->cached_seen == seen;
	rwlock_read_unlock(&in->map.data_lock);
	if (same)
		return;
	/* No READ that began before may make its pages valid after. */
	virtiofs_fill_begin(in);
	rwlock_write_lock(&in->map.data_lock);
	mappable_invalidate(&in->map, 0, UINT64_MAX, false);
	drop_pages(in, 0, UINT64_MAX, false);
	in->cached_mtime = mtime;
	in->cached_ctime = ctime;
	in->cached_size = a.size;
	in->cached_seen = seen;
	rwlock_write_unlock(&in->map.data_lock);
	virtiofs_fill_end(in);
}

void virtiofs_data_free(struct virtiofs_inode *in)
{
	uint64_t index = 0;
	struct virtiofs_chunk *c;

	if (virtiofs_device_dax(in->fs->dev))
		virtiofs_dax_free(in);
	for (; (c = chunks_next(&in->chunks, &index)); index++)
		memfile_range_unref(memory(in), c->off, MEM_CHUNK_SIZE);
	chunks_free(&in->chunks);
}

/* ---- as a mappable ---- */

static struct virtiofs_inode *inode_of_map(struct mappable *m)
{
	return container_of(m, struct virtiofs_inode, map);
}

/* May the page be mapped like the one at `off`: valid, and as dirty? */
static bool alike(struct virtiofs_inode *in, uint64_t off, bool dirty)
{
	struct virtiofs_chunk *c = virtiofs_chunk_at(in, off);
	uint16_t bit = VIRTIOFS_PAGE_BIT(off);

	return c && (c->valid & bit) && !(c->dirty & bit) == !dirty;
}

static int map_translate(struct mappable *m, uint64_t off, uint64_t hint_start, uint64_t hint_end,
			 unsigned access, struct mem_trans *ret)
{
	struct virtiofs_inode *in = inode_of_map(m);
	uint64_t page = round_down_u64(off, MOAT_PAGE_SIZE), start = page, end, low, high;
	struct virtiofs_chunk *c;
	uint16_t bit = VIRTIOFS_PAGE_BIT(page);
	bool dirty;

	if (page >= round_up_u64(virtiofs_inode_size(in), MOAT_PAGE_SIZE))
		return -EFAULT;
	c = virtiofs_chunk_at(in, page);
	if (!c || !(c->valid & bit))
		return -EAGAIN;
	dirty = c->dirty & bit;
	if ((access & MEM_WRITE) && !dirty) {
		/* Only readers of data_lock race here, each with the same aim. */
		if (!(__atomic_fetch_or(&c->dirty, bit, __ATOMIC_RELAXED) & bit))
			atomic_fetch_add(&in->dirty_pages, 1);
		dirty = true;
	}
	if (!__atomic_load_n(&c->mapped, __ATOMIC_RELAXED))
		__atomic_store_n(&c->mapped, true, __ATOMIC_RELAXED);
	low = MAX(hint_start, round_down_u64(page, MEM_CHUNK_SIZE));
	high = MIN(hint_end, round_down_u64(page, MEM_CHUNK_SIZE) + MEM_CHUNK_SIZE);
	for (end = page + MOAT_PAGE_SIZE; end < high && alike(in, end, dirty);)
		end += MOAT_PAGE_SIZE;
	while (start > low && alike(in, start - MOAT_PAGE_SIZE, dirty))
		start -= MOAT_PAGE_SIZE;
	*ret = (struct mem_trans){
		.mf = memory(in),
		.mf_off = c->off + (start & (MEM_CHUNK_SIZE - 1)),
		.start = start,
		.size = end - start,
		.access = MEM_READ | MEM_EXEC | (dirty ? MEM_WRITE : 0),
	};
	return memfile_range_ref(ret->mf, ret->mf_off, ret->size);
}

static int map_populate(struct mappable *m, uint64_t off, uint64_t size, unsigned access)
{
	struct virtiofs_inode *in = inode_of_map(m);
	struct virtiofs_handle *h = virtiofs_handle_any(in, false);
	uint64_t file_end = round_up_u64(virtiofs_inode_size(in), MOAT_PAGE_SIZE);
	int err;

	(void)access;
	if (!h)
		return -EIO;
	virtiofs_await(in->fs);
	err = fill(in, h, off, MIN(file_end, MAX(off + size, off + MAP_AHEAD_BYTES)));
	virtiofs_handle_unref(h);
	return err;
}

static int map_sync(struct mappable *m, uint64_t off, uint64_t size)
{
	return virtiofs_data_writeback(inode_of_map(m), off, off + size);
}

static void map_ref(struct mappable *m)
{
	ref_get(&inode_of_map(m)->base.ref);
}

/* The last reference may send a FORGET: at a safe point. */
static void map_unref_work(struct deferred_work *w)
{
	struct virtiofs_inode *in = container_of(w, struct virtiofs_inode, map_work);
	uint32_t drops = atomic_exchange(&in->map_drops, 0);

	while (drops--)
		virtiofs_inode_unref(in);
}

static void map_unref(struct mappable *m)
{
	struct virtiofs_inode *in = inode_of_map(m);

	if (atomic_fetch_add(&in->map_drops, 1) == 0) {
		in->map_work.run = map_unref_work;
		vfs_defer(&in->map_work);
	}
}

const struct mappable_ops virtiofs_mappable_ops = {
	.translate = map_translate,
	.populate = map_populate,
	.sync = map_sync,
	.ref = map_ref,
	.unref = map_unref,
};
