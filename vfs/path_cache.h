/*
 * vfs/path_cache.h - from a whole path to its place in constant time (vfs/path_cache.c says how and why it is right).
 *
 * What a filesystem with FS_PATH_CACHE promises:
 *  - its walk runs in an RCU read section and calls the path_record_* functions below;
 *  - whatever alters where a path through one of its directories leads (rename, removal; a directory's mode, owner or access ACL)
 *    stands between path_change_begin() and path_change_end(), and calls dentry_path_changed(), before the change can be
 *    seen, for the dentry itself and for everything below it that has DENTRY_PATH_CACHED or DENTRY_PATH_BELOW (or
 *    filesystem_paths_changed() when that is too much);
 *  - creations, removals and renames change the sequence count that it gives to path_record_miss();
 *  - dentries are freed after a grace period, following dentry_fini().
 */
#ifndef MOAT_VFS_PATH_CACHE_H
#define MOAT_VFS_PATH_CACHE_H

#include "base/lock.h"
#include "vfs/vfs.h"

#define PATH_CACHE_SETS 2048u
#define PATH_CACHE_WAYS 4u
#define PATH_CACHE_PATH_MAX 1023u /* longer paths are walked */
#define PATH_CACHE_BYTES_MAX (4u << 20) /* entries; above it a new one only replaces */
#define PATH_WITNESS_MAX 8u /* turns, mount points and links of one path; more: walked */
#define PATH_LINKS_MAX 4u
#define PATH_FS_MAX 3u

/* What a walk notes of its way, to be checked by every hit. Part of struct resolving_path; valid while `rp->recording`. */
struct path_record {
	uint64_t hash;
	uint64_t mount_epoch; /* before the walk */
	uint32_t len;
	unsigned nwitness, nlinks, nfs;
	struct dentry *witness[PATH_WITNESS_MAX];
	struct vfs_path links[PATH_LINKS_MAX]; /* followed: their atime is touched by hits too */
	struct {
		struct filesystem *fs;
		uint64_t changes; /* before the walk entered it; nobody was changing anything */
	} fs[PATH_FS_MAX];
};

struct resolving_path;

/* Off: every path is walked, and what was cached is freed. Called when no other thread looks paths up: at boot, by tests. */
void vfs_path_cache_enable(bool on);
extern bool vfs_path_cache_on; /* changed as said above */

/* For tests: called between a recording walk's steps, to let others change what it saw. NULL. */
extern void (*vfs_path_cache_pause)(void);

struct path_cache_stats {
	uint64_t hits, negative_hits, misses, stale, inserts, uncacheable;
	uint64_t entries, bytes;
};
void vfs_path_cache_stats(struct path_cache_stats *ret);

/* For rp_init(): true when rp now stands at its end (inside a read section), or holds its error. */
must_check bool path_cache_begin(struct resolving_path *rp);
/* rp enters m's filesystem while it records. */
void path_record_fs(struct resolving_path *rp, struct mount *m);
void path_record_witness(struct resolving_path *rp, struct dentry *d);
void path_record_link(struct resolving_path *rp, struct dentry *link);
void path_record_end(struct resolving_path *rp, struct dentry *place);
void path_record_miss(struct resolving_path *rp, struct dentry *dir,
		      const struct seqcount *children, uint32_t seq);

#endif
