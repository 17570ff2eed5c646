/*
 * fsimpl/gofer/recv.c - replies: off the socket, to the calls that wait for them, with the descriptors that they announce.
 *
 * A descriptor for which this process had no room is lost, and the reply that announced it comes without (call->fd is -1).
 * Descriptors arrive in the order of the replies that announce them. A reply belongs to a request that was sent, and is the only one: anything else
 * kills the connection.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/futex.h"
#include "fsimpl/gofer/conn.h"

/* fd: -1: lost. Return: 0; -EPROTO: more than any replies announce. */
static int queue_fd(struct p9_conn *c, int fd)
{
	if (c->fd_count == P9_FD_QUEUE_MAX) {
		if (fd >= 0)
			close(fd);
		return -EPROTO;
	}
	c->fds[c->fd_count++] = fd;
	return 0;
}

static int take_fds(struct p9_conn *c, struct msghdr *msg)
{
	struct cmsghdr *cmsg;
	int err = 0;

	for (cmsg = CMSG_FIRSTHDR(msg); cmsg; cmsg = CMSG_NXTHDR(msg, cmsg)) {
		size_t count;

		if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
			continue;
		count = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(int), sizeof(int));
			err = queue_fd(c, fd) ? -EPROTO : err;
		}
	}
	/* A message of the gofer's has one. */
	if (msg->msg_flags & MSG_CTRUNC)
		err = queue_fd(c, -1) ? -EPROTO : err;
	return err;
}

/* Does this reply announce a descriptor? */
static bool announces_fd(const struct p9_msg *r)
{
	return (r->type == P9_Rmopen && r->Rmopen.donated) ||
	       (r->type == P9_Rmcreate && r->Rmcreate.donated) ||
	       (r->type == P9_Rmmknod && r->Rmmknod.donated) ||
	       (r->type == P9_Rmconnect && r->Rmconnect.donated) ||
	       (r->type == P9_Rmnotify && r->Rmnotify.donated);
}

static void finish_call(struct p9_conn *c, struct p9_call *call)
{
	if (call->flushed) {
		/* The tag is free when the Rflush comes. */
		call->done = true;
		return;
	}
	p9_tag_put_locked(c, call);
	if (call->async) {
		if (call->flushes) {
			p9_tag_put_locked(c, call->flushes);
			c->given_up--;
			free(call->flushes);
		}
		free(call);
		return;
	}
	call->done = true;
	/* Not who reads itself, as a lone caller does. */
	if (!call->sleeps)
		return;
	atomic_store(&call->word, 1);
	futex_wake(&call->word, 1);
}

/* One whole message. Return: 0, or -errno with which the connection dies. */
static int dispatch(struct p9_conn *c, const uint8_t *buf, uint32_t size)
{
	struct p9_call *call = NULL;
	struct p9_msg r;
	int fd = -1;

	if (p9_decode(buf, size, &r) != 0)
		return -EBADMSG;
	if (announces_fd(&r)) {
		if (!c->fd_count)
			return -EPROTO;
		fd = c->fds[0];
		c->fd_count--;
		memmove(c->fds, c->fds + 1, c->fd_count * sizeof(int));
	}
	mutex_lock(&c->lock);
	if (r.tag == P9_NOTAG)
		r.tag = 0; /* Rversion: nothing else is in flight */
	if (r.tag < P9_CALLS_MAX)
		call = c->calls[r.tag];
	/* An answer to what was not asked: whoever sends that request uses it still. */
	if (!call || !atomic_load(&call->sent) || (call->flushed && call->done)) {
		mutex_unlock(&c->lock);
		if (fd >= 0)
			close(fd);
		return -EPROTO;
	}
	if (!call->async) {
		call->buf = size <= sizeof(call->inline_buf) ? call->inline_buf : malloc(size);
		if (call->buf)
			memcpy(call->buf, buf, size);
		else
			call->err = -ENOMEM;
		call->size = size;
		call->fd = fd;
		fd = -1;
	}
	/* Without room it stays with the server until the connection ends. */
	if (call->flushed && r.type != P9_Rlerror && call->unwanted_fid != P9_NOFID &&
	    c->clunk_count < P9_CLUNKS_MAX)
		c->clunks[c->clunk_count++] = call->unwanted_fid;
	finish_call(c, call);
	mutex_unlock(&c->lock);
	if (fd >= 0)
		close(fd);
	return 0;
}

static int dispatch_all(struct p9_conn *c)
{
	size_t done = 0;
	int err;

	for (;;) {
		uint32_t size;

		err = p9_frame_size(c->rx + done, c->rx_len - done, P9_MSIZE_DEFAULT, &size);
		if (err == -EAGAIN || (!err && c->rx_len - done < size)) {
			err = 0;
			break;
		}
		if (!err)
			err = dispatch(c, c->rx + done, size);
		if (err)
			break;
		done += size;
	}
	memmove(c->rx, c->rx + done, c->rx_len - done);
	c->rx_len -= done;
	return err;
}

/* recvmsg(2). A reply that comes soon is looked for: being woken on another core takes longer. */
static ssize_t receive(struct p9_conn *c, struct msghdr *msg)
{
	ssize_t got = -1;

	spin_begin(&c->spin, P9_SPIN_NS);
	while (got < 0 && spin_on(&c->spin))
		got = recvmsg(c->sock, msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	if (got < 0)
		got = recvmsg(c->sock, msg, MSG_CMSG_CLOEXEC);
	spin_end(&c->spin);
	return got;
}

bool p9_read_some(struct p9_conn *c)
{
	union {
		struct cmsghdr hdr;
		char buf[CMSG_SPACE(16 * sizeof(int))];
	} control;
	struct iovec iov = {c->rx + c->rx_len, P9_RX_SIZE - c->rx_len};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = sizeof(control.buf)};
	ssize_t got;
	int err;

	/* However much has come: a server may send a byte at a time, or answers that nobody has asked for. */
	if (unlikely(c->answer_by) && time_monotonic_ns() >= c->answer_by) {
		p9_conn_kill(c, "no answer from the server");
		return false;
	}
	got = receive(c, &msg);
	if (got < 0) {
		if (errno == EAGAIN)
			return true;
		if (errno != EINTR)
			p9_conn_kill(c, strerror(errno));
		return false;
	}
	err = take_fds(c, &msg);
	if (got == 0) {
		p9_conn_kill(c, "closed by the server");
		return false;
	}
	c->rx_len += (size_t)got;
	atomic_fetch_add_explicit(&c->received, (uint64_t)got, memory_order_relaxed);
	if (!err)
		err = dispatch_all(c);
	if (err)
		p9_conn_kill(c, "nonsense from the server");
	return false;
}
