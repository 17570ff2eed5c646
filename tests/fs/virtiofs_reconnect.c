/*
 * The virtio-fs daemon is killed and another one started: meanwhile EIO, soon, and never a hang; afterwards what was open is as it was, if its
 * inode still has its name.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#include <cmocka.h>

#include "base/log.h"
#include "fsimpl/virtiofs/device.h"
#include "mem/guard.h"
#include "tests/fs/backend_virtiofs.h"
#include "tests/fs/env.h"
#include "tests/fs/lock_line.h"
#include "vfs/locks.h"

#define KILLS 3
#define BACK_SECONDS_MAX 120 /* a loaded machine starts daemons slowly */
#define CALL_SECONDS_MAX \
	100.0 /* a hang, and nothing else: a call may wait while another daemon is started */

static struct fs_env e;

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Calls until one succeeds; those that do not give EIO. */
static void wait_until_back(struct file *f)
{
	double began = now();

	for (;;) {
		double at = now();
		/* Not from any cache. */
		int got = file_fsync(f, false, 0, UINT64_MAX);

		assert_true(now() - at < CALL_SECONDS_MAX);
		if (!got)
			return;
		assert_int_equal(got, -EIO);
		assert_true(now() - began < BACK_SECONDS_MAX);
		usleep(2000);
	}
}

static void read_host(const char *name, char *buf, size_t size)
{
	char path[256];
	FILE *f;
	size_t n;

	snprintf(path, sizeof(path), "%s/%s", backend_virtiofs_dir(), name);
	f = fopen(path, "re");
	assert_non_null(f);
	n = fread(buf, 1, size - 1, f);
	buf[n] = '\0';
	fclose(f);
}

#define RANGE (2ul << 20) /* of a DAX window */

/* A file of some ranges, of which one is in use (mapped, with DAX) before each kill and another after it. */
static void check_ranges(struct file *f, unsigned turn, bool after)
{
	char text[32], buf[32];

	for (unsigned i = 0; i < 2; i++) {
		uint64_t off = (turn + (after ? 2 - i : 0)) * RANGE + 4096 * i;
		int size = snprintf(text, sizeof(text), "range %u %u %d", turn, i, after);

		assert_int_equal(fs_pwrite(f, text, (size_t)size, (int64_t)off), size);
		assert_int_equal(fs_pread(f, buf, (size_t)size, (int64_t)off), size);
		assert_memory_equal(buf, text, (size_t)size);
	}
}

/* What the host does is seen by the very next look, as before. */
static void check_versions(void)
{
	struct moat_statx st;
	char path[256];

	if (!getenv("VIRTIOFS_OPTIONS") || !strstr(getenv("VIRTIOFS_OPTIONS"), "strict"))
		return;
	snprintf(path, sizeof(path), "%s/f", backend_virtiofs_dir());
	for (mode_t mode = 0600; mode < 0604; mode++) {
		assert_int_equal(chmod(path, mode), 0);
		assert_int_equal(fs_stat(&e, "/f", &st), 0);
		assert_int_equal(st.mode & 07777, mode);
	}
}

static void test_restart(void **state)
{
	struct file *f, *gone, *dir, *deep, *ranges;
	struct moat_statx st, again;
	char buf[200], text[32];

	(void)state;
	backend_virtiofs_reconnects = true;
	assert_int_equal(fs_env_init(&e), 0);
	assert_int_equal(fs_mkdir(&e, "/a", 0755), 0);
	assert_int_equal(fs_mkdir(&e, "/a/b", 0755), 0);
	assert_int_equal(fs_creat(&e, "/a/b/x", 0644), 0);
	assert_int_equal(fs_chdir(&e, "/a/b"), 0);
	assert_int_equal(fs_open(&e, "/f", O_CREAT | O_RDWR, 0644, &f), 0);
	assert_int_equal(fs_open(&e, "/a/b/deep", O_CREAT | O_RDWR, 0644, &deep), 0);
	assert_int_equal(fs_open(&e, "/gone", O_CREAT | O_RDWR, 0644, &gone), 0);
	assert_int_equal(fs_unlink(&e, "/gone"), 0);
	assert_int_equal(fs_open(&e, "/a", O_RDONLY | O_DIRECTORY, 0, &dir), 0);
	assert_int_equal(fs_stat(&e, "/f", &st), 0);
	assert_int_equal(fs_open(&e, "/ranges", O_CREAT | O_RDWR, 0644, &ranges), 0);
	assert_int_equal(file_truncate(ranges, (KILLS + 3) * RANGE), 0);
	for (unsigned i = 0; i < KILLS; i++) {
		int size = snprintf(text, sizeof(text), "before kill %u", i);

		/* With writeback it is only here when the daemon dies. */
		assert_int_equal(fs_pwrite(f, text, (size_t)size, 0), size);
		check_ranges(ranges, i, false);
		backend_virtiofs_kill();
		wait_until_back(f);
		assert_int_equal(fs_pread(f, buf, sizeof(buf), 0), size);
		assert_memory_equal(buf, text, (size_t)size);
		assert_int_equal(file_fsync(f, false, 0, UINT64_MAX), 0);
		read_host("f", buf, sizeof(buf));
		assert_string_equal(buf, text);
		assert_int_equal(fs_stat(&e, "/f", &again), 0);
		assert_int_equal(again.ino, st.ino);
		/* A file far down, a directory, the working directory. */
		assert_int_equal(fs_pwrite(deep, "deep", 4, 4 * i), 4);
		assert_int_equal(file_fsync(deep, false, 0, UINT64_MAX), 0);
		assert_int_equal(fs_stat(&e, "x", &again), 0);
		assert_int_equal(fs_stat(&e, "../b/deep", &again), 0);
		assert_int_equal(again.size, 4 * (i + 1));
		assert_int_equal(fs_creat(&e, "new", 0644), 0);
		assert_int_equal(fs_unlink(&e, "new"), 0);
		check_ranges(ranges, i, true);
		check_versions();
		/* What has no name cannot be found again. */
		assert_int_equal(fs_pwrite(gone, "x", 1, 0) < 0 ||
					 file_fsync(gone, false, 0, UINT64_MAX) < 0,
				 1);
	}
	assert_int_equal(fs_list_file(dir, buf, sizeof(buf)), 1);
	assert_string_equal(buf, "b\n");
	fs_close(f);
	fs_close(deep);
	fs_close(ranges);
	fs_close(gone);
	fs_close(dir);
	fs_env_fini(&e);
}

/* ---- killed under each kind of request ---- */

#define DIR_NAMES 20
#define REQUESTS_MS 5 /* that many before the daemon goes */

/* Each names what it makes after `turn`: one whose answer was lost has made it nevertheless. */
static int do_stat(unsigned turn)
{
	struct moat_statx st;

	(void)turn;
	return fs_stat(&e, "/requests/0", &st);
}

static int do_create(unsigned turn)
{
	char path[64];
	int err;

	snprintf(path, sizeof(path), "/requests/c%u", turn);
	err = fs_creat(&e, path, 0644);
	return err ? err : fs_unlink(&e, path);
}

static int do_mkdir(unsigned turn)
{
	char path[64];
	int err;

	snprintf(path, sizeof(path), "/requests/d%u", turn);
	err = fs_mkdir(&e, path, 0755);
	return err ? err : fs_rmdir(&e, path);
}

static int do_links(unsigned turn)
{
	char path[64], hard[64], moved[64], target[64];
	int err;

	snprintf(path, sizeof(path), "/requests/s%u", turn);
	snprintf(hard, sizeof(hard), "/requests/h%u", turn);
	snprintf(moved, sizeof(moved), "/requests/m%u", turn);
	err = fs_symlink(&e, "target", path);
	if (!err)
		err = MIN(fs_readlink(&e, path, target, sizeof(target)), 0);
	if (!err)
		err = fs_link(&e, "/requests/0", hard, false);
	return err ? err : fs_rename(&e, hard, moved, 0);
}

static int do_data(unsigned turn)
{
	char page[4096] = {(char)turn};
	struct file *f;
	int err = fs_open(&e, "/requests/1", O_RDWR, 0, &f);

	if (err)
		return err;
	err = (int)MIN(fs_pwrite(f, page, sizeof(page), 4096 * (turn % 64)), 0);
	if (!err)
		err = file_fsync(f, false, 0, UINT64_MAX);
	if (!err)
		err = (int)MIN(fs_pread(f, page, sizeof(page), 4096 * (turn % 32)), 0);
	fs_close(f);
	return err;
}

static int do_attributes(unsigned turn)
{
	int err = fs_chmod(&e, "/requests/2", 0600 | (turn & 077));

	return err ? err : fs_truncate(&e, "/requests/2", turn % 9000);
}

static int do_list(unsigned turn)
{
	static char names[65536];

	(void)turn;
	return MIN(fs_list(&e, "/requests", names, sizeof(names)), 0);
}

static int (*const requests[])(unsigned turn) = {
	do_stat, do_create, do_mkdir, do_links, do_data, do_attributes, do_list,
};

static struct {
	int (*request)(unsigned turn);
	_Atomic bool stop;
	unsigned turn, failures;
	double longest;
	int odd; /* no errno of Linux's */
} caller;

static void *caller_main(void *arg)
{
	rcu_thread_begin();
	cred_set_current(arg);
	while (!atomic_load(&caller.stop)) {
		double at = now();
		int err = caller.request(caller.turn++);

		caller.longest = MAX(caller.longest, now() - at);
		caller.failures += err != 0;
		if (err <= -512)
			caller.odd = err;
		vfs_run_deferred();
	}
	cred_set_current(NULL);
	rcu_thread_end();
	return NULL;
}

/* Whatever was under way: EIO or done, soon; what is open goes on, and so do requests of that kind. */
static void test_each_request(void **state)
{
	struct file *f;
	char buf[16];

	(void)state;
	backend_virtiofs_reconnects = true;
	assert_int_equal(fs_env_init(&e), 0);
	assert_int_equal(fs_mkdir(&e, "/requests", 0755), 0);
	for (unsigned i = 0; i < DIR_NAMES; i++) {
		snprintf(buf, sizeof(buf), "/requests/%u", i);
		assert_int_equal(fs_creat(&e, buf, 0644), 0);
	}
	assert_int_equal(fs_open(&e, "/f", O_CREAT | O_RDWR, 0644, &f), 0);
	assert_int_equal(fs_pwrite(f, "kept", 4, 0), 4);
	for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
		pthread_t thread;

		caller.request = requests[i];
		atomic_store(&caller.stop, false);
		assert_int_equal(pthread_create(&thread, NULL, caller_main, e.cred), 0);
		usleep(REQUESTS_MS * 1000);
		backend_virtiofs_kill();
		wait_until_back(f);
		atomic_store(&caller.stop, true);
		pthread_join(thread, NULL);
		if (caller.odd || caller.longest > CALL_SECONDS_MAX)
			fail_msg("request %zu: %d, %.1f s", i, caller.odd, caller.longest);
		assert_int_equal(requests[i](caller.turn++), 0);
		assert_int_equal(fs_pread(f, buf, sizeof(buf), 0), 4);
		assert_memory_equal(buf, "kept", 4);
	}
	fs_close(f);
	fs_env_fini(&e);
}

/* ---- locks ---- */

static int lock(struct file *f, enum file_lock_kind kind, short type)
{
	const struct file_lock req = {
		.kind = kind,
		.type = type,
		.end = kind == FILE_LOCK_FLOCK ? INT64_MAX : 9,
		.owner = f,
		.pid = 7,
	};

	return file_lock_set(f, &req, false);
}

static int host_open(const char *name)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", backend_virtiofs_dir(), name);
	fd = open(path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

#define HOST_END (1000 + getpid()) /* of the host's locks: a range that no other test has */

static int host_lock(int fd, bool wait)
{
	struct flock lk = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = HOST_END + 1};

	return fcntl(fd, wait ? F_OFD_SETLKW : F_OFD_SETLK, &lk) < 0 ? -errno : 0;
}

static void *host_waits(void *arg)
{
	const int *fd = arg;

	return (void *)(intptr_t)host_lock(*fd, true);
}

/* Until somebody waits for a lock of the file. */
static void await_waiter(int fd)
{
	for (double began = now(); !lock_waiters(fd, (unsigned)HOST_END); usleep(2000))
		assert_true(now() - began < BACK_SECONDS_MAX);
}

/* The host waits, and gets it from the daemon's end, before there is another one. */
static void host_gets(int fd)
{
	unsigned epoch = vdev_epoch(backend_virtiofs_device());
	pthread_t host;
	void *err;

	assert_int_equal(pthread_create(&host, NULL, host_waits, &fd), 0);
	await_waiter(fd);
	atomic_store(&backend_virtiofs_hold, true);
	backend_virtiofs_kill();
	pthread_join(host, &err);
	assert_null(err);
	atomic_store(&backend_virtiofs_hold, false);
	for (double began = now(); vdev_epoch(backend_virtiofs_device()) == epoch; usleep(1000))
		assert_true(now() - began < BACK_SECONDS_MAX);
}

static void give_up(struct file *f, int fd)
{
	assert_int_equal(lock(f, FILE_LOCK_POSIX, F_UNLCK), 0);
	assert_int_equal(lock(f, FILE_LOCK_OFD, F_UNLCK), 0);
	close(fd);
}

/* What was locked is, by each kind of lock; what somebody else got when the daemon died is told to be lost. */
static void test_locks(void **state)
{
	struct file *posix, *whole, *other;
	int fd, whole_fd;
	char byte;

	(void)state;
	backend_virtiofs_reconnects = true;
	assert_int_equal(fs_env_init(&e), 0);
	assert_int_equal(fs_open(&e, "/l", O_RDWR | O_CREAT, 0644, &posix), 0);
	assert_int_equal(fs_open(&e, "/w", O_RDWR | O_CREAT, 0644, &whole), 0);
	assert_int_equal(fs_open(&e, "/w", O_RDWR, 0, &other), 0);
	assert_int_equal(fs_write(posix, "x", 1), 1);
	assert_int_equal(lock(posix, FILE_LOCK_POSIX, F_WRLCK), 0);
	assert_int_equal(lock(whole, FILE_LOCK_FLOCK, F_WRLCK), 0);
	fd = host_open("l");
	whole_fd = host_open("w");
	backend_virtiofs_kill();
	wait_until_back(posix);
	assert_int_equal(host_lock(fd, false), -EAGAIN);
	assert_int_equal(flock(whole_fd, LOCK_SH | LOCK_NB), -1);
	assert_int_equal(lock(whole, FILE_LOCK_FLOCK, F_UNLCK), 0);
	assert_int_equal(flock(whole_fd, LOCK_EX | LOCK_NB), 0);
	assert_int_equal(lock(other, FILE_LOCK_FLOCK, F_WRLCK), -EAGAIN);
	host_gets(fd);
	wait_until_back(posix);
	assert_int_equal(fs_pread(posix, &byte, 1, 0), -EIO);
	assert_int_equal(fs_pwrite(posix, "y", 1, 0), -EIO);
	assert_int_equal(fs_pwrite(whole, "y", 1, 0), 1);
	assert_int_equal(lock(posix, FILE_LOCK_POSIX, F_RDLCK), -EIO);
	give_up(posix, fd);
	assert_int_equal(fs_pread(posix, &byte, 1, 0), 1);
	assert_int_equal(lock(posix, FILE_LOCK_OFD, F_WRLCK), 0);
	give_up(posix, whole_fd);
	fs_close(posix);
	fs_close(whole);
	fs_close(other);
	fs_env_fini(&e);
}

/* Who would have to wait for whom (F_GETLK): the daemon is asked, whatever the caller's pid. */
static void test_lock_looks(void **state)
{
	const struct file_lock req = {
		.kind = FILE_LOCK_POSIX, .type = F_WRLCK, .end = 9, .owner = &e, .pid = 7};
	struct file_lock got;
	struct file *f;
	int fd;

	(void)state;
	assert_int_equal(fs_env_init(&e), 0);
	assert_int_equal(fs_open(&e, "/l", O_RDWR | O_CREAT, 0644, &f), 0);
	assert_int_equal(file_lock_test(f, &req, &got), 0);
	assert_int_equal(got.type, F_UNLCK);
	fd = host_open("l");
	assert_int_equal(host_lock(fd, false), 0);
	assert_int_equal(file_lock_test(f, &req, &got), 0);
	assert_int_equal(got.type, F_WRLCK);
	assert_int_equal(got.end, HOST_END);
	assert_int_equal(got.pid, 0);
	close(fd);
	fs_close(f);
	fs_env_fini(&e);
}

/* Return: they were given up in time. */
static bool locks_closed(void)
{
	struct file *kept, *lost, *other, *ranges;
	struct file_lock part = {.type = F_UNLCK, .end = 4};
	int kept_fd, lost_fd, ranges_fd;
	bool in_time;
	char byte;

	backend_virtiofs_reconnects = true;
	assert_int_equal(fs_env_init(&e), 0);
	assert_int_equal(fs_open(&e, "/kept", O_RDWR | O_CREAT, 0644, &kept), 0);
	assert_int_equal(fs_open(&e, "/ranges", O_RDWR | O_CREAT, 0644, &ranges), 0);
	assert_int_equal(fs_open(&e, "/lost", O_RDWR | O_CREAT, 0644, &lost), 0);
	assert_int_equal(fs_open(&e, "/lost", O_RDWR, 0, &other), 0);
	assert_int_equal(fs_write(lost, "x", 1), 1);
	assert_int_equal(lock(kept, FILE_LOCK_POSIX, F_WRLCK), 0);
	assert_int_equal(lock(ranges, FILE_LOCK_POSIX, F_WRLCK), 0);
	assert_int_equal(lock(lost, FILE_LOCK_POSIX, F_WRLCK), 0);
	kept_fd = host_open("kept");
	lost_fd = host_open("lost");
	ranges_fd = host_open("ranges");
	/* For the second or two that it is asked for again. */
	host_gets(lost_fd);
	usleep(200000);
	in_time = virtiofs_device_restoring(backend_virtiofs_device());
	/* Else it may be away again, and for longer than calls wait for it. */
	if (!in_time)
		wait_until_back(other);
	part.owner = ranges;
	assert_int_equal(file_lock_set(ranges, &part, false), 0);
	file_locks_close(kept, kept);
	file_locks_close(lost, lost);
	wait_until_back(other);
	assert_int_equal(fs_pread(other, &byte, 1, 0), 1);
	assert_int_equal(lock(lost, FILE_LOCK_POSIX, F_RDLCK), -EAGAIN);
	assert_int_equal(lock(ranges, FILE_LOCK_OFD, F_WRLCK), -EAGAIN);
	assert_int_equal(host_lock(ranges_fd, false), -EAGAIN);
	part.start = 5;
	part.end = 9;
	assert_int_equal(file_lock_set(ranges, &part, false), 0);
	assert_int_equal(host_lock(ranges_fd, false), 0);
	assert_int_equal(host_lock(kept_fd, false), 0);
	close(lost_fd);
	assert_int_equal(lock(lost, FILE_LOCK_POSIX, F_RDLCK), 0);
	close(kept_fd);
	close(ranges_fd);
	fs_close(kept);
	fs_close(ranges);
	fs_close(lost);
	fs_close(other);
	fs_env_fini(&e);
	return in_time;
}

#define TRIES 5 /* a loaded machine may be late, and then nothing is given up meanwhile */
#define SKIP_STATUS 77 /* the run counts a test that proved nothing as skipped */

static bool late;

/* What was to happen while the daemon is away never did. Last in a test. */
static void never_in_time(void)
{
	late = true;
	print_message("not once in %u tries was this machine in time\n", TRIES);
	skip();
}

/* Locks that are given up while another daemon is asked for them are given up, and nobody is told to have lost any. */
static void test_locks_closed(void **state)
{
	bool in_time = false;

	(void)state;
	for (unsigned i = 0; i < TRIES && !in_time; i++)
		in_time = locks_closed();
	if (!in_time)
		never_in_time();
}

static int (*const *real_lock)(struct file *f, const struct file_lock *req, bool wait);
static unsigned times_asked;

/* Whoever is granted the first lock gets no further before the daemon is gone and another one has restored everything. */
static int lock_then_restart(struct file *f, const struct file_lock *req, bool wait)
{
	int err = (*real_lock)(f, req, wait);

	if (err || times_asked++)
		return err;
	backend_virtiofs_kill();
	wait_until_back(f);
	return 0;
}

/* A lock that a daemon grants which is gone before it is told of is one that the next daemon has too. */
static void test_locks_pushed_aside(void **state)
{
	static const enum file_lock_kind kinds[] = {FILE_LOCK_POSIX, FILE_LOCK_OFD};
	const struct file_ops *real;
	struct file_ops ops;
	struct file *f;
	int fd;

	(void)state;
	backend_virtiofs_reconnects = true;
	assert_int_equal(fs_env_init(&e), 0);
	assert_int_equal(fs_open(&e, "/aside", O_RDWR | O_CREAT, 0644, &f), 0);
	fd = host_open("aside");
	real = f->ops;
	real_lock = &real->remote_lock;
	ops = *real;
	ops.remote_lock = lock_then_restart;
	f->ops = &ops;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		times_asked = 0;
		assert_int_equal(lock(f, kinds[i], F_WRLCK), 0);
		assert_int_equal(times_asked, 2);
		assert_int_equal(host_lock(fd, false), -EAGAIN);
		assert_int_equal(lock(f, kinds[i], F_UNLCK), 0);
		assert_int_equal(host_lock(fd, false), 0);
		assert_int_equal(lock(f, kinds[i], F_WRLCK), -EAGAIN);
		close(fd);
		fd = host_open("aside");
	}
	f->ops = real;
	close(fd);
	fs_close(f);
	fs_env_fini(&e);
}

/* ---- begun while the daemon is away ---- */

#define AWAY_SECONDS_MAX 0.5 /* well within VDEV_GRACE_NS */

static int allocated;

static void *allocate_main(void *arg)
{
	rcu_thread_begin();
	cred_set_current(e.cred);
	allocated = file_fallocate(arg, 0, 0, 8192);
	cred_set_current(NULL);
	rcu_thread_end();
	return NULL;
}

/* A call that begins meanwhile waits for the daemon, and then asks it by its names for what is open. */
static void test_begun_away(void **state)
{
	struct moat_statx st;
	bool in_time = false;
	struct file *f;

	(void)state;
	backend_virtiofs_reconnects = true;
	assert_int_equal(fs_env_init(&e), 0);
	assert_int_equal(fs_open(&e, "/away", O_RDWR | O_CREAT, 0644, &f), 0);
	for (unsigned i = 0; i < TRIES && !in_time; i++) {
		pthread_t thread;
		double began;

		atomic_store(&backend_virtiofs_hold, true);
		backend_virtiofs_kill();
		began = now();
		while (virtiofs_device_alive(backend_virtiofs_device()))
			usleep(1000);
		assert_int_equal(pthread_create(&thread, NULL, allocate_main, f), 0);
		usleep(30000);
		atomic_store(&backend_virtiofs_hold, false);
		pthread_join(thread, NULL);
		in_time = now() - began < AWAY_SECONDS_MAX;
		if (in_time)
			assert_int_equal(allocated, 0);
		else
			assert_true(!allocated || allocated == -EIO);
		wait_until_back(f);
	}
	assert_int_equal(file_stat(f, &(struct stat_args){.mask = STATX_SIZE}, &st), 0);
	assert_true(!in_time || st.size == 8192);
	fs_close(f);
	fs_env_fini(&e);
	if (!in_time)
		never_in_time();
}

/* ---- long reads, which the host copies where the daemon gives the file ---- */

#define LONG_BYTES (3l << 20)

static void make_long(const char *name, char byte)
{
	static char piece[LONG_BYTES];
	char path[256];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", backend_virtiofs_dir(), name);
	f = fopen(path, "we");
	assert_non_null(f);
	memset(piece, byte, sizeof(piece));
	assert_int_equal(fwrite(piece, 1, sizeof(piece), f), sizeof(piece));
	assert_int_equal(fclose(f), 0);
}

/* Return: 0, -EIO. */
static int read_long(struct file *f, char byte)
{
	static char got[1 << 20];

	for (int64_t off = 0; off < LONG_BYTES; off += (int64_t)sizeof(got)) {
		ssize_t n = fs_pread(f, got, sizeof(got), off);

		if (n == -EIO)
			return -EIO;
		assert_int_equal(n, sizeof(got));
		assert_int_equal(got[0], byte);
		assert_memory_equal(got, got + 1, sizeof(got) - 1);
	}
	return 0;
}

/* A file that lost its name with a daemon is not read on by what that one gave; others go on by the new one. */
static void test_long_reads(void **state)
{
	const char *options = getenv("VIRTIOFS_OPTIONS");
	struct file *kept, *moved, *sync;
	char path[256], other[300];
	bool gives;

	(void)state;
	backend_virtiofs_reconnects = true;
	assert_int_equal(fs_env_init(&e), 0);
	gives = virtiofs_device_dax(backend_virtiofs_device()) &&
		!(options && strstr(options, "dax=always"));
	make_long("kept", 'k');
	make_long("moved", 'm');
	assert_int_equal(fs_open(&e, "/sync", O_RDWR | O_CREAT, 0644, &sync), 0);
	assert_int_equal(fs_open(&e, "/kept", O_RDONLY, 0, &kept), 0);
	assert_int_equal(fs_open(&e, "/moved", O_RDONLY, 0, &moved), 0);
	assert_int_equal(read_long(kept, 'k'), 0);
	assert_int_equal(read_long(moved, 'm'), 0);
	atomic_store(&backend_virtiofs_hold, true);
	backend_virtiofs_kill();
	while (virtiofs_device_alive(backend_virtiofs_device()))
		usleep(1000);
	snprintf(path, sizeof(path), "%s/moved", backend_virtiofs_dir());
	snprintf(other, sizeof(other), "%s.away", path);
	assert_int_equal(rename(path, other), 0);
	atomic_store(&backend_virtiofs_hold, false);
	wait_until_back(sync);
	assert_int_equal(read_long(kept, 'k'), 0);
	/* Cached pages, and ranges that are mapped, are read still. */
	if (gives)
		assert_int_equal(read_long(moved, 'm'), -EIO);
	fs_close(sync);
	fs_close(kept);
	fs_close(moved);
	fs_env_fini(&e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_restart),	     cmocka_unit_test(test_each_request),
		cmocka_unit_test(test_locks),	     cmocka_unit_test(test_lock_looks),
		cmocka_unit_test(test_locks_closed), cmocka_unit_test(test_locks_pushed_aside),
		cmocka_unit_test(test_begun_away),   cmocka_unit_test(test_long_reads)};
	int failed;

	log_init(-1, LOG_ERROR_LEVEL, "test");
	if (fs_env_process_init() || guard_install())
		return 1;
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	return failed || !late ? failed : SKIP_STATUS;
}
