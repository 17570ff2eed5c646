// LINK: moat_base
/* base/pool.h and base/shard.h: memory goes round between threads, is bounded, and comes back. */
#include "tests/unit/check.h"

#include <malloc.h>
#include <pthread.h>

#include "base/pool.h"
#include "base/shard.h"

#define OBJECT 144
#define OBJECTS 20000
#define ROUNDS 20
#define SLACK (512u << 10)

static struct pool pool = POOL_INIT(OBJECT, "test");
static struct pool other = POOL_INIT(32, "test, small");
static void *objects[OBJECTS];

static size_t in_use(void)
{
	struct mallinfo2 m = mallinfo2();

	return m.uordblks + m.hblkhd;
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
	size_t before = 0;
	pthread_t t;

	(void)state;
	for (int round = 0; round < ROUNDS; round++) {
		for (int i = 0; i < OBJECTS; i++) {
			objects[i] = pool_alloc(&pool);
			assert_non_null(objects[i]);
			memset(objects[i], i, OBJECT);
		}
		assert_int_equal(pthread_create(&t, NULL, free_all, NULL), 0);
		pthread_join(t, NULL);
		if (!round)
			before = in_use();
	}
	assert_true(in_use() <= before + SLACK);
	pool_trim();
	assert_true(in_use() <= before);
	pool_free(&pool, NULL);
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
					   cmocka_unit_test(test_sum)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
