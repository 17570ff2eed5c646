/*
 * fsimpl/gofer/gofer_fs.h - host trees served by a gofer over 9P, as filesystems.
 *
 * A struct p9_conn is one connection, shared by all mounts of a container. It is made before the sentry gives up its
 * rights and lives as long as a filesystem on it. A mount names an attach point of the gofer by its index.
 */
#ifndef MOAT_FSIMPL_GOFER_GOFER_FS_H
#define MOAT_FSIMPL_GOFER_GOFER_FS_H

#include "vfs/vfs.h"

struct p9_conn;

/* The type that mount(2) and /proc/filesystems show: "9p". mount(2) can name servers that p9_add_tag() was told of, nothing else. */
void gofer_fs_register(void);
/*
 * p9_add_tag - a server, and of it the tree that `options` name, which mounts of type 9p in `container` (vfs_hooks.container) may name as their source;
 * once for each mount of the operator's. Options of such a mount: aname=PATH, cache=none
 * (shared, the default) or loose (exclusive); version=9p2000.L, and trans=, access=, uname=, msize=, which say nothing here.
 * mount(2) inside gets those trees only (-EPERM), and read-only what the operator mounts so everywhere.
 * Return: 0 (takes a reference), -EINVAL, -ENOMEM.
 */
must_check int p9_add_tag(const void *container, const char *tag, struct p9_conn *c,
			  const char *options, bool readonly);
/* All of the container's go. */
void p9_drop_tags(const void *container);

/*
 * p9_conn_create - takes a connected stream socket and negotiates the version. Blocks for the answer.
 * Return: 0 and a reference; -EPROTO (the server does not speak 9P2000.L), -EIO, -ENOMEM.
 */
must_check int p9_conn_create(int sock, struct p9_conn **ret);
/* The same of a server that may be no such server at all: it has so long to answer, else -ETIMEDOUT. */
must_check int p9_conn_create_within(int sock, int64_t timeout_ns, struct p9_conn **ret);
/* It gives -EIO from now on; one line is logged, unless why is NULL. Any thread, no lock of the connection's held. Waits for nobody. */
void p9_conn_kill(struct p9_conn *c, const char *why);
void p9_conn_ref(struct p9_conn *c);
void p9_conn_unref(struct p9_conn *c);
bool p9_conn_alive(const struct p9_conn *c);
/* Requests sent so far: benchmarks and tests count round trips. */
uint64_t p9_conn_requests(const struct p9_conn *c);
/* Bytes of replies received so far. */
uint64_t p9_conn_received(const struct p9_conn *c);
/* Each request that waits for its reply: emit(arg, type, tag, age). emit takes no locks. */
void p9_conn_in_flight(struct p9_conn *c,
		       void (*emit)(void *arg, const char *what, uint64_t id, int64_t age_ns),
		       void *arg);

struct gofer_mount_args {
	struct p9_conn *conn; /* borrowed */
	unsigned attach; /* index of the gofer's attach point */
	const char *
		aname; /* NULL, or what a server other than the gofer calls the tree: diod, its path */
	bool shared; /* others may change the tree: revalidate. Default: exclusive, cache everything */
	bool host_fifo; /* fifos are opened on the host, as the gofer was told too */
	bool uds_open, uds_create; /* the same of Unix sockets: connect(2), bind(2) */
	bool readonly; /* the attach point is read-only: the filesystem is too */
	const char *source; /* what mountinfo shows; NULL: "none" */
	unsigned max_dentries; /* 0: GOFER_DENTRIES_MAX */
};

#define GOFER_DENTRIES_MAX 65536 /* cached and unused, per filesystem */
#define GOFER_LOCK_OWNERS_MAX 4096 /* of locks of shared files, per connection: -ENOLCK past it */
#define GOFER_HOST_FDS_MAX 12000 /* donated descriptors held at once, all filesystems together */

/*
 * gofer_fs_create - attaches. *ret_fs has one reference, *ret_root (a directory, or the file of a single-file attach point) one.
 * Return: 0, -ENOENT (no such attach point), -EIO, -ENOMEM.
 */
must_check int gofer_fs_create(const struct gofer_mount_args *args, struct filesystem **ret_fs,
			       struct dentry **ret_root);
/*
 * gofer_fs_set_endpoint - who connects to the socket file `d`, which somebody on the host bound, gets `endpoint` (a reference is taken).
 * Return: 0; -EOPNOTSUPP (not of a gofer's filesystem), -ENOTSOCK.
 */
must_check int gofer_fs_set_endpoint(struct dentry *d, struct vfs_endpoint *endpoint);
/* Drops every cached dentry, inode and descriptor that nothing uses. For tests and memory pressure. */
void gofer_fs_shrink(struct filesystem *fs);

#endif
