/*
 * fsimpl/socket/socket.c - sockets as files.
 *
 * A socket (struct usock) and its file are two objects: a connection in an accept queue has no file yet, and a closed socket lives on
 * while a peer looks at it. Every socket is on one list for /proc/net/unix.
 *
 * Only AF_UNIX is here; other families answer EAFNOSUPPORT.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <linux/sockios.h>

#include "fsimpl/socket/internal.h"

static REF_TYPE(usock_type, "unix socket");
static struct mutex all_lock = MUTEX_INIT(LOCK_SOCKET_NS, "unix_all");
static LIST_HEAD(,
		 usock) all_sockets = LIST_HEAD_INITIALIZER(all_sockets); /* guarded by all_lock */

struct socket_hooks socket_hooks;

void socket_current_cred(struct socket_cred *ret, bool real)
{
	const struct cred *c = cred_current();

	ret->pid = socket_hooks.current_tgid ? socket_hooks.current_tgid() : 0;
	ret->uid = c ? (real ? c->uid : c->euid) : 0;
	ret->gid = c ? (real ? c->gid : c->egid) : 0;
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
	wait_queue_fini(&s->wait);
	ref_fini(&s->ref, &usock_type);
	free(s);
}

/* ---- the file ---- */

static ssize_t socket_read(struct file *f, struct io_iter *it, unused_arg int64_t off,
			   unused_arg int rwf)
{
	struct socket_msg m;
	ssize_t n;

	m.it = it;
	m.addr = NULL;
	n = socket_recvmsg(f, &m, 0);
	/* read(2) has nowhere to put descriptors. */
	for (unsigned i = 0; i < m.nfiles; i++)
		file_unref(m.files[i]);
	return n;
}

static ssize_t socket_write(struct file *f, struct io_iter *it, unused_arg int64_t *inout_off,
			    unused_arg int rwf)
{
	struct socket_msg m;

	m.it = it;
	m.addr = NULL;
	m.lookup = NULL;
	m.nfiles = 0;
	m.has_cred = false;
	return socket_sendmsg(f, &m, 0);
}

static uint32_t socket_poll(struct file *f)
{
	return usock_poll(usock_of(f));
}

static void socket_poll_add(struct file *f, struct waiter *w)
{
	wait_queue_add(&usock_of(f)->wait, w);
}

static void socket_poll_remove(unused_arg struct file *f, struct waiter *w)
{
	wait_queue_remove(w);
}

static int64_t socket_ioctl(struct file *f, unsigned cmd, uint64_t arg)
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
		return -ENOTTY;
	if (listening)
		return -EINVAL;
	return vfs_user_copy_out(arg, &n, sizeof(n));
}

static void socket_release(struct file *f)
{
	struct usock *s = usock_of(f);

	usock_close(s);
	usock_unref(s);
	file_fini(f);
	free(f);
	usock_collect();
}

const struct file_ops socket_ops = {
	.name = "socket",
	.release = socket_release,
	.read_iter = socket_read,
	.write_iter = socket_write,
	.poll = socket_poll,
	.poll_add = socket_poll_add,
	.poll_remove = socket_poll_remove,
	.stat = anon_file_stat,
	.set_stat = anon_file_set_stat,
	.ioctl = socket_ioctl,
};

bool socket_is(struct file *f)
{
	return f->ops == &socket_ops;
}

int socket_file_create(struct usock *s, unsigned flags, struct file **ret)
{
	struct anon_args args = {.kind = ANON_SOCKET, .mode = S_IFSOCK | 0777};
	struct socket_file *sf = calloc(1, sizeof(*sf));
	int err;

	if (!sf)
		return -ENOMEM;
	err = anon_file_init(&sf->f, &socket_ops, &args, O_RDWR | (flags & O_NONBLOCK),
			     FILE_READ | FILE_WRITE | FILE_STREAM);
	if (err) {
		free(sf);
		return err;
	}
	sf->s = s;
	mutex_lock(&s->lock);
	s->ino = anon_file_ino(&sf->f);
	mutex_unlock(&s->lock);
	*ret = &sf->f;
	return 0;
}

static int socket_check(int family, int *inout_type, int protocol)
{
	int type = *inout_type & 0xf;

	if (*inout_type & ~(0xf | SOCK_NONBLOCK | SOCK_CLOEXEC))
		return -EINVAL;
	if (family < 0 || family >= AF_MAX)
		return -EAFNOSUPPORT;
	if (type == 0 || type > SOCK_PACKET)
		return -EINVAL;
	if (family != AF_UNIX)
		return -EAFNOSUPPORT;
	if (protocol && protocol != PF_UNIX)
		return -EPROTONOSUPPORT;
	if (type == SOCK_RAW) /* "believe it or not BSD has AF_UNIX, SOCK_RAW" */
		type = SOCK_DGRAM;
	if (type != SOCK_STREAM && type != SOCK_DGRAM && type != SOCK_SEQPACKET)
		return -ESOCKTNOSUPPORT;
	*inout_type = type;
	return 0;
}

int socket_create(int family, int type, int protocol, struct file **ret)
{
	unsigned flags = (unsigned)type & SOCK_NONBLOCK;
	struct usock *s;
	int err = socket_check(family, &type, protocol);

	if (err)
		return err;
	err = usock_create(type, &s);
	if (err)
		return err;
	err = socket_file_create(s, flags, ret);
	if (err)
		usock_unref(s);
	return err;
}

int socket_pair(int family, int type, int protocol, struct file *ret[2])
{
	struct file *a, *b;
	int err;

	/* socketpair(2) of another family is EOPNOTSUPP where socket(2) works; here none does. */
	err = socket_create(family, type, protocol, &a);
	if (err)
		return err;
	err = socket_create(family, type, protocol, &b);
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

	buf_printf(b, "%016llx: %08X %08X %08X %04X %02X %5llu", 0ull,
		   (unsigned)ref_read(&s->ref) + 1, 0u, flags, (unsigned)s->type, st,
		   (unsigned long long)s->ino);
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

void socket_show_unix(struct buf *b)
{
	struct usock **list = NULL, *s;
	size_t count = 0, n = 0;

	buf_puts(b, "Num       RefCount Protocol Flags    Type St Inode Path\n");
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
	for (size_t i = 0; i < n; i++) {
		mutex_lock(&list[i]->lock);
		show_one(list[i], b);
		mutex_unlock(&list[i]->lock);
		usock_unref(list[i]);
	}
	free(list);
}
