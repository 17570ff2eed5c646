/*
 * fsimpl/socket/family.h - what a family of sockets implements; family.c calls it for the functions of socket.h and
 * for the file.
 *
 * Every slot is set unless its comment says what NULL means. None waits.
 */
#ifndef MOAT_FSIMPL_SOCKET_FAMILY_H
#define MOAT_FSIMPL_SOCKET_FAMILY_H

#include "fsimpl/anon/anon.h"
#include "fsimpl/socket/socket.h"

struct socket_family {
	int family; /* AF_* */
	bool raw_control; /* control messages are handed over as they are, see struct socket_msg */
	int (*bind)(struct file *f, const struct socket_addr *addr, const struct vfs_lookup *lookup,
		    uint32_t umask);
	int (*connect)(struct file *f, const struct socket_addr *addr,
		       const struct vfs_lookup *lookup);
	int (*connect_wait)(struct file *f, int64_t deadline);
	int (*listen)(struct file *f, int backlog);
	int (*accept)(struct file *f, int flags, struct socket_addr *addr, struct file **ret);
	int (*getname)(struct file *f, bool peer, struct socket_addr *ret);
	int (*shutdown)(struct file *f, int how);
	int (*setsockopt)(struct file *f, int level, int opt, const void *val, unsigned len);
	int (*getsockopt)(struct file *f, int level, int opt, void *val, unsigned *inout_len);
	ssize_t (*sendmsg)(struct file *f, struct socket_msg *m, int flags);
	ssize_t (*recvmsg)(struct file *f, struct socket_msg *m, int flags);
	int64_t (*timeout_ns)(struct file *f, bool send);
	unsigned (*rcvlowat)(struct file *f); /* NULL: 1 */
	uint32_t (*poll)(struct file *f);
	void (*poll_add)(struct file *f, struct waiter *w);
	int64_t (*ioctl)(struct file *f, unsigned cmd, uint64_t arg);
	int (*set_flags)(struct file *f, unsigned new_flags); /* NULL: 0 */
	void (*release)(struct file *f);
};

/* The base of every socket's file. */
struct socket_file {
	struct file f;
	const struct socket_family *fam; /* immutable */
};

extern const struct file_ops socket_ops;

static inline const struct socket_family *socket_family_of(struct file *f)
{
	return ((struct socket_file *)f)->fam;
}

/* file_init() for sf, embedded first in the family's own. ino 0: a fresh one. -ENOMEM. */
must_check int socket_file_init(struct socket_file *sf, const struct socket_family *fam,
				uint64_t ino, unsigned flags);

/* ---- the families' makers: type without flags; flags: O_NONBLOCK or 0. Return references. ---- */
must_check int unix_socket_create(int type, int protocol, unsigned flags, struct file **ret);
must_check int unix_socket_pair(int type, int protocol, unsigned flags, struct file *ret[2]);
must_check int inet_socket_create(int family, int type, int protocol, unsigned flags,
				  struct file **ret);
must_check int netlink_socket_create(int type, int protocol, unsigned flags, struct file **ret);
bool unix_is(struct file *f);

/* SO_RCVTIMEO and SO_SNDTIMEO as struct timeval: shared by the families. */
must_check int socket_timeout_set(const void *val, unsigned len, int64_t *ret_ns);
int socket_timeout_get(void *dst, unsigned *inout_len, int64_t ns);

/* ---- netdev.c ---- */
/* ioctls that ask for interfaces on any socket (netdevice(7)). -ENOTTY: not one of them. */
int64_t netdev_ioctl(unsigned cmd, uint64_t arg);
struct ifreq;
/* The sentry's own question. -ENODEV, ... */
must_check int netdev_query(unsigned cmd, struct ifreq *inout);

#endif
