/*
 * sentry/ptrace_internal.h - what ptrace.c (stops, and what the tracer's wait sees) and ptrace_requests.c (requests on a
 * stopped tracee) share.
 */
#ifndef MOAT_SENTRY_PTRACE_INTERNAL_H
#define MOAT_SENTRY_PTRACE_INTERNAL_H

#include <linux/ptrace.h>

#include "sentry/ptrace.h"
#include "sentry/task_internal.h"

#define PTRACE_OPTIONS_ALL (0xffu | PTRACE_O_EXITKILL | PTRACE_O_SUSPEND_SECCOMP)
#define EVENT_STOP 128
#define SYSGOOD_STOP (SIGTRAP | 0x80)
#define RF_FLAG 0x10000ull

enum ptrace_resume { RESUME_CONT, RESUME_SYSCALL, RESUME_STEP, RESUME_SYSEMU, RESUME_SYSEMU_STEP };

struct ptrace_state {
	TAILQ_ENTRY(ptrace_state) link; /* guarded by taskset_lock */
	struct task *task; /* immutable; borrowed: it owns us */
	struct thread_group *tracer; /* immutable; borrowed: untraced before it dies */
	/* guarded by the tracee's sighand lock: */
	uint32_t options;
	bool seized;
	bool stopped; /* sleeps for the tracer */
	bool in_stop; /* its thread is in ptrace_stop(), which frees us if we end meanwhile */
	bool listening; /* PTRACE_LISTEN: still stopped for the application */
	bool news; /* the stop was not waited for yet */
	bool dead_news; /* died; the tracer has not waited */
	int stop_code; /* signal | event << 8 */
	int resume_signo; /* what the tracer injects */
	bool interrupt; /* PTRACE_INTERRUPT, or SEIZE'd child's first stop */
	enum ptrace_resume mode;
	uint64_t message;
	struct moat_siginfo info;
	uint8_t syscall_op; /* PTRACE_SYSCALL_INFO_* of this stop */
	void *fpu; /* copy of the FPU state while stopped */
	size_t fpu_size;
	bool fpu_changed;
};

/* t is traced by tracer from here on, and no more. taskset_lock (write) and the sighand lock of t are held. Return 0 or -errno. */
must_check int ptrace_begin_locked(struct task *t, struct thread_group *tracer, bool seized,
				   uint32_t options);
void ptrace_end_locked(struct task *t);

#endif
