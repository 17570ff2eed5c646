/* sentry/futex_internal.h - between futex.c and futex_pi.c. */
#ifndef MOAT_SENTRY_FUTEX_INTERNAL_H
#define MOAT_SENTRY_FUTEX_INTERNAL_H

#include "sentry/futex.h"
#include "sentry/task_internal.h"

#define FUTEX_WAITERS_ 0x80000000u
#define FUTEX_OWNER_DIED_ 0x40000000u
#define FUTEX_TID_MASK_ 0x3fffffffu
#define FUTEX_BITSET_ANY 0xffffffffu

struct futex_bucket {
	struct mutex lock; /* LOCK_FUTEX */
	uint32_t seq; /* guarded by lock: counts enqueues */
	TAILQ_HEAD(, futex_waiter) waiters; /* guarded by lock; arrival order */
};

/* Lives on the waiting task's stack. Guarded by the lock of `bucket` unless said. */
struct futex_waiter {
	TAILQ_ENTRY(futex_waiter) link;
	struct futex_bucket
		*_Atomic bucket; /* NULL: on none: woken. Changes under both buckets' locks */
	struct futex_key key; /* requeue replaces it */
	uint32_t bitset;
	uint32_t woken_bitset; /* the waker's: to pass the wake on */
	struct task *task; /* immutable */
	/* PI */
	bool pi; /* waits for ownership of key */
	bool granting; /* the owner is writing our tid into the word: stay until it is done */
	bool granted; /* became the owner */
	int32_t dead_owner; /* the owner of this tid died without unlocking: the word may be taken over */
	struct task *pi_owner; /* a reference: counted in its pi_waiters */
	/* WAIT_REQUEUE_PI: where it may be requeued to */
	bool requeue_pi;
	const struct futex_key *requeue_key; /* immutable */
	bool requeued; /* woken to take the PI lock itself */
};

struct futex_bucket *futex_bucket_of(const struct futex_key *key);
bool futex_key_equal(const struct futex_key *a, const struct futex_key *b);
void futex_key_copy(struct futex_key *dst, const struct futex_key *src);
void futex_enqueue(struct futex_waiter *w);
/* Off its queue. True if it still was on one (nobody woke it). */
bool futex_dequeue(struct futex_waiter *w);
/* Off the queue and awake; the bucket's lock held. */
void futex_wake_locked(struct futex_waiter *w);
/* Sleeps until off the queue, interrupted or late: 0, -EINTR, -ETIMEDOUT. */
int futex_sleep(struct task *t, struct futex_waiter *w, int64_t deadline);
struct futex_bucket *futex_lock_waiter(struct futex_waiter *w);
/* The owner ends: its PI waiters must not wait for ever. */
void futex_pi_owner_exit(struct task *t);
void futex_for_each_bucket(void (*fn)(struct futex_bucket *b, struct task *t), struct task *t);
int futex_get_key(struct task *t, uint64_t uaddr, bool shared, bool write, struct futex_key *ret);

#endif
