/*
 * mem/memfile.h - memory files: where every guest-visible byte lives.
 *
 * A page is (memory file, offset), never a bare offset. Kinds:
 *   MEMFILE_PRIVATE  a sparse memfd: anonymous memory, memfs contents, copy-on-write copies. Mapped once
 *                    in the sentry, shared, whole: offset <-> pointer is arithmetic.
 *   MEMFILE_HOST     a host file by a donated descriptor; mapped piecewise into the sandbox's one
 *                    `mem window` (a reserved PROT_NONE range) as ranges are referenced.
 *
 * Reference counts are per chunk (MEM_CHUNK_SIZE, naturally aligned). A holder of a range (a
 * translation in an mm, a file's page cache, an I/O in flight) holds one reference on every chunk that its range
 * overlaps; splitting a range adds one on the chunk that straddles the split. So fork costs one
 * increment a chunk, and a chunk whose count is one is exclusively its holder's (copy-on-write in place).
 * A private chunk whose count drops to zero is punched out of the memfd and may be allocated again after an RCU
 * grace period: sentry code may read guest memory through a pointer under rcu_read_begin() without
 * a reference. A host chunk at zero keeps its mapping (bounded LRU) until the window or the file needs it back.
 *
 * Fresh private memory reads as zeros. Locks: LOCK_MEMFILE, a leaf but for LOCK_LEAF.
 */
#ifndef MOAT_MEM_MEMFILE_H
#define MOAT_MEM_MEMFILE_H

#include "base/compiler.h"
#include "base/ref.h"

#define MEM_CHUNK_SHIFT 16
#define MEM_CHUNK_SIZE (1ul << MEM_CHUNK_SHIFT)

/* Virtual size of the private memory file and of the window; both sparse. */
#if defined(__SANITIZE_THREAD__)
#define MEM_SMALL_SPACE
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define MEM_SMALL_SPACE /* TSan leaves no free TiB */
#endif
#endif
#ifdef MEM_SMALL_SPACE
#define MEMFILE_PRIVATE_MAX (1ul << 37)
#define MEM_WINDOW_SIZE (1ul << 36)
#else
#define MEMFILE_PRIVATE_MAX (1ul << 40)
#define MEM_WINDOW_SIZE (1ul << 38)
#endif
/* Host files are mapped in aligned spans of this size, as far as they reach: translate() need not answer with less. */
#define MEM_HOST_SPAN (2ul << 20)
#define MEMFILE_HOST_MAX 16384 /* host memory files mapped at once */

/* What may be done with memory; also mmap's PROT_* values. */
enum mem_access { MEM_READ = 1, MEM_WRITE = 2, MEM_EXEC = 4 };

enum memfile_kind { MEMFILE_PRIVATE, MEMFILE_HOST };

struct memfile;

struct mem_stats {
	uint64_t private_bytes; /* allocated chunks; pages never touched are counted too */
	uint64_t private_free_pending;
	uint64_t window_bytes;
	uint64_t limit_bytes;
};

/*
 * mem_init - the process's private memory file and window, once at boot. `limit` bounds allocated
 * private bytes (0: none): memfile_alloc() answers -ENOMEM past it.
 */
must_check int mem_init(uint64_t limit);
/* Another limit; and how much there is in all, by somebody else's limit, of which a part may be kept warm (0: no limit). */
void mem_set_limit(uint64_t limit, uint64_t total);
/*
 * What is freed goes back to the host after a grace period, milliseconds later, while others take new memory: a container whose programs come and go would be over
 * its limit with what nobody has any more. So who allocates while there is little left and much under way (mem_hurried, of the calling thread) is to wait for that,
 * later, without locks: until it is less, or the deadline.
 */
extern _Thread_local bool mem_hurried;
void mem_wait_drained(int64_t deadline_ns);
/*
 * Little is left of what the host lets us have: whoever maps memory ahead of its use maps less of it, and nothing is kept warm. What is warm now goes back to the host.
 */
void mem_set_tight(bool tight);
extern _Atomic bool mem_tight;
/*
 * More is allocated than can be touched without care for what the host lets us have: nothing of private memory that does not exist is mapped for the application, which
 * would touch it without anybody's knowledge. Set by who looks at an account whose limit is somebody else's (mem_account_set_soft()), and what is mapped
 * already is theirs to take away; it ends with the account's mark at its limit again: it is below that by the step of the last look, or has another limit.
 */
extern _Atomic bool mem_exact;
/*
 * Takes the sentry's mapping of private memory away, which comes back page by page: what counts is how many pages a process maps, and where the platform has mappings of
 * its own (kvm) the sentry would have up to twice what there is.
 */
void mem_private_unmap(void);
/* The same of what the window shows of host files, where that is not much: for a sandbox that does nothing. Guests' mappings of it, which follow on kvm, come back as well. */
void mem_window_unmap(void);
/* Bytes of private memory that exist on the host: fstat(2). */
uint64_t mem_private_resident(void);
struct memfile *mem_private(void); /* borrowed; lives as long as the process */
/* The window's host range: [base, base + MEM_WINDOW_SIZE). */
void *mem_window_base(void);
void mem_get_stats(struct mem_stats *ret_stats);

/*
 * Accounts (account.c): whose the private memory is. What a thread allocates is charged to the account it has entered until it is free. NULL: none, of which
 * only mem_account_enter() and mem_account_destroy() may be told.
 */
#define MEM_ACCOUNTS_MAX 256
struct mem_account;
/* NULL: all are in use. An account that is destroyed is used again when nothing is charged to it. */
struct mem_account *mem_account_create(void);
void mem_account_destroy(struct mem_account *a);
void mem_account_enter(struct mem_account *a); /* the calling thread */
/*
 * The account is over as soon as more than its mark is charged to it, and stays so until it is told the next one: its limit (UINT64_MAX: none), or `bytes` more
 * than it had when the caller began to look (held) or has now, whichever is less, if that is above the limit. mem_accounts_over counts those that are: one load tells that there is nothing to do. Until it is told
 * it gets MEM_ACCOUNT_OVERDRAFT beyond the mark, and then -ENOMEM.
 */
#define MEM_ACCOUNT_OVERDRAFT (64ul << 20)
void mem_account_limit(struct mem_account *a, uint64_t bytes);
void mem_account_look_after(struct mem_account *a, uint64_t held, uint64_t bytes);
/* While mem_exact: a page of what the calling thread's account holds comes to exist. As many as `bytes` of the last look are free. */
void mem_account_page(void);
bool mem_account_is_over(struct mem_account *a);
/* Its limit is somebody else's to keep: the mark only tells that it is time to look, and nothing is refused. */
void mem_account_set_soft(struct mem_account *a);
extern _Atomic unsigned mem_accounts_over;
uint64_t mem_account_bytes(struct mem_account *a); /* by whole chunks, touched or not */
uint64_t mem_account_resident(struct mem_account *a); /* by the host's pages: slow */

/* Takes `fd` (a regular file); `access` is what mappings of it may have at most. Returns a reference. */
must_check int memfile_create_host(int fd, unsigned access, struct memfile **ret_mf);
/*
 * A host file of the sandbox's own, of at least `size` sparse bytes, to be shared with one other process by memfile_fd(): memfile_alloc() and chunk
 * references work on it as on private memory, and it is mapped whole. Return: 0 and a reference, -ENOMEM, -errno.
 */
must_check int memfile_create_shared(uint64_t size, struct memfile **ret_mf);
void memfile_ref(struct memfile *mf);
void memfile_unref(struct memfile *mf);
enum memfile_kind memfile_kind(const struct memfile *mf);
int memfile_fd(const struct memfile *mf); /* borrowed */
unsigned memfile_max_access(const struct memfile *mf);

enum {
	MEMFILE_ALLOC_ALIGN_2M = 1 << 0, /* a hint */
};

/*
 * memfile_alloc - [*ret_off, + size) of zeroed private memory, chunk-aligned; size is rounded up to chunks.
 * The caller gets one reference on each chunk. Prefers to continue where `near` (an offset, or 0) ends.
 * Return: 0, -ENOMEM past the limit.
 */
must_check int memfile_alloc(struct memfile *mf, uint64_t size, unsigned flags, uint64_t near,
			     uint64_t *ret_off);

/* The same; *ret_warm: its pages exist already, most of them: to touch them all makes next to no memory. */
must_check int memfile_alloc_warm(struct memfile *mf, uint64_t size, unsigned flags, uint64_t near,
				  uint64_t *ret_off, bool *ret_warm);

/*
 * memfile_range_ref - one reference on every chunk overlapping [off, off + size).
 * A host file's range is mapped into the window first, which can fail: -ENOMEM, -ENFILE.
 * On a private file it cannot fail (the caller holds a reference or the owner's lock).
 */
must_check int memfile_range_ref(struct memfile *mf, uint64_t off, uint64_t size);
void memfile_range_unref(struct memfile *mf, uint64_t off, uint64_t size);
/* True if every chunk of the private range has exactly one reference: the caller's. */
bool memfile_range_exclusive(struct memfile *mf, uint64_t off, uint64_t size);
/*
 * Makes the pages of a fresh private range exist, which nobody has touched yet: about half the price of touching each. A hint: what
 * the host has no memory for is made, or fails, when it is touched.
 */
void memfile_commit(struct memfile *mf, uint64_t off, uint64_t size);
/*
 * Is there data in the range of the private file? What mincore(2) calls absent may be in the host's swap; only a hole is
 * zeros. Errors say yes.
 */
bool memfile_private_has_data(uint64_t off, uint64_t size);
/* Gives whole pages of an exclusively held private range back to the host; they read as zeros. */
void memfile_decommit(struct memfile *mf, uint64_t off, uint64_t size);

/*
 * memfile_ptr - the sentry's address of `off`, valid while a reference is held (or in the RCU section in
 * which one was seen held). A host range is contiguous only within a MEM_CHUNK_SIZE... use memfile_ptr_len().
 */
void *memfile_ptr(struct memfile *mf, uint64_t off);
/* Bytes from `off` on that are contiguous at memfile_ptr(). */
uint64_t memfile_ptr_len(struct memfile *mf, uint64_t off, uint64_t size);

#endif
