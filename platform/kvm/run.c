/*
 * platform/kvm/run.c - running the application until something happens, and finding out what.
 *
 * One KVM_RUN an event, registers in and out through the shared page. An exit is believed only if the vCPU's
 * state fits it: `out` at the stub with the mode that a syscall leaves, `hlt` in a handler with an exception
 * frame from ring 3. Anything else is an event that tells no lie (#GP or #UD at the application's rip) and
 * the vCPU's state is set up anew.
 *
 * A signal can end KVM_RUN anywhere: with an exception queued, in a handler before its hlt, in the stub
 * before its out. Registers are looked at, and replaced, only when none of that is so; else the vCPU runs on as
 * it is, which ends at that very instruction, and the interruption waits for the next switch.
 */
#include <string.h>
#include <sys/ioctl.h>

#include "base/log.h"
#include "base/sleep.h"
#include "platform/common/event.h"
#include "platform/kvm/kvm.h"

#define VECTOR_BP 3
#define VECTOR_OF 4
#define VECTOR_UD 6
#define VECTOR_GP 13
#define EFLAGS_IF 0x200ul
#define EFLAGS_FIXED_CPL0 0x2ul

/* EFAULT again and again with nothing of the window mapped: the host cannot give us the memory. */
#define EFAULT_RETRIES_MAX 8

/* Vectors whose frame starts with an error code: 8, 10-14, 17, 21, 29, 30. */
#define ERROR_CODE_VECTORS 0x60227d00u

enum run_verdict { RUN_EVENT, RUN_AGAIN, RUN_INTERRUPTED, RUN_BAD };

enum run_mode {
	RUN_FRESH, /* registers are loaded, nothing has run */
	RUN_RESUME, /* the vCPU goes on as it was; it may be told not to */
	RUN_FORCED, /* it is on its way to an exit of its own and must get there */
};

static bool canonical(uint64_t va)
{
	return (int64_t)(va << 16) >> 16 == (int64_t)va;
}

/* Only the thread that runs v counts; anyone reads. */
static void vcpu_count(_Atomic uint64_t *count)
{
	uint64_t n = atomic_load_explicit(count, memory_order_relaxed);

	atomic_store_explicit(count, n + 1, memory_order_relaxed);
}

/* A data segment as the application sees it: null, or the one descriptor there is. */
static void data_segment(struct kvm_segment *seg, uint64_t selector, uint64_t base)
{
	bool flat = (selector & 0xffff) == ARCH_USER_SS;

	*seg = (struct kvm_segment){
		.base = canonical(base) ? base : 0,
		.limit = 0xffffffff,
		.selector = flat ? ARCH_USER_SS : selector & 3 & -(selector < 4),
		.type = 3,
		.present = flat,
		.dpl = 3,
		.db = 1,
		.s = 1,
		.g = 1,
		.unusable = !flat,
	};
}

/* Would `sysretq`, with the segments that the vCPU has, give just these registers? */
static bool returns_by_sysret(const struct user_regs_struct *r, const struct kvm_segs *s,
			      uint64_t gs_base)
{
	return r->rcx == r->rip && r->r11 == r->eflags &&
	       !(r->eflags & ~(ARCH_EFLAGS_USER | ARCH_EFLAGS_FIXED)) && r->fs_base == s->fs_base &&
	       gs_base == s->gs_base && r->ds == s->ds && r->es == s->es && r->fs == s->fs &&
	       r->gs == s->gs;
}

/* The segment registers as the vCPU has them, where an exit does not bring them. Return: 0, -errno. */
static int fetch_sregs(struct kvm_vcpu *v)
{
	return v->p->stub_saves ? kvm_ioctl(v->fd, KVM_GET_SREGS, &v->run->s.regs.sregs) : 0;
}

void kvm_load_regs(struct kvm_vcpu *v, const struct arch_regs *regs, uint64_t mailbox_va)
{
	const struct user_regs_struct *r = &regs->r;
	struct kvm_sregs *s = &v->run->s.regs.sregs;
	/* An application that uses gs itself goes without a mailbox. */
	const uint64_t hidden_gs = r->gs_base ? 0 : mailbox_va;
	const bool in_stub = v->in_stub && returns_by_sysret(r, &v->segs, r->gs_base | hidden_gs);

	v->in_stub = false;
	v->hidden_gs = hidden_gs;
	v->run->s.regs.regs = (struct kvm_regs){
		.rax = r->rax,
		.rbx = r->rbx,
		.rcx = r->rcx,
		.rdx = r->rdx,
		.rsi = r->rsi,
		.rdi = r->rdi,
		.rsp = r->rsp,
		.rbp = r->rbp,
		.r8 = r->r8,
		.r9 = r->r9,
		.r10 = r->r10,
		.r11 = r->r11,
		.r12 = r->r12,
		.r13 = r->r13,
		.r14 = r->r14,
		.r15 = r->r15,
		.rip = r->rip,
		.rflags = (r->eflags & ARCH_EFLAGS_USER) | ARCH_EFLAGS_FIXED,
	};
	if (in_stub) {
		v->run->s.regs.regs.rip = KVM_STUB_SYSRET_VA;
		v->run->s.regs.regs.rflags = EFLAGS_FIXED_CPL0;
		v->run->kvm_dirty_regs = KVM_SYNC_X86_REGS;
		return;
	}
	*s = v->sregs;
	s->cr3 = 0;
	data_segment(&s->ds, r->ds, 0);
	data_segment(&s->es, r->es, 0);
	data_segment(&s->fs, r->fs, r->fs_base);
	data_segment(&s->gs, r->gs, r->gs_base | hidden_gs);
	v->run->kvm_dirty_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
}

void kvm_choose_lstar(struct kvm_vcpu *v, const struct address_space *as,
		      const struct arch_regs *regs, uint64_t mailbox_va)
{
	bool posts = v->p->lstar_posts && mailbox_va && !regs->r.gs_base &&
		     atomic_load_explicit(&as->patch_live, memory_order_relaxed);

	if (likely(v->posts == posts))
		return;
	if (kvm_vcpu_set_lstar(v,
			       posts ? PATCH_LSTAR_VA + patch_lstar_offset() : v->p->stub_entry_va))
		v->broken = true;
	else
		v->posts = posts;
}

static const struct kvm_saved *saved(const struct kvm_vcpu *v)
{
	return (const struct kvm_saved *)(v->stack_page + KVM_VCPU_SAVE);
}

/* After an exit from the stub or a handler that has saved them. */
static void segs_from_save(struct kvm_vcpu *v)
{
	const struct kvm_saved *s = saved(v);

	v->segs = (struct kvm_segs){s->fs_base, s->gs_base, s->ds, s->es, s->fs, s->gs};
}

static void segs_from_sregs(struct kvm_vcpu *v)
{
	const struct kvm_sregs *s = &v->run->s.regs.sregs;

	v->segs = (struct kvm_segs){s->fs.base,	    s->gs.base,	    s->ds.selector,
				    s->es.selector, s->fs.selector, s->gs.selector};
}

/* The general registers, and v->segs. rip, rsp and eflags as in the vCPU. */
static void store_regs(const struct kvm_vcpu *v, struct arch_regs *regs)
{
	const struct kvm_regs *k = &v->run->s.regs.regs;
	const struct kvm_segs *s = &v->segs;
	struct user_regs_struct *r = &regs->r;

	r->rax = k->rax;
	r->rbx = k->rbx;
	r->rcx = k->rcx;
	r->rdx = k->rdx;
	r->rsi = k->rsi;
	r->rdi = k->rdi;
	r->rsp = k->rsp;
	r->rbp = k->rbp;
	r->r8 = k->r8;
	r->r9 = k->r9;
	r->r10 = k->r10;
	r->r11 = k->r11;
	r->r12 = k->r12;
	r->r13 = k->r13;
	r->r14 = k->r14;
	r->r15 = k->r15;
	r->rip = k->rip;
	r->eflags = k->rflags;
	r->cs = ARCH_USER_CS;
	r->ss = ARCH_USER_SS;
	r->ds = s->ds;
	r->es = s->es;
	r->fs = s->fs;
	r->gs = s->gs;
	r->fs_base = s->fs_base;
	r->gs_base = s->gs_base == v->hidden_gs ? 0 : s->gs_base;
}

/*
 * A rip that ring 3 cannot have: what the fetch there would have given, without running. The stub's page is,
 * for the application, an address where nothing is.
 */
static bool rip_refused(uint64_t rip, struct platform_event *ev)
{
	if (likely(rip < ARCH_TASK_SIZE))
		return false;
	if (canonical(rip))
		event_fault(ev, rip, PF_FETCH | PF_USER);
	else
		event_exception(ev, VECTOR_GP, 0);
	return true;
}

/*
 * Publishes that v is in `as` and gives it the root that is there then.
 * Return: 0, to be ended by kvm_vcpu_exit(); -ENOMEM.
 */
static int enter_with_root(struct kvm_vcpu *v, struct address_space *as)
{
	struct kvm_sregs *sregs = &v->run->s.regs.sregs;
	uint64_t root;
	int err;

	for (;;) {
		kvm_vcpu_enter(v, as);
		root = atomic_load(&as->root);
		if (likely(root))
			break;
		kvm_vcpu_exit(v);
		err = kvm_as_ready(as);
		if (err)
			return err;
	}
	/* What is loaded afresh has none. */
	if (unlikely(sregs->cr3 != root)) {
		/* Not loaded afresh: the rest goes back as it is. */
		if (!(v->run->kvm_dirty_regs & KVM_SYNC_X86_SREGS) && fetch_sregs(v)) {
			kvm_vcpu_exit(v);
			return -ENOMEM;
		}
		sregs->cr3 = root;
		v->run->kvm_dirty_regs |= KVM_SYNC_X86_SREGS;
	}
	return 0;
}

/* KVM finishes what it was emulating, in the tree that `as` has now, and runs nothing. */
static void complete_io(struct kvm_vcpu *v, struct address_space *as)
{
	if (!enter_with_root(v, as)) {
		__atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
		if (kvm_ioctl(v->fd, KVM_RUN, NULL) == -EINTR) {
			kvm_vcpu_exit(v);
			return;
		}
		kvm_vcpu_exit(v);
	}
	v->broken = true;
}

/*
 * The application's own use of the stub's port, which is open to ring 3 where ring 0 is emulated: on Linux a #GP
 * at the instruction. KVM may have stepped over it already, so its start is looked for; what it has left to do it
 * does now, before registers are replaced.
 */
static void own_port_io(struct kvm_vcpu *v, struct address_space *as, struct arch_regs *regs,
			struct platform_event *ev)
{
	uint8_t insn[2] = {0, 0};

	segs_from_sregs(v);
	store_regs(v, regs);
	regs->r.eflags = (regs->r.eflags & ARCH_EFLAGS_USER) | ARCH_EFLAGS_FIXED;
	complete_io(v, as);
	if (rip_refused(regs->r.rip, ev))
		return;
	kvm_as_fetch(as, regs->r.rip - 2, insn, sizeof(insn));
	if (insn[0] == 0xe6 && insn[1] == KVM_STUB_PORT)
		regs->r.rip -= 2;
	else if (insn[1] == 0xee || insn[1] == 0x6e)
		regs->r.rip -= 1;
	event_exception(ev, VECTOR_GP, 0);
	vcpu_count(&v->counts.exceptions);
}

/*
 * `out` in the stub: a system call, if the vCPU is as `syscall` leaves it: at CPL 0, interrupts masked. Where
 * ring 0 is emulated CS often stays the user's; the mask, which ring 3 cannot set, is the proof then.
 */
static enum run_verdict exit_io(struct kvm_vcpu *v, struct address_space *as,
				struct arch_regs *regs, struct platform_event *ev)
{
	const struct kvm_run *run = v->run;
	uint64_t at = run->s.regs.regs.rip - (KVM_STUB_VA + KVM_STUB_OFFSET);
	/* Where the stub saves, ring 0 is native and the port closed to ring 3. */
	uint16_t cs = v->p->stub_saves ? KVM_KERNEL_CS : run->s.regs.sregs.cs.selector;
	bool emulated = v->p->ring0_emulated, masked = !(run->s.regs.regs.rflags & EFLAGS_IF);

	/* Now and then `syscall` itself was emulated: then CS is the kernel's there too, and nothing is posted. */
	if (v->posts && (cs == ARCH_USER_CS || cs == KVM_KERNEL_CS) && masked &&
	    patch_lstar_at_exit(run->s.regs.regs.rip)) {
		/* Whose call, and whether it has been answered, patch_resolve() knows. */
		segs_from_sregs(v);
		store_regs(v, regs);
		*ev = (struct platform_event){.kind = PLATFORM_SYSCALL};
		vcpu_count(&v->counts.syscalls);
		return RUN_EVENT;
	}
	/* Calls that were posted there have left the mask behind them: then the place tells. */
	if (emulated && cs == ARCH_USER_CS &&
	    (!masked || v->posts || run->s.regs.regs.rip < ARCH_TASK_SIZE)) {
		own_port_io(v, as, regs, ev);
		return RUN_EVENT;
	}
	/* KVM may have stepped over the instruction, or will when it runs next at this rip, which it does not. */
	if (run->io.direction != KVM_EXIT_IO_OUT || run->io.port != KVM_STUB_PORT ||
	    run->io.size != 1 || run->io.count != 1 || (at != 0 && at != 2) || !masked ||
	    (cs != KVM_KERNEL_CS && !(emulated && cs == ARCH_USER_CS)))
		return RUN_BAD;
	if (v->p->stub_saves)
		segs_from_save(v);
	else
		segs_from_sregs(v);
	store_regs(v, regs);
	regs->r.rip = regs->r.rcx;
	regs->r.eflags = (regs->r.r11 & ARCH_EFLAGS_USER) | ARCH_EFLAGS_FIXED;
	*ev = (struct platform_event){.kind = PLATFORM_SYSCALL};
	vcpu_count(&v->counts.syscalls);
	v->in_stub = v->p->sysret_works;
	return RUN_EVENT;
}

static bool is_soft(uint32_t vector)
{
	return vector == VECTOR_BP || vector == VECTOR_OF;
}

/* An int3 or into has arrived: so that at_rest() takes the next one it hears of for a queued one. */
static void forget_soft(struct kvm_vcpu *v)
{
	struct kvm_vcpu_events events;

	if (kvm_ioctl(v->fd, KVM_GET_VCPU_EVENTS, &events) == 0) {
		events.exception.nr = 0;
		if (kvm_ioctl(v->fd, KVM_SET_VCPU_EVENTS, &events) == 0)
			return;
	}
	v->broken = true;
}

/* Which handler's `hlt` is this? Return: the vector, or -1: none's. */
static int handler_vector(const struct kvm_vcpu *v)
{
	const struct kvm_regs *k = &v->run->s.regs.regs;
	uint64_t at = k->rip - 1 - (KVM_KERNEL_BASE + KVM_KERNEL_HANDLERS), vector;
	uint64_t depth = kvm_guest_tss_va(v->id) + MOAT_PAGE_SIZE - k->rsp;

	if (!v->p->stub_saves)
		return at >= 32 * KVM_HANDLER_SIZE || at % KVM_HANDLER_SIZE ||
				       v->run->s.regs.sregs.cs.selector != KVM_KERNEL_CS
			       ? -1
			       : (int)(at / KVM_HANDLER_SIZE);
	/* `hlt` is ring 0's. Below the frame, and the error code if there is one, the handler has pushed its number. */
	if (k->rip != v->p->common_hlt_va + 1 || (depth != 6 * 8 && depth != 7 * 8))
		return -1;
	memcpy(&vector, v->stack_page + MOAT_PAGE_SIZE - depth, sizeof(vector));
	if (vector >= 32 || (ERROR_CODE_VECTORS >> vector & 1) != (depth == 7 * 8))
		return -1;
	return (int)vector;
}

/* `hlt` in a handler: an exception of ring 3, its frame at the top of the vCPU's exception stack. */
static enum run_verdict exit_hlt(struct kvm_vcpu *v, struct arch_regs *regs,
				 struct platform_event *ev)
{
	const bool saves = v->p->stub_saves;
	uint32_t error_code = 0;
	uint64_t frame[6]; /* error code, rip, cs, rflags, rsp, ss */
	int vector = handler_vector(v);

	if (vector < 0)
		return RUN_BAD;
	memcpy(frame, v->stack_page + MOAT_PAGE_SIZE - sizeof(frame), sizeof(frame));
	if ((frame[2] & 0xffff) != ARCH_USER_CS || (frame[5] & 0xffff) != ARCH_USER_SS)
		return RUN_BAD;
	if (ERROR_CODE_VECTORS >> vector & 1)
		error_code = frame[0];
	if (saves)
		segs_from_save(v);
	else
		segs_from_sregs(v);
	store_regs(v, regs);
	regs->r.rip = frame[1];
	regs->r.eflags = (frame[3] & (ARCH_EFLAGS_USER | ARCH_EFLAGS_FIXED)) | ARCH_EFLAGS_FIXED;
	regs->r.rsp = frame[4];
	if (unlikely(!kvm_in_lstar(v, frame[1]) && rip_refused(frame[1], ev))) {
		/* It jumped into the stub's page, or out of the address space. */
		vcpu_count(&v->counts.faults);
	} else if (vector == VECTOR_PF) {
		event_fault(ev, saves ? saved(v)->cr2 : v->run->s.regs.sregs.cr2, error_code);
		vcpu_count(&v->counts.faults);
	} else {
		if (unlikely(is_soft(vector)))
			forget_soft(v);
		event_exception(ev, (uint32_t)vector, error_code);
		vcpu_count(&v->counts.exceptions);
	}
	return RUN_EVENT;
}

/*
 * KVM could not go on: an instruction that it cannot emulate, a triple fault, a refused entry. All are the
 * application's doing as far as we know; it gets the exception that such an instruction deserves.
 */
static enum run_verdict exit_bad(struct kvm_vcpu *v, struct arch_regs *regs,
				 struct platform_event *ev)
{
	const struct kvm_run *run = v->run;
	bool user =
		fetch_sregs(v) == 0 && run->s.regs.sregs.cs.selector == ARCH_USER_CS &&
		(run->s.regs.regs.rip < ARCH_TASK_SIZE || kvm_in_lstar(v, run->s.regs.regs.rip));

	KVM_STAT_ADD(v->p, bad_exits, 1);
	log_debug("kvm: vCPU %u: exit %u (%u) at %#llx, cs %#x", v->id, run->exit_reason,
		  run->exit_reason == KVM_EXIT_INTERNAL_ERROR ? run->internal.suberror : 0,
		  run->s.regs.regs.rip, run->s.regs.sregs.cs.selector);
	if (user && run->exit_reason != KVM_EXIT_SHUTDOWN) {
		segs_from_sregs(v);
		store_regs(v, regs);
	}
	regs->r.eflags = (regs->r.eflags & ARCH_EFLAGS_USER) | ARCH_EFLAGS_FIXED;
	event_exception(ev, run->exit_reason == KVM_EXIT_INTERNAL_ERROR ? VECTOR_UD : VECTOR_GP, 0);
	v->broken = true;
	return RUN_EVENT;
}

/* On its way back to ring 3, which it can only be in ring 0. */
static bool at_sysret(const struct kvm_vcpu *v)
{
	return v->run->s.regs.sregs.cs.selector == KVM_KERNEL_CS &&
	       v->run->s.regs.regs.rip == KVM_STUB_SYSRET_VA;
}

/*
 * Is it in ring 3 with nothing queued, so that its registers are the application's? Of int3 and into KVM does not
 * say whether they are queued, only that such was the last exception; see forget_soft().
 */
static bool at_rest(struct kvm_vcpu *v)
{
	const uint64_t rip = v->run->s.regs.regs.rip;
	struct kvm_vcpu_events events;

	if (fetch_sregs(v))
		return false;
	if (!at_sysret(v) && (v->run->s.regs.sregs.cs.selector != ARCH_USER_CS ||
			      (rip >= ARCH_TASK_SIZE && !kvm_in_lstar(v, rip))))
		return false;
	if (kvm_ioctl(v->fd, KVM_GET_VCPU_EVENTS, &events))
		return false;
	return !events.exception.injected && !events.exception.pending &&
	       !is_soft(events.exception.nr);
}

/*
 * The context is wanted elsewhere, or its companion is to stop, or its shared vCPU is wanted, which does not take a
 * turn's first run away.
 */
static bool wanted(struct kvm_vcpu *v, struct platform_context *ctx, enum run_mode mode)
{
	return atomic_load(&ctx->interrupt) || atomic_load(&v->stop) ||
	       (mode != RUN_FRESH && atomic_load(&v->yield));
}

/* It is in, or its calls lead to, a trampoline that has given way to the application's own mapping. */
static bool stranded(const struct kvm_vcpu *v, struct address_space *as,
		     const struct patch_space *space)
{
	return (v->posts || patch_rip_inside(v->run->s.regs.regs.rip)) && space &&
	       atomic_load(&as->patch_live) != space;
}

/* Registers in the shared page are what the vCPU has. Return: RUN_INTERRUPTED, or RUN_AGAIN: it must go on. */
static enum run_verdict run_interrupted(struct kvm_vcpu *v, struct arch_regs *regs)
{
	if (!at_rest(v)) {
		KVM_STAT_ADD(v->p, reruns, 1);
		return RUN_AGAIN;
	}
	segs_from_sregs(v);
	store_regs(v, regs);
	if (at_sysret(v)) {
		regs->r.rip = regs->r.rcx;
		regs->r.eflags = regs->r.r11;
	}
	regs->r.eflags = (regs->r.eflags & ARCH_EFLAGS_USER) | ARCH_EFLAGS_FIXED;
	return RUN_INTERRUPTED;
}

static enum run_verdict judge_exit(struct kvm_vcpu *v, struct address_space *as,
				   struct arch_regs *regs, struct platform_event *ev)
{
	enum run_verdict verdict = RUN_BAD;

	switch (v->run->exit_reason) {
	case KVM_EXIT_IO:
		verdict = exit_io(v, as, regs, ev);
		break;
	case KVM_EXIT_HLT:
		verdict = exit_hlt(v, regs, ev);
		break;
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
		return RUN_AGAIN;
	}
	return verdict == RUN_BAD ? exit_bad(v, regs, ev) : verdict;
}

/*
 * KVM_RUN once, in `as`. Unless RUN_FRESH, nothing but CR3 is set.
 * Return: 0; 1: wanted() before it ran; -errno of KVM_RUN; -ENOMEM.
 */
static int run_once(struct kvm_vcpu *v, struct platform_context *ctx, struct address_space *as,
		    enum run_mode mode, const struct patch_space **inout_space)
{
	struct kvm_run *run = v->run;
	int ret = enter_with_root(v, as);

	if (ret)
		return ret;
	/*
	 * Pairs with kvm_vcpu_kick(): what was asked for before the exchange is seen below, what is asked for after
	 * it sets immediate_exit again.
	 */
	__atomic_exchange_n(&run->immediate_exit, 0, __ATOMIC_SEQ_CST);
	if (unlikely(mode != RUN_FORCED &&
		     (wanted(v, ctx, mode) ||
		      (mode == RUN_RESUME && stranded(v, as, *inout_space)) ||
		      (mode == RUN_FRESH && v->posts && !atomic_load(&as->patch_live)))))
		ret = 1;
	else if (unlikely(atomic_load(&as->root) != run->s.regs.sregs.cr3))
		ret = -EAGAIN;
	else
		ret = kvm_ioctl(v->fd, KVM_RUN, NULL);
	/* Trampolines that it may be in; before the exit, for which kvm_as_claim() waits. There is one in a lifetime. */
	if (!*inout_space)
		*inout_space = atomic_load_explicit(&as->patch_known, memory_order_acquire);
	kvm_vcpu_exit(v);
	return ret;
}

int kvm_run_until_event(struct kvm_vcpu *v, struct platform_context *ctx, struct address_space *as,
			struct arch_regs *regs, struct platform_event *ev,
			const struct patch_space **ret_space)
{
	const struct patch_space *space = NULL;
	enum run_verdict verdict = RUN_AGAIN;
	enum run_mode mode = RUN_FRESH;
	unsigned efaults = 0;

	while (verdict == RUN_AGAIN) {
		int ret = run_once(v, ctx, as, mode, &space);

		/* Not even begun: what is loaded stays loaded. */
		if (ret == -EAGAIN)
			continue;
		if (ret == 1 && mode == RUN_FRESH) {
			verdict = RUN_INTERRUPTED;
		} else if (likely(ret == 0)) {
			verdict = judge_exit(v, as, regs, ev);
			mode = RUN_RESUME;
		} else if (ret == 1 || ret == -EINTR) {
			mode = RUN_RESUME;
			if (ret == 1 || wanted(v, ctx, mode) || stranded(v, as, space)) {
				verdict = run_interrupted(v, regs);
				mode = RUN_FORCED;
			}
		} else if (ret == -EFAULT && efaults < EFAULT_RETRIES_MAX) {
			/* A page of the window has gone: after this the fault names its address. */
			efaults = kvm_as_drop_window(as) ? 0 : efaults + 1;
			mode = RUN_RESUME;
		} else {
			log_error("kvm: vCPU %u: KVM_RUN: %s", v->id, strerror(-ret));
			v->broken = true;
			return ret == -ENOMEM || ret == -EFAULT ? -ENOMEM : -EAGAIN;
		}
	}
	vcpu_count(&v->counts.runs);
	if (verdict == RUN_INTERRUPTED)
		*ev = (struct platform_event){.kind = PLATFORM_INTERRUPTED};
	*ret_space = space;
	return 0;
}

/* On this thread. */
static int run_here(struct kvm_vcpu *v, struct platform_context *ctx, struct address_space *as,
		    struct arch_regs *regs, struct platform_event *ev)
{
	const bool patched = atomic_load_explicit(&as->patch_live, memory_order_relaxed) != NULL;
	const struct patch_space *space = NULL;
	int64_t start = 0;
	int err;

	if (unlikely(patched)) {
		kvm_mailbox_attach(ctx, as);
		if (ctx->mb)
			patch_mailbox_reset(ctx->mb);
		start = time_monotonic_ns();
	}
	kvm_choose_lstar(v, as, regs, kvm_mailbox_va(ctx, as));
	kvm_load_regs(v, regs, kvm_mailbox_va(ctx, as));
	/* Meant for the companion, which is not there. */
	atomic_store_explicit(&v->stop, false, memory_order_relaxed);
	atomic_store(&ctx->running, v);
	err = kvm_run_until_event(v, ctx, as, regs, ev, &space);
	atomic_store(&ctx->running, NULL);
	if (unlikely(err))
		return err;
	if (unlikely(space && (patch_rip_inside(regs->r.rip) || kvm_in_lstar(v, regs->r.rip))))
		kvm_patch_resolve(space, NULL, regs, ev);
	if (ev->kind == PLATFORM_SYSCALL) {
		if (unlikely(patched) &&
		    (v->posts || patch_heat_is_patched(&as->heat, regs->r.rip))) {
			int64_t now = time_monotonic_ns();

			patch_pace_trapped(&ctx->pace, now - start, now);
		}
		kvm_patch_note(as, regs);
	}
	return 0;
}

/* Pre: ctx is not held. Return: 0, -ENOMEM, -EAGAIN, -EINTR. */
static int run_somewhere(struct platform_context *ctx, struct address_space *as,
			 struct arch_regs *regs, struct platform_event *ev)
{
	struct kvm_vcpu *v;
	int err = kvm_vcpu_get(ctx->p, ctx, &v);

	if (err)
		return err;
	/* Another context of this thread's may be handed off: its companion gives the vCPU back first. */
	kvm_hand_reclaim(v);
	if (unlikely(v->broken)) {
		err = kvm_vcpu_init_state(v);
		if (err)
			goto out_put;
	}
	err = kvm_fpu_load(v, ctx);
	if (err)
		goto out_put;
	if (unlikely(patch_pace_on(&ctx->pace)) && kvm_mailbox_va(ctx, as) && !v->shared &&
	    !regs->r.gs_base && atomic_load(&as->patch_live)) {
		err = kvm_hand_run(v, ctx, as, regs, ev);
		if (err <= 0)
			goto out_put;
	}
	err = run_here(v, ctx, as, regs, ev);
out_put:
	kvm_vcpu_put(v);
	return err;
}

int kvm_context_switch(struct platform_context *ctx, struct address_space *as,
		       struct arch_regs *regs, struct platform_event *ret_event)
{
	int err = 1;

	if (unlikely(rip_refused(regs->r.rip, ret_event)))
		return 0;
	if (ctx->held)
		err = kvm_hand_resume(ctx, as, regs, ret_event);
	if (err == 1)
		err = run_somewhere(ctx, as, regs, ret_event);
	if (unlikely(err == -EINTR)) {
		*ret_event = (struct platform_event){.kind = PLATFORM_INTERRUPTED};
		err = 0;
	}
	if (unlikely(!err && ret_event->kind == PLATFORM_INTERRUPTED)) {
		/* Consumed: whatever was asked for before this is looked at by the caller after it. */
		atomic_store(&ctx->interrupt, false);
		KVM_STAT_ADD(ctx->p, interrupts, 1);
	}
	return likely(!err) ? 0 : err == -ENOMEM ? -ENOMEM : -EAGAIN;
}

void kvm_context_interrupt(struct platform_context *ctx)
{
	struct kvm_vcpu *v;

	if (atomic_exchange(&ctx->interrupt, true))
		return;
	v = atomic_load(&ctx->running);
	if (v)
		kvm_vcpu_kick(v);
}
