/*
 * Round trips of the virtio-fs client, counted: how many requests an operation waits for, cold and warm. Of the mount's mode and daemon as
 * backend_virtiofs.c has them; the limits are of cache=auto, none and writeback.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/log.h"
#include "tests/fs/backend_virtiofs.h"
#include "tests/fs/env.h"
#include "tests/fs/trips.h"

#define ENTRIES 1000
#define MIB (1u << 20)

static struct fs_env e;
static char buf[4 * MIB];

static uint64_t requests(void)
{
	return virtiofs_device_requests(backend_virtiofs_device());
}

static bool mode_is(const char *word)
{
	const char *text = getenv("VIRTIOFS_OPTIONS");

	return text && strstr(text, word);
}

/* Our own daemon walks whole paths, and opens or makes what is at their end. */
static bool walks(void)
{
	const char *text = getenv("VIRTIOFSD");

	return text && !strcmp(text, "own");
}

static void forget(void)
{
	virtiofs_shrink(e.root.mount->root->fs);
}

static int open_close(const char *path, int flags)
{
	struct file *f;
	int err = fs_open(&e, path, flags, 0644, &f);

	return err ? err : fs_close(f);
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

static void test_names(void **state)
{
	bool none = mode_is("cache=none"), more = none && !walks();
	struct moat_statx st;

	(void)state;
	assert_int_equal(fs_mkdir(&e, "/d", 0755), 0);
	/* Creating asks for nothing before and waits for nothing after, but, where nothing is believed, for the directory's attributes. */
	assert_int_equal(TRIPS(fs_stat(&e, "/d", &st)) > 1, 0);
	assert_in_range(TRIPS(open_close("/d/new", O_CREAT | O_WRONLY)), 1, more ? 2 : 1);
	assert_in_range(TRIPS(open_close("/d/new2", O_CREAT | O_WRONLY)), 1, more ? 2 : 1);
	assert_in_range(TRIPS(open_close("/d/new3", O_CREAT | O_EXCL | O_RDWR)), 1, more ? 2 : 1);
	/* What is there is found out by the first try, and looked up first from then on. */
	forget();
	assert_int_equal(TRIPS(fs_stat(&e, "/d", &st)), 1);
	assert_in_range(TRIPS(open_close("/d/new", O_CREAT | O_WRONLY)), 1, more ? 4 : 3);
	assert_in_range(TRIPS(open_close("/d/new2", O_CREAT | O_WRONLY)), 1, more ? 3 : 2);
	/* Opening a known name is one request, an unknown one two (a walk: one); a look at an unknown one is one. */
	assert_int_equal(TRIPS(open_close("/d/new", O_RDONLY)), more ? 3 : 1);
	forget();
	assert_int_equal(TRIPS(fs_stat(&e, "/d", &st)), 1);
	assert_int_equal(TRIPS(open_close("/d/new", O_RDONLY)), more ? 3 : walks() ? 1 : 2);
	assert_int_equal(TRIPS(fs_stat(&e, "/d/new3", &st)), more ? 2 : 1);
	assert_int_equal(TRIPS(fs_stat(&e, "/d/new3", &st)), more ? 2 : none ? 1 : 0);
}

#define DEEP "/1/2/3/4/5/6/7"

/* Paths of eight names of which nothing is known: one request where the daemon walks, whatever is done at their end. */
static void test_deep(void **state)
{
	unsigned each = walks() ? 0 : 7;
	struct moat_statx st;
	char path[32] = "";

	(void)state;
	for (unsigned i = 1; i < 8; i++) {
		snprintf(path + strlen(path), sizeof(path) - strlen(path), "/%u", i);
		assert_int_equal(fs_mkdir(&e, path, 0755), 0);
	}
	forget();
	assert_in_range(TRIPS(open_close(DEEP "/new", O_CREAT | O_WRONLY)), 1 + each, 2 * each + 1);
	forget();
	assert_in_range(TRIPS(open_close(DEEP "/new2", O_CREAT | O_EXCL | O_RDWR)), 1 + each,
			2 * each + 1);
	forget();
	assert_in_range(TRIPS(open_close(DEEP "/new", O_CREAT | O_RDWR)), 1 + each, 4 + each);
	forget();
	assert_int_equal(TRIPS(fs_stat(&e, DEEP "/new2", &st)), 1 + each);
	forget();
	assert_int_equal(TRIPS(open_close(DEEP "/new", O_RDONLY)), 1 + each + (each != 0));
	forget();
	assert_int_equal(TRIPS(open_close(DEEP "/new", O_WRONLY)), 1 + each + (each != 0));
	if (!walks())
		return;
	/* What is not there is one as well, and nothing is left open by what may not be opened. */
	forget();
	assert_int_equal(fs_stat(&e, DEEP "/none/below", &st), -ENOENT);
	forget();
	for (unsigned i = 0; i < 3; i++) {
		uint64_t before = requests();
		const int flags[] = {O_RDONLY, O_CREAT | O_RDWR, O_CREAT | O_EXCL};

		assert_int_equal(open_close(i == 2 ? DEEP "/new" : DEEP "/new/", flags[i]),
				 i == 0	  ? -ENOTDIR
				 : i == 1 ? -EISDIR
					  : -EEXIST);
		assert_in_range(requests() - before, 0, 2);
	}
	/* A symlink ends the request, and the way on is another. */
	assert_int_equal(fs_symlink(&e, "2/3/4", "/1/link"), 0);
	forget();
	assert_int_equal(TRIPS(fs_stat(&e, "/1/link/5/6/7/new2", &st)), 4);
}

static unsigned stat_all(void)
{
	struct moat_statx st;
	char name[32];

	for (unsigned i = 0; i < ENTRIES; i++) {
		snprintf(name, sizeof(name), "/many/f%u", i);
		assert_int_equal(fs_stat(&e, name, &st), 0);
	}
	return 0;
}

/* Listings whose entries are looked at come with attributes from the second on, and go on doing so; others do not. */
static void test_lists(void **state)
{
	char name[32];

	(void)state;
	if (mode_is("cache=none"))
		skip();
	assert_int_equal(fs_mkdir(&e, "/many", 0755), 0);
	for (unsigned i = 0; i < ENTRIES; i++) {
		snprintf(name, sizeof(name), "/many/f%u", i);
		assert_int_equal(fs_creat(&e, name, 0644), 0);
	}
	forget();
	assert_int_equal(fs_list(&e, "/many", buf, sizeof(buf)), ENTRIES);
	stat_all();
	for (unsigned i = 0; i < 4; i++) {
		forget();
		assert_in_range(TRIPS(fs_list(&e, "/many", buf, sizeof(buf))), 1, 12);
		assert_in_range(TRIPS(stat_all()), 0, 20);
	}
}

struct limited {
	struct dir_emit ctx;
	int left, count;
};

static bool limited_emit(struct dir_emit *ctx, const char *name, size_t len, uint64_t ino,
			 unsigned type, int64_t off)
{
	struct limited *l = container_of(ctx, struct limited, ctx);

	(void)name;
	(void)len;
	(void)ino;
	(void)type;
	(void)off;
	if (l->count == l->left)
		return false;
	l->count++;
	return true;
}

/* So many entries, also those of the directory itself and above. Return: how many there were. */
static int read_names(struct file *f, int count)
{
	struct limited l = {.ctx = {.emit = limited_emit}, .left = count};
	int err = file_iterate(f, &l.ctx);

	return err ? err : l.count;
}

/* What has not changed since it was listed is not asked for again; a change of our own is seen at once. */
static void test_listed_again(void **state)
{
	const bool none = mode_is("cache=none");
	static char first[4096], again[4096];
	struct file *f;
	char name[32];

	(void)state;
	assert_int_equal(fs_mkdir(&e, "/kept", 0755), 0);
	for (unsigned i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "/kept/f%u", i);
		assert_int_equal(fs_creat(&e, name, 0644), 0);
	}
	/* The attributes are ours to change no more, and known. */
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(fs_list(&e, "/kept", first, sizeof(first)), 100);
	for (unsigned i = 0; i < 3; i++) {
		/* OPENDIR, READDIR, READDIR; with cache=none those of the path. */
		assert_in_range(TRIPS(fs_list(&e, "/kept", again, sizeof(again))), none ? 3 : 0,
				none ? 8 : 0);
		assert_string_equal(first, again);
	}
	assert_int_equal(fs_creat(&e, "/kept/one", 0644), 0);
	assert_int_equal(fs_list(&e, "/kept", again, sizeof(again)), 101);
	assert_non_null(strstr(again, "one\n"));
	assert_int_equal(fs_rename(&e, "/kept/one", "/kept/two", 0), 0);
	assert_int_equal(fs_list(&e, "/kept", again, sizeof(again)), 101);
	assert_null(strstr(again, "one\n"));
	assert_non_null(strstr(again, "two\n"));
	assert_int_equal(fs_mkdir(&e, "/kept/three", 0755), 0);
	assert_int_equal(fs_symlink(&e, "x", "/kept/four"), 0);
	assert_int_equal(fs_link(&e, "/kept/two", "/kept/five", false), 0);
	assert_int_equal(fs_list(&e, "/kept", again, sizeof(again)), 104);
	assert_int_equal(fs_rename(&e, "/kept/two", "/two", 0), 0);
	assert_int_equal(fs_list(&e, "/kept", again, sizeof(again)), 103);
	assert_int_equal(fs_rmdir(&e, "/kept/three"), 0);
	assert_int_equal(fs_unlink(&e, "/kept/four"), 0);
	assert_int_equal(fs_unlink(&e, "/kept/five"), 0);
	assert_int_equal(fs_list(&e, "/kept", again, sizeof(again)), 100);
	assert_string_equal(first, again);
	/* One who reads on sees no half of it twice, one who begins anew what is there now. */
	assert_int_equal(fs_open(&e, "/kept", O_RDONLY | O_DIRECTORY, 0, &f), 0);
	assert_int_equal(fs_list_file(f, again, sizeof(again)), 100);
	assert_int_equal(fs_creat(&e, "/kept/late", 0644), 0);
	assert_int_equal(fs_list_file(f, again, sizeof(again)), 0);
	assert_int_equal(file_seek(f, 0, SEEK_SET), 0);
	assert_int_equal(fs_list_file(f, again, sizeof(again)), 101);
	assert_int_equal(fs_close(f), 0);
	/* And the one that was kept can be left in its midst for where its positions point to. */
	assert_int_equal(fs_open(&e, "/kept", O_RDONLY | O_DIRECTORY, 0, &f), 0);
	assert_int_equal(read_names(f, 40), 40);
	assert_int_equal(file_seek(f, f->pos, SEEK_SET), f->pos);
	assert_int_equal(read_names(f, 1000), 103 - 40);
	assert_int_equal(fs_close(f), 0);
}

static void test_data(void **state)
{
	bool none = mode_is("cache=none"), writeback = mode_is("writeback");
	struct file *f;

	(void)state;
	memset(buf, 'x', sizeof(buf));
	assert_int_equal(fs_open(&e, "/data", O_CREAT | O_RDWR, 0644, &f), 0);
	if (writeback) {
		assert_int_equal(TRIPS(fs_pwrite(f, buf, sizeof(buf), 0)), 0);
		/* Large pieces: four WRITEs of a MiB and FSYNC. */
		assert_in_range(TRIPS(file_fsync(f, false, 0, UINT64_MAX)), 5, 6);
	} else {
		assert_in_range(TRIPS(fs_pwrite(f, buf, sizeof(buf), 0)), 4, 5);
	}
	assert_int_equal(TRIPS(fs_close(f)), 0);
	forget();
	assert_int_equal(fs_open(&e, "/data", O_RDONLY, 0, &f), 0);
	/* Reading on: windows grow to a MiB. Page by page, for that is the worst. */
	if (!none) {
		uint64_t before = requests();

		for (int64_t off = 0; off < (int64_t)sizeof(buf); off += 4096)
			assert_int_equal(fs_pread(f, buf, 4096, off), 4096);
		assert_in_range(requests() - before, 4, 12);
		before = requests();
		assert_int_equal(fs_pread(f, buf, sizeof(buf), 0), sizeof(buf));
		assert_int_equal(requests(), before);
	}
	assert_int_equal(fs_close(f), 0);
}

/* Every page tells which one it is and how often it was written. */
static void stamp(char *page, int64_t off, unsigned turn)
{
	for (size_t i = 0; i < 4096; i += 2048)
		snprintf(page + i, 256, "%lld %u", (long long)(off + (int64_t)i), turn);
}

#define STREAM_BYTES (12l << 20) /* several times what a reader keeps behind him */

static void check_stream(struct file *f, size_t piece, const unsigned *turns)
{
	char *got = malloc(piece), page[4096];

	assert_non_null(got);
	for (int64_t off = 0; off < STREAM_BYTES; off += (int64_t)piece) {
		size_t want = MIN(piece, (size_t)(STREAM_BYTES - off));

		assert_int_equal(fs_pread(f, got, piece, off), want);
		for (int64_t at = round_up_u64((uint64_t)off, 4096);
		     at + 4096 <= off + (int64_t)want; at += 4096) {
			memset(page, 0, sizeof(page));
			stamp(page, at, turns[at >> 12]);
			assert_memory_equal(got + (at - off), page, 4096);
		}
	}
	free(got);
}

/* Who reads on and on uses the memory of what he has read again: what he reads is right, also what was written behind and before him meanwhile. */
static void test_stream(void **state)
{
	static unsigned turns[STREAM_BYTES >> 12];
	const size_t pieces[] = {1 << 20, 300001, 3 << 20};
	const bool gives = virtiofs_device_dax(backend_virtiofs_device()) != NULL;
	char page[4096] = "";
	struct file *f, *w;
	uint64_t before;

	(void)state;
	if (mode_is("cache=none"))
		return;
	memset(turns, 0, sizeof(turns));
	assert_int_equal(fs_open(&e, "/stream", O_CREAT | O_RDWR, 0644, &f), 0);
	for (int64_t off = 0; off < STREAM_BYTES; off += (int64_t)sizeof(buf)) {
		memset(buf, 0, sizeof(buf));
		for (int64_t at = 0; at < (int64_t)sizeof(buf); at += 4096)
			stamp(buf + at, off + at, 0);
		assert_int_equal(fs_pwrite(f, buf, sizeof(buf), off), sizeof(buf));
	}
	assert_int_equal(file_fsync(f, false, 0, UINT64_MAX), 0);
	assert_int_equal(fs_close(f), 0);
	/*
	 * A READ a MiB, and no page twice, unless the host's late word of the writes above drops what was read: then once more. Where the daemon gives the file
	 * there is one request for that, and perhaps for the last attributes.
	 */
	for (int tries = 0;; tries++) {
		forget();
		assert_int_equal(fs_open(&e, "/stream", O_RDONLY, 0, &f), 0);
		before = requests();
		check_stream(f, 1 << 20, turns);
		if (requests() - before <= (gives ? 3 : 16) || tries == 2)
			break;
		assert_int_equal(fs_close(f), 0);
	}
	assert_in_range(requests() - before, gives ? 1 : 12, gives ? 3 : 16);
	assert_int_equal(fs_open(&e, "/stream", O_RDWR, 0, &w), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(pieces); i++) {
		for (int64_t off = 5 * 4096; off < STREAM_BYTES; off += 1237 * 4096l) {
			memset(page, 0, sizeof(page));
			stamp(page, off, ++turns[off >> 12]);
			/* The reader is in the midst of it, with READs under way. */
			assert_true(fs_pread(f, buf, 1 << 20, MAX(off - (2l << 20), 0)) > 0);
			assert_true(fs_pread(f, buf, 1 << 20, MAX(off - (1l << 20), 0)) > 0);
			assert_int_equal(fs_pwrite(w, page, 4096, off), 4096);
		}
		check_stream(f, pieces[i], turns);
	}
	assert_int_equal(fs_close(w), 0);
	assert_int_equal(fs_close(f), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_names, setup, teardown),
		cmocka_unit_test_setup_teardown(test_deep, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lists, setup, teardown),
		cmocka_unit_test_setup_teardown(test_listed_again, setup, teardown),
		cmocka_unit_test_setup_teardown(test_data, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stream, setup, teardown),
	};

	log_init(-1, LOG_ERROR_LEVEL, "test");
	if (fs_env_process_init())
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
