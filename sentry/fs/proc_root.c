/*
 * sentry/fs/proc_root.c - /proc's files about the whole system.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <linux/capability.h>

#include "mem/memfile.h"
#include "sentry/fs/fs.h"
#include "sentry/fs/internal.h"
#include "sentry/fs/proc.h"
#include "sentry/version.h"
#include "vfs/lease.h"
#include "vfs/locks.h"

#define SHOW(fn)                                                                         \
	static int fn(unused_arg struct synth_node *n, unused_arg struct synth_file *sf, \
		      struct buf *b)

int64_t proc_cpu_time_ns(void)
{
	struct timespec ts;

	if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts))
		return 0;
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static int64_t uptime_ns(void)
{
	return time_monotonic_ns() - kernel.boot_monotonic_ns;
}

SHOW(version_show)
{
	buf_puts(b, MOAT_PROC_VERSION "\n");
	return 0;
}

SHOW(uptime_show)
{
	int64_t up = uptime_ns() / 10000000;
	int64_t idle = up * kernel.cpus - proc_cpu_time_ns() / 10000000;

	if (idle < 0)
		idle = 0;
	buf_printf(b, "%lld.%02lld %lld.%02lld\n", (long long)(up / 100), (long long)(up % 100),
		   (long long)(idle / 100), (long long)(idle % 100));
	return 0;
}

/* Tasks, those that run now, and the newest id as the reader sees it. */
static void count_tasks(int *ret_total, int *ret_running, int32_t *ret_last)
{
	int32_t tid = 0;
	struct task *t;

	*ret_total = *ret_running = 0;
	*ret_last = 0;
	while ((t = task_next(&tid))) {
		(*ret_total)++;
		if (task_state_char(t) == 'R')
			(*ret_running)++;
		*ret_last = MAX(*ret_last, pid_current_vnr(tid));
		task_unref(t);
		tid++;
	}
}

/* The sentry keeps no decaying average: the three numbers are the CPU use since boot, which an idle sandbox shows as 0.00. */
int64_t procfs_load_percent(void)
{
	int64_t up = uptime_ns();

	return up > 0 ? proc_cpu_time_ns() * 100 / up : 0;
}

SHOW(loadavg_show)
{
	int64_t load = procfs_load_percent();
	int total, running;
	int32_t last;

	count_tasks(&total, &running, &last);
	for (int i = 0; i < 3; i++)
		buf_printf(b, "%lld.%02lld ", (long long)(load / 100), (long long)(load % 100));
	buf_printf(b, "%d/%d %d\n", running, total, last);
	return 0;
}

SHOW(stat_show)
{
	long long user = proc_cpu_time_ns() / 10000000;
	long long all = uptime_ns() / 10000000 * kernel.cpus;
	long long idle = all > user ? all - user : 0;
	int total, running;
	int32_t last;

	count_tasks(&total, &running, &last);
	buf_printf(b, "cpu  %lld 0 0 %lld 0 0 0 0 0 0\n", user, idle);
	for (unsigned i = 0; i < kernel.cpus; i++)
		buf_printf(b, "cpu%u %lld 0 0 %lld 0 0 0 0 0 0\n", i, user / kernel.cpus,
			   idle / kernel.cpus);
	buf_printf(b, "intr 0\nctxt %llu\nbtime %lld\nprocesses %llu\nprocs_running %d\n",
		   (unsigned long long)atomic_load_explicit(&kernel.switches, memory_order_relaxed),
		   (long long)(kernel.boot_realtime_ns / 1000000000),
		   (unsigned long long)atomic_load_explicit(&kernel.forks, memory_order_relaxed),
		   running);
	buf_puts(b, "procs_blocked 0\nsoftirq 0 0 0 0 0 0 0 0 0 0 0\n");
	return 0;
}

static void meminfo_line(struct buf *b, const char *name, uint64_t kib)
{
	buf_printf(b, "%-16s%8llu kB\n", name, (unsigned long long)kib);
}

SHOW(meminfo_show)
{
	static const char *const zeros_1[] = {
		"SwapTotal:", "SwapFree:", "Zswap:", "Zswapped:", "Dirty:", "Writeback:"};
	static const char *const zeros_2[] = {
		"KReclaimable:", "Slab:",	   "SReclaimable:", "SUnreclaim:", "KernelStack:",
		"PageTables:",	 "SecPageTables:", "NFS_Unstable:", "Bounce:",	   "WritebackTmp:"};
	static const char *const zeros_3[] = {
		"VmallocUsed:",	   "VmallocChunk:",   "Percpu:",	"AnonHugePages:",
		"ShmemHugePages:", "ShmemPmdMapped:", "FileHugePages:", "FilePmdMapped:"};
	uint64_t total = mm_total_bytes() >> 10, used, window;
	struct mem_stats ms;

	mem_get_stats(&ms);
	used = MIN(ms.private_bytes >> 10, total);
	window = MIN(ms.window_bytes >> 10, total - used);
	meminfo_line(b, "MemTotal:", total);
	meminfo_line(b, "MemFree:", total - used - window);
	meminfo_line(b, "MemAvailable:", total - used);
	meminfo_line(b, "Buffers:", 0);
	meminfo_line(b, "Cached:", window);
	meminfo_line(b, "SwapCached:", 0);
	meminfo_line(b, "Active:", used + window);
	meminfo_line(b, "Inactive:", 0);
	meminfo_line(b, "Active(anon):", used);
	meminfo_line(b, "Inactive(anon):", 0);
	meminfo_line(b, "Active(file):", window);
	meminfo_line(b, "Inactive(file):", 0);
	meminfo_line(b, "Unevictable:", 0);
	meminfo_line(b, "Mlocked:", 0);
	for (size_t i = 0; i < ARRAY_SIZE(zeros_1); i++)
		meminfo_line(b, zeros_1[i], 0);
	meminfo_line(b, "AnonPages:", used);
	meminfo_line(b, "Mapped:", window);
	meminfo_line(b, "Shmem:", 0);
	for (size_t i = 0; i < ARRAY_SIZE(zeros_2); i++)
		meminfo_line(b, zeros_2[i], 0);
	meminfo_line(b, "CommitLimit:", total / 2);
	meminfo_line(b, "Committed_AS:", used);
	meminfo_line(b, "VmallocTotal:", 34359738367ull);
	for (size_t i = 0; i < ARRAY_SIZE(zeros_3); i++)
		meminfo_line(b, zeros_3[i], 0);
	buf_puts(b, "HugePages_Total:       0\nHugePages_Free:        0\nHugePages_Rsvd:        0\n"
		    "HugePages_Surp:        0\nHugepagesize:       2048 kB\n"
		    "Hugetlb:               0 kB\n");
	meminfo_line(b, "DirectMap4k:", total);
	meminfo_line(b, "DirectMap2M:", 0);
	return 0;
}

SHOW(cmdline_show)
{
	buf_puts(b, "BOOT_IMAGE=/moat ro quiet\n");
	return 0;
}

static void filesystems_emit(void *arg, const struct filesystem_type *t)
{
	buf_printf(arg, "%s\t%s\n", t->flags & FS_NODEV ? "nodev" : "", t->name);
}

SHOW(filesystems_show)
{
	vfs_for_each_type(filesystems_emit, b);
	return 0;
}

SHOW(devices_show)
{
	buf_puts(b, "Character devices:\n  1 mem\n  5 /dev/tty\n  5 /dev/console\n  5 /dev/ptmx\n"
		    "128 ptm\n136 pts\n\nBlock devices:\n");
	return 0;
}

SHOW(swaps_show)
{
	buf_puts(b, "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n");
	return 0;
}

SHOW(partitions_show)
{
	buf_puts(b, "major minor  #blocks  name\n\n");
	return 0;
}

SHOW(vmstat_show)
{
	static const char *const zeros[] = {"nr_zone_inactive_anon",
					    "nr_mlock",
					    "nr_bounce",
					    "nr_dirty",
					    "nr_writeback",
					    "nr_slab_reclaimable",
					    "nr_slab_unreclaimable",
					    "pgpgin",
					    "pgpgout",
					    "pswpin",
					    "pswpout",
					    "pgsteal_kswapd",
					    "pgscan_kswapd"};
	uint64_t total = mm_total_bytes() >> MOAT_PAGE_SHIFT;
	struct mem_stats ms;
	uint64_t used;

	mem_get_stats(&ms);
	used = MIN(ms.private_bytes >> MOAT_PAGE_SHIFT, total);
	buf_printf(b, "nr_free_pages %llu\nnr_active_anon %llu\nnr_anon_pages %llu\n",
		   (unsigned long long)(total - used), (unsigned long long)used,
		   (unsigned long long)used);
	for (size_t i = 0; i < ARRAY_SIZE(zeros); i++)
		buf_printf(b, "%s 0\n", zeros[i]);
	buf_printf(b, "oom_kill %llu\n", (unsigned long long)atomic_load(&kernel.oom_kills));
	buf_puts(b, "pgfault 0\npgmajfault 0\n");
	return 0;
}

SHOW(interrupts_show)
{
	buf_puts(b, "           ");
	for (unsigned i = 0; i < kernel.cpus; i++)
		buf_printf(b, "CPU%-8u", i);
	buf_putc(b, '\n');
	return 0;
}

SHOW(softirqs_show)
{
	buf_puts(b, "                    ");
	for (unsigned i = 0; i < kernel.cpus; i++)
		buf_printf(b, "CPU%-8u", i);
	buf_putc(b, '\n');
	return 0;
}

SHOW(empty_show)
{
	(void)b;
	return 0;
}

SHOW(locks_show)
{
	unsigned number = 0;

	file_locks_show(b, &number);
	file_leases_show(b, &number);
	return 0;
}

SHOW(cgroups_show)
{
	buf_puts(b, "#subsys_name\thierarchy\tnum_cgroups\tenabled\n");
	return 0;
}

SHOW(crypto_show)
{
	(void)b;
	return 0;
}

SHOW(misc_show)
{
	(void)b;
	return 0;
}

SHOW(buddyinfo_show)
{
	uint64_t pages = mm_total_bytes() >> (MOAT_PAGE_SHIFT + 10);

	buf_printf(b, "Node 0, zone   Normal ");
	for (int i = 0; i < 10; i++)
		buf_printf(b, "%6d ", 0);
	buf_printf(b, "%6llu \n", (unsigned long long)pages);
	return 0;
}

SHOW(kmsg_show)
{
	kmsg_read_all(b);
	return 0;
}

/* The terminal that syslog and login would call the console. */
SHOW(consoles_show)
{
	buf_puts(b, "tty0                 -WU (EC  p  )    4:1\n");
	return 0;
}

/* cpu, memory and io pressure: never any. */
SHOW(pressure_show)
{
	buf_puts(b, "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
		    "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n");
	return 0;
}

static int mounts_link(unused_arg struct synth_node *n, struct buf *b)
{
	buf_puts(b, "self/mounts");
	return 0;
}

static int net_link(unused_arg struct synth_node *n, struct buf *b)
{
	buf_puts(b, "self/net");
	return 0;
}

SHOW(tty_drivers_show)
{
	buf_puts(b, "/dev/tty             /dev/tty        5       0 system:/dev/tty\n"
		    "/dev/console         /dev/console    5       1 system:console\n"
		    "/dev/ptmx            /dev/ptmx       5       2 system\n"
		    "pty_slave            /dev/pts      136 0-1048575 pty:slave\n"
		    "pty_master           /dev/ptm      128 0-1048575 pty:master\n");
	return 0;
}

/* Access and chmod of /proc's own files follow the mode bits; they cannot be changed. */
#define OPS(var, ...) \
	static const struct synth_node_ops var = {.setattr = synth_setattr_eperm, __VA_ARGS__}

OPS(version_ops, .show = version_show);
OPS(uptime_ops, .show = uptime_show);
OPS(loadavg_ops, .show = loadavg_show);
OPS(stat_ops, .show = stat_show);
OPS(meminfo_ops, .show = meminfo_show);
OPS(cmdline_ops, .show = cmdline_show);
OPS(cpuinfo_ops, .show = proc_cpuinfo_show);
OPS(filesystems_ops, .show = filesystems_show);
OPS(devices_ops, .show = devices_show);
OPS(swaps_ops, .splice = SYNTH_SPLICE_NO, .show = swaps_show);
OPS(partitions_ops, .show = partitions_show);
OPS(vmstat_ops, .show = vmstat_show);
OPS(interrupts_ops, .show = interrupts_show);
OPS(softirqs_ops, .show = softirqs_show);
OPS(empty_ops, .show = empty_show);
OPS(unspliced_ops, .splice = SYNTH_SPLICE_NO, .show = empty_show);
OPS(locks_ops, .show = locks_show);
OPS(cgroups_ops, .show = cgroups_show);
OPS(crypto_ops, .show = crypto_show);
OPS(misc_ops, .show = misc_show);
OPS(buddyinfo_ops, .show = buddyinfo_show);
OPS(kmsg_ops, .splice = SYNTH_SPLICE_NO, .show = kmsg_show);
OPS(consoles_ops, .show = consoles_show);
OPS(pressure_ops, .splice = SYNTH_SPLICE_NO, .show = pressure_show);
OPS(mounts_ops, .readlink = mounts_link);
OPS(net_ops, .readlink = net_link);
OPS(dir_ops);
OPS(drivers_ops, .show = tty_drivers_show);

/* clang-format off */
#define R(file_name, perm, ops_var) { .name = file_name, .mode = S_IFREG | (perm), .ops = &(ops_var) }
#define L(link_name, ops_var) { .name = link_name, .mode = S_IFLNK | 0777, .ops = &(ops_var) }
#define D(dir_name, table) { .name = dir_name, .mode = S_IFDIR | 0555, .ops = &dir_ops, .children = table }

static const struct synth_entry tty_entries[] = {
	D("driver", NULL),
	D("ldisc", NULL),
	R("drivers", 0444, drivers_ops),
	{ 0 },
};

static const struct synth_entry pressure_entries[] = {
	R("cpu", 0444, pressure_ops),
	R("io", 0444, pressure_ops),
	R("memory", 0444, pressure_ops),
	{ 0 },
};

const struct synth_entry proc_root_entries[] = {
	L("self", proc_self_ops),
	L("thread-self", proc_thread_self_ops),
	L("mounts", mounts_ops),
	L("net", net_ops),
	R("buddyinfo", 0444, buddyinfo_ops),
	D("bus", NULL),
	R("cgroups", 0444, cgroups_ops),
	R("cmdline", 0444, cmdline_ops),
	R("consoles", 0444, consoles_ops),
	R("cpuinfo", 0444, cpuinfo_ops),
	R("crypto", 0444, crypto_ops),
	R("devices", 0444, devices_ops),
	R("diskstats", 0444, empty_ops),
	R("dma", 0444, empty_ops),
	D("driver", NULL),
	R("execdomains", 0444, empty_ops),
	R("filesystems", 0444, filesystems_ops),
	D("fs", NULL),
	R("interrupts", 0444, interrupts_ops),
	R("iomem", 0444, empty_ops),
	R("ioports", 0444, empty_ops),
	D("irq", NULL),
	R("kallsyms", 0444, unspliced_ops),
	R("key-users", 0444, empty_ops),
	R("keys", 0444, empty_ops),
	R("kmsg", 0400, kmsg_ops),
	R("loadavg", 0444, loadavg_ops),
	R("locks", 0444, locks_ops),
	R("meminfo", 0444, meminfo_ops),
	R("misc", 0444, misc_ops),
	R("modules", 0444, empty_ops),
	R("partitions", 0444, partitions_ops),
	D("pressure", pressure_entries),
	R("schedstat", 0444, empty_ops),
	R("slabinfo", 0400, unspliced_ops),
	R("softirqs", 0444, softirqs_ops),
	R("stat", 0444, stat_ops),
	R("swaps", 0444, swaps_ops),
	D("sys", proc_sys_entries),
	D("sysvipc", proc_sysvipc_entries),
	R("timer_list", 0400, empty_ops),
	D("tty", tty_entries),
	R("uptime", 0444, uptime_ops),
	R("version", 0444, version_ops),
	R("vmallocinfo", 0400, empty_ops),
	R("vmstat", 0444, vmstat_ops),
	R("zoneinfo", 0444, empty_ops),
	{ 0 },
};
/* clang-format on */
