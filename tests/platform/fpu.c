/* tests/platform/fpu.c - FPU state belongs to its context, wherever it runs. */
#include <cpuid.h>
#include <stdlib.h>

#include "base/rcu.h"
#include "tests/platform/harness.h"

#define FXSAVE_MXCSR 24
#define FXSAVE_XMM 160
#define FXSAVE_SIZE 512

static bool has_avx(void)
{
	return __builtin_cpu_supports("avx");
}

static uint64_t dump_off;

static void fpu_space(struct address_space *as)
{
	if (!dump_off)
		dump_off = mem_pages(16);
	space_map(as, DATA_VA, dump_off, 16, MEM_READ | MEM_WRITE);
}

/* What the guest has in its registers, as fxsave sees it. */
static void dump(struct guest *g, uint8_t *area)
{
	guest_run(g, g_fpu_dump, DATA_VA, 0);
	EXPECT(g->ev.kind == PLATFORM_SYSCALL);
	memcpy(area, mem_at(dump_off), FXSAVE_SIZE);
}

static uint64_t xmm(const uint8_t *area, unsigned n)
{
	uint64_t v;

	memcpy(&v, area + FXSAVE_XMM + n * 16, sizeof(v));
	return v;
}

static bool is_reset(const uint8_t *area)
{
	uint32_t mxcsr;
	uint16_t fcw;

	memcpy(&fcw, area, 2);
	memcpy(&mxcsr, area + FXSAVE_MXCSR, 4);
	for (unsigned i = 0; i < 16; i++)
		if (xmm(area, i))
			return false;
	return fcw == 0x37f && mxcsr == 0x1f80;
}

static bool is_filled(const uint8_t *area, uint64_t seed)
{
	uint32_t mxcsr;

	memcpy(&mxcsr, area + FXSAVE_MXCSR, 4);
	for (unsigned i = 2; i < 16; i++)
		if (xmm(area, i) != seed + i - 2)
			return false;
	return mxcsr == 0x1fa0 && xmm(area, 0) == seed;
}

static void isolation(void)
{
	struct address_space *as = space_new();
	uint8_t area[FXSAVE_SIZE];
	struct guest g[4];

	fpu_space(as);
	for (unsigned i = 0; i < 4; i++)
		guest_init(&g[i], as);
	for (unsigned i = 0; i < 4; i++) {
		/* A new context on a thread that ran another sees nothing of it. */
		dump(&g[i], area);
		EXPECT(is_reset(area));
		guest_run(&g[i], g_fpu_fill, 0, 0x1000 * (i + 1));
		EXPECT(g[i].ev.kind == PLATFORM_SYSCALL);
	}
	for (unsigned k = 0; k < 3; k++) {
		for (unsigned i = 0; i < 4; i++) {
			dump(&g[i], area);
			EXPECT(is_filled(area, 0x1000 * (i + 1)));
		}
	}
	/* Its vCPU's state goes with the context. */
	guest_fini(&g[3]);
	guest_init(&g[3], as);
	dump(&g[3], area);
	EXPECT(is_reset(area));
	if (has_avx()) {
		guest_run(&g[0], g_avx_fill, 0, 0xa1);
		guest_run(&g[1], g_avx_fill, 0, 0xb2);
		guest_run(&g[0], g_avx_dump, DATA_VA, 0);
		EXPECT(mem_at(dump_off)[3] == 0xa1);
		guest_run(&g[2], g_avx_dump, DATA_VA, 0);
		EXPECT(mem_at(dump_off)[3] == 0);
		guest_run(&g[1], g_avx_dump, DATA_VA, 0);
		EXPECT(mem_at(dump_off)[3] == 0xb2);
	}
	for (unsigned i = 0; i < 4; i++)
		guest_fini(&g[i]);
	ops->as_destroy(as);
}

static void *other_thread(void *arg)
{
	struct guest *g = arg;
	uint8_t area[FXSAVE_SIZE];

	rcu_thread_begin();
	dump(g, area);
	EXPECT(is_filled(area, 0x7000));
	guest_run(g, g_fpu_fill, 0, 0x8000);
	ops->thread_exit(plat);
	rcu_thread_end();
	return NULL;
}

/* fork copies; a context that goes to another thread takes its state along. */
static void copy_and_move(void)
{
	struct address_space *as = space_new();
	uint8_t area[FXSAVE_SIZE];
	struct guest parent, child;
	pthread_t t;

	fpu_space(as);
	guest_init(&parent, as);
	guest_run(&parent, g_fpu_fill, 0, 0x7000);
	memset(&child, 0, sizeof(child));
	child.as = as;
	EXPECT(ops->context_create(plat, parent.ctx, &child.ctx) == 0);
	guest_run(&parent, g_fpu_fill, 0, 0x9000);
	EXPECT(pthread_create(&t, NULL, other_thread, &child) == 0);
	pthread_join(t, NULL);
	dump(&child, area);
	EXPECT(is_filled(area, 0x8000));
	dump(&parent, area);
	EXPECT(is_filled(area, 0x9000));
	guest_fini(&child);
	guest_fini(&parent);
	ops->as_destroy(as);
}

static void get_set_reset(void)
{
	struct address_space *as = space_new();
	size_t size = ops->fpu_size(plat);
	uint8_t area[FXSAVE_SIZE], *buf = calloc(1, size), *bad = calloc(1, size);
	uint32_t mxcsr = 0xffffffff;
	uint64_t word = 0x1234567;
	struct guest g;

	fpu_space(as);
	guest_init(&g, as);
	EXPECT(ops->fpu_get(g.ctx, buf, size) == (int)size);
	EXPECT(is_reset(buf));
	guest_run(&g, g_fpu_fill, 0, 0x3000);
	EXPECT(ops->fpu_get(g.ctx, buf, size) == (int)size);
	EXPECT(is_filled(buf, 0x3000));
	ops->fpu_reset(g.ctx);
	dump(&g, area);
	EXPECT(is_reset(area));
	memcpy(buf + FXSAVE_XMM + 5 * 16, &word, sizeof(word));
	EXPECT(ops->fpu_set(g.ctx, buf, size) == 0);
	dump(&g, area);
	EXPECT(xmm(area, 5) == word && xmm(area, 6) == 0x3004);
	/* What the CPU would refuse is refused, and changes nothing. */
	memcpy(bad, buf, size);
	memcpy(bad + FXSAVE_MXCSR, &mxcsr, 4);
	EXPECT(ops->fpu_set(g.ctx, bad, size) == -EINVAL);
	if (size > 576) {
		memcpy(bad, buf, size);
		memset(bad + 512, 0xff, 64);
		EXPECT(ops->fpu_set(g.ctx, bad, size) == -EINVAL);
	}
	EXPECT(ops->fpu_set(g.ctx, bad, 100) == -EINVAL);
	dump(&g, area);
	EXPECT(xmm(area, 5) == word && xmm(area, 6) == 0x3004);
	/* A bare FXSAVE area. */
	word = 0x7654321;
	memcpy(buf + FXSAVE_XMM + 5 * 16, &word, sizeof(word));
	EXPECT(ops->fpu_set(g.ctx, buf, FXSAVE_SIZE) == 0);
	dump(&g, area);
	EXPECT(xmm(area, 5) == word);
	for (unsigned i = 0; i < rounds(200); i++) {
		for (size_t k = 0; k < size; k++)
			bad[k] = rnd();
		(void)ops->fpu_set(g.ctx, bad, size);
		guest_run(&g, g_syscall, 0, 0);
		EXPECT(g.ev.kind == PLATFORM_SYSCALL);
	}
	guest_fini(&g);
	free(buf);
	free(bad);
	ops->as_destroy(as);
}

/* What XSAVE writes fits what CPUID says, and what signal frames will hold. */
static void xsave_size(void)
{
	struct address_space *as = space_new();
	unsigned eax = 0, ebx, ecx, edx;
	uint64_t xcr0, leaf_bits, size;
	uint8_t *area;
	size_t last = 0;
	struct guest g;

	/* As in cpuid.c: leaf 0xd, not the bit in leaf 1. */
	if (!__get_cpuid_count(0xd, 0, &eax, &ebx, &ecx, &edx) || !eax) {
		printf("# no xsave here\n");
		ops->as_destroy(as);
		return;
	}
	fpu_space(as);
	guest_init(&g, as);
	guest_run(&g, g_xgetbv, 0, 0);
	EXPECT(g.ev.kind == PLATFORM_SYSCALL);
	xcr0 = g.regs.r.rax;
	guest_run(&g, g_cpuid, 0, 0xd);
	EXPECT(g.ev.kind == PLATFORM_SYSCALL);
	leaf_bits = g.regs.r.rax;
	size = g.regs.r.rbx;
	EXPECT((uint32_t)xcr0 == leaf_bits);
	EXPECT(size == g.regs.r.rdx);
	EXPECT(size == ops->fpu_size(plat));
	/* All registers in use, then everything saved over a pattern. */
	guest_run(&g, g_fpu_fill, 0, 1);
	if (has_avx())
		guest_run(&g, g_avx_fill, 0, 3);
	area = (uint8_t *)mem_at(dump_off);
	memset(area, 0xcc, 16 * PAGE);
	memset(area + 512, 0, 64);
	guest_run(&g, g_xsave, DATA_VA, 0);
	EXPECT(g.ev.kind == PLATFORM_SYSCALL);
	for (size_t i = 0; i < 16 * PAGE; i++)
		if (area[i] != 0xcc)
			last = i;
	EXPECT(last < size);
	guest_fini(&g);
	ops->as_destroy(as);
}

const struct test fpu_tests[] = {
	{"fpu_isolation", isolation},
	{"fpu_copy_and_move", copy_and_move},
	{"fpu_get_set_reset", get_set_reset},
	{"fpu_xsave_size", xsave_size},
	{0},
};
