/*
 * vfs/wait.c - wait queues.
 *
 * "Register, check, sleep" against "change, wake": the waker's look at `count` and the waiter's
 * increment are read-modify-writes of one word, so either the waker sees the waiter, or the
 * waiter's increment comes later and acquires what the waker changed before it looked.
 */
#include "vfs/wait.h"

#include "base/hostpoll.h"

void wait_queue_init(struct wait_queue *q)
{
	mutex_init(&q->lock, LOCK_WAITQUEUE, "wait queue");
	TAILQ_INIT(&q->waiters);
	atomic_init(&q->count, 0);
}

void wait_queue_fini(struct wait_queue *q)
{
	assert(TAILQ_EMPTY(&q->waiters));
	(void)q;
}

static void sleeper_wake_cb(struct waiter *w, uint32_t events unused_arg)
{
	sleeper_wake(w->arg);
}

void waiter_init(struct waiter *w, void (*wake)(struct waiter *, uint32_t), void *arg,
		 uint32_t events)
{
	*w = (struct waiter){.wake = wake, .arg = arg, .events = events};
}

void waiter_init_sleeper(struct waiter *w, struct sleeper *s, uint32_t events)
{
	waiter_init(w, sleeper_wake_cb, s, events);
}

void wait_queue_add(struct wait_queue *q, struct waiter *w)
{
	assert(!w->queue);
	mutex_lock(&q->lock);
	/* Exclusive waiters go last, so that a wake-up meets everybody else first. */
	if (w->exclusive)
		TAILQ_INSERT_TAIL(&q->waiters, w, link);
	else
		TAILQ_INSERT_HEAD(&q->waiters, w, link);
	w->queue = q;
	atomic_fetch_add_explicit(&q->count, 1, memory_order_seq_cst);
	mutex_unlock(&q->lock);
}

void wait_queue_remove(struct waiter *w)
{
	struct wait_queue *q = w->queue;

	if (!q)
		return;
	mutex_lock(&q->lock);
	TAILQ_REMOVE(&q->waiters, w, link);
	w->queue = NULL;
	atomic_fetch_sub_explicit(&q->count, 1, memory_order_relaxed);
	mutex_unlock(&q->lock);
}

void waiter_await(struct waiter *w)
{
	if (w->looks || w->awaits)
		return;
	w->awaits = true;
	hostpoll_await();
}

void waiter_await_end(struct waiter *w)
{
	if (!w->awaits)
		return;
	w->awaits = false;
	hostpoll_await_end();
}

void wait_queue_wake(struct wait_queue *q, uint32_t events)
{
	struct waiter *w, *next;

	/* Pairs with the increment in wait_queue_add(): see the top. */
	if (!atomic_fetch_add_explicit(&q->count, 0, memory_order_seq_cst))
		return;
	/* Nested: an epoll file's callback wakes its own queue, watched before watcher; epoll_ctl() refuses loops. */
	mutex_lock_nested(&q->lock);
	for (w = TAILQ_FIRST(&q->waiters); w; w = next) {
		next = TAILQ_NEXT(w, link);
		if (!(events & (w->events | POLLERR | POLLHUP)))
			continue;
		w->wake(w, events);
		if (w->exclusive) {
			/* Round robin among the exclusive ones. */
			TAILQ_REMOVE(&q->waiters, w, link);
			TAILQ_INSERT_TAIL(&q->waiters, w, link);
			break;
		}
	}
	mutex_unlock(&q->lock);
}

int wait_event(struct wait_queue *q, bool (*cond)(void *arg), void *arg, enum sleep_mode mode,
	       int64_t deadline_ns)
{
	struct sleeper *s = sleeper_current();
	struct waiter w;
	int err = 0;

	if (cond(arg))
		return 0;
	waiter_init_sleeper(&w, s, UINT32_MAX);
	wait_queue_add(q, &w);
	while (!cond(arg)) {
		err = sleeper_wait(s, mode, deadline_ns);
		if (err) {
			/* What came true together with the interruption counts. */
			if (cond(arg))
				err = 0;
			break;
		}
	}
	wait_queue_remove(&w);
	return err;
}
