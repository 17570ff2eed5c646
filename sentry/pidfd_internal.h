/* sentry/pidfd_internal.h - what pidfd.c and pidfd_ioctl.c share, and nobody else includes. */
#ifndef MOAT_SENTRY_PIDFD_INTERNAL_H
#define MOAT_SENTRY_PIDFD_INTERNAL_H

#include "sentry/pidfd.h"
#include "sentry/task_internal.h"

struct pidfd_file {
	struct file f;
	struct thread_group *group; /* a reference */
	int32_t tid; /* the thread of a PIDFD_THREAD one; 0: the process */
	struct task *task; /* a reference; NULL for a process */
};

static inline struct pidfd_file *pidfd_of(struct file *f)
{
	return (struct pidfd_file *)f;
}

/* file_ops.ioctl. -ENOTTY, -EINVAL, -EFAULT, -ESRCH, -EREMOTE, -EACCES. */
int64_t pidfd_ioctl(struct file *f, unsigned cmd, uint64_t arg);

#endif
