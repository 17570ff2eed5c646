/* runtime/oci_linux.c - linux.resources as the container sees them: its limits, and the files of its cgroup. */
#include <stdlib.h>
#include <string.h>

#include "runtime/oci.h"

static long long number(const json_t *obj, const char *name)
{
	return json_integer_value(json_object_get(obj, name));
}

static int copy_string(const json_t *obj, const char *name, char **ret)
{
	const char *s = json_string_value(json_object_get(obj, name));

	free(*ret);
	*ret = s && *s ? strdup(s) : NULL;
	return s && *s && !*ret ? -ENOMEM : 0;
}

int oci_resources_to_spec(const json_t *resources, struct boot_spec *s)
{
	const json_t *mem = json_object_get(resources, "memory"),
		     *cpu = json_object_get(resources, "cpu"),
		     *pids = json_object_get(resources, "pids");

	/* -1 is unlimited, as is INT64_MAX, which stands for anything past it. */
	if (number(mem, "limit") > 0 && number(mem, "limit") < INT64_MAX)
		s->memory_limit = (uint64_t)number(mem, "limit");
	if (number(mem, "reservation") > 0)
		s->memory_low = (uint64_t)number(mem, "reservation");
	if (number(mem, "swap") > 0)
		s->memory_swap = (uint64_t)number(mem, "swap");
	if (number(pids, "limit") > 0)
		s->pids_limit = (uint32_t)MIN(number(pids, "limit"), (long long)INT32_MAX);
	s->cpu_quota = number(cpu, "quota");
	s->cpu_period = number(cpu, "period") > 0 ? (uint64_t)number(cpu, "period") : 0;
	s->cpu_shares = number(cpu, "shares") > 0 ? (uint64_t)number(cpu, "shares") : 0;
	if (copy_string(cpu, "cpus", &s->cpuset_cpus) || copy_string(cpu, "mems", &s->cpuset_mems))
		return -ENOMEM;
	return 0;
}
