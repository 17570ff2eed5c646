/*
 * tests/fs/virtiofs_listings.c - listings of directories that the virtio-fs client keeps (fsimpl/virtiofs/listing.h): with two clients on one daemon of ours, the
 * host, and several threads. How many requests they cost in each cache mode is virtiofs_trips.c's.
 */
#include "base/rcu.h"
#include "base/sleep.h"
#include "tests/fs/virtiofs_clients.h"

static int list_of(struct client *c, const char *path)
{
	static char buf[65536];

	return fs_list(as(c), path, buf, sizeof(buf));
}

/* Lists the directory until that asks for nothing. */
static void list_until_quiet(struct client *c, const char *path, int count)
{
	int64_t end = now_ms() + SEEN_MS;
	uint64_t sent;

	do {
		assert_true(now_ms() < end);
		usleep(20000);
		sent = virtiofs_device_requests(c->dev);
		assert_int_equal(list_of(c, path), count);
	} while (virtiofs_device_requests(c->dev) != sent);
}

static void expect_count(struct client *c, const char *path, int count, bool at_once)
{
	int64_t end = now_ms() + SEEN_MS;

	while (list_of(c, path) != count) {
		assert_false(at_once);
		assert_true(now_ms() < end);
		usleep(500);
	}
}

/* Asks for nothing while nothing changes, and sees what another client does, and the host. */
static void listings_are_kept(void **state)
{
	static const char *const options[] = {"cache=none,coherence=versions", "coherence=versions",
					      "cache=always,coherence=strict"};
	struct client a, b;
	uint64_t sent;

	(void)state;
	for (unsigned i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
		bool strict = strstr(options[i], "strict");

		assert_int_equal(mkdir(host_path("l"), 0755), 0);
		for (unsigned n = 0; n < 10; n++) {
			char name[16];

			snprintf(name, sizeof(name), "l/f%u", n);
			put_host(name, "x");
		}
		client_start(&a, options[i]);
		client_start(&b, options[i]);
		expect_there(&b, "l", false);
		list_until_quiet(&a, "l", 10);
		sent = virtiofs_device_requests(a.dev);
		for (int n = 0; n < 100; n++)
			assert_int_equal(list_of(&a, "l"), 10);
		assert_int_equal(virtiofs_device_requests(a.dev), sent);
		assert_int_equal(fs_creat(as(&b), "l/new", 0644), 0);
		assert_int_equal(list_of(&a, "l"), 11);
		assert_int_equal(fs_rename(as(&b), "l/new", "new", 0), 0);
		assert_int_equal(list_of(&a, "l"), 10);
		assert_int_equal(fs_unlink(as(&b), "l/f3"), 0);
		assert_int_equal(list_of(&a, "l"), 9);
		list_until_quiet(&a, "l", 9);
		put_host("l/host", "x");
		expect_count(&a, "l", 10, strict);
		assert_int_equal(unlink(host_path("l/f4")), 0);
		expect_count(&a, "l", 9, strict);
		client_stop(&a);
		client_stop(&b);
		remove_all();
	}
}

#define LISTERS 2
#define LISTED 20
static struct client listed;
static _Atomic bool list_stop;
static _Atomic unsigned list_bad, lists_done;

/* There is always what does not change, and at most one file more. */
static void *list_main(void *arg)
{
	char buf[4096];
	struct sleeper s;

	rcu_thread_begin();
	sleeper_init(&s);
	sleeper_set_current(&s);
	cred_set_current(listed.env.cred);
	while (!atomic_load(&list_stop)) {
		int n = fs_list(&listed.env, "l", buf, sizeof(buf));

		if (n != LISTED && n != LISTED + 1)
			atomic_fetch_add(&list_bad, 1);
		atomic_fetch_add(&lists_done, 1);
	}
	vfs_run_deferred();
	cred_set_current(NULL);
	sleeper_set_current(NULL);
	rcu_thread_end();
	return arg;
}

/* Threads that list a directory which another one changes, and lists: he sees his own change in each listing after it. */
static void listings_by_threads(void **state)
{
	static const char *const options[] = {"cache=always", "coherence=versions"};
	pthread_t threads[LISTERS];

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(options); i++) {
		assert_int_equal(mkdir(host_path("l"), 0755), 0);
		for (unsigned n = 0; n < LISTED; n++) {
			char name[16];

			snprintf(name, sizeof(name), "l/f%u", n);
			put_host(name, "x");
		}
		client_start(&listed, options[i]);
		expect_count(&listed, "l", LISTED, false);
		list_stop = false;
		lists_done = 0;
		for (unsigned t = 0; t < LISTERS; t++)
			assert_int_equal(pthread_create(&threads[t], NULL, list_main, NULL), 0);
		for (unsigned turn = 0; turn < 150; turn++) {
			assert_int_equal(fs_creat(as(&listed), "l/more", 0644), 0);
			assert_int_equal(list_of(&listed, "l"), LISTED + 1);
			assert_int_equal(fs_unlink(as(&listed), "l/more"), 0);
			assert_int_equal(list_of(&listed, "l"), LISTED);
			if (turn % 10 == 0)
				virtiofs_shrink(listed.env.root.mount->root->fs);
		}
		list_stop = true;
		for (unsigned t = 0; t < LISTERS; t++)
			pthread_join(threads[t], NULL);
		assert_int_equal(list_bad, 0);
		assert_true(lists_done > 0);
		client_stop(&listed);
		remove_all();
	}
}

/* By time: what others change is seen when the time is over. */
static void listings_expire(void **state)
{
	struct client a;
	uint64_t sent;
	int tries;

	(void)state;
	assert_int_equal(mkdir(host_path("l"), 0755), 0);
	put_host("l/f", "x");
	client_start(&a, "cache=auto,timeout=1");
	/* Again where the machine was busy for so long. */
	for (tries = 0; tries < 20; tries++) {
		assert_int_equal(list_of(&a, "l"), 1);
		sent = virtiofs_device_requests(a.dev);
		assert_int_equal(list_of(&a, "l"), 1);
		if (virtiofs_device_requests(a.dev) == sent)
			break;
	}
	assert_true(tries < 20);
	put_host("l/g", "x");
	usleep(1200000);
	assert_int_equal(list_of(&a, "l"), 2);
	put_host("l/g2", "x");
	usleep(1200000);
	assert_int_equal(list_of(&a, "l"), 3);
	assert_int_equal(unlink(host_path("l/g2")), 0);
	client_stop(&a);
	client_start(&a, "cache=always");
	assert_int_equal(list_of(&a, "l"), 2);
	sent = virtiofs_device_requests(a.dev);
	put_host("l/h", "x");
	usleep(1200000);
	assert_int_equal(list_of(&a, "l"), 2);
	assert_int_equal(virtiofs_device_requests(a.dev), sent);
	/* Ours makes it look; and so does what shows that it is wrong. */
	assert_int_equal(fs_creat(as(&a), "l/i", 0644), 0);
	assert_int_equal(list_of(&a, "l"), 4);
	assert_int_equal(mkdir(host_path("l/d"), 0755), 0);
	assert_int_equal(list_of(&a, "l/d"), 0);
	put_host("l/d/x", "x");
	assert_int_equal(list_of(&a, "l/d"), 0);
	assert_int_equal(fs_rmdir(as(&a), "l/d"), -ENOTEMPTY);
	assert_int_equal(list_of(&a, "l/d"), 1);
	assert_int_equal(unlink(host_path("l/d/x")), 0);
	assert_int_equal(list_of(&a, "l/d"), 1);
	assert_int_equal(fs_unlink(as(&a), "l/d/x"), -ENOENT);
	assert_int_equal(list_of(&a, "l/d"), 0);
	assert_int_equal(fs_rmdir(as(&a), "l/d"), 0);
	client_stop(&a);
	remove_all();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(listings_are_kept),
		cmocka_unit_test(listings_by_threads),
		cmocka_unit_test(listings_expire),
	};

	/* Before there are threads. */
	if (start_daemon())
		return 1;
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
