/*
 * gofer/virtiofs/dax.c - DAX: file ranges mapped into a window of the client's.
 *
 * The window is the client's address space; this end only ever asks it to put [offset, + size) of a file at a place in the window (SHMEM_MAP on the back
 * channel, with the file's descriptor) and to take it away (SHMEM_UNMAP), as SETUPMAPPING and REMOVEMAPPING say. Nothing is kept here: what lies
 * where is the client's business, that places are within the window is checked here.
 *
 * The descriptor is of a regular file that the client has looked up, open for reading alone unless it asked for a writable mapping: what
 * the client could do by requests anyway. Queues take turns on the back channel (back_lock, a pthread mutex: it is held over the
 * answer); a client that does not answer holds up its own queues, until they are stopped by their signal.
 */
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "gofer/virtiofs/server.h"

#define BACK_TIMEOUT_MS 5000
#define BACK_SPIN_NS 30000
#define REMOVE_MAX 256 /* ranges in one request: what Linux puts on a page */

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ll + ts.tv_nsec;
}

int back_set(struct daemon *d, int *fd)
{
	struct stat st;

	if (fstat(*fd, &st) < 0 || !S_ISSOCK(st.st_mode))
		return -EINVAL;
	pthread_mutex_lock(&d->back_lock);
	if (d->back_fd >= 0)
		close(d->back_fd);
	d->back_fd = *fd;
	*fd = -1;
	pthread_mutex_unlock(&d->back_lock);
	return 0;
}

void back_close(struct daemon *d)
{
	if (d->back_fd >= 0)
		close(d->back_fd);
	d->back_fd = -1;
}

static int back_send(int sock, const struct vhost_user_msg *m, int fd)
{
	struct iovec iov = {(void *)m, VHOST_USER_HEADER_SIZE + m->size};
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	if (fd >= 0) {
		struct cmsghdr *c = &control.align;

		msg.msg_control = control.buf;
		msg.msg_controllen = sizeof(control.buf);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	}
	n = sendmsg(sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	return n == (ssize_t)iov.iov_len ? 0 : -EIO;
}

static int back_receive(int sock, void *buf, size_t size)
{
	struct pollfd p = {.fd = sock, .events = POLLIN};
	int64_t spin_end = now_ns() + BACK_SPIN_NS;
	uint8_t *at = buf;

	while (size) {
		ssize_t n = recv(sock, at, size, MSG_DONTWAIT);
		int ready;

		if (n > 0) {
			at += n;
			size -= (size_t)n;
			continue;
		}
		if (n == 0 || errno != EAGAIN)
			return -EIO;
		/* A client that polls for the mapping answers within microseconds; it may be on this very CPU. */
		if (now_ns() < spin_end) {
			sched_yield();
			continue;
		}
		ready = poll(&p, 1, BACK_TIMEOUT_MS);
		/* A signal: the queue is to stop. */
		if (ready <= 0)
			return ready ? -errno : -ETIMEDOUT;
	}
	return 0;
}

/* Sends m, waits for the answer. What went wrong once leaves the channel in an unknown state: it is given up. */
static int back_call(struct daemon *d, const struct vhost_user_msg *m, int fd)
{
	struct vhost_user_msg reply;
	int err = -ENODEV;

	pthread_mutex_lock(&d->back_lock);
	if (d->back_fd >= 0) {
		err = back_send(d->back_fd, m, fd);
		if (!err)
			err = back_receive(d->back_fd, &reply,
					   VHOST_USER_HEADER_SIZE + sizeof(reply.u64));
		if (!err)
			err = vhost_user_check_backend_reply(&reply, m->request);
		if (err) {
			log_warn("virtiofs: the back channel is given up: %s", strerror(-err));
			back_close(d);
		} else if (reply.u64) {
			err = -ENOSPC; /* the client does not want it there */
		}
	}
	pthread_mutex_unlock(&d->back_lock);
	return err;
}

bool dax_on(const struct daemon *d)
{
	const uint64_t need = 1ull << VHOST_USER_PROTOCOL_SHMEM |
			      1ull << VHOST_USER_PROTOCOL_BACKEND_REQ |
			      1ull << VHOST_USER_PROTOCOL_BACKEND_SEND_FD;

	return d->config.dax_window && (d->protocol_features & need) == need;
}

static bool in_window(const struct daemon *d, uint64_t at, uint64_t len)
{
	return dax_on(d) && len && !((at | len) & (DAX_ALIGN - 1)) && at < d->config.dax_window &&
	       len <= d->config.dax_window - at;
}

int do_setupmapping(struct request *r, struct node *n)
{
	struct fuse_setupmapping_in a;
	struct vhost_user_msg m;
	bool write;
	int fd, err;

	memcpy(&a, r->in.arg, sizeof(a));
	write = a.flags & FUSE_SETUPMAPPING_FLAG_WRITE;
	if (!dax_on(r->d))
		return -ENOSYS;
	if (n->type != S_IFREG)
		return n->type == S_IFDIR ? -EISDIR : -EINVAL;
	if (!in_window(r->d, a.moffset, a.len) || (a.foffset & (DAX_ALIGN - 1)) ||
	    a.foffset > INT64_MAX - a.len || !a.flags ||
	    (a.flags & ~(FUSE_SETUPMAPPING_FLAG_WRITE | FUSE_SETUPMAPPING_FLAG_READ)))
		return -EINVAL;
	if (write && r->d->config.readonly)
		return -EROFS;
	/* Always by the node: fh may be anything, and is -1 from Linux. */
	fd = node_open(r->d, n, write ? O_RDWR : O_RDONLY);
	if (fd < 0)
		return fd;
	vhost_user_backend_request_init(&m, VHOST_USER_BACKEND_SHMEM_MAP);
	m.shmem_map = (struct vhost_user_shmem_map){
		.fd_offset = a.foffset,
		.shm_offset = a.moffset,
		.size = a.len,
		.flags = write ? VHOST_USER_SHMEM_RW : 0,
	};
	err = back_call(r->d, &m, fd);
	close(fd);
	return err;
}

int do_removemapping(struct request *r, struct node *n)
{
	struct fuse_removemapping_in a;
	const char *at = r->in.data;
	int err = 0;

	(void)n;
	memcpy(&a, r->in.arg, sizeof(a));
	if (!dax_on(r->d))
		return -ENOSYS;
	if (!a.count || a.count > REMOVE_MAX ||
	    r->in.data_size != a.count * sizeof(struct fuse_removemapping_one))
		return -EINVAL;
	for (uint32_t i = 0; i < a.count && !err;
	     i++, at += sizeof(struct fuse_removemapping_one)) {
		struct fuse_removemapping_one one;
		struct vhost_user_msg m;

		memcpy(&one, at, sizeof(one));
		if (!in_window(r->d, one.moffset, one.len))
			return -EINVAL;
		vhost_user_backend_request_init(&m, VHOST_USER_BACKEND_SHMEM_UNMAP);
		m.shmem_map =
			(struct vhost_user_shmem_map){.shm_offset = one.moffset, .size = one.len};
		err = back_call(r->d, &m, -1);
	}
	return err;
}
