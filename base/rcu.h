/*
 * base/rcu.h - RCU by liburcu's memb flavour, with TSan annotations.
 *
 * Every thread that reads registers once (rcu_thread_begin/end). Read sections nest, never sleep,
 * and are not held across user memory faults that need an RPC. rcu_call() frees after a
 * grace period; callbacks run on liburcu's thread, take only leaf locks and do not sleep.
 */
#ifndef MOAT_BASE_RCU_H
#define MOAT_BASE_RCU_H

#include "base/compiler.h"

/*
 * liburcu is not instrumented, so TSan must be told that the end of a read section happens before
 * the callbacks and the returns of rcu_synchronize() that waited for it.
 */
#if defined(__SANITIZE_THREAD__)
#define RCU_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define RCU_TSAN 1
#endif
#endif

#ifndef RCU_TSAN
/* For the read side's inline functions, each under the ten lines of LGPL 2.1's section 5. */
#define _LGPL_SOURCE
#include <urcu/urcu-memb.h>
#undef _LGPL_SOURCE
#endif

struct rcu_cb {
	void *opaque[2]; /* struct rcu_head; base/rcu.c asserts the size */
};

void rcu_thread_begin(void);
void rcu_thread_end(void);
#ifdef RCU_TSAN
void rcu_read_begin(void);
void rcu_read_end(void);
#else
/* A walk's constant part is counted in nanoseconds: no calls. The other CPUs' barrier is membarrier(2); without that a section costs two fences. */
static inline void rcu_read_begin(void)
{
	_urcu_memb_read_lock();
}
static inline void rcu_read_end(void)
{
	_urcu_memb_read_unlock();
}
#endif
/* Runs fn(cb) after every reader that could see the object is gone. Never blocks. */
void rcu_call(struct rcu_cb *cb, void (*fn)(struct rcu_cb *cb));
/*
 * The same for what is made and freed often, without a line that threads share: fn frees the object that cb is in, and its memory only: it runs on
 * any thread, beside others and in no order, takes only LOCK_LEAF locks, and does not sleep.
 */
void rcu_call_local(struct rcu_cb *cb, void (*fn)(struct rcu_cb *cb));
/* Makes the thread that rcu_call_local() needs, which is made at the first of them otherwise: while there is room for it. */
void rcu_prepare(void);
/* A safe point of a thread that may use rcu_call_local(): runs what is ready. Locks: none of LOCK_LEAF or above. */
void rcu_run_ready(void);
/* Waits for a grace period. The caller is in no read section. */
void rcu_synchronize(void);
/* Waits until every rcu_call() and rcu_call_local() made so far has run (tests, exit). */
void rcu_drain(void);
bool rcu_read_ongoing(void);
/* Around a host fork() whose child goes on using RCU: before in the parent, then one of the others. */
void rcu_before_fork(void);
void rcu_after_fork_parent(void);
void rcu_after_fork_child(void);

#define rcu_load(p) atomic_load_explicit(&(p), memory_order_acquire)
#define rcu_store(p, v) atomic_store_explicit(&(p), (v), memory_order_release)

#endif
