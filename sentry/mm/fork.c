/*
 * sentry/mm/fork.c - copying an address space.
 *
 * Private memory becomes copy-on-write on both sides by one reference a chunk; shared and file pages are shared.
 * The child's mappings are registered behind the parent's before translations are copied, so a truncate that
 * comes in between empties the parent before the child and leaves nothing stale.
 *
 * Memory that a thread of the parent has pinned for an I/O in flight is copied for the child at once: were it made
 * copy-on-write, the parent's next write would move to a copy and the I/O's bytes would land in the child's.
 * So are a few chunks that were the first to be written after earlier forks (the stack's end, thread data): that costs one
 * copy as before, and saves both sides the fault.
 */
#include <stdlib.h>

#include "sentry/mm/internal.h"
#include "vfs/write_access.h"

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

/* A range that the child gets its own copy of. */
struct eager {
	uint64_t start, end;
	bool pinned; /* must: an I/O is in flight; else should: it is written at once anyway */
};

/* The first such range that meets [start, end). Pre: the parent's pt_lock. */
static bool eager_find(struct mm *mm, uint64_t start, uint64_t end, struct eager *ret)
{
	struct mm_pin *pin;
	unsigned i;

	*ret = (struct eager){.start = end, .end = end};
	for (i = 0; i < mm->hot_count; i++)
		if (mm->hot[i].start < end && start < mm->hot[i].end &&
		    mm->hot[i].start < ret->start)
			*ret = (struct eager){.start = mm->hot[i].start, .end = mm->hot[i].end};
	mutex_lock(&mm->pin_lock);
	LIST_FOREACH (pin, &mm->pins, link) {
		uint64_t lo = page_down(pin->start), hi = page_up(pin->end);

		if (lo >= end || start >= hi)
			continue;
		/* One that meets the best so far joins it; one before it is better. */
		if (lo < ret->end && ret->start < hi) {
			ret->start = MIN(lo, ret->start);
			ret->end = MAX(hi, ret->end);
			ret->pinned = true;
		} else if (lo < ret->start) {
			*ret = (struct eager){.start = lo, .end = hi, .pinned = true};
		}
	}
	mutex_unlock(&mm->pin_lock);
	return ret->start < end;
}

/* The child gets its own memory with the parent's contents; the parent goes on writing in place. */
static int fork_copy_now(struct mm *parent, struct mm *child, struct pma *pma, struct pma *copy)
{
	uint64_t size = copy->end - copy->start, skew = copy->off & (MEM_CHUNK_SIZE - 1), off;
	int err = memfile_alloc(mem_private(), skew + size, 0, 0, &off);

	if (err)
		return err;
	copy->off = off + skew;
	copy->ptr = (char *)memfile_ptr(mem_private(), off) + skew;
	copy->flags &= ~(unsigned)(PMA_CLEAN_TAIL | PMA_COW);
	err = pma_copy_private(copy->ptr, pma->ptr, size);
	if (err) {
		memfile_range_unref(mem_private(), copy->off, size);
		return err;
	}
	pma_insert(child, copy);
	/* The platform shows the child the parent's page still, and has taken the parent's right to write. */
	if (!pma->access || pma_map_range(child, copy->start, copy->end, UINT64_MAX, 0))
		child->platform->ops->as_unmap(child->as, copy->start, size);
	if (pma->access && pma_map_range(parent, pma->start, pma->end, UINT64_MAX, 0))
		parent->platform->ops->as_unmap(parent->as, pma->start, size);
	return 0;
}

static int fork_share(struct mm *child, struct pma *pma, struct pma *copy)
{
	int err = memfile_range_ref(copy->mf, copy->off, copy->end - copy->start);

	if (err)
		return err;
	copy->flags &= ~(unsigned)PMA_CLEAN_TAIL;
	if (pma->flags & PMA_OWN) {
		pma->flags |= PMA_COW;
		pma->access &= ~(unsigned)MEM_WRITE;
		copy->flags |= PMA_COW;
		copy->access &= ~(unsigned)MEM_WRITE;
	}
	pma_insert(child, copy);
	return 0;
}

/* pma's first part goes to the child one way or the other; the rest, cut off, is the next one. */
static int fork_pma(struct mm *parent, struct mm *child, struct pma *pma, bool eager_any)
{
	struct eager e = {0};
	struct pma *copy;
	bool now = false;
	int err = -ENOMEM;

	/* What is copy-on-write already is not written here, nor pinned for writing: share it once more. */
	if (eager_any && (pma->flags & (PMA_OWN | PMA_COW)) == PMA_OWN &&
	    eager_find(parent, pma->start, pma->end, &e)) {
		uint64_t cut = e.start > pma->start ? e.start : e.end;

		now = e.start <= pma->start;
		if (cut < pma->end) {
			err = pma_reserve(parent);
			if (err)
				return err;
			pma_split(parent, pma, cut);
		}
	}
	copy = malloc(sizeof(*copy));
	if (!copy)
		return -ENOMEM;
	*copy = *pma;
	if (now) {
		err = fork_copy_now(parent, child, pma, copy);
		if (!err)
			return 0;
		*copy = *pma;
	}
	if (!now || !e.pinned)
		err = fork_share(child, pma, copy);
	if (err)
		free(copy);
	return err;
}

/* Hot chunks that have been copied for a long time are forgotten, and noticed again if need be. */
static void age_hot(struct mm *parent, struct mm *child)
{
	unsigned i, kept = 0;

	for (i = 0; i < parent->hot_count; i++)
		if (++parent->hot[i].forks < MM_HOT_FORKS)
			parent->hot[kept++] = parent->hot[i];
	parent->hot_count = kept;
	parent->cow_faults = 0;
	for (i = 0; i < kept; i++)
		child->hot[i] = parent->hot[i];
	child->hot_count = kept;
}

/* Both pt_locks held for writing. */
static int fork_pmas(struct mm *parent, struct mm *child)
{
	struct vma *vma = vma_first(parent);
	struct pma *pma;
	bool eager;
	int err = child->platform->ops->as_fork(parent->as, child->as);

	if (err)
		return err;
	mutex_lock(&parent->pin_lock);
	eager = parent->hot_count || !LIST_EMPTY(&parent->pins);
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
		err = fork_pma(parent, child, pma, eager);
		if (err)
			return err;
	}
	age_hot(parent, child);
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
	child->has_seals = parent->has_seals;
	child->exe = parent->exe ? file_ref(parent->exe) : NULL;
	child->exe_denies = child->exe && vfs_deny_write_again(child->exe);
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
