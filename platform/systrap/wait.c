/*
 * platform/systrap/wait.c - how the sentry's thread waits for the application's, and where the two run.
 *
 * Between two cores that are awake a hand-over takes 0.2 us by spinning. By sleeping it takes 2 us on one core, and 20 us on two
 * of a virtual machine, whose idle cores halt. Whether to spin is decided anew for each wait (systrap_wait_prepare()):
 *  - nobody spins while cores are short (platform/common/cores.h), which is asked after a spin in vain, and seen by a spinner
 *    that lost its core, or without a turn (turn.c): our own threads that want cores;
 *  - nobody spins for a thread on his own core: it can only run once he sleeps. The kernel leaves the two where they
 *    are (it takes a halted virtual CPU for a busy one), so after a few quick events the application's thread is moved when
 *    it is woken, if a core is free. It may go anywhere again at once. Two who do not spin because cores are short are brought onto one core
 *    in the same way, where the kernel leaves them as well;
 *  - each side's spin must have paid lately, or would have: events that came soon, answers that came soon, measured whether
 *    or not there was a spin.
 * The order thread runs on the core of the application's, which sleeps rather than spins when it has orders (AREA_YIELD) and so keeps that
 * core awake without being in the way.
 *
 * CPU numbers and thread numbers come from the mailbox: a wrong one costs its own application time.
 */
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "platform/systrap/systrap.h"

/* Hits in a row, after which the two have a core each. */
#define HITS_SETTLED 32u

int64_t systrap_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ll + ts.tv_nsec;
}

int systrap_futex_wait(_Atomic uint32_t *word, uint32_t val, int64_t timeout_ns)
{
	struct timespec ts = {.tv_sec = timeout_ns / 1000000000,
			      .tv_nsec = timeout_ns % 1000000000};

	return syscall(SYS_futex, word, FUTEX_WAIT, val, &ts, NULL, 0) < 0 ? -errno : 0;
}

void systrap_futex_wake(_Atomic uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

void systrap_kick(struct systrap_platform *p, struct systrap_thread *t)
{
	pid_t tid = (pid_t)atomic_load(mb_tid(t));

	atomic_store(mb_interrupt(t), 1);
	/* The thread's number is the application's to forge: it reaches threads of its own process only. */
	if (tid > 0)
		syscall(SYS_tgkill, atomic_load(&t->pid), tid, STUB_KICK_SIGNAL);
	SYSTRAP_STAT_ADD(p, kicks, 1);
}

/* ---- where ---- */

/* Who may be counted as runnable and waits for the turn that this one has; who has none cannot tell. */
static unsigned asleep_but(struct systrap_platform *p, const struct systrap_pace *pace)
{
	return pace->turn ? systrap_turns_asleep(p) : 0;
}

/*
 * Pre: the thread has had quick events on this core. Is it time for another one? Whether one is free shows afterwards: the
 * machine's count is believed only where it leaves no doubt.
 */
static bool time_to_move(struct systrap_platform *p, struct systrap_pace *pace)
{
	if (++pace->stacked < pace->stacked_limit)
		return false;
	pace->stacked = 0;
	pace->stacked_limit = MIN(pace->stacked_limit * 4, SYSTRAP_STACKED_MAX);
	return p->cores.count > 1 &&
	       cores_wanted(&p->cores) <= p->cores.machine + CORES_DOUBT + asleep_but(p, pace);
}

/* The same for two who sleep, each on a core of its own, so that both cores halt at every event. */
static bool time_to_gather(struct systrap_pace *pace, bool stacked)
{
	if (stacked) {
		pace->apart = 0;
		if (++pace->together == HITS_SETTLED)
			pace->apart_limit = SYSTRAP_APART_MIN;
		return false;
	}
	pace->together = 0;
	if (pace->late_events >= SYSTRAP_LATE_MAX || ++pace->apart < pace->apart_limit)
		return false;
	pace->apart = 0;
	pace->apart_limit = MIN(pace->apart_limit * 4, SYSTRAP_STACKED_MAX);
	return true;
}

/* Wakes the application's thread where `cpus` says. It may go anywhere again at once. */
static void place_and_wake(struct systrap_platform *p, struct systrap_thread *t,
			   const cpu_set_t *cpus)
{
	pid_t tid = (pid_t)atomic_load(mb_tid(t));

	/* One of its own process, or none: nobody else's thread is moved. */
	if (tid <= 0 || CPU_COUNT(cpus) == 0 || syscall(SYS_tgkill, atomic_load(&t->pid), tid, 0))
		tid = 0;
	if (tid && sched_setaffinity(tid, sizeof(*cpus), cpus))
		tid = 0;
	systrap_futex_wake(mb_state(t));
	if (tid)
		(void)sched_setaffinity(tid, sizeof(p->cores.allowed), &p->cores.allowed);
}

static void move_and_wake(struct systrap_platform *p, struct systrap_thread *t)
{
	cpu_set_t cpus = p->cores.allowed;
	int cpu = sched_getcpu();

	if (cpu >= 0 && cpu < CPU_SETSIZE)
		CPU_CLR(cpu, &cpus);
	place_and_wake(p, t, &cpus);
	SYSTRAP_STAT_ADD(p, moves, 1);
}

static void gather_and_wake(struct systrap_platform *p, struct systrap_thread *t)
{
	cpu_set_t cpus;
	int cpu = sched_getcpu();

	CPU_ZERO(&cpus);
	if (cpu >= 0 && cpu < CPU_SETSIZE)
		CPU_SET(cpu, &cpus);
	place_and_wake(p, t, &cpus);
	SYSTRAP_STAT_ADD(p, gathers, 1);
}

void systrap_wake(struct platform_context *ctx, struct systrap_thread *t)
{
	if (unlikely(ctx->pace.move))
		move_and_wake(ctx->p, t);
	else if (!atomic_load(mb_app_asleep(t)))
		return;
	else if (ctx->pace.gather)
		gather_and_wake(ctx->p, t);
	else
		systrap_futex_wake(mb_state(t));
}

/*
 * Two who wake one another at every other event lose more by waiting for turns than they gain: they take none, and spin while
 * the cores happen to be free (may_aside()). Among others that take turns they do as well: they would take their cores away in
 * the middle of it.
 */
static bool worth_a_turn(struct systrap_platform *p, const struct systrap_pace *pace, uint64_t now)
{
	uint64_t at = atomic_load_explicit(&p->turns.long_at, memory_order_relaxed);

	if (likely(pace->burst >= SYSTRAP_BURST_MIN)) {
		if (!systrap_within(now, at, p->turn_ticks))
			atomic_store_explicit(&p->turns.long_at, now, memory_order_relaxed);
		return true;
	}
	return systrap_within(now, at, 4 * p->turn_ticks);
}

void systrap_wait_turn(struct platform_context *ctx)
{
	struct systrap_platform *p = ctx->p;
	struct systrap_pace *pace = &ctx->pace;
	uint32_t blocks = systrap_turn_blocks();
	uint64_t now = cores_now();

	if (blocks != pace->blocks) {
		pace->burst = (3 * pace->burst + MIN(pace->events, SYSTRAP_BURST_MAX)) / 4;
		pace->blocks = blocks;
		pace->events = 0;
	}
	pace->events++;
	pace->turn = pace->aside = false;
	if (unlikely(cores_short(&p->cores, now) || pace->late_events >= SYSTRAP_LATE_MAX)) {
		systrap_turn_give(ctx);
	} else if (!worth_a_turn(p, pace, now)) {
		systrap_turn_give(ctx);
		pace->aside = true;
	} else {
		pace->turn = systrap_turn_take(ctx, pace->quick >= SYSTRAP_QUICK_MIN, now);
	}
	if (pace->turn && ctx->turn.waited) {
		/* Whoever had it before had both cores, and the reply is late for that only. */
		ctx->turn.waited = false;
		pace->returned = cores_now();
		pace->late_replies = 0;
		pace->stacked = pace->stacked_limit;
	}
}

/* No turn, and none to be had by who sleeps that often: he spins while just now nobody else of ours wants the cores. */
static bool may_aside(struct systrap_platform *p, const struct systrap_pace *pace)
{
	return pace->aside && !atomic_load_explicit(&p->turns.held, memory_order_relaxed) &&
	       atomic_load_explicit(&p->running, memory_order_relaxed) + 2 <= (int)p->cores.count;
}

void systrap_wait_prepare(struct platform_context *ctx, struct systrap_thread *t)
{
	struct systrap_platform *p = ctx->p;
	struct systrap_pace *pace = &ctx->pace;
	uint64_t now = cores_now();
	uint32_t spins = 0;
	bool crowded = !pace->turn && !may_aside(p, pace);
	/* Who is held spins in a trampoline, so it is not here. */
	bool stacked = !ctx->held && atomic_load_explicit(&t->cpu, memory_order_relaxed) ==
					     (uint32_t)sched_getcpu();

	if (now - pace->returned < p->reply_ticks)
		pace->late_replies = 0;
	else if (pace->late_replies < SYSTRAP_LATE_MAX)
		pace->late_replies++;
	pace->move = stacked && !crowded && !pace->late_replies &&
		     pace->late_events < SYSTRAP_LATE_MAX && time_to_move(p, pace);
	if (!stacked)
		pace->stacked = 0;
	pace->gather = crowded && !ctx->held && time_to_gather(pace, stacked);
	crowded |= stacked && !pace->move;
	pace->spin = !crowded && pace->late_events < SYSTRAP_LATE_MAX;
	if (!crowded && pace->late_replies < SYSTRAP_LATE_MAX)
		spins = pace->spin ? SYSTRAP_APP_SPINS : SYSTRAP_APP_SPINS_WAKE;
	atomic_store_explicit(mb_spins(t), spins, memory_order_relaxed);
	atomic_store_explicit(mb_yield(t), 0, memory_order_relaxed);
	pace->started = now;
}

/* ---- waiting ---- */

/* With `regs`: for a posted call as well, which is then taken. Return: the event came. */
static bool spin(struct platform_context *ctx, struct systrap_thread *t, struct arch_regs *regs)
{
	struct systrap_platform *p = ctx->p;
	uint64_t start, last, now;
	bool hit = false;

	start = last = now = cores_now();
	for (;;) {
		hit = atomic_load_explicit(mb_state(t), memory_order_acquire) == STUB_STATE_EVENT;
		if (hit)
			break;
		if (regs && t->mb && patch_mailbox_take(t->mb, regs)) {
			ctx->held = hit = true;
			break;
		}
		/* Slow enough to spare a sibling thread. */
		now = cores_now();
		if (now - last > p->stolen_ticks) {
			cores_stolen(&p->cores, now);
			SYSTRAP_STAT_ADD(p, spins_stolen, 1);
			break;
		}
		if (now - start > p->spin_ticks)
			break;
		last = now;
	}
	/* Who posts nevertheless, because he has looked before this, traps soon. */
	if (regs && t->mb && !ctx->held)
		patch_mailbox_listen(t->mb, false, SYSTRAP_TRAMPOLINE_SPINS);
	if (hit) {
		systrap_count(&t->counts.spins_hit);
	} else {
		/* Others may have wanted the core. */
		cores_look_but(&p->cores, now, asleep_but(p, &ctx->pace));
		SYSTRAP_STAT_ADD(p, spins_missed, 1);
	}
	return hit;
}

/*
 * must_come: whether or not somebody wants it; it is kicked, and killed in the end. Other threads of the application
 * can wake us in vain, and change the word, as often as they like: a round is over when its time is.
 */
static int sleep_for_event(struct platform_context *ctx, struct systrap_thread *t, bool must_come)
{
	const unsigned patience = must_come ? 4 * SYSTRAP_PATIENCE : SYSTRAP_PATIENCE;
	unsigned rounds = 0, in_vain = 0;
	int64_t round_end = 0;

	for (;;) {
		bool wanted = must_come || atomic_load(&ctx->interrupt);
		int64_t round_ns = wanted ? SYSTRAP_ROUND_NS : SYSTRAP_IDLE_ROUND_NS;
		uint32_t state;
		int ret;

		atomic_store(mb_sentry_asleep(t), 1);
		state = atomic_load(mb_state(t));
		if (state == STUB_STATE_EVENT)
			break;
		if (atomic_load(&t->stub->dead))
			return -EAGAIN;
		ret = systrap_futex_wait(mb_state(t), state, round_ns);
		if (likely(ret != -ETIMEDOUT && !in_vain++))
			continue;
		if (ret != -ETIMEDOUT) {
			int64_t now = systrap_now_ns();

			if (!round_end)
				round_end = now + round_ns;
			if (now < round_end)
				continue;
		}
		round_end = 0;
		if (systrap_stub_gone(t->stub)) {
			systrap_stub_kill(ctx->p, t->stub);
			return -EAGAIN;
		}
		if (wanted && ++rounds > patience) {
			log_warn("systrap: stub %d does not answer", t->stub->pid);
			systrap_stub_kill(ctx->p, t->stub);
			return -EAGAIN;
		}
		if (wanted)
			systrap_kick(ctx->p, t);
	}
	atomic_store_explicit(mb_sentry_asleep(t), 0, memory_order_relaxed);
	return 0;
}

int systrap_wait_event(struct platform_context *ctx, struct systrap_thread *t)
{
	if (ctx->pace.spin && !cores_short(&ctx->p->cores, cores_now()) && spin(ctx, t, NULL))
		return 0;
	return sleep_for_event(ctx, t, true);
}

int systrap_wait(struct platform_context *ctx, struct systrap_thread *t, struct arch_regs *regs)
{
	struct systrap_platform *p = ctx->p;
	struct systrap_pace *pace = &ctx->pace;
	bool computes = !pace->turn && pace->quick < SYSTRAP_QUICK_MIN;
	int cores = pace->spin ? 2 : 1;
	int err = 0;

	atomic_fetch_add_explicit(&p->running, cores, memory_order_relaxed);
	if (computes)
		atomic_fetch_add_explicit(&p->busy, 1, memory_order_relaxed);
	pace->hit = pace->spin && spin(ctx, t, regs);
	if (!pace->hit) {
		pace->hits = 0;
		atomic_fetch_sub_explicit(&p->running, cores - 1, memory_order_relaxed);
		cores = 1;
		if (pace->spin && !computes) {
			computes = true;
			atomic_fetch_add_explicit(&p->busy, 1, memory_order_relaxed);
			systrap_turn_give(ctx);
		}
		err = sleep_for_event(ctx, t, false);
	}
	atomic_fetch_sub_explicit(&p->running, cores, memory_order_relaxed);
	if (computes)
		atomic_fetch_sub_explicit(&p->busy, 1, memory_order_relaxed);
	pace->returned = cores_now();
	/* Waiting for a core, among many, is in it. */
	if (pace->hit || pace->returned - pace->started < p->quick_ticks)
		pace->quick = (uint8_t)MIN(pace->quick + 1u, SYSTRAP_QUICK_MAX);
	else
		pace->quick /= 2;
	if (pace->hit) {
		pace->late_events = 0;
		/* A core was free. */
		if (++pace->hits == HITS_SETTLED)
			pace->stacked_limit = SYSTRAP_STACKED_MIN;
	} else if (pace->returned - pace->started < p->soon_ticks) {
		pace->late_events = 0;
	} else if (pace->late_events < SYSTRAP_LATE_MAX) {
		pace->late_events++;
	}
	return err;
}
