// LINK: moat_base
#include "tests/unit/check.h"

#include <limits.h>
#include <pthread.h>

#include "base/futex.h"
#include "base/sleep.h"

#define MS 1000000ll

static void test_remembered(void **state)
{
	struct sleeper s;

	(void)state;
	sleeper_init(&s);
	sleeper_wake(&s);
	sleeper_wake(&s);
	assert_int_equal(sleeper_wait(&s, SLEEP_INTERRUPTIBLE, TIME_FOREVER), 0);
	/* One wait consumes all that came before it. */
	assert_int_equal(sleeper_wait(&s, SLEEP_INTERRUPTIBLE, 0), -ETIMEDOUT);
	assert_int_equal(sleeper_wait(&s, SLEEP_INTERRUPTIBLE, -1), -ETIMEDOUT);
}

static void test_timeout(void **state)
{
	int64_t start = time_monotonic_ns();
	struct sleeper s;

	(void)state;
	sleeper_init(&s);
	assert_int_equal(sleeper_wait(&s, SLEEP_UNINTERRUPTIBLE, start + 20 * MS), -ETIMEDOUT);
	assert_true(time_monotonic_ns() >= start + 20 * MS);
	assert_true(time_realtime_ns() > 1600000000ll * 1000 * MS);
}

static void test_interrupt_modes(void **state)
{
	struct sleeper s;
	int64_t soon;

	(void)state;
	sleeper_init(&s);
	sleeper_interrupt(&s, false);
	assert_int_equal(sleeper_wait(&s, SLEEP_INTERRUPTIBLE, TIME_FOREVER), -EINTR);
	/* Sticky until the owner has looked. */
	assert_int_equal(sleeper_wait(&s, SLEEP_INTERRUPTIBLE, TIME_FOREVER), -EINTR);
	soon = time_monotonic_ns() + 5 * MS;
	assert_int_equal(sleeper_wait(&s, SLEEP_KILLABLE, soon), -ETIMEDOUT);
	sleeper_clear_interrupt(&s);
	assert_int_equal(sleeper_wait(&s, SLEEP_INTERRUPTIBLE, 0), -ETIMEDOUT);
	sleeper_interrupt(&s, true);
	assert_int_equal(sleeper_wait(&s, SLEEP_KILLABLE, TIME_FOREVER), -EINTR);
	soon = time_monotonic_ns() + 5 * MS;
	assert_int_equal(sleeper_wait(&s, SLEEP_UNINTERRUPTIBLE, soon), -ETIMEDOUT);
	/* A wake-up comes before an interruption, and is not lost to it. */
	sleeper_wake(&s);
	assert_int_equal(sleeper_wait(&s, SLEEP_KILLABLE, TIME_FOREVER), 0);
	assert_int_equal(sleeper_wait(&s, SLEEP_KILLABLE, TIME_FOREVER), -EINTR);
}

static void test_current(void **state)
{
	struct sleeper mine, *own = sleeper_current();

	(void)state;
	assert_non_null(own);
	sleeper_init(&mine);
	sleeper_set_current(&mine);
	assert_ptr_equal(sleeper_current(), &mine);
	sleeper_set_current(NULL);
	assert_ptr_equal(sleeper_current(), own);
}

#define ROUNDS 20000

struct ping {
	struct sleeper *_Atomic sleeper[2];
	_Atomic int turn;
};

static void ping_run(struct ping *p, int me)
{
	while (!p->sleeper[1 - me])
		usleep(100);
	for (int i = 0; i < ROUNDS; i++) {
		while (p->turn != me)
			assert_int_equal(sleeper_wait(sleeper_current(), SLEEP_INTERRUPTIBLE,
						      TIME_FOREVER),
					 0);
		p->turn = 1 - me;
		sleeper_wake(p->sleeper[1 - me]);
	}
}

static void *ping_thread(void *arg)
{
	struct ping *p = arg;
	struct sleeper s;

	sleeper_init(&s);
	sleeper_set_current(&s);
	p->sleeper[1] = &s;
	ping_run(p, 1);
	/* The last wake-up of the other side may still touch s. */
	while (p->turn != 3)
		usleep(100);
	return NULL;
}

static void test_ping_pong(void **state)
{
	struct ping p = {.turn = 0};
	pthread_t t;

	(void)state;
	p.sleeper[0] = sleeper_current();
	assert_int_equal(pthread_create(&t, NULL, ping_thread, &p), 0);
	ping_run(&p, 0);
	while (p.turn != 0)
		usleep(100);
	p.turn = 3;
	pthread_join(t, NULL);
}

static void *interrupter(void *arg)
{
	usleep(20000);
	sleeper_interrupt(arg, false);
	return NULL;
}

static void test_interrupts_a_sleeper(void **state)
{
	struct sleeper s;
	pthread_t t;

	(void)state;
	sleeper_init(&s);
	assert_int_equal(pthread_create(&t, NULL, interrupter, &s), 0);
	assert_int_equal(sleeper_wait(&s, SLEEP_INTERRUPTIBLE, TIME_FOREVER), -EINTR);
	pthread_join(t, NULL);
}

static _Atomic unsigned asked;

/* A machine with a core to spare, and one without. */
static unsigned runnable(int fd)
{
	atomic_fetch_add(&asked, 1);
	return (unsigned)fd;
}

/* Who looks for its wake-up before it sleeps loses none either, and is interrupted and expires all the same. */
static void test_spin(void **state)
{
	struct sleeper s;

	for (int wanted = 1; wanted <= 9; wanted += 8) {
		sleeper_allow_spin(runnable, wanted, 2, 2);
		for (int i = 0; i < 3; i++)
			test_ping_pong(state);
		test_interrupts_a_sleeper(state);
		test_interrupt_modes(state);
		test_timeout(state);
		/* As brief as it gets: a deadline that is near is kept. */
		sleeper_init(&s);
		s.brief = 16;
		assert_int_equal(sleeper_wait(&s, SLEEP_INTERRUPTIBLE, time_monotonic_ns() + MS),
				 -ETIMEDOUT);
		assert_int_equal(sleeper_wait(&s, SLEEP_INTERRUPTIBLE, 1), -ETIMEDOUT);
		sleeper_wake(&s);
		assert_int_equal(sleeper_wait(&s, SLEEP_INTERRUPTIBLE, TIME_FOREVER), 0);
	}
	assert_true(atomic_load(&asked) > 0);
	sleeper_allow_spin(runnable, -1, 0, 0);
}

struct word_game {
	_Atomic uint32_t there, back;
	uint8_t brief; /* of who waits for `there` */
};

#define WORD_ROUNDS 2000

static void *word_player(void *arg)
{
	struct word_game *g = arg;

	for (uint32_t n = 1; n <= WORD_ROUNDS; n++) {
		if (sleep_until_set(&g->there, &g->brief, MS / 5) != n)
			return NULL;
		atomic_store(&g->there, 0);
		atomic_store(&g->back, n);
		futex_wake(&g->back, 1);
	}
	return g;
}

/* Every value that is set is seen, by who looks and by who sleeps; brief waits are counted, a long one takes some back. */
static void test_until_set(void **state)
{
	(void)state;
	for (int wanted = 1; wanted <= 9; wanted += 8) {
		struct word_game g = {0};
		uint8_t brief = 16;
		void *all = NULL;
		pthread_t t;

		sleeper_allow_spin(runnable, wanted, 2, 2);
		assert_int_equal(pthread_create(&t, NULL, word_player, &g), 0);
		for (uint32_t n = 1; n <= WORD_ROUNDS; n++) {
			atomic_store(&g.there, n);
			futex_wake(&g.there, 1);
			assert_int_equal(sleep_until_set(&g.back, &brief, MS / 5), n);
			atomic_store(&g.back, 0);
		}
		pthread_join(t, &all);
		assert_ptr_equal(all, &g);
		/* It sleeps for longer than it looks; unless a busy machine lets it begin only when the word is there. */
		g.brief = 16;
		for (int tries = 0; tries < 50 && g.brief != 8; tries++) {
			g.brief = 16;
			atomic_store(&g.there, 0);
			assert_int_equal(pthread_create(&t, NULL, word_player, &g), 0);
			usleep(20000);
			atomic_store(&g.there, WORD_ROUNDS + 1);
			futex_wake(&g.there, 1);
			pthread_join(t, &all);
			assert_null(all);
		}
		assert_int_equal(g.brief, 8);
	}
	sleeper_allow_spin(runnable, -1, 0, 0);
}

static void *setter(void *arg)
{
	_Atomic uint32_t *word = arg;

	usleep(20000);
	atomic_store(word, 1);
	futex_wake(word, 1);
	return NULL;
}

/* Under a quota of less than two cores nobody looks, whatever the machine has. */
static void test_limit(void **state)
{
	uint8_t brief = 16;
	struct sleeper s;

	(void)state;
	for (unsigned limit = 0; limit <= 2; limit++) {
		_Atomic uint32_t word = 0;
		pthread_t t;

		sleeper_allow_spin(runnable, 1, 4, 4);
		sleeper_limit_spin(limit);
		atomic_store(&asked, 0);
		sleeper_init(&s);
		s.brief = 16;
		assert_int_equal(sleeper_wait(&s, SLEEP_INTERRUPTIBLE, time_monotonic_ns() + MS),
				 -ETIMEDOUT);
		assert_int_equal(pthread_create(&t, NULL, setter, (void *)&word), 0);
		assert_int_equal(sleep_until_set(&word, &brief, MS / 5), 1);
		pthread_join(t, NULL);
		assert_int_equal(atomic_load(&asked) > 0, limit > 1);
	}
	sleeper_limit_spin(UINT_MAX);
	sleeper_allow_spin(runnable, -1, 0, 0);
}

static void *looker(void *arg)
{
	struct sleeper *s = arg;
	const char *what = NULL;

	while (!what || strcmp(what, "end")) {
		what = sleeper_what(s);
		if (what && strcmp(what, "one") && strcmp(what, "two") && strcmp(what, "end"))
			return (void *)what;
	}
	return NULL;
}

/* What is waited for is read by others while it changes. */
static void test_what(void **state)
{
	struct sleeper s;
	void *wrong;
	pthread_t t;

	(void)state;
	sleeper_init(&s);
	assert_null(sleeper_what(&s));
	assert_int_equal(pthread_create(&t, NULL, looker, &s), 0);
	for (int i = 0; i < 10000; i++) {
		sleeper_set_what(&s, "one");
		sleeper_set_what(&s, NULL);
		sleeper_set_what(&s, "two");
	}
	sleeper_set_what(&s, "end");
	pthread_join(t, &wrong);
	assert_null(wrong);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_remembered),
		cmocka_unit_test(test_timeout),
		cmocka_unit_test(test_interrupt_modes),
		cmocka_unit_test(test_current),
		cmocka_unit_test(test_ping_pong),
		cmocka_unit_test(test_interrupts_a_sleeper),
		cmocka_unit_test(test_spin),
		cmocka_unit_test(test_until_set),
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_what),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
