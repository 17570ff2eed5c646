/*
 * sentry/timers.c - interval timers, POSIX timers, RLIMIT_CPU.
 *
 * Wall clocks pass with the host's CLOCK_MONOTONIC: every expiry is a ktimer. CPU clocks have no interrupt of their own here: one ktimer per
 * process polls, armed for the least wall time after which the nearest of them could expire (what is left, divided by the threads that
 * can burn it), and looks again.
 *
 * A POSIX timer's signal uses the entry embedded in the timer, so it is queued at most once; while it is, expiries count as overruns.
 * As on Linux the timer is re-armed when its signal is taken (posix_timer_dequeued), which bounds what a short interval can cost.
 *
 * Locks: pts->lock (rank just below LOCK_TIMER) -> ktimers, sighand locks. ktimer_cancel_sync() is never called with it held.
 * Cannot do: timers on CLOCK_REALTIME do not follow a host clock that is set while they run.
 */
#include <sys/resource.h>
#include <sys/time.h>
#include <time.h>

#include "sentry/task_internal.h"
#include "sentry/timers.h"

#define LOCK_POSIX_TIMERS ((enum lock_rank)(LOCK_TIMER - 1))
#define NSEC 1000000000ll
#define CPU_POLL_MIN_NS 1000000ll /* 1 ms */
#define IGNORED_MIN_NS 1000000ll /* an ignored signal's timer expires at most so often */
#define REAL_BUSY_MIN_NS 100000ll /* ITIMER_REAL whose SIGALRM is still pending */

REF_TYPE(posix_timer_ref_type, "posix timer");

struct posix_timer {
	struct ref ref;
	struct rcu_cb rcu;
	struct ktimer ktimer;
	struct posix_timers *pts; /* borrowed: outlives every armed timer */
	int id;
	int clock, notify, signo;
	int32_t cpu_tid; /* CPU clocks: whose; a tid or a tgid */
	uint64_t value;
	struct task *task; /* SIGEV_THREAD_ID: a reference */
	struct sigqueue_entry entry;
	/* guarded by pts->lock: */
	bool deleted, armed;
	bool wait_dequeue; /* expired, its signal is queued: re-armed when it is taken */
	int64_t expires_ns; /* CLOCK_MONOTONIC, or CPU time */
	int64_t interval_ns;
	int64_t overrun, overrun_last;
	int32_t seq; /* of the setting: signals of an older one do not re-arm */
};

struct cpu_itimer {
	int64_t expires_ns, interval_ns; /* 0: off; CPU time */
};

struct posix_timers {
	struct mutex lock;
	struct thread_group *group; /* borrowed */
	bool dead;
	struct ktimer real;
	int64_t real_deadline, real_interval; /* 0: off */
	struct cpu_itimer virt, prof;
	struct ktimer cpu; /* polls the CPU timers */
	int64_t rlimit_next_ns; /* CPU time at which RLIMIT_CPU is looked at; 0: no limit */
	struct idr timers;
	int cpu_timers; /* armed ones on CPU clocks */
};

/* ---- the object ---- */

static void real_expired(struct ktimer *k);
static void cpu_poll(struct ktimer *k);

static struct posix_timers *posix_timers_get(struct thread_group *g)
{
	struct posix_timers *pts = rcu_load(g->timers), *old = NULL;

	if (pts)
		return pts;
	pts = calloc(1, sizeof(*pts));
	if (!pts)
		return NULL;
	mutex_init(&pts->lock, LOCK_POSIX_TIMERS, "posix timers");
	pts->group = g;
	ktimer_init(&pts->real, real_expired);
	ktimer_init(&pts->cpu, cpu_poll);
	idr_init(&pts->timers, 0, POSIX_TIMERS_MAX - 1, "posix timer ids");
	if (atomic_compare_exchange_strong(&g->timers, &old, pts))
		return pts;
	idr_fini(&pts->timers);
	free(pts);
	return old;
}

/* ---- ITIMER_REAL ---- */

static void real_expired(struct ktimer *k)
{
	struct posix_timers *pts = container_of(k, struct posix_timers, real);
	int64_t now, next;
	bool fire;

	mutex_lock(&pts->lock);
	now = time_monotonic_ns();
	/* It may have been set anew since the timer thread picked it. */
	fire = !pts->dead && pts->real_deadline && pts->real_deadline <= now;
	if (fire) {
		next = 0;
		if (pts->real_interval) {
			int64_t missed = (now - pts->real_deadline) / pts->real_interval;

			next = pts->real_deadline + (missed + 1) * pts->real_interval;
			next = MAX(next, now + REAL_BUSY_MIN_NS);
		}
		pts->real_deadline = next;
		if (next)
			ktimer_arm(&pts->real, next);
	}
	mutex_unlock(&pts->lock);
	if (fire)
		signal_send_group_kernel(pts->group, SIGALRM);
}

/* ---- CPU timers ---- */

static void posix_timer_fire(struct posix_timer *pt);

static void group_cpu(struct thread_group *g, int64_t *ret_virt, int64_t *ret_prof)
{
	struct task_times times;

	group_get_times(g, &times);
	*ret_virt = times.utime_ns;
	*ret_prof = times.utime_ns + times.stime_ns;
}

static int64_t cpu_timer_now(struct posix_timers *pts, const struct posix_timer *pt)
{
	struct task_times times = {0};
	struct thread_group *g;
	bool thread = false;
	int32_t id;
	int kind = CPUCLOCK_SCHED;

	(void)clock_decode_cpu(pt->clock, &id, &thread, &kind);
	if (thread) {
		struct task *t = task_find(pt->cpu_tid);

		if (!t)
			return -1;
		task_get_times(t, &times);
		task_unref(t);
	} else if (pt->cpu_tid == pts->group->tgid) {
		group_get_times(pts->group, &times);
	} else {
		g = group_find(pt->cpu_tid);
		if (!g)
			return -1;
		group_get_times(g, &times);
		group_unref(g);
	}
	return clock_cpu_value(&times, kind);
}

/* One itimer against the clock: true if it expired; *left becomes what is left at least. */
static bool cpu_itimer_check(struct cpu_itimer *it, int64_t now, int64_t *left)
{
	bool fired = false;

	if (!it->expires_ns)
		return false;
	if (now >= it->expires_ns) {
		fired = true;
		if (it->interval_ns)
			it->expires_ns +=
				((now - it->expires_ns) / it->interval_ns + 1) * it->interval_ns;
		else
			it->expires_ns = 0;
	}
	if (it->expires_ns)
		*left = MIN(*left, it->expires_ns - now);
	return fired;
}

/* RLIMIT_CPU: SIGXCPU at the soft limit and every second after it, SIGKILL at the hard one. Return: the signal or 0. */
static int cpu_rlimit_check(struct posix_timers *pts, int64_t now, int64_t *left)
{
	struct rlimits *r = pts->group->rlimits;
	uint64_t soft, hard;
	int signo = 0;

	if (!pts->rlimit_next_ns)
		return 0;
	mutex_lock(&r->lock);
	soft = r->lim[RLIMIT_CPU].cur;
	hard = r->lim[RLIMIT_CPU].max;
	mutex_unlock(&r->lock);
	if (soft == RLIM_INFINITY) {
		pts->rlimit_next_ns = 0;
		return 0;
	}
	if (hard != RLIM_INFINITY && (uint64_t)now / NSEC >= hard)
		return SIGKILL;
	if (now >= pts->rlimit_next_ns) {
		signo = SIGXCPU;
		pts->rlimit_next_ns = (now / NSEC + 1) * NSEC;
	}
	*left = MIN(*left, pts->rlimit_next_ns - now);
	return signo;
}

static void cpu_posix_check(struct posix_timers *pts, int64_t *left)
{
	struct posix_timer *pt;
	int64_t now;
	int32_t id;
	bool thread;
	int kind;

	if (!pts->cpu_timers)
		return;
	for (int32_t i = 0; (pt = idr_next(&pts->timers, &i)); i++) {
		if (!pt->armed || !clock_decode_cpu(pt->clock, &id, &thread, &kind))
			continue;
		now = cpu_timer_now(pts, pt);
		if (now < 0)
			continue;
		if (now >= pt->expires_ns)
			posix_timer_fire(pt);
		else
			*left = MIN(*left, pt->expires_ns - now);
	}
}

/* Looks at all CPU timers and arms the next look. Sends no signal of the process-wide ones: returns them as a mask. pts->lock held. */
static uint64_t cpu_check_locked(struct posix_timers *pts)
{
	int64_t left = INT64_MAX, virt, prof, wait;
	uint64_t signals = 0;
	int signo;

	if (pts->dead)
		return 0;
	group_cpu(pts->group, &virt, &prof);
	if (cpu_itimer_check(&pts->virt, virt, &left))
		signals |= sigbit(SIGVTALRM);
	if (cpu_itimer_check(&pts->prof, prof, &left))
		signals |= sigbit(SIGPROF);
	signo = cpu_rlimit_check(pts, prof, &left);
	if (signo)
		signals |= sigbit(signo);
	cpu_posix_check(pts, &left);
	if (left != INT64_MAX) {
		wait = left / MAX(1, atomic_load(&pts->group->live));
		ktimer_arm(&pts->cpu, time_monotonic_ns() + MAX(wait, CPU_POLL_MIN_NS));
	}
	return signals;
}

static void cpu_poll(struct ktimer *k)
{
	struct posix_timers *pts = container_of(k, struct posix_timers, cpu);
	uint64_t signals;

	mutex_lock(&pts->lock);
	signals = cpu_check_locked(pts);
	mutex_unlock(&pts->lock);
	for (int s = 1; signals; s++, signals >>= 1)
		if (signals & 1)
			signal_send_group_kernel(pts->group, s);
}

static void cpu_check(struct posix_timers *pts)
{
	cpu_poll(&pts->cpu);
}

void rlimit_cpu_update(struct thread_group *g)
{
	struct posix_timers *pts;
	uint64_t soft;

	mutex_lock(&g->rlimits->lock);
	soft = g->rlimits->lim[RLIMIT_CPU].cur;
	mutex_unlock(&g->rlimits->lock);
	pts = soft == RLIM_INFINITY ? rcu_load(g->timers) : posix_timers_get(g);
	if (!pts)
		return;
	mutex_lock(&pts->lock);
	pts->rlimit_next_ns =
		soft == RLIM_INFINITY
			? 0
			: (int64_t)MIN(MAX(soft, 1ul), (uint64_t)INT64_MAX / NSEC) * NSEC;
	mutex_unlock(&pts->lock);
	cpu_check(pts);
}

/* ---- setitimer ---- */

static int64_t sat_add(int64_t a, int64_t b)
{
	int64_t sum;

	return __builtin_add_overflow(a, b, &sum) ? TIME_FOREVER : sum;
}

static void itimer_real_set(struct posix_timers *pts, const struct itimer_ns *new_,
			    struct itimer_ns *old, int64_t now)
{
	old->value = pts->real_deadline ? MAX(pts->real_deadline - now, 1000) : 0;
	old->interval = pts->real_interval;
	if (!new_)
		return;
	pts->real_interval = new_->interval;
	pts->real_deadline = new_->value ? sat_add(now, new_->value) : 0;
	if (pts->real_deadline)
		ktimer_arm(&pts->real, pts->real_deadline);
	else
		ktimer_cancel(&pts->real);
}

static void itimer_cpu_set(struct cpu_itimer *it, const struct itimer_ns *new_,
			   struct itimer_ns *old, int64_t now)
{
	old->value = it->expires_ns ? MAX(it->expires_ns - now, 1000) : 0;
	old->interval = it->interval_ns;
	if (!new_)
		return;
	it->interval_ns = new_->interval;
	it->expires_ns = new_->value ? sat_add(now, new_->value) : 0;
}

int itimer_set(struct task *t, int which, const struct itimer_ns *new_, struct itimer_ns *ret_old)
{
	struct posix_timers *pts = rcu_load(t->group->timers);
	struct itimer_ns old = {0};
	int64_t virt, prof;

	if (which < ITIMER_REAL || which > ITIMER_PROF)
		return -EINVAL;
	if (!pts && new_ && new_->value) {
		pts = posix_timers_get(t->group);
		if (!pts)
			return -ENOMEM;
	}
	if (pts) {
		mutex_lock(&pts->lock);
		group_cpu(t->group, &virt, &prof);
		if (which == ITIMER_REAL)
			itimer_real_set(pts, new_, &old, time_monotonic_ns());
		else if (which == ITIMER_VIRTUAL)
			itimer_cpu_set(&pts->virt, new_, &old, virt);
		else
			itimer_cpu_set(&pts->prof, new_, &old, prof);
		mutex_unlock(&pts->lock);
		if (which != ITIMER_REAL && new_)
			cpu_check(pts);
	}
	*ret_old = old;
	return 0;
}

/* ---- POSIX timers ---- */

static void posix_timer_free(struct rcu_cb *cb)
{
	free(container_of(cb, struct posix_timer, rcu));
}

void posix_timer_put(struct posix_timer *pt)
{
	if (!ref_put(&pt->ref))
		return;
	ref_fini(&pt->ref, &posix_timer_ref_type);
	rcu_call(&pt->rcu, posix_timer_free);
}

static bool posix_timer_is_cpu(const struct posix_timer *pt)
{
	return !clock_is_wall(pt->clock);
}

/* How many intervals passed after expires_ns, which moves past `now`. */
static int64_t posix_timer_forward(struct posix_timer *pt, int64_t now)
{
	int64_t n;

	if (now < pt->expires_ns)
		return 0;
	n = (now - pt->expires_ns) / pt->interval_ns + 1;
	pt->expires_ns += n * pt->interval_ns;
	return n;
}

static int64_t posix_timer_now(struct posix_timer *pt)
{
	return posix_timer_is_cpu(pt) ? cpu_timer_now(pt->pts, pt) : time_monotonic_ns();
}

/* Starts waiting for expires_ns; pts->lock held. CPU timers are seen by the next poll, which the caller starts. */
static void posix_timer_start(struct posix_timer *pt, int64_t not_before)
{
	if (!pt->armed && posix_timer_is_cpu(pt))
		pt->pts->cpu_timers++;
	pt->armed = true;
	if (posix_timer_is_cpu(pt))
		ktimer_arm(&pt->pts->cpu, time_monotonic_ns() + CPU_POLL_MIN_NS);
	else if (pt->notify != SIGEV_NONE)
		ktimer_arm(&pt->ktimer, MAX(pt->expires_ns, not_before));
}

static void posix_timer_stop(struct posix_timer *pt)
{
	if (pt->armed && posix_timer_is_cpu(pt))
		pt->pts->cpu_timers--;
	pt->armed = pt->wait_dequeue = false;
	ktimer_cancel(&pt->ktimer);
}

static int posix_timer_signal(struct posix_timer *pt)
{
	struct moat_siginfo info = {.si_signo = pt->signo, .si_code = SI_TIMER};
	int err;

	info.timer.timerid = pt->id;
	info.timer.value = pt->value;
	info.timer.sys_private = pt->seq;
	ref_get(&pt->ref); /* the queue's */
	if (pt->notify == SIGEV_THREAD_ID)
		err = signal_send_task_own(pt->task, &info, &pt->entry);
	else
		err = signal_send_group_own(pt->pts->group, &info, &pt->entry);
	if (err)
		posix_timer_put(pt);
	return err;
}

/* It expired: pts->lock held. */
static void posix_timer_fire(struct posix_timer *pt)
{
	int64_t now;
	int err;

	posix_timer_stop(pt);
	if (pt->notify == SIGEV_NONE)
		return;
	err = posix_timer_signal(pt);
	if (err == 2)
		pt->overrun++; /* the signal of an older setting is still queued */
	if (!pt->interval_ns)
		return;
	if (err == 0) {
		pt->wait_dequeue = true;
		pt->overrun = -1; /* this expiry is none: forward() counts it */
		return;
	}
	/* Ignored, or not to be queued: go on, but not at any speed. */
	now = posix_timer_now(pt);
	if (now >= 0) {
		(void)posix_timer_forward(pt, now);
		posix_timer_start(pt, time_monotonic_ns() + IGNORED_MIN_NS);
	}
}

static void posix_timer_expired(struct ktimer *k)
{
	struct posix_timer *pt = container_of(k, struct posix_timer, ktimer);
	struct posix_timers *pts = pt->pts;

	mutex_lock(&pts->lock);
	if (!pts->dead && !pt->deleted && pt->armed && time_monotonic_ns() >= pt->expires_ns)
		posix_timer_fire(pt);
	mutex_unlock(&pts->lock);
}

void posix_timer_dequeued(struct posix_timer *pt, struct moat_siginfo *info)
{
	struct posix_timers *pts = pt->pts;
	int64_t now;

	mutex_lock(&pts->lock);
	if (!pt->deleted && !pts->dead && info->timer.sys_private == pt->seq && pt->wait_dequeue) {
		pt->wait_dequeue = false;
		now = posix_timer_now(pt);
		if (now >= 0) {
			pt->overrun += posix_timer_forward(pt, now);
			posix_timer_start(pt, 0);
		}
	}
	pt->overrun_last = MAX(pt->overrun, 0);
	pt->overrun = 0;
	info->timer.overrun = (int32_t)MIN(pt->overrun_last, (int64_t)INT32_MAX);
	info->timer.sys_private = 0;
	mutex_unlock(&pts->lock);
	posix_timer_put(pt);
}

static int posix_timer_check_clock(struct task *t, struct posix_timer *pt)
{
	bool thread;
	int64_t now;
	int32_t id;
	int kind, err;

	if (clock_is_wall(pt->clock))
		return 0;
	if (pt->clock == CLOCK_REALTIME_ALARM || pt->clock == CLOCK_BOOTTIME_ALARM)
		return -EOPNOTSUPP;
	if (!clock_decode_cpu(pt->clock, &id, &thread, &kind))
		return pt->clock >= 0 && pt->clock < 12 && pt->clock != 10 ? -EOPNOTSUPP : -EINVAL;
	err = clock_read(t, pt->clock, &now);
	if (err)
		return err;
	pt->cpu_tid = id ? pid_root(t, id) : thread ? t->tid : t->group->tgid;
	return 0;
}

static int posix_timer_check_target(struct task *t, struct posix_timer *pt, int tid)
{
	if (pt->notify == SIGEV_NONE)
		return 0;
	if (pt->signo < 1 || pt->signo > SIG_COUNT)
		return -EINVAL;
	if (pt->notify != SIGEV_THREAD_ID)
		return pt->notify == SIGEV_SIGNAL || pt->notify == SIGEV_THREAD ? 0 : -EINVAL;
	pt->task = task_find_v(t, tid);
	if (!pt->task || pt->task->group != t->group)
		return -EINVAL;
	return 0;
}

static void posix_timer_discard(struct posix_timer *pt)
{
	struct task *task = pt->task;

	pt->task = NULL;
	if (task)
		task_unref(task);
	posix_timer_put(pt);
}

int posix_timer_create(struct task *t, const struct posix_timer_args *args, int *ret_id)
{
	struct posix_timers *pts = posix_timers_get(t->group);
	struct posix_timer *pt;
	int err;

	if (!pts)
		return -ENOMEM;
	pt = calloc(1, sizeof(*pt));
	if (!pt)
		return -EAGAIN;
	ref_init(&pt->ref, &posix_timer_ref_type);
	ktimer_init(&pt->ktimer, posix_timer_expired);
	pt->pts = pts;
	pt->clock = args->clock;
	pt->notify = args->notify;
	pt->signo = args->signo;
	pt->value = args->value;
	pt->entry.timer = pt;
	err = posix_timer_check_clock(t, pt);
	if (!err)
		err = posix_timer_check_target(t, pt, args->tid);
	if (!err) {
		mutex_lock(&pts->lock);
		pt->id = idr_alloc(&pts->timers, pt);
		err = pt->id < 0 ? -EAGAIN : 0;
		if (!err && args->value_is_id)
			pt->value = (uint64_t)(uint32_t)pt->id;
		mutex_unlock(&pts->lock);
	}
	if (err) {
		posix_timer_discard(pt);
		return err;
	}
	*ret_id = pt->id;
	return 0;
}

/* The timer with this id of the caller's process, pts->lock taken; NULL: none, lock not taken. */
static struct posix_timer *posix_timer_lock(struct task *t, int id)
{
	struct posix_timers *pts = rcu_load(t->group->timers);
	struct posix_timer *pt;

	if (!pts || id < 0 || id >= POSIX_TIMERS_MAX)
		return NULL;
	mutex_lock(&pts->lock);
	pt = idr_find(&pts->timers, id);
	if (!pt)
		mutex_unlock(&pts->lock);
	return pt;
}

static void posix_timer_read(struct posix_timer *pt, struct itimer_ns *ret)
{
	int64_t now = posix_timer_now(pt);

	*ret = (struct itimer_ns){.interval = pt->interval_ns};
	if (!pt->armed && !pt->wait_dequeue)
		return;
	if (pt->interval_ns && (pt->wait_dequeue || pt->notify == SIGEV_NONE)) {
		int64_t n = posix_timer_forward(pt, now);

		if (pt->wait_dequeue)
			pt->overrun += n;
	}
	ret->value = pt->expires_ns - now;
	if (ret->value <= 0)
		ret->value = pt->notify == SIGEV_NONE ? 0 : 1;
}

int posix_timer_settime(struct task *t, int id, bool absolute, const struct itimer_ns *new_,
			struct itimer_ns *ret_old)
{
	struct posix_timer *pt = posix_timer_lock(t, id);
	int64_t now;

	if (!pt)
		return -EINVAL;
	posix_timer_read(pt, ret_old);
	posix_timer_stop(pt);
	pt->seq++;
	pt->overrun = pt->overrun_last = 0;
	pt->interval_ns = 0;
	if (new_->value) {
		pt->interval_ns = new_->interval;
		now = posix_timer_now(pt);
		if (!absolute)
			pt->expires_ns = sat_add(now, new_->value);
		else
			pt->expires_ns = posix_timer_is_cpu(pt)
						 ? new_->value
						 : clock_to_monotonic(pt->clock, new_->value);
		posix_timer_start(pt, 0);
	}
	mutex_unlock(&pt->pts->lock);
	return 0;
}

int posix_timer_gettime(struct task *t, int id, struct itimer_ns *ret)
{
	struct posix_timer *pt = posix_timer_lock(t, id);

	if (!pt)
		return -EINVAL;
	posix_timer_read(pt, ret);
	mutex_unlock(&pt->pts->lock);
	return 0;
}

int posix_timer_getoverrun(struct task *t, int id)
{
	struct posix_timer *pt = posix_timer_lock(t, id);
	int64_t n;

	if (!pt)
		return -EINVAL;
	n = pt->overrun_last;
	mutex_unlock(&pt->pts->lock);
	return (int)MIN(n, (int64_t)INT32_MAX);
}

static void posix_timer_remove(struct posix_timer *pt)
{
	posix_timer_stop(pt);
	pt->deleted = true;
	idr_remove(&pt->pts->timers, pt->id);
}

int posix_timer_delete(struct task *t, int id)
{
	struct posix_timer *pt = posix_timer_lock(t, id);

	if (!pt)
		return -EINVAL;
	posix_timer_remove(pt);
	mutex_unlock(&pt->pts->lock);
	ktimer_cancel_sync(&pt->ktimer);
	posix_timer_discard(pt);
	return 0;
}

/* ---- the end ---- */

static void posix_timers_delete_all(struct posix_timers *pts)
{
	struct posix_timer *pt;
	int32_t id;

	for (;;) {
		id = 0;
		mutex_lock(&pts->lock);
		pt = idr_next(&pts->timers, &id);
		if (pt)
			posix_timer_remove(pt);
		mutex_unlock(&pts->lock);
		if (!pt)
			return;
		ktimer_cancel_sync(&pt->ktimer);
		posix_timer_discard(pt);
	}
}

void group_timers_exec(struct thread_group *g)
{
	struct posix_timers *pts = rcu_load(g->timers);

	if (pts)
		posix_timers_delete_all(pts);
}

void group_timers_exit(struct thread_group *g)
{
	struct posix_timers *pts = rcu_load(g->timers);

	if (!pts)
		return;
	mutex_lock(&pts->lock);
	pts->dead = true;
	mutex_unlock(&pts->lock);
	posix_timers_delete_all(pts);
	ktimer_cancel_sync(&pts->real);
	ktimer_cancel_sync(&pts->cpu);
}

void posix_timers_destroy(struct posix_timers *pts)
{
	idr_fini(&pts->timers);
	free(pts);
}
