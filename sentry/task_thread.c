/*
 * sentry/task_thread.c - the host threads that carry tasks.
 *
 * A worker runs one task to its end, then parks; a new task takes the worker that parked last. So a fork costs one futex wake, which finds
 * nobody asleep where the worker still looks for its next task (sleep_until_set()), and
 * the platform's vCPU, which belongs to the host thread for life, is used again. At most TASK_WORKERS_PARKED_MAX stay parked,
 * TASK_WORKERS_QUIET of them once the sandbox is quiet.
 * Stacks are small with a guard page below. Host signals are blocked but for the synchronous ones; the platform unblocks what
 * it interrupts with.
 */
#include <pthread.h>
#include <signal.h>
#include <time.h>

#include "base/futex.h"
#include "mem/memfile.h"
#include "sentry/stack_signal.h"
#include "sentry/task_internal.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define WORKER_STACK_SIZE (4 * TASK_STACK_SIZE)
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define WORKER_STACK_SIZE (4 * TASK_STACK_SIZE)
#endif
#endif
#ifndef WORKER_STACK_SIZE
#define WORKER_STACK_SIZE TASK_STACK_SIZE
#endif

/* A parked worker looks for so long for its next task: what a thread's creator takes to make the next, where a call is a trap. */
#define WORKER_SPIN_NS 200000

enum { WORKER_IDLE, WORKER_RUN, WORKER_QUIT };

struct task_worker {
	SLIST_ENTRY(task_worker) link; /* guarded by workers_lock */
	_Atomic uint32_t word; /* WORKER_*; the futex it parks on */
	struct task *task; /* set before word */
	uint8_t brief; /* its own thread's: sleep_until_set() */
	_Atomic int host_tid;
	struct task_affinity affinity;
};

static struct mutex workers_lock = MUTEX_INIT(LOCK_LEAF, "task workers");
static SLIST_HEAD(, task_worker) workers_parked; /* guarded by workers_lock */
static unsigned workers_parked_count; /* guarded by workers_lock */

static void worker_block_signals(void)
{
	static const int keep[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};
	sigset_t set;

	sigfillset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(keep); i++)
		sigdelset(&set, keep[i]);
	sigdelset(&set, TASK_STACK_SIGNAL);
	pthread_sigmask(SIG_SETMASK, &set, NULL);
}

static int64_t thread_cpu_ns(clockid_t clock)
{
	struct timespec ts;

	if (clock_gettime(clock, &ts))
		return -1;
	return ts.tv_sec * 1000000000ll + ts.tv_nsec;
}

static void worker_run_task(struct task_worker *w, struct task *t)
{
	int32_t left;

	atomic_store(&t->cpu_base_ns, thread_cpu_ns(CLOCK_THREAD_CPUTIME_ID));
	atomic_store(&t->host_tid, atomic_load(&w->host_tid));
	sleeper_set_current(&t->sleeper);
	task_set_current(t);
	mem_account_enter(t->group->cgroup->account);
	cred_set_current(t->cred);
	affinity_begin(&w->affinity, t, atomic_load(&w->host_tid));
	task_run(t);
	affinity_end(t);
	cred_set_current(NULL);
	task_set_current(NULL);
	mem_account_enter(NULL);
	sleeper_set_current(NULL);
	vfs_run_deferred();
	task_unref(t);
	left = atomic_fetch_sub(&kernel.running, 1) - 1;
	if (left <= 1)
		wait_queue_wake(&kernel.exit_wait, POLLIN);
}

/* Return: false if enough are parked. */
static bool worker_park(struct task_worker *w)
{
	bool park, many = false;

	atomic_store_explicit(&w->word, WORKER_IDLE, memory_order_relaxed);
	mutex_lock(&workers_lock);
	park = workers_parked_count < TASK_WORKERS_PARKED_MAX &&
	       !atomic_load_explicit(&kernel.shutting_down, memory_order_relaxed);
	if (park) {
		SLIST_INSERT_HEAD(&workers_parked, w, link);
		many = workers_parked_count++ == TASK_WORKERS_QUIET;
	}
	mutex_unlock(&workers_lock);
	if (many && kernel.on_many_parked)
		kernel.on_many_parked();
	return park;
}

static void *worker_main(void *arg)
{
	struct task_worker *w = arg;
	uint32_t word;

	worker_block_signals();
	rcu_thread_begin();
	atomic_store(&w->host_tid, (int)gettid());
	for (;;) {
		word = sleep_until_set(&w->word, &w->brief, WORKER_SPIN_NS);
		if (word == WORKER_QUIT)
			break;
		worker_run_task(w, w->task);
		if (!worker_park(w))
			break;
	}
	kernel.platform->ops->thread_exit(kernel.platform);
	rcu_thread_end();
	free(w);
	return NULL;
}

static int worker_create(struct task_worker **ret)
{
	struct task_worker *w = calloc(1, sizeof(*w));
	pthread_attr_t attr;
	sigset_t all, old;
	pthread_t thread;
	int err;

	if (!w)
		return -EAGAIN;
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, WORKER_STACK_SIZE);
	/* It starts with everything blocked, and opens what it needs itself. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(&thread, &attr, worker_main, w);
	if (err == EAGAIN) {
		/* What the guest has ended may count for the container's limit still. */
		platform_settle(kernel.platform);
		err = pthread_create(&thread, &attr, worker_main, w);
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	if (err) {
		free(w);
		return -EAGAIN;
	}
	*ret = w;
	return 0;
}

int task_worker_reserve(struct task *t)
{
	struct task_worker *w;
	int err;

	mutex_lock(&workers_lock);
	w = SLIST_FIRST(&workers_parked);
	if (w) {
		SLIST_REMOVE_HEAD(&workers_parked, link);
		workers_parked_count--;
	}
	mutex_unlock(&workers_lock);
	if (!w) {
		err = worker_create(&w);
		if (err)
			return err;
	}
	t->worker = w;
	return 0;
}

static void worker_tell(struct task_worker *w, uint32_t word)
{
	atomic_store_explicit(&w->word, word, memory_order_release);
	futex_wake(&w->word, 1);
}

void task_worker_release(struct task *t)
{
	struct task_worker *w = t->worker;

	t->worker = NULL;
	if (w && !worker_park(w))
		worker_tell(w, WORKER_QUIT);
}

void task_workers_trim(void)
{
	SLIST_HEAD(, task_worker) rest = SLIST_HEAD_INITIALIZER(rest);
	struct task_worker *w, *last;
	unsigned kept = 1;

	mutex_lock(&workers_lock);
	last = SLIST_FIRST(&workers_parked);
	while (last && kept < TASK_WORKERS_QUIET) {
		last = SLIST_NEXT(last, link);
		kept++;
	}
	/* Those that parked first: their stacks and vCPUs are the coldest. */
	if (last && (SLIST_FIRST(&rest) = SLIST_NEXT(last, link))) {
		SLIST_NEXT(last, link) = NULL;
		workers_parked_count = kept;
	}
	mutex_unlock(&workers_lock);
	while ((w = SLIST_FIRST(&rest))) {
		SLIST_REMOVE_HEAD(&rest, link);
		worker_tell(w, WORKER_QUIT);
	}
}

void task_worker_start(struct task *t)
{
	struct task_worker *w = t->worker;

	/* The thread's own reference, dropped when it has left task_run(). */
	task_ref(t);
	atomic_fetch_add(&kernel.running, 1);
	w->task = t;
	worker_tell(w, WORKER_RUN);
}

int64_t task_worker_cpu_ns(struct task *t)
{
	int tid = atomic_load_explicit(&t->host_tid, memory_order_acquire);
	int64_t base = atomic_load_explicit(&t->cpu_base_ns, memory_order_relaxed);
	int64_t now;

	if (!tid)
		return atomic_load(&t->cpu_base_ns) ? -1 : 0;
	/* A per-thread CPU clock of the kernel: CPUCLOCK_PERTHREAD | CPUCLOCK_SCHED. */
	if (t == task_current())
		now = thread_cpu_ns(CLOCK_THREAD_CPUTIME_ID);
	else
		now = thread_cpu_ns((clockid_t)((~(unsigned)tid << 3) | 6));
	/* The worker may have gone on to another task meanwhile. */
	if (now < 0 || !atomic_load_explicit(&t->host_tid, memory_order_acquire))
		return -1;
	return now > base ? now - base : 0;
}
