/* mem/internal.h - what the memory files' two kinds share. */
#ifndef MOAT_MEM_INTERNAL_H
#define MOAT_MEM_INTERNAL_H

#include "base/rcu.h"
#include "base/tree.h"
#include "mem/memfile.h"

struct mem_segment;
RB_HEAD(mem_segment_tree, mem_segment);

struct memfile {
	struct ref ref;
	enum memfile_kind kind; /* immutable */
	int fd; /* immutable */
	unsigned max_access; /* immutable */
	struct mem_segment_tree segments; /* host: guarded by the window's lock */
	struct rcu_cb rcu;
};

extern struct ref_type memfile_type;

/* private.c */
extern char *mem_private_base; /* immutable after mem_init() */
must_check int private_init(struct memfile *mf, uint64_t limit);
void private_ref(uint64_t off, uint64_t size);
void private_unref(uint64_t off, uint64_t size);
void private_stats(struct mem_stats *stats);

/* window.c */
must_check int window_init(void);
must_check int window_ref(struct memfile *mf, uint64_t off, uint64_t size);
void window_unref(struct memfile *mf, uint64_t off, uint64_t size);
/* The address of `off` and how many bytes up to `size` follow it there; NULL if it is not mapped. */
void *window_ptr(struct memfile *mf, uint64_t off, uint64_t size, uint64_t *ret_len);
/* `mf` has no reference left: its segments go. */
void window_drop_file(struct memfile *mf);
void window_stats(struct mem_stats *stats);

static inline uint32_t chunk_first(uint64_t off)
{
	return (uint32_t)(off >> MEM_CHUNK_SHIFT);
}

/* One past the last chunk that [off, off + size) overlaps. */
static inline uint32_t chunk_end(uint64_t off, uint64_t size)
{
	return (uint32_t)((off + size + MEM_CHUNK_SIZE - 1) >> MEM_CHUNK_SHIFT);
}

#endif
