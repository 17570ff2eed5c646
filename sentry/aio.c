/* sentry/aio.c - contexts of asynchronous I/O, their events, and requests that wait for readiness. */
#include <linux/mman.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "fsimpl/anon/anon.h"
#include "sentry/aio.h"
#include "sentry/task_internal.h"

#define AIO_COPY 16 /* events moved at once */

static REF_TYPE(aio_type, "aio context");
static REF_TYPE(aio_poll_type, "aio poll");

struct aio_poll {
	struct ref ref;
	LIST_ENTRY(aio_poll) link; /* guarded by the context's lock */
	struct aio_context *ctx; /* a reference */
	struct file *f, *resfd; /* references; resfd may be NULL */
	struct waiter w;
	struct deferred_work work;
	uint32_t events; /* immutable */
	uint64_t data, obj; /* immutable */
	_Atomic bool queued; /* `work` is on a queue and holds a reference */
	_Atomic int state; /* enum poll_state */
};

/* Who finishes a request that is not watched yet leaves the end of the watch to aio_poll(): it is ended once. */
enum poll_state { POLL_NEW, POLL_WATCHED, POLL_DONE };

struct aio_context {
	struct ref ref;
	LIST_ENTRY(aio_context) link; /* guarded by the list's lock */
	uint64_t id; /* immutable: an address */
	unsigned asked; /* immutable: counts against aio_max_nr */
	unsigned room; /* immutable: events that the ring holds */
	struct mutex lock; /* LOCK_LEAF: what follows */
	unsigned in_use; /* requests reserved whose event was not taken */
	unsigned head, count;
	_Atomic unsigned ready; /* = count, for waiters */
	_Atomic bool dead;
	LIST_HEAD(, aio_poll) polls;
	struct wait_queue wait;
	struct aio_event ring[];
};

struct aio_list {
	struct mutex lock; /* LOCK_LEAF */
	LIST_HEAD(, aio_context) contexts; /* guarded by lock */
	unsigned count; /* guarded by lock */
};

static _Atomic int64_t total;
_Atomic int64_t aio_max_nr = 65536;

unsigned aio_total(void)
{
	return (unsigned)atomic_load_explicit(&total, memory_order_relaxed);
}

/* ---- contexts ---- */

void aio_context_unref(struct aio_context *c)
{
	if (!ref_put(&c->ref))
		return;
	atomic_fetch_sub_explicit(&total, c->asked, memory_order_relaxed);
	wait_queue_fini(&c->wait);
	ref_fini(&c->ref, &aio_type);
	free(c);
}

static struct aio_list *list_of(struct mm *mm)
{
	struct aio_list *list = mm_get_aio(mm), *fresh;

	if (list)
		return list;
	fresh = calloc(1, sizeof(*fresh));
	if (!fresh)
		return NULL;
	mutex_init(&fresh->lock, LOCK_LEAF, "aio list");
	LIST_INIT(&fresh->contexts);
	list = mm_set_aio(mm, fresh);
	if (list != fresh)
		free(fresh);
	return list;
}

static int map_page(struct task *t, uint64_t *ret_id)
{
	struct mm_map_args args = {.size = MOAT_PAGE_SIZE,
				   .prot = PROT_READ | PROT_WRITE,
				   .max_prot = PROT_READ | PROT_WRITE,
				   .name = "/[aio] (deleted)"};
	struct mm_limits limits;

	task_mm_limits(t, &limits);
	return mm_map(t->mm, &args, &limits, ret_id);
}

int aio_context_create(struct task *t, unsigned count, uint64_t *ret_id)
{
	unsigned room = MAX(count, kernel.cpus * 4) * 2;
	struct aio_list *list = list_of(t->mm);
	struct aio_context *c;
	int err;

	if (!list)
		return -ENOMEM;
	if (count > AIO_REQUESTS_MAX)
		return -EAGAIN;
	if (atomic_fetch_add_explicit(&total, count, memory_order_relaxed) + count >
	    atomic_load_explicit(&aio_max_nr, memory_order_relaxed)) {
		atomic_fetch_sub_explicit(&total, count, memory_order_relaxed);
		return -EAGAIN;
	}
	c = calloc(1, sizeof(*c) + room * sizeof(c->ring[0]));
	if (!c) {
		atomic_fetch_sub_explicit(&total, count, memory_order_relaxed);
		return -ENOMEM;
	}
	ref_init(&c->ref, &aio_type);
	mutex_init(&c->lock, LOCK_LEAF, "aio context");
	wait_queue_init(&c->wait);
	LIST_INIT(&c->polls);
	c->asked = count;
	c->room = room;
	err = map_page(t, &c->id);
	if (err)
		goto out_unref;
	mutex_lock(&list->lock);
	if (list->count >= AIO_CONTEXTS_MAX) {
		err = -EAGAIN;
	} else {
		list->count++;
		LIST_INSERT_HEAD(&list->contexts, c, link);
		*ret_id = c->id;
	}
	mutex_unlock(&list->lock);
	if (!err)
		return 0;
	(void)!mm_unmap(t->mm, c->id, MOAT_PAGE_SIZE);
out_unref:
	aio_context_unref(c);
	return err;
}

struct aio_context *aio_context_find(struct task *t, uint64_t id)
{
	struct aio_list *list = mm_get_aio(t->mm);
	struct aio_context *c = NULL;

	if (!list)
		return NULL;
	mutex_lock(&list->lock);
	LIST_FOREACH (c, &list->contexts, link)
		if (c->id == id)
			break;
	if (c)
		ref_get(&c->ref);
	mutex_unlock(&list->lock);
	return c;
}

/* ---- events ---- */

int aio_reserve(struct aio_context *c)
{
	int err = 0;

	mutex_lock(&c->lock);
	if (atomic_load_explicit(&c->dead, memory_order_relaxed))
		err = -EINVAL;
	else if (c->in_use == c->room)
		err = -EAGAIN;
	else
		c->in_use++;
	mutex_unlock(&c->lock);
	return err;
}

void aio_release(struct aio_context *c)
{
	mutex_lock(&c->lock);
	c->in_use--;
	mutex_unlock(&c->lock);
}

void aio_complete(struct aio_context *c, const struct aio_event *ev, struct file *resfd)
{
	mutex_lock(&c->lock);
	assert(c->count < c->room);
	c->ring[(c->head + c->count++) % c->room] = *ev;
	atomic_store_explicit(&c->ready, c->count, memory_order_release);
	mutex_unlock(&c->lock);
	if (resfd)
		eventfd_signal(resfd, 1);
	wait_queue_wake(&c->wait, POLLIN);
}

/* Takes up to `max` events into guest memory. Return: how many, or -EFAULT: none of them is lost. */
static int64_t take_some(struct task *t, struct aio_context *c, int64_t max, uint64_t uevents)
{
	struct aio_event some[AIO_COPY];
	unsigned n;
	int err;

	mutex_lock(&c->lock);
	n = (unsigned)MIN((int64_t)MIN(c->count, (unsigned)AIO_COPY), max);
	for (unsigned i = 0; i < n; i++)
		some[i] = c->ring[(c->head + i) % c->room];
	c->head = (c->head + n) % c->room;
	c->count -= n;
	atomic_store_explicit(&c->ready, c->count, memory_order_release);
	mutex_unlock(&c->lock);
	err = n ? task_copy_out(t, uevents, some, n * sizeof(some[0])) : 0;
	mutex_lock(&c->lock);
	if (err) {
		/* Their room is still reserved. */
		c->head = (c->head + c->room - n) % c->room;
		for (unsigned i = 0; i < n; i++)
			c->ring[(c->head + i) % c->room] = some[i];
		c->count += n;
		atomic_store_explicit(&c->ready, c->count, memory_order_release);
	} else {
		c->in_use -= n;
	}
	mutex_unlock(&c->lock);
	return err ? err : (int64_t)n;
}

static bool has_events(void *arg)
{
	struct aio_context *c = arg;

	return atomic_load_explicit(&c->ready, memory_order_acquire) ||
	       atomic_load_explicit(&c->dead, memory_order_acquire);
}

int64_t aio_events(struct task *t, struct aio_context *c, int64_t min, int64_t max,
		   uint64_t uevents, int64_t deadline_ns)
{
	int64_t got = 0, n;
	int err = 0;

	for (;;) {
		while (got < max) {
			n = take_some(t, c, max - got,
				      uevents + (uint64_t)got * sizeof(struct aio_event));
			if (n < 0)
				return got ? got : n;
			if (!n)
				break;
			got += n;
		}
		if (atomic_load_explicit(&c->dead, memory_order_acquire))
			return got ? got : -EINVAL;
		if (got >= min || err)
			break;
		err = wait_event(&c->wait, has_events, c, SLEEP_INTERRUPTIBLE, deadline_ns);
	}
	return !got && err == -EINTR ? -EINTR : got;
}

/* ---- requests that wait ---- */

static void poll_unref(struct aio_poll *p)
{
	if (!ref_put(&p->ref))
		return;
	/* By a wake-up, perhaps, which does not sleep. */
	file_unref_later(p->f);
	file_unref_later(p->resfd);
	aio_context_unref(p->ctx);
	ref_fini(&p->ref, &aio_poll_type);
	free(p);
}

static void poll_unwatch(struct aio_poll *p)
{
	if (p->f->ops->poll_remove)
		p->f->ops->poll_remove(p->f, &p->w);
	else
		wait_queue_remove(&p->w);
}

/* Once: its event, and the end of its registration. */
static void poll_finish(struct aio_poll *p, uint32_t mask)
{
	struct aio_event ev = {.data = p->data, .obj = p->obj, .res = mask};
	int old = atomic_exchange(&p->state, POLL_DONE);

	if (old == POLL_DONE)
		return;
	if (old == POLL_WATCHED)
		poll_unwatch(p);
	mutex_lock(&p->ctx->lock);
	LIST_REMOVE(p, link);
	mutex_unlock(&p->ctx->lock);
	aio_complete(p->ctx, &ev, p->resfd);
	poll_unref(p);
}

static void poll_work(struct deferred_work *work)
{
	struct aio_poll *p = container_of(work, struct aio_poll, work);
	uint32_t mask;

	atomic_store(&p->queued, false);
	mask = file_poll(p->f) & p->events;
	if (mask)
		poll_finish(p, mask);
	poll_unref(p);
}

/* Under the queue's lock. */
static void poll_wake(struct waiter *w, uint32_t events)
{
	struct aio_poll *p = container_of(w, struct aio_poll, w);

	if ((events && !(events & p->events)) || atomic_exchange(&p->queued, true))
		return;
	ref_get(&p->ref);
	p->work.run = poll_work;
	vfs_defer_wake(&p->work);
}

int aio_poll(struct aio_context *c, struct file *f, uint32_t events, uint64_t data, uint64_t obj,
	     struct file *resfd)
{
	struct aio_poll *p = calloc(1, sizeof(*p));
	int expected = POLL_NEW;
	uint32_t mask;

	if (!p)
		return -ENOMEM;
	ref_init(&p->ref, &aio_poll_type);
	ref_get(&c->ref);
	p->ctx = c;
	p->f = file_ref(f);
	p->resfd = resfd ? file_ref(resfd) : NULL;
	p->events = events | POLLERR | POLLHUP;
	p->data = data;
	p->obj = obj;
	waiter_init(&p->w, poll_wake, p, p->events);
	/* One reference is the registration's, one ours. */
	ref_get(&p->ref);
	mutex_lock(&c->lock);
	LIST_INSERT_HEAD(&c->polls, p, link);
	mutex_unlock(&c->lock);
	if (f->ops->poll_add)
		f->ops->poll_add(f, &p->w);
	/* It may have been finished by another before it was on the queue. */
	if (!atomic_compare_exchange_strong(&p->state, &expected, POLL_WATCHED))
		poll_unwatch(p);
	mask = file_poll(f) & p->events;
	/* A context that was destroyed meanwhile has looked at its list already, or will find this one. */
	if (mask || atomic_load_explicit(&c->dead, memory_order_acquire))
		poll_finish(p, mask);
	poll_unref(p);
	return 0;
}

/* A waiting request with a reference: the one for obj, or any. */
static struct aio_poll *poll_find(struct aio_context *c, const uint64_t *obj)
{
	struct aio_poll *p;

	mutex_lock(&c->lock);
	LIST_FOREACH (p, &c->polls, link)
		if (!obj || p->obj == *obj)
			break;
	if (p)
		ref_get(&p->ref);
	mutex_unlock(&c->lock);
	return p;
}

int aio_cancel(struct aio_context *c, uint64_t obj)
{
	struct aio_poll *p = poll_find(c, &obj);

	if (!p)
		return -EINVAL;
	poll_finish(p, 0);
	poll_unref(p);
	return -EINPROGRESS;
}

/* ---- ends ---- */

static void context_kill(struct aio_context *c)
{
	struct aio_poll *p;

	mutex_lock(&c->lock);
	atomic_store_explicit(&c->dead, true, memory_order_release);
	mutex_unlock(&c->lock);
	while ((p = poll_find(c, NULL))) {
		poll_finish(p, 0);
		poll_unref(p);
	}
	wait_queue_wake(&c->wait, POLLIN);
	aio_context_unref(c);
}

int aio_context_destroy(struct task *t, uint64_t id)
{
	struct aio_list *list = mm_get_aio(t->mm);
	struct aio_context *c = NULL;

	if (!list)
		return -EINVAL;
	mutex_lock(&list->lock);
	LIST_FOREACH (c, &list->contexts, link)
		if (c->id == id)
			break;
	if (c) {
		LIST_REMOVE(c, link);
		list->count--;
	}
	mutex_unlock(&list->lock);
	if (!c)
		return -EINVAL;
	context_kill(c);
	(void)!mm_unmap(t->mm, id, MOAT_PAGE_SIZE);
	return 0;
}

/* exit_aio(): the address space is gone. */
static void list_drop(void *aio)
{
	struct aio_list *list = aio;
	struct aio_context *c;

	while ((c = LIST_FIRST(&list->contexts))) {
		LIST_REMOVE(c, link);
		context_kill(c);
	}
	free(list);
}

__attribute__((constructor)) static void aio_init(void)
{
	mm_aio_drop = list_drop;
}
