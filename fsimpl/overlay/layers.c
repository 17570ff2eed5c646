/*
 * fsimpl/overlay/layers.c - names in the layers: what wins, what is hidden, whiteouts, opaque and redirected directories.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
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

struct overlay_lower *overlay_lower_of(struct overlay_fs *fs, const struct mount *m)
{
	for (unsigned i = 0; i < fs->nlower; i++)
		if (fs->lower[i].mount == m)
			return &fs->lower[i];
	return NULL;
}

/* ---- marks ---- */

const char *overlay_xattr_name(const struct overlay_fs *fs, const char *suffix, char *buf)
{
	snprintf(buf, OVERLAY_XATTR_NAME_SIZE, "%s.overlay.%s",
		 fs->config.userxattr ? "user" : "trusted", suffix);
	return buf;
}

ssize_t overlay_mark_get(struct overlay_fs *fs, const struct vfs_path *place, const char *suffix,
			 void *value, size_t size)
{
	struct vfs_lookup lk = overlay_layer_lookup(fs, place, "", 0);
	char name[OVERLAY_XATTR_NAME_SIZE];

	return vfs_get_xattr(&lk, &(struct xattr_args){.name = overlay_xattr_name(fs, suffix, name),
						       .value = value,
						       .size = size});
}

int overlay_mark_set(struct overlay_fs *fs, const struct vfs_path *place, const char *suffix,
		     const void *value, size_t size)
{
	struct vfs_lookup lk = overlay_layer_lookup(fs, place, "", 0);
	char name[OVERLAY_XATTR_NAME_SIZE];

	return vfs_set_xattr(&lk, &(struct xattr_args){.name = overlay_xattr_name(fs, suffix, name),
						       .value = (void *)value,
						       .size = size});
}

bool overlay_is_whiteout(struct overlay_fs *fs, const struct vfs_path *place,
			 const struct moat_statx *st)
{
	char value[2];

	if (S_ISCHR(st->mode))
		return st->rdev_major == 0 && st->rdev_minor == 0;
	if (!S_ISREG(st->mode) || st->size)
		return false;
	return overlay_mark_get(fs, place, "whiteout", value, sizeof(value)) >= 0;
}

/* 'y': nothing below shows through; 'x': whiteouts in it may be xattrs. */
static char opaqueness(struct overlay_fs *fs, const struct vfs_path *dir)
{
	char value[2] = "";

	return overlay_mark_get(fs, dir, "opaque", value, sizeof(value)) == 1 ? value[0] : 0;
}

/* ---- attributes ---- */

int overlay_stat_place(struct overlay_fs *fs, const struct vfs_path *place, struct moat_statx *ret)
{
	struct vfs_lookup lk = overlay_layer_lookup(fs, place, "", 0);

	return vfs_stat(&lk, &(struct stat_args){.mask = OVERLAY_STATX_MASK}, ret);
}

int overlay_stat_real(struct overlay_fs *fs, struct overlay_dentry *d, struct moat_statx *ret)
{
	struct vfs_path real = overlay_real(d);

	return overlay_stat_place(fs, &real, ret);
}

uint64_t overlay_map_ino(const struct overlay_fs *fs, unsigned fsid, uint64_t ino)
{
	if (fs->one_fs)
		return ino;
	return (ino & ((1ull << OVERLAY_INO_SHIFT) - 1)) | (uint64_t)fsid << OVERLAY_INO_SHIFT;
}

uint64_t overlay_upper_ino(struct overlay_fs *fs, const struct vfs_path *place, uint64_t ino)
{
	uint64_t origin;

	if (overlay_mark_get(fs, place, "origin", &origin, sizeof(origin)) == sizeof(origin))
		return origin;
	return overlay_map_ino(fs, fs->upper_fsid, ino);
}

void overlay_attr(struct overlay_fs *fs, struct overlay_dentry *d, struct moat_statx *inout)
{
	inout->ino = atomic_load_explicit(&d->inode->ino, memory_order_relaxed);
	inout->dev_major = 0;
	inout->dev_minor = fs->base.dev_minor;
	if (S_ISDIR(d->type) && (d->nlowers > 1 || (d->nlowers && overlay_upper(d))))
		inout->nlink = 1; /* merged: nobody counts subdirectories, as on Linux */
}

int overlay_perm(struct overlay_fs *fs, struct overlay_dentry *d, struct perm_inode *ret)
{
	struct vfs_path real = overlay_real(d);
	struct vfs_acl *acl = NULL;
	struct moat_statx st;
	int err = overlay_stat_place(fs, &real, &st);

	/* An ACL's mask is the group's bits: without any it grants nothing but to the owner. */
	if (!err && (st.mode & S_IRWXG) && !S_ISLNK(st.mode))
		err = real.mount->fs->ops->get_acl(real.dentry, false, &acl);
	if (!err)
		*ret = (struct perm_inode){
			.mode = st.mode, .uid = st.uid, .gid = st.gid, .acl = acl};
	return err;
}

void overlay_perm_put(struct perm_inode *pi)
{
	vfs_acl_unref((struct vfs_acl *)pi->acl);
	pi->acl = NULL;
}

int overlay_may(struct overlay_fs *fs, struct overlay_dentry *d, const struct cred *cred, int mask)
{
	struct perm_inode pi;
	bool known;
	int err = 0;

	rcu_read_begin();
	known = overlay_peek_perm(&d->base, &pi);
	if (known)
		err = vfs_permission(cred, &pi, mask);
	rcu_read_end();
	if (known)
		return err;
	err = overlay_perm(fs, d, &pi);
	if (err)
		return err;
	err = vfs_permission(cred, &pi, mask);
	overlay_perm_put(&pi);
	return err;
}

/* ---- lookup ---- */

/* The rest of a walk through layers. */
struct finding {
	struct overlay_fs *fs;
	struct overlay_found *f;
	char *path; /* a name, or with a leading slash a path from the layers' roots; owned */
	bool stop; /* nothing further below shows through */
};

/* A redirect is a name in the same directory or a path from the root; anything else is damage. */
static bool redirect_is_valid(const char *r, size_t len)
{
	size_t part = 0;

	if (!len || memchr(r, '\0', len))
		return false;
	if (r[0] != '/')
		return !memchr(r, '/', len) && len <= VFS_NAME_MAX && strcmp(r, ".") &&
		       strcmp(r, "..");
	for (size_t i = 1; i <= len; i++) {
		if (i < len && r[i] != '/')
			continue;
		if (i - part <= 1 || (i - part == 2 && r[part + 1] == '.') ||
		    (i - part == 3 && r[part + 1] == '.' && r[part + 2] == '.'))
			return false;
		part = i;
	}
	return true;
}

/* A directory that was found: its marks say how to go on. */
static int directory_marks(struct finding *w, struct overlay_lower *layer,
			   const struct vfs_path *dir)
{
	char value[OVERLAY_REDIRECT_MAX + 1], opaque = opaqueness(w->fs, dir);
	ssize_t len;

	if (opaque == 'y') {
		w->stop = true;
		return 0;
	}
	if (opaque == 'x' && layer)
		atomic_store(&layer->xwhiteouts, true);
	len = overlay_mark_get(w->fs, dir, "redirect", value, OVERLAY_REDIRECT_MAX);
	if (len < 0)
		return len == -ENODATA || len == -EOPNOTSUPP ? 0 : (int)len;
	/* Not following it would show what does not belong there. */
	if (w->fs->config.redirect == REDIRECT_NOFOLLOW)
		return -EPERM;
	value[len] = '\0';
	if (!redirect_is_valid(value, (size_t)len))
		return -EIO;
	free(w->path);
	w->path = strdup(value);
	return w->path ? 0 : -ENOMEM;
}

/* One name below `dir` of a layer: 0 with *ret and *ret_st, -ENOENT, 1: a whiteout. */
static int find_one(struct overlay_fs *fs, const struct vfs_path *dir, const char *name,
		    struct vfs_path *ret, struct moat_statx *ret_st)
{
	struct vfs_lookup lk = overlay_layer_lookup(fs, dir, name, 0);
	int err = vfs_get_path(&lk, ret);

	if (err)
		return err == -ENAMETOOLONG ? -ENOENT : err;
	err = overlay_stat_place(fs, ret, ret_st);
	if (!err && overlay_is_whiteout(fs, ret, ret_st))
		err = 1;
	if (err)
		vfs_path_unref(ret);
	return err;
}

/* w->path in one layer. `dir` is the parent there, or the layer's root for an absolute path. As find_one(). */
static int find_path(struct finding *w, const struct vfs_path *dir, struct vfs_path *ret,
		     struct moat_statx *ret_st)
{
	struct vfs_path at = *dir, next;
	char name[VFS_NAME_MAX + 1];
	const char *p = w->path;
	int err = 0;

	if (*p != '/')
		return find_one(w->fs, dir, p, ret, ret_st);
	vfs_path_ref(&at);
	while (!err && *p) {
		size_t len = strcspn(++p, "/");

		if (len > VFS_NAME_MAX) {
			err = -ENOENT;
			break;
		}
		memcpy(name, p, len);
		name[len] = '\0';
		p += len;
		err = find_one(w->fs, &at, name, &next, ret_st);
		if (err)
			break;
		vfs_path_unref(&at);
		at = next;
		if (*p && !S_ISDIR(ret_st->mode))
			err = -ENOENT;
		/* An opaque directory on the way hides what is below it in further layers. */
		if (!err && *p && opaqueness(w->fs, &at) == 'y')
			w->stop = true;
	}
	if (err)
		vfs_path_unref(&at);
	else
		*ret = at;
	return err;
}

static int find_upper(struct finding *w, struct overlay_dentry *dir)
{
	struct overlay_fs *fs = w->fs;
	struct overlay_found *f = w->f;
	struct vfs_path place = {fs->upper_mount, overlay_upper(dir)}, found;
	struct moat_statx st;
	char value[2];
	int err;

	if (!place.dentry)
		return 0;
	err = find_one(fs, &place, w->path, &found, &st);
	if (err) {
		w->stop = err > 0;
		return err == -ENOENT || err > 0 ? 0 : err;
	}
	f->upper = found.dentry;
	f->type = st.mode & S_IFMT;
	f->ino = overlay_upper_ino(fs, &found, st.ino);
	if (S_ISDIR(st.mode)) {
		err = directory_marks(w, NULL, &found);
		f->impure = overlay_mark_get(fs, &found, "impure", value, sizeof(value)) == 1;
	} else {
		f->upper_key = fs->upper_mount->fs->ops->inode_key(found.dentry);
		w->stop = true;
	}
	mount_unref(found.mount);
	return err;
}

static int find_lower(struct finding *w, const struct vfs_path *dir)
{
	struct overlay_fs *fs = w->fs;
	struct overlay_lower *layer = overlay_lower_of(fs, dir->mount);
	struct overlay_found *f = w->f;
	struct vfs_path found;
	struct moat_statx st;
	int err = find_path(w, dir, &found, &st);

	if (err) {
		w->stop |= err > 0;
		return err == -ENOENT || err > 0 ? 0 : err;
	}
	/* What is no directory ends the search, and is nothing when one above it has the name. */
	if (f->type && !S_ISDIR(st.mode)) {
		vfs_path_unref(&found);
		w->stop = true;
		return 0;
	}
	if (!f->type) {
		f->type = st.mode & S_IFMT;
		f->ino = overlay_map_ino(fs, layer ? layer->fsid : 0, st.ino);
	}
	f->lowers[f->nlowers++] = found;
	if (S_ISDIR(st.mode))
		return directory_marks(w, layer, &found);
	w->stop = true;
	return 0;
}

/* The lower layers of dir from its `i`th on; a redirect to a path goes on below the current layer from the roots. */
static int find_lowers(struct finding *w, struct overlay_dentry *dir)
{
	const struct vfs_path *stack = dir->lowers,
			      *root = w->fs->root ? w->fs->root->lowers : NULL;
	unsigned count = dir->nlowers, i = 0;
	int err = 0;

	if (w->path[0] == '/' && root) {
		stack = root;
		count = w->fs->root->nlowers;
	}
	while (!err && !w->stop && i < count) {
		const struct mount *layer = stack[i].mount;

		err = find_lower(w, &stack[i]);
		i++;
		if (!err && w->path[0] == '/' && stack != root) {
			stack = root;
			count = w->fs->root->nlowers;
			for (i = 0; i < count && stack[i].mount != layer; i++)
				;
			i++;
		}
	}
	return err;
}

int overlay_layers_find(struct overlay_fs *fs, struct overlay_dentry *dir, const char *name,
			struct overlay_found *ret)
{
	struct finding w = {.fs = fs, .f = ret, .path = strdup(name)};
	int err;

	memset(ret, 0, offsetof(struct overlay_found, lowers));
	ret->nlowers = 0;
	ret->type = 0;
	ret->upper_key = 0;
	ret->redirect = NULL;
	ret->impure = false;
	if (!w.path)
		return -ENOMEM;
	err = find_upper(&w, dir);
	/* Only the upper's own redirect is kept: it is what a rename changes. */
	if (!err && ret->upper && S_ISDIR(ret->type) && strcmp(w.path, name)) {
		ret->redirect = strdup(w.path);
		err = ret->redirect ? 0 : -ENOMEM;
	}
	if (!err && !w.stop)
		err = find_lowers(&w, dir);
	if (!err && !ret->type)
		err = -ENOENT;
	free(w.path);
	if (err)
		overlay_found_fini(ret);
	return err;
}

int overlay_in_lower(struct overlay_fs *fs, struct overlay_dentry *dir, const char *name)
{
	struct overlay_found *f = calloc(1, sizeof(*f));
	struct finding w = {.fs = fs, .f = f, .path = strdup(name)};
	int err = f && w.path ? 0 : -ENOMEM;

	if (!err)
		err = find_lowers(&w, dir);
	if (!err)
		err = f->nlowers > 0;
	if (f)
		overlay_found_fini(f);
	free(w.path);
	free(f);
	return err;
}

/* ---- whiteouts ---- */

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

	err = vfs_stat(&lk, &(struct stat_args){.mask = OVERLAY_STATX_MASK}, &st);
	if (err)
		return err == -ENOENT ? 0 : err;
	if (!S_ISCHR(st.mode) || st.rdev_major || st.rdev_minor)
		return 0;
	err = vfs_unlink(&lk);
	return err ? err : 1;
}

static bool is_known_missing(struct overlay_fs *fs, struct overlay_dentry *dir, const char *name,
			     size_t len)
{
	bool known;

	rcu_read_begin();
	known = overlay_missing_find(fs, dir, vfs_name_hash(name, len), name, len,
				     seqcount_read_begin(&dir->changes));
	rcu_read_end();
	return known;
}

/* What the layers have of that name becomes a live child. *ret NULL: dir changed meanwhile. */
static int find_and_insert(struct overlay_fs *fs, struct overlay_dentry *dir, const char *name,
			   size_t len, uint32_t changes, struct overlay_found *found,
			   struct overlay_dentry **ret)
{
	struct overlay_dentry *d;
	int err = overlay_layers_find(fs, dir, name, found);

	if (err)
		return err;
	err = overlay_dentry_create(fs, dir, name, len, found, &d);
	overlay_found_fini(found);
	if (!err)
		*ret = overlay_child_insert(dir, d, changes);
	return err;
}

int overlay_lookup(struct overlay_fs *fs, struct overlay_dentry *dir, const char *name, size_t len,
		   struct overlay_dentry **ret)
{
	char copy[VFS_NAME_MAX + 1];
	struct overlay_found *found;
	struct overlay_dentry *d;
	int err;

	if (atomic_load_explicit(&dir->base.flags, memory_order_acquire) & DENTRY_DEAD)
		return -ENOENT;
	d = overlay_child_find(dir, name, len);
	if (d) {
		*ret = d;
		return 0;
	}
	if (is_known_missing(fs, dir, name, len))
		return -ENOENT;
	found = malloc(sizeof(*found));
	if (!found)
		return -ENOMEM;
	memcpy(copy, name, len);
	copy[len] = '\0';
	for (unsigned tries = 0;; tries++) {
		bool last = tries == OVERLAY_LOOKUP_TRIES;
		uint32_t changes;

		/* Lost too many races: keep changes out. */
		err = last ? op_lock_killable(&fs->change) : 0;
		if (err)
			break;
		changes = seqcount_read_begin(&dir->changes);
		d = overlay_child_find(dir, name, len);
		if (!d && !(changes & 1))
			err = find_and_insert(fs, dir, copy, len, changes, found, &d);
		if (last)
			op_unlock(&fs->change);
		if (d || (err && err != -ENOENT) || last)
			break;
		if (err == -ENOENT && seqcount_read_begin(&dir->changes) == changes) {
			overlay_missing_enter(fs, dir, name, len, changes);
			break;
		}
	}
	free(found);
	if (err)
		return err;
	*ret = d;
	return d ? 0 : -ENOENT;
}
