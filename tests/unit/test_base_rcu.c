// LINK: moat_base
#include "tests/unit/check.h"

#include <pthread.h>
#include <unistd.h>

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

#define LOCAL_THREADS 4
#define LOCAL_CALLS 20000 /* a thread; many rounds of the reclaimer's */

static _Atomic int local_freed, local_early;
static struct thing *_Atomic local_published[LOCAL_THREADS];

static void local_free(struct rcu_cb *cb)
{
	local_freed++;
	free(container_of(cb, struct thing, rcu));
}

/* Replaces what the others look at; every other thread has safe points. */
static void *local_caller(void *arg)
{
	long me = (long)arg;

	rcu_thread_begin();
	for (int i = 1; i <= LOCAL_CALLS; i++) {
		struct thing *old = atomic_exchange(&local_published[me], thing_make(i)), *t;

		if (old)
			rcu_call_local(&old->rcu, local_free);
		rcu_read_begin();
		t = rcu_load(local_published[(me + 1) % LOCAL_THREADS]);
		if (t && t->a != t->b)
			local_early++;
		rcu_read_end();
		if (me % 2)
			rcu_run_ready();
	}
	rcu_thread_end();
	return NULL;
}

static void test_local(void **state)
{
	pthread_t t[LOCAL_THREADS];

	(void)state;
	for (long i = 0; i < LOCAL_THREADS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, local_caller, (void *)i), 0);
	for (int i = 0; i < LOCAL_THREADS; i++)
		pthread_join(t[i], NULL);
	rcu_drain();
	assert_int_equal(local_freed, LOCAL_THREADS * (LOCAL_CALLS - 1));
	assert_int_equal(local_early, 0);
	/* Without anybody's safe point or drain it comes, too. */
	for (int i = 0; i < LOCAL_THREADS; i++)
		rcu_call_local(&local_published[i]->rcu, local_free);
	for (int i = 0; i < 6000 && local_freed < LOCAL_THREADS * LOCAL_CALLS; i++)
		usleep(10000);
	assert_int_equal(local_freed, LOCAL_THREADS * LOCAL_CALLS);
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
		rcu_call_local(&thing_make(2)->rcu, thing_free);
		rcu_drain();
		_exit(freed == 2 ? 0 : 1);
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
		cmocka_unit_test(test_local),
		cmocka_unit_test(test_fork),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
