/* sentry/mm/map.c - mmap, munmap, brk: limits, placement, the VMAs' making and unmaking. */
#include <stdlib.h>

#include "sentry/mm/internal.h"
#include "vfs/file.h"

int mm_unmap_locked(struct mm *mm, uint64_t start, uint64_t end, struct mm_reap *reap)
{
	struct vma *vma, *next;
	int err;

	if (mm_sealed(mm, start, end))
		return -EPERM;
	err = vma_split_range(mm, start, end);
	if (err)
		return err;
	vma = vma_find_next(mm, start);
	if (!vma || vma->start >= end)
		return 0;
	rwlock_write_lock(&mm->pt_lock);
	err = pma_reserve(mm);
	if (!err)
		pma_drop_range(mm, start, end, false, reap);
	rwlock_write_unlock(&mm->pt_lock);
	if (err)
		return err;
	/* vma_lock keeps faults from filling the range again before the VMAs are gone. */
	for (; vma && vma->start < end; vma = next) {
		next = vma_next(vma);
		vma_remove(mm, vma, reap);
	}
	return 0;
}

int mm_unmap(struct mm *mm, uint64_t addr, uint64_t size)
{
	struct mm_reap reap;
	int err;

	if ((addr & ~MOAT_PAGE_MASK) || !size || addr > ARCH_TASK_SIZE ||
	    size > ARCH_TASK_SIZE - addr)
		return -EINVAL;
	mm_reap_init(&reap);
	rwlock_write_lock(&mm->vma_lock);
	err = mm_unmap_locked(mm, addr, addr + page_up(size), &reap);
	rwlock_write_unlock(&mm->vma_lock);
	mm_reap_run(&reap);
	return err;
}

int mm_detach(struct mm *mm, uint64_t addr, const struct mappable_ops *ops)
{
	struct mappable *attached = NULL;
	struct vma *vma, *next;
	struct mm_reap reap;

	mm_reap_init(&reap);
	rwlock_write_lock(&mm->vma_lock);
	for (vma = vma_find_next(mm, addr); vma; vma = next) {
		next = vma_next(vma);
		/* Pieces of one attachment: parts of it may be unmapped, or have another protection. */
		if (!vma->mappable || vma->mappable->ops != ops || vma->start - vma->off != addr)
			continue;
		if (attached && vma->mappable != attached)
			continue;
		attached = vma->mappable;
		/* What is sealed stays, and shmdt(2) does not say so. */
		(void)!mm_unmap_locked(mm, vma->start, vma->end, &reap);
	}
	rwlock_write_unlock(&mm->vma_lock);
	mm_reap_run(&reap);
	return attached ? 0 : -EINVAL;
}

/* Where a mapping without MAP_FIXED goes: the hint if it is free, else top-down from mmap_base. */
static int mm_place(struct mm *mm, const struct mm_map_args *args, uint64_t size,
		    uint64_t *ret_addr)
{
	uint64_t base = mm->layout.mmap_base, hint = page_down(args->addr);
	uint64_t align = args->huge_align ? 2ul << 20 : MOAT_PAGE_SIZE;

	if (args->addr) {
		/* Linux rounds the hint up, and lifts it to mmap_min_addr. */
		hint = MAX(page_up(args->addr), MM_MIN_ADDR);
		if (hint <= ARCH_TASK_SIZE && size <= ARCH_TASK_SIZE - hint) {
			struct vma *next = vma_find_next(mm, hint);
			uint64_t limit = !next				? ARCH_TASK_SIZE
					 : next->flags & VMA_GROWS_DOWN ? next->start - MM_STACK_GAP
									: next->start;

			if (hint + size <= limit && !mm_reserved(mm, hint, size)) {
				*ret_addr = hint;
				return 0;
			}
		}
	}
	if (!vma_find_gap(mm, size, MM_MIN_ADDR, base, align, ret_addr))
		return 0;
	if (align > MOAT_PAGE_SIZE &&
	    !vma_find_gap(mm, size, MM_MIN_ADDR, base, MOAT_PAGE_SIZE, ret_addr))
		return 0;
	return vma_find_gap(mm, size, base, ARCH_TASK_SIZE, MOAT_PAGE_SIZE, ret_addr);
}

/* RLIMIT_AS, RLIMIT_DATA and the overcommit heuristic, for `size` more bytes. */
static int mm_may_grow(struct mm *mm, uint64_t size, uint64_t replaced, unsigned prot,
		       unsigned flags, const struct mm_limits *lim)
{
	if (mm->vm_bytes - replaced + size > lim->as_bytes)
		return -ENOMEM;
	if (vma_is_data(prot, flags)) {
		if (mm->data_bytes + size > lim->data_bytes)
			return -ENOMEM;
		/* Policy 0: only what could never fit is refused. */
		if (!(flags & VMA_NORESERVE) && size > mm_overcommit_bytes())
			return -ENOMEM;
	}
	return 0;
}

static int mm_map_check(const struct mm *mm, const struct mm_map_args *args, uint64_t *ret_size)
{
	uint64_t size = page_up(args->size);

	if (!args->size)
		return -EINVAL;
	if (!size || size > ARCH_TASK_SIZE)
		return -ENOMEM;
	if (args->off & ~MOAT_PAGE_MASK)
		return -EINVAL;
	if (args->mappable && (args->off > MM_FILE_END || size > MM_FILE_END - args->off))
		return -EOVERFLOW;
	if (args->fixed || args->fixed_noreplace) {
		if (args->addr > ARCH_TASK_SIZE - size)
			return -ENOMEM;
		if (args->addr & ~MOAT_PAGE_MASK)
			return -EINVAL;
		if (args->addr < MM_MIN_ADDR)
			return -EPERM;
		if (mm_reserved(mm, args->addr, size))
			return -ENOMEM;
	}
	*ret_size = size;
	return 0;
}

static struct vma *mm_vma_from_args(struct mm *mm, const struct mm_map_args *args)
{
	struct vma *vma = vma_alloc();

	if (!vma)
		return NULL;
	vma->prot = args->prot & (PROT_READ | PROT_WRITE | PROT_EXEC);
	vma->max_prot = args->max_prot | vma->prot;
	vma->flags = (args->shared ? VMA_SHARED : 0) | (args->grows_down ? VMA_GROWS_DOWN : 0) |
		     (args->stack && args->grows_down ? VMA_STACK : 0) |
		     (args->locked ? VMA_LOCKED : 0) | (args->noreserve ? VMA_NORESERVE : 0) |
		     mm->lock_future;
	vma->name = args->name;
	if (args->mappable) {
		vma->off = args->off;
		vma->mappable = args->mappable;
		vma->mappable->ops->ref(vma->mappable);
	}
	vma->file = args->file ? file_ref(args->file) : NULL;
	return vma;
}

/* Registers and inserts. A file sealed against writing is still mapped shared, for good read-only. */
static int mm_insert(struct mm *mm, struct vma *vma)
{
	int err = vma_insert(mm, vma);

	if (err == -EPERM && !(vma->prot & PROT_WRITE)) {
		vma->max_prot &= ~(unsigned)PROT_WRITE;
		err = vma_insert(mm, vma);
	}
	return err;
}

static int mm_map_locked(struct mm *mm, const struct mm_map_args *args, const struct mm_limits *lim,
			 uint64_t size, struct mm_reap *reap, uint64_t *ret_addr)
{
	uint64_t addr = args->addr, replaced = 0;
	struct vma *vma;
	int err;

	if (args->fixed || args->fixed_noreplace) {
		replaced = mm_overlap_bytes(mm, addr, addr + size);
		if (args->fixed_noreplace && replaced)
			return -EEXIST;
	} else {
		err = mm_place(mm, args, size, &addr);
		if (err)
			return err;
	}
	if (mm_vmas_full(mm, false))
		return -ENOMEM;
	vma = mm_vma_from_args(mm, args);
	if (!vma)
		return -ENOMEM;
	vma->start = addr;
	vma->end = addr + size;
	err = mm_may_grow(mm, size, replaced, vma->prot, vma->flags, lim);
	if (!err && (vma->flags & VMA_LOCKED) && mm->locked_bytes + size > lim->memlock_bytes)
		err = -EAGAIN;
	if (!err && replaced)
		err = mm_unmap_locked(mm, addr, addr + size, reap);
	if (!err)
		err = mm_insert(mm, vma);
	if (err) {
		vma->reap_next = reap->vmas;
		reap->vmas = vma;
		return err;
	}
	if (!(vma->flags & VMA_GROWS_DOWN))
		vma_merge(mm, vma, reap);
	*ret_addr = addr;
	return 0;
}

/*
 * What is surely touched next: a library's segments (MAP_FIXED over its reservation), and small new
 * anonymous memory. A library's first mapping, which the others replace, is not.
 */
static void mm_map_prefault(struct mm *mm, const struct mm_map_args *args, uint64_t addr,
			    uint64_t size)
{
	bool write = args->prot & PROT_WRITE;

	if (args->shared || args->grows_down || !args->prot)
		return;
	if (!args->mappable) {
		if (write && size <= MM_PREFAULT_ANON)
			mm_prefault(mm, addr, size, true);
	} else if (args->fixed && ((args->prot & PROT_EXEC) || size <= MM_AROUND_SMALL)) {
		mm_prefault(mm, addr, MIN(size, MM_EXTENT_MAX), write && size <= 2 * MM_COW_GROUP);
	}
}

int mm_map(struct mm *mm, const struct mm_map_args *args, const struct mm_limits *lim,
	   uint64_t *ret_addr)
{
	struct mm_map_args with_shm;
	struct mappable *shm = NULL;
	struct mm_reap reap;
	uint64_t size, addr = 0;
	bool populate;
	int err = mm_map_check(mm, args, &size);

	if (err)
		return err;
	if (args->shared && !args->mappable) {
		/* Checked again under the lock; here so that a wild size costs no table. */
		if (size > mm_overcommit_bytes() && !args->noreserve)
			return -ENOMEM;
		err = mm_shared_memory_create(size, &shm);
		if (err)
			return err;
		with_shm = *args;
		with_shm.mappable = shm;
		with_shm.off = 0;
		with_shm.name = "/dev/zero (deleted)";
		args = &with_shm;
	}
	mm_reap_init(&reap);
	rwlock_write_lock(&mm->vma_lock);
	err = mm_map_locked(mm, args, lim, size, &reap, &addr);
	populate = args->populate || args->locked ||
		   (mm->lock_future & (VMA_LOCKED | VMA_LOCK_ONFAULT)) == VMA_LOCKED;
	rwlock_write_unlock(&mm->vma_lock);
	mm_reap_run(&reap);
	if (shm)
		shm->ops->unref(shm);
	if (err)
		return err;
	/* As on Linux, what cannot be populated now faults later. */
	if (populate && mm_populate(mm, addr, size))
		populate = false;
	if (!populate)
		mm_map_prefault(mm, args, addr, size);
	*ret_addr = addr;
	return 0;
}

/* brk(2) to a higher address. Pre: vma_lock (write); both page-aligned. */
static int mm_brk_grow(struct mm *mm, uint64_t from, uint64_t to, const struct mm_limits *lim,
		       struct mm_reap *reap)
{
	struct mm_map_args args = {
		.prot = PROT_READ | PROT_WRITE,
		.max_prot = PROT_READ | PROT_WRITE | PROT_EXEC,
		.name = "[heap]",
	};
	struct vma *next = vma_find_next(mm, from), *vma;
	uint64_t limit = ARCH_TASK_SIZE;
	int err;

	if (next)
		limit = next->flags & VMA_GROWS_DOWN ? next->start - MM_STACK_GAP : next->start;
	if (to > limit)
		return -ENOMEM;
	if (mm_vmas_full(mm, false) || mm_reserved(mm, from, to - from))
		return -ENOMEM;
	err = mm_may_grow(mm, to - from, 0, args.prot, 0, lim);
	if (!err && (mm->lock_future & VMA_LOCKED) &&
	    mm->locked_bytes + (to - from) > lim->memlock_bytes)
		err = -EAGAIN;
	if (err)
		return err;
	vma = mm_vma_from_args(mm, &args);
	if (!vma)
		return -ENOMEM;
	vma->start = from;
	vma->end = to;
	err = mm_insert(mm, vma);
	assert(!err);
	vma_merge(mm, vma, reap);
	return 0;
}

int mm_brk(struct mm *mm, uint64_t brk, const struct mm_limits *lim, uint64_t *ret_brk)
{
	struct mm_reap reap;
	struct mm_layout *l = &mm->layout;
	uint64_t from, to;
	bool grown = false;
	int err = 0;

	mm_reap_init(&reap);
	rwlock_write_lock(&mm->vma_lock);
	from = page_up(l->brk);
	to = page_up(brk);
	if (brk < l->start_brk || brk > ARCH_TASK_SIZE)
		goto out;
	if (brk - l->start_brk + (l->end_data - l->start_data) > lim->data_bytes)
		goto out;
	if (to < from)
		err = mm_unmap_locked(mm, to, from, &reap);
	else if (to > from)
		err = mm_brk_grow(mm, from, to, lim, &reap);
	if (!err) {
		grown = to > from;
		l->brk = brk;
	}
out:
	/* The call has no errors: the old break says that nothing happened. */
	*ret_brk = l->brk;
	rwlock_write_unlock(&mm->vma_lock);
	mm_reap_run(&reap);
	if (grown)
		mm_prefault(mm, from, MIN(to - from, MM_EXTENT_MIN), true);
	return 0;
}
