/*
 * gofer/gofer.h - the file server process of a container.
 *
 * The moat binary re-executes itself into this role; gofer_main() then confines the process and serves
 * 9P2000.L (with Moat's extension, docs/9p.md) on one connected socket until that closes. The caller
 * should run it with CLONE_NEWPID where it can, and exits with what it returns.
 */
#ifndef MOAT_GOFER_GOFER_H
#define MOAT_GOFER_GOFER_H

#include "base/compiler.h"
#include "base/log.h"

#define GOFER_ATTACHES_MAX 512
#define GOFER_THREADS_MAX 16
#define GOFER_THREADS_DEFAULT 4

/* One tree (or single file) that is served. A client attaches to it with aname = its index in decimal. */
struct gofer_attach {
	const char *
		host_path; /* absolute; symbolic links in it are followed: it is the operator's. An overlay's: its mount data */
	bool overlay; /* the tree is an overlay that the gofer mounts for itself */
	bool readonly;
	bool is_file; /* a single file of any type but a directory; else host_path is a directory */
	bool fifos; /* fifos may be opened */
	bool uds_open, uds_create; /* Unix sockets may be connected to; may be bound */
	bool recursive; /* mounts below come along (rbind), but for proc, sysfs and their like */
};

enum {
	GOFER_NO_NAMESPACES = 1 << 0, /* debugging: no mount namespace, no private root */
	GOFER_NO_SECCOMP = 1 << 1, /* debugging, sanitizers */
	GOFER_NO_PDEATHSIG = 1 << 2, /* the parent is not the sandbox's monitor */
};

struct gofer_config {
	int sock_fd; /* connected Unix SOCK_STREAM; taken */
	const struct gofer_attach *attaches;
	size_t attach_count;
	unsigned threads; /* 0: GOFER_THREADS_DEFAULT */
	int log_fd; /* -1: none; borrowed */
	enum log_level log_level;
	unsigned flags; /* GOFER_NO_* */
};

/*
 * gofer_main - confines the process and serves. Every descriptor but the configuration's and 0-2 is closed.
 * Call with a single thread.
 * Return: 0 when the client closed the connection; -errno when it could not start or the client
 * broke the protocol (one line was logged).
 */
int gofer_main(const struct gofer_config *config);

#endif
