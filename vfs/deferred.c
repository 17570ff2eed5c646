/*
 * vfs/deferred.c - work that must wait until its thread holds no lock.
 *
 * A task's thread runs what it queued itself before it returns to the application: a file closed by it is closed when
 * its system call ends. Threads without a task, and RCU callbacks, put work on one global list, which whoever comes
 * first runs.
 */
#include "base/lock.h"
#include "base/rcu.h"
#include "vfs/vfs_internal.h"

static _Thread_local struct deferred_work *deferred_own, *deferred_own_last;
static struct deferred_work *_Atomic deferred_all;

void vfs_defer_global(struct deferred_work *w)
{
	struct deferred_work *head = atomic_load_explicit(&deferred_all, memory_order_relaxed);

	do
		w->next = head;
	while (!atomic_compare_exchange_weak_explicit(&deferred_all, &head, w, memory_order_release,
						      memory_order_relaxed));
}

void vfs_defer(struct deferred_work *w)
{
	if (!cred_current()) {
		vfs_defer_global(w);
		return;
	}
	w->next = NULL;
	if (deferred_own_last)
		deferred_own_last->next = w;
	else
		deferred_own = w;
	deferred_own_last = w;
}

void vfs_run_deferred(void)
{
	rcu_run_ready();
	for (;;) {
		struct deferred_work *w = deferred_own;

		if (w) {
			deferred_own = w->next;
			if (!deferred_own)
				deferred_own_last = NULL;
			w->run(w);
			continue;
		}
		if (likely(!atomic_load_explicit(&deferred_all, memory_order_relaxed)))
			return;
		w = atomic_exchange_explicit(&deferred_all, NULL, memory_order_acquire);
		while (w) {
			struct deferred_work *next = w->next;

			w->run(w);
			w = next;
		}
	}
}
