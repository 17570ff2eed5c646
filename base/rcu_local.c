/*
 * base/rcu_local.c - RCU callbacks of objects that are made and freed often.
 *
 * liburcu has one queue of callbacks for all threads and looks at it every ten milliseconds. Threads that free at the same time share that
 * queue's line, and an object is reused so late that it has left the caches. So there is a second way, for what only frees memory:
 *
 * - rcu_call_local() puts the callback on a list of the thread's shard (base/shard.h).
 * - The reclaimer, a thread, takes all lists, waits for a grace period, and leaves them as `ready` where they came from. It does so
 *   RCU_PERIOD_NS after the first callback, or at once when a shard has RCU_MANY of them.
 * - A thread that passes a safe point (rcu_run_ready(), at the end of a system call) runs what is ready in its shard, RCU_READY_RUN_MAX at a
 *   time: on its own core, and what it frees is what it takes next. What nobody ran until the next round the reclaimer runs.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>

#include "base/futex.h"
#include "base/log.h"
#include "base/rcu_local.h"
#include "base/shard.h"
#include "base/sleep.h"

#define RCU_PERIOD_NS 10000000l
#define RCU_MANY 2048u /* callbacks of a shard that are worth a grace period at once */
#define RCU_READY_RUN_MAX 64u /* callbacks a safe point runs */

/* What struct rcu_cb is while it waits. */
struct waiting {
	struct waiting *next;
	void (*fn)(struct rcu_cb *cb);
};

_Static_assert(sizeof(struct waiting) == sizeof(struct rcu_cb), "a callback's two words");

struct rcu_shard {
	_Alignas(SHARD_LINE) struct waiting *_Atomic called; /* the last first */
	_Atomic unsigned ncalled; /* about; an update may be lost between threads of a shard */
	_Alignas(SHARD_LINE) struct waiting *_Atomic ready; /* the first first */
	_Atomic unsigned running; /* threads that have taken from ready */
};

static struct rcu_shard rcu_shards[SHARDS];

/* The reclaimer. */
enum { RECLAIMER_IDLE, RECLAIMER_SOON, RECLAIMER_NOW };
static _Atomic uint32_t reclaimer_wanted; /* futex word; an enum above */
static _Atomic uint32_t rounds_begun, rounds_done; /* the second is a futex word */
static _Atomic bool reclaimer_made;
/* Order: reclaimer_lock, round_lock; within a round the callbacks' LOCK_LEAF. pthread's own, for fork() takes them. */
static pthread_mutex_t reclaimer_lock = PTHREAD_MUTEX_INITIALIZER; /* its making */
static pthread_mutex_t round_lock =
	PTHREAD_MUTEX_INITIALIZER; /* held in a round, and around fork() */

/* ---- callbacks ---- */

/* Runs at most max of list. Return: the rest. */
static struct waiting *run_some(struct waiting *list, unsigned max)
{
	for (; list && max; max--) {
		struct waiting *next = list->next;

		list->fn((struct rcu_cb *)list);
		list = next;
	}
	return list;
}

static void run_all(struct waiting *list)
{
	while (list)
		list = run_some(list, RCU_READY_RUN_MAX);
}

static struct waiting *reverse(struct waiting *list)
{
	struct waiting *first = NULL;

	while (list) {
		struct waiting *next = list->next;

		list->next = first;
		first = list;
		list = next;
	}
	return first;
}

static noinline_fn void run_ready(struct rcu_shard *s, unsigned max)
{
	struct waiting *rest, *none = NULL;

	/* seq_cst: who finds nothing ready sees that we run it (rcu_local_drain()). */
	atomic_fetch_add_explicit(&s->running, 1, memory_order_seq_cst);
	rest = run_some(atomic_exchange_explicit(&s->ready, NULL, memory_order_seq_cst), max);
	/* More became ready meanwhile: no place to put it back. */
	if (rest && !atomic_compare_exchange_strong_explicit(
			    &s->ready, &none, rest, memory_order_seq_cst, memory_order_relaxed))
		run_all(rest);
	atomic_fetch_sub_explicit(&s->running, 1, memory_order_seq_cst);
}

void rcu_run_ready(void)
{
	struct rcu_shard *s = &rcu_shards[shard_mine()];

	if (unlikely(atomic_load_explicit(&s->ready, memory_order_relaxed)))
		run_ready(s, RCU_READY_RUN_MAX);
}

/* ---- the reclaimer ---- */

/* One grace period for all that was called. Return: is something left to do? */
static bool reclaim_round(void)
{
	static struct waiting *taken[SHARDS];
	bool any = false, more = false;

	pthread_mutex_lock(&round_lock);
	atomic_fetch_add_explicit(&rounds_begun, 1, memory_order_seq_cst);
	for (unsigned i = 0; i < SHARDS; i++) {
		struct rcu_shard *s = &rcu_shards[i];

		taken[i] = NULL;
		if (!atomic_load_explicit(&s->called, memory_order_seq_cst))
			continue;
		atomic_store_explicit(&s->ncalled, 0, memory_order_relaxed);
		taken[i] = atomic_exchange_explicit(&s->called, NULL, memory_order_seq_cst);
		any = true;
	}
	if (any)
		rcu_synchronize();
	for (unsigned i = 0; i < SHARDS; i++) {
		/* What has been ready since the last round, nobody came for. */
		run_all(atomic_exchange_explicit(&rcu_shards[i].ready, NULL, memory_order_acq_rel));
		if (!taken[i])
			continue;
		/* The reclaimer alone puts whole lists here; a thread's rest may have come. */
		run_all(atomic_exchange_explicit(&rcu_shards[i].ready, reverse(taken[i]),
						 memory_order_seq_cst));
		more = true;
	}
	pthread_mutex_unlock(&round_lock);
	atomic_fetch_add_explicit(&rounds_done, 1, memory_order_seq_cst);
	futex_wake(&rounds_done, INT32_MAX);
	return more;
}

/* Sleeps until something is called, then until it is time. */
static void reclaimer_wait(bool more)
{
	struct timespec until;
	int64_t ns;

	while (!more &&
	       atomic_load_explicit(&reclaimer_wanted, memory_order_seq_cst) == RECLAIMER_IDLE)
		(void)futex_wait(&reclaimer_wanted, RECLAIMER_IDLE, NULL);
	ns = time_monotonic_ns() + RCU_PERIOD_NS;
	until = (struct timespec){.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
	for (;;) {
		uint32_t wanted = atomic_load_explicit(&reclaimer_wanted, memory_order_seq_cst);

		if (wanted == RECLAIMER_NOW ||
		    futex_wait(&reclaimer_wanted, wanted, &until) == -ETIMEDOUT)
			break;
	}
	atomic_store_explicit(&reclaimer_wanted, RECLAIMER_IDLE, memory_order_seq_cst);
}

static void *reclaimer_main(void *arg unused_arg)
{
	bool more = false;

	/* Not registered: it reads nothing, and after a fork() a new thread may have its stack. */
	for (;;) {
		reclaimer_wait(more);
		more = reclaim_round();
	}
	return NULL;
}

static noinline_fn void reclaimer_make(void)
{
	sigset_t all, old;
	pthread_attr_t attr;
	pthread_t thread;
	int err = 0;

	pthread_mutex_lock(&reclaimer_lock);
	if (!atomic_load_explicit(&reclaimer_made, memory_order_relaxed)) {
		sigfillset(&all);
		pthread_sigmask(SIG_BLOCK, &all, &old);
		pthread_attr_init(&attr);
		pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
		err = pthread_create(&thread, &attr, reclaimer_main, NULL);
		pthread_attr_destroy(&attr);
		pthread_sigmask(SIG_SETMASK, &old, NULL);
		if (err)
			log_fatal("rcu: cannot make the reclaimer's thread: error %d", err);
		atomic_store_explicit(&reclaimer_made, true, memory_order_release);
	}
	pthread_mutex_unlock(&reclaimer_lock);
}

static noinline_fn void reclaimer_want(uint32_t how)
{
	uint32_t old = atomic_load_explicit(&reclaimer_wanted, memory_order_seq_cst);

	if (unlikely(!atomic_load_explicit(&reclaimer_made, memory_order_acquire)))
		reclaimer_make();
	while (old < how)
		if (atomic_compare_exchange_weak_explicit(&reclaimer_wanted, &old, how,
							  memory_order_seq_cst,
							  memory_order_seq_cst)) {
			futex_wake(&reclaimer_wanted, 1);
			return;
		}
}

void rcu_prepare(void)
{
	if (!atomic_load_explicit(&reclaimer_made, memory_order_acquire))
		reclaimer_make();
}

void rcu_call_local(struct rcu_cb *cb, void (*fn)(struct rcu_cb *cb))
{
	struct rcu_shard *s = &rcu_shards[shard_mine()];
	struct waiting *w = (struct waiting *)cb, *old;
	unsigned n = atomic_load_explicit(&s->ncalled, memory_order_relaxed) + 1;

	w->fn = fn;
	old = atomic_load_explicit(&s->called, memory_order_relaxed);
	do
		w->next = old;
	while (!atomic_compare_exchange_weak_explicit(&s->called, &old, w, memory_order_seq_cst,
						      memory_order_relaxed));
	atomic_store_explicit(&s->ncalled, n, memory_order_relaxed);
	if (unlikely(!old))
		reclaimer_want(RECLAIMER_SOON);
	else if (unlikely(n == RCU_MANY))
		reclaimer_want(RECLAIMER_NOW);
}

void rcu_local_drain(void)
{
	uint32_t begun = atomic_load_explicit(&rounds_begun, memory_order_seq_cst), done;

	if (!atomic_load_explicit(&reclaimer_made, memory_order_acquire))
		return;

	/* The round that is on, and one more, which begins after this: it takes what was called. */
	for (;;) {
		done = atomic_load_explicit(&rounds_done, memory_order_seq_cst);
		if ((int32_t)(done - (begun + 1)) >= 0)
			break;
		reclaimer_want(RECLAIMER_NOW);
		(void)futex_wait(&rounds_done, done, NULL);
	}
	/* Against the reclaimer's next round, which takes what is ready without being seen to run it. */
	pthread_mutex_lock(&round_lock);
	for (unsigned i = 0; i < SHARDS; i++) {
		run_ready(&rcu_shards[i], UINT32_MAX);
		while (atomic_load_explicit(&rcu_shards[i].running, memory_order_seq_cst))
			sched_yield();
	}
	pthread_mutex_unlock(&round_lock);
}

/* ---- fork ---- */

void rcu_local_before_fork(void)
{
	pthread_mutex_lock(&reclaimer_lock);
	pthread_mutex_lock(&round_lock);
}

void rcu_local_after_fork_parent(void)
{
	pthread_mutex_unlock(&round_lock);
	pthread_mutex_unlock(&reclaimer_lock);
}

void rcu_local_after_fork_child(void)
{
	/* The reclaimer stayed behind, between two rounds. */
	atomic_store_explicit(&reclaimer_made, false, memory_order_relaxed);
	atomic_store_explicit(&reclaimer_wanted, RECLAIMER_IDLE, memory_order_relaxed);
	rcu_local_after_fork_parent();
	/* Threads that ran something stayed behind as well, with what they had taken. */
	for (unsigned i = 0; i < SHARDS; i++)
		atomic_store_explicit(&rcu_shards[i].running, 0, memory_order_relaxed);
	for (unsigned i = 0; i < SHARDS; i++)
		if (atomic_load_explicit(&rcu_shards[i].called, memory_order_relaxed)) {
			reclaimer_want(RECLAIMER_SOON);
			break;
		}
}
