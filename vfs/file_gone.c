#include "vfs/async.h"
#include "vfs/inotify.h"
#include "vfs/lease.h"
#include "vfs/locks.h"
#include "vfs/vfs_internal.h"

void vfs_file_gone(struct file *f)
{
	file_locks_gone(f);
	file_lease_gone(f);
	file_async_gone(f);
	if (vfs_notify_wanted() && f->path.dentry)
		dnotify_gone_slow(f);
	epoll_file_gone(f);
}
