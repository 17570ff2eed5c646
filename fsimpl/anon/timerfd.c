/*
 * fsimpl/anon/timerfd.c - timerfd_create(2).
 *
 * Expirations are counted when somebody looks: `next` and `interval` say everything, and the ktimer only wakes whoever waits.
 * As on Linux, a periodic timer that nobody reads wakes its waiters once, not every period.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <time.h>

#include "base/buf.h"
#include "base/sleep.h"
#include "base/timer.h"
#include "fsimpl/anon/anon.h"

struct timerfd {
	struct file f;
	struct ktimer timer;
	int clockid; /* immutable */
	struct mutex lock; /* LOCK_PIPE; guards what follows. The ktimer is armed without it */
	int64_t next; /* host monotonic ns; 0: disarmed */
	int64_t interval;
	uint64_t ticks; /* not read yet */
	int settime_flags;
	struct wait_queue wait;
};

#define NS_PER_S 1000000000ll

static struct timerfd *timerfd_of(struct file *f)
{
	return (struct timerfd *)f;
}

static int64_t clock_ns(int clockid)
{
	struct timespec ts;

	if (clockid == CLOCK_REALTIME_ALARM)
		clockid = CLOCK_REALTIME;
	else if (clockid == CLOCK_BOOTTIME_ALARM)
		clockid = CLOCK_BOOTTIME;
	clock_gettime(clockid, &ts);
	return ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

static void timerfd_fire(struct ktimer *kt)
{
	struct timerfd *t = container_of(kt, struct timerfd, timer);

	wait_queue_wake(&t->wait, POLLIN | POLLRDNORM);
}

/* Arms for `next` as it is; whoever changes it while we arm arms again itself, so the last one wins. */
static void timerfd_arm(struct timerfd *t)
{
	for (;;) {
		int64_t next, now;

		mutex_lock(&t->lock);
		next = t->next;
		mutex_unlock(&t->lock);
		if (next)
			ktimer_arm(&t->timer, next);
		else
			ktimer_cancel(&t->timer);
		mutex_lock(&t->lock);
		now = t->next;
		mutex_unlock(&t->lock);
		if (now == next)
			return;
	}
}

/* Counts what has expired. Pre: lock. True if a next expiry must be armed. */
static bool timerfd_advance_locked(struct timerfd *t)
{
	int64_t now = time_monotonic_ns(), n;

	if (!t->next || now < t->next)
		return false;
	if (!t->interval) {
		t->ticks++;
		t->next = 0;
		return false;
	}
	n = 1 + (now - t->next) / t->interval;
	t->ticks += (uint64_t)n;
	t->next += n * t->interval;
	return true;
}

static ssize_t timerfd_read_iter(struct file *f, struct io_iter *it, unused_arg int64_t off,
				 unused_arg int rwf)
{
	struct timerfd *t = timerfd_of(f);
	uint64_t ticks;
	bool arm;

	if (it->remaining < sizeof(ticks))
		return -EINVAL;
	mutex_lock(&t->lock);
	arm = timerfd_advance_locked(t);
	ticks = t->ticks;
	t->ticks = 0;
	mutex_unlock(&t->lock);
	if (arm)
		timerfd_arm(t);
	if (!ticks)
		return -EAGAIN;
	return io_iter_put(it, &ticks, sizeof(ticks)) == sizeof(ticks) ? (ssize_t)sizeof(ticks)
								       : -EFAULT;
}

static uint32_t timerfd_poll(struct file *f)
{
	struct timerfd *t = timerfd_of(f);
	bool ready;

	mutex_lock(&t->lock);
	ready = t->ticks || (t->next && time_monotonic_ns() >= t->next);
	mutex_unlock(&t->lock);
	return ready ? POLLIN : 0;
}

static void timerfd_poll_add(struct file *f, struct waiter *w)
{
	wait_queue_add(&timerfd_of(f)->wait, w);
}

static void timerfd_poll_remove(unused_arg struct file *f, struct waiter *w)
{
	wait_queue_remove(w);
}

static void timerfd_release(struct file *f)
{
	struct timerfd *t = timerfd_of(f);

	ktimer_cancel_sync(&t->timer);
	wait_queue_fini(&t->wait);
	file_free(f);
}

static void timerfd_show(struct file *f, struct buf *b)
{
	struct timerfd *t = timerfd_of(f);
	struct itimerspec its;
	uint64_t ticks;
	int flags;

	timerfd_gettime_file(f, &its);
	mutex_lock(&t->lock);
	ticks = t->ticks;
	flags = t->settime_flags;
	mutex_unlock(&t->lock);
	buf_printf(b,
		   "clockid: %d\nticks: %llu\nsettime flags: 0%o\n"
		   "it_value: (%llu, %llu)\nit_interval: (%llu, %llu)\n",
		   t->clockid, (unsigned long long)ticks, flags,
		   (unsigned long long)its.it_value.tv_sec,
		   (unsigned long long)its.it_value.tv_nsec,
		   (unsigned long long)its.it_interval.tv_sec,
		   (unsigned long long)its.it_interval.tv_nsec);
}

static const struct file_ops timerfd_ops = {
	.name = "anon_inode:[timerfd]",
	.release = timerfd_release,
	.read_iter = timerfd_read_iter,
	.poll = timerfd_poll,
	.poll_add = timerfd_poll_add,
	.poll_remove = timerfd_poll_remove,
	.stat = anon_file_stat,
	.set_stat = anon_file_set_stat,
	.show_fdinfo = timerfd_show,
};

int timerfd_create_file(int clockid, unsigned flags, struct file **ret)
{
	struct anon_args args = {.kind = ANON_INODE, .name = "[timerfd]", .mode = 0600};
	struct timerfd *t;
	int err;

	if (flags & ~(unsigned)(TFD_NONBLOCK | TFD_CLOEXEC))
		return -EINVAL;
	if (clockid != CLOCK_REALTIME && clockid != CLOCK_MONOTONIC && clockid != CLOCK_BOOTTIME &&
	    clockid != CLOCK_REALTIME_ALARM && clockid != CLOCK_BOOTTIME_ALARM)
		return -EINVAL;
	t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	t->clockid = clockid;
	mutex_init(&t->lock, LOCK_PIPE, "timerfd");
	wait_queue_init(&t->wait);
	ktimer_init(&t->timer, timerfd_fire);
	err = anon_file_init(&t->f, &timerfd_ops, &args, O_RDWR | (flags & TFD_NONBLOCK),
			     FILE_READ | FILE_WRITE | FILE_STREAM);
	if (err) {
		free(t);
		return err;
	}
	*ret = &t->f;
	return 0;
}

bool timerfd_is(struct file *f)
{
	return f->ops == &timerfd_ops;
}

/* ns, saturated: ktime_t's range. */
static int64_t ns_of(const struct timespec *ts)
{
	return ts->tv_sec >= INT64_MAX / NS_PER_S ? INT64_MAX / 2
						  : ts->tv_sec * NS_PER_S + ts->tv_nsec;
}

static struct timespec timespec_of(int64_t ns)
{
	return (struct timespec){.tv_sec = ns / NS_PER_S, .tv_nsec = ns % NS_PER_S};
}

static void timerfd_get_locked(struct timerfd *t, struct itimerspec *ret)
{
	int64_t left = 0;

	if (t->next) {
		left = t->next - time_monotonic_ns();
		if (left < 1)
			left = 1; /* armed, about to expire */
	}
	ret->it_value = timespec_of(left);
	ret->it_interval = timespec_of(t->interval);
}

static bool timespec_valid(const struct timespec *ts)
{
	return ts->tv_sec >= 0 && ts->tv_nsec >= 0 && ts->tv_nsec < NS_PER_S;
}

int timerfd_settime_file(struct file *f, int flags, const struct itimerspec *value,
			 struct itimerspec *ret_old)
{
	struct timerfd *t = timerfd_of(f);
	int64_t at = ns_of(&value->it_value), now;

	if (flags & ~(TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET))
		return -EINVAL;
	if (!timespec_valid(&value->it_value) || !timespec_valid(&value->it_interval))
		return -EINVAL;
	if (at) {
		now = time_monotonic_ns();
		if (flags & TFD_TIMER_ABSTIME)
			at -= clock_ns(t->clockid);
		if (at > INT64_MAX / 2 - now)
			at = INT64_MAX / 2 - now;
		at += now;
		if (at < 1)
			at = 1;
	}
	mutex_lock(&t->lock);
	timerfd_advance_locked(t);
	if (ret_old)
		timerfd_get_locked(t, ret_old);
	t->ticks = 0;
	t->next = at;
	t->interval = ns_of(&value->it_interval);
	t->settime_flags = flags;
	mutex_unlock(&t->lock);
	timerfd_arm(t);
	return 0;
}

void timerfd_gettime_file(struct file *f, struct itimerspec *ret)
{
	struct timerfd *t = timerfd_of(f);
	bool arm;

	mutex_lock(&t->lock);
	arm = timerfd_advance_locked(t);
	timerfd_get_locked(t, ret);
	mutex_unlock(&t->lock);
	if (arm)
		timerfd_arm(t);
}
