/*
 * The virtio-fs daemon is killed and another one started: meanwhile EIO, soon, and never a hang; afterwards what was open is as it was, if its
 * inode still has its name.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#include <cmocka.h>

#include "base/log.h"
#include "mem/guard.h"
#include "tests/fs/backend_virtiofs.h"
#include "tests/fs/env.h"

#define KILLS 3
#define BACK_SECONDS_MAX 120 /* a loaded machine starts daemons slowly */
#define CALL_SECONDS_MAX \
	100.0 /* a hang, and nothing else: a call may wait while another daemon is started */

static struct fs_env e;

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Calls until one succeeds; those that do not give EIO. */
static void wait_until_back(struct file *f)
{
	double began = now();

	for (;;) {
		double at = now();
		/* Not from any cache. */
		int got = file_fsync(f, false, 0, UINT64_MAX);

		assert_true(now() - at < CALL_SECONDS_MAX);
		if (!got)
			return;
		assert_int_equal(got, -EIO);
		assert_true(now() - began < BACK_SECONDS_MAX);
		usleep(2000);
	}
}

static void read_host(const char *name, char *buf, size_t size)
{
	char path[256];
	FILE *f;
	size_t n;

	snprintf(path, sizeof(path), "%s/%s", backend_virtiofs_dir(), name);
	f = fopen(path, "re");
	assert_non_null(f);
	n = fread(buf, 1, size - 1, f);
	buf[n] = '\0';
	fclose(f);
}

#define RANGE (2ul << 20) /* of a DAX window */

/* A file of some ranges, of which one is in use (mapped, with DAX) before each kill and another after it. */
static void check_ranges(struct file *f, unsigned turn, bool after)
{
	char text[32], buf[32];

	for (unsigned i = 0; i < 2; i++) {
		uint64_t off = (turn + (after ? 2 - i : 0)) * RANGE + 4096 * i;
		int size = snprintf(text, sizeof(text), "range %u %u %d", turn, i, after);

		assert_int_equal(fs_pwrite(f, text, (size_t)size, (int64_t)off), size);
		assert_int_equal(fs_pread(f, buf, (size_t)size, (int64_t)off), size);
		assert_memory_equal(buf, text, (size_t)size);
	}
}

/* What the host does is seen by the very next look, as before. */
static void check_versions(void)
{
	struct moat_statx st;
	char path[256];

	if (!getenv("VIRTIOFS_OPTIONS") || !strstr(getenv("VIRTIOFS_OPTIONS"), "strict"))
		return;
	snprintf(path, sizeof(path), "%s/f", backend_virtiofs_dir());
	for (mode_t mode = 0600; mode < 0604; mode++) {
		assert_int_equal(chmod(path, mode), 0);
		assert_int_equal(fs_stat(&e, "/f", &st), 0);
		assert_int_equal(st.mode & 07777, mode);
	}
}

static void test_restart(void **state)
{
	struct file *f, *gone, *dir, *deep, *ranges;
	struct moat_statx st, again;
	char buf[200], text[32];

	(void)state;
	backend_virtiofs_reconnects = true;
	assert_int_equal(fs_env_init(&e), 0);
	assert_int_equal(fs_mkdir(&e, "/a", 0755), 0);
	assert_int_equal(fs_mkdir(&e, "/a/b", 0755), 0);
	assert_int_equal(fs_creat(&e, "/a/b/x", 0644), 0);
	assert_int_equal(fs_chdir(&e, "/a/b"), 0);
	assert_int_equal(fs_open(&e, "/f", O_CREAT | O_RDWR, 0644, &f), 0);
	assert_int_equal(fs_open(&e, "/a/b/deep", O_CREAT | O_RDWR, 0644, &deep), 0);
	assert_int_equal(fs_open(&e, "/gone", O_CREAT | O_RDWR, 0644, &gone), 0);
	assert_int_equal(fs_unlink(&e, "/gone"), 0);
	assert_int_equal(fs_open(&e, "/a", O_RDONLY | O_DIRECTORY, 0, &dir), 0);
	assert_int_equal(fs_stat(&e, "/f", &st), 0);
	assert_int_equal(fs_open(&e, "/ranges", O_CREAT | O_RDWR, 0644, &ranges), 0);
	assert_int_equal(file_truncate(ranges, (KILLS + 3) * RANGE), 0);
	for (unsigned i = 0; i < KILLS; i++) {
		int size = snprintf(text, sizeof(text), "before kill %u", i);

		/* With writeback it is only here when the daemon dies. */
		assert_int_equal(fs_pwrite(f, text, (size_t)size, 0), size);
		check_ranges(ranges, i, false);
		backend_virtiofs_kill();
		wait_until_back(f);
		assert_int_equal(fs_pread(f, buf, sizeof(buf), 0), size);
		assert_memory_equal(buf, text, (size_t)size);
		assert_int_equal(file_fsync(f, false, 0, UINT64_MAX), 0);
		read_host("f", buf, sizeof(buf));
		assert_string_equal(buf, text);
		assert_int_equal(fs_stat(&e, "/f", &again), 0);
		assert_int_equal(again.ino, st.ino);
		/* A file far down, a directory, the working directory. */
		assert_int_equal(fs_pwrite(deep, "deep", 4, 4 * i), 4);
		assert_int_equal(file_fsync(deep, false, 0, UINT64_MAX), 0);
		assert_int_equal(fs_stat(&e, "x", &again), 0);
		assert_int_equal(fs_stat(&e, "../b/deep", &again), 0);
		assert_int_equal(again.size, 4 * (i + 1));
		assert_int_equal(fs_creat(&e, "new", 0644), 0);
		assert_int_equal(fs_unlink(&e, "new"), 0);
		check_ranges(ranges, i, true);
		check_versions();
		/* What has no name cannot be found again. */
		assert_int_equal(fs_pwrite(gone, "x", 1, 0) < 0 ||
					 file_fsync(gone, false, 0, UINT64_MAX) < 0,
				 1);
	}
	assert_int_equal(fs_list_file(dir, buf, sizeof(buf)), 1);
	assert_string_equal(buf, "b\n");
	fs_close(f);
	fs_close(deep);
	fs_close(ranges);
	fs_close(gone);
	fs_close(dir);
	fs_env_fini(&e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_restart)};

	log_init(-1, LOG_ERROR_LEVEL, "test");
	if (fs_env_process_init() || guard_install())
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
