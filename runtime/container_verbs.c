/* runtime/container_verbs.c - verbs about a running container: kill, state, list, delete, debug. */
#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "runtime/cli.h"
#include "runtime/request.h"
#include "runtime/state.h"

#define STATE_JSON_MAX 65536
#define DELETE_WAIT_MS 10000

/* The only operand of a verb that takes an id; other operands go to extra. Returns false after an error message. */
static bool take_id(const char *verb, int argc, char **argv, const char **ret_id,
		    const char **ret_extra)
{
	const char *extra = NULL;

	*ret_id = NULL;
	for (int i = 1; i < argc; i++) {
		if (argv[i][0] == '-') {
			if (cli_global_flag(argc, argv, &i))
				continue;
			cli_unknown_flag(verb, argv[i]);
			return false;
		}
		if (!*ret_id)
			*ret_id = argv[i];
		else if (!extra && ret_extra)
			extra = argv[i];
		else {
			cli_error("%s: unexpected argument '%s'", verb, argv[i]);
			return false;
		}
	}
	if (ret_extra)
		*ret_extra = extra;
	if (!*ret_id)
		cli_error("%s: no container id; usage: moat %s ID", verb, verb);
	return *ret_id != NULL;
}

static int signal_number(const char *name)
{
	char *end;
	long n = strtol(name, &end, 10);

	if (*name && *end == '\0')
		return n > 0 && n <= 64 ? (int)n : -1;
	if (strncasecmp(name, "SIG", 3) == 0)
		name += 3;
	for (int s = 1; s < 32; s++) {
		const char *abbrev = sigabbrev_np(s);

		if (abbrev && strcasecmp(abbrev, name) == 0)
			return s;
	}
	return -1;
}

static int kill_main(int argc, char **argv)
{
	struct control_msg msg = {.op = CONTROL_SIGNAL}, reply;
	const char *id, *name;
	int kept = 1;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--all") == 0 || strcmp(argv[i], "-a") == 0)
			msg.all = true;
		else
			argv[kept++] = argv[i];
	}
	if (!take_id("kill", kept, argv, &id, &name))
		return 1;
	msg.signo = signal_number(name ? name : "TERM");
	if (msg.signo < 0) {
		cli_error("kill: unknown signal '%s'", name);
		return 1;
	}
	if (request_send(id, &msg, &reply))
		return 1;
	control_msg_fini(&reply);
	return 0;
}

/* state.json with the status added. NULL after an error message. */
static json_t *load_state(const char *id)
{
	struct control_msg msg = {.op = CONTROL_STATE}, reply;
	struct state_dir s;
	char *text = NULL;
	size_t size;
	json_t *j = NULL;
	int err;

	if (state_open(cli.root, id, &s))
		return NULL;
	err = io_read_file_at(s.dirfd, "state.json", STATE_JSON_MAX, &text, &size);
	state_close(&s);
	if (!err)
		j = json_loadb(text, size, 0, NULL);
	free(text);
	if (!j) {
		cli_error("%s/%s/state.json: %s", cli.root, id,
			  err ? strerror(-err) : "not JSON; delete the container with --force");
		return NULL;
	}
	if (request_send(id, &msg, &reply) == 0) {
		json_object_set_new(j, "status", json_string(reply.text ? reply.text : "running"));
		control_msg_fini(&reply);
	} else {
		json_object_set_new(j, "status", json_string("stopped"));
	}
	return j;
}

static int state_main(int argc, char **argv)
{
	const char *id;
	json_t *j;

	if (!take_id("state", argc, argv, &id, NULL))
		return 1;
	j = load_state(id);
	if (!j)
		return 1;
	json_dumpf(j, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(j);
	return 0;
}

static int list_main(int argc, char **argv)
{
	struct dirent *e;
	DIR *dir;

	for (int i = 1; i < argc; i++)
		if (!cli_global_flag(argc, argv, &i))
			return cli_unknown_flag("list", argv[i]);
	printf("%-24s %-8s %-10s %s\n", "ID", "PID", "STATUS", "BUNDLE");
	dir = opendir(cli.root);
	while (dir && (e = readdir(dir)) != NULL) {
		json_t *j;
		const char *bundle;

		if (e->d_name[0] == '.' || !cli_id_valid(e->d_name) || !(j = load_state(e->d_name)))
			continue;
		bundle = json_string_value(json_object_get(j, "bundle"));
		printf("%-24s %-8lld %-10s %s\n", e->d_name,
		       (long long)json_integer_value(json_object_get(j, "pid")),
		       json_string_value(json_object_get(j, "status")), bundle ? bundle : "-");
		json_decref(j);
	}
	if (dir)
		closedir(dir);
	return 0;
}

static bool state_dir_exists(const char *id)
{
	char path[4400];

	snprintf(path, sizeof(path), "%.4000s/%s", cli.root, id);
	return access(path, F_OK) == 0;
}

static int delete_main(int argc, char **argv)
{
	struct control_msg msg = {.op = CONTROL_SIGNAL, .signo = SIGKILL}, reply;
	bool force = false;
	const char *id;
	int kept = 1;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--force") == 0 || strcmp(argv[i], "-f") == 0)
			force = true;
		else
			argv[kept++] = argv[i];
	}
	if (!take_id("delete", kept, argv, &id, NULL))
		return 1;
	if (force && (!cli_id_valid(id) || !state_dir_exists(id)))
		return 0;
	if (!force) {
		struct state_dir s;

		if (state_open(cli.root, id, &s))
			return 1;
		state_close(&s);
		cli_error("cannot delete container %s that is not stopped: running; use --force",
			  id);
		return 1;
	}
	if (request_send(id, &msg, &reply) == 0)
		control_msg_fini(&reply);
	for (int ms = 0; ms < DELETE_WAIT_MS && state_dir_exists(id); ms += 10)
		nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
	if (!state_dir_exists(id))
		return 0;
	cli_error("container %s does not end; kill its processes ('moat state %s' has the pid) and "
		  "try again",
		  id, id);
	return 1;
}

static int debug_main(int argc, char **argv)
{
	struct control_msg msg = {.op = CONTROL_DEBUG}, reply;
	const char *id, *what;

	if (!take_id("debug", argc, argv, &id, &what))
		return 1;
	msg.text = (char *)(what ? what : "");
	if (request_send(id, &msg, &reply))
		return 1;
	fputs(reply.text ? reply.text : "", stdout);
	control_msg_fini(&reply);
	return 0;
}

const struct cli_verb verb_kill = {
	"kill", "send a signal to a container's init process",
	"Usage: moat kill [--all] ID [SIGNAL]\n\nSIGNAL is a name or number (default TERM).\n",
	kill_main};
const struct cli_verb verb_state = {"state", "print a container's state as JSON",
				    "Usage: moat state ID\n", state_main};
const struct cli_verb verb_list = {"list", "list containers", "Usage: moat list\n", list_main};
const struct cli_verb verb_delete = {
	"delete", "remove a container",
	"Usage: moat delete [--force] ID\n\n--force kills a running one.\n", delete_main};
const struct cli_verb verb_debug = {
	"debug", "show a sentry's insides",
	"Usage: moat debug ID [WHAT]\n\n"
	"WHAT: objects (live objects by type), tasks, memory, platform, strace-on, strace-off.\n"
	"Default: objects, tasks, memory and platform.\n",
	debug_main};
