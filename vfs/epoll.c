/*
 * vfs/epoll.c - epoll files.
 *
 * An item ties one watched description to one epoll file; its waiter sits on the watched file's wait queue. A wake-up (under that queue's
 * lock) pushes the item on the epoll file's lock-free `incoming` stack, once, and wakes who waits there, or the epoll file that watches this one:
 * queue locks nest from watched to watcher, a graph that epoll_ctl() keeps free of loops.
 * epoll_wait() moves incoming items to the ready list, asks each what is true now (file_poll(), no lock held) and reports it. A level-triggered
 * item goes back to the list's end, an edge-triggered one comes back with its next wake-up, a one-shot one when it is armed again.
 *
 * Lives: ctl_lock (an op_lock: it is held across poll_add() and poll_remove(), which take locks of any rank) covers additions, removals,
 * the end of a watched file and the end of an epoll file. An item refers to its file without a reference; while it is on the ready list
 * the file's memory is there, because vfs_file_gone() takes it off first: so epoll_wait() may tryref it under ready_lock.
 *
 * Watch: /proc/PID/fdinfo. Cannot do: EPOLLWAKEUP has no meaning here and is ignored.
 */
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/hostpoll.h"
#include "base/tree.h"
#include "vfs/epoll.h"
#include "vfs/vfs_internal.h"

#define EP_PRIVATE_BITS ((uint32_t)(EPOLLWAKEUP | EPOLLONESHOT | EPOLLET | EPOLLEXCLUSIVE))
#define EP_EXCLUSIVE_BITS                                                              \
	((uint32_t)(EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLWAKEUP | EPOLLET | \
		    EPOLLEXCLUSIVE))

struct epoll_file;

struct ep_item {
	struct ref ref; /* the tree's, and epoll_wait()'s while it asks */
	struct epoll_file *ep; /* immutable */
	struct file *file; /* immutable; borrowed, see above */
	int fd; /* immutable */
	_Atomic uint32_t events; /* EPOLL*; 0 but for private bits: disarmed */
	uint64_t data; /* guarded by ready_lock */
	struct waiter waiter;
	_Atomic bool queued; /* on incoming or ready */
	struct ep_item *incoming; /* next on the stack */
	TAILQ_ENTRY(ep_item) ready; /* guarded by ready_lock */
	bool listed; /* on ready; guarded by ready_lock */
	RB_ENTRY(ep_item) node; /* guarded by ctl_lock */
	struct ep_item *next_of_file; /* file->epoll_links; guarded by ctl_lock */
};

RB_HEAD(ep_tree, ep_item);

struct epoll_file {
	struct file file; /* base */
	struct ep_tree items; /* guarded by ctl_lock */
	struct ep_item *_Atomic incoming;
	struct mutex ready_lock; /* LOCK_EPOLL_READY */
	TAILQ_HEAD(ep_ready, ep_item) ready;
	struct wait_queue wait;
};

static REF_TYPE(item_type, "epoll item");
static struct op_lock ctl_lock;
static _Atomic uint32_t item_count;
_Atomic int64_t epoll_watches_max = 1048576;

static int item_compare(struct ep_item *a, struct ep_item *b)
{
	if (a->file != b->file)
		return (uintptr_t)a->file < (uintptr_t)b->file ? -1 : 1;
	return (a->fd > b->fd) - (a->fd < b->fd);
}

RB_GENERATE_LOCAL(ep_tree, ep_item, node, item_compare)

static const struct file_ops epoll_ops;

bool file_is_epoll(const struct file *f)
{
	return f->ops == &epoll_ops;
}

static struct epoll_file *epoll_of(struct file *f)
{
	return (struct epoll_file *)f;
}

static void item_unref(struct ep_item *item)
{
	if (!ref_put(&item->ref))
		return;
	ref_fini(&item->ref, &item_type);
	atomic_fetch_sub_explicit(&item_count, 1, memory_order_relaxed);
	free(item);
}

/* ---- ready ---- */

/* Puts an item on the stack unless it is queued already. Any context. */
static void item_queue(struct ep_item *item)
{
	struct epoll_file *ep = item->ep;
	struct ep_item *head;

	if (atomic_exchange_explicit(&item->queued, true, memory_order_acq_rel))
		return;
	head = atomic_load_explicit(&ep->incoming, memory_order_relaxed);
	do
		item->incoming = head;
	while (!atomic_compare_exchange_weak_explicit(&ep->incoming, &head, item,
						      memory_order_release, memory_order_relaxed));
}

/* A watched file woke its queue: under that queue's lock. */
static void item_wake(struct waiter *w, uint32_t events)
{
	struct ep_item *item = w->arg;
	uint32_t wanted = atomic_load_explicit(&item->events, memory_order_relaxed);

	if (!(wanted & ~EP_PRIVATE_BITS))
		return;
	if (!(events & (wanted | EPOLLERR | EPOLLHUP)))
		return;
	item_queue(item);
	wait_queue_wake(&item->ep->wait, POLLIN | POLLRDNORM);
}

/* Moves what came in to the list, oldest first. ready_lock held. */
static void drain_incoming_locked(struct epoll_file *ep)
{
	struct ep_item *item, *next, *oldest = NULL;

	if (!atomic_load_explicit(&ep->incoming, memory_order_relaxed))
		return;
	item = atomic_exchange_explicit(&ep->incoming, NULL, memory_order_acquire);
	for (; item; item = next) {
		next = item->incoming;
		item->incoming = oldest;
		oldest = item;
	}
	for (; oldest; oldest = oldest->incoming) {
		oldest->listed = true;
		TAILQ_INSERT_TAIL(&ep->ready, oldest, ready);
	}
}

static bool ready_is_empty(struct epoll_file *ep)
{
	bool empty;

	mutex_lock(&ep->ready_lock);
	drain_incoming_locked(ep);
	empty = TAILQ_EMPTY(&ep->ready);
	mutex_unlock(&ep->ready_lock);
	return empty;
}

static unsigned ready_count(struct epoll_file *ep)
{
	struct ep_item *item;
	unsigned n = 0;

	mutex_lock(&ep->ready_lock);
	drain_incoming_locked(ep);
	TAILQ_FOREACH (item, &ep->ready, ready)
		n++;
	mutex_unlock(&ep->ready_lock);
	return n;
}

/* The oldest ready item with references on it and on its file; NULL when there is none. */
static struct ep_item *ready_pop(struct epoll_file *ep)
{
	struct ep_item *item;

	mutex_lock(&ep->ready_lock);
	drain_incoming_locked(ep);
	while ((item = TAILQ_FIRST(&ep->ready))) {
		TAILQ_REMOVE(&ep->ready, item, ready);
		item->listed = false;
		/* Before the caller asks the file: a wake-up from here on queues it again. */
		atomic_store_explicit(&item->queued, false, memory_order_seq_cst);
		if (file_tryref(item->file)) {
			ref_get(&item->ref);
			break;
		}
	}
	mutex_unlock(&ep->ready_lock);
	return item;
}

static void item_done(struct ep_item *item)
{
	struct file *f = item->file;

	item_unref(item);
	file_unref(f); /* may be the last: takes the item with it */
}

/* What of the item's events is true now. No lock held. */
static uint32_t item_poll(struct ep_item *item)
{
	uint32_t wanted = atomic_load_explicit(&item->events, memory_order_relaxed);

	if (!(wanted & ~EP_PRIVATE_BITS))
		return 0;
	return file_poll(item->file) & wanted & ~EP_PRIVATE_BITS;
}

/* One round over what is ready. Return: events stored. */
static int collect(struct epoll_file *ep, struct epoll_event *events, int max)
{
	unsigned rounds = ready_count(ep);
	struct ep_item *item;
	int n = 0;

	while (n < max && rounds-- && (item = ready_pop(ep))) {
		uint32_t wanted = atomic_load_explicit(&item->events, memory_order_relaxed);
		uint32_t now = item_poll(item);

		if (now) {
			mutex_lock(&ep->ready_lock);
			events[n].events = now;
			events[n].data.u64 = item->data;
			mutex_unlock(&ep->ready_lock);
			n++;
			if (wanted & EPOLLONESHOT)
				atomic_fetch_and_explicit(&item->events, EP_PRIVATE_BITS,
							  memory_order_relaxed);
			else if (!(wanted & EPOLLET))
				item_queue(item);
		}
		item_done(item);
	}
	return n;
}

int epoll_file_wait(struct file *f, struct epoll_event *events, int max, int64_t deadline_ns)
{
	struct sleeper *s = sleeper_current();
	struct epoll_file *ep = epoll_of(f);
	struct waiter w;
	int n, err = 0;

	if (!file_is_epoll(f) || max <= 0 || max > EPOLL_EVENTS_MAX)
		return -EINVAL;
	hostpoll_look_if_parked();
	n = collect(ep, events, max);
	if (n)
		return n;
	if (deadline_ns != TIME_FOREVER && deadline_ns <= time_monotonic_ns()) {
		/* What the caller itself just caused is seen, whoever would announce it. */
		hostpoll_look();
		return collect(ep, events, max);
	}
	waiter_init_sleeper(&w, s, POLLIN);
	w.exclusive = true;
	wait_queue_add(&ep->wait, &w);
	hostpoll_await();
	for (;;) {
		n = collect(ep, events, max);
		if (n || err)
			break;
		err = sleeper_wait(s, SLEEP_INTERRUPTIBLE, deadline_ns);
	}
	hostpoll_await_end();
	wait_queue_remove(&w);
	/* One waiter is woken for an event: what is left is another's. */
	if (!ready_is_empty(ep))
		wait_queue_wake(&ep->wait, POLLIN | POLLRDNORM);
	if (n)
		return n;
	return err == -ETIMEDOUT ? 0 : err;
}

/* ---- the file ---- */

static uint32_t epoll_poll(struct file *f)
{
	struct epoll_file *ep = epoll_of(f);
	struct ep_item *item;
	unsigned rounds;
	uint32_t now = 0;

	hostpoll_look_if_parked();
	rounds = ready_count(ep);

	while (!now && rounds-- && (item = ready_pop(ep))) {
		now = item_poll(item);
		if (now)
			item_queue(item);
		item_done(item);
	}
	return now ? POLLIN | POLLRDNORM : 0;
}

static void epoll_poll_add(struct file *f, struct waiter *w)
{
	wait_queue_add(&epoll_of(f)->wait, w);
	waiter_await(w);
}

static void epoll_poll_remove(struct file *f unused_arg, struct waiter *w)
{
	wait_queue_remove(w);
	waiter_await_end(w);
}

static void watch_begin(struct ep_item *item)
{
	if (item->file->ops->poll_add)
		item->file->ops->poll_add(item->file, &item->waiter);
}

static void watch_end(struct ep_item *item)
{
	if (item->file->ops->poll_remove)
		item->file->ops->poll_remove(item->file, &item->waiter);
	else
		wait_queue_remove(&item->waiter);
}

/* ctl_lock held. The tree's reference goes. */
static void item_remove_locked(struct ep_item *item)
{
	struct epoll_file *ep = item->ep;
	struct ep_item **link;

	watch_end(item);
	atomic_store_explicit(&item->events, 0, memory_order_relaxed);
	/*
	 * Whoever turns `queued` on pushes the item. Once it is ours nobody does again; as long as it is another's, the push
	 * is about to be seen.
	 */
	mutex_lock(&ep->ready_lock);
	while (atomic_exchange_explicit(&item->queued, true, memory_order_acq_rel)) {
		drain_incoming_locked(ep);
		if (item->listed) {
			TAILQ_REMOVE(&ep->ready, item, ready);
			item->listed = false;
			break;
		}
		mutex_unlock(&ep->ready_lock);
		sched_yield();
		mutex_lock(&ep->ready_lock);
	}
	mutex_unlock(&ep->ready_lock);
	RB_REMOVE(ep_tree, &ep->items, item);
	for (link = (struct ep_item **)&item->file->epoll_links; *link != item;
	     link = &(*link)->next_of_file)
		;
	/* Last: vfs_file_gone() looks at this without the lock. */
	__atomic_store_n(link, item->next_of_file, __ATOMIC_RELEASE);
	item_unref(item);
}

void epoll_file_gone(struct file *f)
{
	if (likely(!__atomic_load_n(&f->epoll_links, __ATOMIC_ACQUIRE)))
		return;
	op_lock(&ctl_lock);
	while (f->epoll_links)
		item_remove_locked(f->epoll_links);
	op_unlock(&ctl_lock);
}

static void epoll_release(struct file *f)
{
	struct epoll_file *ep = epoll_of(f);
	struct ep_item *item;

	op_lock(&ctl_lock);
	while ((item = RB_ROOT(&ep->items)))
		item_remove_locked(item);
	op_unlock(&ctl_lock);
	wait_queue_fini(&ep->wait);
	file_free(f);
}

static void epoll_show_fdinfo(struct file *f, struct buf *b)
{
	struct epoll_file *ep = epoll_of(f);
	struct ep_item *item;

	op_lock(&ctl_lock);
	RB_FOREACH (item, ep_tree, &ep->items)
		buf_printf(b, "tfd: %8d events: %8x data: %16llx  pos:%lli ino:%llx sdev:%x\n",
			   item->fd, atomic_load_explicit(&item->events, memory_order_relaxed),
			   (unsigned long long)item->data, (long long)item->file->pos, 0ull, 0u);
	op_unlock(&ctl_lock);
}

static const struct file_ops epoll_ops = {
	.name = "anon_inode:[eventpoll]",
	.release = epoll_release,
	.poll = epoll_poll,
	.poll_add = epoll_poll_add,
	.poll_remove = epoll_poll_remove,
	.show_fdinfo = epoll_show_fdinfo,
};

int epoll_file_create(const struct vfs_path *place, unsigned flags, struct file **ret)
{
	struct epoll_file *ep = calloc(1, sizeof(*ep));

	if (!ep)
		return -ENOMEM;
	file_init(&ep->file, &epoll_ops, place, (flags & ~(unsigned)O_ACCMODE) | O_RDWR,
		  FILE_STREAM);
	RB_INIT(&ep->items);
	TAILQ_INIT(&ep->ready);
	mutex_init(&ep->ready_lock, LOCK_EPOLL_READY, "epoll ready list");
	wait_queue_init(&ep->wait);
	*ret = &ep->file;
	return 0;
}

/* ---- epoll_ctl ---- */

/* How many levels of epoll files lie below f, or EPOLL_NEST_MAX + 1 when `avoid` is among them. ctl_lock held. */
static unsigned depth_below(struct file *f, struct file *avoid, unsigned depth)
{
	struct ep_item *item;
	unsigned deepest = depth;

	if (f == avoid || depth > EPOLL_NEST_MAX)
		return EPOLL_NEST_MAX + 1;
	RB_FOREACH (item, ep_tree, &epoll_of(f)->items)
		if (file_is_epoll(item->file))
			deepest = MAX(deepest, depth_below(item->file, avoid, depth + 1));
	return deepest;
}

static unsigned depth_above(struct file *f, unsigned depth)
{
	struct ep_item *item;
	unsigned highest = depth;

	if (depth > EPOLL_NEST_MAX)
		return depth;
	for (item = f->epoll_links; item; item = item->next_of_file)
		highest = MAX(highest, depth_above(&item->ep->file, depth + 1));
	return highest;
}

static void item_arm(struct ep_item *item, const struct epoll_event *event)
{
	mutex_lock(&item->ep->ready_lock);
	item->data = event->data.u64;
	mutex_unlock(&item->ep->ready_lock);
	atomic_store_explicit(&item->events, event->events | EPOLLERR | EPOLLHUP,
			      memory_order_relaxed);
	waiter_init(&item->waiter, item_wake, item,
		    (event->events & ~EP_PRIVATE_BITS) | EPOLLERR | EPOLLHUP);
	item->waiter.exclusive = (event->events & EPOLLEXCLUSIVE) != 0;
	item->waiter.looks = true;
	watch_begin(item);
	/* Registered, then asked: nothing is missed. */
	if (item_poll(item)) {
		item_queue(item);
		wait_queue_wake(&item->ep->wait, POLLIN | POLLRDNORM);
	}
}

static int ctl_add(struct epoll_file *ep, struct file *target, int fd,
		   const struct epoll_event *event)
{
	struct ep_item *item;

	if (file_is_epoll(target) &&
	    depth_below(target, &ep->file, 1) + depth_above(&ep->file, 0) > EPOLL_NEST_MAX)
		return -ELOOP;
	if (atomic_fetch_add_explicit(&item_count, 1, memory_order_relaxed) >=
	    atomic_load_explicit(&epoll_watches_max, memory_order_relaxed)) {
		atomic_fetch_sub_explicit(&item_count, 1, memory_order_relaxed);
		return -ENOSPC;
	}
	item = calloc(1, sizeof(*item));
	if (!item) {
		atomic_fetch_sub_explicit(&item_count, 1, memory_order_relaxed);
		return -ENOMEM;
	}
	ref_init(&item->ref, &item_type);
	item->ep = ep;
	item->file = target;
	item->fd = fd;
	item->next_of_file = target->epoll_links;
	__atomic_store_n(&target->epoll_links, item, __ATOMIC_RELEASE);
	RB_INSERT(ep_tree, &ep->items, item);
	item_arm(item, event);
	return 0;
}

static int ctl_mod(struct ep_item *item, const struct epoll_event *event)
{
	if ((atomic_load_explicit(&item->events, memory_order_relaxed) | event->events) &
	    EPOLLEXCLUSIVE)
		return -EINVAL;
	watch_end(item);
	item_arm(item, event);
	return 0;
}

static bool event_is_valid(int op, struct file *target, const struct epoll_event *event)
{
	if (!(event->events & EPOLLEXCLUSIVE))
		return true;
	return op == EPOLL_CTL_ADD && !(event->events & ~EP_EXCLUSIVE_BITS) &&
	       !file_is_epoll(target);
}

int epoll_file_ctl(struct file *f, int op, struct file *target, int fd,
		   const struct epoll_event *event)
{
	struct ep_item *item, key = {.file = target, .fd = fd};
	struct epoll_file *ep = epoll_of(f);
	int err;

	if (!target->ops->poll)
		return -EPERM;
	if (!file_is_epoll(f) || f == target)
		return -EINVAL;
	if (op != EPOLL_CTL_DEL && !event_is_valid(op, target, event))
		return -EINVAL;
	err = op_lock_killable(&ctl_lock);
	if (err)
		return err;
	item = RB_FIND(ep_tree, &ep->items, &key);
	switch (op) {
	case EPOLL_CTL_ADD:
		err = item ? -EEXIST : ctl_add(ep, target, fd, event);
		break;
	case EPOLL_CTL_MOD:
		err = item ? ctl_mod(item, event) : -ENOENT;
		break;
	case EPOLL_CTL_DEL:
		err = item ? 0 : -ENOENT;
		if (item)
			item_remove_locked(item);
		break;
	default:
		err = -EINVAL;
	}
	op_unlock(&ctl_lock);
	return err;
}
