/*
 * fsimpl/gofer/conn.c - remote procedure calls: tags, the reader's role, giving up.
 *
 * Whoever waits for a reply while nobody reads becomes the reader: it takes replies off the socket, gives each to its
 * call and stops when its own has come, waking one other waiter to take over. So a lone caller's round trip has no hand-over
 * between threads. Replies may come in any order (recv.c).
 *
 * Who waits for room in the socket reads too, where nobody else does: the server may be waiting for room itself, for its replies, and take
 * nothing in before. What callers that leave could not send is the housekeeping thread's.
 *
 * Waiting, for a tag too, is cut into ticks: a caller that was killed meanwhile gives a request up that changes nothing, sends Tflush
 * for it and goes; but not one that tells what came of a change (P9_MUST_WAIT).
 * What it left in the tag table is freed by whoever reads the Rflush; the reply, should it come first, is dropped.
 *
 * A server that closes, or sends what makes no sense, kills the connection: every call, waiting or to come, gives -EIO, and
 * one line is logged. Nothing waits for a dead server.
 */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/futex.h"
#include "base/log.h"
#include "base/sleep.h"
#include "fsimpl/gofer/conn.h"

#define SEND_TICK_MS 50 /* a caller that sends on for others does not hear of its own reply */

static struct timespec tick_end(void)
{
	int64_t end = time_monotonic_ns() + P9_TICK_MS * 1000000ll;

	return (struct timespec){end / 1000000000, end % 1000000000};
}

/* Until *word is set, or a tick is over (true). */
static bool wait_tick(_Atomic uint32_t *word)
{
	const struct timespec deadline = tick_end();
	int err = 0;

	while (!atomic_load(word) && err != -ETIMEDOUT)
		err = futex_wait(word, 0, &deadline);
	return err == -ETIMEDOUT;
}

void p9_conn_kill(struct p9_conn *c, const char *why)
{
	int alive = 0;

	if (!atomic_compare_exchange_strong(&c->dead, &alive, -EIO))
		return;
	if (why)
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
	p9_lock_waits_end_locked(c, -EIO);
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

uint64_t p9_conn_received(const struct p9_conn *c)
{
	return atomic_load(&c->received);
}

void p9_conn_in_flight(struct p9_conn *c,
		       void (*emit)(void *arg, const char *what, uint64_t id, int64_t age_ns),
		       void *arg)
{
	int64_t now = time_monotonic_ns();

	mutex_lock(&c->lock);
	for (unsigned i = 0; i < P9_CALLS_MAX; i++)
		if (c->calls[i])
			emit(arg, p9_type_name(c->calls[i]->request), i,
			     now - c->calls[i]->since_ns);
	mutex_unlock(&c->lock);
}

/* ---- tags ---- */

/* Pre: not all are in flight. */
static void tag_take_locked(struct p9_conn *c, struct p9_call *call)
{
	/* Round and round: a reply that comes twice finds its tag free, not another request's. */
	unsigned tag = c->next_tag % P9_TAGS_MAX;

	while (c->calls[tag])
		tag = (tag + 1) % P9_TAGS_MAX;
	c->calls[tag] = call;
	c->in_flight++;
	c->next_tag = tag + 1;
	call->tag = (uint16_t)tag;
}

/* Whoever is woken wakes the next, if there is a tag for that (tag_get()). */
static void tag_wake(struct p9_conn *c)
{
	atomic_fetch_add(&c->tag_word, 1);
	futex_wake(&c->tag_word, 1);
}

void p9_tag_put_locked(struct p9_conn *c, struct p9_call *call)
{
	bool was_full = c->in_flight == P9_TAGS_MAX;

	assert(c->calls[call->tag] == call);
	c->calls[call->tag] = NULL;
	if (call->tag >= P9_TAGS_MAX)
		return; /* a Tflush: it is not counted */
	c->in_flight--;
	if (was_full)
		tag_wake(c);
}

/* ---- whose turn it is to read ---- */

/* Somebody else must read on. */
static void pass_reading_locked(struct p9_conn *c)
{
	for (unsigned i = 0; c->in_flight && i < P9_TAGS_MAX; i++) {
		struct p9_call *call = c->calls[i];

		/* Who sends looks whether somebody reads, before it waits and now and then. */
		if (!call || call->async || call->later || call == c->sending ||
		    !atomic_load(&call->sent))
			continue;
		atomic_store(&call->word, 1);
		futex_wake(&call->word, 1);
		return;
	}
}

/* Pre: the caller is the reader. Waits for room or for replies. Return: a tick is over. */
static bool send_or_read(struct p9_conn *c, int timeout_ms)
{
	short events = p9_send_more(c, POLLIN, timeout_ms);

	return events & ~POLLOUT ? p9_read_some(c) : !events;
}

/* Pre: the caller is the reader. p9_read_some(), and sends what is left to send. */
static bool read_and_send(struct p9_conn *c)
{
	if (likely(!atomic_load_explicit(&c->tx_left, memory_order_relaxed)))
		return p9_read_some(c);
	return send_or_read(c, P9_TICK_MS);
}

/* Nobody else reads. Pre: c->lock, which is dropped meanwhile. Return: a tick is over. */
static bool read_locked(struct p9_conn *c)
{
	bool over;

	c->reading = true;
	mutex_unlock(&c->lock);
	over = read_and_send(c);
	mutex_lock(&c->lock);
	c->reading = false;
	return over;
}

/*
 * Waits for a tag; reads meanwhile, where all are requests that were given up. Return: 0, -EIO, -EINTR: killed. Nothing was sent yet: no request
 * changed anything.
 */
static int tag_get(struct p9_conn *c, struct p9_call *call)
{
	bool waited = false, read = false, slept = false;
	int err;

	mutex_lock(&c->lock);
	while (!(err = atomic_load(&c->dead)) && c->in_flight == P9_TAGS_MAX) {
		uint32_t word = atomic_load(&c->tag_word);
		struct timespec deadline;

		if (waited && !call->must && sleeper_was_killed()) {
			err = -EINTR;
			break;
		}
		if (!c->reading) {
			waited |= read_locked(c);
			read = true;
			continue;
		}
		mutex_unlock(&c->lock);
		deadline = tick_end();
		waited |= futex_wait(&c->tag_word, word, &deadline) == -ETIMEDOUT;
		slept = true;
		mutex_lock(&c->lock);
	}
	if (read && !c->reading)
		pass_reading_locked(c);
	if (!err)
		tag_take_locked(c, call);
	/* Only the first of several that became free woke somebody. */
	if (slept && c->in_flight < P9_TAGS_MAX)
		tag_wake(c);
	mutex_unlock(&c->lock);
	if (err)
		p9_send_leave(c);
	return err;
}

/* ---- giving up ---- */

/* Does it change nothing that its caller would have to know of? *ret_fid: what it may bind, or P9_NOFID. */
static bool may_give_up(const struct p9_msg *t, uint32_t *ret_fid)
{
	*ret_fid = P9_NOFID;
	if (p9_changes_nothing(t))
		return true;
	switch (t->type) {
	case P9_Tmreaddir:
		*ret_fid = t->Tmreaddir.newfid;
		return true;
	case P9_Twalk:
		*ret_fid = t->Twalk.newfid;
		return t->Twalk.newfid != t->Twalk.fid;
	case P9_Tmwatch:
		*ret_fid = t->Tmwatch.newfid;
		return true;
	/* Who is killed gives its locks up in any case. */
	case P9_Tmlock:
	case P9_Tmlockcancel:
	case P9_Tclunk:
		return true;
	default:
		return false;
	}
}

/* Leaves the request to whoever reads on. c->lock is held, and dropped on success. Return: false: no memory; wait on. */
static bool give_up_locked(struct p9_conn *c, struct p9_call *call, uint32_t unwanted_fid)
{
	struct p9_msg t = {.type = P9_Tflush};
	struct p9_call *left, *flush;

	left = malloc(sizeof(*left));
	flush = malloc(sizeof(*flush));
	if (!left || !flush) {
		free(left);
		free(flush);
		return false;
	}
	p9_call_init(left);
	left->async = true;
	left->flushed = true;
	atomic_store(&left->sent, true);
	left->tag = call->tag;
	left->unwanted_fid = unwanted_fid;
	c->calls[call->tag] = left;
	p9_call_init(flush);
	flush->async = true;
	flush->request = P9_Tflush;
	flush->flushes = left;
	flush->tag = (uint16_t)(P9_TAGS_MAX + left->tag);
	assert(!c->calls[flush->tag]);
	c->calls[flush->tag] = flush;
	c->given_up++;
	t.tag = flush->tag;
	t.Tflush.oldtag = left->tag;
	if (!c->reading)
		pass_reading_locked(c);
	mutex_unlock(&c->lock);
	/* left and flush are theirs who read, once it is sent. */
	if (p9_send_try(c, &t, flush) < 0)
		p9_conn_kill(c, "closed by the server");
	return true;
}

/* Somebody else reads. Pre: c->lock, which is dropped meanwhile. Return: a tick is over. */
static bool wait_or_send(struct p9_conn *c, struct p9_call *call)
{
	bool over;

	if (atomic_load_explicit(&c->tx_left, memory_order_relaxed) && !c->sending) {
		c->sending = call;
		mutex_unlock(&c->lock);
		over = !p9_send_more(c, 0, SEND_TICK_MS);
		mutex_lock(&c->lock);
		c->sending = NULL;
		return over;
	}
	atomic_store(&call->word, 0);
	call->sleeps = true;
	mutex_unlock(&c->lock);
	over = wait_tick(&call->word);
	mutex_lock(&c->lock);
	call->sleeps = false;
	return over;
}

static int wait_reply(struct p9_conn *c, struct p9_call *call, const struct p9_msg *t)
{
	uint32_t unwanted;
	bool may = may_give_up(t, &unwanted);

	may = !call->must && (may || call->droppable);
	mutex_lock(&c->lock);
	while (!call->done) {
		if (atomic_load(&c->dead)) {
			p9_tag_put_locked(c, call);
			mutex_unlock(&c->lock);
			return -EIO;
		}
		if (may && call->waited && sleeper_was_killed() &&
		    give_up_locked(c, call, unwanted))
			return -EINTR;
		if (!c->reading) {
			call->waited |= read_locked(c);
			continue;
		}
		call->waited |= wait_or_send(c, call);
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
	call->request = 0;
	call->since_ns = time_monotonic_ns();
	call->fd = -1;
	call->plain = NULL;
	atomic_init(&call->word, 0);
	call->done = false;
	call->sleeps = false;
	call->async = false;
	call->later = false;
	call->flushed = false;
	atomic_init(&call->sent, false);
	call->waited = false;
	call->must = false;
	call->droppable = false;
	call->flushes = NULL;
	call->err = 0;
	call->buf = NULL;
}

/* Waits for room, for replies too where nobody else does. Return: 0; nothing was sent: -EINTR: killed, -EMSGSIZE; -EPIPE. */
static int send_call(struct p9_conn *c, struct p9_call *call, const struct p9_msg *t)
{
	int64_t leave = 0;
	int err;

	while ((err = p9_send_try(c, t, call)) == -EAGAIN) {
		int64_t now = time_monotonic_ns();
		bool reader;

		if (!p9_conn_alive(c))
			return -EPIPE;
		if (!leave)
			leave = now + P9_TICK_MS * 1000000ll;
		if (now >= leave && !call->must && sleeper_was_killed())
			return -EINTR;
		mutex_lock(&c->lock);
		reader = !c->reading;
		c->reading = true;
		mutex_unlock(&c->lock);
		if (!reader) {
			/* A short while: who reads may leave, and wake only those who wait for replies. */
			(void)p9_send_more(c, 0, SEND_TICK_MS);
			continue;
		}
		(void)send_or_read(c, SEND_TICK_MS);
		mutex_lock(&c->lock);
		c->reading = false;
		mutex_unlock(&c->lock);
	}
	return err;
}

/* It was not sent. Return: err, as p9_rpc()'s. */
static int call_failed(struct p9_conn *c, struct p9_call *call, int err)
{
	if (err == -EPIPE)
		p9_conn_kill(c, "closed by the server");
	mutex_lock(&c->lock);
	if (!call->done)
		p9_tag_put_locked(c, call);
	if (!c->reading)
		pass_reading_locked(c);
	mutex_unlock(&c->lock);
	p9_call_fini(call);
	p9_send_leave(c);
	return err == -EPIPE ? -EIO : err;
}

/* It was sent: waits for the reply and looks at it. */
static int call_finish(struct p9_conn *c, struct p9_call *call, const struct p9_msg *t)
{
	int err = wait_reply(c, call, t);

	p9_send_leave(c);
	if (!err && p9_decode(call->buf, call->size, &call->r) != 0)
		err = -EIO;
	if (!err && call->r.type == P9_Rlerror) {
		uint32_t code = call->r.Rlerror.ecode;

		err = code > 0 && code < 4096 ? -(int)code : -EIO;
	} else if (!err && call->r.type != t->type + 1) {
		p9_conn_kill(c, "a reply to another request");
		err = -EIO;
	}
	if (!err)
		p9_fids_replied(c, t, &call->r);
	else
		p9_call_fini(call);
	return err;
}

/* Pre: p9_call_init(). */
static int call_once(struct p9_conn *c, struct p9_call *call, struct p9_msg *t)
{
	int err;

	call->request = t->type;
	err = tag_get(c, call);
	if (err)
		return err;
	t->tag = t->type == P9_Tversion ? P9_NOTAG : call->tag;
	err = send_call(c, call, t);
	if (err)
		return call_failed(c, call, err);
	p9_fids_asked(c, t);
	return call_finish(c, call, t);
}

/* A request whose answer nobody waits for. Return: false: it was not sent: no memory, no room, a dead connection, or killed. */
static bool send_async(struct p9_conn *c, struct p9_msg *t)
{
	struct p9_call *call = malloc(sizeof(*call));
	int err;

	if (!call)
		return false;
	p9_call_init(call);
	call->request = t->type;
	call->async = true;
	if (tag_get(c, call)) {
		free(call);
		return false;
	}
	t->tag = call->tag;
	/* Once it is sent it is theirs who read. */
	err = p9_send_try(c, t, call);
	p9_send_leave(c);
	if (err == -EAGAIN) {
		mutex_lock(&c->lock);
		p9_tag_put_locked(c, call);
		mutex_unlock(&c->lock);
		free(call);
		return false;
	}
	/* A failure shows in the next call, which waits. */
	if (err)
		p9_conn_kill(c, "closed by the server");
	return true;
}

/* ---- several calls at once ---- */

int p9_call_start(struct p9_conn *c, struct p9_msg *t, struct p9_call **ret)
{
	struct p9_call *call = malloc(sizeof(*call));
	int err;

	if (!call)
		return -ENOMEM;
	p9_call_init(call);
	call->request = t->type;
	call->later = true;
	mutex_lock(&c->lock);
	err = atomic_load(&c->dead);
	if (!err && c->in_flight >= P9_LATER_MAX)
		err = -EAGAIN;
	if (!err)
		tag_take_locked(c, call);
	mutex_unlock(&c->lock);
	if (err) {
		free(call);
		return err;
	}
	t->tag = call->tag;
	err = p9_send_try(c, t, call);
	if (err) {
		err = call_failed(c, call, err);
		free(call);
		return err;
	}
	p9_send_leave(c);
	*ret = call;
	return 0;
}

int p9_call_wait(struct p9_conn *c, struct p9_call *call, const struct p9_msg *t)
{
	int err;

	mutex_lock(&c->lock);
	call->later = false;
	mutex_unlock(&c->lock);
	/* Of many that are waited for one after another only the first takes a tick to leave. */
	call->waited = time_monotonic_ns() - call->since_ns >= P9_TICK_MS * 1000000ll;
	err = call_finish(c, call, t);
	if (err)
		free(call);
	return err;
}

/* Return: there was room. */
static bool keep_clunk(struct p9_conn *c, uint32_t fid)
{
	bool room;

	mutex_lock(&c->lock);
	room = c->clunk_count < P9_CLUNKS_MAX;
	if (room)
		c->clunks[c->clunk_count++] = fid;
	mutex_unlock(&c->lock);
	return room;
}

/* Sends what has gathered, not waiting for the answer; a plain connection waits, unless killed. What is not sent gathers on. */
static void flush_clunks(struct p9_conn *c)
{
	uint8_t raw[P9_CLUNKS_MAX * 4];
	struct p9_msg t = {.type = P9_Tmclunk};
	uint32_t fids[P9_CLUNKS_MAX];
	unsigned count, sent = 0;
	uint64_t bytes;
	int err = 0;

	mutex_lock(&c->lock);
	count = c->clunk_count;
	bytes = c->clunk_bytes;
	memcpy(fids, c->clunks, count * sizeof(fids[0]));
	c->clunk_count = 0;
	c->clunk_bytes = 0;
	mutex_unlock(&c->lock);
	/* Held until here: what waits to be sent is the server's still. */
	for (unsigned i = 0; i < count; i++) {
		p9_fid_forget(c, fids[i]);
		p9_fids_put(raw, i, fids[i]);
	}
	t.Tmclunk.fids = (struct p9_fids){raw, (uint16_t)count};
	if (!c->plain && count && send_async(c, &t))
		sent = count;
	while (c->plain && sent < count && err != -EINTR) {
		struct p9_msg one = {.type = P9_Tclunk};
		struct p9_call call;

		/* In turn: nobody reads while only such requests are under way. */
		one.Tclunk.fid = fids[sent++];
		p9_call_init(&call);
		call.droppable = true;
		err = call_once(c, &call, &one);
		if (!err)
			p9_call_fini(&call);
	}
	/* The next request tries again. */
	if (sent < count) {
		mutex_lock(&c->lock);
		c->clunk_bytes += bytes;
		mutex_unlock(&c->lock);
	}
	while (sent < count && keep_clunk(c, fids[sent]))
		sent++;
}

int p9_rpc_one(struct p9_conn *c, struct p9_call *call, struct p9_msg *t, enum p9_wait wait)
{
	bool flush;

	mutex_lock(&c->lock);
	flush = c->clunk_count >= P9_CLUNK_BATCH || c->clunk_bytes >= P9_CLUNK_BYTES;
	mutex_unlock(&c->lock);
	if (flush)
		flush_clunks(c);
	p9_call_init(call);
	call->must = wait == P9_MUST_WAIT;
	return call_once(c, call, t);
}

int p9_rpc(struct p9_conn *c, struct p9_call *call, struct p9_msg *t)
{
	if (c->plain && t->type >= P9_Tmwalk)
		return p9_plain_rpc(c, call, t);
	return p9_rpc_one(c, call, t, P9_MAY_LEAVE);
}

void p9_fid_clunk(struct p9_conn *c, uint32_t fid)
{
	if (fid == P9_NOFID)
		return;
	if (keep_clunk(c, fid) || atomic_load(&c->dead))
		return;
	/* Only when 256 gathered with no request in between. Without room still it stays with the server until the connection ends. */
	flush_clunks(c);
	(void)keep_clunk(c, fid);
}

void p9_fid_clunk_removed(struct p9_conn *c, uint32_t fid, uint64_t bytes)
{
	bool much;

	if (fid == P9_NOFID)
		return;
	p9_fid_clunk(c, fid);
	mutex_lock(&c->lock);
	c->clunk_bytes += MIN(bytes, (uint64_t)P9_CLUNK_BYTES);
	much = c->clunk_bytes >= P9_CLUNK_BYTES;
	mutex_unlock(&c->lock);
	if (much && !c->plain && !atomic_load(&c->dead))
		flush_clunks(c);
}

/* ---- what nobody waits for ---- */

void p9_left_ready(struct hostpoll *hp, uint32_t events)
{
	struct p9_conn *c = container_of(hp, struct p9_conn, left_poll);
	bool reader;

	(void)events;
	mutex_lock(&c->lock);
	reader = !c->reading;
	c->reading = true;
	mutex_unlock(&c->lock);
	if (reader)
		(void)send_or_read(c, 0);
	else
		(void)p9_send_more(c, 0, 0);
	if (reader) {
		mutex_lock(&c->lock);
		c->reading = false;
		pass_reading_locked(c);
		mutex_unlock(&c->lock);
	}
	/* Who reads in our place announces it again, leaving; what has come since is announced now. */
	p9_send_left(c, reader);
}
