/*
 * Round trips of the gofer's client, counted: how many requests an operation sends, cold and warm, where the path is eight directories deep.
 * GOFER_SHARED: a shared tree, where what is known is asked for again. Exact: one request too many fails.
 */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/log.h"
#include "fsimpl/gofer/gofer_fs.h"
#include "tests/fs/backend_gofer.h"
#include "tests/fs/env.h"
#include "tests/fs/trips.h"

#define DIR8 "/d0/d1/d2/d3/d4/d5/d6/d7"
#define ENTRIES 2000

static struct fs_env e;
static char buf[1 << 20];
static bool shared;

static uint64_t requests(void)
{
	return p9_conn_requests(backend_gofer_conn());
}

/* The same with nothing cached. */
#define COLD_TRIPS(expression)                           \
	({                                               \
		gofer_fs_shrink(e.root.mount->root->fs); \
		TRIPS(expression);                       \
	})

static int open_close(const char *path, int flags)
{
	struct file *f;
	int err = fs_open(&e, path, flags, 0644, &f);

	return err ? err : fs_close(f);
}

static int setup(void **state)
{
	char path[256];
	int err = fs_env_init(&e);

	(void)state;
	snprintf(path, sizeof(path), "%s", backend_gofer_dir());
	for (unsigned i = 0; i < 8 && !err; i++) {
		snprintf(path + strlen(path), sizeof(path) - strlen(path), "/d%u", i);
		err = mkdir(path, 0755);
	}
	strcat(path, "/file");
	return err ? err : close(creat(path, 0644));
}

static int teardown(void **state)
{
	(void)state;
	fs_env_fini(&e);
	return 0;
}

static void test_looks(void **state)
{
	struct moat_statx st;
	char target[16];

	(void)state;
	assert_int_equal(COLD_TRIPS(fs_stat(&e, DIR8 "/file", &st)), 1);
	assert_int_equal(TRIPS(fs_stat(&e, DIR8 "/file", &st)), shared);
	assert_int_equal(COLD_TRIPS(fs_access(&e, DIR8 "/file", R_OK)), 1);
	assert_int_equal(COLD_TRIPS(open_close(DIR8 "/file", O_RDONLY)), 1);
	assert_int_equal(TRIPS(open_close(DIR8 "/file", O_RDONLY)), shared);
	assert_int_equal(COLD_TRIPS(open_close(DIR8 "/file", O_RDWR)), 1);
	assert_int_equal(COLD_TRIPS(open_close(DIR8 "/file", O_RDWR | O_CREAT)), 1);
	assert_int_equal(COLD_TRIPS(fs_chdir(&e, DIR8)), 1);
	assert_int_equal(COLD_TRIPS(fs_stat(&e, "file", &st)), 1);
	assert_int_equal(TRIPS(fs_stat(&e, "..", &st)), shared ? 2 : 0);
	assert_int_equal(fs_chdir(&e, "/"), 0);
	assert_int_equal(fs_symlink(&e, "file", DIR8 "/link"), 0);
	assert_int_equal(COLD_TRIPS(fs_readlink(&e, DIR8 "/link", target, sizeof(target))), 1);
	/* The link's text is only known then. */
	assert_int_equal(COLD_TRIPS(fs_stat(&e, DIR8 "/link", &st)), 2);
	assert_int_equal(COLD_TRIPS(open_close(DIR8 "/link", O_RDONLY)), 2);
	assert_int_equal(fs_symlink(&e, "link", DIR8 "/link2"), 0);
	assert_int_equal(COLD_TRIPS(open_close(DIR8 "/link2", O_RDONLY)), 3);
	assert_int_equal(TRIPS(open_close(DIR8 "/link", O_RDONLY)), shared ? 2 : 0);
	/* What is behind the link's text is asked for by itself. */
	assert_int_equal(fs_symlink(&e, "d2/d3", "/d0/d1/half"), 0);
	assert_int_equal(COLD_TRIPS(open_close("/d0/d1/half/d4/d5/d6/d7/file", O_RDONLY)), 3);
}

static void test_changes(void **state)
{
	(void)state;
	assert_int_equal(COLD_TRIPS(open_close(DIR8 "/new", O_CREAT | O_WRONLY)), 1);
	assert_int_equal(TRIPS(open_close(DIR8 "/new2", O_CREAT | O_EXCL | O_RDWR)), 1);
	assert_int_equal(COLD_TRIPS(fs_mkdir(&e, DIR8 "/dir", 0755)), 1);
	assert_int_equal(TRIPS(fs_mkdir(&e, DIR8 "/dir2", 0755)), 1);
	assert_int_equal(COLD_TRIPS(fs_symlink(&e, "x", DIR8 "/sym")), 1);
	assert_int_equal(COLD_TRIPS(fs_mknod(&e, DIR8 "/fifo", S_IFIFO | 0600, 0, 0)), 1);
	/* The VFS looks for both places first. */
	assert_int_equal(COLD_TRIPS(fs_link(&e, DIR8 "/new", DIR8 "/hard", false)), shared ? 3 : 2);
	assert_int_equal(COLD_TRIPS(fs_unlink(&e, DIR8 "/hard")), 1);
	assert_int_equal(TRIPS(fs_unlink(&e, DIR8 "/new2")), 1);
	assert_int_equal(COLD_TRIPS(fs_rmdir(&e, DIR8 "/dir")), 1);
	assert_int_equal(COLD_TRIPS(fs_chmod(&e, DIR8 "/new", 0600)), 2);
}

/* From a directory that is held: by name, and known or not. */
static void test_held(void **state)
{
	(void)state;
	assert_int_equal(fs_chdir(&e, DIR8), 0);
	assert_int_equal(COLD_TRIPS(fs_creat(&e, "a", 0644)), 1);
	/* The VFS walks to both directories first, which in a shared tree is to look. */
	assert_int_equal(COLD_TRIPS(fs_rename(&e, "a", "b", 0)), shared ? 3 : 1);
	assert_int_equal(TRIPS(fs_rename(&e, "b", "c", 0)), shared ? 3 : 1);
	assert_int_equal(COLD_TRIPS(fs_unlink(&e, "c")), 1);
	assert_int_equal(COLD_TRIPS(fs_mkdir(&e, "d", 0755)), 1);
	assert_int_equal(TRIPS(fs_rmdir(&e, "d")), 1);
	assert_int_equal(fs_chdir(&e, "/"), 0);
}

/* Who may not do everything is checked first. */
static void test_unprivileged(void **state)
{
	(void)state;
	assert_int_equal(fs_chmod(&e, DIR8, 0777), 0);
	assert_int_equal(fs_env_become(&e, 1000, 1000, NULL, 0, 0), 0);
	assert_int_equal(COLD_TRIPS(open_close(DIR8 "/mine", O_CREAT | O_WRONLY)), 2);
	assert_int_equal(COLD_TRIPS(fs_unlink(&e, DIR8 "/mine")), 2);
	gofer_fs_shrink(e.root.mount->root->fs);
	assert_int_equal(fs_unlink(&e, DIR8 "/none"), -ENOENT);
	assert_int_equal(fs_creat(&e, "/d0/mine", 0644), -EACCES);
	assert_int_equal(fs_env_become(&e, 0, 0, NULL, 0, ~0ull), 0);
	assert_int_equal(fs_stat(&e, "/d0/mine", &(struct moat_statx){0}), -ENOENT);
}

static int stat_some(unsigned count)
{
	struct moat_statx st;
	char name[32];
	int err = 0;

	for (unsigned i = 0; i < count && !err; i++) {
		snprintf(name, sizeof(name), "/many/f%u", i);
		err = fs_stat(&e, name, &st);
	}
	return err;
}

static uint64_t received(void)
{
	return p9_conn_received(backend_gofer_conn());
}

static int stat_all(void)
{
	return stat_some(ENTRIES);
}

/* One name after another of a directory: the third that costs a request of its own asks for the entries with their attributes. */
static void test_stats_in_a_row(void **state)
{
	struct moat_statx st;
	char name[32];

	(void)state;
	assert_int_equal(fs_mkdir(&e, "/row", 0755), 0);
	for (unsigned i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "/row/f%u", i);
		assert_int_equal(fs_creat(&e, name, 0644), 0);
	}
	/* Only the names are dropped, and with them the directory, which counts anew. */
	assert_int_equal(COLD_TRIPS(fs_stat(&e, "/row/f7", &st)), 1);
	assert_int_equal(TRIPS(fs_stat(&e, "/row/f3", &st)), 1);
	assert_int_equal(TRIPS(fs_stat(&e, "/row/f5", &st)), 1);
	assert_int_equal(TRIPS(fs_stat(&e, "/row/f1", &st)), 1);
	for (unsigned i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "/row/f%u", i);
		assert_int_equal(TRIPS(fs_stat(&e, name, &st)), shared);
		assert_true(S_ISREG(st.mode));
	}
	/* The whole listing came along. */
	assert_int_equal(TRIPS(fs_list(&e, "/row", buf, sizeof(buf))), shared ? 2 : 0);
	assert_int_equal(fs_stat(&e, "/row/none", &st), -ENOENT);
}

static void test_lists(void **state)
{
	char name[32];

	(void)state;
	assert_int_equal(fs_mkdir(&e, "/many", 0755), 0);
	for (unsigned i = 0; i < ENTRIES; i++) {
		snprintf(name, sizeof(name), "/many/f%u", i);
		assert_int_equal(fs_creat(&e, name, 0644), 0);
	}
	/* 128 KiB a reply; an entry with attributes takes about 140 bytes. */
	assert_in_range(COLD_TRIPS(fs_list(&e, "/many", buf, sizeof(buf))), 2, 5);
	if (!shared)
		assert_int_equal(TRIPS(stat_all()), 0);
	/* What one reply told of a directory is kept until it changes. */
	assert_int_equal(COLD_TRIPS(fs_list(&e, DIR8, buf, sizeof(buf))), 2);
	assert_int_equal(TRIPS(fs_list(&e, DIR8, buf, sizeof(buf))), shared ? 2 : 0);
	assert_int_equal(fs_creat(&e, DIR8 "/more", 0644), 0);
	assert_int_equal(TRIPS(fs_list(&e, DIR8, buf, sizeof(buf))), shared ? 2 : 1);
	assert_non_null(strstr(buf, "more\n"));
	assert_int_equal(fs_rename(&e, DIR8 "/more", DIR8 "/less", 0), 0);
	assert_int_equal(fs_list(&e, DIR8, buf, sizeof(buf)), 2);
	assert_non_null(strstr(buf, "less\n"));
	assert_int_equal(fs_unlink(&e, DIR8 "/less"), 0);
	assert_int_equal(fs_list(&e, DIR8, buf, sizeof(buf)), 1);
}

/* ---- directories listed in order ---- */

static unsigned listed, at_once; /* directories; those that cost no request then */

static int list_counted(const char *path, char *names, size_t size)
{
	uint64_t before = requests();
	int ret = fs_list(&e, path, names, size);

	listed++;
	at_once += requests() == before;
	return ret;
}

/* As find does: a directory, then each of its subdirectories in the order of its listing. */
static int list_below(const char *path, unsigned levels)
{
	char names[4096], below[256], *save, *name;
	int ret = list_counted(path, names, sizeof(names));

	if (ret != (levels ? 10 : 6))
		return ret < 0 ? ret : -ENOENT;
	for (name = levels ? strtok_r(names, "\n", &save) : NULL; name;
	     name = strtok_r(NULL, "\n", &save)) {
		if (name[0] != 'd')
			continue;
		snprintf(below, sizeof(below), "%s/%s", path, name);
		ret = list_below(below, levels - 1);
		if (ret < 0)
			return ret;
	}
	return 0;
}

/* Six files and, above the last level, four directories each. */
static int make_below(const char *path, unsigned levels)
{
	char below[256];
	int err = mkdir(path, 0755);

	for (unsigned i = 0; i < 10 && !err; i++) {
		snprintf(below, sizeof(below), "%s/%c%u", path, i < 6 ? 'f' : 'd', i);
		if (i < 6)
			err = close(creat(below, 0644));
		else if (levels)
			err = make_below(below, levels - 1);
	}
	return err;
}

static void test_lists_in_order(void **state)
{
	char path[256];
	unsigned trips;

	(void)state;
	listed = at_once = 0;
	snprintf(path, sizeof(path), "%s/in-order", backend_gofer_dir());
	assert_int_equal(make_below(path, 4), 0);
	trips = COLD_TRIPS(list_below("/in-order", 4));
	assert_int_equal(listed, 1 + 4 + 16 + 64 + 256);
	if (shared) {
		assert_int_equal(at_once, 0);
		return;
	}
	/* Each is asked for once, and most of them while another is. */
	assert_in_range(trips, listed, listed + 2);
	assert_in_range(at_once, listed * 8 / 10, listed);
	/* What is made is seen, between those that were asked for and after. */
	assert_int_equal(COLD_TRIPS(list_below("/in-order/d6", 3)), 86);
	assert_int_equal(list_counted("/in-order/d7", buf, sizeof(buf)), 10);
	assert_int_equal(list_counted("/in-order/d7/d6", buf, sizeof(buf)), 10);
	assert_int_equal(list_counted("/in-order/d7/d6/d6", buf, sizeof(buf)), 10);
	assert_int_equal(fs_creat(&e, "/in-order/d7/d6/d6/d7/new", 0644), 0);
	assert_int_equal(list_counted("/in-order/d7/d6/d6/d7", buf, sizeof(buf)), 7);
	assert_int_equal(fs_unlink(&e, "/in-order/d7/d6/d6/d7/f0"), 0);
	assert_int_equal(list_counted("/in-order/d7/d6/d6/d7", buf, sizeof(buf)), 6);
}

/* Who stops, or lists something else, has not asked for much. */
static void test_lists_ahead_are_few(void **state)
{
	char path[512], names[16384], *save, *name;
	unsigned i;

	(void)state;
	snprintf(path, sizeof(path), "%s/wide", backend_gofer_dir());
	assert_int_equal(mkdir(path, 0755), 0);
	for (i = 0; i < 400; i++) {
		snprintf(path, sizeof(path), "%s/wide/d%03u", backend_gofer_dir(), i);
		assert_int_equal(mkdir(path, 0755), 0);
	}
	assert_int_equal(COLD_TRIPS(list_counted("/wide", names, sizeof(names))), 2);
	name = strtok_r(names, "\n", &save);
	for (i = 0; i < 10; i++, name = strtok_r(NULL, "\n", &save)) {
		snprintf(path, sizeof(path), "/wide/%s", name);
		/* 4, 8: twice as many each time */
		assert_in_range(TRIPS(list_counted(path, buf, sizeof(buf))), 0, 9);
	}
	/* Not in order: nothing is asked for ahead for long. */
	gofer_fs_shrink(e.root.mount->root->fs);
	assert_int_equal(list_counted("/wide", names, sizeof(names)), 400);
	for (i = 0; i < 100; i++) {
		snprintf(path, sizeof(path), "/wide/d%03u", i * 149 % 400);
		assert_in_range(TRIPS(list_counted(path, buf, sizeof(buf))), 0, 5);
	}
	assert_in_range(TRIPS(list_counted("/", buf, sizeof(buf))), 0, 2);
}

/* ---- files opened in order ---- */

#define OPENED_FILES 200

/* Each file's text is its name. Every third has a directory behind it. */
static int make_opened(void)
{
	char path[256];
	int err;

	snprintf(path, sizeof(path), "%s/opened", backend_gofer_dir());
	err = mkdir(path, 0755);
	for (unsigned i = 0; i < OPENED_FILES && !err; i++) {
		FILE *f;

		snprintf(path, sizeof(path), "%s/opened/f%03u", backend_gofer_dir(), i);
		f = fopen(path, "w");
		err = f && fprintf(f, "f%03u", i) == 4 && !fclose(f) ? 0 : -EIO;
		snprintf(path, sizeof(path), "%s/opened/s%03u", backend_gofer_dir(), i);
		if (!err && i % 3 == 0)
			err = mkdir(path, 0755);
	}
	return err;
}

/* Opens it and reads the four bytes that it must have. Counts as list_counted() does. */
static int read_counted(const char *name, const char *text)
{
	uint64_t before = requests();
	char path[64], got[8] = "";
	struct file *f;
	int err;

	snprintf(path, sizeof(path), "/opened/%s", name);
	err = fs_open(&e, path, O_RDONLY, 0, &f);
	if (err)
		return err;
	listed++;
	at_once += requests() == before;
	err = fs_read(f, got, sizeof(got)) == 4 && !strcmp(got, text) ? 0 : -EBADMSG;
	return fs_close(f) ? -EBADF : err;
}

/* The names of files as they are listed. Return: how many there are. */
static unsigned list_opened(char (*ret)[8])
{
	unsigned count = 0;
	char *save, *name;

	if (fs_list(&e, "/opened", buf, sizeof(buf)) < 0)
		return 0;
	for (name = strtok_r(buf, "\n", &save); name; name = strtok_r(NULL, "\n", &save))
		if (name[0] == 'f' && count < OPENED_FILES)
			snprintf(ret[count++], 8, "%s", name);
	return count;
}

/* As tar does: each file in the order of its directory's listing. */
static void test_opens_in_order(void **state)
{
	char names[OPENED_FILES][8];
	int trips = 0;

	(void)state;
	assert_int_equal(make_opened(), 0);
	gofer_fs_shrink(e.root.mount->root->fs);
	assert_int_equal(list_opened(names), OPENED_FILES);
	listed = at_once = 0;
	for (unsigned i = 0; i < OPENED_FILES; i++)
		trips += TRIPS(read_counted(names[i], names[i]));
	assert_int_equal(trips, OPENED_FILES);
	/* One that is waited for, and 32 others. */
	assert_in_range(at_once, shared ? 0 : OPENED_FILES * 9 / 10, shared ? 0 : listed);
	/* They stay open, as what was opened and closed does. */
	assert_int_equal(TRIPS(read_counted(names[7], names[7])), shared);
}

/* Who opens in another order, or leaves most out, has few opened for nothing. */
static void test_opens_ahead_are_few(void **state)
{
	char names[OPENED_FILES][8];
	unsigned opened = 0;
	int trips = 0;

	(void)state;
	assert_int_equal(make_opened(), 0);
	gofer_fs_shrink(e.root.mount->root->fs);
	assert_int_equal(list_opened(names), OPENED_FILES);
	for (unsigned i = 0; i < OPENED_FILES; i++)
		trips += TRIPS(
			read_counted(names[i * 77 % OPENED_FILES], names[i * 77 % OPENED_FILES]));
	assert_in_range(trips, OPENED_FILES, OPENED_FILES + 4);
	gofer_fs_shrink(e.root.mount->root->fs);
	assert_int_equal(list_opened(names), OPENED_FILES);
	trips = 0;
	for (unsigned i = 0; i < OPENED_FILES; i += 8, opened++)
		trips += TRIPS(read_counted(names[i], names[i]));
	assert_in_range(trips, opened, opened + 16);
}

/* What is changed between a descriptor's coming and its use. */
static void test_opens_ahead_and_changes(void **state)
{
	char names[OPENED_FILES][8], path[64];
	struct file *f;

	(void)state;
	assert_int_equal(make_opened(), 0);
	gofer_fs_shrink(e.root.mount->root->fs);
	assert_int_equal(list_opened(names), OPENED_FILES);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(read_counted(names[i], names[i]), 0);
	/* Removed and made anew. */
	snprintf(path, sizeof(path), "/opened/%s", names[4]);
	assert_int_equal(fs_unlink(&e, path), 0);
	assert_int_equal(fs_open(&e, path, O_RDONLY, 0, &f), -ENOENT);
	assert_int_equal(fs_open(&e, path, O_CREAT | O_EXCL | O_RDWR, 0644, &f), 0);
	assert_int_equal(fs_write(f, "anew", 4), 4);
	assert_int_equal(fs_close(f), 0);
	assert_int_equal(read_counted(names[4], "anew"), 0);
	/* Another's place taken. */
	snprintf(path, sizeof(path), "/opened/%s", names[6]);
	assert_int_equal(fs_rename(&e, path, "/opened/x", 0), 0);
	snprintf(path, sizeof(path), "/opened/%s", names[5]);
	assert_int_equal(fs_rename(&e, "/opened/x", path, 0), 0);
	assert_int_equal(read_counted(names[5], names[6]), 0);
	assert_int_equal(read_counted(names[6], names[6]), -ENOENT);
	/* No longer allowed: having a descriptor is no right to it. */
	snprintf(path, sizeof(path), "/opened/%s", names[7]);
	assert_int_equal(fs_chmod(&e, path, 0), 0);
	assert_int_equal(fs_env_become(&e, 1000, 1000, NULL, 0, 0), 0);
	assert_int_equal(fs_open(&e, path, O_RDONLY, 0, &f), -EACCES);
	assert_int_equal(fs_env_become(&e, 0, 0, NULL, 0, ~0ull), 0);
	for (unsigned i = 8; i < OPENED_FILES; i++)
		assert_int_equal(read_counted(names[i], names[i]), 0);
}

/* ---- listings without attributes of files ---- */

#define LIGHT_DIRS 30
#define LIGHT_FILES 20
#define LARGE_ENTRIES 6000

/* /light with directories of LIGHT_FILES files, one directory and a symlink to a file. */
static int make_light(void)
{
	char path[256], file[320];
	int err;

	snprintf(path, sizeof(path), "%s/light", backend_gofer_dir());
	err = mkdir(path, 0755);
	for (unsigned d = 0; d < LIGHT_DIRS && !err; d++) {
		snprintf(path, sizeof(path), "%s/light/a%02u", backend_gofer_dir(), d);
		err = mkdir(path, 0755);
		for (unsigned i = 0; i < LIGHT_FILES && !err; i++) {
			snprintf(file, sizeof(file), "%s/f%02u", path, i);
			err = close(creat(file, 0644));
		}
		snprintf(file, sizeof(file), "%s/dir", path);
		err = err ? err : mkdir(file, 0755);
		snprintf(file, sizeof(file), "%s/link", path);
		err = err ? err : symlink("f00", file);
	}
	return err;
}

/* Directories first..end, not in the order of any listing, so that none is asked for ahead for long. */
static int list_light(unsigned first, unsigned end)
{
	char path[64], names[1024];
	int ret = 0;

	for (unsigned i = first; i < end && ret >= 0; i++) {
		snprintf(path, sizeof(path), "/light/a%02u", i * 7 % LIGHT_DIRS);
		ret = fs_list(&e, path, names, sizeof(names));
		if (ret >= 0 && ret != LIGHT_FILES + 2)
			ret = -EBADMSG;
	}
	return ret;
}

static int stat_light(unsigned i)
{
	struct moat_statx st;
	char path[64];
	int err = 0;

	for (unsigned f = 0; f < LIGHT_FILES && !err; f++) {
		snprintf(path, sizeof(path), "/light/a%02u/f%02u", i * 7 % LIGHT_DIRS, f);
		err = fs_stat(&e, path, &st);
		if (!err && (!S_ISREG(st.mode) || st.nlink != 1))
			err = -EBADMSG;
	}
	return err;
}

static const char *light_path(unsigned i, const char *name)
{
	static char path[64];

	snprintf(path, sizeof(path), "/light/a%02u/%s", i * 7 % LIGHT_DIRS, name);
	return path;
}

/* As find does, whom names and types are enough: after 8 directories attributes of files stay away, until somebody asks for one. */
static void test_light_listings(void **state)
{
	uint64_t with, without;
	struct moat_statx st;

	(void)state;
	if (shared)
		return;
	assert_int_equal(make_light(), 0);
	gofer_fs_shrink(e.root.mount->root->fs);
	with = received();
	assert_in_range(list_light(0, 8), 1, INT_MAX);
	with = received() - with;
	/* Each is opened and listed. */
	without = received();
	assert_int_equal(TRIPS(list_light(8, 16)), 16);
	without = received() - without;
	assert_true(without * 2 < with);
	/* Directories have theirs, and what is kept is listed for nothing. */
	assert_int_equal(TRIPS(fs_stat(&e, light_path(9, "dir"), &st)), 0);
	assert_true(S_ISDIR(st.mode));
	assert_int_equal(TRIPS(list_light(0, 16)), 0);
	/* What was told before is known, and changes nothing; nor does a name that is not there, or a symlink. */
	assert_int_equal(TRIPS(stat_light(3)), 0);
	assert_int_equal(fs_stat(&e, light_path(10, "none"), &st), -ENOENT);
	assert_int_equal(TRIPS(fs_readlink(&e, light_path(11, "link"), buf, sizeof(buf))), 1);
	assert_int_equal(TRIPS(list_light(0, 16)), 0);
	/* One request for all files of a directory. The directory is listed in between. */
	assert_int_equal(TRIPS(stat_light(9)), 1);
	assert_int_equal(TRIPS(stat_light(9)), 0);
	/* And from there on listings bring all, also where one without attributes was kept. */
	assert_int_equal(TRIPS(list_light(16, 17)), 2);
	assert_int_equal(TRIPS(stat_light(16)), 0);
	assert_int_equal(TRIPS(list_light(12, 13)), 1);
	assert_int_equal(TRIPS(stat_light(12)), 0);
	assert_int_equal(TRIPS(list_light(12, 13)), 0);
}

/* Changes below directories of which only names are known. */
static void test_light_changes(void **state)
{
	struct moat_statx st;

	(void)state;
	if (shared)
		return;
	assert_int_equal(make_light(), 0);
	gofer_fs_shrink(e.root.mount->root->fs);
	assert_in_range(list_light(0, 12), 1, INT_MAX);
	assert_int_equal(TRIPS(fs_unlink(&e, light_path(9, "f03"))), 1);
	assert_int_equal(fs_stat(&e, light_path(9, "f03"), &st), -ENOENT);
	assert_int_equal(fs_list(&e, light_path(9, "."), buf, sizeof(buf)), LIGHT_FILES + 1);
	assert_int_equal(fs_creat(&e, light_path(9, "f03"), 0600), 0);
	assert_int_equal(fs_stat(&e, light_path(9, "f03"), &st), 0);
	assert_int_equal(st.mode & 0777, 0600);
	assert_int_equal(fs_chmod(&e, light_path(10, "f05"), 0640), 0);
	assert_int_equal(fs_stat(&e, light_path(10, "f05"), &st), 0);
	assert_int_equal(st.mode & 0777, 0640);
	assert_int_equal(fs_stat(&e, light_path(10, "f06"), &st), 0);
	assert_int_equal(st.mode & 0777, 0644);
	assert_int_equal(open_close(light_path(11, "f01"), O_RDWR), 0);
	assert_int_equal(stat_light(11), 0);
}

static int stat_large(unsigned count)
{
	struct moat_statx st;
	char name[32];
	int err = 0;

	for (unsigned i = 0; i < count && !err; i++) {
		snprintf(name, sizeof(name), "/large/f%u", i * 7 % LARGE_ENTRIES);
		err = fs_stat(&e, name, &st);
	}
	return err;
}

/* Directories that are kept whole but take more than one request with attributes, and that take several without. */
static void test_light_large(void **state)
{
	char name[256];
	unsigned trips;

	(void)state;
	if (shared)
		return;
	assert_int_equal(make_light(), 0);
	assert_int_equal(fs_mkdir(&e, "/many", 0755), 0);
	for (unsigned i = 0; i < ENTRIES; i++) {
		snprintf(name, sizeof(name), "/many/f%u", i);
		assert_int_equal(fs_creat(&e, name, 0644), 0);
	}
	gofer_fs_shrink(e.root.mount->root->fs);
	assert_in_range(list_light(0, 12), 1, INT_MAX);
	trips = TRIPS(fs_list(&e, "/many", buf, sizeof(buf)));
	/* Opened, and one reply of 128 KiB: an entry takes some 35 bytes. */
	assert_int_equal(trips, 2);
	assert_in_range(TRIPS(stat_all()), 1, 4);
	assert_int_equal(TRIPS(stat_all()), 0);

	snprintf(name, sizeof(name), "%s/large", backend_gofer_dir());
	assert_int_equal(mkdir(name, 0755), 0);
	for (unsigned i = 0; i < LARGE_ENTRIES; i++) {
		snprintf(name, sizeof(name), "%s/large/f%u", backend_gofer_dir(), i);
		assert_int_equal(close(creat(name, 0644)), 0);
	}
	/* With attributes: eight replies or so, and nothing is left to ask for. */
	trips = COLD_TRIPS(fs_list(&e, "/large", buf, sizeof(buf)));
	assert_in_range(trips, 6, 10);
	assert_int_equal(TRIPS(stat_large(LARGE_ENTRIES)), 0);
	gofer_fs_shrink(e.root.mount->root->fs);
	assert_in_range(list_light(0, 12), 1, INT_MAX);
	assert_in_range(TRIPS(fs_list(&e, "/large", buf, sizeof(buf))), 3, 4);
	/* One file, another, then all that the listing would have brought. */
	assert_int_equal(TRIPS(stat_large(1)), 1);
	assert_int_equal(TRIPS(stat_large(2)), 1);
	assert_in_range(TRIPS(stat_large(LARGE_ENTRIES)), 5, trips);
	assert_int_equal(TRIPS(stat_large(LARGE_ENTRIES)), 0);
}

/* ls -l: each directory listed, each file looked at. Also after others were only listed, it costs one request a directory. */
static void test_light_never_for_ls(void **state)
{
	(void)state;
	if (shared)
		return;
	assert_int_equal(make_light(), 0);
	gofer_fs_shrink(e.root.mount->root->fs);
	for (unsigned i = 0; i < 20; i++) {
		assert_in_range(list_light(i, i + 1), 1, INT_MAX);
		assert_int_equal(TRIPS(stat_light(i)), 0);
		/* A symlink's target comes along. */
		assert_int_equal(TRIPS(fs_readlink(&e, light_path(i, "link"), buf, sizeof(buf))),
				 0);
		assert_memory_equal(buf, "f00", 3);
	}
	gofer_fs_shrink(e.root.mount->root->fs);
	assert_in_range(list_light(0, 20), 1, INT_MAX);
	/* One request more to learn it. */
	assert_int_equal(TRIPS(list_light(10, 11)), 0);
	assert_int_equal(TRIPS(stat_light(10)), 1);
	for (unsigned i = 11; i < 20; i++) {
		assert_int_equal(TRIPS(list_light(i, i + 1)), 1);
		assert_int_equal(TRIPS(stat_light(i)), 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_looks, setup, teardown),
		cmocka_unit_test_setup_teardown(test_changes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_held, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unprivileged, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stats_in_a_row, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lists, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lists_in_order, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lists_ahead_are_few, setup, teardown),
		cmocka_unit_test_setup_teardown(test_opens_in_order, setup, teardown),
		cmocka_unit_test_setup_teardown(test_opens_ahead_are_few, setup, teardown),
		cmocka_unit_test_setup_teardown(test_opens_ahead_and_changes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_light_listings, setup, teardown),
		cmocka_unit_test_setup_teardown(test_light_changes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_light_large, setup, teardown),
		cmocka_unit_test_setup_teardown(test_light_never_for_ls, setup, teardown),
	};

	shared = getenv("GOFER_SHARED") != NULL;
	log_init(-1, LOG_ERROR_LEVEL, "test");
	if (fs_env_process_init())
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
