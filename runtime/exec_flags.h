/* runtime/exec_flags.h - what moat exec was asked for. */
#ifndef MOAT_RUNTIME_EXEC_FLAGS_H
#define MOAT_RUNTIME_EXEC_FLAGS_H

#include <jansson.h>

#include "base/compiler.h"

/* Strings are borrowed from argv, the arrays owned. */
struct exec_options {
	const char *id, *process_file, *console_socket, *pid_file, *cwd, *user;
	const char *apparmor, *process_label, *cgroup;
	json_t *env, *caps, *gids; /* arrays */
	bool detach, tty, ignore_paused, no_new_privs;
	long long timeout_s; /* it is killed after that; 0: it is not */
	bool ends_with_us; /* not even a SIGKILL of the command line leaves it */
	unsigned preserve_fds;
	int argc;
	char **argv;
	int stdin_fd; /* -1: the caller's */
};

/* Takes the flag at argv[*i], with its value. Return: 1 taken, 0 unknown, -1 bad (it has been said). */
must_check int exec_flag(struct exec_options *o, int argc, char **argv, int *i);
/* Whether they can be had together, and here; prints why not. */
must_check bool exec_check_flags(const struct exec_options *o);

#endif
