/*
 * fsimpl/socket/internal.h - an AF_UNIX socket.
 *
 *	socket.c	the file, creation, pairs
 *	unix.c		bind, listen, connect, accept, shutdown, close
 *	unix_io.c	messages: sending, receiving, readiness
 *	gc.c		collecting sockets that only messages refer to
 *	names.c		abstract names and path endpoints
 *	unix_host.c	those with a socket of the host's behind them
 *	relay.c		the container's end of a datagram socket of the host's
 *	sockopt.c	getsockopt and setsockopt
 *	sockopt_kept.c	options that are remembered only
 */
#ifndef MOAT_FSIMPL_SOCKET_INTERNAL_H
#define MOAT_FSIMPL_SOCKET_INTERNAL_H

#include "base/hostpoll.h"
#include "fsimpl/socket/family.h"

#define UMSG_OVERHEAD 576u /* what a message is charged beyond its bytes: about an skb */
#define UMSG_CHUNK_MAX 65536u /* a stream's larger sends are cut */
#define RIGHTS_INFLIGHT_MAX 65536 /* descriptors in queues, all sockets together */

/* A name: immutable, shared by a listener and what it accepted. */
struct uaddr {
	struct ref ref;
	unsigned len; /* of un, as getsockname shows it */
	struct sockaddr_un un;
};

struct usock;

struct umsg {
	struct ref ref; /* MSG_PEEK reads outside the lock */
	TAILQ_ENTRY(umsg) link; /* guarded by the receiver's lock */
	struct usock *owner; /* whose send buffer it is charged to; a reference */
	struct uaddr *from; /* a reference or NULL */
	struct socket_cred cred;
	int64_t stamp_ns;
	struct file **files; /* references */
	unsigned nfiles;
	unsigned nsockets; /* immutable once queued: how many of the files sent are sockets */
	/* guarded by gc_lock */
	struct usock *to; /* in whose queue it is, when nsockets; not a reference */
	TAILQ_ENTRY(umsg) gc_link;
	SLIST_ENTRY(umsg) gc_out;
	size_t size, off; /* off: guarded by the receiver's lock (streams) */
	char data[];
};

/* The collector's; all guarded by gc_lock. */
struct usock_gc {
	struct usock *listener; /* in whose accept queue the socket is; not a reference */
	uint64_t run; /* what follows is of this run */
	struct file *file; /* its own, when in flight; not a reference */
	int64_t inflight;
	bool live;
	SLIST_HEAD(, umsg) out;
	SLIST_ENTRY(usock) link, todo;
};

enum usock_state { USOCK_IDLE, USOCK_LISTEN, USOCK_CONNECTED, USOCK_DEAD };

struct uendpoint {
	struct vfs_endpoint e;
	struct mutex lock; /* LOCK_SOCKET_NS */
	struct usock *s; /* guarded by lock; NULL once closed; not a reference */
};

/* Options that have no effect on AF_UNIX: SO_BUF_LOCK is the first. */
#define UNIX_KEPT_NR 19
#define UNIX_KEPT_BUF_LOCK_OPT 72

struct usock {
	struct ref ref;
	struct mutex lock; /* LOCK_SOCKET; guards what follows but atomics */
	struct wait_queue wait;
	int type; /* immutable: SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET */
	uint64_t ino; /* of the file; 0 while in an accept queue */
	enum usock_state state;
	struct usock *peer; /* a reference */
	bool had_peer; /* was connected once */
	unsigned shut; /* 1 receive, 2 send */
	int error; /* SO_ERROR, positive */
	TAILQ_HEAD(, umsg) queue;
	size_t queued; /* bytes to read */
	_Atomic int64_t wmem; /* charged for messages not read yet */
	int64_t sndbuf, rcvbuf;
	/* a listener's */
	TAILQ_HEAD(, usock) embryos; /* references */
	TAILQ_ENTRY(usock) embryo_link; /* guarded by the listener's lock */
	unsigned nembryos, backlog;
	struct usock *connect_wait; /* the full listener that connect met; a reference */
	/* name */
	struct uaddr *addr;
	struct uendpoint *endpoint; /* a reference */
	bool abstract;
	LIST_ENTRY(usock) name_link; /* guarded by the name table's lock */
	/* credentials */
	struct socket_cred own, peer_cred;
	bool has_peer_cred;
	const struct cred *own_full, *peer_full; /* references or NULL: for the groups */
	/* options */
	bool passcred, passpidfd, timestamp, timestamp_ns, keepalive, reuse, reuseport, broadcast,
		oobinline, passsec, debug;
	int priority, rcvlowat, peek_off;
	int kept[UNIX_KEPT_NR];
	struct linger linger;
	int64_t rcvtimeo_ns, sndtimeo_ns;
	int relay_fd; /* immutable; -1, or the host's socket that gets what is sent here */
	bool relay_closes; /* immutable: it is closed with this one, and takes no descriptors */
	/* unix_host.c */
	_Atomic int
		host_fd; /* -1, or the host's half; changed under lock, and closed with the file */
	_Atomic bool host_connected; /* set once, under lock: all of it is the host's */
	int host_bound; /* -1, or what was bound on the host before it was connected there */
	bool host_watched; /* guarded by lock */
	bool host_busy; /* guarded by lock: the last connect met a full queue of the host's */
	struct hostpoll host_hp;
	struct uaddr *host_name; /* what it connected to on the host; a reference */
	LIST_ENTRY(usock) all_link; /* guarded by the list's lock */
	struct usock_gc gc;
};

struct unix_file {
	struct socket_file sf;
	struct usock *s; /* a reference */
	/* O_ASYNC: the waiter notes an event, and SIGIO is sent at the next safe point. */
	struct waiter async;
	_Atomic bool async_on, async_queued;
	_Atomic uint32_t async_events;
	struct deferred_work async_work;
};

extern const struct socket_family unix_family;

static inline struct usock *usock_of(struct file *f)
{
	return ((struct unix_file *)f)->s;
}
static inline bool usock_is_stream(const struct usock *s)
{
	return s->type == SOCK_STREAM;
}
static inline bool usock_connects(const struct usock *s)
{
	return s->type != SOCK_DGRAM;
}
/* Is it connected to the host's? Whoever uses the file sees host_fd then until that goes. */
static inline bool usock_is_hosts(const struct usock *s)
{
	return atomic_load_explicit(&s->host_connected, memory_order_acquire);
}
static inline bool usock_has_host(const struct usock *s)
{
	return atomic_load_explicit(&s->host_fd, memory_order_acquire) >= 0;
}

/* ---- socket.c ---- */
must_check int usock_create(int type, struct usock **ret);
static inline void usock_ref(struct usock *s)
{
	ref_get(&s->ref);
}
void usock_unref(struct usock *s);
/* All there are, with references; free() the list. NULL: no memory. */
struct usock **usock_list(size_t *ret_count);
must_check int unix_file_create(struct usock *s, unsigned flags,
				struct file **ret); /* takes s's reference on success */
/* Both kinds of a socket's own credentials become the caller's. Pre: s->lock, or s is fresh. */
void usock_own_cred_locked(struct usock *s);
/* `to` sees `from` as its peer. */
void usock_peer_cred_locked(struct usock *to, const struct usock *from);
void socket_current_cred(struct socket_cred *ret, bool real);

/* ---- unix.c ---- */
int unix_bind(struct file *f, const struct socket_addr *addr, const struct vfs_lookup *lookup,
	      uint32_t umask);
int unix_connect(struct file *f, const struct socket_addr *addr, const struct vfs_lookup *lookup);
int unix_connect_wait(struct file *f, int64_t deadline);
int unix_listen(struct file *f, int backlog);
int unix_accept(struct file *f, int flags, struct socket_addr *addr, struct file **ret);
int unix_getname(struct file *f, bool want_peer, struct socket_addr *ret);
int unix_shutdown(struct file *f, int how);
void usock_close(struct usock *s);
void usock_pair(struct usock *a, struct usock *b); /* both fresh */

/* ---- unix_io.c ---- */
ssize_t unix_sendmsg(struct file *f, struct socket_msg *sm, int flags);
ssize_t unix_recvmsg(struct file *f, struct socket_msg *sm, int flags);
void umsg_unref(struct umsg *m);
void usock_purge(struct usock *s); /* throws the queue away */
uint32_t usock_poll(struct usock *s);
struct usock *usock_get_peer(struct usock *s); /* a reference or NULL */

/* ---- gc.c ---- */
void gc_message_queued(struct umsg *m, struct usock *to); /* with to's lock */
void gc_message_gone(struct umsg *m); /* no longer in a queue, its files still its own */
void gc_peek_files(struct umsg *m,
		   struct file **files); /* references; with the lock of its queue */
void gc_set_listener(struct usock *embryo, struct usock *listener); /* NULL: accepted */
void usock_collect(void); /* no locks held; closes what nobody can reach */

/* ---- names.c ---- */
struct uaddr *uaddr_ref(struct uaddr *a);
void uaddr_unref(struct uaddr *a); /* NULL is fine */
/* Checks and normalises: -EINVAL. *ret_abstract; an autobind address (no name) is -ENODATA. */
must_check int uaddr_parse(const struct socket_addr *addr, struct sockaddr_un *ret,
			   unsigned *ret_len, bool *ret_abstract);
must_check int name_bind(struct usock *s, const struct socket_addr *addr,
			 const struct vfs_lookup *lookup, uint32_t umask);
must_check int name_autobind(struct usock *s);
/* Who wants to know the sender of its messages has a name itself. */
must_check int name_autobind_if_asked(struct usock *s);
void name_release(struct usock *s);
/* An endpoint of a socket that has no address of its own: both hold a reference to it. -ENOMEM. */
must_check int name_endpoint(struct usock *s, struct vfs_endpoint **ret);
/*
 * The socket behind an address: a reference. A host's: of a datagram socket one that sends there; else *ret is NULL, and *ret_host the endpoint to
 * connect to, *ret_name its name, references. -ECONNREFUSED, -ENOENT, -EACCES, ...
 */
must_check int name_find(const struct socket_addr *addr, int type, const struct vfs_lookup *lookup,
			 struct usock **ret, struct vfs_endpoint **ret_host,
			 struct uaddr **ret_name);
void uaddr_copy(const struct uaddr *a, struct socket_addr *ret);

/* ---- unix_host.c; none with a lock held ---- */
/* -EISCONN, -EINVAL; -EAGAIN: then uhost_connect_wait(), which ends a little later: 0, -EINTR, or -EAGAIN at the deadline. */
must_check int uhost_connect(struct usock *s, struct vfs_endpoint *e, struct uaddr *name);
must_check int uhost_connect_wait(int64_t deadline);
/* A socket without a file that sends there: a reference. */
must_check int uhost_datagram_peer(struct vfs_endpoint *e, struct uaddr *name, struct usock **ret);
/* A connection from the host: a reference. -EAGAIN. */
must_check int uhost_accept(struct usock *l, struct usock **ret);
must_check int uhost_listen(struct usock *s, int backlog);
void uhost_shutdown(struct usock *s, int how);
uint32_t uhost_poll(struct usock *s);
must_check int uhost_watch(struct usock *s); /* what happens to it wakes s */
int uhost_queued(struct usock *s, unsigned cmd, int32_t *ret); /* SIOCINQ, SIOCOUTQ */
int uhost_error(struct usock *s); /* SO_ERROR's, positive */
ssize_t uhost_send(struct usock *s, struct socket_msg *sm, int flags);
ssize_t uhost_recv(struct usock *s, struct socket_msg *sm, int flags);
void uhost_close(struct usock *s);

/* ---- relay.c ---- */
/* Takes m; to->relay_fd >= 0. 0, -ECONNREFUSED, -ENOBUFS, -EMSGSIZE. */
int relay_deliver(struct usock *to, struct umsg *m);

/* ---- sockopt.c ---- */
int unix_setsockopt(struct file *f, int level, int opt, const void *val, unsigned len);
/* Pre: s->lock. -ENOPROTOOPT: not one of them. */
must_check int unix_kept_set_locked(struct usock *s, int opt, int v);
must_check int unix_kept_get_locked(const struct usock *s, int opt, int *ret);
int unix_getsockopt(struct file *f, int level, int opt, void *val, unsigned *inout_len);
int64_t unix_timeout_ns(struct file *f, bool send);
#endif
