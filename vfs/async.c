/* vfs/async.c - O_ASYNC. */
#include "vfs/async.h"

#include <fcntl.h>
#include <stdlib.h>

#include "vfs/vfs.h"

struct file_async {
	struct waiter w;
	struct file *f; /* borrowed: the file owns this */
	struct deferred_work work;
	_Atomic bool queued; /* `work` is on a queue, and holds a reference to f */
	_Atomic uint32_t events; /* for the signal to come */
};

static struct mutex async_lock = MUTEX_INIT(LOCK_FILE_LOCKS, "async"); /* file.async */

static void async_send(struct deferred_work *work)
{
	struct file_async *a = container_of(work, struct file_async, work);
	struct file *f = a->f;
	uint32_t events;

	/* In this order: what comes from here on queues it again. */
	atomic_store(&a->queued, false);
	events = atomic_exchange(&a->events, 0);
	if (events && (file_flags(f) & O_ASYNC) && vfs_hooks.send_sigio)
		vfs_hooks.send_sigio(f, events);
	file_unref_later(f);
}

/* Under the queue's lock. */
static void async_wake(struct waiter *w, uint32_t events)
{
	struct file_async *a = container_of(w, struct file_async, w);

	atomic_fetch_or(&a->events, events ? events : POLLIN | POLLRDNORM);
	if (atomic_exchange(&a->queued, true))
		return;
	if (!file_tryref(a->f)) {
		atomic_store(&a->queued, false);
		return;
	}
	a->work.run = async_send;
	vfs_defer_wake(&a->work);
}

int file_async_set(struct file *f, bool on)
{
	struct file_async *a;

	if (!f->ops->poll_add)
		return 0;
	mutex_lock(&async_lock);
	a = f->async;
	mutex_unlock(&async_lock);
	/* Once made it stays until the file goes: the flag decides. */
	if (!on || a)
		return 0;
	a = calloc(1, sizeof(*a));
	if (!a)
		return -ENOMEM;
	a->f = f;
	/* Readers are told of what there is to read, writers of room. */
	waiter_init(&a->w, async_wake, a,
		    (f->mode & FILE_READ ? POLLIN | POLLRDNORM | POLLPRI | POLLRDHUP : 0) |
			    (f->mode & FILE_WRITE ? POLLOUT | POLLWRNORM : 0));
	mutex_lock(&async_lock);
	if (f->async) {
		mutex_unlock(&async_lock);
		free(a);
		return 0;
	}
	f->async = a;
	mutex_unlock(&async_lock);
	f->ops->poll_add(f, &a->w);
	return 0;
}

void file_async_gone(struct file *f)
{
	struct file_async *a = f->async;

	if (likely(!a))
		return;
	if (f->ops->poll_remove)
		f->ops->poll_remove(f, &a->w);
	else
		wait_queue_remove(&a->w);
	f->async = NULL;
	/* Queued work holds a reference: there is none now. */
	free(a);
}
