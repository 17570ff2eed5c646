/*
 * fsimpl/socket/unix_io.c - messages.
 *
 * A message is charged to its sender's send buffer until it was read, as on Linux, so a sender waits on its own queue.
 * Data is copied into the message before any lock. A datagram is taken off the queue and then copied out (a fault loses it, as on
 * Linux); a stream's bytes are copied under the receiver's lock into guest memory that was pinned before.
 *
 * Cannot do: out-of-band bytes.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "fsimpl/socket/internal.h"
#include "mem/guard.h"

static REF_TYPE(umsg_type, "unix message");
static _Atomic int64_t rights_inflight;

enum { SHUT_RECV = 1, SHUT_SEND = 2, SHUT_BOTH = 3 };

#define WAKE_OUT (POLLOUT | POLLWRNORM | POLLWRBAND)
#define WAKE_IN (POLLIN | POLLRDNORM)

/* ---- message life ---- */

void umsg_unref(struct umsg *m)
{
	if (!ref_put(&m->ref))
		return;
	gc_message_gone(m);
	if (m->owner) {
		atomic_fetch_sub_explicit(&m->owner->wmem, (int64_t)(m->size + UMSG_OVERHEAD),
					  memory_order_relaxed);
		wait_queue_wake(&m->owner->wait, WAKE_OUT);
		usock_unref(m->owner);
	}
	for (unsigned i = 0; i < m->nfiles; i++)
		file_unref_later(m->files[i]); /* may be a socket whose queue holds another ... */
	if (m->nfiles)
		atomic_fetch_sub_explicit(&rights_inflight, m->nfiles, memory_order_relaxed);
	uaddr_unref(m->from);
	ref_fini(&m->ref, &umsg_type);
	free(m->files);
	free(m);
}

static bool rights_charge(unsigned n)
{
	if (atomic_fetch_add_explicit(&rights_inflight, n, memory_order_relaxed) + n <=
	    RIGHTS_INFLIGHT_MAX)
		return true;
	atomic_fetch_sub_explicit(&rights_inflight, n, memory_order_relaxed);
	return false;
}

static int umsg_attach_files(struct umsg *m, const struct socket_msg *sm)
{
	if (!sm->nfiles)
		return 0;
	if (!rights_charge(sm->nfiles)) {
		usock_collect();
		if (!rights_charge(sm->nfiles))
			return -ETOOMANYREFS;
	}
	m->files = calloc(sm->nfiles, sizeof(*m->files));
	if (!m->files) {
		atomic_fetch_sub_explicit(&rights_inflight, sm->nfiles, memory_order_relaxed);
		return -ENOMEM;
	}
	for (unsigned i = 0; i < sm->nfiles; i++) {
		m->files[i] = file_ref(sm->files[i]);
		m->nsockets += unix_is(sm->files[i]);
	}
	m->nfiles = sm->nfiles;
	return 0;
}

/* A message of up to `size` of the iterator's bytes. with_control: the first of a send. */
static int umsg_create(struct usock *s, struct socket_msg *sm, size_t size, bool with_control,
		       struct umsg **ret)
{
	struct umsg *m = malloc(sizeof(*m) + size);
	int err = 0;

	if (!m)
		return -ENOMEM;
	memset(m, 0, sizeof(*m));
	ref_init(&m->ref, &umsg_type);
	if (size && io_iter_get(sm->it, m->data, size) != size)
		err = -EFAULT;
	if (!err && with_control)
		err = umsg_attach_files(m, sm);
	if (err) {
		umsg_unref(m);
		return err;
	}
	m->size = size;
	if (sm->has_cred)
		m->cred = sm->cred;
	else
		socket_current_cred(&m->cred, true);
	m->stamp_ns = time_realtime_ns();
	usock_ref(s);
	m->owner = s;
	atomic_fetch_add_explicit(&s->wmem, (int64_t)(size + UMSG_OVERHEAD), memory_order_relaxed);
	mutex_lock(&s->lock);
	m->from = uaddr_ref(s->addr);
	mutex_unlock(&s->lock);
	*ret = m;
	return 0;
}

void usock_purge(struct usock *s)
{
	TAILQ_HEAD(, umsg) all = TAILQ_HEAD_INITIALIZER(all);
	struct umsg *m;

	mutex_lock(&s->lock);
	TAILQ_CONCAT(&all, &s->queue, link);
	s->queued = 0;
	mutex_unlock(&s->lock);
	while ((m = TAILQ_FIRST(&all))) {
		TAILQ_REMOVE(&all, m, link);
		gc_message_gone(m); /* a peeker may keep it for longer than s lives */
		umsg_unref(m);
	}
}

/* ---- sending ---- */

static ssize_t send_broken(int flags)
{
	if (!(flags & MSG_NOSIGNAL) && vfs_hooks.raise_signal)
		vfs_hooks.raise_signal(SIGPIPE);
	return -EPIPE;
}

static bool usock_has_room(struct usock *s, size_t size)
{
	int64_t used = atomic_load_explicit(&s->wmem, memory_order_relaxed);

	return used <= 0 || used + (int64_t)(size + UMSG_OVERHEAD) <= s->sndbuf;
}

/* Takes m. 0, -EPIPE, -ECONNREFUSED, or what relay_deliver() says. */
static int usock_deliver(struct usock *to, struct umsg *m, int refused)
{
	int err = 0;

	if (to->relay_fd >= 0)
		return relay_deliver(to, m);
	mutex_lock(&to->lock);
	if (to->state == USOCK_DEAD)
		err = refused;
	else if (to->shut & SHUT_RECV)
		err = -EPIPE;
	else {
		TAILQ_INSERT_TAIL(&to->queue, m, link);
		gc_message_queued(m, to);
		to->queued += m->size;
	}
	mutex_unlock(&to->lock);
	if (err)
		umsg_unref(m);
	else
		wait_queue_wake(&to->wait, WAKE_IN);
	return err;
}

static int stream_can_send(struct usock *s, struct usock **ret_peer)
{
	int err = 0;

	mutex_lock(&s->lock);
	if (s->state != USOCK_CONNECTED)
		err = -ENOTCONN;
	else if ((s->shut & SHUT_SEND) || !s->peer)
		err = -EPIPE;
	else {
		usock_ref(s->peer);
		*ret_peer = s->peer;
	}
	mutex_unlock(&s->lock);
	return err;
}

static ssize_t send_stream(struct usock *s, struct socket_msg *sm, int flags)
{
	struct usock *peer;
	ssize_t total = 0;
	int err = stream_can_send(s, &peer);

	if (err)
		return err == -EPIPE ? send_broken(flags) : err;
	while (sm->it->remaining) {
		/* At most half the buffer, so that the reader has work while we copy. */
		size_t most = MIN(UMSG_CHUNK_MAX, (uint32_t)s->sndbuf / 2);
		size_t size = MIN(sm->it->remaining, (uint64_t)most);
		struct umsg *m;

		if (!usock_has_room(s, size)) {
			int64_t room = s->sndbuf -
				       atomic_load_explicit(&s->wmem, memory_order_relaxed) -
				       (int64_t)UMSG_OVERHEAD;

			if (room < 1) {
				err = -EAGAIN;
				break;
			}
			size = MIN(size, (size_t)room);
		}
		err = umsg_create(s, sm, size, !total, &m);
		if (err)
			break;
		err = usock_deliver(peer, m, -EPIPE);
		if (err) {
			io_iter_revert(sm->it, size);
			break;
		}
		total += (ssize_t)size;
	}
	usock_unref(peer);
	if (total)
		return total;
	return err == -EPIPE ? send_broken(flags) : err;
}

/* The destination of a datagram: a reference. */
static int dgram_target(struct usock *s, struct socket_msg *sm, struct usock **ret)
{
	struct usock *to;
	int err = 0;

	if (sm->addr && sm->addr->len) {
		err = name_find(sm->addr, s->type, sm->lookup, &to, NULL, NULL);
		if (err)
			return err;
	} else {
		to = usock_get_peer(s);
		if (!to)
			return -ENOTCONN;
	}
	mutex_lock(&to->lock);
	if (to->state == USOCK_DEAD)
		err = -ECONNREFUSED;
	else if (to->peer && to->peer != s)
		err = -EPERM; /* connected to another */
	mutex_unlock(&to->lock);
	if (err == -ECONNREFUSED) {
		struct usock *drop = NULL;

		/* A connected sender forgets the dead one: the next send says ENOTCONN. */
		mutex_lock(&s->lock);
		if (s->peer == to) {
			drop = s->peer;
			s->peer = NULL;
		}
		mutex_unlock(&s->lock);
		if (drop)
			usock_unref(drop);
	}
	if (err)
		usock_unref(to);
	else
		*ret = to;
	return err;
}

static int packet_target(struct usock *s, struct socket_msg *sm, struct usock **ret)
{
	int err;

	if (s->type == SOCK_SEQPACKET)
		return stream_can_send(s, ret);
	err = name_autobind_if_asked(s);
	if (err)
		return err;
	mutex_lock(&s->lock);
	err = s->shut & SHUT_SEND ? -EPIPE : 0;
	mutex_unlock(&s->lock);
	return err ? err : dgram_target(s, sm, ret);
}

static ssize_t send_packet(struct usock *s, struct socket_msg *sm, int flags)
{
	uint64_t size = sm->it->remaining;
	struct usock *to;
	struct umsg *m;
	int err;

	if (size > (uint64_t)s->sndbuf - 32)
		return -EMSGSIZE;
	err = packet_target(s, sm, &to);
	if (err)
		return err == -EPIPE ? send_broken(flags) : err;
	if (!usock_has_room(s, size)) {
		usock_unref(to);
		return -EAGAIN;
	}
	err = umsg_create(s, sm, size, true, &m);
	if (!err) {
		err = usock_deliver(to, m, usock_connects(s) ? -EPIPE : -ECONNREFUSED);
		if (err)
			io_iter_revert(sm->it, size);
	}
	usock_unref(to);
	if (err == -EPIPE)
		return send_broken(flags);
	return err ? err : (ssize_t)size;
}

ssize_t unix_sendmsg(struct file *f, struct socket_msg *sm, int flags)
{
	struct usock *s = usock_of(f);
	bool has_addr = sm->addr && sm->addr->len;

	if (flags & MSG_OOB)
		return -EOPNOTSUPP;
	if (s->type == SOCK_STREAM && has_addr)
		return s->state == USOCK_CONNECTED ? -EISCONN : -EOPNOTSUPP;
	if (usock_is_hosts(s))
		return uhost_send(s, sm, flags);
	return s->type == SOCK_STREAM ? send_stream(s, sm, flags) : send_packet(s, sm, flags);
}

/* ---- receiving ---- */

/* Nothing is queued: what does a read say? Pre: s->lock. */
static int empty_result_locked(struct usock *s)
{
	if (s->error) {
		int err = -s->error;

		s->error = 0;
		return err;
	}
	if (s->shut & SHUT_RECV)
		return 0;
	return -EAGAIN;
}

static void msg_control(struct usock *s, struct umsg *m, struct socket_msg *sm)
{
	sm->cred = m->cred;
	sm->has_cred = s->passcred;
	sm->has_pidfd = s->passpidfd;
	sm->has_stamp = s->timestamp || s->timestamp_ns;
	sm->stamp_ns = m->stamp_ns;
}

/* Descriptors leave the message (or, for a peek, are shared). Pre: s->lock. */
static void msg_files(struct umsg *m, struct socket_msg *sm, bool peek)
{
	sm->nfiles = m->nfiles;
	if (!m->nfiles)
		return;
	if (peek) {
		gc_peek_files(m, sm->files);
	} else {
		gc_message_gone(m);
		memcpy(sm->files, m->files, m->nfiles * sizeof(*m->files));
		atomic_fetch_sub_explicit(&rights_inflight, m->nfiles, memory_order_relaxed);
		m->nfiles = 0;
	}
}

static bool same_cred(const struct socket_cred *a, const struct socket_cred *b)
{
	return a->pid == b->pid && a->uid == b->uid && a->gid == b->gid;
}

struct stream_read {
	struct usock *s;
	struct socket_msg *sm;
	bool peek, got_any, stop;
	size_t skip; /* a peek's place */
	TAILQ_HEAD(, umsg) done;
};

/* Copies from the queue into the pinned window. Pre: s->lock. Return: bytes; sets *ret_err. */
static size_t stream_copy_locked(struct stream_read *r, const struct iovec *iov, int n,
				 int *ret_err)
{
	struct usock *s = r->s;
	size_t total = 0, in_seg = 0, skip = r->skip;
	struct umsg *m, *next;
	int i = 0;

	TAILQ_FOREACH_SAFE (m, &s->queue, link, next) {
		size_t off = m->off;

		if (skip >= m->size - off) {
			skip -= m->size - off;
			continue;
		}
		off += skip;
		skip = 0;
		if (r->got_any &&
		    ((s->passcred && !same_cred(&r->sm->cred, &m->cred)) || m->nfiles)) {
			r->stop = true;
			break;
		}
		if (!r->got_any) {
			if (r->sm->addr && m->from)
				uaddr_copy(m->from, r->sm->addr);
			msg_control(s, m, r->sm);
		}
		r->got_any = true;
		if (m->nfiles) {
			msg_files(m, r->sm, r->peek);
			r->stop = true; /* descriptors end a read after their bytes */
		}
		while (i < n && off < m->size && !*ret_err) {
			size_t chunk = MIN(iov[i].iov_len - in_seg, m->size - off);
			size_t left =
				guard_copy((char *)iov[i].iov_base + in_seg, m->data + off, chunk);

			if (left)
				*ret_err = -EFAULT;
			off += chunk - left;
			in_seg += chunk - left;
			total += chunk - left;
			if (in_seg == iov[i].iov_len) {
				i++;
				in_seg = 0;
			}
		}
		if (!r->peek) {
			s->queued -= off - m->off;
			m->off = off;
			if (m->off == m->size) {
				TAILQ_REMOVE(&s->queue, m, link);
				TAILQ_INSERT_TAIL(&r->done, m, link);
			}
		}
		if (i == n || *ret_err || r->stop)
			break;
	}
	return total;
}

/* SO_PEEK_OFF: on after a peek, back after a read. */
static void peek_offset_moved(struct usock *s, bool peek, size_t size)
{
	mutex_lock(&s->lock);
	if (s->peek_off >= 0)
		s->peek_off =
			peek ? s->peek_off + (int)size : s->peek_off - MIN(s->peek_off, (int)size);
	mutex_unlock(&s->lock);
}

static ssize_t recv_stream(struct usock *s, struct socket_msg *sm, int flags)
{
	struct stream_read r = {.s = s, .sm = sm, .peek = flags & MSG_PEEK};
	ssize_t total = 0;
	struct umsg *m;
	int err = 0;

	if (flags & MSG_OOB)
		return -EOPNOTSUPP;
	TAILQ_INIT(&r.done);
	mutex_lock(&s->lock);
	if (s->state != USOCK_CONNECTED)
		err = -EINVAL;
	mutex_unlock(&s->lock);
	if (err)
		return err;
	mutex_lock(&s->lock);
	if (r.peek && s->peek_off > 0)
		r.skip = (size_t)s->peek_off;
	/* No room asks whether something is there. */
	if (!sm->it->remaining)
		err = TAILQ_EMPTY(&s->queue) ? empty_result_locked(s) : 0;
	mutex_unlock(&s->lock);
	if (!sm->it->remaining)
		return err;
	while (sm->it->remaining && !err && !r.stop) {
		struct iovec iov[IO_ITER_SEGS];
		size_t done;
		int n = io_iter_window(sm->it, sm->it->remaining, iov, IO_ITER_SEGS);

		if (n < 0) {
			err = n;
			break;
		}
		mutex_lock(&s->lock);
		done = stream_copy_locked(&r, iov, n, &err);
		if (!done && !err) {
			err = total ? -EAGAIN : empty_result_locked(s);
			r.stop = true;
		}
		mutex_unlock(&s->lock);
		io_iter_advance(sm->it, done);
		total += (ssize_t)done;
		if (r.peek)
			r.skip += done;
		peek_offset_moved(s, r.peek, done);
	}
	while ((m = TAILQ_FIRST(&r.done))) {
		TAILQ_REMOVE(&r.done, m, link);
		umsg_unref(m);
	}
	if (err == -EFAULT)
		sm->it->error = err;
	return total ? total : err;
}

/*
 * The front message, with a reference; off the queue unless peeked. A peek begins at SO_PEEK_OFF, which may be in a later message:
 * *ret_skip bytes in.
 */
static int packet_take(struct usock *s, bool peek, struct socket_msg *sm, struct umsg **ret,
		       size_t *ret_skip)
{
	struct umsg *m;
	size_t skip;
	int err = 0;

	mutex_lock(&s->lock);
	m = TAILQ_FIRST(&s->queue);
	skip = peek && s->peek_off > 0 ? (size_t)s->peek_off : 0;
	while (skip && m && skip >= m->size) {
		skip -= m->size;
		m = TAILQ_NEXT(m, link);
	}
	*ret_skip = skip;
	if (s->type == SOCK_SEQPACKET && s->state != USOCK_CONNECTED) {
		err = -ENOTCONN;
	} else if (!m) {
		err = empty_result_locked(s);
		if (!err)
			err = 1; /* the end */
	} else {
		msg_control(s, m, sm);
		msg_files(m, sm, peek);
		if (peek) {
			ref_get(&m->ref);
		} else {
			TAILQ_REMOVE(&s->queue, m, link);
			s->queued -= m->size;
		}
		*ret = m;
	}
	mutex_unlock(&s->lock);
	return err;
}

static ssize_t recv_packet(struct usock *s, struct socket_msg *sm, int flags)
{
	struct umsg *m;
	size_t size, put, skip, left;
	ssize_t ret;
	int err;

	if (flags & MSG_OOB)
		return -EOPNOTSUPP;
	err = packet_take(s, flags & MSG_PEEK, sm, &m, &skip);
	if (err)
		return err < 0 ? err : 0;
	if (sm->addr) {
		if (m->from)
			uaddr_copy(m->from, sm->addr);
		else
			sm->addr->len = 0;
	}
	left = m->size - skip;
	size = MIN((uint64_t)left, sm->it->remaining);
	put = io_iter_put(sm->it, m->data + skip, size);
	if (size < left)
		sm->flags |= MSG_TRUNC;
	if (put < size)
		ret = -EFAULT;
	else
		ret = flags & MSG_TRUNC ? (ssize_t)left : (ssize_t)size;
	peek_offset_moved(s, flags & MSG_PEEK, flags & MSG_PEEK ? size : m->size);
	umsg_unref(m);
	return ret;
}

ssize_t unix_recvmsg(struct file *f, struct socket_msg *sm, int flags)
{
	struct usock *s = usock_of(f);
	ssize_t n;

	sm->nfiles = 0;
	sm->flags = 0;
	sm->has_cred = sm->has_stamp = sm->has_pidfd = false;
	if (sm->addr)
		sm->addr->len = 0;
	if (usock_is_hosts(s))
		return uhost_recv(s, sm, flags);
	if (s->type == SOCK_STREAM)
		return recv_stream(s, sm, flags);
	n = recv_packet(s, sm, flags);
	/* Nothing from the sandbox: from the host? A bound half of what is connected here brings nothing. */
	return n == -EAGAIN && !usock_connects(s) && usock_has_host(s) ? uhost_recv(s, sm, flags)
								       : n;
}

/* ---- readiness ---- */

uint32_t usock_poll(struct usock *s)
{
	int64_t used = atomic_load_explicit(&s->wmem, memory_order_relaxed);
	uint32_t events = 0;

	mutex_lock(&s->lock);
	if (s->error)
		events |= POLLERR;
	if (s->shut == SHUT_BOTH)
		events |= POLLHUP;
	if (s->shut & SHUT_RECV)
		events |= POLLRDHUP | POLLIN | POLLRDNORM;
	if (!TAILQ_EMPTY(&s->queue) || !TAILQ_EMPTY(&s->embryos))
		events |= POLLIN | POLLRDNORM;
	if (usock_connects(s) && s->state == USOCK_IDLE)
		events |= POLLHUP;
	if (s->state != USOCK_LISTEN && used * 4 <= s->sndbuf)
		events |= WAKE_OUT;
	mutex_unlock(&s->lock);
	return events;
}
