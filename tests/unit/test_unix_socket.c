// LINK: moat_socket moat_pipe moat_anon moat_vfs moat_mem moat_base
/* AF_UNIX: pairs, connections, abstract names, datagrams, descriptors in messages, shutdown, readiness. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/rcu.h"
#include "fsimpl/anon/anon.h"
#include "fsimpl/pipe/pipe.h"
#include "fsimpl/socket/socket.h"
#include "tests/unit/file_rw.h"

static int raised;

static void on_signal(int signo)
{
	raised = signo;
}

static ssize_t msg_send(struct file *f, const void *buf, size_t size, struct socket_addr *to,
			struct file *pass, int flags)
{
	struct socket_msg m = {.addr = to};
	struct io_iter it;
	ssize_t n;

	io_iter_init_kernel(&it, (void *)buf, size, false);
	m.it = &it;
	if (pass)
		m.files[m.nfiles++] = pass;
	n = socket_sendmsg(f, &m, flags);
	io_iter_fini(&it);
	return n;
}

static ssize_t msg_recv(struct file *f, void *buf, size_t size, struct socket_msg *m, int flags)
{
	struct io_iter it;
	ssize_t n;

	io_iter_init_kernel(&it, buf, size, true);
	m->it = &it;
	n = socket_recvmsg(f, m, flags);
	io_iter_fini(&it);
	return n;
}

static struct socket_addr abstract(const char *name)
{
	struct socket_addr a = {.un = {.sun_family = AF_UNIX}};

	memcpy(a.un.sun_path + 1, name, strlen(name));
	a.len = (unsigned)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name));
	return a;
}

static void test_errors(void **state)
{
	struct file *f;

	(void)state;
	assert_int_equal(socket_create(AF_INET, SOCK_STREAM, 0, &f), -EAFNOSUPPORT);
	assert_int_equal(socket_create(AF_NETLINK, SOCK_RAW, 0, &f), -EAFNOSUPPORT);
	assert_int_equal(socket_create(AF_UNIX, SOCK_RDM, 0, &f), -ESOCKTNOSUPPORT);
	assert_int_equal(socket_create(AF_UNIX, SOCK_STREAM, 7, &f), -EPROTONOSUPPORT);
	assert_int_equal(socket_create(AF_UNIX, 77, 0, &f), -EINVAL);
}

static void test_pair_stream(void **state)
{
	struct file *p[2];
	char buf[32];
	unsigned len;
	struct ucred uc;

	(void)state;
	assert_int_equal(socket_pair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p), 0);
	assert_int_equal(file_rd(p[0], buf, 1), -EAGAIN);
	assert_int_equal(file_poll(p[0]), POLLOUT | POLLWRNORM | POLLWRBAND);
	assert_int_equal(file_wr(p[0], "hello", 5), 5);
	assert_int_equal(file_wr(p[0], "world", 5), 5);
	assert_int_equal(file_rd(p[1], buf, 7), 7);
	assert_memory_equal(buf, "hellowo", 7);
	{
		struct socket_msg m = {0};

		assert_int_equal(msg_recv(p[1], buf, 10, &m, MSG_PEEK), 3);
		assert_int_equal(msg_recv(p[1], buf, 10, &m, 0), 3);
	}
	len = sizeof(uc);
	assert_int_equal(socket_getsockopt(p[0], SOL_SOCKET, SO_PEERCRED, &uc, &len), 0);
	assert_int_equal(uc.pid, 42);
	/* shutdown: what was sent is still read, then the end */
	assert_int_equal(file_wr(p[0], "x", 1), 1);
	assert_int_equal(socket_shutdown(p[0], SHUT_WR), 0);
	assert_true(file_poll(p[1]) & POLLRDHUP);
	assert_int_equal(file_rd(p[1], buf, 5), 1);
	assert_int_equal(file_rd(p[1], buf, 5), 0);
	raised = 0;
	assert_int_equal(file_wr(p[0], "x", 1), -EPIPE);
	assert_int_equal(raised, SIGPIPE);
	assert_int_equal(file_wr(p[1], "y", 1), 1);
	/* closed with unread bytes: a reset, told once */
	file_unref(p[0]);
	assert_int_equal(file_rd(p[1], buf, 5), -ECONNRESET);
	assert_int_equal(file_rd(p[1], buf, 5), 0);
	assert_true(file_poll(p[1]) & POLLHUP);
	file_unref(p[1]);
}

static void test_full(void **state)
{
	char *big = calloc(1, 1 << 20);
	struct file *p[2];
	ssize_t n, m;

	(void)state;
	assert_int_equal(socket_pair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p), 0);
	n = file_wr(p[0], big, 1 << 20);
	assert_in_range(n, 100000, 300000);
	assert_int_equal(file_wr(p[0], big, 1), -EAGAIN);
	assert_int_equal(file_poll(p[0]) & POLLOUT, 0);
	m = file_rd(p[1], big, 1 << 20);
	assert_int_equal(m, n);
	assert_true(file_poll(p[0]) & POLLOUT);
	file_unref(p[0]);
	file_unref(p[1]);
	free(big);
}

static void test_connect(void **state)
{
	struct socket_addr a = abstract("test"), got;
	struct file *l, *c, *s, *l2;
	char buf[8];
	int v;
	unsigned len = sizeof(v);

	(void)state;
	assert_int_equal(socket_create(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, &l), 0);
	assert_int_equal(socket_create(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, &c), 0);
	assert_int_equal(file_poll(c), POLLHUP | POLLOUT | POLLWRNORM | POLLWRBAND);
	assert_int_equal(file_wr(c, "x", 1), -ENOTCONN);
	assert_int_equal(file_rd(c, buf, 1), -EINVAL);
	assert_int_equal(socket_connect(c, &a, NULL), -ECONNREFUSED);
	assert_int_equal(socket_listen(l, 5), -EINVAL); /* no name */
	assert_int_equal(socket_bind(l, &a, NULL, 0), 0);
	assert_int_equal(socket_bind(l, &a, NULL, 0), -EINVAL);
	assert_int_equal(socket_create(AF_UNIX, SOCK_STREAM, 0, &l2), 0);
	assert_int_equal(socket_bind(l2, &a, NULL, 0), -EADDRINUSE);
	file_unref(l2);
	assert_int_equal(socket_connect(c, &a, NULL), -ECONNREFUSED);
	assert_int_equal(socket_listen(l, 0), 0);
	assert_int_equal(socket_getsockopt(l, SOL_SOCKET, SO_ACCEPTCONN, &v, &len), 0);
	assert_int_equal(v, 1);
	assert_int_equal(socket_accept(l, 0, NULL, &s), -EAGAIN);
	assert_int_equal(socket_connect(c, &a, NULL), 0);
	assert_int_equal(socket_connect(c, &a, NULL), -EISCONN);
	assert_true(file_poll(l) & POLLIN);
	assert_int_equal(socket_create(AF_UNIX, SOCK_STREAM, 0, &l2), 0);
	assert_int_equal(socket_connect(l2, &a, NULL), -EAGAIN); /* backlog 0: one waits */
	assert_int_equal(file_wr(c, "hi", 2), 2); /* before accept */
	assert_int_equal(socket_accept(l, SOCK_NONBLOCK, &got, &s), 0);
	assert_int_equal(socket_connect_wait(l2, TIME_FOREVER), 0);
	assert_int_equal(socket_connect(l2, &a, NULL), 0);
	assert_int_equal(got.len, sizeof(sa_family_t));
	assert_int_equal(socket_getname(c, true, &got), 0);
	assert_int_equal(got.len, a.len);
	assert_memory_equal(&got.un, &a.un, a.len);
	assert_int_equal(file_rd(s, buf, 8), 2);
	file_unref(s);
	assert_int_equal(file_rd(c, buf, 8), 0);
	assert_int_equal(file_wr(c, "x", 1), -EPIPE);
	/* never accepted */
	file_unref(l);
	assert_int_equal(file_rd(l2, buf, 8), -ECONNRESET);
	file_unref(c);
	file_unref(l2);
}

static void test_dgram(void **state)
{
	struct socket_addr a = abstract("dg"), from = {0}, un = {0};
	struct file *r, *s;
	struct socket_msg m = {0};
	char buf[64];

	(void)state;
	assert_int_equal(socket_create(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, &r), 0);
	assert_int_equal(socket_create(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, &s), 0);
	assert_int_equal(socket_bind(r, &a, NULL, 0), 0);
	assert_int_equal(file_wr(s, "x", 1), -ENOTCONN);
	un.sa.sa_family = AF_UNIX;
	un.len = sizeof(sa_family_t);
	assert_int_equal(socket_bind(s, &un, NULL, 0), 0); /* autobind */
	assert_int_equal(msg_send(s, "first", 5, &a, NULL, 0), 5);
	assert_int_equal(msg_send(s, "", 0, &a, NULL, 0), 0);
	assert_int_equal(socket_connect(s, &a, NULL), 0);
	assert_int_equal(file_wr(s, "third message", 13), 13);
	m.addr = &from;
	assert_int_equal(msg_recv(r, buf, 3, &m, MSG_PEEK | MSG_TRUNC), 5);
	assert_int_equal(m.flags, MSG_TRUNC);
	assert_int_equal(from.len, offsetof(struct sockaddr_un, sun_path) + 6);
	assert_int_equal(msg_recv(r, buf, 64, &m, 0), 5);
	assert_int_equal(m.flags, 0);
	assert_int_equal(msg_recv(r, buf, 64, &m, 0), 0);
	assert_int_equal(file_rd(r, buf, 5), 5); /* cut */
	assert_int_equal(file_rd(r, buf, 5), -EAGAIN);
	file_unref(r);
	assert_int_equal(file_wr(s, "x", 1), -ECONNREFUSED);
	assert_int_equal(file_wr(s, "x", 1), -ENOTCONN);
	file_unref(s);
}

static void test_seqpacket(void **state)
{
	struct file *p[2];
	char buf[16];

	(void)state;
	assert_int_equal(socket_pair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, p), 0);
	assert_int_equal(file_wr(p[0], "abc", 3), 3);
	assert_int_equal(file_wr(p[0], "de", 2), 2);
	assert_int_equal(file_rd(p[1], buf, 16), 3);
	assert_int_equal(file_rd(p[1], buf, 16), 2);
	file_unref(p[0]);
	assert_int_equal(file_rd(p[1], buf, 16), 0);
	file_unref(p[1]);
}

static void test_rights(void **state)
{
	struct file *p[2], *pp[2];
	struct socket_msg m = {0};
	char buf[32];

	(void)state;
	assert_int_equal(socket_pair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p), 0);
	assert_int_equal(pipe_create(O_NONBLOCK, pp), 0);
	assert_int_equal(file_wr(p[0], "12", 2), 2);
	assert_int_equal(msg_send(p[0], "34", 2, NULL, pp[1], 0), 2);
	assert_int_equal(file_wr(p[0], "56", 2), 2);
	file_unref(pp[1]);
	/* Bytes without descriptors, then those with, alone. */
	assert_int_equal(msg_recv(p[1], buf, 32, &m, 0), 2);
	assert_int_equal(m.nfiles, 0);
	assert_int_equal(msg_recv(p[1], buf, 32, &m, MSG_PEEK), 2);
	assert_int_equal(m.nfiles, 1);
	file_unref(m.files[0]);
	assert_int_equal(msg_recv(p[1], buf, 32, &m, 0), 2);
	assert_int_equal(m.nfiles, 1);
	assert_memory_equal(buf, "34", 2);
	assert_int_equal(file_wr(m.files[0], "z", 1), 1);
	file_unref(m.files[0]);
	assert_int_equal(file_rd(pp[0], buf, 2), 1);
	assert_int_equal(file_rd(pp[0], buf, 2), 0);
	/* Dropped with the queue; a socket in its own queue too. */
	assert_int_equal(msg_send(p[0], "7", 1, NULL, pp[0], 0), 1);
	file_unref(pp[0]);
	file_unref(p[0]);
	file_unref(p[1]);
	vfs_run_deferred();
}

/* True when nobody has the pipe's writing end any more. */
static bool pipe_ended(struct file *reader)
{
	char c;

	vfs_run_deferred();
	return file_rd(reader, &c, 1) == 0;
}

static void fresh_pair(struct file *p[2])
{
	assert_int_equal(socket_pair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p), 0);
}

static void drop_pair(struct file *p[2])
{
	file_unref(p[0]);
	file_unref(p[1]);
}

#define CYCLE_LENGTH 200

static void test_cycles(void **state)
{
	struct file *pp[2], *p[CYCLE_LENGTH][2], *q[2];
	struct socket_msg m = {0};
	char c;

	(void)state;
	assert_int_equal(pipe_create(O_NONBLOCK, pp), 0);
	/* A ring of sockets, each in the queue of the next, with leaves that have nothing. */
	for (int i = 0; i < CYCLE_LENGTH; i++)
		fresh_pair(p[i]);
	for (int i = 0; i < CYCLE_LENGTH; i++) {
		assert_int_equal(msg_send(p[i][0], "x", 1, NULL, p[(i + 1) % CYCLE_LENGTH][1], 0),
				 1);
		fresh_pair(q);
		assert_int_equal(msg_send(p[0][0], "x", 1, NULL, q[0], 0), 1);
		drop_pair(q);
	}
	assert_int_equal(msg_send(p[7][0], "x", 1, NULL, pp[1], 0), 1);
	file_unref(pp[1]);
	for (int i = 0; i < CYCLE_LENGTH; i++) {
		file_unref(p[i][0]);
		if (i)
			file_unref(p[i][1]);
	}
	/* One of them is held: all can be reached through it. */
	fresh_pair(q);
	drop_pair(q);
	assert_false(pipe_ended(pp[0]));
	assert_int_equal(msg_recv(p[0][1], &c, 1, &m, MSG_PEEK), 1);
	assert_int_equal(m.nfiles, 1);
	file_unref(p[0][1]);
	fresh_pair(q);
	drop_pair(q);
	assert_false(pipe_ended(pp[0]));
	file_unref(m.files[0]);
	fresh_pair(q);
	drop_pair(q);
	assert_true(pipe_ended(pp[0]));
	file_unref(pp[0]);
}

#define SHARED_ROUNDS 2000

/* Makes a cycle that holds a socket of use, sends it to everyone, and checks what it gets from someone. */
static void *cycler(void *arg)
{
	struct cred *root;
	struct file *shared = arg, *p[2];
	struct socket_msg m = {0};
	char c;

	rcu_thread_begin();
	if (cred_create_root(&root))
		abort();
	cred_set_current(root);
	for (int i = 0; i < SHARED_ROUNDS; i++) {
		if (socket_pair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p))
			abort();
		if (msg_send(p[0], "c", 1, NULL, p[1], 0) != 1)
			abort();
		if (i & 1)
			(void)!msg_send(shared, "s", 1, NULL, p[1], 0);
		drop_pair(p);
		if (msg_recv(shared, &c, 1, &m, i % 16 == 3 ? MSG_PEEK : 0) == 1 && m.nfiles) {
			struct file *got = m.files[0];

			/* Not collected: the message that it holds is still there. */
			if (msg_recv(got, &c, 1, &m, MSG_PEEK) != 1 || c != 'c' || m.nfiles != 1)
				abort();
			file_unref(m.files[0]);
			file_unref(got);
		}
		vfs_run_deferred();
	}
	cred_set_current(NULL);
	cred_unref(root);
	rcu_thread_end();
	return NULL;
}

static void test_cycles_in_threads(void **state)
{
	struct file *p[2];
	pthread_t t[3];

	(void)state;
	fresh_pair(p);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&t[i], NULL, cycler, p[i & 1]), 0);
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	drop_pair(p);
	vfs_run_deferred();
	fresh_pair(p);
	drop_pair(p);
	vfs_run_deferred();
}

/* A listener in the queue of a connection that it has not accepted. */
static void test_cycle_of_listener(void **state)
{
	struct file *pp[2], *l, *client, *q[2], *conn;
	struct socket_addr a = {.len = 4, .un = {.sun_family = AF_UNIX, .sun_path = {0, 'g'}}};
	struct socket_msg m = {0};
	char c;

	(void)state;
	for (int accepted = 0; accepted < 2; accepted++) {
		assert_int_equal(pipe_create(O_NONBLOCK, pp), 0);
		assert_int_equal(socket_create(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, &l), 0);
		assert_int_equal(socket_create(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, &client),
				 0);
		assert_int_equal(socket_bind(l, &a, NULL, 0), 0);
		assert_int_equal(socket_listen(l, 1), 0);
		assert_int_equal(socket_connect(client, &a, NULL), 0);
		assert_int_equal(msg_send(client, "x", 1, NULL, l, 0), 1);
		assert_int_equal(msg_send(client, "x", 1, NULL, pp[1], 0), 1);
		file_unref(pp[1]);
		if (accepted)
			assert_int_equal(socket_accept(l, SOCK_NONBLOCK, NULL, &conn), 0);
		file_unref(l);
		file_unref(client);
		fresh_pair(q);
		drop_pair(q);
		if (accepted) {
			assert_false(pipe_ended(pp[0]));
			assert_int_equal(msg_recv(conn, &c, 1, &m, 0), 1);
			assert_int_equal(m.nfiles, 1);
			file_unref(m.files[0]);
			file_unref(conn);
		}
		assert_true(pipe_ended(pp[0]));
		file_unref(pp[0]);
	}
}

static void test_creds(void **state)
{
	struct file *p[2];
	struct socket_msg m = {0};
	char buf[8];
	int one = 1;

	(void)state;
	assert_int_equal(socket_pair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, p), 0);
	assert_int_equal(file_wr(p[0], "a", 1), 1);
	assert_int_equal(msg_recv(p[1], buf, 8, &m, 0), 1);
	assert_false(m.has_cred);
	assert_int_equal(socket_setsockopt(p[1], SOL_SOCKET, SO_PASSCRED, &one, sizeof(one)), 0);
	assert_int_equal(file_wr(p[0], "a", 1), 1);
	assert_int_equal(msg_recv(p[1], buf, 8, &m, 0), 1);
	assert_true(m.has_cred);
	assert_int_equal(m.cred.pid, 42);
	assert_int_equal(m.cred.uid, 0);
	file_unref(p[0]);
	file_unref(p[1]);
}

#define STREAM_BYTES (8u << 20)

static void *stream_writer(void *arg)
{
	unsigned char *data = malloc(STREAM_BYTES);

	rcu_thread_begin();
	for (size_t i = 0; i < STREAM_BYTES; i++)
		data[i] = (unsigned char)(i * 13 + (i >> 11));
	for (size_t done = 0; done < STREAM_BYTES;) {
		size_t size = MIN((size_t)(done % 300000 + 1), STREAM_BYTES - done);

		if (file_wr(arg, data + done, size) != (ssize_t)size)
			abort();
		done += size;
	}
	free(data);
	file_unref(arg);
	rcu_thread_end();
	return NULL;
}

static void test_threads(void **state)
{
	unsigned char buf[70000];
	struct file *p[2];
	size_t done = 0;
	pthread_t t;
	ssize_t n;

	(void)state;
	assert_int_equal(socket_pair(AF_UNIX, SOCK_STREAM, 0, p), 0);
	pthread_create(&t, NULL, stream_writer, p[0]);
	while ((n = file_rd(p[1], buf, 1 + done % sizeof(buf))) > 0)
		for (ssize_t i = 0; i < n; i++, done++)
			if (buf[i] != (unsigned char)(done * 13 + (done >> 11)))
				fail();
	assert_int_equal(n, 0);
	assert_int_equal(done, STREAM_BYTES);
	pthread_join(t, NULL);
	file_unref(p[1]);
}

static int32_t fake_tgid(void)
{
	return 42;
}

static void leak(void *arg, const char *name, int64_t live)
{
	(void)arg;
	if (live && (!strncmp(name, "unix", 4) || !strcmp(name, "pipe"))) {
		printf("leak: %s %ld\n", name, (long)live);
		fail();
	}
}

static void test_no_leaks(void **state)
{
	struct buf b;

	(void)state;
	for (int i = 0; i < 3; i++) {
		vfs_run_deferred();
		rcu_drain();
	}
	ref_report(leak, NULL);
	buf_init(&b, BUF_DEFAULT_MAX);
	socket_show_unix(&b);
	assert_string_equal(b.data, "Num       RefCount Protocol Flags    Type St Inode Path\n");
	buf_fini(&b);
}

static int setup(void **state)
{
	struct cred *root;

	(void)state;
	rcu_thread_begin();
	if (vfs_init() || anon_init() || cred_create_root(&root))
		return -1;
	cred_set_current(root);
	vfs_hooks.raise_signal = on_signal;
	socket_hooks.current_tgid = fake_tgid;
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_pair_stream),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_connect),
		cmocka_unit_test(test_dgram),
		cmocka_unit_test(test_seqpacket),
		cmocka_unit_test(test_cycles),
		cmocka_unit_test(test_cycle_of_listener),
		cmocka_unit_test(test_cycles_in_threads),
		cmocka_unit_test(test_rights),
		cmocka_unit_test(test_creds),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_no_leaks),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
