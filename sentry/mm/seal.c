/*
 * sentry/mm/seal.c - mseal(2): mappings that are neither unmapped, moved, replaced nor protected otherwise any more.
 *
 * The flag is of VMAs, so it is split, merged and inherited with them. Whoever changes mappings asks mm_sealed() first, under vma_lock.
 */
#include "sentry/mm/internal.h"

bool mm_sealed(struct mm *mm, uint64_t start, uint64_t end)
{
	struct vma *vma;

	if (!mm->has_seals)
		return false;
	for (vma = vma_find_next(mm, start); vma && vma->start < end; vma = vma_next(vma))
		if (vma->flags & VMA_SEALED)
			return true;
	return false;
}

int mm_seal(struct mm *mm, uint64_t addr, uint64_t size)
{
	uint64_t end = addr + page_up(size), pos = addr;
	struct mm_reap reap;
	int err;

	if (addr & ~MOAT_PAGE_MASK)
		return -EINVAL;
	if ((size && !page_up(size)) || end < addr)
		return -EINVAL;
	if (end == addr)
		return 0;
	mm_reap_init(&reap);
	rwlock_write_lock(&mm->vma_lock);
	err = vma_covers(mm, addr, end) ? 0 : -ENOMEM;
	while (pos < end && !err) {
		struct vma *vma = vma_find(mm, pos);
		uint64_t stop = MIN(end, vma->end);

		if (!(vma->flags & VMA_SEALED)) {
			err = vma_split_range(mm, pos, stop);
			if (err)
				break;
			vma = vma_find(mm, pos);
			mm->has_seals = true;
			vma_set_prot(mm, vma, vma->prot, vma->flags | VMA_SEALED);
			vma_merge(mm, vma, &reap);
		}
		pos = stop;
	}
	rwlock_write_unlock(&mm->vma_lock);
	mm_reap_run(&reap);
	return err;
}
