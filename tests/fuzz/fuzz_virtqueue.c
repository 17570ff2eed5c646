// LINK: moat_wire
/*
 * Rings whose other side writes anything: neither side leaves its memory, loses a request, or believes a completion that was not asked for.
 * The input is what the hostile side writes into the rings between the honest side's steps.
 */
#include <stdlib.h>
#include <string.h>

#include "wire/vhost_user.h"
#include "wire/virtqueue.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NUM 8
#define AREA 1024
#define DATA_BYTES 4096
#define GUEST 0x10000u

static _Alignas(64) uint8_t memory[AREA + DATA_BYTES];

struct input {
	const uint8_t *at, *end;
};

static unsigned take(struct input *in)
{
	return in->at < in->end ? *in->at++ : 0;
}

/* Somewhere in the rings, something. */
static void scribble(struct input *in, size_t limit)
{
	unsigned count = take(in) % 8;

	while (count--) {
		size_t at = (take(in) | take(in) << 8) % limit;

		memory[at] = (uint8_t)take(in);
	}
}

static void fuzz_driver(struct input *in)
{
	static int cookies[NUM];
	struct virtq_driver_slot slots[NUM] = {0};
	struct virtq_driver q;
	unsigned flying = 0;

	memset(memory, 0, sizeof(memory));
	virtq_driver_init(&q, NUM, take(in) & 1, memory, slots);
	while (in->at < in->end) {
		struct virtq_buf out = {GUEST, 16}, back = {GUEST + 64, 32};
		uint32_t len;
		void *cookie;

		if (take(in) & 1) {
			if (!virtq_driver_add(&q, &out, 1, &back, 1, NULL, 0,
					      &cookies[flying % NUM]))
				flying++;
			(void)virtq_driver_publish(&q);
		}
		scribble(in, AREA);
		switch (virtq_driver_take(&q, &cookie, &len)) {
		case 1:
			if (!flying-- || !cookie || len > 32)
				abort();
			break;
		case 0:
			(void)virtq_driver_arm(&q);
			break;
		default:
			goto dead;
		}
	}
dead:
	while (virtq_driver_abandon(&q))
		flying--;
	if (flying)
		abort();
}

static void fuzz_device(struct input *in)
{
	const struct virtq_region region = {GUEST, DATA_BYTES, memory + AREA};
	const struct virtq_memory mem = {&region, 1};
	static struct virtq_chain c;
	struct virtq_layout layout;
	struct virtq_device q;

	memset(memory, 0, sizeof(memory));
	virtq_layout(NUM, &layout);
	virtq_device_init(&q, NUM, take(in) & 1, take(in) & 1, memory, memory + layout.avail,
			  memory + layout.used, 0);
	while (in->at < in->end) {
		int got;

		scribble(in, sizeof(memory));
		got = virtq_device_pop(&q, &mem, &c);
		if (got < 0)
			return;
		if (!got)
			continue;
		for (unsigned i = 0; i < c.out_count + c.in_count; i++) {
			uint8_t *p = c.iov[i].iov_base;

			if (p < memory + AREA || p + c.iov[i].iov_len > memory + sizeof(memory))
				abort();
		}
		virtq_device_push(&q, c.head, (uint32_t)c.in_size);
		(void)virtq_device_should_call(&q);
	}
}

static void fuzz_message(struct input *in)
{
	struct vhost_user_msg m;
	size_t n = MIN((size_t)(in->end - in->at), sizeof(m));

	memset(&m, 0, sizeof(m));
	memcpy(&m, in->at, n);
	if (vhost_user_check_request(&m, take(in) % 10, take(in) & 1) == 0 &&
	    m.size > VHOST_USER_PAYLOAD_MAX)
		abort();
	(void)!vhost_user_check_reply(&m, take(in), take(in) & 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, data + size};

	switch (take(&in) % 3) {
	case 0:
		fuzz_driver(&in);
		break;
	case 1:
		fuzz_device(&in);
		break;
	default:
		fuzz_message(&in);
	}
	return 0;
}
