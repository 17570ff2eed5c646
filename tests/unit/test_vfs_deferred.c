// LINK: moat_vfs
/* vfs/deferred: what threads without a task put off, and what a task does before it sleeps, is run though nobody comes by. */
#include "tests/unit/check.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/rcu.h"
#include "base/sleep.h"
#include "vfs/cred.h"
#include "vfs/vfs.h"

#define MS 1000000ll
#define LONG (30000 * MS)
#define ROUNDS 2000
#define THREADS 3

static struct sleeper *_Atomic waits_for; /* is woken by each run */
static _Atomic unsigned ran;

static void wait_for(unsigned count)
{
	struct sleeper *me = sleeper_current();
	int64_t end = time_monotonic_ns() + LONG;

	while (atomic_load(&ran) < count)
		assert_int_equal(sleeper_wait(me, SLEEP_UNINTERRUPTIBLE, end), 0);
}

static void run_once(struct deferred_work *w)
{
	free(w);
	atomic_fetch_add(&ran, 1);
	sleeper_wake(atomic_load(&waits_for));
}

static struct deferred_work *once(void)
{
	struct deferred_work *w = calloc(1, sizeof(*w));

	assert_non_null(w);
	w->run = run_once;
	return w;
}

static void *defer_main(void *arg)
{
	void (*defer)(struct deferred_work * w) = *(void (**)(struct deferred_work *))arg;

	for (unsigned i = 0; i < ROUNDS; i++)
		defer(once());
	return NULL;
}

/* Each item is run once, and freed by its run. */
static void by_threads(void (*defer)(struct deferred_work *w))
{
	pthread_t threads[THREADS];

	atomic_store(&ran, 0);
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, defer_main, &defer), 0);
	wait_for(THREADS * ROUNDS);
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_int_equal(atomic_load(&ran), THREADS * ROUNDS);
}

static void test_wakes_of_threads(unused_arg void **state)
{
	by_threads(vfs_defer_wake);
}

static void test_cleanup_of_threads(unused_arg void **state)
{
	by_threads(vfs_defer);
}

static void test_one_by_one(unused_arg void **state)
{
	atomic_store(&ran, 0);
	for (unsigned i = 1; i <= ROUNDS; i++) {
		vfs_defer_wake(once());
		wait_for(i);
	}
}

/* An item that is queued again while it runs, as SIGIO's is. */
struct again {
	struct deferred_work work;
	_Atomic bool queued;
	_Atomic unsigned events, seen;
};

static void again_run(struct deferred_work *w)
{
	struct again *a = container_of(w, struct again, work);

	atomic_store(&a->queued, false);
	atomic_fetch_add(&a->seen, atomic_exchange(&a->events, 0));
	sleeper_wake(atomic_load(&waits_for));
}

static void *again_main(void *arg)
{
	struct again *a = arg;

	for (unsigned i = 0; i < ROUNDS; i++) {
		atomic_fetch_add(&a->events, 1);
		if (atomic_exchange(&a->queued, true))
			continue;
		a->work.run = again_run;
		vfs_defer_wake(&a->work);
	}
	return NULL;
}

static void test_queued_again(unused_arg void **state)
{
	static struct again a;
	pthread_t threads[THREADS];
	int64_t end = time_monotonic_ns() + LONG;

	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, again_main, &a), 0);
	while (atomic_load(&a.seen) < THREADS * ROUNDS)
		assert_int_equal(sleeper_wait(sleeper_current(), SLEEP_UNINTERRUPTIBLE, end), 0);
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
}

/* A task: its own until it sleeps or its call ends. */
static void test_of_a_task(unused_arg void **state)
{
	struct cred *root;

	assert_int_equal(cred_create_root(&root), 0);
	cred_set_current(root);
	atomic_store(&ran, 0);
	vfs_defer_wake(once());
	assert_int_equal(atomic_load(&ran), 0);
	vfs_run_deferred();
	assert_int_equal(atomic_load(&ran), 1);
	vfs_defer_wake(once());
	vfs_defer_wake(once());
	wait_for(3);
	/* Clean-up is the task's own. */
	vfs_defer(once());
	for (unsigned i = 0; i < 3; i++)
		(void)!sleeper_wait(sleeper_current(), SLEEP_UNINTERRUPTIBLE,
				    time_monotonic_ns() + 5 * MS);
	assert_int_equal(atomic_load(&ran), 3);
	vfs_run_deferred();
	assert_int_equal(atomic_load(&ran), 4);
	cred_set_current(NULL);
	cred_unref(root);
}

static int start(unused_arg void **state)
{
	rcu_thread_begin();
	atomic_store(&waits_for, sleeper_current());
	vfs_workers_allow();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_wakes_of_threads),   cmocka_unit_test(test_one_by_one),
		cmocka_unit_test(test_cleanup_of_threads), cmocka_unit_test(test_queued_again),
		cmocka_unit_test(test_of_a_task),
	};

	return cmocka_run_group_tests(tests, start, NULL);
}
