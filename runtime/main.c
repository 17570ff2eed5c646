/*
 * runtime/main.c - the `moat` command: finds the verb and runs it.
 *
 * One binary, several roles: a verb of the command line, or (re-executed) the sentry or the gofer.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "runtime/cli.h"
#include "runtime/limits.h"

#ifndef MOAT_VERSION
#define MOAT_VERSION "0.1.0"
#endif

/* Exit status, as runc's. */
#define UNKNOWN_VERB 3

static const struct cli_verb *const verbs[] = {
	&verb_run,     &verb_do,	&verb_create, &verb_start, &verb_exec,	&verb_kill,
	&verb_delete,  &verb_state,	&verb_list,   &verb_ps,	   &verb_pause, &verb_resume,
	&verb_wait,    &verb_events,	&verb_update, &verb_debug, &verb_spec,	&verb_features,
	&verb_install, &verb_uninstall, &verb_gofer,
};

static int print_help(void)
{
	printf("moat - runs Linux programs in a sandbox with a kernel of its own\n\n"
	       "Usage: moat [GLOBAL FLAGS] VERB [FLAGS] [ARGUMENTS]\n\nVerbs:\n");
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		printf("  %-9s %s\n", verbs[i]->name, verbs[i]->summary);
	printf("\nGlobal flags:\n"
	       "  --root DIR         state directory (default " MOAT_DEFAULT_ROOT
	       ", or below XDG_RUNTIME_DIR)\n"
	       "  --platform NAME    how programs run: kvm, systrap, or auto (default): the faster "
	       "here\n"
	       "  --strace[=LIST]    system calls as lines in the debug log (LIST: names, comma "
	       "separated)\n"
	       "  --debug-log FILE   where the sentry and the gofer log ('-': standard error)\n"
	       "  --no-path-cache    walk every path (for comparison)\n"
	       "  --no-patch         hot system call sites stay as they are: every call traps\n"
	       "  --host-fifo MODE   fifos in bind mounts: none (default) among the container's "
	       "programs,\n"
	       "                     open also with the host's\n"
	       "  --host-uds MODE    Unix sockets in bind mounts: none (default) among the "
	       "container's programs;\n"
	       "                     open: also connect to the host's; create: the host's programs "
	       "to the\n"
	       "                     container's; all: both\n"
	       "  --overlay LIST     what takes writes instead of the host's files: none (default) "
	       "or\n"
	       "                     PLACE:memory, PLACE:dir=DIR; PLACE: root, all, a bind mount's "
	       "path\n"
	       "  --debug            log at debug level\n"
	       "  --log FILE         errors of the command line also go here\n"
	       "  --log-format FMT   text (default) or json\n"
	       "  --cgroup-manager M cgroupfs (default), systemd, disabled; --systemd-cgroup\n"
	       "  --rootless WHICH   with systemd: true, false (the user's, the system's) or auto\n"
	       "  --criu PATH        accepted, and not used: there are no checkpoints\n"
	       "  --version, --help\n\n"
	       "'moat VERB --help' tells more. Try: moat do -- uname -a\n");
	return 0;
}

static const struct cli_verb *find_verb(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		if (strcmp(verbs[i]->name, name) == 0)
			return verbs[i];
	return NULL;
}

static int help_main(int argc, char **argv)
{
	const struct cli_verb *verb = argc > 1 ? find_verb(argv[1]) : NULL;

	if (argc <= 1)
		return print_help();
	if (verb)
		return cli_verb_help(verb);
	cli_error("no help for '%s'; 'moat --help' lists the verbs", argv[1]);
	return UNKNOWN_VERB;
}

/* Or the first files that we open would be the container's standard ones, and what is printed would go into one of them. */
static bool open_closed_stdio(void)
{
	/* Those below are open, so it gets this number. */
	for (int fd = 0; fd < 3; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
			return false;
	return true;
}

/* What could not be written was not said: state and list are read by programs. Return: the status to exit with. */
static int said(int status)
{
	errno = 0;
	if (fflush(stdout) == 0 && !ferror(stdout))
		return status;
	cli_error("write /dev/stdout: %s", errno ? strerror(errno) : "not all was taken");
	return status ? status : 1;
}

int main(int argc, char **argv)
{
	const struct cli_verb *verb;
	int i;

	/* Nowhere to say so. */
	if (argc < 1 || !open_closed_stdio())
		return 1;
	if (argc > 1 && strcmp(argv[1], "sentry-role") == 0)
		return role_sentry_main(argc - 1, argv + 1);
	if (argc > 1 && strcmp(argv[1], "gofer-role") == 0)
		return role_gofer_main(argc - 1, argv + 1);
	limits_begin();
	cli_title_init(argc, argv);
	cli_default_root();
	for (i = 1; i < argc && argv[i][0] == '-' && strcmp(argv[i], "--") != 0; i++) {
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
			return print_help();
		if (strcmp(argv[i], "--version") == 0 || strcmp(argv[i], "-v") == 0) {
			printf("moat version " MOAT_VERSION "\nspec: 1.2.0\n");
			return 0;
		}
		if (!cli_global_flag(argc, argv, &i)) {
			cli_error("unknown flag '%s' before the verb; 'moat --help' lists the "
				  "global flags",
				  argv[i]);
			return 1;
		}
	}
	if (i < argc && strcmp(argv[i], "--") == 0)
		i++;
	if (i >= argc)
		return print_help();
	if (strcmp(argv[i], "help") == 0 || strcmp(argv[i], "h") == 0)
		return help_main(argc - i, argv + i);
	if (strcmp(argv[i], "checkpoint") == 0 || strcmp(argv[i], "restore") == 0) {
		cli_error("%s: not supported: CRIU saves processes of the host's kernel, and a "
			  "container's are its sandbox's",
			  argv[i]);
		return 1;
	}
	verb = find_verb(argv[i]);
	if (!verb) {
		cli_error("unknown verb '%s'; 'moat --help' lists the verbs", argv[i]);
		return UNKNOWN_VERB;
	}
	for (int k = i + 1; k < argc && strcmp(argv[k], "--") != 0; k++) {
		if ((verb == &verb_do || verb == &verb_exec) && argv[k][0] != '-')
			break; /* the rest is the command's */
		if (strcmp(argv[k], "--help") == 0 || strcmp(argv[k], "-h") == 0)
			return cli_verb_help(verb);
	}
	return said(verb->main(argc - i, argv + i));
}
