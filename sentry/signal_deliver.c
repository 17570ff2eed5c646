/*
 * sentry/signal_deliver.c - what a task does about its signals before it returns to the application: default actions,
 * group stop, handlers, restarting interrupted calls.
 */
#include "sentry/ptrace.h"
#include "sentry/task_internal.h"

#define NR_RESTART_SYSCALL 219

/* ---- group stop ---- */

/* The last thread to stop completes the stop. Return: CLD_STOPPED if the parent must be told, else 0. */
static int stop_participate_locked(struct task *t)
{
	struct stop_state *stop = &t->group->stop;

	t->stop_pending = false;
	if (stop->count > 0)
		stop->count--;
	if (stop->count || stop->stopped)
		return 0;
	stop->stopped = stop->stop_unwaited = true;
	stop->continued = false;
	return CLD_STOPPED;
}

static void stop_begin_locked(struct task *t, int signo)
{
	struct thread_group *g = t->group;
	struct task *other;

	if (!g->stop.stopped)
		g->stop.signo = signo;
	g->stop.count = 0;
	TAILQ_FOREACH (other, &g->threads, thread_link) {
		int state = atomic_load_explicit(&other->state, memory_order_relaxed);

		if (state == TASK_ZOMBIE || state == TASK_DEAD || other->stopped)
			continue;
		other->stop_pending = true;
		g->stop.count++;
		if (other != t)
			signal_wake_task(other, false);
	}
}

/*
 * Takes part in a group stop, or begins one for `signo`. Called and returns with the sighand lock held, dropped in between.
 * Return: false when there is none after all (SIGCONT came first), or when a tracer handles it.
 */
static bool signal_do_stop(struct task *t, int signo, struct sighand **sh)
{
	struct thread_group *g = t->group;
	int why, stopped_by;

	if (!t->stop_pending) {
		if (!t->stop_dequeued || g->exiting || g->exec_task)
			return false;
		stop_begin_locked(t, signo);
	}
	stopped_by = g->stop.signo;
	if (t->ptrace) {
		why = stop_participate_locked(t);
		sighand_unlock(*sh);
		if (why) {
			rwlock_read_lock(&kernel.taskset_lock);
			group_notify_stop(g, why, stopped_by);
			rwlock_read_unlock(&kernel.taskset_lock);
		}
		ptrace_group_stop(t, stopped_by ? stopped_by : signo);
		*sh = sighand_lock(g);
		return true;
	}
	t->stopped = true;
	why = stop_participate_locked(t);
	atomic_store_explicit(&t->state, TASK_STOPPED, memory_order_relaxed);
	sighand_unlock(*sh);
	if (why) {
		rwlock_read_lock(&kernel.taskset_lock);
		group_notify_stop(g, why, stopped_by);
		rwlock_read_unlock(&kernel.taskset_lock);
	}
	*sh = sighand_lock(g);
	while (t->stopped && !g->exiting && !(g->exec_task && g->exec_task != t)) {
		sighand_unlock(*sh);
		/* A fatal signal: looked at by the loop's condition. */
		(void)!sleeper_wait(&t->sleeper, SLEEP_KILLABLE, TIME_FOREVER);
		*sh = sighand_lock(g);
	}
	t->stopped = false;
	atomic_store_explicit(&t->state, TASK_RUNNING, memory_order_relaxed);
	return true;
}

/* ---- taking the next signal ---- */

struct taken_signal {
	int signo; /* 0: none */
	struct moat_siginfo info;
	struct moat_sigaction action;
};

static void signal_die(struct task *t, int wait_status)
{
	struct sighand *sh = sighand_lock(t->group);

	group_kill_locked(t->group, wait_status);
	sighand_unlock(sh);
	t->exiting = true;
	t->exit_code = wait_status;
}

static void signal_notify_parent(struct task *t, struct sighand **sh)
{
	int why = t->group->stop.notify, signo = t->group->stop.signo;

	t->group->stop.notify = 0;
	sighand_unlock(*sh);
	rwlock_read_lock(&kernel.taskset_lock);
	group_notify_stop(t->group, why, signo);
	rwlock_read_unlock(&kernel.taskset_lock);
	*sh = sighand_lock(t->group);
}

/* One signal of the queue, its overrun filled in and its tracer asked. The lock is dropped when either needs it. */
static int signal_take_one(struct task *t, struct sighand **sh, struct moat_siginfo *info)
{
	struct posix_timer *timer = NULL;
	int signo = signal_dequeue_locked(t, ~t->blocked, info, &timer);

	if (timer) {
		sighand_unlock(*sh);
		posix_timer_dequeued(timer, info);
		*sh = sighand_lock(t->group);
	}
	if (signo && signo != SIGKILL && t->ptrace) {
		sighand_unlock(*sh);
		signo = ptrace_signal_stop(t, signo, info);
		*sh = sighand_lock(t->group);
		if (!signo)
			return -1; /* the tracer swallowed it */
	}
	return signo;
}

/* Acts on what is pending until there is a handler to run (true) or nothing left or the task must end (false). */
static bool signal_take(struct task *t, struct taken_signal *ret)
{
	struct thread_group *g = t->group;
	struct moat_sigaction *sa;
	struct sighand *sh;
	bool found = false;
	int signo, fatal = 0;

	sh = sighand_lock(g);
	for (;;) {
		if (g->exiting || (g->exec_task && g->exec_task != t)) {
			/* The group's death has begun, or a sibling's execve wants us gone. */
			t->exiting = true;
			t->exit_code = g->exiting ? g->exit_code : 0;
			break;
		}
		if (g->stop.notify) {
			signal_notify_parent(t, &sh);
			continue;
		}
		if (t->stop_pending && signal_do_stop(t, 0, &sh))
			continue;
		if (ptrace_trap_pending(t)) {
			sighand_unlock(sh);
			ptrace_interrupt_stop(t);
			sh = sighand_lock(g);
			continue;
		}
		signo = signal_take_one(t, &sh, &ret->info);
		if (signo < 0)
			continue;
		if (!signo)
			break;
		sa = &sh->actions[signo - 1];
		if (sa->handler == SIG_IGN_)
			continue;
		if (sa->handler != SIG_DFL_) {
			ret->signo = signo;
			ret->action = *sa;
			if (sa->flags & SA_RESETHAND)
				sa->handler = SIG_DFL_;
			found = true;
			break;
		}
		if (SIGMASK_IGNORE & sigbit(signo))
			continue;
		if (g->unkillable && !(SIGMASK_KERNEL_ONLY & sigbit(signo)))
			continue;
		if (SIGMASK_STOP & sigbit(signo)) {
			if (signo != SIGSTOP) {
				bool orphaned;

				sighand_unlock(sh);
				orphaned = pgrp_is_orphaned(group_pgid(g));
				sh = sighand_lock(g);
				if (orphaned)
					continue;
			}
			(void)signal_do_stop(t, signo, &sh);
			continue;
		}
		fatal = signo;
		break;
	}
	if (!fatal && !t->exiting)
		signal_recalc_locked(t);
	sighand_unlock(sh);
	if (fatal)
		signal_die(t, fatal);
	return found;
}

/* ---- handlers and restarts ---- */

static bool syscall_restarts(struct task *t, const struct moat_sigaction *sa)
{
	switch (-(int64_t)t->regs.r.rax) {
	case ERESTARTNOHAND_:
	case ERESTART_RESTARTBLOCK_:
		return false;
	case ERESTARTSYS_:
		return sa->flags & SA_RESTART;
	default:
		return true; /* ERESTARTNOINTR_ */
	}
}

static bool is_restart_code(uint64_t rax)
{
	int64_t e = -(int64_t)rax;

	return e == ERESTARTSYS_ || e == ERESTARTNOINTR_ || e == ERESTARTNOHAND_ ||
	       e == ERESTART_RESTARTBLOCK_;
}

static void syscall_rewind(struct task *t, uint64_t nr)
{
	t->regs.r.rax = nr;
	t->regs.r.rip -= 2;
	t->regs.r.orig_rax = (unsigned long long)-1;
}

static void signal_handle(struct task *t, const struct taken_signal *sig)
{
	uint64_t mask = t->restore_saved_blocked ? t->saved_blocked : t->blocked;
	uint64_t blocked;
	int err;

	if ((int64_t)t->regs.r.orig_rax >= 0 && is_restart_code(t->regs.r.rax)) {
		if (syscall_restarts(t, &sig->action))
			syscall_rewind(t, t->regs.r.orig_rax);
		else
			t->regs.r.rax = (uint64_t)-EINTR;
	}
	t->regs.r.orig_rax = (unsigned long long)-1;
	err = signal_frame_setup(t, sig->signo, &sig->action, &sig->info, mask);
	if (err) {
		/* force_sigsegv: if it was SIGSEGV's own handler, it has no chance. */
		if (sig->signo == SIGSEGV)
			signal_force_fatal(t, SIGSEGV);
		else
			signal_force_kernel(t, SIGSEGV);
		return;
	}
	t->restore_saved_blocked = false;
	blocked = t->blocked | sig->action.mask;
	if (!(sig->action.flags & SA_NODEFER))
		blocked |= sigbit(sig->signo);
	signal_set_blocked(t, blocked);
}

void signal_deliver(struct task *t, bool from_syscall)
{
	struct taken_signal sig = {0};

	if (!from_syscall)
		t->regs.r.orig_rax = (unsigned long long)-1;
	while (signal_take(t, &sig)) {
		signal_handle(t, &sig);
		if (t->exiting)
			return;
		if (!signal_pending(t))
			return;
	}
	if (t->exiting)
		return;
	if ((int64_t)t->regs.r.orig_rax >= 0 && is_restart_code(t->regs.r.rax)) {
		bool block = -(int64_t)t->regs.r.rax == ERESTART_RESTARTBLOCK_;

		syscall_rewind(t, block ? NR_RESTART_SYSCALL : t->regs.r.orig_rax);
	}
	if (t->restore_saved_blocked) {
		t->restore_saved_blocked = false;
		signal_set_blocked(t, t->saved_blocked);
	}
}
