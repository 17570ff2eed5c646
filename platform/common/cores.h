/*
 * platform/common/cores.h - is there a core for one more thread that spins?
 *
 * Both platforms hand the application over between two threads that spin for one another. That pays while each has a
 * core of its own, and hurts everybody when cores are short. What is known of that:
 *  - the machine's count of runnable threads, asked when a spin was in vain;
 *  - a spinner's own eyes: a gap between two looks at the clock is somebody else on its core (cores_stolen()).
 * Either way nobody of the sandbox spins for CORES_SHORT_US, twice as long each time that it happens again at once.
 *
 * Thread-safe without locks; time is the time-stamp counter's.
 */
#ifndef MOAT_PLATFORM_COMMON_CORES_H
#define MOAT_PLATFORM_COMMON_CORES_H

#include <sched.h>
#include <stdatomic.h>

#include "base/compiler.h"

#define CORES_SHORT_US 4000u
#define CORES_SHORT_MAX_US 128000u
/* At most, if only the machine's count says so: it has sleepers in it. */
#define CORES_WANTED_MAX_US 16000u
/* So many answers in a row. */
#define CORES_OVER 2u
/* The machine is asked this often at most. */
#define CORES_ASK_US 500u
/* That many of those it counts may be asleep: cores.c. */
#define CORES_DOUBT 1u

struct cores {
	/* immutable */
	cpu_set_t allowed; /* this process's when it began */
	unsigned count; /* of them */
	unsigned machine; /* CPUs that are on line */
	int load_fd; /* /proc/loadavg, or -1 */
	uint64_t ticks_per_us;

	_Atomic uint64_t short_until, short_us; /* the last series */
	_Atomic uint64_t asked_at;
	_Atomic uint32_t over; /* answers in a row that there are too few */
};

/* Opens what cores_init() needs, where paths lead somewhere still. Again: does nothing. */
void cores_probe(void);
/* Closes that, if cores_init() has not taken it. */
void cores_unprobe(void);
/* Takes what cores_probe() opened, if it was called; calibrates the clock (0.2 ms). */
void cores_init(struct cores *c);
void cores_fini(struct cores *c);

static inline uint64_t cores_now(void)
{
	return __builtin_ia32_rdtsc();
}

static inline int64_t cores_ns(const struct cores *c, uint64_t ticks)
{
	return (int64_t)(ticks * 1000 / c->ticks_per_us);
}

/* Nobody spins now. */
static inline bool cores_short(const struct cores *c, uint64_t now)
{
	return now < atomic_load_explicit(&c->short_until, memory_order_relaxed);
}

/* Somebody else had, or wants, the core that was spun on. */
void cores_stolen(struct cores *c, uint64_t now);
/* Threads of the machine that want a core now, by what cores_init() took: spin_running(). */
unsigned cores_wanted(const struct cores *c);
/*
 * After a spin in vain: do surely more threads want a core than there are? Asks the machine if nobody has lately; notes it
 * as cores_stolen() does. asleep: so many the caller knows of that may be counted and sleep.
 */
void cores_look_but(struct cores *c, uint64_t now, unsigned asleep);

#endif
