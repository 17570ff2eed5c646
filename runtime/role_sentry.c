/* runtime/role_sentry.c - the binary, re-executed as a sentry: the spec is descriptor 10. */
#include "runtime/cli.h"
#include "base/log.h"
#include "sentry/boot/boot.h"
#include "sentry/task.h"
#include "syscalls/syscalls.h"

#define ROLE_SPEC_FD 10

const char *role_sentry_unknown_call(const char *list)
{
	const char *bad = NULL;

	return strace_select(list, &bad) ? bad : NULL;
}

static int enable_strace(const char *list)
{
	const char *bad;
	int err = strace_select(list, &bad);

	if (err)
		log_error("--strace: no system call is called '%s'", bad ? bad : list);
	else
		kernel.strace_default = true;
	return err;
}

int role_sentry_main(int argc, char **argv)
{
	static const struct boot_hooks hooks = {.syscalls_init = syscalls_init,
						.strace_enable = enable_strace};

	(void)argc;
	(void)argv;
	return boot_main(ROLE_SPEC_FD, &hooks);
}
