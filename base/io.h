/* base/io.h - host I/O that does not come back short or interrupted. */
#ifndef MOAT_BASE_IO_H
#define MOAT_BASE_IO_H

#include "base/compiler.h"

/* Writes exactly `size` bytes. Return: 0, -errno, -EPIPE where nothing can be written. */
must_check int io_write_full(int fd, const void *buf, size_t size);
/* Whole file into a malloc'd, NUL-terminated buffer of at most max bytes. -EFBIG past it. */
must_check int io_read_file_at(int dirfd, const char *path, size_t max, char **ret_data,
			       size_t *ret_size);
must_check int io_write_file_at(int dirfd, const char *path, const void *data, size_t size,
				int mode);

/*
 * A new O_NONBLOCK description of the same pipe, FIFO or terminal through /proc/self/fd; of anything else, or where that fails, a
 * duplicate, of 3 or more. Return: an O_CLOEXEC descriptor or -errno.
 */
must_check int io_reopen_nonblock(int fd);

#define IO_FDS_MAX 96
/* One SCM_RIGHTS message on a Unix socket. recv sets O_CLOEXEC and closes what does not fit. */
must_check ssize_t io_send_fds(int sock, const void *buf, size_t size, const int *fds,
			       size_t count);
must_check ssize_t io_recv_fds(int sock, void *buf, size_t size, int *fds, size_t *inout_count);
/* The same with flags of recvmsg(2). *ret_cut: more descriptors came than fit. Return: bytes, 0: the end, -errno (no descriptors then). */
must_check ssize_t io_recv_fds_flags(int sock, void *buf, size_t size, int flags, int *fds,
				     size_t *inout_count, bool *ret_cut);

/* Cleanup attributes: only in runtime/ and gofer/. */
void io_close_cleanup(int *fd);
void io_free_cleanup(void *pp);
#define auto_close __attribute__((cleanup(io_close_cleanup)))
#define auto_free __attribute__((cleanup(io_free_cleanup)))

#endif
