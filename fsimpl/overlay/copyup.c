/*
 * fsimpl/overlay/copyup.c - from a lower layer to the upper one.
 *
 * A file is made without a name (O_TMPFILE), filled, given its attributes, and then linked into place: nobody sees it half done,
 * and what is interrupted leaves nothing. Directories and the rest are small enough to be made in place under fs->change.
 */
#include <fcntl.h>
#include <linux/stat.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fsimpl/overlay/internal.h"

#define COPY_CHUNK (256u << 10)
#define XATTR_LIST_MAX 65536

int overlay_create_cred(struct overlay_fs *fs, const struct cred *caller, struct cred **ret)
{
	struct cred *c;
	int err = cred_prepare(fs->cred, &c);

	if (err)
		return err;
	c->fsuid = caller->fsuid;
	c->fsgid = caller->fsgid;
	cred_commit(c);
	*ret = c;
	return 0;
}

static int copy_one_xattr(const struct vfs_lookup *from, const struct vfs_lookup *to,
			  const char *name, char *value)
{
	ssize_t size;
	int err;

	if (strncmp(name, OVERLAY_XATTR_PREFIX, strlen(OVERLAY_XATTR_PREFIX)) == 0)
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
		err = copy_one_xattr(&from, &to, n, names + XATTR_LIST_MAX);
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

/* Owner, mode, times of st; xattrs of the lower file; the origin's inode number. Times last, since the others change them. */
static int copy_attributes(struct overlay_fs *fs, struct overlay_dentry *d,
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
		err = copy_xattrs(fs, &d->lowers[0], to);
	if (!err && !S_ISLNK(st->mode))
		err = vfs_set_xattr(&lk, &(struct xattr_args){.name = OVERLAY_ORIGIN_XATTR,
							      .value = &d->ino,
							      .size = sizeof(d->ino)});
	if (err == -EOPNOTSUPP)
		err = 0;
	if (S_ISLNK(st->mode))
		rest.valid &= ~(unsigned)SETATTR_MODE;
	return err ? err : vfs_set_stat(&lk, &rest);
}

static int copy_up_file(struct overlay_fs *fs, struct overlay_dentry *d,
			const struct vfs_path *parent, const struct moat_statx *st, bool data)
{
	struct vfs_lookup from_lk = overlay_layer_lookup(fs, &d->lowers[0], "", 0);
	struct vfs_lookup tmp_lk = overlay_layer_lookup(fs, parent, "", 0),
			  to_lk = overlay_layer_lookup(fs, parent, d->name, 0);
	struct vfs_lookup link_lk;
	struct file *from = NULL, *to;
	int err;

	err = vfs_open(&tmp_lk, &(struct open_args){.flags = O_TMPFILE | O_RDWR, .mode = 0600},
		       &to);
	if (err)
		return err;
	if (data && st->size) {
		err = vfs_open(&from_lk, &(struct open_args){.flags = O_RDONLY | O_NOATIME}, &from);
		if (!err)
			err = copy_data(from, to, st->size);
	}
	if (!err)
		err = copy_attributes(fs, d, &to->path, st);
	if (!err) {
		link_lk = overlay_layer_lookup(fs, &to->path, "", 0);
		err = vfs_link(&link_lk, &to_lk);
	}
	if (from)
		file_unref(from);
	file_unref(to);
	return err;
}

static int copy_up_symlink(struct overlay_fs *fs, struct overlay_dentry *d,
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

/* d's parent is in the upper layer; fs->change is held. */
static int copy_up_one(struct overlay_fs *fs, struct overlay_dentry *d, bool data)
{
	struct vfs_path parent = {fs->upper_mount, overlay_upper(d->parent)}, made;
	struct vfs_lookup to = overlay_layer_lookup(fs, &parent, d->name, 0);
	struct moat_statx st, pst;
	int err = overlay_stat_real(fs, d, &st);

	if (err)
		return err;
	err = overlay_stat_real(fs, d->parent, &pst);
	if (err)
		return err;
	switch (d->type) {
	case S_IFREG:
		err = copy_up_file(fs, d, &parent, &st, data);
		break;
	case S_IFDIR:
		err = vfs_mkdir(&to, &(struct mkdir_args){.mode = 0700});
		break;
	case S_IFLNK:
		err = copy_up_symlink(fs, d, &to);
		break;
	default:
		err = vfs_mknod(&to, &(struct mknod_args){.mode = st.mode,
							  .rdev_major = st.rdev_major,
							  .rdev_minor = st.rdev_minor});
	}
	if (!err)
		err = vfs_get_path(&to, &made);
	if (err)
		return err;
	if (d->type != S_IFREG)
		err = copy_attributes(fs, d, &made, &st);
	if (err) {
		vfs_path_unref(&made);
		return err;
	}
	/* The upper directory's times must not tell of the copy. */
	struct vfs_lookup plk = overlay_layer_lookup(fs, &parent, "", 0);
	err = vfs_set_stat(&plk, &(struct setattr_args){.valid = SETATTR_ATIME | SETATTR_MTIME,
							.atime = pst.atime,
							.mtime = pst.mtime});
	/* Pairs with overlay_upper()'s acquire. */
	atomic_store_explicit(&d->upper, made.dentry, memory_order_release);
	mount_unref(made.mount);
	return err;
}

int overlay_copy_up(struct overlay_fs *fs, struct overlay_dentry *d, bool data)
{
	int err;

	if (overlay_upper(d))
		return 0;
	if (!fs->upper_mount)
		return -EROFS;
	err = op_lock_killable(&fs->change);
	if (err)
		return err;
	while (!err && !overlay_upper(d)) {
		struct overlay_dentry *top = d;

		/* Parents are stable under fs->change. The root always has an upper. */
		while (!overlay_upper(top->parent))
			top = top->parent;
		if (top == d && (atomic_load(&d->base.flags) & DENTRY_DEAD))
			err = -ENOENT;
		else
			err = copy_up_one(fs, top, data || top != d);
	}
	op_unlock(&fs->change);
	return err;
}
