/* Signals: handlers, masks, pending sets, altstack, siginfo, flags, suspend, ordering, queues. */
#include "t.h"

#include <pthread.h>
#include <setjmp.h>
#include <sys/syscall.h>
#include <ucontext.h>

static volatile sig_atomic_t count, last, depth, max_depth;
/* Written by handlers that run inside calls the compiler believes to be leaves. */
static volatile siginfo_t info;

static void on_signal(int sig)
{
	count++;
	last = sig;
}

static void on_info(int sig, siginfo_t *si, void *uc)
{
	(void)uc;
	count++;
	last = sig;
	memcpy((void *)&info, si, sizeof(info));
}

static void set_handler(int sig, void (*fn)(int), int flags)
{
	struct sigaction sa = {.sa_handler = fn, .sa_flags = flags};

	CHECK_OK(sigaction(sig, &sa, NULL));
}

static void set_info(int sig, int flags)
{
	struct sigaction sa = {.sa_sigaction = on_info, .sa_flags = SA_SIGINFO | flags};

	CHECK_OK(sigaction(sig, &sa, NULL));
}

static sigset_t set_of(int sig)
{
	sigset_t set;

	sigemptyset(&set);
	if (sig)
		sigaddset(&set, sig);
	return set;
}

TEST(sigaction_rules)
{
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART | SA_NODEFER}, old;

	CHECK_ERR(sigaction(SIGKILL, &sa, NULL), EINVAL);
	CHECK_ERR(sigaction(SIGSTOP, &sa, NULL), EINVAL);
	CHECK_OK(sigaction(SIGKILL, NULL, &old));
	CHECK_ERR(sigaction(0, &sa, NULL), EINVAL);
	CHECK_ERR(sigaction(65, &sa, NULL), EINVAL);
	sigaddset(&sa.sa_mask, SIGHUP);
	CHECK_OK(sigaction(SIGUSR1, &sa, &old));
	CHECK(old.sa_handler == SIG_DFL);
	CHECK_OK(sigaction(SIGUSR1, NULL, &old));
	CHECK(old.sa_handler == on_signal);
	CHECK_EQ(old.sa_flags & (SA_RESTART | SA_NODEFER), SA_RESTART | SA_NODEFER);
	CHECK(sigismember(&old.sa_mask, SIGHUP));
	CHECK_ERR(syscall(SYS_rt_sigaction, SIGUSR1, NULL, NULL, 4), EINVAL);
	CHECK_ERR(syscall(SYS_rt_sigprocmask, 0, NULL, NULL, 4), EINVAL);
}

TEST(deliver_and_block)
{
	sigset_t set = set_of(SIGUSR1), pending;

	set_handler(SIGUSR1, on_signal, 0);
	CHECK_OK(raise(SIGUSR1));
	CHECK_EQ(count, 1);
	CHECK_OK(sigprocmask(SIG_BLOCK, &set, NULL));
	CHECK_OK(raise(SIGUSR1));
	CHECK_OK(raise(SIGUSR1));
	CHECK_EQ(count, 1);
	CHECK_OK(sigpending(&pending));
	CHECK(sigismember(&pending, SIGUSR1));
	CHECK_OK(sigprocmask(SIG_UNBLOCK, &set, NULL));
	/* A standard signal is pending once. */
	CHECK_EQ(count, 2);
	CHECK_OK(sigpending(&pending));
	CHECK(!sigismember(&pending, SIGUSR1));
	CHECK_ERR(sigprocmask(99, &set, NULL), EINVAL);
	/* KILL and STOP are never blocked. */
	sigfillset(&set);
	CHECK_OK(sigprocmask(SIG_SETMASK, &set, NULL));
	CHECK_OK(sigprocmask(SIG_SETMASK, NULL, &set));
	CHECK(!sigismember(&set, SIGKILL) && !sigismember(&set, SIGSTOP));
	CHECK(sigismember(&set, SIGTERM));
}

TEST(ignored)
{
	sigset_t set = set_of(SIGUSR1), pending;

	signal(SIGUSR1, SIG_IGN);
	CHECK_OK(raise(SIGUSR1));
	/* Blocked and ignored: gone once the action is to ignore. */
	CHECK_OK(sigprocmask(SIG_BLOCK, &set, NULL));
	set_handler(SIGUSR1, on_signal, 0);
	CHECK_OK(raise(SIGUSR1));
	signal(SIGUSR1, SIG_IGN);
	CHECK_OK(sigpending(&pending));
	CHECK(!sigismember(&pending, SIGUSR1));
	CHECK_OK(raise(SIGCHLD));
	CHECK_OK(raise(SIGWINCH));
	CHECK_OK(raise(SIGURG));
}

static void nested(int sig)
{
	depth++;
	if (depth > max_depth)
		max_depth = depth;
	if (depth < 3 && count < 5)
		raise(sig);
	depth--;
	count++;
}

TEST(mask_during_handler)
{
	set_handler(SIGUSR1, nested, 0);
	CHECK_OK(raise(SIGUSR1));
	CHECK_EQ(max_depth, 1);
	CHECK(count >= 2);
}

TEST(nodefer)
{
	set_handler(SIGUSR1, nested, SA_NODEFER);
	CHECK_OK(raise(SIGUSR1));
	CHECK_EQ(max_depth, 3);
	CHECK_EQ(count, 3);
}

TEST(resethand)
{
	struct sigaction old;

	set_handler(SIGUSR1, on_signal, SA_RESETHAND);
	CHECK_OK(raise(SIGUSR1));
	CHECK_EQ(count, 1);
	CHECK_OK(sigaction(SIGUSR1, NULL, &old));
	CHECK(old.sa_handler == SIG_DFL);
}

static volatile sigset_t mask_seen;

static void see_mask(int sig)
{
	(void)sig;
	sigprocmask(SIG_SETMASK, NULL, (sigset_t *)&mask_seen);
}

TEST(sa_mask)
{
	struct sigaction sa = {.sa_handler = see_mask};
	sigset_t now;

	sigaddset(&sa.sa_mask, SIGUSR2);
	CHECK_OK(sigaction(SIGUSR1, &sa, NULL));
	CHECK_OK(raise(SIGUSR1));
	CHECK(sigismember((sigset_t *)&mask_seen, SIGUSR1) &&
	      sigismember((sigset_t *)&mask_seen, SIGUSR2));
	CHECK(!sigismember((sigset_t *)&mask_seen, SIGHUP));
	CHECK_OK(sigprocmask(SIG_SETMASK, NULL, &now));
	CHECK(!sigismember(&now, SIGUSR1) && !sigismember(&now, SIGUSR2));
}

TEST(siginfo_of_kill)
{
	union sigval value = {.sival_int = 4711};

	set_info(SIGUSR1, 0);
	CHECK_OK(kill(getpid(), SIGUSR1));
	CHECK_EQ(info.si_signo, SIGUSR1);
	CHECK_EQ(info.si_code, SI_USER);
	CHECK_EQ(info.si_pid, getpid());
	CHECK_EQ(info.si_uid, getuid());
	CHECK_OK(sigqueue(getpid(), SIGUSR1, value));
	CHECK_EQ(info.si_code, SI_QUEUE);
	CHECK_EQ(info.si_value.sival_int, 4711);
	CHECK_OK(syscall(SYS_tgkill, getpid(), gettid(), SIGUSR1));
	CHECK_EQ(info.si_code, SI_TKILL);
}

TEST(siginfo_of_child)
{
	pid_t pid;

	set_info(SIGCHLD, SA_RESTART);
	pid = fork();
	if (pid == 0)
		_exit(9);
	CHECK_EQ(t_wait_status(pid), 9 << 8);
	CHECK_EQ(info.si_signo, SIGCHLD);
	CHECK_EQ(info.si_code, CLD_EXITED);
	CHECK_EQ(info.si_pid, pid);
	CHECK_EQ(info.si_status, 9);
}

TEST(sigqueueinfo_rules)
{
	siginfo_t si = {.si_code = SI_USER};

	set_info(SIGUSR1, 0);
	CHECK_OK(syscall(SYS_rt_sigqueueinfo, getpid(), SIGUSR1, &si));
	CHECK_ERR(syscall(SYS_rt_sigqueueinfo, getppid(), 0, &si), EPERM);
	si.si_code = -77;
	CHECK_OK(syscall(SYS_rt_sigqueueinfo, getpid(), SIGUSR1, &si));
	CHECK_EQ(info.si_code, -77);
	CHECK_ERR(syscall(SYS_rt_sigqueueinfo, 0x7fffff, SIGUSR1, &si), ESRCH);
}

static int thread_id_pipe[2];

static void *tell_id(void *arg)
{
	pid_t tid = (pid_t)syscall(SYS_gettid);

	(void)arg;
	CHECK_EQ(write(thread_id_pipe[1], &tid, sizeof(tid)), (ssize_t)sizeof(tid));
	for (;;)
		pause();
}

/* A thread's id stands for its process. */
TEST(sigqueueinfo_to_a_thread_id)
{
	siginfo_t si = {.si_code = -77};
	pthread_t thread;
	pid_t tid;

	set_info(SIGUSR1, 0);
	CHECK_OK(pipe(thread_id_pipe));
	CHECK_EQ(pthread_create(&thread, NULL, tell_id, NULL), 0);
	CHECK_EQ(read(thread_id_pipe[0], &tid, sizeof(tid)), (ssize_t)sizeof(tid));
	CHECK(tid != getpid());
	CHECK_OK(syscall(SYS_rt_sigqueueinfo, tid, SIGUSR1, &si));
	for (int i = 0; i < 2000 && info.si_code != -77; i++)
		t_sleep_ms(10);
	CHECK_EQ(info.si_code, -77);
}

static volatile int order[16], order_count, order_value[16];

static void on_order(int sig, siginfo_t *si, void *uc)
{
	(void)uc;
	order[order_count] = sig;
	order_value[order_count++] = si->si_value.sival_int;
}

/* Real-time signals queue; the lowest number first, each in order of arrival. */
TEST(realtime_order)
{
	struct sigaction sa = {.sa_sigaction = on_order, .sa_flags = SA_SIGINFO};
	sigset_t all;

	sigfillset(&sa.sa_mask);
	sigfillset(&all);
	CHECK_OK(sigaction(SIGRTMIN, &sa, NULL));
	CHECK_OK(sigaction(SIGRTMIN + 2, &sa, NULL));
	CHECK_OK(sigaction(SIGUSR1, &sa, NULL));
	CHECK_OK(sigprocmask(SIG_SETMASK, &all, NULL));
	for (int i = 0; i < 3; i++) {
		CHECK_OK(sigqueue(getpid(), SIGRTMIN + 2, (union sigval){.sival_int = 20 + i}));
		CHECK_OK(sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 10 + i}));
	}
	CHECK_OK(kill(getpid(), SIGUSR1));
	sigemptyset(&all);
	CHECK_OK(sigprocmask(SIG_SETMASK, &all, NULL));
	CHECK_EQ(order_count, 7);
	CHECK_EQ(order[0], SIGUSR1);
	for (int i = 0; i < 3; i++) {
		CHECK_EQ(order[1 + i], SIGRTMIN);
		CHECK_EQ(order_value[1 + i], 10 + i);
		CHECK_EQ(order[4 + i], SIGRTMIN + 2);
		CHECK_EQ(order_value[4 + i], 20 + i);
	}
}

TEST(queue_limit)
{
	sigset_t set = set_of(SIGRTMIN);
	int queued = 0;

	CHECK_OK(sigprocmask(SIG_BLOCK, &set, NULL));
	CHECK_OK(setrlimit(RLIMIT_SIGPENDING, &(struct rlimit){20, 20}));
	while (queued < 100 && sigqueue(getpid(), SIGRTMIN, (union sigval){0}) == 0)
		queued++;
	CHECK(queued <= 20);
	CHECK_ERR(sigqueue(getpid(), SIGRTMIN, (union sigval){0}), EAGAIN);
	/* kill(2) of a standard signal always works. */
	CHECK_OK(kill(getpid(), SIGWINCH));
}

static char *stack_base;
static volatile bool on_stack;
static stack_t stack_in_handler;

static void on_altstack(int sig)
{
	char here;

	(void)sig;
	on_stack = &here >= stack_base && &here < stack_base + 65536;
	sigaltstack(NULL, &stack_in_handler);
}

TEST(altstack)
{
	stack_t ss = {.ss_size = 65536}, old;

	stack_base = malloc(65536);
	ss.ss_sp = stack_base;
	CHECK_OK(sigaltstack(NULL, &old));
	CHECK_EQ(old.ss_flags, SS_DISABLE);
	CHECK_OK(sigaltstack(&ss, NULL));
	set_handler(SIGUSR1, on_altstack, SA_ONSTACK);
	CHECK_OK(raise(SIGUSR1));
	CHECK(on_stack);
	CHECK_EQ(stack_in_handler.ss_flags, SS_ONSTACK);
	CHECK_OK(sigaltstack(NULL, &old));
	CHECK_EQ(old.ss_flags, 0);
	CHECK(old.ss_sp == stack_base);
	set_handler(SIGUSR1, on_altstack, 0);
	CHECK_OK(raise(SIGUSR1));
	CHECK(!on_stack);
	ss.ss_size = 100;
	CHECK_ERR(sigaltstack(&ss, NULL), ENOMEM);
	ss.ss_size = 65536;
	ss.ss_flags = 0x77;
	CHECK_ERR(sigaltstack(&ss, NULL), EINVAL);
	ss.ss_flags = (int)(1u << 31) /* SS_AUTODISARM */;
	CHECK_OK(sigaltstack(&ss, NULL));
	set_handler(SIGUSR1, on_altstack, SA_ONSTACK);
	CHECK_OK(raise(SIGUSR1));
	CHECK(on_stack);
	CHECK_EQ(stack_in_handler.ss_flags, SS_DISABLE);
	ss.ss_flags = SS_DISABLE;
	CHECK_OK(sigaltstack(&ss, NULL));
}

TEST(sigsuspend)
{
	sigset_t block = set_of(SIGUSR1), none = set_of(0), now;

	set_handler(SIGUSR1, on_signal, 0);
	CHECK_OK(sigprocmask(SIG_BLOCK, &block, NULL));
	CHECK_OK(raise(SIGUSR1));
	CHECK_EQ(count, 0);
	CHECK_ERR(sigsuspend(&none), EINTR);
	CHECK_EQ(count, 1);
	CHECK_OK(sigprocmask(SIG_SETMASK, NULL, &now));
	CHECK(sigismember(&now, SIGUSR1));
}

TEST(sigtimedwait)
{
	sigset_t set = set_of(SIGUSR1);
	struct timespec ts = {0, 20000000}, zero = {0, 0};
	siginfo_t si;
	int64_t start;
	pid_t pid;

	sigaddset(&set, SIGRTMIN);
	CHECK_OK(sigprocmask(SIG_BLOCK, &set, NULL));
	CHECK_ERR(sigtimedwait(&set, &si, &zero), EAGAIN);
	start = t_now_ms();
	CHECK_ERR(sigtimedwait(&set, &si, &ts), EAGAIN);
	CHECK(t_now_ms() - start >= 19);
	CHECK_OK(sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 5}));
	CHECK_OK(raise(SIGUSR1));
	CHECK_EQ(sigtimedwait(&set, &si, &zero), SIGUSR1);
	CHECK_EQ(sigwaitinfo(&set, &si), SIGRTMIN);
	CHECK_EQ(si.si_value.sival_int, 5);
	pid = fork();
	if (pid == 0) {
		t_sleep_ms(40);
		kill(getppid(), SIGUSR1);
		_exit(0);
	}
	CHECK_EQ(sigwaitinfo(&set, &si), SIGUSR1);
	CHECK_EQ(si.si_pid, pid);
	set_handler(SIGUSR2, on_signal, SA_RESTART);
	t_signal_sleeper(SIGUSR2, 0);
	/* Another signal's handler ends it, SA_RESTART or not. */
	CHECK_ERR(sigwaitinfo(&set, &si), EINTR);
	ts.tv_nsec = -1;
	CHECK_ERR(sigtimedwait(&set, &si, &ts), EINVAL);
}

TEST(kill_permissions)
{
	pid_t pid = fork();

	if (pid == 0) {
		pause();
		_exit(0);
	}
	if (fork() == 0) {
		t_become(1000, 1000);
		CHECK_ERR(kill(pid, 0), EPERM);
		CHECK_ERR(kill(pid, SIGTERM), EPERM);
		CHECK_OK(kill(getpid(), 0));
		_exit(0);
	}
	int status;
	CHECK(waitpid(-1, &status, 0) != pid);
	CHECK_EQ(status, 0);
	CHECK_ERR(kill(pid, 65), EINVAL);
	CHECK_ERR(kill(pid, -1), EINVAL);
	CHECK_ERR(kill(0x7fffff, 0), ESRCH);
	CHECK_OK(kill(pid, SIGKILL));
	CHECK_EQ(t_wait_status(pid), SIGKILL);
}

static void skip_instruction(int sig, siginfo_t *si, void *context)
{
	ucontext_t *uc = context;

	(void)sig;
	(void)si;
	uc->uc_mcontext.gregs[REG_RIP] += 2;
	uc->uc_mcontext.gregs[REG_RAX] = 0x1234;
	sigaddset(&uc->uc_sigmask, SIGUSR2);
}

/* What the handler writes to its context is what the program goes on with. */
TEST(context_is_restored)
{
	struct sigaction sa = {.sa_sigaction = skip_instruction, .sa_flags = SA_SIGINFO};
	sigset_t now;
	long rax = 0;

	CHECK_OK(sigaction(SIGILL, &sa, NULL));
	__asm__ volatile("ud2" : "=a"(rax)::"memory");
	CHECK_EQ(rax, 0x1234);
	CHECK_OK(sigprocmask(SIG_SETMASK, NULL, &now));
	CHECK(sigismember(&now, SIGUSR2));
}

static volatile unsigned long flags_seen;

static void see_flags(int sig)
{
	(void)sig;
	__asm__ volatile("pushfq; pop %0" : "=r"(flags_seen));
}

/* The direction flag is clear in a handler whatever the program did. */
TEST(direction_flag)
{
	long ret;

	signal(SIGUSR1, see_flags);
	__asm__ volatile("std; syscall; cld"
			 : "=a"(ret)
			 : "0"((long)SYS_kill), "D"((long)getpid()), "S"((long)SIGUSR1)
			 : "rcx", "r11", "memory", "cc");
	CHECK_EQ(ret, 0);
	CHECK(!(flags_seen & 0x400));
}

static sigjmp_buf back;

static void jump(int sig)
{
	(void)sig;
	count++;
	siglongjmp(back, 1);
}

TEST(longjmp_out)
{
	set_handler(SIGUSR1, jump, 0);
	for (volatile int i = 0; i < 100; i++)
		if (!sigsetjmp(back, 1))
			raise(SIGUSR1);
	CHECK_EQ(count, 100);
}

TEST(many)
{
	pid_t pid;

	set_handler(SIGUSR1, on_signal, 0);
	pid = fork();
	if (pid == 0) {
		for (int i = 0; i < 2000; i++)
			kill(getppid(), SIGUSR1);
		_exit(0);
	}
	for (volatile long spin = 0;; spin++) {
		int status;
		pid_t got = waitpid(pid, &status, WNOHANG);

		if (got == pid)
			break;
		CHECK(got == 0 || (got == -1));
	}
	CHECK(count > 0 && count <= 2000);
}

TEST(inherited_by_fork)
{
	sigset_t set = set_of(SIGUSR1), pending;
	pid_t pid;

	set_handler(SIGUSR2, on_signal, 0);
	CHECK_OK(sigprocmask(SIG_BLOCK, &set, NULL));
	CHECK_OK(raise(SIGUSR1));
	pid = fork();
	if (pid == 0) {
		sigset_t now;

		CHECK_OK(sigpending(&pending));
		CHECK(!sigismember(&pending, SIGUSR1));
		CHECK_OK(sigprocmask(SIG_SETMASK, NULL, &now));
		CHECK(sigismember(&now, SIGUSR1));
		CHECK_OK(raise(SIGUSR2));
		CHECK_EQ(count, 1);
		_exit(0);
	}
	t_wait_ok(pid);
	CHECK_EQ(count, 0);
}
