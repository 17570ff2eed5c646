/*
 * vfs/mount_tree.c - detached mount trees and what the new mount API does with mounts: open_tree, move_mount,
 * fsmount, mount_setattr.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mount.h>

#include "vfs/mount_internal.h"

/* ---- descriptors of trees ---- */

struct tree_file {
	struct file f;
	struct mount_namespace *anon; /* a reference; NULL for a plain O_PATH descriptor */
};

/* dissolve_on_fput(): what was not moved elsewhere goes with the descriptor. */
static void tree_release(struct file *f)
{
	struct tree_file *tf = container_of(f, struct tree_file, f);

	mount_namespace_unref(tf->anon);
	file_free(f);
}

static const struct file_ops tree_file_ops = {.name = "tree", .release = tree_release};

/* Takes anon on success. */
static int tree_file_create(struct mount_namespace *anon, const struct vfs_path *at,
			    struct file **ret)
{
	struct tree_file *tf = calloc(1, sizeof(*tf));

	if (!tf)
		return -ENOMEM;
	file_init(&tf->f, &tree_file_ops, at, O_PATH, 0);
	tf->anon = anon;
	*ret = &tf->f;
	return 0;
}

/* A descriptor of the tree `top`, whose references it takes (also on failure). mount_lock is not held. */
static int detached_file(struct mount *top, uint64_t origin, struct file **ret)
{
	struct vfs_path at = {.mount = top, .dentry = top->root};
	struct mount_namespace *anon;
	struct mount_trash trash;
	int err;

	err = mount_namespace_alloc(true, 0, &anon);
	if (err) {
		mount_trash_init(&trash);
		mutex_lock(&mount_lock);
		mount_drop_tree_locked(top, &trash);
		mutex_unlock(&mount_lock);
		mount_trash_empty(&trash);
		return err;
	}
	anon->origin = origin;
	anon->root = top;
	mutex_lock(&mount_lock);
	mount_tree_set_ns_locked(top, anon);
	mutex_unlock(&mount_lock);
	err = tree_file_create(anon, &at, ret);
	if (err)
		mount_namespace_unref(anon);
	return err;
}

bool mount_may_copy_locked(struct mount *m, const struct mount_namespace *ns)
{
	/* Of places in no namespace only a descriptor's own (nsfs) may be copied; not what was unmounted. */
	return mount_may_use(m, ns) || m->priv->internal;
}

static int open_detached_copy(const struct vfs_path *from, const struct vfs_lookup *lk,
			      bool recursive, struct file **ret)
{
	struct mount_namespace *source;
	struct mount_trash trash;
	struct mount *copy;
	uint64_t origin = 0;
	int err;

	mount_trash_init(&trash);
	mutex_lock(&mount_lock);
	source = mount_ns_of(from->mount);
	if (from->mount->priv->base == PROP_UNBINDABLE && !from->mount->priv->group)
		err = -EINVAL;
	else if (!mount_may_copy_locked(from->mount, lk->ns))
		err = -EINVAL;
	else
		err = mount_copy_tree_locked(from->mount, from->dentry,
					     recursive ? COPY_RECURSIVE : 0, &copy, &trash);
	/* A copy of a detached tree belongs where that came from. */
	if (source)
		origin = source->anon ? source->origin : source->id;
	mutex_unlock(&mount_lock);
	mount_trash_empty(&trash);
	return err ? err : detached_file(copy, origin, ret);
}

int vfs_open_tree_at(const struct vfs_path *from, const struct vfs_lookup *lk, bool clone,
		     bool recursive, struct file **ret)
{
	return clone ? open_detached_copy(from, lk, recursive, ret)
		     : tree_file_create(NULL, from, ret);
}

int vfs_fsmount(struct filesystem *fs, struct dentry *root, unsigned mnt_flags, struct file **ret)
{
	struct mount *m;
	int err;

	mutex_lock(&mount_lock);
	err = mount_create_locked(fs, root, mnt_flags, &m);
	mutex_unlock(&mount_lock);
	return err ? err : detached_file(m, 0, ret);
}

/* ---- move_mount ---- */

static bool tree_has_unbindable(struct mount_private *top)
{
	for (struct mount_private *p = top; p; p = mount_next_in_tree(p, top))
		if (p->base == PROP_UNBINDABLE && !p->group)
			return true;
	return false;
}

/* propagation_would_overmount(): would something mounted at (parent, at) also be mounted on all of `m`? */
static bool would_overmount(struct mount *parent, struct dentry *at, struct mount *m)
{
	const struct mount_private *p = m->priv, *q;

	if (m->root != at || !mount_is_shared(parent->priv))
		return false;
	if (p->group == parent->priv->group)
		return true;
	for (q = p->master; q; q = q->master)
		if (q->group && q->group == parent->priv->group)
			return true;
	return false;
}

/* can_move_mount_beneath(): m is to go between `over` and what it is mounted on. */
static int check_beneath(struct mount *m, struct mount *over, const struct vfs_lookup *lk)
{
	struct mount *parent = mount_parent_of(over);
	struct dentry *at = atomic_load_explicit(&over->mountpoint, memory_order_relaxed);

	if (!parent || (atomic_load_explicit(&over->flags, memory_order_relaxed) & MNT_LOCKED_F))
		return -EINVAL;
	if (over == lk->root.mount)
		return -EINVAL;
	if (mount_in_tree(m, over))
		return -EINVAL;
	if (would_overmount(parent, at, over))
		return -EINVAL;
	if (mount_ns_of(m) == lk->ns && would_overmount(parent, at, m))
		return -EINVAL;
	return 0;
}

/* The source's side of do_move_mount(). */
static int check_move(struct mount *m, struct mount *parent, const struct vfs_lookup *lk)
{
	struct mount *old_parent = mount_parent_of(m);

	if (mount_ns_of(m) == lk->ns) {
		if (!old_parent ||
		    (atomic_load_explicit(&m->flags, memory_order_relaxed) & MNT_LOCKED_F))
			return -EINVAL;
		return mount_is_shared(old_parent->priv) || mount_ns_of(parent) != lk->ns ? -EINVAL
											  : 0;
	}
	/* Otherwise it is a whole detached tree. */
	if (!mount_ns_of(m) || !mount_ns_of(m)->anon || old_parent)
		return -EINVAL;
	if (mount_ns_of(m) == mount_ns_of(parent) || !mount_may_use(parent, lk->ns))
		return -EINVAL;
	return 0;
}

/*
 * Attaches m, which is attached nowhere, at (parent, d), below what is mounted there if `over` says so. On an error it is
 * attached nowhere still.
 */
static int place_tree(struct mount *m, struct mount *parent, struct dentry *d, struct mount *over,
		      struct mount_trash *trash)
{
	struct mount_namespace *ns = mount_ns_of(parent);
	struct vfs_path top;
	int err;

	if (!mount_can_attach_locked(m))
		return -ENOENT;
	if (mount_ns_of(m) != ns && ns->count + mount_tree_size(m->priv) > vfs_mounts_max)
		return -ENOSPC;
	err = mount_propagate_attach_locked(m, parent, d, trash);
	if (err)
		return err;
	if (over)
		mount_unhook_locked(over, trash);
	mount_tree_set_ns_locked(m, ns);
	mount_attach_locked(m, parent, d, ns);
	if (over) {
		top = (struct vfs_path){.mount = m, .dentry = m->root};
		mount_climb_locked(&top, &top.mount, &top.dentry);
		mount_attach_locked(over, top.mount, top.dentry, ns);
	}
	return 0;
}

static int move_locked(const struct vfs_path *from, const struct vfs_path *to,
		       const struct vfs_lookup *lk, unsigned flags, struct mount_trash *trash)
{
	struct mount *m = from->mount, *old_parent, *parent, *over = NULL;
	struct mount_namespace *old_ns;
	struct dentry *d, *old_at;
	int err;

	if (from->dentry != m->root ||
	    mount_dentry_is_dir(from->dentry) != mount_dentry_is_dir(to->dentry))
		return -EINVAL;
	mount_climb_locked(to, &parent, &d);
	if (!mount_can_mount_on(parent, d))
		return -ENOENT;
	if (flags & MOVE_BENEATH) {
		/* What is on top is what it goes beneath; it must be a mount. */
		over = parent;
		if (d != over->root || !mount_parent_of(over))
			return -EINVAL;
		parent = mount_parent_of(over);
		d = atomic_load_explicit(&over->mountpoint, memory_order_relaxed);
	}
	err = check_move(m, parent, lk);
	if (!err && over)
		err = check_beneath(m, over, lk);
	if (err)
		return err;
	if (mount_is_shared(parent->priv) && tree_has_unbindable(m->priv))
		return -EINVAL;
	if (mount_in_tree(parent, m))
		return -ELOOP;
	old_parent = mount_parent_of(m);
	old_ns = mount_ns_of(m);
	if (!old_parent) {
		err = place_tree(m, parent, d, over, trash);
		/* The tree's references went along. */
		if (!err)
			old_ns->root = NULL;
		return err;
	}
	old_at = atomic_load_explicit(&m->mountpoint, memory_order_relaxed);
	/* Its reference is in the trash until we are done. */
	mount_unhook_locked(m, trash);
	err = place_tree(m, parent, d, over, trash);
	/* A failed move leaves the mount where it was. */
	if (err)
		mount_attach_locked(m, old_parent, old_at, old_ns);
	return err;
}

int vfs_move_mount_at(const struct vfs_path *from, const struct vfs_path *to,
		      const struct vfs_lookup *lk, unsigned flags)
{
	struct mount_trash trash;
	int err;

	mount_trash_init(&trash);
	mutex_lock(&mount_lock);
	err = move_locked(from, to, lk, flags, &trash);
	mutex_unlock(&mount_lock);
	mount_trash_empty(&trash);
	return err;
}

static int set_group_locked(const struct vfs_path *from_path, const struct vfs_path *to_path)
{
	struct mount_private *from = from_path->mount->priv, *to = to_path->mount->priv;

	if (!mount_ns_of(from->mount) || !mount_ns_of(to->mount))
		return -EINVAL;
	if (from_path->dentry != from->mount->root || to_path->dentry != to->mount->root)
		return -EINVAL;
	if (from->mount->fs != to->mount->fs ||
	    !to->mount->fs->ops->is_descendant(to->mount->root, from->mount->root))
		return -EINVAL;
	if (to->group || to->master || (!from->group && !from->master))
		return -EINVAL;
	mount_inherit_propagation_locked(to, from);
	mount_ns_changed_locked(mount_ns_of(to->mount));
	return 0;
}

int vfs_set_group(const struct vfs_path *from, const struct vfs_path *to,
		  const struct vfs_lookup *lk unused_arg)
{
	int err;

	mutex_lock(&mount_lock);
	err = set_group_locked(from, to);
	mutex_unlock(&mount_lock);
	return err;
}

/* ---- attributes ---- */

static const struct {
	uint64_t attr;
	unsigned flag;
} attr_flags[] = {
	{MOUNT_ATTR_RDONLY, MNT_RDONLY_F},	   {MOUNT_ATTR_NOSUID, MNT_NOSUID_F},
	{MOUNT_ATTR_NODEV, MNT_NODEV_F},	   {MOUNT_ATTR_NOEXEC, MNT_NOEXEC_F},
	{MOUNT_ATTR_NODIRATIME, MNT_NODIRATIME_F}, {MOUNT_ATTR_NOSYMFOLLOW, MNT_NOSYMFOLLOW_F},
};

unsigned vfs_mount_attr_to_flags(uint64_t attr)
{
	unsigned flags = 0;

	for (size_t i = 0; i < ARRAY_SIZE(attr_flags); i++)
		flags |= attr & attr_flags[i].attr ? attr_flags[i].flag : 0;
	return flags;
}

uint64_t vfs_mount_flags_to_attr(unsigned flags)
{
	uint64_t attr = 0;

	for (size_t i = 0; i < ARRAY_SIZE(attr_flags); i++)
		attr |= flags & attr_flags[i].flag ? attr_flags[i].attr : 0;
	if (flags & MNT_NOATIME_F)
		return attr | MOUNT_ATTR_NOATIME;
	return attr | (flags & MNT_RELATIME_F ? MOUNT_ATTR_RELATIME : MOUNT_ATTR_STRICTATIME);
}

bool mount_locked_flags_ok(unsigned old, unsigned flags)
{
	static const struct {
		unsigned lock, what;
	} locks[] = {
		{MNT_LOCK_READONLY_F, MNT_RDONLY_F},
		{MNT_LOCK_NODEV_F, MNT_NODEV_F},
		{MNT_LOCK_NOSUID_F, MNT_NOSUID_F},
		{MNT_LOCK_NOEXEC_F, MNT_NOEXEC_F},
	};
	const unsigned atime = MNT_NOATIME_F | MNT_NODIRATIME_F | MNT_RELATIME_F;

	for (size_t i = 0; i < ARRAY_SIZE(locks); i++)
		if ((old & locks[i].lock) && !(flags & locks[i].what))
			return false;
	return !(old & MNT_LOCK_ATIME_F) || (old & atime) == (flags & atime);
}

static unsigned changed_flags(struct mount *m, const struct mount_attr_change *c)
{
	unsigned old = atomic_load_explicit(&m->flags, memory_order_relaxed);

	return (old & ~c->clear) | c->set;
}

static struct mount_private *attr_next(struct mount_private *p, struct mount_private *top,
				       const struct mount_attr_change *c)
{
	return c->recursive ? mount_next_in_tree(p, top) : NULL;
}

static bool turns_readonly(struct mount *m, const struct mount_attr_change *c)
{
	return (c->set & MNT_RDONLY_F) &&
	       !(atomic_load_explicit(&m->flags, memory_order_relaxed) & MNT_RDONLY_F);
}

/* mount_setattr_prepare(): writers are kept out of everything up to *ret_end, which is NULL on success. */
static int attr_prepare(struct mount_private *top, const struct mount_attr_change *c,
			struct mount_private **ret_end)
{
	struct mount_private *p;
	int err = 0;

	for (p = top; p; p = attr_next(p, top, c)) {
		unsigned old = atomic_load_explicit(&p->mount->flags, memory_order_relaxed);

		if (!mount_locked_flags_ok(old, changed_flags(p->mount, c)))
			err = -EPERM;
		else if (turns_readonly(p->mount, c))
			err = mount_freeze(p->mount);
		if (err)
			break;
	}
	*ret_end = p;
	return err;
}

static int setattr_locked(const struct vfs_path *at, const struct vfs_lookup *lk,
			  const struct mount_attr_change *c)
{
	struct mount_private *top = at->mount->priv, *p, *end;
	struct mount_namespace *ns = mount_ns_of(at->mount);
	int err;

	if (at->dentry != at->mount->root || !ns)
		return -EINVAL;
	/* An attached mount of the caller's namespace, or the root of a detached tree. */
	if ((mount_parent_of(at->mount) || !ns->anon) && ns != lk->ns)
		return -EINVAL;
	err = attr_prepare(top, c, &end);
	mount_epoch_bump_locked();
	for (p = top; p != end; p = attr_next(p, top, c)) {
		bool frozen = turns_readonly(p->mount, c);

		if (!err) {
			atomic_store_explicit(&p->mount->flags, changed_flags(p->mount, c),
					      memory_order_release);
			if (c->has_propagation)
				mount_set_propagation_locked(p, c->propagation);
		}
		if (frozen)
			mount_thaw(p->mount);
	}
	mount_epoch_bump_locked();
	if (!err)
		mount_ns_changed_locked(ns);
	return err;
}

int vfs_mount_setattr(const struct vfs_path *at, const struct vfs_lookup *lk,
		      const struct mount_attr_change *change)
{
	int err;

	mutex_lock(&mount_lock);
	err = setattr_locked(at, lk, change);
	mutex_unlock(&mount_lock);
	return err;
}
