// LINK: moat_mm moat_mem
/* Faults against unmap, protect, remap, fork, truncate and copies, all at once; then nothing may be left. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/sleep.h"
#include "tests/unit/fake_platform.h"
#include "tests/unit/mm_no_vfs.h"

#define PAGE 4096ul
#define WORKERS 3
#define REGION_PAGES 200ul
#define RUN_NS 2500000000l

struct file *file_ref(struct file *f)
{
	return f;
}

void file_unref(struct file *f)
{
	(void)f;
}

static struct mm *mm;
static struct tfile file;
static uint64_t region[WORKERS], file_private, file_shared, counters;
static _Atomic bool stop;
static _Atomic unsigned long ops_done;
static _Atomic unsigned forks;

#define CHECK(cond)                                                                \
	do {                                                                       \
		if (!(cond)) {                                                     \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond); \
			abort();                                                   \
		}                                                                  \
	} while (0)

/* Its region has a shadow; nobody else writes there. */
static void *worker(void *arg)
{
	unsigned id = (unsigned)(uintptr_t)arg, seed = id + 1, i;
	static char shadow[WORKERS][REGION_PAGES];
	uint64_t base = region[id];

	rcu_thread_begin();
	while (!stop) {
		unsigned p = (unsigned)rand_r(&seed) % REGION_PAGES,
			 what = (unsigned)rand_r(&seed) % 100;
		char c, buf[3];

		ops_done++;
		if (what < 40) {
			c = (char)rand_r(&seed);
			CHECK(!app_store(mm, base + p * PAGE, c));
			shadow[id][p] = c;
		} else if (what < 70) {
			CHECK(!app_load(mm, base + p * PAGE, &c));
			CHECK(c == shadow[id][p]);
		} else if (what < 80) {
			CHECK(!mm_copy_in(mm, buf, base + p * PAGE, 3));
			CHECK(buf[0] == shadow[id][p]);
		} else if (what < 90) {
			c = (char)rand_r(&seed);
			CHECK(!mm_copy_out(mm, base + p * PAGE, &c, 1));
			shadow[id][p] = c;
		} else if (what < 92) {
			CHECK(!mm_advise(mm, base + p * PAGE, PAGE, MADV_DONTNEED));
			shadow[id][p] = 0;
		} else if (what < 94) {
			CHECK(!mm_protect(mm, base + p * PAGE, PAGE, PROT_READ, false, &no_limits));
			CHECK(app_store(mm, base + p * PAGE, 1) == SIGSEGV);
			CHECK(!app_load(mm, base + p * PAGE, &c) && c == shadow[id][p]);
			CHECK(!mm_protect(mm, base + p * PAGE, PAGE, 3, false, &no_limits));
		} else if (what < 95) {
			uint64_t to;

			/* There and back again. */
			CHECK(!mm_remap(mm, base, REGION_PAGES * PAGE, REGION_PAGES * PAGE,
					MREMAP_MAYMOVE | MREMAP_FIXED,
					0x100000000 + id * 0x10000000ul, &no_limits, &to));
			CHECK(!app_load(mm, to + p * PAGE, &c) && c == shadow[id][p]);
			CHECK(!mm_remap(mm, to, REGION_PAGES * PAGE, REGION_PAGES * PAGE,
					MREMAP_MAYMOVE | MREMAP_FIXED, base, &no_limits, &to));
		} else {
			/* Of the file, only: no crash, no wrong signal, only bytes that it had. */
			uint64_t f = (p & 1 ? file_private : file_shared) + (p % 64) * PAGE;
			int sig = app_load(mm, f, &c);

			CHECK(sig == 0 || sig == SIGBUS);
			CHECK(sig || c == 0 || c == 77 || c == tfile_byte((p % 64) * PAGE));
			sig = app_store(mm, f, 77);
			CHECK(sig == 0 || sig == SIGBUS);
		}
		if (what == 50)
			for (i = 0; i < REGION_PAGES; i++)
				CHECK(!app_load(mm, base + i * PAGE, &c) && c == shadow[id][i]);
	}
	rcu_thread_end();
	return NULL;
}

/* Counts up in two words of different chunks, the first ahead of the second. */
static void *counter(void *arg)
{
	uint32_t n = 0;

	(void)arg;
	rcu_thread_begin();
	while (!stop) {
		n++;
		CHECK(!mm_copy_out(mm, counters, &n, 4));
		CHECK(!mm_copy_out(mm, counters + 100 * PAGE, &n, 4));
	}
	rcu_thread_end();
	return NULL;
}

/* A child sees one moment of the parent and does not change afterwards. */
static void *forker(void *arg)
{
	unsigned rounds = 0;

	(void)arg;
	rcu_thread_begin();
	while (!stop) {
		uint32_t a, b, again;
		struct mm *kid;

		CHECK(!mm_fork(mm, &kid));
		CHECK(!mm_copy_in(kid, &a, counters, 4));
		CHECK(!mm_copy_in(kid, &b, counters + 100 * PAGE, 4));
		CHECK(a == b || a == b + 1);
		if (rounds % 3 == 0)
			CHECK(!app_store(kid, counters + 4, 1));
		usleep(300);
		CHECK(!mm_copy_in(kid, &again, counters, 4));
		CHECK(again == a);
		if (rounds % 8 == 0)
			check_mm(kid);
		mm_unref(kid);
		forks = ++rounds;
	}
	rcu_thread_end();
	return NULL;
}

static void *truncator(void *arg)
{
	unsigned seed = 99;

	(void)arg;
	rcu_thread_begin();
	while (!stop) {
		unsigned pages = (unsigned)rand_r(&seed) % 64;

		tfile_truncate(&file, pages * PAGE, rand_r(&seed) % 2 ? 64 * PAGE : 0);
		if (file.size < 64 * PAGE)
			tfile_truncate(&file, file.size, 64 * PAGE);
		usleep(200);
	}
	rcu_thread_end();
	return NULL;
}

static void *mapper(void *arg)
{
	unsigned seed = 5;
	uint64_t addr[16] = {0};

	(void)arg;
	rcu_thread_begin();
	while (!stop) {
		unsigned i = (unsigned)rand_r(&seed) % 16;
		struct mm_map_args args = {.size = (1 + (unsigned)rand_r(&seed) % 40) * PAGE,
					   .prot = 3,
					   .max_prot = 7};

		if (rand_r(&seed) % 3 == 0)
			args.mappable = &file.m;
		args.shared = rand_r(&seed) % 2;
		if (addr[i])
			CHECK(!mm_unmap(mm, addr[i], 40 * PAGE));
		args.addr = 0x700000000000 + i * 64 * PAGE;
		args.fixed = true;
		CHECK(!mm_map(mm, &args, &no_limits, &addr[i]));
		if (!args.mappable)
			CHECK(!app_store(mm, addr[i] + args.size - 1, 3));
	}
	rcu_thread_end();
	return NULL;
}

/* Reads into guest memory through pins, while forks happen. */
static void *iterator(void *arg)
{
	static char buf[64 * PAGE], back[64 * PAGE];
	uint64_t base = counters + 200 * PAGE;
	unsigned seed = 17, i;

	(void)arg;
	rcu_thread_begin();
	while (!stop) {
		struct io_iter it;
		struct iovec one, win[8];
		size_t size = 1 + (size_t)rand_r(&seed) % sizeof(buf), done = 0;
		int n, k;

		for (i = 0; i < size; i += 64)
			buf[i] = (char)rand_r(&seed);
		mm_iter_init_one(mm, &it, &one, base + 7, size, true);
		while (done < size) {
			n = io_iter_window(&it, size - done, win, 8);
			CHECK(n > 0);
			for (k = 0; k < n; k++) {
				if (rand_r(&seed) % 4 == 0)
					usleep(100);
				memcpy(win[k].iov_base, buf + done, win[k].iov_len);
				done += win[k].iov_len;
				io_iter_advance(&it, win[k].iov_len);
				/* The application writes next to it: copy-on-write may move the page. */
				CHECK(!app_store(mm, base, (char)k));
			}
		}
		io_iter_fini(&it);
		CHECK(!mm_copy_in(mm, back, base + 7, size));
		CHECK(!memcmp(buf, back, size));
	}
	rcu_thread_end();
	return NULL;
}

static uint64_t anon(uint64_t pages)
{
	struct mm_map_args args = {.size = pages * PAGE, .prot = 3, .max_prot = 7};
	uint64_t addr;

	assert_int_equal(mm_map(mm, &args, &no_limits, &addr), 0);
	return addr;
}

static void test_everything_at_once(void **state)
{
	void *(*others[])(void *) = {counter, forker, truncator, mapper, iterator};
	struct mm_map_args args = {
		.size = 64 * PAGE, .prot = 3, .max_prot = 7, .mappable = &file.m};
	pthread_t t[WORKERS + ARRAY_SIZE(others)];
	unsigned i, n = 0;

	(void)state;
	assert_int_equal(guard_install(), 0);
	assert_int_equal(mm_create(&fake_platform, &mm), 0);
	tfile_init(&file, 64 * PAGE);
	for (i = 0; i < WORKERS; i++) {
		region[i] = anon(REGION_PAGES);
		/* Apart: a hole that mremap leaves must not merge with a neighbour's. */
		anon(1);
	}
	counters = anon(400);
	assert_int_equal(mm_map(mm, &args, &no_limits, &file_private), 0);
	args.shared = true;
	assert_int_equal(mm_map(mm, &args, &no_limits, &file_shared), 0);
	for (i = 0; i < WORKERS; i++)
		assert_int_equal(pthread_create(&t[n++], NULL, worker, (void *)(uintptr_t)i), 0);
	for (i = 0; i < ARRAY_SIZE(others); i++)
		assert_int_equal(pthread_create(&t[n++], NULL, others[i], NULL), 0);
	/* A slow machine takes longer until enough has happened; ctest ends the test. */
	for (int64_t ns = 0; ns < RUN_NS || forks <= 3; ns += RUN_NS / 50)
		usleep(RUN_NS / 50 / 1000);
	stop = true;
	for (i = 0; i < n; i++)
		pthread_join(t[i], NULL);
	check_mm(mm);
	print_message("%lu operations\n", (unsigned long)ops_done);
	mm_unref(mm);
	tfile_fini(&file);
	rcu_drain();
	assert_int_equal(private_bytes(), 0);
	assert_int_equal(fake_spaces, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_everything_at_once)};

	rcu_thread_begin();
	if (mem_init(1ul << 30))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
