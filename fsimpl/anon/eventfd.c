/* fsimpl/anon/eventfd.c - eventfd(2): a 64-bit counter as a file. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/buf.h"
#include "fsimpl/anon/anon.h"

#define EVENTFD_COUNT_MAX (UINT64_MAX - 1)

struct eventfd {
	struct file f;
	struct mutex lock; /* LOCK_PIPE: taken with no other; guards count */
	uint64_t count;
	bool semaphore; /* immutable */
	struct wait_queue wait;
};

static struct eventfd *eventfd_of(struct file *f)
{
	return (struct eventfd *)f;
}

static void eventfd_release(struct file *f)
{
	struct eventfd *e = eventfd_of(f);

	wait_queue_fini(&e->wait);
	file_free(f);
}

static ssize_t evfile_read(struct file *f, struct io_iter *it, unused_arg int64_t off,
			   unused_arg int rwf)
{
	struct eventfd *e = eventfd_of(f);
	uint64_t value;

	if (it->remaining < sizeof(value))
		return -EINVAL;
	mutex_lock(&e->lock);
	value = e->semaphore && e->count ? 1 : e->count;
	e->count -= value;
	mutex_unlock(&e->lock);
	if (!value)
		return -EAGAIN;
	wait_queue_wake(&e->wait, POLLOUT | POLLWRNORM);
	/* As Linux: the count is gone even if the copy faults. */
	return io_iter_put(it, &value, sizeof(value)) == sizeof(value) ? (ssize_t)sizeof(value)
								       : -EFAULT;
}

static ssize_t evfile_write(struct file *f, struct io_iter *it, unused_arg int64_t *inout_off,
			    unused_arg int rwf)
{
	struct eventfd *e = eventfd_of(f);
	uint64_t value;
	bool full;

	if (it->remaining < sizeof(value))
		return -EINVAL;
	if (io_iter_get(it, &value, sizeof(value)) != sizeof(value))
		return -EFAULT;
	if (value == UINT64_MAX)
		return -EINVAL;
	mutex_lock(&e->lock);
	full = EVENTFD_COUNT_MAX - e->count < value;
	if (!full)
		e->count += value;
	mutex_unlock(&e->lock);
	if (full) {
		io_iter_revert(it, sizeof(value));
		return -EAGAIN;
	}
	wait_queue_wake(&e->wait, POLLIN | POLLRDNORM);
	return sizeof(value);
}

static uint32_t eventfd_poll(struct file *f)
{
	struct eventfd *e = eventfd_of(f);
	uint32_t events = 0;

	mutex_lock(&e->lock);
	if (e->count)
		events |= POLLIN;
	if (e->count == UINT64_MAX)
		events |= POLLERR;
	if (e->count < EVENTFD_COUNT_MAX)
		events |= POLLOUT;
	mutex_unlock(&e->lock);
	return events;
}

static void eventfd_poll_add(struct file *f, struct waiter *w)
{
	wait_queue_add(&eventfd_of(f)->wait, w);
}

static void eventfd_poll_remove(unused_arg struct file *f, struct waiter *w)
{
	wait_queue_remove(w);
}

static void eventfd_show(struct file *f, struct buf *b)
{
	struct eventfd *e = eventfd_of(f);
	uint64_t count;

	mutex_lock(&e->lock);
	count = e->count;
	mutex_unlock(&e->lock);
	buf_printf(b, "eventfd-count: %16llx\neventfd-id: %d\neventfd-semaphore: %d\n",
		   (unsigned long long)count, (int)anon_file_ino(f), e->semaphore);
}

static const struct file_ops eventfd_ops = {
	.name = "anon_inode:[eventfd]",
	.no_write_flags = true,
	.release = eventfd_release,
	.read_iter = evfile_read,
	.write_iter = evfile_write,
	.poll = eventfd_poll,
	.poll_add = eventfd_poll_add,
	.poll_remove = eventfd_poll_remove,
	.stat = anon_file_stat,
	.set_stat = anon_file_set_stat,
	.show_fdinfo = eventfd_show,
};

int eventfd_create(uint32_t initial, unsigned flags, struct file **ret)
{
	struct anon_args args = {.kind = ANON_INODE, .name = "[eventfd]", .mode = 0600};
	struct eventfd *e;
	int err;

	if (flags & ~(unsigned)(EFD_SEMAPHORE | EFD_NONBLOCK | EFD_CLOEXEC))
		return -EINVAL;
	e = calloc(1, sizeof(*e));
	if (!e)
		return -ENOMEM;
	mutex_init(&e->lock, LOCK_PIPE, "eventfd");
	wait_queue_init(&e->wait);
	e->count = initial;
	e->semaphore = flags & EFD_SEMAPHORE;
	err = anon_file_init(&e->f, &eventfd_ops, &args, O_RDWR | (flags & EFD_NONBLOCK),
			     FILE_READ | FILE_WRITE | FILE_STREAM);
	if (err) {
		free(e);
		return err;
	}
	*ret = &e->f;
	return 0;
}

bool eventfd_is(struct file *f)
{
	return f->ops == &eventfd_ops;
}

void eventfd_signal(struct file *f, uint64_t n)
{
	struct eventfd *e = eventfd_of(f);

	mutex_lock(&e->lock);
	e->count = UINT64_MAX - e->count < n ? UINT64_MAX : e->count + n;
	mutex_unlock(&e->lock);
	wait_queue_wake(&e->wait, POLLIN | POLLRDNORM);
}
