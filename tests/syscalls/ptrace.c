/* ptrace(2): what a debugger does. */
#include "t.h"

#include <sys/ptrace.h>
#include <sys/user.h>

static volatile long variable = 0x1111;

static pid_t traced(void (*fn)(void))
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		if (ptrace(PTRACE_TRACEME, 0, 0, 0) < 0)
			_exit(100);
		raise(SIGSTOP);
		fn();
		_exit(0);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 100)
		SKIP("there is no ptrace");
	CHECK(WIFSTOPPED(status));
	CHECK_EQ(WSTOPSIG(status), SIGSTOP);
	return pid;
}

static void check_variable(void)
{
	if (variable != 0x2222)
		_exit(1);
}

TEST(peek_and_poke)
{
	long word;
	pid_t pid = traced(check_variable);
	int status;

	errno = 0;
	word = ptrace(PTRACE_PEEKDATA, pid, &variable, 0);
	CHECK_EQ(word, 0x1111);
	CHECK_OK(ptrace(PTRACE_POKEDATA, pid, &variable, 0x2222));
	CHECK_EQ(variable, 0x1111);
	CHECK_ERR(ptrace(PTRACE_PEEKDATA, pid, (void *)8, 0), EIO);
	CHECK_OK(ptrace(PTRACE_CONT, pid, 0, 0));
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
}

static void call_getppid(void)
{
	long ret = syscall(SYS_getppid);

	_exit(ret == 4321 ? 0 : 1);
}

TEST(system_calls)
{
	struct user_regs_struct regs;
	pid_t pid = traced(call_getppid);
	bool entry = true, seen = false;
	int status;

	CHECK_OK(ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD));
	for (;;) {
		CHECK_OK(ptrace(PTRACE_SYSCALL, pid, 0, 0));
		CHECK_EQ(waitpid(pid, &status, 0), pid);
		if (WIFEXITED(status))
			break;
		CHECK(WIFSTOPPED(status));
		CHECK_EQ(WSTOPSIG(status), SIGTRAP | 0x80);
		CHECK_OK(ptrace(PTRACE_GETREGS, pid, 0, &regs));
		if (entry && regs.orig_rax == SYS_getppid) {
			CHECK_EQ((long)regs.rax, -ENOSYS);
			seen = true;
		} else if (!entry && seen && regs.orig_rax == SYS_getppid) {
			CHECK_EQ((long)regs.rax, getpid());
			regs.rax = 4321;
			CHECK_OK(ptrace(PTRACE_SETREGS, pid, 0, &regs));
		}
		entry = !entry;
	}
	CHECK(seen);
	CHECK_EQ(status, 0);
}

static void raise_usr1(void)
{
	signal(SIGUSR1, SIG_DFL);
	raise(SIGUSR1);
	_exit(7);
}

/* The tracer sees the signal first and decides. */
TEST(signals)
{
	pid_t pid = traced(raise_usr1);
	siginfo_t si;
	int status;

	CHECK_OK(ptrace(PTRACE_CONT, pid, 0, 0));
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFSTOPPED(status));
	CHECK_EQ(WSTOPSIG(status), SIGUSR1);
	CHECK_OK(ptrace(PTRACE_GETSIGINFO, pid, 0, &si));
	CHECK_EQ(si.si_signo, SIGUSR1);
	CHECK_OK(ptrace(PTRACE_CONT, pid, 0, 0));
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 7 << 8);
	pid = traced(raise_usr1);
	CHECK_OK(ptrace(PTRACE_CONT, pid, 0, 0));
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_OK(ptrace(PTRACE_CONT, pid, 0, SIGTERM));
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFSIGNALED(status));
	CHECK_EQ(WTERMSIG(status), SIGTERM);
}

static void nothing(void)
{
}

TEST(single_step)
{
	struct user_regs_struct a, b;
	pid_t pid = traced(nothing);
	int status;

	CHECK_OK(ptrace(PTRACE_GETREGS, pid, 0, &a));
	for (int i = 0; i < 20; i++) {
		CHECK_OK(ptrace(PTRACE_SINGLESTEP, pid, 0, 0));
		CHECK_EQ(waitpid(pid, &status, 0), pid);
		CHECK(WIFSTOPPED(status));
		CHECK_EQ(WSTOPSIG(status), SIGTRAP);
	}
	CHECK_OK(ptrace(PTRACE_GETREGS, pid, 0, &b));
	CHECK(a.rip != b.rip);
	CHECK_OK(ptrace(PTRACE_CONT, pid, 0, 0));
	t_wait_ok(pid);
}

static void fork_once(void)
{
	pid_t pid = fork();

	if (pid == 0)
		_exit(3);
	_exit(t_wait_status(pid) == 3 << 8 ? 0 : 1);
}

TEST(fork_events)
{
	unsigned long child = 0;
	pid_t pid = traced(fork_once);
	int status;

	CHECK_OK(ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACEFORK));
	CHECK_OK(ptrace(PTRACE_CONT, pid, 0, 0));
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status >> 8, SIGTRAP | PTRACE_EVENT_FORK << 8);
	CHECK_OK(ptrace(PTRACE_GETEVENTMSG, pid, 0, &child));
	CHECK_EQ(waitpid((pid_t)child, &status, __WALL), (pid_t)child);
	CHECK_EQ(WSTOPSIG(status), SIGSTOP);
	CHECK_OK(ptrace(PTRACE_CONT, (pid_t)child, 0, 0));
	CHECK_OK(ptrace(PTRACE_CONT, pid, 0, 0));
	CHECK_EQ(waitpid((pid_t)child, &status, __WALL), (pid_t)child);
	CHECK_EQ(status, 3 << 8);
	do
		CHECK_EQ(waitpid(pid, &status, 0), pid);
	while (WIFSTOPPED(status) && ptrace(PTRACE_CONT, pid, 0, 0) == 0);
	CHECK_EQ(status, 0);
}

TEST(attach_and_detach)
{
	pid_t pid = fork();
	int status;

	if (pid == 0)
		for (;;)
			pause();
	CHECK_OK(ptrace(PTRACE_ATTACH, pid, 0, 0));
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(WSTOPSIG(status), SIGSTOP);
	CHECK_EQ(t_state(pid), 't');
	CHECK_ERR(ptrace(PTRACE_ATTACH, pid, 0, 0), EPERM);
	CHECK_OK(ptrace(PTRACE_DETACH, pid, 0, 0));
	t_wait_state(pid, "S");
	CHECK_OK(ptrace(PTRACE_SEIZE, pid, 0, 0));
	CHECK_OK(ptrace(PTRACE_INTERRUPT, pid, 0, 0));
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status >> 16, PTRACE_EVENT_STOP);
	CHECK_OK(kill(pid, SIGKILL));
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFSIGNALED(status));
	CHECK_ERR(ptrace(PTRACE_CONT, pid, 0, 0), ESRCH);
	CHECK_ERR(ptrace(PTRACE_ATTACH, getpid(), 0, 0), EPERM);
}

/* A tracer that goes with PTRACE_O_EXITKILL takes its tracees along. */
TEST(exit_kill)
{
	int tell[2];
	pid_t tracer, pid = 0;

	CHECK_OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
	CHECK_OK(pipe(tell));
	tracer = fork();
	if (tracer == 0) {
		pid = traced(nothing);
		CHECK_OK(ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_EXITKILL));
		write(tell[1], &pid, sizeof(pid));
		_exit(0);
	}
	CHECK_EQ(read(tell[0], &pid, sizeof(pid)), (ssize_t)sizeof(pid));
	t_wait_ok(tracer);
	CHECK_EQ(t_wait_status(pid), SIGKILL);
}
