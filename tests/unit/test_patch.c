// LINK: moat_patch moat_mem moat_base
#include "tests/unit/check.h"

#include <sys/syscall.h>

#include "base/rcu.h"
#include "platform/patch/layout.h"
#include "platform/patch/patch.h"

#define PAGE_VA 0x400000ul

static struct patch_space *space;
static uint8_t page[MOAT_PAGE_SIZE];

/* mov $nr,%eax; syscall at `at`; behind a ret. Return: the address past it. */
static uint64_t put_site(unsigned at, uint32_t nr)
{
	page[at - 1] = 0xc3;
	page[at] = 0xb8;
	memcpy(page + at + 1, &nr, 4);
	page[at + 5] = 0x0f;
	page[at + 6] = 0x05;
	return PAGE_VA + at + 7;
}

/* glibc's read() at `at`: je; xor %eax,%eax; syscall; cmp; ja; ret; padding. Return: the address past the call. */
static uint64_t put_cleared(unsigned at)
{
	static const uint8_t code[] = {0x74, 0x17, 0x31, 0xc0, 0x0f, 0x05, 0x48, 0x3d, 0x00,
				       0xf0, 0xff, 0xff, 0x77, 0x5b, 0xc3, 0x66, 0x2e, 0x0f,
				       0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00};

	memcpy(page + at - 2, code, sizeof(code));
	return PAGE_VA + at + 4;
}

static int setup(void **state)
{
	(void)state;
	memset(page, 0x90, sizeof(page));
	return patch_space_create(&space);
}

static int teardown(void **state)
{
	(void)state;
	patch_space_destroy(space);
	return 0;
}

static const uint8_t *copy_at(uint64_t off)
{
	return memfile_ptr(mem_private(), off);
}

static void test_site(void **state)
{
	uint64_t rip = put_site(0x100, 39), off;
	uint32_t disp;

	(void)state;
	assert_int_equal(patch_apply(space, rip, 39, PAGE_VA, page, &off), 0);
	memcpy(&disp, copy_at(off) + 0x103, 4);
	assert_int_equal(copy_at(off)[0x100], 0xff);
	assert_int_equal(copy_at(off)[0x101], 0x24);
	assert_int_equal(copy_at(off)[0x102], 0x25);
	assert_int_equal(disp, PATCH_TABLE_VA);
	/* Five bytes differ, no more. */
	for (unsigned i = 0; i < MOAT_PAGE_SIZE; i++)
		if (i < 0x100 || i >= 0x105)
			assert_int_equal(copy_at(off)[i], page[i]);
	assert_int_equal(patch_apply(space, rip, 39, PAGE_VA, copy_at(off), &off), -EALREADY);
	assert_int_equal(patch_pages(space), 1);
}

static void test_refused(void **state)
{
	uint64_t rip, off;

	(void)state;
	rip = put_site(0x100, 39);
	assert_int_equal(patch_apply(space, rip, 40, PAGE_VA, page, &off), -ENOTSUP);
	assert_int_equal(patch_apply(space, rip, 39 | 1ul << 32, PAGE_VA, page, &off), -ENOTSUP);
	assert_int_equal(patch_apply(space, rip + 1, 39, PAGE_VA, page, &off), -ENOTSUP);
	assert_int_equal(patch_apply(space, PAGE_VA + 6, 39, PAGE_VA, page, &off), -ENOTSUP);
	assert_int_equal(patch_apply(space, PAGE_VA + 7, 39, PAGE_VA, page, &off), -ENOTSUP);
	assert_int_equal(patch_apply(space, PAGE_VA + MOAT_PAGE_SIZE + 3, 39, PAGE_VA, page, &off),
			 -ENOTSUP);
	page[0xff] = 0x41; /* mov $39,%r8d */
	assert_int_equal(patch_apply(space, rip, 39, PAGE_VA, page, &off), -ENOTSUP);
	page[0xff] = 0x66;
	assert_int_equal(patch_apply(space, rip, 39, PAGE_VA, page, &off), -ENOTSUP);
	assert_int_equal(patch_apply(space, PATCH_CODE_VA + 0x107, 39, PATCH_CODE_VA, page, &off),
			 -ENOTSUP);
	assert_int_equal(patch_pages(space), 0);
	/* Nothing of it is there when it ends. */
	rip = put_site(0x200, SYS_execve);
	assert_int_equal(patch_apply(space, rip, SYS_execve, PAGE_VA, page, &off), -ENOTSUP);
}

static void test_second_site_gets_another_copy(void **state)
{
	uint64_t first = put_site(0x100, 39), second = put_site(0x200, 110), a, b, va;

	(void)state;
	assert_int_equal(patch_apply(space, first, 39, PAGE_VA, page, &a), 0);
	assert_int_equal(patch_apply(space, second, 110, PAGE_VA, copy_at(a), &b), 0);
	assert_int_not_equal(a, b);
	assert_int_equal(copy_at(b)[0x100], 0xff);
	assert_int_equal(copy_at(b)[0x200], 0xff);
	/* The first is as it was until nobody can be in it. */
	assert_int_equal(copy_at(a)[0x200], 0xb8);
	patch_reap(space);
	assert_true(patch_find(space, PAGE_VA - 0x1000, 0x3000, &va, &a));
	assert_int_equal(va, PAGE_VA);
	assert_int_equal(a, b);
	patch_drop(space, PAGE_VA, MOAT_PAGE_SIZE);
	assert_false(patch_find(space, 0, UINT64_MAX, NULL, NULL));
	patch_reap(space);
}

/* A thousand sites, a hundred pages, again and again: entries are kept, copies reused, limits are errors. */
static void test_limits(void **state)
{
	unsigned applied = 0, refused = 0;
	uint64_t off;

	(void)state;
	for (unsigned round = 0; round < 3; round++)
		for (unsigned p = 0; p < PATCH_PAGES_MAX + 8; p++) {
			uint64_t va = PAGE_VA + p * MOAT_PAGE_SIZE, rip;
			int err;

			memset(page, 0x90, sizeof(page));
			rip = put_site(0x100 + round * 64, round) - PAGE_VA + va;
			err = patch_apply(space, rip, round, va, page, &off);
			applied += err == 0;
			refused += err == -ENOSPC;
			patch_reap(space);
		}
	assert_int_equal(applied, 3 * PATCH_PAGES_MAX);
	assert_int_equal(refused, 3 * 8);
	for (unsigned n = 0, done = 0;; n++) {
		uint64_t rip;
		int err;

		memset(page, 0x90, sizeof(page));
		rip = put_site(8 + n % 400 * 8, 1000 + n);
		err = patch_apply(space, rip, 1000 + n, PAGE_VA, page, &off);
		patch_reap(space);
		if (err) {
			assert_int_equal(err, -ENOSPC);
			assert_int_equal(done, PATCH_SITES_MAX - 3 * PATCH_PAGES_MAX);
			break;
		}
		done++;
	}
}

static void test_mailbox(void **state)
{
	struct arch_regs regs = {.r = {.gs_base = 7}}, taken;
	struct patch_range range;
	struct patch_mailbox *mb;
	uint64_t *raw;
	int n;

	(void)state;
	for (int i = 0; i < PATCH_MAILBOXES_MAX; i++)
		assert_int_equal(patch_mailbox_get(space, &range, &mb), i);
	assert_int_equal(patch_mailbox_get(space, &range, &mb), -ENOSPC);
	patch_mailbox_put(space, 5);
	n = patch_mailbox_get(space, &range, &mb);
	assert_int_equal(n, 5);
	assert_int_equal(range.va, patch_mailbox_va(5));
	raw = (uint64_t *)mb;
	assert_int_equal(raw[MB_MAGIC / 8], PATCH_MAGIC);
	assert_false(patch_mailbox_take(mb, &regs));
	raw[MB_RAX / 8] = 39;
	raw[MB_RDI / 8] = 1;
	raw[MB_R15 / 8] = 15;
	raw[MB_RIP / 8] = 0xdeadbeefdeadbeef;
	raw[MB_FLAGS / 8] = ~0ul;
	raw[MB_STATE / 8] = MB_POSTED;
	assert_true(patch_mailbox_take(mb, &regs));
	assert_int_equal(regs.r.rax, 39);
	assert_int_equal(regs.r.rdi, 1);
	assert_int_equal(regs.r.r15, 15);
	assert_int_equal(regs.r.rcx, 0xdeadbeefdeadbeef);
	assert_int_equal(regs.r.gs_base, 7);
	assert_int_equal(regs.r.eflags & ~(ARCH_EFLAGS_USER | ARCH_EFLAGS_FIXED), 0);
	assert_false(patch_mailbox_take(mb, &regs));
	taken = regs;
	regs.r.rax = 5;
	assert_true(patch_only_rax_changed(&taken, &regs));
	regs.r.fs_base = 1;
	assert_false(patch_only_rax_changed(&taken, &regs));
	patch_mailbox_reply(mb, 5);
	assert_int_equal(raw[MB_RAX / 8], 5);
	assert_int_equal(raw[MB_STATE / 8], MB_DONE);
}

/* The trap at the trampoline's end is a system call of its own, which has no r11 left. */
static void test_resolve_trap(void **state)
{
	uint64_t rip = put_site(0x100, 39), off;
	unsigned calls = 0;

	(void)state;
	assert_int_equal(patch_apply(space, rip, 39, PAGE_VA, page, &off), 0);
	for (uint64_t at = PATCH_CODE_VA; at < PATCH_CODE_VA + MOAT_PAGE_SIZE; at++) {
		struct arch_regs regs = {.r = {.rip = at, .rax = rip, .rcx = at, .r11 = 0x246}};
		struct platform_event ev = {.kind = PLATFORM_SYSCALL};

		patch_resolve_event(space, NULL, true, &regs, &ev);
		if (ev.kind == PLATFORM_SYSCALL) {
			assert_int_equal(regs.r.rip, rip);
			assert_int_equal(regs.r.rax, 39);
			calls++;
		} else {
			assert_int_equal(ev.kind, PLATFORM_FAULT);
			assert_int_equal(ev.addr, at);
		}
	}
	assert_int_equal(calls, 1);
}

static enum platform_event_kind jump_fault(uint64_t rip, uint64_t addr, unsigned access)
{
	struct arch_regs regs = {.r = {.rip = rip}};
	struct platform_event ev = {.kind = PLATFORM_FAULT, .addr = addr, .access = access};

	patch_resolve_event(space, NULL, true, &regs, &ev);
	assert_int_equal(regs.r.rip, rip);
	return ev.kind;
}

/* A site's jump whose table has gone is made again; nothing else that reads there is. */
static void test_resolve_jump(void **state)
{
	uint64_t first = put_site(0x100, 39), second = put_site(0x200, 110), off;
	uint64_t table = PATCH_TABLE_VA;

	(void)state;
	assert_int_equal(patch_apply(space, first, 39, PAGE_VA, page, &off), 0);
	assert_int_equal(patch_apply(space, second, 110, PAGE_VA, page, &off), 0);
	assert_int_equal(jump_fault(first - 7, table, MEM_READ), PLATFORM_INTERRUPTED);
	assert_int_equal(jump_fault(second - 7, table + 8, MEM_READ), PLATFORM_INTERRUPTED);
	for (uint64_t rip = first - 8; rip < second + 8; rip++)
		for (uint64_t addr = table - 16; addr < table + 64; addr++) {
			if ((rip == first - 7 && addr == table) ||
			    (rip == second - 7 && addr == table + 8))
				continue;
			assert_int_equal(jump_fault(rip, addr, MEM_READ), PLATFORM_FAULT);
		}
	assert_int_equal(jump_fault(first - 7, table, MEM_WRITE), PLATFORM_FAULT);
	assert_int_equal(jump_fault(first - 7, table, MEM_EXEC), PLATFORM_FAULT);
	assert_int_equal(jump_fault(first - 7, UINT64_MAX, MEM_READ), PLATFORM_FAULT);
}

/* Any registers at any address: resolved to a site's, or left alone. */
static void test_resolve(void **state)
{
	uint64_t rip = put_site(0x100, 39), off, seen = 0;
	struct arch_regs regs;

	(void)state;
	assert_int_equal(patch_apply(space, rip, 39, PAGE_VA, page, &off), 0);
	for (uint64_t at = PATCH_VA - 16; at < PATCH_END_VA + 16; at++) {
		enum patch_verdict verdict;

		regs = (struct arch_regs){.r = {.rip = at, .r11 = rip, .rcx = rip, .rsp = 1}};
		verdict = patch_resolve(space, NULL, &regs);
		seen |= 1u << verdict;
		switch (verdict) {
		case PATCH_OUTSIDE:
			assert_true(at < PATCH_VA || at >= PATCH_END_VA);
			break;
		case PATCH_BEFORE:
			assert_int_equal(regs.r.rip, rip - 2);
			assert_int_equal(regs.r.rax, 39);
			break;
		case PATCH_CALL:
			assert_int_equal(regs.r.rip, regs.r.rcx);
			assert_int_equal(regs.r.r11, regs.r.eflags);
			assert_int_equal(regs.r.rax, 39);
			break;
		case PATCH_AFTER:
			assert_int_equal(regs.r.rip, rip);
			break;
		case PATCH_STRAY:
			assert_int_equal(regs.r.rip, at);
			break;
		}
		regs = (struct arch_regs){.r = {.rip = at, .r11 = at, .rcx = ~at}};
		verdict = patch_resolve(space, NULL, &regs);
		assert_true(verdict == PATCH_OUTSIDE || verdict == PATCH_STRAY ||
			    verdict == PATCH_BEFORE || at < PATCH_CODE_VA);
		regs.r.rip = at;
		assert_int_not_equal(patch_resolve(NULL, NULL, &regs), PATCH_CALL);
	}
	assert_int_equal(seen, 0x1f);
}

/* Where `syscall` leads: any registers give a call, or the end of one, at rcx. */
static void test_resolve_lstar(void **state)
{
	struct patch_mailbox *mb;
	struct patch_range range;
	uint8_t lstar[PATCH_LSTAR_MAX] = {0};
	unsigned calls = 0, after = 0;

	(void)state;
	assert_true(patch_mailbox_get(space, &range, &mb) >= 0);
	for (uint64_t at = PATCH_LSTAR_VA; at < PATCH_LSTAR_VA + MOAT_PAGE_SIZE; at++) {
		struct arch_regs regs = {.r = {.rip = at, .rcx = 0x1234, .rax = 39, .rsp = 7}};
		enum patch_verdict verdict = patch_resolve(space, mb, &regs);

		if (verdict == PATCH_STRAY || verdict == PATCH_OUTSIDE) {
			assert_int_equal(verdict == PATCH_STRAY,
					 at < PATCH_LSTAR_VA + PATCH_LSTAR_MAX);
			assert_int_equal(regs.r.rip, at);
			continue;
		}
		assert_int_equal(regs.r.rip, 0x1234);
		assert_int_equal(regs.r.rcx, 0x1234);
		assert_int_equal(regs.r.r11, regs.r.eflags);
		assert_int_equal(regs.r.eflags, 0x202);
		calls += verdict == PATCH_CALL;
		after += verdict == PATCH_AFTER;
	}
	patch_lstar_put(lstar);
	assert_in_range(calls, 100, 400);
	assert_in_range(after, 50, 400);
	assert_true(patch_lstar_at_exit(PATCH_LSTAR_VA) && patch_lstar_at_exit(PATCH_LSTAR_VA + 2));
	assert_false(patch_lstar_at_exit(PATCH_LSTAR_VA + patch_lstar_offset()));
	/* Where CS is ring 0's r11 is moved back before it leaves: `jmp` behind the first `shr $16, %r11`. */
	for (unsigned at = 0, seen = 0; !seen; at++) {
		struct arch_regs regs = {
			.r = {.rip = PATCH_LSTAR_VA + at + 4, .rcx = 0x1234, .r11 = 0x2d5}};

		if (memcmp(lstar + at, "\x49\xc1\xeb\x10", 4))
			continue;
		seen++;
		assert_true(lstar[at + 4] == 0xeb || lstar[at + 4] == 0xe9);
		assert_int_equal(patch_resolve(space, NULL, &regs), PATCH_CALL);
		assert_int_equal(regs.r.eflags, 0x2d7);
		regs.r.rip = PATCH_LSTAR_VA + at;
		regs.r.r11 = 0x2d50000;
		assert_int_equal(patch_resolve(space, NULL, &regs), PATCH_CALL);
		assert_int_equal(regs.r.eflags, 0x2d7);
	}
}

/* A call that is about to be posted is not over, whatever has become of the one before it. */
static void test_resolve_lstar_posts(void **state)
{
	/* movl $MB_POSTED, %gs:MB_STATE; the instruction before it loads r11w. */
	static const uint8_t post[] = {0x65, 0xc7, 0x04,      0x25, MB_STATE, 0,
				       0,    0,	   MB_POSTED, 0,    0,	      0};
	static const uint8_t load[] = {0x65, 0x66, 0x44, 0x8b, 0x1c, 0x25, MB_SPINS, 0, 0, 0};
	struct arch_regs before = {.r = {.rip = 0x5678, .rcx = 0x5678, .rax = 7}};
	uint8_t lstar[PATCH_LSTAR_MAX] = {0};
	struct patch_mailbox *mb;
	struct patch_range range;
	const uint8_t *at;

	(void)state;
	assert_true(patch_mailbox_get(space, &range, &mb) >= 0);
	patch_lstar_put(lstar);
	at = memmem(lstar, sizeof(lstar), post, sizeof(post));
	assert_non_null(at);
	assert_memory_equal(at - sizeof(load), load, sizeof(load));
	for (unsigned i = 0; i < 4; i++) {
		struct arch_regs regs = {.r = {.rip = PATCH_LSTAR_VA + (uint64_t)(at - lstar) -
						      (i & 1 ? sizeof(load) : 0),
					       .rcx = 0x1234,
					       .rax = 39,
					       .r11 = 0x2d50000}};

		if (i & 2)
			patch_mailbox_switch(mb, &before);
		else
			patch_mailbox_reply(mb, 7);
		assert_int_equal(patch_resolve(space, mb, &regs), PATCH_CALL);
		assert_int_equal(regs.r.rax, 39);
		assert_int_equal(regs.r.rip, 0x1234);
		assert_int_equal(regs.r.eflags, 0x2d7);
	}
}

/* All registers were to come from the mailbox: wherever that is interrupted, they do; without a mailbox it is a stray. */
static void test_switch(void **state)
{
	uint64_t rip = put_site(0x100, 39), off;
	struct arch_regs taken = {.r = {.eflags = 0x202}}, regs = taken, now;
	struct patch_mailbox *mb;
	struct patch_range range;
	unsigned switched = 0;

	(void)state;
	assert_int_equal(patch_apply(space, rip, 39, PAGE_VA, page, &off), 0);
	assert_true(patch_mailbox_get(space, &range, &mb) >= 0);
	regs.r.rip = 0x1234;
	regs.r.rcx = 0x5678;
	regs.r.rsp = 0x9abc;
	regs.r.eflags = 0x203;
	assert_true(patch_can_switch(&taken, &regs));
	for (unsigned bit = 0; bit < 64; bit++) {
		now = regs;
		now.r.eflags ^= 1ul << bit;
		/* Arithmetic flags, DF and ID; what is always set may be missing. */
		assert_int_equal(patch_can_switch(&taken, &now), (0x200ed7ul >> bit) & 1);
	}
	now = regs;
	now.r.fs_base = 1;
	assert_false(patch_can_switch(&taken, &now));
	patch_mailbox_switch(mb, &regs);
	for (uint64_t at = PATCH_CODE_VA; at < PATCH_CODE_VA + MOAT_PAGE_SIZE; at++) {
		now = (struct arch_regs){.r = {.rip = at}};
		if (patch_resolve(space, mb, &now) != PATCH_AFTER)
			continue;
		switched++;
		assert_int_equal(now.r.rip, 0x1234);
		assert_int_equal(now.r.rcx, 0x5678);
		assert_int_equal(now.r.rsp, 0x9abc);
		assert_int_equal(now.r.eflags, 0x203);
		now = (struct arch_regs){.r = {.rip = at}};
		assert_int_equal(patch_resolve(space, NULL, &now), PATCH_STRAY);
	}
	assert_in_range(switched, 100, 400);
}

static enum patch_verdict resolve_event(uint64_t rip, enum platform_event_kind kind,
					struct arch_regs *ret)
{
	struct platform_event ev = {.kind = kind, .access = MEM_EXEC, .addr = rip};

	*ret = (struct arch_regs){.r = {.rip = rip, .rax = 7, .eflags = 0xad7 & ~0x44}};
	patch_resolve_event(space, NULL, true, ret, &ev);
	return ret->r.rip != rip ? PATCH_BEFORE : ev.kind == kind ? PATCH_OUTSIDE : PATCH_STRAY;
}

/* Two jumps, of which the second stands in padding; who is at that is at the call. */
static void test_detour(void **state)
{
	uint64_t rip = put_cleared(0x209), pad = PAGE_VA + 0x216, off, va;
	struct arch_regs regs;
	uint32_t disp;

	(void)state;
	assert_int_equal(patch_apply(space, rip, 0, PAGE_VA, page, &off), -ENOTSUP);
	patch_set_alone(space, true);
	assert_false(patch_detour_find(space, &va));
	assert_int_equal(resolve_event(pad, PLATFORM_INTERRUPTED, &regs), PATCH_OUTSIDE);
	assert_int_equal(patch_apply(space, rip, 1, PAGE_VA, page, &off), -ENOTSUP);
	assert_int_equal(patch_apply(space, rip, 0, PAGE_VA, page, &off), 0);
	assert_int_equal(copy_at(off)[0x209], 0xeb);
	assert_int_equal(copy_at(off)[0x20a], 0x0b);
	assert_memory_equal(copy_at(off) + 0x216, "\xff\x24\x25", 3);
	memcpy(&disp, copy_at(off) + 0x219, 4);
	assert_int_equal(disp, PATCH_TABLE_VA);
	for (unsigned i = 0; i < MOAT_PAGE_SIZE; i++)
		if (i - 0x209 >= 2 && i - 0x216 >= 7)
			assert_int_equal(copy_at(off)[i], page[i]);
	assert_int_equal(patch_apply(space, rip, 0, PAGE_VA, copy_at(off), &off), -EALREADY);
	/* At the jump, and at each instruction of the entry, it is before the call, with what `xor` does done. */
	for (unsigned i = 0; i < 3; i++) {
		const uint64_t rips[] = {pad, PATCH_ENTRY_VA, PATCH_ENTRY_VA + 2};

		assert_int_equal(resolve_event(rips[i], PLATFORM_INTERRUPTED, &regs), PATCH_BEFORE);
		assert_int_equal(regs.r.rip, rip - 2);
		if (i < 2) {
			assert_int_equal(regs.r.rax, 0);
			assert_int_equal(regs.r.eflags, 0x246);
		}
	}
	assert_int_equal(resolve_event(pad, PLATFORM_SYSCALL, &regs), PATCH_OUTSIDE);
	assert_int_equal(resolve_event(pad + 1, PLATFORM_FAULT, &regs), PATCH_OUTSIDE);
	assert_int_equal(resolve_event(PATCH_ENTRY_VA + 1, PLATFORM_INTERRUPTED, &regs),
			 PATCH_STRAY);
	/* A page that went: until the next event. */
	assert_true(patch_detour_find(space, &va));
	assert_int_equal(va, PAGE_VA);
	patch_drop(space, PAGE_VA, MOAT_PAGE_SIZE);
	assert_false(patch_detour_find(space, &va));
	assert_int_equal(resolve_event(pad, PLATFORM_FAULT, &regs), PATCH_BEFORE);
	patch_settle(space);
	assert_int_equal(resolve_event(pad, PLATFORM_FAULT, &regs), PATCH_OUTSIDE);
	patch_reap(space);
	assert_int_equal(patch_apply(space, rip, 0, PAGE_VA, page, &off), 0);
	assert_int_equal(resolve_event(pad, PLATFORM_FAULT, &regs), PATCH_BEFORE);
}

/* What is not exactly this is left alone: each byte changed, less padding, at the page's ends. */
static void test_detour_refused(void **state)
{
	static const unsigned any[] = {0x208, 0x214}; /* where the two branches lead */
	uint64_t rip = put_cleared(0x209), off;
	uint8_t good;

	(void)state;
	patch_set_alone(space, true);
	for (unsigned i = 0x207; i < 0x220; i++) {
		if (i == any[0] || i == any[1])
			continue;
		good = page[i];
		for (unsigned bit = 0; bit < 8; bit++) {
			page[i] = good ^ (1u << bit);
			/* jne is as good; of two prefixes, and of what is padded with, there are several. */
			if (page[i] != 0x75 && page[i] != 0x80 && i != 0x216 && i != 0x217)
				assert_int_equal(patch_apply(space, rip, 0, PAGE_VA, page, &off),
						 -ENOTSUP);
		}
		page[i] = good;
	}
	/* Six bytes of padding; seven. */
	memset(page + 0x216, 0x90, 16);
	page[0x21c] = 0x48;
	assert_int_equal(patch_apply(space, rip, 0, PAGE_VA, page, &off), -ENOTSUP);
	page[0x21c] = 0xcc;
	page[0x21d] = 0x48;
	assert_int_equal(patch_apply(space, rip, 0, PAGE_VA, page, &off), 0);
	for (unsigned at = MOAT_PAGE_SIZE - 24; at < MOAT_PAGE_SIZE - 4; at++) {
		const uint8_t *end = page + MOAT_PAGE_SIZE;
		int err;

		memset(page, 0x90, sizeof(page));
		for (unsigned n = 0; n < 25 && page + at - 2 + n < end; n++)
			page[at - 2 + n] =
				"\x74\x17\x31\xc0\x0f\x05\x48\x3d\x00\xf0\xff\xff\x77\x5b"
				"\xc3\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90"[n];
		err = patch_apply(space, PAGE_VA + at + 4, 0, PAGE_VA, page, &off);
		assert_int_equal(err, at + 20 <= MOAT_PAGE_SIZE ? 0 : -ENOTSUP);
		patch_reap(space);
	}
	assert_int_equal(patch_apply(space, PAGE_VA + 4, 0, PAGE_VA, page, &off), -ENOTSUP);
}

/* Sixteen of them, and no entry is used up by one too many for ever. */
static void test_detour_limit(void **state)
{
	uint64_t off;

	(void)state;
	patch_set_alone(space, true);
	for (unsigned i = 0; i < PATCH_DETOURS_MAX + 4; i++) {
		uint64_t rip = put_cleared(0x109 + i * 64);
		int err = patch_apply(space, rip, 0, PAGE_VA, page, &off);

		assert_int_equal(err, i < PATCH_DETOURS_MAX ? 0 : -ENOSPC);
		patch_reap(space);
	}
}

/* Padding that is not dead: where a branch of these leads, or where a function may begin. A `xor` of another register. */
static void test_detour_live(void **state)
{
	uint64_t rip = put_cleared(0x209), off;

	(void)state;
	patch_set_alone(space, true);
	for (unsigned rel = 1; rel < 8; rel++) {
		page[0x214] = (uint8_t)rel; /* ja */
		assert_int_equal(patch_apply(space, rip, 0, PAGE_VA, page, &off), -ENOTSUP);
		page[0x214] = 0x5b;
		page[0x208] = (uint8_t)(rel + 12); /* je */
		assert_int_equal(patch_apply(space, rip, 0, PAGE_VA, page, &off), -ENOTSUP);
		page[0x208] = 0x17;
	}
	for (unsigned before = 0x40; before < 0x50; before++) {
		page[0x208] = (uint8_t)before;
		assert_int_equal(patch_apply(space, rip, 0, PAGE_VA, page, &off), -ENOTSUP);
	}
	page[0x208] = 0x66;
	assert_int_equal(patch_apply(space, rip, 0, PAGE_VA, page, &off), -ENOTSUP);
	page[0x208] = 0x17;
	page[0x214] = 8;
	assert_int_equal(patch_apply(space, rip, 0, PAGE_VA, page, &off), 0);
	for (unsigned i = 0; i < 16; i++) {
		unsigned pad = 0x30d + i, next = (pad + 15) / 16 * 16;
		int err;

		memset(page, 0x90, sizeof(page));
		rip = put_cleared(pad - 13);
		memset(page + pad, 0x90, 32);
		err = patch_apply(space, rip, 0, PAGE_VA, page, &off);
		assert_int_equal(err, next - pad >= 7 ? 0 : -ENOTSUP);
	}
}

/* A copy that cannot be had leaves no detour behind. */
static void test_detour_no_copy(void **state)
{
	uint64_t first = put_site(0x100, 39), rip = put_cleared(0x209), off, va;
	struct arch_regs regs;

	(void)state;
	patch_set_alone(space, true);
	assert_int_equal(patch_apply(space, first + 2 * MOAT_PAGE_SIZE, 39,
				     PAGE_VA + 2 * MOAT_PAGE_SIZE, page, &off),
			 0);
	for (unsigned i = 0; i < 255; i++) {
		assert_int_equal(patch_apply(space, first, 39, PAGE_VA, page, &off), 0);
		patch_drop(space, PAGE_VA, MOAT_PAGE_SIZE);
	}
	assert_int_equal(patch_apply(space, rip, 0, PAGE_VA, page, &off), -ENOSPC);
	assert_false(patch_detour_find(space, &va));
	patch_settle(space);
	assert_int_equal(resolve_event(PAGE_VA + 0x216, PLATFORM_FAULT, &regs), PATCH_OUTSIDE);
	patch_reap(space);
	assert_int_equal(patch_apply(space, rip, 0, PAGE_VA, page, &off), 0);
	assert_true(patch_detour_find(space, &va));
}

static void test_heat(void **state)
{
	static struct patch_heat heat;
	unsigned hot = 0;

	(void)state;
	for (unsigned i = 0; i < 1000; i++)
		hot += patch_heat_note(&heat, 0x1234);
	assert_in_range(hot, 10, 20);
	patch_heat_cold(&heat, 0x1234);
	for (unsigned i = 0; i < 1000; i++)
		assert_false(patch_heat_note(&heat, 0x1234));
	assert_false(patch_heat_is_patched(&heat, 0x1234));
	patch_heat_patched(&heat, 0x1234);
	assert_true(patch_heat_is_patched(&heat, 0x1234));
	assert_false(patch_heat_note(&heat, 0x1234));
	patch_heat_reset(&heat);
	assert_false(patch_heat_is_patched(&heat, 0x1234));
	patch_heat_patched(&heat, 0x1234);
	/* Others that come more often get the slot in the end. */
	for (uint64_t rip = 1; rip < 20000; rip++)
		(void)!patch_heat_note(&heat, rip);
	assert_false(patch_heat_is_patched(&heat, 0x1234));
}

static void test_pace(void **state)
{
	struct patch_pace p = {0};
	int64_t now = 1;

	(void)state;
	for (int i = 0; i < 1000 && !patch_pace_on(&p); i++)
		patch_pace_trapped(&p, 25000, now += 30000);
	assert_true(patch_pace_on(&p));
	/* To begin costs something: that is no failure yet. */
	patch_pace_hit(&p, 80000, now += 1000);
	assert_true(patch_pace_on(&p));
	for (int i = 0; i < 100; i++)
		patch_pace_hit(&p, 500, now += 1000);
	/* One failure among many successes is borne; several are not. */
	patch_pace_miss(&p, 100000, now);
	assert_true(patch_pace_on(&p));
	for (int i = 0; i < 5; i++)
		patch_pace_miss(&p, 3000000, now);
	assert_false(patch_pace_on(&p));
	/* Not again at once. */
	for (int i = 0; i < 100; i++)
		patch_pace_trapped(&p, 25000, now += 30000);
	assert_false(patch_pace_on(&p));
	for (int i = 0; i < 100; i++)
		patch_pace_trapped(&p, 25000, now += 1000000000);
	assert_true(patch_pace_on(&p));
	/* Put off: off at once, whatever was earned, but only for a moment: it has not become less hot. */
	for (int i = 0; i < 100; i++)
		patch_pace_hit(&p, 500, now += 1000);
	patch_pace_defer(&p, now);
	assert_false(patch_pace_on(&p));
	patch_pace_trapped(&p, 25000, now += 30000);
	assert_false(patch_pace_on(&p));
	patch_pace_trapped(&p, 25000, now += 30000);
	assert_true(patch_pace_on(&p));
	/* Again and again: for ever longer. */
	for (int i = 0; i < 20; i++)
		patch_pace_defer(&p, now);
	for (int i = 0; i < 100; i++)
		patch_pace_trapped(&p, 25000, now += 30000);
	assert_false(patch_pace_on(&p));
	for (int i = 0; i < 100; i++)
		patch_pace_trapped(&p, 25000, now += 30000);
	assert_true(patch_pace_on(&p));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_site, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_second_site_gets_another_copy, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_limits, setup, teardown),
		cmocka_unit_test_setup_teardown(test_mailbox, setup, teardown),
		cmocka_unit_test_setup_teardown(test_resolve, setup, teardown),
		cmocka_unit_test_setup_teardown(test_switch, setup, teardown),
		cmocka_unit_test_setup_teardown(test_resolve_trap, setup, teardown),
		cmocka_unit_test_setup_teardown(test_resolve_jump, setup, teardown),
		cmocka_unit_test_setup_teardown(test_resolve_lstar, setup, teardown),
		cmocka_unit_test_setup_teardown(test_resolve_lstar_posts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_detour, setup, teardown),
		cmocka_unit_test_setup_teardown(test_detour_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_detour_limit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_detour_live, setup, teardown),
		cmocka_unit_test_setup_teardown(test_detour_no_copy, setup, teardown),
		cmocka_unit_test(test_heat),
		cmocka_unit_test(test_pace),
	};
	int failed;

	rcu_thread_begin();
	if (mem_init(0))
		return 1;
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	rcu_thread_end();
	return failed;
}
