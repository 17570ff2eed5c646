// LINK: moat_memfs moat_vfs moat_mem
/* memfs: limits of inodes are met exactly, by one thread and by many at once; inode numbers are given once. */
#include "tests/unit/check.h"

#include <pthread.h>
#include <sys/mount.h>
#include <sys/statfs.h>

#include "fsimpl/memfs/internal.h"
#include "tests/unit/memfs_env.h"

#define THREADS 4
#define MANY 6000 /* more than the shards may hold spare */

static int make(const char *dir, int thread, int i)
{
	char path[64];
	struct vfs_lookup lk = at(path);

	snprintf(path, sizeof(path), "%s/%d.%d", dir, thread, i);
	return vfs_mknod(&lk, &(struct mknod_args){.mode = S_IFREG | 0644});
}

static int drop(const char *dir, int thread, int i)
{
	char path[64];
	struct vfs_lookup lk = at(path);

	snprintf(path, sizeof(path), "%s/%d.%d", dir, thread, i);
	return vfs_unlink(&lk);
}

static void mount_limited(const char *dir, const char *options)
{
	struct vfs_lookup lk = at(dir);

	assert_int_equal(vfs_mkdir(&lk, &(struct mkdir_args){.mode = 0755}), 0);
	assert_int_equal(vfs_mount_new(&lk, "tmpfs", "tmpfs", 0, options, NULL), 0);
}

static int remount(const char *dir, const char *options)
{
	struct vfs_lookup lk = at(dir);

	return vfs_remount(&lk, 0, options, false);
}

static uint64_t inodes_free(const char *dir)
{
	struct vfs_lookup lk = at(dir);
	struct vfs_path p;
	struct statfs st;

	assert_int_equal(vfs_get_path(&lk, &p), 0);
	assert_int_equal(vfs_statfs(&p, &st), 0);
	vfs_path_unref(&p);
	return st.f_ffree;
}

struct filler {
	const char *dir;
	int thread, made;
};

static void *fill(void *arg)
{
	struct filler *f = arg;
	int err;

	rcu_thread_begin();
	cred_set_current(cred);
	while (!(err = make(f->dir, f->thread, f->made)))
		f->made++;
	assert(err == -ENOSPC);
	cred_set_current(NULL);
	rcu_thread_end();
	return NULL;
}

static int fill_all(const char *dir, struct filler f[THREADS])
{
	pthread_t t[THREADS];
	int sum = 0;

	for (int i = 0; i < THREADS; i++) {
		f[i] = (struct filler){.dir = dir, .thread = i};
		assert_int_equal(pthread_create(&t[i], NULL, fill, &f[i]), 0);
	}
	for (int i = 0; i < THREADS; i++) {
		pthread_join(t[i], NULL);
		sum += f[i].made;
	}
	return sum;
}

static void test_few(void **state)
{
	(void)state;
	mount_limited("/few", "nr_inodes=10");
	for (int i = 0; i < 9; i++) {
		assert_int_equal(inodes_free("/few"), 9 - i);
		assert_int_equal(make("/few", 0, i), 0);
	}
	assert_int_equal(make("/few", 0, 9), -ENOSPC);
	assert_int_equal(drop("/few", 0, 3), 0);
	assert_int_equal(make("/few", 0, 9), 0);
	assert_int_equal(make("/few", 0, 10), -ENOSPC);
	assert_int_equal(remount("/few", "nr_inodes=9"), -EINVAL);
	assert_int_equal(remount("/few", "nr_inodes=11"), 0);
	assert_int_equal(make("/few", 0, 10), 0);
	assert_int_equal(make("/few", 0, 11), -ENOSPC);
}

/* What threads keep spare is found again before the answer is ENOSPC. */
static void test_many(void **state)
{
	struct filler f[THREADS];
	int made;

	(void)state;
	mount_limited("/many", "nr_inodes=6000");
	for (int round = 0; round < 2; round++) {
		made = fill_all("/many", f);
		assert_int_equal(made, MANY - 1);
		assert_int_equal(inodes_free("/many"), 0);
		assert_int_equal(make("/many", 9, 9), -ENOSPC);
		for (int t = 0; t < THREADS; t++)
			for (int i = 0; i < f[t].made; i++)
				assert_int_equal(drop("/many", t, i), 0);
		assert_int_equal(inodes_free("/many"), MANY - 1);
	}
	/* All of it is free, and some of that lies in shards: the new limit holds all the same. */
	assert_int_equal(remount("/many", "nr_inodes=20"), 0);
	assert_int_equal(fill_all("/many", f), 19);
}

#define RACE_ROUNDS 100
#define RACERS 2

/* Threads that charge inodes of one filesystem directly, all from the same moment on. */
struct race {
	struct memfs_fs *fs;
	pthread_barrier_t start;
	_Atomic bool refused;
	_Atomic int made, early; /* charges; those refused although there was room */
};

/* Nobody gives back: what begins after somebody was refused is refused too. */
static void *charge_all(void *arg)
{
	struct race *r = arg;

	pthread_barrier_wait(&r->start);
	for (;;) {
		bool refused = atomic_load(&r->refused);

		if (memfs_charge(r->fs, MEMFS_INODES, 1))
			break;
		atomic_fetch_add(&r->made, 1);
		if (refused)
			atomic_fetch_add(&r->early, 1);
	}
	atomic_store(&r->refused, true);
	return NULL;
}

#define EACH 3000 /* all of them reach from where spares are kept to the limit */

/* Each stays below what is its own: nobody is refused ever. */
static void *charge_each(void *arg)
{
	struct race *r = arg;

	pthread_barrier_wait(&r->start);
	for (int i = 0; i < 2; i++) {
		int n = 0;

		for (; n < EACH; n++)
			if (memfs_charge(r->fs, MEMFS_INODES, 1))
				break;
		atomic_fetch_add(&r->early, n < EACH);
		while (n--)
			memfs_uncharge(r->fs, MEMFS_INODES, 1);
	}
	return NULL;
}

static void race(struct race *r, struct memfs_fs *fs, void *(*fn)(void *))
{
	pthread_t t[RACERS];

	*r = (struct race){.fs = fs};
	assert_int_equal(pthread_barrier_init(&r->start, NULL, RACERS), 0);
	for (int i = 0; i < RACERS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, fn, r), 0);
	for (int i = 0; i < RACERS; i++)
		pthread_join(t[i], NULL);
	pthread_barrier_destroy(&r->start);
}

/* At the limit threads call in each other's spares: none is refused for what another has in hand. */
static void test_race(void **state)
{
	struct memfs_options opts = {.mode = 0755, .inodes_max = RACERS * EACH + 1};
	struct filesystem *fs;
	struct memfs_fs *mfs;
	struct dentry *d;
	struct race r;

	(void)state;
	assert_int_equal(memfs_create_fs("tmpfs", &opts, &fs, &d), 0);
	mfs = memfs_of(fs);
	for (int i = 0; i < RACE_ROUNDS; i++) {
		race(&r, mfs, charge_all);
		assert_int_equal(r.made, RACERS * EACH);
		assert_int_equal(r.early, 0);
		assert_int_equal(memfs_used(mfs, MEMFS_INODES), RACERS * EACH + 1);
		while (r.made--)
			memfs_uncharge(mfs, MEMFS_INODES, 1);
		race(&r, mfs, charge_each);
		assert_int_equal(r.early, 0);
		assert_int_equal(memfs_used(mfs, MEMFS_INODES), 1);
	}
	dentry_unref(d);
	filesystem_unref(fs);
}

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void test_numbers(void **state)
{
	static uint64_t ino[MANY];
	struct filler f[THREADS];
	struct moat_statx st;
	char path[64];
	int n = 0;

	(void)state;
	mount_limited("/numbers", "nr_inodes=6000");
	fill_all("/numbers", f);
	for (int t = 0; t < THREADS; t++) {
		for (int i = 0; i < f[t].made; i++) {
			struct vfs_lookup lk = at(path);

			snprintf(path, sizeof(path), "/numbers/%d.%d", t, i);
			assert_int_equal(vfs_stat(&lk, &(struct stat_args){0}, &st), 0);
			ino[n++] = st.ino;
		}
	}
	qsort(ino, (size_t)n, sizeof(ino[0]), by_number);
	assert_true(ino[0] > 1);
	for (int i = 1; i < n; i++)
		assert_true(ino[i] != ino[i - 1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_few), cmocka_unit_test(test_many),
					   cmocka_unit_test(test_race),
					   cmocka_unit_test(test_numbers)};

	if (memfs_env_init())
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
