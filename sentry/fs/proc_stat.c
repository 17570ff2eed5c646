/*
 * sentry/fs/proc_stat.c - /proc/PID/{stat,status,statm,limits,io,sched,schedstat}: a task in numbers.
 */
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <linux/capability.h>

#include "sentry/fs/proc.h"
#include "sentry/tty/tty.h"

#define NS_PER_TICK (1000000000 / PROC_USER_HZ)
#define KIB(bytes) ((unsigned long long)((bytes) >> 10))

static uint64_t ticks(int64_t ns)
{
	return ns > 0 ? (uint64_t)ns / NS_PER_TICK : 0;
}

/* Everything stat and status show, taken before a byte is formatted. */
struct proc_snapshot {
	char comm[TASK_COMM_LEN], state;
	int32_t pid, tgid, ppid, pgid, sid, tpgid;
	uint32_t tty_nr;
	int threads;
	bool may_see; /* addresses and such: ptrace access */
	struct mm_usage usage;
	struct mm_layout layout;
	bool has_mm;
	struct task_times times, child_times;
	struct signal_masks sig;
};

static void snapshot_tty(struct pid_namespace *ns, struct task *t, struct proc_snapshot *s)
{
	struct tty *tty = tty_of_group(t->group);

	s->tpgid = -1;
	if (!tty)
		return;
	s->tty_nr = tty_device(tty);
	s->tpgid = tty_foreground(tty);
	if (s->tpgid > 0)
		s->tpgid = pid_nr_in(ns, s->tpgid);
	tty_unref(tty);
}

/* Numbers are those of ns, which n shows. */
static void snapshot(struct pid_namespace *ns, struct task *t, bool thread, struct proc_snapshot *s)
{
	struct mm *mm = task_get_mm(t);

	memset(s, 0, sizeof(*s));
	task_get_comm(t, s->comm);
	s->state = task_state_char(t);
	s->pid = pid_nr_in(ns, t->tid);
	s->tgid = pid_nr_in(ns, t->group->tgid);
	s->ppid = pid_nr_in(ns, group_ppid(t->group));
	s->pgid = pid_nr_in(ns, group_pgid(t->group));
	s->sid = pid_nr_in(ns, group_sid(t->group));
	s->threads = atomic_load_explicit(&t->group->live, memory_order_relaxed);
	s->may_see = proc_may_access(t, false) == 0;
	snapshot_tty(ns, t, s);
	if (mm) {
		s->has_mm = true;
		mm_get_usage(mm, &s->usage);
		mm_get_layout(mm, &s->layout);
		mm_unref(mm);
	}
	if (thread)
		task_get_times(t, &s->times);
	else
		group_get_times(t->group, &s->times);
	group_get_child_times(t->group, &s->child_times);
	signal_get_masks(t, &s->sig);
}

static uint64_t rss_pages(const struct mm_usage *u)
{
	return (u->rss_anon + u->rss_file + u->rss_shmem) >> MOAT_PAGE_SHIFT;
}

static int task_priority(const struct task *t)
{
	if (t->sched_policy == SCHED_FIFO || t->sched_policy == SCHED_RR)
		return -1 - t->sched_priority;
	return 20 + t->nice;
}

static int stat_render(struct synth_node *n, struct buf *b, bool thread)
{
	struct task *t = proc_task(n);
	struct proc_snapshot s;
	struct mm_layout zero = {0};
	const struct mm_layout *l;
	int64_t start_ns;

	if (!t)
		return -ESRCH;
	snapshot(proc_ns(n), t, thread, &s);
	l = s.may_see ? &s.layout : &zero;
	start_ns = t->group->start_ns - kernel.boot_monotonic_ns;
	buf_printf(b, "%d (%s) %c %d %d %d %d %d %u ", s.pid, s.comm, s.state, s.ppid, s.pgid,
		   s.sid, (int)s.tty_nr, s.tpgid, 0x00400000u);
	buf_printf(b, "%lld %lld %lld %lld ", (long long)s.times.minflt,
		   (long long)s.child_times.minflt, (long long)s.times.majflt,
		   (long long)s.child_times.majflt);
	buf_printf(b, "%llu %llu %lld %lld %d %d %d 0 %llu ",
		   (unsigned long long)ticks(s.times.utime_ns),
		   (unsigned long long)ticks(s.times.stime_ns),
		   (long long)ticks(s.child_times.utime_ns),
		   (long long)ticks(s.child_times.stime_ns), task_priority(t), t->nice, s.threads,
		   (unsigned long long)ticks(start_ns));
	buf_printf(b, "%llu %llu %llu ", (unsigned long long)s.usage.vm_bytes,
		   (unsigned long long)rss_pages(&s.usage),
		   (unsigned long long)task_rlimit(t, RLIMIT_RSS));
	buf_printf(b, "%llu %llu %llu 0 0 ", (unsigned long long)l->start_code,
		   (unsigned long long)l->end_code, (unsigned long long)l->start_stack);
	/* Of the legacy masks only 31 signals are shown. */
	buf_printf(b, "%llu %llu %llu %llu ",
		   (unsigned long long)((s.sig.pending | s.sig.shared_pending) & 0x7fffffff),
		   (unsigned long long)(s.sig.blocked & 0x7fffffff),
		   (unsigned long long)(s.sig.ignored & 0x7fffffff),
		   (unsigned long long)(s.sig.caught & 0x7fffffff));
	buf_printf(b, "%d 0 0 %d %d %u %u 0 0 0 ", s.may_see && s.state == 'S' ? 1 : 0,
		   t->group->exit_signal, 0, (unsigned)t->sched_priority,
		   (unsigned)t->sched_policy);
	buf_printf(b, "%llu %llu %llu %llu %llu %llu %llu %d\n", (unsigned long long)l->start_data,
		   (unsigned long long)l->end_data, (unsigned long long)l->start_brk,
		   (unsigned long long)l->arg_start, (unsigned long long)l->arg_end,
		   (unsigned long long)l->env_start, (unsigned long long)l->env_end,
		   s.may_see && s.state == 'Z' ? t->group->exit_code : 0);
	task_unref(t);
	return 0;
}

static int stat_show(struct synth_node *n, unused_arg struct synth_file *sf, struct buf *b)
{
	return stat_render(n, b, false);
}

static int thread_stat_show(struct synth_node *n, unused_arg struct synth_file *sf, struct buf *b)
{
	return stat_render(n, b, true);
}

/* ---- status ---- */

static const char *state_name(char c)
{
	switch (c) {
	case 'R':
		return "R (running)";
	case 'S':
		return "S (sleeping)";
	case 'D':
		return "D (disk sleep)";
	case 'T':
		return "T (stopped)";
	case 't':
		return "t (tracing stop)";
	case 'Z':
		return "Z (zombie)";
	default:
		return "X (dead)";
	}
}

static void status_name(const char *comm, struct buf *b)
{
	buf_puts(b, "Name:\t");
	for (; *comm; comm++) {
		if (*comm == '\n')
			buf_puts(b, "\\n");
		else if (*comm == '\\')
			buf_puts(b, "\\\\");
		else
			buf_putc(b, *comm);
	}
	buf_putc(b, '\n');
}

/* A process group's or session's number in ns and each level below, down to the task's own; 0 where it is not visible. */
static void status_bearer(struct pid_namespace *ns, struct task *t, int32_t root, struct buf *b)
{
	struct pid_namespace *at_level[PID_NS_LEVEL_MAX + 1], *at = t->group->pid_ns;

	for (; at && at->level >= ns->level; at = at->parent)
		at_level[at->level] = at;
	for (int i = ns->level; i <= t->group->pid_ns->level; i++)
		buf_printf(b, "\t%d", pid_nr_in(at_level[i], root));
}

static void status_ids(struct pid_namespace *ns, struct task *t, const struct proc_snapshot *s,
		       const struct cred *c, struct buf *b)
{
	struct fs_context *fsctx = task_get_fsctx(t);
	struct fd_table *fds = task_get_fdtable(t);

	status_name(s->comm, b);
	if (fsctx) {
		buf_printf(b, "Umask:\t%04o\n", fs_context_umask(fsctx));
		fs_context_unref(fsctx);
	}
	buf_printf(b, "State:\t%s\nTgid:\t%d\nNgid:\t0\nPid:\t%d\nPPid:\t%d\nTracerPid:\t%d\n",
		   state_name(s->state), s->tgid, s->pid, s->ppid, 0);
	buf_printf(b, "Uid:\t%u\t%u\t%u\t%u\nGid:\t%u\t%u\t%u\t%u\n", c->uid, c->euid, c->suid,
		   c->fsuid, c->gid, c->egid, c->sgid, c->fsgid);
	buf_printf(b, "FDSize:\t%u\nGroups:\t", fds ? fd_table_size(fds) : 0);
	if (fds)
		fd_table_unref(fds);
	for (uint32_t i = 0; i < c->ngroups; i++)
		buf_printf(b, i ? " %u" : "%u", c->groups[i]);
	buf_puts(b, " \nNStgid:");
	pid_show_levels(ns, t->group->tgid, "\t", b);
	buf_puts(b, "\nNSpid:");
	pid_show_levels(ns, t->tid, "\t", b);
	buf_puts(b, "\nNSpgid:");
	status_bearer(ns, t, group_pgid(t->group), b);
	buf_puts(b, "\nNSsid:");
	status_bearer(ns, t, group_sid(t->group), b);
	buf_puts(b, "\nKthread:\t0\n");
}

static void status_mem(const struct mm_usage *u, const struct mm_layout *l, struct buf *b)
{
	uint64_t rss = u->rss_anon + u->rss_file + u->rss_shmem;
	uint64_t code = l->end_code > l->start_code ? l->end_code - l->start_code : 0;
	uint64_t exe = MIN(round_up_u64(code, MOAT_PAGE_SIZE), u->exec_bytes);
	uint64_t lib = u->exec_bytes - exe; /* other executable mappings */

	buf_printf(b, "VmPeak:\t%8llu kB\nVmSize:\t%8llu kB\nVmLck:\t%8llu kB\nVmPin:\t%8u kB\n",
		   KIB(MAX(u->vm_peak, u->vm_bytes)), KIB(u->vm_bytes), KIB(u->locked_bytes), 0u);
	buf_printf(b, "VmHWM:\t%8llu kB\nVmRSS:\t%8llu kB\n", KIB(MAX(u->rss_peak, rss)), KIB(rss));
	buf_printf(b, "RssAnon:\t%8llu kB\nRssFile:\t%8llu kB\nRssShmem:\t%8llu kB\n",
		   KIB(u->rss_anon), KIB(u->rss_file), KIB(u->rss_shmem));
	buf_printf(b, "VmData:\t%8llu kB\nVmStk:\t%8llu kB\nVmExe:\t%8llu kB\nVmLib:\t%8llu kB\n",
		   KIB(u->data_bytes), KIB(u->stack_bytes), KIB(exe), KIB(lib));
	/* One page table for 2 MiB of what is resident, and the three levels above. */
	buf_printf(b, "VmPTE:\t%8llu kB\nVmSwap:\t%8u kB\nHugetlbPages:\t%8u kB\n",
		   (unsigned long long)(4 * (rss / (512 * 4096) + u->vmas / 2 + 4)), 0u, 0u);
	buf_puts(b, "CoreDumping:\t0\nTHP_enabled:\t1\nuntag_mask:\t0xffffffffffffffff\n");
}

static void status_signals(const struct proc_snapshot *s, const struct cred *c, struct buf *b)
{
	buf_printf(b, "Threads:\t%d\nSigQ:\t%u/%u\n", s->threads, s->sig.queued,
		   s->sig.queue_limit);
	buf_printf(b, "SigPnd:\t%016llx\nShdPnd:\t%016llx\nSigBlk:\t%016llx\n",
		   (unsigned long long)s->sig.pending, (unsigned long long)s->sig.shared_pending,
		   (unsigned long long)s->sig.blocked);
	buf_printf(b, "SigIgn:\t%016llx\nSigCgt:\t%016llx\n", (unsigned long long)s->sig.ignored,
		   (unsigned long long)s->sig.caught);
	buf_printf(b, "CapInh:\t%016llx\nCapPrm:\t%016llx\nCapEff:\t%016llx\nCapBnd:\t%016llx\n",
		   (unsigned long long)c->cap_inheritable, (unsigned long long)c->cap_permitted,
		   (unsigned long long)c->cap_effective, (unsigned long long)c->cap_bounding);
	buf_printf(b, "CapAmb:\t%016llx\nNoNewPrivs:\t%d\n", (unsigned long long)c->cap_ambient,
		   c->no_new_privs);
}

/* "3" and "0-1": the mask and the list of CPUs 0..cpus-1. */
static void status_cpus(struct task *t, struct buf *b)
{
	uint64_t mask = affinity_effective(t);
	bool first = true;

	if (mask >> 32)
		buf_printf(b, "Cpus_allowed:\t%x,%08x\n", (unsigned)(mask >> 32), (unsigned)mask);
	else
		buf_printf(b, "Cpus_allowed:\t%x\n", (unsigned)mask);
	buf_puts(b, "Cpus_allowed_list:\t");
	for (unsigned i = 0; i < 64; i++) {
		unsigned j = i;

		if (!((mask >> i) & 1))
			continue;
		while (j + 1 < 64 && ((mask >> (j + 1)) & 1))
			j++;
		buf_printf(b, first ? "%u" : ",%u", i);
		if (j > i)
			buf_printf(b, "-%u", j);
		first = false;
		i = j;
	}
	buf_puts(b, "\nMems_allowed:\t00000000,00000001\nMems_allowed_list:\t0\n");
}

static int status_show(struct synth_node *n, unused_arg struct synth_file *sf, struct buf *b)
{
	struct task *t = proc_task(n);
	struct proc_snapshot s;
	struct cred *c;

	if (!t)
		return -ESRCH;
	c = task_get_cred(t);
	if (!c) {
		task_unref(t);
		return -ESRCH;
	}
	snapshot(proc_ns(n), t, proc_is_thread(n), &s);
	status_ids(proc_ns(n), t, &s, c, b);
	if (s.has_mm)
		status_mem(&s.usage, &s.layout, b);
	status_signals(&s, c, b);
	buf_printf(b, "Seccomp:\t%d\nSeccomp_filters:\t%d\n",
		   atomic_load_explicit(&t->seccomp_mode, memory_order_relaxed),
		   t->seccomp ? 1 : 0);
	buf_puts(b, "Speculation_Store_Bypass:\tvulnerable\n"
		    "SpeculationIndirectBranch:\talways enabled\n");
	status_cpus(t, b);
	buf_printf(b, "voluntary_ctxt_switches:\t%lld\nnonvoluntary_ctxt_switches:\t%lld\n",
		   (long long)s.times.nvcsw, (long long)s.times.nivcsw);
	cred_unref(c);
	task_unref(t);
	return 0;
}

static int statm_show(struct synth_node *n, unused_arg struct synth_file *sf, struct buf *b)
{
	struct task *t = proc_task(n);
	struct mm_usage u = {0};
	struct mm *mm;

	if (!t)
		return -ESRCH;
	mm = task_get_mm(t);
	if (mm) {
		mm_get_usage(mm, &u);
		mm_unref(mm);
	}
	buf_printf(b, "%llu %llu %llu %llu 0 %llu 0\n",
		   (unsigned long long)(u.vm_bytes >> MOAT_PAGE_SHIFT),
		   (unsigned long long)rss_pages(&u),
		   (unsigned long long)((u.rss_file + u.rss_shmem) >> MOAT_PAGE_SHIFT),
		   (unsigned long long)(u.exec_bytes >> MOAT_PAGE_SHIFT),
		   (unsigned long long)((u.data_bytes + u.stack_bytes) >> MOAT_PAGE_SHIFT));
	task_unref(t);
	return 0;
}

/* ---- limits ---- */

static const struct {
	const char *name, *unit;
} limit_names[RLIM_COUNT] = {
	[RLIMIT_CPU] = {"Max cpu time", "seconds"},
	[RLIMIT_FSIZE] = {"Max file size", "bytes"},
	[RLIMIT_DATA] = {"Max data size", "bytes"},
	[RLIMIT_STACK] = {"Max stack size", "bytes"},
	[RLIMIT_CORE] = {"Max core file size", "bytes"},
	[RLIMIT_RSS] = {"Max resident set", "bytes"},
	[RLIMIT_NPROC] = {"Max processes", "processes"},
	[RLIMIT_NOFILE] = {"Max open files", "files"},
	[RLIMIT_MEMLOCK] = {"Max locked memory", "bytes"},
	[RLIMIT_AS] = {"Max address space", "bytes"},
	[RLIMIT_LOCKS] = {"Max file locks", "locks"},
	[RLIMIT_SIGPENDING] = {"Max pending signals", "signals"},
	[RLIMIT_MSGQUEUE] = {"Max msgqueue size", "bytes"},
	[RLIMIT_NICE] = {"Max nice priority", NULL},
	[RLIMIT_RTPRIO] = {"Max realtime priority", NULL},
	[RLIMIT_RTTIME] = {"Max realtime timeout", "us"},
};

static void limit_value(uint64_t v, struct buf *b)
{
	if (v == RLIM_INFINITY)
		buf_printf(b, "%-20s ", "unlimited");
	else
		buf_printf(b, "%-20llu ", (unsigned long long)v);
}

static int limits_show(struct synth_node *n, unused_arg struct synth_file *sf, struct buf *b)
{
	struct task *t = proc_task(n);
	uint64_t cur[RLIM_COUNT], max[RLIM_COUNT];
	struct rlimits *r;

	if (!t)
		return -ESRCH;
	r = t->group->rlimits;
	mutex_lock(&r->lock);
	for (int i = 0; i < RLIM_COUNT; i++) {
		cur[i] = r->lim[i].cur;
		max[i] = r->lim[i].max;
	}
	mutex_unlock(&r->lock);
	task_unref(t);
	buf_printf(b, "%-25s %-20s %-20s %-10s\n", "Limit", "Soft Limit", "Hard Limit", "Units");
	for (int i = 0; i < RLIM_COUNT; i++) {
		buf_printf(b, "%-25s ", limit_names[i].name);
		limit_value(cur[i], b);
		limit_value(max[i], b);
		if (limit_names[i].unit)
			buf_printf(b, "%-10s\n", limit_names[i].unit);
		else
			buf_putc(b, '\n');
	}
	return 0;
}

/* ---- io and scheduling ---- */

static int io_show(struct synth_node *n, unused_arg struct synth_file *sf, struct buf *b)
{
	struct task *t = proc_task(n);
	struct task_times times, children = {0};
	int err;

	if (!t)
		return -ESRCH;
	err = proc_may_access(t, false);
	if (proc_is_thread(n)) {
		task_get_times(t, &times);
	} else {
		group_get_times(t->group, &times);
		group_get_child_times(t->group, &children);
	}
	task_unref(t);
	if (err)
		return err;
	buf_printf(b, "rchar: %lld\nwchar: %lld\nsyscr: %lld\nsyscw: %lld\n",
		   (long long)(times.rchar + children.rchar),
		   (long long)(times.wchar + children.wchar),
		   (long long)(times.syscr + children.syscr),
		   (long long)(times.syscw + children.syscw));
	buf_printf(b, "read_bytes: %llu\nwrite_bytes: %llu\ncancelled_write_bytes: 0\n",
		   (unsigned long long)(times.inblock + children.inblock) << 9,
		   (unsigned long long)(times.oublock + children.oublock) << 9);
	return 0;
}

static int schedstat_show(struct synth_node *n, unused_arg struct synth_file *sf, struct buf *b)
{
	struct task *t = proc_task(n);
	struct task_times times;

	if (!t)
		return -ESRCH;
	task_get_times(t, &times);
	task_unref(t);
	buf_printf(b, "%lld 0 %lld\n", (long long)(times.utime_ns + times.stime_ns),
		   (long long)(times.nvcsw + times.nivcsw));
	return 0;
}

static int sched_show(struct synth_node *n, unused_arg struct synth_file *sf, struct buf *b)
{
	struct task *t = proc_task(n);
	struct task_times times;
	char comm[TASK_COMM_LEN];
	int64_t run;

	if (!t)
		return -ESRCH;
	task_get_comm(t, comm);
	task_get_times(t, &times);
	run = times.utime_ns + times.stime_ns;
	buf_printf(b, "%s (%d, #threads: %d)\n", comm, pid_nr_in(proc_ns(n), t->tid),
		   atomic_load_explicit(&t->group->live, memory_order_relaxed));
	buf_puts(b, "-------------------------------------------------------------------\n");
	buf_printf(b, "%-45s:%14lld.%06lld\n", "se.sum_exec_runtime", (long long)(run / 1000000),
		   (long long)(run % 1000000));
	buf_printf(b, "%-45s:%21lld\n", "nr_switches", (long long)(times.nvcsw + times.nivcsw));
	buf_printf(b, "%-45s:%21lld\n", "nr_voluntary_switches", (long long)times.nvcsw);
	buf_printf(b, "%-45s:%21lld\n", "nr_involuntary_switches", (long long)times.nivcsw);
	buf_printf(b, "%-45s:%21d\n", "policy", t->sched_policy);
	buf_printf(b, "%-45s:%21d\n", "prio", 100 + task_priority(t));
	task_unref(t);
	return 0;
}

#define OPS(var, ...)                                                      \
	const struct synth_node_ops var = {.getattr = proc_pid_getattr,    \
					   .no_poll = true,                \
					   .setattr = synth_setattr_eperm, \
					   __VA_ARGS__}

OPS(proc_stat_ops, .show = stat_show);
OPS(proc_thread_stat_ops, .show = thread_stat_show);
OPS(proc_status_ops, .show = status_show);
OPS(proc_statm_ops, .show = statm_show);
OPS(proc_limits_ops, .show = limits_show);
OPS(proc_io_ops, .show = io_show);
OPS(proc_schedstat_ops, .show = schedstat_show);
OPS(proc_sched_ops, .show = sched_show);
