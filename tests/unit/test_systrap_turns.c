// LINK: moat_systrap
/* Who may spin on systrap (platform/systrap/turn.c): the taking of turns itself, without a stub. */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/sleep.h"
#include "platform/systrap/systrap.h"

#include "check.h"

#define THREADS 6
#define ROUNDS 3000
/* Ticks that never pass in a test. */
#define FOREVER (1ull << 62)
/* Nanoseconds: one that sleeps so long was not woken, and the test does not end. */
#define NEVER (3600 * 1000000000ll)
#define RACES 20000
#define RACE_NS 2000000000ll
#define MISSED_S 120 /* below ctest's limit, which names no test */

static struct systrap_platform *p;
static struct platform_context *a, *b;

static struct platform_context *context(void)
{
	struct platform_context *ctx = calloc(1, sizeof(*ctx));

	assert_non_null(ctx);
	ctx->p = p;
	return ctx;
}

static int setup(void **state unused_arg)
{
	p = calloc(1, sizeof(*p));
	assert_non_null(p);
	p->cores.count = 2;
	p->cores.ticks_per_us = 1;
	p->turn_ticks = FOREVER;
	systrap_turns_init(p);
	a = context();
	b = context();
	return 0;
}

static int teardown(void **state unused_arg)
{
	systrap_turn_drop(a);
	systrap_turn_drop(b);
	assert_int_equal(atomic_load(&p->turns.held), 0);
	assert_int_equal(atomic_load(&p->turns.nwaiting), 0);
	assert_true(TAILQ_EMPTY(&p->turns.waiting));
	systrap_turns_fini(p);
	free(a);
	free(b);
	free(p);
	return 0;
}

static bool take(struct platform_context *ctx, bool quick)
{
	return systrap_turn_take(ctx, quick, cores_now());
}

static void *take_b(void *arg)
{
	return take(b, true) ? arg : NULL;
}

/* b waits for a turn in a thread of its own. */
static pthread_t start_waiter(void)
{
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, take_b, p), 0);
	while (!atomic_load(&p->turns.nwaiting))
		usleep(100);
	return thread;
}

static bool waiter_got_it(pthread_t thread)
{
	void *got;

	assert_int_equal(pthread_join(thread, &got), 0);
	return got != NULL;
}

static void one_for_two_cores(void **state unused_arg)
{
	assert_true(take(a, true));
	assert_true(take(a, true));
	assert_int_equal(atomic_load(&p->turns.held), 1);
	/* Who was not quick does not wait. */
	assert_false(take(b, false));
	assert_int_equal(atomic_load(&p->turns.nwaiting), 0);
	systrap_turn_give(a);
	assert_true(take(b, false));
	systrap_turn_give(a); /* has none: nothing happens to b's */
	assert_int_equal(atomic_load(&p->turns.held), 1);
}

static void passed_on_when_given(void **state unused_arg)
{
	pthread_t thread;

	assert_true(take(a, true));
	thread = start_waiter();
	assert_true(take(a, true));
	systrap_turn_give(a);
	assert_true(waiter_got_it(thread));
	assert_int_equal(atomic_load(&p->stats.turns_waited), 1);
	assert_false(take(a, false));
}

static void passed_on_by_who_sleeps(void **state unused_arg)
{
	uint32_t blocks = systrap_turn_blocks();
	struct sleeper s;
	pthread_t thread;

	sleeper_init(&s);
	assert_true(take(a, true));
	thread = start_waiter();
	assert_int_equal(sleeper_wait(&s, SLEEP_KILLABLE, time_monotonic_ns() + 1000000),
			 -ETIMEDOUT);
	assert_true(systrap_turn_blocks() != blocks);
	assert_true(waiter_got_it(thread));
}

static void ends_with_its_time(void **state unused_arg)
{
	pthread_t thread;

	assert_true(take(a, true));
	/* Nobody waits: no end. */
	p->turn_ticks = 1;
	assert_true(take(a, true));
	p->turn_ticks = FOREVER;
	thread = start_waiter();
	/* Somebody does; a is not quick, so it is not kept waiting itself. */
	assert_false(systrap_turn_take(a, false, cores_now() + FOREVER + 1));
	assert_true(waiter_got_it(thread));
	assert_int_equal(atomic_load(&p->stats.turns_taken), 0);
}

static void taken_from_the_silent(void **state unused_arg)
{
	pthread_t thread;

	p->turn_ticks = 1;
	assert_true(take(a, true));
	assert_int_equal(pthread_create(&thread, NULL, take_b, p), 0);
	assert_true(waiter_got_it(thread));
	assert_int_equal(atomic_load(&p->stats.turns_taken), 1);
	p->turn_ticks = FOREVER;
	assert_false(take(a, false));
}

static void nobody_waits_for_who_computes(void **state unused_arg)
{
	pthread_t thread;

	atomic_store(&p->busy, 1);
	assert_false(take(b, true));
	atomic_store(&p->busy, 0);
	assert_true(take(a, true));
	thread = start_waiter();
	/* The application of the one with the turn computes: who waits goes on without. */
	atomic_store(&p->busy, 1);
	systrap_turn_give(a);
	assert_false(waiter_got_it(thread));
	atomic_store(&p->busy, 0);
}

static void interruption_ends_waiting(void **state unused_arg)
{
	pthread_t thread;

	assert_true(take(a, true));
	thread = start_waiter();
	atomic_store(&b->interrupt, true);
	systrap_turn_poke(b);
	assert_false(waiter_got_it(thread));
	assert_int_equal(atomic_load(&p->turns.nwaiting), 0);
	/* Who is interrupted already does not begin. */
	assert_false(take(b, true));
}

/* A poke whose interruption was answered before it came: the waiter goes on waiting, and looks for silent holders. */
static void late_poke_is_nothing(void **state unused_arg)
{
	pthread_t thread;

	assert_true(take(a, true));
	thread = start_waiter();
	mutex_lock(&p->turns.lock);
	systrap_turn_poke(b);
	p->turn_ticks = 1;
	mutex_unlock(&p->turns.lock);
	assert_true(waiter_got_it(thread));
	assert_int_equal(atomic_load(&p->stats.turns_taken), 1);
	p->turn_ticks = FOREVER;
}

/* The round that has begun; that is over; that the other may begin (-1: none). */
static _Atomic int racing, raced, proceed;

/* The two are to run side by side, where there are two cores for them. */
static void wait_for(_Atomic int *word, int round)
{
	for (unsigned n = 1; (unsigned)atomic_load(word) < (unsigned)round; n++)
		if (n % 4096 == 0)
			sched_yield();
}

static void *take_b_again_and_again(void *arg)
{
	bool none = true;

	for (int i = 1; atomic_load(&proceed) >= 0; i++) {
		atomic_store(&racing, i);
		none = !take(b, true) && none;
		/* As its thread does with an interruption that it reports; the poke may be to come. */
		while (!atomic_load(&b->interrupt))
			sched_yield();
		atomic_store(&b->interrupt, false);
		atomic_store(&raced, i);
		wait_for(&proceed, i);
	}
	return none ? arg : NULL;
}

static void missed(int sig unused_arg)
{
	static const char why[] = "interruption_is_not_missed: an interruption was missed\n";

	(void)!write(STDERR_FILENO, why, sizeof(why) - 1);
	_exit(1);
}

/* An interruption before, while and after a context begins to wait ends that: by itself nothing would. */
static void interruption_is_not_missed(void **state unused_arg)
{
	int64_t end = time_monotonic_ns() + RACE_NS;
	pthread_t thread;
	void *none;

	signal(SIGALRM, missed);
	alarm(MISSED_S);
	p->turns.wait_ns = NEVER;
	assert_true(take(a, true));
	assert_int_equal(pthread_create(&thread, NULL, take_b_again_and_again, p), 0);
	for (int i = 1; atomic_load(&proceed) >= 0; i++) {
		wait_for(&racing, i);
		for (volatile int n = i % 256; n > 0; n--)
			;
		/* systrap_context_interrupt() of a context that does not run. */
		if (!atomic_exchange(&b->interrupt, true))
			systrap_turn_poke(b);
		wait_for(&raced, i);
		atomic_store(&proceed, i < RACES && time_monotonic_ns() < end ? i : -1);
	}
	assert_int_equal(pthread_join(thread, &none), 0);
	alarm(0);
	assert_true(none != NULL);
}

static void old_note_is_of_no_turn(void **state unused_arg)
{
	struct platform_context *gone = context();
	pthread_t thread;

	assert_true(take(gone, true));
	systrap_turn_drop(gone);
	free(gone);
	/* The same place, another thread's. */
	assert_int_equal(pthread_create(&thread, NULL, take_b, p), 0);
	assert_true(waiter_got_it(thread));
	systrap_turn_blocked();
	assert_int_equal(atomic_load(&p->turns.held), 1);
	assert_false(take(a, false));
}

static _Atomic int spinning, spinning_max, turns_had;

static void *take_and_give(void *arg)
{
	struct platform_context *ctx = arg;

	for (int i = 0; i < ROUNDS; i++) {
		int n, max;

		if (!take(ctx, true))
			continue;
		n = atomic_fetch_add(&spinning, 1) + 1;
		max = atomic_load(&spinning_max);
		while (n > max && !atomic_compare_exchange_weak(&spinning_max, &max, n))
			;
		atomic_fetch_add(&turns_had, 1);
		atomic_fetch_sub(&spinning, 1);
		if (i % 3 == 0)
			systrap_turn_blocked();
		else
			systrap_turn_give(ctx);
	}
	systrap_turn_drop(ctx);
	return NULL;
}

static void never_more_than_there_are(void **state unused_arg)
{
	struct platform_context *ctx[THREADS];
	pthread_t threads[THREADS];

	systrap_turns_fini(p);
	p->cores.count = 4;
	systrap_turns_init(p);
	for (int i = 0; i < THREADS; i++) {
		ctx[i] = context();
		assert_int_equal(pthread_create(&threads[i], NULL, take_and_give, ctx[i]), 0);
	}
	for (int i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		free(ctx[i]);
	}
	/* Whoever waits gets one: nobody was let go without, since nobody computed. */
	assert_int_equal(atomic_load(&turns_had), THREADS * ROUNDS);
	assert_true(atomic_load(&spinning_max) <= 2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(one_for_two_cores),	  TEST(passed_on_when_given),
		TEST(passed_on_by_who_sleeps),	  TEST(ends_with_its_time),
		TEST(taken_from_the_silent),	  TEST(nobody_waits_for_who_computes),
		TEST(interruption_ends_waiting),  TEST(late_poke_is_nothing),
		TEST(interruption_is_not_missed), TEST(old_note_is_of_no_turn),
		TEST(never_more_than_there_are),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
