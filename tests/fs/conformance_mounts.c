/* tests/fs/conformance_mounts.c - mounts, namespaces and propagation, over every filesystem. */
#include <sys/mount.h>

#include "tests/fs/conformance.h"

static void test_mounts(void **state)
{
	struct moat_statx st, under;
	struct file *f;
	struct buf b;

	(void)state;
	OK(fs_mkdir(&e, "/m", 0755));
	OK(fs_mkdir(&e, "/b", 0755));
	OK(fs_creat(&e, "/m/under", 0644));
	OK(fs_stat(&e, "/m", &under));
	OK(fs_mount(&e, "/m", "tmpfs", MS_NODEV, "size=1m,mode=755"));
	OK(fs_stat(&e, "/m", &st));
	assert_int_not_equal(st.dev_minor, under.dev_minor);
	FAILS(fs_stat(&e, "/m/under", &st), ENOENT);
	OK(fs_stat(&e, "/m/../m/./..", &st));
	OK(fs_mkdir(&e, "/m/d", 0755));
	OK(fs_creat(&e, "/m/d/f", 0644));
	FAILS(fs_rmdir(&e, "/m"), EBUSY);
	FAILS(fs_rename(&e, "/m", "/n", 0), EBUSY);
	FAILS(fs_rename(&e, "/m/d", "/n", 0), EXDEV);
	FAILS(fs_link(&e, "/m/d/f", "/f", false), EXDEV);
	OK(fs_bind(&e, "/m/d", "/b", false));
	OK(fs_stat(&e, "/b/f", &st));
	OK(fs_open(&e, "/b/f", O_RDONLY, 0, &f));
	buf_init(&b, 65536);
	OK(vfs_path_to_string(&e.root, &f->path, true, &b));
	assert_string_equal(b.data, "/b/f");
	buf_reset(&b);
	vfs_show_mounts(e.ns, &e.root, MOUNT_SHOW_MOUNTINFO, &b);
	assert_non_null(strstr(b.data, " / / rw,relatime - "));
	if (!strcmp(fs_backend.name, "memfs"))
		assert_non_null(strstr(b.data, " / / rw,relatime - tmpfs tmpfs rw"));
	assert_non_null(
		strstr(b.data, " / /m rw,nodev,relatime - tmpfs tmpfs rw,size=1024k,mode=755"));
	assert_non_null(strstr(b.data, " /d /b rw,nodev,relatime - tmpfs"));
	buf_fini(&b);
	FAILS(fs_umount(&e, "/b", 0), EBUSY);
	fs_close(f);
	FAILS(fs_umount(&e, "/b/f", 0), EINVAL);
	/* Read-only bind. */
	{
		struct vfs_lookup lk = fs_env_at(&e, "/b", LOOKUP_FOLLOW);

		OK(vfs_remount(&lk, MS_RDONLY, NULL, true));
	}
	FAILS(fs_creat(&e, "/b/x", 0644), EROFS);
	/* That the link's own place may be written to says nothing about where it leads. */
	OK(fs_symlink(&e, "/b/x", "/l"));
	FAILS(fs_open(&e, "/l", O_WRONLY | O_CREAT, 0644, &f), EROFS);
	FAILS(fs_stat(&e, "/m/d/x", &st), ENOENT);
	OK(fs_unlink(&e, "/l"));
	FAILS(fs_open(&e, "/b/f", O_WRONLY, 0, &f), EROFS);
	FAILS(fs_unlink(&e, "/b/f"), EROFS);
	FAILS(fs_mkdir(&e, "/b/f", 0755), EEXIST);
	OK(fs_creat(&e, "/m/d/y", 0644));
	OK(fs_umount(&e, "/b", 0));
	FAILS(fs_umount(&e, "/b", 0), EINVAL);
	OK(fs_open(&e, "/m/d/f", O_RDONLY, 0, &f));
	FAILS(fs_umount(&e, "/m", 0), EBUSY);
	OK(fs_umount(&e, "/m", MNT_DETACH));
	assert_int_equal(fs_read(f, &b, 1), 0);
	fs_close(f);
	OK(fs_stat(&e, "/m/under", &st));
	assert_int_equal(st.dev_minor, under.dev_minor);
}

static void test_mount_limits(void **state)
{
	static char data[65536];
	struct file *f;
	char path[32];
	int i;

	(void)state;
	OK(fs_mkdir(&e, "/m", 0755));
	OK(fs_mount(&e, "/m", "tmpfs", 0, "size=128k,nr_inodes=10"));
	OK(fs_open(&e, "/m/f", O_CREAT | O_RDWR, 0644, &f));
	assert_int_equal(fs_write(f, data, 65536), 65536);
	assert_int_equal(fs_write(f, data, 60000), 60000);
	assert_int_equal(fs_write(f, data, 60000), 5536);
	assert_int_equal(fs_write(f, data, 60000), -ENOSPC);
	OK(file_truncate(f, 0));
	assert_int_equal(fs_pwrite(f, data, 65536, 0), 65536);
	fs_close(f);
	for (i = 0; i < 20; i++) {
		snprintf(path, sizeof(path), "/m/%d", i);
		if (fs_creat(&e, path, 0644))
			break;
	}
	assert_int_equal(i, 8);
	FAILS(fs_mkdir(&e, "/m/dir", 0755), ENOSPC);
	OK(fs_unlink(&e, "/m/0"));
	OK(fs_mkdir(&e, "/m/dir", 0755));
	FAILS(fs_mount(&e, "/m", "tmpfs", 0, "size=x"), EINVAL);
	FAILS(fs_mount(&e, "/m", "nofs", 0, ""), ENODEV);
}

static void test_namespaces(void **state)
{
	struct mount_namespace *copy;
	struct vfs_path *paths[2] = {&e.root, &e.cwd};
	struct vfs_path root = e.root, cwd = e.cwd;
	struct mount_namespace *old = e.ns;
	struct moat_statx st;

	(void)state;
	OK(fs_mkdir(&e, "/m", 0755));
	OK(fs_mount(&e, "/m", "tmpfs", 0, NULL));
	OK(fs_creat(&e, "/m/f", 0644));
	OK(mount_namespace_copy(e.ns, &copy, paths, 2));
	assert_ptr_not_equal(root.mount, e.root.mount);
	e.ns = copy;
	OK(fs_stat(&e, "/m/f", &st));
	OK(fs_umount(&e, "/m", 0));
	FAILS(fs_stat(&e, "/m/f", &st), ENOENT);
	/* The other namespace still has it, and is not asked when its mount point goes. */
	OK(fs_rmdir(&e, "/m"));
	vfs_run_deferred();
	(void)cwd;
	mount_namespace_unref(old);
}

static void test_propagation(void **state)
{
	struct vfs_lookup lk;
	struct moat_statx st;
	struct buf b;

	(void)state;
	OK(fs_mkdir(&e, "/a", 0755));
	OK(fs_mkdir(&e, "/b", 0755));
	OK(fs_mkdir(&e, "/c", 0755));
	OK(fs_mount(&e, "/a", "tmpfs", 0, NULL));
	OK(fs_mkdir(&e, "/a/x", 0755));
	lk = fs_env_at(&e, "/a", LOOKUP_FOLLOW);
	OK(vfs_set_propagation(&lk, PROP_SHARED, false));
	OK(fs_bind(&e, "/a", "/b", false));
	OK(fs_bind(&e, "/a", "/c", false));
	lk = fs_env_at(&e, "/c", LOOKUP_FOLLOW);
	OK(vfs_set_propagation(&lk, PROP_SLAVE, false));
	buf_init(&b, 65536);
	vfs_show_mounts(e.ns, &e.root, MOUNT_SHOW_MOUNTINFO, &b);
	assert_non_null(strstr(b.data, " /a rw,relatime shared:1 - "));
	assert_non_null(strstr(b.data, " /b rw,relatime shared:1 - "));
	assert_non_null(strstr(b.data, " /c rw,relatime master:1 - "));
	buf_fini(&b);
	/* A mount in a peer shows in its peers and slaves, one in a slave stays there. */
	OK(fs_mount(&e, "/b/x", "tmpfs", 0, NULL));
	OK(fs_creat(&e, "/b/x/f", 0644));
	OK(fs_stat(&e, "/a/x/f", &st));
	OK(fs_stat(&e, "/c/x/f", &st));
	OK(fs_umount(&e, "/a/x", 0));
	FAILS(fs_stat(&e, "/b/x/f", &st), ENOENT);
	FAILS(fs_stat(&e, "/c/x/f", &st), ENOENT);
	OK(fs_mount(&e, "/c/x", "tmpfs", 0, NULL));
	OK(fs_creat(&e, "/c/x/only", 0644));
	FAILS(fs_stat(&e, "/a/x/only", &st), ENOENT);
}

static void test_pivot_root(void **state)
{
	struct vfs_lookup new_root, put_old;
	struct moat_statx st;
	struct vfs_path top;

	(void)state;
	OK(fs_creat(&e, "/old", 0644));
	OK(fs_mkdir(&e, "/n", 0755));
	OK(fs_mount(&e, "/n", "tmpfs", 0, NULL));
	OK(fs_mkdir(&e, "/n/put", 0755));
	new_root = fs_env_at(&e, "/n", LOOKUP_FOLLOW);
	put_old = fs_env_at(&e, "/n/put", LOOKUP_FOLLOW);
	OK(vfs_pivot_root(&new_root, &put_old));
	mount_namespace_root(e.ns, &top);
	vfs_path_unref(&e.root);
	e.root = top;
	OK(fs_stat(&e, "/put/old", &st));
	FAILS(fs_stat(&e, "/old", &st), ENOENT);
	OK(fs_chdir(&e, "/"));
	OK(fs_umount(&e, "/put", MNT_DETACH));
	FAILS(fs_stat(&e, "/put/old", &st), ENOENT);
}

/* A directory moved out of a bind mount: ".." in it leads nowhere. */
static void test_moved_out_of_bind(void **state)
{
	struct moat_statx st;

	(void)state;
	OK(fs_mkdir(&e, "/a", 0755));
	OK(fs_mkdir(&e, "/a/b", 0755));
	OK(fs_mkdir(&e, "/m", 0755));
	OK(fs_bind(&e, "/a", "/m", false));
	OK(fs_chdir(&e, "/m/b"));
	OK(fs_stat(&e, "..", &st));
	OK(fs_rename(&e, "/a/b", "/b", 0));
	FAILS(fs_stat(&e, "..", &st), ENOENT);
	OK(fs_stat(&e, ".", &st));
	OK(fs_rename(&e, "/b", "/a/b", 0));
	OK(fs_stat(&e, "..", &st));
	/* Not so where it was removed: it still has its parent. */
	OK(fs_rmdir(&e, "/a/b"));
	OK(fs_stat(&e, "..", &st));
	OK(fs_chdir(&e, "/"));
	OK(fs_umount(&e, "/m", 0));
}

int conformance_mounts(void)
{
	const struct CMUnitTest tests[] = {
		CONFORMANCE(test_mounts),     CONFORMANCE(test_mount_limits),
		CONFORMANCE(test_namespaces), CONFORMANCE(test_propagation),
		CONFORMANCE(test_pivot_root), CONFORMANCE(test_moved_out_of_bind),
	};

	return cmocka_run_group_tests_name(fs_backend.name, tests, NULL, NULL);
}
