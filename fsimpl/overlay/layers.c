/*
 * fsimpl/overlay/layers.c - names in the layers: what wins, what is hidden, whiteouts and opaque directories.
 */
#include <fcntl.h>
#include <string.h>

#include "fsimpl/overlay/internal.h"

struct vfs_lookup overlay_layer_lookup(struct overlay_fs *fs, const struct vfs_path *place,
				       const char *name, unsigned flags)
{
	return (struct vfs_lookup){.cred = fs->cred,
				   .root = *place,
				   .start = *place,
				   .path = name,
				   .flags = flags | (*name ? 0 : LOOKUP_EMPTY)};
}

struct vfs_path overlay_real(struct overlay_dentry *d)
{
	struct dentry *upper = overlay_upper(d);

	if (upper)
		return (struct vfs_path){overlay_fs_of_dentry(d)->upper_mount, upper};
	return d->lowers[0];
}

bool overlay_is_whiteout(const struct moat_statx *st)
{
	return S_ISCHR(st->mode) && st->rdev_major == 0 && st->rdev_minor == 0;
}

static int stat_place(struct overlay_fs *fs, const struct vfs_path *place, struct moat_statx *ret)
{
	struct vfs_lookup lk = overlay_layer_lookup(fs, place, "", 0);

	return vfs_stat(&lk, &(struct stat_args){.mask = OVERLAY_STATX_MASK}, ret);
}

int overlay_stat_real(struct overlay_fs *fs, struct overlay_dentry *d, struct moat_statx *ret)
{
	struct vfs_path real = overlay_real(d);

	return stat_place(fs, &real, ret);
}

/* The overlay's own identity instead of the layer's. */
void overlay_attr(struct overlay_fs *fs, struct overlay_dentry *d, struct moat_statx *inout)
{
	inout->ino = d->ino;
	inout->dev_major = 0;
	inout->dev_minor = fs->base.dev_minor;
	if (S_ISDIR(d->type) && (d->nlowers > 1 || (d->nlowers && overlay_upper(d))))
		inout->nlink = 1; /* merged: nobody counts subdirectories, as on Linux */
}

int overlay_perm(struct overlay_fs *fs, struct overlay_dentry *d, struct perm_inode *ret)
{
	struct moat_statx st;
	int err = overlay_stat_real(fs, d, &st);

	if (!err)
		*ret = (struct perm_inode){.mode = st.mode, .uid = st.uid, .gid = st.gid};
	return err;
}

static bool is_opaque(struct overlay_fs *fs, const struct vfs_path *dir)
{
	struct vfs_lookup lk = overlay_layer_lookup(fs, dir, "", 0);
	char value[2] = "";

	return vfs_get_xattr(&lk, &(struct xattr_args){.name = OVERLAY_OPAQUE_XATTR,
						       .value = value,
						       .size = sizeof(value)}) == 1 &&
	       value[0] == 'y';
}

int overlay_set_opaque(struct overlay_fs *fs, const struct vfs_path *upper_dir)
{
	struct vfs_lookup lk = overlay_layer_lookup(fs, upper_dir, "", 0);

	return vfs_set_xattr(&lk, &(struct xattr_args){.name = OVERLAY_OPAQUE_XATTR,
						       .value = (char[]){'y'},
						       .size = 1});
}

/* A copied-up file keeps the inode number that it had below. */
static uint64_t upper_ino(struct overlay_fs *fs, const struct vfs_path *place, uint64_t ino)
{
	struct vfs_lookup lk = overlay_layer_lookup(fs, place, "", 0);
	uint64_t origin;

	if (vfs_get_xattr(&lk, &(struct xattr_args){.name = OVERLAY_ORIGIN_XATTR,
						    .value = &origin,
						    .size = sizeof(origin)}) == sizeof(origin))
		return origin;
	return ino | OVERLAY_UPPER_INO;
}

/* name in the upper part of dir. 1: found and nothing below shows through; 0: go on below; -ENOENT: a whiteout ends it. */
static int find_upper(struct overlay_fs *fs, struct overlay_dentry *dir, const char *name,
		      struct overlay_found *f)
{
	struct dentry *upper = overlay_upper(dir);
	struct vfs_path place = {fs->upper_mount, upper}, found;
	struct vfs_lookup lk = overlay_layer_lookup(fs, &place, name, 0);
	struct moat_statx st;
	int err;

	if (!upper)
		return 0;
	err = vfs_get_path(&lk, &found);
	if (err)
		return err == -ENOENT ? 0 : err;
	err = stat_place(fs, &found, &st);
	if (!err && overlay_is_whiteout(&st))
		err = -ENOENT;
	if (err) {
		vfs_path_unref(&found);
		return err;
	}
	f->upper = found.dentry;
	f->type = st.mode & S_IFMT;
	f->ino = upper_ino(fs, &found, st.ino);
	err = !S_ISDIR(st.mode) || is_opaque(fs, &found);
	mount_unref(found.mount);
	return err;
}

/* name in one lower directory. 1: nothing further below shows through; 0: go on; -errno. */
static int find_lower(struct overlay_fs *fs, const struct vfs_path *dir, const char *name,
		      struct overlay_found *f)
{
	struct vfs_lookup lk = overlay_layer_lookup(fs, dir, name, 0);
	struct vfs_path found;
	struct moat_statx st;
	int err = vfs_get_path(&lk, &found);

	if (err)
		return err == -ENOENT ? 0 : err;
	err = stat_place(fs, &found, &st);
	if (err || overlay_is_whiteout(&st) || (f->type && !S_ISDIR(st.mode))) {
		vfs_path_unref(&found);
		return err ? err : 1;
	}
	if (!f->type) {
		f->type = st.mode & S_IFMT;
		f->ino = st.ino;
	}
	f->lowers[f->nlowers++] = found;
	return !S_ISDIR(st.mode) || is_opaque(fs, &found);
}

int overlay_layers_find(struct overlay_fs *fs, struct overlay_dentry *dir, const char *name,
			struct overlay_found *ret)
{
	int err;

	memset(ret, 0, offsetof(struct overlay_found, lowers));
	ret->nlowers = 0;
	ret->type = 0;
	err = find_upper(fs, dir, name, ret);
	for (unsigned i = 0; err == 0 && i < dir->nlowers; i++)
		err = find_lower(fs, &dir->lowers[i], name, ret);
	if (err >= 0)
		err = ret->type ? 0 : -ENOENT;
	if (err)
		overlay_found_fini(ret);
	return err;
}

int overlay_in_lower(struct overlay_fs *fs, struct overlay_dentry *dir, const char *name)
{
	struct overlay_found f = {.nlowers = 0};
	int err = 0;

	for (unsigned i = 0; err == 0 && i < dir->nlowers; i++)
		err = find_lower(fs, &dir->lowers[i], name, &f);
	if (err >= 0)
		err = f.nlowers > 0;
	overlay_found_fini(&f);
	return err;
}

int overlay_whiteout_make(struct overlay_fs *fs, struct overlay_dentry *dir, const char *name)
{
	struct vfs_path place = {fs->upper_mount, overlay_upper(dir)};
	struct vfs_lookup lk = overlay_layer_lookup(fs, &place, name, 0);

	return vfs_mknod(&lk, &(struct mknod_args){.mode = S_IFCHR});
}

int overlay_whiteout_remove(struct overlay_fs *fs, struct overlay_dentry *dir, const char *name)
{
	struct vfs_path place = {fs->upper_mount, overlay_upper(dir)};
	struct vfs_lookup lk = overlay_layer_lookup(fs, &place, name, 0);
	struct moat_statx st;
	int err;

	if (!dir->nlowers)
		return 0;
	err = vfs_stat(&lk, &(struct stat_args){.mask = OVERLAY_STATX_MASK}, &st);
	if (err)
		return err == -ENOENT ? 0 : err;
	if (!overlay_is_whiteout(&st))
		return 0;
	err = vfs_unlink(&lk);
	return err ? err : 1;
}

int overlay_lookup(struct overlay_fs *fs, struct overlay_dentry *dir, const char *name, size_t len,
		   struct overlay_dentry **ret)
{
	char copy[VFS_NAME_MAX + 1];
	struct overlay_found found;
	struct overlay_dentry *d;
	int err;

	memcpy(copy, name, len);
	copy[len] = '\0';
	for (unsigned tries = 0;; tries++) {
		uint64_t gen = atomic_load(&dir->gen);

		d = overlay_child_find(dir, name, len);
		if (d)
			break;
		/* Lost too many races: keep changes out. */
		if (tries == OVERLAY_LOOKUP_TRIES) {
			err = op_lock_killable(&fs->change);
			if (err)
				return err;
		}
		err = overlay_layers_find(fs, dir, copy, &found);
		if (!err) {
			err = overlay_dentry_create(fs, dir, name, len, &found, &d);
			overlay_found_fini(&found);
		}
		if (!err)
			d = overlay_child_insert(dir, d, gen);
		if (tries == OVERLAY_LOOKUP_TRIES)
			op_unlock(&fs->change);
		if (err) {
			if (err == -ENOENT && atomic_load(&dir->gen) != gen &&
			    tries < OVERLAY_LOOKUP_TRIES)
				continue;
			return err;
		}
		if (d || tries == OVERLAY_LOOKUP_TRIES)
			break;
	}
	*ret = d;
	return d ? 0 : -ENOENT;
}
