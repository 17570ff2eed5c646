/* tests/fs/host_ops.h - the same calls on the host's kernel, in a tmpfs of this thread's own mount namespace. */
#ifndef MOAT_TESTS_FS_HOST_OPS_H
#define MOAT_TESTS_FS_HOST_OPS_H

#include "base/compiler.h"
#include "abi/stat.h"

/* Where relative paths begin; AT_FDCWD. */
extern int host_at;
/* Private mount namespace. -errno: the test cannot run here. */
int host_init(void);
/* Then: a directory of a tmpfs that nobody else sees, for the other side's files; and the root itself. */
int host_scratch(char *path, size_t size);
int host_enter(void);
int host_become(uint32_t uid, uint32_t gid, const uint32_t *groups, uint32_t ngroups,
		uint64_t caps);
void host_umask(uint32_t mask);
int host_open(const char *path, int flags, uint32_t mode); /* descriptor or -errno */
void host_close(int fd);
ssize_t host_pwrite(int fd, const void *buf, size_t size, int64_t off);
ssize_t host_pread(int fd, void *buf, size_t size, int64_t off);
int host_fallocate(int fd, int mode, uint64_t off, uint64_t size);
int64_t host_lseek(int fd, int64_t off, int whence);
int host_fstat(int fd, struct moat_statx *st);
int host_ftruncate(int fd, uint64_t size);
int host_mkdir(const char *path, uint32_t mode);
int host_mknod(const char *path, uint32_t mode, uint32_t major, uint32_t minor);
int host_symlink(const char *target, const char *path);
int host_link(const char *old, const char *path, bool follow);
int host_unlink(const char *path);
int host_rmdir(const char *path);
int host_rename(const char *old, const char *path, unsigned flags);
int host_stat(const char *path, bool follow, struct moat_statx *st);
int host_chmod(const char *path, uint32_t mode);
int host_chown(const char *path, uint32_t uid, uint32_t gid, bool follow);
int host_truncate(const char *path, uint64_t size);
int host_access(const char *path, int mask);
int host_readlink(const char *path, char *buf, size_t size);
ssize_t host_getxattr(const char *path, const char *name, void *buf, size_t size);
ssize_t host_listxattr(const char *path, char *buf, size_t size);
int host_setxattr(const char *path, const char *name, const void *buf, size_t size, int flags);
int host_removexattr(const char *path, const char *name);
int host_utimens(const char *path, int64_t atime_ns, int64_t mtime_ns, int how);
int host_list(const char *path, char *buf, size_t size);
int host_chdir(const char *path);
int host_getcwd(char *buf, size_t size);
int host_mount(const char *path, unsigned long flags, const char *data);
int host_mount_type(const char *type, const char *path, const char *data);
int host_chroot(const char *path);
int host_lchown(const char *path, uint32_t uid, uint32_t gid);
int host_openat2(const char *path, int flags, uint32_t mode, uint64_t resolve);
int host_link_fd(int fd, const char *path);
int host_fchmod(int fd, uint32_t mode);
int host_fchown(int fd, uint32_t uid, uint32_t gid);
ssize_t host_read(int fd, void *buf, size_t size);
ssize_t host_write(int fd, const void *buf, size_t size);
ssize_t host_fgetxattr(int fd, const char *name, void *buf, size_t size);
int host_fsetxattr(int fd, const char *name, const void *buf, size_t size, int flags);
int host_access_nofollow(const char *path, int mask);
int host_relist(int fd, char *buf, size_t size);
int host_bind(const char *from, const char *to, bool recursive);
int host_remount(const char *path, unsigned long flags);
int host_umount(const char *path, int flags);
int host_move(const char *from, const char *to);

#endif
