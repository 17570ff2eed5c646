/* sentry/fs/internal.h - between the filesystems of sentry/fs. */
#ifndef MOAT_SENTRY_FS_INTERNAL_H
#define MOAT_SENTRY_FS_INTERNAL_H

#include "sentry/fs/fs.h"

void proc_register(void);
void sysfs_register(void);
void cgroup_register(void);

/* vfs_hooks.open_special */
int dev_open_special(const struct vfs_path *place, uint32_t type, uint32_t major, uint32_t minor,
		     uint64_t inode_key, unsigned flags, struct file **ret);
int kmsg_open(const struct vfs_path *place, unsigned flags, struct file **ret);

struct moat_siginfo;
/* signalfd_siginfo (128 bytes) of a signal. */
void signalfd_encode(const struct moat_siginfo *info, void *ret);

#endif
