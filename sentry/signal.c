/*
 * sentry/signal.c - sending and queueing signals.
 *
 * Organised as Linux's kernel/signal.c: a signal goes to one task's queue (tgkill, faults) or to the group's (kill), after
 * prepare (stop and continue cancel each other; what is ignored is dropped) and before completion, which picks the thread
 * that is told. A signal that must end the group starts the group's death here already: every thread gets SIGKILL.
 *
 * Telling a thread is sleeper_interrupt() plus, if it runs the application, the platform's context_interrupt(). The
 * INTERRUPTED bit of the sleeper is the "signals pending" flag: set by senders and cleared by the owner, both under the sighand lock.
 *
 * No core dumps are written, so signals that would dump core end the group like the others, without the 0x80 bit.
 */
#include "sentry/task_internal.h"

REF_TYPE(sighand_ref_type, "sighand");

#define SIGNAL_QUEUES 16
static struct wait_queue signal_queues[SIGNAL_QUEUES]; /* signalfd; shared by hash, never freed */

__attribute__((constructor)) static void signal_queues_init(void)
{
	for (int i = 0; i < SIGNAL_QUEUES; i++)
		wait_queue_init(&signal_queues[i]);
}

struct wait_queue *signal_wait_queue(struct task *t)
{
	return &signal_queues[(uint32_t)t->group->tgid % SIGNAL_QUEUES];
}

/* ---- sighand ---- */

struct sighand *sighand_create(void)
{
	struct sighand *sh = calloc(1, sizeof(*sh));

	if (!sh)
		return NULL;
	ref_init(&sh->ref, &sighand_ref_type);
	mutex_init(&sh->lock, LOCK_SIGNAL, "sighand");
	return sh;
}

static void sighand_free(struct rcu_cb *cb)
{
	free(container_of(cb, struct sighand, rcu));
}

void sighand_unref(struct sighand *sh)
{
	if (!ref_put(&sh->ref))
		return;
	ref_fini(&sh->ref, &sighand_ref_type);
	rcu_call(&sh->rcu, sighand_free);
}

struct sighand *sighand_lock(struct thread_group *g)
{
	struct sighand *sh;

	/* execve may put another sighand in place while we wait for the lock of the old one. */
	rcu_read_begin();
	for (;;) {
		sh = rcu_load(g->sighand);
		mutex_lock(&sh->lock);
		if (likely(sh == rcu_load(g->sighand)))
			break;
		mutex_unlock(&sh->lock);
	}
	rcu_read_end();
	return sh;
}

void sighand_unlock(struct sighand *sh)
{
	mutex_unlock(&sh->lock);
}

void signal_flush_handlers(struct sighand *sh)
{
	for (int i = 0; i < SIG_COUNT; i++) {
		uint64_t keep = sh->actions[i].handler == SIG_IGN_ ? SIG_IGN_ : SIG_DFL_;

		sh->actions[i] = (struct moat_sigaction){.handler = keep};
	}
}

/* ---- queues ---- */

void sigpending_init(struct sigpending *p)
{
	p->set = 0;
	TAILQ_INIT(&p->queue);
}

static void sigqueue_drop(struct sigqueue_entry *e)
{
	if (e->timer) {
		e->queued = false;
		posix_timer_put(e->timer);
		return;
	}
	if (e->user) {
		ucount_uncharge(e->user, UCOUNT_SIGPENDING, 1);
		ucount_put(e->user);
	}
	free(e);
}

void sigpending_flush(struct sigpending *p, uint64_t mask)
{
	struct sigqueue_entry *e, *next;

	p->set &= ~mask;
	for (e = TAILQ_FIRST(&p->queue); e; e = next) {
		next = TAILQ_NEXT(e, link);
		if (!(mask & sigbit(e->info.si_signo)))
			continue;
		TAILQ_REMOVE(&p->queue, e, link);
		sigqueue_drop(e);
	}
}

/* RLIMIT_SIGPENDING is counted by the receiver's real uid. */
static struct sigqueue_entry *sigqueue_alloc(struct task *t, bool override)
{
	struct ucount *u = t->user;
	struct sigqueue_entry *e;
	int64_t n;

	if (u) {
		n = ucount_charge(u, UCOUNT_SIGPENDING, 1);
		if (!override && (uint64_t)n > task_rlimit(t, RLIMIT_SIGPENDING))
			goto out_uncharge;
	}
	e = calloc(1, sizeof(*e));
	if (!e)
		goto out_uncharge;
	if (u)
		e->user = ucount_ref(u);
	return e;
out_uncharge:
	if (u)
		ucount_uncharge(u, UCOUNT_SIGPENDING, 1);
	return NULL;
}

/* ---- who is told ---- */

void signal_wake_task(struct task *t, bool killed)
{
	if (killed)
		atomic_store_explicit(&t->fatal_pending, true, memory_order_relaxed);
	sleeper_interrupt(&t->sleeper, killed);
	(void)task_leave_app(t);
}

bool task_leave_app(struct task *t)
{
	/*
	 * Pairs with task_switch(), which exchanges in_app before it looks for a reason not to go: either it sees
	 * the caller's, or this read-modify-write sees that it is (about to be) in the application.
	 */
	if (!atomic_fetch_or_explicit(&t->in_app, 0, memory_order_acq_rel))
		return false;
	if (t->ctx)
		kernel.platform->ops->context_interrupt(t->ctx);
	return true;
}

static bool task_is_dead(struct task *t)
{
	int state = atomic_load_explicit(&t->state, memory_order_relaxed);

	return state == TASK_ZOMBIE || state == TASK_DEAD;
}

static bool sig_default_fatal(int signo)
{
	return !(sigbit(signo) & (SIGMASK_IGNORE | SIGMASK_STOP));
}

static bool sig_handler_ignores(const struct sighand *sh, int signo)
{
	uint64_t handler = sh->actions[signo - 1].handler;

	return handler == SIG_IGN_ || (handler == SIG_DFL_ && (SIGMASK_IGNORE & sigbit(signo)));
}

static bool sig_ignored(struct task *t, const struct sighand *sh, int signo, bool force)
{
	/* A blocked signal is kept: its action may be another one by the time it is unblocked. */
	if ((t->blocked | t->real_blocked) & sigbit(signo))
		return false;
	if (t->ptrace && signo != SIGKILL)
		return false;
	if (t->group->unkillable && sh->actions[signo - 1].handler == SIG_DFL_ &&
	    !(force && (SIGMASK_KERNEL_ONLY & sigbit(signo))))
		return true;
	return sig_handler_ignores(sh, signo);
}

void group_kill_locked(struct thread_group *g, int wait_status)
{
	struct task *t;

	if (g->exiting)
		return;
	g->exiting = true;
	g->exit_code = wait_status;
	g->stop = (struct stop_state){0};
	TAILQ_FOREACH (t, &g->threads, thread_link) {
		t->stop_pending = false;
		if (task_is_dead(t))
			continue;
		t->pending.set |= sigbit(SIGKILL);
		signal_wake_task(t, true);
	}
}

bool group_is_dying(struct thread_group *g)
{
	struct sighand *sh = sighand_lock(g);
	bool dying = g->exiting;

	sighand_unlock(sh);
	return dying;
}

static bool wants_signal(struct task *t, int signo)
{
	if (t->blocked & sigbit(signo))
		return false;
	if (task_is_dead(t) || !t->linked)
		return false;
	if (signo == SIGKILL)
		return true;
	if (t->stopped)
		return false;
	/*
	 * task_sigpending(): has it been told already? Not signal_pending_locked(), which sees the very signal that
	 * is being sent.
	 */
	return t == task_current() ||
	       !(atomic_load_explicit(&t->sleeper.word, memory_order_relaxed) &
		 SLEEPER_INTERRUPTED);
}

static struct task *signal_pick_target(struct thread_group *g, int signo)
{
	struct task *t, *first = g->curr_target;

	/* The main thread is the one that programs expect; then round the others. */
	t = TAILQ_FIRST(&g->threads);
	if (t && wants_signal(t, signo))
		return t;
	if (!first)
		first = t;
	for (t = first; t; t = TAILQ_NEXT(t, thread_link))
		if (wants_signal(t, signo))
			goto found;
	for (t = TAILQ_FIRST(&g->threads); t && t != first; t = TAILQ_NEXT(t, thread_link))
		if (wants_signal(t, signo))
			goto found;
	return NULL;
found:
	g->curr_target = t;
	return t;
}

static void signal_complete(struct task *t, struct thread_group *g, const struct sighand *sh,
			    int signo, bool to_group)
{
	struct task *target = NULL;

	if (!to_group) {
		if (wants_signal(t, signo) || signo == SIGKILL)
			target = t;
	} else {
		target = signal_pick_target(g, signo);
	}
	if (!target)
		return; /* all block it or are about to look anyway */
	if (sh->actions[signo - 1].handler == SIG_DFL_ && sig_default_fatal(signo) && !g->exiting &&
	    (!g->unkillable || signo == SIGKILL) && !(target->real_blocked & sigbit(signo)) &&
	    (signo == SIGKILL || !target->ptrace)) {
		group_kill_locked(g, signo);
		return;
	}
	signal_wake_task(target, signo == SIGKILL);
}

/* Stop signals and SIGCONT cancel each other, whether blocked, ignored or caught. */
static void signal_prepare_stop_cont(struct thread_group *g, int signo)
{
	struct task *t;

	if (SIGMASK_STOP & sigbit(signo)) {
		sigpending_flush(&g->pending, sigbit(SIGCONT));
		TAILQ_FOREACH (t, &g->threads, thread_link)
			sigpending_flush(&t->pending, sigbit(SIGCONT));
		return;
	}
	sigpending_flush(&g->pending, SIGMASK_STOP);
	TAILQ_FOREACH (t, &g->threads, thread_link) {
		sigpending_flush(&t->pending, SIGMASK_STOP);
		t->stop_pending = t->stop_dequeued = false;
		if (t->stopped) {
			t->stopped = false;
			sleeper_wake(&t->sleeper);
		}
	}
	if (g->stop.stopped)
		g->stop.notify = CLD_CONTINUED;
	else if (g->stop.count)
		g->stop.notify = CLD_STOPPED;
	if (g->stop.notify) {
		g->stop.stopped = g->stop.stop_unwaited = false;
		g->stop.continued = true;
		g->stop.count = 0;
		g->stop.signo = 0;
		/* Somebody must tell the parent even if SIGCONT itself is ignored. */
		t = TAILQ_FIRST(&g->threads);
		while (t && task_is_dead(t))
			t = TAILQ_NEXT(t, thread_link);
		if (t)
			signal_wake_task(t, false);
	}
}

/* The sender is outside of g's pid namespace (an ancestor's, or no task): it can kill and stop an init, and has no number there. */
static bool signal_from_outside(const struct thread_group *g)
{
	const struct task *sender = task_current();

	return !sender || !pid_nr_in(g->pid_ns, sender->group->tgid);
}

static bool signal_tells_sender(const struct moat_siginfo *info)
{
	return info->si_code <= 0 && info->si_code != SI_TIMER && info->si_code != SI_SIGIO;
}

int signal_send_locked(struct task *t, struct thread_group *g, bool to_group,
		       const struct moat_siginfo *info, struct sigqueue_entry *own)
{
	struct sighand *sh = rcu_load(g->sighand);
	struct sigpending *pending = to_group ? &g->pending : &t->pending;
	int signo = info->si_signo;
	bool from_outside = signal_from_outside(g);
	struct sigqueue_entry *e = own;

	mutex_assert_held(&sh->lock);
	if (own && own->queued)
		return 2;
	if (g->exiting || atomic_load_explicit(&g->live, memory_order_relaxed) == 0 ||
	    (!to_group && task_is_dead(t)))
		return own ? 1 : 0;
	if ((SIGMASK_STOP | sigbit(SIGCONT)) & sigbit(signo))
		signal_prepare_stop_cont(g, signo);
	if (sig_ignored(t, sh, signo, info->si_code > 0 || from_outside))
		return own ? 1 : 0;
	if (signo < SIGRTMIN_ && (pending->set & sigbit(signo)) && !own)
		return 0; /* classic signals do not queue */
	if (signo != SIGKILL) {
		bool override = signo < SIGRTMIN_ && info->si_code >= 0;

		if (!e)
			e = sigqueue_alloc(t, override);
		if (e) {
			e->info = *info;
			if (unlikely(from_outside) && signal_tells_sender(info))
				e->info.rt.pid = 0;
			TAILQ_INSERT_TAIL(&pending->queue, e, link);
		} else if (signo >= SIGRTMIN_ && info->si_code != SI_USER && !override) {
			return -EAGAIN;
		}
		/* else: the signal comes, what it carried is lost */
	}
	if (own)
		own->queued = true;
	pending->set |= sigbit(signo);
	wait_queue_wake(signal_wait_queue(t), POLLIN);
	signal_complete(t, g, sh, signo, to_group);
	return 0;
}

/* ---- the interface for senders ---- */

int signal_send_task(struct task *t, const struct moat_siginfo *info)
{
	struct sighand *sh;
	int err;

	assert(info->si_signo >= 1 && info->si_signo <= SIG_COUNT);
	sh = sighand_lock(t->group);
	err = signal_send_locked(t, t->group, false, info, NULL);
	sighand_unlock(sh);
	return err;
}

/* A thread whose mask and tracer speak for the group; sighand lock held. NULL when all are gone. */
static struct task *group_signal_task(struct thread_group *g)
{
	struct task *t;

	TAILQ_FOREACH (t, &g->threads, thread_link)
		if (!task_is_dead(t))
			return t;
	return NULL;
}

int signal_send_group_own(struct thread_group *g, const struct moat_siginfo *info,
			  struct sigqueue_entry *own)
{
	struct sighand *sh = sighand_lock(g);
	struct task *t = group_signal_task(g);
	int err = own ? 1 : 0;

	if (t)
		err = signal_send_locked(t, g, true, info, own);
	sighand_unlock(sh);
	return err;
}

int signal_send_task_own(struct task *t, const struct moat_siginfo *info,
			 struct sigqueue_entry *own)
{
	struct sighand *sh = sighand_lock(t->group);
	int err = signal_send_locked(t, t->group, false, info, own);

	sighand_unlock(sh);
	return err;
}

int signal_send_group(struct thread_group *g, const struct moat_siginfo *info)
{
	assert(info->si_signo >= 1 && info->si_signo <= SIG_COUNT);
	return signal_send_group_own(g, info, NULL);
}

int signal_send_self(struct task *t, int signo)
{
	struct moat_siginfo info = {.si_signo = signo, .si_code = SI_USER};

	info.rt.pid = t->group->vtgid;
	info.rt.uid = t->cred->uid;
	return signal_send_task(t, &info);
}

int signal_send_task_kernel(struct task *t, int signo)
{
	struct moat_siginfo info = {.si_signo = signo, .si_code = SI_KERNEL};

	return signal_send_task(t, &info);
}

int signal_send_group_kernel(struct thread_group *g, int signo)
{
	struct moat_siginfo info = {.si_signo = signo, .si_code = SI_KERNEL};

	return signal_send_group(g, &info);
}

int signal_send_pgrp_kernel(int32_t pgid, int signo)
{
	struct process_group *p;
	struct thread_group *g;
	int err = -ESRCH;

	rwlock_read_lock(&kernel.taskset_lock);
	p = pgrp_find(pgid);
	if (p)
		LIST_FOREACH (g, &p->members, pgrp_link) {
			signal_send_group_kernel(g, signo);
			err = 0;
		}
	rwlock_read_unlock(&kernel.taskset_lock);
	return err;
}

static void signal_force_locked(struct task *t, struct sighand *sh, const struct moat_siginfo *info,
				bool to_default)
{
	uint64_t bit = sigbit(info->si_signo);
	struct moat_sigaction *sa = &sh->actions[info->si_signo - 1];
	bool blocked = t->blocked & bit;

	if (blocked || sa->handler == SIG_IGN_ || to_default) {
		sa->handler = SIG_DFL_;
		t->blocked &= ~bit;
	}
	/* Even init dies of its own faults. */
	if (sa->handler == SIG_DFL_ && !t->ptrace)
		t->group->unkillable = false;
	(void)signal_send_locked(t, t->group, false, info, NULL);
	signal_recalc_locked(t);
}

void signal_force(struct task *t, const struct moat_siginfo *info)
{
	struct sighand *sh = sighand_lock(t->group);

	signal_force_locked(t, sh, info, false);
	sighand_unlock(sh);
}

void signal_force_kernel(struct task *t, int signo)
{
	struct moat_siginfo info = {.si_signo = signo, .si_code = SI_KERNEL};

	signal_force(t, &info);
}

void signal_force_fatal(struct task *t, int signo)
{
	struct moat_siginfo info = {.si_signo = signo, .si_code = SI_KERNEL};
	struct sighand *sh = sighand_lock(t->group);

	signal_force_locked(t, sh, &info, true);
	sighand_unlock(sh);
}

bool signal_may_send(struct task *from, struct task *to, int signo)
{
	struct cred *a, *b;
	bool ok;

	if (from->group == to->group)
		return true;
	a = task_get_cred(from);
	b = task_get_cred(to);
	ok = a->euid == b->suid || a->euid == b->uid || a->uid == b->suid || a->uid == b->uid ||
	     cred_has_cap(a, 5 /* CAP_KILL */);
	cred_unref(a);
	cred_unref(b);
	if (!ok && signo == SIGCONT)
		ok = group_sid(from->group) == group_sid(to->group);
	return ok;
}

/* ---- masks and dequeueing ---- */

bool signal_pending_locked(struct task *t)
{
	struct thread_group *g = t->group;

	return ((t->pending.set | g->pending.set) & ~t->blocked) || t->stop_pending ||
	       g->stop.notify || g->exiting || (g->exec_task && g->exec_task != t) ||
	       ptrace_trap_pending(t);
}

void signal_recalc_locked(struct task *t)
{
	if (signal_pending_locked(t))
		sleeper_interrupt(&t->sleeper, t->group->exiting);
	else if (t == task_current())
		sleeper_clear_interrupt(&t->sleeper);
}

bool signal_pending(struct task *t)
{
	return atomic_load_explicit(&t->sleeper.word, memory_order_acquire) &
	       (SLEEPER_INTERRUPTED | SLEEPER_KILLED);
}

uint64_t signal_pending_set(struct task *t)
{
	struct sighand *sh = sighand_lock(t->group);
	uint64_t set = t->pending.set | t->group->pending.set;

	sighand_unlock(sh);
	return set;
}

void signal_get_masks(struct task *t, struct signal_masks *ret)
{
	struct sighand *sh = sighand_lock(t->group);
	struct signal_masks m = {.pending = t->pending.set,
				 .shared_pending = t->group->pending.set,
				 .blocked = t->blocked};

	for (int i = 0; i < SIG_COUNT; i++) {
		if (sh->actions[i].handler == SIG_IGN_)
			m.ignored |= 1ull << i;
		else if (sh->actions[i].handler != SIG_DFL_)
			m.caught |= 1ull << i;
	}
	if (t->user)
		m.queued = (uint32_t)ucount_read(t->user, UCOUNT_SIGPENDING);
	m.queue_limit = (uint32_t)task_rlimit(t, RLIMIT_SIGPENDING);
	sighand_unlock(sh);
	*ret = m;
}

/* What this thread now blocks and the group has pending may be for another thread. */
static void signal_retarget_locked(struct task *t, uint64_t newly_blocked)
{
	uint64_t which = t->group->pending.set & newly_blocked;
	struct task *other;

	if (!which)
		return;
	TAILQ_FOREACH (other, &t->group->threads, thread_link) {
		if (other == t || task_is_dead(other) || !(which & ~other->blocked))
			continue;
		which &= other->blocked;
		signal_wake_task(other, false);
		if (!which)
			break;
	}
}

static void signal_set_blocked_locked(struct task *t, uint64_t mask)
{
	uint64_t newly = mask & ~t->blocked;

	if (signal_pending_locked(t))
		signal_retarget_locked(t, newly);
	t->blocked = mask;
	signal_recalc_locked(t);
}

void signal_set_blocked(struct task *t, uint64_t mask)
{
	struct sighand *sh;

	mask &= ~SIGMASK_UNBLOCKABLE;
	if (t->blocked == mask) /* the owner writes it */
		return;
	sh = sighand_lock(t->group);
	signal_set_blocked_locked(t, mask);
	sighand_unlock(sh);
}

void signal_set_temp_mask(struct task *t, uint64_t mask)
{
	if (!t->restore_saved_blocked)
		t->saved_blocked = t->blocked;
	t->restore_saved_blocked = true;
	signal_set_blocked(t, mask);
}

/* The exit of a thread: what was meant for the group and only it had unblocked goes to others. */
void signal_retarget_exit_locked(struct task *t)
{
	signal_retarget_locked(t, ~t->blocked);
}

static int sig_lowest(uint64_t set)
{
	uint64_t sync = set & SIGMASK_SYNCHRONOUS;

	if (sync)
		set = sync;
	return set ? __builtin_ctzll(set) + 1 : 0;
}

static void sigpending_take(struct sigpending *p, int signo, struct moat_siginfo *ret,
			    struct posix_timer **ret_timer)
{
	struct sigqueue_entry *e, *found = NULL;
	bool more = false;

	TAILQ_FOREACH (e, &p->queue, link) {
		if (e->info.si_signo != signo)
			continue;
		if (found) {
			more = true;
			break;
		}
		found = e;
	}
	if (!more)
		p->set &= ~sigbit(signo);
	if (!found) {
		*ret = (struct moat_siginfo){.si_signo = signo, .si_code = SI_USER};
		return;
	}
	TAILQ_REMOVE(&p->queue, found, link);
	*ret = found->info;
	if (found->timer) {
		/* The queue's reference goes to the caller. */
		found->queued = false;
		*ret_timer = found->timer;
		return;
	}
	sigqueue_drop(found);
}

int signal_dequeue_locked(struct task *t, uint64_t mask, struct moat_siginfo *ret,
			  struct posix_timer **ret_timer)
{
	struct sigpending *p = &t->pending;
	int signo = sig_lowest(p->set & mask);

	if (!signo) {
		p = &t->group->pending;
		signo = sig_lowest(p->set & mask);
	}
	if (!signo)
		return 0;
	sigpending_take(p, signo, ret, ret_timer);
	if ((SIGMASK_STOP & sigbit(signo)) && !t->group->exiting)
		t->stop_dequeued = true;
	return signo;
}

bool signal_dequeue(struct task *t, uint64_t mask, struct moat_siginfo *ret)
{
	struct posix_timer *timer = NULL;
	struct sighand *sh;
	int signo;

	sh = sighand_lock(t->group);
	signo = signal_dequeue_locked(t, mask & ~SIGMASK_UNBLOCKABLE, ret, &timer);
	signal_recalc_locked(t);
	sighand_unlock(sh);
	if (timer)
		posix_timer_dequeued(timer, ret);
	return signo != 0;
}

int signal_timed_wait(struct task *t, uint64_t set, int64_t deadline_ns, struct moat_siginfo *ret)
{
	struct posix_timer *timer = NULL;
	struct sighand *sh;
	int signo, err = 0;

	set &= ~SIGMASK_UNBLOCKABLE;
	sh = sighand_lock(t->group);
	signo = signal_dequeue_locked(t, set, ret, &timer);
	if (!signo && deadline_ns > 0) {
		/* Unblocked, they wake us; real_blocked keeps them from being dropped or acted upon. */
		t->real_blocked = t->blocked;
		t->blocked &= ~set;
		signal_recalc_locked(t);
		sighand_unlock(sh);
		do
			err = sleeper_wait(&t->sleeper, SLEEP_INTERRUPTIBLE, deadline_ns);
		while (!err);
		sh = sighand_lock(t->group);
		signal_set_blocked_locked(t, t->real_blocked);
		t->real_blocked = 0;
		signo = signal_dequeue_locked(t, set, ret, &timer);
	}
	signal_recalc_locked(t);
	sighand_unlock(sh);
	if (timer)
		posix_timer_dequeued(timer, ret);
	if (signo)
		return signo;
	return err == -EINTR ? -EINTR : -EAGAIN;
}

int signal_action(struct task *t, int signo, const struct moat_sigaction *act,
		  struct moat_sigaction *ret_old)
{
	struct moat_sigaction *sa;
	struct sighand *sh;
	struct task *other;

	if (signo < 1 || signo > SIG_COUNT || (act && (SIGMASK_KERNEL_ONLY & sigbit(signo))))
		return -EINVAL;
	sh = sighand_lock(t->group);
	sa = &sh->actions[signo - 1];
	if (ret_old)
		*ret_old = *sa;
	if (act) {
		*sa = *act;
		sa->mask &= ~SIGMASK_UNBLOCKABLE;
		/* POSIX: setting "ignore" discards what is pending, even if it is blocked. */
		if (sig_handler_ignores(sh, signo)) {
			sigpending_flush(&t->group->pending, sigbit(signo));
			TAILQ_FOREACH (other, &t->group->threads, thread_link)
				sigpending_flush(&other->pending, sigbit(signo));
		}
	}
	sighand_unlock(sh);
	return 0;
}

bool signal_ignored_or_blocked(struct task *t, int signo)
{
	struct sighand *sh = sighand_lock(t->group);
	bool yes = (t->blocked & sigbit(signo)) || sh->actions[signo - 1].handler == SIG_IGN_;

	sighand_unlock(sh);
	return yes;
}
