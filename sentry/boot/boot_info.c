/*
 * sentry/boot/boot_info.c - figures about the sandbox for the command line: its processes, and what they use.
 */
#include <stdlib.h>
#include <string.h>

#include "mem/memfile.h"
#include "sentry/boot/internal.h"
#include "sentry/pidns.h"
#include "sentry/tty/tty.h"

static void ps_command(struct task *t, struct buf *out)
{
	char comm[TASK_COMM_LEN];

	task_get_comm(t, comm);
	/* A line is a process, whatever its name. */
	for (const char *p = comm; *p; p++)
		buf_putc(out, *p < ' ' || *p == 0x7f ? '?' : *p);
}

/* Numbers as the container sees them. */
static void ps_line(const struct boot_container *b, struct thread_group *g, struct buf *out)
{
	struct task *leader = group_leader(g);
	struct tty *tty = tty_of_group(g);
	struct task_times times;
	struct cred *cred;

	if (!leader) {
		if (tty)
			tty_unref(tty);
		return;
	}
	cred = task_get_cred(leader);
	group_get_times(g, &times);
	buf_printf(out, "%u %d %d %lld ", cred->euid, pid_nr_in(b->pid_ns, g->tgid),
		   pid_nr_in(b->pid_ns, group_ppid(g)),
		   (long long)(kernel.boot_realtime_ns + (g->start_ns - kernel.boot_monotonic_ns)) /
			   1000000000);
	if (tty)
		buf_printf(out, "pts/%u", tty_device(tty) & 0xff);
	else
		buf_putc(out, '?');
	buf_printf(out, " %lld ", (long long)((times.utime_ns + times.stime_ns) / 1000000));
	ps_command(leader, out);
	buf_putc(out, '\n');
	cred_unref(cred);
	task_unref(leader);
	if (tty)
		tty_unref(tty);
}

void control_ps_text(const struct boot_container *b, struct buf *out)
{
	struct thread_group *g;
	int32_t id = 1;

	while ((g = task_cgroup_next_group(b->cgroup, &id))) {
		ps_line(b, g, out);
		group_unref(g);
		id++;
	}
}

static void stats_counter(void *arg, const char *name, uint64_t value)
{
	struct buf *out = arg;

	buf_printf(out, "%s\"%s\":%llu", out->data[out->len - 1] == '{' ? "" : ",", name,
		   (unsigned long long)value);
}

void control_stats_text(const struct boot_container *b, struct buf *out)
{
	struct thread_group *g;
	struct task_times sum = {0}, one;
	struct mem_stats ms;
	int32_t id = 1;
	int groups = 0;

	while ((g = task_cgroup_next_group(b->cgroup, &id))) {
		group_get_times(g, &one);
		sum.utime_ns += one.utime_ns;
		sum.stime_ns += one.stime_ns;
		sum.minflt += one.minflt;
		groups++;
		group_unref(g);
		id++;
	}
	mem_get_stats(&ms);
	buf_printf(out,
		   "{\"processes\":%d,\"tasks\":%d,\"task_limit\":%d,\"forks\":%llu,"
		   "\"utime_ns\":%lld,\"stime_ns\":%lld,\"minflt\":%lld,",
		   groups, atomic_load(&b->cgroup->tasks),
		   MIN(kernel.task_limit, atomic_load(&b->cgroup->task_limit)),
		   (unsigned long long)atomic_load(&kernel.forks), (long long)sum.utime_ns,
		   (long long)sum.stime_ns, (long long)sum.minflt);
	buf_printf(out, "\"memory_bytes\":%llu,\"memory_peak\":%llu,\"oom_kills\":%llu,",
		   (unsigned long long)task_cgroup_memory(b->cgroup),
		   (unsigned long long)atomic_load(&b->cgroup->memory_peak),
		   (unsigned long long)atomic_load(&b->cgroup->oom_kills));
	buf_printf(out,
		   "\"private_bytes\":%llu,\"private_free_pending\":%llu,\"window_bytes\":%llu,"
		   "\"limit_bytes\":%llu,\"platform\":\"%s\",\"counters\":{",
		   (unsigned long long)ms.private_bytes,
		   (unsigned long long)ms.private_free_pending, (unsigned long long)ms.window_bytes,
		   (unsigned long long)ms.limit_bytes, kernel.platform->ops->name);
	kernel.platform->ops->stats(kernel.platform, stats_counter, out);
	buf_puts(out, "}}");
}
