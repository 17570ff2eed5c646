/*
 * sentry/clock.c - the clocks' ids and their values: the host's wall clocks, and the CPU time of tasks and processes.
 *
 * Cannot do: the ALARM clocks (they need an RTC), and dynamic clocks by descriptor.
 */
#include <time.h>

#include "sentry/loader.h"
#include "sentry/task_internal.h"
#include "sentry/timers.h"

#define NSEC 1000000000ll

static int64_t host_clock(clockid_t id)
{
	struct timespec ts;

	if (clock_gettime(id, &ts))
		return -1;
	return ts.tv_sec * NSEC + ts.tv_nsec;
}

bool clock_is_wall(int clock)
{
	switch (clock) {
	case CLOCK_REALTIME:
	case CLOCK_MONOTONIC:
	case CLOCK_BOOTTIME:
	case CLOCK_TAI:
		return true;
	default:
		return false;
	}
}

int64_t clock_to_monotonic(int clock, int64_t abs_ns)
{
	int64_t off;

	if (clock == CLOCK_MONOTONIC)
		return abs_ns;
	off = host_clock(clock) - time_monotonic_ns();
	if (off > 0 && abs_ns < INT64_MIN + off)
		return 0;
	return abs_ns == TIME_FOREVER ? TIME_FOREVER : abs_ns - off;
}

/* Dynamic clock ids: ~pid << 3 | per-thread bit | kind. */
#define CPUCLOCK_PERTHREAD 4

bool clock_decode_cpu(int clock, int32_t *ret_id, bool *ret_thread, int *ret_kind)
{
	if (clock == CLOCK_PROCESS_CPUTIME_ID || clock == CLOCK_THREAD_CPUTIME_ID) {
		*ret_id = 0;
		*ret_thread = clock == CLOCK_THREAD_CPUTIME_ID;
		*ret_kind = CPUCLOCK_SCHED;
		return true;
	}
	if (clock >= 0 || (clock & 3) == 3)
		return false;
	*ret_id = ~(clock >> 3);
	*ret_thread = clock & CPUCLOCK_PERTHREAD;
	*ret_kind = clock & 3;
	return true;
}

int64_t clock_cpu_value(const struct task_times *times, int kind)
{
	return kind == CPUCLOCK_VIRT ? times->utime_ns : times->utime_ns + times->stime_ns;
}

static int cpu_clock_read(struct task *t, int32_t id, bool thread, int kind, int64_t *ret_ns)
{
	struct thread_group *g = NULL;
	struct task_times times;
	struct task *other;

	if (!id) {
		if (thread)
			task_get_times(t, &times);
		else
			group_get_times(t->group, &times);
	} else if (thread) {
		other = task_find_v(t, id);
		if (!other || other->group != t->group) {
			if (other)
				task_unref(other);
			return -EINVAL;
		}
		task_get_times(other, &times);
		task_unref(other);
	} else {
		g = group_find(pid_root(t, id));
		if (!g)
			return -EINVAL;
		group_get_times(g, &times);
		group_unref(g);
	}
	*ret_ns = clock_cpu_value(&times, kind);
	return 0;
}

int clock_read(struct task *t, int clock, int64_t *ret_ns)
{
	int32_t id;
	bool thread;
	int kind;

	if (clock_decode_cpu(clock, &id, &thread, &kind))
		return cpu_clock_read(t, id, thread, kind, ret_ns);
	switch (clock) {
	/* The coarse ones are as fine as the vDSO's, which knows no ticks: a reader of both must not see time go back. */
	case CLOCK_REALTIME:
	case CLOCK_REALTIME_COARSE:
		if (!vdso_clock_read(false, ret_ns))
			*ret_ns = host_clock(CLOCK_REALTIME);
		return 0;
	case CLOCK_MONOTONIC:
	case CLOCK_MONOTONIC_COARSE:
		if (!vdso_clock_read(true, ret_ns))
			*ret_ns = host_clock(CLOCK_MONOTONIC);
		return 0;
	case CLOCK_MONOTONIC_RAW:
	case CLOCK_BOOTTIME:
	case CLOCK_TAI:
		*ret_ns = host_clock(clock);
		return 0;
	default: /* the ALARM clocks need an RTC, and there is none */
		return -EINVAL;
	}
}

int clock_resolution(struct task *t, int clock, int64_t *ret_ns)
{
	int64_t now;
	int err = clock_read(t, clock, &now);

	if (err)
		return err;
	*ret_ns = clock == CLOCK_REALTIME_COARSE || clock == CLOCK_MONOTONIC_COARSE ? 4000000 : 1;
	return 0;
}
