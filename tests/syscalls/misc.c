/* What a process asks of the system and of itself: uname, sysinfo, limits, prctl, scheduling, random. */
#include "t.h"

#include <asm/prctl.h>
#include <linux/random.h>
#include <sched.h>
#include <sys/auxv.h>
#include <sys/personality.h>
#include <sys/random.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>

TEST(uname)
{
	struct utsname u;

	CHECK_OK(uname(&u));
	CHECK_STR(u.sysname, "Linux");
	CHECK_STR(u.machine, "x86_64");
	CHECK(u.release[0] >= '5' && u.release[0] <= '9');
	CHECK(u.nodename[0] && u.version[0]);
	CHECK_ERR(syscall(SYS_uname, (void *)8), EFAULT);
}

TEST(hostname)
{
	struct utsname u;
	char long_name[80];

	if (unshare(CLONE_NEWUTS) < 0)
		SKIP("no UTS namespaces");
	CHECK_OK(sethostname("changed", 7));
	CHECK_OK(uname(&u));
	CHECK_STR(u.nodename, "changed");
	CHECK_OK(setdomainname("dom", 3));
	CHECK_OK(uname(&u));
	CHECK_STR(u.domainname, "dom");
	memset(long_name, 'a', sizeof(long_name));
	CHECK_ERR(sethostname(long_name, 65), EINVAL);
	CHECK_ERR(sethostname(long_name, -1), EINVAL);
	t_become(1000, 1000);
	CHECK_ERR(sethostname("no", 2), EPERM);
}

TEST(sysinfo)
{
	struct sysinfo s;

	CHECK_OK(sysinfo(&s));
	CHECK(s.totalram * s.mem_unit > 16 << 20);
	CHECK(s.freeram <= s.totalram);
	CHECK(s.procs >= 1);
	CHECK(s.uptime >= 0);
}

/* sysinfo's averages are /proc/loadavg's. */
TEST(load_averages)
{
	struct sysinfo si;
	float shown;

	/* Some load, lest both say nothing. */
	for (int64_t end = t_now_ms() + 50; t_now_ms() < end;)
		;
	CHECK_EQ(sscanf(t_read("/proc/loadavg"), "%f", &shown), 1);
	CHECK_OK(sysinfo(&si));
	float got = (float)si.loads[0] / 65536;
	CHECK(got > shown - 0.5f - shown / 2 && got < shown + 0.5f + shown / 2);
	CHECK(si.loads[0] || shown < 0.2f);
}

static long kcmp(pid_t x, pid_t y, int type)
{
	return syscall(SYS_kcmp, x, y, type, 0, 0);
}

TEST(kcmp_kinds)
{
	enum {
		KCMP_FILE_,
		KCMP_VM_,
		KCMP_FILES_,
		KCMP_FS_,
		KCMP_SIGHAND_,
		KCMP_IO_,
		KCMP_SYSVSEM_
	};
	pid_t me = getpid(), pid;

	if (kcmp(me, me, KCMP_VM_) < 0 && errno == ENOSYS)
		SKIP("no kcmp here");
	for (int type = KCMP_VM_; type <= KCMP_SYSVSEM_; type++)
		CHECK_EQ(kcmp(me, me, type), 0);
	CHECK_ERR(kcmp(me, me, KCMP_SYSVSEM_ + 5), EINVAL);
	pid = fork();
	if (pid == 0)
		for (;;)
			pause();
	CHECK(kcmp(me, pid, KCMP_VM_) > 0);
	CHECK(kcmp(me, pid, KCMP_FILES_) > 0);
	CHECK(kcmp(me, pid, KCMP_FS_) > 0);
	/* Neither has any. */
	CHECK_EQ(kcmp(me, pid, KCMP_SYSVSEM_), 0);
	CHECK_EQ(kcmp(me, pid, KCMP_IO_), 0);
	CHECK_OK(kill(pid, SIGKILL));
	CHECK_EQ(t_wait_status(pid), SIGKILL);
}

TEST(getrandom)
{
	unsigned char a[64], b[64];

	memset(a, 0, sizeof(a));
	memset(b, 0, sizeof(b));
	CHECK_EQ(getrandom(a, 64, 0), 64);
	CHECK_EQ(getrandom(b, 64, GRND_NONBLOCK), 64);
	CHECK(memcmp(a, b, 64));
	CHECK_EQ(getrandom(a, 0, 0), 0);
	CHECK_ERR(getrandom(a, 4, 0x80), EINVAL);
	CHECK_ERR(getrandom((void *)8, 4, 0), EFAULT);
	CHECK_EQ(getrandom(a, 16, GRND_RANDOM), 16);
}

TEST(rlimits)
{
	struct rlimit lim, got;
	struct rlimit64 old;

	CHECK_OK(getrlimit(RLIMIT_NOFILE, &lim));
	CHECK(lim.rlim_cur <= lim.rlim_max);
	lim = (struct rlimit){100, 200};
	CHECK_OK(setrlimit(RLIMIT_NOFILE, &lim));
	CHECK_OK(getrlimit(RLIMIT_NOFILE, &got));
	CHECK_EQ(got.rlim_cur, 100);
	CHECK_EQ(got.rlim_max, 200);
	CHECK_ERR(setrlimit(RLIMIT_NOFILE, &(struct rlimit){300, 200}), EINVAL);
	CHECK_ERR(getrlimit(99, &got), EINVAL);
	CHECK_OK(prlimit64(0, RLIMIT_NOFILE, &(struct rlimit64){50, 200}, &old));
	CHECK_EQ(old.rlim_cur, 100);
	CHECK_ERR(prlimit64(0x7fffff, RLIMIT_NOFILE, NULL, &old), ESRCH);
	CHECK_OK(getrlimit(RLIMIT_STACK, &got));
	CHECK_OK(getrlimit(RLIMIT_CORE, &got));
	t_become(1000, 1000);
	CHECK_ERR(setrlimit(RLIMIT_NOFILE, &(struct rlimit){50, 201}), EPERM);
	CHECK_OK(setrlimit(RLIMIT_NOFILE, &(struct rlimit){150, 150}));
	if (fork() == 0) {
		CHECK_OK(getrlimit(RLIMIT_NOFILE, &got));
		_exit(got.rlim_max == 150 ? 0 : 1);
	}
	int status;
	CHECK(wait(&status) > 0);
	CHECK_EQ(status, 0);
}

TEST(cpu_limit)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
		CHECK_OK(setrlimit(RLIMIT_CPU, &(struct rlimit){1, 3}));
		for (;;)
			;
	}
	status = t_wait_status(pid);
	CHECK(WIFSIGNALED(status));
	CHECK_EQ(WTERMSIG(status), SIGXCPU);
}

TEST(names)
{
	char name[32] = "";

	CHECK_OK(prctl(PR_SET_NAME, "a-name-longer-than-fifteen"));
	CHECK_OK(prctl(PR_GET_NAME, name));
	CHECK_STR(name, "a-name-longer-t");
	CHECK_STR(t_read("/proc/self/comm"), "a-name-longer-t\n");
	CHECK_ERR(prctl(9999), EINVAL);
}

TEST(prctl_others)
{
	int v = -1;

	CHECK_OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
	CHECK_OK(prctl(PR_GET_CHILD_SUBREAPER, &v));
	CHECK_EQ(v, 1);
	CHECK_OK(prctl(PR_SET_PDEATHSIG, SIGUSR1));
	CHECK_OK(prctl(PR_GET_PDEATHSIG, &v));
	CHECK_EQ(v, SIGUSR1);
	CHECK_ERR(prctl(PR_SET_PDEATHSIG, 100), EINVAL);
	CHECK_OK(prctl(PR_SET_TIMERSLACK, 12345));
	CHECK_EQ(prctl(PR_GET_TIMERSLACK), 12345);
	/* A child's default is what its parent had. */
	pid_t pid = fork();
	if (pid == 0) {
		CHECK_OK(prctl(PR_SET_TIMERSLACK, 777));
		CHECK_OK(prctl(PR_SET_TIMERSLACK, 0));
		CHECK_EQ(prctl(PR_GET_TIMERSLACK), 12345);
		_exit(0);
	}
	t_wait_ok(pid);
	CHECK_EQ(prctl(PR_GET_SECCOMP), 0);
	CHECK_OK(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	CHECK_EQ(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), 1);
}

TEST(arch_prctl)
{
	unsigned long fs, gs, word[4] = {0x1234};
	unsigned long seen;

	CHECK_OK(syscall(SYS_arch_prctl, ARCH_GET_FS, &fs));
	CHECK(fs != 0);
	CHECK_OK(syscall(SYS_arch_prctl, ARCH_SET_GS, word));
	CHECK_OK(syscall(SYS_arch_prctl, ARCH_GET_GS, &gs));
	CHECK_EQ(gs, (unsigned long)word);
	__asm__ volatile("movq %%gs:0, %0" : "=r"(seen));
	CHECK_EQ(seen, 0x1234);
	/* Kept over calls, a fork and a reschedule. */
	for (int i = 0; i < 50; i++)
		sched_yield();
	if (fork() == 0) {
		__asm__ volatile("movq %%gs:0, %0" : "=r"(seen));
		_exit(seen == 0x1234 ? 0 : 1);
	}
	int status;
	CHECK(wait(&status) > 0);
	CHECK_EQ(status, 0);
	CHECK_ERR(syscall(SYS_arch_prctl, ARCH_SET_FS, 0xffff800000000000ul), EPERM);
	CHECK_ERR(syscall(SYS_arch_prctl, 0x9999, 0), EINVAL);
}

TEST(scheduling)
{
	struct sched_param p = {0};
	struct timespec ts;
	cpu_set_t set, one;
	unsigned int cpu = 999, node = 999;

	CHECK_EQ(sched_getscheduler(0), SCHED_OTHER);
	CHECK_OK(sched_getparam(0, &p));
	CHECK_EQ(p.sched_priority, 0);
	CHECK_EQ(sched_get_priority_max(SCHED_FIFO), 99);
	CHECK_EQ(sched_get_priority_min(SCHED_RR), 1);
	CHECK_EQ(sched_get_priority_max(SCHED_OTHER), 0);
	CHECK_ERR(sched_get_priority_max(77), EINVAL);
	CHECK_OK(sched_setscheduler(0, SCHED_BATCH, &p));
	CHECK_EQ(sched_getscheduler(0), SCHED_BATCH);
	CHECK_ERR(sched_getscheduler(0x7fffff), ESRCH);
	CHECK_OK(sched_rr_get_interval(0, &ts));
	CHECK_OK(sched_getaffinity(0, sizeof(set), &set));
	CHECK(CPU_COUNT(&set) >= 1);
	CPU_ZERO(&one);
	for (int i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET(i, &set)) {
			CPU_SET(i, &one);
			break;
		}
	CHECK_OK(sched_setaffinity(0, sizeof(one), &one));
	CHECK_OK(sched_getaffinity(0, sizeof(set), &set));
	CHECK_EQ(CPU_COUNT(&set), 1);
	CPU_ZERO(&one);
	CHECK_ERR(sched_setaffinity(0, sizeof(one), &one), EINVAL);
	CHECK_OK(syscall(SYS_getcpu, &cpu, &node, NULL));
	CHECK(cpu < 4096);
	CHECK_OK(sched_yield());
}

TEST(nice)
{
	int start = getpriority(PRIO_PROCESS, 0);

	CHECK_OK(setpriority(PRIO_PROCESS, 0, start + 3));
	CHECK_EQ(getpriority(PRIO_PROCESS, 0), start + 3);
	errno = 0;
	CHECK_EQ(nice(2), start + 5);
	CHECK_ERR(getpriority(99, 0), EINVAL);
	CHECK_ERR(getpriority(PRIO_PROCESS, 0x7fffff), ESRCH);
}

#define IOPRIO(class, level) ((class) << 13 | (level))

static long ioprio(int call, int which, int who, int prio)
{
	return syscall(call, which, who, prio);
}

TEST(io_priorities)
{
	int status;
	pid_t pid;

	pid = fork();
	if (pid == 0) {
		setpgid(0, 0);
		CHECK_OK(setpriority(PRIO_PROCESS, 0, 5));
		CHECK_EQ(ioprio(SYS_ioprio_get, 1, 0, 0), 0);
		CHECK_EQ(ioprio(SYS_ioprio_get, 2, 0, 0), IOPRIO(2, 5));
		CHECK_OK(ioprio(SYS_ioprio_set, 1, 0, IOPRIO(2, 7)));
		CHECK_EQ(ioprio(SYS_ioprio_get, 1, 0, 0), IOPRIO(2, 7));
		CHECK_OK(ioprio(SYS_ioprio_set, 1, getpid(), IOPRIO(3, 0)));
		CHECK_EQ(ioprio(SYS_ioprio_get, 1, getpid(), 0), IOPRIO(3, 0));
		pid = fork();
		if (pid == 0) {
			CHECK_EQ(ioprio(SYS_ioprio_get, 1, 0, 0), IOPRIO(3, 0));
			CHECK_OK(ioprio(SYS_ioprio_set, 1, 0, IOPRIO(1, 2)));
			CHECK_EQ(ioprio(SYS_ioprio_get, 2, 0, 0), IOPRIO(1, 2));
			_exit(0);
		}
		t_wait_ok(pid);
		CHECK_OK(ioprio(SYS_ioprio_set, 2, 0, IOPRIO(2, 1)));
		CHECK_EQ(ioprio(SYS_ioprio_get, 1, 0, 0), IOPRIO(2, 1));
		CHECK_ERR(ioprio(SYS_ioprio_set, 1, 0, IOPRIO(0, 1)), EINVAL);
		CHECK_ERR(ioprio(SYS_ioprio_set, 1, 0, IOPRIO(4, 0)), EINVAL);
		CHECK_ERR(ioprio(SYS_ioprio_set, 4, 0, IOPRIO(2, 0)), EINVAL);
		CHECK_ERR(ioprio(SYS_ioprio_set, 1, 0x7fffff, IOPRIO(2, 0)), ESRCH);
		CHECK_ERR(ioprio(SYS_ioprio_get, 0, 0, 0), EINVAL);
		CHECK_ERR(ioprio(SYS_ioprio_get, 1, 0x7fffff, 0), ESRCH);
		CHECK_OK(setuid(65534));
		CHECK_ERR(ioprio(SYS_ioprio_set, 1, 0, IOPRIO(1, 0)), EPERM);
		CHECK_ERR(ioprio(SYS_ioprio_set, 1, getppid(), IOPRIO(2, 0)), EPERM);
		_exit(0);
	}
	status = t_wait_status(pid);
	CHECK_EQ(status, 0);
}

TEST(rusage_and_ids)
{
	struct rusage ru;
	char *p;

	CHECK_OK(getrusage(RUSAGE_SELF, &ru));
	CHECK(ru.ru_maxrss > 0);
	p = malloc(8 << 20);
	memset(p, 1, 8 << 20);
	CHECK_OK(getrusage(RUSAGE_THREAD, &ru));
	CHECK_ERR(getrusage(55, &ru), EINVAL);
	CHECK_EQ(gettid(), getpid());
	CHECK(getppid() > 0);
	CHECK_EQ(syscall(SYS_getpid), getpid());
	free(p);
}

TEST(personality)
{
	CHECK_EQ(personality(0xffffffff), 0);
	CHECK_EQ(personality(ADDR_NO_RANDOMIZE), 0);
	CHECK_EQ(personality(0xffffffff), ADDR_NO_RANDOMIZE);
}

TEST(membarrier)
{
	long supported = syscall(SYS_membarrier, 0, 0, 0);

	if (supported < 0 && errno == ENOSYS)
		SKIP("there is no membarrier");
	CHECK(supported > 0);
	CHECK_OK(syscall(SYS_membarrier, 1 << 4, 0, 0));
	CHECK_OK(syscall(SYS_membarrier, 1 << 3, 0, 0));
	CHECK_ERR(syscall(SYS_membarrier, 1 << 30, 0, 0), EINVAL);
}

/* The size glibc reserves for the FPU state is what the CPU writes. */
TEST(xsave_size)
{
	unsigned int a, b, c, d, lo, hi;

	__asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "0"(1), "2"(0));
	if (!(c & (1u << 27)))
		SKIP("no XSAVE");
	__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	__asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "0"(0xd), "2"(0));
	/* Every enabled component fits into the size that the leaf reports. */
	CHECK_EQ(lo & ~a, 0);
	CHECK(b >= 576 && b <= c);
	unsigned char *area = aligned_alloc(64, 65536);
	memset(area, 0xa5, 65536);
	memset(area + 512, 0, 64);
	__asm__ volatile("xsave (%0)" ::"r"(area), "a"(-1), "d"(-1) : "memory");
	for (unsigned int i = b; i < 65536; i++)
		CHECK_EQ(area[i], 0xa5);
}

TEST(syslog)
{
	static char buf[65536];
	long n = syscall(SYS_syslog, 10, NULL, 0);

	if (n < 0)
		SKIP("syslog(2) is not allowed here");
	CHECK(n > 0);
	CHECK(syscall(SYS_syslog, 3, buf, sizeof(buf)) >= 0);
	CHECK_ERR(syscall(SYS_syslog, 99, buf, 5), EINVAL);
}

/* Of the class three bits count, and what is kept is a short. */
TEST(ioprio_high_bits)
{
	CHECK_OK(ioprio(SYS_ioprio_set, 1, 0, IOPRIO(8 + 2, 3)));
	CHECK_EQ(ioprio(SYS_ioprio_get, 1, 0, 0), IOPRIO(2, 3));
	CHECK_ERR(ioprio(SYS_ioprio_set, 1, 0, IOPRIO(8 + 4, 3)), EINVAL);
}
