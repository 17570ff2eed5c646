// LINK: moat_sentry moat_vfs moat_mem
/* Descriptor tables: lowest first, limits, reservation, close-on-exec, ranges, fork, sharing between threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/rcu.h"
#include "sentry/fdtable.h"

static _Atomic int live, flushed;

static void fake_release(struct file *f)
{
	file_free(f);
	atomic_fetch_sub(&live, 1);
}

static int fake_flush(struct file *f)
{
	(void)f;
	atomic_fetch_add(&flushed, 1);
	return 0;
}

static const struct file_ops fake_ops = {
	.name = "fake", .release = fake_release, .flush = fake_flush};

static struct file *fake_file(void)
{
	struct file *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	file_init(f, &fake_ops, &(struct vfs_path){0}, O_RDWR, 0);
	atomic_fetch_add(&live, 1);
	return f;
}

static struct fd_table *new_table(void)
{
	struct fd_table *t;

	assert_int_equal(fd_table_create(&t), 0);
	return t;
}

static int put(struct fd_table *t, int min, unsigned limit, bool cloexec)
{
	struct file *f = fake_file();
	int fd = fd_install(t, f, min, limit, cloexec);

	file_unref(f);
	return fd;
}

static bool is_open(struct fd_table *t, int fd)
{
	struct file *f = fd_get(t, fd);

	if (f)
		file_unref(f);
	return f;
}

static void test_lowest(void **state)
{
	struct fd_table *t = new_table();

	(void)state;
	for (int i = 0; i < 200; i++)
		assert_int_equal(put(t, 0, 1024, false), i);
	assert_int_equal(fd_close(t, 130), 0);
	assert_int_equal(fd_close(t, 7), 0);
	assert_int_equal(fd_close(t, 7), -EBADF);
	assert_int_equal(put(t, 100, 1024, false), 130);
	assert_int_equal(put(t, 0, 1024, false), 7);
	assert_int_equal(put(t, 0, 1024, false), 200);
	assert_int_equal(put(t, 300, 1024, false), 300);
	assert_int_equal(put(t, 0, 1024, false), 201);
	assert_int_equal(put(t, 0, 202, false), -EMFILE);
	assert_int_equal(put(t, 0, 0, false), -EMFILE);
	fd_table_unref(t);
	assert_int_equal(live, 0);
}

static void test_reserve(void **state)
{
	struct fd_table *t = new_table(), *child;
	struct file *f = fake_file();
	int fd;

	(void)state;
	fd = fd_reserve(t, 0, 10, true);
	assert_int_equal(fd, 0);
	assert_false(is_open(t, 0));
	assert_int_equal(fd_close(t, 0), -EBADF);
	assert_int_equal(fd_install_at(t, f, 0, 10, false), -EBUSY);
	assert_int_equal(put(t, 0, 10, false), 1);
	/* A reserved descriptor is not inherited. */
	assert_int_equal(fd_table_fork(t, &child, FD_TABLE_MAX), 0);
	assert_int_equal(put(child, 0, 10, false), 0);
	fd_table_unref(child);
	fd_commit(t, 0, f);
	assert_true(is_open(t, 0));
	fd = fd_reserve(t, 0, 10, false);
	assert_int_equal(fd, 2);
	fd_cancel(t, fd);
	assert_int_equal(put(t, 0, 10, false), 2);
	file_unref(f);
	fd_close_on_exec(t);
	assert_false(is_open(t, 0));
	assert_true(is_open(t, 1));
	fd_table_unref(t);
	assert_int_equal(live, 0);
}

static void test_replace(void **state)
{
	struct fd_table *t = new_table();
	struct file *f = fake_file();

	(void)state;
	assert_int_equal(put(t, 0, 1024, false), 0);
	flushed = 0;
	assert_int_equal(fd_install_at(t, f, 0, 1024, true), 0);
	assert_int_equal(flushed, 1);
	assert_int_equal(fd_install_at(t, f, 1000, 1024, false), 1000);
	assert_int_equal(fd_install_at(t, f, 1024, 1024, false), -EBADF);
	assert_int_equal(fd_install_at(t, f, -1, 1024, false), -EBADF);
	file_unref(f);
	assert_int_equal(live, 1);
	fd_close_on_exec(t);
	assert_false(is_open(t, 0));
	assert_true(is_open(t, 1000));
	assert_int_equal(fd_set_cloexec(t, 0, true), -EBADF);
	fd_table_unref(t);
	assert_int_equal(live, 0);
}

static void test_ranges(void **state)
{
	struct fd_table *t = new_table(), *child;
	struct file *f;
	int fd, n = 0;

	(void)state;
	for (int i = 0; i < 150; i++)
		put(t, 0, 1024, false);
	assert_int_equal(fd_close_range(t, 3, 99, false), 0);
	assert_false(is_open(t, 3) || is_open(t, 99));
	assert_true(is_open(t, 2) && is_open(t, 100));
	assert_int_equal(fd_close_range(t, 120, UINT32_MAX, true), 0);
	for (fd = 0; (fd = fd_next(t, fd, &f)) >= 0; fd++) {
		n++;
		file_unref(f);
	}
	assert_int_equal(n, 53);
	assert_int_equal(fd_table_fork(t, &child, 2), 0);
	assert_true(is_open(child, 1));
	assert_false(is_open(child, 2));
	assert_int_equal(put(child, 0, 1024, false), 2);
	fd_table_unref(child);
	fd_close_on_exec(t);
	assert_true(is_open(t, 119));
	assert_false(is_open(t, 120));
	assert_int_equal(fd_close_range(t, 0, UINT32_MAX, false), 0);
	assert_int_equal(put(t, 0, 1024, false), 0);
	fd_table_unref(t);
	assert_int_equal(live, 0);
}

static struct fd_table *shared;

static void *churn(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;

	rcu_thread_begin();
	for (int i = 0; i < 20000; i++) {
		int fd = (int)(rand_r(&seed) % 100);

		switch (rand_r(&seed) % 5) {
		case 4: {
			struct file *f = fake_file();

			(void)!fd_install_at(shared, f, fd, 200, false);
			file_unref(f);
			break;
		}
		case 0:
			put(shared, (int)(rand_r(&seed) % 50), 200, rand_r(&seed) & 1);
			break;
		case 1:
			(void)!fd_close(shared, fd);
			break;
		default:
			is_open(shared, fd);
		}
	}
	rcu_thread_end();
	return NULL;
}

static void test_threads(void **state)
{
	pthread_t th[4];

	(void)state;
	shared = new_table();
	for (int i = 0; i < 4; i++) {
		fd_table_ref(shared);
		assert_int_equal(pthread_create(&th[i], NULL, churn, (void *)(uintptr_t)(i + 1)),
				 0);
	}
	for (int i = 0; i < 4; i++) {
		pthread_join(th[i], NULL);
		fd_table_unref(shared);
	}
	assert_false(fd_table_shared(shared));
	fd_table_unref(shared);
	assert_int_equal(live, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lowest),	cmocka_unit_test(test_reserve),
		cmocka_unit_test(test_replace), cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_threads),
	};

	rcu_thread_begin();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
