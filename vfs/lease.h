/*
 * vfs/lease.h - leases: fcntl(F_SETLEASE), Linux's fs/locks.c.
 *
 * A lease is on an inode and belongs to one open file description. Who opens the file against it, or truncates it by path, first has the holder
 * told (SIGIO, or what F_SETSIG says) and waits until it gives the lease up or down, or vfs_lease_break_ns is over.
 *
 * Locks: LOCK_FILE_LOCKS, for all. While there is no lease anywhere an open costs one load.
 */
#ifndef MOAT_VFS_LEASE_H
#define MOAT_VFS_LEASE_H

#include "vfs/vfs.h"

#define LEASES_MAX 16384 /* in the sandbox: -ENOLCK past it */
#define LEASE_BREAK_DEFAULT_S 45

extern _Atomic uint32_t vfs_lease_count;
extern _Atomic uint32_t vfs_lease_break_s; /* fs.lease-break-time */

/*
 * F_RDLCK, F_WRLCK or F_UNLCK on f by its owner. Return: 0, -EAGAIN (others have it open, another lease, or none to give up), -ENOMEM, -ENOLCK.
 * *ret_new: f had none before. `pid` is for /proc/locks.
 */
must_check int file_lease_set(struct file *f, int type, int32_t pid, bool *ret_new);
/* What f's lease is, or will be once it is broken; F_UNLCK: none. */
int file_lease_get(struct file *f);
/* f's last reference is gone. */
void file_lease_gone_slow(struct file *f);
static inline void file_lease_gone(struct file *f)
{
	if (unlikely(atomic_load_explicit(&vfs_lease_count, memory_order_acquire) != 0))
		file_lease_gone_slow(f);
}
/* Before an open for writing (or truncation), or for reading: 0, -EAGAIN (nonblock; the break has begun), -EINTR. */
must_check int vfs_lease_break(struct dentry *d, bool write, bool nonblock);
/* /proc/locks, as file_locks_show() */
void file_leases_show(struct buf *b, unsigned *number);
static inline bool vfs_leases_exist(void)
{
	return unlikely(atomic_load_explicit(&vfs_lease_count, memory_order_acquire) != 0);
}

#endif
