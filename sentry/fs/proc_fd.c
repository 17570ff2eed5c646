/*
 * sentry/fs/proc_fd.c - /proc/PID/{fd,fdinfo,cwd,root,exe,ns}: places as links.
 *
 * The links are magic: following one jumps to the (mount, dentry) itself, whatever its text says, so a deleted file
 * or a pipe is reached too. A descriptor's node is checked on every walk (revalidate): the number may mean another file now.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/capability.h>

#include "fsimpl/anon/anon.h"
#include "sentry/fs/proc.h"
#include "sentry/nsfs.h"

void proc_current_root(struct vfs_path *ret)
{
	struct task *self = task_current();

	if (self)
		fs_context_get_root(self->fsctx, ret);
	else
		mount_namespace_root(kernel.mnt_ns, ret);
}

int proc_path_text(const struct vfs_path *p, struct buf *b)
{
	char name[VFS_NAME_MAX + 1];
	struct vfs_path root;
	int err;

	if (anon_name(p->dentry, name, sizeof(name))) {
		buf_puts(b, name);
		return buf_error(b);
	}
	proc_current_root(&root);
	err = vfs_path_to_string(&root, p, true, b);
	vfs_path_unref(&root);
	return err;
}

/* The task behind n if the caller may look into it. */
static int proc_task_checked(struct synth_node *n, struct task **ret)
{
	struct task *t = proc_task(n);
	int err;

	if (!t)
		return -ESRCH;
	err = proc_may_access(t, false);
	if (err)
		task_unref(t);
	else
		*ret = t;
	return err;
}

/* ---- descriptors ---- */

static struct file *proc_fd_file(const struct synth_node *dir, int fd)
{
	struct task *t = proc_task(dir);
	struct fd_table *table;
	struct file *f = NULL;

	if (!t)
		return NULL;
	table = task_get_fdtable(t);
	if (table) {
		f = fd_get(table, fd);
		fd_table_unref(table);
	}
	task_unref(t);
	return f;
}

static int proc_fd_number(const struct synth_node *n)
{
	int32_t fd;

	return proc_parse_id(n->name, n->name_len, &fd) ? -1 : fd;
}

static int fdlink_getattr(struct synth_node *n, struct synth_attr *inout)
{
	struct file *f = proc_fd_file(n, proc_fd_number(n));

	if (!f)
		return -ENOENT;
	inout->mode = S_IFLNK;
	if (f->mode & FILE_READ)
		inout->mode |= 0500;
	if (f->mode & FILE_WRITE)
		inout->mode |= 0300;
	inout->size = 64;
	file_unref(f);
	return proc_pid_getattr(n, inout);
}

static bool fdlink_revalidate(struct synth_node *n)
{
	struct file *f = proc_fd_file(n, proc_fd_number(n));

	if (!f)
		return false;
	file_unref(f);
	return true;
}

static int fdlink_place(struct synth_node *n, struct vfs_path *ret)
{
	struct task *t;
	struct file *f;
	int err = proc_task_checked(n, &t);

	if (err)
		return err == -ESRCH ? -ENOENT : err;
	task_unref(t);
	f = proc_fd_file(n, proc_fd_number(n));
	if (!f)
		return -ENOENT;
	*ret = f->path;
	vfs_path_ref(ret);
	file_unref(f);
	return 0;
}

static int fdlink_readlink(struct synth_node *n, struct buf *b)
{
	struct vfs_path place;
	int err = fdlink_place(n, &place);

	if (err)
		return err;
	err = proc_path_text(&place, b);
	vfs_path_unref(&place);
	return err;
}

static const struct synth_node_ops fdlink_ops = {
	.getattr = fdlink_getattr,
	.setattr = synth_setattr_eperm,
	.revalidate = fdlink_revalidate,
	.readlink = fdlink_readlink,
	.jump = fdlink_place,
};

static int proc_fd_child(struct synth_node *dir, const char *name, size_t len, uint32_t mode,
			 const struct synth_node_ops *ops, struct synth_node **ret)
{
	struct file *f;
	int32_t fd;
	int err = proc_parse_id(name, len, &fd);

	if (err)
		return err;
	f = proc_fd_file(dir, fd);
	if (!f)
		return -ENOENT;
	file_unref(f);
	err = synth_node_create(dir, name, len, mode, ops, dir->priv, ret);
	/* d_set_dontmount(): what comes and goes with descriptors takes no mounts. */
	if (!err)
		atomic_fetch_or_explicit(&(*ret)->dentry.flags, DENTRY_NO_MOUNT,
					 memory_order_release);
	return err;
}

static int proc_fd_lookup(struct synth_node *dir, const char *name, size_t len,
			  struct synth_node **ret)
{
	return proc_fd_child(dir, name, len, S_IFLNK | 0700, &fdlink_ops, ret);
}

static int proc_fd_emit(struct synth_node *dir, int64_t from, struct synth_iter *it, uint32_t type)
{
	struct task *t = proc_task(dir);
	struct fd_table *table;
	struct file *f;
	int fd = from > FD_TABLE_MAX ? FD_TABLE_MAX : (int)from;

	if (!t)
		return -ENOENT;
	table = task_get_fdtable(t);
	task_unref(t);
	if (!table)
		return 0;
	while ((fd = fd_next(table, fd, &f)) >= 0) {
		char name[16];
		int len = snprintf(name, sizeof(name), "%d", fd);
		bool more;

		file_unref(f);
		more = synth_emit(it, name, (size_t)len, type, 0, fd);
		if (!more)
			break;
		fd++;
	}
	fd_table_unref(table);
	return 0;
}

static int proc_fd_iterate(struct synth_node *dir, int64_t from, struct synth_iter *it)
{
	return proc_fd_emit(dir, from, it, S_IFLNK);
}

/* A thread may always list its own group's descriptors. */
static int proc_fd_permission(struct synth_node *n, const struct cred *cred, int mask)
{
	struct task *self = task_current(), *t;
	int err = synth_permission_default(n, cred, mask);

	if (!err || !self)
		return err;
	t = proc_task(n);
	if (t) {
		if (t->group == self->group)
			err = 0;
		task_unref(t);
	}
	return err;
}

static int proc_fd_getattr(struct synth_node *n, struct synth_attr *inout)
{
	struct task *t = proc_task(n);
	struct fd_table *table = t ? task_get_fdtable(t) : NULL;
	struct file *f;

	inout->size = 0;
	if (table) {
		/* As since Linux 6.2: how many are open. */
		for (int fd = 0; (fd = fd_next(table, fd, &f)) >= 0; fd++) {
			file_unref(f);
			inout->size++;
		}
		fd_table_unref(table);
	}
	if (t)
		task_unref(t);
	return proc_pid_getattr(n, inout);
}

const struct synth_node_ops proc_fd_ops = {
	.getattr = proc_fd_getattr,
	.setattr = synth_setattr_eperm,
	.permission = proc_fd_permission,
	.lookup = proc_fd_lookup,
	.iterate = proc_fd_iterate,
};

/* ---- fdinfo ---- */

static int fdinfo_show(struct synth_node *n, unused_arg struct synth_file *sf, struct buf *b)
{
	int fd = proc_fd_number(n);
	struct moat_statx st = {0};
	struct stat_args args = {.mask = STATX_INO};
	struct fd_table *table;
	struct task *t;
	struct file *f;
	bool cloexec = false;
	unsigned flags;
	int64_t pos;
	int err = proc_task_checked(n, &t);

	if (err)
		return err;
	table = task_get_fdtable(t);
	task_unref(t);
	f = table ? fd_get_flags(table, fd, &cloexec) : NULL;
	if (table)
		fd_table_unref(table);
	if (!f)
		return -ENOENT;
	flags = file_flags(f) | (cloexec ? O_CLOEXEC : 0);
	pos = f->pos; /* a snapshot; 8 bytes are read whole */
	(void)file_stat(f, &args, &st);
	buf_printf(b, "pos:\t%lli\nflags:\t0%o\nmnt_id:\t%i\nino:\t%llu\n", (long long)pos, flags,
		   f->path.mount->id, (unsigned long long)st.ino);
	if (f->ops->show_fdinfo)
		f->ops->show_fdinfo(f, b);
	file_unref(f);
	return 0;
}

static const struct synth_node_ops fdinfo_file_ops = {
	.getattr = proc_pid_getattr,
	.no_poll = true,
	.setattr = synth_setattr_eperm,
	.revalidate = fdlink_revalidate,
	.show = fdinfo_show,
};

static int proc_fdinfo_lookup(struct synth_node *dir, const char *name, size_t len,
			      struct synth_node **ret)
{
	return proc_fd_child(dir, name, len, S_IFREG | 0444, &fdinfo_file_ops, ret);
}

static int proc_fdinfo_iterate(struct synth_node *dir, int64_t from, struct synth_iter *it)
{
	return proc_fd_emit(dir, from, it, S_IFREG);
}

static int proc_fdinfo_permission(struct synth_node *n, const struct cred *cred, int mask)
{
	struct task *t;
	int err = synth_permission_default(n, cred, mask);

	if (err)
		return err;
	err = proc_task_checked(n, &t);
	if (!err)
		task_unref(t);
	return err;
}

const struct synth_node_ops proc_fdinfo_ops = {
	.getattr = proc_pid_getattr,
	.no_poll = true,
	.setattr = synth_setattr_eperm,
	.permission = proc_fdinfo_permission,
	.lookup = proc_fdinfo_lookup,
	.iterate = proc_fdinfo_iterate,
};

/* ---- cwd, root, exe ---- */

static int fsctx_place(struct synth_node *n, bool cwd, struct vfs_path *ret)
{
	struct fs_context *c;
	struct task *t;
	int err = proc_task_checked(n, &t);

	if (err)
		return err == -ESRCH ? -ENOENT : err;
	c = task_get_fsctx(t);
	task_unref(t);
	if (!c)
		return -ENOENT;
	if (cwd)
		fs_context_get_cwd(c, ret);
	else
		fs_context_get_root(c, ret);
	fs_context_unref(c);
	return 0;
}

static int cwd_place(struct synth_node *n, struct vfs_path *ret)
{
	return fsctx_place(n, true, ret);
}

static int root_place(struct synth_node *n, struct vfs_path *ret)
{
	return fsctx_place(n, false, ret);
}

static int exe_place(struct synth_node *n, struct vfs_path *ret)
{
	struct file *exe;
	struct task *t;
	struct mm *mm;
	int err = proc_task_checked(n, &t);

	if (err)
		return err == -ESRCH ? -ENOENT : err;
	mm = task_get_mm(t);
	task_unref(t);
	if (!mm)
		return -ENOENT;
	exe = mm_get_exe(mm);
	mm_unref(mm);
	if (!exe)
		return -ENOENT;
	*ret = exe->path;
	vfs_path_ref(ret);
	file_unref(exe);
	return 0;
}

#define PLACE_LINK(var, place_fn)                                           \
	static int place_fn##_readlink(struct synth_node *n, struct buf *b) \
	{                                                                   \
		struct vfs_path place;                                      \
		int err = place_fn(n, &place);                              \
                                                                            \
		if (err)                                                    \
			return err;                                         \
		err = proc_path_text(&place, b);                            \
		vfs_path_unref(&place);                                     \
		return err;                                                 \
	}                                                                   \
	const struct synth_node_ops var = {.getattr = proc_pid_getattr,     \
					   .no_poll = true,                 \
					   .setattr = synth_setattr_eperm,  \
					   .readlink = place_fn##_readlink, \
					   .jump = place_fn}

PLACE_LINK(proc_cwd_ops, cwd_place);
PLACE_LINK(proc_rootlink_ops, root_place);
PLACE_LINK(proc_exe_ops, exe_place);

/* ---- namespaces ---- */

static int ns_readlink(struct synth_node *n, struct buf *b)
{
	const struct nsfs_kind *kind = n->entry->data;
	struct task *t;
	uint64_t ino;
	int err = proc_task_checked(n, &t);

	if (err)
		return err;
	err = nsfs_number(t, kind, &ino);
	task_unref(t);
	if (!err)
		buf_printf(b, "%s:[%llu]", kind->name, (unsigned long long)ino);
	return err;
}

static int ns_jump(struct synth_node *n, struct vfs_path *ret)
{
	struct task *t;
	int err = proc_task_checked(n, &t);

	if (err)
		return err;
	err = nsfs_place(t, n->entry->data, ret);
	task_unref(t);
	return err;
}

static const struct synth_node_ops ns_link_ops = {
	.getattr = proc_pid_getattr,
	.no_poll = true,
	.setattr = synth_setattr_eperm,
	.readlink = ns_readlink,
	.jump = ns_jump,
};

#define NS(link_name, ns)                                                                     \
	{                                                                                     \
		.name = link_name, .mode = S_IFLNK | 0777, .ops = &ns_link_ops, .data = &(ns) \
	}

const struct synth_entry proc_ns_entries[] = {
	NS("cgroup", nsfs_cgroup),
	NS("ipc", nsfs_ipc),
	NS("mnt", nsfs_mnt),
	NS("net", nsfs_net),
	NS("pid", nsfs_pid),
	NS("pid_for_children", nsfs_pid_children),
	NS("time", nsfs_time),
	NS("time_for_children", nsfs_time),
	NS("user", nsfs_user),
	NS("uts", nsfs_uts),
	{0},
};

const struct synth_node_ops proc_ns_ops = {
	.getattr = proc_pid_getattr,
	.no_poll = true,
	.setattr = synth_setattr_eperm,
};
