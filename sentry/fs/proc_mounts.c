/* sentry/fs/proc_mounts.c - /proc/PID/{mounts,mountinfo,mountstats}: a namespace's mounts, and word of their changes by poll(2). */
#include <poll.h>
#include <stdlib.h>

#include "sentry/fs/proc.h"

static int mounts_render(struct task *t, enum mount_show what, struct buf *b)
{
	struct mount_namespace *ns = task_get_mnt_ns(t);
	struct fs_context *fsctx = task_get_fsctx(t);
	int err = 0;

	if (ns && fsctx) {
		struct vfs_path root;

		fs_context_get_root(fsctx, &root);
		vfs_show_mounts(ns, &root, what, b);
		vfs_path_unref(&root);
	} else {
		err = -EINVAL; /* a zombie's */
	}
	if (fsctx)
		fs_context_unref(fsctx);
	if (ns)
		mount_namespace_unref(ns);
	return err;
}

static int mounts_of(struct synth_node *n, enum mount_show what, struct buf *b)
{
	struct task *t = proc_task(n);
	int err;

	if (!t)
		return -ESRCH;
	err = mounts_render(t, what, b);
	task_unref(t);
	return err;
}

static int mounts_show(struct synth_node *n, unused_arg struct synth_file *sf, struct buf *b)
{
	return mounts_of(n, MOUNT_SHOW_MOUNTS, b);
}

static int mountinfo_show(struct synth_node *n, unused_arg struct synth_file *sf, struct buf *b)
{
	return mounts_of(n, MOUNT_SHOW_MOUNTINFO, b);
}

static int mountstats_show(struct synth_node *n, unused_arg struct synth_file *sf, struct buf *b)
{
	return mounts_of(n, MOUNT_SHOW_MOUNTSTATS, b);
}

/* The namespace that an open mounts file watches stays while it is open. */
struct mounts_watch {
	struct mount_namespace *ns; /* a reference */
	_Atomic uint64_t seen; /* the last change that poll(2) told of */
};

static int mounts_open(struct synth_node *n, struct synth_file *sf)
{
	struct task *t = proc_task(n);
	struct mounts_watch *w;

	if (!t)
		return -ESRCH;
	w = calloc(1, sizeof(*w));
	if (w)
		w->ns = task_get_mnt_ns(t);
	task_unref(t);
	if (!w)
		return -ENOMEM;
	if (!w->ns) {
		free(w);
		return -EINVAL;
	}
	atomic_init(&w->seen, mount_namespace_event(w->ns));
	sf->priv = w;
	return 0;
}

static void mounts_close(unused_arg struct synth_node *n, struct synth_file *sf)
{
	struct mounts_watch *w = sf->priv;

	if (w)
		mount_namespace_unref(w->ns);
	free(w);
}

static struct wait_queue *mounts_poll_queue(unused_arg struct synth_node *n, struct synth_file *sf)
{
	struct mounts_watch *w = sf->priv;

	return mount_namespace_wait_queue(w->ns);
}

/* mounts_poll(): each change is told once to each open file. */
static uint32_t mounts_poll(unused_arg struct synth_node *n, struct synth_file *sf)
{
	struct mounts_watch *w = sf->priv;
	uint64_t now = mount_namespace_event(w->ns);

	return POLLIN | POLLRDNORM |
	       (atomic_exchange(&w->seen, now) != now ? POLLERR | POLLPRI : 0);
}

/* What read_iter serves in Linux. */
const struct synth_node_ops proc_mounts_ops = {
	.getattr = proc_pid_getattr,
	.setattr = synth_setattr_eperm,
	.no_poll = true,
	.splice = SYNTH_SPLICE_YES,
	.show = mounts_show,
	.open = mounts_open,
	.close = mounts_close,
	.poll = mounts_poll,
	.poll_queue = mounts_poll_queue,
};

const struct synth_node_ops proc_mountinfo_ops = {
	.getattr = proc_pid_getattr,
	.setattr = synth_setattr_eperm,
	.no_poll = true,
	.splice = SYNTH_SPLICE_YES,
	.show = mountinfo_show,
	.open = mounts_open,
	.close = mounts_close,
	.poll = mounts_poll,
	.poll_queue = mounts_poll_queue,
};

const struct synth_node_ops proc_mountstats_ops = {
	.getattr = proc_pid_getattr,
	.setattr = synth_setattr_eperm,
	.no_poll = true,
	.splice = SYNTH_SPLICE_YES,
	.show = mountstats_show,
};
