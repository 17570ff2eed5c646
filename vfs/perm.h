/*
 * vfs/perm.h - permission checks that every filesystem shares (mode bits, POSIX ACLs, capabilities, sticky, mounts).
 */
#ifndef MOAT_VFS_PERM_H
#define MOAT_VFS_PERM_H

#include "vfs/vfs.h"

/* /proc/sys/fs/protected_*; distributions set 1 (regular, fifos: 2 also covers group-writable directories). */
extern _Atomic int vfs_protected_symlinks, vfs_protected_hardlinks, vfs_protected_regular,
	vfs_protected_fifos;

struct vfs_acl; /* a parsed POSIX ACL; vfs/acl.h */

/* What checks look at; a snapshot taken by the filesystem. */
struct perm_inode {
	uint32_t mode, uid, gid;
	uint32_t flags; /* PERM_* */
	const struct vfs_acl *acl; /* access ACL or NULL */
};

/* FS_IMMUTABLE_FL and FS_APPEND_FL of the filesystems that have them. */
enum { PERM_IMMUTABLE = 0x10, PERM_APPEND = 0x20 };

/* mask of R_OK|W_OK|X_OK. Return 0, -EACCES, or -EPERM for a change of what is immutable. */
must_check int vfs_permission(const struct cred *cred, const struct perm_inode *pi, int mask);
/* open(2): access mode, O_TRUNC, exec, noexec/nodev mounts, directories for writing (-EISDIR), O_NOATIME (-EPERM). Not existence. */
must_check int vfs_may_open(const struct cred *cred, struct mount *mnt, const struct perm_inode *pi,
			    unsigned flags, bool exec);
/* Removing victim from dir (sticky): -EPERM, -EACCES; isdir tells rmdir from unlink: -ENOTDIR, -EISDIR. */
must_check int vfs_may_delete(const struct cred *cred, const struct perm_inode *dir,
			      const struct perm_inode *victim, bool isdir);
/* fs.protected_symlinks / protected_hardlinks / protected_regular / protected_fifos = 1 as distributions set them. */
must_check int vfs_may_follow_link(const struct cred *cred, const struct perm_inode *dir,
				   const struct perm_inode *link);
must_check int vfs_may_linkat(const struct cred *cred, const struct perm_inode *pi);
must_check int vfs_may_create_in_sticky(const struct cred *cred, const struct perm_inode *dir,
					const struct perm_inode *pi);
/*
 * setattr_prepare: may cred make this change? Adjusts args->mode (setgid dropped when not in the group), adds SETATTR_KILL_PRIV
 * for chown. Return 0, -EPERM, -EACCES.
 */
must_check int vfs_may_setattr(const struct cred *cred, const struct perm_inode *pi,
			       struct setattr_args *inout_args);
/* Mode and gid of a new child: umask or default ACL by the caller; setgid directories. */
void vfs_init_owner(const struct cred *cred, const struct perm_inode *dir, uint32_t *inout_mode,
		    uint32_t *ret_uid, uint32_t *ret_gid);
/* After a write by cred: which of setuid/setgid bits must go. Return the new mode. */
uint32_t vfs_kill_priv_mode(const struct cred *cred, uint32_t mode);
/* The same, knowing the file's group: setgid without group execution goes too when the writer is not in it. */
uint32_t vfs_kill_priv_mode_gid(const struct cred *cred, uint32_t mode, uint32_t gid);
/* xattr namespaces: user.*, trusted.*, security.*, system.posix_acl_*: may cred read/write this name on this inode? -EPERM, -ENODATA (trusted without capability), -EOPNOTSUPP. */
must_check int vfs_may_xattr(const struct cred *cred, const struct perm_inode *pi, const char *name,
			     bool write);
/* The same before a set, which for security.capability is cap_convert_nscap(): -EINVAL for a value of no known form, whoever asks. */
must_check int vfs_may_set_xattr(const struct cred *cred, const struct perm_inode *pi,
				 const struct xattr_args *args);
/* A value of security.capability (size bytes) has a form that may be set: revision 2 or 3. */
bool vfs_nscap_valid(const void *value, size_t size);
/* relatime etc.: should a read update atime now? */
bool vfs_atime_due(const struct mount *mnt, unsigned file_flags, bool isdir,
		   const struct moat_timestamp *atime, const struct moat_timestamp *mtime,
		   const struct moat_timestamp *ctime, struct moat_timestamp now);

#endif
