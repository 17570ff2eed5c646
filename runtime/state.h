/*
 * runtime/state.h - the state directory: ROOT/ID/, mode 0700, one per container.
 *
 *	lock          flock'd (exclusive) by the CLI and its monitor for the container's life; unlocked: the container is
 *	              dead and whoever finds it removes the directory
 *	state.json    what `moat state` prints, but for the status
 *	control.sock  the sentry's listening socket
 */
#ifndef MOAT_RUNTIME_STATE_H
#define MOAT_RUNTIME_STATE_H

#include "base/buf.h"
#include "base/compiler.h"

struct state_dir {
	char *id;
	int dirfd; /* ROOT/ID */
	int rootfd; /* ROOT */
	int lockfd;
};

/* Creates ROOT/ID and locks it. Prints its own error. Return 0, -EEXIST, -errno. */
must_check int state_create(const char *root, const char *id, struct state_dir *ret);
/* Opens a live container's directory; prints an error (as runc: "container does not exist"). */
must_check int state_open(const char *root, const char *id, struct state_dir *ret);
void state_close(struct state_dir *s);
/* Removes the directory and what is in it. */
void state_remove(struct state_dir *s);
must_check int state_write_json(struct state_dir *s, const char *bundle, int pid,
				const char *rootfs);
/* A listening SOCK_SEQPACKET socket at control.sock. Return the descriptor or -errno. */
must_check int state_listen(struct state_dir *s);
must_check int state_connect(struct state_dir *s);

#endif
