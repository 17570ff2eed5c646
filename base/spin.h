/*
 * base/spin.h - who waits for another process looks for its answer before it sleeps: where that takes less than a wake-up of an idle core does.
 *
 *	for (spin_begin(&s, ns); !there() && spin_on(&s);)
 *		;
 *	... sleeps until there() ...
 *	spin_end(&s);
 *
 * Only while no more threads of the machine want a core than it has, since else the other process waits for this one's. And it learns: after a
 * few waits that were long nobody looks, until some were brief again.
 */
#ifndef MOAT_BASE_SPIN_H
#define MOAT_BASE_SPIN_H

#include "base/compiler.h"

/* Owned by who waits: one thread at a time. All zero to begin with. */
struct spin {
	unsigned score; /* grows with brief waits */
	int64_t start_ns, until_ns, brief_ns;
};

/* Before the process is confined: opens /proc/loadavg. Without it, or on one core, nobody ever looks. Once; single thread. */
void spin_allow(void);
/* For ns at most. Twice that is brief, where one slept. */
void spin_begin(struct spin *s, int64_t ns);
/* Also lets the other process have this very core, should it wait for that. */
bool spin_on(const struct spin *s);
/* The wait is over. */
void spin_end(struct spin *s);

#endif
