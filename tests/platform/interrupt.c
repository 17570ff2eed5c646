/* tests/platform/interrupt.c - interruptions: none lost, nothing disturbed by them. */
#include <stdlib.h>

#include "tests/platform/harness.h"

static bool go_on(struct runner *r unused_arg)
{
	return true;
}

/* Every request is answered within seconds, however it falls. */
static void never_lost(void)
{
	struct address_space *as = space_new();
	struct runner r;

	runner_start(&r, as, g_spin, 0, 0, go_on, NULL);
	for (unsigned i = 0; i < rounds(10000); i++) {
		uint64_t before = atomic_load(&r.interrupts), until = now_ns() + 20000000000ul;

		ops->context_interrupt(r.g.ctx);
		while (atomic_load(&r.interrupts) == before && now_ns() < until)
			;
		EXPECT(atomic_load(&r.interrupts) != before);
		if (atomic_load(&test_failed))
			break;
		for (volatile unsigned spin = rnd() % 4000; spin; spin--)
			;
	}
	runner_stop(&r);
	ops->as_destroy(as);
}

static void sticky(void)
{
	struct address_space *as = space_new();
	struct guest g;

	guest_init(&g, as);
	ops->context_interrupt(g.ctx);
	g.regs.r.rip = blob_va(g_syscall);
	EXPECT(ops->context_switch(g.ctx, as, &g.regs, &g.ev) == 0);
	EXPECT(g.ev.kind == PLATFORM_INTERRUPTED && g.regs.r.rip == blob_va(g_syscall));
	EXPECT(ops->context_switch(g.ctx, as, &g.regs, &g.ev) == 0);
	EXPECT(g.ev.kind == PLATFORM_SYSCALL);
	guest_fini(&g);
	ops->as_destroy(as);
}

struct count {
	uint64_t events;
	enum platform_event_kind kind;
	unsigned vector;
	unsigned rip_off, skip;
};

/* One event a round, no round without one, whatever is interrupted in between. */
static bool count_event(struct runner *r)
{
	struct count *c = r->arg;
	uint64_t rip = r->g.regs.r.rip, start = blob_va(r->blob);

	if (r->g.ev.kind == PLATFORM_INTERRUPTED) {
		EXPECT(rip >= start && rip < start + 16);
		return !atomic_load(&test_failed);
	}
	c->events++;
	EXPECT(r->g.ev.kind == c->kind);
	if (c->kind == PLATFORM_EXCEPTION)
		EXPECT(r->g.ev.vector == c->vector);
	EXPECT(rip == start + c->rip_off);
	if (r->g.regs.r.rbp != c->events)
		printf("# round %lu has event %lu, rip +%lu\n", (uint64_t)r->g.regs.r.rbp,
		       c->events, rip - start);
	EXPECT(r->g.regs.r.rbp == c->events);
	r->g.regs.r.rip += c->skip;
	return !atomic_load(&test_failed);
}

static void storm(const char *blob, struct count *c)
{
	struct address_space *as = space_new();
	uint64_t until = now_ns() + (slow_machine ? 3000000000ul : 1500000000ul);
	struct runner r;

	runner_start(&r, as, blob, DATA_VA, 0, count_event, c);
	while (now_ns() < until && !atomic_load(&test_failed)) {
		ops->context_interrupt(r.g.ctx);
		for (volatile unsigned spin = rnd() % 300000; spin; spin--)
			;
	}
	runner_stop(&r);
	EXPECT(c->events > 10);
	EXPECT(atomic_load(&r.interrupts) > 10);
	printf("# %lu events, %lu interruptions\n", c->events,
	       (uint64_t)atomic_load(&r.interrupts));
	ops->as_destroy(as);
}

static void storm_syscall(void)
{
	struct count c = {.kind = PLATFORM_SYSCALL, .rip_off = 5};

	storm(g_count_syscall, &c);
}

static void storm_int3(void)
{
	struct count c = {.kind = PLATFORM_EXCEPTION, .vector = 3, .rip_off = 4};

	storm(g_count_int3, &c);
}

static void storm_ud2(void)
{
	struct count c = {.kind = PLATFORM_EXCEPTION, .vector = 6, .rip_off = 3, .skip = 2};

	storm(g_count_ud2, &c);
}

static void storm_fault(void)
{
	struct count c = {.kind = PLATFORM_FAULT, .rip_off = 3, .skip = 2};

	storm(g_count_fault, &c);
}

const struct test interrupt_tests[] = {
	{"interrupt_sticky", sticky},
	{"interrupt_never_lost", never_lost},
	{"interrupt_storm_syscall", storm_syscall},
	{"interrupt_storm_int3", storm_int3},
	{"interrupt_storm_ud2", storm_ud2},
	{"interrupt_storm_fault", storm_fault},
	{0},
};
