// LINK: moat_memfs moat_vfs moat_mem
/* What threads keep of references hides nothing: a removed file goes, a mount is busy when it is used and only then, writers are counted wherever they end. */
#include "tests/unit/check.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mount.h>

#include "tests/unit/memfs_env.h"
#include "vfs/mount.h"
#include "vfs/ref_cache.h"

#define THREADS 4
#define ROUNDS 200
#define OPENS 400

static int open_at(const char *path, unsigned flags, struct file **ret)
{
	struct vfs_lookup lk = at(path);

	return vfs_open(&lk, &(struct open_args){.flags = flags, .mode = 0644}, ret);
}

static void make_file(const char *path)
{
	struct file *f;

	assert_int_equal(open_at(path, O_CREAT | O_WRONLY, &f), 0);
	file_unref(f);
}

static void mount_at(const char *path)
{
	struct vfs_lookup lk = at(path);

	assert_int_equal(vfs_mkdir(&lk, &(struct mkdir_args){.mode = 0755}), 0);
	assert_int_equal(vfs_mount_new(&lk, "tmpfs", "tmpfs", 0, NULL, NULL), 0);
}

static int umount_at(const char *path)
{
	struct vfs_lookup lk = at(path);

	return vfs_umount(&lk, 0);
}

struct opener {
	const char *path;
	pthread_barrier_t *start;
};

/* Opens and closes until the file is gone. */
static void *open_until_gone(void *arg)
{
	struct opener *o = arg;
	struct file *f;

	rcu_thread_begin();
	cred_set_current(cred);
	pthread_barrier_wait(o->start);
	while (!open_at(o->path, O_RDONLY, &f))
		file_unref(f);
	cred_set_current(NULL);
	rcu_thread_end();
	return NULL;
}

/* Opens and closes OPENS times. */
static void *open_some(void *arg)
{
	struct opener *o = arg;
	struct file *f;

	rcu_thread_begin();
	cred_set_current(cred);
	pthread_barrier_wait(o->start);
	for (int i = 0; i < OPENS; i++) {
		if (open_at(o->path, i % 2 ? O_RDWR : O_RDONLY, &f))
			abort();
		file_unref(f);
	}
	cred_set_current(NULL);
	rcu_thread_end();
	return NULL;
}

/* THREADS run fn on path; meanwhile() once they have begun. */
static void with_openers(const char *path, void *(*fn)(void *), void (*meanwhile)(const char *))
{
	pthread_barrier_t start;
	struct opener o = {.path = path, .start = &start};
	pthread_t t[THREADS];

	pthread_barrier_init(&start, NULL, THREADS + 1);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, fn, &o), 0);
	pthread_barrier_wait(&start);
	if (meanwhile)
		meanwhile(path);
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	pthread_barrier_destroy(&start);
}

static void unlink_soon(const char *path)
{
	struct vfs_lookup lk = at(path);
	struct file *f;

	for (int i = 0; i < 20; i++) {
		assert_int_equal(open_at(path, O_RDONLY, &f), 0);
		file_unref(f);
	}
	assert_int_equal(vfs_unlink(&lk), 0);
}

static void test_removed_file_goes(void **state)
{
	struct memfs_totals before, after;

	(void)state;
	memfs_get_totals(&before);
	for (int i = 0; i < ROUNDS; i++) {
		make_file("/file");
		with_openers("/file", open_until_gone, unlink_soon);
	}
	memfs_get_totals(&after);
	assert_int_equal(after.inodes, before.inodes);
}

static void test_mount_is_busy(void **state)
{
	struct memfs_totals before, after;
	struct file *f;

	(void)state;
	mount_at("/warm");
	assert_int_equal(umount_at("/warm"), 0);
	rcu_drain();
	vfs_run_deferred();
	memfs_get_totals(&before);
	for (int i = 0; i < ROUNDS / 4; i++) {
		struct vfs_lookup lk = at("/m");

		mount_at("/m");
		make_file("/m/file");
		with_openers("/m/file", open_some, NULL);
		assert_int_equal(open_at("/m/file", O_RDONLY, &f), 0);
		assert_int_equal(umount_at("/m"), -EBUSY);
		file_unref(f);
		assert_int_equal(umount_at("/m"), 0);
		assert_int_equal(vfs_rmdir(&lk), 0);
	}
	/* Lazily: it goes with the last file. */
	mount_at("/m");
	make_file("/m/file");
	with_openers("/m/file", open_some, NULL);
	assert_int_equal(open_at("/m/file", O_RDONLY, &f), 0);
	{
		struct vfs_lookup lk = at("/m");

		assert_int_equal(vfs_umount(&lk, MNT_DETACH), 0);
		assert_int_equal(vfs_rmdir(&lk), 0);
	}
	file_unref(f);
	rcu_drain();
	vfs_run_deferred();
	memfs_get_totals(&after);
	assert_int_equal(after.inodes, before.inodes);
}

static void *close_elsewhere(void *arg)
{
	rcu_thread_begin();
	cred_set_current(cred);
	file_unref(arg);
	cred_set_current(NULL);
	rcu_thread_end();
	return NULL;
}

static void test_writers(void **state)
{
	struct vfs_lookup lk = at("/w");
	struct file *f;
	pthread_t t;

	(void)state;
	mount_at("/w");
	make_file("/w/file");
	with_openers("/w/file", open_some, NULL);
	assert_int_equal(open_at("/w/file", O_RDWR, &f), 0);
	assert_int_equal(vfs_remount(&lk, MS_RDONLY, NULL, false), -EBUSY);
	assert_int_equal(pthread_create(&t, NULL, close_elsewhere, f), 0);
	pthread_join(t, NULL);
	assert_int_equal(vfs_remount(&lk, MS_RDONLY, NULL, false), 0);
	assert_int_equal(open_at("/w/file", O_RDWR, &f), -EROFS);
	assert_int_equal(vfs_remount(&lk, 0, NULL, false), 0);
	assert_int_equal(open_at("/w/file", O_RDWR, &f), 0);
	file_unref(f);
	assert_int_equal(umount_at("/w"), 0);
}

static uint32_t objects[256];

static bool is_even(const void *object, const void *of)
{
	assert_ptr_equal(of, objects);
	return !(((const uint32_t *)object - objects) % 2);
}

static void dropped(struct ref_cache_kept kept)
{
	*(uint32_t *)kept.object += kept.n;
}

static void test_cache(void **state)
{
	static struct ref_cache c;
	uint32_t given = 0, withdrawn = 0;

	(void)state;
	assert_false(ref_cache_take(&c, &objects[0]));
	for (int i = 0; i < 3; i++)
		assert_true(ref_cache_give(&c, &objects[0]));
	assert_true(ref_cache_take(&c, &objects[0]));
	assert_int_equal(ref_cache_withdraw(&c, &objects[0]), 2);
	assert_int_equal(ref_cache_withdraw(&c, &objects[0]), 0);
	assert_false(ref_cache_take(&c, &objects[0]));
	/* Who comes when there is no room is refused, and what is there stays. */
	for (int i = 0; i < 256; i++)
		given += ref_cache_give(&c, &objects[i]);
	assert_in_range(given, REF_CACHE_SLOTS, REF_CACHE_LINES * REF_CACHE_SLOTS);
	ref_cache_withdraw_all(&c, is_even, objects, dropped);
	for (int i = 0; i < 256; i++) {
		assert_true(i % 2 ? !objects[i] : objects[i] <= 1);
		withdrawn += objects[i] + ref_cache_withdraw(&c, &objects[i]);
	}
	assert_int_equal(withdrawn, given);
	/* Then there is room again; a slot holds no more than a word does, and the next goes beside it. */
	for (int i = 0; i < 1 << REF_CACHE_COUNT_BITS; i++)
		assert_true(ref_cache_give(&c, &objects[0]));
	assert_int_equal(ref_cache_withdraw(&c, &objects[0]), 1 << REF_CACHE_COUNT_BITS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cache),
		cmocka_unit_test(test_removed_file_goes),
		cmocka_unit_test(test_mount_is_busy),
		cmocka_unit_test(test_writers),
	};

	if (memfs_env_init())
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
