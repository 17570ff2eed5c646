/* Processes: fork, vfork, clone, clone3, exit, wait*, zombies, reparenting, subreapers, pidfds. */
#include "t.h"

#include <linux/sched.h>
#include <poll.h>
#include <sched.h>

TEST(fork_basics)
{
	pid_t parent = getpid(), pid = fork();

	if (pid == 0)
		_exit(getppid() == parent && getpid() != parent ? 42 : 1);
	CHECK(pid > 0);
	CHECK_EQ(t_wait_status(pid), 42 << 8);
	CHECK_ERR(waitpid(pid, NULL, 0), ECHILD);
}

TEST(wait_status)
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit(0x1ff);
	CHECK_EQ(wait(&status), pid);
	CHECK_EQ(WEXITSTATUS(status), 0xff);
	pid = fork();
	if (pid == 0) {
		raise(SIGKILL);
		_exit(0);
	}
	CHECK_EQ(wait(&status), pid);
	CHECK_EQ(status, SIGKILL);
	CHECK_ERR(wait(NULL), ECHILD);
	CHECK_ERR(waitpid(-1, NULL, WNOHANG), ECHILD);
	CHECK_ERR(waitpid(1, NULL, 0), ECHILD);
	CHECK_ERR(waitpid(-1, NULL, 0x40), EINVAL);
}

TEST(wnohang)
{
	int go[2], status;
	pid_t pid;

	CHECK_OK(pipe(go));
	pid = fork();
	if (pid == 0) {
		char c;

		close(go[1]);
		read(go[0], &c, 1);
		_exit(3);
	}
	CHECK_EQ(waitpid(pid, &status, WNOHANG), 0);
	CHECK_EQ(waitpid(-1, &status, WNOHANG), 0);
	close(go[1]);
	t_wait_state(pid, "Z");
	CHECK_EQ(waitpid(pid, &status, WNOHANG), pid);
	CHECK_EQ(status, 3 << 8);
}

TEST(waitid)
{
	siginfo_t info;
	pid_t pid = fork();

	if (pid == 0)
		_exit(7);
	memset(&info, 0, sizeof(info));
	CHECK_OK(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT));
	CHECK_EQ(info.si_pid, pid);
	CHECK_EQ(info.si_signo, SIGCHLD);
	CHECK_EQ(info.si_code, CLD_EXITED);
	CHECK_EQ(info.si_status, 7);
	CHECK_EQ(info.si_uid, getuid());
	/* WNOWAIT left it. */
	CHECK_EQ(kill(pid, 0), 0);
	CHECK_OK(waitid(P_ALL, 0, &info, WEXITED));
	CHECK_ERR(waitid(P_ALL, 0, &info, WEXITED), ECHILD);
	CHECK_ERR(waitid(P_ALL, 0, &info, 0), EINVAL);
	CHECK_ERR(waitid(9, 0, &info, WEXITED), EINVAL);
	pid = fork();
	if (pid == 0) {
		pause();
		_exit(0);
	}
	memset(&info, 0xff, sizeof(info));
	CHECK_OK(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG));
	CHECK_EQ(info.si_pid, 0);
	CHECK_OK(kill(pid, SIGTERM));
	CHECK_OK(waitid(P_PGID, (id_t)getpgrp(), &info, WEXITED));
	CHECK_EQ(info.si_code, CLD_KILLED);
	CHECK_EQ(info.si_status, SIGTERM);
}

TEST(wait4_rusage)
{
	struct rusage ru;
	pid_t pid = fork();

	if (pid == 0) {
		for (volatile long i = 0; i < 50000000; i++)
			;
		_exit(0);
	}
	memset(&ru, 0, sizeof(ru));
	CHECK_EQ(wait4(pid, NULL, 0, &ru), pid);
	CHECK(ru.ru_utime.tv_sec * 1000000 + ru.ru_utime.tv_usec > 1000);
	CHECK_OK(getrusage(RUSAGE_CHILDREN, &ru));
	CHECK(ru.ru_utime.tv_sec * 1000000 + ru.ru_utime.tv_usec > 1000);
}

TEST(stop_and_continue)
{
	siginfo_t info;
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		for (;;)
			pause();
	}
	CHECK_OK(kill(pid, SIGSTOP));
	CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
	CHECK(WIFSTOPPED(status));
	CHECK_EQ(WSTOPSIG(status), SIGSTOP);
	CHECK_EQ(t_state(pid), 'T');
	/* Reported once. */
	CHECK_EQ(waitpid(pid, &status, WUNTRACED | WNOHANG), 0);
	CHECK_OK(kill(pid, SIGCONT));
	CHECK_EQ(waitpid(pid, &status, WCONTINUED), pid);
	CHECK(WIFCONTINUED(status));
	CHECK_OK(kill(pid, SIGTSTP));
	memset(&info, 0, sizeof(info));
	CHECK_OK(waitid(P_PID, (id_t)pid, &info, WSTOPPED));
	CHECK_EQ(info.si_code, CLD_STOPPED);
	CHECK_EQ(info.si_status, SIGTSTP);
	/* A stopped process dies of SIGKILL at once; SIGTERM waits for SIGCONT. */
	CHECK_OK(kill(pid, SIGTERM));
	t_sleep_ms(20);
	CHECK_EQ(waitpid(pid, &status, WNOHANG), 0);
	CHECK_OK(kill(pid, SIGKILL));
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(WTERMSIG(status), SIGKILL);
}

static volatile sig_atomic_t chld_count;

static void on_chld(int sig)
{
	(void)sig;
	chld_count++;
}

TEST(sigchld_ignored_reaps)
{
	pid_t pid;

	signal(SIGCHLD, SIG_IGN);
	pid = fork();
	if (pid == 0)
		_exit(0);
	CHECK_ERR(waitpid(pid, NULL, 0), ECHILD);
	CHECK_ERR(kill(pid, 0), ESRCH);
	signal(SIGCHLD, SIG_DFL);
	pid = fork();
	if (pid == 0)
		_exit(0);
	t_wait_ok(pid);
}

TEST(sigchld_nocldwait)
{
	struct sigaction sa = {.sa_handler = on_chld, .sa_flags = SA_NOCLDWAIT};
	pid_t pid;

	CHECK_OK(sigaction(SIGCHLD, &sa, NULL));
	pid = fork();
	if (pid == 0)
		_exit(0);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	CHECK_ERR(waitpid(pid, NULL, 0), ECHILD);
	CHECK_EQ(chld_count, 1);
}

TEST(sigchld_nocldstop)
{
	struct sigaction sa = {.sa_handler = on_chld, .sa_flags = SA_NOCLDSTOP | SA_RESTART};
	int status;
	pid_t pid;

	CHECK_OK(sigaction(SIGCHLD, &sa, NULL));
	pid = fork();
	if (pid == 0) {
		for (;;)
			pause();
	}
	CHECK_OK(kill(pid, SIGSTOP));
	CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
	CHECK_EQ(chld_count, 0);
	CHECK_OK(kill(pid, SIGKILL));
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(chld_count, 1);
}

TEST(vfork_shares_and_waits)
{
	volatile int shared = 0;
	pid_t pid = vfork();

	if (pid == 0) {
		shared = 5;
		_exit(0);
	}
	CHECK_EQ(shared, 5);
	t_wait_ok(pid);
}

static int clone_child(void *arg)
{
	int *shared = arg;

	shared[0] = 1;
	shared[1] = open(".", O_RDONLY);
	return 9;
}

TEST(clone_shares_memory_and_files)
{
	static char stack[65536] __attribute__((aligned(16)));
	int shared[2] = {0, -1};
	int pid =
		clone(clone_child, stack + sizeof(stack), CLONE_VM | CLONE_FILES | SIGCHLD, shared);

	CHECK(pid > 0);
	CHECK_EQ(t_wait_status(pid), 9 << 8);
	CHECK_EQ(shared[0], 1);
	CHECK_OK(fcntl(shared[1], F_GETFD));
}

static int clone_chdir(void *arg)
{
	(void)arg;
	umask(077);
	return chdir("/");
}

TEST(clone_shares_fs)
{
	static char stack[65536] __attribute__((aligned(16)));
	char cwd[PATH_MAX];
	int pid = clone(clone_chdir, stack + sizeof(stack), CLONE_FS | SIGCHLD, NULL);

	t_wait_ok(pid);
	CHECK_STR(getcwd(cwd, sizeof(cwd)), "/");
	CHECK_EQ(umask(0), 077);
}

TEST(clone_errors)
{
	CHECK_ERR(syscall(SYS_clone, CLONE_THREAD, NULL, NULL, NULL, NULL), EINVAL);
	CHECK_ERR(syscall(SYS_clone, CLONE_THREAD | CLONE_SIGHAND, NULL, NULL, NULL, NULL), EINVAL);
	CHECK_ERR(syscall(SYS_clone, CLONE_SIGHAND, NULL, NULL, NULL, NULL), EINVAL);
	CHECK_ERR(syscall(SYS_clone, CLONE_NEWNS | CLONE_FS, NULL, NULL, NULL, NULL), EINVAL);
	CHECK_ERR(syscall(SYS_clone3, NULL, 64), EFAULT);
	CHECK_ERR(syscall(SYS_clone3, &(struct clone_args){0}, 8), EINVAL);
	CHECK_ERR(syscall(SYS_clone3, &(struct clone_args){.exit_signal = 100},
			  sizeof(struct clone_args)),
		  EINVAL);
}

TEST(clone3_and_pidfd)
{
	int pidfd = -1, status;
	pid_t parent_tid = 0;
	struct clone_args args = {
		.flags = CLONE_PIDFD | CLONE_PARENT_SETTID,
		.pidfd = (uint64_t)&pidfd,
		.parent_tid = (uint64_t)&parent_tid,
		.exit_signal = SIGCHLD,
	};
	struct pollfd pfd;
	siginfo_t info;
	int end[2];
	long pid;

	CHECK_OK(pipe(end));
	pid = syscall(SYS_clone3, &args, sizeof(args));
	if (pid == 0) {
		close(end[1]);
		read(end[0], &(char){0}, 1);
		_exit(4);
	}
	CHECK(pid > 0);
	CHECK_EQ(parent_tid, pid);
	CHECK_EQ(fcntl(pidfd, F_GETFD), FD_CLOEXEC);
	pfd = (struct pollfd){.fd = pidfd, .events = POLLIN};
	CHECK_EQ(poll(&pfd, 1, 0), 0);
	CHECK_OK(close(end[1]));
	CHECK_EQ(poll(&pfd, 1, 20000), 1);
	CHECK_EQ(pfd.revents, POLLIN);
	CHECK_OK(syscall(SYS_waitid, P_PIDFD, pidfd, &info, WEXITED | WNOWAIT, NULL));
	CHECK_EQ(info.si_status, 4);
	CHECK_EQ(waitpid((pid_t)pid, &status, 0), pid);
	CHECK_ERR(syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0), ESRCH);
}

TEST(pidfd_open_and_kill)
{
	int status, fd;
	pid_t pid = fork();

	if (pid == 0) {
		pause();
		_exit(0);
	}
	fd = (int)syscall(SYS_pidfd_open, pid, 0);
	CHECK(fd >= 0);
	CHECK_OK(syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0));
	CHECK_OK(syscall(SYS_pidfd_send_signal, fd, SIGTERM, NULL, 0));
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(WTERMSIG(status), SIGTERM);
	CHECK_ERR(syscall(SYS_pidfd_open, pid, 0), ESRCH);
	CHECK_ERR(syscall(SYS_pidfd_open, -1, 0), EINVAL);
}

/* A grandchild whose parent dies goes to the nearest subreaper. */
TEST(subreaper)
{
	int tell[2], status;
	pid_t child, grandchild, got;

	CHECK_OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
	CHECK_OK(pipe(tell));
	child = fork();
	if (child == 0) {
		pid_t before = getpid();

		grandchild = fork();
		if (grandchild == 0) {
			while (getppid() == before)
				t_sleep_ms(5);
			_exit(getppid() == getpgrp() ? 6 : 1);
		}
		write(tell[1], &grandchild, sizeof(grandchild));
		_exit(0);
	}
	CHECK_EQ(read(tell[0], &grandchild, sizeof(grandchild)), (ssize_t)sizeof(grandchild));
	t_wait_ok(child);
	got = waitpid(-1, &status, 0);
	CHECK_EQ(got, grandchild);
	CHECK_EQ(status, 6 << 8);
}

TEST(parent_death_signal)
{
	int tell[2], end[2], status;
	pid_t child, grandchild, me = getpid();

	CHECK_OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
	CHECK_OK(pipe(tell));
	CHECK_OK(pipe(end));
	child = fork();
	if (child == 0) {
		grandchild = fork();
		if (grandchild == 0) {
			CHECK_OK(prctl(PR_SET_PDEATHSIG, SIGUSR1));
			pid_t self = getpid();
			write(tell[1], &self, sizeof(self));
			for (;;)
				pause();
		}
		read(end[0], &(char){0}, 1);
		_exit(0);
	}
	CHECK_EQ(read(tell[0], &grandchild, sizeof(grandchild)), (ssize_t)sizeof(grandchild));
	CHECK_EQ(write(end[1], "x", 1), 1);
	t_wait_ok(child);
	CHECK_EQ(waitpid(grandchild, &status, 0), grandchild);
	CHECK_EQ(WTERMSIG(status), SIGUSR1);
	CHECK_EQ(getpid(), me);
}

TEST(zombie_stays_until_waited)
{
	pid_t pid = fork();

	if (pid == 0)
		_exit(0);
	t_wait_state(pid, "Z");
	CHECK_OK(kill(pid, 0));
	CHECK_OK(kill(pid, SIGKILL));
	t_wait_ok(pid);
	CHECK_ERR(kill(pid, 0), ESRCH);
}

TEST(many_children)
{
	int reaped = 0;

	for (int i = 0; i < 200; i++) {
		pid_t pid = fork();

		if (pid == 0)
			_exit(i & 0x7f);
		CHECK(pid > 0);
	}
	while (wait(NULL) > 0)
		reaped++;
	CHECK_EQ(reaped, 200);
}

TEST(fork_in_a_row)
{
	for (int i = 0; i < 300; i++) {
		pid_t pid = fork();

		if (pid == 0)
			_exit(0);
		t_wait_ok(pid);
	}
}

TEST(process_limit)
{
	pid_t pid = fork();

	if (pid == 0) {
		CHECK_OK(setrlimit(RLIMIT_NPROC, &(struct rlimit){1, 1}));
		t_become(4242, 4242);
		pid = fork();
		if (pid == 0)
			_exit(0);
		/* One process of this user exists: ours. */
		_exit(pid == -1 && errno == EAGAIN ? 0 : 1);
	}
	t_wait_ok(pid);
}

TEST(set_tid_address_clears)
{
	static volatile int tid = -1;
	pid_t pid = fork();

	if (pid == 0)
		_exit(syscall(SYS_set_tid_address, &tid) == getpid() ? 0 : 1);
	t_wait_ok(pid);
}

TEST(exit_closes)
{
	int p[2];
	char c;
	pid_t pid;

	CHECK_OK(pipe(p));
	pid = fork();
	if (pid == 0) {
		pause();
		_exit(0);
	}
	close(p[1]);
	CHECK_OK(kill(pid, SIGKILL));
	CHECK_EQ(read(p[0], &c, 1), 0);
	CHECK_EQ(t_wait_status(pid), SIGKILL);
}

TEST(unshare)
{
	int fd = t_file("f", "");

	CHECK_OK(unshare(CLONE_FILES));
	CHECK_OK(unshare(CLONE_FS));
	CHECK_OK(fcntl(fd, F_GETFD));
	CHECK_ERR(unshare(0x1), EINVAL);
}
