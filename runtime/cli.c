/* runtime/cli.c - global flags and error output. */
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/log.h"
#include "runtime/cli.h"
#include "runtime/host_uds.h"
#include "runtime/userns.h"

struct cli_globals cli = {.root = MOAT_DEFAULT_ROOT, .platform = "auto"};

/* msg as a JSON string; whatever is no UTF-8 becomes '?'. malloc'd. */
static char *json_quote(const char *msg)
{
	json_t *j = json_string(msg);
	char *copy, *text;

	if (!j) {
		copy = strdup(msg);
		for (char *p = copy; p && *p; p++)
			if ((unsigned char)*p >= 0x80)
				*p = '?';
		j = copy ? json_string(copy) : NULL;
		free(copy);
	}
	text = j ? json_dumps(j, JSON_ENCODE_ANY) : NULL;
	json_decref(j);
	return text;
}

/* One line in the log file, in the format that engines parse. */
static void log_file_write(const char *level, const char *msg)
{
	char when[64], *quoted = cli.log ? json_quote(msg) : NULL, *line = NULL;
	time_t now = time(NULL);
	struct tm tm;
	int fd, n;

	if (!quoted)
		return;
	fd = open(cli.log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
	if (cli.log_json)
		n = asprintf(&line, "{\"level\":\"%s\",\"msg\":%s,\"time\":\"%s\"}\n", level,
			     quoted, when);
	else
		n = asprintf(&line, "time=\"%s\" level=%s msg=%s\n", when, level, quoted);
	if (n > 0 && fd >= 0 && write(fd, line, (size_t)n) < 0)
		fprintf(stderr, "moat: %s: %m\n", cli.log);
	if (n > 0)
		free(line);
	free(quoted);
	if (fd >= 0)
		close(fd);
}

static void print_message(const char *level, const char *prefix, const char *fmt, va_list ap)
{
	char msg[3072];

	vsnprintf(msg, sizeof(msg), fmt, ap);
	fprintf(stderr, "moat: %s%s\n", prefix, msg);
	log_file_write(level, msg);
}

void cli_error(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	print_message("error", "", fmt, ap);
	va_end(ap);
}

void cli_warn(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	print_message("warning", "warning: ", fmt, ap);
	va_end(ap);
}

void cli_debug(const char *fmt, ...)
{
	char msg[3072];
	va_list ap;

	if (!cli.debug)
		return;
	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	log_file_write("debug", msg);
}

/* Is arg "-NAME" or "--NAME", alone or with "=VALUE"? As Go's flags, which count no dashes. */
static bool names_flag(const char *arg, const char *name, size_t len, const char **ret_value)
{
	if (arg[0] != '-')
		return false;
	arg += 1 + (arg[1] == '-');
	if (strncmp(arg, name, len) != 0 || (arg[len] && arg[len] != '='))
		return false;
	*ret_value = arg[len] ? arg + len + 1 : NULL;
	return true;
}

bool cli_bool_flag(char **argv, const int *i, const char *name, char short_name, bool *ret)
{
	/* strconv.ParseBool's, false ones first. */
	static const char *const words[] = {"0", "f", "F", "false", "False", "FALSE",
					    "1", "t", "T", "true",  "True",  "TRUE"};
	const char *value;

	if (!(short_name && names_flag(argv[*i], &short_name, 1, &value)) &&
	    !names_flag(argv[*i], name, strlen(name), &value))
		return false;
	*ret = true;
	if (!value)
		return true;
	for (size_t w = 0; w < ARRAY_SIZE(words); w++) {
		if (strcmp(value, words[w]) == 0) {
			*ret = w >= ARRAY_SIZE(words) / 2;
			return true;
		}
	}
	cli_error("invalid boolean value \"%s\" for --%s", value, name);
	exit(1);
}

bool cli_flag(int argc, char **argv, int *i, const char *name, char short_name,
	      const char **ret_value)
{
	const char *value;

	if (!(short_name && names_flag(argv[*i], &short_name, 1, &value)) &&
	    !names_flag(argv[*i], name, strlen(name), &value))
		return false;
	if (!value) {
		if (*i + 1 >= argc) {
			cli_error("--%s needs a value; see 'moat --help'", name);
			exit(1);
		}
		value = argv[++*i];
	}
	*ret_value = value;
	return true;
}

/* Before anything is done whose errors would be lost. */
static void check_log(void)
{
	int fd = open(cli.log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);

	if (fd < 0) {
		fprintf(stderr, "moat: --log %s: %m\n", cli.log);
		exit(1);
	}
	close(fd);
}

/* The sentry has only the debug log to complain in. */
static void check_strace(void)
{
	const char *bad = role_sentry_unknown_call(cli.strace);

	if (!bad)
		return;
	cli_error("--strace: no system call is called '%.*s'; names are as in docs/syscalls.md, "
		  "without sys_",
		  (int)strcspn(bad, ","), bad);
	exit(1);
}

/* Those whose value is one of a few words. */
static bool choice_flag(int argc, char **argv, int *i)
{
	const char *value;

	if (cli_flag(argc, argv, i, "cgroup-manager", 0, &value)) {
		cli.systemd_cgroup = strcmp(value, "systemd") == 0;
		cli.no_cgroup = strcmp(value, "disabled") == 0;
		if (!cli.systemd_cgroup && !cli.no_cgroup && strcmp(value, "cgroupfs") != 0) {
			cli_error("--cgroup-manager: '%s' is none of cgroupfs, systemd, disabled",
				  value);
			exit(1);
		}
		return true;
	}
	if (cli_flag(argc, argv, i, "log-format", 0, &value)) {
		if (strcmp(value, "json") != 0 && strcmp(value, "text") != 0) {
			cli_error("invalid log-format: %s; it is text or json", value);
			exit(1);
		}
		cli.log_json = strcmp(value, "json") == 0;
		return true;
	}
	/* runsc's names. */
	if (cli_flag(argc, argv, i, "host-fifo", 0, &value)) {
		cli.host_fifo = strcmp(value, "open") == 0;
		if (!cli.host_fifo && strcmp(value, "none") != 0) {
			cli_error("--host-fifo: '%s' is none of none, open", value);
			exit(1);
		}
		return true;
	}
	if (cli_flag(argc, argv, i, "host-uds", 0, &cli.host_uds)) {
		unsigned uds;

		if (host_uds_parse(cli.host_uds, &uds)) {
			cli_error("--host-uds: '%s' is none of none, open, create, all",
				  cli.host_uds);
			exit(1);
		}
		return true;
	}
	return false;
}

bool cli_global_flag(int argc, char **argv, int *i)
{
	const char *value;

	if (cli_flag(argc, argv, i, "root", 0, &cli.root)) {
		cli.root_public = false;
		return true;
	}
	if (cli_flag(argc, argv, i, "platform", 0, &cli.platform) ||
	    cli_flag(argc, argv, i, "debug-log", 0, &cli.debug_log))
		return true;
	if (cli_flag(argc, argv, i, "log", 0, &cli.log)) {
		if (!*cli.log)
			cli.log = NULL;
		else
			check_log();
		return true;
	}
	if (cli_bool_flag(argv, i, "debug", 0, &cli.debug) ||
	    cli_bool_flag(argv, i, "systemd-cgroup", 0, &cli.systemd_cgroup))
		return true;
	if (choice_flag(argc, argv, i))
		return true;
	if (cli_flag(argc, argv, i, "rootless", 0, &cli.rootless))
		return true;
	/* runc's: there are no checkpoints with CRIU. */
	if (cli_flag(argc, argv, i, "criu", 0, &value))
		return true;
	if (cli_flag(argc, argv, i, "overlay", 0, &cli.overlay))
		return true;
	if (strncmp(argv[*i], "--strace=", 9) == 0) {
		cli.strace = argv[*i] + 9;
		check_strace();
		return true;
	}
	if (cli_bool_flag(argv, i, "no-path-cache", 0, &cli.no_path_cache) ||
	    cli_bool_flag(argv, i, "no-patch", 0, &cli.no_patch))
		return true;
	if (strcmp(argv[*i], "--strace") == 0) {
		cli.strace = "";
		return true;
	}
	return false;
}

int cli_unknown_flag(const char *verb, const char *flag)
{
	cli_error("%s: unknown flag '%s'; 'moat %s --help' lists the flags", verb, flag, verb);
	return 1;
}

int cli_verb_help(const struct cli_verb *verb)
{
	printf("moat %s - %s\n\n%s", verb->name, verb->summary, verb->help);
	return 0;
}

bool cli_id_valid(const char *id)
{
	size_t len = strlen(id);

	if (len == 0 || len > 255 || strcmp(id, ".") == 0 || strcmp(id, "..") == 0)
		return false;
	return strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.") ==
	       len;
}

void cli_default_root(void)
{
	const char *runtime_dir = getenv("XDG_RUNTIME_DIR");
	static char path[PATH_MAX];

	if (geteuid() == 0 && userns_is_initial())
		return;
	if (runtime_dir && runtime_dir[0] == '/') {
		snprintf(path, sizeof(path), "%s/moat", runtime_dir);
	} else if (geteuid() != 0) {
		snprintf(path, sizeof(path), "/tmp/moat-%u", geteuid());
		cli.root_public = true;
	} else {
		return;
	}
	cli.root = path;
}

static char *title;
static size_t title_room;

void cli_title_init(int argc, char **argv)
{
	title = argv[0];
	title_room = (size_t)(argv[argc - 1] + strlen(argv[argc - 1]) - title);
}

void cli_title_set(char *const *argv)
{
	const char *base = strrchr(argv[0], '/');
	size_t at = 0;

	prctl(PR_SET_NAME, base ? base + 1 : argv[0]);
	for (; *argv && at < title_room; argv++) {
		size_t n = MIN(strlen(*argv), title_room - at);

		memcpy(title + at, *argv, n);
		at += n;
		if (at < title_room)
			title[at++] = '\0';
	}
	memset(title + at, 0, title_room - at);
}
