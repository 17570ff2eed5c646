/* POSIX message queues: the calls, the filesystem, limits. */
#include "t.h"

#include <mqueue.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/socket.h>

static bool own_namespace;

/* "moat-x" is for this case alone, whoever else runs it on the same machine: its group of processes has one number. */
static const char *own_name(const char *name)
{
	static char own[64];

	if (own_namespace || (uintptr_t)name < 4096 || strncmp(name, "moat-", 5))
		return name;
	snprintf(own, sizeof(own), "%s-%d", name, getpgrp());
	return own;
}

/* The kernel's calls take the name without its slash, and what the C library does not check. */
static int k_open(const char *name, int flags, int mode, const struct mq_attr *attr)
{
	return (int)syscall(SYS_mq_open, own_name(name), flags, mode, attr);
}

static int k_unlink(const char *name)
{
	return (int)syscall(SYS_mq_unlink, own_name(name));
}

static long k_send(int fd, const char *p, size_t n, unsigned prio, const struct timespec *ts)
{
	return syscall(SYS_mq_timedsend, fd, p, n, prio, ts);
}

static long k_receive(int fd, char *p, size_t n, unsigned *prio, const struct timespec *ts)
{
	return syscall(SYS_mq_timedreceive, fd, p, n, prio, ts);
}

static int make(const char *name, long maxmsg, long msgsize, int flags)
{
	struct mq_attr attr = {.mq_maxmsg = maxmsg, .mq_msgsize = msgsize};
	int fd;

	(void)k_unlink(name);
	fd = k_open(name, O_RDWR | O_CREAT | O_EXCL | flags, 0600, &attr);
	CHECK(fd >= 0);
	return fd;
}

static struct timespec in_ms(long ms)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	ts.tv_nsec += ms * 1000000;
	ts.tv_sec += ts.tv_nsec / 1000000000;
	ts.tv_nsec %= 1000000000;
	return ts;
}

TEST(open_and_unlink)
{
	struct mq_attr attr = {.mq_maxmsg = 3, .mq_msgsize = 16}, got;
	struct stat st;
	int fd;

	(void)k_unlink("moat-a");
	CHECK_ERR(k_open("moat-a", O_RDWR, 0, NULL), ENOENT);
	umask(022);
	fd = k_open("moat-a", O_RDWR | O_CREAT, 0666, &attr);
	CHECK(fd >= 0);
	CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
	CHECK_OK(mq_getattr(fd, &got));
	CHECK_EQ(got.mq_maxmsg, 3);
	CHECK_EQ(got.mq_msgsize, 16);
	CHECK_EQ(got.mq_curmsgs, 0);
	CHECK_EQ(got.mq_flags, 0);
	CHECK_OK(fstat(fd, &st));
	CHECK_EQ(st.st_mode, S_IFREG | 0644);
	CHECK_EQ(st.st_size, 80);
	CHECK_EQ(st.st_nlink, 1);
	CHECK_ERR(k_open("moat-a", O_RDWR | O_CREAT | O_EXCL, 0600, &attr), EEXIST);
	CHECK_OK(k_unlink("moat-a"));
	CHECK_ERR(k_unlink("moat-a"), ENOENT);
	CHECK_OK(fstat(fd, &st));
	CHECK_EQ(st.st_nlink, 0);
	/* It lives as long as somebody has it. */
	CHECK_OK(k_send(fd, "x", 1, 0, NULL));
	CHECK_OK(close(fd));
}

TEST(bad_names)
{
	char name[NAME_MAX + 2];

	CHECK_ERR(k_open("", O_RDWR | O_CREAT, 0600, NULL), ENOENT);
	CHECK_ERR(k_open("a/b", O_RDWR | O_CREAT, 0600, NULL), EACCES);
	CHECK_ERR(k_open("/a", O_RDWR | O_CREAT, 0600, NULL), EACCES);
	CHECK_ERR(k_open(".", O_RDONLY, 0, NULL), EACCES);
	CHECK_ERR(k_open("..", O_RDONLY, 0, NULL), EACCES);
	CHECK_ERR(k_unlink("a/b"), EACCES);
	CHECK_ERR(k_open((char *)1, O_RDWR, 0, NULL), EFAULT);
	CHECK_ERR(k_open("moat-x", O_RDWR | O_CREAT, 0600, (struct mq_attr *)1), EFAULT);
	memset(name, 'a', sizeof(name));
	name[NAME_MAX + 1] = '\0';
	CHECK_ERR(k_open(name, O_RDWR | O_CREAT, 0600, NULL), ENAMETOOLONG);
}

TEST(bad_attributes)
{
	struct mq_attr attr = {.mq_maxmsg = 0, .mq_msgsize = 16};

	(void)k_unlink("moat-b");
	CHECK_ERR(k_open("moat-b", O_RDWR | O_CREAT, 0600, &attr), EINVAL);
	attr.mq_maxmsg = 65537;
	CHECK_ERR(k_open("moat-b", O_RDWR | O_CREAT, 0600, &attr), EINVAL);
	attr.mq_maxmsg = 1;
	attr.mq_msgsize = 16 * 1024 * 1024 + 1;
	CHECK_ERR(k_open("moat-b", O_RDWR | O_CREAT, 0600, &attr), EINVAL);
	attr.mq_msgsize = -1;
	CHECK_ERR(k_open("moat-b", O_RDWR | O_CREAT, 0600, &attr), EINVAL);
	CHECK_ERR(k_unlink("moat-b"), ENOENT);
}

TEST(priorities)
{
	int fd = make("moat-c", 8, 16, O_NONBLOCK);
	struct mq_attr attr;
	unsigned prio;
	char buf[16];

	CHECK_OK(k_send(fd, "low1", 4, 1, NULL));
	CHECK_OK(k_send(fd, "high1", 5, 9, NULL));
	CHECK_OK(k_send(fd, "low2", 4, 1, NULL));
	CHECK_OK(k_send(fd, "high2", 5, 9, NULL));
	CHECK_OK(k_send(fd, "mid", 3, 5, NULL));
	CHECK_OK(mq_getattr(fd, &attr));
	CHECK_EQ(attr.mq_curmsgs, 5);
	CHECK_EQ(attr.mq_flags, O_NONBLOCK);
	CHECK_EQ(k_receive(fd, buf, sizeof(buf), &prio, NULL), 5);
	CHECK(!memcmp(buf, "high1", 5) && prio == 9);
	CHECK_EQ(k_receive(fd, buf, sizeof(buf), &prio, NULL), 5);
	CHECK(!memcmp(buf, "high2", 5) && prio == 9);
	CHECK_EQ(k_receive(fd, buf, sizeof(buf), &prio, NULL), 3);
	CHECK(!memcmp(buf, "mid", 3) && prio == 5);
	CHECK_EQ(k_receive(fd, buf, sizeof(buf), NULL, NULL), 4);
	CHECK(!memcmp(buf, "low1", 4));
	CHECK_EQ(k_receive(fd, buf, sizeof(buf), &prio, NULL), 4);
	CHECK(!memcmp(buf, "low2", 4) && prio == 1);
	CHECK_ERR(k_receive(fd, buf, sizeof(buf), &prio, NULL), EAGAIN);
	/* Nothing is a message too. */
	CHECK_OK(k_send(fd, NULL, 0, 32767, NULL));
	CHECK_EQ(k_receive(fd, buf, sizeof(buf), &prio, NULL), 0);
	CHECK_EQ(prio, 32767);
	CHECK_OK(k_unlink("moat-c"));
}

TEST(errors_of_send_and_receive)
{
	int fd = make("moat-d", 1, 16, O_NONBLOCK), ro, wo, other = open("/", O_RDONLY);
	struct timespec bad = {.tv_nsec = 1000000000}, past = {.tv_sec = 1};
	char buf[17];

	CHECK_ERR(k_send(fd, buf, 17, 0, NULL), EMSGSIZE);
	CHECK_ERR(k_send(fd, buf, 1, 32768, NULL), EINVAL);
	CHECK_ERR(k_send(fd, (char *)1, 1, 0, NULL), EFAULT);
	CHECK_ERR(k_send(fd, buf, 1, 0, &bad), EINVAL);
	CHECK_ERR(k_send(fd, buf, 1, 0, (struct timespec *)1), EFAULT);
	CHECK_ERR(k_send(other, buf, 1, 0, NULL), EBADF);
	CHECK_ERR(k_send(-1, buf, 1, 0, NULL), EBADF);
	CHECK_ERR(k_receive(fd, buf, 15, NULL, NULL), EMSGSIZE);
	CHECK_ERR(k_receive(other, buf, 16, NULL, NULL), EBADF);
	ro = k_open("moat-d", O_RDONLY, 0, NULL);
	wo = k_open("moat-d", O_WRONLY, 0, NULL);
	CHECK(ro >= 0 && wo >= 0);
	CHECK_ERR(k_send(ro, buf, 1, 0, NULL), EBADF);
	CHECK_ERR(k_receive(wo, buf, 16, NULL, NULL), EBADF);
	CHECK_ERR(k_receive(ro, buf, 16, NULL, &past), ETIMEDOUT);
	CHECK_OK(k_send(wo, buf, 1, 0, &past));
	CHECK_ERR(k_send(wo, buf, 1, 0, &past), ETIMEDOUT);
	CHECK_ERR(k_send(fd, buf, 1, 0, NULL), EAGAIN);
	/* A message whose taker cannot have it is lost. */
	CHECK_ERR(k_receive(fd, (char *)1, 16, NULL, NULL), EFAULT);
	CHECK_ERR(k_receive(fd, buf, 16, NULL, NULL), EAGAIN);
	CHECK_OK(k_unlink("moat-d"));
}

TEST(attributes_of_a_description)
{
	struct mq_attr set = {.mq_flags = O_NONBLOCK, .mq_maxmsg = 99}, old;
	int fd = make("moat-e", 2, 16, 0);

	CHECK_OK(syscall(SYS_mq_getsetattr, fd, &set, &old));
	CHECK_EQ(old.mq_flags, 0);
	CHECK_EQ(fcntl(fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	set.mq_flags = 0;
	CHECK_OK(syscall(SYS_mq_getsetattr, fd, &set, &old));
	CHECK_EQ(old.mq_flags, O_NONBLOCK);
	CHECK_EQ(old.mq_maxmsg, 2);
	CHECK_EQ(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
	set.mq_flags = O_APPEND;
	CHECK_ERR(syscall(SYS_mq_getsetattr, fd, &set, &old), EINVAL);
	CHECK_ERR(syscall(SYS_mq_getsetattr, open("/", O_RDONLY), NULL, &old), EBADF);
	CHECK_ERR(syscall(SYS_mq_getsetattr, fd, NULL, (void *)1), EFAULT);
	CHECK_OK(k_unlink("moat-e"));
}

static void send_two(void *arg)
{
	int fd = *(int *)arg;

	/* The second waits for room. */
	CHECK_OK(k_send(fd, "one", 3, 0, NULL));
	CHECK_OK(k_send(fd, "two", 3, 0, NULL));
}

TEST(waiting)
{
	int fd = make("moat-f", 1, 16, 0);
	struct timespec soon = in_ms(30);
	char buf[16];
	pid_t pid;

	CHECK_ERR(k_receive(fd, buf, 16, NULL, &soon), ETIMEDOUT);
	pid = t_spawn(send_two, &fd);
	CHECK_EQ(k_receive(fd, buf, 16, NULL, NULL), 3);
	CHECK(!memcmp(buf, "one", 3));
	CHECK_EQ(k_receive(fd, buf, 16, NULL, NULL), 3);
	CHECK(!memcmp(buf, "two", 3));
	t_wait_ok(pid);
	CHECK_OK(k_unlink("moat-f"));
}

static volatile sig_atomic_t got_signo, got_value, got_code, got_pid;

static void on_signal(int signo, siginfo_t *info, void *uc)
{
	(void)uc;
	got_signo = signo;
	got_value = info->si_value.sival_int;
	got_code = info->si_code;
	got_pid = info->si_pid;
}

static void catch_signal(int signo, int flags)
{
	struct sigaction sa = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | flags};

	CHECK_OK(sigaction(signo, &sa, NULL));
}

TEST(a_signal_ends_the_wait)
{
	int fd = make("moat-g", 1, 16, 0);
	char buf[16];
	pid_t pid;

	catch_signal(SIGUSR2, 0);
	pid = t_signal_sleeper(SIGUSR2, 0);
	CHECK_ERR(k_receive(fd, buf, 16, NULL, NULL), EINTR);
	CHECK_EQ(got_signo, SIGUSR2);
	t_wait_ok(pid);
	CHECK_OK(k_unlink("moat-g"));
}

static void notify_busy(void *arg)
{
	struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};

	CHECK_ERR(mq_notify(*(int *)arg, &ev), EBUSY);
	/* Not its own: nothing happens. */
	CHECK_OK(mq_notify(*(int *)arg, NULL));
	CHECK_OK(k_send(*(int *)arg, "x", 1, 0, NULL));
}

TEST(notify_by_signal)
{
	struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL,
			      .sigev_signo = SIGUSR1,
			      .sigev_value.sival_int = 4711};
	int fd = make("moat-h", 4, 16, O_NONBLOCK);
	char buf[200] = "", line[100];
	ssize_t n;
	pid_t pid;

	catch_signal(SIGUSR1, 0);
	CHECK_OK(mq_notify(fd, &ev));
	CHECK_ERR(mq_notify(fd, &ev), EBUSY);
	n = pread(fd, buf, sizeof(buf) - 1, 0);
	CHECK(n > 0);
	snprintf(line, sizeof(line), "QSIZE:%-10d NOTIFY:%-5d SIGNO:%-5d NOTIFY_PID:%-6d\n", 0, 0,
		 SIGUSR1, getpid());
	CHECK(!strcmp(buf, line));
	pid = t_spawn(notify_busy, &fd);
	t_wait_ok(pid);
	CHECK_EQ(got_signo, SIGUSR1);
	CHECK_EQ(got_value, 4711);
	CHECK_EQ(got_code, SI_MESGQ);
	CHECK_EQ(got_pid, pid);
	/* Once only. */
	got_signo = 0;
	CHECK_EQ(k_receive(fd, buf, 16, NULL, NULL), 1);
	CHECK_OK(k_send(fd, "y", 1, 0, NULL));
	CHECK_EQ(got_signo, 0);
	/* Nor when a message is there already. */
	CHECK_OK(mq_notify(fd, &ev));
	CHECK_OK(k_send(fd, "z", 1, 0, NULL));
	CHECK_EQ(got_signo, 0);
	/* Closing any of its descriptors takes it back. */
	CHECK_OK(close(dup(fd)));
	CHECK_OK(mq_notify(fd, &ev));
	CHECK_OK(mq_notify(fd, NULL));
	ev.sigev_signo = 65;
	CHECK_ERR(syscall(SYS_mq_notify, fd, &ev), EINVAL);
	ev.sigev_notify = 77;
	CHECK_ERR(syscall(SYS_mq_notify, fd, &ev), EINVAL);
	CHECK_ERR(syscall(SYS_mq_notify, fd, (void *)1), EFAULT);
	CHECK_ERR(syscall(SYS_mq_notify, open("/", O_RDONLY), NULL), EBADF);
	CHECK_OK(k_unlink("moat-h"));
}

static void notify_and_end(void *arg)
{
	struct sigevent ev = {.sigev_notify = SIGEV_NONE};

	CHECK_OK(mq_notify(*(int *)arg, &ev));
}

TEST(notify_ends_with_its_process)
{
	struct sigevent ev = {.sigev_notify = SIGEV_NONE};
	int fd = make("moat-i", 4, 16, O_NONBLOCK);

	t_wait_ok(t_spawn(notify_and_end, &fd));
	CHECK_OK(mq_notify(fd, &ev));
	CHECK_OK(k_unlink("moat-i"));
}

TEST(notify_by_thread_socket)
{
	struct sigevent ev = {.sigev_notify = SIGEV_THREAD};
	int fd = make("moat-j", 4, 16, O_NONBLOCK), sock = socket(AF_NETLINK, SOCK_RAW, 0);
	char cookie[32] = "a cookie of the C library's", got[64];
	struct pollfd p = {.fd = sock, .events = POLLIN};

	if (sock < 0)
		SKIP("no netlink sockets here");
	ev.sigev_value.sival_ptr = cookie;
	ev.sigev_signo = fd;
	CHECK(syscall(SYS_mq_notify, fd, &ev) < 0);
	ev.sigev_signo = sock;
	CHECK_OK(syscall(SYS_mq_notify, fd, &ev));
	CHECK_OK(k_send(fd, "x", 1, 0, NULL));
	CHECK_EQ(poll(&p, 1, 20000), 1);
	CHECK_EQ(recv(sock, got, sizeof(got), 0), 32);
	CHECK(!memcmp(got, cookie, 31));
	CHECK_EQ(got[31], 1); /* NOTIFY_WOKENUP */
	CHECK_OK(syscall(SYS_mq_notify, fd, &ev));
	CHECK_OK(mq_notify(fd, NULL));
	CHECK_EQ(recv(sock, got, sizeof(got), 0), 32);
	CHECK_EQ(got[31], 2); /* NOTIFY_REMOVED */
	CHECK_OK(k_unlink("moat-j"));
}

TEST(poll_tells)
{
	int fd = make("moat-k", 1, 16, O_NONBLOCK);
	struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT};
	char buf[16];

	CHECK_EQ(poll(&p, 1, 0), 1);
	CHECK_EQ(p.revents, POLLOUT);
	CHECK_OK(k_send(fd, "x", 1, 0, NULL));
	CHECK_EQ(poll(&p, 1, 0), 1);
	CHECK_EQ(p.revents, POLLIN);
	CHECK_EQ(k_receive(fd, buf, 16, NULL, NULL), 1);
	CHECK_EQ(poll(&p, 1, 0), 1);
	CHECK_EQ(p.revents, POLLOUT);
	CHECK_ERR(write(fd, "x", 1), EINVAL);
	CHECK_OK(k_unlink("moat-k"));
}

TEST(permissions)
{
	int fd = make("moat-l", 1, 16, 0);
	char buf[16];

	if (geteuid() != 0)
		SKIP("not root");
	CHECK_OK(k_send(fd, "x", 1, 0, NULL));
	CHECK_OK(fchmod(fd, 0604));
	CHECK_OK(setresgid(1000, 1000, 1000));
	CHECK_OK(setresuid(1000, 1000, 1000));
	CHECK_ERR(k_open("moat-l", O_RDWR, 0, NULL), EACCES);
	CHECK_ERR(k_unlink("moat-l"), EPERM);
	fd = k_open("moat-l", O_RDONLY, 0, NULL);
	CHECK(fd >= 0);
	CHECK_EQ(k_receive(fd, buf, 16, NULL, NULL), 1);
}

TEST(rlimit)
{
	struct mq_attr attr = {.mq_maxmsg = 4, .mq_msgsize = 100};
	struct rlimit r = {4 * (100 + 48) + 4 * 48, 819200};
	int fd;

	/* Another user's account, which has nothing yet. */
	if (geteuid() == 0)
		CHECK_OK(setresuid(4242, 4242, 4242));
	(void)k_unlink("moat-m");
	CHECK_OK(setrlimit(RLIMIT_MSGQUEUE, &r));
	attr.mq_maxmsg = 5;
	CHECK_ERR(k_open("moat-m", O_RDWR | O_CREAT, 0600, &attr), EMFILE);
	attr.mq_maxmsg = 4;
	fd = k_open("moat-m", O_RDWR | O_CREAT, 0600, &attr);
	CHECK(fd >= 0);
	attr.mq_maxmsg = 1;
	CHECK_ERR(k_open("moat-n", O_RDWR | O_CREAT, 0600, &attr), EMFILE);
	CHECK_OK(k_unlink("moat-m"));
	CHECK_ERR(k_open("moat-n", O_RDWR | O_CREAT, 0600, &attr), EMFILE);
	CHECK_OK(close(fd));
	fd = k_open("moat-n", O_RDWR | O_CREAT, 0600, &attr);
	CHECK(fd >= 0);
	CHECK_OK(k_unlink("moat-n"));
}

TEST(limits_of_the_unprivileged)
{
	struct mq_attr attr = {.mq_maxmsg = 11, .mq_msgsize = 10};

	if (geteuid() == 0)
		CHECK_OK(setresuid(4243, 4243, 4243));
	CHECK_ERR(k_open("moat-o", O_RDWR | O_CREAT, 0600, &attr), EINVAL);
	attr.mq_maxmsg = 1;
	attr.mq_msgsize = 8193;
	CHECK_ERR(k_open("moat-o", O_RDWR | O_CREAT, 0600, &attr), EINVAL);
}

/* A change of mode stays, also where a look-up meets the last close of the queue. */
TEST(mode_survives_close)
{
	struct stat st;
	int fd, status;
	pid_t pid;

	fd = make("moat-r", 1, 8, 0);
	CHECK_OK(close(fd));
	pid = fork();
	if (pid == 0)
		for (;;)
			close(k_open("moat-r", O_RDONLY, 0, NULL));
	CHECK(pid > 0);
	for (int i = 0; i < 400; i++) {
		mode_t mode = i & 1 ? 0600 : 0640;

		fd = k_open("moat-r", O_RDWR, 0, NULL);
		CHECK(fd >= 0);
		CHECK_OK(fchmod(fd, mode));
		CHECK_OK(close(fd));
		fd = k_open("moat-r", O_RDWR, 0, NULL);
		CHECK(fd >= 0);
		CHECK_OK(fstat(fd, &st));
		CHECK_EQ(st.st_mode & 07777, mode);
		CHECK_OK(close(fd));
	}
	CHECK_OK(kill(pid, SIGKILL));
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_OK(k_unlink("moat-r"));
}

TEST(the_filesystem)
{
	int fd, file, seen = 0;
	struct dirent *e;
	struct stat st;
	char buf[100];
	DIR *d;

	if (geteuid() != 0)
		SKIP("not root");
	if (syscall(SYS_unshare, 0x08000000 | 0x00020000)) /* CLONE_NEWIPC | CLONE_NEWNS */
		SKIP("no namespaces here");
	own_namespace = true;
	CHECK_OK(mkdir("q", 0755));
	CHECK_OK(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
	fd = make("moat-p", 4, 16, O_NONBLOCK);
	CHECK_OK(mount("mqueue", "q", "mqueue", 0, NULL));
	CHECK_OK(stat("q", &st));
	CHECK_EQ(st.st_mode, S_IFDIR | 01777);
	CHECK_OK(k_send(fd, "hello", 5, 0, NULL));
	d = opendir("q");
	CHECK(d);
	while ((e = readdir(d)))
		seen += !strcmp(e->d_name, "moat-p") ? 10 : e->d_name[0] == '.' ? 0 : 1;
	CHECK_EQ(seen, 10);
	closedir(d);
	file = open("q/moat-p", O_RDONLY);
	CHECK(file >= 0);
	memset(buf, 0, sizeof(buf));
	CHECK(read(file, buf, sizeof(buf) - 1) > 0);
	CHECK(!strncmp(buf, "QSIZE:5 ", 8));
	/* A name like any other: made, seen by mq_open, removed. */
	CHECK_OK(chmod("q/moat-p", 0640));
	CHECK_OK(fstat(fd, &st));
	CHECK_EQ(st.st_mode, S_IFREG | 0640);
	CHECK_OK(close(file));
	file = open("q/moat-q", O_RDWR | O_CREAT | O_EXCL, 0600);
	CHECK(file >= 0);
	CHECK_OK(close(file));
	CHECK(k_open("moat-q", O_RDWR, 0, NULL) >= 0);
	CHECK_OK(unlink("q/moat-q"));
	CHECK_ERR(k_open("moat-q", O_RDWR, 0, NULL), ENOENT);
	CHECK_ERR(mkdir("q/dir", 0700), EPERM);
	CHECK_OK(k_unlink("moat-p"));
	CHECK_ERR(stat("q/moat-p", &st), ENOENT);
	CHECK_OK(umount("q"));
}
