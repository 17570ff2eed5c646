/*
 * fsimpl/anon/signalfd.c - signalfd(2). The signals are the sentry's, reached through struct signalfd_hooks; a read takes
 * those of the task that reads, whoever made the file.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/signalfd.h>

#include "base/buf.h"
#include "fsimpl/anon/anon.h"

struct sigfd {
	struct file f;
	_Atomic uint64_t mask; /* bit signo-1 */
	struct wait_queue changed; /* a new mask */
};

static struct signalfd_hooks hooks;

static struct sigfd *sigfd_of(struct file *f)
{
	return (struct sigfd *)f;
}

void signalfd_install(const struct signalfd_hooks *h)
{
	hooks = *h;
}

static ssize_t sigfd_read(struct file *f, struct io_iter *it, unused_arg int64_t off,
			  unused_arg int rwf)
{
	uint64_t mask = atomic_load_explicit(&sigfd_of(f)->mask, memory_order_relaxed);
	struct signalfd_siginfo info;
	ssize_t total = 0;

	if (it->remaining < sizeof(info))
		return -EINVAL;
	while (it->remaining >= sizeof(info) && hooks.dequeue && hooks.dequeue(mask, &info)) {
		if (io_iter_put(it, &info, sizeof(info)) != sizeof(info))
			return total ? total : -EFAULT;
		total += (ssize_t)sizeof(info);
	}
	return total ? total : -EAGAIN;
}

static uint32_t sigfd_poll(struct file *f)
{
	uint64_t mask = atomic_load_explicit(&sigfd_of(f)->mask, memory_order_relaxed);

	return hooks.pending && hooks.pending(mask) ? POLLIN : 0;
}

static void sigfd_poll_add(struct file *f, struct waiter *w)
{
	struct wait_queue *q = hooks.wait_queue ? hooks.wait_queue() : NULL;

	wait_queue_add(q ? q : &sigfd_of(f)->changed, w);
}

static void sigfd_poll_remove(unused_arg struct file *f, struct waiter *w)
{
	wait_queue_remove(w);
}

static void sigfd_release(struct file *f)
{
	wait_queue_fini(&sigfd_of(f)->changed);
	file_free(f);
}

static void sigfd_show(struct file *f, struct buf *b)
{
	buf_printf(b, "sigmask:\t%016llx\n",
		   (unsigned long long)atomic_load_explicit(&sigfd_of(f)->mask,
							    memory_order_relaxed));
}

static const struct file_ops sigfd_ops = {
	.name = "anon_inode:[signalfd]",
	.release = sigfd_release,
	.read_iter = sigfd_read,
	.poll = sigfd_poll,
	.poll_add = sigfd_poll_add,
	.poll_remove = sigfd_poll_remove,
	.stat = anon_file_stat,
	.set_stat = anon_file_set_stat,
	.show_fdinfo = sigfd_show,
};

#define SIGFD_NEVER ((1ull << (9 - 1)) | (1ull << (19 - 1))) /* SIGKILL, SIGSTOP */

int signalfd_create(uint64_t mask, unsigned flags, struct file **ret)
{
	struct anon_args args = {.kind = ANON_INODE, .name = "[signalfd]", .mode = 0600};
	struct sigfd *s;
	int err;

	if (flags & ~(unsigned)(SFD_NONBLOCK | SFD_CLOEXEC))
		return -EINVAL;
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->mask = mask & ~SIGFD_NEVER;
	wait_queue_init(&s->changed);
	err = anon_file_init(&s->f, &sigfd_ops, &args, O_RDWR | (flags & SFD_NONBLOCK),
			     FILE_READ | FILE_WRITE | FILE_STREAM);
	if (err) {
		free(s);
		return err;
	}
	*ret = &s->f;
	return 0;
}

bool signalfd_is(struct file *f)
{
	return f->ops == &sigfd_ops;
}

void signalfd_set_mask(struct file *f, uint64_t mask)
{
	atomic_store_explicit(&sigfd_of(f)->mask, mask & ~SIGFD_NEVER, memory_order_relaxed);
	if (hooks.wait_queue && hooks.wait_queue())
		wait_queue_wake(hooks.wait_queue(), POLLIN);
}
