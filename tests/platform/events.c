/* tests/platform/events.c - system calls, faults, exceptions: every field exact. */
#include <cpuid.h>
#include <stdlib.h>

#include "tests/platform/harness.h"

static void fill_regs(struct arch_regs *regs)
{
	unsigned long long *words[] = {
		&regs->r.rax, &regs->r.rbx, &regs->r.rdx, &regs->r.rsi, &regs->r.rdi,
		&regs->r.rbp, &regs->r.r8,  &regs->r.r9,  &regs->r.r10, &regs->r.r12,
		&regs->r.r13, &regs->r.r14, &regs->r.r15,
	};

	*regs = (struct arch_regs){0};
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		*words[i] = rnd();
	regs->r.rcx = rnd();
	regs->r.r11 = rnd();
	regs->r.rsp = rnd();
	regs->r.rip = blob_va(g_syscall);
	regs->r.fs_base = rnd() >> 17;
	regs->r.gs_base = rnd() >> 17;
	regs->r.eflags = 0x202 | (rnd() & 0x8d5); /* CF PF AF ZF SF OF */
}

static void syscall_regs(void)
{
	struct address_space *as = space_new();
	struct guest g;

	guest_init(&g, as);
	for (unsigned i = 0; i < rounds(2000); i++) {
		struct arch_regs want;

		fill_regs(&g.regs);
		want = g.regs;
		guest_resume(&g);
		want.r.rip += 2;
		want.r.rcx = want.r.rip;
		want.r.r11 = want.r.eflags;
		want.r.cs = ARCH_USER_CS;
		want.r.ss = ARCH_USER_SS;
		EXPECT(g.ev.kind == PLATFORM_SYSCALL);
		EXPECT(!memcmp(&g.regs, &want, sizeof(want)));
		if (atomic_load(&test_failed))
			break;
	}
	guest_fini(&g);
	ops->as_destroy(as);
}

static void faults(void)
{
	struct address_space *as = space_new();
	uint64_t off = mem_pages(4);
	struct guest g;

	mem_at(off)[0] = 0xabc;
	guest_init(&g, as);
	guest_run(&g, g_load, DATA_VA + 0x123, 0);
	EXPECT(is_fault(&g, DATA_VA + 0x123, MEM_READ, false));
	EXPECT(g.regs.r.rip == blob_va(g_load) && g.regs.r.rbx == DATA_VA + 0x123);
	/* What was missing is mapped and the instruction runs again. */
	space_map(as, DATA_VA, off, 1, MEM_READ);
	g.regs.r.rbx = DATA_VA;
	guest_resume(&g);
	EXPECT(g.ev.kind == PLATFORM_SYSCALL && g.regs.r.rax == 0xabc);
	guest_run(&g, g_store, DATA_VA, 5);
	EXPECT(is_fault(&g, DATA_VA, MEM_WRITE, true));
	EXPECT(g.regs.r.rip == blob_va(g_store) && mem_at(off)[0] == 0xabc);
	/* More rights on the same page: no flush is needed. */
	space_map(as, DATA_VA, off, 1, MEM_READ | MEM_WRITE);
	guest_resume(&g);
	EXPECT(g.ev.kind == PLATFORM_SYSCALL && mem_at(off)[0] == 5);
	guest_run(&g, g_store, DATA_VA + PAGE, 5);
	EXPECT(is_fault(&g, DATA_VA + PAGE, MEM_WRITE, false));
	guest_run(&g, g_exec, DATA_VA, 0);
	EXPECT(is_fault(&g, DATA_VA, MEM_EXEC, true) && g.regs.r.rip == DATA_VA);
	guest_run(&g, g_exec, DATA_VA + 8 * PAGE, 0);
	EXPECT(is_fault(&g, DATA_VA + 8 * PAGE, MEM_EXEC, false));
	/* Across two pages, the second is missing. */
	guest_run(&g, g_load, DATA_VA + PAGE - 4, 0);
	EXPECT(is_fault(&g, DATA_VA + PAGE, MEM_READ, false));
	guest_fini(&g);
	ops->as_destroy(as);
}

static void faults_far(void)
{
	static const uint64_t addrs[] = {
		0,
		8,
		ARCH_TASK_SIZE - PAGE,
		0xffff800000000000ul,
		0xffff800000200000ul,
		0xffffffffff600000ul,
		0xffffffffffffffc0ul,
	};
	struct address_space *as = space_new();
	struct guest g;

	guest_init(&g, as);
	for (size_t i = 0; i < ARRAY_SIZE(addrs); i++) {
		guest_run(&g, g_load, addrs[i], 0);
		EXPECT(g.ev.kind == PLATFORM_FAULT && g.ev.addr == addrs[i] &&
		       g.ev.access == MEM_READ);
		guest_run(&g, g_store, addrs[i], 0);
		EXPECT(g.ev.kind == PLATFORM_FAULT && g.ev.addr == addrs[i] &&
		       g.ev.access == MEM_WRITE);
		guest_run(&g, g_exec, addrs[i], 0);
		EXPECT(g.ev.kind == PLATFORM_FAULT && g.ev.addr == addrs[i] &&
		       g.ev.access == MEM_EXEC && g.regs.r.rip == addrs[i]);
	}
	/* Not canonical: #GP, as on Linux. */
	guest_run(&g, g_load, 0x8000000000000000ul, 0);
	EXPECT(is_exception(&g, 13) && g.regs.r.rip == blob_va(g_load));
	guest_run(&g, g_exec, 0x0000800000000000ul, 0);
	EXPECT(is_exception(&g, 13));
	guest_fini(&g);
	ops->as_destroy(as);
}

static void exceptions(void)
{
	struct address_space *as = space_new();
	uint64_t off = mem_pages(1);
	struct guest g;

	guest_init(&g, as);
	guest_run(&g, g_div0, 0, 7);
	EXPECT(is_exception(&g, 0) && g.regs.r.rip == blob_va(g_div0) + 4);
	guest_run(&g, g_int3, 0, 0);
	EXPECT(is_exception(&g, 3) && g.regs.r.rip == blob_va(g_int3) + 1);
	guest_resume(&g);
	EXPECT(g.ev.kind == PLATFORM_SYSCALL);
	guest_run(&g, g_into_int4, 0, 0);
	EXPECT(is_exception(&g, 4) && g.regs.r.rip == blob_va(g_into_int4) + 2);
	guest_run(&g, g_count_ud2, 0, 0);
	EXPECT(is_exception(&g, 6) && g.regs.r.rip == blob_va(g_count_ud2) + 3);
	/* A null selector base in ss is refused by the CPU itself. */
	guest_run(&g, g_set_segs, 0, 0x18);
	EXPECT(is_exception(&g, 13) && g.ev.error_code == 0x18);
	space_map(as, DATA_VA, off, 1, MEM_READ | MEM_WRITE);
	g.regs = (struct arch_regs){0};
	g.regs.r.rip = blob_va(g_align);
	g.regs.r.rbx = DATA_VA;
	g.regs.r.eflags = 0x40202;
	guest_resume(&g);
	/* QEMU's TCG has no alignment checks. */
	EXPECT(is_exception(&g, 17) || (slow_machine && g.ev.kind == PLATFORM_SYSCALL));
	guest_fini(&g);
	ops->as_destroy(as);
}

static void single_step(void)
{
	struct address_space *as = space_new();
	struct guest g;

	guest_init(&g, as);
	g.regs.r.rip = blob_va(g_step);
	for (unsigned i = 0; i < 3; i++) {
		static const unsigned at[] = {1, 4, 7};

		g.regs.r.eflags |= ARCH_EFLAGS_TF;
		guest_resume(&g);
		EXPECT(is_exception(&g, 1) && g.regs.r.rip == blob_va(g_step) + at[i]);
		EXPECT(g.regs.r.eflags & ARCH_EFLAGS_TF);
	}
	EXPECT(g.regs.r.rax == 2);
	/* Over a system call: TF comes back with the event. */
	guest_resume(&g);
	EXPECT(g.ev.kind == PLATFORM_SYSCALL && (g.regs.r.eflags & ARCH_EFLAGS_TF));
	guest_run(&g, g_syscall, 0, 0);
	EXPECT(g.ev.kind == PLATFORM_SYSCALL && !(g.regs.r.eflags & ARCH_EFLAGS_TF));
	guest_fini(&g);
	ops->as_destroy(as);
}

/* As ring 3 of the guest sees it; the bit of leaf 7. */
static bool has_fsgsbase(void)
{
	unsigned a, b, c, d;

	return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & 1);
}

static void segments(void)
{
	struct address_space *as = space_new();
	uint64_t off = mem_pages(2);
	struct guest g;

	mem_at(off)[0] = 0x1111;
	mem_at(off + PAGE)[0] = 0x2222;
	guest_init(&g, as);
	space_map(as, DATA_VA, off, 2, MEM_READ);
	g.regs.r.rip = blob_va(g_bases);
	g.regs.r.fs_base = DATA_VA;
	g.regs.r.gs_base = DATA_VA + PAGE;
	guest_resume(&g);
	EXPECT(g.ev.kind == PLATFORM_SYSCALL && g.regs.r.rax == 0x1111 && g.regs.r.rdx == 0x2222);
	EXPECT(g.regs.r.fs_base == DATA_VA && g.regs.r.gs_base == DATA_VA + PAGE);
	guest_run(&g, g_segs, 0, 0);
	EXPECT(g.regs.r.rax == 0 && g.regs.r.rdx == 0 && g.regs.r.rsi == 0 && g.regs.r.rdi == 0);
	EXPECT(g.regs.r.r8 == ARCH_USER_SS && g.regs.r.r9 == ARCH_USER_CS);
	guest_run(&g, g_set_segs, 0, ARCH_USER_SS);
	EXPECT(g.ev.kind == PLATFORM_SYSCALL);
	/* A hypervisor that runs ring 3 natively does not look at them. */
	if (!stat_value("kvm/ring0_emulated")) {
		EXPECT(g.regs.r.ds == ARCH_USER_SS && g.regs.r.es == ARCH_USER_SS);
		g.regs.r.rip = blob_va(g_segs);
		guest_resume(&g);
		EXPECT(g.regs.r.rax == ARCH_USER_SS && g.regs.r.rdx == ARCH_USER_SS);
	}
	if (has_fsgsbase()) {
		guest_run(&g, g_set_bases, 0x7654321000, 0x1234567000);
		EXPECT(g.ev.kind == PLATFORM_SYSCALL);
		EXPECT(g.regs.r.fs_base == 0x1234567000 && g.regs.r.gs_base == 0x7654321000);
	}
	guest_run(&g, g_rflags, 0, 0);
	EXPECT(g.regs.r.rax == 0x202);
	guest_fini(&g);
	ops->as_destroy(as);
}

static void time_stamp_counter(void)
{
	struct address_space *as = space_new();
	uint64_t before, after;
	struct guest g;

	guest_init(&g, as);
	before = __builtin_ia32_rdtsc();
	guest_run(&g, g_rdtsc, 0, 0);
	after = __builtin_ia32_rdtsc();
	EXPECT(g.ev.kind == PLATFORM_SYSCALL);
	EXPECT(g.regs.r.rax > before && g.regs.r.rax < after);
	guest_fini(&g);
	ops->as_destroy(as);
}

const struct test event_tests[] = {
	{"syscall_regs", syscall_regs},
	{"faults", faults},
	{"faults_far", faults_far},
	{"exceptions", exceptions},
	{"single_step", single_step},
	{"segments", segments},
	{"time_stamp_counter", time_stamp_counter},
	{0},
};
