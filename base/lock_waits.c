/*
 * base/lock_waits.c - who sleeps for a lock just now: `moat debug ID locks`.
 *
 * A sleeper takes an entry of a small table, so an uncontended lock pays nothing. Readers look without a lock: an entry that is given back
 * meanwhile may show two sleepers' fields, which is as good as either. Beyond LOCK_WAITS_MAX at once a sleeper is not shown.
 */
#include <sys/syscall.h>
#include <unistd.h>

#include "base/lock_waits.h"
#include "base/sleep.h"

struct lock_wait_entry {
	_Atomic int tid; /* 0: free */
	_Atomic(const void *) lock; /* NULL until the rest is filled in */
	_Atomic(const char *) name;
	_Atomic(const void *) caller;
	_Atomic int64_t since_ns;
};

static struct lock_wait_entry waits[LOCK_WAITS_MAX];

int lock_wait_begin(const void *lock, const char *name, const void *caller)
{
	int tid = (int)syscall(SYS_gettid);

	for (int i = 0; i < LOCK_WAITS_MAX; i++) {
		struct lock_wait_entry *e = &waits[i];
		int free_tid = 0;

		if (atomic_load_explicit(&e->tid, memory_order_relaxed) ||
		    !atomic_compare_exchange_strong(&e->tid, &free_tid, tid))
			continue;
		atomic_store_explicit(&e->name, name, memory_order_relaxed);
		atomic_store_explicit(&e->caller, caller, memory_order_relaxed);
		atomic_store_explicit(&e->since_ns, time_monotonic_ns(), memory_order_relaxed);
		atomic_store_explicit(&e->lock, lock, memory_order_release);
		return i;
	}
	return -1;
}

void lock_wait_end(int index)
{
	if (index < 0)
		return;
	atomic_store_explicit(&waits[index].lock, NULL, memory_order_relaxed);
	atomic_store_explicit(&waits[index].tid, 0, memory_order_release);
}

void lock_waits_report(void (*emit)(void *arg, const struct lock_sleeper *w), void *arg)
{
	int64_t now = time_monotonic_ns();

	for (int i = 0; i < LOCK_WAITS_MAX; i++) {
		struct lock_wait_entry *e = &waits[i];
		struct lock_sleeper w = {
			.lock = atomic_load_explicit(&e->lock, memory_order_acquire),
			.name = atomic_load_explicit(&e->name, memory_order_relaxed),
			.caller = atomic_load_explicit(&e->caller, memory_order_relaxed),
			.for_ns = now - atomic_load_explicit(&e->since_ns, memory_order_relaxed),
			.tid = atomic_load_explicit(&e->tid, memory_order_relaxed),
		};

		if (w.lock && w.tid)
			emit(arg, &w);
	}
}
