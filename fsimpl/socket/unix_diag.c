/*
 * fsimpl/socket/unix_diag.c - sock_diag(7) of AF_UNIX, as `ss -x` reads it: the sockets are in the sentry, so are the answers.
 */
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>

#include "fsimpl/socket/internal.h"
#include "fsimpl/socket/netlink.h"

#define DIAG_CHUNK 16384u /* bytes of one datagram of a dump */
#define DIAG_ONE_MAX 1024u /* of one socket: header, a name, its attributes */

struct diag_out {
	struct netlink_socket *ns;
	const struct nlmsghdr *req;
	const struct unix_diag_req *want;
	uint32_t portid;
	bool multi;
	size_t used;
	char buf[DIAG_CHUNK];
};

static unsigned diag_state(const struct usock *s)
{
	if (s->state == USOCK_LISTEN)
		return TCP_LISTEN;
	return s->state == USOCK_CONNECTED || s->had_peer ? TCP_ESTABLISHED : TCP_CLOSE;
}

static void put_attr(char *at, size_t *inout_len, unsigned type, const void *data, size_t size)
{
	struct nlattr a = {.nla_len = (uint16_t)(sizeof(a) + size), .nla_type = (uint16_t)type};

	memset(at + *inout_len, 0, sizeof(a) + NLA_ALIGN(size));
	memcpy(at + *inout_len, &a, sizeof(a));
	memcpy(at + *inout_len + sizeof(a), data, size);
	*inout_len += sizeof(a) + NLA_ALIGN(size);
}

static uint32_t peer_ino(struct usock *s)
{
	struct usock *peer = usock_get_peer(s);
	uint32_t ino = 0;

	if (!peer)
		return 0;
	mutex_lock(&peer->lock);
	ino = (uint32_t)peer->ino;
	mutex_unlock(&peer->lock);
	usock_unref(peer);
	return ino;
}

/* Pre: s->lock. */
static void put_attrs_locked(struct usock *s, const struct unix_diag_req *want, uint32_t peer,
			     char *at, size_t *inout_len)
{
	size_t offset = offsetof(struct sockaddr_un, sun_path);
	uint8_t shut = (uint8_t)s->shut;

	if ((want->udiag_show & UDIAG_SHOW_NAME) && s->addr && s->addr->len > offset)
		put_attr(at, inout_len, UNIX_DIAG_NAME, s->addr->un.sun_path,
			 MIN((size_t)s->addr->len - offset, sizeof(s->addr->un.sun_path)));
	if ((want->udiag_show & UDIAG_SHOW_PEER) && peer)
		put_attr(at, inout_len, UNIX_DIAG_PEER, &peer, sizeof(peer));
	if (want->udiag_show & UDIAG_SHOW_RQLEN) {
		struct unix_diag_rqlen rq = {.udiag_rqueue = (uint32_t)s->queued,
					     .udiag_wqueue = (uint32_t)atomic_load_explicit(
						     &s->wmem, memory_order_relaxed)};

		if (s->state == USOCK_LISTEN)
			rq = (struct unix_diag_rqlen){s->nembryos, s->backlog};
		put_attr(at, inout_len, UNIX_DIAG_RQLEN, &rq, sizeof(rq));
	}
	put_attr(at, inout_len, UNIX_DIAG_SHUTDOWN, &shut, sizeof(shut));
	if (want->udiag_show & UDIAG_SHOW_UID)
		put_attr(at, inout_len, UNIX_DIAG_UID, &s->own.uid, sizeof(s->own.uid));
}

static int diag_flush(struct diag_out *o)
{
	int err = o->used ? netlink_queue(o->ns, o->buf, o->used) : 0;

	o->used = 0;
	return err;
}

static int diag_one(struct diag_out *o, struct usock *s)
{
	struct nlmsghdr h = {.nlmsg_type = SOCK_DIAG_BY_FAMILY,
			     .nlmsg_flags = o->multi ? NLM_F_MULTI : 0,
			     .nlmsg_seq = o->req->nlmsg_seq,
			     .nlmsg_pid = o->portid};
	struct unix_diag_msg m = {.udiag_family = AF_UNIX, .udiag_type = (uint8_t)s->type};
	size_t len = sizeof(h) + sizeof(m);
	uint32_t peer = o->want->udiag_show & UDIAG_SHOW_PEER ? peer_ino(s) : 0;
	char *at;
	int err;

	if (o->used + DIAG_ONE_MAX > sizeof(o->buf)) {
		err = diag_flush(o);
		if (err)
			return err;
	}
	at = o->buf + o->used;
	mutex_lock(&s->lock);
	m.udiag_state = (uint8_t)diag_state(s);
	m.udiag_ino = (uint32_t)s->ino;
	m.udiag_cookie[0] = m.udiag_ino;
	put_attrs_locked(s, o->want, peer, at, &len);
	mutex_unlock(&s->lock);
	h.nlmsg_len = (uint32_t)len;
	memcpy(at, &h, sizeof(h));
	memcpy(at + sizeof(h), &m, sizeof(m));
	o->used += NLMSG_ALIGN(len);
	return 0;
}

static bool diag_wanted(struct usock *s, const struct unix_diag_req *want, bool dump)
{
	bool wanted;

	mutex_lock(&s->lock);
	wanted = s->ino &&
		 (dump ? (want->udiag_states >> diag_state(s)) & 1 : s->ino == want->udiag_ino);
	mutex_unlock(&s->lock);
	return wanted;
}

static int diag_done(struct diag_out *o)
{
	struct {
		struct nlmsghdr h;
		int32_t error;
	} done = {.h = {.nlmsg_len = sizeof(done),
			.nlmsg_type = NLMSG_DONE,
			.nlmsg_flags = NLM_F_MULTI,
			.nlmsg_seq = o->req->nlmsg_seq,
			.nlmsg_pid = o->portid}};
	int err = diag_flush(o);

	return err ? err : netlink_queue(o->ns, &done, sizeof(done));
}

int netlink_unix_diag(struct netlink_socket *ns, const struct nlmsghdr *req)
{
	bool dump = (req->nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP;
	struct unix_diag_req want;
	struct diag_out *o;
	struct usock **list;
	size_t count, found = 0;
	int err = 0;

	if (req->nlmsg_len < NLMSG_LENGTH(sizeof(want)))
		return -EINVAL;
	memcpy(&want, NLMSG_DATA(req), sizeof(want));
	o = malloc(sizeof(*o));
	list = usock_list(&count);
	if (o && list) {
		o->ns = ns;
		o->req = req;
		o->want = &want;
		o->portid = netlink_portid(ns);
		o->multi = dump;
		o->used = 0;
	} else {
		err = -ENOMEM;
	}
	for (size_t i = 0; list && i < count; i++) {
		if (!err && diag_wanted(list[i], &want, dump)) {
			err = diag_one(o, list[i]);
			found++;
		}
		usock_unref(list[i]);
	}
	if (!err)
		err = dump ? diag_done(o) : found ? diag_flush(o) : -ENOENT;
	free(list);
	free(o);
	return err;
}
