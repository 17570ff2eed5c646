/*
 * vfs/wait.h - wait queues: who wants to know that something became ready.
 *
 * A `struct waiter` sits on at most one queue. wait_queue_wake() calls the callbacks of the waiters whose mask meets the events, under
 * the queue's lock (LOCK_WAITQUEUE): a callback takes only higher ranks and never sleeps. Blocking calls use
 * waiter_init_sleeper(); epoll has its own callback, which wakes its own file's queue (nested: watched before watcher).
 */
#ifndef MOAT_VFS_WAIT_H
#define MOAT_VFS_WAIT_H

#include <poll.h>
#include <bsd/sys/queue.h>

#include "base/lock.h"
#include "base/sleep.h"

struct waiter {
	TAILQ_ENTRY(waiter) link; /* guarded by the queue's lock */
	struct wait_queue *queue; /* NULL when on none; guarded by the queue's lock */
	void (*wake)(struct waiter *w, uint32_t events);
	uint32_t events; /* POLL* mask; POLLERR and POLLHUP always count */
	bool exclusive; /* wake-one (EPOLLEXCLUSIVE, accept) */
	bool looks; /* an epoll item's: who sleeps for it says so and calls hostpoll_look() itself (base/hostpoll.h) */
	bool awaits; /* counted by hostpoll_await(); owned by the file's poll_add and poll_remove */
	void *arg;
};

struct wait_queue {
	struct mutex lock;
	TAILQ_HEAD(, waiter) waiters;
	_Atomic uint32_t count; /* cheap test for "nobody waits" */
};

void wait_queue_init(struct wait_queue *q);
void wait_queue_fini(struct wait_queue *q); /* empty */
void waiter_init_sleeper(struct waiter *w, struct sleeper *s, uint32_t events);
void waiter_init(struct waiter *w, void (*wake)(struct waiter *, uint32_t), void *arg,
		 uint32_t events);
void wait_queue_add(struct wait_queue *q, struct waiter *w);
void wait_queue_remove(
	struct waiter *w); /* idempotent; after it returns the callback does not run */
void wait_queue_wake(struct wait_queue *q, uint32_t events);
/* For a file's poll_add, after the queue has the waiter, and poll_remove: what it waits for may be a batched host descriptor. */
void waiter_await(struct waiter *w);
void waiter_await_end(struct waiter *w);

/*
 * Sleeps until cond(arg) is true. Return: 0, -EINTR, -ETIMEDOUT. No locks held.
 */
must_check int wait_event(struct wait_queue *q, bool (*cond)(void *arg), void *arg,
			  enum sleep_mode mode, int64_t deadline_ns);

#endif
