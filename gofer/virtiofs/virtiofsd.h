/*
 * gofer/virtiofs/virtiofsd.h - a virtio-fs daemon: one directory tree served over vhost-user to one sandbox or virtual machine.
 *
 * `moat gofer --virtiofs --shared-dir DIR --socket PATH`. The process confines itself to the tree (a mount namespace whose root is the tree), listens, and
 * serves each connection in a process of its own until it is killed, or only one. What these processes share is the version table.
 */
#ifndef MOAT_GOFER_VIRTIOFS_VIRTIOFSD_H
#define MOAT_GOFER_VIRTIOFS_VIRTIOFSD_H

#include "base/compiler.h"
#include "base/log.h"

enum virtiofsd_cache { VIRTIOFSD_AUTO, VIRTIOFSD_NONE, VIRTIOFSD_ALWAYS };

struct virtiofsd_config {
	const char *shared_dir; /* the operator's: symbolic links in it are followed */
	int listen_fd; /* a listening Unix socket, taken; or -1: sock_fd */
	int sock_fd; /* a connected one, taken: served, then the end */
	enum virtiofsd_cache cache;
	unsigned queues; /* request queues; 0: VIRTIOFSD_QUEUES_DEFAULT */
	uint64_t dax_window; /* bytes of the client's window for DAX; 0: none */
	bool writeback; /* clients that can may hold written data back: Linux's do then */
	bool readonly;
	/* what clients may ask for, as the stock daemon's options of these names */
	bool posix_lock, flock; /* locks are the host's: clients and the host see each other's */
	bool posix_acl;
	bool submounts; /* tell of directories where another file system begins */
	bool no_killpriv; /* the client takes setuid and setgid bits away itself */
	bool once; /* ends with its first connection */
	bool no_namespaces; /* debugging and unprivileged users: the tree is not the process's root */
	bool no_seccomp; /* sanitizers */
};
#define VIRTIOFSD_QUEUES_DEFAULT 4
#define VIRTIOFSD_QUEUES_MAX 16
#define VIRTIOFSD_CLIENTS_MAX 64 /* connections at a time, each a process */
#define VIRTIOFSD_DAX_WINDOW (8ul << 30)

/* Return: 0 at the end of the connection (once), -errno when it could not start (one line was logged). */
int virtiofsd_main(const struct virtiofsd_config *config);

#endif
