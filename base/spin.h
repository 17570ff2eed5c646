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

/*
 * Threads of the machine that want a core now, the caller included, by an open /proc/loadavg ("0.20 0.18 0.12 RUNNING/ALL LAST");
 * 0: unknown. One host call. Threads that sleep may be counted for some milliseconds: one that has had more than its share stays
 * queued behind whoever runs (Linux 6.12 and later).
 */
unsigned spin_running(int load_fd);
/* Before the process is confined: opens /proc/loadavg. Without it, or on one core, nobody ever looks. Once; single thread. */
void spin_allow(void);
/* For ns at most. Twice that is brief, where one slept. */
void spin_begin(struct spin *s, int64_t ns);
/* Also lets the other process have this very core, should it wait for that. */
bool spin_on(const struct spin *s);
/* The wait is over. */
void spin_end(struct spin *s);

#endif
