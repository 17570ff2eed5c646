/* platform/patch/resolve.c - what registers mean in a trampoline: before a call, a call, or after it. */
#include "platform/patch/internal.h"

#define VECTOR_UD 6u
#define VECTOR_PF 14u
#define PF_FETCH_USER 0x14u

/* The site whose call returns to `rip`; of several (its text was replaced), the last. */
static const struct patch_site *site_by_rip(const struct patch_space *s, uint64_t rip)
{
	unsigned n = s ? atomic_load_explicit(&s->nsites, memory_order_acquire) : 0;

	while (n-- > 0)
		if (s->sites[n].rip == rip)
			return &s->sites[n];
	return NULL;
}

static enum patch_verdict resolve_entry(const struct patch_space *s, struct user_regs_struct *r)
{
	unsigned n = s ? atomic_load_explicit(&s->nsites, memory_order_acquire) : 0;
	uint64_t at = r->rip - PATCH_ENTRY_VA;
	const struct patch_site *site;

	if (at / PATCH_ENTRY_SIZE >= n)
		return PATCH_STRAY;
	site = &s->sites[at / PATCH_ENTRY_SIZE];
	switch (at % PATCH_ENTRY_SIZE) {
	case 0:
		if (site->cleared)
			patch_clear_rax(r);
		r->rax = site->nr;
		r->rip = site->rip - 2;
		return PATCH_BEFORE;
	case ENTRY_AT_CLEARED:
		if (!site->cleared)
			return PATCH_STRAY;
		r->rip = site->rip - 2;
		return PATCH_BEFORE;
	case ENTRY_AT_MOVABS:
		r->rax = site->nr;
		r->rip = site->rip - 2;
		return PATCH_BEFORE;
	case ENTRY_AT_JMP:
		r->rax = site->nr;
		patch_after_syscall(r, site->rip, r->eflags);
		return PATCH_CALL;
	}
	return PATCH_STRAY;
}

/* The call is over: its result is in the mailbox, or already in rax. */
static enum patch_verdict resolve_done(const struct patch_space *s, const struct patch_mailbox *mb,
				       struct user_regs_struct *r, uint64_t rip)
{
	uint64_t at = r->rip;
	bool has_rax = at > CODE_VA_OF(patch_code_done) && at <= CODE_VA_OF(patch_code_done_jmp);

	if (!site_by_rip(s, rip) || (!has_rax && !mb))
		return PATCH_STRAY;
	if (!has_rax)
		r->rax = atomic_load_explicit(&mb->rax, memory_order_relaxed);
	patch_after_syscall(r, rip, r->eflags);
	return PATCH_AFTER;
}

/* All registers were to come from the mailbox: any values, as in patch_mailbox_take(). */
static enum patch_verdict resolve_switch(const struct patch_mailbox *mb, struct user_regs_struct *r)
{
	if (!mb)
		return PATCH_STRAY;
	patch_take_general(mb, r);
	r->rip = atomic_load_explicit(&mb->rip, memory_order_relaxed);
	r->rcx = atomic_load_explicit(&mb->rcx, memory_order_relaxed);
	r->r11 = atomic_load_explicit(&mb->r11, memory_order_relaxed);
	r->eflags = (atomic_load_explicit(&mb->flags, memory_order_relaxed) & ARCH_EFLAGS_USER) |
		    ARCH_EFLAGS_FIXED;
	return PATCH_AFTER;
}

/* On its way to the switch, or there: was it really sent, or has the application jumped there? */
static bool is_switching(const struct patch_mailbox *mb)
{
	return mb && atomic_load_explicit(&mb->state, memory_order_acquire) == MB_ORDER &&
	       atomic_load_explicit(&mb->op, memory_order_relaxed) == MB_OP_SWITCH;
}

/* In lstar.S. Whatever the registers are, they give a call, or the end of one, that the program could have made itself. */
static enum patch_verdict resolve_lstar(const struct patch_mailbox *mb, struct user_regs_struct *r)
{
	uint64_t at = r->rip;
	bool posted = at >= LSTAR_VA_OF(patch_lstar_posted);
	bool moved = at >= LSTAR_VA_OF(patch_lstar_posts), done;

	moved |= at >= LSTAR_VA_OF(patch_lstar_up) && at < LSTAR_VA_OF(patch_lstar_whole);
	moved &= !(at >= LSTAR_VA_OF(patch_lstar_down) && at < LSTAR_VA_OF(patch_lstar_back));
	done = at >= LSTAR_VA_OF(patch_lstar_done) && at < LSTAR_VA_OF(patch_lstar_order);
	if (done && at > LSTAR_VA_OF(patch_lstar_done_rax)) {
		/* Flags have been put where popfq finds them, or are in r11 again, or (nobody's) lost. */
		if (at >= LSTAR_VA_OF(patch_lstar_stack) && at < LSTAR_VA_OF(patch_lstar_unstack))
			r->rsp = r->r11;
		if (at < LSTAR_VA_OF(patch_lstar_done_jmp))
			r->r11 = mb ? atomic_load_explicit(&mb->flags, memory_order_relaxed)
				    : r->eflags;
		moved = false;
	}
	if (posted && !done && is_switching(mb))
		return resolve_switch(mb, r);
	patch_after_syscall(r, r->rcx, moved ? r->r11 >> 16 : r->r11);
	if (done && at >= LSTAR_VA_OF(patch_lstar_done_rax))
		return PATCH_AFTER;
	/* Its answer is there, though it has not seen it. */
	if (posted && mb && atomic_load_explicit(&mb->state, memory_order_acquire) == MB_DONE) {
		r->rax = atomic_load_explicit(&mb->rax, memory_order_relaxed);
		return PATCH_AFTER;
	}
	return PATCH_CALL;
}

enum patch_verdict patch_resolve(const struct patch_space *s, const struct patch_mailbox *mb,
				 struct arch_regs *inout_regs)
{
	struct user_regs_struct *r = &inout_regs->r;
	const struct patch_site *site;
	uint64_t rip = r->rip, back = r->r11;

	if (!patch_rip_inside(rip) && !patch_lstar_inside(rip))
		return PATCH_OUTSIDE;
	if (rip >= PATCH_ENTRY_VA && rip < PATCH_CODE_VA)
		return resolve_entry(s, r);
	if (rip - PATCH_LSTAR_VA < (uint64_t)(patch_lstar_end - patch_lstar) && s) {
		enum patch_verdict verdict = resolve_lstar(mb, r);

		/* The trap at a trampoline's end has come by here. */
		if (verdict != PATCH_CALL || r->rip != CODE_VA_OF(patch_code_left))
			return verdict;
		rip = r->rip;
	}
	if (rip < PATCH_CODE_VA || rip >= CODE_VA_OF(patch_code_end))
		return PATCH_STRAY;
	if (rip == CODE_VA_OF(patch_code_done_rcx) || rip == CODE_VA_OF(patch_code_done_jmp))
		back = r->rcx;
	else if (rip == CODE_VA_OF(patch_code_slow_jmp))
		back = r->r11 + 2;
	else if (rip == CODE_VA_OF(patch_code_left))
		back = r->rax;
	if (rip >= CODE_VA_OF(patch_code_done) && rip <= CODE_VA_OF(patch_code_done_jmp))
		return resolve_done(s, mb, r, back);
	if (rip >= CODE_VA_OF(patch_code_switch) ||
	    (rip >= CODE_VA_OF(patch_code_posted) && is_switching(mb)))
		return resolve_switch(mb, r);
	/* Its answer is there, and it was on its way to a trap, or to look. */
	if (rip >= CODE_VA_OF(patch_code_posted) && mb &&
	    atomic_load_explicit(&mb->state, memory_order_acquire) == MB_DONE)
		return resolve_done(s, mb, r, back);
	site = site_by_rip(s, back);
	if (!site)
		return PATCH_STRAY;
	if (rip >= CODE_VA_OF(patch_code_pushf) && rip < CODE_VA_OF(patch_code_popped))
		r->rsp = r->rcx;
	r->rax = site->nr;
	patch_after_syscall(r, site->rip, r->eflags);
	return PATCH_CALL;
}

/* A site's jump was under way when its table went: it is void, since the site's page went before, or with it. */
static bool is_jump_fault(const struct patch_space *s, const struct arch_regs *regs,
			  const struct platform_event *ev)
{
	uint64_t at = ev->addr - PATCH_TABLE_VA, slot = at / 8;

	return ev->kind == PLATFORM_FAULT && ev->access == MEM_READ && s && at % 8 == 0 &&
	       slot < atomic_load_explicit(&s->nsites, memory_order_acquire) &&
	       s->sites[slot].rip == regs->r.rip + SITE_SIZE;
}

void patch_resolve_event(const struct patch_space *space, const struct patch_mailbox *mb, bool ours,
			 struct arch_regs *inout_regs, struct platform_event *inout_ev)
{
	static const struct platform_event interrupted = {.kind = PLATFORM_INTERRUPTED};
	enum platform_event_kind kind = inout_ev->kind;
	bool trap = kind == PLATFORM_SYSCALL ||
		    (kind == PLATFORM_EXCEPTION && inout_ev->vector == VECTOR_UD);

	switch (patch_resolve(space, mb, inout_regs)) {
	case PATCH_OUTSIDE:
		/* At a detour's jump: of its faults neither the table's nor the page's are the application's. */
		if (kind != PLATFORM_SYSCALL && patch_detour_resolve(space, &inout_regs->r)) {
			if (kind == PLATFORM_FAULT)
				*inout_ev = interrupted;
		} else if (is_jump_fault(space, inout_regs, inout_ev)) {
			*inout_ev = interrupted;
		}
		break;
	case PATCH_BEFORE:
		if (kind == PLATFORM_FAULT)
			*inout_ev = interrupted;
		break;
	case PATCH_CALL:
		*inout_ev = (struct platform_event){.kind = PLATFORM_SYSCALL};
		break;
	case PATCH_AFTER:
		if (trap || kind == PLATFORM_FAULT)
			*inout_ev = interrupted;
		break;
	case PATCH_STRAY:
		if (!ours)
			break;
		*inout_ev = (struct platform_event){
			.kind = PLATFORM_FAULT,
			.addr = inout_regs->r.rip,
			.access = MEM_EXEC,
			.vector = VECTOR_PF,
			.error_code = PF_FETCH_USER,
		};
		break;
	}
}
