/*
 * sentry/cgroup_tree.h - the groups that a container makes of its own processes: the hierarchy below its cgroup, as cgroup2 has it.
 *
 * A group has a name, processes, and groups below it. There are no controllers: what is limited is the container (struct task_cgroup); a group tells who is in it,
 * whether anybody is, and can be killed. That is what service managers want of it.
 *
 * A process is in one group, its parent's when it begins; a NULL of thread_group.group stands for the container's own, the root of its tree, so that a container
 * without groups costs nothing. A group that has live processes or groups below it cannot be removed; zombies keep none, but find its name.
 *
 * A container has at most CGROUP_GROUPS_MAX of them, CGROUP_DEPTH_MAX in each other; further ones are EAGAIN, as cgroup.max.* says it.
 *
 * Locks: the root's lock (LOCK_CGROUP) around its tree and who is in what of it; trees of two containers have nothing to do with each other. Who moves a process
 * holds taskset_lock (read) as well, so that nobody who has ended is counted.
 */
#ifndef MOAT_SENTRY_CGROUP_TREE_H
#define MOAT_SENTRY_CGROUP_TREE_H

#include "base/buf.h"
#include "base/ref.h"
#include "sentry/cgroup.h"
#include "vfs/file.h"

#define CGROUP_GROUPS_MAX 8192
#define CGROUP_DEPTH_MAX 64
#define CGROUP_FILES_MAX 16 /* files of a group that have owners of their own; 0 is the directory */

struct cgroup_owner {
	uint32_t mode, uid, gid; /* mode: with S_IFMT; 0: the file's own */
};

/* A directory of a mounted file system that shows the group. */
struct cgroup_view {
	struct cgroup_group *group; /* immutable; a reference */
	struct dentry *dir; /* immutable; borrowed: its end takes the view away first */
	void (*changed)(
		struct dentry *dir); /* immutable: cgroup.events has another content. Sleeps */
	TAILQ_ENTRY(cgroup_view) link; /* guarded by the root's lock, as turn */
	uint32_t turn; /* the last that it was told */
};

struct cgroup_group {
	struct ref
		ref; /* the tree has one until the group is removed, each process in it, each group below, each view */
	struct task_cgroup *cg; /* immutable; borrowed: whoever comes here has one */
	struct cgroup_group *parent; /* immutable; a reference; NULL: the root */
	struct cgroup_group *root; /* immutable; borrowed: the parents hold it */
	struct mutex lock; /* the root's: LOCK_CGROUP */
	char *name; /* immutable; owned */
	int64_t id; /* immutable: ascends among those of one directory */
	unsigned depth; /* immutable */
	/* guarded by the root's lock */
	TAILQ_HEAD(, cgroup_group) children; /* the oldest first */
	TAILQ_ENTRY(cgroup_group) sibling;
	TAILQ_HEAD(, cgroup_view) views; /* by turn, the oldest first */
	bool removed;
	uint32_t members; /* live processes */
	uint32_t populated; /* groups below that have any, and itself */
	uint32_t descendants;
	uint32_t max_depth, max_descendants; /* UINT32_MAX: any */
	struct cgroup_owner owners[CGROUP_FILES_MAX];
	/* its populated changed */
	_Atomic uint32_t events;
	_Atomic bool some; /* of a root: there was a group below it once */
	struct wait_queue wait;
	_Atomic bool telling; /* `tell` is queued, with a reference */
	struct deferred_work tell;
};

void cgroup_group_ref(struct cgroup_group *c);
void cgroup_group_unref(struct cgroup_group *c); /* NULL is ignored */

/* With a container. */
must_check int cgroup_root_create(struct task_cgroup *cg, struct cgroup_group **ret);
void cgroup_root_destroy(struct cgroup_group *root); /* NULL is ignored; nobody is in it */

/* Return: 0; -EEXIST, -EAGAIN (a limit), -ENODEV (dir was removed), -ENOMEM. */
must_check int cgroup_group_create(struct cgroup_group *dir, const char *name, size_t len,
				   const struct cgroup_owner *owner);
/* Return: 0, -EBUSY, -ENODEV. */
must_check int cgroup_group_remove(struct cgroup_group *c);
bool cgroup_group_removed(struct cgroup_group *c);
/* A reference, or NULL. */
struct cgroup_group *cgroup_group_find(struct cgroup_group *dir, const char *name, size_t len);
/* The first below dir with an id of *id or more, which becomes its id: a reference; NULL: none. */
struct cgroup_group *cgroup_group_next(struct cgroup_group *dir, int64_t *id);
/* Those below it, all levels. */
uint32_t cgroup_group_descendants(struct cgroup_group *c);
bool cgroup_group_populated(struct cgroup_group *c);
/* Of one file (below CGROUP_FILES_MAX). */
void cgroup_group_owner(struct cgroup_group *c, unsigned file, struct cgroup_owner *ret);
/* What `valid` (SETATTR_*) names of it. */
void cgroup_group_set_owner(struct cgroup_group *c, unsigned file, const struct cgroup_owner *o,
			    unsigned valid);
/* cgroup.max.*. */
void cgroup_group_limits(struct cgroup_group *c, uint32_t *ret_depth, uint32_t *ret_descendants);
void cgroup_group_set_limits(struct cgroup_group *c, const uint32_t *depth,
			     const uint32_t *descendants); /* NULL: as it is */
/* The group that holds both of them: a reference. Of one container. */
struct cgroup_group *cgroup_group_common(struct cgroup_group *a, struct cgroup_group *b);

/* v->dir and v->changed are set, and v->group with a reference that is the view's. */
void cgroup_view_add(struct cgroup_view *v);
/* Gives the reference back. */
void cgroup_view_drop(struct cgroup_view *v);

/* ---- processes ---- */

/* The group that g is in: a reference. */
struct cgroup_group *cgroup_group_of(struct thread_group *g);
/* Is g in just this group? */
bool cgroup_group_has(const struct cgroup_group *c, const struct thread_group *g);
/* Return: 0; -ENODEV: c was removed; -ENOENT: g is of another container; -EAGAIN: it is no longer in `from`. One that has ended stays where it was. */
must_check int cgroup_group_move(struct cgroup_group *c, const struct cgroup_group *from,
				 struct thread_group *g);
/* SIGKILL to all in it and below it, and whom they fork meanwhile; not to an init whose namespace the caller is in. */
void cgroup_group_kill(struct cgroup_group *c);
/* A process that is being made: where its parent is, or in c (NULL: that). Return: 0; -ENODEV: c was removed. */
must_check int cgroup_fork(const struct thread_group *parent, struct thread_group *g,
			   struct cgroup_group *c);
/* All of its threads have ended, or it is reaped: taskset_lock (write) held. */
void cgroup_left(struct thread_group *g);
/* The last of it. */
void cgroup_forget(struct thread_group *g);
/* What /proc/PID/cgroup shows: the container's path with the group's behind it. */
void cgroup_path_of(struct thread_group *g, struct buf *b);

#endif
