/*
 * sentry/fs/proc.c - procfs: the type, and the root directory's dynamic part.
 *
 * Everything is a synthetic node (fsimpl/synth) whose content is made when it is read, from snapshots with
 * references (sentry/task.h): no lock is held while a file is rendered. Formats are Linux 6.12's, byte for byte; where the
 * sandbox has no such thing the file shows what an idle Linux machine would.
 *
 * Cannot do: hidepid, writable sysctls beyond those that matter inside.
 */
#include <stdio.h>

#include <string.h>

#include "sentry/fs/internal.h"
#include "vfs/fs_config.h"
#include "sentry/fs/proc.h"

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

const struct synth_node_ops proc_root_ops = {
	.getattr = proc_root_getattr,
	.fixed_perm = true,
	.setattr = synth_setattr_eperm,
	.lookup = proc_pid_lookup,
	.iterate = proc_pid_iterate,
};

static const struct fs_param_spec proc_params[] = {
	{"gid", FS_SPEC_U32},
	{"hidepid", FS_SPEC_STRING},
	{"subset", FS_SPEC_STRING},
	{0},
};

/* hidepid=, gid=, subset=: taken, as an unprivileged view shows no less here; values as Linux knows them. */
static bool options_ok(const char *data)
{
	static const char *const known[] = {
		"hidepid=0",	     "hidepid=1",	   "hidepid=2",
		"hidepid=4",	     "hidepid=off",	   "hidepid=noaccess",
		"hidepid=invisible", "hidepid=ptraceable", "subset=pid",
	};

	while (*data) {
		size_t len = strcspn(data, ","), i = 0;

		while (i < ARRAY_SIZE(known) &&
		       (strlen(known[i]) != len || memcmp(known[i], data, len)))
			i++;
		if (len && i == ARRAY_SIZE(known) && strncmp(data, "gid=", 4))
			return false;
		data += len + (data[len] == ',');
	}
	return true;
}

static _Thread_local struct pid_namespace *mount_ns;

void procfs_set_mount_ns(struct pid_namespace *ns)
{
	mount_ns = ns;
}

static void proc_release(void *priv)
{
	pid_ns_unref(priv);
}

static int proc_mount(const struct filesystem_type *type, const char *source,
		      unused_arg unsigned ms_flags, const char *data, unused_arg void *kernel_data,
		      struct filesystem **ret_fs, struct dentry **ret_root)
{
	static const struct synth_entry root = {
		.mode = S_IFDIR | 0555, .ops = &proc_root_ops, .children = proc_root_entries};

	struct pid_namespace *ns = mount_ns ? mount_ns : pid_ns_current();
	int err;

	if (data && !options_ok(data))
		return -EINVAL;
	pid_ns_ref(ns);
	err = synth_fs_create(type, source ? source : "proc", PROC_SUPER_MAGIC, &root, ns,
			      proc_release, ret_fs, ret_root);
	if (err)
		pid_ns_unref(ns);
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
	vfs_register_type(&proc_type);
	proc_cpu_init();
}
