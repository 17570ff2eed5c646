/*
 * tests/syscalls/hostile.h - what hostile*.c share: programs that do to their processor and their address space what they like: no more than themselves dies.
 *
 * Every case runs beside a sibling process that computes in general and vector registers, memory and system calls, and checks itself; it must
 * come through unharmed. The attacks run in children of their own: that one ends is expected, how is said only where Linux leaves no choice.
 * tests/stress/run runs this beside a second sandbox, and compares the sandbox's object counts.
 */
#ifndef MOAT_TESTS_SYSCALLS_HOSTILE_H
#define MOAT_TESTS_SYSCALLS_HOSTILE_H

#include <setjmp.h>
#include <stdatomic.h>
#include <sys/utsname.h>

#include "t.h"

#define ALTSTACK_SIZE 65536
#define PAGE 4096ul

/* ---- the sibling ---- */

static _Atomic int *sibling_stop; /* shared page */
static pid_t sibling_pid;

static inline void sibling_run(void)
{
	uint64_t sum = 1, memory[512];
	double f = 1.0;

	for (unsigned i = 0; i < 512; i++)
		memory[i] = i * 0x9e3779b97f4a7c15ull;
	for (unsigned round = 0; !atomic_load(sibling_stop); round++) {
		uint64_t a = 0x1111111111111111ull, b = a;
		double x = 1.5, y;

		for (unsigned i = 0; i < 20000; i++) {
			sum = sum * 6364136223846793005ull + 1442695040888963407ull;
			f = f * 1.0000001;
			if (f > 2.0)
				f = 1.0;
		}
		__asm__ volatile(
			"movq %1, %%xmm9\n\tmovsd %2, %%xmm10\n\tmov $39, %%eax\n\tsyscall\n\t"
			"movq %%xmm9, %0\n\tmovsd %%xmm10, %3"
			: "=&r"(b), "+r"(a), "+m"(x), "=m"(y)
			:
			: "rax", "rcx", "r11", "xmm9", "xmm10", "memory");
		if (a != b || x != y || getpid() != (pid_t)syscall(SYS_getpid))
			_exit(1);
		for (unsigned i = 0; i < 512; i++)
			if (memory[i] != i * 0x9e3779b97f4a7c15ull)
				_exit(2);
		if (round % 16 == 0)
			usleep(1000);
	}
	_exit(sum == 0 && f < 0 ? 3 : 0);
}

static inline void sibling_begin(void)
{
	sibling_stop = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(sibling_stop != MAP_FAILED);
	sibling_pid = fork();
	CHECK(sibling_pid >= 0);
	if (sibling_pid == 0)
		sibling_run();
}

static inline void sibling_end(void)
{
	atomic_store(sibling_stop, 1);
	t_wait_ok(sibling_pid);
}

/* The child's end, within a few seconds; a hang is killed and is no failure of ours, but the machine must go on. */
static inline int reap(pid_t pid)
{
	int status = -1;

	for (int i = 0; i < 5000; i++) {
		pid_t got = waitpid(pid, &status, WNOHANG);

		CHECK(got >= 0);
		if (got == pid)
			return status;
		usleep(i < 100 ? 100 : 1000);
	}
	CHECK(kill(pid, SIGKILL) == 0);
	CHECK(waitpid(pid, &status, 0) == pid);
	return status;
}

static inline bool in_moat(void)
{
	struct utsname u;

	return uname(&u) == 0 && strstr(u.version, "Moat") != NULL;
}

/* ---- attempts that one process survives: whatever signal comes, it goes on with the next ---- */

static sigjmp_buf again;
static volatile bool
	trying; /* an attempt is under way: only then is there somewhere to go back to */

static inline void on_any(int sig)
{
	if (!trying && sig == SIGALRM)
		return;
	if (!trying)
		_exit(1); /* an attempt has ruined what comes after it */
	trying = false;
	siglongjmp(again, 1);
}

/* Something that spins instead of faulting is taken out of it. */
static inline void arm(void)
{
	struct itimerval it = {.it_value = {.tv_usec = 20000}, .it_interval = {.tv_usec = 20000}};

	setitimer(ITIMER_REAL, &it, NULL);
}

/* The mask is not kept: handlers change none. */
#define ATTEMPT() (sigsetjmp(again, 0) == 0 && (trying = true))

static inline void catch_all(void)
{
	static const int sigs[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS, SIGALRM};
	struct sigaction sa = {.sa_handler = on_any, .sa_flags = SA_ONSTACK | SA_NODEFER};
	stack_t ss = {.ss_size = ALTSTACK_SIZE, .ss_sp = malloc(ALTSTACK_SIZE)};

	CHECK(sigaltstack(&ss, NULL) == 0);
	for (size_t i = 0; i < sizeof(sigs) / sizeof(sigs[0]); i++)
		CHECK(sigaction(sigs[i], &sa, NULL) == 0);
	arm();
}

static inline void set_flags(uint64_t flags)
{
	__asm__ volatile("push %0\n\tpopfq" : : "r"(flags) : "cc", "memory");
}

#endif
