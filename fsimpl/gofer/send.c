/*
 * fsimpl/gofer/send.c - requests on their way to the server.
 *
 * Nothing here sleeps in send(2) or with a lock. A request goes into the connection's buffer whole, as soon as all before it is in the socket; what the
 * socket has no room for stays there, and whoever waits for a reply sends it on,
 * or the housekeeping thread when they have gone (p9_send_leave). So a caller that is killed while the server takes nothing in
 * leaves at once: before its request went into the buffer nothing has happened, and afterwards it gives up as any other, by a Tflush,
 * for which there is always room.
 */
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "base/sleep.h"
#include "fsimpl/gofer/conn.h"

/* What the socket takes. Pre: send_lock. Return: 0, -EPIPE. */
static int pump_locked(struct p9_conn *c)
{
	while (c->tx_len) {
		ssize_t done =
			send(c->sock, c->tx + c->tx_start, c->tx_len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0 && errno != EAGAIN)
			return -EPIPE;
		if (done < 0)
			break;
		c->tx_start += (size_t)done;
		c->tx_len -= (size_t)done;
	}
	if (!c->tx_len)
		c->tx_start = 0;
	atomic_store(&c->tx_left, c->tx_len != 0);
	return 0;
}

/* Behind what is in the buffer. Pre: send_lock. */
static int append_locked(struct p9_conn *c, const struct p9_msg *t)
{
	size_t size;
	int err;

	if (c->tx_start && c->tx_len) {
		memmove(c->tx, c->tx + c->tx_start, c->tx_len);
		c->tx_start = 0;
	}
	err = p9_encode(t, c->tx + c->tx_len, MIN(c->msize, P9_TX_SIZE - c->tx_len), &size);
	if (!err)
		c->tx_len += size;
	return err;
}

int p9_send_try(struct p9_conn *c, const struct p9_msg *t, struct p9_call *call)
{
	int err;

	mutex_lock(&c->send_lock);
	err = pump_locked(c);
	if (!err && c->tx_len && t->type != P9_Tflush)
		err = -EAGAIN;
	if (!err)
		err = append_locked(c, t);
	if (!err) {
		/* Before the server can see it: who reads may free the call. */
		atomic_store(&call->sent, true);
		err = pump_locked(c);
	}
	mutex_unlock(&c->send_lock);
	if (err != -EAGAIN)
		atomic_fetch_add_explicit(&c->requests, 1, memory_order_relaxed);
	return err;
}

short p9_send_more(struct p9_conn *c, short events, int timeout_ms)
{
	struct pollfd p = {.fd = c->sock, .events = events | POLLOUT};
	int err;

	if (poll(&p, 1, timeout_ms) <= 0)
		return 0;
	mutex_lock(&c->send_lock);
	err = pump_locked(c);
	mutex_unlock(&c->send_lock);
	if (err)
		p9_conn_kill(c, "closed by the server");
	return p.revents;
}

void p9_send_left(struct p9_conn *c, bool announce)
{
	uint32_t events = POLLIN;

	mutex_lock(&c->send_lock);
	if (c->tx_len)
		events |= POLLOUT;
	if (!p9_conn_alive(c) || (!c->tx_len && !(c->left_watched && c->given_up))) {
		/* Replies of later calls are not that thread's. */
		if (c->left_watched)
			(void)!hostpoll_modify(&c->left_poll, 0);
		c->left_watched = false;
	} else if (c->left_poll.fd < 0) {
		c->left_watched =
			hostpoll_add(&c->left_poll, c->sock, events, c->left_poll.ready) == 0;
		/* Without memory for it the next caller sends. */
		if (!c->left_watched)
			c->left_poll.fd = -1;
	} else if (announce || !c->left_watched) {
		c->left_watched = hostpoll_modify(&c->left_poll, events) == 0;
	}
	mutex_unlock(&c->send_lock);
}

void p9_send_leave(struct p9_conn *c)
{
	if (likely(!atomic_load_explicit(&c->tx_left, memory_order_relaxed) &&
		   !atomic_load_explicit(&c->left_watched, memory_order_relaxed)))
		return;
	if (hostpoll_is_started())
		p9_send_left(c, true);
}
