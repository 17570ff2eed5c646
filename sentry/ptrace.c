/*
 * sentry/ptrace.c - ptrace(2).
 */
#include "sentry/ptrace.h"
#include "sentry/task_internal.h"

bool ptrace_trap_pending(const struct task *t)
{
	(void)t;
	return false;
}

int ptrace_signal_stop(struct task *t, int signo, struct moat_siginfo *info)
{
	(void)t, (void)info;
	return signo;
}

void ptrace_group_stop(struct task *t, int signo)
{
	(void)t, (void)signo;
}

void ptrace_interrupt_stop(struct task *t)
{
	(void)t;
}

bool ptrace_syscall_enter(struct task *t)
{
	(void)t;
	return true;
}

void ptrace_syscall_exit(struct task *t)
{
	(void)t;
}

void ptrace_event(struct task *t, int event, uint64_t message)
{
	(void)t, (void)event, (void)message;
}

bool ptrace_wants_event(struct task *t, int event)
{
	(void)t, (void)event;
	return false;
}

void ptrace_attach_child(struct task *parent, struct task *child, int event)
{
	(void)parent, (void)child, (void)event;
}

void ptrace_exit(struct task *t)
{
	(void)t;
}

struct task *ptrace_next_tracee(struct thread_group *tracer, struct task *prev)
{
	(void)tracer, (void)prev;
	return NULL;
}

bool ptrace_is_tracer_of(struct thread_group *g, struct task *t)
{
	(void)g, (void)t;
	return false;
}

bool ptrace_take_news(struct thread_group *tracer, struct task *t, int options, int *ret_code, int *ret_status,
		      int *ret_wait_status)
{
	(void)tracer, (void)t, (void)options, (void)ret_code, (void)ret_status, (void)ret_wait_status;
	return false;
}

void ptrace_reap_tracee(struct task *t, struct task_list *dead)
{
	(void)t, (void)dead;
}

void ptrace_unlink(struct task *t)
{
	(void)t;
}

bool ptrace_notify_exit(struct task *leader)
{
	(void)leader;
	return false;
}

int64_t ptrace_request(struct task *t, int request, int32_t tid, uint64_t addr, uint64_t data)
{
	(void)t, (void)request, (void)tid, (void)addr, (void)data;
	return -ENOSYS;
}
