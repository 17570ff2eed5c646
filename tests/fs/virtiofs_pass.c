/*
 * tests/fs/virtiofs_pass.c - long reads of files with a page cache, which the host copies from the file's descriptor (fsimpl/virtiofs/pass.c): they see what is
 * only in the cache, what the host does, and where the file ends; descriptors are given back.
 *
 * Each page begins with its number and how often it was written.
 */
#include "tests/fs/virtiofs_clients.h"

#include <dirent.h>

#include "base/rcu.h"
#include "base/sleep.h"
#include "fsimpl/virtiofs/device.h"

#define PAGE 4096
#define MIB (1l << 20)
#define FILE_BYTES (6 * MIB)
#define PAGES (FILE_BYTES / PAGE)

static char buf[MIB];
static struct client a;

static void stamp_host(int fd, int64_t page, uint32_t turn)
{
	const uint64_t v[2] = {(uint64_t)page, turn};

	assert_int_equal(pwrite(fd, v, sizeof(v), page * PAGE), sizeof(v));
}

static int make_host(const char *name)
{
	int fd = open(host_path(name), O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, FILE_BYTES), 0);
	for (int64_t i = 0; i < PAGES; i++)
		stamp_host(fd, i, 1);
	return fd;
}

static uint64_t turn_in(const char *at, int64_t page)
{
	uint64_t v[2];

	memcpy(v, at, sizeof(v));
	assert_int_equal(v[0], page);
	return v[1];
}

/* Reads all of it a MiB at a time. turns: of each page; NULL: 1. */
static void check_all(struct file *f, const uint32_t *turns)
{
	for (int64_t off = 0; off < FILE_BYTES; off += MIB) {
		assert_int_equal(fs_pread(f, buf, sizeof(buf), off), sizeof(buf));
		for (int64_t at = 0; at < MIB; at += PAGE)
			assert_int_equal(turn_in(buf + at, (off + at) / PAGE),
					 turns ? turns[(off + at) / PAGE] : 1);
	}
}

/* Descriptors of the shared tree's files that came from the daemon: they are for reading alone. */
static unsigned count_descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	char link[64], to[300];
	unsigned count = 0;
	struct dirent *e;

	assert_non_null(d);
	while ((e = readdir(d))) {
		ssize_t n;

		snprintf(link, sizeof(link), "/proc/self/fd/%.20s", e->d_name);
		n = readlink(link, to, sizeof(to) - 1);
		if (n <= 0)
			continue;
		to[n] = '\0';
		/* As the daemon's mount namespace has it. */
		count += strstr(to, "/pass-") &&
			 (fcntl(atoi(e->d_name), F_GETFL) & O_ACCMODE) == O_RDONLY;
	}
	closedir(d);
	return count;
}

static void one_request(void **state)
{
	const char *const modes[] = {"cache=none", "cache=auto", "cache=always,writeback"};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(modes); i++) {
		int fd = make_host("pass-f");
		struct file *f;
		uint64_t sent;

		client_start(&a, modes[i]);
		assert_int_equal(fs_open(as(&a), "pass-f", O_RDONLY, 0, &f), 0);
		assert_int_equal(fs_pread(f, buf, 100, 0), 100);
		close(fd);
		assert_int_equal(count_descriptors(), 0);
		/* The first page is cached, or was asked for; SETUPMAPPING, GETATTR, perhaps a READ of what is too short. */
		sent = virtiofs_device_requests(a.dev);
		check_all(f, NULL);
		assert_in_range(virtiofs_device_requests(a.dev) - sent, 1, 4);
		assert_int_equal(count_descriptors(), 1);
		sent = virtiofs_device_requests(a.dev);
		check_all(f, NULL);
		assert_in_range(virtiofs_device_requests(a.dev) - sent, 0, 1);
		/* Reads of every length, from everywhere. */
		for (unsigned k = 0; k < 200; k++) {
			int64_t off = (int64_t)(k * 2654435761u % FILE_BYTES);
			size_t want = (size_t)MIN((int64_t)(k * 40503u % MIB), FILE_BYTES - off);

			assert_int_equal(fs_pread(f, buf, want, off), want);
			for (int64_t at = round_up_u64((uint64_t)off, PAGE);
			     at + 16 <= off + (int64_t)want; at += PAGE)
				assert_int_equal(turn_in(buf + (at - off), at / PAGE), 1);
		}
		fs_close(f);
		vfs_run_deferred();
		assert_int_equal(count_descriptors(), 0);
		client_stop(&a);
		remove_all();
	}
}

/* A short file, one that is read in short pieces, and one whose access time is to stay have READs as they always had. */
static void not_for_all(void **state)
{
	int fd = make_host("pass-f");
	struct file *f;

	(void)state;
	client_start(&a, "cache=auto");
	assert_int_equal(fs_open(as(&a), "pass-f", O_RDONLY, 0, &f), 0);
	for (int64_t off = 0; off < FILE_BYTES; off += 32768)
		assert_int_equal(fs_pread(f, buf, 32768, off), 32768);
	assert_int_equal(fs_pread(f, buf, sizeof(buf), 2 * MIB + 4096), sizeof(buf));
	assert_int_equal(count_descriptors(), 0);
	fs_close(f);
	assert_int_equal(fs_open(as(&a), "pass-f", O_RDONLY | O_NOATIME, 0, &f), 0);
	check_all(f, NULL);
	assert_int_equal(count_descriptors(), 0);
	fs_close(f);
	assert_int_equal(ftruncate(fd, MIB / 2), 0);
	assert_int_equal(fs_open(as(&a), "pass-f", O_RDONLY, 0, &f), 0);
	assert_int_equal(fs_pread(f, buf, sizeof(buf), 0), MIB / 2);
	assert_int_equal(count_descriptors(), 0);
	fs_close(f);
	close(fd);
	client_stop(&a);
	remove_all();
}

static void dirty_pages(void **state)
{
	static uint32_t turns[PAGES];
	int fd = make_host("pass-f");
	struct moat_statx st;
	struct file *f;

	(void)state;
	client_start(&a, "cache=always,writeback");
	assert_int_equal(fs_open(as(&a), "pass-f", O_RDWR, 0, &f), 0);
	check_all(f, NULL);
	assert_int_equal(count_descriptors(), 1);
	for (int64_t i = 0; i < PAGES; i++) {
		uint64_t v[2] = {(uint64_t)i, turns[i] = i % 40 == 3 ? 2 : 1};

		if (turns[i] == 2)
			assert_int_equal(fs_pwrite(f, v, sizeof(v), i * PAGE), sizeof(v));
	}
	/* Only here. */
	assert_int_equal(pread(fd, buf, PAGE, 3 * PAGE), PAGE);
	assert_int_equal(turn_in(buf, 3), 1);
	check_all(f, turns);
	assert_int_equal(file_fsync(f, false, 0, UINT64_MAX), 0);
	check_all(f, turns);
	/* It is longer here than on the host: a hole between. */
	assert_int_equal(fs_pwrite(f, "end", 3, FILE_BYTES + 3 * MIB), 3);
	assert_int_equal(stat(host_path("pass-f"), &(struct stat){0}), 0);
	assert_int_equal(fs_lstat(as(&a), "pass-f", &st), 0);
	assert_int_equal(st.size, FILE_BYTES + 3 * MIB + 3);
	for (int64_t off = FILE_BYTES - MIB / 2; off < FILE_BYTES + 3 * MIB; off += MIB) {
		memset(buf, 'x', sizeof(buf));
		assert_int_equal(fs_pread(f, buf, sizeof(buf), off),
				 MIN(MIB, FILE_BYTES + 3 * MIB + 3 - off));
		for (int64_t at = MAX(FILE_BYTES, off); at < MIN(off + MIB, FILE_BYTES + 3 * MIB);
		     at++)
			assert_int_equal(buf[at - off], 0);
	}
	fs_close(f);
	close(fd);
	client_stop(&a);
	remove_all();
}

static void host_changes(void **state)
{
	static uint32_t turns[PAGES];
	int fd = make_host("pass-f");
	struct file *f;

	(void)state;
	client_start(&a, "cache=auto,timeout=100");
	assert_int_equal(fs_open(as(&a), "pass-f", O_RDONLY, 0, &f), 0);
	check_all(f, NULL);
	for (int64_t i = 0; i < PAGES; i++)
		stamp_host(fd, i, turns[i] = 2);
	/* Nothing of it is cached. */
	check_all(f, turns);
	/* Shorter than is believed: what is missing reads as zeros up to there, as by READ. */
	assert_int_equal(ftruncate(fd, FILE_BYTES - MIB / 2), 0);
	assert_int_equal(fs_pread(f, buf, sizeof(buf), FILE_BYTES - MIB), sizeof(buf));
	for (int64_t i = MIB / 2; i < MIB; i++)
		assert_int_equal(buf[i], 0);
	fs_close(f);
	/* Removed while it is open. */
	assert_int_equal(ftruncate(fd, FILE_BYTES), 0);
	assert_int_equal(fs_open(as(&a), "pass-f", O_RDONLY, 0, &f), 0);
	for (int64_t i = 0; i < PAGES; i++)
		stamp_host(fd, i, 1);
	assert_int_equal(unlink(host_path("pass-f")), 0);
	check_all(f, NULL);
	fs_close(f);
	close(fd);
	client_stop(&a);
	remove_all();
}

/* More files than the window has ranges. */
static void many_files(void **state)
{
	struct file *files[3 * WINDOW / RANGE];
	char name[32];

	(void)state;
	client_start(&a, "cache=auto");
	for (unsigned i = 0; i < ARRAY_SIZE(files); i++) {
		snprintf(name, sizeof(name), "pass-%u", i);
		close(make_host(name));
		assert_int_equal(fs_open(as(&a), name, O_RDONLY, 0, &files[i]), 0);
	}
	for (unsigned turn = 0; turn < 3; turn++)
		for (unsigned i = 0; i < ARRAY_SIZE(files); i++)
			check_all(files[i], NULL);
	assert_in_range(count_descriptors(), 1, WINDOW / RANGE);
	for (unsigned i = 0; i < ARRAY_SIZE(files); i++)
		fs_close(files[i]);
	vfs_run_deferred();
	assert_int_equal(count_descriptors(), 0);
	client_stop(&a);
	remove_all();
}

/* ---- one writes, others read, write back and drop ---- */

#define SHARED_BYTES (2 * MIB)
#define STEPS 400

static struct file *shared_file;
static _Atomic uint64_t written[SHARED_BYTES / PAGE]; /* at least */
static _Atomic bool over;

static void thread_begin(struct sleeper *s)
{
	rcu_thread_begin();
	sleeper_init(s);
	sleeper_set_current(s);
	cred_set_current(a.env.cred);
}

static void thread_end(void)
{
	vfs_run_deferred();
	cred_set_current(NULL);
	sleeper_set_current(NULL);
	rcu_thread_end();
}

static void *sync_main(void *arg)
{
	struct sleeper s;

	thread_begin(&s);
	while (!atomic_load(&over)) {
		if (file_fsync(shared_file, false, 0, UINT64_MAX))
			abort();
		/* What is clean goes. */
		if (file_fallocate(shared_file, FALLOC_FL_KEEP_SIZE, 0, PAGE))
			abort();
	}
	thread_end();
	return arg;
}

/* No page is older than when the read began. Return: NULL, or what was wrong. */
static void *read_main(void *arg)
{
	static char got[MIB];
	uint64_t before[MIB / PAGE];
	struct sleeper s;
	void *bad = NULL;

	thread_begin(&s);
	for (unsigned n = 0; !atomic_load(&over); n++) {
		int64_t off = n % 2 ? MIB : 0;

		for (int64_t i = 0; i < MIB / PAGE; i++)
			before[i] = atomic_load(&written[off / PAGE + i]);
		if (fs_pread(shared_file, got, sizeof(got), off) != sizeof(got))
			abort();
		for (int64_t i = 0; i < MIB / PAGE; i++) {
			uint64_t v[2];

			memcpy(v, got + i * PAGE, sizeof(v));
			if (v[0] != (uint64_t)(off / PAGE + i) || v[1] < before[i])
				bad = arg;
		}
	}
	thread_end();
	return bad;
}

static void writers_and_readers(void **state)
{
	const char *const modes[] = {"cache=auto", "cache=always,writeback"};

	(void)state;
	for (unsigned m = 0; m < ARRAY_SIZE(modes); m++) {
		pthread_t reader, syncer;
		int fd = make_host("pass-f");
		void *bad;

		assert_int_equal(ftruncate(fd, SHARED_BYTES), 0);
		for (size_t i = 0; i < ARRAY_SIZE(written); i++)
			atomic_store(&written[i], 1);
		atomic_store(&over, false);
		client_start(&a, modes[m]);
		assert_int_equal(fs_open(as(&a), "pass-f", O_RDWR, 0, &shared_file), 0);
		assert_int_equal(fs_pread(shared_file, buf, sizeof(buf), 0), sizeof(buf));
		assert_int_equal(count_descriptors(), 1);
		assert_int_equal(pthread_create(&reader, NULL, read_main, buf), 0);
		assert_int_equal(pthread_create(&syncer, NULL, sync_main, NULL), 0);
		for (uint64_t step = 0; step < STEPS; step++) {
			uint64_t page = step * 40503 % ARRAY_SIZE(written);
			uint64_t v[2] = {page, step + 2};

			assert_int_equal(fs_pwrite(shared_file, v, sizeof(v), (int64_t)page * PAGE),
					 sizeof(v));
			atomic_store(&written[page], step + 2);
		}
		atomic_store(&over, true);
		pthread_join(syncer, NULL);
		pthread_join(reader, &bad);
		assert_null(bad);
		as(&a);
		fs_close(shared_file);
		close(fd);
		client_stop(&a);
		remove_all();
	}
}

/* ---- several read many files, which take their ranges from each other ---- */

#define TAKERS 3
#define TURNS 40

static struct file *taken_files[2 * WINDOW / RANGE];

static void *take_main(void *arg)
{
	unsigned step = (unsigned)(uintptr_t)arg;
	struct sleeper s;
	char *mine = malloc(MIB);
	void *bad = NULL;

	thread_begin(&s);
	for (unsigned i = 0; mine && i < TURNS * ARRAY_SIZE(taken_files); i++) {
		struct file *f = taken_files[i * step % ARRAY_SIZE(taken_files)];

		if (fs_pread(f, mine, MIB, 0) != MIB ||
		    turn_in(mine + MIB - PAGE, MIB / PAGE - 1) != 1)
			bad = arg;
	}
	thread_end();
	free(mine);
	return mine ? bad : arg;
}

/* Whoever finds a descriptor gone does not hide the next one from who closes the file. */
static void taken_from_each_other(void **state)
{
	pthread_t threads[TAKERS];
	char name[32];
	void *bad;

	(void)state;
	client_start(&a, "cache=none");
	for (unsigned i = 0; i < ARRAY_SIZE(taken_files); i++) {
		snprintf(name, sizeof(name), "pass-%u", i);
		close(make_host(name));
		assert_int_equal(fs_open(as(&a), name, O_RDONLY, 0, &taken_files[i]), 0);
	}
	for (uintptr_t i = 0; i < TAKERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, take_main, (void *)(2 * i + 1)),
				 0);
	for (unsigned i = 0; i < TAKERS; i++) {
		pthread_join(threads[i], &bad);
		assert_null(bad);
	}
	as(&a);
	assert_in_range(count_descriptors(), 1, WINDOW / RANGE);
	for (unsigned i = 0; i < ARRAY_SIZE(taken_files); i++)
		fs_close(taken_files[i]);
	vfs_run_deferred();
	assert_int_equal(count_descriptors(), 0);
	client_stop(&a);
	remove_all();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_request),
		cmocka_unit_test(not_for_all),
		cmocka_unit_test(dirty_pages),
		cmocka_unit_test(host_changes),
		cmocka_unit_test(many_files),
		cmocka_unit_test(writers_and_readers),
		cmocka_unit_test(taken_from_each_other),
	};

	log_init(-1, LOG_ERROR_LEVEL, "test");
	if (start_daemon())
		return 1;
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
