/*
 * sentry/mm/internal.h - an mm's inside: VMAs, translations, and who holds what while changing them.
 *
 *	mm->vma_lock (LOCK_MM_VMA): read for faults, write for changes of VMAs
 *	  mappable->data_lock (LOCK_FILE_DATA)
 *	    mm->pt_lock (LOCK_MM_PT): translations; read to look at them, write to change them
 *	      platform, memory files
 *
 * What is taken out under the locks is put on a struct mm_reap and let go after them: dropping a file, a mappable
 * or a host memory file may sleep.
 */
#ifndef MOAT_SENTRY_MM_INTERNAL_H
#define MOAT_SENTRY_MM_INTERNAL_H

#include <sys/mman.h>

#include "base/lock.h"
#include "base/rcu.h"
#include "base/tree.h"
#include "sentry/mm.h"

#define MM_MIN_ADDR 65536ul /* vm.mmap_min_addr */
#define MM_FILE_END (INT64_MAX & MOAT_PAGE_MASK) /* the end of what can be mapped of any file */
#define MM_STACK_GAP (256ul << 12) /* stack_guard_gap */
#define MM_STACK_STEP (64ul << 10) /* a stack VMA grows by this much at once */
#define MM_EXTENT_MIN MEM_CHUNK_SIZE /* an anonymous fault maps this much ... */
#define MM_EXTENT_MAX (2ul << 20) /* ... growing to this on sequential faults */
#define MM_AROUND_SMALL (512ul << 10) /* a private file VMA up to this size is mapped whole */
#define MM_COW_GROUP MEM_CHUNK_SIZE
#define MM_AHEAD_WINDOWS 7 /* made ahead for each that was seen to be used */
#define MM_PREFAULT_ANON \
	(128ul << 10) /* a new anonymous mapping up to this size is mapped at once */
/* Memory may come back so much later than its process ends: bytes, at most this share of the sandbox's. */
#define MM_LATE_MAX (8ul << 20)
#define MM_LATE_SHARE 64
#define MM_HOT_MAX 6 /* chunks that fork copies at once */
#define MM_HOT_FORKS 32 /* ... for this many forks, then they must prove themselves again */

enum {
	VMA_SHARED = 1 << 0,
	VMA_GROWS_DOWN = 1 << 1,
	VMA_STACK = 1 << 2,
	VMA_LOCKED = 1 << 3,
	VMA_LOCK_ONFAULT = 1 << 4,
	VMA_NORESERVE = 1 << 5,
	VMA_DONT_FORK = 1 << 6,
	VMA_WIPE_ON_FORK = 1 << 7,
	VMA_DONT_DUMP = 1 << 8,
	VMA_HUGE = 1 << 9,
	VMA_NO_HUGE = 1 << 10,
	VMA_SEQUENTIAL = 1 << 11,
	VMA_RANDOM = 1 << 12,
	VMA_SEALED = 1 << 13, /* mseal(2): stays as it is until exec or exit */
};

/* Guarded by vma_lock unless said otherwise. */
struct vma {
	RB_ENTRY(vma) node;
	uint64_t start, end;
	uint64_t gap, max_gap; /* free bytes before start; the largest such in the subtree */
	unsigned prot, max_prot, flags;
	uint64_t off; /* of start in the mappable */
	struct mappable *mappable; /* NULL: anonymous; a reference */
	struct file *file; /* for names; a reference or NULL */
	const char *name; /* static */
	struct mapping map; /* registered while mappable != NULL and the VMA is in the tree */
	/* Fault-around: guarded by pt_lock. */
	uint64_t seq_lo, seq_hi; /* the last window */
	uint64_t window; /* its size */
	unsigned ahead; /* windows whose pages may still be made ahead */
	bool plain; /* the last window's pages were not */
	struct vma *reap_next;
};

enum {
	PMA_OWN = 1 << 0, /* private memory of ours: anonymous, or a copy of a file's page */
	PMA_COW =
		1
		<< 1, /* OWN, and perhaps shared with another mm: look at the chunk's count before writing */
	PMA_SHARED = 1 << 2, /* a shared mapping's: fork keeps it writable */
	PMA_ANON = 1 << 3, /* for rss: not a file's page */
	PMA_CLEAN_TAIL = 1 << 4, /* the last chunk's rest was never given to anybody */
};

/* A translation; guarded by pt_lock. Holds references on mf's chunks. */
struct pma {
	RB_ENTRY(pma) node;
	uint64_t start, end;
	struct memfile *mf;
	uint64_t off;
	char *ptr; /* sentry address of start; contiguous to end */
	unsigned flags;
	unsigned limit; /* not OWN: what the file allows */
	unsigned access; /* what the application may do now without a fault */
	struct pma *reap_next;
};

RB_HEAD(vma_tree, vma);
RB_HEAD(pma_tree, pma);

/* A guest range that an iterator has pinned for writing: fork copies what lies there at once. */
struct mm_pin {
	LIST_ENTRY(mm_pin) link;
	uint64_t start, end;
};

/* A chunk that was written soon after a fork: the stack's end, thread data. */
struct mm_hot {
	uint64_t start, end;
	unsigned forks; /* since it was noticed */
};

struct mm_reap {
	struct vma *vmas;
	struct pma *pmas;
};

struct mm {
	struct ref ref;
	_Atomic uint32_t users; /* of those the references of tasks */
	struct platform *platform; /* immutable */
	struct address_space *as; /* immutable */
	struct mapping_space space;
	struct rwlock vma_lock;
	struct vma_tree vmas;
	unsigned vma_count;
	uint64_t vm_bytes, vm_peak, data_bytes, stack_bytes, exec_bytes, locked_bytes;
	bool has_seals; /* a VMA was sealed, here or in whom it was forked from */
	unsigned lock_future; /* VMA_LOCKED | VMA_LOCK_ONFAULT for new mappings */
	struct mm_layout layout;
	struct file *exe;
	bool exe_denies; /* vfs_deny_write() to it is ours to undo */
	void *_Atomic aio; /* sentry/aio.c's */
	_Atomic uint64_t stack_limit; /* RLIMIT_STACK as stack growth sees it */
	struct rwlock pt_lock;
	struct pma_tree pmas;
	uint64_t rss_anon, rss_file, rss_shmem, rss_peak; /* guarded by pt_lock */
	struct pma *reserve; /* guarded by pt_lock: lets a split succeed without memory */
	struct mm_hot hot[MM_HOT_MAX]; /* guarded by pt_lock, as the next two */
	unsigned hot_count;
	unsigned cow_faults; /* since the last fork */
	struct mutex pin_lock; /* LOCK_LEAF, inside pt_lock */
	LIST_HEAD(, mm_pin) pins; /* guarded by pin_lock */
	struct mm_reap last; /* while it ends */
};

extern struct ref_type mm_type;

static inline uint64_t page_down(uint64_t addr)
{
	return addr & MOAT_PAGE_MASK;
}

static inline uint64_t page_up(uint64_t addr)
{
	return (addr + MOAT_PAGE_SIZE - 1) & MOAT_PAGE_MASK;
}

/* x86 has no write-only or execute-only pages. */
static inline unsigned prot_access(unsigned prot)
{
	return prot ? prot | MEM_READ : 0;
}

static inline bool vma_is_data(unsigned prot, unsigned flags)
{
	return (prot & PROT_WRITE) && !(flags & (VMA_SHARED | VMA_STACK));
}

/* ---- vma.c: all with vma_lock held; changes need it for writing ---- */

struct vma *vma_find(struct mm *mm, uint64_t addr); /* contains addr, or NULL */
struct vma *vma_find_next(struct mm *mm, uint64_t addr); /* the first with end > addr */
struct vma *vma_next(struct vma *vma);
struct vma *vma_prev(struct vma *vma);
struct vma *vma_first(struct mm *mm);
/* Registers with the mappable and inserts; counts. Takes the VMA's references. Return: 0, -EPERM (seals). */
must_check int vma_insert(struct mm *mm, struct vma *vma);
/* As vma_insert() for fork's child. */
void vma_insert_copy(struct mm *mm, struct vma *parent, struct vma *vma);
/* The tree alone, for a mapping that is registered already. */
void vma_link(struct mm *mm, struct vma *vma);
/* Unregisters and removes; the memory goes with the reap list. Translations are the caller's. */
void vma_remove(struct mm *mm, struct vma *vma, struct mm_reap *reap);
/* vma becomes [start, at); *ret_upper the rest. Return: 0, -ENOMEM. */
must_check int vma_split(struct mm *mm, struct vma *vma, uint64_t at, struct vma **ret_upper);
/* Splits so that no VMA crosses start or end. */
must_check int vma_split_range(struct mm *mm, uint64_t start, uint64_t end);
/* Is any of it sealed? Pre: vma_lock. */
bool mm_sealed(struct mm *mm, uint64_t start, uint64_t end);
/* Joins vma with its neighbours where they are alike. Return: the VMA that covers it now. */
struct vma *vma_merge(struct mm *mm, struct vma *vma, struct mm_reap *reap);
/* Moves an edge of an anonymous or registered VMA over free space. */
void vma_set_range(struct mm *mm, struct vma *vma, uint64_t start, uint64_t end);
void vma_set_prot(struct mm *mm, struct vma *vma, unsigned prot, unsigned flags);
/* Highest free [*ret, + size) below `high`, at or above `low`. Return: 0, -ENOMEM. */
/* Does it meet the range that the platform keeps for itself? Nothing can be mapped there. */
static inline bool mm_reserved(const struct mm *mm, uint64_t addr, uint64_t size)
{
	const struct platform *p = mm->platform;

	return addr < p->reserved_start + p->reserved_size && addr + size > p->reserved_start;
}
must_check int vma_find_gap(struct mm *mm, uint64_t size, uint64_t low, uint64_t high,
			    uint64_t align, uint64_t *ret_addr);
/* Is [start, end) mapped without a hole? */
bool vma_covers(struct mm *mm, uint64_t start, uint64_t end);
struct vma *vma_alloc(void);
/* Unlinks [start, end) from everything: VMAs and translations. Return: 0, -ENOMEM. */
must_check int mm_unmap_locked(struct mm *mm, uint64_t start, uint64_t end, struct mm_reap *reap);
uint64_t mm_overlap_bytes(struct mm *mm, uint64_t start, uint64_t end);

/* ---- pma.c: all with pt_lock held for writing unless said otherwise ---- */

struct pma *pma_find(struct mm *mm, uint64_t addr); /* pt_lock read suffices */
struct pma *pma_find_next(struct mm *mm, uint64_t addr); /* the first with end > addr */
struct pma *pma_floor(struct mm *mm, uint64_t addr); /* the last with start <= addr */
struct pma *pma_next(struct pma *pma);
struct pma *pma_prev(struct pma *pma);
struct pma *pma_new(struct mm *mm); /* NULL: no memory */
void pma_insert(struct mm *mm, struct pma *pma); /* takes its chunk references */
/* Off the tree and onto the reap list; the platform's translations are the caller's. */
void pma_remove(struct mm *mm, struct pma *pma, struct mm_reap *reap);
/* Cannot fail: falls back on the reserve, which holds two. */
struct pma *pma_split(struct mm *mm, struct pma *pma, uint64_t at);
/* Fills the reserve. Return: 0, -ENOMEM. Call before splitting at two edges. */
must_check int pma_reserve(struct mm *mm);
/* Joins pma with neighbours that continue it. Return: the one that covers it now. */
struct pma *pma_merge(struct mm *mm, struct pma *pma);
/* What a VMA's protection leaves of the translation. Recomputes access from a VMA's protection. */
unsigned pma_calc_access(const struct pma *pma, unsigned prot);
/* Removes [start, end) from tree and platform. keep_own: only translations of files' own pages. */
void pma_drop_range(struct mm *mm, uint64_t start, uint64_t end, bool keep_own,
		    struct mm_reap *reap);
/* Installs what is there in [start, end) into the platform, with more PLATFORM_MAP_* flags. Return: of the piece with `need`: 0, -ENOMEM, -EFAULT. */
must_check int pma_map_range(struct mm *mm, uint64_t start, uint64_t end, uint64_t need,
			     unsigned flags);
/* Does that install only pages that exist, and the one with `need`? (mem_exact) */
bool pma_maps_existing(const struct mm *mm, const struct pma *pma);
/*
 * Makes the page at addr writable: copies its group, or takes the chunk as it is if it is ours alone.
 * The platform still has the old translations. Return: 0 and the range to map again; -ENOMEM; -EFAULT (SIGBUS).
 */
must_check int pma_break_cow(struct mm *mm, struct vma *vma, uint64_t addr, struct mm_reap *reap,
			     uint64_t *ret_start, uint64_t *ret_end);

/* Copies whole pages of private memory, but for those that do not exist, which read as zeros. Return: 0, -ENOMEM. */
must_check int pma_copy_private(char *dst, const char *src, uint64_t size);

void mm_reap_init(struct mm_reap *reap);
/* No locks held. */
void mm_reap_run(struct mm_reap *reap);

/* ---- fault.c ---- */

enum {
	FAULT_FORCE = 1 << 0, /* a debugger: the VMA's protection does not matter, max_prot does */
	FAULT_NO_POPULATE = 1 << 1, /* fail rather than wait for a file's data */
};
/* mm_over_limit(), if somebody is over his limit. No locks held. Return: 0, -EINTR: the calling task is to die. */
must_check int mm_relieve(void);
/*
 * Installs what is there or cheap to make in [addr, addr + size), which the application is about to touch: a call saved is
 * an exit saved. `write`: as for writing. Best effort; no locks held.
 */
void mm_prefault(struct mm *mm, uint64_t addr, uint64_t size, bool write);
must_check int mm_fault_flags(struct mm *mm, uint64_t addr, unsigned access, unsigned flags,
			      int *ret_signo, int *ret_sicode);

#endif
