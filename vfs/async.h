/*
 * vfs/async.h - O_ASYNC: SIGIO when a file becomes ready (Linux's fasync).
 *
 * For files whose ops say `fasync`, or whose set_flags begins it. While the flag is set a waiter of the file's own sits on its queue; the signal is sent when the thread that
 * made it ready holds no lock any more.
 */
#ifndef MOAT_VFS_ASYNC_H
#define MOAT_VFS_ASYNC_H

#include "vfs/file.h"

/* On: the descriptor `fd` is what si_fd will say. Idempotent. -ENOMEM. */
must_check int file_async_set(struct file *f, bool on);
/* f's last reference is gone. */
void file_async_gone(struct file *f);

#endif
