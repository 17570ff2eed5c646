/*
 * fsimpl/socket/inet_io.c - data between guest pages and a host socket.
 *
 * The iterator's window is an array of host pointers into pinned guest memory, and goes to sendmsg(2) and recvmsg(2) as it is. A
 * datagram is one call: where the guest's buffer lies in more pieces than a window holds, its rest goes through a buffer.
 * A stream goes on window by window until the host says that it would block.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "fsimpl/socket/host.h"

#define DATAGRAM_MAX 65536u /* no IP packet is longer */
#define PEEK_TAIL_MAX (1u << 20)

#ifndef MSG_PROBE
#define MSG_PROBE 0x10
#endif

#define SEND_FLAGS \
	(MSG_OOB | MSG_DONTROUTE | MSG_PROBE | MSG_EOR | MSG_CONFIRM | MSG_FASTOPEN | MSG_MORE)
#define RECV_FLAGS (MSG_OOB | MSG_PEEK | MSG_TRUNC | MSG_ERRQUEUE)

static size_t iov_bytes(const struct iovec *iov, int n)
{
	size_t total = 0;

	for (int i = 0; i < n; i++)
		total += iov[i].iov_len;
	return total;
}

/* ---- sending ---- */

static void send_header(struct socket_msg *sm, struct msghdr *h)
{
	memset(h, 0, sizeof(*h));
	if (sm->addr && sm->addr->len) {
		h->msg_name = &sm->addr->ss;
		h->msg_namelen = sm->addr->len;
	}
	if (sm->control_size) {
		h->msg_control = sm->control;
		h->msg_controllen = sm->control_size;
	}
}

static ssize_t send_once(struct host_socket *hs, struct msghdr *h, int flags)
{
	ssize_t n;

	do
		n = sendmsg(hs->fd, h, (flags & SEND_FLAGS) | MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

static ssize_t send_stream(struct host_socket *hs, struct socket_msg *sm, int flags)
{
	struct iovec iov[IO_ITER_SEGS];
	struct msghdr h;
	ssize_t total = 0, n;

	send_header(sm, &h);
	do {
		size_t window;
		int count = io_iter_window(sm->it, sm->it->remaining, iov, IO_ITER_SEGS);

		if (count < 0) {
			sm->it->error = count;
			return total ? total : count;
		}
		h.msg_iov = iov;
		h.msg_iovlen = (size_t)count;
		window = iov_bytes(iov, count);
		n = send_once(hs, &h, flags);
		if (n == -EAGAIN || n == -EINPROGRESS || (n >= 0 && (size_t)n < window))
			host_socket_full(hs);
		if (n < 0)
			return total ? total : n;
		io_iter_advance(sm->it, MIN((size_t)n, window));
		total += n;
		if ((size_t)n < window)
			break;
		/* Name and control messages were for the first part. */
		memset(&h, 0, sizeof(h));
	} while (sm->it->remaining);
	return total;
}

/* A datagram in more pieces than a window: copied. */
static ssize_t send_copied(struct host_socket *hs, struct socket_msg *sm, struct msghdr *h,
			   int flags)
{
	size_t size = sm->it->remaining;
	struct iovec one = {.iov_len = size};
	ssize_t n;

	if (size > DATAGRAM_MAX)
		return -EMSGSIZE;
	one.iov_base = malloc(size);
	if (!one.iov_base)
		return -ENOBUFS;
	h->msg_iov = &one;
	h->msg_iovlen = 1;
	if (io_iter_get(sm->it, one.iov_base, size) != size)
		n = -EFAULT;
	else
		n = send_once(hs, h, flags);
	if (n < 0)
		io_iter_revert(sm->it, size - sm->it->remaining);
	free(one.iov_base);
	return n;
}

static ssize_t send_datagram(struct host_socket *hs, struct socket_msg *sm, int flags)
{
	struct iovec iov[IO_ITER_SEGS];
	struct msghdr h;
	int count = io_iter_window(sm->it, sm->it->remaining, iov, IO_ITER_SEGS);
	ssize_t n;

	if (count < 0)
		return count;
	send_header(sm, &h);
	if (iov_bytes(iov, count) < sm->it->remaining)
		return send_copied(hs, sm, &h, flags);
	h.msg_iov = iov;
	h.msg_iovlen = (size_t)count;
	n = send_once(hs, &h, flags);
	if (n > 0)
		io_iter_advance(sm->it, MIN((uint64_t)n, sm->it->remaining));
	return n;
}

ssize_t inet_sendmsg(struct file *f, struct socket_msg *sm, int flags)
{
	struct host_socket *hs = host_socket_of(f);
	int err = sm->control_size ? inet_control_send(sm) : 0;
	ssize_t n;

	if (err)
		return err;
	if (hs->type != SOCK_STREAM) {
		n = send_datagram(hs, sm, flags);
		if (n == -EAGAIN)
			host_socket_full(hs);
		return n;
	}
	n = send_stream(hs, sm, flags);
	if (n == -EPIPE && !(flags & MSG_NOSIGNAL) && vfs_hooks.raise_signal)
		vfs_hooks.raise_signal(SIGPIPE);
	return n;
}

/* ---- receiving ---- */

static void recv_result(struct socket_msg *sm, const struct msghdr *h)
{
	if (sm->addr)
		sm->addr->len = MIN(h->msg_namelen, (socklen_t)sizeof(sm->addr->ss));
	sm->control_len = host_control_check(sm->control, MIN(h->msg_controllen, sm->control_size));
	sm->flags = (unsigned)h->msg_flags & ~(unsigned)MSG_CMSG_CLOEXEC;
}

ssize_t host_socket_recv(struct host_socket *hs, struct socket_msg *sm, int host_flags, size_t tail)
{
	struct iovec iov[IO_ITER_SEGS + 1];
	struct msghdr h = {.msg_iov = iov};
	int count = io_iter_window(sm->it, sm->it->remaining, iov, IO_ITER_SEGS);
	size_t window, rest, got;
	char *bounce = NULL;
	ssize_t n;

	if (count < 0)
		return count;
	window = iov_bytes(iov, count);
	rest = MIN(sm->it->remaining - window, tail > window ? tail - window : 0);
	if (rest) {
		/* Zeroed: with MSG_TRUNC a TCP socket counts bytes that it does not write. */
		bounce = calloc(1, rest);
		if (!bounce)
			return -ENOMEM;
		iov[count++] = (struct iovec){bounce, rest};
	}
	h.msg_iovlen = (size_t)count;
	if (sm->addr) {
		h.msg_name = &sm->addr->ss;
		h.msg_namelen = sizeof(sm->addr->ss);
	}
	h.msg_control = sm->control_size ? sm->control : NULL;
	h.msg_controllen = sm->control_size;
	do
		n = recvmsg(hs->fd, &h, host_flags | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0) {
		n = -errno;
	} else {
		recv_result(sm, &h);
		got = (size_t)n;
		io_iter_advance(sm->it, MIN(got, window));
		if (rest && got > window &&
		    !(hs->type == SOCK_STREAM && (host_flags & MSG_TRUNC))) {
			got = MIN(got - window, rest);
			if (io_iter_put(sm->it, bounce, got) != got)
				n = -EFAULT;
		}
	}
	free(bounce);
	return n;
}

static ssize_t recv_stream(struct host_socket *hs, struct socket_msg *sm, int flags)
{
	ssize_t total = 0, n;
	bool once = (flags & RECV_FLAGS) || sm->control_size;

	for (;;) {
		struct iovec iov[IO_ITER_SEGS];
		int count = io_iter_window(sm->it, sm->it->remaining, iov, IO_ITER_SEGS);
		size_t window = count > 0 ? iov_bytes(iov, count) : 0;

		n = host_socket_recv(hs, sm, flags & RECV_FLAGS,
				     flags & MSG_PEEK ? PEEK_TAIL_MAX : 0);
		if (n > 0)
			total += n;
		if (n <= 0 || once || (size_t)n < window || !sm->it->remaining)
			return total ? total : n;
	}
}

ssize_t inet_recvmsg(struct file *f, struct socket_msg *sm, int flags)
{
	struct host_socket *hs = host_socket_of(f);

	sm->nfiles = 0;
	sm->flags = 0;
	sm->control_len = 0;
	sm->has_cred = sm->has_stamp = false;
	if (sm->addr)
		sm->addr->len = 0;
	if (hs->type == SOCK_STREAM && !(flags & MSG_ERRQUEUE))
		return recv_stream(hs, sm, flags);
	return host_socket_recv(hs, sm, flags & RECV_FLAGS, DATAGRAM_MAX);
}
