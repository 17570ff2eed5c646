/*
 * fsimpl/overlay/file.c - open files of an overlay.
 *
 * An open regular file forwards to a file of its layer. One that was opened for reading before its file was copied up goes over
 * to the upper one at its next use; the old one is kept until release because another thread may still be in it.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fsimpl/overlay/internal.h"
#include "vfs/write_access.h"

static const struct file_ops overlay_regular_ops, overlay_directory_ops, overlay_path_ops;

static struct overlay_file *overlay_file_of(struct file *f)
{
	return (struct overlay_file *)f;
}

static int open_real(struct overlay_fs *fs, struct overlay_dentry *d, unsigned flags, bool exec,
		     struct file **ret)
{
	struct vfs_path real = overlay_real(d);
	struct vfs_lookup lk = overlay_layer_lookup(fs, &real, "", 0);

	/* The overlay keeps atime rules of its own mount; the layer below a read-only lower never changes. */
	return vfs_open(&lk,
			&(struct open_args){.flags = flags &
						     ~(unsigned)(O_CREAT | O_EXCL | O_NOFOLLOW |
								 O_DIRECTORY | O_NOCTTY),
					    .exec = exec},
			ret);
}

/* The layer's file to use now. Borrowed: lives as long as f. */
static struct file *real_of(struct file *f)
{
	struct overlay_file *of = overlay_file_of(f);
	struct overlay_dentry *d = overlay_of(f->path.dentry);
	struct file *real, *fresh;

	real = atomic_load_explicit(&of->real, memory_order_acquire);
	if (likely(of->real_is_upper || !overlay_upper(d)))
		return real;
	op_lock(&of->lock);
	if (!of->real_is_upper &&
	    open_real(overlay_fs_of_dentry(d), d, file_flags(f) & ~(unsigned)O_TRUNC, false,
		      &fresh) == 0) {
		of->old_real = atomic_load(&of->real);
		atomic_store_explicit(&of->real, fresh, memory_order_release);
		of->real_is_upper = true;
	}
	real = atomic_load(&of->real);
	op_unlock(&of->lock);
	return real;
}

static void overlay_file_release(struct file *f)
{
	struct overlay_file *of = overlay_file_of(f);
	struct file *real = atomic_load(&of->real);

	if (real)
		file_unref(real);
	if (of->old_real)
		file_unref(of->old_real);
	overlay_dir_forget(of);
	file_free(f);
}

static int overlay_file_flush(struct file *f)
{
	struct file *real = real_of(f);

	return real->ops->flush ? real->ops->flush(real) : 0;
}

static ssize_t overlay_read_iter(struct file *f, struct io_iter *it, int64_t off, int rwf)
{
	struct file *real = real_of(f);

	return real->ops->read_iter ? real->ops->read_iter(real, it, off, rwf) : -EINVAL;
}

static ssize_t overlay_write_iter(struct file *f, struct io_iter *it, int64_t *inout_off, int rwf)
{
	struct file *real = real_of(f);

	return real->ops->write_iter ? real->ops->write_iter(real, it, inout_off, rwf) : -EINVAL;
}

static int64_t overlay_seek(struct file *f, int64_t off, int whence)
{
	struct file *real = real_of(f);
	int64_t pos;

	if (whence == SEEK_CUR)
		off += f->pos;
	pos = file_seek(real, off, whence == SEEK_CUR ? SEEK_SET : whence);
	if (pos >= 0)
		f->pos = pos;
	return pos;
}

static struct mappable *overlay_mappable(struct file *f)
{
	return file_mappable(real_of(f));
}

static int overlay_file_stat(struct file *f, const struct stat_args *args, struct moat_statx *ret)
{
	struct overlay_dentry *d = overlay_of(f->path.dentry);
	int err = file_stat(real_of(f), args, ret);

	if (!err)
		overlay_attr(overlay_fs_of_dentry(d), d, ret);
	return err;
}

static int overlay_file_truncate(struct file *f, uint64_t size)
{
	return file_truncate(real_of(f), size);
}

static int overlay_file_fallocate(struct file *f, int mode, uint64_t off, uint64_t size)
{
	return file_fallocate(real_of(f), mode, off, size);
}

static ssize_t overlay_copy_range(struct file *in, int64_t off_in, struct file *out,
				  int64_t off_out, size_t size)
{
	struct file *from = real_of(in), *to = real_of(out);

	return from->ops == to->ops && to->ops->copy_range
		       ? to->ops->copy_range(from, off_in, to, off_out, size)
		       : -EOPNOTSUPP;
}

static int overlay_file_fsync(struct file *f, bool data_only, uint64_t start, uint64_t end)
{
	struct overlay_fs *fs = overlay_fs_of_dentry(overlay_of(f->path.dentry));

	return fs->config.is_volatile ? 0 : file_fsync(real_of(f), data_only, start, end);
}

static int overlay_set_flags(struct file *f, unsigned new_flags)
{
	struct file *real = real_of(f);
	int err = real->ops->set_flags ? real->ops->set_flags(real, new_flags) : 0;

	if (!err)
		atomic_store_explicit(&real->flags, new_flags, memory_order_relaxed);
	return err;
}

static int overlay_dir_fsync(struct file *f, bool data_only, uint64_t start, uint64_t end)
{
	struct overlay_dentry *d = overlay_of(f->path.dentry);
	struct overlay_fs *fs = overlay_fs_of_dentry(d);
	struct file *real;
	int err;

	/* Names are the upper directory's. Without one nothing was ever changed. */
	if (!overlay_upper(d) || fs->config.is_volatile)
		return 0;
	err = open_real(fs, d, O_RDONLY, false, &real);
	if (err)
		return err;
	err = file_fsync(real, data_only, start, end);
	file_unref(real);
	return err;
}

static const struct file_ops overlay_regular_ops = {
	.release = overlay_file_release,
	.flush = overlay_file_flush,
	.read_iter = overlay_read_iter,
	.write_iter = overlay_write_iter,
	.seek = overlay_seek,
	.mappable = overlay_mappable,
	.stat = overlay_file_stat,
	.truncate = overlay_file_truncate,
	.fallocate = overlay_file_fallocate,
	.copy_range = overlay_copy_range,
	.fsync = overlay_file_fsync,
	.set_flags = overlay_set_flags,
};

static const struct file_ops overlay_directory_ops = {
	.release = overlay_file_release,
	.iterate = overlay_dir_iterate,
	.seek = file_seek_cookie,
	.fsync = overlay_dir_fsync,
};

static const struct file_ops overlay_path_ops = {
	.release = overlay_file_release,
};

/* Access mode 3 asks for both permissions and gives neither. */
static bool wants_write(unsigned flags)
{
	return (flags & O_ACCMODE) == O_WRONLY || (flags & O_ACCMODE) == O_RDWR;
}

/* Makes the open file. Takes `real` (may be NULL), also on failure. */
static int make_file(struct overlay_fs *fs, struct resolving_path *rp, struct overlay_dentry *d,
		     unsigned flags, struct file *real, struct file **ret)
{
	struct overlay_file *of = calloc(1, sizeof(*of));
	const struct file_ops *ops = flags & O_PATH	? &overlay_path_ops
				     : S_ISDIR(d->type) ? &overlay_directory_ops
							: &overlay_regular_ops;
	struct vfs_path place;
	unsigned mode = 0;
	int err;

	if (!of) {
		if (real)
			file_unref(real);
		return -ENOMEM;
	}
	rp_place(rp, &d->base, &place);
	/* Counts as a writer of the mount for as long as it is open. */
	if (ops == &overlay_regular_ops && wants_write(flags)) {
		err = mount_begin_write(place.mount);
		if (err) {
			file_unref(real);
			free(of);
			return err;
		}
		mode = FILE_WRITER;
	}
	file_init(&of->base, ops, &place, flags, mode | (flags & O_PATH ? 0 : FILE_SEEKABLE));
	op_lock_init(&of->lock);
	atomic_init(&of->real, real);
	of->real_is_upper = real && real->path.mount == fs->upper_mount;
	*ret = &of->base;
	return 0;
}

static int may_open(struct overlay_fs *fs, struct resolving_path *rp, struct overlay_dentry *d,
		    const struct open_args *args)
{
	struct perm_inode pi;
	int err;

	if (args->flags & O_PATH)
		return 0;
	err = overlay_perm(fs, d, &pi);
	if (!err) {
		err = vfs_may_open(rp_cred(rp), rp_mount(rp), &pi, args->flags, args->exec);
		overlay_perm_put(&pi);
	}
	return err;
}

static int open_special(struct overlay_fs *fs, struct resolving_path *rp, struct overlay_dentry *d,
			unsigned flags, struct file **ret)
{
	struct moat_statx st;
	struct vfs_path place;
	int err = overlay_stat_real(fs, d, &st);

	if (err)
		return err;
	if (d->type == S_IFSOCK || !vfs_hooks.open_special)
		return -ENXIO;
	rp_place(rp, &d->base, &place);
	return vfs_hooks.open_special(&place, d->type, st.rdev_major, st.rdev_minor,
				      fs->base.ops->inode_key(&d->base), flags, ret);
}

static int open_existing(struct overlay_fs *fs, struct resolving_path *rp, struct overlay_dentry *d,
			 const struct open_args *args, struct file **ret)
{
	unsigned flags = args->flags;
	struct file *real = NULL;
	bool change;
	int err = 0;

	if ((flags & O_DIRECTORY) && !S_ISDIR(d->type))
		return -ENOTDIR;
	if (flags & O_PATH)
		return make_file(fs, rp, d, flags, NULL, ret);
	if ((flags & O_TRUNC) && S_ISREG(d->type))
		err = rp_begin_write(rp);
	if (!err)
		err = may_open(fs, rp, d, args);
	if (err)
		return err;
	if (S_ISDIR(d->type))
		return make_file(fs, rp, d, flags, NULL, ret);
	if (!S_ISREG(d->type))
		return open_special(fs, rp, d, flags, ret);
	change = wants_write(flags) || (flags & O_TRUNC);
	if (change)
		err = rp_begin_write(rp);
	if (!err && change)
		err = vfs_may_truncate(&d->base);
	if (!err && change)
		err = overlay_copy_up(fs, d, !(flags & O_TRUNC));
	if (!err && (flags & O_TRUNC))
		err = overlay_truncate(fs, rp, d);
	if (!err)
		err = open_real(fs, d, flags & ~(unsigned)O_TRUNC, args->exec, &real);
	return err ? err : make_file(fs, rp, d, flags, real, ret);
}

static int open_tmpfile(struct overlay_fs *fs, struct resolving_path *rp,
			struct overlay_dentry *dir, const struct open_args *args, struct file **ret)
{
	struct overlay_found found = {.type = S_IFREG, .nlowers = 0};
	struct overlay_dentry *d;
	struct moat_statx st;
	struct vfs_path upper;
	struct vfs_lookup lk;
	struct file *real;
	struct cred *cred;
	int err = S_ISDIR(dir->type) ? rp_begin_write(rp) : -ENOTDIR;

	if (!err)
		err = overlay_may(fs, dir, rp_cred(rp), W_OK | X_OK);
	if (!err)
		err = overlay_copy_up(fs, dir, true);
	if (!err)
		err = overlay_create_cred(fs, rp_cred(rp), &cred);
	if (err)
		return err;
	upper = (struct vfs_path){fs->upper_mount, overlay_upper(dir)};
	lk = overlay_layer_lookup(fs, &upper, "", 0);
	lk.cred = cred;
	err = vfs_open(&lk, args, &real);
	cred_unref(cred);
	if (err)
		return err;
	err = file_stat(real, &(struct stat_args){.mask = OVERLAY_STATX_MASK}, &st);
	if (!err) {
		dentry_ref(real->path.dentry);
		found.upper = real->path.dentry;
		found.ino = overlay_map_ino(fs, fs->upper_fsid, st.ino);
		found.upper_key = fs->upper_mount->fs->ops->inode_key(found.upper);
		err = overlay_dentry_create(fs, dir, "", 0, &found, &d);
		overlay_found_fini(&found);
	}
	if (err) {
		file_unref(real);
		return err;
	}
	err = make_file(fs, rp, d, args->flags, real, ret);
	dentry_unref(&d->base);
	return err;
}

static int may_create_in_sticky(struct overlay_fs *fs, struct resolving_path *rp,
				struct overlay_dentry *dir, struct overlay_dentry *d)
{
	struct perm_inode dpi, pi;
	int err = overlay_perm(fs, dir, &dpi);

	if (err)
		return err;
	err = overlay_perm(fs, d, &pi);
	if (!err) {
		err = vfs_may_create_in_sticky(rp_cred(rp), &dpi, &pi);
		overlay_perm_put(&pi);
	}
	overlay_perm_put(&dpi);
	return err;
}

/* open(2) with O_CREAT: the final component in dir, through final symlinks. */
static int open_create(struct overlay_fs *fs, struct resolving_path *rp,
		       const struct open_args *args, struct file **ret)
{
	struct overlay_dentry *dir, *d;
	struct file *real;
	int err = overlay_walk_parent(fs, rp, &dir);

	if (err)
		return err;
	err = rp_check_open_create(rp, args->flags);
	if (!err && rp_done(rp)) { /* the start, or what ".." led to: it exists */
		err = S_ISDIR(dir->type) ? -EISDIR : open_existing(fs, rp, dir, args, ret);
		goto out_dir;
	}
	if (!err && rp_check_name(rp))
		err = overlay_name_error(dir);
	if (!err)
		err = overlay_lookup(fs, dir, rp_component(rp), rp_component_len(rp), &d);
	if (err == -ENOENT) {
		err = overlay_create_file(fs, rp, dir, args, &d, &real);
		if (!err) {
			err = make_file(fs, rp, d, args->flags, real, ret);
			if (!err)
				(*ret)->mode |= FILE_CREATED;
			dentry_unref(&d->base);
		}
		goto out_dir;
	}
	if (err)
		goto out_dir;
	/* Where a mount may not be crossed that is said first. */
	if ((args->flags & O_EXCL) && !(rp->flags & LOOKUP_NO_XDEV))
		err = -EEXIST;
	if (!err)
		err = rp_check_mount(rp, &d->base);
	if (!err && (args->flags & O_EXCL))
		err = -EEXIST;
	if (!err && S_ISLNK(d->type) && rp_should_follow(rp)) {
		err = overlay_follow(fs, rp, dir, d);
		if (!err) {
			/* The target is relative to dir: go on from there. */
			rp->start = &dir->base;
			rp_hold(rp, &dir->base);
			dentry_unref(&d->base);
			return open_create(fs, rp, args, ret);
		}
	} else if (!err) {
		err = S_ISDIR(d->type) ? -EISDIR : may_create_in_sticky(fs, rp, dir, d);
		if (!err)
			err = open_existing(fs, rp, d, args, ret);
	}
	dentry_unref(&d->base);
out_dir:
	dentry_unref(&dir->base);
	return err;
}

int overlay_open_at(struct filesystem *base, struct resolving_path *rp,
		    const struct open_args *args, struct file **ret_file)
{
	struct overlay_fs *fs = overlay_fs_of(base);
	struct overlay_dentry *d;
	int err;

	if ((args->flags & O_CREAT) && !(args->flags & O_PATH))
		return open_create(fs, rp, args, ret_file);
	err = overlay_walk(fs, rp, &d);
	if (err)
		return err;
	if ((args->flags & O_TMPFILE) == O_TMPFILE && !(args->flags & O_PATH))
		err = open_tmpfile(fs, rp, d, args, ret_file);
	else
		err = open_existing(fs, rp, d, args, ret_file);
	dentry_unref(&d->base);
	return err;
}
