/*
 * tests/fs/env.h - the VFS as a library: one process, one namespace, the calls of a program as functions that return -errno.
 *
 * A test's paths are looked up from `root` and `cwd` with the credentials in `cred`, all of which it may replace.
 */
#ifndef MOAT_TESTS_FS_ENV_H
#define MOAT_TESTS_FS_ENV_H

#include <fcntl.h>
#include <linux/stat.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/rcu.h"
#include "mem/memfile.h"
#include "vfs/vfs.h"

struct fs_env {
	struct mount_namespace *ns;
	struct vfs_path root, cwd; /* references */
	const struct vfs_path
		*at; /* where relative paths begin instead of cwd; borrowed, may be NULL */
	struct cred *cred; /* a reference; also cred_current() */
	uint32_t umask;
};

/* A backend gives a fresh, empty filesystem whose root is a directory of mode 0755 owned by root. */
struct fs_backend {
	const char *name;
	int (*create)(struct filesystem **ret_fs, struct dentry **ret_root);
	bool lacks_acl; /* as if mounted noacl */
	bool merged_root; /* the root directory's link count is 1 */
	bool lacks_whiteout; /* RENAME_WHITEOUT is -EINVAL */
	bool lacks_tmpfile; /* O_TMPFILE is -EOPNOTSUPP, but of $VIRTIOFSD=own */
	bool lacks_trusted; /* trusted.* cannot be stored */
	/* A 9P2000.L server: no flags of renameat2(2) (-EINVAL), fallocate, holes, or changes to what has no name any more. */
	bool plain_9p;
};
extern const struct fs_backend fs_backend;

static inline bool fs_lacks_tmpfile(void)
{
	const char *daemon = getenv("VIRTIOFSD");

	return fs_backend.lacks_tmpfile && !(daemon && !strcmp(daemon, "own"));
}

/* Once per process: memory, VFS, RCU registration of this thread. */
int fs_env_process_init(void);
int fs_env_init(struct fs_env *e);
void fs_env_fini(struct fs_env *e); /* and whatever is deferred */
/* Fresh credentials: uid, gid, supplementary groups, capabilities. */
int fs_env_become(struct fs_env *e, uint32_t uid, uint32_t gid, const uint32_t *groups,
		  uint32_t ngroups, uint64_t caps);
struct vfs_lookup fs_env_at(const struct fs_env *e, const char *path, unsigned flags);

int fs_open(struct fs_env *e, const char *path, int flags, uint32_t mode, struct file **ret);
int fs_close(struct file *f);
int fs_creat(struct fs_env *e, const char *path, uint32_t mode); /* and closes */
int fs_mkdir(struct fs_env *e, const char *path, uint32_t mode);
int fs_mknod(struct fs_env *e, const char *path, uint32_t mode, uint32_t major, uint32_t minor);
int fs_symlink(struct fs_env *e, const char *target, const char *path);
int fs_link(struct fs_env *e, const char *old, const char *path, bool follow);
int fs_unlink(struct fs_env *e, const char *path);
int fs_rmdir(struct fs_env *e, const char *path);
int fs_rename(struct fs_env *e, const char *old, const char *path, unsigned flags);
int fs_stat(struct fs_env *e, const char *path, struct moat_statx *ret);
int fs_lstat(struct fs_env *e, const char *path, struct moat_statx *ret);
int fs_chmod(struct fs_env *e, const char *path, uint32_t mode);
int fs_chown(struct fs_env *e, const char *path, uint32_t uid, uint32_t gid);
int fs_truncate(struct fs_env *e, const char *path, uint64_t size);
int fs_access(struct fs_env *e, const char *path, int mask);
int fs_readlink(struct fs_env *e, const char *path, char *buf,
		size_t size); /* length; terminated */
ssize_t fs_read(struct file *f, void *buf, size_t size);
ssize_t fs_write(struct file *f, const void *buf, size_t size);
ssize_t fs_pread(struct file *f, void *buf, size_t size, int64_t off);
ssize_t fs_pwrite(struct file *f, const void *buf, size_t size, int64_t off);
/* Names in the order given, each followed by a newline, "." and ".." left out. -errno or the count. */
int fs_list(struct fs_env *e, const char *path, char *buf, size_t size);
int fs_list_file(struct file *f, char *buf, size_t size); /* on from f's position */
int fs_chdir(struct fs_env *e, const char *path);
int fs_mount(struct fs_env *e, const char *path, const char *type, unsigned long flags,
	     const char *data);
int fs_bind(struct fs_env *e, const char *from, const char *to, bool recursive);
int fs_umount(struct fs_env *e, const char *path, int flags);

#endif
