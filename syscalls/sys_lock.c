/* syscalls/sys_lock.c - record locks of fcntl(2), and flock(2). */
#include <fcntl.h>
#include <sys/file.h>

#include "syscalls/syscalls.h"
#include "syscalls/util.h"
#include "vfs/locks.h"

/* struct flock of the kernel ABI */
struct user_flock {
	int16_t type, whence;
	int32_t pad0;
	int64_t start, len;
	int32_t pid, pad1;
};
_Static_assert(sizeof(struct user_flock) == 32, "flock ABI");

/* flock64_to_posix_lock: the range as absolute, inclusive bytes. */
static int range_of(struct file *f, const struct user_flock *u, struct file_lock *ret)
{
	struct moat_statx st = {0};
	int64_t start, end;
	int err;

	switch (u->whence) {
	case SEEK_SET:
		start = 0;
		break;
	case SEEK_CUR:
		start = f->pos;
		break;
	case SEEK_END:
		err = file_stat(f, &(struct stat_args){.mask = STATX_SIZE}, &st);
		if (err)
			return err;
		start = (int64_t)st.size;
		break;
	default:
		return -EINVAL;
	}
	if (__builtin_add_overflow(start, u->start, &start))
		return -EOVERFLOW;
	if (start < 0)
		return -EINVAL;
	end = INT64_MAX;
	if (u->len > 0) {
		if (__builtin_add_overflow(start, u->len - 1, &end))
			return -EOVERFLOW;
	} else if (u->len < 0) {
		if (start + u->len < 0)
			return -EINVAL;
		end = start - 1;
		start += u->len;
	}
	ret->start = (uint64_t)start;
	ret->end = (uint64_t)end;
	return 0;
}

/* The range is looked at first. */
static int request_of(struct task *t, struct file *f, const struct user_flock *u, bool ofd,
		      struct file_lock *ret)
{
	int err;

	*ret = (struct file_lock){
		.kind = ofd ? FILE_LOCK_OFD : FILE_LOCK_POSIX,
		.type = u->type,
		.owner = ofd ? (const void *)f : fd_table_owner(t->fdtable),
		.pid = ofd ? -1 : t->group->tgid,
	};
	err = range_of(f, u, ret);
	if (err)
		return err;
	return u->type == F_RDLCK || u->type == F_WRLCK || u->type == F_UNLCK ? 0 : -EINVAL;
}

static int64_t getlk(struct task *t, struct file *f, struct user_flock *u, bool ofd, uint64_t uaddr)
{
	struct file_lock req, found;
	int err;

	if (!ofd && u->type != F_RDLCK && u->type != F_WRLCK)
		return -EINVAL;
	err = request_of(t, f, u, ofd, &req);
	if (err)
		return err;
	if (ofd && u->pid)
		return -EINVAL;
	err = file_lock_test(f, &req, &found);
	if (err)
		return err;
	u->type = found.type;
	if (found.type != F_UNLCK) {
		u->whence = SEEK_SET;
		u->start = (int64_t)found.start;
		u->len = found.end == INT64_MAX ? 0 : (int64_t)(found.end - found.start + 1);
		u->pid = found.pid > 0 ? pid_vnr(t, found.pid) : found.pid;
	}
	return task_copy_out(t, uaddr, u, sizeof(*u));
}

/* Another thread closed the descriptor while we took the lock: nobody would ever drop it. */
static int64_t recheck_fd(struct task *t, struct file *f, int fd, const struct file_lock *req)
{
	struct file_lock undo = *req;
	struct file *now = fd_get(t->fdtable, fd);
	bool same = now == f;

	if (now)
		file_unref(now);
	if (same)
		return 0;
	undo.type = F_UNLCK;
	(void)!file_lock_set(f, &undo, false);
	return -EBADF;
}

static int64_t setlk(struct task *t, struct file *f, int fd, const struct user_flock *u, bool ofd,
		     bool wait)
{
	struct file_lock req;
	int err = request_of(t, f, u, ofd, &req);

	if (err)
		return err;
	if ((u->type == F_RDLCK && !(f->mode & FILE_READ)) ||
	    (u->type == F_WRLCK && !(f->mode & FILE_WRITE)))
		return -EBADF;
	if (ofd && u->pid)
		return -EINVAL;
	err = file_lock_set(f, &req, wait);
	if (!err && !ofd && u->type != F_UNLCK)
		return recheck_fd(t, f, fd, &req);
	return sys_restart(err);
}

int64_t fcntl_lock(struct task *t, struct file *f, int fd, unsigned cmd, uint64_t arg)
{
	bool ofd = cmd == F_OFD_GETLK || cmd == F_OFD_SETLK || cmd == F_OFD_SETLKW;
	struct user_flock u;

	if (task_copy_in(t, &u, arg, sizeof(u)))
		return -EFAULT;
	if (cmd == F_GETLK || cmd == F_OFD_GETLK)
		return getlk(t, f, &u, ofd, arg);
	return setlk(t, f, fd, &u, ofd, cmd == F_SETLKW || cmd == F_OFD_SETLKW);
}

int64_t sys_flock(struct task *t, const struct syscall_args *a)
{
	struct file_lock req = {.kind = FILE_LOCK_FLOCK, .end = INT64_MAX, .pid = t->group->tgid};
	unsigned op = ARG_UINT(1);
	struct file *f;
	int err;

	/* Share modes (LOCK_READ, LOCK_WRITE, LOCK_RW): gone from Linux, which says yes to them and does nothing, whatever the descriptor. */
	if (op & LOCK_MAND)
		return 0;
	switch (op & ~(unsigned)LOCK_NB) {
	case LOCK_SH:
		req.type = F_RDLCK;
		break;
	case LOCK_EX:
		req.type = F_WRLCK;
		break;
	case LOCK_UN:
		req.type = F_UNLCK;
		break;
	default:
		return -EINVAL;
	}
	f = sys_fd(t, ARG_INT(0));
	if (!f)
		return -EBADF;
	req.owner = f;
	if (req.type != F_UNLCK && !(f->mode & (FILE_READ | FILE_WRITE)))
		err = -EBADF;
	else
		err = file_lock_set(f, &req, !(op & LOCK_NB));
	file_unref(f);
	return sys_restart(err);
}
