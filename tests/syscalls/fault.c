/* Faults as signals: SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP and what their siginfo says; the stack. */
#include "t.h"

#include <pthread.h>
#include <setjmp.h>
#include <ucontext.h>

#define PAGE 4096ul

static sigjmp_buf back;
static volatile siginfo_t seen;
static volatile unsigned long seen_ip, seen_err, seen_trap;

static void on_fault(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	(void)sig;
	memcpy((void *)&seen, info, sizeof(seen));
	seen_ip = (unsigned long)uc->uc_mcontext.gregs[REG_RIP];
	seen_err = (unsigned long)uc->uc_mcontext.gregs[REG_ERR];
	seen_trap = (unsigned long)uc->uc_mcontext.gregs[REG_TRAPNO];
	siglongjmp(back, 1);
}

static void catch_faults(void)
{
	static const int sigs[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
	struct sigaction sa = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};

	for (size_t i = 0; i < sizeof(sigs) / sizeof(sigs[0]); i++)
		CHECK_OK(sigaction(sigs[i], &sa, NULL));
}

/* Runs the statement; true if it faulted. */
#define FAULTS(statement)                     \
	({                                    \
		volatile bool faulted = true; \
		if (!sigsetjmp(back, 1)) {    \
			statement;            \
			faulted = false;      \
		}                             \
		faulted;                      \
	})

TEST(segv_map_error)
{
	volatile char *p = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	catch_faults();
	CHECK_OK(munmap((void *)p, PAGE));
	CHECK(FAULTS((void)p[10]));
	CHECK_EQ(seen.si_signo, SIGSEGV);
	CHECK_EQ(seen.si_code, SEGV_MAPERR);
	CHECK(seen.si_addr == p + 10);
	CHECK_EQ(seen_trap, 14);
	CHECK_EQ(seen_err & 7, 4);
	CHECK(FAULTS(p[20] = 1));
	CHECK(seen.si_addr == p + 20);
	CHECK_EQ(seen_err & 7, 6);
	CHECK(FAULTS(*(volatile int *)NULL = 1));
	CHECK(seen.si_addr == NULL);
	CHECK_EQ(seen.si_code, SEGV_MAPERR);
}

TEST(segv_access_error)
{
	volatile char *p = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	catch_faults();
	CHECK(!FAULTS((void)p[0]));
	CHECK(FAULTS(p[1] = 1));
	CHECK_EQ(seen.si_code, SEGV_ACCERR);
	CHECK(seen.si_addr == p + 1);
	CHECK_OK(mprotect((void *)p, PAGE, PROT_READ | PROT_WRITE));
	CHECK(!FAULTS(p[1] = 7));
	CHECK_OK(mprotect((void *)p, PAGE, PROT_NONE));
	CHECK(FAULTS((void)p[1]));
	CHECK_EQ(seen.si_code, SEGV_ACCERR);
	CHECK_OK(mprotect((void *)p, PAGE, PROT_READ));
	CHECK_EQ(p[1], 7);
	CHECK(FAULTS(p[1] = 1));
}

TEST(segv_not_executable)
{
	unsigned char *p =
		mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	catch_faults();
	p[0] = 0xc3;
	CHECK(FAULTS(((void (*)(void))p)()));
	CHECK_EQ(seen.si_signo, SIGSEGV);
	CHECK_EQ(seen.si_code, SEGV_ACCERR);
	CHECK(seen.si_addr == p);
	CHECK_EQ(seen_ip, (unsigned long)p);
	CHECK_OK(mprotect(p, PAGE, PROT_READ | PROT_EXEC));
	CHECK(!FAULTS(((void (*)(void))p)()));
}

TEST(segv_non_canonical)
{
	catch_faults();
	CHECK(FAULTS((void)*(volatile char *)0x8000000000000000ul));
	CHECK_EQ(seen.si_signo, SIGSEGV);
	CHECK_EQ(seen.si_code, SI_KERNEL);
	CHECK(seen.si_addr == NULL);
	CHECK_EQ(seen_trap, 13);
	CHECK(FAULTS((void)*(volatile char *)0xffffffff81000000ul));
	CHECK_EQ(seen.si_signo, SIGSEGV);
	CHECK(FAULTS(__asm__ volatile("hlt")));
	CHECK_EQ(seen.si_signo, SIGSEGV);
	CHECK(FAULTS(__asm__ volatile("cli")));
	CHECK(FAULTS(__asm__ volatile("outb %%al, $0x80" ::: "memory")));
	CHECK(FAULTS(__asm__ volatile("mov %%cr0, %%rax" ::: "rax")));
	CHECK_EQ(seen.si_signo, SIGSEGV);
}

TEST(bus_past_end)
{
	int fd = t_file("f", "short");
	volatile char *p = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	catch_faults();
	CHECK(!FAULTS((void)p[PAGE - 1]));
	CHECK(FAULTS((void)p[PAGE]));
	CHECK_EQ(seen.si_signo, SIGBUS);
	CHECK_EQ(seen.si_code, BUS_ADRERR);
	CHECK(seen.si_addr == p + PAGE);
	CHECK_OK(ftruncate(fd, 2 * PAGE));
	CHECK(!FAULTS(p[PAGE] = 'x'));
	/* Truncation takes the page away, and it comes back as zeros. */
	CHECK_OK(ftruncate(fd, PAGE));
	CHECK(FAULTS((void)p[PAGE]));
	CHECK_EQ(seen.si_signo, SIGBUS);
	CHECK_OK(ftruncate(fd, 2 * PAGE));
	CHECK_EQ(p[PAGE], 0);
}

TEST(bus_private_after_truncate)
{
	int fd = t_file("f", "");
	volatile char *p;

	CHECK_OK(ftruncate(fd, 2 * PAGE));
	p = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	catch_faults();
	p[PAGE] = 'm';
	CHECK_OK(ftruncate(fd, 0));
	CHECK(FAULTS((void)p[PAGE]));
	CHECK_EQ(seen.si_signo, SIGBUS);
	/* The kernel's own access is an error, not a signal. */
	CHECK_ERR(write(open("g", O_CREAT | O_RDWR, 0600), (void *)p, 1), EFAULT);
}

static int divide(volatile int a, volatile int b)
{
	int result;

	__asm__ volatile("cltd; idivl %2" : "=a"(result) : "a"(a), "r"(b) : "edx");
	return result;
}

TEST(arithmetic)
{
	catch_faults();
	CHECK(FAULTS(divide(1, 0)));
	CHECK_EQ(seen.si_signo, SIGFPE);
	CHECK_EQ(seen.si_code, FPE_INTDIV);
	CHECK_EQ((unsigned long)seen.si_addr, seen_ip);
	CHECK(FAULTS(__asm__ volatile("ud2")));
	CHECK_EQ(seen.si_signo, SIGILL);
	CHECK_EQ(seen.si_code, ILL_ILLOPN);
	CHECK_EQ((unsigned long)seen.si_addr, seen_ip);
	CHECK(FAULTS(__asm__ volatile("int3")));
	CHECK_EQ(seen.si_signo, SIGTRAP);
}

TEST(single_step)
{
	catch_faults();
	/* The trap flag: one instruction, then SIGTRAP. */
	CHECK(FAULTS(__asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq; nop; nop" ::
					      : "memory", "cc")));
	CHECK_EQ(seen.si_signo, SIGTRAP);
	CHECK_EQ(seen.si_code, TRAP_TRACE);
}

TEST(vsyscall_absent_or_served)
{
	volatile long now = 0;
	bool faulted;

	catch_faults();
	faulted = FAULTS(now = ((long (*)(void *))0xffffffffff600400ul)(NULL));
	CHECK(faulted || labs(now - time(NULL)) <= 2);
}

static int deep(int n)
{
	volatile char room[4000];

	room[0] = (char)n;
	return n ? deep(n - 1) + room[0] - (char)n : 0;
}

TEST(stack_grows)
{
	/* About 4 MiB of 8. */
	CHECK_EQ(deep(1000), 0);
}

static void overflow(void *arg)
{
	(void)arg;
	setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
	deep(100000000);
}

TEST(stack_overflow_kills)
{
	int status = t_wait_status(t_spawn(overflow, NULL));

	CHECK(WIFSIGNALED(status));
	CHECK_EQ(WTERMSIG(status), SIGSEGV);
}

TEST(stack_overflow_on_altstack)
{
	stack_t ss = {.ss_sp = malloc(65536), .ss_size = 65536};
	struct sigaction sa = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};

	CHECK_OK(setrlimit(RLIMIT_STACK, &(struct rlimit){1 << 20, 1 << 20}));
	CHECK_OK(sigaltstack(&ss, NULL));
	CHECK_OK(sigaction(SIGSEGV, &sa, NULL));
	CHECK(FAULTS(deep(1000000)));
	CHECK_EQ(seen.si_signo, SIGSEGV);
	/* The handler has left the alternative stack. */
	CHECK_OK(sigaltstack(NULL, &ss));
	CHECK_EQ(ss.ss_flags, 0);
}

TEST(default_kills)
{
	static const struct {
		int sig;
		bool core;
	} cases[] = {{SIGSEGV, true},
		     {SIGABRT, true},
		     {SIGTERM, false},
		     {SIGKILL, false},
		     {SIGUSR1, false}};

	for (size_t i = 0; i < 5; i++) {
		pid_t pid = fork();
		int status;

		if (pid == 0) {
			setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
			raise(cases[i].sig);
			_exit(0);
		}
		status = t_wait_status(pid);
		CHECK(WIFSIGNALED(status));
		CHECK_EQ(WTERMSIG(status), cases[i].sig);
	}
}

/* A blocked or ignored fault kills: it cannot be put off. */
static void blocked_fault(void *arg)
{
	sigset_t set;

	setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
	if (arg) {
		signal(SIGSEGV, SIG_IGN);
	} else {
		catch_faults();
		sigemptyset(&set);
		sigaddset(&set, SIGSEGV);
		sigprocmask(SIG_BLOCK, &set, NULL);
	}
	*(volatile int *)16 = 1;
}

TEST(forced_fault_kills)
{
	for (long i = 0; i < 2; i++) {
		int status = t_wait_status(t_spawn(blocked_fault, (void *)i));

		CHECK(WIFSIGNALED(status));
		CHECK_EQ(WTERMSIG(status), SIGSEGV);
	}
}

static volatile int *shared_word;

static void on_fix(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	mprotect((void *)((unsigned long)info->si_addr & ~(PAGE - 1)), PAGE,
		 PROT_READ | PROT_WRITE);
}

/* Returning from the handler runs the instruction again. */
TEST(handler_repairs)
{
	struct sigaction sa = {.sa_sigaction = on_fix, .sa_flags = SA_SIGINFO};
	char *p = mmap(NULL, 64 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK_OK(sigaction(SIGSEGV, &sa, NULL));
	for (int i = 0; i < 64; i++)
		p[i * PAGE] = (char)i;
	for (int i = 0; i < 64; i++)
		CHECK_EQ(p[i * PAGE], i);
	shared_word = (int *)p;
}

static void *fault_in_thread(void *arg)
{
	volatile char *p = arg;

	for (int round = 0; round < 50; round++)
		for (int i = 0; i < 64; i++)
			p[i * PAGE]++;
	return NULL;
}

TEST(threads_fault_together)
{
	char *p = mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pthread_t t[4];

	for (int i = 0; i < 4; i++)
		CHECK_EQ(pthread_create(&t[i], NULL, fault_in_thread, p + i), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	for (int i = 0; i < 64; i++)
		for (int j = 0; j < 4; j++)
			CHECK_EQ(p[i * PAGE + j], 50);
}
