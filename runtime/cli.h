/* runtime/cli.h - the command line's shared parts: global flags, errors, verbs. */
#ifndef MOAT_RUNTIME_CLI_H
#define MOAT_RUNTIME_CLI_H

#include <stdio.h>

#include "base/compiler.h"

#define MOAT_DEFAULT_ROOT "/run/moat"

/* Flags before the verb (and, as runc does, after it where a verb has none of that name). */
struct cli_globals {
	const char *root; /* state directory */
	bool root_public; /* it is the one below /tmp, where others may have been first */
	const char *platform; /* "kvm" */
	const char *debug_log; /* file; NULL: none */
	const char *log; /* errors also go here; NULL: none */
	bool no_path_cache;
	bool no_patch;
	bool host_fifo;
	const char *host_uds; /* NULL: the container's annotation, or none */
	const char *overlay; /* runtime/overlay.h; NULL: the container's annotation, or none */
	bool log_json;
	const char *strace; /* NULL: off; "": every call */
	bool debug;
	bool systemd_cgroup;
	/* "true", "false": the user's systemd or the system's; otherwise the caller's rights say. */
	const char *rootless;
	bool no_cgroup; /* --cgroup-manager disabled */
};

extern struct cli_globals cli;

struct cli_verb {
	const char *name;
	const char *summary;
	const char *help;
	/* argv[0] is the verb. Returns the exit status. */
	int (*main)(int argc, char **argv);
};

/* Prints "moat: message" (and to --log); the message names the thing and the way out. */
void cli_error(const char *fmt, ...) printf_like(1, 2);
void cli_warn(const char *fmt, ...) printf_like(1, 2);
void cli_debug(const char *fmt, ...) printf_like(1, 2); /* with --debug, to --log only */
/*
 * The state directory without --root: /run/moat, and as with runc XDG_RUNTIME_DIR's for whoever is not the host's root;
 * without that variable one of the user's own below /tmp.
 */
void cli_default_root(void);
/* Consumes global flags at argv[*i]; true if it was one. Exits with 1 on a bad value. */
bool cli_global_flag(int argc, char **argv, int *i);
/*
 * Is argv[*i] the flag --name (or -short_name, if not 0), which has a value? Takes "--name V" or "--name=V"; a missing value is an error (exit 1).
 */
bool cli_flag(int argc, char **argv, int *i, const char *name, char short_name,
	      const char **ret_value);
/* The same for a flag that is set or not: "--name", or "--name=false"; anything else is an error (exit 1). */
bool cli_bool_flag(char **argv, const int *i, const char *name, char short_name, bool *ret);
/* "unknown flag" for this verb, by name. Returns 1. */
int cli_unknown_flag(const char *verb, const char *flag);
int cli_verb_help(const struct cli_verb *verb);
must_check bool cli_id_valid(const char *id);

extern const struct cli_verb verb_create, verb_debug, verb_delete, verb_do, verb_events, verb_exec,
	verb_install, verb_uninstall, verb_features, verb_gofer, verb_kill, verb_list, verb_pause,
	verb_ps, verb_resume, verb_run, verb_spec, verb_start, verb_state, verb_update, verb_wait;

/* What ps(1) shows of this process becomes the words of argv, as far as there is room. cli_title_init: first in main(). */
void cli_title_init(int argc, char **argv);
void cli_title_set(char *const *argv);

/* Internal roles of the re-executed binary. */
int role_sentry_main(int argc, char **argv);
/* The first name of --strace's list (borrowed, up to a comma) that is no system call's; NULL if all are known. */
const char *role_sentry_unknown_call(const char *list);
int role_gofer_main(int argc, char **argv);

#endif
