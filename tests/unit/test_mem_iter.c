// LINK: moat_mem
/* I/O iterators over kernel buffers and over windows; the reverse map. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "base/rcu.h"
#include "mem/guard.h"
#include "mem/io_iter.h"
#include "mem/mappable.h"

static void test_kernel(void **state)
{
	char buf[100], out[100];
	struct io_iter it;
	struct iovec iov[4];

	(void)state;
	assert_int_equal(guard_install(), 0); /* cmocka's own handlers come per test */
	memset(buf, 0, sizeof(buf));
	io_iter_init_kernel(&it, buf, 100, true);
	assert_int_equal(io_iter_put(&it, "hello", 5), 5);
	assert_int_equal(it.remaining, 95);
	assert_int_equal(io_iter_zero(&it, 5), 5);
	assert_int_equal(io_iter_window(&it, 1000, iov, 4), 1);
	assert_ptr_equal(iov[0].iov_base, buf + 10);
	assert_int_equal(iov[0].iov_len, 90);
	io_iter_advance(&it, 80);
	assert_int_equal(io_iter_put(&it, "0123456789abcdef", 16), 10);
	assert_int_equal(it.error, 0);
	assert_memory_equal(buf + 90, "0123456789", 10);
	assert_int_equal(io_iter_window(&it, 1000, iov, 4), 0);
	io_iter_revert(&it, 100);
	io_iter_truncate(&it, 7);
	assert_int_equal(io_iter_get(&it, out, 100), 7);
	assert_memory_equal(out, "hello\0", 7);
	io_iter_fini(&it);
	io_iter_init_kernel(&it, (void *)4096, 10, false);
	assert_int_equal(io_iter_get(&it, out, 5), 0);
	assert_int_equal(it.error, -EFAULT);
	io_iter_fini(&it);
}

/* A source of windows of 7 bytes in two segments over a text of 100; byte 60 on is bad. */
static char text[100];
static unsigned released;

static int win_fill(struct io_iter *it)
{
	if (it->consumed >= 60)
		return -EFAULT;
	it->segs[0] = (struct iovec){text + it->consumed, MIN(3ul, 60 - it->consumed)};
	it->segs[1] = (struct iovec){text + it->consumed + 3, 4};
	it->nsegs = 2;
	it->cur = 0;
	it->seg_off = 0;
	if (it->consumed + 7 > 60)
		it->segs[1].iov_len = it->consumed + 3 < 60 ? 60 - it->consumed - 3 : 0;
	return 0;
}

static void win_release(struct io_iter *it)
{
	(void)it;
	released++;
}

static void win_seek(struct io_iter *it, uint64_t consumed)
{
	(void)consumed;
	it->nsegs = 0;
	it->cur = 0;
	it->seg_off = 0;
}

static const struct io_iter_ops win_ops = {
	.fill = win_fill,
	.release = win_release,
	.seek = win_seek,
};

static void test_windows(void **state)
{
	struct io_iter it = {.ops = &win_ops, .remaining = 100};
	struct iovec iov[4];
	char out[100];
	unsigned i;

	(void)state;
	for (i = 0; i < 100; i++)
		text[i] = (char)i;
	assert_int_equal(io_iter_window(&it, 5, iov, 4), 2);
	assert_int_equal(iov[1].iov_len, 2);
	assert_int_equal(io_iter_get(&it, out, 20), 20);
	assert_memory_equal(out, text, 20);
	io_iter_revert(&it, 15);
	assert_int_equal(io_iter_get(&it, out, 20), 20);
	assert_memory_equal(out, text + 5, 20);
	io_iter_advance(&it, 20);
	assert_int_equal(io_iter_get(&it, out, 100), 15);
	assert_memory_equal(out, text + 45, 15);
	assert_int_equal(it.error, -EFAULT);
	assert_int_equal(io_iter_window(&it, 5, iov, 4), -EFAULT);
	io_iter_fini(&it);
	assert_int_equal(released, 1);
}

struct inval_log {
	struct mapping_space space;
	uint64_t addr, size;
	bool private_too;
	unsigned calls;
};

static void log_invalidate(struct mapping_space *space, uint64_t addr, uint64_t size,
			   bool private_too)
{
	struct inval_log *log = container_of(space, struct inval_log, space);

	log->addr = addr;
	log->size = size;
	log->private_too = private_too;
	log->calls++;
}

static const struct mapping_space_ops log_ops = {.invalidate = log_invalidate};

static void test_mappable(void **state)
{
	static const struct mappable_ops ops;
	struct mappable m;
	struct inval_log log = {.space.ops = &log_ops};
	struct mapping a = {.space = &log.space, .addr = 0x10000, .size = 0x4000, .off = 0x2000};
	struct mapping w = a;

	(void)state;
	w.writable_shared = true;
	mappable_init(&m, &ops);
	assert_false(mappable_is_mapped(&m));
	assert_int_equal(mappable_add(&m, &a), 0);
	assert_true(mappable_is_mapped(&m));
	rwlock_write_lock(&m.data_lock);
	mappable_invalidate(&m, 0, 0x2000, true);
	assert_int_equal(log.calls, 0);
	mappable_invalidate(&m, 0x3000, UINT64_MAX, true);
	assert_int_equal(log.calls, 1);
	assert_int_equal(log.addr, 0x11000);
	assert_int_equal(log.size, 0x3000);
	assert_true(log.private_too);
	mappable_invalidate(&m, 0x1000, 0x2000, false);
	assert_int_equal(log.addr, 0x10000);
	assert_int_equal(log.size, 0x1000);
	mappable_invalidate(&m, 0x6000, 0x2000, false);
	assert_int_equal(log.calls, 2);
	rwlock_write_unlock(&m.data_lock);
	assert_int_equal(mappable_add(&m, &w), 0);
	assert_int_equal(m.writable_mappings, 1);
	mappable_remove(&m, &w);
	m.writable_mappings = -1;
	assert_int_equal(mappable_add(&m, &w), -EPERM);
	mappable_remove(&m, &a);
	assert_false(mappable_is_mapped(&m));
	mappable_fini(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kernel),
		cmocka_unit_test(test_windows),
		cmocka_unit_test(test_mappable),
	};

	rcu_thread_begin();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
