/*
 * sentry/boot/boot.c - the sentry's main: the order in which things come to life.
 */
#include <fcntl.h>
#include <limits.h>
#include <malloc.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/hostpoll.h"
#include "base/io.h"
#include "base/log.h"
#include "base/sleep.h"
#include "base/spin.h"
#include "base/timer.h"
#include "fsimpl/anon/anon.h"
#include "fsimpl/gofer/gofer_fs.h"
#include "fsimpl/virtiofs/virtiofs.h"
#include "fsimpl/hostfd/hostfd.h"
#include "fsimpl/memfs/memfs.h"
#include "fsimpl/overlay/overlay.h"
#include "mem/guard.h"
#include "platform/patch/patch.h"
#include "sentry/boot/boot.h"
#include "sentry/boot/boot_network.h"
#include "sentry/boot/confine.h"
#include "sentry/boot/internal.h"
#include "sentry/mm.h"
#include "sentry/pidns.h"
#include "sentry/fs/fs.h"
#include "sentry/loader.h"
#include "sentry/tty/tty.h"
#include "sentry/version.h"
#include "vfs/path_cache.h"

/* Of the host's memory, what a sandbox without a limit may use. */
#define BOOT_MEMORY_DEFAULT_NUM 3
#define BOOT_MEMORY_DEFAULT_DEN 4
#define BOOT_MALLOC_ARENAS 8
/* How long the last output of a terminal may wait for whoever reads it. */
#define BOOT_EXIT_DRAIN_NS 10000000000ll

static struct boot_container boot = {.first = true, .listen_fd = -1};
static const struct boot_hooks *boot_hooks;

int boot_fail(struct boot_error *e, int exit_code, const char *fmt, ...)
{
	va_list ap;

	e->exit_code = exit_code;
	va_start(ap, fmt);
	vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
	return -1;
}

static const struct platform_ops *const platforms[] = {&kvm_platform_ops, &systrap_platform_ops};

const struct platform_ops *boot_platform(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(platforms); i++)
		if (strcmp(platforms[i]->name, name) == 0)
			return platforms[i];
	return NULL;
}

int boot_platform_probe(const char *name, char *why, size_t why_size)
{
	const struct platform_ops *ops = boot_platform(name);

	if (ops) {
		int err = ops->probe(why, why_size);

		ops->unprobe();
		return err;
	}
	snprintf(why, why_size, "unknown platform '%s'; this moat has: kvm, systrap", name);
	return -EINVAL;
}

static int read_spec(struct boot_container *b, int spec_fd)
{
	char *json;
	size_t size;
	int err;
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", spec_fd);
	err = io_read_file_at(AT_FDCWD, path, BOOT_SIZE_MAX, &json, &size);
	if (err)
		return boot_fail(&b->error, 1, "sentry: reading the boot spec: %s", strerror(-err));
	close(spec_fd);
	err = boot_spec_decode(json, size, &b->spec, b->error.text, sizeof(b->error.text));
	free(json);
	b->error.exit_code = 1;
	return err ? -1 : 0;
}

/* Own descriptions of the container's stdio, so that O_NONBLOCK does not leak to other users of them. */
static int prepare_stdio(struct boot_container *b)
{
	for (int i = 0; i < 3; i++) {
		int fd = b->spec.stdio[i];

		if (fd < 0)
			continue;
		b->spec.stdio[i] = io_reopen_nonblock(fd);
		if (b->spec.stdio[i] < 0)
			return boot_fail(&b->error, 1, "sentry: standard descriptor %d: %s", i,
					 strerror(-b->spec.stdio[i]));
		close(fd);
	}
	return 0;
}

static uint64_t host_memory_bytes; /* 0: unknown; set once */

/* Of what the host has, the part that a sandbox without a limit may use. */
static uint64_t default_memory_bytes(void)
{
	return host_memory_bytes / BOOT_MEMORY_DEFAULT_DEN * BOOT_MEMORY_DEFAULT_NUM;
}

/*
 * A limit that the host's cgroup keeps is left to it: it counts pages, and engines read from it that a container was out of memory. Ours counts chunks,
 * of which few pages may be touched, and is for who has no such cgroup.
 */
void boot_set_memory(uint64_t limit, bool bounded)
{
	uint64_t total = limit && limit < host_memory_bytes ? limit : default_memory_bytes();

	mm_set_total_bytes(total);
	mem_set_limit(bounded ? default_memory_bytes() : total, total);
}

static int init_memory(const struct boot_container *b)
{
	struct sysinfo si;
	int err;

	if (sysinfo(&si) == 0) {
		host_memory_bytes = (uint64_t)si.totalram * si.mem_unit;
		mm_set_overcommit_bytes(host_memory_bytes + (uint64_t)si.totalswap * si.mem_unit);
	}
	err = mem_init(0);
	if (!err)
		boot_set_memory(b->spec.memory_limit, b->spec.memory_bounded);
	return err;
}

/* All that needs the host's files, devices or a single thread. */
static int before_confinement(struct boot_container *b)
{
	const struct platform_ops *ops = boot_platform(b->spec.platform);
	char why[256] = "";
	int err;

	if (!ops)
		return boot_fail(&b->error, 1, "unknown platform '%s'; this moat has: kvm, systrap",
				 b->spec.platform);
	err = init_memory(b);
	if (!err)
		err = guard_install();
	if (err)
		return boot_fail(&b->error, 1, "sentry: memory file: %s", strerror(-err));
	spin_allow();
	err = ops->probe(why, sizeof(why));
	if (err)
		return boot_fail(&b->error, 1, "%s", why);
	return prepare_stdio(b);
}

/* What may start threads (KVM has kernel threads of its own) comes after the user namespace, which must be single-threaded. */
static int create_platform(struct boot_container *b, struct platform **ret_platform)
{
	const struct platform_ops *ops = boot_platform(b->spec.platform);
	int err;

	patch_set_enabled(!b->spec.no_patch);
	err = ops->create(ret_platform);
	if (err)
		return boot_fail(&b->error, 1, "platform %s: %s", ops->name, strerror(-err));
	if (b->spec.memory_bounded && ops->bound_memory)
		ops->bound_memory(*ret_platform, (uint64_t)b->spec.memory_limit);
	err = vdso_init();
	if (err)
		return boot_fail(&b->error, 1, "sentry: vDSO: %s", strerror(-err));
	return 0;
}

static int start_services(struct boot_container *b)
{
	int err;

	rcu_thread_begin();
	rcu_prepare();
	err = timer_thread_start();
	if (!err)
		err = hostpoll_start();
	if (!err)
		err = boot_jobs_init();
	if (err)
		return boot_fail(&b->error, 1, "sentry: service threads: %s", strerror(-err));
	vfs_workers_allow();
	return 0;
}

static const void *current_container(void)
{
	return task_cgroup_current();
}

static int start_kernel(struct boot_container *b, struct platform *platform)
{
	int err;

	err = vfs_init();
	affinity_set_host(b->spec.host_cpus);
	if (!err)
		err = kernel_init(platform, b->spec.cpus ? b->spec.cpus : 1, TASKS_MAX);
	if (!err)
		err = anon_init();
	if (!err)
		err = memfs_register();
	if (!err)
		err = overlay_register();
	if (!err)
		gofer_fs_register();
	if (!err)
		virtiofs_register();
	if (!err)
		err = sentry_fs_register();
	if (!err)
		err = boot_hooks->syscalls_init();
	vfs_hooks.open_host = hostfd_file_on;
	vfs_hooks.container = current_container;
	if (b->spec.no_path_cache)
		vfs_path_cache_enable(false);
	if (!err && b->spec.strace)
		err = boot_hooks->strace_enable(b->spec.strace);
	if (err)
		return boot_fail(&b->error, 1, "sentry: kernel start: %s", strerror(-err));
	return 0;
}

/* Under a quota processor time that nobody else wants is not free. What the limit is later is the host's to know. */
static void limit_spin(const struct boot_spec *s)
{
	uint64_t period = s->cpu_period ? s->cpu_period : CPU_PERIOD_DEFAULT_US;

	if (s->cpu_quota > 0)
		sleeper_limit_spin((unsigned)MIN((uint64_t)s->cpu_quota / period, UINT_MAX));
}

void boot_configure_cgroup(struct boot_container *b)
{
	struct boot_spec *s = &b->spec;
	struct cgroup_limits l = {.memory_max = s->memory_limit,
				  .memory_low = s->memory_low,
				  .memory_swap = s->memory_swap,
				  .pids_max = s->pids_limit,
				  .cpu_quota = s->cpu_quota,
				  .cpu_period = s->cpu_period,
				  .cpu_shares = s->cpu_shares};

	snprintf(l.cpus, sizeof(l.cpus), "%s", s->cpuset_cpus ? s->cpuset_cpus : "");
	snprintf(l.mems, sizeof(l.mems), "%s", s->cpuset_mems ? s->cpuset_mems : "");
	if (b->first)
		limit_spin(s);
	else if (l.cpus[0])
		affinity_set_container(b->cgroup, l.cpus);
	b->cgroup->host_bounds = b->first;
	atomic_store(&b->cgroup->host_keeps, b->first && s->memory_bounded);
	task_cgroup_configure(b->cgroup, &l, s->cgroup_path);
	b->cgroup->id_map[0] = s->uid_map;
	b->cgroup->id_map[1] = s->gid_map;
	s->uid_map = s->gid_map = NULL;
}

static void log_boot_lines(const struct boot_spec *spec)
{
	kmsg_printf(6, "%s", MOAT_PROC_VERSION);
	kmsg_printf(6, "Moat: platform %s, %u CPUs, %llu MiB", spec->platform, spec->cpus,
		    (unsigned long long)(mm_total_bytes() >> 20));
	kmsg_printf(6, "Moat: sandbox %s", spec->id);
	boot_platform_note(spec);
}

/* On init's thread, every other task is being killed. */
static void on_init_exit(int status)
{
	struct control_msg msg = {.op = CONTROL_EXIT, .status = status};

	if (boot.console)
		tty_console_drain(boot.console, time_monotonic_ns() + BOOT_EXIT_DRAIN_NS);
	control_post(&boot, &msg);
	_exit(0);
}

static void ask_room(int32_t question, uint64_t bytes, bool try_it)
{
	struct control_msg msg = {
		.op = CONTROL_ROOM, .pid = question, .memory = bytes, .all = try_it};

	control_post(&boot, &msg);
}

static void on_oom(int32_t tgid, const char *comm, uint64_t bytes)
{
	kmsg_printf(3, "Memory cgroup out of memory: Killed process %d (%s), memory: %llukB", tgid,
		    comm, (unsigned long long)(bytes >> 10));
}

int boot_start_init(struct boot_container *b)
{
	if (atomic_exchange(&b->started, true))
		return -EALREADY;
	return task_start(b->init)
		       ? boot_fail(&b->error, 1, "sentry: cannot start the first process")
		       : 0;
}

/* vm.max_map_count is the host's, which is where a user of containers sets it. Before confinement: the file is not there afterwards. */
static void take_host_limits(void)
{
	char text[32];
	long long v;
	FILE *f = fopen("/proc/sys/vm/max_map_count", "re");

	if (!f)
		return;
	if (fgets(text, sizeof(text), f)) {
		v = strtoll(text, NULL, 10);
		if (v > 0 && v <= INT32_MAX)
			mm_max_map_count = v;
	}
	fclose(f);
}

static int boot_all(struct boot_container *b, int spec_fd)
{
	struct platform *platform;
	struct control_msg created = {.op = CONTROL_CREATED, .pid = 1},
			   started = {.op = CONTROL_STARTED, .pid = 1};
	char why[256];

	if (read_spec(b, spec_fd))
		return -1;
	log_init(b->spec.log_fd, b->spec.debug ? LOG_DEBUG_LEVEL : LOG_INFO_LEVEL, "sentry");
	boot_stacks_init();
#ifndef CONFINE_SANITIZER
	crash_handler_install(b->spec.log_fd);
#endif
	if (before_confinement(b))
		return -1;
	take_host_limits();
	if (boot_network_prepare(&b->spec, why, sizeof(why)))
		return boot_fail(&b->error, 1, "%s", why);
	if (sentry_confine_namespaces(boot_network_caps(&b->spec), why, sizeof(why)))
		return boot_fail(&b->error, 1, "%s", why);
	if (create_platform(b, &platform) || start_services(b))
		return -1;
	if (boot_connect_devices(b, NULL))
		return -1;
	if (sentry_confine_seccomp(why, sizeof(why)))
		return boot_fail(&b->error, 1, "%s", why);
	if (start_kernel(b, platform))
		return -1;
	b->lifeline = b->spec.control_fd;
	b->listen_fd = b->spec.listen_fd;
	log_boot_lines(&b->spec);
	if (boot_make_namespaces(b))
		return -1;
	boot_configure_cgroup(b);
	if (boot_name_devices(b))
		return -1;
	kernel.on_init_exit = on_init_exit;
	kernel.on_oom = on_oom;
	kernel.ask_room = ask_room;
	pid_ns_on_killed = boot_event_raise;
	mem_account_enter(b->cgroup->account);
	if (boot_make_root(b) || boot_make_mounts(b))
		return -1;
	boot_make_notify(b);
	if (boot_create_init(b, NULL))
		return -1;
	mem_account_enter(NULL);
	boot_list_add(b);
	boot_trim_init();
	if (b->spec.hold) {
		control_post(b, &created);
		return 0;
	}
	control_post(b, &started);
	return boot_start_init(b);
}

int boot_main(int spec_fd, const struct boot_hooks *hooks)
{
	struct control_msg msg = {.op = CONTROL_ERROR};
	sigset_t set;

	boot_hooks = hooks;
	/* Without a bound malloc counts the CPUs in /sys, which a confined sentry cannot open. */
	mallopt(M_ARENA_MAX, BOOT_MALLOC_ARENAS);
	/* Kernel signals that terminals and users may send to a process group are the CLI's to forward. */
	sigemptyset(&set);
	for (int s = 1; s < 32; s++)
		if (s != SIGSEGV && s != SIGBUS && s != SIGSYS && s != SIGILL && s != SIGFPE &&
		    s != SIGABRT && s != SIGTRAP)
			sigaddset(&set, s);
	sigprocmask(SIG_BLOCK, &set, NULL);
	if (boot_all(&boot, spec_fd) == 0)
		control_serve(&boot);
	log_error("boot: %s", boot.error.text);
	msg.text = boot.error.text;
	msg.exit_code = boot.error.exit_code;
	if (boot.spec.control_fd > 0 && control_send(boot.spec.control_fd, &msg) < 0)
		return 1;
	_exit(boot.error.exit_code);
}
