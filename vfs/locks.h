/*
 * vfs/locks.h - advisory locks: POSIX record locks, open-file-description locks, flock(2).
 *
 * A lock is on an inode (filesystem, inode_key) whatever path or filesystem led to it. Record locks are owned by an fd table (closing any
 * descriptor of the inode drops them), OFD and flock locks by an open file description (its last close drops them).
 *
 * Where others lock the file too (file_ops.remote_lock: shared host trees) they are asked, and what is kept here only tells of what they granted: for
 * /proc/locks, F_GETLK's pid and deadlocks among our own.
 *
 * Locks: one mutex (LOCK_FILE_LOCKS) for all; waiting is on the inode's queue, or at the server, without it.
 */
#ifndef MOAT_VFS_LOCKS_H
#define MOAT_VFS_LOCKS_H

#include "vfs/vfs.h"

#define FILE_LOCKS_MAX 65536 /* in the sandbox: -ENOLCK past it */

enum file_lock_kind { FILE_LOCK_POSIX, FILE_LOCK_OFD, FILE_LOCK_FLOCK };

struct file_lock {
	LIST_ENTRY(file_lock) link; /* guarded by the lock table's mutex */
	enum file_lock_kind kind;
	short type; /* F_RDLCK, F_WRLCK; F_UNLCK in requests */
	uint64_t start,
		end; /* bytes, inclusive; end INT64_MAX: to the end of file. flock: the whole file */
	const void *owner; /* POSIX: the fd table; else the struct file */
	int32_t pid; /* of the process that took it; -1 for OFD */
};

/* The lock that `req` would meet (F_GETLK), or with F_UNLCK its owner's own: *ret is a copy, or has type F_UNLCK. Return: 0; -errno of a server. */
must_check int file_lock_test(struct file *f, const struct file_lock *req, struct file_lock *ret);
/*
 * Sets or (F_UNLCK) clears req's range for its owner. `wait`: until it is free.
 * Return: 0, -EAGAIN (taken, !wait), -EINTR, -EDEADLK (POSIX), -ENOLCK, -errno of a server.
 */
must_check int file_lock_set(struct file *f, const struct file_lock *req, bool wait);
/* close(2) of a descriptor of f by `owner`: its record locks on the inode go. */
void file_locks_close(struct file *f, const void *owner);
/* f's last reference is gone: its OFD and flock locks go. */
void file_locks_gone(struct file *f);
/*
 * The locks on an inode that are entered here, oldest first, at most `max`: copies, whose owners are to be compared only. Return: how many there are, which may be
 * more. For a filesystem whose server lost them all.
 */
unsigned file_locks_of(struct filesystem *fs, uint64_t key, struct file_lock *ret, unsigned max);
/* The server does not give the owner its lock again: it is not entered any more. */
void file_locks_lost(struct filesystem *fs, uint64_t key, const void *owner,
		     enum file_lock_kind kind);
/* /proc/locks: a line for each lock and request that waits, from *number + 1 on, which is left at the last one's. Those of unseen processes are left out. */
void file_locks_show(struct buf *b, unsigned *number);
/* One line of it; of l, type, pid and range count. */
void file_lock_show(struct buf *b, unsigned number, bool blocked, const char *kind,
		    const struct filesystem *fs, uint64_t ino, const struct file_lock *l);

#endif
