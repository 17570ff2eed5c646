/* runtime/container_verbs.c - verbs about a container that is there: start, kill, state, list, delete, pause, resume, wait, ps, debug. */
#include <dirent.h>
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "runtime/cli.h"
#include "runtime/container.h"
#include "runtime/hooks.h"
#include "runtime/pod.h"

#define CREATING_WAIT_MS 5000
#define PAUSE_TRIES 2000
#define PAUSE_STEP_MS 5 /* ten seconds in all, as for a cgroup */

/* The operands of a verb: an id, and what may follow. Returns false after an error message. */
static bool take_id(const char *verb, int argc, char **argv, const char **ret_id,
		    const char **ret_extra)
{
	const char *extra = NULL;

	*ret_id = NULL;
	for (int i = 1; i < argc; i++) {
		/* Behind the id it may be a signal below 0. */
		if (argv[i][0] == '-' && argv[i][1] &&
		    !(*ret_id && ret_extra &&
		      argv[i][1 + strspn(argv[i] + 1, "0123456789")] == '\0')) {
			if (strcmp(argv[i], "--") == 0 || cli_global_flag(argc, argv, &i))
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

/* Takes boolean flag --name (-s) out of the arguments. */
static bool take_flag(int *argc, char **argv, const char *name, char short_name)
{
	bool found = false;
	int kept = 1;

	for (int i = 1; i < *argc; i++) {
		if (!cli_bool_flag(argv, &i, name, short_name, &found))
			argv[kept++] = argv[i];
	}
	*argc = kept;
	return found;
}

/* ---- start ---- */

static void stop_unstarted(const struct container *c)
{
	struct control_msg msg = {.op = CONTROL_SIGNAL, .signo = SIGKILL}, reply;

	if (container_request(c, &msg, &reply) == 0)
		control_msg_fini(&reply);
	(void)!container_wait_end(c, CREATING_WAIT_MS);
}

static int start_main(int argc, char **argv)
{
	struct oci_config config;
	struct container c;
	const char *id;
	int err;

	if (!take_id("start", argc, argv, &id, NULL) || container_load(id, false, &c))
		return 1;
	switch (c.status) {
	case CONTAINER_CREATED:
		break;
	case CONTAINER_STOPPED:
		cli_error("cannot start a container that has stopped");
		goto fail;
	case CONTAINER_RUNNING:
		cli_error("cannot start an already running container");
		goto fail;
	default:
		cli_error("cannot start a container in the %s state",
			  container_status_name(c.status));
		goto fail;
	}
	if (container_config(&c, &config))
		goto fail;
	err = exec_hooks(&c, &config, "startContainer");
	/* As the specification has it: who does not begin ends. */
	if (err)
		stop_unstarted(&c);
	else
		err = container_start(&c);
	if (!err)
		hooks_run_lenient(&config, "poststart", &c.dir, c.pid, "running");
	oci_config_fini(&config);
	container_unload(&c);
	return err ? 1 : 0;
fail:
	container_unload(&c);
	return 1;
}

/* ---- kill ---- */

/* As runc reads it: of 1 to 31 also names, in any case, with SIG or without; real-time ones are numbers. -ENOENT: no such name; -EINVAL: no such number. */
static int signal_number(const char *name)
{
	const char *digits = name + (*name == '+' || *name == '-');
	long n;

	if (*digits && digits[strspn(digits, "0123456789")] == '\0') {
		errno = 0;
		n = strtol(name, NULL, 10);
		return errno ? -ENOENT : n >= 0 && n <= 64 ? (int)n : -EINVAL;
	}
	if (strncasecmp(name, "SIG", 3) == 0)
		name += 3;
	for (int s = 1; s < 32; s++) {
		/* Not POLL: of two names runc knows this one. */
		const char *abbrev = s == SIGIO ? "IO" : sigabbrev_np(s);

		if (abbrev && strcasecmp(abbrev, name) == 0)
			return s;
	}
	return -ENOENT;
}

static int kill_main(int argc, char **argv)
{
	struct control_msg msg = {.op = CONTROL_SIGNAL}, reply;
	struct container c;
	const char *id, *name;
	int err = 0;

	msg.all = take_flag(&argc, argv, "all", 'a');
	if (!take_id("kill", argc, argv, &id, &name) || container_load(id, false, &c))
		return 1;
	msg.signo = signal_number(name && *name ? name : "TERM");
	if (msg.signo == -ENOENT) {
		cli_error("unknown signal \"%s\"", name);
		err = -EINVAL;
	} else if (c.status == CONTAINER_STOPPED) {
		/* That of a pod may have ended with the sandbox, just now. */
		if (!msg.all && !(msg.signo == SIGKILL && json_object_get(c.state, "sandbox"))) {
			cli_error("container not running");
			err = -ESRCH;
		}
	} else if (msg.signo < 0) {
		cli_error("unable to signal init: invalid argument: %s", name);
		err = -EINVAL;
	} else if (msg.signo) { /* 0: is it there? */
		err = container_request(&c, &msg, &reply);
		if (!err)
			control_msg_fini(&reply);
		/* A frozen process dies when it is thawed. */
		if (!err && msg.signo == SIGKILL && c.status == CONTAINER_PAUSED &&
		    cgroup_freeze(&c.cgroup, false))
			cli_warn("cannot thaw container %s", id);
	}
	container_unload(&c);
	return err ? 1 : 0;
}

/* ---- state, list ---- */

static json_t *state_object(const struct container *c, bool with_owner)
{
	static const char *const keep[] = {"ociVersion", "id",	   "pid",     "status",
					   "bundle",	 "rootfs", "created", "annotations"};
	json_t *j = json_object();
	struct stat st;

	for (size_t i = 0; i < ARRAY_SIZE(keep); i++)
		if (json_object_get(c->state, keep[i]))
			json_object_set(j, keep[i], json_object_get(c->state, keep[i]));
	json_object_set_new(j, "status", json_string(container_status_name(c->status)));
	if (c->status == CONTAINER_STOPPED)
		json_object_set_new(j, "pid", json_integer(0));
	if (with_owner) {
		struct passwd *pw = fstat(c->dir.dirfd, &st) == 0 ? getpwuid(st.st_uid) : NULL;

		json_object_set_new(j, "owner", json_string(pw ? pw->pw_name : ""));
	} else {
		json_object_set_new(j, "owner", json_string(""));
	}
	return j;
}

static int state_main(int argc, char **argv)
{
	struct container c;
	const char *id;
	json_t *j;

	if (!take_id("state", argc, argv, &id, NULL) || container_load(id, false, &c))
		return 1;
	j = state_object(&c, false);
	json_dumpf(j, stdout, JSON_INDENT(2));
	json_decref(j);
	container_unload(&c);
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/*
 * The ids in the state directory, sorted; NULL-terminated. None where there is no such directory yet; NULL if it cannot be read, which
 * is printed.
 */
static char **all_ids(void)
{
	DIR *dir = opendir(cli.root);
	size_t n = 0, room = 16;
	struct dirent *e;
	char **ids;

	if (!dir && errno != ENOENT) {
		cli_error("--root %s: %s", cli.root, strerror(errno));
		return NULL;
	}
	ids = calloc(room + 1, sizeof(*ids));
	if (!ids)
		cli_error("list: %s", strerror(ENOMEM));
	while (dir && ids && (e = readdir(dir)) != NULL) {
		if (e->d_name[0] == '.' || !cli_id_valid(e->d_name))
			continue;
		if (n == room) {
			char **grown = realloc(ids, (room * 2 + 1) * sizeof(*ids));

			if (!grown)
				break;
			ids = grown;
			room *= 2;
		}
		ids[n++] = strdup(e->d_name);
		ids[n] = NULL;
	}
	if (dir)
		closedir(dir);
	if (ids)
		qsort(ids, n, sizeof(*ids), by_name);
	return ids;
}

static const char *text_of(const json_t *j, const char *key)
{
	const char *s = json_string_value(json_object_get(j, key));

	return s ? s : "";
}

static void print_table(json_t *list)
{
	static const char *const heads[] = {"ID", "PID", "STATUS", "BUNDLE", "CREATED"};
	static const char *const keys[] = {"id", "", "status", "bundle", "created"};
	size_t width[5], i;
	json_t *j;

	/* Columns as Go's tabwriter makes them: at least 12 wide, three blanks between. */
	for (int k = 0; k < 5; k++) {
		width[k] = MAX((size_t)9, strlen(heads[k]));
		json_array_foreach(list, i, j) width[k] =
			MAX(width[k], strlen(text_of(j, keys[k])));
	}
	for (int k = 0; k < 5; k++)
		printf("%-*s", (int)width[k] + 3, heads[k]);
	printf("OWNER\n");
	json_array_foreach(list, i, j)
	{
		for (int k = 0; k < 5; k++) {
			if (k == 1)
				printf("%-*lld", (int)width[k] + 3,
				       (long long)json_integer_value(json_object_get(j, "pid")));
			else
				printf("%-*s", (int)width[k] + 3, text_of(j, keys[k]));
		}
		printf("%s\n", text_of(j, "owner"));
	}
}

static int list_main(int argc, char **argv)
{
	const char *format = "table";
	bool quiet = false;
	json_t *list;
	char **ids;

	for (int i = 1; i < argc; i++) {
		if (cli_flag(argc, argv, &i, "format", 'f', &format) ||
		    cli_global_flag(argc, argv, &i))
			continue;
		if (!cli_bool_flag(argv, &i, "quiet", 'q', &quiet))
			return cli_unknown_flag("list", argv[i]);
	}
	if (!quiet && strcmp(format, "table") != 0 && strcmp(format, "json") != 0) {
		cli_error("invalid format option; --format is table or json, not '%s'", format);
		return 1;
	}
	ids = all_ids();
	if (!ids)
		return 1;
	list = json_array();
	for (char **id = ids; *id; id++) {
		struct container c;

		if (container_load(*id, true, &c) == 0) {
			json_array_append_new(list, state_object(&c, true));
			container_unload(&c);
		}
		free(*id);
	}
	free(ids);
	if (quiet) {
		size_t i;
		json_t *j;

		json_array_foreach(list, i, j) puts(text_of(j, "id"));
	} else if (strcmp(format, "json") == 0) {
		if (json_array_size(list))
			json_dumpf(list, stdout, JSON_COMPACT);
		else
			fputs("null", stdout);
	} else {
		print_table(list);
	}
	json_decref(list);
	return 0;
}

/* ---- delete ---- */

static void sleep_ms(int ms)
{
	nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000l}, NULL);
}

/* With --force there is nothing that may stay: a creation under way, or one being undone, is waited for. */
static int load_for_delete(const char *id, bool force, struct container *c)
{
	int err = container_load(id, true, c);

	for (int ms = 0; force && ms < CREATING_WAIT_MS; ms += 20) {
		struct state_dir s;

		if (err != -ENOENT || !cli_id_valid(id) || state_open(cli.root, id, true, &s))
			break;
		state_close(&s);
		sleep_ms(20);
		err = container_load(id, true, c);
	}
	if (err && !force)
		err = container_load(id, false, c); /* for the message */
	return err;
}

static int delete_main(int argc, char **argv)
{
	bool force = take_flag(&argc, argv, "force", 'f');
	struct container c;
	const char *id;
	int err;

	if (!take_id("delete", argc, argv, &id, NULL))
		return 1;
	err = load_for_delete(id, force, &c);
	if (err == -EINVAL && force)
		err = container_load(id, false, &c); /* no id at all: for the message */
	if (err)
		return force && err != -EINVAL ? 0 : 1;
	/* It has ended, or is about to: the engine has its exit status already. */
	if (c.status == CONTAINER_STOPPED)
		(void)!container_wait_end(&c, 1000);
	if (!force && c.status != CONTAINER_STOPPED && c.status != CONTAINER_CREATED) {
		cli_error("cannot delete container %s that is not stopped: %s", id,
			  container_status_name(c.status));
		err = -EBUSY;
	} else {
		err = container_destroy(&c);
	}
	container_unload(&c);
	return err ? 1 : 0;
}

/* ---- pause, resume ---- */

/* Without a freezer: SIGSTOP to the monitor's whole pid namespace is the sentry, whose threads run everything. */
static int stop_processes(const struct container *c, bool stop)
{
	char path[64], text[4096];
	ssize_t n;
	int fd, err = 0;

	if (stop) {
		fd = openat(c->dir.dirfd, "paused", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
		if (fd < 0)
			return -errno;
		close(fd);
	}
	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", c->pid, c->pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
	if (fd >= 0)
		close(fd);
	if (n < 0)
		return -errno;
	text[n] = '\0';
	for (char *p = text; *p;) {
		long pid = strtol(p, &p, 10);

		if (pid > 0 && kill((pid_t)pid, stop ? SIGSTOP : SIGCONT) < 0)
			err = -errno;
		p += strspn(p, " \n");
		if (pid == 0)
			break;
	}
	if (!stop)
		unlinkat(c->dir.dirfd, "paused", 0);
	return err;
}

/* One of several containers in a sandbox: its processes are threads of a sentry that goes on, and freezes them itself. */
static int freeze_in_sentry(const struct container *c, bool frozen)
{
	const struct control_msg msg = {.op = CONTROL_FREEZE, .all = frozen};
	const char *wanted = frozen ? "frozen" : "thawed";
	bool done = false;
	int err = 0;

	if (frozen) {
		int fd = openat(c->dir.dirfd, "frozen", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

		if (fd < 0)
			return -errno;
		close(fd);
	}
	for (int i = 0; !err && !done && i < PAUSE_TRIES; i++) {
		struct control_msg reply;

		if (i)
			sleep_ms(PAUSE_STEP_MS);
		err = container_request(c, &msg, &reply);
		if (err)
			break;
		done = reply.text && strcmp(reply.text, wanted) == 0;
		control_msg_fini(&reply);
	}
	if (done != frozen)
		unlinkat(c->dir.dirfd, "frozen", 0);
	return err ? err : done ? 0 : -ETIMEDOUT;
}

static bool is_frozen_in_sentry(const struct container *c)
{
	return faccessat(c->dir.dirfd, "frozen", F_OK, 0) == 0;
}

static int freeze(const struct container *c, bool frozen)
{
	if (frozen ? json_object_get(c->state, "sandbox") || pod_is_shared(c->dir.id)
		   : is_frozen_in_sentry(c))
		return freeze_in_sentry(c, frozen);
	if (cgroup_can_freeze(&c->cgroup))
		return cgroup_freeze(&c->cgroup, frozen);
	return stop_processes(c, frozen);
}

static int pause_main(int argc, char **argv)
{
	struct container c;
	const char *id;
	int err;

	if (!take_id("pause", argc, argv, &id, NULL) || container_load(id, false, &c))
		return 1;
	if (c.status != CONTAINER_RUNNING && c.status != CONTAINER_CREATED) {
		cli_error("container not running");
		err = -EINVAL;
	} else {
		err = freeze(&c, true);
		if (err)
			cli_error("cannot pause container %s: %s", id, strerror(-err));
	}
	container_unload(&c);
	return err ? 1 : 0;
}

static int resume_main(int argc, char **argv)
{
	struct container c;
	const char *id;
	int err;

	if (!take_id("resume", argc, argv, &id, NULL) || container_load(id, false, &c))
		return 1;
	if (c.status != CONTAINER_PAUSED) {
		cli_error("container not paused");
		err = -EINVAL;
	} else {
		err = freeze(&c, false);
		if (err)
			cli_error("cannot resume container %s: %s", id, strerror(-err));
	}
	container_unload(&c);
	return err ? 1 : 0;
}

/* ---- wait, ps, debug ---- */

static int wait_main(int argc, char **argv)
{
	struct container c;
	const char *id;
	int code;

	if (!take_id("wait", argc, argv, &id, NULL) || container_load(id, false, &c))
		return 1;
	(void)!container_wait_end(&c, -1);
	code = state_read_exit(&c.dir);
	if (code < 0)
		code = 137; /* the monitor was killed */
	printf("%d\n", code);
	container_unload(&c);
	return 0;
}

static void ps_table_line(char *line)
{
	char *field[7], *save = NULL, when[16], user[32];
	time_t start;
	struct tm tm;
	struct passwd *pw;
	long long ms;

	for (int i = 0; i < 6; i++)
		if (!(field[i] = strtok_r(i ? NULL : line, " ", &save)))
			return;
	field[6] = save;
	start = (time_t)atoll(field[3]);
	strftime(when, sizeof(when), time(NULL) - start < 86400 ? "%H:%M" : "%b%d",
		 localtime_r(&start, &tm));
	pw = getpwuid((uid_t)strtoul(field[0], NULL, 10));
	snprintf(user, sizeof(user), "%s", pw ? pw->pw_name : field[0]);
	ms = atoll(field[5]);
	printf("%-8s %7s %7s  0 %5s %-8s %02lld:%02lld:%02lld %s\n", user, field[1], field[2], when,
	       field[4], ms / 3600000, ms / 60000 % 60, ms / 1000 % 60, field[6]);
}

static int ps_main(int argc, char **argv)
{
	struct control_msg msg = {.op = CONTROL_PS}, reply;
	const char *format = "table", *id = NULL;
	struct container c;
	int err = 0;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--") == 0 && !id)
			continue;
		if (argv[i][0] == '-' && !id &&
		    (cli_flag(argc, argv, &i, "format", 'f', &format) ||
		     cli_global_flag(argc, argv, &i)))
			continue;
		if (argv[i][0] == '-' && !id)
			return cli_unknown_flag("ps", argv[i]);
		/* What follows the id are options of ps(1): the sandbox has one layout. */
		if (!id)
			id = argv[i];
	}
	if (!id) {
		cli_error("ps: no container id; usage: moat ps ID");
		return 1;
	}
	if (strcmp(format, "table") != 0 && strcmp(format, "json") != 0) {
		cli_error("invalid format option; --format is table or json, not '%s'", format);
		return 1;
	}
	if (container_load(id, false, &c))
		return 1;
	if (strcmp(format, "json") == 0) {
		/* Host processes, which engines look up in the host's /proc: the monitors of init and of execs. */
		json_t *list = json_array();

		if (c.status != CONTAINER_STOPPED) {
			json_array_append_new(list, json_integer(c.pid));
			exec_list_pids(&c, list);
		}
		/* As Go writes an empty list. */
		if (json_array_size(list))
			json_dumpf(list, stdout, JSON_COMPACT);
		else
			fputs("null", stdout);
		putchar('\n');
		json_decref(list);
	} else {
		printf("UID          PID    PPID  C STIME TTY          TIME CMD\n");
		if (c.status == CONTAINER_RUNNING || c.status == CONTAINER_CREATED) {
			err = container_request(&c, &msg, &reply);
			if (!err) {
				char *save = NULL;

				for (char *l = strtok_r(reply.text ? reply.text : (char[]){""},
							"\n", &save);
				     l; l = strtok_r(NULL, "\n", &save))
					ps_table_line(l);
				control_msg_fini(&reply);
			}
		}
	}
	container_unload(&c);
	return err ? 1 : 0;
}

static int debug_main(int argc, char **argv)
{
	struct control_msg msg = {.op = CONTROL_DEBUG}, reply;
	const char *id, *what;
	struct container c;
	int err;

	if (!take_id("debug", argc, argv, &id, &what) || container_load(id, false, &c))
		return 1;
	msg.text = (char *)(what ? what : "");
	if (c.status == CONTAINER_STOPPED) {
		cli_error("container not running");
		err = -ESRCH;
	} else {
		err = container_request(&c, &msg, &reply);
	}
	if (!err) {
		fputs(reply.text ? reply.text : "", stdout);
		control_msg_fini(&reply);
	}
	container_unload(&c);
	return err ? 1 : 0;
}

const struct cli_verb verb_start = {"start", "start the program of a created container",
				    "Usage: moat start ID\n", start_main};
const struct cli_verb verb_kill = {
	"kill", "send a signal to a container's init process",
	"Usage: moat kill [--all] ID [SIGNAL]\n\nSIGNAL is a name or number (default TERM).\n"
	"  -a, --all   to every process of the container\n",
	kill_main};
const struct cli_verb verb_state = {"state", "print a container's state as JSON",
				    "Usage: moat state ID\n", state_main};
const struct cli_verb verb_list = {
	"list", "list containers",
	"Usage: moat list [--format table|json] [--quiet]\n\n"
	"  -f, --format FORMAT   table (default) or json\n  -q, --quiet           ids only\n",
	list_main};
const struct cli_verb verb_delete = {"delete", "remove a container",
				     "Usage: moat delete [--force] ID\n\n  -f, --force   kill a "
				     "running one; no error if it is not there\n",
				     delete_main};
const struct cli_verb verb_pause = {"pause", "suspend all processes of a container",
				    "Usage: moat pause ID\n", pause_main};
const struct cli_verb verb_resume = {"resume", "let a paused container go on",
				     "Usage: moat resume ID\n", resume_main};
const struct cli_verb verb_wait = {"wait", "wait for a container's end and print its exit status",
				   "Usage: moat wait ID\n", wait_main};
const struct cli_verb verb_ps = {
	"ps", "list the processes of a container",
	"Usage: moat ps [--format table|json] ID\n\n"
	"  -f, --format FORMAT   table (default) or json\n\n"
	"The table shows the container's own processes, numbered as inside. JSON is what engines\n"
	"want: the host processes that stand for init and for each exec.\n",
	ps_main};
const struct cli_verb verb_debug = {
	"debug", "look into a running sandbox",
	"Usage: moat debug ID [WHAT]\n\n"
	"WHAT: objects, tasks, locks (that threads of the sentry sleep for), requests (to gofer\n"
	"and virtio-fs daemons), memory, platform, paths (default: all of these); stacks: where "
	"each\n"
	"thread is, for addr2line -fe moat; strace-on, strace-off: system calls into the debug "
	"log\n"
	"from now on.\n",
	debug_main};
