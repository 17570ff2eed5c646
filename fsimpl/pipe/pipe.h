/*
 * fsimpl/pipe/pipe.h - pipes and FIFOs: a ring of pages between readers and writers.
 *
 * Locks: pipe.lock (LOCK_PIPE). Guest memory is pinned (io_iter_window) before the lock is taken, never under it.
 * All file operations are non-blocking; file_read_iter() and file_write_iter() wait. A write of a blocking
 * description may come back short: the caller goes on with the rest (vfs/file.c does for FILE_STREAM).
 */
#ifndef MOAT_FSIMPL_PIPE_H
#define MOAT_FSIMPL_PIPE_H

#include "vfs/vfs.h"

#define PIPE_DEFAULT_SIZE 65536u
#define PIPE_SLOTS_POOR 2 /* of a new pipe whose user has fs.pipe-user-pages-soft */
#define PIPE_ATOMIC_MAX 4096u /* PIPE_BUF */

/*
 * fs.pipe-max-size: bytes of an unprivileged F_SETPIPE_SZ; fs.pipe-user-pages-soft and -hard: pages of an unprivileged user's pipes, 0
 * for any. Root may change them.
 */
extern _Atomic int64_t pipe_size_max, pipe_user_pages_soft, pipe_user_pages_hard;
/* What F_SETPIPE_SZ and fs.pipe-max-size make of a size: a power of two of pages, in bytes. 0: too large. */
uint64_t pipe_round_size(uint64_t size);

/* pipe2(2). flags: O_NONBLOCK | O_DIRECT (O_CLOEXEC is the descriptor's). ret[0] reads. Return 0, -EINVAL, -ENOMEM, -ENFILE. */
must_check int pipe_create(unsigned flags, struct file *ret[2]);

/*
 * open(2) of a FIFO found at `place` in any filesystem (vfs_hooks.open_special). Does not wait; whoever opened calls
 * pipe_open_wait() on the file. -ENXIO: O_WRONLY|O_NONBLOCK and nobody reads.
 */
must_check int pipe_fifo_open(const struct vfs_path *place, uint64_t inode_key, unsigned flags,
			      struct file **ret);
/*
 * The part of open(2) that waits for the other side of a FIFO. 0 at once for every other file. -EINTR: the
 * caller drops the file and restarts the call.
 */
must_check int pipe_open_wait(struct file *f);

bool pipe_is(struct file *f);
/* F_GETPIPE_SZ / F_SETPIPE_SZ: bytes, or -EBADF (no pipe), -EINVAL, -EPERM (grows beyond a limit above and not privileged), -EBUSY, -ENOMEM. */
int64_t pipe_get_size(struct file *f);
int64_t pipe_set_size(struct file *f, uint64_t size);
/* Bytes to read now; 0 for no pipe. */
size_t pipe_bytes(struct file *f);

/*
 * splice(2), tee(2), vmsplice(2), sendfile(2). None waits: -EAGAIN says that the pipe (or the other file) is not ready; the caller
 * waits with file_wait() and tries again unless SPLICE_F_NONBLOCK. 0 is the end of the data. Modes (FILE_READ/FILE_WRITE) were checked.
 */
/* Pages move (no copy). */
ssize_t pipe_splice_pipe(struct file *in, struct file *out, size_t size);
/* Pages are shared; `in` keeps its data. */
ssize_t pipe_tee(struct file *in, struct file *out, size_t size);
/* From a file or socket into a pipe. off: NULL uses the file's own offset; else advanced. */
ssize_t pipe_splice_from(struct file *in, int64_t *inout_off, struct file *pipe, size_t size);
/* From a pipe to a file or socket. Readers of the pipe find it busy (-EAGAIN) meanwhile. */
ssize_t pipe_splice_to(struct file *pipe, struct file *out, int64_t *inout_off, size_t size);
/* vmsplice: the iterator's bytes are copied (SPLICE_F_GIFT needs no more). */
ssize_t pipe_vmsplice(struct file *pipe, struct io_iter *it);

#endif
