/* wire/virtqueue.c - split virtqueues; see virtqueue.h. */
#include "wire/virtqueue.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>

static uint16_t load16(const volatile uint16_t *p, int order)
{
	return __atomic_load_n(p, order);
}

static void store16(volatile uint16_t *p, uint16_t v, int order)
{
	__atomic_store_n(p, v, order);
}

static uint16_t *avail_event(const struct vring_used *used, unsigned num)
{
	return (uint16_t *)(uintptr_t)&used->ring[num];
}

static uint16_t *used_event(const struct vring_avail *avail, unsigned num)
{
	return (uint16_t *)(uintptr_t)&avail->ring[num];
}

void virtq_layout(unsigned num, struct virtq_layout *ret)
{
	ret->desc = 0;
	ret->avail = num * sizeof(struct vring_desc);
	ret->used = round_up_u64(ret->avail + sizeof(uint16_t) * (3 + num), 64);
	ret->size = round_up_u64(
		ret->used + sizeof(uint16_t) * 3 + num * sizeof(struct vring_used_elem), 64);
}

/* Has the index moved past `event` on its way from `old` to `new`? (virtio 1.2, 2.7.10) */
static bool event_passed(uint16_t event, uint16_t new_idx, uint16_t old_idx)
{
	return (uint16_t)(new_idx - event - 1) < (uint16_t)(new_idx - old_idx);
}

/* ---- the driver ---- */

void virtq_driver_init(struct virtq_driver *q, unsigned num, bool event_idx, void *area,
		       struct virtq_driver_slot *slots)
{
	struct virtq_layout at;

	virtq_layout(num, &at);
	q->num = num;
	q->event_idx = event_idx;
	q->desc = (void *)((char *)area + at.desc);
	q->avail = (void *)((char *)area + at.avail);
	q->slots = slots;
	q->avail_idx = q->kicked_idx = 0;
	q->free_head = 0;
	q->free_count = (uint16_t)num;
	/* Whoever asks virtq_driver_ready() of a queue that is made anew sees the old ring or the new one, empty. */
	__atomic_store_n(&q->last_used, (uint16_t)0, __ATOMIC_RELAXED);
	__atomic_store_n(&q->used, (struct vring_used *)(void *)((char *)area + at.used),
			 __ATOMIC_RELEASE);
	for (unsigned i = 0; i < num; i++)
		slots[i].next = (uint16_t)(i + 1);
}

static void fill_desc(struct vring_desc *d, const struct virtq_buf *b, uint16_t flags,
		      uint16_t next)
{
	*(volatile struct vring_desc *)d =
		(struct vring_desc){.addr = b->addr, .len = b->size, .flags = flags, .next = next};
}

static void add_direct(struct virtq_driver *q, const struct virtq_buf *out, unsigned out_count,
		       const struct virtq_buf *in, unsigned in_count, uint16_t head)
{
	unsigned count = out_count + in_count;
	uint16_t at = head;

	for (unsigned i = 0; i < count; i++) {
		uint16_t next = q->slots[at].next;
		bool last = i == count - 1;

		fill_desc(&q->desc[at], i < out_count ? &out[i] : &in[i - out_count],
			  (uint16_t)((i < out_count ? 0 : VRING_DESC_F_WRITE) |
				     (last ? 0 : VRING_DESC_F_NEXT)),
			  last ? 0 : next);
		if (last)
			q->free_head = next;
		at = next;
	}
	q->slots[head].descs = (uint16_t)count;
}

static void add_indirect(struct virtq_driver *q, const struct virtq_buf *out, unsigned out_count,
			 const struct virtq_buf *in, unsigned in_count, struct vring_desc *table,
			 uint64_t table_addr, uint16_t head)
{
	unsigned count = out_count + in_count;
	struct virtq_buf whole = {table_addr, (uint32_t)(count * sizeof(*table))};

	for (unsigned i = 0; i < count; i++)
		fill_desc(&table[i], i < out_count ? &out[i] : &in[i - out_count],
			  (uint16_t)((i < out_count ? 0 : VRING_DESC_F_WRITE) |
				     (i == count - 1 ? 0 : VRING_DESC_F_NEXT)),
			  (uint16_t)(i == count - 1 ? 0 : i + 1));
	q->free_head = q->slots[head].next;
	fill_desc(&q->desc[head], &whole, VRING_DESC_F_INDIRECT, 0);
	q->slots[head].descs = 1;
}

int virtq_driver_add(struct virtq_driver *q, const struct virtq_buf *out, unsigned out_count,
		     const struct virtq_buf *in, unsigned in_count, struct vring_desc *table,
		     uint64_t table_addr, void *cookie)
{
	unsigned count = out_count + in_count;
	uint16_t head = q->free_head;
	uint64_t writable = 0;

	if (!count || count > VIRTQ_CHAIN_MAX || !cookie)
		return -EINVAL;
	if (q->free_count < (table ? 1 : count))
		return -ENOSPC;
	for (unsigned i = 0; i < in_count; i++)
		writable += in[i].size;
	if (table)
		add_indirect(q, out, out_count, in, in_count, table, table_addr, head);
	else
		add_direct(q, out, out_count, in, in_count, head);
	q->free_count = (uint16_t)(q->free_count - q->slots[head].descs);
	q->slots[head].cookie = cookie;
	q->slots[head].writable = (uint32_t)MIN(writable, (uint64_t)UINT32_MAX);
	store16(&q->avail->ring[q->avail_idx & (q->num - 1)], head, __ATOMIC_RELAXED);
	q->avail_idx++;
	return 0;
}

bool virtq_driver_publish(struct virtq_driver *q)
{
	uint16_t old = q->kicked_idx;

	if (old == q->avail_idx)
		return false;
	/* The index first, then the look at what the device asked for: neither may pass the other. */
	__atomic_exchange_n(&q->avail->idx, q->avail_idx, __ATOMIC_SEQ_CST);
	q->kicked_idx = q->avail_idx;
	if (q->event_idx)
		return event_passed(load16(avail_event(q->used, q->num), __ATOMIC_SEQ_CST),
				    q->avail_idx, old);
	return !(load16(&q->used->flags, __ATOMIC_SEQ_CST) & VRING_USED_F_NO_NOTIFY);
}

bool virtq_driver_ready(const struct virtq_driver *q)
{
	const struct vring_used *used = __atomic_load_n(&q->used, __ATOMIC_ACQUIRE);

	return load16(&used->idx, __ATOMIC_ACQUIRE) !=
	       __atomic_load_n(&q->last_used, __ATOMIC_RELAXED);
}

static void free_chain(struct virtq_driver *q, uint16_t head)
{
	unsigned descs = q->slots[head].descs;
	uint16_t tail = head;

	for (unsigned i = 1; i < descs; i++)
		tail = q->slots[tail].next;
	q->slots[tail].next = q->free_head;
	q->free_head = head;
	q->free_count = (uint16_t)(q->free_count + descs);
	q->slots[head].cookie = NULL;
	q->slots[head].descs = 0;
}

int virtq_driver_take(struct virtq_driver *q, void **ret_cookie, uint32_t *ret_len)
{
	uint16_t idx = load16(&q->used->idx, __ATOMIC_ACQUIRE), pending;
	const volatile struct vring_used_elem *e;
	uint32_t id, len;

	pending = (uint16_t)(idx - q->last_used);
	if (!pending)
		return 0;
	/* More completions than there can be requests. */
	if (pending > q->num)
		return -EPROTO;
	e = &q->used->ring[q->last_used & (q->num - 1)];
	id = e->id;
	len = e->len;
	if (id >= q->num || !q->slots[id].cookie)
		return -EPROTO;
	__atomic_store_n(&q->last_used, (uint16_t)(q->last_used + 1), __ATOMIC_RELAXED);
	*ret_cookie = q->slots[id].cookie;
	*ret_len = MIN(len, q->slots[id].writable);
	free_chain(q, (uint16_t)id);
	return 1;
}

bool virtq_driver_arm(struct virtq_driver *q)
{
	if (q->event_idx)
		__atomic_exchange_n(used_event(q->avail, q->num), q->last_used, __ATOMIC_SEQ_CST);
	else
		__atomic_exchange_n(&q->avail->flags, 0, __ATOMIC_SEQ_CST);
	return load16(&q->used->idx, __ATOMIC_SEQ_CST) != q->last_used;
}

void virtq_driver_disarm(struct virtq_driver *q)
{
	if (q->event_idx)
		store16(used_event(q->avail, q->num), (uint16_t)(q->last_used - 1 - 0x4000),
			__ATOMIC_RELAXED);
	else
		store16(&q->avail->flags, VRING_AVAIL_F_NO_INTERRUPT, __ATOMIC_RELAXED);
}

void *virtq_driver_abandon(struct virtq_driver *q)
{
	for (unsigned i = 0; i < q->num; i++) {
		void *cookie = q->slots[i].cookie;

		if (cookie) {
			free_chain(q, (uint16_t)i);
			return cookie;
		}
	}
	return NULL;
}

/* ---- the device ---- */

void *virtq_memory_at(const struct virtq_memory *mem, uint64_t addr, uint64_t size)
{
	for (unsigned i = 0; i < mem->count; i++) {
		const struct virtq_region *r = &mem->regions[i];

		if (addr >= r->addr && size <= r->size && addr - r->addr <= r->size - size)
			return r->host + (addr - r->addr);
	}
	return NULL;
}

void virtq_device_init(struct virtq_device *q, unsigned num, bool event_idx, bool indirect,
		       void *desc, void *avail, void *used, uint16_t base)
{
	*q = (struct virtq_device){
		.num = num,
		.event_idx = event_idx,
		.indirect = indirect,
		.desc = desc,
		.avail = avail,
		.used = used,
		.last_avail = base,
		.used_idx = base,
		.called_idx = base,
	};
}

/* One descriptor's buffer onto the chain. */
static int chain_add(struct virtq_chain *c, const struct virtq_memory *mem,
		     const struct vring_desc *d)
{
	unsigned at = c->out_count + c->in_count;
	void *host;

	if (at == VIRTQ_CHAIN_MAX || !d->len)
		return -EPROTO;
	host = virtq_memory_at(mem, d->addr, d->len);
	if (!host)
		return -EPROTO;
	c->iov[at] = (struct iovec){host, d->len};
	if (d->flags & VRING_DESC_F_WRITE) {
		c->in_count++;
		c->in_size += d->len;
	} else if (c->in_count) {
		return -EPROTO;
	} else {
		c->out_count++;
		c->out_size += d->len;
	}
	return 0;
}

/* Follows a chain in a table of `count` descriptors from `at`. depth: an indirect table may hold none itself. */
static int follow(struct virtq_device *q, const struct virtq_memory *mem, struct virtq_chain *c,
		  const struct vring_desc *table, unsigned count, unsigned at, bool nested)
{
	/* A chain that is longer than its table is a loop. */
	for (unsigned steps = 0; steps < count; steps++) {
		struct vring_desc d;
		int err;

		if (at >= count)
			return -EPROTO;
		/* One copy: the driver may write it again meanwhile. */
		d = *(const volatile struct vring_desc *)&table[at];
		if (d.flags & VRING_DESC_F_INDIRECT) {
			const struct vring_desc *inner;
			unsigned inner_count = d.len / sizeof(*inner);

			if (!q->indirect || nested || (d.flags & VRING_DESC_F_NEXT) ||
			    !inner_count || inner_count > VIRTQ_CHAIN_MAX || d.len % sizeof(*inner))
				return -EPROTO;
			inner = virtq_memory_at(mem, d.addr, d.len);
			return inner ? follow(q, mem, c, inner, inner_count, 0, true) : -EPROTO;
		}
		err = chain_add(c, mem, &d);
		if (err)
			return err;
		if (!(d.flags & VRING_DESC_F_NEXT))
			return 0;
		at = d.next;
	}
	return -EPROTO;
}

int virtq_device_pop(struct virtq_device *q, const struct virtq_memory *mem,
		     struct virtq_chain *ret)
{
	uint16_t idx = load16(&q->avail->idx, __ATOMIC_ACQUIRE), pending, head;
	int err;

	pending = (uint16_t)(idx - q->last_avail);
	if (!pending)
		return 0;
	if (pending > q->num)
		return -EPROTO;
	head = load16(&q->avail->ring[q->last_avail & (q->num - 1)], __ATOMIC_RELAXED);
	if (head >= q->num)
		return -EPROTO;
	q->last_avail++;
	ret->head = head;
	ret->out_count = ret->in_count = 0;
	ret->out_size = ret->in_size = 0;
	err = follow(q, mem, ret, q->desc, q->num, head, false);
	if (err)
		return err;
	ret->out = ret->iov;
	ret->in = ret->iov + ret->out_count;
	return 1;
}

void virtq_device_push(struct virtq_device *q, uint16_t head, uint32_t len)
{
	volatile struct vring_used_elem *e = &q->used->ring[q->used_idx & (q->num - 1)];

	e->id = head;
	e->len = len;
	q->used_idx++;
	__atomic_store_n(&q->used->idx, q->used_idx, __ATOMIC_RELEASE);
}

bool virtq_device_should_call(struct virtq_device *q)
{
	uint16_t old = q->called_idx;

	if (old == q->used_idx)
		return false;
	/* Again, for its order before the look at what the driver asked for: a fence that TSan understands. */
	__atomic_exchange_n(&q->used->idx, q->used_idx, __ATOMIC_SEQ_CST);
	q->called_idx = q->used_idx;
	if (q->event_idx)
		return event_passed(load16(used_event(q->avail, q->num), __ATOMIC_SEQ_CST),
				    q->used_idx, old);
	return !(load16(&q->avail->flags, __ATOMIC_SEQ_CST) & VRING_AVAIL_F_NO_INTERRUPT);
}

bool virtq_device_arm(struct virtq_device *q)
{
	if (q->event_idx)
		__atomic_exchange_n(avail_event(q->used, q->num), q->last_avail, __ATOMIC_SEQ_CST);
	else
		__atomic_exchange_n(&q->used->flags, 0, __ATOMIC_SEQ_CST);
	return load16(&q->avail->idx, __ATOMIC_SEQ_CST) != q->last_avail;
}

void virtq_device_disarm(struct virtq_device *q)
{
	if (q->event_idx)
		store16(avail_event(q->used, q->num), (uint16_t)(q->last_avail - 1 - 0x4000),
			__ATOMIC_RELAXED);
	else
		store16(&q->used->flags, VRING_USED_F_NO_NOTIFY, __ATOMIC_RELAXED);
}
