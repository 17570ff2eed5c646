// LINK: moat_memfs moat_vfs moat_mem
/* What umount has to drop once the mounts' lock is free stays valid although others unmount what it stood on meanwhile. */
#include "tests/unit/check.h"

#include "tests/unit/memfs_env.h"
#include "vfs/mount_internal.h"

static int64_t filesystems;

static void count_filesystems(void *arg unused_arg, const char *name, int64_t live)
{
	if (!strcmp(name, "filesystem"))
		filesystems = live;
}

static int64_t live_filesystems(void)
{
	rcu_drain();
	vfs_run_deferred();
	rcu_drain();
	ref_report(count_filesystems, NULL);
	return filesystems;
}

static void mount_at(const char *path)
{
	struct vfs_lookup lk = at(path);

	assert_int_equal(vfs_mkdir(&lk, &(struct mkdir_args){.mode = 0755}), 0);
	assert_int_equal(vfs_mount_new(&lk, "tmpfs", "tmpfs", 0, NULL, NULL), 0);
}

static void test_parent_goes_first(void **state unused_arg)
{
	int64_t before = live_filesystems();
	struct vfs_lookup lk = at("/parent/child");
	struct mount_trash trash;
	struct vfs_path child;

	mount_at("/parent");
	mount_at("/parent/child");
	assert_int_equal(live_filesystems(), before + 2);
	assert_int_equal(vfs_get_path(&lk, &child), 0);
	/* A thread that unmounts the child and is held up before it empties its trash. */
	mount_trash_init(&trash);
	mutex_lock(&mount_lock);
	mount_detach_tree_locked(child.mount, &trash);
	mutex_unlock(&mount_lock);
	vfs_path_unref(&child);
	/* Nothing is mounted on the parent: its umount is not refused, and its filesystem waits for the mountpoint's reference. */
	lk = at("/parent");
	assert_int_equal(vfs_umount(&lk, 0), 0);
	assert_int_equal(live_filesystems(), before + 2);
	mount_trash_empty(&trash);
	assert_int_equal(live_filesystems(), before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_parent_goes_first)};

	if (memfs_env_init())
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
