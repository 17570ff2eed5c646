/*
 * runtime/cgroup_limits.c - linux.resources written into cgroup files.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "runtime/cgroup.h"
#include "runtime/cgroup_files.h"
#include "runtime/cli.h"
#include "runtime/systemd.h"

struct apply {
	const struct cgroup *cg;
	char *why;
	int err;
};

/* Writes; a file that is not there is a warning (the host lacks the controller), any other failure an error. */
static void put(struct apply *a, const char *controller, const char *file, const char *value)
{
	const char *dir = cgroup_dir_of(a->cg, controller);
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
		auto_free char *now = cgroup_read(a->cg, "memory", "memory.memsw.limit_in_bytes");
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
		auto_free char *usage = cgroup_read(a->cg, "memory", "memory.usage_in_bytes"),
			       *peak = cgroup_read(a->cg, "memory", "memory.max_usage_in_bytes");

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

/* The scheduler that weighs is BFQ on today's hosts, CFQ on old ones, or v2's own with another scale. */
static const char *weight_file(const struct apply *a, bool device)
{
	auto_free char *bfq =
		cgroup_read(a->cg, a->cg->version == 2 ? "io" : "blkio",
			    a->cg->version == 2 ? "io.bfq.weight" : "blkio.bfq.weight");

	if (a->cg->version == 2)
		return bfq ? "io.bfq.weight" : "io.weight";
	if (bfq)
		return device ? "blkio.bfq.weight_device" : "blkio.bfq.weight";
	return device ? "blkio.weight_device" : "blkio.weight";
}

static void apply_weights(struct apply *a, const json_t *b)
{
	const char *controller = a->cg->version == 2 ? "io" : "blkio";
	json_t *e;
	size_t i;
	long long w;

	if (number(b, "weight", &w) && w) {
		const char *file = weight_file(a, false);

		/* 10 to 1000 as 1 to 10000. */
		if (strcmp(file, "io.weight") == 0)
			w = 1 + (w - 10) * 9999 / 990;
		put_int(a, controller, file, w);
	}
	if (number(b, "leafWeight", &w) && w)
		put_int(a, controller, "blkio.leaf_weight", w);
	json_array_foreach(json_object_get(b, "weightDevice"), i, e)
	{
		long long major = 0, minor = 0;
		char text[96];

		number(e, "major", &major);
		number(e, "minor", &minor);
		if (number(e, "weight", &w) && w) {
			snprintf(text, sizeof(text), "%lld:%lld %lld", major, minor, w);
			put(a, controller, weight_file(a, true), text);
		}
		if (number(e, "leafWeight", &w) && w) {
			snprintf(text, sizeof(text), "%lld:%lld %lld", major, minor, w);
			put(a, controller, "blkio.leaf_weight_device", text);
		}
	}
}

static void apply_blkio(struct apply *a, const json_t *b)
{
	apply_weights(a, b);
	apply_throttle(a, json_object_get(b, "throttleReadBpsDevice"),
		       "blkio.throttle.read_bps_device", "rbps");
	apply_throttle(a, json_object_get(b, "throttleWriteBpsDevice"),
		       "blkio.throttle.write_bps_device", "wbps");
	apply_throttle(a, json_object_get(b, "throttleReadIOPSDevice"),
		       "blkio.throttle.read_iops_device", "riops");
	apply_throttle(a, json_object_get(b, "throttleWriteIOPSDevice"),
		       "blkio.throttle.write_iops_device", "wiops");
}

/* Part of a file's name. */
static bool name_safe(const char *name)
{
	return name && *name && strlen(name) < 32 && !strpbrk(name, "/\n ");
}

static void refuse_name(struct apply *a, const char *where, const char *name)
{
	if (a->err)
		return;
	a->err = -EINVAL;
	snprintf(a->why, CGROUP_ERROR_MAX, "linux.resources.%s: '%.60s' is no name", where,
		 name ? name : "");
}

static void apply_hugetlb(struct apply *a, const json_t *list)
{
	json_t *e;
	size_t i;

	json_array_foreach(list, i, e)
	{
		const char *size = json_string_value(json_object_get(e, "pageSize"));
		char file[64];
		long long limit;

		if (!name_safe(size) || !number(e, "limit", &limit)) {
			a->err = a->err ? a->err : -EINVAL;
			snprintf(a->why, CGROUP_ERROR_MAX,
				 "linux.resources.hugepageLimits[%zu] needs a pageSize and a limit",
				 i);
			return;
		}
		snprintf(file, sizeof(file), "hugetlb.%s.%s", size,
			 a->cg->version == 2 ? "max" : "limit_in_bytes");
		put_int(a, "hugetlb", file, limit);
	}
}

static void apply_network(struct apply *a, const json_t *n)
{
	long long v;
	json_t *e;
	size_t i;

	if (number(n, "classID", &v) && v)
		put_int(a, "net_cls", "net_cls.classid", v);
	json_array_foreach(json_object_get(n, "priorities"), i, e)
	{
		const char *name = json_string_value(json_object_get(e, "name"));
		char text[64];

		if (!name_safe(name)) {
			refuse_name(a, "network.priorities", name);
			return;
		}
		v = 0;
		number(e, "priority", &v);
		snprintf(text, sizeof(text), "%s %lld", name, v);
		put(a, "net_prio", "net_prio.ifpriomap", text);
	}
}

static void apply_rdma(struct apply *a, const json_t *devices)
{
	const char *device;
	json_t *e;

	json_object_foreach((json_t *)devices, device, e)
	{
		char text[128];
		long long v;
		int n;

		if (!name_safe(device)) {
			refuse_name(a, "rdma", device);
			return;
		}
		n = snprintf(text, sizeof(text), "%s", device);
		if (number(e, "hcaHandles", &v))
			n += snprintf(text + n, sizeof(text) - (size_t)n, " hca_handle=%lld", v);
		if (number(e, "hcaObjects", &v))
			snprintf(text + n, sizeof(text) - (size_t)n, " hca_object=%lld", v);
		put(a, "rdma", "rdma.max", text);
	}
}

/* v2's files by name. */
static void apply_unified(struct apply *a, const json_t *files)
{
	const char *file;
	json_t *v;

	if (a->cg->version != 2 && json_object_size(files) && !a->err) {
		a->err = -EINVAL;
		snprintf(a->why, CGROUP_ERROR_MAX, "cannot use unified on cgroup v1");
	}
	json_object_foreach((json_t *)files, file, v)
	{
		if (!a->err && (strchr(file, '/') || !json_is_string(v))) {
			a->err = -EINVAL;
			snprintf(a->why, CGROUP_ERROR_MAX,
				 "unified resource \"%.60s\" must be a file name (no slashes) with "
				 "a string",
				 file);
		}
		if (!a->err)
			put(a, "unified", file, json_string_value(v));
	}
}

int cgroup_apply(const struct cgroup *cg, const json_t *resources, char *why)
{
	struct apply a = {.cg = cg, .why = why};
	const json_t *m = json_object_get(resources, "memory");
	long long pids;

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
	apply_hugetlb(&a, json_object_get(resources, "hugepageLimits"));
	apply_network(&a, json_object_get(resources, "network"));
	apply_rdma(&a, json_object_get(resources, "rdma"));
	apply_unified(&a, json_object_get(resources, "unified"));
	return a.err;
}
