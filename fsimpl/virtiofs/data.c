/*
 * fsimpl/virtiofs/data.c - file data: the page cache of the mount, and reads and writes past it.
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

#define PAGE_BIT(page) ((uint16_t)(1u << ((page) % VIRTIOFS_PAGES_PER_CHUNK)))
#define READAHEAD_BYTES (256ul << 10)
#define CHUNKS_MAX (1ul << 31) /* 128 TiB */

static struct memfile *memory(const struct virtiofs_inode *in)
{
	return virtiofs_device_memory(in->fs->dev);
}

/* ---- bounce buffers ---- */

static int bounce_get(struct virtiofs_fs *fs, uint64_t *ret_off)
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
static void bounce_put(struct virtiofs_fs *fs, uint64_t off, bool killed)
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

/* ---- fill_lock ---- */

void virtiofs_fill_begin(struct virtiofs_inode *in)
{
	op_lock(&in->fill_lock);
	atomic_store(&in->fill_holders, 1);
}

int virtiofs_fill_begin_killable(struct virtiofs_inode *in)
{
	int err = op_lock_killable(&in->fill_lock);

	if (!err)
		atomic_store(&in->fill_holders, 1);
	return err;
}

void virtiofs_fill_end(struct virtiofs_inode *in)
{
	if (atomic_fetch_sub(&in->fill_holders, 1) == 1)
		op_unlock(&in->fill_lock);
}

/* ---- requests ---- */

/* READ into pieces of the shared memory. Return: bytes, -errno. */
static ssize_t read_rpc(struct virtiofs_inode *in, struct virtiofs_handle *h, uint64_t off,
			const struct vdev_data *data, unsigned count, struct vdev_owner *owner)
{
	struct fuse_read_in arg = {.fh = h->fh, .offset = off, .flags = h->flags};
	struct vdev_call call = {
		.req = {.opcode = FUSE_READ, .nodeid = in->nodeid, .arg = &arg},
		.owner = owner,
		.receive = data,
		.receive_count = count,
	};

	for (unsigned i = 0; i < count; i++)
		arg.size += data[i].size;
	return virtiofs_call(in->fs, &call);
}

/* All of [data, data + size) at off. Return: 0, -errno. */
static int write_rpc(struct virtiofs_inode *in, struct virtiofs_handle *h, uint64_t off,
		     uint64_t data, uint64_t size, bool cached)
{
	while (size) {
		struct vdev_data piece = {data, (uint32_t)MIN(size, (uint64_t)in->fs->max_write)};
		struct fuse_write_in arg = {
			.fh = h->fh,
			.offset = off,
			.size = piece.size,
			.write_flags = cached ? FUSE_WRITE_CACHE : 0,
			.flags = h->flags,
		};
		struct fuse_write_out out;
		struct vdev_call call = {
			.req = {.opcode = FUSE_WRITE, .nodeid = in->nodeid, .arg = &arg},
			.owner = &h->filler.base,
			.send = &piece,
			.send_count = 1,
			.reply = &out,
			.reply_size = sizeof(out),
		};
		ssize_t got = virtiofs_call(in->fs, &call);

		if (got < 0)
			return (int)got;
		if (!out.size || out.size > piece.size)
			return -EIO;
		off += out.size;
		data += out.size;
		size -= out.size;
	}
	return 0;
}

/* ---- chunks: all with map.data_lock held ---- */

static struct virtiofs_chunk *chunk_at(struct virtiofs_inode *in, uint64_t off)
{
	uint64_t i = off >> MEM_CHUNK_SHIFT;

	return i < in->chunk_count && in->chunks[i].off ? &in->chunks[i] : NULL;
}

static bool page_valid(struct virtiofs_inode *in, uint64_t off)
{
	struct virtiofs_chunk *c = chunk_at(in, off);

	return c && (c->valid & PAGE_BIT(off >> MOAT_PAGE_SHIFT));
}

/* For writing. Return: 0, -ENOMEM, -EFBIG. */
static int grow(struct virtiofs_inode *in, uint64_t end)
{
	uint64_t need = (end + MEM_CHUNK_SIZE - 1) >> MEM_CHUNK_SHIFT, count;
	struct virtiofs_chunk *chunks;

	if (need <= in->chunk_count)
		return 0;
	if (need > CHUNKS_MAX)
		return -EFBIG;
	count = MAX(need, MIN(in->chunk_count * 2, in->chunk_count + 4096));
	chunks = realloc(in->chunks, count * sizeof(*chunks));
	if (!chunks)
		return -ENOMEM;
	memset(chunks + in->chunk_count, 0, (count - in->chunk_count) * sizeof(*chunks));
	in->chunks = chunks;
	in->chunk_count = count;
	return 0;
}

/* Memory for every chunk of [off, end). No locks held. */
static int provide(struct virtiofs_inode *in, uint64_t off, uint64_t end)
{
	for (uint64_t at = round_down_u64(off, MEM_CHUNK_SIZE); at < end; at += MEM_CHUNK_SIZE) {
		struct virtiofs_chunk *c;
		uint64_t mem = 0;
		bool have;
		int err;

		rwlock_read_lock(&in->map.data_lock);
		have = chunk_at(in, at);
		rwlock_read_unlock(&in->map.data_lock);
		if (have)
			continue;
		err = memfile_alloc(memory(in), MEM_CHUNK_SIZE, 0, 0, &mem);
		if (err)
			return err;
		rwlock_write_lock(&in->map.data_lock);
		err = grow(in, at + 1);
		c = err ? NULL : &in->chunks[at >> MEM_CHUNK_SHIFT];
		if (c && !c->off) {
			*c = (struct virtiofs_chunk){.off = mem};
			mem = 0;
		}
		rwlock_write_unlock(&in->map.data_lock);
		if (mem)
			memfile_range_unref(memory(in), mem, MEM_CHUNK_SIZE);
		if (err)
			return err;
	}
	return 0;
}

/* ---- filling ---- */

/* A run of invalid pages from *inout_off on, below end, as pieces of memory. References on them are taken. */
static unsigned collect_invalid(struct virtiofs_inode *in, uint64_t *inout_off, uint64_t end,
				struct vdev_data *data, unsigned max)
{
	uint64_t at = *inout_off;
	unsigned count = 0;

	rwlock_read_lock(&in->map.data_lock);
	while (at < end && page_valid(in, at))
		at += MOAT_PAGE_SIZE;
	*inout_off = at;
	while (at < end && !page_valid(in, at)) {
		struct virtiofs_chunk *c = chunk_at(in, at);
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

/* Pages of the run are valid now; what the file did not have of them reads as zeros. */
static void mark_valid(struct virtiofs_inode *in, uint64_t off, const struct vdev_data *data,
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
			struct virtiofs_chunk *c = chunk_at(in, off);

			if (c && c->off + (off & (MEM_CHUNK_SIZE - 1)) == data[i].off + at)
				c->valid |= PAGE_BIT(off >> MOAT_PAGE_SHIFT);
		}
	rwlock_write_unlock(&in->map.data_lock);
}

/* Makes the pages of [off, end) valid. Pre: fill_lock. Return: 0, -errno. */
static int fill_locked(struct virtiofs_inode *in, struct virtiofs_handle *h, uint64_t off,
		       uint64_t end)
{
	struct vdev_data data[VDEV_DATA_MAX];
	int err;

	off = round_down_u64(off, MOAT_PAGE_SIZE);
	end = round_up_u64(end, MOAT_PAGE_SIZE);
	err = provide(in, off, end);
	while (!err && off < end) {
		uint64_t stop = MIN(end, off + in->fs->max_read), size = 0;
		unsigned count = collect_invalid(in, &off, stop, data, VDEV_DATA_MAX);
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
			mark_valid(in, off, data, count, (uint64_t)got);
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
	err = fill_locked(in, h, off, end);
	virtiofs_fill_end(in);
	return err;
}

/* ---- reading ---- */

/* Bytes from off on that lie valid in one chunk, with a reference on it; 0: none. */
static uint64_t pin_valid(struct virtiofs_inode *in, uint64_t off, uint64_t end, uint64_t *ret_mem)
{
	struct virtiofs_chunk *c;
	uint64_t at = off;

	rwlock_read_lock(&in->map.data_lock);
	c = chunk_at(in, off);
	end = MIN(end, round_down_u64(off, MEM_CHUNK_SIZE) + MEM_CHUNK_SIZE);
	while (c && at < end && (c->valid & PAGE_BIT(at >> MOAT_PAGE_SHIFT)))
		at = round_down_u64(at, MOAT_PAGE_SIZE) + MOAT_PAGE_SIZE;
	at = MIN(at, end);
	if (at > off) {
		*ret_mem = c->off + (off & (MEM_CHUNK_SIZE - 1));
		if (memfile_range_ref(memory(in), *ret_mem, at - off))
			abort();
	}
	rwlock_read_unlock(&in->map.data_lock);
	return at - off;
}

ssize_t virtiofs_data_read(struct virtiofs_inode *in, struct virtiofs_handle *h, struct io_iter *it,
			   uint64_t off)
{
	uint64_t size = virtiofs_inode_size(in), done = 0, end;

	end = off >= size ? off : MIN(size, off + it->remaining);
	while (off + done < end) {
		uint64_t mem = 0, n = pin_valid(in, off + done, end, &mem);
		size_t put;
		int err;

		if (!n) {
			uint64_t ahead = MAX(end, MIN(size, off + done + READAHEAD_BYTES));

			err = fill(in, h, off + done, MIN(ahead, off + done + VIRTIOFS_READ_MAX));
			if (err)
				return done ? (ssize_t)done : err;
			continue;
		}
		put = io_iter_put(it, memfile_ptr(memory(in), mem), n);
		memfile_range_unref(memory(in), mem, n);
		done += put;
		if (put < n)
			return done ? (ssize_t)done : -EFAULT;
	}
	return (ssize_t)done;
}

ssize_t virtiofs_data_read_direct(struct virtiofs_inode *in, struct virtiofs_handle *h,
				  struct io_iter *it, uint64_t off)
{
	uint64_t bounce, done = 0;
	ssize_t got = 0;
	/* What a mapping of ours wrote comes first. */
	int err = virtiofs_data_writeback(in, off, off + it->remaining);

	if (!err)
		err = bounce_get(in->fs, &bounce);
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
	bounce_put(in->fs, bounce, it->remaining && got == -EINTR);
	return done ? (ssize_t)done : got;
}

/* ---- writing ---- */

/* New bytes in pages that are cached: brought up to date from `src`. */
static void update_cached(struct virtiofs_inode *in, uint64_t off, uint64_t src, uint64_t size)
{
	rwlock_write_lock(&in->map.data_lock);
	for (uint64_t at = off; at < off + size;) {
		uint64_t n =
			MIN(off + size, round_down_u64(at, MOAT_PAGE_SIZE) + MOAT_PAGE_SIZE) - at;
		struct virtiofs_chunk *c = chunk_at(in, at);

		if (c && (c->valid & PAGE_BIT(at >> MOAT_PAGE_SHIFT)))
			memcpy(memfile_ptr(memory(in), c->off + (at & (MEM_CHUNK_SIZE - 1))),
			       memfile_ptr(memory(in), src + (at - off)), n);
		at += n;
	}
	rwlock_write_unlock(&in->map.data_lock);
}

ssize_t virtiofs_data_write_through(struct virtiofs_inode *in, struct virtiofs_handle *h,
				    struct io_iter *it, uint64_t off)
{
	uint64_t bounce, done = 0;
	int err = bounce_get(in->fs, &bounce);

	if (err)
		return err;
	while (it->remaining && !err) {
		size_t want = MIN(it->remaining, (uint64_t)in->fs->max_write), n;

		n = io_iter_get(it, memfile_ptr(memory(in), bounce), want);
		if (!n) {
			err = -EFAULT;
			break;
		}
		virtiofs_fill_begin(in);
		err = write_rpc(in, h, off + done, bounce, n, false);
		if (!err) {
			update_cached(in, off + done, bounce, n);
			done += n;
			virtiofs_inode_grown(in, off + done);
		}
		virtiofs_fill_end(in);
		if (n < want)
			break;
	}
	bounce_put(in->fs, bounce, err == -EINTR);
	/* The server's times and blocks are news. */
	virtiofs_inode_stale(in);
	return done ? (ssize_t)done : err;
}

/* Copies into one cached, valid page; it is dirty from then on. Return: bytes, 0: it is not there any more, -EFAULT. */
static ssize_t dirty_page(struct virtiofs_inode *in, struct io_iter *it, uint64_t off, uint64_t n)
{
	char copy[MOAT_PAGE_SIZE];
	struct virtiofs_chunk *c;
	size_t got = io_iter_get(it, copy, n);

	if (!got)
		return -EFAULT;
	rwlock_write_lock(&in->map.data_lock);
	c = chunk_at(in, off);
	if (c && (c->valid & PAGE_BIT(off >> MOAT_PAGE_SHIFT))) {
		memcpy(memfile_ptr(memory(in), c->off + (off & (MEM_CHUNK_SIZE - 1))), copy, got);
		if (!(c->dirty & PAGE_BIT(off >> MOAT_PAGE_SHIFT)))
			atomic_fetch_add(&in->dirty_pages, 1);
		c->dirty |= PAGE_BIT(off >> MOAT_PAGE_SHIFT);
	} else {
		io_iter_revert(it, got);
		got = 0;
	}
	rwlock_write_unlock(&in->map.data_lock);
	return (ssize_t)got;
}

/* A page that lies wholly past the end, or will be overwritten whole, needs no READ. */
static void make_blank(struct virtiofs_inode *in, uint64_t page)
{
	struct virtiofs_chunk *c;

	rwlock_write_lock(&in->map.data_lock);
	c = chunk_at(in, page);
	if (c && !(c->valid & PAGE_BIT(page >> MOAT_PAGE_SHIFT))) {
		memset(memfile_ptr(memory(in), c->off + (page & (MEM_CHUNK_SIZE - 1))), 0,
		       MOAT_PAGE_SIZE);
		c->valid |= PAGE_BIT(page >> MOAT_PAGE_SHIFT);
	}
	rwlock_write_unlock(&in->map.data_lock);
}

/* The page at `off`, of which [off, off + n) will be written, is made valid. */
static int prepare_page(struct virtiofs_inode *in, struct virtiofs_handle *h, uint64_t off,
			uint64_t n)
{
	uint64_t page = round_down_u64(off, MOAT_PAGE_SIZE);
	bool valid;
	int err;

	rwlock_read_lock(&in->map.data_lock);
	valid = page_valid(in, page);
	rwlock_read_unlock(&in->map.data_lock);
	if (valid)
		return 0;
	err = virtiofs_fill_begin_killable(in);
	if (err)
		return err;
	if (page >= virtiofs_inode_size(in) || n == MOAT_PAGE_SIZE) {
		err = provide(in, page, page + MOAT_PAGE_SIZE);
		if (!err)
			make_blank(in, page);
	} else {
		err = fill_locked(in, h, page, page + MOAT_PAGE_SIZE);
	}
	virtiofs_fill_end(in);
	return err;
}

ssize_t virtiofs_data_write_back(struct virtiofs_inode *in, struct virtiofs_handle *h,
				 struct io_iter *it, uint64_t off)
{
	uint64_t done = 0;
	ssize_t got = 0;

	while (it->remaining) {
		uint64_t at = off + done, n = MOAT_PAGE_SIZE - (at & ~MOAT_PAGE_MASK);

		n = MIN(n, it->remaining);
		got = prepare_page(in, h, at, n);
		if (!got)
			got = dirty_page(in, it, at, n);
		if (got < 0)
			break;
		done += (uint64_t)got;
		if (got)
			virtiofs_inode_grown(in, off + done);
	}
	return done ? (ssize_t)done : got;
}

/* ---- writing back ---- */

/* The first run of dirty pages in [*inout_off, end), within one chunk: now clean, unmapped, and pinned. Return: bytes. */
static uint64_t take_dirty(struct virtiofs_inode *in, uint64_t *inout_off, uint64_t end,
			   uint64_t *ret_mem)
{
	uint64_t at = *inout_off, start, stop;
	struct virtiofs_chunk *c = NULL;

	rwlock_write_lock(&in->map.data_lock);
	end = MIN(end, in->chunk_count << MEM_CHUNK_SHIFT);
	for (; at < end; at += MOAT_PAGE_SIZE) {
		c = chunk_at(in, at);
		if (!c || !c->dirty) {
			at = round_down_u64(at, MEM_CHUNK_SIZE) + MEM_CHUNK_SIZE - MOAT_PAGE_SIZE;
			continue;
		}
		if (c->dirty & PAGE_BIT(at >> MOAT_PAGE_SHIFT))
			break;
	}
	start = at;
	stop = MIN(end, round_down_u64(at, MEM_CHUNK_SIZE) + MEM_CHUNK_SIZE);
	for (; at < stop && (c->dirty & PAGE_BIT(at >> MOAT_PAGE_SHIFT)); at += MOAT_PAGE_SIZE) {
		c->dirty &= (uint16_t)~PAGE_BIT(at >> MOAT_PAGE_SHIFT);
		atomic_fetch_sub(&in->dirty_pages, 1);
	}
	*inout_off = start;
	if (at > start) {
		/* The next store by a mapping faults and makes it dirty again. */
		mappable_invalidate(&in->map, start, at - start, false);
		*ret_mem = c->off + (start & (MEM_CHUNK_SIZE - 1));
		if (memfile_range_ref(memory(in), *ret_mem, at - start))
			abort();
	}
	rwlock_write_unlock(&in->map.data_lock);
	return at > start ? at - start : 0;
}

int virtiofs_data_writeback(struct virtiofs_inode *in, uint64_t off, uint64_t end)
{
	struct virtiofs_handle *h;
	int err = 0;

	if (!atomic_load(&in->dirty_pages))
		return 0;
	h = virtiofs_handle_any(in, true);
	if (!h)
		return -EIO;
	virtiofs_fill_begin(in);
	/* From here to the end the server's size and times are not to be believed, nor those it gave meanwhile (stale). */
	atomic_fetch_add(&in->writing, 1);
	off = round_down_u64(off, MOAT_PAGE_SIZE);
	while (off < end) {
		uint64_t mem, n = take_dirty(in, &off, end, &mem), size = virtiofs_inode_size(in);
		int wrote;

		if (!n)
			break;
		/* The tail of the last page is nobody's. */
		wrote = off < size ? write_rpc(in, h, off, mem, MIN(n, size - off), true) : 0;
		memfile_range_unref(memory(in), mem, n);
		if (wrote && !err)
			err = wrote;
		off += n;
	}
	virtiofs_fill_end(in);
	virtiofs_inode_stale(in);
	atomic_fetch_sub(&in->writing, 1);
	virtiofs_handle_unref(h);
	if (err)
		log_warn("virtio-fs: data of node %llu could not be written: %s",
			 (unsigned long long)in->nodeid, strerror(-err));
	return err;
}

/* ---- dropping ---- */

/* Under data_lock (write), mappings invalidated. */
static void drop_pages(struct virtiofs_inode *in, uint64_t off, uint64_t end, bool dirty_too)
{
	end = MIN(end, in->chunk_count << MEM_CHUNK_SHIFT);
	for (uint64_t at = off; at < end; at += MOAT_PAGE_SIZE) {
		struct virtiofs_chunk *c = chunk_at(in, at);
		uint16_t bit = PAGE_BIT(at >> MOAT_PAGE_SHIFT);

		if (!c) {
			at = round_down_u64(at, MEM_CHUNK_SIZE) + MEM_CHUNK_SIZE - MOAT_PAGE_SIZE;
			continue;
		}
		if (c->dirty & bit) {
			if (!dirty_too)
				continue;
			c->dirty &= (uint16_t)~bit;
			atomic_fetch_sub(&in->dirty_pages, 1);
		}
		c->valid &= (uint16_t)~bit;
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
	c = tail ? chunk_at(in, size) : NULL;
	if (c && (c->valid & PAGE_BIT(size >> MOAT_PAGE_SHIFT)))
		memset(memfile_ptr(memory(in), c->off + (size & (MEM_CHUNK_SIZE - 1))), 0,
		       MOAT_PAGE_SIZE - tail);
	rwlock_write_unlock(&in->map.data_lock);
}

void virtiofs_data_revalidate(struct virtiofs_inode *in)
{
	struct fuse_attr a;
	int64_t mtime, ctime;
	bool same;

	mutex_lock(&in->lock);
	a = in->attr;
	mutex_unlock(&in->lock);
	mtime = (int64_t)(a.mtime * 1000000000ull + a.mtimensec);
	ctime = (int64_t)(a.ctime * 1000000000ull + a.ctimensec);
	rwlock_read_lock(&in->map.data_lock);
	same = in->cached_mtime == mtime && in->cached_ctime == ctime && in->cached_size == a.size;
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
	rwlock_write_unlock(&in->map.data_lock);
	virtiofs_fill_end(in);
}

void virtiofs_data_free(struct virtiofs_inode *in)
{
	for (uint64_t i = 0; i < in->chunk_count; i++)
		if (in->chunks[i].off)
			memfile_range_unref(memory(in), in->chunks[i].off, MEM_CHUNK_SIZE);
	free(in->chunks);
	in->chunks = NULL;
	in->chunk_count = 0;
}

/* ---- as a mappable ---- */

static struct virtiofs_inode *inode_of_map(struct mappable *m)
{
	return container_of(m, struct virtiofs_inode, map);
}

/* May the page be mapped like the one at `off`: valid, and as dirty? */
static bool alike(struct virtiofs_inode *in, uint64_t off, bool dirty)
{
	struct virtiofs_chunk *c = chunk_at(in, off);
	uint16_t bit = PAGE_BIT(off >> MOAT_PAGE_SHIFT);

	return c && (c->valid & bit) && !(c->dirty & bit) == !dirty;
}

static int map_translate(struct mappable *m, uint64_t off, uint64_t hint_start, uint64_t hint_end,
			 unsigned access, struct mem_trans *ret)
{
	struct virtiofs_inode *in = inode_of_map(m);
	uint64_t page = round_down_u64(off, MOAT_PAGE_SIZE), start = page, end, low, high;
	struct virtiofs_chunk *c;
	uint16_t bit = PAGE_BIT(page >> MOAT_PAGE_SHIFT);
	bool dirty;

	if (page >= round_up_u64(virtiofs_inode_size(in), MOAT_PAGE_SIZE))
		return -EFAULT;
	c = chunk_at(in, page);
	if (!c || !(c->valid & bit))
		return -EAGAIN;
	dirty = c->dirty & bit;
	if ((access & MEM_WRITE) && !dirty) {
		/* Only readers of data_lock race here, each with the same aim. */
		if (!(__atomic_fetch_or(&c->dirty, bit, __ATOMIC_RELAXED) & bit))
			atomic_fetch_add(&in->dirty_pages, 1);
		dirty = true;
	}
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
	err = fill(in, h, off, MIN(file_end, MAX(off + size, off + READAHEAD_BYTES / 2)));
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
