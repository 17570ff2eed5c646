/*
 * syscalls/sys_sched.c - scheduling parameters. The host's scheduler runs task threads; policies and priorities are kept and shown, with
 * Linux's permission rules, and do not change how the host schedules. Affinity is sentry/affinity.c's.
 */
#include "syscalls/syscalls.h"

#include <linux/capability.h>
#include <sched.h>
#include <time.h>

#include "syscalls/sched.h"
#include "syscalls/util.h"

#define SCHED_RESET_ON_FORK_ 0x40000000
#define SCHED_DEADLINE_ 6
#define SCHED_ATTR_SIZE_VER0 48
#define SCHED_ATTR_SIZE_VER1 56
#define SCHED_FLAG_ALL_ 0x7full
#define SCHED_FLAG_RESET_ON_FORK_ 0x01ull

/*
 * Threads that yield to one another without end at the rate of posted calls have starved a whole host of its processors
 * (Linux 6.18): after a series of calls at once they sleep a little between them.
 */
#define YIELD_SERIES 32u
#define YIELD_AT_ONCE_NS 50000

int64_t sys_sched_yield(struct task *t unused_arg, const struct syscall_args *a unused_arg)
{
	static __thread int64_t last_ns;
	static __thread unsigned series;
	int64_t now = time_monotonic_ns();

	series = now - last_ns < YIELD_AT_ONCE_NS ? series + 1 : 0;
	if (series < YIELD_SERIES)
		sched_yield();
	else
		clock_nanosleep(CLOCK_MONOTONIC, 0,
				&(struct timespec){.tv_nsec = YIELD_AT_ONCE_NS / 2}, NULL);
	last_ns = time_monotonic_ns();
	return 0;
}

/* ---- policies ---- */

static bool is_rt(int policy)
{
	return policy == SCHED_FIFO || policy == SCHED_RR;
}

static bool policy_ok(int policy)
{
	return policy == SCHED_OTHER || is_rt(policy) || policy == SCHED_BATCH ||
	       policy == SCHED_IDLE;
}

static bool may_set_policy(struct task *t, struct task *target, int policy, int priority)
{
	uint64_t limit = task_rlimit(target, RLIMIT_RTPRIO);

	if (cred_has_cap(t->cred, CAP_SYS_NICE))
		return true;
	if (!sys_sched_may_set(t, target))
		return false;
	if (is_rt(policy)) {
		if (policy != target->sched_policy && !limit)
			return false;
		if (priority > target->sched_priority && (uint64_t)priority > limit)
			return false;
	}
	return true;
}

static int64_t set_policy(struct task *t, struct task *target, int policy, int priority)
{
	bool reset = policy & SCHED_RESET_ON_FORK_;

	policy &= ~SCHED_RESET_ON_FORK_;
	if (!policy_ok(policy))
		return -EINVAL;
	if (is_rt(policy) ? priority < 1 || priority > 99 : priority != 0)
		return -EINVAL;
	if (!may_set_policy(t, target, policy, priority) ||
	    (target->sched_reset_on_fork && !reset && !cred_has_cap(t->cred, CAP_SYS_NICE)))
		return -EPERM;
	target->sched_policy = policy;
	target->sched_priority = priority;
	target->sched_reset_on_fork = reset;
	return 0;
}

int64_t sys_sched_setscheduler(struct task *t, const struct syscall_args *a)
{
	struct task *target;
	int32_t priority;
	int64_t ret;

	if (ARG_INT(1) < 0 || !a->a[2] || ARG_INT(0) < 0)
		return -EINVAL;
	if (task_copy_in(t, &priority, a->a[2], sizeof(priority)))
		return -EFAULT;
	target = sys_sched_target(t, ARG_INT(0));
	if (!target)
		return -ESRCH;
	ret = set_policy(t, target, ARG_INT(1), priority);
	task_unref(target);
	return ret;
}

int64_t sys_sched_setparam(struct task *t, const struct syscall_args *a)
{
	struct task *target;
	int32_t priority;
	int64_t ret;

	if (!a->a[1] || ARG_INT(0) < 0)
		return -EINVAL;
	if (task_copy_in(t, &priority, a->a[1], sizeof(priority)))
		return -EFAULT;
	target = sys_sched_target(t, ARG_INT(0));
	if (!target)
		return -ESRCH;
	ret = set_policy(t, target,
			 target->sched_policy |
				 (target->sched_reset_on_fork ? SCHED_RESET_ON_FORK_ : 0),
			 priority);
	task_unref(target);
	return ret;
}

int64_t sys_sched_getscheduler(struct task *t, const struct syscall_args *a)
{
	struct task *target;
	int64_t ret;

	if (ARG_INT(0) < 0)
		return -EINVAL;
	target = sys_sched_target(t, ARG_INT(0));
	if (!target)
		return -ESRCH;
	ret = target->sched_policy | (target->sched_reset_on_fork ? SCHED_RESET_ON_FORK_ : 0);
	task_unref(target);
	return ret;
}

int64_t sys_sched_getparam(struct task *t, const struct syscall_args *a)
{
	struct task *target;
	int32_t priority;

	if (!a->a[1] || ARG_INT(0) < 0)
		return -EINVAL;
	target = sys_sched_target(t, ARG_INT(0));
	if (!target)
		return -ESRCH;
	priority = target->sched_priority;
	task_unref(target);
	return task_copy_out(t, a->a[1], &priority, sizeof(priority));
}

int64_t sys_sched_get_priority_max(struct task *t unused_arg, const struct syscall_args *a)
{
	if (is_rt(ARG_INT(0)))
		return 99;
	return policy_ok(ARG_INT(0)) || ARG_INT(0) == SCHED_DEADLINE_ ? 0 : -EINVAL;
}

int64_t sys_sched_get_priority_min(struct task *t unused_arg, const struct syscall_args *a)
{
	if (is_rt(ARG_INT(0)))
		return 1;
	return policy_ok(ARG_INT(0)) || ARG_INT(0) == SCHED_DEADLINE_ ? 0 : -EINVAL;
}

int64_t sys_sched_rr_get_interval(struct task *t, const struct syscall_args *a)
{
	struct moat_timespec ts = {0, 0};
	struct task *target;

	if (ARG_INT(0) < 0)
		return -EINVAL;
	target = sys_sched_target(t, ARG_INT(0));
	if (!target)
		return -ESRCH;
	if (target->sched_policy == SCHED_RR)
		ts.nsec = 100000000;
	else if (target->sched_policy != SCHED_FIFO)
		ts.nsec = 4000000;
	task_unref(target);
	return task_copy_out(t, a->a[1], &ts, sizeof(ts));
}

struct moat_sched_attr {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
	uint32_t util_min, util_max;
};
_Static_assert(sizeof(struct moat_sched_attr) == SCHED_ATTR_SIZE_VER1, "sched_attr ABI");

int64_t sys_sched_setattr(struct task *t, const struct syscall_args *a)
{
	struct moat_sched_attr attr = {0};
	struct task *target;
	uint32_t size, now = sizeof(attr);
	int64_t ret;
	int err;

	if (!a->a[1] || ARG_INT(0) < 0 || ARG_UINT(2))
		return -EINVAL;
	if (task_copy_in(t, &size, a->a[1], sizeof(size)))
		return -EFAULT;
	if (!size)
		size = SCHED_ATTR_SIZE_VER0;
	err = size < SCHED_ATTR_SIZE_VER0 || size > MOAT_PAGE_SIZE
		      ? -E2BIG
		      : sys_copy_struct_in(t, &attr, sizeof(attr), a->a[1], size);
	if (err == -E2BIG)
		(void)!task_copy_out(t, a->a[1], &now, sizeof(now));
	if (err)
		return err;
	if ((int32_t)attr.policy < 0 || (attr.flags & ~SCHED_FLAG_ALL_))
		return -EINVAL;
	if (attr.policy == SCHED_DEADLINE_)
		return -EPERM; /* no bandwidth can be promised */
	target = sys_sched_target(t, ARG_INT(0));
	if (!target)
		return -ESRCH;
	ret = set_policy(t, target,
			 (int)attr.policy |
				 (attr.flags & SCHED_FLAG_RESET_ON_FORK_ ? SCHED_RESET_ON_FORK_
									 : 0),
			 (int)attr.priority);
	if (!ret && (attr.policy == SCHED_OTHER || attr.policy == SCHED_BATCH))
		ret = sys_set_nice(t, target, attr.nice);
	task_unref(target);
	return ret;
}

int64_t sys_sched_getattr(struct task *t, const struct syscall_args *a)
{
	struct moat_sched_attr attr = {0};
	uint32_t usize = ARG_UINT(2);
	struct task *target;

	if (!a->a[1] || ARG_INT(0) < 0 || usize > MOAT_PAGE_SIZE || usize < SCHED_ATTR_SIZE_VER0 ||
	    ARG_UINT(3))
		return -EINVAL;
	target = sys_sched_target(t, ARG_INT(0));
	if (!target)
		return -ESRCH;
	attr.policy = (uint32_t)target->sched_policy;
	attr.flags = target->sched_reset_on_fork ? SCHED_FLAG_RESET_ON_FORK_ : 0;
	attr.priority = (uint32_t)target->sched_priority;
	if (!is_rt(target->sched_policy))
		attr.nice = target->nice;
	attr.util_max = 1024;
	task_unref(target);
	attr.size = (uint32_t)MIN((size_t)usize, sizeof(attr));
	return task_copy_out(t, a->a[1], &attr, attr.size);
}

/* ---- affinity ---- */

int64_t sys_sched_getaffinity(struct task *t, const struct syscall_args *a)
{
	struct task *target;
	uint64_t mask;

	if (a->a[1] < sizeof(mask) || (a->a[1] & 7))
		return -EINVAL;
	target = sys_sched_target(t, ARG_INT(0));
	if (!target)
		return -ESRCH;
	mask = affinity_effective(target);
	task_unref(target);
	return task_copy_out(t, a->a[2], &mask, sizeof(mask)) ? -EFAULT : (int64_t)sizeof(mask);
}

int64_t sys_sched_setaffinity(struct task *t, const struct syscall_args *a)
{
	struct task *target;
	uint64_t mask = 0;
	int64_t ret;

	if (task_copy_in(t, &mask, a->a[2], MIN(a->a[1], sizeof(mask))))
		return -EFAULT;
	target = sys_sched_target(t, ARG_INT(0));
	if (!target)
		return -ESRCH;
	ret = -EPERM;
	if (sys_sched_may_set(t, target)) {
		/* What the cpuset has not now counts when it gets it. */
		mask &= affinity_all();
		ret = mask & affinity_allowed(target->group->cgroup) ? affinity_set(target, mask)
								     : -EINVAL;
	}
	task_unref(target);
	return ret;
}
