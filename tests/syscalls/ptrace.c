/* ptrace(2): what a debugger does. */
#include "t.h"

#include <elf.h>
#include <pthread.h>
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

/* ---- threads: each death is the tracer's to wait for, the leader's last ---- */

static void *end_with_three(void *arg)
{
	(void)arg;
	syscall(SYS_exit, 3);
	return NULL;
}

static void *sleep_on(void *arg)
{
	for (;;)
		pause();
	return arg;
}

static void *end_group(void *arg)
{
	(void)arg;
	usleep(20000);
	_exit(5);
}

static void *exec_true(void *arg)
{
	(void)arg;
	usleep(20000);
	execl("/proc/self/exe", "ptrace", "no-such-test", NULL);
	_exit(9);
}

static void start(void *(*fn)(void *))
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, fn, NULL))
		_exit(101);
}

/* One byte when the tracer has waited for the first death. */
static int first_death[2];

/* The end of the group, if it came before somebody waited for the thread, would be the thread's end as well. */
static void thread_ends(void)
{
	start(end_with_three);
	read(first_death[0], &(char){0}, 1);
}

static void group_ends(void)
{
	start(sleep_on);
	start(end_group);
	pause();
}

static void leader_ends_first(void)
{
	start(end_group);
	syscall(SYS_exit, 4);
}

static void thread_executes(void)
{
	start(sleep_on);
	start(exec_true);
	pause();
}

#define DEATHS_MAX 8
struct deaths {
	int count;
	pid_t pid[DEATHS_MAX];
	int status[DEATHS_MAX];
	int execs;
};

/* Lets all threads of fn's process run until none is left. */
static struct deaths run_traced(void (*fn)(void), pid_t *ret_pid)
{
	struct deaths d = {0};
	pid_t pid, got;
	int status;

	CHECK_OK(pipe(first_death));
	pid = traced(fn);
	CHECK_OK(ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC));
	CHECK_OK(ptrace(PTRACE_CONT, pid, 0, 0));
	while ((got = waitpid(-1, &status, __WALL)) > 0) {
		if (!WIFSTOPPED(status)) {
			CHECK(d.count < DEATHS_MAX);
			d.pid[d.count] = got;
			d.status[d.count++] = status;
			write(first_death[1], "x", 1);
			continue;
		}
		d.execs += status >> 16 == PTRACE_EVENT_EXEC;
		/* Another thread may have ended it where it stands. */
		CHECK(ptrace(PTRACE_CONT, got, 0, 0) == 0 || errno == ESRCH);
	}
	status = errno;
	CHECK_EQ(status, ECHILD);
	*ret_pid = pid;
	return d;
}

TEST(thread_death)
{
	pid_t pid;
	struct deaths d = run_traced(thread_ends, &pid);

	CHECK_EQ(d.count, 2);
	CHECK(d.pid[0] != pid);
	CHECK_EQ(d.status[0], 3 << 8);
	CHECK_EQ(d.pid[1], pid);
	CHECK_EQ(d.status[1], 0);
}

TEST(group_death)
{
	pid_t pid;
	struct deaths d = run_traced(group_ends, &pid);

	CHECK_EQ(d.count, 3);
	for (int i = 0; i < 3; i++)
		CHECK_EQ(d.status[i], 5 << 8);
	CHECK_EQ(d.pid[2], pid);
}

TEST(leader_death)
{
	pid_t pid;
	struct deaths d = run_traced(leader_ends_first, &pid);

	CHECK_EQ(d.count, 2);
	CHECK(d.pid[0] != pid);
	CHECK_EQ(d.status[0], 5 << 8);
	CHECK_EQ(d.pid[1], pid);
	CHECK_EQ(d.status[1], 5 << 8);
}

/* The thread that executes becomes the leader, whose death nobody sees; the other's is told. */
TEST(exec_death)
{
	pid_t pid;
	struct deaths d = run_traced(thread_executes, &pid);

	CHECK_EQ(d.execs, 1);
	CHECK_EQ(d.count, 2);
	CHECK(d.pid[0] != pid);
	CHECK_EQ(d.status[0], 0);
	CHECK_EQ(d.pid[1], pid);
	CHECK(WIFEXITED(d.status[1]));
}

/* A tracer that goes away without waiting: the thread is gone, its process goes on. */
TEST(tracer_leaves_dead_thread)
{
	int go[2], status;
	unsigned long message;
	pid_t pid, tracer, thread;
	char c;

	CHECK_OK(pipe(go));
	pid = fork();
	if (pid == 0) {
		read(go[0], &c, 1);
		start(end_with_three);
		read(go[0], &c, 1);
		_exit(6);
	}
	tracer = fork();
	if (tracer == 0) {
		if (ptrace(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACECLONE) < 0)
			_exit(100);
		write(go[1], "a", 1);
		/* Each by its id: the thread may stop, and end, before its maker's event is there. */
		if (waitpid(pid, &status, __WALL) != pid ||
		    status >> 8 != (SIGTRAP | PTRACE_EVENT_CLONE << 8) ||
		    ptrace(PTRACE_GETEVENTMSG, pid, 0, &message) < 0 ||
		    ptrace(PTRACE_CONT, pid, 0, 0) < 0)
			_exit(1);
		thread = message;
		if (waitpid(thread, &status, __WALL) != thread || !WIFSTOPPED(status) ||
		    ptrace(PTRACE_CONT, thread, 0, 0) < 0)
			_exit(2);
		t_wait_state(thread, "Z");
		_exit(0);
	}
	status = t_wait_status(tracer);
	if (status == 100 << 8)
		SKIP("there is no ptrace");
	CHECK_EQ(status, 0);
	write(go[1], "b", 1);
	CHECK_EQ(t_wait_status(pid), 6 << 8);
}

static void exits(void)
{
	syscall(SYS_exit_group, 5);
}

static void is_killed(void)
{
	raise(SIGKILL);
}

/* The end of a whole process is a stop too; it has its registers still, and nothing but its tracer ends that stop. */
static void check_exit_event(void (*fn)(void), unsigned long want)
{
	pid_t pid = traced(fn);
	struct user_regs_struct regs;
	unsigned long message;
	int status;

	CHECK_OK(ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACEEXIT));
	CHECK_OK(ptrace(PTRACE_CONT, pid, 0, 0));
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status >> 8, SIGTRAP | PTRACE_EVENT_EXIT << 8);
	CHECK_OK(ptrace(PTRACE_GETEVENTMSG, pid, 0, &message));
	CHECK_EQ(message, want);
	CHECK_OK(ptrace(PTRACE_GETREGS, pid, 0, &regs));
	CHECK_OK(kill(pid, SIGKILL));
	usleep(20000);
	CHECK_EQ(waitpid(pid, &status, WNOHANG), 0);
	CHECK_OK(ptrace(PTRACE_CONT, pid, 0, 0));
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, (int)want);
}

TEST(exit_event)
{
	check_exit_event(exits, 5 << 8);
	check_exit_event(is_killed, SIGKILL);
}

static void ends_with_a_thread(void)
{
	start(sleep_on);
	exits();
}

/* Each thread of it says so, and the tracer's own end lets them all go. */
TEST(exit_event_of_threads)
{
	int status, said = 0;
	pid_t tracer, pid, one;

	CHECK_OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
	tracer = fork();
	if (tracer == 0) {
		pid = traced(ends_with_a_thread);
		if (ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACEEXIT | PTRACE_O_TRACECLONE) <
			    0 ||
		    ptrace(PTRACE_CONT, pid, 0, 0) < 0)
			_exit(1);
		while (said < 2) {
			one = waitpid(-1, &status, __WALL);
			if (one < 0 || !WIFSTOPPED(status))
				_exit(2);
			if (status >> 16 == PTRACE_EVENT_EXIT)
				said++;
			else if (ptrace(PTRACE_CONT, one, 0, 0) < 0)
				_exit(3);
		}
		_exit(0);
	}
	CHECK_EQ(t_wait_status(tracer), 0);
	CHECK(wait(&status) > 0);
	CHECK_EQ(status, 5 << 8);
}

static void queues_signals(void *arg)
{
	sigset_t set;

	(void)arg;
	sigfillset(&set);
	CHECK_OK(sigprocmask(SIG_BLOCK, &set, NULL));
	for (int i = 0; i < 40; i++)
		CHECK_OK(sigqueue(getpid(), SIGRTMIN + 2, (union sigval){.sival_int = i}));
	CHECK_OK(syscall(SYS_tgkill, getpid(), gettid(), SIGUSR1));
	CHECK_OK(ptrace(PTRACE_TRACEME, 0, NULL, NULL));
	sigdelset(&set, SIGTRAP);
	CHECK_OK(sigprocmask(SIG_SETMASK, &set, NULL));
	CHECK_OK(raise(SIGTRAP));
}

TEST(peek_siginfo)
{
	struct {
		uint64_t off;
		uint32_t flags;
		int32_t nr;
	} args = {.flags = 1, .nr = 100};
	static siginfo_t got[100];
	int status;
	pid_t pid = t_spawn(queues_signals, NULL);

	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
	CHECK_EQ(ptrace(0x4209, pid, &args, got), 40);
	for (int i = 0; i < 40; i++)
		CHECK(got[i].si_signo == SIGRTMIN + 2 && got[i].si_value.sival_int == i &&
		      got[i].si_code == SI_QUEUE);
	args.off = 38;
	CHECK_EQ(ptrace(0x4209, pid, &args, got), 2);
	CHECK_EQ(got[0].si_value.sival_int, 38);
	args.off = 40;
	CHECK_EQ(ptrace(0x4209, pid, &args, got), 0);
	args.off = 0, args.nr = 3;
	CHECK_EQ(ptrace(0x4209, pid, &args, got), 3);
	CHECK_ERR(ptrace(0x4209, pid, &args, (void *)8), EFAULT);
	args.flags = 0;
	CHECK_EQ(ptrace(0x4209, pid, &args, got), 1);
	CHECK(got[0].si_signo == SIGUSR1 && got[0].si_code == SI_TKILL);
	args.flags = 2;
	CHECK_ERR(ptrace(0x4209, pid, &args, got), EINVAL);
	args.flags = 0, args.nr = -1;
	CHECK_ERR(ptrace(0x4209, pid, &args, got), EINVAL);
	CHECK_ERR(ptrace(0x4209, pid, (void *)8, got), EFAULT);
	CHECK_OK(kill(pid, SIGKILL));
	CHECK_EQ(t_wait_status(pid), SIGKILL);
}

TEST(registers_are_whole)
{
	uint64_t regs[64];
	struct iovec iov = {regs, 12};
	int status;
	pid_t pid = t_spawn(queues_signals, NULL);

	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_ERR(ptrace(PTRACE_GETREGSET, pid, NT_PRSTATUS, &iov), EINVAL);
	iov.iov_len = 16;
	CHECK_OK(ptrace(PTRACE_GETREGSET, pid, NT_PRSTATUS, &iov));
	CHECK_EQ(iov.iov_len, 16);
	CHECK_OK(kill(pid, SIGKILL));
	CHECK_EQ(t_wait_status(pid), SIGKILL);
}
