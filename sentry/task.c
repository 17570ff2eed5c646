/*
 * sentry/task.c - making and freeing tasks and groups, and the snapshots that others take of them.
 */
#include "sentry/cgroup_tree.h"
#include "sentry/ptrace.h"
#include "sentry/seccomp.h"
#include "sentry/ipc/ipc.h"
#include "sentry/task_internal.h"
#include "sentry/timers.h"

REF_TYPE(task_ref_type, "task");
REF_TYPE(group_ref_type, "thread group");
REF_TYPE(uts_ref_type, "uts namespace");
REF_TYPE(rlimits_ref_type, "rlimits");

/* ---- limits and UTS ---- */

void rlimits_defaults(struct rlimits *r)
{
	for (int i = 0; i < RLIM_COUNT; i++)
		r->lim[i].cur = r->lim[i].max = RLIM_INFINITY;
	r->lim[RLIMIT_STACK].cur = 8ul << 20;
	r->lim[RLIMIT_CORE].cur = 0;
	r->lim[RLIMIT_NOFILE].cur = 1024;
	r->lim[RLIMIT_NOFILE].max = 1 << 20;
	r->lim[RLIMIT_MEMLOCK].cur = r->lim[RLIMIT_MEMLOCK].max = 8ul << 20;
	r->lim[RLIMIT_SIGPENDING].cur = r->lim[RLIMIT_SIGPENDING].max = SIGQUEUE_DEFAULT_MAX;
	r->lim[RLIMIT_MSGQUEUE].cur = r->lim[RLIMIT_MSGQUEUE].max = 819200;
	r->lim[RLIMIT_NICE].cur = r->lim[RLIMIT_NICE].max = 0;
	r->lim[RLIMIT_RTPRIO].cur = r->lim[RLIMIT_RTPRIO].max = 0;
}

struct rlimits *rlimits_alloc(const struct rlimits *from)
{
	struct rlimits *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	ref_init(&r->ref, &rlimits_ref_type);
	mutex_init(&r->lock, LOCK_LEAF, "rlimits");
	if (!from) {
		rlimits_defaults(r);
		return r;
	}
	for (int i = 0; i < RLIM_COUNT; i++)
		r->lim[i] = from->lim[i];
	return r;
}

void rlimits_unref(struct rlimits *r)
{
	if (!r || !ref_put(&r->ref))
		return;
	ref_fini(&r->ref, &rlimits_ref_type);
	free(r);
}

struct uts_namespace *uts_create(const struct uts_namespace *from)
{
	/* /proc/PID/ns/uts: the first one's is Linux's; mount namespaces count from 0xf0000000. */
	static _Atomic uint64_t next_id = 0xf1000000;
	struct uts_namespace *u = calloc(1, sizeof(*u));

	if (!u)
		return NULL;
	ref_init(&u->ref, &uts_ref_type);
	mutex_init(&u->lock, LOCK_LEAF, "uts");
	if (from) {
		struct mutex *lock = (struct mutex *)&from->lock;

		mutex_lock(lock);
		memcpy(u->nodename, from->nodename, sizeof(u->nodename));
		memcpy(u->domainname, from->domainname, sizeof(u->domainname));
		mutex_unlock(lock);
	} else {
		strcpy(u->nodename, "moat");
		strcpy(u->domainname, "(none)");
	}
	u->id = from ? atomic_fetch_add(&next_id, 1) : 0xeffffffe;
	return u;
}

void uts_unref(struct uts_namespace *u)
{
	if (!u || !ref_put(&u->ref))
		return;
	ref_fini(&u->ref, &uts_ref_type);
	free(u);
}

/* ---- groups ---- */

struct thread_group *group_alloc(struct pid_namespace *ns)
{
	struct thread_group *g = calloc(1, sizeof(*g));

	if (!g)
		return NULL;
	ref_init(&g->ref, &group_ref_type);
	pid_ns_ref(ns);
	g->pid_ns = ns;
	TAILQ_INIT(&g->threads);
	TAILQ_INIT(&g->children);
	sigpending_init(&g->pending);
	wait_queue_init(&g->wait);
	wait_queue_init(&g->pidfd_wait);
	atomic_init(&g->dumpable, 1);
	return g;
}

static void group_free(struct rcu_cb *cb)
{
	free(container_of(cb, struct thread_group, rcu));
}

void group_unref(struct thread_group *g)
{
	if (!ref_put(&g->ref))
		return;
	assert(!g->pgrp);
	sigpending_flush(&g->pending, ~0ull);
	if (g->timers)
		posix_timers_destroy(g->timers);
	if (g->sighand)
		sighand_unref(g->sighand);
	rlimits_unref(g->rlimits);
	cgroup_forget(g);
	task_cgroup_unref(g->cgroup);
	wait_queue_fini(&g->wait);
	wait_queue_fini(&g->pidfd_wait);
	pid_ns_unref(g->pid_ns);
	ref_fini(&g->ref, &group_ref_type);
	rcu_call(&g->rcu, group_free);
}

/* ---- tasks ---- */

struct task *task_alloc(struct thread_group *group)
{
	struct task *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	ref_init(&t->ref, &task_ref_type);
	group_ref(group);
	t->group = group;
	sleeper_init(&t->sleeper);
	mutex_init(&t->lock, LOCK_TASK, "task");
	sigpending_init(&t->pending);
	t->syscall_nr = -1;
	t->regs.r.orig_rax = (unsigned long long)-1;
	t->cpu_mask = affinity_all();
	t->timer_slack_ns = t->timer_slack_default_ns = 50000;
	t->tsc_mode = 1; /* PR_TSC_ENABLE */
	atomic_store(&t->loginuid, UINT32_MAX);
	atomic_store(&t->login_session, UINT32_MAX);
	t->start_mono_ns = time_monotonic_ns();
	return t;
}

static void task_free(struct rcu_cb *cb)
{
	free(container_of(cb, struct task, rcu));
}

void task_unref(struct task *t)
{
	if (!ref_put(&t->ref))
		return;
	assert(!t->linked && !t->mm && !t->ctx);
	if (t->cred)
		cred_unref(t->cred);
	ucount_put(t->user);
	if (t->seccomp)
		seccomp_filter_unref(t->seccomp);
	group_unref(t->group);
	free(t->exec_refused);
	ref_fini(&t->ref, &task_ref_type);
	rcu_call(&t->rcu, task_free);
}

void task_drop_resources(struct task *t)
{
	struct mm *mm;
	struct fd_table *fdt;
	struct fs_context *fsctx;
	struct mount_namespace *mnt;
	struct uts_namespace *uts;
	struct ipc_namespace *ipc;
	struct pid_namespace *children;

	/* Semaphores are put right while the namespace is still there. */
	sem_undo_unref(t->sem_undo);
	t->sem_undo = NULL;
	mutex_lock(&t->lock);
	mm = t->mm, t->mm = NULL;
	fdt = t->fdtable, t->fdtable = NULL;
	fsctx = t->fsctx, t->fsctx = NULL;
	mnt = t->mnt_ns, t->mnt_ns = NULL;
	uts = t->uts_ns, t->uts_ns = NULL;
	ipc = t->ipc_ns, t->ipc_ns = NULL;
	children = t->pid_ns_children, t->pid_ns_children = NULL;
	mutex_unlock(&t->lock);
	/* Files first: their release may need nothing of the others, but the mm's files may be the last users of mounts. */
	if (fdt)
		fd_table_unref(fdt);
	if (mm)
		mm_user_unref(mm);
	if (fsctx)
		fs_context_unref(fsctx);
	if (mnt)
		mount_namespace_unref(mnt);
	uts_unref(uts);
	ipc_namespace_unref(ipc);
	pid_ns_unref(children);
	if (t->ctx) {
		struct platform_context *ctx = t->ctx;
		struct sighand *sh = sighand_lock(t->group);

		/* Senders read ctx under the sighand lock. */
		t->ctx = NULL;
		sighand_unlock(sh);
		kernel.platform->ops->context_destroy(ctx);
	}
}

/* ---- snapshots ---- */

struct mm *task_get_mm(struct task *t)
{
	struct mm *mm;

	mutex_lock(&t->lock);
	mm = t->mm;
	if (mm)
		mm_ref(mm);
	mutex_unlock(&t->lock);
	return mm;
}

struct fd_table *task_get_fdtable(struct task *t)
{
	struct fd_table *f;

	mutex_lock(&t->lock);
	f = t->fdtable;
	if (f)
		fd_table_ref(f);
	mutex_unlock(&t->lock);
	return f;
}

struct fs_context *task_get_fsctx(struct task *t)
{
	struct fs_context *c;

	mutex_lock(&t->lock);
	c = t->fsctx;
	if (c)
		fs_context_ref(c);
	mutex_unlock(&t->lock);
	return c;
}

struct cred *task_get_cred(struct task *t)
{
	struct cred *c;

	mutex_lock(&t->lock);
	c = cred_ref(t->cred);
	mutex_unlock(&t->lock);
	return c;
}

struct mount_namespace *task_get_mnt_ns(struct task *t)
{
	struct mount_namespace *ns;

	mutex_lock(&t->lock);
	ns = t->mnt_ns;
	if (ns)
		mount_namespace_ref(ns);
	mutex_unlock(&t->lock);
	return ns;
}

void task_get_comm(struct task *t, char *buf)
{
	mutex_lock(&t->lock);
	memcpy(buf, t->comm, TASK_COMM_LEN);
	mutex_unlock(&t->lock);
	buf[TASK_COMM_LEN - 1] = '\0';
}

void task_set_comm(struct task *t, const char *name)
{
	char comm[TASK_COMM_LEN] = {0};

	strncpy(comm, name, TASK_COMM_LEN - 1);
	mutex_lock(&t->lock);
	memcpy(t->comm, comm, TASK_COMM_LEN);
	mutex_unlock(&t->lock);
}

void task_set_cred(struct task *t, struct cred *c)
{
	struct ucount *user = NULL, *old_user = NULL;
	struct sighand *sh;
	struct cred *old;

	if (!t->cred || c->uid != t->cred->uid || !t->user)
		user = ucount_get(c->uid);
	mutex_lock(&t->lock);
	old = t->cred;
	t->cred = c;
	mutex_unlock(&t->lock);
	if (user) {
		sh = sighand_lock(t->group);
		old_user = t->user;
		t->user = user;
		if (t->linked) {
			ucount_charge(user, UCOUNT_PROCESSES, 1);
			if (old_user)
				ucount_uncharge(old_user, UCOUNT_PROCESSES, 1);
		}
		sighand_unlock(sh);
	}
	if (t == task_current())
		cred_set_current(c);
	ucount_put(old_user);
	if (old)
		cred_unref(old);
}

uint64_t task_rlimit(struct task *t, int resource)
{
	struct rlimits *r = t->group->rlimits;
	uint64_t cur;

	assert(resource >= 0 && resource < RLIM_COUNT);
	mutex_lock(&r->lock);
	cur = r->lim[resource].cur;
	mutex_unlock(&r->lock);
	return cur;
}

void task_mm_limits(struct task *t, struct mm_limits *ret)
{
	struct rlimits *r = t->group->rlimits;

	mutex_lock(&r->lock);
	ret->as_bytes = r->lim[RLIMIT_AS].cur;
	ret->data_bytes = r->lim[RLIMIT_DATA].cur;
	ret->stack_bytes = r->lim[RLIMIT_STACK].cur;
	ret->memlock_bytes = r->lim[RLIMIT_MEMLOCK].cur;
	mutex_unlock(&r->lock);
	if (t->cred && cred_has_cap(t->cred, 14 /* CAP_IPC_LOCK */))
		ret->memlock_bytes = RLIM_INFINITY;
}

char task_state_char(struct task *t)
{
	switch (atomic_load_explicit(&t->state, memory_order_relaxed)) {
	case TASK_RUNNING:
		/* A blocked task is asleep in the host's futex(2); its own state word is not touched for that. */
		return atomic_load_explicit(&t->sleeper.waits, memory_order_relaxed) ? 'S' : 'R';
	case TASK_SLEEPING:
		return 'S';
	case TASK_DISK_SLEEP:
		return 'D';
	case TASK_STOPPED:
		return 'T';
	case TASK_TRACED:
		return 't';
	case TASK_ZOMBIE:
		return 'Z';
	default:
		return 'X';
	}
}

int32_t group_ppid(struct thread_group *g)
{
	int32_t ppid;

	rwlock_read_lock(&kernel.taskset_lock);
	ppid = g->parent ? g->parent->tgid : 0;
	rwlock_read_unlock(&kernel.taskset_lock);
	return ppid;
}

int32_t group_pgid(struct thread_group *g)
{
	int32_t id;

	rwlock_read_lock(&kernel.taskset_lock);
	id = g->pgrp ? g->pgrp->id : 0;
	rwlock_read_unlock(&kernel.taskset_lock);
	return id;
}

int32_t group_sid(struct thread_group *g)
{
	int32_t id;

	rwlock_read_lock(&kernel.taskset_lock);
	id = g->pgrp ? g->pgrp->session->id : 0;
	rwlock_read_unlock(&kernel.taskset_lock);
	return id;
}
