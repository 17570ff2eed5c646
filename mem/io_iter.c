/* mem/io_iter.c - see io_iter.h. */
#include "mem/io_iter.h"

#include <string.h>

#include "mem/guard.h"

void io_iter_init_kernel(struct io_iter *it, void *buf, size_t size, bool is_dest)
{
	it->ops = NULL;
	it->segs[0] = (struct iovec){.iov_base = buf, .iov_len = size};
	it->nsegs = 1;
	it->cur = 0;
	it->seg_off = 0;
	it->remaining = size;
	it->consumed = 0;
	it->is_dest = is_dest;
	it->error = 0;
	it->priv = NULL;
	it->npins = 0;
}

void io_iter_fini(struct io_iter *it)
{
	if (it->ops)
		it->ops->release(it);
	it->nsegs = 0;
	it->cur = 0;
}

/* Steps over used-up segments. True when segs[cur] has at least one byte at seg_off. */
static bool io_iter_ready(struct io_iter *it)
{
	if (!it->remaining || it->error)
		return false;
	for (;;) {
		while (it->cur < it->nsegs) {
			if (it->seg_off < it->segs[it->cur].iov_len)
				return true;
			it->cur++;
			it->seg_off = 0;
		}
		if (!it->ops)
			return false;
		it->error = it->ops->fill(it);
		if (it->error)
			return false;
	}
}

enum io_move { IO_PUT, IO_GET, IO_ZERO };

static size_t io_iter_move(struct io_iter *it, void *buf, size_t size, enum io_move how)
{
	size_t done = 0;

	while (done < size && io_iter_ready(it)) {
		char *p = (char *)it->segs[it->cur].iov_base + it->seg_off;
		size_t n = MIN(it->segs[it->cur].iov_len - it->seg_off, size - done);
		size_t left;

		n = MIN(n, it->remaining);
		if (how == IO_PUT)
			left = guard_copy(p, (char *)buf + done, n);
		else if (how == IO_GET)
			left = guard_copy((char *)buf + done, p, n);
		else
			left = guard_zero(p, n);
		io_iter_advance(it, n - left);
		done += n - left;
		if (left)
			it->error = -EFAULT;
	}
	return done;
}

size_t io_iter_put(struct io_iter *it, const void *src, size_t size)
{
	return io_iter_move(it, (void *)(uintptr_t)src, size, IO_PUT);
}

size_t io_iter_get(struct io_iter *it, void *dst, size_t size)
{
	return io_iter_move(it, dst, size, IO_GET);
}

size_t io_iter_zero(struct io_iter *it, size_t size)
{
	return io_iter_move(it, NULL, size, IO_ZERO);
}

int io_iter_window(struct io_iter *it, uint64_t size, struct iovec *iov, int max)
{
	uint64_t left = MIN(size, it->remaining);
	size_t skip;
	unsigned i;
	int count = 0;

	if (!left)
		return 0;
	if (!io_iter_ready(it))
		return it->error ? it->error : -EFAULT;
	skip = it->seg_off;
	for (i = it->cur; i < it->nsegs && count < max && left; i++, skip = 0) {
		uint64_t n = MIN(it->segs[i].iov_len - skip, left);

		if (!n)
			continue;
		iov[count].iov_base = (char *)it->segs[i].iov_base + skip;
		iov[count].iov_len = n;
		count++;
		left -= n;
	}
	return count;
}

void io_iter_advance(struct io_iter *it, uint64_t size)
{
	assert(size <= it->remaining);
	it->remaining -= size;
	it->consumed += size;
	while (size && it->cur < it->nsegs) {
		uint64_t n = MIN(it->segs[it->cur].iov_len - it->seg_off, size);

		it->seg_off += n;
		size -= n;
		if (size) {
			it->cur++;
			it->seg_off = 0;
		}
	}
	if (size) {
		/* Beyond the window. */
		assert(it->ops);
		it->ops->seek(it, it->consumed);
	}
}

void io_iter_revert(struct io_iter *it, uint64_t size)
{
	assert(size <= it->consumed);
	it->consumed -= size;
	it->remaining += size;
	if (!size)
		return;
	while (size) {
		if (it->seg_off) {
			uint64_t n = MIN((uint64_t)it->seg_off, size);

			it->seg_off -= n;
			size -= n;
		} else if (it->cur) {
			it->cur--;
			it->seg_off = it->segs[it->cur].iov_len;
		} else {
			assert(it->ops);
			it->ops->seek(it, it->consumed);
			break;
		}
	}
}

void io_iter_truncate(struct io_iter *it, uint64_t size)
{
	it->remaining = MIN(it->remaining, size);
}
