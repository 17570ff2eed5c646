// LINK: moat_memfs moat_vfs moat_mem
/* memfs: what an empty file costs, and that a large directory is looked up in constant and listed in linear time. */
#include "tests/unit/check.h"

#include <malloc.h>
#include <time.h>

#include "tests/unit/memfs_env.h"

#if !defined(MOAT_DEBUG) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define EXACT 1
#endif

#ifdef EXACT
#define FILES 1000000
#else
#define FILES 100000
#endif
#define FILE_BYTES_MAX 320

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void create(const char *dir, int count)
{
	char path[64];

	for (int i = 0; i < count; i++) {
		struct vfs_lookup lk = at(path);

		snprintf(path, sizeof(path), "%s/file%07d", dir, i);
		assert_int_equal(vfs_mknod(&lk, &(struct mknod_args){.mode = S_IFREG | 0644}), 0);
	}
}

static double stat_time(const char *path)
{
	struct vfs_lookup lk = at(path);
	struct moat_statx st;
	double best = 1;

	for (int run = 0; run < 20; run++) {
		double start = seconds();

		for (int i = 0; i < 1000; i++)
			assert_int_equal(vfs_stat(&lk, &(struct stat_args){0}, &st), 0);
		best = MIN(best, seconds() - start);
	}
	return best;
}

struct counter {
	struct dir_emit ctx;
	int count, room;
};

static bool count_emit(struct dir_emit *ctx, const char *name, size_t len, uint64_t ino,
		       unsigned type, int64_t next)
{
	struct counter *c = (struct counter *)ctx;

	(void)name, (void)len, (void)ino, (void)type, (void)next;
	if (!c->room)
		return false;
	c->room--;
	c->count++;
	return true;
}

static double list_time(const char *path, int expect)
{
	struct counter c = {.ctx.emit = count_emit};
	struct vfs_lookup lk = at(path);
	double start = seconds();
	struct file *f;

	assert_int_equal(vfs_open(&lk, &(struct open_args){.flags = O_RDONLY | O_DIRECTORY}, &f),
			 0);
	do {
		c.room = 100;
		assert_int_equal(file_iterate(f, &c.ctx), 0);
	} while (c.room < 100);
	file_unref(f);
	assert_int_equal(c.count, expect + 2);
	return seconds() - start;
}

static void test_cost(void **state)
{
	struct vfs_lookup lk = at("/small");
	struct mallinfo2 before, after;
	double small, large;
	size_t each;

	(void)state;
	assert_int_equal(vfs_mkdir(&lk, &(struct mkdir_args){.mode = 0755}), 0);
	lk = at("/large");
	assert_int_equal(vfs_mkdir(&lk, &(struct mkdir_args){.mode = 0755}), 0);
	create("/small", 100);
	rcu_drain();
	before = mallinfo2();
	create("/large", FILES);
	rcu_drain();
	after = mallinfo2();
	each = (after.uordblks + after.hblkhd - before.uordblks - before.hblkhd) / FILES;
	print_message("an empty file costs %zu bytes\n", each);
#ifdef EXACT
	assert_true(each <= FILE_BYTES_MAX);
#else
	(void)each;
#endif
	/* A thousand times the entries: a lookup may miss caches, but not grow with them. */
	small = stat_time("/small/file0000050");
	large = stat_time("/large/file0050000");
	assert_true(large < small * 10);
	small = list_time("/small", 100);
	large = list_time("/large", FILES);
	print_message("listing: %.0f ns an entry of 100, %.0f of %d\n", small / 100 * 1e9,
		      large / FILES * 1e9, FILES);
	/* In proportion, but for the caches. */
	assert_true(large / FILES < small / 100 * 20 + 2e-6);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_cost)};

	if (memfs_env_init())
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
