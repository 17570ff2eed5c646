/*
 * fsimpl/socket/unix_host.c - AF_UNIX sockets with a socket of the host's behind them (moat --host-uds).
 *
 * A filesystem connects one (vfs_endpoint.connect_host) or binds one (vfs_endpoint.host_fd). A connection is then the host's: bytes, ends, readiness. A
 * bound socket has both: programs of the sandbox reach its own queues as ever, the host's its other half, and accept and receive look at both.
 * A datagram's destination on the host is a socket without a file that sends there (relay.c).
 *
 * Descriptors do not pass: a send with some is EPERM, and what the host sends along the kernel closes, for no room is offered (MSG_CTRUNC). Processes of the
 * host have no number here: they are pid 0, as from another pid namespace.
 *
 * Readiness is the housekeeping thread's edge-triggered epoll (base/hostpoll.h), whose events wake the socket's own queue.
 *
 * Cannot do: names of who connects or sends from the host; SCM_CREDENTIALS, which are the sentry's for the host; SO_PEEK_OFF; buffer sizes.
 */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/sleep.h"
#include "base/timer.h"
#include "fsimpl/socket/internal.h"

#define PACKET_MAX (1u << 20) /* of a datagram that a buffer in the sentry holds */
#define BUSY_TICK_NS (20 * 1000000ll)
#define HOST_EVENTS (POLLIN | POLLPRI | POLLRDHUP | POLLRDNORM | POLLOUT | POLLWRNORM)

static void host_ready(struct hostpoll *hp, uint32_t events)
{
	wait_queue_wake(&container_of(hp, struct usock, host_hp)->wait, events);
}

int uhost_watch(struct usock *s)
{
	int err = 0;

	mutex_lock(&s->lock);
	if (!s->host_watched) {
		err = hostpoll_add(&s->host_hp, s->host_fd, HOST_EVENTS, host_ready);
		s->host_watched = !err;
	}
	mutex_unlock(&s->lock);
	return err;
}

/* Who releases the last reference and the collector of cycles may both come here. */
void uhost_close(struct usock *s)
{
	int fd, bound;
	bool watched;

	mutex_lock(&s->lock);
	watched = s->host_watched;
	fd = s->host_fd;
	bound = s->host_bound;
	s->host_watched = false;
	s->host_fd = s->host_bound = -1;
	mutex_unlock(&s->lock);
	if (watched)
		hostpoll_remove(&s->host_hp);
	if (fd >= 0)
		close(fd);
	if (bound >= 0)
		close(bound);
}

/* ---- connections ---- */

/* It is connected by now. Pre: s->lock, or nobody knows s yet. */
static void set_connected(struct usock *s, int fd, uint32_t uid, uint32_t gid)
{
	s->host_bound = s->host_fd;
	atomic_store_explicit(&s->host_fd, fd, memory_order_release);
	atomic_store_explicit(&s->host_connected, true, memory_order_release);
	s->had_peer = true;
	s->peer_cred = (struct socket_cred){.uid = uid, .gid = gid};
	s->has_peer_cred = true;
	s->state = USOCK_CONNECTED;
}

/* Pre: s->lock. */
static int may_connect_locked(const struct usock *s)
{
	if (s->state == USOCK_CONNECTED || s->had_peer)
		return -EISCONN;
	return s->state == USOCK_IDLE ? 0 : -EINVAL;
}

int uhost_connect(struct usock *s, struct vfs_endpoint *e, struct uaddr *name)
{
	struct vfs_host_socket hs;
	int err;

	/* The listener must not see what comes to nothing; another connect of ours may still be first. */
	mutex_lock(&s->lock);
	s->host_busy = false;
	err = may_connect_locked(s);
	mutex_unlock(&s->lock);
	if (err)
		return err;
	err = e->connect_host(e, s->type, &hs);
	mutex_lock(&s->lock);
	s->host_busy = err == -EAGAIN;
	if (err) {
		mutex_unlock(&s->lock);
		return err;
	}
	err = may_connect_locked(s);
	if (err) {
		mutex_unlock(&s->lock);
		close(hs.fd);
		return err;
	}
	/* Before it is connected: who sees that looks at the name without the lock. */
	s->host_name = uaddr_ref(name);
	set_connected(s, hs.fd, hs.uid, hs.gid);
	usock_own_cred_locked(s);
	mutex_unlock(&s->lock);
	wait_queue_wake(&s->wait, POLLOUT | POLLWRNORM);
	/* Where it cannot be watched, those who wait for it would not be woken. */
	err = uhost_watch(s);
	if (err)
		shutdown(hs.fd, SHUT_RDWR);
	return err;
}

int uhost_connect_wait(int64_t deadline)
{
	int64_t now = time_monotonic_ns();

	/* Nobody tells when there is room. */
	if (now >= deadline)
		return -EAGAIN;
	return sleeper_wait(sleeper_current(), SLEEP_INTERRUPTIBLE,
			    MIN(deadline, now + BUSY_TICK_NS)) == -EINTR
		       ? -EINTR
		       : 0;
}

int uhost_datagram_peer(struct vfs_endpoint *e, struct uaddr *name, struct usock **ret)
{
	struct vfs_host_socket hs;
	struct usock *s;
	int err = e->connect_host(e, SOCK_DGRAM, &hs);

	if (err)
		return err;
	err = usock_create(SOCK_DGRAM, &s);
	if (err) {
		close(hs.fd);
		return err;
	}
	s->relay_fd = hs.fd;
	s->relay_closes = true;
	s->addr = uaddr_ref(name);
	*ret = s;
	return 0;
}

/*
 * accept4(2) knows no MSG_DONTWAIT: whether it waits is the open file's O_NONBLOCK (and its time-out the socket's), and of a listener that the gofer bound the gofer may
 * have kept a descriptor. So a call that takes longer than a tick is interrupted, again each tick: the signal may come just before the wait.
 */
#define ACCEPT_SIGNAL (SIGRTMIN + 3)
#define ACCEPT_TICK_NS 20000000ll

struct accept_call {
	struct ktimer timer;
	pid_t tid;
};

static void on_accept_signal(int signo unused_arg)
{
}

static void interrupt_accept(struct ktimer *t)
{
	(void)!syscall(SYS_tgkill, getpid(), container_of(t, struct accept_call, timer)->tid,
		       ACCEPT_SIGNAL);
	ktimer_arm(t, time_monotonic_ns() + ACCEPT_TICK_NS);
}

static int accept_unwaited(int listener)
{
	/* Without SA_RESTART. */
	const struct sigaction sa = {.sa_handler = on_accept_signal};
	static _Atomic bool handled;
	struct accept_call call = {.tid = (pid_t)syscall(SYS_gettid)};
	sigset_t set, old;
	int fd, err;

	if (!atomic_load(&handled)) {
		if (sigaction(ACCEPT_SIGNAL, &sa, NULL) < 0)
			return -errno;
		atomic_store(&handled, true);
	}
	sigemptyset(&set);
	sigaddset(&set, ACCEPT_SIGNAL);
	ktimer_init(&call.timer, interrupt_accept);
	pthread_sigmask(SIG_UNBLOCK, &set, &old);
	ktimer_arm(&call.timer, time_monotonic_ns() + ACCEPT_TICK_NS);
	fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	err = -errno;
	/* None comes any more, and none is left over. */
	ktimer_cancel_sync(&call.timer);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (fd >= 0)
		return fd;
	return err == -EMFILE ? -ENFILE : err == -EINTR ? -EAGAIN : err;
}

int uhost_accept(struct usock *l, struct usock **ret)
{
	struct ucred cred = {.uid = (uid_t)-1, .gid = (gid_t)-1};
	socklen_t len = sizeof(cred);
	struct usock *s;
	int fd, err;

	fd = accept_unwaited(l->host_fd);
	if (fd < 0)
		return fd;
	err = usock_create(l->type, &s);
	if (err) {
		close(fd);
		return err;
	}
	(void)!getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len);
	set_connected(s, fd, cred.uid, cred.gid);
	mutex_lock(&l->lock);
	s->addr = uaddr_ref(l->addr);
	s->passcred = l->passcred;
	s->passpidfd = l->passpidfd;
	mutex_unlock(&l->lock);
	err = uhost_watch(s);
	if (err) {
		usock_close(s);
		usock_unref(s);
		return err;
	}
	*ret = s;
	return 0;
}

int uhost_listen(struct usock *s, int backlog)
{
	/* So that accept(2) is seldom interrupted. */
	if (fcntl(s->host_fd, F_SETFL, O_NONBLOCK) < 0 || listen(s->host_fd, backlog) < 0)
		return -errno;
	return uhost_watch(s);
}

void uhost_shutdown(struct usock *s, int how)
{
	/* One that is bound only is not connected: it stays. */
	(void)!shutdown(s->host_fd, how);
}

uint32_t uhost_poll(struct usock *s)
{
	struct pollfd p = {.fd = s->host_fd, .events = HOST_EVENTS};

	if (poll(&p, 1, 0) < 0)
		return errno == EINTR ? 0 : POLLERR;
	return (uint16_t)p.revents;
}

int uhost_queued(struct usock *s, unsigned cmd, int32_t *ret)
{
	int n = 0;

	if (ioctl(s->host_fd, cmd, &n) < 0)
		return -errno;
	*ret = n;
	return 0;
}

int uhost_error(struct usock *s)
{
	socklen_t len = sizeof(int);
	int v = 0;

	return getsockopt(s->host_fd, SOL_SOCKET, SO_ERROR, &v, &len) < 0 ? 0 : v;
}

/* ---- sending ---- */

static size_t iov_bytes(const struct iovec *iov, int n)
{
	size_t total = 0;

	for (int i = 0; i < n; i++)
		total += iov[i].iov_len;
	return total;
}

static ssize_t send_once(struct usock *s, struct iovec *iov, int n, int flags)
{
	struct msghdr h = {.msg_iov = iov, .msg_iovlen = (size_t)n};
	ssize_t done;

	do
		done = sendmsg(s->host_fd, &h, (flags & MSG_EOR) | MSG_DONTWAIT | MSG_NOSIGNAL);
	while (done < 0 && errno == EINTR);
	return done < 0 ? -errno : done;
}

static ssize_t send_stream(struct usock *s, struct socket_msg *sm, int flags)
{
	ssize_t total = 0, n;

	while (sm->it->remaining) {
		struct iovec iov[IO_ITER_SEGS];
		int count = io_iter_window(sm->it, sm->it->remaining, iov, IO_ITER_SEGS);

		if (count < 0) {
			sm->it->error = count;
			return total ? total : count;
		}
		n = send_once(s, iov, count, flags);
		if (n < 0)
			return total ? total : n;
		io_iter_advance(sm->it, (uint64_t)n);
		total += n;
		if ((size_t)n < iov_bytes(iov, count))
			break;
	}
	return total;
}

static ssize_t send_packet(struct usock *s, struct socket_msg *sm, int flags)
{
	size_t size = sm->it->remaining;
	struct iovec iov = {.iov_len = size};
	ssize_t n;

	if (size > PACKET_MAX)
		return -EMSGSIZE;
	iov.iov_base = malloc(size ? size : 1);
	if (!iov.iov_base)
		return -ENOBUFS;
	n = io_iter_get(sm->it, iov.iov_base, size) != size ? -EFAULT
							    : send_once(s, &iov, 1, flags);
	if (n < 0)
		io_iter_revert(sm->it, size - sm->it->remaining);
	free(iov.iov_base);
	return n;
}

ssize_t uhost_send(struct usock *s, struct socket_msg *sm, int flags)
{
	ssize_t n;

	if (sm->nfiles)
		return -EPERM;
	n = usock_is_stream(s) ? send_stream(s, sm, flags) : send_packet(s, sm, flags);
	if (n == -EPIPE && !(flags & MSG_NOSIGNAL) && vfs_hooks.raise_signal)
		vfs_hooks.raise_signal(SIGPIPE);
	return n;
}

/* ---- receiving ---- */

/* No room for control messages is offered: descriptors go no further than the kernel. */
static ssize_t recv_once(struct usock *s, struct socket_msg *sm, struct iovec *iov, int n,
			 int flags)
{
	struct msghdr h = {.msg_iov = iov, .msg_iovlen = (size_t)n};
	ssize_t got;

	do
		got = recvmsg(s->host_fd, &h,
			      (flags & (MSG_PEEK | MSG_TRUNC)) | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return -errno;
	sm->flags |= (unsigned)h.msg_flags & (MSG_TRUNC | MSG_EOR | MSG_CTRUNC);
	return got;
}

static ssize_t recv_stream(struct usock *s, struct socket_msg *sm, int flags)
{
	ssize_t total = 0, n;

	do {
		struct iovec iov[IO_ITER_SEGS];
		int count = io_iter_window(sm->it, sm->it->remaining, iov, IO_ITER_SEGS);

		if (count < 0) {
			sm->it->error = count;
			return total ? total : count;
		}
		n = recv_once(s, sm, iov, count, flags & MSG_PEEK);
		if (n < 0)
			return total ? total : n;
		io_iter_advance(sm->it, (uint64_t)n);
		total += n;
		if ((size_t)n < iov_bytes(iov, count) || (flags & MSG_PEEK))
			break;
	} while (sm->it->remaining);
	return total;
}

static ssize_t recv_packet(struct usock *s, struct socket_msg *sm, int flags)
{
	size_t room = MIN(sm->it->remaining, (uint64_t)PACKET_MAX), put;
	struct iovec iov = {.iov_base = malloc(room ? room : 1), .iov_len = room};
	ssize_t n;

	if (!iov.iov_base)
		return -ENOMEM;
	n = recv_once(s, sm, &iov, 1, flags);
	if (n > 0) {
		put = MIN((size_t)n, room);
		if (io_iter_put(sm->it, iov.iov_base, put) != put)
			n = -EFAULT;
	}
	free(iov.iov_base);
	return n;
}

ssize_t uhost_recv(struct usock *s, struct socket_msg *sm, int flags)
{
	ssize_t n;

	if (flags & MSG_OOB)
		return -EOPNOTSUPP;
	n = usock_is_stream(s) ? recv_stream(s, sm, flags) : recv_packet(s, sm, flags);
	if (n < 0)
		return n;
	mutex_lock(&s->lock);
	if (sm->addr && s->host_name)
		uaddr_copy(s->host_name, sm->addr);
	sm->cred = s->has_peer_cred ? s->peer_cred : (struct socket_cred){0, 65534, 65534};
	sm->has_cred = s->passcred;
	mutex_unlock(&s->lock);
	return n;
}
