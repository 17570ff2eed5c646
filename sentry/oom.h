/* sentry/oom.h - between oom.c, oom_host.c and who passes the monitor's answers on. */
#ifndef MOAT_SENTRY_OOM_H
#define MOAT_SENTRY_OOM_H

#include "sentry/cgroup.h"

/* What is kept free below that limit. */
uint64_t oom_host_reserve(uint64_t limit);
/* Of a task that has the container's oom_busy. reserve: what is to be free at least, up to oom_host_reserve(). Return: false: somebody has to be killed. */
bool oom_host_has_room(struct task_cgroup *cg, uint64_t limit, uint64_t reserve);
/* The answer to kernel.ask_room()'s question: err as CONTROL_ROOM has it in exit_code. */
void oom_room_told(int32_t question, int err, uint64_t bytes);

#endif
