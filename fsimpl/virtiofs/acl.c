/*
 * fsimpl/virtiofs/acl.c - POSIX ACLs, where the daemon has them (FUSE_POSIX_ACL): the host keeps and inherits them, the guest's rights are checked here.
 *
 * An access ACL is asked for when it could decide: not for the owner, not for who may override, and not where the group's bits (which are the ACL's
 * mask) are empty. It holds as long as the attributes with which it was asked for: a change of the ACL is one of ctime, and of the version.
 */
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>

#include "fsimpl/virtiofs/internal.h"
#include "vfs/acl.h"

#define ACL_SIZE 4096 /* what is tried first */

bool virtiofs_has_acls(const struct virtiofs_fs *fs)
{
	return fs->init_flags & FUSE_POSIX_ACL;
}

/* Is in->acl what the file has (NULL: none), as far as the attributes tell? Pre: in->lock. */
static bool known_locked(const struct virtiofs_inode *in)
{
	const struct fuse_attr *a = &in->acl_attr;

	return in->acl_known && a->ctime == in->attr.ctime && a->ctimensec == in->attr.ctimensec &&
	       in->acl_seen == in->attr_seen;
}

void virtiofs_acl_forget(struct virtiofs_inode *in)
{
	mutex_lock(&in->lock);
	in->acl_known = false;
	mutex_unlock(&in->lock);
}

void virtiofs_acl_free(struct virtiofs_inode *in)
{
	vfs_acl_unref(atomic_load_explicit(&in->acl, memory_order_relaxed));
}

/* Asks. *ret: a reference, or NULL. */
static int fetch(struct virtiofs_inode *in, const char *name, struct vfs_acl **ret)
{
	size_t size = ACL_SIZE;
	char *buf = malloc(size);
	ssize_t got = -ENOMEM;
	int err;

	*ret = NULL;
	if (buf)
		got = virtiofs_xattr_get(in, FUSE_GETXATTR, name, buf, size);
	if (got == -ERANGE) {
		free(buf);
		size = VFS_XATTR_SIZE_MAX;
		buf = malloc(size);
		got = buf ? virtiofs_xattr_get(in, FUSE_GETXATTR, name, buf, size) : -ENOMEM;
	}
	err = got < 0 ? (int)got : vfs_acl_parse(buf, (size_t)got, ret);
	free(buf);
	if (err == -ENODATA || err == -EOPNOTSUPP || err == -ENOSYS)
		return 0;
	return got >= 0 && err && err != -ENOMEM ? -EIO : err;
}

int virtiofs_acl_ensure(const struct cred *cred, struct virtiofs_inode *in)
{
	struct vfs_acl *acl, *old;
	struct fuse_attr attr;
	uint64_t seen;
	bool known;
	int err;

	if (!virtiofs_has_acls(in->fs) || in->base.type == S_IFLNK ||
	    cred_has_cap(cred, CAP_DAC_OVERRIDE))
		return 0;
	mutex_lock(&in->lock);
	attr = in->attr;
	seen = in->attr_seen;
	known = known_locked(in) || !(attr.mode & S_IRWXG) || cred->fsuid == attr.uid;
	mutex_unlock(&in->lock);
	if (known)
		return 0;
	err = fetch(in, VIRTIOFS_ACL_ACCESS, &acl);
	/* Gone meanwhile: whoever holds it open goes by the mode. */
	if (err == -ENOENT)
		return 0;
	if (err)
		return err;
	mutex_lock(&in->lock);
	old = atomic_exchange_explicit(&in->acl, acl, memory_order_acq_rel);
	in->acl_attr = attr;
	in->acl_seen = seen;
	in->acl_known = true;
	mutex_unlock(&in->lock);
	vfs_acl_unref(old);
	return 0;
}

void virtiofs_inode_perm_acl(struct virtiofs_inode *in, struct perm_inode *ret)
{
	mutex_lock(&in->lock);
	ret->flags = 0;
	ret->mode = in->attr.mode;
	ret->uid = in->attr.uid;
	ret->gid = in->attr.gid;
	/* One that is not known any more was so when the operation began: better than none. */
	ret->acl = atomic_load_explicit(&in->acl, memory_order_acquire);
	mutex_unlock(&in->lock);
}

int virtiofs_permission(const struct cred *cred, struct virtiofs_inode *in, int mask)
{
	struct perm_inode pi;
	int err;

	rcu_read_begin();
	virtiofs_inode_perm_acl(in, &pi);
	err = vfs_permission(cred, &pi, mask);
	rcu_read_end();
	return err;
}

bool virtiofs_acl_kills_sgid(struct virtiofs_inode *in, const struct cred *cred, const char *name)
{
	struct perm_inode pi;

	if (strcmp(name, VIRTIOFS_ACL_ACCESS) != 0)
		return false;
	virtiofs_inode_perm(in, &pi);
	return (pi.mode & S_ISGID) && !cred_in_group(cred, pi.gid) &&
	       !cred_has_cap(cred, CAP_FSETID);
}

/*
 * A new ACL has changed the mode. The server may keep setgid, the guest's program perhaps not. A failure has nobody to tell: the ACL is set.
 */
void virtiofs_acl_changed(struct virtiofs_inode *in, const struct cred *cred, const char *name)
{
	struct setattr_args a = {.valid = SETATTR_MODE};
	struct perm_inode pi;

	virtiofs_acl_forget(in);
	if (strcmp(name, VIRTIOFS_ACL_ACCESS) != 0 || virtiofs_inode_refresh(in, VIRTIOFS_ASK) ||
	    !virtiofs_acl_kills_sgid(in, cred, name))
		return;
	virtiofs_inode_perm(in, &pi);
	a.mode = pi.mode & 07777 & ~(uint32_t)S_ISGID;
	(void)!virtiofs_setattr(in, &a, NULL);
}

/* For a filesystem that stacks on this one. */
int virtiofs_get_acl(struct dentry *base, bool is_default, struct vfs_acl **ret)
{
	struct virtiofs_inode *in = virtiofs_inode_of(remote_dentry_of(base));

	*ret = NULL;
	if (!virtiofs_has_acls(in->fs) || in->base.type == S_IFLNK)
		return 0;
	return fetch(in, is_default ? "system.posix_acl_default" : VIRTIOFS_ACL_ACCESS, ret);
}
