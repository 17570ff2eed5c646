/*
 * fsimpl/gofer/xattr.c - extended attributes: one request each, and none for a file known to have none.
 *
 * ls -l asks for several of each file, most of which have none. So after GOFER_XATTRS_AFTER files whose attributes' names cost a request each (a shell script
 * has few: exec asks for capabilities) the third of a directory has its entries told anew, once, and which of them have none; and then listings tell, and the first
 * of a directory that was listed before has it told anew, as long as that is used: credit of GOFER_XATTR_CREDIT, of which each entry that is told takes one and each question that need not be asked gives one back. It costs
 * the server a host call a file. Trees that nobody else changes only.
 *
 * POSIX ACLs are the host's attributes system.posix_acl_*; acl.c checks the guest's rights by them.
 */
#include <linux/capability.h>
#include <string.h>

#include "fsimpl/gofer/internal.h"
#include "vfs/inotify.h"

/* Where the operation is; the caller drops d and tree_lock. */
struct xattr_op {
	struct gofer_fs *fs;
	struct remote_dentry *d;
	struct gofer_where where;
};

/* set: what is to be set, or NULL. */
static int begin(struct xattr_op *x, struct filesystem *base, struct resolving_path *rp,
		 const char *name, bool write, const struct xattr_args *set)
{
	struct perm_inode pi;
	int err;

	x->fs = gofer_fs_of(base);
	err = write ? gofer_change_lock_killable(x->fs)
		    : rwlock_read_lock_killable(&x->fs->tree_lock);
	if (err)
		return err;
	err = gofer_walk(x->fs, rp, false, NULL, &x->d);
	if (err)
		goto out_unlock;
	if (write)
		err = rp_begin_write(rp);
	if (!err && name) {
		rcu_read_begin();
		gofer_inode_perm(gofer_inode_of(x->d), &pi);
		err = set ? vfs_may_set_xattr(rp_cred(rp), &pi, set)
			  : vfs_may_xattr(rp_cred(rp), &pi, name, write);
		rcu_read_end();
	}
	if (!err)
		err = gofer_where(x->d, &x->where);
	if (!err)
		return 0;
	remote_dentry_unref(x->d);
out_unlock:
	if (write)
		rwlock_write_unlock(&x->fs->tree_lock);
	else
		rwlock_read_unlock(&x->fs->tree_lock);
	return err;
}

static void end(struct xattr_op *x, bool write)
{
	if (write)
		rwlock_write_unlock(&x->fs->tree_lock);
	else
		rwlock_read_unlock(&x->fs->tree_lock);
	remote_dentry_unref(x->d);
}

static bool known_empty(struct xattr_op *x)
{
	bool ret;

	mutex_lock(&gofer_inode_of(x->d)->lock);
	ret = gofer_inode_of(x->d)->no_xattrs;
	mutex_unlock(&gofer_inode_of(x->d)->lock);
	return ret;
}

/* An answer that costs no request. */
static bool answer_empty(struct xattr_op *x)
{
	int credit;

	if (!known_empty(x))
		return false;
	credit = atomic_load_explicit(&x->fs->xattr_credit, memory_order_relaxed);
	/* Two at once may count as one: it is an estimate. */
	if (credit && credit < GOFER_XATTR_CREDIT)
		atomic_store_explicit(&x->fs->xattr_credit, credit + 1, memory_order_relaxed);
	return true;
}

void gofer_xattr_told(struct gofer_inode *dir, unsigned entries)
{
	atomic_store_explicit(&dir->xattrs_asked, true, memory_order_relaxed);
	atomic_fetch_sub_explicit(&dir->fs->xattr_credit, (int)entries, memory_order_relaxed);
}

/* Of several files of a directory all are asked for at once. Return: it has none. */
static bool ask_around(struct xattr_op *x)
{
	struct remote_dentry *dir = remote_parent(x->d);
	struct gofer_inode *in;
	uint32_t here, in_all;

	if (!dir || x->fs->shared || x->fs->conn->plain || remote_is_dead(x->d))
		return false;
	in = gofer_inode_of(dir);
	here = atomic_fetch_add(&in->xattrs_singly, 1);
	in_all = atomic_fetch_add(&x->fs->xattrs_singly, 1);
	if ((here < GOFER_PREFETCH_AFTER || in_all < GOFER_XATTRS_AFTER) &&
	    !gofer_xattr_want(x->fs))
		return false;
	if (atomic_exchange(&in->xattrs_asked, true))
		return false;
	atomic_store_explicit(&x->fs->xattr_credit, GOFER_XATTR_CREDIT, memory_order_relaxed);
	return gofer_dir_ask(x->fs, dir) && known_empty(x);
}

static void set_known_empty(struct xattr_op *x, bool empty)
{
	mutex_lock(&gofer_inode_of(x->d)->lock);
	gofer_inode_of(x->d)->no_xattrs = empty && !x->fs->shared;
	mutex_unlock(&gofer_inode_of(x->d)->lock);
}

/* The list's size; remembers an empty one. */
static ssize_t list(struct xattr_op *x, char *buf, size_t size)
{
	struct p9_msg t = {.type = P9_Tmlistxattr};
	struct p9_call call;
	ssize_t ret;

	t.Tmlistxattr.fid = x->where.fid;
	t.Tmlistxattr.path = gofer_where_path(&x->where);
	t.Tmlistxattr.size = (uint32_t)MIN(size, (size_t)VFS_XATTR_SIZE_MAX);
	ret = p9_rpc(x->fs->conn, &call, &t);
	if (ret)
		return ret;
	ret = call.r.Rmlistxattr.size;
	if (ret == 0)
		set_known_empty(x, true);
	if (ret > VFS_XATTR_SIZE_MAX || call.r.Rmlistxattr.data.size > size)
		ret = -EIO;
	else if (size && call.r.Rmlistxattr.data.size)
		memcpy(buf, call.r.Rmlistxattr.data.data, call.r.Rmlistxattr.data.size);
	p9_call_fini(&call);
	return ret;
}

ssize_t gofer_get_xattr_at(struct filesystem *fs, struct resolving_path *rp,
			   const struct xattr_args *args)
{
	struct p9_msg t = {.type = P9_Tmgetxattr};
	struct xattr_op x;
	struct p9_call call;
	ssize_t ret = begin(&x, fs, rp, args->name, false, NULL);

	if (ret)
		return ret;
	/* Most files have none, and are asked for several names. */
	if (!x.fs->shared && (answer_empty(&x) || ask_around(&x) || list(&x, NULL, 0) == 0)) {
		ret = -ENODATA;
		goto out;
	}
	t.Tmgetxattr.fid = x.where.fid;
	t.Tmgetxattr.path = gofer_where_path(&x.where);
	t.Tmgetxattr.name = p9_str(args->name);
	t.Tmgetxattr.size = (uint32_t)MIN(args->size, (size_t)VFS_XATTR_SIZE_MAX);
	ret = p9_rpc(x.fs->conn, &call, &t);
	if (ret)
		goto out;
	ret = call.r.Rmgetxattr.size;
	if (ret > VFS_XATTR_SIZE_MAX || call.r.Rmgetxattr.data.size > args->size)
		ret = -EIO;
	else if (call.r.Rmgetxattr.data.size)
		memcpy(args->value, call.r.Rmgetxattr.data.data, call.r.Rmgetxattr.data.size);
	p9_call_fini(&call);
out:
	end(&x, false);
	return ret;
}

/*
 * A new ACL has changed the mode. The server may keep setgid, the guest's program perhaps not. tree_lock is held for writing.
 * A failure has nobody to tell: the ACL is set.
 */
static void acl_changed(struct xattr_op *x, struct resolving_path *rp, const char *name)
{
	struct gofer_inode *in = gofer_inode_of(x->d);
	struct setattr_args a = {.valid = SETATTR_MODE};
	struct perm_inode pi;

	if (strncmp(name, "system.", 7) != 0)
		return;
	gofer_acl_forget(in);
	dentry_path_changed(&x->d->d);
	gofer_inode_perm(in, &pi);
	if (strcmp(name, "system.posix_acl_access") != 0 || !(pi.mode & S_ISGID) ||
	    cred_in_group(rp_cred(rp), pi.gid) || cred_has_cap(rp_cred(rp), CAP_FSETID))
		return;
	a.mode = pi.mode & 07777 & ~(uint32_t)S_ISGID;
	(void)!gofer_setattr_locked(x->fs, x->d, &a);
}

int gofer_set_xattr_at(struct filesystem *fs, struct resolving_path *rp,
		       const struct xattr_args *args)
{
	struct p9_msg t = {.type = P9_Tmsetxattr};
	struct xattr_op x;
	struct p9_call call;
	int err = begin(&x, fs, rp, args->name, true, args);

	if (err)
		return err;
	t.Tmsetxattr.fid = x.where.fid;
	t.Tmsetxattr.path = gofer_where_path(&x.where);
	t.Tmsetxattr.name = p9_str(args->name);
	t.Tmsetxattr.flags = (uint32_t)args->flags;
	t.Tmsetxattr.data =
		(struct p9_blob){args->size ? args->value : (const void *)"", (uint32_t)args->size};
	set_known_empty(&x, false);
	err = p9_rpc(x.fs->conn, &call, &t);
	if (!err) {
		gofer_inode_update(gofer_inode_of(x.d), &call.r.Rmsetxattr.node);
		p9_call_fini(&call);
		acl_changed(&x, rp, args->name);
		vfs_notify_attrib(&x.d->d);
	}
	end(&x, true);
	return err;
}

ssize_t gofer_list_xattr_at(struct filesystem *fs, struct resolving_path *rp, char *buf,
			    size_t size)
{
	struct xattr_op x;
	ssize_t ret = begin(&x, fs, rp, NULL, false, NULL);

	if (ret)
		return ret;
	ret = answer_empty(&x) || ask_around(&x) ? 0 : list(&x, buf, size);
	end(&x, false);
	return ret;
}

int gofer_remove_xattr_at(struct filesystem *fs, struct resolving_path *rp, const char *name)
{
	struct p9_msg t = {.type = P9_Tmremovexattr};
	struct xattr_op x;
	struct p9_call call;
	int err = begin(&x, fs, rp, name, true, NULL);

	if (err)
		return err;
	t.Tmremovexattr.fid = x.where.fid;
	t.Tmremovexattr.path = gofer_where_path(&x.where);
	t.Tmremovexattr.name = p9_str(name);
	err = p9_rpc(x.fs->conn, &call, &t);
	if (!err) {
		gofer_inode_update(gofer_inode_of(x.d), &call.r.Rmremovexattr.node);
		p9_call_fini(&call);
		acl_changed(&x, rp, name);
		vfs_notify_attrib(&x.d->d);
	}
	end(&x, true);
	return err;
}
