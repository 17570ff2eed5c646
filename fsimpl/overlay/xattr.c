/*
 * fsimpl/overlay/xattr.c - extended attributes.
 *
 * The overlay's own marks (trusted.overlay.*, or user.overlay.* with userxattr) are not seen through it. A program's attribute of such a name is
 * kept in the layer one level deeper, as trusted.overlay.overlay.NAME, so that an overlay can be a layer's maker inside another.
 */
#include <linux/capability.h>
#include <linux/xattr.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fsimpl/overlay/internal.h"

#define LIST_MAX 65536
#define ESCAPED_MAX (VFS_XATTR_NAME_MAX + sizeof("overlay."))

static const char *prefix_of(const struct overlay_fs *fs)
{
	return fs->config.userxattr ? "user.overlay." : "trusted.overlay.";
}

static bool has_prefix(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

bool overlay_is_mark(const struct overlay_fs *fs, const char *name)
{
	const char *prefix = prefix_of(fs);

	return has_prefix(name, prefix) && !has_prefix(name + strlen(prefix), "overlay.");
}

/* The name that the layer has for a program's `name`. -EOPNOTSUPP if it does not fit. */
static int to_layer(const struct overlay_fs *fs, const char *name, char *buf)
{
	const char *prefix = prefix_of(fs);
	int len;

	if (has_prefix(name, prefix))
		len = snprintf(buf, ESCAPED_MAX, "%soverlay.%s", prefix, name + strlen(prefix));
	else
		len = snprintf(buf, ESCAPED_MAX, "%s", name);
	return len > VFS_XATTR_NAME_MAX ? -EOPNOTSUPP : 0;
}

static bool is_default_acl(const char *name)
{
	return !strcmp(name, XATTR_NAME_POSIX_ACL_DEFAULT);
}

static bool is_acl(const char *name)
{
	return !strcmp(name, XATTR_NAME_POSIX_ACL_ACCESS) || is_default_acl(name);
}

/* A prefix alone names nothing. */
static int check_suffix(const char *name)
{
	const char *dot = strchr(name, '.');

	return dot && !dot[1] ? -EINVAL : 0;
}

/*
 * Before an attribute changes, in Linux's order. 1: nothing to do (a default ACL's removal where there can be none is fine, whoever asks).
 */
static int check_change(struct overlay_fs *fs, struct resolving_path *rp, struct overlay_dentry *d,
			const struct xattr_args *args, bool remove)
{
	struct vfs_acl *acl = NULL;
	struct perm_inode pi;
	int err = rp_begin_write(rp);

	if (!err && is_acl(args->name) && args->size)
		err = vfs_acl_parse(args->value, args->size, &acl);
	if (!err && is_default_acl(args->name) && !S_ISDIR(d->type) && !S_ISLNK(d->type))
		err = acl ? -EACCES : 1;
	if (!err)
		err = overlay_perm(fs, d, &pi);
	if (!err) {
		err = remove ? vfs_may_xattr(rp_cred(rp), &pi, args->name, true)
			     : vfs_may_set_xattr(rp_cred(rp), &pi, args);
		overlay_perm_put(&pi);
	}
	if (!err)
		err = check_suffix(args->name);
	if (!err)
		err = vfs_acl_check(acl);
	vfs_acl_unref(acl);
	return err;
}

/* Walks and checks. *ret_d: a reference. name NULL: listing. */
static int begin(struct overlay_fs *fs, struct resolving_path *rp, const char *name,
		 struct overlay_dentry **ret_d)
{
	struct overlay_dentry *d;
	struct perm_inode pi;
	int err = overlay_walk(fs, rp, &d);

	if (err)
		return err;
	if (name) {
		err = overlay_perm(fs, d, &pi);
		if (!err) {
			err = vfs_may_xattr(rp_cred(rp), &pi, name, false);
			overlay_perm_put(&pi);
		}
		if (!err)
			err = check_suffix(name);
	}
	if (err) {
		dentry_unref(&d->base);
		return err;
	}
	*ret_d = d;
	return 0;
}

ssize_t overlay_get_xattr_at(struct filesystem *base, struct resolving_path *rp,
			     const struct xattr_args *args)
{
	struct overlay_fs *fs = overlay_fs_of(base);
	struct xattr_args real_args = *args;
	struct overlay_dentry *d;
	struct vfs_path real;
	struct vfs_lookup lk;
	char name[ESCAPED_MAX];
	ssize_t ret = begin(fs, rp, args->name, &d);

	if (ret)
		return ret;
	ret = to_layer(fs, args->name, name);
	if (!ret) {
		real_args.name = name;
		real = overlay_real(d);
		lk = overlay_layer_lookup(fs, &real, "", 0);
		ret = vfs_get_xattr(&lk, &real_args);
	}
	dentry_unref(&d->base);
	return ret;
}

/* An access ACL set by one who is not in the file's group takes setgid with it; the layer, changed by the overlay, would keep it. */
static int drop_setgid(struct overlay_fs *fs, struct resolving_path *rp, struct overlay_dentry *d,
		       const struct vfs_lookup *lk)
{
	struct moat_statx st;
	int err = overlay_stat_real(fs, d, &st);

	if (err || !(st.mode & S_ISGID) || cred_in_group(rp_cred(rp), st.gid) ||
	    cred_has_cap(rp_cred(rp), CAP_FSETID))
		return err;
	return vfs_set_stat(lk, &(struct setattr_args){.valid = SETATTR_MODE,
						       .mode = st.mode & 07777 & ~S_ISGID});
}

static int set_or_remove(const struct vfs_lookup *lk, const struct xattr_args *args, bool remove)
{
	return remove ? vfs_remove_xattr(lk, args->name) : vfs_set_xattr(lk, args);
}

/* args->value NULL and size 0 with `remove`: the attribute goes. */
static int change(struct filesystem *base, struct resolving_path *rp, const struct xattr_args *args,
		  bool remove)
{
	struct overlay_fs *fs = overlay_fs_of(base);
	struct xattr_args real_args = *args;
	struct overlay_dentry *d;
	struct vfs_path real;
	struct vfs_lookup lk;
	char name[ESCAPED_MAX];
	int err = overlay_walk(fs, rp, &d);

	if (err)
		return err;
	err = check_change(fs, rp, d, args, remove);
	/* A name that no layer takes is found out by the upper one. */
	if ((err == -EOPNOTSUPP || (err == -EINVAL && check_suffix(args->name))) && !remove) {
		int up = overlay_copy_up(fs, d, true);

		err = up ? up : err;
	}
	if (err) {
		dentry_unref(&d->base);
		return err > 0 ? 0 : err;
	}
	err = to_layer(fs, args->name, name);
	real_args.name = name;
	real = overlay_real(d);
	lk = overlay_layer_lookup(fs, &real, "", 0);
	/* What is not there need not be copied up to be removed. */
	if (!err && remove && !overlay_upper(d)) {
		ssize_t size = vfs_get_xattr(&lk, &(struct xattr_args){.name = name});

		err = size < 0 ? (int)size : 0;
	}
	if (!err)
		err = overlay_copy_up(fs, d, true);
	real = overlay_real(d);
	lk = overlay_layer_lookup(fs, &real, "", 0);
	if (!err && is_acl(args->name)) {
		overlay_perm_change_begin(d);
		err = set_or_remove(&lk, &real_args, remove);
		if (!err && !strcmp(name, XATTR_NAME_POSIX_ACL_ACCESS))
			err = drop_setgid(fs, rp, d, &lk);
		overlay_perm_change_end(d);
	} else if (!err) {
		err = set_or_remove(&lk, &real_args, remove);
	}
	if (!err)
		vfs_notify_attrib(&d->base);
	dentry_unref(&d->base);
	return err;
}

int overlay_set_xattr_at(struct filesystem *fs, struct resolving_path *rp,
			 const struct xattr_args *args)
{
	return change(fs, rp, args, false);
}

int overlay_remove_xattr_at(struct filesystem *fs, struct resolving_path *rp, const char *name)
{
	return change(fs, rp, &(struct xattr_args){.name = name}, true);
}

/* The layer's list without the overlay's marks; trusted ones only for the privileged. */
ssize_t overlay_list_xattr_at(struct filesystem *base, struct resolving_path *rp, char *buf,
			      size_t size)
{
	struct overlay_fs *fs = overlay_fs_of(base);
	const char *prefix = prefix_of(fs);
	struct overlay_dentry *d;
	struct vfs_path real;
	struct vfs_lookup lk;
	ssize_t ret = begin(fs, rp, NULL, &d), kept = 0;
	char *names;

	if (ret)
		return ret;
	names = malloc(LIST_MAX);
	real = overlay_real(d);
	lk = overlay_layer_lookup(fs, &real, "", 0);
	ret = names ? vfs_list_xattr(&lk, names, LIST_MAX) : -ENOMEM;
	for (char *n = names, *end = names + MAX(ret, 0); n < end; n += strlen(n) + 1) {
		char out[VFS_XATTR_NAME_MAX + 1];
		size_t len;

		if (overlay_is_mark(fs, n) ||
		    (has_prefix(n, "trusted.") && !cred_has_cap(rp_cred(rp), CAP_SYS_ADMIN)))
			continue;
		if (has_prefix(n, prefix))
			len = (size_t)snprintf(out, sizeof(out), "%s%s", prefix,
					       n + strlen(prefix) + strlen("overlay."));
		else
			len = (size_t)snprintf(out, sizeof(out), "%s", n);
		if (size && (size_t)kept + len + 1 > size) {
			ret = -ERANGE;
			break;
		}
		if (size)
			memcpy(buf + kept, out, len + 1);
		kept += (ssize_t)len + 1;
	}
	free(names);
	dentry_unref(&d->base);
	return ret < 0 ? ret : kept;
}
