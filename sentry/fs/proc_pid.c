/*
 * sentry/fs/proc_pid.c - /proc/PID and /proc/PID/task/TID: finding them, who may look, and the small files.
 *
 * A directory node holds its thread group (and, for a thread's, the task) by reference; what it shows is looked up
 * at each read, so a node outlives the process and then answers -ESRCH. Walks ask revalidate() and forget it.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/capability.h>

#include "base/log.h"
#include "sentry/cgroup_tree.h"
#include "sentry/fs/fs.h"
#include "sentry/fs/proc.h"

static const struct synth_entry proc_group_entries[], proc_thread_entries[];

/* ---- which task ---- */

struct task *proc_task(const struct synth_node *n)
{
	struct proc_pid *pp = proc_pid_of(n);

	if (!pp->task)
		return group_leader(pp->group);
	if (atomic_load_explicit(&pp->task->state, memory_order_relaxed) == TASK_DEAD)
		return NULL;
	task_ref(pp->task);
	return pp->task;
}

bool proc_is_thread(const struct synth_node *n)
{
	return proc_pid_of(n)->thread;
}

int proc_parse_id(const char *name, size_t len, int32_t *ret)
{
	int64_t id = 0;

	if (!len || len > 10 || (name[0] == '0' && len > 1))
		return -ENOENT;
	for (size_t i = 0; i < len; i++) {
		if (name[i] < '0' || name[i] > '9')
			return -ENOENT;
		id = id * 10 + (name[i] - '0');
	}
	if (id > INT32_MAX)
		return -ENOENT;
	*ret = (int32_t)id;
	return 0;
}

/* ---- who may look ---- */

static bool proc_creds_match(const struct cred *me, const struct cred *him)
{
	return me->fsuid == him->euid && me->fsuid == him->suid && me->fsuid == him->uid &&
	       me->fsgid == him->egid && me->fsgid == him->sgid && me->fsgid == him->gid;
}

int proc_may_access(struct task *t, unused_arg bool attach)
{
	const struct cred *me = cred_current();
	struct task *self = task_current();
	struct cred *him;
	bool ok;

	if (!self || self->group == t->group)
		return 0;
	him = task_get_cred(t);
	if (!him)
		return -EACCES;
	ok = cred_has_cap(me, CAP_SYS_PTRACE) ||
	     (proc_creds_match(me, him) &&
	      atomic_load_explicit(&t->group->dumpable, memory_order_relaxed) == 1 &&
	      !(him->cap_permitted & ~me->cap_effective));
	cred_unref(him);
	return ok ? 0 : -EACCES;
}

int proc_pid_getattr(struct synth_node *n, struct synth_attr *inout)
{
	struct task *t = proc_task(n);
	struct cred *cred;

	if (!t)
		return -ENOENT;
	/* World-readable directories stay the task's own even when it is not dumpable. */
	if (inout->mode == (S_IFDIR | 0555) ||
	    atomic_load_explicit(&t->group->dumpable, memory_order_relaxed) == 1) {
		cred = task_get_cred(t);
		if (cred) {
			inout->uid = cred->euid;
			inout->gid = cred->egid;
			cred_unref(cred);
		}
	}
	task_unref(t);
	return 0;
}

/* has_pid_permissions(): hidepid= of at least `least` and up keeps the caller from t. */
static bool proc_hides(const struct synth_node *n, struct task *t, enum proc_hide least)
{
	struct proc_fs *p = proc_fs_of(n);
	enum proc_hide hide = atomic_load_explicit(&p->hide, memory_order_relaxed);

	if (likely(hide == PROC_HIDE_OFF) || hide < least)
		return false;
	if (hide != PROC_HIDE_NOT_PTRACEABLE &&
	    cred_in_group(cred_current(), atomic_load_explicit(&p->gid, memory_order_relaxed)))
		return false;
	return proc_may_access(t, false) != 0;
}

/* proc_hides() for the process, or thread, that n is about. One that is gone is not hidden. */
static bool proc_node_hides(struct synth_node *n, enum proc_hide least)
{
	struct task *t;
	bool hides;

	if (likely(!atomic_load_explicit(&proc_fs_of(n)->hide, memory_order_relaxed)))
		return false;
	t = proc_task(n);
	if (!t)
		return false;
	hides = proc_hides(n, t, least);
	task_unref(t);
	return hides;
}

/* pid_getattr() */
static int proc_dir_getattr(struct synth_node *n, struct synth_attr *inout)
{
	return proc_node_hides(n, PROC_HIDE_INVISIBLE) ? -ENOENT : proc_pid_getattr(n, inout);
}

/* proc_pid_permission(): of /proc/PID and its task, not of task/TID. */
static int proc_dir_permission(struct synth_node *n, const struct cred *cred, int mask)
{
	if (proc_node_hides(n, PROC_HIDE_NO_ACCESS))
		return atomic_load(&proc_fs_of(n)->hide) == PROC_HIDE_NO_ACCESS ? -EPERM : -ENOENT;
	return synth_permission_default(n, cred, mask);
}

static int proc_open_ptrace(struct synth_node *n, unused_arg struct synth_file *sf)
{
	struct task *t = proc_task(n);
	int err;

	if (!t)
		return -ESRCH;
	err = proc_may_access(t, false);
	task_unref(t);
	return err;
}

/* ---- directories ---- */

static bool proc_pid_revalidate(struct synth_node *n)
{
	struct proc_pid *pp = proc_pid_of(n);
	bool alive;

	if (pp->task) {
		struct task *t = task_find(pp->task->tid);

		alive = t == pp->task;
		if (t)
			task_unref(t);
	} else {
		struct task *t = group_leader(pp->group);

		alive = t;
		if (t)
			task_unref(t);
	}
	return alive;
}

static void proc_pid_destroy(struct synth_node *n)
{
	struct proc_pid *pp = proc_pid_of(n);

	if (pp->task)
		task_unref(pp->task);
	group_unref(pp->group);
	free(pp);
}

static int proc_pid_node(struct synth_node *dir, const char *name, size_t len, struct task *t,
			 bool thread, const struct synth_node_ops *ops, struct synth_node **ret)
{
	struct proc_pid *pp = calloc(1, sizeof(*pp));
	int err;

	if (!pp)
		return -ENOMEM;
	group_ref(t->group);
	pp->group = t->group;
	pp->thread = thread;
	/* /proc/TID of a thread: its group's files, with the thread's own name, state and ids. */
	if (thread || t->tid != t->group->tgid) {
		task_ref(t);
		pp->task = t;
	}
	err = synth_node_create(dir, name, len, S_IFDIR | 0555, ops, pp, ret);
	if (err) {
		if (pp->task)
			task_unref(pp->task);
		group_unref(pp->group);
		free(pp);
		return err;
	}
	(*ret)->children = thread ? proc_thread_entries : proc_group_entries;
	return 0;
}

/* proc_pid_lookup() of Linux leaves out what may not be traced; by invisible alone the name is found, and then nothing of it. */
static bool proc_pid_hidden(struct synth_node *n)
{
	return unlikely(atomic_load_explicit(&proc_fs_of(n)->hide, memory_order_relaxed) ==
			PROC_HIDE_NOT_PTRACEABLE) &&
	       proc_node_hides(n, PROC_HIDE_NO_ACCESS);
}

#define DIR_OPS                                                                  \
	.getattr = proc_dir_getattr, .no_poll = true, .splice = SYNTH_SPLICE_NO, \
	.setattr = synth_setattr_eperm, .revalidate = proc_pid_revalidate,       \
	.destroy = proc_pid_destroy

static const struct synth_node_ops proc_pid_dir_ops = {
	DIR_OPS,
	.permission = proc_dir_permission,
	.hidden = proc_pid_hidden,
};
static const struct synth_node_ops proc_tid_dir_ops = {DIR_OPS};

struct thread_group *procfs_file_group(struct file *f)
{
	struct dentry *d = f->path.dentry;
	struct proc_pid *pp;

	if (d->fs->ops != &proc_fs_ops || synth_node_of(d)->ops != &proc_pid_dir_ops)
		return NULL;
	pp = proc_pid_of(synth_node_of(d));
	group_ref(pp->group);
	return pp->group;
}

int proc_pid_lookup(struct synth_node *dir, const char *name, size_t len, struct synth_node **ret)
{
	struct task *t;
	int32_t id;
	int err = proc_parse_id(name, len, &id);

	if (err)
		return err;
	/* A thread that is not listed is found all the same, as on Linux. */
	t = task_find_in(proc_ns(dir), id);
	if (!t)
		return -ENOENT;
	err = proc_pid_node(dir, name, len, t, false, &proc_pid_dir_ops, ret);
	task_unref(t);
	return err;
}

static bool proc_emit_id(struct synth_iter *it, int32_t id, int64_t key)
{
	char name[16];
	int len = snprintf(name, sizeof(name), "%d", id);

	return synth_emit(it, name, (size_t)len, S_IFDIR, 0, key);
}

static bool group_hidden(const struct synth_node *dir, struct thread_group *g)
{
	struct task *t;
	bool hidden;

	if (likely(!atomic_load_explicit(&proc_fs_of(dir)->hide, memory_order_relaxed)))
		return false;
	t = group_leader(g);
	hidden = t && proc_hides(dir, t, PROC_HIDE_INVISIBLE);
	if (t)
		task_unref(t);
	return hidden;
}

int proc_pid_iterate(struct synth_node *dir, int64_t from, struct synth_iter *it)
{
	int32_t tgid = from > INT32_MAX ? INT32_MAX : (int32_t)from;
	struct thread_group *g;

	while ((g = group_next_in(proc_ns(dir), &tgid))) {
		bool more = group_hidden(dir, g) || proc_emit_id(it, tgid, tgid);

		group_unref(g);
		if (!more || tgid == INT32_MAX)
			break;
		tgid++;
	}
	return 0;
}

static int proc_task_lookup(struct synth_node *dir, const char *name, size_t len,
			    struct synth_node **ret)
{
	struct task *t;
	int32_t id;
	int err = proc_parse_id(name, len, &id);

	if (err)
		return err;
	t = task_find_in(proc_ns(dir), id);
	if (!t)
		return -ENOENT;
	if (t->group == proc_pid_of(dir)->group)
		err = proc_pid_node(dir, name, len, t, true, &proc_tid_dir_ops, ret);
	else
		err = -ENOENT;
	task_unref(t);
	return err;
}

static int proc_task_iterate(struct synth_node *dir, int64_t from, struct synth_iter *it)
{
	struct thread_group *g = proc_pid_of(dir)->group;
	int32_t tid = from > INT32_MAX ? INT32_MAX : (int32_t)from;
	struct task *t;

	while ((t = task_next_in(proc_ns(dir), &tid))) {
		bool more = t->group != g || proc_emit_id(it, tid, tid);

		task_unref(t);
		if (!more || tid == INT32_MAX)
			break;
		tid++;
	}
	return 0;
}

static int proc_task_getattr(struct synth_node *n, struct synth_attr *inout)
{
	struct thread_group *g = proc_pid_of(n)->group;

	inout->nlink = 2 + (uint32_t)atomic_load_explicit(&g->live, memory_order_relaxed);
	return proc_dir_getattr(n, inout);
}

static const struct synth_node_ops proc_task_ops = {
	.getattr = proc_task_getattr,
	.permission = proc_dir_permission,
	.setattr = synth_setattr_eperm,
	.lookup = proc_task_lookup,
	.iterate = proc_task_iterate,
};

/* ---- small files ---- */

/* Every show_* below starts by finding its task. */
#define PROC_SHOW(fn)                                                                        \
	static int fn##_task(struct task *t, struct buf *b);                                 \
	static int fn(struct synth_node *n, unused_arg struct synth_file *sf, struct buf *b) \
	{                                                                                    \
		struct task *t = proc_task(n);                                               \
		int err;                                                                     \
                                                                                             \
		if (!t)                                                                      \
			return -ESRCH;                                                       \
		err = fn##_task(t, b);                                                       \
		task_unref(t);                                                               \
		return err;                                                                  \
	}                                                                                    \
	static int fn##_task(struct task *t, struct buf *b)

PROC_SHOW(comm_show)
{
	char comm[TASK_COMM_LEN];

	task_get_comm(t, comm);
	buf_printf(b, "%s\n", comm);
	return 0;
}

static ssize_t comm_store(struct synth_node *n, unused_arg struct synth_file *sf, const char *data,
			  size_t size, unused_arg int64_t off)
{
	struct task *t = proc_task(n), *self = task_current();
	char comm[TASK_COMM_LEN] = "";
	size_t len = MIN(size, sizeof(comm) - 1);

	if (!t)
		return -ESRCH;
	if (!self || self->group != t->group) {
		task_unref(t);
		return -EINVAL;
	}
	memcpy(comm, data, len);
	if (len && comm[len - 1] == '\n')
		comm[len - 1] = 0;
	task_set_comm(t, comm);
	task_unref(t);
	return (ssize_t)size;
}

PROC_SHOW(personality_show)
{
	buf_printf(b, "%08x\n", t->personality);
	return 0;
}

PROC_SHOW(oom_score_show)
{
	int adj = atomic_load_explicit(&t->group->oom_score_adj, memory_order_relaxed);

	/* As oom_badness() of a process that is small beside the machine. */
	buf_printf(b, "%d\n", adj == -1000 ? 0 : (1000 + adj) * 2 / 3);
	return 0;
}

PROC_SHOW(oom_score_adj_show)
{
	buf_printf(b, "%d\n", atomic_load_explicit(&t->group->oom_score_adj, memory_order_relaxed));
	return 0;
}

PROC_SHOW(oom_adj_show)
{
	int adj = atomic_load_explicit(&t->group->oom_score_adj, memory_order_relaxed);

	buf_printf(b, "%d\n", adj == 1000 ? 15 : adj * 17 / 1000);
	return 0;
}

static ssize_t oom_store(struct synth_node *n, size_t size, int adj)
{
	struct task *t = proc_task(n);
	ssize_t ret = (ssize_t)size;

	if (!t)
		return -ESRCH;
	if (adj < atomic_load_explicit(&t->group->oom_score_adj, memory_order_relaxed) &&
	    !cred_has_cap(cred_current(), CAP_SYS_RESOURCE))
		ret = -EACCES;
	else
		atomic_store_explicit(&t->group->oom_score_adj, adj, memory_order_relaxed);
	task_unref(t);
	return ret;
}

static ssize_t oom_score_adj_store(struct synth_node *n, unused_arg struct synth_file *sf,
				   const char *data, size_t size, unused_arg int64_t off)
{
	int64_t adj;
	int err = synth_parse_i64(data, size, -1000, 1000, &adj);

	return err ? -EINVAL : oom_store(n, size, (int)adj);
}

static ssize_t oom_adj_store(struct synth_node *n, unused_arg struct synth_file *sf,
			     const char *data, size_t size, unused_arg int64_t off)
{
	int64_t adj;
	int err = synth_parse_i64(data, size, -17, 15, &adj);

	return err ? -EINVAL : oom_store(n, size, adj == 15 ? 1000 : (int)adj * 1000 / 17);
}

PROC_SHOW(cgroup_show)
{
	buf_puts(b, "0::");
	cgroup_path_of(t->group, b);
	buf_puts(b, "\n");
	return 0;
}

PROC_SHOW(cpuset_show)
{
	(void)t;
	buf_puts(b, "/\n");
	return 0;
}

PROC_SHOW(loginuid_show)
{
	buf_printf(b, "%u", atomic_load_explicit(&t->loginuid, memory_order_relaxed));
	return 0;
}

PROC_SHOW(sessionid_show)
{
	buf_printf(b, "%u", atomic_load_explicit(&t->login_session, memory_order_relaxed));
	return 0;
}

/*
 * There is no audit, but who logs in: pam_loginuid of sshd, login and cron refuses the session where it cannot say so. As with
 * audit_set_loginuid(): one's own; once it is set, it takes CAP_AUDIT_CONTROL.
 */
static ssize_t loginuid_store(struct synth_node *n, unused_arg struct synth_file *sf,
			      const char *data, size_t size, int64_t off)
{
	static _Atomic uint32_t sessions;
	struct task *t = proc_task(n), *me = task_current();
	int64_t uid;

	if (t)
		task_unref(t);
	if (t != me)
		return -EPERM;
	if (off || synth_parse_i64(data, size, 0, UINT32_MAX, &uid))
		return -EINVAL;
	if (atomic_load(&me->loginuid) != UINT32_MAX && !cred_has_cap(me->cred, CAP_AUDIT_CONTROL))
		return -EPERM;
	atomic_store(&me->loginuid, (uint32_t)uid);
	atomic_store(&me->login_session,
		     uid == UINT32_MAX ? UINT32_MAX : atomic_fetch_add(&sessions, 1) + 1);
	return (ssize_t)size;
}

PROC_SHOW(wchan_show)
{
	(void)t;
	buf_putc(b, '0');
	return 0;
}

PROC_SHOW(stack_show)
{
	(void)t;
	(void)b;
	return 0; /* the sentry's stack is nobody's business */
}

PROC_SHOW(syscall_show)
{
	int err = proc_may_access(t, true);
	int64_t nr = t->syscall_nr;

	if (err)
		return err;
	if (t != task_current() &&
	    atomic_load_explicit(&t->state, memory_order_relaxed) == TASK_RUNNING)
		buf_puts(b, "running\n");
	else if (nr < 0)
		buf_printf(b, "-1 0x%llx 0x%llx\n", (unsigned long long)t->regs.r.rsp,
			   (unsigned long long)t->regs.r.rip);
	else
		buf_printf(b, "%lld 0x%llx 0x%llx 0x%llx 0x%llx 0x%llx 0x%llx 0x%llx 0x%llx\n",
			   (long long)nr, (unsigned long long)t->regs.r.rdi,
			   (unsigned long long)t->regs.r.rsi, (unsigned long long)t->regs.r.rdx,
			   (unsigned long long)t->regs.r.r10, (unsigned long long)t->regs.r.r8,
			   (unsigned long long)t->regs.r.r9, (unsigned long long)t->regs.r.rsp,
			   (unsigned long long)t->regs.r.rip);
	return 0;
}

/* Of the user namespace on the host that its container is in. */
static int id_map_show(const struct task *t, bool gids, struct buf *b)
{
	const char *text = t->group->cgroup->id_map[gids];

	if (text)
		buf_puts(b, text);
	else
		buf_printf(b, "%10u %10u %10u\n", 0u, 0u, UINT32_MAX);
	return 0;
}

PROC_SHOW(uid_map_show)
{
	return id_map_show(t, false, b);
}

PROC_SHOW(gid_map_show)
{
	return id_map_show(t, true, b);
}

PROC_SHOW(setgroups_show)
{
	(void)t;
	buf_puts(b, "allow\n");
	return 0;
}

static ssize_t eperm_store(unused_arg struct synth_node *n, unused_arg struct synth_file *sf,
			   unused_arg const char *data, unused_arg size_t size,
			   unused_arg int64_t off)
{
	return -EPERM;
}

PROC_SHOW(timerslack_show)
{
	buf_printf(b, "%llu\n", (unsigned long long)t->timer_slack_ns);
	return 0;
}

static ssize_t timerslack_store(struct synth_node *n, unused_arg struct synth_file *sf,
				const char *data, size_t size, unused_arg int64_t off)
{
	struct task *t;
	uint64_t ns;
	int err = synth_parse_u64(data, size, UINT64_MAX, &ns);

	if (err)
		return err;
	t = proc_task(n);
	if (!t)
		return -ESRCH;
	if (t == task_current() || cred_has_cap(cred_current(), CAP_SYS_NICE))
		t->timer_slack_ns = ns ? ns : t->timer_slack_default_ns;
	else
		err = -EPERM;
	task_unref(t);
	return err ? err : (ssize_t)size;
}

PROC_SHOW(coredump_filter_show)
{
	(void)t;
	buf_puts(b, "00000033\n");
	return 0;
}

PROC_SHOW(empty_show)
{
	(void)t;
	(void)b;
	return 0;
}

PROC_SHOW(autogroup_show)
{
	(void)t;
	buf_puts(b, "/autogroup-1 nice 0\n");
	return 0;
}

static int children_show(struct synth_node *n, unused_arg struct synth_file *sf, struct buf *b)
{
	struct pid_namespace *ns = proc_ns(n);
	struct task *t = proc_task(n);
	struct thread_group *g, *child;

	if (!t)
		return -ESRCH;
	g = t->group;
	/* Children are the group's; the leader's file lists them. */
	rwlock_read_lock(&kernel.taskset_lock);
	if (t->tid == g->tgid)
		TAILQ_FOREACH (child, &g->children, sibling)
			buf_printf(b, "%d ", pid_nr_in(ns, child->tgid));
	rwlock_read_unlock(&kernel.taskset_lock);
	task_unref(t);
	return 0;
}

#define OPS(var, ...)                                                             \
	static const struct synth_node_ops var = {.getattr = proc_pid_getattr,    \
						  .no_poll = true,                \
						  .setattr = synth_setattr_eperm, \
						  __VA_ARGS__}

OPS(comm_ops, .show = comm_show, .store = comm_store);
OPS(personality_ops, .show = personality_show, .open = proc_open_ptrace);
OPS(oom_score_ops, .show = oom_score_show);
OPS(oom_score_adj_ops, .show = oom_score_adj_show, .store = oom_score_adj_store);
OPS(oom_adj_ops, .show = oom_adj_show, .store = oom_adj_store);
OPS(cgroup_ops, .show = cgroup_show);
OPS(cpuset_ops, .show = cpuset_show);
OPS(loginuid_ops, .show = loginuid_show, .store = loginuid_store);
OPS(sessionid_ops, .show = sessionid_show);
OPS(wchan_ops, .show = wchan_show);
OPS(stack_ops, .show = stack_show, .open = proc_open_ptrace);
OPS(syscall_ops, .show = syscall_show);
OPS(uid_map_ops, .show = uid_map_show, .store = eperm_store);
OPS(gid_map_ops, .show = gid_map_show, .store = eperm_store);
OPS(setgroups_ops, .show = setgroups_show, .store = eperm_store);
OPS(timerslack_ops, .show = timerslack_show, .store = timerslack_store);
OPS(coredump_filter_ops, .show = coredump_filter_show, .store = eperm_store);
OPS(timers_ops, .show = empty_show);
OPS(autogroup_ops, .show = autogroup_show, .store = eperm_store);
OPS(arch_status_ops, .show = empty_show);
OPS(children_ops, .show = children_show);
OPS(plain_dir_ops);

/* LSM attributes: no LSM is active, reads fail as on such a kernel. */
static int attr_show(unused_arg struct synth_node *n, unused_arg struct synth_file *sf,
		     unused_arg struct buf *b)
{
	return -EINVAL;
}

static ssize_t attr_store(unused_arg struct synth_node *n, unused_arg struct synth_file *sf,
			  unused_arg const char *data, unused_arg size_t size,
			  unused_arg int64_t off)
{
	return -EINVAL;
}

OPS(attr_ops, .show = attr_show, .store = attr_store);

static const struct synth_entry proc_attr_entries[] = {
	{.name = "current", .mode = S_IFREG | 0666, .ops = &attr_ops},
	{.name = "prev", .mode = S_IFREG | 0444, .ops = &attr_ops},
	{.name = "exec", .mode = S_IFREG | 0666, .ops = &attr_ops},
	{.name = "fscreate", .mode = S_IFREG | 0666, .ops = &attr_ops},
	{.name = "keycreate", .mode = S_IFREG | 0666, .ops = &attr_ops},
	{.name = "sockcreate", .mode = S_IFREG | 0666, .ops = &attr_ops},
	{0},
};

/* clang-format off */
#define R(file_name, perm, ops_var) { .name = file_name, .mode = S_IFREG | (perm), .ops = &(ops_var) }
#define L(link_name, ops_var) { .name = link_name, .mode = S_IFLNK | 0777, .ops = &(ops_var) }
#define D(dir_name, perm, ops_var, table) { .name = dir_name, .mode = S_IFDIR | (perm), .ops = &(ops_var), .children = table }

#define PROC_COMMON_ENTRIES                             \
	D("fd", 0500, proc_fd_ops, NULL),               \
	D("fdinfo", 0555, proc_fdinfo_ops, NULL),       \
	D("ns", 0511, proc_ns_ops, proc_ns_entries),    \
	D("net", 0555, plain_dir_ops, proc_net_entries), \
	R("environ", 0400, proc_environ_ops),           \
	R("auxv", 0400, proc_auxv_ops),                 \
	R("status", 0444, proc_status_ops),             \
	R("personality", 0400, personality_ops),        \
	R("limits", 0444, proc_limits_ops),             \
	R("sched", 0644, proc_sched_ops),               \
	R("comm", 0644, comm_ops),                      \
	R("syscall", 0400, syscall_ops),                \
	R("cmdline", 0444, proc_cmdline_ops)

#define PROC_COMMON_ENTRIES_2                           \
	R("statm", 0444, proc_statm_ops),               \
	R("maps", 0444, proc_maps_ops),                 \
	R("numa_maps", 0444, proc_numa_maps_ops),       \
	R("mem", 0600, proc_mem_ops),                   \
	L("cwd", proc_cwd_ops),                         \
	L("root", proc_rootlink_ops),                   \
	L("exe", proc_exe_ops),                         \
	R("mounts", 0444, proc_mounts_ops),             \
	R("mountinfo", 0444, proc_mountinfo_ops),       \
	R("clear_refs", 0200, proc_clear_refs_ops),     \
	R("smaps", 0444, proc_smaps_ops),               \
	R("smaps_rollup", 0444, proc_smaps_rollup_ops), \
	R("pagemap", 0400, proc_pagemap_ops),           \
	D("attr", 0555, plain_dir_ops, proc_attr_entries), \
	R("wchan", 0444, wchan_ops),                    \
	R("stack", 0400, stack_ops),                    \
	R("schedstat", 0444, proc_schedstat_ops),       \
	R("cpuset", 0444, cpuset_ops),                  \
	R("cgroup", 0444, cgroup_ops),                  \
	R("oom_score", 0444, oom_score_ops),            \
	R("oom_adj", 0644, oom_adj_ops),                \
	R("oom_score_adj", 0644, oom_score_adj_ops),    \
	R("loginuid", 0644, loginuid_ops),              \
	R("sessionid", 0444, sessionid_ops),            \
	R("io", 0400, proc_io_ops),                     \
	R("uid_map", 0644, uid_map_ops),                \
	R("gid_map", 0644, gid_map_ops),                \
	R("projid_map", 0644, uid_map_ops),             \
	R("setgroups", 0644, setgroups_ops),            \
	R("arch_status", 0444, arch_status_ops)

static const struct synth_entry proc_group_entries[] = {
	D("task", 0555, proc_task_ops, NULL),
	PROC_COMMON_ENTRIES,
	R("stat", 0444, proc_stat_ops),
	PROC_COMMON_ENTRIES_2,
	R("mountstats", 0400, proc_mountstats_ops),
	R("autogroup", 0644, autogroup_ops),
	R("coredump_filter", 0644, coredump_filter_ops),
	R("timers", 0444, timers_ops),
	R("timerslack_ns", 0666, timerslack_ops),
	{ 0 },
};

static const struct synth_entry proc_thread_entries[] = {
	PROC_COMMON_ENTRIES,
	R("stat", 0444, proc_thread_stat_ops),
	PROC_COMMON_ENTRIES_2,
	R("children", 0444, children_ops),
	{ 0 },
};
/* clang-format on */
