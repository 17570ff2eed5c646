// LINK: moat_mem
/* Memory files: allocation, counts, reuse after a grace period, host segments, guards. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/rcu.h"
#include "mem/guard.h"
#include "mem/memfile.h"

#define LIMIT (64ul << 20)

static struct mem_stats stats(void)
{
	struct mem_stats s;

	mem_get_stats(&s);
	return s;
}

static uint64_t alloc(uint64_t size, uint64_t near)
{
	uint64_t off;

	assert_int_equal(memfile_alloc(mem_private(), size, 0, near, &off), 0);
	return off;
}

static void test_alloc_zeroed_and_near(void **state)
{
	uint64_t a = alloc(4096, 0), b = alloc(3 * MEM_CHUNK_SIZE, a + MEM_CHUNK_SIZE);
	char *p = memfile_ptr(mem_private(), a);
	unsigned i;

	(void)state;
	assert_int_not_equal(a, 0);
	assert_int_equal(b, a + MEM_CHUNK_SIZE);
	assert_int_equal(stats().private_bytes, 4 * MEM_CHUNK_SIZE);
	for (i = 0; i < MEM_CHUNK_SIZE; i++)
		assert_int_equal(p[i], 0);
	memset(p, 0x5a, 4 * MEM_CHUNK_SIZE);
	assert_true(memfile_range_exclusive(mem_private(), a, 4 * MEM_CHUNK_SIZE));
	assert_int_equal(memfile_range_ref(mem_private(), b + 5, 1), 0);
	assert_false(memfile_range_exclusive(mem_private(), a, 4 * MEM_CHUNK_SIZE));
	assert_true(memfile_range_exclusive(mem_private(), b + MEM_CHUNK_SIZE, 1));
	memfile_range_unref(mem_private(), b, 1);
	memfile_decommit(mem_private(), a + 4096, 4096);
	assert_int_equal(p[4096], 0);
	assert_int_equal(p[8191], 0);
	assert_int_equal(p[4095], 0x5a);
	assert_int_equal(p[8192], 0x5a);
	memfile_range_unref(mem_private(), a, 4 * MEM_CHUNK_SIZE);
	assert_int_equal(stats().private_bytes, 0);
	rcu_drain();
	rcu_drain();
	assert_int_equal(stats().private_free_pending, 0);
	a = alloc(4 * MEM_CHUNK_SIZE, 0);
	p = memfile_ptr(mem_private(), a);
	for (i = 0; i < 4 * MEM_CHUNK_SIZE; i++)
		assert_int_equal(p[i], 0);
	memfile_range_unref(mem_private(), a, 4 * MEM_CHUNK_SIZE);
	rcu_drain();
}

static void test_no_reuse_inside_read_section(void **state)
{
	uint64_t a = alloc(MEM_CHUNK_SIZE, 0), b;
	char *p = memfile_ptr(mem_private(), a);

	(void)state;
	p[7] = 42;
	rcu_read_begin();
	memfile_range_unref(mem_private(), a, MEM_CHUNK_SIZE);
	b = alloc(MEM_CHUNK_SIZE, a);
	usleep(50000);
	assert_int_not_equal(a, b);
	assert_int_equal(p[7], 42);
	rcu_read_end();
	memfile_range_unref(mem_private(), b, MEM_CHUNK_SIZE);
	rcu_drain();
	rcu_drain();
	assert_int_equal(p[7], 0);
}

static void test_limit(void **state)
{
	uint64_t a = alloc(LIMIT, 0), b;

	(void)state;
	assert_int_equal(memfile_alloc(mem_private(), 1, 0, 0, &b), -ENOMEM);
	memfile_range_unref(mem_private(), a, MEM_CHUNK_SIZE);
	b = alloc(1, 0);
	memfile_range_unref(mem_private(), a + MEM_CHUNK_SIZE, LIMIT - MEM_CHUNK_SIZE);
	memfile_range_unref(mem_private(), b, 1);
	assert_int_equal(memfile_alloc(mem_private(), 0, 0, 0, &b), -ENOMEM);
	assert_int_equal(memfile_alloc(mem_private(), UINT64_MAX, 0, 0, &b), -ENOMEM);
	assert_int_equal(memfile_alloc(mem_private(), MEMFILE_PRIVATE_MAX, 0, 0, &b), -ENOMEM);
	rcu_drain();
}

static void test_align_2m(void **state)
{
	uint64_t a = alloc(1, 0), b;

	(void)state;
	assert_int_equal(memfile_alloc(mem_private(), 2ul << 20, MEMFILE_ALLOC_ALIGN_2M, 0, &b), 0);
	assert_int_equal(b & ((2ul << 20) - 1), 0);
	memfile_range_unref(mem_private(), a, 1);
	memfile_range_unref(mem_private(), b, 2ul << 20);
	rcu_drain();
}

/* Random allocations with a shadow owner array: no overlap, all given back, holes are refilled. */
static void test_random(void **state)
{
	enum { SLOTS = 200, STEPS = 20000 };
	static struct {
		uint64_t off, size;
	} slot[SLOTS];
	static uint16_t owner[LIMIT / MEM_CHUNK_SIZE * 8];
	unsigned i, k;

	(void)state;
	srand(7);
	for (i = 0; i < STEPS; i++) {
		unsigned n = rand() % SLOTS;

		if (slot[n].size) {
			for (k = 0; k < slot[n].size; k++) {
				assert_int_equal(owner[slot[n].off + k], n + 1);
				owner[slot[n].off + k] = 0;
			}
			memfile_range_unref(mem_private(), slot[n].off << MEM_CHUNK_SHIFT,
					    slot[n].size << MEM_CHUNK_SHIFT);
			slot[n].size = 0;
		} else {
			uint64_t size = 1 + rand() % 9, off;

			if (memfile_alloc(mem_private(), size << MEM_CHUNK_SHIFT, 0,
					  (uint64_t)(rand() % 500) << MEM_CHUNK_SHIFT, &off))
				continue;
			slot[n].off = off >> MEM_CHUNK_SHIFT;
			slot[n].size = size;
			for (k = 0; k < size; k++) {
				assert_in_range(slot[n].off + k, 1, ARRAY_SIZE(owner) - 1);
				assert_int_equal(owner[slot[n].off + k], 0);
				owner[slot[n].off + k] = (uint16_t)(n + 1);
			}
		}
		if (i % 1000 == 0)
			rcu_drain();
	}
	for (i = 0; i < SLOTS; i++)
		if (slot[i].size)
			memfile_range_unref(mem_private(), slot[i].off << MEM_CHUNK_SHIFT,
					    slot[i].size << MEM_CHUNK_SHIFT);
	rcu_drain();
	rcu_drain();
	assert_int_equal(stats().private_bytes, 0);
	assert_int_equal(stats().private_free_pending, 0);
}

static void *churn(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg, i;

	rcu_thread_begin();
	for (i = 0; i < 3000; i++) {
		uint64_t off, size = (1 + (uint64_t)rand_r(&seed) % 4) << MEM_CHUNK_SHIFT, j;
		char *p;

		if (memfile_alloc(mem_private(), size, 0, 0, &off))
			continue;
		p = memfile_ptr(mem_private(), off);
		for (j = 0; j < size; j += 4096) {
			if (p[j])
				abort();
			p[j] = 1;
		}
		if (memfile_range_ref(mem_private(), off, size))
			abort();
		memfile_range_unref(mem_private(), off, size);
		memfile_range_unref(mem_private(), off, size);
	}
	rcu_thread_end();
	return NULL;
}

static void test_threads(void **state)
{
	pthread_t t[4];
	unsigned i;

	(void)state;
	for (i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&t[i], NULL, churn, (void *)(uintptr_t)(i + 1)), 0);
	for (i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	rcu_drain();
	rcu_drain();
	assert_int_equal(stats().private_bytes, 0);
	assert_int_equal(stats().private_free_pending, 0);
}

static int host_file(uint64_t size)
{
	int fd = memfd_create("host", 0);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	return fd;
}

static void test_host_segments(void **state)
{
	uint64_t size = (5ul << 20) + 123, off;
	int fd = host_file(size);
	struct memfile *mf;
	char *p;

	(void)state;
	for (off = 0; off < size; off += 4096)
		assert_int_equal(pwrite(fd, &off, sizeof(off), (off_t)off), sizeof(off));
	assert_int_equal(memfile_create_host(fd, MEM_READ | MEM_WRITE, &mf), 0);
	assert_int_equal(memfile_kind(mf), MEMFILE_HOST);
	assert_null(memfile_ptr(mf, 0));
	assert_int_equal(memfile_range_ref(mf, 3ul << 20, 4096), 0);
	/* The whole 2 MiB span came with it, but only that. */
	assert_int_equal(memfile_ptr_len(mf, 2ul << 20, 1ul << 30), 2ul << 20);
	assert_null(memfile_ptr(mf, (2ul << 20) - 1));
	assert_int_equal(memfile_range_ref(mf, 0, size), 0);
	for (off = 0; off < size; off += 4096) {
		p = memfile_ptr(mf, off);
		assert_memory_equal(p, &off, sizeof(off));
		assert_true((uint64_t)(p - (char *)mem_window_base()) < MEM_WINDOW_SIZE);
	}
	/* The last segment ends with the file's last chunk; growing it makes another. */
	assert_int_equal(memfile_ptr_len(mf, 4ul << 20, 1ul << 30), (1ul << 20) + MEM_CHUNK_SIZE);
	assert_int_equal(ftruncate(fd, 8l << 20), 0);
	assert_int_equal(memfile_range_ref(mf, 7ul << 20, 4096), 0);
	p = memfile_ptr(mf, 7ul << 20);
	p[0] = 9;
	assert_int_equal(pread(fd, &off, 1, 7l << 20), 1);
	assert_int_equal((char)off, 9);
	memfile_range_unref(mf, 7ul << 20, 4096);
	memfile_range_unref(mf, 0, size);
	assert_non_null(memfile_ptr(mf, 3ul << 20));
	memfile_range_unref(mf, 3ul << 20, 4096);
	assert_true(stats().window_bytes > 0);
	assert_int_equal(memfile_range_ref(mf, UINT64_MAX - 4096, 4096), -ENOMEM);
	memfile_unref(mf);
	rcu_drain();
	rcu_drain();
	assert_int_equal(stats().window_bytes, 0);
}

/* A reference on a range keeps the file, after its owner let go. */
static void test_host_outlives_owner(void **state)
{
	int fd = host_file(4096);
	struct memfile *mf;
	char *p;

	(void)state;
	assert_int_equal(memfile_create_host(fd, MEM_READ, &mf), 0);
	assert_int_equal(memfile_range_ref(mf, 0, 4096), 0);
	p = memfile_ptr(mf, 0);
	memfile_unref(mf);
	assert_int_equal(p[0], 0);
	assert_ptr_equal(memfile_ptr(mf, 0), p);
	memfile_range_unref(mf, 0, 4096);
	rcu_drain();
	rcu_drain();
	assert_int_equal(stats().window_bytes, 0);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
}

/* Many files: idle segments are bounded. */
static void test_host_idle_lru(void **state)
{
	enum { FILES = 300 };
	static struct memfile *mf[FILES];
	unsigned i;

	(void)state;
	for (i = 0; i < FILES; i++) {
		assert_int_equal(memfile_create_host(host_file(3 * 65536), MEM_READ, &mf[i]), 0);
		assert_int_equal(memfile_range_ref(mf[i], 65536, 65536), 0);
		memfile_range_unref(mf[i], 65536, 65536);
	}
	assert_int_equal(stats().window_bytes, FILES * 3 * 65536);
	for (i = 0; i < FILES; i++)
		memfile_unref(mf[i]);
	rcu_drain();
	rcu_drain();
	assert_int_equal(stats().window_bytes, 0);
}

static bool is_mapped_in(const void *p)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry;

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &entry, sizeof(entry), (off_t)((uintptr_t)p / 4096 * 8)), 8);
	close(fd);
	return entry >> 63;
}

/* What the window shows goes, of referenced and of idle segments, and comes back with what was written; where there is too much of it nothing goes. */
static void test_window_unmap(void **state)
{
	enum { MANY = 1100 };
	static struct memfile *mf[MANY];
	char *used, *idle;

	(void)state;
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(
			memfile_create_host(host_file(65536), MEM_READ | MEM_WRITE, &mf[i]), 0);
	assert_int_equal(memfile_range_ref(mf[0], 0, 4096), 0);
	assert_int_equal(memfile_range_ref(mf[1], 0, 4096), 0);
	used = memfile_ptr(mf[0], 0);
	idle = memfile_ptr(mf[1], 0);
	memset(used, 'u', 8192);
	memset(idle, 'i', 8192);
	memfile_range_unref(mf[1], 0, 4096);
	assert_true(is_mapped_in(used) && is_mapped_in(idle));
	mem_window_unmap();
	assert_false(is_mapped_in(used) || is_mapped_in(used + 4096) || is_mapped_in(idle));
	assert_int_equal(used[0] + used[8191], 2 * 'u');
	assert_int_equal(idle[0] + idle[8191], 2 * 'i');
	for (unsigned i = 2; i < MANY; i++) {
		assert_int_equal(memfile_create_host(host_file(4096), MEM_READ, &mf[i]), 0);
		assert_int_equal(memfile_range_ref(mf[i], 0, 4096), 0);
		memfile_range_unref(mf[i], 0, 4096);
	}
	mem_window_unmap();
	assert_true(is_mapped_in(used) && is_mapped_in(idle));
	memfile_range_unref(mf[0], 0, 4096);
	for (unsigned i = 0; i < MANY; i++)
		memfile_unref(mf[i]);
	rcu_drain();
	rcu_drain();
	assert_int_equal(stats().window_bytes, 0);
	mem_window_unmap();
}

static void test_guards(void **state)
{
	int fd = host_file(2 * 4096);
	char *p = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	char buf[3 * 4096];
	uint32_t u = 5, old;
	uint64_t v;
	size_t n;

	(void)state;
	assert_int_equal(guard_install(), 0); /* cmocka's own handlers come per test */
	assert_true(p != MAP_FAILED);
	for (n = 0; n < 300; n++) {
		memset(buf, (int)n + 1, sizeof(buf));
		memset(p, 0, 8192);
		assert_int_equal(guard_copy(p + 3, buf, n), 0);
		assert_memory_equal(p + 3, buf, n);
		assert_int_equal(p[3 + n], 0);
		assert_int_equal(p[2], 0);
		/* Into the hole: exactly the bytes before it are copied, both ways, at any alignment. */
		assert_int_equal(guard_copy(p + 8192 - n, buf, n + 17), 17);
		assert_memory_equal(p + 8192 - n, buf, n);
		assert_int_equal(guard_copy(buf, p + 8192 - n, n + 1), 1);
		assert_int_equal(guard_zero(p + 8192 - n, n + 9), 9);
	}
	assert_int_equal(guard_copy(buf, p, sizeof(buf)), 4096);
	assert_int_equal(guard_copy(buf, (void *)16, 10), 10);
	assert_int_equal(guard_load_u32(p + 8192, &u), -EFAULT);
	assert_int_equal(guard_load_u64(p + 8192, &v), -EFAULT);
	assert_int_equal(guard_cmpxchg_u32(p + 8192, &u, 1), -EFAULT);
	assert_int_equal(guard_xchg_u32(p + 8192, 1, &old), -EFAULT);
	assert_int_equal(guard_probe(p + 8192, false), -EFAULT);
	assert_int_equal(guard_probe(p + 8192, true), -EFAULT);
	assert_int_equal(guard_probe(p + 8191, false), 0);
	assert_int_equal(guard_probe(p + 8191, true), 0);
	*(uint32_t *)p = 77;
	u = 5;
	assert_int_equal(guard_cmpxchg_u32(p, &u, 1), -EAGAIN);
	assert_int_equal(u, 77);
	assert_int_equal(guard_cmpxchg_u32(p, &u, 1), 0);
	assert_int_equal(guard_load_u32(p, &u), 0);
	assert_int_equal(u, 1);
	assert_int_equal(guard_xchg_u32(p, 9, &old), 0);
	assert_int_equal(old, 1);
	*(uint64_t *)p = 0x123456789abcdef0;
	assert_int_equal(guard_load_u64(p, &v), 0);
	assert_true(v == 0x123456789abcdef0);
	munmap(p, 3 * 4096);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_alloc_zeroed_and_near),
		cmocka_unit_test(test_no_reuse_inside_read_section),
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_align_2m),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_host_segments),
		cmocka_unit_test(test_host_outlives_owner),
		cmocka_unit_test(test_host_idle_lru),
		cmocka_unit_test(test_window_unmap),
		cmocka_unit_test(test_guards),
	};

	rcu_thread_begin();
	if (mem_init(LIMIT))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
