// LINK: moat_synth moat_memfs moat_vfs moat_mem
/* Synthetic filesystems: static tables, dynamic entries that come and go, symlinks and magic links, show and store, mounts on nodes. */
#include "tests/unit/check.h"

#include <pthread.h>
#include <sys/mount.h>

#include "base/rcu.h"
#include "fsimpl/memfs/memfs.h"
#include "fsimpl/synth/synth.h"
#include "mem/memfile.h"

static struct mount_namespace *ns;
static struct vfs_path root;
static int value = 7, shows;
static _Atomic bool task_alive = true;

static int value_show(struct synth_node *n, struct synth_file *sf, struct buf *b)
{
	(void)n, (void)sf;
	shows++;
	buf_printf(b, "%d\n", value);
	return 0;
}
static ssize_t value_store(struct synth_node *n, struct synth_file *sf, const char *data,
			   size_t size, int64_t off)
{
	uint64_t v;
	int err = synth_parse_u64(data, size, 100, &v);

	(void)n, (void)sf, (void)off;
	if (err)
		return err;
	value = (int)v;
	return (ssize_t)size;
}
static int self_readlink(struct synth_node *n, struct buf *b)
{
	(void)n;
	buf_puts(b, "12");
	return 0;
}
static int magic_readlink(struct synth_node *n, struct buf *b)
{
	(void)n;
	buf_puts(b, "/nowhere");
	return 0;
}
static int magic_jump(struct synth_node *n, struct vfs_path *ret)
{
	(void)n;
	*ret = root;
	vfs_path_ref(ret);
	return 0;
}
static bool pid_valid(struct synth_node *n)
{
	(void)n;
	return task_alive;
}

static const struct synth_node_ops value_ops = {.show = value_show, .store = value_store};
static const struct synth_node_ops self_ops = {.readlink = self_readlink};
static const struct synth_node_ops magic_ops = {.readlink = magic_readlink, .jump = magic_jump};
static const struct synth_node_ops pid_ops = {.revalidate = pid_valid};
static const struct synth_entry pid_entries[] = {
	{.name = "value", .mode = S_IFREG | 0644, .ops = &value_ops},
	{.name = "root", .mode = S_IFLNK | 0777, .ops = &magic_ops},
	{0},
};

static int pid_lookup(struct synth_node *dir, const char *name, size_t len, struct synth_node **ret)
{
	int err;

	if (!task_alive || len != 2 || memcmp(name, "12", 2))
		return -ENOENT;
	err = synth_node_create(dir, name, len, S_IFDIR | 0555, &pid_ops, NULL, ret);
	if (!err)
		(*ret)->children = pid_entries;
	return err;
}
static int pid_iterate(struct synth_node *dir, int64_t from, struct synth_iter *it)
{
	(void)dir;
	if (from <= 12 && task_alive)
		synth_emit(it, "12", 2, S_IFDIR, 0, 12);
	return 0;
}

static const struct synth_node_ops root_ops = {.lookup = pid_lookup, .iterate = pid_iterate};
static const struct synth_entry dir_entries[] = {
	{.name = "value", .mode = S_IFREG | 0644, .ops = &value_ops},
	{.name = "empty", .mode = S_IFDIR | 0755},
	{0},
};
static const struct synth_entry root_entries[] = {
	{.name = "value", .mode = S_IFREG | 0644, .ops = &value_ops},
	{.name = "dir", .mode = S_IFDIR | 0755, .children = dir_entries},
	{.name = "self", .mode = S_IFLNK | 0777, .ops = &self_ops},
	{0},
};

static struct filesystem_type synth_type = {.name = "synthtest", .flags = FS_NODEV};

static struct vfs_lookup at(const char *path, unsigned flags)
{
	return (struct vfs_lookup){.cred = cred_current(),
				   .ns = ns,
				   .root = root,
				   .start = root,
				   .path = path,
				   .flags = flags};
}
static int do_stat(const char *path, struct moat_statx *st)
{
	struct vfs_lookup lk = at(path, LOOKUP_FOLLOW);

	return vfs_stat(&lk, &(struct stat_args){0}, st);
}
static int do_open(const char *path, unsigned flags, struct file **ret)
{
	struct vfs_lookup lk = at(path, LOOKUP_FOLLOW);

	return vfs_open(&lk, &(struct open_args){.flags = flags}, ret);
}
static ssize_t do_read(struct file *f, char *buf, size_t size, int64_t off)
{
	struct io_iter it;
	ssize_t n;

	io_iter_init_kernel(&it, buf, size - 1, true);
	n = file_read_iter(f, &it, &off, 0);
	if (n >= 0)
		buf[n] = '\0';
	return n;
}
static ssize_t do_write(struct file *f, const char *s)
{
	struct io_iter it;

	io_iter_init_kernel(&it, (void *)s, strlen(s), false);
	return file_write_iter(f, &it, NULL, 0);
}

static void test_files(void **state)
{
	struct file *f;
	char buf[32];

	(void)state;
	assert_int_equal(do_open("/s/value", O_RDWR, &f), 0);
	assert_int_equal(do_read(f, buf, sizeof(buf), 0), 2);
	assert_string_equal(buf, "7\n");
	shows = 0;
	assert_int_equal(do_read(f, buf, sizeof(buf), 1), 1); /* what was rendered */
	assert_int_equal(shows, 0);
	assert_int_equal(do_write(f, " 42\n"), 4);
	assert_int_equal(value, 42);
	assert_int_equal(do_write(f, "x"), -EINVAL);
	assert_int_equal(do_write(f, "101"), -ERANGE);
	assert_int_equal(do_read(f, buf, sizeof(buf), 0), 3);
	file_unref(f);
	assert_int_equal(do_open("/s/value", O_RDONLY | O_DIRECTORY, &f), -ENOTDIR);
	assert_int_equal(do_open("/s/none", O_RDONLY, &f), -ENOENT);
	assert_int_equal(do_open("/s/none", O_RDWR | O_CREAT, &f), -EACCES);
	assert_int_equal(do_open("/s", O_WRONLY, &f), -EISDIR);
	value = 7;
}

static void test_links(void **state)
{
	struct moat_statx a, b;
	struct vfs_lookup lk;
	char buf[32];
	size_t len;

	(void)state;
	assert_int_equal(do_stat("/s/self/value", &a), 0);
	assert_int_equal(do_stat("/s/12/value", &b), 0);
	assert_int_equal(a.ino, b.ino);
	/* The text of a magic link is for show: following it jumps. */
	lk = at("/s/12/root", 0);
	assert_int_equal(vfs_readlink(&lk, buf, sizeof(buf), &len), 0);
	assert_memory_equal(buf, "/nowhere", len);
	assert_int_equal(do_stat("/s/12/root/s/12/..", &a), 0);
	assert_int_equal(do_stat("/s", &b), 0);
	assert_int_equal(a.ino, b.ino);
	lk = at("/s/12/root", LOOKUP_FOLLOW | LOOKUP_NO_MAGICLINKS);
	assert_int_equal(vfs_stat(&lk, &(struct stat_args){0}, &a), -ELOOP);
}

static void test_dynamic(void **state)
{
	struct moat_statx st;
	struct file *dir;
	struct vfs_lookup lk;

	(void)state;
	assert_int_equal(do_open("/s/12", O_RDONLY | O_DIRECTORY, &dir), 0);
	lk = at("/s/12/value", LOOKUP_FOLLOW);
	assert_int_equal(vfs_mount_new(&lk, "tmpfs", "tmpfs", 0, NULL, NULL), -ENOTDIR);
	lk = at("/s/12", LOOKUP_FOLLOW);
	assert_int_equal(vfs_mount_new(&lk, "tmpfs", "tmpfs", 0, NULL, NULL), 0);
	assert_int_equal(do_stat("/s/12/value", &st), -ENOENT);
	assert_int_equal(do_stat("/s/12/../value", &st), 0);
	lk = at("/s/12", LOOKUP_FOLLOW);
	assert_int_equal(vfs_umount(&lk, 0), 0);
	/* The task dies: its name is gone, the open directory stays an object. */
	task_alive = false;
	assert_int_equal(do_stat("/s/12/value", &st), -ENOENT);
	lk = at("value", LOOKUP_FOLLOW);
	lk.start = dir->path;
	assert_int_equal(vfs_stat(&lk, &(struct stat_args){0}, &st), -ENOENT);
	file_unref(dir);
	task_alive = true;
	assert_int_equal(do_stat("/s/12/value", &st), 0);
	lk = at("/s/new", 0);
	assert_int_equal(vfs_mkdir(&lk, &(struct mkdir_args){.mode = 0755}), -EPERM);
	lk = at("/s/value", 0);
	assert_int_equal(vfs_unlink(&lk), -EPERM);
	assert_int_equal(vfs_rmdir(&lk), -ENOTDIR);
}

static uint64_t hits(void)
{
	struct path_cache_stats s;

	vfs_path_cache_stats(&s);
	return s.hits + s.negative_hits;
}

/* A path that was walked before is found in the path cache, also one that leads nowhere; what changes on the way is seen at once. */
static void test_path_cache(void **state)
{
	struct setattr_args closed = {.valid = SETATTR_MODE, .mode = 0700};
	struct moat_statx first, st;
	const struct cred *root_cred = cred_current();
	struct cred *user;
	struct vfs_lookup lk;
	uint64_t before;

	(void)state;
	assert_int_equal(cred_prepare(root_cred, &user), 0);
	user->fsuid = user->euid = 1000;
	user->cap_effective = 0;
	cred_commit(user);
	assert_int_equal(do_stat("/s/dir/empty/../value", &first), 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(do_stat("/s/dir/empty/../value", &st), 0);
		assert_int_equal(do_stat("/s/dir/empty/none", &st), -ENOENT);
	}
	before = hits();
	assert_int_equal(do_stat("/s/dir/empty/../value", &st), 0);
	assert_int_equal(do_stat("/s/dir/empty/none", &st), -ENOENT);
	assert_int_equal(hits(), before + 2);
	assert_int_equal(st.ino, first.ino);
	/* Not so where callbacks say what is there. */
	for (int i = 0; i < 3; i++) {
		before = hits();
		assert_int_equal(do_stat("/s/12/value", &st), 0);
		assert_int_equal(do_stat("/s/34", &st), -ENOENT);
		assert_int_equal(do_stat("/s/self/value", &st), 0);
		assert_int_equal(hits(), before);
	}
	cred_set_current(user);
	for (int i = 0; i < 3; i++)
		assert_int_equal(do_stat("/s/dir/value", &st), 0);
	cred_set_current(root_cred);
	lk = at("/s/dir", 0);
	assert_int_equal(vfs_set_stat(&lk, &closed), 0);
	cred_set_current(user);
	assert_int_equal(do_stat("/s/dir/value", &st), -EACCES);
	assert_int_equal(do_stat("/s/dir/none", &st), -EACCES);
	cred_set_current(root_cred);
	closed.mode = 0755;
	assert_int_equal(vfs_set_stat(&lk, &closed), 0);
	/* A mount on what is cached, and its end. */
	assert_int_equal(do_stat("/s/dir/empty", &first), 0);
	lk = at("/s/dir/empty", LOOKUP_FOLLOW);
	assert_int_equal(vfs_mount_new(&lk, "tmpfs", "tmpfs", 0, NULL, NULL), 0);
	assert_int_equal(do_stat("/s/dir/empty", &st), 0);
	assert_int_not_equal(st.dev_minor, first.dev_minor);
	assert_int_equal(vfs_umount(&lk, 0), 0);
	assert_int_equal(do_stat("/s/dir/empty", &st), 0);
	assert_int_equal(st.dev_minor, first.dev_minor);
	cred_unref(user);
}

static _Atomic bool walkers_stop;

static void *walker(void *cred)
{
	struct moat_statx st;
	uint64_t n = 0;

	rcu_thread_begin();
	cred_set_current(cred);
	while (!atomic_load_explicit(&walkers_stop, memory_order_relaxed)) {
		int err = do_stat(n & 1 ? "/s/12/value" : "/s/12/root/s/dir/empty", &st);

		assert_true(!err || err == -ENOENT);
		assert_int_equal(do_stat("/s/dir/value", &st), 0);
		n++;
	}
	cred_set_current(NULL);
	rcu_thread_end();
	return NULL;
}

/* Walks while what they stand on comes and goes. */
static void test_walk_against_changes(void **state)
{
	pthread_t threads[2];
	struct vfs_lookup lk;

	(void)state;
	atomic_store(&walkers_stop, false);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, walker, (void *)cred_current()),
				 0);
	for (int i = 0; i < 300; i++) {
		atomic_store(&task_alive, false);
		lk = at("/s/12", LOOKUP_FOLLOW);
		if (!vfs_mount_new(&lk, "tmpfs", "tmpfs", 0, NULL, NULL))
			assert_int_equal(vfs_umount(&lk, MNT_DETACH), 0);
		atomic_store(&task_alive, true);
		vfs_run_deferred();
	}
	atomic_store(&walkers_stop, true);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(threads[i], NULL);
	vfs_run_deferred();
}

static void count_dentries(void *arg, const char *name, int64_t live)
{
	if (!strcmp(name, "dentry"))
		*(int64_t *)arg = live;
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_files),
					   cmocka_unit_test(test_links),
					   cmocka_unit_test(test_dynamic),
					   cmocka_unit_test(test_path_cache),
					   cmocka_unit_test(test_walk_against_changes)};
	const struct synth_entry top = {
		.mode = S_IFDIR | 0555, .ops = &root_ops, .children = root_entries};
	struct memfs_options opts = {.mode = 0755};
	struct filesystem *fs;
	struct vfs_lookup lk;
	struct dentry *d;
	struct cred *cred;
	int64_t before = 0, after = 0;
	int failed;

	rcu_thread_begin();
	if (mem_init(0) || vfs_init() || cred_create_root(&cred))
		return 1;
	cred_set_current(cred);
	if (memfs_register())
		return 1;
	ref_report(count_dentries, &before);
	if (memfs_create_fs("tmpfs", &opts, &fs, &d) || mount_namespace_create(fs, d, 0, &ns))
		return 1;
	dentry_unref(d);
	filesystem_unref(fs);
	mount_namespace_root(ns, &root);
	lk = at("/s", 0);
	if (vfs_mkdir(&lk, &(struct mkdir_args){.mode = 0755}))
		return 1;
	if (synth_fs_create(&synth_type, "none", 0x1234, &top, NULL, NULL, &fs, &d))
		return 1;
	lk = at("/s", LOOKUP_FOLLOW);
	if (vfs_mount_fs(&lk, fs, d, 0))
		return 1;
	dentry_unref(d);
	filesystem_unref(fs);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	vfs_path_unref(&root);
	mount_namespace_unref(ns);
	for (int i = 0; i < 4; i++) {
		rcu_drain();
		vfs_run_deferred();
	}
	/* What the static tables name stayed as long as the filesystem, and no longer. */
	ref_report(count_dentries, &after);
	if (after != before)
		printf("%lld dentries are left\n", (long long)(after - before));
	return failed || after != before;
}
