/* sentry/nsfs.c - namespaces as files (Linux's fs/nsfs.c and kernel/nsproxy.c). */
#include <fcntl.h>
#include <linux/sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "fsimpl/anon/anon.h"
#include "sentry/ipc/ipc.h"
#include "sentry/nsfs.h"
#include "sentry/pidfd.h"
#include "sentry/task_internal.h"
#include "vfs/mount.h"

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

#define CAP_SYS_CHROOT_ 18
#define CAP_SYS_ADMIN_ 21

/* Numbers of the initial namespaces (include/uapi/linux/nsfs.h). */
const struct nsfs_kind nsfs_cgroup = {"cgroup", CLONE_NEWCGROUP, 0xeffffffb},
		       nsfs_ipc = {"ipc", CLONE_NEWIPC, 0}, nsfs_mnt = {"mnt", CLONE_NEWNS, 0},
		       nsfs_net = {"net", CLONE_NEWNET, 0xeffffff9},
		       nsfs_pid = {"pid", CLONE_NEWPID, 0},
		       nsfs_pid_children = {"pid", CLONE_NEWPID, 0},
		       nsfs_time = {"time", CLONE_NEWTIME, 0xeffffffa},
		       nsfs_user = {"user", CLONE_NEWUSER, 0xeffffffd},
		       nsfs_uts = {"uts", CLONE_NEWUTS, 0};

static const struct nsfs_kind *const all_kinds[] = {&nsfs_cgroup, &nsfs_ipc, &nsfs_mnt,
						    &nsfs_net,	  &nsfs_pid, &nsfs_time,
						    &nsfs_user,	  &nsfs_uts};

/* What a file's inode stands for. Immutable. */
struct nsfs_inode {
	const struct nsfs_kind *kind;
	struct mount_namespace *mnt; /* a reference; of nsfs_mnt */
	struct uts_namespace *uts; /* a reference; of nsfs_uts */
	struct ipc_namespace *ipc; /* a reference; of nsfs_ipc */
	struct pid_namespace *pid; /* a reference; of nsfs_pid */
};

static void inode_put(const struct nsfs_inode *ns)
{
	mount_namespace_unref(ns->mnt);
	uts_unref(ns->uts);
	ipc_namespace_unref(ns->ipc);
	pid_ns_unref(ns->pid);
}

static void inode_drop(void *priv)
{
	struct nsfs_inode *ns = priv;

	inode_put(ns);
	free(ns);
}

static uint64_t inode_number(const struct nsfs_inode *ns)
{
	if (ns->mnt)
		return mount_namespace_id(ns->mnt);
	if (ns->ipc)
		return ipc_namespace_id(ns->ipc);
	if (ns->pid)
		return ns->pid->ino;
	return ns->uts ? ns->uts->id : ns->kind->ino;
}

/* ---- files ---- */

static void ns_file_release(struct file *f)
{
	file_free(f);
}

static int64_t ns_file_ioctl(struct file *f, unsigned cmd, uint64_t arg);

static ssize_t ns_file_read(unused_arg struct file *f, unused_arg struct io_iter *it,
			    unused_arg int64_t off, unused_arg int rwf)
{
	return -EINVAL;
}

static const struct file_ops ns_file_ops = {
	.name = "nsfs",
	.release = ns_file_release,
	.read_iter = ns_file_read,
	.ioctl = ns_file_ioctl,
	.stat = anon_file_stat,
	.set_stat = anon_file_set_stat,
};

static int ns_reopen(unused_arg struct anon_dentry *ad, const struct vfs_path *place,
		     unsigned flags, struct file **ret)
{
	struct file *f;

	if ((flags & O_ACCMODE) != O_RDONLY && !(flags & O_PATH))
		return -EPERM;
	f = calloc(1, sizeof(*f));
	if (!f)
		return -ENOMEM;
	file_init(f, &ns_file_ops, place, flags, FILE_READ);
	*ret = f;
	return 0;
}

/* Takes the references in ns (also on failure). */
static int place_create(const struct nsfs_inode *from, struct vfs_path *ret)
{
	struct nsfs_inode *ns = malloc(sizeof(*ns));
	struct anon_args args = {.kind = ANON_NS,
				 .name = from->kind->name,
				 .mode = S_IFREG | 0444,
				 .ino = inode_number(from),
				 .reopen = ns_reopen,
				 .drop = inode_drop,
				 .priv = ns};
	int err = -ENOMEM;

	if (ns) {
		*ns = *from;
		err = anon_path_create(&args, ret);
	}
	if (err) {
		inode_put(from);
		free(ns);
	}
	return err;
}

/* The task's own, or what its children get, which is nothing to look at before it has an init. */
static int snapshot_pid(struct task *t, bool children, struct nsfs_inode *ret)
{
	struct pid_namespace *ns = t->group->pid_ns;
	bool started = true, zombie = false;

	ret->kind = &nsfs_pid;
	if (!children) {
		pid_ns_ref(ns);
		ret->pid = ns;
		return 0;
	}
	ns = pid_ns_for_children(t);
	if (ns->level) {
		rwlock_read_lock(&kernel.taskset_lock);
		started = ns->init || ns->dead;
		rwlock_read_unlock(&kernel.taskset_lock);
	}
	mutex_lock(&t->lock);
	zombie = !t->uts_ns;
	mutex_unlock(&t->lock);
	if (!started || zombie) {
		pid_ns_unref(ns);
		return -ENOENT;
	}
	ret->pid = ns;
	return 0;
}

static int snapshot(struct task *t, const struct nsfs_kind *kind, struct nsfs_inode *ret)
{
	*ret = (struct nsfs_inode){.kind = kind};
	if (kind == &nsfs_mnt) {
		ret->mnt = task_get_mnt_ns(t);
		return ret->mnt ? 0 : -ENOENT;
	}
	if (kind == &nsfs_uts) {
		mutex_lock(&t->lock);
		if (t->uts_ns) {
			uts_ref(t->uts_ns);
			ret->uts = t->uts_ns;
		}
		mutex_unlock(&t->lock);
		return ret->uts ? 0 : -ENOENT;
	}
	if (kind == &nsfs_ipc) {
		mutex_lock(&t->lock);
		if (t->ipc_ns) {
			ipc_namespace_ref(t->ipc_ns);
			ret->ipc = t->ipc_ns;
		}
		mutex_unlock(&t->lock);
		return ret->ipc ? 0 : -ENOENT;
	}
	if (kind == &nsfs_pid || kind == &nsfs_pid_children)
		return snapshot_pid(t, kind == &nsfs_pid_children, ret);
	return 0;
}

int nsfs_place(struct task *t, const struct nsfs_kind *kind, struct vfs_path *ret)
{
	struct nsfs_inode ns;
	int err = snapshot(t, kind, &ns);

	return err ? err : place_create(&ns, ret);
}

int nsfs_number(struct task *t, const struct nsfs_kind *kind, uint64_t *ret)
{
	struct nsfs_inode ns;
	int err = snapshot(t, kind, &ns);

	if (err)
		return err;
	*ret = inode_number(&ns);
	inode_put(&ns);
	return 0;
}

static struct nsfs_inode *inode_of(struct dentry *d)
{
	struct anon_dentry *ad = anon_dentry_of(d);

	return anon_is_anon(d) && ad->kind == ANON_NS ? ad->priv : NULL;
}

int nsfs_type(struct file *f)
{
	return f->ops == &ns_file_ops ? inode_of(f->path.dentry)->kind->clone_flag : 0;
}

struct mount_namespace *nsfs_mount_ns(struct file *f)
{
	return f->ops == &ns_file_ops ? inode_of(f->path.dentry)->mnt : NULL;
}

/* vfs_hooks.mount_ns_file: a mount namespace that is bound in itself, or in an older one's child, could never end. */
static uint64_t mount_ns_file(struct dentry *d)
{
	struct nsfs_inode *ns = inode_of(d);

	return ns && ns->mnt ? mount_namespace_unique(ns->mnt) : 0;
}

void nsfs_init(void)
{
	vfs_hooks.mount_ns_file = mount_ns_file;
}

/* ---- ioctls ---- */

#define NSIO 0xb7
#define NS_GET_USERNS_ _IO(NSIO, 1)
#define NS_GET_PARENT_ _IO(NSIO, 2)
#define NS_GET_NSTYPE_ _IO(NSIO, 3)
#define NS_GET_OWNER_UID_ _IO(NSIO, 4)
#define NS_GET_MNTNS_ID_ _IOR(NSIO, 5, uint64_t)
#define NS_GET_PID_FROM_PIDNS_ _IOR(NSIO, 6, int)
#define NS_GET_TGID_IN_PIDNS_ _IOR(NSIO, 9, int)
#define NS_MNT_GET_INFO_ _IOR(NSIO, 10, struct mnt_ns_info_)
#define NS_MNT_GET_NEXT_ _IOR(NSIO, 11, struct mnt_ns_info_)
#define NS_MNT_GET_PREV_ _IOR(NSIO, 12, struct mnt_ns_info_)
#define NS_GET_ID_ _IOR(NSIO, 13, uint64_t)

struct mnt_ns_info_ {
	uint32_t size, nr_mounts;
	uint64_t mnt_ns_id;
};

/* Takes the references in ns (also on failure). */
static int64_t install(const struct nsfs_inode *ns)
{
	struct task *t = task_current();
	unsigned limit = (unsigned)MIN(task_rlimit(t, RLIMIT_NOFILE), (uint64_t)FD_TABLE_MAX);
	struct vfs_path place;
	struct file *f;
	int err = place_create(ns, &place);

	if (err)
		return err;
	err = ns_reopen(NULL, &place, O_RDONLY, &f);
	vfs_path_unref(&place);
	if (err)
		return err;
	err = fd_install(t->fdtable, f, 0, limit, true);
	file_unref(f);
	return err;
}

int64_t nsfs_install(struct task *t, const struct nsfs_kind *kind)
{
	struct nsfs_inode ns;
	int err = snapshot(t, kind, &ns);

	return err ? err : install(&ns);
}

static int info_out(struct mount_namespace *mnt, uint64_t arg)
{
	struct mnt_ns_info_ info = {.size = sizeof(info),
				    .nr_mounts = mount_namespace_count(mnt),
				    .mnt_ns_id = mount_namespace_unique(mnt)};

	return vfs_user_copy_out(arg, &info, sizeof(info));
}

static int64_t mnt_next(struct mount_namespace *mnt, bool previous, uint64_t arg)
{
	struct nsfs_inode ns = {.kind = &nsfs_mnt};
	int err;

	if (!cred_has_cap(task_current()->cred, CAP_SYS_ADMIN_))
		return -EPERM;
	ns.mnt =
		mount_namespace_next(task_current()->mnt_ns, mount_namespace_unique(mnt), previous);
	if (!ns.mnt)
		return -ENOENT;
	err = arg ? info_out(ns.mnt, arg) : 0;
	if (err) {
		mount_namespace_unref(ns.mnt);
		return err;
	}
	return install(&ns);
}

static uint64_t unique_of(const struct nsfs_inode *ns)
{
	/* The first eight ids are those of the kinds that have one only. */
	for (size_t i = 0; i < ARRAY_SIZE(all_kinds); i++)
		if (ns->kind == all_kinds[i] && (ns->kind->ino || (ns->pid && !ns->pid->level)))
			return i + 1;
	return ns->mnt ? mount_namespace_unique(ns->mnt) + ARRAY_SIZE(all_kinds) : inode_number(ns);
}

/* A number of ns as the caller sees it, or the other way round. */
static int64_t pid_translate(const struct nsfs_inode *ns, unsigned cmd, int32_t pid)
{
	bool leader = _IOC_NR(cmd) & 1, from = cmd < NS_GET_TGID_IN_PIDNS_ - 1;
	struct pid_namespace *own = pid_ns_current();
	struct task *t;
	int64_t id;

	if (ns->kind != &nsfs_pid)
		return -EINVAL;
	t = task_find_in(from ? ns->pid : own, pid);
	if (!t)
		return -ESRCH;
	id = pid_nr_in(from ? own : ns->pid, leader ? t->group->tgid : t->tid);
	task_unref(t);
	return id ? id : -ESRCH;
}

/* The caller may see what is its own namespace or below. */
static int64_t pid_parent(const struct nsfs_inode *ns)
{
	struct nsfs_inode up = {.kind = &nsfs_pid, .pid = ns->pid->parent};

	if (!up.pid || !pid_ns_within(up.pid, pid_ns_current()))
		return -EPERM;
	pid_ns_ref(up.pid);
	return install(&up);
}

static int64_t mnt_ioctl(struct mount_namespace *mnt, unsigned cmd, uint64_t arg)
{
	uint64_t id;

	if (!mnt)
		return -EINVAL;
	switch (cmd) {
	case NS_GET_MNTNS_ID_:
		id = mount_namespace_unique(mnt);
		return vfs_user_copy_out(arg, &id, sizeof(id));
	case NS_MNT_GET_INFO_:
		return arg ? info_out(mnt, arg) : -EINVAL;
	default:
		return mnt_next(mnt, cmd == NS_MNT_GET_PREV_, arg);
	}
}

static int64_t ns_file_ioctl(struct file *f, unsigned cmd, uint64_t arg)
{
	const struct nsfs_inode *ns = inode_of(f->path.dentry);
	uint32_t owner = 0;
	uint64_t id;

	switch (cmd) {
	case NS_GET_USERNS_:
		/* The first user namespace belongs to none. */
		return ns->kind == &nsfs_user ? -EPERM
					      : install(&(struct nsfs_inode){.kind = &nsfs_user});
	case NS_GET_PARENT_:
		/* The first of each kind has no parent to look at. */
		if (ns->kind == &nsfs_pid)
			return pid_parent(ns);
		return ns->kind == &nsfs_user ? -EPERM : -EINVAL;
	case NS_GET_NSTYPE_:
		return ns->kind->clone_flag;
	case NS_GET_OWNER_UID_:
		return ns->kind == &nsfs_user ? vfs_user_copy_out(arg, &owner, sizeof(owner))
					      : -EINVAL;
	case NS_GET_ID_:
		id = unique_of(ns);
		return vfs_user_copy_out(arg, &id, sizeof(id));
	case NS_GET_MNTNS_ID_:
	case NS_MNT_GET_INFO_:
	case NS_MNT_GET_NEXT_:
	case NS_MNT_GET_PREV_:
		return mnt_ioctl(ns->mnt, cmd, arg);
	default:
		if (cmd >= NS_GET_PID_FROM_PIDNS_ && cmd <= NS_GET_TGID_IN_PIDNS_)
			return pid_translate(ns, cmd, (int32_t)arg);
		return -ENOTTY;
	}
}

/* ---- setns ---- */

/* What setns() is about to enter: all of it, or nothing. */
struct ns_set {
	struct mount_namespace *mnt; /* borrowed */
	struct uts_namespace *uts; /* borrowed */
	struct ipc_namespace *ipc; /* borrowed */
	struct pid_namespace *pid; /* borrowed; of the children */
};

static int may_enter(struct task *t, const struct nsfs_inode *ns, struct ns_set *set)
{
	bool admin = cred_has_cap(t->cred, CAP_SYS_ADMIN_);

	/* One's own user namespace gives nothing but capabilities that were dropped. */
	if (ns->kind == &nsfs_user)
		return -EINVAL;
	if (ns->kind == &nsfs_time && atomic_load(&t->group->live) > 1)
		return -EUSERS;
	if (!admin)
		return -EPERM;
	if (ns->kind == &nsfs_mnt) {
		if (!cred_has_cap(t->cred, CAP_SYS_CHROOT_))
			return -EPERM;
		if (fs_context_shared(t->fsctx))
			return -EINVAL;
		set->mnt = ns->mnt;
	}
	if (ns->kind == &nsfs_pid) {
		/* Downwards only: a child never has a parent that it should not see. */
		if (!pid_ns_within(ns->pid, t->group->pid_ns))
			return -EINVAL;
		set->pid = ns->pid;
	}
	if (ns->kind == &nsfs_uts)
		set->uts = ns->uts;
	if (ns->kind == &nsfs_ipc)
		set->ipc = ns->ipc;
	return 0;
}

static void enter(struct task *t, const struct ns_set *set)
{
	struct mount_namespace *old_mnt = NULL;
	struct uts_namespace *old_uts = NULL;
	struct ipc_namespace *old_ipc = NULL;
	struct vfs_path root;

	if (set->mnt) {
		mount_namespace_ref(set->mnt);
		mount_namespace_root(set->mnt, &root);
		fs_context_set_root(t->fsctx, &root);
		fs_context_set_cwd(t->fsctx, &root);
		vfs_path_unref(&root);
	}
	/* What was to be undone belongs to the old namespace. */
	if (set->ipc) {
		sem_undo_unref(t->sem_undo);
		t->sem_undo = NULL;
	}
	if (set->pid)
		pid_ns_set_for_children(t, set->pid);
	mutex_lock(&t->lock);
	if (set->mnt) {
		old_mnt = t->mnt_ns;
		t->mnt_ns = set->mnt;
	}
	if (set->uts) {
		uts_ref(set->uts);
		old_uts = t->uts_ns;
		t->uts_ns = set->uts;
	}
	if (set->ipc) {
		ipc_namespace_ref(set->ipc);
		old_ipc = t->ipc_ns;
		t->ipc_ns = set->ipc;
	}
	mutex_unlock(&t->lock);
	mount_namespace_unref(old_mnt);
	uts_unref(old_uts);
	ipc_namespace_unref(old_ipc);
}

/* Several namespaces of one process, by a pidfd. */
static int setns_of_process(struct task *t, struct thread_group *g, int flags)
{
	struct nsfs_inode ns[ARRAY_SIZE(all_kinds)] = {{0}};
	struct task *from = group_leader(g);
	struct ns_set set = {0};
	int err = -ESRCH;

	if (!from)
		return err;
	if (!group_is_dead(g))
		err = task_may_access(t, from) ? 0 : -EPERM;
	for (size_t i = 0; i < ARRAY_SIZE(all_kinds) && !err; i++) {
		if (!(flags & all_kinds[i]->clone_flag))
			continue;
		err = snapshot(from, all_kinds[i], &ns[i]);
		if (err == -ENOENT)
			err = -ESRCH;
		if (!err)
			err = may_enter(t, &ns[i], &set);
	}
	if (!err)
		enter(t, &set);
	for (size_t i = 0; i < ARRAY_SIZE(all_kinds); i++)
		inode_put(&ns[i]);
	task_unref(from);
	return err;
}

int task_setns(struct task *t, struct file *f, int flags)
{
	const int known = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWPID |
			  CLONE_NEWUSER | CLONE_NEWCGROUP | CLONE_NEWTIME;
	struct ns_set set = {0};
	struct thread_group *g;
	int err;

	if (nsfs_type(f)) {
		if (flags && flags != nsfs_type(f))
			return -EINVAL;
		err = may_enter(t, inode_of(f->path.dentry), &set);
		if (!err)
			enter(t, &set);
		return err;
	}
	g = pidfd_group(f, NULL);
	if (!g)
		return -EINVAL;
	err = !flags || (flags & ~known) ? -EINVAL : setns_of_process(t, g, flags);
	group_unref(g);
	return err;
}
