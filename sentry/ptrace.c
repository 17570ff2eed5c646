/*
 * sentry/ptrace.c - ptrace(2).
 *
 * A tracee stops on its own thread in ptrace_stop(): it publishes what a wait shall see (stop_code), tells the tracer, and sleeps until the
 * tracer resumes it or it is killed. While it is stopped, its registers (t->regs), its signal's siginfo and a copy of its FPU state
 * belong to the tracer, which touches them under the tracee's sighand lock; the FPU copy goes back into the platform's context when the tracee
 * runs again, for only its own thread may touch that. All tracees hang on one list under taskset_lock.
 *
 * The tracer is a thread group: any of its threads may make requests (Linux insists on the thread that attached).
 *
 * Cannot do: debug registers (read as zero), PTRACE_SINGLEBLOCK, PEEKSIGINFO, SECCOMP_GET_FILTER, rseq configuration.
 */
#include <linux/audit.h>
#include <linux/elf.h>
#include <linux/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>

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

static TAILQ_HEAD(, ptrace_state) tracees =
	TAILQ_HEAD_INITIALIZER(tracees); /* guarded by taskset_lock */

/* ---- attaching and letting go; taskset_lock (write) and the sighand lock of t are held ---- */

static int trace_begin_locked(struct task *t, struct thread_group *tracer, bool seized,
			      uint32_t options)
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
	t->ptrace = p;
	return 0;
}

/* The state itself is freed by the tracee's thread if it sleeps in it, else here. */
static void trace_end_locked(struct task *t)
{
	struct ptrace_state *p = t->ptrace;

	if (!p)
		return;
	TAILQ_REMOVE(&tracees, p, link);
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

	trace_end_locked(t);
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

	info.chld.pid = t->tid;
	info.chld.uid = t->cred->uid;
	info.chld.status = status;
	sh = sighand_lock(tracer);
	any = group_any_task(tracer);
	if (any && sh->actions[SIGCHLD - 1].handler != SIG_IGN_ &&
	    !(sh->actions[SIGCHLD - 1].flags & SA_NOCLDSTOP))
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
	bool ended;

	if (!p || t->group->exiting || (t->group->exec_task && t->group->exec_task != t)) {
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
	rwlock_read_lock(&kernel.taskset_lock);
	tell_tracer(tracer, t, CLD_TRAPPED, stop_code & 0x7f);
	rwlock_read_unlock(&kernel.taskset_lock);
	group_unref(tracer);
	sh = sighand_lock(t->group);
	while (p->stopped && !t->group->exiting &&
	       !(t->group->exec_task && t->group->exec_task != t)) {
		sighand_unlock(sh);
		(void)!sleeper_wait(&t->sleeper, SLEEP_KILLABLE, TIME_FOREVER);
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
		/* Let go while it slept: trace_end_locked() left the freeing to us. */
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
	    trace_begin_locked(child, p->tracer, p->seized, p->options))
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
		int status = t->group->leader == t && t->group->ntasks == 1 ? t->group->exit_code
									    : t->exit_code;

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

bool ptrace_notify_exit(struct task *leader)
{
	struct ptrace_state *p = leader->ptrace;

	if (p->tracer == leader->group->parent) {
		ptrace_unlink(leader);
		return false;
	}
	p->dead_news = true;
	tell_tracer(p->tracer, leader, leader->group->exit_code & 0x7f ? CLD_KILLED : CLD_EXITED,
		    leader->group->exit_code & 0x7f ? leader->group->exit_code & 0x7f
						    : leader->group->exit_code >> 8);
	return true;
}

void ptrace_reap_tracee(struct task *t, struct task_list *dead)
{
	struct thread_group *g = t->group;

	ptrace_unlink(t);
	if (t != g->leader) {
		task_unlink(t);
		TAILQ_INSERT_TAIL(dead, t, thread_link);
		if (g->ntasks != 1 || !g->leader || atomic_load(&g->leader->state) != TASK_ZOMBIE)
			return;
	}
	if (g->ntasks == 1 && group_notify_exit(g))
		group_reap(g, dead);
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
	trace_end_locked(t);
	sighand_unlock(sh);
	return t;
}

void ptrace_exit(struct task *t)
{
	struct task_list dead = TAILQ_HEAD_INITIALIZER(dead);
	struct thread_group *g = t->group;
	struct task *tracee;

	/* A thread that is no leader leaves no zombie for a tracer here: its exit is told by PTRACE_EVENT_EXIT. */
	if (t->ptrace && t != g->leader) {
		rwlock_write_lock(&kernel.taskset_lock);
		ptrace_unlink(t);
		rwlock_write_unlock(&kernel.taskset_lock);
	}
	if (atomic_load(&g->live) || TAILQ_EMPTY(&tracees))
		return;
	for (;;) {
		rwlock_write_lock(&kernel.taskset_lock);
		tracee = exit_next_tracee(g);
		if (tracee && atomic_load(&tracee->state) == TASK_ZOMBIE &&
		    tracee->group->ntasks == 1 && !tracee->group->zombie &&
		    group_notify_exit(tracee->group))
			group_reap(tracee->group, &dead);
		rwlock_write_unlock(&kernel.taskset_lock);
		if (!tracee)
			break;
		task_unref(tracee);
	}
	session_run_deferred();
	task_list_free(&dead);
}

/* ---- requests on a stopped tracee; its sighand lock is held ---- */

#define REGS_SIZE sizeof(struct user_regs_struct)

static int set_regs(struct task *t, const struct user_regs_struct *new)
{
	struct user_regs_struct *r = &t->regs.r;

	if (new->fs_base >= ARCH_TASK_SIZE || new->gs_base >= ARCH_TASK_SIZE)
		return -EIO;
	*r = *new;
	r->eflags = (new->eflags &(ARCH_EFLAGS_USER & ~RF_FLAG)) | ARCH_EFLAGS_FIXED;
	r->cs = ARCH_USER_CS;
	r->ss = ARCH_USER_SS;
	return 0;
}

static void resume_locked(struct task *t, enum ptrace_resume mode, int signo)
{
	struct ptrace_state *p = t->ptrace;

	p->mode = mode;
	p->resume_signo = signo;
	if (mode == RESUME_STEP || mode == RESUME_SYSEMU_STEP)
		t->regs.r.eflags |= ARCH_EFLAGS_TF;
	else
		t->regs.r.eflags &= ~ARCH_EFLAGS_TF;
	p->stopped = p->news = false;
	sleeper_wake(&t->sleeper);
}

/* PTRACE_GETREGSET/SETREGSET: the register bytes of a note, in a buffer of the caller's. */
static int regset_find(struct task *t, uint64_t note, void **ret_data, size_t *ret_size)
{
	switch (note) {
	case NT_PRSTATUS:
		*ret_data = &t->regs.r;
		*ret_size = REGS_SIZE;
		return 0;
	case NT_PRFPREG:
		*ret_data = t->ptrace->fpu;
		*ret_size = sizeof(struct user_fpregs_struct);
		return 0;
	case NT_X86_XSTATE:
		*ret_data = t->ptrace->fpu;
		*ret_size = t->ptrace->fpu_size;
		return 0;
	default:
		return -EINVAL;
	}
}

/* Registers and FPU of the stopped tracee to a buffer, or from it. */
static int regset_copy(struct task *t, uint64_t note, void *buf, size_t *inout_size, bool write)
{
	struct sighand *sh = sighand_lock(t->group);
	struct user_regs_struct regs;
	size_t size;
	void *data;
	int err = -ESRCH;

	if (!t->ptrace || !t->ptrace->stopped)
		goto out;
	err = regset_find(t, note, &data, &size);
	if (err)
		goto out;
	*inout_size = MIN(*inout_size, size);
	if (!write) {
		memcpy(buf, data, *inout_size);
	} else if (note == NT_PRSTATUS) {
		regs = t->regs.r;
		memcpy(&regs, buf, *inout_size);
		err = set_regs(t, &regs);
	} else {
		memcpy(data, buf, *inout_size);
		t->ptrace->fpu_changed = true;
	}
out:
	sighand_unlock(sh);
	return err;
}

#define REGSET_MAX (16ul << 10)

static int64_t request_regset(struct task *t, struct task *target, uint64_t note, uint64_t uaddr,
			      size_t *inout_size, bool write)
{
	size_t size = MIN(*inout_size, REGSET_MAX);
	uint8_t *buf = calloc(1, REGSET_MAX);
	int err = -ENOMEM;

	if (!buf)
		return err;
	if (write && task_copy_in(t, buf, uaddr, size)) {
		err = -EFAULT;
		goto out;
	}
	err = regset_copy(target, note, buf, &size, write);
	if (!err && !write && task_copy_out(t, uaddr, buf, size))
		err = -EFAULT;
	*inout_size = size;
out:
	free(buf);
	return err;
}

static int64_t request_regset_iov(struct task *t, struct task *target, uint64_t note, uint64_t uiov,
				  bool write)
{
	struct {
		uint64_t base, len;
	} iov;
	size_t size;
	int64_t err;

	if (task_copy_in(t, &iov, uiov, sizeof(iov)))
		return -EFAULT;
	size = iov.len;
	err = request_regset(t, target, note, iov.base, &size, write);
	if (err)
		return err;
	iov.len = size;
	return task_copy_out(t, uiov, &iov, sizeof(iov));
}

static int64_t request_memory(struct task *t, struct task *target, uint64_t addr, uint64_t data,
			      bool write)
{
	struct mm *mm = task_get_mm(target);
	uint64_t word = data;
	size_t n;

	if (!mm)
		return -ESRCH;
	n = mm_access_remote(mm, addr, &word, sizeof(word), write);
	mm_unref(mm);
	if (n != sizeof(word))
		return -EIO;
	return write ? 0 : task_copy_out(t, data, &word, sizeof(word));
}

/* PEEKUSER and POKEUSER: struct user; only the registers are really there. */
static int64_t request_user(struct task *t, struct task *target, uint64_t off, uint64_t data,
			    bool write)
{
	struct user_regs_struct regs;
	size_t size = sizeof(regs);
	uint64_t word = 0;
	int err;

	if ((off & 7) || off > sizeof(struct user) - 8)
		return -EIO;
	err = regset_copy(target, NT_PRSTATUS, &regs, &size, false);
	if (err)
		return err;
	if (off < REGS_SIZE) {
		if (write) {
			memcpy((char *)&regs + off, &data, sizeof(data));
			return regset_copy(target, NT_PRSTATUS, &regs, &size, true);
		}
		memcpy(&word, (char *)&regs + off, sizeof(word));
	} else if (write) {
		/* Debug registers may be cleared, not set. */
		return data ? -EIO : 0;
	}
	return task_copy_out(t, data, &word, sizeof(word));
}

static int64_t request_siginfo(struct task *t, struct task *target, uint64_t uaddr, bool write)
{
	struct moat_siginfo info;
	struct sighand *sh;
	int err = 0;

	if (write && task_copy_in(t, &info, uaddr, sizeof(info)))
		return -EFAULT;
	sh = sighand_lock(target->group);
	if (!target->ptrace || !target->ptrace->stopped)
		err = -ESRCH;
	else if (write)
		target->ptrace->info = info;
	else
		info = target->ptrace->info;
	sighand_unlock(sh);
	if (err || write)
		return err;
	return task_copy_out(t, uaddr, &info, sizeof(info));
}

static int64_t request_message(struct task *t, struct task *target, uint64_t uaddr)
{
	struct sighand *sh = sighand_lock(target->group);
	uint64_t message = target->ptrace ? target->ptrace->message : 0;

	sighand_unlock(sh);
	return task_copy_out(t, uaddr, &message, sizeof(message));
}

static int64_t request_sigmask(struct task *t, struct task *target, uint64_t size, uint64_t uaddr,
			       bool write)
{
	struct sighand *sh;
	uint64_t mask = 0;

	if (size != sizeof(mask))
		return -EINVAL;
	if (write && task_copy_in(t, &mask, uaddr, sizeof(mask)))
		return -EFAULT;
	sh = sighand_lock(target->group);
	if (write)
		target->blocked = mask & ~SIGMASK_UNBLOCKABLE;
	else
		mask = target->blocked;
	sighand_unlock(sh);
	return write ? 0 : task_copy_out(t, uaddr, &mask, sizeof(mask));
}

static int64_t request_syscall_info(struct task *t, struct task *target, uint64_t size,
				    uint64_t uaddr)
{
	struct ptrace_syscall_info si = {.arch = AUDIT_ARCH_X86_64};
	const struct user_regs_struct *r = &target->regs.r;
	size_t full = offsetof(struct ptrace_syscall_info, entry);
	struct sighand *sh = sighand_lock(target->group);
	uint64_t message = 0;

	if (target->ptrace) {
		si.op = target->ptrace->syscall_op;
		message = target->ptrace->message;
	}
	si.instruction_pointer = r->rip;
	si.stack_pointer = r->rsp;
	if (si.op == PTRACE_SYSCALL_INFO_ENTRY || si.op == PTRACE_SYSCALL_INFO_SECCOMP) {
		const uint64_t args[6] = {r->rdi, r->rsi, r->rdx, r->r10, r->r8, r->r9};

		si.entry.nr = r->orig_rax;
		memcpy(si.entry.args, args, sizeof(args));
		full += sizeof(si.entry);
		if (si.op == PTRACE_SYSCALL_INFO_SECCOMP) {
			si.seccomp.ret_data = (uint32_t)message;
			full = offsetof(struct ptrace_syscall_info, seccomp) + sizeof(si.seccomp);
		}
	} else if (si.op == PTRACE_SYSCALL_INFO_EXIT) {
		si.exit.rval = (int64_t)r->rax;
		si.exit.is_error = si.exit.rval < 0 && si.exit.rval >= -4095;
		full += sizeof(si.exit);
	}
	sighand_unlock(sh);
	if (task_copy_out(t, uaddr, &si, MIN(size, full)))
		return -EFAULT;
	return (int64_t)full;
}

static int64_t request_resume(struct task *target, enum ptrace_resume mode, uint64_t signo)
{
	struct sighand *sh;
	int err = -ESRCH;

	if (signo > SIG_COUNT)
		return -EIO;
	sh = sighand_lock(target->group);
	if (target->ptrace && target->ptrace->stopped) {
		resume_locked(target, mode, (int)signo);
		err = 0;
	}
	sighand_unlock(sh);
	return err;
}

static int64_t request_detach(struct task *target, uint64_t signo)
{
	struct sighand *sh;
	int err = -ESRCH;

	if (signo > SIG_COUNT)
		return -EIO;
	rwlock_write_lock(&kernel.taskset_lock);
	sh = sighand_lock(target->group);
	if (target->ptrace && target->ptrace->stopped) {
		target->ptrace->resume_signo = (int)signo;
		trace_end_locked(target);
		err = 0;
	}
	sighand_unlock(sh);
	rwlock_write_unlock(&kernel.taskset_lock);
	return err;
}

static int64_t request_options(struct task *target, uint64_t options)
{
	struct sighand *sh;

	if (options & ~(uint64_t)PTRACE_OPTIONS_ALL)
		return -EINVAL;
	sh = sighand_lock(target->group);
	if (target->ptrace)
		target->ptrace->options = (uint32_t)options;
	sighand_unlock(sh);
	return 0;
}

static int64_t request_interrupt(struct task *target)
{
	struct sighand *sh = sighand_lock(target->group);
	int err = -EIO;

	if (target->ptrace && target->ptrace->seized) {
		err = 0;
		if (!target->ptrace->stopped) {
			target->ptrace->interrupt = true;
			signal_wake_task(target, false);
		}
	}
	sighand_unlock(sh);
	return err;
}

static int64_t request_listen(struct task *target)
{
	struct sighand *sh = sighand_lock(target->group);
	int err = -EIO;

	if (target->ptrace && target->ptrace->seized && target->ptrace->stopped &&
	    target->ptrace->stop_code >> 8 == EVENT_STOP) {
		target->ptrace->listening = true;
		err = 0;
	}
	sighand_unlock(sh);
	return err;
}

/* ---- making a tracee ---- */

static int64_t request_attach(struct task *t, struct task *target, bool seize, uint64_t options)
{
	struct sighand *sh;
	int err = -EPERM;

	if (target->group == t->group)
		return -EPERM;
	if (!task_may_access(t, target))
		return -EPERM;
	if (seize && (options & ~(uint64_t)PTRACE_OPTIONS_ALL))
		return -EIO;
	rwlock_write_lock(&kernel.taskset_lock);
	sh = sighand_lock(target->group);
	if (target->linked && atomic_load(&target->state) != TASK_ZOMBIE)
		err = trace_begin_locked(target, t->group, seize, seize ? (uint32_t)options : 0);
	sighand_unlock(sh);
	rwlock_write_unlock(&kernel.taskset_lock);
	if (!err && !seize)
		(void)signal_send_task_kernel(target, SIGSTOP);
	return err;
}

static int64_t request_traceme(struct task *t)
{
	struct sighand *sh;
	int err = -EPERM;

	rwlock_write_lock(&kernel.taskset_lock);
	sh = sighand_lock(t->group);
	if (t->group->parent)
		err = trace_begin_locked(t, t->group->parent, false, 0);
	sighand_unlock(sh);
	rwlock_write_unlock(&kernel.taskset_lock);
	return err;
}

/* The target is ours, and stopped unless the request works without. */
static int check_tracee(struct task *t, struct task *target, bool any_state)
{
	struct sighand *sh = sighand_lock(target->group);
	int err = -ESRCH;

	if (target->ptrace && target->ptrace->tracer == t->group &&
	    (any_state || target->ptrace->stopped))
		err = 0;
	sighand_unlock(sh);
	return err;
}

static int64_t request_registers(struct task *t, struct task *target, int request, uint64_t data)
{
	bool fp = request == PTRACE_GETFPREGS || request == PTRACE_SETFPREGS;
	bool write = request == PTRACE_SETREGS || request == PTRACE_SETFPREGS;
	size_t size = fp ? sizeof(struct user_fpregs_struct) : REGS_SIZE;

	return request_regset(t, target, fp ? NT_PRFPREG : NT_PRSTATUS, data, &size, write);
}

static int64_t request_stopped(struct task *t, struct task *target, int request, uint64_t addr,
			       uint64_t data)
{
	switch (request) {
	case PTRACE_PEEKTEXT:
	case PTRACE_PEEKDATA:
		return request_memory(t, target, addr, data, false);
	case PTRACE_POKETEXT:
	case PTRACE_POKEDATA:
		return request_memory(t, target, addr, data, true);
	case PTRACE_PEEKUSR:
		return request_user(t, target, addr, data, false);
	case PTRACE_POKEUSR:
		return request_user(t, target, addr, data, true);
	case PTRACE_GETREGS:
	case PTRACE_SETREGS:
	case PTRACE_GETFPREGS:
	case PTRACE_SETFPREGS:
		return request_registers(t, target, request, data);
	case PTRACE_GETREGSET:
		return request_regset_iov(t, target, addr, data, false);
	case PTRACE_SETREGSET:
		return request_regset_iov(t, target, addr, data, true);
	case PTRACE_GETSIGINFO:
		return request_siginfo(t, target, data, false);
	case PTRACE_SETSIGINFO:
		return request_siginfo(t, target, data, true);
	case PTRACE_GETSIGMASK:
		return request_sigmask(t, target, addr, data, false);
	case PTRACE_SETSIGMASK:
		return request_sigmask(t, target, addr, data, true);
	case PTRACE_GETEVENTMSG:
		return request_message(t, target, data);
	case PTRACE_GET_SYSCALL_INFO:
		return request_syscall_info(t, target, addr, data);
	case PTRACE_SETOPTIONS:
		return request_options(target, data);
	case PTRACE_CONT:
		return request_resume(target, RESUME_CONT, data);
	case PTRACE_SYSCALL:
		return request_resume(target, RESUME_SYSCALL, data);
	case PTRACE_SINGLESTEP:
		return request_resume(target, RESUME_STEP, data);
	case PTRACE_SYSEMU:
		return request_resume(target, RESUME_SYSEMU, data);
	case PTRACE_SYSEMU_SINGLESTEP:
		return request_resume(target, RESUME_SYSEMU_STEP, data);
	case PTRACE_DETACH:
		return request_detach(target, data);
	case PTRACE_LISTEN:
		return request_listen(target);
	default:
		return -EIO;
	}
}

int64_t ptrace_request(struct task *t, int request, int32_t tid, uint64_t addr, uint64_t data)
{
	struct task *target;
	int64_t ret;

	if (request == PTRACE_TRACEME)
		return request_traceme(t);
	target = task_find(tid);
	if (!target)
		return -ESRCH;
	if (request == PTRACE_ATTACH || request == PTRACE_SEIZE) {
		ret = addr && request == PTRACE_SEIZE
			      ? -EIO
			      : request_attach(t, target, request == PTRACE_SEIZE, data);
		goto out;
	}
	ret = check_tracee(t, target, request == PTRACE_KILL || request == PTRACE_INTERRUPT);
	if (ret)
		goto out;
	if (request == PTRACE_KILL)
		ret = signal_send_group_kernel(target->group, SIGKILL);
	else if (request == PTRACE_INTERRUPT)
		ret = request_interrupt(target);
	else
		ret = request_stopped(t, target, request, addr, data);
out:
	task_unref(target);
	return ret;
}
