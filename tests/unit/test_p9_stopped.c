// LINK: moat_gofer moat_gofer_fs moat_vfs moat_mem moat_wire seccomp
/* gofer and fsimpl/gofer together: a gofer under SIGSTOP, and callers that are killed while they wait for it. */
#include "tests/unit/p9_gofer_fixture.h"

#include "fsimpl/gofer/conn.h"

struct killed_caller {
	struct sleeper sleeper;
	pthread_t thread;
	int (*op)(void);
	int err;
};

static int stat_slow(void)
{
	struct moat_statx st;

	return do_stat("slow/file", &st);
}

static void *caller_thread(void *arg)
{
	struct killed_caller *k = arg;

	rcu_thread_begin();
	sleeper_set_current(&k->sleeper);
	cred_set_current(fx.cred);
	k->err = k->op();
	cred_set_current(NULL);
	sleeper_set_current(NULL);
	rcu_thread_end();
	return NULL;
}

static void caller_start(struct killed_caller *k, int (*op)(void))
{
	sleeper_init(&k->sleeper);
	k->op = op;
	assert_int_equal(pthread_create(&k->thread, NULL, caller_thread, k), 0);
}

/* More callers than there are tags: who waits for a reply and who waits for a tag, killed, are gone while it stands. */
static void stopped_server(void **state)
{
	static struct killed_caller callers[P9_TAGS_MAX + 8];
	int64_t start = time_monotonic_ns();
	struct moat_statx st;
	int status;

	(void)state;
	mkdir(host("slow"), 0755);
	write_host("slow/file", "x");
	kill(fx.pid, SIGSTOP);
	assert_int_equal(waitpid(fx.pid, &status, WUNTRACED), fx.pid);
	for (unsigned i = 0; i < ARRAY_SIZE(callers); i++) {
		caller_start(&callers[i], stat_slow);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(callers); i++)
		sleeper_interrupt(&callers[i].sleeper, true);
	for (unsigned i = 0; i < ARRAY_SIZE(callers); i++) {
		pthread_join(callers[i].thread, NULL);
		assert_int_equal(callers[i].err, -EINTR);
	}
	assert_true(time_monotonic_ns() - start < 20000000000ll);
	kill(fx.pid, SIGCONT);
	assert_int_equal(do_stat("slow/file", &st), 0);
	assert_int_equal(st.size, 1);
}

static int unlink_slow(void)
{
	return do_unlink("slow/gone");
}

static int mkdir_slow(void)
{
	return do_mkdir("slow/never", 0755);
}

static int create_slow(void)
{
	struct file *f;
	int err = do_open("slow/never", O_RDWR | O_CREAT, 0644, &f);

	if (!err)
		file_unref(f);
	return err;
}

static int rename_slow(void)
{
	return do_rename("slow/file", "slow/never", 0);
}

static struct file *slow_dir;

static bool any_entry(struct dir_emit *ctx, const char *name, size_t len, uint64_t ino,
		      unsigned type, int64_t next)
{
	(void)ctx;
	(void)name;
	(void)len;
	(void)ino;
	(void)type;
	(void)next;
	return true;
}

static int list_slow(void)
{
	return file_iterate(slow_dir, &(struct dir_emit){any_entry});
}

/* A change that was sent is waited for, killed or not; who waits behind it leaves, and has done nothing. */
static void behind_a_change(void **state)
{
	int (*const ops[])(void) = {stat_slow,	 mkdir_slow,  create_slow,
				    rename_slow, unlink_slow, list_slow};
	struct killed_caller change, behind[ARRAY_SIZE(ops)];
	struct moat_statx st;
	uint64_t before;
	int status;

	(void)state;
	mkdir(host("slow"), 0755);
	write_host("slow/file", "x");
	write_host("slow/gone", "x");
	assert_int_equal(do_open("slow", O_RDONLY | O_DIRECTORY, 0, &slow_dir), 0);
	before = p9_conn_requests(fx.conn);
	kill(fx.pid, SIGSTOP);
	assert_int_equal(waitpid(fx.pid, &status, WUNTRACED), fx.pid);
	caller_start(&change, unlink_slow);
	while (p9_conn_requests(fx.conn) == before)
		usleep(1000);
	for (unsigned i = 0; i < ARRAY_SIZE(ops); i++)
		caller_start(&behind[i], ops[i]);
	for (unsigned i = 0; i < ARRAY_SIZE(ops); i++)
		sleeper_interrupt(&behind[i].sleeper, true);
	sleeper_interrupt(&change.sleeper, true);
	for (unsigned i = 0; i < ARRAY_SIZE(ops); i++) {
		pthread_join(behind[i].thread, NULL);
		assert_int_equal(behind[i].err, -EINTR);
	}
	kill(fx.pid, SIGCONT);
	pthread_join(change.thread, NULL);
	assert_int_equal(change.err, 0);
	assert_int_equal(do_stat("slow/gone", &st), -ENOENT);
	assert_int_equal(do_stat("slow/never", &st), -ENOENT);
	assert_int_equal(do_stat("slow/file", &st), 0);
	/* Theirs are not among them. */
	assert_in_range(p9_conn_requests(fx.conn) - before, 1, 4);
	assert_int_equal(list_slow(), 0);
	file_unref(slow_dir);
}

/* ---- requests ahead ---- */

#define AHEAD_COUNT 200
/* Of so many the last asks for as many ahead as there may be. */
#define AHEAD_OPENS 66

static char ahead_names[AHEAD_COUNT][32];
static unsigned ahead_count;
static const char *ahead_path;

static bool keep_name(struct dir_emit *ctx, const char *name, size_t len, uint64_t ino,
		      unsigned type, int64_t next)
{
	(void)ctx;
	(void)ino;
	(void)type;
	(void)next;
	if (name[0] != '.' && ahead_count < AHEAD_COUNT)
		snprintf(ahead_names[ahead_count++], sizeof(ahead_names[0]), "ahead/%.*s", (int)len,
			 name);
	return true;
}

/* AHEAD_COUNT files, whose names are kept in the order of the listing. */
static void make_ahead(void)
{
	struct file *f;
	char name[16];

	mkdir(host("ahead"), 0755);
	for (unsigned i = 0; i < AHEAD_COUNT; i++) {
		snprintf(name, sizeof(name), "ahead/%u", i);
		write_host(name, "x");
	}
	ahead_count = 0;
	assert_int_equal(do_open("ahead", O_RDONLY | O_DIRECTORY, 0, &f), 0);
	assert_int_equal(file_iterate(f, &(struct dir_emit){keep_name}), 0);
	file_unref(f);
	assert_int_equal(ahead_count, AHEAD_COUNT);
}

static int open_ahead(void)
{
	struct file *f;
	int err = do_open(ahead_path, O_RDONLY, 0, &f);

	if (!err)
		file_unref(f);
	return err;
}

/* Who has many requests under way and is killed leaves all of them as soon as one. */
static void killed_opening_ahead(void **state)
{
	struct killed_caller killed;
	int64_t start;
	int status;

	(void)state;
	make_ahead();
	for (unsigned i = 0; i < AHEAD_OPENS - 1; i++) {
		ahead_path = ahead_names[i];
		assert_int_equal(open_ahead(), 0);
	}
	ahead_path = ahead_names[AHEAD_OPENS - 1];
	kill(fx.pid, SIGSTOP);
	assert_int_equal(waitpid(fx.pid, &status, WUNTRACED), fx.pid);
	start = time_monotonic_ns();
	caller_start(&killed, open_ahead);
	sleeper_interrupt(&killed.sleeper, true);
	pthread_join(killed.thread, NULL);
	assert_int_equal(killed.err, -EINTR);
	start = time_monotonic_ns() - start;
	kill(fx.pid, SIGCONT);
	assert_true(start < 3000000000ll);
	/* What was asked for is answered, and nothing of it is mistaken for what is asked now. */
	for (unsigned i = AHEAD_OPENS - 1; i < AHEAD_COUNT; i++) {
		ahead_path = ahead_names[i];
		assert_int_equal(open_ahead(), 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(stopped_server),
		TEST(behind_a_change),
		TEST(killed_opening_ahead),
	};
	int ret = cmocka_run_group_tests_name("exclusive", tests, init, NULL);

	shared_mode = true;
	return ret + cmocka_run_group_tests_name("shared", tests, NULL, NULL);
}
