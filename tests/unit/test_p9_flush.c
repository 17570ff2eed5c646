// LINK: moat_gofer_fs moat_vfs moat_mem moat_wire
/*
 * A caller that is killed while the server keeps it waiting: Tflush, and no tag used again before the Rflush. And a server without
 * the extension, of which every message is seen: what a compound change asks it, and that nobody leaves once it is done.
 * A server that answers before it is asked, and one that takes nothing in before its own replies are read.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/hostpoll.h"
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
	r.Rversion.version = p9_str(arg);
	answer(&r);
	return NULL;
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

static struct p9_conn *connect_to(const char *version)
{
	pthread_t thread;
	struct p9_conn *c;
	int sv[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	server = sv[1];
	assert_int_equal(pthread_create(&thread, NULL, greet, (void *)version), 0);
	assert_int_equal(p9_conn_create(sv[0], &c), 0);
	pthread_join(thread, NULL);
	return c;
}

static struct p9_conn *connect_server(void)
{
	return connect_to(P9_VERSION_MOAT);
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

/* No tag is left, and no answer comes. */
static void test_no_tag(void **state)
{
	static struct caller callers[P9_TAGS_MAX];
	struct p9_conn *c = connect_server();
	struct caller w;
	struct p9_msg t;

	(void)state;
	for (unsigned i = 0; i < P9_TAGS_MAX; i++) {
		start(&callers[i], c, true);
		take(&t);
	}
	/* Its request changes something, and was never sent. */
	start(&w, c, true);
	usleep(P9_TICK_MS * 1000);
	sleeper_interrupt(&w.sleeper, true);
	pthread_join(w.thread, NULL);
	assert_int_equal(w.err, -EINTR);
	close(server);
	for (unsigned i = 0; i < P9_TAGS_MAX; i++) {
		pthread_join(callers[i].thread, NULL);
		assert_int_equal(callers[i].err, -EIO);
	}
	p9_conn_unref(c);
}

/* No tag is left, and the Tflush of one that waits needs none of them. */
static void test_flush_without_tag(void **state)
{
	static struct caller callers[P9_TAGS_MAX];
	struct p9_conn *c = connect_server();
	struct p9_msg first, t;

	(void)state;
	for (unsigned i = 0; i < P9_TAGS_MAX; i++) {
		start(&callers[i], c, i > 0);
		take(i ? &t : &first);
	}
	sleeper_interrupt(&callers[0].sleeper, true);
	pthread_join(callers[0].thread, NULL);
	assert_int_equal(callers[0].err, -EINTR);
	take(&t);
	assert_int_equal(t.type, P9_Tflush);
	assert_int_equal(t.Tflush.oldtag, first.tag);
	close(server);
	for (unsigned i = 1; i < P9_TAGS_MAX; i++) {
		pthread_join(callers[i].thread, NULL);
		assert_int_equal(callers[i].err, -EIO);
	}
	p9_conn_unref(c);
}

static void *big_thread(void *arg)
{
	static uint8_t value[60000];
	struct caller *w = arg;
	struct p9_msg t = {.type = P9_Tmsetxattr};
	struct p9_call call;

	rcu_thread_begin();
	sleeper_set_current(&w->sleeper);
	t.Tmsetxattr.name = p9_str("user.x");
	t.Tmsetxattr.data = (struct p9_blob){value, sizeof(value)};
	w->err = p9_rpc(w->c, &call, &t);
	sleeper_set_current(NULL);
	rcu_thread_end();
	return NULL;
}

#define BIG_CALLERS 12 /* with more than the socket holds */

/* Until one of them has to wait for room. */
static void fill_socket(struct p9_conn *c, struct caller *big)
{
	for (unsigned i = 0; i < BIG_CALLERS; i++) {
		big[i] = (struct caller){.c = c};
		sleeper_init(&big[i].sleeper);
		assert_int_equal(pthread_create(&big[i].thread, NULL, big_thread, &big[i]), 0);
	}
	while (!atomic_load(&c->tx_left))
		usleep(1000);
}

/* A server that takes nothing in: whose request is in part under way, and who cannot begin. */
static void test_full_socket(void **state)
{
	static struct caller big[BIG_CALLERS];
	struct p9_conn *c = connect_server();
	struct p9_msg t, r = {.type = P9_Rlerror, .Rlerror.ecode = EPERM};
	struct caller look, change;
	unsigned served = 0;

	(void)state;
	fill_socket(c, big);
	start(&look, c, false);
	start(&change, c, true);
	usleep(P9_TICK_MS * 1000 / 4);
	sleeper_interrupt(&look.sleeper, true);
	sleeper_interrupt(&change.sleeper, true);
	pthread_join(look.thread, NULL);
	pthread_join(change.thread, NULL);
	assert_int_equal(look.err, -EINTR);
	assert_int_equal(change.err, -EINTR);
	/* What was left is sent as soon as that goes, whole and once; what was given up was never sent. */
	while (served < ARRAY_SIZE(big)) {
		take(&t);
		assert_int_equal(t.type, P9_Tmsetxattr);
		r.tag = t.tag;
		answer(&r);
		served++;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(big); i++) {
		pthread_join(big[i].thread, NULL);
		assert_int_equal(big[i].err, -EPERM);
	}
	serve_one(c);
	p9_conn_unref(c);
	close(server);
}

/* ---- a server that answers before it is asked ---- */

/* Keeps everybody from sending, on a thread of its own (send_lock is never held with another). */
static struct send_stop {
	struct p9_conn *c;
	_Atomic bool held, end;
	pthread_t thread;
} send_stop;

static void *send_stop_thread(void *arg)
{
	struct p9_conn *c = send_stop.c;

	rcu_thread_begin();
	mutex_lock(&c->send_lock);
	atomic_store(&send_stop.held, true);
	while (!atomic_load(&send_stop.end))
		usleep(1000);
	mutex_unlock(&c->send_lock);
	rcu_thread_end();
	return arg;
}

static void stop_sending(struct p9_conn *c)
{
	send_stop.c = c;
	atomic_store(&send_stop.held, false);
	atomic_store(&send_stop.end, false);
	assert_int_equal(pthread_create(&send_stop.thread, NULL, send_stop_thread, NULL), 0);
	while (!atomic_load(&send_stop.held))
		usleep(1000);
}

static void go_on_sending(void)
{
	atomic_store(&send_stop.end, true);
	pthread_join(send_stop.thread, NULL);
}

/* The tag of the one call of that kind, as soon as there is one. */
static uint16_t tag_of(struct p9_conn *c, uint8_t request)
{
	for (;;) {
		mutex_lock(&c->lock);
		for (unsigned i = 0; i < P9_CALLS_MAX; i++)
			if (c->calls[i] && c->calls[i]->request == request) {
				mutex_unlock(&c->lock);
				return (uint16_t)i;
			}
		mutex_unlock(&c->lock);
		usleep(1000);
	}
}

static void assert_dies(struct p9_conn *c)
{
	for (unsigned i = 0; i < 20000 && p9_conn_alive(c); i++)
		usleep(1000);
	assert_false(p9_conn_alive(c));
}

/* Clunks, which nobody waits for; a request; and a Tflush: each has its tag, and somebody reads. */
static void test_early_reply(void **state)
{
	static const uint8_t requests[] = {P9_Tmclunk, P9_Tstatfs, P9_Tflush};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(requests); i++) {
		struct p9_conn *c = connect_server();
		struct caller reader, w;
		struct p9_msg t, r;

		start(&reader, c, true);
		take(&t);
		if (requests[i] == P9_Tflush) {
			start(&w, c, false);
			take(&t);
		}
		for (uint32_t fid = 0; requests[i] == P9_Tmclunk && fid < P9_CLUNK_BATCH; fid++)
			p9_fid_clunk(c, 1000 + fid);
		stop_sending(c);
		if (requests[i] == P9_Tflush)
			sleeper_interrupt(&w.sleeper, true);
		else
			start(&w, c, false);
		r = (struct p9_msg){.type = requests[i] + 1, .tag = tag_of(c, requests[i])};
		answer(&r);
		assert_dies(c);
		go_on_sending();
		pthread_join(reader.thread, NULL);
		pthread_join(w.thread, NULL);
		assert_int_equal(reader.err, -EIO);
		assert_int_equal(w.err, requests[i] == P9_Tflush ? -EINTR : -EIO);
		p9_conn_unref(c);
		close(server);
	}
}

/* The same of a request that waits for room. */
static void test_early_reply_full(void **state)
{
	static struct caller big[BIG_CALLERS];
	struct p9_conn *c = connect_server();
	struct p9_msg r = {.type = P9_Rstatfs};
	struct caller w;

	(void)state;
	fill_socket(c, big);
	start(&w, c, false);
	r.tag = tag_of(c, P9_Tstatfs);
	answer(&r);
	assert_dies(c);
	pthread_join(w.thread, NULL);
	assert_int_equal(w.err, -EIO);
	for (unsigned i = 0; i < ARRAY_SIZE(big); i++) {
		pthread_join(big[i].thread, NULL);
		assert_int_equal(big[i].err, -EIO);
	}
	p9_conn_unref(c);
	close(server);
}

/* ---- a server that waits for room itself ---- */

#define STUCK_CALLERS 64
#define STUCK_REPLY 60000 /* of more than one such socket holds */

static struct stuck {
	struct p9_conn *c;
	pthread_t thread;
	uint16_t tag; /* of the request that gets the large reply */
	unsigned requests; /* its thread's */
	_Atomic bool ended; /* every request that was given up has its Tflush */
} stuck;

static void answer_large(uint16_t tag)
{
	static uint8_t data[STUCK_REPLY], buf[STUCK_REPLY + 64];
	struct p9_msg r = {.type = P9_Rread, .tag = tag};
	size_t size;

	r.Rread.data = (struct p9_blob){data, sizeof(data)};
	assert_int_equal(p9_encode(&r, buf, sizeof(buf), &size), 0);
	for (size_t done = 0; done < size;) {
		ssize_t n = send(server, buf + done, size - done, MSG_NOSIGNAL);

		assert_true(n > 0);
		done += (size_t)n;
	}
}

/* Takes nothing in before its large reply is out; then serves all, until the client goes. */
static void *serve_stuck(void *arg)
{
	unsigned flushes = 0;
	uint8_t byte;

	answer_large(stuck.tag);
	while (recv(server, &byte, 1, MSG_PEEK) == 1) {
		struct p9_msg t, r = {0};

		take(&t);
		r.type = t.type + 1;
		r.tag = t.tag;
		stuck.requests += t.type == P9_Tstatfs;
		flushes += t.type == P9_Tflush;
		if (t.tag != stuck.tag)
			answer(&r);
		if (flushes && flushes == stuck.requests)
			atomic_store(&stuck.ended, true);
	}
	return arg;
}

/* Both sockets are full, the client's with Tflushes, and nobody waits. */
static void get_stuck(void)
{
	static struct caller callers[STUCK_CALLERS];
	struct p9_conn *c = connect_server();
	int small = 1; /* the least there is */

	stuck = (struct stuck){.c = c};
	assert_int_equal(setsockopt(c->sock, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
	assert_int_equal(setsockopt(server, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
	start(&callers[0], c, false);
	while (p9_conn_requests(c) < 2)
		usleep(1000);
	stuck.tag = tag_of(c, P9_Tstatfs);
	for (unsigned i = 1; i < STUCK_CALLERS; i++)
		start(&callers[i], c, false);
	while (!atomic_load(&c->tx_left))
		usleep(1000);
	for (unsigned i = 0; i < STUCK_CALLERS; i++)
		sleeper_interrupt(&callers[i].sleeper, true);
	for (unsigned i = 0; i < STUCK_CALLERS; i++) {
		pthread_join(callers[i].thread, NULL);
		assert_int_equal(callers[i].err, -EINTR);
	}
	assert_true(atomic_load(&c->tx_left));
	assert_int_equal(pthread_create(&stuck.thread, NULL, serve_stuck, NULL), 0);
}

static void get_unstuck(void)
{
	p9_conn_unref(stuck.c);
	pthread_join(stuck.thread, NULL);
	close(server);
}

/* Who comes then reads, though what it wants is to send. Without the housekeeping thread. */
static void test_full_both_ways(void **state)
{
	struct caller w;

	(void)state;
	assert_false(hostpoll_is_started());
	get_stuck();
	start(&w, stuck.c, false);
	pthread_join(w.thread, NULL);
	assert_int_equal(w.err, 0);
	get_unstuck();
}

/* Nobody comes, and the server gets every Tflush all the same. From here on there is that thread. */
static void test_left_behind(void **state)
{
	struct caller w;

	(void)state;
	assert_int_equal(hostpoll_start(), 0);
	get_stuck();
	for (unsigned i = 0; i < 20000 && !atomic_load(&stuck.ended); i++)
		usleep(1000);
	assert_true(atomic_load(&stuck.ended));
	start(&w, stuck.c, false);
	pthread_join(w.thread, NULL);
	assert_int_equal(w.err, 0);
	get_unstuck();
}

/* ---- a server without the extension ---- */

static struct plain_server {
	pthread_t thread;
	struct sleeper *kill; /* NULL, or who is killed at the first Tgetattr after a change */
	bool changed;
	unsigned flushes, renames, unlinks;
	uint32_t lcreate_mode, setattr_mode;
} plain;

static void fill_reply(const struct p9_msg *t, struct p9_msg *r)
{
	r->type = t->type + 1;
	switch (t->type) {
	case P9_Twalk:
		if (t->Twalk.names.count && t->Twalk.names.name[0].len == 4) { /* "gone" */
			r->type = P9_Rlerror;
			r->Rlerror.ecode = ENOENT;
		} else {
			r->Rwalk.qids.count = t->Twalk.names.count;
		}
		break;
	case P9_Tgetattr:
		r->Rgetattr.valid = P9_GETATTR_BASIC;
		r->Rgetattr.qid.path = t->Tgetattr.fid;
		r->Rgetattr.mode = t->Tgetattr.fid == 1 ? S_IFDIR | 0755 : S_IFREG | 0644;
		r->Rgetattr.nlink = 1;
		break;
	case P9_Tlcreate:
		plain.lcreate_mode = t->Tlcreate.mode;
		break;
	case P9_Tsetattr:
		if (t->Tsetattr.valid & P9_SETATTR_MODE)
			plain.setattr_mode = t->Tsetattr.mode;
		break;
	case P9_Tunlinkat:
		plain.unlinks++;
		break;
	case P9_Trenameat:
		plain.renames++;
		break;
	case P9_Tflush:
		plain.flushes++;
		break;
	default:
		break;
	}
}

/* Until the client goes. */
static void *serve_plain(void *arg)
{
	struct p9_msg t;
	uint8_t byte;

	while (recv(server, &byte, 1, MSG_PEEK) == 1) {
		struct p9_msg r = {0};

		take(&t);
		fill_reply(&t, &r);
		if (plain.kill && plain.changed && t.type == P9_Tgetattr) {
			sleeper_interrupt(plain.kill, true);
			usleep(3 * P9_TICK_MS * 1000);
		}
		plain.changed |= t.type == P9_Tunlinkat || t.type == P9_Trenameat ||
				 t.type == P9_Tlcreate || t.type == P9_Tsetattr;
		r.tag = t.tag;
		answer(&r);
	}
	return arg;
}

static struct p9_conn *start_plain(struct sleeper *kill)
{
	struct p9_conn *c = connect_to(P9_VERSION_PLAIN);

	assert_true(c->plain);
	plain = (struct plain_server){.kill = kill};
	assert_int_equal(pthread_create(&plain.thread, NULL, serve_plain, NULL), 0);
	return c;
}

static void stop_plain(struct p9_conn *c)
{
	p9_conn_unref(c);
	pthread_join(plain.thread, NULL);
	close(server);
}

/* Who is killed when the change is done learns that it is, and what came of it. */
static void test_change_is_told(void **state)
{
	struct p9_msg t[4] = {{.type = P9_Tmunlink},
			      {.type = P9_Tmrename},
			      {.type = P9_Tmcreate},
			      {.type = P9_Tmsetattr}};

	(void)state;
	t[0].Tmunlink = (struct p9_Tmunlink){.fid = 1, .keepfid = P9_NOFID, .path = p9_str("f")};
	t[1].Tmrename.oldfid = t[1].Tmrename.fid = 1;
	t[1].Tmrename.keepfid = P9_NOFID;
	t[1].Tmrename.oldpath = p9_str("a");
	t[1].Tmrename.path = p9_str("gone");
	t[2].Tmcreate.fid = 1;
	t[2].Tmcreate.newfid = 100;
	t[2].Tmcreate.mode = 0644;
	t[2].Tmcreate.path = p9_str("f");
	t[3].Tmsetattr.fid = 1;
	t[3].Tmsetattr.valid = P9_SETATTR_MODE;
	t[3].Tmsetattr.path = p9_str("f");
	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		struct sleeper sleeper;
		struct p9_conn *c;
		struct p9_call call;
		int err;

		sleeper_init(&sleeper);
		c = start_plain(&sleeper);
		sleeper_set_current(&sleeper);
		err = p9_rpc(c, &call, &t[i]);
		sleeper_set_current(NULL);
		assert_int_equal(err, 0);
		assert_true(plain.changed);
		if (i == 0) {
			assert_int_equal(call.r.Rmunlink.err, 0);
			assert_int_equal(call.r.Rmunlink.nodes.count, 2);
		} else if (i == 2) {
			assert_int_equal(call.r.Rmcreate.err, 0);
			assert_int_equal(call.r.Rmcreate.nodes.count, 2);
		}
		p9_call_fini(&call);
		stop_plain(c);
		assert_int_equal(plain.flushes, 0);
	}
}

/* The target's directory is not there: nothing is renamed, least of all into the tree's root. */
static void test_rename_nowhere(void **state)
{
	struct p9_conn *c = start_plain(NULL);
	struct p9_msg t = {.type = P9_Tmrename};
	struct p9_call call;

	(void)state;
	t.Tmrename.oldfid = t.Tmrename.fid = 1;
	t.Tmrename.keepfid = P9_NOFID;
	t.Tmrename.oldpath = p9_str("a");
	t.Tmrename.path = p9_str("gone/b");
	assert_int_equal(p9_rpc(c, &call, &t), -ENOENT);
	stop_plain(c);
	assert_int_equal(plain.renames, 0);
}

/* Until it is its owner's, a new file has no bits that lend the server's rights. */
static void test_set_id_bits(void **state)
{
	struct p9_conn *c = start_plain(NULL);
	struct p9_msg t = {.type = P9_Tmcreate};
	struct p9_call call;

	(void)state;
	t.Tmcreate.fid = 1;
	t.Tmcreate.newfid = 100;
	t.Tmcreate.uid = t.Tmcreate.gid = 1000;
	t.Tmcreate.mode = 06755;
	t.Tmcreate.path = p9_str("f");
	assert_int_equal(p9_rpc(c, &call, &t), 0);
	assert_int_equal(call.r.Rmcreate.err, 0);
	p9_call_fini(&call);
	stop_plain(c);
	assert_int_equal(plain.lcreate_mode & 07777, 0755);
	assert_int_equal(plain.setattr_mode, 06755);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_killed),
		cmocka_unit_test(test_change),
		cmocka_unit_test(test_end),
		cmocka_unit_test(test_no_tag),
		cmocka_unit_test(test_flush_without_tag),
		cmocka_unit_test(test_full_socket),
		cmocka_unit_test(test_early_reply),
		cmocka_unit_test(test_early_reply_full),
		cmocka_unit_test(test_full_both_ways),
		cmocka_unit_test(test_left_behind),
		cmocka_unit_test(test_change_is_told),
		cmocka_unit_test(test_rename_nowhere),
		cmocka_unit_test(test_set_id_bits),
	};

	/* What hangs must not keep everything else waiting. */
	alarm(120);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
