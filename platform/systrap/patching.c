/*
 * platform/systrap/patching.c - patched call sites in an address space; platform/patch/ knows what a patch is.
 *
 * A patched copy is mapped over its page in the stub; the region tree keeps saying what the mm has there. Whatever
 * changes a region drops the copies in it, and is carried out at once: the order that replaces the translation replaces
 * the copy. Trampolines and mailboxes are in no region. When the mm claims their range they go, for as long as the
 * address space lives.
 *
 * A posted call is taken while the task's thread spins, and only then are calls posted (`listening`). The thread of the
 * stub waits in its trampoline (`held`) until the answer comes; for an answer that is more than rax, for its FPU
 * registers, or when its patience ends, it traps there, and is where every trapped thread is.
 */
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

#include "base/log.h"
#include "mem/guard.h"
#include "platform/systrap/systrap.h"

#define OUT_ROUND_NS 50000

static void post_own(struct address_space *as, const struct patch_range *range)
{
	uint64_t prot = PROT_READ | (range->access & MEM_WRITE ? PROT_WRITE : 0) |
			(range->access & MEM_EXEC ? PROT_EXEC : 0);

	systrap_order_post(as->p, as->stub,
			   &(struct systrap_order){
				   .nr = SYS_mmap,
				   .flags = ORDER_MUST,
				   .args = {range->va, range->size, prot, MAP_SHARED | MAP_FIXED,
					    STUB_FD_PRIVATE, range->off},
			   });
}

/* The trampolines are there. Return: 0, -ENOMEM. */
static int space_ready(struct address_space *as)
{
	struct systrap_thread *t;
	struct patch_range range;

	if (!as->patches) {
		int err = patch_space_create(&as->patches);

		if (err)
			return err;
	}
	if (as->own_mapped)
		return 0;
	for (unsigned n = 0; patch_space_range(as->patches, n, &range); n++)
		post_own(as, &range);
	/* Mailboxes that went with everything else. */
	LIST_FOREACH (t, &as->stub->threads, link)
		if (t->mb)
			post_own(as, &t->mb_range);
	as->own_mapped = true;
	return 0;
}

/* Return: 0; -ENOTSUP: never; anything else: perhaps later. Lock held. */
static int patch_site(struct address_space *as, uint64_t rip, uint64_t nr)
{
	uint64_t va = (rip - 1) & MOAT_PAGE_MASK, off;
	const struct systrap_region *r = systrap_region_at(as, va);
	uint8_t page[MOAT_PAGE_SIZE];
	const void *src;
	int err;

	if (!r || !r->installed || !as->stub || atomic_load(&as->stub->dead))
		return -EAGAIN;
	if (!(r->access & MEM_EXEC) || (r->access & MEM_WRITE) || r->shared)
		return -ENOTSUP;
	src = as->patches && patch_find(as->patches, va, MOAT_PAGE_SIZE, NULL, &off)
		      ? memfile_ptr(mem_private(), off)
		      : memfile_ptr(r->mf, r->off + (va - r->va));
	if (guard_copy(page, src, MOAT_PAGE_SIZE))
		return -EAGAIN;
	err = space_ready(as);
	if (!err) {
		patch_set_alone(as->patches, !as->in_company);
		err = patch_apply(as->patches, rip, nr, va, page, &off);
	}
	if (err)
		return err;
	/* Before anyone can be in a trampoline. */
	atomic_store(&as->patch_known, as->patches);
	atomic_store(&as->patch_live, as->patches);
	post_own(as, &(struct patch_range){
			     .va = va,
			     .size = MOAT_PAGE_SIZE,
			     .off = off,
			     .access = MEM_READ | MEM_EXEC,
		     });
	systrap_orders_sync(as->p, as->stub);
	patch_reap(as->patches);
	SYSTRAP_STAT_ADD(as->p, patches, 1);
	return 0;
}

void systrap_patch_note(struct address_space *as, const struct arch_regs *regs)
{
	int err;

	if (likely(!patch_heat_note(&as->heat, regs->r.rip)) || !patch_enabled())
		return;
	mutex_lock(&as->lock);
	err = as->patch_refused || as->traced ? -ENOTSUP : patch_site(as, regs->r.rip, regs->r.rax);
	if (err == -ENOTSUP || err == -EALREADY || err == -ENOSPC)
		patch_heat_cold(&as->heat, regs->r.rip);
	mutex_unlock(&as->lock);
}

bool systrap_patched(struct address_space *as, uint64_t va, uint64_t size)
{
	return as->patches && patch_find(as->patches, va, size, NULL, NULL);
}

void systrap_patch_drop(struct address_space *as, uint64_t va, uint64_t size)
{
	if (!systrap_patched(as, va, size))
		return;
	patch_drop(as->patches, va, size);
	/* What was cold for being patched may become hot again. */
	patch_heat_reset(&as->heat);
}

/* Every patched page is the mm's again. Lock held. */
static void unpatch_all(struct address_space *as)
{
	uint64_t va;

	if (!as->patches)
		return;
	while (patch_find(as->patches, 0, ARCH_TASK_SIZE, &va, NULL)) {
		patch_drop(as->patches, va, MOAT_PAGE_SIZE);
		systrap_region_restore(as, va);
	}
	systrap_orders_sync(as->p, as->stub);
	patch_reap(as->patches);
}

void systrap_patch_company(struct address_space *as, bool at_rest)
{
	uint64_t va;
	bool any = false;

	as->in_company = true;
	/* Who runs may be in one: what is there stays. */
	if (!as->patches || !at_rest)
		return;
	while (patch_detour_find(as->patches, &va)) {
		any = true;
		patch_drop(as->patches, va, MOAT_PAGE_SIZE);
		systrap_region_restore(as, va);
	}
	if (!any)
		return;
	systrap_orders_sync(as->p, as->stub);
	patch_reap(as->patches);
	patch_heat_reset(&as->heat);
}

/* Kicks the threads that are RUN_PATCHED. Return: there are any. Lock held. */
static bool kick_patched(struct address_space *as)
{
	struct systrap_thread *t;
	bool any = false;

	LIST_FOREACH (t, &as->stub->threads, link) {
		if (atomic_load(&t->run) != RUN_PATCHED)
			continue;
		/* In vain, if it has just come out, or is about to see that it is RUN_CLAIMED: that is harmless. */
		systrap_kick(as->p, t);
		any = true;
	}
	return any;
}

/*
 * Threads that may have the mailbox's address as gs base, or be in a trampoline, come out once. as->lock is not held. They may have
 * to wait for a CPU among many; one that has not come when patience ends is hostile, or is resolved whenever it comes.
 */
static void bring_out(struct address_space *as)
{
	int64_t round_ns = OUT_ROUND_NS;
	bool any = true;

	for (unsigned rounds = 0; any && rounds < SYSTRAP_PATIENCE; rounds++) {
		mutex_lock(&as->lock);
		any = as->stub && !atomic_load(&as->stub->dead) && kick_patched(as);
		mutex_unlock(&as->lock);
		if (any)
			(void)clock_nanosleep(CLOCK_MONOTONIC, 0,
					      &(struct timespec){.tv_nsec = round_ns}, NULL);
		round_ns = MIN(2 * round_ns, SYSTRAP_ROUND_NS);
	}
}

void systrap_as_claim(struct address_space *as, uint64_t va, uint64_t size)
{
	bool first;

	if (!patch_range_touches(va, size))
		return;
	mutex_lock(&as->lock);
	first = !atomic_load(&as->patch_refused);
	/* Pairs with load_regs(): who goes on after this has the application's own gs base. */
	atomic_store(&as->patch_refused, true);
	if (as->own_mapped) {
		unpatch_all(as);
		/* Who is in a trampoline faults there. */
		systrap_order_post(as->p, as->stub,
				   &(struct systrap_order){
					   .nr = SYS_munmap,
					   .flags = ORDER_MUST,
					   .args = {PATCH_VA, PATCH_END_VA - PATCH_VA},
				   });
		systrap_orders_sync(as->p, as->stub);
		as->own_mapped = false;
		atomic_store(&as->patch_live, NULL);
	}
	/*
	 * Events of who set out before this are resolved, however late they come: so the records stay while the address space
	 * lives. Events of who sets out after it are not: code in the range is the application's.
	 */
	atomic_store(&as->patch_gone, true);
	/* Also if as_clear() has unmapped them just now. */
	first = first && as->patches;
	mutex_unlock(&as->lock);
	if (first)
		bring_out(as);
}

void systrap_as_set_traced(struct address_space *as, bool on)
{
	mutex_lock(&as->lock);
	as->traced = on;
	/* Threads in a trampoline go on: it stays. */
	if (on)
		unpatch_all(as);
	else
		patch_heat_reset(&as->heat);
	mutex_unlock(&as->lock);
}

void systrap_patch_resolve(struct platform_context *ctx, struct address_space *as,
			   struct arch_regs *regs, struct platform_event *ev)
{
	const struct patch_space *space = atomic_load(&as->patch_known);

	if (space && atomic_load_explicit(&ctx->thread->run, memory_order_relaxed) == RUN_PATCHED)
		patch_resolve_event(space, regs->r.gs_base ? NULL : ctx->thread->mb,
				    atomic_load(&as->patch_live), regs, ev);
}

bool systrap_patch_has_detours(struct address_space *as, uint64_t va, uint64_t size)
{
	return as->patches && patch_detours_in(as->patches, va, size);
}

/* Before a thread goes on, which is in no detour. Who drops pages holds the lock until they have gone: a settled one is nowhere any more. */
void systrap_patch_settle(struct address_space *as)
{
	struct patch_space *space = atomic_load_explicit(&as->patch_known, memory_order_acquire);

	if (likely(!space || !patch_unsettled(space)))
		return;
	mutex_lock(&as->lock);
	patch_settle(space);
	mutex_unlock(&as->lock);
}

void systrap_mailbox_attach(struct systrap_thread *t, struct address_space *as)
{
	struct patch_mailbox *mb;
	struct patch_range range;
	int index;

	t->mb_tried = true;
	mutex_lock(&as->lock);
	if (atomic_load(&as->patch_live)) {
		index = patch_mailbox_get(as->patches, &range, &mb);
		if (index >= 0) {
			post_own(as, &range);
			systrap_orders_start(as->p, as->stub);
			t->mb = mb;
			t->mb_range = range;
			t->mb_index = index;
		}
	}
	mutex_unlock(&as->lock);
}
