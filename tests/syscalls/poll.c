/* poll, ppoll, select, pselect and epoll. */
#include "t.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/socket.h>

static int pair[2];

static void make_pipe(void)
{
	CHECK_OK(pipe(pair));
}

static void put(void)
{
	CHECK_EQ(write(pair[1], "x", 1), 1);
}

static void take(void)
{
	char c;

	CHECK_EQ(read(pair[0], &c, 1), 1);
}

TEST(poll_basics)
{
	struct pollfd p[3];
	int64_t start;

	make_pipe();
	p[0] = (struct pollfd){pair[0], POLLIN, 99};
	p[1] = (struct pollfd){-1, POLLIN, 99};
	p[2] = (struct pollfd){999, POLLIN, 99};
	CHECK_EQ(poll(p, 2, 0), 0);
	CHECK_EQ(p[0].revents | p[1].revents, 0);
	CHECK_EQ(poll(p, 3, -1), 1);
	CHECK_EQ(p[2].revents, POLLNVAL);
	put();
	CHECK_EQ(poll(p, 3, -1), 2);
	CHECK_EQ(p[0].revents, POLLIN);
	take();
	start = t_now_ms();
	CHECK_EQ(poll(p, 1, 30), 0);
	CHECK(t_now_ms() - start >= 29);
	CHECK_EQ(poll(NULL, 0, 10), 0);
	CHECK_ERR(poll((void *)8, 1, 0), EFAULT);
	CHECK_OK(setrlimit(RLIMIT_NOFILE, &(struct rlimit){20, 20}));
	CHECK_ERR(poll(p, 21, 0), EINVAL);
}

TEST(poll_regular_file)
{
	struct pollfd p = {t_file("f", ""), POLLIN | POLLOUT | POLLPRI, 0};

	CHECK_EQ(poll(&p, 1, -1), 1);
	CHECK_EQ(p.revents, POLLIN | POLLOUT);
}

static void *put_later(void *arg)
{
	t_sleep_ms(40);
	put();
	return arg;
}

TEST(poll_wakes)
{
	struct pollfd p;
	pthread_t t;

	make_pipe();
	p = (struct pollfd){pair[0], POLLIN, 0};
	CHECK_EQ(pthread_create(&t, NULL, put_later, NULL), 0);
	CHECK_EQ(poll(&p, 1, 5000), 1);
	pthread_join(t, NULL);
	p.revents = 0;
	CHECK_EQ(ppoll(&p, 1, &(struct timespec){0, 0}, NULL), 1);
	CHECK_ERR(ppoll(&p, 1, &(struct timespec){0, -1}, NULL), EINVAL);
}

TEST(select_basics)
{
	struct timeval tv = {0, 30000};
	fd_set r, w, e;

	make_pipe();
	FD_ZERO(&r);
	FD_ZERO(&w);
	FD_ZERO(&e);
	FD_SET(pair[0], &r);
	FD_SET(pair[1], &w);
	CHECK_EQ(select(pair[1] + 1, &r, &w, &e, NULL), 1);
	CHECK(!FD_ISSET(pair[0], &r) && FD_ISSET(pair[1], &w));
	put();
	FD_SET(pair[0], &r);
	CHECK_EQ(select(pair[1] + 1, &r, &w, NULL, NULL), 2);
	take();
	FD_ZERO(&r);
	FD_SET(pair[0], &r);
	CHECK_EQ(select(pair[0] + 1, &r, NULL, NULL, &tv), 0);
	/* Linux writes back what is left. */
	CHECK_EQ(tv.tv_sec * 1000000 + tv.tv_usec, 0);
	CHECK(!FD_ISSET(pair[0], &r));
	FD_SET(40, &r);
	CHECK_ERR(select(41, &r, NULL, NULL, &tv), EBADF);
	CHECK_ERR(select(-1, NULL, NULL, NULL, &tv), EINVAL);
	tv.tv_usec = -1;
	CHECK_ERR(select(0, NULL, NULL, NULL, &tv), EINVAL);
	tv = (struct timeval){0, 1000};
	CHECK_EQ(select(0, NULL, NULL, NULL, &tv), 0);
}

static int ep, got;
static struct epoll_event ev;

static int wait_now(void)
{
	memset(&ev, 0, sizeof(ev));
	got = epoll_wait(ep, &ev, 1, 0);
	return got;
}

static void add(int fd, uint32_t events, uint64_t data)
{
	struct epoll_event e = {.events = events, .data.u64 = data};

	CHECK_OK(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e));
}

TEST(epoll_level)
{
	make_pipe();
	ep = epoll_create1(EPOLL_CLOEXEC);
	CHECK(ep >= 0);
	add(pair[0], EPOLLIN, 0x1122334455667788);
	CHECK_EQ(wait_now(), 0);
	put();
	for (int i = 0; i < 3; i++) {
		CHECK_EQ(wait_now(), 1);
		CHECK_EQ(ev.events, EPOLLIN);
		CHECK_EQ(ev.data.u64, 0x1122334455667788);
	}
	take();
	CHECK_EQ(wait_now(), 0);
	close(pair[1]);
	CHECK_EQ(wait_now(), 1);
	CHECK_EQ(ev.events, EPOLLHUP);
}

TEST(epoll_edge)
{
	make_pipe();
	ep = epoll_create1(0);
	put();
	add(pair[0], EPOLLIN | EPOLLET, 1);
	CHECK_EQ(wait_now(), 1);
	CHECK_EQ(wait_now(), 0);
	/* More data is a new edge although some was there. */
	put();
	CHECK_EQ(wait_now(), 1);
	CHECK_EQ(wait_now(), 0);
	take();
	CHECK_EQ(wait_now(), 0);
	put();
	CHECK_EQ(wait_now(), 1);
	/* MOD looks again. */
	CHECK_OK(epoll_ctl(ep, EPOLL_CTL_MOD, pair[0],
			   &(struct epoll_event){.events = EPOLLIN | EPOLLET}));
	CHECK_EQ(wait_now(), 1);
	CHECK_EQ(wait_now(), 0);
}

TEST(epoll_oneshot)
{
	make_pipe();
	ep = epoll_create1(0);
	add(pair[0], EPOLLIN | EPOLLONESHOT, 1);
	put();
	CHECK_EQ(wait_now(), 1);
	CHECK_EQ(wait_now(), 0);
	put();
	CHECK_EQ(wait_now(), 0);
	CHECK_OK(epoll_ctl(ep, EPOLL_CTL_MOD, pair[0],
			   &(struct epoll_event){.events = EPOLLIN | EPOLLONESHOT}));
	CHECK_EQ(wait_now(), 1);
	CHECK_EQ(wait_now(), 0);
}

TEST(epoll_ctl_errors)
{
	struct epoll_event e = {.events = EPOLLIN};
	int fd = t_file("f", ""), other;

	make_pipe();
	ep = epoll_create1(0);
	other = epoll_create(1);
	CHECK_ERR(epoll_create(0), EINVAL);
	CHECK_ERR(epoll_create1(1), EINVAL);
	CHECK_ERR(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e), EPERM);
	CHECK_ERR(epoll_ctl(ep, EPOLL_CTL_ADD, 999, &e), EBADF);
	CHECK_ERR(epoll_ctl(999, EPOLL_CTL_ADD, pair[0], &e), EBADF);
	CHECK_ERR(epoll_ctl(pair[0], EPOLL_CTL_ADD, pair[1], &e), EINVAL);
	CHECK_ERR(epoll_ctl(ep, EPOLL_CTL_ADD, ep, &e), EINVAL);
	CHECK_ERR(epoll_ctl(ep, EPOLL_CTL_MOD, pair[0], &e), ENOENT);
	CHECK_ERR(epoll_ctl(ep, EPOLL_CTL_DEL, pair[0], &e), ENOENT);
	CHECK_OK(epoll_ctl(ep, EPOLL_CTL_ADD, pair[0], &e));
	CHECK_ERR(epoll_ctl(ep, EPOLL_CTL_ADD, pair[0], &e), EEXIST);
	CHECK_OK(epoll_ctl(ep, EPOLL_CTL_DEL, pair[0], NULL));
	CHECK_ERR(epoll_ctl(ep, 99, pair[0], &e), EINVAL);
	CHECK_ERR(epoll_wait(ep, &e, 0, 0), EINVAL);
	CHECK_ERR(epoll_wait(pair[0], &e, 1, 0), EINVAL);
	/* No cycles. */
	CHECK_OK(epoll_ctl(ep, EPOLL_CTL_ADD, other, &e));
	CHECK_ERR(epoll_ctl(other, EPOLL_CTL_ADD, ep, &e), ELOOP);
}

TEST(epoll_nested)
{
	int inner = epoll_create1(0);
	struct pollfd p = {inner, POLLIN, 0};

	make_pipe();
	ep = inner;
	add(pair[0], EPOLLIN, 1);
	ep = epoll_create1(0);
	add(inner, EPOLLIN, 2);
	CHECK_EQ(wait_now(), 0);
	CHECK_EQ(poll(&p, 1, 0), 0);
	put();
	CHECK_EQ(poll(&p, 1, 0), 1);
	CHECK_EQ(wait_now(), 1);
	CHECK_EQ(ev.data.u64, 2);
	take();
	CHECK_EQ(wait_now(), 0);
}

/* Registered is the open file: a duplicate keeps it, the last close removes it. */
TEST(epoll_and_close)
{
	int d;

	make_pipe();
	ep = epoll_create1(0);
	put();
	d = dup(pair[0]);
	add(pair[0], EPOLLIN, 1);
	close(pair[0]);
	CHECK_EQ(wait_now(), 1);
	close(d);
	CHECK_EQ(wait_now(), 0);
}

TEST(epoll_many)
{
	struct epoll_event evs[64];
	int fds[100], seen = 0;
	uint64_t one = 1;

	ep = epoll_create1(0);
	for (int i = 0; i < 100; i++) {
		fds[i] = eventfd(0, EFD_NONBLOCK);
		add(fds[i], EPOLLIN | EPOLLET, (uint64_t)i);
	}
	for (int i = 0; i < 100; i += 2)
		CHECK_EQ(write(fds[i], &one, 8), 8);
	for (;;) {
		int n = epoll_wait(ep, evs, 20, 0);

		if (n == 0)
			break;
		for (int i = 0; i < n; i++)
			CHECK_EQ(evs[i].data.u64 % 2, 0);
		seen += n;
	}
	CHECK_EQ(seen, 50);
}

static atomic_int woken;

static void *wait_forever(void *arg)
{
	struct epoll_event e;

	if (epoll_wait(ep, &e, 1, -1) == 1)
		woken++;
	return arg;
}

TEST(epoll_wakes_one_of_edge_waiters)
{
	pthread_t t[4];

	make_pipe();
	ep = epoll_create1(0);
	add(pair[0], EPOLLIN | EPOLLET, 1);
	for (int i = 0; i < 4; i++)
		CHECK_EQ(pthread_create(&t[i], NULL, wait_forever, NULL), 0);
	t_sleep_ms(60);
	put();
	for (int i = 0; i < 4000 && !woken; i++)
		t_sleep_ms(5);
	/* The others would have come by now; they wait until the process ends. */
	t_sleep_ms(100);
	CHECK_EQ(woken, 1);
}

TEST(epoll_add_while_waiting)
{
	pthread_t t;

	make_pipe();
	put();
	ep = epoll_create1(0);
	CHECK_EQ(pthread_create(&t, NULL, wait_forever, NULL), 0);
	t_sleep_ms(40);
	add(pair[0], EPOLLIN, 1);
	pthread_join(t, NULL);
	CHECK_EQ(woken, 1);
}

TEST(epoll_exclusive)
{
	struct epoll_event e = {.events = EPOLLIN | EPOLLEXCLUSIVE};

	make_pipe();
	ep = epoll_create1(0);
	CHECK_OK(epoll_ctl(ep, EPOLL_CTL_ADD, pair[0], &e));
	CHECK_ERR(epoll_ctl(ep, EPOLL_CTL_MOD, pair[0], &e), EINVAL);
	put();
	CHECK_EQ(wait_now(), 1);
}

TEST(epoll_socket_edges)
{
	char c;
	int s[2];

	CHECK_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, s));
	ep = epoll_create1(0);
	add(s[0], EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, 1);
	CHECK_EQ(wait_now(), 1);
	CHECK_EQ(ev.events, EPOLLOUT);
	CHECK_EQ(write(s[1], "x", 1), 1);
	CHECK_EQ(wait_now(), 1);
	CHECK_EQ(ev.events, EPOLLIN | EPOLLOUT);
	CHECK_EQ(read(s[0], &c, 1), 1);
	close(s[1]);
	CHECK_EQ(wait_now(), 1);
	CHECK_EQ(ev.events, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLHUP);
}

TEST(epoll_pwait2)
{
	struct timespec ts = {0, 20000000};
	int64_t start = t_now_ms();

	ep = epoll_create1(0);
	CHECK_EQ(syscall(SYS_epoll_pwait2, ep, &ev, 1, &ts, NULL, 8), 0);
	CHECK(t_now_ms() - start >= 19);
}
