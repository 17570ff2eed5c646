// LINK: moat_mm moat_mem
/* The mm over a fake platform: mappings of files, in memory and of the host, that shrink under it. */
#include "tests/unit/mm_fixture.h"

static void file_tests(struct tfile *t, uint64_t size)
{
	struct mm *mm = new_mm(), *kid;
	uint64_t p = map_file(mm, t, 0, size, 3, false);
	uint64_t s = map_file(mm, t, 0, size, 3, true);
	uint64_t pages = size / PAGE, i;
	char c;

	for (i = 0; i < pages; i++)
		assert_int_equal(load(mm, p + i * PAGE + 1), tfile_byte(i * PAGE));
	store(mm, p + 3 * PAGE, 100);
	assert_int_equal(load(mm, s + 3 * PAGE), tfile_byte(3 * PAGE));
	store(mm, s + 40 * PAGE, 101);
	/* Not copied yet: a private mapping still follows the file. */
	assert_int_equal(load(mm, p + 40 * PAGE), 101);
	check_mm(mm);
	assert_int_equal(mm_fork(mm, &kid), 0);
	store(kid, p + 3 * PAGE, 102);
	assert_int_equal(load(mm, p + 3 * PAGE), 100);
	store(kid, s + 41 * PAGE, 103);
	assert_int_equal(load(mm, s + 41 * PAGE), 103);
	check_mm(kid);
	/* DONTNEED: back to the file. */
	assert_int_equal(mm_advise(mm, p, size, MADV_DONTNEED), 0);
	assert_int_equal(load(mm, p + 3 * PAGE), tfile_byte(3 * PAGE));
	assert_int_equal(load(kid, p + 3 * PAGE), 102);
	/* Splits keep offsets. */
	assert_int_equal(mm_unmap(mm, p + 7 * PAGE, PAGE), 0);
	assert_int_equal(mm_unmap(mm, s + 7 * PAGE, PAGE), 0);
	assert_int_equal(load(mm, p + 9 * PAGE), tfile_byte(9 * PAGE));
	assert_int_equal(load(mm, s + 8 * PAGE), tfile_byte(8 * PAGE));
	check_mm(mm);
	assert_int_equal(app_load(mm, p + 7 * PAGE, &c), SIGSEGV);
	mm_unref(mm);
	check_mm(kid);
	mm_unref(kid);
}

static void test_file_private_memory(void **state)
{
	struct tfile t;

	(void)state;
	tfile_init(&t, 100 * PAGE);
	t.need_populate = true;
	file_tests(&t, 100 * PAGE);
	assert_int_equal(t.populates, 1);
	tfile_fini(&t);
	tfile_init(&t, 100 * PAGE);
	t.write_tracked = true;
	file_tests(&t, 100 * PAGE);
	assert_true(t.writes > 0);
	tfile_fini(&t);
}

static void host_tfile(struct tfile *t, uint64_t size, int *ret_fd)
{
	char page[PAGE];
	uint64_t i;
	int fd = memfd_create("t", 0);

	tfile_init(t, 0);
	t->size = size;
	for (i = 0; i < size; i += PAGE) {
		memset(page, tfile_byte(i), PAGE);
		assert_int_equal(pwrite(fd, page, PAGE, (off_t)i), PAGE);
	}
	assert_int_equal(memfile_create_host(fd, MEM_READ | MEM_WRITE, &t->host), 0);
	*ret_fd = fd;
}

static void test_file_host(void **state)
{
	struct tfile t;
	int fd;

	(void)state;
	host_tfile(&t, 100 * PAGE, &fd);
	file_tests(&t, 100 * PAGE);
	tfile_fini(&t);
}

static void test_truncate(void **state)
{
	struct mm *mm = new_mm();
	struct tfile t;
	uint64_t p, s;
	char c, buf[3 * PAGE];

	(void)state;
	tfile_init(&t, 64 * PAGE);
	p = map_file(mm, &t, 0, 64 * PAGE, 3, false);
	s = map_file(mm, &t, 0, 64 * PAGE, 3, true);
	store(mm, p + 30 * PAGE, 9);
	store(mm, p + 3 * PAGE, 9);
	store(mm, s + 31 * PAGE, 9);
	tfile_truncate(&t, 20 * PAGE, 0);
	check_mm(mm);
	assert_int_equal(app_load(mm, p + 30 * PAGE, &c), SIGBUS);
	assert_int_equal(app_load(mm, s + 31 * PAGE, &c), SIGBUS);
	assert_int_equal(app_store(mm, p + 20 * PAGE, 1), SIGBUS);
	assert_int_equal(load(mm, p + 3 * PAGE), 9);
	assert_int_equal(mm_copy_in_partial(mm, buf, s + 18 * PAGE, sizeof(buf)), 2 * PAGE);
	assert_int_equal(mm_copy_in(mm, buf, s + 20 * PAGE, 1), -EFAULT);
	tfile_truncate(&t, 20 * PAGE, 64 * PAGE);
	assert_int_equal(load(mm, p + 30 * PAGE), 0);
	assert_int_equal(load(mm, s + 31 * PAGE), 0);
	check_mm(mm);
	mm_unref(mm);
	tfile_fini(&t);
}

/* A host file that shrinks behind our back. */
static void test_host_shrinks(void **state)
{
	struct mm *mm = new_mm();
	struct tfile t;
	uint64_t p, s;
	char c, buf[64];
	int fd;

	(void)state;
	host_tfile(&t, 64 * PAGE, &fd);
	p = map_file(mm, &t, 0, 64 * PAGE, 3, false);
	s = map_file(mm, &t, 0, 64 * PAGE, 3, true);
	assert_int_equal(load(mm, s + 2 * PAGE), tfile_byte(2 * PAGE));
	store(mm, p + 50 * PAGE, 3);
	assert_int_equal(ftruncate(fd, 30 * PAGE), 0);
	assert_int_equal(app_load(mm, s + 40 * PAGE, &c), SIGBUS);
	assert_int_equal(app_store(mm, p + 40 * PAGE, 1), SIGBUS);
	assert_int_equal(mm_copy_in(mm, buf, s + 40 * PAGE, 64), -EFAULT);
	assert_int_equal(mm_copy_in_partial(mm, buf, s + 30 * PAGE - 10, 64), 10);
	/* Copied before: ours. */
	assert_int_equal(load(mm, p + 50 * PAGE), 3);
	store(mm, p + 29 * PAGE, 1);
	check_mm(mm);
	mm_unref(mm);
	tfile_fini(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		MM_TEST(test_file_private_memory),
		MM_TEST(test_file_host),
		MM_TEST(test_truncate),
		MM_TEST(test_host_shrinks),
	};

	MM_TESTS_RUN(tests);
}
