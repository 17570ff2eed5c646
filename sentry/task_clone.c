/*
 * sentry/task_clone.c - new tasks: clone, and the first task of a process from outside.
 */
#include <linux/sched.h>

#include "sentry/cgroup_tree.h"
#include "sentry/pidfd.h"
#include "sentry/ptrace.h"
#include "sentry/seccomp.h"
#include "sentry/ipc/ipc.h"
#include "sentry/task_internal.h"
#include "sentry/timers.h"
#include "sentry/tty/tty.h"

#define PTRACE_EVENT_FORK_ 1
#define PTRACE_EVENT_VFORK_ 2
#define PTRACE_EVENT_CLONE_ 3
#define PTRACE_EVENT_VFORK_DONE_ 5

REF_TYPE(vfork_ref_type, "vfork");

/* A vfork parent waits until its child lets the mm go; the child holds one reference, the parent the other. */
struct vfork_done {
	struct ref ref;
	struct wait_queue wait;
	_Atomic bool done;
};

static void vfork_unref(struct vfork_done *v)
{
	if (!ref_put(&v->ref))
		return;
	wait_queue_fini(&v->wait);
	ref_fini(&v->ref, &vfork_ref_type);
	free(v);
}

static struct vfork_done *vfork_create(void)
{
	struct vfork_done *v = calloc(1, sizeof(*v));

	if (!v)
		return NULL;
	ref_init(&v->ref, &vfork_ref_type);
	wait_queue_init(&v->wait);
	return v;
}

void task_vfork_done(struct task *t)
{
	struct vfork_done *v = t->vfork;

	if (!v)
		return;
	t->vfork = NULL;
	atomic_store(&v->done, true);
	wait_queue_wake(&v->wait, POLLIN);
	vfork_unref(v);
}

static bool vfork_is_done(void *arg)
{
	return atomic_load(&((struct vfork_done *)arg)->done);
}

/* ---- checks ---- */

static int clone_check(struct task *t, const struct clone_args_k *a)
{
	uint64_t f = a->flags;
	int err;

	if ((f & (CLONE_NEWNS | CLONE_FS)) == (CLONE_NEWNS | CLONE_FS))
		return -EINVAL;
	if ((f & (CLONE_NEWUSER | CLONE_FS)) == (CLONE_NEWUSER | CLONE_FS))
		return -EINVAL;
	if ((f & CLONE_THREAD) && !(f & CLONE_SIGHAND))
		return -EINVAL;
	if ((f & CLONE_SIGHAND) && !(f & CLONE_VM))
		return -EINVAL;
	if ((f & CLONE_PARENT) && t->group->unkillable)
		return -EINVAL;
	/* Threads of a process are in one pid namespace. */
	if ((f & CLONE_THREAD) && ((f & (CLONE_NEWUSER | CLONE_NEWPID)) || t->pid_ns_children))
		return -EINVAL;
	if ((f & CLONE_PIDFD) && (f & CLONE_DETACHED))
		return -EINVAL;
	err = task_may_make_ns(t, f);
	if (err)
		return err;
	/* A namespace of the caller's own children cannot have one beside it. */
	if ((f & CLONE_NEWPID) && t->pid_ns_children)
		return -EINVAL;
	return 0;
}

static int clone_check_nproc(struct task *t)
{
	int64_t n = t->user ? ucount_read(t->user, UCOUNT_PROCESSES) : 0;

	if ((uint64_t)n < task_rlimit(t, RLIMIT_NPROC) || t->cred->uid == 0 ||
	    cred_has_cap(t->cred, 24 /* CAP_SYS_RESOURCE */) || cred_has_cap(t->cred, 21))
		return 0;
	return -EAGAIN;
}

/* ---- copying or sharing ---- */

static int clone_sighand(struct task *t, struct thread_group *g, uint64_t flags)
{
	struct sighand *old, *sh;

	if (flags & CLONE_SIGHAND) {
		sh = t->group->sighand;
		ref_get(&sh->ref);
	} else {
		sh = sighand_create();
		if (!sh)
			return -ENOMEM;
		old = sighand_lock(t->group);
		memcpy(sh->actions, old->actions, sizeof(sh->actions));
		sighand_unlock(old);
		if (flags & CLONE_CLEAR_SIGHAND)
			signal_flush_handlers(sh);
	}
	g->sighand = sh;
	return 0;
}

/* The namespace of a new process: a reference. */
static int clone_pid_ns(struct task *t, uint64_t flags, struct pid_namespace **ret)
{
	if (flags & CLONE_NEWPID)
		return pid_ns_create(t->group->pid_ns, ret);
	*ret = t->pid_ns_children ? t->pid_ns_children : t->group->pid_ns;
	pid_ns_ref(*ret);
	return 0;
}

static int clone_group(struct task *t, const struct clone_args_k *args, struct thread_group **ret)
{
	const uint64_t flags = args->flags;
	struct pid_namespace *ns;
	struct thread_group *g;
	int err;

	if (flags & CLONE_THREAD) {
		group_ref(t->group);
		*ret = t->group;
		return 0;
	}
	err = clone_pid_ns(t, flags, &ns);
	if (err)
		return err;
	g = group_alloc(ns);
	pid_ns_unref(ns);
	if (!g)
		return -ENOMEM;
	err = clone_sighand(t, g, flags);
	if (err)
		goto out_unref;
	err = -ENOMEM;
	mutex_lock(&t->group->rlimits->lock);
	struct rlimits copy = {.ref = {0}};
	memcpy(copy.lim, t->group->rlimits->lim, sizeof(copy.lim));
	mutex_unlock(&t->group->rlimits->lock);
	g->rlimits = rlimits_alloc(&copy);
	if (!g->rlimits)
		goto out_unref;
	task_cgroup_ref(t->group->cgroup);
	g->cgroup = t->group->cgroup;
	err = cgroup_fork(t->group, g, args->group);
	if (err)
		goto out_unref;
	g->start_ns = time_monotonic_ns();
	atomic_store(&g->oom_score_adj, atomic_load(&t->group->oom_score_adj));
	atomic_store(&g->dumpable, atomic_load(&t->group->dumpable));
	atomic_store(&g->thp_disabled, atomic_load(&t->group->thp_disabled));
	*ret = g;
	return 0;
out_unref:
	group_unref(g);
	return err;
}

static int clone_mm(struct task *t, struct task *child, uint64_t flags)
{
	if (!(flags & CLONE_VM))
		return mm_fork(t->mm, &child->mm);
	mm_user_ref(t->mm);
	child->mm = t->mm;
	child->mm_shared = true;
	if (!(flags & CLONE_VFORK))
		t->mm_shared = true;
	return 0;
}

static int clone_fs(struct task *t, struct task *child, uint64_t flags)
{
	struct vfs_path root, cwd, *paths[2] = {&root, &cwd};
	int err;

	if (flags & CLONE_FS) {
		fs_context_ref(t->fsctx);
		child->fsctx = t->fsctx;
	} else {
		err = fs_context_fork(t->fsctx, &child->fsctx);
		if (err)
			return err;
	}
	if (!(flags & CLONE_NEWNS)) {
		mount_namespace_ref(t->mnt_ns);
		child->mnt_ns = t->mnt_ns;
		return 0;
	}
	fs_context_get_root(child->fsctx, &root);
	fs_context_get_cwd(child->fsctx, &cwd);
	err = mount_namespace_copy(t->mnt_ns, &child->mnt_ns, paths, 2);
	if (!err) {
		fs_context_set_root(child->fsctx, &root);
		fs_context_set_cwd(child->fsctx, &cwd);
	}
	vfs_path_unref(&root);
	vfs_path_unref(&cwd);
	return err;
}

static int clone_ipc(struct task *t, struct task *child, uint64_t flags)
{
	if (flags & CLONE_SYSVSEM) {
		child->sem_undo = sem_undo_list_get(t);
		if (!child->sem_undo)
			return -ENOMEM;
		sem_undo_ref(child->sem_undo);
	}
	if (flags & CLONE_NEWIPC)
		return ipc_namespace_create(&child->ipc_ns);
	ipc_namespace_ref(t->ipc_ns);
	child->ipc_ns = t->ipc_ns;
	return 0;
}

static int clone_resources(struct task *t, struct task *child, uint64_t flags)
{
	int err;

	if (flags & CLONE_FILES) {
		fd_table_ref(t->fdtable);
		child->fdtable = t->fdtable;
	} else {
		err = fd_table_fork(t->fdtable, &child->fdtable, FD_TABLE_MAX);
		if (err)
			return err;
	}
	err = clone_fs(t, child, flags);
	if (err)
		return err;
	if (flags & CLONE_NEWUTS) {
		child->uts_ns = uts_create(t->uts_ns);
		if (!child->uts_ns)
			return -ENOMEM;
	} else {
		uts_ref(t->uts_ns);
		child->uts_ns = t->uts_ns;
	}
	err = clone_ipc(t, child, flags);
	if (err)
		return err;
	err = clone_mm(t, child, flags);
	if (err)
		return err;
	err = kernel.platform->ops->context_create(kernel.platform, t->ctx, &child->ctx);
	if (err)
		return err;
	return platform_context_prepare(kernel.platform, child->ctx, mm_address_space(child->mm));
}

static void clone_fields(struct task *t, struct task *child, const struct clone_args_k *a)
{
	uint64_t flags = a->flags;

	child->regs = t->regs;
	child->regs.r.rax = 0;
	child->regs.r.orig_rax = (unsigned long long)-1;
	if (a->stack)
		child->regs.r.rsp = a->stack + a->stack_size;
	if (flags & CLONE_SETTLS)
		child->regs.r.fs_base = a->tls;
	child->set_child_tid = flags & CLONE_CHILD_SETTID ? a->child_tid : 0;
	child->clear_child_tid = flags & CLONE_CHILD_CLEARTID ? a->child_tid : 0;
	child->personality = t->personality;
	child->blocked = t->restore_saved_blocked ? t->saved_blocked : t->blocked;
	if ((flags & (CLONE_VM | CLONE_VFORK)) != CLONE_VM)
		child->altstack = t->altstack;
	child->cpu_mask = t->cpu_mask;
	child->nice = t->nice;
	atomic_init(&child->ioprio, atomic_load(&t->ioprio));
	child->sched_policy = t->sched_policy;
	child->sched_priority = t->sched_priority;
	child->sched_reset_on_fork = t->sched_reset_on_fork;
	if (t->sched_reset_on_fork) {
		if (child->sched_policy == 1 || child->sched_policy == 2)
			child->sched_policy = child->sched_priority = 0;
		if (child->nice < 0)
			child->nice = 0;
		child->sched_reset_on_fork = false;
	}
	child->timer_slack_ns = child->timer_slack_default_ns = t->timer_slack_ns;
	child->tsc_mode = t->tsc_mode;
	atomic_store(&child->loginuid, atomic_load(&t->loginuid));
	atomic_store(&child->login_session, atomic_load(&t->login_session));
	atomic_store(&child->strace, atomic_load(&t->strace));
	task_get_comm(t, child->comm);
	child->cred = cred_ref(t->cred);
	child->user = t->user ? ucount_ref(t->user) : NULL;
}

/* ---- joining the others ---- */

static int clone_event(const struct clone_args_k *a)
{
	if (a->flags & CLONE_VFORK)
		return PTRACE_EVENT_VFORK_;
	return a->exit_signal != SIGCHLD ? PTRACE_EVENT_CLONE_ : PTRACE_EVENT_FORK_;
}

static void clone_set_parent(struct task *t, struct thread_group *g, const struct clone_args_k *a)
{
	if (a->flags & CLONE_PARENT) {
		g->parent = t->group->parent;
		g->parent_tid = t->group->parent_tid;
		g->exit_signal = t->group->exit_signal;
	} else {
		g->parent = t->group;
		g->parent_tid = t->tid;
		g->exit_signal = a->exit_signal;
	}
	if (g->parent)
		TAILQ_INSERT_TAIL(&g->parent->children, g, sibling);
	group_set_pgrp(g, t->group->pgrp);
}

/* Number 1 of a namespace is its init. taskset_lock (write) and the sighand lock held. */
static void group_become_init(struct thread_group *g)
{
	if (g->pid_ns->level && g->vtgid == 1) {
		g->pid_ns->init = g;
		g->unkillable = true;
	}
}

static int clone_link(struct task *t, struct task *child, const struct clone_args_k *a)
{
	struct sighand *sh;
	int err;

	rwlock_write_lock(&kernel.taskset_lock);
	err = task_assign_tid(child, a->set_tid, a->set_tid_size);
	if (err)
		goto out_unlock;
	/* A new process shares no handlers with us: its filters cannot be changed by our siblings, only copied from us by us. */
	sh = sighand_lock(child->group);
	/* Who is killed makes no more processes: after one that was found there is nobody new (cgroup_group_kill()). */
	if (atomic_load(&kernel.shutting_down) ||
	    ((a->flags & CLONE_THREAD) ? t->group->exiting || t->group->exec_task
				       : atomic_load(&t->fatal_pending)))
		err = -EINTR;
	else
		task_link_thread(child);
	/* Under the lock that TSYNC takes: it misses no new thread. */
	if (!err)
		seccomp_fork(t, child);
	if (!err && !(a->flags & CLONE_THREAD))
		group_become_init(child->group);
	if (!err && !(a->flags & CLONE_UNTRACED) && t->ptrace)
		ptrace_attach_child(t, child, clone_event(a));
	sighand_unlock(sh);
	if (err)
		task_unlink(child);
	else if (!(a->flags & CLONE_THREAD))
		clone_set_parent(t, child->group, a);
out_unlock:
	rwlock_write_unlock(&kernel.taskset_lock);
	return err;
}

/* The child never ran: undo clone_link(). */
static void clone_unlink(struct task *child)
{
	struct task_list dead = TAILQ_HEAD_INITIALIZER(dead);

	rwlock_write_lock(&kernel.taskset_lock);
	atomic_fetch_sub(&child->group->live, 1);
	if (child->group->leader == child) {
		group_reap(child->group, &dead);
	} else {
		task_unlink(child);
		TAILQ_INSERT_TAIL(&dead, child, thread_link);
	}
	rwlock_write_unlock(&kernel.taskset_lock);
	session_run_deferred();
	task_drop_resources(child);
	task_list_free(&dead);
}

/* CLONE_PIDFD: the descriptor is installed before anybody can see the child run. */
static int clone_pidfd(struct task *t, struct task *child, const struct clone_args_k *a)
{
	struct file *f;
	int32_t fd;
	int err;

	err = pidfd_create_file(child, a->flags & CLONE_THREAD ? O_EXCL : 0, &f);
	if (err)
		return err;
	fd = fd_install(t->fdtable, f, 0,
			(unsigned)MIN(task_rlimit(t, RLIMIT_NOFILE), (uint64_t)FD_TABLE_MAX), true);
	file_unref(f);
	if (fd < 0)
		return fd;
	if (task_copy_out(t, a->pidfd, &fd, sizeof(fd))) {
		err = fd_close(t->fdtable, fd);
		return err ? err : -EFAULT;
	}
	return 0;
}

static int clone_prepare(struct task *t, const struct clone_args_k *a, struct task **ret)
{
	struct thread_group *g;
	struct task *child;
	int err;

	err = clone_group(t, a, &g);
	if (err)
		return err;
	child = task_alloc(g);
	group_unref(g);
	if (!child)
		return -ENOMEM;
	clone_fields(t, child, a);
	err = clone_resources(t, child, a->flags);
	if (!err)
		err = task_worker_reserve(child);
	if (err) {
		task_drop_resources(child);
		task_unref(child);
		return err;
	}
	*ret = child;
	return 0;
}

/* The child is whole, and runs; it may be gone when this returns. Takes vfork (may be NULL). Returns the child's id. */
static int32_t clone_run(struct task *t, struct task *child, const struct clone_args_k *a,
			 struct vfork_done *vfork)
{
	int32_t tid = child->tid, vtid = pid_vnr(t, tid);
	uint64_t message = 0;
	int event;
	bool traced;

	if (vfork) {
		ref_get(&vfork->ref);
		child->vfork = vfork;
	}
	if (!(a->flags & CLONE_THREAD) && task_rlimit(child, RLIMIT_CPU) != RLIM_INFINITY)
		rlimit_cpu_update(child->group);
	if (a->flags & CLONE_PARENT_SETTID)
		(void)!task_copy_out(t, a->parent_tid, &vtid, sizeof(vtid));
	atomic_fetch_add_explicit(&kernel.forks, 1, memory_order_relaxed);
	event = clone_event(a);
	traced = !(a->flags & CLONE_UNTRACED) && t->ptrace;
	if (unlikely(traced))
		message = ptrace_pid_message(t, tid);
	task_worker_start(child);
	if (unlikely(traced))
		ptrace_event(t, event, message);
	if (vfork) {
		if (!wait_event(&vfork->wait, vfork_is_done, vfork, SLEEP_KILLABLE, TIME_FOREVER) &&
		    traced)
			ptrace_event(t, PTRACE_EVENT_VFORK_DONE_, message);
		vfork_unref(vfork);
	}
	return vtid;
}

int64_t task_clone(struct task *t, const struct clone_args_k *a)
{
	struct vfork_done *vfork = NULL;
	struct task *child;
	int err;

	err = clone_check(t, a);
	if (err)
		return err;
	/* A signal that arrived first is taken first: the child must not inherit a half-done delivery. */
	if (!(a->flags & CLONE_THREAD) && signal_pending(t))
		return -ERESTARTNOINTR_;
	err = clone_check_nproc(t);
	if (err)
		return err;
	err = clone_prepare(t, a, &child);
	if (err)
		return err;
	if (a->flags & CLONE_VFORK) {
		err = -ENOMEM;
		vfork = vfork_create();
		if (!vfork)
			goto out_drop;
	}
	err = clone_link(t, child, a);
	if (err)
		goto out_drop;
	if (a->flags & CLONE_PIDFD) {
		err = clone_pidfd(t, child, a);
		if (err)
			goto out_unlink;
	}
	return clone_run(t, child, a, vfork);
out_unlink:
	task_worker_release(child);
	if (vfork)
		vfork_unref(vfork);
	clone_unlink(child);
	return err;
out_drop:
	if (vfork)
		vfork_unref(vfork);
	task_worker_release(child);
	task_drop_resources(child);
	task_unref(child);
	return err;
}

/* ---- a process from outside: init, moat exec ---- */

static int process_group_setup(const struct task_exec_args *args, struct thread_group *g)
{
	struct rlimits *r;

	g->cgroup = args->cgroup ? args->cgroup : kernel.cgroup;
	task_cgroup_ref(g->cgroup);
	g->sighand = sighand_create();
	r = rlimits_alloc(args->rlimits);
	g->rlimits = r;
	g->start_ns = time_monotonic_ns();
	g->exit_signal = SIGCHLD;
	return g->sighand && r ? 0 : -ENOMEM;
}

static int process_task_setup(const struct task_exec_args *args, struct task *t)
{
	int err;

	t->fdtable = args->fdtable;
	t->cred = cred_ref(args->cred);
	t->user = ucount_get(args->cred->uid);
	if (!t->user)
		return -ENOMEM;
	mount_namespace_ref(args->mnt_ns);
	t->mnt_ns = args->mnt_ns;
	uts_ref(args->uts_ns);
	t->uts_ns = args->uts_ns;
	t->ipc_ns = args->ipc_ns ? args->ipc_ns : kernel.ipc_ns;
	ipc_namespace_ref(t->ipc_ns);
	atomic_store(&t->strace, kernel.strace_default);
	err = fs_context_create(&args->root, &args->cwd, args->umask, &t->fsctx);
	if (err)
		return err;
	err = kernel.platform->ops->context_create(kernel.platform, NULL, &t->ctx);
	if (err)
		return err;
	err = exec_first_image(t, args->filename, args->argv, args->envp);
	if (err && err != -ENOMEM && args->refuse_late)
		err = exec_refuse_late(t, args->filename, err);
	return err;
}

static int process_link(const struct task_exec_args *args, struct task *t)
{
	static const int32_t init_tid = 1; /* of the sandbox's own init */
	struct thread_group *g = t->group;
	struct process_group *p = NULL;
	struct session *s = NULL;
	struct sighand *sh;
	int err;

	rwlock_write_lock(&kernel.taskset_lock);
	err = task_assign_tid(t, &init_tid, kernel.init ? 0 : 1);
	if (err)
		goto out_unlock;
	if (kernel.init && !args->new_session) {
		group_set_pgrp(g, kernel.init->group->pgrp);
	} else {
		err = -ENOMEM;
		s = session_create(g->tgid);
		if (s && !pgrp_create(g->tgid, s, &p)) {
			err = 0;
			s->leader = g;
			group_set_pgrp(g, p);
			pgrp_unref(p);
		}
		if (s)
			session_unref(s);
		if (err) {
			task_unlink(t);
			goto out_unlock;
		}
	}
	sh = sighand_lock(g);
	task_link_thread(t);
	g->unkillable = !kernel.init;
	group_become_init(g);
	sighand_unlock(sh);
	g->parent = args->parent;
	if (g->parent) {
		g->parent_tid = g->parent->leader ? g->parent->leader->tid : 0;
		TAILQ_INSERT_TAIL(&g->parent->children, g, sibling);
	}
	if (!kernel.init) {
		task_ref(t);
		kernel.init = t;
	}
out_unlock:
	rwlock_write_unlock(&kernel.taskset_lock);
	return err;
}

int task_create_process(const struct task_exec_args *args, struct task **ret)
{
	struct pid_namespace *ns = args->pid_ns	  ? args->pid_ns
				   : args->parent ? args->parent->pid_ns
						  : &pid_ns_root;
	struct thread_group *g = group_alloc(ns);
	struct task *t;
	int err;

	if (!g)
		return -ENOMEM;
	err = process_group_setup(args, g);
	if (err) {
		group_unref(g);
		return err;
	}
	t = task_alloc(g);
	group_unref(g);
	if (!t)
		return -ENOMEM;
	err = process_task_setup(args, t);
	if (!err)
		err = task_worker_reserve(t);
	if (err)
		goto out_drop;
	err = process_link(args, t);
	if (err)
		goto out_release;
	if (args->ctty && g->pgrp->session->leader == g) {
		err = tty_set_controlling(args->ctty, g->pgrp->session, g->tgid);
		if (err)
			log_warn("tasks: no controlling terminal: %s", strerror(-err));
	}
	if (task_rlimit(t, RLIMIT_CPU) != RLIM_INFINITY)
		rlimit_cpu_update(g);
	task_ref(t);
	*ret = t;
	return 0;
out_release:
	task_worker_release(t);
out_drop:
	task_drop_resources(t);
	task_unref(t);
	return err;
}

int task_start(struct task *t)
{
	task_worker_start(t);
	return 0;
}
