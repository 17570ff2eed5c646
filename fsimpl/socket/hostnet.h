/*
 * fsimpl/socket/hostnet.h - the network namespace that the sentry lives in, as far as its files show it.
 *
 * A confined sentry opens nothing. What programs read of a network in /proc (tables, settings) is opened
 * before, and read again whenever somebody asks: the files belong to the namespace of who opened them.
 */
#ifndef MOAT_FSIMPL_SOCKET_HOSTNET_H
#define MOAT_FSIMPL_SOCKET_HOSTNET_H

#include "base/buf.h"
#include "base/compiler.h"

enum hostnet_mode {
	HOSTNET_NONE, /* no sockets but AF_UNIX: unit tests */
	HOSTNET_SHARED, /* somebody else's namespace: --network=host */
	HOSTNET_OWN, /* the container's own: made for it, or handed over by path */
};

#define HOSTNET_SENTRY_UID 65534u /* sentry/boot/confine.h */

/* Files of /proc/self/net and of /proc/sys/net that are kept open; hostnet.c has their names. */
#define HOSTNET_FILE_MAX (256u << 10) /* bytes shown of one */

/*
 * Before confinement, with the rights over the namespace that the sentry was started with. HOSTNET_OWN: which ports are
 * privileged and who may ping becomes the sentry's decision (hostnet_port_privileged, hostnet_may_ping).
 */
void hostnet_prepare(enum hostnet_mode mode);
/*
 * After hostnet_prepare(), before confinement: sets "ipv4/tcp_rmem" for a container that is configured so. -EPERM where the
 * namespace is not the container's own; what open(2) and write(2) say. Those of sysctl_is_sentrys() at any time.
 */
must_check int hostnet_sysctl_configure(const char *name, const char *value);
enum hostnet_mode hostnet_mode(void);

/* Appends the file "tcp" of /proc/self/net. -ENOENT: the host has none. */
must_check int hostnet_read(const char *name, struct buf *b);
/* The settings there are: their own string for a name, or by number; NULL: none. */
const char *hostnet_sysctl_name(const char *name);
const char *hostnet_sysctl_at(unsigned index);
/* "ipv4/tcp_rmem" below /proc/sys/net. -ENOENT. A write needs the right to (the caller checks the guest's): -EPERM, -EINVAL. */
must_check int hostnet_sysctl_read(const char *name, struct buf *b);
must_check int hostnet_sysctl_write(const char *name, const char *data, size_t size);

/* Does a bind to this port (host order) need CAP_NET_BIND_SERVICE? */
bool hostnet_port_privileged(unsigned port);
/* May a task of this group make an ICMP datagram socket? */
bool hostnet_may_ping(uint32_t gid);

#endif
