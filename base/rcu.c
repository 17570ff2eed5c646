#include <stdlib.h>

#include "base/log.h"
#include "base/rcu_local.h"

#ifdef RCU_TSAN
#include <urcu/urcu-memb.h>
#endif

_Static_assert(sizeof(struct rcu_cb) == sizeof(struct rcu_head), "struct rcu_cb holds a rcu_head");

#ifdef RCU_TSAN
void __tsan_acquire(void *addr);
void __tsan_release(void *addr);
const char *__tsan_default_suppressions(void);
static char rcu_tsan_readers;

/* liburcu's own queues and barriers are atomics that TSan cannot see. */
const char *__tsan_default_suppressions(void)
{
	return "called_from_lib:liburcu-memb.so\n";
}

#define rcu_tsan_acquire(p) __tsan_acquire(p)
#define rcu_tsan_release(p) __tsan_release(p)
#else
#define rcu_tsan_acquire(p) ((void)0)
#define rcu_tsan_release(p) ((void)0)
#endif

static _Thread_local int rcu_registered;

void rcu_thread_begin(void)
{
	if (rcu_registered++ == 0)
		urcu_memb_register_thread();
}

void rcu_thread_end(void)
{
	assert(rcu_registered > 0);
	if (--rcu_registered == 0)
		urcu_memb_unregister_thread();
}

#ifdef RCU_TSAN
void rcu_read_begin(void)
{
	urcu_memb_read_lock();
}

void rcu_read_end(void)
{
	rcu_tsan_release(&rcu_tsan_readers);
	urcu_memb_read_unlock();
}
#endif

bool rcu_read_ongoing(void)
{
	return urcu_memb_read_ongoing() != 0;
}

#ifdef RCU_TSAN

struct rcu_tsan_call {
	struct rcu_head head;
	struct rcu_cb *cb;
	void (*fn)(struct rcu_cb *cb);
};

static void rcu_tsan_run(struct rcu_head *head)
{
	struct rcu_tsan_call *call = (struct rcu_tsan_call *)head;
	void (*fn)(struct rcu_cb * cb);
	struct rcu_cb *cb;

	rcu_tsan_acquire(head);
	rcu_tsan_acquire(&rcu_tsan_readers);
	cb = call->cb;
	fn = call->fn;
	free(call);
	fn(cb);
}

void rcu_call(struct rcu_cb *cb, void (*fn)(struct rcu_cb *cb))
{
	struct rcu_tsan_call *call = malloc(sizeof(*call));

	if (!call)
		log_fatal("rcu: no memory for a sanitizer record");
	call->cb = cb;
	call->fn = fn;
	rcu_tsan_release(&call->head);
	urcu_memb_call_rcu(&call->head, rcu_tsan_run);
}

#else

void rcu_call(struct rcu_cb *cb, void (*fn)(struct rcu_cb *cb))
{
	/* struct rcu_cb is the head; the callback gets the pointer that it gave. */
	urcu_memb_call_rcu((struct rcu_head *)cb, (void (*)(struct rcu_head *))(void (*)(void))fn);
}

#endif

void rcu_synchronize(void)
{
	assert(!rcu_read_ongoing());
	urcu_memb_synchronize_rcu();
	rcu_tsan_acquire(&rcu_tsan_readers);
}

void rcu_drain(void)
{
	urcu_memb_barrier();
	rcu_local_drain();
}

void rcu_before_fork(void)
{
	rcu_local_before_fork();
	urcu_memb_call_rcu_before_fork();
}

void rcu_after_fork_parent(void)
{
	urcu_memb_call_rcu_after_fork_parent();
	rcu_local_after_fork_parent();
}

void rcu_after_fork_child(void)
{
	urcu_memb_call_rcu_after_fork_child();
	rcu_local_after_fork_child();
}
