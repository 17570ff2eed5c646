/*
 * syscalls/util.h - what the families share: paths, descriptors, iovecs, limits. Internal to syscalls/.
 */
#ifndef MOAT_SYSCALLS_UTIL_H
#define MOAT_SYSCALLS_UTIL_H

#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>

#include "sentry/fdtable.h"
#include "sentry/pidns.h"
#include "sentry/task.h"
#include "vfs/vfs.h"

#define SYS_AT_FDCWD (-100)
/* glibc hides these two on 64-bit */
#define SYS_O_LARGEFILE 0100000
#define SYS_O_TMPFILE 020000000 /* __O_TMPFILE: without O_DIRECTORY */
#define SYS_IOV_MAX 1024 /* UIO_MAXIOV */
#define SYS_IOV_FAST 8 /* UIO_FASTIOV: copied to the stack */

/* arguments as the C types of Linux's prototypes */
#define ARG_INT(n) ((int)a->a[n])
#define ARG_UINT(n) ((unsigned)a->a[n])
#define ARG_LONG(n) ((int64_t)a->a[n])
#define ARG_U64(n) (a->a[n])

/* An interrupted wait restarts by SA_RESTART's rule. */
static inline int64_t sys_restart(int64_t ret)
{
	return ret == -EINTR ? -ERESTARTSYS_ : ret;
}

/*
 * A path argument on its way into the VFS. Lives on the stack of one call; sys_path_put() lets go of what it holds. `lk` is valid in between.
 * `file` is the dirfd's description when one was needed.
 */
struct sys_path {
	struct vfs_lookup lk;
	struct fs_places *places; /* pinned: root and working directory are borrowed from it */
	struct vfs_path root, start; /* borrowed: from places, or start from `file` */
	struct file *file;
	bool empty; /* the path was "" and LOOKUP_EMPTY allowed it: lk names the dirfd itself */
	char path[VFS_PATH_MAX];
};

/*
 * sys_path_get - (dirfd, guest path, LOOKUP_*) to a lookup. A NULL path is an empty one only where LOOKUP_EMPTY and allow_null say so.
 * Return: 0, -EFAULT, -ENOENT (empty), -ENAMETOOLONG, -EBADF (relative, no such descriptor), -ENOTDIR left to the walk.
 */
must_check int sys_path_get(struct task *t, int dirfd, uint64_t upath, unsigned lookup_flags,
			    struct sys_path *p);
/* As sys_path_get() for a path that is in p->path already. */
must_check int sys_path_init(struct task *t, int dirfd, unsigned lookup_flags, struct sys_path *p);
/* The descriptor itself as an empty lookup (fchmod, fsetxattr: O_PATH refused). -EBADF. */
must_check int sys_path_from_fd(struct task *t, int fd, bool allow_path_only, struct sys_path *p);
void sys_path_put(struct sys_path *p);

/* A descriptor that is not O_PATH (fdget); NULL: -EBADF. A reference. */
struct file *sys_fd(struct task *t, int fd);
/* Any descriptor (fdget_raw). */
struct file *sys_fd_raw(struct task *t, int fd);

/* RLIMIT_NOFILE, as far as tables go. */
static inline unsigned sys_fd_limit(struct task *t)
{
	return (unsigned)MIN(task_rlimit(t, RLIMIT_NOFILE), (uint64_t)FD_TABLE_MAX);
}

/* The lowest descriptor for f, which is taken (also on failure). Return: fd, -EMFILE, -ENOMEM. */
must_check int sys_fd_install(struct task *t, struct file *f, bool cloexec);
/* Two descriptors for a and b (both taken), written to guest memory as int[2]. */
must_check int sys_fd_install_pair(struct task *t, struct file *fa, struct file *fb, bool cloexec,
				   uint64_t uaddr);

/* import_iovec: copies and checks an array. `*ret_iov` is `fast` or malloc'd (sys_iov_free). Return: total bytes (cut at FILE_IO_MAX), -EFAULT, -EINVAL, -ENOMEM. */
must_check int64_t sys_iov_get(struct task *t, uint64_t uiov, uint64_t count, struct iovec *fast,
			       struct iovec **ret_iov);
static inline void sys_iov_free(struct iovec *fast, struct iovec *iov)
{
	if (iov != fast)
		free(iov);
}

/* access_ok(): the range lies below the end of user space. */
static inline bool sys_range_ok(uint64_t addr, uint64_t size)
{
	return size <= ARCH_TASK_SIZE && addr <= ARCH_TASK_SIZE - size;
}

struct moat_timespec {
	int64_t sec, nsec;
};
struct moat_timeval {
	int64_t sec, usec;
};
/* A relative timeout to a host CLOCK_MONOTONIC deadline; uaddr 0: TIME_FOREVER. -EFAULT, -EINVAL. */
must_check int sys_timespec_deadline(struct task *t, uint64_t uaddr, int64_t *ret_deadline,
				     bool *ret_zero);
int64_t sys_deadline_after(int64_t ns); /* now + ns, saturating */

/* copy_struct_from_user: a sized struct; bytes past ksize must be zero (-E2BIG). */
must_check int sys_copy_struct_in(struct task *t, void *dst, size_t ksize, uint64_t uaddr,
				  uint64_t usize);

/* sys_poll.c: the temporary signal mask of ppoll, pselect6, epoll_pwait; umask 0: none. -EINVAL, -EFAULT. */
must_check int sys_temp_mask(struct task *t, uint64_t umask, uint64_t size);
/* sys_fcntl.c: vfs_hooks.send_sigio. */
void fcntl_send_sigio(struct file *f, uint32_t events);
/* vfs_hooks.opened_elsewhere: looks through every descriptor table. */
bool fcntl_opened_elsewhere(struct file *f, bool writers);
/* F_SETFL's and FIONBIO's end: O_ASYNC may begin, with `fd` for si_fd. -ENOMEM. */
must_check int sys_file_set_flags(struct file *f, int fd, unsigned new_flags);
/* sys_lock.c: fcntl's record locks; arg is a guest struct flock. */
int64_t fcntl_lock(struct task *t, struct file *f, int fd, unsigned cmd, uint64_t arg);

#endif
