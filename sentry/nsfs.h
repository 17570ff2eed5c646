/*
 * sentry/nsfs.h - namespaces as files: the links of /proc/PID/ns, their ioctls, setns(2).
 *
 * A namespace's file holds a reference to it, and so does a bind mount of one. Mount, UTS, IPC and pid namespaces can be many; of the other kinds there
 * is one, which may be entered again by whoever has the capabilities, and changes nothing.
 */
#ifndef MOAT_SENTRY_NSFS_H
#define MOAT_SENTRY_NSFS_H

#include "sentry/task.h"

struct nsfs_kind {
	const char *name; /* "mnt" */
	int clone_flag; /* CLONE_NEWNS */
	uint64_t ino; /* of the only one; 0: each has its own */
};
extern const struct nsfs_kind nsfs_cgroup, nsfs_ipc, nsfs_mnt, nsfs_net, nsfs_pid,
	nsfs_pid_children, nsfs_time, nsfs_user, nsfs_uts;

/* t's namespace of a kind as a place: references in *ret. -ENOENT: t is a zombie. */
must_check int nsfs_place(struct task *t, const struct nsfs_kind *kind, struct vfs_path *ret);
/* Its inode number: what the link of /proc/PID/ns shows in brackets. */
must_check int nsfs_number(struct task *t, const struct nsfs_kind *kind, uint64_t *ret);
/* A new descriptor of the calling task for it; -ENOENT: t is a zombie. */
int64_t nsfs_install(struct task *t, const struct nsfs_kind *kind);
/* CLONE_NEW* of a namespace's file; 0 if f is none. */
int nsfs_type(struct file *f);
/* The mount namespace behind f, borrowed; NULL. */
struct mount_namespace *nsfs_mount_ns(struct file *f);
/* setns(2). -EINVAL, -EPERM, -ESRCH. */
must_check int task_setns(struct task *t, struct file *f, int flags);
void nsfs_init(void);

#endif
