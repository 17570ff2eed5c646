/* syscalls/sys_aio.c - asynchronous I/O: io_setup, io_submit, io_getevents and kin. */
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <poll.h>

#include "fsimpl/anon/anon.h"
#include "sentry/aio.h"
#include "syscalls/syscalls.h"
#include "syscalls/util.h"

#define AIO_EVENTS_MAX (0x10000000 / sizeof(struct aio_event)) /* io_setup's -EINVAL past it */
#define IOCB_CMD_POLL_ 5

_Static_assert(sizeof(struct iocb) == 64, "struct iocb");

int64_t sys_io_setup(struct task *t, const struct syscall_args *a)
{
	uint64_t id;
	int err;

	if (task_copy_in(t, &id, a->a[1], sizeof(id)))
		return -EFAULT;
	if (id || !ARG_UINT(0) || ARG_UINT(0) > AIO_EVENTS_MAX)
		return -EINVAL;
	err = aio_context_create(t, ARG_UINT(0), &id);
	if (err)
		return err;
	if (task_copy_out(t, a->a[1], &id, sizeof(id))) {
		(void)!aio_context_destroy(t, id);
		return -EFAULT;
	}
	return 0;
}

int64_t sys_io_destroy(struct task *t, const struct syscall_args *a)
{
	return aio_context_destroy(t, a->a[0]);
}

/* ---- submission ---- */

/* What happens to be in the event of a call that a signal broke off. */
static int64_t event_result(int64_t ret)
{
	return ret <= -ERESTARTSYS_ ? -EINTR : ret;
}

static void complete(struct aio_context *c, const struct iocb *io, uint64_t obj, int64_t res,
		     struct file *resfd)
{
	struct aio_event ev = {.data = io->aio_data, .obj = obj, .res = event_result(res)};

	aio_complete(c, &ev, resfd);
}

/* aio_read(), aio_write(): an error found here is io_submit's own, a result of the I/O is the event's. */
static int64_t submit_rw(struct task *t, struct aio_context *c, struct file *f,
			 const struct iocb *io, uint64_t obj, struct file *resfd)
{
	bool vec = io->aio_lio_opcode == IOCB_CMD_PREADV || io->aio_lio_opcode == IOCB_CMD_PWRITEV;
	bool read = io->aio_lio_opcode == IOCB_CMD_PREAD || io->aio_lio_opcode == IOCB_CMD_PREADV;
	struct iovec fast[SYS_IOV_FAST], *iov = fast;
	int64_t off = io->aio_offset, ret;
	struct io_iter it;

	if ((unsigned)io->aio_rw_flags & ~(unsigned)FILE_RWF)
		return -EOPNOTSUPP;
	if (!(f->mode & (read ? FILE_READ : FILE_WRITE)))
		return -EBADF;
	if (!(read ? (void *)f->ops->read_iter : (void *)f->ops->write_iter))
		return -EINVAL;
	if (vec) {
		ret = sys_iov_get(t, io->aio_buf, io->aio_nbytes, fast, &iov);
		if (ret < 0)
			return ret;
		mm_iter_init(t->mm, &it, iov, (unsigned)io->aio_nbytes, read);
	} else {
		if (!sys_range_ok(io->aio_buf, io->aio_nbytes))
			return -EFAULT;
		mm_iter_init_one(t->mm, &it, fast, io->aio_buf, MIN(io->aio_nbytes, FILE_IO_MAX),
				 read);
	}
	ret = off < 0 && !(f->mode & FILE_STREAM) ? -EINVAL : 0;
	if (!ret) {
		const int64_t *at = f->mode & FILE_STREAM ? NULL : &off;

		ret = read ? file_read_iter(f, &it, at, io->aio_rw_flags)
			   : file_write_iter(f, &it, at, io->aio_rw_flags);
		complete(c, io, obj, ret, resfd);
		ret = 0;
	}
	io_iter_fini(&it);
	sys_iov_free(fast, iov);
	return ret;
}

static int64_t submit_fsync(struct aio_context *c, struct file *f, const struct iocb *io,
			    uint64_t obj, struct file *resfd)
{
	if (io->aio_buf || io->aio_offset || io->aio_nbytes || io->aio_rw_flags || !f->ops->fsync)
		return -EINVAL;
	complete(c, io, obj, file_fsync(f, io->aio_lio_opcode == IOCB_CMD_FDSYNC, 0, INT64_MAX),
		 resfd);
	return 0;
}

static int64_t submit_poll(struct aio_context *c, struct file *f, const struct iocb *io,
			   uint64_t obj, struct file *resfd)
{
	if ((uint16_t)io->aio_buf != io->aio_buf || io->aio_offset || io->aio_nbytes ||
	    io->aio_rw_flags)
		return -EINVAL;
	return aio_poll(c, f, (uint32_t)io->aio_buf, io->aio_data, obj, resfd);
}

static int64_t submit_op(struct task *t, struct aio_context *c, struct file *f,
			 const struct iocb *io, uint64_t obj, struct file *resfd)
{
	switch (io->aio_lio_opcode) {
	case IOCB_CMD_PREAD:
	case IOCB_CMD_PREADV:
	case IOCB_CMD_PWRITE:
	case IOCB_CMD_PWRITEV:
		return submit_rw(t, c, f, io, obj, resfd);
	case IOCB_CMD_FSYNC:
	case IOCB_CMD_FDSYNC:
		return submit_fsync(c, f, io, obj, resfd);
	case IOCB_CMD_POLL_:
		return submit_poll(c, f, io, obj, resfd);
	default:
		return -EINVAL;
	}
}

/* io_submit_one(). */
static int64_t submit_one(struct task *t, struct aio_context *c, uint64_t uiocb)
{
	struct file *f, *resfd = NULL;
	static const uint32_t key;
	struct iocb io;
	int64_t ret;

	if (task_copy_in(t, &io, uiocb, sizeof(io)))
		return -EFAULT;
	if (io.aio_reserved2 || (int64_t)io.aio_nbytes < 0)
		return -EINVAL;
	ret = aio_reserve(c);
	if (ret)
		return ret;
	ret = -EBADF;
	f = sys_fd(t, (int)io.aio_fildes);
	if (!f)
		goto out_release;
	if (io.aio_flags & IOCB_FLAG_RESFD) {
		resfd = sys_fd(t, (int)io.aio_resfd);
		ret = !resfd ? -EBADF : eventfd_is(resfd) ? 0 : -EINVAL;
		if (ret)
			goto out_files;
	}
	/* KIOCB_KEY, which io_cancel(2) asks for. */
	ret = -EFAULT;
	if (task_copy_out(t, uiocb + offsetof(struct iocb, aio_key), &key, sizeof(key)))
		goto out_files;
	ret = submit_op(t, c, f, &io, uiocb, resfd);
out_files:
	file_unref(resfd);
	file_unref(f);
out_release:
	if (ret)
		aio_release(c);
	return ret;
}

int64_t sys_io_submit(struct task *t, const struct syscall_args *a)
{
	int64_t count = ARG_LONG(1), done = 0, err = 0;
	struct aio_context *c;
	uint64_t uiocb;

	if (count < 0)
		return -EINVAL;
	c = aio_context_find(t, a->a[0]);
	if (!c)
		return -EINVAL;
	for (; done < count; done++) {
		if (task_copy_in(t, &uiocb, a->a[2] + (uint64_t)done * 8, sizeof(uiocb)))
			err = -EFAULT;
		else
			err = submit_one(t, c, uiocb);
		if (err || task_should_interrupt(t))
			break;
	}
	/* The one that a signal came after was submitted, too. */
	if (!err && done < count)
		done++;
	aio_context_unref(c);
	return done ? done : err;
}

int64_t sys_io_cancel(struct task *t, const struct syscall_args *a)
{
	struct aio_context *c;
	uint32_t key;
	int err;

	if (task_copy_in(t, &key, a->a[1] + offsetof(struct iocb, aio_key), sizeof(key)))
		return -EFAULT;
	if (key)
		return -EINVAL;
	c = aio_context_find(t, a->a[0]);
	if (!c)
		return -EINVAL;
	err = aio_cancel(c, a->a[1]);
	aio_context_unref(c);
	return err;
}

/* ---- events ---- */

static int64_t get_events(struct task *t, const struct syscall_args *a, int64_t deadline, bool zero)
{
	int64_t min = ARG_LONG(1), max = ARG_LONG(2), ret;
	struct aio_context *c = aio_context_find(t, a->a[0]);

	if (!c)
		return -EINVAL;
	ret = -EINVAL;
	if (min <= max && min >= 0)
		ret = aio_events(t, c, zero ? 0 : min, max, a->a[3], deadline);
	aio_context_unref(c);
	return ret;
}

int64_t sys_io_getevents(struct task *t, const struct syscall_args *a)
{
	int64_t deadline;
	bool zero;
	int err = sys_timespec_deadline(t, a->a[4], &deadline, &zero);

	return err ? err : get_events(t, a, deadline, zero);
}

/* struct __aio_sigset */
struct aio_sigset {
	uint64_t mask, size;
};

int64_t sys_io_pgetevents(struct task *t, const struct syscall_args *a)
{
	struct aio_sigset set = {0};
	int64_t deadline, ret;
	bool zero;
	int err;

	err = sys_timespec_deadline(t, a->a[4], &deadline, &zero);
	if (!err && a->a[5] && task_copy_in(t, &set, a->a[5], sizeof(set)))
		err = -EFAULT;
	if (!err)
		err = sys_temp_mask(t, set.mask, set.size);
	if (err)
		return err;
	ret = get_events(t, a, deadline, zero);
	return ret == -EINTR ? -ERESTARTNOHAND_ : ret;
}
