/*
 * fsimpl/gofer/change.c - creations, links, removals and renames: one request each, under tree_lock held for writing.
 *
 * What the guest may do is decided here from the cached attributes of the directory; the server then does it as one host call. A name that
 * nothing is known about is not looked up first: the host's EEXIST says it. Only when the answer will be an error anyway is it
 * looked up, because Linux reports EEXIST before EROFS and EACCES.
 */
#include <linux/capability.h>
#include <string.h>
#include <unistd.h>

#include "fsimpl/gofer/internal.h"
#include "vfs/inotify.h"

#define RENAME_FLAG_NOREPLACE 1u
#define RENAME_FLAG_EXCHANGE 2u
#define RENAME_FLAG_WHITEOUT 4u

/* The table's reference and the operation's own: more means that somebody uses it. */
#define IDLE_REFS 2

static bool is_dead(const struct gofer_dentry *d)
{
	return atomic_load_explicit(&d->d.flags, memory_order_acquire) & DENTRY_DEAD;
}

static int reply_error(uint32_t err)
{
	return err == 0 ? 0 : err < 4096 ? -(int)err : -EIO;
}

/* ---- creation ---- */

/* A creation under way. */
struct creation {
	struct gofer_fs *fs;
	struct resolving_path *rp;
	struct gofer_dentry *dir; /* a reference */
	struct perm_inode pi; /* dir's */
	struct gofer_where where; /* of the new name */
	char name[VFS_NAME_MAX + 1];
	size_t len;
	bool is_dir;
};

static bool exists(struct creation *c)
{
	struct gofer_dentry *d;

	if (gofer_lookup(c->fs, c->dir, rp_component(c->rp), rp_component_len(c->rp), &d))
		return false;
	gofer_dentry_unref(d);
	return true;
}

static int check_creation(struct creation *c)
{
	int name_err = rp_check_create_name(c->rp, c->is_dir), err = 0;
	struct gofer_dentry *d;
	bool negative;

	/* -ENOENT is only due when the name is not there. */
	if (name_err && name_err != -ENOENT)
		return name_err;
	d = gofer_cache_find(c->fs, c->dir, rp_component(c->rp), rp_component_len(c->rp),
			     &negative);
	if (d) {
		gofer_dentry_unref(d);
		if (!c->fs->shared || exists(c))
			return -EEXIST;
	}
	gofer_inode_perm(c->dir->inode, &c->pi);
	err = name_err ? name_err : rp_begin_write(c->rp);
	if (!err)
		err = is_dead(c->dir) ? -ENOENT
				      : vfs_permission(rp_cred(c->rp), &c->pi, W_OK | X_OK);
	if (err && !negative && !is_dead(c->dir) && exists(c))
		return -EEXIST;
	return err;
}

/* Takes tree_lock for writing; on success the caller ends with end_creation(). */
static int begin_creation(struct creation *c, struct filesystem *base, struct resolving_path *rp,
			  bool is_dir)
{
	int err;

	c->fs = gofer_fs_of(base);
	c->rp = rp;
	c->is_dir = is_dir;
	rwlock_write_lock(&c->fs->tree_lock);
	err = gofer_walk(c->fs, rp, true, &c->dir);
	if (err)
		goto out_unlock;
	err = check_creation(c);
	if (err)
		goto out_unref;
	c->len = rp_component_len(rp);
	memcpy(c->name, rp_component(rp), c->len);
	c->name[c->len] = '\0';
	err = gofer_where_child(c->dir, c->name, c->len, &c->where);
	if (err)
		goto out_unref;
	return 0;
out_unref:
	gofer_dentry_unref(c->dir);
out_unlock:
	rwlock_write_unlock(&c->fs->tree_lock);
	return err;
}

/* Enters the reply; ret_child may be NULL. Ends the creation. */
static int end_creation(struct creation *c, int err, uint32_t reply_err,
			const struct p9_nodes *nodes, const struct p9_str *target,
			struct vfs_endpoint *endpoint)
{
	struct gofer_dentry *child = NULL;
	struct p9_node node;

	if (!err)
		err = reply_error(reply_err);
	if (!err && nodes->count == 2) {
		p9_nodes_get(nodes, 0, &node);
		gofer_inode_update(c->dir->inode, &node);
		p9_nodes_get(nodes, 1, &node);
		/* It exists: not to remember it is no failure of the call. */
		if (gofer_cache_enter(c->fs, c->dir, c->name, c->len, &node, target, &child)) {
			gofer_cache_forget_negative(c->fs, c->dir, c->name, c->len);
			child = NULL;
		}
	} else {
		gofer_cache_forget_negative(c->fs, c->dir, c->name, c->len);
	}
	if (child && endpoint) {
		mutex_lock(&child->inode->lock);
		if (!child->inode->endpoint && ref_tryget(&endpoint->ref))
			child->inode->endpoint = endpoint;
		mutex_unlock(&child->inode->lock);
		/* The host knows nothing of it: the dentry stays while it has its name. */
		if (!child->inode->endpoint_dentry)
			child->inode->endpoint_dentry = gofer_dentry_ref(child);
	}
	rwlock_write_unlock(&c->fs->tree_lock);
	if (!err)
		vfs_notify_name(&c->dir->d, IN_CREATE, 0, c->name, c->len, c->is_dir);
	gofer_dentry_unref(child);
	gofer_dentry_unref(c->dir);
	return err;
}

static uint16_t parent_depth(const struct creation *c)
{
	return (uint16_t)(c->where.depth - 1);
}

int gofer_mkdir_at(struct filesystem *fs, struct resolving_path *rp, const struct mkdir_args *args)
{
	struct p9_msg t = {.type = P9_Tmmkdir};
	uint32_t mode = (args->mode & 01777) | S_IFDIR;
	struct creation c;
	struct p9_call call;
	int err = begin_creation(&c, fs, rp, true);

	if (err)
		return err;
	vfs_init_owner(rp_cred(rp), &c.pi, &mode, &t.Tmmkdir.uid, &t.Tmmkdir.gid);
	t.Tmmkdir.fid = c.where.fid;
	t.Tmmkdir.mode = mode & 07777;
	t.Tmmkdir.umask = args->umask;
	t.Tmmkdir.skip = parent_depth(&c);
	t.Tmmkdir.path = gofer_where_path(&c.where);
	err = p9_rpc(c.fs->conn, &call, &t);
	if (err)
		return end_creation(&c, err, 0, NULL, NULL, NULL);
	err = end_creation(&c, 0, call.r.Rmmkdir.err, &call.r.Rmmkdir.nodes, NULL, NULL);
	p9_call_fini(&call);
	return err;
}

int gofer_mknod_at(struct filesystem *fs, struct resolving_path *rp, const struct mknod_args *args)
{
	struct p9_msg t = {.type = P9_Tmmknod};
	uint32_t mode = args->mode;
	struct creation c;
	struct p9_call call;
	int err = begin_creation(&c, fs, rp, false);

	if (err)
		return err;
	if (!(mode & S_IFMT))
		mode |= S_IFREG;
	/* A whiteout, device 0:0, is no device. */
	if ((S_ISBLK(mode) || (S_ISCHR(mode) && (args->rdev_major || args->rdev_minor))) &&
	    !cred_has_cap(rp_cred(rp), CAP_MKNOD))
		return end_creation(&c, -EPERM, 0, NULL, NULL, NULL);
	vfs_init_owner(rp_cred(rp), &c.pi, &mode, &t.Tmmknod.uid, &t.Tmmknod.gid);
	t.Tmmknod.fid = c.where.fid;
	t.Tmmknod.mode = mode;
	t.Tmmknod.umask = args->umask;
	t.Tmmknod.major = args->rdev_major;
	t.Tmmknod.minor = args->rdev_minor;
	t.Tmmknod.skip = parent_depth(&c);
	t.Tmmknod.path = gofer_where_path(&c.where);
	err = p9_rpc(c.fs->conn, &call, &t);
	if (err)
		return end_creation(&c, err, 0, NULL, NULL, NULL);
	err = end_creation(&c, 0, call.r.Rmmknod.err, &call.r.Rmmknod.nodes, NULL, args->endpoint);
	p9_call_fini(&call);
	return err;
}

int gofer_symlink_at(struct filesystem *fs, struct resolving_path *rp, const char *target)
{
	struct p9_msg t = {.type = P9_Tmsymlink};
	uint32_t mode = S_IFLNK | 0777;
	struct p9_str str;
	struct creation c;
	struct p9_call call;
	int err = begin_creation(&c, fs, rp, false);

	if (err)
		return err;
	str = p9_str(target);
	vfs_init_owner(rp_cred(rp), &c.pi, &mode, &t.Tmsymlink.uid, &t.Tmsymlink.gid);
	t.Tmsymlink.fid = c.where.fid;
	t.Tmsymlink.target = str;
	t.Tmsymlink.skip = parent_depth(&c);
	t.Tmsymlink.path = gofer_where_path(&c.where);
	err = p9_rpc(c.fs->conn, &call, &t);
	if (err)
		return end_creation(&c, err, 0, NULL, NULL, NULL);
	err = end_creation(&c, 0, call.r.Rmsymlink.err, &call.r.Rmsymlink.nodes, &str, NULL);
	p9_call_fini(&call);
	return err;
}

int gofer_link_at(struct filesystem *fs, struct resolving_path *rp, struct dentry *old_base)
{
	struct gofer_dentry *old = gofer_dentry_of(old_base);
	struct p9_msg t = {.type = P9_Tmlink};
	struct gofer_where old_where;
	struct perm_inode pi;
	struct creation c;
	struct p9_call call;
	int err = begin_creation(&c, fs, rp, false);

	/* may_linkat() speaks before the new directory's permissions. */
	gofer_inode_perm(old->inode, &pi);
	if (err == -EACCES && vfs_may_linkat(rp_cred(rp), &pi))
		return vfs_may_linkat(rp_cred(rp), &pi);
	if (err)
		return err;
	err = vfs_may_linkat(rp_cred(rp), &pi);
	if (!err && gofer_is_dir(old))
		err = -EPERM;
	if (!err)
		err = gofer_where(old, &old_where);
	if (err)
		return end_creation(&c, err, 0, NULL, NULL, NULL);
	t.Tmlink.oldfid = old_where.fid;
	t.Tmlink.oldpath = gofer_where_path(&old_where);
	t.Tmlink.fid = c.where.fid;
	t.Tmlink.skip = parent_depth(&c);
	t.Tmlink.path = gofer_where_path(&c.where);
	err = p9_rpc(c.fs->conn, &call, &t);
	if (err)
		return end_creation(&c, err, 0, NULL, NULL, NULL);
	err = end_creation(&c, 0, call.r.Rmlink.err, &call.r.Rmlink.nodes,
			   &(struct p9_str){old->inode->target, (uint16_t)old->inode->target_len},
			   NULL);
	p9_call_fini(&call);
	return err;
}

/* ---- removal ---- */

/* A fid to keep `d` by when its name goes, if anybody uses it. */
static uint32_t keep_fid(struct gofer_fs *fs, const struct gofer_dentry *d)
{
	if (d->inode->fid != P9_NOFID || ref_read(&d->d.ref) <= IDLE_REFS)
		return P9_NOFID;
	return p9_fid_alloc(fs->conn);
}

/* d lost its name; node: its attributes since, or NULL. */
static void removed(struct gofer_dentry *d, const struct p9_node *node, uint32_t keepfid,
		    bool bound)
{
	bool gone = gofer_is_dir(d) || !node || node->nlink == 0;
	struct gofer_dentry *pinned = d->inode->endpoint_dentry;

	if (node && (node->mode & S_IFMT) == d->inode->type)
		gofer_inode_update(d->inode, node);
	if (gone && gofer_is_dir(d)) {
		mutex_lock(&d->inode->lock);
		d->inode->attr.nlink = 0;
		mutex_unlock(&d->inode->lock);
	}
	if (gone)
		gofer_inode_unhash(d->inode);
	if (bound)
		d->inode->fid = keepfid;
	vfs_dentry_delete_end(&d->d);
	if (pinned == d) {
		d->inode->endpoint_dentry = NULL;
		gofer_dentry_unref(pinned);
	}
}

static int check_removal(struct gofer_fs *fs, struct resolving_path *rp, struct gofer_dentry *dir,
			 bool is_dir, struct gofer_dentry **ret)
{
	struct perm_inode dir_pi, pi;
	struct gofer_dentry *d;
	int err = rp_check_remove_name(rp, is_dir);

	/* "." and "..", then a read-only mount, then a name too long. */
	if (!err || err == -ENAMETOOLONG) {
		int write_err = rp_begin_write(rp);

		err = write_err ? write_err : err && is_dead(dir) ? -ENOENT : err;
	}
	if (err)
		return err;
	err = gofer_lookup(fs, dir, rp_component(rp), rp_component_len(rp), &d);
	if (err)
		return err;
	if (rp->trailing_slash && !is_dir)
		err = gofer_is_dir(d) ? -EISDIR : -ENOTDIR;
	gofer_inode_perm(dir->inode, &dir_pi);
	gofer_inode_perm(d->inode, &pi);
	if (!err)
		err = vfs_may_delete(rp_cred(rp), &dir_pi, &pi, is_dir);
	if (!err)
		err = vfs_dentry_delete_begin(rp, &d->d);
	if (err)
		gofer_dentry_unref(d);
	else
		*ret = d;
	return err;
}

static int remove_locked(struct gofer_fs *fs, struct gofer_dentry *dir, struct gofer_dentry *d,
			 bool is_dir)
{
	const struct gofer_key *key = rcu_load(d->key);
	struct p9_msg t = {.type = P9_Tmunlink};
	struct gofer_where where;
	const struct p9_Rmunlink *r = NULL;
	struct p9_call call;
	struct p9_node node;
	int err;

	err = gofer_where_child(dir, key->name, key->len, &where);
	if (err)
		return err;
	t.Tmunlink.fid = where.fid;
	t.Tmunlink.flags = is_dir ? 0x200 : 0; /* AT_REMOVEDIR */
	t.Tmunlink.keepfid = keep_fid(fs, d);
	t.Tmunlink.skip = (uint16_t)(where.depth - 1);
	t.Tmunlink.path = gofer_where_path(&where);
	err = p9_rpc(fs->conn, &call, &t);
	if (err)
		return err;
	r = &call.r.Rmunlink;
	err = reply_error(r->err);
	if (!err && r->nodes.count == 2) {
		p9_nodes_get(&r->nodes, 0, &node);
		gofer_inode_update(dir->inode, &node);
		p9_nodes_get(&r->nodes, 1, &node);
		gofer_cache_remove(fs, d);
		removed(d, &node, t.Tmunlink.keepfid, r->bound);
	} else if (err == -ENOENT || !err) {
		/* A shared tree, or a server that forgot to tell. */
		gofer_cache_vanished(fs, dir, key->name, key->len);
		if (!err)
			removed(d, NULL, t.Tmunlink.keepfid, r->bound);
	}
	p9_call_fini(&call);
	return err;
}

static int remove_at(struct filesystem *base, struct resolving_path *rp, bool is_dir)
{
	struct gofer_fs *fs = gofer_fs_of(base);
	struct gofer_dentry *dir, *d = NULL;
	const struct gofer_key *key;
	int err;

	rwlock_write_lock(&fs->tree_lock);
	err = gofer_walk(fs, rp, true, &dir);
	if (err) {
		rwlock_write_unlock(&fs->tree_lock);
		return err;
	}
	err = check_removal(fs, rp, dir, is_dir, &d);
	if (!err)
		err = remove_locked(fs, dir, d, is_dir);
	rwlock_write_unlock(&fs->tree_lock);
	if (!err) {
		bool gone;

		mutex_lock(&d->inode->lock);
		gone = is_dir || d->inode->attr.nlink == 0;
		mutex_unlock(&d->inode->lock);
		key = rcu_load(d->key);
		vfs_notify_name(&dir->d, IN_DELETE, 0, key->name, key->len, is_dir);
		vfs_notify_self(&d->d, gone ? IN_DELETE_SELF : IN_ATTRIB, is_dir);
	}
	gofer_dentry_unref(d);
	gofer_dentry_unref(dir);
	return err;
}

int gofer_unlink_at(struct filesystem *fs, struct resolving_path *rp)
{
	return remove_at(fs, rp, false);
}

int gofer_rmdir_at(struct filesystem *fs, struct resolving_path *rp)
{
	return remove_at(fs, rp, true);
}

/* ---- rename ---- */

struct renaming {
	struct gofer_fs *fs;
	struct resolving_path *rp;
	struct gofer_dentry *olddir, *newdir; /* borrowed, a reference */
	const char *old_name;
	size_t old_len;
	char new_name[VFS_NAME_MAX + 1];
	size_t new_len;
	struct gofer_dentry *old, *new_; /* references; new_ may be NULL */
	unsigned flags;
	bool old_must_be_dir;
};

static bool is_below(const struct gofer_dentry *d, const struct gofer_dentry *top)
{
	for (; d; d = gofer_parent(d))
		if (d == top)
			return true;
	return false;
}

/* Shapes: what must be a directory, what exists, loops. As do_renameat2(). */
static int check_shape(const struct renaming *r)
{
	bool exchange = r->flags & RENAME_FLAG_EXCHANGE;

	if ((r->flags & RENAME_FLAG_NOREPLACE) && r->new_)
		return -EEXIST;
	if (exchange && !r->new_)
		return -ENOENT;
	if (exchange && !gofer_is_dir(r->new_) && r->rp->trailing_slash)
		return -ENOTDIR;
	if (!gofer_is_dir(r->old)) {
		if (r->old_must_be_dir || (!exchange && r->rp->trailing_slash))
			return -ENOTDIR;
	}
	if (is_below(r->newdir, r->old))
		return -EINVAL;
	if (r->new_ && is_below(r->olddir, r->new_))
		return exchange ? -EINVAL : -ENOTEMPTY;
	return 0;
}

static int check_rename_rights(const struct renaming *r)
{
	bool exchange = r->flags & RENAME_FLAG_EXCHANGE, moves = r->olddir != r->newdir;
	const struct cred *cred = rp_cred(r->rp);
	struct perm_inode olddir, newdir, old, new_;
	int err;

	gofer_inode_perm(r->olddir->inode, &olddir);
	gofer_inode_perm(r->newdir->inode, &newdir);
	gofer_inode_perm(r->old->inode, &old);
	err = vfs_may_delete(cred, &olddir, &old, gofer_is_dir(r->old));
	if (err)
		return err;
	if (!r->new_) {
		err = is_dead(r->newdir) ? -ENOENT : vfs_permission(cred, &newdir, W_OK | X_OK);
	} else {
		gofer_inode_perm(r->new_->inode, &new_);
		err = vfs_may_delete(cred, &newdir, &new_,
				     gofer_is_dir(exchange ? r->new_ : r->old));
	}
	/* Its ".." changes. */
	if (!err && moves && gofer_is_dir(r->old))
		err = vfs_permission(cred, &old, W_OK);
	if (!err && moves && exchange && gofer_is_dir(r->new_))
		err = vfs_permission(cred, &new_, W_OK);
	if (!err)
		err = vfs_dentry_delete_begin(r->rp, &r->old->d);
	if (!err && r->new_)
		err = vfs_dentry_delete_begin(r->rp, &r->new_->d);
	return err;
}

static void update_from(struct gofer_dentry *d, const struct p9_nodes *nodes, unsigned i)
{
	struct p9_node node;

	if (i >= nodes->count)
		return;
	p9_nodes_get(nodes, i, &node);
	if ((node.mode & S_IFMT) == d->inode->type)
		gofer_inode_update(d->inode, &node);
}

/* The reply's consequences for the cache. */
static void renamed(struct renaming *r, const struct p9_Rmrename *reply, uint32_t keepfid)
{
	struct gofer_dentry *olddir = r->olddir;
	struct p9_node node;

	update_from(r->olddir, &reply->nodes, 0);
	update_from(r->newdir, &reply->nodes, 1);
	update_from(r->old, &reply->nodes, 2);
	if (r->flags & RENAME_FLAG_EXCHANGE) {
		update_from(r->new_, &reply->nodes, 3);
		gofer_cache_exchange(r->fs, r->old, r->new_);
		return;
	}
	if (r->new_) {
		gofer_cache_remove(r->fs, r->new_);
		if (reply->nodes.count > 3)
			p9_nodes_get(&reply->nodes, 3, &node);
		removed(r->new_, reply->nodes.count > 3 ? &node : NULL, keepfid, reply->bound);
	}
	gofer_cache_move(r->fs, r->old, r->newdir, r->new_name, r->new_len);
	if (!(r->flags & RENAME_FLAG_WHITEOUT))
		gofer_cache_enter_negative(r->fs, olddir, r->old_name, r->old_len);
}

/* The server made the whiteout; it belongs to the caller. The rename is done: a failure here has nobody to tell. */
static void own_whiteout(struct renaming *r)
{
	struct setattr_args a = {.valid = SETATTR_UID | SETATTR_GID};
	struct gofer_dentry *d;
	struct perm_inode pi;
	uint32_t mode = S_IFCHR;

	gofer_inode_perm(r->olddir->inode, &pi);
	vfs_init_owner(rp_cred(r->rp), &pi, &mode, &a.uid, &a.gid);
	gofer_cache_forget_negative(r->fs, r->olddir, r->old_name, r->old_len);
	if (gofer_lookup(r->fs, r->olddir, r->old_name, r->old_len, &d))
		return;
	(void)!gofer_setattr_locked(r->fs, d, &a);
	gofer_dentry_unref(d);
}

static int rename_locked(struct renaming *r)
{
	struct p9_msg t = {.type = P9_Tmrename};
	struct gofer_where from, to;
	struct p9_call call;
	int err;

	err = gofer_where_child(r->olddir, r->old_name, r->old_len, &from);
	if (!err)
		err = gofer_where_child(r->newdir, r->new_name, r->new_len, &to);
	if (err)
		return err;
	t.Tmrename.oldfid = from.fid;
	t.Tmrename.oldpath = gofer_where_path(&from);
	t.Tmrename.fid = to.fid;
	t.Tmrename.path = gofer_where_path(&to);
	t.Tmrename.flags = r->flags;
	t.Tmrename.keepfid = P9_NOFID;
	if (r->new_ && !(r->flags & RENAME_FLAG_EXCHANGE))
		t.Tmrename.keepfid = keep_fid(r->fs, r->new_);
	err = p9_rpc(r->fs->conn, &call, &t);
	if (err)
		return err;
	renamed(r, &call.r.Rmrename, t.Tmrename.keepfid);
	p9_call_fini(&call);
	if (r->flags & RENAME_FLAG_WHITEOUT)
		own_whiteout(r);
	return 0;
}

static int find_both(struct renaming *r)
{
	int err;

	r->old_len = strlen(r->old_name);
	r->new_len = rp_component_len(r->rp);
	if (r->old_len > VFS_NAME_MAX)
		return is_dead(r->olddir) ? -ENOENT : -ENAMETOOLONG;
	if (is_dead(r->olddir))
		return -ENOENT;
	err = gofer_lookup(r->fs, r->olddir, r->old_name, r->old_len, &r->old);
	if (err)
		return err;
	if (is_dead(r->newdir))
		return -ENOENT;
	err = rp_check_name(r->rp);
	if (err)
		return err;
	memcpy(r->new_name, rp_component(r->rp), r->new_len);
	r->new_name[r->new_len] = '\0';
	err = gofer_lookup(r->fs, r->newdir, r->new_name, r->new_len, &r->new_);
	return err == -ENOENT ? 0 : err;
}

static void notify_renamed(const struct renaming *r)
{
	bool is_dir = gofer_is_dir(r->old);
	uint32_t cookie;

	if (!vfs_notify_wanted())
		return;
	cookie = vfs_notify_cookie();
	vfs_notify_name(&r->olddir->d, IN_MOVED_FROM, cookie, r->old_name, r->old_len, is_dir);
	vfs_notify_name(&r->newdir->d, IN_MOVED_TO, cookie, r->new_name, r->new_len, is_dir);
	vfs_notify_self(&r->old->d, IN_MOVE_SELF, is_dir);
	if (r->new_ && !(r->flags & RENAME_FLAG_EXCHANGE))
		vfs_notify_self(&r->new_->d, IN_DELETE_SELF, gofer_is_dir(r->new_));
}

int gofer_rename_at(struct filesystem *base, struct resolving_path *rp, struct dentry *old_parent,
		    const char *old_name, bool old_must_be_dir, const struct rename_args *args)
{
	struct renaming r = {.fs = gofer_fs_of(base),
			     .rp = rp,
			     .olddir = gofer_dentry_of(old_parent),
			     .old_name = old_name,
			     .flags = args->flags,
			     .old_must_be_dir = old_must_be_dir};
	bool same = false;
	int err;

	rwlock_write_lock(&r.fs->tree_lock);
	err = gofer_walk(r.fs, rp, true, &r.newdir);
	if (err) {
		rwlock_write_unlock(&r.fs->tree_lock);
		return err;
	}
	err = rp_begin_write(rp);
	if (!err)
		err = find_both(&r);
	if (!err)
		err = check_shape(&r);
	/* Two names of one file: nothing to do, and nothing is. */
	same = !err && r.new_ && r.new_->inode == r.old->inode;
	if (!err && !same)
		err = check_rename_rights(&r);
	if (!err && !same)
		err = rename_locked(&r);
	rwlock_write_unlock(&r.fs->tree_lock);
	if (!err && !same)
		notify_renamed(&r);
	gofer_dentry_unref(r.new_);
	gofer_dentry_unref(r.old);
	gofer_dentry_unref(r.newdir);
	return err;
}
