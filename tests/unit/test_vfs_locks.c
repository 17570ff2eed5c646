// LINK: moat_vfs moat_mem
/* Advisory locks: ranges against a byte-by-byte model, owners, flock, waiting, deadlock. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/rcu.h"
#include "vfs/locks.h"

static uint64_t fake_key(struct dentry *d)
{
	return (uint64_t)(uintptr_t)d;
}

static const struct filesystem_ops fake_ops = {.inode_key = fake_key};
static struct filesystem fake_fs = {.ops = &fake_ops};
static struct dentry inode_a = {.fs = &fake_fs}, inode_b = {.fs = &fake_fs};
static struct file file_a = {.path.dentry = &inode_a}, file_a2 = {.path.dentry = &inode_a},
		   file_b = {.path.dentry = &inode_b};

static int set(struct file *f, const void *owner, short type, uint64_t start, uint64_t end)
{
	struct file_lock req = {.kind = FILE_LOCK_POSIX,
				.type = type,
				.start = start,
				.end = end,
				.owner = owner,
				.pid = 1};

	return file_lock_set(f, &req, false);
}

static short test_at(struct file *f, const void *owner, short type, uint64_t at)
{
	struct file_lock req = {.kind = FILE_LOCK_POSIX,
				.type = type,
				.start = at,
				.end = at,
				.owner = owner},
			 got;

	assert_int_equal(file_lock_test(f, &req, &got), 0);
	return got.type;
}

#define OWNERS 3
#define BYTES 24

/* Random requests; after each, what a stranger sees of every byte must match a model. */
static void test_model(void **state)
{
	static const short types[] = {F_RDLCK, F_WRLCK, F_UNLCK};
	short model[OWNERS][BYTES];
	int owners[OWNERS], stranger;
	unsigned seed = 42;

	(void)state;
	memset(model, F_UNLCK, sizeof(model));
	for (int o = 0; o < OWNERS; o++)
		for (int i = 0; i < BYTES; i++)
			model[o][i] = F_UNLCK;
	for (int step = 0; step < 20000; step++) {
		int o = (int)(rand_r(&seed) % OWNERS), s = (int)(rand_r(&seed) % BYTES);
		int e = s + (int)(rand_r(&seed) % (unsigned)(BYTES - s));
		short type = types[rand_r(&seed) % 3];
		bool clash = false;

		for (int i = s; i <= e && type != F_UNLCK; i++)
			for (int p = 0; p < OWNERS; p++)
				clash |= p != o && (model[p][i] == F_WRLCK ||
						    (model[p][i] == F_RDLCK && type == F_WRLCK));
		assert_int_equal(set(&file_a, &owners[o], type, (uint64_t)s, (uint64_t)e),
				 clash ? -EAGAIN : 0);
		for (int i = s; i <= e && !clash; i++)
			model[o][i] = type;
		for (int i = 0; i < BYTES; i++) {
			short want = F_UNLCK;

			for (int p = 0; p < OWNERS; p++)
				if (model[p][i] != F_UNLCK)
					want = model[p][i];
			assert_int_equal(test_at(&file_a, &stranger, F_WRLCK, (uint64_t)i), want);
		}
		assert_int_equal(test_at(&file_b, &stranger, F_WRLCK, 0), F_UNLCK);
	}
	for (int o = 0; o < OWNERS; o++)
		file_locks_close(&file_a, &owners[o]);
	assert_int_equal(test_at(&file_a, &stranger, F_WRLCK, 0), F_UNLCK);
}

static void test_kinds(void **state)
{
	struct file_lock fl = {
		.kind = FILE_LOCK_FLOCK, .type = F_WRLCK, .end = INT64_MAX, .owner = &file_a};
	struct file_lock ofd = {.kind = FILE_LOCK_OFD, .type = F_WRLCK, .end = 9, .owner = &file_a};
	int me;

	(void)state;
	assert_int_equal(file_lock_set(&file_a, &fl, false), 0);
	/* flock and record locks are strangers to each other */
	assert_int_equal(set(&file_a, &me, F_WRLCK, 0, 5), 0);
	/* OFD and POSIX are not */
	assert_int_equal(file_lock_set(&file_a, &ofd, false), -EAGAIN);
	assert_int_equal(set(&file_a, &me, F_UNLCK, 0, INT64_MAX), 0);
	assert_int_equal(file_lock_set(&file_a, &ofd, false), 0);
	assert_int_equal(set(&file_a, &me, F_RDLCK, 9, 9), -EAGAIN);
	fl.owner = &file_a2;
	fl.type = F_RDLCK;
	assert_int_equal(file_lock_set(&file_a2, &fl, false), -EAGAIN);
	file_locks_gone(&file_a);
	assert_int_equal(file_lock_set(&file_a2, &fl, false), 0);
	assert_int_equal(set(&file_a, &me, F_WRLCK, 9, 9), 0);
	file_locks_close(&file_a2, &me);
	file_locks_gone(&file_a2);
}

/* /proc/locks: locks, and who waits for one. */
static void count_shown(unsigned *ret_locks, unsigned *ret_lines, unsigned *ret_waiters)
{
	unsigned lines = 0, waiters = 0;
	struct buf b;

	*ret_locks = 0;
	buf_init(&b, 8 << 20);
	file_locks_show(&b, ret_locks);
	for (size_t i = 0; i < b.len; i++) {
		lines += b.data[i] == '\n';
		waiters += b.data[i] == '>';
	}
	buf_fini(&b);
	*ret_lines = lines;
	*ret_waiters = waiters;
}

/* If they do not it is ctest that ends the test. */
static void until_waiting(unsigned count)
{
	unsigned locks, lines, waiters = 0;

	while (waiters < count) {
		usleep(10000);
		count_shown(&locks, &lines, &waiters);
	}
}

static int owner1, owner2;
static _Atomic int result2 = 1;

static void *waiter_thread(void *arg)
{
	struct file_lock req = {.kind = FILE_LOCK_POSIX,
				.type = F_WRLCK,
				.start = 0,
				.end = 0,
				.owner = &owner2,
				.pid = 2};

	(void)arg;
	rcu_thread_begin();
	result2 = file_lock_set(&file_a, &req, true);
	rcu_thread_end();
	return NULL;
}

static void test_wait_and_deadlock(void **state)
{
	struct file_lock req = {
		.kind = FILE_LOCK_POSIX, .type = F_WRLCK, .start = 1, .end = 1, .owner = &owner1};
	pthread_t th;

	(void)state;
	assert_int_equal(set(&file_a, &owner1, F_WRLCK, 0, 0), 0);
	assert_int_equal(set(&file_a, &owner2, F_WRLCK, 1, 1), 0);
	assert_int_equal(pthread_create(&th, NULL, waiter_thread, NULL), 0);
	until_waiting(1);
	assert_int_equal(result2, 1);
	assert_int_equal(file_lock_set(&file_a, &req, true), -EDEADLK);
	assert_int_equal(set(&file_a, &owner1, F_UNLCK, 0, 0), 0);
	pthread_join(th, NULL);
	assert_int_equal(result2, 0);
	file_locks_close(&file_a, &owner2);
	assert_int_equal(test_at(&file_a, &owner1, F_WRLCK, 0), F_UNLCK);
}

#define MANY 10000
#define SLEEPERS 100

static void *sleeper_thread(void *owner)
{
	struct file_lock req = {.kind = FILE_LOCK_POSIX,
				.type = F_RDLCK,
				.end = 2 * MANY,
				.owner = owner,
				.pid = 2};

	rcu_thread_begin();
	assert_int_equal(file_lock_set(&file_a, &req, true), 0);
	file_locks_close(&file_a, owner);
	rcu_thread_end();
	return NULL;
}

/* /proc/locks of a file with many locks, for all of which many wait: in time, and each waits for one. */
static void test_show_many(void **state)
{
	static int owners[SLEEPERS];
	pthread_t threads[SLEEPERS];
	unsigned locks, lines, waiters;

	(void)state;
	for (uint64_t i = 0; i < MANY; i++)
		assert_int_equal(set(&file_a, &owner1, F_WRLCK, 2 * i, 2 * i), 0);
	for (int i = 0; i < SLEEPERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, sleeper_thread, &owners[i]), 0);
	alarm(20);
	until_waiting(SLEEPERS);
	alarm(0);
	count_shown(&locks, &lines, &waiters);
	assert_int_equal(locks, MANY);
	assert_int_equal(lines, MANY + SLEEPERS);
	file_locks_close(&file_a, &owner1);
	for (int i = 0; i < SLEEPERS; i++)
		pthread_join(threads[i], NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_model),
		cmocka_unit_test(test_kinds),
		cmocka_unit_test(test_wait_and_deadlock),
		cmocka_unit_test(test_show_many),
	};

	rcu_thread_begin();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
