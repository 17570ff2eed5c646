/*
 * sentry/fs/proc.c - procfs: the type, and the root directory's dynamic part.
 *
 * Everything is a synthetic node (fsimpl/synth) whose content is made when it is read, from snapshots with
 * references (sentry/task.h): no lock is held while a file is rendered. Formats are Linux 6.12's, byte for byte; where the
 * sandbox has no such thing the file shows what an idle Linux machine would.
 *
 * hidepid= and gid= depend on who asks, so nothing remembers an answer: what is below /proc/PID is walked in reference mode
 * anyway, and asks at each step (proc_pid.c). subset= is the same for all: it only takes rows from the root's table.
 *
 * Cannot do: writable sysctls beyond those that matter inside.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sentry/fs/internal.h"
#include "sentry/fs/proc.h"
#include "vfs/fs_config.h"
#include "vfs/path_cache.h"

static const char *const hide_names[] = {
	[PROC_HIDE_OFF] = "off",
	[PROC_HIDE_NO_ACCESS] = "noaccess",
	[PROC_HIDE_INVISIBLE] = "invisible",
	[PROC_HIDE_NOT_PTRACEABLE] = "ptraceable",
};

static int self_readlink(struct synth_node *n, struct buf *b)
{
	struct task *t = task_current();
	int32_t tgid = t ? pid_nr_in(proc_ns(n), t->group->tgid) : 0;

	if (!tgid)
		return -ENOENT;
	buf_printf(b, "%d", tgid);
	return 0;
}

static int thread_self_readlink(struct synth_node *n, struct buf *b)
{
	struct task *t = task_current();
	int32_t tid = t ? pid_nr_in(proc_ns(n), t->tid) : 0;

	if (!tid)
		return -ENOENT;
	buf_printf(b, "%d/task/%d", pid_nr_in(proc_ns(n), t->group->tgid), tid);
	return 0;
}

const struct synth_node_ops proc_self_ops = {
	.readlink = self_readlink,
	.setattr = synth_setattr_eperm,
};
const struct synth_node_ops proc_thread_self_ops = {
	.readlink = thread_self_readlink,
	.setattr = synth_setattr_eperm,
};

static int proc_root_getattr(struct synth_node *n, struct synth_attr *inout)
{
	struct thread_group *g;
	int32_t tgid = 0;

	inout->nlink = 4;
	while ((g = group_next_in(proc_ns(n), &tgid))) {
		inout->nlink++;
		group_unref(g);
		tgid++;
	}
	return 0;
}

static bool proc_root_leaves_out(const struct synth_node *dir, const struct synth_entry *e)
{
	return unlikely(atomic_load_explicit(&proc_fs_of(dir)->pid_only, memory_order_relaxed)) &&
	       e->ops != &proc_self_ops && e->ops != &proc_thread_self_ops;
}

const struct synth_node_ops proc_root_ops = {
	.leaves_out = proc_root_leaves_out,
	.getattr = proc_root_getattr,
	.fixed_perm = true,
	.setattr = synth_setattr_eperm,
	.lookup = proc_pid_lookup,
	.iterate = proc_pid_iterate,
};

/* ---- options ---- */

/* Return: the index of value, by name or number; -1. */
static int hide_by_name(const char *value)
{
	uint64_t number;

	for (int i = 0; i < (int)ARRAY_SIZE(hide_names); i++)
		if (hide_names[i] && !strcmp(hide_names[i], value))
			return i;
	if (!isdigit((unsigned char)value[0]) ||
	    synth_parse_u64(value, strlen(value), ARRAY_SIZE(hide_names) - 1, &number) ||
	    !hide_names[number])
		return -1;
	return (int)number;
}

static bool hidepid_fits(const char *value)
{
	return hide_by_name(value) >= 0;
}

static bool subset_fits(const char *value)
{
	return !strcmp(value, "pid");
}

static const struct fs_param_spec proc_params[] = {
	{"gid", FS_SPEC_U32},
	{"hidepid", FS_SPEC_STRING, hidepid_fits},
	{"subset", FS_SPEC_STRING, subset_fits},
	{0},
};

/* The value of an option, which is `len` characters long, if it is that one: NUL-terminated in ret. */
static bool option_is(const char *option, size_t len, const char *name, char ret[16])
{
	size_t key = strlen(name);

	if (len <= key || strncmp(option, name, key) || option[key] != '=' || len - key > 16)
		return false;
	snprintf(ret, 16, "%.*s", (int)(len - key - 1), option + key + 1);
	return true;
}

/* What the table's checks let through; what is not mentioned stays. */
static int proc_apply(struct proc_fs *p, const char *data)
{
	char value[16];

	while (data && *data) {
		size_t len = strcspn(data, ",");

		if (option_is(data, len, "hidepid", value)) {
			int hide = hide_by_name(value);

			if (hide < 0)
				return -EINVAL;
			atomic_store(&p->hide, (enum proc_hide)hide);
		} else if (option_is(data, len, "gid", value)) {
			atomic_store(&p->gid, (uint32_t)strtoul(value, NULL, 0));
		} else if (option_is(data, len, "subset", value)) {
			atomic_store(&p->pid_only, true);
		} else if (len) {
			return -EINVAL;
		}
		data += len + (data[len] == ',');
	}
	return 0;
}

static int proc_remount(struct filesystem *fs, unused_arg unsigned ms_flags, const char *data)
{
	int err;

	path_change_begin(fs);
	filesystem_paths_changed(fs);
	err = proc_apply(synth_fs_priv(fs), data);
	path_change_end(fs);
	return err;
}

/* proc_show_options() */
static void proc_show_options(struct filesystem *fs, struct buf *b)
{
	struct proc_fs *p = synth_fs_priv(fs);
	uint32_t gid = atomic_load(&p->gid);
	enum proc_hide hide = atomic_load(&p->hide);

	if (gid)
		buf_printf(b, ",gid=%u", gid);
	if (hide)
		buf_printf(b, ",hidepid=%s", hide_names[hide]);
	if (atomic_load(&p->pid_only))
		buf_puts(b, ",subset=pid");
}

static _Thread_local struct pid_namespace *mount_ns;

void procfs_set_mount_ns(struct pid_namespace *ns)
{
	mount_ns = ns;
}

static void proc_release(void *priv)
{
	struct proc_fs *p = priv;

	pid_ns_unref(p->ns);
	free(p);
}

static int proc_mount(const struct filesystem_type *type, const char *source,
		      unused_arg unsigned ms_flags, const char *data, unused_arg void *kernel_data,
		      struct filesystem **ret_fs, struct dentry **ret_root)
{
	static const struct synth_entry root = {
		.mode = S_IFDIR | 0555, .ops = &proc_root_ops, .children = proc_root_entries};
	struct proc_fs *p = calloc(1, sizeof(*p));
	int err;

	if (!p)
		return -ENOMEM;
	p->ns = mount_ns ? mount_ns : pid_ns_current();
	pid_ns_ref(p->ns);
	err = proc_apply(p, data);
	if (!err)
		err = synth_fs_create(type, source ? source : "proc", PROC_SUPER_MAGIC, &root, p,
				      proc_release, ret_fs, ret_root);
	if (err)
		proc_release(p);
	return err;
}

struct filesystem_ops proc_fs_ops;
static struct filesystem_type proc_type = {
	.name = "proc",
	.flags = FS_NODEV | FS_USERNS_MOUNT | FS_MAGIC_LINKS,
	.params = proc_params,
	.mount = proc_mount,
	.ops = &proc_fs_ops,
};

void proc_register(void)
{
	proc_fs_ops = synth_filesystem_ops;
	proc_fs_ops.remount = proc_remount;
	proc_fs_ops.show_options = proc_show_options;
	vfs_register_type(&proc_type);
	proc_cpu_init();
}
