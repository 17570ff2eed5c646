/*
 * tests/platform/recycle.c - systrap: what a process leaves in its stub does not reach the next one that gets it
 * (platform/systrap/recycle.c). The stub that was given back last is given out first.
 */
#include "platform/systrap/layout.h"
#include "tests/platform/harness.h"

#define RW (MEM_READ | MEM_WRITE)
#define MAILBOX (STUB_AREAS + AREA_MAILBOX)
#define ATTEMPTS 60u
#define FORGERS 8u
/* The sentry gives up a stub whose thread does not answer soon, as on a busy machine: some are enough, and they are tried for longer there. */
#define RECYCLED_MIN 2u
#define LONGER 10u
/* An interruption comes at once; one that went astray, when the sentry gives the thread up. */
#define SOON_NS 2000000000ul
/* What g_foul leaves: canonical; alignment checks and the direction; and what it should be. */
#define FOUL_WORD 0x12345678900ul
#define FOUL_FLAGS 0x40400u
#define MXCSR_INIT 0x1f80u

static uint64_t recycled(void)
{
	return stat_value("systrap/stubs_recycled");
}

static bool go_on_recycling(unsigned done, unsigned wanted, uint64_t seen)
{
	return !atomic_load(&test_failed) &&
	       (done < wanted || (seen < RECYCLED_MIN && done < LONGER * wanted));
}

/* A new address space's program begins as it is told to, and with nothing else. */
static void check_new(struct address_space *as)
{
	struct guest g;

	guest_init(&g, as);
	guest_run(&g, g_syscall, 0, 0x1234);
	EXPECT(g.ev.kind == PLATFORM_SYSCALL && g.regs.r.rax == 0x1234);
	EXPECT(g.regs.r.rip == blob_va(g_syscall) + 2 && g.regs.r.rsp == STACK_VA + PAGE - 64);
	EXPECT(!g.regs.r.rbx && !g.regs.r.rbp && !g.regs.r.rdi && !g.regs.r.rsi && !g.regs.r.rdx &&
	       !g.regs.r.r12 && !g.regs.r.r13 && !g.regs.r.r14 && !g.regs.r.r15);
	guest_run(&g, g_load, DATA_VA, 0);
	EXPECT(is_fault(&g, DATA_VA, MEM_READ, false));
	guest_fini(&g);
}

/* How many words of [va, end) are `word` in `as`, whose first event this is. */
static uint64_t count_words(struct address_space *as, uint64_t va, uint64_t end, uint64_t word)
{
	struct guest g;

	guest_init(&g, as);
	g.regs.r.rcx = end;
	g.regs.r.rip = blob_va(g_find);
	g.regs.r.rsp = STACK_VA + PAGE - 64;
	g.regs.r.rbx = va;
	/* So that no register's image is the word. */
	g.regs.r.rax = ~word;
	guest_resume(&g);
	EXPECT(g.ev.kind == PLATFORM_SYSCALL);
	guest_fini(&g);
	return g.regs.r.rdx;
}

static void fill(struct guest *g, uint64_t va, uint64_t end, uint64_t word)
{
	g->regs = (struct arch_regs){0};
	g->regs.r.rip = blob_va(g_fill);
	g->regs.r.rsp = STACK_VA + PAGE - 64;
	g->regs.r.rbx = va;
	g->regs.r.rcx = end;
	g->regs.r.rax = word;
	guest_resume(g);
	EXPECT(g->ev.kind == PLATFORM_SYSCALL && g->regs.r.rbx == end);
}

/* All that it may write, but for the mailbox that it needs. */
static void leftovers(void)
{
	const struct {
		uint64_t va, end;
	} ranges[] = {
		{STUB_AREAS, MAILBOX},
		{MAILBOX + 0x200, STUB_AREAS + STUB_AREA_SIZE},
		{STUB_HINTS + HINT_RESULT, STUB_HINTS + STUB_HINTS_SIZE},
	};
	uint64_t seen = 0;
	unsigned i;

	if (on_kvm)
		return;
	for (i = 0; go_on_recycling(i, ATTEMPTS, seen); i++) {
		uint64_t word = rnd() | 1, before;
		struct address_space *as = space_new();
		unsigned which = i % ARRAY_SIZE(ranges);
		struct guest g;

		guest_init(&g, as);
		for (unsigned k = 0; k < ARRAY_SIZE(ranges); k++)
			fill(&g, ranges[k].va, ranges[k].end, word);
		guest_fini(&g);
		before = recycled();
		ops->as_destroy(as);
		seen += recycled() - before;
		as = space_new();
		EXPECT(count_words(as, ranges[which].va, ranges[which].end, word) == 0);
		ops->as_destroy(as);
	}
	printf("# %lu of %u recycled\n", seen, i);
	EXPECT(seen >= RECYCLED_MIN);
}

/* In whatever is not a general register there is what a new program has. */
static void check_state(struct address_space *as)
{
	struct guest g;

	guest_init(&g, as);
	guest_run(&g, g_state, 0, 0x1234);
	EXPECT(g.ev.kind == PLATFORM_SYSCALL);
	EXPECT(!g.regs.r.rax && !g.regs.r.rsi);
	EXPECT(!(g.regs.r.rdx & FOUL_FLAGS));
	EXPECT(g.regs.r.r8 == MXCSR_INIT && !g.regs.r.r9 && !g.regs.r.r10);
	guest_fini(&g);
}

/*
 * It says that it has an event, and goes on; it overwrites whatever could say that it has not stopped. Its successor is looked at
 * by `check`.
 */
static void forge(const char *blob, void (*check)(struct address_space *as))
{
	uint64_t off, seen = 0, before, count;
	unsigned i;

	if (on_kvm)
		return;
	off = mem_pages(1);
	for (i = 0; go_on_recycling(i, FORGERS, seen); i++) {
		struct address_space *as = space_new();
		struct guest g;

		space_map(as, FLAG_VA, off, 1, RW);
		guest_init(&g, as);
		/* A frame to be found. */
		guest_run(&g, g_syscall, 0, FOUL_WORD);
		g.regs.r.rip = blob_va(blob);
		g.regs.r.rbx = MAILBOX + AREA_STATE;
		g.regs.r.rcx = FLAG_VA;
		g.regs.r.rdx = rnd();
		guest_resume(&g);
		EXPECT(g.ev.kind == PLATFORM_SYSCALL);
		guest_fini(&g);
		/* It runs, while the sentry thinks that it does not. */
		count = *(volatile uint64_t *)mem_at(off);
		for (unsigned k = 0; k < 50000 && *(volatile uint64_t *)mem_at(off) == count; k++)
			sleep_us(100);
		EXPECT(*(volatile uint64_t *)mem_at(off) != count);
		before = recycled();
		ops->as_destroy(as);
		seen += recycled() - before;
		count = *(volatile uint64_t *)mem_at(off);
		as = space_new();
		check(as);
		EXPECT(*(volatile uint64_t *)mem_at(off) == count);
		ops->as_destroy(as);
	}
	printf("# %lu of %u recycled\n", seen, i);
	EXPECT(seen >= RECYCLED_MIN);
}

static void forged_event(void)
{
	forge(g_forge, check_new);
}

static void foul_registers(void)
{
	forge(g_foul, check_state);
}

static bool go_on(struct runner *r)
{
	return !atomic_load(&r->stop);
}

/*
 * Return: how long a thread takes to hear of an interruption, in a process after one that wrote `number` in the place of its thread's.
 * *ret_again: the first one's stub was there to be used again.
 */
static uint64_t interrupted_after(uint64_t number, bool *ret_again)
{
	uint64_t before = recycled();
	struct address_space *as = space_new();
	struct runner r;
	struct guest g;
	uint64_t asked;

	guest_init(&g, as);
	guest_run(&g, g_store, MAILBOX + AREA_TID, number);
	EXPECT(g.ev.kind == PLATFORM_SYSCALL);
	guest_fini(&g);
	ops->as_destroy(as);
	*ret_again = recycled() > before;
	as = space_new();
	runner_start(&r, as, g_spin, 0, 0, go_on, NULL);
	sleep_us(2000);
	asked = now_ns();
	runner_stop(&r);
	asked = now_ns() - asked;
	ops->as_destroy(as);
	return asked;
}

/* Its thread's number is in its own hands: the next one can be interrupted nevertheless. */
static void forged_number(void)
{
	const uint64_t numbers[] = {0, 1, 0x7fffffff, ~0ul};

	if (on_kvm)
		return;
	for (unsigned i = 0; i < ARRAY_SIZE(numbers) && !atomic_load(&test_failed); i++) {
		unsigned late = 0, tries = 0;
		bool again, soon;

		/* A machine that does much else makes one late, but not each; one in time with another stub than that proves nothing. */
		do {
			soon = interrupted_after(numbers[i], &again) < SOON_NS;
			late += !soon;
		} while (late && late < 4 && !(soon && again) && ++tries < LONGER * 4);
		EXPECT(late < 4);
		EXPECT(!late || (soon && again));
	}
}

const struct test recycle_tests[] = {
	{"recycle_leftovers", leftovers},
	{"recycle_forged_event", forged_event},
	{"recycle_foul_registers", foul_registers},
	{"recycle_forged_number", forged_number},
	{0},
};
