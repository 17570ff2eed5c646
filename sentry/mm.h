/*
 * sentry/mm.h - an application's address space: VMAs, translations, faults, copies.
 *
 * struct mm is shared by the tasks of one address space. VMAs say what should be where; translations
 * ("pmas") say which memory-file pages are there now; the platform's address space holds a subset of them.
 *
 * Lock order: vma_lock (LOCK_MM_VMA, rwlock) -> mappable data_lock (LOCK_FILE_DATA) -> pt_lock (LOCK_MM_PT,
 * rwlock) -> the platform. User copies take vma_lock only when a page must be faulted in; never across the copy.
 * No caller holds LOCK_FS_* or any lock ranked >= LOCK_MM_FORK when it calls a function here that may fault.
 */
#ifndef MOAT_SENTRY_MM_H
#define MOAT_SENTRY_MM_H

#include "base/ref.h"
#include "mem/io_iter.h"
#include "mem/mappable.h"
#include "platform/platform.h"

struct file;
struct mm;
struct cred;

/* What mmap and the loader ask for. */
struct mm_map_args {
	uint64_t addr; /* hint, or exact with fixed */
	uint64_t size; /* rounded up to pages */
	unsigned prot; /* PROT_* */
	unsigned max_prot; /* what mprotect may grant */
	bool fixed, fixed_noreplace, shared, grows_down, stack, locked, noreserve, populate,
		huge_align;
	struct mappable *mappable; /* NULL: anonymous private; borrowed */
	uint64_t off; /* in the mappable */
	struct file *file; /* for /proc/PID/maps; borrowed, may be NULL */
	const char *name; /* "[heap]", "[stack]", "[vdso]"; static string or NULL */
};

/* Limits that come from rlimits; the caller reads them from its thread group. */
struct mm_limits {
	uint64_t as_bytes, data_bytes, stack_bytes, memlock_bytes;
};

/* vm.max_map_count: at first the host's, and what root makes of it; never more than MM_VMAS_MAX, which is memory of the sentry. */
#define MM_VMAS_DEFAULT 65530
#define MM_VMAS_MAX (1 << 20)
extern _Atomic int64_t mm_max_map_count;
/* Is there room for no other? As in Linux a mapping may be one beyond the limit, a piece of one may not. The mm's lock held. */
bool mm_vmas_full(const struct mm *mm, bool piece);

must_check int mm_create(struct platform *p, struct mm **ret_mm);
must_check int mm_fork(struct mm *parent, struct mm **ret_child);
void mm_ref(struct mm *mm);
void mm_unref(struct mm *mm);
/*
 * Of the references those of tasks that run in it; mm_create() and mm_fork() give the first. With the last one the program that
 * runs may be written to again, whoever else still looks at the mm.
 */
void mm_user_ref(struct mm *mm);
void mm_user_unref(struct mm *mm);
/* The AIO contexts of the address space, for sentry/aio.c: NULL until the first is set; what another thread set first wins. */
void *mm_get_aio(struct mm *mm);
void *mm_set_aio(struct mm *mm, void *aio);
extern void (*mm_aio_drop)(void *aio); /* with the last reference to the mm */
struct address_space *mm_address_space(struct mm *mm);

/* mmap(2) and kin. Return 0 (or an address in *ret_addr) or Linux's errno. */
must_check int mm_map(struct mm *mm, const struct mm_map_args *args, const struct mm_limits *lim,
		      uint64_t *ret_addr);
must_check int mm_unmap(struct mm *mm, uint64_t addr, uint64_t size);
/* shmdt(2): unmaps what is left of the mapping at addr of a mappable with these ops. Return: 0, -EINVAL if there is none. */
must_check int mm_detach(struct mm *mm, uint64_t addr, const struct mappable_ops *ops);
must_check int mm_protect(struct mm *mm, uint64_t addr, uint64_t size, unsigned prot,
			  bool grows_down, const struct mm_limits *lim);
must_check int mm_remap(struct mm *mm, uint64_t old_addr, uint64_t old_size, uint64_t new_size,
			unsigned flags, uint64_t new_addr, const struct mm_limits *lim,
			uint64_t *ret_addr);
/* remap_file_pages(2), by mapping anew: size a multiple of pages, not 0. Return: 0, -EINVAL (no shared mapping there), as mm_map(). */
must_check int mm_remap_file_pages(struct mm *mm, uint64_t start, uint64_t size, uint64_t off,
				   bool populate, const struct mm_limits *lim);
/* mseal(2). Return: 0, -EINVAL, -ENOMEM (a hole; nothing is sealed then). Afterwards changes of the mappings are -EPERM. */
must_check int mm_seal(struct mm *mm, uint64_t addr, uint64_t size);
must_check int mm_advise(struct mm *mm, uint64_t addr, uint64_t size, int advice);
must_check int mm_sync(struct mm *mm, uint64_t addr, uint64_t size, int flags);
must_check int mm_brk(struct mm *mm, uint64_t brk, const struct mm_limits *lim, uint64_t *ret_brk);
must_check int mm_lock(struct mm *mm, uint64_t addr, uint64_t size, unsigned flags, bool lock,
		       const struct mm_limits *lim);
must_check int mm_lock_all(struct mm *mm, unsigned flags, bool lock, const struct mm_limits *lim);
must_check int mm_mincore(struct mm *mm, uint64_t addr, uint64_t size, uint64_t uvec);
must_check int mm_populate(struct mm *mm, uint64_t addr, uint64_t size);

/* Takes away what is mapped of private memory: while mem_exact, only what exists of it comes back with each fault. On platforms that map pages. No locks held. */
void mm_unmap_ahead(struct mm *mm);

/*
 * Whoever takes memory in the middle of a system call, while some account is over its mark (mem_accounts_over), calls this first, without locks. NULL: nobody.
 * Return: 0, -EINTR: the calling task is to die.
 */
extern int (*mm_over_limit)(void);
/*
 * mm_fault - the application (or a copy) touched addr.
 * Return: 0 (mapped: run again), -EFAULT (SIGSEGV: *ret_sicode SEGV_MAPERR or SEGV_ACCERR; or SIGBUS when
 * *ret_signo says so: BUS_ADRERR), -ENOMEM (the task is killed), -EINTR (a populate was interrupted by a fatal signal).
 */
must_check int mm_fault(struct mm *mm, uint64_t addr, unsigned access, int *ret_signo,
			int *ret_sicode);

/* Copies from and to guest memory. Each byte is read once. Return: 0 or -EFAULT. */
must_check int mm_copy_in(struct mm *mm, void *dst, uint64_t addr, size_t size);
must_check int mm_copy_out(struct mm *mm, uint64_t addr, const void *src, size_t size);
must_check int mm_zero_out(struct mm *mm, uint64_t addr, size_t size);
/* As many bytes as are there; return bytes done (0..size). */
size_t mm_copy_in_partial(struct mm *mm, void *dst, uint64_t addr, size_t size);
size_t mm_copy_out_partial(struct mm *mm, uint64_t addr, const void *src, size_t size);
/* A NUL-terminated string of at most size-1 bytes. Return: its length, -EFAULT, -ENAMETOOLONG. */
must_check ssize_t mm_copy_in_string(struct mm *mm, char *dst, uint64_t addr, size_t size);
/* ptrace and /proc/PID/mem: ignores VMA protections that a debugger may override. */
size_t mm_access_remote(struct mm *mm, uint64_t addr, void *buf, size_t size, bool write);
/* process_vm_readv, process_vm_writev: what the process itself might do there. Return: bytes done. */
size_t mm_copy_remote(struct mm *mm, uint64_t addr, void *buf, size_t size, bool write);

/* Futexes, robust lists. addr is aligned. Return 0, -EFAULT, -EAGAIN. */
must_check int mm_load_u32(struct mm *mm, uint64_t addr, uint32_t *ret_val);
must_check int mm_cmpxchg_u32(struct mm *mm, uint64_t addr, uint32_t *inout_expected,
			      uint32_t desired);

/* What a futex at addr is keyed by. Private: (mm, addr). Shared: (memory file, offset) of the page, or (mappable, offset). */
struct futex_key {
	uint64_t a, b;
	uint32_t off; /* in the page */
	struct mm *mm; /* borrowed: private keys */
	struct mappable *mappable; /* a reference is held by the key */
};
must_check int mm_futex_key(struct mm *mm, uint64_t addr, bool shared, bool write,
			    struct futex_key *ret_key);
void futex_key_fini(struct futex_key *key);

/* The guest's iovec array (already copied in) as an iterator; the array outlives it. is_dest: read(2). */
void mm_iter_init(struct mm *mm, struct io_iter *it, const struct iovec *uiov, unsigned count,
		  bool is_dest);
/* One range; uses inline storage in `one`. */
void mm_iter_init_one(struct mm *mm, struct io_iter *it, struct iovec *one, uint64_t addr,
		      uint64_t size, bool is_dest);

/* exec's layout and prctl(PR_SET_MM): plain words, guarded by vma_lock. */
struct mm_layout {
	uint64_t start_code, end_code, start_data, end_data, start_brk, brk, start_stack;
	uint64_t arg_start, arg_end, env_start, env_end, mmap_base, vdso;
	uint64_t auxv[64];
	unsigned auxv_count; /* words */
};
void mm_get_layout(struct mm *mm, struct mm_layout *ret);
void mm_set_layout(struct mm *mm, const struct mm_layout *layout);
/* RLIMIT_STACK as stack growth sees it: exec and setrlimit set it. 8 MiB at first. */
void mm_set_stack_limit(struct mm *mm, uint64_t bytes);
struct file *mm_get_exe(struct mm *mm); /* returns a reference or NULL */
void mm_set_exe(struct mm *mm, struct file *exe);

struct mm_usage {
	uint64_t vm_bytes, vm_peak, rss_anon, rss_file, rss_shmem, rss_peak, data_bytes,
		stack_bytes, exec_bytes, locked_bytes;
	unsigned vmas;
};
void mm_get_usage(struct mm *mm, struct mm_usage *ret);
/* /proc/PID/maps rows, in address order. emit may not sleep on anything the mm holds; return nonzero to stop. */
struct mm_vma_info {
	uint64_t start, end, off;
	uint64_t rss, rss_anon; /* rss_anon: of these what is no file's page (any more) */
	unsigned prot, max_prot;
	bool shared, grows_down, locked;
	const char *name;
	struct file *file; /* borrowed for the call */
};
int mm_for_each_vma(struct mm *mm, uint64_t from,
		    int (*emit)(void *arg, const struct mm_vma_info *info), void *arg);

/* Memory without a file that several address spaces may share, zero at first; size: pages. Returns a reference. */
must_check int mm_shared_memory_create(uint64_t size, struct mappable **ret);
uint64_t mm_shared_memory_resident(struct mappable *m); /* bytes that were touched, by chunks */

/* MemTotal as the sandbox sees it: its limit, where it has one. */
uint64_t mm_total_bytes(void);
void mm_set_total_bytes(uint64_t bytes);
/* Overcommit policy 0 (heuristic): a mapping of more than the machine has is refused, whatever the limit: Linux asks no cgroup. 4 GiB before it is set. */
uint64_t mm_overcommit_bytes(void);
void mm_set_overcommit_bytes(uint64_t bytes);

#endif
