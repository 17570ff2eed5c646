/*
 * fsimpl/socket/host.h - sockets that wrap one of the host's: AF_INET, AF_INET6, AF_NETLINK.
 *
 * The descriptor is non-blocking, made by the sentry, and never leaves it. Readiness comes from base/hostpoll.h; a socket is
 * watched from the first time that somebody waits for it.
 *
 * Locks: host_socket.lock (LOCK_SOCKET) around the decision to watch; the list of all (LOCK_SOCKET_NS).
 */
#ifndef MOAT_FSIMPL_SOCKET_HOST_H
#define MOAT_FSIMPL_SOCKET_HOST_H

#include "base/hostpoll.h"
#include "fsimpl/socket/family.h"
#include "fsimpl/socket/hostnet.h"

struct host_socket {
	struct socket_file sf;
	int fd; /* owned; immutable */
	int domain, type, protocol; /* as the guest asked; immutable */
	uint32_t uid; /* the maker's; immutable */
	uint64_t ino; /* the host socket's, which is also the file's; immutable */
	struct mutex lock; /* LOCK_SOCKET */
	struct hostpoll hp; /* guarded by lock until watched */
	_Atomic bool watched;
	_Atomic bool watched_out; /* for room to write as well; set once, with lock */
	_Atomic bool awaited; /* somebody asked for SIGIO; written with lock */
	struct wait_queue wait;
	_Atomic int64_t rcvtimeo_ns, sndtimeo_ns;
	_Atomic unsigned rcvlowat;
	_Atomic int linger_s; /* SO_LINGER with a time; -1: off, or the host knows */
	LIST_ENTRY(host_socket) all_link; /* guarded by the list's lock */
};

static inline struct host_socket *host_socket_of(struct file *f)
{
	return (struct host_socket *)f;
}

/* Fills *hs, takes fd on success. The caller frees hs on failure. -ENOMEM and what fstat says. */
must_check int host_socket_init(struct host_socket *hs, const struct socket_family *fam, int fd,
				int domain, int type, int protocol, unsigned flags);
/* Everything but file_free(). */
void host_socket_fini(struct host_socket *hs);
/* socket(2) with SOCK_NONBLOCK | SOCK_CLOEXEC on the host: a descriptor; its limit on descriptors is -ENFILE. */
must_check int host_socket_open(int domain, int type, int protocol);

/* Slots of struct socket_family. */
uint32_t host_socket_poll(struct file *f);
void host_socket_poll_add(struct file *f, struct waiter *w);
/* The host took less than it was given: who waits wants to hear of room. */
void host_socket_full(struct host_socket *hs);
int64_t host_socket_timeout_ns(struct file *f, bool send);
int host_socket_set_flags(struct file *f, unsigned new_flags);
int host_socket_getname(struct file *f, bool peer, struct socket_addr *ret);

/* What the guest knows of a host socket: false if it is not one of ours. */
must_check bool host_socket_find(uint64_t ino, uint32_t *ret_uid);

/* ---- inet_opt.c ---- */
int inet_setsockopt(struct file *f, int level, int opt, const void *val, unsigned len);
int inet_getsockopt(struct file *f, int level, int opt, void *val, unsigned *inout_len);
/* ---- inet_io.c ---- */
ssize_t inet_sendmsg(struct file *f, struct socket_msg *sm, int flags);
ssize_t inet_recvmsg(struct file *f, struct socket_msg *sm, int flags);
/* One recvmsg(2) into the iterator; what the window does not reach goes through a buffer of at most `tail` bytes. */
ssize_t host_socket_recv(struct host_socket *hs, struct socket_msg *sm, int host_flags,
			 size_t tail);
/* ---- inet_cmsg.c ---- */
/* Checks what goes to the host and drops what it has no business with. -EINVAL, -EPERM. */
must_check int inet_control_send(struct socket_msg *sm);
/* Is it a sequence of whole control messages without descriptors? Else cut to what is. */
size_t host_control_check(const void *control, size_t size);
bool net_capable(int cap);

#endif
