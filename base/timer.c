/*
 * base/timer.c - the timer thread.
 *
 * A red-black tree ordered by (deadline, arming order) under one lock; the thread sleeps on a futex word until the
 * first deadline or until an earlier one is armed. Callbacks run outside the lock, one at a time.
 */
#include <pthread.h>
#include <signal.h>

#include "base/lock.h"
#include "base/rcu.h"
#include "base/sleep.h"
#include "base/timer.h"

static struct mutex timer_lock = MUTEX_INIT(LOCK_TIMER, "timer");
static struct sleeper timer_sleeper;
static struct ktimer *timer_running; /* guarded by timer_lock */
static uint64_t timer_seq; /* guarded by timer_lock */
static pthread_t timer_thread;
static _Atomic bool timer_started;
static _Thread_local bool on_timer_thread;

static int timer_compare(struct ktimer *a, struct ktimer *b)
{
	if (a->deadline_ns != b->deadline_ns)
		return a->deadline_ns < b->deadline_ns ? -1 : 1;
	return (a->seq > b->seq) - (a->seq < b->seq);
}

static RB_HEAD(timer_tree, ktimer) timers = RB_INITIALIZER(&timers); /* guarded by timer_lock */

RB_GENERATE_LOCAL(timer_tree, ktimer, node, timer_compare)

/* Runs every timer that is due; returns the next deadline. */
static int64_t timer_run_due(void)
{
	struct ktimer *t;

	mutex_lock(&timer_lock);
	while ((t = RB_MIN(timer_tree, &timers)) != NULL) {
		if (t->deadline_ns > time_monotonic_ns())
			break;
		RB_REMOVE(timer_tree, &timers, t);
		t->armed = false;
		timer_running = t;
		mutex_unlock(&timer_lock);
		t->fn(t);
		mutex_lock(&timer_lock);
		/* The callback may have freed its object: t is not touched again. */
		timer_running = NULL;
	}
	int64_t next = t ? t->deadline_ns : TIME_FOREVER;

	mutex_unlock(&timer_lock);
	return next;
}

static void *timer_main(unused_arg void *arg)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	pthread_setname_np(pthread_self(), "moat-timer");
	rcu_thread_begin();
	sleeper_set_current(&timer_sleeper);
	on_timer_thread = true;
	for (;;) {
		int64_t next = timer_run_due();

		/* Only the deadline or an earlier timer ends the sleep. */
		(void)!sleeper_wait(&timer_sleeper, SLEEP_UNINTERRUPTIBLE, next);
	}
	return NULL;
}

int timer_thread_start(void)
{
	if (atomic_exchange(&timer_started, true))
		return 0;
	sleeper_init(&timer_sleeper);
	sleeper_set_what(&timer_sleeper, "next timer");
	return -pthread_create(&timer_thread, NULL, timer_main, NULL);
}

void ktimer_init(struct ktimer *t, void (*fn)(struct ktimer *t))
{
	*t = (struct ktimer){.fn = fn};
}

void ktimer_arm(struct ktimer *t, int64_t deadline_ns)
{
	bool first;

	mutex_lock(&timer_lock);
	if (t->armed)
		RB_REMOVE(timer_tree, &timers, t);
	t->deadline_ns = deadline_ns;
	t->seq = ++timer_seq;
	t->armed = true;
	RB_INSERT(timer_tree, &timers, t);
	first = RB_MIN(timer_tree, &timers) == t;
	mutex_unlock(&timer_lock);
	if (first && !on_timer_thread)
		sleeper_wake(&timer_sleeper);
}

static bool timer_disarm_locked(struct ktimer *t)
{
	if (!t->armed)
		return false;
	RB_REMOVE(timer_tree, &timers, t);
	t->armed = false;
	return true;
}

bool ktimer_cancel(struct ktimer *t)
{
	bool was_armed;

	mutex_lock(&timer_lock);
	was_armed = timer_disarm_locked(t);
	mutex_unlock(&timer_lock);
	return was_armed;
}

void ktimer_cancel_sync(struct ktimer *t)
{
	mutex_lock(&timer_lock);
	timer_disarm_locked(t);
	if (on_timer_thread && timer_running == t)
		timer_running = NULL; /* from its own callback: the object may go */
	while (timer_running == t) {
		mutex_unlock(&timer_lock);
		struct timespec pause = {.tv_nsec = 20000};
		nanosleep(&pause, NULL); /* rare: the callback is short */
		mutex_lock(&timer_lock);
		timer_disarm_locked(t);
	}
	mutex_unlock(&timer_lock);
}
