/*
 * fsimpl/pipe/splice.c - splice(2), tee(2) and kin on the rings of pages.
 *
 * pipe to pipe moves or shares page references. File to pipe reads into fresh pages and then links them in, so nothing
 * is held across the file's read. Pipe to file cannot give bytes back once others may have read past them: it marks the
 * ring busy, writes out of the pages without the lock, and takes off what was written.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "fsimpl/pipe/internal.h"

/* Moves (or shares, when `share`) from one ring's front to another's back. Pre: both locks. */
static size_t pipe_link_locked(struct pipe *in, struct pipe *out, size_t size, bool share)
{
	size_t done = 0;

	for (uint32_t i = in->tail; i != in->head && done < size && !pipe_full(out); i++) {
		struct pipe_buf *b = pipe_slot(in, i);
		uint32_t len = (uint32_t)MIN((size_t)b->len, size - done);
		bool whole = len == b->len;

		if (share || !whole)
			atomic_fetch_add_explicit(&b->page->refs, 1, memory_order_relaxed);
		/* A shared page must not grow under the other ring. */
		pipe_push_locked(out, b->page, b->off, len, b->packet, b->merge && whole && !share);
		if (share || !whole)
			b->merge = false;
		done += len;
		if (share)
			continue;
		b->off += len;
		b->len -= len;
		if (whole)
			in->tail++;
	}
	return done;
}

static ssize_t pipe_link(struct file *fin, struct file *fout, size_t size, bool share)
{
	struct pipe *in, *out;
	ssize_t ret = 0;

	if (!pipe_is(fin) || !pipe_is(fout) || pipe_of(fin) == pipe_of(fout))
		return -EINVAL;
	if (!size)
		return 0;
	in = pipe_of(fin);
	out = pipe_of(fout);
	mutex_lock_pair(&in->lock, &out->lock);
	if (in->busy)
		ret = -EAGAIN;
	else if (!out->readers)
		ret = -EPIPE;
	else if (in->head == in->tail)
		ret = in->writers ? -EAGAIN : 0;
	else if (pipe_full(out))
		ret = -EAGAIN;
	else
		ret = (ssize_t)pipe_link_locked(in, out, size, share);
	mutex_unlock_pair(&in->lock, &out->lock);
	if (ret == -EPIPE)
		return pipe_broken(0);
	if (ret > 0) {
		wait_queue_wake(&out->wait, POLLIN | POLLRDNORM);
		if (!share)
			wait_queue_wake(&in->wait, POLLOUT | POLLWRNORM);
	}
	return ret;
}

ssize_t pipe_splice_pipe(struct file *in, struct file *out, size_t size)
{
	return pipe_link(in, out, size, false);
}

ssize_t pipe_tee(struct file *in, struct file *out, size_t size)
{
	return pipe_link(in, out, size, true);
}

/* One page from the file; links it if there is still room. -EAGAIN: the pipe is full. */
static ssize_t splice_page_from(struct file *in, int64_t *inout_off, struct pipe *p, size_t size)
{
	struct pipe_page *page = malloc(sizeof(*page));
	struct io_iter it;
	ssize_t n;

	if (!page)
		return -ENOMEM;
	atomic_init(&page->refs, 1);
	io_iter_init_kernel(&it, page->data, MIN(size, (size_t)MOAT_PAGE_SIZE), true);
	n = file_read_iter(in, &it, inout_off, 0);
	io_iter_fini(&it);
	if (n <= 0) {
		pipe_page_unref(page);
		return n;
	}
	if (inout_off)
		*inout_off += n;
	mutex_lock(&p->lock);
	/* Another writer may have taken the slot meanwhile: one beyond the size is better than lost bytes. */
	if (pipe_full(p)) {
		struct pipe_buf *bufs = calloc((size_t)p->nslots * 2, sizeof(*bufs));
		uint32_t used = pipe_used(p);

		if (!bufs) {
			mutex_unlock(&p->lock);
			pipe_page_unref(page);
			return -ENOMEM;
		}
		for (uint32_t i = 0; i < used; i++)
			bufs[i] = *pipe_slot(p, p->tail + i);
		free(p->bufs);
		p->bufs = bufs;
		p->nslots *= 2;
		p->tail = 0;
		p->head = used;
	}
	pipe_push_locked(p, page, 0, (uint32_t)n, false, true);
	mutex_unlock(&p->lock);
	wait_queue_wake(&p->wait, POLLIN | POLLRDNORM);
	return n;
}

ssize_t pipe_splice_from(struct file *in, int64_t *inout_off, struct file *pipe, size_t size)
{
	struct pipe *p = pipe_of(pipe);
	ssize_t total = 0, n = 0;

	while ((size_t)total < size) {
		bool full, broken;

		mutex_lock(&p->lock);
		full = pipe_full(p);
		broken = !p->readers;
		mutex_unlock(&p->lock);
		if (broken) {
			n = total ? 0 : pipe_broken(0);
			break;
		}
		if (full || (total && !(file_poll(in) & POLLIN))) {
			n = -EAGAIN;
			break;
		}
		n = splice_page_from(in, inout_off, p, size - (size_t)total);
		if (n <= 0)
			break;
		total += n;
	}
	return total ? total : n;
}

/* Takes the front off the lock: 0, -EAGAIN, or 1 at the end of the data. */
static int splice_claim(struct pipe *p)
{
	int ret = 0;

	mutex_lock(&p->lock);
	if (p->busy)
		ret = -EAGAIN;
	else if (p->head == p->tail)
		ret = p->writers ? -EAGAIN : 1;
	else
		p->busy = true;
	mutex_unlock(&p->lock);
	return ret;
}

ssize_t pipe_splice_to(struct file *pipe, struct file *out, int64_t *inout_off, size_t size)
{
	struct pipe *p = pipe_of(pipe);
	ssize_t total = 0, n = 0;
	int err = size ? splice_claim(p) : 1;

	if (err)
		return err < 0 ? err : 0;
	while ((size_t)total < size) {
		struct io_iter it;
		struct pipe_buf b = {0};

		mutex_lock(&p->lock);
		if (p->head != p->tail) {
			struct pipe_buf *front = pipe_slot(p, p->tail);

			front->merge = false;
			b = *front; /* stays: busy keeps other readers away */
		}
		mutex_unlock(&p->lock);
		if (!b.page)
			break;
		io_iter_init_kernel(&it, b.page->data + b.off,
				    MIN((size_t)b.len, size - (size_t)total), false);
		n = file_write_iter(out, &it, inout_off, 0);
		io_iter_fini(&it);
		if (n <= 0)
			break;
		if (inout_off)
			*inout_off += n;
		total += n;
		mutex_lock(&p->lock);
		{
			struct pipe_buf *front = pipe_slot(p, p->tail);

			front->off += (uint32_t)n;
			front->len -= (uint32_t)n;
			if (!front->len) {
				pipe_page_put_locked(p, front->page);
				p->tail++;
			}
		}
		mutex_unlock(&p->lock);
	}
	mutex_lock(&p->lock);
	p->busy = false;
	mutex_unlock(&p->lock);
	wait_queue_wake(&p->wait, POLLOUT | POLLWRNORM | POLLIN | POLLRDNORM);
	return total ? total : n;
}
