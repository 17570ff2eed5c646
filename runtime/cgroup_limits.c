/*
 * runtime/cgroup_limits.c - linux.resources written into cgroup files, and figures read from them in runc's form.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "runtime/cgroup.h"
#include "runtime/cli.h"
#include "runtime/systemd.h"

#define FILE_MAX (1u << 20)
#define CPUS_MAX 8192

struct apply {
	const struct cgroup *cg;
	char *why;
	int err;
};

static const char *dir_of(const struct cgroup *cg, const char *controller)
{
	size_t len = strlen(controller);

	for (unsigned i = 0; i < cg->ndirs; i++) {
		const char *list = cg->dirs[i].controllers;

		if (cg->version == 2)
			return cg->dirs[i].path;
		while (*list) {
			size_t n = strcspn(list, ",");

			if (n == len && memcmp(list, controller, len) == 0)
				return cg->dirs[i].path;
			list += n + (list[n] == ',');
		}
	}
	return NULL;
}

static char *read_file(const struct cgroup *cg, const char *controller, const char *file)
{
	const char *dir = dir_of(cg, controller);
	char path[4600], *text = NULL;
	size_t size;

	if (!dir)
		return NULL;
	snprintf(path, sizeof(path), "%s/%s", dir, file);
	if (io_read_file_at(AT_FDCWD, path, FILE_MAX, &text, &size))
		return NULL;
	while (size && text[size - 1] == '\n')
		text[--size] = '\0';
	return text;
}

/* Writes; a file that is not there is a warning (the host lacks the controller), any other failure an error. */
static void put(struct apply *a, const char *controller, const char *file, const char *value)
{
	const char *dir = dir_of(a->cg, controller);
	char path[4600];
	int fd;

	if (a->err)
		return;
	if (!dir) {
		cli_warn("the host has no %s cgroup controller: %s is not set", controller, file);
		return;
	}
	snprintf(path, sizeof(path), "%s/%s", dir, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT) {
		cli_warn("the host's %s cgroup controller has no %s: it is not set", controller,
			 file);
		return;
	}
	if (fd < 0 || write(fd, value, strlen(value)) < 0) {
		a->err = -errno;
		snprintf(a->why, CGROUP_ERROR_MAX, "failed to write \"%.60s\" to %.180s: %s", value,
			 path, strerror(errno));
	}
	if (fd >= 0)
		close(fd);
}

static void put_int(struct apply *a, const char *controller, const char *file, long long v)
{
	char text[32];

	snprintf(text, sizeof(text), "%lld", v);
	put(a, controller, file, text);
}

/* "max" for what is unlimited. */
static void put_max(struct apply *a, const char *controller, const char *file, long long v)
{
	if (v < 0)
		put(a, controller, file, "max");
	else
		put_int(a, controller, file, v);
}

/* The number `name` of obj; false if absent or null. */
static bool number(const json_t *obj, const char *name, long long *ret)
{
	const json_t *j = json_object_get(obj, name);

	if (!json_is_integer(j))
		return false;
	*ret = json_integer_value(j);
	return true;
}

static void apply_memory_v1(struct apply *a, const json_t *m)
{
	long long limit = 0, swap = 0, v;
	bool has_limit = number(m, "limit", &limit) && limit,
	     has_swap = number(m, "swap", &swap) && swap;

	/* Each must not pass the other: when both change, the order depends on the direction. */
	if (has_limit && has_swap) {
		auto_free char *now = read_file(a->cg, "memory", "memory.memsw.limit_in_bytes");
		bool grow = swap < 0 || (now && strtoull(now, NULL, 10) < (unsigned long long)swap);

		if (grow) {
			put_int(a, "memory", "memory.memsw.limit_in_bytes", swap);
			put_int(a, "memory", "memory.limit_in_bytes", limit);
		} else {
			put_int(a, "memory", "memory.limit_in_bytes", limit);
			put_int(a, "memory", "memory.memsw.limit_in_bytes", swap);
		}
	} else if (has_limit) {
		put_int(a, "memory", "memory.limit_in_bytes", limit);
	} else if (has_swap) {
		put_int(a, "memory", "memory.memsw.limit_in_bytes", swap);
	}
	if (a->err == -EBUSY) {
		auto_free char *usage = read_file(a->cg, "memory", "memory.usage_in_bytes"),
			       *peak = read_file(a->cg, "memory", "memory.max_usage_in_bytes");

		snprintf(a->why, CGROUP_ERROR_MAX,
			 "unable to set memory limit to %lld (current usage: %.20s, peak usage: "
			 "%.20s)",
			 limit, usage ? usage : "?", peak ? peak : "?");
	}
	if (number(m, "reservation", &v) && v)
		put_int(a, "memory", "memory.soft_limit_in_bytes", v);
	if (number(m, "kernelTCP", &v) && v)
		put_int(a, "memory", "memory.kmem.tcp.limit_in_bytes", v);
	if (number(m, "swappiness", &v) && v >= 0 && v <= 100)
		put_int(a, "memory", "memory.swappiness", v);
	if (json_is_true(json_object_get(m, "disableOOMKiller")))
		put(a, "memory", "memory.oom_control", "1");
}

static void apply_memory_v2(struct apply *a, const json_t *m)
{
	long long limit = 0, swap = 0, v;

	number(m, "limit", &limit);
	if (number(m, "swap", &swap) && swap) {
		if (swap > 0 && limit > 0)
			put_int(a, "memory", "memory.swap.max", swap >= limit ? swap - limit : 0);
		else if (swap < 0)
			put(a, "memory", "memory.swap.max", "max");
	}
	if (limit)
		put_max(a, "memory", "memory.max", limit);
	if (number(m, "reservation", &v) && v)
		put_max(a, "memory", "memory.low", v);
}

static void apply_cpu(struct apply *a, const json_t *cpu)
{
	long long shares = 0, quota = 0, period = 0, v;
	const char *s;
	char text[64];

	number(cpu, "shares", &shares);
	number(cpu, "quota", &quota);
	number(cpu, "period", &period);
	if (a->cg->version == 2) {
		if (shares)
			put_int(a, "cpu", "cpu.weight", (long long)cgroup_weight_of_shares(shares));
		if (quota || period) {
			if (quota > 0)
				snprintf(text, sizeof(text), "%lld %lld", quota,
					 period ? period : 100000);
			else
				snprintf(text, sizeof(text), "max %lld", period ? period : 100000);
			put(a, "cpu", "cpu.max", text);
		}
	} else {
		/* The kernel would take the nearest that it allows. */
		if (!a->err && shares &&
		    (shares < CGROUP_SHARES_MIN || shares > CGROUP_SHARES_MAX)) {
			a->err = -EINVAL;
			snprintf(a->why, CGROUP_ERROR_MAX, "the %s allowed cpu-shares is %d",
				 shares < CGROUP_SHARES_MIN ? "minimum" : "maximum",
				 shares < CGROUP_SHARES_MIN ? CGROUP_SHARES_MIN
							    : CGROUP_SHARES_MAX);
		}
		if (shares)
			put_int(a, "cpu", "cpu.shares", shares);
		if (period)
			put_int(a, "cpu", "cpu.cfs_period_us", period);
		if (quota)
			put_int(a, "cpu", "cpu.cfs_quota_us", quota);
		if (number(cpu, "realtimePeriod", &v) && v)
			put_int(a, "cpu", "cpu.rt_period_us", v);
		if (number(cpu, "realtimeRuntime", &v) && v)
			put_int(a, "cpu", "cpu.rt_runtime_us", v);
	}
	s = json_string_value(json_object_get(cpu, "cpus"));
	if (s && *s)
		put(a, "cpuset", "cpuset.cpus", s);
	s = json_string_value(json_object_get(cpu, "mems"));
	if (s && *s)
		put(a, "cpuset", "cpuset.mems", s);
}

static void apply_throttle(struct apply *a, const json_t *list, const char *file_v1,
			   const char *key_v2)
{
	size_t i;
	json_t *e;

	json_array_foreach(list, i, e)
	{
		long long major = 0, minor = 0, rate = 0;
		char text[96];

		number(e, "major", &major);
		number(e, "minor", &minor);
		number(e, "rate", &rate);
		if (a->cg->version == 2) {
			snprintf(text, sizeof(text), "%lld:%lld %s=%lld", major, minor, key_v2,
				 rate);
			put(a, "io", "io.max", text);
		} else {
			snprintf(text, sizeof(text), "%lld:%lld %lld", major, minor, rate);
			put(a, "blkio", file_v1, text);
		}
	}
}

static void apply_blkio(struct apply *a, const json_t *b)
{
	long long w;

	if (number(b, "weight", &w) && w) {
		if (a->cg->version == 2)
			put_int(a, "io", "io.bfq.weight", w);
		else
			put_int(a, "blkio", "blkio.weight", w);
	}
	apply_throttle(a, json_object_get(b, "throttleReadBpsDevice"),
		       "blkio.throttle.read_bps_device", "rbps");
	apply_throttle(a, json_object_get(b, "throttleWriteBpsDevice"),
		       "blkio.throttle.write_bps_device", "wbps");
	apply_throttle(a, json_object_get(b, "throttleReadIOPSDevice"),
		       "blkio.throttle.read_iops_device", "riops");
	apply_throttle(a, json_object_get(b, "throttleWriteIOPSDevice"),
		       "blkio.throttle.write_iops_device", "wiops");
}

int cgroup_apply(const struct cgroup *cg, const json_t *resources, char *why)
{
	struct apply a = {.cg = cg, .why = why};
	const json_t *m = json_object_get(resources, "memory");
	const char *key;
	long long pids;
	json_t *v;

	if (!cg->version || !resources)
		return 0;
	if (cg->unit)
		a.err = systemd_set_resources(cg, resources, why);
	if (cg->version == 2)
		apply_memory_v2(&a, m);
	else
		apply_memory_v1(&a, m);
	apply_cpu(&a, json_object_get(resources, "cpu"));
	if (number(json_object_get(resources, "pids"), "limit", &pids) && pids)
		put_max(&a, "pids", "pids.max", cgroup_host_pids(pids));
	apply_blkio(&a, json_object_get(resources, "blockIO"));
	if (cg->version == 2)
		json_object_foreach((json_t *)json_object_get(resources, "unified"), key, v)
		{
			if (strchr(key, '/') || !json_is_string(v))
				continue;
			put(&a, "unified", key, json_string_value(v));
		}
	return a.err;
}

/* ---- figures ---- */

static long long file_number(const struct cgroup *cg, const char *controller, const char *file)
{
	auto_free char *text = read_file(cg, controller, file);
	unsigned long long v;

	if (!text || strcmp(text, "max") == 0)
		return text ? -1 : 0;
	v = strtoull(text, NULL, 10);
	return v > INT64_MAX ? INT64_MAX : (long long)v;
}

/* "name number" lines as an object. */
static json_t *file_table(const struct cgroup *cg, const char *controller, const char *file)
{
	auto_free char *text = read_file(cg, controller, file);
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
	auto_free char *text = read_file(cg, controller, file);
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
	auto_free char *text = read_file(cg, "cpuacct", "cpuacct.usage_all");
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
	auto_free char *text = read_file(cg, "cpuset", file);
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

	if (!dir_of(cg, "cpuset"))
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

json_t *cgroup_stats(const struct cgroup *cg)
{
	static const char *const empty[] = {"blkio", "hugetlb", "intel_rdt"};
	json_t *j = cg->version == 2 ? stats_v2(cg) : cg->version == 1 ? stats_v1(cg) : NULL;

	if (!j)
		return json_object();
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
