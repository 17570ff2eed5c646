/* runtime/hooks.h - programs of config.json's "hooks", run with the container's state on standard input. */
#ifndef MOAT_RUNTIME_HOOKS_H
#define MOAT_RUNTIME_HOOKS_H

#include "runtime/oci.h"
#include "runtime/state.h"

#define HOOK_OUTPUT_MAX 2048

/*
 * Runs the hooks of a stage, in order, in the caller's namespaces. The first that fails, or is over its time, ends it: an error is printed.
 */
must_check int hooks_run(const struct oci_config *c, const char *stage,
			 const struct state_dir *state, int pid, const char *status);
/* For stages after the start: failures are warnings, and the others run. */
void hooks_run_lenient(const struct oci_config *c, const char *stage, const struct state_dir *state,
		       int pid, const char *status);

#endif
