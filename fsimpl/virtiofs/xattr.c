/* fsimpl/virtiofs/xattr.c - extended attributes: a request each; values go through the small reply or a chunk of their own. */
#include <stdlib.h>
#include <string.h>

#include "fsimpl/virtiofs/internal.h"
#include "vfs/inotify.h"

static bool is_acl(const char *name)
{
	return !strncmp(name, "system.posix_acl_", 17);
}

/* Walks to the end and checks. set: what is to be set, or NULL. Return: 0 and a reference. */
static int begin(struct filesystem *base, struct resolving_path *rp, const char *name, bool write,
		 const struct xattr_args *set, struct remote_dentry **ret)
{
	struct virtiofs_fs *fs = virtiofs_fs_of(base);
	struct perm_inode pi;
	int err = virtiofs_begin(fs, rp, false);

	if (err)
		return err;
	rwlock_read_lock(&fs->tree_lock);
	err = virtiofs_walk(fs, rp, false, virtiofs_now(fs).time, ret);
	rwlock_read_unlock(&fs->tree_lock);
	if (err)
		return err;
	if (write)
		err = rp_begin_write(rp);
	if (!err && name) {
		rcu_read_begin();
		virtiofs_inode_perm_acl(virtiofs_inode_of(*ret), &pi);
		err = set ? vfs_may_set_xattr(rp_cred(rp), &pi, set)
			  : vfs_may_xattr(rp_cred(rp), &pi, name, write);
		rcu_read_end();
	}
	/* Lists that are kept but not evaluated would lie about who may do what. */
	if (!err && name && is_acl(name) && !virtiofs_has_acls(fs))
		err = -EOPNOTSUPP;
	if (err)
		remote_dentry_unref(*ret);
	return err;
}

ssize_t virtiofs_xattr_get(struct virtiofs_inode *in, uint32_t opcode, const char *name, void *buf,
			   size_t size)
{
	struct fuse_getxattr_in arg = {.size = (uint32_t)MIN(size, (size_t)VFS_XATTR_SIZE_MAX)};
	struct fuse_getxattr_out out;
	struct memfile *mf = virtiofs_device_memory(in->fs->dev);
	struct vdev_call call = {.req = {.opcode = opcode, .nodeid = in->nodeid, .arg = &arg}};
	struct vdev_data data;
	ssize_t got;

	if (name) {
		call.req.name[0] = name;
		call.req.name_len[0] = strlen(name);
	}
	if (!arg.size) {
		call.reply = &out;
		call.reply_size = sizeof(out);
		got = virtiofs_call(in->fs, &call);
		return got < 0			       ? got
		       : got != sizeof(out)	       ? -EIO
		       : out.size > VFS_XATTR_SIZE_MAX ? -EIO
						       : (ssize_t)out.size;
	}
	if (arg.size <= VDEV_REPLY_MAX) {
		call.reply = buf;
		call.reply_size = arg.size;
		return virtiofs_call(in->fs, &call);
	}
	if (memfile_alloc(mf, arg.size, 0, 0, &data.off))
		return -ENOMEM;
	data.size = arg.size;
	call.receive = &data;
	call.receive_count = 1;
	got = virtiofs_call(in->fs, &call);
	if (got > 0)
		memcpy(buf, memfile_ptr(mf, data.off), (size_t)got);
	memfile_range_unref(mf, data.off, data.size);
	return got;
}

/* A server without xattrs is like a filesystem without. */
static ssize_t absent(ssize_t ret)
{
	return ret == -ENOSYS ? -EOPNOTSUPP : ret;
}

ssize_t virtiofs_get_xattr_at(struct filesystem *fs, struct resolving_path *rp,
			      const struct xattr_args *args)
{
	struct remote_dentry *d;
	ssize_t ret = begin(fs, rp, args->name, false, NULL, &d);

	if (ret)
		return ret;
	ret = virtiofs_xattr_get(virtiofs_inode_of(d), FUSE_GETXATTR, args->name, args->value,
				 args->size);
	remote_dentry_unref(d);
	return absent(ret);
}

ssize_t virtiofs_list_xattr_at(struct filesystem *fs, struct resolving_path *rp, char *buf,
			       size_t size)
{
	struct remote_dentry *d;
	ssize_t ret = begin(fs, rp, NULL, false, NULL, &d);

	if (ret)
		return ret;
	ret = virtiofs_xattr_get(virtiofs_inode_of(d), FUSE_LISTXATTR, NULL, buf, size);
	/* Each name ends, and the last one too: callers go through it by strlen(). */
	if (size && ret > 0 && buf[ret - 1])
		ret = -EIO;
	remote_dentry_unref(d);
	return ret == -ENOSYS ? 0 : ret;
}

static void changed(struct remote_dentry *d, struct resolving_path *rp, const char *name)
{
	if (is_acl(name)) {
		virtiofs_acl_changed(virtiofs_inode_of(d), rp_cred(rp), name);
		dentry_path_changed(&d->d);
	}
	vfs_notify_attrib(&d->d);
}

int virtiofs_set_xattr_at(struct filesystem *fs, struct resolving_path *rp,
			  const struct xattr_args *args)
{
	struct fuse_setxattr_in arg = {.size = (uint32_t)args->size,
				       .flags = (uint32_t)args->flags};
	struct vdev_call call = {.req = {.opcode = FUSE_SETXATTR, .arg = &arg}};
	struct vdev_data data = {0};
	struct virtiofs_inode *in;
	struct remote_dentry *d;
	struct memfile *mf;
	ssize_t got = begin(fs, rp, args->name, true, args, &d);

	if (got)
		return (int)got;
	in = virtiofs_inode_of(d);
	if (in->fs->init_flags & FUSE_SETXATTR_EXT) {
		call.req.arg_size = sizeof(arg);
		if (virtiofs_acl_kills_sgid(in, rp_cred(rp), args->name))
			arg.setxattr_flags = FUSE_SETXATTR_ACL_KILL_SGID;
	}
	mf = virtiofs_device_memory(in->fs->dev);
	call.req.nodeid = in->nodeid;
	call.req.name[0] = args->name;
	call.req.name_len[0] = strlen(args->name);
	if (args->size > VDEV_REPLY_MAX) {
		got = memfile_alloc(mf, args->size, 0, 0, &data.off);
		if (!got) {
			memcpy(memfile_ptr(mf, data.off), args->value, args->size);
			data.size = (uint32_t)args->size;
			call.send = &data;
			call.send_count = 1;
		}
	} else {
		call.inline_data = args->value;
		call.inline_size = args->size;
	}
	if (!got)
		got = virtiofs_call(in->fs, &call);
	if (data.size)
		memfile_range_unref(mf, data.off, data.size);
	virtiofs_inode_stale(in);
	if (got >= 0)
		changed(d, rp, args->name);
	remote_dentry_unref(d);
	return got < 0 ? (int)absent(got) : 0;
}

int virtiofs_remove_xattr_at(struct filesystem *fs, struct resolving_path *rp, const char *name)
{
	struct vdev_call call = {.req = {.opcode = FUSE_REMOVEXATTR}};
	struct remote_dentry *d;
	ssize_t got = begin(fs, rp, name, true, NULL, &d);

	if (got)
		return (int)got;
	call.req.nodeid = virtiofs_inode_of(d)->nodeid;
	call.req.name[0] = name;
	call.req.name_len[0] = strlen(name);
	got = virtiofs_call(virtiofs_inode_of(d)->fs, &call);
	virtiofs_inode_stale(virtiofs_inode_of(d));
	if (got >= 0)
		changed(d, rp, name);
	remote_dentry_unref(d);
	return got < 0 ? (int)absent(got) : 0;
}
