/*
 * runtime/sandbox.h - starts a sandbox's processes, watches them, and leaves nothing behind.
 *
 *	moat run ──fork──► monitor          waits for the CLI's end; then kills the rest, removes the state directory
 *	    ├────exec───► gofer             dies with its socket, and with the CLI
 *	    └────exec───► sentry (new pid, mount, ipc, uts, net namespaces)   dies with the CLI
 */
#ifndef MOAT_RUNTIME_SANDBOX_H
#define MOAT_RUNTIME_SANDBOX_H

#include "runtime/network.h"
#include "runtime/oci.h"

struct sandbox_options {
	const char *id;
	const char *bundle; /* for state.json; may be NULL */
	const char *pid_file; /* NULL: none */
	struct network_options network;
};

/*
 * Runs the sandbox to its end: stdio passed through (or a raw terminal), signals forwarded.
 * Return: the CLI's exit status: the program's, 128 + signal, or an error's (1, 126, 127) after printing it.
 */
int sandbox_run(struct oci_config *config, const struct sandbox_options *opts);

#endif
