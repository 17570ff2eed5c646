/*
 * sentry/fs/proc_sys.c - /proc/sys.
 *
 * Values that root may not change are constants that tell programs what they live under. The others are numbers (struct sysctl_num): limits
 * belong to whoever keeps them, advice that nobody here needs is only kept and shown.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <linux/capability.h>

#include "fsimpl/pipe/pipe.h"
#include "fsimpl/socket/socket.h"
#include "sentry/aio.h"
#include "sentry/fs/proc.h"
#include "sentry/ipc/ipc.h"
#include "sentry/mm.h"
#include "sentry/tty/tty.h"
#include "sentry/version.h"
#include "vfs/epoll.h"
#include "vfs/inotify.h"
#include "vfs/lease.h"

#define NODE_ARGS unused_arg struct synth_node *n, unused_arg struct synth_file *sf

/* ---- constants: data is the text ---- */

static int const_show(struct synth_node *n, unused_arg struct synth_file *sf, struct buf *b)
{
	buf_printf(b, "%s\n", (const char *)n->entry->data);
	return 0;
}

/* ---- numbers that root may change ---- */

struct sysctl_num {
	_Atomic int64_t *value;
	int64_t min, max;
};

/* Root's number as such is asked for, not capabilities: what nobody may write root may not either. */
static int sysctl_permission(struct synth_node *n, const struct cred *c, int mask)
{
	uint32_t bits = n->entry->mode;

	if (!c->euid)
		bits >>= 6;
	else if (cred_in_egroup(c, 0))
		bits >>= 3;
	return (uint32_t)mask & ~bits & 7 ? -EACCES : 0;
}

static int num_show(struct synth_node *n, unused_arg struct synth_file *sf, struct buf *b)
{
	const struct sysctl_num *num = n->entry->data;

	buf_printf(b, "%lld\n", (long long)atomic_load_explicit(num->value, memory_order_relaxed));
	return 0;
}

static ssize_t num_store(struct synth_node *n, unused_arg struct synth_file *sf, const char *data,
			 size_t size, unused_arg int64_t off)
{
	const struct sysctl_num *num = n->entry->data;
	int64_t v;

	if (synth_parse_i64(data, size, num->min, num->max, &v))
		return -EINVAL;
	atomic_store_explicit(num->value, v, memory_order_relaxed);
	return (ssize_t)size;
}

static ssize_t pipe_size_store(NODE_ARGS, const char *data, size_t size, unused_arg int64_t off)
{
	int64_t v;

	if (synth_parse_i64(data, size, 0, UINT32_MAX, &v) || !pipe_round_size((uint64_t)v))
		return -EINVAL;
	atomic_store_explicit(&pipe_size_max, (int64_t)pipe_round_size((uint64_t)v),
			      memory_order_relaxed);
	return (ssize_t)size;
}

/* As many huge pages as could be had: none. */
static ssize_t hugepages_store(NODE_ARGS, const char *data, size_t size, unused_arg int64_t off)
{
	int64_t v;

	return synth_parse_i64(data, size, 0, INT64_MAX, &v) ? -EINVAL : (ssize_t)size;
}

static int aio_nr_show(NODE_ARGS, struct buf *b)
{
	buf_printf(b, "%u\n", aio_total());
	return 0;
}

static int lease_break_show(NODE_ARGS, struct buf *b)
{
	buf_printf(b, "%u\n", atomic_load(&vfs_lease_break_s));
	return 0;
}

static ssize_t lease_break_store(NODE_ARGS, const char *data, size_t size, unused_arg int64_t off)
{
	int64_t v;

	if (synth_parse_i64(data, size, 0, INT32_MAX, &v))
		return -EINVAL;
	atomic_store(&vfs_lease_break_s, (uint32_t)v);
	return (ssize_t)size;
}

/* ---- names of the host ---- */

static int uts_render(struct buf *b, bool domain)
{
	struct uts_namespace *uts = uts_current();

	mutex_lock(&uts->lock);
	buf_printf(b, "%s\n", domain ? uts->domainname : uts->nodename);
	mutex_unlock(&uts->lock);
	return 0;
}

static ssize_t uts_store(const char *data, size_t size, bool domain)
{
	struct uts_namespace *uts = uts_current();
	size_t len = strcspn(data, "\n");

	if (!cred_has_cap(cred_current(), CAP_SYS_ADMIN))
		return -EPERM;
	len = MIN(len, (size_t)64);
	mutex_lock(&uts->lock);
	memcpy(domain ? uts->domainname : uts->nodename, data, len);
	(domain ? uts->domainname : uts->nodename)[len] = 0;
	mutex_unlock(&uts->lock);
	return (ssize_t)size;
}

static int hostname_show(NODE_ARGS, struct buf *b)
{
	return uts_render(b, false);
}
static int domainname_show(NODE_ARGS, struct buf *b)
{
	return uts_render(b, true);
}
static ssize_t hostname_store(NODE_ARGS, const char *data, size_t size, unused_arg int64_t off)
{
	return uts_store(data, size, false);
}
static ssize_t domainname_store(NODE_ARGS, const char *data, size_t size, unused_arg int64_t off)
{
	return uts_store(data, size, true);
}

/* ---- random ---- */

static void uuid_text(const uint8_t *u, struct buf *b)
{
	for (int i = 0; i < 16; i++) {
		uint8_t v = u[i];

		if (i == 6)
			v = (v & 0x0f) | 0x40;
		else if (i == 8)
			v = (v & 0x3f) | 0x80;
		buf_printf(b, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", v);
	}
	buf_putc(b, '\n');
}

static int uuid_show(NODE_ARGS, struct buf *b)
{
	uint8_t u[16];

	if (getrandom(u, sizeof(u), 0) != (ssize_t)sizeof(u))
		return -EIO;
	uuid_text(u, b);
	return 0;
}

static int boot_id_show(NODE_ARGS, struct buf *b)
{
	static struct mutex lock = MUTEX_INIT(LOCK_LEAF, "boot_id");
	static uint8_t id[16];
	static bool have;
	ssize_t got = sizeof(id);

	mutex_lock(&lock);
	if (!have)
		got = getrandom(id, sizeof(id), 0);
	have = got == (ssize_t)sizeof(id);
	mutex_unlock(&lock);
	if (got != (ssize_t)sizeof(id))
		return -EIO;
	uuid_text(id, b);
	return 0;
}

/* ---- computed ---- */

static int file_nr_show(NODE_ARGS, struct buf *b)
{
	buf_puts(b, "0\t0\t9223372036854775807\n");
	return 0;
}

static int threads_max_show(NODE_ARGS, struct buf *b)
{
	int32_t mine = atomic_load(&task_cgroup_current()->task_limit);

	buf_printf(b, "%d\n", MIN(kernel.task_limit, mine));
	return 0;
}

static int ns_last_pid_show(NODE_ARGS, struct buf *b)
{
	int32_t tid = 0, last = 0;
	struct task *t;

	while ((t = task_next_in(pid_ns_current(), &tid))) {
		last = tid++;
		task_unref(t);
	}
	buf_printf(b, "%d\n", last);
	return 0;
}

static int pty_nr_show(NODE_ARGS, struct buf *b)
{
	buf_printf(b, "%u\n", tty_pty_count());
	return 0;
}

#define OPS(var, ...)                              \
	static const struct synth_node_ops var = { \
		.setattr = synth_setattr_eperm, .permission = sysctl_permission, __VA_ARGS__}

OPS(const_ops, .show = const_show);
OPS(num_ops, .show = num_show, .store = num_store);
OPS(hugepages_ops, .show = const_show, .store = hugepages_store);
OPS(pipe_size_ops, .show = num_show, .store = pipe_size_store);
OPS(aio_nr_ops, .show = aio_nr_show);
OPS(lease_break_ops, .show = lease_break_show, .store = lease_break_store);
OPS(hostname_ops, .show = hostname_show, .store = hostname_store);
OPS(domainname_ops, .show = domainname_show, .store = domainname_store);
OPS(uuid_ops, .show = uuid_show);
OPS(boot_id_ops, .show = boot_id_show);
OPS(file_nr_ops, .show = file_nr_show);
OPS(threads_max_ops, .show = threads_max_show);
OPS(ns_last_pid_ops, .show = ns_last_pid_show);
OPS(pty_nr_ops, .show = pty_nr_show);
OPS(dir_ops);

#define NUM(var, v, lo, hi)                   \
	static _Atomic int64_t var##_v = (v); \
	static const struct sysctl_num var = {.value = &var##_v, .min = (lo), .max = (hi)}
/* The number of somebody else. */
#define LIMIT(var, where, lo, hi) \
	static const struct sysctl_num var = {.value = &(where), .min = (lo), .max = (hi)}

NUM(num_overcommit, 0, 0, 2);
NUM(num_overcommit_ratio, 50, 0, INT32_MAX);
NUM(num_swappiness, 60, 0, 200);
NUM(num_drop_caches, 0, 0, 4);
NUM(num_panic, 0, INT32_MIN, INT32_MAX);
NUM(num_dmesg_restrict, 0, 0, 1);
NUM(num_kptr_restrict, 1, 0, 2);
NUM(num_core_uses_pid, 0, 0, 1);
NUM(num_suid_dumpable, 0, 0, 2);
NUM(num_dirty_ratio, 20, 0, 100);
NUM(num_dirty_background_ratio, 10, 0, 100);
NUM(num_vfs_cache_pressure, 100, 0, INT32_MAX);
LIMIT(num_max_map_count, mm_max_map_count, 0, INT32_MAX);
LIMIT(num_queued_events, inotify_queued_max, 0, INT32_MAX);
LIMIT(num_user_instances, inotify_instances_max, 0, INT32_MAX);
LIMIT(num_inotify_watches, inotify_watches_max, 0, INT32_MAX);
LIMIT(num_epoll_watches, epoll_watches_max, 0, INT32_MAX);
LIMIT(num_aio_max_nr, aio_max_nr, 0, INT32_MAX);
LIMIT(num_mount_max, vfs_mounts_max, 1, INT32_MAX);
LIMIT(num_nr_open, fd_nr_open, 64, FD_TABLE_MAX);
LIMIT(num_pipe_size, pipe_size_max, 0, UINT32_MAX);
LIMIT(num_pipe_soft, pipe_user_pages_soft, 0, INT32_MAX);
LIMIT(num_pipe_hard, pipe_user_pages_hard, 0, INT32_MAX);

/* clang-format off */
#define C(file_name, text) { .name = file_name, .mode = S_IFREG | 0444, .ops = &const_ops, .data = (text) }
#define N(file_name, num) { .name = file_name, .mode = S_IFREG | 0644, .ops = &num_ops, .data = &(num) }
#define R(file_name, perm, ops_var) { .name = file_name, .mode = S_IFREG | (perm), .ops = &(ops_var) }
#define I(file_name, limit) { .name = file_name, .mode = S_IFREG | 0644, .ops = &proc_ipc_limit_ops, .data = (const void *)(uintptr_t)(limit) }
#define X(file_name, table) { .name = file_name, .mode = S_IFREG | 0644, .ops = &proc_ipc_next_id_ops, .data = (const void *)(uintptr_t)(table) }
#define D(dir_name, table) { .name = dir_name, .mode = S_IFDIR | 0555, .ops = &dir_ops, .children = table }
#define STR_(x) #x
#define STR(x) STR_(x)

static const struct synth_entry random_entries[] = {
	R("boot_id", 0444, boot_id_ops),
	C("entropy_avail", "256"),
	C("poolsize", "256"),
	C("urandom_min_reseed_secs", "60"),
	R("uuid", 0444, uuid_ops),
	C("write_wakeup_threshold", "256"),
	{ 0 },
};

static const struct synth_entry pty_entries[] = {
	C("max", "4096"),
	R("nr", 0444, pty_nr_ops),
	C("reserve", "0"),
	{ 0 },
};

static const struct synth_entry seccomp_entries[] = {
	C("actions_avail", "kill_process kill_thread trap errno trace log allow"),
	C("actions_logged", "kill_process kill_thread trap errno trace log"),
	{ 0 },
};

static const struct synth_entry kernel_entries[] = {
	C("cap_last_cap", "40"),
	C("core_pattern", "core"),
	N("core_uses_pid", num_core_uses_pid),
	C("ctrl-alt-del", "0"),
	N("dmesg_restrict", num_dmesg_restrict),
	R("domainname", 0644, domainname_ops),
	R("hostname", 0644, hostname_ops),
	C("io_uring_disabled", "2"),
	N("kptr_restrict", num_kptr_restrict),
	I("msgmax", IPC_LIMIT_MSGMAX),
	I("msgmnb", IPC_LIMIT_MSGMNB),
	I("msgmni", IPC_LIMIT_MSGMNI),
	X("msg_next_id", IPC_TABLE_MSG),
	C("ngroups_max", "65536"),
	R("ns_last_pid", 0444, ns_last_pid_ops),
	C("osrelease", MOAT_RELEASE),
	C("ostype", MOAT_SYSNAME),
	C("overflowgid", "65534"),
	C("overflowuid", "65534"),
	N("panic", num_panic),
	C("panic_on_oops", "0"),
	C("perf_event_paranoid", "4"),
	C("pid_max", STR(32768)),
	C("printk", "4\t4\t1\t7"),
	D("pty", pty_entries),
	D("random", random_entries),
	C("randomize_va_space", "2"),
	C("sched_autogroup_enabled", "0"),
	C("sched_rr_timeslice_ms", "100"),
	C("sched_rt_period_us", "1000000"),
	C("sched_rt_runtime_us", "950000"),
	D("seccomp", seccomp_entries),
	R("sem", 0644, proc_ipc_sem_ops),
	X("sem_next_id", IPC_TABLE_SEM),
	X("shm_next_id", IPC_TABLE_SHM),
	I("shmall", IPC_LIMIT_SHMALL),
	I("shmmax", IPC_LIMIT_SHMMAX),
	I("shmmni", IPC_LIMIT_SHMMNI),
	C("tainted", "0"),
	R("threads-max", 0444, threads_max_ops),
	C("unprivileged_bpf_disabled", "2"),
	C("version", MOAT_VERSION),
	{ 0 },
};

static const struct synth_entry vm_entries[] = {
	N("dirty_background_ratio", num_dirty_background_ratio),
	N("dirty_ratio", num_dirty_ratio),
	C("dirty_expire_centisecs", "3000"),
	C("dirty_writeback_centisecs", "500"),
	N("drop_caches", num_drop_caches),
	N("max_map_count", num_max_map_count),
	C("min_free_kbytes", "67584"),
	C("mmap_min_addr", "65536"),
	C("mmap_rnd_bits", "28"),
	{ .name = "nr_hugepages", .mode = S_IFREG | 0644, .ops = &hugepages_ops, .data = "0" },
	C("nr_overcommit_hugepages", "0"),
	C("oom_dump_tasks", "1"),
	C("oom_kill_allocating_task", "0"),
	C("overcommit_kbytes", "0"),
	N("overcommit_memory", num_overcommit),
	N("overcommit_ratio", num_overcommit_ratio),
	C("page-cluster", "3"),
	C("panic_on_oom", "0"),
	N("swappiness", num_swappiness),
	C("unprivileged_userfaultfd", "0"),
	N("vfs_cache_pressure", num_vfs_cache_pressure),
	C("zone_reclaim_mode", "0"),
	{ 0 },
};

static const struct synth_entry inotify_entries[] = {
	N("max_queued_events", num_queued_events),
	N("max_user_instances", num_user_instances),
	N("max_user_watches", num_inotify_watches),
	{ 0 },
};

static const struct synth_entry epoll_entries[] = {
	N("max_user_watches", num_epoll_watches),
	{ 0 },
};

static const struct synth_entry fs_entries[] = {
	N("aio-max-nr", num_aio_max_nr),
	R("aio-nr", 0444, aio_nr_ops),
	C("dentry-state", "0\t0\t45\t0\t0\t0"),
	C("dir-notify-enable", "1"),
	D("epoll", epoll_entries),
	C("file-max", "9223372036854775807"),
	R("file-nr", 0444, file_nr_ops),
	C("inode-nr", "0\t0"),
	C("inode-state", "0\t0\t0\t0\t0\t0\t0"),
	D("inotify", inotify_entries),
	R("lease-break-time", 0644, lease_break_ops),
	C("leases-enable", "1"),
	N("mount-max", num_mount_max),
	D("mqueue", proc_mqueue_entries),
	N("nr_open", num_nr_open),
	C("overflowgid", "65534"),
	C("overflowuid", "65534"),
	{ .name = "pipe-max-size", .mode = S_IFREG | 0644, .ops = &pipe_size_ops, .data = &num_pipe_size },
	N("pipe-user-pages-hard", num_pipe_hard),
	N("pipe-user-pages-soft", num_pipe_soft),
	C("protected_fifos", "1"),
	C("protected_hardlinks", "1"),
	C("protected_regular", "2"),
	C("protected_symlinks", "1"),
	N("suid_dumpable", num_suid_dumpable),
	{ 0 },
};

/* 0: there are none to be made. Of the others there may be as many as tasks. */
static const struct synth_entry user_entries[] = {
	C("max_cgroup_namespaces", "0"),
	N("max_inotify_instances", num_user_instances),
	N("max_inotify_watches", num_inotify_watches),
	R("max_ipc_namespaces", 0444, threads_max_ops),
	R("max_mnt_namespaces", 0444, threads_max_ops),
	C("max_net_namespaces", "0"),
	R("max_pid_namespaces", 0444, threads_max_ops),
	C("max_time_namespaces", "0"),
	C("max_user_namespaces", "0"),
	R("max_uts_namespaces", 0444, threads_max_ops),
	{ 0 },
};

const struct synth_entry proc_sys_entries[] = {
	D("abi", NULL),
	D("debug", NULL),
	D("dev", NULL),
	D("fs", fs_entries),
	D("kernel", kernel_entries),
	{ .name = "net", .mode = S_IFDIR | 0555, .ops = &proc_sysnet_ops },
	D("user", user_entries),
	D("vm", vm_entries),
	{ 0 },
};
/* clang-format on */

_Static_assert(TASKS_MAX == 32768 && SOCKET_BUFFER_MAX == 212992 && PTY_MAX == 4096,
	       "the constants above say what the kernel does");
