/* syscalls/init.c - what the layers below ask of the calling task: user copies, limits, signals, identity. */
#include <fcntl.h>
#include <signal.h>

#include "syscalls/sock.h"
#include "syscalls/syscalls.h"
#include "syscalls/util.h"

static int hook_copy_in(void *dst, uint64_t addr, size_t size)
{
	struct task *t = task_current();

	return t && t->mm ? mm_copy_in(t->mm, dst, addr, size) : -EFAULT;
}

static int hook_copy_out(uint64_t addr, const void *src, size_t size)
{
	struct task *t = task_current();

	return t && t->mm ? mm_copy_out(t->mm, addr, src, size) : -EFAULT;
}

static void hook_raise_signal(int signo)
{
	struct task *t = task_current();

	if (t)
		(void)signal_send_self(t, signo);
}

/* generic_write_check_limits: nothing at or past a limit, and a write across it is cut. The largest offset is one: an append finds it here. */
static int hook_check_fsize(int64_t off, struct io_iter *it)
{
	struct task *t = task_current();
	uint64_t limit = t ? task_rlimit(t, RLIMIT_FSIZE) : RLIM_INFINITY;

	if (!it->remaining)
		return 0;
	if (unlikely((uint64_t)off >= limit)) {
		(void)signal_send_self(t, SIGXFSZ);
		return -EFBIG;
	}
	limit = MIN(limit, (uint64_t)INT64_MAX);
	if (unlikely((uint64_t)off >= limit))
		return -EFBIG;
	io_iter_truncate(it, limit - (uint64_t)off);
	return 0;
}

static void *hook_lock_owner(int32_t *ret_pid)
{
	struct task *t = task_current();

	*ret_pid = t ? t->group->tgid : 0;
	return t ? fd_table_owner(t->fdtable) : NULL;
}

/* chroot_fs_refs: every task that stood at the old root stands at the new one. */
static void hook_replace_root(const struct vfs_path *old, const struct vfs_path *now)
{
	struct task *t;

	for (int32_t tid = 1; (t = task_next(&tid)); tid++) {
		struct fs_context *c = task_get_fsctx(t);

		if (c) {
			fs_context_replace(c, old, now);
			fs_context_unref(c);
		}
		task_unref(t);
	}
}

int syscalls_init(void)
{
	vfs_hooks.copy_in = hook_copy_in;
	vfs_hooks.copy_out = hook_copy_out;
	vfs_hooks.raise_signal = hook_raise_signal;
	vfs_hooks.check_fsize = hook_check_fsize;
	vfs_hooks.lock_owner = hook_lock_owner;
	vfs_hooks.replace_root = hook_replace_root;
	vfs_hooks.send_sigio = fcntl_send_sigio;
	socket_hooks.pidfd_install = sock_pidfd_install;
	vfs_hooks.opened_elsewhere = fcntl_opened_elsewhere;
	kernel.dispatch = syscall_dispatch;
	return 0;
}
