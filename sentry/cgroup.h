/*
 * sentry/cgroup.h - the processes of one container: what a cgroup is to Linux.
 *
 * A sandbox may hold several containers (of a pod), which may share pid, ipc and UTS namespaces; this is what tells them apart. A process is
 * in its parent's for life (the groups that the container makes below are cgroup_tree.h's). The limits are what the container sees in /sys/fs/cgroup; those of processes and of memory are enforced here.
 */
#ifndef MOAT_SENTRY_CGROUP_H
#define MOAT_SENTRY_CGROUP_H

#include "base/lock.h"
#include "base/ref.h"
#include "vfs/wait.h"

#define CGROUP_PATH_MAX 256

struct cgroup_group;
struct task;
struct thread_group;
struct tty;

#define CPU_PERIOD_DEFAULT_US 100000u

/* What the files of cgroup2 show; 0 or empty: no limit. */
struct cgroup_limits {
	uint64_t memory_max, memory_low,
		memory_swap; /* bytes; memory_swap: memory and swap together */
	uint64_t pids_max;
	int64_t cpu_quota; /* microseconds in cpu_period */
	uint64_t cpu_period, cpu_shares;
	char cpus[128], mems[64];
};

struct task_cgroup {
	struct ref ref;
	struct mutex lock; /* LOCK_LEAF */
	struct cgroup_limits limits; /* guarded by lock */
	char path[CGROUP_PATH_MAX]; /* guarded by lock; as /proc/PID/cgroup shows it */
	_Atomic int32_t tasks, tasks_peak; /* that exist, zombies too */
	_Atomic int32_t task_limit; /* INT32_MAX: none */
	_Atomic bool dying; /* no process comes any more */
	struct thread_group *_Atomic init; /* its first process; compared, never followed */
	_Atomic bool frozen; /* its tasks do not go on in the application; set under lock */
	struct wait_queue thawed; /* where they wait meanwhile */
	struct wait_queue empty; /* woken when one has gone and it is dying */
	struct cgroup_group *root; /* immutable: of the groups that it makes itself; owned */
	/* Memory: oom.c. */
	struct mem_account *account; /* immutable; NULL: there were too many */
	bool host_bounds; /* immutable once processes run: its limit is that of all of the sandbox */
	_Atomic bool host_keeps; /* then: the host's cgroup has that limit, and an OOM killer */
	char *id_map
		[2]; /* immutable once processes run: what uid_map and gid_map show of its user namespace; owned; NULL: the identity */
	struct tty *
		console; /* /dev/console; a reference, guarded by the lock in tty/console.c; NULL: it has none */
	_Atomic uint64_t cpu_mask; /* affinity_set_container(); 0: all */
	_Atomic uint64_t memory_peak; /* of when somebody looked */
	_Atomic uint64_t memory_max_hits, ooms, oom_kills, pids_max_hits;
	_Atomic bool oom_busy; /* a task is at it */
	_Atomic int32_t
		oom_victim; /* the process whose end is waited for, or 0; set by who has oom_busy. No reference: it has one on us */
	struct wait_queue oom_wait; /* woken when oom_busy ends, or the victim */
};

/* Return: 0, -ENOMEM. *ret has one reference. */
must_check int task_cgroup_create(struct task_cgroup **ret);
static inline void task_cgroup_ref(struct task_cgroup *cg)
{
	ref_get(&cg->ref);
}
void task_cgroup_unref(struct task_cgroup *cg); /* NULL is ignored */
/* path: NULL for "/". Both are copied. */
void task_cgroup_configure(struct task_cgroup *cg, const struct cgroup_limits *l, const char *path);
void task_cgroup_update(struct task_cgroup *cg, uint64_t memory, uint64_t pids,
			const char *cpus); /* 0, NULL: as before */
struct cgroup_limits task_cgroup_limits(struct task_cgroup *cg);
void task_cgroup_path(struct task_cgroup *cg, char ret[CGROUP_PATH_MAX]);
/* Bytes of memory that exist on the host for it: asks the host. Without an account: of all of the sandbox. */
uint64_t task_cgroup_memory(struct task_cgroup *cg);
/* The limit, or what bounds it, is another now. */
void oom_limit_changed(struct task_cgroup *cg);
/* Of a task, at its loop, without locks: if its container is over its memory limit, see that it no longer is. */
void oom_serve(struct task *t);
/* The same in the middle of a system call, for mm_over_limit. */
int oom_in_call(void);
/* That of the calling task, or that the thread acts in (kernel_act_as()). Borrowed. */
struct task_cgroup *task_cgroup_current(void);
/* As group_next() and task_next() (sentry/task.h), of this container alone. */
struct thread_group *task_cgroup_next_group(struct task_cgroup *cg, int32_t *tgid);
struct task *task_cgroup_next_task(struct task_cgroup *cg, int32_t *tid);
/* One more or less; the first may say no: -EAGAIN. Under taskset_lock. */
must_check int task_cgroup_charge(struct task_cgroup *cg);
void task_cgroup_uncharge(struct task_cgroup *cg);
void task_cgroup_group_died(struct thread_group *g); /* it is a zombie now. Under taskset_lock */
/*
 * The freezer. A system call that runs or sleeps is not interrupted (so none fails with EINTR), it only does not return; what kills a process kills a frozen one.
 * Return of freeze: all of its tasks are out of the application.
 */
bool task_cgroup_freeze(struct task_cgroup *cg);
void task_cgroup_thaw(struct task_cgroup *cg);
extern _Atomic unsigned
	task_cgroups_frozen; /* how many are: one load tells that there is nothing to do */
/* Of a task, at its loop: until it is thawed, or killed. */
void task_cgroup_rest(struct task *t);
/*
 * SIGKILL to whoever is in it, until nobody is (tracers outside have PTRACE_LAST_LOOK_NS to hear of it) or the time is over: 0, -ETIMEDOUT. Nothing comes into it afterwards. Not from a task of its own; a
 * process that was never started stays.
 */
must_check int task_cgroup_kill(struct task_cgroup *cg, int64_t timeout_ns);

#endif
