/*
 * base/ucount.h - how much of something each user (kuid) has, against resource limits and settings (/proc/sys/fs).
 *
 * An object that is charged keeps the reference that ucount_get() gave, so that what it gives back goes to whom it was taken from, whoever
 * closes it. Lock: one leaf for the table; counts are atomic.
 */
#ifndef MOAT_BASE_UCOUNT_H
#define MOAT_BASE_UCOUNT_H

#include "base/compiler.h"

enum ucount_kind {
	UCOUNT_INOTIFY_INSTANCES,
	UCOUNT_INOTIFY_WATCHES,
	UCOUNT_PIPE_PAGES, /* slots of rings, used or not, as in Linux */
	UCOUNT_PROCESSES, /* tasks: RLIMIT_NPROC */
	UCOUNT_SIGPENDING, /* queued signals: RLIMIT_SIGPENDING */
	UCOUNT_MQ_BYTES, /* of POSIX message queues: RLIMIT_MSGQUEUE */
	UCOUNT_KINDS
};

struct ucount;

/* Returns a reference; NULL: no memory. */
struct ucount *ucount_get(uint32_t uid);
struct ucount *ucount_ref(struct ucount *u); /* another; u */
void ucount_put(struct ucount *u); /* NULL is ignored */
/* False, and nothing is charged (not even for a moment), when that would make more than `limit`. n: 0 or more. */
must_check bool ucount_try_charge(struct ucount *u, enum ucount_kind kind, int64_t n,
				  int64_t limit);
/* Beyond any limit. Return: how much it is now. */
int64_t ucount_charge(struct ucount *u, enum ucount_kind kind, int64_t n);
void ucount_uncharge(struct ucount *u, enum ucount_kind kind, int64_t n);
int64_t ucount_read(const struct ucount *u, enum ucount_kind kind);

#endif
