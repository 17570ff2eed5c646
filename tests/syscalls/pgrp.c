/* Process groups and sessions, orphaned groups. */
#include "t.h"

static volatile sig_atomic_t got;

static void on_signal(int sig)
{
	got = sig;
}

TEST(ids)
{
	pid_t pid;

	CHECK_EQ(getpgrp(), getpid());
	CHECK_EQ(getpgid(0), getpid());
	pid = fork();
	if (pid == 0) {
		CHECK_EQ(getpgrp(), getppid());
		CHECK_OK(setpgid(0, 0));
		CHECK_EQ(getpgrp(), getpid());
		CHECK_EQ(getsid(0), getsid(getppid()));
		_exit(0);
	}
	t_wait_ok(pid);
	CHECK_ERR(getpgid(0x7fffff), ESRCH);
	CHECK_ERR(getsid(0x7fffff), ESRCH);
	CHECK_ERR(setpgid(0, -1), EINVAL);
	CHECK_ERR(setpgid(0x7fffff, 0), ESRCH);
}

TEST(setpgid_rules)
{
	int go[2], said[2];
	char c;
	pid_t a, b;

	CHECK_OK(pipe(go));
	CHECK_OK(pipe(said));
	a = fork();
	if (a == 0) {
		close(go[1]);
		read(go[0], &c, 1);
		_exit(0);
	}
	b = fork();
	if (b == 0) {
		setsid();
		write(said[1], "x", 1);
		close(go[1]);
		read(go[0], &c, 1);
		_exit(0);
	}
	CHECK_EQ(read(said[0], &c, 1), 1);
	CHECK_OK(setpgid(a, a));
	CHECK_EQ(getpgid(a), a);
	CHECK_OK(setpgid(a, getpgrp()));
	/* Another session, a leader, an unknown group. */
	CHECK_ERR(setpgid(b, getpgrp()), EPERM);
	CHECK_ERR(setpgid(a, b), EPERM);
	CHECK_ERR(setpgid(a, 0x7fffff), EPERM);
	CHECK_ERR(setpgid(getppid(), 0), ESRCH);
	close(go[1]);
	t_wait_ok(a);
	t_wait_ok(b);
}

TEST(setsid)
{
	pid_t pid = fork();

	if (pid == 0) {
		CHECK_EQ(setsid(), getpid());
		CHECK_EQ(getsid(0), getpid());
		CHECK_EQ(getpgrp(), getpid());
		CHECK_ERR(setsid(), EPERM);
		CHECK_ERR(open("/dev/tty", O_RDWR), ENXIO);
		CHECK_ERR(setpgid(0, 0), EPERM);
		_exit(0);
	}
	t_wait_ok(pid);
	CHECK_ERR(setsid(), EPERM);
}

TEST(kill_group)
{
	pid_t leader = fork(), members[3];
	int status;

	if (leader == 0) {
		setpgid(0, 0);
		for (;;)
			pause();
	}
	setpgid(leader, leader);
	for (int i = 0; i < 3; i++) {
		members[i] = fork();
		if (members[i] == 0)
			for (;;)
				pause();
		CHECK_OK(setpgid(members[i], leader));
	}
	CHECK_OK(kill(-leader, 0));
	CHECK_OK(killpg(leader, SIGTERM));
	for (int i = 0; i < 4; i++) {
		CHECK(waitpid(-leader, &status, 0) > 0);
		CHECK_EQ(WTERMSIG(status), SIGTERM);
	}
	CHECK_ERR(waitpid(-leader, &status, 0), ECHILD);
	CHECK_ERR(kill(-leader, 0), ESRCH);
}

TEST(kill_zero_is_own_group)
{
	signal(SIGUSR1, on_signal);
	CHECK_OK(kill(0, SIGUSR1));
	CHECK_EQ(got, SIGUSR1);
}

/* A group that becomes orphaned with a stopped member gets SIGHUP and SIGCONT. */
TEST(orphaned_stopped_group)
{
	int tell[2], result[2];
	pid_t middle, stopped;
	char c;

	CHECK_OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
	CHECK_OK(pipe(tell));
	CHECK_OK(pipe(result));
	middle = fork();
	if (middle == 0) {
		setsid();
		stopped = fork();
		if (stopped == 0) {
			setpgid(0, 0);
			signal(SIGHUP, on_signal);
			raise(SIGSTOP);
			c = got == SIGHUP ? 'h' : '?';
			write(result[1], &c, 1);
			_exit(0);
		}
		waitpid(stopped, NULL, WUNTRACED);
		write(tell[1], &stopped, sizeof(stopped));
		_exit(0);
	}
	CHECK_EQ(read(tell[0], &stopped, sizeof(stopped)), (ssize_t)sizeof(stopped));
	t_wait_ok(middle);
	CHECK_EQ(read(result[0], &c, 1), 1);
	CHECK_EQ(c, 'h');
	t_wait_ok(stopped);
}

/* In an orphaned group SIGTSTP does not stop; SIGSTOP does. */
TEST(orphaned_group_does_not_stop)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		setsid();
		raise(SIGTSTP);
		raise(SIGTTIN);
		_exit(5);
	}
	CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
	CHECK(WIFEXITED(status));
	CHECK_EQ(WEXITSTATUS(status), 5);
}
