/*
 * mem/mappable.h - what can be mapped: files' data as seen by an mm, and its reverse map.
 *
 * A file that supports mmap embeds a struct mappable. Its `data_lock` (LOCK_FILE_DATA) guards the
 * offset -> page translation and the list of mappings.
 *   fault:     mm vma lock (read) -> data_lock (read) -> translate() -> mm translation lock -> install
 *   truncate:  data_lock (write) -> shrink -> mappable_invalidate() (takes translation locks only) -> free pages
 * translate() does no I/O: where data is not there it answers -EAGAIN and the mm, having dropped
 * every lock, calls populate() (which may do an RPC, killably) and tries again.
 */
#ifndef MOAT_MEM_MAPPABLE_H
#define MOAT_MEM_MAPPABLE_H

#include <bsd/sys/queue.h>

#include "base/lock.h"
#include "mem/memfile.h"

struct mappable;
struct mapping_space;

/* A page range of a mappable at rest in a memory file. Holds references on mf's chunks (not on mf itself: chunks keep it). */
struct mem_trans {
	struct memfile *mf;
	uint64_t mf_off; /* where `start` lies in mf */
	uint64_t start; /* offset in the mappable, page-aligned */
	uint64_t size; /* bytes, page multiple */
	unsigned access; /* enum mem_access mask that may be installed for a shared mapping */
};

struct mappable_ops {
	/*
	 * The page at `off`, and as much of [hint_start, hint_end) around it as is contiguous and cheap.
	 * `access` has MEM_WRITE for a write through a shared mapping: the file allocates and marks dirty/mtime.
	 * Pre: data_lock held (read). Takes chunk references for the caller (memfile_range_ref).
	 * Return: 0; -EFAULT beyond the end (SIGBUS); -EAGAIN: call populate(); -ENOMEM; -ENOSPC; -EACCES/-EPERM.
	 */
	int (*translate)(struct mappable *m, uint64_t off, uint64_t hint_start, uint64_t hint_end,
			 unsigned access, struct mem_trans *ret);
	/* Makes [off, off + size) translatable. No locks held; may sleep. NULL if translate never says -EAGAIN. */
	int (*populate)(struct mappable *m, uint64_t off, uint64_t size, unsigned access);
	/* msync(MS_SYNC). NULL: nothing to write back. */
	int (*sync)(struct mappable *m, uint64_t off, uint64_t size);
	/*
	 * mincore(2): vec[i] = 1 for the pages of [off, off + size) that are in memory, 0 for others; both page multiples. Takes data_lock
	 * (read) if it needs it. NULL: all are, or as good as that.
	 */
	void (*resident)(struct mappable *m, uint64_t off, uint64_t size, unsigned char *vec);
	/* It has `delta` registrations more (less). The mm's vma_lock may be held, data_lock is not. NULL: does not matter. */
	void (*mapped)(struct mappable *m, int delta);
	/* The object that embeds the mappable. */
	void (*ref)(struct mappable *m);
	void (*unref)(struct mappable *m);
};

/* One VMA's registration. Embedded in or owned by the VMA. */
struct mapping {
	LIST_ENTRY(mapping) link; /* guarded by data_lock (write) */
	struct mapping_space *space;
	uint64_t addr, size; /* guest-virtual range */
	uint64_t off; /* of addr in the mappable */
	bool writable_shared; /* counts for seals and ETXTBSY */
};

struct mapping_space_ops {
	/*
	 * Drops translations of [addr, addr + size). `private_too`: copy-on-write copies go as well (truncate), else
	 * only those that point at the file's own pages. Pre: data_lock held; takes translation locks only.
	 */
	void (*invalidate)(struct mapping_space *space, uint64_t addr, uint64_t size,
			   bool private_too);
};

struct mapping_space {
	const struct mapping_space_ops *ops;
};

struct mappable {
	const struct mappable_ops *ops; /* immutable */
	struct rwlock data_lock; /* LOCK_FILE_DATA */
	LIST_HEAD(, mapping) mappings; /* guarded by data_lock */
	_Atomic int32_t writable_mappings; /* shared writable registrations; < 0 denies (seals) */
};

void mappable_init(struct mappable *m, const struct mappable_ops *ops);
void mappable_fini(struct mappable *m);
/* Registers/unregisters; take data_lock (write) themselves. add: 0, -EPERM when writers are denied. */
must_check int mappable_add(struct mappable *m, struct mapping *map);
void mappable_remove(struct mappable *m, struct mapping *map);
/*
 * As mappable_add(), for fork: `child` is put behind `parent`, so that an invalidation which races with the
 * copy of the parent's translations empties the child after the parent. Cannot be denied.
 */
void mappable_add_after(struct mappable *m, struct mapping *parent, struct mapping *child);
/* map keeps its first `size` bytes; `upper` (uninitialised) becomes the rest. */
void mappable_split(struct mappable *m, struct mapping *map, struct mapping *upper, uint64_t size);
/* `upper`, which continues map, is joined to it and unregistered. */
void mappable_join(struct mappable *m, struct mapping *map, struct mapping *upper);
/* Changes what a registration covers. */
void mappable_resize(struct mappable *m, struct mapping *map, uint64_t addr, uint64_t size,
		     uint64_t off);
/* Pre: data_lock held (write). [off, off + size), size UINT64_MAX for "to the end". */
void mappable_invalidate(struct mappable *m, uint64_t off, uint64_t size, bool private_too);
bool mappable_is_mapped(struct mappable *m);

#endif
