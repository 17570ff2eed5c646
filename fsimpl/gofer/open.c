/* fsimpl/gofer/open.c - open(2): existing places, O_CREAT, O_TMPFILE, and what is not a regular file. */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "fsimpl/gofer/internal.h"
#include "vfs/inotify.h"
#include "vfs/write_access.h"

/* Access mode 3 asks for both permissions and gives neither. */
static bool wants_write(unsigned flags)
{
	return (flags & O_ACCMODE) == O_WRONLY || (flags & O_ACCMODE) == O_RDWR;
}

/* O_TRUNC on an existing file, after all checks. The fd may write. */
static int truncate_at_open(struct resolving_path *rp, struct remote_dentry *d, int rw_fd)
{
	struct gofer_inode *in = gofer_inode_of(d);
	struct perm_inode pi;
	uint32_t mode;
	int err;

	gofer_plain_freshen(d);
	gofer_inode_perm_fresh(in, &pi);
	op_lock(&in->write_lock);
	err = gofer_inode_truncate(d, rw_fd, 0);
	op_unlock(&in->write_lock);
	mode = vfs_kill_priv_mode_gid(rp_cred(rp), pi.mode, pi.gid);
	if (!err && (pi.mode & (S_ISUID | S_ISGID))) {
		struct setattr_args a = {.valid = SETATTR_MODE, .mode = mode & 07777};

		err = gofer_setattr(in->fs, d, &a);
	}
	return err;
}

/* A regular file, checked. tree_lock is held for reading and dropped here. */
static int open_regular(struct gofer_fs *fs, struct resolving_path *rp, struct remote_dentry *d,
			struct gofer_hint *hint, const struct open_args *args, struct file **ret)
{
	bool trunc = args->flags & O_TRUNC, write = wants_write(args->flags);
	int err = 0, fd;

	if (hint && hint->fd >= 0 && hint->qid_path == gofer_inode_of(d)->qid_path) {
		fd = gofer_inode_take_fd(d, hint->fd, hint->write);
		hint->fd = -1;
	} else {
		err = gofer_inode_pin(d, write || trunc, &fd);
	}
	rwlock_read_unlock(&fs->tree_lock);
	if (err)
		return err;
	if (trunc)
		err = truncate_at_open(rp, d, fd);
	if (err) {
		gofer_inode_unpin(gofer_inode_of(d));
		return err;
	}
	return gofer_file_create(rp, d, fd, args->flags, ret);
}

static int open_special(struct resolving_path *rp, struct remote_dentry *d,
			const struct open_args *args, struct file **ret)
{
	struct gofer_inode *in = gofer_inode_of(d);
	struct vfs_path place;

	rp_place(rp, &d->d, &place);
	if (in->base.type == S_IFIFO && in->fs->host_fifo && vfs_hooks.open_host)
		return gofer_open_host_fifo(d, args->flags, &place, ret);
	if (in->base.type == S_IFSOCK || !vfs_hooks.open_special)
		return -ENXIO;
	return vfs_hooks.open_special(&place, in->base.type, in->rdev_major, in->rdev_minor,
				      in->qid_path, args->flags, ret);
}

static int may_open(struct resolving_path *rp, struct remote_dentry *d,
		    const struct open_args *args)
{
	struct perm_inode pi;
	int err = gofer_acl_ensure(rp_cred(rp), d);

	if (err)
		return err;
	rcu_read_begin();
	gofer_inode_perm(gofer_inode_of(d), &pi);
	err = vfs_may_open(rp_cred(rp), rp_mount(rp), &pi, args->flags, args->exec);
	rcu_read_end();
	return err;
}

/* Pre: tree_lock held for reading; dropped here. created: O_CREAT found it there. */
static int open_existing(struct gofer_fs *fs, struct resolving_path *rp, struct remote_dentry *d,
			 struct gofer_hint *hint, const struct perm_inode *sticky_dir,
			 const struct open_args *args, struct file **ret)
{
	struct perm_inode pi;
	int err = 0;

	if (args->flags & O_PATH) {
		rwlock_read_unlock(&fs->tree_lock);
		return remote_path_file_create(rp, d, args->flags, ret);
	}
	gofer_inode_perm(gofer_inode_of(d), &pi);
	if (sticky_dir && S_ISDIR(pi.mode))
		err = -EISDIR;
	if (!err && sticky_dir)
		err = vfs_may_create_in_sticky(rp_cred(rp), sticky_dir, &pi);
	if (!err && (args->flags & O_DIRECTORY) && !S_ISDIR(pi.mode))
		err = -ENOTDIR;
	if (!err && S_ISREG(pi.mode) && (args->flags & O_TRUNC))
		err = rp_begin_write(rp);
	if (!err)
		err = may_open(rp, d, args);
	if (!err && S_ISREG(pi.mode) && wants_write(args->flags))
		err = rp_begin_write(rp);
	if (!err && (args->flags & O_TRUNC))
		err = vfs_may_truncate(&d->d);
	if (err) {
		rwlock_read_unlock(&fs->tree_lock);
		return err;
	}
	if (S_ISREG(pi.mode))
		return open_regular(fs, rp, d, hint, args, ret);
	rwlock_read_unlock(&fs->tree_lock);
	if (S_ISDIR(pi.mode))
		return gofer_dir_create(rp, d, args->flags, ret);
	return open_special(rp, d, args, ret);
}

static int open_plain(struct gofer_fs *fs, struct resolving_path *rp, const struct open_args *args,
		      struct file **ret)
{
	struct gofer_hint hint = {
		.open = !(args->flags & (O_PATH | O_DIRECTORY)),
		.write = wants_write(args->flags) || (args->flags & O_TRUNC),
		.fd = -1,
	};
	struct remote_dentry *d;
	int err;

	err = rwlock_read_lock_killable(&fs->tree_lock);
	if (err)
		return err;
	err = gofer_walk(fs, rp, false, &hint, &d);
	if (err) {
		rwlock_read_unlock(&fs->tree_lock);
	} else {
		err = open_existing(fs, rp, d, &hint, NULL, args, ret);
		remote_dentry_unref(d);
	}
	/* Its descriptor too, if it was not allowed, or not what was asked for after all. */
	gofer_hint_fini(&hint);
	return err;
}

/* ---- creation ---- */

struct newfile {
	struct remote_dentry *d; /* a reference */
	int fd; /* pinned */
	bool created;
};

static void fill_create(struct p9_Tmcreate *t, const struct resolving_path *rp,
			const struct perm_inode *dir, const struct open_args *args)
{
	uint32_t mode = (args->mode & 07777) | S_IFREG;

	vfs_init_owner(rp_cred(rp), dir, &mode, &t->uid, &t->gid);
	t->newfid = P9_NOFID;
	t->want = P9_WANT_FD;
	t->flags = wants_write(args->flags) ? O_RDWR : O_RDONLY;
	t->mode = mode & 07777;
	t->umask = args->umask;
}

/* ret->d was made. Takes *fd, which came along, unless it was lost. */
static int pin_created(struct newfile *ret, int *fd, bool write)
{
	int err = 0;

	if (*fd >= 0)
		ret->fd = gofer_inode_take_fd(ret->d, *fd, write);
	else
		err = gofer_inode_pin(ret->d, write, &ret->fd);
	*fd = -1;
	ret->created = !err;
	if (err) {
		remote_dentry_unref(ret->d);
		ret->d = NULL;
	}
	return err;
}

/*
 * Tmcreate of a name about which nothing is known, or that is known to be absent. Pre: tree_lock held for writing, everything allowed.
 * Return: 0 with ret->d; ret->created false: it was there and ret->d is what is there (not opened).
 */
static int create_locked(struct gofer_fs *fs, struct resolving_path *rp, struct remote_dentry *dir,
			 const struct perm_inode *pi, const struct open_args *args,
			 struct newfile *ret)
{
	struct p9_msg t = {.type = P9_Tmcreate};
	const char *name = rp_component(rp);
	size_t len = rp_component_len(rp);
	const struct p9_Rmcreate *r;
	struct gofer_where where;
	struct p9_call call;
	struct p9_node node;
	int err;

	err = gofer_where_child(dir, name, len, &where);
	if (err)
		return err;
	fill_create(&t.Tmcreate, rp, pi, args);
	t.Tmcreate.flags |= O_EXCL;
	gofer_place_request(&t, where.fid, where.depth - 1, gofer_where_path(&where));
	err = p9_rpc(fs->conn, &call, &t);
	if (err)
		return err;
	r = &call.r.Rmcreate;
	gofer_dir_changed(gofer_inode_of(dir));
	if (r->err)
		err = r->err < 4096 ? -(int)r->err : -EIO;
	else if (!r->created || r->nodes.count != 2 || (call.fd < 0 && !r->donated))
		err = -EIO;
	if (err) {
		remote_forget_negative(&fs->dcache, dir, name, len);
		goto out;
	}
	p9_nodes_get(&r->nodes, 0, &node);
	gofer_inode_update(gofer_inode_of(dir), &node);
	p9_nodes_get(&r->nodes, 1, &node);
	err = gofer_cache_enter(fs, dir, name, len, &node, NULL, &ret->d);
	if (err)
		goto out;
	err = pin_created(ret, &call.fd, wants_write(args->flags));
out:
	p9_call_fini(&call);
	return err;
}

/* May rp's final name be created in dir? Linux's order: the name's shape, read-only, rights. */
static int may_create(struct resolving_path *rp, struct remote_dentry *dir,
		      struct perm_inode *ret_pi)
{
	int err = rp_begin_write(rp);

	if (err)
		return err;
	if (remote_is_dead(dir))
		return -ENOENT;
	rcu_read_begin();
	gofer_inode_perm(gofer_inode_of(dir), ret_pi);
	err = vfs_permission(rp_cred(rp), ret_pi, W_OK | X_OK);
	rcu_read_end();
	return err;
}

/* What the walk's own request made. Pre: hint->created. */
static int take_created(struct gofer_hint *hint, struct newfile *ret)
{
	ret->d = remote_dentry_ref(hint->child);
	gofer_dir_changed(gofer_inode_of(remote_parent(ret->d)));
	return pin_created(ret, &hint->fd, hint->write);
}

/* What is at the final name, made if need be. Return: 0: *ret; -errno. */
static int find_or_create(struct gofer_fs *fs, struct resolving_path *rp, struct remote_dentry *dir,
			  const struct open_args *args, struct gofer_hint *hint,
			  struct newfile *ret)
{
	bool negative = false, asked = hint->dir == dir;
	struct perm_inode pi;
	int err, may;

	if (asked && hint->child && hint->created)
		return take_created(hint, ret);
	if (asked && hint->done && hint->err)
		return hint->err;
	if (asked && hint->child)
		ret->d = remote_dentry_ref(hint->child);
	else if (!fs->shared)
		ret->d = gofer_cache_find(fs, dir, rp_component(rp), rp_component_len(rp),
					  &negative);
	if (ret->d)
		return 0;
	negative |= asked && hint->absent;
	may = may_create(rp, dir, &pi);
	if (!may) {
		err = create_locked(fs, rp, dir, &pi, args, ret);
		if (err != -EEXIST)
			return err;
	} else if (negative) {
		return may;
	}
	/* It is there after all, or creating is not allowed: then an existing file may still be opened. */
	err = gofer_lookup(fs, dir, rp_component(rp), rp_component_len(rp), &ret->d);
	return err == -ENOENT && may ? may : err;
}

/*
 * The final component of an O_CREAT walk, which stands at dir. tree_lock is held for writing.
 * Return: 0: *ret; RP_STAY: a symlink was followed, walk on; -errno; a restart.
 */
static int create_or_find(struct gofer_fs *fs, struct resolving_path *rp, struct remote_dentry *dir,
			  const struct open_args *args, struct gofer_hint *hint,
			  struct newfile *ret)
{
	struct perm_inode pi, link;
	struct remote_dentry *d;
	int err = rp_check_name(rp);

	if (!err)
		err = find_or_create(fs, rp, dir, args, hint, ret);
	if (err || ret->created)
		return err;
	d = ret->d;
	err = rp_check_mount(rp, &d->d);
	if (!err && (args->flags & O_EXCL))
		err = -EEXIST;
	if (!err && d->inode->type == S_IFLNK && rp_should_follow(rp)) {
		gofer_inode_perm(gofer_inode_of(dir), &pi);
		gofer_inode_perm(gofer_inode_of(d), &link);
		err = vfs_may_follow_link(rp_cred(rp), &pi, &link);
		if (!err)
			err = rp_follow_symlink(rp, gofer_inode_of(d)->target,
						gofer_inode_of(d)->target_len);
		if (!err)
			err = RP_STAY;
	}
	if (err) {
		remote_dentry_unref(d);
		ret->d = NULL;
	}
	return err;
}

/* Opens what a pass of O_CREAT found or made. Drops tree_lock. */
static int open_found(struct gofer_fs *fs, struct resolving_path *rp, struct remote_dentry *dir,
		      struct gofer_hint *hint, const struct open_args *args,
		      const struct newfile *nf, struct file **ret)
{
	struct perm_inode pi;

	if (!nf->created) {
		rwlock_downgrade(&fs->tree_lock);
		gofer_inode_perm(gofer_inode_of(dir), &pi);
		return open_existing(fs, rp, nf->d, hint, &pi, args, ret);
	}
	rwlock_write_unlock(&fs->tree_lock);
	vfs_notify_name(&dir->d, IN_CREATE, 0, rcu_load(nf->d->key)->name,
			rcu_load(nf->d->key)->len, false);
	return gofer_file_create(rp, nf->d, nf->fd, args->flags, ret);
}

/* One pass of O_CREAT: to the parent, then its final name. RP_STAY: again, from *inout_dir. */
static int create_pass(struct gofer_fs *fs, struct resolving_path *rp, const struct open_args *args,
		       struct file **ret)
{
	const struct perm_inode unknown = {.mode = S_IFDIR | 0755};
	struct p9_msg t = {.type = P9_Tmcreate};
	/* What exists may have to be truncated. */
	struct gofer_hint hint = {
		.write = wants_write(args->flags) || (args->flags & O_TRUNC), .fd = -1, .t = &t};
	struct newfile nf = {.fd = -1};
	struct remote_dentry *dir;
	int err;

	fill_create(&t.Tmcreate, rp, &unknown, args);
	t.Tmcreate.want |= P9_WANT_SETGID;
	t.Tmcreate.flags = (hint.write ? O_RDWR : O_RDONLY) | (args->flags & O_EXCL);
	err = gofer_change_lock_killable(fs);
	if (err)
		return err;
	err = gofer_walk(fs, rp, true, &hint, &dir);
	if (err)
		goto out_unlock;
	err = rp_check_open_create(rp, args->flags);
	/* No name left: the root of a mount, which may be a file. */
	if (!err && rp_done(rp))
		nf.d = remote_dentry_ref(dir);
	else if (!err)
		err = create_or_find(fs, rp, dir, args, &hint, &nf);
	if (err == RP_STAY) {
		/* The walk goes on from the link's directory: the rp keeps it. */
		rp_hold(rp, &remote_dentry_ref(dir)->d);
		rp->start = &dir->d;
	}
	if (err)
		goto out_unref;
	err = open_found(fs, rp, dir, &hint, args, &nf, ret);
	if (!err && nf.created)
		(*ret)->mode |= FILE_CREATED;
	remote_dentry_unref(nf.d);
	remote_dentry_unref(dir);
	gofer_hint_fini(&hint);
	return err;
out_unref:
	remote_dentry_unref(dir);
out_unlock:
	rwlock_write_unlock(&fs->tree_lock);
	gofer_hint_fini(&hint);
	return err;
}

static int open_create(struct gofer_fs *fs, struct resolving_path *rp, const struct open_args *args,
		       struct file **ret)
{
	int err;

	do
		err = create_pass(fs, rp, args, ret);
	while (err == RP_STAY);
	return err;
}

static int open_tmpfile(struct gofer_fs *fs, struct resolving_path *rp,
			const struct open_args *args, struct file **ret)
{
	struct p9_msg t = {.type = P9_Tmcreate};
	struct remote_dentry *dir, *d = NULL;
	const struct p9_Rmcreate *r;
	struct gofer_where where;
	struct perm_inode pi;
	struct p9_call call;
	struct p9_node node;
	int err, fd = -1;

	err = rwlock_read_lock_killable(&fs->tree_lock);
	if (err)
		return err;
	err = gofer_walk(fs, rp, false, NULL, &dir);
	if (err) {
		rwlock_read_unlock(&fs->tree_lock);
		return err;
	}
	err = remote_is_dir(dir) ? may_create(rp, dir, &pi) : -ENOTDIR;
	if (!err)
		err = gofer_where(dir, &where);
	if (err)
		goto out_dir;
	fill_create(&t.Tmcreate, rp, &pi, args);
	t.Tmcreate.newfid = p9_fid_alloc(fs->conn);
	t.Tmcreate.flags |= O_TMPFILE | (args->flags & O_EXCL);
	gofer_place_request(&t, where.fid, where.depth, gofer_where_path(&where));
	err = p9_rpc(fs->conn, &call, &t);
	if (err)
		goto out_dir;
	r = &call.r.Rmcreate;
	if (r->err)
		err = r->err < 4096 ? -(int)r->err : -EIO;
	else if (!r->created || !r->bound || r->nodes.count != 2 || call.fd < 0)
		err = r->donated && call.fd < 0 ? -ENFILE : -EIO;
	if (!err) {
		p9_nodes_get(&r->nodes, 1, &node);
		err = gofer_dentry_create_unnamed(fs, dir, &node, &d);
	}
	if (!err) {
		gofer_inode_of(d)->fid = t.Tmcreate.newfid;
		fd = gofer_inode_take_fd(d, call.fd, true);
		call.fd = -1;
	} else if (r->bound) {
		p9_fid_clunk(fs->conn, t.Tmcreate.newfid);
	}
	p9_call_fini(&call);
	if (!err)
		err = gofer_file_create(rp, d, fd, args->flags, ret);
	remote_dentry_unref(d);
out_dir:
	rwlock_read_unlock(&fs->tree_lock);
	remote_dentry_unref(dir);
	return err;
}

int gofer_open_at(struct filesystem *base, struct resolving_path *rp, const struct open_args *args,
		  struct file **ret_file)
{
	struct gofer_fs *fs = gofer_fs_of(base);

	if (args->flags & O_PATH)
		return open_plain(fs, rp, args, ret_file);
	if ((args->flags & O_TMPFILE) == O_TMPFILE)
		return open_tmpfile(fs, rp, args, ret_file);
	if (args->flags & O_CREAT)
		return open_create(fs, rp, args, ret_file);
	return open_plain(fs, rp, args, ret_file);
}
