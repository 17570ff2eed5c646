/*
 * fsimpl/socket/unix.c - the life of a connection.
 *
 * A connected pair refers to each other; the link is cut when either closes. Whoever needs a peer takes a reference under
 * its own lock, then the peer's lock alone; only connect and pair hold two, by address. A connection that was not accepted yet
 * is a socket without a file in its listener's queue.
 */
#include <stdlib.h>
#include <string.h>

#include "fsimpl/socket/internal.h"

enum { SHUT_RECV = 1, SHUT_SEND = 2, SHUT_BOTH = 3 };

#define WAKE_ALL \
	(POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM | POLLWRBAND | POLLHUP | POLLERR | POLLRDHUP)

struct usock *usock_get_peer(struct usock *s)
{
	struct usock *p;

	mutex_lock(&s->lock);
	p = s->peer;
	if (p)
		usock_ref(p);
	mutex_unlock(&s->lock);
	return p;
}

void usock_pair(struct usock *a, struct usock *b)
{
	usock_ref(a);
	usock_ref(b);
	a->peer = b;
	b->peer = a;
	a->had_peer = b->had_peer = true;
	if (usock_connects(a))
		a->state = b->state = USOCK_CONNECTED;
	usock_own_cred_locked(a);
	usock_own_cred_locked(b);
	usock_peer_cred_locked(a, b);
	usock_peer_cred_locked(b, a);
}

/* Tells the other side of a connection that s is gone. */
static void usock_disconnect_peer(struct usock *s, struct usock *peer, bool reset)
{
	if (!usock_connects(s)) {
		usock_unref(peer); /* a datagram peer finds out when it sends */
		return;
	}
	mutex_lock(&peer->lock);
	if (peer->peer == s) {
		peer->shut = SHUT_BOTH;
		if (reset)
			peer->error = ECONNRESET;
		/* It goes on referring to s: getpeername() works until it closes too. */
	}
	mutex_unlock(&peer->lock);
	wait_queue_wake(&peer->wait, WAKE_ALL);
	usock_unref(peer);
}

void usock_close(struct usock *s)
{
	TAILQ_HEAD(, usock) embryos = TAILQ_HEAD_INITIALIZER(embryos);
	struct usock *peer, *e, *waited;
	bool unread;

	name_release(s);
	mutex_lock(&s->lock);
	unread = !TAILQ_EMPTY(&s->queue) || (!s->ino && s->state == USOCK_CONNECTED);
	s->state = USOCK_DEAD;
	s->shut = SHUT_BOTH;
	peer = s->peer;
	s->peer = NULL;
	waited = s->connect_wait;
	s->connect_wait = NULL;
	TAILQ_CONCAT(&embryos, &s->embryos, embryo_link);
	s->nembryos = 0;
	mutex_unlock(&s->lock);
	wait_queue_wake(&s->wait, WAKE_ALL);
	if (peer)
		usock_disconnect_peer(s, peer, unread);
	if (waited)
		usock_unref(waited);
	while ((e = TAILQ_FIRST(&embryos))) {
		TAILQ_REMOVE(&embryos, e, embryo_link);
		usock_close(e); /* embryos have none of their own: one level */
		usock_unref(e);
	}
	uhost_close(s);
	usock_purge(s);
}

int unix_bind(struct file *f, const struct socket_addr *addr, const struct vfs_lookup *lookup,
	      uint32_t umask)
{
	return name_bind(usock_of(f), addr, lookup, umask);
}

int unix_listen(struct file *f, int backlog)
{
	struct usock *s = usock_of(f);
	bool listened = false;
	int err = 0;

	if (!usock_connects(s))
		return -EOPNOTSUPP;
	mutex_lock(&s->lock);
	listened = s->state == USOCK_LISTEN;
	if (!s->addr || (s->state != USOCK_IDLE && s->state != USOCK_LISTEN) || s->had_peer) {
		err = -EINVAL;
	} else {
		s->backlog = backlog < 0 || backlog > SOCKET_BACKLOG_MAX ? SOCKET_BACKLOG_MAX
									 : (unsigned)backlog;
		s->state = USOCK_LISTEN;
		/* What SO_PEERCRED of a client will show. */
		usock_own_cred_locked(s);
	}
	mutex_unlock(&s->lock);
	if (!err && usock_has_host(s)) {
		err = uhost_listen(s, backlog);
		/* Nobody is to wait for who connects to it. */
		if (err && !listened) {
			mutex_lock(&s->lock);
			if (s->state == USOCK_LISTEN)
				s->state = USOCK_IDLE;
			mutex_unlock(&s->lock);
		}
	}
	if (!err)
		wait_queue_wake(&s->wait, WAKE_ALL);
	return err;
}

/* ---- connect ---- */

static int connect_dgram(struct usock *s, const struct socket_addr *addr,
			 const struct vfs_lookup *lookup)
{
	struct usock *other = NULL, *old;
	int err = 0;

	if (addr->sa.sa_family != AF_UNSPEC) {
		err = name_find(addr, s->type, lookup, &other, NULL, NULL);
		if (err)
			return err;
		mutex_lock(&other->lock);
		if (other->peer && other->peer != s)
			err = -EPERM;
		else if (other->state == USOCK_DEAD)
			err = -ECONNREFUSED;
		mutex_unlock(&other->lock);
		if (err) {
			usock_unref(other);
			return err;
		}
	}
	mutex_lock(&s->lock);
	old = s->peer;
	s->peer = other;
	s->had_peer = other;
	mutex_unlock(&s->lock);
	if (old)
		usock_unref(old);
	wait_queue_wake(&s->wait, POLLOUT | POLLWRNORM | POLLWRBAND);
	return 0;
}

/* Queues a fresh connection at the listener. Pre: both locks. */
static int connect_queue_locked(struct usock *s, struct usock *listener, struct usock *e)
{
	if (s->state == USOCK_CONNECTED || s->had_peer)
		return -EISCONN;
	if (s->state != USOCK_IDLE)
		return -EINVAL;
	if (listener->state != USOCK_LISTEN || (listener->shut & SHUT_RECV))
		return -ECONNREFUSED;
	if (listener->nembryos > listener->backlog)
		return -EAGAIN;
	usock_ref(s);
	usock_ref(e);
	e->peer = s;
	s->peer = e;
	e->state = s->state = USOCK_CONNECTED;
	e->had_peer = s->had_peer = true;
	usock_own_cred_locked(s);
	e->own = listener->own;
	e->own_full = listener->own_full ? cred_ref(listener->own_full) : NULL;
	usock_peer_cred_locked(e, s);
	usock_peer_cred_locked(s, listener);
	e->addr = uaddr_ref(listener->addr);
	e->passcred = listener->passcred;
	e->passpidfd = listener->passpidfd;
	usock_ref(e); /* the queue's */
	TAILQ_INSERT_TAIL(&listener->embryos, e, embryo_link);
	listener->nembryos++;
	gc_set_listener(e, listener);
	return 0;
}

static int connect_stream(struct usock *s, const struct socket_addr *addr,
			  const struct vfs_lookup *lookup)
{
	struct usock *listener, *e, *old_wait;
	struct vfs_endpoint *host = NULL;
	struct uaddr *name;
	int err = name_find(addr, s->type, lookup, &listener, &host, &name);

	if (err)
		return err;
	if (host) {
		err = uhost_connect(s, host, name);
		uaddr_unref(name);
		if (ref_put(&host->ref))
			host->release(host);
		return err;
	}
	if (listener == s) {
		usock_unref(s);
		return s->state == USOCK_LISTEN ? -EINVAL : -ECONNREFUSED;
	}
	err = usock_create(s->type, &e);
	if (err) {
		usock_unref(listener);
		return err;
	}
	mutex_lock_pair(&s->lock, &listener->lock);
	err = connect_queue_locked(s, listener, e);
	old_wait = s->connect_wait;
	s->connect_wait = NULL;
	if (err == -EAGAIN) {
		usock_ref(listener);
		s->connect_wait = listener;
	}
	mutex_unlock_pair(&s->lock, &listener->lock);
	if (!err) {
		wait_queue_wake(&listener->wait, POLLIN | POLLRDNORM);
		wait_queue_wake(&s->wait, POLLOUT | POLLWRNORM | POLLWRBAND);
	}
	if (old_wait)
		usock_unref(old_wait);
	usock_unref(e);
	usock_unref(listener);
	return err;
}

int unix_connect(struct file *f, const struct socket_addr *addr, const struct vfs_lookup *lookup)
{
	struct usock *s = usock_of(f);

	if (addr->len < sizeof(sa_family_t))
		return -EINVAL;
	if (addr->sa.sa_family == AF_UNIX) {
		int err = name_autobind_if_asked(s);

		if (err)
			return err;
	}
	if (!usock_connects(s))
		return connect_dgram(s, addr, lookup);
	return connect_stream(s, addr, lookup);
}

static bool listener_has_room(void *arg)
{
	struct usock *l = arg;
	bool room;

	mutex_lock(&l->lock);
	room = l->state != USOCK_LISTEN || l->nembryos <= l->backlog;
	mutex_unlock(&l->lock);
	return room;
}

int unix_connect_wait(struct file *f, int64_t deadline)
{
	struct usock *s = usock_of(f), *l;
	bool busy;
	int err;

	mutex_lock(&s->lock);
	l = s->connect_wait;
	s->connect_wait = NULL;
	busy = s->host_busy;
	mutex_unlock(&s->lock);
	if (!l)
		return busy ? uhost_connect_wait(deadline) : 0;
	err = wait_event(&l->wait, listener_has_room, l, SLEEP_INTERRUPTIBLE, deadline);
	usock_unref(l);
	return err == -ETIMEDOUT ? -EAGAIN : err;
}

int unix_accept(struct file *f, int flags, struct socket_addr *addr, struct file **ret)
{
	struct usock *s = usock_of(f), *e, *peer;
	int err = 0;

	if (!usock_connects(s))
		return -EOPNOTSUPP;
	mutex_lock(&s->lock);
	e = NULL;
	if (s->state != USOCK_LISTEN) {
		err = -EINVAL;
	} else {
		e = TAILQ_FIRST(&s->embryos);
		if (e) {
			TAILQ_REMOVE(&s->embryos, e, embryo_link);
			s->nembryos--;
		} else {
			err = s->shut & SHUT_RECV ? -EINVAL : -EAGAIN;
		}
	}
	mutex_unlock(&s->lock);
	if (err == -EAGAIN && usock_has_host(s))
		err = uhost_accept(s, &e);
	if (err)
		return err;
	wait_queue_wake(&s->wait,
			POLLOUT | POLLWRNORM | POLLWRBAND); /* connects that wait for room */
	peer = usock_get_peer(e);
	if (addr) {
		addr->sa.sa_family = AF_UNIX;
		addr->len = sizeof(sa_family_t);
		if (peer) {
			mutex_lock(&peer->lock);
			uaddr_copy(peer->addr, addr);
			mutex_unlock(&peer->lock);
		}
	}
	if (peer)
		usock_unref(peer);
	err = unix_file_create(e, (unsigned)flags & SOCK_NONBLOCK, ret);
	gc_set_listener(e, NULL); /* our caller holds the listener until here */
	if (err) {
		usock_close(e);
		usock_unref(e);
	}
	return err;
}

int unix_getname(struct file *f, bool want_peer, struct socket_addr *ret)
{
	struct usock *s = usock_of(f), *peer;
	int err = 0;

	if (!want_peer) {
		mutex_lock(&s->lock);
		uaddr_copy(s->addr, ret);
		mutex_unlock(&s->lock);
		return 0;
	}
	if (usock_is_hosts(s)) {
		uaddr_copy(s->host_name, ret);
		return 0;
	}
	peer = usock_get_peer(s);
	if (!peer)
		return -ENOTCONN;
	mutex_lock(&peer->lock);
	uaddr_copy(peer->addr, ret);
	mutex_unlock(&peer->lock);
	usock_unref(peer);
	return err;
}

int unix_shutdown(struct file *f, int how)
{
	struct usock *s = usock_of(f), *peer;
	unsigned mode, peer_mode;

	if (how < SHUT_RD || how > SHUT_RDWR)
		return -EINVAL;
	if (usock_has_host(s))
		uhost_shutdown(s, how);
	mode = (unsigned)how + 1; /* SHUT_RD 0, SHUT_WR 1, SHUT_RDWR 2 -> bits */
	mutex_lock(&s->lock);
	s->shut |= mode;
	peer = usock_connects(s) ? s->peer : NULL;
	if (peer)
		usock_ref(peer);
	mutex_unlock(&s->lock);
	if (peer) {
		peer_mode = (mode & SHUT_RECV ? SHUT_SEND : 0) | (mode & SHUT_SEND ? SHUT_RECV : 0);
		mutex_lock(&peer->lock);
		peer->shut |= peer_mode;
		mutex_unlock(&peer->lock);
		wait_queue_wake(&peer->wait, WAKE_ALL);
		usock_unref(peer);
	}
	wait_queue_wake(&s->wait, WAKE_ALL);
	return 0;
}
