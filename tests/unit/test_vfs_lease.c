// LINK: moat_vfs moat_memfs moat_mem
/* Leases: an open that meets one which is asked for in vain waits no longer than the answer takes. */
#include "tests/unit/check.h"

#include <fcntl.h>
#include <pthread.h>

#include "base/rcu.h"
#include "base/sleep.h"
#include "fsimpl/memfs/memfs.h"
#include "mem/memfile.h"
#include "vfs/lease.h"

#define PATIENCE_NS 20000000000l /* less than half of LEASE_BREAK_DEFAULT_S */

static struct file *holder;
static pthread_t opener;
static int64_t opener_ns;

static void *open_for_reading(void *arg)
{
	int64_t start = time_monotonic_ns();

	rcu_thread_begin();
	assert(!vfs_lease_break(holder->path.dentry, false, false));
	opener_ns = time_monotonic_ns() - start;
	rcu_thread_end();
	return arg;
}

/* Between the lease's entry and its answer somebody opens the file, and waits. */
static bool opened_elsewhere(struct file *f, bool writers)
{
	assert(f == holder);
	if (writers)
		return false;
	assert(!pthread_create(&opener, NULL, open_for_reading, NULL));
	while (file_lease_get(f) != F_RDLCK) {
		struct timespec pause = {.tv_nsec = 1000000};

		nanosleep(&pause, NULL);
	}
	/* So that it sleeps; a wake-up before would do as well. */
	nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
	return true;
}

static void test_roll_back(void **state)
{
	bool is_new;

	(void)state;
	vfs_hooks.opened_elsewhere = opened_elsewhere;
	assert_int_equal(file_lease_set(holder, F_RDLCK, 1, &is_new), 0);
	assert_true(is_new);
	assert_int_equal(file_lease_set(holder, F_WRLCK, 1, &is_new), -EAGAIN);
	pthread_join(opener, NULL);
	assert_true(opener_ns < PATIENCE_NS);
	assert_int_equal(file_lease_get(holder), F_RDLCK);
	/* One that is new goes, and wakes as well. */
	assert_int_equal(file_lease_set(holder, F_UNLCK, 1, &is_new), 0);
	assert_int_equal(file_lease_set(holder, F_WRLCK, 1, &is_new), -EAGAIN);
	pthread_join(opener, NULL);
	assert_true(opener_ns < PATIENCE_NS);
	assert_int_equal(file_lease_get(holder), F_UNLCK);
}

/* The holder's file, the only one. */
static int open_holder(struct mount_namespace *ns, struct cred *cred)
{
	struct open_args how = {.flags = O_CREAT | O_RDONLY, .mode = 0644};
	struct vfs_path top;
	struct vfs_lookup lk;
	int err;

	mount_namespace_root(ns, &top);
	lk = (struct vfs_lookup){.cred = cred, .ns = ns, .root = top, .start = top, .path = "/f"};
	err = vfs_open(&lk, &how, &holder);
	vfs_path_unref(&top);
	return err;
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_roll_back)};
	struct mount_namespace *ns;
	struct filesystem *fs;
	struct dentry *d;
	struct cred *cred;
	int failed;

	rcu_thread_begin();
	failed = mem_init(0) || vfs_init() || cred_create_root(&cred);
	if (failed)
		return 1;
	cred_set_current(cred);
	failed = memfs_create_fs("tmpfs", &(struct memfs_options){.mode = 0755}, &fs, &d);
	if (failed || mount_namespace_create(fs, d, 0, &ns) || open_holder(ns, cred))
		return 1;
	dentry_unref(d);
	filesystem_unref(fs);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	file_unref(holder);
	mount_namespace_unref(ns);
	rcu_drain();
	vfs_run_deferred();
	return failed;
}
