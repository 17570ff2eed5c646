/* syscalls/sys_time.c - clocks, sleeps, interval timers, POSIX timers. */
#include "syscalls/syscalls.h"

#include <signal.h>
#include <sys/time.h>
#include <time.h>

#include "sentry/timers.h"
#include "syscalls/util.h"

#define NSEC 1000000000ll
#define USER_HZ 100
#define CPU_SLEEP_STEP_NS 4000000ll

static int put_timespec(struct task *t, uint64_t uaddr, int64_t ns)
{
	struct moat_timespec ts = {ns / NSEC, ns % NSEC};

	return task_copy_out(t, uaddr, &ts, sizeof(ts));
}

/* Saturates: far futures are for ever. */
static int get_timespec(struct task *t, uint64_t uaddr, int64_t *ret_ns)
{
	struct moat_timespec ts;

	if (task_copy_in(t, &ts, uaddr, sizeof(ts)))
		return -EFAULT;
	if (ts.sec < 0 || ts.nsec < 0 || ts.nsec >= NSEC)
		return -EINVAL;
	*ret_ns = ts.sec >= INT64_MAX / NSEC ? TIME_FOREVER : ts.sec * NSEC + ts.nsec;
	return 0;
}

/* ---- reading and setting ---- */

int64_t sys_clock_gettime(struct task *t, const struct syscall_args *a)
{
	int64_t ns;
	int err = clock_read(t, ARG_INT(0), &ns);

	return err ? err : put_timespec(t, a->a[1], ns);
}

int64_t sys_clock_getres(struct task *t, const struct syscall_args *a)
{
	int64_t ns;
	int err = clock_resolution(t, ARG_INT(0), &ns);

	if (err || !a->a[1])
		return err;
	return put_timespec(t, a->a[1], ns);
}

/* The clocks are the host's: nobody in here sets them, whatever capability it has. */
int64_t sys_clock_settime(struct task *t, const struct syscall_args *a)
{
	int64_t ns;
	int err;

	switch (ARG_INT(0)) {
	case CLOCK_REALTIME:
		err = get_timespec(t, a->a[1], &ns);
		return err ? err : -EPERM;
	default:
		return -EINVAL;
	}
}

int64_t sys_settimeofday(struct task *t, const struct syscall_args *a)
{
	struct moat_timeval tv;

	if (a->a[0]) {
		if (task_copy_in(t, &tv, a->a[0], sizeof(tv)))
			return -EFAULT;
		if (tv.usec < 0 || tv.usec > 1000000)
			return -EINVAL;
	}
	return a->a[0] || a->a[1] ? -EPERM : 0;
}

int64_t sys_gettimeofday(struct task *t, const struct syscall_args *a)
{
	struct {
		int32_t minuteswest, dsttime;
	} tz = {0, 0};
	struct moat_timeval tv;
	int64_t ns;
	int err = clock_read(t, CLOCK_REALTIME, &ns);

	if (err)
		return err;
	tv = (struct moat_timeval){ns / NSEC, ns % NSEC / 1000};
	if (a->a[0] && task_copy_out(t, a->a[0], &tv, sizeof(tv)))
		return -EFAULT;
	if (a->a[1] && task_copy_out(t, a->a[1], &tz, sizeof(tz)))
		return -EFAULT;
	return 0;
}

int64_t sys_time(struct task *t, const struct syscall_args *a)
{
	int64_t ns, sec;
	int err = clock_read(t, CLOCK_REALTIME, &ns);

	if (err)
		return err;
	sec = ns / NSEC;
	if (a->a[0] && task_copy_out(t, a->a[0], &sec, sizeof(sec)))
		return -EFAULT;
	return sec;
}

int64_t sys_times(struct task *t, const struct syscall_args *a)
{
	struct task_times own, child;
	int64_t v[4];

	if (a->a[0]) {
		group_get_times(t->group, &own);
		group_get_child_times(t->group, &child);
		v[0] = own.utime_ns / (NSEC / USER_HZ);
		v[1] = own.stime_ns / (NSEC / USER_HZ);
		v[2] = child.utime_ns / (NSEC / USER_HZ);
		v[3] = child.stime_ns / (NSEC / USER_HZ);
		if (task_copy_out(t, a->a[0], v, sizeof(v)))
			return -EFAULT;
	}
	return time_monotonic_ns() / (NSEC / USER_HZ);
}

/* struct timex: only reading is possible. */
struct moat_timex {
	uint32_t modes, pad0;
	int64_t offset, freq, maxerror, esterror;
	int32_t status, pad1;
	int64_t constant, precision, tolerance;
	struct moat_timeval time;
	int64_t tick, ppsfreq, jitter;
	int32_t shift, pad2;
	int64_t stabil, jitcnt, calcnt, errcnt, stbcnt;
	int32_t tai, pad3[11];
};
_Static_assert(sizeof(struct moat_timex) == 208, "timex ABI");

#define ADJ_OFFSET_SS_READ_ 0xa001u
#define STA_UNSYNC_ 0x40
#define TIME_ERROR_ 5

static int64_t adjtimex_common(struct task *t, uint64_t uaddr)
{
	int64_t now = time_realtime_ns();
	struct moat_timex tx;

	if (task_copy_in(t, &tx, uaddr, sizeof(tx)))
		return -EFAULT;
	if (tx.modes && tx.modes != ADJ_OFFSET_SS_READ_)
		return -EPERM;
	tx = (struct moat_timex){.modes = tx.modes,
				 .maxerror = 16000000,
				 .esterror = 16000000,
				 .status = STA_UNSYNC_,
				 .constant = 2,
				 .precision = 1,
				 .tolerance = 32768000,
				 .tick = 10000,
				 .time = {now / NSEC, now % NSEC / 1000}};
	if (task_copy_out(t, uaddr, &tx, sizeof(tx)))
		return -EFAULT;
	return TIME_ERROR_;
}

int64_t sys_adjtimex(struct task *t, const struct syscall_args *a)
{
	return adjtimex_common(t, a->a[0]);
}

int64_t sys_clock_adjtime(struct task *t, const struct syscall_args *a)
{
	int64_t now;
	int err;

	if (ARG_INT(0) == CLOCK_REALTIME)
		return adjtimex_common(t, a->a[1]);
	err = clock_read(t, ARG_INT(0), &now);
	return err ? err : -EOPNOTSUPP;
}

/* ---- sleeping ---- */

static int sleep_until(struct task *t, int64_t deadline)
{
	int err;

	sleeper_set_what(&t->sleeper, "nanosleep");
	do
		err = sleeper_wait(&t->sleeper, SLEEP_INTERRUPTIBLE, deadline);
	while (!err);
	sleeper_set_what(&t->sleeper, NULL);
	return err == -ETIMEDOUT ? 0 : err;
}

static int64_t nanosleep_restart(struct task *t);

/* Interrupted: what is left is told, and the sleep goes on to its deadline if no handler runs. */
static int64_t nanosleep_rest(struct task *t, int64_t deadline, uint64_t urem)
{
	int64_t left = deadline - time_monotonic_ns();

	if (left <= 0)
		return 0;
	if (urem && deadline != TIME_FOREVER && put_timespec(t, urem, left))
		return -EFAULT;
	t->restart.nanosleep.deadline = deadline;
	t->restart.nanosleep.rem_addr = urem;
	t->restart_fn = nanosleep_restart;
	return -ERESTART_RESTARTBLOCK_;
}

static int64_t nanosleep_restart(struct task *t)
{
	int64_t deadline = t->restart.nanosleep.deadline;

	if (!sleep_until(t, deadline))
		return 0;
	return nanosleep_rest(t, deadline, t->restart.nanosleep.rem_addr);
}

static int64_t nanosleep_relative(struct task *t, int64_t ns, uint64_t urem)
{
	int64_t deadline = sys_deadline_after(ns);

	if (!sleep_until(t, deadline))
		return 0;
	return nanosleep_rest(t, deadline, urem);
}

int64_t sys_nanosleep(struct task *t, const struct syscall_args *a)
{
	int64_t ns;
	int err = get_timespec(t, a->a[0], &ns);

	return err ? err : nanosleep_relative(t, ns, a->a[1]);
}

/* On a process's CPU clock: looks every few milliseconds, as the process must burn it elsewhere meanwhile. */
static int64_t nanosleep_cpu(struct task *t, int clock, bool absolute, int64_t ns, uint64_t urem)
{
	int64_t now, end;
	int err;

	err = clock_read(t, clock, &now);
	if (err)
		return err;
	end = absolute ? ns : ns > TIME_FOREVER - now ? TIME_FOREVER : now + ns;
	while (now < end) {
		int64_t step = MAX((end - now) / (int64_t)kernel.cpus, CPU_SLEEP_STEP_NS);

		if (sleep_until(t, sys_deadline_after(step))) {
			if (!absolute && urem && put_timespec(t, urem, end - now))
				return -EFAULT;
			return absolute ? -ERESTARTNOHAND_ : -EINTR;
		}
		err = clock_read(t, clock, &now);
		if (err)
			return err;
	}
	return 0;
}

int64_t sys_clock_nanosleep(struct task *t, const struct syscall_args *a)
{
	int clock = ARG_INT(0);
	bool absolute = ARG_INT(1) & TIMER_ABSTIME;
	int64_t ns, now;
	int err;

	if (clock == CLOCK_REALTIME_ALARM || clock == CLOCK_BOOTTIME_ALARM)
		return -EOPNOTSUPP;
	if (!clock_is_wall(clock)) {
		if (clock == CLOCK_THREAD_CPUTIME_ID)
			return -EOPNOTSUPP;
		err = clock_read(t, clock, &now);
		if (err)
			return err;
		if (clock > 0 && clock != CLOCK_PROCESS_CPUTIME_ID)
			return -EOPNOTSUPP; /* coarse and raw clocks have no timers */
	}
	err = get_timespec(t, a->a[2], &ns);
	if (err)
		return err;
	if (!clock_is_wall(clock))
		return nanosleep_cpu(t, clock, absolute, ns, a->a[3]);
	if (!absolute)
		return nanosleep_relative(t, ns, a->a[3]);
	return sleep_until(t, clock_to_monotonic(clock, ns)) ? -ERESTARTNOHAND_ : 0;
}

/* ---- interval timers ---- */

struct moat_itimerval {
	struct moat_timeval interval, value;
};

static int64_t timeval_ns(const struct moat_timeval *tv)
{
	return tv->sec >= INT64_MAX / NSEC ? TIME_FOREVER : tv->sec * NSEC + tv->usec * 1000;
}

static struct moat_timeval ns_timeval(int64_t ns)
{
	/* Rounded up: a timer that runs never reads as zero. */
	ns += 999;
	return (struct moat_timeval){ns / NSEC, ns % NSEC / 1000};
}

static int put_itimer(struct task *t, uint64_t uaddr, const struct itimer_ns *it)
{
	struct moat_itimerval v = {.interval = ns_timeval(it->interval),
				   .value = ns_timeval(it->value)};

	return task_copy_out(t, uaddr, &v, sizeof(v));
}

int64_t sys_getitimer(struct task *t, const struct syscall_args *a)
{
	struct itimer_ns old;
	int err = itimer_set(t, ARG_INT(0), NULL, &old);

	return err ? err : put_itimer(t, a->a[1], &old);
}

static bool timeval_ok(const struct moat_timeval *tv)
{
	return tv->sec >= 0 && tv->usec >= 0 && tv->usec < 1000000;
}

int64_t sys_setitimer(struct task *t, const struct syscall_args *a)
{
	struct moat_itimerval v = {0};
	struct itimer_ns new, old;
	int err;

	if (a->a[1]) {
		if (task_copy_in(t, &v, a->a[1], sizeof(v)))
			return -EFAULT;
		if (!timeval_ok(&v.interval) || !timeval_ok(&v.value))
			return -EINVAL;
	}
	new.value = timeval_ns(&v.value);
	new.interval = timeval_ns(&v.interval);
	err = itimer_set(t, ARG_INT(0), &new, &old);
	if (err || !a->a[2])
		return err;
	return put_itimer(t, a->a[2], &old);
}

int64_t sys_alarm(struct task *t, const struct syscall_args *a)
{
	struct itimer_ns new = {.value = (int64_t)ARG_UINT(0) * NSEC}, old;
	int64_t sec;

	if (itimer_set(t, ITIMER_REAL, &new, &old))
		return 0;
	/* Rounded to the nearest second, but never to none. */
	sec = (old.value + NSEC / 2) / NSEC;
	return old.value && !sec ? 1 : sec;
}

/* ---- POSIX timers ---- */

struct moat_sigevent {
	uint64_t value;
	int32_t signo, notify, tid, pad[11];
};
_Static_assert(sizeof(struct moat_sigevent) == 64, "sigevent ABI");

struct moat_itimerspec {
	struct moat_timespec interval, value;
};

int64_t sys_timer_create(struct task *t, const struct syscall_args *a)
{
	struct posix_timer_args args = {
		.clock = ARG_INT(0), .notify = SIGEV_SIGNAL, .signo = SIGALRM, .value_is_id = true};
	struct moat_sigevent ev;
	int32_t id;
	int err;

	if (a->a[1]) {
		if (task_copy_in(t, &ev, a->a[1], sizeof(ev)))
			return -EFAULT;
		args.value_is_id = false;
		args.notify = ev.notify;
		args.signo = ev.signo;
		args.value = ev.value;
		args.tid = ev.tid;
	}
	err = posix_timer_create(t, &args, &id);
	if (err)
		return err;
	if (task_copy_out(t, a->a[2], &id, sizeof(id))) {
		err = posix_timer_delete(t, id);
		return err ? err : -EFAULT;
	}
	return 0;
}

static int put_itimerspec(struct task *t, uint64_t uaddr, const struct itimer_ns *it)
{
	struct moat_itimerspec v = {.interval = {it->interval / NSEC, it->interval % NSEC},
				    .value = {it->value / NSEC, it->value % NSEC}};

	return task_copy_out(t, uaddr, &v, sizeof(v));
}

static bool timespec_ns(const struct moat_timespec *ts, int64_t *ret)
{
	if (ts->sec < 0 || ts->nsec < 0 || ts->nsec >= NSEC)
		return false;
	*ret = ts->sec >= INT64_MAX / NSEC ? TIME_FOREVER : ts->sec * NSEC + ts->nsec;
	return true;
}

int64_t sys_timer_settime(struct task *t, const struct syscall_args *a)
{
	struct moat_itimerspec v;
	struct itimer_ns new, old;
	int err;

	if (!a->a[2])
		return -EINVAL;
	if (task_copy_in(t, &v, a->a[2], sizeof(v)))
		return -EFAULT;
	if (!timespec_ns(&v.interval, &new.interval) || !timespec_ns(&v.value, &new.value))
		return -EINVAL;
	err = posix_timer_settime(t, ARG_INT(0), ARG_INT(1) & TIMER_ABSTIME, &new, &old);
	if (err || !a->a[3])
		return err;
	return put_itimerspec(t, a->a[3], &old);
}

int64_t sys_timer_gettime(struct task *t, const struct syscall_args *a)
{
	struct itimer_ns it;
	int err = posix_timer_gettime(t, ARG_INT(0), &it);

	return err ? err : put_itimerspec(t, a->a[1], &it);
}

int64_t sys_timer_getoverrun(struct task *t, const struct syscall_args *a)
{
	return posix_timer_getoverrun(t, ARG_INT(0));
}

int64_t sys_timer_delete(struct task *t, const struct syscall_args *a)
{
	return posix_timer_delete(t, ARG_INT(0));
}
