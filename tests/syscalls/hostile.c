/* tests/syscalls/hostile.c - jumps to where nothing is the program's, its memory, its flags and its segments. See hostile.h. */
#include <sched.h>
#include <ucontext.h>

#include "hostile.h"

#define EFLAGS_TF 0x100ul
#define EFLAGS_DF 0x400ul
#define EFLAGS_AC 0x40000ul

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
