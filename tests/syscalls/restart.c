/* Which calls a signal ends with EINTR, and which go on under SA_RESTART (signal(7)). */
#include "t.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>

/* Shared with the children. */
static volatile int *count;

static void on_signal(int sig)
{
	(void)sig;
	++*count;
}

static void handle(int flags)
{
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = flags};

	if (!count) {
		count = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		CHECK(count != MAP_FAILED);
	}
	CHECK_OK(sigaction(SIGUSR1, &sa, NULL));
}

/* The call that follows is interrupted when it sleeps. */
static pid_t interrupt(int flags)
{
	handle(flags);
	return t_signal_sleeper(SIGUSR1, 0);
}

/* Likewise, and when its caller sleeps again it gets what it waits for. */
static pid_t interrupt_then_write(int fd)
{
	pid_t parent = getpid(), pid;
	int before;

	handle(SA_RESTART);
	before = *count;
	pid = fork();
	if (pid == 0) {
		t_wait_state(parent, "S");
		CHECK_OK(kill(parent, SIGUSR1));
		while (*count == before)
			t_sleep_ms(1);
		t_wait_state(parent, "S");
		if (fd >= 0)
			CHECK_EQ(write(fd, "x", 1), 1);
		_exit(0);
	}
	CHECK(pid > 0);
	return pid;
}

TEST(pipe_read)
{
	int p[2];
	char c;

	CHECK_OK(pipe(p));
	interrupt(0);
	CHECK_ERR(read(p[0], &c, 1), EINTR);
	interrupt_then_write(p[1]);
	CHECK_EQ(read(p[0], &c, 1), 1);
	CHECK_EQ(*count, 2);
}

TEST(pipe_write)
{
	char buf[65536] = "";
	int p[2];

	CHECK_OK(pipe(p));
	CHECK_EQ(write(p[1], buf, 65536), 65536);
	interrupt(0);
	CHECK_ERR(write(p[1], buf, 1), EINTR);
	/* With part of it done, the part is the answer. */
	CHECK_EQ(read(p[0], buf, 8192), 8192);
	interrupt(SA_RESTART);
	CHECK_EQ(write(p[1], buf, 20000), 8192);
}

TEST(socket)
{
	int s[2];
	char c;

	CHECK_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	interrupt(0);
	CHECK_ERR(recv(s[0], &c, 1, 0), EINTR);
	interrupt_then_write(s[1]);
	CHECK_EQ(recv(s[0], &c, 1, 0), 1);
	CHECK_EQ(*count, 2);
	/* A receive timeout makes it end even with SA_RESTART. */
	CHECK_OK(setsockopt(s[0], SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){25, 0},
			    sizeof(struct timeval)));
	interrupt(SA_RESTART);
	CHECK_ERR(recv(s[0], &c, 1, 0), EINTR);
}

TEST(wait)
{
	pid_t pid = fork();

	if (pid == 0)
		for (;;)
			pause();
	interrupt(0);
	CHECK_ERR(waitpid(pid, NULL, 0), EINTR);
	CHECK_OK(kill(pid, SIGKILL));
	CHECK_EQ(waitpid(pid, NULL, 0), pid);
	pid = interrupt_then_write(-1);
	CHECK_EQ(waitpid(pid, NULL, 0), pid);
	CHECK_EQ(*count, 2);
}

/* Never restarted. */
TEST(poll_family)
{
	struct epoll_event ev;
	struct pollfd pfd;
	fd_set fds;
	int p[2], ep = epoll_create1(0);

	CHECK_OK(pipe(p));
	pfd = (struct pollfd){p[0], POLLIN, 0};
	interrupt(SA_RESTART);
	CHECK_ERR(poll(&pfd, 1, 25000), EINTR);
	interrupt(SA_RESTART);
	CHECK_ERR(poll(&pfd, 1, -1), EINTR);
	interrupt(SA_RESTART);
	CHECK_ERR(ppoll(&pfd, 1, NULL, NULL), EINTR);
	FD_ZERO(&fds);
	FD_SET(p[0], &fds);
	interrupt(SA_RESTART);
	CHECK_ERR(select(p[0] + 1, &fds, NULL, NULL, NULL), EINTR);
	interrupt(SA_RESTART);
	CHECK_ERR(epoll_wait(ep, &ev, 1, -1), EINTR);
	CHECK_EQ(*count, 5);
}

static void arm(int ms)
{
	handle(0);
	CHECK(signal(SIGALRM, on_signal) != SIG_ERR);
	CHECK_OK(setitimer(ITIMER_REAL, &(struct itimerval){{0, 0}, {0, ms * 1000}}, NULL));
}

/* Until the alarm is pending, however busy the machine is. */
static void wait_pending(void)
{
	sigset_t set;

	do {
		t_sleep_ms(5);
		CHECK_OK(sigpending(&set));
	} while (!sigismember(&set, SIGALRM));
}

TEST(sleeps)
{
	struct timespec ts = {25, 0}, rem = {0, 0};

	handle(SA_RESTART);
	t_signal_sleeper(SIGUSR1, 50);
	CHECK_ERR(nanosleep(&ts, &rem), EINTR);
	CHECK(rem.tv_sec >= 0 && rem.tv_sec * 1000 + rem.tv_nsec / 1000000 < 24960);
	CHECK(rem.tv_sec || rem.tv_nsec);
	t_signal_sleeper(SIGUSR1, 50);
	CHECK_EQ(clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, &rem), EINTR);
	CHECK(rem.tv_sec >= 0 && rem.tv_sec * 1000 + rem.tv_nsec / 1000000 < 24960);
	CHECK(rem.tv_sec || rem.tv_nsec);
	interrupt(0);
	CHECK_EQ(pause(), -1);
	CHECK_EQ(*count, 3);
}

/* An ignored signal, or one that stops and continues, does not end a sleep. */
TEST(not_woken_by_ignored)
{
	struct timespec ts = {0, 150000000};
	int64_t start = t_now_ms();
	struct pollfd pfd = {-1, 0, 0};
	pid_t pid;

	pid = fork();
	if (pid == 0) {
		t_sleep_ms(30);
		kill(getppid(), SIGWINCH);
		t_sleep_ms(30);
		kill(getppid(), SIGSTOP);
		t_sleep_ms(30);
		kill(getppid(), SIGCONT);
		_exit(0);
	}
	CHECK_OK(nanosleep(&ts, NULL));
	CHECK(t_now_ms() - start >= 149);
	t_wait_ok(pid);
	pid = fork();
	if (pid == 0) {
		t_sleep_ms(20);
		kill(getppid(), SIGSTOP);
		t_sleep_ms(20);
		kill(getppid(), SIGCONT);
		_exit(0);
	}
	CHECK_EQ(poll(&pfd, 1, 100), 0);
	t_wait_ok(pid);
}

TEST(ppoll_mask)
{
	struct timespec ts = {0, 100000000};
	sigset_t block, none;
	int p[2];

	CHECK_OK(pipe(p));
	sigemptyset(&none);
	sigemptyset(&block);
	sigaddset(&block, SIGALRM);
	CHECK_OK(sigprocmask(SIG_BLOCK, &block, NULL));
	arm(10);
	wait_pending();
	CHECK_EQ(*count, 0);
	/* Atomic: the pending signal comes in at the start of the wait. */
	CHECK_ERR(ppoll(&(struct pollfd){p[0], POLLIN, 0}, 1, &ts, &none), EINTR);
	CHECK_EQ(*count, 1);
	arm(10);
	wait_pending();
	CHECK_ERR(pselect(0, NULL, NULL, NULL, &ts, &none), EINTR);
	CHECK_EQ(*count, 2);
	/* And is blocked again afterwards. */
	arm(10);
	wait_pending();
	CHECK_EQ(*count, 2);
}

TEST(fifo_open)
{
	pid_t parent = getpid(), pid;

	CHECK_OK(mkfifo("p", 0600));
	interrupt(0);
	CHECK_ERR(open("p", O_RDONLY), EINTR);
	handle(SA_RESTART);
	pid = fork();
	if (pid == 0) {
		t_wait_state(parent, "S");
		CHECK_OK(kill(parent, SIGUSR1));
		while (*count == 1)
			t_sleep_ms(1);
		t_wait_state(parent, "S");
		_exit(open("p", O_WRONLY) < 0);
	}
	CHECK_OK(open("p", O_RDONLY));
	t_wait_ok(pid);
	CHECK_EQ(*count, 2);
}
