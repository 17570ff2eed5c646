/* syscalls/sched.h - what sys_sched.c (policies, affinity) and sys_priority.c (nice, I/O priorities) share. */
#ifndef MOAT_SYSCALLS_SCHED_H
#define MOAT_SYSCALLS_SCHED_H

#include "sentry/task.h"

/* The task of a tid, 0 for the caller, with a reference; NULL. */
struct task *sys_sched_target(struct task *t, int32_t tid);
/* May the caller change the target's scheduling: the same user, or CAP_SYS_NICE. */
bool sys_sched_may_set(struct task *t, struct task *target);
/* The nice value, cut to -20..19. Return 0, -EPERM, -EACCES. */
int64_t sys_set_nice(struct task *t, struct task *target, int nice);

#endif
