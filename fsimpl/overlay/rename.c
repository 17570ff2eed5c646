/*
 * fsimpl/overlay/rename.c - rename in the upper layer.
 *
 * What is renamed is copied up first; a whiteout stays where a lower name would show through. A directory that has a lower part
 * answers -EXDEV, as Linux does without redirect_dir: mv(1) then copies.
 */
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>

#include "fsimpl/overlay/internal.h"

struct renaming {
	struct overlay_fs *fs;
	struct resolving_path *rp;
	struct overlay_dentry *old_dir, *new_dir, *source,
		*target; /* references but old_dir; target NULL if absent */
	const char *old_name;
	char new_name[VFS_NAME_MAX + 1];
	unsigned flags;
	bool old_must_be_dir;
};

static bool is_ancestor(struct overlay_dentry *a, struct overlay_dentry *d)
{
	for (; d; d = d->parent)
		if (d == a)
			return true;
	return false;
}

static int check_dir_perm(struct renaming *r, struct overlay_dentry *dir,
			  struct overlay_dentry *victim, bool victim_is_dir)
{
	struct perm_inode dpi, vpi;
	int err = overlay_perm(r->fs, dir, &dpi);

	if (err)
		return err;
	if (!victim)
		return vfs_permission(rp_cred(r->rp), &dpi, 3 /* W_OK | X_OK */);
	err = overlay_perm(r->fs, victim, &vpi);
	return err ? err : vfs_may_delete(rp_cred(r->rp), &dpi, &vpi, victim_is_dir);
}

static int check_types(struct renaming *r)
{
	bool source_is_dir = S_ISDIR(r->source->type),
	     target_is_dir = r->target && S_ISDIR(r->target->type);

	if ((r->old_must_be_dir || r->rp->trailing_slash) && !source_is_dir &&
	    !(r->flags & RENAME_EXCHANGE))
		return -ENOTDIR;
	if (source_is_dir && is_ancestor(r->source, r->new_dir))
		return -EINVAL;
	if (r->target && (r->flags & RENAME_EXCHANGE))
		return target_is_dir && is_ancestor(r->target, r->old_dir) ? -EINVAL : 0;
	if (r->target && is_ancestor(r->target, r->old_dir))
		return -ENOTEMPTY;
	if (r->target && source_is_dir && !target_is_dir)
		return -ENOTDIR;
	if (r->target && !source_is_dir && target_is_dir)
		return -EISDIR;
	return 0;
}

static int check_all(struct renaming *r)
{
	int err;

	if (r->target && (r->flags & RENAME_NOREPLACE))
		return -EEXIST;
	if (!r->target && (r->flags & RENAME_EXCHANGE))
		return -ENOENT;
	err = check_types(r);
	if (!err)
		err = rp_begin_write(r->rp);
	if (!err)
		err = check_dir_perm(r, r->old_dir, r->source, S_ISDIR(r->source->type));
	if (!err)
		err = check_dir_perm(r, r->new_dir, r->target,
				     r->flags & RENAME_EXCHANGE
					     ? r->target && S_ISDIR(r->target->type)
					     : S_ISDIR(r->source->type));
	/* Both names are the same file: nothing to do. */
	if (!err && r->target &&
	    r->fs->base.ops->inode_key(&r->source->base) ==
		    r->fs->base.ops->inode_key(&r->target->base) &&
	    overlay_real(r->source).mount == overlay_real(r->target).mount &&
	    !(r->flags & RENAME_EXCHANGE))
		return 1;
	if (!err && S_ISDIR(r->source->type) && r->source->nlowers)
		err = -EXDEV;
	if (!err && (r->flags & RENAME_EXCHANGE) && S_ISDIR(r->target->type) && r->target->nlowers)
		err = -EXDEV;
	return err;
}

static int copy_all_up(struct renaming *r)
{
	int err = overlay_copy_up(r->fs, r->old_dir, true);

	if (!err)
		err = overlay_copy_up(r->fs, r->new_dir, true);
	if (!err)
		err = overlay_copy_up(r->fs, r->source, true);
	if (!err && r->target && (r->flags & RENAME_EXCHANGE))
		err = overlay_copy_up(r->fs, r->target, true);
	return err;
}

/* A directory moved to where a lower one would shine through is made opaque first. */
static int make_opaque_if_needed(struct renaming *r, struct overlay_dentry *d,
				 struct overlay_dentry *dir, const char *name)
{
	struct vfs_path upper = {r->fs->upper_mount, overlay_upper(d)};
	int lower = S_ISDIR(d->type) ? overlay_in_lower(r->fs, dir, name) : 0;

	return lower > 0 ? overlay_set_opaque(r->fs, &upper) : lower;
}

/* The upper layer's part. fs->change is held. */
static int rename_upper(struct renaming *r)
{
	struct overlay_fs *fs = r->fs;
	struct vfs_path from_dir = {fs->upper_mount, overlay_upper(r->old_dir)},
			to_dir = {fs->upper_mount, overlay_upper(r->new_dir)};
	struct vfs_lookup from = overlay_layer_lookup(fs, &from_dir, r->old_name, 0);
	struct vfs_lookup to = overlay_layer_lookup(fs, &to_dir, r->new_name, 0);
	struct rename_args args = {.flags = r->flags & RENAME_EXCHANGE};
	int old_whiteout = overlay_in_lower(fs, r->old_dir, r->old_name), err;

	if (old_whiteout < 0)
		return old_whiteout;
	err = make_opaque_if_needed(r, r->source, r->new_dir, r->new_name);
	if (!err && (r->flags & RENAME_EXCHANGE))
		err = make_opaque_if_needed(r, r->target, r->old_dir, r->old_name);
	/* A directory cannot replace a whiteout, nor an upper directory that holds whiteouts. */
	if (!err && S_ISDIR(r->source->type) && !r->target) {
		err = overlay_whiteout_remove(fs, r->new_dir, r->new_name);
		if (err > 0)
			err = 0;
	}
	if (!err && r->target && S_ISDIR(r->target->type) && !(r->flags & RENAME_EXCHANGE))
		err = overlay_dir_empty(fs, r->target, true);
	if (!err)
		err = vfs_rename(&from, &to, &args);
	if (!err && old_whiteout && !(r->flags & RENAME_EXCHANGE))
		err = overlay_whiteout_make(fs, r->old_dir, r->old_name);
	return err;
}

static int rename_locked(struct renaming *r)
{
	char *new_name = strdup(r->new_name), *old_name = strdup(r->old_name);
	bool exchange = r->flags & RENAME_EXCHANGE;
	int err = new_name && old_name ? 0 : -ENOMEM;

	if (!err && ((atomic_load(&r->source->base.flags) | atomic_load(&r->new_dir->base.flags)) &
		     DENTRY_DEAD))
		err = -ENOENT;
	if (!err &&
	    (r->source->parent != r->old_dir || (r->target && r->target->parent != r->new_dir)))
		err = -ENOENT;
	if (!err && S_ISDIR(r->source->type) && is_ancestor(r->source, r->new_dir))
		err = -EINVAL;
	if (!err)
		err = vfs_dentry_delete_begin(r->rp, &r->source->base);
	if (!err && r->target)
		err = vfs_dentry_delete_begin(r->rp, &r->target->base);
	if (!err)
		err = rename_upper(r);
	if (!err) {
		if (r->target)
			overlay_child_unlink(r->target);
		overlay_child_move(r->source, r->new_dir, new_name, strlen(new_name));
		new_name = NULL;
		if (r->target && exchange) {
			overlay_child_move(r->target, r->old_dir, old_name, strlen(old_name));
			old_name = NULL;
		} else if (r->target) {
			vfs_dentry_delete_end(&r->target->base);
		}
	}
	free(new_name);
	free(old_name);
	return err;
}

int overlay_rename_at(struct filesystem *base, struct resolving_path *rp, struct dentry *old_parent,
		      const char *old_name, bool old_must_be_dir, const struct rename_args *args)
{
	struct overlay_fs *fs = overlay_fs_of(base);
	struct renaming r = {.fs = fs,
			     .rp = rp,
			     .old_dir = overlay_of(old_parent),
			     .old_name = old_name,
			     .flags = args->flags,
			     .old_must_be_dir = old_must_be_dir};
	int err;

	if (args->flags & RENAME_WHITEOUT)
		return -EINVAL;
	err = overlay_walk_parent(fs, rp, &r.new_dir);
	if (err)
		return err;
	err = rp_check_name(rp);
	if (!err && strlen(old_name) > VFS_NAME_MAX)
		err = -ENAMETOOLONG;
	if (err)
		goto out_dir;
	memcpy(r.new_name, rp_component(rp), rp_component_len(rp));
	r.new_name[rp_component_len(rp)] = '\0';
	err = overlay_lookup(fs, r.old_dir, old_name, strlen(old_name), &r.source);
	if (err)
		goto out_dir;
	err = overlay_lookup(fs, r.new_dir, r.new_name, strlen(r.new_name), &r.target);
	if (err == -ENOENT) {
		r.target = NULL;
		err = 0;
	}
	if (!err)
		err = check_all(&r);
	if (!err)
		err = copy_all_up(&r);
	if (!err)
		err = op_lock_killable(&fs->change);
	if (!err) {
		err = rename_locked(&r);
		op_unlock(&fs->change);
	}
	if (err > 0 && !rp_is_restart(err))
		err = 0; /* check_all: the same file */
	if (r.target)
		dentry_unref(&r.target->base);
	dentry_unref(&r.source->base);
out_dir:
	dentry_unref(&r.new_dir->base);
	return err;
}
