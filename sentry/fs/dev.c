/*
 * sentry/fs/dev.c - character devices: what a device node found in any filesystem opens.
 *
 * One small driver a minor. /dev/zero's mmap is anonymous memory, which the system call layer arranges (dev_is_zero).
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <linux/capability.h>

#include "fsimpl/pipe/pipe.h"
#include "sentry/fs/internal.h"
#include "sentry/tty/tty.h"

enum { MEM_MAJOR = 1, TTYAUX_MAJOR = 5, PTS_MAJOR_FIRST = 136, PTS_MAJOR_LAST = 143 };
enum {
	DEV_MEM = 1,
	DEV_NULL = 3,
	DEV_PORT = 4,
	DEV_ZERO = 5,
	DEV_FULL = 7,
	DEV_RANDOM = 8,
	DEV_URANDOM = 9,
	DEV_KMSG = 11
};

static void dev_release(struct file *f)
{
	file_free(f);
}

/* /dev/null, zero and full have no place: every seek ends at 0. */
static int64_t dev_seek_null(struct file *f, unused_arg int64_t off, unused_arg int whence)
{
	f->pos = 0;
	return 0;
}

static ssize_t dev_read_eof(unused_arg struct file *f, unused_arg struct io_iter *it,
			    unused_arg int64_t off, unused_arg int rwf)
{
	return 0;
}

static ssize_t dev_write_all(unused_arg struct file *f, struct io_iter *it,
			     unused_arg int64_t *inout_off, unused_arg int rwf)
{
	uint64_t size = it->remaining;

	io_iter_advance(it, size);
	return (ssize_t)size;
}

static ssize_t dev_read_zero(unused_arg struct file *f, struct io_iter *it, unused_arg int64_t off,
			     unused_arg int rwf)
{
	size_t done = io_iter_zero(it, it->remaining);

	return done || !it->error ? (ssize_t)done : -EFAULT;
}

static ssize_t dev_write_full(unused_arg struct file *f, unused_arg struct io_iter *it,
			      unused_arg int64_t *inout_off, unused_arg int rwf)
{
	return -ENOSPC;
}

static ssize_t dev_read_random(unused_arg struct file *f, struct io_iter *it,
			       unused_arg int64_t off, unused_arg int rwf)
{
	ssize_t total = 0;
	char bytes[1024];

	while (it->remaining) {
		size_t want = MIN(it->remaining, (uint64_t)sizeof(bytes));
		ssize_t got = getrandom(bytes, want, 0);
		size_t put;

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return total ? total : -EIO;
		put = io_iter_put(it, bytes, (size_t)got);
		total += (ssize_t)put;
		if (put < (size_t)got)
			break;
	}
	explicit_bzero(bytes, sizeof(bytes));
	return total || !it->error ? total : -EFAULT;
}

#define RNDGETENTCNT_CMD 0x80045200u

static int64_t dev_random_ioctl(unused_arg struct file *f, unsigned cmd, uint64_t arg)
{
	int32_t entropy = 256;

	if (cmd == RNDGETENTCNT_CMD)
		return vfs_user_copy_out(arg, &entropy, sizeof(entropy));
	return -ENOTTY;
}

static const struct file_ops null_ops = {
	.name = "null",
	.no_splice_read = true,
	.release = dev_release,
	.read_iter = dev_read_eof,
	.write_iter = dev_write_all,
	.seek = dev_seek_null,
};

static const struct file_ops zero_ops = {
	.name = "zero",
	.release = dev_release,
	.read_iter = dev_read_zero,
	.write_iter = dev_write_all,
	.seek = dev_seek_null,
};

static const struct file_ops full_ops = {
	.name = "full",
	.no_splice_write = true,
	.no_write_flags = true,
	.release = dev_release,
	.read_iter = dev_read_zero,
	.write_iter = dev_write_full,
	.seek = dev_seek_null,
};

static const struct file_ops random_ops = {
	.name = "random",
	.release = dev_release,
	.read_iter = dev_read_random,
	.write_iter = dev_write_all,
	.seek = dev_seek_null,
	.ioctl = dev_random_ioctl,
};

bool dev_is_zero(struct file *f)
{
	return f->ops == &zero_ops;
}

static int dev_open_simple(const struct vfs_path *place, const struct file_ops *ops, unsigned flags,
			   struct file **ret)
{
	unsigned accmode = flags & O_ACCMODE;
	unsigned mode = FILE_SEEKABLE;
	struct file *f = calloc(1, sizeof(*f));

	if (!f)
		return -ENOMEM;
	if (accmode != O_WRONLY)
		mode |= FILE_READ;
	if (accmode != O_RDONLY)
		mode |= FILE_WRITE;
	file_init(f, ops, place, flags, mode);
	*ret = f;
	return 0;
}

static int mem_open(const struct vfs_path *place, uint32_t minor, unsigned flags, struct file **ret)
{
	switch (minor) {
	case DEV_NULL:
		return dev_open_simple(place, &null_ops, flags, ret);
	case DEV_ZERO:
		return dev_open_simple(place, &zero_ops, flags, ret);
	case DEV_FULL:
		return dev_open_simple(place, &full_ops, flags, ret);
	case DEV_RANDOM:
	case DEV_URANDOM:
		return dev_open_simple(place, &random_ops, flags, ret);
	case DEV_KMSG:
		return kmsg_open(place, flags, ret);
	case DEV_MEM:
	case DEV_PORT:
		return -EPERM; /* no CAP_SYS_RAWIO in a sandbox has a machine behind it */
	default:
		return -ENXIO;
	}
}

int dev_open_special(const struct vfs_path *place, uint32_t type, uint32_t major, uint32_t minor,
		     uint64_t inode_key, unsigned flags, struct file **ret)
{
	if (type == S_IFIFO)
		return pipe_fifo_open(place, inode_key, flags, ret);
	if (type != S_IFCHR)
		return -ENXIO;
	if (major == MEM_MAJOR)
		return mem_open(place, minor, flags, ret);
	if (major == TTYAUX_MAJOR || (major >= PTS_MAJOR_FIRST && major <= PTS_MAJOR_LAST))
		return tty_open_device(place, major, minor, flags, ret);
	return -ENXIO;
}
