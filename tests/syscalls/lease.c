/* Leases, and SIGIO by O_ASYNC. */
#include "t.h"

#include <poll.h>
#include <sys/socket.h>

static volatile sig_atomic_t got, got_fd, got_code;

static void on_signal(int signo, siginfo_t *info, void *ctx)
{
	(void)ctx;
	got_fd = info->si_fd;
	got_code = info->si_code;
	got = signo;
}

static void catch_signal(int signo)
{
	struct sigaction sa = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART};

	CHECK_OK(sigaction(signo, &sa, NULL));
}

static void wait_signal(int signo)
{
	for (int i = 0; i < 2000 && got != signo; i++)
		t_sleep_ms(10);
	CHECK_EQ(got, signo);
}

TEST(kinds)
{
	int fd, other;

	close(t_file("f", "text"));
	fd = open("f", O_RDONLY);
	CHECK_EQ(fcntl(fd, F_GETLEASE), F_UNLCK);
	CHECK_ERR(fcntl(fd, F_SETLEASE, F_UNLCK), EAGAIN);
	CHECK_ERR(fcntl(fd, F_SETLEASE, 77), EINVAL);
	CHECK_OK(fcntl(fd, F_SETLEASE, F_RDLCK));
	CHECK_EQ(fcntl(fd, F_GETLEASE), F_RDLCK);
	CHECK_OK(fcntl(fd, F_SETLEASE, F_UNLCK));
	CHECK_EQ(fcntl(fd, F_GETLEASE), F_UNLCK);
	CHECK_OK(fcntl(fd, F_SETLEASE, F_WRLCK));
	CHECK_EQ(fcntl(fd, F_GETLEASE), F_WRLCK);
	CHECK_OK(fcntl(fd, F_SETLEASE, F_RDLCK));
	CHECK_EQ(fcntl(fd, F_GETLEASE), F_RDLCK);
	/* Readers share; a second reader keeps a write lease away. */
	other = open("f", O_RDONLY);
	CHECK(other >= 0);
	CHECK_OK(fcntl(other, F_SETLEASE, F_RDLCK));
	CHECK_ERR(fcntl(fd, F_SETLEASE, F_WRLCK), EAGAIN);
	close(other);
	CHECK_OK(fcntl(fd, F_SETLEASE, F_WRLCK));
	close(fd);
	/* A lease ends with its description. */
	fd = open("f", O_RDWR | O_NONBLOCK);
	CHECK(fd >= 0);
	CHECK_ERR(fcntl(fd, F_SETLEASE, F_RDLCK), EAGAIN);
	CHECK_OK(fcntl(fd, F_SETLEASE, F_WRLCK));
	CHECK_OK(mkdir("d", 0755));
	CHECK_ERR(fcntl(open("d", O_PATH), F_SETLEASE, F_RDLCK), EBADF);
	int p[2];
	CHECK_OK(pipe(p));
	CHECK_ERR(fcntl(p[0], F_SETLEASE, F_RDLCK), EINVAL);
}

TEST(others_files)
{
	int fd;

	close(t_file("f", ""));
	CHECK_OK(chmod("f", 0666));
	fd = open("f", O_RDONLY);
	t_become(1000, 1000);
	CHECK_ERR(fcntl(fd, F_SETLEASE, F_RDLCK), EACCES);
}

TEST(break_by_nonblocking_open)
{
	int fd;

	close(t_file("f", "text"));
	fd = open("f", O_RDONLY);
	catch_signal(SIGIO);
	CHECK_OK(fcntl(fd, F_SETLEASE, F_RDLCK));
	/* Readers are welcome. */
	close(open("f", O_RDONLY | O_NONBLOCK));
	CHECK_EQ(got, 0);
	CHECK_ERR(open("f", O_WRONLY | O_NONBLOCK), EAGAIN);
	wait_signal(SIGIO);
	/* What it is to become. */
	CHECK_EQ(fcntl(fd, F_GETLEASE), F_UNLCK);
	CHECK_ERR(open("f", O_WRONLY | O_NONBLOCK), EAGAIN);
	CHECK_OK(fcntl(fd, F_SETLEASE, F_UNLCK));
	CHECK(open("f", O_WRONLY | O_NONBLOCK) >= 0);
}

/* A child that opens f and has to wait for fd's lease. */
static pid_t opener(int fd, int flags)
{
	pid_t pid = fork();

	if (pid == 0) {
		close(fd);
		CHECK(open("f", flags) >= 0);
		_exit(0);
	}
	return pid;
}

TEST(break_and_wait)
{
	int fd;
	pid_t pid;

	close(t_file("f", "text"));
	fd = open("f", O_RDONLY);
	catch_signal(SIGRTMIN);
	CHECK_OK(fcntl(fd, F_SETSIG, SIGRTMIN));
	CHECK_OK(fcntl(fd, F_SETLEASE, F_WRLCK));
	pid = opener(fd, O_RDONLY);
	wait_signal(SIGRTMIN);
	CHECK_EQ(got_fd, fd);
	CHECK_EQ(got_code, POLL_MSG);
	CHECK_EQ(fcntl(fd, F_GETLEASE), F_RDLCK);
	t_sleep_ms(50);
	CHECK_EQ(waitpid(pid, NULL, WNOHANG), 0);
	CHECK_OK(fcntl(fd, F_SETLEASE, F_RDLCK));
	t_wait_ok(pid);
}

/* A holder cannot step down to what a waiting writer does not bear; once the writer gave up it can, and the break stays. */
TEST(step_down_before_a_writer)
{
	int fd;
	pid_t pid;

	close(t_file("f", "text"));
	fd = open("f", O_RDONLY);
	catch_signal(SIGIO);
	CHECK_OK(fcntl(fd, F_SETLEASE, F_WRLCK));
	pid = opener(fd, O_WRONLY);
	wait_signal(SIGIO);
	CHECK_EQ(fcntl(fd, F_GETLEASE), F_UNLCK);
	CHECK_ERR(fcntl(fd, F_SETLEASE, F_RDLCK), EAGAIN);
	CHECK_ERR(fcntl(fd, F_SETLEASE, F_WRLCK), EAGAIN);
	CHECK_EQ(fcntl(fd, F_GETLEASE), F_UNLCK);
	t_sleep_ms(20);
	CHECK_EQ(waitpid(pid, NULL, WNOHANG), 0);
	CHECK_OK(kill(pid, SIGKILL));
	CHECK_EQ(waitpid(pid, NULL, 0), pid);
	CHECK_OK(fcntl(fd, F_SETLEASE, F_RDLCK));
	CHECK_EQ(fcntl(fd, F_GETLEASE), F_UNLCK);
	CHECK(open("f", O_RDONLY | O_NONBLOCK) >= 0);
	got = 0;
	CHECK_ERR(open("f", O_WRONLY | O_NONBLOCK), EAGAIN);
	t_sleep_ms(20);
	CHECK_EQ(got, 0);
	CHECK_OK(fcntl(fd, F_SETLEASE, F_UNLCK));
	CHECK(open("f", O_WRONLY | O_NONBLOCK) >= 0);
}

/* A break that asks for more is told again. */
TEST(reader_then_writer)
{
	int fd;

	close(t_file("f", "text"));
	fd = open("f", O_RDONLY);
	catch_signal(SIGIO);
	CHECK_OK(fcntl(fd, F_SETLEASE, F_WRLCK));
	CHECK_ERR(open("f", O_RDONLY | O_NONBLOCK), EAGAIN);
	wait_signal(SIGIO);
	CHECK_EQ(fcntl(fd, F_GETLEASE), F_RDLCK);
	got = 0;
	CHECK_ERR(open("f", O_WRONLY | O_NONBLOCK), EAGAIN);
	wait_signal(SIGIO);
	CHECK_EQ(fcntl(fd, F_GETLEASE), F_UNLCK);
	got = 0;
	CHECK_ERR(open("f", O_RDONLY | O_NONBLOCK), EAGAIN);
	t_sleep_ms(20);
	CHECK_EQ(got, 0);
	CHECK_OK(fcntl(fd, F_SETLEASE, F_RDLCK));
	CHECK_EQ(fcntl(fd, F_GETLEASE), F_UNLCK);
	CHECK(open("f", O_RDONLY | O_NONBLOCK) >= 0);
	CHECK_OK(fcntl(fd, F_SETLEASE, F_UNLCK));
}

TEST(break_by_truncate)
{
	int fd;
	pid_t pid;

	close(t_file("f", "text"));
	fd = open("f", O_RDONLY);
	catch_signal(SIGIO);
	CHECK_OK(fcntl(fd, F_SETLEASE, F_RDLCK));
	pid = fork();
	if (pid == 0) {
		CHECK_OK(truncate("f", 0));
		_exit(0);
	}
	wait_signal(SIGIO);
	CHECK_OK(fcntl(fd, F_SETLEASE, F_UNLCK));
	t_wait_ok(pid);
	struct stat st;
	CHECK_OK(fstat(fd, &st));
	CHECK_EQ(st.st_size, 0);
}

/* A child fills `out` and sleeps until its reader, woken by SIGIO of `in` alone, has read. */
static void sigio_by_a_sleeper(int in, int out)
{
	static char buf[1000000];
	sigset_t set;
	pid_t pid;

	sigemptyset(&set);
	sigaddset(&set, SIGIO);
	CHECK_OK(sigprocmask(SIG_BLOCK, &set, NULL));
	CHECK_OK(fcntl(in, F_SETOWN, getpid()));
	CHECK_OK(fcntl(in, F_SETFL, O_ASYNC));
	pid = fork();
	if (pid == 0) {
		t_sleep_ms(50);
		CHECK_EQ(write(out, buf, sizeof(buf)), sizeof(buf));
		_exit(0);
	}
	CHECK_EQ(sigtimedwait(&set, NULL, &(struct timespec){20, 0}), SIGIO);
	CHECK_OK(fcntl(in, F_SETFL, 0));
	CHECK_OK(close(out));
	while (read(in, buf, sizeof(buf)) > 0)
		;
	t_wait_ok(pid);
}

TEST(sigio_of_a_full_pipe)
{
	int p[2];

	CHECK_OK(pipe(p));
	sigio_by_a_sleeper(p[0], p[1]);
}

TEST(sigio_of_a_full_socket)
{
	int p[2];

	CHECK_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, p));
	sigio_by_a_sleeper(p[0], p[1]);
}

TEST(sigio_of_a_pipe)
{
	int p[2];

	CHECK_OK(pipe(p));
	catch_signal(SIGIO);
	CHECK_OK(fcntl(p[0], F_SETOWN, getpid()));
	CHECK_EQ(fcntl(p[0], F_GETOWN), getpid());
	CHECK_OK(fcntl(p[0], F_SETFL, O_ASYNC | O_NONBLOCK));
	CHECK_EQ(fcntl(p[0], F_GETFL) & (O_ASYNC | O_NONBLOCK), O_ASYNC | O_NONBLOCK);
	CHECK_EQ(got, 0);
	CHECK_EQ(write(p[1], "x", 1), 1);
	wait_signal(SIGIO);
	got = 0;
	catch_signal(SIGRTMIN + 1);
	CHECK_OK(fcntl(p[0], F_SETSIG, SIGRTMIN + 1));
	CHECK_EQ(write(p[1], "y", 1), 1);
	wait_signal(SIGRTMIN + 1);
	CHECK_EQ(got_fd, p[0]);
	CHECK_EQ(got_code, POLL_IN);
	got = 0;
	CHECK_OK(fcntl(p[0], F_SETFL, O_NONBLOCK));
	CHECK_EQ(write(p[1], "z", 1), 1);
	t_sleep_ms(50);
	CHECK_EQ(got, 0);
	/* To a thread alone. */
	struct f_owner_ex o = {.type = F_OWNER_TID, .pid = getpid()}, back = {0};
	CHECK_OK(fcntl(p[0], F_SETOWN_EX, &o));
	CHECK_OK(fcntl(p[0], F_GETOWN_EX, &back));
	CHECK_EQ(back.type, F_OWNER_TID);
	CHECK_EQ(back.pid, getpid());
	CHECK_OK(fcntl(p[0], F_SETFL, O_ASYNC));
	CHECK_EQ(write(p[1], "w", 1), 1);
	wait_signal(SIGRTMIN + 1);
}

TEST(dnotify)
{
	int fd;

	CHECK_OK(mkdir("d", 0755));
	close(t_file("f", ""));
	catch_signal(SIGRTMIN + 2);
	fd = open("f", O_RDONLY);
	CHECK_ERR(fcntl(fd, F_NOTIFY, DN_CREATE), ENOTDIR);
	fd = open("d", O_RDONLY);
	CHECK_OK(fcntl(fd, F_SETSIG, SIGRTMIN + 2));
	CHECK_OK(fcntl(fd, F_NOTIFY, DN_CREATE));
	close(t_file("d/a", ""));
	wait_signal(SIGRTMIN + 2);
	CHECK_EQ(got_fd, fd);
	/* Once only. */
	got = 0;
	close(t_file("d/b", ""));
	t_sleep_ms(30);
	CHECK_EQ(got, 0);
	CHECK_OK(fcntl(fd, F_NOTIFY, DN_DELETE | DN_MULTISHOT));
	CHECK_OK(unlink("d/a"));
	wait_signal(SIGRTMIN + 2);
	got = 0;
	CHECK_OK(unlink("d/b"));
	wait_signal(SIGRTMIN + 2);
	got = 0;
	CHECK_OK(fcntl(fd, F_NOTIFY, 0));
	CHECK_OK(mkdir("d/c", 0755));
	CHECK_OK(rmdir("d/c"));
	t_sleep_ms(30);
	CHECK_EQ(got, 0);
}

TEST(sigio_of_a_socket)
{
	int s[2];

	CHECK_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	catch_signal(SIGRTMIN + 3);
	CHECK_OK(fcntl(s[0], F_SETOWN, getpid()));
	CHECK_OK(fcntl(s[0], F_SETSIG, SIGRTMIN + 3));
	CHECK_OK(fcntl(s[0], F_SETFL, O_ASYNC));
	t_sleep_ms(20);
	got = 0;
	CHECK_EQ(write(s[1], "x", 1), 1);
	wait_signal(SIGRTMIN + 3);
	CHECK_EQ(got_fd, s[0]);
	CHECK_EQ(got_code, POLL_IN);
}
