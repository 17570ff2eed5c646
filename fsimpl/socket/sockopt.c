/* fsimpl/socket/sockopt.c - socket(7)'s options on AF_UNIX. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <linux/capability.h>

#include "fsimpl/socket/internal.h"

#ifndef SO_RCVTIMEO_NEW
#define SO_RCVTIMEO_NEW 66
#define SO_SNDTIMEO_NEW 67
#endif
#define SO_TIMESTAMP_NEW_NR 63
#define SO_TIMESTAMPNS_NEW_NR 64
#define SO_PEERGROUPS_NR 59
#define SO_PASSPIDFD_NR 76
#define SO_PEERPIDFD_NR 77
#define SOCK_MIN_SNDBUF 4608
#define SOCK_MIN_RCVBUF 2304

static int get_int_val(const void *val, unsigned len, int *ret)
{
	if (len < sizeof(int))
		return -EINVAL;
	memcpy(ret, val, sizeof(int));
	return 0;
}

static int set_linger(struct usock *s, const void *val, unsigned len)
{
	if (len < sizeof(struct linger))
		return -EINVAL;
	memcpy(&s->linger, val, sizeof(struct linger));
	return 0;
}

static int64_t clamp_buf(int v, int64_t min)
{
	uint32_t size = MIN((uint32_t)v, SOCKET_BUFFER_MAX);

	return MAX((int64_t)size * 2, min);
}

/* Pre: s->lock. */
static int set_flag_locked(struct usock *s, int opt, int v)
{
	switch (opt) {
	case SO_PASSCRED:
		s->passcred = v;
		return 0;
	case SO_PASSSEC:
		s->passsec = v;
		return 0;
	case SO_TIMESTAMP:
	case SO_TIMESTAMP_NEW_NR:
		s->timestamp = v;
		return 0;
	case SO_TIMESTAMPNS:
	case SO_TIMESTAMPNS_NEW_NR:
		s->timestamp_ns = v;
		return 0;
	case SO_KEEPALIVE:
		s->keepalive = v;
		return 0;
	case SO_REUSEADDR:
		s->reuse = v;
		return 0;
	case SO_REUSEPORT:
		/* Only internet sockets share ports (Linux 6.14). */
		if (v)
			return -EOPNOTSUPP;
		s->reuseport = false;
		return 0;
	case SO_PASSPIDFD_NR:
		s->passpidfd = v;
		return 0;
	case SO_BROADCAST:
		s->broadcast = v;
		return 0;
	case SO_OOBINLINE:
		s->oobinline = v;
		return 0;
	case SO_SNDBUF:
		s->kept[0] |= 1; /* SO_BUF_LOCK: not by the kernel any more */
		s->sndbuf = clamp_buf(v, SOCK_MIN_SNDBUF);
		return 0;
	case SO_RCVBUF:
		s->kept[0] |= 2;
		s->rcvbuf = clamp_buf(v, SOCK_MIN_RCVBUF);
		return 0;
	case SO_RCVLOWAT:
		s->rcvlowat = v < 0 ? INT_MAX : MAX(v, 1);
		return 0;
	case SO_PEEK_OFF:
		s->peek_off = v;
		return 0;
	case SO_PRIORITY:
		if ((v < 0 || v > 6) && !cred_has_cap(cred_current(), CAP_NET_ADMIN))
			return -EPERM;
		s->priority = v;
		return 0;
	case SO_DEBUG:
		if (v && !cred_has_cap(cred_current(), CAP_NET_ADMIN))
			return -EACCES;
		s->debug = v;
		return 0;
	case SO_INCOMING_CPU:
		return 0;
	case SO_SNDBUFFORCE:
	case SO_RCVBUFFORCE:
		if (!cred_has_cap(cred_current(), CAP_NET_ADMIN))
			return -EPERM;
		if (opt == SO_SNDBUFFORCE)
			s->sndbuf = MAX((int64_t)(v < 0 ? 0 : v) * 2, SOCK_MIN_SNDBUF);
		else
			s->rcvbuf = MAX((int64_t)(v < 0 ? 0 : v) * 2, SOCK_MIN_RCVBUF);
		return 0;
	default:
		return unix_kept_set_locked(s, opt, v);
	}
}

int unix_setsockopt(struct file *f, int level, int opt, const void *val, unsigned len)
{
	struct usock *s = usock_of(f);
	int v, err;

	if (level != SOL_SOCKET)
		return -EOPNOTSUPP;
	mutex_lock(&s->lock);
	switch (opt) {
	case SO_RCVTIMEO:
	case SO_RCVTIMEO_NEW:
		err = socket_timeout_set(val, len, &s->rcvtimeo_ns);
		break;
	case SO_SNDTIMEO:
	case SO_SNDTIMEO_NEW:
		err = socket_timeout_set(val, len, &s->sndtimeo_ns);
		break;
	case SO_LINGER:
		err = set_linger(s, val, len);
		break;
	default:
		err = get_int_val(val, len, &v);
		if (!err)
			err = set_flag_locked(s, opt, v);
	}
	mutex_unlock(&s->lock);
	if (!err && opt == SO_SNDBUF)
		wait_queue_wake(&s->wait, POLLOUT | POLLWRNORM);
	return err;
}

/* ---- reading ---- */

static int put_val(void *dst, unsigned *inout_len, const void *src, unsigned size)
{
	*inout_len = MIN(*inout_len, size);
	memcpy(dst, src, *inout_len);
	return 0;
}

static int get_peercred(struct usock *s, void *dst, unsigned *inout_len)
{
	struct ucred uc = {.pid = 0, .uid = (uid_t)-1, .gid = (gid_t)-1};

	if (s->has_peer_cred)
		uc = (struct ucred){s->peer_cred.pid, s->peer_cred.uid, s->peer_cred.gid};
	if (socket_hooks.pid_seen)
		uc.pid = socket_hooks.pid_seen(uc.pid);
	return put_val(dst, inout_len, &uc, sizeof(uc));
}

/* The length is told also when there is no room. */
static int get_peergroups(struct usock *s, void *dst, unsigned *inout_len)
{
	unsigned size, room = *inout_len;

	if (!s->peer_full)
		return -ENODATA;
	size = s->peer_full->ngroups * (unsigned)sizeof(uint32_t);
	*inout_len = size;
	if (room < size)
		return -ERANGE;
	if (size)
		memcpy(dst, s->peer_full->groups, size);
	return 0;
}

/* A descriptor of the caller's. No locks held. */
static int get_peerpidfd(struct usock *s, void *dst, unsigned *inout_len)
{
	int32_t pid;
	bool known;
	int fd;

	mutex_lock(&s->lock);
	known = s->has_peer_cred && s->peer_cred.pid;
	pid = s->peer_cred.pid;
	mutex_unlock(&s->lock);
	if (!known || !socket_hooks.pidfd_install)
		return -ENODATA;
	fd = socket_hooks.pidfd_install(pid, false);
	return fd < 0 ? fd : put_val(dst, inout_len, &fd, sizeof(fd));
}

/* Pre: s->lock. */
static int get_flag_locked(struct usock *s, int opt, int *ret)
{
	switch (opt) {
	case SO_TYPE:
		*ret = s->type;
		return 0;
	case SO_DOMAIN:
		*ret = AF_UNIX;
		return 0;
	case SO_PROTOCOL:
		*ret = 0;
		return 0;
	case SO_ERROR:
		*ret = s->error;
		s->error = 0;
		return 0;
	case SO_ACCEPTCONN:
		*ret = s->state == USOCK_LISTEN;
		return 0;
	case SO_SNDBUF:
		*ret = (int)s->sndbuf;
		return 0;
	case SO_RCVBUF:
		*ret = (int)s->rcvbuf;
		return 0;
	case SO_PASSCRED:
		*ret = s->passcred;
		return 0;
	case SO_PASSPIDFD_NR:
		*ret = s->passpidfd;
		return 0;
	case SO_PASSSEC:
		*ret = s->passsec;
		return 0;
	case SO_TIMESTAMP:
	case SO_TIMESTAMP_NEW_NR:
		*ret = s->timestamp;
		return 0;
	case SO_TIMESTAMPNS:
	case SO_TIMESTAMPNS_NEW_NR:
		*ret = s->timestamp_ns;
		return 0;
	case SO_KEEPALIVE:
		*ret = s->keepalive;
		return 0;
	case SO_REUSEADDR:
		*ret = s->reuse;
		return 0;
	case SO_REUSEPORT:
		*ret = s->reuseport;
		return 0;
	case SO_BROADCAST:
		*ret = s->broadcast;
		return 0;
	case SO_OOBINLINE:
		*ret = s->oobinline;
		return 0;
	case SO_RCVLOWAT:
		*ret = s->rcvlowat;
		return 0;
	case SO_SNDLOWAT:
		*ret = 1;
		return 0;
	case SO_PEEK_OFF:
		*ret = s->peek_off;
		return 0;
	case SO_PRIORITY:
		*ret = s->priority;
		return 0;
	case SO_DEBUG:
		*ret = s->debug;
		return 0;
	case SO_INCOMING_CPU:
		*ret = -1;
		return 0;
	default:
		return unix_kept_get_locked(s, opt, ret);
	}
}

int unix_getsockopt(struct file *f, int level, int opt, void *val, unsigned *inout_len)
{
	struct usock *s = usock_of(f);
	uint64_t cookie = s->ino;
	int v, err;

	if (level != SOL_SOCKET)
		return -EOPNOTSUPP;
	if ((int)*inout_len < 0)
		return -EINVAL;
	if (opt == SO_PEERPIDFD_NR)
		return get_peerpidfd(s, val, inout_len);
	if (opt == SO_ERROR && usock_is_hosts(s)) {
		v = uhost_error(s);
		return put_val(val, inout_len, &v, sizeof(v));
	}
	mutex_lock(&s->lock);
	switch (opt) {
	case SO_PEERGROUPS_NR:
		err = get_peergroups(s, val, inout_len);
		break;
	case SO_LINGER:
		err = put_val(val, inout_len, &s->linger, sizeof(s->linger));
		break;
	case SO_RCVTIMEO:
	case SO_RCVTIMEO_NEW:
		err = socket_timeout_get(val, inout_len, s->rcvtimeo_ns);
		break;
	case SO_SNDTIMEO:
	case SO_SNDTIMEO_NEW:
		err = socket_timeout_get(val, inout_len, s->sndtimeo_ns);
		break;
	case SO_PEERCRED:
		err = get_peercred(s, val, inout_len);
		break;
	case SO_COOKIE:
		err = *inout_len < sizeof(cookie)
			      ? -EINVAL
			      : put_val(val, inout_len, &cookie, sizeof(cookie));
		break;
	default:
		err = get_flag_locked(s, opt, &v);
		if (!err)
			err = put_val(val, inout_len, &v, sizeof(v));
	}
	mutex_unlock(&s->lock);
	return err;
}

int64_t unix_timeout_ns(struct file *f, bool send)
{
	struct usock *s = usock_of(f);
	int64_t ns;

	mutex_lock(&s->lock);
	ns = send ? s->sndtimeo_ns : s->rcvtimeo_ns;
	mutex_unlock(&s->lock);
	return ns;
}
