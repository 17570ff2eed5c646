/*
 * tests/fs/virtiofs_room.c - requests that nobody waits for, on a ring that is full of them: who needs room gets it once the daemon answered.
 *
 * The device has one queue. The daemon is stopped while that is filled, so that nobody happens to come by and take what is there.
 */
#define DAEMON_LOCKS true
#define CLIENT_QUEUES 1
#include "tests/fs/virtiofs_clients.h"

#include <dirent.h>

#include "base/rcu.h"
#include "base/sleep.h"
#include "fsimpl/virtiofs/device.h"
#include "tests/fs/lock_line.h"
#include "tests/lock_waiter.h"

#define RING 128
#define MANY (3 * RING)
#define SECONDS_MAX 60 /* a loaded machine */

static struct client a;

static int begin(void **state)
{
	(void)state;
	put_host("f", "contents");
	client_start(&a, "cache=always"); /* nothing is asked but what is meant */
	return 0;
}

static int end(void **state)
{
	(void)state;
	as(&a);
	client_stop(&a);
	remove_all();
	return 0;
}

/* Until each of its threads stands still, or it has ended: one that was running when the signal was sent goes on for a while. */
static void await_stopped(int pid)
{
	char path[300], state = 0;
	struct dirent *e;
	bool all = false;
	FILE *f;
	DIR *d;

	for (unsigned tries = 0; !all; tries++) {
		assert_true(tries < SECONDS_MAX * 200);
		snprintf(path, sizeof(path), "/proc/%d/task", pid);
		d = opendir(path);
		if (!d) {
			assert_int_equal(errno, ENOENT);
			return;
		}
		all = true;
		while ((e = readdir(d))) {
			if (e->d_name[0] == '.')
				continue;
			snprintf(path, sizeof(path), "/proc/%d/task/%s/stat", pid, e->d_name);
			f = fopen(path, "re");
			/* A comm has no parenthesis here. */
			if (f && fscanf(f, "%*d (%*[^)]) %c", &state) == 1 && !strchr("TZX", state))
				all = false;
			if (f)
				fclose(f);
		}
		closedir(d);
		if (!all)
			usleep(5000);
	}
}

/* To the processes that serve connections. */
static void signal_daemons(int sig)
{
	char path[64];
	FILE *list;
	int pid;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", daemon_pid, daemon_pid);
	list = fopen(path, "re");
	assert_non_null(list);
	while (fscanf(list, "%d", &pid) == 1) {
		/* That of the case before may be on its way out. */
		if (kill(pid, sig))
			assert_int_equal(errno, ESRCH);
		else if (sig == SIGSTOP)
			await_stopped(pid);
	}
	fclose(list);
}

static void await_at_least(_Atomic int *count, int wanted)
{
	for (unsigned tries = 0; *count < wanted; tries++) {
		assert_true(tries < SECONDS_MAX * 200);
		usleep(5000);
	}
}

/* ---- files closed ---- */

static struct file *many[MANY];
static _Atomic int closed;

static void *closer_main(void *arg)
{
	static struct sleeper sleeper;

	(void)arg;
	rcu_thread_begin();
	sleeper_init(&sleeper);
	sleeper_set_current(&sleeper);
	cred_set_current(a.env.cred);
	for (int i = 0; i < MANY; i++) {
		fs_close(many[i]);
		vfs_run_deferred();
		closed = i + 1;
	}
	cred_set_current(NULL);
	sleeper_set_current(NULL);
	rcu_thread_end();
	return NULL;
}

/* More than the ring has places: whoever closes them waits for room, and nobody else is there to take what the daemon answered. */
static void closes(void **state)
{
	pthread_t closer;

	(void)state;
	for (int i = 0; i < MANY; i++)
		assert_int_equal(fs_open(as(&a), "f", O_RDONLY, 0, &many[i]), 0);
	signal_daemons(SIGSTOP);
	assert_int_equal(pthread_create(&closer, NULL, closer_main, NULL), 0);
	await_at_least(&closed, RING);
	signal_daemons(SIGCONT);
	await_at_least(&closed, MANY);
	pthread_join(closer, NULL);
}

/* ---- left by the killed ---- */

#define BLOCK 4096

struct reader {
	struct file *f;
	struct sleeper sleeper;
	pthread_t thread;
	long got;
	_Atomic int over;
};

static void *reader_main(void *arg)
{
	struct reader *r = arg;
	char buf[BLOCK];

	rcu_thread_begin();
	sleeper_set_current(&r->sleeper);
	cred_set_current(a.env.cred);
	r->got = fs_pread(r->f, buf, sizeof(buf), 0);
	cred_set_current(NULL);
	sleeper_set_current(NULL);
	rcu_thread_end();
	r->over = 1;
	return NULL;
}

static void reader_start(struct reader *r, struct file *f)
{
	*r = (struct reader){.f = f};
	sleeper_init(&r->sleeper);
	assert_int_equal(pthread_create(&r->thread, NULL, reader_main, r), 0);
}

struct looked_for {
	const char *name;
	bool found;
};

static void look(void *arg, const char *what, uint64_t id, int64_t age_ns)
{
	struct looked_for *l = arg;

	(void)id;
	(void)age_ns;
	l->found |= !strcmp(what, l->name);
}

/* Until one of that name is under way, or none is. */
static void await_flying(const char *name, bool wanted)
{
	struct looked_for l = {name, !wanted};

	for (unsigned tries = 0; l.found != wanted; tries++) {
		assert_true(tries < SECONDS_MAX * 200);
		usleep(5000);
		l.found = false;
		vdev_in_flight(a.dev, look, &l);
	}
}

/* Who was killed while he read leaves his READ, which keeps others from the file until it is through, and no longer. */
static void fills(void **state)
{
	static struct reader x, y;
	struct file *f, *again;

	(void)state;
	assert_int_equal(fs_open(as(&a), "f", O_RDWR, 0, &f), 0);
	assert_int_equal(fs_open(as(&a), "f", O_RDWR, 0, &again), 0);
	signal_daemons(SIGSTOP);
	reader_start(&x, f);
	await_flying("READ", true);
	sleeper_interrupt(&x.sleeper, true);
	pthread_join(x.thread, NULL);
	assert_int_equal(x.got, -EINTR);
	reader_start(&y, again);
	usleep(20000);
	assert_false(y.over);
	signal_daemons(SIGCONT);
	await_at_least(&y.over, 1);
	pthread_join(y.thread, NULL);
	assert_int_equal(y.got, strlen("contents"));
	as(&a);
	fs_close(f);
	fs_close(again);
}

/* ---- a lock ---- */

static int host_set(int fd, short type)
{
	struct flock fl = {.l_type = type, .l_whence = SEEK_SET};

	return fcntl(fd, F_SETLK, &fl) < 0 ? -errno : 0;
}

/* Who was killed while he waited for a lock, and no INTERRUPT could be sent: what the daemon gets at last is given back. */
static void locks(void **state)
{
	struct file_lock req = {
		.kind = FILE_LOCK_POSIX, .type = F_WRLCK, .end = getpid(), .owner = &req, .pid = 7};
	int hfd = open(host_path("f"), O_RDWR | O_CLOEXEC);
	static struct waiter_thread w;
	struct file *f;

	(void)state;
	assert_int_equal(host_set(hfd, F_WRLCK), 0);
	assert_int_equal(fs_open(as(&a), "f", O_RDWR, 0, &f), 0);
	for (unsigned i = 0; i < RING - 1; i++)
		assert_int_equal(fs_open(as(&a), "f", O_RDWR, 0, &many[i]), 0);
	assert_int_equal(waiter_start(&w, f, &req, a.env.cred), 0);
	for (unsigned tries = 0; lock_waiters(hfd, req.end) != 1; tries++) {
		assert_true(tries < SECONDS_MAX * 200);
		usleep(5000);
	}
	signal_daemons(SIGSTOP);
	for (unsigned i = 0; i < RING - 1; i++)
		assert_int_equal(fs_close(many[i]), 0);
	vfs_run_deferred();
	sleeper_interrupt(&w.sleeper, true);
	assert_int_equal(wait_finish(&w), -EINTR);
	assert_int_equal(host_set(hfd, F_UNLCK), 0);
	signal_daemons(SIGCONT);
	/* It has it, and then no more. */
	await_flying("SETLKW", false);
	for (unsigned tries = 0; host_set(hfd, F_WRLCK); tries++) {
		assert_true(tries < SECONDS_MAX * 200);
		usleep(5000);
	}
	close(hfd);
	as(&a);
	fs_close(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(closes, begin, end),
		cmocka_unit_test_setup_teardown(fills, begin, end),
		cmocka_unit_test_setup_teardown(locks, begin, end),
	};

	/* Before there are threads. */
	if (start_daemon())
		return 1;
	alarm(120);
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
