/*
 * tests/fs/virtiofs_room.c - requests that nobody waits for, on a ring that is full of them: who needs room gets it once the daemon answered.
 *
 * The device has one queue. The daemon is stopped while that is filled, so that nobody happens to come by and take what is there.
 */
#define DAEMON_LOCKS true
#define CLIENT_QUEUES 1
#include "tests/fs/virtiofs_clients.h"

#include "base/rcu.h"
#include "base/sleep.h"

#define RING 128
#define MANY (3 * RING)
#define SECONDS_MAX 60 /* a loaded machine */

static struct client a;

static int begin(void **state)
{
	(void)state;
	put_host("f", "contents");
	client_start(&a, "cache=auto");
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

/* To the processes that serve connections. */
static void signal_daemons(int sig)
{
	char path[64];
	FILE *list;
	int pid;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", daemon_pid, daemon_pid);
	list = fopen(path, "re");
	assert_non_null(list);
	while (fscanf(list, "%d", &pid) == 1)
		assert_int_equal(kill(pid, sig), 0);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(closes, begin, end),
	};

	/* Before there are threads. */
	if (start_daemon())
		return 1;
	alarm(120);
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
