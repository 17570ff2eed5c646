/* tests/syscalls/hostile_signals.c - forged frames, blocked and flooding signals, and no stack to handle them on. See hostile.h. */
#include <ucontext.h>

#include "hostile.h"

/* ---- frames that the program forges for sigreturn ---- */

static volatile int forge_what;

static void on_forge(int sig, siginfo_t *info, void *context)
{
	ucontext_t *u = context;
	greg_t *g = u->uc_mcontext.gregs;

	(void)sig;
	(void)info;
	switch (forge_what) {
	case 0:
		g[REG_EFL] = -1;
		break;
	case 1:
		g[REG_CSGSFS] = 0;
		break;
	case 2:
		g[REG_CSGSFS] = -1;
		break;
	case 3:
		g[REG_RIP] = (greg_t)0x8000000000000000ull;
		break;
	case 4:
		g[REG_RSP] = (greg_t)0x8000000000000000ull;
		break;
	case 5:
		g[REG_RIP] = (greg_t)0xffffffff81000000ull;
		break;
	case 6: /* kernel selectors */
		g[REG_CSGSFS] = 0x10 | (greg_t)0x18 << 48;
		break;
	case 7:
		u->uc_mcontext.fpregs = (void *)0xffff888000000000ull;
		break;
	case 8:
		memset(u->uc_mcontext.fpregs, 0xff, 512);
		break;
	case 9: /* XSAVE header: everything, compacted, reserved bits */
		memset((char *)u->uc_mcontext.fpregs + 512, 0xff, 64);
		break;
	case 10: /* a size that is none */
		memset((char *)u->uc_mcontext.fpregs + 464, 0xff, 48);
		break;
	case 11:
		g[REG_RIP] = 0x7ffffffff000;
		break;
	case 12:
		g[REG_RIP] = 0x7e9000000000;
		break;
	case 13:
		g[REG_RIP] = 0x05140000;
		break;
	case 14:
		u->uc_mcontext.fpregs = (void *)((uintptr_t)u->uc_mcontext.fpregs + 1);
		break;
	}
}

TEST(forged_frames)
{
	sibling_begin();
	for (int what = 0; what < 15; what++) {
		pid_t pid = fork();

		CHECK(pid >= 0);
		if (pid == 0) {
			struct sigaction sa = {.sa_sigaction = on_forge, .sa_flags = SA_SIGINFO};

			forge_what = what;
			sigaction(SIGUSR1, &sa, NULL);
			raise(SIGUSR1);
			set_flags(0x202);
			_exit(0);
		}
		(void)reap(pid);
	}
	sibling_end();
}

/* sigreturn with nothing like a frame on the stack. */
TEST(sigreturn_from_nowhere)
{
	sibling_begin();
	for (unsigned i = 0; i < 40; i++) {
		int status;
		pid_t pid = fork();

		CHECK(pid >= 0);
		if (pid == 0) {
			uint64_t *p = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE,
					   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

			for (unsigned k = 0; k < 1024; k++)
				p[k] = i < 20 ? 0x0101010101010101ull * (i * 13)
					      : k * 0x9e3779b97f4a7c15ull * i;
			__asm__ volatile("mov %0, %%rsp\n\tmov $15, %%eax\n\tsyscall\n\tud2"
					 :
					 : "r"((char *)p + i * 8)
					 : "memory");
		}
		status = reap(pid);
		CHECK(WIFSIGNALED(status));
	}
	sibling_end();
}

/* ---- signals ---- */

TEST(everything_blocked_and_a_fault)
{
	sigset_t all;
	int status;
	pid_t pid;

	sibling_begin();
	pid = fork();
	if (pid == 0) {
		sigfillset(&all);
		sigprocmask(SIG_SETMASK, &all, NULL);
		*(volatile int *)8 = 1;
		_exit(0);
	}
	status = reap(pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
	pid = fork();
	if (pid == 0) {
		sigfillset(&all);
		sigprocmask(SIG_SETMASK, &all, NULL);
		for (;;)
			;
	}
	usleep(20000);
	CHECK(kill(pid, SIGKILL) == 0);
	status = reap(pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	sibling_end();
}

static _Atomic unsigned flood_seen;

static void on_flood(int sig)
{
	(void)sig;
	atomic_fetch_add(&flood_seen, 1);
}

TEST(flood_of_signals)
{
	pid_t pid;
	int status;

	sibling_begin();
	pid = fork();
	if (pid == 0) {
		struct sigaction sa = {.sa_handler = on_flood, .sa_flags = SA_NODEFER};

		for (int s = 1; s < 65; s++)
			if (s != SIGKILL && s != SIGSTOP && s != SIGTERM && s != SIGCONT)
				sigaction(s, &sa, NULL);
		for (;;)
			syscall(SYS_getpid);
	}
	usleep(20000);
	for (int i = 0; i < 4000; i++)
		kill(pid, i % 3 ? SIGUSR1 : 32 + i % 30 + 1);
	CHECK(kill(pid, SIGTERM) == 0);
	status = reap(pid);
	CHECK(WIFSIGNALED(status));
	sibling_end();
}

static void on_deeper(int sig)
{
	volatile char frame[2048];

	frame[0] = (char)sig;
	raise(sig);
	frame[1] = frame[0];
}

/* Each handler raises its own signal again, until there is no stack: on the stack itself, and on a small one. */
TEST(out_of_stack_in_handlers)
{
	sibling_begin();
	for (int alt = 0; alt < 3; alt++) {
		int status;
		pid_t pid = fork();

		CHECK(pid >= 0);
		if (pid == 0) {
			struct sigaction sa = {.sa_handler = on_deeper,
					       .sa_flags = SA_NODEFER | (alt ? SA_ONSTACK : 0)};
			stack_t ss = {.ss_size = 16384, .ss_sp = malloc(16384)};
			struct rlimit rl = {1 << 20, 1 << 20};

			setrlimit(RLIMIT_STACK, &rl);
			if (alt)
				sigaltstack(&ss, NULL);
			sigaction(SIGUSR1, &sa, NULL);
			if (alt == 2)
				sigaction(SIGSEGV, &sa, NULL);
			raise(SIGUSR1);
			_exit(0);
		}
		status = reap(pid);
		CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
	}
	sibling_end();
}

/* The stack pointer is nowhere when a signal, a fault and a call come. */
TEST(no_stack_at_all)
{
	static const uint64_t where[] = {
		0, 8, 0x7ffffffff000, 0x8000000000000000, ~0ul, 0x7e9000040000};

	sibling_begin();
	for (size_t i = 0; i < sizeof(where) / sizeof(where[0]); i++) {
		int status;
		pid_t pid = fork();

		CHECK(pid >= 0);
		if (pid == 0) {
			signal(SIGUSR1, on_flood);
			__asm__ volatile("mov %0, %%rsp\n\tmov $62, %%eax\n\tsyscall\n\tud2"
					 :
					 : "r"(where[i]), "D"((long)getpid()), "S"((long)SIGUSR1)
					 : "memory");
		}
		status = reap(pid);
		CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
	}
	sibling_end();
}
