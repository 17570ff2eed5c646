/* sentry/fs/cgroup.h - between the two halves of cgroup2: what the container has (cgroup.c), and its groups (cgroup_group.c). */
#ifndef MOAT_SENTRY_FS_CGROUP_H
#define MOAT_SENTRY_FS_CGROUP_H

#include "fsimpl/synth/synth.h"
#include "sentry/cgroup_tree.h"

#define CGROUP2_SUPER_MAGIC 0x63677270

/* The inode number of a group's directory: one that was removed does not lend it to another of its name. */
#define CGROUP_INO(id) ((uint64_t)(id) + (1ull << 32))

/* The files that each group has; each has an owner of its own (struct cgroup_group.owners), as has the directory. */
enum cgroup_core {
	CGROUP_DIRECTORY,
	CGROUP_CONTROLLERS,
	CGROUP_EVENTS,
	CGROUP_KILL,
	CGROUP_MAX_DEPTH,
	CGROUP_MAX_DESCENDANTS,
	CGROUP_PROCS,
	CGROUP_STAT,
	CGROUP_SUBTREE_CONTROL,
	CGROUP_THREADS,
	CGROUP_TYPE,
	CGROUP_CORE_FILES
};
static_assert(CGROUP_CORE_FILES <= CGROUP_FILES_MAX, "an owner each");

extern const struct synth_node_ops cgroup_core_ops[CGROUP_CORE_FILES];
extern const struct synth_node_ops cgroup_root_ops;

/* clang-format off */
#define CGROUP_CORE(file_name, bits, which)                                                        \
	{ .name = file_name, .mode = S_IFREG | (bits), .ops = &cgroup_core_ops[which],             \
	  .data = (const void *)(uintptr_t)(which) }
/* Of a directory's table. Each node's priv is the struct cgroup_view of its directory. */
#define CGROUP_CORE_ENTRIES                                                                        \
	CGROUP_CORE("cgroup.controllers", 0444, CGROUP_CONTROLLERS),                               \
	CGROUP_CORE("cgroup.events", 0444, CGROUP_EVENTS),                                         \
	CGROUP_CORE("cgroup.kill", 0200, CGROUP_KILL),                                             \
	CGROUP_CORE("cgroup.max.depth", 0644, CGROUP_MAX_DEPTH),                                   \
	CGROUP_CORE("cgroup.max.descendants", 0644, CGROUP_MAX_DESCENDANTS),                       \
	CGROUP_CORE("cgroup.procs", 0644, CGROUP_PROCS),                                           \
	CGROUP_CORE("cgroup.stat", 0444, CGROUP_STAT),                                             \
	CGROUP_CORE("cgroup.subtree_control", 0644, CGROUP_SUBTREE_CONTROL),                       \
	CGROUP_CORE("cgroup.threads", 0644, CGROUP_THREADS),                                       \
	CGROUP_CORE("cgroup.type", 0644, CGROUP_TYPE)
/* clang-format on */

/* Of c, whose reference it takes; dir is to be set then, and cgroup_view_add() called. NULL: no memory. */
struct cgroup_view *cgroup_view_create(struct cgroup_group *c);

#endif
