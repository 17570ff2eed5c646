/*
 * sentry/mm/fault.c - making translations: demand paging, copy-on-write, fault-around, stack growth.
 *
 * A fault runs with vma_lock held for reading, so VMAs stand still. Whoever finds a translation that suffices
 * (another thread was faster; the platform dropped its entry) only installs it again. Where the file has no
 * data yet, all locks are dropped for mappable_ops.populate() and the fault starts over.
 */
#include <signal.h>
#include <stdlib.h>

#include "mem/guard.h"
#include "mem/pressure.h"
#include "sentry/mm/internal.h"

/* fault_in() and below: try again with what has changed. */
#define FAULT_AGAIN 1

struct fault {
	struct mm *mm;
	struct vma *vma;
	uint64_t addr;
	unsigned access; /* MEM_* that is wanted */
	unsigned flags; /* FAULT_* */
	unsigned map_flags; /* PLATFORM_MAP_* */
	bool sigbus; /* -EFAULT means SIGBUS */
	bool accerr;
	struct mappable *populate; /* a reference, with FAULT_AGAIN */
	uint64_t populate_off, populate_size;
	struct mm_reap reap;
};

int (*mm_over_limit)(void);

int mm_relieve(void)
{
	if (likely(!atomic_load_explicit(&mem_accounts_over, memory_order_relaxed)) ||
	    !mm_over_limit)
		return 0;
	return mm_over_limit();
}

/* Does this fault go on where the last one's window ended, up or down? */
static bool window_next(const struct fault *f)
{
	const struct vma *vma = f->vma;
	uint64_t page = page_down(f->addr);

	return (page >= vma->seq_hi && page - vma->seq_hi < vma->window) ||
	       (page < vma->seq_lo && vma->seq_lo - page <= vma->window);
}

/* The window that this fault maps, by the VMA's history; at most [lo, hi). Pre: pt_lock (write). */
static void fault_window(struct fault *f, uint64_t lo, uint64_t hi, uint64_t *ret_start,
			 uint64_t *ret_end)
{
	struct vma *vma = f->vma;
	uint64_t page = page_down(f->addr), size = MM_EXTENT_MIN;
	bool next = window_next(f);

	if (next)
		size = MIN(MIN(vma->window * 2, MM_EXTENT_MAX),
			   atomic_load_explicit(&mem_piece, memory_order_relaxed));
	if (!next) {
		vma->ahead = 0;
		vma->plain = true;
	}
	vma->window = size;
	*ret_start = MAX(round_down_u64(page, size), lo);
	*ret_end = MIN(round_down_u64(page, size) + size, hi);
	vma->seq_lo = *ret_start;
	vma->seq_hi = *ret_end;
}

/* The hole between translations around addr, which none covers, within the VMA. */
static void fault_hole(struct fault *f, uint64_t *ret_lo, uint64_t *ret_hi)
{
	struct pma *prev = pma_floor(f->mm, f->addr);
	struct pma *next = prev ? pma_next(prev) : pma_find_next(f->mm, f->addr);

	*ret_lo = prev ? MAX(prev->end, f->vma->start) : f->vma->start;
	*ret_hi = next ? MIN(next->start, f->vma->end) : f->vma->end;
}

static int fault_map(struct fault *f, uint64_t start, uint64_t end)
{
	int err = pma_map_range(f->mm, start, end, f->addr, f->map_flags);
	if (err == -EFAULT)
		f->sigbus = true;
	return err;
}

/*
 * A page-by-page growing area (brk) goes on in the chunk that its last page has begun, if nobody else
 * holds that.
 */
static bool anon_extend(struct fault *f, struct pma *prev, uint64_t start, uint64_t *inout_end)
{
	uint64_t tail;

	if (!prev || prev->end != start || !(prev->flags & PMA_CLEAN_TAIL) ||
	    (prev->flags & PMA_COW))
		return false;
	tail = prev->off + (prev->end - prev->start);
	tail = round_up_u64(tail, MEM_CHUNK_SIZE) - tail;
	if (!tail || f->addr >= start + tail ||
	    !memfile_range_exclusive(prev->mf, prev->off + (prev->end - prev->start) - 1, 1))
		return false;
	if (prev->access != pma_calc_access(prev, f->vma->prot))
		return false;
	*inout_end = MIN(*inout_end, start + tail);
	f->mm->rss_anon += *inout_end - start;
	f->mm->rss_peak =
		MAX(f->mm->rss_peak, f->mm->rss_anon + f->mm->rss_file + f->mm->rss_shmem);
	prev->end = *inout_end;
	if (!((prev->off + (prev->end - prev->start)) & (MEM_CHUNK_SIZE - 1)))
		prev->flags &= ~(unsigned)PMA_CLEAN_TAIL;
	return true;
}

/*
 * Should the next window's pages be made ahead? Only if the application used what it was given: every eighth window is left
 * to be touched page by page, and counted when it is full. One that strides makes no page it does not touch.
 * Pre: pt_lock (write), before fault_window().
 */
static bool window_worth_it(struct fault *f)
{
	unsigned char present[MM_EXTENT_MAX >> MOAT_PAGE_SHIFT];
	struct vma *vma = f->vma;
	struct pma *pma = pma_find(f->mm, vma->seq_lo);
	size_t pages, used = 0, i;

	if (vma->ahead) {
		vma->ahead--;
		return true;
	}
	if (!vma->plain) {
		vma->plain = true;
		return false;
	}
	if (!pma || !(pma->flags & PMA_OWN) || vma->seq_hi <= vma->seq_lo)
		return false;
	pages = (MIN(vma->seq_hi, pma->end) - vma->seq_lo) >> MOAT_PAGE_SHIFT;
	pages = MIN(pages, sizeof(present));
	if (mincore(pma->ptr + (vma->seq_lo - pma->start), pages << MOAT_PAGE_SHIFT, present) < 0)
		return false;
	for (i = 0; i < pages; i++)
		used += present[i] & 1;
	if (used * 4 < pages * 3)
		return false;
	vma->ahead = MM_AHEAD_WINDOWS - 1;
	vma->plain = false;
	return true;
}

/* A new anonymous extent around addr. Pre: pt_lock (write), nothing is there. */
static int fault_anon_new(struct fault *f)
{
	struct mm *mm = f->mm;
	uint64_t lo, hi, start, end, skew, size, off, near = 0;
	struct pma *pma, *prev;
	bool ahead = window_next(f) && window_worth_it(f), exactly, warm;
	int err;

	fault_hole(f, &lo, &hi);
	fault_window(f, lo, hi, &start, &end);
	prev = start ? pma_find(mm, start - 1) : NULL;
	if (anon_extend(f, prev, start, &end))
		return fault_map(f, start, end);
	if (prev && (prev->flags & PMA_OWN))
		near = prev->off + (prev->end - prev->start);
	pma = pma_new(mm);
	if (!pma)
		return -ENOMEM;
	for (;;) {
		skew = start & (MEM_CHUNK_SIZE - 1);
		size = round_up_u64(skew + (end - start), MEM_CHUNK_SIZE);
		err = memfile_alloc_warm(mem_private(), size,
					 size == MM_EXTENT_MAX ? MEMFILE_ALLOC_ALIGN_2M : 0, near,
					 &off, &warm);
		if (!err || size == MEM_CHUNK_SIZE)
			break;
		/* Near the limit: only the chunk that is needed. */
		start = MAX(round_down_u64(f->addr, MEM_CHUNK_SIZE), start);
		end = MIN(round_down_u64(f->addr, MEM_CHUNK_SIZE) + MEM_CHUNK_SIZE, end);
	}
	if (err) {
		free(pma);
		return err;
	}
	*pma = (struct pma){
		.start = start,
		.end = end,
		.mf = mem_private(),
		.off = off + skew,
		.ptr = (char *)memfile_ptr(mem_private(), off) + skew,
		.flags = PMA_OWN | PMA_ANON,
	};
	if ((skew + (end - start)) & (MEM_CHUNK_SIZE - 1))
		pma->flags |= PMA_CLEAN_TAIL;
	pma->access = pma_calc_access(pma, f->vma->prot);
	exactly = pma_maps_existing(mm, pma);
	pma_insert(mm, pma);
	pma_merge(mm, pma);
	/* Pages that existed before say nothing of what the application used: the next window is not judged by them. */
	if (warm)
		f->vma->plain = false;
	/* A walk through memory: the host's pages may as well be made in one go. */
	if ((ahead || warm) && (f->access & MEM_WRITE) &&
	    (end - start > MM_EXTENT_MIN || exactly)) {
		f->map_flags = PLATFORM_MAP_WILL_TOUCH;
		if (!warm)
			memfile_commit(mem_private(), off + skew, end - start);
	}
	return fault_map(f, start, end);
}

/* A write (or a debugger) met a translation of ours that does not allow it. Pre: pt_lock (write). */
static int fault_own(struct fault *f)
{
	uint64_t start, end;
	int err = pma_break_cow(f->mm, f->vma, f->addr, &f->reap, &start, &end);

	if (err == -EFAULT)
		f->sigbus = true;
	if (err)
		return err;
	return fault_map(f, start, end);
}

/* Is the translation at addr enough? Then install it (again) in the platform. Pre: pt_lock. */
static bool fault_present(struct fault *f, int *ret_err)
{
	struct pma *pma = pma_find(f->mm, f->addr);
	unsigned want = f->access & ~(unsigned)MEM_EXEC;
	uint64_t lo, hi, size = MM_EXTENT_MAX;

	if (!pma)
		return false;
	if (f->flags & FAULT_FORCE) {
		/* Its protection is no matter; a write needs a page that is ours alone, or the file's own. */
		if ((want & MEM_WRITE) && !((pma->flags & PMA_OWN) && !(pma->flags & PMA_COW)) &&
		    !((pma->flags & PMA_SHARED) && (pma->limit & MEM_WRITE)))
			return false;
		*ret_err = 0;
		return true;
	}
	if ((pma->access & f->access) != f->access)
		return false;
	/* A page for each that is touched: what is around it is looked at each time. */
	if (pma_maps_existing(f->mm, pma))
		size = MEM_CHUNK_SIZE;
	lo = round_down_u64(f->addr, size);
	hi = MIN(lo + size, pma->end);
	lo = MAX(lo, pma->start);
	*ret_err = fault_map(f, MAX(lo, f->vma->start), MIN(hi, f->vma->end));
	return true;
}

/* Which part of the file to ask for: [*ret_start, *ret_end) of guest addresses. */
static void fault_around(struct fault *f, uint64_t *ret_start, uint64_t *ret_end)
{
	struct vma *vma = f->vma;
	bool whole = !(vma->flags & VMA_SHARED) &&
		     ((vma->prot & PROT_EXEC) || vma->end - vma->start <= MM_AROUND_SMALL);

	if (whole) {
		/* Programs and libraries: one fault for 2 MiB of text. */
		*ret_start = MAX(round_down_u64(f->addr, MM_EXTENT_MAX), vma->start);
		*ret_end = MIN(round_down_u64(f->addr, MM_EXTENT_MAX) + MM_EXTENT_MAX, vma->end);
		return;
	}
	rwlock_write_lock(&f->mm->pt_lock);
	if (vma->flags & VMA_RANDOM)
		vma->window = 0;
	fault_window(f, vma->start, vma->end, ret_start, ret_end);
	rwlock_write_unlock(&f->mm->pt_lock);
}

/*
 * Narrows a file's answer to whole pages inside [start, end) whose sentry addresses are contiguous and
 * include addr; the references follow. Return: 0 and the pointer of t->start's first byte.
 */
static int trans_clip(struct mem_trans *t, uint64_t start, uint64_t end, uint64_t at,
		      char **ret_ptr)
{
	struct mem_trans old = *t;
	char *ptr, *at_ptr;
	uint64_t len;

	start = MAX(start, t->start);
	end = MIN(end, t->start + t->size);
	ptr = memfile_ptr(t->mf, t->mf_off + (start - t->start));
	at_ptr = memfile_ptr(t->mf, t->mf_off + (at - t->start));
	if (!ptr || at_ptr != ptr + (at - start)) {
		start = at;
		ptr = at_ptr;
	}
	len = memfile_ptr_len(t->mf, t->mf_off + (start - t->start), end - start);
	end = MIN(end, start + len);
	t->mf_off += start - t->start;
	t->start = start;
	t->size = end - start;
	*ret_ptr = ptr;
	if (t->mf_off != old.mf_off || t->size != old.size) {
		int err = memfile_range_ref(t->mf, t->mf_off, t->size);

		memfile_range_unref(old.mf, old.mf_off, old.size);
		if (err)
			return err;
	}
	return 0;
}

/* Puts the file's pages [t] where they belong and installs them. Pre: data_lock, pt_lock (write). */
static int fault_file_install(struct fault *f, struct mem_trans *t, uint64_t start, uint64_t end)
{
	struct mm *mm = f->mm;
	struct vma *vma = f->vma;
	uint64_t delta = vma->off - vma->start; /* address + delta = offset */
	struct pma *pma = pma_find(mm, f->addr);
	uint64_t lo, hi;
	char *ptr;
	int err = pma_reserve(mm);

	if (err) {
		memfile_range_unref(t->mf, t->mf_off, t->size);
		return err;
	}
	if (pma && !(vma->flags & VMA_SHARED)) {
		/* Another thread was faster. */
		memfile_range_unref(t->mf, t->mf_off, t->size);
		return FAULT_AGAIN;
	}
	if (pma) {
		lo = pma->start;
		hi = pma->end;
	} else {
		fault_hole(f, &lo, &hi);
	}
	err = trans_clip(t, MAX(start, lo) + delta, MIN(end, hi) + delta,
			 page_down(f->addr) + delta, &ptr);
	if (err)
		return err;
	start = t->start - delta;
	end = start + t->size;
	if (pma && pma->mf == t->mf && pma->off + (start - pma->start) == t->mf_off) {
		/* The same page with more rights: nothing to take away first. */
		memfile_range_unref(t->mf, t->mf_off, t->size);
		if (pma->start < start)
			pma = pma_split(mm, pma, start);
		if (pma->end > end)
			pma_split(mm, pma, end);
		pma->limit = t->access;
		pma->access = pma_calc_access(pma, vma->prot);
		pma_merge(mm, pma);
		return fault_map(f, start, end);
	}
	if (pma)
		pma_drop_range(mm, start, end, false, &f->reap);
	pma = pma_new(mm);
	if (!pma) {
		memfile_range_unref(t->mf, t->mf_off, t->size);
		return -ENOMEM;
	}
	*pma = (struct pma){
		.start = start,
		.end = end,
		.mf = t->mf,
		.off = t->mf_off,
		.ptr = ptr,
		.flags = vma->flags & VMA_SHARED ? PMA_SHARED : 0,
		.limit = t->access,
	};
	pma->access = pma_calc_access(pma, vma->prot);
	pma_insert(mm, pma);
	if ((f->access & MEM_WRITE) && !(vma->flags & VMA_SHARED)) {
		err = pma_break_cow(mm, vma, f->addr, &f->reap, &lo, &hi);
		if (err == -EFAULT)
			f->sigbus = true;
	} else {
		pma_merge(mm, pma);
	}
	return err ? err : fault_map(f, start, end);
}

static int fault_file(struct fault *f)
{
	struct vma *vma = f->vma;
	struct mappable *m = vma->mappable;
	uint64_t delta = vma->off - vma->start, start, end;
	unsigned access = f->access & ~(unsigned)MEM_EXEC;
	struct mem_trans t;
	int err;

	fault_around(f, &start, &end);
	/* A private write reads the file. */
	access = vma->flags & VMA_SHARED ? access | MEM_READ : MEM_READ;
	rwlock_read_lock(&m->data_lock);
	err = m->ops->translate(m, page_down(f->addr) + delta, start + delta, end + delta, access,
				&t);
	if (!err) {
		rwlock_write_lock(&f->mm->pt_lock);
		err = fault_file_install(f, &t, start, end);
		rwlock_write_unlock(&f->mm->pt_lock);
	} else if (err == -EAGAIN && (f->flags & FAULT_NO_POPULATE)) {
		err = -EFAULT;
	} else if (err == -EAGAIN && m->ops->populate) {
		m->ops->ref(m);
		f->populate = m;
		f->populate_off = page_down(f->addr) + delta;
		f->populate_size = MOAT_PAGE_SIZE;
		err = FAULT_AGAIN;
	} else if (err == -EFAULT || err == -EIO || err == -ENOSPC || err == -EACCES ||
		   err == -EPERM || err == -EAGAIN) {
		f->sigbus = true;
		err = -EFAULT;
	}
	rwlock_read_unlock(&m->data_lock);
	return err;
}

/* Pre: vma_lock (read), f->vma covers addr. Return: 0, -EFAULT, -ENOMEM, FAULT_AGAIN. */
static int fault_in(struct fault *f)
{
	struct mm *mm = f->mm;
	struct pma *pma;
	int err = 0;
	bool done;

	rwlock_read_lock(&mm->pt_lock);
	done = fault_present(f, &err);
	rwlock_read_unlock(&mm->pt_lock);
	/* A host file's page may be gone (-EFAULT); anything else is final as well. */
	if (done)
		return err;
	rwlock_write_lock(&mm->pt_lock);
	if (fault_present(f, &err))
		goto out;
	pma = pma_find(mm, f->addr);
	if (pma && !(pma->flags & PMA_SHARED))
		err = fault_own(f);
	else if (!f->vma->mappable)
		err = fault_anon_new(f);
	else
		err = FAULT_AGAIN;
out:
	rwlock_write_unlock(&mm->pt_lock);
	if (err != FAULT_AGAIN)
		return err;
	return fault_file(f);
}

/* Does the VMA allow it? */
static bool fault_allowed(const struct fault *f)
{
	unsigned have = prot_access(f->vma->prot);

	if (f->flags & FAULT_FORCE) {
		have = prot_access(f->vma->max_prot);
		/* A debugger's write to a read-only shared mapping would change the file. */
		if ((f->vma->flags & VMA_SHARED) && !(f->vma->prot & PROT_WRITE))
			have &= ~(unsigned)MEM_WRITE;
		else if (!(f->vma->flags & VMA_SHARED))
			have |= MEM_WRITE;
	}
	return (have & f->access) == f->access;
}

/*
 * Lets the stack VMA above addr grow to it. Pre: vma_lock (write). Return: does a VMA cover addr now?
 */
static bool stack_grow(struct mm *mm, uint64_t addr)
{
	struct vma *vma = vma_find_next(mm, addr), *prev;
	uint64_t start = page_down(addr), limit, floor;

	if (!vma || vma->start <= addr)
		return vma != NULL;
	if (!(vma->flags & VMA_GROWS_DOWN) || start < MM_MIN_ADDR)
		return false;
	limit = atomic_load_explicit(&mm->stack_limit, memory_order_relaxed);
	if (vma->end - start > limit)
		return false;
	prev = vma_prev(vma);
	floor = MM_MIN_ADDR;
	if (prev && !(prev->flags & VMA_GROWS_DOWN) && prev->prot)
		floor = prev->end + MM_STACK_GAP;
	else if (prev)
		floor = prev->end;
	if (start < floor)
		return false;
	/* A little more than asked for: the next frames are near. */
	start = MAX(round_down_u64(start, MM_STACK_STEP), floor);
	if (vma->end - start > limit)
		start = page_down(addr);
	if (vma->flags & VMA_LOCKED)
		start = page_down(addr);
	vma_set_range(mm, vma, start, vma->end);
	return true;
}

/* One attempt. Return: 0, -errno, FAULT_AGAIN. */
static int fault_try(struct fault *f)
{
	struct mm *mm = f->mm;
	int err;

	rwlock_read_lock(&mm->vma_lock);
	f->vma = vma_find(mm, f->addr);
	if (!f->vma) {
		bool grown;

		rwlock_read_unlock(&mm->vma_lock);
		rwlock_write_lock(&mm->vma_lock);
		grown = stack_grow(mm, f->addr);
		rwlock_write_unlock(&mm->vma_lock);
		return grown ? FAULT_AGAIN : -EFAULT;
	}
	if (!fault_allowed(f)) {
		f->accerr = true;
		err = -EFAULT;
	} else {
		err = fault_in(f);
	}
	rwlock_read_unlock(&mm->vma_lock);
	return err;
}

int mm_fault_flags(struct mm *mm, uint64_t addr, unsigned access, unsigned flags, int *ret_signo,
		   int *ret_sicode)
{
	struct fault f = {.mm = mm, .addr = addr, .access = access | MEM_READ, .flags = flags};
	int err;

	do {
		/* Not who only looks ahead. */
		err = flags & FAULT_NO_POPULATE ? 0 : mm_relieve();
		if (err)
			break;
		if (addr >= ARCH_TASK_SIZE) {
			err = -EFAULT;
			break;
		}
		err = fault_try(&f);
		mm_reap_run(&f.reap);
		if (err == FAULT_AGAIN && f.populate) {
			int got = f.populate->ops->populate(f.populate, f.populate_off,
							    f.populate_size, access);

			f.populate->ops->unref(f.populate);
			f.populate = NULL;
			if (got == -EINTR || got == -ENOMEM) {
				err = got;
			} else if (got < 0) {
				f.sigbus = true;
				err = -EFAULT;
			}
		}
	} while (err == FAULT_AGAIN);
	if (err == -EFAULT) {
		*ret_signo = f.sigbus ? SIGBUS : SIGSEGV;
		*ret_sicode = f.sigbus ? BUS_ADRERR : f.accerr ? SEGV_ACCERR : SEGV_MAPERR;
	}
	return err;
}

int mm_fault(struct mm *mm, uint64_t addr, unsigned access, int *ret_signo, int *ret_sicode)
{
	return mm_fault_flags(mm, addr, access, 0, ret_signo, ret_sicode);
}

/* What of [addr, end) has a translation from addr on that allows `access`; 0 if none. */
static uint64_t populated_to(struct mm *mm, uint64_t addr, unsigned access)
{
	struct pma *pma;
	uint64_t end = 0;

	rwlock_read_lock(&mm->pt_lock);
	pma = pma_find(mm, addr);
	if (pma && (pma->access & access) == access)
		end = pma->end;
	rwlock_read_unlock(&mm->pt_lock);
	return end;
}

void mm_prefault(struct mm *mm, uint64_t addr, uint64_t size, bool write)
{
	uint64_t end = addr + size;
	int signo, sicode;

	while (addr < end) {
		if (mm_fault_flags(mm, addr, write ? MEM_WRITE : MEM_READ, FAULT_NO_POPULATE,
				   &signo, &sicode))
			return;
		addr = MAX(populated_to(mm, addr, write ? MEM_WRITE : MEM_READ),
			   addr + MOAT_PAGE_SIZE);
	}
}

int mm_populate(struct mm *mm, uint64_t addr, uint64_t size)
{
	uint64_t end = page_up(addr + size);

	addr = page_down(addr);
	while (addr < end) {
		unsigned access = MEM_READ;
		struct vma *vma;
		uint64_t stop = 0, to;
		int signo, sicode, err;

		rwlock_read_lock(&mm->vma_lock);
		vma = vma_find_next(mm, addr);
		if (vma) {
			addr = MAX(addr, vma->start);
			stop = MIN(vma->end, end);
			if ((vma->prot & PROT_WRITE) && !(vma->flags & VMA_SHARED))
				access = MEM_WRITE;
			if (!vma->prot)
				addr = stop;
		}
		rwlock_read_unlock(&mm->vma_lock);
		if (!vma)
			break;
		while (addr < stop) {
			err = mm_fault(mm, addr, access, &signo, &sicode);
			if (err)
				return err == -EFAULT ? -EFAULT : err;
			to = populated_to(mm, addr, access == MEM_WRITE ? MEM_WRITE : MEM_READ);
			addr = MAX(to, addr + MOAT_PAGE_SIZE);
		}
	}
	return 0;
}
