/*
 * bench/fs_lookup.h - what a LOOKUP costs our virtio-fs client, beside a client that does nothing else (fs_bare.h), on a daemon of the same kind and tree.
 *
 * Daemons and caller have a CPU each meanwhile (sched_setaffinity(2)): where the kernel puts them is most of the difference otherwise, and the bare
 * client never gives its CPU away. Times are medians of single operations, of all clients in turn.
 */
#ifndef MOAT_BENCH_FS_LOOKUP_H
#define MOAT_BENCH_FS_LOOKUP_H

#include "bench/fs_subject.h"

enum lookup_how {
	LOOKUP_BARE, /* the bare client, an eventfd to kick */
	LOOKUP_BARE_SOCKET, /* the same, a socket to kick as ours has it */
	LOOKUP_BARE_WALK, /* the bare client, 65 names each in the directory before: one of them */
	LOOKUP_DEVICE, /* our requests by themselves: no path, no inode */
	LOOKUP_STAT, /* stat(2) of a name in the root, nothing cached: one LOOKUP */
	LOOKUP_WALK, /* stat(2) of a path of those 65: one of them */
	LOOKUP_HOWS
};
extern const char *const lookup_names[LOOKUP_HOWS];

/* Adds a round's us for `s`, a virtio-fs mount with cache=none. Return: 0, -errno; -ENOTSUP: there is no second CPU. */
int lookup_measure(struct subject *s, double ret_us[LOOKUP_HOWS]);
/* Ends the bare clients. */
void lookup_stop(void);

#endif
