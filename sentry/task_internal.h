/*
 * sentry/task_internal.h - what the files of the task core share, and nobody else includes.
 */
#ifndef MOAT_SENTRY_TASK_INTERNAL_H
#define MOAT_SENTRY_TASK_INTERNAL_H

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>

#include "base/log.h"
#include "base/ucount.h"
#include "sentry/pidns.h"
#include "sentry/task.h"

#define TASK_STACK_SIZE (256ul << 10)
#define TASK_WORKERS_PARKED_MAX 128
/* Those that stay parked while nothing is done. */
#define TASK_WORKERS_QUIET 8
#define SIGQUEUE_DEFAULT_MAX 7000

extern struct ref_type task_ref_type, group_ref_type, pgrp_ref_type, session_ref_type,
	sighand_ref_type, uts_ref_type, rlimits_ref_type;

/* ---- signals ---- */
struct posix_timer;
struct sigqueue_entry {
	TAILQ_ENTRY(sigqueue_entry) link;
	struct moat_siginfo info;
	struct ucount *user; /* charged; NULL for a timer's own entry */
	struct posix_timer *timer; /* it embeds this entry; NULL otherwise */
	bool queued; /* guarded by the sighand lock; timers only */
};

#define SIG_DFL_ 0ull
#define SIG_IGN_ 1ull
#define SIGMASK_STOP (sigbit(SIGSTOP) | sigbit(SIGTSTP) | sigbit(SIGTTIN) | sigbit(SIGTTOU))
#define SIGMASK_IGNORE (sigbit(SIGCONT) | sigbit(SIGCHLD) | sigbit(SIGWINCH) | sigbit(SIGURG))
#define SIGMASK_KERNEL_ONLY (sigbit(SIGKILL) | sigbit(SIGSTOP))
#define SIGMASK_SYNCHRONOUS                                                                     \
	(sigbit(SIGSEGV) | sigbit(SIGBUS) | sigbit(SIGILL) | sigbit(SIGTRAP) | sigbit(SIGFPE) | \
	 sigbit(SIGSYS))
#define SIGRTMIN_ 32
#define SA_RESTORER_ 0x04000000ull

/* The group's sighand, locked. It cannot be replaced until sighand_unlock(). */
struct sighand *sighand_lock(struct thread_group *g);
void sighand_unlock(struct sighand *sh);
struct sighand *sighand_create(void);
void sighand_unref(struct sighand *sh);
void sigpending_init(struct sigpending *p);
void sigpending_flush(struct sigpending *p, uint64_t mask); /* sighand lock held */
/* A wake-up for `t`, which must look at its signals. Sighand lock held. */
void signal_wake_task(struct task *t, bool killed);
/* The task leaves the application, if it is there (Return: it was), and looks why: the reason is stored before. Nothing that sleeps is woken. */
bool task_leave_app(struct task *t);
/* Recomputes the interrupt flag of the calling task; sighand lock held. */
void signal_recalc_locked(struct task *t);
int signal_send_locked(struct task *t, struct thread_group *g, bool to_group,
		       const struct moat_siginfo *info, struct sigqueue_entry *own);
bool signal_pending_locked(struct task *t);
/* Starts the death of the group with this wait status; sighand lock held. */
void group_kill_locked(struct thread_group *g, int wait_status);
/* Has its end begun? Takes the sighand lock. */
bool group_is_dying(struct thread_group *g);
/* `own`: a timer's entry, in place of an allocated one. Also return 1 (dropped: not queued) and 2 (is queued already). */
int signal_send_task_own(struct task *t, const struct moat_siginfo *info,
			 struct sigqueue_entry *own);
int signal_send_group_own(struct thread_group *g, const struct moat_siginfo *info,
			  struct sigqueue_entry *own);
void signal_retarget_exit_locked(struct task *t);
int signal_dequeue_locked(struct task *t, uint64_t mask, struct moat_siginfo *ret,
			  struct posix_timer **ret_timer);
/* exec: caught handlers to default; altstack and so on are the caller's. */
void signal_flush_handlers(struct sighand *sh);
/* Delivers what is pending before the return to the application; restarts a call that was interrupted. */
void signal_deliver(struct task *t, bool from_syscall);
/* The handler's frame on the application's stack: 0 or -EFAULT. */
int signal_frame_setup(struct task *t, int signo, const struct moat_sigaction *sa,
		       const struct moat_siginfo *info, uint64_t mask);

/* ---- life ---- */
void task_set_current(struct task *t);
void futex_tables_init(void);
void kernel_init_exited(int status);
struct task *task_alloc(struct thread_group *group); /* takes nothing: refs the group */
struct thread_group *group_alloc(struct pid_namespace *ns); /* takes nothing: refs ns */
struct rlimits *rlimits_alloc(const struct rlimits *from);
void rlimits_unref(struct rlimits *r);
void rlimits_defaults(struct rlimits *r);
struct uts_namespace *uts_create(const struct uts_namespace *from);
void uts_unref(struct uts_namespace *u);
static inline void uts_ref(struct uts_namespace *u)
{
	ref_get(&u->ref);
}
/*
 * Gives the task its numbers and, for a leader, its group's. want: those to have, in the task's own namespace first. taskset_lock held for writing.
 * 0, -EAGAIN, -ENOMEM, -EINVAL, -EEXIST.
 */
must_check int task_assign_tid(struct task *t, const int32_t *want, size_t want_count);
/* Is a root number still borne by somebody? If not, its numbers elsewhere are free too. taskset_lock held for writing. */
void task_tid_release(int32_t tid);
/* Adds t to its group's threads and the tables. taskset_lock and sighand lock held. */
void task_link_thread(struct task *t);
/* The dead task leaves its group and the tables. taskset_lock held for writing; drops the table's reference later through `dead`. */
void task_unlink(struct task *t);
/* Drops what a task that never ran, or has ended, still holds. */
void task_drop_resources(struct task *t);

must_check int task_worker_reserve(struct task *t);
void task_worker_release(struct task *t); /* reserved but not started */
void task_worker_start(struct task *t);
int64_t task_worker_cpu_ns(struct task *t);

/* What a host thread's affinity is. Guarded by the affinity lock (LOCK_LEAF). */
struct task_affinity {
	uint64_t mask; /* 0: not set yet, all */
	int host_tid;
};
/* After kernel.cpus is known, which it sets to those that affinity_set_host() told, or lowers to what the host lets this process use. */
void affinity_init(void);
/* The task's worker, on its own thread, takes up its mask; and lets go of the task. */
void affinity_begin(struct task_affinity *a, struct task *t, int host_tid);
void affinity_end(struct task *t);

/* The end of the calling task, on its thread. */
void task_do_exit(struct task *t);
void task_vfork_done(struct task *t);
/* Clears the child tid, walks the robust list: before the mm is let go. exec: the mm goes but the task stays. */
void task_mm_release(struct task *t);
void task_futex_exit(struct task *t);
void futex_pi_revive(struct task *t);
/* Parent's news. signo: what g was stopped by, read with the sighand lock held. taskset_lock held (read is enough). */
void group_notify_stop(struct thread_group *g, int why, int signo);
/* The dead group's parent is told; returns true if the group reaps itself. taskset_lock held for writing. */
bool group_notify_exit(struct thread_group *g);
/* Leaves the tables; taskset_lock held for writing. Puts tasks to free on `dead`. */
TAILQ_HEAD(task_list, task);
void group_reap(struct thread_group *g, struct task_list *dead);
/* Tells the parent (or a tracer) if nobody of g is left to wait for; likewise. */
void group_announce_if_dead(struct thread_group *g, struct task_list *dead);
void task_list_free(struct task_list *dead);
/* Where orphans go: a live subreaper among ancestors of the same pid namespace, or its init. taskset_lock held. */
struct thread_group *group_find_reaper(struct thread_group *g);

/* ---- process groups and sessions; taskset_lock held for writing unless said ---- */
struct process_group *pgrp_find(int32_t id);
must_check int pgrp_create(int32_t id, struct session *s,
			   struct process_group **ret); /* a reference */
struct session *session_create(int32_t id);
void pgrp_unref(struct process_group *p);
void session_unref(struct session *s);
void group_set_pgrp(struct thread_group *g,
		    struct process_group *p); /* takes a reference of its own */
void group_leave_pgrp(struct thread_group *g);
/* `g` leaves (or its parent died): newly orphaned groups with stopped members get SIGHUP and SIGCONT. */
void pgrp_check_orphaned(struct thread_group *g, struct thread_group *parent);
bool pgrp_orphaned_locked(struct process_group *p, struct thread_group *ignored);
/* Frees sessions whose last member left; no locks held. */
void session_run_deferred(void);
struct task *
group_any_task(struct thread_group *g); /* leader or any thread; borrowed; taskset_lock held */

/* ---- times ---- */
void times_add(struct task_times *sum, const struct task_times *more);
void task_times_account(struct task *t, uint64_t maxrss_kib); /* into group->dead_times */
void group_times_reaped(struct thread_group *parent, struct thread_group *child);
extern struct mutex task_stats_lock;

/* ---- timers (sentry/timers.c) ---- */
void group_timers_exit(struct thread_group *g); /* sleeps until callbacks are done */
void group_timers_exec(struct thread_group *g);
/* A timer's signal was taken: fills the overrun and re-arms. No lock held. */
void posix_timer_dequeued(struct posix_timer *pt,
			  struct moat_siginfo *info); /* takes the queue's reference */
void posix_timer_put(struct posix_timer *pt); /* any lock may be held */

/* ---- ptrace (sentry/ptrace.c) ---- */
bool ptrace_trap_pending(const struct task *t); /* sighand lock held */

/* ---- exec ---- */
/* The image of a process from outside, which has all but an mm. */
must_check int exec_first_image(struct task *t, const char *filename, char *const *argv,
				char *const *envp);
/* Instead, after that failed with err: exec_end_refused() will say so, on the task's thread, and end the process. Return 0, -ENOMEM. */
must_check int exec_refuse_late(struct task *t, const char *filename, int err);
void exec_end_refused(struct task *t);
must_check int exec_prepare_cred(struct task *t, struct file *exe, struct cred **ret_cred,
				 bool *ret_secure);

/* For lookups, which may meet a task or group that gets its number just now (task_assign_tid()). */
static inline int32_t task_tid_early(const struct task *t)
{
	return __atomic_load_n(&t->tid, __ATOMIC_RELAXED);
}

static inline int32_t group_tgid_early(const struct thread_group *g)
{
	return __atomic_load_n(&g->tgid, __ATOMIC_RELAXED);
}

/* clone, unshare: may the calling task make the namespaces of CLONE_NEW* in `flags`? 0, -EPERM, -EINVAL for kinds that are not there. */
must_check int task_may_make_ns(struct task *t, uint64_t flags);
/* A descriptor table of its own for the calling task. Return 0 or -errno. */
must_check int task_unshare_files(struct task *t);

#endif
