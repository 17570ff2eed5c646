/*
 * sentry/futex.h - futexes of the application, private and shared, plain and PI.
 *
 * Waiters hang in hash buckets (LOCK_FUTEX) by their key. User memory is never touched under a bucket's lock: a waiter queues
 * itself first and looks at the word afterwards; see futex.c.
 */
#ifndef MOAT_SENTRY_FUTEX_H
#define MOAT_SENTRY_FUTEX_H

#include "sentry/task.h"

#define FUTEX_WAITV_MAX_ 128
#define ROBUST_LIST_MAX 2048

enum { FUTEX_F_SHARED = 1 };

/* All return Linux's results: counts, 0, or -errno (-ERESTARTSYS_ and the like when interrupted). deadline: CLOCK_MONOTONIC. */
int64_t futex_op_wait(struct task *t, uint64_t uaddr, unsigned flags, uint32_t val, uint32_t bitset,
		      int64_t deadline);
int64_t futex_op_wake(struct task *t, uint64_t uaddr, unsigned flags, int count, uint32_t bitset);
int64_t futex_op_requeue(struct task *t, uint64_t uaddr, unsigned flags, int wake, int requeue,
			 uint64_t uaddr2, const uint32_t *cmpval);
int64_t futex_op_wake_op(struct task *t, uint64_t uaddr, unsigned flags, int wake, int wake2,
			 uint64_t uaddr2, uint32_t op);
int64_t futex_op_lock_pi(struct task *t, uint64_t uaddr, unsigned flags, int64_t deadline,
			 bool try_only);
int64_t futex_op_unlock_pi(struct task *t, uint64_t uaddr, unsigned flags);
int64_t futex_op_wait_requeue_pi(struct task *t, uint64_t uaddr, unsigned flags, uint32_t val,
				 uint32_t bitset, int64_t deadline, uint64_t uaddr2);
int64_t futex_op_cmp_requeue_pi(struct task *t, uint64_t uaddr, unsigned flags, int wake,
				int requeue, uint64_t uaddr2, uint32_t cmpval);

struct futex_waitv_k {
	uint64_t val, uaddr;
	uint32_t flags, reserved;
};
int64_t futex_op_waitv(struct task *t, const struct futex_waitv_k *v, unsigned count,
		       int64_t deadline);

#endif
