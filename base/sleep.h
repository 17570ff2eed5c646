/*
 * base/sleep.h - how a thread blocks, and how it is woken or interrupted.
 *
 * Every sentry thread has one `struct sleeper` (TLS; a task embeds its own and installs it with
 * sleeper_set_current()). Wake-ups are remembered: sleeper_wake() before sleeper_wait() makes the
 * wait return at once, so "register, check, wait" loses nothing.
 * Interruption (a signal became pending) is a separate sticky bit set by sleeper_interrupt() and
 * cleared by the owner with sleeper_clear_interrupt() once signals have been looked at.
 * Lock rank: none is held by the caller of sleeper_wait() (lock_assert_may_sleep()).
 */
#ifndef MOAT_BASE_SLEEP_H
#define MOAT_BASE_SLEEP_H

#include "base/compiler.h"

#define SLEEPER_WOKEN 1u /* consumed by sleeper_wait */
#define SLEEPER_INTERRUPTED 2u /* sticky: a signal wants the task */
#define SLEEPER_KILLED 4u /* sticky: a fatal signal wants the task */
#define SLEEPER_ASLEEP 8u /* owned by the thread: it is in futex(2), or about to be */

#define TIME_FOREVER INT64_MAX

struct sleeper {
	_Atomic uint32_t word; /* SLEEPER_*; the futex word */
	_Atomic bool waits; /* it sleeps, or looks for a moment before it does; for those who ask */
	const char *_Atomic what; /* sleeper_set_what() */
	uint8_t brief; /* owned by the thread: how many of its last waits were brief, weighted */
};

enum sleep_mode {
	SLEEP_INTERRUPTIBLE, /* any signal ends it: -EINTR */
	SLEEP_KILLABLE, /* only a fatal one: -EINTR */
	SLEEP_UNINTERRUPTIBLE,
};

/* What the thread waits for, or NULL: shown by moat debug, which may look at any time. A string that stays. */
static inline void sleeper_set_what(struct sleeper *s, const char *what)
{
	atomic_store_explicit(&s->what, what, memory_order_relaxed);
}
static inline const char *sleeper_what(const struct sleeper *s)
{
	return atomic_load_explicit(&s->what, memory_order_relaxed);
}

void sleeper_init(struct sleeper *s);
struct sleeper *sleeper_current(void); /* never NULL: threads without a task get a TLS one */
void sleeper_set_current(struct sleeper *s);
void sleeper_wake(struct sleeper *s);
void sleeper_interrupt(struct sleeper *s, bool killed);
void sleeper_clear_interrupt(struct sleeper *s);
/* Does a fatal signal want the calling thread's task? */
bool sleeper_was_killed(void);

/*
 * Sleeps until woken, interrupted or `deadline_ns` (CLOCK_MONOTONIC of the host, absolute;
 * TIME_FOREVER for none). Consumes one wake-up.
 * Return: 0 woken (perhaps spuriously), -EINTR, -ETIMEDOUT.
 */
must_check int sleeper_wait(struct sleeper *s, enum sleep_mode mode, int64_t deadline_ns);

/*
 * From now on a thread whose waits have been brief looks for its wake-up some microseconds before it sleeps: where a
 * wake-up of another core costs more than that. Fewer threads than `cores` do so at once, and none while more than `machine`
 * threads want to run, by `runnable(fd)` (0: unknown). cores < 2: never. Any thread.
 */
void sleeper_allow_spin(unsigned (*runnable)(int fd), int fd, unsigned cores, unsigned machine);

/*
 * What the host lets us use over a while is no more than `cores`: who looks takes that from the work itself, so one fewer than these look
 * at most. UINT_MAX: no limit, as it is to begin with.
 */
void sleeper_limit_spin(unsigned cores);

/*
 * Waits until *at is not 0, whoever sets it does a futex_wake(). Looks for at most spin_ns first, as sleeper_wait() does, if the waits that
 * *inout_brief counts (0 to begin with) have been brief. Nothing is called before it sleeps. Return: what is there.
 */
uint32_t sleep_until_set(_Atomic uint32_t *at, uint8_t *inout_brief, int64_t spin_ns);

enum sleeper_block {
	SLEEPER_BLOCK_DEFERRED, /* vfs/deferred.c */
	SLEEPER_BLOCK_PLATFORM,
	SLEEPER_BLOCK_NR
};
/* Called by each thread that waits in sleeper_wait(), before it spins or sleeps; it holds no lock then. NULL: nothing. */
void sleeper_on_block(enum sleeper_block who, void (*fn)(void));

/* Host CLOCK_MONOTONIC / CLOCK_REALTIME in ns. */
int64_t time_monotonic_ns(void);
int64_t time_realtime_ns(void);

#endif
