/* tests/syscalls/pidfd.c - what a pidfd tells: PIDFD_GET_INFO of the living, of zombies and of those waited for; namespaces. */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/ioctl.h>

#include "mounts.h"

#define GET_INFO(size) _IOC(_IOC_READ | _IOC_WRITE, 0xff, 11, size)
#define GET_NAMESPACE(nr) _IO(0xff, nr)
#define INFO_PID 1u
#define INFO_CREDS 2u
#define INFO_CGROUPID 4u
#define INFO_EXIT 8u
#define INFO_COREDUMP 16u
#define COREDUMP_SKIP 2u
#define COREDUMP_USER 4u

struct info {
	uint64_t mask, cgroupid;
	uint32_t pid, tgid, ppid;
	uint32_t ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid;
	int32_t exit_code;
	uint32_t coredump_mask, coredump_signal;
	uint64_t rest[4];
};

static int open_pid(pid_t pid, unsigned flags)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, flags);

	CHECK(fd >= 0);
	return fd;
}

/* 0, -errno. What is not written stays 0xee. */
static int get(int fd, size_t size, uint64_t mask, struct info *ret)
{
	memset(ret, 0xee, sizeof(*ret));
	ret->mask = mask;
	return ioctl(fd, GET_INFO(size), ret) < 0 ? -errno : 0;
}

/* Kernels before 6.13 have none of it, those before 6.16 only a part. */
static int open_self(void)
{
	int fd = open_pid(getpid(), 0);
	struct info i;

	if (get(fd, 72, INFO_COREDUMP, &i) || !(i.mask & INFO_COREDUMP))
		SKIP("this kernel's pidfds tell less");
	return fd;
}

TEST(info_of_oneself)
{
	int fd = open_self();
	struct info i;

	CHECK_EQ(get(fd, 56, 0, &i), -ENOTTY);
	CHECK_EQ(get(fd, 64, 0, &i), 0);
	CHECK_EQ(i.mask, INFO_PID | INFO_CREDS | INFO_CGROUPID);
	CHECK_EQ(i.pid, getpid());
	CHECK_EQ(i.tgid, getpid());
	CHECK_EQ(i.ppid, getppid());
	CHECK_EQ(i.ruid, getuid());
	CHECK_EQ(i.fsgid, getegid());
	CHECK_EQ(i.exit_code, 0);
	CHECK_EQ(i.coredump_mask, 0xeeeeeeee);
	CHECK_EQ(get(fd, sizeof(i), ~0ull, &i), 0);
	CHECK_EQ(i.mask & 0x1f, INFO_PID | INFO_CREDS | INFO_CGROUPID | INFO_COREDUMP);
	CHECK_EQ(i.coredump_mask, COREDUMP_USER);
	CHECK_EQ(i.rest[3], 0);
	CHECK_ERR(ioctl(fd, _IOC(_IOC_NONE, 0xff, 40, 0), 0), ENOTTY);
	CHECK(prctl(PR_SET_DUMPABLE, 0) == 0);
	CHECK_EQ(get(fd, 72, INFO_COREDUMP, &i), 0);
	CHECK_EQ(i.coredump_mask, COREDUMP_SKIP);
}

TEST(info_of_the_dead)
{
	struct info i;
	pid_t pid;
	int fd;

	(void)open_self();
	pid = fork();
	if (pid == 0)
		_exit(3);
	fd = open_pid(pid, 0);
	CHECK_EQ(waitid(P_PID, (id_t)pid, &(siginfo_t){0}, WEXITED | WNOWAIT), 0);
	/* A zombie is still somebody. */
	CHECK_EQ(get(fd, 72, INFO_EXIT | INFO_COREDUMP, &i), 0);
	CHECK_EQ(i.mask, INFO_PID | INFO_CREDS | INFO_CGROUPID | INFO_COREDUMP);
	CHECK_EQ(i.pid, pid);
	CHECK_EQ(i.ppid, getpid());
	CHECK_EQ(i.coredump_mask, 0);
	CHECK_EQ(waitpid(pid, NULL, 0), pid);
	CHECK_EQ(get(fd, 64, INFO_PID, &i), -ESRCH);
	CHECK_EQ(get(fd, 72, INFO_EXIT | INFO_COREDUMP, &i), 0);
	CHECK_EQ(i.mask, INFO_EXIT | INFO_CGROUPID | INFO_COREDUMP);
	CHECK_EQ(i.exit_code, 3 << 8);
	CHECK_EQ(i.pid, 0);
	CHECK_ERR(ioctl(fd, GET_NAMESPACE(3), 0), ESRCH);
	pid = fork();
	if (pid == 0)
		pause();
	fd = open_pid(pid, 0);
	CHECK(kill(pid, SIGKILL) == 0);
	CHECK_EQ(waitpid(pid, NULL, 0), pid);
	CHECK_EQ(get(fd, 64, INFO_EXIT, &i), 0);
	CHECK_EQ(i.exit_code, SIGKILL);
}

static void *tell_tid(void *arg)
{
	atomic_store((_Atomic pid_t *)arg, (pid_t)syscall(SYS_gettid));
	pause();
	return NULL;
}

TEST(info_of_a_thread)
{
	_Atomic pid_t tid = 0;
	pthread_t thread;
	struct info i;

	(void)open_self();
	CHECK(pthread_create(&thread, NULL, tell_tid, &tid) == 0);
	while (!atomic_load(&tid))
		usleep(1000);
	CHECK_EQ(get(open_pid(tid, O_EXCL), 64, 0, &i), 0);
	CHECK_EQ(i.pid, tid);
	CHECK_EQ(i.tgid, getpid());
}

TEST(cgroup)
{
	int fd = open_self();
	char path[PATH_MAX + 8];
	const char *line, *end;
	struct stat st;
	struct info i;

	own_namespace();
	CHECK_OK(mkdir("m", 0755));
	CHECK_OK(mount("none", "m", "cgroup2", 0, NULL));
	line = line_in("/proc/self/cgroup", "0::");
	CHECK(!strncmp(line, "0::", 3));
	end = strchrnul(line, '\n');
	snprintf(path, sizeof(path), "m%.*s", (int)(end - line - 3), line + 3);
	CHECK_OK(stat(path, &st));
	CHECK_EQ(get(fd, 64, 0, &i), 0);
	CHECK_EQ(i.cgroupid, st.st_ino);
	CHECK_OK(umount("m"));
}

TEST(namespaces)
{
	static const char *const names[] = {NULL,  "cgroup", "ipc",  "mnt",  "net", "pid",
					    "pid", "time",   "time", "user", "uts"};
	int fd = open_self();

	for (unsigned nr = 1; nr <= 10; nr++) {
		int ns = ioctl(fd, GET_NAMESPACE(nr), 0);
		char path[64];
		struct stat own, theirs;

		CHECK(ns >= 0);
		CHECK_EQ(fcntl(ns, F_GETFD), FD_CLOEXEC);
		CHECK(fstat(ns, &theirs) == 0);
		snprintf(path, sizeof(path), "/proc/self/ns/%s", names[nr]);
		CHECK(stat(path, &own) == 0);
		CHECK_EQ(own.st_ino, theirs.st_ino);
		CHECK(close(ns) == 0);
		CHECK_ERR(ioctl(fd, GET_NAMESPACE(nr), 1), EINVAL);
	}
}

TEST(namespaces_of_others)
{
	int fd;

	(void)open_self();
	if (getuid())
		SKIP("not root");
	fd = open_pid(getppid(), 0);
	CHECK(setuid(65534) == 0);
	CHECK_ERR(ioctl(fd, GET_NAMESPACE(3), 0), EACCES);
}
