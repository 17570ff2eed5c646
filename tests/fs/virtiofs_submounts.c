/*
 * Directories of the shared tree on which the host has mounted something else: each is a mount of its own, made by the first walk through it, with its own
 * device number; it goes with the mount that it is on, and is found again by another daemon.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/log.h"
#include "mem/guard.h"
#include "tests/fs/backend_virtiofs.h"
#include "tests/fs/env.h"

#define SKIPPED 77
#define THREADS 4
#define WALKS 300
#define BACK_TRIES 60000 /* of 2 ms */

static struct fs_env e;

static const char *host_path(const char *name)
{
	static char path[2][256];
	static int turn;

	turn ^= 1;
	snprintf(path[turn], sizeof(path[turn]), "%s%s", backend_virtiofs_dir(), name);
	return path[turn];
}

static void host_file(const char *name)
{
	FILE *f = fopen(host_path(name), "we");

	assert_non_null(f);
	fputs(name, f);
	fclose(f);
}

static void host_mount(const char *name)
{
	assert_int_equal(mount("moat-test", host_path(name), "tmpfs", 0, NULL), 0);
}

static void wait_until_back(struct file *f)
{
	int err = -EIO;

	for (unsigned i = 0; i < BACK_TRIES && err; i++) {
		err = file_fsync(f, false, 0, UINT64_MAX);
		assert_true(!err || err == -EIO);
		usleep(2000);
	}
	assert_int_equal(err, 0);
}

/* A daemon has the mounts that were there when it began. */
static void another_daemon(void)
{
	struct file *f;

	assert_int_equal(fs_open(&e, "/f", O_RDWR | O_CREAT, 0644, &f), 0);
	backend_virtiofs_kill();
	wait_until_back(f);
	fs_close(f);
}

/* /sub is another filesystem, and /sub/deep/inner in it a third. */
static int make_tree(void **state)
{
	(void)state;
	backend_virtiofs_reconnects = true;
	if (fs_env_init(&e))
		return -1;
	assert_int_equal(mkdir(host_path("/sub"), 0755), 0);
	host_mount("/sub");
	assert_int_equal(mkdir(host_path("/sub/deep"), 0755), 0);
	assert_int_equal(mkdir(host_path("/sub/deep/inner"), 0755), 0);
	host_mount("/sub/deep/inner");
	assert_int_equal(mkdir(host_path("/plain"), 0755), 0);
	assert_int_equal(mkdir(host_path("/again"), 0755), 0);
	assert_int_equal(mkdir(host_path("/fixed"), 0755), 0);
	assert_int_equal(mount(host_path("/plain"), host_path("/fixed"), NULL, MS_BIND, NULL), 0);
	assert_int_equal(
		mount(NULL, host_path("/fixed"), NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL), 0);
	host_file("/plain/f");
	host_file("/f");
	host_file("/sub/f");
	host_file("/sub/deep/inner/f");
	another_daemon();
	return 0;
}

static int drop_tree(void **state)
{
	(void)state;
	fs_env_fini(&e);
	(void)umount2(host_path("/sub/deep/inner"), MNT_DETACH);
	(void)umount2(host_path("/sub"), MNT_DETACH);
	(void)umount2(host_path("/fixed"), MNT_DETACH);
	return 0;
}

static uint32_t dev_of(const char *path)
{
	struct moat_statx st;

	assert_int_equal(fs_stat(&e, path, &st), 0);
	return st.dev_minor;
}

/* How many mounts mountinfo shows at places that end so. */
static unsigned mounts_at(const char *end)
{
	struct buf b;
	unsigned count = 0;
	char text[32], *at;

	vfs_run_deferred();
	buf_init(&b, 65536);
	vfs_show_mounts(e.ns, &e.root, MOUNT_SHOW_MOUNTS, &b);
	snprintf(text, sizeof(text), "%s virtiofs", end);
	for (at = b.data; (at = strstr(at, text)); at++)
		count++;
	buf_fini(&b);
	return count;
}

static void check_places(void)
{
	uint32_t top = dev_of("/"), sub = dev_of("/sub/f"), inner = dev_of("/sub/deep/inner/f");
	struct moat_statx st;
	struct stat host;

	assert_int_equal(dev_of("/f"), top);
	assert_int_equal(dev_of("/plain"), top);
	assert_true(sub != top && inner != top && inner != sub);
	assert_int_equal(dev_of("/sub"), sub);
	assert_int_equal(dev_of("/sub/deep"), sub);
	assert_int_equal(dev_of("/sub/deep/inner"), inner);
	assert_int_equal(dev_of("/sub/deep/inner/.."), sub);
	assert_int_equal(dev_of("/sub/.."), top);
	assert_int_equal(fs_stat(&e, "/sub/f", &st), 0);
	assert_int_equal(stat(host_path("/sub/f"), &host), 0);
	assert_int_equal(st.ino, host.st_ino);
	assert_int_equal(fs_stat(&e, "/sub", &st), 0);
	assert_int_equal(stat(host_path("/sub"), &host), 0);
	assert_int_equal(st.ino, host.st_ino);
}

static void test_mounts(void **state)
{
	struct vfs_lookup lk = fs_env_at(&e, "/sub", LOOKUP_NO_AUTOMOUNT);
	struct stat_args args = {.mask = STATX_BASIC_STATS};
	struct moat_statx st;
	struct vfs_path p;
	char names[256];

	(void)state;
	assert_int_equal(mounts_at("/sub"), 0);
	/* Who asks for attributes only, as stat(2) and ls do, mounts nothing. */
	assert_int_equal(vfs_stat(&lk, &args, &st), 0);
	assert_int_equal(st.dev_minor, dev_of("/"));
	assert_true(fs_list(&e, "/", names, sizeof(names)) > 0);
	assert_int_equal(mounts_at("/sub"), 0);
	lk = fs_env_at(&e, "/sub/f", LOOKUP_NO_XDEV);
	assert_int_equal(vfs_get_path(&lk, &p), -EXDEV);
	assert_int_equal(mounts_at("/sub"), 0);
	check_places();
	assert_int_equal(mounts_at("/sub"), 1);
	assert_int_equal(mounts_at("/sub/deep/inner"), 1);
	check_places();
	assert_int_equal(mounts_at("/sub"), 1);
	assert_int_equal(fs_list(&e, "/sub", names, sizeof(names)), 2);
	assert_int_equal(fs_rename(&e, "/sub/f", "/g", 0), -EXDEV);
	assert_int_equal(fs_link(&e, "/sub/f", "/g", false), -EXDEV);
	assert_int_equal(fs_rmdir(&e, "/sub"), -EBUSY);
	assert_int_equal(fs_creat(&e, "/sub/deep/inner/new", 0644), 0);
	assert_int_equal(access(host_path("/sub/deep/inner/new"), F_OK), 0);
	assert_int_equal(fs_unlink(&e, "/sub/deep/inner/new"), 0);
}

/* What walks have mounted keeps nobody from unmounting what is below it, unless it is used. */
static void test_shrinks(void **state)
{
	struct file *f;

	(void)state;
	assert_int_equal(fs_bind(&e, "/", "/again", false), 0);
	assert_true(dev_of("/again/sub/deep/inner/f") != dev_of("/"));
	assert_int_equal(mounts_at("/again/sub/deep/inner"), 1);
	/* The same files as through the other mount. */
	assert_int_equal(dev_of("/again/sub/f"), dev_of("/sub/f"));
	assert_int_equal(dev_of("/again/sub/deep/inner/f"), dev_of("/sub/deep/inner/f"));
	assert_int_equal(fs_open(&e, "/again/sub/f", O_RDONLY, 0, &f), 0);
	assert_int_equal(fs_umount(&e, "/again", 0), -EBUSY);
	fs_close(f);
	vfs_run_deferred();
	assert_int_equal(fs_umount(&e, "/again", 0), 0);
	assert_int_equal(mounts_at("/again/sub"), 0);
	assert_int_equal(mounts_at("/again"), 0);
}

static void *walk(void *arg)
{
	const struct fs_env *shared = arg;
	struct fs_env own = *shared;
	struct moat_statx st;

	rcu_thread_begin();
	cred_set_current(own.cred);
	for (unsigned i = 0; i < WALKS; i++) {
		int err = fs_stat(&own, i % 2 ? "/again/sub/deep/inner/f" : "/again/sub/f", &st);

		/* Unmounted meanwhile. */
		if (err && err != -ENOENT && err != -EINVAL)
			fail_msg("a walk gave %d", err);
		vfs_run_deferred();
	}
	cred_set_current(NULL);
	rcu_thread_end();
	return NULL;
}

/* Many walk in at once, and the mount below goes and comes. */
static void test_races(void **state)
{
	pthread_t threads[THREADS];

	(void)state;
	assert_int_equal(fs_bind(&e, "/", "/again", false), 0);
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, walk, &e), 0);
	for (unsigned i = 0; i < 20; i++) {
		assert_int_equal(fs_umount(&e, "/again", MNT_DETACH), 0);
		vfs_run_deferred();
		assert_int_equal(fs_bind(&e, "/", "/again", false), 0);
		usleep(1000);
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	vfs_run_deferred();
	assert_true(dev_of("/again/sub/f") != dev_of("/"));
	assert_int_equal(mounts_at("/again/sub"), 1);
	assert_int_equal(fs_umount(&e, "/again", 0), 0);
}

static void test_reconnect(void **state)
{
	uint32_t sub = dev_of("/sub"), inner = dev_of("/sub/deep/inner");
	struct file *a, *b;
	char buf[64];

	(void)state;
	assert_int_equal(fs_open(&e, "/sub/f", O_RDWR, 0, &a), 0);
	assert_int_equal(fs_open(&e, "/sub/deep/inner/f", O_RDWR, 0, &b), 0);
	assert_int_equal(fs_chdir(&e, "/sub/deep/inner"), 0);
	backend_virtiofs_kill();
	wait_until_back(b);
	wait_until_back(a);
	assert_int_equal(fs_pwrite(b, "after", 5, 0), 5);
	assert_int_equal(file_fsync(b, false, 0, UINT64_MAX), 0);
	assert_int_equal(fs_pread(b, buf, 5, 0), 5);
	assert_memory_equal(buf, "after", 5);
	assert_int_equal(fs_pread(a, buf, 6, 0), 6);
	assert_memory_equal(buf, "/sub/f", 6);
	assert_int_equal(fs_creat(&e, "made", 0644), 0);
	assert_int_equal(access(host_path("/sub/deep/inner/made"), F_OK), 0);
	assert_int_equal(fs_unlink(&e, "made"), 0);
	assert_int_equal(dev_of("/sub"), sub);
	assert_int_equal(dev_of("/sub/deep/inner"), inner);
	assert_int_equal(mounts_at("/sub"), 1);
	assert_int_equal(fs_chdir(&e, "/"), 0);
	fs_close(a);
	fs_close(b);
	check_places();
}

/* The host unmounts: the next look finds what was below, and no mount stays. */
static void test_host_unmounts(void **state)
{
	const char *options = getenv("VIRTIOFS_OPTIONS");
	struct moat_statx st;

	(void)state;
	/* Ours has a namespace of its own, where it stays mounted. */
	if (!options || !strstr(options, "cache=none") || strcmp(getenv("VIRTIOFSD"), "stock"))
		skip();
	assert_int_equal(umount2(host_path("/sub/deep/inner"), MNT_DETACH), 0);
	assert_int_equal(fs_stat(&e, "/sub/deep/inner/f", &st), -ENOENT);
	assert_int_equal(dev_of("/sub/deep/inner"), dev_of("/sub"));
	assert_int_equal(mounts_at("/sub/deep/inner"), 0);
}

/*
 * The host has bound /plain to /fixed, read-only: what a file there refuses it does not refuse in /plain, whichever was looked at first. Only ours
 * tells them apart: Debian's has one node for both, in the mount where it saw the file first.
 */
static void test_read_only_bind(void **state)
{
	static const char *const names[2][2] = {{"/plain/f", "/fixed/f"}, {"/plain/g", "/fixed/g"}};
	struct moat_statx st, same;
	struct file *f;

	(void)state;
	if (!getenv("VIRTIOFSD") || strcmp(getenv("VIRTIOFSD"), "own"))
		skip();
	host_file("/plain/g");
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(fs_stat(&e, names[i][i], &st), 0);
		assert_int_equal(fs_stat(&e, names[i][!i], &same), 0);
		assert_int_equal(st.ino, same.ino);
		assert_int_equal(fs_open(&e, names[i][1], O_RDWR, 0, &f), -EROFS);
		assert_int_equal(fs_chmod(&e, names[i][1], 0600), -EROFS);
		assert_int_equal(fs_open(&e, names[i][0], O_RDWR, 0, &f), 0);
		fs_close(f);
		assert_int_equal(fs_chmod(&e, names[i][0], 0640), 0);
		/* One gone from the caches, the other goes on telling of changes. */
		assert_int_equal(fs_unlink(&e, names[i][1]), -EROFS);
		assert_int_equal(fs_unlink(&e, names[i][0]), 0);
	}
	assert_int_equal(fs_creat(&e, "/fixed/new", 0644), -EROFS);
	assert_int_equal(fs_mkdir(&e, "/fixed/new", 0755), -EROFS);
}

/* A daemon that tells of none. */
static void test_not_announced(void **state)
{
	(void)state;
	assert_int_equal(dev_of("/sub/deep/inner/f"), dev_of("/"));
	assert_int_equal(mounts_at("/sub"), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mounts),	       cmocka_unit_test(test_shrinks),
		cmocka_unit_test(test_races),	       cmocka_unit_test(test_reconnect),
		cmocka_unit_test(test_read_only_bind), cmocka_unit_test(test_host_unmounts),
	};
	const struct CMUnitTest silent[] = {cmocka_unit_test(test_not_announced),
					    cmocka_unit_test(test_read_only_bind)};

	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
		printf("no mount namespace: %s\n", strerror(errno));
		return SKIPPED;
	}
	log_init(-1, LOG_ERROR_LEVEL, "test");
	if (fs_env_process_init() || guard_install())
		return 1;
	if (!getenv("VIRTIOFSD_MORE"))
		return cmocka_run_group_tests(silent, make_tree, drop_tree);
	return cmocka_run_group_tests(tests, make_tree, drop_tree);
}
