/*
 * sentry/pidfd_ioctl.c - what a pidfd tells of its process: PIDFD_GET_INFO, and its namespaces as descriptors.
 *
 * Ids and credentials are those of a process that is there, a zombie too; the exit status is there once it has been waited for.
 * include/uapi/linux/pidfd.h, fs/pidfs.c of Linux 6.18.
 */
#include <sys/ioctl.h>

#include "sentry/nsfs.h"
#include "sentry/pidfd_internal.h"

#define PIDFS_MAGIC 0xff
#define PIDFD_GET_INFO_NR 11
#define PIDFD_INFO_SIZE_MIN 64

#define PIDFD_INFO_PID_ 1u
#define PIDFD_INFO_CREDS_ 2u
#define PIDFD_INFO_CGROUPID_ 4u
#define PIDFD_INFO_EXIT_ 8u
#define PIDFD_INFO_COREDUMP_ 16u

#define PIDFD_COREDUMP_SKIP_ 2u
#define PIDFD_COREDUMP_USER_ 4u
#define PIDFD_COREDUMP_ROOT_ 8u

/* The container's own cgroup is the root of what it sees: the inode number of a cgroup2 mount's root (sentry/fs/cgroup.c). */
#define CGROUP_ROOT_ID 1

struct pidfd_info_ {
	uint64_t mask, cgroupid;
	uint32_t pid, tgid, ppid;
	uint32_t ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid;
	int32_t exit_code; /* as wait4() gives it */
	uint32_t coredump_mask, coredump_signal;
	uint64_t supported_mask; /* newer than 6.18: zero */
};

static const struct nsfs_kind *const namespaces[] = {
	NULL,	    &nsfs_cgroup, &nsfs_ipc,  &nsfs_mnt, &nsfs_net, &nsfs_pid, &nsfs_pid_children,
	&nsfs_time, &nsfs_time,	  &nsfs_user, &nsfs_uts,
};

/* The thread that it stands for, a reference; NULL: waited for. *ret_code: then its wait status. */
static struct task *pidfd_task(struct pidfd_file *p, int *ret_code)
{
	struct task *t = NULL;

	if (!p->task) {
		t = group_leader(p->group);
		if (!t)
			*ret_code = p->group->exit_code;
		return t;
	}
	rwlock_read_lock(&kernel.taskset_lock);
	if (p->task->linked) {
		task_ref(p->task);
		t = p->task;
	} else {
		*ret_code = p->task->exit_code;
	}
	rwlock_read_unlock(&kernel.taskset_lock);
	return t;
}

static uint32_t coredump_mask(struct task *t)
{
	struct mm *mm = task_get_mm(t);

	if (!mm)
		return 0;
	mm_unref(mm);
	switch (atomic_load(&t->group->dumpable)) {
	case 1:
		return PIDFD_COREDUMP_USER_;
	case 2:
		return PIDFD_COREDUMP_ROOT_;
	default:
		return PIDFD_COREDUMP_SKIP_;
	}
}

static int info_of_task(struct task *t, uint64_t asked, struct pidfd_info_ *info)
{
	struct pid_namespace *ns = pid_ns_current();
	struct cred *c = task_get_cred(t);

	info->ruid = c->uid;
	info->rgid = c->gid;
	info->euid = c->euid;
	info->egid = c->egid;
	info->suid = c->suid;
	info->sgid = c->sgid;
	info->fsuid = c->fsuid;
	info->fsgid = c->fsgid;
	cred_unref(c);
	if (asked & PIDFD_INFO_COREDUMP_) {
		info->coredump_mask = coredump_mask(t);
		info->mask |= PIDFD_INFO_COREDUMP_;
	}
	info->pid = (uint32_t)pid_nr_in(ns, t->tid);
	info->tgid = (uint32_t)pid_nr_in(ns, t->group->tgid);
	info->ppid = (uint32_t)pid_nr_in(ns, group_ppid(t->group));
	info->mask |= PIDFD_INFO_PID_ | PIDFD_INFO_CREDS_;
	return info->pid && info->tgid ? 0 : -ESRCH;
}

/* `size` bytes of the caller's, which may know of more members than we do, or of fewer. */
static int info_copy_out(uint64_t arg, const struct pidfd_info_ *info, size_t size)
{
	static const uint8_t zeros[256];
	size_t done = MIN(size, sizeof(*info));
	int err = vfs_user_copy_out(arg, info, done);

	for (; !err && done < size; done += MIN(size - done, sizeof(zeros)))
		err = vfs_user_copy_out(arg + done, zeros, MIN(size - done, sizeof(zeros)));
	return err;
}

static int64_t get_info(struct pidfd_file *p, uint64_t arg, size_t size)
{
	struct pidfd_info_ info = {.cgroupid = CGROUP_ROOT_ID, .mask = PIDFD_INFO_CGROUPID_};
	uint64_t asked;
	struct task *t;
	int err;

	err = vfs_user_copy_in(&asked, arg, sizeof(asked));
	if (err)
		return err;
	if (!pid_ns_within(p->group->pid_ns, pid_ns_current()))
		return -EREMOTE;
	t = pidfd_task(p, &info.exit_code);
	if (t) {
		err = info_of_task(t, asked, &info);
		task_unref(t);
	} else if (asked & PIDFD_INFO_EXIT_) {
		info.mask |= PIDFD_INFO_EXIT_ | (asked & PIDFD_INFO_COREDUMP_);
	} else {
		err = -ESRCH;
	}
	return err ? err : info_copy_out(arg, &info, size);
}

static int64_t get_namespace(struct pidfd_file *p, const struct nsfs_kind *kind, uint64_t arg)
{
	int code;
	struct task *t = pidfd_task(p, &code);
	int64_t ret;

	if (!t)
		return -ESRCH;
	if (arg)
		ret = -EINVAL;
	else if (!task_may_access(task_current(), t))
		ret = -EACCES;
	else
		ret = nsfs_install(t, kind);
	task_unref(t);
	return ret == -ENOENT ? -ESRCH : ret;
}

int64_t pidfd_ioctl(struct file *f, unsigned cmd, uint64_t arg)
{
	struct pidfd_file *p = pidfd_of(f);
	unsigned nr = _IOC_NR(cmd);

	if (_IOC_TYPE(cmd) != PIDFS_MAGIC)
		return -ENOTTY;
	if (nr == PIDFD_GET_INFO_NR && _IOC_DIR(cmd) == (_IOC_READ | _IOC_WRITE) &&
	    _IOC_SIZE(cmd) >= PIDFD_INFO_SIZE_MIN)
		return get_info(p, arg, _IOC_SIZE(cmd));
	if (nr && nr < ARRAY_SIZE(namespaces) && cmd == _IO(PIDFS_MAGIC, nr))
		return get_namespace(p, namespaces[nr], arg);
	return -ENOTTY;
}
