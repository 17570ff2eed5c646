#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"

#define IO_FIRST_ALLOC 4096

int io_write_full(int fd, const void *buf, size_t size)
{
	const char *at = buf;

	while (size) {
		ssize_t n = write(fd, at, size);

		if (n < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		if (n == 0)
			return -EPIPE;
		at += n;
		size -= (size_t)n;
	}
	return 0;
}

int io_reopen_nonblock(int fd)
{
	char path[32];
	struct stat st;
	int flags = fcntl(fd, F_GETFL), copy;

	if (flags < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (S_ISFIFO(st.st_mode) || (S_ISCHR(st.st_mode) && isatty(fd))) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		copy = open(path, (flags & O_ACCMODE) | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
		if (copy >= 0)
			return copy;
	}
	copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	return copy < 0 ? -errno : copy;
}

/* Reads to the end of the file: /proc files have no size to trust. */
static int io_read_to_end(int fd, size_t max, char **ret_data, size_t *ret_size)
{
	size_t alloc = MIN(max, (size_t)IO_FIRST_ALLOC - 1) + 1, len = 0;
	char *data = malloc(alloc), *grown;
	char extra;
	ssize_t n;
	int err;

	if (!data)
		return -ENOMEM;
	for (;;) {
		bool full = len == max;

		n = read(fd, full ? &extra : data + len, full ? 1 : alloc - 1 - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		if (full) {
			err = -EFBIG;
			goto out_free;
		}
		len += (size_t)n;
		if (len == max || len < alloc - 1)
			continue;
		alloc = MIN(alloc * 2, max + 1);
		grown = realloc(data, alloc);
		if (!grown) {
			err = -ENOMEM;
			goto out_free;
		}
		data = grown;
	}
	if (n < 0) {
		err = -errno;
		goto out_free;
	}
	data[len] = '\0';
	*ret_data = data;
	if (ret_size)
		*ret_size = len;
	return 0;
out_free:
	free(data);
	return err;
}

int io_read_file_at(int dirfd, const char *path, size_t max, char **ret_data, size_t *ret_size)
{
	int fd, err;

	if (max == SIZE_MAX)
		max--;
	do
		fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	while (fd < 0 && errno == EINTR);
	if (fd < 0)
		return -errno;
	err = io_read_to_end(fd, max, ret_data, ret_size);
	close(fd);
	return err;
}

int io_write_file_at(int dirfd, const char *path, const void *data, size_t size, int mode)
{
	int fd, err;

	do
		fd = openat(dirfd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY,
			    (mode_t)mode);
	while (fd < 0 && errno == EINTR);
	if (fd < 0)
		return -errno;
	err = io_write_full(fd, data, size);
	if (close(fd) < 0 && !err && errno != EINTR)
		err = -errno;
	return err;
}

union fds_control {
	struct cmsghdr align;
	char buf[CMSG_SPACE(IO_FDS_MAX * sizeof(int))];
};

ssize_t io_send_fds(int sock, const void *buf, size_t size, const int *fds, size_t count)
{
	struct iovec iov = {.iov_base = (void *)buf, .iov_len = size};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	union fds_control control;
	ssize_t n;

	if (count > IO_FDS_MAX)
		return -EINVAL;
	if (count) {
		struct cmsghdr *cmsg;

		memset(&control, 0, sizeof(control));
		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(count * sizeof(int));
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(cmsg), fds, count * sizeof(int));
	}
	do
		n = sendmsg(sock, &msg, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

ssize_t io_recv_fds_flags(int sock, void *buf, size_t size, int flags, int *fds,
			  size_t *inout_count, bool *ret_cut)
{
	struct iovec iov = {.iov_base = buf, .iov_len = size};
	union fds_control control;
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.buf,
			     .msg_controllen = sizeof(control.buf)};
	size_t count = 0, room = *inout_count;
	ssize_t n;

	*inout_count = 0;
	*ret_cut = false;
	do
		n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC | flags);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	*ret_cut = msg.msg_flags & MSG_CTRUNC;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
		size_t received;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		received = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < received; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (count < room) {
				fds[count++] = fd;
			} else {
				close(fd);
				*ret_cut = true;
			}
		}
	}
	*inout_count = count;
	return n;
}

ssize_t io_recv_fds(int sock, void *buf, size_t size, int *fds, size_t *inout_count)
{
	bool cut;

	return io_recv_fds_flags(sock, buf, size, 0, fds, inout_count, &cut);
}

void io_close_cleanup(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	errno = saved;
}

void io_free_cleanup(void *pp)
{
	void **p = pp;

	free(*p);
	*p = NULL;
}
