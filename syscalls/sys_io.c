/* syscalls/sys_io.c - read, write and their vector and positional forms; lseek. */
#include <linux/fs.h>

#include "syscalls/syscalls.h"
#include "syscalls/util.h"

/* An interrupted call is restarted, unless it had a timeout (sock_intr_errno). */
static int64_t io_result(struct file *f, int64_t ret, bool is_read)
{
	if (ret == -EINTR && f->ops->io_timeout_ns && f->ops->io_timeout_ns(f, !is_read) > 0)
		return -EINTR;
	return sys_restart(ret);
}

/* vfs_read/vfs_write of one range; off NULL: at the file's own offset. */
static int64_t io_one(struct task *t, int fd, uint64_t addr, uint64_t size, const int64_t *off,
		      bool is_read)
{
	struct file *f = sys_fd(t, fd);
	struct io_iter it;
	struct iovec one;
	ssize_t ret;

	if (!f)
		return -EBADF;
	if (!(f->mode & (is_read ? FILE_READ : FILE_WRITE))) {
		ret = -EBADF;
		goto out_unref;
	}
	ret = -EFAULT;
	if (!sys_range_ok(addr, size))
		goto out_unref;
	/* rw_verify_area: a negative length as ssize_t. access_ok has excluded it. */
	mm_iter_init_one(t->mm, &it, &one, addr, MIN(size, FILE_IO_MAX), is_read);
	ret = is_read ? file_read_iter(f, &it, off, 0) : file_write_iter(f, &it, off, 0);
	io_iter_fini(&it);
	task_account_io(t, is_read, ret);
	ret = io_result(f, ret, is_read);
out_unref:
	file_unref(f);
	return ret;
}

static int64_t io_vec(struct task *t, int fd, uint64_t uiov, uint64_t count, const int64_t *off,
		      int rwf, bool is_read)
{
	struct iovec fast[SYS_IOV_FAST], *iov;
	struct file *f = sys_fd(t, fd);
	struct io_iter it;
	int64_t ret;

	/* Unlike those above, these are counted whatever happens. */
	if (!f) {
		task_account_io(t, is_read, -EBADF);
		return -EBADF;
	}
	ret = -ESPIPE;
	if (off && !(f->mode & FILE_SEEKABLE) && (f->mode & FILE_STREAM))
		goto out_unref;
	ret = -EBADF;
	if (!(f->mode & (is_read ? FILE_READ : FILE_WRITE)))
		goto out_unref;
	ret = sys_iov_get(t, uiov, count, fast, &iov);
	if (ret < 0)
		goto out_unref;
	mm_iter_init(t->mm, &it, iov, (unsigned)count, is_read);
	ret = is_read ? file_read_iter(f, &it, off, rwf) : file_write_iter(f, &it, off, rwf);
	io_iter_fini(&it);
	ret = io_result(f, ret, is_read);
	sys_iov_free(fast, iov);
out_unref:
	task_account_io(t, is_read, ret);
	file_unref(f);
	return ret;
}

int64_t sys_read(struct task *t, const struct syscall_args *a)
{
	return io_one(t, ARG_INT(0), a->a[1], a->a[2], NULL, true);
}

int64_t sys_write(struct task *t, const struct syscall_args *a)
{
	return io_one(t, ARG_INT(0), a->a[1], a->a[2], NULL, false);
}

int64_t sys_pread64(struct task *t, const struct syscall_args *a)
{
	int64_t off = ARG_LONG(3);

	return off < 0 ? -EINVAL : io_one(t, ARG_INT(0), a->a[1], a->a[2], &off, true);
}

int64_t sys_pwrite64(struct task *t, const struct syscall_args *a)
{
	int64_t off = ARG_LONG(3);

	return off < 0 ? -EINVAL : io_one(t, ARG_INT(0), a->a[1], a->a[2], &off, false);
}

int64_t sys_readv(struct task *t, const struct syscall_args *a)
{
	return io_vec(t, ARG_INT(0), a->a[1], a->a[2], NULL, 0, true);
}

int64_t sys_writev(struct task *t, const struct syscall_args *a)
{
	return io_vec(t, ARG_INT(0), a->a[1], a->a[2], NULL, 0, false);
}

/* On 64-bit the whole offset is in the low argument; the high one is shifted out. */
static int64_t io_vec_at(struct task *t, const struct syscall_args *a, int rwf, bool is_read)
{
	int64_t off = ARG_LONG(3);

	return off < 0 ? -EINVAL : io_vec(t, ARG_INT(0), a->a[1], a->a[2], &off, rwf, is_read);
}

int64_t sys_preadv(struct task *t, const struct syscall_args *a)
{
	return io_vec_at(t, a, 0, true);
}

int64_t sys_pwritev(struct task *t, const struct syscall_args *a)
{
	return io_vec_at(t, a, 0, false);
}

int64_t sys_preadv2(struct task *t, const struct syscall_args *a)
{
	if (ARG_LONG(3) == -1)
		return io_vec(t, ARG_INT(0), a->a[1], a->a[2], NULL, ARG_INT(5), true);
	return io_vec_at(t, a, ARG_INT(5), true);
}

int64_t sys_pwritev2(struct task *t, const struct syscall_args *a)
{
	if (ARG_LONG(3) == -1)
		return io_vec(t, ARG_INT(0), a->a[1], a->a[2], NULL, ARG_INT(5), false);
	return io_vec_at(t, a, ARG_INT(5), false);
}

int64_t sys_lseek(struct task *t, const struct syscall_args *a)
{
	struct file *f = sys_fd(t, ARG_INT(0));
	int64_t ret;

	if (!f)
		return -EBADF;
	ret = ARG_UINT(2) <= SEEK_HOLE ? file_seek(f, ARG_LONG(1), ARG_INT(2)) : -EINVAL;
	file_unref(f);
	return ret;
}
