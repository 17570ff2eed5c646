/*
 * fsimpl/memfs/data.c - allocation, truncation, holes, and what an mm may map.
 *
 * The memory is the truth: read(2), write(2) and mappings all touch the same pages of the private memory file, so nothing has to be
 * kept coherent. Allocation is counted in pages (st_blocks, size=) but taken in chunks.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "fsimpl/memfs/data.h"

static uint64_t chunk_of(uint64_t off)
{
	return off >> MEM_CHUNK_SHIFT;
}

static unsigned page_in_chunk(uint64_t off)
{
	return (unsigned)((off & (MEM_CHUNK_SIZE - 1)) >> MOAT_PAGE_SHIFT);
}

static uint32_t page_bits(unsigned first, unsigned last)
{
	return (uint32_t)((1ull << (last + 1)) - (1ull << first));
}

/* ---- allocation ---- */

int memfs_data_fill_chunk(struct memfs_data *d, uint64_t index, unsigned first, unsigned last)
{
	uint32_t want = page_bits(first, last), missing;
	uint64_t *slot = memfs_map_slot(&d->map, index);
	struct memfs_fs *fs = d->reg->inode.fs;
	uint64_t mf_off, near = 0;
	int err;

	if (!slot)
		return -ENOMEM;
	missing = want & ~slot_bits(*slot);
	if (!missing)
		return 0;
	err = memfs_charge_pages(fs, (uint64_t)__builtin_popcount(missing));
	if (err)
		return err;
	if (!*slot) {
		uint64_t before = index ? memfs_map_get(&d->map, index - 1) : 0;

		if (before)
			near = slot_mf_off(before) + MEM_CHUNK_SIZE;
		err = memfile_alloc(mem_private(), MEM_CHUNK_SIZE, 0, near, &mf_off);
		if (err) {
			memfs_uncharge_pages(fs, (uint64_t)__builtin_popcount(missing));
			return err;
		}
		*slot = mf_off;
	}
	*slot |= missing;
	atomic_fetch_add_explicit(&d->pages, (uint64_t)__builtin_popcount(missing),
				  memory_order_relaxed);
	return 0;
}

int memfs_data_allocate(struct memfs_data *d, uint64_t start, uint64_t end)
{
	while (start < end) {
		uint64_t index = chunk_of(start);
		uint64_t stop = MIN(end, (index + 1) << MEM_CHUNK_SHIFT);
		int err = memfs_data_fill_chunk(d, index, page_in_chunk(start),
						page_in_chunk(stop - 1));

		if (err)
			return err;
		start = stop;
	}
	return 0;
}

/* ---- freeing ---- */

static void uncount(struct memfs_data *d, uint32_t bits)
{
	uint64_t n = (uint64_t)__builtin_popcount(bits);

	memfs_uncharge_pages(d->reg->inode.fs, n);
	atomic_fetch_sub_explicit(&d->pages, n, memory_order_relaxed);
}

static void zero_bytes(uint64_t mf_off, uint64_t size)
{
	memset(memfile_ptr(mem_private(), mf_off), 0, size);
}

/* [from, to) within one chunk, offsets in the chunk. */
static void punch_chunk(struct memfs_data *d, uint64_t index, uint64_t from, uint64_t to)
{
	uint64_t *slot = memfs_map_slot(&d->map, index);
	uint64_t first = round_up_u64(from, MOAT_PAGE_SIZE), last = to & MOAT_PAGE_MASK, mf_off;
	uint32_t gone = 0;

	if (!slot || !*slot)
		return;
	mf_off = slot_mf_off(*slot);
	if (first < last)
		gone = page_bits((unsigned)(first >> MOAT_PAGE_SHIFT),
				 (unsigned)(last >> MOAT_PAGE_SHIFT) - 1) &
		       slot_bits(*slot);
	if (gone && gone == slot_bits(*slot)) {
		uncount(d, gone);
		*slot = 0;
		memfile_range_unref(mem_private(), mf_off, MEM_CHUNK_SIZE);
		return;
	}
	/* Partial pages at both ends. */
	if (from < MIN(first, to))
		zero_bytes(mf_off + from, MIN(first, to) - from);
	if (last < to && last >= first)
		zero_bytes(mf_off + last, to - last);
	if (!gone)
		return;
	uncount(d, gone);
	*slot &= ~(uint64_t)gone;
	/* A read in flight still refers to the chunk: its pages cannot go yet. */
	if (memfile_range_exclusive(mem_private(), mf_off, MEM_CHUNK_SIZE))
		memfile_decommit(mem_private(), mf_off + first, last - first);
	else
		zero_bytes(mf_off + first, last - first);
}

void memfs_data_punch(struct memfs_data *d, uint64_t start, uint64_t end)
{
	uint64_t index = chunk_of(start);

	for (;;) {
		uint64_t base;

		index = memfs_map_next(&d->map, index);
		base = index << MEM_CHUNK_SHIFT;
		if (index == UINT64_MAX || base >= end)
			return;
		punch_chunk(d, index, start > base ? start - base : 0,
			    MIN(end - base, (uint64_t)MEM_CHUNK_SIZE));
		index++;
	}
}

/* ---- the data object ---- */

static struct memfs_data *data_of(struct mappable *m)
{
	return (struct memfs_data *)m;
}

/* Pages around `off` that hold data. A write through a mapping leaves mtime alone, as on Linux's tmpfs. */
static int memfs_translate(struct mappable *m, uint64_t off, uint64_t hint_start, uint64_t hint_end,
			   unsigned access unused_arg, struct mem_trans *ret)
{
	struct memfs_data *d = data_of(m);
	uint64_t size = atomic_load_explicit(&d->reg->size, memory_order_relaxed);
	uint64_t limit = round_up_u64(size, MOAT_PAGE_SIZE), index = chunk_of(off);
	uint64_t slot, base = index << MEM_CHUNK_SHIFT, start = off, end = off + MOAT_PAGE_SIZE;

	if (off >= limit)
		return -EFAULT;
	slot = memfs_map_get(&d->map, index);
	if (!(slot_bits(slot) & (1u << page_in_chunk(off))))
		return -EAGAIN;
	while (start > hint_start && start > base &&
	       (slot_bits(slot) & (1u << page_in_chunk(start - MOAT_PAGE_SIZE))))
		start -= MOAT_PAGE_SIZE;
	/* Forward over whole chunks as long as they lie one after the other in memory too. */
	while (end < hint_end && end < limit) {
		if (chunk_of(end) != index) {
			uint64_t next = memfs_map_get(&d->map, chunk_of(end));

			if (!next || slot_mf_off(next) != slot_mf_off(slot) + MEM_CHUNK_SIZE)
				break;
			slot = next;
			index = chunk_of(end);
		}
		if (!(slot_bits(slot) & (1u << page_in_chunk(end))))
			break;
		end += MOAT_PAGE_SIZE;
	}
	slot = memfs_map_get(&d->map, chunk_of(off));
	ret->mf = mem_private();
	ret->mf_off = slot_mf_off(slot) + (start - base);
	ret->start = start;
	ret->size = end - start;
	ret->access = MEM_READ | MEM_WRITE | MEM_EXEC;
	return memfile_range_ref(ret->mf, ret->mf_off, ret->size);
}

static int memfs_populate(struct mappable *m, uint64_t off, uint64_t size,
			  unsigned access unused_arg)
{
	struct memfs_data *d = data_of(m);
	uint64_t limit, start = off & MOAT_PAGE_MASK;
	int err;

	rwlock_write_lock(&m->data_lock);
	limit = round_up_u64(atomic_load_explicit(&d->reg->size, memory_order_relaxed),
			     MOAT_PAGE_SIZE);
	if (start >= limit)
		err = -EFAULT;
	else
		err = memfs_data_allocate(d, start,
					  MIN(limit, round_up_u64(off + size, MOAT_PAGE_SIZE)));
	rwlock_write_unlock(&m->data_lock);
	return err;
}

static void memfs_resident(struct mappable *m, uint64_t off, uint64_t size, unsigned char *vec)
{
	struct memfs_data *d = data_of(m);

	rwlock_read_lock(&m->data_lock);
	for (uint64_t end = off + size; off < end; off += MOAT_PAGE_SIZE)
		*vec++ = slot_bits(memfs_map_get(&d->map, chunk_of(off))) >> page_in_chunk(off) & 1;
	rwlock_read_unlock(&m->data_lock);
}

/* A mapping keeps the inode, and through it the filesystem that counts its pages. */
static void memfs_mappable_ref(struct mappable *m)
{
	struct memfs_inode *i = &data_of(m)->reg->inode;

	filesystem_ref(&i->fs->fs);
	memfs_inode_ref(i);
}

static void memfs_mappable_unref(struct mappable *m)
{
	struct memfs_inode *i = &data_of(m)->reg->inode;
	struct filesystem *fs = &i->fs->fs;

	memfs_inode_unref(i);
	filesystem_unref(fs);
}

static const struct mappable_ops memfs_mappable_ops = {
	.translate = memfs_translate,
	.populate = memfs_populate,
	.resident = memfs_resident,
	.ref = memfs_mappable_ref,
	.unref = memfs_mappable_unref,
};

int memfs_data_get(struct memfs_reg *r, struct memfs_data **ret)
{
	struct memfs_data *d = atomic_load_explicit(&r->inode.data, memory_order_acquire), *fresh;

	if (!d) {
		fresh = calloc(1, sizeof(*fresh));
		if (!fresh)
			return -ENOMEM;
		mappable_init(&fresh->m, &memfs_mappable_ops);
		fresh->reg = r;
		op_lock_init(&fresh->write_lock);
		atomic_init(&fresh->seals, F_SEAL_SEAL);
		mutex_lock(&r->inode.lock);
		d = atomic_load_explicit(&r->inode.data, memory_order_relaxed);
		if (!d) {
			d = fresh;
			fresh = NULL;
			atomic_store_explicit(&r->inode.data, d, memory_order_release);
		}
		mutex_unlock(&r->inode.lock);
		if (fresh) {
			mappable_fini(&fresh->m);
			free(fresh);
		}
	}
	*ret = d;
	return 0;
}

static void data_free_cb(struct rcu_cb *cb)
{
	free(container_of(cb, struct memfs_data, rcu));
}

void memfs_data_destroy(struct memfs_data *d)
{
	uint64_t index = 0;

	while ((index = memfs_map_next(&d->map, index)) != UINT64_MAX) {
		uint64_t slot = memfs_map_get(&d->map, index);

		uncount(d, slot_bits(slot));
		memfile_range_unref(mem_private(), slot_mf_off(slot), MEM_CHUNK_SIZE);
		index++;
	}
	memfs_map_fini(&d->map);
	mappable_fini(&d->m);
	rcu_call(&d->rcu, data_free_cb);
}

uint64_t memfs_data_pages(const struct memfs_reg *r)
{
	struct memfs_data *d = atomic_load_explicit(&r->inode.data, memory_order_acquire);

	return d ? atomic_load_explicit(&d->pages, memory_order_relaxed) : 0;
}

int memfs_truncate(struct memfs_reg *r, uint64_t size)
{
	struct memfs_data *d;
	uint64_t old;
	unsigned seals;
	int err;

	if (size > INT64_MAX)
		return -EFBIG;
	err = memfs_data_get(r, &d);
	if (!err)
		err = op_lock_killable(&d->write_lock);
	if (err)
		return err;
	seals = atomic_load_explicit(&d->seals, memory_order_relaxed);
	rwlock_write_lock(&d->m.data_lock);
	old = atomic_load_explicit(&r->size, memory_order_relaxed);
	if ((size < old && (seals & F_SEAL_SHRINK)) || (size > old && (seals & F_SEAL_GROW))) {
		err = -EPERM;
	} else {
		atomic_store_explicit(&r->size, size, memory_order_release);
		/* Also to the same size: what fallocate put beyond the end goes. */
		if (size <= old) {
			mappable_invalidate(&d->m, round_up_u64(size, MOAT_PAGE_SIZE), UINT64_MAX,
					    true);
			memfs_data_punch(d, size, UINT64_MAX - MEM_CHUNK_SIZE);
		}
	}
	rwlock_write_unlock(&d->m.data_lock);
	op_unlock(&d->write_lock);
	return err;
}
