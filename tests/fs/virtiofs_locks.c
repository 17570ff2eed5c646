/*
 * tests/fs/virtiofs_locks.c - locks of files on a daemon that has them: two clients and the host exclude each other; waiting, signals, deadlock.
 */
#define DAEMON_LOCKS true
#include "tests/fs/virtiofs_clients.h"

#include <sys/file.h>

#include "tests/fs/lock_line.h"
#include "tests/lock_waiter.h"

#define QUIET_US 200000
#define QUIET_TRIES 50 /* a loaded machine */
#define SECONDS_MAX 60 /* the same */
#define CROWD 36
#define CROWD_THERE 32 /* LOCK_WAITS_MAX: that many are waited for by the daemon */
#define ASKED_AGAIN 8
#define WAIT_END \
	(1000u + (unsigned)getpid()) /* of what is waited for: a range that no other test has */

static struct client a, b;
static struct file *fa, *fb; /* the same file in both */
static int hfd = -1; /* and on the host */
static int me, other;

static int begin(void **state)
{
	(void)state;
	put_host("f", "contents");
	hfd = open(host_path("f"), O_RDWR | O_CLOEXEC);
	client_start(&a, "cache=auto");
	client_start(&b, "cache=none");
	assert_int_equal(fs_open(as(&a), "f", O_RDWR, 0, &fa), 0);
	assert_int_equal(fs_open(as(&b), "f", O_RDWR, 0, &fb), 0);
	return 0;
}

static int end(void **state)
{
	(void)state;
	as(&a);
	fs_close(fa);
	as(&b);
	fs_close(fb);
	client_stop(&a);
	client_stop(&b);
	close(hfd);
	remove_all();
	return 0;
}

static struct file_lock request(enum file_lock_kind kind, const void *owner, short type,
				uint64_t from, uint64_t to)
{
	return (struct file_lock){
		.kind = kind, .type = type, .start = from, .end = to, .owner = owner, .pid = 7};
}

static int set(struct file *f, enum file_lock_kind kind, const void *owner, short type,
	       uint64_t from, uint64_t to)
{
	struct file_lock req = request(kind, owner, type, from, to);

	as(f == fa ? &a : &b);
	return file_lock_set(f, &req, false);
}

static int host_set(int cmd, short type, off_t start, off_t len)
{
	struct flock fl = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};

	return fcntl(hfd, cmd, &fl) < 0 ? -errno : 0;
}

static void records(void **state)
{
	struct file_lock req = request(FILE_LOCK_POSIX, &other, F_WRLCK, 3, 3), got;

	(void)state;
	assert_int_equal(set(fa, FILE_LOCK_POSIX, &me, F_WRLCK, 0, 9), 0);
	assert_int_equal(set(fb, FILE_LOCK_POSIX, &me, F_RDLCK, 5, 5), -EAGAIN);
	assert_int_equal(set(fa, FILE_LOCK_POSIX, &other, F_RDLCK, 5, 5), -EAGAIN);
	assert_int_equal(host_set(F_SETLK, F_RDLCK, 9, 1), -EAGAIN);
	assert_int_equal(host_set(F_SETLK, F_WRLCK, 10, 1), 0);
	assert_int_equal(file_lock_test(fa, &req, &got), 0);
	assert_int_equal(got.type, F_WRLCK);
	assert_int_equal(got.pid, 7);
	assert_int_equal(file_lock_test(fb, &req, &got), 0);
	assert_int_equal(got.type, F_WRLCK);
	assert_int_equal(got.pid, 0);
	assert_int_equal(got.end, 9);
	req.start = req.end = 20;
	assert_int_equal(file_lock_test(fb, &req, &got), 0);
	assert_int_equal(got.type, F_UNLCK);
	assert_int_equal(set(fa, FILE_LOCK_POSIX, &me, F_UNLCK, 4, 6), 0);
	assert_int_equal(set(fb, FILE_LOCK_POSIX, &me, F_WRLCK, 4, 6), 0);
	file_locks_close(fa, &me);
	assert_int_equal(set(fb, FILE_LOCK_POSIX, &me, F_WRLCK, 0, 9), 0);
	file_locks_close(fb, &me);
	assert_int_equal(host_set(F_SETLK, F_WRLCK, 0, 0), 0);
	assert_int_equal(set(fa, FILE_LOCK_POSIX, &me, F_RDLCK, 0, 0), -EAGAIN);
}

static void open_files(void **state)
{
	struct file *again;

	(void)state;
	assert_int_equal(fs_open(as(&a), "f", O_RDWR, 0, &again), 0);
	assert_int_equal(set(again, FILE_LOCK_OFD, again, F_WRLCK, 0, INT64_MAX), 0);
	assert_int_equal(set(fa, FILE_LOCK_OFD, fa, F_RDLCK, 0, 0), -EAGAIN);
	assert_int_equal(set(fb, FILE_LOCK_OFD, fb, F_RDLCK, 0, 0), -EAGAIN);
	assert_int_equal(host_set(F_OFD_SETLK, F_RDLCK, 0, 0), -EAGAIN);
	as(&a);
	fs_close(again);
	vfs_run_deferred();
	assert_int_equal(set(fb, FILE_LOCK_OFD, fb, F_RDLCK, 0, 0), 0);
	/* flock(2)'s are others */
	assert_int_equal(set(fa, FILE_LOCK_FLOCK, fa, F_RDLCK, 0, INT64_MAX), 0);
	assert_int_equal(set(fb, FILE_LOCK_FLOCK, fb, F_RDLCK, 0, INT64_MAX), 0);
	assert_int_equal(set(fa, FILE_LOCK_FLOCK, fa, F_WRLCK, 0, INT64_MAX), -EAGAIN);
	assert_int_equal(flock(hfd, LOCK_EX | LOCK_NB), -1);
	assert_int_equal(set(fb, FILE_LOCK_FLOCK, fb, F_UNLCK, 0, INT64_MAX), 0);
	assert_int_equal(flock(hfd, LOCK_EX | LOCK_NB), 0);
	assert_int_equal(set(fa, FILE_LOCK_FLOCK, fa, F_RDLCK, 0, INT64_MAX), -EAGAIN);
}

static void wait_begin(struct waiter_thread *w, struct file *f, const void *owner, short type)
{
	const struct file_lock req = request(FILE_LOCK_POSIX, owner, type, 0, WAIT_END);

	assert_int_equal(waiter_start(w, f, &req, a.env.cred), 0);
}

/* Until `count` of them are waited for on the host. */
static void await_blocked(unsigned count)
{
	for (unsigned tries = 0; lock_waiters(hfd, WAIT_END) != count; tries++) {
		assert_true(tries < SECONDS_MAX * 200);
		usleep(5000);
	}
}

/* Once it has come so far, the daemon waits, and is asked nothing meanwhile: who asked again would do so every 50 ms. */
static void becomes_quiet(void)
{
	uint64_t before, now = virtiofs_device_requests(a.dev);
	unsigned tries = 0;

	do {
		before = now;
		usleep(QUIET_US);
		now = virtiofs_device_requests(a.dev);
	} while (now != before && ++tries < QUIET_TRIES);
	assert_int_equal(now, before);
}

static void waits(void **state)
{
	struct waiter_thread w;

	(void)state;
	assert_int_equal(set(fb, FILE_LOCK_POSIX, &me, F_WRLCK, 0, 0), 0);
	wait_begin(&w, fa, &me, F_WRLCK);
	await_blocked(1);
	becomes_quiet();
	assert_int_equal(w.err, 1);
	assert_int_equal(set(fb, FILE_LOCK_POSIX, &me, F_UNLCK, 0, 0), 0);
	assert_int_equal(wait_finish(&w), 0);
	assert_int_equal(set(fb, FILE_LOCK_POSIX, &me, F_RDLCK, 0, 0), -EAGAIN);
	file_locks_close(fa, &me);
	for (int killed = 0; killed < 2; killed++) {
		assert_int_equal(host_set(F_SETLK, F_WRLCK, 0, 0), 0);
		wait_begin(&w, fa, &me, F_WRLCK);
		await_blocked(1);
		sleeper_interrupt(&w.sleeper, killed);
		assert_int_equal(wait_finish(&w), -EINTR);
		/* Who was killed may have left it to the daemon to end the wait. */
		if (killed)
			await_blocked(0);
		assert_int_equal(lock_waiters(hfd, WAIT_END), 0);
		assert_int_equal(host_set(F_SETLK, F_UNLCK, 0, 0), 0);
		usleep(20000);
		assert_int_equal(host_set(F_SETLK, F_WRLCK, 0, 0), 0);
	}
	assert_int_equal(host_set(F_SETLK, F_UNLCK, 0, 0), 0);
}

/* More than the daemon waits for at once: all of them get it, or are told of their signals. */
static void crowd(void **state)
{
	static struct waiter_thread w[CROWD];
	uint64_t before;

	(void)state;
	for (int interrupted = 0; interrupted < 2; interrupted++) {
		assert_int_equal(host_set(F_SETLK, F_WRLCK, 0, 0), 0);
		for (unsigned i = 0; i < CROWD; i++)
			wait_begin(&w[i], fa, &w[i], F_RDLCK);
		/* So many wait there, and the others go on to ask. */
		await_blocked(CROWD_THERE);
		for (before = virtiofs_device_requests(a.dev);
		     virtiofs_device_requests(a.dev) < before + CROWD + ASKED_AGAIN;)
			usleep(1000);
		assert_int_equal(lock_waiters(hfd, WAIT_END), CROWD_THERE);
		for (unsigned i = 0; interrupted && i < CROWD; i++)
			sleeper_interrupt(&w[i].sleeper, i % 2);
		if (!interrupted)
			assert_int_equal(host_set(F_SETLK, F_UNLCK, 0, 0), 0);
		for (unsigned i = 0; i < CROWD; i++) {
			assert_int_equal(wait_finish(&w[i]), interrupted ? -EINTR : 0);
			file_locks_close(fa, &w[i]);
		}
		assert_int_equal(host_set(F_SETLK, F_WRLCK, 0, 0), 0);
		assert_int_equal(host_set(F_SETLK, F_UNLCK, 0, 0), 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(records, begin, end),
		cmocka_unit_test_setup_teardown(open_files, begin, end),
		cmocka_unit_test_setup_teardown(waits, begin, end),
		cmocka_unit_test_setup_teardown(crowd, begin, end),
	};

	/* Before there are threads. */
	if (start_daemon())
		return 1;
	alarm(120);
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
