// LINK: moat_socket moat_memfs moat_pipe moat_anon moat_vfs moat_mem moat_base
/* AF_UNIX sockets with one of the host's behind them: what becomes of its descriptor, whatever else is done with the socket. */
#include "tests/unit/check.h"

#include <sys/socket.h>
#include <sys/un.h>

#include "base/hostpoll.h"
#include "base/timer.h"
#include "fsimpl/anon/anon.h"
#include "fsimpl/socket/internal.h"
#include "fsimpl/socket/socket.h"
#include "tests/unit/file_rw.h"
#include "tests/unit/memfs_env.h"

/* A filesystem's endpoint that connects to `other`. */
static struct vfs_endpoint endpoint;
static int other, connects;

static int connect_host(struct vfs_endpoint *e, int type, struct vfs_host_socket *ret)
{
	int sv[2];

	assert_ptr_equal(e, &endpoint);
	assert_int_equal(socketpair(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, sv), 0);
	*ret = (struct vfs_host_socket){sv[0], 7, 8};
	other = sv[1];
	connects++;
	return 0;
}

static struct socket_addr path_addr(const char *path)
{
	struct socket_addr a = {.un = {.sun_family = AF_UNIX}};

	strcpy(a.un.sun_path, path);
	a.len = (unsigned)(offsetof(struct sockaddr_un, sun_path) + strlen(path) + 1);
	return a;
}

static struct file *create(int type)
{
	struct file *f;

	assert_int_equal(socket_create(AF_UNIX, type, 0, &f), 0);
	return f;
}

static int connect_it(struct file *f)
{
	return uhost_connect(usock_of(f), &endpoint, NULL);
}

static ssize_t transfer(struct file *f, void *buf, size_t size, bool recv)
{
	struct socket_msg m = {0};
	struct io_iter it;
	ssize_t n;

	io_iter_init_kernel(&it, buf, size, recv);
	m.it = &it;
	n = recv ? socket_recvmsg(f, &m, MSG_DONTWAIT) : socket_sendmsg(f, &m, MSG_DONTWAIT);
	io_iter_fini(&it);
	return n;
}

/* bind(2) after connect(2): the connection stays what it was, and ends with the socket. */
static void bind_when_connected(void **state)
{
	struct socket_addr a = path_addr("/bound");
	struct vfs_lookup lk = at(".");
	struct file *f = create(SOCK_STREAM);
	char buf[8];

	(void)state;
	assert_int_equal(connect_it(f), 0);
	assert_int_equal(socket_bind(f, &a, &lk, 022), 0);
	assert_int_equal(transfer(f, "abc", 3, false), 3);
	assert_int_equal(recv(other, buf, sizeof(buf), MSG_DONTWAIT), 3);
	assert_int_equal(send(other, "de", 2, MSG_DONTWAIT), 2);
	assert_int_equal(transfer(f, buf, sizeof(buf), true), 2);
	file_unref(f);
	assert_int_equal(recv(other, buf, sizeof(buf), MSG_DONTWAIT), 0);
	close(other);
}

/* The host's listener hears nothing of a connect(2) that must fail. */
static void connect_twice(void **state)
{
	struct file *f = create(SOCK_SEQPACKET);
	int before = connects;

	(void)state;
	assert_int_equal(connect_it(f), 0);
	assert_int_equal(connect_it(f), -EISCONN);
	assert_int_equal(connects, before + 1);
	file_unref(f);
	close(other);
	f = create(SOCK_STREAM);
	assert_int_equal(socket_bind(f,
				     &(struct socket_addr){.un = {.sun_family = AF_UNIX}, .len = 2},
				     NULL, 0),
			 0);
	assert_int_equal(socket_listen(f, 1), 0);
	assert_int_equal(connect_it(f), -EINVAL);
	assert_int_equal(connects, before + 1);
	file_unref(f);
}

/* What the filesystem bound cannot listen: neither does the socket, and nobody waits for it. */
static void listen_refused(void **state)
{
	struct socket_addr a = path_addr("/refused");
	struct vfs_lookup lk = at(".");
	struct file *f = create(SOCK_STREAM), *client = create(SOCK_STREAM);
	int sv[2];

	(void)state;
	assert_int_equal(socket_bind(f, &a, &lk, 022), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	usock_of(f)->host_fd = sv[0];
	assert_int_equal(socket_listen(f, 1), -EINVAL);
	assert_int_equal(usock_of(f)->state, USOCK_IDLE);
	assert_int_equal(socket_connect(client, &a, &lk), -ECONNREFUSED);
	file_unref(client);
	file_unref(f);
	close(sv[1]);
}

/* Bound on the host and connected in the sandbox: only what comes from there counts. */
static void bound_half_of_connected(void **state)
{
	struct file *p[2];
	char buf[8];
	int fd;

	(void)state;
	assert_int_equal(socket_pair(AF_UNIX, SOCK_SEQPACKET, 0, p), 0);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	usock_of(p[0])->host_fd = fd;
	assert_int_equal(transfer(p[0], buf, sizeof(buf), true), -EAGAIN);
	assert_int_equal(transfer(p[1], "xy", 2, false), 2);
	assert_int_equal(transfer(p[0], buf, sizeof(buf), true), 2);
	file_unref(p[0]);
	file_unref(p[1]);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
}

/* Who has another descriptor of the listener makes it blocking: accept(2) does not wait nevertheless, and has what is there. */
static void accept_of_shared(void **state)
{
	struct sockaddr_un name = {.sun_family = AF_UNIX};
	socklen_t len = sizeof(name);
	struct file *f = create(SOCK_STREAM);
	struct usock *l = usock_of(f), *s = NULL;
	const struct timeval late = {.tv_sec = 60};
	int64_t begin;
	int fd, kept, peer;

	(void)state;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	/* An abstract name that the kernel picks. */
	assert_int_equal(bind(fd, (struct sockaddr *)&name, sizeof(sa_family_t)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&name, &len), 0);
	kept = dup(fd);
	assert_true(kept >= 0);
	l->host_fd = fd;
	assert_int_equal(uhost_listen(l, 5), 0);
	assert_int_equal(uhost_accept(l, &s), -EAGAIN);
	assert_int_equal(fcntl(kept, F_SETFL, 0), 0);
	assert_int_equal(setsockopt(kept, SOL_SOCKET, SO_RCVTIMEO, &late, sizeof(late)), 0);
	for (int i = 0; i < 3; i++) {
		begin = time_monotonic_ns();
		assert_int_equal(uhost_accept(l, &s), -EAGAIN);
		assert_in_range(time_monotonic_ns() - begin, 0, 10000000000ll);
	}
	peer = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(peer, (struct sockaddr *)&name, len), 0);
	assert_int_equal(uhost_accept(l, &s), 0);
	usock_close(s);
	usock_unref(s);
	close(peer);
	file_unref(f);
	close(kept);
}

static int setup(void **state)
{
	(void)state;
	if (memfs_env_init() || anon_init() || timer_thread_start() || hostpoll_start())
		return -1;
	endpoint.connect_host = connect_host;
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bind_when_connected), cmocka_unit_test(connect_twice),
		cmocka_unit_test(listen_refused),      cmocka_unit_test(bound_half_of_connected),
		cmocka_unit_test(accept_of_shared),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
