/* runtime/platforms.c - platform choice. */
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/cli.h"
#include "runtime/platforms.h"
#include "sentry/boot/boot.h"

bool platform_usable(const char *name)
{
	char why[256];

	if (boot_platform_probe(name, why, sizeof(why)) == 0)
		return true;
	cli_error("%s", why);
	return false;
}

static char *dup_or_exit(const char *s)
{
	char *copy = strdup(s);

	if (!copy) {
		cli_error("out of memory");
		exit(1);
	}
	return copy;
}

void boot_spec_add_globals(struct boot_spec *spec, const char *id)
{
	cpu_set_t set;

	spec->id = dup_or_exit(id);
	spec->platform = dup_or_exit(cli.platform);
	spec->strace = cli.strace ? dup_or_exit(cli.strace) : NULL;
	spec->debug = cli.debug;
	spec->cpus = sched_getaffinity(0, sizeof(set), &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;
	if (!spec->hostname)
		spec->hostname = dup_or_exit("moat");
}
