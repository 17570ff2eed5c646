// LINK: moat_base
/* base/pool.h and base/shard.h: memory goes round between threads, is bounded, and comes back. */
#include "tests/unit/check.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/shard.h"

static _Atomic long live; /* objects that the pools have from malloc() */

static void *count_malloc(size_t size)
{
	atomic_fetch_add(&live, 1);
	return malloc(size);
}

static void count_free(void *p)
{
	atomic_fetch_sub(&live, p != NULL);
	free(p);
}

/* The pool itself and its memory counted, in every build. */
#define POOL_IS_REAL
#define malloc(size) count_malloc(size)
#define free(p) count_free(p)
#include "base/pool.c"
#undef malloc
#undef free

#define OBJECT 144
#define OBJECTS 20000
#define DEPOT (POOL_DEPOT_MAX * POOL_BATCH) /* fewer */
#define ROUNDS 20

static struct pool pool = POOL_INIT(OBJECT, "test");
static struct pool other = POOL_INIT(32, "test, small");
static void *objects[OBJECTS];

static void alloc_all(void)
{
	for (int i = 0; i < OBJECTS; i++) {
		objects[i] = pool_alloc(&pool);
		assert_non_null(objects[i]);
		memset(objects[i], i, OBJECT);
	}
}

static void *free_all(void *arg)
{
	for (int i = 0; i < OBJECTS; i++) {
		for (int k = 0; k < OBJECT; k++)
			assert(((unsigned char *)objects[i])[k] == (unsigned char)i);
		pool_free(&pool, objects[i]);
		pool_free(&other, pool_alloc(&other));
	}
	return arg;
}

/* Each object is one's own, whoever freed it before; threads that end leave nothing behind. */
static void test_round(void **state)
{
	pthread_t t;

	(void)state;
	for (int round = 0; round < ROUNDS; round++) {
		alloc_all();
		assert_int_equal(pthread_create(&t, NULL, free_all, NULL), 0);
		pthread_join(t, NULL);
		assert_int_equal(pool.nlists, POOL_DEPOT_MAX);
		assert_in_range(live, DEPOT, DEPOT + POOL_BATCH);
	}
	pool_trim();
	assert_int_equal(live, 0);
	pool_free(&pool, NULL);
}

/* What the depot holds and nobody needed for a period goes; what was needed stays. */
static void test_needed(void **state)
{
	void *few[10 * POOL_BATCH];

	(void)state;
	alloc_all();
	free_all(NULL);
	assert_int_equal(pool.nlists, POOL_DEPOT_MAX);
	trim_idle(&pool.trim_rcu);
	assert_int_equal(pool.nlists, POOL_DEPOT_MAX);
	for (size_t i = 0; i < ARRAY_SIZE(few); i++)
		few[i] = pool_alloc(&pool);
	for (size_t i = 0; i < ARRAY_SIZE(few); i++)
		pool_free(&pool, few[i]);
	trim_idle(&pool.trim_rcu);
	assert_in_range(pool.nlists, 8, 11);
	trim_idle(&pool.trim_rcu);
	assert_int_equal(pool.nlists, 0);
	pool_trim();
	assert_int_equal(live, 0);
}

static bool depot_is_empty(void)
{
	bool empty;

	mutex_lock(&pool.lock);
	empty = !pool.nlists && !pool.trim_armed;
	mutex_unlock(&pool.lock);
	return empty;
}

/* So it goes by itself. */
static void test_idle(void **state)
{
	(void)state;
	assert_int_equal(timer_thread_start(), 0);
	alloc_all();
	assert_true(live >= OBJECTS);
	free_all(NULL);
	for (int i = 0; i < 3000 && !depot_is_empty(); i++)
		nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
	assert_true(depot_is_empty());
	rcu_drain();
	assert_in_range(live, 1, 2 * POOL_BATCH);
	pool_trim();
	assert_int_equal(live, 0);
}

#define SLOTS 2048
#define THREADS 4
#define TURNS 60000

static uint64_t *_Atomic slots[SLOTS];

/* Objects that most often another thread frees than the one that made them. */
static void *pass_on(void *arg)
{
	uint32_t rnd = (uint32_t)(uintptr_t)arg;

	for (int i = 0; i < TURNS; i++) {
		uint64_t *mine_now = pool_alloc(&pool), *old;

		rnd = rnd * 1664525u + 1013904223u;
		for (size_t k = 0; k < OBJECT / sizeof(*mine_now); k++)
			mine_now[k] = rnd;
		old = atomic_exchange(&slots[(rnd >> 8) % SLOTS], mine_now);
		for (size_t k = 1; old && k < OBJECT / sizeof(*old); k++)
			assert(old[k] == old[0]);
		pool_free(&pool, old);
		/* Emptied while others take and give. */
		if (!(i % (TURNS / 4)))
			pool_trim();
	}
	return NULL;
}

static void test_threads(void **state)
{
	pthread_t t[THREADS];

	(void)state;
	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, pass_on, (void *)(i + 1)), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	for (int i = 0; i < SLOTS; i++)
		pool_free(&pool, slots[i]);
	pool_trim();
	/* The timer may have some in hand. */
	for (int i = 0; i < 3000 && live; i++)
		nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
	assert_int_equal(live, 0);
}

static struct shard_count sum[SHARDS];

static void *add(void *arg)
{
	for (int i = 0; i < 10000; i++) {
		shard_add(sum, 3);
		shard_add(sum, -2);
	}
	return arg;
}

static void test_sum(void **state)
{
	pthread_t t[2 * SHARDS];

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(t); i++)
		assert_int_equal(pthread_create(&t[i], NULL, add, NULL), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(t); i++)
		pthread_join(t[i], NULL);
	assert_int_equal(shard_sum(sum), 10000ll * (int64_t)ARRAY_SIZE(t));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_round),
					   cmocka_unit_test(test_needed),
					   cmocka_unit_test(test_idle),
					   cmocka_unit_test(test_threads),
					   cmocka_unit_test(test_sum)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
