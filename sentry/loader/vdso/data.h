/*
 * vdso/data.h - what the sentry tells the vDSO: one page, mapped read-only before the image.
 *
 * `seq` is odd while the sentry writes. A clock is base_ns + ((tsc - base_tsc) * mult >> 32), each step with a
 * slope of its own that ends where the host's clock will be, so that a clock never goes back. It holds for `valid`
 * cycles; who comes later makes the call, for which the sentry writes the next one. So nothing is written while nobody asks.
 */
#ifndef MOAT_VDSO_DATA_H
#define MOAT_VDSO_DATA_H

#define VDSO_CLOCKS 2
#define VDSO_REALTIME 0
#define VDSO_MONOTONIC 1
/* So little may one CPU's counter be behind another's. Farther before a line's beginning it has been set back: the line does not hold. */
#define VDSO_SKEW_CYCLES (1ul << 20)

struct vdso_clock {
	unsigned long base_tsc;
	unsigned long base_ns;
	unsigned long mult; /* ns per cycle, 32.32 */
};

struct vdso_data {
	unsigned int seq;
	unsigned int usable; /* 0: make the call */
	unsigned long valid; /* cycles from base_tsc, the same in both clocks */
	struct vdso_clock clock[VDSO_CLOCKS];
};

#endif
