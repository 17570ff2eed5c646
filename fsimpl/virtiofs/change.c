/*
 * fsimpl/virtiofs/change.c - creations, links, removals and renames, under tree_lock held for writing.
 *
 * What the guest may do is decided here from the directory's attributes; the server then does it with the guest's user and group, so that
 * the host's own rules for new files (setgid directories) hold. It knows no supplementary groups: where it refuses what was
 * allowed here, the request is made as root and the owner set after it.
 */
#include <linux/capability.h>
#include <string.h>
#include <unistd.h>

#include "fsimpl/virtiofs/internal.h"
#include "vfs/inotify.h"

/* ---- creation ---- */

static int check_creation(struct virtiofs_creation *c)
{
	int name_err = rp_check_create_name(c->rp, c->is_dir), err;
	struct remote_dentry *d;
	struct perm_inode pi;

	/* -ENOENT is only due when the name is not there. */
	if (name_err && name_err != -ENOENT)
		return name_err;
	err = virtiofs_lookup(c->fs, c->dir, rp_component(c->rp), rp_component_len(c->rp), &d);
	if (!err) {
		remote_dentry_unref(d);
		return -EEXIST;
	}
	if (err != -ENOENT)
		return err;
	virtiofs_inode_perm(virtiofs_inode_of(c->dir), &c->pi);
	err = name_err ? name_err : rp_begin_write(c->rp);
	/* What may be linked comes before what may be done to the directory. */
	if (!err && c->linked)
		err = virtiofs_acl_ensure(rp_cred(c->rp), c->linked);
	if (!err && c->linked) {
		rcu_read_begin();
		virtiofs_inode_perm_acl(c->linked, &pi);
		err = vfs_may_linkat(rp_cred(c->rp), &pi);
		rcu_read_end();
	}
	if (!err)
		err = remote_is_dead(c->dir)
			      ? -ENOENT
			      : virtiofs_permission(rp_cred(c->rp), virtiofs_inode_of(c->dir),
						    W_OK | X_OK);
	return err;
}

int virtiofs_begin_creation(struct virtiofs_creation *c, struct filesystem *base,
			    struct resolving_path *rp, bool is_dir)
{
	int err;

	c->fs = virtiofs_fs_of(base);
	c->rp = rp;
	c->is_dir = is_dir;
	err = virtiofs_begin(c->fs, rp, true);
	if (err)
		return err;
	rwlock_write_lock(&c->fs->tree_lock);
	err = virtiofs_walk(c->fs, rp, true, virtiofs_now(c->fs).time, &c->dir);
	if (err)
		goto out_unlock;
	err = check_creation(c);
	if (err) {
		remote_dentry_unref(c->dir);
		goto out_unlock;
	}
	c->when = virtiofs_now(c->fs);
	c->len = rp_component_len(rp);
	memcpy(c->name, rp_component(rp), c->len);
	return 0;
out_unlock:
	rwlock_write_unlock(&c->fs->tree_lock);
	return err;
}

/* The owner that the guest's rules give, when the request had to be made as root. */
static int fix_owner(struct virtiofs_fs *fs, struct fuse_entry_out *e, uint32_t uid, uint32_t gid)
{
	struct fuse_setattr_in arg = {.valid = FATTR_UID | FATTR_GID, .uid = uid, .gid = gid};
	const uint32_t mode = e->attr.mode;
	struct fuse_attr_out out;
	struct vdev_call call = {
		.req = {.opcode = FUSE_SETATTR, .nodeid = e->nodeid, .arg = &arg},
		.ids_set = true,
		.reply = &out,
		.reply_size = sizeof(out),
	};
	ssize_t got = virtiofs_call(fs, &call);

	/* A new owner takes these away. */
	if (got >= 0 && (out.attr.mode ^ mode) & (S_ISUID | S_ISGID)) {
		arg.valid = FATTR_MODE;
		arg.mode = mode;
		got = virtiofs_call(fs, &call);
	}
	if (got < 0)
		return (int)got;
	if ((out.attr.mode ^ mode) & S_IFMT)
		return -EIO;
	e->attr = out.attr;
	return 0;
}

/* An entry that is no such file is nonsense: nothing is done with it. */
static ssize_t checked_entry(struct virtiofs_fs *fs, unsigned epoch, ssize_t got, uint32_t type,
			     struct fuse_entry_out *e)
{
	if (got >= 0 && virtiofs_entry_named(e, epoch))
		return -EIO;
	if (got < 0 || (fuse_entry_ok(e) && (e->attr.mode & S_IFMT) == type))
		return got;
	if (fuse_entry_ok(e))
		virtiofs_forget(fs, e->nodeid, 1);
	return -EIO;
}

ssize_t virtiofs_create_call(struct virtiofs_fs *fs, struct vdev_call *call, uint32_t type,
			     uint32_t uid, uint32_t gid, struct fuse_entry_out *e)
{
	unsigned epoch = vdev_epoch(fs->dev);
	ssize_t got;

	call->ids_set = true;
	call->req.uid = uid;
	call->req.gid = gid;
	got = virtiofs_call(fs, call);
	if (got != -EACCES || (!uid && !gid))
		return checked_entry(fs, epoch, got, type, e);
	call->req.uid = call->req.gid = 0;
	got = checked_entry(fs, epoch, virtiofs_call(fs, call), type, e);
	if (got >= 0) {
		int err = fix_owner(fs, e, uid, gid);

		if (err) {
			virtiofs_forget(fs, e->nodeid, 1);
			return err;
		}
	}
	return got;
}

int virtiofs_end_creation(struct virtiofs_creation *c, int err, const struct fuse_entry_out *e,
			  struct vfs_endpoint *endpoint)
{
	struct remote_dentry *child = NULL;

	virtiofs_inode_touched(virtiofs_inode_of(c->dir));
	if (!err)
		err = virtiofs_enter(c->fs, c->dir, c->name, c->len, e, c->when, &child);
	else
		remote_forget_negative(&c->fs->dcache, c->dir, c->name, c->len);
	if (child && endpoint) {
		struct virtiofs_inode *in = virtiofs_inode_of(child);

		mutex_lock(&in->lock);
		if (!in->endpoint && ref_tryget(&endpoint->ref))
			in->endpoint = endpoint;
		mutex_unlock(&in->lock);
		/* The host knows nothing of it: the dentry stays while it has its name. */
		if (!in->endpoint_dentry)
			in->endpoint_dentry = remote_dentry_ref(child);
	}
	rwlock_write_unlock(&c->fs->tree_lock);
	if (!err && c->old)
		vfs_notify_self(&c->old->d, IN_ATTRIB, false);
	if (!err)
		vfs_notify_name(&c->dir->d, IN_CREATE, 0, c->name, c->len, c->is_dir);
	remote_dentry_unref(child);
	remote_dentry_unref(c->dir);
	return err;
}

/* The common part of mkdir, mknod and symlink: asks with the new file's owner. */
static int create(struct virtiofs_creation *c, struct vdev_call *call, uint32_t mode, uint32_t uid,
		  uint32_t gid, struct vfs_endpoint *endpoint)
{
	struct fuse_entry_out e;
	ssize_t got;

	call->req.nodeid = virtiofs_inode_of(c->dir)->nodeid;
	call->reply = &e;
	call->reply_size = sizeof(e);
	got = virtiofs_create_call(c->fs, call, mode & S_IFMT, uid, gid, &e);
	return virtiofs_end_creation(c, got < 0 ? (int)got : 0, &e, endpoint);
}

int virtiofs_mkdir_at(struct filesystem *fs, struct resolving_path *rp,
		      const struct mkdir_args *args)
{
	uint32_t mode = virtiofs_masked(virtiofs_fs_of(fs), args->mode & 01777, args->umask) |
			S_IFDIR,
		 uid, gid;
	struct fuse_mkdir_in arg = {0};
	struct vdev_call call = {.req = {.opcode = FUSE_MKDIR, .arg = &arg}};
	struct virtiofs_creation c = {0};
	int err = virtiofs_begin_creation(&c, fs, rp, true);

	if (err)
		return err;
	vfs_init_owner(rp_cred(rp), &c.pi, &mode, &uid, &gid);
	arg.mode = mode & 07777;
	arg.umask = args->umask;
	call.req.name[0] = c.name;
	call.req.name_len[0] = c.len;
	return create(&c, &call, mode, uid, gid, NULL);
}

int virtiofs_mknod_at(struct filesystem *fs, struct resolving_path *rp,
		      const struct mknod_args *args)
{
	uint32_t mode = args->mode, uid, gid;
	struct fuse_mknod_in arg = {0};
	struct vdev_call call = {.req = {.opcode = FUSE_MKNOD, .arg = &arg}};
	struct virtiofs_creation c = {0};
	int err = virtiofs_begin_creation(&c, fs, rp, false);

	if (err)
		return err;
	if (!(mode & S_IFMT))
		mode |= S_IFREG;
	mode = virtiofs_masked(virtiofs_fs_of(fs), mode, args->umask);
	/* A whiteout, device 0:0, is no device. */
	if ((S_ISBLK(mode) || (S_ISCHR(mode) && (args->rdev_major || args->rdev_minor))) &&
	    !cred_has_cap(rp_cred(rp), CAP_MKNOD))
		return virtiofs_end_creation(&c, -EPERM, NULL, NULL);
	vfs_init_owner(rp_cred(rp), &c.pi, &mode, &uid, &gid);
	arg.mode = mode;
	arg.umask = args->umask;
	arg.rdev = (args->rdev_minor & 0xff) | (args->rdev_major << 8) |
		   ((args->rdev_minor & ~0xffu) << 12);
	call.req.name[0] = c.name;
	call.req.name_len[0] = c.len;
	return create(&c, &call, mode, uid, gid, args->endpoint);
}

int virtiofs_symlink_at(struct filesystem *fs, struct resolving_path *rp, const char *target)
{
	struct vdev_call call = {.req = {.opcode = FUSE_SYMLINK}};
	uint32_t mode = S_IFLNK | 0777, uid, gid;
	struct virtiofs_creation c = {0};
	int err = virtiofs_begin_creation(&c, fs, rp, false);

	if (err)
		return err;
	vfs_init_owner(rp_cred(rp), &c.pi, &mode, &uid, &gid);
	call.req.name[0] = c.name;
	call.req.name_len[0] = c.len;
	call.req.name[1] = target;
	call.req.name_len[1] = strlen(target);
	return create(&c, &call, mode, uid, gid, NULL);
}

int virtiofs_link_at(struct filesystem *fs, struct resolving_path *rp, struct dentry *old_base)
{
	struct remote_dentry *old = remote_dentry_of(old_base);
	struct virtiofs_inode *in = virtiofs_inode_of(old);
	const struct fuse_link_in arg = {.oldnodeid = vdev_server_node(in->nodeid)};
	struct vdev_call call = {.req = {.opcode = FUSE_LINK, .arg = &arg}};
	struct virtiofs_creation c = {0};
	int err;

	c.linked = in;
	c.old = old;
	err = virtiofs_begin_creation(&c, fs, rp, false);
	if (err)
		return err;
	if (remote_is_dir(old))
		err = -EPERM;
	else if (!vdev_node_current(c.fs->dev, in->nodeid))
		err = -EIO; /* lost with its daemon */
	if (err)
		return virtiofs_end_creation(&c, err, NULL, NULL);
	call.req.name[0] = c.name;
	call.req.name_len[0] = c.len;
	virtiofs_inode_stale(in);
	/* As root: what may be linked was decided here. */
	return create(&c, &call, in->base.type, 0, 0, NULL);
}

/* ---- removal ---- */

/* d lost its name. */
static void removed(struct virtiofs_fs *fs, struct remote_dentry *dir, struct remote_dentry *d)
{
	struct virtiofs_inode *in = virtiofs_inode_of(d);
	struct remote_dentry *pinned = in->endpoint_dentry;

	virtiofs_inode_touched(virtiofs_inode_of(dir));
	remote_forget(&fs->dcache, d);
	mutex_lock(&in->lock);
	in->attr_version = atomic_fetch_add(&fs->clock, 1) + 1;
	in->attr_valid_until = 0;
	in->attr_asked = 0;
	in->attr.nlink = remote_is_dir(d) || !in->attr.nlink ? 0 : in->attr.nlink - 1;
	mutex_unlock(&in->lock);
	vfs_dentry_delete_end(&d->d);
	if (pinned == d) {
		in->endpoint_dentry = NULL;
		remote_dentry_unref(pinned);
	}
}

static int check_removal(struct virtiofs_fs *fs, struct resolving_path *rp,
			 struct remote_dentry *dir, bool is_dir, struct remote_dentry **ret)
{
	struct perm_inode dir_pi, pi;
	struct remote_dentry *d;
	int err = rp_check_remove_name(rp, is_dir);

	if (err)
		return err;
	err = virtiofs_lookup(fs, dir, rp_component(rp), rp_component_len(rp), &d);
	if (err)
		return err;
	/* rmdir(2) looks at what it is after the rights. */
	if (rp->trailing_slash && !is_dir)
		err = remote_is_dir(d) ? -EISDIR : -ENOTDIR;
	if (!err)
		err = rp_begin_write(rp);
	if (!err) {
		rcu_read_begin();
		virtiofs_inode_perm_acl(virtiofs_inode_of(dir), &dir_pi);
		virtiofs_inode_perm(virtiofs_inode_of(d), &pi);
		err = vfs_may_delete(rp_cred(rp), &dir_pi, &pi, is_dir);
		rcu_read_end();
	}
	if (!err)
		err = vfs_dentry_delete_begin(rp, &d->d);
	if (err)
		remote_dentry_unref(d);
	else
		*ret = d;
	return err;
}

static int remove_rpc(struct virtiofs_fs *fs, struct remote_dentry *dir,
		      const struct remote_key *key, bool is_dir)
{
	struct vdev_call call = {
		.req = {.opcode = is_dir ? FUSE_RMDIR : FUSE_UNLINK,
			.nodeid = virtiofs_inode_of(dir)->nodeid,
			.name = {key->name},
			.name_len = {key->len}},
	};
	ssize_t got = virtiofs_call(fs, &call);

	return got < 0 ? (int)got : 0;
}

static int remove_at(struct filesystem *base, struct resolving_path *rp, bool is_dir)
{
	struct virtiofs_fs *fs = virtiofs_fs_of(base);
	struct remote_dentry *dir, *d = NULL;
	int err = virtiofs_begin(fs, rp, true);

	if (err)
		return err;
	rwlock_write_lock(&fs->tree_lock);
	err = virtiofs_walk(fs, rp, true, virtiofs_now(fs).time, &dir);
	if (err) {
		rwlock_write_unlock(&fs->tree_lock);
		return err;
	}
	err = check_removal(fs, rp, dir, is_dir, &d);
	if (!err)
		err = remove_rpc(fs, dir, rcu_load(d->key), is_dir);
	/* What was believed of them is not so, with cache=always for good: who lists them again shall see what is there. */
	if (err == -ENOENT)
		virtiofs_inode_stale(virtiofs_inode_of(dir));
	if (err == -ENOTEMPTY && d)
		virtiofs_inode_stale(virtiofs_inode_of(d));
	if (!err)
		removed(fs, dir, d);
	rwlock_write_unlock(&fs->tree_lock);
	if (!err && is_dir)
		remote_watched_gone(&fs->dcache, d);
	if (!err)
		vfs_notify_removed(&dir->d, &d->d, rp_component(rp), rp_component_len(rp), is_dir);
	else
		remote_dentry_unref(d);
	remote_dentry_unref(dir);
	return err;
}

int virtiofs_unlink_at(struct filesystem *fs, struct resolving_path *rp)
{
	return remove_at(fs, rp, false);
}

int virtiofs_rmdir_at(struct filesystem *fs, struct resolving_path *rp)
{
	return remove_at(fs, rp, true);
}

/* ---- rename ---- */

static struct virtiofs_fs *renaming_fs(const struct remote_renaming *r)
{
	return virtiofs_fs_of(r->olddir->d.fs);
}

static int rename_rpc(const struct remote_renaming *r)
{
	const struct fuse_rename2_in arg2 = {
		.newdir = vdev_server_node(virtiofs_inode_of(r->newdir)->nodeid),
		.flags = r->flags,
	};
	const struct fuse_rename_in arg = {.newdir = arg2.newdir};
	struct vdev_call call = {
		.req = {.opcode = r->flags ? FUSE_RENAME2 : FUSE_RENAME,
			.nodeid = virtiofs_inode_of(r->olddir)->nodeid,
			.name = {r->old_name, r->new_name},
			.name_len = {r->old_len, r->new_len}},
	};
	ssize_t got;

	if (!vdev_node_current(virtiofs_inode_of(r->newdir)->fs->dev,
			       virtiofs_inode_of(r->newdir)->nodeid))
		return -EIO;
	call.req.arg = r->flags ? (const void *)&arg2 : &arg;
	got = virtiofs_call(renaming_fs(r), &call);
	if (got == -ENOSYS)
		return -EINVAL;
	return got < 0 ? (int)got : 0;
}

/* The cache after a rename that happened. */
static void renamed(struct remote_renaming *r)
{
	virtiofs_inode_touched(virtiofs_inode_of(r->olddir));
	virtiofs_inode_touched(virtiofs_inode_of(r->newdir));
	virtiofs_inode_stale(virtiofs_inode_of(r->old));
	if (r->flags & REMOTE_RENAME_EXCHANGE) {
		virtiofs_inode_stale(virtiofs_inode_of(r->new_));
		remote_exchange(r->c, r->old, r->new_);
		return;
	}
	if (r->new_)
		removed(renaming_fs(r), r->newdir, r->new_);
	remote_move(r->c, r->old, r->newdir, r->new_name, r->new_len);
}

/*
 * The whiteout in the place of what moved is the server's; it belongs to the caller. Our own daemon has seen to that already. The rename
 * is done: a failure here has nobody to tell.
 */
static void own_whiteout(struct remote_renaming *r)
{
	struct setattr_args a = {.valid = SETATTR_UID | SETATTR_GID};
	struct perm_inode pi;
	struct remote_dentry *d;
	struct virtiofs_inode *in;
	uint32_t mode = S_IFCHR;

	virtiofs_inode_perm(virtiofs_inode_of(r->olddir), &pi);
	vfs_init_owner(rp_cred(r->rp), &pi, &mode, &a.uid, &a.gid);
	remote_forget_negative(r->c, r->olddir, r->old_name, r->old_len);
	if (virtiofs_lookup(renaming_fs(r), r->olddir, r->old_name, r->old_len, &d))
		return;
	in = virtiofs_inode_of(d);
	virtiofs_inode_perm(in, &pi);
	/* Not what somebody else has put there meanwhile. */
	if (S_ISCHR(pi.mode) && !in->rdev && (pi.uid != a.uid || pi.gid != a.gid))
		(void)!virtiofs_setattr(in, &a, NULL);
	remote_dentry_unref(d);
}

static int find_both(struct remote_renaming *r)
{
	struct virtiofs_fs *fs = renaming_fs(r);
	int err;

	r->old_len = strlen(r->old_name);
	if (remote_is_dead(r->olddir))
		return -ENOENT;
	if (r->old_len > VFS_NAME_MAX)
		return -ENAMETOOLONG;
	err = virtiofs_lookup(fs, r->olddir, r->old_name, r->old_len, &r->old);
	if (!err)
		err = remote_rename_names(r);
	if (err)
		return err;
	err = virtiofs_lookup(fs, r->newdir, r->new_name, r->new_len, &r->new_);
	return err == -ENOENT ? 0 : err;
}

int virtiofs_rename_at(struct filesystem *base, struct resolving_path *rp,
		       struct dentry *old_parent, const char *old_name, bool old_must_be_dir,
		       const struct rename_args *args)
{
	struct virtiofs_fs *fs = virtiofs_fs_of(base);
	struct remote_renaming r = {.c = &fs->dcache,
				    .rp = rp,
				    .olddir = remote_dentry_of(old_parent),
				    .old_name = old_name,
				    .flags = args->flags,
				    .old_must_be_dir = old_must_be_dir};
	bool same = false;
	int err = virtiofs_begin(fs, rp, true);

	if (err)
		return err;
	rwlock_write_lock(&fs->tree_lock);
	err = virtiofs_walk(fs, rp, true, virtiofs_now(fs).time, &r.newdir);
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
		err = virtiofs_acl_ensure(rp_cred(rp), virtiofs_inode_of(r.olddir));
	if (!err && !same && remote_is_dir(r.old))
		err = virtiofs_acl_ensure(rp_cred(rp), virtiofs_inode_of(r.old));
	if (!err && !same && r.new_ && remote_is_dir(r.new_))
		err = virtiofs_acl_ensure(rp_cred(rp), virtiofs_inode_of(r.new_));
	if (!err && !same)
		err = remote_rename_rights(&r);
	if (!err && !same)
		err = rename_rpc(&r);
	if (!err && !same)
		renamed(&r);
	if (!err && !same && (r.flags & REMOTE_RENAME_WHITEOUT))
		own_whiteout(&r);
	rwlock_write_unlock(&fs->tree_lock);
	if (!err && !same)
		remote_rename_notify(&r, remote_is_dir(r.old));
	remote_rename_fini(&r);
	return err;
}
