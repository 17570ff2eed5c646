/*
 * fsimpl/overlay/copyup.c - from a lower layer to the upper one.
 *
 * A copy is made in the work directory, filled, given its attributes, and then renamed into place: nobody sees it half done, and
 * what is interrupted leaves nothing but a file in the work directory. Hard links of a lower file part here, as on Linux
 * without an index: each name is copied for itself and gets a number of its own.
 */
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/stat.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fsimpl/overlay/internal.h"

#define COPY_CHUNK (256u << 10)
#define XATTR_LIST_MAX 65536

int overlay_create_cred(struct overlay_fs *fs, const struct cred *caller, struct cred **ret)
{
	const uint64_t fsetid = 1ull << CAP_FSETID;
	struct cred *c;
	int err = cred_prepare(caller, &c);

	if (err)
		return err;
	/* Setgid of a new file is judged by the caller's groups and capability. */
	c->cap_effective = (fs->cred->cap_effective & ~fsetid) | (caller->cap_effective & fsetid);
	cred_commit(c);
	*ret = c;
	return 0;
}

static int copy_one_xattr(struct overlay_fs *fs, const struct vfs_lookup *from,
			  const struct vfs_lookup *to, const char *name, char *value)
{
	ssize_t size;
	int err;

	if (overlay_is_mark(fs, name))
		return 0;
	size = vfs_get_xattr(from, &(struct xattr_args){.name = name,
							.value = value,
							.size = VFS_XATTR_SIZE_MAX});
	if (size < 0)
		return size == -ENODATA ? 0 : (int)size;
	err = vfs_set_xattr(
		to, &(struct xattr_args){.name = name, .value = value, .size = (size_t)size});
	/* The upper cannot hold this kind: as Linux, not a reason to fail. */
	return err == -EOPNOTSUPP ? 0 : err;
}

static int copy_xattrs(struct overlay_fs *fs, const struct vfs_path *from_place,
		       const struct vfs_path *to_place)
{
	struct vfs_lookup from = overlay_layer_lookup(fs, from_place, "", 0),
			  to = overlay_layer_lookup(fs, to_place, "", 0);
	char *names = malloc(XATTR_LIST_MAX + VFS_XATTR_SIZE_MAX);
	ssize_t size;
	int err = 0;

	if (!names)
		return -ENOMEM;
	size = vfs_list_xattr(&from, names, XATTR_LIST_MAX);
	if (size < 0)
		err = size == -EOPNOTSUPP ? 0 : (int)size;
	for (char *n = names; !err && size > 0 && n < names + size; n += strlen(n) + 1)
		err = copy_one_xattr(fs, &from, &to, n, names + XATTR_LIST_MAX);
	free(names);
	return err;
}

static int copy_data(struct file *from, struct file *to, uint64_t size)
{
	char *buf = malloc(COPY_CHUNK);
	uint64_t off = 0;
	int err = buf ? 0 : -ENOMEM;

	while (!err && off < size) {
		/* Holes stay holes where the lower layer tells. */
		int64_t data = file_seek(from, (int64_t)off, SEEK_DATA);
		ssize_t n;

		if (data == -ENXIO)
			break;
		if (data > (int64_t)off)
			off = (uint64_t)data;
		n = file_read_kernel(from, buf, MIN((uint64_t)COPY_CHUNK, size - off), off);
		if (n > 0)
			n = file_write_kernel(to, buf, (size_t)n, off);
		if (n <= 0) {
			err = (int)n;
			break;
		}
		off += (uint64_t)n;
	}
	free(buf);
	return err ? err : file_truncate(to, size);
}

/* Owner, xattrs, mode, times of st. Times last, since the others change them. */
static int copy_attributes(struct overlay_fs *fs, const struct vfs_path *from,
			   const struct vfs_path *to, const struct moat_statx *st)
{
	struct vfs_lookup lk = overlay_layer_lookup(fs, to, "", 0);
	struct setattr_args owner = {
		.valid = SETATTR_UID | SETATTR_GID, .uid = st->uid, .gid = st->gid};
	struct setattr_args rest = {.valid = SETATTR_MODE | SETATTR_ATIME | SETATTR_MTIME,
				    .mode = st->mode & 07777,
				    .atime = st->atime,
				    .mtime = st->mtime};
	int err = vfs_set_stat(&lk, &owner);

	if (!err)
		err = copy_xattrs(fs, from, to);
	if (S_ISLNK(st->mode))
		rest.valid &= ~(unsigned)SETATTR_MODE;
	return err ? err : vfs_set_stat(&lk, &rest);
}

struct vfs_lookup overlay_work_lookup(struct overlay_fs *fs, char *name)
{
	struct vfs_path work = {fs->upper_mount, fs->work};

	snprintf(name, OVERLAY_WORK_NAME_SIZE, "#%x", atomic_fetch_add(&fs->work_next, 1));
	return overlay_layer_lookup(fs, &work, name, 0);
}

int overlay_clear_dir(struct overlay_fs *fs, const struct vfs_lookup *lk)
{
	struct overlay_dirent *entries;
	struct vfs_path dir;
	size_t count;
	int err = vfs_get_path(lk, &dir);

	if (err)
		return err;
	err = overlay_list_layer(fs, &dir, &entries, &count);
	if (!err) {
		for (size_t i = 0; !err && i < count; i++) {
			struct vfs_lookup entry =
				overlay_layer_lookup(fs, &dir, entries[i].name, 0);

			err = vfs_unlink(&entry);
		}
		overlay_dirents_free(entries, count);
	}
	vfs_path_unref(&dir);
	return err ? err : vfs_rmdir(lk);
}

int overlay_set_impure(struct overlay_fs *fs, struct overlay_dentry *dir)
{
	struct vfs_path upper = {fs->upper_mount, overlay_upper(dir)};
	int err;

	if (dir->impure)
		return 0;
	err = overlay_mark_set(fs, &upper, "impure", "y", 1);
	/* Without xattrs a copied-up file has no origin either. */
	if (!err || err == -EOPNOTSUPP)
		dir->impure = true;
	return err == -EOPNOTSUPP ? 0 : err;
}

static int copy_symlink(struct overlay_fs *fs, struct overlay_dentry *d,
			const struct vfs_lookup *to)
{
	struct vfs_lookup from = overlay_layer_lookup(fs, &d->lowers[0], "", 0);
	char *target = malloc(VFS_PATH_MAX);
	size_t len;
	int err = target ? vfs_readlink(&from, target, VFS_PATH_MAX - 1, &len) : -ENOMEM;

	if (!err) {
		target[len] = '\0';
		err = vfs_symlink(to, target);
	}
	free(target);
	return err;
}

static int copy_file(struct overlay_fs *fs, struct overlay_dentry *d, const struct vfs_lookup *to,
		     const struct moat_statx *st, bool data)
{
	struct vfs_lookup from_lk = overlay_layer_lookup(fs, &d->lowers[0], "", 0);
	struct open_args create = {.flags = O_CREAT | O_EXCL | O_RDWR, .mode = 0600};
	struct file *from, *file;
	int err = vfs_open(to, &create, &file);

	if (err)
		return err;
	if (data && st->size) {
		err = vfs_open(&from_lk, &(struct open_args){.flags = O_RDONLY | O_NOATIME}, &from);
		if (!err) {
			err = copy_data(from, file, st->size);
			file_unref(from);
		}
	}
	if (!err && !fs->config.is_volatile)
		err = file_fsync(file, false, 0, INT64_MAX);
	file_unref(file);
	return err;
}

/* The copy, complete, in the work directory: *ret is its place (references). */
static int copy_to_work(struct overlay_fs *fs, struct overlay_dentry *d,
			const struct vfs_lookup *work, const struct moat_statx *st, bool data,
			struct vfs_path *ret)
{
	uint64_t ino = atomic_load(&d->inode->ino);
	int err;

	switch (d->type) {
	case S_IFREG:
		err = copy_file(fs, d, work, st, data);
		break;
	case S_IFDIR:
		err = vfs_mkdir(work, &(struct mkdir_args){.mode = 0700});
		break;
	case S_IFLNK:
		err = copy_symlink(fs, d, work);
		break;
	default:
		err = vfs_mknod(work, &(struct mknod_args){.mode = st->mode,
							   .rdev_major = st->rdev_major,
							   .rdev_minor = st->rdev_minor});
	}
	if (!err)
		err = vfs_get_path(work, ret);
	if (err)
		return err;
	/* user.* cannot mark what is neither file nor directory. Broken hard links have no origin. */
	if (st->nlink <= 1 || S_ISDIR(st->mode)) {
		err = overlay_mark_set(fs, ret, "origin", &ino, sizeof(ino));
		if (err == -EOPNOTSUPP || err == -EPERM)
			err = 0;
	}
	if (!err)
		err = copy_attributes(fs, &d->lowers[0], ret, st);
	if (err)
		vfs_path_unref(ret);
	return err;
}

/* d's parent is in the upper layer; fs->change is held. */
static int copy_up_one(struct overlay_fs *fs, struct overlay_dentry *d, bool data)
{
	struct overlay_dentry *dir = overlay_parent(d);
	struct vfs_path parent = {fs->upper_mount, overlay_upper(dir)}, made;
	struct vfs_lookup to = overlay_layer_lookup(fs, &parent, overlay_name(d)->s, 0), work;
	struct vfs_lookup parent_lk = overlay_layer_lookup(fs, &parent, "", 0);
	char name[OVERLAY_WORK_NAME_SIZE];
	struct moat_statx st, pst, now;
	int err = overlay_stat_real(fs, d, &st);

	if (!err)
		err = overlay_stat_real(fs, dir, &pst);
	if (err)
		return err;
	work = overlay_work_lookup(fs, name);
	err = copy_to_work(fs, d, &work, &st, data, &made);
	if (err)
		goto out_work;
	err = overlay_set_impure(fs, dir);
	if (!err)
		err = vfs_rename(&work, &to, &(struct rename_args){.flags = RENAME_NOREPLACE});
	if (!err)
		err = overlay_stat_place(fs, &made, &now);
	if (err) {
		vfs_path_unref(&made);
		goto out_work;
	}
	/* The upper directory's times must not tell of the copy. */
	err = vfs_set_stat(&parent_lk,
			   &(struct setattr_args){.valid = SETATTR_ATIME | SETATTR_MTIME,
						  .atime = pst.atime,
						  .mtime = pst.mtime});
	overlay_inode_set_upper(fs, d, made.dentry, overlay_upper_ino(fs, &made, now.ino));
	/* Pairs with overlay_upper()'s acquire. */
	atomic_store_explicit(&d->upper, made.dentry, memory_order_release);
	mount_unref(made.mount);
	return err;
out_work:
	if (S_ISDIR(d->type))
		(void)!vfs_rmdir(&work);
	else
		(void)!vfs_unlink(&work);
	return err;
}

int overlay_copy_up(struct overlay_fs *fs, struct overlay_dentry *d, bool data)
{
	int err;

	if (overlay_upper(d))
		return 0;
	if (!fs->work)
		return -EROFS;
	err = op_lock_killable(&fs->change);
	if (err)
		return err;
	while (!err && !overlay_upper(d)) {
		struct overlay_dentry *top = d;

		/* Parents are stable under fs->change. The root always has an upper. */
		while (!overlay_upper(overlay_parent(top)))
			top = overlay_parent(top);
		if (top == d && (atomic_load(&d->base.flags) & DENTRY_DEAD))
			err = -ENOENT;
		else
			err = copy_up_one(fs, top, data || top != d);
	}
	op_unlock(&fs->change);
	return err;
}
