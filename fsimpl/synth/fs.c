/*
 * fsimpl/synth/fs.c - filesystem_ops of synthetic filesystems: what happens at a walk's end (walk.c).
 */
#include <fcntl.h>
#include <linux/stat.h>
#include <stdlib.h>
#include <string.h>

#include "fsimpl/synth/internal.h"

static int synth_get_dentry_at(struct filesystem *fs unused_arg, struct resolving_path *rp,
			       struct dentry **ret_dentry)
{
	struct synth_node *n;
	int err = synth_walk(rp, false, &n);

	if (!err)
		*ret_dentry = &n->dentry;
	return err;
}

/* procfs's lookup of a name that is not there fails, so nothing else is found out: no permission, no read-only mount. */
static bool missing_is_error(const struct synth_node *dir)
{
	return dir->dentry.fs->magic == 0x9fa0; /* PROC_SUPER_MAGIC */
}

static int synth_open_at(struct filesystem *fs, struct resolving_path *rp,
			 const struct open_args *args, struct file **ret_file)
{
	bool create = (args->flags & O_CREAT) && !(args->flags & O_PATH);
	struct synth_node *n, *dir;
	int err;

	if (create && rp_done(rp)) {
		err = rp_check_open_create(rp, args->flags);
		if (err)
			return err;
		create = false;
	}
	if (!create) {
		err = synth_walk(rp, false, &n);
		if (err)
			return err;
		goto open;
	}
	err = synth_walk(rp, true, &dir);
	if (err)
		return err;
	err = rp_check_open_create(rp, args->flags);
	if (!err)
		err = rp_check_name(rp);
	if (!err)
		err = synth_lookup(dir, rp_component(rp), rp_component_len(rp), &n);
	if (err == -ENOENT && !missing_is_error(dir)) {
		if (rp_begin_write(rp))
			err = -EROFS;
		else if (!dir->ops->create)
			err = -EACCES;
		else
			err = synth_permission(dir, rp_cred(rp), W_OK | X_OK);
		if (!err)
			err = dir->ops->create(dir, rp_component(rp), rp_component_len(rp),
					       S_IFREG | (args->mode & ~args->umask & 07777));
		if (!err)
			err = synth_lookup(dir, rp_component(rp), rp_component_len(rp), &n);
	} else if (!err && (args->flags & O_EXCL)) {
		synth_node_unref(n);
		err = -EEXIST;
	}
	synth_node_unref(dir);
	if (err)
		return err;
	err = rp_check_mount(rp, &n->dentry);
	if (!err && synth_is_link(n)) {
		err = rp_should_follow(rp) ? synth_follow(rp, n) : -ELOOP;
		/* A relative link goes on from its directory: the whole walk again, without the name. */
		if (!err) {
			struct synth_node *parent = n->parent;

			dentry_ref(&parent->dentry);
			rp_hold(rp, &parent->dentry);
			rp->start = &parent->dentry;
			synth_node_unref(n);
			return synth_open_at(fs, rp, args, ret_file);
		}
	}
	if (err) {
		synth_node_unref(n);
		return err;
	}
open:
	err = synth_open_node(n, rp, args, ret_file);
	synth_node_unref(n);
	return err;
}

static int synth_stat_at(struct filesystem *fs unused_arg, struct resolving_path *rp,
			 const struct stat_args *args, struct moat_statx *ret)
{
	struct synth_node *n;
	int err = SYNTH_ASK;

	if (!rp_locked(rp)) {
		err = synth_walk_quick(rp, false, &n);
		if (!err && !n->ops->getattr)
			return synth_stat_node(n, args, ret);
		if (err && err != SYNTH_ASK)
			return err;
		err = synth_settle(rp, n);
		if (err)
			return err;
	}
	err = synth_walk_on(rp, false, &n);
	if (err)
		return err;
	err = synth_stat_node(n, args, ret);
	synth_node_unref(n);
	return err;
}

static int setattr_default(struct synth_node *n, const struct cred *cred,
			   const struct setattr_args *in)
{
	struct setattr_args args = *in;
	struct synth_attr attr;
	struct perm_inode pi;
	int err;

	err = synth_getattr(n, &attr);
	if (err)
		return err;
	pi = (struct perm_inode){.mode = attr.mode, .uid = attr.uid, .gid = attr.gid};
	err = vfs_may_setattr(cred, &pi, &args);
	if (err)
		return err;
	path_change_begin(n->dentry.fs);
	if (synth_is_dir(n)) /* rare: no need to look for what is below */
		filesystem_paths_changed(n->dentry.fs);
	if (args.valid & SETATTR_MODE)
		atomic_store_explicit(&n->mode, (attr.mode & S_IFMT) | (args.mode & 07777),
				      memory_order_relaxed);
	if (args.valid & SETATTR_UID)
		atomic_store_explicit(&n->uid, args.uid, memory_order_relaxed);
	if (args.valid & SETATTR_GID)
		atomic_store_explicit(&n->gid, args.gid, memory_order_relaxed);
	path_change_end(n->dentry.fs);
	return 0;
}

static int synth_set_stat_at(struct filesystem *fs unused_arg, struct resolving_path *rp,
			     const struct setattr_args *args)
{
	struct setattr_args rest = *args;
	struct synth_node *n;
	int err;

	err = synth_walk(rp, false, &n);
	if (err)
		return err;
	err = rp_begin_write(rp);
	if (!err && (args->valid & SETATTR_SIZE)) {
		/* Truncation means nothing here and succeeds where writing is allowed. */
		if (synth_is_dir(n))
			err = -EISDIR;
		else if (!(args->valid & (SETATTR_FILE | SETATTR_OPEN)))
			err = synth_permission(n, rp_cred(rp), W_OK);
		rest.valid &=
			~(unsigned)(SETATTR_SIZE | SETATTR_FILE | SETATTR_OPEN | SETATTR_KILL_PRIV);
	}
	if (!err && rest.valid)
		err = n->ops->setattr ? n->ops->setattr(n, &rest)
				      : setattr_default(n, rp_cred(rp), &rest);
	synth_node_unref(n);
	return err;
}

static int synth_access_at(struct filesystem *fs unused_arg, struct resolving_path *rp, int mask)
{
	struct synth_node *n;
	int err = synth_walk(rp, false, &n);

	if (err)
		return err;
	if (mask)
		err = synth_permission(n, rp_cred(rp), mask);
	if (!err && (mask & W_OK) && (synth_is_dir(n) || S_ISREG(n->mode)))
		err = rp_begin_write(rp);
	synth_node_unref(n);
	return err;
}

static int synth_readlink_at(struct filesystem *fs unused_arg, struct resolving_path *rp, char *buf,
			     size_t size, size_t *ret_len)
{
	struct synth_node *n;
	struct buf b;
	int err;

	err = synth_walk(rp, false, &n);
	if (err)
		return err;
	buf_init(&b, VFS_PATH_MAX * 2);
	if (!synth_is_link(n) || !n->ops->readlink)
		err = -EINVAL;
	else
		err = n->ops->readlink(n, &b);
	if (!err)
		err = buf_error(&b);
	if (!err) {
		*ret_len = MIN(b.len, size);
		if (b.len)
			memcpy(buf, b.data, *ret_len);
	}
	buf_fini(&b);
	synth_node_unref(n);
	return err;
}

/* ---- changes of directories: for the few that allow them ---- */

/* The parent, with the checks that come before any operation of the directory's. */
static int walk_create(struct resolving_path *rp, bool is_dir, struct synth_node **ret_dir)
{
	struct synth_node *dir, *n;
	int err, name_err;

	err = synth_walk(rp, true, &dir);
	if (err)
		return err;
	name_err = rp_check_create_name(rp, is_dir);
	if (name_err && name_err != -ENOENT) {
		err = name_err;
		goto out;
	}
	err = synth_lookup(dir, rp_component(rp), rp_component_len(rp), &n);
	if (!err) {
		synth_node_unref(n);
		err = -EEXIST;
		goto out;
	}
	if (err != -ENOENT || missing_is_error(dir))
		goto out;
	err = name_err ? name_err : rp_begin_write(rp);
	if (!err)
		err = synth_permission(dir, rp_cred(rp), W_OK | X_OK);
	if (!err) {
		*ret_dir = dir;
		return 0;
	}
out:
	synth_node_unref(dir);
	return err;
}

static int synth_mkdir_at(struct filesystem *fs unused_arg, struct resolving_path *rp,
			  const struct mkdir_args *args)
{
	struct synth_node *dir;
	int err = walk_create(rp, true, &dir);

	if (err)
		return err;
	err = dir->ops->mkdir ? dir->ops->mkdir(dir, rp_component(rp), rp_component_len(rp),
						args->mode & ~args->umask & 07777)
			      : -EPERM;
	synth_node_unref(dir);
	return err;
}

static int create_refused(struct resolving_path *rp)
{
	struct synth_node *dir;
	int err = walk_create(rp, false, &dir);

	if (err)
		return err;
	synth_node_unref(dir);
	return -EPERM;
}

static int synth_mknod_at(struct filesystem *fs unused_arg, struct resolving_path *rp,
			  const struct mknod_args *args)
{
	struct synth_node *dir;
	int err;

	err = walk_create(rp, false, &dir);
	if (err)
		return err;
	if (!S_ISREG(args->mode) && (args->mode & S_IFMT))
		err = -EPERM;
	else if (!dir->ops->create)
		err = -EACCES; /* vfs_create()'s, not vfs_mknod()'s */
	else
		err = dir->ops->create(dir, rp_component(rp), rp_component_len(rp),
				       S_IFREG | (args->mode & ~args->umask & 07777));
	synth_node_unref(dir);
	return err;
}

static int synth_link_at(struct filesystem *fs unused_arg, struct resolving_path *rp,
			 struct dentry *old unused_arg)
{
	return create_refused(rp);
}

static int synth_symlink_at(struct filesystem *fs unused_arg, struct resolving_path *rp,
			    const char *target unused_arg)
{
	return create_refused(rp);
}

/* The parent and the victim, after the checks of may_delete(). */
static int walk_remove(struct resolving_path *rp, bool is_dir, struct synth_node **ret_dir,
		       struct synth_node **ret_victim)
{
	struct synth_node *dir, *n = NULL;
	int err;

	err = synth_walk(rp, true, &dir);
	if (err)
		return err;
	err = rp_check_remove_name(rp, is_dir);
	if (!err)
		err = rp_begin_write(rp);
	if (!err)
		err = synth_lookup(dir, rp_component(rp), rp_component_len(rp), &n);
	if (!err && !is_dir && rp->trailing_slash)
		err = synth_is_dir(n) ? -EISDIR : -ENOTDIR;
	if (!err)
		err = synth_permission(dir, rp_cred(rp), W_OK | X_OK);
	if (!err && is_dir != synth_is_dir(n))
		err = is_dir ? -ENOTDIR : -EISDIR;
	if (!err)
		err = vfs_dentry_delete_begin(rp, &n->dentry);
	if (!err) {
		*ret_dir = dir;
		*ret_victim = n;
		return 0;
	}
	if (n)
		synth_node_unref(n);
	synth_node_unref(dir);
	return err;
}

static int synth_unlink_at(struct filesystem *fs unused_arg, struct resolving_path *rp)
{
	struct synth_node *dir, *n;
	int err = walk_remove(rp, false, &dir, &n);

	if (err)
		return err;
	err = dir->ops->unlink ? dir->ops->unlink(dir, n) : -EPERM;
	if (!err)
		synth_node_forget(n);
	synth_node_unref(n);
	synth_node_unref(dir);
	return err;
}

static int synth_rmdir_at(struct filesystem *fs unused_arg, struct resolving_path *rp)
{
	struct synth_node *dir, *n;
	int err = walk_remove(rp, true, &dir, &n);

	if (err)
		return err;
	err = dir->ops->rmdir ? dir->ops->rmdir(dir, n) : -EPERM;
	if (!err)
		synth_node_forget(n);
	synth_node_unref(n);
	synth_node_unref(dir);
	return err;
}

static int synth_rename_at(struct filesystem *fs unused_arg, struct resolving_path *rp,
			   struct dentry *old_parent, const char *old_name,
			   bool old_must_be_dir unused_arg, const struct rename_args *args)
{
	struct synth_node *from = synth_node_of(old_parent), *dir, *n;
	int err;

	err = synth_walk(rp, true, &dir);
	if (err)
		return err;
	err = rp_begin_write(rp);
	if (!err)
		err = synth_lookup(from, old_name, strlen(old_name), &n);
	if (err)
		goto out;
	if (missing_is_error(dir)) {
		struct synth_node *target = NULL;

		err = synth_lookup(dir, rp_component(rp), rp_component_len(rp), &target);
		if (err) {
			synth_node_unref(n);
			goto out;
		}
		synth_node_unref(target);
	}
	err = synth_permission(from, rp_cred(rp), W_OK | X_OK);
	if (!err)
		err = synth_permission(dir, rp_cred(rp), W_OK | X_OK);
	if (!err && (args->flags || !from->ops->rename))
		err = args->flags ? -EINVAL : -EPERM;
	if (!err)
		err = from->ops->rename(from, n, dir, rp_component(rp), rp_component_len(rp));
	if (!err)
		synth_node_forget(n);
	synth_node_unref(n);
out:
	synth_node_unref(dir);
	return err;
}

/* ---- the rest ---- */

static int synth_get_parent(struct dentry *d, struct dentry **ret_parent, char *name, size_t size)
{
	struct synth_node *n = synth_node_of(d);

	*ret_parent = NULL;
	if (size)
		name[0] = '\0';
	if (!n->parent)
		return 0;
	if (size) {
		size_t len = MIN((size_t)n->name_len, size - 1);

		memcpy(name, n->name, len);
		name[len] = '\0';
	}
	dentry_ref(&n->parent->dentry);
	*ret_parent = &n->parent->dentry;
	return atomic_load_explicit(&d->flags, memory_order_relaxed) & DENTRY_DEAD ? -ENOENT : 0;
}

static uint32_t synth_dentry_type(struct dentry *d)
{
	return atomic_load_explicit(&synth_node_of(d)->mode, memory_order_relaxed) & S_IFMT;
}

static uint64_t synth_inode_key(struct dentry *d)
{
	return synth_node_of(d)->ino;
}

static bool synth_is_descendant(struct dentry *d, struct dentry *ancestor)
{
	/* A node's parents are pinned and never change. */
	for (struct synth_node *n = synth_node_of(d); n; n = n->parent)
		if (&n->dentry == ancestor)
			return true;
	return false;
}

static int synth_get_endpoint_at(struct filesystem *fs unused_arg, struct resolving_path *rp,
				 struct vfs_endpoint **ret unused_arg)
{
	struct synth_node *n;
	int err = synth_walk(rp, false, &n);

	if (err)
		return err;
	err = synth_permission(n, rp_cred(rp), W_OK);
	synth_node_unref(n);
	return err ? err : -ECONNREFUSED;
}

static void fs_free_cb(struct rcu_cb *cb)
{
	free(container_of(cb, struct synth_fs, fs.rcu));
}

static void synth_release(struct filesystem *fs)
{
	struct synth_fs *sfs = synth_fs_of(fs);

	synth_drop_permanent(sfs);
	if (sfs->release)
		sfs->release(sfs->priv);
	filesystem_fini(fs);
	rcu_call(&fs->rcu, fs_free_cb);
}

#define SYNTH_OPS                                                                                 \
	.get_dentry_at = synth_get_dentry_at, .open_at = synth_open_at, .stat_at = synth_stat_at, \
	.set_stat_at = synth_set_stat_at, .access_at = synth_access_at,                           \
	.mkdir_at = synth_mkdir_at, .mknod_at = synth_mknod_at, .link_at = synth_link_at,         \
	.symlink_at = synth_symlink_at, .readlink_at = synth_readlink_at,                         \
	.rename_at = synth_rename_at, .unlink_at = synth_unlink_at, .rmdir_at = synth_rmdir_at,   \
	.get_endpoint_at = synth_get_endpoint_at, .get_parent = synth_get_parent,                 \
	.is_descendant = synth_is_descendant, .dentry_type = synth_dentry_type,                   \
	.inode_key = synth_inode_key, .dentry_release = synth_dentry_release,                     \
	.release = synth_release

const struct filesystem_ops synth_filesystem_ops = {SYNTH_OPS};

/* For types that were registered with the constant table itself. */
static struct filesystem_ops complete_ops = {SYNTH_OPS};

__attribute__((constructor)) static void synth_complete_ops(void)
{
	fs_ops_complete(&complete_ops);
}

int synth_fs_create(const struct filesystem_type *type, const char *source, uint64_t magic,
		    const struct synth_entry *root, void *priv, void (*release)(void *priv),
		    struct filesystem **ret_fs, struct dentry **ret_root)
{
	struct synth_fs *sfs = calloc(1, sizeof(*sfs));
	struct synth_node *n;
	int err;

	if (!sfs)
		return -ENOMEM;
	err = filesystem_init(&sfs->fs, type, type->ops ? type->ops : &complete_ops, source);
	if (err) {
		free(sfs);
		return err;
	}
	sfs->fs.magic = magic;
	sfs->fs.rcu_walk = sfs->fs.path_cache = true;
	mutex_init(&sfs->lock, LOCK_FS_DIR, "synth");
	sfs->priv = priv;
	err = synth_root_create(&sfs->fs, root, priv, &n);
	if (err) {
		filesystem_unref(&sfs->fs);
		return err;
	}
	sfs->release = release;
	*ret_fs = &sfs->fs;
	*ret_root = &n->dentry;
	return 0;
}

void *synth_fs_priv(struct filesystem *fs)
{
	return synth_fs_of(fs)->priv;
}
