#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tests/fs/host_ops.h"

#define RET(call)                         \
	({                                \
		long ret_ = (long)(call); \
		ret_ < 0 ? -errno : ret_; \
	})

int host_at = AT_FDCWD;

static char host_dir[] = "/tmp/moat-differential-XXXXXX";

int host_init(void)
{
	int status;
	pid_t pid;

	if (geteuid())
		return -EPERM;
	if (!mkdtemp(host_dir))
		return -errno;
	/* The child compares; this process removes the directory, which is a mount point only there. */
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid) {
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
		rmdir(host_dir);
		_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
	}
	if (unshare(CLONE_NEWNS | CLONE_FS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("tmpfs", host_dir, "tmpfs", 0, "mode=755"))
		return -errno;
	return 0;
}

int host_scratch(char *path, size_t size)
{
	snprintf(path, size, "%s", host_dir);
	return 0;
}

int host_enter(void)
{
	/* Over what host_scratch() gave, which stays with who opened it. */
	if (mount("tmpfs", host_dir, "tmpfs", 0, "mode=755") || chroot(host_dir) || chdir("/"))
		return -errno;
	return 0;
}

int host_become(uint32_t uid, uint32_t gid, const uint32_t *groups, uint32_t ngroups, uint64_t caps)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];

	/* All that is permitted first: what the last one was left with may not be enough to change. */
	if (syscall(SYS_setresuid, -1, 0, -1) || syscall(SYS_capget, &head, data))
		return -errno;
	data[0].effective = data[0].permitted;
	data[1].effective = data[1].permitted;
	if (syscall(SYS_capset, &head, data) || syscall(SYS_setresuid, 0, 0, 0))
		return -errno;
	if (syscall(SYS_setgroups, ngroups, groups) || syscall(SYS_setresgid, gid, gid, gid))
		return -errno;
	/* The saved id stays root's, so that the way back is open. */
	if (syscall(SYS_setresuid, uid, uid, 0))
		return -errno;
	if (syscall(SYS_capget, &head, data))
		return -errno;
	data[0].effective = (uint32_t)caps & data[0].permitted;
	data[1].effective = (uint32_t)(caps >> 32) & data[1].permitted;
	return syscall(SYS_capset, &head, data) ? -errno : 0;
}

void host_umask(uint32_t mask)
{
	umask(mask);
}
int host_open(const char *path, int flags, uint32_t mode)
{
	return (int)RET(openat(host_at, path, flags | O_CLOEXEC | O_NONBLOCK, mode));
}
void host_close(int fd)
{
	close(fd);
}
ssize_t host_pwrite(int fd, const void *buf, size_t size, int64_t off)
{
	return RET(pwrite(fd, buf, size, off));
}
ssize_t host_pread(int fd, void *buf, size_t size, int64_t off)
{
	return RET(pread(fd, buf, size, off));
}
int host_fallocate(int fd, int mode, uint64_t off, uint64_t size)
{
	return (int)RET(fallocate(fd, mode, (off_t)off, (off_t)size));
}
int64_t host_lseek(int fd, int64_t off, int whence)
{
	return RET(lseek(fd, off, whence));
}
int host_fstat(int fd, struct moat_statx *st)
{
	return (int)RET(syscall(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, st));
}
int host_ftruncate(int fd, uint64_t size)
{
	return (int)RET(ftruncate(fd, (off_t)size));
}
int host_mkdir(const char *path, uint32_t mode)
{
	return (int)RET(mkdirat(host_at, path, mode));
}
int host_mknod(const char *path, uint32_t mode, uint32_t major, uint32_t minor)
{
	return (int)RET(mknodat(host_at, path, mode, makedev(major, minor)));
}
int host_symlink(const char *target, const char *path)
{
	return (int)RET(symlinkat(target, host_at, path));
}
int host_link(const char *old, const char *path, bool follow)
{
	return (int)RET(linkat(host_at, old, host_at, path, follow ? AT_SYMLINK_FOLLOW : 0));
}
int host_unlink(const char *path)
{
	return (int)RET(unlinkat(host_at, path, 0));
}
int host_rmdir(const char *path)
{
	return (int)RET(unlinkat(host_at, path, AT_REMOVEDIR));
}
int host_rename(const char *old, const char *path, unsigned flags)
{
	return (int)RET(syscall(SYS_renameat2, host_at, old, host_at, path, flags));
}
int host_stat(const char *path, bool follow, struct moat_statx *st)
{
	return (int)RET(syscall(SYS_statx, host_at, path, follow ? 0 : AT_SYMLINK_NOFOLLOW,
				STATX_BASIC_STATS, st));
}
int host_chmod(const char *path, uint32_t mode)
{
	return (int)RET(fchmodat(host_at, path, mode, 0));
}
int host_chown(const char *path, uint32_t uid, uint32_t gid, bool follow)
{
	return (int)RET(fchownat(host_at, path, uid, gid, follow ? 0 : AT_SYMLINK_NOFOLLOW));
}
int host_truncate(const char *path, uint64_t size)
{
	return (int)RET(truncate(path, (off_t)size));
}
/* Takes fd. */
static int list_fd(int fd, char *buf, size_t size)
{
	int count = 0;
	struct dirent *de;
	size_t len = 0;
	DIR *dir;

	dir = fdopendir(fd);
	errno = 0;
	while ((de = readdir(dir))) {
		size_t n = strlen(de->d_name);

		if (!strcmp(de->d_name, ".") || !strcmp(de->d_name, ".."))
			continue;
		/* An overlay's directory with one layer shows whiteouts that were put there by hand; none can be looked up. */
		if (de->d_type == DT_CHR &&
		    faccessat(dirfd(dir), de->d_name, F_OK, AT_SYMLINK_NOFOLLOW) &&
		    errno == ENOENT) {
			errno = 0;
			continue;
		}
		if (len + n + 2 > size)
			break;
		memcpy(buf + len, de->d_name, n);
		len += n;
		buf[len++] = '\n';
		count++;
	}
	/* readdir() hides that a directory was removed; the caller's list is empty then. */
	buf[len] = '\0';
	closedir(dir);
	return count;
}

int host_lchown(const char *path, uint32_t uid, uint32_t gid)
{
	return (int)RET(fchownat(host_at, path, uid, gid, AT_SYMLINK_NOFOLLOW));
}
int host_openat2(const char *path, int flags, uint32_t mode, uint64_t resolve)
{
	struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC |
						   (flags & O_PATH ? 0 : O_NONBLOCK)),
			       .resolve = resolve};

	if (flags & O_CREAT)
		how.mode = mode & 07777;
	/* A ".." below RESOLVE_BENEATH or IN_ROOT is EAGAIN when anything on the host was renamed or mounted meanwhile. */
	for (unsigned tries = 0; tries < 10000; tries++) {
		long fd = RET(syscall(SYS_openat2, host_at, path, &how, sizeof(how)));

		if (fd != -EAGAIN)
			return (int)fd;
	}
	return -EAGAIN;
}
int host_link_fd(int fd, const char *path)
{
	return (int)RET(linkat(fd, "", host_at, path, AT_EMPTY_PATH));
}
int host_fchmod(int fd, uint32_t mode)
{
	return (int)RET(fchmod(fd, mode));
}
int host_fchown(int fd, uint32_t uid, uint32_t gid)
{
	return (int)RET(fchown(fd, uid, gid));
}
ssize_t host_read(int fd, void *buf, size_t size)
{
	return RET(read(fd, buf, size));
}
ssize_t host_write(int fd, const void *buf, size_t size)
{
	return RET(write(fd, buf, size));
}
ssize_t host_fgetxattr(int fd, const char *name, void *buf, size_t size)
{
	return RET(fgetxattr(fd, name, buf, size));
}
int host_fsetxattr(int fd, const char *name, const void *buf, size_t size, int flags)
{
	return (int)RET(fsetxattr(fd, name, buf, size, flags));
}
int host_access_nofollow(const char *path, int mask)
{
	return (int)RET(
		syscall(SYS_faccessat2, host_at, path, mask, AT_EACCESS | AT_SYMLINK_NOFOLLOW));
}
/* A directory that is open, from its start. */
int host_relist(int fd, char *buf, size_t size)
{
	if (lseek(fd, 0, SEEK_SET) < 0)
		return -errno;
	return list_fd(dup(fd), buf, size);
}
int host_access(const char *path, int mask)
{
	/* The effective ids and capabilities are those that were set. */
	return (int)RET(syscall(SYS_faccessat2, host_at, path, mask, AT_EACCESS));
}
int host_readlink(const char *path, char *buf, size_t size)
{
	long n = RET(readlinkat(host_at, path, buf, size - 1));

	if (n >= 0)
		buf[n] = '\0';
	return (int)n;
}
ssize_t host_getxattr(const char *path, const char *name, void *buf, size_t size)
{
	return RET(getxattr(path, name, buf, size));
}
ssize_t host_listxattr(const char *path, char *buf, size_t size)
{
	return RET(listxattr(path, buf, size));
}
int host_setxattr(const char *path, const char *name, const void *buf, size_t size, int flags)
{
	return (int)RET(setxattr(path, name, buf, size, flags));
}
int host_removexattr(const char *path, const char *name)
{
	return (int)RET(removexattr(path, name));
}

/* how: 0 both given, 1 both now, 2 atime omitted, 3 atime now and mtime omitted. */
int host_utimens(const char *path, int64_t atime_ns, int64_t mtime_ns, int how)
{
	struct timespec ts[2] = {{atime_ns / 1000000000, atime_ns % 1000000000},
				 {mtime_ns / 1000000000, mtime_ns % 1000000000}};

	if (how == 1)
		ts[0].tv_nsec = ts[1].tv_nsec = UTIME_NOW;
	else if (how == 2)
		ts[0].tv_nsec = UTIME_OMIT;
	else if (how == 3)
		ts[0].tv_nsec = UTIME_NOW, ts[1].tv_nsec = UTIME_OMIT;
	return (int)RET(utimensat(host_at, path, ts, 0));
}

int host_list(const char *path, char *buf, size_t size)
{
	int fd = openat(host_at, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? -errno : list_fd(fd, buf, size);
}
int host_chdir(const char *path)
{
	return (int)RET(chdir(path));
}
int host_getcwd(char *buf, size_t size)
{
	return (int)RET(syscall(SYS_getcwd, buf, size));
}
int host_mount(const char *path, unsigned long flags, const char *data)
{
	return (int)RET(mount("tmpfs", path, "tmpfs", flags, data));
}
int host_mount_type(const char *type, const char *path, const char *data)
{
	return (int)RET(mount(type, path, type, 0, data));
}
int host_chroot(const char *path)
{
	return (int)RET(chroot(path)) ?: (int)RET(chdir("/"));
}
int host_bind(const char *from, const char *to, bool recursive)
{
	return (int)RET(mount(from, to, NULL, MS_BIND | (recursive ? MS_REC : 0), NULL));
}
int host_remount(const char *path, unsigned long flags)
{
	return (int)RET(mount(NULL, path, NULL, MS_REMOUNT | MS_BIND | flags, NULL));
}
int host_umount(const char *path, int flags)
{
	return (int)RET(umount2(path, flags));
}
int host_move(const char *from, const char *to)
{
	return (int)RET(mount(from, to, NULL, MS_MOVE, NULL));
}
