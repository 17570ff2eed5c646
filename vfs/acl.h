/*
 * vfs/acl.h - POSIX ACLs: immutable, reference counted, read under RCU. The xattr format is linux/posix_acl_xattr.h's, version 2.
 */
#ifndef MOAT_VFS_ACL_H
#define MOAT_VFS_ACL_H

#include "base/rcu.h"
#include "base/ref.h"

#define VFS_ACL_ENTRIES_MAX 8191 /* what fits VFS_XATTR_SIZE_MAX */

struct cred;

enum {
	ACL_TAG_USER_OBJ = 0x01,
	ACL_TAG_USER = 0x02,
	ACL_TAG_GROUP_OBJ = 0x04,
	ACL_TAG_GROUP = 0x08,
	ACL_TAG_MASK = 0x10,
	ACL_TAG_OTHER = 0x20,
};

struct vfs_acl_entry {
	uint16_t tag, perm;
	uint32_t id;
};

struct vfs_acl {
	struct ref ref;
	struct rcu_cb rcu;
	uint32_t count;
	struct vfs_acl_entry entries[];
};

/*
 * From the xattr's bytes; *ret is NULL for an empty ACL. Only the format is checked: vfs_acl_check() comes after the permission to set it.
 * Return: 0, -EINVAL, -EOPNOTSUPP (version), -ENOMEM. Returns a reference.
 */
must_check int vfs_acl_parse(const void *data, size_t size, struct vfs_acl **ret);
/* Are the right entries there in the right order? -EINVAL. NULL is fine. */
must_check int vfs_acl_check(const struct vfs_acl *acl);
/* Into the xattr's format; size 0 asks. Return: bytes, -ERANGE. */
ssize_t vfs_acl_format(const struct vfs_acl *acl, void *data, size_t size);
void vfs_acl_ref(struct vfs_acl *acl);
void vfs_acl_unref(struct vfs_acl *acl); /* NULL is fine; freed by RCU */
/* May an inode of uid:gid with this ACL be used so? -EACCES. */
must_check int vfs_acl_permission(const struct vfs_acl *acl, uint32_t uid, uint32_t gid,
				  const struct cred *cred, int mask);
/* An access ACL is set: *inout_mode's permission bits follow; true when the bits say it all (no ACL need be kept). */
bool vfs_acl_to_mode(const struct vfs_acl *acl, uint32_t *inout_mode);
/* chmod on an inode with an ACL: a new one. Returns a reference. */
must_check int vfs_acl_chmod(const struct vfs_acl *acl, uint32_t mode, struct vfs_acl **ret);
/*
 * A child of a directory with default ACL `dir_default` (NULL: the umask applies): its mode, access ACL (NULL if the mode says it) . A new
 * directory also inherits dir_default itself. Returns a reference.
 */
must_check int vfs_acl_create(struct vfs_acl *dir_default, uint32_t umask, uint32_t *inout_mode,
			      struct vfs_acl **ret_access);

#endif
