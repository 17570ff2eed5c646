/*
 * wire/virtqueue.h - split virtqueues (virtio 1.2, section 2.7), the driver's side and the device's.
 *
 * The rings lie in memory that both sides may write at any time. Each side keeps what it must believe in memory of its own:
 * the driver its free list and what it put into each descriptor, the device its position; what the
 * other wrote is read once and checked. A ring index or id out of range is -EPROTO, after which the queue must not be used.
 *
 * No I/O and no locks: the caller kicks and waits, and serialises the calls of one side. Ordering between the sides
 * is by acquire and release accesses, and one full fence where the protocol needs store-load order.
 * Source of the layouts: <linux/virtio_ring.h>.
 */
#ifndef MOAT_WIRE_VIRTQUEUE_H
#define MOAT_WIRE_VIRTQUEUE_H

#include <linux/virtio_ring.h>
#include <sys/uio.h>

#include "base/compiler.h"

#define VIRTQ_SIZE_MAX 1024 /* descriptors; a power of two */
#define VIRTQ_CHAIN_MAX 512 /* buffers of one request */

/* Bytes of the three parts for `num` descriptors, and their offsets in one 64-byte aligned area. */
struct virtq_layout {
	size_t desc, avail, used; /* offsets */
	size_t size;
};
/* num: a power of two up to VIRTQ_SIZE_MAX. */
void virtq_layout(unsigned num, struct virtq_layout *ret);

/* One piece of a request, by the address that the device knows it under (guest-physical for vhost-user). */
struct virtq_buf {
	uint64_t addr;
	uint32_t size;
};

/* ---- the driver ---- */

struct virtq_driver_slot {
	void *cookie; /* NULL: not the head of a request in flight */
	uint32_t writable; /* bytes the device may have written at most */
	uint16_t descs; /* descriptors to free; 1 for an indirect one */
	uint16_t next; /* free list, and the chain of a request */
};

struct virtq_driver {
	unsigned num; /* immutable */
	bool event_idx; /* immutable: VIRTIO_RING_F_EVENT_IDX */
	struct vring_desc *desc; /* shared */
	struct vring_avail *avail; /* shared */
	struct vring_used *used; /* shared */
	struct virtq_driver_slot *slots; /* own: num of them */
	uint16_t avail_idx, kicked_idx, last_used;
	uint16_t free_head, free_count;
};

/* `area`: virtq_layout() bytes, zeroed; `slots`: num, zeroed. */
void virtq_driver_init(struct virtq_driver *q, unsigned num, bool event_idx, void *area,
		       struct virtq_driver_slot *slots);
/*
 * Enters a request: `out` is read by the device, `in` written. table: room for out_count + in_count descriptors in shared
 * memory, at device address table_addr, for an indirect request; NULL: direct descriptors. cookie: not NULL.
 * Return: 0, -ENOSPC (take completions first), -EINVAL (no buffer, or too many).
 */
must_check int virtq_driver_add(struct virtq_driver *q, const struct virtq_buf *out,
				unsigned out_count, const struct virtq_buf *in, unsigned in_count,
				struct vring_desc *table, uint64_t table_addr, void *cookie);
/* Publishes what was added. True: the device wants to be kicked. */
bool virtq_driver_publish(struct virtq_driver *q);
/* The next completion. Return: 1 with the cookie and the bytes written (at most what was offered), 0: none, -EPROTO. */
must_check int virtq_driver_take(struct virtq_driver *q, void **ret_cookie, uint32_t *ret_len);
/* Is there a completion? Any thread; a hint. Also while the queue is made anew, if the old area stays. */
bool virtq_driver_ready(const struct virtq_driver *q);
/* Asks for a call at the next completion. True: one is there already, take it. */
bool virtq_driver_arm(struct virtq_driver *q);
/* Asks for no calls (with event_idx: for one that is far away). */
void virtq_driver_disarm(struct virtq_driver *q);
/* Requests in flight, in no order: for when the device has died. Forgets them; NULL at the end. */
void *virtq_driver_abandon(struct virtq_driver *q);

/* ---- the device ---- */

/* Where the driver's addresses lead; the caller's table, fixed while the queue runs. */
struct virtq_region {
	uint64_t addr, size; /* the driver's addresses */
	uint8_t *host;
};
struct virtq_memory {
	const struct virtq_region *regions;
	unsigned count;
};
/* The host's address of [addr, addr + size), all of it in one region; NULL: not there. */
void *virtq_memory_at(const struct virtq_memory *mem, uint64_t addr, uint64_t size);

struct virtq_device {
	unsigned num; /* immutable */
	bool event_idx, indirect; /* immutable */
	const struct vring_desc *desc; /* shared */
	struct vring_avail *avail; /* shared */
	struct vring_used *used; /* shared */
	uint16_t last_avail, used_idx, called_idx;
};

struct virtq_chain {
	uint16_t head;
	unsigned out_count, in_count;
	struct iovec *out, *in; /* in iov */
	struct iovec iov[VIRTQ_CHAIN_MAX];
	uint64_t out_size, in_size; /* bytes */
};

/* The parts as host addresses, checked by the caller to lie in shared memory. base: GET_VRING_BASE's value to go on from. */
void virtq_device_init(struct virtq_device *q, unsigned num, bool event_idx, bool indirect,
		       void *desc, void *avail, void *used, uint16_t base);
/*
 * The next request, its buffers translated. Buffers that the device writes must follow those it reads.
 * Return: 1, 0: none, -EPROTO: a broken ring or chain.
 */
must_check int virtq_device_pop(struct virtq_device *q, const struct virtq_memory *mem,
				struct virtq_chain *ret);
/* Completes a request with `len` bytes written. */
void virtq_device_push(struct virtq_device *q, uint16_t head, uint32_t len);
/* After pushes: true if the driver wants a call. */
bool virtq_device_should_call(struct virtq_device *q);
/* Asks for a kick at the next request. True: one is there already. */
bool virtq_device_arm(struct virtq_device *q);
void virtq_device_disarm(struct virtq_device *q);

#endif
