/*
 * sentry/task.h - tasks, thread groups, process groups, sessions; the kernel object.
 *
 * One host thread per task (the task thread) runs task_run(): switch to the application, serve the event, deliver signals.
 * Task-private fields are touched by that thread only ("owned by the task's thread"); what others read is atomic, guarded
 * by LOCK_TASK (pointers to shared objects) or by the taskset lock (family links).
 *
 *	taskset_lock (LOCK_TASKSET, rwlock): parents, children, groups, sessions, pid tables
 *	  task->lock (LOCK_TASK): mm, fdtable, fsctx, cred, nsproxy pointers
 *	    sighand (LOCK_SIGNAL): pending signals, actions, stop state
 */
#ifndef MOAT_SENTRY_TASK_H
#define MOAT_SENTRY_TASK_H

#include <pthread.h>
#include <stdlib.h>
#include <bsd/sys/queue.h>

#include "base/idr.h"
#include "base/sleep.h"
#include "base/timer.h"
#include "platform/platform.h"
#include "sentry/cgroup.h"
#include "sentry/fdtable.h"
#include "sentry/mm.h"
#include "sentry/signal.h"
#include "vfs/vfs.h"

#define TASK_COMM_LEN 16
#define TASKS_MAX 32768 /* pid_max; the pids limit of the sandbox may be lower */
#define RLIM_COUNT 16

struct task;
struct thread_group;
struct process_group;
struct session;
struct tty;
struct pid_namespace;
struct task_worker;
struct task_affinity;
struct ucount;
struct futex_waiter;
struct ipc_namespace;
struct sem_undo_list;

/* What a system call got. */
struct syscall_args {
	uint64_t a[6];
};

/* In-kernel results that never reach the application as such (include/linux/errno.h). */
enum {
	ERESTARTSYS_ = 512, /* restart if SA_RESTART, else EINTR */
	ERESTARTNOINTR_ = 513, /* always restart */
	ERESTARTNOHAND_ = 514, /* restart only if no handler runs */
	ERESTART_RESTARTBLOCK_ = 516, /* restart through restart_syscall */
};

enum task_state {
	TASK_RUNNING,
	TASK_SLEEPING,
	TASK_DISK_SLEEP,
	TASK_STOPPED,
	TASK_TRACED,
	TASK_ZOMBIE,
	TASK_DEAD
};

struct rlimits {
	struct ref ref;
	struct mutex lock; /* LOCK_LEAF */
	struct {
		uint64_t cur, max;
	} lim[RLIM_COUNT]; /* guarded by lock */
};

/* UTS namespace. */
struct uts_namespace {
	struct ref ref;
	struct mutex lock; /* LOCK_LEAF */
	char nodename[65], domainname[65];
	uint64_t id;
};

struct process_group {
	struct ref ref;
	int32_t id; /* pid of its leader, in the root pid namespace */
	struct session *session; /* immutable; a reference */
	LIST_HEAD(, thread_group) members; /* guarded by taskset_lock */
};

struct session {
	struct ref ref;
	int32_t id;
	struct thread_group *leader; /* guarded by taskset_lock; NULL when it exited */
	struct tty *
		tty; /* controlling terminal; guarded by taskset_lock; a reference by the tty layer's ops */
	int32_t tty_old_pgrp; /* foreground group at a hang-up, told when the leader exits; guarded by taskset_lock */
	SLIST_ENTRY(session) dead_link; /* freed later: pgrp.c */
};

struct thread_group {
	struct ref ref;
	struct rcu_cb rcu;
	struct task_cgroup *cgroup; /* its container: immutable once set; a reference */
	struct cgroup_group *
		group; /* of the container's; a reference; NULL: its root. Changed under taskset_lock (read) and that root's lock */
	bool group_counts; /* among its live processes; guarded likewise */
	int32_t tgid; /* in the root pid namespace, as all numbers that are not called v...: sentry/pidns.h */
	int32_t vtgid; /* in its own */
	struct pid_namespace *pid_ns; /* immutable; a reference */
	struct task *leader; /* guarded by taskset_lock */
	TAILQ_HEAD(, task) threads; /* guarded by taskset_lock */
	_Atomic int32_t live; /* threads that have not exited */
	_Atomic int32_t leaving; /* no longer in `threads`, but may still hold the mm and files */
	struct process_group *pgrp; /* guarded by taskset_lock; a reference */
	LIST_ENTRY(thread_group) pgrp_link;
	struct thread_group *parent; /* guarded by taskset_lock */
	TAILQ_HEAD(, thread_group) children; /* guarded by taskset_lock */
	TAILQ_ENTRY(thread_group) sibling;
	int exit_signal; /* sent to the parent; 0 for none */
	bool is_subreaper, did_exec; /* guarded by taskset_lock */
	bool unkillable; /* container init: SIG_DFL signals from inside do nothing; guarded by sighand lock */
	bool reaped; /* guarded by taskset_lock */
	bool announced; /* exit_announce() was called; guarded by taskset_lock */
	bool zombie; /* the whole group is dead and waits to be reaped; guarded by taskset_lock */
	_Atomic int dumpable; /* PR_SET_DUMPABLE */
	int32_t parent_tid; /* the parent's thread that forked us (__WNOTHREAD, PDEATHSIG); guarded by taskset_lock */
	struct sighand *_Atomic
		sighand; /* actions and lock; a reference; may be shared (CLONE_SIGHAND); replaced by exec under its lock */
	struct task *exec_task; /* kills its siblings for execve; guarded by sighand lock */
	bool exec_busy; /* one execve (cred_guard_mutex) at a time; guarded by sighand lock */
	struct task *curr_target; /* where the last group signal went; guarded by sighand lock */
	int ntasks; /* length of threads, zombies too; guarded by taskset_lock */
	struct sigpending pending; /* shared pending; guarded by sighand lock */
	/* group exit and stop; guarded by sighand lock */
	bool exiting;
	int exit_code; /* wait status: code << 8 or signal (| 0x80 core) */
	struct stop_state stop;
	struct wait_queue wait; /* wait4 of this group's threads sleep here */
	struct wait_queue pidfd_wait; /* pidfds poll here */
	struct rlimits *rlimits;
	struct posix_timers *_Atomic timers; /* ITIMER_*, timer_create; sentry/timers.c; set once */
	/* accumulated from threads that exited, and waited-for children; guarded by LOCK_LEAF in task_stats.c */
	struct task_times {
		int64_t utime_ns, stime_ns;
		int64_t minflt, majflt, nvcsw, nivcsw, inblock, oublock;
		int64_t rchar, wchar, syscr, syscw; /* bytes and calls: /proc/PID/io */
		uint64_t maxrss_kib;
	} dead_times, child_times;
	int64_t start_ns; /* CLOCK_BOOTTIME */
	_Atomic int oom_score_adj;
	_Atomic bool oom_skip; /* the OOM killer has waited for its end in vain */
	_Atomic uint32_t membarrier; /* registered commands */
	_Atomic bool
		thp_disabled; /* PR_SET_THP_DISABLE: kept and shown; there are no huge pages to disable */
};

struct task {
	struct ref ref;
	struct rcu_cb rcu;
	int32_t tid; /* in the root pid namespace; immutable but for exec's leader swap */
	int32_t vtid; /* in its own; as tid */
	struct thread_group *group; /* immutable; a reference */
	TAILQ_ENTRY(task)
	thread_link; /* written under taskset_lock and sighand lock, so either is enough to read */
	struct sleeper sleeper;
	_Atomic int state; /* enum task_state */
	struct mutex lock; /* LOCK_TASK */
	/* guarded by lock for others; owner reads without: */
	struct mm *mm;
	struct fd_table *fdtable;
	struct fs_context *fsctx;
	struct cred *cred; /* RCU for readers of other tasks */
	struct mount_namespace *mnt_ns;
	struct uts_namespace *uts_ns;
	struct ipc_namespace *ipc_ns; /* System V objects: sentry/ipc/ipc.h */
	struct pid_namespace *
		pid_ns_children; /* what children are born into; a reference; NULL: the group's own */
	char comm[TASK_COMM_LEN];
	/* owned by the task's thread: */
	struct arch_regs regs;
	struct platform_context *ctx;
	struct platform_event event;
	uint64_t set_child_tid, clear_child_tid, robust_list, rseq_addr;
	char *exec_refused; /* of a process from outside that has no image: what it has to say; else NULL */
	uint32_t rseq_len, rseq_sig;
	int32_t parent_death_signal;
	uint32_t personality;
	int64_t syscall_nr; /* being served; -1 */
	int64_t (*restart_fn)(struct task *t); /* restart_syscall */
	union {
		struct {
			uint64_t uaddr;
			uint32_t val, bitset;
			int64_t deadline;
			unsigned flags;
		} futex;
		struct {
			int64_t deadline;
			uint64_t rem_addr;
			int clock;
		} nanosleep;
		struct {
			uint64_t ufds;
			uint32_t nfds;
			int64_t deadline;
		} poll;
	} restart;
	/* signals: sentry/signal.h */
	uint64_t blocked,
		saved_blocked; /* masks, bit signo-1; blocked is written by the owner under the sighand lock */
	bool restore_saved_blocked;
	struct sigpending pending; /* guarded by sighand lock */
	struct sigaltstack_state {
		uint64_t sp, size;
		unsigned flags;
	} altstack;
	_Atomic bool fatal_pending;
	bool stop_pending, stop_dequeued; /* group stop; guarded by sighand lock */
	bool stopped; /* parked in a group stop; guarded by sighand lock */
	bool linked; /* on group->threads; guarded as thread_link */
	uint64_t real_blocked; /* sigtimedwait's: not ignored meanwhile; guarded by sighand lock */
	/* the last fault, for sigcontext; owned by the task's thread */
	uint64_t fault_trapno, fault_err, fault_cr2;
	struct ptrace_state *_Atomic ptrace; /* NULL when not traced; sentry/ptrace.c */
	struct seccomp_filter *_Atomic
		seccomp; /* guest filters; NULL; written by the owner, or by a sibling's TSYNC under LOCK_TASK */
	_Atomic int seccomp_mode; /* SECCOMP_MODE_* */
	/* vfork */
	struct vfork_done *vfork; /* set by clone before the start; owned by the task's thread */
	struct ucount
		*user; /* of cred->uid: pending signals, processes; owner writes under LOCK_TASK */
	_Atomic uint32_t in_app; /* inside context_switch: others must context_interrupt */
	_Atomic int64_t app_ns; /* wall time inside context_switch */
	_Atomic int64_t cpu_base_ns; /* the worker's CPU clock when this task started */
	_Atomic int64_t stime_seen_ns; /* keeps reported system time monotonic */
	_Atomic int64_t app_since_ns; /* when it entered the application; 0 outside */
	struct task_worker *worker; /* the host thread; set before start */
	_Atomic int32_t pi_waiters; /* futex waiters that wait for this owner; sentry/futex_pi.c */
	struct sem_undo_list
		*sem_undo; /* semaphores to put right at exit; NULL; owned by the task's thread */
	uint64_t timer_slack_ns, timer_slack_default_ns;
	int tsc_mode; /* PR_TSC_* */
	_Atomic uint32_t loginuid, login_session; /* -1: never set; written by the task's thread */
	bool mm_shared; /* CLONE_VM was used on this mm; owned by the task's thread */
	int64_t start_mono_ns; /* immutable */
	_Atomic int64_t utime_ns, stime_ns, minflt, majflt, nvcsw, nivcsw;
	_Atomic int64_t rchar, wchar, syscr,
		syscw; /* written by the task only: task_account_io() */
	bool exiting; /* owned by the task's thread: leaves at its next loop turn */
	int exit_code; /* wait status */
	_Atomic int host_tid; /* 0 once the host thread is done with it */
	_Atomic uint64_t
		cpu_mask; /* what sched_setaffinity() asked for; changed by affinity_set() */
	struct task_affinity *affinity; /* its worker's, while it runs; sentry/affinity.c */
	int nice, sched_policy, sched_priority;
	bool sched_reset_on_fork;
	_Atomic int ioprio; /* ioprio_set(2): class << 13 | level; 0: none */
	_Atomic bool strace;
};

struct kernel {
	struct platform *platform;
	struct idr tasks; /* tid -> struct task, RCU */
	struct idr groups; /* pgid -> process_group (guarded by taskset_lock) */
	struct idr sessions;
	struct rwlock taskset_lock;
	struct task *init; /* pid 1's leader; a reference */
	struct mount_namespace *mnt_ns;
	struct uts_namespace *uts_ns;
	struct ipc_namespace *ipc_ns;
	struct task_cgroup *cgroup; /* of the first container */
	_Atomic int32_t task_count; /* tasks that exist, zombies too: the pids limit */
	_Atomic int32_t running; /* host threads in task_run() */
	int32_t task_limit; /* pids limit */
	int64_t boot_monotonic_ns, boot_realtime_ns;
	unsigned cpus; /* that guests see */
	_Atomic bool shutting_down;
	_Atomic uint64_t forks, switches, oom_kills;
	/* Serves the call in t->regs; sets rax. Installed by syscalls/. */
	void (*dispatch)(struct task *t);
	bool strace_default;
	/* pid 1 exited: called once on its thread with the wait status. */
	void (*on_init_exit)(int status);
	/* A process was killed because its container uses this much memory; for the kernel's messages. */
	void (*on_oom)(int32_t tgid, const char *comm, uint64_t bytes);
	/* How much memory does the host have left for us, at least these bytes (try_it: and does it give them)? oom_room_told() has the answer; NULL: nobody knows. */
	void (*ask_room)(int32_t question, uint64_t bytes, bool try_it);
	/* More tasks have ended than a few: the threads kept for them are to go once the sandbox is quiet, by task_workers_trim(). */
	void (*on_many_parked)(void);
	struct wait_queue exit_wait;
};
extern struct kernel kernel;

/* Ends parked threads but for a few. Any thread, no locks held. */
void task_workers_trim(void);

struct task *task_current(void); /* NULL on threads that are no task's */
/* In whose namespaces a thread that is no task's acts, while it makes a container: borrowed. */
struct kernel_actor {
	struct uts_namespace *uts_ns;
	struct ipc_namespace *ipc_ns;
	struct task_cgroup *cgroup;
};
void kernel_act_as(
	const struct kernel_actor *a); /* the calling thread; NULL: in the first container's */
/* The calling task's, or those that the thread acts in. Borrowed. */
struct uts_namespace *uts_current(void);
struct ipc_namespace *ipc_current(void);
/*
 * Iteration for /proc and kill(-1): the first task (group) with id >= *id, a reference; *id becomes its id.
 * NULL at the end. Groups are found until they are reaped.
 */
struct task *task_next(int32_t *tid);
struct thread_group *group_next(int32_t *tgid);
/* The group's leader (a zombie too), a reference; NULL when it is reaped. */
struct task *group_leader(struct thread_group *g);
/* All of it has ended: whoever waits for that does so on its pidfd_wait. */
bool group_is_dead(struct thread_group *g);
/* The same, or all that is left of it waits until a tracer that is not its parent has heard of its end. */
bool group_has_ended(struct thread_group *g);

/* ---- life ---- */

struct task_exec_args {
	struct vfs_path root, cwd;
	const char *filename;
	char *const *argv, *const *envp;
	struct cred *cred;
	struct mount_namespace *mnt_ns;
	struct uts_namespace *uts_ns;
	struct ipc_namespace *ipc_ns; /* NULL: the first container's; as cgroup */
	struct task_cgroup *cgroup;
	struct fd_table *fdtable; /* takes */
	const struct rlimits *rlimits; /* copied; NULL: defaults */
	uint32_t umask;
	bool new_session;
	bool refuse_late; /* a file that is no image: the process says so on its descriptor 2, once started, and exits with 1 */
	struct tty *ctty; /* becomes the controlling terminal; borrowed; NULL */
	struct thread_group *parent; /* NULL: init itself, or init's child for exec */
	struct pid_namespace *
		pid_ns; /* borrowed; NULL: the parent's, or the root's. Without an init: the process becomes it */
};
must_check int kernel_init(struct platform *p, unsigned cpus, int32_t task_limit);
/* A new process (container init, moat exec). Started by task_start(). Return 0, -ENOENT, -EACCES, -ENOEXEC, ... as execve. */
must_check int task_create_process(const struct task_exec_args *args, struct task **ret);
must_check int task_start(struct task *t);
void task_unref(struct task *t);
static inline void task_ref(struct task *t)
{
	ref_get(&t->ref);
}
/* By root-namespace tid / tgid. Return a reference or NULL. */
struct task *task_find(int32_t tid);
struct thread_group *group_find(int32_t tgid);
void group_unref(struct thread_group *g);
static inline void group_ref(struct thread_group *g)
{
	ref_get(&g->ref);
}

/* The calling task ends (exit) / its whole group ends (exit_group, fatal signal). The task leaves at its next loop turn. */
void task_exit(struct task *t, int code);
void task_group_exit(struct thread_group *g, int wait_status);
/* This thread alone dies of signo (seccomp); the whole group if it is the last one. The calling task. */
void task_thread_kill(struct task *t, int signo);

/* clone's work; args as clone3. Return the child's tid as t sees it, or -errno. */
struct clone_args_k {
	uint64_t flags, pidfd, child_tid, parent_tid, stack, stack_size, tls;
	int exit_signal;
	const int32_t *set_tid;
	size_t set_tid_size; /* numbers to have, in the child's namespace first */
	struct cgroup_group *group; /* CLONE_INTO_CGROUP: where a process begins; borrowed */
};
int64_t task_clone(struct task *t, const struct clone_args_k *args);
void group_set_subreaper(struct thread_group *g, bool on);
/* unshare(2): files, fs context, mount, UTS, IPC and pid namespaces. -EINVAL for what does not exist. */
int64_t task_unshare(struct task *t, uint64_t flags);
/* ptrace_may_access(PTRACE_MODE_ATTACH_REALCREDS). */
bool task_may_access(struct task *from, struct task *to);
/* setsid(2), setpgid(2). */
int32_t group_setsid(struct thread_group *g);
int group_setpgid(struct thread_group *caller, int32_t pid, int32_t pgid);
/* What wait4, waitid found. */
struct task_wait_args {
	int idtype; /* P_PID, P_PGID, P_ALL */
	int32_t id;
	int options; /* W* */
	bool nonblock; /* a non-blocking pidfd: -EAGAIN in place of waiting */
};
struct task_wait_result {
	int32_t pid; /* as the caller sees it; 0: nothing (WNOHANG) */
	uint32_t uid;
	int code, status; /* CLD_*; exit code or signal */
	int wait_status; /* as wait4 gives it */
	struct task_times times; /* the child's and its waited-for children's */
};
/* Return: 0, -ECHILD, -ERESTARTSYS_, -EAGAIN. */
must_check int task_wait(struct task *t, const struct task_wait_args *args,
			 struct task_wait_result *ret);
/* CPUs, sentry/affinity.c. The host thread that carries t moves at once. Return: 0, -errno of the host. */
must_check int affinity_set(struct task *t, uint64_t mask);
uint64_t affinity_all(void);
/* Before kernel_init(): which CPUs of the host are the guest's, "0-3,6", whether or not a cpuset leaves them now. NULL: what it leaves now. */
void affinity_set_host(const char *list);
/* Where t may run: what it asked for, of what its container's cpuset leaves now, or all of that. */
uint64_t affinity_effective(struct task *t);
/* What cg's cpuset leaves now. */
uint64_t affinity_allowed(struct task_cgroup *cg);
/* cpuset.cpus of a container whose threads the host does not hold to it: its tasks move at once, and get no others. A list that names none is ignored. */
void affinity_set_container(struct task_cgroup *cg, const char *list);
unsigned affinity_current_cpu(void);
/* Never returns an error after the point of no return: the task is killed. */
int64_t task_execve(struct task *t, struct file *exe, const char *filename, char *const *argv,
		    size_t argc, char *const *envp, size_t envc);

/* ---- snapshots with references, for /proc and others ---- */
struct mm *task_get_mm(struct task *t); /* NULL after exit; mm_unref() */
struct fd_table *task_get_fdtable(struct task *t); /* NULL; fd_table_unref() */
struct fs_context *task_get_fsctx(struct task *t);
struct cred *task_get_cred(struct task *t);
struct mount_namespace *task_get_mnt_ns(struct task *t);
void task_get_comm(struct task *t, char *buf); /* TASK_COMM_LEN */
void task_set_comm(struct task *t, const char *name);
void task_set_cred(struct task *t, struct cred *c); /* the calling task; takes c (committed) */
uint64_t task_rlimit(struct task *t, int resource); /* soft */
void task_get_times(struct task *t, struct task_times *ret);
/* The running task made a call that reads (or writes): `ret` bytes, or an error. */
void task_account_io(struct task *t, bool is_read, int64_t ret);
void group_get_times(struct thread_group *g, struct task_times *ret);
void group_get_child_times(struct thread_group *g, struct task_times *ret);
void task_mm_limits(struct task *t, struct mm_limits *ret);
char task_state_char(struct task *t); /* R S D T t Z X */
int32_t group_ppid(struct thread_group *g);
int32_t group_pgid(struct thread_group *g);
int32_t group_sid(struct thread_group *g);

/* ---- what task_run and system calls share ---- */
void task_run(struct task *t); /* thread body: returns when the task is dead */
/* Signals or exit requests are pending for the caller. */
bool task_should_interrupt(struct task *t);

/* User memory of the calling task. */
#define task_copy_in(t, dst, addr, size) mm_copy_in((t)->mm, (dst), (addr), (size))
#define task_copy_out(t, addr, src, size) mm_copy_out((t)->mm, (addr), (src), (size))

#endif
