/*
 * sentry/fs/proc.h - inside procfs: what its files share.
 *
 *	proc.c		the type, /proc's own directory, self and thread-self
 *	proc_root.c	files about the whole system
 *	proc_cpu.c	cpuinfo
 *	proc_sys.c	/proc/sys
 *	proc_net.c	/proc/PID/net
 *	proc_ipc.c	/proc/sysvipc and its limits
 *	proc_pid.c	/proc/PID and task/TID: directories, tables, small files
 *	proc_mounts.c	mounts, mountinfo, mountstats
 *	proc_stat.c	stat, status, statm, limits, io, ...
 *	proc_mm.c	maps, smaps, mem, cmdline, environ, auxv
 *	proc_fd.c	fd, fdinfo, cwd, root, exe, ns
 */
#ifndef MOAT_SENTRY_FS_PROC_H
#define MOAT_SENTRY_FS_PROC_H

#include "fsimpl/synth/synth.h"
#include "sentry/pidns.h"
#include "sentry/task.h"

#define PROC_SUPER_MAGIC 0x9fa0
#define PROC_USER_HZ 100

/* hidepid=: what who may not trace a process is shown of it. */
enum proc_hide {
	PROC_HIDE_OFF,
	PROC_HIDE_NO_ACCESS, /* nothing in its directory */
	PROC_HIDE_INVISIBLE, /* nor that there is one */
	PROC_HIDE_NOT_PTRACEABLE = 4, /* the same, for members of gid= too */
};

/* One mount of proc: what its filesystem's private data is. */
struct proc_fs {
	struct pid_namespace *ns; /* immutable; a reference: what it was mounted from */
	_Atomic enum proc_hide hide;
	_Atomic uint32_t gid; /* who is in it is exempt */
	_Atomic bool pid_only; /* subset=pid: of the root's table, self and thread-self alone */
};

/* What a /proc/PID or /proc/PID/task/TID node (and, inherited, its static children) is about. */
struct proc_pid {
	struct thread_group *group; /* immutable; a reference */
	struct task *task; /* immutable; a reference; NULL for /proc/TGID: its leader */
	bool thread; /* immutable: task/TID, which tells of the thread alone */
};

static inline struct proc_pid *proc_pid_of(const struct synth_node *n)
{
	return n->priv;
}
static inline struct proc_fs *proc_fs_of(const struct synth_node *n)
{
	return synth_fs_priv(n->dentry.fs);
}
/* The pid namespace that n's mount shows: the one it was mounted from. */
static inline struct pid_namespace *proc_ns(const struct synth_node *n)
{
	return proc_fs_of(n)->ns;
}
/* The task that n is about, a reference; NULL once it is gone (-ESRCH). */
struct task *proc_task(const struct synth_node *n);

bool proc_is_thread(const struct synth_node *n);

/*
 * __ptrace_may_access() with PTRACE_MODE_READ | FSCREDS (or ATTACH) by the calling task. Return 0 or -EACCES.
 */
must_check int proc_may_access(struct task *t, bool attach);
/* getattr of everything below /proc/PID: owner is the task's euid, or root if it is not dumpable. */
int proc_pid_getattr(struct synth_node *n, struct synth_attr *inout);
/* The text of a file's or place's path, as readlink of a magic link gives it; seen from the caller's root. */
must_check int proc_path_text(const struct vfs_path *p, struct buf *b);
/* The calling task's root: references. */
void proc_current_root(struct vfs_path *ret);

/* Tables; the pid ones are built in proc_pid.c from these ops. */
extern const struct synth_entry proc_root_entries[];
extern const struct synth_entry proc_sys_entries[];
extern const struct synth_entry proc_net_entries[];
extern const struct synth_node_ops proc_sysnet_ops; /* /proc/sys/net */
extern const struct synth_node_ops sysfs_net_ops; /* /sys/class/net */
extern const struct synth_entry proc_ns_entries[];
extern struct filesystem_ops proc_fs_ops;
extern const struct synth_node_ops proc_root_ops, proc_self_ops, proc_thread_self_ops;

int proc_pid_lookup(struct synth_node *dir, const char *name, size_t len, struct synth_node **ret);
int proc_pid_iterate(struct synth_node *dir, int64_t from, struct synth_iter *it);
/* A decimal id without leading zeros. -ENOENT. */
must_check int proc_parse_id(const char *name, size_t len, int32_t *ret);

/* proc_stat.c */
extern const struct synth_node_ops proc_stat_ops, proc_thread_stat_ops, proc_status_ops,
	proc_statm_ops, proc_limits_ops, proc_io_ops, proc_schedstat_ops, proc_sched_ops;
/* proc_mm.c */
extern const struct synth_node_ops proc_maps_ops, proc_smaps_ops, proc_smaps_rollup_ops,
	proc_mem_ops, proc_cmdline_ops, proc_environ_ops, proc_auxv_ops, proc_numa_maps_ops,
	proc_clear_refs_ops, proc_pagemap_ops;
/* proc_mounts.c */
extern const struct synth_node_ops proc_mounts_ops, proc_mountinfo_ops, proc_mountstats_ops;
/* proc_mapquery.c: sf->priv is the mm, or NULL. */
int64_t proc_maps_ioctl(struct synth_node *n, struct synth_file *sf, unsigned cmd, uint64_t arg);
/* proc_fd.c */
extern const struct synth_node_ops proc_fd_ops, proc_fdinfo_ops, proc_cwd_ops, proc_rootlink_ops,
	proc_exe_ops, proc_ns_ops;
/* proc_ipc.c */
extern const struct synth_entry proc_sysvipc_entries[];
extern const struct synth_node_ops proc_ipc_limit_ops, proc_ipc_sem_ops, proc_ipc_next_id_ops;
extern const struct synth_entry proc_mqueue_entries[];
/* proc_cpu.c */
int proc_cpuinfo_show(struct synth_node *n, struct synth_file *sf, struct buf *b);
void proc_cpu_init(void);

/* The sum of all host CPU time of the sandbox, ns; how many tasks run now. */
int64_t proc_cpu_time_ns(void);
#endif
