/*
 * vfs/mount_ops.c - mount(2) and its kin on places found by path. Capability checks are the caller's.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

#include "vfs/fs_config.h"
#include "vfs/mount_internal.h"

#ifndef MS_NOSYMFOLLOW
#define MS_NOSYMFOLLOW 256
#endif

/* What of mount(2)'s flags is the superblock's. */
#define SB_FLAGS (MS_RDONLY | MS_SYNCHRONOUS | MS_MANDLOCK | MS_DIRSYNC | MS_LAZYTIME)

static unsigned mount_flags_of(unsigned long ms)
{
	unsigned flags = MNT_RELATIME_F;

	if (ms & MS_STRICTATIME)
		flags = 0;
	else if (ms & MS_NOATIME)
		flags = MNT_NOATIME_F;
	flags |= ms & MS_NOSUID ? MNT_NOSUID_F : 0;
	flags |= ms & MS_NODEV ? MNT_NODEV_F : 0;
	flags |= ms & MS_NOEXEC ? MNT_NOEXEC_F : 0;
	flags |= ms & MS_NODIRATIME ? MNT_NODIRATIME_F : 0;
	flags |= ms & MS_RDONLY ? MNT_RDONLY_F : 0;
	flags |= ms & MS_NOSYMFOLLOW ? MNT_NOSYMFOLLOW_F : 0;
	return flags;
}

void mount_climb_locked(const struct vfs_path *p, struct mount **ret_m, struct dentry **ret_d)
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

bool mount_can_mount_on(struct mount *m, struct dentry *d)
{
	return mount_ns_of(m) && !(atomic_load_explicit(&d->flags, memory_order_acquire) &
				   (DENTRY_DEAD | DENTRY_NO_MOUNT));
}

bool mount_can_attach_locked(struct mount *m)
{
	struct vfs_path root = {.mount = m, .dentry = m->root};

	mount_climb_locked(&root, &root.mount, &root.dentry);
	return !(atomic_load_explicit(&root.dentry->flags, memory_order_acquire) & DENTRY_DEAD);
}

/* Attaches the tree m at `at`, with propagation. On success the tree owns m's reference. */
static int graft_locked(struct mount *m, struct vfs_path *at, struct mount_namespace *ns,
			struct mount_trash *trash)
{
	struct mount *parent;
	struct dentry *d;
	int err;

	mount_climb_locked(at, &parent, &d);
	if (!mount_can_mount_on(parent, d))
		return -ENOENT;
	if (mount_ns_of(parent) != ns)
		return -EINVAL;
	if (mount_dentry_is_dir(m->root) != mount_dentry_is_dir(d))
		return -ENOTDIR;
	if (!mount_can_attach_locked(m))
		return -ENOENT;
	if (ns->count + mount_tree_size(m->priv) > vfs_mounts_max)
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

static int mount_fs_at(struct vfs_path *at, const struct vfs_lookup *target, struct filesystem *fs,
		       struct dentry *root, unsigned mnt_flags)
{
	struct mount *m;
	int err;

	mutex_lock(&mount_lock);
	/* The same filesystem is not stacked on itself. */
	err = at->mount->fs == fs && at->dentry == at->mount->root ? -EBUSY : 0;
	if (!err)
		err = mount_create_locked(fs, root, mnt_flags, &m);
	mutex_unlock(&mount_lock);
	return err ? err : graft(m, at, target->ns);
}

int vfs_mount_fs(const struct vfs_lookup *target, struct filesystem *fs, struct dentry *root,
		 unsigned mnt_flags)
{
	struct vfs_path at;
	int err;

	err = vfs_get_path(target, &at);
	if (err)
		return err;
	err = mount_fs_at(&at, target, fs, root, mnt_flags);
	vfs_path_unref(&at);
	return err;
}

int vfs_mount_new(const struct vfs_lookup *target, const char *type, const char *source,
		  unsigned long ms_flags, const char *data, void *kernel_data)
{
	const struct filesystem_type *t = vfs_find_type(type, strlen(type));
	struct fs_param source_param = {.kind = FS_PARAM_STRING, .key = "source", .string = source};
	struct fs_config *c;
	struct vfs_path at;
	int err;

	/* The mount point is looked up first, as path_mount() does. */
	err = vfs_get_path(target, &at);
	if (err)
		return err;
	err = -ENODEV;
	if (!t || (t->flags & FS_NO_MOUNT))
		goto out_at;
	err = fs_config_create(t, NULL, NULL, &c);
	if (err)
		goto out_at;
	c->sb_flags = (unsigned)ms_flags & SB_FLAGS;
	c->kernel_data = kernel_data;
	if (source)
		err = fs_config_param(c, target, &source_param);
	if (!err)
		err = fs_config_options(c, target, data);
	if (!err)
		err = fs_config_get_tree(c, target);
	if (!err)
		err = mount_fs_at(&at, target, c->fs, c->root, mount_flags_of(ms_flags));
	fs_config_destroy(c);
out_at:
	vfs_path_unref(&at);
	return err;
}

/* mnt_ns_loop(): d is the file of ns or of an older mount namespace, which might then hold itself. */
static bool binds_namespace(struct dentry *d, const struct mount_namespace *ns)
{
	uint64_t id = vfs_hooks.mount_ns_file ? vfs_hooks.mount_ns_file(d) : 0;

	return id && id <= ns->unique;
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
	mount_climb_locked(&at, &parent, &d);
	if (binds_namespace(from.dentry, target->ns))
		err = -EINVAL;
	else if (!mount_can_mount_on(parent, d))
		err = -ENOENT;
	else if (mount_ns_of(parent) != target->ns || from.mount->priv->base == PROP_UNBINDABLE)
		err = -EINVAL;
	else if (!mount_may_copy_locked(from.mount, source->ns))
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

bool mount_in_tree(struct mount *m, struct mount *top)
{
	while (m && m != top)
		m = mount_parent_of(m);
	return m != NULL;
}

int vfs_move_mount(const struct vfs_lookup *source, const struct vfs_lookup *target)
{
	struct vfs_path from, at;
	int err;

	err = vfs_get_path(target, &at);
	if (err)
		return err;
	err = vfs_get_path(source, &from);
	if (err)
		goto out_at;
	err = vfs_move_mount_at(&from, &at, target, 0);
	vfs_path_unref(&from);
out_at:
	vfs_path_unref(&at);
	return err;
}

int vfs_fs_set_readonly(struct filesystem *fs, bool readonly)
{
	int err;

	mutex_lock(&mount_lock);
	err = mount_fs_set_readonly_locked(fs, readonly);
	mutex_unlock(&mount_lock);
	return err;
}

/* do_remount(): the superblock, then this mount's own flags. */
static int remount_fs(struct vfs_path *at, const struct vfs_lookup *target, unsigned long ms_flags,
		      const char *data)
{
	struct filesystem *fs = at->mount->fs;
	struct fs_config *c;
	int err;

	err = fs_config_create(fs->type, fs, at->dentry, &c);
	if (err)
		return err;
	c->sb_flags = (unsigned)ms_flags & FS_CONFIG_REMOUNT_FLAGS;
	c->sb_mask = FS_CONFIG_REMOUNT_FLAGS;
	err = fs_config_options(c, target, data);
	if (!err)
		err = fs_config_reconfigure(c, target);
	fs_config_destroy(c);
	return err;
}

int vfs_remount(const struct vfs_lookup *target, unsigned long ms_flags, const char *data,
		bool bind_only)
{
	const unsigned atime = MNT_NOATIME_F | MNT_NODIRATIME_F | MNT_RELATIME_F;
	unsigned flags = mount_flags_of(ms_flags), old;
	struct vfs_path at;
	int err;

	err = vfs_get_path(target, &at);
	if (err)
		return err;
	/* "The default atime for remount is preservation." */
	old = atomic_load_explicit(&at.mount->flags, memory_order_relaxed);
	if (!(ms_flags & (MS_NOATIME | MS_NODIRATIME | MS_RELATIME | MS_STRICTATIME)))
		flags = (flags & ~atime) | (old & atime);
	err = -EINVAL;
	if (at.dentry != at.mount->root ||
	    atomic_load_explicit(&at.mount->ns, memory_order_acquire) != target->ns)
		goto out;
	err = mount_locked_flags_ok(old, flags) ? 0 : -EPERM;
	if (!err && !bind_only)
		err = remount_fs(&at, target, ms_flags, data);
	if (err)
		goto out;
	mutex_lock(&mount_lock);
	if (mount_ns_of(at.mount) != target->ns)
		err = -EINVAL;
	else
		err = mount_set_flags_locked(at.mount,
					     flags | (old & (MNT_LOCKS_F | MNT_SHRINKABLE_F)));
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
	/* may_change_propagation(): of any mount that is mounted. */
	if (at.dentry != at.mount->root || !mount_ns_of(at.mount)) {
		err = -EINVAL;
	} else {
		for (p = at.mount->priv; p;
		     p = recursive ? mount_next_in_tree(p, at.mount->priv) : NULL)
			mount_set_propagation_locked(p, prop);
		mount_ns_changed_locked(mount_ns_of(at.mount));
	}
	mutex_unlock(&mount_lock);
	vfs_path_unref(&at);
	return err;
}

/* finish_automount(): the mount has the flags of what it is mounted on. */
static int automount_locked(struct vfs_path *at, struct filesystem *fs, struct dentry *root,
			    struct mount_trash *trash)
{
	const unsigned flags = atomic_load_explicit(&at->mount->flags, memory_order_relaxed);
	struct mount_namespace *ns = mount_ns_of(at->mount);
	struct mount *m;
	int err;

	if (!ns)
		return -EINVAL;
	err = mount_create_locked(fs, root, (flags & ~(unsigned)MNT_LOCKED_F) | MNT_SHRINKABLE_F,
				  &m);
	if (err)
		return err;
	err = graft_locked(m, at, ns, trash);
	if (err)
		mount_drop_tree_locked(m, trash);
	return err;
}

int vfs_automount(struct vfs_path *at)
{
	struct vfs_path old = *at;
	struct mount_trash trash;
	struct filesystem *fs;
	struct dentry *root;
	int err = at->dentry->fs->ops->automount(at->dentry, &fs, &root);

	if (err)
		return err;
	mount_trash_init(&trash);
	mutex_lock(&mount_lock);
	mount_climb_locked(&old, &at->mount, &at->dentry);
	/* Unless somebody was faster. */
	if (at->mount == old.mount) {
		err = automount_locked(&old, fs, root, &trash);
		mount_climb_locked(&old, &at->mount, &at->dentry);
	}
	if (err)
		*at = old;
	else
		vfs_path_ref(at);
	mutex_unlock(&mount_lock);
	mount_trash_empty(&trash);
	if (!err)
		vfs_path_unref(&old);
	dentry_unref(root);
	filesystem_unref(fs);
	return err;
}

/* References of an idle mount: its tree's and the lookup's. */
#define MOUNT_IDLE_REFS 2

static int umount_expire_locked(struct mount *m)
{
	if (mount_refs_locked(m) != MOUNT_IDLE_REFS || TAILQ_FIRST(&m->priv->children))
		return -EBUSY;
	return atomic_exchange_explicit(&m->expiring, true, memory_order_relaxed) ? 0 : -EAGAIN;
}

static struct mount_private *first_leaf(struct mount_private *p)
{
	struct mount_private *first;

	while ((first = TAILQ_FIRST(&p->children)))
		p = first;
	return p;
}

/* Those in a mount before that itself. Pre: p is below the one that ends it. */
static struct mount_private *next_upwards(struct mount_private *p)
{
	struct mount_private *next = TAILQ_NEXT(p, sibling);

	return next ? first_leaf(next) : mount_parent_of(p->mount)->priv;
}

static bool may_shrink(struct mount_private *p)
{
	return (atomic_load_explicit(&p->mount->flags, memory_order_relaxed) & MNT_SHRINKABLE_F) &&
	       !TAILQ_FIRST(&p->children) && mount_refs_locked(p->mount) <= 1 &&
	       !mount_propagate_busy_locked(p->mount);
}

/*
 * shrink_submounts(): what walks have mounted below m and nobody uses. One pass, leaves first, is enough unless copies of what it took went too: these may
 * have been anywhere. What was taken is in the trash and thus still there.
 */
static void shrink_automounts_locked(struct mount *m, struct mount_trash *trash)
{
	struct mount_private *p, *next;
	bool again = true;

	while (again) {
		again = false;
		for (p = first_leaf(m->priv); p != m->priv; p = next) {
			bool shared = mount_is_shared(mount_parent_of(p->mount)->priv);

			next = next_upwards(p);
			if (!may_shrink(p))
				continue;
			mount_propagate_detach_locked(p->mount, false, trash);
			mount_detach_tree_locked(p->mount, trash);
			again |= shared;
			if (shared && !mount_in_tree(next->mount, m))
				break;
		}
	}
}

static int umount_locked(struct vfs_path *at, const struct vfs_lookup *target, int flags,
			 struct mount_trash *trash)
{
	struct mount *m = at->mount;
	int err = 0;

	if (at->dentry != m->root || mount_ns_of(m) != target->ns)
		return -EINVAL;
	if (atomic_load_explicit(&m->flags, memory_order_relaxed) & MNT_LOCKED_F)
		return -EINVAL;
	if (flags & MNT_EXPIRE) {
		if (m == target->root.mount || (flags & (MNT_FORCE | MNT_DETACH)))
			return -EINVAL;
		err = umount_expire_locked(m);
		if (err)
			return err;
	}
	if (m == target->root.mount && !(flags & MNT_DETACH))
		return mount_fs_set_readonly_locked(m->fs, true);
	if (!mount_parent_of(m)) /* the namespace's own root */
		return -EINVAL;
	if (!(flags & (MNT_DETACH | MNT_EXPIRE))) {
		shrink_automounts_locked(m, trash);
		if (!mount_parent_of(m)) /* it was itself such a copy */
			return -EINVAL;
	}
	if (!(flags & MNT_DETACH) &&
	    (TAILQ_FIRST(&m->priv->children) || mount_refs_locked(m) > MOUNT_IDLE_REFS ||
	     mount_propagate_busy_locked(m)))
		return -EBUSY;
	mount_propagate_detach_locked(m, (flags & MNT_DETACH) != 0, trash);
	mount_detach_tree_locked(m, trash);
	return 0;
}

/* vfs_path_unref() that is no use in the sense of MNT_EXPIRE. */
static void umount_put(struct vfs_path *p)
{
	dentry_unref(p->dentry);
	mount_unref_keep_mark(p->mount);
}

/* umount(".") means what was mounted over the working directory: LOOKUP_MOUNTPOINT. *at's references move up. */
static void climb(struct vfs_path *at)
{
	struct vfs_path old = *at;

	mutex_lock(&mount_lock);
	mount_climb_locked(&old, &at->mount, &at->dentry);
	vfs_path_ref(at);
	mutex_unlock(&mount_lock);
	umount_put(&old);
}

int vfs_umount(const struct vfs_lookup *target, int flags)
{
	struct vfs_lookup lk = *target;
	struct mount_trash trash;
	struct vfs_path at;
	int err;

	if (flags & ~(MNT_FORCE | MNT_DETACH | MNT_EXPIRE | UMOUNT_NOFOLLOW))
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
	umount_put(&at);
	return err;
}

static int pivot_locked(struct vfs_path *new_root, struct vfs_path *put_old,
			const struct vfs_lookup *lk, struct mount_trash *trash)
{
	struct mount *root = lk->root.mount, *new_m = new_root->mount, *old_m, *root_parent;
	struct mount_namespace *ns = lk->ns;
	struct dentry *old_d, *root_at = NULL;

	mount_climb_locked(put_old, &old_m, &old_d);
	root_parent = mount_parent_of(root);
	if ((root_parent && mount_is_shared(root_parent->priv)) ||
	    (mount_parent_of(new_m) && mount_is_shared(mount_parent_of(new_m)->priv)) ||
	    mount_is_shared(old_m->priv))
		return -EINVAL;
	if (mount_ns_of(root) != ns || mount_ns_of(new_m) != ns || mount_ns_of(old_m) != ns)
		return -EINVAL;
	if (atomic_load_explicit(&new_m->flags, memory_order_relaxed) & MNT_LOCKED_F)
		return -EINVAL;
	if (atomic_load_explicit(&new_root->dentry->flags, memory_order_acquire) & DENTRY_DEAD)
		return -ENOENT;
	if (new_m == root || old_m == root)
		return -EBUSY;
	if (lk->root.dentry != root->root || new_root->dentry != new_m->root ||
	    !mount_parent_of(new_m))
		return -EINVAL;
	/* put_old at or below new_root; new_root below the current root. */
	if (!mount_in_tree(old_m, new_m) || !mount_in_tree(new_m, root))
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
