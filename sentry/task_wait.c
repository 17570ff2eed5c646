/*
 * sentry/task_wait.c - wait4 and waitid: children that died, stopped or continued.
 *
 * A look takes taskset_lock for writing, because taking a zombie removes it. A caller registers on its group's wait queue, looks, sleeps;
 * whoever has news (task_exit.c, stops, ptrace.c) wakes that queue.
 */
#include <sys/wait.h>

#include "sentry/ptrace.h"
#include "sentry/task_internal.h"

#define WNOTHREAD_ 0x20000000
#define WALL_ 0x40000000
#define WCLONE_ ((int)0x80000000)

/* Ids are root numbers but for what is told to the caller. */
struct wait_look {
	struct task *t;
	const struct task_wait_args *args;
	struct task_wait_result *ret;
	struct task_list dead;
	bool any; /* a child matches, though it has no news */
};

static bool wait_matches(const struct wait_look *w, struct thread_group *g, bool traced)
{
	const struct task_wait_args *a = w->args;

	switch (a->idtype) {
	case P_PID:
		if (g->tgid != a->id)
			return false;
		break;
	case P_PGID:
		if (!g->pgrp || g->pgrp->id != a->id)
			return false;
		break;
	default:
		break;
	}
	if (traced || (a->options & WALL_))
		return true;
	return (g->exit_signal != SIGCHLD) == !!(a->options & WCLONE_);
}

static void wait_fill(struct wait_look *w, struct task *leader, struct thread_group *g, int code,
		      int status, int wait_status)
{
	struct task_wait_result *r = w->ret;
	struct task_times own;

	r->pid = pid_vnr(w->t, leader ? leader->tid : g->tgid);
	r->uid = leader && leader->cred ? leader->cred->uid : 0;
	r->code = code;
	r->status = status;
	r->wait_status = wait_status;
	group_get_times(g, &own);
	mutex_lock(&task_stats_lock);
	times_add(&own, &g->child_times);
	mutex_unlock(&task_stats_lock);
	r->times = own;
}

static bool wait_zombie(struct wait_look *w, struct thread_group *g)
{
	int signo;

	if (!(w->args->options & WEXITED) || !g->zombie)
		return false;
	signo = g->exit_code & 0x7f; /* final from here */
	if (signo)
		wait_fill(w, g->leader, g, g->exit_code & 0x80 ? CLD_DUMPED : CLD_KILLED, signo,
			  g->exit_code);
	else
		wait_fill(w, g->leader, g, CLD_EXITED, (g->exit_code >> 8) & 0xff, g->exit_code);
	if (w->args->options & WNOWAIT)
		return true;
	group_times_reaped(w->t->group, g);
	group_reap(g, &w->dead);
	return true;
}

static bool wait_stopped(struct wait_look *w, struct thread_group *g)
{
	struct sighand *sh;
	int signo = 0;

	if (!(w->args->options & WSTOPPED) || g->zombie)
		return false;
	sh = sighand_lock(g);
	if (g->stop.stopped && g->stop.stop_unwaited) {
		signo = g->stop.signo;
		if (!(w->args->options & WNOWAIT))
			g->stop.stop_unwaited = false;
	}
	sighand_unlock(sh);
	if (!signo)
		return false;
	wait_fill(w, g->leader, g, CLD_STOPPED, signo, signo << 8 | 0x7f);
	return true;
}

static bool wait_continued(struct wait_look *w, struct thread_group *g)
{
	struct sighand *sh;
	bool continued;

	if (!(w->args->options & WCONTINUED) || g->zombie)
		return false;
	sh = sighand_lock(g);
	continued = g->stop.continued;
	if (continued && !(w->args->options & WNOWAIT))
		g->stop.continued = false;
	sighand_unlock(sh);
	if (!continued)
		return false;
	wait_fill(w, g->leader, g, CLD_CONTINUED, SIGCONT, 0xffff);
	return true;
}

static bool wait_children(struct wait_look *w)
{
	struct thread_group *me = w->t->group, *g;

	TAILQ_FOREACH (g, &me->children, sibling) {
		bool foreign;

		if (!wait_matches(w, g, false))
			continue;
		if ((w->args->options & WNOTHREAD_) && g->parent_tid != w->t->tid)
			continue;
		w->any = true;
		/* While another process traces it, the tracer comes first. */
		foreign = g->leader && g->leader->ptrace && !ptrace_is_tracer_of(me, g->leader);
		if (foreign)
			continue;
		if (g->leader && g->leader->ptrace) {
			/* Our own tracee: its stops are told below; its death is told here. */
			if (wait_zombie(w, g))
				return true;
			continue;
		}
		if (wait_zombie(w, g) || wait_stopped(w, g) || wait_continued(w, g))
			return true;
	}
	return false;
}

/* Tracees: ptrace stops, and deaths of those that are not our children. */
static bool wait_tracees(struct wait_look *w)
{
	const struct task_wait_args *a = w->args;
	struct task *t = NULL;
	int code, status, wait_status;

	while ((t = ptrace_next_tracee(w->t->group, t))) {
		if (a->idtype == P_PID && t->tid != a->id)
			continue;
		if (a->idtype == P_PGID && (!t->group->pgrp || t->group->pgrp->id != a->id))
			continue;
		w->any = true;
		if (!ptrace_take_news(w->t->group, t, a->options, &code, &status, &wait_status))
			continue;
		wait_fill(w, t, t->group, code, status, wait_status);
		if (code != CLD_TRAPPED && code != CLD_STOPPED && code != CLD_CONTINUED &&
		    !(a->options & WNOWAIT))
			ptrace_reap_tracee(t, &w->dead);
		return true;
	}
	return false;
}

static bool wait_look_once(struct wait_look *w)
{
	bool found;

	rwlock_write_lock(&kernel.taskset_lock);
	w->any = false;
	found = wait_children(w) || wait_tracees(w);
	rwlock_write_unlock(&kernel.taskset_lock);
	session_run_deferred();
	task_list_free(&w->dead);
	return found;
}

int task_wait(struct task *t, const struct task_wait_args *args, struct task_wait_result *ret)
{
	struct wait_look w = {.t = t, .args = args, .ret = ret};
	struct waiter waiter;
	int err = 0;

	*ret = (struct task_wait_result){0};
	TAILQ_INIT(&w.dead);
	waiter_init_sleeper(&waiter, &t->sleeper, POLLIN);
	wait_queue_add(&t->group->wait, &waiter);
	for (;;) {
		if (wait_look_once(&w)) {
			err = 0;
			break;
		}
		/* SIGCHLD comes with the news it is about: what is there was looked at before the interruption counts. */
		if (err)
			break;
		err = -ECHILD;
		if (!w.any)
			break;
		err = 0;
		if (args->options & WNOHANG)
			break;
		err = -EAGAIN;
		if (args->nonblock)
			break;
		sleeper_set_what(&t->sleeper, "wait");
		err = sleeper_wait(&t->sleeper, SLEEP_INTERRUPTIBLE, TIME_FOREVER) ? -ERESTARTSYS_
										   : 0;
		sleeper_set_what(&t->sleeper, NULL);
	}
	wait_queue_remove(&waiter);
	return err;
}
