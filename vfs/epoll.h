/*
 * vfs/epoll.h - epoll(7) on file descriptions.
 *
 * An entry is keyed by (description, descriptor number), as in Linux, and goes when the description does.
 */
#ifndef MOAT_VFS_EPOLL_H
#define MOAT_VFS_EPOLL_H

#include <sys/epoll.h>

#include "vfs/file.h"

#define EPOLL_NEST_MAX 4 /* epoll files watching epoll files */
extern _Atomic int64_t
	epoll_watches_max; /* fs.epoll.max_user_watches: entries in all; root may change it */
#define EPOLL_EVENTS_MAX (INT32_MAX / (int)sizeof(struct epoll_event))

/* An epoll description at `place` (a nameless inode). Returns a reference. */
must_check int epoll_file_create(const struct vfs_path *place, unsigned flags, struct file **ret);
bool file_is_epoll(const struct file *f);
/*
 * epoll_ctl(2). `fd` is the number under which the caller knows target. Return: 0, -EINVAL (ep is no epoll file, or is target; wrong EPOLLEXCLUSIVE),
 * -EEXIST, -ENOENT, -EPERM (target cannot be polled), -ELOOP, -ENOSPC, -ENOMEM.
 */
must_check int epoll_file_ctl(struct file *ep, int op, struct file *target, int fd,
			      const struct epoll_event *event);
/*
 * epoll_wait(2): at most `max` > 0 events. deadline_ns as sleeper_wait(); 0 or past: only looks. Return: how many, 0 at the deadline, -EINTR, -EINVAL.
 */
must_check int epoll_file_wait(struct file *ep, struct epoll_event *events, int max,
			       int64_t deadline_ns);

#endif
