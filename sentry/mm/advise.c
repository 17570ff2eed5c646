/* sentry/mm/advise.c - madvise, msync, mincore. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "sentry/mm/internal.h"
#include "vfs/file.h"

/* Newer than the build machine's headers. */
#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE 101
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

/*
 * Up to this much of memory that nobody shares is emptied where it is: its translations stay, and
 * the next touch costs no exit. More is given up for good.
 */
#define DECOMMIT_MAX (4ul << 20)

/* MADV_DONTNEED on private memory: anonymous pages become zeros, copies become the file again. Pre: vma_lock. */
static int advise_drop(struct mm *mm, struct vma *vma, uint64_t start, uint64_t end,
		       struct mm_reap *reap)
{
	struct pma *pma;
	uint64_t pos = start;
	int err;

	rwlock_write_lock(&mm->pt_lock);
	err = pma_reserve(mm);
	if (err)
		goto out;
	if (vma->mappable || end - start > DECOMMIT_MAX) {
		pma_drop_range(mm, start, end, false, reap);
		goto out;
	}
	while ((pma = pma_find_next(mm, pos)) && pma->start < end) {
		uint64_t lo = MAX(pma->start, start), hi = MIN(pma->end, end);
		uint64_t off = pma->off + (lo - pma->start);

		pos = pma->end;
		if (memfile_range_exclusive(pma->mf, off, hi - lo)) {
			memfile_decommit(pma->mf, off, hi - lo);
			continue;
		}
		err = pma_reserve(mm);
		if (err)
			goto out;
		pma_drop_range(mm, lo, hi, false, reap);
	}
out:
	rwlock_write_unlock(&mm->pt_lock);
	return err;
}

/* MADV_REMOVE is fallocate's hole. No locks on entry; the VMA is looked at again by the caller. */
static int advise_remove(struct mm *mm, uint64_t start, uint64_t end)
{
	struct file *file = NULL;
	struct vma *vma;
	uint64_t off = 0;
	int err = 0;

	rwlock_read_lock(&mm->vma_lock);
	vma = vma_find(mm, start);
	if (!vma || vma->end < end) {
		err = -ENOMEM;
	} else if ((vma->flags & VMA_LOCKED) || !vma->file || !vma->mappable) {
		err = -EINVAL;
	} else if (!(vma->flags & VMA_SHARED) || !(vma->max_prot & PROT_WRITE)) {
		err = -EACCES;
	} else {
		file = file_ref(vma->file);
		off = vma->off + (start - vma->start);
	}
	rwlock_read_unlock(&mm->vma_lock);
	if (err)
		return err;
	err = file_fallocate(file, 0x03 /* FALLOC_FL_PUNCH_HOLE | KEEP_SIZE */, off, end - start);
	file_unref(file);
	return err;
}

/* Advice that sets or clears a flag of the VMA. Return: false if `advice` is none. */
static bool advice_flags(int advice, unsigned *ret_set, unsigned *ret_clear)
{
	static const struct {
		int advice;
		unsigned set, clear;
	} table[] = {
		{MADV_NORMAL, 0, VMA_SEQUENTIAL | VMA_RANDOM},
		{MADV_SEQUENTIAL, VMA_SEQUENTIAL, VMA_RANDOM},
		{MADV_RANDOM, VMA_RANDOM, VMA_SEQUENTIAL},
		{MADV_DONTFORK, VMA_DONT_FORK, 0},
		{MADV_DOFORK, 0, VMA_DONT_FORK},
		{MADV_WIPEONFORK, VMA_WIPE_ON_FORK, 0},
		{MADV_KEEPONFORK, 0, VMA_WIPE_ON_FORK},
		{MADV_DONTDUMP, VMA_DONT_DUMP, 0},
		{MADV_DODUMP, 0, VMA_DONT_DUMP},
		{MADV_HUGEPAGE, VMA_HUGE, VMA_NO_HUGE},
		{MADV_NOHUGEPAGE, VMA_NO_HUGE, VMA_HUGE},
	};
	unsigned i;

	for (i = 0; i < ARRAY_SIZE(table); i++) {
		if (table[i].advice == advice) {
			*ret_set = table[i].set;
			*ret_clear = table[i].clear;
			return true;
		}
	}
	return false;
}

static int advise_set_flags(struct mm *mm, struct vma *vma, uint64_t start, uint64_t end,
			    int advice, struct mm_reap *reap)
{
	unsigned set, clear, flags;
	int err;

	if (!advice_flags(advice, &set, &clear))
		return -EINVAL;
	if (advice == MADV_WIPEONFORK && (vma->mappable || (vma->flags & VMA_SHARED)))
		return -EINVAL;
	flags = (vma->flags & ~clear) | set;
	if (flags == vma->flags)
		return 0;
	err = vma_split_range(mm, start, end);
	if (err)
		return err;
	vma = vma_find(mm, start);
	vma_set_prot(mm, vma, vma->prot, flags);
	vma_merge(mm, vma, reap);
	return 0;
}

/* What would empty memory that its program may not write: mseal(2) forbids it. */
static bool advice_discards(int advice)
{
	return advice == MADV_DONTNEED || advice == MADV_DONTNEED_LOCKED || advice == MADV_FREE ||
	       advice == MADV_DONTFORK || advice == MADV_WIPEONFORK;
}

/* One VMA's part. Pre: vma_lock (write). */
static int advise_vma(struct mm *mm, struct vma *vma, uint64_t start, uint64_t end, int advice,
		      struct mm_reap *reap)
{
	if ((vma->flags & VMA_SEALED) && advice_discards(advice) && !vma->mappable &&
	    !(vma->prot & PROT_WRITE))
		return -EPERM;
	switch (advice) {
	case MADV_DONTNEED:
	case MADV_DONTNEED_LOCKED:
		if (advice == MADV_DONTNEED && (vma->flags & VMA_LOCKED))
			return -EINVAL;
		return advise_drop(mm, vma, start, end, reap);
	case MADV_FREE:
		/* "May be freed at any time": at once. */
		if (vma->mappable)
			return -EINVAL;
		return advise_drop(mm, vma, start, end, reap);
	case MADV_COLD:
	case MADV_PAGEOUT:
		return vma->flags & VMA_LOCKED ? -EINVAL : 0;
	case MADV_WILLNEED:
	case MADV_COLLAPSE:
		return 0;
	default:
		return advise_set_flags(mm, vma, start, end, advice, reap);
	}
}

static bool advice_known(int advice)
{
	unsigned set, clear;

	switch (advice) {
	case MADV_DONTNEED:
	case MADV_DONTNEED_LOCKED:
	case MADV_FREE:
	case MADV_COLD:
	case MADV_PAGEOUT:
	case MADV_WILLNEED:
	case MADV_COLLAPSE:
	case MADV_REMOVE:
	case MADV_POPULATE_READ:
	case MADV_POPULATE_WRITE:
		return true;
	default:
		/* MADV_MERGEABLE and UNMERGEABLE among the others: a kernel without KSM. */
		return advice_flags(advice, &set, &clear);
	}
}

/* MADV_POPULATE_READ and _WRITE. */
static int advise_populate(struct mm *mm, uint64_t start, uint64_t end, unsigned access)
{
	uint64_t pos;

	for (pos = start; pos < end;) {
		struct pma *pma;
		int signo, sicode, err = mm_fault(mm, pos, access, &signo, &sicode);

		if (err == -EFAULT && sicode == SEGV_MAPERR && signo == SIGSEGV)
			return -ENOMEM;
		if (err == -EFAULT && signo == SIGSEGV)
			return -EINVAL;
		if (err)
			return err;
		rwlock_read_lock(&mm->pt_lock);
		pma = pma_find(mm, pos);
		pos = pma && (pma->access & access) ? pma->end : pos + MOAT_PAGE_SIZE;
		rwlock_read_unlock(&mm->pt_lock);
	}
	return 0;
}

int mm_advise(struct mm *mm, uint64_t addr, uint64_t size, int advice)
{
	uint64_t end = addr + page_up(size), pos = addr;
	struct mm_reap reap;
	bool hole = false;
	int err = 0;

	if (advice == MADV_HWPOISON || advice == MADV_SOFT_OFFLINE)
		return -EPERM;
	if (!advice_known(advice) || (addr & ~MOAT_PAGE_MASK))
		return -EINVAL;
	if ((size && !page_up(size)) || end < addr)
		return -EINVAL;
	if (end == addr)
		return 0;
	if (end > ARCH_TASK_SIZE)
		return -ENOMEM;
	if (advice == MADV_REMOVE)
		return advise_remove(mm, addr, end);
	if (advice == MADV_POPULATE_READ || advice == MADV_POPULATE_WRITE)
		return advise_populate(mm, addr, end,
				       advice == MADV_POPULATE_READ ? MEM_READ : MEM_WRITE);
	mm_reap_init(&reap);
	rwlock_write_lock(&mm->vma_lock);
	while (pos < end && !err) {
		struct vma *vma = vma_find_next(mm, pos);
		uint64_t stop;

		if (!vma || vma->start >= end) {
			hole = true;
			break;
		}
		hole |= vma->start > pos;
		pos = MAX(pos, vma->start);
		stop = MIN(end, vma->end);
		err = advise_vma(mm, vma, pos, stop, advice, &reap);
		pos = stop;
	}
	rwlock_write_unlock(&mm->vma_lock);
	mm_reap_run(&reap);
	/* Holes are reported after everything else was done. */
	return err ? err : hole ? -ENOMEM : 0;
}

/* The next shared file piece at or after *pos; a reference on its mappable, or NULL at the end. */
static struct mappable *sync_next(struct mm *mm, uint64_t *pos, uint64_t end, bool invalidate,
				  bool *hole, uint64_t *ret_off, uint64_t *ret_size, int *ret_err)
{
	struct mappable *m = NULL;
	struct vma *vma;

	rwlock_read_lock(&mm->vma_lock);
	while (*pos < end && !m) {
		uint64_t stop;

		vma = vma_find_next(mm, *pos);
		if (!vma || vma->start >= end) {
			*hole = true;
			break;
		}
		*hole |= vma->start > *pos;
		*pos = MAX(*pos, vma->start);
		stop = MIN(end, vma->end);
		if (invalidate && (vma->flags & VMA_LOCKED)) {
			*ret_err = -EBUSY;
			break;
		}
		if ((vma->flags & VMA_SHARED) && vma->mappable && vma->mappable->ops->sync) {
			m = vma->mappable;
			m->ops->ref(m);
			*ret_off = vma->off + (*pos - vma->start);
			*ret_size = stop - *pos;
		}
		*pos = stop;
	}
	rwlock_read_unlock(&mm->vma_lock);
	return m;
}

int mm_sync(struct mm *mm, uint64_t addr, uint64_t size, int flags)
{
	uint64_t end = addr + page_up(size), pos = addr, off, bytes;
	struct mappable *m;
	bool hole = false;
	int err = 0;

	if ((flags & ~(MS_ASYNC | MS_INVALIDATE | MS_SYNC)) || (addr & ~MOAT_PAGE_MASK) ||
	    ((flags & MS_ASYNC) && (flags & MS_SYNC)))
		return -EINVAL;
	if (end < addr || (size && !page_up(size)))
		return -ENOMEM;
	if (end == addr)
		return 0;
	while (!err &&
	       (m = sync_next(mm, &pos, end, flags & MS_INVALIDATE, &hole, &off, &bytes, &err))) {
		if (flags & MS_SYNC)
			err = m->ops->sync(m, off, bytes);
		m->ops->unref(m);
	}
	return err ? err : hole ? -ENOMEM : 0;
}

#define MINCORE_BATCH 512 /* pages */

/* Residency of [start, end), which one VMA covers. Pre: vma_lock (read). */
static void mincore_fill(struct mm *mm, struct vma *vma, uint64_t start, uint64_t end,
			 unsigned char *vec)
{
	struct mappable *m = vma->mappable;
	uint64_t pos = start;

	/* A host file's pages count as cached: a fault finds them there. */
	if (m && m->ops->resident)
		m->ops->resident(m, vma->off + (start - vma->start), end - start, vec);
	else
		memset(vec, m ? 1 : 0, (end - start) >> MOAT_PAGE_SHIFT);
	rwlock_read_lock(&mm->pt_lock);
	while (pos < end) {
		struct pma *pma = pma_find_next(mm, pos);
		uint64_t lo, hi, i;
		unsigned char *out;

		if (!pma || pma->start >= end)
			break;
		lo = MAX(pos, pma->start);
		hi = MIN(end, pma->end);
		out = vec + ((lo - start) >> MOAT_PAGE_SHIFT);
		/* What is locked is there, whether the host has made its page yet or not. */
		if ((vma->flags & (VMA_LOCKED | VMA_LOCK_ONFAULT)) == VMA_LOCKED)
			memset(out, 1, (hi - lo) >> MOAT_PAGE_SHIFT);
		else if (mincore(pma->ptr + (lo - pma->start), hi - lo, out) < 0)
			memset(out, 1, (hi - lo) >> MOAT_PAGE_SHIFT);
		for (i = 0; i < (hi - lo) >> MOAT_PAGE_SHIFT; i++)
			out[i] &= 1;
		pos = hi;
	}
	rwlock_read_unlock(&mm->pt_lock);
}

int mm_mincore(struct mm *mm, uint64_t addr, uint64_t size, uint64_t uvec)
{
	uint64_t end = addr + page_up(size), pos = addr;
	unsigned char vec[MINCORE_BATCH];

	if (addr & ~MOAT_PAGE_MASK)
		return -EINVAL;
	if (addr > ARCH_TASK_SIZE || size > ARCH_TASK_SIZE - addr)
		return -ENOMEM;
	while (pos < end) {
		struct vma *vma;
		uint64_t stop = MIN(end, pos + MINCORE_BATCH * MOAT_PAGE_SIZE);

		rwlock_read_lock(&mm->vma_lock);
		vma = vma_find(mm, pos);
		if (vma) {
			stop = MIN(stop, vma->end);
			mincore_fill(mm, vma, pos, stop, vec);
		}
		rwlock_read_unlock(&mm->vma_lock);
		if (!vma)
			return -ENOMEM;
		if (mm_copy_out(mm, uvec + ((pos - addr) >> MOAT_PAGE_SHIFT), vec,
				(stop - pos) >> MOAT_PAGE_SHIFT))
			return -EFAULT;
		pos = stop;
	}
	return 0;
}
