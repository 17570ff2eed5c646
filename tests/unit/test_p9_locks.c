// LINK: moat_gofer moat_gofer_fs moat_vfs moat_mem moat_wire seccomp
/*
 * Locks of files in a shared tree: two clients (sandboxes) with a gofer each, and a process of the host, exclude each other; waiting, signals, deadlock,
 * and what happens when a gofer goes.
 */
#include "tests/unit/p9_gofer_fixture.h"

#include <sys/file.h>

#include "base/hostpoll.h"
#include "fsimpl/gofer/conn.h"
#include "tests/lock_waiter.h"

static struct fixture two; /* the second sandbox */
static struct file *f1, *f2; /* the same file in both */
static int hfd = -1; /* and on the host */
static int me, other;

static int setup_locks(void **state)
{
	struct open_args open_args = {.flags = O_RDWR};
	struct vfs_lookup lk;

	shared_mode = true;
	assert_int_equal(setup(state), 0);
	mount_client(&two, true, "two");
	write_host("f", "contents");
	hfd = open(host("f"), O_RDWR | O_CLOEXEC);
	assert_true(hfd >= 0);
	assert_int_equal(do_open("f", O_RDWR, 0, &f1), 0);
	lk = at("f", LOOKUP_FOLLOW);
	lk.ns = two.ns;
	lk.root = lk.start = two.root;
	assert_int_equal(vfs_open(&lk, &open_args, &f2), 0);
	return 0;
}

static void put_file(struct file **f)
{
	if (*f)
		file_unref(*f);
	*f = NULL;
}

static int teardown_locks(void **state)
{
	int status;

	put_file(&f1);
	put_file(&f2);
	close(hfd);
	unmount_client(&two);
	assert_int_equal(waitpid(two.pid, &status, 0), two.pid);
	return teardown(state);
}

static struct file_lock request(enum file_lock_kind kind, const void *owner, short type,
				uint64_t start, uint64_t end)
{
	return (struct file_lock){
		.kind = kind, .type = type, .start = start, .end = end, .owner = owner, .pid = 7};
}

static int set(struct file *f, enum file_lock_kind kind, const void *owner, short type,
	       uint64_t start, uint64_t end)
{
	struct file_lock req = request(kind, owner, type, start, end);

	return file_lock_set(f, &req, false);
}

static int host_set(int cmd, short type, off_t start, off_t len)
{
	struct flock fl = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};

	return fcntl(hfd, cmd, &fl) < 0 ? -errno : 0;
}

static short seen(struct file *f, const void *owner, uint64_t at_byte, int32_t *ret_pid)
{
	struct file_lock req = request(FILE_LOCK_POSIX, owner, F_WRLCK, at_byte, at_byte), got;

	assert_int_equal(file_lock_test(f, &req, &got), 0);
	*ret_pid = got.pid;
	return got.type;
}

/* ---- who excludes whom ---- */

static void records(void **state)
{
	int32_t pid;

	(void)state;
	assert_int_equal(set(f1, FILE_LOCK_POSIX, &me, F_WRLCK, 0, 9), 0);
	assert_int_equal(set(f2, FILE_LOCK_POSIX, &me, F_RDLCK, 5, 5), -EAGAIN);
	assert_int_equal(set(f1, FILE_LOCK_POSIX, &other, F_RDLCK, 5, 5), -EAGAIN);
	assert_int_equal(host_set(F_SETLK, F_RDLCK, 9, 1), -EAGAIN);
	assert_int_equal(host_set(F_OFD_SETLK, F_RDLCK, 9, 1), -EAGAIN);
	assert_int_equal(host_set(F_SETLK, F_WRLCK, 10, 1), 0);
	/* Whose it is: ours by its pid, somebody's outside by none. */
	assert_int_equal(seen(f1, &other, 3, &pid), F_WRLCK);
	assert_int_equal(pid, 7);
	assert_int_equal(seen(f2, &other, 3, &pid), F_WRLCK);
	assert_int_equal(pid, 0);
	assert_int_equal(seen(f1, &me, 10, &pid), F_WRLCK);
	assert_int_equal(pid, 0);
	assert_int_equal(seen(f1, &me, 20, &pid), F_UNLCK);
	/* Downgrade, split, and give up in the middle. */
	assert_int_equal(set(f1, FILE_LOCK_POSIX, &me, F_RDLCK, 0, 9), 0);
	assert_int_equal(set(f2, FILE_LOCK_POSIX, &me, F_RDLCK, 5, 5), 0);
	assert_int_equal(set(f1, FILE_LOCK_POSIX, &me, F_WRLCK, 5, 5), -EAGAIN);
	assert_int_equal(set(f2, FILE_LOCK_POSIX, &me, F_UNLCK, 0, INT64_MAX), 0);
	assert_int_equal(set(f1, FILE_LOCK_POSIX, &me, F_UNLCK, 4, 6), 0);
	assert_int_equal(set(f2, FILE_LOCK_POSIX, &me, F_WRLCK, 4, 6), 0);
	assert_int_equal(set(f2, FILE_LOCK_POSIX, &me, F_WRLCK, 7, 7), -EAGAIN);
	/* Closing any descriptor of the file drops the owner's. */
	file_locks_close(f1, &me);
	assert_int_equal(set(f2, FILE_LOCK_POSIX, &me, F_WRLCK, 0, 9), 0);
	file_locks_close(f2, &me);
	assert_int_equal(host_set(F_SETLK, F_WRLCK, 0, 0), 0);
	assert_int_equal(set(f1, FILE_LOCK_POSIX, &me, F_RDLCK, 0, 0), -EAGAIN);
}

static void open_files(void **state)
{
	struct file *again;

	(void)state;
	assert_int_equal(set(f1, FILE_LOCK_OFD, f1, F_WRLCK, 0, INT64_MAX), 0);
	assert_int_equal(set(f2, FILE_LOCK_OFD, f2, F_RDLCK, 0, 0), -EAGAIN);
	assert_int_equal(host_set(F_OFD_SETLK, F_RDLCK, 0, 0), -EAGAIN);
	assert_int_equal(do_open("f", O_RDWR, 0, &again), 0);
	assert_int_equal(set(again, FILE_LOCK_OFD, again, F_RDLCK, 0, 0), -EAGAIN);
	file_unref(again);
	/* Somebody's close does not drop them, the last one of this description does. */
	file_locks_close(f1, &me);
	assert_int_equal(set(f2, FILE_LOCK_OFD, f2, F_RDLCK, 0, 0), -EAGAIN);
	put_file(&f1);
	assert_int_equal(set(f2, FILE_LOCK_OFD, f2, F_RDLCK, 0, 0), 0);
}

static void flocks(void **state)
{
	(void)state;
	assert_int_equal(set(f1, FILE_LOCK_FLOCK, f1, F_RDLCK, 0, INT64_MAX), 0);
	assert_int_equal(set(f2, FILE_LOCK_FLOCK, f2, F_RDLCK, 0, INT64_MAX), 0);
	assert_int_equal(flock(hfd, LOCK_EX | LOCK_NB), -1);
	/* Record locks are none of theirs. */
	assert_int_equal(host_set(F_SETLK, F_WRLCK, 0, 0), 0);
	/* A conversion that fails has given the old one up. */
	assert_int_equal(set(f1, FILE_LOCK_FLOCK, f1, F_WRLCK, 0, INT64_MAX), -EAGAIN);
	assert_int_equal(set(f2, FILE_LOCK_FLOCK, f2, F_WRLCK, 0, INT64_MAX), 0);
	assert_int_equal(flock(hfd, LOCK_SH | LOCK_NB), -1);
	put_file(&f2);
	assert_int_equal(flock(hfd, LOCK_EX | LOCK_NB), 0);
	assert_int_equal(set(f1, FILE_LOCK_FLOCK, f1, F_RDLCK, 0, INT64_MAX), -EAGAIN);
}

static void directories(void **state)
{
	struct file *d;
	int hd;

	(void)state;
	assert_int_equal(mkdir(host("dir"), 0755), 0);
	hd = open(host("dir"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(do_open("dir", O_RDONLY | O_DIRECTORY, 0, &d), 0);
	assert_int_equal(flock(hd, LOCK_SH), 0);
	assert_int_equal(set(d, FILE_LOCK_FLOCK, d, F_WRLCK, 0, INT64_MAX), -EAGAIN);
	assert_int_equal(set(d, FILE_LOCK_FLOCK, d, F_RDLCK, 0, INT64_MAX), 0);
	assert_int_equal(flock(hd, LOCK_EX | LOCK_NB), -1);
	close(hd);
	file_unref(d);
}

/* ---- waiting ---- */

static bool waits_there(struct p9_conn *c)
{
	bool ret;

	mutex_lock(&c->lock);
	ret = !LIST_EMPTY(&c->lock_waits);
	mutex_unlock(&c->lock);
	return ret;
}

/* Returns when it waits, however long it took to come so far. */
static void wait_begin(struct waiter_thread *w, struct file *f, enum file_lock_kind kind,
		       const void *owner, short type, uint64_t start, uint64_t end)
{
	const struct file_lock req = request(kind, owner, type, start, end);

	assert_int_equal(waiter_start(w, f, &req, NULL), 0);
	while (w->err == 1 && !waits_there(f == f1 ? fx.conn : two.conn))
		usleep(1000);
	assert_int_equal(w->err, 1);
}

static void waits(void **state)
{
	struct waiter_thread w;
	struct moat_statx st;

	(void)state;
	/* for another sandbox */
	assert_int_equal(set(f2, FILE_LOCK_POSIX, &me, F_WRLCK, 0, 0), 0);
	wait_begin(&w, f1, FILE_LOCK_POSIX, &me, F_WRLCK, 0, 0);
	/* which keeps nothing else from being served */
	assert_int_equal(do_stat("f", &st), 0);
	assert_int_equal(set(f2, FILE_LOCK_POSIX, &me, F_UNLCK, 0, 0), 0);
	assert_int_equal(wait_finish(&w), 0);
	assert_int_equal(set(f2, FILE_LOCK_POSIX, &me, F_RDLCK, 0, 0), -EAGAIN);
	file_locks_close(f1, &me);
	/* for the host, flock */
	assert_int_equal(flock(hfd, LOCK_EX), 0);
	wait_begin(&w, f1, FILE_LOCK_FLOCK, f1, F_RDLCK, 0, INT64_MAX);
	assert_int_equal(flock(hfd, LOCK_UN), 0);
	assert_int_equal(wait_finish(&w), 0);
	assert_int_equal(flock(hfd, LOCK_EX | LOCK_NB), -1);
	/* for somebody in the same sandbox */
	assert_int_equal(set(f1, FILE_LOCK_POSIX, &me, F_WRLCK, 0, 0), 0);
	wait_begin(&w, f1, FILE_LOCK_POSIX, &other, F_WRLCK, 0, 0);
	assert_int_equal(set(f1, FILE_LOCK_POSIX, &me, F_UNLCK, 0, 0), 0);
	assert_int_equal(wait_finish(&w), 0);
	file_locks_close(f1, &other);
}

static void interrupted(void **state)
{
	struct waiter_thread w;

	(void)state;
	for (int killed = 0; killed < 2; killed++) {
		assert_int_equal(host_set(F_SETLK, F_WRLCK, 0, 0), 0);
		wait_begin(&w, f1, FILE_LOCK_POSIX, &me, F_WRLCK, 0, 0);
		sleeper_interrupt(&w.sleeper, killed);
		assert_int_equal(wait_finish(&w), -EINTR);
		/* Nothing waits for it any more, so nothing gets it. */
		assert_int_equal(host_set(F_SETLK, F_UNLCK, 0, 0), 0);
		usleep(20000);
		assert_int_equal(host_set(F_SETLK, F_WRLCK, 0, 0), 0);
		file_locks_close(f1, &me);
	}
}

/* Closed by another thread meanwhile: what was waited for is the owner's, and when that is undone too nothing is left of it. */
static void closed_while_waiting(void **state)
{
	struct waiter_thread w;

	(void)state;
	for (int interrupt = 0; interrupt < 2; interrupt++) {
		assert_int_equal(set(f1, FILE_LOCK_POSIX, &me, F_WRLCK, 20, 29), 0);
		assert_int_equal(host_set(F_SETLK, F_WRLCK, 0, 10), 0);
		wait_begin(&w, f1, FILE_LOCK_POSIX, &me, F_WRLCK, 0, 9);
		file_locks_close(f1, &me);
		assert_int_equal(set(f2, FILE_LOCK_POSIX, &me, F_WRLCK, 20, 29), 0);
		if (interrupt)
			sleeper_interrupt(&w.sleeper, true);
		else
			assert_int_equal(host_set(F_SETLK, F_UNLCK, 0, 0), 0);
		assert_int_equal(wait_finish(&w), interrupt ? -EINTR : 0);
		if (!interrupt) {
			assert_int_equal(set(f2, FILE_LOCK_POSIX, &me, F_RDLCK, 5, 5), -EAGAIN);
			/* Others of its come and go. */
			assert_int_equal(set(f1, FILE_LOCK_POSIX, &me, F_WRLCK, 40, 49), 0);
			assert_int_equal(set(f1, FILE_LOCK_POSIX, &me, F_UNLCK, 40, 49), 0);
			assert_int_equal(set(f2, FILE_LOCK_POSIX, &me, F_RDLCK, 5, 5), -EAGAIN);
			assert_int_equal(set(f1, FILE_LOCK_POSIX, &me, F_UNLCK, 0, 9), 0);
		}
		assert_int_equal(atomic_load(&fx.conn->lock_fids), 0);
		assert_int_equal(host_set(F_SETLK, F_UNLCK, 0, 0), 0);
		assert_int_equal(set(f2, FILE_LOCK_POSIX, &me, F_WRLCK, 0, 9), 0);
		file_locks_close(f2, &me);
	}
}

static void *free_tags(void *arg)
{
	struct p9_conn *c = fx.conn;

	usleep(20 * P9_TICK_MS * 1000);
	mutex_lock(&c->lock);
	c->in_flight -= *(unsigned *)arg;
	atomic_fetch_add(&c->tag_word, 1);
	mutex_unlock(&c->lock);
	return NULL;
}

/* Who was killed closes its files while every tag is taken: the locks go all the same. */
static void killed_without_tags(void **state)
{
	struct p9_conn *c = fx.conn;
	struct sleeper killed;
	pthread_t thread;
	unsigned taken;

	(void)state;
	assert_int_equal(set(f1, FILE_LOCK_POSIX, &me, F_WRLCK, 0, 9), 0);
	mutex_lock(&c->lock);
	taken = P9_TAGS_MAX - c->in_flight;
	c->in_flight += taken;
	mutex_unlock(&c->lock);
	assert_int_equal(pthread_create(&thread, NULL, free_tags, &taken), 0);
	sleeper_init(&killed);
	sleeper_set_current(&killed);
	sleeper_interrupt(&killed, true);
	file_locks_close(f1, &me);
	sleeper_set_current(NULL);
	pthread_join(thread, NULL);
	assert_int_equal(set(f2, FILE_LOCK_POSIX, &me, F_WRLCK, 0, 9), 0);
	file_locks_close(f2, &me);
}

/* More than the gofer's threads: the rest asks again. */
static void many_waiters(void **state)
{
	enum { COUNT = 80 };
	static struct waiter_thread w[COUNT];
	static int owners[COUNT];

	(void)state;
	assert_int_equal(host_set(F_SETLK, F_WRLCK, 0, 0), 0);
	for (int i = 0; i < COUNT; i++) {
		w[i] = (struct waiter_thread){.f = f1,
					      .req = request(FILE_LOCK_POSIX, &owners[i], F_RDLCK,
							     0, 0),
					      .err = 1};
		sleeper_init(&w[i].sleeper);
		assert_int_equal(pthread_create(&w[i].thread, NULL, wait_main, &w[i]), 0);
	}
	usleep(200000);
	for (int i = 0; i < COUNT; i++)
		assert_int_equal(w[i].err, 1);
	assert_int_equal(host_set(F_SETLK, F_UNLCK, 0, 0), 0);
	for (int i = 0; i < COUNT; i++) {
		assert_int_equal(wait_finish(&w[i]), 0);
		file_locks_close(f1, &owners[i]);
	}
	assert_int_equal(host_set(F_SETLK, F_WRLCK, 0, 0), 0);
}

static void deadlock(void **state)
{
	struct file_lock req = request(FILE_LOCK_POSIX, &other, F_WRLCK, 0, 0);
	struct waiter_thread w;

	(void)state;
	assert_int_equal(set(f1, FILE_LOCK_POSIX, &me, F_WRLCK, 0, 0), 0);
	assert_int_equal(set(f1, FILE_LOCK_POSIX, &other, F_WRLCK, 1, 1), 0);
	wait_begin(&w, f1, FILE_LOCK_POSIX, &me, F_WRLCK, 1, 1);
	assert_int_equal(file_lock_set(f1, &req, true), -EDEADLK);
	file_locks_close(f1, &other);
	assert_int_equal(wait_finish(&w), 0);
	file_locks_close(f1, &me);
	/* A holder outside may become one inside while somebody waits. */
	assert_int_equal(host_set(F_SETLK, F_WRLCK, 1, 1), 0);
	assert_int_equal(set(f1, FILE_LOCK_POSIX, &me, F_WRLCK, 0, 0), 0);
	wait_begin(&w, f1, FILE_LOCK_POSIX, &me, F_WRLCK, 1, 1);
	assert_int_equal(host_set(F_SETLK, F_RDLCK, 1, 1), 0);
	assert_int_equal(set(f1, FILE_LOCK_POSIX, &other, F_RDLCK, 1, 1), 0);
	assert_int_equal(host_set(F_SETLK, F_UNLCK, 0, 0), 0);
	assert_int_equal(file_lock_set(f1, &req, true), -EDEADLK);
	file_locks_close(f1, &other);
	assert_int_equal(wait_finish(&w), 0);
	file_locks_close(f1, &me);
}

/* Who waits at a gofer that goes gets EIO, and what that gofer had is free. */
static void gofer_killed(void **state)
{
	struct waiter_thread w;

	(void)state;
	assert_int_equal(set(f2, FILE_LOCK_POSIX, &me, F_WRLCK, 5, 5), 0);
	assert_int_equal(host_set(F_SETLK, F_WRLCK, 0, 1), 0);
	wait_begin(&w, f2, FILE_LOCK_POSIX, &me, F_WRLCK, 0, 0);
	kill(two.pid, SIGKILL);
	assert_int_equal(wait_finish(&w), -EIO);
	for (int i = 0; i < 6000 && set(f1, FILE_LOCK_POSIX, &me, F_WRLCK, 5, 5); i++)
		usleep(10000);
	assert_int_equal(set(f1, FILE_LOCK_POSIX, &other, F_WRLCK, 5, 5), -EAGAIN);
	assert_int_equal(set(f2, FILE_LOCK_POSIX, &me, F_WRLCK, 5, 5), -EIO);
	file_locks_close(f1, &me);
}

/* Removed by somebody else: this sandbox's own locks still work. */
static void removed(void **state)
{
	(void)state;
	assert_int_equal(unlink(host("f")), 0);
	assert_int_equal(set(f1, FILE_LOCK_POSIX, &me, F_WRLCK, 0, 0), 0);
	assert_int_equal(set(f1, FILE_LOCK_POSIX, &other, F_WRLCK, 0, 0), -EAGAIN);
	file_locks_close(f1, &me);
	assert_int_equal(set(f1, FILE_LOCK_POSIX, &other, F_WRLCK, 0, 0), 0);
	file_locks_close(f1, &other);
}

#define LOCK_TEST(name) cmocka_unit_test_setup_teardown(name, setup_locks, teardown_locks)

static int init_locks(void **state)
{
	return init(state) || hostpoll_start();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		LOCK_TEST(records),
		LOCK_TEST(open_files),
		LOCK_TEST(flocks),
		LOCK_TEST(directories),
		LOCK_TEST(waits),
		LOCK_TEST(interrupted),
		LOCK_TEST(many_waiters),
		LOCK_TEST(deadlock),
		LOCK_TEST(gofer_killed),
		LOCK_TEST(removed),
		LOCK_TEST(killed_without_tags),
		LOCK_TEST(closed_while_waiting),
	};

	/* What hangs must not keep everything else waiting. */
	alarm(120);
	return cmocka_run_group_tests(tests, init_locks, NULL);
}
