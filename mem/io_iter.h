/*
 * mem/io_iter.h - where one read or write puts or gets its bytes.
 *
 * An iterator walks segments of sentry-addressable memory: kernel buffers, or the guest's, pinned by the mm
 * one window at a time (`ops->fill`). Copies are guarded. Every read and write operation of every
 * file takes one, so host preadv, 9P and FUSE land in place.
 * An iterator belongs to one thread. io_iter_fini() drops pins.
 * A fault stops the iterator: `error` is set to -EFAULT and copies come back short. What was moved before it counts
 * (Linux returns the short count; -EFAULT only if nothing was moved).
 */
#ifndef MOAT_MEM_IO_ITER_H
#define MOAT_MEM_IO_ITER_H

#include <sys/uio.h>

#include "base/compiler.h"

#define IO_ITER_SEGS 16

struct io_iter;

struct io_iter_ops {
	/*
	 * Replaces segs[] by the next window of at least one byte (releasing the previous pins).
	 * Return: 0, -EFAULT. Called only when remaining > 0 and the window is used up.
	 */
	int (*fill)(struct io_iter *it);
	void (*release)(struct io_iter *it);
	/* Goes back to `consumed` bytes from the start; the window is refilled on demand. */
	void (*seek)(struct io_iter *it, uint64_t consumed);
};

struct io_iter {
	const struct io_iter_ops *ops; /* NULL: the segments are all there is */
	struct iovec segs[IO_ITER_SEGS];
	unsigned nsegs, cur; /* current segment */
	size_t seg_off; /* bytes used of segs[cur] */
	uint64_t remaining; /* bytes left in all */
	uint64_t consumed;
	bool is_dest; /* true: read(2)-like, bytes go into it */
	int error;
	/* owned by ops */
	void *priv;
	const struct iovec *uiov; /* the guest's iovec array, copied in */
	unsigned uiov_count, uiov_cur;
	uint64_t uiov_off;
	void *pins[IO_ITER_SEGS][3];
	unsigned npins;
	uint64_t ops_data[4];
};

void io_iter_init_kernel(struct io_iter *it, void *buf, size_t size, bool is_dest);
void io_iter_fini(struct io_iter *it);
/* Copies up to `size` bytes and advances. Return: bytes copied (short on a fault or at the end). */
size_t io_iter_put(struct io_iter *it, const void *src, size_t size); /* into the iterator */
size_t io_iter_get(struct io_iter *it, void *dst, size_t size); /* out of it */
size_t io_iter_zero(struct io_iter *it, size_t size);
/* The current window as host iovecs, at most `max` and `size` bytes; does not advance. Return: count, -EFAULT. */
must_check int io_iter_window(struct io_iter *it, uint64_t size, struct iovec *iov, int max);
void io_iter_advance(struct io_iter *it, uint64_t size);
void io_iter_revert(struct io_iter *it, uint64_t size);
/* Bounds what is left to at most `size` (read limits, file size limits). */
void io_iter_truncate(struct io_iter *it, uint64_t size);

#endif
