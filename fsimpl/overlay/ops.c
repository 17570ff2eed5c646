/*
 * fsimpl/overlay/ops.c - the overlay filesystem: walks, attributes, xattrs; its type and its creation.
 *
 * How it performs: a walk costs a tree lookup a component while the dentries are cached, otherwise a lookup in each layer of the
 * directory. Permission checks ask the topmost layer for attributes. What it cannot do: POSIX ACLs in layers are stored and shown but
 * not evaluated; directories with a lower part cannot be renamed (-EXDEV); hard links of a lower file separate at copy-up.
 */
#include <fcntl.h>
#include <linux/stat.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fsimpl/memfs/memfs.h"
#include "fsimpl/overlay/internal.h"

#define OVERLAY_MAGIC 0x794c7630

static int may_search(struct overlay_fs *fs, struct resolving_path *rp, struct overlay_dentry *dir)
{
	struct perm_inode pi;
	int err;

	if (!S_ISDIR(dir->type))
		return -ENOTDIR;
	err = overlay_perm(fs, dir, &pi);
	return err ? err : vfs_permission(rp_cred(rp), &pi, X_OK);
}

static int follow(struct overlay_fs *fs, struct resolving_path *rp, struct overlay_dentry *dir,
		  struct overlay_dentry *link)
{
	struct vfs_path real = overlay_real(link);
	struct vfs_lookup lk = overlay_layer_lookup(fs, &real, "", 0);
	char *target = malloc(VFS_PATH_MAX);
	struct perm_inode dpi, lpi;
	size_t len;
	int err = target ? 0 : -ENOMEM;

	if (!err)
		err = overlay_perm(fs, dir, &dpi);
	if (!err)
		err = overlay_perm(fs, link, &lpi);
	if (!err)
		err = vfs_may_follow_link(rp_cred(rp), &dpi, &lpi);
	if (!err)
		err = vfs_readlink(&lk, target, VFS_PATH_MAX - 1, &len);
	if (!err)
		err = rp_follow_symlink(rp, target, len);
	free(target);
	return err;
}

/* One component from *inout_d (a reference) on. 0, -errno, restart; *inout_d stays a reference in any case. */
static int step(struct overlay_fs *fs, struct resolving_path *rp, struct overlay_dentry **inout_d)
{
	struct overlay_dentry *d = *inout_d, *child;
	int err = may_search(fs, rp, d);

	if (err)
		return err;
	if (rp_is_dotdot(rp)) {
		err = rp_check_root(rp, &d->base);
		if (err == RP_STAY || (!err && !d->parent)) {
			rp_advance(rp);
			return 0;
		}
		if (err)
			return err;
		mutex_lock(&fs->base.rename_lock);
		child = d->parent;
		dentry_ref(&child->base);
		mutex_unlock(&fs->base.rename_lock);
	} else {
		err = rp_check_name(rp);
		if (!err)
			err = overlay_lookup(fs, d, rp_component(rp), rp_component_len(rp), &child);
		if (err)
			return err;
	}
	err = rp_check_mount(rp, &child->base);
	if (err) {
		dentry_unref(&child->base); /* a restart has its own references */
		return err;
	}
	if (S_ISLNK(child->type) && rp_should_follow(rp)) {
		err = follow(fs, rp, d, child);
		dentry_unref(&child->base);
		return err;
	}
	rp_advance(rp);
	*inout_d = child;
	dentry_unref(&d->base);
	return 0;
}

static struct overlay_dentry *walk_start(struct resolving_path *rp)
{
	struct overlay_dentry *d = overlay_of(rp_start(rp));

	dentry_ref(&d->base);
	return d;
}

int overlay_walk(struct overlay_fs *fs, struct resolving_path *rp, struct overlay_dentry **ret)
{
	struct overlay_dentry *d = walk_start(rp);
	int err = 0;

	while (!err && !rp_done(rp))
		err = step(fs, rp, &d);
	if (!err && rp_must_dir(rp) && !S_ISDIR(d->type))
		err = -ENOTDIR;
	if (!err && rp->final_dot)
		err = may_search(fs, rp, d);
	if (err) {
		dentry_unref(&d->base);
		return err;
	}
	*ret = d;
	return 0;
}

int overlay_walk_parent(struct overlay_fs *fs, struct resolving_path *rp,
			struct overlay_dentry **ret)
{
	struct overlay_dentry *d = walk_start(rp);
	int err = 0;

	while (!err && !rp_done(rp) && !rp_final(rp))
		err = step(fs, rp, &d);
	if (!err)
		err = may_search(fs, rp, d);
	if (err) {
		dentry_unref(&d->base);
		return err;
	}
	*ret = d;
	return 0;
}

static int overlay_get_dentry_at(struct filesystem *base, struct resolving_path *rp,
				 struct dentry **ret)
{
	struct overlay_dentry *d;
	int err = overlay_walk(overlay_fs_of(base), rp, &d);

	if (!err)
		*ret = &d->base;
	return err;
}

static int overlay_stat_at(struct filesystem *base, struct resolving_path *rp,
			   const struct stat_args *args, struct moat_statx *ret)
{
	struct overlay_fs *fs = overlay_fs_of(base);
	struct overlay_dentry *d;
	struct vfs_path real;
	struct vfs_lookup lk;
	int err = overlay_walk(fs, rp, &d);

	if (err)
		return err;
	real = overlay_real(d);
	lk = overlay_layer_lookup(fs, &real, "", 0);
	err = vfs_stat(&lk, args, ret);
	if (!err)
		overlay_attr(fs, d, ret);
	dentry_unref(&d->base);
	return err;
}

static int overlay_set_stat_at(struct filesystem *base, struct resolving_path *rp,
			       const struct setattr_args *args)
{
	struct overlay_fs *fs = overlay_fs_of(base);
	struct setattr_args change = *args;
	struct overlay_dentry *d;
	struct perm_inode pi;
	int err = overlay_walk(fs, rp, &d);

	if (err)
		return err;
	err = overlay_perm(fs, d, &pi);
	if (!err)
		err = rp_begin_write(rp);
	if (!err && (args->valid & SETATTR_SIZE) && !S_ISREG(d->type))
		err = S_ISDIR(d->type) ? -EISDIR : -EINVAL;
	if (!err && (args->valid & SETATTR_SIZE) && !(args->valid & (SETATTR_FILE | SETATTR_OPEN)))
		err = vfs_permission(rp_cred(rp), &pi, W_OK);
	if (!err)
		err = vfs_may_setattr(rp_cred(rp), &pi, &change);
	if (!err)
		err = overlay_copy_up(fs, d, !((args->valid & SETATTR_SIZE) && args->size == 0));
	if (!err) {
		struct vfs_path real = overlay_real(d);
		struct vfs_lookup lk = overlay_layer_lookup(fs, &real, "", 0);

		err = vfs_set_stat(&lk, &change);
	}
	dentry_unref(&d->base);
	return err;
}

static int overlay_access_at(struct filesystem *base, struct resolving_path *rp, int mask)
{
	struct overlay_fs *fs = overlay_fs_of(base);
	struct overlay_dentry *d;
	struct perm_inode pi;
	int err = overlay_walk(fs, rp, &d);

	if (err)
		return err;
	err = overlay_perm(fs, d, &pi);
	if (!err && (mask & W_OK) && (S_ISREG(d->type) || S_ISDIR(d->type) || S_ISLNK(d->type)))
		err = rp_begin_write(rp);
	if (!err && (mask & X_OK) && S_ISREG(d->type) &&
	    (atomic_load(&rp_mount(rp)->flags) & MNT_NOEXEC_F))
		err = -EACCES;
	if (!err)
		err = vfs_permission(rp_cred(rp), &pi, mask);
	dentry_unref(&d->base);
	return err;
}

static int overlay_readlink_at(struct filesystem *base, struct resolving_path *rp, char *buf,
			       size_t size, size_t *ret_len)
{
	struct overlay_fs *fs = overlay_fs_of(base);
	struct overlay_dentry *d;
	struct vfs_path real;
	struct vfs_lookup lk;
	int err = overlay_walk(fs, rp, &d);

	if (err)
		return err;
	real = overlay_real(d);
	lk = overlay_layer_lookup(fs, &real, "", 0);
	err = vfs_readlink(&lk, buf, size, ret_len);
	dentry_unref(&d->base);
	return err;
}

static int overlay_statfs(struct filesystem *base, struct dentry *dentry, struct statfs *ret)
{
	struct overlay_fs *fs = overlay_fs_of(base);
	struct vfs_path real = overlay_real(overlay_of(dentry));
	int err;

	if (fs->upper_mount)
		real = (struct vfs_path){fs->upper_mount, overlay_upper(fs->root)};
	err = vfs_statfs(&real, ret);
	if (!err)
		ret->f_type = OVERLAY_MAGIC;
	return err;
}

static bool is_private_xattr(const char *name)
{
	return strncmp(name, OVERLAY_XATTR_PREFIX, strlen(OVERLAY_XATTR_PREFIX)) == 0;
}

/* Walks, checks, and gives the lookup of the real file. *ret_d: a reference. */
static int xattr_begin(struct overlay_fs *fs, struct resolving_path *rp, const char *name,
		       bool write, struct overlay_dentry **ret_d, struct vfs_lookup *ret_lk,
		       struct vfs_path *ret_real)
{
	struct overlay_dentry *d;
	struct perm_inode pi;
	int err = overlay_walk(fs, rp, &d);

	if (err)
		return err;
	err = overlay_perm(fs, d, &pi);
	if (!err && name)
		err = is_private_xattr(name) ? (write ? -EPERM : -ENODATA)
					     : vfs_may_xattr(rp_cred(rp), &pi, name, write);
	if (!err && write)
		err = rp_begin_write(rp);
	if (!err && write)
		err = overlay_copy_up(fs, d, true);
	if (err) {
		dentry_unref(&d->base);
		return err;
	}
	*ret_real = overlay_real(d);
	*ret_lk = overlay_layer_lookup(fs, ret_real, "", 0);
	*ret_d = d;
	return 0;
}

static ssize_t overlay_get_xattr_at(struct filesystem *base, struct resolving_path *rp,
				    const struct xattr_args *args)
{
	struct overlay_dentry *d;
	struct vfs_lookup lk;
	struct vfs_path real;
	ssize_t ret = xattr_begin(overlay_fs_of(base), rp, args->name, false, &d, &lk, &real);

	if (ret)
		return ret;
	ret = vfs_get_xattr(&lk, args);
	dentry_unref(&d->base);
	return ret;
}

static int overlay_set_xattr_at(struct filesystem *base, struct resolving_path *rp,
				const struct xattr_args *args)
{
	struct overlay_dentry *d;
	struct vfs_lookup lk;
	struct vfs_path real;
	int err = xattr_begin(overlay_fs_of(base), rp, args->name, true, &d, &lk, &real);

	if (err)
		return err;
	err = vfs_set_xattr(&lk, args);
	dentry_unref(&d->base);
	return err;
}

static int overlay_remove_xattr_at(struct filesystem *base, struct resolving_path *rp,
				   const char *name)
{
	struct overlay_dentry *d;
	struct vfs_lookup lk;
	struct vfs_path real;
	int err = xattr_begin(overlay_fs_of(base), rp, name, true, &d, &lk, &real);

	if (err)
		return err;
	err = vfs_remove_xattr(&lk, name);
	dentry_unref(&d->base);
	return err;
}

/* The layer's list without the overlay's own attributes; trusted ones only for the privileged. */
static ssize_t overlay_list_xattr_at(struct filesystem *base, struct resolving_path *rp, char *buf,
				     size_t size)
{
	struct overlay_dentry *d;
	struct vfs_lookup lk;
	struct vfs_path real;
	ssize_t ret = xattr_begin(overlay_fs_of(base), rp, NULL, false, &d, &lk, &real), kept = 0;
	char *names;

	if (ret)
		return ret;
	names = malloc(VFS_XATTR_SIZE_MAX);
	ret = names ? vfs_list_xattr(&lk, names, VFS_XATTR_SIZE_MAX) : -ENOMEM;
	for (char *n = names; ret > 0 && n < names + ret; n += strlen(n) + 1) {
		size_t len = strlen(n) + 1;

		if (is_private_xattr(n) ||
		    (strncmp(n, "trusted.", 8) == 0 && !cred_has_cap(rp_cred(rp), 21)))
			continue;
		if (size && kept + (ssize_t)len > (ssize_t)size) {
			ret = -ERANGE;
			break;
		}
		if (size)
			memcpy(buf + kept, n, len);
		kept += (ssize_t)len;
	}
	free(names);
	dentry_unref(&d->base);
	return ret < 0 ? ret : kept;
}

static int overlay_get_endpoint_at(struct filesystem *base, struct resolving_path *rp,
				   struct vfs_endpoint **ret)
{
	struct overlay_fs *fs = overlay_fs_of(base);
	struct overlay_dentry *d;
	struct perm_inode pi;
	int err = overlay_walk(fs, rp, &d);

	if (err)
		return err;
	err = overlay_perm(fs, d, &pi);
	if (!err)
		err = vfs_permission(rp_cred(rp), &pi, W_OK);
	if (!err) {
		struct vfs_path real = overlay_real(d);
		struct vfs_lookup lk = overlay_layer_lookup(fs, &real, "", 0);

		err = vfs_get_endpoint(&lk, ret);
	}
	dentry_unref(&d->base);
	return err;
}

static uint32_t overlay_dentry_type(struct dentry *d)
{
	return overlay_of(d)->type;
}

static uint64_t overlay_inode_key(struct dentry *d)
{
	struct vfs_path real = overlay_real(overlay_of(d));

	return real.mount->fs->ops->inode_key(real.dentry);
}

static int overlay_sync(struct filesystem *base)
{
	struct overlay_fs *fs = overlay_fs_of(base);

	return fs->upper_mount ? fs->upper_mount->fs->ops->sync(fs->upper_mount->fs) : 0;
}

static void overlay_release(struct filesystem *base)
{
	struct overlay_fs *fs = overlay_fs_of(base);

	for (unsigned i = 0; i < OVERLAY_CACHE_MAX; i++) {
		struct overlay_dentry *d = atomic_exchange(&fs->cache[i], NULL);

		if (d)
			dentry_unref(&d->base);
	}
	if (fs->root)
		dentry_unref(&fs->root->base);
	if (fs->upper_mount)
		mount_unref(fs->upper_mount);
	cred_unref(fs->cred);
	filesystem_fini(base);
	free(fs);
}

static struct filesystem_ops overlay_filesystem_ops = {
	.get_dentry_at = overlay_get_dentry_at,
	.open_at = overlay_open_at,
	.stat_at = overlay_stat_at,
	.set_stat_at = overlay_set_stat_at,
	.access_at = overlay_access_at,
	.mkdir_at = overlay_mkdir_at,
	.mknod_at = overlay_mknod_at,
	.link_at = overlay_link_at,
	.symlink_at = overlay_symlink_at,
	.readlink_at = overlay_readlink_at,
	.rename_at = overlay_rename_at,
	.unlink_at = overlay_unlink_at,
	.rmdir_at = overlay_rmdir_at,
	.statfs = overlay_statfs,
	.get_xattr_at = overlay_get_xattr_at,
	.set_xattr_at = overlay_set_xattr_at,
	.list_xattr_at = overlay_list_xattr_at,
	.remove_xattr_at = overlay_remove_xattr_at,
	.get_endpoint_at = overlay_get_endpoint_at,
	.get_parent = overlay_get_parent,
	.dentry_type = overlay_dentry_type,
	.inode_key = overlay_inode_key,
	.dentry_release = overlay_dentry_release,
	.sync = overlay_sync,
	.release = overlay_release,
};

/* mount(2) would need the caller's namespace to find lowerdir= and upperdir=: not through this slot. */
static int overlay_mount(const struct filesystem_type *type, const char *source, unsigned ms_flags,
			 const char *data, void *kernel_data, struct filesystem **ret_fs,
			 struct dentry **ret_root)
{
	(void)type;
	(void)source;
	(void)ms_flags;
	(void)data;
	(void)kernel_data;
	(void)ret_fs;
	(void)ret_root;
	return -EINVAL;
}

static struct filesystem_type overlay_type = {
	.name = "overlay",
	.flags = FS_NODEV,
	.mount = overlay_mount,
	.ops = &overlay_filesystem_ops,
};

int overlay_register(void)
{
	vfs_register_type(&overlay_type);
	return 0;
}

static int take_layer(const struct overlay_layer *l, struct vfs_path *ret)
{
	int err = mount_create_internal(l->fs, l->root, &ret->mount);

	if (!err) {
		dentry_ref(l->root);
		ret->dentry = l->root;
	}
	return err;
}

int overlay_create(const struct overlay_layer *layers, unsigned count, bool writable,
		   struct filesystem **ret_fs, struct dentry **ret_root)
{
	struct overlay_found found = {.type = S_IFDIR, .ino = 1};
	struct overlay_fs *fs;
	int err = 0;

	if (count == 0 || count > OVERLAY_LAYERS_MAX)
		return -EINVAL;
	for (unsigned i = 0; i < count; i++)
		if (layers[i].fs->ops->dentry_type(layers[i].root) != S_IFDIR)
			return -EINVAL;
	fs = calloc(1, sizeof(*fs));
	if (!fs)
		return -ENOMEM;
	err = cred_create_root(&fs->cred);
	if (err) {
		free(fs);
		return err;
	}
	err = filesystem_init(&fs->base, &overlay_type, &overlay_filesystem_ops, "overlay");
	if (err) {
		cred_unref(fs->cred);
		free(fs);
		return err;
	}
	fs->base.magic = OVERLAY_MAGIC;
	op_lock_init(&fs->change);
	for (unsigned i = 0; !err && i < count; i++) {
		struct vfs_path p;

		err = take_layer(&layers[i], &p);
		if (!err && i == 0 && writable) {
			fs->upper_mount = p.mount;
			found.upper = p.dentry;
		} else if (!err) {
			found.lowers[found.nlowers++] = p;
		}
	}
	if (!err)
		err = overlay_dentry_create(fs, NULL, "", 0, &found, &fs->root);
	overlay_found_fini(&found);
	if (err) {
		filesystem_unref(&fs->base);
		return err;
	}
	dentry_ref(&fs->root->base);
	*ret_root = &fs->root->base;
	*ret_fs = &fs->base;
	return 0;
}

/* The new upper root looks like the lower one. */
static int copy_root_attributes(struct overlay_fs *fs)
{
	struct vfs_path upper = {fs->upper_mount, overlay_upper(fs->root)};
	struct vfs_lookup lower_lk = overlay_layer_lookup(fs, &fs->root->lowers[0], "", 0);
	struct vfs_lookup upper_lk = overlay_layer_lookup(fs, &upper, "", 0);
	struct moat_statx st;
	int err = vfs_stat(&lower_lk, &(struct stat_args){.mask = OVERLAY_STATX_MASK}, &st);

	if (err)
		return err;
	fs->root->ino = st.ino;
	return vfs_set_stat(&upper_lk, &(struct setattr_args){.valid = SETATTR_MODE | SETATTR_UID |
								       SETATTR_GID | SETATTR_ATIME |
								       SETATTR_MTIME,
							      .mode = st.mode & 07777,
							      .uid = st.uid,
							      .gid = st.gid,
							      .atime = st.atime,
							      .mtime = st.mtime});
}

int overlay_create_over(struct filesystem *lower_fs, struct dentry *lower,
			struct filesystem **ret_fs, struct dentry **ret_root)
{
	struct overlay_layer layers[2] = {{0}, {lower_fs, lower}};
	struct memfs_options opts = {.mode = 0755};
	int err = memfs_create_fs("overlay", &opts, &layers[0].fs, &layers[0].root);

	if (err)
		return err;
	err = overlay_create(layers, 2, true, ret_fs, ret_root);
	dentry_unref(layers[0].root);
	filesystem_unref(layers[0].fs);
	if (err)
		return err;
	err = copy_root_attributes(overlay_fs_of(*ret_fs));
	if (err) {
		dentry_unref(*ret_root);
		filesystem_unref(*ret_fs);
	}
	return err;
}
