/*
 * fsimpl/gofer/send.c - requests on their way to the server.
 *
 * Nothing here sleeps in send(2) or with a lock. A request goes into the connection's buffer whole, as soon as all before it is in the socket; what the
 * socket has no room for stays there, and whoever waits for a reply sends it on. So a caller that is killed while the server takes nothing in
 * leaves at once: before its request went into the buffer nothing has happened, and afterwards it gives up as any other, by a Tflush,
 * for which there is always room.
 */
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "base/sleep.h"
#include "fsimpl/gofer/conn.h"

bool p9_was_killed(void)
{
	return atomic_load_explicit(&sleeper_current()->word, memory_order_relaxed) &
	       SLEEPER_KILLED;
}

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

int p9_send_try(struct p9_conn *c, const struct p9_msg *t)
{
	int err;

	mutex_lock(&c->send_lock);
	err = pump_locked(c);
	if (!err && c->tx_len && t->type != P9_Tflush)
		err = -EAGAIN;
	if (!err)
		err = append_locked(c, t);
	if (!err)
		err = pump_locked(c);
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

int p9_send(struct p9_conn *c, const struct p9_msg *t, bool must)
{
	for (;;) {
		int err = p9_send_try(c, t);

		if (err != -EAGAIN)
			return err;
		if (!p9_conn_alive(c))
			return -EPIPE;
		if (!p9_send_more(c, 0, P9_TICK_MS) && !must && p9_was_killed())
			return -EINTR;
	}
}
