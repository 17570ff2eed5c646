/*
 * vfs/deferred.c - work that must wait until its thread holds no lock.
 *
 * There are two kinds. *Clean-up* (a file's release, the end of a mapping) may sleep, over a file server's reply for instance. A
 * *wake-up* (SIGIO, an event of io_getevents(2)) is what somebody sleeps for: it never sleeps, and leaves its own last
 * references behind as clean-up.
 *
 * A task's thread runs what it queued itself before it returns to the application: a file closed by it is closed, and a signal
 * that it caused is pending, when its system call ends. But a call may sleep first, perhaps for the very program that the wake-up
 * is for; so a thread that is about to sleep hands its wake-ups over (sleeper_on_block()).
 *
 * What is handed over, and what comes from threads without a task and from RCU callbacks, is on one list of each kind. A
 * worker for the list is made when something first comes to it, and is woken from then on; tasks that come by take from
 * both lists as well. Most sandboxes never make the workers. The two are apart because a server that does not answer may keep the
 * clean-up's for long. That one lets a moment pass first: threads that end a container's life run what they left themselves,
 * and then rely on it. Without vfs_workers_allow() (unit tests), or when no thread is to be had, tasks are all there is.
 *
 * No item is looked at once its run() has begun: it may be queued again, or freed, meanwhile.
 */
#include <pthread.h>
#include <signal.h>
#include <string.h>

#include "base/futex.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/rcu.h"
#include "base/sleep.h"
#include "vfs/vfs_internal.h"

enum worker_state { WORKER_BARRED, WORKER_WANTED, WORKER_MADE };

struct worker {
	struct deferred_work *_Atomic list; /* the newest first */
	_Atomic uint32_t poked; /* the futex word */
	int64_t delay_ns; /* immutable: for others to come by */
	_Atomic uint32_t state; /* enum worker_state */
	const char *name;
};

/* Of one thread, the oldest first. */
struct own_list {
	struct deferred_work *first, *last;
};

static struct worker cleanup = {.name = "moat-cleanup", .delay_ns = 100000000};
static struct worker wakeup = {.name = "moat-wakeup"};
static _Thread_local struct own_list own_cleanup, own_wakeup;

/* ---- lists ---- */

static void own_push(struct own_list *own, struct deferred_work *w)
{
	w->next = NULL;
	if (own->last)
		own->last->next = w;
	else
		own->first = w;
	own->last = w;
}

static struct deferred_work *own_pop(struct own_list *own)
{
	struct deferred_work *w = own->first;

	if (w) {
		own->first = w->next;
		if (!own->first)
			own->last = NULL;
	}
	return w;
}

static void list_push(struct worker *wk, struct deferred_work *w)
{
	struct deferred_work *head = atomic_load_explicit(&wk->list, memory_order_relaxed);

	do
		w->next = head;
	while (!atomic_compare_exchange_weak_explicit(&wk->list, &head, w, memory_order_release,
						      memory_order_relaxed));
}

/* Runs what is on the list, the oldest first. Return: there was something. */
static bool list_run(struct worker *wk)
{
	struct deferred_work *w, *next, *oldest = NULL;

	if (likely(!atomic_load_explicit(&wk->list, memory_order_relaxed)))
		return false;
	w = atomic_exchange_explicit(&wk->list, NULL, memory_order_acquire);
	for (; w; w = next) {
		next = w->next;
		w->next = oldest;
		oldest = w;
	}
	if (!oldest)
		return false;
	for (w = oldest; w; w = next) {
		next = w->next;
		w->run(w);
	}
	return true;
}

/* ---- workers ---- */

static void worker_delay(struct worker *wk)
{
	int64_t until = time_monotonic_ns() + wk->delay_ns;
	struct timespec ts = {.tv_sec = until / 1000000000, .tv_nsec = until % 1000000000};

	while (time_monotonic_ns() < until)
		(void)futex_wait(&wk->poked, 1, &ts);
}

static void *worker_main(void *arg)
{
	struct worker *wk = arg;

	pthread_setname_np(pthread_self(), wk->name);
	rcu_thread_begin();
	for (;;) {
		while (!atomic_load(&wk->poked))
			(void)futex_wait(&wk->poked, 0, NULL);
		if (wk->delay_ns)
			worker_delay(wk);
		/* Before the list is looked at: who pushes after that pokes after this. */
		atomic_exchange(&wk->poked, 0);
		while (list_run(wk))
			;
	}
	return NULL;
}

/* Locks may be held. On failure what is listed waits for the next who comes by. */
static noinline_fn void worker_make(struct worker *wk)
{
	uint32_t state = WORKER_WANTED;
	pthread_attr_t attr;
	pthread_t thread;
	sigset_t all;
	int err;

	if (!atomic_compare_exchange_strong(&wk->state, &state, WORKER_MADE))
		return;
	sigfillset(&all);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	err = pthread_attr_setsigmask_np(&attr, &all);
	if (!err)
		err = pthread_create(&thread, &attr, worker_main, wk);
	pthread_attr_destroy(&attr);
	if (err) {
		log_warn("no thread for deferred work: %s; it waits for a system call",
			 strerror(err));
		atomic_store(&wk->state, WORKER_WANTED);
	}
}

static void worker_poke(struct worker *wk)
{
	if (unlikely(atomic_load(&wk->state) != WORKER_MADE))
		worker_make(wk);
	if (!atomic_exchange(&wk->poked, 1))
		futex_wake(&wk->poked, 1);
}

/* The calling thread is about to sleep, and holds no lock. */
static void hand_over(void)
{
	struct deferred_work *w;

	if (likely(!own_wakeup.first))
		return;
	while ((w = own_pop(&own_wakeup)))
		list_push(&wakeup, w);
	worker_poke(&wakeup);
}

void vfs_workers_allow(void)
{
	atomic_store(&cleanup.state, WORKER_WANTED);
	atomic_store(&wakeup.state, WORKER_WANTED);
	sleeper_on_block(SLEEPER_BLOCK_DEFERRED, hand_over);
}

/* ---- the interface ---- */

void vfs_defer_global(struct deferred_work *w)
{
	list_push(&cleanup, w);
	worker_poke(&cleanup);
}

void vfs_defer(struct deferred_work *w)
{
	if (cred_current())
		own_push(&own_cleanup, w);
	else
		vfs_defer_global(w);
}

void vfs_defer_wake(struct deferred_work *w)
{
	if (cred_current()) {
		own_push(&own_wakeup, w);
		return;
	}
	list_push(&wakeup, w);
	worker_poke(&wakeup);
}

void vfs_run_deferred(void)
{
	rcu_run_ready();
	do {
		struct deferred_work *w;

		while ((w = own_pop(&own_wakeup)) || (w = own_pop(&own_cleanup)))
			w->run(w);
	} while (list_run(&wakeup) || list_run(&cleanup));
}
