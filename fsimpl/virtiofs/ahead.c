/*
 * fsimpl/virtiofs/ahead.c - reads through the page cache, and what is read ahead of them.
 *
 * Who reads on is given a window that doubles, up to WINDOW_BYTES_MAX. Its READs are in the device's ring one behind the other, so that
 * it is never idle: while one answer is copied out on this core the daemon fills the pages of the next on another. Nobody waits for such
 * a READ: the reader who comes to its pages takes them in, and so does, for all of them, whoever else takes fill_lock (what is written or cut
 * must not be overtaken). Only one open file at a time has any. Who jumps about gets the pages that he asks for.
 *
 * Making a page in the shared memory costs both processes a fault, several times what copying it does. So a file that is read on and on through
 * one open file keeps VIRTIOFS_STREAM_BYTES behind its reader and uses the rest again, which is also still in the processor's caches; a file
 * that is read again then costs requests again, as it would if the cache were short of memory. What is dirty, mapped or in use stays.
 */
#include <stdlib.h>

#include "fsimpl/virtiofs/internal.h"

#define WINDOW_BYTES_MIN (64ul << 10)
/* With the piece that is copied out it is less than VIRTIOFS_STREAM_BYTES: what is used again was read. */
#define WINDOW_BYTES_MAX (2ul << 20)

static struct memfile *memory(const struct virtiofs_inode *in)
{
	return virtiofs_device_memory(in->fs->dev);
}

/* ---- what is under way; in->ahead is guarded by fill_lock ---- */

struct virtiofs_ahead {
	struct vdev_pending pending;
	struct virtiofs_handle *h; /* a reference */
	uint64_t off, end;
	unsigned count, cost; /* of data; as vdev_ahead_take() said */
	struct vdev_data data[VDEV_DATA_MAX]; /* references */
	struct virtiofs_ahead *next; /* in->ahead_gone */
};

/* It is not under way. Its handle goes after the lock: that may be the last reference, whose RELEASE waits. Pre: fill_lock. */
static void ahead_free(struct virtiofs_inode *in, struct virtiofs_ahead *a)
{
	for (unsigned i = 0; i < a->count; i++)
		memfile_range_unref(memory(in), a->data[i].off, a->data[i].size);
	a->next = in->ahead_gone;
	in->ahead_gone = a;
}

/* Takes in one. Return: 0, also if it failed: who needs it asks again; -EINTR: killed, it goes on by itself. */
static int reap_at(struct virtiofs_inode *in, unsigned i)
{
	struct virtiofs_ahead *a = in->ahead[i];
	ssize_t got = vdev_end(&a->pending, NULL);

	vdev_ahead_give(in->fs->dev, a->cost);
	if (got >= 0)
		virtiofs_data_arrived(in, a->off, a->data, a->count, (uint64_t)got);
	in->ahead_count--;
	for (; i < in->ahead_count; i++)
		in->ahead[i] = in->ahead[i + 1];
	if (!in->ahead_count)
		atomic_store(&in->ahead_of, NULL);
	ahead_free(in, a);
	return got == -EINTR ? -EINTR : 0;
}

/* All, whatever comes: who is killed leaves each of them, and then no other wait is needed to be rid of them. */
static int reap_all(struct virtiofs_inode *in)
{
	int err = 0;

	while (in->ahead_count)
		if (reap_at(in, 0))
			err = -EINTR;
	return err;
}

/* The one that reads `off`; -1: none. */
static int ahead_at(const struct virtiofs_inode *in, uint64_t off)
{
	for (unsigned i = 0; i < in->ahead_count; i++)
		if (off >= in->ahead[i]->off && off < in->ahead[i]->end)
			return (int)i;
	return -1;
}

/* Would a READ of [off, end) land in a page of another's, or out of their order? */
static bool collides(const struct virtiofs_inode *in, uint64_t off)
{
	return in->ahead_count && off < in->ahead[in->ahead_count - 1]->end;
}

enum { AHEAD_BEGUN, AHEAD_THERE, AHEAD_NOT_NOW };

/* Begins to read [off, end), which is one READ at most. *ret_end: up to where it goes. Pre: fill_lock. */
static int ahead_begin(struct virtiofs_inode *in, struct virtiofs_handle *h, uint64_t off,
		       uint64_t end, bool stream, uint64_t *ret_end)
{
	struct virtiofs_ahead *a = NULL;
	int ret = AHEAD_NOT_NOW;

	if (in->ahead_count == VIRTIOFS_AHEAD_DEPTH || collides(in, off) ||
	    (in->ahead_count && atomic_load(&in->ahead_of) != h))
		return AHEAD_NOT_NOW;
	end = round_up_u64(end, MOAT_PAGE_SIZE);
	if (!(stream ? virtiofs_data_provide_stream(in, off, end)
		     : virtiofs_data_provide(in, off, end)))
		a = calloc(1, sizeof(*a));
	if (!a)
		return AHEAD_NOT_NOW;
	ref_get(&h->ref);
	a->h = h;
	a->count = virtiofs_data_collect(in, &off, end, a->data, VDEV_DATA_MAX);
	a->off = a->end = off;
	for (unsigned i = 0; i < a->count; i++)
		a->end += a->data[i].size;
	*ret_end = a->count ? a->end : end;
	if (!a->count)
		ret = AHEAD_THERE;
	else if ((a->cost = vdev_ahead_take(in->fs->dev, a->count)) != 0) {
		if (!virtiofs_data_read_begin(in, h, off, a->data, a->count, &a->pending))
			ret = AHEAD_BEGUN;
		else
			vdev_ahead_give(in->fs->dev, a->cost);
	}
	if (ret != AHEAD_BEGUN) {
		ahead_free(in, a);
		return ret;
	}
	in->ahead[in->ahead_count++] = a;
	atomic_store(&in->ahead_of, h);
	return ret;
}

/* ---- fill_lock ---- */

/* Return: 0; -EINTR: killed (!always). What is under way stays so. */
static int lock_fill(struct virtiofs_inode *in, bool always)
{
	if (always)
		op_lock(&in->fill_lock);
	else if (op_lock_killable(&in->fill_lock))
		return -EINTR;
	atomic_store(&in->fill_holders, 1);
	return 0;
}

void virtiofs_fill_begin(struct virtiofs_inode *in)
{
	for (;;) {
		(void)!lock_fill(in, true);
		if (!reap_all(in))
			return;
		/* Killed; the READs that were left keep the lock until they are through. */
		virtiofs_fill_end(in);
	}
}

int virtiofs_fill_begin_killable(struct virtiofs_inode *in)
{
	int err = lock_fill(in, false);

	if (err)
		return err;
	err = reap_all(in);
	if (err)
		virtiofs_fill_end(in);
	return err;
}

void virtiofs_fill_left(struct virtiofs_inode *in)
{
	if (atomic_fetch_sub(&in->fill_holders, 1) == 1)
		op_unlock(&in->fill_lock);
}

void virtiofs_fill_end(struct virtiofs_inode *in)
{
	struct virtiofs_ahead *gone = in->ahead_gone, *a;

	in->ahead_gone = NULL;
	virtiofs_fill_left(in);
	while ((a = gone)) {
		gone = a->next;
		virtiofs_handle_unref(a->h);
		free(a);
	}
}

/* A killed task waits for nothing here unless somebody else is at work on the inode: what it leaves keeps the lock without it. */
void virtiofs_ahead_stop(struct virtiofs_handle *h)
{
	struct virtiofs_inode *in = h->in;

	if (atomic_load(&in->ahead_of) != h)
		return;
	(void)!lock_fill(in, true);
	(void)!reap_all(in);
	virtiofs_fill_end(in);
}

/* ---- reading ---- */

/* A read through an open file, and its advice. */
struct reading {
	struct virtiofs_inode *in;
	struct virtiofs_handle *h;
	struct virtiofs_readahead *ra;
	uint64_t off, end, size; /* of the read; of the file */
	uint64_t window; /* 0: who reads does not read on */
};

static uint64_t window_max(const struct virtiofs_inode *in)
{
	return MIN(VIRTIOFS_AHEAD_DEPTH * (uint64_t)in->fs->max_read, WINDOW_BYTES_MAX);
}

/* Races between threads of one file only spoil it. */
static void take_advice(struct reading *r)
{
	struct virtiofs_readahead *ra = r->ra;

	r->window = atomic_load_explicit(&ra->window, memory_order_relaxed);
	if (r->off != atomic_load_explicit(&ra->next, memory_order_relaxed)) {
		r->window = 0;
		atomic_store_explicit(&ra->asked, 0, memory_order_relaxed);
	} else if (!r->window) {
		r->window = WINDOW_BYTES_MIN;
	}
	atomic_store_explicit(&ra->next, r->end, memory_order_relaxed);
	atomic_store_explicit(&ra->window, r->window, memory_order_relaxed);
}

/* Is less under way than there should be? asked: up to where. */
static bool wants_more(const struct reading *r, uint64_t asked)
{
	return r->window && asked < r->size &&
	       asked + MIN(r->window, (uint64_t)r->in->fs->max_read) / 2 <= r->end + r->window;
}

/* Asks for what follows `asked`, as far as the window reaches. Pre: fill_lock. */
static void ask_on(struct reading *r, uint64_t asked)
{
	bool stream = r->window == window_max(r->in);

	do {
		uint64_t stop = MIN(asked + MIN(r->window, (uint64_t)r->in->fs->max_read), r->size);

		if (ahead_begin(r->in, r->h, asked, stop, stream, &asked) == AHEAD_NOT_NOW)
			break;
	} while (wants_more(r, asked));
	atomic_store_explicit(&r->ra->asked, asked, memory_order_relaxed);
	atomic_store_explicit(&r->ra->window, r->window, memory_order_relaxed);
}

/* Does the host copy what he reads? ask: if that was not asked for yet it is, once he has read on for as far as windows go. */
static bool passes(struct reading *r, bool ask)
{
	uint64_t piece = r->end - r->off;

	ask = ask && r->window && MAX(r->window, 2 * piece) >= window_max(r->in);
	return piece >= VIRTIOFS_PASS_BYTES && virtiofs_pass_ready(r->h, ask);
}

/* The reader has what he comes to next: is there enough behind it? Return: 0, -EINTR. */
static int read_on(struct reading *r)
{
	uint64_t asked = atomic_load_explicit(&r->ra->asked, memory_order_relaxed);
	int err;

	if (likely(!wants_more(r, asked)) || passes(r, false))
		return 0;
	err = lock_fill(r->in, false);
	if (err)
		return err;
	while (r->in->ahead_count && !err && vdev_done(&r->in->ahead[0]->pending))
		err = reap_at(r->in, 0);
	r->window = MIN(r->window * 2, window_max(r->in));
	if (!err)
		ask_on(r, MAX(asked, round_down_u64(r->off, MOAT_PAGE_SIZE)));
	virtiofs_fill_end(r->in);
	return err;
}

static bool is_valid(struct virtiofs_inode *in, uint64_t off)
{
	bool valid;

	rwlock_read_lock(&in->map.data_lock);
	valid = virtiofs_page_valid(in, off);
	rwlock_read_unlock(&in->map.data_lock);
	return valid;
}

/* Makes the page at `at` valid, and what the reader will want after it if he reads on. Return: 0, -errno. */
static int fetch(struct reading *r, uint64_t at)
{
	uint64_t most = window_max(r->in);
	struct virtiofs_inode *in = r->in;
	int err = lock_fill(in, false), i;

	if (err)
		return err;
	i = ahead_at(in, at);
	if (i < 0)
		err = reap_all(in); /* that of another place */
	if (i < 0 && !err && r->window && !is_valid(in, at)) {
		r->window = MIN(MAX(r->window, 2 * (r->end - r->off)), most);
		ask_on(r, round_down_u64(at, MOAT_PAGE_SIZE));
		i = ahead_at(in, at);
	}
	if (i >= 0)
		err = reap_at(in, (unsigned)i);
	/* Killed: none may be left to whoever closes the file, who would wait for the one that was left. */
	if (err)
		(void)!reap_all(in);
	/* It could not be asked for so, or the answer was an error, which is the reader's if it comes again. */
	if (!err && !is_valid(in, at))
		err = reap_all(in)
			      ?: virtiofs_data_fill_locked(in, r->h, at,
							   MIN(r->end, at + VIRTIOFS_READ_MAX));
	virtiofs_fill_end(in);
	return err;
}

/* Bytes from off on that lie valid in one chunk, with a reference on it; 0: none. */
static uint64_t pin_valid(struct virtiofs_inode *in, uint64_t off, uint64_t end, uint64_t *ret_mem)
{
	struct virtiofs_chunk *c;
	uint64_t at = off;

	rwlock_read_lock(&in->map.data_lock);
	c = virtiofs_chunk_at(in, off);
	end = MIN(end, round_down_u64(off, MEM_CHUNK_SIZE) + MEM_CHUNK_SIZE);
	while (c && at < end && (c->valid & VIRTIOFS_PAGE_BIT(at)))
		at = round_down_u64(at, MOAT_PAGE_SIZE) + MOAT_PAGE_SIZE;
	at = MIN(at, end);
	if (at > off) {
		*ret_mem = c->off + (off & (MEM_CHUNK_SIZE - 1));
		if (memfile_range_ref(memory(in), *ret_mem, at - off))
			abort();
	}
	rwlock_read_unlock(&in->map.data_lock);
	return at - off;
}

/* Bytes from `at` on of which nothing lies in the cache. */
static uint64_t missing(struct virtiofs_inode *in, uint64_t at, uint64_t end)
{
	uint64_t start = at;

	rwlock_read_lock(&in->map.data_lock);
	while (at < end) {
		struct virtiofs_chunk *c = virtiofs_chunk_at(in, at);

		if (c && (c->valid & VIRTIOFS_PAGE_BIT(at)))
			break;
		at = c && c->valid ? round_down_u64(at, MOAT_PAGE_SIZE) + MOAT_PAGE_SIZE
				   : round_down_u64(at, MEM_CHUNK_SIZE) + MEM_CHUNK_SIZE;
	}
	rwlock_read_unlock(&in->map.data_lock);
	return MIN(at, end) - start;
}

/* What is not in the cache, by the host's own call. READs under way are taken in first. Return: bytes; 0: not so; -EFAULT. */
static ssize_t pass_over(struct reading *r, struct io_iter *it, uint64_t at)
{
	uint64_t n;

	if (missing(r->in, at, r->end) < VIRTIOFS_PASS_BYTES || !passes(r, true) ||
	    atomic_load(&r->in->ahead_of))
		return 0;
	/* Asking took in what was under way. */
	n = missing(r->in, at, r->end);
	return n < VIRTIOFS_PASS_BYTES ? 0 : virtiofs_pass_read(r->in, it, at, at + n);
}

/* One piece of a read. Return: bytes, -errno. */
static ssize_t read_piece(struct reading *r, struct io_iter *it)
{
	uint64_t done = 0;
	int err;

	take_advice(r);
	while (r->off + done < r->end) {
		uint64_t mem = 0, n = pin_valid(r->in, r->off + done, r->end, &mem);
		ssize_t passed = n ? 0 : pass_over(r, it, r->off + done);
		size_t put;

		if (passed < 0)
			return done ? (ssize_t)done : passed;
		if (passed) {
			done += (uint64_t)passed;
			continue;
		}
		if (!n) {
			err = fetch(r, r->off + done);
			if (err)
				return done ? (ssize_t)done : err;
			continue;
		}
		if (!done && (err = read_on(r))) {
			memfile_range_unref(memory(r->in), mem, n);
			return err;
		}
		put = io_iter_put(it, memfile_ptr(memory(r->in), mem), n);
		memfile_range_unref(memory(r->in), mem, n);
		done += put;
		if (put < n)
			return done ? (ssize_t)done : -EFAULT;
	}
	return (ssize_t)done;
}

ssize_t virtiofs_data_read(struct virtiofs_inode *in, struct virtiofs_handle *h,
			   struct virtiofs_readahead *ra, struct io_iter *it, uint64_t off)
{
	struct reading r = {.in = in, .h = h, .ra = ra, .size = virtiofs_inode_size(in)};
	uint64_t end = off >= r.size ? off : MIN(r.size, off + it->remaining), done = 0;
	ssize_t got;

	while (off + done < end) {
		r.off = off + done;
		r.end = MIN(end, r.off + VIRTIOFS_READ_MAX);
		got = read_piece(&r, it);
		if (got < 0)
			return done ? (ssize_t)done : got;
		done += (uint64_t)got;
		if (r.off + (uint64_t)got < r.end)
			break;
	}
	return (ssize_t)done;
}
