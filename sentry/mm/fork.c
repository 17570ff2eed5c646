/*
 * sentry/mm/fork.c - copying an address space.
 *
 * Private memory becomes copy-on-write on both sides by one reference a chunk; shared and file pages are shared.
 * The child's mappings are registered behind the parent's before translations are copied, so a truncate that
 * comes in between empties the parent before the child and leaves nothing stale.
 *
 * Memory that a thread of the parent has pinned for an I/O in flight is copied for the child at once: were it made
 * copy-on-write, the parent's next write would move to a copy and the I/O's bytes would land in the child's.
 */
#include <stdlib.h>

#include "sentry/mm/internal.h"
#include "vfs/file.h"

static int fork_vmas(struct mm *parent, struct mm *child)
{
	struct vma *vma, *copy;

	for (vma = vma_first(parent); vma; vma = vma_next(vma)) {
		if (vma->flags & VMA_DONT_FORK)
			continue;
		copy = vma_alloc();
		if (!copy)
			return -ENOMEM;
		copy->start = vma->start;
		copy->end = vma->end;
		copy->prot = vma->prot;
		copy->max_prot = vma->max_prot;
		copy->flags = vma->flags & ~(unsigned)(VMA_LOCKED | VMA_LOCK_ONFAULT);
		copy->off = vma->off;
		copy->name = vma->name;
		copy->mappable = vma->mappable;
		if (copy->mappable)
			copy->mappable->ops->ref(copy->mappable);
		copy->file = vma->file ? file_ref(vma->file) : NULL;
		vma_insert_copy(child, vma, copy);
	}
	return 0;
}

static bool fork_is_pinned(struct mm *mm, const struct pma *pma)
{
	struct mm_pin *pin;
	bool hit = false;

	mutex_lock(&mm->pin_lock);
	LIST_FOREACH (pin, &mm->pins, link)
		hit |= pin->start < pma->end && pma->start < pin->end;
	mutex_unlock(&mm->pin_lock);
	return hit;
}

/* The child gets its own memory with the parent's contents. */
static int fork_copy_now(struct mm *child, struct pma *copy)
{
	uint64_t size = copy->end - copy->start, skew = copy->off & (MEM_CHUNK_SIZE - 1), off;
	const char *src = copy->ptr;
	int err = memfile_alloc(mem_private(), skew + size, 0, 0, &off);

	if (err)
		return err;
	copy->off = off + skew;
	copy->ptr = (char *)memfile_ptr(mem_private(), off) + skew;
	err = pma_copy_private(copy->ptr, src, size);
	if (err) {
		memfile_range_unref(mem_private(), copy->off, size);
		return err;
	}
	child->platform->ops->as_unmap(child->as, copy->start, size);
	return 0;
}

static int fork_pma(struct mm *parent, struct mm *child, struct pma *pma, bool pins)
{
	struct pma *copy = malloc(sizeof(*copy));
	int err;

	if (!copy)
		return -ENOMEM;
	*copy = *pma;
	copy->flags &= ~(unsigned)PMA_CLEAN_TAIL;
	if ((pma->flags & PMA_OWN) && pins && fork_is_pinned(parent, pma)) {
		err = fork_copy_now(child, copy);
	} else {
		err = memfile_range_ref(copy->mf, copy->off, copy->end - copy->start);
		if (!err && (pma->flags & PMA_OWN)) {
			pma->flags |= PMA_COW;
			pma->access &= ~(unsigned)MEM_WRITE;
			copy->flags |= PMA_COW;
			copy->access &= ~(unsigned)MEM_WRITE;
		}
	}
	if (err) {
		free(copy);
		return err;
	}
	pma_insert(child, copy);
	return 0;
}

/* Both pt_locks held for writing. */
static int fork_pmas(struct mm *parent, struct mm *child)
{
	struct vma *vma = vma_first(parent);
	struct pma *pma;
	bool pins;
	int err = child->platform->ops->as_fork(parent->as, child->as);

	if (err)
		return err;
	mutex_lock(&parent->pin_lock);
	pins = !LIST_EMPTY(&parent->pins);
	mutex_unlock(&parent->pin_lock);
	for (pma = pma_find_next(parent, 0); pma; pma = pma_next(pma)) {
		while (vma->end <= pma->start)
			vma = vma_next(vma);
		/* One that spans VMAs of which some are not for the child is cut. */
		if (pma->end > vma->end) {
			err = pma_reserve(parent);
			if (err)
				return err;
			pma_split(parent, pma, vma->end);
		}
		if (vma->flags & (VMA_DONT_FORK | VMA_WIPE_ON_FORK)) {
			child->platform->ops->as_unmap(child->as, pma->start,
						       pma->end - pma->start);
			continue;
		}
		err = fork_pma(parent, child, pma, pins);
		if (err)
			return err;
	}
	return 0;
}

int mm_fork(struct mm *parent, struct mm **ret_child)
{
	struct mm *child;
	int err = mm_create(parent->platform, &child);

	if (err)
		return err;
	rwlock_write_lock(&parent->vma_lock);
	child->layout = parent->layout;
	child->exe = parent->exe ? file_ref(parent->exe) : NULL;
	atomic_store_explicit(&child->stack_limit,
			      atomic_load_explicit(&parent->stack_limit, memory_order_relaxed),
			      memory_order_relaxed);
	err = fork_vmas(parent, child);
	if (!err) {
		rwlock_write_lock(&parent->pt_lock);
		/* Nobody else can wait for the child's while holding the parent's: parent first. */
		rwlock_write_lock_nested(&child->pt_lock);
		err = fork_pmas(parent, child);
		rwlock_write_unlock(&child->pt_lock);
		rwlock_write_unlock(&parent->pt_lock);
	}
	rwlock_write_unlock(&parent->vma_lock);
	if (err) {
		mm_unref(child);
		return err;
	}
	*ret_child = child;
	return 0;
}
