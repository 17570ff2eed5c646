#include "vfs/locks.h"
#include "vfs/vfs_internal.h"

void vfs_file_gone(struct file *f)
{
	file_locks_gone(f);
	epoll_file_gone(f);
}
