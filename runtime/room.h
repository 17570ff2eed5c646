/*
 * runtime/room.h - how much memory the host would still give to the container, as the monitor can tell the sentry, which sees nothing of the host.
 *
 * What the cgroup's files say is an estimate: they lag, and the kernel takes back page cache, slabs and what CPUs hold in advance before it lets anybody die. So
 * when little is left the host itself is asked: a child of the monitor's, whose oom_score_adj is 1000, takes what ought to be there. If the host's OOM
 * killer ends it, there is no more, the host has counted that, and who watches the cgroup has been told (OOMKilled of engines). Else it ends at once.
 *
 * The kernel has to think the child worse than the sentry, which maps all of the container's memory. 1000 is worth as many pages as the limit has; above that the child
 * maps a few pages many times, since pages count as often as they are mapped (and the sentry maps none twice then: mem_private_unmap()).
 */
#ifndef MOAT_RUNTIME_ROOM_H
#define MOAT_RUNTIME_ROOM_H

#include "runtime/cgroup.h"
#include "wire/control.h"

struct room {
	int limit_fd, usage_fd, stat_fd; /* of the memory controller; -1: there is none */
	int adj_fd; /* the monitor's oom_score_adj */
	int proc_fd; /* the host's /proc: the child's own is there */
	int pad_fd; /* what the child maps many times; -1: not made yet */
	pid_t probe; /* or 0 */
	struct control_msg reply; /* to who has asked for it */
};

/* Before the monitor leaves the host's mounts. None of it can fail: without its files nothing is known. */
void room_open(struct room *r, const struct cgroup *cg);
/* CONTROL_ROOM. Return: *ret is the answer; false: it comes by room_reaped(). */
must_check bool room_ask(struct room *r, const struct control_msg *msg, struct control_msg *ret);
/* A child has ended. Return: it was the probe, and *ret is the answer. */
must_check bool room_reaped(struct room *r, pid_t pid, int status, struct control_msg *ret);

#endif
