// LINK: moat_gofer moat_gofer_fs moat_vfs moat_mem moat_wire seccomp
/*
 * The end of watched directories on a server's file system: it is told when it is there, whatever the cache knew of what was in them. Twice: as the
 * only writer, and with the host as another.
 */
#include "fsimpl/gofer/conn.h"
#include "tests/unit/p9_gofer_fixture.h"
#include "vfs/inotify.h"

#define MANY 1000

static struct file *watcher;

static int watch_setup(void **state)
{
	return setup(state) || inotify_file_create(&fx.root, O_NONBLOCK, &watcher);
}

static int watch_teardown(void **state)
{
	if (watcher)
		file_unref(watcher);
	watcher = NULL;
	return teardown(state);
}

static int watch(const char *path)
{
	struct vfs_lookup lk = at(path, 0);
	struct vfs_path p;
	int wd;

	assert_int_equal(vfs_get_path(&lk, &p), 0);
	wd = inotify_file_add_watch(watcher, &p, IN_DELETE_SELF);
	assert_true(wd > 0);
	vfs_path_unref(&p);
	return wd;
}

/* The next event is that of wd's end, and then the watch's. */
static void assert_deleted(int wd)
{
	struct inotify_event ev[2] = {0};
	struct io_iter it;

	vfs_run_deferred();
	io_iter_init_kernel(&it, ev, sizeof(ev), true);
	assert_int_equal(file_read_iter(watcher, &it, NULL, 0), sizeof(ev));
	io_iter_fini(&it);
	assert_int_equal(ev[0].mask, IN_DELETE_SELF);
	assert_int_equal(ev[0].wd, wd);
	assert_int_equal(ev[1].mask, IN_IGNORED);
}

static void assert_nothing(void)
{
	vfs_run_deferred();
	assert_int_equal(watcher->ops->poll(watcher), 0);
}

static void make(const char *path)
{
	struct vfs_lookup lk = at(path, 0);

	assert_int_equal(vfs_mknod(&lk, &(struct mknod_args){.mode = S_IFREG | 0644}), 0);
}

static void missing(const char *path)
{
	struct moat_statx st;

	assert_int_equal(do_stat(path, &st), -ENOENT);
}

/* Only d is watched; what is known not to be in d/e/g holds that, and so on upwards. */
static void test_tree(void **state)
{
	int wd;

	(void)state;
	assert_int_equal(do_mkdir("d", 0755), 0);
	assert_int_equal(do_mkdir("d/e", 0755), 0);
	assert_int_equal(do_mkdir("d/e/g", 0755), 0);
	make("d/e/g/f");
	wd = watch("d");
	assert_int_equal(do_unlink("d/e/g/f"), 0);
	missing("d/e/g/none");
	assert_int_equal(do_rmdir("d/e/g"), 0);
	missing("d/e/none");
	assert_int_equal(do_rmdir("d/e"), 0);
	assert_nothing();
	assert_int_equal(do_rmdir("d"), 0);
	assert_deleted(wd);
}

static void test_replaced_tree(void **state)
{
	int wd;

	(void)state;
	assert_int_equal(do_mkdir("d", 0755), 0);
	assert_int_equal(do_mkdir("d/e", 0755), 0);
	assert_int_equal(do_mkdir("new", 0755), 0);
	missing("d/e/none");
	make("new/f");
	wd = watch("d");
	assert_int_equal(do_rmdir("d/e"), 0);
	assert_int_equal(do_rename("new", "d", 0), 0);
	assert_deleted(wd);
	/* What came in its place has lost nothing. */
	assert_int_equal(do_unlink("d/f"), 0);
}

/* What is beside the directory stays known. */
static void test_many_names(void **state)
{
	struct moat_statx st;
	uint64_t before;
	char name[32];
	int wd;

	(void)state;
	assert_int_equal(do_mkdir("d", 0755), 0);
	assert_int_equal(do_mkdir("other", 0755), 0);
	make("other/f");
	assert_int_equal(do_stat("other/f", &st), 0);
	missing("other/none");
	for (int i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "d/none%d", i);
		missing(name);
	}
	wd = watch("d");
	assert_int_equal(do_rmdir("d"), 0);
	assert_deleted(wd);
	before = p9_conn_requests(fx.conn);
	assert_int_equal(do_stat("other/f", &st), 0);
	missing("other/none");
	if (!shared_mode)
		assert_int_equal(p9_conn_requests(fx.conn), before);
}

/* An open file in it keeps the directory: Linux's dentries do. */
static void test_open_below(void **state)
{
	struct file *f;
	int d, e;

	(void)state;
	assert_int_equal(do_mkdir("d", 0755), 0);
	assert_int_equal(do_mkdir("d/e", 0755), 0);
	d = watch("d");
	e = watch("d/e");
	assert_int_equal(do_open("d/e", O_RDONLY | O_DIRECTORY, 0, &f), 0);
	assert_int_equal(do_rmdir("d/e"), 0);
	assert_int_equal(do_rmdir("d"), 0);
	assert_nothing();
	file_unref(f);
	assert_deleted(e);
	assert_deleted(d);
}

/* The cache still has what another removed. */
static void test_removed_by_another(void **state)
{
	struct dentry *parent = NULL;
	struct moat_statx st;
	struct file *f;
	char name[64];
	int wd;

	(void)state;
	if (!shared_mode)
		skip();
	assert_int_equal(do_mkdir("d", 0755), 0);
	assert_int_equal(do_mkdir("d/e", 0755), 0);
	make("d/e/f");
	make("d/g");
	assert_int_equal(do_stat("d/e/f", &st), 0);
	assert_int_equal(do_open("d/g", O_RDONLY, 0, &f), 0);
	wd = watch("d");
	assert_int_equal(unlink(host("d/e/f")), 0);
	assert_int_equal(rmdir(host("d/e")), 0);
	assert_int_equal(unlink(host("d/g")), 0);
	assert_int_equal(do_rmdir("d"), 0);
	assert_nothing();
	/* It has no name any more. */
	assert_int_equal(f->path.dentry->fs->ops->get_parent(f->path.dentry, &parent, name,
							     sizeof(name)),
			 -ENOENT);
	dentry_unref(parent);
	file_unref(f);
	assert_deleted(wd);
}

/* A name that is asked for in a directory that is gone says nothing that would hold it. */
static void test_asked_afterwards(void **state)
{
	struct moat_statx st;
	struct vfs_lookup lk;
	struct file *f;
	int wd;

	(void)state;
	assert_int_equal(do_mkdir("d", 0755), 0);
	wd = watch("d");
	assert_int_equal(do_open("d", O_RDONLY | O_DIRECTORY, 0, &f), 0);
	assert_int_equal(do_rmdir("d"), 0);
	lk = at("none", 0);
	lk.start = f->path;
	assert_int_equal(vfs_stat(&lk, &(struct stat_args){.mask = STATX_INO}, &st), -ENOENT);
	assert_nothing();
	file_unref(f);
	assert_deleted(wd);
}

/* While a watch lets go of its inode it counts: whoever removes that inode's last name must know. */
static void test_count(void **state)
{
	(void)state;
	make("f");
	assert_false(vfs_notify_wanted());
	assert_int_equal(inotify_file_rm_watch(watcher, watch("f")), 0);
	assert_true(vfs_notify_wanted());
	vfs_run_deferred();
	assert_false(vfs_notify_wanted());
}

static void test_seek_too_far(void **state)
{
	struct file *f;

	(void)state;
	assert_int_equal(do_mkdir("d", 0755), 0);
	assert_int_equal(do_open("d", O_RDONLY | O_DIRECTORY, 0, &f), 0);
	assert_int_equal(file_seek(f, 2, SEEK_SET), 2);
	assert_int_equal(file_seek(f, INT64_MAX, SEEK_CUR), -EINVAL);
	assert_int_equal(file_seek(f, 0, SEEK_CUR), 2);
	file_unref(f);
}

#define WATCH(name) cmocka_unit_test_setup_teardown(name, watch_setup, watch_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WATCH(test_tree),
		WATCH(test_replaced_tree),
		WATCH(test_many_names),
		WATCH(test_open_below),
		WATCH(test_removed_by_another),
		WATCH(test_asked_afterwards),
		WATCH(test_count),
		WATCH(test_seek_too_far),
	};
	int ret;

	signal(SIGPIPE, SIG_IGN);
	ret = cmocka_run_group_tests_name("only writer", tests, init, NULL);
	shared_mode = true;
	return ret + cmocka_run_group_tests_name("shared", tests, NULL, NULL);
}
