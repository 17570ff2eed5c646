/*
 * sentry/mm/pma.c - translations: which memory-file pages are where, and copy-on-write.
 *
 * A pma holds one reference on every chunk that it overlaps, so splitting one inside a chunk takes
 * one more. Chunks are 64 KiB; new private memory is laid out so that an address and its
 * offset agree modulo that, and a copy-on-write group is then exactly one chunk: when both sides of
 * a fork have copied or written it, nobody holds the other's.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "mem/guard.h"
#include "sentry/mm/internal.h"
#include "vfs/file.h"

#undef RB_AUGMENT
#define RB_AUGMENT(pma) ((void)(pma))

static int pma_cmp(const struct pma *a, const struct pma *b)
{
	return a->start < b->start ? -1 : a->start > b->start;
}

RB_GENERATE_LOCAL(pma_tree, pma, node, pma_cmp)

struct pma *pma_find_next(struct mm *mm, uint64_t addr)
{
	struct pma *pma = RB_ROOT(&mm->pmas), *best = NULL;

	while (pma) {
		if (pma->end > addr) {
			best = pma;
			pma = RB_LEFT(pma, node);
		} else {
			pma = RB_RIGHT(pma, node);
		}
	}
	return best;
}

struct pma *pma_find(struct mm *mm, uint64_t addr)
{
	struct pma *pma = pma_find_next(mm, addr);

	return pma && pma->start <= addr ? pma : NULL;
}

struct pma *pma_floor(struct mm *mm, uint64_t addr)
{
	struct pma *pma = RB_ROOT(&mm->pmas), *best = NULL;

	while (pma) {
		if (pma->start <= addr) {
			best = pma;
			pma = RB_RIGHT(pma, node);
		} else {
			pma = RB_LEFT(pma, node);
		}
	}
	return best;
}

struct pma *pma_next(struct pma *pma)
{
	return RB_NEXT(pma_tree, NULL, pma);
}

struct pma *pma_prev(struct pma *pma)
{
	return RB_PREV(pma_tree, NULL, pma);
}

struct pma *pma_new(struct mm *mm)
{
	struct pma *pma = malloc(sizeof(*pma));

	if (!pma && mm->reserve) {
		pma = mm->reserve;
		mm->reserve = pma->reap_next;
	}
	return pma;
}

int pma_reserve(struct mm *mm)
{
	unsigned have = mm->reserve ? 1 + (mm->reserve->reap_next != NULL) : 0;

	for (; have < 2; have++) {
		struct pma *pma = malloc(sizeof(*pma));

		if (!pma)
			return -ENOMEM;
		pma->reap_next = mm->reserve;
		mm->reserve = pma;
	}
	return 0;
}

static void pma_count_rss(struct mm *mm, const struct pma *pma, uint64_t size)
{
	uint64_t rss;

	if (pma->flags & PMA_ANON)
		mm->rss_anon += size;
	else if (memfile_kind(pma->mf) == MEMFILE_PRIVATE)
		mm->rss_shmem += size;
	else
		mm->rss_file += size;
	rss = mm->rss_anon + mm->rss_file + mm->rss_shmem;
	if (rss > mm->rss_peak)
		mm->rss_peak = rss;
}

void pma_insert(struct mm *mm, struct pma *pma)
{
	assert(pma->start < pma->end);
	if (RB_INSERT(pma_tree, &mm->pmas, pma))
		assert(!"two translations at one address");
	pma_count_rss(mm, pma, pma->end - pma->start);
}

void pma_remove(struct mm *mm, struct pma *pma, struct mm_reap *reap)
{
	RB_REMOVE(pma_tree, &mm->pmas, pma);
	pma_count_rss(mm, pma, pma->start - pma->end);
	pma->reap_next = reap->pmas;
	reap->pmas = pma;
}

struct pma *pma_split(struct mm *mm, struct pma *pma, uint64_t at)
{
	struct pma *upper = pma_new(mm);
	uint64_t skip = at - pma->start;

	assert(upper && at > pma->start && at < pma->end);
	*upper = *pma;
	upper->start = at;
	upper->off += skip;
	upper->ptr += skip;
	pma->end = at;
	pma->flags &= ~(unsigned)PMA_CLEAN_TAIL;
	if (upper->off & (MEM_CHUNK_SIZE - 1)) {
		/* The chunk has a reference of ours already, so a host file's is mapped: no failure. */
		if (memfile_range_ref(upper->mf, upper->off, 1))
			assert(!"a held chunk cannot be referenced");
	}
	if (RB_INSERT(pma_tree, &mm->pmas, upper))
		assert(!"two translations at one address");
	return upper;
}

unsigned pma_calc_access(const struct pma *pma, unsigned prot)
{
	unsigned access = prot_access(prot);

	if (pma->flags & PMA_OWN) {
		if (pma->flags & PMA_COW)
			access &= ~(unsigned)MEM_WRITE;
	} else if (pma->flags & PMA_SHARED) {
		access &= pma->limit | MEM_EXEC;
	} else {
		access &= ~(unsigned)MEM_WRITE;
	}
	return access;
}

void pma_drop_range(struct mm *mm, uint64_t start, uint64_t end, bool keep_own,
		    struct mm_reap *reap)
{
	struct pma *pma = pma_find_next(mm, start), *next;
	uint64_t lo = UINT64_MAX, hi = 0;

	for (; pma && pma->start < end; pma = next) {
		if (keep_own && (pma->flags & PMA_OWN)) {
			if (lo < hi)
				mm->platform->ops->as_unmap(mm->as, lo, hi - lo);
			lo = UINT64_MAX;
			hi = 0;
			next = pma_next(pma);
			continue;
		}
		if (pma->start < start)
			pma = pma_split(mm, pma, start);
		if (pma->end > end)
			pma_split(mm, pma, end);
		next = pma_next(pma);
		lo = MIN(lo, pma->start);
		hi = MAX(hi, pma->end);
		pma_remove(mm, pma, reap);
	}
	if (lo < hi)
		mm->platform->ops->as_unmap(mm->as, lo, hi - lo);
}

static int pma_map_piece(struct mm *mm, const struct pma *pma, uint64_t start, uint64_t end,
			 unsigned flags)
{
	int err = mm->platform->ops->as_map(
		mm->as, start, end - start, pma->mf, pma->off + (start - pma->start), pma->access,
		flags | (pma->flags & PMA_SHARED ? PLATFORM_MAP_SHARED : 0));

	/* What was there before may be a page that is no longer ours. */
	if (err)
		mm->platform->ops->as_unmap(mm->as, start, end - start);
	return err;
}

/*
 * While mem_exact: of [start, end), at most MM_EXTENT_MAX, the pages that exist, and the one with `need`. What else the application touches it must ask for. Return: as
 * pma_map_piece(), of the page with `need`.
 */
static int pma_map_existing(struct mm *mm, const struct pma *pma, uint64_t start, uint64_t end,
			    uint64_t need, unsigned flags)
{
	unsigned char present[MM_EXTENT_MAX >> MOAT_PAGE_SHIFT];
	size_t count = (end - start) >> MOAT_PAGE_SHIFT, i = 0, first;
	int ret = 0;

	if (mincore(pma->ptr + (start - pma->start), end - start, present) < 0)
		memset(present, 0, count);
	if (need >= start && need < end && !(present[(need - start) >> MOAT_PAGE_SHIFT] & 1)) {
		present[(need - start) >> MOAT_PAGE_SHIFT] = 1;
		mem_account_page();
	}
	while (i < count) {
		uint64_t lo, hi;
		int err;

		for (; i < count && !(present[i] & 1); i++)
			;
		for (first = i; i < count && (present[i] & 1); i++)
			;
		lo = start + (first << MOAT_PAGE_SHIFT);
		hi = start + (i << MOAT_PAGE_SHIFT);
		err = first < i ? pma_map_piece(mm, pma, lo, hi, flags) : 0;
		if (err && need >= lo && need < hi)
			ret = err;
	}
	return ret;
}

bool pma_maps_existing(const struct mm *mm, const struct pma *pma)
{
	return atomic_load_explicit(&mem_exact, memory_order_relaxed) &&
	       mm->platform->ops->maps_pages && memfile_kind(pma->mf) == MEMFILE_PRIVATE;
}

static int pma_map_exactly(struct mm *mm, const struct pma *pma, uint64_t start, uint64_t end,
			   uint64_t need, unsigned flags)
{
	int ret = 0;

	/* Not the hint that all of it is about to be touched. What was mapped before may be a page that is no longer ours. */
	flags &= ~(unsigned)PLATFORM_MAP_WILL_TOUCH;
	mm->platform->ops->as_unmap(mm->as, start, end - start);
	for (; start < end; start += MIN(end - start, MM_EXTENT_MAX)) {
		int err = pma_map_existing(mm, pma, start, MIN(end, start + MM_EXTENT_MAX), need,
					   flags);

		ret = ret ? ret : err;
	}
	return ret;
}

void mm_unmap_ahead(struct mm *mm)
{
	struct pma *pma;

	if (!mm->platform->ops->maps_pages)
		return;
	rwlock_write_lock(&mm->pt_lock);
	for (pma = pma_find_next(mm, 0); pma; pma = pma_next(pma))
		if (memfile_kind(pma->mf) == MEMFILE_PRIVATE)
			mm->platform->ops->as_unmap(mm->as, pma->start, pma->end - pma->start);
	rwlock_write_unlock(&mm->pt_lock);
}

int pma_map_range(struct mm *mm, uint64_t start, uint64_t end, uint64_t need, unsigned flags)
{
	struct pma *pma = pma_find_next(mm, start);
	int ret = 0;

	for (; pma && pma->start < end; pma = pma_next(pma)) {
		uint64_t lo = MAX(start, pma->start), hi = MIN(end, pma->end);
		bool has_need = need >= lo && need < hi;
		int err;

		if (!pma->access)
			continue;
		/* A host file may end anywhere: the page that is needed comes first. */
		if (has_need && page_down(need) > lo && memfile_kind(pma->mf) == MEMFILE_HOST) {
			ret = pma_map_piece(mm, pma, page_down(need), hi, flags);
			hi = page_down(need);
			has_need = false;
		}
		err = pma_maps_existing(mm, pma) ? pma_map_exactly(mm, pma, lo, hi, need, flags)
						 : pma_map_piece(mm, pma, lo, hi, flags);
		if (err && has_need)
			ret = err;
	}
	return ret;
}

/* Joins two neighbours that are one in everything but the tree. Return: the joined one. */
static struct pma *pma_join(struct mm *mm, struct pma *a, struct pma *b)
{
	const unsigned transient = PMA_CLEAN_TAIL;

	if (a->end != b->start || a->mf != b->mf || a->off + (a->end - a->start) != b->off ||
	    a->ptr + (a->end - a->start) != b->ptr || a->access != b->access ||
	    a->limit != b->limit || (a->flags | transient) != (b->flags | transient))
		return NULL;
	RB_REMOVE(pma_tree, &mm->pmas, b);
	if (b->off & (MEM_CHUNK_SIZE - 1))
		memfile_range_unref(b->mf, b->off, 1);
	a->end = b->end;
	a->flags = b->flags;
	free(b);
	return a;
}

struct pma *pma_merge(struct mm *mm, struct pma *pma)
{
	struct pma *prev = pma_prev(pma), *next, *joined;

	joined = prev ? pma_join(mm, prev, pma) : NULL;
	if (joined)
		pma = joined;
	next = pma_next(pma);
	if (next)
		pma_join(mm, pma, next);
	return pma;
}

/* The chunk at addr has no other holder: it is written in place, and its neighbours like it. */
static bool cow_claim(struct mm *mm, struct vma *vma, struct pma *pma, uint64_t addr,
		      uint64_t *ret_start, uint64_t *ret_end)
{
	uint64_t off = pma->off + (page_down(addr) - pma->start);
	uint64_t first = pma->off, last = pma->off + (pma->end - pma->start);
	uint64_t lo = round_down_u64(off, MEM_CHUNK_SIZE), hi = lo + MEM_CHUNK_SIZE;
	uint64_t start, end;

	if (!memfile_range_exclusive(pma->mf, lo, MEM_CHUNK_SIZE))
		return false;
	while (hi < last && hi - lo < MM_EXTENT_MAX &&
	       memfile_range_exclusive(pma->mf, hi, MEM_CHUNK_SIZE))
		hi += MEM_CHUNK_SIZE;
	while (lo > first && hi - lo < MM_EXTENT_MAX &&
	       memfile_range_exclusive(pma->mf, lo - MEM_CHUNK_SIZE, MEM_CHUNK_SIZE))
		lo -= MEM_CHUNK_SIZE;
	start = pma->start + (MAX(lo, first) - first);
	end = pma->start + (MIN(hi, last) - first);
	if (start > pma->start)
		pma = pma_split(mm, pma, start);
	if (end < pma->end)
		pma_split(mm, pma, end);
	pma->flags &= ~(unsigned)PMA_COW;
	pma->access = pma_calc_access(pma, vma->prot);
	pma_merge(mm, pma);
	*ret_start = start;
	*ret_end = end;
	return true;
}

/* `pages` pages exist at src; at dst they exist (warm) or do not. */
static int copy_pages(char *dst, const char *src, size_t pages, bool warm)
{
	size_t size = pages << MOAT_PAGE_SHIFT;
	ssize_t n;

	/* Guarded: the host raises SIGBUS when it has no page left. */
	if (warm)
		return guard_copy(dst, src, size) ? -ENOMEM : 0;
	/*
	 * Half the price of touching a page that the host must first make and clear. Not through libc, whose TSan
	 * interceptor would take the application's own races for ours.
	 */
	n = syscall(SYS_pwrite64, memfile_fd(mem_private()), src, size,
		    dst - (char *)memfile_ptr(mem_private(), 0));
	if (n >= 0 && (size_t)n == size)
		return 0;
	return guard_copy(dst, src, size) ? -ENOMEM : 0;
}

static int copy_group(char *dst, const char *src, uint64_t size)
{
	unsigned char have[MM_COW_GROUP >> MOAT_PAGE_SHIFT], warm[MM_COW_GROUP >> MOAT_PAGE_SHIFT];
	uint64_t src_off = (uint64_t)(src - (const char *)memfile_ptr(mem_private(), 0));
	size_t pages = size >> MOAT_PAGE_SHIFT, i, run;
	int err;

	if (mincore((void *)(uintptr_t)src, size, have) < 0)
		memset(have, 1, pages);
	if (mincore(dst, size, warm) < 0)
		memset(warm, 0, pages);
	for (i = 0; i < pages; i += run) {
		for (run = 1; i + run < pages; run++)
			if (((have[i + run] ^ have[i]) | (warm[i + run] ^ warm[i])) & 1)
				break;
		/* Absent, or in the host's swap. */
		if (!(have[i] & 1) && !memfile_private_has_data(src_off + (i << MOAT_PAGE_SHIFT),
								run << MOAT_PAGE_SHIFT))
			continue;
		err = copy_pages(dst + (i << MOAT_PAGE_SHIFT), src + (i << MOAT_PAGE_SHIFT), run,
				 warm[i] & 1);
		if (err)
			return err;
	}
	return 0;
}

/*
 * Copies [src, src + size) of private memory into fresh memory, skipping pages that do not exist: they
 * read as zeros on both sides, and touching them would allocate them.
 */
int pma_copy_private(char *dst, const char *src, uint64_t size)
{
	uint64_t done, n;
	int err;

	for (done = 0; done < size; done += n) {
		n = MIN(size - done, MM_COW_GROUP);
		err = copy_group(dst + done, src + done, n);
		if (err)
			return err;
	}
	return 0;
}

/*
 * Copies a host file's pages around `need`, as many of [*lo, *hi) as exist. Offsets from src.
 * Return: false if `need` itself is past the end.
 */
static bool cow_copy_host(char *dst, const char *src, uint64_t need, uint64_t *lo, uint64_t *hi)
{
	uint64_t pos = need;

	if (guard_copy(dst + need, src + need, MOAT_PAGE_SIZE))
		return false;
	for (pos = need + MOAT_PAGE_SIZE; pos < *hi; pos += MOAT_PAGE_SIZE)
		if (guard_copy(dst + pos, src + pos, MOAT_PAGE_SIZE))
			break;
	*hi = MIN(*hi, pos);
	for (pos = need; pos > *lo; pos -= MOAT_PAGE_SIZE)
		if (guard_copy(dst + pos - MOAT_PAGE_SIZE, src + pos - MOAT_PAGE_SIZE,
			       MOAT_PAGE_SIZE))
			break;
	*lo = MAX(*lo, pos);
	return true;
}

/* The group around addr moves to private memory of its own. */
static int cow_copy(struct mm *mm, struct vma *vma, struct pma *pma, uint64_t addr,
		    struct mm_reap *reap, uint64_t *ret_start, uint64_t *ret_end)
{
	bool congruent = pma->flags & PMA_OWN;
	uint64_t base = congruent ? pma->off : pma->start; /* what the group is aligned in */
	uint64_t at = base + (page_down(addr) - pma->start);
	uint64_t lo = MAX(round_down_u64(at, MM_COW_GROUP), base);
	uint64_t hi = MIN(round_down_u64(at, MM_COW_GROUP) + MM_COW_GROUP,
			  base + (pma->end - pma->start));
	uint64_t start = pma->start + (lo - base), end = pma->start + (hi - base);
	uint64_t shift = lo & (MM_COW_GROUP - 1), dst_off, from = 0, to;
	struct pma *old, *prev;
	char *dst;
	int err;

	if (vma->start > start) {
		shift += vma->start - start;
		start = vma->start;
	}
	end = MIN(end, vma->end);
	to = end - start;
	prev = pma_find(mm, start - 1);
	old = pma_new(mm);
	if (!old)
		return -ENOMEM;
	err = memfile_alloc(mem_private(), MEM_CHUNK_SIZE, 0,
			    prev && (prev->flags & PMA_OWN) ? prev->off + (prev->end - prev->start)
							    : 0,
			    &dst_off);
	if (err)
		goto out_free;
	dst = (char *)memfile_ptr(mem_private(), dst_off) + shift;
	if (memfile_kind(pma->mf) == MEMFILE_PRIVATE) {
		err = pma_copy_private(dst, pma->ptr + (start - pma->start), end - start);
		if (err)
			goto out_unref;
	} else if (!cow_copy_host(dst, pma->ptr + (start - pma->start), page_down(addr) - start,
				  &from, &to)) {
		err = -EFAULT;
		goto out_unref;
	}
	end = start + to;
	start += from;
	if (start > pma->start)
		pma = pma_split(mm, pma, start);
	if (end < pma->end)
		pma_split(mm, pma, end);
	*old = *pma;
	pma_count_rss(mm, pma, pma->start - pma->end);
	pma->mf = mem_private();
	pma->off = dst_off + shift + from;
	pma->ptr = dst + from;
	pma->flags = PMA_OWN | PMA_ANON;
	pma->access = pma_calc_access(pma, vma->prot);
	pma_count_rss(mm, pma, pma->end - pma->start);
	old->reap_next = reap->pmas;
	reap->pmas = old;
	pma_merge(mm, pma);
	*ret_start = start;
	*ret_end = end;
	return 0;
out_unref:
	memfile_range_unref(mem_private(), dst_off, MEM_CHUNK_SIZE);
out_free:
	free(old);
	return err;
}

/* The first chunks that are written after a fork will be after the next one, by parent and child. */
static void note_hot(struct mm *mm, const struct pma *pma, uint64_t addr)
{
	uint64_t off = pma->off + (page_down(addr) - pma->start);
	uint64_t lo = MAX(round_down_u64(off, MEM_CHUNK_SIZE), pma->off);
	uint64_t start = pma->start + (lo - pma->off);
	uint64_t end = MIN(start + (round_up_u64(lo + 1, MEM_CHUNK_SIZE) - lo), pma->end);
	struct mm_hot *hot = &mm->hot[0];
	unsigned i;

	if (mm->cow_faults++ >= MM_HOT_MAX)
		return;
	for (i = 0; i < mm->hot_count; i++) {
		if (mm->hot[i].start < end && start < mm->hot[i].end)
			return;
		if (mm->hot[i].forks > hot->forks)
			hot = &mm->hot[i];
	}
	if (mm->hot_count < MM_HOT_MAX)
		hot = &mm->hot[mm->hot_count++];
	*hot = (struct mm_hot){.start = start, .end = end};
}

int pma_break_cow(struct mm *mm, struct vma *vma, uint64_t addr, struct mm_reap *reap,
		  uint64_t *ret_start, uint64_t *ret_end)
{
	struct pma *pma = pma_find(mm, addr);
	int err = pma_reserve(mm);

	assert(pma && !(pma->flags & PMA_SHARED));
	if (err)
		return err;
	if (pma->flags & PMA_OWN) {
		if (!(pma->flags & PMA_COW)) {
			pma->access = pma_calc_access(pma, vma->prot);
			*ret_start = pma->start;
			*ret_end = pma->end;
			return 0;
		}
		note_hot(mm, pma, addr);
		if (cow_claim(mm, vma, pma, addr, ret_start, ret_end))
			return 0;
	}
	return cow_copy(mm, vma, pma, addr, reap, ret_start, ret_end);
}

void mm_reap_init(struct mm_reap *reap)
{
	reap->vmas = NULL;
	reap->pmas = NULL;
}

void mm_reap_run(struct mm_reap *reap)
{
	struct pma *pma;
	struct vma *vma;

	while ((pma = reap->pmas)) {
		reap->pmas = pma->reap_next;
		memfile_range_unref(pma->mf, pma->off, pma->end - pma->start);
		free(pma);
	}
	while ((vma = reap->vmas)) {
		reap->vmas = vma->reap_next;
		if (vma->mappable)
			vma->mappable->ops->unref(vma->mappable);
		if (vma->file)
			file_unref(vma->file);
		free(vma);
	}
}
