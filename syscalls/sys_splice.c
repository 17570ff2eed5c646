/*
 * syscalls/sys_splice.c - data from file to file: sendfile, splice, tee, vmsplice, copy_file_range.
 *
 * The pipe does the moving (fsimpl/pipe) and never waits; the waiting is here, on both ends.
 */
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>

#include "fsimpl/pipe/pipe.h"
#include "syscalls/syscalls.h"
#include "syscalls/util.h"

#define SPLICE_KNOWN (SPLICE_F_MOVE | SPLICE_F_NONBLOCK | SPLICE_F_MORE | SPLICE_F_GIFT)
#define COPY_CHUNK (64u << 10)
#define COPY_RANGE_STEP (16u << 20) /* by the host, and no signal meanwhile */

static uint32_t file_type(struct file *f)
{
	struct dentry *d = f->path.dentry;

	return d ? d->fs->ops->dentry_type(d) : 0;
}

/* An operation between two files that said -EAGAIN: waits for the one that is not ready. Return: 0, -EAGAIN, -EINTR. */
static int wait_both(struct file *in, struct file *out, bool nonblock)
{
	int err;

	if (nonblock)
		return -EAGAIN;
	if (!(file_poll(in) & (POLLIN | POLLHUP | POLLERR)))
		err = file_flags(in) & O_NONBLOCK ? -EAGAIN : file_wait(in, POLLIN, TIME_FOREVER);
	else
		err = file_flags(out) & O_NONBLOCK ? -EAGAIN
						   : file_wait(out, POLLOUT, TIME_FOREVER);
	return err;
}

/* Linux's anonymous files have neither splice_read nor splice_write, whatever read(2) and write(2) do. */
static bool cannot_splice(const struct file *f)
{
	return f->ops->name && !strncmp(f->ops->name, "anon_inode:", 11);
}

static bool cannot_splice_from(const struct file *f)
{
	return cannot_splice(f) || f->ops->no_splice_read || f->ops->iterate;
}

static bool cannot_splice_to(const struct file *f)
{
	return cannot_splice(f) || f->ops->no_splice_write;
}

/* ---- copying through sentry memory: sendfile to anything, copy_file_range ---- */

/* One chunk from in at *off_in (NULL: its own offset) to out. What out does not take is given back to in's offset. */
static ssize_t copy_chunk(struct file *in, int64_t *off_in, struct file *out, int64_t *off_out,
			  void *buf, size_t size)
{
	struct io_iter it;
	ssize_t got, put = 0;
	int64_t unused;

	io_iter_init_kernel(&it, buf, size, true);
	got = file_read_iter(in, &it, off_in, 0);
	io_iter_fini(&it);
	if (got <= 0)
		return got;
	while (put < got) {
		int64_t at = off_out ? *off_out + put : 0;
		ssize_t n;

		io_iter_init_kernel(&it, (char *)buf + put, (size_t)(got - put), false);
		n = file_write_iter(out, &it, off_out ? &at : NULL, 0);
		io_iter_fini(&it);
		if (n <= 0) {
			if (!put)
				put = n;
			break;
		}
		put += n;
	}
	if (put < got && !off_in) {
		unused = file_seek(in, -(int64_t)(got - MAX(put, (ssize_t)0)), SEEK_CUR);
		(void)unused;
	}
	if (put > 0 && off_in)
		*off_in += put;
	if (put > 0 && off_out)
		*off_out += put;
	return put;
}

static int64_t copy_loop(struct task *t, struct file *in, int64_t *off_in, struct file *out,
			 int64_t *off_out, uint64_t size)
{
	int64_t done = 0;
	ssize_t n = 0;
	void *buf;

	if (!size)
		return 0;
	buf = malloc(MIN(size, (uint64_t)COPY_CHUNK));
	if (!buf)
		return -ENOMEM;
	while ((uint64_t)done < size) {
		n = copy_chunk(in, off_in, out, off_out, buf,
			       MIN(size - (uint64_t)done, (uint64_t)COPY_CHUNK));
		if (n <= 0)
			break;
		done += n;
		if (task_should_interrupt(t))
			break;
	}
	free(buf);
	return done ? done : sys_restart(n);
}

/* ---- sendfile ---- */

static int sendfile_files(struct task *t, int out_fd, int in_fd, bool has_off,
			  struct file **ret_out, struct file **ret_in)
{
	struct file *in = sys_fd(t, in_fd), *out;
	int err;

	if (!in)
		return -EBADF;
	err = -EBADF;
	if (!(in->mode & FILE_READ))
		goto out_in;
	err = -ESPIPE;
	if (has_off && !(in->mode & FILE_SEEKABLE))
		goto out_in;
	out = sys_fd(t, out_fd);
	err = -EBADF;
	if (!out)
		goto out_in;
	if (!(out->mode & FILE_WRITE))
		goto out_out;
	err = -EINVAL;
	if (file_flags(out) & O_APPEND)
		goto out_out;
	/* splice_direct_to_actor: the source is a file or a block device, or a pipe when the target is none. */
	if ((!S_ISREG(file_type(in)) && !S_ISBLK(file_type(in)) && !S_ISCHR(file_type(in))) ||
	    cannot_splice_from(in) || cannot_splice_to(out))
		goto out_out;
	*ret_in = in;
	*ret_out = out;
	return 0;

out_out:
	file_unref(out);
out_in:
	file_unref(in);
	return err;
}

int64_t sys_sendfile(struct task *t, const struct syscall_args *a)
{
	uint64_t uoff = a->a[2], size = MIN(a->a[3], FILE_IO_MAX);
	struct file *in, *out;
	int64_t off = 0, ret;

	if (uoff && task_copy_in(t, &off, uoff, sizeof(off)))
		return -EFAULT;
	ret = sendfile_files(t, ARG_INT(0), ARG_INT(1), uoff, &out, &in);
	if (ret)
		return ret;
	ret = file_verify_area(in, uoff ? &off : NULL, a->a[3]);
	if (!ret)
		ret = file_verify_area(out, NULL, size);
	if (!ret)
		ret = copy_loop(t, in, uoff ? &off : NULL, out, NULL, size);
	task_account_io(t, true, ret);
	task_account_io(t, false, ret);
	if (uoff && task_copy_out(t, uoff, &off, sizeof(off)))
		ret = -EFAULT;
	file_unref(in);
	file_unref(out);
	return ret;
}

/* ---- copy_file_range ---- */

static int copy_range_check(struct file *in, struct file *out)
{
	if (S_ISDIR(file_type(in)) || S_ISDIR(file_type(out)))
		return -EISDIR;
	if (!S_ISREG(file_type(in)) || !S_ISREG(file_type(out)))
		return -EINVAL;
	if (!(in->mode & FILE_READ) || !(out->mode & FILE_WRITE) || (file_flags(out) & O_APPEND))
		return -EBADF;
	/* A host file passed in as stdio moves at the host's offset: callers fall back to read and write. */
	return (in->mode | out->mode) & FILE_STREAM ? -EINVAL : 0;
}

/* Two superblocks, unless the file system has a copy_file_range of its own, which is asked whatever they are. */
static bool other_filesystem(struct file *in, struct file *out)
{
	const struct filesystem *a = in->path.dentry->fs, *b = out->path.dentry->fs;

	return a != b && (a->type != b->type || !a->type || !strcmp(a->type->name, "tmpfs"));
}

static bool same_inode(struct file *x, struct file *y)
{
	struct dentry *a = x->path.dentry, *b = y->path.dentry;

	return a == b || (a->fs == b->fs && a->fs->ops->inode_key(a) == b->fs->ops->inode_key(b));
}

/* generic_copy_file_checks() behind the files' own. Offsets are compared as they come, a negative one as a large one. */
static int copy_range_limits(struct file *in, uint64_t off_in, struct file *out, uint64_t off_out,
			     uint64_t *inout_size)
{
	struct moat_statx st;
	uint64_t size = *inout_size;
	int err;

	if (other_filesystem(in, out))
		return -EXDEV;
	if (off_in + size < off_in || off_out + size < off_out)
		return -EOVERFLOW;
	err = file_stat(in, &(struct stat_args){.mask = STATX_SIZE}, &st);
	if (err)
		return err;
	if ((int64_t)off_in >= (int64_t)st.size)
		size = 0;
	size = MIN(size, st.size - off_in);
	if ((int64_t)off_out == INT64_MAX)
		return -EFBIG;
	size = MIN(size, INT64_MAX - off_out);
	if (same_inode(in, out) && off_out + size > off_in && off_out < off_in + size)
		return -EINVAL;
	if ((int64_t)size < 0 || (int64_t)off_in < 0 || (int64_t)off_out < 0)
		return -EINVAL;
	*inout_size = MIN(size, FILE_IO_MAX);
	return 0;
}

/* By the files themselves, where they can. */
static int64_t copy_range(struct task *t, struct file *in, int64_t *off_in, struct file *out,
			  int64_t *off_out, uint64_t size)
{
	int64_t done = 0;
	ssize_t n = 0;

	while ((uint64_t)done < size && !(done && task_should_interrupt(t))) {
		n = file_copy_range(in, *off_in, out, *off_out,
				    MIN(size - (uint64_t)done, (uint64_t)COPY_RANGE_STEP));
		if (n <= 0)
			break;
		*off_in += n;
		*off_out += n;
		done += n;
	}
	/* 0: some files of the host have no size to go by. */
	if (!done && (n == -EOPNOTSUPP || n == 0))
		return copy_loop(t, in, off_in, out, off_out, size);
	return done ? done : sys_restart(n);
}

int64_t sys_copy_file_range(struct task *t, const struct syscall_args *a)
{
	uint64_t size = a->a[4], uin = a->a[1], uout = a->a[3];
	struct file *in = sys_fd(t, ARG_INT(0)), *out = sys_fd(t, ARG_INT(2));
	int64_t off_in, off_out, ret = -EBADF;

	if (!in || !out)
		goto out_unref;
	ret = -EFAULT;
	if ((uin && task_copy_in(t, &off_in, uin, sizeof(off_in))) ||
	    (uout && task_copy_in(t, &off_out, uout, sizeof(off_out))))
		goto out_unref;
	ret = -EINVAL;
	if (a->a[5])
		goto out_unref;
	ret = copy_range_check(in, out);
	if (ret)
		goto out_unref;
	if (!uin)
		off_in = file_seek(in, 0, SEEK_CUR);
	if (!uout)
		off_out = file_seek(out, 0, SEEK_CUR);
	ret = copy_range_limits(in, (uint64_t)off_in, out, (uint64_t)off_out, &size);
	if (ret)
		goto out_unref;
	ret = copy_range(t, in, &off_in, out, &off_out, size);
	task_account_io(t, true, ret);
	task_account_io(t, false, ret);
	if (ret <= 0)
		goto out_unref;
	if (!uin)
		(void)!file_seek(in, off_in, SEEK_SET);
	else if (task_copy_out(t, uin, &off_in, sizeof(off_in)))
		ret = -EFAULT;
	if (!uout)
		(void)!file_seek(out, off_out, SEEK_SET);
	else if (task_copy_out(t, uout, &off_out, sizeof(off_out)))
		ret = -EFAULT;
out_unref:
	if (in)
		file_unref(in);
	if (out)
		file_unref(out);
	return ret;
}

/* ---- splice ---- */

static int64_t splice_once(struct file *in, int64_t *off_in, struct file *out, int64_t *off_out,
			   size_t size)
{
	if (pipe_is(in) && pipe_is(out))
		return pipe_splice_pipe(in, out, size);
	if (pipe_is(in))
		return pipe_splice_to(in, out, off_out, size);
	return pipe_splice_from(in, off_in, out, size);
}

/* do_splice's checks of which end may have an offset. */
static int splice_check(struct file *in, bool has_in, struct file *out, bool has_out)
{
	if ((pipe_is(in) && has_in) || (pipe_is(out) && has_out))
		return -ESPIPE;
	if (!(in->mode & FILE_READ) || !(out->mode & FILE_WRITE))
		return -EBADF;
	if (!pipe_is(in) && !pipe_is(out))
		return -EINVAL;
	if (has_in && !(in->mode & FILE_SEEKABLE))
		return -EINVAL;
	if (has_out && !(out->mode & FILE_SEEKABLE))
		return -EINVAL;
	if (pipe_is(in) && !pipe_is(out) && (file_flags(out) & O_APPEND))
		return -EINVAL;
	/* Before anybody waits for the pipe. */
	return cannot_splice_from(in) || cannot_splice_to(out) ? -EINVAL : 0;
}

int64_t sys_splice(struct task *t, const struct syscall_args *a)
{
	uint64_t uin = a->a[1], uout = a->a[3], size = MIN(a->a[4], FILE_IO_MAX);
	struct file *in = NULL, *out = NULL;
	int64_t off_in, off_out, ret;

	if (!size)
		return 0;
	if (ARG_UINT(5) & ~(unsigned)SPLICE_KNOWN)
		return -EINVAL;
	ret = -EBADF;
	in = sys_fd(t, ARG_INT(0));
	out = sys_fd(t, ARG_INT(2));
	if (!in || !out)
		goto out_unref;
	ret = splice_check(in, uin, out, uout);
	if (ret)
		goto out_unref;
	ret = -EFAULT;
	if ((uin && task_copy_in(t, &off_in, uin, sizeof(off_in))) ||
	    (uout && task_copy_in(t, &off_out, uout, sizeof(off_out))))
		goto out_unref;
	ret = pipe_is(in) ? 0 : file_verify_area(in, uin ? &off_in : NULL, a->a[4]);
	if (!ret && !pipe_is(out))
		ret = file_verify_area(out, uout ? &off_out : NULL, a->a[4]);
	if (ret)
		goto out_unref;
	for (;;) {
		ret = splice_once(in, uin ? &off_in : NULL, out, uout ? &off_out : NULL, size);
		if (ret != -EAGAIN)
			break;
		ret = wait_both(in, out, ARG_UINT(5) & SPLICE_F_NONBLOCK);
		if (ret)
			break;
	}
	if (ret > 0 && ((uin && task_copy_out(t, uin, &off_in, sizeof(off_in))) ||
			(uout && task_copy_out(t, uout, &off_out, sizeof(off_out)))))
		ret = -EFAULT;
out_unref:
	if (in)
		file_unref(in);
	if (out)
		file_unref(out);
	return sys_restart(ret);
}

int64_t sys_tee(struct task *t, const struct syscall_args *a)
{
	struct file *in, *out;
	int64_t ret;

	if (ARG_UINT(3) & ~(unsigned)SPLICE_KNOWN)
		return -EINVAL;
	if (!a->a[2])
		return 0;
	in = sys_fd(t, ARG_INT(0));
	out = sys_fd(t, ARG_INT(1));
	ret = -EBADF;
	if (!in || !out || !(in->mode & FILE_READ) || !(out->mode & FILE_WRITE))
		goto out_unref;
	ret = -EINVAL;
	if (!pipe_is(in) || !pipe_is(out))
		goto out_unref;
	for (;;) {
		ret = pipe_tee(in, out, MIN(a->a[2], FILE_IO_MAX));
		if (ret != -EAGAIN)
			break;
		ret = wait_both(in, out, ARG_UINT(3) & SPLICE_F_NONBLOCK);
		if (ret)
			break;
	}
out_unref:
	if (in)
		file_unref(in);
	if (out)
		file_unref(out);
	return sys_restart(ret);
}

int64_t sys_vmsplice(struct task *t, const struct syscall_args *a)
{
	struct iovec fast[SYS_IOV_FAST], *iov;
	unsigned flags = ARG_UINT(3);
	struct io_iter it;
	struct file *f;
	int64_t ret;

	if (flags & ~(unsigned)SPLICE_KNOWN)
		return -EINVAL;
	f = sys_fd(t, ARG_INT(0));
	if (!f)
		return -EBADF;
	ret = sys_iov_get(t, a->a[1], a->a[2], fast, &iov);
	if (ret < 0)
		goto out_unref;
	if (!pipe_is(f) || !ret) {
		ret = pipe_is(f) ? 0 : -EBADF;
		goto out_free;
	}
	mm_iter_init(t->mm, &it, iov, (unsigned)a->a[2], !(f->mode & FILE_WRITE));
	for (;;) {
		if (!(f->mode & FILE_WRITE)) {
			/* vmsplice_to_user is a readv */
			ret = file_read_iter(f, &it, NULL, 0);
			break;
		}
		ret = pipe_vmsplice(f, &it);
		if (ret != -EAGAIN)
			break;
		ret = -EAGAIN;
		if ((flags & SPLICE_F_NONBLOCK) || (file_flags(f) & O_NONBLOCK))
			break;
		ret = file_wait(f, POLLOUT, TIME_FOREVER);
		if (ret)
			break;
	}
	io_iter_fini(&it);
out_free:
	sys_iov_free(fast, iov);
out_unref:
	file_unref(f);
	return sys_restart(ret);
}
