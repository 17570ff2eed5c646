/*
 * vfs/mount_internal.h - the mount table's data, shared by mount*.c.
 *
 * Everything here is changed under mount_lock (LOCK_MOUNT). Hash chains, parent, mountpoint and ns are read under RCU
 * and revalidated with mount_seq. References that fall away under the lock are collected in a struct mount_trash
 * and dropped after it.
 */
#ifndef MOAT_VFS_MOUNT_INTERNAL_H
#define MOAT_VFS_MOUNT_INTERNAL_H

#include "base/shard.h"
#include "vfs/mount.h"
#include "vfs/vfs_internal.h"
#include "vfs/wait.h"

#define MOUNT_WRITER_SHARDS 8u

struct mount_private {
	/* Writers by thread: rp_begin_write, open for write. What begins counts all that ever began, so that a sum of ends and then of begins is not too low. */
	struct {
		_Alignas(SHARD_LINE) _Atomic uint64_t begins, ends;
	} writers[MOUNT_WRITER_SHARDS];
	struct mount *mount;
	struct mount *_Atomic hash_next; /* chain of (parent, mountpoint) */
	struct mount *_Atomic point_next; /* chain of mountpoint alone */
	TAILQ_HEAD(mount_list, mount_private) children;
	TAILQ_ENTRY(mount_private) sibling; /* valid when it has a parent */
	TAILQ_ENTRY(mount_private) in_ns; /* valid when ns is set */
	TAILQ_ENTRY(mount_private) all;
	TAILQ_ENTRY(mount_private) work; /* a tree being copied, a list to detach */
	bool attached; /* in the hash chains */
	bool internal; /* immutable: never in a namespace */
	/* propagation */
	enum mount_propagation base; /* PRIVATE, SLAVE or UNBINDABLE when group is 0 */
	uint32_t group; /* peer group id; 0: not shared */
	struct mount_private *next_peer; /* ring; itself when alone */
	struct mount_private *master; /* it is a slave of that one's group; NULL */
	LIST_HEAD(, mount_private) slaves;
	LIST_ENTRY(mount_private) slave; /* valid when master is set */
	uint32_t visited; /* propagation's mark */
	struct mount_private *copy; /* during a tree copy: the new one */
	struct deferred_work work_free;
};

struct mount_namespace {
	struct ref ref;
	uint64_t id; /* immutable: its inode number */
	uint64_t unique; /* immutable: never reused; 0 for an anonymous one */
	uint64_t
		family; /* immutable: unique of the one that was made anew, which this is a copy of */
	bool anon; /* immutable: a detached tree's */
	uint64_t
		origin; /* immutable: whose tree an anonymous one was copied from; 0: a new mount */
	TAILQ_ENTRY(mount_namespace)
	all; /* by unique id; guarded by mount_lock; not for anonymous ones */
	struct mount *root; /* guarded by mount_lock; a reference (the tree's) */
	struct mount_list mounts; /* by unique id, as mountinfo shows them; guarded by mount_lock */
	uint32_t count; /* guarded by mount_lock */
	struct wait_queue changed;
	_Atomic uint64_t event; /* one more with every change */
};

extern struct mutex mount_lock;

/* Around every change that path walks may see. mount_lock held. */
static inline void mount_epoch_bump_locked(void)
{
	atomic_fetch_add_explicit(&vfs_mount_epoch, 1, memory_order_acq_rel);
}

/* References to drop once the lock is free. */
#define TRASH_INLINE 32
struct mount_trash_entry {
	struct mount *mount; /* NULL: none */
	struct dentry *dentry; /* NULL: none */
	struct filesystem
		*fs; /* the dentry's: the mount that held it may end before the trash is emptied */
};
struct mount_trash {
	struct mount_trash_entry inline_entries[TRASH_INLINE];
	struct mount_trash_entry *entries;
	size_t count, alloc;
};

void mount_trash_init(struct mount_trash *t);
void mount_trash_empty(struct mount_trash *t); /* no locks held */

static inline struct mount_private *mount_priv(struct mount *m)
{
	return m->priv;
}
static inline bool mount_is_shared(const struct mount_private *p)
{
	return p->group != 0;
}

/* All need mount_lock. */
must_check int mount_create_locked(struct filesystem *fs, struct dentry *root, unsigned flags,
				   struct mount **ret);
/* Enters m and what hangs below it into ns at (parent, at); the tree takes m's reference. */
void mount_attach_locked(struct mount *m, struct mount *parent, struct dentry *at,
			 struct mount_namespace *ns);
/* Out of the hash and its parent's children; (parent's dentry reference goes to trash). ns membership stays. */
void mount_unhook_locked(struct mount *m, struct mount_trash *trash);
/* Detaches m and everything below it from its namespace; tree references go to trash. */
void mount_detach_tree_locked(struct mount *m, struct mount_trash *trash);
/* Remounts: -EBUSY while somebody writes. */
must_check int mount_set_flags_locked(struct mount *m, unsigned flags);
must_check int mount_fs_set_readonly_locked(struct filesystem *fs, bool readonly);
void mount_ns_changed_locked(struct mount_namespace *ns);
void mount_ns_add_locked(struct mount_namespace *ns, struct mount *m);
/* The whole tree of m changes to ns. */
void mount_tree_set_ns_locked(struct mount *m, struct mount_namespace *ns);
/* Keeps writers out: -EBUSY when there are some. mount_lock is held until mount_thaw(). */
must_check int mount_freeze(struct mount *m);
void mount_thaw(struct mount *m);
/* The last reference is gone. */
void mount_release(struct mount_private *p);
/* From here on nobody keeps references on m (vfs/ref_cache.h), which has one that the caller knows of. */
void mount_disown_locked(struct mount *m);
/* How many references m has: those that somebody kept for later are given back first. */
int32_t mount_refs_locked(struct mount *m);
/* family: whose it joins; 0: its own. An anonymous one has none. */
must_check int mount_namespace_alloc(bool anon, uint64_t family, struct mount_namespace **ret);
/* One that never got its mounts. */
void mount_namespace_free(struct mount_namespace *ns);
/* Takes the references given, either of which may be NULL; where d's filesystem still is held by others. */
void mount_trash_add(struct mount_trash *t, struct mount *m, struct dentry *d);

static inline bool mount_dentry_is_dir(struct dentry *d)
{
	return d->fs->ops->dentry_type(d) == S_IFDIR;
}
static inline struct mount_namespace *mount_ns_of(struct mount *m)
{
	return atomic_load_explicit(&m->ns, memory_order_relaxed);
}
static inline struct mount *mount_parent_of(struct mount *m)
{
	return atomic_load_explicit(&m->parent, memory_order_relaxed);
}
/* In ns, or in an anonymous namespace that was copied from it or is new: may_use_mount(). */
bool mount_may_use(struct mount *m, const struct mount_namespace *ns);

/* mount_tree.c */
/* May a copy of m's tree be made for ns: may_copy_tree()? */
bool mount_may_copy_locked(struct mount *m, const struct mount_namespace *ns);
/* can_change_locked_flags(): what a less privileged namespace may not take back. */
bool mount_locked_flags_ok(unsigned old, unsigned flags);

/* mount_ops.c */
/* The place on top of whatever was mounted at `p` since it was resolved. */
void mount_climb_locked(const struct vfs_path *p, struct mount **ret_m, struct dentry **ret_d);
/* Neither a removed dentry nor an unmounted mount takes a mount. */
bool mount_can_mount_on(struct mount *m, struct dentry *d);
/*
 * attach_recursive_mnt(): what is on top of m's tree must be able to carry a mount, in case one goes beneath.
 * Linux 6.17 and later; so a mount whose root was removed is attached nowhere any more, but still copied.
 */
bool mount_can_attach_locked(struct mount *m);
/* Is `m` in the tree of `top`? */
bool mount_in_tree(struct mount *m, struct mount *top);
/* The next mount in m's subtree `top`, parents first; NULL at the end. */
struct mount_private *mount_next_in_tree(struct mount_private *p, struct mount_private *top);

/* mount_prop.c */
void mount_set_propagation_locked(struct mount_private *p, enum mount_propagation prop);
/* A clone joins or follows its origin's groups as bind mounts do. */
void mount_inherit_propagation_locked(struct mount_private *clone, struct mount_private *origin);
void mount_leave_groups_locked(struct mount_private *p);
uint32_t mount_tree_size(struct mount_private *top);
/* A mount event at (parent, at) for the tree `m`, about to be attached there: copies appear below peers and slaves of parent. */
must_check int mount_propagate_attach_locked(struct mount *m, struct mount *parent,
					     struct dentry *at, struct mount_trash *trash);
void mount_propagate_detach_locked(struct mount *m, bool lazy, struct mount_trash *trash);
/* A copy of m's tree from `root` on; not attached. bits below. Returns the top, holding the tree's references. */
enum {
	COPY_RECURSIVE = 1,
	COPY_UNBINDABLE = 2,
	COPY_PRIVATE = 4,
	COPY_SLAVE = 8,
	COPY_NAMESPACE = 16
};
must_check int mount_copy_tree_locked(struct mount *m, struct dentry *root, unsigned how,
				      struct mount **ret, struct mount_trash *trash);
/* Is a copy of m at some peer or slave of its parent in use? */
bool mount_propagate_busy_locked(struct mount *m);
/* The nearest master's group that is visible in ns under root; 0. For "propagate_from:". */
uint32_t mount_dominating_group_locked(struct mount_private *p, struct mount_namespace *ns,
				       const struct vfs_path *root);
/* is_path_reachable(): does root lead to d of m? */
bool mount_reachable_locked(struct mount *m, struct dentry *d, const struct vfs_path *root);
/* Throws an unattached copy away. */
void mount_drop_tree_locked(struct mount *m, struct mount_trash *trash);

#endif
