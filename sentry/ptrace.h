/*
 * sentry/ptrace.h - ptrace(2): stops of the tracee, requests of the tracer.
 *
 * t->ptrace is set and cleared under taskset_lock (write) and t's sighand lock, so either is enough to read it. A tracee stops on
 * its own thread inside one of the *_stop functions below, with its state TASK_TRACED, until the tracer resumes it or it is killed.
 * While it is stopped its registers and FPU state are the tracer's to read and write.
 */
#ifndef MOAT_SENTRY_PTRACE_H
#define MOAT_SENTRY_PTRACE_H

#include "sentry/task.h"

/* The tracee is about to take a signal: the tracer sees it first. Return: the signal to go on with (info updated), 0 for none. */
int ptrace_signal_stop(struct task *t, int signo, struct moat_siginfo *info);
/* In place of parking in a group stop. */
void ptrace_group_stop(struct task *t, int signo);
/* PTRACE_INTERRUPT and the like: acts on a pending trap. */
void ptrace_interrupt_stop(struct task *t);
/* Around a system call, when the tracer asked (PTRACE_SYSCALL, SYSEMU). Return: false to skip the call. */
bool ptrace_syscall_enter(struct task *t);
void ptrace_syscall_exit(struct task *t);
/* PTRACE_EVENT_*: stops if the tracer wants the event; exec without the option gives the old SIGTRAP. */
void ptrace_event(struct task *t, int event, uint64_t message);
/* A root number as t's tracer sees it: a message for ptrace_event(). No locks held. */
uint64_t ptrace_pid_message(struct task *t, int32_t root);
bool ptrace_wants_event(struct task *t, int event);
/* A new child of a tracee is traced too when the options say so. taskset_lock (write) and the child's sighand lock held. */
void ptrace_attach_child(struct task *parent, struct task *child, int event);
/* The calling task ends; with the last of its threads its tracees are let go (or killed). No locks held. */
void ptrace_exit(struct task *t);
/*
 * Of a container that ends: who has been killed there and is traced from another one is let go, as if the tracer had waited. For who has
 * given the tracers PTRACE_LAST_LOOK_NS to do so, since the end must not depend on them. No locks held.
 */
#define PTRACE_LAST_LOOK_NS 1000000000ll
void ptrace_let_go(struct task_cgroup *cg);
/* The tracer's view for wait4/waitid; taskset_lock held. */
struct task *ptrace_next_tracee(struct thread_group *tracer, struct task *prev);
bool ptrace_is_tracer_of(struct thread_group *g, struct task *t);
/* A stop or death that the tracer has not taken. options: W*. */
bool ptrace_take_news(struct thread_group *tracer, struct task *t, int options, int *ret_code,
		      int *ret_status, int *ret_wait_status);
/* The tracer waited for the dead tracee: a thread goes, a leader is announced to its real parent. taskset_lock (write). */
struct task_list;
void ptrace_reap_tracee(struct task *t, struct task_list *dead);
/* The dead tracee was waited for by its tracer: it goes to its real parent. taskset_lock held for writing. */
void ptrace_unlink(struct task *t);

/* A traced leader's group died: tells a tracer that is not the parent. true: the parent waits for its turn. taskset_lock (write). */
bool ptrace_notify_exit(struct task *leader);
/* Another thread died: true if it is traced, and stays until its tracer, who is told, has waited. taskset_lock (write). */
must_check bool ptrace_notify_thread_exit(struct task *t);

int64_t ptrace_request(struct task *t, int request, int32_t tid, uint64_t addr, uint64_t data);

#endif
