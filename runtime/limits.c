/* runtime/limits.c - the caller's resource limits: limits.h. */
#include <sys/resource.h>

#include "runtime/limits.h"

/* With less the sentry's own threads might not have it. */
#define STACK_MIN (8ul << 20)

static struct rlimit of_caller[BOOT_RLIMITS];

/* Up to the hard limit whoever it is, above it with CAP_SYS_RESOURCE. */
static void lift(int resource, rlim_t wanted)
{
	struct rlimit lim = of_caller[resource];

	if (lim.rlim_cur >= wanted)
		return;
	lim.rlim_cur = wanted;
	if (lim.rlim_max < wanted)
		lim.rlim_max = wanted;
	if (setrlimit(resource, &lim) == 0)
		return;
	lim.rlim_max = of_caller[resource].rlim_max;
	lim.rlim_cur = lim.rlim_max < wanted ? lim.rlim_max : wanted;
	/* As it was: the sandbox has what its caller has. */
	(void)!setrlimit(resource, &lim);
}

void limits_begin(void)
{
	static const int unlimited[] = {RLIMIT_CPU, RLIMIT_FSIZE, RLIMIT_DATA,
					RLIMIT_AS,  RLIMIT_NPROC, RLIMIT_SIGPENDING};

	for (int i = 0; i < BOOT_RLIMITS; i++)
		if (getrlimit(i, &of_caller[i]) < 0)
			of_caller[i] = (struct rlimit){RLIM_INFINITY, RLIM_INFINITY};
	for (size_t i = 0; i < ARRAY_SIZE(unlimited); i++)
		lift(unlimited[i], RLIM_INFINITY);
	lift(RLIMIT_STACK, STACK_MIN);
	lift(RLIMIT_NOFILE, of_caller[RLIMIT_NOFILE].rlim_max);
}

void limits_add(struct boot_spec *s)
{
	for (int i = 0; i < BOOT_RLIMITS; i++)
		if (!s->rlimits[i].set)
			s->rlimits[i] = (struct boot_rlimit){true, of_caller[i].rlim_cur,
							     of_caller[i].rlim_max};
}

void limits_restore(void)
{
	for (int i = 0; i < BOOT_RLIMITS; i++)
		(void)!setrlimit(i, &of_caller[i]);
}
