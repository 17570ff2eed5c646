#include "vfs/op_lock.h"
#include "vfs/wait.h"

/* Waiters of all op_locks share a few queues: a lock is four bytes, contention is rare. */
#define OP_LOCK_QUEUES 64u

static struct wait_queue op_lock_queues[OP_LOCK_QUEUES];

__attribute__((constructor)) static void op_lock_queues_init(void)
{
	for (unsigned i = 0; i < OP_LOCK_QUEUES; i++)
		wait_queue_init(&op_lock_queues[i]);
}

static struct wait_queue *op_lock_queue(const struct op_lock *l)
{
	uintptr_t key = (uintptr_t)l >> 4;

	return &op_lock_queues[(key ^ (key >> 8)) % OP_LOCK_QUEUES];
}

/* Takes it as "contended": its unlock wakes the queue, at worst once for nothing. */
static bool op_lock_try_contended(void *arg)
{
	struct op_lock *l = arg;

	return atomic_exchange_explicit(&l->word, 2, memory_order_acquire) == 0;
}

void op_lock_slow(struct op_lock *l)
{
	int err = wait_event(op_lock_queue(l), op_lock_try_contended, l, SLEEP_UNINTERRUPTIBLE,
			     TIME_FOREVER);

	assert(!err);
	(void)err;
}

int op_lock_killable_slow(struct op_lock *l)
{
	return wait_event(op_lock_queue(l), op_lock_try_contended, l, SLEEP_KILLABLE, TIME_FOREVER);
}

void op_unlock_slow(struct op_lock *l)
{
	wait_queue_wake(op_lock_queue(l), POLLIN);
}
