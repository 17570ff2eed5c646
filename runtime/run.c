/* runtime/run.c - moat run and moat create: a bundle, from config.json to a program. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/cli.h"
#include "runtime/hooks.h"
#include "runtime/platforms.h"
#include "runtime/sandbox.h"
#include "wire/control.h"

#define PRESERVE_FDS_MAX BOOT_EXTRA_FDS_MAX

/* One flag of both verbs. 1 taken, 0 unknown, -1 bad. */
static int start_flag(struct sandbox_options *o, const char **bundle, bool *network_set, int argc,
		      char **argv, int *i)
{
	const char *v;
	char *end;
	bool set;

	if (cli_flag(argc, argv, i, "bundle", 'b', bundle) ||
	    cli_flag(argc, argv, i, "pid-file", 0, &o->pid_file) ||
	    cli_flag(argc, argv, i, "console-socket", 0, &o->console_socket) ||
	    cli_flag(argc, argv, i, "rootfs-virtiofs", 0, &o->rootfs_virtiofs))
		return 1;
	/* The host's filesystem is never pivoted, keyrings are the guest's own, and nobody is adopted. */
	if (cli_bool_flag(argv, i, "no-pivot", 0, &set) ||
	    cli_bool_flag(argv, i, "no-new-keyring", 0, &set) ||
	    cli_bool_flag(argv, i, "no-subreaper", 0, &set))
		return 1;
	if (cli_flag(argc, argv, i, "preserve-fds", 0, &v)) {
		unsigned long n = strtoul(v, &end, 10);

		if (!*v || *end || n > PRESERVE_FDS_MAX) {
			cli_error("--preserve-fds: '%s' is no number from 0 to %d", v,
				  PRESERVE_FDS_MAX);
			return -1;
		}
		o->preserve_fds = (unsigned)n;
		return 1;
	}
	if (cli_flag(argc, argv, i, "network", 0, &v)) {
		*network_set = true;
		return network_option_parse(v, &o->network) ? -1 : 1;
	}
	if (cli_bool_flag(argv, i, "net-host", 0, &set)) {
		*network_set = o->network.host = set;
		return 1;
	}
	return cli_global_flag(argc, argv, i) ? 1 : 0;
}

/* systemd's socket activation: LISTEN_FDS descriptors from 3 on are handed over too. */
static void add_listen_fds(struct sandbox_options *o, struct oci_config *c)
{
	const char *n = getenv("LISTEN_FDS");
	size_t count = 0;
	char **grown;
	long fds = n ? strtol(n, NULL, 10) : 0;

	if (fds <= 0 || fds > PRESERVE_FDS_MAX - (long)o->preserve_fds)
		return;
	while (c->spec.envp[count])
		count++;
	grown = realloc(c->spec.envp, (count + 3) * sizeof(*grown));
	if (!grown)
		return;
	c->spec.envp = grown;
	grown[count] = grown[count + 1] = grown[count + 2] = NULL;
	if (asprintf(&grown[count], "LISTEN_FDS=%ld", fds) < 0)
		grown[count] = NULL;
	else
		grown[count + 1] = strdup("LISTEN_PID=1");
	o->preserve_fds += (unsigned)fds;
}

static int start_bundle(const char *verb, struct sandbox_options *o, const char *bundle,
			bool network_set)
{
	char resolved[PATH_MAX], why[OCI_ERROR_MAX], host[65] = "";
	struct oci_config config;
	int status;

	if (!o->id) {
		cli_error("%s: no container id; usage: moat %s --bundle DIR ID", verb, verb);
		return 1;
	}
	if (!cli_id_valid(o->id)) {
		cli_error("invalid container id '%s': letters, digits, and _ + - . only", o->id);
		return 1;
	}
	if (!realpath(bundle, resolved)) {
		cli_error("bundle %s: %m; give a directory that holds config.json with --bundle",
			  bundle);
		return 1;
	}
	if (!platform_usable(cli.platform))
		return 1;
	if (oci_config_load(resolved, &config, why)) {
		cli_error("%s", why);
		return 1;
	}
	if (config.unknown_caps[0])
		cli_warn("ignoring unknown or unavailable capabilities: [%s]", config.unknown_caps);
	if (config.ignored[0])
		cli_warn("ignoring %s: not supported", config.ignored);
	o->bundle = resolved;
	o->no_cgroup = cli.no_cgroup;
	if (!network_set) {
		o->network.host = !config.net_ns;
		o->network.path = config.net_ns_path;
	}
	add_listen_fds(o, &config);
	/* A new UTS namespace begins with its creator's name. */
	if (!config.spec.hostname && gethostname(host, sizeof(host) - 1) == 0)
		config.spec.hostname = strdup(host);
	boot_spec_add_globals(&config.spec, o->id);
	status = sandbox_run(&config, o);
	oci_config_fini(&config);
	return status;
}

static int parse_and_start(const char *verb, struct sandbox_options *o, int argc, char **argv)
{
	const char *bundle = ".";
	bool network_set = false, is_run = !o->hold;

	for (int i = 1; i < argc; i++) {
		int taken;

		if (argv[i][0] != '-') {
			if (o->id) {
				cli_error("%s: one container id, not '%s' and '%s'", verb, o->id,
					  argv[i]);
				return 1;
			}
			o->id = argv[i];
			continue;
		}
		if (strcmp(argv[i], "--") == 0)
			continue;
		if (is_run && (cli_bool_flag(argv, &i, "detach", 'd', &o->detach) ||
			       cli_bool_flag(argv, &i, "keep", 0, &o->keep)))
			continue;
		taken = start_flag(o, &bundle, &network_set, argc, argv, &i);
		if (taken < 0)
			return 1;
		if (!taken)
			return cli_unknown_flag(verb, argv[i]);
	}
	return start_bundle(verb, o, bundle, network_set);
}

static int run_main(int argc, char **argv)
{
	struct sandbox_options opts = {0};

	return parse_and_start("run", &opts, argc, argv);
}

static int create_main(int argc, char **argv)
{
	struct sandbox_options opts = {.hold = true, .detach = true};
	int status = parse_and_start("create", &opts, argc, argv);

	return status ? 1 : 0;
}

#define START_FLAGS                                                                             \
	"  -b, --bundle DIR        the bundle: a directory with config.json (default .)\n"      \
	"  --pid-file FILE         the process that stands for the container goes there\n"      \
	"  --rootfs-virtiofs SOCK  the root file system is what this virtio-fs daemon serves\n" \
	"  --console-socket PATH   where the terminal's master is sent\n"                       \
	"  --preserve-fds N        pass on descriptors 3 to N + 2\n"                            \
	"  --network MODE          none, host, or ns:PATH (default: as config.json says)\n"     \
	"  --no-pivot, --no-new-keyring, --no-subreaper   accepted: nothing here needs them\n"

const struct cli_verb verb_run = {
	"run", "run an OCI bundle in a sandbox",
	"Usage: moat run [FLAGS] ID\n\n"
	"Runs the program of an OCI bundle in a new sandbox and exits with its status\n"
	"(128 + N if signal N killed it). Standard input, output and error are passed\n"
	"through; with \"terminal\": true the sandbox gets a terminal of its own.\n\n" START_FLAGS
	"  -d, --detach            return when it runs; 'moat delete' removes it later\n"
	"  --keep                  keep the state after the end\n\n"
	"Errors before the program runs: 127 if it is not there, 126 if it cannot be executed,\n"
	"1 for everything else. 'moat spec' writes a config.json to begin with.\n",
	run_main};

const struct cli_verb verb_create = {
	"create", "create a container: all but its program's start",
	"Usage: moat create [FLAGS] ID\n\n"
	"Returns when the sandbox is up and its program waits for 'moat start'.\n\n" START_FLAGS,
	create_main};
