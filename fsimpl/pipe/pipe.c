/*
 * fsimpl/pipe/pipe.c - the ring and the file operations of both ends.
 *
 * A pipe is a ring of page-sized buffers, as in Linux (fs/pipe.c), because programs see it: F_SETPIPE_SZ counts
 * slots, a write of up to PIPE_BUF bytes is one piece, O_DIRECT makes packets, and splice moves buffers.
 *
 * Copies are made under the pipe's lock, so that concurrent readers get whole pieces, but never fault there: the
 * iterator's window is pinned first. Writes of at most PIPE_BUF bytes go through the stack, larger ones straight
 * into the ring. Both sides share one wait queue; waiters' masks tell them apart. Two spare pages per pipe keep a
 * ping-pong away from malloc.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <linux/capability.h>

#include "fsimpl/anon/anon.h"
#include "fsimpl/pipe/internal.h"
#include "mem/guard.h"

static REF_TYPE(pipe_ref_type, "pipe");

_Atomic int64_t pipe_size_max = 1 << 20, pipe_user_pages_soft = 16384, pipe_user_pages_hard;

ssize_t pipe_broken(int rwf)
{
	if (!(rwf & RWF_NOSIGNAL) && vfs_hooks.raise_signal)
		vfs_hooks.raise_signal(SIGPIPE);
	return -EPIPE;
}

/* ---- pages and slots ---- */

struct pipe_page *pipe_page_get_locked(struct pipe *p)
{
	struct pipe_page *page;

	for (int i = 0; i < PIPE_SPARE_PAGES; i++)
		if ((page = p->spare[i])) {
			p->spare[i] = NULL;
			return page;
		}
	page = malloc(sizeof(*page));
	if (page)
		atomic_init(&page->refs, 1);
	return page;
}

void pipe_page_unref(struct pipe_page *page)
{
	if (atomic_fetch_sub_explicit(&page->refs, 1, memory_order_acq_rel) == 1)
		free(page);
}

void pipe_page_put_locked(struct pipe *p, struct pipe_page *page)
{
	if (atomic_load_explicit(&page->refs, memory_order_acquire) == 1)
		for (int i = 0; i < PIPE_SPARE_PAGES; i++)
			if (!p->spare[i]) {
				p->spare[i] = page;
				return;
			}
	pipe_page_unref(page);
}

void pipe_push_locked(struct pipe *p, struct pipe_page *page, uint32_t off, uint32_t len,
		      bool packet, bool merge)
{
	assert(!pipe_full(p));
	*pipe_slot(p, p->head) = (struct pipe_buf){
		.page = page, .off = off, .len = len, .packet = packet, .merge = merge};
	p->head++;
}

/* ---- whose pages they are ---- */

static bool has_cap(int cap)
{
	const struct cred *c = cred_current();

	return !c || cred_has_cap(c, cap);
}

static bool over(int64_t pages, _Atomic int64_t *limit)
{
	int64_t max = atomic_load_explicit(limit, memory_order_relaxed);

	return max && pages > max;
}

/* Linux's pipe_is_unprivileged_user(). */
static bool unprivileged(void)
{
	return !has_cap(CAP_SYS_RESOURCE) && !has_cap(CAP_SYS_ADMIN);
}

/* Sets user and nslots of a new pipe and charges them. Return: 0, -ENFILE (the hard limit), -ENOMEM. */
static int charge_new(struct pipe *p)
{
	const struct cred *c = cred_current();
	int64_t max = atomic_load_explicit(&pipe_size_max, memory_order_relaxed), pages;

	p->user = ucount_get(c ? c->uid : 0);
	if (!p->user)
		return -ENOMEM;
	p->nslots = PIPE_DEFAULT_SIZE / MOAT_PAGE_SIZE;
	if (max < (int64_t)PIPE_DEFAULT_SIZE && !has_cap(CAP_SYS_RESOURCE))
		p->nslots = (uint32_t)(max / (int64_t)MOAT_PAGE_SIZE);
	pages = ucount_charge(p->user, UCOUNT_PIPE_PAGES, p->nslots);
	if (over(pages, &pipe_user_pages_soft) && p->nslots > PIPE_SLOTS_POOR && unprivileged()) {
		ucount_uncharge(p->user, UCOUNT_PIPE_PAGES, p->nslots - PIPE_SLOTS_POOR);
		pages -= p->nslots - PIPE_SLOTS_POOR;
		p->nslots = PIPE_SLOTS_POOR;
	}
	if (!over(pages, &pipe_user_pages_hard) || !unprivileged())
		return 0;
	ucount_uncharge(p->user, UCOUNT_PIPE_PAGES, p->nslots);
	ucount_put(p->user);
	return -ENFILE;
}

static void uncharge(struct pipe *p)
{
	ucount_uncharge(p->user, UCOUNT_PIPE_PAGES, p->nslots);
	ucount_put(p->user);
}

int pipe_alloc(struct pipe **ret)
{
	struct pipe *p = calloc(1, sizeof(*p));
	int err;

	if (!p)
		return -ENOMEM;
	err = charge_new(p);
	if (err) {
		free(p);
		return err;
	}
	p->bufs = calloc(p->nslots, sizeof(*p->bufs));
	if (!p->bufs) {
		uncharge(p);
		free(p);
		return -ENOMEM;
	}
	ref_init(&p->ref, &pipe_ref_type);
	mutex_init(&p->lock, LOCK_PIPE, "pipe");
	wait_queue_init(&p->wait);
	*ret = p;
	return 0;
}

void pipe_unref(struct pipe *p)
{
	if (!ref_put(&p->ref))
		return;
	pipe_fifo_forget(p);
	for (; p->tail != p->head; p->tail++)
		pipe_page_unref(pipe_slot(p, p->tail)->page);
	for (int i = 0; i < PIPE_SPARE_PAGES; i++)
		free(p->spare[i]);
	wait_queue_fini(&p->wait);
	ref_fini(&p->ref, &pipe_ref_type);
	uncharge(p);
	free(p->bufs);
	free(p);
}

/* ---- reading ---- */

/* What one read keeps between its windows. */
struct pipe_taking {
	size_t part; /* bytes that it took of the front buffer, which holds more */
	struct pipe_page *page; /* that buffer's; compared only */
	uint32_t off; /* and where the buffer has begun since */
	bool stop; /* a packet was taken */
};

/*
 * Moves bytes from the ring's front to the pinned window. Pre: p->lock, not empty. *ret_done is set even on a fault.
 * last: the window is all that the reader has left. Return: 0, or -EFAULT.
 */
static int pipe_take_locked(struct pipe *p, struct pipe_taking *t, const struct iovec *iov, int n,
			    bool last, size_t *ret_done)
{
	size_t done = 0, in_seg = 0;
	int err = 0, i = 0;

	while (i < n && p->head != p->tail && !t->stop && !err) {
		struct pipe_buf *b = pipe_slot(p, p->tail);
		size_t chunk = MIN((size_t)b->len, iov[i].iov_len - in_seg);
		size_t left =
			guard_copy((char *)iov[i].iov_base + in_seg, b->page->data + b->off, chunk);

		if (left)
			err = -EFAULT;
		chunk -= left;
		if (t->page != b->page || t->off != b->off)
			t->part = 0;
		b->off += chunk;
		b->len -= chunk;
		t->part += chunk;
		t->page = b->page;
		t->off = b->off;
		done += chunk;
		in_seg += chunk;
		if (in_seg == iov[i].iov_len) {
			i++;
			in_seg = 0;
		}
		if (b->packet && !err && (b->len == 0 || (last && i == n))) {
			t->stop = true; /* what did not fit of a packet is lost */
			b->len = 0;
		}
		if (!b->len) {
			pipe_page_put_locked(p, b->page);
			b->page = NULL;
			p->tail++;
			t->page = NULL;
			t->part = 0;
		}
	}
	*ret_done = done;
	return err;
}

/*
 * A fault cut the read: what it took of a buffer that it did not finish goes back, since Linux moves all that is
 * asked of a buffer or nothing. Not when another reader went on from there. Return: bytes put back.
 */
static size_t pipe_untake(struct pipe *p, const struct pipe_taking *t)
{
	size_t back = 0;

	mutex_lock(&p->lock);
	if (t->part && !p->busy && p->head != p->tail) {
		struct pipe_buf *b = pipe_slot(p, p->tail);

		if (b->page == t->page && b->off == t->off) {
			back = t->part;
			b->off -= (uint32_t)back;
			b->len += (uint32_t)back;
		}
	}
	mutex_unlock(&p->lock);
	return back;
}

static ssize_t pipe_read(struct file *f, struct io_iter *it, unused_arg int64_t off,
			 unused_arg int rwf)
{
	struct pipe *p = pipe_of(f);
	struct pipe_taking taking = {0};
	ssize_t total = 0;
	bool stop = false, freed = false;
	int err = 0;

	while (it->remaining && !stop && !err) {
		struct iovec iov[IO_ITER_SEGS];
		size_t done = 0, room = 0;
		int n = io_iter_window(it, it->remaining, iov, IO_ITER_SEGS);

		if (n < 0) {
			err = n;
			break;
		}
		for (int i = 0; i < n; i++)
			room += iov[i].iov_len;
		mutex_lock(&p->lock);
		if (p->busy) {
			err = -EAGAIN;
		} else if (p->head != p->tail) {
			uint32_t tail = p->tail;

			err = pipe_take_locked(p, &taking, iov, n, room == it->remaining, &done);
			stop = taking.stop;
			freed |= p->tail != tail;
		} else if (p->writers) {
			err = -EAGAIN;
		} else {
			stop = true;
		}
		mutex_unlock(&p->lock);
		io_iter_advance(it, done);
		total += (ssize_t)done;
	}
	if (err == -EFAULT) {
		size_t back = pipe_untake(p, &taking);

		io_iter_revert(it, back);
		total -= (ssize_t)back;
		it->error = err;
	}
	/* A page that is only partly read makes no room: waking a writer for it would be in vain. */
	if (freed)
		wait_queue_wake(&p->wait, POLLOUT | POLLWRNORM);
	return total ? total : err;
}

/* ---- writing ---- */

/* One piece of at most PIPE_BUF bytes, whole or not at all. Pre: p->lock. */
static int pipe_put_atomic_locked(struct pipe *p, const void *data, size_t size, bool packet)
{
	struct pipe_page *page;

	if (!packet && p->head != p->tail) {
		struct pipe_buf *last = pipe_slot(p, p->head - 1);

		if (last->merge && last->off + last->len + size <= MOAT_PAGE_SIZE && !p->busy) {
			memcpy(last->page->data + last->off + last->len, data, size);
			last->len += size;
			return 0;
		}
	}
	if (pipe_full(p))
		return -EAGAIN;
	page = pipe_page_get_locked(p);
	if (!page)
		return -ENOMEM;
	memcpy(page->data, data, size);
	pipe_push_locked(p, page, 0, (uint32_t)size, packet, !packet);
	return 0;
}

static ssize_t pipe_write_small(struct pipe *p, struct io_iter *it, bool packet, int rwf)
{
	char data[PIPE_ATOMIC_MAX];
	size_t size = io_iter_get(it, data, it->remaining);
	int err;

	if (!size)
		return it->error ? it->error : -EFAULT;
	mutex_lock(&p->lock);
	err = p->readers ? pipe_put_atomic_locked(p, data, size, packet) : -EPIPE;
	mutex_unlock(&p->lock);
	if (err)
		io_iter_revert(it, size);
	if (err == -EPIPE)
		return pipe_broken(rwf);
	if (err)
		return err;
	wait_queue_wake(&p->wait, POLLIN | POLLRDNORM);
	return (ssize_t)size;
}

/* Fills slots from the pinned window. Pre: p->lock. */
static int pipe_fill_locked(struct pipe *p, const struct iovec *iov, int n, bool packet,
			    size_t *ret_done)
{
	size_t done = 0, in_seg = 0;
	int i = 0, err = 0;

	while (i < n && !err) {
		struct pipe_page *page;
		size_t fill = 0;

		if (pipe_full(p)) {
			err = done ? 0 : -EAGAIN;
			break;
		}
		page = pipe_page_get_locked(p);
		if (!page) {
			err = -ENOMEM;
			break;
		}
		while (fill < MOAT_PAGE_SIZE && i < n && !err) {
			size_t chunk = MIN(MOAT_PAGE_SIZE - fill, iov[i].iov_len - in_seg);
			size_t left = guard_copy(page->data + fill,
						 (char *)iov[i].iov_base + in_seg, chunk);

			if (left)
				err = -EFAULT;
			fill += chunk - left;
			in_seg += chunk - left;
			if (in_seg == iov[i].iov_len) {
				i++;
				in_seg = 0;
			}
		}
		if (fill)
			pipe_push_locked(p, page, 0, (uint32_t)fill, packet, !packet);
		else
			pipe_page_put_locked(p, page);
		done += fill;
	}
	*ret_done = done;
	return err;
}

static ssize_t pipe_write(struct file *f, struct io_iter *it, unused_arg int64_t *inout_off,
			  int rwf)
{
	bool packet = file_flags(f) & O_DIRECT;
	struct pipe *p = pipe_of(f);
	ssize_t total = 0;
	int err = 0;

	if (!it->remaining)
		return 0;
	if (it->remaining <= PIPE_ATOMIC_MAX)
		return pipe_write_small(p, it, packet, rwf);
	while (it->remaining && !err) {
		struct iovec iov[IO_ITER_SEGS];
		size_t done = 0;
		int n = io_iter_window(it, it->remaining, iov, IO_ITER_SEGS);

		if (n < 0) {
			err = n;
			break;
		}
		mutex_lock(&p->lock);
		err = p->readers ? pipe_fill_locked(p, iov, n, packet, &done) : -EPIPE;
		mutex_unlock(&p->lock);
		io_iter_advance(it, done);
		total += (ssize_t)done;
		if (done)
			wait_queue_wake(&p->wait, POLLIN | POLLRDNORM);
	}
	if (err == -EFAULT)
		it->error = err;
	if (total)
		return total;
	return err == -EPIPE ? pipe_broken(rwf) : err;
}

ssize_t pipe_vmsplice(struct file *f, struct io_iter *it)
{
	return pipe_write(f, it, NULL, 0);
}

/* ---- readiness, ioctl, life ---- */

static uint32_t pipe_poll(struct file *f)
{
	struct pipe_file *pf = pipe_file_of(f);
	struct pipe *p = pf->pipe;
	uint32_t events = 0;

	mutex_lock(&p->lock);
	if (f->mode & FILE_READ) {
		if (p->head != p->tail)
			events |= POLLIN | POLLRDNORM;
		if (!p->writers && p->writer_seq != pf->hup_seq)
			events |= POLLHUP;
	}
	if (f->mode & FILE_WRITE) {
		if (!pipe_full(p))
			events |= POLLOUT | POLLWRNORM;
		if (!p->readers)
			events |= POLLERR;
	}
	mutex_unlock(&p->lock);
	return events;
}

static void pipe_poll_add(struct file *f, struct waiter *w)
{
	wait_queue_add(&pipe_of(f)->wait, w);
}

static void pipe_poll_remove(unused_arg struct file *f, struct waiter *w)
{
	wait_queue_remove(w);
}

static size_t pipe_bytes_of(struct pipe *p)
{
	size_t bytes = 0;

	mutex_lock(&p->lock);
	for (uint32_t i = p->tail; i != p->head; i++)
		bytes += pipe_slot(p, i)->len;
	mutex_unlock(&p->lock);
	return bytes;
}

size_t pipe_bytes(struct file *f)
{
	return pipe_is(f) ? pipe_bytes_of(pipe_of(f)) : 0;
}

static int64_t pipe_ioctl(struct file *f, unsigned cmd, uint64_t arg)
{
	int32_t bytes;

	if (cmd != FIONREAD)
		return -ENOTTY;
	bytes = (int32_t)pipe_bytes_of(pipe_of(f));
	return vfs_user_copy_out(arg, &bytes, sizeof(bytes));
}

static void pipe_release(struct file *f)
{
	struct pipe *p = pipe_of(f);

	mutex_lock(&p->lock);
	if (f->mode & FILE_READ)
		p->readers--;
	if (f->mode & FILE_WRITE)
		p->writers--;
	mutex_unlock(&p->lock);
	/* Either side may be waiting for what now cannot come. */
	wait_queue_wake(&p->wait, POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM | POLLERR | POLLHUP);
	pipe_unref(p);
	file_free(f);
}

const struct file_ops pipe_ops = {
	.name = "pipe",
	.release = pipe_release,
	.read_iter = pipe_read,
	.write_iter = pipe_write,
	.poll = pipe_poll,
	.poll_add = pipe_poll_add,
	.fasync = true,
	.poll_remove = pipe_poll_remove,
	.stat = anon_file_stat,
	.set_stat = anon_file_set_stat,
	.ioctl = pipe_ioctl,
};

/* Attributes are the filesystem's, through the dentry. */
const struct file_ops fifo_ops = {
	.name = "fifo",
	.release = pipe_release,
	.read_iter = pipe_read,
	.write_iter = pipe_write,
	.poll = pipe_poll,
	.poll_add = pipe_poll_add,
	.fasync = true,
	.poll_remove = pipe_poll_remove,
	.ioctl = pipe_ioctl,
};

bool pipe_is(struct file *f)
{
	return f->ops == &pipe_ops || f->ops == &fifo_ops;
}

int pipe_file_create(struct pipe *p, const struct file_ops *ops, const struct vfs_path *path,
		     unsigned flags, struct file **ret)
{
	unsigned accmode = flags & O_ACCMODE;
	unsigned mode = FILE_STREAM;
	struct pipe_file *pf = calloc(1, sizeof(*pf));

	if (!pf)
		return -ENOMEM;
	if (accmode != O_WRONLY)
		mode |= FILE_READ;
	if (accmode != O_RDONLY)
		mode |= FILE_WRITE;
	file_init(&pf->f, ops, path, flags, mode);
	ref_get(&p->ref);
	pf->pipe = p;
	mutex_lock(&p->lock);
	if (mode & FILE_READ) {
		p->readers++;
		p->reader_seq++;
	}
	if (mode & FILE_WRITE) {
		p->writers++;
		p->writer_seq++;
	}
	mutex_unlock(&p->lock);
	*ret = &pf->f;
	return 0;
}

static int pipe_reopen(struct anon_dentry *ad, const struct vfs_path *place, unsigned flags,
		       struct file **ret)
{
	return pipe_open_on(ad->priv, &pipe_ops, place, flags, ret);
}

static void pipe_drop(void *priv)
{
	pipe_unref(priv);
}

int pipe_create(unsigned flags, struct file *ret[2])
{
	struct anon_args args = {.kind = ANON_PIPE,
				 .mode = S_IFIFO | 0600,
				 .reopen = pipe_reopen,
				 .drop = pipe_drop};
	struct vfs_path path;
	struct file *r, *w;
	struct pipe *p;
	int err;

	if (flags & ~(unsigned)(O_NONBLOCK | O_DIRECT | O_CLOEXEC))
		return -EINVAL;
	err = pipe_alloc(&p);
	if (err)
		return err;
	args.priv = p;
	err = anon_path_create(&args, &path); /* takes the reference on p */
	if (err) {
		pipe_unref(p);
		return err;
	}
	err = pipe_file_create(p, &pipe_ops, &path, O_RDONLY | (flags & O_NONBLOCK), &r);
	if (err)
		goto out_path;
	err = pipe_file_create(p, &pipe_ops, &path, O_WRONLY | (flags & (O_NONBLOCK | O_DIRECT)),
			       &w);
	if (err) {
		file_unref(r);
		goto out_path;
	}
	ret[0] = r;
	ret[1] = w;
out_path:
	vfs_path_unref(&path);
	return err;
}

/* ---- capacity ---- */

int64_t pipe_get_size(struct file *f)
{
	struct pipe *p;
	int64_t size;

	if (!pipe_is(f))
		return -EBADF;
	p = pipe_of(f);
	mutex_lock(&p->lock);
	size = (int64_t)p->nslots * (int64_t)MOAT_PAGE_SIZE;
	mutex_unlock(&p->lock);
	return size;
}

uint64_t pipe_round_size(uint64_t size)
{
	uint64_t rounded = MOAT_PAGE_SIZE;

	if (size > 1u << 31)
		return 0;
	while (rounded < size)
		rounded <<= 1;
	return rounded;
}

/* Charges the change of the ring's size. Pre: p->lock. Return: 0, -EPERM. */
static int charge_resize(struct pipe *p, uint32_t nslots)
{
	int64_t more = (int64_t)nslots - p->nslots, pages;

	if (more > 0 &&
	    (int64_t)nslots * (int64_t)MOAT_PAGE_SIZE >
		    atomic_load_explicit(&pipe_size_max, memory_order_relaxed) &&
	    !has_cap(CAP_SYS_RESOURCE))
		return -EPERM;
	pages = ucount_charge(p->user, UCOUNT_PIPE_PAGES, more);
	if (more <= 0 || !unprivileged() ||
	    (!over(pages, &pipe_user_pages_soft) && !over(pages, &pipe_user_pages_hard)))
		return 0;
	ucount_uncharge(p->user, UCOUNT_PIPE_PAGES, more);
	return -EPERM;
}

int64_t pipe_set_size(struct file *f, uint64_t size)
{
	struct pipe_buf *bufs, *old;
	uint32_t nslots, used;
	struct pipe *p;
	int err;

	if (!pipe_is(f))
		return -EBADF;
	nslots = (uint32_t)(pipe_round_size(size) / MOAT_PAGE_SIZE);
	if (!nslots)
		return -EINVAL;
	bufs = calloc(nslots, sizeof(*bufs));
	if (!bufs)
		return -ENOMEM;
	p = pipe_of(f);
	mutex_lock(&p->lock);
	used = pipe_used(p);
	err = charge_resize(p, nslots);
	if (!err && (used > nslots || p->busy)) {
		ucount_uncharge(p->user, UCOUNT_PIPE_PAGES, (int64_t)nslots - p->nslots);
		err = -EBUSY;
	}
	if (err) {
		mutex_unlock(&p->lock);
		free(bufs);
		return err;
	}
	for (uint32_t i = 0; i < used; i++)
		bufs[i] = *pipe_slot(p, p->tail + i);
	old = p->bufs;
	p->bufs = bufs;
	p->nslots = nslots;
	p->tail = 0;
	p->head = used;
	mutex_unlock(&p->lock);
	wait_queue_wake(&p->wait, POLLOUT | POLLWRNORM);
	free(old);
	return (int64_t)nslots * (int64_t)MOAT_PAGE_SIZE;
}
