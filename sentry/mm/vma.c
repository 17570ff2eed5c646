/*
 * sentry/mm/vma.c - the tree of VMAs: look-up, splitting, joining, free space.
 *
 * Each node knows the free bytes before it and the largest such gap below it, so the search for
 * free space, top-down as Linux's, is logarithmic.
 */
#include <stdlib.h>

#include "sentry/mm/internal.h"
#include "vfs/file.h"

static void vma_augment(struct vma *vma);

#undef RB_AUGMENT
#define RB_AUGMENT(vma) vma_augment(vma)

static int vma_cmp(const struct vma *a, const struct vma *b)
{
	return a->start < b->start ? -1 : a->start > b->start;
}

RB_GENERATE_LOCAL(vma_tree, vma, node, vma_cmp)

static void vma_augment(struct vma *vma)
{
	const struct vma *left = RB_LEFT(vma, node), *right = RB_RIGHT(vma, node);

	vma->max_gap = vma->gap;
	if (left)
		vma->max_gap = MAX(vma->max_gap, left->max_gap);
	if (right)
		vma->max_gap = MAX(vma->max_gap, right->max_gap);
}

/* The gap before vma changed. */
static void vma_update_gap(struct vma *vma)
{
	struct vma *prev = RB_PREV(vma_tree, NULL, vma);

	vma->gap = vma->start - (prev ? prev->end : 0);
	for (; vma; vma = RB_PARENT(vma, node))
		vma_augment(vma);
}

struct vma *vma_alloc(void)
{
	return calloc(1, sizeof(struct vma));
}

struct vma *vma_find_next(struct mm *mm, uint64_t addr)
{
	struct vma *vma = RB_ROOT(&mm->vmas), *best = NULL;

	while (vma) {
		if (vma->end > addr) {
			best = vma;
			vma = RB_LEFT(vma, node);
		} else {
			vma = RB_RIGHT(vma, node);
		}
	}
	return best;
}

struct vma *vma_find(struct mm *mm, uint64_t addr)
{
	struct vma *vma = vma_find_next(mm, addr);

	return vma && vma->start <= addr ? vma : NULL;
}

struct vma *vma_next(struct vma *vma)
{
	return RB_NEXT(vma_tree, NULL, vma);
}

struct vma *vma_prev(struct vma *vma)
{
	return RB_PREV(vma_tree, NULL, vma);
}

struct vma *vma_first(struct mm *mm)
{
	return RB_MIN(vma_tree, &mm->vmas);
}

bool vma_covers(struct mm *mm, uint64_t start, uint64_t end)
{
	struct vma *vma = vma_find(mm, start);

	while (vma && vma->end < end) {
		struct vma *next = vma_next(vma);

		if (!next || next->start != vma->end)
			return false;
		vma = next;
	}
	return vma != NULL;
}

uint64_t mm_overlap_bytes(struct mm *mm, uint64_t start, uint64_t end)
{
	struct vma *vma = vma_find_next(mm, start);
	uint64_t bytes = 0;

	for (; vma && vma->start < end; vma = vma_next(vma))
		bytes += MIN(vma->end, end) - MAX(vma->start, start);
	return bytes;
}

/* Adds (or takes, by two's complement) `size` bytes like vma's to the totals. */
static void vma_account(struct mm *mm, const struct vma *vma, uint64_t size)
{
	mm->vm_bytes += size;
	if (mm->vm_bytes > mm->vm_peak)
		mm->vm_peak = mm->vm_bytes;
	if (vma_is_data(vma->prot, vma->flags))
		mm->data_bytes += size;
	if (vma->flags & (VMA_STACK | VMA_GROWS_DOWN))
		mm->stack_bytes += size;
	else if ((vma->prot & (PROT_EXEC | PROT_WRITE)) == PROT_EXEC)
		mm->exec_bytes += size;
	if (vma->flags & VMA_LOCKED)
		mm->locked_bytes += size;
}

void vma_link(struct mm *mm, struct vma *vma)
{
	struct vma *next;

	if (RB_INSERT(vma_tree, &mm->vmas, vma))
		assert(!"two VMAs at one address");
	mm->vma_count++;
	platform_as_claim(mm->platform, mm->as, vma->start, vma->end - vma->start);
	vma_account(mm, vma, vma->end - vma->start);
	vma_update_gap(vma);
	next = vma_next(vma);
	if (next)
		vma_update_gap(next);
}

static void vma_unlink(struct mm *mm, struct vma *vma)
{
	struct vma *next = vma_next(vma);

	RB_REMOVE(vma_tree, &mm->vmas, vma);
	mm->vma_count--;
	vma_account(mm, vma, vma->start - vma->end);
	if (next)
		vma_update_gap(next);
}

static void vma_fill_mapping(struct mm *mm, struct vma *vma)
{
	vma->map.space = &mm->space;
	vma->map.addr = vma->start;
	vma->map.size = vma->end - vma->start;
	vma->map.off = vma->off;
	vma->map.writable_shared = (vma->flags & VMA_SHARED) && (vma->max_prot & PROT_WRITE);
}

int vma_insert(struct mm *mm, struct vma *vma)
{
	if (vma->mappable) {
		int err;

		vma_fill_mapping(mm, vma);
		err = mappable_add(vma->mappable, &vma->map);
		if (err)
			return err;
	}
	vma_link(mm, vma);
	return 0;
}

void vma_insert_copy(struct mm *mm, struct vma *parent, struct vma *vma)
{
	if (vma->mappable) {
		vma_fill_mapping(mm, vma);
		mappable_add_after(vma->mappable, &parent->map, &vma->map);
	}
	vma_link(mm, vma);
}

void vma_remove(struct mm *mm, struct vma *vma, struct mm_reap *reap)
{
	vma_unlink(mm, vma);
	if (vma->mappable)
		mappable_remove(vma->mappable, &vma->map);
	vma->reap_next = reap->vmas;
	reap->vmas = vma;
}

_Atomic int64_t mm_max_map_count = MM_VMAS_DEFAULT;

bool mm_vmas_full(const struct mm *mm, bool piece)
{
	int64_t max = atomic_load_explicit(&mm_max_map_count, memory_order_relaxed);

	return (int64_t)mm->vma_count >= MIN(max, (int64_t)MM_VMAS_MAX) + !piece;
}

int vma_split(struct mm *mm, struct vma *vma, uint64_t at, struct vma **ret_upper)
{
	struct vma *upper;

	assert(at > vma->start && at < vma->end && !(at & ~MOAT_PAGE_MASK));
	if (mm_vmas_full(mm, true))
		return -ENOMEM;
	upper = vma_alloc();
	if (!upper)
		return -ENOMEM;
	vma_account(mm, vma, at - vma->end);
	/* Not vma->map, whose list is others' too: mappable_split() copies it. */
	*upper = (struct vma){
		.start = at,
		.end = vma->end,
		.prot = vma->prot,
		.max_prot = vma->max_prot,
		.flags = vma->flags,
		.off = vma->off,
		.mappable = vma->mappable,
		.file = vma->file,
		.name = vma->name,
		.seq_lo = vma->seq_lo,
		.seq_hi = vma->seq_hi,
		.ahead = vma->ahead,
		.plain = vma->plain,
	};
	vma->end = at;
	if (vma->mappable) {
		upper->off += at - vma->start;
		vma->mappable->ops->ref(vma->mappable);
		mappable_split(vma->mappable, &vma->map, &upper->map, at - vma->start);
	}
	if (upper->file)
		file_ref(upper->file);
	vma_link(mm, upper);
	*ret_upper = upper;
	return 0;
}

int vma_split_range(struct mm *mm, uint64_t start, uint64_t end)
{
	struct vma *vma = vma_find(mm, start), *upper;
	int err;

	if (vma && vma->start < start) {
		err = vma_split(mm, vma, start, &upper);
		if (err)
			return err;
	}
	vma = vma_find(mm, end);
	if (vma && vma->start < end)
		return vma_split(mm, vma, end, &upper);
	return 0;
}

static bool vma_can_join(const struct vma *a, const struct vma *b)
{
	return a->end == b->start && a->prot == b->prot && a->max_prot == b->max_prot &&
	       a->flags == b->flags && a->mappable == b->mappable && a->file == b->file &&
	       a->name == b->name && !(a->flags & VMA_GROWS_DOWN) &&
	       (!a->mappable || a->off + (a->end - a->start) == b->off);
}

/* a takes b's range. */
static void vma_join(struct mm *mm, struct vma *a, struct vma *b, struct mm_reap *reap)
{
	uint64_t size = b->end - b->start;
	struct vma *next;

	vma_unlink(mm, b);
	if (a->mappable)
		mappable_join(a->mappable, &a->map, &b->map);
	a->end = b->end;
	vma_account(mm, a, size);
	next = vma_next(a);
	if (next)
		vma_update_gap(next);
	b->reap_next = reap->vmas;
	reap->vmas = b;
}

struct vma *vma_merge(struct mm *mm, struct vma *vma, struct mm_reap *reap)
{
	struct vma *prev = vma_prev(vma), *next;

	if (prev && vma_can_join(prev, vma)) {
		vma_join(mm, prev, vma, reap);
		vma = prev;
	}
	next = vma_next(vma);
	if (next && vma_can_join(vma, next))
		vma_join(mm, vma, next, reap);
	return vma;
}

void vma_set_range(struct mm *mm, struct vma *vma, uint64_t start, uint64_t end)
{
	struct vma *next;

	vma_account(mm, vma, vma->start - vma->end);
	vma->off += start - vma->start;
	vma->start = start;
	vma->end = end;
	platform_as_claim(mm->platform, mm->as, start, end - start);
	vma_account(mm, vma, end - start);
	vma_update_gap(vma);
	next = vma_next(vma);
	if (next)
		vma_update_gap(next);
	if (vma->mappable)
		mappable_resize(vma->mappable, &vma->map, start, end - start, vma->off);
}

void vma_set_prot(struct mm *mm, struct vma *vma, unsigned prot, unsigned flags)
{
	vma_account(mm, vma, vma->start - vma->end);
	vma->prot = prot;
	vma->flags = flags;
	vma_account(mm, vma, vma->end - vma->start);
}

/* The highest fit in the free range [lo, hi), or 0. */
static uint64_t fit_below(uint64_t lo, uint64_t hi, uint64_t size, uint64_t align)
{
	uint64_t addr;

	if (hi < lo || hi - lo < size)
		return 0;
	addr = round_down_u64(hi - size, align);
	return addr >= lo ? addr : 0;
}

struct gap_search {
	uint64_t size, low, high, align;
};

/* In-order from the right; depth is the tree's. Return: an address, or 0. */
static uint64_t gap_descend(struct vma *vma, const struct gap_search *gs)
{
	uint64_t addr = 0, lo, hi;

	if (!vma || vma->max_gap < gs->size)
		return 0;
	lo = vma->start - vma->gap;
	if (vma->start < gs->high)
		addr = gap_descend(RB_RIGHT(vma, node), gs);
	if (addr)
		return addr;
	hi = vma->start;
	if (vma->flags & VMA_GROWS_DOWN)
		hi = hi > lo + MM_STACK_GAP ? hi - MM_STACK_GAP : lo;
	addr = fit_below(MAX(lo, gs->low), MIN(hi, gs->high), gs->size, gs->align);
	if (addr || lo <= gs->low)
		return addr;
	return gap_descend(RB_LEFT(vma, node), gs);
}

static int vma_find_gap_in(struct mm *mm, uint64_t size, uint64_t low, uint64_t high,
			   uint64_t align, uint64_t *ret_addr)
{
	struct gap_search gs = {.size = size, .low = low, .high = high, .align = align};
	struct vma *last = RB_MAX(vma_tree, &mm->vmas);
	uint64_t lo = last ? last->end : 0;
	uint64_t addr = fit_below(MAX(lo, low), high, size, align);

	if (!addr)
		addr = gap_descend(RB_ROOT(&mm->vmas), &gs);
	if (!addr)
		return -ENOMEM;
	*ret_addr = addr;
	return 0;
}

int vma_find_gap(struct mm *mm, uint64_t size, uint64_t low, uint64_t high, uint64_t align,
		 uint64_t *ret_addr)
{
	uint64_t start = mm->platform->reserved_start, end = start + mm->platform->reserved_size;

	if (start < end && low < end && high > start) {
		if (high > end && !vma_find_gap_in(mm, size, MAX(low, end), high, align, ret_addr))
			return 0;
		high = start;
	}
	return high > low ? vma_find_gap_in(mm, size, low, high, align, ret_addr) : -ENOMEM;
}
