/* runtime/container.h - an existing container, as the verbs see it. */
#ifndef MOAT_RUNTIME_CONTAINER_H
#define MOAT_RUNTIME_CONTAINER_H

#include "runtime/cgroup.h"
#include "runtime/oci.h"
#include "runtime/state.h"
#include "wire/control.h"

enum container_status {
	CONTAINER_CREATING,
	CONTAINER_CREATED,
	CONTAINER_RUNNING,
	CONTAINER_PAUSED,
	CONTAINER_STOPPED,
};

struct container {
	struct state_dir dir;
	json_t *state; /* state.json */
	struct cgroup cgroup;
	int pid; /* the monitor */
	enum container_status status;
};

const char *container_status_name(enum container_status s);
/* Prints its errors unless quiet. Return 0, -ENOENT, -EINVAL, ... */
must_check int container_load(const char *id, bool quiet, struct container *ret);
void container_unload(struct container *c);
/* Its configuration (a copy of config.json was kept). Prints its errors. */
must_check int container_config(const struct container *c, struct oci_config *ret);
/*
 * A request to the sentry: prints its errors. A frozen sentry gets the message and does not answer: *ret_reply is empty then.
 * Return 0 with *ret_reply (control_msg_fini), or -errno.
 */
must_check int container_request(const struct container *c, const struct control_msg *msg,
				 struct control_msg *ret_reply);
/* The program, after the startContainer hooks (exec_hooks()). Pre: its status is created. Prints its errors. */
must_check int container_start(const struct container *c);
/* Kills everything, runs the poststop hooks and removes what is left. Return 0, -ETIMEDOUT. */
must_check int container_destroy(struct container *c);
/* Waits until the monitor has gone: 0, -ETIMEDOUT. timeout_ms < 0: for ever. */
must_check int container_wait_end(const struct container *c, int timeout_ms);

/* exec.c: hooks that run inside the container before its program (startContainer). Prints its error. */
must_check int exec_hooks(const struct container *c, const struct oci_config *config,
			  const char *stage);
#define EXEC_MARK_MAX 32
/* Of the calling process: it stands for an exec. The file's name goes to ret_name, which has EXEC_MARK_MAX bytes. */
void exec_mark(const struct state_dir *s, char *ret_name);
/* Host pids of the processes that stand for execs. */
void exec_list_pids(const struct container *c, json_t *list);
/* They end with the sandbox; this ends those that were stopped. */
void exec_kill_all(const struct state_dir *s);

/* In sandbox.c: the foreground of `run` and `exec`: signals to `monitor`, the terminal's bytes; until it ends. Takes console. notify: of a `run`, or NULL. */
struct notify;
int sandbox_attend(int monitor, int console, int signal_fd, struct notify *notify);

#endif
