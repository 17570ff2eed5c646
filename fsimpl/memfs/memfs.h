/*
 * fsimpl/memfs/memfs.h - tmpfs: files whose data lies in the private memory file.
 *
 * Registers the types "tmpfs" and "ramfs".
 */
#ifndef MOAT_FSIMPL_MEMFS_H
#define MOAT_FSIMPL_MEMFS_H

#include "vfs/vfs.h"

/* Once, after vfs_init(). */
must_check int memfs_register(void);

struct memfs_options {
	uint64_t size_max; /* bytes of data; 0: no limit */
	uint64_t inodes_max; /* 0: no limit */
	uint32_t mode, uid, gid; /* of the root directory; mode without type bits */
};

/* A tmpfs that is mounted nowhere yet: for the root, overlays' upper layers, internal mounts. Returns references. */
must_check int memfs_create_fs(const char *source, const struct memfs_options *opts,
			       struct filesystem **ret_fs, struct dentry **ret_root);

enum {
	MEMFS_FILE_SEALABLE =
		1 << 0, /* memfd_create(MFD_ALLOW_SEALING): starts without F_SEAL_SEAL */
	MEMFS_FILE_NOEXEC = 1 << 1, /* MFD_NOEXEC_SEAL: mode 0666 and F_SEAL_EXEC */
	MEMFS_FILE_UNACCOUNTED = 1 << 2, /* no commit limit of its own */
};

/*
 * A regular file without a name, opened O_RDWR | `open_flags` on mount `m` of a memfs: memfd_create (name "memfd:x"), shared anonymous memory
 * ("dev/zero"), SysV segments ("SYSV00000000"). /proc shows "/name (deleted)". `cred` owns it. Returns a reference.
 */
must_check int memfs_create_unlinked_file(struct mount *m, const char *name, unsigned flags,
					  struct file **ret);
/* The sandbox's internal memfs mount for the above; made by memfs_register(). Borrowed. */
struct mount *memfs_internal_mount(void);

/* What all memfs instances hold, for `moat debug` and the OOM killer's choice. */
struct memfs_totals {
	uint64_t inodes, pages;
};
void memfs_get_totals(struct memfs_totals *ret);

#endif
