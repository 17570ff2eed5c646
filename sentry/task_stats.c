/*
 * sentry/task_stats.c - CPU time and other counts of tasks, groups and waited-for children.
 *
 * A task's CPU time is its host thread's CPU clock since the task began. The split is: user, the time inside context_switch()
 * (wall time, at most the total); system, the rest. Where the application runs on host threads of its own, the wall time
 * inside context_switch() is added to the clock. What is reported never goes backwards.
 */
#include <time.h>

#include "sentry/task_internal.h"

struct mutex task_stats_lock = MUTEX_INIT(LOCK_LEAF, "task stats");

void times_add(struct task_times *sum, const struct task_times *more)
{
	sum->utime_ns += more->utime_ns;
	sum->stime_ns += more->stime_ns;
	sum->minflt += more->minflt;
	sum->majflt += more->majflt;
	sum->nvcsw += more->nvcsw;
	sum->nivcsw += more->nivcsw;
	sum->inblock += more->inblock;
	sum->oublock += more->oublock;
	sum->rchar += more->rchar;
	sum->wchar += more->wchar;
	sum->syscr += more->syscr;
	sum->syscw += more->syscw;
	sum->maxrss_kib = MAX(sum->maxrss_kib, more->maxrss_kib);
}

static void task_split_cpu(struct task *t, struct task_times *ret)
{
	int64_t total = task_worker_cpu_ns(t);
	int64_t app = atomic_load_explicit(&t->app_ns, memory_order_relaxed);
	int64_t since = atomic_load_explicit(&t->app_since_ns, memory_order_relaxed);
	int64_t sys, seen;

	/* Added twice in a race with task_account_leave(): bounded by the total. */
	if (since)
		app += time_monotonic_ns() - since;
	if (total < 0) { /* ended: the final values */
		ret->utime_ns = atomic_load_explicit(&t->utime_ns, memory_order_relaxed);
		ret->stime_ns = atomic_load_explicit(&t->stime_ns, memory_order_relaxed);
		return;
	}
	if (kernel.platform->app_elsewhere)
		total += app;
	sys = total > app ? total - app : 0;
	seen = atomic_load_explicit(&t->stime_seen_ns, memory_order_relaxed);
	while (sys > seen)
		if (atomic_compare_exchange_weak_explicit(&t->stime_seen_ns, &seen, sys,
							  memory_order_relaxed,
							  memory_order_relaxed))
			break;
	sys = MAX(sys, seen);
	ret->stime_ns = MIN(sys, total);
	ret->utime_ns = total - ret->stime_ns;
}

void task_get_times(struct task *t, struct task_times *ret)
{
	struct task_times times = {0};

	task_split_cpu(t, &times);
	times.minflt = atomic_load_explicit(&t->minflt, memory_order_relaxed);
	times.majflt = atomic_load_explicit(&t->majflt, memory_order_relaxed);
	times.nvcsw = atomic_load_explicit(&t->nvcsw, memory_order_relaxed);
	times.nivcsw = atomic_load_explicit(&t->nivcsw, memory_order_relaxed);
	times.rchar = atomic_load_explicit(&t->rchar, memory_order_relaxed);
	times.wchar = atomic_load_explicit(&t->wchar, memory_order_relaxed);
	times.syscr = atomic_load_explicit(&t->syscr, memory_order_relaxed);
	times.syscw = atomic_load_explicit(&t->syscw, memory_order_relaxed);
	*ret = times;
}

/* By the task only, so no read-modify-write. */
static void count_own(_Atomic int64_t *count, int64_t more)
{
	atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + more,
			      memory_order_relaxed);
}

void task_account_io(struct task *t, bool is_read, int64_t ret)
{
	count_own(is_read ? &t->syscr : &t->syscw, 1);
	if (ret > 0)
		count_own(is_read ? &t->rchar : &t->wchar, ret);
}

void task_times_account(struct task *t, uint64_t maxrss_kib)
{
	struct task_times times;

	task_get_times(t, &times);
	atomic_store_explicit(&t->utime_ns, times.utime_ns, memory_order_relaxed);
	atomic_store_explicit(&t->stime_ns, times.stime_ns, memory_order_relaxed);
	times.maxrss_kib = maxrss_kib;
	mutex_lock(&task_stats_lock);
	times_add(&t->group->dead_times, &times);
	mutex_unlock(&task_stats_lock);
}

static bool task_accounted(struct task *t)
{
	int state = atomic_load_explicit(&t->state, memory_order_acquire);

	return state == TASK_ZOMBIE || state == TASK_DEAD;
}

void group_get_times(struct thread_group *g, struct task_times *ret)
{
	struct task_times sum, one;
	struct sighand *sh = sighand_lock(g);
	struct task *t;

	mutex_lock(&task_stats_lock);
	sum = g->dead_times;
	mutex_unlock(&task_stats_lock);
	TAILQ_FOREACH (t, &g->threads, thread_link) {
		if (task_accounted(t))
			continue;
		task_get_times(t, &one);
		times_add(&sum, &one);
	}
	sighand_unlock(sh);
	*ret = sum;
}

void group_get_child_times(struct thread_group *g, struct task_times *ret)
{
	mutex_lock(&task_stats_lock);
	*ret = g->child_times;
	mutex_unlock(&task_stats_lock);
}

void group_times_reaped(struct thread_group *parent, struct thread_group *child)
{
	struct task_times all;

	group_get_times(child, &all);
	mutex_lock(&task_stats_lock);
	times_add(&all, &child->child_times);
	times_add(&parent->child_times, &all);
	mutex_unlock(&task_stats_lock);
}
