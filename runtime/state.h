/*
 * runtime/state.h - the state directory: ROOT/ID/, mode 0700, one per container.
 *
 *	lock          flock'd (exclusive) by the command line that creates and by the monitor for the container's life;
 *	              its content is the exit status, -1 until the monitor writes it at the end
 *	cgroup.json   the cgroup's directories, written before they are made; systemd's scope, once it has started
 *	config.json   a copy of the bundle's
 *	state.json    what `moat state` prints, and what the other verbs need
 *	control.sock  the sentry's listening socket
 *	exec-PID      one for each exec: the process that stands for it (runtime/exec_marks.c)
 *
 * The lock tells who lives: held, the container does. Free, it has stopped; and if state.json is missing (or says "creating") it never came
 * to be, and whoever finds it removes what is left.
 */
#ifndef MOAT_RUNTIME_STATE_H
#define MOAT_RUNTIME_STATE_H

#include <jansson.h>

#include "base/buf.h"
#include "base/compiler.h"

struct cgroup;
struct sandbox;

struct state_dir {
	char *id;
	int dirfd; /* ROOT/ID */
	int rootfd; /* ROOT */
	int lockfd;
};

/* Creates ROOT/ID and locks it. Prints its own error. Return 0, -EEXIST, -errno. */
must_check int state_create(const char *root, const char *id, struct state_dir *ret);
/* Opens a container's directory; prints an error unless quiet (as runc: "container does not exist"). */
must_check int state_open(const char *root, const char *id, bool quiet, struct state_dir *ret);
void state_close(struct state_dir *s);
/* Is somebody creating it, or the monitor alive? */
bool state_is_live(const struct state_dir *s);
/* What `delete` runs the poststop hooks of. Return 0, -ENOENT, -errno. */
must_check int state_remove_config(const struct state_dir *s);
/* Removes the directory and what is in it. Return 0, or -errno if something stays. */
int state_remove(struct state_dir *s);
/* state.json, from the sandbox. status: "creating" or "created". Prints its error. */
must_check int state_write_json(struct state_dir *s, const struct sandbox *sb, const char *status);
must_check int state_write_cgroup(struct state_dir *s, const struct cgroup *cg);
void state_write_exit(struct state_dir *s, int exit_code);
/* The exit status that the monitor left; -1 if none. */
int state_read_exit(const struct state_dir *s);
/* A file of the directory as JSON; NULL. */
json_t *state_load(const struct state_dir *s, const char *file);
/* The OCI state document for hooks, malloc'd; NULL. */
char *state_document(const struct state_dir *s, int pid, const char *status);
/* The time now as RFC 3339 with nanoseconds. */
void state_time(char *out, size_t size);
/* A listening SOCK_SEQPACKET socket at control.sock. Return the descriptor or -errno. */
must_check int state_listen(struct state_dir *s);
must_check int state_connect(struct state_dir *s);

#endif
