/* Pipes and fifos: atomicity, blocking, EPIPE, sizes, packet mode, splice and tee. */
#include "t.h"

#include <sys/sendfile.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

#include <poll.h>
#include <sys/ioctl.h>

TEST(basics)
{
	struct stat st;
	char buf[16] = "";
	int p[2];

	CHECK_OK(pipe(p));
	CHECK_EQ(fcntl(p[0], F_GETFL) & O_ACCMODE, O_RDONLY);
	CHECK_EQ(fcntl(p[1], F_GETFL) & O_ACCMODE, O_WRONLY);
	CHECK_OK(fstat(p[0], &st));
	CHECK(S_ISFIFO(st.st_mode));
	CHECK_EQ(write(p[1], "hello", 5), 5);
	CHECK_EQ(read(p[0], buf, 2), 2);
	CHECK_EQ(read(p[0], buf + 2, 14), 3);
	CHECK_STR(buf, "hello");
	CHECK_ERR(read(p[1], buf, 1), EBADF);
	CHECK_ERR(write(p[0], buf, 1), EBADF);
	CHECK_ERR(pipe((int *)8), EFAULT);
	CHECK_ERR(pipe2(p, O_APPEND), EINVAL);
	CHECK_OK(pipe2(p, O_CLOEXEC | O_NONBLOCK));
	CHECK_EQ(fcntl(p[0], F_GETFD), FD_CLOEXEC);
	CHECK_ERR(read(p[0], buf, 1), EAGAIN);
}

TEST(end_of_file)
{
	char c;
	int p[2];

	CHECK_OK(pipe(p));
	CHECK_EQ(write(p[1], "x", 1), 1);
	CHECK_OK(close(p[1]));
	CHECK_EQ(read(p[0], &c, 1), 1);
	CHECK_EQ(read(p[0], &c, 1), 0);
	CHECK_EQ(read(p[0], &c, 1), 0);
}

static volatile sig_atomic_t got;

static void on_signal(int sig)
{
	got = sig;
}

TEST(broken)
{
	int p[2], status;
	pid_t pid;

	CHECK_OK(pipe(p));
	close(p[0]);
	signal(SIGPIPE, on_signal);
	CHECK_ERR(write(p[1], "x", 1), EPIPE);
	CHECK_EQ(got, SIGPIPE);
	CHECK_EQ(write(p[1], "", 0), 0);
	signal(SIGPIPE, SIG_DFL);
	pid = fork();
	if (pid == 0) {
		write(p[1], "x", 1);
		_exit(0);
	}
	status = t_wait_status(pid);
	CHECK(WIFSIGNALED(status));
	CHECK_EQ(WTERMSIG(status), SIGPIPE);
}

TEST(capacity)
{
	static char buf[2 << 20];
	int p[2], n;

	CHECK_OK(pipe2(p, O_NONBLOCK));
	CHECK_EQ(fcntl(p[0], F_GETPIPE_SZ), 65536);
	CHECK_EQ(write(p[1], buf, sizeof(buf)), 65536);
	CHECK_ERR(write(p[1], buf, 1), EAGAIN);
	CHECK_OK(ioctl(p[0], FIONREAD, &n));
	CHECK_EQ(n, 65536);
	CHECK_ERR(fcntl(p[0], F_SETPIPE_SZ, 4096), EBUSY);
	CHECK_EQ(fcntl(p[0], F_SETPIPE_SZ, 1 << 17), 1 << 17);
	CHECK_EQ(write(p[1], buf, sizeof(buf)), 65536);
	CHECK_EQ(read(p[0], buf, sizeof(buf)), 1 << 17);
	CHECK_EQ(fcntl(p[0], F_SETPIPE_SZ, 100), 4096);
	/* Up to PIPE_BUF a write is all or nothing. */
	CHECK_EQ(write(p[1], buf, 100), 100);
	CHECK_ERR(write(p[1], buf, 4096), EAGAIN);
}

TEST(poll_states)
{
	static char buf[65536];
	struct pollfd r, w;
	int p[2];

	CHECK_OK(pipe(p));
	r = (struct pollfd){p[0], POLLIN | POLLOUT, 0};
	w = (struct pollfd){p[1], POLLIN | POLLOUT, 0};
	CHECK_EQ(poll(&r, 1, 0), 0);
	CHECK_EQ(poll(&w, 1, 0), 1);
	CHECK_EQ(w.revents, POLLOUT);
	CHECK_EQ(write(p[1], buf, 65536), 65536);
	CHECK_EQ(poll(&w, 1, 0), 0);
	CHECK_EQ(poll(&r, 1, 0), 1);
	CHECK_EQ(r.revents, POLLIN);
	close(p[1]);
	CHECK_EQ(poll(&r, 1, 0), 1);
	CHECK_EQ(r.revents, POLLIN | POLLHUP);
	CHECK_OK(pipe(p));
	close(p[0]);
	w.fd = p[1];
	CHECK_EQ(poll(&w, 1, 0), 1);
	CHECK_EQ(w.revents, POLLOUT | POLLERR);
}

/* Two writers of 4096 bytes each: never mixed. */
static void write_blocks(void *arg)
{
	static char buf[4096];
	int fd = ((int *)arg)[1];

	memset(buf, getpid() & 1 ? 'a' : 'b', sizeof(buf));
	for (int i = 0; i < 50; i++)
		CHECK_EQ(write(fd, buf, sizeof(buf)), (ssize_t)sizeof(buf));
}

TEST(atomic_writes)
{
	static char buf[4096];
	pid_t a, b;
	int p[2];

	CHECK_OK(pipe(p));
	a = t_spawn(write_blocks, p);
	b = t_spawn(write_blocks, p);
	close(p[1]);
	for (int i = 0; i < 100; i++) {
		size_t len = 0;

		while (len < sizeof(buf)) {
			ssize_t n = read(p[0], buf + len, sizeof(buf) - len);

			CHECK(n > 0);
			len += (size_t)n;
		}
		for (size_t j = 1; j < sizeof(buf); j++)
			CHECK_EQ(buf[j], buf[0]);
	}
	CHECK_EQ(read(p[0], buf, 1), 0);
	t_wait_ok(a);
	t_wait_ok(b);
}

TEST(large_transfer)
{
	static unsigned char buf[10000];
	size_t total = 0;
	pid_t pid;
	ssize_t n;
	int p[2];

	CHECK_OK(pipe(p));
	pid = fork();
	if (pid == 0) {
		unsigned char *big = malloc(1 << 20);

		close(p[0]);
		for (size_t i = 0; i < 1 << 20; i++)
			big[i] = (unsigned char)(i % 251);
		for (int i = 0; i < 4; i++)
			CHECK_EQ(write(p[1], big, 1 << 20), 1 << 20);
		_exit(0);
	}
	close(p[1]);
	while ((n = read(p[0], buf, sizeof(buf))) > 0) {
		for (ssize_t i = 0; i < n; i++)
			CHECK_EQ(buf[i], (total + (size_t)i) % (1 << 20) % 251);
		total += (size_t)n;
	}
	CHECK_EQ(total, 4 << 20);
	t_wait_ok(pid);
}

TEST(fifo_rendezvous)
{
	char buf[8] = "";
	pid_t pid;
	int fd;

	CHECK_OK(mkfifo("p", 0600));
	pid = fork();
	if (pid == 0) {
		fd = open("p", O_WRONLY);
		CHECK(fd >= 0);
		CHECK_EQ(write(fd, "fifo", 4), 4);
		_exit(0);
	}
	fd = open("p", O_RDONLY);
	CHECK(fd >= 0);
	CHECK_EQ(read(fd, buf, 8), 4);
	CHECK_EQ(read(fd, buf + 4, 4), 0);
	CHECK_STR(buf, "fifo");
	t_wait_ok(pid);
	fd = open("p", O_RDWR);
	CHECK(fd >= 0);
	CHECK_EQ(write(fd, "x", 1), 1);
	CHECK_EQ(read(fd, buf, 8), 1);
}

TEST(packets)
{
	char buf[32];
	int p[2];

	CHECK_OK(pipe2(p, O_DIRECT));
	CHECK_EQ(write(p[1], "one", 3), 3);
	CHECK_EQ(write(p[1], "three", 5), 5);
	CHECK_EQ(read(p[0], buf, 32), 3);
	/* What a short read leaves of a packet is gone. */
	CHECK_EQ(read(p[0], buf, 2), 2);
	close(p[1]);
	CHECK_EQ(read(p[0], buf, 2), 0);
}

/* What no splice can read or write is told at once, not when the pipe has something. */
TEST(splice_needs_both_ends)
{
	int p[2], event = eventfd(0, 0), timer = timerfd_create(CLOCK_MONOTONIC, 0);
	int ep = epoll_create1(0), fd = t_file("f", "0123456789");
	loff_t at = 0;

	CHECK_OK(pipe(p));
	/* An offset for a pipe is looked at before what its end is open for. */
	CHECK_ERR(splice(fd, NULL, p[0], &at, 1, 0), ESPIPE);
	CHECK_ERR(splice(p[1], &at, p[1], NULL, 1, 0), ESPIPE);
	CHECK_ERR(splice(fd, NULL, p[0], NULL, 1, 0), EBADF);
	CHECK(event >= 0 && timer >= 0 && ep >= 0);
	CHECK_ERR(splice(p[0], NULL, ep, NULL, 1, 0), EINVAL);
	CHECK_ERR(splice(p[0], NULL, event, NULL, 8, 0), EINVAL);
	CHECK_ERR(splice(timer, NULL, p[1], NULL, 8, 0), EINVAL);
	CHECK_ERR(splice(event, NULL, p[1], NULL, 8, 0), EINVAL);
}

TEST(splice)
{
	char buf[16] = "";
	loff_t at = 2;
	int a[2], b[2], fd = t_file("f", "0123456789");

	CHECK_OK(pipe(a));
	CHECK_OK(pipe2(b, O_NONBLOCK));
	CHECK_EQ(splice(fd, &at, a[1], NULL, 5, 0), 5);
	CHECK_EQ(at, 7);
	CHECK_EQ(tee(a[0], b[1], 3, 0), 3);
	CHECK_EQ(read(b[0], buf, 16), 3);
	CHECK(!memcmp(buf, "234", 3));
	CHECK_EQ(splice(a[0], NULL, b[1], NULL, 100, 0), 5);
	CHECK_EQ(read(b[0], buf, 16), 5);
	CHECK(!memcmp(buf, "23456", 5));
	CHECK_EQ(write(a[1], "out", 3), 3);
	at = 20;
	CHECK_EQ(splice(a[0], NULL, fd, &at, 3, 0), 3);
	CHECK_EQ(pread(fd, buf, 3, 20), 3);
	CHECK(!memcmp(buf, "out", 3));
	CHECK_ERR(splice(fd, NULL, fd, NULL, 3, 0), EINVAL);
	CHECK_ERR(splice(a[0], &at, fd, NULL, 3, 0), ESPIPE);
	CHECK_ERR(tee(fd, a[1], 3, 0), EINVAL);
	CHECK_EQ(vmsplice(a[1], &(struct iovec){"vm", 2}, 1, 0), 2);
	CHECK_EQ(read(a[0], buf, 16), 2);
}

static int splice_from(const char *path)
{
	int p[2], q[2], fd = open(path, O_RDONLY | O_NONBLOCK), err, err2;

	if (fd < 0)
		return -errno;
	CHECK_OK(pipe2(p, O_NONBLOCK));
	CHECK_OK(pipe2(q, O_NONBLOCK));
	err = splice(fd, NULL, p[1], NULL, 100, 0) < 0 ? -errno : 0;
	err2 = sendfile(q[1], fd, NULL, 100) < 0 ? -errno : 0;
	CHECK_EQ(err, err2);
	close(fd);
	close(p[0]);
	close(p[1]);
	close(q[0]);
	close(q[1]);
	return err;
}

/* clang-format off */
static const char *const spliced[] = {
	"/proc/self/mounts", "/proc/self/mountinfo", "/proc/self/mountstats",
	"/proc/thread-self/mounts", "/proc/self/net/psched", "/proc/self/net/softnet_stat",
	"/proc/self/net/rt_cache", "/proc/version", "/proc/meminfo", "/proc/stat", "/proc/cpuinfo",
	"/proc/filesystems", "/proc/uptime", "/proc/sys/kernel/ostype", "/proc/sys/kernel/pid_max",
	"/proc/tty/drivers", "/proc/keys", "/proc/cgroups"
};
static const char *const only_read[] = {
	"/proc/self/status", "/proc/self/stat", "/proc/self/statm", "/proc/self/maps",
	"/proc/self/smaps", "/proc/self/environ", "/proc/self/auxv", "/proc/self/cmdline",
	"/proc/self/comm", "/proc/self/limits", "/proc/self/cgroup", "/proc/self/oom_score",
	"/proc/self/io", "/proc/self/sched", "/proc/self/wchan", "/proc/self/syscall",
	"/proc/self/uid_map", "/proc/self/pagemap", "/proc/self/fdinfo/0", "/proc/self/mem",
	"/proc/self/timerslack_ns", "/proc/thread-self/stat", "/proc/thread-self/children",
	"/proc/self/net/dev", "/proc/self/net/tcp", "/proc/self/net/unix", "/proc/self/net/route",
	"/proc/swaps", "/proc/kallsyms", "/proc/slabinfo", "/proc/sysvipc/msg",
	"/proc/sysvipc/shm", "/proc/pressure/cpu", "/proc/kmsg", "/dev/kmsg", "/proc/self/ns/mnt"
};
/* clang-format on */

/* Linux's older files of /proc have a read, but no splice_read. */
TEST(splice_from_proc)
{
	for (size_t i = 0; i < sizeof(spliced) / sizeof(*spliced); i++) {
		int err = splice_from(spliced[i]);

		if (err && err != -ENOENT)
			t_fail(__FILE__, __LINE__, "%s: errno %d", spliced[i], -err);
	}
	for (size_t i = 0; i < sizeof(only_read) / sizeof(*only_read); i++) {
		int err = splice_from(only_read[i]);

		if (err != -EINVAL && err != -ENOENT && err != -EACCES && err != -EPERM)
			t_fail(__FILE__, __LINE__, "%s: errno %d", only_read[i], -err);
	}
	CHECK_EQ(splice_from("/proc/self/mounts"), 0);
	CHECK_EQ(splice_from("/proc/self/status"), -EINVAL);
}

/* Not everything that is read is spliced from. */
TEST(splice_sources)
{
	int p[2], null = open("/dev/null", O_RDWR), zero = open("/dev/zero", O_RDONLY),
		  dir = open(".", O_RDONLY), out = t_file("out", "");

	CHECK_OK(pipe2(p, O_NONBLOCK));
	CHECK_ERR(splice(null, NULL, p[1], NULL, 10, 0), EINVAL);
	CHECK_ERR(splice(dir, NULL, p[1], NULL, 10, 0), EINVAL);
	CHECK_ERR(sendfile(out, null, NULL, 10), EINVAL);
	CHECK_ERR(sendfile(out, dir, NULL, 10), EINVAL);
	CHECK_EQ(splice(zero, NULL, p[1], NULL, 10, 0), 10);
	CHECK_EQ(splice(p[0], NULL, null, NULL, 10, 0), 10);
}
