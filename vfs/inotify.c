#include "vfs/inotify.h"

_Atomic uint32_t vfs_watch_count;

void vfs_notify_self_slow(struct dentry *d unused_arg, uint32_t mask unused_arg,
			  bool isdir unused_arg)
{
}

void vfs_notify_child_slow(struct dentry *dir unused_arg, uint32_t mask unused_arg,
			   uint32_t cookie unused_arg, const char *name unused_arg,
			   size_t len unused_arg, bool isdir unused_arg)
{
}

void vfs_notify_both_slow(struct dentry *d unused_arg, uint32_t mask unused_arg)
{
}

uint32_t vfs_notify_cookie(void)
{
	static _Atomic uint32_t last;

	return atomic_fetch_add_explicit(&last, 1, memory_order_relaxed) + 1;
}
