/* platform/patch/mailbox.c - mailboxes: posting a call, its answer, and what a thread is told besides. */
#include <string.h>

#include "platform/patch/internal.h"

#define XSAVE_HEADER 512u
#define XSAVE_HEADER_SIZE 64u
#define EFLAGS_RF 0x10000ul
#define EFLAGS_AC 0x40000ul

#define CHECK_OFFSET(field, off) \
	_Static_assert(offsetof(struct patch_mailbox, field) == (off), #field)
CHECK_OFFSET(magic, MB_MAGIC);
CHECK_OFFSET(asleep, MB_ASLEEP);
CHECK_OFFSET(spins, MB_SPINS);
CHECK_OFFSET(stack, MB_STACK);
CHECK_OFFSET(state, MB_STATE);
CHECK_OFFSET(rax, MB_RAX);
CHECK_OFFSET(rdi, MB_RDI);
CHECK_OFFSET(r10, MB_R10);
CHECK_OFFSET(r9, MB_R9);
CHECK_OFFSET(rsp, MB_RSP);
CHECK_OFFSET(r15, MB_R15);
CHECK_OFFSET(rip, MB_RIP);
CHECK_OFFSET(flags, MB_FLAGS);
CHECK_OFFSET(rcx, MB_RCX);
CHECK_OFFSET(r11, MB_R11);
CHECK_OFFSET(op, MB_OP);
CHECK_OFFSET(xsave, MB_XSAVE);
_Static_assert(MB_FLAGS + 8 == MB_STACK_TOP, "pushfq writes `flags`");
_Static_assert(sizeof(struct patch_mailbox) == MOAT_PAGE_SIZE, "a page each");

int patch_mailbox_get(struct patch_space *s, struct patch_range *ret_range,
		      struct patch_mailbox **ret_mb)
{
	int n = patch_page_get(s->mailbox_chunks, s->mailbox_used, MAILBOX_CHUNKS_MAX);
	struct patch_mailbox *mb;
	uint64_t off;

	if (n < 0)
		return n;
	off = s->mailbox_chunks[n / CHUNK_PAGES] - 1 + n % CHUNK_PAGES * MOAT_PAGE_SIZE;
	mb = (struct patch_mailbox *)patch_mem(off);
	mb->magic = PATCH_MAGIC;
	mb->stack = patch_mailbox_va(n) + MB_STACK_TOP;
	patch_mailbox_listen(mb, false, 0);
	patch_mailbox_reset(mb);
	*ret_range = (struct patch_range){patch_mailbox_va(n), MOAT_PAGE_SIZE, off,
					  MEM_READ | MEM_WRITE};
	*ret_mb = mb;
	return n;
}

void patch_mailbox_put(struct patch_space *s, int index)
{
	s->mailbox_used[index / CHUNK_PAGES] &= ~(1u << index % CHUNK_PAGES);
}

void patch_mailbox_listen(struct patch_mailbox *mb, bool listening, uint32_t spins)
{
	atomic_store_explicit(&mb->spins, spins, memory_order_relaxed);
	atomic_store_explicit(&mb->asleep, !listening, memory_order_release);
}

bool patch_mailbox_posted(const struct patch_mailbox *mb)
{
	return atomic_load_explicit(&mb->state, memory_order_acquire) == MB_POSTED;
}

void patch_after_syscall(struct user_regs_struct *r, uint64_t rip, uint64_t flags)
{
	r->eflags = (flags & ARCH_EFLAGS_USER) | ARCH_EFLAGS_FIXED;
	r->rip = r->rcx = rip;
	r->r11 = r->eflags;
	/* Whatever they were loaded with. */
	r->cs = ARCH_USER_CS;
	r->ss = ARCH_USER_SS;
}

void patch_take_general(const struct patch_mailbox *mb, struct user_regs_struct *r)
{
#define TAKE(reg) r->reg = atomic_load_explicit(&mb->reg, memory_order_relaxed)
	TAKE(rax);
	TAKE(rdi);
	TAKE(rsi);
	TAKE(rdx);
	TAKE(r10);
	TAKE(r8);
	TAKE(r9);
	TAKE(rbx);
	TAKE(rbp);
	TAKE(rsp);
	TAKE(r12);
	TAKE(r13);
	TAKE(r14);
	TAKE(r15);
#undef TAKE
}

bool patch_mailbox_take(struct patch_mailbox *mb, struct arch_regs *regs)
{
	struct user_regs_struct *r = &regs->r;

	if (!patch_mailbox_posted(mb))
		return false;
	atomic_store_explicit(&mb->state, MB_TAKEN, memory_order_relaxed);
	patch_take_general(mb, r);
	patch_after_syscall(r, atomic_load_explicit(&mb->rip, memory_order_relaxed),
			    atomic_load_explicit(&mb->flags, memory_order_relaxed));
	return true;
}

void patch_mailbox_reply(struct patch_mailbox *mb, uint64_t rax)
{
	atomic_store_explicit(&mb->rax, rax, memory_order_relaxed);
	atomic_store_explicit(&mb->state, MB_DONE, memory_order_release);
}

bool patch_can_switch(const struct arch_regs *taken, const struct arch_regs *now)
{
	const struct user_regs_struct *a = &taken->r, *b = &now->r;

	return ((a->fs_base ^ b->fs_base) | (a->gs_base ^ b->gs_base) | (a->ds ^ b->ds) |
		(a->es ^ b->es) | (a->fs ^ b->fs) | (a->gs ^ b->gs) |
		(b->eflags & ~(uint64_t)(ARCH_EFLAGS_USER | ARCH_EFLAGS_FIXED)) |
		(b->eflags & (ARCH_EFLAGS_TF | EFLAGS_RF | EFLAGS_AC))) == 0;
}

void patch_mailbox_switch(struct patch_mailbox *mb, const struct arch_regs *regs)
{
	const struct user_regs_struct *r = &regs->r;

#define PUT(reg) atomic_store_explicit(&mb->reg, r->reg, memory_order_relaxed)
	PUT(rax);
	PUT(rdi);
	PUT(rsi);
	PUT(rdx);
	PUT(r10);
	PUT(r8);
	PUT(r9);
	PUT(rbx);
	PUT(rbp);
	PUT(rsp);
	PUT(r12);
	PUT(r13);
	PUT(r14);
	PUT(r15);
	PUT(rip);
	PUT(rcx);
	PUT(r11);
#undef PUT
	atomic_store_explicit(&mb->flags, r->eflags, memory_order_relaxed);
	atomic_store_explicit(&mb->op, MB_OP_SWITCH, memory_order_relaxed);
	atomic_store_explicit(&mb->state, MB_ORDER, memory_order_release);
}

void patch_mailbox_save_fpu(struct patch_mailbox *mb)
{
	memset(mb->xsave + XSAVE_HEADER, 0, XSAVE_HEADER_SIZE);
	atomic_store_explicit(&mb->op, MB_OP_SAVE, memory_order_relaxed);
	atomic_store_explicit(&mb->state, MB_ORDER, memory_order_release);
}

bool patch_mailbox_saved(const struct patch_mailbox *mb)
{
	return atomic_load_explicit(&mb->state, memory_order_acquire) == MB_TAKEN;
}

void patch_mailbox_fpu(const struct patch_mailbox *mb, void *buf, size_t size)
{
	assert(size <= MB_XSAVE_SIZE);
	memcpy(buf, mb->xsave, size);
	if (size >= XSAVE_HEADER + XSAVE_HEADER_SIZE)
		memset((uint8_t *)buf + XSAVE_HEADER + 8, 0, XSAVE_HEADER_SIZE - 8);
}

void patch_mailbox_leave(struct patch_mailbox *mb)
{
	atomic_store_explicit(&mb->state, MB_LEAVE, memory_order_release);
}

void patch_mailbox_reset(struct patch_mailbox *mb)
{
	atomic_store_explicit(&mb->state, MB_DONE, memory_order_relaxed);
	/* Who jumps to where orders are obeyed finds none, not the last again and again. */
	atomic_store_explicit(&mb->op, MB_OP_NONE, memory_order_relaxed);
}

bool patch_only_rax_changed(const struct arch_regs *taken, const struct arch_regs *now)
{
	const struct user_regs_struct *a = &taken->r, *b = &now->r;
	uint64_t diff = 0;

#define DIFF(reg) diff |= a->reg ^ b->reg
	DIFF(rdi);
	DIFF(rsi);
	DIFF(rdx);
	DIFF(r10);
	DIFF(r8);
	DIFF(r9);
	DIFF(rbx);
	DIFF(rbp);
	DIFF(rsp);
	DIFF(r12);
	DIFF(r13);
	DIFF(r14);
	DIFF(r15);
	DIFF(rip);
	DIFF(rcx);
	DIFF(r11);
	DIFF(eflags);
	DIFF(fs_base);
	DIFF(gs_base);
	DIFF(ds);
	DIFF(es);
	DIFF(fs);
	DIFF(gs);
#undef DIFF
	return diff == 0;
}
