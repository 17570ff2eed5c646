/*
 * tests/oci/kill_at.c - kill_at N COMMAND...: kills the command with SIGKILL as it enters its Nth system call (of its first thread); +N: its
 * Nth from clone3(2) on.
 *
 * Exits 0 if it was killed there, 1 if it ended before, 2 on an error. Children are not traced: only the command itself dies.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int enters_clone3(pid_t pid)
{
	struct __ptrace_syscall_info info = {0};

	ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof(info), &info);
	return info.op == PTRACE_SYSCALL_INFO_ENTRY && info.entry.nr == SYS_clone3;
}

int main(int argc, char **argv)
{
	long at = argc > 2 ? atol(argv[1]) : 0, n = 0;
	int status, entering = 1, counting = argc > 2 && argv[1][0] != '+';
	pid_t pid;

	if (at <= 0)
		return 2;
	pid = fork();
	if (pid == 0) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		execv(argv[2], argv + 2);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return 2;
	ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
	for (long deliver = 0;; deliver = 0) {
		if (ptrace(PTRACE_SYSCALL, pid, 0, deliver) < 0 || waitpid(pid, &status, 0) != pid)
			return 2;
		if (WIFEXITED(status) || WIFSIGNALED(status))
			return 1;
		if (WSTOPSIG(status) != (SIGTRAP | 0x80)) {
			deliver = WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status);
			continue;
		}
		if (entering && !counting)
			counting = enters_clone3(pid);
		if (entering && counting && ++n == at) {
			kill(pid, SIGKILL);
			waitpid(pid, &status, 0);
			return 0;
		}
		entering = !entering;
	}
}
