/*
 * syscalls/sys_priority.c - nice values and I/O priorities: kept, inherited and shown with Linux's permission rules. The host's scheduler
 * runs task threads as it runs any, and no disk is behind the sandbox's files.
 */
#include "syscalls/syscalls.h"

#include <linux/capability.h>
#include <linux/ioprio.h>
#include <sys/time.h>

#include "syscalls/sched.h"
#include "syscalls/util.h"

struct task *sys_sched_target(struct task *t, int32_t tid)
{
	return task_find_v(t, tid ? tid : t->vtid);
}

bool sys_sched_may_set(struct task *t, struct task *target)
{
	struct cred *o = task_get_cred(target);
	bool ok = t->cred->euid == o->euid || t->cred->euid == o->uid;

	cred_unref(o);
	return ok || cred_has_cap(t->cred, CAP_SYS_NICE);
}

/* ---- whom a call means: one task, a process group, a user ---- */

struct prio_walk {
	struct task *t;
	/* Return 0, or an error, which becomes the walk's. */
	int64_t (*one)(struct prio_walk *w, struct task *target);
	int value; /* to set */
	int64_t best; /* get: so far; -1 at first */
	bool stop_at_error;
	bool found;
	int64_t err;
};

static void walk_one(struct prio_walk *w, struct task *target)
{
	int64_t err = w->one(w, target);

	w->found = true;
	if (err)
		w->err = err;
}

static bool prio_matches(struct task *target, int which, uint32_t who)
{
	struct cred *c;
	bool match;

	if (which == PRIO_PGRP)
		return who && group_pgid(target->group) == (int32_t)who;
	c = task_get_cred(target);
	match = c->uid == who;
	cred_unref(c);
	return match;
}

/* which: PRIO_*. Return 0, -ESRCH, the callback's error. */
static int64_t prio_walk(struct prio_walk *w, int which, int32_t who)
{
	struct task *target;
	int32_t id = 1;

	if (which == PRIO_PROCESS) {
		target = sys_sched_target(w->t, who);
		if (target) {
			walk_one(w, target);
			task_unref(target);
		}
		return w->found ? w->err : -ESRCH;
	}
	if (!who)
		who = which == PRIO_PGRP ? group_pgid(w->t->group) : (int32_t)w->t->cred->uid;
	else if (which == PRIO_PGRP)
		who = pid_root(w->t, who);
	/* A user's: those that the caller can see. A group's members may be elsewhere. */
	while ((target = which == PRIO_PGRP ? task_next(&id)
					    : task_next_in(w->t->group->pid_ns, &id))) {
		if (prio_matches(target, which, (uint32_t)who))
			walk_one(w, target);
		task_unref(target);
		if (w->err && w->stop_at_error)
			break;
		id++;
	}
	return w->found ? w->err : -ESRCH;
}

/* ---- nice ---- */

int64_t sys_set_nice(struct task *t, struct task *target, int nice)
{
	if (!sys_sched_may_set(t, target))
		return -EPERM;
	if (nice < -20)
		nice = -20;
	if (nice > 19)
		nice = 19;
	/* RLIMIT_NICE is 20 - nice. */
	if (nice < target->nice && (uint64_t)(20 - nice) > task_rlimit(target, RLIMIT_NICE) &&
	    !cred_has_cap(t->cred, CAP_SYS_NICE))
		return -EACCES;
	target->nice = nice;
	return 0;
}

static int64_t nice_get_one(struct prio_walk *w, struct task *target)
{
	w->best = MAX(w->best, (int64_t)(20 - target->nice));
	return 0;
}

static int64_t nice_set_one(struct prio_walk *w, struct task *target)
{
	return sys_set_nice(w->t, target, w->value);
}

int64_t sys_getpriority(struct task *t, const struct syscall_args *a)
{
	struct prio_walk w = {.t = t, .one = nice_get_one, .best = -1};
	int64_t err;

	if (ARG_INT(0) < PRIO_PROCESS || ARG_INT(0) > PRIO_USER)
		return -EINVAL;
	err = prio_walk(&w, ARG_INT(0), ARG_INT(1));
	return err ? err : w.best;
}

int64_t sys_setpriority(struct task *t, const struct syscall_args *a)
{
	struct prio_walk w = {.t = t, .one = nice_set_one, .value = ARG_INT(2)};

	if (ARG_INT(0) < PRIO_PROCESS || ARG_INT(0) > PRIO_USER)
		return -EINVAL;
	return prio_walk(&w, ARG_INT(0), ARG_INT(1));
}

/* ---- I/O priorities: class << 13 | level; 0 is none, which follows the nice value ---- */

#define IOPRIO_LEVELS 8

/* The bits between level and class are hints, which older kernels call a bad level. */
static int ioprio_check(struct task *t, int prio)
{
	switch (prio >> IOPRIO_CLASS_SHIFT & 7) {
	case IOPRIO_CLASS_RT:
		if (!cred_has_cap(t->cred, CAP_SYS_ADMIN) && !cred_has_cap(t->cred, CAP_SYS_NICE))
			return -EPERM;
		return 0;
	case IOPRIO_CLASS_BE:
	case IOPRIO_CLASS_IDLE:
		return 0;
	case IOPRIO_CLASS_NONE:
		return prio & (IOPRIO_LEVELS - 1) ? -EINVAL : 0;
	default:
		return -EINVAL;
	}
}

static int64_t ioprio_set_one(struct prio_walk *w, struct task *target)
{
	if (!sys_sched_may_set(w->t, target))
		return -EPERM;
	atomic_store(&target->ioprio, (uint16_t)w->value);
	return 0;
}

/* The process's own as it was set; what a group's comes to is compared, so that "none" counts as what nice makes of it. */
static int64_t ioprio_get_raw(struct prio_walk *w, struct task *target)
{
	w->best = atomic_load(&target->ioprio);
	return 0;
}

static int64_t ioprio_get_best(struct prio_walk *w, struct task *target)
{
	int64_t prio = atomic_load(&target->ioprio);

	if (!(prio >> IOPRIO_CLASS_SHIFT))
		prio = IOPRIO_CLASS_BE << IOPRIO_CLASS_SHIFT | (target->nice + 20) / 5;
	/* The smaller class and level is the higher priority. */
	w->best = w->best < 0 ? prio : MIN(w->best, prio);
	return 0;
}

int64_t sys_ioprio_set(struct task *t, const struct syscall_args *a)
{
	struct prio_walk w = {
		.t = t, .one = ioprio_set_one, .value = ARG_INT(2), .stop_at_error = true};
	int err = ioprio_check(t, w.value);

	if (err)
		return err;
	if (ARG_INT(0) < IOPRIO_WHO_PROCESS || ARG_INT(0) > IOPRIO_WHO_USER)
		return -EINVAL;
	return prio_walk(&w, ARG_INT(0) - IOPRIO_WHO_PROCESS, ARG_INT(1));
}

int64_t sys_ioprio_get(struct task *t, const struct syscall_args *a)
{
	struct prio_walk w = {.t = t,
			      .one = ARG_INT(0) == IOPRIO_WHO_PROCESS ? ioprio_get_raw
								      : ioprio_get_best,
			      .best = -1};
	int64_t err;

	if (ARG_INT(0) < IOPRIO_WHO_PROCESS || ARG_INT(0) > IOPRIO_WHO_USER)
		return -EINVAL;
	err = prio_walk(&w, ARG_INT(0) - IOPRIO_WHO_PROCESS, ARG_INT(1));
	return err ? err : w.best;
}
