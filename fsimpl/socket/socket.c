/*
 * fsimpl/socket/socket.c - AF_UNIX sockets as files.
 *
 * A socket (struct usock) and its file are two objects: a connection in an accept queue has no file yet, and a closed socket lives on
 * while a peer looks at it. Every socket is on one list for /proc/net/unix.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <linux/sockios.h>

#include "fsimpl/socket/internal.h"

static REF_TYPE(usock_type, "unix socket");
static struct mutex all_lock = MUTEX_INIT(LOCK_SOCKET_NS, "unix_all");
static LIST_HEAD(,
		 usock) all_sockets = LIST_HEAD_INITIALIZER(all_sockets); /* guarded by all_lock */

void socket_current_cred(struct socket_cred *ret, bool real)
{
	const struct cred *c = cred_current();

	ret->pid = socket_hooks.current_tgid ? socket_hooks.current_tgid() : 0;
	ret->uid = c ? (real ? c->uid : c->euid) : 0;
	ret->gid = c ? (real ? c->gid : c->egid) : 0;
}

void usock_own_cred_locked(struct usock *s)
{
	const struct cred *c = cred_current(), *old = s->own_full;

	socket_current_cred(&s->own, false);
	s->own_full = c ? cred_ref(c) : NULL;
	if (old)
		cred_unref(old);
}

void usock_peer_cred_locked(struct usock *to, const struct usock *from)
{
	const struct cred *old = to->peer_full;

	to->peer_cred = from->own;
	to->has_peer_cred = true;
	to->peer_full = from->own_full ? cred_ref(from->own_full) : NULL;
	if (old)
		cred_unref(old);
}

int usock_create(int type, struct usock **ret)
{
	struct usock *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	ref_init(&s->ref, &usock_type);
	mutex_init(&s->lock, LOCK_SOCKET, "unix_socket");
	wait_queue_init(&s->wait);
	TAILQ_INIT(&s->queue);
	TAILQ_INIT(&s->embryos);
	s->type = type;
	s->sndbuf = s->rcvbuf = SOCKET_BUFFER_DEFAULT;
	s->rcvlowat = 1;
	s->peek_off = -1;
	s->relay_fd = -1;
	s->host_fd = s->host_bound = -1;
	s->host_hp.fd = -1;
	mutex_lock(&all_lock);
	LIST_INSERT_HEAD(&all_sockets, s, all_link);
	mutex_unlock(&all_lock);
	*ret = s;
	return 0;
}

void usock_unref(struct usock *s)
{
	if (!ref_put(&s->ref))
		return;
	mutex_lock(&all_lock);
	LIST_REMOVE(s, all_link);
	mutex_unlock(&all_lock);
	uaddr_unref(s->addr);
	uaddr_unref(s->host_name);
	if (s->relay_closes)
		close(s->relay_fd);
	if (s->own_full)
		cred_unref(s->own_full);
	if (s->peer_full)
		cred_unref(s->peer_full);
	wait_queue_fini(&s->wait);
	ref_fini(&s->ref, &usock_type);
	free(s);
}

/* ---- the file ---- */

static uint32_t unix_poll(struct file *f)
{
	struct usock *s = usock_of(f);

	if (usock_is_hosts(s))
		return uhost_poll(s);
	return usock_poll(s) | (usock_has_host(s) ? uhost_poll(s) & (POLLIN | POLLRDNORM) : 0);
}

static void unix_poll_add(struct file *f, struct waiter *w)
{
	wait_queue_add(&usock_of(f)->wait, w);
}

/* ---- SIGIO ---- */

static void async_run(struct deferred_work *w)
{
	struct unix_file *uf = container_of(w, struct unix_file, async_work);

	atomic_store_explicit(&uf->async_queued, false, memory_order_release);
	if (vfs_hooks.send_sigio)
		vfs_hooks.send_sigio(&uf->sf.f, atomic_exchange(&uf->async_events, 0));
	file_unref_later(&uf->sf.f);
}

/* Under the queue's lock: a signal is sent later. */
static void async_wake(struct waiter *w, uint32_t events)
{
	struct unix_file *uf = w->arg;

	if (!atomic_load_explicit(&uf->async_on, memory_order_relaxed) || !file_tryref(&uf->sf.f))
		return;
	atomic_fetch_or_explicit(&uf->async_events, events, memory_order_relaxed);
	if (atomic_exchange_explicit(&uf->async_queued, true, memory_order_acq_rel)) {
		file_unref_later(&uf->sf.f);
		return;
	}
	uf->async_work.run = async_run;
	vfs_defer_wake(&uf->async_work);
}

static int unix_set_flags(struct file *f, unsigned new_flags)
{
	struct unix_file *uf = (struct unix_file *)f;
	bool on = new_flags & O_ASYNC;

	mutex_lock(&uf->s->lock);
	if (on != atomic_load_explicit(&uf->async_on, memory_order_relaxed)) {
		atomic_store_explicit(&uf->async_on, on, memory_order_relaxed);
		if (on) {
			waiter_init(&uf->async, async_wake, uf,
				    POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM | POLLRDHUP);
			wait_queue_add(&uf->s->wait, &uf->async);
		} else {
			wait_queue_remove(&uf->async);
		}
	}
	mutex_unlock(&uf->s->lock);
	return 0;
}

static int64_t unix_ioctl(struct file *f, unsigned cmd, uint64_t arg)
{
	struct usock *s = usock_of(f);
	struct umsg *first;
	int32_t n = 0;
	bool listening;

	mutex_lock(&s->lock);
	listening = s->state == USOCK_LISTEN;
	first = TAILQ_FIRST(&s->queue);
	if (cmd == SIOCINQ && first)
		n = (int32_t)(usock_is_stream(s) ? s->queued : first->size);
	else if (cmd == SIOCOUTQ)
		n = (int32_t)atomic_load_explicit(&s->wmem, memory_order_relaxed);
	mutex_unlock(&s->lock);
	if (cmd != SIOCINQ && cmd != SIOCOUTQ)
		return netdev_ioctl(cmd, arg);
	if (listening)
		return -EINVAL;
	if (usock_is_hosts(s)) {
		int err = uhost_queued(s, cmd, &n);

		if (err)
			return err;
	}
	return vfs_user_copy_out(arg, &n, sizeof(n));
}

static void unix_release(struct file *f)
{
	struct usock *s = usock_of(f);

	(void)!unix_set_flags(f, 0);
	usock_close(s);
	usock_unref(s);
	file_free(f);
	usock_collect();
}

const struct socket_family unix_family = {
	.family = AF_UNIX,
	.bind = unix_bind,
	.connect = unix_connect,
	.connect_wait = unix_connect_wait,
	.listen = unix_listen,
	.accept = unix_accept,
	.getname = unix_getname,
	.shutdown = unix_shutdown,
	.setsockopt = unix_setsockopt,
	.getsockopt = unix_getsockopt,
	.sendmsg = unix_sendmsg,
	.recvmsg = unix_recvmsg,
	.timeout_ns = unix_timeout_ns,
	.poll = unix_poll,
	.poll_add = unix_poll_add,
	.ioctl = unix_ioctl,
	.set_flags = unix_set_flags,
	.release = unix_release,
};

bool unix_is(struct file *f)
{
	return socket_is(f) && socket_family_of(f) == &unix_family;
}

int unix_file_create(struct usock *s, unsigned flags, struct file **ret)
{
	struct unix_file *uf = calloc(1, sizeof(*uf));
	int err;

	if (!uf)
		return -ENOMEM;
	err = socket_file_init(&uf->sf, &unix_family, 0, flags & O_NONBLOCK);
	if (err) {
		free(uf);
		return err;
	}
	uf->s = s;
	mutex_lock(&s->lock);
	s->ino = anon_file_ino(&uf->sf.f);
	mutex_unlock(&s->lock);
	*ret = &uf->sf.f;
	return 0;
}

int unix_socket_create(int type, int protocol, unsigned flags, struct file **ret)
{
	struct usock *s;
	int err;

	if (protocol && protocol != PF_UNIX)
		return -EPROTONOSUPPORT;
	if (type == SOCK_RAW) /* "believe it or not BSD has AF_UNIX, SOCK_RAW" */
		type = SOCK_DGRAM;
	if (type != SOCK_STREAM && type != SOCK_DGRAM && type != SOCK_SEQPACKET)
		return -ESOCKTNOSUPPORT;
	err = usock_create(type, &s);
	if (err)
		return err;
	err = unix_file_create(s, flags, ret);
	if (err)
		usock_unref(s);
	return err;
}

int unix_socket_pair(int type, int protocol, unsigned flags, struct file *ret[2])
{
	struct file *a, *b;
	int err;

	err = unix_socket_create(type, protocol, flags, &a);
	if (err)
		return err;
	err = unix_socket_create(type, protocol, flags, &b);
	if (err) {
		file_unref(a);
		return err;
	}
	usock_pair(usock_of(a), usock_of(b));
	ret[0] = a;
	ret[1] = b;
	return 0;
}

/* ---- /proc/net/unix ---- */

static void show_one(struct usock *s, struct buf *b)
{
	unsigned flags = s->state == USOCK_LISTEN ? 0x10000 : 0;
	/* SS_UNCONNECTED, SS_CONNECTING (in an accept queue), SS_CONNECTED */
	unsigned st = !s->ino ? 2 : s->had_peer ? 3 : 1;

	/* The list's reference stands for the one that Linux has besides the file's and the peer's. */
	buf_printf(b, "%016llx: %08X %08X %08X %04X %02X %5llu", 0ull, (unsigned)ref_read(&s->ref),
		   0u, flags, (unsigned)s->type, st, (unsigned long long)s->ino);
	if (s->addr) {
		unsigned len = s->addr->len - (unsigned)offsetof(struct sockaddr_un, sun_path);
		unsigned i = 0;

		buf_putc(b, ' ');
		if (s->addr->un.sun_path[0]) {
			len--; /* the terminator */
		} else {
			buf_putc(b, '@');
			i++;
		}
		for (; i < len; i++)
			buf_putc(b, s->addr->un.sun_path[i] ? s->addr->un.sun_path[i] : '@');
	}
	buf_putc(b, '\n');
}

struct usock **usock_list(size_t *ret_count)
{
	struct usock **list = NULL, *s;
	size_t count = 0, n = 0;

	/* References first: a socket's lock ranks below the list's. */
	mutex_lock(&all_lock);
	LIST_FOREACH (s, &all_sockets, all_link)
		count++;
	list = calloc(count ? count : 1, sizeof(*list));
	if (list)
		LIST_FOREACH (s, &all_sockets, all_link)
			if (ref_tryget(&s->ref))
				list[n++] = s;
	mutex_unlock(&all_lock);
	*ret_count = n;
	return list;
}

void socket_show_unix(struct buf *b)
{
	size_t n;
	struct usock **list = usock_list(&n);

	buf_puts(b, "Num       RefCount Protocol Flags    Type St Inode Path\n");
	for (size_t i = 0; list && i < n; i++) {
		mutex_lock(&list[i]->lock);
		show_one(list[i], b);
		mutex_unlock(&list[i]->lock);
		usock_unref(list[i]);
	}
	free(list);
}
