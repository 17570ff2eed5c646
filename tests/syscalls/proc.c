/* /proc: what programs read there. */
#include "t.h"

#include <linux/capability.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/statfs.h>

static const char *field(const char *text, const char *name)
{
	static char value[256];
	const char *p = strstr(text, name);

	if (!p)
		return "";
	p += strlen(name);
	while (*p == ':' || *p == ' ' || *p == '\t')
		p++;
	snprintf(value, sizeof(value), "%.*s", (int)strcspn(p, "\n"), p);
	return value;
}

TEST(self)
{
	char buf[64] = "", want[64];

	CHECK(readlink("/proc/self", buf, sizeof(buf) - 1) > 0);
	snprintf(want, sizeof(want), "%d", getpid());
	CHECK_STR(buf, want);
	memset(buf, 0, sizeof(buf));
	CHECK(readlink("/proc/thread-self", buf, sizeof(buf) - 1) > 0);
	snprintf(want, sizeof(want), "%d/task/%d", getpid(), gettid());
	CHECK_STR(buf, want);
}

TEST(stat)
{
	int pid, ppid, pgrp, session;
	char state, comm[64];

	CHECK_OK(prctl(PR_SET_NAME, "odd ) name"));
	CHECK_EQ(sscanf(t_read("/proc/self/stat"), "%d (%10c) %c %d %d %d", &pid, comm, &state,
			&ppid, &pgrp, &session),
		 6);
	CHECK_EQ(pid, getpid());
	CHECK_EQ(ppid, getppid());
	CHECK_EQ(pgrp, getpgrp());
	CHECK_EQ(session, getsid(0));
	CHECK_EQ(state, 'R');
	CHECK(!memcmp(comm, "odd ) name", 10));
}

TEST(status)
{
	char text[8192], want[32];

	snprintf(text, sizeof(text), "%s", t_read("/proc/self/status"));
	snprintf(want, sizeof(want), "%d", getpid());
	CHECK_STR(field(text, "\nPid"), want);
	CHECK_STR(field(text, "\nTgid"), want);
	snprintf(want, sizeof(want), "%d", getppid());
	CHECK_STR(field(text, "\nPPid"), want);
	CHECK_STR(field(text, "\nThreads"), "1");
	CHECK(strstr(field(text, "\nVmRSS"), "kB"));
	CHECK(strstr(field(text, "\nVmSize"), "kB"));
	CHECK(field(text, "\nState")[0] == 'R');
	CHECK(strlen(field(text, "\nSigBlk")) == 16);
}

TEST(cmdline_and_exe)
{
	char exe[PATH_MAX] = "", via[PATH_MAX] = "";
	struct stat a, b;

	CHECK(!strcmp(t_read("/proc/self/cmdline"), t_argv[0]));
	CHECK(readlink("/proc/self/exe", exe, sizeof(exe) - 1) > 0);
	CHECK_EQ(exe[0], '/');
	CHECK_OK(stat(exe, &a));
	CHECK_OK(stat("/proc/self/exe", &b));
	CHECK_EQ(a.st_ino, b.st_ino);
	(void)via;
}

TEST(cwd_and_root)
{
	char cwd[PATH_MAX], link[PATH_MAX] = "";

	CHECK(getcwd(cwd, sizeof(cwd)));
	CHECK(readlink("/proc/self/cwd", link, sizeof(link) - 1) > 0);
	CHECK_STR(link, cwd);
	memset(link, 0, sizeof(link));
	CHECK(readlink("/proc/self/root", link, sizeof(link) - 1) > 0);
	CHECK_STR(link, "/");
	close(t_file("f", "through"));
	CHECK_STR(t_read("/proc/self/cwd/f"), "through");
	CHECK_OK(mkdir("gone", 0755));
	CHECK_OK(chdir("gone"));
	CHECK_OK(rmdir("../gone"));
	memset(link, 0, sizeof(link));
	CHECK(readlink("/proc/self/cwd", link, sizeof(link) - 1) > 0);
	CHECK(strstr(link, "/gone (deleted)"));
}

TEST(fd)
{
	char path[64], link[PATH_MAX] = "", cwd[PATH_MAX], want[PATH_MAX + 8], buf[8] = "";
	int fd = t_file("f", "hello"), p[2], count = 0, again;
	struct dirent *e;
	DIR *dir;

	CHECK(getcwd(cwd, sizeof(cwd)));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	CHECK(readlink(path, link, sizeof(link) - 1) > 0);
	snprintf(want, sizeof(want), "%s/f", cwd);
	CHECK_STR(link, want);
	CHECK_OK(unlink("f"));
	memset(link, 0, sizeof(link));
	CHECK(readlink(path, link, sizeof(link) - 1) > 0);
	CHECK(strstr(link, " (deleted)"));
	/* Opening it opens the file anew, removed or not. */
	again = open(path, O_RDONLY);
	CHECK(again >= 0);
	CHECK_EQ(read(again, buf, 8), 5);
	CHECK_EQ(lseek(fd, 0, SEEK_CUR), 0);
	CHECK_OK(pipe(p));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", p[0]);
	memset(link, 0, sizeof(link));
	CHECK(readlink(path, link, sizeof(link) - 1) > 0);
	CHECK(!strncmp(link, "pipe:[", 6));
	dir = opendir("/proc/self/fd");
	while ((e = readdir(dir)))
		count += e->d_name[0] != '.';
	CHECK(count >= 5);
	CHECK_ERR(open("/proc/self/fd/999", O_RDONLY), ENOENT);
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", again);
	CHECK_STR(field(t_read(path), "pos"), "5");
	CHECK(strtol(field(t_read(path), "flags"), NULL, 8) >= 0);
}

TEST(maps)
{
	char *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
	     line[256], want[64];
	bool found = false, stack = false, text = false;
	int fd = t_file("mapped", "x");
	char *q = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	unsigned long last = 0, start, end;
	FILE *f = fopen("/proc/self/maps", "r");
	char perm[5];

	CHECK(f);
	CHECK_OK(mprotect(p, 4096, PROT_READ));
	snprintf(want, sizeof(want), "%lx-%lx r-xp", 0ul, 0ul);
	while (fgets(line, sizeof(line), f)) {
		CHECK_EQ(sscanf(line, "%lx-%lx %4s", &start, &end, perm), 3);
		CHECK(start >= last && end > start);
		last = end;
		if (start <= (unsigned long)p && end >= (unsigned long)p + 4096 &&
		    !strcmp(perm, "r--p"))
			found = true;
		if (start == (unsigned long)q)
			CHECK(strstr(line, "/mapped") && !strcmp(perm, "r--s"));
		stack |= strstr(line, "[stack]") != NULL;
		text |= start <= (unsigned long)&test_maps && end > (unsigned long)&test_maps &&
			perm[2] == 'x';
	}
	CHECK(found && stack && text);
}

struct map_query {
	uint64_t size, flags, addr, start, end, vma_flags, page_size, offset, inode;
	uint32_t dev_major, dev_minor, name_size, build_id_size;
	uint64_t name_addr, build_id_addr;
};
#define MAP_QUERY _IOWR('f', 17, struct map_query)

TEST(map_query)
{
	int fd = open("/proc/self/maps", O_RDONLY), data = open("data", O_RDWR | O_CREAT, 0600);
	struct map_query q = {.size = sizeof(q)};
	char name[PATH_MAX], *p;
	struct stat st;

	CHECK(fd >= 0 && data >= 0);
	q.addr = (uint64_t)(uintptr_t)&q;
	if (ioctl(fd, MAP_QUERY, &q) && errno == ENOTTY)
		SKIP("before Linux 6.11");
	CHECK(q.start <= q.addr && q.addr < q.end);
	CHECK_EQ(q.vma_flags, 3);
	CHECK_EQ(q.page_size, 4096);
	CHECK_EQ(q.inode, 0);
	CHECK_OK(ftruncate(data, 8192));
	CHECK_OK(fstat(data, &st));
	p = mmap(NULL, 3 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(p != MAP_FAILED);
	CHECK(mmap(p + 4096, 4096, PROT_READ, MAP_SHARED | MAP_FIXED, data, 4096) != MAP_FAILED);
	CHECK_OK(munmap(p, 4096));
	q = (struct map_query){.size = sizeof(q), .addr = (uint64_t)(uintptr_t)p};
	CHECK_ERR(ioctl(fd, MAP_QUERY, &q), ENOENT);
	q.flags = 16 | 32 | 1; /* covering or next, of a file, readable */
	q.name_size = sizeof(name);
	q.name_addr = (uint64_t)(uintptr_t)name;
	CHECK_OK(ioctl(fd, MAP_QUERY, &q));
	CHECK_EQ(q.start, (uint64_t)(uintptr_t)p + 4096);
	CHECK_EQ(q.end, (uint64_t)(uintptr_t)p + 8192);
	CHECK_EQ(q.vma_flags, 1 | 8);
	CHECK_EQ(q.offset, 4096);
	CHECK_EQ(q.inode, st.st_ino);
	CHECK_EQ(q.name_size, strlen(name) + 1);
	CHECK(strlen(name) > 5 && !strcmp(name + strlen(name) - 5, "/data"));
	q.name_size = 3;
	CHECK_ERR(ioctl(fd, MAP_QUERY, &q), ENAMETOOLONG);
	q.name_size = 0;
	CHECK_ERR(ioctl(fd, MAP_QUERY, &q), EINVAL);
	q.name_addr = 0;
	q.flags = 64;
	CHECK_ERR(ioctl(fd, MAP_QUERY, &q), EINVAL);
	q.flags = 2; /* it is not writable */
	q.addr = (uint64_t)(uintptr_t)p + 4096;
	CHECK_ERR(ioctl(fd, MAP_QUERY, &q), ENOENT);
	q.size = 16;
	CHECK_ERR(ioctl(fd, MAP_QUERY, &q), EINVAL);
	q.size = 5000;
	CHECK_ERR(ioctl(fd, MAP_QUERY, &q), E2BIG);
	CHECK_ERR(ioctl(fd, MAP_QUERY, 1), EFAULT);
}

TEST(mem_and_smaps)
{
	volatile long secret = 0x5ec7e7;
	long got = 0;
	int fd = open("/proc/self/mem", O_RDWR);

	CHECK(fd >= 0);
	CHECK_EQ(pread(fd, &got, sizeof(got), (off_t)(uintptr_t)&secret), (ssize_t)sizeof(got));
	CHECK_EQ(got, 0x5ec7e7);
	got = 7;
	CHECK_EQ(pwrite(fd, &got, sizeof(got), (off_t)(uintptr_t)&secret), (ssize_t)sizeof(got));
	CHECK_EQ(secret, 7);
	CHECK_ERR(pread(fd, &got, 8, 0), EIO);
	CHECK(strstr(t_read("/proc/self/statm"), " "));
}

/* What smaps says of the mapping at p: a field's kilobytes. */
static long smaps_kb(const void *p, const char *name)
{
	char row[32], *at;

	snprintf(row, sizeof(row), "%lx-", (unsigned long)(uintptr_t)p);
	at = strstr(t_read("/proc/self/smaps"), row);
	CHECK(at);
	at = strstr(at, name);
	CHECK(at);
	return strtol(at + strlen(name), NULL, 10);
}

/* Of a private mapping of a file what was written is anonymous: debuggers' cores have it, and leave out the rest. */
TEST(smaps_private_file)
{
	int fd = open("file", O_RDWR | O_CREAT | O_TRUNC, 0600);
	volatile char *p;

	CHECK(fd >= 0);
	CHECK_OK(ftruncate(fd, 4096));
	p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	CHECK(p != MAP_FAILED);
	CHECK_EQ(p[0], 0);
	CHECK_EQ(smaps_kb((void *)p, "Rss:"), 4);
	CHECK_EQ(smaps_kb((void *)p, "Anonymous:"), 0);
	CHECK_EQ(smaps_kb((void *)p, "Private_Dirty:"), 0);
	p[0] = 1;
	CHECK_EQ(smaps_kb((void *)p, "Rss:"), 4);
	CHECK_EQ(smaps_kb((void *)p, "Anonymous:"), 4);
	CHECK_EQ(smaps_kb((void *)p, "Private_Dirty:"), 4);
}

static int write_loginuid(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY), err;

	CHECK(fd >= 0);
	err = write(fd, text, strlen(text)) < 0 ? errno : 0;
	close(fd);
	return err;
}

/* Who has logged in: set once, inherited; sshd, login and cron end a session where that fails. */
TEST(loginuid)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	const struct __user_cap_data_struct none[2] = {0};
	char path[64];
	pid_t pid;

	/* On a machine where somebody has logged in, it is set. */
	if (strcmp(t_read("/proc/self/loginuid"), "4294967295") != 0)
		SKIP("loginuid is set");
	CHECK_STR(t_read("/proc/self/sessionid"), "4294967295");
	CHECK_EQ(write_loginuid("/proc/self/loginuid", "none"), EINVAL);
	snprintf(path, sizeof(path), "/proc/%d/loginuid", getppid());
	CHECK_EQ(write_loginuid(path, "12"), EPERM);
	CHECK_EQ(write_loginuid("/proc/self/loginuid", "1234"), 0);
	CHECK_STR(t_read("/proc/self/loginuid"), "1234");
	CHECK(strcmp(t_read("/proc/self/sessionid"), "4294967295") != 0);
	pid = fork();
	if (pid == 0) {
		CHECK_STR(t_read("/proc/self/loginuid"), "1234");
		CHECK_OK(syscall(SYS_capset, &header, none));
		CHECK_EQ(write_loginuid("/proc/self/loginuid", "5"), EPERM);
		_exit(0);
	}
	t_wait_ok(pid);
}

static void *wait_there(void *arg)
{
	pthread_barrier_wait(arg);
	pthread_barrier_wait(arg);
	return NULL;
}

static void *tell_tid(void *arg)
{
	_Atomic pid_t *tid = arg;

	prctl(PR_SET_NAME, "the-thread");
	*tid = gettid();
	while (*tid)
		t_sleep_ms(1);
	return NULL;
}

/* /proc/TID is not listed; it has its group's files, of which some tell of the thread. */
TEST(thread_by_id)
{
	char path[64], want[64];
	_Atomic pid_t tid = 0;
	pthread_t thread;

	CHECK_EQ(pthread_create(&thread, NULL, tell_tid, (void *)&tid), 0);
	while (!tid)
		t_sleep_ms(1);
	snprintf(path, sizeof(path), "/proc/%d/status", tid);
	snprintf(want, sizeof(want), "%d", tid);
	CHECK_STR(field(t_read(path), "\nPid"), want);
	snprintf(want, sizeof(want), "%d", getpid());
	CHECK_STR(field(t_read(path), "\nTgid"), want);
	snprintf(path, sizeof(path), "/proc/%d/comm", tid);
	CHECK_STR(t_read(path), "the-thread\n");
	snprintf(path, sizeof(path), "/proc/%d/stat", tid);
	snprintf(want, sizeof(want), "%d (the-thread) ", tid);
	CHECK(!strncmp(t_read(path), want, strlen(want)));
	snprintf(path, sizeof(path), "/proc/%d/task", tid);
	CHECK_OK(access(path, F_OK));
	tid = 0;
	CHECK_EQ(pthread_join(thread, NULL), 0);
}

TEST(task)
{
	pthread_barrier_t barrier;
	struct dirent *e;
	pthread_t t[3];
	int count = 0;
	DIR *dir;

	pthread_barrier_init(&barrier, NULL, 4);
	for (int i = 0; i < 3; i++)
		CHECK_EQ(pthread_create(&t[i], NULL, wait_there, &barrier), 0);
	pthread_barrier_wait(&barrier);
	dir = opendir("/proc/self/task");
	while ((e = readdir(dir))) {
		char path[64];

		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/self/task/%.20s/status", e->d_name);
		CHECK_STR(field(t_read(path), "\nPid"), e->d_name);
		CHECK_STR(field(t_read(path), "\nThreads"), "4");
		count++;
	}
	CHECK_EQ(count, 4);
	pthread_barrier_wait(&barrier);
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
}

TEST(other_processes)
{
	char path[64], want[32];
	bool found = false;
	struct dirent *e;
	pid_t pid = fork();
	DIR *dir;

	if (pid == 0) {
		pause();
		_exit(0);
	}
	dir = opendir("/proc");
	snprintf(want, sizeof(want), "%d", pid);
	while ((e = readdir(dir)))
		found |= !strcmp(e->d_name, want);
	CHECK(found);
	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	snprintf(want, sizeof(want), "%d", getpid());
	CHECK_STR(field(t_read(path), "\nPPid"), want);
	t_wait_state(pid, "S");
	CHECK_OK(kill(pid, SIGKILL));
	t_wait_state(pid, "Z");
	CHECK_EQ(t_wait_status(pid), SIGKILL);
	CHECK_ERR(open(path, O_RDONLY), ENOENT);
	CHECK_ERR(open("/proc/9999999", O_RDONLY), ENOENT);
}

TEST(system_files)
{
	double up, idle;

	CHECK(strstr(t_read("/proc/version"), "Linux version "));
	CHECK(strstr(t_read("/proc/meminfo"), "MemTotal:"));
	CHECK(strstr(t_read("/proc/meminfo"), "MemAvailable:"));
	CHECK(strstr(t_read("/proc/cpuinfo"), "processor\t: 0"));
	CHECK(!strncmp(t_read("/proc/stat"), "cpu ", 4));
	CHECK(strstr(t_read("/proc/stat"), "btime "));
	CHECK_EQ(sscanf(t_read("/proc/uptime"), "%lf %lf", &up, &idle), 2);
	CHECK(up > 0);
	CHECK(strstr(t_read("/proc/loadavg"), "/"));
	CHECK(strstr(t_read("/proc/filesystems"), "nodev\tproc"));
	CHECK(strstr(t_read("/proc/mounts"), " / "));
	CHECK(strstr(t_read("/proc/mounts"), " /proc proc "));
	CHECK(strstr(t_read("/proc/self/mountinfo"), " /proc "));
	CHECK(strlen(t_read("/proc/cmdline")) > 0 || access("/proc/cmdline", R_OK) == 0);
}

TEST(sysctls)
{
	char host[256];

	CHECK_OK(gethostname(host, sizeof(host)));
	strcat(host, "\n");
	CHECK_STR(t_read("/proc/sys/kernel/hostname"), host);
	CHECK_STR(t_read("/proc/sys/kernel/ostype"), "Linux\n");
	CHECK(atoi(t_read("/proc/sys/kernel/pid_max")) >= 301);
	CHECK(strlen(t_read("/proc/sys/kernel/osrelease")) > 3);
	CHECK(atoi(t_read("/proc/sys/fs/file-max")) != 0);
	CHECK_EQ(strlen(t_read("/proc/sys/kernel/random/uuid")), 37);
	CHECK_EQ(strlen(t_read("/proc/sys/kernel/random/boot_id")), 37);
	CHECK(strlen(t_read("/proc/sys/vm/overcommit_memory")) == 2);
}

TEST(limits_and_others)
{
	CHECK(strstr(t_read("/proc/self/limits"), "Max open files"));
	CHECK(strstr(t_read("/proc/self/environ"), "=") || t_read("/proc/self/environ")[0] == 0);
	CHECK(strlen(t_read("/proc/self/oom_score_adj")) >= 2);
	CHECK(strlen(t_read("/proc/self/cgroup")) > 1);
	CHECK(t_read("/proc/self/uid_map")[0]);
	CHECK(strlen(t_read("/proc/self/auxv")) || true);
	CHECK_OK(access("/proc/self/ns/pid", F_OK));
}

TEST(read_only_and_errors)
{
	struct statfs sf;

	CHECK_OK(statfs("/proc", &sf));
	CHECK_EQ(sf.f_type, 0x9fa0);
	CHECK_ERR(mkdir("/proc/x", 0755), ENOENT);
	CHECK_ERR(open("/proc/x", O_CREAT | O_RDWR, 0600), ENOENT);
	CHECK_ERR(unlink("/proc/version"), EPERM);
	CHECK_ERR(rmdir("/proc/self/fd"), EPERM);
}

/* Small reads with a moving offset give the same text. */
TEST(piecewise)
{
	char whole[8192], piece[8192];
	int fd = open("/proc/self/limits", O_RDONLY);
	size_t len = 0;
	ssize_t n;

	snprintf(whole, sizeof(whole), "%s", t_read("/proc/self/limits"));
	while ((n = read(fd, piece + len, 7)) > 0)
		len += (size_t)n;
	piece[len] = '\0';
	CHECK_STR(piece, whole);
	CHECK_EQ(pread(fd, piece, 5, 3), 5);
	CHECK(!memcmp(piece, whole + 3, 5));
	CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
	CHECK_EQ(read(fd, piece, 5), 5);
}

struct io_counts {
	long rchar, wchar, syscr, syscw;
};

/* `asked`: with what asking took itself: all of the text, and its end. */
static struct io_counts io_counts(bool asked)
{
	const char *text = t_read("/proc/self/io");
	struct io_counts ret;

	ret.rchar = atol(field(text, "rchar"));
	ret.wchar = atol(field(text, "wchar"));
	ret.syscr = atol(field(text, "syscr"));
	ret.syscw = atol(field(text, "syscw"));
	if (asked) {
		ret.rchar += (long)strlen(text);
		ret.syscr += 2;
	}
	return ret;
}

static void write_thousand(void *arg)
{
	char bytes[1000] = "";

	CHECK_EQ(write(*(int *)arg, bytes, sizeof(bytes)), 1000);
}

TEST(io_counts)
{
	int fd = t_file("f", "0123456789"), to = open("t", O_CREAT | O_RDWR, 0600);
	struct io_counts before = io_counts(true), after;
	char buf[64];
	struct iovec two[2] = {{buf, 0}, {buf, 0}};

	CHECK_EQ(read(fd, buf, 4), 4);
	CHECK_EQ(pread(fd, buf, 3, 1), 3);
	CHECK_EQ(pread(fd, buf, 3, 100), 0);
	after = io_counts(false);
	CHECK_EQ(after.rchar - before.rchar, 7);
	CHECK_EQ(after.syscr - before.syscr, 3);
	CHECK_EQ(after.wchar - before.wchar, 0);
	/* What fails at the descriptor is no call of read(2), but one of readv(2). */
	before = io_counts(true);
	CHECK_ERR(read(-1, buf, 4), EBADF);
	CHECK_ERR(write(-1, buf, 4), EBADF);
	CHECK_ERR(pwrite(fd, buf, 4, -1), EINVAL);
	CHECK_ERR(readv(-1, two, 2), EBADF);
	CHECK_EQ(writev(to, two, 2), 0);
	CHECK_EQ(pwrite(to, buf, 5, 3), 5);
	CHECK_EQ(sendfile(to, fd, &(off_t){0}, 6), 6);
	after = io_counts(false);
	CHECK_EQ(after.rchar - before.rchar, 6);
	CHECK_EQ(after.syscr - before.syscr, 2);
	CHECK_EQ(after.wchar - before.wchar, 11);
	CHECK_EQ(after.syscw - before.syscw, 3);
	/* A child's are its parent's once it is waited for. */
	before = io_counts(true);
	t_wait_ok(t_spawn(write_thousand, &to));
	after = io_counts(false);
	CHECK_EQ(after.wchar - before.wchar, 1000);
	CHECK_EQ(after.syscw - before.syscw, 1);
}

TEST(names_of_descriptors)
{
	int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0), epoll = epoll_create1(0);
	char path[64], name[64] = "";

	CHECK(pidfd >= 0 && epoll >= 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", epoll);
	CHECK(readlink(path, name, sizeof(name) - 1) > 0);
	CHECK_STR(name, "anon_inode:[eventpoll]");
	memset(name, 0, sizeof(name));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", pidfd);
	CHECK(readlink(path, name, sizeof(name) - 1) > 0);
	CHECK_STR(name, "anon_inode:[pidfd]");
}

TEST(auxv_by_prctl)
{
	static char file[4096], got[4096];
	int fd = open("/proc/self/auxv", O_RDONLY);
	ssize_t n = read(fd, file, sizeof(file));

	CHECK(n > 0);
	CHECK(prctl(0x41555856, got, sizeof(got), 0, 0) >= n);
	CHECK(!memcmp(got, file, (size_t)n));
	memset(got, 7, sizeof(got));
	CHECK(prctl(0x41555856, got, 8, 0, 0) >= n);
	CHECK(got[8] == 7 && !memcmp(got, file, 8));
	CHECK_ERR(prctl(0x41555856, got, 8, 1, 0), EINVAL);
	CHECK_ERR(prctl(0x41555856, 8, 8, 0, 0), EFAULT);
}
