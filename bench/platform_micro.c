// LINK: moat_kvm moat_mem
/*
 * bench/platform_micro.c - what the platform's operations cost: `case/subject VALUE UNIT` lines; --json.
 * Linked with the platform alone; quick (two seconds).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/rcu.h"
#include "mem/guard.h"
#include "platform/patch/patch.h"
#include "platform/platform.h"

#define CODE_VA 0x400000ul
#define DATA_VA 0x20000000ul
#define PAGES 1000ul
#define RW (MEM_READ | MEM_WRITE)

static const struct platform_ops *const ops = &kvm_platform_ops;
static struct platform *plat;
static uint64_t code_off, data_off;
static bool json, first = true;

static double now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1e6 + ts.tv_nsec / 1e3;
}

static void report(const char *name, double total_us, unsigned n)
{
	if (json)
		printf("%s{\"case\": \"%s\", \"subject\": \"kvm\", \"value\": %.3f, \"unit\": "
		       "\"us\"}",
		       first ? "[\n" : ",\n", name, total_us / n);
	else
		printf("%s/kvm %.3f us\n", name, total_us / n);
	first = false;
}

static void die(const char *what, int err)
{
	fprintf(stderr, "platform_micro: %s: %s\n", what, strerror(-err));
	exit(1);
}

static void check(const char *what, int err)
{
	if (err)
		die(what, err);
}

static uint64_t pages(unsigned long n)
{
	uint64_t off;

	check("memory", memfile_alloc(mem_private(), n * MOAT_PAGE_SIZE, 0, 0, &off));
	return off;
}

static struct address_space *space(void)
{
	struct address_space *as;

	check("address space", ops->as_create(plat, &as));
	check("map", ops->as_map(as, CODE_VA, MOAT_PAGE_SIZE, mem_private(), code_off,
				 MEM_READ | MEM_EXEC, 0));
	return as;
}

static void map(struct address_space *as, unsigned long n)
{
	check("map", ops->as_map(as, DATA_VA, n * MOAT_PAGE_SIZE, mem_private(), data_off, RW, 0));
}

static void run(struct platform_context *ctx, struct address_space *as, uint64_t at, uint64_t rbx,
		uint64_t rax, enum platform_event_kind want)
{
	struct arch_regs regs = {.r = {.rip = CODE_VA + at, .rbx = rbx, .rax = rax}};
	struct platform_event ev;

	check("switch", ops->context_switch(ctx, as, &regs, &ev));
	if (ev.kind != want)
		die("unexpected event", -EPROTO);
}

static void bench_switch(struct platform_context *ctx, struct address_space *as)
{
	double t;

	/* With an exit each; then as it goes where a core is free: by hand-off once the site is hot. */
	for (unsigned round = 0; round < 4; round++) {
		patch_set_enabled(round >= 2);
		t = now_us();
		for (unsigned i = 0; i < 10000; i++)
			run(ctx, as, 0, 0, 0, PLATFORM_SYSCALL);
		if (round & 1)
			report(round == 1 ? "syscall_event" : "syscall_posted", now_us() - t,
			       10000);
	}
	t = now_us();
	for (unsigned i = 0; i < 10000; i++)
		run(ctx, as, 2, 0x1000, 0, PLATFORM_FAULT);
	report("fault_event", now_us() - t, 10000);
}

/* The guest loads from each page: KVM's own work for it, one exit in all. */
static void touch(struct platform_context *ctx, struct address_space *as)
{
	run(ctx, as, 16, DATA_VA, DATA_VA + PAGES * MOAT_PAGE_SIZE, PLATFORM_SYSCALL);
}

static void bench_paging(struct platform_context *ctx, struct address_space *as)
{
	double map_us = 0, touch_us = 0, again_us = 0, unmap_us = 0, t;

	for (unsigned i = 0; i < 20; i++) {
		t = now_us();
		map(as, PAGES);
		map_us += now_us() - t;
		t = now_us();
		touch(ctx, as);
		touch_us += now_us() - t;
		t = now_us();
		touch(ctx, as);
		again_us += now_us() - t;
		t = now_us();
		ops->as_unmap(as, DATA_VA, PAGES * MOAT_PAGE_SIZE);
		unmap_us += now_us() - t;
	}
	report("map_1000_pages", map_us, 20);
	report("first_touch_1000_pages", touch_us, 20);
	report("touch_1000_pages", again_us, 20);
	report("unmap_1000_pages_touched", unmap_us, 20);
	unmap_us = map_us = 0;
	for (unsigned i = 0; i < 1000; i++) {
		t = now_us();
		map(as, 1);
		map_us += now_us() - t;
		run(ctx, as, 2, DATA_VA, 0, PLATFORM_SYSCALL);
		t = now_us();
		ops->as_unmap(as, DATA_VA, MOAT_PAGE_SIZE);
		unmap_us += now_us() - t;
	}
	report("map_1_page", map_us, 1000);
	report("unmap_1_page_touched", unmap_us, 1000);
}

static void bench_fork(struct platform_context *ctx)
{
	double fork_us = 0, exit_us = 0, touch_us = 0, t;
	struct address_space *child, *parent = space();

	map(parent, PAGES);
	for (unsigned i = 0; i < 100; i++) {
		touch(ctx, parent);
		check("address space", ops->as_create(plat, &child));
		t = now_us();
		check("fork", ops->as_fork(parent, child));
		fork_us += now_us() - t;
		t = now_us();
		touch(ctx, parent);
		touch_us += now_us() - t;
		run(ctx, child, 0, 0, 0, PLATFORM_SYSCALL);
		t = now_us();
		ops->as_destroy(child);
		exit_us += now_us() - t;
		/* Writable again, as copy-on-write in place would have it. */
		map(parent, PAGES);
	}
	report("fork_1000_pages", fork_us, 100);
	report("touch_1000_pages_after_fork", touch_us, 100);
	report("exit_1000_pages", exit_us, 100);
	ops->as_destroy(parent);
	t = now_us();
	for (unsigned i = 0; i < 1000; i++) {
		struct address_space *as = space();

		run(ctx, as, 0, 0, 0, PLATFORM_SYSCALL);
		ops->as_destroy(as);
	}
	report("space_create_run_destroy", now_us() - t, 1000);
}

static void install_code(void)
{
	static const uint8_t code[] = {
		0x0f, 0x05, /* 0: syscall */
		0x48, 0x8b, 0x03, /* 2: mov (%rbx), %rax */
		0x0f, 0x05, /* 5: syscall */
		0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90,
		0x90, 0x90, 0x48, 0x8b, 0x13, /* 16: mov (%rbx), %rdx */
		0x48, 0x81, 0xc3, 0x00, 0x10, 0x00, 0x00, /* add $4096, %rbx */
		0x48, 0x39, 0xc3, /* cmp %rax, %rbx */
		0x72, 0xf1, /* jb 16 */
		0x0f, 0x05, /* syscall */
	};

	code_off = pages(1);
	memcpy(memfile_ptr(mem_private(), code_off), code, sizeof(code));
	data_off = pages(PAGES);
	memset(memfile_ptr(mem_private(), data_off), 1, PAGES * MOAT_PAGE_SIZE);
}

int main(int argc, char **argv)
{
	struct platform_context *ctx;
	struct address_space *as;
	char why[256];
	double t;

	json = argc > 1 && !strcmp(argv[1], "--json");
	if (ops->probe(why, sizeof(why))) {
		fprintf(stderr, "platform_micro: %s\n", why);
		return 77;
	}
	rcu_thread_begin();
	check("guard", guard_install());
	check("memory", mem_init(0));
	t = now_us();
	check("create", ops->create(&plat));
	report("create", now_us() - t, 1);
	install_code();
	check("context", ops->context_create(plat, NULL, &ctx));
	as = space();
	bench_switch(ctx, as);
	bench_paging(ctx, as);
	bench_fork(ctx);
	ops->as_destroy(as);
	ops->context_destroy(ctx);
	ops->destroy(plat);
	if (json)
		printf("\n]\n");
	return 0;
}
