/*
 * fsimpl/hostfd/hostfd.c - stdio and other descriptors that the runtime passes in.
 *
 * The descriptor's type is looked at once. Pipes, terminals and sockets wait by hostpoll's edge-triggered events; regular
 * files are always ready. Guest memory is pinned by the iterator's window, so one preadv-like call lands in place.
 * A terminal's ioctls that only look at or set the line (termios, window size, queue lengths) pass through; job control does not:
 * inside, a host terminal is nobody's controlling terminal, as with runc without `terminal`.
 *
 * Cannot do: positional I/O and mmap on a passed-in regular file (lseek works), locks, leases.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <termios.h>
#include <unistd.h>

#include "base/hostpoll.h"
#include "fsimpl/anon/anon.h"
#include "fsimpl/hostfd/hostfd.h"

/* What a poll()ed pipe surely takes without blocking: PIPE_BUF. */
#define HOSTFD_PIECE_MAX 4096u

struct hostfd {
	struct file f;
	int fd; /* owned; immutable */
	uint32_t type; /* S_IFMT bits; immutable */
	bool nonblock; /* the host description is O_NONBLOCK */
	bool polled; /* hostpoll watches it: immutable after create */
	struct hostpoll hp;
	struct wait_queue wait;
};

static struct hostfd *hostfd_of(struct file *f)
{
	return (struct hostfd *)f;
}

static void hostfd_ready(struct hostpoll *hp, uint32_t events)
{
	wait_queue_wake(&container_of(hp, struct hostfd, hp)->wait, events);
}

static void hostfd_release(struct file *f)
{
	struct hostfd *h = hostfd_of(f);

	if (h->polled)
		hostpoll_remove(&h->hp);
	wait_queue_fini(&h->wait);
	close(h->fd);
	file_free(f);
}

static bool hostfd_always_ready(const struct hostfd *h)
{
	return h->type == S_IFREG || h->type == S_IFBLK || !h->polled || h->hp.is_file;
}

static uint32_t hostfd_poll_now(struct hostfd *h, short events)
{
	struct pollfd pfd = {.fd = h->fd, .events = events};

	if (poll(&pfd, 1, 0) < 0)
		return POLLERR;
	return (uint32_t)(uint16_t)pfd.revents;
}

/* May an I/O be tried that must not block? */
static bool hostfd_can(struct hostfd *h, short events)
{
	if (h->nonblock || h->type == S_IFSOCK || hostfd_always_ready(h))
		return true;
	return hostfd_poll_now(h, events) & (uint32_t)(events | POLLHUP | POLLERR);
}

static ssize_t hostfd_readv(struct hostfd *h, struct iovec *iov, int n)
{
	if (h->type == S_IFSOCK) {
		struct msghdr msg = {.msg_iov = iov, .msg_iovlen = (size_t)n};

		return recvmsg(h->fd, &msg, MSG_DONTWAIT);
	}
	return readv(h->fd, iov, n);
}

static ssize_t hostfd_writev(struct hostfd *h, struct iovec *iov, int n)
{
	if (h->type == S_IFSOCK) {
		struct msghdr msg = {.msg_iov = iov, .msg_iovlen = (size_t)n};

		return sendmsg(h->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	}
	return writev(h->fd, iov, n);
}

static ssize_t hostfd_read_iter(struct file *f, struct io_iter *it, unused_arg int64_t off,
				unused_arg int rwf)
{
	struct hostfd *h = hostfd_of(f);
	struct iovec iov[IO_ITER_SEGS];
	ssize_t done;
	int n;

	if (!it->remaining)
		return 0;
	n = io_iter_window(it, it->remaining, iov, IO_ITER_SEGS);
	if (n < 0) {
		it->error = n;
		return n;
	}
	if (!hostfd_can(h, POLLIN))
		return -EAGAIN;
	do
		done = hostfd_readv(h, iov, n);
	while (done < 0 && errno == EINTR);
	if (done < 0)
		return -errno;
	io_iter_advance(it, (uint64_t)done);
	return done;
}

static ssize_t hostfd_write_once(struct hostfd *h, struct io_iter *it)
{
	uint64_t limit = it->remaining;
	struct iovec iov[IO_ITER_SEGS];
	ssize_t done;
	int n;

	if (!h->nonblock && h->type != S_IFSOCK && !hostfd_always_ready(h))
		limit = MIN(limit, (uint64_t)HOSTFD_PIECE_MAX);
	n = io_iter_window(it, limit, iov, IO_ITER_SEGS);
	if (n < 0) {
		it->error = n;
		return n;
	}
	if (!hostfd_can(h, POLLOUT))
		return -EAGAIN;
	do
		done = hostfd_writev(h, iov, n);
	while (done < 0 && errno == EINTR);
	if (done < 0)
		return -errno;
	io_iter_advance(it, (uint64_t)done);
	return done;
}

static ssize_t hostfd_write_iter(struct file *f, struct io_iter *it, unused_arg int64_t *inout_off,
				 int rwf)
{
	struct hostfd *h = hostfd_of(f);
	ssize_t total = 0, n = 0;

	while (it->remaining) {
		n = hostfd_write_once(h, it);
		if (n <= 0)
			break;
		total += n;
	}
	if (total)
		return total;
	if (n == -EPIPE && !(rwf & RWF_NOSIGNAL) && vfs_hooks.raise_signal)
		vfs_hooks.raise_signal(SIGPIPE);
	return n;
}

static int64_t hostfd_seek(struct file *f, int64_t off, int whence)
{
	struct hostfd *h = hostfd_of(f);
	off_t pos;

	if (h->type != S_IFREG && h->type != S_IFBLK && h->type != S_IFCHR)
		return -ESPIPE;
	pos = lseek(h->fd, off, whence);
	return pos < 0 ? -errno : pos;
}

static uint32_t hostfd_poll(struct file *f)
{
	struct hostfd *h = hostfd_of(f);

	if (hostfd_always_ready(h))
		return POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM;
	return hostfd_poll_now(h, POLLIN | POLLOUT | POLLPRI | POLLRDHUP | POLLRDNORM | POLLWRNORM);
}

static void hostfd_poll_add(struct file *f, struct waiter *w)
{
	wait_queue_add(&hostfd_of(f)->wait, w);
}

static void hostfd_poll_remove(unused_arg struct file *f, struct waiter *w)
{
	wait_queue_remove(w);
}

static int hostfd_stat(struct file *f, unused_arg const struct stat_args *args,
		       struct moat_statx *ret)
{
	struct hostfd *h = hostfd_of(f);
	struct stat st;

	if (fstat(h->fd, &st) < 0)
		return -errno;
	memset(ret, 0, sizeof(*ret));
	ret->mask = STATX_BASIC_STATS;
	ret->blksize = (uint32_t)st.st_blksize;
	ret->nlink = (uint32_t)st.st_nlink;
	ret->uid = st.st_uid;
	ret->gid = st.st_gid;
	ret->mode = (uint16_t)st.st_mode;
	ret->ino = st.st_ino;
	ret->size = (uint64_t)st.st_size;
	ret->blocks = (uint64_t)st.st_blocks;
	ret->atime = (struct moat_timestamp){st.st_atim.tv_sec, (uint32_t)st.st_atim.tv_nsec, 0};
	ret->mtime = (struct moat_timestamp){st.st_mtim.tv_sec, (uint32_t)st.st_mtim.tv_nsec, 0};
	ret->ctime = (struct moat_timestamp){st.st_ctim.tv_sec, (uint32_t)st.st_ctim.tv_nsec, 0};
	ret->rdev_major = major(st.st_rdev);
	ret->rdev_minor = minor(st.st_rdev);
	ret->dev_major = 0;
	ret->dev_minor = f->path.dentry->fs->dev_minor;
	return 0;
}

static int hostfd_truncate(struct file *f, uint64_t size)
{
	struct hostfd *h = hostfd_of(f);

	if (h->type != S_IFREG || size > INT64_MAX)
		return -EINVAL;
	return ftruncate(h->fd, (off_t)size) < 0 ? -errno : 0;
}

static int hostfd_fsync(struct file *f, bool data_only, unused_arg uint64_t start,
			unused_arg uint64_t end)
{
	struct hostfd *h = hostfd_of(f);

	if (h->type != S_IFREG)
		return -EINVAL;
	return (data_only ? fdatasync(h->fd) : fsync(h->fd)) < 0 ? -errno : 0;
}

/* Sizes of what the passed-through terminal ioctls read and write. */
struct hostfd_ioctl {
	unsigned cmd;
	uint16_t in, out;
};

#define KTERMIOS_SIZE 36u /* struct termios of the kernel: TCGETS */
#define KTERMIOS2_SIZE 44u
/* The macros of the C library need a struct termios2 that it does not declare. */
enum { K_TCGETS2 = 0x802c542a, K_TCSETS2 = 0x402c542b, K_TCSETSW2, K_TCSETSF2 };

static const struct hostfd_ioctl hostfd_ioctls[] = {
	{TCGETS, 0, KTERMIOS_SIZE},
	{TCSETS, KTERMIOS_SIZE, 0},
	{TCSETSW, KTERMIOS_SIZE, 0},
	{TCSETSF, KTERMIOS_SIZE, 0},
	{K_TCGETS2, 0, KTERMIOS2_SIZE},
	{K_TCSETS2, KTERMIOS2_SIZE, 0},
	{K_TCSETSW2, KTERMIOS2_SIZE, 0},
	{K_TCSETSF2, KTERMIOS2_SIZE, 0},
	{TIOCGWINSZ, 0, sizeof(struct winsize)},
	{TIOCSWINSZ, sizeof(struct winsize), 0},
	{FIONREAD, 0, sizeof(int)},
	{TIOCOUTQ, 0, sizeof(int)},
};

static int64_t hostfd_ioctl(struct file *f, unsigned cmd, uint64_t arg)
{
	struct hostfd *h = hostfd_of(f);
	char data[64] = {0};
	int ret;

	for (size_t i = 0; i < ARRAY_SIZE(hostfd_ioctls); i++) {
		const struct hostfd_ioctl *io = &hostfd_ioctls[i];

		if (io->cmd != cmd)
			continue;
		if (io->in && (ret = vfs_user_copy_in(data, arg, io->in)))
			return ret;
		if (ioctl(h->fd, cmd, data) < 0)
			return -errno;
		return io->out ? vfs_user_copy_out(arg, data, io->out) : 0;
	}
	/* These take their argument by value. */
	if (cmd == TCFLSH || cmd == TCXONC)
		return ioctl(h->fd, cmd, arg) < 0 ? -errno : 0;
	return -ENOTTY;
}

static const struct file_ops hostfd_ops = {
	.name = "host",
	.release = hostfd_release,
	.read_iter = hostfd_read_iter,
	.write_iter = hostfd_write_iter,
	.seek = hostfd_seek,
	.poll = hostfd_poll,
	.poll_add = hostfd_poll_add,
	.poll_remove = hostfd_poll_remove,
	.stat = hostfd_stat,
	.set_stat = anon_file_set_stat,
	.truncate = hostfd_truncate,
	.fsync = hostfd_fsync,
	.ioctl = hostfd_ioctl,
};

/* ---- creation ---- */

/* The host object that several descriptions inside may stand for: /proc/PID/fd reopens by duplicating. */
struct hostfd_node {
	int fd; /* owned */
	uint32_t type;
};

static void hostfd_node_drop(void *priv)
{
	struct hostfd_node *node = priv;

	close(node->fd);
	free(node);
}

static int hostfd_reopen(struct anon_dentry *ad, const struct vfs_path *place, unsigned flags,
			 struct file **ret);

int hostfd_file_on(int fd, uint32_t type, unsigned flags, const struct vfs_path *place,
		   struct file **ret)
{
	struct hostfd *h = calloc(1, sizeof(*h));
	unsigned accmode = flags & O_ACCMODE;
	unsigned mode = FILE_STREAM;
	int host_flags = fcntl(fd, F_GETFL);
	int err;

	if (!h)
		return -ENOMEM;
	if (host_flags < 0) {
		free(h);
		return -EBADF;
	}
	if (flags == HOSTFD_FLAGS_OF_HOST) {
		accmode = (unsigned)host_flags & O_ACCMODE;
		flags = accmode | ((unsigned)host_flags & O_APPEND);
	}
	if (accmode != O_WRONLY)
		mode |= FILE_READ;
	if (accmode != O_RDONLY)
		mode |= FILE_WRITE;
	wait_queue_init(&h->wait);
	h->fd = fd;
	h->type = type;
	h->nonblock = host_flags & O_NONBLOCK;
	h->hp.fd = -1;
	if (type != S_IFREG && type != S_IFBLK && type != S_IFDIR) {
		err = hostpoll_add(&h->hp, fd, POLLIN | POLLOUT | POLLPRI | POLLRDHUP,
				   hostfd_ready);
		if (err) {
			free(h);
			return err;
		}
		h->polled = true;
	}
	file_init(&h->f, &hostfd_ops, place, flags, mode);
	*ret = &h->f;
	return 0;
}

/* The seccomp filter allows F_DUPFD_CLOEXEC, not dup(2). */
static int hostfd_dup(int fd)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);

	return copy < 0 ? -errno : copy;
}

static int hostfd_reopen(struct anon_dentry *ad, const struct vfs_path *place, unsigned flags,
			 struct file **ret)
{
	struct hostfd_node *node = ad->priv;
	int host_flags = fcntl(node->fd, F_GETFL);
	unsigned host_acc, want = flags & O_ACCMODE;
	int fd, err;

	if (node->type == S_IFSOCK)
		return -ENXIO;
	if (host_flags < 0)
		return -errno;
	host_acc = (unsigned)host_flags & O_ACCMODE;
	/* A duplicate cannot do more than the original. */
	if (host_acc != O_RDWR && want != host_acc)
		return -EACCES;
	fd = hostfd_dup(node->fd);
	if (fd < 0)
		return fd;
	if ((flags & O_TRUNC) && node->type == S_IFREG && ftruncate(fd, 0) < 0) {
		err = -errno;
		close(fd);
		return err;
	}
	err = hostfd_file_on(fd, node->type, flags & (O_ACCMODE | O_APPEND | O_NONBLOCK), place,
			     ret);
	if (err)
		close(fd);
	return err;
}

int hostfd_file_create(int fd, unsigned flags, struct file **ret)
{
	struct anon_args args = {
		.kind = ANON_HOST, .reopen = hostfd_reopen, .drop = hostfd_node_drop};
	struct hostfd_node *node;
	struct vfs_path place;
	struct stat st;
	int err;

	if (fstat(fd, &st) < 0)
		return -errno;
	node = calloc(1, sizeof(*node));
	if (!node)
		return -ENOMEM;
	node->type = st.st_mode & S_IFMT;
	node->fd = hostfd_dup(fd);
	if (node->fd < 0) {
		err = node->fd;
		free(node);
		return err;
	}
	/* Whoever is in the container may reopen its stdio, whatever the host's owner is. */
	args.mode = node->type | 0666;
	args.name = node->type == S_IFIFO ? "pipe" : node->type == S_IFSOCK ? "socket" : NULL;
	if (node->type == S_IFCHR && st.st_rdev == makedev(1, 3))
		args.name = "/dev/null"; /* shown as it is */
	args.priv = node;
	err = anon_path_create(&args, &place);
	if (err) {
		hostfd_node_drop(node);
		return err;
	}
	err = hostfd_file_on(fd, node->type, flags, &place, ret);
	vfs_path_unref(&place);
	return err;
}
