/*
 * bench/platform_guest.c - what bench/platform measures: plain system calls, faults and processes, static, no dependency on Moat.
 *
 * Reads "CASE COUNT" lines from standard input and answers each with "NANOSECONDS\n": the time of one operation, the mean of
 * COUNT. Answers "ready" when it has started, and ends at end of file. The same binary runs in every subject, so the
 * difference is the subject's.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096ul
/* Two faults this far apart are never served by one. */
#define FAULT_STRIDE ((2ul << 20) + PAGE)
#define CLOCK_FIRST_CALLS 1000

static char *self;
static long (*getpid_unpatched)(void);

/* `mov $39,%eax; syscall; ret`: the form that a platform may patch, and where it may. */
long getpid_site(void);
__asm__(".text\n.globl getpid_site\n.type getpid_site,@function\n"
	"getpid_site:\n\tmov $39, %eax\n\tsyscall\n\tret\n"
	".size getpid_site, . - getpid_site\n");

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void die(const char *what)
{
	fprintf(stderr, "platform_guest: %s: %s\n", what, strerror(errno));
	_exit(1);
}

/* ---- one call ---- */

static double bench_getpid(long n)
{
	double begin = now_ns();

	while (n--)
		getpid_site();
	return now_ns() - begin;
}

/* The same instructions in writable memory, which nobody patches. */
static void make_unpatched(void)
{
	static const unsigned char code[] = {0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xc3};
	void *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS,
		       -1, 0);

	if (p == MAP_FAILED)
		die("mmap of code");
	memcpy(p, code, sizeof(code));
	memcpy(&getpid_unpatched, &p, sizeof(p));
}

static double bench_getpid_unpatched(long n)
{
	double begin = now_ns();

	while (n--)
		getpid_unpatched();
	return now_ns() - begin;
}

static double bench_clock(long n)
{
	double begin = now_ns();
	struct timespec t;

	while (n--)
		clock_gettime(CLOCK_MONOTONIC, &t);
	return now_ns() - begin;
}

/* A fresh program's very first calls. */
static int clock_first(void)
{
	double spent = bench_clock(CLOCK_FIRST_CALLS) / CLOCK_FIRST_CALLS;

	return write(1, &spent, sizeof(spent)) != sizeof(spent);
}

static double bench_clock_first(long n)
{
	double sum = 0, one;
	int p[2];

	for (long i = 0; i < n; i++) {
		pid_t pid;

		if (pipe(p))
			die("pipe");
		pid = fork();
		if (pid == 0) {
			dup2(p[1], 1);
			execl(self, self, "--clock", (char *)NULL);
			_exit(127);
		}
		close(p[1]);
		if (pid < 0 || read(p[0], &one, sizeof(one)) != sizeof(one))
			die("clock_first");
		waitpid(pid, NULL, 0);
		close(p[0]);
		sum += one;
	}
	return sum;
}

/* Returns -1 where it cannot be had. */
static double bench_getcpu(long n)
{
	double begin = now_ns();

	while (n--)
		if (sched_getcpu() < 0)
			die("getcpu");
	return now_ns() - begin;
}

static void on_signal(int sig)
{
	(void)sig;
}

static double bench_signal(long n)
{
	double begin;

	signal(SIGUSR1, on_signal);
	begin = now_ns();
	while (n--)
		raise(SIGUSR1);
	return now_ns() - begin;
}

/* ---- memory ---- */

static double bench_fault(long n)
{
	size_t size = (size_t)n * FAULT_STRIDE;
	char *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	double begin, spent;

	if (p == MAP_FAILED)
		die("mmap");
	(void)madvise(p, size, MADV_NOHUGEPAGE);
	begin = now_ns();
	for (long i = 0; i < n; i++)
		p[(size_t)i * FAULT_STRIDE] = 1;
	spent = now_ns() - begin;
	munmap(p, size);
	return spent;
}

static double bench_touch(long n)
{
	size_t size = (size_t)n * PAGE;
	double begin = now_ns();
	char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		die("mmap");
	for (size_t i = 0; i < size; i += PAGE)
		p[i] = 1;
	munmap(p, size);
	return now_ns() - begin;
}

/* ---- switches ---- */

static double bench_pipe(long n)
{
	int a[2], b[2];
	double begin, spent;
	char c = 0;
	pid_t pid;

	if (pipe(a) || pipe(b))
		die("pipe");
	pid = fork();
	if (pid == 0) {
		close(a[1]);
		close(b[0]);
		while (read(a[0], &c, 1) == 1)
			if (write(b[1], &c, 1) != 1)
				break;
		_exit(0);
	}
	close(a[0]);
	close(b[1]);
	if (pid < 0 || write(a[1], &c, 1) != 1 || read(b[0], &c, 1) != 1)
		die("pipe ping-pong");
	begin = now_ns();
	for (long i = 0; i < n; i++)
		if (write(a[1], &c, 1) != 1 || read(b[0], &c, 1) != 1)
			die("pipe ping-pong");
	spent = now_ns() - begin;
	close(a[1]);
	close(b[0]);
	waitpid(pid, NULL, 0);
	return spent;
}

static _Atomic int turn;
static long rounds;

static void futex(int op, int value)
{
	syscall(SYS_futex, &turn, op | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

static void take_turns(int mine)
{
	for (long i = 0; i < rounds; i++) {
		while (atomic_load(&turn) != mine)
			futex(FUTEX_WAIT, !mine);
		atomic_store(&turn, !mine);
		futex(FUTEX_WAKE, 1);
	}
}

static void *other_side(void *arg)
{
	(void)arg;
	take_turns(1);
	return NULL;
}

static double bench_futex(long n)
{
	double begin;
	pthread_t thread;

	rounds = n;
	atomic_store(&turn, 0);
	if (pthread_create(&thread, NULL, other_side, NULL))
		die("pthread_create");
	begin = now_ns();
	take_turns(0);
	pthread_join(thread, NULL);
	return now_ns() - begin;
}

/* ---- tasks ---- */

static void *nothing(void *arg)
{
	return arg;
}

static double bench_thread(long n)
{
	double begin = now_ns();
	pthread_t thread;

	while (n--)
		if (pthread_create(&thread, NULL, nothing, NULL) || pthread_join(thread, NULL))
			die("thread");
	return now_ns() - begin;
}

static double bench_fork(long n)
{
	double begin = now_ns();

	while (n--) {
		pid_t pid = fork();

		if (pid == 0)
			_exit(0);
		if (pid < 0 || waitpid(pid, NULL, 0) != pid)
			die("fork");
	}
	return now_ns() - begin;
}

static double bench_exec(long n)
{
	double begin = now_ns();

	while (n--) {
		pid_t pid = fork();
		int status;

		if (pid == 0) {
			execl(self, self, "--exit", (char *)NULL);
			_exit(127);
		}
		if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
			die("fork+exec");
	}
	return now_ns() - begin;
}

static double bench_spawn(long n)
{
	char *argv[] = {self, (char *)"--exit", NULL}, *envp[] = {NULL};
	double begin = now_ns();

	while (n--) {
		pid_t pid;
		int status;

		if (posix_spawn(&pid, self, NULL, NULL, argv, envp) ||
		    waitpid(pid, &status, 0) != pid || status)
			die("spawn");
	}
	return now_ns() - begin;
}

static const struct {
	const char *name;
	double (*run)(long n);
} cases[] = {
	{"getpid", bench_getpid},
	{"getpid_unpatched", bench_getpid_unpatched},
	{"clock_gettime", bench_clock},
	{"clock_gettime_first", bench_clock_first},
	{"getcpu", bench_getcpu},
	{"minor_fault", bench_fault},
	{"mmap_touch_munmap_page", bench_touch},
	{"pipe_pingpong", bench_pipe},
	{"futex_pingpong", bench_futex},
	{"signal_self", bench_signal},
	{"thread_create_join", bench_thread},
	{"fork_exit_wait", bench_fork},
	{"fork_exec_wait", bench_exec},
	{"spawn_wait", bench_spawn},
};

static void serve(const char *name, long n)
{
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		if (strcmp(cases[i].name, name) != 0)
			continue;
		printf("%.2f\n", cases[i].run(n) / (double)n);
		fflush(stdout);
		return;
	}
	errno = EINVAL;
	die(name);
}

int main(int argc, char **argv)
{
	char name[64];
	long n;

	if (argc > 1 && strcmp(argv[1], "--exit") == 0)
		return 0;
	if (argc > 1 && strcmp(argv[1], "--clock") == 0)
		return clock_first();
	self = argv[0];
	make_unpatched();
	printf("ready\n");
	fflush(stdout);
	while (scanf("%63s %ld", name, &n) == 2)
		serve(name, n > 0 ? n : 1);
	return 0;
}
