/*
 * vfs/handle.h - file handles: name_to_handle_at(2), open_by_handle_at(2).
 *
 * A handle names an inode of a filesystem whose type has FS_HANDLES, for as long as the dentry that it was made of lives. Handles are kept in a
 * table of weak references: who makes many costs memory only while the files exist.
 *
 * Cannot do: a file with several names is lost (-ESTALE) when the name its handle was made of goes.
 */
#ifndef MOAT_VFS_HANDLE_H
#define MOAT_VFS_HANDLE_H

#include "vfs/vfs.h"

#define VFS_HANDLE_WORDS 3 /* as tmpfs's: generation, inode number */

/* d's handle, the same each time. -EOPNOTSUPP, -ENOMEM. */
must_check int vfs_handle_encode(struct dentry *d, uint32_t ret[VFS_HANDLE_WORDS]);
/* The dentry of a handle of fs: a reference. -ESTALE. */
must_check int vfs_handle_decode(struct filesystem *fs, const uint32_t words[VFS_HANDLE_WORDS],
				 struct dentry **ret);
/* dentry_fini() of one with DENTRY_HANDLE. */
void vfs_handle_forget(struct dentry *d);

#endif
