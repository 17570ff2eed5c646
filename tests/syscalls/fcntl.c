/* Descriptors and locks: dup*, fcntl, close_range, POSIX, OFD and flock locks, leases of nothing. */
#include "t.h"

#include <linux/close_range.h>
#include <sys/file.h>
#include <sys/sysmacros.h>

TEST(dup)
{
	int fd = t_file("f", ""), d;

	d = dup(fd);
	CHECK(d > fd);
	CHECK_EQ(fcntl(d, F_GETFD), 0);
	CHECK_EQ(dup2(fd, 50), 50);
	CHECK_EQ(dup2(fd, fd), fd);
	CHECK_ERR(dup2(99, 99), EBADF);
	CHECK_ERR(dup2(fd, -1), EBADF);
	CHECK_EQ(dup3(fd, 51, O_CLOEXEC), 51);
	CHECK_EQ(fcntl(51, F_GETFD), FD_CLOEXEC);
	CHECK_ERR(dup3(fd, fd, 0), EINVAL);
	CHECK_ERR(dup3(fd, 52, O_APPEND), EINVAL);
	CHECK_EQ(fcntl(fd, F_DUPFD, 60), 60);
	CHECK_EQ(fcntl(fd, F_DUPFD, 60), 61);
	CHECK_EQ(fcntl(fd, F_DUPFD_CLOEXEC, 60), 62);
	CHECK_EQ(fcntl(62, F_GETFD), FD_CLOEXEC);
	CHECK_ERR(fcntl(fd, F_DUPFD, -1), EINVAL);
	CHECK_ERR(fcntl(99, F_GETFD), EBADF);
	CHECK_ERR(fcntl(fd, 9999), EINVAL);
}

TEST(status_flags)
{
	int fd = open("f", O_CREAT | O_RDWR | O_APPEND, 0600), d = dup(fd);

	CHECK_EQ(fcntl(fd, F_GETFL) & ~0100000, O_RDWR | O_APPEND);
	CHECK_OK(fcntl(fd, F_SETFL, O_NONBLOCK | O_WRONLY));
	/* The access mode stays; the flags are shared by duplicates. */
	CHECK_EQ(fcntl(d, F_GETFL) & ~0100000, O_RDWR | O_NONBLOCK);
	CHECK_OK(fcntl(fd, F_SETFD, FD_CLOEXEC));
	CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
	CHECK_EQ(fcntl(d, F_GETFD), 0);
}

TEST(close_range)
{
	int fd = t_file("f", "");

	for (int i = 20; i < 30; i++)
		CHECK_OK(dup2(fd, i));
	CHECK_OK(syscall(SYS_close_range, 22, 25, 0));
	CHECK_OK(fcntl(21, F_GETFD));
	CHECK_ERR(fcntl(22, F_GETFD), EBADF);
	CHECK_ERR(fcntl(25, F_GETFD), EBADF);
	CHECK_OK(fcntl(26, F_GETFD));
	CHECK_OK(syscall(SYS_close_range, 26, ~0u, CLOSE_RANGE_CLOEXEC));
	CHECK_EQ(fcntl(29, F_GETFD), FD_CLOEXEC);
	CHECK_ERR(syscall(SYS_close_range, 5, 4, 0), EINVAL);
	CHECK_ERR(syscall(SYS_close_range, 5, 6, 64), EINVAL);
	CHECK_OK(syscall(SYS_close_range, 20, ~0u, CLOSE_RANGE_UNSHARE));
	CHECK_ERR(fcntl(29, F_GETFD), EBADF);
}

static struct flock lock_of(short type, off_t start, off_t len)
{
	return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
}

static void other_tries(void *arg)
{
	int fd = open("f", O_RDWR);
	struct flock l = lock_of(F_WRLCK, 0, 10);

	(void)arg;
	CHECK_ERR(fcntl(fd, F_SETLK, &l), EAGAIN);
	l = lock_of(F_RDLCK, 5, 0);
	CHECK_OK(fcntl(fd, F_GETLK, &l));
	CHECK_EQ(l.l_type, F_WRLCK);
	CHECK_EQ(l.l_start, 0);
	CHECK_EQ(l.l_len, 10);
	CHECK_EQ(l.l_pid, getppid());
	l = lock_of(F_WRLCK, 10, 5);
	CHECK_OK(fcntl(fd, F_SETLK, &l));
}

TEST(posix_locks)
{
	int fd = t_file("f", "01234567890123456789"), d;
	struct flock l = lock_of(F_WRLCK, 0, 10);

	CHECK_OK(fcntl(fd, F_SETLK, &l));
	l = lock_of(F_WRLCK, 0, 10);
	/* One's own locks do not conflict. */
	CHECK_OK(fcntl(fd, F_GETLK, &l));
	CHECK_EQ(l.l_type, F_UNLCK);
	t_wait_ok(t_spawn(other_tries, NULL));
	/* The child's lock went with it. */
	l = lock_of(F_WRLCK, 0, 0);
	CHECK_OK(fcntl(fd, F_SETLK, &l));
	/* Closing any descriptor of the file drops all of the process's locks. */
	d = open("f", O_RDONLY);
	CHECK_OK(close(d));
	l = lock_of(F_WRLCK, 0, 10);
	CHECK_OK(fcntl(fd, F_SETLK, &l));
	t_wait_ok(t_spawn(other_tries, NULL));
	l = lock_of(F_RDLCK, 0, 1);
	CHECK_ERR(fcntl(open("f", O_WRONLY), F_SETLK, &l), EBADF);
	l = lock_of(F_WRLCK, -5, 1);
	CHECK_ERR(fcntl(fd, F_SETLK, &l), EINVAL);
	l = lock_of(9, 0, 1);
	CHECK_ERR(fcntl(fd, F_SETLK, &l), EINVAL);
}

/* The line of /proc/locks, behind its number, that ends as `what` about file f; "" without one. */
static const char *lock_line(const char *what, int fd, const char *range)
{
	static char line[128];
	char want[128], *p, *save = NULL;
	struct stat st;

	CHECK_OK(fstat(fd, &st));
	snprintf(want, sizeof(want), ": %s %02x:%02x:%lu %s", what, major(st.st_dev),
		 minor(st.st_dev), (unsigned long)st.st_ino, range);
	for (p = strtok_r((char *)t_read("/proc/locks"), "\n", &save); p;
	     p = strtok_r(NULL, "\n", &save)) {
		snprintf(line, sizeof(line), "%s", p);
		if (strchr(p, ':') && strcmp(strchr(p, ':'), want) == 0)
			return line;
	}
	return "";
}

static void wait_for_lock(void *arg)
{
	int fd = open("f", O_RDWR);
	struct flock l = lock_of(F_WRLCK, 0, 0);

	(void)arg;
	CHECK_OK(fcntl(fd, F_SETLKW, &l));
	CHECK_EQ(write(fd, "got it", 6), 6);
}

TEST(posix_lock_waits)
{
	int fd = t_file("f", "......");
	struct flock l = lock_of(F_WRLCK, 3, 2);
	pid_t pid;

	CHECK_OK(fcntl(fd, F_SETLKW, &l));
	pid = t_spawn(wait_for_lock, NULL);
	t_wait_state(pid, "S");
	CHECK_STR(t_read("f"), "......");
	/* t_read() closed a descriptor of the file, and with it went the lock. */
	t_wait_ok(pid);
	CHECK_STR(t_read("f"), "got it");
}

static void on_signal(int sig)
{
	(void)sig;
}

static void lock_interrupted(void *arg)
{
	struct sigaction sa = {.sa_handler = on_signal};
	int fd = open("f", O_RDWR);
	struct flock l = lock_of(F_WRLCK, 0, 0);

	(void)arg;
	CHECK_OK(sigaction(SIGUSR1, &sa, NULL));
	t_signal_sleeper(SIGUSR1, 0);
	CHECK_ERR(fcntl(fd, F_SETLKW, &l), EINTR);
}

TEST(posix_lock_interrupted)
{
	int fd = t_file("f", "x");
	struct flock l = lock_of(F_WRLCK, 0, 0);

	CHECK_OK(fcntl(fd, F_SETLK, &l));
	t_wait_ok(t_spawn(lock_interrupted, NULL));
}

static void deadlock_child(void *arg)
{
	int fd = open("f", O_RDWR);
	struct flock l = lock_of(F_WRLCK, 1, 1);

	(void)arg;
	CHECK_OK(fcntl(fd, F_SETLK, &l));
	l = lock_of(F_WRLCK, 0, 1);
	CHECK_OK(fcntl(fd, F_SETLKW, &l));
}

TEST(posix_deadlock)
{
	int fd = t_file("f", "xx");
	struct flock l = lock_of(F_WRLCK, 0, 1);
	char what[64];
	pid_t pid;

	CHECK_OK(fcntl(fd, F_SETLK, &l));
	pid = t_spawn(deadlock_child, NULL);
	snprintf(what, sizeof(what), "-> POSIX  ADVISORY  WRITE %d", pid);
	while (!lock_line(what, fd, "0 0")[0])
		t_sleep_ms(5);
	l = lock_of(F_WRLCK, 1, 1);
	CHECK_ERR(fcntl(fd, F_SETLKW, &l), EDEADLK);
	l = lock_of(F_UNLCK, 0, 0);
	CHECK_OK(fcntl(fd, F_SETLK, &l));
	t_wait_ok(pid);
}

TEST(ofd_locks)
{
	int a = t_file("f", "0123"), b = open("f", O_RDWR);
	struct flock l = lock_of(F_WRLCK, 0, 2);

	CHECK_OK(fcntl(a, F_OFD_SETLK, &l));
	l = lock_of(F_WRLCK, 0, 1);
	CHECK_ERR(fcntl(b, F_OFD_SETLK, &l), EAGAIN);
	CHECK_OK(fcntl(b, F_OFD_GETLK, &l));
	CHECK_EQ(l.l_type, F_WRLCK);
	CHECK_EQ(l.l_pid, -1);
	close(dup(a));
	l = lock_of(F_WRLCK, 0, 1);
	CHECK_ERR(fcntl(b, F_OFD_SETLK, &l), EAGAIN);
	close(a);
	CHECK_OK(fcntl(b, F_OFD_SETLK, &l));
	l.l_pid = 5;
	CHECK_ERR(fcntl(b, F_OFD_SETLK, &l), EINVAL);
}

/* Linux 6.5 and later. */
TEST(ofd_own_locks)
{
	int a = t_file("f", "0123456789"), b = open("f", O_RDWR), flocked = open("f", O_RDWR);
	struct flock l = lock_of(F_RDLCK, 7, 2);

	CHECK_OK(fcntl(a, F_OFD_SETLK, &l));
	l = lock_of(F_WRLCK, 2, 3);
	CHECK_OK(fcntl(a, F_OFD_SETLK, &l));
	l = lock_of(F_UNLCK, 0, 0);
	CHECK_OK(fcntl(a, F_OFD_GETLK, &l));
	CHECK_EQ(l.l_type, F_WRLCK);
	CHECK_EQ(l.l_start, 2);
	CHECK_EQ(l.l_len, 3);
	CHECK_EQ(l.l_pid, -1);
	l = lock_of(F_UNLCK, -5, 3);
	l.l_whence = SEEK_END;
	CHECK_OK(fcntl(a, F_OFD_GETLK, &l));
	CHECK_EQ(l.l_type, F_RDLCK);
	CHECK_EQ(l.l_whence, SEEK_SET);
	CHECK_EQ(l.l_start, 7);
	l = lock_of(F_UNLCK, 5, 2);
	CHECK_OK(fcntl(a, F_OFD_GETLK, &l));
	CHECK_EQ(l.l_type, F_UNLCK);
	l = lock_of(F_UNLCK, 0, 0);
	CHECK_OK(fcntl(b, F_OFD_GETLK, &l));
	CHECK_EQ(l.l_type, F_UNLCK);
	CHECK_OK(flock(flocked, LOCK_EX));
	CHECK_OK(fcntl(flocked, F_OFD_GETLK, &l));
	CHECK_EQ(l.l_type, F_UNLCK);
	CHECK_ERR(fcntl(a, F_GETLK, &l), EINVAL);
}

/* Which of what is wrong is said. */
TEST(lock_errors)
{
	int a = t_file("f", "x"), ro = open("f", O_RDONLY);
	struct flock l = {.l_type = 9, .l_start = INT64_MAX, .l_len = 100};

	CHECK_ERR(fcntl(a, F_SETLK, &l), EOVERFLOW);
	CHECK_ERR(fcntl(a, F_OFD_SETLK, &l), EOVERFLOW);
	CHECK_ERR(fcntl(a, F_GETLK, &l), EINVAL);
	l = lock_of(F_WRLCK, 0, 1);
	l.l_pid = 1;
	CHECK_ERR(fcntl(ro, F_OFD_SETLK, &l), EBADF);
	CHECK_ERR(fcntl(a, F_OFD_SETLK, &l), EINVAL);
	CHECK_ERR(fcntl(ro, F_OFD_GETLK, &l), EINVAL);
	l.l_start = -1;
	CHECK_ERR(fcntl(ro, F_OFD_SETLK, &l), EINVAL);
	l.l_type = F_UNLCK;
	CHECK_ERR(fcntl(ro, F_OFD_SETLK, &l), EINVAL);
}

/* Linux 5.18 and later do nothing. */
TEST(flock_share_modes)
{
	int a = t_file("f", ""), b = open("f", O_RDWR);

	CHECK_OK(flock(a, LOCK_EX));
	CHECK_OK(flock(b, LOCK_MAND | LOCK_READ));
	CHECK_OK(flock(b, LOCK_MAND | LOCK_EX));
	CHECK_OK(flock(-1, LOCK_MAND | LOCK_RW | LOCK_NB));
	CHECK_ERR(flock(b, LOCK_EX | LOCK_NB), EWOULDBLOCK);
	CHECK_ERR(flock(b, LOCK_READ), EINVAL);
}

TEST(flock)
{
	int a = t_file("f", ""), b = open("f", O_RDWR), c;

	CHECK_OK(flock(a, LOCK_SH));
	CHECK_OK(flock(b, LOCK_SH | LOCK_NB));
	CHECK_ERR(flock(b, LOCK_EX | LOCK_NB), EWOULDBLOCK);
	CHECK_OK(flock(a, LOCK_UN));
	CHECK_OK(flock(b, LOCK_EX | LOCK_NB));
	CHECK_ERR(flock(a, LOCK_SH | LOCK_NB), EWOULDBLOCK);
	/* Belongs to the open file: a duplicate keeps it. */
	c = dup(b);
	close(b);
	CHECK_ERR(flock(a, LOCK_SH | LOCK_NB), EWOULDBLOCK);
	close(c);
	CHECK_OK(flock(a, LOCK_SH | LOCK_NB));
	CHECK_ERR(flock(a, 0), EINVAL);
	CHECK_ERR(flock(-1, LOCK_SH), EBADF);
}

static void flock_child(void *arg)
{
	int fd = open("f", O_RDWR);

	(void)arg;
	CHECK_OK(flock(fd, LOCK_EX));
}

TEST(flock_waits)
{
	int fd = t_file("f", "");
	pid_t pid;

	CHECK_OK(flock(fd, LOCK_EX));
	pid = t_spawn(flock_child, NULL);
	t_wait_state(pid, "S");
	CHECK_EQ(waitpid(pid, NULL, WNOHANG), 0);
	CHECK_OK(flock(fd, LOCK_UN));
	t_wait_ok(pid);
}

TEST(owner)
{
	int p[2];

	CHECK_OK(pipe(p));
	CHECK_EQ(fcntl(p[0], F_GETOWN), 0);
	CHECK_OK(fcntl(p[0], F_SETOWN, getpid()));
	CHECK_EQ(fcntl(p[0], F_GETOWN), getpid());
	CHECK_EQ(fcntl(p[0], F_GETSIG), 0);
}

/* fork copies the table; CLONE_FILES is tested in process.c. */
static void close_in_child(void *arg)
{
	CHECK_OK(close(*(int *)arg));
	CHECK_OK(open("f", O_RDONLY));
}

TEST(table_copied_by_fork)
{
	int fd = t_file("f", "x");

	t_wait_ok(t_spawn(close_in_child, &fd));
	CHECK_OK(fcntl(fd, F_GETFD));
}

#ifndef F_CREATED_QUERY
#define F_CREATED_QUERY 1028
#endif

TEST(created_query)
{
	int made = open("q", O_CREAT | O_RDWR, 0600), found = open("q", O_CREAT | O_RDWR, 0600);
	int path = open("q", O_PATH);

	if (fcntl(made, F_CREATED_QUERY, 0) < 0 && errno == EINVAL)
		SKIP("an older kernel");
	CHECK_EQ(fcntl(made, F_CREATED_QUERY, 0), 1);
	CHECK_EQ(fcntl(dup(made), F_CREATED_QUERY, 7), 1);
	CHECK_EQ(fcntl(found, F_CREATED_QUERY, 0), 0);
	CHECK_EQ(fcntl(path, F_CREATED_QUERY, 0), 0);
}

TEST(rw_hint)
{
	int fd = open("q", O_CREAT | O_RDWR, 0600), other = open("q", O_RDONLY);
	uint64_t hint = 99;

	CHECK_OK(fcntl(fd, F_GET_RW_HINT, &hint));
	CHECK_EQ(hint, 0);
	hint = 3;
	CHECK_OK(fcntl(fd, F_SET_RW_HINT, &hint));
	hint = 99;
	CHECK_OK(fcntl(other, F_GET_RW_HINT, &hint));
	CHECK_EQ(hint, 3);
	hint = 6;
	CHECK_ERR(fcntl(fd, F_SET_RW_HINT, &hint), EINVAL);
	CHECK_ERR(fcntl(fd, F_SET_RW_HINT, 1L), EFAULT);
	CHECK_ERR(fcntl(open("q", O_PATH), F_GET_RW_HINT, &hint), EBADF);
	CHECK_OK(fcntl(open(".", O_RDONLY), F_GET_RW_HINT, &hint));
	CHECK_EQ(hint, 0);
}

static void wait_for_locks(void *arg)
{
	struct flock l = lock_of(F_RDLCK, 7, 1);
	int fd = open("p", O_RDWR);

	(void)arg;
	CHECK_OK(fcntl(fd, F_SETLKW, &l));
}

TEST(proc_locks)
{
	struct flock p = lock_of(F_WRLCK, 5, 10), o = lock_of(F_RDLCK, 0, 0);
	int posix = t_file("p", "text"), ofd = t_file("o", "text"), whole = t_file("w", "text");
	char what[64], waits[64];
	int lease, held, blocked, again;
	pid_t child;

	close(t_file("l", "text"));
	lease = open("l", O_RDONLY);
	CHECK_OK(fcntl(posix, F_SETLK, &p));
	CHECK_OK(fcntl(ofd, F_OFD_SETLK, &o));
	CHECK_OK(flock(whole, LOCK_SH));
	CHECK_OK(fcntl(lease, F_SETLEASE, F_RDLCK));
	snprintf(what, sizeof(what), "POSIX  ADVISORY  WRITE %d", getpid());
	CHECK(lock_line(what, posix, "5 14")[0]);
	CHECK(lock_line("OFDLCK ADVISORY  READ -1", ofd, "0 EOF")[0]);
	snprintf(what, sizeof(what), "FLOCK  ADVISORY  READ %d", getpid());
	CHECK(lock_line(what, whole, "0 EOF")[0]);
	snprintf(what, sizeof(what), "LEASE  ACTIVE    READ %d", getpid());
	CHECK(lock_line(what, lease, "0 EOF")[0]);
	/* Who waits has the number of what it waits for; others' locks come and go, and move all numbers. */
	child = t_spawn(wait_for_locks, NULL);
	snprintf(what, sizeof(what), "POSIX  ADVISORY  WRITE %d", getpid());
	snprintf(waits, sizeof(waits), "-> POSIX  ADVISORY  READ %d", child);
	for (int i = 0; i < 2000; i++) {
		held = atoi(lock_line(what, posix, "5 14"));
		blocked = atoi(lock_line(waits, posix, "7 7"));
		again = atoi(lock_line(what, posix, "5 14"));
		if (held && blocked == held)
			break;
		if (held && blocked && held == again && i >= 100)
			break;
		t_sleep_ms(10);
	}
	CHECK(held != 0);
	CHECK_EQ(blocked, held);
	p.l_type = F_UNLCK;
	CHECK_OK(fcntl(posix, F_SETLK, &p));
	t_wait_ok(child);
	snprintf(what, sizeof(what), "POSIX  ADVISORY  WRITE %d", getpid());
	CHECK_STR(lock_line(what, posix, "5 14"), "");
}
