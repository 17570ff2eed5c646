/*
 * A daemon that lies, for each request and in each way: every call must come back within a second with a result or an errno of Linux's, and nothing may crash.
 *
 * The daemon is a thread that speaks vhost-user over a socketpair and serves a tree of three files from its imagination. At the opcode `target` it makes its reply
 * wrong as `attack` says.
 */
#include <errno.h>
#include <linux/capability.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include <cmocka.h>

#include "base/hostpoll.h"
#include "base/log.h"
#include "base/sleep.h"
#include "fsimpl/virtiofs/device.h"
#include "fsimpl/virtiofs/virtiofs.h"
#include "tests/fs/env.h"
#include "tests/fs/virtiofs_guest.h"
#include "wire/fuse.h"
#include "wire/vhost_user.h"
#include "wire/virtqueue.h"

#define TEST_SECONDS_MAX 200
#define TRIES 4 /* of what was late */
#define BUSY_WRITES 2000
#define RESTART_SECONDS_MAX 20

static void one(enum attack attack, uint32_t target)
{
	struct fs_env e;
	int err;

	memset(&fake, 0, sizeof(fake));
	fake.attack = attack;
	fake.target = target;
	err = fs_env_init(&e);
	if (!err) {
		guest(&e);
		fs_env_fini(&e);
	} else {
		assert_true(err > -512);
		/* Nobody lies yet: a busy machine was late with the handshake, which has 5 seconds. */
		if (target != FUSE_INIT && target != FUSE_GETATTR)
			calls_late++;
		cred_set_current(NULL);
		cred_unref(e.cred);
	}
	pthread_join(fake.thread, NULL);
	if (!err && attack == A_NONE && (target == FUSE_LOOKUP || target == FUSE_MOAT_WALK))
		assert_true(fake.hits > 5);
}

/* Lies about payloads, nodes and attributes are told where there are any. */
static bool can_lie(enum attack attack, uint32_t target)
{
	const struct fuse_op_info *op = fuse_op_info(target);
	static const uint32_t with_nodes[] = {FUSE_LOOKUP,    FUSE_MKDIR,  FUSE_SYMLINK,
					      FUSE_MKNOD,     FUSE_LINK,   FUSE_CREATE,
					      FUSE_MOAT_WALK, FUSE_TMPFILE};

	if (attack >= A_WALK_MORE)
		return target == FUSE_MOAT_WALK;
	if (attack == A_TRUNCATED || attack == A_GARBAGE)
		return op->out_size || op->out_data;
	if (attack < A_NODE_0 || attack > A_SIZE)
		return true;
	for (size_t i = 0; i < ARRAY_SIZE(with_nodes); i++)
		if (target == with_nodes[i])
			return true;
	return attack >= A_TYPE && (target == FUSE_GETATTR || target == FUSE_SETATTR);
}

/* Each call ends within a second. A machine that does much else makes one late now and then, but not the same again and again. */
static void soon(void (*once)(enum attack attack, uint32_t target), enum attack attack,
		 uint32_t target)
{
	unsigned before;

	for (unsigned tries = 0; tries < TRIES; tries++) {
		before = calls_late;
		once(attack, target);
		if (calls_late == before)
			return;
	}
	fail_msg("%s, %s: a call takes more than a second, or a mount fails",
		 fuse_op_info(target)->name, attack_names[attack]);
}

static void test_lies(void **state)
{
	(void)state;
	for (unsigned a = 0; a < ATTACK_COUNT; a++) {
		alarm(TEST_SECONDS_MAX);
		for (size_t t = 0; t < ARRAY_SIZE(targets); t++)
			if (can_lie((enum attack)a, targets[t]))
				soon(one, (enum attack)a, targets[t]);
	}
}

/* ---- writing back ---- */

/* A call's result; that it ends, and when, is judged. */
#define TIMED(expression)                                          \
	({                                                         \
		double timed_from = now();                         \
		__auto_type timed_ret = (expression);              \
                                                                   \
		judge(#expression, timed_ret, now() - timed_from); \
		timed_ret;                                         \
	})

static void start(struct fs_env *e)
{
	memset(&fake, 0, sizeof(fake));
	fake.target = FUSE_WRITE;
	mount_options = "cache=auto,writeback";
	alarm(TEST_SECONDS_MAX);
	assert_int_equal(fs_env_init(e), 0);
}

static void stop(struct fs_env *e)
{
	fs_env_fini(e);
	pthread_join(fake.thread, NULL);
}

static struct file *must_open(struct fs_env *e, int flags)
{
	struct file *f = NULL;

	assert_int_equal(fs_open(e, "/f", flags, 0, &f), 0);
	return f;
}

static int sync_file(struct file *f)
{
	return TIMED(file_fsync(f, false, 0, UINT64_MAX));
}

/* A reader's close(2) meets the error of what another wrote: every writer is told by its fsync(2), once. */
static void lost_write(enum attack attack unused_arg, uint32_t target unused_arg)
{
	struct file *writer, *reader, *later, *last;
	char page[4096] = {0};
	struct fs_env e;

	start(&e);
	writer = must_open(&e, O_RDWR);
	reader = must_open(&e, O_RDONLY);
	assert_int_equal(TIMED(fs_pwrite(writer, page, sizeof(page), 0)), sizeof(page));
	atomic_store(&fake.write_error, -ENOSPC);
	assert_int_equal(TIMED(reader->ops->flush(reader)), -ENOSPC);
	assert_int_equal(fs_close(reader), 0);
	later = must_open(&e, O_RDWR);
	assert_int_equal(sync_file(writer), -ENOSPC);
	assert_int_equal(sync_file(writer), 0);
	assert_int_equal(sync_file(later), -ENOSPC);
	last = must_open(&e, O_RDWR);
	assert_int_equal(sync_file(last), 0);
	assert_int_equal(fs_close(last), 0);
	assert_int_equal(fs_close(later), 0);
	assert_int_equal(fs_close(writer), 0);
	stop(&e);
}

static void test_lost_write(void **state)
{
	(void)state;
	soon(lost_write, A_NONE, FUSE_WRITE);
}

/* An application's buffer whose second half is not there. */
static int half_fill(struct io_iter *it)
{
	static char half[2048] = {'x'};

	if (it->consumed)
		return -EFAULT;
	it->segs[0] = (struct iovec){half, sizeof(half)};
	it->nsegs = 1;
	it->cur = 0;
	it->seg_off = 0;
	return 0;
}

static void half_release(struct io_iter *it)
{
	it->nsegs = 0;
}

static void half_seek(struct io_iter *it, uint64_t consumed)
{
	it->consumed = consumed;
	it->nsegs = it->cur = 0;
	it->seg_off = 0;
}

/* The rest of the page stays what the file has. */
static void torn_write(enum attack attack unused_arg, uint32_t target unused_arg)
{
	static const struct io_iter_ops ops = {half_fill, half_release, half_seek};
	struct io_iter it = {.ops = &ops, .remaining = 4096};
	int64_t off = 0;
	struct file *f;
	struct fs_env e;

	start(&e);
	f = must_open(&e, O_RDWR);
	assert_int_equal(TIMED(file_write_iter(f, &it, &off, 0)), 2048);
	assert_int_equal(sync_file(f), 0);
	assert_int_equal(fake.writes, 1);
	assert_int_equal(fake.written[0], 'x');
	assert_int_equal(fake.written[2047], 0);
	for (unsigned i = 2048; i < 4096; i++)
		assert_int_equal(fake.written[i], 'd');
	assert_int_equal(fs_close(f), 0);
	stop(&e);
}

static void test_torn_write(void **state)
{
	(void)state;
	soon(torn_write, A_NONE, FUSE_WRITE);
}

struct busy {
	struct file *f;
	struct cred *cred;
};

static void *busy_main(void *arg)
{
	struct busy *b = arg;
	char page[4096] = {0};

	rcu_thread_begin();
	cred_set_current(b->cred);
	for (unsigned i = 0; i < BUSY_WRITES; i++)
		if (fs_pwrite(b->f, page, sizeof(page), 0) != sizeof(page))
			abort();
	cred_set_current(NULL);
	rcu_thread_end();
	return NULL;
}

/* fsync(2) writes what was dirty when it began, not what is made dirty behind it for as long as that goes on. */
static void busy_writer(enum attack attack unused_arg, uint32_t target unused_arg)
{
	char page[4096] = {0};
	pthread_t thread;
	struct fs_env e;
	struct busy b;

	start(&e);
	b = (struct busy){must_open(&e, O_RDWR), e.cred};
	assert_int_equal(fs_pwrite(b.f, page, sizeof(page), 0), sizeof(page));
	assert_int_equal(pthread_create(&thread, NULL, busy_main, &b), 0);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(sync_file(b.f), 0);
	assert_true(atomic_load(&fake.writes) <= 5);
	pthread_join(thread, NULL);
	assert_int_equal(fs_close(b.f), 0);
	stop(&e);
}

static void test_busy_writer(void **state)
{
	(void)state;
	soon(busy_writer, A_NONE, FUSE_WRITE);
}

/* ---- a full ring ---- */

#define HANDLES 200 /* more than a ring has room for */

static void *unstall_main(void *arg)
{
	(void)arg;
	usleep(200000);
	atomic_store(&fake.stalled, false);
	return NULL;
}

/* The files of who was killed are closed while the daemon is behind: it is told of each. */
static void killed_with_full_ring(bool direct)
{
	struct file *files[HANDLES];
	struct sleeper killed;
	pthread_t thread;
	struct fs_env e;

	memset(&fake, 0, sizeof(fake));
	fake.target = FUSE_RELEASE;
	fake.direct = direct;
	mount_options = "cache=auto";
	alarm(TEST_SECONDS_MAX);
	assert_int_equal(fs_env_init(&e), 0);
	for (unsigned i = 0; i < HANDLES; i++)
		files[i] = must_open(&e, O_RDWR);
	atomic_store(&fake.stalled, true);
	assert_int_equal(pthread_create(&thread, NULL, unstall_main, NULL), 0);
	sleeper_init(&killed);
	sleeper_set_current(&killed);
	sleeper_interrupt(&killed, true);
	for (unsigned i = 0; i < HANDLES; i++)
		assert_int_equal(TIMED(fs_close(files[i])), 0);
	vfs_run_deferred();
	sleeper_set_current(NULL);
	pthread_join(thread, NULL);
	stop(&e);
	assert_int_equal(fake.hits, HANDLES);
}

static void killed_with_full_rings(enum attack attack unused_arg, uint32_t target unused_arg)
{
	killed_with_full_ring(false);
	/* One request takes several places: it ends with slots left and none in the ring. */
	killed_with_full_ring(true);
}

static void test_killed_with_full_ring(void **state)
{
	(void)state;
	soon(killed_with_full_rings, A_NONE, FUSE_RELEASE);
}

/* ---- kicks ---- */

#define DEAF_STATS 1000 /* more kicks than a device that reads none can be left with */
#define DEAF_SECONDS_MAX 180
#define KICK_BYTES 8 /* what a daemon reads at once */
#define UNREAD_MAX (100 * KICK_BYTES)

/* A daemon that makes kicks block, where they can: no call and no other host descriptor waits for that. */
static void test_deaf(void **state)
{
	struct moat_statx st;
	struct fs_env e;

	(void)state;
	memset(&fake, 0, sizeof(fake));
	fake.target = FUSE_LOOKUP;
	fake.deaf = true;
	mount_options = "cache=none";
	alarm(DEAF_SECONDS_MAX);
	assert_int_equal(fs_env_init(&e), 0);
	for (unsigned i = 0; i < DEAF_STATS; i++)
		assert_int_equal(TIMED(fs_stat(&e, "/f", &st)), 0);
	guest(&e);
	stop(&e);
	assert_true(fake.hits >= DEAF_STATS);
	assert_in_range(fake.unread[1], KICK_BYTES, UNREAD_MAX);
	assert_int_equal(fake.unread[1] % KICK_BYTES, 0);
	alarm(TEST_SECONDS_MAX);
}

/* ---- submounts ---- */

#define TASK_STACK_BYTES (256 << 10) /* of a guest's thread: TASK_STACK_SIZE */
#define SUBMOUNT_DEPTH_MAX 64 /* VIRTIOFS_SUBMOUNT_DEPTH_MAX */
#define SUBMOUNTS_ASKED 2000 /* as many as a path has room for */

struct depths {
	struct fs_env e;
	int deep, too_deep, deepest, below;
};

static void *dive_main(void *arg)
{
	static char path[2 * SUBMOUNTS_ASKED + 2];
	struct depths *ret = arg;
	struct fs_env *e = &ret->e;
	struct moat_statx st;

	rcu_thread_begin();
	cred_set_current(e->cred);
	for (unsigned i = 0; i < SUBMOUNTS_ASKED; i++)
		memcpy(path + 2 * (size_t)i, "/d", 2);
	path[2 * SUBMOUNTS_ASKED] = '/';
	ret->deepest = fs_stat(e, path, &st);
	path[2 * SUBMOUNT_DEPTH_MAX] = '\0';
	ret->deep = fs_chdir(e, path);
	ret->below = fs_stat(e, "f", &st);
	ret->too_deep = fs_stat(e, "d/f", &st);
	/* Each goes with the one in it. */
	fs_env_fini(e);
	rcu_thread_end();
	return NULL;
}

/* A daemon in whose every directory another filesystem begins: no stack is long enough. */
static void test_deep_submounts(void **state)
{
	struct depths got = {.deep = 1, .too_deep = 1, .deepest = 1, .below = 1};
	pthread_attr_t attr;
	pthread_t thread;

	(void)state;
	memset(&fake, 0, sizeof(fake));
	fake.submounts = true;
	mount_options = "cache=auto";
	alarm(TEST_SECONDS_MAX);
	assert_int_equal(fs_env_init(&got.e), 0);
	cred_set_current(NULL);
	pthread_attr_init(&attr);
	assert_int_equal(pthread_attr_setstacksize(&attr, TASK_STACK_BYTES), 0);
	assert_int_equal(pthread_create(&thread, &attr, dive_main, &got), 0);
	pthread_join(thread, NULL);
	pthread_attr_destroy(&attr);
	pthread_join(fake.thread, NULL);
	assert_int_equal(got.deepest, -ELOOP);
	assert_int_equal(got.deep, 0);
	assert_int_equal(got.below, 0);
	assert_int_equal(got.too_deep, -ELOOP);
}

/* ---- names sent ahead ---- */

/* LOOKUPs that the daemon hears of during a stat. */
static unsigned lookups_of(struct fs_env *e, const char *path, int want)
{
	unsigned before = fake.hits;
	struct moat_statx st;

	assert_int_equal(fs_stat(e, path, &st), want);
	return fake.hits - before;
}

static void start_counting(struct fs_env *e, const char *options, enum attack attack)
{
	memset(&fake, 0, sizeof(fake));
	fake.target = FUSE_LOOKUP;
	fake.attack = attack;
	mount_options = options;
	alarm(TEST_SECONDS_MAX);
	assert_int_equal(fs_env_init(e), 0);
}

/* Nothing that was looked up is left with the daemon. */
static void stop_counting(struct fs_env *e)
{
	stop(e);
	assert_int_equal(atomic_load(&fake.looked_up), 0);
}

/* A walk sends the next name before it has looked at the answer: as many requests as there are names, and none that tells what a caller may not see. */
static void test_sent_ahead(void **state)
{
	struct fs_env e;

	(void)state;
	start_counting(&e, "cache=none", A_NONE);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(lookups_of(&e, "/d/d/d/f", 0), 4);
		assert_int_equal(lookups_of(&e, "/d//d/./d/", 0), 3);
		assert_int_equal(lookups_of(&e, "/d/none/f", -ENOENT), 2);
		assert_int_equal(lookups_of(&e, "/f/f", -ENOTDIR), 1);
		assert_int_equal(lookups_of(&e, "/d/../d/f", 0), 3);
		assert_int_equal(lookups_of(&e, "/d/l/f", -ENOTDIR), 3);
	}
	/* mkdir asks for the directory, then whether the name is there. */
	fake.hits = 0;
	assert_int_equal(fs_mkdir(&e, "/d/new", 0755), 0);
	assert_int_equal(fs_mkdir(&e, "/d/newer/", 0755), 0);
	assert_int_equal(fake.hits, 4);
	/* What is mounted on d hides what is in it. */
	assert_int_equal(fs_mount(&e, "/d/d", "tmpfs", 0, NULL), 0);
	assert_int_equal(lookups_of(&e, "/d/d/f", -ENOENT), 2);
	assert_int_equal(fs_umount(&e, "/d/d", 0), 0);
	assert_int_equal(fs_env_become(&e, 1000, 1000, NULL, 0, 0), 0);
	assert_int_equal(lookups_of(&e, "/d/d/f", 0), 3);
	fake.dir_mode = 0711;
	assert_int_equal(lookups_of(&e, "/d/d/f", 0), 3);
	fake.dir_mode = 0700;
	assert_int_equal(lookups_of(&e, "/d/f", -EACCES), 1);
	assert_int_equal(fs_env_become(&e, 0, 0, NULL, 0, 1ull << CAP_DAC_READ_SEARCH), 0);
	assert_int_equal(lookups_of(&e, "/d/f", 0), 2);
	/* One at a time they need none. */
	assert_int_equal(fake.tables, 0);
	stop_counting(&e);
}

/* An answer that makes no sense comes to light when the next name is under way already. */
static void test_sent_ahead_for_nothing(void **state)
{
	struct moat_statx st;
	struct fs_env e;

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		start_counting(&e, i ? "cache=auto" : "cache=none", A_SIZE);
		assert_int_equal(lookups_of(&e, "/d/f", -EIO), 2);
		if (i == 2) {
			fake.attack = A_CLOSE;
			assert_int_equal(fs_stat(&e, "/d/f", &st), -EIO);
			stop(&e);
			continue;
		}
		fake.attack = A_NONE;
		assert_int_equal(lookups_of(&e, "/d/f", 0), 2);
		stop_counting(&e);
	}
}

/* ---- reconnecting ---- */

static void killed_at(enum attack attack, uint32_t target)
{
	unsigned before = again;
	struct moat_statx st;
	char byte = 0;
	struct fs_env e;
	struct file *f;
	double began;

	memset(&fake, 0, sizeof(fake));
	fake.target = target;
	assert_int_equal(fs_env_init(&e), 0);
	/* Names that the guest does not take away. */
	assert_int_equal(fs_chdir(&e, "/d-kept"), 0);
	assert_int_equal(fs_open(&e, "/f-kept", O_RDWR, 0, &f), 0);
	fake.attack = attack;
	guest(&e);
	for (began = now(); sync_file(f) && now() - began < RESTART_SECONDS_MAX;)
		usleep(2000);
	if (now() - began > CALL_SECONDS_SOON)
		calls_late++;
	if (sync_file(f))
		fail_msg("%s: the file is not back", fuse_op_info(target)->name);
	assert_int_equal(TIMED(fs_pread(f, &byte, 1, 5000)), 1);
	assert_int_equal(byte, 'd');
	assert_int_equal(TIMED(fs_stat(&e, "f", &st)), 0);
	assert_int_equal(TIMED(fs_close(f)), 0);
	stop(&e);
	/* FLUSH is never sent, and what is forgotten is told when it suits. */
	if (again == before && target != FUSE_FLUSH && target != FUSE_FORGET &&
	    target != FUSE_BATCH_FORGET)
		fail_msg("no %s was asked for", fuse_op_info(target)->name);
}

/* Killed at each kind of request and started again: the file that was open meanwhile is, and so is the working directory. */
static void test_killed_everywhere(void **state)
{
	(void)state;
	reconnects = true;
	call_seconds_max =
		RESTART_SECONDS_MAX; /* a call that finds no daemon waits for the next one */
	mount_options = "cache=auto";
	alarm(TEST_SECONDS_MAX);
	for (size_t t = 0; t < ARRAY_SIZE(targets); t++)
		/* Without the first no file system was ever there, after the last it is no more. */
		if (targets[t] != FUSE_INIT && targets[t] != FUSE_DESTROY)
			soon(killed_at, A_CLOSE, targets[t]);
	reconnects = false;
	call_seconds_max = CALL_SECONDS_LOADED;
}

/* A daemon that hangs before the file system is brought back is given up, and the next one is tried. */
static void test_silent_restore(void **state)
{
	struct moat_statx st;
	struct fs_env e;
	struct file *f;
	double began;
	unsigned before = again;

	(void)state;
	reconnects = true;
	silent_first = again + 1;
	memset(&fake, 0, sizeof(fake));
	fake.target = FUSE_FSYNC;
	fake.attack = A_CLOSE;
	mount_options = "cache=auto";
	alarm(TEST_SECONDS_MAX);
	assert_int_equal(fs_env_init(&e), 0);
	f = must_open(&e, O_RDWR);
	assert_int_equal(file_fsync(f, false, 0, UINT64_MAX), -EIO);
	for (began = now();
	     file_fsync(f, false, 0, UINT64_MAX) && now() - began < TEST_SECONDS_MAX / 2;)
		usleep(10000);
	assert_int_equal(file_fsync(f, false, 0, UINT64_MAX), 0);
	assert_true(again >= before + 2);
	assert_int_equal(fs_stat(&e, "/f", &st), 0);
	assert_int_equal(fs_close(f), 0);
	stop(&e);
	reconnects = false;
}

/* ---- the handshake, byte by byte ---- */

#define DRIP_US 80000
#define RETIRE_SECONDS_MAX 1.0 /* of some 3 that the daemon would take */

/* An answer of 20 bytes has 5 seconds as a whole. */
static void test_slow_handshake(void **state)
{
	struct virtiofs_device *dev;

	(void)state;
	memset(&fake, 0, sizeof(fake));
	fake.drip_us = 400000;
	assert_int_equal(virtiofs_device_connect(start_fake(), &(struct virtiofs_device_options){0},
						 &dev),
			 -ETIMEDOUT);
	pthread_join(fake.thread, NULL);
}

static int start_slowly(void *arg)
{
	pthread_join(fake.thread, NULL);
	memset(&fake, 0, sizeof(fake));
	fake.drip_us = DRIP_US;
	atomic_store((_Atomic bool *)arg, true);
	return start_fake();
}

/* Return: how long it took to let go of a device whose daemon is about to agree, byte by byte. */
static double retire_in_handshake(void)
{
	static _Atomic bool connected;
	const struct virtiofs_device_options options = {.reconnect = start_slowly,
							.reconnect_arg = (void *)&connected};
	struct virtiofs_device *dev;
	double took;

	atomic_store(&connected, false);
	memset(&fake, 0, sizeof(fake));
	assert_int_equal(virtiofs_device_connect(start_fake(), &options, &dev), 0);
	virtiofs_device_kill(dev, NULL);
	while (!atomic_load(&connected))
		usleep(1000);
	usleep(2 * DRIP_US);
	took = now();
	virtiofs_device_retire(dev);
	took = now() - took;
	virtiofs_device_unref(dev);
	pthread_join(fake.thread, NULL);
	return took;
}

/* Who lets go of a device waits for no daemon, however often that says something. A busy machine makes one late, not each. */
static void test_retired_in_handshake(void **state)
{
	double took = RETIRE_SECONDS_MAX;

	(void)state;
	for (unsigned tries = 0; tries < TRIES && took >= RETIRE_SECONDS_MAX; tries++)
		took = retire_in_handshake();
	assert_true(took < RETIRE_SECONDS_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lies),
		cmocka_unit_test(test_lost_write),
		cmocka_unit_test(test_torn_write),
		cmocka_unit_test(test_busy_writer),
		cmocka_unit_test(test_killed_with_full_ring),
		cmocka_unit_test(test_deaf),
		cmocka_unit_test(test_deep_submounts),
		cmocka_unit_test(test_sent_ahead),
		cmocka_unit_test(test_sent_ahead_for_nothing),
		cmocka_unit_test(test_killed_everywhere),
		cmocka_unit_test(test_silent_restore),
		cmocka_unit_test(test_slow_handshake),
		cmocka_unit_test(test_retired_in_handshake),
	};

	signal(SIGPIPE, SIG_IGN);
	log_init(-1, LOG_ERROR_LEVEL, "test");
	if (hostpoll_start() || fs_env_process_init())
		return 1;
	virtiofs_register();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
