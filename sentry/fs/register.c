/* sentry/fs/register.c - installs the filesystems and the hooks that lower layers left open. */
#include <string.h>

#include "fsimpl/anon/anon.h"
#include "fsimpl/socket/socket.h"
#include "sentry/fs/internal.h"
#include "sentry/ipc/mq.h"
#include "sentry/nsfs.h"
#include "sentry/pidns.h"
#include "sentry/task.h"
#include "sentry/tty/tty.h"

/* ---- signalfd ---- */

static bool sigfd_dequeue(uint64_t mask, void *ret_siginfo)
{
	struct task *t = task_current();
	struct moat_siginfo info;

	if (!t || !signal_dequeue(t, mask, &info))
		return false;
	signalfd_encode(&info, ret_siginfo);
	return true;
}

static bool sigfd_pending(uint64_t mask)
{
	struct task *t = task_current();

	return t && (signal_pending_set(t) & mask);
}

static struct wait_queue *sigfd_queue(void)
{
	struct task *t = task_current();

	return t ? signal_wait_queue(t) : NULL;
}

static int32_t current_tgid(void)
{
	struct task *t = task_current();

	return t ? t->group->tgid : 0;
}

static bool current_exiting(void)
{
	struct task *t = task_current();

	return !t || t->exiting;
}

int sentry_fs_register(void)
{
	static const struct signalfd_hooks sigfd = {
		.dequeue = sigfd_dequeue,
		.pending = sigfd_pending,
		.wait_queue = sigfd_queue,
	};
	int err = anon_init();

	if (err)
		return err;
	err = tty_init();
	if (err)
		return err;
	nsfs_init();
	proc_register();
	sysfs_register();
	mq_deliver = netlink_deliver;
	mq_register();
	cgroup_register();
	vfs_hooks.open_special = dev_open_special;
	signalfd_install(&sigfd);
	socket_hooks.current_tgid = current_tgid;
	socket_hooks.pid_seen = pid_current_vnr;
	vfs_hooks.pid_seen = pid_current_vnr;
	socket_hooks.current_exiting = current_exiting;
	kmsg_printf(6, "Moat: the kernel of this sandbox is a program of its own");
	return 0;
}
