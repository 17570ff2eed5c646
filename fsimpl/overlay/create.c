/*
 * fsimpl/overlay/create.c - new names and removed ones.
 *
 * Something made where a whiteout stands: the whiteout is taken away, and put back if the making fails. Both happen under fs->change, so
 * nobody sees the name in between; a machine that stops there may leave the lower name showing.
 */
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fsimpl/overlay/internal.h"

/* A change of one name: dir is copied up, fs->change held, a whiteout of the name removed. */
struct change {
	struct overlay_fs *fs;
	struct overlay_dentry *dir;
	struct cred *cred;
	char name[VFS_NAME_MAX + 1];
	struct vfs_path upper_dir; /* borrowed */
	struct vfs_lookup lk; /* the name in the upper directory */
	bool was_whiteout;
};

static int check_absent(struct overlay_fs *fs, struct resolving_path *rp,
			struct overlay_dentry *dir)
{
	struct overlay_dentry *child;
	int err = overlay_lookup(fs, dir, rp_component(rp), rp_component_len(rp), &child);

	if (err)
		return err == -ENOENT ? 0 : err;
	dentry_unref(&child->base);
	return -EEXIST;
}

static int may_create(struct overlay_fs *fs, struct resolving_path *rp, struct overlay_dentry *dir)
{
	int err;

	if (atomic_load(&dir->base.flags) & DENTRY_DEAD)
		return -ENOENT;
	err = rp_begin_write(rp);
	return err ? err : overlay_may(fs, dir, rp_cred(rp), W_OK | X_OK);
}

/* Pre: the name was checked. On success the change must be ended. */
static int change_begin(struct change *c, struct overlay_fs *fs, struct resolving_path *rp,
			struct overlay_dentry *dir)
{
	int err;

	c->fs = fs;
	c->dir = dir;
	memcpy(c->name, rp_component(rp), rp_component_len(rp));
	c->name[rp_component_len(rp)] = '\0';
	err = overlay_create_cred(fs, rp_cred(rp), &c->cred);
	if (err)
		return err;
	err = overlay_copy_up(fs, dir, true);
	if (!err)
		err = op_lock_killable(&fs->change);
	if (err)
		goto out_cred;
	if (atomic_load(&dir->base.flags) & DENTRY_DEAD)
		err = -ENOENT;
	else
		err = check_absent(fs, rp, dir);
	if (err)
		goto out_unlock;
	c->upper_dir = (struct vfs_path){fs->upper_mount, overlay_upper(dir)};
	overlay_dir_change_begin(dir);
	err = overlay_whiteout_remove(fs, dir, c->name);
	if (err < 0) {
		overlay_dir_change_end(dir);
		goto out_unlock;
	}
	c->was_whiteout = err > 0;
	c->lk = overlay_layer_lookup(fs, &c->upper_dir, c->name, 0);
	c->lk.cred = c->cred;
	return 0;
out_unlock:
	op_unlock(&fs->change);
out_cred:
	cred_unref(c->cred);
	return err;
}

static int change_end(struct change *c, int err)
{
	/* What was hidden must stay hidden when the creation failed. */
	if (err && c->was_whiteout)
		(void)!overlay_whiteout_make(c->fs, c->dir, c->name);
	overlay_dir_change_end(c->dir);
	op_unlock(&c->fs->change);
	cred_unref(c->cred);
	return err;
}

static void created(struct resolving_path *rp, struct overlay_dentry *dir, bool is_dir)
{
	vfs_notify_name(&dir->base, IN_CREATE, 0, rp_component(rp), rp_component_len(rp), is_dir);
}

/* Walks to the parent and makes all checks of a creation. *ret_dir: a reference. */
static int create_check(struct overlay_fs *fs, struct resolving_path *rp, bool is_dir,
			struct overlay_dentry **ret_dir)
{
	struct overlay_dentry *dir;
	int err = overlay_walk_parent(fs, rp, &dir);

	if (err)
		return err;
	err = rp_done(rp) || rp_is_dot(rp) || rp_is_dotdot(rp) ? -EEXIST : 0;
	if (!err && rp_check_name(rp))
		err = overlay_name_error(dir);
	if (!err)
		err = check_absent(fs, rp, dir);
	if (!err)
		err = rp_check_create_name(rp, is_dir);
	if (!err)
		err = may_create(fs, rp, dir);
	if (err) {
		dentry_unref(&dir->base);
		return err;
	}
	*ret_dir = dir;
	return 0;
}

/* And begins it. */
static int create_begin(struct change *c, struct overlay_fs *fs, struct resolving_path *rp,
			bool is_dir, struct overlay_dentry **ret_dir)
{
	struct overlay_dentry *dir;
	int err = create_check(fs, rp, is_dir, &dir);

	if (err)
		return err;
	err = change_begin(c, fs, rp, dir);
	if (err) {
		dentry_unref(&dir->base);
		return err;
	}
	*ret_dir = dir;
	return 0;
}

int overlay_mkdir_at(struct filesystem *base, struct resolving_path *rp,
		     const struct mkdir_args *args)
{
	struct overlay_fs *fs = overlay_fs_of(base);
	struct overlay_dentry *dir;
	struct vfs_path made;
	struct change c;
	int err = create_begin(&c, fs, rp, true, &dir);

	if (err)
		return err;
	err = vfs_mkdir(&c.lk, args);
	/* A lower directory of that name was removed before: it must not show through. */
	if (!err && c.was_whiteout) {
		err = vfs_get_path(&c.lk, &made);
		if (!err) {
			err = overlay_mark_set(fs, &made, "opaque", "y", 1);
			vfs_path_unref(&made);
		}
	}
	err = change_end(&c, err);
	if (!err)
		created(rp, dir, true);
	dentry_unref(&dir->base);
	return err;
}

int overlay_mknod_at(struct filesystem *base, struct resolving_path *rp,
		     const struct mknod_args *args)
{
	struct overlay_fs *fs = overlay_fs_of(base);
	struct overlay_dentry *dir;
	struct change c;
	int err = create_begin(&c, fs, rp, false, &dir);

	if (err)
		return err;
	/* A 0:0 character device is the overlay's own mark. The layer would let the overlay make every device. */
	if ((S_ISCHR(args->mode) && !args->rdev_major && !args->rdev_minor) ||
	    ((S_ISCHR(args->mode) || S_ISBLK(args->mode)) && !cred_has_cap(rp_cred(rp), CAP_MKNOD)))
		err = -EPERM;
	else
		err = vfs_mknod(&c.lk, args);
	err = change_end(&c, err);
	if (!err)
		created(rp, dir, false);
	dentry_unref(&dir->base);
	return err;
}

int overlay_symlink_at(struct filesystem *base, struct resolving_path *rp, const char *target)
{
	struct overlay_fs *fs = overlay_fs_of(base);
	struct overlay_dentry *dir;
	struct change c;
	int err = create_begin(&c, fs, rp, false, &dir);

	if (err)
		return err;
	err = change_end(&c, vfs_symlink(&c.lk, target));
	if (!err)
		created(rp, dir, false);
	dentry_unref(&dir->base);
	return err;
}

static int may_link(struct overlay_fs *fs, struct resolving_path *rp, struct overlay_dentry *old)
{
	struct perm_inode pi;
	int err = overlay_perm(fs, old, &pi);

	if (err)
		return err;
	err = vfs_may_linkat(rp_cred(rp), &pi);
	overlay_perm_put(&pi);
	return err;
}

int overlay_link_at(struct filesystem *base, struct resolving_path *rp, struct dentry *old_base)
{
	struct overlay_fs *fs = overlay_fs_of(base);
	struct overlay_dentry *old = overlay_of(old_base), *dir = NULL;
	struct vfs_path real;
	struct vfs_lookup old_lk;
	struct change c;
	int err = create_check(fs, rp, false, &dir), link_err;

	/* may_linkat() speaks before the new directory's permissions. */
	if (err && err != -EACCES)
		return err;
	link_err = may_link(fs, rp, old);
	if (link_err)
		err = link_err;
	if (!err && S_ISDIR(old->type))
		err = -EPERM;
	if (!err)
		err = overlay_copy_up(fs, old, true);
	if (!err)
		err = change_begin(&c, fs, rp, dir);
	if (err)
		goto out_dir;
	err = overlay_set_impure(fs, dir);
	if (!err) {
		real = overlay_real(old);
		old_lk = overlay_layer_lookup(fs, &real, "", 0);
		c.lk.cred = fs->cred;
		err = vfs_link(&old_lk, &c.lk);
	}
	err = change_end(&c, err);
	if (!err) {
		vfs_notify_self(&old->base, IN_ATTRIB, false);
		created(rp, dir, false);
	}
out_dir:
	if (dir)
		dentry_unref(&dir->base);
	return err;
}

int overlay_create_file(struct overlay_fs *fs, struct resolving_path *rp,
			struct overlay_dentry *dir, const struct open_args *args,
			struct overlay_dentry **ret_d, struct file **ret_real)
{
	struct open_args real_args = *args;
	struct file *real;
	struct change c;
	int err = may_create(fs, rp, dir);

	if (!err)
		err = change_begin(&c, fs, rp, dir);
	if (err)
		return err;
	real_args.flags = (args->flags | O_CREAT | O_EXCL) &
			  ~(unsigned)(O_NOFOLLOW | O_TRUNC | O_DIRECTORY | O_NOATIME);
	err = change_end(&c, vfs_open(&c.lk, &real_args, &real));
	if (err)
		return err;
	created(rp, dir, false);
	err = overlay_lookup(fs, dir, rp_component(rp), rp_component_len(rp), ret_d);
	if (err) {
		file_unref(real);
		return err;
	}
	*ret_real = real;
	return 0;
}

/*
 * Removes child (a reference is held) from dir; checks were made; fs->change is held. Where a lower name would show through, a whiteout
 * takes the place of what is removed in one step.
 */
static int remove_locked(struct overlay_fs *fs, struct overlay_dentry *dir,
			 struct overlay_dentry *child, bool is_dir)
{
	struct vfs_path upper_dir = {fs->upper_mount, overlay_upper(dir)};
	const char *child_name = overlay_name(child)->s;
	struct vfs_lookup lk = overlay_layer_lookup(fs, &upper_dir, child_name, 0), work;
	int whiteout = overlay_in_lower(fs, dir, child_name), err;
	char name[OVERLAY_WORK_NAME_SIZE];

	if (whiteout < 0)
		return whiteout;
	if (!overlay_upper(child))
		return overlay_whiteout_make(fs, dir, child_name);
	if (!whiteout)
		return is_dir ? overlay_clear_dir(fs, &lk) : vfs_unlink(&lk);
	work = overlay_work_lookup(fs, name);
	err = vfs_mknod(&work, &(struct mknod_args){.mode = S_IFCHR});
	if (err)
		return err;
	err = vfs_rename(&work, &lk, &(struct rename_args){.flags = is_dir ? RENAME_EXCHANGE : 0});
	if (err)
		(void)!vfs_unlink(&work);
	else if (is_dir)
		(void)!overlay_clear_dir(fs, &work); /* out of sight: what stays is only garbage */
	return err;
}

/* The same, and nobody finds it any more. */
static int remove_and_forget(struct overlay_fs *fs, struct overlay_dentry *dir,
			     struct overlay_dentry *child, bool is_dir)
{
	int err;

	overlay_dir_change_begin(dir);
	path_change_begin(&fs->base);
	overlay_paths_forget(child);
	err = remove_locked(fs, dir, child, is_dir);
	if (!err) {
		vfs_dentry_delete_end(&child->base);
		overlay_child_unlink(child);
	}
	path_change_end(&fs->base);
	overlay_dir_change_end(dir);
	return err;
}

/* The order of Linux's vfs_unlink and vfs_rmdir. */
static int may_remove(struct overlay_fs *fs, struct resolving_path *rp, struct overlay_dentry *dir,
		      struct overlay_dentry *child, bool is_dir)
{
	struct perm_inode dpi, cpi;
	int err = overlay_perm(fs, dir, &dpi);

	if (err)
		return err;
	err = overlay_perm(fs, child, &cpi);
	if (!err) {
		err = vfs_may_delete(rp_cred(rp), &dpi, &cpi, is_dir);
		overlay_perm_put(&cpi);
	}
	overlay_perm_put(&dpi);
	return err;
}

bool overlay_gone(struct overlay_fs *fs, struct overlay_dentry *d)
{
	struct moat_statx st;
	bool upper;

	if (S_ISDIR(d->type))
		return true;
	mutex_lock(&fs->inodes_lock);
	upper = d->inode->hashed;
	mutex_unlock(&fs->inodes_lock);
	/* A lower file has lost its only name here, whatever the layer says. Of an upper one that does not answer another name may live. */
	return !upper || (!overlay_stat_real(fs, d, &st) && !st.nlink);
}

static int remove_at(struct overlay_fs *fs, struct resolving_path *rp, bool is_dir)
{
	struct overlay_dentry *dir, *child;
	int err = overlay_walk_parent(fs, rp, &dir);

	if (err)
		return err;
	/* "." and "..", then a read-only mount, then a name too long. */
	err = rp_check_remove_name(rp, is_dir);
	if (!err || err == -ENAMETOOLONG) {
		int write_err = rp_begin_write(rp);

		err = write_err ? write_err : err ? overlay_name_error(dir) : 0;
	}
	if (!err)
		err = overlay_lookup(fs, dir, rp_component(rp), rp_component_len(rp), &child);
	if (err)
		goto out_dir;
	if (!is_dir && rp->trailing_slash)
		err = S_ISDIR(child->type) ? -EISDIR : -ENOTDIR;
	else
		err = may_remove(fs, rp, dir, child, is_dir);
	if (!err && (atomic_load(&dir->base.flags) & DENTRY_DEAD))
		err = -ENOENT;
	if (!err)
		err = vfs_dentry_delete_begin(rp, &child->base);
	/* Before anything is copied up for nothing. */
	if (!err && is_dir)
		err = overlay_dir_empty(fs, child);
	if (!err)
		err = overlay_copy_up(fs, dir, true);
	if (!err)
		err = op_lock_killable(&fs->change);
	if (err)
		goto out_child;
	if ((atomic_load(&child->base.flags) & DENTRY_DEAD) || overlay_parent(child) != dir)
		err = -ENOENT;
	if (!err)
		err = vfs_dentry_delete_begin(rp, &child->base);
	if (!err && is_dir)
		err = overlay_dir_empty(fs, child);
	if (!err)
		err = remove_and_forget(fs, dir, child, is_dir);
	op_unlock(&fs->change);
	if (!err) {
		vfs_notify_removed(&dir->base, &child->base, rp_component(rp), rp_component_len(rp),
				   is_dir);
		goto out_dir;
	}
out_child:
	dentry_unref(&child->base);
out_dir:
	dentry_unref(&dir->base);
	return err;
}

int overlay_unlink_at(struct filesystem *fs, struct resolving_path *rp)
{
	return remove_at(overlay_fs_of(fs), rp, false);
}

int overlay_rmdir_at(struct filesystem *fs, struct resolving_path *rp)
{
	return remove_at(overlay_fs_of(fs), rp, true);
}
