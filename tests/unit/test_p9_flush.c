// LINK: moat_gofer_fs moat_vfs moat_mem moat_wire
/* A caller that is killed while the server keeps it waiting: Tflush, and no tag used again before the Rflush. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/rcu.h"
#include "base/sleep.h"
#include "fsimpl/gofer/conn.h"

static int server;
static uint8_t rx[P9_MSIZE_DEFAULT];

/* The next request; its strings live until the next one. */
static void take(struct p9_msg *ret)
{
	size_t got = 0;
	uint32_t size = P9_HEADER_SIZE;

	while (got < size) {
		ssize_t n = recv(server, rx + got, size - got, 0);

		assert_true(n > 0);
		got += (size_t)n;
		if (got >= 4)
			assert_int_equal(p9_frame_size(rx, got, sizeof(rx), &size), 0);
	}
	assert_int_equal(p9_decode(rx, size, ret), 0);
}

static void answer(const struct p9_msg *r)
{
	uint8_t buf[512];
	size_t size;

	assert_int_equal(p9_encode(r, buf, sizeof(buf), &size), 0);
	assert_int_equal(send(server, buf, size, MSG_NOSIGNAL), size);
}

static void *greet(void *arg)
{
	struct p9_msg t, r = {.type = P9_Rversion, .tag = P9_NOTAG};

	take(&t);
	assert_int_equal(t.type, P9_Tversion);
	r.Rversion.msize = t.Tversion.msize;
	r.Rversion.version = p9_str(P9_VERSION_MOAT);
	answer(&r);
	return arg;
}

struct caller {
	struct p9_conn *c;
	struct sleeper sleeper;
	bool change; /* asks for something that is not given up */
	int err;
	pthread_t thread;
};

static void *call_thread(void *arg)
{
	struct caller *w = arg;
	struct p9_msg t = {.type = w->change ? P9_Tmsetattr : P9_Tstatfs};
	struct p9_call call;

	rcu_thread_begin();
	sleeper_set_current(&w->sleeper);
	if (w->change)
		t.Tmsetattr.valid = P9_SETATTR_MODE;
	w->err = p9_rpc(w->c, &call, &t);
	if (!w->err)
		p9_call_fini(&call);
	sleeper_set_current(NULL);
	rcu_thread_end();
	return NULL;
}

static void start(struct caller *w, struct p9_conn *c, bool change)
{
	*w = (struct caller){.c = c, .change = change};
	sleeper_init(&w->sleeper);
	assert_int_equal(pthread_create(&w->thread, NULL, call_thread, w), 0);
}

static struct p9_conn *connect_server(void)
{
	pthread_t thread;
	struct p9_conn *c;
	int sv[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	server = sv[1];
	assert_int_equal(pthread_create(&thread, NULL, greet, NULL), 0);
	assert_int_equal(p9_conn_create(sv[0], &c), 0);
	pthread_join(thread, NULL);
	return c;
}

/* Serves one Tstatfs of a caller of its own; returns its tag. */
static uint16_t serve_one(struct p9_conn *c)
{
	struct p9_msg t, r = {.type = P9_Rstatfs};
	struct caller w;

	start(&w, c, false);
	take(&t);
	assert_int_equal(t.type, P9_Tstatfs);
	r.tag = t.tag;
	answer(&r);
	pthread_join(w.thread, NULL);
	assert_int_equal(w.err, 0);
	return t.tag;
}

static void killed(struct p9_conn *c, bool late_reply)
{
	struct p9_msg t, flush, r = {.type = P9_Rflush};
	struct caller w, other;

	start(&w, c, false);
	take(&t);
	/* Another waits, without reading. */
	start(&other, c, false);
	take(&flush);
	r.tag = flush.tag;
	sleeper_interrupt(&w.sleeper, true);
	pthread_join(w.thread, NULL);
	assert_int_equal(w.err, -EINTR);
	take(&flush);
	assert_int_equal(flush.type, P9_Tflush);
	assert_int_equal(flush.Tflush.oldtag, t.tag);
	r.type = P9_Rstatfs;
	answer(&r);
	pthread_join(other.thread, NULL);
	assert_int_equal(other.err, 0);
	/* All tags come up, and that one does not. */
	for (unsigned i = 0; i < P9_TAGS_MAX + 10; i++)
		assert_int_not_equal(serve_one(c), t.tag);
	if (late_reply) {
		r.tag = t.tag;
		answer(&r);
	}
	for (unsigned i = 0; i < P9_TAGS_MAX + 10; i++)
		assert_int_not_equal(serve_one(c), t.tag);
	r = (struct p9_msg){.type = P9_Rflush, .tag = flush.tag};
	answer(&r);
	for (unsigned i = 0; i < P9_TAGS_MAX + 1; i++)
		if (serve_one(c) == t.tag)
			return;
	fail_msg("tag %u never came back", t.tag);
}

static void test_killed(void **state)
{
	struct p9_conn *c = connect_server();

	(void)state;
	killed(c, false);
	killed(c, true);
	p9_conn_unref(c);
	close(server);
}

/* A change is waited for: what came of it must be known. */
static void test_change(void **state)
{
	struct p9_conn *c = connect_server();
	struct p9_msg t, r = {.type = P9_Rlerror};
	struct caller w;

	(void)state;
	start(&w, c, true);
	take(&t);
	sleeper_interrupt(&w.sleeper, true);
	usleep(3 * P9_TICK_MS * 1000);
	r.tag = t.tag;
	r.Rlerror.ecode = EPERM;
	answer(&r);
	pthread_join(w.thread, NULL);
	assert_int_equal(w.err, -EPERM);
	p9_conn_unref(c);
	close(server);
}

/* The server goes while something is flushed. */
static void test_end(void **state)
{
	struct p9_conn *c = connect_server();
	struct p9_msg t;
	struct caller w;

	(void)state;
	start(&w, c, false);
	take(&t);
	sleeper_interrupt(&w.sleeper, true);
	pthread_join(w.thread, NULL);
	assert_int_equal(w.err, -EINTR);
	close(server);
	start(&w, c, false);
	pthread_join(w.thread, NULL);
	assert_int_equal(w.err, -EIO);
	assert_false(p9_conn_alive(c));
	p9_conn_unref(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_killed),
		cmocka_unit_test(test_change),
		cmocka_unit_test(test_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
