/*
 * sentry/pidns.c - pid namespaces (Linux's kernel/pid.c and pid_namespace.c).
 *
 * How it is organised: sentry/pidns.h. The sentry's own identity of a task is its root number; this file maps between that and the numbers of
 * other namespaces. A namespace lives as long as a group, a descendant, a task's choice for its children, a mount of proc or an nsfs file refers to
 * it. Its end of life as a place for processes is earlier: when number 1 dies, pid_ns_zap() kills the others and waits until they are gone.
 *
 * Performance: nothing of this is touched by tasks of the root namespace: they have no struct pid, and the inline functions of the header compare one
 * field. A fork in a namespace of level n takes n numbers under taskset_lock.
 * Watch: object counts of "pid namespace" and "pid"; `moat debug` shows root numbers.
 * Cannot do: one user namespace, so CAP_SYS_ADMIN of the caller is what owns every namespace; reboot(2) inside one; a pid_max of each.
 */
#include "sentry/pidns.h"
#include "sentry/ptrace.h"
#include "sentry/task_internal.h"

REF_TYPE(pid_ns_ref_type, "pid namespace");
REF_TYPE(pid_ref_type, "pid");

#define ZAP_STEP_NS 50000000ll

struct pid_number {
	int32_t nr;
	struct pid_namespace *ns; /* compared, never followed, by lock-free readers */
};

struct pid {
	struct ref ref; /* one, the table's: for the object count */
	struct rcu_cb rcu;
	int level; /* immutable */
	bool released; /* its numbers are free again; guarded by pids_lock */
	struct pid_number numbers[]; /* immutable; [0] is the root's */
};

struct pid_namespace pid_ns_root = {.ino = 0xeffffffc}; /* PROC_PID_INIT_INO */

static struct mutex pids_lock = MUTEX_INIT(LOCK_IDR - 1, "pids");
static struct idr
	pids; /* root number -> struct pid; owns them; guarded by pids_lock, RCU for readers */

void pid_ns_init(void)
{
	idr_init(&pids, 1, TASKS_MAX - 1, "pids");
}

/* ---- namespaces ---- */

int pid_ns_create(struct pid_namespace *parent, struct pid_namespace **ret)
{
	static _Atomic uint64_t next_ino = 0xf3000000;
	struct pid_namespace *ns;

	if (parent->level >= PID_NS_LEVEL_MAX)
		return -ENOSPC;
	ns = calloc(1, sizeof(*ns));
	if (!ns)
		return -ENOMEM;
	ref_init(&ns->ref, &pid_ns_ref_type);
	pid_ns_ref(parent);
	ns->parent = parent;
	ns->level = parent->level + 1;
	ns->ino = atomic_fetch_add(&next_ino, 1);
	idr_init(&ns->pids, 1, TASKS_MAX - 1, "numbers");
	*ret = ns;
	return 0;
}

static void pid_free(struct rcu_cb *cb)
{
	free(container_of(cb, struct pid, rcu));
}

/* pids_lock held. */
static void pid_release_locked(struct pid *p, struct pid_namespace *const *at_level)
{
	if (p->released)
		return;
	p->released = true;
	for (int i = 1; i <= p->level; i++)
		if (idr_find(&at_level[i]->pids, p->numbers[i].nr) == p)
			idr_remove(&at_level[i]->pids, p->numbers[i].nr);
}

/* The namespaces that p is seen from: all are alive while p is in the table. pids_lock held. */
static void pid_levels(const struct pid *p, struct pid_namespace **at_level)
{
	struct pid_namespace *ns = p->numbers[p->level].ns;

	for (; ns; ns = ns->parent)
		at_level[ns->level] = ns;
}

static void pid_forget_locked(struct pid *p)
{
	struct pid_namespace *at_level[PID_NS_LEVEL_MAX + 1];

	pid_levels(p, at_level);
	pid_release_locked(p, at_level);
	idr_remove(&pids, p->numbers[0].nr);
	if (!ref_put(&p->ref))
		ref_bug(&p->ref, "pid in use");
	ref_fini(&p->ref, &pid_ref_type);
	rcu_call(&p->rcu, pid_free);
}

void pid_ns_unref(struct pid_namespace *ns)
{
	struct pid_namespace *parent;
	struct pid *p;
	int32_t id;

	for (; ns && ns->level && ref_put(&ns->ref); ns = parent) {
		/* What dead processes left: nothing may find the namespace by them. Deeper namespaces are gone. */
		id = 1;
		mutex_lock(&pids_lock);
		for (; (p = idr_next(&pids, &id)); id++)
			if (p->numbers[p->level].ns == ns)
				pid_forget_locked(p);
		mutex_unlock(&pids_lock);
		parent = ns->parent;
		idr_fini(&ns->pids);
		ref_fini(&ns->ref, &pid_ns_ref_type);
		free(ns);
	}
}

bool pid_ns_within(const struct pid_namespace *ns, const struct pid_namespace *of)
{
	while (ns->level > of->level)
		ns = ns->parent;
	return ns == of;
}

struct pid_namespace *pid_ns_current(void)
{
	const struct task *t = task_current();

	return t ? t->group->pid_ns : &pid_ns_root;
}

struct pid_namespace *pid_ns_for_children(struct task *t)
{
	struct pid_namespace *ns;

	mutex_lock(&t->lock);
	ns = t->pid_ns_children ? t->pid_ns_children : t->group->pid_ns;
	pid_ns_ref(ns);
	mutex_unlock(&t->lock);
	return ns;
}

void pid_ns_set_for_children(struct task *t, struct pid_namespace *ns)
{
	struct pid_namespace *old;

	if (ns == t->group->pid_ns)
		ns = NULL;
	else
		pid_ns_ref(ns);
	mutex_lock(&t->lock);
	old = t->pid_ns_children;
	t->pid_ns_children = ns;
	mutex_unlock(&t->lock);
	pid_ns_unref(old);
}

/* ---- numbers ---- */

int32_t pid_nr_in_slow(const struct pid_namespace *ns, int32_t root)
{
	const struct pid *p;
	int32_t nr = 0;

	if (root <= 0)
		return 0;
	rcu_read_begin();
	p = idr_find(&pids, root);
	if (p && p->level >= ns->level && p->numbers[ns->level].ns == ns)
		nr = p->numbers[ns->level].nr;
	rcu_read_end();
	return nr;
}

int32_t pid_root_of_slow(struct pid_namespace *ns, int32_t nr)
{
	const struct pid *p;
	int32_t root;

	if (nr <= 0)
		return 0;
	rcu_read_begin();
	p = idr_find(&ns->pids, nr);
	root = p ? p->numbers[0].nr : 0;
	rcu_read_end();
	return root;
}

int32_t pid_current_vnr(int32_t root)
{
	return pid_nr_in(pid_ns_current(), root);
}

struct task *task_find_in(struct pid_namespace *ns, int32_t nr)
{
	struct task *t = task_find(pid_root_of(ns, nr));

	/* The root number may have gone to somebody else meanwhile. */
	if (t && ns->level && pid_nr_in(ns, task_tid_early(t)) != nr) {
		task_unref(t);
		return NULL;
	}
	return t;
}

struct task *task_next_in(struct pid_namespace *ns, int32_t *nr)
{
	struct task *t = NULL;
	int32_t id = MAX(*nr, 1);

	if (!ns->level)
		return task_next(nr);
	while (!t) {
		bool more;

		rcu_read_begin();
		more = idr_next(&ns->pids, &id);
		rcu_read_end();
		if (!more)
			return NULL;
		/* A number that only a process group bears has no task. */
		t = task_find_in(ns, id);
		if (!t)
			id++;
	}
	*nr = id;
	return t;
}

struct thread_group *group_next_in(struct pid_namespace *ns, int32_t *nr)
{
	struct thread_group *g;
	struct task *t;

	while ((t = task_next_in(ns, nr))) {
		g = t->group;
		if (group_tgid_early(g) == task_tid_early(t)) {
			group_ref(g);
			task_unref(t);
			return g;
		}
		task_unref(t);
		(*nr)++;
	}
	return NULL;
}

void pid_show_levels(const struct pid_namespace *ns, int32_t root, const char *sep, struct buf *b)
{
	const struct pid *p;

	rcu_read_begin();
	p = root > 0 ? idr_find(&pids, root) : NULL;
	if (!p && !ns->level)
		buf_printf(b, "%s%d", sep, root);
	else if (p && p->level >= ns->level && (!ns->level || p->numbers[ns->level].ns == ns))
		for (int i = ns->level; i <= p->level; i++)
			buf_printf(b, "%s%d", sep, p->numbers[i].nr);
	rcu_read_end();
}

/* ---- giving and taking back; taskset_lock is held for writing ---- */

/* alloc_pid(): one number in one namespace. want: 0 for any. */
static int number_take(struct pid_namespace *ns, int32_t want, struct pid *p)
{
	int err;

	if (ns->dead)
		return -ENOMEM;
	if (want && want != 1 && !ns->init)
		return -EINVAL;
	/* The first process is number 1, whatever became of an earlier attempt. */
	if (!want && !ns->init)
		want = 1;
	if (!want)
		return idr_alloc(&ns->pids, p);
	err = idr_alloc_at(&ns->pids, want, p);
	return err ? err : want;
}

int pid_assign(struct pid_namespace *ns, int32_t root, const int32_t *want, size_t want_count,
	       int32_t *ret_nr)
{
	struct pid_namespace *at;
	struct pid *p = calloc(1, sizeof(*p) + (size_t)(ns->level + 1) * sizeof(p->numbers[0]));
	int err = 0;

	if (!p)
		return -ENOMEM;
	ref_init(&p->ref, &pid_ref_type);
	p->level = ns->level;
	p->numbers[0] = (struct pid_number){root, &pid_ns_root};
	mutex_lock(&pids_lock);
	for (at = ns; at->level && err >= 0; at = at->parent) {
		size_t depth = (size_t)(ns->level - at->level);

		p->numbers[at->level].ns = at;
		err = number_take(at, depth < want_count ? want[depth] : 0, p);
		p->numbers[at->level].nr = err > 0 ? err : 0;
	}
	if (err >= 0)
		err = idr_alloc_at(&pids, root, p);
	if (err < 0) {
		for (at = ns; at->level; at = at->parent)
			if (p->numbers[at->level].nr)
				idr_remove(&at->pids, p->numbers[at->level].nr);
	}
	mutex_unlock(&pids_lock);
	if (err < 0) {
		if (ref_put(&p->ref))
			ref_fini(&p->ref, &pid_ref_type);
		rcu_call(&p->rcu, pid_free);
		return err;
	}
	for (at = ns; at->level; at = at->parent)
		at->tasks++;
	*ret_nr = p->numbers[p->level].nr;
	return 0;
}

void pid_forget(int32_t root)
{
	struct pid *p;

	if (likely(!atomic_load_explicit(&pids.count, memory_order_relaxed)))
		return;
	mutex_lock(&pids_lock);
	p = idr_find(&pids, root);
	if (p)
		pid_forget_locked(p);
	mutex_unlock(&pids_lock);
}

void pid_release(int32_t root)
{
	struct pid_namespace *at_level[PID_NS_LEVEL_MAX + 1];
	struct pid *p;

	if (likely(!atomic_load_explicit(&pids.count, memory_order_relaxed)))
		return;
	mutex_lock(&pids_lock);
	p = idr_find(&pids, root);
	if (p) {
		pid_levels(p, at_level);
		pid_release_locked(p, at_level);
	}
	mutex_unlock(&pids_lock);
}

void pid_ns_task_gone(struct pid_namespace *ns)
{
	for (; ns->level; ns = ns->parent) {
		ns->tasks--;
		if (ns->dead && ns->init)
			wait_queue_wake(&ns->init->wait, POLLIN);
	}
}

/* ---- the end of an init ---- */

void (*pid_ns_on_killed)(void);

static void kill_group(struct thread_group *g)
{
	struct sighand *sh = sighand_lock(g);

	g->unkillable = false;
	group_kill_locked(g, SIGKILL);
	sighand_unlock(sh);
}

static void kill_others(struct pid_namespace *ns, const struct thread_group *init)
{
	struct thread_group *g;
	int32_t nr = 1;

	for (; (g = group_next_in(ns, &nr)); nr++) {
		if (g != init)
			kill_group(g);
		group_unref(g);
	}
}

/* Takes init's zombies that do not reap themselves. True: nobody is left but init's own threads. */
static bool others_gone(void *arg)
{
	struct task_list dead = TAILQ_HEAD_INITIALIZER(dead);
	struct thread_group *init = arg, *c, *next;
	bool gone;

	rwlock_write_lock(&kernel.taskset_lock);
	for (c = TAILQ_FIRST(&init->children); c; c = next) {
		next = TAILQ_NEXT(c, sibling);
		if (!c->zombie ||
		    (c->leader && c->leader->ptrace && !ptrace_is_tracer_of(init, c->leader)))
			continue;
		group_times_reaped(init, c);
		group_reap(c, &dead);
	}
	gone = init->pid_ns->tasks <= init->ntasks;
	rwlock_write_unlock(&kernel.taskset_lock);
	session_run_deferred();
	task_list_free(&dead);
	return gone || atomic_load(&kernel.shutting_down);
}

void pid_ns_zap(struct thread_group *g)
{
	int64_t last_look = time_monotonic_ns() + PTRACE_LAST_LOOK_NS;
	bool container = atomic_load(&g->cgroup->init) == g;
	struct pid_namespace *ns = g->pid_ns;
	struct sighand *sh;

	/* Whoever is in clone() now is linked before this, or fails. */
	rwlock_write_lock(&kernel.taskset_lock);
	ns->dead = true;
	rwlock_write_unlock(&kernel.taskset_lock);
	/* Children that die from here on reap themselves. */
	sh = sighand_lock(g);
	sh->actions[SIGCHLD - 1].handler = SIG_IGN_;
	sighand_unlock(sh);
	do {
		kill_others(ns, g);
		if (pid_ns_on_killed)
			pid_ns_on_killed();
		if (container && time_monotonic_ns() >= last_look)
			ptrace_let_go(g->cgroup);
	} while (wait_event(&g->wait, others_gone, g, SLEEP_UNINTERRUPTIBLE,
			    time_monotonic_ns() + ZAP_STEP_NS) == -ETIMEDOUT);
}
