/* fsimpl/virtiofs/internal_device.h - the device's inside: device.c (requests), device_wait.c, device_life.c, vhost.c (the vhost-user handshake), reconnect.c. */
#ifndef MOAT_FSIMPL_VIRTIOFS_INTERNAL_DEVICE_H
#define MOAT_FSIMPL_VIRTIOFS_INTERNAL_DEVICE_H

#include <pthread.h>
#include <sched.h>

#include "base/hostpoll.h"
#include "base/lock.h"
#include "base/sleep.h"
#include "fsimpl/virtiofs/dax.h"
#include "fsimpl/virtiofs/device.h"
#include "fsimpl/virtiofs/version.h"
#include "vfs/op_lock.h"

#define VDEV_QUEUES_MAX 17 /* the high-priority queue and up to 16 for requests */
#define VDEV_QUEUE_SIZE_DEFAULT 128 /* slots */
#define VDEV_SLOT_DESCS 2u /* descriptors a slot, where longer requests have tables of their own */
/* What the device calls offset 0 of the memory: no address of ours, so that mixing the two up is noticed. */
#define VDEV_GUEST_BASE (1ull << 32)

/* A slot's memory. */
#define SLOT_TABLE_BYTES (VIRTQ_CHAIN_MAX * sizeof(struct vring_desc))
#define SLOT_REQUEST_AT SLOT_TABLE_BYTES
#define SLOT_INLINE_AT (SLOT_REQUEST_AT + FUSE_REQUEST_ARG_MAX)
#define SLOT_REPLY_AT (SLOT_INLINE_AT + VDEV_REPLY_MAX)
#define SLOT_BYTES round_up_u64(SLOT_REPLY_AT + sizeof(struct fuse_out_header) + VDEV_REPLY_MAX, 64)

struct vdev_slot {
	unsigned index; /* immutable */
	uint8_t *
		mem; /* of its request, which may have been one of the connection before; set when it is taken */
	struct vdev_slot *next_free; /* guarded by the queue's lock, as all below unless done */
	struct sleeper *waiter;
	_Atomic bool done;
	bool orphan; /* nobody waits: released by whoever takes the completion */
	uint32_t used; /* bytes that the device says it wrote */
	uint64_t unique;
	int64_t since_ns;
	uint32_t opcode;
	size_t reply_size,
		room; /* bytes of the small reply; of all that may come behind the header */
	struct vdev_owner *owner; /* borrowed; an orphan's until it was told */
	bool unkillable;
	void (*meanwhile)(void *arg); /* vdev_call's; the caller's alone */
	void *meanwhile_arg;
	bool listened; /* an orphan that counts in queue->asleep */
	struct vdev_data data[2 * VDEV_DATA_MAX]; /* pinned until the completion */
	unsigned data_count;
};

struct vdev_room_waiter {
	struct vdev_room_waiter *next;
	struct sleeper *sleeper;
	bool queued;
};

/*
 * What a queue has of the shared memory. Each connection gets fresh one: a daemon that was given up may be alive, and what it writes into its used
 * rings and replies must land where nobody looks. That memory is kept from any other use until VDEV_RETIRED_MAX more connections were lost.
 */
#define VDEV_RETIRED_MAX 8
struct vdev_queue_memory {
	uint64_t ring_off, ring_size, slots_off, slots_size; /* sizes 0: none */
};

/*
 * How a queue's two sides call each other. The device has another open file of the kick than we: on an eventfd, which is one for both, it could make our
 * writes block (O_NONBLOCK is the open file's, and the counter may be full), and those are made under the queue's lock, where the housekeeping
 * thread waits for them. Of a pipe it could hold the lock, by reading into memory that it does not let in. A socket's sender waits for neither. The
 * call is an eventfd, which we only poll.
 */
struct vdev_doorbells {
	int kick, kick_theirs, call; /* kick_theirs: -1 once the device has it */
};

struct vdev_queue {
	struct virtiofs_device *dev; /* immutable; borrowed */
	struct mutex lock; /* LOCK_RPC */
	struct virtq_driver ring; /* guarded by lock, but for virtq_driver_ready() */
	struct vdev_slot *free_slots; /* guarded by lock */
	_Atomic unsigned busy; /* changed under lock: slots that are not free */
	_Atomic unsigned flying; /* changed under lock: requests whose completions were not taken */
	struct vdev_slot *left; /* guarded by lock: completed orphans whose owners are to be told */
	struct vdev_room_waiter *room_waiters; /* guarded by lock */
	unsigned
		asleep; /* guarded by lock: sleepers for a completion or for room, and orphans with owners */
	_Atomic unsigned spin_misses;
	_Atomic bool kicked; /* advice: the device was, since its thread was last given this CPU */
	_Atomic bool near; /* advice: its thread was last seen to run on its caller's CPU */
	_Atomic int64_t yield_after;
	_Atomic int64_t answered_ns; /* advice: when somebody who polled had his answer last */
	struct vdev_doorbells
		bells; /* others at each reconnection: changed under lock, while dead */
	struct hostpoll poll;
	struct vdev_queue_memory memory; /* guarded by lock; another after each reconnection */
	/* Of connections before, the last first to go: guarded by lock. */
	struct vdev_queue_memory retired[VDEV_RETIRED_MAX];
	unsigned retire_next; /* where the next one goes; guarded by lock */
	uint8_t *slot_mem; /* guarded by lock: memory's slots */
	unsigned slot_count; /* immutable */
	struct vdev_slot *slots;
	struct virtq_driver_slot *ring_slots;
};

/* While the filesystem is brought back, its callers wait: a daemon may take so long for an answer, and for all of them. */
#define VDEV_RESTORE_CALL_NS 3000000000ll
#define VDEV_RESTORE_NS 30000000000ll

enum { VDEV_ALIVE, VDEV_DEAD, VDEV_RESTORING };

struct virtiofs_device {
	struct ref ref;
	int sock; /* changed while dead */
	struct memfile *mf; /* immutable; a reference */
	bool event_idx, reply_ack,
		multiqueue; /* of whoever negotiates: the opening, then the reconnecting thread */
	_Atomic bool indirect; /* changed while dead */
	bool may_spin; /* immutable */
	unsigned queue_count; /* immutable: with the high-priority one */
	struct vdev_queue queues[VDEV_QUEUES_MAX];
	struct hostpoll sock_poll;
	_Atomic int state; /* VDEV_ALIVE ...; changed to alive only by the reconnecting thread */
	_Atomic int64_t died; /* host CLOCK_MONOTONIC: when it was last alive */
	_Atomic bool abandoned; /* a dead device's rings were emptied */
	_Atomic unsigned epoch; /* connections so far; changed while dead */
	unsigned queue_size; /* immutable */
	int (*reconnect)(void *arg); /* immutable; NULL */
	void *reconnect_arg;
	pthread_t reconnector; /* immutable; if there is `reconnect` */
	struct sleeper reconnector_sleeper; /* that thread's; here, for who wakes it may be late */
	_Atomic bool closing;
	int64_t answer_by; /* host CLOCK_MONOTONIC: the handshake's last request; of who makes it */
	struct op_lock restore_lock; /* around restore, which takes locks of the filesystem's */
	int (*restore)(void *arg); /* guarded by restore_lock */
	void *restore_arg;
	_Atomic int64_t restore_end; /* host CLOCK_MONOTONIC; 0: nothing is being restored */
	struct dax_window *dax; /* immutable; owned; NULL: the daemon has none */
	struct virtiofs_versions *versions; /* the same */
	_Atomic bool claimed;
	_Atomic unsigned last_queue; /* for requests, from 0: advice */
	_Atomic unsigned aheads; /* vdev_ahead_take(): ring entries */
	_Atomic uint64_t unique, requests;
};

/* Takes or gives back references on memory of requests'. */
void vdev_pin_data(struct virtiofs_device *dev, const struct vdev_data *d, unsigned count,
		   bool pin);
void vdev_slot_release_locked(struct vdev_queue *q, struct vdev_slot *slot);
/* device_life.c: rings and slots that nobody knows yet, in place of those that the queue has. 0, -ENOMEM: it keeps them. Pre: no request in a ring. */
must_check int vdev_queue_renew(struct vdev_queue *q, unsigned size);
void vdev_call_ready(struct hostpoll *hp, uint32_t events);

/* device.c: takes what completed. 0, -EPROTO: the ring makes no sense; the first kills the device then, the second, with the queue locked, does not. */
must_check int vdev_queue_drain(struct vdev_queue *q);
must_check int vdev_queue_drain_locked(struct vdev_queue *q);
/* In place of mutex_unlock() wherever completions were taken: owners' locks rank below the queue's. */
void vdev_queue_unlock(struct vdev_queue *q);
/* device_wait.c: until the slot is done. Not locked. 0, -EINTR: killed, it is not. */
must_check int vdev_wait_for(struct vdev_queue *q, struct vdev_slot *slot);

must_check int vdev_doorbells_make(struct vdev_doorbells *ret); /* 0, -errno */
void vdev_doorbells_close(struct vdev_doorbells *bells);
void vdev_sock_ready(struct hostpoll *hp, uint32_t events);

/* reconnect.c */
must_check int vdev_reconnect_start(struct virtiofs_device *dev);
void vdev_reconnect_stop(struct virtiofs_device *dev);

/* vhost.c: features and the number of queues; then memory and rings. Blocking, bounded by VDEV_CONNECT_TIMEOUT_MS an answer. 0, -EPROTO, -ETIMEDOUT, -EIO. */
must_check int vdev_negotiate(struct virtiofs_device *dev, unsigned queues_wanted,
			      unsigned *ret_queues);
must_check int vdev_start(struct virtiofs_device *dev);

#endif
