/*
 * sentry/task_unshare.c - unshare(2), and who may look into whom.
 */
#include <linux/sched.h>

#include "sentry/ipc/ipc.h"
#include "sentry/task_internal.h"

#define UNSHARE_ALL                                                                       \
	(CLONE_THREAD | CLONE_FS | CLONE_NEWNS | CLONE_SIGHAND | CLONE_VM | CLONE_FILES | \
	 CLONE_SYSVSEM | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | NS_ABSENT)
/* As a kernel built without them: the privilege is looked at first all the same, but for user namespaces, which need none. */
#define NS_ABSENT (CLONE_NEWNET | CLONE_NEWUSER | CLONE_NEWCGROUP | CLONE_NEWTIME)
#define NS_PRIVILEGED                                                              \
	(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET | \
	 CLONE_NEWCGROUP | CLONE_NEWTIME)

int task_may_make_ns(struct task *t, uint64_t flags)
{
	if (flags & CLONE_NEWUSER)
		return -EINVAL;
	if ((flags & NS_PRIVILEGED) && !cred_has_cap(t->cred, 21 /* CAP_SYS_ADMIN */))
		return -EPERM;
	/* As where a container's manager forbids it: who wants one for safety's sake goes on without then (systemd's PrivateNetwork=), but not after EINVAL. */
	if (flags & CLONE_NEWNET)
		return -EPERM;
	return flags & NS_ABSENT ? -EINVAL : 0;
}

int task_unshare_files(struct task *t)
{
	struct fd_table *own, *old;
	int err;

	if (!fd_table_shared(t->fdtable))
		return 0;
	err = fd_table_fork(t->fdtable, &own, FD_TABLE_MAX);
	if (err)
		return err;
	mutex_lock(&t->lock);
	old = t->fdtable;
	t->fdtable = own;
	mutex_unlock(&t->lock);
	fd_table_unref(old);
	return 0;
}

static int unshare_fs(struct task *t)
{
	struct fs_context *own, *old;
	int err;

	if (!fs_context_shared(t->fsctx))
		return 0;
	err = fs_context_fork(t->fsctx, &own);
	if (err)
		return err;
	mutex_lock(&t->lock);
	old = t->fsctx;
	t->fsctx = own;
	mutex_unlock(&t->lock);
	fs_context_unref(old);
	return 0;
}

static int unshare_mounts(struct task *t)
{
	struct vfs_path root, cwd, *paths[2] = {&root, &cwd};
	struct mount_namespace *ns, *old;
	int err;

	fs_context_get_root(t->fsctx, &root);
	fs_context_get_cwd(t->fsctx, &cwd);
	err = mount_namespace_copy(t->mnt_ns, &ns, paths, 2);
	if (!err) {
		fs_context_set_root(t->fsctx, &root);
		fs_context_set_cwd(t->fsctx, &cwd);
		mutex_lock(&t->lock);
		old = t->mnt_ns;
		t->mnt_ns = ns;
		mutex_unlock(&t->lock);
		mount_namespace_unref(old);
	}
	vfs_path_unref(&root);
	vfs_path_unref(&cwd);
	return err;
}

static int unshare_uts(struct task *t)
{
	struct uts_namespace *own = uts_create(t->uts_ns), *old;

	if (!own)
		return -ENOMEM;
	mutex_lock(&t->lock);
	old = t->uts_ns;
	t->uts_ns = own;
	mutex_unlock(&t->lock);
	uts_unref(old);
	return 0;
}

static int unshare_ipc(struct task *t)
{
	struct ipc_namespace *own, *old;
	int err = ipc_namespace_create(&own);

	if (err)
		return err;
	mutex_lock(&t->lock);
	old = t->ipc_ns;
	t->ipc_ns = own;
	mutex_unlock(&t->lock);
	ipc_namespace_unref(old);
	return 0;
}

/* What can be refused is, before anything has changed. */
static int prepare_pid(struct task *t, struct pid_namespace **ret)
{
	return t->pid_ns_children ? -EINVAL : pid_ns_create(t->group->pid_ns, ret);
}

static void unshare_sem_undo(struct task *t)
{
	sem_undo_unref(t->sem_undo);
	t->sem_undo = NULL;
}

int64_t task_unshare(struct task *t, uint64_t flags)
{
	struct pid_namespace *pid_ns = NULL;
	int err = 0;

	if (flags & CLONE_NEWNS)
		flags |= CLONE_FS;
	if (flags & ~(uint64_t)UNSHARE_ALL)
		return -EINVAL;
	err = task_may_make_ns(t, flags);
	if (err)
		return err;
	/* These cannot be taken apart once there is something to share them with. */
	if ((flags & (CLONE_THREAD | CLONE_SIGHAND | CLONE_VM)) && atomic_load(&t->group->live) > 1)
		return -EINVAL;
	if ((flags & (CLONE_SIGHAND | CLONE_VM)) && ref_read(&t->group->sighand->ref) > 1)
		return -EINVAL;
	if (flags & CLONE_NEWPID)
		err = prepare_pid(t, &pid_ns);
	if (!err && (flags & CLONE_FILES))
		err = task_unshare_files(t);
	if (!err && (flags & CLONE_FS))
		err = unshare_fs(t);
	if (!err && (flags & CLONE_NEWNS))
		err = unshare_mounts(t);
	if (!err && (flags & CLONE_NEWUTS))
		err = unshare_uts(t);
	/* What was to be undone belongs to the old namespace. */
	if (!err && (flags & (CLONE_NEWIPC | CLONE_SYSVSEM)))
		unshare_sem_undo(t);
	if (!err && (flags & CLONE_NEWIPC))
		err = unshare_ipc(t);
	/* The caller stays where it is; its next child is the new namespace's init. */
	if (pid_ns && !err)
		pid_ns_set_for_children(t, pid_ns);
	if (pid_ns)
		pid_ns_unref(pid_ns);
	return err;
}

bool task_may_access(struct task *from, struct task *to)
{
	struct cred *a, *b;
	bool ok;

	if (from->group == to->group)
		return true;
	a = task_get_cred(from);
	b = task_get_cred(to);
	ok = a->uid == b->euid && a->uid == b->suid && a->uid == b->uid && a->gid == b->egid &&
	     a->gid == b->sgid && a->gid == b->gid && atomic_load(&to->group->dumpable) == 1 &&
	     !(b->cap_permitted & ~a->cap_permitted);
	ok = ok || cred_has_cap(a, 19 /* CAP_SYS_PTRACE */);
	cred_unref(a);
	cred_unref(b);
	return ok;
}
