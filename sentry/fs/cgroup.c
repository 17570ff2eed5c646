/*
 * sentry/fs/cgroup.c - the container's cgroup as it sees it: the root of cgroup2, with the figures of its controllers.
 *
 * Whatever the host has (v1, hybrid, v2), a container finds the unified hierarchy at its mount point, with the root of its own cgroup
 * namespace: that is what runtimes of languages (Java, Go, Node) read to size themselves. Limits come from the configuration and from
 * `moat update`; use comes from the sentry's own accounting: processes, CPU time and memory of the reader's container. The host's limits on the sandbox lie a little above.
 *
 * Groups below it are made by mkdir(2) where it is mounted for writing: cgroup_group.c.
 *
 * Cannot do: change limits from inside (EPERM), hand controllers on to groups (EOPNOTSUPP), pressure files.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mem/memfile.h"
#include "sentry/fs/cgroup.h"
#include "sentry/fs/internal.h"
#include "sentry/task.h"

#define CPU_WEIGHT_DEFAULT 100u

static struct cgroup_limits get_limits(void)
{
	return task_cgroup_limits(task_cgroup_current());
}

#define SHOW(name)                                                                         \
	static int name(unused_arg struct synth_node *n, unused_arg struct synth_file *sf, \
			struct buf *b)

static void put_max(struct buf *b, uint64_t v)
{
	if (v && v < INT64_MAX)
		buf_printf(b, "%llu\n", (unsigned long long)v);
	else
		buf_puts(b, "max\n");
}

SHOW(const_show)
{
	buf_printf(b, "%s\n", (const char *)n->entry->data);
	return 0;
}

SHOW(cpu_max_show)
{
	struct cgroup_limits l = get_limits();
	unsigned long long period = l.cpu_period ? l.cpu_period : CPU_PERIOD_DEFAULT_US;

	if (l.cpu_quota > 0)
		buf_printf(b, "%lld %llu\n", (long long)l.cpu_quota, period);
	else
		buf_printf(b, "max %llu\n", period);
	return 0;
}

SHOW(cpu_weight_show)
{
	struct cgroup_limits l = get_limits();
	unsigned long long shares = l.cpu_shares;

	/* The conversion of the runtimes: [2, 262144] to [1, 10000]. */
	buf_printf(b, "%llu\n",
		   shares >= 2 ? 1 + ((MIN(shares, 262144ull) - 2) * 9999) / 262142
			       : (unsigned long long)CPU_WEIGHT_DEFAULT);
	return 0;
}

SHOW(cpu_stat_show)
{
	struct task_cgroup *cg = task_cgroup_current();
	struct thread_group *g;
	long long utime = 0, stime = 0;
	int32_t id = 1;

	while ((g = task_cgroup_next_group(cg, &id))) {
		struct task_times times, children;

		group_get_times(g, &times);
		group_get_child_times(g, &children);
		utime += times.utime_ns + children.utime_ns;
		stime += times.stime_ns + children.stime_ns;
		group_unref(g);
		id++;
	}
	buf_printf(b,
		   "usage_usec %lld\nuser_usec %lld\nsystem_usec %lld\nnr_periods 0\n"
		   "nr_throttled 0\nthrottled_usec 0\n",
		   (utime + stime) / 1000, utime / 1000, stime / 1000);
	return 0;
}

SHOW(cpus_show)
{
	struct cgroup_limits l = get_limits();

	buf_printf(b, "%s\n", l.cpus);
	return 0;
}

SHOW(cpus_effective_show)
{
	struct cgroup_limits l = get_limits();

	if (l.cpus[0])
		buf_printf(b, "%s\n", l.cpus);
	else if (kernel.cpus > 1)
		buf_printf(b, "0-%u\n", kernel.cpus - 1);
	else
		buf_puts(b, "0\n");
	return 0;
}

SHOW(mems_show)
{
	struct cgroup_limits l = get_limits();

	buf_printf(b, "%s\n", l.mems);
	return 0;
}

SHOW(memory_current_show)
{
	buf_printf(b, "%llu\n", (unsigned long long)task_cgroup_memory(task_cgroup_current()));
	return 0;
}

SHOW(memory_peak_show)
{
	struct task_cgroup *cg = task_cgroup_current();

	(void)task_cgroup_memory(cg);
	buf_printf(b, "%llu\n", (unsigned long long)atomic_load(&cg->memory_peak));
	return 0;
}

SHOW(memory_max_show)
{
	put_max(b, get_limits().memory_max);
	return 0;
}

SHOW(memory_events_show)
{
	struct task_cgroup *cg = task_cgroup_current();

	buf_printf(b, "low 0\nhigh 0\nmax %llu\noom %llu\noom_kill %llu\noom_group_kill 0\n",
		   (unsigned long long)atomic_load(&cg->memory_max_hits),
		   (unsigned long long)atomic_load(&cg->ooms),
		   (unsigned long long)atomic_load(&cg->oom_kills));
	return 0;
}

SHOW(memory_low_show)
{
	buf_printf(b, "%llu\n", (unsigned long long)get_limits().memory_low);
	return 0;
}

SHOW(swap_max_show)
{
	struct cgroup_limits l = get_limits();

	/* Configured as memory plus swap; the file is swap alone. */
	if (l.memory_swap >= l.memory_max && l.memory_max && l.memory_swap < INT64_MAX)
		buf_printf(b, "%llu\n", (unsigned long long)(l.memory_swap - l.memory_max));
	else
		buf_puts(b, "max\n");
	return 0;
}

SHOW(memory_stat_show)
{
	struct mem_stats ms;

	mem_get_stats(&ms);
	buf_printf(b, "anon %llu\nfile %llu\nshmem 0\nfile_mapped %llu\n",
		   (unsigned long long)task_cgroup_memory(task_cgroup_current()),
		   (unsigned long long)ms.window_bytes, (unsigned long long)ms.window_bytes);
	return 0;
}

SHOW(pids_current_show)
{
	buf_printf(b, "%d\n", atomic_load(&task_cgroup_current()->tasks));
	return 0;
}

SHOW(pids_events_show)
{
	buf_printf(b, "max %llu\n",
		   (unsigned long long)atomic_load(&task_cgroup_current()->pids_max_hits));
	return 0;
}

SHOW(pids_peak_show)
{
	buf_printf(b, "%d\n", atomic_load(&task_cgroup_current()->tasks_peak));
	return 0;
}

SHOW(pids_max_show)
{
	put_max(b, get_limits().pids_max);
	return 0;
}

/* As Linux to a namespace's root: what limits it is not its own to change. */
static ssize_t limit_store(unused_arg struct synth_node *n, unused_arg struct synth_file *sf,
			   unused_arg const char *data, unused_arg size_t size,
			   unused_arg int64_t off)
{
	return -EPERM;
}

#define OPS(var, fn)                               \
	static const struct synth_node_ops var = { \
		.setattr = synth_setattr_eperm, .show = fn, .store = limit_store}

OPS(const_ops, const_show);
OPS(cpu_max_ops, cpu_max_show);
OPS(cpu_weight_ops, cpu_weight_show);
OPS(cpu_stat_ops, cpu_stat_show);
OPS(cpus_ops, cpus_show);
OPS(cpus_effective_ops, cpus_effective_show);
OPS(mems_ops, mems_show);
OPS(memory_current_ops, memory_current_show);
OPS(memory_peak_ops, memory_peak_show);
OPS(memory_max_ops, memory_max_show);
OPS(memory_events_ops, memory_events_show);
OPS(pids_events_ops, pids_events_show);
OPS(memory_low_ops, memory_low_show);
OPS(memory_stat_ops, memory_stat_show);
OPS(swap_max_ops, swap_max_show);
OPS(pids_current_ops, pids_current_show);
OPS(pids_peak_ops, pids_peak_show);
OPS(pids_max_ops, pids_max_show);

/* clang-format off */
#define C(file_name, text) { .name = file_name, .mode = S_IFREG | 0444, .ops = &const_ops, .data = (text) }
#define R(file_name, ops_var) { .name = file_name, .mode = S_IFREG | 0444, .ops = &(ops_var) }

static const struct synth_entry cgroup_entries[] = {
	CGROUP_CORE_ENTRIES,
	C("cgroup.freeze", "0"),
	R("cpu.max", cpu_max_ops),
	R("cpu.stat", cpu_stat_ops),
	R("cpu.weight", cpu_weight_ops),
	R("cpuset.cpus", cpus_ops),
	R("cpuset.cpus.effective", cpus_effective_ops),
	R("cpuset.mems", mems_ops),
	C("cpuset.mems.effective", "0"),
	C("io.stat", ""),
	R("memory.current", memory_current_ops),
	R("memory.events", memory_events_ops),
	C("memory.high", "max"),
	R("memory.low", memory_low_ops),
	R("memory.max", memory_max_ops),
	C("memory.min", "0"),
	C("memory.oom.group", "0"),
	R("memory.peak", memory_peak_ops),
	R("memory.stat", memory_stat_ops),
	C("memory.swap.current", "0"),
	R("memory.swap.max", swap_max_ops),
	R("pids.current", pids_current_ops),
	R("pids.events", pids_events_ops),
	R("pids.max", pids_max_ops),
	R("pids.peak", pids_peak_ops),
	{ 0 },
};
/* clang-format on */

static int cgroup_mount(const struct filesystem_type *type, const char *source,
			unused_arg unsigned ms_flags, unused_arg const char *data,
			unused_arg void *kernel_data, struct filesystem **ret_fs,
			struct dentry **ret_root)
{
	static const struct synth_entry root = {
		.mode = S_IFDIR | 0755, .ops = &cgroup_root_ops, .children = cgroup_entries};
	struct task_cgroup *cg = task_cgroup_current();
	struct cgroup_view *v;
	int err;

	cgroup_group_ref(cg->root);
	v = cgroup_view_create(cg->root);
	if (!v) {
		cgroup_group_unref(cg->root);
		return -ENOMEM;
	}
	task_cgroup_ref(cg);
	err = synth_fs_create(type, source ? source : "cgroup2", CGROUP2_SUPER_MAGIC, &root, v,
			      NULL, ret_fs, ret_root);
	if (err) {
		cgroup_group_unref(cg->root);
		task_cgroup_unref(cg);
		free(v);
		return err;
	}
	v->dir = *ret_root;
	cgroup_view_add(v);
	return 0;
}

static struct filesystem_ops cgroup_ops;
static struct filesystem_type cgroup_type = {
	.name = "cgroup2",
	.flags = FS_NODEV | FS_USERNS_MOUNT,
	.mount = cgroup_mount,
	.ops = &cgroup_ops,
};

void cgroup_register(void)
{
	cgroup_ops = synth_filesystem_ops;
	vfs_register_type(&cgroup_type);
}
