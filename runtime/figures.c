/*
 * runtime/figures.c - moat events, moat update, moat features: what a container uses, what it may use, what this runtime can do.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "runtime/cli.h"
#include "runtime/container.h"

#define UPDATE_FILE_MAX (1u << 20)
#define OOM_ASK_CALLS 5 /* half a second */

/* ---- events ---- */

/* The sandbox's own figures; NULL when it cannot answer (frozen). */
static json_t *sentry_stats(const struct container *c)
{
	struct control_msg msg = {.op = CONTROL_STATS}, reply;
	json_t *j = NULL;

	if (c->status != CONTAINER_RUNNING && c->status != CONTAINER_CREATED)
		return NULL;
	if (container_request(c, &msg, &reply) == 0) {
		j = reply.text ? json_loads(reply.text, 0, NULL) : NULL;
		control_msg_fini(&reply);
	}
	return j;
}

static void print_event(const char *type, const char *id, json_t *data)
{
	json_t *j = json_pack("{ss ss so*}", "type", type, "id", id, "data", data);

	json_dumpf(j, stdout, JSON_COMPACT);
	putchar('\n');
	fflush(stdout);
	json_decref(j);
}

static json_int_t int_of(const json_t *j, const char *key)
{
	return json_integer_value(json_object_get(j, key));
}

/*
 * What the sentry knows better than the cgroup: how many tasks there are, of the guest's. Of a further container of a pod, which runs in the sandbox's
 * sentry, the cgroup knows only its monitor and gofer.
 */
static void add_own_figures(json_t *data, const json_t *own, bool further)
{
	json_t *cpu = json_object_get(json_object_get(data, "cpu"), "usage"),
	       *pids = json_object_get(data, "pids");

	if (cpu && further)
		json_object_set_new(cpu, "total",
				    json_integer(int_of(cpu, "total") + int_of(own, "utime_ns") +
						 int_of(own, "stime_ns")));
	if (pids)
		json_object_set_new(pids, "current", json_integer(int_of(own, "tasks")));
}

static void print_stats(const struct container *c)
{
	json_t *data = cgroup_stats(&c->cgroup), *own = sentry_stats(c);

	if (own)
		add_own_figures(data, own, json_object_get(c->state, "sandbox") != NULL);
	if (own)
		json_object_set_new(data, "moat", own);
	print_event("stats", c->dir.id, data);
}

/* Prometheus' text format: a name, labels, a number a line. */
static void metrics_walk(const char *id, const char *name, const json_t *j)
{
	const char *key;
	json_t *v;

	if (json_is_number(j)) {
		printf("%s{container=\"%s\"} %.17g\n", name, id, json_number_value(j));
		return;
	}
	if (!json_is_object(j))
		return;
	json_object_foreach((json_t *)j, key, v)
	{
		char longer[256];
		size_t n = 0;

		if (strcmp(key, "raw") == 0)
			continue;
		n = (size_t)snprintf(longer, sizeof(longer), "%s_", name);
		for (const char *k = key; *k && n < sizeof(longer) - 1; k++)
			longer[n++] = (*k >= 'a' && *k <= 'z') || (*k >= 'A' && *k <= 'Z') ||
						      (*k >= '0' && *k <= '9')
					      ? *k
					      : '_';
		longer[n] = '\0';
		metrics_walk(id, longer, v);
	}
}

static void print_metrics(const struct container *c)
{
	json_t *cg = cgroup_stats(&c->cgroup), *own = sentry_stats(c);

	printf("moat_container_state{container=\"%s\",status=\"%s\"} 1\n", c->dir.id,
	       container_status_name(c->status));
	metrics_walk(c->dir.id, "moat_cgroup", cg);
	metrics_walk(c->dir.id, "moat_sandbox", own);
	json_decref(cg);
	json_decref(own);
}

/* "1h30m", "1.5s", "100ms" and the like, as Go's: each number has its unit. In seconds; negative: not that. */
static double parse_interval(const char *text)
{
	static const struct {
		const char *name;
		double seconds;
	} units[] = {{"ns", 1e-9}, {"us", 1e-6}, {"ms", 1e-3}, {"s", 1}, {"m", 60}, {"h", 3600}};
	double sum = 0;

	/* Below nothing is no better than nothing. */
	if (strcmp(text, "0") == 0 || (text[0] == '-' && parse_interval(text + 1) >= 0))
		return 0;
	do {
		size_t digits = strspn(text, "0123456789."), name, u = 0;
		char *end;
		double v = strtod(text, &end);

		name = strspn(text + digits, "nusmh");
		while (u < ARRAY_SIZE(units) && (strlen(units[u].name) != name ||
						 memcmp(units[u].name, text + digits, name) != 0))
			u++;
		if (!digits || end != text + digits || u == ARRAY_SIZE(units))
			return -1;
		sum += v * units[u].seconds;
		text += digits + name;
	} while (*text);
	return sum;
}

/* Processes killed for the container's memory limit: by the host, or of a further container of a pod by the sentry, which is asked every so many calls. */
static uint64_t oom_kills(const struct container *c, uint64_t last, unsigned call)
{
	json_t *own;

	if (!json_object_get(c->state, "sandbox"))
		return cgroup_oom_kills(&c->cgroup);
	if (call % OOM_ASK_CALLS || !(own = sentry_stats(c)))
		return last;
	last = MAX(last, (uint64_t)int_of(own, "oom_kills"));
	json_decref(own);
	return last;
}

/* Until the container ends: figures every interval, and each strike of an OOM killer. */
static void follow(struct container *c, double interval)
{
	uint64_t ooms = oom_kills(c, 0, 0);
	struct timespec now;
	unsigned call = 0;
	double next;

	clock_gettime(CLOCK_MONOTONIC, &now);
	next = (double)now.tv_sec + (double)now.tv_nsec / 1e9;
	while (state_is_live(&c->dir)) {
		uint64_t n = oom_kills(c, ooms, ++call);

		for (; ooms < n; ooms++)
			print_event("oom", c->dir.id, NULL);
		clock_gettime(CLOCK_MONOTONIC, &now);
		if ((double)now.tv_sec + (double)now.tv_nsec / 1e9 >= next) {
			print_stats(c);
			next += interval;
		}
		nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
	}
}

static int events_main(int argc, char **argv)
{
	const char *interval_text = "5s", *id = NULL;
	bool stats = false, metrics = false;
	struct container c;
	double interval;
	int status = 0;

	for (int i = 1; i < argc; i++) {
		if (argv[i][0] != '-' && !id) {
			id = argv[i];
			continue;
		}
		if (strcmp(argv[i], "--") == 0)
			continue;
		if (cli_flag(argc, argv, &i, "interval", 0, &interval_text))
			continue;
		if (!cli_bool_flag(argv, &i, "stats", 0, &stats) &&
		    !cli_bool_flag(argv, &i, "metrics", 0, &metrics) &&
		    !cli_global_flag(argc, argv, &i))
			return cli_unknown_flag("events", argv[i]);
	}
	if (!id) {
		cli_error("events: no container id; usage: moat events [--stats] ID");
		return 1;
	}
	if (container_load(id, false, &c))
		return 1;
	interval = parse_interval(interval_text);
	if (interval <= 0) {
		cli_error(interval < 0 ? "--interval: '%s' is no duration such as 5s or 1m30s"
				       : "duration interval must be greater than 0",
			  interval_text);
		status = 1;
	} else if (metrics) {
		print_metrics(&c);
	} else if (c.status == CONTAINER_STOPPED) {
		cli_error("container with id %s is not running", id);
		status = 1;
	} else if (stats) {
		print_stats(&c);
	} else {
		follow(&c, interval);
	}
	container_unload(&c);
	return status;
}

/* ---- update ---- */

struct update_flag {
	const char *name;
	const char *section, *key; /* of linux.resources */
	bool is_text, is_bytes;
};

static const struct update_flag update_flags[] = {
	{"blkio-weight", "blockIO", "weight", false, false},
	{"cpu-period", "cpu", "period", false, false},
	{"cpu-quota", "cpu", "quota", false, false},
	{"cpu-share", "cpu", "shares", false, false},
	{"cpu-rt-period", "cpu", "realtimePeriod", false, false},
	{"cpu-rt-runtime", "cpu", "realtimeRuntime", false, false},
	{"cpuset-cpus", "cpu", "cpus", true, false},
	{"cpuset-mems", "cpu", "mems", true, false},
	{"kernel-memory", "memory", "kernel", false, true},
	{"kernel-memory-tcp", "memory", "kernelTCP", false, true},
	{"memory", "memory", "limit", false, true},
	{"memory-reservation", "memory", "reservation", false, true},
	{"memory-swap", "memory", "swap", false, true},
	{"pids-limit", "pids", "limit", false, false},
};

/* "64m", "1.5g", "1GiB", and -1: runc's units. */
static bool parse_bytes(const char *text, json_int_t *ret)
{
	static const char units[] = "bkmgtp";
	size_t digits = strspn(text, "0123456789."), shift = 0;
	const char *unit;
	char *end;
	double v;

	if (strcmp(text, "-1") == 0) {
		*ret = -1;
		return true;
	}
	v = strtod(text, &end);
	if (!digits || end != text + digits)
		return false;
	end += strspn(end, " ");
	if (*end) {
		unit = strchr(units, *end++ | 0x20);
		if (!unit)
			return false;
		shift = (size_t)(unit - units) * 10;
		if (shift && (*end | 0x20) == 'i' && (end[1] | 0x20) == 'b')
			end++;
		end += shift && (*end | 0x20) == 'b';
	}
	v *= (double)(1ull << shift);
	if (*end || v >= (double)INT64_MAX)
		return false;
	*ret = (json_int_t)v;
	return true;
}

static bool parse_size(const char *text, bool bytes, json_int_t *ret)
{
	char *end;

	if (bytes)
		return parse_bytes(text, ret);
	errno = 0;
	*ret = strtoll(text, &end, 10);
	return end != text && !*end && !errno;
}

/* 1 taken, 0 unknown, -1 bad. */
static int update_flag(json_t *resources, int argc, char **argv, int *i)
{
	for (size_t k = 0; k < ARRAY_SIZE(update_flags); k++) {
		const struct update_flag *f = &update_flags[k];
		const char *text;
		json_t *section;
		json_int_t v;

		if (!cli_flag(argc, argv, i, f->name, 0, &text))
			continue;
		/* As if it were not given, as runc has it. */
		if (!*text && (f->is_text || f->is_bytes))
			return 1;
		section = json_object_get(resources, f->section);
		if (!section) {
			section = json_object();
			json_object_set_new(resources, f->section, section);
		}
		if (f->is_text) {
			json_object_set_new(section, f->key, json_string(text));
		} else if (parse_size(text, f->is_bytes, &v)) {
			json_object_set_new(section, f->key, json_integer(v));
		} else {
			cli_error("invalid value for %s: invalid size: '%s'", f->name, text);
			return -1;
		}
		return 1;
	}
	return 0;
}

static json_t *resources_from(const char *path)
{
	json_error_t jerr;
	size_t size;
	char *text;
	json_t *j;
	int err = io_read_file_at(AT_FDCWD, strcmp(path, "-") == 0 ? "/proc/self/fd/0" : path,
				  UPDATE_FILE_MAX, &text, &size);

	if (err) {
		cli_error("--resources %s: %s", path, strerror(-err));
		return NULL;
	}
	j = oci_json_load(text, size, &jerr);
	free(text);
	if (!json_is_object(j)) {
		cli_error("--resources %s:%d:%d: not a JSON object: %s", path, jerr.line,
			  jerr.column, jerr.text);
		json_decref(j);
		return NULL;
	}
	return j;
}

/* The cgroup first: it may refuse. Then the sandbox's own limits. */
static int update(const struct container *c, const json_t *resources)
{
	struct control_msg msg = {.op = CONTROL_UPDATE}, reply;
	struct boot_spec s;
	char why[OCI_ERROR_MAX];
	int err = oci_resources_check(resources, why);

	if (!err)
		err = cgroup_apply(&c->cgroup, resources, why);
	if (err) {
		cli_error("%s", why);
		return err;
	}
	boot_spec_init(&s);
	if (oci_resources_to_spec(resources, &s)) {
		boot_spec_fini(&s);
		return -ENOMEM;
	}
	msg.memory = s.memory_limit;
	msg.all = cgroup_bounds_memory(&c->cgroup);
	msg.pids = s.pids_limit;
	msg.text = s.cpuset_cpus;
	err = container_request(c, &msg, &reply);
	boot_spec_fini(&s);
	if (!err)
		control_msg_fini(&reply);
	return err;
}

static int update_main(int argc, char **argv)
{
	const char *file = NULL, *id = NULL, *rdt = NULL;
	json_t *resources = json_object();
	struct container c;
	int err;

	for (int i = 1; i < argc; i++) {
		int taken;

		if ((argv[i][0] != '-' || !argv[i][1]) && !id) {
			id = argv[i];
			continue;
		}
		if (strcmp(argv[i], "--") == 0)
			continue;
		if (cli_flag(argc, argv, &i, "resources", 'r', &file))
			continue;
		if (cli_flag(argc, argv, &i, "l3-cache-schema", 0, &rdt) ||
		    cli_flag(argc, argv, &i, "mem-bw-schema", 0, &rdt))
			continue;
		taken = update_flag(resources, argc, argv, &i);
		if (taken < 0)
			return 1;
		if (!taken && !cli_global_flag(argc, argv, &i))
			return cli_unknown_flag("update", argv[i]);
	}
	if (!id) {
		cli_error("update: no container id; usage: moat update [FLAGS] ID");
		return 1;
	}
	if (rdt) {
		cli_error("Intel RDT: schema %s: not supported; leave out --l3-cache-schema and "
			  "--mem-bw-schema",
			  rdt);
		return 1;
	}
	if (container_load(id, false, &c))
		return 1;
	if (file) {
		json_decref(resources);
		resources = resources_from(file);
	}
	if (resources && c.status == CONTAINER_STOPPED) {
		cli_error("container not running");
		err = -ESRCH;
	} else {
		err = resources ? update(&c, resources) : -EINVAL;
	}
	json_decref(resources);
	container_unload(&c);
	return err ? 1 : 0;
}

/* ---- features ---- */

static json_t *string_list(const char *const *names, size_t n)
{
	json_t *j = json_array();

	for (size_t i = 0; i < n; i++)
		json_array_append_new(j, json_string(names[i]));
	return j;
}

static int features_main(int argc, char **argv)
{
	static const char *const hooks[] = {"prestart",	      "createRuntime", "createContainer",
					    "startContainer", "poststart",     "poststop"};
	static const char *const namespaces[] = {"cgroup", "ipc",  "mount", "network",
						 "pid",	   "user", "uts"};
	static const char *const actions[] = {"SCMP_ACT_ALLOW",	      "SCMP_ACT_ERRNO",
					      "SCMP_ACT_KILL",	      "SCMP_ACT_KILL_PROCESS",
					      "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG",
					      "SCMP_ACT_TRACE",	      "SCMP_ACT_TRAP"};
	static const char *const operators[] = {"SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT",
						"SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ",
						"SCMP_CMP_NE"};
	static const char *const archs[] = {"SCMP_ARCH_X86_64"};
	/* Whoever may set these acts on the host: engines drop them from what others wrote. */
	static const char *const unsafe[] = {"org.moat.", "org.systemd.property."};
	static const char *const flags[] = {OCI_SECCOMP_FLAGS};
	json_t *caps = json_array(), *options = json_array(), *j;

	for (int i = 1; i < argc; i++)
		if (!cli_global_flag(argc, argv, &i))
			return cli_unknown_flag("features", argv[i]);
	for (int i = 0; oci_cap_name(i); i++)
		json_array_append_new(caps, json_string(oci_cap_name(i)));
	for (size_t i = 0; oci_mount_option_name(i); i++)
		json_array_append_new(options, json_string(oci_mount_option_name(i)));
	json_array_append_new(options, json_string("tmpcopyup"));
	j = json_pack("{ss ss so so s{so so s{sb sb sb sb sb} s{sb so so so so so} s{sb} s{sb} "
		      "s{sb} s{s{sb}}} s{ss}}",
		      "ociVersionMin", "1.0.0", "ociVersionMax", "1.2.0", "hooks",
		      string_list(hooks, ARRAY_SIZE(hooks)), "mountOptions", options, "linux",
		      "namespaces", string_list(namespaces, ARRAY_SIZE(namespaces)), "capabilities",
		      caps, "cgroup", "v1", 1, "v2", 1, "systemd", 1, "systemdUser", 1, "rdma", 1,
		      "seccomp", "enabled", 1, "actions", string_list(actions, ARRAY_SIZE(actions)),
		      "operators", string_list(operators, ARRAY_SIZE(operators)), "archs",
		      string_list(archs, ARRAY_SIZE(archs)), "knownFlags",
		      string_list(flags, ARRAY_SIZE(flags)), "supportedFlags",
		      string_list(flags, ARRAY_SIZE(flags)), "apparmor", "enabled", 0, "selinux",
		      "enabled", 0, "intelRdt", "enabled", 0, "mountExtensions", "idmap", "enabled",
		      0, "annotations", "org.moat.version", MOAT_VERSION);
	json_object_set_new(j, "potentiallyUnsafeConfigAnnotations",
			    string_list(unsafe, ARRAY_SIZE(unsafe)));
	json_dumpf(j, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(j);
	return 0;
}

const struct cli_verb verb_events = {
	"events", "figures and events of a container",
	"Usage: moat events [--stats | --metrics] [--interval 5s] ID\n\n"
	"JSON lines as runc's, with the sandbox's own figures under \"moat\".\n\n"
	"  --stats            once\n"
	"  --metrics          once, in Prometheus' text format\n"
	"  --interval TIME    how often (default 5s)\n",
	events_main};
const struct cli_verb verb_update = {
	"update", "change a container's resource limits",
	"Usage: moat update [--resources FILE | FLAGS] ID\n\n"
	"  -r, --resources FILE   linux.resources as JSON; '-': standard input\n"
	"  --memory, --memory-reservation, --memory-swap SIZE, --pids-limit N,\n"
	"  --cpu-share, --cpu-quota, --cpu-period, --cpuset-cpus, --cpuset-mems,\n"
	"  --cpu-rt-period, --cpu-rt-runtime, --blkio-weight, --kernel-memory, "
	"--kernel-memory-tcp\n"
	"  --l3-cache-schema, --mem-bw-schema TEXT   refused: no Intel RDT here\n",
	update_main};
const struct cli_verb verb_features = {"features", "what this runtime supports, as JSON",
				       "Usage: moat features\n", features_main};
