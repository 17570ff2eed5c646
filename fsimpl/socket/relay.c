/*
 * fsimpl/socket/relay.c - the container's end of a datagram socket of the host's (NOTIFY_SOCKET).
 *
 * A guest that sends to the endpoint sends to the host's socket, which was connected before the sentry was confined. Bytes only: descriptors of
 * the guest's mean nothing to the host, and are closed once the message has gone, which is what sd_notify_barrier(3) waits for.
 */
#include <stdlib.h>
#include <unistd.h>

#include "fsimpl/socket/internal.h"

int relay_deliver(struct usock *to, struct umsg *m)
{
	ssize_t n;
	int err;

	if (to->relay_closes && m->nfiles) {
		umsg_unref(m);
		return -EPERM;
	}
	n = send(to->relay_fd, m->data, m->size, MSG_DONTWAIT | MSG_NOSIGNAL);
	err = n < 0 ? -errno : 0;
	umsg_unref(m);
	/* A queue that stays full is the host's affair: nobody here could be woken when it has room. */
	if (err == -EAGAIN)
		return -ENOBUFS;
	return err && err != -EMSGSIZE && err != -ENOBUFS ? -ECONNREFUSED : err;
}

int socket_relay_create(int host_fd, struct vfs_endpoint **ret)
{
	struct usock *s;
	int err = usock_create(SOCK_DGRAM, &s);

	if (err)
		return err;
	s->relay_fd = host_fd;
	err = name_endpoint(s, ret);
	if (err) {
		s->relay_fd = -1;
		usock_unref(s);
	}
	return err;
}
