// LINK: moat_base
#include "tests/unit/check.h"

#include <pthread.h>

#include "base/idr.h"
#include "base/rcu.h"

static char thing[8192];

static void test_cyclic(void **state)
{
	struct idr idr;

	(void)state;
	idr_init(&idr, 1, 5, "test");
	for (int i = 1; i <= 5; i++)
		assert_int_equal(idr_alloc(&idr, &thing[i]), i);
	assert_int_equal(idr_alloc(&idr, &thing[6]), -EAGAIN);
	assert_ptr_equal(idr_remove(&idr, 2), &thing[2]);
	assert_ptr_equal(idr_remove(&idr, 4), &thing[4]);
	assert_null(idr_remove(&idr, 4));
	assert_int_equal(idr_alloc(&idr, &thing[7]), 2);
	assert_ptr_equal(idr_remove(&idr, 2), &thing[7]);
	/* Goes on after the last one given, then wraps. */
	assert_int_equal(idr_alloc(&idr, &thing[8]), 4);
	assert_int_equal(idr_alloc(&idr, &thing[9]), 2);
	for (int i = 1; i <= 5; i++)
		assert_non_null(idr_remove(&idr, i));
	idr_fini(&idr);
}

static void test_lowest_and_at(void **state)
{
	struct idr idr;
	int32_t id;

	(void)state;
	idr_init(&idr, 0, INT32_MAX, "test");
	assert_int_equal(idr_alloc_at(&idr, INT32_MAX, &thing[0]), 0);
	assert_int_equal(idr_alloc_at(&idr, INT32_MAX, &thing[1]), -EEXIST);
	assert_int_equal(idr_alloc_at(&idr, -1, &thing[1]), -EINVAL);
	for (int i = 0; i < 5000; i++)
		assert_int_equal(idr_alloc_lowest(&idr, &thing[i]), i);
	assert_ptr_equal(idr_find(&idr, INT32_MAX), &thing[0]);
	assert_ptr_equal(idr_find(&idr, 4999), &thing[4999]);
	assert_null(idr_find(&idr, 5000));
	assert_null(idr_find(&idr, -5));
	idr_replace(&idr, 17, &thing[1]);
	assert_ptr_equal(idr_find(&idr, 17), &thing[1]);
	assert_non_null(idr_remove(&idr, 4097));
	assert_int_equal(idr_alloc_lowest(&idr, &thing[4097]), 4097);
	id = 4990;
	for (int i = 0; i < 10; i++, id++) {
		assert_ptr_equal(idr_next(&idr, &id), &thing[4990 + i]);
		assert_int_equal(id, 4990 + i);
	}
	assert_ptr_equal(idr_next(&idr, &id), &thing[0]);
	assert_int_equal(id, INT32_MAX);
	for (int i = 0; i < 5000; i++)
		assert_non_null(idr_remove(&idr, i));
	assert_non_null(idr_remove(&idr, INT32_MAX));
	id = 0;
	assert_null(idr_next(&idr, &id));
	idr_fini(&idr);
	rcu_drain();
}

/* Against a plain array, over a range that spans several levels. */
#define RANGE 20000

static void test_random(void **state)
{
	static void *model[RANGE];
	unsigned int seed = 42;
	struct idr idr;
	int live = 0;

	(void)state;
	idr_init(&idr, 100, 100 + RANGE - 1, "test");
	for (int i = 0; i < 300000; i++) {
		int32_t id = 100 + rand_r(&seed) % RANGE;
		void **slot = &model[id - 100];
		int what = rand_r(&seed) % 4;

		if (what == 0) {
			assert_int_equal(idr_alloc_at(&idr, id, &thing[1]), *slot ? -EEXIST : 0);
			live += !*slot;
			if (!*slot)
				*slot = &thing[1];
		} else if (what == 1 && live < RANGE) {
			id = idr_alloc(&idr, &thing[2]);
			assert_in_range(id, 100, 100 + RANGE - 1);
			assert_null(model[id - 100]);
			model[id - 100] = &thing[2];
			live++;
		} else {
			assert_ptr_equal(idr_find(&idr, id), *slot);
			assert_ptr_equal(idr_remove(&idr, id), *slot);
			live -= !!*slot;
			*slot = NULL;
		}
		assert_int_equal(atomic_load(&idr.count), live);
	}
	for (int32_t id = 0, seen = 0;; id++, seen++) {
		if (!idr_next(&idr, &id)) {
			assert_int_equal(seen, live);
			break;
		}
		assert_non_null(model[id - 100]);
	}
	for (int i = 0; i < RANGE; i++)
		assert_ptr_equal(idr_remove(&idr, i + 100), model[i]);
	idr_fini(&idr);
	rcu_drain();
}

struct box {
	struct rcu_cb rcu;
	int32_t id;
};

static struct idr shared;
static _Atomic bool stop;

static void box_free(struct rcu_cb *cb)
{
	free(container_of(cb, struct box, rcu));
}

static void *reader(void *arg)
{
	unsigned int seed = 7;

	(void)arg;
	rcu_thread_begin();
	while (!stop) {
		int32_t id = rand_r(&seed) % 8192;
		struct box *box;

		rcu_read_begin();
		box = idr_find(&shared, id);
		if (box && box->id != id && box->id != -1)
			abort();
		id = 0;
		box = idr_next(&shared, &id);
		if (box && box->id != id && box->id != -1)
			abort();
		rcu_read_end();
	}
	rcu_thread_end();
	return NULL;
}

static void test_lock_free_find(void **state)
{
	pthread_t t[2];

	(void)state;
	idr_init(&shared, 0, 8191, "shared");
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&t[i], NULL, reader, NULL), 0);
	/* Sparse windows of live ids walk through the range, so leaves come and go. */
	for (int i = 0; i < 40000; i++) {
		struct box *box = malloc(sizeof(*box)), *old;
		int32_t id = (i * 67) % 8192;

		box->id = id;
		assert_int_equal(idr_alloc_at(&shared, id, box), 0);
		if (i < 30)
			continue;
		old = idr_remove(&shared, ((i - 30) * 67) % 8192);
		assert_non_null(old);
		rcu_call(&old->rcu, box_free);
	}
	stop = true;
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	for (int32_t id = 0; id < 8192; id++)
		free(idr_remove(&shared, id));
	idr_fini(&shared);
	rcu_drain();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cyclic),
		cmocka_unit_test(test_lowest_and_at),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_lock_free_find),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
