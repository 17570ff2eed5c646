/*
 * sentry/kernel.c - the kernel object: task tables, start, and the end of everything.
 *
 * How tasks are organised. A struct task is one guest thread; a struct thread_group is a process. A task is found by its tid in
 * kernel.tasks (lock-free, RCU) from task_link_thread() until it is released: at once for a thread that ends, when its parent has
 * waited for a leader. The tables' entry is a reference. Family links (parent, children, process group, session) are among groups and
 * guarded by kernel.taskset_lock; what signals touch is guarded by the group's sighand lock; a group's list of threads by both.
 *
 *	task_clone.c   fork, vfork, threads; first process
 *	task_thread.c  host threads, parked and reused
 *	task_run.c     the loop: application, event, signals
 *	task_exec.c    execve: other threads die, the tid is swapped, the image is replaced
 *	task_exit.c    the end: resources, children to a reaper, the parent is told
 *	task_wait.c    wait4, waitid
 *	pgrp.c         process groups, sessions, orphans
 *
 * Performance: fork takes a parked host thread with its vCPU; nothing global is taken but taskset_lock and the tid table's lock.
 * Watch: object counts (ref_report) of "task", "thread group", "sighand"; kernel.forks; task_state_char().
 * Numbers are the root pid namespace's everywhere but at the boundary: pidns.c.
 */
#include "mem/memfile.h"
#include "sentry/ipc/ipc.h"
#include "sentry/task_internal.h"

struct kernel kernel;

static _Thread_local struct task *current_task;

struct task *task_current(void)
{
	return current_task;
}

void task_set_current(struct task *t)
{
	current_task = t;
}

static _Thread_local const struct kernel_actor *actor;

void kernel_act_as(const struct kernel_actor *a)
{
	actor = a;
	mem_account_enter(a && a->cgroup ? a->cgroup->account : NULL);
}

struct uts_namespace *uts_current(void)
{
	return current_task ? current_task->uts_ns : actor ? actor->uts_ns : kernel.uts_ns;
}

struct ipc_namespace *ipc_current(void)
{
	return current_task ? current_task->ipc_ns : actor ? actor->ipc_ns : kernel.ipc_ns;
}

struct task_cgroup *task_cgroup_current(void)
{
	if (current_task)
		return current_task->group->cgroup;
	return actor ? actor->cgroup : kernel.cgroup;
}

int kernel_init(struct platform *p, unsigned cpus, int32_t task_limit)
{
	kernel.platform = p;
	mm_over_limit = oom_in_call;
	kernel.cpus = cpus ? cpus : 1;
	affinity_init();
	kernel.task_limit = task_limit > 0 && task_limit < TASKS_MAX ? task_limit : TASKS_MAX - 2;
	kernel.boot_monotonic_ns = time_monotonic_ns();
	kernel.boot_realtime_ns = time_realtime_ns();
	rwlock_init(&kernel.taskset_lock, LOCK_TASKSET, "taskset");
	idr_init(&kernel.tasks, 1, TASKS_MAX - 1, "tasks");
	idr_init(&kernel.groups, 1, TASKS_MAX - 1, "process groups");
	idr_init(&kernel.sessions, 1, TASKS_MAX - 1, "sessions");
	wait_queue_init(&kernel.exit_wait);
	pid_ns_init();
	futex_tables_init();
	kernel.uts_ns = uts_create(NULL);
	if (!kernel.uts_ns || task_cgroup_create(&kernel.cgroup))
		return -ENOMEM;
	return ipc_namespace_create(&kernel.ipc_ns);
}

/* ---- lookups ---- */

struct task *task_find(int32_t tid)
{
	struct task *t;

	if (tid <= 0)
		return NULL;
	rcu_read_begin();
	t = idr_find(&kernel.tasks, tid);
	if (t && !ref_tryget(&t->ref))
		t = NULL;
	rcu_read_end();
	return t;
}

struct thread_group *group_find(int32_t tgid)
{
	struct task *t = task_find(tgid);
	struct thread_group *g = NULL;

	if (!t)
		return NULL;
	if (group_tgid_early(t->group) == tgid) {
		g = t->group;
		group_ref(g);
	}
	task_unref(t);
	return g;
}

struct task *task_next(int32_t *tid)
{
	struct task *t;
	int32_t id = *tid;

	rcu_read_begin();
	for (;;) {
		t = idr_next(&kernel.tasks, &id);
		if (!t || ref_tryget(&t->ref))
			break;
		id++;
	}
	rcu_read_end();
	if (t)
		*tid = id;
	return t;
}

struct thread_group *group_next(int32_t *tgid)
{
	struct thread_group *g;
	struct task *t;

	while ((t = task_next(tgid))) {
		g = t->group;
		if (group_tgid_early(g) == *tgid) {
			group_ref(g);
			task_unref(t);
			return g;
		}
		task_unref(t);
		(*tgid)++;
	}
	return NULL;
}

struct task *group_leader(struct thread_group *g)
{
	struct task *t;

	rwlock_read_lock(&kernel.taskset_lock);
	t = g->leader;
	if (t)
		task_ref(t);
	rwlock_read_unlock(&kernel.taskset_lock);
	return t;
}

struct task *group_any_task(struct thread_group *g)
{
	struct task *t;

	if (g->leader && atomic_load(&g->leader->state) != TASK_ZOMBIE)
		return g->leader;
	TAILQ_FOREACH (t, &g->threads, thread_link)
		if (atomic_load(&t->state) != TASK_ZOMBIE && atomic_load(&t->state) != TASK_DEAD)
			return t;
	return g->leader;
}

/* ---- tables ---- */

/* A number stays taken while a process group or session still bears it. */
static bool tid_reserved(int32_t tid)
{
	return idr_find(&kernel.groups, tid) || idr_find(&kernel.sessions, tid);
}

void task_tid_release(int32_t tid)
{
	if (!idr_find(&kernel.tasks, tid) && !tid_reserved(tid))
		pid_release(tid);
}

/* A number in the root namespace; want: 0 for any. Return: it, or -errno. */
static int32_t root_number(struct task *t, int32_t want)
{
	int32_t tid, tries = 0;
	int err;

	if (want) {
		if (tid_reserved(want))
			return -EEXIST;
		err = idr_alloc_at(&kernel.tasks, want, t);
		return err ? err : want;
	}
	for (;;) {
		tid = idr_alloc(&kernel.tasks, t);
		if (tid < 0 || !tid_reserved(tid))
			return tid;
		idr_remove(&kernel.tasks, tid);
		if (++tries == TASKS_MAX)
			return -EAGAIN;
	}
}

/* Return 0 with the numbers in the root namespace and in its own; -errno. */
static int assign_numbers(struct task *t, const int32_t *want, size_t want_count, int32_t *ret_tid,
			  int32_t *ret_vtid)
{
	struct pid_namespace *ns = t->group->pid_ns;
	size_t level = (size_t)ns->level;
	int32_t tid;
	int err;

	for (size_t i = 0; i < want_count; i++)
		if (want[i] < 1 || want[i] >= TASKS_MAX || want_count > level + 1)
			return -EINVAL;
	tid = root_number(t, want_count > level ? want[level] : 0);
	if (tid < 0)
		return tid;
	pid_forget(tid);
	*ret_tid = *ret_vtid = tid;
	if (!level)
		return 0;
	err = pid_assign(ns, tid, want, want_count, ret_vtid);
	if (err)
		idr_remove(&kernel.tasks, tid);
	return err;
}

int task_assign_tid(struct task *t, const int32_t *want, size_t want_count)
{
	struct thread_group *g = t->group;
	int32_t tid, vtid;
	int err;

	if (atomic_load(&kernel.task_count) >= kernel.task_limit)
		return -EAGAIN;
	err = task_cgroup_charge(g->cgroup);
	if (err)
		return err;
	err = assign_numbers(t, want, want_count, &tid, &vtid);
	if (err) {
		task_cgroup_uncharge(g->cgroup);
		return err;
	}
	/* Lookups between the allocation and here saw a task with tid 0, which matches nothing; see task_tid_early(). */
	__atomic_store_n(&t->tid, tid, __ATOMIC_RELAXED);
	t->vtid = vtid;
	if (!g->leader) {
		__atomic_store_n(&g->tgid, tid, __ATOMIC_RELAXED);
		g->vtgid = vtid;
	}
	atomic_fetch_add(&kernel.task_count, 1);
	return 0;
}

void task_link_thread(struct task *t)
{
	struct thread_group *g = t->group;

	if (!g->leader)
		g->leader = t;
	TAILQ_INSERT_TAIL(&g->threads, t, thread_link);
	g->ntasks++;
	t->linked = true;
	atomic_fetch_add(&g->live, 1);
	if (t->user)
		ucount_charge(t->user, UCOUNT_PROCESSES, 1);
}

void task_unlink(struct task *t)
{
	struct thread_group *g = t->group;
	struct sighand *sh = sighand_lock(g);

	if (t->linked) {
		if (g->curr_target == t)
			g->curr_target = TAILQ_NEXT(t, thread_link);
		TAILQ_REMOVE(&g->threads, t, thread_link);
		g->ntasks--;
		t->linked = false;
		if (t->user)
			ucount_uncharge(t->user, UCOUNT_PROCESSES, 1);
	}
	sigpending_flush(&t->pending, ~0ull);
	sighand_unlock(sh);
	if (g->leader == t)
		g->leader = NULL;
	if (t->tid && idr_find(&kernel.tasks, t->tid) == t) {
		idr_remove(&kernel.tasks, t->tid);
		task_tid_release(t->tid);
	}
	pid_ns_task_gone(g->pid_ns);
	atomic_store(&t->state, TASK_DEAD);
	atomic_fetch_sub(&kernel.task_count, 1);
	task_cgroup_uncharge(g->cgroup);
}

void task_list_free(struct task_list *dead)
{
	struct task *t;

	while ((t = TAILQ_FIRST(dead))) {
		TAILQ_REMOVE(dead, t, thread_link);
		task_unref(t);
	}
}

/* ---- the end of everything ---- */

static void kill_all_but(struct thread_group *except)
{
	struct thread_group *g;
	struct sighand *sh;
	int32_t id = 1;

	atomic_store(&kernel.shutting_down, true);
	while ((g = group_next(&id))) {
		if (g != except) {
			sh = sighand_lock(g);
			g->unkillable = false;
			group_kill_locked(g, SIGKILL);
			sighand_unlock(sh);
		}
		group_unref(g);
		id++;
	}
}

struct kill_all_wait {
	int32_t left;
};

static bool all_gone(void *arg)
{
	struct kill_all_wait *w = arg;

	return atomic_load(&kernel.running) <= w->left;
}

static int kill_all_wait(struct thread_group *except, int32_t left, int64_t timeout_ns)
{
	struct kill_all_wait w = {left};
	int64_t deadline =
		timeout_ns == TIME_FOREVER ? TIME_FOREVER : time_monotonic_ns() + timeout_ns;
	int64_t step;
	int err;

	/* A fork may slip through while we look: look again until nobody runs. */
	do {
		kill_all_but(except);
		step = MIN(time_monotonic_ns() + 50 * 1000000ll, deadline);
		err = wait_event(&kernel.exit_wait, all_gone, &w, SLEEP_UNINTERRUPTIBLE, step);
	} while (err == -ETIMEDOUT && time_monotonic_ns() < deadline);
	return err == -EINTR ? -ETIMEDOUT : err;
}

/* The container's init has ended: nothing else may live on. Runs on init's last thread. */
void kernel_init_exited(int status)
{
	if (kill_all_wait(kernel.init ? kernel.init->group : NULL, 1, 10 * 1000000000ll))
		log_warn("tasks: %d did not end after init", (int)atomic_load(&kernel.running) - 1);
	if (kernel.on_init_exit)
		kernel.on_init_exit(status);
}
