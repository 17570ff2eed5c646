/* mem/internal.h - what the memory files' two kinds share. */
#ifndef MOAT_MEM_INTERNAL_H
#define MOAT_MEM_INTERNAL_H

#include "base/rcu.h"
#include "base/tree.h"
#include "mem/memfile.h"

struct mem_segment;
struct mem_shared;
RB_HEAD(mem_segment_tree, mem_segment);

struct memfile {
	struct ref ref;
	enum memfile_kind kind; /* immutable */
	int fd; /* immutable */
	unsigned max_access; /* immutable */
	struct mem_segment_tree segments; /* host: guarded by the window's lock */
	struct mem_shared *shared; /* immutable: shared.c's, NULL for others */
	struct rcu_cb rcu;
};

extern struct ref_type memfile_type;

/* private.c */
extern char *mem_private_base; /* immutable after mem_init() */
must_check int private_init(struct memfile *mf, uint64_t limit);
void private_set_limit(uint64_t limit, uint64_t total);
void private_ref(uint64_t off, uint64_t size);
void private_unref(uint64_t off, uint64_t size);
void private_stats(struct mem_stats *stats);

/* account.c; all but the first with the lock of private memory. To the account of the calling thread, if that has room; and from whosever it is. */
must_check int account_init(uint32_t chunks);
bool account_is_full(uint32_t len);
void account_charge(uint32_t first, uint32_t len);
void account_uncharge(uint32_t first, uint32_t len);

/* window.c */
must_check int window_init(void);
must_check int window_ref(struct memfile *mf, uint64_t off, uint64_t size);
void window_unref(struct memfile *mf, uint64_t off, uint64_t size);
/* The address of `off` and how many bytes up to `size` follow it there; NULL if it is not mapped. */
void *window_ptr(struct memfile *mf, uint64_t off, uint64_t size, uint64_t *ret_len);
/* `mf` has no reference left: its segments go. */
void window_drop_file(struct memfile *mf);
void window_stats(struct mem_stats *stats);
/* All of a file of `chunks` chunks at once, at a place of its own. Return: 0, -ENOMEM, -errno. */
must_check int window_map_whole(int fd, uint32_t chunks, uint32_t *ret_at, char **ret_base);
void window_unmap_whole(uint32_t at, uint32_t chunks);

/* shared.c */
must_check int shared_create(uint64_t size, struct memfile *mf); /* sets mf->fd, mf->shared */
void shared_destroy(struct mem_shared *s);
void *shared_ptr(const struct mem_shared *s, uint64_t off);
uint64_t shared_size(const struct mem_shared *s);
must_check int shared_alloc(struct mem_shared *s, uint64_t size, uint64_t near, uint64_t *ret_off);
void shared_ref(struct mem_shared *s, uint64_t off, uint64_t size);
void shared_unref(struct mem_shared *s, uint64_t off, uint64_t size);
bool shared_exclusive(struct mem_shared *s, uint64_t off, uint64_t size);

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
