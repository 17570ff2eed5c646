/* Asynchronous I/O. */
#include "t.h"

#include <linux/aio_abi.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

#define CMD_POLL 5

static long setup(unsigned n, aio_context_t *c)
{
	return syscall(SYS_io_setup, n, c);
}

static long submit(aio_context_t c, long n, struct iocb **list)
{
	return syscall(SYS_io_submit, c, n, list);
}

static long events(aio_context_t c, long min, long max, struct io_event *ev, struct timespec *ts)
{
	return syscall(SYS_io_getevents, c, min, max, ev, ts);
}

static long destroy(aio_context_t c)
{
	return syscall(SYS_io_destroy, c);
}

static aio_context_t context(void)
{
	aio_context_t c = 0;

	CHECK_OK(setup(8, &c));
	CHECK(c != 0);
	return c;
}

static struct iocb rw(int op, int fd, void *buf, size_t size, long off)
{
	return (struct iocb){.aio_lio_opcode = (uint16_t)op,
			     .aio_fildes = (uint32_t)fd,
			     .aio_buf = (uint64_t)(uintptr_t)buf,
			     .aio_nbytes = size,
			     .aio_offset = off};
}

TEST(contexts)
{
	aio_context_t c = 0, other = 0;
	struct io_event ev;
	pid_t pid;

	CHECK_ERR(setup(0, &c), EINVAL);
	CHECK_ERR(setup(8, NULL), EFAULT);
	CHECK_ERR(setup(0x10000000, &c), EINVAL);
	other = 1;
	CHECK_ERR(setup(8, &other), EINVAL);
	CHECK_ERR(destroy(0), EINVAL);
	CHECK_ERR(destroy(0x1234000), EINVAL);
	CHECK_OK(setup(8, &c));
	CHECK_ERR(events(c, -1, 1, &ev, NULL), EINVAL);
	CHECK_ERR(events(c, 2, 1, &ev, NULL), EINVAL);
	CHECK_ERR(events(c + 8, 0, 1, &ev, NULL), EINVAL);
	CHECK_EQ(events(c, 0, 1, &ev, NULL), 0);
	CHECK_EQ(events(c, 1, 1, &ev, &(struct timespec){0, 20000000}), 0);
	CHECK_ERR(submit(c, -1, NULL), EINVAL);
	CHECK_EQ(submit(c, 0, NULL), 0);
	CHECK_ERR(submit(c, 1, NULL), EFAULT);
	/* A context is not inherited. */
	pid = fork();
	if (pid == 0) {
		CHECK_ERR(events(c, 0, 1, &ev, NULL), EINVAL);
		_exit(0);
	}
	t_wait_ok(pid);
	CHECK_OK(destroy(c));
	CHECK_ERR(destroy(c), EINVAL);
	CHECK_ERR(events(c, 0, 1, &ev, NULL), EINVAL);
}

TEST(read_and_write)
{
	aio_context_t c = context();
	struct iocb w, r, v, *list[3] = {&w, &r, &v};
	struct io_event ev[4];
	char buf[8] = "", a[3] = "", b[4] = "";
	struct iovec iov[2] = {{a, 2}, {b, 3}};
	int fd = open("f", O_CREAT | O_RDWR, 0600);

	w = rw(IOCB_CMD_PWRITE, fd, "hello", 5, 0);
	w.aio_data = 1;
	r = rw(IOCB_CMD_PREAD, fd, buf, 8, 1);
	r.aio_data = 2;
	v = rw(IOCB_CMD_PREADV, fd, iov, 2, 0);
	v.aio_data = 3;
	CHECK_EQ(submit(c, 1, list), 1);
	CHECK_EQ(events(c, 1, 4, ev, NULL), 1);
	CHECK_EQ(ev[0].data, 1);
	CHECK_EQ(ev[0].obj, (uintptr_t)&w);
	CHECK_EQ(ev[0].res, 5);
	CHECK_EQ(ev[0].res2, 0);
	CHECK_EQ(submit(c, 2, list + 1), 2);
	CHECK_EQ(events(c, 2, 4, ev, NULL), 2);
	CHECK_EQ(ev[0].res + ev[1].res, 4 + 5);
	CHECK_STR(buf, "ello");
	CHECK_STR(a, "he");
	CHECK_STR(b, "llo");
	/* The file's offset has no part in it. */
	CHECK_EQ(lseek(fd, 0, SEEK_CUR), 0);
	w = rw(IOCB_CMD_FDSYNC, fd, NULL, 0, 0);
	r = rw(IOCB_CMD_FSYNC, fd, NULL, 0, 0);
	CHECK_EQ(submit(c, 2, list), 2);
	CHECK_EQ(events(c, 2, 4, ev, NULL), 2);
	CHECK_EQ(ev[0].res, 0);
}

TEST(errors)
{
	aio_context_t c = context();
	struct iocb ok, bad, *list[2] = {&ok, &bad};
	struct io_event ev[2];
	char buf[8];
	int fd = t_file("f", "text"), ro = open("f", O_RDONLY);

	ok = rw(IOCB_CMD_PREAD, fd, buf, 8, 0);
	bad = rw(IOCB_CMD_PREAD, 999, buf, 8, 0);
	CHECK_ERR(submit(c, 1, list + 1), EBADF);
	/* What came before the bad one is done. */
	CHECK_EQ(submit(c, 2, list), 1);
	CHECK_EQ(events(c, 1, 2, ev, NULL), 1);
	bad = rw(IOCB_CMD_PWRITE, ro, buf, 8, 0);
	CHECK_ERR(submit(c, 1, list + 1), EBADF);
	bad = rw(77, fd, buf, 8, 0);
	CHECK_ERR(submit(c, 1, list + 1), EINVAL);
	bad = rw(IOCB_CMD_PREAD, fd, buf, 8, -1);
	CHECK_ERR(submit(c, 1, list + 1), EINVAL);
	bad = rw(IOCB_CMD_PREAD, fd, buf, (size_t)-1, 0);
	CHECK_ERR(submit(c, 1, list + 1), EINVAL);
	bad = rw(IOCB_CMD_PREAD, fd, buf, 8, 0);
	bad.aio_reserved2 = 1;
	CHECK_ERR(submit(c, 1, list + 1), EINVAL);
	bad.aio_reserved2 = 0;
	bad.aio_rw_flags = 0x10000;
	CHECK_ERR(submit(c, 1, list + 1), EOPNOTSUPP);
	bad.aio_rw_flags = 0;
	bad.aio_flags = IOCB_FLAG_RESFD;
	bad.aio_resfd = (uint32_t)fd;
	CHECK_ERR(submit(c, 1, list + 1), EINVAL);
	bad.aio_resfd = 999;
	CHECK_ERR(submit(c, 1, list + 1), EBADF);
	list[1] = (void *)8;
	CHECK_ERR(submit(c, 1, list + 1), EFAULT);
	/* A bad buffer is found by the I/O: its event says so. */
	ok = rw(IOCB_CMD_PREAD, fd, (void *)8, 8, 0);
	CHECK_EQ(submit(c, 1, list), 1);
	CHECK_EQ(events(c, 1, 2, ev, NULL), 1);
	CHECK_EQ(ev[0].res, -EFAULT);
	/* An event that cannot be given away is kept. */
	ok = rw(IOCB_CMD_PREAD, fd, buf, 8, 0);
	CHECK_EQ(submit(c, 1, list), 1);
	CHECK_ERR(events(c, 1, 2, (void *)8, NULL), EFAULT);
	CHECK_EQ(events(c, 1, 2, ev, NULL), 1);
	CHECK_EQ(ev[0].res, 4);
}

TEST(eventfd_tells)
{
	aio_context_t c = context();
	struct iocb r, *list[1] = {&r};
	struct io_event ev[2];
	char buf[8];
	uint64_t n;
	int fd = t_file("f", "text"), e = eventfd(0, EFD_NONBLOCK);

	r = rw(IOCB_CMD_PREAD, fd, buf, 8, 0);
	r.aio_flags = IOCB_FLAG_RESFD;
	r.aio_resfd = (uint32_t)e;
	CHECK_EQ(submit(c, 1, list), 1);
	CHECK_EQ(events(c, 1, 2, ev, NULL), 1);
	CHECK_EQ(read(e, &n, 8), 8);
	CHECK_EQ(n, 1);
}

TEST(poll_waits)
{
	aio_context_t c = context();
	struct iocb p, *list[1] = {&p};
	struct io_event ev[2];
	int fds[2];
	pid_t pid;

	CHECK_OK(pipe(fds));
	p = rw(CMD_POLL, fds[0], (void *)(uintptr_t)POLLIN, 0, 0);
	p.aio_data = 7;
	CHECK_EQ(submit(c, 1, list), 1);
	CHECK_EQ(events(c, 1, 2, ev, &(struct timespec){0, 20000000}), 0);
	pid = fork();
	if (pid == 0) {
		t_sleep_ms(50);
		CHECK_EQ(write(fds[1], "x", 1), 1);
		_exit(0);
	}
	CHECK_EQ(events(c, 1, 2, ev, NULL), 1);
	CHECK_EQ(ev[0].data, 7);
	CHECK(ev[0].res & POLLIN);
	t_wait_ok(pid);
	/* Ready at once. */
	CHECK_EQ(submit(c, 1, list), 1);
	CHECK_EQ(events(c, 1, 2, ev, NULL), 1);
	CHECK(ev[0].res & POLLIN);
	p.aio_offset = 1;
	CHECK_ERR(submit(c, 1, list), EINVAL);
	p.aio_offset = 0;
	p.aio_buf = 0x10000;
	CHECK_ERR(submit(c, 1, list), EINVAL);
}

/* What wakes is no call of anybody's. */
TEST(poll_of_a_timer)
{
	struct itimerspec when = {.it_value = {.tv_nsec = 100000000}};
	aio_context_t c = context();
	struct iocb p, *list[1] = {&p};
	struct io_event ev;
	int fd = timerfd_create(CLOCK_MONOTONIC, 0);

	CHECK(fd >= 0);
	p = rw(CMD_POLL, fd, (void *)(uintptr_t)POLLIN, 0, 0);
	for (int i = 0; i < 3; i++) {
		CHECK_OK(timerfd_settime(fd, 0, &when, NULL));
		CHECK_EQ(submit(c, 1, list), 1);
		CHECK_EQ(events(c, 1, 1, &ev, &(struct timespec){20, 0}), 1);
		CHECK(ev.res & POLLIN);
	}
}

/* What wakes is a call that then sleeps until the woken has read. */
TEST(poll_by_a_sleeper)
{
	aio_context_t c = context();
	struct iocb p, *list[1] = {&p};
	struct io_event ev;
	static char buf[200000];
	int fds[2];
	pid_t pid;

	CHECK_OK(pipe(fds));
	p = rw(CMD_POLL, fds[0], (void *)(uintptr_t)POLLIN, 0, 0);
	CHECK_EQ(submit(c, 1, list), 1);
	pid = fork();
	if (pid == 0) {
		t_sleep_ms(50);
		CHECK_EQ(write(fds[1], buf, sizeof(buf)), sizeof(buf));
		_exit(0);
	}
	CHECK_EQ(events(c, 1, 1, &ev, &(struct timespec){20, 0}), 1);
	CHECK(ev.res & POLLIN);
	CHECK_OK(close(fds[1]));
	while (read(fds[0], buf, sizeof(buf)) > 0)
		;
	t_wait_ok(pid);
}

/* Readiness comes while a request is being entered: whoever finishes it, it is watched no longer. */
TEST(poll_races)
{
	aio_context_t c = context();
	struct iocb p, *list[1] = {&p};
	struct io_event ev;
	static char buf[65536];
	int fds[2];
	char x = 0;
	pid_t pid;

	CHECK_OK(pipe2(fds, O_NONBLOCK));
	p = rw(CMD_POLL, fds[0], (void *)(uintptr_t)POLLIN, 0, 0);
	pid = fork();
	if (pid == 0) {
		for (;;)
			(void)!write(fds[1], &x, 1);
	}
	for (int i = 0; i < 2000; i++) {
		CHECK_EQ(submit(c, 1, list), 1);
		CHECK_EQ(events(c, 1, 1, &ev, NULL), 1);
		CHECK(ev.res & POLLIN);
		(void)!read(fds[0], buf, i % 3 ? sizeof(buf) : 1);
	}
	CHECK_OK(kill(pid, SIGKILL));
	CHECK_EQ(waitpid(pid, NULL, 0), pid);
}

TEST(cancel)
{
	aio_context_t c = context();
	struct iocb p, *list[1] = {&p};
	struct io_event ev[2];
	int fds[2];

	CHECK_OK(pipe(fds));
	p = rw(CMD_POLL, fds[0], (void *)(uintptr_t)POLLIN, 0, 0);
	CHECK_ERR(syscall(SYS_io_cancel, c, &p, ev), EINVAL);
	CHECK_ERR(syscall(SYS_io_cancel, c, NULL, ev), EFAULT);
	CHECK_EQ(submit(c, 1, list), 1);
	CHECK_ERR(syscall(SYS_io_cancel, c, &p, ev), EINPROGRESS);
	CHECK_EQ(events(c, 1, 2, ev, NULL), 1);
	CHECK_EQ(ev[0].res, 0);
	CHECK_ERR(syscall(SYS_io_cancel, c, &p, ev), EINVAL);
	/* The end of a context ends what waits in it. */
	CHECK_EQ(submit(c, 1, list), 1);
	CHECK_OK(destroy(c));
	CHECK_EQ(write(fds[1], "x", 1), 1);
}

static void on_signal(int signo)
{
	(void)signo;
}

TEST(interrupted)
{
	aio_context_t c = context();
	struct sigaction sa = {.sa_handler = on_signal};
	struct io_event ev;

	CHECK_OK(sigaction(SIGUSR1, &sa, NULL));
	t_signal_sleeper(SIGUSR1, 0);
	CHECK_ERR(events(c, 1, 1, &ev, NULL), EINTR);
}
