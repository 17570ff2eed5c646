/*
 * platform/patch/detour.c - sites whose number is loaded by `xor %eax,%eax`: glibc's read().
 *
 *	S	31 c0			xor %eax,%eax	──►	eb XX		jmp P
 *	S+2	0f 05			syscall			0f 05		(still a syscall)
 *	S+4	48 3d 00 f0 ff ff	cmp $-4096,%rax
 *		77 XX			ja ...
 *		c3			ret
 *	P	(nothing comes here)			──►	ff 24 25 ...	jmp *[table]
 *
 * Four bytes have no room for the jump through the table, which is seven. Padding behind the function's `ret` has, where the next function, or the next
 * of its parts, is aligned: nobody executes that. What stands between the site and the `ret` is decoded, and is these instructions or the site is
 * left alone; what comes before it must be one of the beginnings that compilers write, since two bytes say little. Neither does a branch among
 * them lead to the jump, nor does it reach an aligned address, where a function may begin.
 *
 * The way has two instructions. A thread that was interrupted between them is at P, which patch_detour_resolve() takes for the site's
 * `syscall`; one that found the page's own bytes at P again would go on behind them. So there are detours only while one thread runs in the address
 * space, and pages change while it has an event. A page that somebody else takes away (its file is cut), or replaces, which is taking away and
 * giving when the thread goes on, leaves a fault at P, the next event: a detour is good until the thread goes on from there (DETOUR_LEFT), and
 * no longer, since what comes to that address is not a detour.
 */
#include <string.h>

#include "platform/patch/internal.h"

#define FLAGS_OF_XOR 0x8d5ul /* CF PF AF ZF SF OF */
#define FLAGS_OF_ZERO 0x44ul /* PF ZF */
#define REL8_MAX 127u

/* ---- finding padding ---- */

/* The bytes left behind `at`, compared. */
static bool has_bytes(const uint8_t *page, uint64_t at, const void *bytes, size_t size)
{
	return at <= MOAT_PAGE_SIZE - size && memcmp(page + at, bytes, size) == 0;
}

/* The length of the instruction at `at` if it is one that pads, else 0. */
static unsigned nop_size(const uint8_t *page, uint64_t at)
{
	uint64_t i = at;

	if (at < MOAT_PAGE_SIZE && (page[at] == 0x90 || page[at] == 0xcc))
		return 1;
	while (i < MOAT_PAGE_SIZE && i - at < 8 && (page[i] == 0x66 || page[i] == 0x2e))
		i++;
	if (i > at && i < MOAT_PAGE_SIZE && page[i] == 0x90)
		return (unsigned)(i + 1 - at);
	if (has_bytes(page, i, "\x0f\x1f\x00", 3))
		return (unsigned)(i + 3 - at);
	if (has_bytes(page, i, "\x0f\x1f\x40\x00", 4))
		return (unsigned)(i + 4 - at);
	if (has_bytes(page, i, "\x0f\x1f\x44\x00\x00", 5))
		return (unsigned)(i + 5 - at);
	if (has_bytes(page, i, "\x0f\x1f\x80\x00\x00\x00\x00", 7))
		return (unsigned)(i + 7 - at);
	if (has_bytes(page, i, "\x0f\x1f\x84\x00\x00\x00\x00\x00", 8))
		return (unsigned)(i + 8 - at);
	return 0;
}

/* A function's start, or what follows a jump that is not taken. */
static bool is_beginning(const uint8_t *page, uint64_t at)
{
	if (at >= 4 && has_bytes(page, at - 4, "\xf3\x0f\x1e\xfa", 4)) /* endbr64 */
		return true;
	/* je, jne; not the end of another instruction before one that only looks like the `xor`, of another register or of 16 bits. */
	if (at >= 2 && (page[at - 2] & 0xfe) == 0x74)
		return (page[at - 1] & 0xf0) != 0x40 && page[at - 1] != 0x66;
	return at && at % 16 == 0 &&
	       (page[at - 1] == 0x00 || page[at - 1] == 0xc3 || page[at - 1] == 0x90 ||
		page[at - 1] == 0xcc);
}

/* Would somebody who goes to `at` meet the jump in the padding? */
static bool is_met(uint64_t pad, uint64_t at)
{
	return at - pad < SITE_SIZE;
}

/*
 * Does one of the branches that have been decoded lead to the padding, or may a function begin in it, at an aligned address, with
 * instructions that do nothing (-fpatchable-function-entry)?
 */
static bool is_live(const uint8_t *page, uint64_t at, uint64_t end, uint64_t pad)
{
	int32_t rel = (int8_t)page[end + 7];

	if (page[end + 6] == 0x0f)
		memcpy(&rel, page + end + 8, sizeof(rel));
	if (page[end + 6] != 0xc3 && is_met(pad, pad - 1 + (uint64_t)(int64_t)rel))
		return true;
	if (at >= 2 && (page[at - 2] & 0xfe) == 0x74 &&
	    is_met(pad, at + (uint64_t)(int64_t)(int8_t)page[at - 1]))
		return true;
	return is_met(pad, round_up_u64(pad, 16));
}

bool patch_detour_fits(const uint8_t *page, uint64_t end, uint64_t *ret_pad)
{
	uint64_t at = end - CLEARED_SIZE, pad, size = 0;

	if (!has_bytes(page, at, "\x31\xc0\x0f\x05", CLEARED_SIZE) || !is_beginning(page, at) ||
	    !has_bytes(page, end, "\x48\x3d\x00\xf0\xff\xff", 6))
		return false;
	pad = end + 6;
	if (has_bytes(page, pad, "\x77", 1)) /* ja rel8 */
		pad += 2;
	else if (has_bytes(page, pad, "\x0f\x87", 2)) /* ja rel32 */
		pad += 6;
	if (!has_bytes(page, pad, "\xc3", 1))
		return false;
	pad++;
	while (size < SITE_SIZE) {
		unsigned one = nop_size(page, pad + size);

		if (!one)
			return false;
		size += one;
	}
	*ret_pad = pad;
	return pad + SITE_SIZE <= MOAT_PAGE_SIZE && pad - (at + 2) <= REL8_MAX &&
	       !is_live(page, at, end, pad);
}

/* ---- an address space's ---- */

int patch_detour_add(struct patch_space *s, uint64_t at, uint64_t rip)
{
	unsigned n = atomic_load_explicit(&s->ndetours, memory_order_relaxed);
	struct patch_detour *d = s->detours;

	while (d < s->detours + n && (d->at != at || d->rip != rip))
		d++;
	if (d == s->detours + PATCH_DETOURS_MAX)
		return -ENOSPC;
	if (d == s->detours + n) {
		d->at = at;
		d->rip = rip;
		atomic_store_explicit(&s->ndetours, n + 1, memory_order_release);
	}
	atomic_store_explicit(&d->live, DETOUR_LIVE, memory_order_relaxed);
	return 0;
}

void patch_detours_leave(struct patch_space *s, uint64_t va, uint64_t size)
{
	unsigned n = atomic_load_explicit(&s->ndetours, memory_order_relaxed);

	for (unsigned i = 0; i < n; i++) {
		unsigned live = DETOUR_LIVE;

		if ((s->detours[i].at & MOAT_PAGE_MASK) - va < size &&
		    atomic_compare_exchange_strong(&s->detours[i].live, &live, DETOUR_LEFT))
			atomic_store(&s->left, true);
	}
}

void patch_set_alone(struct patch_space *s, bool alone)
{
	s->alone = alone;
}

bool patch_detour_find(const struct patch_space *s, uint64_t *ret_va)
{
	unsigned n = atomic_load_explicit(&s->ndetours, memory_order_relaxed);

	for (unsigned i = 0; i < n; i++)
		if (atomic_load_explicit(&s->detours[i].live, memory_order_relaxed) ==
		    DETOUR_LIVE) {
			*ret_va = s->detours[i].at & MOAT_PAGE_MASK;
			return true;
		}
	return false;
}

bool patch_detours_in(const struct patch_space *s, uint64_t va, uint64_t size)
{
	unsigned n = atomic_load_explicit(&s->ndetours, memory_order_relaxed);

	for (unsigned i = 0; i < n; i++)
		if ((s->detours[i].at & MOAT_PAGE_MASK) - va < size &&
		    atomic_load_explicit(&s->detours[i].live, memory_order_relaxed) != DETOUR_GONE)
			return true;
	return false;
}

bool patch_unsettled(const struct patch_space *s)
{
	return atomic_load_explicit(&s->left, memory_order_relaxed);
}

void patch_settle(struct patch_space *s)
{
	unsigned n = atomic_load_explicit(&s->ndetours, memory_order_acquire);

	atomic_store(&s->left, false);
	for (unsigned i = 0; i < n; i++) {
		unsigned live = DETOUR_LEFT;

		(void)atomic_compare_exchange_strong(&s->detours[i].live, &live, DETOUR_GONE);
	}
}

/* ---- registers ---- */

void patch_clear_rax(struct user_regs_struct *r)
{
	r->rax = 0;
	r->eflags = (r->eflags & ~FLAGS_OF_XOR) | FLAGS_OF_ZERO;
}

bool patch_detour_resolve(const struct patch_space *s, struct user_regs_struct *r)
{
	unsigned n = s ? atomic_load_explicit(&s->ndetours, memory_order_acquire) : 0;

	for (unsigned i = 0; i < n; i++) {
		const struct patch_detour *d = &s->detours[i];

		if (d->at != r->rip ||
		    atomic_load_explicit(&d->live, memory_order_relaxed) == DETOUR_GONE)
			continue;
		patch_clear_rax(r);
		r->rip = d->rip - 2;
		return true;
	}
	return false;
}
