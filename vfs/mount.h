/*
 * vfs/mount.h - changes of mount trees beyond mount(2): detached trees, mount attributes, and what statmount(2) tells.
 *
 * A detached tree (open_tree(OPEN_TREE_CLONE), fsmount) lives in an anonymous namespace of its own that the descriptor
 * holds: move_mount(2) empties it, the last close dissolves what is left. It can be walked and mounted on through its descriptor.
 *
 * Every function takes mount_lock itself (LOCK_MOUNT); the capability to mount at all is checked by the caller, before.
 */
#ifndef MOAT_VFS_MOUNT_H
#define MOAT_VFS_MOUNT_H

#include "vfs/vfs.h"

/*
 * The mount epoch: one more with every change that may alter where a path leads (attach, detach, move, pivot_root, flags),
 * of any namespace: a walk may begin in another namespace or in a detached tree, through a descriptor. Bumped under
 * mount_lock, before and after the change is visible, so a reader that saw one value on both sides of its walk saw one tree.
 */
extern _Atomic uint64_t vfs_mount_epoch;
static inline uint64_t mount_epoch(void)
{
	return atomic_load_explicit(&vfs_mount_epoch, memory_order_acquire);
}

/*
 * For a mount of no namespace that many threads go through (mount_create_internal()): from own to disown the caller has a reference, and those that others
 * let go of may be kept by thread (vfs/ref_cache.h). Without disown they are never dropped.
 */
void mount_own(struct mount *m);
void mount_disown(struct mount *m);

/* ---- detached trees ---- */

/* The descriptor of a copy of the tree at `from` (borrowed), in an anonymous namespace, or an O_PATH descriptor if clone is false. *ret is new. */
must_check int vfs_open_tree_at(const struct vfs_path *from, const struct vfs_lookup *lk,
				bool clone, bool recursive, struct file **ret);
/* A new mount of fs with MNT_*_F flags, detached: fsmount(2). */
must_check int vfs_fsmount(struct filesystem *fs, struct dentry *root, unsigned mnt_flags,
			   struct file **ret);

enum { MOVE_BENEATH = 1 << 0 };
/* move_mount(2) between places. `lk`: the caller's root and namespace. */
must_check int vfs_move_mount_at(const struct vfs_path *from, const struct vfs_path *to,
				 const struct vfs_lookup *lk, unsigned flags);
/* MOVE_MOUNT_SET_GROUP: `to` joins the sharing group of `from`. */
must_check int vfs_set_group(const struct vfs_path *from, const struct vfs_path *to,
			     const struct vfs_lookup *lk);

struct mount_attr_change {
	unsigned set, clear; /* MNT_*_F */
	bool has_propagation;
	enum mount_propagation propagation;
	bool recursive;
};
/* mount_setattr(2): all of it or nothing. -EINVAL, -EBUSY (writers), -EPERM (locked flags). */
must_check int vfs_mount_setattr(const struct vfs_path *at, const struct vfs_lookup *lk,
				 const struct mount_attr_change *change);
/* MOUNT_ATTR_* of fsmount, mount_setattr and statmount to MNT_*_F and back. The atime values are the caller's to check. */
unsigned vfs_mount_attr_to_flags(uint64_t attr);
uint64_t vfs_mount_flags_to_attr(unsigned flags);

/* ---- queries ---- */

/* What statmount(2) tells of one mount, as a snapshot. Strings are the caller's buffers, NUL-terminated. */
struct mount_facts {
	struct filesystem *fs; /* a reference */
	struct vfs_path at; /* the mount's root: references */
	unsigned flags; /* MNT_*_F */
	uint64_t id, parent_id, ns_id; /* unique ones; the parent of a namespace's root is itself */
	int32_t old_id, old_parent_id;
	uint64_t propagation; /* MS_SHARED, MS_SLAVE, MS_PRIVATE, MS_UNBINDABLE */
	uint32_t group, master, from;
};
/*
 * By unique id in ns, as seen from `root`. -ENOENT: no such mount. -EPERM: not reachable from root and the caller may not
 * look beyond (privileged says).
 */
must_check int vfs_mount_facts(struct mount_namespace *ns, uint64_t id, const struct vfs_path *root,
			       bool privileged, struct mount_facts *ret);
void mount_facts_fini(struct mount_facts *f);
/* The mount's root inside its filesystem; its place as seen from root ("" when that does not reach it); options. */
void mount_facts_root(const struct mount_facts *f, struct buf *b);
must_check int mount_facts_point(const struct mount_facts *f, const struct vfs_path *root,
				 struct buf *b);
/*
 * listmount(2): unique ids of what is mounted below the mount `under` (0: below root), after `last` (0: from the start), in
 * order of ids or the reverse. Return: the count, -ENOENT, -EPERM.
 */
ssize_t vfs_list_mounts(struct mount_namespace *ns, uint64_t under, uint64_t last, bool reverse,
			const struct vfs_path *root, bool privileged, uint64_t *ret, size_t count);
/* 64-bit id of a namespace (NS_GET_MNTNS_ID). */
uint64_t mount_namespace_unique(const struct mount_namespace *ns);
/* The namespace's number of mounts. */
uint32_t mount_namespace_count(struct mount_namespace *ns);
/*
 * A container's namespaces are a family: the one it was started in and copies of it. Who may look at all there are (CAP_SYS_ADMIN) sees those: other
 * containers of the sandbox are as if under another kernel.
 *
 * The one with the least unique id above `id` (below it: reverse) in the family; a reference; NULL at the end. id 0: the first.
 */
struct mount_namespace *mount_namespace_next(const struct mount_namespace *family, uint64_t id,
					     bool reverse);
/* By its unique id, if it is of the family: a reference, NULL. */
struct mount_namespace *mount_namespace_find(const struct mount_namespace *family, uint64_t id);

#endif
