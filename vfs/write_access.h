/*
 * vfs/write_access.h - ETXTBSY: who writes to a regular file against who runs it, Linux's i_writecount.
 *
 * An open description that may write counts as a writer of its inode until it is gone, whoever holds it (a descriptor, a shared
 * mapping, a message on its way). An image that is loaded, and the mm that runs it, denies writers. Files that no vfs_open() made
 * (memfd_create) do not count, as in Linux.
 *
 * Locks: LOCK_LEAF; any other may be held.
 */
#ifndef MOAT_VFS_WRITE_ACCESS_H
#define MOAT_VFS_WRITE_ACCESS_H

#include "vfs/vfs.h"

struct write_access;

/* A successful open of f by vfs_open(): 0, -ETXTBSY (it runs; or exec: somebody writes to it), -ENOMEM. */
must_check int vfs_write_access_open(struct file *f, bool exec);
/* f is going: what it counted is taken back. */
void vfs_write_access_gone(struct file *f);
/* Before d is cut: 0 or -ETXTBSY. */
must_check int vfs_may_truncate(struct dentry *d);

/* No writers from now on: 0, -ETXTBSY, -ENOMEM. Each success is undone by vfs_allow_write(), while f is referenced. */
must_check int vfs_deny_write(struct file *f);
/* The same of a file that was denied, or could have been, a moment ago. false: no memory, nothing to undo. */
bool vfs_deny_write_again(struct file *f);
void vfs_allow_write(struct file *f);

#endif
