/* fsimpl/gofer/path_ops.c - filesystem_ops that look, and set_stat. */
#include <string.h>
#include <unistd.h>

#include "fsimpl/gofer/internal.h"
#include "vfs/inotify.h"

/* Walks to the end with tree_lock held for reading just for that. */
static int walk_to(struct filesystem *base, struct resolving_path *rp, struct remote_dentry **ret)
{
	struct gofer_fs *fs = gofer_fs_of(base);
	int err;

	err = rwlock_read_lock_killable(&fs->tree_lock);
	if (err)
		return err;
	err = gofer_walk(fs, rp, false, NULL, ret);
	rwlock_read_unlock(&fs->tree_lock);
	return err;
}

int gofer_get_dentry_at(struct filesystem *fs, struct resolving_path *rp,
			struct dentry **ret_dentry)
{
	struct remote_dentry *d;
	int err = walk_to(fs, rp, &d);

	if (!err)
		*ret_dentry = &d->d;
	return err;
}

int gofer_stat_at(struct filesystem *fs, struct resolving_path *rp, const struct stat_args *args,
		  struct moat_statx *ret)
{
	struct remote_dentry *d;
	int err = walk_to(fs, rp, &d);

	(void)args;
	if (err)
		return err;
	gofer_plain_freshen(d);
	gofer_inode_stat(gofer_inode_of(d), ret);
	remote_dentry_unref(d);
	return 0;
}

int gofer_access_at(struct filesystem *fs, struct resolving_path *rp, int mask)
{
	struct remote_dentry *d;
	struct perm_inode pi;
	int err = walk_to(fs, rp, &d);

	if (err)
		return err;
	gofer_attr_asked(gofer_inode_of(d));
	rcu_read_begin();
	gofer_inode_perm(gofer_inode_of(d), &pi);
	err = remote_access(rp, &pi, mask);
	rcu_read_end();
	remote_dentry_unref(d);
	return err;
}

int gofer_readlink_at(struct filesystem *fs, struct resolving_path *rp, char *buf, size_t size,
		      size_t *ret_len)
{
	struct remote_dentry *d;
	int err = walk_to(fs, rp, &d);

	if (err)
		return err;
	if (d->inode->type == S_IFLNK) {
		*ret_len = MIN(size, gofer_inode_of(d)->target_len);
		memcpy(buf, gofer_inode_of(d)->target, *ret_len);
	} else {
		err = -EINVAL;
	}
	remote_dentry_unref(d);
	return err;
}

static int permission(struct resolving_path *rp, const struct remote_dentry *d, int mask)
{
	struct perm_inode pi;
	int err;

	rcu_read_begin();
	gofer_inode_perm(gofer_inode_of(d), &pi);
	err = vfs_permission(rp_cred(rp), &pi, mask);
	rcu_read_end();
	return err;
}

int gofer_get_endpoint_at(struct filesystem *fs, struct resolving_path *rp,
			  struct vfs_endpoint **ret)
{
	struct remote_dentry *d;
	int err = walk_to(fs, rp, &d);
	bool host;

	if (err)
		return err;
	err = permission(rp, d, W_OK);
	if (!err) {
		mutex_lock(&gofer_inode_of(d)->lock);
		*ret = d->inode->type == S_IFSOCK ? gofer_inode_of(d)->endpoint : NULL;
		if (!*ret || !ref_tryget(&(*ret)->ref))
			err = -ECONNREFUSED;
		host = !*ret && d->inode->type == S_IFSOCK && gofer_fs_of(fs)->uds_open;
		mutex_unlock(&gofer_inode_of(d)->lock);
		if (host)
			err = gofer_host_endpoint(d, ret);
	}
	remote_dentry_unref(d);
	return err;
}

int gofer_statfs(struct filesystem *base, struct dentry *d, struct statfs *ret)
{
	struct gofer_fs *fs = gofer_fs_of(base);
	struct p9_msg t = {.type = P9_Tstatfs};
	const struct p9_Rstatfs *r;
	struct p9_call call;
	int err;

	(void)d;
	t.Tstatfs.fid = fs->root_fid;
	err = p9_rpc(fs->conn, &call, &t);
	if (err)
		return err;
	r = &call.r.Rstatfs;
	memset(ret, 0, sizeof(*ret));
	/* Programs ask whether they are on ext4 or tmpfs: the host's type, as Linux's client shows it. */
	ret->f_type = r->type ? r->type : V9FS_MAGIC;
	ret->f_bsize = r->bsize;
	ret->f_frsize = r->bsize;
	ret->f_blocks = r->blocks;
	ret->f_bfree = r->bfree;
	ret->f_bavail = r->bavail;
	ret->f_files = r->files;
	ret->f_ffree = r->ffree;
	memcpy(&ret->f_fsid, &r->fsid, sizeof(ret->f_fsid));
	ret->f_namelen = r->namelen ? MIN(r->namelen, (uint32_t)VFS_NAME_MAX) : VFS_NAME_MAX;
	p9_call_fini(&call);
	return 0;
}

/* ---- set_stat ---- */

static void fill_setattr(struct p9_Tmsetattr *t, const struct setattr_args *a)
{
	unsigned v = a->valid;

	t->valid = (v & SETATTR_MODE ? P9_SETATTR_MODE : 0) |
		   (v & SETATTR_UID ? P9_SETATTR_UID : 0) | (v & SETATTR_GID ? P9_SETATTR_GID : 0) |
		   (v & SETATTR_SIZE ? P9_SETATTR_SIZE : 0) |
		   (v & SETATTR_ATIME ? P9_SETATTR_ATIME | P9_SETATTR_ATIME_SET : 0) |
		   (v & SETATTR_MTIME ? P9_SETATTR_MTIME | P9_SETATTR_MTIME_SET : 0) |
		   (v & SETATTR_ATIME_NOW ? P9_SETATTR_ATIME : 0) |
		   (v & SETATTR_MTIME_NOW ? P9_SETATTR_MTIME : 0);
	t->mode = a->mode & 07777;
	t->uid = a->uid;
	t->gid = a->gid;
	t->size = a->size;
	t->atime_sec = (uint64_t)a->atime.sec;
	t->atime_nsec = a->atime.nsec;
	t->mtime_sec = (uint64_t)a->mtime.sec;
	t->mtime_nsec = a->mtime.nsec;
}

int gofer_setattr_locked(struct gofer_fs *fs, struct remote_dentry *d,
			 const struct setattr_args *args)
{
	struct p9_msg t = {.type = P9_Tmsetattr};
	struct gofer_where where;
	struct p9_call call;
	int err = gofer_where(d, &where);

	if (err)
		return err;
	t.Tmsetattr.fid = where.fid;
	t.Tmsetattr.path = gofer_where_path(&where);
	fill_setattr(&t.Tmsetattr, args);
	err = p9_rpc(fs->conn, &call, &t);
	if (err)
		return err;
	if ((call.r.Rmsetattr.node.mode & S_IFMT) == d->inode->type)
		gofer_inode_update(gofer_inode_of(d), &call.r.Rmsetattr.node);
	p9_call_fini(&call);
	if (args->valid & (SETATTR_MODE | SETATTR_UID | SETATTR_GID)) {
		gofer_acl_forget(gofer_inode_of(d));
		dentry_path_changed(&d->d);
	}
	return 0;
}

/* Drops tree_lock. */
static int setattr_unlock(struct gofer_fs *fs, struct remote_dentry *d,
			  const struct setattr_args *args)
{
	int err = gofer_setattr_locked(fs, d, args);

	rwlock_write_unlock(&fs->tree_lock);
	if (!err && (args->valid & SETATTR_SIZE))
		gofer_inode_truncated(gofer_inode_of(d), args->size);
	return err;
}

/* Not killable: it may belong to what is done already. */
int gofer_setattr(struct gofer_fs *fs, struct remote_dentry *d, const struct setattr_args *args)
{
	gofer_change_lock(fs);
	return setattr_unlock(fs, d, args);
}

int gofer_set_stat_at(struct filesystem *base, struct resolving_path *rp,
		      const struct setattr_args *args)
{
	struct gofer_fs *fs = gofer_fs_of(base);
	struct setattr_args a = *args;
	struct remote_dentry *d;
	struct perm_inode pi;
	bool has_size = a.valid & SETATTR_SIZE;
	int err = walk_to(base, rp, &d);

	if (err)
		return err;
	gofer_inode_perm(gofer_inode_of(d), &pi);
	if (has_size && !S_ISREG(pi.mode))
		err = S_ISDIR(pi.mode) ? -EISDIR : -EINVAL;
	/* truncate(2): the right to write before the mount's. */
	if (!err && has_size && !(a.valid & (SETATTR_FILE | SETATTR_OPEN)))
		err = permission(rp, d, W_OK);
	if (!err)
		err = rp_begin_write(rp);
	if (!err) {
		rcu_read_begin();
		gofer_inode_perm(gofer_inode_of(d), &pi);
		err = vfs_may_setattr(rp_cred(rp), &pi, &a);
		rcu_read_end();
	}
	if (!err && has_size) {
		uint32_t kept = vfs_kill_priv_mode_gid(rp_cred(rp), pi.mode, pi.gid);

		if (kept != pi.mode && !(a.valid & SETATTR_MODE)) {
			a.valid |= SETATTR_MODE;
			a.mode = kept & 07777;
		}
		err = op_lock_killable(&gofer_inode_of(d)->write_lock);
	}
	if (!err) {
		err = gofer_change_lock_killable(fs);
		if (!err)
			err = setattr_unlock(fs, d, &a);
		if (has_size)
			op_unlock(&gofer_inode_of(d)->write_lock);
	}
	if (!err)
		vfs_notify_change(&d->d, a.valid);
	remote_dentry_unref(d);
	return err;
}
