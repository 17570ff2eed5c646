/* runtime/oci_linux.c - config.json's "linux"; its resources as the container sees them: its limits, and the files of its cgroup. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>

#include "runtime/oci_names.h"
#include "runtime/oci_parse.h"

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

struct resource {
	const char *section, *key;
	json_type type; /* JSON_TRUE: a boolean */
};

static const struct resource resource_types[] = {
	{NULL, "memory", JSON_OBJECT},
	{NULL, "cpu", JSON_OBJECT},
	{NULL, "pids", JSON_OBJECT},
	{NULL, "blockIO", JSON_OBJECT},
	{NULL, "network", JSON_OBJECT},
	{NULL, "rdma", JSON_OBJECT},
	{NULL, "unified", JSON_OBJECT},
	{NULL, "hugepageLimits", JSON_ARRAY},
	{NULL, "devices", JSON_ARRAY},
	{"memory", "limit", JSON_INTEGER},
	{"memory", "reservation", JSON_INTEGER},
	{"memory", "swap", JSON_INTEGER},
	{"memory", "kernel", JSON_INTEGER},
	{"memory", "kernelTCP", JSON_INTEGER},
	{"memory", "swappiness", JSON_INTEGER},
	{"memory", "disableOOMKiller", JSON_TRUE},
	{"cpu", "shares", JSON_INTEGER},
	{"cpu", "quota", JSON_INTEGER},
	{"cpu", "period", JSON_INTEGER},
	{"cpu", "realtimePeriod", JSON_INTEGER},
	{"cpu", "realtimeRuntime", JSON_INTEGER},
	{"cpu", "cpus", JSON_STRING},
	{"cpu", "mems", JSON_STRING},
	{"pids", "limit", JSON_INTEGER},
	{"blockIO", "weight", JSON_INTEGER},
	{"blockIO", "leafWeight", JSON_INTEGER},
	{"blockIO", "weightDevice", JSON_ARRAY},
	{"blockIO", "throttleReadBpsDevice", JSON_ARRAY},
	{"blockIO", "throttleWriteBpsDevice", JSON_ARRAY},
	{"blockIO", "throttleReadIOPSDevice", JSON_ARRAY},
	{"blockIO", "throttleWriteIOPSDevice", JSON_ARRAY},
	{"network", "classID", JSON_INTEGER},
	{"network", "priorities", JSON_ARRAY},
};

/* Of the members of a list, which are objects. */
static const struct element {
	const char *section, *list;
	struct {
		const char *key;
		json_type type;
	} keys[4];
} element_types[] = {
	{NULL, "hugepageLimits", {{"pageSize", JSON_STRING}, {"limit", JSON_INTEGER}}},
	{"blockIO",
	 "weightDevice",
	 {{"major", JSON_INTEGER},
	  {"minor", JSON_INTEGER},
	  {"weight", JSON_INTEGER},
	  {"leafWeight", JSON_INTEGER}}},
#define THROTTLE(name)                                                    \
	{                                                                 \
		"blockIO", name,                                          \
		{                                                         \
			{"major", JSON_INTEGER}, {"minor", JSON_INTEGER}, \
			{                                                 \
				"rate", JSON_INTEGER                      \
			}                                                 \
		}                                                         \
	}
	THROTTLE("throttleReadBpsDevice"),
	THROTTLE("throttleWriteBpsDevice"),
	THROTTLE("throttleReadIOPSDevice"),
	THROTTLE("throttleWriteIOPSDevice"),
#undef THROTTLE
	{"network", "priorities", {{"name", JSON_STRING}, {"priority", JSON_INTEGER}}},
	{NULL, "rdma", {{"hcaHandles", JSON_INTEGER}, {"hcaObjects", JSON_INTEGER}}},
};

static bool of_type(const json_t *j, json_type type)
{
	return !j || json_is_null(j) || json_typeof(j) == type;
}

/* `at` is a number, or the key of rdma's devices. */
static int check_element(const struct element *e, const json_t *element, const char *at, char *why)
{
	const char *key = "";
	bool good = json_is_object(element);

	for (size_t k = 0; good && k < ARRAY_SIZE(e->keys) && e->keys[k].key; k++) {
		key = e->keys[k].key;
		good = of_type(json_object_get(element, key), e->keys[k].type);
	}
	if (good)
		return 0;
	snprintf(why, OCI_ERROR_MAX, "linux.resources.%s%s%s[%.40s]%s%s is of the wrong type",
		 e->section ? e->section : "", e->section ? "." : "", e->list, at, *key ? "." : "",
		 key);
	return -EINVAL;
}

/* A rate that is no number would be none: nothing limited. */
static int check_elements(const json_t *resources, char *why)
{
	int err = 0;

	for (size_t i = 0; i < ARRAY_SIZE(element_types); i++) {
		const struct element *e = &element_types[i];
		const json_t *in = e->section ? json_object_get(resources, e->section) : resources,
			     *list = json_object_get(in, e->list), *v;
		const char *key;

		for (size_t n = 0; n < json_array_size(list) && !err; n++) {
			char at[24];

			snprintf(at, sizeof(at), "%zu", n);
			err = check_element(e, json_array_get(list, n), at, why);
		}
		json_object_foreach((json_t *)list, key, v)
		{
			err = err ? err : check_element(e, v, key, why);
		}
	}
	return err;
}

int oci_resources_check(const json_t *resources, char *why)
{
	long long swappiness;

	for (size_t i = 0; i < ARRAY_SIZE(resource_types); i++) {
		const struct resource *r = &resource_types[i];
		const json_t *in = r->section ? json_object_get(resources, r->section) : resources,
			     *j = json_object_get(in, r->key);

		if (!j || json_is_null(j) || json_typeof(j) == r->type ||
		    (r->type == JSON_TRUE && json_is_boolean(j)))
			continue;
		snprintf(why, OCI_ERROR_MAX, "linux.resources.%s%s%s is of the wrong type",
			 r->section ? r->section : "", r->section ? "." : "", r->key);
		return -EINVAL;
	}
	if (check_elements(resources, why))
		return -EINVAL;
	swappiness = number(json_object_get(resources, "memory"), "swappiness");
	/* -1, which is 2^64-1 in the specification's type, is as if it were not there, as in runc. */
	if ((swappiness >= -1 && swappiness <= 100) || swappiness == INT64_MAX)
		return 0;
	snprintf(why, OCI_ERROR_MAX, "invalid memory swappiness value: %lld (valid range is 0-100)",
		 swappiness);
	return -EINVAL;
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

/* ---- the section ---- */

static void parse_namespaces(struct oci_parse *p, const json_t *l)
{
	static const char *const types[] = {"pid", "network", "mount",	"ipc",
					    "uts", "user",    "cgroup", "time"};
	const json_t *list = oci_member(p, l, "linux", "namespaces", JSON_ARRAY);
	unsigned seen = 0;

	p->c->uid_mappings = oci_member(p, l, "linux", "uidMappings", JSON_ARRAY);
	p->c->gid_mappings = oci_member(p, l, "linux", "gidMappings", JSON_ARRAY);
	for (size_t i = 0; i < json_array_size(list) && !p->err; i++) {
		const json_t *ns = json_array_get(list, i);
		const char *type = oci_member_string(p, ns, "linux.namespaces[]", "type"),
			   *path = oci_member_string(p, ns, "linux.namespaces[]", "path");
		unsigned k = 0;

		while (k < ARRAY_SIZE(types) && (!type || strcmp(type, types[k]) != 0))
			k++;
		if (k == ARRAY_SIZE(types)) {
			oci_parse_error(p, "linux.namespaces[%zu].type '%s' is no namespace", i,
					type ? type : "");
		} else if (seen & 1u << k) {
			oci_parse_error(p, "linux.namespaces has '%s' twice", type);
		} else if (path && *path && path[0] != '/') {
			oci_parse_error(p, "linux.namespaces[%zu].path '%s' is not absolute", i,
					path);
		} else if (k == 0) {
			p->c->pid_ns = true;
			p->c->pid_ns_path = path && *path ? path : NULL;
		} else if (k == 3) {
			p->c->ipc_ns = true;
			p->c->ipc_ns_path = path && *path ? path : NULL;
		} else if (k == 1) {
			p->c->net_ns = true;
			p->c->net_ns_path = path && *path ? path : NULL;
		} else if (k == 4) {
			p->c->uts_ns = true;
			p->c->uts_ns_path = path && *path ? path : NULL;
		} else if (k == 5) {
			p->c->user_ns = true;
			p->c->user_ns_path = path && *path ? path : NULL;
		} else if (k == 6) {
			p->c->cgroup_ns = !path || !*path;
		}
		seen |= 1u << k;
	}
}

/* Adds a string to a NULL-terminated vector whose count is known; takes s. */
static void strv_add(struct oci_parse *p, char ***v, size_t *count, char *s)
{
	char **grown = s ? realloc(*v, (*count + 2) * sizeof(*grown)) : NULL;

	if (!grown) {
		free(s);
		p->err = -ENOMEM;
		return;
	}
	*v = grown;
	grown[(*count)++] = s;
	grown[*count] = NULL;
}

static void parse_devices(struct oci_parse *p, const json_t *l)
{
	const json_t *list = oci_member(p, l, "linux", "devices", JSON_ARRAY);
	size_t count = 0;

	for (size_t i = 0; i < json_array_size(list) && !p->err; i++) {
		const json_t *d = json_array_get(list, i);
		const char *path = oci_member_string(p, d, "linux.devices[]", "path"),
			   *type = oci_member_string(p, d, "linux.devices[]", "type");
		char *line = NULL;

		if (p->err)
			return;
		if (!path || path[0] != '/' || !type || strlen(type) != 1 ||
		    !strchr("cubp", type[0])) {
			oci_parse_error(p,
					"linux.devices[%zu] needs an absolute path and a type of "
					"c, u, b or p",
					i);
			return;
		}
		if (asprintf(
			    &line, "%c %u %u %o %u %u %s", type[0] == 'u' ? 'c' : type[0],
			    (unsigned)oci_member_uint(p, d, "linux.devices[]", "major", UINT32_MAX),
			    (unsigned)oci_member_uint(p, d, "linux.devices[]", "minor", UINT32_MAX),
			    oci_member(p, d, "linux.devices[]", "fileMode", JSON_INTEGER)
				    ? (unsigned)oci_member_uint(p, d, "linux.devices[]", "fileMode",
								UINT32_MAX) &
					      07777
				    : 0666,
			    (unsigned)oci_member_uint(p, d, "linux.devices[]", "uid",
						      UINT32_MAX - 1),
			    (unsigned)oci_member_uint(p, d, "linux.devices[]", "gid",
						      UINT32_MAX - 1),
			    path) < 0)
			line = NULL;
		strv_add(p, &p->c->spec.devices, &count, line);
	}
}

static void parse_sysctl(struct oci_parse *p, const json_t *l)
{
	const json_t *obj = oci_member(p, l, "linux", "sysctl", JSON_OBJECT), *v;
	const char *key;
	size_t count = 0;

	json_object_foreach((json_t *)obj, key, v)
	{
		char *line = NULL;

		if (!json_is_string(v) || strstr(key, "..") || key[0] == '/') {
			oci_parse_error(
				p, "linux.sysctl: '%s' needs a string, and a name with dots", key);
			return;
		}
		if (asprintf(&line, "%s=%s", key, json_string_value(v)) < 0)
			line = NULL;
		strv_add(p, &p->c->spec.sysctls, &count, line);
		if (p->err)
			return;
	}
}

static void parse_seccomp(struct oci_parse *p, const json_t *l)
{
	const json_t *s = oci_member(p, l, "linux", "seccomp", JSON_OBJECT);
	char why[OCI_ERROR_MAX];
	int err;

	if (!s || p->err)
		return;
	err = oci_seccomp_compile(s, &p->c->spec.seccomp, why);
	if (err == -EINVAL)
		oci_parse_error(p, "%.250s", why);
	else if (err)
		p->err = err;
}

/* What a program or its administrator would rely on is refused; what only places it is ignored with a warning. */
static void parse_unsupported(struct oci_parse *p, const json_t *l)
{
	const json_t *offsets = oci_member(p, l, "linux", "timeOffsets", JSON_OBJECT),
		     *person = oci_member(p, l, "linux", "personality", JSON_OBJECT), *v;
	const char *domain, *clock;

	json_object_foreach((json_t *)offsets, clock, v)
	{
		const json_t *secs = json_object_get(v, "secs"),
			     *nanosecs = json_object_get(v, "nanosecs");

		if (json_integer_value(secs) || json_integer_value(nanosecs) ||
		    !of_type(secs, JSON_INTEGER) || !of_type(nanosecs, JSON_INTEGER))
			oci_parse_error(p,
					"linux.timeOffsets.%.20s: clocks with an offset are not "
					"supported",
					clock);
	}
	if (oci_member(p, l, "linux", "intelRdt", JSON_OBJECT))
		oci_parse_error(p, "linux.intelRdt is specified, but Intel RDT is not enabled");
	domain = person ? oci_member_string(p, person, "linux.personality", "domain") : NULL;
	if (domain && strcmp(domain, "LINUX32") == 0)
		p->c->spec.personality = PER_LINUX32;
	else if (person && (!domain || strcmp(domain, "LINUX") != 0))
		oci_parse_error(p, "linux.personality.domain '%s' is none of LINUX, LINUX32",
				domain ? domain : "");
	if (person && json_array_size(json_object_get(person, "flags")))
		oci_parse_error(p, "linux.personality.flags are not supported");
	oci_note_ignored(p, l, "linux", "memoryPolicy");
	oci_note_ignored(p, l, "linux", "netDevices");
}

void oci_parse_linux(struct oci_parse *p, const json_t *root)
{
	const json_t *l = oci_member(p, root, "", "linux", JSON_OBJECT);
	struct boot_spec *s = &p->c->spec;
	char why[OCI_ERROR_MAX];
	const char *prop;

	if (!l || p->err)
		return;
	s->masked_paths = oci_member_strv(p, l, "linux", "maskedPaths");
	s->readonly_paths = oci_member_strv(p, l, "linux", "readonlyPaths");
	prop = oci_member_string(p, l, "linux", "rootfsPropagation");
	if (prop) {
		uint64_t flags = 0;

		if (!oci_mount_option(prop, &flags, &s->rootfs_propagation) ||
		    !s->rootfs_propagation)
			oci_parse_error(p,
					"linux.rootfsPropagation '%s' is none of shared, slave, "
					"private, unbindable",
					prop);
	}
	p->c->resources = oci_member(p, l, "linux", "resources", JSON_OBJECT);
	if (!p->err && oci_resources_check(p->c->resources, why))
		oci_parse_error(p, "%.250s", why);
	if (!p->err && oci_resources_to_spec(p->c->resources, s))
		p->err = -ENOMEM;
	p->c->cgroups_path = oci_member_string(p, l, "linux", "cgroupsPath");
	parse_namespaces(p, l);
	parse_devices(p, l);
	parse_sysctl(p, l);
	parse_seccomp(p, l);
	parse_unsupported(p, l);
}
