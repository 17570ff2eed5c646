/*
 * sentry/signal_frame.c - the rt_sigframe of x86-64 Linux: writing it, and sigreturn.
 *
 *	high   the interrupted stack (less the 128-byte red zone), or the alternate one
 *	       fpstate: the XSAVE image, 64-byte aligned, with FP_XSTATE_MAGIC2 behind it
 *	low    struct rt_sigframe: return address, ucontext, siginfo
 *
 * Everything that sigreturn reads is the application's to forge: flags and segments are sanitised here or by the
 * platform, the FPU image by fpu_set.
 */
#include <cpuid.h>

#include "sentry/task_internal.h"

#define FP_SW_OFFSET 464
#define FP_LEGACY_SIZE 512
#define FP_XFEATURES_OFFSET 512
#define FP_SIZE_MAX (64ul << 10)
#define UC_FP_XSTATE 1u
#define UC_SIGCONTEXT_SS 2u
#define UC_STRICT_RESTORE_SS 4u
#define RED_ZONE 128
#define SS_ONSTACK_ 1u
#define SS_DISABLE_ 2u
#define SS_AUTODISARM_ (1u << 31)
#define SA_ONSTACK_ 0x08000000ull
#define EFLAGS_RF 0x10000ull
#define EFLAGS_DF 0x400ull

struct frame_sigcontext {
	uint64_t r8, r9, r10, r11, r12, r13, r14, r15, di, si, bp, bx, dx, ax, cx, sp, ip, flags;
	uint16_t cs, gs, fs, ss;
	uint64_t err, trapno, oldmask, cr2, fpstate, reserved[8];
};
_Static_assert(sizeof(struct frame_sigcontext) == 256, "sigcontext ABI");

struct frame_stack {
	uint64_t sp;
	uint32_t flags, pad;
	uint64_t size;
};

struct frame_ucontext {
	uint64_t flags, link;
	struct frame_stack stack;
	struct frame_sigcontext mc;
	uint64_t sigmask;
};

struct rt_sigframe {
	uint64_t pretcode;
	struct frame_ucontext uc;
	struct moat_siginfo info;
};
_Static_assert(sizeof(struct rt_sigframe) == 440, "rt_sigframe ABI");

struct fp_sw_bytes {
	uint32_t magic1, extended_size;
	uint64_t xfeatures;
	uint32_t xstate_size, padding[7];
};

static bool on_altstack_range(const struct sigaltstack_state *s, uint64_t sp)
{
	return sp > s->sp && sp - s->sp <= s->size;
}

/* With SS_AUTODISARM the stack was disarmed on entry: being on it does not count. */
static bool on_altstack(const struct sigaltstack_state *s, uint64_t sp)
{
	return !(s->flags & SS_AUTODISARM_) && on_altstack_range(s, sp);
}

static uint32_t altstack_flags(const struct sigaltstack_state *s, uint64_t sp)
{
	if (!s->size)
		return SS_DISABLE_;
	return on_altstack(s, sp) ? SS_ONSTACK_ : 0;
}

/* The features whose state fits in the platform's area: what XSAVE in the application writes. */
static uint64_t fp_xfeatures(size_t size)
{
	/* CPUID exits to the hypervisor: asked once. The size is the platform's, the same for every task. */
	static _Atomic uint64_t cached;
	uint64_t mask = atomic_load_explicit(&cached, memory_order_relaxed);
	uint32_t a, b, c, d, lo, hi;

	if (mask)
		return mask;
	mask = 3;
	if (size <= FP_LEGACY_SIZE + 64)
		return mask;
	__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	for (unsigned i = 2; i < 63; i++) {
		if (!((((uint64_t)hi << 32 | lo) >> i) & 1))
			continue;
		if (!__get_cpuid_count(0xd, i, &a, &b, &c, &d) || !a)
			continue;
		if ((uint64_t)a + b <= size)
			mask |= 1ull << i;
	}
	atomic_store_explicit(&cached, mask, memory_order_relaxed);
	return mask;
}

/* Writes the FPU image at `addr`. */
static int frame_write_fpu(struct task *t, uint64_t addr, size_t size)
{
	struct fp_sw_bytes sw = {.magic1 = FP_XSTATE_MAGIC1,
				 .extended_size = (uint32_t)size + 4,
				 .xfeatures = fp_xfeatures(size),
				 .xstate_size = (uint32_t)size};
	uint32_t magic2 = FP_XSTATE_MAGIC2;
	uint64_t bv;
	uint8_t *buf;
	int err;

	buf = calloc(1, size + 4);
	if (!buf)
		return -EFAULT;
	if (kernel.platform->ops->fpu_get(t->ctx, buf, size) < 0) {
		err = -EFAULT;
		goto out_free;
	}
	memcpy(buf + FP_SW_OFFSET, &sw, sizeof(sw));
	if (size >= FP_XFEATURES_OFFSET + 8) {
		memcpy(&bv, buf + FP_XFEATURES_OFFSET, 8);
		bv |= 3; /* legacy users look at x87 and SSE without asking */
		memcpy(buf + FP_XFEATURES_OFFSET, &bv, 8);
	}
	memcpy(buf + size, &magic2, 4);
	err = task_copy_out(t, addr, buf, size + 4);
out_free:
	free(buf);
	return err;
}

static void frame_fill(struct task *t, struct rt_sigframe *f, const struct moat_sigaction *sa,
		       const struct moat_siginfo *info, uint64_t mask)
{
	const struct user_regs_struct *r = &t->regs.r;

	*f = (struct rt_sigframe){.pretcode = sa->restorer, .info = *info};
	f->uc.flags = UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS;
	f->uc.stack.sp = t->altstack.sp;
	f->uc.stack.size = t->altstack.size;
	f->uc.stack.flags =
		altstack_flags(&t->altstack, r->rsp) | (t->altstack.flags & SS_AUTODISARM_);
	f->uc.sigmask = mask;
	f->uc.mc = (struct frame_sigcontext){
		.r8 = r->r8,
		.r9 = r->r9,
		.r10 = r->r10,
		.r11 = r->r11,
		.r12 = r->r12,
		.r13 = r->r13,
		.r14 = r->r14,
		.r15 = r->r15,
		.di = r->rdi,
		.si = r->rsi,
		.bp = r->rbp,
		.bx = r->rbx,
		.dx = r->rdx,
		.ax = r->rax,
		.cx = r->rcx,
		.sp = r->rsp,
		.ip = r->rip,
		.flags = r->eflags,
		.cs = ARCH_USER_CS,
		.ss = ARCH_USER_SS,
		.err = t->fault_err,
		.trapno = t->fault_trapno,
		.oldmask = mask,
		.cr2 = t->fault_cr2,
	};
}

int signal_frame_setup(struct task *t, int signo, const struct moat_sigaction *sa,
		       const struct moat_siginfo *info, uint64_t mask)
{
	struct user_regs_struct *r = &t->regs.r;
	size_t fpsize = kernel.platform->ops->fpu_size(kernel.platform);
	bool nested = on_altstack(&t->altstack, r->rsp);
	bool entering = false;
	struct rt_sigframe frame;
	uint64_t sp, fp;

	if (!(sa->flags & SA_RESTORER_) || fpsize < FP_LEGACY_SIZE || fpsize > FP_SIZE_MAX)
		return -EFAULT;
	sp = r->rsp - RED_ZONE;
	if ((sa->flags & SA_ONSTACK_) && altstack_flags(&t->altstack, r->rsp) == 0) {
		sp = t->altstack.sp + t->altstack.size;
		entering = true;
	}
	fp = round_down_u64(sp - (fpsize + 4), 64);
	sp = round_down_u64(fp - sizeof(frame), 16) - 8;
	/* Overflowing the alternate stack must not write below it. */
	if ((nested || entering) && !on_altstack_range(&t->altstack, sp))
		return -EFAULT;
	frame_fill(t, &frame, sa, info, mask);
	frame.uc.mc.fpstate = fp;
	if (frame_write_fpu(t, fp, fpsize) || task_copy_out(t, sp, &frame, sizeof(frame)))
		return -EFAULT;
	if (t->altstack.flags & SS_AUTODISARM_)
		t->altstack = (struct sigaltstack_state){.flags = SS_DISABLE_};
	r->rdi = (uint64_t)signo;
	r->rsi = sp + offsetof(struct rt_sigframe, info);
	r->rdx = sp + offsetof(struct rt_sigframe, uc);
	r->rax = 0;
	r->rip = sa->handler;
	r->rsp = sp;
	r->cs = ARCH_USER_CS;
	r->ss = ARCH_USER_SS;
	r->eflags &= ~(EFLAGS_DF | EFLAGS_RF | ARCH_EFLAGS_TF);
	return 0;
}

/* ---- sigreturn ---- */

/* Only the legacy image is trusted when the markers are not all there, as on Linux. */
static size_t frame_fpu_size(struct task *t, uint64_t addr, const uint8_t *legacy, size_t max)
{
	struct fp_sw_bytes sw;
	uint32_t magic2;

	memcpy(&sw, legacy + FP_SW_OFFSET, sizeof(sw));
	if (sw.magic1 != FP_XSTATE_MAGIC1 || sw.xstate_size < FP_LEGACY_SIZE + 64 ||
	    sw.xstate_size > max || sw.xstate_size > sw.extended_size)
		return FP_LEGACY_SIZE;
	if (task_copy_in(t, &magic2, addr + sw.xstate_size, sizeof(magic2)) ||
	    magic2 != FP_XSTATE_MAGIC2)
		return FP_LEGACY_SIZE;
	return sw.xstate_size;
}

static int frame_read_fpu(struct task *t, uint64_t addr)
{
	const struct platform_ops *ops = kernel.platform->ops;
	size_t max = ops->fpu_size(kernel.platform), size;
	struct fp_sw_bytes sw;
	uint64_t bv;
	uint8_t *buf;
	int err = -EFAULT;

	if (!addr) {
		ops->fpu_reset(t->ctx);
		return 0;
	}
	if (max < FP_LEGACY_SIZE + 64 || max > FP_SIZE_MAX)
		return -EFAULT;
	buf = calloc(1, max);
	if (!buf)
		return -EFAULT;
	if (task_copy_in(t, buf, addr, FP_LEGACY_SIZE))
		goto out_free;
	size = frame_fpu_size(t, addr, buf, max);
	memcpy(&sw, buf + FP_SW_OFFSET, sizeof(sw));
	if (size > FP_LEGACY_SIZE) {
		if (task_copy_in(t, buf + FP_LEGACY_SIZE, addr + FP_LEGACY_SIZE,
				 size - FP_LEGACY_SIZE))
			goto out_free;
		memcpy(&bv, buf + FP_XFEATURES_OFFSET, 8);
		bv &= sw.xfeatures & fp_xfeatures(max); /* the rest goes to its initial state */
	} else {
		bv = 3;
	}
	memset(buf + FP_SW_OFFSET, 0, sizeof(sw));
	memcpy(buf + FP_XFEATURES_OFFSET, &bv, 8);
	memset(buf + FP_XFEATURES_OFFSET + 8, 0, 56);
	err = ops->fpu_set(t->ctx, buf, max);
out_free:
	free(buf);
	return err;
}

static void frame_restore_regs(struct task *t, const struct frame_sigcontext *mc)
{
	struct user_regs_struct *r = &t->regs.r;

	r->r8 = mc->r8, r->r9 = mc->r9, r->r10 = mc->r10, r->r11 = mc->r11;
	r->r12 = mc->r12, r->r13 = mc->r13, r->r14 = mc->r14, r->r15 = mc->r15;
	r->rdi = mc->di, r->rsi = mc->si, r->rbp = mc->bp, r->rbx = mc->bx;
	r->rdx = mc->dx, r->rax = mc->ax, r->rcx = mc->cx, r->rsp = mc->sp, r->rip = mc->ip;
	r->eflags = (r->eflags & ~ARCH_EFLAGS_USER) | (mc->flags & ARCH_EFLAGS_USER);
	r->cs = ARCH_USER_CS;
	r->ss = ARCH_USER_SS;
	/* No restart of a system call on the way out. */
	r->orig_rax = (unsigned long long)-1;
}

static void frame_restore_altstack(struct task *t, const struct frame_stack *s)
{
	uint32_t mode = s->flags & ~SS_AUTODISARM_;

	/* restore_altstack() ignores errors: a stack that is in use or wrong stays as it is. */
	if (on_altstack(&t->altstack, t->regs.r.rsp))
		return;
	if (mode != 0 && mode != SS_ONSTACK_ && mode != SS_DISABLE_)
		return;
	if (mode == SS_DISABLE_) {
		t->altstack = (struct sigaltstack_state){.flags = s->flags};
		return;
	}
	if (s->size < 2048)
		return;
	t->altstack = (struct sigaltstack_state){.sp = s->sp, .size = s->size, .flags = s->flags};
}

int64_t signal_return(struct task *t)
{
	uint64_t addr = t->regs.r.rsp - 8; /* ret popped pretcode */
	struct rt_sigframe frame;

	if (task_copy_in(t, &frame, addr, offsetof(struct rt_sigframe, info)))
		goto bad;
	signal_set_blocked(t, frame.uc.sigmask);
	frame_restore_regs(t, &frame.uc.mc);
	if (frame_read_fpu(t, frame.uc.mc.fpstate))
		goto bad;
	frame_restore_altstack(t, &frame.uc.stack);
	return (int64_t)t->regs.r.rax;
bad:
	t->regs.r.orig_rax = (unsigned long long)-1;
	signal_force_kernel(t, SIGSEGV);
	return 0;
}
