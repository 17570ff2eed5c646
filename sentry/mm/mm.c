/*
 * sentry/mm/mm.c - an application's address space; sentry/mm.h is the manual, internal.h the map.
 *
 * Organised: two trees. VMAs (vma.c) say what should be where; they change under vma_lock. Translations
 * ("pmas", pma.c) say which memory-file pages are there now; they change under pt_lock, and are a cache
 * for files (dropped by truncate, made again by a fault) but the only holder of anonymous memory. The
 * platform's page tables hold a subset of the translations. map.c, remap.c, protect.c and advise.c are the
 * system calls, fault.c makes translations, fork.c copies them, copy.c and iter.c move bytes through
 * them, without the platform: a copy to a page that the application never touched costs no exit.
 *
 * Performs: an exit from the application costs 22 us on a machine that emulates ring 0, so a fault
 * maps much more than a page: anonymous extents of 64 KiB that double up to 2 MiB while faults are
 * sequential, files in windows of the same kind, small or executable file mappings at once, writable
 * at once where nobody shares. Fork is O(VMAs + pmas + chunks). A copy from or to mapped memory is one
 * tree look-up under pt_lock (read), no allocation, no VMA.
 * Untouched memory costs nothing anywhere, whatever its size.
 *
 * Watch: /proc/PID/maps and status through mm_for_each_vma() and mm_get_usage(); live objects by ref_report().
 *
 * Cannot do: swap, KSM, huge pages as such (a 2 MiB extent is one platform mapping, no more),
 * userfaultfd, protection keys. rss counts translated memory, touched or not.
 */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "sentry/mm/internal.h"
#include "vfs/write_access.h"

REF_TYPE(mm_type, "mm");

static _Atomic uint64_t total_bytes = 4ul << 30, overcommit_bytes = 4ul << 30;

uint64_t mm_total_bytes(void)
{
	return atomic_load_explicit(&total_bytes, memory_order_relaxed);
}

void mm_set_total_bytes(uint64_t bytes)
{
	atomic_store_explicit(&total_bytes, bytes, memory_order_relaxed);
}

uint64_t mm_overcommit_bytes(void)
{
	return atomic_load_explicit(&overcommit_bytes, memory_order_relaxed);
}

void mm_set_overcommit_bytes(uint64_t bytes)
{
	atomic_store_explicit(&overcommit_bytes, bytes, memory_order_relaxed);
}

/* Truncate or a change of mode of a file: under its data_lock. */
static void mm_invalidate(struct mapping_space *space, uint64_t addr, uint64_t size,
			  bool private_too)
{
	struct mm *mm = container_of(space, struct mm, space);
	struct mm_reap reap;
	struct pma *pma;

	mm_reap_init(&reap);
	rwlock_write_lock(&mm->pt_lock);
	if (pma_reserve(mm))
		log_debug("mm: out of memory; the split reserve is in use");
	pma_drop_range(mm, addr, addr + size, !private_too, &reap);
	rwlock_write_unlock(&mm->pt_lock);
	while ((pma = reap.pmas)) {
		/* The file's owner holds the file: no last reference of it is dropped here. */
		reap.pmas = pma->reap_next;
		memfile_range_unref(pma->mf, pma->off, pma->end - pma->start);
		free(pma);
	}
}

static const struct mapping_space_ops mm_space_ops = {.invalidate = mm_invalidate};

int mm_create(struct platform *p, struct mm **ret_mm)
{
	struct mm *mm = calloc(1, sizeof(*mm));
	int err;

	if (!mm)
		return -ENOMEM;
	err = p->ops->as_create(p, &mm->as);
	if (err) {
		free(mm);
		return err;
	}
	ref_init(&mm->ref, &mm_type);
	atomic_init(&mm->users, 1);
	mm->platform = p;
	mm->space.ops = &mm_space_ops;
	rwlock_init(&mm->vma_lock, LOCK_MM_VMA, "mm vma");
	rwlock_init(&mm->pt_lock, LOCK_MM_PT, "mm translations");
	RB_INIT(&mm->vmas);
	RB_INIT(&mm->pmas);
	mutex_init(&mm->pin_lock, LOCK_LEAF, "mm pins");
	LIST_INIT(&mm->pins);
	atomic_init(&mm->stack_limit, 8ul << 20);
	mm->layout.mmap_base = ARCH_TASK_SIZE - (128ul << 20);
	*ret_mm = mm;
	return 0;
}

void mm_ref(struct mm *mm)
{
	ref_get(&mm->ref);
}

static void exe_put(struct file *exe, bool denies)
{
	if (denies)
		vfs_allow_write(exe);
	if (exe)
		file_unref(exe);
}

/* Nothing of the application's can reach its memory any more. Any thread. */
static void mm_free(void *arg)
{
	struct mm *mm = arg;
	struct pma *pma;

	while ((pma = mm->last.pmas)) {
		mm->last.pmas = pma->reap_next;
		memfile_range_unref(pma->mf, pma->off, pma->end - pma->start);
		memfile_unref(pma->mf);
		free(pma);
	}
	free(mm);
}

/*
 * Nobody runs in it, but on a platform whose threads are the host's a hostile one may run on until its process is dead. What
 * others could see of that ends before their files' counts say that it cannot be: F_SEAL_WRITE's promise.
 */
static void mm_cut_off(struct mm *mm)
{
	struct vma *vma = mm->platform->app_elsewhere ? vma_first(mm) : NULL;

	for (; vma; vma = vma_next(vma))
		if (vma->mappable && vma->map.writable_shared) {
			mm->platform->ops->as_clear(mm->as);
			return;
		}
}

/*
 * The files are let go before this returns: who waits for the process finds them so. The memory of a small one may follow a moment
 * later, when its address space has ended; by then the application can reach none that files count as mapped and writable.
 */
static void mm_destroy(struct mm *mm)
{
	struct mm_reap reap;
	struct file *exe;
	struct vma *vma;
	struct pma *pma;
	bool late, denies;

	if (atomic_load_explicit(&mm->aio, memory_order_acquire))
		mm_aio_drop(mm->aio);
	mm_reap_init(&reap);
	mm_reap_init(&mm->last);
	/* Unregister first: from then on no truncate looks in here. */
	rwlock_write_lock(&mm->vma_lock);
	mm_cut_off(mm);
	while ((vma = vma_first(mm)))
		vma_remove(mm, vma, &reap);
	rwlock_write_unlock(&mm->vma_lock);
	rwlock_write_lock(&mm->pt_lock);
	late = mm->rss_anon + mm->rss_shmem + mm->rss_file <=
	       MIN(MM_LATE_MAX, mm_total_bytes() / MM_LATE_SHARE);
	while ((pma = pma_find_next(mm, 0))) {
		pma_remove(mm, pma, &mm->last);
		/* Its file may be closed before. */
		memfile_ref(pma->mf);
	}
	while ((pma = mm->reserve)) {
		mm->reserve = pma->reap_next;
		free(pma);
	}
	assert(LIST_EMPTY(&mm->pins));
	rwlock_write_unlock(&mm->pt_lock);
	ref_fini(&mm->ref, &mm_type);
	exe = mm->exe;
	denies = mm->exe_denies;
	if (late) {
		platform_as_retire(mm->platform, mm->as, mm_free, mm);
	} else {
		mm->platform->ops->as_destroy(mm->as);
		mm_free(mm);
	}
	mm_reap_run(&reap);
	exe_put(exe, denies);
}

void mm_unref(struct mm *mm)
{
	if (ref_put(&mm->ref))
		mm_destroy(mm);
}

void (*mm_aio_drop)(void *aio);

void *mm_get_aio(struct mm *mm)
{
	return atomic_load_explicit(&mm->aio, memory_order_acquire);
}

void *mm_set_aio(struct mm *mm, void *aio)
{
	void *none = NULL;

	return atomic_compare_exchange_strong_explicit(&mm->aio, &none, aio, memory_order_acq_rel,
						       memory_order_acquire)
		       ? aio
		       : none;
}

struct address_space *mm_address_space(struct mm *mm)
{
	return mm->as;
}

void mm_get_layout(struct mm *mm, struct mm_layout *ret)
{
	rwlock_read_lock(&mm->vma_lock);
	*ret = mm->layout;
	rwlock_read_unlock(&mm->vma_lock);
}

void mm_set_layout(struct mm *mm, const struct mm_layout *layout)
{
	rwlock_write_lock(&mm->vma_lock);
	mm->layout = *layout;
	rwlock_write_unlock(&mm->vma_lock);
}

void mm_set_stack_limit(struct mm *mm, uint64_t bytes)
{
	atomic_store_explicit(&mm->stack_limit, bytes, memory_order_relaxed);
}

struct file *mm_get_exe(struct mm *mm)
{
	struct file *exe;

	rwlock_read_lock(&mm->vma_lock);
	exe = mm->exe ? file_ref(mm->exe) : NULL;
	rwlock_read_unlock(&mm->vma_lock);
	return exe;
}

void mm_set_exe(struct mm *mm, struct file *exe)
{
	bool denies = exe && vfs_deny_write_again(exe), old_denies;
	struct file *old;

	if (exe)
		file_ref(exe);
	rwlock_write_lock(&mm->vma_lock);
	old = mm->exe;
	old_denies = mm->exe_denies;
	mm->exe = exe;
	mm->exe_denies = denies;
	rwlock_write_unlock(&mm->vma_lock);
	exe_put(old, old_denies);
}

void mm_user_ref(struct mm *mm)
{
	atomic_fetch_add(&mm->users, 1);
	mm_ref(mm);
}

void mm_user_unref(struct mm *mm)
{
	if (atomic_fetch_sub(&mm->users, 1) == 1)
		mm_set_exe(mm, NULL);
	mm_unref(mm);
}

void mm_get_usage(struct mm *mm, struct mm_usage *ret)
{
	rwlock_read_lock(&mm->vma_lock);
	ret->vm_bytes = mm->vm_bytes;
	ret->vm_peak = mm->vm_peak;
	ret->data_bytes = mm->data_bytes;
	ret->stack_bytes = mm->stack_bytes;
	ret->exec_bytes = mm->exec_bytes;
	ret->locked_bytes = mm->locked_bytes;
	ret->vmas = mm->vma_count;
	rwlock_read_lock(&mm->pt_lock);
	ret->rss_anon = mm->rss_anon;
	ret->rss_file = mm->rss_file;
	ret->rss_shmem = mm->rss_shmem;
	ret->rss_peak = mm->rss_peak;
	rwlock_read_unlock(&mm->pt_lock);
	rwlock_read_unlock(&mm->vma_lock);
}

static void vma_rss(struct mm *mm, const struct vma *vma, struct mm_vma_info *ret)
{
	struct pma *pma = pma_find_next(mm, vma->start);

	for (; pma && pma->start < vma->end; pma = pma_next(pma)) {
		uint64_t size = MIN(pma->end, vma->end) - MAX(pma->start, vma->start);

		ret->rss += size;
		if (pma->flags & PMA_ANON)
			ret->rss_anon += size;
	}
}

#define FOR_EACH_BATCH 32

int mm_for_each_vma(struct mm *mm, uint64_t from,
		    int (*emit)(void *arg, const struct mm_vma_info *info), void *arg)
{
	struct mm_vma_info batch[FOR_EACH_BATCH];
	unsigned count, i;
	int stop = 0;

	/* emit() looks at paths and takes the VFS's locks, which rank below ours: never under them. */
	do {
		struct vma *vma;

		count = 0;
		rwlock_read_lock(&mm->vma_lock);
		rwlock_read_lock(&mm->pt_lock);
		vma = vma_find_next(mm, from);
		for (; vma && count < FOR_EACH_BATCH; vma = vma_next(vma)) {
			batch[count] = (struct mm_vma_info){
				.start = vma->start,
				.end = vma->end,
				.off = vma->off,
				.prot = vma->prot,
				.max_prot = vma->max_prot,
				.shared = vma->flags & VMA_SHARED,
				.grows_down = vma->flags & VMA_GROWS_DOWN,
				.locked = vma->flags & VMA_LOCKED,
				.name = vma->name,
				.file = vma->file ? file_ref(vma->file) : NULL,
			};
			vma_rss(mm, vma, &batch[count++]);
		}
		rwlock_read_unlock(&mm->pt_lock);
		rwlock_read_unlock(&mm->vma_lock);
		for (i = 0; i < count; i++) {
			from = batch[i].end;
			if (!stop)
				stop = emit(arg, &batch[i]);
			if (batch[i].file)
				file_unref(batch[i].file);
		}
	} while (count == FOR_EACH_BATCH && !stop);
	return stop;
}
