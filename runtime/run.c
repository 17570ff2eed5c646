/* runtime/run.c - moat run: a bundle, from config.json to the program's exit status. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/cli.h"
#include "runtime/platforms.h"
#include "runtime/sandbox.h"

static const char run_help[] =
	"Usage: moat run [--bundle DIR] [--pid-file FILE] ID\n\n"
	"Runs the program of an OCI bundle in a new sandbox and exits with its status\n"
	"(128 + N if signal N killed it). Standard input, output and error are passed\n"
	"through; with \"terminal\": true the sandbox gets a terminal of its own.\n\n"
	"  -b, --bundle DIR   the bundle: a directory with config.json (default .)\n"
	"  --pid-file FILE    the sentry's process id goes there\n"
	"  --network MODE     none, host, or ns:PATH of a network namespace (default: a new one)\n\n"
	"Errors before the program runs: 127 if it is not there, 126 if it cannot be executed,\n"
	"1 for everything else. 'moat spec' writes a config.json to begin with.\n";

static int run_main(int argc, char **argv)
{
	struct sandbox_options opts = {0};
	const char *bundle = ".", *network;
	char resolved[PATH_MAX], why[OCI_ERROR_MAX];
	struct oci_config config;
	int status;

	for (int i = 1; i < argc; i++) {
		if (argv[i][0] != '-') {
			if (opts.id) {
				cli_error("run: one container id, not '%s' and '%s'", opts.id,
					  argv[i]);
				return 1;
			}
			opts.id = argv[i];
		} else if (cli_flag(argc, argv, &i, "bundle", 'b', &bundle) ||
			   cli_flag(argc, argv, &i, "pid-file", 0, &opts.pid_file)) {
			;
		} else if (cli_flag(argc, argv, &i, "network", 0, &network)) {
			if (network_option_parse(network, &opts.network))
				return 1;
		} else if (cli_flag(argc, argv, &i, "net-host", 0, NULL)) {
			opts.network.host = true;
		} else if (!cli_global_flag(argc, argv, &i)) {
			return cli_unknown_flag("run", argv[i]);
		}
	}
	if (!opts.id) {
		cli_error("run: no container id; usage: moat run --bundle DIR ID");
		return 1;
	}
	if (!cli_id_valid(opts.id)) {
		cli_error("invalid container id '%s': letters, digits, and _ + - . only", opts.id);
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
	opts.bundle = resolved;
	boot_spec_add_globals(&config.spec, opts.id);
	status = sandbox_run(&config, &opts);
	oci_config_fini(&config);
	return status;
}

const struct cli_verb verb_run = {"run", "run an OCI bundle in a sandbox", run_help, run_main};
