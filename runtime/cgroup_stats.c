/* runtime/cgroup_stats.c - figures of a cgroup, in runc's form. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "runtime/cgroup.h"
#include "runtime/cgroup_files.h"

#define CPUS_MAX 8192

static long long file_number(const struct cgroup *cg, const char *controller, const char *file)
{
	auto_free char *text = cgroup_read(cg, controller, file);
	unsigned long long v;

	if (!text || strcmp(text, "max") == 0)
		return text ? -1 : 0;
	v = strtoull(text, NULL, 10);
	return v > INT64_MAX ? INT64_MAX : (long long)v;
}

/* "name number" lines as an object. */
static json_t *file_table(const struct cgroup *cg, const char *controller, const char *file)
{
	auto_free char *text = cgroup_read(cg, controller, file);
	json_t *j = json_object();
	char *save = NULL;

	for (char *l = text ? strtok_r(text, "\n", &save) : NULL; l;
	     l = strtok_r(NULL, "\n", &save)) {
		char *space = strchr(l, ' ');

		if (!space)
			continue;
		*space = '\0';
		json_object_set_new(j, l, json_integer((json_int_t)strtoull(space + 1, NULL, 10)));
	}
	return j;
}

static long long table_number(const json_t *t, const char *name)
{
	return json_integer_value(json_object_get(t, name));
}

static json_t *memory_data(const struct cgroup *cg, const char *prefix)
{
	char file[64];
	json_t *j = json_object();
	static const char *const fields[][2] = {{"limit", "limit_in_bytes"},
						{"usage", "usage_in_bytes"},
						{"max", "max_usage_in_bytes"},
						{"failcnt", "failcnt"}};

	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		long long v;

		snprintf(file, sizeof(file), "%s.%s", prefix, fields[i][1]);
		v = file_number(cg, "memory", file);
		/* As runc: usage and max are left out when zero. */
		if (v || i == 0 || i == 3)
			json_object_set_new(j, fields[i][0], json_integer(v));
	}
	return j;
}

static json_t *numbers(const struct cgroup *cg, const char *controller, const char *file)
{
	auto_free char *text = cgroup_read(cg, controller, file);
	json_t *list = json_array();
	char *save = NULL;

	for (char *w = text ? strtok_r(text, " \n", &save) : NULL; w;
	     w = strtok_r(NULL, " \n", &save))
		json_array_append_new(list, json_integer((json_int_t)strtoull(w, NULL, 10)));
	return list;
}

/* A column of cpuacct.usage_all: a line a CPU, with its number, user and system time. */
static json_t *cpu_times(const struct cgroup *cg, int column)
{
	auto_free char *text = cgroup_read(cg, "cpuacct", "cpuacct.usage_all");
	json_t *list = json_array();
	char *save = NULL;

	for (char *l = text ? strtok_r(text, "\n", &save) : NULL; l;
	     l = strtok_r(NULL, "\n", &save)) {
		unsigned long long v[2];

		if (sscanf(l, "%*u %llu %llu", &v[0], &v[1]) == 2)
			json_array_append_new(list, json_integer((json_int_t)v[column]));
	}
	return list;
}

/* "0-2,5" as numbers. */
static json_t *cpu_list(const struct cgroup *cg, const char *file)
{
	auto_free char *text = cgroup_read(cg, "cpuset", file);
	json_t *list = json_array();

	for (char *p = text; p && *p;) {
		unsigned long from = strtoul(p, &p, 10), to = from;

		if (*p == '-')
			to = strtoul(p + 1, &p, 10);
		for (; from <= to && json_array_size(list) < CPUS_MAX; from++)
			json_array_append_new(list, json_integer((json_int_t)from));
		if (*p++ != ',')
			break;
	}
	return list;
}

static json_t *cpuset_data(const struct cgroup *cg)
{
	static const char *const flags[][2] = {{"cpu_exclusive", "cpuset.cpu_exclusive"},
					       {"mem_hardwall", "cpuset.mem_hardwall"},
					       {"mem_exclusive", "cpuset.mem_exclusive"},
					       {"memory_migrate", "cpuset.memory_migrate"},
					       {"memory_spread_page", "cpuset.memory_spread_page"},
					       {"memory_spread_slab", "cpuset.memory_spread_slab"},
					       {"memory_pressure", "cpuset.memory_pressure"},
					       {"sched_load_balance", "cpuset.sched_load_balance"},
					       {"sched_relax_domain_level",
						"cpuset.sched_relax_domain_level"}};
	json_t *j = json_object();

	if (!cgroup_dir_of(cg, "cpuset"))
		return j;
	json_object_set_new(j, "cpus", cpu_list(cg, "cpuset.cpus"));
	json_object_set_new(j, "mems", cpu_list(cg, "cpuset.mems"));
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
		json_object_set_new(j, flags[i][0],
				    json_integer(file_number(cg, "cpuset", flags[i][1])));
	return j;
}

/* As runc: what is zero is left out. */
static json_t *throttling(const json_t *cpu, const char *time_name, json_int_t time_unit)
{
	const struct {
		const char *name, *key;
		json_int_t unit;
	} fields[] = {{"periods", "nr_periods", 1},
		      {"throttledPeriods", "nr_throttled", 1},
		      {"throttledTime", time_name, time_unit}};
	json_t *j = json_object();

	for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
		if (table_number(cpu, fields[i].key))
			json_object_set_new(
				j, fields[i].name,
				json_integer(fields[i].unit * table_number(cpu, fields[i].key)));
	return j;
}

static json_t *pids_data(const struct cgroup *cg)
{
	long long max = file_number(cg, "pids", "pids.max");
	json_t *j = json_object();

	json_object_set_new(j, "current", json_integer(file_number(cg, "pids", "pids.current")));
	if (max > CGROUP_PIDS_EXTRA)
		json_object_set_new(j, "limit", json_integer(max - CGROUP_PIDS_EXTRA));
	return j;
}

static json_t *stats_v1(const struct cgroup *cg)
{
	json_t *cpu = file_table(cg, "cpu", "cpu.stat"),
	       *acct = file_table(cg, "cpuacct", "cpuacct.stat"),
	       *raw = file_table(cg, "memory", "memory.stat"), *memory, *j;
	long hz = sysconf(_SC_CLK_TCK);

	memory =
		json_pack("{so so so so}", "usage", memory_data(cg, "memory"), "swap",
			  memory_data(cg, "memory.memsw"), "kernel", memory_data(cg, "memory.kmem"),
			  "kernelTCP", memory_data(cg, "memory.kmem.tcp"));
	if (table_number(raw, "cache"))
		json_object_set_new(memory, "cache", json_integer(table_number(raw, "cache")));
	json_object_set_new(memory, "raw", raw);
	j = json_pack("{s{s{sI so so so sI sI} so} so so so}", "cpu", "usage", "total",
		      (json_int_t)file_number(cg, "cpuacct", "cpuacct.usage"), "percpu",
		      numbers(cg, "cpuacct", "cpuacct.usage_percpu"), "percpu_kernel",
		      cpu_times(cg, 1), "percpu_user", cpu_times(cg, 0), "kernel",
		      (json_int_t)(table_number(acct, "system") * 1000000000 / hz), "user",
		      (json_int_t)(table_number(acct, "user") * 1000000000 / hz), "throttling",
		      throttling(cpu, "throttled_time", 1), "cpuset", cpuset_data(cg), "memory",
		      memory, "pids", pids_data(cg));
	json_decref(cpu);
	json_decref(acct);
	return j;
}

/* As v1 counts it, memory is part of it. */
static json_t *swap_v2(const struct cgroup *cg, long long limit, long long usage)
{
	long long swap_limit = file_number(cg, "memory", "memory.swap.max"),
		  swap = file_number(cg, "memory", "memory.swap.current");

	return json_pack("{sI sI sI}", "limit",
			 (json_int_t)(limit < 0 || swap_limit < 0 ? INT64_MAX : limit + swap_limit),
			 "usage", (json_int_t)(usage + swap), "failcnt", (json_int_t)0);
}

static json_t *stats_v2(const struct cgroup *cg)
{
	json_t *cpu = file_table(cg, "cpu", "cpu.stat"),
	       *raw = file_table(cg, "memory", "memory.stat"),
	       *events = file_table(cg, "memory", "memory.events"), *j;
	long long limit = file_number(cg, "memory", "memory.max"),
		  usage = file_number(cg, "memory", "memory.current");

	j = json_pack("{s{s{sI sI sI} so} s{s{sI sI sI sI} so sI so} so}", "cpu", "usage", "total",
		      (json_int_t)(table_number(cpu, "usage_usec") * 1000), "kernel",
		      (json_int_t)(table_number(cpu, "system_usec") * 1000), "user",
		      (json_int_t)(table_number(cpu, "user_usec") * 1000), "throttling",
		      throttling(cpu, "throttled_usec", 1000), "memory", "usage", "limit",
		      (json_int_t)(limit < 0 ? INT64_MAX : limit), "usage", (json_int_t)usage,
		      "max", (json_int_t)file_number(cg, "memory", "memory.peak"), "failcnt",
		      (json_int_t)table_number(events, "max"), "swap", swap_v2(cg, limit, usage),
		      "cache", (json_int_t)table_number(raw, "file"), "raw", raw, "pids",
		      pids_data(cg));
	json_decref(cpu);
	json_decref(events);
	return j;
}

static void add_io(json_t *list, const char *major, const char *minor, const char *op,
		   unsigned long long value)
{
	json_t *j = json_object();

	/* As Go leaves out what is zero. */
	if (strtoul(major, NULL, 10))
		json_object_set_new(j, "major", json_integer((json_int_t)strtoul(major, NULL, 10)));
	if (strtoul(minor, NULL, 10))
		json_object_set_new(j, "minor", json_integer((json_int_t)strtoul(minor, NULL, 10)));
	json_object_set_new(j, "op", json_string(op));
	if (value)
		json_object_set_new(j, "value", json_integer((json_int_t)value));
	json_array_append_new(list, j);
}

/* v1: "MAJOR:MINOR OPERATION NUMBER" lines of the I/O scheduler that counts: CFQ, BFQ, or the throttle, which is always there. */
static json_t *io_v1(const struct cgroup *cg, const char *what)
{
	static const char *const by[] = {"blkio", "blkio.bfq", "blkio.throttle"};
	json_t *list = json_array();

	for (size_t i = 0; i < ARRAY_SIZE(by) && !json_array_size(list); i++) {
		char file[64], major[16], minor[16], op[16], *save = NULL;
		auto_free char *text = NULL;
		unsigned long long value;

		snprintf(file, sizeof(file), "%s.%s_recursive", by[i], what);
		text = cgroup_read(cg, "blkio", file);
		for (char *l = text ? strtok_r(text, "\n", &save) : NULL; l;
		     l = strtok_r(NULL, "\n", &save))
			if (sscanf(l, "%15[0-9]:%15[0-9] %15s %llu", major, minor, op, &value) == 4)
				add_io(list, major, minor, op, value);
	}
	return list;
}

/* v2's io.stat: "MAJOR:MINOR rbytes=N wbytes=N rios=N wios=N ..." lines. */
static void io_v2(const struct cgroup *cg, json_t *bytes, json_t *serviced)
{
	auto_free char *text = cgroup_read(cg, "io", "io.stat");
	char *save = NULL;

	for (char *l = text ? strtok_r(text, "\n", &save) : NULL; l;
	     l = strtok_r(NULL, "\n", &save)) {
		char major[16], minor[16];
		unsigned long long v[4];

		if (sscanf(l, "%15[0-9]:%15[0-9] rbytes=%llu wbytes=%llu rios=%llu wios=%llu",
			   major, minor, &v[0], &v[1], &v[2], &v[3]) != 6)
			continue;
		add_io(bytes, major, minor, "Read", v[0]);
		add_io(bytes, major, minor, "Write", v[1]);
		add_io(serviced, major, minor, "Read", v[2]);
		add_io(serviced, major, minor, "Write", v[3]);
	}
}

static json_t *blkio_data(const struct cgroup *cg)
{
	bool v1 = cg->version == 1;
	json_t *j = json_object(), *bytes = v1 ? io_v1(cg, "io_service_bytes") : json_array(),
	       *serviced = v1 ? io_v1(cg, "io_serviced") : json_array();

	if (!v1)
		io_v2(cg, bytes, serviced);
	if (json_array_size(bytes))
		json_object_set(j, "ioServiceBytesRecursive", bytes);
	if (json_array_size(serviced))
		json_object_set(j, "ioServicedRecursive", serviced);
	json_decref(bytes);
	json_decref(serviced);
	return j;
}

json_t *cgroup_stats(const struct cgroup *cg)
{
	static const char *const empty[] = {"hugetlb", "intel_rdt"};
	json_t *j = cg->version == 2 ? stats_v2(cg) : cg->version == 1 ? stats_v1(cg) : NULL;

	if (!j)
		return json_object();
	json_object_set_new(j, "blkio", blkio_data(cg));
	/* Of these there are no figures; runc names them. */
	for (size_t i = 0; i < ARRAY_SIZE(empty); i++)
		json_object_set_new(j, empty[i], json_object());
	json_object_set_new(j, "network_interfaces", json_null());
	return j;
}

uint64_t cgroup_oom_kills(const struct cgroup *cg)
{
	json_t *t =
		file_table(cg, "memory", cg->version == 2 ? "memory.events" : "memory.oom_control");
	uint64_t n = (uint64_t)table_number(t, "oom_kill");

	json_decref(t);
	return n;
}

bool cgroup_bounds_memory(const struct cgroup *cg)
{
	auto_free char *text = cgroup_read(
		cg, "memory", cg->version == 2 ? "memory.max" : "memory.limit_in_bytes");
	uint64_t bytes = text ? strtoull(text, NULL, 10) : 0; /* 0: "max" */

	/* v1's way to say "max" is the largest multiple of a page. */
	return bytes && bytes < INT64_MAX / 2;
}
