/* tests/platform/share.c - more threads than vCPUs, and threads that come and go. */
#include <stdlib.h>

#include "platform/kvm/kvm.h"
#include "tests/platform/harness.h"

#define THREADS 8

static bool spin_on(struct runner *r)
{
	/* Only interruptions: a system call would mean that xmm4 changed under it. */
	EXPECT(r->g.ev.kind == PLATFORM_INTERRUPTED);
	return r->g.ev.kind == PLATFORM_INTERRUPTED;
}

/* Eight computing threads on two vCPUs of their own and two shared: all get on, none sees another's registers. */
static void beyond_the_limit(void)
{
	struct platform *mine = plat;
	struct address_space *as;
	struct runner r[THREADS];
	uint64_t waits;
	int err;

	if (!on_kvm)
		return;
	ops->thread_exit(plat);
	err = ops->create(&plat);
	if (err == -ENOMEM) {
		/* ThreadSanitizer has no address space for two. */
		printf("# no room for a second platform\n");
		return;
	}
	EXPECT(err == 0);
	if (err)
		return;
	kvm_test_limit_vcpus(plat, 4, 2);
	as = space_new();
	for (unsigned i = 0; i < THREADS; i++)
		runner_start(&r[i], as, g_fxch_spin, 0, 0x1000 + i, spin_on, NULL);
	sleep_us(slow_machine ? 5000000 : 1000000);
	waits = stat_value("kvm/shared_waits");
	for (unsigned i = 0; i < THREADS; i++) {
		runner_stop(&r[i]);
		printf("# thread %u: %llu rounds in %lu turns\n", i, r[i].g.regs.r.rsi,
		       (uint64_t)atomic_load(&r[i].interrupts));
		EXPECT(r[i].g.regs.r.rsi > 1000);
	}
	EXPECT(waits > 0);
	EXPECT(stat_value("kvm/vcpus") + stat_value("kvm/vcpus_shared") <= 4);
	ops->as_destroy(as);
	ops->thread_exit(plat);
	ops->destroy(plat);
	plat = mine;
}

static bool once(struct runner *r)
{
	return r->g.ev.kind == PLATFORM_INTERRUPTED;
}

/* A thread that ends leaves its vCPU to the next. */
static void threads_come_and_go(void)
{
	struct address_space *as = space_new();
	uint64_t vcpus = 0;

	for (unsigned i = 0; i < rounds(300); i++) {
		struct runner r;

		runner_start(&r, as, g_syscall, 0, i, once, NULL);
		EXPECT(runner_wait(&r));
		EXPECT(r.g.ev.kind == PLATFORM_SYSCALL && r.g.regs.r.rax == i);
		if (i == 0)
			vcpus = stat_value("kvm/vcpus");
	}
	EXPECT(stat_value("kvm/vcpus") == vcpus);
	ops->as_destroy(as);
}

const struct test share_tests[] = {
	{"threads_come_and_go", threads_come_and_go},
	{"beyond_the_limit", beyond_the_limit},
	{0},
};
