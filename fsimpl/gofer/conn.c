/*
 * fsimpl/gofer/conn.c - remote procedure calls: tags, the reader's role, donated descriptors.
 *
 * Whoever waits for a reply while nobody reads becomes the reader: it takes replies off the socket, gives each to its
 * call and stops when its own has come, waking one other waiter to take over. So a lone caller's round trip has no hand-over
 * between threads. Replies may come in any order. Descriptors arrive in the order of the replies that announce them.
 *
 * A server that closes, or sends what makes no sense, kills the connection: every call, waiting or to come, gives -EIO, and
 * one line is logged. Nothing waits for a dead server.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/futex.h"
#include "base/log.h"
#include "fsimpl/gofer/conn.h"

#define RX_SIZE (P9_MSIZE_DEFAULT * 2u)

static REF_TYPE(conn_type, "p9_conn");

static void conn_kill(struct p9_conn *c, const char *why)
{
	int alive = 0;

	if (!atomic_compare_exchange_strong(&c->dead, &alive, -EIO))
		return;
	log_error("gofer connection: %s; its files give EIO from now on", why);
	shutdown(c->sock, SHUT_RDWR);
	mutex_lock(&c->lock);
	for (unsigned i = 0; i < P9_TAGS_MAX; i++) {
		struct p9_call *call = c->calls[i];

		if (!call)
			continue;
		atomic_store(&call->word, 1);
		futex_wake(&call->word, 1);
	}
	mutex_unlock(&c->lock);
	atomic_fetch_add(&c->tag_word, 1);
	futex_wake(&c->tag_word, INT32_MAX);
}

bool p9_conn_alive(const struct p9_conn *c)
{
	return atomic_load(&c->dead) == 0;
}

uint64_t p9_conn_requests(const struct p9_conn *c)
{
	return atomic_load(&c->requests);
}

/* ---- tags ---- */

/* Return: 0 or -EIO. */
static int tag_get(struct p9_conn *c, struct p9_call *call)
{
	for (;;) {
		uint32_t word = atomic_load(&c->tag_word);

		mutex_lock(&c->lock);
		if (atomic_load(&c->dead)) {
			mutex_unlock(&c->lock);
			return -EIO;
		}
		for (unsigned i = 0; c->in_flight < P9_TAGS_MAX && i < P9_TAGS_MAX; i++) {
			/* Round and round: a reply that comes twice finds its tag free, not another request's. */
			unsigned tag = (c->next_tag + i) % P9_TAGS_MAX;

			if (c->calls[tag])
				continue;
			c->calls[tag] = call;
			c->in_flight++;
			c->next_tag = tag + 1;
			call->tag = (uint16_t)tag;
			mutex_unlock(&c->lock);
			return 0;
		}
		mutex_unlock(&c->lock);
		(void)futex_wait(&c->tag_word, word, NULL);
	}
}

static void tag_put_locked(struct p9_conn *c, struct p9_call *call)
{
	bool was_full = c->in_flight == P9_TAGS_MAX;

	assert(c->calls[call->tag] == call);
	c->calls[call->tag] = NULL;
	c->in_flight--;
	if (was_full) {
		atomic_fetch_add(&c->tag_word, 1);
		futex_wake(&c->tag_word, 1);
	}
}

/* ---- sending ---- */

static int send_all(int sock, const uint8_t *p, size_t size)
{
	while (size) {
		ssize_t done = send(sock, p, size, MSG_NOSIGNAL);

		if (done < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		p += done;
		size -= (size_t)done;
	}
	return 0;
}

static int send_request(struct p9_conn *c, const struct p9_msg *t)
{
	size_t size;
	int err;

	mutex_lock(&c->send_lock);
	err = p9_encode(t, c->tx, c->msize, &size);
	if (!err && send_all(c->sock, c->tx, size) < 0)
		err = -EPIPE;
	mutex_unlock(&c->send_lock);
	atomic_fetch_add_explicit(&c->requests, 1, memory_order_relaxed);
	return err;
}

/* ---- receiving ---- */

static int take_fds(struct p9_conn *c, struct msghdr *msg)
{
	struct cmsghdr *cmsg;
	int err = 0;

	for (cmsg = CMSG_FIRSTHDR(msg); cmsg; cmsg = CMSG_NXTHDR(msg, cmsg)) {
		size_t count;

		if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
			continue;
		count = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(int), sizeof(int));
			if (c->fd_count < P9_FD_QUEUE_MAX) {
				c->fds[c->fd_count++] = fd;
			} else {
				close(fd);
				err = -EPROTO;
			}
		}
	}
	return msg->msg_flags & MSG_CTRUNC ? -EMFILE : err;
}

/* Does this reply announce a descriptor? */
static bool announces_fd(const struct p9_msg *r)
{
	return (r->type == P9_Rmopen && r->Rmopen.donated) ||
	       (r->type == P9_Rmcreate && r->Rmcreate.donated);
}

static void finish_call(struct p9_conn *c, struct p9_call *call)
{
	tag_put_locked(c, call);
	if (call->async) {
		free(call);
		return;
	}
	call->done = true;
	atomic_store(&call->word, 1);
	futex_wake(&call->word, 1);
}

/* One whole message. Return: 0, or -errno with which the connection dies. */
static int dispatch(struct p9_conn *c, const uint8_t *buf, uint32_t size)
{
	struct p9_call *call = NULL;
	struct p9_msg r;
	int fd = -1;

	if (p9_decode(buf, size, &r) != 0)
		return -EBADMSG;
	if (announces_fd(&r)) {
		if (!c->fd_count)
			return -EPROTO;
		fd = c->fds[0];
		c->fd_count--;
		memmove(c->fds, c->fds + 1, c->fd_count * sizeof(int));
	}
	mutex_lock(&c->lock);
	if (r.tag == P9_NOTAG)
		r.tag = 0; /* Rversion: nothing else is in flight */
	if (r.tag < P9_TAGS_MAX)
		call = c->calls[r.tag];
	if (!call) {
		mutex_unlock(&c->lock);
		if (fd >= 0)
			close(fd);
		return -EPROTO;
	}
	if (!call->async) {
		call->buf = size <= sizeof(call->inline_buf) ? call->inline_buf : malloc(size);
		if (call->buf)
			memcpy(call->buf, buf, size);
		else
			call->err = -ENOMEM;
		call->size = size;
		call->fd = fd;
		fd = -1;
	}
	finish_call(c, call);
	mutex_unlock(&c->lock);
	if (fd >= 0)
		close(fd);
	return 0;
}

static int dispatch_all(struct p9_conn *c)
{
	size_t done = 0;
	int err;

	for (;;) {
		uint32_t size;

		err = p9_frame_size(c->rx + done, c->rx_len - done, P9_MSIZE_DEFAULT, &size);
		if (err == -EAGAIN || (!err && c->rx_len - done < size)) {
			err = 0;
			break;
		}
		if (!err)
			err = dispatch(c, c->rx + done, size);
		if (err)
			break;
		done += size;
	}
	memmove(c->rx, c->rx + done, c->rx_len - done);
	c->rx_len -= done;
	return err;
}

/* Pre: the caller is the reader. Blocks for some bytes and hands out what is whole. */
static void read_some(struct p9_conn *c)
{
	union {
		struct cmsghdr hdr;
		char buf[CMSG_SPACE(16 * sizeof(int))];
	} control;
	struct iovec iov = {c->rx + c->rx_len, RX_SIZE - c->rx_len};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = sizeof(control.buf)};
	ssize_t got = recvmsg(c->sock, &msg, MSG_CMSG_CLOEXEC);
	int err;

	if (got < 0) {
		if (errno != EINTR)
			conn_kill(c, strerror(errno));
		return;
	}
	err = take_fds(c, &msg);
	if (got == 0) {
		conn_kill(c, "closed by the server");
		return;
	}
	c->rx_len += (size_t)got;
	if (!err)
		err = dispatch_all(c);
	if (err)
		conn_kill(c, err == -EMFILE ? "too many descriptors" : "nonsense from the server");
}

/* Somebody else must read on. */
static void pass_reading_locked(struct p9_conn *c)
{
	for (unsigned i = 0; c->in_flight && i < P9_TAGS_MAX; i++) {
		struct p9_call *call = c->calls[i];

		if (!call || call->async)
			continue;
		atomic_store(&call->word, 1);
		futex_wake(&call->word, 1);
		return;
	}
}

static int wait_reply(struct p9_conn *c, struct p9_call *call)
{
	mutex_lock(&c->lock);
	while (!call->done) {
		if (atomic_load(&c->dead)) {
			tag_put_locked(c, call);
			mutex_unlock(&c->lock);
			return -EIO;
		}
		if (!c->reading) {
			c->reading = true;
			mutex_unlock(&c->lock);
			read_some(c);
			mutex_lock(&c->lock);
			c->reading = false;
			continue;
		}
		atomic_store(&call->word, 0);
		mutex_unlock(&c->lock);
		while (!atomic_load(&call->word))
			(void)futex_wait(&call->word, 0, NULL);
		mutex_lock(&c->lock);
	}
	if (!c->reading)
		pass_reading_locked(c);
	mutex_unlock(&c->lock);
	return call->err;
}

/* ---- calls ---- */

void p9_fd_put(struct p9_conn *c, int fd)
{
	if (c && c->plain)
		p9_fid_clunk(c, (uint32_t)fd);
	else
		close(fd);
}

void p9_call_fini(struct p9_call *call)
{
	if (call->fd >= 0)
		p9_fd_put(call->plain, call->fd);
	call->fd = -1;
	if (call->buf != call->inline_buf)
		free(call->buf);
	call->buf = NULL;
}

void p9_call_init(struct p9_call *call)
{
	call->fd = -1;
	call->plain = NULL;
	atomic_init(&call->word, 0);
	call->done = false;
	call->async = false;
	call->err = 0;
	call->buf = NULL;
}

static int call_once(struct p9_conn *c, struct p9_call *call, struct p9_msg *t)
{
	int err;

	p9_call_init(call);
	err = tag_get(c, call);
	if (err)
		return err;
	t->tag = t->type == P9_Tversion ? P9_NOTAG : call->tag;
	err = send_request(c, t);
	if (err) {
		/* Nothing was sent of a message that does not fit. */
		if (err == -EPIPE)
			conn_kill(c, "closed by the server");
		mutex_lock(&c->lock);
		if (!call->done)
			tag_put_locked(c, call);
		mutex_unlock(&c->lock);
		p9_call_fini(call);
		return err == -EPIPE ? -EIO : err;
	}
	err = wait_reply(c, call);
	if (!err && p9_decode(call->buf, call->size, &call->r) != 0)
		err = -EIO;
	if (!err && call->r.type == P9_Rlerror) {
		uint32_t code = call->r.Rlerror.ecode;

		err = code > 0 && code < 4096 ? -(int)code : -EIO;
	} else if (!err && call->r.type != t->type + 1) {
		conn_kill(c, "a reply to another request");
		err = -EIO;
	}
	if (err)
		p9_call_fini(call);
	return err;
}

/* A request whose answer nobody waits for. Return: false: no memory, or a dead connection. */
static bool send_async(struct p9_conn *c, struct p9_msg *t)
{
	struct p9_call *call = malloc(sizeof(*call));

	if (!call)
		return false;
	p9_call_init(call);
	call->async = true;
	if (tag_get(c, call)) {
		free(call);
		return false;
	}
	t->tag = call->tag;
	/* A failure shows in the next call, which waits. */
	if (send_request(c, t) < 0)
		conn_kill(c, "closed by the server");
	return true;
}

/* Sends what has gathered, not waiting for the answer. */
static void flush_clunks(struct p9_conn *c)
{
	uint8_t raw[P9_CLUNKS_MAX * 4];
	struct p9_msg t = {.type = P9_Tmclunk};
	uint32_t fids[P9_CLUNKS_MAX];
	unsigned count;

	mutex_lock(&c->lock);
	count = c->clunk_count;
	memcpy(fids, c->clunks, count * sizeof(fids[0]));
	c->clunk_count = 0;
	mutex_unlock(&c->lock);
	for (unsigned i = 0; i < count; i++)
		p9_fids_put(raw, i, fids[i]);
	t.Tmclunk.fids = (struct p9_fids){raw, (uint16_t)count};
	if (!c->plain && count)
		(void)send_async(c, &t);
	for (unsigned i = 0; c->plain && i < count; i++) {
		struct p9_msg one = {.type = P9_Tclunk};
		struct p9_call call;

		/* In turn: nobody reads while only such requests are under way. */
		one.Tclunk.fid = fids[i];
		if (!call_once(c, &call, &one))
			p9_call_fini(&call);
	}
}

int p9_rpc_one(struct p9_conn *c, struct p9_call *call, struct p9_msg *t)
{
	bool flush;

	mutex_lock(&c->lock);
	flush = c->clunk_count >= P9_CLUNK_BATCH;
	mutex_unlock(&c->lock);
	if (flush)
		flush_clunks(c);
	return call_once(c, call, t);
}

int p9_rpc(struct p9_conn *c, struct p9_call *call, struct p9_msg *t)
{
	if (c->plain && t->type >= P9_Tmwalk)
		return p9_plain_rpc(c, call, t);
	return p9_rpc_one(c, call, t);
}

uint32_t p9_fid_alloc(struct p9_conn *c)
{
	uint32_t fid;

	do
		fid = atomic_fetch_add_explicit(&c->next_fid, 1, memory_order_relaxed) & INT32_MAX;
	while (fid == 0);
	return fid;
}

void p9_fid_clunk(struct p9_conn *c, uint32_t fid)
{
	if (fid == P9_NOFID)
		return;
	mutex_lock(&c->lock);
	if (c->clunk_count < P9_CLUNKS_MAX) {
		c->clunks[c->clunk_count++] = fid;
		mutex_unlock(&c->lock);
		return;
	}
	mutex_unlock(&c->lock);
	if (atomic_load(&c->dead))
		return;
	/* Only when 256 gathered with no request in between. */
	flush_clunks(c);
	p9_fid_clunk(c, fid);
}

/* ---- life ---- */

/* Return: 0: the server agreed; -EOPNOTSUPP: it wants another version; -errno. */
static int offer(struct p9_conn *c, const char *version, bool *ret_plain)
{
	struct p9_msg t = {.type = P9_Tversion};
	struct p9_call call;
	const struct p9_str *v;
	int err;

	t.Tversion.msize = P9_MSIZE_DEFAULT;
	t.Tversion.version = p9_str(version);
	/* Its reply has no tag: the call is found at 0. */
	mutex_lock(&c->lock);
	c->next_tag = 0;
	mutex_unlock(&c->lock);
	err = p9_rpc(c, &call, &t);
	if (err)
		return err;
	v = &call.r.Rversion.version;
	*ret_plain =
		v->len == strlen(P9_VERSION_PLAIN) && !memcmp(v->data, P9_VERSION_PLAIN, v->len);
	if (!*ret_plain && (v->len != strlen(version) || memcmp(v->data, version, v->len) != 0))
		err = -EOPNOTSUPP;
	else if (call.r.Rversion.msize < P9_MSIZE_MIN || call.r.Rversion.msize > P9_MSIZE_DEFAULT)
		err = -EPROTO;
	else
		c->msize = call.r.Rversion.msize;
	p9_call_fini(&call);
	return err;
}

/* The extension first: a server that has none answers with the plain version, "unknown" or an error. */
static int negotiate(struct p9_conn *c)
{
	bool plain = false;
	int err = offer(c, P9_VERSION_MOAT, &plain);

	if (err && err != -EPROTO && p9_conn_alive(c))
		err = offer(c, P9_VERSION_PLAIN, &plain);
	c->plain = plain;
	return err == -EOPNOTSUPP ? -EPROTO : err;
}

static void conn_free(struct p9_conn *c)
{
	for (unsigned i = 0; i < c->fd_count; i++)
		close(c->fds[i]);
	for (unsigned i = 0; i < P9_TAGS_MAX; i++) {
		assert(!c->calls[i] || c->calls[i]->async);
		free(c->calls[i]);
	}
	close(c->sock);
	free(c->tx);
	free(c->rx);
	ref_fini(&c->ref, &conn_type);
	free(c);
}

int p9_conn_create(int sock, struct p9_conn **ret)
{
	struct p9_conn *c = calloc(1, sizeof(*c));
	int err;

	if (!c) {
		close(sock);
		return -ENOMEM;
	}
	ref_init(&c->ref, &conn_type);
	c->sock = sock;
	c->msize = P9_MSIZE_DEFAULT;
	mutex_init(&c->lock, LOCK_RPC, "p9_conn");
	mutex_init(&c->send_lock, LOCK_RPC, "p9_send");
	mutex_init(&c->fd_lock, LOCK_LEAF, "p9_host_fds");
	TAILQ_INIT(&c->idle_fds);
	atomic_init(&c->next_fid, 1);
	c->tx = malloc(P9_MSIZE_DEFAULT);
	c->rx = malloc(RX_SIZE);
	err = c->tx && c->rx ? negotiate(c) : -ENOMEM;
	if (err) {
		conn_free(c);
		return err;
	}
	*ret = c;
	return 0;
}

void p9_conn_ref(struct p9_conn *c)
{
	ref_get(&c->ref);
}

void p9_conn_unref(struct p9_conn *c)
{
	if (ref_put(&c->ref))
		conn_free(c);
}
