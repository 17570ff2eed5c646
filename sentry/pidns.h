/*
 * sentry/pidns.h - pid namespaces: what a process's number is, seen from where.
 *
 * Inside the sentry a number is always one of the root namespace: task->tid, group->tgid, pgrp->id, session->id, and every pid that an object keeps
 * (locks, owners, System V objects, credentials of sockets). task_find() and the like take those. Numbers of other namespaces exist at the
 * boundary only: a system call translates what it is given with pid_root() and what it gives with pid_vnr(), and a /proc shows its mount's
 * namespace. In the root namespace both are the identity and cost one load. A task's own numbers are kept beside: task->vtid, group->vtgid.
 *
 * A struct pid is the numbers of one root number at every level below the root: only tasks outside the root namespace have one. It is found by its
 * root number (kernel-wide table) and, for each level, by its number there (namespace's table).
 *
 *	taskset_lock (write): numbers are given and taken back; namespace->init, dead
 *	  pids_lock (LOCK_IDR - 1): both tables
 *	    a table's own lock (LOCK_IDR)
 *
 * Invariants. A group's namespace never changes, and a group holds a reference to it; a namespace holds its parent. A number stays taken in every
 * namespace while a task, process group or session bears its root number. Lookups are lock-free (RCU). A dead process's struct pid stays findable by
 * root number until that number is given again or its namespace ends, so that what it left behind (a socket's peer, a lock) still has a number.
 */
#ifndef MOAT_SENTRY_PIDNS_H
#define MOAT_SENTRY_PIDNS_H

#include "sentry/task.h"

#define PID_NS_LEVEL_MAX 32 /* MAX_PID_NS_LEVEL: of the deepest */

struct pid_namespace {
	struct ref ref; /* the root's is never counted */
	struct pid_namespace *parent; /* immutable; a reference; NULL: the root */
	int level; /* immutable; 0: the root */
	uint64_t ino; /* immutable; what /proc/PID/ns/pid shows */
	struct idr
		pids; /* number -> struct pid, borrowed; guarded by pids_lock, RCU for readers; not used in the root */
	struct thread_group *
		init; /* number 1 until it is reaped; borrowed; guarded by taskset_lock; the root's: kernel.init */
	bool dead; /* init has ended, nothing may be born; guarded by taskset_lock */
	int32_t tasks; /* zombies too, here and below; guarded by taskset_lock */
};
extern struct pid_namespace pid_ns_root;
/*
 * Told, possibly more than once, when all in a namespace have been killed since its init ended: whoever keeps a process that was never started has to
 * start it, for it has no thread to die on. On init's last thread, no locks held. NULL: nobody.
 */
extern void (*pid_ns_on_killed)(void);

/* A child of `parent`, without processes: the first one made in it becomes its init. Return 0 and a reference; -ENOMEM, -ENOSPC (too deep). */
must_check int pid_ns_create(struct pid_namespace *parent, struct pid_namespace **ret);
static inline void pid_ns_ref(struct pid_namespace *ns)
{
	if (unlikely(ns->level))
		ref_get(&ns->ref);
}
void pid_ns_unref(struct pid_namespace *ns); /* NULL: nothing */
/* ns is `of` or below it. */
bool pid_ns_within(const struct pid_namespace *ns, const struct pid_namespace *of);
/* The namespace of the calling task; the root's for threads that are none. */
struct pid_namespace *pid_ns_current(void);
/* What clone() puts t's children into: a reference. t's own lock is taken. */
struct pid_namespace *pid_ns_for_children(struct task *t);
/* unshare(CLONE_NEWPID), setns(): t's children will be in ns (a reference is taken). The calling task. */
void pid_ns_set_for_children(struct task *t, struct pid_namespace *ns);

int32_t pid_nr_in_slow(const struct pid_namespace *ns, int32_t root);
int32_t pid_root_of_slow(struct pid_namespace *ns, int32_t nr);
/* The number in ns of who has this root number; 0: it is not visible there. */
static inline int32_t pid_nr_in(const struct pid_namespace *ns, int32_t root)
{
	return likely(!ns->level) ? root : pid_nr_in_slow(ns, root);
}
/* The root number of who has this number in ns; 0: nobody. */
static inline int32_t pid_root_of(struct pid_namespace *ns, int32_t nr)
{
	return likely(!ns->level) ? nr : pid_root_of_slow(ns, nr);
}
/* The same as t sees it. */
static inline int32_t pid_vnr(const struct task *t, int32_t root)
{
	return pid_nr_in(t->group->pid_ns, root);
}
static inline int32_t pid_root(const struct task *t, int32_t nr)
{
	return pid_root_of(t->group->pid_ns, nr);
}
/* For hooks of lower layers: as the calling task sees it. */
int32_t pid_current_vnr(int32_t root);
/* By number in ns; by number as t sees it. A reference or NULL. */
struct task *task_find_in(struct pid_namespace *ns, int32_t nr);
static inline struct task *task_find_v(const struct task *t, int32_t nr)
{
	return task_find_in(t->group->pid_ns, nr);
}
/* task_next() and group_next() by the numbers of ns. */
struct task *task_next_in(struct pid_namespace *ns, int32_t *nr);
struct thread_group *group_next_in(struct pid_namespace *ns, int32_t *nr);
/* All numbers from ns down to the deepest, as "%s%d" (NSpid of /proc/PID/status). Nothing if it is not visible. */
void pid_show_levels(const struct pid_namespace *ns, int32_t root, const char *sep, struct buf *b);

/* ---- for the task core; taskset_lock held for writing ---- */

void pid_ns_init(void); /* once; no lock */

/*
 * Gives root number `root` numbers in ns and its ancestors. want: numbers to have, innermost first; want_count: how many. *ret_nr: the one in ns.
 * Return 0; -ENOMEM (also: ns's init is dead, as Linux says), -EAGAIN, -EINVAL, -EEXIST.
 */
must_check int pid_assign(struct pid_namespace *ns, int32_t root, const int32_t *want,
			  size_t want_count, int32_t *ret_nr);
/* A root number that was free is given to somebody: what its last bearer left is forgotten. */
void pid_forget(int32_t root);
/* Nobody bears the root number any more (the caller has looked): its numbers are free. */
void pid_release(int32_t root);
/* One task less in ns. */
void pid_ns_task_gone(struct pid_namespace *ns);
/* The calling task's group, an init, has ended but for this thread: nothing else in its namespace may live on. No locks held; sleeps. */
void pid_ns_zap(struct thread_group *g);

#endif
