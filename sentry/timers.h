/*
 * sentry/timers.h - a process's timers: ITIMER_REAL/VIRTUAL/PROF, timer_create(2), RLIMIT_CPU; and the clocks.
 *
 * One struct posix_timers per thread group, made on first use. Its lock (LOCK_TIMER - 1) guards settings; ktimer callbacks run
 * on the timer thread and send signals. CPU-time timers poll: armed for the least wall time in which they could expire.
 */
#ifndef MOAT_SENTRY_TIMERS_H
#define MOAT_SENTRY_TIMERS_H

#include "sentry/task.h"

#define POSIX_TIMERS_MAX 4096 /* per process; RLIMIT_SIGPENDING bounds them too */

struct posix_timers;

/* The current value of a clock id for the calling task, ns. -EINVAL: no such clock. Handles CPU clocks of tasks and groups. */
must_check int clock_read(struct task *t, int clock, int64_t *ret_ns);
must_check int clock_resolution(struct task *t, int clock, int64_t *ret_ns);
/* A clock whose passing can be waited for by a deadline on CLOCK_MONOTONIC (not CPU clocks). */
bool clock_is_wall(int clock);
/* An absolute time of a wall clock as a CLOCK_MONOTONIC deadline, saturating. */
int64_t clock_to_monotonic(int clock, int64_t abs_ns);

/* A CPU clock's id taken apart: id 0 is the caller, kind CPUCLOCK_*. False: no CPU clock. */
enum { CPUCLOCK_PROF, CPUCLOCK_VIRT, CPUCLOCK_SCHED };
bool clock_decode_cpu(int clock, int32_t *ret_id, bool *ret_thread, int *ret_kind);
struct task_times;
int64_t clock_cpu_value(const struct task_times *times, int kind);

struct itimer_ns {
	int64_t value, interval;
};
/* which: ITIMER_*. Return 0, -EINVAL, -ENOMEM. new may be NULL. */
must_check int itimer_set(struct task *t, int which, const struct itimer_ns *new_,
			  struct itimer_ns *ret_old);

struct posix_timer_args {
	int clock, notify, signo, tid; /* notify: SIGEV_* */
	bool value_is_id; /* no sigevent was given */
	uint64_t value;
};
must_check int posix_timer_create(struct task *t, const struct posix_timer_args *args, int *ret_id);
must_check int posix_timer_settime(struct task *t, int id, bool absolute,
				   const struct itimer_ns *new_, struct itimer_ns *ret_old);
must_check int posix_timer_gettime(struct task *t, int id, struct itimer_ns *ret);
must_check int posix_timer_getoverrun(struct task *t, int id);
must_check int posix_timer_delete(struct task *t, int id);
void posix_timers_destroy(struct posix_timers *pts);
/* RLIMIT_CPU changed. */
void rlimit_cpu_update(struct thread_group *g);

#endif
