/* sentry/pidfd.h - files that stand for a process (or, with PIDFD_THREAD, a thread). */
#ifndef MOAT_SENTRY_PIDFD_H
#define MOAT_SENTRY_PIDFD_H

#include "sentry/task.h"

/* flags: O_NONBLOCK, PIDFD_THREAD (O_EXCL). Borrows t. Returns a reference in *ret. */
must_check int pidfd_create_file(struct task *t, unsigned flags, struct file **ret);
/* The process behind a pidfd: a reference; NULL if f is none. *ret_tid: the thread's tid, or 0 for the process. */
struct thread_group *pidfd_group(struct file *f, int32_t *ret_tid);
unsigned pidfd_flags(struct file *f);

#endif
