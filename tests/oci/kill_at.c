/*
 * tests/oci/kill_at.c - kill_at [ROLE:]N COMMAND...: kills a process with SIGKILL as it enters its Nth system call.
 *
 * Without a ROLE the command itself, of its first thread; +N: its Nth from clone3(2) on. Its children are not traced. ROLE is one of what the
 * command starts, all threads of it together, counted from its birth: monitor (the command's first child that is no thread), gofer or
 * sentry (which are known by their command lines, and counted from there).
 *
 * Exits 0 if it was killed there, 1 if it (of a ROLE: the command) ended before, 2 on an error. Of a ROLE it waits for the command to end,
 * and the command's status is in descriptor 3, if that is open.
 */
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define EVENTS                                                                                    \
	(PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | \
	 PTRACE_O_TRACEEXEC)

static int enters_clone3(pid_t pid)
{
	struct __ptrace_syscall_info info = {0};

	ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof(info), &info);
	return info.op == PTRACE_SYSCALL_INFO_ENTRY && info.entry.nr == SYS_clone3;
}

static bool is_entry(pid_t tid)
{
	struct __ptrace_syscall_info info = {0};

	ptrace(PTRACE_GET_SYSCALL_INFO, tid, sizeof(info), &info);
	return info.op == PTRACE_SYSCALL_INFO_ENTRY;
}

/* A field of /proc/TID/status; 0: not there. */
static pid_t status_field(pid_t tid, const char *name)
{
	char path[64], line[256];
	pid_t pid = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", tid);
	f = fopen(path, "r");
	while (f && pid == 0 && fgets(line, sizeof(line), f))
		if (strncmp(line, name, strlen(name)) == 0)
			pid = atoi(line + strlen(name));
	if (f)
		fclose(f);
	return pid;
}

static bool has_role(pid_t pid, const char *role)
{
	char path[64], line[256] = "", want[64];
	size_t n;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/cmdline", pid);
	snprintf(want, sizeof(want), "%s-role", role);
	f = fopen(path, "r");
	n = f ? fread(line, 1, sizeof(line) - 1, f) : 0;
	if (f)
		fclose(f);
	/* The second argument. */
	return n > strlen(line) && strcmp(line + strlen(line) + 1, want) == 0;
}

static int run_command(char **argv, int go)
{
	char c;

	if (read(go, &c, 1) != 1)
		_exit(126);
	close(go);
	close(3);
	execv(argv[0], argv);
	_exit(127);
}

struct victim {
	const char *role;
	pid_t command, pid; /* pid: 0 until it is known */
	long at, n;
	bool killed;
};

/* One stop of a traced thread; goes on with it. */
static void on_stop(struct victim *v, pid_t tid, int status)
{
	int event = status >> 16, sig = WSTOPSIG(status), deliver = 0;
	bool counts;

	/* A clone's first stop: whose it is shows here. */
	if (event == PTRACE_EVENT_STOP && v->pid == 0 && strcmp(v->role, "monitor") == 0 &&
	    status_field(tid, "Tgid:") != v->command && status_field(tid, "PPid:") == v->command)
		v->pid = tid;
	if (event == PTRACE_EVENT_EXEC && v->pid == 0 && strcmp(v->role, "monitor") != 0 &&
	    has_role(tid, v->role))
		v->pid = tid;
	counts = v->pid != 0 && !v->killed && status_field(tid, "Tgid:") == v->pid;
	if (event == 0 && sig == (SIGTRAP | 0x80)) {
		if (counts && is_entry(tid) && ++v->n == v->at) {
			kill(v->pid, SIGKILL);
			v->killed = true;
			return;
		}
	} else if (event == 0) {
		deliver = sig;
	} else if (event == PTRACE_EVENT_STOP && sig != SIGTRAP) {
		ptrace(PTRACE_LISTEN, tid, 0, 0);
		return;
	}
	ptrace(counts ? PTRACE_SYSCALL : PTRACE_CONT, tid, 0, deliver);
}

static int kill_role(const char *role, long at, char **argv)
{
	struct victim v = {.role = role, .at = at};
	int status, go[2];
	pid_t tid;

	if (pipe(go) < 0)
		return 2;
	v.command = fork();
	if (v.command == 0) {
		close(go[1]);
		run_command(argv, go[0]);
	}
	close(go[0]);
	if (v.command < 0 || ptrace(PTRACE_SEIZE, v.command, 0, EVENTS) < 0 ||
	    write(go[1], "g", 1) != 1)
		return 2;
	close(go[1]);
	for (;;) {
		tid = waitpid(-1, &status, __WALL);
		if (tid < 0 && errno == EINTR)
			continue;
		if (tid < 0)
			return 2;
		if (WIFSTOPPED(status))
			on_stop(&v, tid, status);
		else if (tid == v.command)
			break;
	}
	/* What is left goes on untraced. */
	dprintf(3, "%d\n", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
	return v.killed ? 0 : 1;
}

static int kill_command(const char *where, char **argv)
{
	int status, entering = 1, counting = where[0] != '+';
	long at = atol(where), n = 0;
	pid_t pid = fork();

	if (pid == 0) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		execv(argv[0], argv);
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

int main(int argc, char **argv)
{
	char *colon = argc > 2 ? strchr(argv[1], ':') : NULL;

	if (argc <= 2 || atol(colon ? colon + 1 : argv[1]) <= 0)
		return 2;
	if (!colon)
		return kill_command(argv[1], argv + 2);
	*colon = '\0';
	return kill_role(argv[1], atol(colon + 1), argv + 2);
}
