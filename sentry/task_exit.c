/*
 * sentry/task_exit.c - how a task ends: it lets go of what it holds, its children get another parent, its own is told.
 *
 * A thread's last words are said on its own host thread in task_do_exit(). A thread that is no leader leaves the tables at once, unless a tracer
 * is to wait for it; a leader stays as a zombie, and when it is the only one left of its group the parent is told (or the group reaps itself).
 */
#include "sentry/cgroup_tree.h"
#include "sentry/futex.h"
#include "sentry/ptrace.h"
#include "sentry/task_internal.h"
#include "sentry/tty/tty.h"

#define PTRACE_EVENT_EXIT_ 6
#define USER_HZ_NS 10000000ll

void task_exit(struct task *t, int code)
{
	t->exiting = true;
	t->exit_code = (code & 0xff) << 8;
}

void task_group_exit(struct thread_group *g, int wait_status)
{
	struct task *t = task_current();
	struct sighand *sh = sighand_lock(g);

	group_kill_locked(g, wait_status);
	sighand_unlock(sh);
	if (t && t->group == g) {
		t->exiting = true;
		t->exit_code = wait_status;
	}
}

void task_thread_kill(struct task *t, int signo)
{
	if (atomic_load(&t->group->live) == 1) {
		task_group_exit(t->group, signo);
		return;
	}
	t->exiting = true;
	t->exit_code = signo;
}

/* ---- news for the parent ---- */

static void fill_child_info(struct thread_group *g, struct moat_siginfo *info)
{
	struct task *leader = group_any_task(g);
	struct task_times times;

	group_get_times(g, &times);
	info->chld.pid = g->parent ? pid_nr_in(g->parent->pid_ns, g->tgid) : 0;
	info->chld.uid = leader && leader->cred ? leader->cred->uid : 0;
	info->chld.utime = times.utime_ns / USER_HZ_NS;
	info->chld.stime = times.stime_ns / USER_HZ_NS;
}

static void fill_child_status(int wait_status, struct moat_siginfo *info)
{
	int signo = wait_status & 0x7f;

	if (signo) {
		info->si_code = wait_status & 0x80 ? CLD_DUMPED : CLD_KILLED;
		info->chld.status = signo;
	} else {
		info->si_code = CLD_EXITED;
		info->chld.status = wait_status >> 8;
	}
}

void group_notify_stop(struct thread_group *g, int why, int signo)
{
	struct thread_group *parent = g->parent;
	struct moat_siginfo info = {.si_signo = SIGCHLD, .si_code = why};
	const struct moat_sigaction *sa;
	struct sighand *sh;
	struct task *t;

	if (!parent)
		return;
	fill_child_info(g, &info);
	info.chld.status = why == CLD_CONTINUED ? SIGCONT : signo;
	sh = sighand_lock(parent);
	sa = &sh->actions[SIGCHLD - 1];
	t = group_any_task(parent);
	if (t && sa->handler != SIG_IGN_ && !(sa->flags & SA_NOCLDSTOP))
		(void)signal_send_locked(t, parent, true, &info, NULL);
	sighand_unlock(sh);
	/* Even without a signal: waitid(WSTOPPED) waits for it. */
	wait_queue_wake(&parent->wait, POLLIN);
}

bool group_notify_exit(struct thread_group *g)
{
	struct thread_group *parent = g->parent;
	struct moat_siginfo info = {.si_signo = g->exit_signal};
	const struct moat_sigaction *sa;
	struct sighand *sh;
	struct task *t;
	int signo = g->exit_signal;
	bool autoreap = false;

	g->zombie = true;
	wait_queue_wake(&g->pidfd_wait, POLLIN | POLLHUP);
	task_cgroup_group_died(g);
	if (!parent || parent->zombie)
		return true;
	fill_child_info(g, &info);
	fill_child_status(g->exit_code, &info);
	sh = sighand_lock(parent);
	sa = &sh->actions[SIGCHLD - 1];
	if (signo == SIGCHLD && (sa->handler == SIG_IGN_ || (sa->flags & SA_NOCLDWAIT))) {
		/* POSIX: children are not waited for; and an ignored SIGCHLD is not sent. */
		autoreap = true;
		if (sa->handler == SIG_IGN_)
			signo = 0;
	}
	t = group_any_task(parent);
	if (signo && t)
		(void)signal_send_locked(t, parent, true, &info, NULL);
	sighand_unlock(sh);
	wait_queue_wake(&parent->wait, POLLIN);
	return autoreap;
}

void group_reap(struct thread_group *g, struct task_list *dead)
{
	struct task *t;

	assert(!g->reaped);
	g->reaped = true;
	cgroup_left(g); /* one that never ran */
	while ((t = TAILQ_FIRST(&g->threads))) {
		ptrace_unlink(t);
		task_unlink(t);
		TAILQ_INSERT_TAIL(dead, t, thread_link);
	}
	if (g->parent) {
		TAILQ_REMOVE(&g->parent->children, g, sibling);
		g->parent = NULL;
	}
	if (g->pgrp && g->pgrp->session->leader == g)
		g->pgrp->session->leader = NULL;
	group_leave_pgrp(g);
	if (g->pid_ns->init == g)
		g->pid_ns->init = NULL;
}

/* ---- children that stay behind ---- */

struct thread_group *group_find_reaper(struct thread_group *g)
{
	struct thread_group *a;

	/* A process that setns() put here has its parent outside: that is no way out. */
	for (a = g->parent; a && a->pid_ns == g->pid_ns; a = a->parent)
		if (a->is_subreaper && !a->zombie && atomic_load(&a->live))
			return a;
	a = g->pid_ns->level ? g->pid_ns->init : kernel.init ? kernel.init->group : NULL;
	return a && a != g && !a->zombie && atomic_load(&a->live) ? a : NULL;
}

void group_set_subreaper(struct thread_group *g, bool on)
{
	rwlock_write_lock(&kernel.taskset_lock);
	g->is_subreaper = on;
	rwlock_write_unlock(&kernel.taskset_lock);
}

static void send_parent_death(struct thread_group *child)
{
	struct task *t;

	TAILQ_FOREACH (t, &child->threads, thread_link)
		if (t->parent_death_signal) {
			struct moat_siginfo info = {.si_signo = t->parent_death_signal,
						    .si_code = SI_KERNEL};

			(void)signal_send_group(child, &info);
		}
}

/* Another thread of the dying thread's group becomes the parent's face. */
static void children_change_thread(struct task *t)
{
	struct thread_group *g = t->group, *c;
	struct task *heir = NULL;

	TAILQ_FOREACH (heir, &g->threads, thread_link)
		if (heir != t && atomic_load(&heir->state) != TASK_ZOMBIE)
			break;
	TAILQ_FOREACH (c, &g->children, sibling) {
		if (c->parent_tid != t->tid)
			continue;
		c->parent_tid = heir ? heir->tid : g->tgid;
		send_parent_death(c);
	}
}

static void children_reparent(struct task *t, struct task_list *dead)
{
	struct thread_group *g = t->group, *reaper = group_find_reaper(g), *c;

	while ((c = TAILQ_FIRST(&g->children))) {
		TAILQ_REMOVE(&g->children, c, sibling);
		if (c->parent_tid == t->tid || !reaper)
			send_parent_death(c);
		c->parent = reaper;
		c->parent_tid = reaper ? reaper->tgid : 0;
		if (reaper)
			TAILQ_INSERT_TAIL(&reaper->children, c, sibling);
		/* Whatever it was to send, an adopted child sends SIGCHLD. */
		c->exit_signal = SIGCHLD;
		if (c->zombie) {
			if (group_notify_exit(c))
				group_reap(c, dead);
			continue;
		}
		/* Job control: it may have lost the last parent that could continue it. */
		pgrp_check_orphaned(c, g);
	}
}

/* ---- the end ---- */

static void exit_clear_tid(struct task *t)
{
	static const uint32_t zero;
	uint64_t addr = t->clear_child_tid;

	if (!addr)
		return;
	t->clear_child_tid = 0;
	/* Nobody can see it when nobody shares the memory: spare the page a copy-on-write fault. */
	if (!t->mm_shared)
		return;
	if (!task_copy_out(t, addr, &zero, sizeof(zero)))
		(void)futex_op_wake(t, addr, FUTEX_F_SHARED, 1, ~0u);
}

void task_mm_release(struct task *t)
{
	if (!t->mm)
		return;
	task_futex_exit(t);
	t->robust_list = 0;
	exit_clear_tid(t);
}

static uint64_t exit_maxrss(struct task *t)
{
	struct mm_usage usage;

	if (!t->mm)
		return 0;
	mm_get_usage(t->mm, &usage);
	return usage.rss_peak >> 10;
}

/*
 * All threads are dead, and none that left holds what the waiter may think is gone: a descriptor's lock, text that is busy. Pre:
 * taskset_lock (write).
 */
static bool group_may_announce(const struct thread_group *g)
{
	return g->ntasks == 1 && g->leader && atomic_load(&g->leader->state) == TASK_ZOMBIE &&
	       !g->announced && !atomic_load(&g->leaving);
}

/* The caller's state becomes ZOMBIE, or it leaves at once. Return: the group is all dead now and its leader must be announced. */
static bool exit_leave_group(struct task *t, struct task_list *dead)
{
	struct thread_group *g = t->group;
	struct sighand *sh = sighand_lock(g);
	int signo = g->stop.signo;

	signal_retarget_exit_locked(t);
	if (t->stop_pending) {
		/* A group stop must not wait for us. */
		t->stop_pending = false;
		if (g->stop.count > 0 && --g->stop.count == 0 && atomic_load(&g->live)) {
			g->stop.stopped = g->stop.stop_unwaited = true;
			sighand_unlock(sh);
			group_notify_stop(g, CLD_STOPPED, signo);
			sh = sighand_lock(g);
		}
	}
	atomic_store_explicit(&t->state, TASK_ZOMBIE, memory_order_release);
	sighand_unlock(sh);
	if (t != g->leader && !ptrace_notify_thread_exit(t)) {
		task_unlink(t);
		TAILQ_INSERT_TAIL(dead, t, thread_link);
	}
	/* execve and the leader's announcement wait for this. */
	if (g->exec_task)
		return false;
	return group_may_announce(g);
}

static void exit_announce(struct thread_group *g, struct task_list *dead)
{
	struct task *leader = g->leader;

	g->announced = true;
	cgroup_left(g);
	if (!g->exiting)
		g->exit_code = leader->exit_code;
	/* A tracer that is not the parent hears it first; the parent when the tracer has waited. */
	if (leader->ptrace && ptrace_notify_exit(leader)) {
		wait_queue_wake(&g->pidfd_wait, POLLIN); /* for group_has_ended() */
		return;
	}
	if (group_notify_exit(g))
		group_reap(g, dead);
}

void group_announce_if_dead(struct thread_group *g, struct task_list *dead)
{
	if (!g->exec_task && !g->zombie && !g->reaped && group_may_announce(g))
		exit_announce(g, dead);
}

static void exit_notify(struct task *t, bool group_dead)
{
	struct task_list dead = TAILQ_HEAD_INITIALIZER(dead);
	struct thread_group *g = t->group;

	rwlock_write_lock(&kernel.taskset_lock);
	if (group_dead) {
		children_reparent(t, &dead);
		pgrp_check_orphaned(g, NULL);
	} else {
		children_change_thread(t);
	}
	if (exit_leave_group(t, &dead))
		exit_announce(g, &dead);
	rwlock_write_unlock(&kernel.taskset_lock);
	wait_queue_wake(&g->wait, POLLIN); /* execve's wait for its siblings */
	session_run_deferred();
	task_list_free(&dead);
}

static void exit_session(struct thread_group *g)
{
	struct session *s = NULL;

	rwlock_read_lock(&kernel.taskset_lock);
	if (g->pgrp && g->pgrp->session->leader == g) {
		s = g->pgrp->session;
		ref_get(&s->ref);
	}
	rwlock_read_unlock(&kernel.taskset_lock);
	if (!s)
		return;
	tty_session_leader_exit(s);
	rwlock_write_lock(&kernel.taskset_lock);
	if (s->leader == g)
		s->leader = NULL;
	session_unref(s);
	rwlock_write_unlock(&kernel.taskset_lock);
}

static void exit_account(struct task *t, uint64_t maxrss_kib)
{
	task_times_account(t, maxrss_kib);
	/* From here on readers take the final values. */
	atomic_store_explicit(&t->host_tid, 0, memory_order_release);
}

/* The caller holds nothing any more. The order is leaving, then live; the last thread's is live, then leaving: one of the two sees both. */
static void exit_left(struct thread_group *g)
{
	struct task_list dead = TAILQ_HEAD_INITIALIZER(dead);

	if (atomic_fetch_sub(&g->leaving, 1) != 1 || atomic_load(&g->live))
		return;
	rwlock_write_lock(&kernel.taskset_lock);
	group_announce_if_dead(g, &dead);
	rwlock_write_unlock(&kernel.taskset_lock);
	session_run_deferred();
	task_list_free(&dead);
}

/* A thread that leaves a living process: its tid is gone before a join (the cleared word's futex) can return. */
static void exit_thread(struct task *t, uint64_t maxrss_kib)
{
	atomic_fetch_add(&t->group->leaving, 1);
	exit_account(t, maxrss_kib);
	exit_notify(t, false);
	exit_clear_tid(t);
	task_vfork_done(t);
	task_drop_resources(t);
	vfs_run_deferred();
	exit_left(t->group);
}

void task_do_exit(struct task *t)
{
	struct thread_group *g = t->group;
	bool group_dead, init;
	uint64_t maxrss;
	struct sighand *sh;

	t->exiting = true;
	ptrace_event(t, PTRACE_EVENT_EXIT_, (uint64_t)t->exit_code);
	sh = sighand_lock(g);
	group_dead = atomic_fetch_sub(&g->live, 1) == 1;
	if (group_dead && !g->exiting) {
		g->exiting = true;
		g->exit_code = g->leader == t || !g->leader ? t->exit_code : g->leader->exit_code;
	}
	sighand_unlock(sh);
	init = group_dead && kernel.init && g == kernel.init->group;
	if (group_dead)
		group_timers_exit(g);
	maxrss = exit_maxrss(t);
	ptrace_exit(t);
	task_futex_exit(t);
	t->robust_list = 0;
	if (!group_dead && t != g->leader) {
		exit_thread(t, maxrss);
		return;
	}
	exit_clear_tid(t);
	/* Descriptors go before the parent hears of it: a pipe's reader and a waiter see them in this order. */
	if (group_dead)
		exit_session(g);
	task_drop_resources(t);
	task_vfork_done(t);
	vfs_run_deferred();
	/* The kernel's own threads of a container wait for init's children, so init ends when they have. */
	if (init)
		kernel_init_exited(g->exit_code);
	else if (group_dead && g->pid_ns->level && g->vtgid == 1)
		pid_ns_zap(g);
	exit_account(t, maxrss);
	exit_notify(t, group_dead);
}

/* ---- for moat exec and wait ---- */

bool group_is_dead(struct thread_group *g)
{
	bool dead;

	rwlock_read_lock(&kernel.taskset_lock);
	dead = g->zombie;
	rwlock_read_unlock(&kernel.taskset_lock);
	return dead;
}

bool group_has_ended(struct thread_group *g)
{
	bool ended;

	rwlock_read_lock(&kernel.taskset_lock);
	ended = g->zombie || g->announced;
	rwlock_read_unlock(&kernel.taskset_lock);
	return ended;
}
