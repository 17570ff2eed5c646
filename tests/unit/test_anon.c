// LINK: moat_hostfd moat_anon moat_vfs moat_mem moat_base
/* timerfd, signalfd's file, and host descriptors as files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "base/hostpoll.h"
#include "base/rcu.h"
#include "base/timer.h"
#include "fsimpl/anon/anon.h"
#include "fsimpl/hostfd/hostfd.h"
#include "tests/unit/file_rw.h"

static void test_timerfd(void **state)
{
	struct itimerspec its = {.it_value = {3600, 0}}, old;
	uint64_t ticks;
	struct file *f;
	int64_t start;

	(void)state;
	assert_int_equal(timerfd_create_file(99, 0, &f), -EINVAL);
	assert_int_equal(timerfd_create_file(CLOCK_MONOTONIC, 0, &f), 0);
	assert_int_equal(timerfd_settime_file(f, 0, &its, &old), 0);
	assert_int_equal(old.it_value.tv_sec + old.it_value.tv_nsec, 0);
	assert_int_equal(file_poll(f), 0);
	its.it_value = (struct timespec){0, 20000000};
	start = time_monotonic_ns();
	assert_int_equal(timerfd_settime_file(f, 0, &its, NULL), 0);
	assert_int_equal(file_rd(f, &ticks, 4), -EINVAL);
	assert_int_equal(file_rd(f, &ticks, 8), 8); /* blocks */
	assert_int_equal(ticks, 1);
	assert_true(time_monotonic_ns() - start >= 20000000);
	/* periodic: what was missed is counted */
	its.it_value.tv_nsec = its.it_interval.tv_nsec = 2000000;
	assert_int_equal(timerfd_settime_file(f, 0, &its, NULL), 0);
	usleep(15000);
	assert_int_equal(file_poll(f), POLLIN);
	assert_int_equal(file_rd(f, &ticks, 8), 8);
	assert_true(ticks >= 6);
	timerfd_gettime_file(f, &old);
	assert_int_equal(old.it_interval.tv_nsec, 2000000);
	assert_in_range(old.it_value.tv_nsec, 1, 2000000);
	/* absolute and past; then disarmed */
	its = (struct itimerspec){.it_value = {1, 0}};
	assert_int_equal(timerfd_settime_file(f, TFD_TIMER_ABSTIME, &its, NULL), 0);
	assert_int_equal(file_rd(f, &ticks, 8), 8);
	its.it_value.tv_sec = 0;
	assert_int_equal(timerfd_settime_file(f, 0, &its, NULL), 0);
	atomic_fetch_or(&f->flags, O_NONBLOCK);
	assert_int_equal(file_rd(f, &ticks, 8), -EAGAIN);
	its.it_value.tv_nsec = 1000000000;
	assert_int_equal(timerfd_settime_file(f, 0, &its, NULL), -EINVAL);
	file_unref(f);
}

static uint64_t pending_signals;
static struct wait_queue signals_wait;

static bool fake_dequeue(uint64_t mask, void *ret)
{
	struct signalfd_siginfo *info = ret;
	uint64_t set = pending_signals & mask;

	if (!set)
		return false;
	memset(info, 0, sizeof(*info));
	info->ssi_signo = (uint32_t)__builtin_ctzll(set) + 1;
	pending_signals &= ~(1ull << (info->ssi_signo - 1));
	return true;
}

static bool fake_pending(uint64_t mask)
{
	return pending_signals & mask;
}

static struct wait_queue *fake_queue(void)
{
	return &signals_wait;
}

static void test_signalfd(void **state)
{
	const struct signalfd_hooks hooks = {fake_dequeue, fake_pending, fake_queue};
	struct signalfd_siginfo info[4];
	struct file *f;

	(void)state;
	wait_queue_init(&signals_wait);
	signalfd_install(&hooks);
	assert_int_equal(signalfd_create(1ull << (SIGUSR1 - 1) | 1ull << (SIGTERM - 1),
					 SFD_NONBLOCK, &f),
			 0);
	assert_int_equal(file_rd(f, info, sizeof(info)), -EAGAIN);
	pending_signals = 1ull << (SIGUSR1 - 1) | 1ull << (SIGTERM - 1) | 1ull << (SIGHUP - 1);
	assert_int_equal(file_poll(f), POLLIN);
	assert_int_equal(file_rd(f, info, 100), -EINVAL);
	assert_int_equal(file_rd(f, info, sizeof(info)), 2 * sizeof(info[0]));
	assert_int_equal(info[0].ssi_signo, SIGUSR1);
	assert_int_equal(info[1].ssi_signo, SIGTERM);
	assert_int_equal(file_poll(f), 0);
	signalfd_set_mask(f, 1ull << (SIGHUP - 1));
	assert_int_equal(file_poll(f), POLLIN);
	file_unref(f);
	wait_queue_fini(&signals_wait);
}

static void test_host_pipe(void **state)
{
	struct file *r, *w;
	char buf[16];
	int p[2];

	(void)state;
	assert_int_equal(pipe(p), 0); /* blocking descriptions: polled first */
	assert_int_equal(hostfd_file_create(p[0], HOSTFD_FLAGS_OF_HOST, &r), 0);
	assert_int_equal(hostfd_file_create(p[1], HOSTFD_FLAGS_OF_HOST, &w), 0);
	assert_int_equal(file_rd(w, buf, 1), -EBADF);
	atomic_fetch_or(&r->flags, O_NONBLOCK);
	assert_int_equal(file_rd(r, buf, 1), -EAGAIN);
	assert_int_equal(file_wr(w, "abc", 3), 3);
	assert_true(file_poll(r) & POLLIN);
	assert_int_equal(file_rd(r, buf, 16), 3);
	atomic_fetch_and(&r->flags, ~(unsigned)O_NONBLOCK);
	file_unref(w);
	vfs_run_deferred();
	assert_int_equal(file_rd(r, buf, 16), 0); /* the node's duplicate went too */
	file_unref(r);
}

static void test_host_file(void **state)
{
	char path[] = "/tmp/test_anon_XXXXXX", buf[16];
	int fd = mkstemp(path), shared;
	struct file *a, *b;

	(void)state;
	assert_true(fd >= 0);
	unlink(path);
	shared = dup(fd);
	assert_int_equal(hostfd_file_create(fd, HOSTFD_FLAGS_OF_HOST, &a), 0);
	assert_int_equal(hostfd_file_create(shared, HOSTFD_FLAGS_OF_HOST, &b), 0);
	/* 2>&1: one offset */
	assert_int_equal(file_wr(a, "one", 3), 3);
	assert_int_equal(file_wr(b, "two", 3), 3);
	assert_int_equal(file_seek(a, 0, SEEK_SET), 0);
	assert_int_equal(file_rd(b, buf, 16), 6);
	assert_memory_equal(buf, "onetwo", 6);
	assert_int_equal(file_truncate(a, 2), 0);
	assert_int_equal(file_seek(b, 0, SEEK_END), 2);
	assert_int_equal(file_ioctl(a, TCGETS, 0), -ENOTTY);
	file_unref(a);
	file_unref(b);
}

static void test_host_socket(void **state)
{
	struct file *f;
	char buf[8];
	int sv[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	assert_int_equal(hostfd_file_create(sv[0], HOSTFD_FLAGS_OF_HOST, &f), 0);
	assert_int_equal(write(sv[1], "hi", 2), 2);
	assert_int_equal(file_rd(f, buf, 8), 2);
	assert_int_equal(file_wr(f, "yo", 2), 2);
	assert_int_equal(read(sv[1], buf, 8), 2);
	close(sv[1]);
	assert_int_equal(file_rd(f, buf, 8), 0);
	assert_int_equal(file_wr(f, "x", 1), -EPIPE);
	file_unref(f);
}

static int setup(void **state)
{
	struct cred *root;

	(void)state;
	signal(SIGPIPE, SIG_IGN);
	rcu_thread_begin();
	if (vfs_init() || anon_init() || cred_create_root(&root) || timer_thread_start() ||
	    hostpoll_start())
		return -1;
	cred_set_current(root);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_timerfd),	    cmocka_unit_test(test_signalfd),
		cmocka_unit_test(test_host_pipe),   cmocka_unit_test(test_host_file),
		cmocka_unit_test(test_host_socket),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
