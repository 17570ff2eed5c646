/*
 * fsimpl/overlay/rename.c - rename in the upper layer.
 *
 * What is renamed is copied up first; a whiteout stays where a lower name would show through. A directory that has a lower part
 * answers -EXDEV, and mv(1) copies; with redirect_dir=on it moves, and a mark on the upper directory says where its lowers are.
 */
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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
	return overlay_is_descendant(&d->base, &a->base);
}

static int check_dir_perm(struct renaming *r, struct overlay_dentry *dir,
			  struct overlay_dentry *victim, bool victim_is_dir)
{
	struct perm_inode dpi, vpi;
	int err;

	if (!victim)
		return overlay_may(r->fs, dir, rp_cred(r->rp), W_OK | X_OK);
	err = overlay_perm(r->fs, dir, &dpi);
	if (err)
		return err;
	err = overlay_perm(r->fs, victim, &vpi);
	if (!err) {
		err = vfs_may_delete(rp_cred(r->rp), &dpi, &vpi, victim_is_dir);
		overlay_perm_put(&vpi);
	}
	overlay_perm_put(&dpi);
	return err;
}

/* What Linux's do_renameat2() asks before vfs_rename(). */
static int check_names(struct renaming *r)
{
	bool source_is_dir = S_ISDIR(r->source->type), exchange = r->flags & RENAME_EXCHANGE;

	if (r->target && (r->flags & RENAME_NOREPLACE))
		return -EEXIST;
	if (exchange) {
		if (!r->target)
			return -ENOENT;
		if (!S_ISDIR(r->target->type) && r->rp->trailing_slash)
			return -ENOTDIR;
	}
	if (!source_is_dir && (r->old_must_be_dir || (!exchange && r->rp->trailing_slash)))
		return -ENOTDIR;
	if (r->old_dir == r->new_dir)
		return 0;
	if (is_ancestor(r->source, r->new_dir))
		return -EINVAL;
	if (r->target && is_ancestor(r->target, r->old_dir))
		return exchange ? -EINVAL : -ENOTEMPTY;
	return 0;
}

/* Permissions, in vfs_rename()'s order. */
static int check_perms(struct renaming *r)
{
	const struct cred *cred = rp_cred(r->rp);
	bool is_dir = S_ISDIR(r->source->type), exchange = r->flags & RENAME_EXCHANGE;
	bool to_is_dir = r->target && S_ISDIR(r->target->type);
	int err = check_dir_perm(r, r->old_dir, r->source, is_dir);

	if (!err)
		err = check_dir_perm(r, r->new_dir, r->target, exchange ? to_is_dir : is_dir);
	/* A directory that moves has its ".." written. */
	if (!err && r->old_dir != r->new_dir && is_dir)
		err = overlay_may(r->fs, r->source, cred, W_OK);
	if (!err && r->old_dir != r->new_dir && exchange && to_is_dir)
		err = overlay_may(r->fs, r->target, cred, W_OK);
	return err;
}

/* 0, -errno, 1: both names are the same file, nothing to do. */
static int check_all(struct renaming *r)
{
	int err = check_names(r);

	if (err)
		return err;
	if (r->target && r->source->inode == r->target->inode)
		return 1;
	err = check_perms(r);
	if (!err)
		err = vfs_dentry_delete_begin(r->rp, &r->source->base);
	if (!err && r->target)
		err = vfs_dentry_delete_begin(r->rp, &r->target->base);
	/* From here on it is the overlay that speaks. */
	if (!err && (r->flags & RENAME_WHITEOUT))
		err = -EINVAL;
	if (!err && r->fs->config.redirect != REDIRECT_ON) {
		if (S_ISDIR(r->source->type) && r->source->nlowers)
			err = -EXDEV;
		else if ((r->flags & RENAME_EXCHANGE) && S_ISDIR(r->target->type) &&
			 r->target->nlowers)
			err = -EXDEV;
	}
	/* Before anything is copied up for nothing. */
	if (!err && r->target && r->target->nlowers && S_ISDIR(r->target->type) &&
	    !(r->flags & RENAME_EXCHANGE))
		err = overlay_dir_empty(r->fs, r->target);
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

/* d's path from the root as the lower layers have it; -EXDEV if too long for a mark. buf: OVERLAY_REDIRECT_MAX + 1. */
static int lower_path(struct overlay_dentry *d, char *buf)
{
	size_t at = OVERLAY_REDIRECT_MAX;

	buf[at] = '\0';
	for (; overlay_parent(d); d = overlay_parent(d)) {
		const char *name = d->redirect ? d->redirect : overlay_name(d)->s;
		bool absolute = name[0] == '/';
		size_t len = strlen(name), need = len + (absolute ? 0 : 1);

		if (need > at)
			return -EXDEV;
		at -= len;
		memcpy(buf + at, name, len);
		if (absolute)
			break;
		buf[--at] = '/';
	}
	memmove(buf, buf + at, OVERLAY_REDIRECT_MAX + 1 - at);
	return 0;
}

/* d is about to move: where its lower parts are goes onto its upper directory. */
static int set_redirect(struct renaming *r, struct overlay_dentry *d)
{
	struct vfs_path upper = {r->fs->upper_mount, overlay_upper(d)};
	char path[OVERLAY_REDIRECT_MAX + 1], *copy;
	bool same_dir = r->old_dir == r->new_dir;
	int err = 0;

	if (d->redirect && (same_dir || d->redirect[0] == '/'))
		return 0;
	if (same_dir)
		snprintf(path, sizeof(path), "%s", overlay_name(d)->s);
	else
		err = lower_path(d, path);
	copy = err ? NULL : strdup(path);
	if (!err && !copy)
		err = -ENOMEM;
	if (!err)
		err = overlay_mark_set(r->fs, &upper, "redirect", path, strlen(path));
	if (err) {
		free(copy);
		return err == -EOPNOTSUPP ? -EXDEV : err;
	}
	free(d->redirect);
	d->redirect = copy;
	return 0;
}

/* A directory says where its lowers are, or hides what would shine through at its new place. */
static int mark_directory(struct renaming *r, struct overlay_dentry *d, struct overlay_dentry *dir,
			  const char *name)
{
	struct vfs_path upper = {r->fs->upper_mount, overlay_upper(d)};
	int lower;

	if (!S_ISDIR(d->type))
		return 0;
	if (d->nlowers)
		return set_redirect(r, d);
	lower = overlay_in_lower(r->fs, dir, name);
	return lower > 0 ? overlay_mark_set(r->fs, &upper, "opaque", "y", 1) : lower;
}

/* What is renamed over a directory replaces it whole: whiteouts in it must not stop that. */
static int clear_target(struct renaming *r)
{
	struct overlay_dirent *entries;
	struct vfs_path upper = {r->fs->upper_mount, overlay_upper(r->target)};
	size_t count;
	int err = overlay_dir_empty(r->fs, r->target);

	if (err || !upper.dentry)
		return err;
	err = overlay_list_layer(r->fs, &upper, &entries, &count);
	if (err)
		return err;
	for (size_t i = 0; !err && i < count; i++) {
		struct vfs_lookup lk = overlay_layer_lookup(r->fs, &upper, entries[i].name, 0);

		/* From here on the old directory hides its lower part by itself. */
		if (i == 0)
			err = overlay_mark_set(r->fs, &upper, "opaque", "y", 1);
		if (!err)
			err = vfs_unlink(&lk);
	}
	overlay_dirents_free(entries, count);
	return err;
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
	bool exchange = r->flags & RENAME_EXCHANGE, was_whiteout = false;
	int old_whiteout = overlay_in_lower(fs, r->old_dir, r->old_name), err;

	if (old_whiteout < 0)
		return old_whiteout;
	/* The numbers of what moves may not be the upper's own. */
	err = overlay_set_impure(fs, r->new_dir);
	if (!err && exchange)
		err = overlay_set_impure(fs, r->old_dir);
	if (!err)
		err = mark_directory(r, r->source, r->new_dir, r->new_name);
	if (!err && exchange)
		err = mark_directory(r, r->target, r->old_dir, r->old_name);
	if (!err && r->target && S_ISDIR(r->target->type) && !exchange)
		err = clear_target(r);
	if (err)
		return err;
	/* A whiteout stays behind: in one step where the target's is there to be had. */
	if (!exchange && (!r->target || !overlay_upper(r->target))) {
		err = overlay_whiteout_remove(fs, r->new_dir, r->new_name);
		if (err < 0)
			return err;
		was_whiteout = err > 0;
	}
	if (old_whiteout && !exchange)
		args.flags = RENAME_WHITEOUT;
	err = vfs_rename(&from, &to, &args);
	if (err == -EINVAL && args.flags == RENAME_WHITEOUT) {
		/* A layer that cannot do both at once. */
		args.flags = 0;
		err = vfs_rename(&from, &to, &args);
		if (!err)
			err = overlay_whiteout_make(fs, r->old_dir, r->old_name);
	} else if (err && was_whiteout) {
		(void)!overlay_whiteout_make(fs, r->new_dir, r->new_name);
	}
	return err;
}

/* A name in `dir`, with a reference on it. */
static int new_name(struct overlay_dentry *dir, const char *s, struct name **ret)
{
	int err = name_create(dir, s, strlen(s), ret);

	if (!err)
		dentry_ref(&dir->base);
	return err;
}

static void drop_name(struct name *n)
{
	if (!n)
		return;
	dentry_unref(&((struct overlay_dentry *)n->parent)->base);
	free(n);
}

static int check_locked(struct renaming *r)
{
	int err;

	if ((atomic_load(&r->source->base.flags) | atomic_load(&r->new_dir->base.flags)) &
	    DENTRY_DEAD)
		return -ENOENT;
	if (overlay_parent(r->source) != r->old_dir ||
	    (r->target && overlay_parent(r->target) != r->new_dir))
		return -ENOENT;
	if (S_ISDIR(r->source->type) && is_ancestor(r->source, r->new_dir))
		return -EINVAL;
	err = vfs_dentry_delete_begin(r->rp, &r->source->base);
	return !err && r->target ? vfs_dentry_delete_begin(r->rp, &r->target->base) : err;
}

static void change_begin(struct renaming *r)
{
	overlay_dir_change_begin(r->old_dir);
	if (r->new_dir != r->old_dir)
		overlay_dir_change_begin(r->new_dir);
	path_change_begin(&r->fs->base);
	overlay_paths_forget(r->source);
	if (r->target)
		overlay_paths_forget(r->target);
}

static void change_end(struct renaming *r)
{
	path_change_end(&r->fs->base);
	if (r->new_dir != r->old_dir)
		overlay_dir_change_end(r->new_dir);
	overlay_dir_change_end(r->old_dir);
}

static int rename_locked(struct renaming *r)
{
	bool exchange = r->flags & RENAME_EXCHANGE;
	struct name *to = NULL, *back = NULL;
	int err = check_locked(r);

	if (!err)
		err = new_name(r->new_dir, r->new_name, &to);
	if (!err && exchange)
		err = new_name(r->old_dir, r->old_name, &back);
	if (err)
		goto out;
	change_begin(r);
	err = rename_upper(r);
	if (!err) {
		if (r->target && !exchange)
			vfs_dentry_delete_end(&r->target->base);
		if (r->target)
			overlay_child_unlink(r->target);
		overlay_child_move(r->source, to);
		to = NULL;
		if (r->target && exchange) {
			overlay_child_move(r->target, back);
			back = NULL;
		}
	}
	change_end(r);
out:
	drop_name(to);
	drop_name(back);
	return err;
}

static void notify(struct renaming *r)
{
	struct vfs_moved m = {.from_dir = &r->old_dir->base,
			      .to_dir = &r->new_dir->base,
			      .from = r->old_name,
			      .from_len = strlen(r->old_name),
			      .to = r->new_name,
			      .to_len = strlen(r->new_name),
			      .d = &r->source->base,
			      .isdir = S_ISDIR(r->source->type)};

	if (!vfs_notify_wanted())
		return;
	if (r->target && (r->flags & RENAME_EXCHANGE))
		m.exchanged = &r->target->base;
	else if (r->target)
		m.replaced = &r->target->base;
	vfs_notify_moved(&m);
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

	err = overlay_walk_parent(fs, rp, &r.new_dir);
	if (err)
		return err;
	err = rp_begin_write(rp);
	if (!err && strlen(old_name) > VFS_NAME_MAX)
		err = overlay_name_error(r.old_dir);
	if (!err)
		err = overlay_lookup(fs, r.old_dir, old_name, strlen(old_name), &r.source);
	if (err)
		goto out_dir;
	if (atomic_load(&r.new_dir->base.flags) & DENTRY_DEAD)
		err = -ENOENT;
	else if (rp_check_name(rp))
		err = -ENAMETOOLONG;
	if (err)
		goto out_source;
	memcpy(r.new_name, rp_component(rp), rp_component_len(rp));
	r.new_name[rp_component_len(rp)] = '\0';
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
		if (!err)
			notify(&r);
	}
	if (err > 0 && !rp_is_restart(err))
		err = 0; /* check_all: the same file */
	if (r.target)
		dentry_unref(&r.target->base);
out_source:
	dentry_unref(&r.source->base);
out_dir:
	dentry_unref(&r.new_dir->base);
	return err;
}
