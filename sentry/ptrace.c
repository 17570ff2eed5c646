/*
 * sentry/ptrace.c - ptrace(2).
 *
 * A tracee stops on its own thread in ptrace_stop(): it publishes what a wait shall see (stop_code), tells the tracer, and sleeps until the
 * tracer resumes it or it is killed. While it is stopped, its registers (t->regs), its signal's siginfo and a copy of its FPU state
 * belong to the tracer, which touches them under the tracee's sighand lock; the FPU copy goes back into the platform's context when the tracee
 * runs again, for only its own thread may touch that. All tracees hang on one list under taskset_lock.
 *
 * A container's end waits for its tracees' tracers, as that of a pid namespace does on Linux, but not for ever for one in another container
 * (ptrace_let_go()).
 *
 * The tracer is a thread group: any of its threads may make requests (Linux insists on the thread that attached).
 *
 * Cannot do: PTRACE_EVENT_EXIT of threads that a sibling's execve ends (their death is told), and of an init; debug registers (read as zero),
 * PTRACE_SINGLEBLOCK, SECCOMP_GET_FILTER, rseq configuration.
 */
#include <linux/audit.h>
#include <linux/elf.h>
#include <linux/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>

#include "sentry/ptrace_internal.h"

static TAILQ_HEAD(, ptrace_state) tracees =
	TAILQ_HEAD_INITIALIZER(tracees); /* guarded by taskset_lock */
static _Atomic int tracee_count; /* how many they are, for a look without the lock */

/* ---- attaching and letting go; taskset_lock (write) and the sighand lock of t are held ---- */

int ptrace_begin_locked(struct task *t, struct thread_group *tracer, bool seized, uint32_t options)
{
	struct ptrace_state *p;

	if (t->ptrace)
		return -EPERM;
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->fpu_size = kernel.platform->ops->fpu_size(kernel.platform);
	p->fpu = calloc(1, MAX(p->fpu_size, sizeof(struct user_fpregs_struct)));
	if (!p->fpu) {
		free(p);
		return -ENOMEM;
	}
	p->task = t;
	p->tracer = tracer;
	p->seized = seized;
	p->options = options;
	TAILQ_INSERT_TAIL(&tracees, p, link);
	atomic_fetch_add_explicit(&tracee_count, 1, memory_order_relaxed);
	t->ptrace = p;
	return 0;
}

/* The state itself is freed by the tracee's thread if it sleeps in it, else here. */
void ptrace_end_locked(struct task *t)
{
	struct ptrace_state *p = t->ptrace;

	if (!p)
		return;
	TAILQ_REMOVE(&tracees, p, link);
	atomic_fetch_sub_explicit(&tracee_count, 1, memory_order_relaxed);
	t->ptrace = NULL;
	t->regs.r.eflags &= ~ARCH_EFLAGS_TF;
	if (p->in_stop) {
		p->stopped = false;
		p->tracer = NULL;
		sleeper_wake(&t->sleeper);
		return;
	}
	free(p->fpu);
	free(p);
}

void ptrace_unlink(struct task *t)
{
	struct sighand *sh = sighand_lock(t->group);

	ptrace_end_locked(t);
	sighand_unlock(sh);
}

bool ptrace_is_tracer_of(struct thread_group *g, struct task *t)
{
	return t->ptrace && t->ptrace->tracer == g;
}

/* ---- stopping ---- */

static void tell_tracer(struct thread_group *tracer, struct task *t, int code, int status)
{
	struct moat_siginfo info = {.si_signo = SIGCHLD, .si_code = code};
	struct sighand *sh;
	struct task *any;

	info.chld.pid = pid_nr_in(tracer->pid_ns, t->tid);
	info.chld.uid = t->cred->uid;
	info.chld.status = status;
	sh = sighand_lock(tracer);
	any = group_any_task(tracer);
	if (any && sh->actions[SIGCHLD - 1].handler != SIG_IGN_ &&
	    (code != CLD_TRAPPED || !(sh->actions[SIGCHLD - 1].flags & SA_NOCLDSTOP)))
		(void)signal_send_locked(any, tracer, true, &info, NULL);
	sighand_unlock(sh);
	wait_queue_wake(&tracer->wait, POLLIN);
}

/* From its first stop on a tracee's text is executed as the tracer sees it; it stays so when it is let go. */
static void stop_save_fpu(struct task *t, struct ptrace_state *p)
{
	if (t->mm)
		platform_as_set_traced(kernel.platform, mm_address_space(t->mm), true);
	p->fpu_changed = false;
	if (kernel.platform->ops->fpu_get(t->ctx, p->fpu, p->fpu_size) < 0)
		memset(p->fpu, 0, p->fpu_size);
}

/* Who dies with its whole process stops to say so, but not an init: its end is a container's, and waits for nobody. Sighand lock held. */
static bool may_stop_dying(const struct task *t, int stop_code)
{
	const struct thread_group *g = t->group;

	return stop_code == (SIGTRAP | PTRACE_EVENT_EXIT << 8) && g->pid_ns->init != g &&
	       atomic_load(&g->cgroup->init) != g && !(kernel.init && kernel.init->group == g);
}

/* Death and a sibling's execve end a stop; death not that of who says so (dying), as signals do nothing any more then. Sighand lock held. */
static bool stop_is_over(const struct task *t, bool dying)
{
	const struct thread_group *g = t->group;

	return (g->exiting && !dying) || (g->exec_task && g->exec_task != t);
}

/* Return: a stopped t would be waited for. Not where the tracer dies too: two who trace each other would wait for ever. No locks held. */
static bool tell_of_stop(struct thread_group *tracer, struct task *t, int stop_code, bool dying)
{
	bool heard;

	rwlock_read_lock(&kernel.taskset_lock);
	tell_tracer(tracer, t, CLD_TRAPPED, stop_code & 0x7f);
	heard = !dying || !group_is_dying(tracer);
	rwlock_read_unlock(&kernel.taskset_lock);
	return heard;
}

/*
 * Stops the calling tracee until the tracer says otherwise. No locks held. `info` is in and out when the stop is about a signal.
 * Return: the signal that the tracer wants delivered, 0 for none. Also returns when the task is killed or let go.
 */
static int ptrace_stop(struct task *t, int stop_code, uint64_t message, struct moat_siginfo *info,
		       uint8_t syscall_op)
{
	struct sighand *sh = sighand_lock(t->group);
	struct ptrace_state *p = t->ptrace;
	struct thread_group *tracer;
	int signo = info ? info->si_signo : 0;
	bool dying = t->group->exiting && may_stop_dying(t, stop_code), ended, heard;

	if (!p || stop_is_over(t, dying)) {
		sighand_unlock(sh);
		return signo;
	}
	/* in_stop keeps p while the platform is asked without the lock. */
	p->in_stop = true;
	sighand_unlock(sh);
	stop_save_fpu(t, p);
	sh = sighand_lock(t->group);
	if (p != t->ptrace)
		goto out_ended;
	p->stop_code = stop_code;
	p->message = message;
	p->resume_signo = 0;
	p->syscall_op = syscall_op;
	p->info = info ? *info
		       : (struct moat_siginfo){.si_signo = stop_code & 0x7f, .si_code = stop_code};
	p->stopped = p->news = true;
	p->listening = false;
	tracer = p->tracer;
	group_ref(tracer);
	atomic_store_explicit(&t->state, TASK_TRACED, memory_order_relaxed);
	sighand_unlock(sh);
	heard = tell_of_stop(tracer, t, stop_code, dying);
	group_unref(tracer);
	sh = sighand_lock(t->group);
	while (heard && p->stopped && !stop_is_over(t, dying)) {
		sighand_unlock(sh);
		(void)!sleeper_wait(&t->sleeper, dying ? SLEEP_UNINTERRUPTIBLE : SLEEP_KILLABLE,
				    TIME_FOREVER);
		sh = sighand_lock(t->group);
	}
	atomic_store_explicit(&t->state, TASK_RUNNING, memory_order_relaxed);
	p->stopped = p->news = false;
	signo = p->resume_signo;
	if (info) {
		/* A signal other than the one it stopped for comes without its siginfo. */
		if (p->info.si_signo != signo)
			p->info = (struct moat_siginfo){.si_signo = signo, .si_code = SI_USER};
		*info = p->info;
	}
	if (p->fpu_changed) {
		/* The tracer's threads touch the copy only while we are stopped. */
		sighand_unlock(sh);
		if (kernel.platform->ops->fpu_set(t->ctx, p->fpu, p->fpu_size))
			log_debug("ptrace: FPU state of %d refused", t->tid);
		sh = sighand_lock(t->group);
	}
out_ended:
	p->in_stop = false;
	ended = p != t->ptrace;
	sighand_unlock(sh);
	if (ended) {
		/* Let go while it slept: ptrace_end_locked() left the freeing to us. */
		free(p->fpu);
		free(p);
	}
	return signo;
}

struct ptrace_view {
	bool traced, seized;
	uint32_t options;
	enum ptrace_resume mode;
};

/* The tracer may end and let go at any moment: what is decided by is a copy. */
static struct ptrace_view ptrace_look(struct task *t)
{
	struct sighand *sh = sighand_lock(t->group);
	struct ptrace_view v = {0};

	if (t->ptrace)
		v = (struct ptrace_view){true, t->ptrace->seized, t->ptrace->options,
					 t->ptrace->mode};
	sighand_unlock(sh);
	return v;
}

int ptrace_signal_stop(struct task *t, int signo, struct moat_siginfo *info)
{
	struct ptrace_view v = ptrace_look(t);
	int back;

	if (v.traced && v.mode >= RESUME_STEP)
		t->regs.r.eflags &= ~ARCH_EFLAGS_TF;
	back = ptrace_stop(t, signo, 0, info, 0);
	if (back && (t->blocked & sigbit(back))) {
		/* Blocked meanwhile: it waits its turn. */
		(void)signal_send_task(t, info);
		return 0;
	}
	return back;
}

void ptrace_group_stop(struct task *t, int signo)
{
	if (ptrace_look(t).seized)
		(void)ptrace_stop(t, signo | EVENT_STOP << 8, 0, NULL, 0);
	else
		(void)ptrace_stop(t, signo, 0, NULL, 0);
}

bool ptrace_trap_pending(const struct task *t)
{
	return t->ptrace && t->ptrace->interrupt;
}

void ptrace_interrupt_stop(struct task *t)
{
	struct sighand *sh = sighand_lock(t->group);
	int signo = SIGTRAP;

	if (t->ptrace)
		t->ptrace->interrupt = false;
	if (t->group->stop.stopped && t->group->stop.signo)
		signo = t->group->stop.signo;
	sighand_unlock(sh);
	(void)ptrace_stop(t, signo | EVENT_STOP << 8, 0, NULL, 0);
}

/* ---- system calls and events ---- */

bool ptrace_syscall_enter(struct task *t)
{
	struct ptrace_view v = ptrace_look(t);
	int signo;

	if (!v.traced ||
	    (v.mode != RESUME_SYSCALL && v.mode != RESUME_SYSEMU && v.mode != RESUME_SYSEMU_STEP))
		return true;
	signo = ptrace_stop(t, v.options & PTRACE_O_TRACESYSGOOD ? SYSGOOD_STOP : SIGTRAP, 1, NULL,
			    PTRACE_SYSCALL_INFO_ENTRY);
	if (signo)
		(void)signal_send_task_kernel(t, signo);
	if (atomic_load(&t->fatal_pending))
		return false;
	return v.mode == RESUME_SYSCALL && (int64_t)t->regs.r.orig_rax != -1;
}

void ptrace_syscall_exit(struct task *t)
{
	struct ptrace_view v = ptrace_look(t);
	int signo;

	if (!v.traced || t->exiting)
		return;
	if (v.mode == RESUME_STEP || v.mode == RESUME_SYSEMU_STEP) {
		/* The step over the instruction ends here. */
		t->regs.r.eflags &= ~ARCH_EFLAGS_TF;
		signo = ptrace_stop(t, SIGTRAP, 0, NULL, 0);
	} else if (v.mode == RESUME_SYSCALL) {
		signo = ptrace_stop(t, v.options & PTRACE_O_TRACESYSGOOD ? SYSGOOD_STOP : SIGTRAP,
				    2, NULL, PTRACE_SYSCALL_INFO_EXIT);
	} else {
		return;
	}
	if (signo)
		(void)signal_send_task_kernel(t, signo);
}

bool ptrace_wants_event(struct task *t, int event)
{
	return ptrace_look(t).options & (1u << event);
}

uint64_t ptrace_pid_message(struct task *t, int32_t root)
{
	struct sighand *sh;
	int32_t nr = root;

	if (likely(!t->ptrace))
		return (uint64_t)nr;
	sh = sighand_lock(t->group);
	if (t->ptrace && t->ptrace->tracer)
		nr = pid_nr_in(t->ptrace->tracer->pid_ns, root);
	sighand_unlock(sh);
	return (uint64_t)nr;
}

void ptrace_event(struct task *t, int event, uint64_t message)
{
	struct ptrace_view v;
	int signo;

	if (likely(!t->ptrace))
		return;
	v = ptrace_look(t);
	if (v.options & (1u << event)) {
		signo = ptrace_stop(t, SIGTRAP | event << 8, message, NULL,
				    event == PTRACE_EVENT_SECCOMP ? PTRACE_SYSCALL_INFO_SECCOMP
								  : 0);
		if (signo)
			(void)signal_send_task_kernel(t, signo);
	} else if (event == PTRACE_EVENT_EXEC && v.traced && !v.seized) {
		(void)signal_send_task_kernel(t, SIGTRAP);
	}
}

void ptrace_attach_child(struct task *parent, struct task *child, int event)
{
	struct ptrace_state *p = parent->ptrace;

	if (!p || !(p->options & (1u << event)) ||
	    ptrace_begin_locked(child, p->tracer, p->seized, p->options))
		return;
	if (p->seized) {
		child->ptrace->interrupt = true;
		sleeper_interrupt(&child->sleeper, false);
	} else {
		child->pending.set |= sigbit(SIGSTOP);
		child->stop_dequeued = false;
		sleeper_interrupt(&child->sleeper, false);
	}
}

/* ---- what the tracer's wait sees; taskset_lock held ---- */

struct task *ptrace_next_tracee(struct thread_group *tracer, struct task *prev)
{
	struct ptrace_state *p = prev ? TAILQ_NEXT(prev->ptrace, link) : TAILQ_FIRST(&tracees);

	while (p && p->tracer != tracer)
		p = TAILQ_NEXT(p, link);
	return p ? p->task : NULL;
}

bool ptrace_take_news(struct thread_group *tracer, struct task *t, int options, int *ret_code,
		      int *ret_status, int *ret_wait_status)
{
	struct sighand *sh = sighand_lock(t->group);
	struct ptrace_state *p = t->ptrace;
	bool found = false;

	(void)tracer;
	if (p->dead_news && (options & WEXITED)) {
		int status = t->group->leader == t ? t->group->exit_code : t->exit_code;

		*ret_wait_status = status;
		*ret_code = status & 0x7f ? CLD_KILLED : CLD_EXITED;
		*ret_status = status & 0x7f ? status & 0x7f : (status >> 8) & 0xff;
		found = true;
	} else if (p->stopped && p->news) {
		*ret_wait_status = p->stop_code << 8 | 0x7f;
		*ret_code = CLD_TRAPPED;
		*ret_status = p->stop_code;
		if (!(options & WNOWAIT))
			p->news = false;
		found = true;
	}
	sighand_unlock(sh);
	return found;
}

static void tell_death(struct task *t, int wait_status)
{
	struct ptrace_state *p = t->ptrace;
	int signo = wait_status & 0x7f;

	p->dead_news = true;
	tell_tracer(p->tracer, t, signo ? CLD_KILLED : CLD_EXITED,
		    signo ? signo : wait_status >> 8);
}

bool ptrace_notify_exit(struct task *leader)
{
	if (leader->ptrace->tracer == leader->group->parent) {
		ptrace_unlink(leader);
		return false;
	}
	tell_death(leader, leader->group->exit_code);
	return true;
}

bool ptrace_notify_thread_exit(struct task *t)
{
	if (!t->ptrace)
		return false;
	tell_death(t, t->exit_code);
	return true;
}

/* The dead tracee is let go: a thread leaves its group, of which it may have been the last; a leader that its tracer had to hear of first is its parent's. */
static void zombie_release(struct task *t, struct task_list *dead)
{
	struct thread_group *g = t->group;

	if (t == g->leader) {
		if (g->announced && !g->zombie && group_notify_exit(g))
			group_reap(g, dead);
		return;
	}
	task_unlink(t);
	TAILQ_INSERT_TAIL(dead, t, thread_link);
	wait_queue_wake(&g->wait, POLLIN); /* execve's wait for its siblings */
	group_announce_if_dead(g, dead);
}

void ptrace_reap_tracee(struct task *t, struct task_list *dead)
{
	ptrace_unlink(t);
	zombie_release(t, dead);
}

/* A tracer that ends frees its tracees, or takes them along. */
static struct task *exit_next_tracee(struct thread_group *g)
{
	struct task *t;
	struct sighand *sh;

	t = ptrace_next_tracee(g, NULL);
	if (!t)
		return NULL;
	task_ref(t);
	sh = sighand_lock(t->group);
	/* Before it is let go: it must not run on. */
	if ((t->ptrace->options & PTRACE_O_EXITKILL) && !t->group->exiting &&
	    atomic_load(&t->state) != TASK_ZOMBIE)
		group_kill_locked(t->group, SIGKILL);
	ptrace_end_locked(t);
	sighand_unlock(sh);
	return t;
}

void ptrace_exit(struct task *t)
{
	struct task_list dead = TAILQ_HEAD_INITIALIZER(dead);
	struct thread_group *g = t->group;
	struct task *tracee;

	if (atomic_load(&g->live) || !atomic_load_explicit(&tracee_count, memory_order_relaxed))
		return;
	for (;;) {
		rwlock_write_lock(&kernel.taskset_lock);
		tracee = exit_next_tracee(g);
		if (tracee && atomic_load(&tracee->state) == TASK_ZOMBIE)
			zombie_release(tracee, &dead);
		rwlock_write_unlock(&kernel.taskset_lock);
		if (!tracee)
			break;
		task_unref(tracee);
	}
	session_run_deferred();
	task_list_free(&dead);
}

/* The first of them. taskset_lock (write). Return: there was one. */
static bool let_go_one(struct task_cgroup *cg, struct task_list *dead)
{
	struct ptrace_state *p;

	TAILQ_FOREACH (p, &tracees, link) {
		struct task *t = p->task;
		struct sighand *sh;
		bool dying;

		if (t->group->cgroup != cg || p->tracer->cgroup == cg)
			continue;
		sh = sighand_lock(t->group);
		dying = t->group->exiting;
		if (dying)
			ptrace_end_locked(t);
		sighand_unlock(sh);
		if (!dying)
			continue;
		if (atomic_load(&t->state) == TASK_ZOMBIE)
			zombie_release(t, dead);
		return true;
	}
	return false;
}

void ptrace_let_go(struct task_cgroup *cg)
{
	struct task_list dead = TAILQ_HEAD_INITIALIZER(dead);
	bool more = atomic_load_explicit(&tracee_count, memory_order_relaxed) > 0;

	while (more) {
		rwlock_write_lock(&kernel.taskset_lock);
		more = let_go_one(cg, &dead);
		rwlock_write_unlock(&kernel.taskset_lock);
	}
	session_run_deferred();
	task_list_free(&dead);
}
