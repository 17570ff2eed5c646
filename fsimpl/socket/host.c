/*
 * fsimpl/socket/host.c - what all sockets that wrap one of the host's share: their life, readiness, names.
 *
 * The file's inode number is the host socket's, so that /proc/net/tcp, sock_diag and /proc/PID/fd agree without translation.
 *
 * Waiting: a call tries on the host (which never blocks), and on EAGAIN the caller puts itself on the wait queue, tries again
 * and sleeps. An edge-triggered epoll of the host's (batched, base/hostpoll.h) wakes the queue. Nobody waits, nothing is watched: a socket
 * that is only written to and closed costs no epoll call.
 *
 * Close: a host close(2) must not block (SO_LINGER with a time would, on the host, where no guest's signal reaches it), so the
 * linger time is kept here and waited out interruptibly before the descriptor goes.
 */
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "fsimpl/socket/host.h"

#define EVENTS_IN (POLLIN | POLLPRI | POLLRDHUP | POLLRDNORM | POLLRDBAND)
#define EVENTS_OUT (POLLOUT | POLLWRNORM | POLLWRBAND)
#define LINGER_STEP_NS 2000000ll

static struct mutex all_lock = MUTEX_INIT(LOCK_SOCKET_NS, "host_sockets");
static LIST_HEAD(, host_socket) all_sockets = LIST_HEAD_INITIALIZER(all_sockets);

int host_socket_open(int domain, int type, int protocol)
{
	int fd = socket(domain, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);

	if (fd >= 0)
		return fd;
	/* The sentry's own limit, not the guest's. */
	return errno == EMFILE ? -ENFILE : -errno;
}

int host_socket_init(struct host_socket *hs, const struct socket_family *fam, int fd, int domain,
		     int type, int protocol, unsigned flags)
{
	const struct cred *c = cred_current();
	struct stat st;
	int err;

	if (fstat(fd, &st) < 0)
		return -errno;
	err = socket_file_init(&hs->sf, fam, st.st_ino, flags);
	if (err)
		return err;
	hs->fd = fd;
	hs->domain = domain;
	hs->type = type;
	hs->protocol = protocol;
	hs->uid = c ? c->euid : 0;
	hs->ino = st.st_ino;
	mutex_init(&hs->lock, LOCK_SOCKET, "host_socket");
	hs->hp.fd = -1;
	wait_queue_init(&hs->wait);
	atomic_init(&hs->watched, false);
	atomic_init(&hs->watched_out, false);
	atomic_init(&hs->awaited, false);
	atomic_init(&hs->rcvtimeo_ns, 0);
	atomic_init(&hs->sndtimeo_ns, 0);
	atomic_init(&hs->rcvlowat, 1);
	atomic_init(&hs->linger_s, -1);
	mutex_lock(&all_lock);
	LIST_INSERT_HEAD(&all_sockets, hs, all_link);
	mutex_unlock(&all_lock);
	return 0;
}

/* Is a FIN of ours, or data before it, still not acknowledged? */
static bool linger_pending(int fd)
{
	struct tcp_info ti;
	socklen_t len = sizeof(ti);

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &ti, &len) < 0 || len < 1)
		return false;
	return ti.tcpi_state == TCP_FIN_WAIT1 || ti.tcpi_state == TCP_CLOSING ||
	       ti.tcpi_state == TCP_LAST_ACK;
}

static void linger_wait(struct host_socket *hs, int seconds)
{
	int64_t deadline = time_monotonic_ns() + seconds * 1000000000ll, step = LINGER_STEP_NS / 16;

	if (shutdown(hs->fd, SHUT_RDWR) < 0)
		return;
	while (linger_pending(hs->fd) && time_monotonic_ns() < deadline) {
		int64_t next = MIN(deadline, time_monotonic_ns() + step);

		if (sleeper_wait(sleeper_current(), SLEEP_INTERRUPTIBLE, next) == -EINTR)
			return;
		step = MIN(step * 2, LINGER_STEP_NS * 16);
	}
}

void host_socket_fini(struct host_socket *hs)
{
	int linger_s = atomic_load_explicit(&hs->linger_s, memory_order_relaxed);

	mutex_lock(&all_lock);
	LIST_REMOVE(hs, all_link);
	mutex_unlock(&all_lock);
	if (linger_s > 0 && hs->type == SOCK_STREAM &&
	    !(socket_hooks.current_exiting && socket_hooks.current_exiting()))
		linger_wait(hs, linger_s);
	if (atomic_load_explicit(&hs->watched, memory_order_acquire))
		hostpoll_remove(&hs->hp);
	if (atomic_load_explicit(&hs->awaited, memory_order_relaxed))
		hostpoll_await_end();
	wait_queue_fini(&hs->wait);
	close(hs->fd);
}

bool host_socket_find(uint64_t ino, uint32_t *ret_uid)
{
	struct host_socket *hs;
	bool found = false;

	mutex_lock(&all_lock);
	LIST_FOREACH (hs, &all_sockets, all_link)
		if (hs->ino == ino) {
			*ret_uid = hs->uid;
			found = true;
			break;
		}
	mutex_unlock(&all_lock);
	return found;
}

/* ---- readiness ---- */

static void host_socket_ready(struct hostpoll *hp, uint32_t events)
{
	struct host_socket *hs = container_of(hp, struct host_socket, hp);

	wait_queue_wake(&hs->wait, events);
	if ((file_flags(&hs->sf.f) & O_ASYNC) && vfs_hooks.send_sigio)
		vfs_hooks.send_sigio(&hs->sf.f, events);
}

static uint32_t host_poll(struct host_socket *hs)
{
	struct pollfd pfd = {.fd = hs->fd, .events = EVENTS_IN | EVENTS_OUT};

	if (poll(&pfd, 1, 0) < 0)
		return errno == EINTR ? 0 : POLLERR;
	return (uint16_t)pfd.revents;
}

static void host_socket_watch(struct host_socket *hs)
{
	bool out;
	int err;

	if (atomic_load_explicit(&hs->watched, memory_order_acquire))
		return;
	mutex_lock(&hs->lock);
	if (!atomic_load_explicit(&hs->watched, memory_order_relaxed)) {
		out = !(host_poll(hs) & POLLOUT);
		err = hostpoll_add_batched(&hs->hp, hs->fd, EVENTS_IN | (out ? EVENTS_OUT : 0),
					   host_socket_ready);
		if (err) {
			log_warn("a socket cannot be watched: %s", strerror(-err));
		} else {
			atomic_store_explicit(&hs->watched_out, out, memory_order_relaxed);
			atomic_store_explicit(&hs->watched, true, memory_order_release);
		}
	}
	mutex_unlock(&hs->lock);
}

/*
 * Everybody who sleeps for room registers (poll_add), and then tries or polls once more: whichever finds none comes here, and the
 * change announces what room there is by then.
 */
void host_socket_full(struct host_socket *hs)
{
	int err;

	if (!atomic_load_explicit(&hs->watched, memory_order_acquire) ||
	    atomic_load_explicit(&hs->watched_out, memory_order_acquire))
		return;
	mutex_lock(&hs->lock);
	if (!atomic_load_explicit(&hs->watched_out, memory_order_relaxed)) {
		err = hostpoll_modify(&hs->hp, EVENTS_IN | EVENTS_OUT);
		if (err)
			log_warn("a socket cannot be watched: %s", strerror(-err));
		else
			atomic_store_explicit(&hs->watched_out, true, memory_order_release);
	}
	mutex_unlock(&hs->lock);
}

uint32_t host_socket_poll(struct file *f)
{
	struct host_socket *hs = host_socket_of(f);
	uint32_t events = host_poll(hs);

	if (!(events & POLLOUT))
		host_socket_full(hs);
	return events;
}

void host_socket_poll_add(struct file *f, struct waiter *w)
{
	struct host_socket *hs = host_socket_of(f);

	wait_queue_add(&hs->wait, w);
	host_socket_watch(hs);
	waiter_await(w);
}

int host_socket_set_flags(struct file *f, unsigned new_flags)
{
	struct host_socket *hs = host_socket_of(f);
	bool on = new_flags & O_ASYNC;

	if (on)
		host_socket_watch(hs);
	/* A signal is to come whatever its program does meanwhile. */
	mutex_lock(&hs->lock);
	if (atomic_exchange_explicit(&hs->awaited, on, memory_order_relaxed) != on) {
		if (on)
			hostpoll_await();
		else
			hostpoll_await_end();
	}
	mutex_unlock(&hs->lock);
	return 0;
}

int64_t host_socket_timeout_ns(struct file *f, bool send)
{
	struct host_socket *hs = host_socket_of(f);

	return atomic_load_explicit(send ? &hs->sndtimeo_ns : &hs->rcvtimeo_ns,
				    memory_order_relaxed);
}

int host_socket_getname(struct file *f, bool peer, struct socket_addr *ret)
{
	struct host_socket *hs = host_socket_of(f);
	socklen_t len = sizeof(ret->ss);

	memset(&ret->ss, 0, sizeof(ret->ss));
	if ((peer ? getpeername(hs->fd, &ret->sa, &len) : getsockname(hs->fd, &ret->sa, &len)) < 0)
		return -errno;
	ret->len = MIN(len, (socklen_t)sizeof(ret->ss));
	return 0;
}
