/*
 * fsimpl/hostfd/hostfd.h - a host descriptor as a file: the container's stdio.
 *
 * Reads and writes go to the descriptor as they are, at the host's own file offset: descriptors that share an open
 * description outside (2>&1) share it inside. Readiness comes from base/hostpoll.h.
 *
 * A call never blocks in the host: the descriptor should be O_NONBLOCK. One that is not (another process shares its
 * description) is polled first and written in pieces of at most PIPE_BUF bytes. io_reopen_nonblock() gives a
 * description of our own where the host allows it.
 */
#ifndef MOAT_FSIMPL_HOSTFD_H
#define MOAT_FSIMPL_HOSTFD_H

#include "vfs/vfs.h"

/*
 * Takes `fd` on success. `flags`: O_ACCMODE and status flags as the container should see them, or HOSTFD_FLAGS_OF_HOST.
 * Makes no host call that a confined sentry may not make (fstat, fcntl F_GETFL, epoll_ctl). Returns a reference. -EBADF, -ENOMEM.
 */
#define HOSTFD_FLAGS_OF_HOST (~0u)
must_check int hostfd_file_create(int fd, unsigned flags, struct file **ret);
/* The same without a place of its own: it is found at `place`, has that type (S_IFMT bits), and flags are O_*. */
must_check int hostfd_file_on(int fd, uint32_t type, unsigned flags, const struct vfs_path *place,
			      struct file **ret);

#endif
