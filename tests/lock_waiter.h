/* tests/lock_waiter.h - a thread that waits for a lock of a file, and may be interrupted. Include it in one file of a program. */
#ifndef MOAT_TESTS_LOCK_WAITER_H
#define MOAT_TESTS_LOCK_WAITER_H

#include <pthread.h>

#include "base/rcu.h"
#include "base/sleep.h"
#include "vfs/locks.h"
#include "vfs/vfs.h"

struct waiter_thread {
	struct file *f;
	struct file_lock req;
	struct cred *cred; /* borrowed; NULL */
	struct sleeper sleeper;
	_Atomic int err; /* 1: not over */
	pthread_t thread;
};

static void *wait_main(void *arg)
{
	struct waiter_thread *w = arg;

	rcu_thread_begin();
	sleeper_set_current(&w->sleeper);
	cred_set_current(w->cred);
	w->err = file_lock_set(w->f, &w->req, true);
	cred_set_current(NULL);
	sleeper_set_current(NULL);
	rcu_thread_end();
	return NULL;
}

/* Return: 0, an errno. It may wait only later. */
static int waiter_start(struct waiter_thread *w, struct file *f, const struct file_lock *req,
			struct cred *cred)
{
	*w = (struct waiter_thread){.f = f, .req = *req, .cred = cred, .err = 1};
	sleeper_init(&w->sleeper);
	return pthread_create(&w->thread, NULL, wait_main, w);
}

static int wait_finish(struct waiter_thread *w)
{
	pthread_join(w->thread, NULL);
	return w->err;
}

#endif
