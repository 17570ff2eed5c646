/*
 * gofer/conn.c - the socket and the worker threads.
 *
 * One worker at a time is the reader. It takes a request out of the stream and, when nothing more has arrived and the
 * request is a quick one, serves it itself and goes on reading: a lone client pays no wake-up. When more
 * has arrived, or the request may be slow (data, fsync, unlink of a large file), it first hands the reader's
 * role to an idle worker. Replies go out whole under one lock, in any order.
 *
 * A quick request may be slow after all (a filesystem that stands still): a thread that watches the reader relieves it then, and another
 * reads. It sleeps while nothing is served.
 *
 * A Tflush for a request in flight that changes and binds nothing is answered at once, and the reply dropped when there is one. For any other
 * the worker that serves it answers, right after that reply. No operation is cut short.
 *
 * Where a file system of the host's stands still for good, share.c bounds what waits for it.
 */
#include <stdlib.h>
#include <string.h>
#include <sched.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/futex.h"
#include "base/sleep.h"
#include "base/trim.h"
#include "gofer/server.h"

#define RX_SIZE (P9_MSIZE_DEFAULT + 4096u)

const struct op server_ops[P9_TYPE_MAX] = {
	[P9_Tversion] = {op_version, false, false},
	[P9_Tauth] = {op_auth, false, false},
	[P9_Tattach] = {op_attach, false, false},
	[P9_Twalk] = {op_walk, false, false},
	[P9_Tclunk] = {op_clunk, false, false, IN_CLOSE},
	[P9_Tremove] = {op_remove, true, false},
	[P9_Tgetattr] = {op_getattr, false, false},
	[P9_Tsetattr] = {op_setattr, true, false},
	[P9_Tstatfs] = {op_statfs, false, false},
	[P9_Tlopen] = {op_lopen, false, false},
	[P9_Tlcreate] = {op_lcreate, false, false},
	[P9_Tread] = {op_read, true, false},
	[P9_Twrite] = {op_write, true, false},
	[P9_Treaddir] = {op_readdir, false, false},
	[P9_Tfsync] = {op_fsync, true, false},
	[P9_Treadlink] = {op_readlink, false, false},
	[P9_Tsymlink] = {op_symlink, false, false},
	[P9_Tmknod] = {op_mknod, false, false},
	[P9_Tmkdir] = {op_mkdir, false, false},
	[P9_Tlink] = {op_link, false, false},
	[P9_Trename] = {op_rename, false, false},
	[P9_Trenameat] = {op_renameat, false, false},
	[P9_Tunlinkat] = {op_unlinkat, true, false},
	[P9_Txattrwalk] = {op_xattrwalk, false, false},
	[P9_Txattrcreate] = {op_xattrcreate, false, false},
	[P9_Tlock] = {op_lock, false, false},
	[P9_Tgetlock] = {op_getlock, false, false},
	[P9_Tmwalk] = {op_mwalk, false, true},
	[P9_Tmopen] = {op_mopen, false, true, IN_OPEN | IN_CLOSE | IN_ACCESS},
	[P9_Tmcreate] = {op_mcreate, false, true,
			 IN_CREATE | IN_OPEN | IN_CLOSE | IN_ATTRIB | IN_MODIFY},
	[P9_Tmmkdir] = {op_mmkdir, false, true, IN_CREATE | IN_ATTRIB},
	[P9_Tmsymlink] = {op_msymlink, false, true, IN_CREATE | IN_ATTRIB},
	[P9_Tmmknod] = {op_mmknod, false, true, IN_CREATE | IN_ATTRIB},
	[P9_Tmlink] = {op_mlink, false, true, IN_CREATE | IN_ATTRIB},
	[P9_Tmunlink] = {op_munlink, false, true, IN_DELETE | IN_ATTRIB | IN_DELETE_SELF},
	[P9_Tmrename] = {op_mrename, false, true,
			 IN_MOVE | IN_MOVE_SELF | IN_ATTRIB | IN_DELETE_SELF},
	[P9_Tmsetattr] = {op_msetattr, false, true,
			  IN_ATTRIB | IN_MODIFY | IN_ACCESS | IN_OPEN | IN_CLOSE},
	[P9_Tmreaddir] = {op_mreaddir, false, true, IN_OPEN | IN_ACCESS | IN_CLOSE},
	[P9_Tmclunk] = {op_mclunk, false, true, IN_CLOSE},
	[P9_Tmgetxattr] = {op_mgetxattr, false, true},
	[P9_Tmsetxattr] = {op_msetxattr, false, true, IN_ATTRIB},
	[P9_Tmlistxattr] = {op_mlistxattr, false, true},
	[P9_Tmremovexattr] = {op_mremovexattr, false, true, IN_ATTRIB},
	[P9_Tmfallocate] = {op_mfallocate, true, true, IN_MODIFY},
	[P9_Tmseek] = {op_mseek, false, true},
	[P9_Tmnotify] = {op_mnotify, false, true},
	[P9_Tmlock] = {op_mlock, false, true},
	[P9_Tmlockcancel] = {op_mlockcancel, false, true},
	[P9_Tmwatch] = {op_mwatch, true, true},
	[P9_Tmconnect] = {op_mconnect, false, true},
};

/* ---- sending ---- */

static int send_all(int sock, struct iovec *iov, unsigned count, int fd)
{
	union {
		struct cmsghdr hdr;
		char buf[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = count};

	if (fd >= 0) {
		struct cmsghdr *cmsg = &control.hdr;

		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(cmsg), &fd, sizeof(int));
		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control.buf);
	}
	while (msg.msg_iovlen) {
		ssize_t done = sendmsg(sock, &msg, MSG_NOSIGNAL);

		if (done < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		/* The descriptor went with the first byte. */
		msg.msg_control = NULL;
		msg.msg_controllen = 0;
		while (msg.msg_iovlen && (size_t)done >= msg.msg_iov->iov_len) {
			done -= (ssize_t)msg.msg_iov->iov_len;
			msg.msg_iov++;
			msg.msg_iovlen--;
		}
		if (msg.msg_iovlen) {
			msg.msg_iov->iov_base = (char *)msg.msg_iov->iov_base + done;
			msg.msg_iov->iov_len -= (size_t)done;
		}
	}
	return 0;
}

static uint32_t payload_size(const struct p9_msg *r)
{
	switch (r->type) {
	case P9_Rread:
		return r->Rread.data.size;
	case P9_Rreaddir:
		return r->Rreaddir.data.size;
	case P9_Rmreaddir:
		return r->Rmreaddir.data.size;
	case P9_Rmgetxattr:
		return r->Rmgetxattr.data.size;
	case P9_Rmlistxattr:
		return r->Rmlistxattr.data.size;
	default:
		return 0;
	}
}

/* Payloads are in w->data. */
static int send_reply(struct worker *w, const struct p9_msg *r)
{
	struct server *srv = w->srv;
	struct iovec iov[2];
	size_t size;
	int err;

	err = p9_encode(r, w->tx, P9_MSIZE_DEFAULT, &size);
	if (err)
		return err;
	iov[0] = (struct iovec){w->tx, size};
	iov[1] = (struct iovec){w->data, payload_size(r)};
	mutex_lock(&srv->send_lock);
	err = send_all(srv->sock, iov, iov[1].iov_len ? 2 : 1, w->donate_fd);
	mutex_unlock(&srv->send_lock);
	return err;
}

static void trace(const char *what, const struct p9_msg *msg)
{
	char line[512];

	if (atomic_load_explicit(&log_level_now, memory_order_relaxed) >= LOG_DEBUG_LEVEL)
		log_line(LOG_DEBUG_LEVEL, "9p %s %s", what, p9_print(msg, line, sizeof(line)));
}

/* ---- one request ---- */

/* Numbers that follow each other, as a walk's mostly do, go in one call. */
static void close_now(struct worker *w)
{
	while (w->late_count) {
		int last = w->late_fds[--w->late_count], first = last;

		while (w->late_count && w->late_fds[w->late_count - 1] == first - 1)
			first = w->late_fds[--w->late_count];
		if (first < last && close_range((unsigned)first, (unsigned)last, 0) == 0)
			continue;
		while (first <= last)
			close(first++);
	}
}

void worker_close_late(struct worker *w, int fd)
{
	if (w->late_count == SERVER_LATE_FDS_MAX)
		close_now(w);
	w->late_fds[w->late_count++] = fd;
}

static int serve(struct worker *w, const struct p9_msg *t)
{
	const struct op *op = &server_ops[t->type];
	bool window = watch_window_begin(w->srv, t, op->events), dropped;
	struct p9_msg r;
	int err;

	/* A reply's pointers must not be stale: a cleared one is empty. */
	memset(&r, 0, sizeof(r));
	r.type = (uint8_t)(t->type + 1);
	r.tag = t->tag;
	trace("<", t);
	w->donate_fd = -1;
	if (!op->fn || (op->moat && !atomic_load(&w->srv->moat)))
		err = -EOPNOTSUPP;
	else
		err = op->fn(w, t, &r);
	if (err) {
		r.type = P9_Rlerror;
		r.Rlerror.ecode = (uint32_t)-err;
	}
	trace(">", &r);
	if (window) {
		close_now(w);
		window = watch_window_end(w->srv, t, op->events, w->donate_fd >= 0);
	}
	mutex_lock(&w->srv->reader_lock);
	w->state = WORKER_REPLYING;
	dropped = w->dropped;
	mutex_unlock(&w->srv->reader_lock);
	err = dropped ? 0 : send_reply(w, &r);
	if (w->donate_fd >= 0)
		worker_close_late(w, w->donate_fd);
	close_now(w);
	if (window)
		watch_window_end_donated(w->srv);
	return err;
}

static int send_simple(struct worker *w, uint8_t type, uint16_t tag, uint32_t ecode)
{
	struct p9_msg r;

	memset(&r, 0, sizeof(r));
	r.type = type;
	r.tag = tag;
	if (type == P9_Rlerror)
		r.Rlerror.ecode = ecode;
	w->donate_fd = -1;
	return send_reply(w, &r);
}

/* ---- reading ---- */

/* recv(2). Descriptors from a client are not wanted: with no control buffer the kernel drops them. */
static ssize_t receive(struct server *srv)
{
	uint8_t *to = srv->rx + srv->rx_len;
	size_t room = RX_SIZE - srv->rx_len;
	ssize_t got = -1;

	spin_begin(&srv->spin, SERVER_SPIN_NS);
	while (got < 0 && spin_on(&srv->spin))
		got = recv(srv->sock, to, room, MSG_DONTWAIT);
	if (got < 0)
		got = recv(srv->sock, to, room, 0);
	spin_end(&srv->spin);
	return got;
}

/*
 * Moves the next whole message into w->rx. Pre: the caller is the reader.
 * Return: its size; 0 when the connection closed between messages; -errno.
 */
static ssize_t next_message(struct worker *w)
{
	struct server *srv = w->srv;

	for (;;) {
		uint32_t size;
		ssize_t got;
		int err;

		err = p9_frame_size(srv->rx + srv->rx_start, srv->rx_len, P9_MSIZE_DEFAULT, &size);
		if (!err && srv->rx_len >= size) {
			memcpy(w->rx, srv->rx + srv->rx_start, size);
			srv->rx_start += size;
			srv->rx_len -= size;
			return size;
		}
		if (err && err != -EAGAIN)
			return err;
		if (srv->rx_start) {
			memmove(srv->rx, srv->rx + srv->rx_start, srv->rx_len);
			srv->rx_start = 0;
		}
		got = receive(srv);
		if (got == 0)
			return srv->rx_len ? -EPIPE : 0;
		if (got < 0 && errno != EINTR)
			return errno == ECONNRESET ? 0 : -errno;
		if (got > 0)
			srv->rx_len += (size_t)got;
	}
}

static bool more_arrived(const struct server *srv)
{
	uint32_t size;

	return p9_frame_size(srv->rx + srv->rx_start, srv->rx_len, P9_MSIZE_DEFAULT, &size) == 0;
}

static void wake_reader(struct server *srv)
{
	atomic_fetch_add(&srv->reader_word, 1);
	futex_wake(&srv->reader_word, 1);
}

/* Waits for the reader's role. Return: false when the server stops, or nobody needed this worker for long. */
static bool become_reader(struct worker *w)
{
	struct server *srv = w->srv;
	bool ret, useless = false;

	mutex_lock(&srv->reader_lock);
	while (srv->reader && !srv->stop && !useless) {
		int64_t end = time_monotonic_ns() + SERVER_GROWN_IDLE_S * 1000000000ll;
		const struct timespec deadline = {end / 1000000000, end % 1000000000};
		uint32_t word = atomic_load(&srv->reader_word);
		int err;

		srv->idle++;
		mutex_unlock(&srv->reader_lock);
		err = futex_wait(&srv->reader_word, word, w->grown ? &deadline : NULL);
		mutex_lock(&srv->reader_lock);
		srv->idle--;
		/* Who hands the role on wakes one of the idle: it goes to another then. */
		useless = w->grown && err == -ETIMEDOUT && srv->reader;
	}
	ret = !srv->stop && !useless;
	if (ret)
		srv->reader = true;
	mutex_unlock(&srv->reader_lock);
	return ret;
}

static void stop_server(struct server *srv, int reason)
{
	mutex_lock(&srv->reader_lock);
	if (!srv->stop)
		srv->stop = reason ? reason : 1;
	mutex_unlock(&srv->reader_lock);
	atomic_fetch_add(&srv->reader_word, 1);
	futex_wake(&srv->reader_word, INT32_MAX);
	atomic_fetch_add(&srv->watch_word, 1);
	futex_wake(&srv->watch_word, 1);
	shutdown(srv->sock, SHUT_RDWR);
}

/* The worker serves t from now on. Pre: reader_lock. */
static void serving_locked(struct worker *w, const struct p9_msg *t, unsigned share)
{
	w->state = WORKER_SERVING;
	w->tag = t->tag;
	w->flushes = 0;
	w->droppable = p9_changes_nothing(t);
	w->dropped = false;
	w->relieved = false;
	w->share = share;
	w->srv->busy++;
	w->srv->busy_of[share]++;
}

/*
 * Registers the request, refuses a tag that is in use, hands the role on if that is worth it. Return: 0; 1: it was put aside; -EBADMSG; -EAGAIN: it is not to
 * be served.
 */
static int begin_request(struct worker *w, const struct p9_msg *t, size_t size, bool *ret_keep)
{
	struct server *srv = w->srv;
	unsigned share = share_of(srv, t, w->rx, size);
	const struct op *op = &server_ops[t->type];
	/* Whoever waits for the window of watch.c must not keep others from being served. */
	bool slow =
		op->slow || (op->events && atomic_load(&srv->watches.count)) || more_arrived(srv);
	bool watch = false;
	int err = 0;

	mutex_lock(&srv->reader_lock);
	for (unsigned i = 0; i < srv->worker_count; i++) {
		const struct worker *o = &srv->workers[i];

		if (o->state == WORKER_SERVING && o->tag == t->tag && !o->dropped)
			err = -EBADMSG;
	}
	if (!err && aside_has_locked(srv, t->tag))
		err = -EBADMSG;
	if (!err && share_is_used_locked(srv, share)) {
		err = aside_add_locked(srv, t, share, w->rx, size);
		err = err ? err : 1;
	}
	if (err) {
		mutex_unlock(&srv->reader_lock);
		return err;
	}
	serving_locked(w, t, share);
	*ret_keep = !(slow && srv->idle);
	if (*ret_keep) {
		srv->kept = w;
		srv->kept_count++;
		watch = srv->watch_sleeps;
		srv->watch_sleeps = false;
	} else {
		srv->reader = false;
	}
	mutex_unlock(&srv->reader_lock);
	if (!*ret_keep)
		wake_reader(srv);
	if (watch) {
		atomic_fetch_add(&srv->watch_word, 1);
		futex_wake(&srv->watch_word, 1);
	}
	return err;
}

/* *inout_keep: does it read on? */
static int end_request(struct worker *w, bool *inout_keep)
{
	struct server *srv = w->srv;
	uint16_t tags[SERVER_FLUSHES_MAX];
	unsigned count;
	int err = 0;

	mutex_lock(&srv->reader_lock);
	w->state = WORKER_IDLE;
	srv->busy--;
	srv->busy_of[w->share]--;
	if (srv->kept == w)
		srv->kept = NULL;
	*inout_keep &= !w->relieved;
	count = w->flushes;
	memcpy(tags, w->flush_tags, count * sizeof(tags[0]));
	mutex_unlock(&srv->reader_lock);
	for (unsigned i = 0; i < count && !err; i++)
		err = send_simple(w, P9_Rflush, tags[i], 0);
	return err;
}

static void *grown_thread(void *arg);

/*
 * The reader has served the same request since the last look: another reads. Pre: reader_lock, which is dropped.
 */
static void relieve_unlock(struct server *srv)
{
	/* Nobody else is there: at the next look, perhaps, when there is one more. */
	if (!srv->idle) {
		mutex_unlock(&srv->reader_lock);
		share_grow(srv, grown_thread);
		return;
	}
	srv->kept->relieved = true;
	srv->kept = NULL;
	srv->reader = false;
	mutex_unlock(&srv->reader_lock);
	wake_reader(srv);
}

/* Sleeps until something is served. The first time for a while only: what was needed to begin is dropped then. */
static void wait_for_service(struct server *srv, uint32_t word, bool *inout_trimmed)
{
	int64_t end = time_monotonic_ns() + TRIM_AFTER_MS * 1000000ll;
	struct timespec deadline = {end / 1000000000, end % 1000000000};

	if (!*inout_trimmed) {
		if (futex_wait(&srv->watch_word, word, &deadline) != -ETIMEDOUT)
			return;
		(void)trim_process();
		*inout_trimmed = true;
	}
	(void)futex_wait(&srv->watch_word, word, NULL);
}

static void *watch_thread(void *arg)
{
	struct server *srv = arg;
	bool trimmed = false;
	unsigned seen = 0;

	mutex_lock(&srv->reader_lock);
	while (!srv->stop) {
		uint32_t word = atomic_load(&srv->watch_word);
		struct timespec deadline;
		int64_t end;

		srv->watch_sleeps = !srv->kept && srv->kept_count == seen;
		seen = srv->kept_count;
		if (srv->watch_sleeps) {
			mutex_unlock(&srv->reader_lock);
			wait_for_service(srv, word, &trimmed);
			mutex_lock(&srv->reader_lock);
			continue;
		}
		mutex_unlock(&srv->reader_lock);
		end = time_monotonic_ns() + SERVER_STALL_MS * 1000000ll;
		deadline = (struct timespec){end / 1000000000, end % 1000000000};
		(void)futex_wait(&srv->watch_word, word, &deadline);
		mutex_lock(&srv->reader_lock);
		if (!srv->stop && srv->kept && srv->kept_count == seen) {
			relieve_unlock(srv);
			mutex_lock(&srv->reader_lock);
		}
	}
	mutex_unlock(&srv->reader_lock);
	return NULL;
}

/* Tflush: by the reader itself, so it comes after what it flushes was registered. */
static int serve_flush(struct worker *w, const struct p9_msg *t)
{
	struct server *srv = w->srv;
	struct worker *found = NULL;

	mutex_lock(&srv->reader_lock);
	for (unsigned i = 0; i < srv->worker_count; i++) {
		struct worker *o = &srv->workers[i];

		if (o->state != WORKER_IDLE && !o->dropped && o->tag == t->Tflush.oldtag &&
		    (!found || o->state == WORKER_SERVING))
			found = o;
	}
	if (found && found->state == WORKER_SERVING && found->droppable) {
		found->dropped = true;
		found = NULL;
	} else if ((!found || found->state == WORKER_REPLYING) &&
		   aside_drop_locked(srv, t->Tflush.oldtag)) {
		/* It has done nothing yet. Who replies still had the tag before: the client has that reply. */
		found = NULL;
	} else if (found && found->flushes < SERVER_FLUSHES_MAX) {
		found->flush_tags[found->flushes++] = t->tag;
	} else {
		found = NULL;
	}
	mutex_unlock(&srv->reader_lock);
	return found ? 0 : send_simple(w, P9_Rflush, t->tag, 0);
}

/* The next that was put aside and may be served now, if there is one: *ret_t, in w->rx. The role is handed on if that is worth it. */
static bool begin_aside(struct worker *w, struct p9_msg *ret_t, bool *inout_keep)
{
	struct server *srv = w->srv;
	bool handed_on = false, watch = false;
	struct aside *a;

	mutex_lock(&srv->reader_lock);
	/* Nobody is left who asked for them. */
	a = srv->aside_count && !srv->stop ? aside_take_locked(srv, w->share) : NULL;
	if (!a) {
		mutex_unlock(&srv->reader_lock);
		return false;
	}
	memcpy(w->rx, a->raw, a->size);
	if (p9_decode(w->rx, a->size, ret_t))
		abort(); /* it could be decoded before */
	serving_locked(w, ret_t, a->share);
	if (*inout_keep && srv->idle) {
		srv->reader = *inout_keep = false;
		handed_on = true;
	} else if (*inout_keep) {
		srv->kept = w;
		srv->kept_count++;
		watch = srv->watch_sleeps;
		srv->watch_sleeps = false;
	}
	mutex_unlock(&srv->reader_lock);
	free(a);
	if (handed_on)
		wake_reader(srv);
	if (watch) {
		atomic_fetch_add(&srv->watch_word, 1);
		futex_wake(&srv->watch_word, 1);
	}
	return true;
}

/* Reads and serves until the role was handed on (1), or for good (0, -errno). */
static int reader_loop(struct worker *w)
{
	for (;;) {
		ssize_t size = next_message(w);
		struct p9_msg t;
		bool keep;
		int err;

		if (size <= 0)
			return (int)size;
		err = p9_decode(w->rx, (size_t)size, &t);
		if (err == -EOPNOTSUPP) {
			err = send_simple(w, P9_Rlerror, t.tag, EOPNOTSUPP);
			if (err)
				return err;
			continue;
		}
		if (err || (t.type & 1))
			return -EBADMSG;
		if (t.type == P9_Tflush) {
			err = serve_flush(w, &t);
			if (err)
				return err;
			continue;
		}
		err = begin_request(w, &t, (size_t)size, &keep);
		if (err == -EAGAIN)
			err = send_simple(w, P9_Rlerror, t.tag, EAGAIN) ?: 1;
		if (err == 1)
			continue;
		if (err)
			return err;
		do {
			err = serve(w, &t);
			if (!err)
				err = end_request(w, &keep);
			if (err)
				return err;
		} while (begin_aside(w, &t, &keep));
		if (!keep)
			return 1;
	}
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	struct server *srv = w->srv;
	int ret = 1;

	while (ret == 1 && become_reader(w))
		ret = reader_loop(w);
	if (ret != 1)
		stop_server(srv, ret == 0 || ret == -EPIPE || ret == -ECONNRESET ? 0 : ret);
	return NULL;
}

/* A thread's own umask and working directory, then the loop; started before seccomp, released by server_run(). */
static void *worker_thread(void *arg)
{
	struct worker *w = arg;

	if (unshare(CLONE_FS) < 0)
		log_fatal("gofer: unshare(CLONE_FS): %s", strerror(errno));
	umask(0);
	atomic_fetch_add(&w->srv->ready, 1);
	futex_wake(&w->srv->ready, 1);
	return worker_main(w);
}

/* One more, made while the others wait. */
static void *grown_thread(void *arg)
{
	worker_thread(arg);
	share_give_place(arg);
	return NULL;
}

int worker_init(struct worker *w, struct server *srv)
{
	w->srv = srv;
	w->donate_fd = -1;
	w->umask = 0; /* the thread's; a place's last one had another */
	w->rx = malloc(P9_MSIZE_DEFAULT);
	w->tx = malloc(P9_MSIZE_DEFAULT);
	w->data = malloc(P9_MSIZE_DEFAULT);
	w->dents = malloc(SERVER_DENTS_SIZE);
	w->nodes = malloc((size_t)P9_NODES_MAX * P9_NODE_SIZE);
	return w->rx && w->tx && w->data && w->dents && w->nodes ? 0 : -ENOMEM;
}

void worker_fini(struct worker *w)
{
	free(w->rx);
	free(w->tx);
	free(w->data);
	free(w->dents);
	free(w->nodes);
	w->rx = w->tx = w->data = w->dents = w->nodes = NULL;
}

int server_start(struct server *srv, unsigned threads)
{
	pthread_attr_t attr;
	uint32_t ready;
	int err;

	srv->rx = malloc(RX_SIZE);
	if (!srv->rx)
		return -ENOMEM;
	atomic_store(&srv->msize, P9_MSIZE_DEFAULT);
	srv->reader = true; /* nobody reads before server_run() */
	err = pthread_attr_init(&attr);
	if (err)
		return -err;
	pthread_attr_setstacksize(&attr, SERVER_WORKER_STACK);
	srv->thread_count = threads;
	for (unsigned i = 0; i < threads; i++) {
		struct worker *w = &srv->workers[i];

		err = worker_init(w, srv);
		if (err)
			break;
		srv->worker_count = i + 1;
		/* The first worker is the calling thread. */
		if (i > 0)
			err = -pthread_create(&w->thread, &attr, worker_thread, w);
		if (err)
			break;
	}
	if (!err && threads > 1)
		err = -pthread_create(&srv->watch_thread, &attr, watch_thread, srv);
	pthread_attr_destroy(&attr);
	/* The filter that comes next has no unshare(2). */
	while (!err && (ready = atomic_load(&srv->ready)) < threads - 1)
		(void)futex_wait(&srv->ready, ready, NULL);
	return err;
}

int server_run(struct server *srv)
{
	mutex_lock(&srv->reader_lock);
	srv->reader = false;
	mutex_unlock(&srv->reader_lock);
	umask(0);
	worker_main(&srv->workers[0]);
	/* First who makes others. */
	if (srv->thread_count > 1)
		pthread_join(srv->watch_thread, NULL);
	for (unsigned i = 1; i < srv->thread_count; i++)
		pthread_join(srv->workers[i].thread, NULL);
	share_await_grown(srv);
	locks_fini(srv);
	fid_remove_all(srv);
	watches_fini(srv);
	return srv->stop < 0 ? srv->stop : 0;
}
