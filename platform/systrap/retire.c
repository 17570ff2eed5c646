/*
 * platform/systrap/retire.c - ends address spaces in the background.
 *
 * Who ends a process need not wait until its stub is gone; what was mapped there must not be given to anybody before. So what
 * ends is queued here. A thread of the platform's empties its stub for the next process (recycle.c), or has it killed and waits for
 * that, and only then is its owner told. Killing it unmaps everything, which costs less than to have it unmapped and proven first.
 * The same thread orders the stubs that are made in advance, which no starting process need do itself.
 *
 * A few at a time (SYSTRAP_RETIRED_MAX): whoever ends more waits himself, so that memory comes back as fast as it goes. Whoever is
 * refused a process or a thread by the host waits for those that ended before he asked (systrap_retire_await()), since a limit on
 * the container's processes counts them until they are reaped.
 */
#include <limits.h>
#include <signal.h>
#include <stdlib.h>

#include "base/futex.h"
#include "base/rcu.h"
#include "platform/systrap/systrap.h"

static struct address_space *next_retired(struct systrap_platform *p, bool *ret_quit)
{
	struct systrap_retire *retire = &p->retire;
	struct address_space *as;

	mutex_lock(&retire->lock);
	as = STAILQ_FIRST(&retire->queue);
	if (as)
		STAILQ_REMOVE_HEAD(&retire->queue, retire_link);
	else
		atomic_store(&retire->word, 0);
	*ret_quit = retire->quit;
	mutex_unlock(&retire->lock);
	return as;
}

static void *retire_main(void *arg)
{
	struct systrap_platform *p = arg;
	struct systrap_retire *retire = &p->retire;
	bool quit;

	rcu_thread_begin();
	for (;;) {
		struct address_space *as = next_retired(p, &quit);

		if (as) {
			void (*done)(void *) = as->retired;
			void *done_arg = as->retired_arg;

			if (!systrap_recycle(as))
				systrap_stub_end(p, as->stub);
			systrap_as_free(as);
			done(done_arg);
			atomic_fetch_add(&retire->ended, 1);
			futex_wake(&retire->ended, INT_MAX);
		} else if (quit) {
			break;
		} else {
			(void)futex_wait(&retire->word, 0, NULL);
		}
	}
	rcu_thread_end();
	return NULL;
}

/* Lock held. Return: there is one. */
static bool thread_ready_locked(struct systrap_platform *p)
{
	struct systrap_retire *retire = &p->retire;
	sigset_t all, old;

	if (retire->started || retire->failed)
		return retire->started;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	retire->started = !pthread_create(&retire->thread, NULL, retire_main, p);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	retire->failed = !retire->started;
	return retire->started;
}

void systrap_as_retire(struct address_space *as, void (*done)(void *arg), void *arg)
{
	struct systrap_platform *p = as->p;
	struct systrap_retire *retire = &p->retire;
	bool queued = false;

	if (as->stub) {
		systrap_as_leave(as);
		mutex_lock(&retire->lock);
		queued = atomic_load(&retire->queued) - atomic_load(&retire->ended) <
				 SYSTRAP_RETIRED_MAX &&
			 !retire->quit && thread_ready_locked(p);
		if (queued) {
			atomic_fetch_add(&retire->queued, 1);
			as->retired = done;
			as->retired_arg = arg;
			STAILQ_INSERT_TAIL(&retire->queue, as, retire_link);
			atomic_store(&retire->word, 1);
		}
		mutex_unlock(&retire->lock);
	}
	if (queued) {
		futex_wake(&retire->word, 1);
		return;
	}
	systrap_as_destroy(as);
	done(arg);
}

bool systrap_retire_await(struct systrap_platform *p, uint32_t queued)
{
	uint32_t ended = atomic_load(&p->retire.ended);

	if ((int32_t)(queued - ended) <= 0)
		return false;
	(void)futex_wait(&p->retire.ended, ended, NULL);
	return true;
}

void systrap_settle(struct platform *base)
{
	struct systrap_platform *p = systrap_of(base);
	uint32_t queued = atomic_load(&p->retire.queued);

	while (systrap_retire_await(p, queued))
		;
}

void systrap_retire_init(struct systrap_platform *p)
{
	mutex_init(&p->retire.lock, LOCK_LEAF, "systrap retire");
	STAILQ_INIT(&p->retire.queue);
}

void systrap_retire_fini(struct systrap_platform *p)
{
	struct systrap_retire *retire = &p->retire;

	mutex_lock(&retire->lock);
	retire->quit = true;
	atomic_store(&retire->word, 1);
	mutex_unlock(&retire->lock);
	futex_wake(&retire->word, 1);
	if (retire->started)
		pthread_join(retire->thread, NULL);
}
