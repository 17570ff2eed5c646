/* fsimpl/virtiofs/path_ops.c - filesystem_ops that look, and set_stat. */
#include <linux/capability.h>
#include <linux/fcntl.h>
#include <string.h>
#include <unistd.h>

#include "fsimpl/virtiofs/internal.h"
#include "vfs/inotify.h"

/* Walks to the end with tree_lock held for reading just for that. Attributes are as new as the mount's mode says. */
static int walk_to(struct filesystem *base, struct resolving_path *rp, struct remote_dentry **ret)
{
	struct virtiofs_fs *fs = virtiofs_fs_of(base);
	int err = virtiofs_begin(fs, rp, false);

	if (err)
		return err;
	rwlock_read_lock(&fs->tree_lock);
	err = virtiofs_walk(fs, rp, false, virtiofs_now(fs).time, ret);
	rwlock_read_unlock(&fs->tree_lock);
	return err;
}

int virtiofs_get_dentry_at(struct filesystem *fs, struct resolving_path *rp, struct dentry **ret)
{
	struct remote_dentry *d;
	int err = walk_to(fs, rp, &d);

	if (!err)
		*ret = &d->d;
	return err;
}

int virtiofs_stat_at(struct filesystem *base, struct resolving_path *rp,
		     const struct stat_args *args, struct moat_statx *ret)
{
	struct virtiofs_fs *fs = virtiofs_fs_of(base);
	int err = virtiofs_quick_stat(fs, rp, args, ret);
	struct remote_dentry *d;
	int64_t since;

	if (err != VIRTIOFS_QUICK_ASK)
		return err;
	since = virtiofs_now(fs).time;
	virtiofs_await(fs);
	rwlock_read_lock(&fs->tree_lock);
	err = virtiofs_walk(fs, rp, false, since, &d);
	rwlock_read_unlock(&fs->tree_lock);
	if (err)
		return err;
	if (!(args->flags & AT_STATX_DONT_SYNC))
		err = virtiofs_inode_refresh(virtiofs_inode_of(d), args->flags & AT_STATX_FORCE_SYNC
									   ? VIRTIOFS_ASK
									   : since);
	if (!err)
		virtiofs_inode_stat(virtiofs_inode_of(d), ret);
	remote_dentry_unref(d);
	return err;
}

int virtiofs_access_at(struct filesystem *fs, struct resolving_path *rp, int mask)
{
	int err = virtiofs_quick_access(virtiofs_fs_of(fs), rp, mask);
	struct remote_dentry *d;
	struct perm_inode pi;

	if (err != VIRTIOFS_QUICK_ASK)
		return err;
	err = walk_to(fs, rp, &d);
	if (err)
		return err;
	rcu_read_begin();
	virtiofs_inode_perm_acl(virtiofs_inode_of(d), &pi);
	err = remote_access(rp, &pi, mask);
	rcu_read_end();
	remote_dentry_unref(d);
	return err;
}

int virtiofs_readlink_at(struct filesystem *fs, struct resolving_path *rp, char *buf, size_t size,
			 size_t *ret_len)
{
	struct remote_dentry *d;
	const char *target;
	size_t len;
	int err = walk_to(fs, rp, &d);

	if (err)
		return err;
	err = d->inode->type == S_IFLNK ? virtiofs_target(virtiofs_inode_of(d), &target, &len)
					: -EINVAL;
	if (!err) {
		*ret_len = MIN(size, len);
		memcpy(buf, target, *ret_len);
	}
	remote_dentry_unref(d);
	return err;
}

int virtiofs_get_endpoint_at(struct filesystem *fs, struct resolving_path *rp,
			     struct vfs_endpoint **ret)
{
	struct virtiofs_inode *in;
	struct remote_dentry *d;
	int err = walk_to(fs, rp, &d);

	if (err)
		return err;
	in = virtiofs_inode_of(d);
	err = virtiofs_permission(rp_cred(rp), in, W_OK);
	if (!err) {
		mutex_lock(&in->lock);
		*ret = in->base.type == S_IFSOCK ? in->endpoint : NULL;
		if (!*ret || !ref_tryget(&(*ret)->ref))
			err = -ECONNREFUSED;
		mutex_unlock(&in->lock);
	}
	remote_dentry_unref(d);
	return err;
}

int virtiofs_statfs(struct filesystem *base, struct dentry *d, struct statfs *ret)
{
	struct virtiofs_fs *fs = virtiofs_fs_of(base);
	struct fuse_statfs_out out;
	struct vdev_call call = {
		.req = {.opcode = FUSE_STATFS},
		.reply = &out,
		.reply_size = sizeof(out),
	};
	ssize_t got;

	virtiofs_await(fs);
	call.req.nodeid = virtiofs_inode_of(remote_dentry_of(d))->nodeid;
	got = virtiofs_call(fs, &call);
	if (got < 0)
		return (int)got;
	*ret = (struct statfs){
		.f_type = VIRTIOFS_MAGIC,
		.f_bsize = out.st.bsize,
		.f_frsize = out.st.frsize,
		.f_blocks = out.st.blocks,
		.f_bfree = out.st.bfree,
		.f_bavail = out.st.bavail,
		.f_files = out.st.files,
		.f_ffree = out.st.ffree,
		.f_namelen =
			out.st.namelen ? MIN(out.st.namelen, (uint32_t)VFS_NAME_MAX) : VFS_NAME_MAX,
	};
	return 0;
}

/* ---- set_stat ---- */

static void fill_setattr(struct fuse_setattr_in *s, const struct setattr_args *a)
{
	unsigned v = a->valid;

	s->valid = (v & SETATTR_MODE ? FATTR_MODE : 0) | (v & SETATTR_UID ? FATTR_UID : 0) |
		   (v & SETATTR_GID ? FATTR_GID : 0) | (v & SETATTR_SIZE ? FATTR_SIZE : 0) |
		   (v & SETATTR_ATIME ? FATTR_ATIME : 0) | (v & SETATTR_MTIME ? FATTR_MTIME : 0) |
		   (v & SETATTR_ATIME_NOW ? FATTR_ATIME | FATTR_ATIME_NOW : 0) |
		   (v & SETATTR_MTIME_NOW ? FATTR_MTIME | FATTR_MTIME_NOW : 0);
	s->mode = a->mode & 07777;
	s->uid = a->uid;
	s->gid = a->gid;
	s->size = a->size;
	s->atime = (uint64_t)a->atime.sec;
	s->atimensec = a->atime.nsec;
	s->mtime = (uint64_t)a->mtime.sec;
	s->mtimensec = a->mtime.nsec;
}

bool virtiofs_kills_priv(struct virtiofs_inode *in)
{
	const struct cred *cred = cred_current();
	struct perm_inode pi;

	if (!(in->fs->init_flags & FUSE_HANDLE_KILLPRIV_V2) || !cred ||
	    cred_has_cap(cred, CAP_FSETID))
		return false;
	virtiofs_inode_perm(in, &pi);
	/* Setgid without group execution stays for who is in the group, which a daemon that gives up CAP_FSETID for it is not. */
	return (pi.mode & (S_ISGID | S_IXGRP)) != S_ISGID ||
	       !(vfs_kill_priv_mode_gid(cred, pi.mode, pi.gid) & S_ISGID);
}

int virtiofs_setattr(struct virtiofs_inode *in, const struct setattr_args *args,
		     const struct virtiofs_handle *handle)
{
	struct fuse_setattr_in arg = {0};
	struct fuse_attr_out out;
	struct vdev_call call = {
		.req = {.opcode = FUSE_SETATTR, .nodeid = in->nodeid, .arg = &arg},
		.reply = &out,
		.reply_size = sizeof(out),
	};
	ssize_t got;

	/* A size is set under fill_lock. */
	if (args->valid & SETATTR_SIZE)
		call.owner = &in->filler.base;
	fill_setattr(&arg, args);
	if (!arg.valid)
		return 0;
	if ((arg.valid & FATTR_SIZE) && virtiofs_kills_priv(in))
		arg.valid |= FATTR_KILL_SUIDGID;
	if (in->base.type == S_IFREG)
		arg.mode |= S_IFREG;
	if (handle && !handle->none) {
		arg.valid |= FATTR_FH;
		arg.fh = handle->fh;
	}
	virtiofs_inode_stale(in);
	/* The time of an earlier write by memory is history. */
	if (arg.valid & FATTR_MTIME)
		atomic_store(&in->dax.times, false);
	got = virtiofs_call(in->fs, &call);
	if (got < 0)
		return (int)got;
	if ((out.attr.mode & S_IFMT) != in->base.type)
		return -EIO;
	virtiofs_inode_update(in, &out.attr, out.attr_valid, out.attr_valid_nsec, VIRTIOFS_FORCED);
	return 0;
}

/* A new size: dirty data before the cut goes first, so that the server does not see it come after. */
int virtiofs_truncate(struct virtiofs_inode *in, const struct setattr_args *args,
		      const struct virtiofs_handle *handle)
{
	int err = virtiofs_data_writeback(in, 0, args->size);

	if (err)
		return err;
	virtiofs_fill_begin(in);
	virtiofs_data_extended(in, args->size, true);
	err = virtiofs_setattr(in, args, handle);
	if (!err) {
		virtiofs_data_truncated(in, args->size);
		/* Dirty pages, now gone, made the old size look like ours to keep. */
		virtiofs_inode_cut(in, args->size);
	}
	virtiofs_fill_end(in);
	return err;
}

static int change(struct resolving_path *rp, struct remote_dentry *d, struct setattr_args *a)
{
	struct virtiofs_inode *in = virtiofs_inode_of(d);
	struct perm_inode pi;
	int err;

	virtiofs_inode_perm(in, &pi);
	if ((a->valid & SETATTR_SIZE) && !S_ISREG(pi.mode))
		return S_ISDIR(pi.mode) ? -EISDIR : -EINVAL;
	err = rp_begin_write(rp);
	if (!err) {
		rcu_read_begin();
		virtiofs_inode_perm_acl(in, &pi);
		err = vfs_may_setattr(rp_cred(rp), &pi, a);
		rcu_read_end();
	}
	if (err)
		return err;
	if (a->valid & SETATTR_SIZE) {
		uint32_t kept = vfs_kill_priv_mode_gid(rp_cred(rp), pi.mode, pi.gid);

		if (kept != pi.mode && !(a->valid & SETATTR_MODE)) {
			a->valid |= SETATTR_MODE;
			a->mode = kept & 07777;
		}
		op_lock(&in->write_lock);
		err = virtiofs_truncate(in, a, NULL);
		op_unlock(&in->write_lock);
	} else {
		/* Times that are set must not be overtaken by the times of data that is written later. */
		if (a->valid & (SETATTR_MTIME | SETATTR_MTIME_NOW))
			err = virtiofs_data_writeback(in, 0, UINT64_MAX);
		if (!err)
			err = virtiofs_setattr(in, a, NULL);
	}
	if (!err && (a->valid & (SETATTR_MODE | SETATTR_UID | SETATTR_GID)))
		dentry_path_changed(&d->d);
	return err;
}

int virtiofs_set_stat_at(struct filesystem *base, struct resolving_path *rp,
			 const struct setattr_args *args)
{
	struct setattr_args a = *args;
	struct remote_dentry *d;
	int err = walk_to(base, rp, &d);

	if (err)
		return err;
	err = change(rp, d, &a);
	if (!err)
		vfs_notify_change(&d->d, a.valid);
	remote_dentry_unref(d);
	return err;
}
