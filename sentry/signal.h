/*
 * sentry/signal.h - signals: actions, queues, delivery, stop and continue, job control.
 *
 * A sighand (actions + lock, LOCK_SIGNAL) is shared by a thread group, or by several (CLONE_SIGHAND). Everything pending, blocked
 * masks as others see them, and stop states are guarded by it. Delivery happens on the task's own thread before it returns to the application.
 */
#ifndef MOAT_SENTRY_SIGNAL_H
#define MOAT_SENTRY_SIGNAL_H

#include <bsd/sys/queue.h>

#include "base/lock.h"
#include "base/rcu.h"
#include "base/ref.h"
#include "vfs/wait.h"

#define SIG_COUNT 64
#define sigbit(signo) (1ull << ((signo)-1))
#define SIGMASK_UNBLOCKABLE (sigbit(9) | sigbit(19))

struct task;
struct thread_group;
struct process_group;

/* x86-64 siginfo_t, 128 bytes. */
struct moat_siginfo {
	int32_t si_signo, si_errno, si_code, pad;
	union {
		struct {
			int32_t pid;
			uint32_t uid;
			uint64_t value;
		} rt; /* kill, sigqueue, tkill */
		struct {
			int32_t timerid, overrun;
			uint64_t value;
			int32_t sys_private;
		} timer;
		struct {
			int32_t pid;
			uint32_t uid;
			int32_t status;
			int32_t pad;
			int64_t utime, stime;
		} chld;
		struct {
			uint64_t addr;
			int16_t addr_lsb;
			int16_t pad[3];
			uint64_t lower, upper;
		} fault;
		struct {
			int64_t band;
			int32_t fd;
		} poll;
		struct {
			uint64_t call_addr;
			int32_t syscall;
			uint32_t arch;
		} sys;
		uint8_t bytes[112];
	};
};
_Static_assert(sizeof(struct moat_siginfo) == 128, "siginfo ABI");

/* struct sigaction of the kernel ABI (x86-64). */
struct moat_sigaction {
	uint64_t handler; /* 0 SIG_DFL, 1 SIG_IGN */
	uint64_t flags;
	uint64_t restorer;
	uint64_t mask;
};

struct sigqueue_entry;
struct sigpending {
	uint64_t set;
	TAILQ_HEAD(, sigqueue_entry) queue;
};

/* Guarded by the sighand lock. */
struct stop_state {
	int signo; /* group stop in progress or done; 0 none */
	int count; /* threads still to stop */
	bool stopped; /* all of them have stopped */
	bool stop_unwaited; /* waitid(WSTOPPED) has not taken it yet */
	bool continued; /* waitid(WCONTINUED) has not taken it yet */
	int notify; /* CLD_STOPPED or CLD_CONTINUED still to be told to the parent; 0 none */
};

struct sighand {
	struct ref ref;
	struct rcu_cb rcu;
	struct mutex lock; /* LOCK_SIGNAL */
	struct moat_sigaction actions[SIG_COUNT]; /* guarded by lock */
};

/*
 * Send: checks nothing about permission. Return 0 (also when ignored), -EAGAIN (RT queue full, RLIMIT_SIGPENDING).
 * Any thread; no lock ranked above LOCK_SIGNAL held, and not LOCK_SIGNAL.
 */
int signal_send_task(struct task *t, const struct moat_siginfo *info);
int signal_send_group(struct thread_group *g, const struct moat_siginfo *info);
/* As send_sig(..., 0) in Linux: SI_USER with the caller's own pid and uid. SIGPIPE, SIGXFSZ. t: the caller's task. */
int signal_send_self(struct task *t, int signo);
/* Kernel-originated shorthand (SI_KERNEL): tty, timers, ptrace. */
int signal_send_task_kernel(struct task *t, int signo);
int signal_send_group_kernel(struct thread_group *g, int signo);
/* Every member of the process group with this id (tty job control). -ESRCH if none. */
int signal_send_pgrp_kernel(int32_t pgid, int signo);
/* A fault of the calling task: cannot be ignored; a blocked one kills. */
void signal_force(struct task *t, const struct moat_siginfo *info);
void signal_force_kernel(struct task *t, int signo);
/* kill(2) rules. */
bool signal_may_send(struct task *from, struct task *to, int signo);
/* Some signal would be delivered or kills the task now. */
bool signal_pending(struct task *t);
uint64_t signal_pending_set(struct task *t); /* both queues */
/* The calling task's mask; interrupts are re-evaluated. */
void signal_set_blocked(struct task *t, uint64_t mask);
/* sigsuspend, ppoll ...: mask now, back to the old one after delivery (or by restore if no handler ran). */
void signal_set_temp_mask(struct task *t, uint64_t mask);
/* Dequeues one of `mask` for sigtimedwait and signalfd: true and *ret. */
bool signal_dequeue(struct task *t, uint64_t mask, struct moat_siginfo *ret);
/* Woken on every new signal, and on others': signalfd's poll. Lives as long as the process. */
struct wait_queue *signal_wait_queue(struct task *t);
/*
 * sigtimedwait(2): waits for one of `set` until the deadline. Return: the signal's number, -EAGAIN, -EINTR.
 */
must_check int signal_timed_wait(struct task *t, uint64_t set, int64_t deadline_ns,
				 struct moat_siginfo *ret);
/* A fatal signal of the kernel's own: whatever the action and mask are (bad frames, seccomp). */
void signal_force_fatal(struct task *t, int signo);
/* Job control for terminals: is pgrp (of the caller's session) orphaned; is signo ignored or blocked by the caller? */
bool pgrp_is_orphaned(int32_t pgid);
bool signal_ignored_or_blocked(struct task *t, int signo);
/* rt_sigreturn(2): the new rax. */
int64_t signal_return(struct task *t);
/* sigaction(2): reads and/or replaces. signo is 1..64. -EINVAL for SIGKILL and SIGSTOP with `act`. */
must_check int signal_action(struct task *t, int signo, const struct moat_sigaction *act,
			     struct moat_sigaction *ret_old);
/* Snapshot for /proc/PID/status; masks by bit signo-1. */
struct signal_masks {
	uint64_t pending, shared_pending, blocked, ignored, caught;
	uint32_t queued, queue_limit;
};
void signal_get_masks(struct task *t, struct signal_masks *ret);

#endif
