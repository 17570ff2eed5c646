/* runtime/role_sentry.c - the binary, re-executed as a sentry: the spec is descriptor 10. */
#include "runtime/cli.h"
#include "sentry/boot/boot.h"

#define ROLE_SPEC_FD 10

int role_sentry_main(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return boot_main(ROLE_SPEC_FD);
}
