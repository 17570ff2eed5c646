/* Guest seccomp: strict mode, filters and their actions, inheritance, synchronisation. */
#include "t.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define RET(value) BPF_STMT(BPF_RET | BPF_K, (value))

static void install_flags(struct sock_filter *f, size_t len, unsigned int flags)
{
	struct sock_fprog prog = {(unsigned short)len, f};

	CHECK_OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	CHECK_OK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &prog));
}

/* `action` for this call, everything else allowed. */
static void filter_call(int nr, uint32_t action, unsigned int flags)
{
	struct sock_filter f[] = {
		LOAD(nr),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)nr, 0, 1),
		RET(action),
		RET(SECCOMP_RET_ALLOW),
	};

	install_flags(f, 4, flags);
}

TEST(errno_action)
{
	filter_call(SYS_getppid, SECCOMP_RET_ERRNO | 77, 0);
	CHECK_ERR(syscall(SYS_getppid), 77);
	CHECK_EQ(syscall(SYS_getpid), getpid());
	CHECK_EQ(prctl(PR_GET_SECCOMP), 2);
	CHECK(strstr(t_read("/proc/self/status"), "Seccomp:\t2\n"));
}

TEST(arguments)
{
	struct sock_filter f[] = {
		LOAD(arch),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
		RET(SECCOMP_RET_KILL_PROCESS),
		LOAD(nr),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_dup, 0, 3),
		LOAD(args[0]),
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 100, 0, 1),
		RET(SECCOMP_RET_ERRNO | EDOM),
		RET(SECCOMP_RET_ALLOW),
	};

	install_flags(f, 9, 0);
	CHECK_OK(dup(0));
	CHECK_ERR(dup(100), EDOM);
	CHECK_ERR(dup(99), EBADF);
}

static void kill_me(void *arg)
{
	setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
	filter_call(SYS_getppid, (uint32_t)(uintptr_t)arg, 0);
	syscall(SYS_getppid);
}

TEST(kill_action)
{
	int status = t_wait_status(t_spawn(kill_me, (void *)(uintptr_t)SECCOMP_RET_KILL_PROCESS));

	CHECK(WIFSIGNALED(status));
	CHECK_EQ(WTERMSIG(status), SIGSYS);
	/* Of a single thread: the same, with one thread. */
	status = t_wait_status(t_spawn(kill_me, (void *)(uintptr_t)SECCOMP_RET_KILL_THREAD));
	CHECK(WIFSIGNALED(status));
	CHECK_EQ(WTERMSIG(status), SIGSYS);
}

static volatile siginfo_t info;

static void on_sys(int sig, siginfo_t *si, void *uc)
{
	(void)sig;
	(void)uc;
	memcpy((void *)&info, si, sizeof(info));
}

TEST(trap_action)
{
	struct sigaction sa = {.sa_sigaction = on_sys, .sa_flags = SA_SIGINFO};

	CHECK_OK(sigaction(SIGSYS, &sa, NULL));
	filter_call(SYS_getppid, SECCOMP_RET_TRAP | 55, 0);
	syscall(SYS_getppid);
	CHECK_EQ(info.si_signo, SIGSYS);
	CHECK_EQ(info.si_code, 1);
	CHECK_EQ(info.si_errno, 55);
	CHECK_EQ(info.si_syscall, SYS_getppid);
	CHECK_EQ(info.si_arch, AUDIT_ARCH_X86_64);
}

/* The strictest of all filters decides; the newest of equals. */
TEST(stacking)
{
	filter_call(SYS_getppid, SECCOMP_RET_ERRNO | 11, 0);
	filter_call(SYS_getppid, SECCOMP_RET_ALLOW, 0);
	CHECK_ERR(syscall(SYS_getppid), 11);
	filter_call(SYS_getppid, SECCOMP_RET_ERRNO | 22, 0);
	CHECK_ERR(syscall(SYS_getppid), 22);
}

TEST(inherited)
{
	pid_t pid;

	filter_call(SYS_getppid, SECCOMP_RET_ERRNO | 33, 0);
	pid = fork();
	if (pid == 0) {
		CHECK_ERR(syscall(SYS_getppid), 33);
		_exit(0);
	}
	t_wait_ok(pid);
}

TEST(bad_programs)
{
	struct sock_filter bad_jump[] = {BPF_JUMP(BPF_JMP | BPF_JA, 5, 0, 0), RET(0)};
	struct sock_filter bad_load[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 2), RET(0)};
	struct sock_filter far_load[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 64), RET(0)};
	struct sock_filter no_ret[] = {LOAD(nr)};
	struct sock_filter *bad[] = {bad_jump, bad_load, far_load, no_ret};
	unsigned short len[] = {2, 2, 2, 1};

	CHECK_OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	for (int i = 0; i < 4; i++) {
		struct sock_fprog prog = {len[i], bad[i]};

		CHECK_ERR(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog), EINVAL);
	}
	CHECK_ERR(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &(struct sock_fprog){0, bad[0]}),
		  EINVAL);
	CHECK_ERR(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, (void *)8), EFAULT);
	CHECK_ERR(syscall(SYS_seccomp, 99, 0, NULL), EINVAL);
	CHECK_OK(syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &(uint32_t){SECCOMP_RET_ERRNO}));
	CHECK_ERR(syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &(uint32_t){0x12340000}),
		  EOPNOTSUPP);
}

TEST(needs_no_new_privs)
{
	struct sock_filter f[] = {RET(SECCOMP_RET_ALLOW)};
	struct sock_fprog prog = {1, f};

	t_become(1000, 1000);
	CHECK_ERR(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog), EACCES);
	CHECK_OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	CHECK_OK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog));
}

static volatile int go;

static void *other(void *arg)
{
	while (!go)
		usleep(1000);
	errno = 0;
	*(int *)arg = (int)syscall(SYS_getppid) == -1 ? errno : 0;
	return NULL;
}

TEST(thread_sync)
{
	pthread_t t;
	int err = -1;

	CHECK_EQ(pthread_create(&t, NULL, other, &err), 0);
	filter_call(SYS_getppid, SECCOMP_RET_ERRNO | 44, SECCOMP_FILTER_FLAG_TSYNC);
	go = 1;
	pthread_join(t, NULL);
	CHECK_EQ(err, 44);
}

TEST(strict_mode)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
		prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
		syscall(SYS_write, 1, "", 0);
		syscall(SYS_exit, 5);
	}
	CHECK_EQ(t_wait_status(pid), 5 << 8);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
		syscall(SYS_getpid);
		syscall(SYS_exit, 5);
	}
	status = t_wait_status(pid);
	CHECK(WIFSIGNALED(status));
	CHECK_EQ(WTERMSIG(status), SIGKILL);
}

/* The vDSO's clocks are no calls, however long nobody asked. */
TEST(clocks_pass)
{
	struct timespec first, ts;

	filter_call(SYS_clock_gettime, SECCOMP_RET_ERRNO | 66, 0);
	CHECK_OK(clock_gettime(CLOCK_MONOTONIC, &first));
	do
		CHECK_OK(clock_gettime(CLOCK_MONOTONIC, &ts));
	while (ts.tv_sec < first.tv_sec + 3);
	CHECK_OK(clock_gettime(CLOCK_REALTIME_COARSE, &ts));
	sleep(2);
	CHECK_OK(clock_gettime(CLOCK_REALTIME, &ts));
	/* Those that are not the vDSO's are. */
	CHECK_ERR(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts), 66);
	CHECK_ERR(syscall(SYS_clock_gettime, CLOCK_REALTIME, &ts), 66);
}

/* A filter cannot make a call skip that was never one: -1 and unknown numbers go through it too. */
TEST(unknown_numbers)
{
	filter_call(5000, SECCOMP_RET_ERRNO | 66, 0);
	CHECK_ERR(syscall(5000), 66);
	CHECK_ERR(syscall(5001), ENOSYS);
}
