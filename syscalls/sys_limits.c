/* syscalls/sys_limits.c - resource limits and usage. */
#include "syscalls/syscalls.h"

#include "sentry/timers.h"
#include "syscalls/util.h"

#define CAP_SYS_RESOURCE_ 24

struct moat_rlimit {
	uint64_t cur, max;
};

static void limit_get(struct rlimits *r, unsigned res, struct moat_rlimit *ret)
{
	mutex_lock(&r->lock);
	ret->cur = r->lim[res].cur;
	ret->max = r->lim[res].max;
	mutex_unlock(&r->lock);
}

/* Growth of the stack looks at the mm's copy. */
static void stack_limit_update(struct task *target, uint64_t bytes)
{
	struct mm *mm = task_get_mm(target);

	if (!mm)
		return;
	mm_set_stack_limit(mm, bytes);
	mm_unref(mm);
}

/* do_prlimit(): old first, then new. */
static int limit_change(struct task *t, struct task *target, unsigned res,
			const struct moat_rlimit *new, struct moat_rlimit *old)
{
	struct rlimits *r = target->group->rlimits;
	int err = 0;

	if (res >= RLIM_COUNT)
		return -EINVAL;
	if (new) {
		if (new->cur > new->max)
			return -EINVAL;
		if (res == RLIMIT_NOFILE && new->max > (uint64_t)fd_nr_open)
			return -EPERM;
	}
	mutex_lock(&r->lock);
	old->cur = r->lim[res].cur;
	old->max = r->lim[res].max;
	if (new) {
		if (new->max > r->lim[res].max && !cred_has_cap(t->cred, CAP_SYS_RESOURCE_)) {
			err = -EPERM;
		} else {
			r->lim[res].cur = new->cur;
			r->lim[res].max = new->max;
		}
	}
	mutex_unlock(&r->lock);
	if (!err && new &&res == RLIMIT_CPU)
		rlimit_cpu_update(target->group);
	if (!err && new &&res == RLIMIT_STACK)
		stack_limit_update(target, new->cur);
	return err;
}

int64_t sys_getrlimit(struct task *t, const struct syscall_args *a)
{
	struct moat_rlimit rl;

	if (ARG_UINT(0) >= RLIM_COUNT)
		return -EINVAL;
	limit_get(t->group->rlimits, ARG_UINT(0), &rl);
	return task_copy_out(t, a->a[1], &rl, sizeof(rl));
}

int64_t sys_setrlimit(struct task *t, const struct syscall_args *a)
{
	struct moat_rlimit rl, old;

	if (task_copy_in(t, &rl, a->a[1], sizeof(rl)))
		return -EFAULT;
	return limit_change(t, t, ARG_UINT(0), &rl, &old);
}

/* Same ids on all sides, or the capability. */
static bool may_prlimit(struct task *t, struct task *target)
{
	const struct cred *c = t->cred;
	struct cred *o;
	bool ok;

	if (t->group == target->group)
		return true;
	o = task_get_cred(target);
	ok = c->uid == o->euid && c->uid == o->suid && c->uid == o->uid && c->gid == o->egid &&
	     c->gid == o->sgid && c->gid == o->gid;
	cred_unref(o);
	return ok || cred_has_cap(c, CAP_SYS_RESOURCE_);
}

int64_t sys_prlimit64(struct task *t, const struct syscall_args *a)
{
	struct moat_rlimit new, old;
	struct task *target;
	int err;

	if (ARG_UINT(1) >= RLIM_COUNT)
		return -EINVAL;
	if (a->a[2] && task_copy_in(t, &new, a->a[2], sizeof(new)))
		return -EFAULT;
	target = task_find_v(t, ARG_INT(0) ? ARG_INT(0) : t->vtid);
	if (!target)
		return -ESRCH;
	err = -EPERM;
	if (may_prlimit(t, target))
		err = limit_change(t, target, ARG_UINT(1), a->a[2] ? &new : NULL, &old);
	task_unref(target);
	if (!err && a->a[3] && task_copy_out(t, a->a[3], &old, sizeof(old)))
		err = -EFAULT;
	return err;
}

struct moat_rusage {
	struct moat_timeval utime, stime;
	int64_t maxrss, ixrss, idrss, isrss, minflt, majflt, nswap, inblock, oublock, msgsnd,
		msgrcv, nsignals, nvcsw, nivcsw;
};

int64_t sys_getrusage(struct task *t, const struct syscall_args *a)
{
	struct task_times times;
	struct mm_usage usage;
	struct moat_rusage ru;

	switch (ARG_INT(0)) {
	case RUSAGE_SELF:
		group_get_times(t->group, &times);
		break;
	case RUSAGE_THREAD:
		task_get_times(t, &times);
		break;
	case RUSAGE_CHILDREN:
		group_get_child_times(t->group, &times);
		break;
	default:
		return -EINVAL;
	}
	if (ARG_INT(0) != RUSAGE_CHILDREN) {
		mm_get_usage(t->mm, &usage);
		times.maxrss_kib = MAX(times.maxrss_kib, usage.rss_peak >> 10);
	}
	ru = (struct moat_rusage){
		.utime = {times.utime_ns / 1000000000, times.utime_ns % 1000000000 / 1000},
		.stime = {times.stime_ns / 1000000000, times.stime_ns % 1000000000 / 1000},
		.maxrss = (int64_t)times.maxrss_kib,
		.minflt = times.minflt,
		.majflt = times.majflt,
		.inblock = times.inblock,
		.oublock = times.oublock,
		.nvcsw = times.nvcsw,
		.nivcsw = times.nivcsw,
	};
	return task_copy_out(t, a->a[1], &ru, sizeof(ru));
}
