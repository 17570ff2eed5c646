/* tests/platform/hostile.c - what an application may try: registers, instructions, the stub. */
#include <stdlib.h>

#include "platform/patch/patch.h"
#include "tests/platform/harness.h"

#define STUB_VA 0x7ffffffff000ul

static void still_works(struct address_space *as)
{
	struct guest g;

	guest_init(&g, as);
	guest_run(&g, g_syscall, 0, 0x1234);
	EXPECT(g.ev.kind == PLATFORM_SYSCALL && g.regs.r.rax == 0x1234);
	guest_run(&g, g_load, 0x1000, 0);
	EXPECT(is_fault(&g, 0x1000, MEM_READ, false));
	guest_fini(&g);
}

/*
 * A jump to any byte of the stub's page is a fault there, before and after a real system call. Where lstar.S is it may be one
 * where that led, or, once it is used here, a call that the program could have made, or an exception: a trap, if what it took from
 * the program's stack as flags has the trap flag, or what the middle of an instruction raises.
 */
static void stub_jumps(void)
{
	struct address_space *as = space_new();
	struct guest g;

	guest_init(&g, as);
	for (unsigned at = 0; at < PAGE && !atomic_load(&test_failed); at += slow_machine ? 7 : 1) {
		if (at % 3 == 0)
			guest_run(&g, g_syscall, 0, 0);
		guest_run(&g, g_exec, STUB_VA + at, 0);
		if (at < PATCH_LSTAR_MAX && g.ev.kind == PLATFORM_SYSCALL) {
			EXPECT(g.regs.r.rcx == g.regs.r.rip && !patch_lstar_inside(g.regs.r.rip));
			continue;
		}
		if (at < PATCH_LSTAR_MAX && g.ev.kind == PLATFORM_EXCEPTION) {
			EXPECT(!patch_lstar_inside(g.regs.r.rip));
			continue;
		}
		EXPECT(g.ev.kind == PLATFORM_FAULT && g.ev.access == MEM_EXEC);
		if (at >= PATCH_LSTAR_MAX)
			EXPECT(g.ev.addr >= STUB_VA + at && g.ev.addr <= STUB_VA + at + 16);
	}
	for (unsigned at = 0x7f8; at < 0x808; at++) {
		guest_run(&g, g_exec, STUB_VA + at, 0);
		EXPECT(g.ev.kind == PLATFORM_FAULT && g.ev.access == MEM_EXEC);
		/* Registers say so directly: refused without running. */
		g.regs.r.rip = STUB_VA + at;
		guest_resume(&g);
		EXPECT(is_fault(&g, STUB_VA + at, MEM_EXEC, false));
	}
	/* Nobody may write it. */
	guest_run(&g, g_store, STUB_VA + 0x800, 0);
	EXPECT(g.ev.kind == PLATFORM_FAULT && g.ev.access == MEM_WRITE);
	guest_fini(&g);
	still_works(as);
	ops->as_destroy(as);
}

/* A system call whose return address is the stub's page. */
static void stub_return(void)
{
	struct address_space *as = space_new();
	uint64_t off = mem_pages(1);
	uint8_t *code = (uint8_t *)mem_at(off);
	struct guest g;

	code[PAGE - 2] = 0x0f;
	code[PAGE - 1] = 0x05;
	space_map(as, STUB_VA - PAGE, off, 1, MEM_READ | MEM_EXEC);
	guest_init(&g, as);
	g.regs.r.rip = STUB_VA - 2;
	guest_resume(&g);
	EXPECT(g.ev.kind == PLATFORM_SYSCALL && g.regs.r.rip == STUB_VA);
	guest_resume(&g);
	EXPECT(is_fault(&g, STUB_VA, MEM_EXEC, false));
	guest_fini(&g);
	still_works(as);
	ops->as_destroy(as);
}

#define INSN_MAX 12

static const struct insn {
	const char *name;
	uint8_t bytes[INSN_MAX];
} privileged[] = {
	{"hlt", {0xf4}},
	{"cli", {0xfa}},
	{"sti", {0xfb}},
	{"in al,0x10", {0xe4, 0x10}},
	{"out 0x10,al", {0xe6, 0x10}},
	{"out dx,al", {0xee}},
	{"insb", {0x6c}},
	{"outsb", {0x6e}},
	{"mov cr0,rax", {0x0f, 0x22, 0xc0}},
	{"mov cr3,rax", {0x0f, 0x22, 0xd8}},
	{"mov rax,cr3", {0x0f, 0x20, 0xd8}},
	{"mov rax,cr8", {0x44, 0x0f, 0x20, 0xc0}},
	{"mov dr7,rax", {0x0f, 0x23, 0xf8}},
	{"mov rax,dr0", {0x0f, 0x21, 0xc0}},
	{"wrmsr", {0x0f, 0x30}},
	{"rdmsr", {0x0f, 0x32}},
	{"lgdt", {0x0f, 0x01, 0x13}},
	{"lidt", {0x0f, 0x01, 0x1b}},
	{"lldt ax", {0x0f, 0x00, 0xd0}},
	{"ltr ax", {0x0f, 0x00, 0xd8}},
	{"lmsw ax", {0x0f, 0x01, 0xf0}},
	{"clts", {0x0f, 0x06}},
	{"invlpg", {0x0f, 0x01, 0x3b}},
	{"invd", {0x0f, 0x08}},
	{"wbinvd", {0x0f, 0x09}},
	{"swapgs", {0x0f, 0x01, 0xf8}},
	{"sysretq", {0x48, 0x0f, 0x07}},
	{"sysexit", {0x0f, 0x35}},
	{"sysenter", {0x0f, 0x34}},
	{"xsetbv", {0x0f, 0x01, 0xd1}},
	{"monitor", {0x0f, 0x01, 0xc8}},
	{"mwait", {0x0f, 0x01, 0xc9}},
	{"rsm", {0x0f, 0xaa}},
	{"int 0x80", {0xcd, 0x80}},
	{"int 0x20", {0xcd, 0x20}},
	{"int 14", {0xcd, 0x0e}},
	{"int 8", {0xcd, 0x08}},
	{"int 2", {0xcd, 0x02}},
	{"vmrun", {0x0f, 0x01, 0xd8}},
	{"vmload", {0x0f, 0x01, 0xda}},
	{"vmsave", {0x0f, 0x01, 0xdb}},
	{"clgi", {0x0f, 0x01, 0xdd}},
	{"vmlaunch", {0x0f, 0x01, 0xc2}},
	{"vmxoff", {0x0f, 0x01, 0xc4}},
	{"ud0", {0x0f, 0xff, 0xc0}},
	{"retf", {0x48, 0xcb}},
	{"iretq", {0x48, 0xcf}},
	{"jmp far kernel", {0xff, 0x2b}},
	{"mov ss,ax", {0x8e, 0xd0}},
	{"lock nop", {0xf0, 0x90}},
	{"fifteen prefixes",
	 {0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66}},
};

/*
 * These either raise an exception or do nothing; no exit of theirs is taken for a system call, none
 * stops the vCPU. "Nothing" is for what a hypervisor answers itself.
 */
static void privileged_insns(void)
{
	struct address_space *as = space_new();
	uint64_t off = mem_pages(2), bad = stat_value("kvm/bad_exits");
	uint8_t *code = (uint8_t *)mem_at(off);
	struct guest g;

	space_map(as, DATA_VA, off, 2, MEM_READ | MEM_WRITE | MEM_EXEC);
	guest_init(&g, as);
	for (size_t i = 0; i < ARRAY_SIZE(privileged); i++) {
		const struct insn *insn = &privileged[i];

		for (unsigned round = 0; round < 2; round++) {
			memset(code, 0xcc, PAGE);
			memcpy(code, insn->bytes, INSN_MAX);
			for (unsigned k = INSN_MAX; k && !code[k - 1]; k--)
				code[k - 1] = 0xcc;
			/* With rings as `syscall` left them, and fresh. */
			if (round)
				guest_run(&g, g_syscall, 0, 0);
			memset(&g.regs, 0, sizeof(g.regs));
			g.regs.r.rip = DATA_VA;
			g.regs.r.rsp = STACK_VA + 0x800;
			g.regs.r.rbx = DATA_VA + PAGE;
			g.regs.r.rdx = 0x10;
			guest_resume(&g);
			EXPECT(g.ev.kind != PLATFORM_SYSCALL);
			if (g.ev.kind == PLATFORM_EXCEPTION && g.ev.vector == 3)
				printf("# %s does nothing\n", insn->name);
			else
				EXPECT((g.ev.kind == PLATFORM_EXCEPTION &&
					(g.ev.vector == 6 || g.ev.vector == 13 ||
					 g.ev.vector == 12)) ||
				       g.ev.kind == PLATFORM_FAULT);
			if (atomic_load(&test_failed)) {
				printf("# %s: kind %d vector %u\n", insn->name, g.ev.kind,
				       g.ev.vector);
				goto out;
			}
		}
	}
	if (stat_value("kvm/bad_exits") != bad)
		printf("# %lu exits that KVM could not explain\n",
		       stat_value("kvm/bad_exits") - bad);
out:
	guest_fini(&g);
	still_works(as);
	ops->as_destroy(as);
}

/* Hypercalls and what else leaves ring 3 on purpose. */
static void hypercalls(void)
{
	static const uint8_t calls[][4] = {
		{0x0f, 0x01, 0xc1, 0xcc}, /* vmcall */
		{0x0f, 0x01, 0xd9, 0xcc}, /* vmmcall */
	};
	struct address_space *as = space_new();
	uint64_t off = mem_pages(1);
	struct guest g;

	space_map(as, DATA_VA, off, 1, MEM_READ | MEM_WRITE | MEM_EXEC);
	guest_init(&g, as);
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
		for (uint64_t nr = 0; nr < 16; nr++) {
			memcpy(mem_at(off), calls[i], 4);
			g.regs = (struct arch_regs){0};
			g.regs.r.rip = DATA_VA;
			g.regs.r.rax = nr;
			guest_resume(&g);
			EXPECT(g.ev.kind == PLATFORM_EXCEPTION);
			EXPECT(!memcmp(mem_at(off), calls[i], 4));
		}
	}
	guest_fini(&g);
	still_works(as);
	ops->as_destroy(as);
}

static uint64_t odd_value(void)
{
	static const uint64_t odd[] = {
		0,
		1,
		3,
		0x10,
		0x18,
		0x23,
		0x2b,
		0x33,
		0x40,
		0xffff,
		0x10000,
		0x7fffffffffff,
		0x800000000000,
		0x7ffffffff000,
		0x7ffffffff800,
		0xffff800000000000,
		0xffff800000003000,
		0xffffffffff600000,
		~0ul,
		0x8000000000000000,
		CODE_VA,
		0x200000000000,
	};

	return rnd() % 4 ? odd[rnd() % ARRAY_SIZE(odd)] : rnd() >> (rnd() % 64);
}

static void odd_registers(void)
{
	struct address_space *as = space_new();
	uint64_t bad = stat_value("kvm/bad_exits");
	struct guest g;

	guest_init(&g, as);
	for (unsigned i = 0; i < rounds(20000) && !atomic_load(&test_failed); i++) {
		unsigned long long *words = (unsigned long long *)&g.regs.r;

		for (size_t k = 0; k < sizeof(g.regs.r) / 8; k++)
			words[k] = odd_value();
		if (i % 2)
			g.regs.r.rip = blob_va(g_syscall);
		guest_resume(&g);
		EXPECT(g.regs.r.cs == ARCH_USER_CS || g.ev.kind != PLATFORM_SYSCALL);
		if (i % 2)
			EXPECT(g.ev.kind == PLATFORM_SYSCALL || is_exception(&g, 1));
		if (g.ev.kind == PLATFORM_SYSCALL && i % 2) {
			EXPECT(!(g.regs.r.eflags & ~(ARCH_EFLAGS_USER | ARCH_EFLAGS_FIXED)));
			EXPECT(g.regs.r.ss == ARCH_USER_SS);
		}
	}
	EXPECT(stat_value("kvm/bad_exits") == bad);
	guest_fini(&g);
	still_works(as);
	ops->as_destroy(as);
}

/* Random bytes as code, for what nobody thought of. */
static void random_code(void)
{
	struct address_space *as = space_new();
	uint64_t off = mem_pages(1), bad = stat_value("kvm/bad_exits");
	uint8_t *code = (uint8_t *)mem_at(off);
	struct guest g;

	space_map(as, DATA_VA, off, 1, MEM_READ | MEM_WRITE | MEM_EXEC);
	guest_init(&g, as);
	for (unsigned i = 0; i < rounds(10000) && !atomic_load(&test_failed); i++) {
		memset(code, 0xcc, PAGE);
		for (unsigned k = 0; k < 16; k++)
			code[2048 + k] = rnd();
		memset(&g.regs, 0, sizeof(g.regs));
		g.regs.r.rip = DATA_VA + 2048;
		g.regs.r.rsp = STACK_VA + 0x800;
		g.regs.r.rax = g.regs.r.rbx = g.regs.r.rdi = g.regs.r.rsi = DATA_VA + 0x100;
		g.regs.r.rcx = 3; /* rep */
		/* Every instruction is an event: no loop is endless. */
		for (unsigned step = 0; step < 24; step++) {
			g.regs.r.eflags |= ARCH_EFLAGS_TF;
			guest_resume(&g);
			if (!is_exception(&g, 1))
				break;
		}
	}
	if (stat_value("kvm/bad_exits") != bad)
		printf("# %lu exits that KVM could not explain\n",
		       stat_value("kvm/bad_exits") - bad);
	guest_fini(&g);
	still_works(as);
	ops->as_destroy(as);
}

const struct test hostile_tests[] = {
	{"stub_jumps", stub_jumps},
	{"stub_return", stub_return},
	{"privileged_insns", privileged_insns},
	{"hypercalls", hypercalls},
	{"odd_registers", odd_registers},
	{"random_code", random_code},
	{0},
};
