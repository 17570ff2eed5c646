/* eventfd, signalfd, inotify. */
#include "t.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/signalfd.h>

TEST(eventfd)
{
	uint64_t v = 5;
	int fd = eventfd(3, EFD_NONBLOCK | EFD_CLOEXEC);
	struct pollfd pfd = {fd, POLLIN | POLLOUT, 0};

	CHECK(fd >= 0);
	CHECK_EQ(read(fd, &v, 8), 8);
	CHECK_EQ(v, 3);
	CHECK_ERR(read(fd, &v, 8), EAGAIN);
	CHECK_EQ(poll(&pfd, 1, 0), 1);
	CHECK_EQ(pfd.revents, POLLOUT);
	v = 2;
	CHECK_EQ(write(fd, &v, 8), 8);
	CHECK_EQ(write(fd, &v, 8), 8);
	CHECK_EQ(read(fd, &v, 8), 8);
	CHECK_EQ(v, 4);
	v = UINT64_MAX;
	CHECK_ERR(write(fd, &v, 8), EINVAL);
	v = UINT64_MAX - 1;
	CHECK_EQ(write(fd, &v, 8), 8);
	CHECK_EQ(poll(&pfd, 1, 0), 1);
	CHECK_EQ(pfd.revents, POLLIN);
	v = 1;
	CHECK_ERR(write(fd, &v, 8), EAGAIN);
	CHECK_ERR(write(fd, &v, 4), EINVAL);
	CHECK_ERR(read(fd, &v, 4), EINVAL);
	CHECK_ERR(eventfd(0, 0x100), EINVAL);
}

TEST(eventfd_semaphore)
{
	uint64_t v = 0;
	int fd = eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK);

	CHECK_EQ(read(fd, &v, 8), 8);
	CHECK_EQ(v, 1);
	CHECK_EQ(read(fd, &v, 8), 8);
	CHECK_EQ(v, 1);
	CHECK_ERR(read(fd, &v, 8), EAGAIN);
}

TEST(eventfd_blocks)
{
	uint64_t v = 0;
	int fd = eventfd(0, 0);
	pid_t pid = fork();

	if (pid == 0) {
		t_sleep_ms(40);
		v = 9;
		CHECK_EQ(write(fd, &v, 8), 8);
		_exit(0);
	}
	CHECK_EQ(read(fd, &v, 8), 8);
	CHECK_EQ(v, 9);
	t_wait_ok(pid);
}

TEST(signalfd)
{
	struct signalfd_siginfo si[4];
	struct pollfd pfd;
	sigset_t set;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGRTMIN);
	CHECK_OK(sigprocmask(SIG_BLOCK, &set, NULL));
	fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	CHECK(fd >= 0);
	pfd = (struct pollfd){fd, POLLIN, 0};
	CHECK_ERR(read(fd, si, sizeof(si)), EAGAIN);
	CHECK_EQ(poll(&pfd, 1, 0), 0);
	CHECK_OK(kill(getpid(), SIGUSR1));
	CHECK_OK(sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 6}));
	CHECK_EQ(poll(&pfd, 1, 0), 1);
	CHECK_EQ(read(fd, si, sizeof(si)), 2 * (ssize_t)sizeof(si[0]));
	CHECK_EQ(si[0].ssi_signo, SIGUSR1);
	CHECK_EQ(si[0].ssi_pid, getpid());
	CHECK_EQ(si[1].ssi_signo, SIGRTMIN);
	CHECK_EQ(si[1].ssi_int, 6);
	CHECK_ERR(read(fd, si, 10), EINVAL);
	/* The set can be changed. */
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	CHECK_EQ(signalfd(fd, &set, 0), fd);
	CHECK_OK(raise(SIGUSR1));
	CHECK_EQ(poll(&pfd, 1, 0), 0);
	CHECK_ERR(signalfd(open(".", O_RDONLY), &set, 0), EINVAL);
}

TEST(signalfd_wakes)
{
	struct signalfd_siginfo si;
	sigset_t set;
	int fd;
	pid_t pid;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	CHECK_OK(sigprocmask(SIG_BLOCK, &set, NULL));
	fd = signalfd(-1, &set, 0);
	pid = fork();
	if (pid == 0) {
		t_sleep_ms(40);
		_exit(3);
	}
	CHECK_EQ(read(fd, &si, sizeof(si)), (ssize_t)sizeof(si));
	CHECK_EQ(si.ssi_signo, SIGCHLD);
	CHECK_EQ(si.ssi_pid, pid);
	CHECK_EQ(si.ssi_status, 3);
}

static char event_buf[4096] __attribute__((aligned(8)));
static ssize_t event_len, event_at;

/* The next event must be this one. */
static void expect(int fd, int wd, uint32_t mask, const char *name, uint32_t *cookie)
{
	struct inotify_event *ev;

	if (event_at == event_len) {
		event_len = read(fd, event_buf, sizeof(event_buf));
		event_at = 0;
		CHECK(event_len > 0);
	}
	ev = (struct inotify_event *)(event_buf + event_at);
	event_at += (ssize_t)(sizeof(*ev) + ev->len);
	CHECK_EQ(ev->wd, wd);
	CHECK_EQ(ev->mask, mask);
	if (name)
		CHECK_STR(ev->len ? ev->name : "", name);
	if (cookie)
		*cookie = ev->cookie;
}

TEST(inotify)
{
	uint32_t from = 0, to = 0;
	int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC), wd, f, wf;

	if (fd < 0 && errno == ENOSYS)
		SKIP("there is no inotify");
	CHECK(fd >= 0);
	CHECK_OK(mkdir("d", 0755));
	wd = inotify_add_watch(fd, "d", IN_ALL_EVENTS & ~IN_ACCESS);
	CHECK(wd > 0);
	CHECK_ERR(read(fd, event_buf, sizeof(event_buf)), EAGAIN);
	f = open("d/f", O_CREAT | O_RDWR, 0600);
	CHECK_EQ(write(f, "x", 1), 1);
	close(f);
	CHECK_OK(chmod("d/f", 0644));
	CHECK_OK(rename("d/f", "d/g"));
	CHECK_OK(mkdir("d/sub", 0755));
	CHECK_OK(unlink("d/g"));
	expect(fd, wd, IN_CREATE, "f", NULL);
	expect(fd, wd, IN_OPEN, "f", NULL);
	expect(fd, wd, IN_MODIFY, "f", NULL);
	expect(fd, wd, IN_CLOSE_WRITE, "f", NULL);
	expect(fd, wd, IN_ATTRIB, "f", NULL);
	expect(fd, wd, IN_MOVED_FROM, "f", &from);
	expect(fd, wd, IN_MOVED_TO, "g", &to);
	CHECK_EQ(from, to);
	CHECK(from != 0);
	expect(fd, wd, IN_CREATE | IN_ISDIR, "sub", NULL);
	expect(fd, wd, IN_DELETE, "g", NULL);
	CHECK_ERR(read(fd, event_buf, sizeof(event_buf)), EAGAIN);
	close(t_file("w", ""));
	wf = inotify_add_watch(fd, "w", IN_DELETE_SELF);
	CHECK_OK(unlink("w"));
	event_at = event_len = 0;
	expect(fd, wf, IN_DELETE_SELF, NULL, NULL);
	expect(fd, wf, IN_IGNORED, NULL, NULL);
	CHECK_OK(inotify_rm_watch(fd, wd));
	expect(fd, wd, IN_IGNORED, NULL, NULL);
	CHECK_ERR(inotify_rm_watch(fd, wd), EINVAL);
	CHECK_ERR(inotify_add_watch(fd, "none", IN_CREATE), ENOENT);
	CHECK_ERR(inotify_add_watch(fd, "d", 0), EINVAL);
}

/* A binding keeps the filesystem; the end of its last mount is told to every watch in it, and ends them. */
TEST(inotify_unmount)
{
	int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC), dir, file;

	if (fd < 0 && errno == ENOSYS)
		SKIP("there is no inotify");
	if (unshare(CLONE_NEWNS) < 0)
		SKIP("no privilege for mounts");
	CHECK_OK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
	CHECK_OK(mkdir("m", 0755));
	CHECK_OK(mkdir("b", 0755));
	CHECK_OK(mount("t", "m", "tmpfs", 0, NULL));
	CHECK_OK(mount("m", "b", NULL, MS_BIND, NULL));
	CHECK_OK(mkdir("m/d", 0755));
	close(t_file("m/f", ""));
	dir = inotify_add_watch(fd, "m/d", IN_CREATE);
	file = inotify_add_watch(fd, "m/f", IN_MODIFY);
	CHECK(dir > 0 && file > 0);
	CHECK_OK(umount("m"));
	CHECK_ERR(read(fd, event_buf, sizeof(event_buf)), EAGAIN);
	CHECK_OK(mkdir("b/d/x", 0755));
	event_at = event_len = 0;
	expect(fd, dir, IN_CREATE | IN_ISDIR, "x", NULL);
	CHECK_OK(umount("b"));
	for (int i = 0; i < 2; i++) {
		struct inotify_event ev;
		int wd;

		if (event_at == event_len)
			CHECK((event_len = read(fd, event_buf, sizeof(event_buf))) > 0 &&
			      !(event_at = 0));
		memcpy(&ev, event_buf + event_at, sizeof(ev));
		wd = ev.wd;
		CHECK(wd == dir || wd == file);
		expect(fd, wd, IN_UNMOUNT | (wd == dir ? IN_ISDIR : 0), NULL, NULL);
		expect(fd, wd, IN_IGNORED, NULL, NULL);
	}
	CHECK_EQ(event_at, event_len);
	CHECK_ERR(inotify_rm_watch(fd, dir), EINVAL);
}

/* A file of a process's directory in /proc has no poll operation, unless it announces changes; others always are ready. */
TEST(epoll_proc)
{
	static const struct {
		const char *path;
		int err;
	} files[] = {
		{"/proc/self/status", EPERM},
		{"/proc/self/maps", EPERM},
		{"/proc/self/fdinfo/0", EPERM},
		{"/proc/self/ns/mnt", EPERM},
		{"/proc/self/mountstats", EPERM},
		{"/proc/self/mountinfo", 0},
		{"/proc/self/net/tcp", 0},
		{"/proc/uptime", 0},
		{"/proc/sys/kernel/hostname", 0},
		{"/proc/sys", EPERM},
		{"/dev/null", EPERM},
		{"/dev/zero", EPERM},
		{"/dev/urandom", EPERM},
		{".", EPERM},
	};
	int ep = epoll_create1(0);

	for (unsigned i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		struct epoll_event ev = {.events = EPOLLIN};
		int fd = open(files[i].path, O_RDONLY), got;

		if (fd < 0)
			continue;
		got = epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) ? errno : 0;
		if (got != files[i].err)
			t_fail(__FILE__, __LINE__, "%s: %d, not %d", files[i].path, got,
			       files[i].err);
		close(fd);
	}
}
