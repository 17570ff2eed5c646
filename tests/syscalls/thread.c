/* Threads: ids, exit, TLS, shared things, tgkill, exit_group, FPU state. */
#include "t.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sched.h>

static __thread int tls = 7;
static atomic_int counter;

static void *add(void *arg)
{
	CHECK_EQ(tls, 7);
	tls = (int)(intptr_t)arg;
	for (int i = 0; i < 1000; i++)
		counter++;
	CHECK_EQ(tls, (intptr_t)arg);
	return (void *)(intptr_t)(tls * 2);
}

TEST(create_join)
{
	pthread_t t[16];
	void *ret;

	for (intptr_t i = 0; i < 16; i++)
		CHECK_EQ(pthread_create(&t[i], NULL, add, (void *)i), 0);
	for (intptr_t i = 0; i < 16; i++) {
		CHECK_EQ(pthread_join(t[i], &ret), 0);
		CHECK_EQ((intptr_t)ret, i * 2);
	}
	CHECK_EQ(counter, 16000);
}

static pthread_barrier_t barrier;
static pid_t tids[500];

static void *keep_tid(void *arg)
{
	tids[(intptr_t)arg] = gettid();
	pthread_barrier_wait(&barrier);
	return NULL;
}

TEST(five_hundred)
{
	static pthread_t t[500];
	pthread_attr_t attr;
	int tasks = 0;
	DIR *dir;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 65536);
	pthread_barrier_init(&barrier, NULL, 501);
	for (intptr_t i = 0; i < 500; i++)
		CHECK_EQ(pthread_create(&t[i], &attr, keep_tid, (void *)i), 0);
	dir = opendir("/proc/self/task");
	while (readdir(dir))
		tasks++;
	closedir(dir);
	CHECK_EQ(tasks, 503);
	pthread_barrier_wait(&barrier);
	for (int i = 0; i < 500; i++)
		pthread_join(t[i], NULL);
	for (int i = 0; i < 500; i++)
		for (int j = 0; j < i; j++)
			CHECK(tids[i] != tids[j]);
}

static void *open_and_chdir(void *arg)
{
	*(int *)arg = open(".", O_RDONLY);
	CHECK_OK(chdir("/"));
	return NULL;
}

TEST(shared_state)
{
	char cwd[64];
	pthread_t t;
	int fd = -1;

	CHECK_EQ(pthread_create(&t, NULL, open_and_chdir, &fd), 0);
	pthread_join(t, NULL);
	CHECK_OK(fcntl(fd, F_GETFD));
	CHECK_STR(getcwd(cwd, sizeof(cwd)), "/");
}

static void *forever(void *arg)
{
	for (;;)
		pause();
	return arg;
}

static void *spin(void *arg)
{
	for (;;)
		(*(volatile long *)arg)++;
	return NULL;
}

TEST(exit_group_ends_all)
{
	static long spins[4];
	pid_t pid = fork();

	if (pid == 0) {
		pthread_t t;

		for (int i = 0; i < 4; i++)
			pthread_create(&t, NULL, i & 1 ? spin : forever, &spins[i]);
		t_sleep_ms(20);
		_exit(11);
	}
	CHECK_EQ(t_wait_status(pid), 11 << 8);
	pid = fork();
	if (pid == 0) {
		pthread_t t;

		for (int i = 0; i < 4; i++)
			pthread_create(&t, NULL, i & 1 ? spin : forever, &spins[i]);
		for (;;)
			pause();
	}
	t_sleep_ms(30);
	CHECK_OK(kill(pid, SIGKILL));
	CHECK_EQ(t_wait_status(pid), SIGKILL);
}

static void *exit_whole(void *arg)
{
	t_sleep_ms(20);
	_exit((int)(intptr_t)arg);
}

/* The leader may go first; the process lives until the last thread ends. */
TEST(leader_exits_first)
{
	pid_t pid = fork();

	if (pid == 0) {
		pthread_t t;

		pthread_create(&t, NULL, exit_whole, (void *)13);
		syscall(SYS_exit, 1);
	}
	CHECK_EQ(t_wait_status(pid), 13 << 8);
}

static volatile sig_atomic_t signalled_tid;

static void on_signal(int sig)
{
	(void)sig;
	signalled_tid = gettid();
}

static void *wait_signalled(void *arg)
{
	*(volatile pid_t *)arg = gettid();
	while (!signalled_tid)
		usleep(1000);
	return NULL;
}

TEST(tgkill)
{
	volatile pid_t tid = 0;
	pthread_t t;

	signal(SIGUSR1, on_signal);
	CHECK_EQ(pthread_create(&t, NULL, wait_signalled, (void *)&tid), 0);
	while (!tid)
		usleep(1000);
	CHECK_OK(syscall(SYS_tgkill, getpid(), tid, SIGUSR1));
	pthread_join(t, NULL);
	CHECK_EQ(signalled_tid, tid);
	/* A thread is joined before its number is free, on Linux too. */
	for (int i = 0; i < 1000 && syscall(SYS_tgkill, getpid(), tid, 0) == 0; i++)
		usleep(1000);
	CHECK_ERR(syscall(SYS_tgkill, getpid(), tid, 0), ESRCH);
	CHECK_ERR(syscall(SYS_tgkill, getppid(), getpid(), 0), ESRCH);
	CHECK_ERR(syscall(SYS_tgkill, -1, getpid(), 0), EINVAL);
	CHECK_OK(syscall(SYS_tkill, gettid(), 0));
}

/* A signal for the process goes to a thread that does not block it. */
TEST(process_signal_finds_unblocked)
{
	volatile pid_t tid = 0;
	sigset_t set;
	pthread_t t;

	signal(SIGUSR2, on_signal);
	CHECK_EQ(pthread_create(&t, NULL, wait_signalled, (void *)&tid), 0);
	while (!tid)
		usleep(1000);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	CHECK_OK(kill(getpid(), SIGUSR2));
	pthread_join(t, NULL);
	CHECK_EQ(signalled_tid, tid);
}

TEST(fork_from_thread_has_one)
{
	static long spins;
	pthread_t t;
	pid_t pid;

	CHECK_EQ(pthread_create(&t, NULL, spin, &spins), 0);
	pid = fork();
	if (pid == 0) {
		int tasks = 0;
		DIR *dir = opendir("/proc/self/task");

		while (readdir(dir))
			tasks++;
		_exit(tasks == 3 ? 0 : 1);
	}
	t_wait_ok(pid);
}

static void *fpu(void *arg)
{
	double x = (intptr_t)arg + 0.5, sum = 0;

	for (int i = 0; i < 20000; i++) {
		double y;

		__asm__ volatile("movq %1, %%xmm5; pause; movq %%xmm5, %0"
				 : "=r"(y)
				 : "r"(x)
				 : "xmm5");
		sum += y;
		if (i % 1000 == 0)
			sched_yield();
	}
	CHECK(sum == 20000 * x);
	return NULL;
}

TEST(fpu_is_per_thread)
{
	pthread_t t[6];

	for (intptr_t i = 0; i < 6; i++)
		CHECK_EQ(pthread_create(&t[i], NULL, fpu, (void *)i), 0);
	for (int i = 0; i < 6; i++)
		pthread_join(t[i], NULL);
}

TEST(fpu_across_fork)
{
	unsigned long in = 0x1122334455667788, out = 0;
	unsigned short cw = 0x0e7f, cw2 = 0;
	pid_t pid;

	__asm__ volatile("fldcw %0" ::"m"(cw));
	__asm__ volatile("movq %2, %%xmm15; syscall; movq %%xmm15, %1"
			 : "=a"(pid), "=r"(out)
			 : "r"(in), "0"((long)SYS_fork)
			 : "rcx", "r11", "xmm15", "memory");
	__asm__ volatile("fnstcw %0" : "=m"(cw2));
	if (pid == 0)
		_exit(out == in && cw2 == cw ? 0 : 1);
	CHECK_EQ(out, in);
	CHECK_EQ(cw2, cw);
	t_wait_ok(pid);
}

static void clobber(int sig)
{
	(void)sig;
	__asm__ volatile("pcmpeqd %%xmm14, %%xmm14; fninit" ::: "xmm14");
}

TEST(fpu_across_signal)
{
	unsigned long in = 0xdeadbeefcafef00d, out = 0;
	long ret;

	signal(SIGUSR1, clobber);
	__asm__ volatile("movq %2, %%xmm14; syscall; movq %%xmm14, %1"
			 : "=a"(ret), "=r"(out)
			 : "r"(in), "0"((long)SYS_kill), "D"((long)getpid()), "S"((long)SIGUSR1)
			 : "rcx", "r11", "xmm14", "memory");
	CHECK_EQ(ret, 0);
	CHECK_EQ(out, in);
}

/* A system call changes rax, rcx and r11 and nothing else. */
TEST(registers_survive)
{
	unsigned long in[10], out[10];
	long ret;

	for (int i = 0; i < 10; i++)
		in[i] = 0x0101010101010101ul * (unsigned long)(i + 1);
	__asm__ volatile("push %%rbp\n"
			 "mov 0(%[in]), %%rbx; mov 8(%[in]), %%rdx; mov 16(%[in]), %%r8; mov "
			 "24(%[in]), %%r9\n"
			 "mov 32(%[in]), %%r10; mov 40(%[in]), %%r12; mov 48(%[in]), %%r13; mov "
			 "56(%[in]), %%rbp\n"
			 "mov %[out], %%r15\n"
			 "mov $39, %%eax; syscall\n"
			 "mov %%rbx, 0(%%r15); mov %%rdx, 8(%%r15); mov %%r8, 16(%%r15); mov %%r9, "
			 "24(%%r15)\n"
			 "mov %%r10, 32(%%r15); mov %%r12, 40(%%r15); mov %%r13, 48(%%r15); mov "
			 "%%rbp, 56(%%r15)\n"
			 "pop %%rbp"
			 : "=&a"(ret)
			 : [in] "D"(in), [out] "S"(out)
			 : "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r15",
			   "memory", "cc");
	CHECK_EQ(ret, getpid());
	for (int i = 0; i < 8; i++)
		CHECK_EQ(in[i], out[i]);
	CHECK_EQ(syscall(99999), -1);
}

TEST(unknown_call)
{
	CHECK_ERR(syscall(99999), ENOSYS);
	CHECK_ERR(syscall(-1), ENOSYS);
	CHECK_ERR(syscall(1000), ENOSYS);
}
