// LINK: moat_base
#include "tests/unit/check.h"

#include <pthread.h>

#include "base/lock.h"
#include "base/rcu.h"

struct thing {
	struct rcu_cb rcu;
	int a, b;
};

static struct thing *_Atomic published;
static _Atomic bool stop;
static _Atomic int freed;

static void thing_free(struct rcu_cb *cb)
{
	struct thing *t = container_of(cb, struct thing, rcu);

	t->a = -1;
	freed++;
	free(t);
}

static struct thing *thing_make(int v)
{
	struct thing *t = malloc(sizeof(*t));

	t->a = v;
	t->b = v;
	return t;
}

static void *reader(void *arg)
{
	(void)arg;
	rcu_thread_begin();
	while (!stop) {
		struct thing *t;

		rcu_read_begin();
		rcu_read_begin();
		t = rcu_load(published);
		if (t->a != t->b)
			abort();
		rcu_read_end();
		if (t->a != t->b || !rcu_read_ongoing())
			abort();
		rcu_read_end();
	}
	rcu_thread_end();
	return NULL;
}

static void test_readers(void **state)
{
	pthread_t t[2];

	(void)state;
	rcu_store(published, thing_make(0));
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&t[i], NULL, reader, NULL), 0);
	for (int i = 1; i <= 2000; i++) {
		struct thing *new = thing_make(i);
		struct thing *old = atomic_exchange(&published, new);

		if (i % 100 == 0) {
			rcu_synchronize();
			old->a = -2;
			free(old);
			freed++;
		} else {
			rcu_call(&old->rcu, thing_free);
		}
	}
	stop = true;
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	rcu_drain();
	assert_int_equal(freed, 2000);
	free(published);
}

static void test_thread_nests(void **state)
{
	(void)state;
	rcu_thread_begin();
	rcu_thread_begin();
	rcu_thread_end();
	rcu_read_begin();
	assert_true(rcu_read_ongoing());
	rcu_read_end();
	assert_false(rcu_read_ongoing());
	rcu_thread_end();
}

static void test_fork(void **state)
{
	int status;
	pid_t pid;

	(void)state;
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
	skip(); /* TSan makes no threads after a fork */
#endif
#endif
	freed = 0;
	rcu_before_fork();
	pid = fork();
	if (pid == 0) {
		struct thing *t = thing_make(1);

		rcu_after_fork_child();
		rcu_call(&t->rcu, thing_free);
		rcu_drain();
		_exit(freed == 1 ? 0 : 1);
	}
	rcu_after_fork_parent();
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_thread_nests),
		cmocka_unit_test(test_readers),
		cmocka_unit_test(test_fork),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
