/*
 * base/timer.h - deadlines: one thread, one ordered tree, callbacks.
 *
 * A timer belongs to its embedding object. The callback runs on the timer thread with no lock held;
 * it takes ranks above LOCK_TIMER only if it must lock at all, and does not sleep; it may re-arm its own timer.
 * Deadlines are host CLOCK_MONOTONIC ns.
 */
#ifndef MOAT_BASE_TIMER_H
#define MOAT_BASE_TIMER_H

#include "base/compiler.h"
#include "base/tree.h"

struct ktimer {
	RB_ENTRY(ktimer) node; /* guarded by the timer lock */
	int64_t deadline_ns; /* guarded by the timer lock */
	uint64_t seq; /* breaks ties */
	bool armed; /* guarded by the timer lock */
	void (*fn)(struct ktimer *t); /* immutable */
};

must_check int timer_thread_start(void); /* before confinement */
void ktimer_init(struct ktimer *t, void (*fn)(struct ktimer *t));
/* (Re)arms; a past deadline fires at once. */
void ktimer_arm(struct ktimer *t, int64_t deadline_ns);
/* Disarms. True if it was armed. Does not wait for a running callback. */
bool ktimer_cancel(struct ktimer *t);
/* Disarms and waits until the callback is not running (not from the callback itself). Before freeing. */
void ktimer_cancel_sync(struct ktimer *t);

#endif
