/*
 * vfs/mount_ops.c - mount(2) and its kin on places found by path. Capability checks are the caller's.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

#include "vfs/mount_internal.h"

#ifndef MS_NOSYMFOLLOW
#define MS_NOSYMFOLLOW 256
#endif

static unsigned mount_flags_of(unsigned long ms)
{
	unsigned flags = MNT_RELATIME_F;

	if (ms & MS_NOATIME)
		flags = MNT_NOATIME_F;
	else if (ms & MS_STRICTATIME)
		flags = 0;
	flags |= ms & MS_NOSUID ? MNT_NOSUID_F : 0;
	flags |= ms & MS_NODEV ? MNT_NODEV_F : 0;
	flags |= ms & MS_NOEXEC ? MNT_NOEXEC_F : 0;
	flags |= ms & MS_NODIRATIME ? MNT_NODIRATIME_F : 0;
	flags |= ms & MS_RDONLY ? MNT_RDONLY_F : 0;
	flags |= ms & MS_NOSYMFOLLOW ? MNT_NOSYMFOLLOW_F : 0;
	return flags;
}

static bool is_dir(struct dentry *d)
{
	return d->fs->ops->dentry_type(d) == S_IFDIR;
}

static struct mount_namespace *ns_of(struct mount *m)
{
	return atomic_load_explicit(&m->ns, memory_order_relaxed);
}

static struct mount *parent_of(struct mount *m)
{
	return atomic_load_explicit(&m->parent, memory_order_relaxed);
}

/* The place on top of whatever was mounted at `p` since it was resolved. mount_lock held. */
static void climb_locked(struct vfs_path *p, struct mount **ret_m, struct dentry **ret_d)
{
	struct mount *m = p->mount, *up;
	struct dentry *d = p->dentry;

	rcu_read_begin();
	while ((up = mount_lookup(m, d))) {
		m = up;
		d = up->root;
	}
	rcu_read_end();
	*ret_m = m;
	*ret_d = d;
}

/* Neither a removed dentry nor an unmounted mount takes a mount. */
static bool can_mount_on(struct mount *m, struct dentry *d)
{
	return ns_of(m) && !(atomic_load_explicit(&d->flags, memory_order_acquire) & DENTRY_DEAD);
}

/* Attaches the tree m at `at`, with propagation. On success the tree owns m's reference. */
static int graft_locked(struct mount *m, struct vfs_path *at, struct mount_namespace *ns,
			struct mount_trash *trash)
{
	struct mount *parent;
	struct dentry *d;
	int err;

	climb_locked(at, &parent, &d);
	if (!can_mount_on(parent, d))
		return -ENOENT;
	if (ns_of(parent) != ns)
		return -EINVAL;
	if (is_dir(m->root) != is_dir(d))
		return -ENOTDIR;
	if (ns->count + mount_tree_size(m->priv) > VFS_MOUNTS_MAX)
		return -ENOSPC;
	err = mount_propagate_attach_locked(m, parent, d, trash);
	if (err)
		return err;
	mount_attach_locked(m, parent, d, ns);
	return 0;
}

static int graft(struct mount *m, struct vfs_path *at, struct mount_namespace *ns)
{
	struct mount_trash trash;
	int err;

	mount_trash_init(&trash);
	mutex_lock(&mount_lock);
	err = graft_locked(m, at, ns, &trash);
	if (err)
		mount_drop_tree_locked(m, &trash);
	mutex_unlock(&mount_lock);
	mount_trash_empty(&trash);
	return err;
}

int vfs_mount_fs(const struct vfs_lookup *target, struct filesystem *fs, struct dentry *root,
		 unsigned mnt_flags)
{
	struct vfs_path at;
	struct mount *m;
	int err;

	err = vfs_get_path(target, &at);
	if (err)
		return err;
	mutex_lock(&mount_lock);
	err = mount_create_locked(fs, root, mnt_flags, &m);
	mutex_unlock(&mount_lock);
	if (!err)
		err = graft(m, &at, target->ns);
	vfs_path_unref(&at);
	return err;
}

int vfs_mount_new(const struct vfs_lookup *target, const char *type, const char *source,
		  unsigned long ms_flags, const char *data, void *kernel_data)
{
	const struct filesystem_type *t = vfs_find_type(type, strlen(type));
	struct filesystem *fs;
	struct dentry *root;
	struct vfs_path at;
	int err;

	/* The mount point is looked up first, as path_mount() does. */
	err = vfs_get_path(target, &at);
	if (err)
		return err;
	vfs_path_unref(&at);
	if (!t || (t->flags & FS_NO_MOUNT))
		return -ENODEV;
	err = t->mount(t, source, (unsigned)ms_flags, data, kernel_data, &fs, &root);
	if (err)
		return err;
	if (ms_flags & MS_RDONLY)
		atomic_fetch_or_explicit(&fs->sb_flags, FS_RDONLY, memory_order_release);
	err = vfs_mount_fs(target, fs, root, mount_flags_of(ms_flags));
	dentry_unref(root);
	filesystem_unref(fs);
	return err;
}

int vfs_bind(const struct vfs_lookup *source, const struct vfs_lookup *target, bool recursive)
{
	struct vfs_path from, at;
	struct mount_trash trash;
	struct mount *copy, *parent;
	struct dentry *d;
	int err;

	err = vfs_get_path(target, &at);
	if (err)
		return err;
	err = vfs_get_path(source, &from);
	if (err)
		goto out_at;
	mount_trash_init(&trash);
	mutex_lock(&mount_lock);
	climb_locked(&at, &parent, &d);
	if (!can_mount_on(parent, d))
		err = -ENOENT;
	else if (ns_of(parent) != target->ns || from.mount->priv->base == PROP_UNBINDABLE)
		err = -EINVAL;
	/* Of places in no namespace only a descriptor's own (nsfs) may be bound; not what was unmounted. */
	else if (ns_of(from.mount) != source->ns && (recursive || !from.mount->priv->internal))
		err = -EINVAL;
	if (!err)
		err = mount_copy_tree_locked(from.mount, from.dentry,
					     recursive ? COPY_RECURSIVE : 0, &copy, &trash);
	if (!err) {
		err = graft_locked(copy, &at, target->ns, &trash);
		if (err)
			mount_drop_tree_locked(copy, &trash);
	}
	mutex_unlock(&mount_lock);
	mount_trash_empty(&trash);
	vfs_path_unref(&from);
out_at:
	vfs_path_unref(&at);
	return err;
}

/* Is `m` in the tree of `top`? */
static bool in_tree(struct mount *m, struct mount *top)
{
	while (m && m != top)
		m = parent_of(m);
	return m != NULL;
}

static bool tree_has_unbindable(struct mount_private *top)
{
	for (struct mount_private *p = top; p; p = mount_next_in_tree(p, top))
		if (p->base == PROP_UNBINDABLE)
			return true;
	return false;
}

static int move_locked(struct vfs_path *from, struct vfs_path *at, struct mount_namespace *ns,
		       struct mount_trash *trash)
{
	struct mount *m = from->mount, *old_parent = parent_of(m), *parent;
	struct dentry *d, *old_at;
	int err;

	climb_locked(at, &parent, &d);
	if (from->dentry != m->root || is_dir(m->root) != is_dir(at->dentry))
		return -EINVAL;
	if (!can_mount_on(parent, d))
		return -ENOENT;
	if (from->dentry != m->root || ns_of(m) != ns || ns_of(parent) != ns || !old_parent)
		return -EINVAL;
	if (atomic_load_explicit(&m->flags, memory_order_relaxed) & MNT_LOCKED_F)
		return -EINVAL;
	if (is_dir(m->root) != is_dir(d))
		return -EINVAL;
	if (mount_is_shared(old_parent->priv))
		return -EINVAL;
	if (mount_is_shared(parent->priv) && tree_has_unbindable(m->priv))
		return -EINVAL;
	if (in_tree(parent, m))
		return -ELOOP;
	old_at = atomic_load_explicit(&m->mountpoint, memory_order_relaxed);
	dentry_ref(old_at);
	mount_unhook_locked(m, trash);
	err = mount_propagate_attach_locked(m, parent, d, trash);
	/* A failed move leaves the mount where it was. */
	if (err)
		mount_attach_locked(m, old_parent, old_at, ns);
	else
		mount_attach_locked(m, parent, d, ns);
	/* mount_unhook_locked() left the old attachment's reference in the trash: this is not the last. */
	if (ref_put(&old_at->ref))
		ref_bug(&old_at->ref, "mount point dropped");
	return err;
}

int vfs_move_mount(const struct vfs_lookup *source, const struct vfs_lookup *target)
{
	struct vfs_path from, at;
	struct mount_trash trash;
	int err;

	err = vfs_get_path(target, &at);
	if (err)
		return err;
	err = vfs_get_path(source, &from);
	if (err)
		goto out_at;
	mount_trash_init(&trash);
	mutex_lock(&mount_lock);
	err = move_locked(&from, &at, target->ns, &trash);
	mutex_unlock(&mount_lock);
	mount_trash_empty(&trash);
	vfs_path_unref(&from);
out_at:
	vfs_path_unref(&at);
	return err;
}

int vfs_remount(const struct vfs_lookup *target, unsigned long ms_flags, const char *data,
		bool bind_only)
{
	unsigned flags = mount_flags_of(ms_flags), old;
	bool readonly = (ms_flags & MS_RDONLY) != 0;
	struct vfs_path at;
	int err;

	err = vfs_get_path(target, &at);
	if (err)
		return err;
	/* "The default atime for remount is preservation." */
	old = atomic_load_explicit(&at.mount->flags, memory_order_relaxed);
	if (!(ms_flags & (MS_NOATIME | MS_NODIRATIME | MS_RELATIME | MS_STRICTATIME))) {
		unsigned atime = MNT_NOATIME_F | MNT_NODIRATIME_F | MNT_RELATIME_F;

		flags = (flags & ~atime) | (old & atime);
	}
	if (at.dentry != at.mount->root) {
		err = -EINVAL;
		goto out;
	}
	if (!bind_only) {
		struct filesystem *fs = at.mount->fs;

		err = fs->ops->remount(fs, (unsigned)ms_flags, data ? data : "");
		if (err)
			goto out;
	}
	mutex_lock(&mount_lock);
	if (ns_of(at.mount) != target->ns)
		err = -EINVAL;
	else if (!bind_only)
		err = mount_fs_set_readonly_locked(at.mount->fs, readonly);
	if (!err)
		err = mount_set_flags_locked(at.mount, flags | (old & MNT_LOCKED_F));
	if (!err)
		mount_ns_changed_locked(target->ns);
	mutex_unlock(&mount_lock);
out:
	vfs_path_unref(&at);
	return err;
}

int vfs_set_propagation(const struct vfs_lookup *target, enum mount_propagation prop,
			bool recursive)
{
	struct mount_private *p;
	struct vfs_path at;
	int err;

	err = vfs_get_path(target, &at);
	if (err)
		return err;
	mutex_lock(&mount_lock);
	if (at.dentry != at.mount->root || ns_of(at.mount) != target->ns) {
		err = -EINVAL;
	} else {
		for (p = at.mount->priv; p;
		     p = recursive ? mount_next_in_tree(p, at.mount->priv) : NULL)
			mount_set_propagation_locked(p, prop);
		mount_ns_changed_locked(target->ns);
	}
	mutex_unlock(&mount_lock);
	vfs_path_unref(&at);
	return err;
}

/* References of an idle mount: its tree's and the lookup's. */
#define MOUNT_IDLE_REFS 2

static int umount_expire_locked(struct mount *m)
{
	if (ref_read(&m->ref) != MOUNT_IDLE_REFS || TAILQ_FIRST(&m->priv->children))
		return -EBUSY;
	if (!m->priv->expiring) {
		m->priv->expiring = true;
		return -EAGAIN;
	}
	return 0;
}

static int umount_locked(struct vfs_path *at, const struct vfs_lookup *target, int flags,
			 struct mount_trash *trash)
{
	struct mount *m = at->mount;
	int err = 0;

	if (at->dentry != m->root || ns_of(m) != target->ns)
		return -EINVAL;
	if (atomic_load_explicit(&m->flags, memory_order_relaxed) & MNT_LOCKED_F)
		return -EINVAL;
	if (flags & MNT_EXPIRE) {
		if (m == target->root.mount)
			return -EINVAL;
		err = umount_expire_locked(m);
		if (err)
			return err;
	}
	if (m == target->root.mount && !(flags & MNT_DETACH))
		return mount_fs_set_readonly_locked(m->fs, true);
	if (!parent_of(m)) /* the namespace's own root */
		return -EINVAL;
	if (!(flags & MNT_DETACH) &&
	    (TAILQ_FIRST(&m->priv->children) || ref_read(&m->ref) > MOUNT_IDLE_REFS))
		return -EBUSY;
	mount_propagate_detach_locked(m, (flags & MNT_DETACH) != 0, trash);
	mount_detach_tree_locked(m, trash);
	return 0;
}

/* umount(".") means what was mounted over the working directory: LOOKUP_MOUNTPOINT. *at's references move up. */
static void climb(struct vfs_path *at)
{
	struct vfs_path old = *at;

	mutex_lock(&mount_lock);
	climb_locked(&old, &at->mount, &at->dentry);
	vfs_path_ref(at);
	mutex_unlock(&mount_lock);
	vfs_path_unref(&old);
}

int vfs_umount(const struct vfs_lookup *target, int flags)
{
	struct vfs_lookup lk = *target;
	struct mount_trash trash;
	struct vfs_path at;
	int err;

	if (flags & ~(MNT_FORCE | MNT_DETACH | MNT_EXPIRE | UMOUNT_NOFOLLOW))
		return -EINVAL;
	if ((flags & MNT_EXPIRE) && (flags & (MNT_FORCE | MNT_DETACH)))
		return -EINVAL;
	if (flags & UMOUNT_NOFOLLOW)
		lk.flags &= ~(unsigned)LOOKUP_FOLLOW;
	else
		lk.flags |= LOOKUP_FOLLOW;
	err = vfs_get_path(&lk, &at);
	if (err)
		return err;
	climb(&at);
	mount_trash_init(&trash);
	mutex_lock(&mount_lock);
	err = umount_locked(&at, target, flags, &trash);
	mutex_unlock(&mount_lock);
	mount_trash_empty(&trash);
	vfs_path_unref(&at);
	return err;
}

static int pivot_locked(struct vfs_path *new_root, struct vfs_path *put_old,
			const struct vfs_lookup *lk, struct mount_trash *trash)
{
	struct mount *root = lk->root.mount, *new_m = new_root->mount, *old_m, *root_parent;
	struct mount_namespace *ns = lk->ns;
	struct dentry *old_d, *root_at = NULL;

	climb_locked(put_old, &old_m, &old_d);
	root_parent = parent_of(root);
	if ((root_parent && mount_is_shared(root_parent->priv)) ||
	    (parent_of(new_m) && mount_is_shared(parent_of(new_m)->priv)) ||
	    mount_is_shared(old_m->priv))
		return -EINVAL;
	if (ns_of(root) != ns || ns_of(new_m) != ns || ns_of(old_m) != ns)
		return -EINVAL;
	if (atomic_load_explicit(&new_m->flags, memory_order_relaxed) & MNT_LOCKED_F)
		return -EINVAL;
	if (atomic_load_explicit(&new_root->dentry->flags, memory_order_acquire) & DENTRY_DEAD)
		return -ENOENT;
	if (new_m == root || old_m == root)
		return -EBUSY;
	if (lk->root.dentry != root->root || new_root->dentry != new_m->root || !parent_of(new_m))
		return -EINVAL;
	/* put_old at or below new_root; new_root below the current root. */
	if (!in_tree(old_m, new_m) || !in_tree(new_m, root))
		return -EINVAL;
	if (root_parent) {
		root_at = atomic_load_explicit(&root->mountpoint, memory_order_relaxed);
		dentry_ref(root_at);
	}
	mount_unhook_locked(new_m, trash);
	mount_unhook_locked(root, trash);
	mount_attach_locked(root, old_m, old_d, ns);
	if (root_parent) {
		mount_attach_locked(new_m, root_parent, root_at, ns);
		if (ref_put(&root_at->ref))
			ref_bug(&root_at->ref, "mount point dropped");
	} else {
		/* The tree's references stay with their mounts: only who is on top changes. */
		ns->root = new_m;
	}
	mount_ns_changed_locked(ns);
	return 0;
}

int vfs_pivot_root(const struct vfs_lookup *new_root, const struct vfs_lookup *put_old)
{
	struct vfs_path to, old, new_place;
	struct mount_trash trash;
	int err;

	err = vfs_get_path(new_root, &to);
	if (err)
		return err;
	err = vfs_get_path(put_old, &old);
	if (err)
		goto out_to;
	mount_trash_init(&trash);
	mutex_lock(&mount_lock);
	err = pivot_locked(&to, &old, new_root, &trash);
	mutex_unlock(&mount_lock);
	mount_trash_empty(&trash);
	new_place = (struct vfs_path){.mount = to.mount, .dentry = to.mount->root};
	if (!err && vfs_hooks.replace_root)
		vfs_hooks.replace_root(&new_root->root, &new_place);
	vfs_path_unref(&old);
out_to:
	vfs_path_unref(&to);
	return err;
}
