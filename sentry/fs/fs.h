/*
 * sentry/fs/fs.h - the filesystems that show the kernel: proc, sysfs, cgroup2; and the device drivers.
 */
#ifndef MOAT_SENTRY_FS_H
#define MOAT_SENTRY_FS_H

#include "vfs/vfs.h"

/* mmap(2) of /dev/zero is anonymous memory: the system call layer asks. */
bool dev_is_zero(struct file *f);

/*
 * Registers the types proc, sysfs, devpts, mqueue and cgroup2, and installs vfs_hooks.open_special (devices, FIFOs) and what pipes and sockets ask
 * of tasks. Once, after vfs_init() and kernel_init(), before the first mount. Return 0, -ENOMEM.
 */
must_check int sentry_fs_register(void);

/*
 * /dev/kmsg and syslog(2): the sandbox's own kernel log. Each call adds one record ("<level>,<seq>,<usec>,-;text").
 */
void kmsg_printf(int level, const char *fmt, ...) printf_like(2, 3);
/* /proc/loadavg's three numbers, which are one, in hundredths. */
int64_t procfs_load_percent(void);
/* syslog(2) READ_ALL: the last bytes of the log as "<6>[    0.000000] text\n" lines into b. */
struct buf;
void kmsg_read_all(struct buf *b);
size_t kmsg_size_buffer(void);
void kmsg_clear(void);
size_t kmsg_unread(void); /* bytes since the last clear */

struct cgroup_group;
struct cred;
/*
 * clone3(2)'s CLONE_INTO_CGROUP: the group whose directory f is, if cred may put a process of the caller's there: a reference. Return: 0; -EBADF: f is none;
 * -EACCES; -ENOENT: removed, or another container's.
 */
must_check int cgroup_group_of_dir(struct file *f, const struct cred *cred,
				   struct cgroup_group **ret);

struct pid_namespace;
/* What a proc mounted by this thread, which is no task, shows (a task's mount shows its own namespace). Borrowed until NULL is set: the root's. */
void procfs_set_mount_ns(struct pid_namespace *ns);

struct thread_group;
/* The process of an open /proc/PID directory, which pidfd_send_signal(2) takes like a pidfd: a reference, NULL for any other file. */
struct thread_group *procfs_file_group(struct file *f);

#endif
