/* base/lock_waits.h - which threads sleep for a lock just now: `moat debug ID locks`. */
#ifndef MOAT_BASE_LOCK_WAITS_H
#define MOAT_BASE_LOCK_WAITS_H

#include "base/compiler.h"

/* Who sleeps for a lock now, of at most LOCK_WAITS_MAX threads. */
#define LOCK_WAITS_MAX 64
struct lock_sleeper {
	const void *lock;
	const char *name; /* NULL in a release build, whose locks have none */
	const void *caller; /* where in the program it is taken */
	int64_t for_ns;
	int tid; /* the host's */
};
void lock_waits_report(void (*emit)(void *arg, const struct lock_sleeper *w), void *arg);
/* The sleeper's: around its futex calls. */
must_check int lock_wait_begin(const void *lock, const char *name, const void *caller);
void lock_wait_end(int index);

#endif
