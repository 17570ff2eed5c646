/* sentry/mm/protect.c - mprotect and mlock. */
#include "sentry/mm/internal.h"

/* Translations follow a VMA's new protection; `old` is what the application could do. Pre: vma_lock (write). */
static int protect_pmas(struct mm *mm, uint64_t start, uint64_t end, unsigned old, unsigned prot)
{
	unsigned now = prot_access(prot);
	struct pma *pma;
	bool gained = false;
	uint64_t lo = UINT64_MAX, hi = 0;
	int err;

	rwlock_write_lock(&mm->pt_lock);
	err = pma_reserve(mm);
	if (err)
		goto out;
	for (pma = pma_find_next(mm, start); pma && pma->start < end; pma = pma_next(pma)) {
		unsigned access;

		if (pma->start < start)
			pma = pma_split(mm, pma, start);
		if (pma->end > end)
			pma_split(mm, pma, end);
		access = pma_calc_access(pma, prot);
		gained |= (access & ~pma->access) != 0;
		pma->access = access;
		lo = MIN(lo, pma->start);
		hi = MAX(hi, pma->end);
	}
	if (lo >= hi)
		goto out;
	if (!now)
		mm->platform->ops->as_unmap(mm->as, lo, hi - lo);
	else if (prot_access(old) & ~now)
		mm->platform->ops->as_protect(mm->as, lo, hi - lo, now);
	/* New rights at once where it is cheap: each fault that is saved is an exit. */
	if (gained && hi - lo <= MM_EXTENT_MAX && pma_map_range(mm, lo, hi, UINT64_MAX, 0))
		gained = false;
out:
	rwlock_write_unlock(&mm->pt_lock);
	return err;
}

static int protect_vma(struct mm *mm, struct vma *vma, uint64_t start, uint64_t end, unsigned prot,
		       const struct mm_limits *lim, struct mm_reap *reap)
{
	unsigned old = vma->prot;
	int err;

	if (prot & ~vma->max_prot)
		return -EACCES;
	if (vma->flags & VMA_SEALED)
		return -EPERM;
	if (prot == old)
		return 0;
	if (vma_is_data(prot, vma->flags) && !vma_is_data(old, vma->flags) &&
	    mm->data_bytes + (end - start) > lim->data_bytes)
		return -ENOMEM;
	err = vma_split_range(mm, start, end);
	if (err)
		return err;
	vma = vma_find(mm, start);
	err = protect_pmas(mm, start, end, old, prot);
	if (err)
		return err;
	vma_set_prot(mm, vma, prot, vma->flags);
	vma_merge(mm, vma, reap);
	return 0;
}

int mm_protect(struct mm *mm, uint64_t addr, uint64_t size, unsigned prot, bool grows_down,
	       const struct mm_limits *lim)
{
	uint64_t end = addr + page_up(size), pos;
	struct mm_reap reap;
	struct vma *vma;
	bool anon = false;
	int err = 0;

	if (addr & ~MOAT_PAGE_MASK)
		return -EINVAL;
	if (!size)
		return 0;
	if (end <= addr || end > ARCH_TASK_SIZE)
		return -ENOMEM;
	if (prot & ~(unsigned)(PROT_READ | PROT_WRITE | PROT_EXEC))
		return -EINVAL;
	mm_reap_init(&reap);
	rwlock_write_lock(&mm->vma_lock);
	vma = vma_find_next(mm, addr);
	if (!vma) {
		err = -ENOMEM;
		goto out;
	}
	pos = addr;
	if (grows_down) {
		if (vma->start >= end) {
			err = -ENOMEM;
			goto out;
		}
		if (!(vma->flags & VMA_GROWS_DOWN)) {
			err = -EINVAL;
			goto out;
		}
		pos = vma->start;
	}
	/* What comes before a hole or a refusal has been changed, as on Linux. */
	while (pos < end && !err) {
		uint64_t stop;

		vma = vma_find(mm, pos);
		if (!vma) {
			err = -ENOMEM;
			break;
		}
		stop = MIN(end, vma->end);
		/* Memory that could not be used before. */
		anon = !vma->mappable && !vma->prot;
		err = protect_vma(mm, vma, pos, stop, prot, lim, &reap);
		pos = stop;
	}
out:
	rwlock_write_unlock(&mm->vma_lock);
	mm_reap_run(&reap);
	/* A malloc arena that grows. */
	if (!err && (prot & PROT_WRITE) && anon && end - addr <= 2 * MM_PREFAULT_ANON)
		mm_prefault(mm, addr, MIN(end - addr, MM_EXTENT_MIN), true);
	return err;
}

/* Sets the lock flags of [start, end). Return: 0, -ENOMEM for holes. Pre: vma_lock (write). */
static int lock_range(struct mm *mm, uint64_t start, uint64_t end, unsigned flags,
		      struct mm_reap *reap)
{
	uint64_t pos = start;

	while (pos < end) {
		struct vma *vma = vma_find(mm, pos);
		uint64_t stop;
		int err;

		if (!vma)
			return -ENOMEM;
		stop = MIN(end, vma->end);
		if ((vma->flags & (VMA_LOCKED | VMA_LOCK_ONFAULT)) != flags) {
			err = vma_split_range(mm, pos, stop);
			if (err)
				return err;
			vma = vma_find(mm, pos);
			vma_set_prot(mm, vma, vma->prot,
				     (vma->flags & ~(unsigned)(VMA_LOCKED | VMA_LOCK_ONFAULT)) |
					     flags);
			vma_merge(mm, vma, reap);
		}
		pos = stop;
	}
	return 0;
}

static uint64_t locked_in(struct mm *mm, uint64_t start, uint64_t end)
{
	struct vma *vma = vma_find_next(mm, start);
	uint64_t bytes = 0;

	for (; vma && vma->start < end; vma = vma_next(vma))
		if (vma->flags & VMA_LOCKED)
			bytes += MIN(vma->end, end) - MAX(vma->start, start);
	return bytes;
}

int mm_lock(struct mm *mm, uint64_t addr, uint64_t size, unsigned flags, bool lock,
	    const struct mm_limits *lim)
{
	uint64_t start = page_down(addr), len = page_up(size + (addr - start)), end = start + len;
	unsigned set = !lock ? 0 : VMA_LOCKED | (flags & MLOCK_ONFAULT ? VMA_LOCK_ONFAULT : 0);
	struct mm_reap reap;
	int err;

	if (lock && !lim->memlock_bytes)
		return -EPERM;
	if (end < start || (size && len < size))
		return -EINVAL;
	if (start == end)
		return 0;
	mm_reap_init(&reap);
	rwlock_write_lock(&mm->vma_lock);
	if (lock && mm->locked_bytes + len - locked_in(mm, start, end) > lim->memlock_bytes)
		err = -ENOMEM;
	else
		err = lock_range(mm, start, end, set, &reap);
	rwlock_write_unlock(&mm->vma_lock);
	mm_reap_run(&reap);
	if (!err && lock && !(flags & MLOCK_ONFAULT)) {
		err = mm_populate(mm, start, len);
		if (err == -EFAULT)
			err = -ENOMEM;
	}
	return err;
}

int mm_lock_all(struct mm *mm, unsigned flags, bool lock, const struct mm_limits *lim)
{
	unsigned set = VMA_LOCKED | (flags & MCL_ONFAULT ? VMA_LOCK_ONFAULT : 0);
	struct mm_reap reap;
	struct vma *vma;
	uint64_t pos = 0;
	int err = 0;

	if (lock && (!flags || (flags & ~(unsigned)(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT)) ||
		     flags == MCL_ONFAULT))
		return -EINVAL;
	if (lock && !lim->memlock_bytes)
		return -EPERM;
	mm_reap_init(&reap);
	rwlock_write_lock(&mm->vma_lock);
	if (lock && (flags & MCL_CURRENT) && mm->vm_bytes > lim->memlock_bytes) {
		err = -ENOMEM;
		goto out;
	}
	mm->lock_future = lock && (flags & MCL_FUTURE) ? set : 0;
	if (lock && !(flags & MCL_CURRENT))
		goto out;
	while ((vma = vma_find_next(mm, pos))) {
		pos = vma->end;
		vma_set_prot(mm, vma, vma->prot,
			     (vma->flags & ~(unsigned)(VMA_LOCKED | VMA_LOCK_ONFAULT)) |
				     (lock ? set : 0));
		vma_merge(mm, vma, &reap);
	}
out:
	rwlock_write_unlock(&mm->vma_lock);
	mm_reap_run(&reap);
	/* As on Linux, what cannot be populated is not an error of mlockall(2). */
	if (!err && lock && (flags & (MCL_CURRENT | MCL_ONFAULT)) == MCL_CURRENT &&
	    mm_populate(mm, 0, ARCH_TASK_SIZE))
		err = 0;
	return err;
}
