/*
 * fsimpl/virtiofs/device.c - requests over virtqueues, and how one waits for them. device_life.c makes and unmakes the device.
 *
 * A queue has a slot for each two descriptors of its ring: a short request takes those, a longer one has its buffers in an indirect table. If the device has
 * no indirect descriptors there are as many slots, and the longer ones take more. A slot's part of the shared memory holds the table, the request's head and
 * the small reply; file data is sent and received in place. What the device wrote is copied out once and then checked.
 *
 * Performs: a lone caller that polls sees its answer without a system call but the kick, and with the event index no kick either while the
 * device is busy. Watch: virtiofs_device_requests(). After a death reconnect.c begins anew. Cannot do: packed rings. Only locks that are waited
 * for are interrupted, and only with daemons that are known to bear it: the stock one dies of INTERRUPT.
 */
#include "fsimpl/virtiofs/device.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/futex.h"
#include "base/hostpoll.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/sleep.h"
#include "fsimpl/virtiofs/internal_device.h"

/* A request that comes so long after the answer before is followed by another as soon. */
#define PACE_NS 10000
/* What a thread of the device's that asks for a kick each time looks at its ring, instead of going to sleep, when another request follows. */
#define LOOKS_MORE 8u

/* ---- slots ---- */

static uint64_t addr_of(const struct virtiofs_device *dev, uint64_t off)
{
	(void)dev;
	return VDEV_GUEST_BASE + off;
}

void vdev_pin_data(struct virtiofs_device *dev, const struct vdev_data *d, unsigned count, bool pin)
{
	for (unsigned i = 0; i < count; i++) {
		if (!pin)
			memfile_range_unref(dev->mf, d[i].off, d[i].size);
		else if (memfile_range_ref(dev->mf, d[i].off, d[i].size))
			abort(); /* cannot fail on memory that the caller holds */
	}
}

/* Who waits for room gets a turn. Queue locked. */
static void room_wake_locked(struct vdev_queue *q)
{
	struct vdev_room_waiter *w = q->room_waiters;

	if (!w)
		return;
	q->room_waiters = w->next;
	w->queued = false;
	sleeper_wake(w->sleeper);
}

/* Back on the free list. Queue locked. */
static void slot_free_locked(struct vdev_queue *q, struct vdev_slot *slot)
{
	vdev_pin_data(q->dev, slot->data, slot->data_count, false);
	slot->data_count = 0;
	slot->orphan = false;
	slot->waiter = NULL;
	slot->owner = NULL;
	slot->next_free = q->free_slots;
	q->free_slots = slot;
	q->busy--;
}

void vdev_slot_release_locked(struct vdev_queue *q, struct vdev_slot *slot)
{
	slot_free_locked(q, slot);
	room_wake_locked(q);
}

/* A completed request that nobody waits for. Queue locked: an owner is told by vdev_queue_unlock(). */
static void orphan_done_locked(struct vdev_queue *q, struct vdev_slot *slot)
{
	if (!slot->owner) {
		vdev_slot_release_locked(q, slot);
		return;
	}
	q->asleep -= slot->listened;
	slot->listened = false;
	slot->next_free = q->left;
	q->left = slot;
}

/* The answer's head, checked. Return: as fuse_check_reply(). */
static ssize_t check_answer(const struct vdev_slot *slot, bool *ret_broken)
{
	struct fuse_out_header head;

	if (slot->used < sizeof(head))
		return -EIO; /* the device had no room for its answer, or is dead */
	memcpy(&head, slot->mem + SLOT_REPLY_AT, sizeof(head));
	return fuse_check_reply(slot->opcode, slot->unique, &head, slot->used, slot->room,
				ret_broken);
}

void vdev_queue_unlock(struct vdev_queue *q)
{
	struct vdev_slot *slot;

	while ((slot = q->left)) {
		struct vdev_owner *owner = slot->owner;
		bool broken = false;
		ssize_t got = check_answer(slot, &broken);

		q->left = slot->next_free;
		vdev_slot_release_locked(q, slot);
		mutex_unlock(&q->lock);
		owner->left(owner, MIN((int)got, 0));
		mutex_lock(&q->lock);
	}
	mutex_unlock(&q->lock);
}

/*
 * Until there may be room. What holds it may be posted, which nobody sleeps for: so the device must call, as for an answer. Queue locked before and after.
 * Return: 0, -EPROTO, -EINTR.
 */
static int wait_for_room(struct vdev_queue *q, bool unkillable)
{
	struct vdev_room_waiter w = {.sleeper = sleeper_current(), .queued = true}, **at;
	int err;

	if (virtq_driver_arm(&q->ring))
		return vdev_queue_drain_locked(q);
	w.next = q->room_waiters;
	q->room_waiters = &w;
	q->asleep++;
	sleeper_set_what(w.sleeper, "virtio-fs ring");
	vdev_queue_unlock(q);
	err = sleeper_wait(w.sleeper, unkillable ? SLEEP_UNINTERRUPTIBLE : SLEEP_KILLABLE,
			   TIME_FOREVER);
	sleeper_set_what(w.sleeper, NULL);
	mutex_lock(&q->lock);
	q->asleep--;
	if (w.queued) {
		for (at = &q->room_waiters; *at != &w; at = &(*at)->next)
			;
		*at = w.next;
	} else if (err) {
		room_wake_locked(q); /* the turn is the next one's */
	}
	return err;
}

/* ---- death ---- */

static void queue_abandon(struct vdev_queue *q)
{
	struct vdev_slot *slot;

	mutex_lock(&q->lock);
	while ((slot = virtq_driver_abandon(&q->ring))) {
		q->flying--;
		slot->used = 0;
		slot->done = true; /* last: who polls takes no lock */
		if (slot->orphan)
			orphan_done_locked(q, slot);
		else if (slot->waiter)
			sleeper_wake(slot->waiter);
	}
	while (q->room_waiters) {
		struct vdev_room_waiter *w = q->room_waiters;

		q->room_waiters = w->next;
		w->queued = false;
		sleeper_wake(w->sleeper);
	}
	vdev_queue_unlock(q);
}

void virtiofs_device_kill(struct virtiofs_device *dev, const char *why)
{
	int was = VDEV_ALIVE;

	if (atomic_load(&dev->state) == VDEV_ALIVE)
		atomic_store(&dev->died, time_monotonic_ns());
	if (!atomic_compare_exchange_strong(&dev->state, &was, VDEV_DEAD)) {
		was = VDEV_RESTORING;
		if (!atomic_compare_exchange_strong(&dev->state, &was, VDEV_DEAD))
			return;
	}
	if (why)
		log_error("virtio-fs device: %s; its files give EIO until %s", why,
			  dev->reconnect ? "the daemon is back" : "it is mounted again");
	/* One that lives sees its end by this, whoever else has the socket; ours is another only once `abandoned` is set. */
	(void)shutdown(dev->sock, SHUT_RDWR);
	for (unsigned i = 0; i < dev->queue_count; i++)
		queue_abandon(&dev->queues[i]);
	atomic_store(&dev->abandoned, true);
	if (dev->reconnect)
		sleeper_wake(&dev->reconnector_sleeper);
}

/* ---- completions ---- */

/*
 * Never blocks, whatever the device does. With no room for it one is waiting to be read. looks: how often the device's thread looks at its ring for it, for it reads
 * 8 bytes and looks. Queue locked.
 */
static void kick_write(struct vdev_queue *q, unsigned looks)
{
	static const uint64_t ones[LOOKS_MORE] = {1, 1, 1, 1, 1, 1, 1, 1};

	(void)send(q->bells.kick, ones, looks * sizeof(ones[0]), MSG_DONTWAIT | MSG_NOSIGNAL);
}

int vdev_queue_drain_locked(struct vdev_queue *q)
{
	uint32_t used;
	void *cookie;
	int got;

	while ((got = virtq_driver_take(&q->ring, &cookie, &used)) == 1) {
		struct vdev_slot *slot = cookie;

		q->flying--;
		slot->used = used;
		slot->done = true;
		if (slot->orphan)
			orphan_done_locked(q, slot);
		else if (slot->waiter && slot->waiter != sleeper_current())
			sleeper_wake(slot->waiter);
		/* Its part of the ring is free now, its slot is once somebody came for it. */
		if (!q->dev->indirect)
			room_wake_locked(q);
	}
	return got;
}

int vdev_queue_drain(struct vdev_queue *q)
{
	int err;

	mutex_lock(&q->lock);
	do
		err = vdev_queue_drain_locked(q);
	while (!err && q->asleep && virtq_driver_arm(&q->ring));
	vdev_queue_unlock(q);
	if (err)
		virtiofs_device_kill(q->dev, "its used ring makes no sense");
	return err;
}

/* The housekeeping thread: the device called. */
void vdev_call_ready(struct hostpoll *hp, uint32_t events)
{
	struct vdev_queue *q = container_of(hp, struct vdev_queue, poll);

	(void)events;
	/* Not read: polling is edge-triggered, and the daemon, which shares the descriptor, can make a read block. */
	(void)!vdev_queue_drain(q);
}

/*
 * Nobody waits for it from now on. Its owner keeps others waiting until he is told, so it counts as a sleeper: the device calls when it is done. Queue
 * locked; the slot may be gone after vdev_queue_unlock(). Return: 0, -EPROTO.
 */
static int make_orphan_locked(struct vdev_queue *q, struct vdev_slot *slot)
{
	int err = 0;

	slot->orphan = true;
	slot->waiter = NULL;
	if (slot->done) {
		orphan_done_locked(q, slot);
		return 0;
	}
	slot->listened = slot->owner;
	q->asleep += slot->listened;
	while (!err && q->asleep && virtq_driver_arm(&q->ring))
		err = vdev_queue_drain_locked(q);
	return err;
}

void vdev_leave(struct vdev_pending *p)
{
	struct vdev_queue *q = p->q;
	int err;

	if (p->slot->owner)
		p->slot->owner->leave(p->slot->owner);
	mutex_lock(&q->lock);
	err = make_orphan_locked(q, p->slot);
	vdev_queue_unlock(q);
	*p = (struct vdev_pending){0};
	if (err)
		virtiofs_device_kill(q->dev, "its used ring makes no sense");
}

void vdev_in_flight(struct virtiofs_device *dev,
		    void (*emit)(void *arg, const char *what, uint64_t id, int64_t age_ns),
		    void *arg)
{
	int64_t now = time_monotonic_ns();

	for (unsigned k = 0; k < dev->queue_count; k++) {
		struct vdev_queue *q = &dev->queues[k];

		mutex_lock(&q->lock);
		for (unsigned i = 0; q->busy && i < q->slot_count; i++) {
			const struct vdev_slot *s = &q->slots[i], *f = q->free_slots;

			while (f && f != s)
				f = f->next_free;
			if (!f && !s->done)
				emit(arg, fuse_op_info(s->opcode)->name, s->unique,
				     now - s->since_ns);
		}
		mutex_unlock(&q->lock);
	}
}

/* ---- submitting ---- */

static void add_data(struct virtiofs_device *dev, struct virtq_buf *bufs, unsigned *count,
		     const struct vdev_data *data, unsigned data_count)
{
	for (unsigned i = 0; i < data_count; i++)
		bufs[(*count)++] = (struct virtq_buf){addr_of(dev, data[i].off), data[i].size};
}

/* Writes the request into the slot and onto the ring. Queue locked. */
static int enter_locked(struct vdev_queue *q, struct vdev_slot *slot, const struct vdev_call *call,
			size_t head_size)
{
	struct virtiofs_device *dev = q->dev;
	struct virtq_buf out[VDEV_DATA_MAX + 2], in[VDEV_DATA_MAX + 2];
	uint64_t base = q->memory.slots_off + (uint64_t)slot->index * SLOT_BYTES;
	unsigned outs = 0, ins = 0;
	bool answered = call->req.opcode != FUSE_FORGET && call->req.opcode != FUSE_BATCH_FORGET;
	bool table;

	out[outs++] = (struct virtq_buf){addr_of(dev, base + SLOT_REQUEST_AT), (uint32_t)head_size};
	if (call->inline_size)
		out[outs++] = (struct virtq_buf){addr_of(dev, base + SLOT_INLINE_AT),
						 (uint32_t)call->inline_size};
	add_data(dev, out, &outs, call->send, call->send_count);
	if (answered)
		in[ins++] = (struct virtq_buf){
			addr_of(dev, base + SLOT_REPLY_AT),
			(uint32_t)(sizeof(struct fuse_out_header) + call->reply_size)};
	add_data(dev, in, &ins, call->receive, call->receive_count);
	/* The device is through with a short one sooner without. */
	table = dev->indirect && outs + ins > q->ring.num / q->slot_count;
	return virtq_driver_add(&q->ring, out, outs, in, ins, table ? (void *)slot->mem : NULL,
				addr_of(dev, base), slot);
}

/*
 * Another request follows as soon as this one is answered: the device's thread, which goes to sleep where a ring is empty, is to look again and finds that
 * one. On one CPU with its caller it would only keep him from it.
 */
static unsigned looks_for(const struct vdev_queue *q, const struct vdev_call *call, int64_t now)
{
	const bool soon =
		now - atomic_load_explicit(&q->answered_ns, memory_order_relaxed) < PACE_NS;

	return (call->more || soon) && q->dev->may_spin && now >= q->yield_after &&
			       !atomic_load_explicit(&q->near, memory_order_relaxed)
		       ? LOOKS_MORE
		       : 1;
}

static ssize_t fill_slot(struct vdev_queue *q, struct vdev_slot *slot, const struct vdev_call *call)
{
	struct fuse_request req = call->req;
	uint8_t *mem = slot->mem;

	if (req.nodeid > FUSE_ROOT && !vdev_node_current(q->dev, req.nodeid))
		return -EIO;
	if (call->epoch_set && call->epoch != vdev_epoch(q->dev))
		return -EIO;
	req.nodeid = vdev_server_node(req.nodeid);
	req.data_size = call->inline_size;
	for (unsigned i = 0; i < call->send_count; i++)
		req.data_size += call->send[i].size;
	if (call->inline_size)
		memcpy(mem + SLOT_INLINE_AT, call->inline_data, call->inline_size);
	slot->unique = atomic_fetch_add_explicit(&q->dev->unique, 2, memory_order_relaxed);
	slot->done = false;
	slot->used = 0;
	slot->opcode = req.opcode;
	slot->owner = call->owner;
	slot->unkillable = call->unkillable || call->heard;
	slot->room = slot->reply_size = call->reply_size;
	for (unsigned i = 0; i < call->receive_count; i++)
		slot->room += call->receive[i].size;
	return fuse_encode(&req, slot->unique, mem + SLOT_REQUEST_AT, FUSE_REQUEST_ARG_MAX);
}

/* A free slot. may_wait: for room. Queue locked before and after. Return: 0, -EIO, -EPROTO, -EINTR, -EAGAIN. */
static int slot_take(struct vdev_queue *q, bool may_wait, bool unkillable, struct vdev_slot **ret)
{
	int err = 0;

	for (;;) {
		if (!virtiofs_device_alive(q->dev))
			err = -EIO;
		else if (!q->free_slots)
			err = vdev_queue_drain_locked(q);
		if (!err && q->free_slots)
			break;
		if (!err && !may_wait)
			err = -EAGAIN;
		if (!err)
			err = wait_for_room(q, unkillable);
		if (err)
			return err;
	}
	*ret = q->free_slots;
	q->free_slots = (*ret)->next_free;
	(*ret)->mem = q->slot_mem + (size_t)(*ret)->index * SLOT_BYTES;
	q->busy++;
	return 0;
}

enum submit_mode {
	SUBMIT_WAITED, /* for room, and later for the answer */
	SUBMIT_PENDING, /* an answer will be waited for, room is not */
	SUBMIT_POSTED, /* nobody waits for anything */
};

/* Of a slot there is one, of descriptors too few: a long request without indirect ones. Queue locked. Return: 0: again; as slot_take(). */
static int ring_room(struct vdev_queue *q, bool may_wait, bool unkillable)
{
	if (virtq_driver_ready(&q->ring))
		return vdev_queue_drain_locked(q);
	if (!q->flying)
		return -EIO; /* more than the whole ring has */
	return may_wait ? wait_for_room(q, unkillable) : -EAGAIN;
}

/* Onto the ring. Queue locked before and after. Return: as slot_take(). */
static int submit_locked(struct vdev_queue *q, const struct vdev_call *call, enum submit_mode mode,
			 struct vdev_slot **ret)
{
	bool may_wait = mode == SUBMIT_WAITED;
	struct vdev_slot *slot;
	ssize_t size;
	bool wanted;
	int err;

	do {
		err = slot_take(q, may_wait, call->unkillable, &slot);
		if (err)
			return err;
		size = fill_slot(q, slot, call);
		slot->waiter = NULL;
		slot->orphan = mode == SUBMIT_POSTED;
		err = size < 0 ? (int)size : enter_locked(q, slot, call, (size_t)size);
		if (!err)
			break;
		if (err != -ENOSPC) {
			vdev_slot_release_locked(q, slot);
			return err;
		}
		/* It was free before: nobody waits for it. */
		slot_free_locked(q, slot);
		err = ring_room(q, may_wait, call->unkillable);
	} while (!err);
	if (err)
		return err;
	q->flying++;
	for (unsigned i = 0; i < call->send_count; i++)
		slot->data[slot->data_count++] = call->send[i];
	for (unsigned i = 0; i < call->receive_count; i++)
		slot->data[slot->data_count++] = call->receive[i];
	vdev_pin_data(q->dev, slot->data, slot->data_count, true);
	wanted = virtq_driver_publish(&q->ring);
	slot->since_ns = time_monotonic_ns();
	if (wanted) {
		kick_write(q, looks_for(q, call, slot->since_ns));
		atomic_store_explicit(&q->kicked, true, memory_order_relaxed);
	}
	slot->meanwhile = call->meanwhile;
	slot->meanwhile_arg = call->meanwhile_arg;
	*ret = slot;
	return 0;
}

/* Return: 0, -EIO, -EINTR, -EAGAIN: no room. */
static int submit(struct vdev_queue *q, const struct vdev_call *call, enum submit_mode mode,
		  struct vdev_slot **ret)
{
	int err;

	if (call->send_count > VDEV_DATA_MAX || call->receive_count > VDEV_DATA_MAX ||
	    call->inline_size > VDEV_REPLY_MAX || call->reply_size > VDEV_REPLY_MAX)
		return -EINVAL;
	mutex_lock(&q->lock);
	err = submit_locked(q, call, mode, ret);
	vdev_queue_unlock(q);
	if (err == -EPROTO) {
		virtiofs_device_kill(q->dev, "its used ring makes no sense");
		return -EIO;
	}
	if (!err && mode != SUBMIT_POSTED)
		atomic_fetch_add_explicit(&q->dev->requests, 1, memory_order_relaxed);
	return err;
}

/* What the device wrote: copied, checked, the slot given back. */
static ssize_t collect(struct vdev_queue *q, struct vdev_slot *slot, void *reply)
{
	const uint8_t *mem = slot->mem + SLOT_REPLY_AT;
	uint32_t opcode = slot->opcode;
	bool broken = false;
	ssize_t ret = check_answer(slot, &broken);
	size_t small;

	if (ret > 0) {
		small = MIN((size_t)ret, slot->reply_size);
		if (small)
			memcpy(reply, mem + sizeof(struct fuse_out_header), small);
	}
	mutex_lock(&q->lock);
	vdev_slot_release_locked(q, slot);
	vdev_queue_unlock(q);
	if (broken)
		log_warn("virtio-fs device: the reply to %s makes no sense",
			 fuse_op_info(opcode)->name);
	return ret;
}

#define AHEADS_MAX 48u
#define READ_HEADS 4 /* descriptors of a READ besides its data's, at most */

unsigned vdev_ahead_take(struct virtiofs_device *dev, unsigned pieces)
{
	unsigned cost = atomic_load_explicit(&dev->indirect, memory_order_relaxed)
				? 1
				: pieces + READ_HEADS;
	unsigned max = MIN(AHEADS_MAX, (dev->queue_size - 1) / 2);

	if (atomic_fetch_add(&dev->aheads, cost) + cost <= max)
		return cost;
	atomic_fetch_sub(&dev->aheads, cost);
	return 0;
}

void vdev_ahead_give(struct virtiofs_device *dev, unsigned cost)
{
	atomic_fetch_sub(&dev->aheads, cost);
}

/* Nothing is under way in it; what nobody came for yet does not count. */
static bool is_idle(struct vdev_queue *q)
{
	if (atomic_load_explicit(&q->flying, memory_order_relaxed) && virtq_driver_ready(&q->ring))
		(void)!vdev_queue_drain(q);
	return !atomic_load_explicit(&q->flying, memory_order_relaxed);
}

/*
 * The queue that was used last if nothing is in it: the daemon's thread of that one is awake or polls still, another's would have to be woken. Else one that
 * has nothing to do, the caller's own CPU's first. ahead: behind what was sent last, whatever there is.
 */
static struct vdev_queue *pick_queue(struct virtiofs_device *dev, bool ahead)
{
	unsigned n = dev->queue_count - 1, last, own;

	if (n == 1)
		return &dev->queues[1];
	last = atomic_load_explicit(&dev->last_queue, memory_order_relaxed);
	if (ahead || is_idle(&dev->queues[1 + last]))
		return &dev->queues[1 + last];
	own = (unsigned)MAX(sched_getcpu(), 0) % n;
	for (unsigned i = 0; i < n; i++) {
		unsigned at = (own + i) % n;

		if (is_idle(&dev->queues[1 + at])) {
			own = at;
			break;
		}
	}
	atomic_store_explicit(&dev->last_queue, own, memory_order_relaxed);
	return &dev->queues[1 + own];
}

int vdev_begin(struct virtiofs_device *dev, const struct vdev_call *call, bool may_wait,
	       struct vdev_pending *ret)
{
	struct vdev_queue *q = pick_queue(dev, !may_wait);
	struct vdev_slot *slot;
	int err = submit(q, call, may_wait ? SUBMIT_WAITED : SUBMIT_PENDING, &slot);

	if (!err)
		*ret = (struct vdev_pending){q, slot};
	return err;
}

ssize_t vdev_end(struct vdev_pending *p, void *reply)
{
	int err = vdev_wait_for(p->q, p->slot);
	ssize_t ret = err;

	if (err) {
		vdev_leave(p);
		return ret;
	}
	ret = collect(p->q, p->slot, reply);
	*p = (struct vdev_pending){0};
	return ret;
}

bool vdev_done(struct vdev_pending *p)
{
	if (!atomic_load_explicit(&p->slot->done, memory_order_acquire) &&
	    virtq_driver_ready(&p->q->ring))
		(void)!vdev_queue_drain(p->q);
	return atomic_load_explicit(&p->slot->done, memory_order_acquire);
}

ssize_t vdev_call(struct virtiofs_device *dev, struct vdev_call *call)
{
	struct vdev_pending p;
	int err = vdev_begin(dev, call, true, &p);

	return err ? err : vdev_end(&p, call->reply);
}

int vdev_begin_unwaited(struct virtiofs_device *dev, const struct vdev_call *call)
{
	struct vdev_slot *slot;

	return submit(pick_queue(dev, false), call, SUBMIT_POSTED, &slot);
}

int vdev_interrupt(const struct vdev_pending *p)
{
	const struct fuse_interrupt_in arg = {.unique = p->slot->unique};
	const struct vdev_call call = {.req = {.opcode = FUSE_INTERRUPT, .arg = &arg}};

	return vdev_begin_unwaited(p->q->dev, &call);
}

int vdev_post(struct virtiofs_device *dev, const struct fuse_request *req, const void *data,
	      size_t size)
{
	const struct vdev_call call = {.req = *req, .inline_data = data, .inline_size = size};
	struct vdev_slot *slot;

	return submit(&dev->queues[0], &call, SUBMIT_POSTED, &slot);
}

/* Takes completions until the queue has none in flight. Return: it has none. */
static bool drained(struct vdev_queue *q)
{
	unsigned busy;

	mutex_lock(&q->lock);
	(void)!vdev_queue_drain_locked(q);
	busy = q->busy;
	vdev_queue_unlock(q);
	return !busy;
}

void vdev_drain(struct virtiofs_device *dev, int64_t ns)
{
	int64_t end = time_monotonic_ns() + ns;

	for (unsigned i = 0; i < dev->queue_count; i++)
		while (virtiofs_device_alive(dev) && !drained(&dev->queues[i]) &&
		       time_monotonic_ns() < end)
			/* Rarely more than once: what is waited for was sent before and is short. */
			(void)!sleeper_wait(sleeper_current(), SLEEP_UNINTERRUPTIBLE,
					    time_monotonic_ns() + 200000);
}
