/* fsimpl/gofer/conn_life.c - a connection's beginning, where the version is agreed upon, and its end. */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/sleep.h"
#include "fsimpl/gofer/conn.h"
static REF_TYPE(conn_type, "p9_conn");

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
	p9_notify_stop(c);
	p9_watches_fini(c);
	hostpoll_remove(&c->left_poll);
	for (unsigned i = 0; i < c->fd_count; i++)
		if (c->fds[i] >= 0)
			close(c->fds[i]);
	for (unsigned i = 0; i < P9_CALLS_MAX; i++) {
		assert(!c->calls[i] || c->calls[i]->async);
		free(c->calls[i]);
	}
	close(c->sock);
	free(c->tx);
	free(c->rx);
	p9_fids_fini(c);
	ref_fini(&c->ref, &conn_type);
	free(c);
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

static int conn_create(int sock, int64_t answer_by, struct p9_conn **ret)
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
	mutex_init(&c->fid_lock, LOCK_LEAF, "p9_fids");
	mutex_init(&c->watch_lock, LOCK_FS_DIR, "p9_watches");
	TAILQ_INIT(&c->idle_fds);
	LIST_INIT(&c->lock_waits);
	c->notify_sock = -1;
	c->left_poll = (struct hostpoll){.fd = -1, .ready = p9_left_ready};
	atomic_init(&c->next_fid, 1);
	/* How the reader gets its ticks. */
	(void)setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO,
			 &(struct timeval){.tv_usec = P9_TICK_MS * 1000}, sizeof(struct timeval));
	c->tx = malloc(P9_TX_SIZE);
	c->rx = malloc(P9_RX_SIZE);
	c->answer_by = answer_by;
	err = c->tx && c->rx ? negotiate(c) : -ENOMEM;
	if (err && answer_by && time_monotonic_ns() >= answer_by)
		err = -ETIMEDOUT;
	if (err) {
		p9_conn_unref(c);
		return err;
	}
	c->answer_by = 0;
	*ret = c;
	return 0;
}

int p9_conn_create(int sock, struct p9_conn **ret)
{
	return conn_create(sock, 0, ret);
}

int p9_conn_create_within(int sock, int64_t timeout_ns, struct p9_conn **ret)
{
	return conn_create(sock, time_monotonic_ns() + timeout_ns, ret);
}
