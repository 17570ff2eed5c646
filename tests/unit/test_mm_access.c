// LINK: moat_mm moat_mem
/* The mm over a fake platform: copies to and from the application, strings, words, other processes, iterators. */
#include "tests/unit/mm_fixture.h"

static void test_copies(void **state)
{
	struct mm *mm = new_mm(), *kid;
	uint64_t a = anon(mm, 512 * PAGE, 3);
	static char buf[300 * PAGE], out[300 * PAGE];
	unsigned i;

	(void)state;
	for (i = 0; i < sizeof(buf); i++)
		buf[i] = (char)(i * 31);
	assert_int_equal(mm_copy_out(mm, a + 100, buf, sizeof(buf)), 0);
	assert_int_equal(mm_copy_in(mm, out, a + 100, sizeof(out)), 0);
	assert_memory_equal(buf, out, sizeof(buf));
	assert_int_equal(load(mm, a + 100 + 12345), buf[12345]);
	assert_int_equal(mm_fork(mm, &kid), 0);
	assert_int_equal(mm_zero_out(kid, a + 100 + 5000, 50000), 0);
	assert_int_equal(mm_copy_in(mm, out, a + 100, sizeof(out)), 0);
	assert_memory_equal(buf, out, sizeof(buf));
	assert_int_equal(mm_copy_in(kid, out, a + 100, sizeof(out)), 0);
	memset(buf + 5000, 0, 50000);
	assert_memory_equal(buf, out, sizeof(buf));
	check_mm(kid);
	mm_unref(kid);
	/* Ends. */
	assert_int_equal(mm_copy_out_partial(mm, a + 511 * PAGE, buf, 3 * PAGE), PAGE);
	assert_int_equal(mm_copy_out(mm, a + 511 * PAGE + 1, buf, PAGE), -EFAULT);
	assert_int_equal(mm_copy_in(mm, out, ARCH_TASK_SIZE, 1), -EFAULT);
	assert_int_equal(mm_copy_in(mm, out, UINT64_MAX - 3, 10), -EFAULT);
	assert_int_equal(mm_copy_in(mm, out, 0, 1), -EFAULT);
	assert_int_equal(mm_copy_in(mm, out, 0, 0), 0);
	assert_int_equal(protect(mm, a, PAGE, 1), 0);
	assert_int_equal(mm_copy_out(mm, a, buf, 1), -EFAULT);
	assert_int_equal(mm_copy_in(mm, out, a, 1), 0);
	mm_unref(mm);
}

static void test_strings(void **state)
{
	struct mm *mm = new_mm();
	uint64_t a = anon(mm, 2 * PAGE, 3), end = a + 2 * PAGE;
	char buf[100], big[2 * PAGE];
	unsigned i;

	(void)state;
	assert_int_equal(mm_copy_out(mm, end - 6, "hello", 6), 0);
	assert_int_equal(mm_copy_in_string(mm, buf, end - 6, sizeof(buf)), 5);
	assert_string_equal(buf, "hello");
	assert_int_equal(mm_copy_in_string(mm, buf, end - 6, 6), 5);
	assert_int_equal(mm_copy_in_string(mm, buf, end - 6, 5), -ENAMETOOLONG);
	assert_int_equal(mm_copy_out(mm, end - 6, "hello!", 6), 0);
	assert_int_equal(mm_copy_in_string(mm, buf, end - 6, sizeof(buf)), -EFAULT);
	memset(big, 'x', sizeof(big));
	big[2 * PAGE - 1] = 0;
	assert_int_equal(mm_copy_out(mm, a, big, sizeof(big)), 0);
	for (i = 0; i < 3; i++) {
		char got[2 * PAGE];

		assert_int_equal(mm_copy_in_string(mm, got, a + i * 777, sizeof(got)),
				 2 * PAGE - 1 - i * 777);
	}
	assert_int_equal(mm_copy_in_string(mm, buf, 1, sizeof(buf)), -EFAULT);
	mm_unref(mm);
}

static void test_words_and_futex(void **state)
{
	struct mm *mm = new_mm(), *kid;
	struct tfile t;
	uint64_t a = anon(mm, PAGE, 3), s, ro = anon(mm, PAGE, 1);
	struct futex_key k1, k2;
	uint32_t v = 7;

	(void)state;
	tfile_init(&t, 2 * PAGE);
	s = map_file(mm, &t, PAGE, PAGE, 3, true);
	assert_int_equal(mm_load_u32(mm, a, &v), 0);
	assert_int_equal(v, 0);
	assert_int_equal(mm_cmpxchg_u32(mm, a, &v, 5), 0);
	assert_int_equal(mm_cmpxchg_u32(mm, a, &v, 5), -EAGAIN);
	assert_int_equal(v, 5);
	assert_int_equal(mm_load_u32(mm, a + 2, &v), -EFAULT);
	assert_int_equal(mm_cmpxchg_u32(mm, ro, &v, 5), -EFAULT);
	assert_int_equal(mm_load_u32(mm, 0, &v), -EFAULT);
	assert_int_equal(mm_fork(mm, &kid), 0);
	assert_int_equal(mm_futex_key(mm, a + 8, false, false, &k1), 0);
	assert_ptr_equal(k1.mm, mm);
	assert_int_equal(k1.off, 8);
	assert_int_equal(mm_futex_key(kid, a + 8, true, false, &k2), 0);
	assert_int_not_equal(k1.a, k2.a);
	futex_key_fini(&k1);
	futex_key_fini(&k2);
	assert_int_equal(mm_futex_key(mm, s + 4, true, true, &k1), 0);
	assert_int_equal(mm_futex_key(kid, s + 4, true, true, &k2), 0);
	assert_int_equal(k1.a, k2.a);
	assert_int_equal(k1.b, k2.b);
	assert_int_equal(k1.b, PAGE);
	futex_key_fini(&k1);
	futex_key_fini(&k2);
	assert_int_equal(mm_futex_key(mm, ro, true, true, &k1), -EFAULT);
	assert_int_equal(mm_futex_key(mm, 4096, true, false, &k1), -EFAULT);
	mm_unref(kid);
	mm_unref(mm);
	tfile_fini(&t);
}

static void test_remote(void **state)
{
	struct mm *mm = new_mm(), *kid;
	struct tfile t;
	uint64_t a = anon(mm, 4 * PAGE, 3), text, s;
	char buf[16];

	(void)state;
	tfile_init(&t, 4 * PAGE);
	text = map_file(mm, &t, 0, 4 * PAGE, 5, false);
	s = map_file(mm, &t, 0, 4 * PAGE, 1, true);
	store(mm, a, 7);
	assert_int_equal(protect(mm, a, 4 * PAGE, 0), 0);
	assert_int_equal(mm_fork(mm, &kid), 0);
	assert_int_equal(mm_access_remote(mm, a, buf, 4, false), 4);
	assert_int_equal(buf[0], 7);
	assert_int_equal(mm_access_remote(mm, a, "bcd", 3, true), 3);
	assert_int_equal(mm_access_remote(kid, a, buf, 4, false), 4);
	assert_int_equal(buf[0], 7);
	/* A breakpoint: in this mm's copy only, and the application sees it. */
	assert_int_equal(load(mm, text + PAGE), tfile_byte(PAGE));
	assert_int_equal(mm_access_remote(mm, text + PAGE, "\xcc", 1, true), 1);
	assert_int_equal(load(mm, text + PAGE), (char)0xcc);
	assert_int_equal(load(kid, text + PAGE), tfile_byte(PAGE));
	assert_int_equal(load(mm, s + PAGE), tfile_byte(PAGE));
	assert_int_equal(app_store(mm, text + PAGE, 1), SIGSEGV);
	assert_int_equal(mm_access_remote(mm, s, "x", 1, true), 0);
	assert_int_equal(mm_access_remote(mm, 0, buf, 1, false), 0);
	check_mm(mm);
	check_mm(kid);
	mm_unref(kid);
	mm_unref(mm);
	tfile_fini(&t);
}

static void test_iter(void **state)
{
	struct mm *mm = new_mm(), *kid;
	uint64_t a = anon(mm, 4096 * PAGE, 3), hole = a + 100 * PAGE;
	struct iovec iov[3], one, win[4];
	struct io_iter it;
	static char big[1 << 20];
	unsigned i;
	int n;

	(void)state;
	assert_int_equal(mm_unmap(mm, hole, PAGE), 0);
	iov[0] = (struct iovec){(void *)(a + 10), 100};
	iov[1] = (struct iovec){(void *)(a + 5000), 0};
	iov[2] = (struct iovec){(void *)(hole - 50), 100};
	mm_iter_init(mm, &it, iov, 3, true);
	assert_int_equal(it.remaining, 200);
	memset(big, 'q', sizeof(big));
	assert_int_equal(io_iter_put(&it, big, 200), 150);
	assert_int_equal(it.error, -EFAULT);
	io_iter_fini(&it);
	assert_int_equal(load(mm, a + 10 + 99), 'q');
	assert_int_equal(load(mm, hole - 1), 'q');
	mm_iter_init_one(mm, &it, &one, a + 200 * PAGE, sizeof(big), true);
	for (i = 0; i < sizeof(big); i++)
		big[i] = (char)(i >> 8);
	assert_int_equal(io_iter_put(&it, big, sizeof(big)), sizeof(big));
	io_iter_revert(&it, sizeof(big) - 300);
	assert_int_equal(it.consumed, 300);
	n = io_iter_window(&it, 1000, win, 4);
	assert_true(n > 0);
	assert_int_equal(*(char *)win[0].iov_base, big[300]);
	/* A fork with the window pinned: the I/O's bytes are the parent's alone. */
	assert_int_equal(mm_fork(mm, &kid), 0);
	check_mm(kid);
	*(char *)win[0].iov_base = 'Z';
	store(mm, a + 200 * PAGE + 301, 'Y');
	assert_int_equal(load(mm, a + 200 * PAGE + 300), 'Z');
	assert_int_equal(load(kid, a + 200 * PAGE + 300), big[300]);
	assert_int_equal(load(kid, a + 200 * PAGE + 301), big[301]);
	io_iter_fini(&it);
	mm_unref(kid);
	check_mm(mm);
	/* Unmapped while pinned: no crash, no reuse. */
	mm_iter_init_one(mm, &it, &one, a + 200 * PAGE, 8 * PAGE, true);
	n = io_iter_window(&it, 8 * PAGE, win, 4);
	assert_true(n > 0);
	assert_int_equal(mm_unmap(mm, a, 4096 * PAGE), 0);
	assert_true(private_bytes() > 0);
	memset(win[0].iov_base, 1, win[0].iov_len);
	io_iter_fini(&it);
	mm_iter_init_one(mm, &it, &one, a, 10, false);
	assert_int_equal(io_iter_get(&it, big, 10), 0);
	assert_int_equal(it.error, -EFAULT);
	io_iter_fini(&it);
	mm_unref(mm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		MM_TEST(test_copies), MM_TEST(test_strings), MM_TEST(test_words_and_futex),
		MM_TEST(test_remote), MM_TEST(test_iter),
	};

	MM_TESTS_RUN(tests);
}
