/* fsimpl/memfs/data.h - a regular file's data: a sparse map from 64 KiB chunks to the private memory file. */
#ifndef MOAT_FSIMPL_MEMFS_DATA_H
#define MOAT_FSIMPL_MEMFS_DATA_H

#include "fsimpl/memfs/internal.h"
#include "vfs/op_lock.h"

#define CHUNK_PAGES (MEM_CHUNK_SIZE / MOAT_PAGE_SIZE)

/*
 * A chunk's slot: its offset in the private memory file, with a bit for each page that holds data in the low 16 bits. A chunk
 * without such a page is given back, so a slot in use is never 0. Pages without a bit read as zeros also in memory.
 */
static inline uint64_t slot_mf_off(uint64_t slot)
{
	return slot & ~(MEM_CHUNK_SIZE - 1);
}
static inline uint32_t slot_bits(uint64_t slot)
{
	return (uint32_t)(slot & 0xffff);
}

struct memfs_map {
	uint64_t *root; /* node of 64 slots, or NULL */
	unsigned height; /* 0: `direct` alone, chunk 0 */
	uint64_t direct;
};

struct memfs_data {
	struct mappable m; /* base; data_lock guards map, pages and the size */
	struct memfs_reg *reg; /* immutable; borrowed: the inode owns this */
	struct op_lock
		write_lock; /* one writer, truncation or fallocate at a time; sleeps over user copies */
	struct memfs_map map;
	_Atomic uint64_t pages;
	_Atomic unsigned seals; /* F_SEAL_*; changed under write_lock */
	struct rcu_cb rcu; /* a lock-free stat may still read pages */
};

/* map.c. data_lock held (write where it changes). */
uint64_t memfs_map_get(const struct memfs_map *map, uint64_t index);
/* The slot itself, made when absent. NULL: no memory. */
uint64_t *memfs_map_slot(struct memfs_map *map, uint64_t index);
/* The first chunk in use at or after index, or UINT64_MAX. */
uint64_t memfs_map_next(const struct memfs_map *map, uint64_t index);
void memfs_map_fini(struct memfs_map *map);

/* data.c */
/* Pages [first, last] of one chunk exist afterwards. data_lock (write). -ENOSPC, -ENOMEM. */
must_check int memfs_data_fill_chunk(struct memfs_data *d, uint64_t index, unsigned first,
				     unsigned last);
/* Bytes [start, end) read as zeros afterwards; whole pages go. data_lock (write); mappings were invalidated. */
void memfs_data_punch(struct memfs_data *d, uint64_t start, uint64_t end);
must_check int memfs_data_allocate(struct memfs_data *d, uint64_t start, uint64_t end);

#endif
