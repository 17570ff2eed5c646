/*
 * tests/platform/stub.c - systrap: what an application may try with the stub that it lives in. It may die of it; another
 * address space goes on, and what the stub could map it does not get.
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/rcu.h"
#include "platform/systrap/layout.h"
#include "platform/systrap/pristine.h"
#include "tests/platform/harness.h"

#define RW (MEM_READ | MEM_WRITE)

extern const char __start_systrap_stub[], __stop_systrap_stub[];

static uint64_t stub_va(const char *symbol)
{
	return STUB_CODE + (uint64_t)(symbol - __start_systrap_stub);
}

/* Somebody else's address space, with a word that must stay what it is. */
struct neighbour {
	struct address_space *as;
	struct guest g;
	uint64_t off;
};

static void neighbour_init(struct neighbour *n)
{
	n->as = space_new();
	n->off = mem_pages(1);
	*mem_at(n->off) = 0x5ec2e7;
	space_map(n->as, DATA_VA, n->off, 1, RW);
	guest_init(&n->g, n->as);
}

static void neighbour_check(struct neighbour *n)
{
	guest_run(&n->g, g_load, DATA_VA, 0);
	EXPECT(n->g.ev.kind == PLATFORM_SYSCALL && n->g.regs.r.rax == 0x5ec2e7);
	guest_run(&n->g, g_store, DATA_VA + PAGE, 0);
	EXPECT(is_fault(&n->g, DATA_VA + PAGE, MEM_WRITE, false));
}

static void neighbour_fini(struct neighbour *n)
{
	guest_fini(&n->g);
	ops->as_destroy(n->as);
}

/* A hostile process: a thread of ours that runs it, and what happened to it. */
struct hostile {
	struct address_space *as;
	struct guest g;
	pthread_t thread;
	_Atomic bool returned;
	int err;
};

static void *hostile_main(void *arg)
{
	struct hostile *h = arg;

	rcu_thread_begin();
	h->err = ops->context_switch(h->g.ctx, h->as, &h->g.regs, &h->g.ev);
	ops->thread_exit(plat);
	rcu_thread_end();
	atomic_store(&h->returned, true);
	return NULL;
}

static void hostile_new(struct hostile *h)
{
	h->as = space_new();
	guest_init(&h->g, h->as);
}

static void hostile_end(struct hostile *h)
{
	guest_fini(&h->g);
	ops->as_destroy(h->as);
}

/* One run from the blob g_exec to `va`, with registers as they are. It is interrupted until it returns, or dies. */
static void hostile_jump(struct hostile *h, uint64_t va)
{
	uint64_t asked = now_ns();

	h->g.regs.r.rip = blob_va(g_exec);
	h->g.regs.r.rbx = va;
	atomic_store(&h->returned, false);
	EXPECT(pthread_create(&h->thread, NULL, hostile_main, h) == 0);
	while (!atomic_load(&h->returned) && now_ns() - asked < 30000000000ul) {
		sleep_us(200);
		if (now_ns() - asked > 20000000)
			ops->context_interrupt(h->g.ctx);
	}
	EXPECT(atomic_load(&h->returned));
	pthread_join(h->thread, NULL);
	EXPECT(h->err == 0 || h->err == -EAGAIN || h->err == -ENOMEM);
	/* Wherever it is: inside the stub no system call happens, and nobody sees where it runs. */
	if (!h->err && h->g.ev.kind == PLATFORM_SYSCALL)
		EXPECT(h->g.regs.r.rip < STUB_BASE || h->g.regs.r.rip >= STUB_END);
	if (h->err) {
		hostile_end(h);
		hostile_new(h);
	}
}

static uint64_t wild(void)
{
	const uint64_t values[] = {
		0,
		1,
		4,
		~0ul,
		rnd(),
		DATA_VA,
		STACK_VA + 0x800,
		STUB_CODE + rnd() % STUB_CODE_SIZE,
		STUB_ORDERS,
		STUB_HINTS + 0x100,
		STUB_AREAS + 0x10000 + rnd() % 0x200,
		STUB_AREAS + rnd() % STUB_AREA_SIZE,
		STUB_AREAS + STUB_AREA_SIZE,
		SYS_mmap,
		SYS_execve,
		SYS_futex,
	};

	return values[rnd() % ARRAY_SIZE(values)];
}

static void wild_regs(struct arch_regs *regs)
{
	unsigned long long *words = (unsigned long long *)&regs->r;

	for (size_t i = 0; i < sizeof(regs->r) / sizeof(*words); i++)
		words[i] = wild();
	/* The jump itself needs a stack. */
	regs->r.rsp =
		rnd() % 2 ? STACK_VA + 0x800 : STUB_AREAS + 0x8000 + rnd() % 0x10000 * 8 % 0x10000;
	regs->r.eflags = 0x202;
}

/*
 * A jump that leaves the stub in a loop costs three seconds, until it is given up: not every byte in every run, but with
 * MOAT_EVERY_BYTE_STEP=1 in the environment.
 */
#ifdef MOAT_DEBUG
#define EVERY_BYTE_STEP 8u
#else
#define EVERY_BYTE_STEP 4u
#endif

static void stub_every_byte(void)
{
	uint64_t size = (uint64_t)(__stop_systrap_stub - __start_systrap_stub);
	uint64_t died = stat_value("systrap/stubs_died");
	const char *env = getenv("MOAT_EVERY_BYTE_STEP");
	uint64_t step = env ? MAX(strtoul(env, NULL, 10), 1ul) : EVERY_BYTE_STEP, jumps = 0;
	struct neighbour n;
	struct hostile h;

	if (on_kvm)
		return;
	neighbour_init(&n);
	hostile_new(&h);
	for (uint64_t at = rnd() % step; at < size && !atomic_load(&test_failed); at += step) {
		wild_regs(&h.g.regs);
		hostile_jump(&h, STUB_CODE + at);
		if (jumps++ % 64 == 0)
			neighbour_check(&n);
		/* What it has become is for the next one, or is no more. */
		if (jumps % 4 == 0) {
			hostile_end(&h);
			hostile_new(&h);
			guest_run(&h.g, g_syscall, 0, 0x1234);
			EXPECT(h.g.ev.kind == PLATFORM_SYSCALL && h.g.regs.r.rax == 0x1234);
		}
	}
	printf("# %lu of %lu bytes, %lu stubs died\n", jumps, size,
	       stat_value("systrap/stubs_died") - died);
	hostile_end(&h);
	neighbour_check(&n);
	neighbour_fini(&n);
}

/* Each place in the stub that makes calls, with a call that would give it what it wants. */
static void stub_calls(void)
{
	const char *const sites[] = {stub_ip_order, stub_ip_wake, stub_ip_wait};
	struct neighbour n;
	struct hostile h;
	uint64_t val;

	if (on_kvm)
		return;
	neighbour_init(&n);
	hostile_new(&h);
	for (size_t i = 0; i < ARRAY_SIZE(sites); i++) {
		const struct {
			uint64_t nr, args[6];
		} calls[] = {
			{SYS_mmap,
			 {DATA_VA, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
			  STUB_FD_PRIVATE, n.off}},
			{SYS_mprotect, {CODE_VA, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC}},
			{SYS_munmap, {STUB_ORDERS, STUB_ORDERS_SIZE}},
			{SYS_mremap, {STUB_AREAS, PAGE, PAGE, 3, DATA_VA}},
			{SYS_execve, {CODE_VA}},
			{SYS_ptrace, {0, 1}},
			{SYS_kill, {1, 9}},
			{SYS_tgkill, {1, 1, 9}},
			{SYS_exit, {0}},
			{SYS_rt_sigreturn, {0}},
			{SYS_write, {STUB_FD_SOCKET, STUB_ORDERS, 8}},
			{SYS_clone, {0x100}},
			{SYS_futex, {CODE_VA, 0, 0}},
			{SYS_futex, {STUB_AREAS + 0x10100, 4, 0}},
		};

		for (size_t k = 0; k < ARRAY_SIZE(calls) && !atomic_load(&test_failed); k++) {
			h.g.regs = (struct arch_regs){0};
			h.g.regs.r.rsp = STACK_VA + 0x800;
			h.g.regs.r.rax = calls[k].nr;
			h.g.regs.r.rdi = calls[k].args[0];
			h.g.regs.r.rsi = calls[k].args[1];
			h.g.regs.r.rdx = calls[k].args[2];
			h.g.regs.r.r10 = calls[k].args[3];
			h.g.regs.r.r8 = calls[k].args[4];
			h.g.regs.r.r9 = calls[k].args[5];
			hostile_jump(&h, stub_va(sites[i]) - 2);
			EXPECT(peek(h.as, DATA_VA, &val) == -EFAULT);
			/* The code is not writable, and runs. */
			guest_run(&h.g, g_store, CODE_VA, 0);
			EXPECT(is_fault(&h.g, CODE_VA, MEM_WRITE, true));
		}
	}
	hostile_end(&h);
	neighbour_check(&n);
	neighbour_fini(&n);
}

/* What the stub's pages are to the application. */
static void stub_pages(void)
{
	const uint64_t readonly[] = {STUB_CODE, STUB_DATA, STUB_ORDERS, STUB_ORDERS + 0x1000};
	struct address_space *as;
	struct guest g;

	if (on_kvm)
		return;
	as = space_new();
	guest_init(&g, as);
	for (size_t i = 0; i < ARRAY_SIZE(readonly); i++) {
		guest_run(&g, g_store, readonly[i], 0);
		EXPECT(is_fault(&g, readonly[i], MEM_WRITE, true));
	}
	guest_run(&g, g_exec, STUB_AREAS + 0x10000, 0);
	EXPECT(g.ev.kind == PLATFORM_FAULT && g.ev.access == MEM_EXEC);
	guest_run(&g, g_store, STUB_STACK, 0);
	EXPECT(is_fault(&g, STUB_STACK, MEM_WRITE, false));
	/* Nobody maps there. */
	EXPECT(ops->as_map(as, STUB_AREAS, PAGE, mem_private(), mem_pages(1), RW, 0) == -EFAULT);
	EXPECT(ops->as_map(as, STUB_BASE - PAGE, 2 * PAGE, mem_private(), mem_pages(2), RW, 0) ==
	       -EFAULT);
	guest_fini(&g);
	ops->as_destroy(as);
}

static bool any_event(struct runner *r)
{
	/* Whatever was forged: a run from a known place, or from wherever it says. */
	if (rnd() % 2) {
		r->g.regs = (struct arch_regs){0};
		r->g.regs.r.rip = blob_va(g_count_syscall);
		r->g.regs.r.rsp = STACK_VA + PAGE - 64;
	}
	return true;
}

static void *forging_runner(void *arg)
{
	struct runner *r = arg;

	rcu_thread_begin();
	any_event(r);
	while (!atomic_load(&r->stop)) {
		if (ops->context_switch(r->g.ctx, r->g.as, &r->g.regs, &r->g.ev))
			break;
		atomic_fetch_add(&r->events, 1);
		any_event(r);
	}
	ops->thread_exit(plat);
	rcu_thread_end();
	atomic_store(&r->done, true);
	return NULL;
}

/* One thread makes calls, another of the same process overwrites its mailbox and frames, byte by byte and in words. */
static void mailbox_forged(void)
{
	uint64_t events = 0, stores = 0, until = now_ns() + 4000000000ul;
	struct neighbour n;

	if (on_kvm)
		return;
	neighbour_init(&n);
	while (now_ns() < until && !atomic_load(&test_failed)) {
		struct address_space *as = space_new();
		struct runner r = {0};
		struct guest g;
		int err = 0;

		guest_init(&g, as);
		guest_init(&r.g, as);
		/* The first thread has the first area. */
		EXPECT(pthread_create(&r.thread, NULL, forging_runner, &r) == 0);
		sleep_us(500);
		for (unsigned i = 0; i < 400 && !err; i++) {
			uint64_t at = rnd() % 4 ? AREA_MAILBOX + rnd() % 0x38 * 8
						: rnd() % (STUB_AREA_SIZE / 8) * 8;

			g.regs = (struct arch_regs){0};
			g.regs.r.rip = blob_va(g_store);
			g.regs.r.rbx = STUB_AREAS + at;
			g.regs.r.rax = wild();
			do {
				err = ops->context_switch(g.ctx, as, &g.regs, &g.ev);
			} while (!err && g.ev.kind == PLATFORM_INTERRUPTED);
			stores++;
		}
		atomic_store(&r.stop, true);
		for (unsigned i = 0; i < 20000 && !atomic_load(&r.done); i++) {
			ops->context_interrupt(r.g.ctx);
			sleep_us(500);
		}
		EXPECT(atomic_load(&r.done));
		pthread_join(r.thread, NULL);
		events += atomic_load(&r.events);
		guest_fini(&g);
		guest_fini(&r.g);
		ops->as_destroy(as);
		neighbour_check(&n);
	}
	printf("# %lu stores, %lu events\n", stores, events);
	EXPECT(stores > 100 && events > 10);
	neighbour_fini(&n);
}

/* No stack, no memory at all: signals have their own. */
static void no_stack(void)
{
	struct address_space *as;
	struct guest g;

	if (on_kvm)
		return;
	as = space_new();
	guest_init(&g, as);
	for (unsigned i = 0; i < 200; i++) {
		memset(&g.regs, 0, sizeof(g.regs));
		g.regs.r.rip = blob_va(i % 2 ? g_int3 : g_syscall);
		g.regs.r.rsp = i % 4 < 2 ? 0 : rnd();
		guest_resume(&g);
		EXPECT(g.ev.kind == (i % 2 ? PLATFORM_EXCEPTION : PLATFORM_SYSCALL));
	}
	guest_fini(&g);
	ops->as_destroy(as);
}

const struct test stub_tests[] = {
	{"stub_pages", stub_pages},	      {"stub_calls", stub_calls},
	{"stub_no_stack", no_stack},	      {"stub_mailbox_forged", mailbox_forged},
	{"stub_every_byte", stub_every_byte}, {0},
};
