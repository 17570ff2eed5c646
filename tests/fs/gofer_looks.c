/*
 * Round trips of the gofer's client where a program looks at the files of one directory after another: what is asked for together with it, what not, and
 * whether files have ACLs. GOFER_SHARED: a shared tree, where nothing is.
 */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include <cmocka.h>

#include "base/log.h"
#include "fsimpl/gofer/gofer_fs.h"
#include "tests/fs/backend_gofer.h"
#include "tests/fs/env.h"
#include "tests/fs/trips.h"

static struct fs_env e;
static char buf[1 << 16];
static bool shared;

static uint64_t requests(void)
{
	return p9_conn_requests(backend_gofer_conn());
}

static uint64_t received(void)
{
	return p9_conn_received(backend_gofer_conn());
}

static int setup(void **state)
{
	(void)state;
	return fs_env_init(&e);
}

static int teardown(void **state)
{
	(void)state;
	fs_env_fini(&e);
	return 0;
}

#define SPENT_DIRS 120u
#define SPENT_FILES 20u

/* The first `files` files of a directory. Return: the requests that it cost, or -errno. */
static int stat_spent(unsigned dir, unsigned files)
{
	uint64_t before = requests();
	struct moat_statx st;
	char path[64];
	int err = 0;

	for (unsigned f = 0; f < files && !err; f++) {
		snprintf(path, sizeof(path), "/spent/d%03u/f%02u", dir, f);
		err = fs_stat(&e, path, &st);
	}
	return err ? err : (int)(requests() - before);
}

/* Of directories first..end-1, one after another. */
static unsigned stat_spent_dirs(unsigned first, unsigned end, unsigned files)
{
	unsigned ret = 0;

	for (unsigned d = first; d < end; d++) {
		int trips = stat_spent(d, files);

		assert_true(trips >= 0);
		ret += (unsigned)trips;
	}
	return ret;
}

static int make_spent(void)
{
	char path[256];
	int err;

	snprintf(path, sizeof(path), "%s/spent", backend_gofer_dir());
	err = mkdir(path, 0755);
	for (unsigned d = 0; d < SPENT_DIRS && !err; d++) {
		snprintf(path, sizeof(path), "%s/spent/d%03u", backend_gofer_dir(), d);
		err = mkdir(path, 0755);
		for (unsigned f = 0; f < SPENT_FILES && !err; f++) {
			snprintf(path, sizeof(path), "%s/spent/d%03u/f%02u", backend_gofer_dir(), d,
				 f);
			err = close(creat(path, 0644));
		}
	}
	return err;
}

/*
 * git looks at each file of one directory after another. Where that was well spent for some, the next one's entries are asked for at its first file, and
 * those of the next few by name with it; who looks at one file of each is back at a request a file soon.
 */
static void test_stats_of_many(void **state)
{
	unsigned trips;

	(void)state;
	assert_int_equal(make_spent(), 0);
	/* The directories are known: else a walk to a file asks for both at once. */
	gofer_fs_shrink(e.root.mount->root->fs);
	assert_int_equal(fs_list(&e, "/spent", buf, sizeof(buf)), SPENT_DIRS);
	if (shared) {
		assert_int_equal(stat_spent_dirs(0, 4, SPENT_FILES), 4 * SPENT_FILES);
		return;
	}
	/* The third name asks for all; in the second directory for four more directories. */
	assert_int_equal(stat_spent(0, SPENT_FILES), 3);
	assert_int_equal(stat_spent(1, SPENT_FILES), 3 + 4);
	assert_int_equal(stat_spent_dirs(2, 6, SPENT_FILES), 0);
	/* Then the first does, for eight more, and for sixteen. */
	assert_int_equal(stat_spent(6, SPENT_FILES), 1 + 8);
	assert_int_equal(stat_spent_dirs(7, 15, SPENT_FILES), 0);
	assert_int_equal(stat_spent(15, SPENT_FILES), 1 + 16);
	assert_int_equal(stat_spent_dirs(16, 32, SPENT_FILES), 0);
	/* Never more than one a directory, and as few attributes as before in the end. */
	trips = stat_spent_dirs(32, SPENT_DIRS - 8, 1);
	assert_in_range(trips, SPENT_DIRS - 8 - 32, SPENT_DIRS - 32);
	assert_int_equal(stat_spent_dirs(SPENT_DIRS - 8, SPENT_DIRS, 1), 8);
	trips = (unsigned)received();
	assert_int_equal(stat_spent(SPENT_DIRS - 1, 1), 0);
	assert_int_equal(stat_spent(SPENT_DIRS - 1, 2), 1);
	assert_true((unsigned)received() - trips < 1024);
}

/* Nothing is asked ahead that the program may not search; what changes meanwhile is seen. */
static void test_siblings(void **state)
{
	struct moat_statx st;
	char path[64];

	(void)state;
	if (shared)
		return;
	assert_int_equal(make_spent(), 0);
	for (unsigned d = 2; d < SPENT_DIRS; d += 2) {
		snprintf(path, sizeof(path), "/spent/d%03u", d);
		assert_int_equal(fs_chmod(&e, path, 0700), 0);
	}
	assert_int_equal(fs_env_become(&e, 1000, 1000, NULL, 0, 0), 0);
	gofer_fs_shrink(e.root.mount->root->fs);
	assert_int_equal(TRIPS(fs_list(&e, "/spent", buf, sizeof(buf))), 2);
	assert_int_equal(stat_spent(0, SPENT_FILES), 3);
	assert_int_equal(stat_spent(1, SPENT_FILES), 3 + 4);
	assert_int_equal(stat_spent(2, 1), -EACCES);
	assert_int_equal(stat_spent(3, SPENT_FILES), 0);
	assert_int_equal(stat_spent(9, SPENT_FILES), 0);
	assert_int_equal(fs_env_become(&e, 0, 0, NULL, 0, ~0ull), 0);
	assert_int_equal(fs_unlink(&e, "/spent/d005/f05"), 0);
	assert_int_equal(fs_rename(&e, "/spent/d005/f06", "/spent/d003/new", 0), 0);
	assert_int_equal(fs_creat(&e, "/spent/d007/new", 0600), 0);
	assert_int_equal(fs_stat(&e, "/spent/d005/f05", &st), -ENOENT);
	assert_int_equal(fs_stat(&e, "/spent/d005/f06", &st), -ENOENT);
	assert_int_equal(fs_stat(&e, "/spent/d003/new", &st), 0);
	assert_int_equal(fs_stat(&e, "/spent/d007/new", &st), 0);
	assert_int_equal(st.mode & 07777, 0600);
	assert_int_equal(fs_list(&e, "/spent/d005", buf, sizeof(buf)), SPENT_FILES - 2);
	assert_int_equal(fs_list(&e, "/spent/d007", buf, sizeof(buf)), SPENT_FILES + 1);
}

/* ---- ACLs ---- */

#define ACL_FILES 20u
#define ACL_DENIED 15u /* of them, whose ACL denies user 1000 what its mode allows */

static int make_acls(const char *name)
{
	static const struct {
		uint32_t version;
		struct {
			uint16_t tag, perm;
			uint32_t id;
		} e[5];
	} acl = {2, {{1, 6, -1u}, {2, 0, 1000}, {4, 4, -1u}, {16, 4, -1u}, {32, 4, -1u}}};
	char path[256];
	int err;

	snprintf(path, sizeof(path), "%s/%s", backend_gofer_dir(), name);
	err = mkdir(path, 0755);
	for (unsigned i = 0; i < ACL_FILES && !err; i++) {
		snprintf(path, sizeof(path), "%s/%s/f%02u", backend_gofer_dir(), name, i);
		err = close(creat(path, 0644));
	}
	snprintf(path, sizeof(path), "%s/%s/f%02u", backend_gofer_dir(), name, ACL_DENIED);
	return err ? err : setxattr(path, "system.posix_acl_access", &acl, sizeof(acl), 0);
}

/* Looks whether each file may be read. Return: the requests that it cost. */
static unsigned access_acls(const char *name, bool denied)
{
	uint64_t before = requests();
	char path[64];

	for (unsigned i = 0; i < ACL_FILES; i++) {
		snprintf(path, sizeof(path), "/%s/f%02u", name, i);
		assert_int_equal(fs_access(&e, path, R_OK),
				 denied && i == ACL_DENIED ? -EACCES : 0);
	}
	return (unsigned)(requests() - before);
}

static void test_acls(void **state)
{
	(void)state;
	if (make_acls("before")) {
		assert_int_equal(errno, EOPNOTSUPP);
		skip();
	}
	assert_int_equal(make_acls("after"), 0);
	assert_int_equal(fs_list(&e, "/before", buf, sizeof(buf)), ACL_FILES);
	/* Root needs none. */
	assert_int_equal(access_acls("before", false), shared ? ACL_FILES : 0);
	assert_int_equal(fs_env_become(&e, 1000, 1000, NULL, 0, 0), 0);
	if (shared) {
		/* Each walk tells; the one ACL is fetched. */
		assert_int_equal(access_acls("before", true), ACL_FILES + 1);
		return;
	}
	/* What was told before, by file: the directory, two files, all, the ACL. */
	assert_int_equal(access_acls("before", true), 1 + 2 + 1 + 1);
	assert_int_equal(access_acls("before", true), 0);
	/* What is told from now on comes with it. */
	assert_int_equal(TRIPS(fs_list(&e, "/after", buf, sizeof(buf))), 2);
	assert_int_equal(access_acls("after", true), 1);
}

/* ---- extended attributes ---- */

#define XATTR_DIRS 60u
#define XATTR_FILES 30u
#define AHEAD_MAX 32u /* directories that a listing asks for with it */
#define XATTR_HAS 7u /* the file of each directory that has one */

static int make_xattrs(void)
{
	char path[256];
	int err;

	snprintf(path, sizeof(path), "%s/xattrs", backend_gofer_dir());
	err = mkdir(path, 0755);
	for (unsigned d = 0; d < XATTR_DIRS && !err; d++) {
		snprintf(path, sizeof(path), "%s/xattrs/d%02u", backend_gofer_dir(), d);
		err = mkdir(path, 0755);
		for (unsigned f = 0; f < XATTR_FILES && !err; f++) {
			snprintf(path, sizeof(path), "%s/xattrs/d%02u/f%02u", backend_gofer_dir(),
				 d, f);
			err = close(creat(path, 0644));
			if (!err && f == XATTR_HAS)
				err = setxattr(path, "user.a", "value", 5, 0);
		}
	}
	return err;
}

static ssize_t get_user_a(const char *path, char *value, size_t size)
{
	const struct xattr_args args = {.name = "user.a", .value = value, .size = size};
	struct vfs_lookup lk = fs_env_at(&e, path, 0);

	return vfs_get_xattr(&lk, &args);
}

/* As ls -l: a listing, then each file's attributes, and which it has. Return: the requests that it cost. */
static unsigned ls_xattrs(unsigned dir, bool ask)
{
	uint64_t before = requests();
	char path[64], names[1024], value[8];
	struct moat_statx st;

	snprintf(path, sizeof(path), "/xattrs/d%02u", dir);
	assert_int_equal(fs_list(&e, path, names, sizeof(names)), XATTR_FILES);
	for (unsigned f = 0; f < XATTR_FILES; f++) {
		bool has = f == XATTR_HAS;

		snprintf(path, sizeof(path), "/xattrs/d%02u/f%02u", dir, f);
		assert_int_equal(fs_stat(&e, path, &st), 0);
		if (!ask)
			continue;
		assert_int_equal(get_user_a(path, value, sizeof(value)), has ? 5 : -ENODATA);
	}
	return (unsigned)(requests() - before);
}

/* Who asks for extended attributes of one file after another is told with listings which have none; who stops asking costs the server no more for it. */
static void test_xattrs(void **state)
{
	const struct xattr_args set = {.name = "user.a", .value = "new", .size = 3};
	struct vfs_lookup lk;
	unsigned trips = 0;
	char value[8];

	(void)state;
	if (shared)
		return;
	if (make_xattrs()) {
		assert_int_equal(errno, EOPNOTSUPP);
		skip();
	}
	gofer_fs_shrink(e.root.mount->root->fs);
	assert_int_equal(fs_list(&e, "/xattrs", buf, sizeof(buf)), XATTR_DIRS);
	/* The listing, eight files (one of which has one, which is got), and all. */
	assert_int_equal(ls_xattrs(0, true), 1 + 8 + 1 + 1);
	/* The listing, and what there is: its names, and it. */
	for (unsigned d = 1; d < 10; d++)
		trips += ls_xattrs(d, true);
	assert_in_range(trips, 9 * 2, 9 * 3 + AHEAD_MAX);
	/* What is set is seen. */
	lk = fs_env_at(&e, "/xattrs/d05/f01", 0);
	assert_int_equal(vfs_set_xattr(&lk, &set), 0);
	assert_int_equal(get_user_a("/xattrs/d05/f01", value, sizeof(value)), 3);
	assert_int_equal(get_user_a("/xattrs/d05/f02", value, sizeof(value)), -ENODATA);
	/* Nobody asks for a thousand entries: they are told of no more. */
	for (unsigned d = 10; d < XATTR_DIRS - 1; d++)
		(void)ls_xattrs(d, false);
	assert_int_equal(get_user_a("/xattrs/d12/f02", value, sizeof(value)), -ENODATA);
	/* Two files, all, what there is. */
	assert_in_range(ls_xattrs(XATTR_DIRS - 1, true), 2 + 1 + 2, 2 + 1 + 2 + 1 + AHEAD_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_stats_of_many, setup, teardown),
		cmocka_unit_test_setup_teardown(test_siblings, setup, teardown),
		cmocka_unit_test_setup_teardown(test_acls, setup, teardown),
		cmocka_unit_test_setup_teardown(test_xattrs, setup, teardown),
	};

	shared = getenv("GOFER_SHARED") != NULL;
	log_init(-1, LOG_ERROR_LEVEL, "test");
	if (fs_env_process_init())
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
