/* tests/syscalls/sched_cpu.c - CPUs: affinity is where threads run, getcpu says where that is. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "t.h"

static unsigned current_cpu(void)
{
	unsigned cpu = ~0u, node = ~0u;

	CHECK(syscall(SYS_getcpu, &cpu, &node, NULL) == 0);
	return cpu;
}

static int pin(pid_t tid, int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return sched_setaffinity(tid, sizeof(set), &set);
}

TEST(getcpu_is_one_of_mine)
{
	cpu_set_t all;

	CHECK(sched_getaffinity(0, sizeof(all), &all) == 0);
	for (int i = 0; i < 100; i++)
		CHECK(CPU_ISSET(current_cpu(), &all));
	CHECK(syscall(SYS_getcpu, (void *)8, NULL, NULL) == -1 && errno == EFAULT);
	CHECK(syscall(SYS_getcpu, NULL, NULL, NULL) == 0);
}

TEST(pinned_thread_stays)
{
	cpu_set_t all, now;

	CHECK(sched_getaffinity(0, sizeof(all), &all) == 0);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &all))
			continue;
		CHECK(pin(0, cpu) == 0);
		CHECK(sched_getaffinity(0, sizeof(now), &now) == 0);
		CHECK(CPU_COUNT(&now) == 1 && CPU_ISSET(cpu, &now));
		for (int i = 0; i < 50; i++) {
			CHECK(current_cpu() == (unsigned)cpu);
			if (i % 10 == 0)
				usleep(100);
		}
		CHECK(sched_getcpu() == cpu);
	}
}

TEST(child_inherits)
{
	cpu_set_t all, now;
	int last = -1;

	CHECK(sched_getaffinity(0, sizeof(all), &all) == 0);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &all))
			last = cpu;
	CHECK(pin(0, last) == 0);
	for (int i = 0; i < 10; i++) {
		pid_t pid = fork();

		if (pid == 0) {
			CHECK(sched_getaffinity(0, sizeof(now), &now) == 0);
			CHECK(CPU_COUNT(&now) == 1 && CPU_ISSET(last, &now));
			for (int k = 0; k < 10; k++)
				CHECK(current_cpu() == (unsigned)last);
			_exit(0);
		}
		t_wait_ok(pid);
	}
	/* A new thread of a task with all CPUs is not held where a dead one was pinned. */
	CHECK(sched_setaffinity(0, sizeof(all), &all) == 0);
	CHECK(sched_getaffinity(0, sizeof(now), &now) == 0);
	CHECK(CPU_EQUAL(&now, &all));
}

static _Atomic int victim_tid, victim_cpu, stop;

static void *victim(void *arg)
{
	atomic_store(&victim_tid, (int)syscall(SYS_gettid));
	while (!atomic_load(&stop))
		atomic_store(&victim_cpu, (int)current_cpu());
	return arg;
}

TEST(another_thread_moves)
{
	pthread_t thread;
	cpu_set_t all;

	CHECK(sched_getaffinity(0, sizeof(all), &all) == 0);
	CHECK(pthread_create(&thread, NULL, victim, NULL) == 0);
	while (!atomic_load(&victim_tid))
		sched_yield();
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &all))
			continue;
		CHECK(pin(atomic_load(&victim_tid), cpu) == 0);
		/* It may not have run since; once it was there it stays. */
		for (int i = 0; i < 20000 && atomic_load(&victim_cpu) != cpu; i++)
			usleep(500);
		for (int i = 0; i < 20; i++) {
			CHECK(atomic_load(&victim_cpu) == cpu);
			usleep(500);
		}
	}
	atomic_store(&stop, 1);
	pthread_join(thread, NULL);
	/* A thread is joined before its number is free, on Linux too. */
	for (int i = 0; i < 1000 && pin(atomic_load(&victim_tid), 0) == 0; i++)
		usleep(1000);
	CHECK(pin(atomic_load(&victim_tid), 0) == -1 && errno == ESRCH);
}

TEST(bad_masks)
{
	unsigned long none = 0;
	cpu_set_t set;

	CHECK(syscall(SYS_sched_setaffinity, 0, sizeof(none), &none) == -1 && errno == EINVAL);
	CHECK(syscall(SYS_sched_setaffinity, 0, sizeof(none), (void *)8) == -1 && errno == EFAULT);
	CHECK(pin(0x3ffffff, 0) == -1 && errno == ESRCH);
	CHECK(syscall(SYS_sched_getaffinity, 0, 3, &set) == -1 && errno == EINVAL);
}

/* ---- signals that a call sends to its caller ---- */

static siginfo_t got;

static void on_info(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	got = *info;
}

TEST(sigpipe_is_from_oneself)
{
	struct sigaction sa = {.sa_sigaction = on_info, .sa_flags = SA_SIGINFO};
	int p[2];

	CHECK(sigaction(SIGPIPE, &sa, NULL) == 0);
	CHECK(pipe(p) == 0);
	close(p[0]);
	CHECK(write(p[1], "x", 1) == -1 && errno == EPIPE);
	CHECK(got.si_signo == SIGPIPE && got.si_code == SI_USER);
	CHECK(got.si_pid == getpid() && got.si_uid == getuid());
}

TEST(sigxfsz_is_from_oneself)
{
	struct sigaction sa = {.sa_sigaction = on_info, .sa_flags = SA_SIGINFO};
	struct rlimit limit = {.rlim_cur = 10, .rlim_max = 10};
	int fd = open("file", O_CREAT | O_RDWR, 0600);

	CHECK(fd >= 0 && sigaction(SIGXFSZ, &sa, NULL) == 0);
	CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
	CHECK(pwrite(fd, "x", 1, 10) == -1 && errno == EFBIG);
	CHECK(got.si_signo == SIGXFSZ && got.si_code == SI_USER && got.si_pid == getpid());
	memset(&got, 0, sizeof(got));
	CHECK(ftruncate(fd, 11) == -1 && errno == EFBIG);
	CHECK(got.si_signo == SIGXFSZ && got.si_code == SI_USER && got.si_pid == getpid());
}

/* ---- the stack's limit ---- */

static char deep(size_t bytes)
{
	volatile char page[4096];

	page[0] = (char)bytes;
	if (bytes > sizeof(page))
		page[1] = deep(bytes - sizeof(page));
	return page[0] + page[1];
}

static int run_deep(size_t limit, size_t use)
{
	struct rlimit rl;
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		getrlimit(RLIMIT_STACK, &rl);
		rl.rlim_cur = limit;
		if (setrlimit(RLIMIT_STACK, &rl))
			_exit(3);
		deep(use);
		_exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	return status;
}

TEST(stack_limit_takes_effect_at_once)
{
	int status = run_deep(1 << 20, 4 << 20);

	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
	CHECK(run_deep(16 << 20, 4 << 20) == 0);
	/* More than it was when the program began. */
	CHECK(run_deep(16 << 20, 12 << 20) == 0);
}
