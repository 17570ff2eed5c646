/*
 * tests/syscalls/hostile.c - programs that do to their processor and their address space what they like: no more than themselves dies.
 *
 * Every case runs beside a sibling process that computes in general and vector registers, memory and system calls, and checks itself; it must
 * come through unharmed. The attacks run in children of their own: that one ends is expected, how is said only where Linux leaves no choice.
 * tests/stress/run runs this beside a second sandbox, and compares the sandbox's object counts.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <sys/utsname.h>
#include <ucontext.h>

#include "t.h"

#define EFLAGS_TF 0x100ul
#define EFLAGS_DF 0x400ul
#define EFLAGS_NT 0x4000ul
#define EFLAGS_AC 0x40000ul
#define ALTSTACK_SIZE 65536
#define PAGE 4096ul

/* ---- the sibling ---- */

static _Atomic int *sibling_stop; /* shared page */
static pid_t sibling_pid;

static void sibling_run(void)
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

static void sibling_begin(void)
{
	sibling_stop = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(sibling_stop != MAP_FAILED);
	sibling_pid = fork();
	CHECK(sibling_pid >= 0);
	if (sibling_pid == 0)
		sibling_run();
}

static void sibling_end(void)
{
	atomic_store(sibling_stop, 1);
	t_wait_ok(sibling_pid);
}

/* The child's end, within a few seconds; a hang is killed and is no failure of ours, but the machine must go on. */
static int reap(pid_t pid)
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

static bool in_moat(void)
{
	struct utsname u;

	return uname(&u) == 0 && strstr(u.version, "Moat") != NULL;
}

/* ---- attempts that one process survives: whatever signal comes, it goes on with the next ---- */

static sigjmp_buf again;
static volatile bool
	trying; /* an attempt is under way: only then is there somewhere to go back to */

static void on_any(int sig)
{
	if (!trying && sig == SIGALRM)
		return;
	if (!trying)
		_exit(1); /* an attempt has ruined what comes after it */
	trying = false;
	siglongjmp(again, 1);
}

/* Something that spins instead of faulting is taken out of it. */
static void arm(void)
{
	struct itimerval it = {.it_value = {.tv_usec = 20000}, .it_interval = {.tv_usec = 20000}};

	setitimer(ITIMER_REAL, &it, NULL);
}

/* The mask is not kept: handlers change none. */
#define ATTEMPT() (sigsetjmp(again, 0) == 0 && (trying = true))

static void catch_all(void)
{
	static const int sigs[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS, SIGALRM};
	struct sigaction sa = {.sa_handler = on_any, .sa_flags = SA_ONSTACK | SA_NODEFER};
	stack_t ss = {.ss_size = ALTSTACK_SIZE, .ss_sp = malloc(ALTSTACK_SIZE)};

	CHECK(sigaltstack(&ss, NULL) == 0);
	for (size_t i = 0; i < sizeof(sigs) / sizeof(sigs[0]); i++)
		CHECK(sigaction(sigs[i], &sa, NULL) == 0);
	arm();
}

/* Registers say getpid, and return addresses lead to 0. */
static void jump_to(uint64_t to, uint64_t gs)
{
	if (!ATTEMPT()) {
		__asm__ volatile("cld"); /* whatever the attempt left */
		return;
	}
	__asm__ volatile(
		"mov %0, %%rbx\n\tmov %1, %%rdi\n\tmov $158, %%eax\n\tmov %2, %%rsi\n\t"
		"xchg %%rsi, %%rdi\n\tmov $0x1001, %%edi\n\tsyscall\n\t" /* ARCH_SET_GS */
		"mov $39, %%eax\n\txor %%ecx, %%ecx\n\txor %%r11d, %%r11d\n\txor %%edx, %%edx\n\t"
		"xor %%ebp, %%ebp\n\txor %%r15d, %%r15d\n\tpush %%rdx\n\tjmp *%%rbx"
		:
		: "r"(to), "r"(0ul), "r"(gs)
		: "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r11", "r12", "r13", "r14", "r15",
		  "memory");
}

/* Every `step`th byte of [from, from + size). Children of 256 attempts, because some end the child. */
static void jump_range(uint64_t from, uint64_t size, uint64_t step, uint64_t gs)
{
	uint64_t per = 256 * step;

	for (uint64_t at = 0; at < size; at += per) {
		pid_t pid = fork();

		CHECK(pid >= 0);
		if (pid == 0) {
			catch_all();
			for (uint64_t i = at; i < at + per && i < size; i += step)
				jump_to(from + i, gs);
			_exit(0);
		}
		(void)reap(pid);
	}
}

TEST(jump_into_the_last_user_page)
{
	sibling_begin();
	jump_range(0x7ffffffff000, PAGE, 1, 0);
	jump_range(0x7ffffffff000 - 64, 128, 1, 0x1000);
	sibling_end();
}

/* Where trampolines are: none on Linux. */
TEST(jump_into_trampolines)
{
	sibling_begin();
	/* A hot call first, so that there is something. */
	for (int i = 0; i < 5000; i++)
		syscall(SYS_getpid);
	jump_range(0x05100000, 512, 1, 0);
	jump_range(0x05140000, 512, 1, 0);
	jump_range(0x05140000, 512, 1, 0x05150000);
	jump_range(0x050f0000, 4096, 61, 0);
	jump_range(0x05150000, 4096, 61, 0x05150000);
	sibling_end();
}

TEST(jump_into_a_stub)
{
	sibling_begin();
	jump_range(0x7e9000000000, 2048, 1, 0);
	jump_range(0x7e9000000000 + 2048, 0x9000 - 2048, 97, 0);
	jump_range(0x7e9001000000, 0x20000, 4093, 0x7e9001010000);
	sibling_end();
}

TEST(jump_out_of_the_address_space)
{
	static const uint64_t where[] = {0xffffffffff600000, 0xffffffffff600001, 0xffffffffff6003ff,
					 0xffffffff81000000, 0xffff800000000000, 0x800000000000,
					 0x7fffffffffff,     0xffffffffffffffff, 0x8000000000000000,
					 0xffffc00000000000, 0x7fffffffefff,	 0};

	sibling_begin();
	for (size_t i = 0; i < sizeof(where) / sizeof(where[0]); i++)
		jump_range(where[i], 4, 1, 0);
	sibling_end();
}

/* ---- memory that is not the program's ---- */

TEST(write_over_the_platform)
{
	static const uint64_t where[] = {0x7ffffffff000, 0x050f0000,	    0x05100000,
					 0x05140000,	 0x7e9000000000,    0x7e9000008000,
					 0x7e9000040000, 0x7e9000043000,    0x7e9001000000,
					 0x7e9001010000, 0xffffffffff600000};

	sibling_begin();
	for (size_t i = 0; i < sizeof(where) / sizeof(where[0]); i++) {
		for (unsigned off = 0; off < PAGE; off += 512) {
			pid_t pid = fork();

			CHECK(pid >= 0);
			if (pid == 0) {
				volatile uint64_t *p = (volatile uint64_t *)(where[i] + off);

				for (int k = 0; k < 64; k++)
					p[k] = 0x4141414141414141ull;
				for (int k = 0; k < 100; k++)
					syscall(SYS_getpid);
				_exit(0);
			}
			(void)reap(pid);
			if (off >= 1024)
				break;
		}
	}
	sibling_end();
}

/* The shared page, if it is the program's to write, changes while calls are made. */
TEST(scribble_while_calling)
{
	static const uint64_t where[] = {0x05150000, 0x7e9001010000, 0x7e9001030000};

	sibling_begin();
	for (size_t i = 0; i < sizeof(where) / sizeof(where[0]); i++) {
		pid_t pid = fork();

		CHECK(pid >= 0);
		if (pid == 0) {
			char *stack = malloc(65536);
			pid_t twin = (pid_t)syscall(SYS_clone, CLONE_VM | CLONE_FILES | SIGCHLD,
						    stack + 65536 - 64, 0, 0, 0);

			if (twin == 0) {
				volatile uint32_t *p = (volatile uint32_t *)where[i];

				for (uint32_t k = 0;; k++)
					p[k * 7 % 128] = k * 2654435761u;
			}
			for (int k = 0; k < 3000; k++)
				syscall(SYS_getpid);
			kill(twin, SIGKILL);
			_exit(0);
		}
		(void)reap(pid);
	}
	sibling_end();
}

TEST(map_over_everything)
{
	struct {
		int kind;
		uint64_t at, size;
	} const what[] = {
		{0, 0x10000, 0x7ffffffef000 - 0x10000},
		{1, 0, 0x7ffffffff000},
		{2, 0x10000, 0x7ffffffef000 - 0x10000},
		{0, 0x7ffffffff000, PAGE},
		{1, 0x7ffffffff000, PAGE},
		{0, 0x7fffffffe000, 2 * PAGE},
		{0, 0x050f0000, 0x160000},
		{1, 0x050f0000, 0x160000},
		{2, 0x050f0000, 0x160000},
		{0, 0x7e9000000000, 0x2000000},
		{1, 0x7e9000000000, 0x80000000},
		{2, 0x7e9000000000, 0x80000000},
	};

	sibling_begin();
	for (size_t i = 0; i < sizeof(what) / sizeof(what[0]); i++) {
		pid_t pid = fork();
		int status;

		CHECK(pid >= 0);
		if (pid == 0) {
			if (what[i].kind == 0)
				mmap((void *)what[i].at, what[i].size, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1,
				     0);
			else if (what[i].kind == 1)
				munmap((void *)what[i].at, what[i].size);
			else
				mprotect((void *)what[i].at, what[i].size,
					 PROT_READ | PROT_WRITE | PROT_EXEC);
			for (int k = 0; k < 100; k++)
				syscall(SYS_getpid);
			_exit(0);
		}
		status = reap(pid);
		/* With its text gone it cannot have come to an end of its own. */
		if (i == 1)
			CHECK(WIFSIGNALED(status));
	}
	/* Above what a program may have, nothing can be put. */
	CHECK(mmap((void *)0x7ffffffff000, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		   -1, 0) == MAP_FAILED &&
	      errno == ENOMEM);
	sibling_end();
}

/* ---- flags ---- */

static void set_flags(uint64_t flags)
{
	__asm__ volatile("push %0\n\tpopfq" : : "r"(flags) : "cc", "memory");
}

TEST(every_flag)
{
	sibling_begin();
	for (unsigned bit = 0; bit < 22; bit++) {
		for (int with = 0; with < 2; with++) {
			pid_t pid = fork();

			CHECK(pid >= 0);
			if (pid == 0) {
				catch_all();
				if (ATTEMPT()) {
					set_flags(0x202 | 1ul << bit |
						  (with ? EFLAGS_TF | EFLAGS_DF : 0));
					__asm__ volatile("mov $39, %%eax\n\tsyscall"
							 :
							 :
							 : "rax", "rcx", "r11");
				}
				set_flags(0x202);
				_exit(syscall(SYS_getpid) != getpid());
			}
			CHECK(reap(pid) == 0);
		}
	}
	sibling_end();
}

static volatile unsigned traps;

static void on_trap(int sig, siginfo_t *info, void *context)
{
	ucontext_t *u = context;

	(void)sig;
	(void)info;
	if (++traps == 200)
		u->uc_mcontext.gregs[REG_EFL] &= ~(long)EFLAGS_TF;
}

/* Single steps through calls: as many traps as instructions. */
TEST(trap_flag_through_calls)
{
	struct sigaction sa = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};

	sibling_begin();
	CHECK(sigaction(SIGTRAP, &sa, NULL) == 0);
	__asm__ volatile("pushfq\n\torq $0x100, (%%rsp)\n\tpopfq\n"
			 "1:\tmov $39, %%eax\n\tsyscall\n\tcmpl $200, %0\n\tjb 1b"
			 : "+m"(traps)
			 :
			 : "rax", "rcx", "r11", "cc", "memory");
	CHECK(traps == 200);
	sibling_end();
}

TEST(alignment_check)
{
	int status;
	pid_t pid;

	sibling_begin();
	pid = fork();
	if (pid == 0) {
		char *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			       0);

		p[0] = 1;
		/* Set across a call, which must not mind; then a load that is not aligned. */
		__asm__ volatile(
			"pushfq\n\torq $0x40000, (%%rsp)\n\tpopfq\n\tmov $39, %%eax\n\tsyscall\n\t"
			"mov 1(%0), %%rax"
			:
			: "r"(p)
			: "rax", "rcx", "r11", "cc", "memory");
		_exit(0);
	}
	status = reap(pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
	sibling_end();
}

/* The direction flag is the program's: a call keeps it, a handler starts without. */
static volatile uint64_t handler_flags;

static void on_usr1(int sig)
{
	uint64_t flags;

	(void)sig;
	__asm__ volatile("pushfq\n\tpop %0" : "=r"(flags));
	handler_flags = flags;
}

TEST(direction_flag)
{
	uint64_t flags;

	sibling_begin();
	signal(SIGUSR1, on_usr1);
	handler_flags = EFLAGS_DF;
	__asm__ volatile("std\n\tmov $62, %%eax\n\tsyscall\n\tpushfq\n\tpop %0\n\tcld"
			 : "=r"(flags)
			 : "D"((long)getpid()), "S"((long)SIGUSR1)
			 : "rax", "rcx", "r11", "cc", "memory");
	CHECK(flags & EFLAGS_DF);
	CHECK(!(handler_flags & EFLAGS_DF));
	sibling_end();
}

/* ---- segments ---- */

static void load_segment(int which, uint16_t selector)
{
	if (!ATTEMPT())
		return;
	switch (which) {
	case 0:
		__asm__ volatile("mov %0, %%ds" : : "r"(selector));
		break;
	case 1:
		__asm__ volatile("mov %0, %%es" : : "r"(selector));
		break;
	case 2:
		__asm__ volatile("mov %0, %%gs" : : "r"(selector));
		break;
	case 3:
		__asm__ volatile("mov %0, %%ss" : : "r"(selector));
		break;
	}
	syscall(SYS_getpid);
	trying = false;
}

TEST(odd_segments)
{
	sibling_begin();
	for (int which = 0; which < 4; which++) {
		pid_t pid = fork();

		CHECK(pid >= 0);
		if (pid == 0) {
			catch_all();
			for (unsigned s = 0; s < 0x140; s++)
				load_segment(which, (uint16_t)s);
			for (unsigned s = 7; s < 0x10000; s += 1021)
				load_segment(which, (uint16_t)s);
			_exit(0);
		}
		CHECK(reap(pid) == 0);
	}
	/* %fs holds the thread's own data: without it nothing but the raw call works. */
	for (unsigned s = 0; s < 0x100; s += 5) {
		pid_t pid = fork();

		CHECK(pid >= 0);
		if (pid == 0)
			__asm__ volatile(
				"mov %0, %%fs\n\tmov $231, %%eax\n\txor %%edi, %%edi\n\tsyscall"
				:
				: "r"(s)
				: "rax", "rdi", "rcx", "r11", "memory");
		(void)reap(pid);
	}
	sibling_end();
}

/* Bases: ring 3 may set its own, but to no address that is none. */
TEST(segment_bases)
{
	sibling_begin();
	for (unsigned bit = 0; bit < 64; bit += 3) {
		pid_t pid = fork();

		CHECK(pid >= 0);
		if (pid == 0) {
			catch_all();
			if (ATTEMPT())
				__asm__ volatile("wrgsbase %0\n\tmov $39, %%eax\n\tsyscall\n\tmov "
						 "%%gs:0, %%rax"
						 :
						 : "r"(1ul << bit)
						 : "rax", "rcx", "r11", "memory");
			_exit(0);
		}
		CHECK(reap(pid) == 0);
	}
	CHECK(syscall(SYS_arch_prctl, 0x1001 /* ARCH_SET_GS */, 0x800000000000ul) == -1 &&
	      errno == EPERM);
	sibling_end();
}

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

/* ---- instructions that are not for programs ---- */

static void run_code(const unsigned char *code, size_t size)
{
	unsigned char *p = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC,
				MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	void (*fn)(void);

	memcpy(p, code, size);
	memset(p + size, 0xcc, 64);
	memcpy(&fn, &p, sizeof(p));
	if (ATTEMPT()) {
		/* eax 20 and 39: getpid, whichever way a call is made. */
		__asm__ volatile("mov $20, %%eax\n\txor %%ebx, %%ebx\n\txor %%ecx, %%ecx\n\txor "
				 "%%edx, %%edx\n\t"
				 "call *%0"
				 :
				 : "r"(fn)
				 : "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10",
				   "r11", "memory");
	}
	trying = false;
	__asm__ volatile("cld");
	munmap(p, 2 * PAGE);
}

TEST(privileged_instructions)
{
	static const struct {
		unsigned char size, code[12];
	} insns[] = {
		{1, {0xf4}}, /* hlt */
		{2, {0xe4, 0x80}}, /* in */
		{2, {0xe6, 0x80}}, /* out */
		{1, {0xec}}, /* in dx */
		{1, {0xee}}, /* out dx */
		{1, {0x6e}}, /* outsb */
		{1, {0x6c}}, /* insb */
		{1, {0xfa}}, /* cli */
		{1, {0xfb}}, /* sti */
		{2, {0x0f, 0x34}}, /* sysenter */
		{2, {0x0f, 0x35}}, /* sysexit */
		{2, {0x0f, 0x07}}, /* sysret */
		{3, {0x48, 0x0f, 0x07}}, /* sysretq */
		{3, {0x0f, 0x01, 0xf8}}, /* swapgs */
		{2, {0x0f, 0x32}}, /* rdmsr */
		{2, {0x0f, 0x30}}, /* wrmsr */
		{2, {0x0f, 0x33}}, /* rdpmc */
		{2, {0x0f, 0x06}}, /* clts */
		{2, {0x0f, 0x08}}, /* invd */
		{2, {0x0f, 0x09}}, /* wbinvd */
		{3, {0x0f, 0x01, 0x10}}, /* lgdt */
		{3, {0x0f, 0x01, 0x18}}, /* lidt */
		{3, {0x0f, 0x00, 0xd0}}, /* lldt */
		{3, {0x0f, 0x00, 0xd8}}, /* ltr */
		{3, {0x0f, 0x01, 0x38}}, /* invlpg */
		{3, {0x0f, 0x22, 0xd8}}, /* mov cr3 */
		{3, {0x0f, 0x22, 0xe0}}, /* mov cr4 */
		{3, {0x0f, 0x20, 0xd8}}, /* mov from cr3 */
		{3, {0x0f, 0x23, 0xf8}}, /* mov dr7 */
		{3, {0x0f, 0x01, 0xc1}}, /* vmcall */
		{3, {0x0f, 0x01, 0xd9}}, /* vmmcall */
		{3, {0x0f, 0x01, 0xd8}}, /* vmrun */
		{3, {0x0f, 0x01, 0xd1}}, /* xsetbv */
		{3, {0x0f, 0x01, 0xd0}}, /* xgetbv */
		{3, {0x0f, 0x01, 0xc8}}, /* monitor */
		{3, {0x0f, 0x01, 0xc9}}, /* mwait */
		{3, {0x0f, 0x01, 0xca}}, /* clac */
		{3, {0x0f, 0x01, 0xcb}}, /* stac */
		{3, {0x0f, 0x01, 0xf9}}, /* rdtscp */
		{2, {0x0f, 0x0b}}, /* ud2 */
		{1, {0xf1}}, /* icebp */
		{1, {0xcc}}, /* int3 */
		{1, {0xce}}, /* into */
		{1, {0xcf}}, /* iret */
		{2, {0x48, 0xcf}}, /* iretq */
		{1, {0xcb}}, /* lret */
		{2, {0x48, 0xcb}}, /* lretq */
		{4, {0xf0, 0x0f, 0xc7, 0xc8}}, /* lock cmpxchg8b %eax */
		{3, {0x66, 0xff, 0x2c}}, /* ljmp, cut off */
		{2, {0xff, 0x1c}}, /* lcall */
		{3, {0x0f, 0x00, 0xc0}}, /* sldt */
		{3, {0x0f, 0x01, 0xe0}}, /* smsw */
		{3, {0x0f, 0x01, 0x00}}, /* sgdt */
		{3, {0x0f, 0xa2, 0x90}}, /* cpuid */
		{6, {0x0f, 0x05, 0x0f, 0x05, 0x0f, 0x05}}, /* syscalls */
	};
	pid_t pid;

	sibling_begin();
	pid = fork();
	if (pid == 0) {
		catch_all();
		for (size_t i = 0; i < sizeof(insns) / sizeof(insns[0]); i++)
			run_code(insns[i].code, insns[i].size);
		_exit(0);
	}
	(void)reap(pid);
	/* One by one, so that the end of one hides no other; plain and single-stepped. */
	for (size_t i = 0; i < sizeof(insns) / sizeof(insns[0]) * 2; i++) {
		pid = fork();
		CHECK(pid >= 0);
		if (pid == 0) {
			unsigned char code[32] = {0x9c, 0x80, 0x4c, 0x24,
						  0x01, 0x01, 0x9d}; /* TF on */
			const unsigned char *insn = insns[i / 2].code;
			size_t size = insns[i / 2].size;

			catch_all();
			memcpy(code + 7, insn, size);
			if (i & 1)
				run_code(code, size + 7);
			else
				run_code(insn, size);
			_exit(0);
		}
		(void)reap(pid);
	}
	sibling_end();
}

TEST(every_interrupt)
{
	sibling_begin();
	for (unsigned n = 0; n < 256; n += 16) {
		pid_t pid = fork();

		CHECK(pid >= 0);
		if (pid == 0) {
			catch_all();
			for (unsigned k = n; k < n + 16; k++) {
				unsigned char code[3] = {0xcd, (unsigned char)k, 0xc3};

				run_code(code, sizeof(code));
			}
			_exit(0);
		}
		CHECK(reap(pid) == 0);
	}
	sibling_end();
}

/* Anything at all. Not on the host, where it would be this machine that such a program talks to. */
TEST(random_code)
{
	uint64_t x = 88172645463325252ull;

	if (!in_moat())
		_exit(T_SKIP_STATUS);
	sibling_begin();
	for (unsigned n = 0; n < 60; n++) {
		pid_t pid = fork();

		CHECK(pid >= 0);
		for (unsigned k = 0; k < 20 * 16; k++)
			x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		if (pid == 0) {
			setpgid(0, 0);
			catch_all();
			for (unsigned k = 0; k < 20; k++) {
				uint64_t code[4];

				for (unsigned i = 0; i < 4; i++) {
					x ^= x << 13, x ^= x >> 7, x ^= x << 17;
					code[i] = x;
				}
				run_code((unsigned char *)code, 30);
			}
			_exit(0);
		}
		(void)reap(pid);
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
