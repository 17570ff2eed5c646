// LINK: moat_base
#include "tests/unit/check.h"

#include <pthread.h>

#include "base/ref.h"

static REF_TYPE(apple_type, "apple");
static REF_TYPE(pear_type, "pear");

struct apple {
	struct ref ref;
};

static void test_last_put(void **state)
{
	struct apple a;

	(void)state;
	ref_init(&a.ref, &apple_type);
	ref_get(&a.ref);
	assert_int_equal(ref_read(&a.ref), 2);
	assert_false(ref_put(&a.ref));
	assert_true(ref_put(&a.ref));
	assert_false(ref_tryget(&a.ref));
	ref_fini(&a.ref, &apple_type);
}

struct counts {
	int64_t apple, pear;
};

static void count_types(void *arg, const char *name, int64_t live)
{
	struct counts *c = arg;

	if (!strcmp(name, "apple"))
		c->apple = live;
	else if (!strcmp(name, "pear"))
		c->pear = live;
}

static void test_report(void **state)
{
	struct counts c = {-1, -1};
	struct apple a, b, p;

	(void)state;
	ref_init(&a.ref, &apple_type);
	ref_init(&b.ref, &apple_type);
	ref_init(&p.ref, &pear_type);
	ref_report(count_types, &c);
	assert_int_equal(c.apple, 2);
	assert_int_equal(c.pear, 1);
	assert_true(ref_put(&a.ref));
	ref_fini(&a.ref, &apple_type);
	assert_true(ref_put(&b.ref));
	ref_fini(&b.ref, &apple_type);
	assert_true(ref_put(&p.ref));
	ref_fini(&p.ref, &pear_type);
	ref_report(count_types, &c);
	assert_int_equal(c.apple, 0);
	assert_int_equal(c.pear, 0);
}

static void underflow(void *arg)
{
	struct apple a;
	bool last;

	(void)arg;
	ref_init(&a.ref, &apple_type);
	last = ref_put(&a.ref);
	last = ref_put(&a.ref);
	(void)last;
}

static void resurrect(void *arg)
{
	struct apple a;
	bool last;

	(void)arg;
	ref_init(&a.ref, &apple_type);
	last = ref_put(&a.ref);
	(void)last;
	ref_get(&a.ref);
}

static void test_bugs_abort(void **state)
{
	(void)state;
	assert_int_equal(check_child_signal(underflow, NULL), SIGABRT);
	assert_int_equal(check_child_signal(resurrect, NULL), SIGABRT);
}

#define ROUNDS 200000

static void *get_and_put(void *arg)
{
	struct apple *a = arg;

	for (int i = 0; i < ROUNDS; i++) {
		bool last;

		if (!ref_tryget(&a->ref))
			abort();
		ref_get(&a->ref);
		last = ref_put(&a->ref);
		last |= ref_put(&a->ref);
		if (last)
			abort();
	}
	return NULL;
}

static void test_threads(void **state)
{
	pthread_t t[2];
	struct apple a;

	(void)state;
	ref_init(&a.ref, &apple_type);
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&t[i], NULL, get_and_put, &a), 0);
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(ref_read(&a.ref), 1);
	assert_true(ref_put(&a.ref));
	ref_fini(&a.ref, &apple_type);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_last_put),
		cmocka_unit_test(test_report),
		cmocka_unit_test(test_bugs_abort),
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
