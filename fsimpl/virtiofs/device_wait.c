/*
 * fsimpl/virtiofs/device_wait.c - waiting for an answer of the device: polling its used ring for a while, then sleeping.
 *
 * Who polls sees his answer without a system call, and lets others have the CPU from time to time, for the daemon's thread may be one of them. Who sleeps
 * is woken by the housekeeping thread (vdev_call_ready()). Cannot do: know on which CPU the daemon's threads are; it is guessed from how long a yield took.
 */
#include "base/futex.h"
#include "base/sleep.h"
#include "fsimpl/virtiofs/internal_device.h"

#define SPIN_NS 40000
#define SPIN_NS_PER_KIB 500 /* more, for what the answer may bring: the device copies it */
#define SPIN_AWAY_NS 500000
#define LONG_BYTES (128u << 10)
/* A yield that took longer gave the CPU to others than the daemon: none for a while, for it is they who have it then, not who is woken. */
#define CROWDED_NS 1000000
#define CROWDED_FOR_NS 100000000
/* Between yields; before the first one where the daemon's thread is elsewhere; less is none to whom the CPU was given. */
#define YIELD_NS 3000
#define FAR_YIELD_NS 12000
#define NEAR_NS 1500
#define SPIN_MISSES_MAX 8 /* in a row: then only every 16th wait polls */
#define SPIN_SOON \
	4 /* polls as long as polling may take: an answer that came within that was no miss */

/* How long an answer is polled for. */
static int64_t spin_ns(const struct vdev_slot *slot)
{
	return SPIN_NS + (int64_t)(slot->room >> 10) * SPIN_NS_PER_KIB;
}

/* After a kick, before the answer to a long request is waited for: some hosts wake a thread on its waker's CPU though another is idle. */
static void make_room(struct vdev_queue *q, const struct vdev_slot *slot)
{
	if (slot->room >= LONG_BYTES && q->dev->may_spin && atomic_exchange(&q->kicked, false) &&
	    time_monotonic_ns() >= q->yield_after)
		sched_yield();
}

static bool slot_done(const struct vdev_slot *slot)
{
	return atomic_load_explicit(&slot->done, memory_order_acquire);
}

/* Looks for a moment, without giving the CPU away. */
static void look(struct vdev_queue *q, const struct vdev_slot *slot)
{
	if (slot->meanwhile)
		slot->meanwhile(slot->meanwhile_arg);
	for (int i = 0; i < 16 && !slot_done(slot); i++) {
		if (virtq_driver_ready(&q->ring)) {
			(void)!vdev_queue_drain(q);
			return;
		}
		cpu_relax();
	}
}

/* Lets others have this CPU, as often as that is good for anything. Return: how long they had it. */
static int64_t step_aside(struct vdev_queue *q)
{
	int64_t before = time_monotonic_ns(), took;

	if (before < q->yield_after)
		return 0;
	sched_yield();
	took = time_monotonic_ns() - before;
	if (took > CROWDED_NS)
		q->yield_after = before + took + CROWDED_FOR_NS;
	/* An answer that came while they had it was made here. */
	atomic_store_explicit(&q->near, took > NEAR_NS && virtq_driver_ready(&q->ring),
			      memory_order_relaxed);
	return took;
}

/*
 * Polls for a while, from `now` on. True: done. Where the daemon's thread has this very CPU it gets that at once, else whoever is to run on it does from time
 * to time. Who comes back late and finds nothing was pushed aside by others, and sleeps.
 */
static bool spin_for(struct vdev_queue *q, struct vdev_slot *slot, int64_t now)
{
	bool far = !atomic_load_explicit(&q->near, memory_order_relaxed);
	int64_t end = now + spin_ns(slot), aside, away = 0;

	if (!q->dev->may_spin)
		return false;
	if (q->spin_misses >= SPIN_MISSES_MAX && (q->spin_misses++ & 15))
		return false;
	aside = far ? now + FAR_YIELD_NS : now;
	for (;;) {
		look(q, slot);
		if (slot_done(slot)) {
			q->spin_misses = 0;
			atomic_store_explicit(&q->answered_ns, now, memory_order_relaxed);
			return true;
		}
		now = time_monotonic_ns();
		if (!virtiofs_device_alive(q->dev) || now >= end || away >= SPIN_AWAY_NS)
			break;
		if (now >= aside) {
			away = step_aside(q);
			aside = now + away + YIELD_NS;
		}
	}
	q->spin_misses++;
	return slot_done(slot);
}

/* Until when one waits for an answer: for ever, but what brings the filesystem back keeps all others. */
static int64_t answer_deadline(const struct virtiofs_device *dev)
{
	int64_t end = atomic_load_explicit(&dev->restore_end, memory_order_relaxed);

	return end && pthread_equal(dev->reconnector, pthread_self())
		       ? MIN(end, time_monotonic_ns() + VDEV_RESTORE_CALL_NS)
		       : TIME_FOREVER;
}

/*
 * Until the slot is done; a device whose ring makes no sense is dead, which makes it so. Return: 0, -EINTR, -ETIMEDOUT: it is not, mode and deadline
 * (host CLOCK_MONOTONIC) are sleeper_wait()'s.
 */
static int sleep_for(struct vdev_queue *q, struct vdev_slot *slot, enum sleep_mode mode,
		     int64_t deadline)
{
	int err = 0;

	mutex_lock(&q->lock);
	slot->waiter = sleeper_current();
	sleeper_set_what(slot->waiter, "virtio-fs reply");
	q->asleep++;
	while (!slot->done && !err) {
		if (virtq_driver_arm(&q->ring)) {
			err = vdev_queue_drain_locked(q);
			continue;
		}
		vdev_queue_unlock(q);
		err = sleeper_wait(sleeper_current(), mode, deadline);
		mutex_lock(&q->lock);
	}
	q->asleep--;
	if (!q->asleep)
		virtq_driver_disarm(&q->ring);
	sleeper_set_what(slot->waiter, NULL);
	slot->waiter = NULL;
	if (slot->done && err != -EPROTO)
		err = 0;
	vdev_queue_unlock(q);
	if (err != -EPROTO)
		return err;
	virtiofs_device_kill(q->dev, "its used ring makes no sense");
	return 0;
}

int vdev_wait_for(struct vdev_queue *q, struct vdev_slot *slot)
{
	enum sleep_mode mode = slot->unkillable ? SLEEP_UNINTERRUPTIBLE : SLEEP_KILLABLE;
	int64_t start;
	int err;

	if (atomic_load_explicit(&slot->done, memory_order_acquire))
		return 0;
	make_room(q, slot);
	start = time_monotonic_ns();
	if (spin_for(q, slot, start))
		return 0;
	/* Dead it is, and then the slot is done. */
	while ((err = sleep_for(q, slot, mode, answer_deadline(q->dev))) == -ETIMEDOUT)
		virtiofs_device_kill(q->dev,
				     "it does not answer while the file system is brought back");
	if (!err && time_monotonic_ns() - start < SPIN_SOON * spin_ns(slot))
		q->spin_misses = 0;
	return err;
}

int vdev_wait(struct vdev_pending *p, enum sleep_mode mode, int64_t deadline)
{
	return sleep_for(p->q, p->slot, mode, deadline);
}
