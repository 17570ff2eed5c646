/*
 * platform/systrap/run.c - a context runs on its stub thread; what the thread publishes becomes an event.
 *
 * The mailbox's state word says whose turn it is. The sentry writes registers, sets STATE_APP and waits; the thread
 * publishes a signal frame, sets STATE_EVENT and waits. wait.c has how they wait.
 *
 * Interruption: `interrupt` of the context is set, then the mailbox's, then the kick signal is sent. A thread that is in
 * the application is interrupted by the signal; one that is about to enter it sees the word, because the code between
 * the look at the word and the application is begun anew by the signal's handler (stub.S).
 *
 * Everything in the area is the application's to forge, at any moment. It is read once; what comes out is an event
 * that the application could have caused itself, or its death.
 */
#include <limits.h>
#include <linux/audit.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "platform/common/event.h"
#include "platform/systrap/systrap.h"

#define VSYSCALL_PAGE 0xffffffffff600000ul
#define VECTOR_UD 6
#define VECTOR_GP 13
#define PF_KNOWN 0x1fu
/* Selector 16 of the IDT's error code: int 0x80. */
#define INT80_ERROR_CODE 0x402u
#define UCONTEXT_SIGCONTEXT 40
#define UCONTEXT_SIZE 304
#define SIGINFO_SIZE 128
#define FP_XSTATE_MAGIC 0x46505853u

/* The kernel's struct sigcontext_64. */
struct frame_regs {
	uint64_t r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip,
		rflags;
	uint16_t cs, gs, fs, ss;
	uint64_t err, trapno, oldmask, cr2, fpstate;
};

/* The beginning of siginfo, as SIGSYS has it. */
struct frame_info {
	int32_t signo, err, code, pad;
	uint64_t call_addr;
	int32_t syscall;
	uint32_t arch;
};

/* ---- events ---- */

static void event_interrupted(struct platform_event *ev)
{
	*ev = (struct platform_event){.kind = PLATFORM_INTERRUPTED};
}

/* The caller gets the event as it is: whatever was asked for before this is looked at by it afterwards. */
static void interruption_consume(struct platform_context *ctx)
{
	atomic_store(&ctx->interrupt, false);
	SYSTRAP_STAT_ADD(ctx->p, interrupts, 1);
}

static bool canonical(uint64_t va)
{
	return (int64_t)(va << 16) >> 16 == (int64_t)va;
}

/* What the fetch at an rip would have given that is not the application's to run at. */
static bool rip_refused(uint64_t rip, struct platform_event *ev)
{
	if (likely(rip < ARCH_TASK_SIZE && !systrap_reserved(rip, 1)))
		return false;
	if (canonical(rip))
		event_fault(ev, rip, PF_FETCH | PF_USER);
	else
		event_exception(ev, VECTOR_GP, 0);
	return true;
}

/* ---- registers ---- */

/* A data selector that the application may have: null, or the flat one. */
static uint16_t data_selector(uint64_t selector)
{
	uint16_t s = (uint16_t)selector;

	return s == ARCH_USER_SS ? ARCH_USER_SS : s < 4 ? s & 3 : 0;
}

/* Registers for the thread's next run. */
static void load_regs(struct platform_context *ctx, const struct arch_regs *regs)
{
	const struct user_regs_struct *r = &regs->r;
	struct systrap_thread *t = ctx->thread;
	const uint64_t image[20] = {
		r->r15, r->r14,	      r->r13,
		r->r12, r->r11,	      r->r10,
		r->r9,	r->r8,	      r->rdi,
		r->rsi, r->rbp,	      r->rbx,
		r->rdx, r->rcx,	      r->rax,
		r->rip, ARCH_USER_CS, (r->eflags & ARCH_EFLAGS_USER) | ARCH_EFLAGS_FIXED,
		r->rsp, ARCH_USER_SS,
	};
	const uint16_t segs[4] = {data_selector(r->ds), data_selector(r->es), data_selector(r->fs),
				  data_selector(r->gs)};
	uint64_t fs_base = canonical(r->fs_base) ? r->fs_base : 0;
	uint64_t gs_base = canonical(r->gs_base) ? r->gs_base : 0, packed;
	uint32_t flags = 0;

	/* Trampolines find their mailbox by a base that the application does not use. */
	if (t->mb && unlikely(atomic_load(&ctx->as->patch_refused)))
		t->mb = NULL;
	if (t->mb) {
		patch_mailbox_reset(t->mb);
		if (!gs_base)
			gs_base = patch_mailbox_va(t->mb_index);
	}
	memcpy(t->mem + AREA_MAILBOX + AREA_REGS, image, sizeof(image));
	if (unlikely(ctx->force || memcmp(segs, ctx->segs, sizeof(segs)))) {
		flags = STUB_SET_SEGS | STUB_SET_BASES;
		memcpy(&packed, segs, sizeof(packed));
		atomic_store_explicit(mb_set_segs(t), packed, memory_order_relaxed);
	} else if (fs_base != ctx->fs_base || gs_base != ctx->gs_base) {
		flags = STUB_SET_BASES;
	}
	if (flags) {
		atomic_store_explicit(mb_set_fs_base(t), fs_base, memory_order_relaxed);
		atomic_store_explicit(mb_set_gs_base(t), gs_base, memory_order_relaxed);
		/* As far as we know; NOT_RUN changes nothing, so it is set again then. */
		ctx->force = true;
	}
	atomic_store_explicit(mb_flags(t), flags, memory_order_relaxed);
	systrap_fpu_load(ctx);
}

static void store_regs(struct platform_context *ctx, const struct frame_regs *f,
		       struct arch_regs *regs)
{
	struct user_regs_struct *r = &regs->r;
	struct systrap_thread *t = ctx->thread;
	uint64_t packed = atomic_load_explicit(mb_segs(t), memory_order_relaxed);

	memcpy(ctx->segs, &packed, sizeof(packed));
	ctx->fs_base = atomic_load_explicit(mb_fs_base(t), memory_order_relaxed);
	ctx->gs_base = atomic_load_explicit(mb_gs_base(t), memory_order_relaxed);
	ctx->force = false;
	r->rax = f->rax;
	r->rbx = f->rbx;
	r->rcx = f->rcx;
	r->rdx = f->rdx;
	r->rsi = f->rsi;
	r->rdi = f->rdi;
	r->rsp = f->rsp;
	r->rbp = f->rbp;
	r->r8 = f->r8;
	r->r9 = f->r9;
	r->r10 = f->r10;
	r->r11 = f->r11;
	r->r12 = f->r12;
	r->r13 = f->r13;
	r->r14 = f->r14;
	r->r15 = f->r15;
	r->rip = f->rip;
	r->eflags = (f->rflags & (ARCH_EFLAGS_USER | ARCH_EFLAGS_FIXED)) | ARCH_EFLAGS_FIXED;
	r->cs = ARCH_USER_CS;
	r->ss = ARCH_USER_SS;
	r->ds = ctx->segs[0];
	r->es = ctx->segs[1];
	r->fs = ctx->segs[2];
	r->gs = ctx->segs[3];
	r->fs_base = ctx->fs_base;
	r->gs_base = t->mb && ctx->gs_base == patch_mailbox_va(t->mb_index) ? 0 : ctx->gs_base;
}

static void read_sigsys(struct platform_context *ctx, const struct frame_info *info,
			struct arch_regs *regs, struct platform_event *ev)
{
	if (unlikely(info->arch != AUDIT_ARCH_X86_64)) {
		/* int 0x80, and sysenter, are no system calls here: a fault at the instruction. */
		regs->r.rip -= 2;
		event_exception(ev, VECTOR_GP, INT80_ERROR_CODE);
	} else if (unlikely(info->call_addr - VSYSCALL_PAGE < MOAT_PAGE_SIZE)) {
		/* The host's kernel has returned from it already, to what lay on the stack. */
		regs->r.rip = info->call_addr;
		regs->r.rsp -= 8;
		event_fault(ev, info->call_addr, PF_FETCH | PF_USER);
	} else {
		*ev = (struct platform_event){.kind = PLATFORM_SYSCALL};
		systrap_count(&ctx->thread->counts.syscalls);
	}
}

/* [at, at + size) of the thread's area; NULL: not in it. */
static const uint8_t *area_at(const struct systrap_thread *t, uint64_t va, size_t size,
			      uint64_t align)
{
	uint64_t off = va - systrap_area_va(t);

	if (off > STUB_AREA_SIZE - size || (off & (align - 1)))
		return NULL;
	return t->mem + off;
}

/* Return: 0; -EAGAIN: no stub of ours publishes that. */
static int read_frame(struct platform_context *ctx, struct systrap_thread *t, struct frame_regs *f,
		      struct frame_info *info)
{
	uint64_t uc_va = atomic_load_explicit(mb_ucontext(t), memory_order_relaxed), xfeatures;
	const uint8_t *uc = area_at(t, uc_va, UCONTEXT_SIZE + SIGINFO_SIZE, 8), *fp;
	uint32_t magic;

	if (!uc)
		return -EAGAIN;
	memcpy(f, uc + UCONTEXT_SIGCONTEXT, sizeof(*f));
	memcpy(info, uc + UCONTEXT_SIZE, sizeof(*info));
	fp = area_at(t, f->fpstate, 576, 64);
	if (!fp)
		return -EAGAIN;
	memcpy(&magic, fp + 464, sizeof(magic));
	memcpy(&xfeatures, fp + 472, sizeof(xfeatures));
	if (magic != FP_XSTATE_MAGIC)
		return -EAGAIN;
	ctx->fpu_va = f->fpstate;
	ctx->fpu_mask = xfeatures & ctx->p->xcr0;
	ctx->fresh = false;
	return 0;
}

/* What the thread has published. Return: 0, -EAGAIN. */
static int read_event(struct platform_context *ctx, struct address_space *as,
		      struct systrap_thread *t, struct arch_regs *regs, struct platform_event *ev)
{
	uint32_t signo = atomic_load_explicit(mb_signo(t), memory_order_relaxed);
	struct frame_regs f;
	struct frame_info info;

	atomic_store_explicit(&t->cpu, atomic_load_explicit(mb_cpu(t), memory_order_relaxed),
			      memory_order_relaxed);
	if (signo == STUB_NOT_RUN) {
		SYSTRAP_STAT_ADD(ctx->p, not_run, 1);
		event_interrupted(ev);
		return 0;
	}
	if (read_frame(ctx, t, &f, &info))
		return -EAGAIN;
	store_regs(ctx, &f, regs);
	if (signo == STUB_KICK_SIGNAL || signo == STUB_RESET_SIGNAL) {
		event_interrupted(ev);
	} else if (unlikely(f.cs != ARCH_USER_CS)) {
		/*
		 * 32-bit code, which the application has no business to run. Beyond its reach: `sysenter`, and where
		 * the host's kernel would return to, in a vDSO that is not there and whose address is not told.
		 */
		if (regs->r.rip >> 32)
			regs->r.rip = 0;
		event_exception(ev, VECTOR_GP, 0);
	} else if (signo == SIGSYS) {
		read_sigsys(ctx, &info, regs, ev);
	} else if (signo == SIGILL) {
		/*
		 * Some hypervisors' guests raise it for system call -1 with the alignment flag set. No exception is
		 * told then, and the registers are as the instruction leaves them.
		 */
		if (info.code == SI_KERNEL && f.rcx == f.rip && f.r11 == f.rflags)
			*ev = (struct platform_event){.kind = PLATFORM_SYSCALL};
		else
			event_exception(ev, VECTOR_UD, 0);
	} else if (f.trapno == VECTOR_PF) {
		/* The stub's mapping may be there, and forbid it, before the host has made an entry. */
		event_fault(ev, f.cr2,
			    ((uint32_t)f.err & PF_KNOWN) |
				    (signo == SIGSEGV && info.code == SEGV_ACCERR ? PF_PRESENT
										  : 0));
		SYSTRAP_STAT_ADD(ctx->p, faults, 1);
	} else {
		event_exception(ev, f.trapno < 32 ? (uint32_t)f.trapno : VECTOR_GP,
				(uint32_t)f.err);
		SYSTRAP_STAT_ADD(ctx->p, exceptions, 1);
	}
	if (unlikely(patch_rip_inside(regs->r.rip) || patch_rip_inside(ev->addr) ||
		     atomic_load_explicit(&as->patch_known, memory_order_relaxed)))
		systrap_patch_resolve(ctx, as, regs, ev);
	/* It jumped into the stub: for it, nothing is there. */
	if (unlikely(systrap_reserved(regs->r.rip, 1)) && ev->kind != PLATFORM_INTERRUPTED)
		event_fault(ev, regs->r.rip, PF_FETCH | PF_USER);
	return 0;
}

/* ---- calls that are posted ---- */

void systrap_leave(struct platform_context *ctx)
{
	struct systrap_thread *t = ctx->thread;
	struct frame_regs f;
	struct frame_info info;
	bool fresh = ctx->fresh;
	int err;

	if (likely(!ctx->held))
		return;
	ctx->held = false;
	SYSTRAP_STAT_ADD(ctx->p, left, 1);
	patch_mailbox_leave(t->mb);
	/* If it does not, it is asked again and again, and then killed. */
	err = systrap_wait_event(ctx, t);
	if (!err && atomic_load_explicit(mb_signo(t), memory_order_relaxed) != STUB_NOT_RUN)
		err = read_frame(ctx, t, &f, &info);
	if (err)
		systrap_stub_kill(ctx->p, t->stub);
	/* State that was set meanwhile is the newer one. */
	ctx->fresh |= fresh || err;
	ctx->force = true;
	patch_mailbox_reset(t->mb);
}

/*
 * The context goes on from a call that was posted. Return: 0: it has been answered; 1: not by a word in its mailbox, or
 * not any more: registers are to be loaded.
 */
static int answer_posted(struct platform_context *ctx, struct address_space *as,
			 const struct arch_regs *regs, bool listen)
{
	struct systrap_thread *t = ctx->thread;

	if (likely(ctx->as == as && !ctx->fresh && !atomic_load(&as->has_dirty) &&
		   !atomic_load(&as->patch_refused) && patch_only_rax_changed(&ctx->taken, regs) &&
		   atomic_load(mb_state(t)) == STUB_STATE_APP)) {
		ctx->held = false;
		patch_mailbox_listen(t->mb, listen, SYSTRAP_TRAMPOLINE_SPINS);
		patch_mailbox_reply(t->mb, regs->r.rax);
		return 0;
	}
	systrap_leave(ctx);
	return 1;
}

/* ---- binding ---- */

void systrap_unbind_locked(struct platform_context *ctx)
{
	if (!ctx->thread)
		return;
	systrap_fpu_detach(ctx);
	/* Its thread waits in a trampoline, for a bounded time, then where threads wait: see thread_take(). */
	ctx->held = false;
	ctx->thread->ctx = NULL;
	ctx->thread = NULL;
	ctx->as = NULL;
}

void systrap_unbind(struct platform_context *ctx)
{
	mutex_lock(&ctx->p->bind_lock);
	systrap_unbind_locked(ctx);
	mutex_unlock(&ctx->p->bind_lock);
}

/* The host makes the thread, or has none to give. Lock of as held. Return: 0, -EAGAIN. */
static int thread_make(struct systrap_platform *p, struct systrap_thread *t)
{
	systrap_thread_orders(p, t, false);
	systrap_orders_sync(p, t->stub);
	t->failed = atomic_load(mb_tid(t)) == 0;
	t->failures += t->failed;
	return t->failed || atomic_load(&t->stub->dead) ? -EAGAIN : 0;
}

/* Has the thread whose stack_t is where that of the next one comes read it? Lock of as held. */
static bool stack_free(const struct systrap_stub *stub)
{
	const struct systrap_thread *t;

	LIST_FOREACH (t, &stub->threads, link)
		if (t->index + ORDERS_STACKS_COUNT == stub->nthreads)
			return atomic_load(&t->reported) ||
			       (t->failed && t->failures >= SYSTRAP_FAILURES_MAX);
	return true;
}

/* A thread of as->stub that no context has; lock of as held. Return: 0, -EAGAIN, -EBUSY (in a moment, perhaps). */
static int thread_take(struct platform_context *ctx, struct address_space *as,
		       struct systrap_thread **ret)
{
	struct systrap_platform *p = ctx->p;
	struct systrap_thread *t, *failed = NULL;
	bool company = false;
	int err;

	mutex_lock(&p->bind_lock);
	LIST_FOREACH (t, &as->stub->threads, link)
		company |= t->ctx != NULL;
	mutex_unlock(&p->bind_lock);
	if (company)
		systrap_as_company(as);
	mutex_lock(&p->bind_lock);
	LIST_FOREACH (t, &as->stub->threads, link) {
		/* The word that says so is the application's to forge: not for ever again in the same place. */
		if (t->failed)
			failed = t->failures < SYSTRAP_FAILURES_MAX ? t : failed;
		else if (!t->ctx && (!t->reported || atomic_load(mb_state(t)) == STUB_STATE_EVENT))
			break;
	}
	if (t)
		t->ctx = ctx;
	mutex_unlock(&p->bind_lock);
	*ret = t;
	if (t)
		return 0;
	/* It would get the stack_t of one that may not have read it yet. */
	if (!failed && !stack_free(as->stub))
		return -EBUSY;
	t = failed ? failed : systrap_thread_new(p, as->stub);
	if (!t)
		return -EAGAIN;
	err = thread_make(p, t);
	if (err)
		return err;
	t->ctx = ctx;
	*ret = t;
	return 0;
}

/* The same, with a stub if there is none, and with patience. Return: 0, -EAGAIN. */
static int thread_wait(struct platform_context *ctx, struct address_space *as,
		       struct systrap_thread **ret)
{
	static const struct timespec pause = {.tv_nsec = 1000000};
	uint32_t ended_before = atomic_load(&ctx->p->retire.queued);
	bool settled;
	int err;

	for (unsigned rounds = 0;; rounds++) {
		err = 0;
		mutex_lock(&as->lock);
		if (!as->stub)
			err = systrap_stub_get(ctx->p, as, &as->stub);
		if (!err)
			err = thread_take(ctx, as, ret);
		if (err == -EBUSY && (rounds >= SYSTRAP_PATIENCE || atomic_load(&as->stub->dead)))
			err = -EAGAIN;
		mutex_unlock(&as->lock);
		/* What the guest has ended counts for its limits until it is reaped: once more after that. */
		settled = false;
		while (err == -EAGAIN && systrap_retire_await(ctx->p, ended_before))
			settled = true;
		if (settled)
			continue;
		if (err != -EBUSY)
			return err;
		nanosleep(&pause, NULL);
	}
}

/* ctx gets a thread in `as`. Return: 0, -EAGAIN. */
static int bind(struct platform_context *ctx, struct address_space *as)
{
	struct systrap_platform *p = ctx->p;
	struct systrap_thread *t = NULL;
	int err;

	systrap_unbind(ctx);
	err = thread_wait(ctx, as, &t);
	if (!t)
		return err;
	/* Without the lock: the word that it has come is the application's to take back, and then this lasts until its stub is killed. */
	if (!atomic_load(&t->reported)) {
		err = systrap_wait_event(ctx, t);
		/* Nothing of an application has run in a stub whose first thread this is: the word is the kernel's. */
		atomic_store(&t->tid, (pid_t)atomic_load(mb_tid(t)));
		atomic_store(&t->reported, !err);
	}
	mutex_lock(&p->bind_lock);
	ctx->thread = t;
	ctx->as = as;
	ctx->force = true;
	mutex_unlock(&p->bind_lock);
	return err;
}

/* ---- the platform's operations ---- */

/* The thread goes on: after what is to be mapped, if there is something. */
static void start(struct platform_context *ctx, struct address_space *as, struct systrap_thread *t)
{
	uint64_t state_va = systrap_area_va(t) + AREA_MAILBOX + AREA_STATE;

	if (likely(!atomic_load(&as->has_dirty) && systrap_orders_idle(t->stub))) {
		atomic_store(mb_state(t), STUB_STATE_APP);
		systrap_wake(ctx, t);
		return;
	}
	atomic_store(mb_state(t), STUB_STATE_STARTING);
	mutex_lock(&as->lock);
	systrap_as_install(as);
	systrap_order_post(ctx->p, as->stub,
			   &(struct systrap_order){.flags = ORDER_STORE,
						   .args = {state_va, STUB_STATE_APP}});
	/* Both sides may sleep on it. */
	systrap_order_post(ctx->p, as->stub,
			   &(struct systrap_order){.nr = SYS_futex,
						   .args = {state_va, FUTEX_WAKE, INT_MAX}});
	systrap_orders_start(as->p, as->stub);
	/* After the orders were counted: who sees nothing to map sees that they are under way. */
	atomic_store(&as->has_dirty, false);
	mutex_unlock(&as->lock);
}

/* The thread goes on, and comes back with something. */
static int run_inside(struct platform_context *ctx, struct address_space *as,
		      struct arch_regs *regs, struct platform_event *ev)
{
	struct systrap_platform *p = ctx->p;
	struct systrap_thread *t = ctx->thread;
	bool listen, answered = false;
	int err;

	systrap_wait_prepare(ctx, t);
	/* Calls are posted while spinning pays: who posts and is not looked at loses more than a trap. */
	listen = ctx->pace.spin && ctx->pace.hit;
	if (ctx->held)
		answered = answer_posted(ctx, as, regs, listen) == 0;
	if (!answered) {
		load_regs(ctx, regs);
		if (t->mb)
			patch_mailbox_listen(t->mb, listen, SYSTRAP_TRAMPOLINE_SPINS);
		start(ctx, as, t);
	}
	err = systrap_wait(ctx, t, regs);
	/* Late interruptions kick in vain. */
	atomic_store_explicit(&ctx->running, NULL, memory_order_release);
	if (unlikely(err))
		return err;
	if (ctx->held) {
		/* What was to be loaded it has; its FPU state is in its registers until it leaves. */
		ctx->fresh = false;
		ctx->taken = *regs;
		*ev = (struct platform_event){.kind = PLATFORM_SYSCALL};
		systrap_count(&t->counts.posted);
		return 0;
	}
	if (likely(!read_event(ctx, as, t, regs, ev)))
		return 0;
	log_debug("systrap: stub %d publishes nonsense", t->stub->pid);
	systrap_stub_kill(p, t->stub);
	return -EAGAIN;
}

/* Pre: bound. */
static int run(struct platform_context *ctx, struct address_space *as, struct arch_regs *regs,
	       struct platform_event *ev)
{
	struct systrap_thread *t = ctx->thread;
	int err;

	/* Pairs with systrap_context_interrupt(): either it sees `running`, or we see `interrupt`. */
	atomic_store(&ctx->running, t);
	if (unlikely(atomic_load(mb_interrupt(t))))
		atomic_store(mb_interrupt(t), 0);
	if (unlikely(atomic_load(&ctx->interrupt))) {
		atomic_store(&ctx->running, NULL);
		event_interrupted(ev);
		return 0;
	}
	systrap_patch_settle(as);
	/* Pairs with systrap_as_claim(): either it sees this, or we see that the range is the application's. */
	atomic_store(&t->run, RUN_PATCHED);
	if (unlikely(atomic_load(&as->patch_gone)))
		atomic_store(&t->run, RUN_CLAIMED);
	err = run_inside(ctx, as, regs, ev);
	atomic_store_explicit(&t->run, RUN_NOT, memory_order_release);
	return err;
}

int systrap_context_prepare(struct platform_context *ctx, struct address_space *as)
{
	return ctx->as == as ? 0 : bind(ctx, as);
}

int systrap_context_switch(struct platform_context *ctx, struct address_space *as,
			   struct arch_regs *regs, struct platform_event *ret_event)
{
	int err = 0;

	if (unlikely(rip_refused(regs->r.rip, ret_event)))
		return 0;
	if (unlikely(ctx->as != as))
		err = bind(ctx, as);
	if (err)
		return err;
	if (unlikely(atomic_load_explicit(&ctx->thread->stub->dead, memory_order_relaxed)))
		return -EAGAIN;
	if (unlikely(atomic_load(&as->patch_live) && !ctx->thread->mb_tried))
		systrap_mailbox_attach(ctx->thread, as);
	systrap_wait_turn(ctx);
	err = run(ctx, as, regs, ret_event);
	/* Not before: what interrupted a call that was being posted is that call. */
	if (!err && ret_event->kind == PLATFORM_INTERRUPTED)
		interruption_consume(ctx);
	if (!err && ret_event->kind == PLATFORM_SYSCALL && !ctx->held)
		systrap_patch_note(as, regs);
	return err;
}

void systrap_context_interrupt(struct platform_context *ctx)
{
	struct systrap_thread *t;

	if (atomic_exchange(&ctx->interrupt, true))
		return;
	t = atomic_load(&ctx->running);
	if (!t) {
		systrap_turn_poke(ctx);
		return;
	}
	/* Pairs with kicked_late(): either it sees this, or we see that ctx has stopped there. */
	atomic_fetch_add(&t->kickers, 1);
	if (likely(atomic_load(&ctx->running) == t))
		systrap_kick(ctx->p, t);
	atomic_fetch_sub(&t->kickers, 1);
}

void systrap_thread_exit(struct platform *base unused_arg)
{
	/* Stub threads belong to contexts. */
}
