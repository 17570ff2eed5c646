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

/* The table's reference and the operation's own: more means that somebody uses it. */
#define IDLE_REFS 2

static int reply_error(uint32_t err)
{
	return err == 0 ? 0 : err < 4096 ? -(int)err : -EIO;
}

/* ---- creation ---- */

/* A creation under way. */
struct creation {
	struct gofer_fs *fs;
	struct resolving_path *rp;
	struct remote_dentry *dir; /* a reference */
	struct perm_inode pi; /* dir's */
	struct gofer_where where; /* of the new name */
	char name[VFS_NAME_MAX + 1];
	size_t len;
	bool is_dir;
};

static bool exists(struct creation *c)
{
	struct remote_dentry *d;

	if (gofer_lookup(c->fs, c->dir, rp_component(c->rp), rp_component_len(c->rp), &d))
		return false;
	remote_dentry_unref(d);
	return true;
}

static int check_creation(struct creation *c)
{
	int name_err = rp_check_create_name(c->rp, c->is_dir), err = 0;
	struct remote_dentry *d;
	bool negative;

	/* -ENOENT is only due when the name is not there. */
	if (name_err && name_err != -ENOENT)
		return name_err;
	d = gofer_cache_find(c->fs, c->dir, rp_component(c->rp), rp_component_len(c->rp),
			     &negative);
	if (d) {
		remote_dentry_unref(d);
		if (!c->fs->shared || exists(c))
			return -EEXIST;
	}
	gofer_inode_perm(gofer_inode_of(c->dir), &c->pi);
	err = name_err ? name_err : rp_begin_write(c->rp);
	if (!err)
		err = remote_is_dead(c->dir) ? -ENOENT
					     : vfs_permission(rp_cred(c->rp), &c->pi, W_OK | X_OK);
	if (err && !negative && !remote_is_dead(c->dir) && exists(c))
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
	remote_dentry_unref(c->dir);
out_unlock:
	rwlock_write_unlock(&c->fs->tree_lock);
	return err;
}

/* Enters the reply; ret_child may be NULL. Ends the creation. */
static int end_creation(struct creation *c, int err, uint32_t reply_err,
			const struct p9_nodes *nodes, const struct p9_str *target,
			struct vfs_endpoint *endpoint)
{
	struct remote_dentry *child = NULL;
	struct p9_node node;

	if (!err)
		err = reply_error(reply_err);
	if (!err && nodes->count == 2) {
		p9_nodes_get(nodes, 0, &node);
		gofer_inode_update(gofer_inode_of(c->dir), &node);
		p9_nodes_get(nodes, 1, &node);
		/* It exists: not to remember it is no failure of the call. */
		if (gofer_cache_enter(c->fs, c->dir, c->name, c->len, &node, target, &child)) {
			remote_forget_negative(&c->fs->dcache, c->dir, c->name, c->len);
			child = NULL;
		}
	} else {
		remote_forget_negative(&c->fs->dcache, c->dir, c->name, c->len);
	}
	if (child && endpoint) {
		mutex_lock(&gofer_inode_of(child)->lock);
		if (!gofer_inode_of(child)->endpoint && ref_tryget(&endpoint->ref))
			gofer_inode_of(child)->endpoint = endpoint;
		mutex_unlock(&gofer_inode_of(child)->lock);
		/* The host knows nothing of it: the dentry stays while it has its name. */
		if (!gofer_inode_of(child)->endpoint_dentry)
			gofer_inode_of(child)->endpoint_dentry = remote_dentry_ref(child);
	}
	rwlock_write_unlock(&c->fs->tree_lock);
	if (!err)
		vfs_notify_name(&c->dir->d, IN_CREATE, 0, c->name, c->len, c->is_dir);
	remote_dentry_unref(child);
	remote_dentry_unref(c->dir);
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
	struct remote_dentry *old = remote_dentry_of(old_base);
	struct p9_msg t = {.type = P9_Tmlink};
	struct gofer_where old_where;
	struct perm_inode pi;
	struct creation c;
	struct p9_call call;
	int err = begin_creation(&c, fs, rp, false);

	/* may_linkat() speaks before the new directory's permissions. */
	gofer_inode_perm(gofer_inode_of(old), &pi);
	if (err == -EACCES && vfs_may_linkat(rp_cred(rp), &pi))
		return vfs_may_linkat(rp_cred(rp), &pi);
	if (err)
		return err;
	err = vfs_may_linkat(rp_cred(rp), &pi);
	if (!err && remote_is_dir(old))
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
			   &(struct p9_str){gofer_inode_of(old)->target,
					    (uint16_t)gofer_inode_of(old)->target_len},
			   NULL);
	p9_call_fini(&call);
	return err;
}

/* ---- removal ---- */

/* A fid to keep `d` by when its name goes, if anybody uses it. */
static uint32_t keep_fid(struct gofer_fs *fs, const struct remote_dentry *d)
{
	if (gofer_inode_of(d)->fid != P9_NOFID || ref_read(&d->d.ref) <= IDLE_REFS)
		return P9_NOFID;
	return p9_fid_alloc(fs->conn);
}

/* d lost its name; node: its attributes since, or NULL. */
static void removed(struct remote_dentry *d, const struct p9_node *node, uint32_t keepfid,
		    bool bound)
{
	bool gone = remote_is_dir(d) || !node || node->nlink == 0;
	struct remote_dentry *pinned = gofer_inode_of(d)->endpoint_dentry;

	if (node && (node->mode & S_IFMT) == d->inode->type)
		gofer_inode_update(gofer_inode_of(d), node);
	if (gone && remote_is_dir(d)) {
		mutex_lock(&gofer_inode_of(d)->lock);
		gofer_inode_of(d)->attr.nlink = 0;
		mutex_unlock(&gofer_inode_of(d)->lock);
	}
	if (gone)
		gofer_inode_unhash(gofer_inode_of(d));
	if (bound)
		gofer_inode_of(d)->fid = keepfid;
	vfs_dentry_delete_end(&d->d);
	if (pinned == d) {
		gofer_inode_of(d)->endpoint_dentry = NULL;
		remote_dentry_unref(pinned);
	}
}

static int check_removal(struct gofer_fs *fs, struct resolving_path *rp, struct remote_dentry *dir,
			 bool is_dir, struct remote_dentry **ret)
{
	struct perm_inode dir_pi, pi;
	struct remote_dentry *d;
	int err = rp_check_remove_name(rp, is_dir);

	/* "." and "..", then a read-only mount, then a name too long. */
	if (!err || err == -ENAMETOOLONG) {
		int write_err = rp_begin_write(rp);

		err = write_err ? write_err : err && remote_is_dead(dir) ? -ENOENT : err;
	}
	if (err)
		return err;
	err = gofer_lookup(fs, dir, rp_component(rp), rp_component_len(rp), &d);
	if (err)
		return err;
	if (rp->trailing_slash && !is_dir)
		err = remote_is_dir(d) ? -EISDIR : -ENOTDIR;
	gofer_inode_perm(gofer_inode_of(dir), &dir_pi);
	gofer_inode_perm(gofer_inode_of(d), &pi);
	if (!err)
		err = vfs_may_delete(rp_cred(rp), &dir_pi, &pi, is_dir);
	if (!err)
		err = vfs_dentry_delete_begin(rp, &d->d);
	if (err)
		remote_dentry_unref(d);
	else
		*ret = d;
	return err;
}

static int remove_locked(struct gofer_fs *fs, struct remote_dentry *dir, struct remote_dentry *d,
			 bool is_dir)
{
	const struct remote_key *key = rcu_load(d->key);
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
		gofer_inode_update(gofer_inode_of(dir), &node);
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
	struct remote_dentry *dir, *d = NULL;
	const struct remote_key *key;
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

		mutex_lock(&gofer_inode_of(d)->lock);
		gone = is_dir || gofer_inode_of(d)->attr.nlink == 0;
		mutex_unlock(&gofer_inode_of(d)->lock);
		key = rcu_load(d->key);
		vfs_notify_name(&dir->d, IN_DELETE, 0, key->name, key->len, is_dir);
		vfs_notify_self(&d->d, gone ? IN_DELETE_SELF : IN_ATTRIB, is_dir);
	}
	remote_dentry_unref(d);
	remote_dentry_unref(dir);
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

static struct gofer_fs *renaming_fs(const struct remote_renaming *r)
{
	return gofer_fs_of(r->olddir->d.fs);
}

static void update_from(struct remote_dentry *d, const struct p9_nodes *nodes, unsigned i)
{
	struct p9_node node;

	if (i >= nodes->count)
		return;
	p9_nodes_get(nodes, i, &node);
	if ((node.mode & S_IFMT) == d->inode->type)
		gofer_inode_update(gofer_inode_of(d), &node);
}

/* The reply's consequences for the cache. */
static void renamed(struct remote_renaming *r, const struct p9_Rmrename *reply, uint32_t keepfid)
{
	struct remote_dentry *olddir = r->olddir;
	struct p9_node node;

	update_from(r->olddir, &reply->nodes, 0);
	update_from(r->newdir, &reply->nodes, 1);
	update_from(r->old, &reply->nodes, 2);
	if (r->flags & REMOTE_RENAME_EXCHANGE) {
		update_from(r->new_, &reply->nodes, 3);
		remote_exchange(r->c, r->old, r->new_);
		return;
	}
	if (r->new_) {
		gofer_cache_remove(renaming_fs(r), r->new_);
		if (reply->nodes.count > 3)
			p9_nodes_get(&reply->nodes, 3, &node);
		removed(r->new_, reply->nodes.count > 3 ? &node : NULL, keepfid, reply->bound);
	}
	remote_move(r->c, r->old, r->newdir, r->new_name, r->new_len);
	if (!(r->flags & REMOTE_RENAME_WHITEOUT))
		gofer_cache_enter_negative(renaming_fs(r), olddir, r->old_name, r->old_len);
}

/* The server made the whiteout; it belongs to the caller. The rename is done: a failure here has nobody to tell. */
static void own_whiteout(struct remote_renaming *r)
{
	struct setattr_args a = {.valid = SETATTR_UID | SETATTR_GID};
	struct remote_dentry *d;
	struct perm_inode pi;
	uint32_t mode = S_IFCHR;

	gofer_inode_perm(gofer_inode_of(r->olddir), &pi);
	vfs_init_owner(rp_cred(r->rp), &pi, &mode, &a.uid, &a.gid);
	remote_forget_negative(r->c, r->olddir, r->old_name, r->old_len);
	if (gofer_lookup(renaming_fs(r), r->olddir, r->old_name, r->old_len, &d))
		return;
	(void)!gofer_setattr_locked(renaming_fs(r), d, &a);
	remote_dentry_unref(d);
}

static int rename_locked(struct remote_renaming *r)
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
	if (r->new_ && !(r->flags & REMOTE_RENAME_EXCHANGE))
		t.Tmrename.keepfid = keep_fid(renaming_fs(r), r->new_);
	err = p9_rpc(renaming_fs(r)->conn, &call, &t);
	if (err)
		return err;
	renamed(r, &call.r.Rmrename, t.Tmrename.keepfid);
	p9_call_fini(&call);
	if (r->flags & REMOTE_RENAME_WHITEOUT)
		own_whiteout(r);
	return 0;
}

static int find_both(struct remote_renaming *r)
{
	struct gofer_fs *fs = renaming_fs(r);
	int err;

	r->old_len = strlen(r->old_name);
	if (remote_is_dead(r->olddir))
		return -ENOENT;
	if (r->old_len > VFS_NAME_MAX)
		return -ENAMETOOLONG;
	err = gofer_lookup(fs, r->olddir, r->old_name, r->old_len, &r->old);
	if (!err)
		err = remote_rename_names(r);
	if (err)
		return err;
	err = gofer_lookup(fs, r->newdir, r->new_name, r->new_len, &r->new_);
	return err == -ENOENT ? 0 : err;
}

int gofer_rename_at(struct filesystem *base, struct resolving_path *rp, struct dentry *old_parent,
		    const char *old_name, bool old_must_be_dir, const struct rename_args *args)
{
	struct gofer_fs *fs = gofer_fs_of(base);
	struct remote_renaming r = {.c = &fs->dcache,
				    .rp = rp,
				    .olddir = remote_dentry_of(old_parent),
				    .old_name = old_name,
				    .flags = args->flags,
				    .old_must_be_dir = old_must_be_dir};
	bool same = false;
	int err;

	rwlock_write_lock(&fs->tree_lock);
	err = gofer_walk(fs, rp, true, &r.newdir);
	if (err) {
		rwlock_write_unlock(&fs->tree_lock);
		return err;
	}
	err = rp_begin_write(rp);
	if (!err)
		err = find_both(&r);
	if (!err)
		err = remote_rename_shape(&r);
	/* Two names of one file: nothing to do, and nothing is. */
	same = !err && r.new_ && r.new_->inode == r.old->inode;
	if (!err && !same)
		err = remote_rename_rights(&r);
	if (!err && !same)
		err = rename_locked(&r);
	rwlock_write_unlock(&fs->tree_lock);
	if (!err && !same)
		remote_rename_notify(&r);
	remote_rename_fini(&r);
	return err;
}
