/*
 * sentry/oom.c - a container has reached its memory limit: its largest process is killed, not the sandbox.
 *
 * Memory is charged where it is allocated, under whatever locks (mem/account.c); that only leaves a mark. A task that passes its loop and finds it, with no
 * locks held and nobody's signal to die of, measures what the container really uses, and if that is too much kills and waits: for the memory to be there
 * before anybody of the container goes on to take more. So a system call may go over the limit, and it is its end that pays. One task of a container is at it
 * (oom_busy), the others wait; all of them can be killed meanwhile, also by it.
 *
 * Which process: as Linux, by anonymous and shared memory and oom_score_adj. Processes that share its memory die with it. One that is dying anyway is waited for,
 * and one that does not end in time is not chosen again. If there is none, everybody's loop is slow until somebody has freed memory.
 *
 * The sandbox's first container is bounded by the host's cgroup, where the sentry's own memory counts as well and whose killer would end the sandbox. There the mark is
 * half of the limit, and the host says what is left (oom_host.c). The further containers of a pod have their memory in the same cgroup.
 *
 * Cannot do: a system call may go over the limit by MEM_ACCOUNT_OVERDRAFT before its end; pages whose chunk (64 KiB) or fault window was allocated below the
 * limit and that are touched beyond it are not seen before the next allocation, so who means to evade its limit can, up to that of the pod; memory of the
 * sentry itself (dentries, sockets' and pipes' buffers) is nobody's; memory.high; no swap.
 *
 * Watch: oom_kills, memory_bytes and memory_peak of `moat events --stats`, the kernel's messages.
 */
#include <string.h>

#include "mem/memfile.h"
#include "sentry/oom.h"
#include "sentry/task_internal.h"

/* For a victim to die. */
#define OOM_WAIT_NS 5000000000ll
/* How much is allocated at least between two measurements. */
#define OOM_STEP (1ull << 20)
#define OOM_STEP_PART 64
/* For what it had to be the host's again. */
#define OOM_DRAIN_NS 1000000000ll
/* Between two looks at what nobody tells of. */
#define OOM_PAUSE_NS 5000000ll

/* In bytes; UINT64_MAX: none. */
static uint64_t limit_of(struct task_cgroup *cg)
{
	uint64_t max = task_cgroup_limits(cg).memory_max;

	return !max || max >= INT64_MAX || (cg->host_bounds && !cg->host_keeps) ? UINT64_MAX : max;
}

void oom_limit_changed(struct task_cgroup *cg)
{
	uint64_t limit = limit_of(cg);

	if (!cg->account)
		return;
	if (cg->host_bounds) {
		mem_account_set_soft(cg->account);
		/* Who is over this one looks how much is left; below it nobody would. */
		mem_set_tight(false);
		limit = limit == UINT64_MAX ? limit : limit / 2;
	}
	mem_account_limit(cg->account, limit);
}

uint64_t task_cgroup_memory(struct task_cgroup *cg)
{
	uint64_t now, peak = atomic_load(&cg->memory_peak);
	struct mem_stats ms;

	if (cg->account) {
		now = mem_account_resident(cg->account);
	} else {
		mem_get_stats(&ms);
		now = ms.private_bytes;
	}
	while (now > peak && !atomic_compare_exchange_weak(&cg->memory_peak, &peak, now))
		;
	return now;
}

/*
 * Looks again when as much has been allocated as matters, counted from what was held before it was measured: each look costs in proportion to what there is.
 */
static void look_later(struct task_cgroup *cg, uint64_t held, uint64_t now, uint64_t limit)
{
	uint64_t step = MAX(limit / OOM_STEP_PART, OOM_STEP);

	mem_account_look_after(cg->account, held, MAX((limit - now) / 4, step));
	/* It was changed meanwhile. */
	if (limit_of(cg) != limit)
		oom_limit_changed(cg);
}

/* As oom_badness(); -1: not to be killed. */
static int64_t badness(struct task *t, struct mm *mm, uint64_t limit)
{
	int adj = atomic_load_explicit(&t->group->oom_score_adj, memory_order_relaxed);
	struct mm_usage u;

	if (adj == -1000 || atomic_load(&t->group->oom_skip))
		return -1;
	mm_get_usage(mm, &u);
	return MAX((int64_t)(u.rss_anon + u.rss_shmem) + adj * (int64_t)(limit / 1000), 1);
}

/* A task is found by its number before it has joined its group: then there is nobody to kill yet. */
static bool is_linked(struct task *t)
{
	bool linked;

	rwlock_read_lock(&kernel.taskset_lock);
	linked = t->linked;
	rwlock_read_unlock(&kernel.taskset_lock);
	return linked;
}

/* A reference to the worst process, and its mm, which the caller holds; NULL: none. */
static struct thread_group *choose(struct task_cgroup *cg, uint64_t limit, struct mm **ret_mm)
{
	struct thread_group *worst = NULL;
	int64_t most = 0;
	int32_t id = 1;
	struct task *t;

	*ret_mm = NULL;
	for (; (t = task_cgroup_next_task(cg, &id)); id++) {
		struct mm *mm = t->group == worst || !is_linked(t) ? NULL : task_get_mm(t);
		int64_t points = mm ? badness(t, mm, limit) : -1;

		if (points > most) {
			most = points;
			if (worst)
				group_unref(worst);
			if (*ret_mm)
				mm_unref(*ret_mm);
			worst = t->group;
			group_ref(worst);
			*ret_mm = mm;
			mm = NULL;
		}
		if (mm)
			mm_unref(mm);
		task_unref(t);
	}
	return worst;
}

/* SIGKILL to every process of the container that has this memory. */
static void kill_users(struct task_cgroup *cg, const struct mm *mm)
{
	int32_t id = 1;
	struct task *t;

	for (; (t = task_cgroup_next_task(cg, &id)); id++) {
		struct mm *its = task_get_mm(t);

		if (its == mm && is_linked(t))
			task_group_exit(t->group, SIGKILL);
		if (its)
			mm_unref(its);
		task_unref(t);
	}
}

static void report(struct task_cgroup *cg, struct thread_group *g, uint64_t now)
{
	char comm[TASK_COMM_LEN] = "?";
	struct task *t = group_leader(g);

	if (t) {
		task_get_comm(t, comm);
		task_unref(t);
	}
	atomic_fetch_add(&cg->oom_kills, 1);
	atomic_fetch_add(&kernel.oom_kills, 1);
	log_info("oom: pid %d killed: its container uses %llu KiB", g->tgid,
		 (unsigned long long)(now >> 10));
	if (kernel.on_oom)
		kernel.on_oom(g->tgid, comm, now);
}

/* The process of the container that has this number; NULL: none any more. */
static struct thread_group *find_group(struct task_cgroup *cg, int32_t tgid)
{
	struct task *t = task_find(tgid);
	struct thread_group *g = NULL;

	if (t && is_linked(t) && t->group->cgroup == cg && t->group->tgid == tgid) {
		g = t->group;
		group_ref(g);
	}
	if (t)
		task_unref(t);
	return g;
}

static bool victim_is_gone(void *arg)
{
	struct task_cgroup *cg = arg;
	struct thread_group *g = find_group(cg, atomic_load(&cg->oom_victim));
	bool gone = !g || group_is_dead(g);

	if (g)
		group_unref(g);
	return gone;
}

static bool nothing_pending(unused_arg void *arg)
{
	struct mem_stats ms;

	mem_get_stats(&ms);
	return ms.private_free_pending == 0;
}

/* What the dead have left is given back on another thread; until then it is in the host's count. */
static int wait_for_memory(struct task_cgroup *cg)
{
	int64_t deadline = time_monotonic_ns() + OOM_DRAIN_NS;
	int err;

	do
		err = wait_event(&cg->oom_wait, nothing_pending, NULL, SLEEP_KILLABLE,
				 time_monotonic_ns() + OOM_PAUSE_NS);
	while (err == -ETIMEDOUT && time_monotonic_ns() < deadline);
	return err;
}

/* For who was killed last: then its memory is back. Return: false: the caller itself is to die. */
static bool wait_for_victim(struct task_cgroup *cg)
{
	int32_t tgid = atomic_load(&cg->oom_victim);
	struct thread_group *g;
	int err;

	if (!tgid)
		return true;
	err = wait_event(&cg->oom_wait, victim_is_gone, cg, SLEEP_KILLABLE,
			 time_monotonic_ns() + OOM_WAIT_NS);
	if (err == -ETIMEDOUT && (g = find_group(cg, tgid))) {
		log_warn("oom: pid %d does not end", tgid);
		atomic_store(&g->oom_skip, true);
		group_unref(g);
	} else if (!err) {
		err = wait_for_memory(cg);
	}
	if (err == -EINTR)
		return false;
	atomic_store(&cg->oom_victim, 0);
	return true;
}

/* Return: false: there is nobody to kill. */
static bool kill_worst(struct task_cgroup *cg, uint64_t now, uint64_t limit)
{
	struct mm *mm;
	struct thread_group *g = choose(cg, limit, &mm);

	if (!g)
		return false;
	/* Before: its end wakes who waits for it. */
	atomic_store(&cg->oom_victim, g->tgid);
	if (!group_is_dying(g)) {
		atomic_fetch_add(&cg->ooms, 1);
		report(cg, g, now);
		kill_users(cg, mm);
	}
	group_unref(g);
	mm_unref(mm);
	return true;
}

static bool never(unused_arg void *arg)
{
	return false;
}

/* Would the death of one process give the reserve back? Not where nobody has much, and the memory is that of files. */
static bool is_worth_it(struct task_cgroup *cg, uint64_t limit)
{
	struct mm_usage u = {0};
	struct mm *mm;
	struct thread_group *g = choose(cg, limit, &mm);

	if (!g)
		return false;
	mm_get_usage(mm, &u);
	group_unref(g);
	mm_unref(mm);
	return u.rss_anon + u.rss_shmem >= oom_host_reserve(limit);
}

static bool has_room(struct task_cgroup *cg, uint64_t limit, uint64_t *ret_used)
{
	uint64_t reserve = oom_host_reserve(limit);
	uint64_t held = mem_account_bytes(cg->account);

	if (limit == UINT64_MAX) {
		oom_limit_changed(cg);
		return true;
	}
	if (cg->host_bounds) {
		*ret_used = mem_private_resident();
		/* Rather than process after process for nothing, as far as the first: three quarters of it. */
		return oom_host_has_room(cg, limit, reserve) ||
		       (!is_worth_it(cg, limit) && oom_host_has_room(cg, limit, reserve / 4 * 3));
	}
	*ret_used = task_cgroup_memory(cg);
	if (*ret_used > limit)
		return false;
	look_later(cg, held, *ret_used, limit);
	return true;
}

/* Pre: oom_busy is the caller's. If it is killed, the mark stays for who comes next. */
static void relieve(struct task_cgroup *cg)
{
	while (wait_for_victim(cg)) {
		uint64_t limit = limit_of(cg), now;

		if (has_room(cg, limit, &now))
			return;
		atomic_fetch_add(&cg->memory_max_hits, 1);
		if (!kill_worst(cg, now, limit)) {
			(void)!wait_event(&cg->oom_wait, never, NULL, SLEEP_KILLABLE,
					  time_monotonic_ns() + OOM_PAUSE_NS);
			return;
		}
	}
}

static bool not_busy(void *arg)
{
	return !atomic_load(&((struct task_cgroup *)arg)->oom_busy);
}

int oom_in_call(void)
{
	struct task *t = task_current();

	if (!t)
		return 0;
	oom_serve(t);
	return t->exiting || atomic_load(&t->fatal_pending) ? -EINTR : 0;
}

/*
 * Who has waited looks again: the other may have had to die itself, and then its memory is not back yet, nor is anybody else's. To go on meanwhile would be to take
 * what is kept for nobody. All that the other does is bounded in time, so this is.
 */
void oom_serve(struct task *t)
{
	struct task_cgroup *cg = t->group->cgroup;

	while (cg->account && mem_account_is_over(cg->account)) {
		if (!atomic_exchange(&cg->oom_busy, true)) {
			relieve(cg);
			atomic_store(&cg->oom_busy, false);
			wait_queue_wake(&cg->oom_wait, POLLIN);
			return;
		}
		if (wait_event(&cg->oom_wait, not_busy, cg, SLEEP_KILLABLE,
			       time_monotonic_ns() + OOM_WAIT_NS) == -EINTR)
			return;
	}
}
