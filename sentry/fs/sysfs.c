/*
 * sentry/fs/sysfs.c - /sys to the extent that libraries and tools look at it: processors, memory, an empty set of devices.
 */
#include <stdio.h>

#include "mem/memfile.h"
#include "sentry/fs/internal.h"
#include "vfs/fs_config.h"
#include "sentry/fs/proc.h"
#include "sentry/version.h"

#define SYSFS_SUPER_MAGIC 0x62656572

#define NODE_ARGS unused_arg struct synth_node *n, unused_arg struct synth_file *sf

static int const_show(struct synth_node *n, unused_arg struct synth_file *sf, struct buf *b)
{
	buf_printf(b, "%s\n", (const char *)n->entry->data);
	return 0;
}

static int cpu_range_show(NODE_ARGS, struct buf *b)
{
	buf_printf(b, kernel.cpus > 1 ? "0-%u\n" : "0\n", kernel.cpus - 1);
	return 0;
}

static int kernel_max_show(NODE_ARGS, struct buf *b)
{
	buf_puts(b, "8191\n");
	return 0;
}

static int node_cpumap_show(NODE_ARGS, struct buf *b)
{
	buf_printf(b, "%llx\n",
		   kernel.cpus >= 64 ? ~0ull : (unsigned long long)((1ull << kernel.cpus) - 1));
	return 0;
}

static int node_meminfo_show(NODE_ARGS, struct buf *b)
{
	unsigned long long total = mm_total_bytes() >> 10, used;
	struct mem_stats ms;

	mem_get_stats(&ms);
	used = MIN((unsigned long long)(ms.private_bytes >> 10), total);
	buf_printf(b,
		   "Node 0 MemTotal:       %8llu kB\nNode 0 MemFree:        %8llu kB\n"
		   "Node 0 MemUsed:        %8llu kB\nNode 0 SwapCached:     %8u kB\n",
		   total, total - used, used, 0u);
	buf_printf(b,
		   "Node 0 Active:         %8llu kB\nNode 0 Inactive:       %8u kB\n"
		   "Node 0 AnonPages:      %8llu kB\nNode 0 FilePages:      %8u kB\n",
		   used, 0u, used, 0u);
	buf_puts(b, "Node 0 HugePages_Total:     0\nNode 0 HugePages_Free:      0\n"
		    "Node 0 HugePages_Surp:      0\n");
	return 0;
}

#define OPS(var, ...) \
	static const struct synth_node_ops var = {.setattr = synth_setattr_eperm, __VA_ARGS__}

OPS(const_ops, .show = const_show);
OPS(cpu_range_ops, .show = cpu_range_show);
OPS(kernel_max_ops, .show = kernel_max_show);
OPS(node_cpumap_ops, .show = node_cpumap_show);
OPS(node_meminfo_ops, .show = node_meminfo_show);
OPS(dir_ops);

/* clang-format off */
#define C(file_name, text) { .name = file_name, .mode = S_IFREG | 0444, .ops = &const_ops, .data = (text) }
#define R(file_name, ops_var) { .name = file_name, .mode = S_IFREG | 0444, .ops = &(ops_var) }
#define D(dir_name, table) { .name = dir_name, .mode = S_IFDIR | 0755, .ops = &dir_ops, .children = table }

/* ---- cpuN ---- */

static int cpu_number(const struct synth_node *n)
{
	return (int)(intptr_t)n->priv;
}

static int cpu_self_show(struct synth_node *n, unused_arg struct synth_file *sf, struct buf *b)
{
	buf_printf(b, "%d\n", cpu_number(n));
	return 0;
}

static int cpu_self_mask_show(struct synth_node *n, unused_arg struct synth_file *sf, struct buf *b)
{
	buf_printf(b, "%llx\n", 1ull << (cpu_number(n) & 63));
	return 0;
}

OPS(cpu_self_ops, .show = cpu_self_show);
OPS(cpu_self_mask_ops, .show = cpu_self_mask_show);

static const struct synth_entry cpu_topology_entries[] = {
	R("core_cpus", cpu_self_mask_ops),
	R("core_cpus_list", cpu_self_ops),
	R("core_id", cpu_self_ops),
	R("core_siblings", node_cpumap_ops),
	R("core_siblings_list", cpu_range_ops),
	C("die_id", "0"),
	R("package_cpus", node_cpumap_ops),
	R("package_cpus_list", cpu_range_ops),
	C("physical_package_id", "0"),
	R("thread_siblings", cpu_self_mask_ops),
	R("thread_siblings_list", cpu_self_ops),
	{ 0 },
};

static const struct synth_entry cpu_n_entries[] = {
	C("online", "1"),
	D("topology", cpu_topology_entries),
	{ 0 },
};

static int cpu_lookup(struct synth_node *dir, const char *name, size_t len, struct synth_node **ret)
{
	int32_t id;
	int err;

	if (len < 4 || name[0] != 'c' || name[1] != 'p' || name[2] != 'u')
		return -ENOENT;
	err = proc_parse_id(name + 3, len - 3, &id);
	if (err || (unsigned)id >= kernel.cpus)
		return -ENOENT;
	err = synth_node_create(dir, name, len, S_IFDIR | 0755, &dir_ops, (void *)(intptr_t)id, ret);
	if (!err)
		(*ret)->children = cpu_n_entries;
	return err;
}

static int cpu_iterate(unused_arg struct synth_node *dir, int64_t from, struct synth_iter *it)
{
	for (int64_t i = from; i < (int64_t)kernel.cpus; i++) {
		char name[16];
		int len = snprintf(name, sizeof(name), "cpu%d", (int)i);

		if (!synth_emit(it, name, (size_t)len, S_IFDIR, 0, i))
			break;
	}
	return 0;
}

OPS(cpu_dir_ops, .lookup = cpu_lookup, .iterate = cpu_iterate);

static const struct synth_entry vuln_entries[] = {
	{ 0 },
};

static const struct synth_entry cpu_entries[] = {
	C("isolated", ""),
	R("kernel_max", kernel_max_ops),
	C("offline", ""),
	R("online", cpu_range_ops),
	R("possible", cpu_range_ops),
	R("present", cpu_range_ops),
	D("vulnerabilities", vuln_entries),
	{ 0 },
};

static const struct synth_entry node0_entries[] = {
	R("cpulist", cpu_range_ops),
	R("cpumap", node_cpumap_ops),
	C("distance", "10"),
	R("meminfo", node_meminfo_ops),
	{ 0 },
};

static const struct synth_entry node_entries[] = {
	C("has_cpu", "0"),
	C("has_memory", "0"),
	C("has_normal_memory", "0"),
	D("node0", node0_entries),
	C("online", "0"),
	C("possible", "0"),
	{ 0 },
};

static const struct synth_entry clocksource0_entries[] = {
	C("available_clocksource", "tsc"),
	C("current_clocksource", "tsc"),
	{ 0 },
};
static const struct synth_entry clocksource_entries[] = {
	D("clocksource0", clocksource0_entries),
	{ 0 },
};

static const struct synth_entry devices_system_entries[] = {
	D("clocksource", clocksource_entries),
	{ .name = "cpu", .mode = S_IFDIR | 0755, .ops = &cpu_dir_ops, .children = cpu_entries },
	D("node", node_entries),
	{ 0 },
};

static const struct synth_entry devices_virtual_entries[] = {
	{ .name = "net", .mode = S_IFDIR | 0755, .ops = &sysfs_net_ops },
	{ 0 },
};

static const struct synth_entry devices_entries[] = {
	D("system", devices_system_entries),
	D("virtual", devices_virtual_entries),
	{ 0 },
};

static const struct synth_entry class_entries[] = {
	D("block", NULL), D("input", NULL), D("mem", NULL), D("misc", NULL),
	{ .name = "net", .mode = S_IFDIR | 0755, .ops = &sysfs_net_ops }, D("power_supply", NULL), D("thermal", NULL), D("tty", NULL),
	{ 0 },
};

static const struct synth_entry thp_entries[] = {
	C("defrag", "always defer defer+madvise [madvise] never"),
	C("enabled", "always madvise [never]"),
	C("hpage_pmd_size", "2097152"),
	C("shmem_enabled", "always within_size advise [never] deny force"),
	C("use_zero_page", "1"),
	{ 0 },
};

static const struct synth_entry kernel_mm_entries[] = {
	D("transparent_hugepage", thp_entries),
	{ 0 },
};

static const struct synth_entry kernel_entries[] = {
	D("debug", NULL),
	D("mm", kernel_mm_entries),
	C("kexec_loaded", "0"),
	C("profiling", "0"),
	D("security", NULL),
	D("tracing", NULL),
	{ 0 },
};

static const struct synth_entry fs_entries[] = {
	D("bpf", NULL),
	D("cgroup", NULL),
	D("fuse", NULL),
	D("pstore", NULL),
	{ 0 },
};

static const struct synth_entry bus_entries[] = {
	D("cpu", NULL), D("node", NULL), D("pci", NULL), D("platform", NULL), D("usb", NULL),
	{ 0 },
};

static const struct synth_entry sysfs_entries[] = {
	D("block", NULL),
	D("bus", bus_entries),
	D("class", class_entries),
	D("dev", NULL),
	D("devices", devices_entries),
	D("firmware", NULL),
	D("fs", fs_entries),
	D("kernel", kernel_entries),
	D("module", NULL),
	D("power", NULL),
	{ 0 },
};
/* clang-format on */

static int sysfs_mount(const struct filesystem_type *type, const char *source,
		       unused_arg unsigned ms_flags, unused_arg const char *data,
		       unused_arg void *kernel_data, struct filesystem **ret_fs,
		       struct dentry **ret_root)
{
	static const struct synth_entry root = {
		.mode = S_IFDIR | 0555, .ops = &dir_ops, .children = sysfs_entries};

	return synth_fs_create(type, source ? source : "sysfs", SYSFS_SUPER_MAGIC, &root, NULL,
			       NULL, ret_fs, ret_root);
}

static const struct fs_param_spec no_params[] = {{0}};
static struct filesystem_ops sysfs_ops;
static struct filesystem_type sysfs_type = {
	.name = "sysfs",
	.flags = FS_NODEV | FS_USERNS_MOUNT,
	.params = no_params,
	.mount = sysfs_mount,
	.ops = &sysfs_ops,
};

void sysfs_register(void)
{
	sysfs_ops = synth_filesystem_ops;
	vfs_register_type(&sysfs_type);
}
