// LINK: moat_systrap moat_mem
/*
 * A sandbox that is frozen for longer than it waits for its pristine process goes on (platform/systrap/stub.c). Each way of waiting
 * in a process of its own; the pristine process is stopped first, and goes on last, as a freezer may have it.
 */

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/rcu.h"
#include "mem/guard.h"
#include "platform/systrap/systrap.h"

#include "check.h"
#include "systrap_stub.h"

/* How long it waits, in rounds of 5 ms; it is frozen for longer, and waits for much less before and after that. */
#define PATIENCE 280u
#define FROZEN_US 1700000
#define MOMENT_US 10000
#define CANNOT 77

enum way { RETIRE, KILL, GET, WAYS };

/* Tells the pristine process's number, and waits for that until it is stopped. Return: the process's status. */
static int wait_for_it(struct systrap_platform *p, enum way way, int fd)
{
	_Atomic bool done = false;
	struct address_space *as, *other;
	struct platform_context *ctx;
	char byte;

	(void)context_in(p, &as);
	/* A second thread: its stub is not used again, so it has to be reaped. */
	if (systrap_context_create(&p->base, NULL, &ctx) || systrap_context_prepare(ctx, as))
		return 6;
	if (way == GET)
		while (p->pool_count)
			(void)context_in(p, &other);
	if (write(fd, &p->pristine_pid, sizeof(pid_t)) != sizeof(pid_t) || read(fd, &byte, 1) != 1)
		return 3;
	if (way == RETIRE) {
		systrap_as_retire(as, retired, (void *)&done);
		systrap_settle(&p->base);
		return atomic_load(&done) ? 0 : 4;
	}
	if (way == KILL) {
		systrap_stub_kill(p, as->stub);
		return as->stub->reaped ? 0 : 5;
	}
	/* One more than are being made. */
	for (unsigned i = 0; i <= SYSTRAP_POOL; i++)
		(void)context_in(p, &other);
	return 0;
}

static _Noreturn void child_main(enum way way, int fd)
{
	struct platform *base;
	char why[256];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	rcu_thread_begin();
	if (systrap_platform_ops.probe(why, sizeof(why)))
		_exit(CANNOT);
	if (guard_install() || mem_init(0) || systrap_platform_ops.create(&base))
		_exit(1);
	systrap_of(base)->reply_rounds = PATIENCE;
	_exit(wait_for_it(systrap_of(base), way, fd));
}

static void wait_stopped(pid_t pid)
{
	siginfo_t info;

	assert_int_equal(waitid(P_PID, (id_t)pid, &info, WSTOPPED | WNOWAIT), 0);
}

static void test_frozen(void **state unused_arg)
{
	pid_t child[WAYS], pristine[WAYS];
	int fds[WAYS], pair[2], status;

	for (int i = 0; i < WAYS; i++) {
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
		child[i] = fork();
		if (child[i] == 0)
			child_main((enum way)i, pair[1]);
		assert_true(child[i] > 0);
		close(pair[1]);
		fds[i] = pair[0];
	}
	for (int i = 0; i < WAYS; i++) {
		if (read(fds[i], &pristine[i], sizeof(pid_t)) == sizeof(pid_t))
			continue;
		assert_int_equal(waitpid(child[i], &status, 0), child[i]);
		assert_int_equal(status, W_EXITCODE(CANNOT, 0));
		skip();
	}
	for (int i = 0; i < WAYS; i++) {
		assert_int_equal(kill(pristine[i], SIGSTOP), 0);
		assert_int_equal(write(fds[i], "", 1), 1);
	}
	usleep(MOMENT_US);
	for (int i = 0; i < WAYS; i++) {
		assert_int_equal(kill(child[i], SIGSTOP), 0);
		wait_stopped(child[i]);
	}
	usleep(FROZEN_US);
	for (int i = 0; i < WAYS; i++)
		assert_int_equal(kill(child[i], SIGCONT), 0);
	usleep(MOMENT_US);
	for (int i = 0; i < WAYS; i++)
		assert_int_equal(kill(pristine[i], SIGCONT), 0);
	for (int i = 0; i < WAYS; i++) {
		assert_int_equal(waitpid(child[i], &status, 0), child[i]);
		assert_int_equal(status, 0);
		close(fds[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_frozen)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
