/* sentry/mm/remap.c - mremap: shrinking, growing in place, moving with the pages. */
#include <stdlib.h>

#include "sentry/mm/internal.h"
#include "vfs/file.h"

struct remap {
	struct mm *mm;
	uint64_t old_addr, old_size, new_size, new_addr;
	unsigned flags;
	const struct mm_limits *lim;
	struct mm_reap reap;
};

/* The translations of [from, from + size) go to `to`. Pre: vma_lock, pt_lock and data_lock (write). */
static void move_pmas(struct mm *mm, uint64_t from, uint64_t size, uint64_t to)
{
	struct mm_reap moved;
	struct pma *pma;

	mm_reap_init(&moved);
	pma_drop_range(mm, from, from + size, false, &moved);
	while ((pma = moved.pmas)) {
		moved.pmas = pma->reap_next;
		pma->start = pma->start - from + to;
		pma->end = pma->end - from + to;
		pma_insert(mm, pma);
	}
}

static struct vma *clone_vma(const struct vma *vma, uint64_t old_addr, uint64_t start,
			     uint64_t size)
{
	struct vma *copy = vma_alloc();

	if (!copy)
		return NULL;
	copy->start = start;
	copy->end = start + size;
	copy->prot = vma->prot;
	copy->max_prot = vma->max_prot;
	copy->flags = vma->flags;
	copy->name = vma->name;
	if (vma->mappable) {
		copy->off = vma->off + (old_addr - vma->start);
		copy->mappable = vma->mappable;
		copy->mappable->ops->ref(copy->mappable);
	}
	copy->file = vma->file ? file_ref(vma->file) : NULL;
	return copy;
}

/* [old_addr, old_addr + old_size) of vma moves to new_addr, where nothing is. */
static int remap_move(struct remap *r, struct vma *vma)
{
	struct mm *mm = r->mm;
	struct vma *copy;
	int err;

	if (r->old_size) {
		err = vma_split_range(mm, r->old_addr, r->old_addr + r->old_size);
		if (err)
			return err;
		vma = vma_find(mm, r->old_addr);
	}
	copy = clone_vma(vma, r->old_addr, r->new_addr, r->new_size);
	if (!copy)
		return -ENOMEM;
	err = vma_insert(mm, copy);
	if (err) {
		copy->reap_next = r->reap.vmas;
		r->reap.vmas = copy;
		return err;
	}
	if (r->old_size) {
		/* Both places are registered, so a truncate after this finds the pages, one before it too. */
		if (vma->mappable)
			rwlock_write_lock(&vma->mappable->data_lock);
		rwlock_write_lock(&mm->pt_lock);
		err = pma_reserve(mm);
		if (!err)
			move_pmas(mm, r->old_addr, MIN(r->old_size, r->new_size), r->new_addr);
		rwlock_write_unlock(&mm->pt_lock);
		if (vma->mappable)
			rwlock_write_unlock(&vma->mappable->data_lock);
		if (err) {
			vma_remove(mm, copy, &r->reap);
			return err;
		}
		if (!(r->flags & MREMAP_DONTUNMAP))
			vma_remove(mm, vma, &r->reap);
		else
			vma_set_prot(mm, vma, vma->prot,
				     vma->flags & ~(unsigned)(VMA_LOCKED | VMA_LOCK_ONFAULT));
	}
	vma_merge(mm, copy, &r->reap);
	return 0;
}

/* The checks that vma_to_resize() makes. Return: 0 and the VMA. */
static int remap_check(struct remap *r, struct vma **ret_vma)
{
	struct mm *mm = r->mm;
	struct vma *vma = vma_find(mm, r->old_addr);
	uint64_t grow = r->new_size > r->old_size ? r->new_size - r->old_size : 0;

	if (!vma)
		return -EFAULT;
	if (!r->old_size && !(vma->flags & VMA_SHARED))
		return -EINVAL;
	if (r->old_size > vma->end - r->old_addr)
		return -EFAULT;
	if (r->flags & MREMAP_DONTUNMAP)
		grow = r->new_size;
	if (vma->mappable && vma->off + (r->old_addr - vma->start) + r->new_size < r->new_size)
		return -EINVAL;
	if ((vma->flags & VMA_LOCKED) && mm->locked_bytes + grow > r->lim->memlock_bytes)
		return -EAGAIN;
	if (mm->vm_bytes + grow > r->lim->as_bytes)
		return -ENOMEM;
	if (vma_is_data(vma->prot, vma->flags) &&
	    (mm->data_bytes + grow > r->lim->data_bytes ||
	     (!(vma->flags & VMA_NORESERVE) && grow > mm_overcommit_bytes())))
		return -ENOMEM;
	*ret_vma = vma;
	return 0;
}

static int remap_place(struct remap *r)
{
	struct mm *mm = r->mm;
	int err = vma_find_gap(mm, r->new_size, MM_MIN_ADDR, mm->layout.mmap_base, MOAT_PAGE_SIZE,
			       &r->new_addr);

	return err ? vma_find_gap(mm, r->new_size, mm->layout.mmap_base, ARCH_TASK_SIZE,
				  MOAT_PAGE_SIZE, &r->new_addr)
		   : 0;
}

/* MREMAP_FIXED or MREMAP_DONTUNMAP. */
static int remap_to(struct remap *r)
{
	struct mm *mm = r->mm;
	struct vma *vma;
	int err;

	if (r->flags & MREMAP_FIXED) {
		if (r->new_addr & ~MOAT_PAGE_MASK)
			return -EINVAL;
		if (r->new_size > ARCH_TASK_SIZE || r->new_addr > ARCH_TASK_SIZE - r->new_size)
			return -EINVAL;
		if (r->old_addr + r->old_size > r->new_addr &&
		    r->new_addr + r->new_size > r->old_addr)
			return -EINVAL;
		if (r->new_addr < MM_MIN_ADDR)
			return -EPERM;
		if (mm_reserved(mm, r->new_addr, r->new_size))
			return -ENOMEM;
		err = mm_unmap_locked(mm, r->new_addr, r->new_addr + r->new_size, &r->reap);
		if (err)
			return err;
	}
	if (r->old_size > r->new_size) {
		err = mm_unmap_locked(mm, r->old_addr + r->new_size, r->old_addr + r->old_size,
				      &r->reap);
		if (err)
			return err;
		r->old_size = r->new_size;
	}
	err = remap_check(r, &vma);
	if (!err && !(r->flags & MREMAP_FIXED))
		err = remap_place(r);
	return err ? err : remap_move(r, vma);
}

static int remap_locked(struct remap *r)
{
	struct mm *mm = r->mm;
	struct vma *vma, *next;
	uint64_t old_end = r->old_addr + r->old_size, room;
	int err;

	if (mm_sealed(mm, r->old_addr, r->old_addr + MAX(r->old_size, MOAT_PAGE_SIZE)))
		return -EPERM;
	if (r->flags & (MREMAP_FIXED | MREMAP_DONTUNMAP))
		return remap_to(r);
	r->new_addr = r->old_addr;
	if (r->old_size >= r->new_size) {
		if (!vma_find(mm, r->old_addr))
			return -EFAULT;
		return r->old_size == r->new_size
			       ? 0
			       : mm_unmap_locked(mm, r->old_addr + r->new_size, old_end, &r->reap);
	}
	err = remap_check(r, &vma);
	if (err)
		return err;
	if (r->old_size && old_end == vma->end) {
		next = vma_next(vma);
		room = (next ? (next->flags & VMA_GROWS_DOWN ? next->start - MM_STACK_GAP
							     : next->start)
			     : ARCH_TASK_SIZE);
		if (room >= r->old_addr && room - r->old_addr >= r->new_size &&
		    !mm_reserved(mm, r->old_addr, r->new_size)) {
			vma_set_range(mm, vma, vma->start, r->old_addr + r->new_size);
			vma_merge(mm, vma, &r->reap);
			return 0;
		}
	}
	if (!(r->flags & MREMAP_MAYMOVE))
		return -ENOMEM;
	err = remap_place(r);
	return err ? err : remap_move(r, vma);
}

int mm_remap(struct mm *mm, uint64_t old_addr, uint64_t old_size, uint64_t new_size, unsigned flags,
	     uint64_t new_addr, const struct mm_limits *lim, uint64_t *ret_addr)
{
	struct remap r = {
		.mm = mm,
		.old_addr = old_addr,
		.old_size = page_up(old_size),
		.new_size = page_up(new_size),
		.new_addr = new_addr,
		.flags = flags,
		.lim = lim,
	};
	uint64_t grown_at = 0, grown = 0;
	int err;

	if (flags & ~(unsigned)(MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP))
		return -EINVAL;
	if ((flags & MREMAP_FIXED) && !(flags & MREMAP_MAYMOVE))
		return -EINVAL;
	if ((flags & MREMAP_DONTUNMAP) && (!(flags & MREMAP_MAYMOVE) || r.old_size != r.new_size))
		return -EINVAL;
	if ((old_addr & ~MOAT_PAGE_MASK) || !r.new_size)
		return -EINVAL;
	if (old_addr > ARCH_TASK_SIZE || r.old_size > ARCH_TASK_SIZE - old_addr)
		return -EFAULT;
	if (r.new_size > ARCH_TASK_SIZE)
		return -ENOMEM;
	rwlock_write_lock(&mm->vma_lock);
	err = remap_locked(&r);
	if (!err && r.new_size > r.old_size) {
		struct vma *vma = vma_find(mm, r.new_addr);

		if (vma && (vma->flags & VMA_LOCKED)) {
			grown_at = r.new_addr + r.old_size;
			grown = r.new_size - r.old_size;
		}
	}
	rwlock_write_unlock(&mm->vma_lock);
	mm_reap_run(&r.reap);
	if (err)
		return err;
	if (grown && mm_populate(mm, grown_at, grown))
		grown = 0;
	*ret_addr = r.new_addr;
	return 0;
}

/* The VMAs that cover the range are one file's shared mapping, alike. Return: the first of them, or NULL. Pre: vma_lock. */
static struct vma *shared_over(struct mm *mm, uint64_t start, uint64_t end)
{
	struct vma *first = vma_find(mm, start), *vma = first;

	/* Nobody but shmat(2) maps a segment: it may be gone by then. */
	if (!first || !(first->flags & VMA_SHARED) || !first->mappable ||
	    first->mappable->ops->mapped)
		return NULL;
	while (vma->end < end) {
		uint64_t next = vma->end;

		vma = vma_next(vma);
		if (!vma || vma->start != next || vma->mappable != first->mappable ||
		    vma->prot != first->prot || vma->flags != first->flags)
			return NULL;
	}
	return first;
}

int mm_remap_file_pages(struct mm *mm, uint64_t start, uint64_t size, uint64_t off, bool populate,
			const struct mm_limits *lim)
{
	struct mm_map_args args = {
		.addr = start, .size = size, .off = off, .fixed = true, .shared = true};
	struct vma *vma;
	uint64_t at;
	int err;

	rwlock_read_lock(&mm->vma_lock);
	vma = shared_over(mm, start, start + size);
	if (vma) {
		args.prot = vma->prot;
		args.max_prot = vma->max_prot;
		args.mappable = vma->mappable;
		args.file = vma->file;
		args.name = vma->name;
		args.locked = (vma->flags & (VMA_LOCKED | VMA_LOCK_ONFAULT)) == VMA_LOCKED;
		args.populate = populate;
		args.mappable->ops->ref(args.mappable);
		if (args.file)
			file_ref(args.file);
	}
	rwlock_read_unlock(&mm->vma_lock);
	if (!vma)
		return -EINVAL;
	err = mm_map(mm, &args, lim, &at);
	if (args.file)
		file_unref(args.file);
	args.mappable->ops->unref(args.mappable);
	return err;
}
