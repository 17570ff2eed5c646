/*
 * platform/kvm/selftest.c - a few runs of a few instructions at start: which ring mode is this, and do a
 * system call, an exception and a fault come back as they should? Costs 0.4 ms, most of it a vCPU
 * that the first task then takes over.
 */
#include <string.h>

#include "base/log.h"
#include "platform/kvm/kvm.h"

#define CODE_VA 0x10000ul
#define FAULT_VA 0x20000ul
#define SYSCALL_AT 0x00
#define UD2_AT 0x10
#define LOAD_AT 0x20
#define BACK_AT 0x30
#define CR3_AFTER_AT 0x40
#define LOAD_AFTER_AT 0x50
#define HLT_AFTER_AT 0x60
#define TELL_CS_AT 0x70
#define LSTAR_TRIES 3

static const uint8_t code[] = {
	[SYSCALL_AT] = 0x0f,	0x05, 0x0f, 0x05, /* syscall; syscall */
	[UD2_AT] = 0x0f,	0x0b, /* ud2 */
	[LOAD_AT] = 0x48,	0x8b, 0x03, /* mov (%rbx), %rax */
	[BACK_AT] = 0xff,	0xe1, /* jmp *%rcx */
	[CR3_AFTER_AT] = 0x0f,	0x05, 0x0f, 0x20,	   0xd8, /* syscall; mov %cr3, %rax */
	[LOAD_AFTER_AT] = 0x0f, 0x05, 0x48, 0x8b,	   0x03, /* syscall; mov (%rbx), %rax */
	[HLT_AFTER_AT] = 0x0f,	0x05, 0xf4, /* syscall; hlt */
	[TELL_CS_AT] = 0x8c,	0xc8, 0xe6, KVM_STUB_PORT, /* mov %cs, %eax; out %al */
};

#define KERNEL_PAGE (KVM_KERNEL_BASE + KVM_KERNEL_GDT)

static int run(struct platform_context *ctx, struct address_space *as, uint64_t at,
	       struct arch_regs *regs, struct platform_event *ev)
{
	*regs = (struct arch_regs){.r = {.rip = CODE_VA + at,
					 .rbx = at == LOAD_AFTER_AT ? KERNEL_PAGE : FAULT_VA,
					 .rax = 39}};
	return kvm_context_switch(ctx, as, regs, ev);
}

static bool syscall_works(struct platform_context *ctx, struct address_space *as)
{
	struct platform_event ev;
	struct arch_regs regs;

	return run(ctx, as, SYSCALL_AT, &regs, &ev) == 0 && ev.kind == PLATFORM_SYSCALL &&
	       regs.r.rax == 39 && regs.r.rip == CODE_VA + SYSCALL_AT + 2;
}

/* Behind a first call, whose registers go back by `sysretq`, there is a second one. */
static bool syscall_twice_works(struct platform_context *ctx, struct address_space *as)
{
	struct platform_event ev;
	struct arch_regs regs;

	if (run(ctx, as, SYSCALL_AT, &regs, &ev) || ev.kind != PLATFORM_SYSCALL)
		return false;
	regs.r.rax = 40;
	return kvm_context_switch(ctx, as, &regs, &ev) == 0 && ev.kind == PLATFORM_SYSCALL &&
	       regs.r.rax == 40 && regs.r.rip == CODE_VA + SYSCALL_AT + 4;
}

static bool exceptions_work(struct platform_context *ctx, struct address_space *as)
{
	struct platform_event ev;
	struct arch_regs regs;

	if (run(ctx, as, UD2_AT, &regs, &ev) || ev.kind != PLATFORM_EXCEPTION || ev.vector != 6 ||
	    regs.r.rip != CODE_VA + UD2_AT)
		return false;
	return run(ctx, as, LOAD_AT, &regs, &ev) == 0 && ev.kind == PLATFORM_FAULT &&
	       ev.addr == FAULT_VA && ev.access == MEM_READ && !ev.present;
}

/* A `syscall` that leads to the code at `lstar_at`. Return: 0, -errno. */
static int run_lstar(struct platform_context *ctx, struct address_space *as, uint64_t lstar_at,
		     uint64_t at, struct arch_regs *regs, struct platform_event *ev)
{
	struct kvm_vcpu *v;
	int err = kvm_vcpu_get(ctx->p, ctx, &v);

	if (!err && v->broken)
		err = kvm_vcpu_init_state(v);
	if (!err)
		err = kvm_vcpu_set_lstar(v, CODE_VA + lstar_at);
	if (!err)
		err = run(ctx, as, at, regs, ev);
	return err;
}

/* Now and then `syscall` itself is emulated, which lstar.S finds out; then it is no proof of anything. */
static bool refused_after(struct platform_context *ctx, struct address_space *as, uint64_t at)
{
	struct platform_event ev;
	struct arch_regs regs;
	struct kvm_vcpu *v;

	for (int i = 0; i < LSTAR_TRIES; i++) {
		if (run_lstar(ctx, as, BACK_AT, at, &regs, &ev) || regs.r.rip != CODE_VA + at + 2 ||
		    kvm_vcpu_get(ctx->p, ctx, &v) || v->broken)
			continue;
		if (at == LOAD_AFTER_AT && ev.kind == PLATFORM_FAULT && ev.addr == KERNEL_PAGE)
			return true;
		if (at != LOAD_AFTER_AT && ev.kind == PLATFORM_EXCEPTION && ev.vector == 13)
			return true;
	}
	return false;
}

/* Does CS, which lstar.S looks at, always tell whose rights it has? */
static bool cs_is_true(struct platform_context *ctx, struct address_space *as)
{
	struct platform_event ev;
	struct arch_regs regs;
	struct kvm_vcpu *v;

	for (int i = 0; i < LSTAR_TRIES; i++) {
		const struct kvm_sync_regs *s;

		if (run_lstar(ctx, as, TELL_CS_AT, SYSCALL_AT, &regs, &ev) ||
		    kvm_vcpu_get(ctx->p, ctx, &v))
			return false;
		s = &v->run->s.regs;
		if (s->regs.rip - (CODE_VA + TELL_CS_AT) > 4 ||
		    (uint16_t)s->regs.rax != s->sregs.cs.selector)
			return false;
	}
	return true;
}

/*
 * Does what `syscall` leads to run with ring 3's rights, so that it may go back by a mere jump? Only if nothing that is
 * ring 0's can be had after that. Return: 0, -errno.
 */
static int try_posting(struct kvm_platform *p, struct platform_context *ctx,
		       struct address_space *as)
{
	struct kvm_vcpu *v;
	int err = kvm_vcpu_get(p, ctx, &v);

	if (err)
		return err;
	p->lstar_posts = refused_after(ctx, as, CR3_AFTER_AT) &&
			 refused_after(ctx, as, HLT_AFTER_AT) &&
			 refused_after(ctx, as, LOAD_AFTER_AT) && cs_is_true(ctx, as);
	if (p->lstar_posts)
		kvm_guest_build(p);
	return kvm_vcpu_init_state(v);
}

/* The stub in its longer form: kept if it works. Return: 0, -errno. */
static int try_saving(struct kvm_platform *p, struct platform_context *ctx,
		      struct address_space *as)
{
	struct kvm_vcpu *v;
	int err = kvm_vcpu_get(p, ctx, &v);

	for (p->stub_saves = true; !err; p->stub_saves = false) {
		kvm_guest_build(p);
		err = kvm_vcpu_init_state(v);
		if (err || !p->stub_saves ||
		    (syscall_twice_works(ctx, as) && exceptions_work(ctx, as)))
			break;
	}
	return err;
}

int kvm_selftest(struct kvm_platform *p)
{
	struct platform_context *ctx = NULL;
	struct address_space *as = NULL;
	struct kvm_vcpu *v;
	uint64_t *leaf;
	int err;

	memcpy(p->kernel + KVM_KERNEL_PROBE, code, sizeof(code));
	err = kvm_as_create(&p->base, &as);
	if (!err)
		err = kvm_context_create(&p->base, NULL, &ctx);
	if (!err)
		err = kvm_as_ready(as);
	if (err)
		goto out;
	err = -ENOMEM;
	leaf = kvm_tree_leaf(p, &as->tree, CODE_VA, true);
	if (!leaf)
		goto out;
	leaf[CODE_VA >> MOAT_PAGE_SHIFT] = KVM_KERNEL_PROBE | PTE_P | PTE_U | PTE_AD;
	err = 0;
	p->ring0_emulated = false;
	if (!syscall_works(ctx, as)) {
		p->ring0_emulated = true;
		/* The vCPU's task segment was made for the other mode. */
		err = kvm_vcpu_get(p, ctx, &v);
		if (!err)
			err = kvm_vcpu_init_state(v);
		if (!err && !syscall_works(ctx, as))
			err = -ENOSYS;
	}
	if (!err && !p->ring0_emulated) {
		p->sysret_works = true;
		p->sysret_works = syscall_twice_works(ctx, as);
		if (!p->sysret_works)
			err = kvm_vcpu_get(p, ctx, &v);
		if (!err && !p->sysret_works)
			err = kvm_vcpu_init_state(v);
	}
	if (!err && p->sysret_works && (p->cr4 & CR4_FSGSBASE))
		err = try_saving(p, ctx, as);
	if (!err && !exceptions_work(ctx, as))
		err = -ENOSYS;
	if (!err && p->ring0_emulated)
		err = try_posting(p, ctx, as);
	if (err)
		log_error("kvm: this host's KVM does not run the self-test as a CPU would");
	else
		log_info("kvm: guest ring 0 is %s%s", p->ring0_emulated ? "emulated" : "native",
			 p->lstar_posts ? ", calls are posted where syscall leads" : "");
out:
	kvm_context_destroy(ctx);
	if (as)
		kvm_as_destroy(as);
	if (p->vcpus_move)
		kvm_vcpu_thread_exit(&p->base);
	return err;
}
