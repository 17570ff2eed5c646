/*
 * sentry/boot/boot_debug.c - what `moat debug` shows: live objects, tasks, locks, requests, stacks, memory, platform counters.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/lock_waits.h"
#include "base/log.h"
#include "sentry/boot/internal.h"
#include "vfs/path_cache.h"

#define STACKS_MAX 200 /* threads: what fits a reply */
#define STACKS_TOTAL_NS 2000000000ll /* the control thread has others to serve */

static void emit_object(void *arg, const char *name, int64_t live)
{
	buf_printf(arg, "  %-24s %lld\n", name, (long long)live);
}

static void emit_counter(void *arg, const char *name, uint64_t value)
{
	buf_printf(arg, "  %-24s %llu\n", name, (unsigned long long)value);
}

static void show_objects(struct buf *out)
{
	buf_puts(out, "objects:\n");
	ref_report(emit_object, out);
}

static void show_tasks(struct buf *out)
{
	struct task *t;
	int32_t tid = 1;

	buf_printf(out, "tasks: %d\n  %7s %7s %c %-16s %s\n", atomic_load(&kernel.task_count),
		   "TID", "TGID", 'S', "COMM", "WAITS FOR");
	rcu_read_begin();
	while ((t = idr_next(&kernel.tasks, &tid)) != NULL) {
		char comm[TASK_COMM_LEN], quoted[TASK_COMM_LEN * 4];
		const char *what = sleeper_what(&t->sleeper);

		task_get_comm(t, comm);
		buf_printf(out, "  %7d %7d %c %-16s %s\n", t->tid, t->group->tgid,
			   task_state_char(t),
			   log_quote(quoted, sizeof(quoted), comm, strlen(comm)),
			   what ? what : "-");
		tid++;
	}
	rcu_read_end();
}

static void emit_lock_wait(void *arg, const struct lock_sleeper *w)
{
	struct buf *out = arg;

	buf_printf(out, "  thread %d sleeps for %lld us for %p%s%s, asked for at ", w->tid,
		   (long long)(w->for_ns / 1000), w->lock, w->name ? " " : "",
		   w->name ? w->name : "");
	boot_show_address(out, w->caller);
	buf_putc(out, '\n');
}

static void show_locks(struct buf *out)
{
	buf_puts(out, "locks waited for:\n");
	lock_waits_report(emit_lock_wait, out);
}

/* Host threads of tasks: the ids first, since asking one takes its time. */
static void show_stacks(struct buf *out)
{
	int(*ids)[2] = calloc(STACKS_MAX, sizeof(*ids));
	struct task *t;
	int32_t tid = 1;
	int n = 0, i;
	int64_t end = time_monotonic_ns() + STACKS_TOTAL_NS;

	rcu_read_begin();
	while (ids && n < STACKS_MAX && (t = idr_next(&kernel.tasks, &tid)) != NULL) {
		ids[n][0] = t->tid;
		ids[n++][1] = atomic_load(&t->host_tid);
		tid++;
	}
	rcu_read_end();
	buf_puts(out, "stacks:\n");
	for (i = 0; i < n && time_monotonic_ns() < end; i++) {
		buf_printf(out, "  task %d (thread %d)\n", ids[i][0], ids[i][1]);
		if (ids[i][1])
			boot_show_stack(out, ids[i][1]);
	}
	if (i < n)
		buf_printf(out, "  (%d more: not asked, too many threads did not answer in time)\n",
			   n - i);
	if (n == STACKS_MAX)
		buf_printf(out, "  (the first %d only)\n", STACKS_MAX);
	free(ids);
}

static void show_memory(struct buf *out)
{
	struct mem_stats st;

	mem_get_stats(&st);
	buf_printf(out, "memory:\n  %-24s %llu\n  %-24s %llu\n  %-24s %llu\n  %-24s %llu\n",
		   "private bytes", (unsigned long long)st.private_bytes, "private free pending",
		   (unsigned long long)st.private_free_pending, "window bytes",
		   (unsigned long long)st.window_bytes, "limit bytes",
		   (unsigned long long)st.limit_bytes);
}

static void show_platform(struct buf *out)
{
	buf_printf(out, "platform: %s\n", kernel.platform->ops->name);
	if (boot_platform_why())
		buf_printf(out, "  %-24s %s\n", "why", boot_platform_why());
	kernel.platform->ops->stats(kernel.platform, emit_counter, out);
}

static void show_paths(struct buf *out)
{
	struct path_cache_stats s;

	vfs_path_cache_stats(&s);
	buf_printf(out, "path cache: %s\n", vfs_path_cache_on ? "on" : "off");
	emit_counter(out, "entries", s.entries);
	emit_counter(out, "bytes", s.bytes);
	emit_counter(out, "hits", s.hits);
	emit_counter(out, "hits on missing names", s.negative_hits);
	emit_counter(out, "misses", s.misses);
	emit_counter(out, "outdated", s.stale);
	emit_counter(out, "entered", s.inserts);
	emit_counter(out, "not to be entered", s.uncacheable);
}

static void show_strace(struct buf *out, bool on)
{
	struct task *t;
	int32_t tid = 1;
	int n = 0;

	kernel.strace_default = on;
	rcu_read_begin();
	while ((t = idr_next(&kernel.tasks, &tid)) != NULL) {
		atomic_store(&t->strace, on);
		n++;
		tid++;
	}
	rcu_read_end();
	buf_printf(out, "strace %s for %d tasks and their children\n", on ? "on" : "off", n);
}

int control_debug_text(const char *what, struct buf *out)
{
	bool all = *what == '\0';

	if (strcmp(what, "strace-on") == 0 || strcmp(what, "strace-off") == 0) {
		show_strace(out, what[8] == 'n');
		return 0;
	}
	if (all || strcmp(what, "objects") == 0) {
		/* Objects freed by RCU must not look like leaks. */
		rcu_drain();
		show_objects(out);
	}
	if (all || strcmp(what, "tasks") == 0)
		show_tasks(out);
	if (all || strcmp(what, "locks") == 0)
		show_locks(out);
	if (all || strcmp(what, "requests") == 0)
		boot_show_requests(out);
	/* Not without being asked for: it interrupts every thread. */
	if (strcmp(what, "stacks") == 0)
		show_stacks(out);
	if (all || strcmp(what, "memory") == 0)
		show_memory(out);
	if (all || strcmp(what, "platform") == 0)
		show_platform(out);
	if (all || strcmp(what, "paths") == 0)
		show_paths(out);
	if (out->len)
		return 0;
	buf_printf(out,
		   "nothing called '%.40s'; there are objects, tasks, locks, requests, stacks, "
		   "memory, "
		   "platform, paths, strace-on, strace-off",
		   what);
	return -EINVAL;
}
