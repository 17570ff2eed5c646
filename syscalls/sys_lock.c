/* syscalls/sys_lock.c - record locks and flock(2). */
#include "syscalls/syscalls.h"
#include "syscalls/util.h"

int64_t fcntl_lock(unused_arg struct task *t, unused_arg struct file *f, unused_arg unsigned cmd,
		   unused_arg uint64_t arg)
{
	return -ENOLCK;
}
