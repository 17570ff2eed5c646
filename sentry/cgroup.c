/* sentry/cgroup.c - the processes of one container: counted, listed, frozen, killed. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "mem/memfile.h"
#include "sentry/cgroup.h"
#include "sentry/cgroup_tree.h"
#include "sentry/ptrace.h"
#include "sentry/task_internal.h"

/* A fork may slip through while the processes are gone through: then again. */
#define KILL_STEP_NS (50 * 1000000ll)

REF_TYPE(cgroup_ref_type, "cgroup");

_Atomic unsigned task_cgroups_frozen;

int task_cgroup_create(struct task_cgroup **ret)
{
	struct task_cgroup *cg = calloc(1, sizeof(*cg));

	if (!cg)
		return -ENOMEM;
	if (cgroup_root_create(cg, &cg->root)) {
		free(cg);
		return -ENOMEM;
	}
	ref_init(&cg->ref, &cgroup_ref_type);
	mutex_init(&cg->lock, LOCK_LEAF, "cgroup");
	wait_queue_init(&cg->empty);
	wait_queue_init(&cg->oom_wait);
	wait_queue_init(&cg->thawed);
	cg->account = mem_account_create();
	if (!cg->account)
		log_warn("cgroup: too many containers: this one's memory has no limit of its own");
	strcpy(cg->path, "/");
	atomic_init(&cg->task_limit, INT32_MAX);
	*ret = cg;
	return 0;
}

void task_cgroup_unref(struct task_cgroup *cg)
{
	if (!cg || !ref_put(&cg->ref))
		return;
	cgroup_root_destroy(cg->root);
	wait_queue_fini(&cg->empty);
	wait_queue_fini(&cg->oom_wait);
	wait_queue_fini(&cg->thawed);
	if (atomic_load(&cg->frozen))
		atomic_fetch_sub(&task_cgroups_frozen, 1);
	mem_account_destroy(cg->account);
	free(cg->id_map[0]);
	free(cg->id_map[1]);
	ref_fini(&cg->ref, &cgroup_ref_type);
	free(cg);
}

/* Lock held. */
static void set_task_limit(struct task_cgroup *cg)
{
	uint64_t n = cg->limits.pids_max;

	atomic_store(&cg->task_limit, n && n < INT32_MAX ? (int32_t)n : INT32_MAX);
}

void task_cgroup_configure(struct task_cgroup *cg, const struct cgroup_limits *l, const char *path)
{
	mutex_lock(&cg->lock);
	cg->limits = *l;
	snprintf(cg->path, sizeof(cg->path), "%s", path ? path : "/");
	set_task_limit(cg);
	mutex_unlock(&cg->lock);
	oom_limit_changed(cg);
}

void task_cgroup_update(struct task_cgroup *cg, uint64_t memory, uint64_t pids, const char *cpus)
{
	mutex_lock(&cg->lock);
	if (memory)
		cg->limits.memory_max = memory;
	if (pids)
		cg->limits.pids_max = pids;
	if (cpus)
		snprintf(cg->limits.cpus, sizeof(cg->limits.cpus), "%s", cpus);
	set_task_limit(cg);
	mutex_unlock(&cg->lock);
	oom_limit_changed(cg);
}

struct cgroup_limits task_cgroup_limits(struct task_cgroup *cg)
{
	struct cgroup_limits l;

	mutex_lock(&cg->lock);
	l = cg->limits;
	mutex_unlock(&cg->lock);
	return l;
}

void task_cgroup_path(struct task_cgroup *cg, char ret[CGROUP_PATH_MAX])
{
	mutex_lock(&cg->lock);
	memcpy(ret, cg->path, CGROUP_PATH_MAX);
	mutex_unlock(&cg->lock);
}

struct thread_group *task_cgroup_next_group(struct task_cgroup *cg, int32_t *tgid)
{
	struct thread_group *g;

	while ((g = group_next(tgid)) && g->cgroup != cg) {
		group_unref(g);
		(*tgid)++;
	}
	return g;
}

struct task *task_cgroup_next_task(struct task_cgroup *cg, int32_t *tid)
{
	struct task *t;

	while ((t = task_next(tid)) && t->group->cgroup != cg) {
		task_unref(t);
		(*tid)++;
	}
	return t;
}

int task_cgroup_charge(struct task_cgroup *cg)
{
	int32_t now = atomic_load(&cg->tasks), peak = atomic_load(&cg->tasks_peak);

	if (atomic_load(&cg->dying))
		return -EAGAIN;
	if (now >= atomic_load(&cg->task_limit)) {
		atomic_fetch_add(&cg->pids_max_hits, 1);
		return -EAGAIN;
	}
	now = atomic_fetch_add(&cg->tasks, 1) + 1;
	if (now > peak)
		atomic_store(&cg->tasks_peak, now);
	return 0;
}

void task_cgroup_uncharge(struct task_cgroup *cg)
{
	atomic_fetch_sub(&cg->tasks, 1);
	if (unlikely(atomic_load(&cg->dying)))
		wait_queue_wake(&cg->empty, POLLIN);
}

void task_cgroup_group_died(struct thread_group *g)
{
	if (unlikely(atomic_load(&g->cgroup->oom_victim) == g->tgid))
		wait_queue_wake(&g->cgroup->oom_wait, POLLIN);
}

/* ---- the freezer ---- */

bool task_cgroup_freeze(struct task_cgroup *cg)
{
	bool at_rest = true;
	struct task *t;
	int32_t id = 1;

	mutex_lock(&cg->lock);
	if (!atomic_load(&cg->frozen)) {
		atomic_fetch_add(&task_cgroups_frozen, 1);
		atomic_store(&cg->frozen, true);
	}
	mutex_unlock(&cg->lock);
	while ((t = task_cgroup_next_task(cg, &id))) {
		if (task_leave_app(t))
			at_rest = false;
		task_unref(t);
		id++;
	}
	return at_rest;
}

void task_cgroup_thaw(struct task_cgroup *cg)
{
	mutex_lock(&cg->lock);
	if (atomic_load(&cg->frozen)) {
		atomic_store(&cg->frozen, false);
		atomic_fetch_sub(&task_cgroups_frozen, 1);
	}
	mutex_unlock(&cg->lock);
	wait_queue_wake(&cg->thawed, POLLIN);
}

static bool is_thawed(void *arg)
{
	const struct task_cgroup *cg = arg;

	return !atomic_load(&cg->frozen);
}

void task_cgroup_rest(struct task *t)
{
	struct task_cgroup *cg = t->group->cgroup;

	(void)!wait_event(&cg->thawed, is_thawed, cg, SLEEP_KILLABLE, TIME_FOREVER);
}

/* ---- the end ---- */

/* Zombies that nobody waits for may stay. */
static bool is_dead(void *arg)
{
	struct thread_group *g;
	int32_t id = 1;
	bool dead = true;

	while (dead && (g = task_cgroup_next_group(arg, &id))) {
		dead = group_is_dead(g);
		group_unref(g);
		id++;
	}
	return dead;
}

int task_cgroup_kill(struct task_cgroup *cg, int64_t timeout_ns)
{
	int64_t now = time_monotonic_ns(), deadline = now + timeout_ns;
	int64_t last_look = now + PTRACE_LAST_LOOK_NS;
	int err;

	atomic_store(&cg->dying, true);
	do {
		struct thread_group *g;
		int32_t id = 1;

		while ((g = task_cgroup_next_group(cg, &id))) {
			task_group_exit(g, SIGKILL);
			group_unref(g);
			id++;
		}
		if (time_monotonic_ns() >= last_look)
			ptrace_let_go(cg);
		err = wait_event(&cg->empty, is_dead, cg, SLEEP_UNINTERRUPTIBLE,
				 MIN(time_monotonic_ns() + KILL_STEP_NS, deadline));
	} while (err && time_monotonic_ns() < deadline);
	return err ? -ETIMEDOUT : 0;
}
