/*
 * fsimpl/socket/socket.h - sockets as files: AF_UNIX in the sentry, AF_INET, AF_INET6 and AF_NETLINK on the host's network.
 *
 * The system call layer copies addresses and control messages; here they are sentry memory. Operations do not wait: -EAGAIN, and the caller waits
 * with file_wait() (POLLIN for recv and accept, POLLOUT for send and connect) unless O_NONBLOCK or MSG_DONTWAIT. read(2) and
 * write(2) come through file_ops.
 *
 * Locks: LOCK_SOCKET (one socket; a pair by address), LOCK_SOCKET_NS (abstract names) inside it.
 */
#ifndef MOAT_FSIMPL_SOCKET_H
#define MOAT_FSIMPL_SOCKET_H

#include <sys/socket.h>
#include <sys/un.h>

#include "vfs/vfs.h"

#define SOCKET_RIGHTS_MAX 253 /* SCM_MAX_FD */
#define SOCKET_BUFFER_DEFAULT 212992u
#define SOCKET_BUFFER_MAX 212992u /* net.core.wmem_max */
#define SOCKET_BACKLOG_MAX 4096 /* net.core.somaxconn */
#define SOCKET_SOURCES_MAX \
	1024u /* of a multicast group in one value; Linux: igmp_max_msf 10, mld_max_msf 64 */

struct socket_addr {
	unsigned len; /* 0: none */
	union {
		struct sockaddr sa;
		struct sockaddr_un un;
		struct sockaddr_storage ss;
	};
};

struct socket_cred {
	int32_t pid;
	uint32_t uid, gid;
};

struct socket_msg {
	struct io_iter *it;
	/* send: destination, borrowed, or NULL. recv: filled when not NULL. */
	struct socket_addr *addr;
	/* For a destination that is a path: who looks it up (path and flags are set here). send and connect. */
	const struct vfs_lookup *lookup;
	/* SCM_RIGHTS. send: borrowed files. recv: references that the caller installs or drops. */
	struct file *files[SOCKET_RIGHTS_MAX];
	unsigned nfiles;
	/* SCM_CREDENTIALS. send: already permission-checked by the caller. recv: valid when has_cred (SO_PASSCRED is on). */
	struct socket_cred cred;
	bool has_cred;
	bool has_pidfd; /* recv: SO_PASSPIDFD is on; cred.pid is the sender */
	/* SO_TIMESTAMP on and a stamp is there (recv) */
	bool has_stamp;
	int64_t stamp_ns;
	unsigned
		flags; /* recv: MSG_TRUNC, MSG_EOR ... for msg_flags (MSG_CTRUNC is the caller's) */
	/*
	 * A family with socket_raw_control(): control messages in Linux's layout, in sentry memory. send: what the guest sent.
	 * recv: room of control_size bytes; control_len of them filled (MSG_CTRUNC in flags when it was too small).
	 */
	void *control;
	size_t control_size, control_len;
};

/* type: SOCK_* with SOCK_NONBLOCK; SOCK_CLOEXEC is the descriptor's. -EAFNOSUPPORT, -EPROTONOSUPPORT, -ESOCKTNOSUPPORT, -EINVAL, -ENOMEM. Return references. */
must_check int socket_create(int family, int type, int protocol, struct file **ret);
must_check int socket_pair(int family, int type, int protocol, struct file *ret[2]);
bool socket_is(struct file *f);
/*
 * socket_relay_create - what is sent to the endpoint goes to host_fd, a connected datagram socket of the host's, for as long as the
 * sandbox lives. Takes host_fd on success; *ret has a reference. -ENOMEM.
 */
must_check int socket_relay_create(int host_fd, struct vfs_endpoint **ret);

/* lookup: a template (cred, ns, root, start) for path names; umask for the node's mode. */
must_check int socket_bind(struct file *f, const struct socket_addr *addr,
			   const struct vfs_lookup *lookup, uint32_t umask);
/* -EAGAIN: the listener's queue is full; wait with socket_connect_wait() and call again. */
must_check int socket_connect(struct file *f, const struct socket_addr *addr,
			      const struct vfs_lookup *lookup);
/*
 * After connect answered -EAGAIN (a listener's queue is full), -EINPROGRESS or -EALREADY: until calling it again may say more.
 * 0, -EINTR; at the deadline -EAGAIN, or -EINPROGRESS where a connection goes on being made.
 */
must_check int socket_connect_wait(struct file *f, int64_t deadline);
must_check int socket_listen(struct file *f, int backlog);
/* Never waits: -EAGAIN. flags: SOCK_NONBLOCK. addr may be NULL. Returns a reference. */
must_check int socket_accept(struct file *f, int flags, struct socket_addr *addr,
			     struct file **ret);
must_check int socket_getname(struct file *f, bool peer, struct socket_addr *ret);
must_check int socket_shutdown(struct file *f, int how);
/*
 * IP_MSFILTER and MCAST_MSFILTER: how many bytes of the value stand before its sources (the last four count them), and a source's size in
 * *ret_each; 0 for every other option. Linux's get writes as many sources as the value asks for, whatever the length says.
 */
unsigned socket_sources_head(int level, int opt, unsigned *ret_each);
/* val is sentry memory of len bytes. get: *inout_len is the room, all of it, then the length. -ENOPROTOOPT, -EINVAL, ... SO_ATTACH_FILTER on AF_UNIX: -ENOPROTOOPT */
must_check int socket_setsockopt(struct file *f, int level, int opt, const void *val, unsigned len);
must_check int socket_getsockopt(struct file *f, int level, int opt, void *val,
				 unsigned *inout_len);
/* flags: MSG_*. Non-blocking. Return bytes, -EAGAIN, -EPIPE (SIGPIPE was raised unless MSG_NOSIGNAL), ... A stream send may be short. */
ssize_t socket_sendmsg(struct file *f, struct socket_msg *m, int flags);
ssize_t socket_recvmsg(struct file *f, struct socket_msg *m, int flags);
bool socket_raw_control(struct file *f);
/* SO_RCVLOWAT: a blocking receive goes on until so many bytes are there. */
unsigned socket_rcvlowat(struct file *f);
/* SO_RCVTIMEO, SO_SNDTIMEO: ns, 0 for none. Blocking calls of the syscall layer honour them. */
int64_t socket_timeout_ns(struct file *f, bool send);

/* What sockets ask of tasks; NULL slots: pid 0. Installed once by the sentry. */
struct socket_hooks {
	int32_t (*current_tgid)(void);
	/* The caller is a task on its way out (PF_EXITING): nothing lingers. */
	bool (*current_exiting)(void);
	/* A pidfd of that process in the caller's descriptor table. Return: its number, -ESRCH, -EMFILE, ... */
	int (*pidfd_install)(int32_t pid, bool nonblock);
	/* A process's number, as current_tgid gave it to a socket, seen from the caller's pid namespace; 0: not there. */
	int32_t (*pid_seen)(int32_t pid);
};
extern struct socket_hooks socket_hooks;

/* mq_notify(2): is it a netlink socket, and a datagram of the kernel's for it. -EINVAL, -ENOBUFS. */
bool netlink_is(struct file *f);
must_check int netlink_deliver(struct file *f, const void *data, size_t size);

/* /proc/net/unix */
void socket_show_unix(struct buf *b);

#endif
