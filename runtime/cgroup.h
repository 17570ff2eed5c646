/*
 * runtime/cgroup.h - the host's cgroups of a sandbox: v1, hybrid (v1 with an empty v2 beside it) and v2, made as runc makes them.
 *
 * All of a sandbox's processes (monitor, sentry, gofer, exec monitors) are in one cgroup, so limits hold for the whole, and what
 * engines read there is the sandbox's use. A controller that the host lacks is passed over with a warning.
 */
#ifndef MOAT_RUNTIME_CGROUP_H
#define MOAT_RUNTIME_CGROUP_H

#include <jansson.h>
#include <sys/types.h>

#include "base/compiler.h"

#define CGROUP_DIRS_MAX 24
#define CGROUP_ERROR_MAX 300
/* Host threads of a sandbox that are no guest's threads: the host's pids limit lies this much above the container's own. */
#define CGROUP_PIDS_EXTRA 64

/* The kernel's bounds of cpu.shares. */
#define CGROUP_SHARES_MIN 2
#define CGROUP_SHARES_MAX 262144

/* The host's for a container's own; negative: without limit. */
static inline long long cgroup_host_pids(long long limit)
{
	if (limit <= 0)
		return -1;
	return limit > INT64_MAX - CGROUP_PIDS_EXTRA ? INT64_MAX : limit + CGROUP_PIDS_EXTRA;
}

struct cgroup_dir {
	char *controllers; /* "cpu,cpuacct", "name=systemd", "" for v2 */
	char *root; /* where the hierarchy is mounted */
	char *path; /* the container's directory */
};

struct cgroup {
	int version; /* 0: none (disabled, or the host has no cgroups), 1, 2 */
	char *name; /* the container's path below the hierarchies */
	/* By the systemd manager: the scope, and the slice that it is in; else NULL. */
	char *unit, *slice;
	bool user; /* the scope is of the user's own systemd, not of the system's */
	struct cgroup_dir dirs[CGROUP_DIRS_MAX];
	unsigned ndirs;
};

enum cgroup_manager {
	CGROUP_BY_FILES,
	CGROUP_BY_SYSTEMD, /* the system's */
	CGROUP_BY_USER_SYSTEMD, /* the caller's own, which has a part of v2's hierarchy */
};

/*
 * Finds the directories, makes nothing. `cgroups_path`: linux.cgroupsPath or NULL. Return 0, -EINVAL with `why`.
 */
must_check int cgroup_find(struct cgroup *cg, const char *cgroups_path, const char *id,
			   enum cgroup_manager manager, char *why);
void cgroup_fini(struct cgroup *cg);
json_t *cgroup_to_json(const struct cgroup *cg);
must_check int cgroup_from_json(struct cgroup *cg, const json_t *j);
/* mkdir, with the parents' controllers enabled; `resources` (or NULL): what is going to be limited. Return 0 or -errno with `why`. */
must_check int cgroup_create(struct cgroup *cg, const json_t *resources, char *why);
/*
 * By the systemd manager, instead of cgroup_create and cgroup_enter: systemd makes the scope around process `pid`; `annotations` (or NULL) may name
 * further properties of the unit. -EEXIST: refused, and `cg` is empty. Then the process enters what systemd does not manage (v1: cpuset, freezer ...).
 */
must_check int cgroup_start_scope(struct cgroup *cg, int pid, const json_t *annotations, char *why);
must_check int cgroup_complete_scope(struct cgroup *cg, int pid, const json_t *resources,
				     char *why);
/* v2's cpu.weight for v1's cpu.shares. */
static inline uint64_t cgroup_weight_of_shares(long long shares)
{
	long long above =
		MAX(MIN(shares, CGROUP_SHARES_MAX), CGROUP_SHARES_MIN) - CGROUP_SHARES_MIN;

	return 1 + (uint64_t)(above * 9999) / (CGROUP_SHARES_MAX - CGROUP_SHARES_MIN);
}
/* linux.resources (may be NULL); also `moat update`. Return 0 or -errno with `why`. */
must_check int cgroup_apply(const struct cgroup *cg, const json_t *resources, char *why);
/*
 * A process (0: the calling one, which must have one thread) moves in; the calling one out to the hierarchies' roots. Of another process, and on v2
 * of any, the first entry after a while without any waits for an RCU grace period, about 10 ms on an idle machine: cgroup_clone() is for that.
 */
must_check int cgroup_enter(const struct cgroup *cg, int pid, char *why);
/*
 * fork(2) by clone3(2), with further flags of that, for a caller of one thread. *ret_entered, also in the child: it began in the cgroup, where that can be,
 * and needs no cgroup_enter(). Return the pid, 0 in the child, -errno.
 */
must_check pid_t cgroup_clone(const struct cgroup *cg, unsigned long flags, int exit_signal,
			      bool *ret_entered);
void cgroup_leave(const struct cgroup *cg);
bool cgroup_can_freeze(const struct cgroup *cg);
must_check int cgroup_freeze(const struct cgroup *cg, bool frozen);
bool cgroup_is_frozen(const struct cgroup *cg);
/* Long enough for processes that were killed on a busy machine, and for one that is frozen for a while. */
#define CGROUP_REMOVE_MS 10000
/*
 * Removes the directories and what is below them. Nobody in there is killed: the sandbox's own processes end with the monitor, and whoever else was put
 * there is not ours to end. Return 0, -EBUSY: one has processes after timeout_ms; another -errno: it may not be removed by us.
 */
must_check int cgroup_remove(const struct cgroup *cg, int timeout_ms);
/*
 * The same for a container whose monitor has died before anything was kept. Its scope has ended with it: one of that name is by now
 * somebody else's, and systemd is not asked. Return as cgroup_remove().
 */
must_check int cgroup_remove_dead(const struct cgroup *cg);
/* How many processes are there, and below, in the hierarchy that has the most. Before cgroup_create() makes it the container's there must be none. */
size_t cgroup_population(const struct cgroup *cg);
/* runc's "data" object of `events --stats`. */
json_t *cgroup_stats(const struct cgroup *cg);
/* Does it bound the memory of who is in it, whatever the bound is? */
bool cgroup_bounds_memory(const struct cgroup *cg);
/* How often the host's OOM killer struck in it. */
uint64_t cgroup_oom_kills(const struct cgroup *cg);

#endif
