/*
 * fsimpl/gofer/notify.c - what the gofer says unasked: a lock that was waited for is there; somebody else changed what inotify watches (watch.c).
 *
 * Notices come on a second connection, packets that the housekeeping thread reads; nobody has to be waiting for a reply for them to be heard. Its end
 * is the server's end too: the connection dies with it.
 */
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/sleep.h"
#include "fsimpl/gofer/conn.h"

#define NOTICES_AT_ONCE 64 /* then the housekeeping thread looks after others */

static void end_wait_locked(struct p9_lock_wait *w, int err)
{
	w->err = err;
	w->done = true;
	sleeper_wake(w->sleeper);
}

void p9_lock_waits_end_locked(struct p9_conn *c, int err)
{
	struct p9_lock_wait *w;

	LIST_FOREACH (w, &c->lock_waits, link)
		end_wait_locked(w, err);
}

static void lock_granted(struct p9_conn *c, const struct p9_Tmgranted *n)
{
	struct p9_lock_wait *w;

	mutex_lock(&c->lock);
	LIST_FOREACH (w, &c->lock_waits, link)
		if (w->id == n->wait)
			break;
	/* It may have given up meanwhile. */
	if (w)
		end_wait_locked(w, n->err < 4096 ? -(int)n->err : -EIO);
	mutex_unlock(&c->lock);
}

int p9_notice(struct p9_conn *c, const uint8_t *buf, size_t size)
{
	struct p9_msg t;

	if (p9_decode(buf, size, &t) != 0)
		return -EPROTO;
	if (t.type == P9_Tmgranted)
		lock_granted(c, &t.Tmgranted);
	else if (t.type == P9_Tmevent)
		p9_watch_event(c, &t.Tmevent);
	return 0;
}

/* Return: false: there is no more for now. */
static bool read_notice(struct p9_conn *c)
{
	uint8_t buf[P9_NOTICE_MAX];
	ssize_t got = recv(c->notify_sock, buf, sizeof(buf), MSG_DONTWAIT | MSG_TRUNC);

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return errno == EINTR;
	if (got <= 0) {
		p9_conn_kill(c, "closed by the server");
		return false;
	}
	if ((size_t)got > sizeof(buf) || p9_notice(c, buf, (size_t)got) != 0) {
		p9_conn_kill(c, "a notice that makes no sense");
		return false;
	}
	return true;
}

static void notify_ready(struct hostpoll *hp, uint32_t events)
{
	struct p9_conn *c = container_of(hp, struct p9_conn, notify_poll);
	unsigned left = NOTICES_AT_ONCE;

	(void)events;
	while (left && p9_conn_alive(c) && read_notice(c))
		left--;
	/* Edge-triggered: what is left is announced again. */
	if (!left)
		(void)!hostpoll_modify(hp, POLLIN);
}

void p9_notify_start(struct p9_conn *c)
{
	struct p9_msg t = {.type = P9_Tmnotify};
	struct p9_call call;

	if (c->plain || !hostpoll_is_started() || atomic_exchange(&c->notify_asked, true))
		return;
	if (p9_rpc(c, &call, &t))
		return;
	c->notify_sock = call.fd;
	call.fd = -1;
	p9_call_fini(&call);
	if (c->notify_sock >= 0 &&
	    hostpoll_add(&c->notify_poll, c->notify_sock, POLLIN, notify_ready)) {
		/* The server's notices find nobody: it is not asked for any. */
		close(c->notify_sock);
		c->notify_sock = -1;
	}
}

void p9_notify_stop(struct p9_conn *c)
{
	if (c->notify_sock < 0)
		return;
	hostpoll_remove(&c->notify_poll);
	close(c->notify_sock);
	c->notify_sock = -1;
}
