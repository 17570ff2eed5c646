// LINK: moat_wire
/* Both sides of a split virtqueue against each other, and a driver or device that breaks the rules. */
#include "tests/unit/check.h"

#include <pthread.h>
#include <stdlib.h>

#include "wire/virtqueue.h"

#define NUM 16
#define GUEST 0x100000ull
#define AREA 4096
#define DATA_BYTES 65536

struct fixture {
	_Alignas(4096) uint8_t area[AREA];
	uint8_t data[DATA_BYTES];
	struct virtq_driver_slot slots[NUM];
	struct virtq_driver driver;
	struct virtq_device device;
	struct virtq_region region;
	struct virtq_memory mem;
};
static struct fixture fx;

static void setup(bool event_idx)
{
	struct virtq_layout at;

	memset(&fx, 0, sizeof(fx));
	virtq_layout(NUM, &at);
	assert_true(at.size <= AREA);
	virtq_driver_init(&fx.driver, NUM, event_idx, fx.area, fx.slots);
	virtq_device_init(&fx.device, NUM, event_idx, true, fx.area + at.desc, fx.area + at.avail,
			  fx.area + at.used, 0);
	fx.region = (struct virtq_region){GUEST, DATA_BYTES, fx.data};
	fx.mem = (struct virtq_memory){&fx.region, 1};
}

static struct virtq_buf buf_at(size_t off, uint32_t size)
{
	return (struct virtq_buf){GUEST + off, size};
}

static void round_trip(bool indirect)
{
	struct vring_desc *table = indirect ? (void *)(fx.data + 60000 / 16 * 16) : NULL;
	uint64_t table_addr = GUEST + 60000 / 16 * 16;
	struct virtq_buf out[2] = {buf_at(0, 8), buf_at(100, 4)}, in[1] = {buf_at(200, 16)};
	static struct virtq_chain c;
	int cookie;
	void *got;
	uint32_t len;

	memcpy(fx.data, "request!", 8);
	assert_int_equal(virtq_driver_add(&fx.driver, out, 2, in, 1, table, table_addr, &cookie),
			 0);
	assert_int_equal(virtq_device_pop(&fx.device, &fx.mem, &c), 0);
	assert_true(virtq_driver_publish(&fx.driver));
	assert_int_equal(virtq_device_pop(&fx.device, &fx.mem, &c), 1);
	assert_int_equal(c.out_count, 2);
	assert_int_equal(c.in_count, 1);
	assert_int_equal(c.out_size, 12);
	assert_memory_equal(c.out[0].iov_base, "request!", 8);
	memcpy(c.in[0].iov_base, "answer", 6);
	virtq_device_push(&fx.device, c.head, 6);
	assert_true(virtq_device_should_call(&fx.device));
	assert_int_equal(virtq_driver_take(&fx.driver, &got, &len), 1);
	assert_ptr_equal(got, &cookie);
	assert_int_equal(len, 6);
	assert_memory_equal(fx.data + 200, "answer", 6);
	assert_int_equal(virtq_driver_take(&fx.driver, &got, &len), 0);
	assert_int_equal(fx.driver.free_count, NUM);
}

static void test_round_trips(void **state)
{
	(void)state;
	for (int event_idx = 0; event_idx < 2; event_idx++) {
		setup(event_idx);
		/* Past the wrap of the 16-bit indices. */
		for (unsigned i = 0; i < 70000; i++) {
			round_trip(i & 1);
			(void)virtq_driver_arm(&fx.driver);
			(void)virtq_device_arm(&fx.device);
		}
	}
}

static void test_full(void **state)
{
	struct virtq_buf b = buf_at(0, 8);
	int cookies[NUM];
	unsigned n;

	(void)state;
	setup(true);
	for (n = 0; n < NUM; n++)
		assert_int_equal(virtq_driver_add(&fx.driver, &b, 1, NULL, 0, NULL, 0, &cookies[n]),
				 0);
	assert_int_equal(virtq_driver_add(&fx.driver, &b, 1, NULL, 0, NULL, 0, &cookies[0]),
			 -ENOSPC);
	while (virtq_driver_abandon(&fx.driver))
		n--;
	assert_int_equal(n, 0);
	assert_int_equal(fx.driver.free_count, NUM);
}

static void test_hostile_device(void **state)
{
	struct virtq_buf b = buf_at(0, 8);
	uint32_t len;
	void *got;
	int cookie;

	(void)state;
	/* An id that is not in flight, one out of range, more completions than requests. */
	for (int what = 0; what < 3; what++) {
		setup(false);
		assert_int_equal(virtq_driver_add(&fx.driver, NULL, 0, &b, 1, NULL, 0, &cookie), 0);
		(void)virtq_driver_publish(&fx.driver);
		fx.driver.used->ring[0].id = what == 0 ? 5 : what == 1 ? 1000 : 0;
		fx.driver.used->idx = what == 2 ? NUM + 1 : 1;
		assert_int_equal(virtq_driver_take(&fx.driver, &got, &len), -EPROTO);
	}
	/* A length beyond what was offered is cut. */
	setup(false);
	assert_int_equal(virtq_driver_add(&fx.driver, NULL, 0, &b, 1, NULL, 0, &cookie), 0);
	fx.driver.used->ring[0].len = 4000;
	fx.driver.used->idx = 1;
	assert_int_equal(virtq_driver_take(&fx.driver, &got, &len), 1);
	assert_int_equal(len, 8);
}

static void hostile_chain(struct vring_desc first, struct vring_desc second)
{
	static struct virtq_chain c;
	struct vring_desc *desc;

	setup(false);
	desc = fx.driver.desc;
	desc[0] = first;
	desc[1] = second;
	fx.driver.avail->ring[0] = 0;
	fx.driver.avail->idx = 1;
	assert_int_equal(virtq_device_pop(&fx.device, &fx.mem, &c), -EPROTO);
}

static void test_hostile_driver(void **state)
{
	const struct vring_desc good = {GUEST, 8, 0, 0}, next = {GUEST, 8, VRING_DESC_F_NEXT, 1};

	(void)state;
	hostile_chain((struct vring_desc){GUEST - 1, 8, 0, 0}, good);
	hostile_chain((struct vring_desc){GUEST, DATA_BYTES + 1, 0, 0}, good);
	hostile_chain((struct vring_desc){UINT64_MAX - 3, 8, 0, 0}, good);
	hostile_chain((struct vring_desc){GUEST, 0, 0, 0}, good);
	hostile_chain(next, (struct vring_desc){GUEST, 8, VRING_DESC_F_NEXT, 0}); /* a loop */
	hostile_chain(next, (struct vring_desc){GUEST, 8, VRING_DESC_F_NEXT, NUM});
	hostile_chain((struct vring_desc){GUEST, 8, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 1},
		      good); /* read after written */
	hostile_chain((struct vring_desc){GUEST, 24, VRING_DESC_F_INDIRECT, 0}, good);
	/* An indirect table in an indirect table. */
	setup(false);
	*(struct vring_desc *)fx.data = (struct vring_desc){GUEST, 16, VRING_DESC_F_INDIRECT, 0};
	fx.driver.desc[0] = (struct vring_desc){GUEST, 16, VRING_DESC_F_INDIRECT, 0};
	fx.driver.avail->idx = 1;
	{
		static struct virtq_chain c;

		assert_int_equal(virtq_device_pop(&fx.device, &fx.mem, &c), -EPROTO);
	}
}

/* ---- two threads ---- */

#define TRIPS 200000

static void *device_thread(void *arg)
{
	static struct virtq_chain c;
	unsigned done = 0;

	(void)arg;
	while (done < TRIPS) {
		int got = virtq_device_pop(&fx.device, &fx.mem, &c);

		if (got == 0) {
			sched_yield();
			continue;
		}
		if (got < 0)
			abort();
		memcpy(c.in[0].iov_base, c.out[0].iov_base, 4);
		virtq_device_push(&fx.device, c.head, 4);
		done++;
	}
	return NULL;
}

static void test_threads(void **state)
{
	unsigned sent = 0, got = 0;
	pthread_t t;

	(void)state;
	setup(true);
	assert_int_equal(pthread_create(&t, NULL, device_thread, NULL), 0);
	while (got < TRIPS) {
		uint32_t len, back;
		void *cookie;

		while (sent < TRIPS && sent - got < NUM / 2) {
			/* A place of its own for each in flight; the cookie says which. */
			size_t at = (sent % (NUM / 2)) * 64;
			struct virtq_buf out = buf_at(at, 4), in = buf_at(at + 32, 4);

			if (fx.data[at + 63])
				break;
			memcpy(fx.data + at, &sent, 4);
			fx.data[at + 63] = 1;
			assert_int_equal(virtq_driver_add(&fx.driver, &out, 1, &in, 1, NULL, 0,
							  fx.data + at),
					 0);
			sent++;
		}
		(void)virtq_driver_publish(&fx.driver);
		switch (virtq_driver_take(&fx.driver, &cookie, &len)) {
		case 1:
			memcpy(&back, (uint8_t *)cookie + 32, 4);
			assert_memory_equal(&back, cookie, 4);
			((uint8_t *)cookie)[63] = 0;
			got++;
			break;
		case 0:
			sched_yield();
			break;
		default:
			fail();
		}
	}
	pthread_join(t, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trips),    cmocka_unit_test(test_full),
		cmocka_unit_test(test_hostile_device), cmocka_unit_test(test_hostile_driver),
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
