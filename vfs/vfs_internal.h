/* vfs/vfs_internal.h - what the files of vfs/ share among themselves. */
#ifndef MOAT_VFS_VFS_INTERNAL_H
#define MOAT_VFS_VFS_INTERNAL_H

#include "vfs/resolving_path.h"
#include "vfs/vfs.h"

/* ---- deferred work (vfs/deferred.c) ---- */

/* Whichever thread comes first runs it: for RCU callbacks. */
void vfs_defer_global(struct deferred_work *w);

/* ---- mounts (vfs/mount.c) ---- */

/* Changes around every change of the mount table and of (parent, mountpoint) pairs. */
extern struct seqcount mount_seq;
/* The topmost of what is mounted at (parent, d), or NULL. RCU read section. */
struct mount *mount_lookup(struct mount *parent, struct dentry *d);
must_check bool mount_tryref(struct mount *m);
/* Is something mounted on d (below whatever parent) in ns? RCU read section inside. */
bool mount_dentry_is_mountpoint(struct mount_namespace *ns, struct dentry *d);
/* d was removed: detaches what is mounted on it anywhere. No locks held. */
void mount_detach_dentry(struct dentry *d);

/* ---- reference helpers ---- */
/* d has become DENTRY_DEAD: what is kept of it goes. The caller's reference is not the last. */
void dentry_disown(struct dentry *d);
/* Both parts, under RCU: false when either is going away. */
must_check bool vfs_path_tryref(struct mount *m, struct dentry *d);
/* Mounts what begins at `at`, whose references are replaced by those of the mount's root. On failure they stay. Return: 0, -errno. No locks held. */
must_check int vfs_automount(struct vfs_path *at);

/* ---- files ---- */

/* Adds the mount's id to what a filesystem's stat said. */
void vfs_stat_add_mount(const struct mount *m, const struct stat_args *args, struct moat_statx *st);
/* The same, for the path where a call counts. */
static inline void stat_add_mount(const struct mount *m, const struct stat_args *args,
				  struct moat_statx *st)
{
	const uint32_t mnt_id = 0x1000,
		       mnt_id_unique = 0x4000; /* STATX_MNT_ID, STATX_MNT_ID_UNIQUE */

	if (unlikely(args->mask & mnt_id_unique)) {
		st->mask |= mnt_id_unique;
		st->mnt_id = m->unique_id;
	} else {
		st->mask |= mnt_id;
		st->mnt_id = (uint64_t)m->id;
	}
}
/* The last reference of f is gone: epoll and lock tables forget it. */
void vfs_file_gone(struct file *f);
void epoll_file_gone(struct file *f); /* vfs/epoll.c */

#endif
