/*
 * vfs/perm.c - permission checks, in the order and with the answers of Linux's fs/namei.c, fs/attr.c and fs/xattr.c.
 */
#include <fcntl.h>
#include <linux/capability.h>
#include <string.h>
#include <unistd.h>

#include "vfs/acl.h"
#include "vfs/perm.h"

_Atomic int vfs_protected_symlinks = 1, vfs_protected_hardlinks = 1, vfs_protected_regular = 1,
	    vfs_protected_fifos = 1;

static bool is_owner_or_capable(const struct cred *cred, const struct perm_inode *pi)
{
	return cred->fsuid == pi->uid || cred_has_cap(cred, CAP_FOWNER);
}

static bool in_group_or_capable(const struct cred *cred, uint32_t gid)
{
	return cred_in_group(cred, gid) || cred_has_cap(cred, CAP_FSETID);
}

static int check_bits(const struct cred *cred, const struct perm_inode *pi, int mask)
{
	uint32_t mode = pi->mode;

	if (cred->fsuid == pi->uid) {
		mode >>= 6;
	} else {
		if (pi->acl && (mode & S_IRWXG))
			return vfs_acl_permission(pi->acl, pi->uid, pi->gid, cred, mask);
		/* Only if the group's and others' bits differ does it matter who is in the group. */
		if (((uint32_t)mask & (mode ^ (mode >> 3))) && cred_in_group(cred, pi->gid))
			mode >>= 3;
	}
	return (uint32_t)mask & ~mode & 7 ? -EACCES : 0;
}

int vfs_permission(const struct cred *cred, const struct perm_inode *pi, int mask)
{
	if (unlikely(pi->flags & PERM_IMMUTABLE) && (mask & W_OK))
		return -EPERM;
	if (!mask || likely(!check_bits(cred, pi, mask)))
		return 0;
	if (S_ISDIR(pi->mode)) {
		if (!(mask & W_OK) && cred_has_cap(cred, CAP_DAC_READ_SEARCH))
			return 0;
		return cred_has_cap(cred, CAP_DAC_OVERRIDE) ? 0 : -EACCES;
	}
	if (mask == R_OK && cred_has_cap(cred, CAP_DAC_READ_SEARCH))
		return 0;
	if ((!(mask & X_OK) || (pi->mode & 0111)) && cred_has_cap(cred, CAP_DAC_OVERRIDE))
		return 0;
	return -EACCES;
}

static int open_mask(unsigned flags, bool exec)
{
	static const int masks[4] = {R_OK, W_OK, R_OK | W_OK, R_OK | W_OK};
	int mask = masks[flags & O_ACCMODE];

	if (flags & O_TRUNC)
		mask |= W_OK;
	/* execve opens for execution alone. */
	return exec ? X_OK : mask;
}

int vfs_may_open(const struct cred *cred, struct mount *mnt, const struct perm_inode *pi,
		 unsigned flags, bool exec)
{
	unsigned mnt_flags = atomic_load_explicit(&mnt->flags, memory_order_relaxed);
	int mask = open_mask(flags, exec), err;

	switch (pi->mode & S_IFMT) {
	case S_IFLNK:
		return -ELOOP;
	case S_IFDIR:
		if (mask & W_OK)
			return -EISDIR;
		if (exec)
			return -EACCES;
		break;
	case S_IFBLK:
	case S_IFCHR:
		if (mnt_flags & MNT_NODEV_F)
			return -EACCES;
		/* fallthrough */
	case S_IFIFO:
	case S_IFSOCK:
		if (exec)
			return -EACCES;
		mask = open_mask(flags & ~(unsigned)O_TRUNC, false);
		break;
	default:
		if (exec && (mnt_flags & MNT_NOEXEC_F))
			return -EACCES;
	}
	if ((mask & W_OK) && (S_ISREG(pi->mode) || S_ISDIR(pi->mode)) &&
	    (atomic_load_explicit(&mnt->fs->sb_flags, memory_order_relaxed) & FS_RDONLY))
		return -EROFS;
	err = vfs_permission(cred, pi, mask);
	if (err)
		return err;
	if (unlikely(pi->flags & PERM_APPEND) &&
	    (((flags & O_ACCMODE) != O_RDONLY && !(flags & O_APPEND)) || (flags & O_TRUNC)))
		return -EPERM;
	if ((flags & O_NOATIME) && !is_owner_or_capable(cred, pi))
		return -EPERM;
	return 0;
}

int vfs_may_delete(const struct cred *cred, const struct perm_inode *dir,
		   const struct perm_inode *victim, bool isdir)
{
	int err;

	err = vfs_permission(cred, dir, W_OK | X_OK);
	if (err)
		return err;
	if (unlikely(dir->flags & PERM_APPEND) ||
	    unlikely(victim->flags & (PERM_APPEND | PERM_IMMUTABLE)))
		return -EPERM;
	if ((dir->mode & S_ISVTX) && cred->fsuid != victim->uid && cred->fsuid != dir->uid &&
	    !cred_has_cap(cred, CAP_FOWNER))
		return -EPERM;
	if (isdir)
		return S_ISDIR(victim->mode) ? 0 : -ENOTDIR;
	return S_ISDIR(victim->mode) ? -EISDIR : 0;
}

int vfs_may_follow_link(const struct cred *cred, const struct perm_inode *dir,
			const struct perm_inode *link)
{
	if (likely((dir->mode & (S_ISVTX | S_IWOTH)) != (S_ISVTX | S_IWOTH)))
		return 0;
	if (cred->fsuid == link->uid || dir->uid == link->uid)
		return 0;
	return atomic_load_explicit(&vfs_protected_symlinks, memory_order_relaxed) ? -EACCES : 0;
}

int vfs_may_linkat(const struct cred *cred, const struct perm_inode *pi)
{
	bool safe = S_ISREG(pi->mode) && !(pi->mode & S_ISUID) &&
		    (pi->mode & (S_ISGID | S_IXGRP)) != (S_ISGID | S_IXGRP) &&
		    !vfs_permission(cred, pi, R_OK | W_OK);

	if (!atomic_load_explicit(&vfs_protected_hardlinks, memory_order_relaxed))
		return 0;
	return safe || is_owner_or_capable(cred, pi) ? 0 : -EPERM;
}

int vfs_may_create_in_sticky(const struct cred *cred, const struct perm_inode *dir,
			     const struct perm_inode *pi)
{
	int regular = atomic_load_explicit(&vfs_protected_regular, memory_order_relaxed);
	int fifos = atomic_load_explicit(&vfs_protected_fifos, memory_order_relaxed);

	if (!(dir->mode & S_ISVTX) || pi->uid == dir->uid || pi->uid == cred->fsuid)
		return 0;
	if ((S_ISREG(pi->mode) && !regular) || (S_ISFIFO(pi->mode) && !fifos))
		return 0;
	if (dir->mode & S_IWOTH)
		return -EACCES;
	if ((dir->mode & S_IWGRP) &&
	    ((S_ISREG(pi->mode) && regular >= 2) || (S_ISFIFO(pi->mode) && fifos >= 2)))
		return -EACCES;
	return 0;
}

/* What chown takes away, whoever asks (chown_common(), setattr_should_drop_sgid()). */
static void setattr_chown_mode(const struct cred *cred, const struct perm_inode *pi,
			       struct setattr_args *args)
{
	uint32_t mode = args->valid & SETATTR_MODE ? args->mode : pi->mode & 07777;
	uint32_t drop = 0;

	if (S_ISDIR(pi->mode))
		return;
	args->valid |= SETATTR_KILL_PRIV;
	drop |= mode & S_ISUID;
	if (mode & S_ISGID)
		if ((mode & S_IXGRP) || !in_group_or_capable(cred, pi->gid))
			drop |= S_ISGID;
	if (drop) {
		args->valid |= SETATTR_MODE;
		args->mode = mode & ~drop;
	}
}

int vfs_may_setattr(const struct cred *cred, const struct perm_inode *pi, struct setattr_args *args)
{
	const unsigned times =
		SETATTR_ATIME | SETATTR_MTIME | SETATTR_ATIME_NOW | SETATTR_MTIME_NOW;
	const unsigned touch = SETATTR_ATIME_NOW | SETATTR_MTIME_NOW;
	bool touches = (args->valid & times) == touch;

	/* may_setattr(), and vfs_truncate() of what may only grow by appending. */
	if (unlikely(pi->flags)) {
		if (args->valid & (SETATTR_MODE | SETATTR_UID | SETATTR_GID))
			return -EPERM;
		if ((args->valid & times) && (!touches || (pi->flags & PERM_IMMUTABLE)))
			return -EPERM;
		if ((args->valid & SETATTR_SIZE) && (pi->flags & PERM_APPEND))
			return -EPERM;
	}
	if (touches && !is_owner_or_capable(cred, pi) && vfs_permission(cred, pi, W_OK))
		return -EACCES;
	if ((args->valid & SETATTR_SIZE) && !(args->valid & (SETATTR_FILE | SETATTR_OPEN)) &&
	    vfs_permission(cred, pi, W_OK))
		return -EACCES;
	/* chown(2) that names neither still takes setuid away: its caller sets KILL_PRIV. */
	if (args->valid & (SETATTR_UID | SETATTR_GID | SETATTR_KILL_PRIV))
		setattr_chown_mode(cred, pi, args);
	if ((args->valid & SETATTR_UID) && !cred_has_cap(cred, CAP_CHOWN) &&
	    (cred->fsuid != pi->uid || args->uid != pi->uid))
		return -EPERM;
	if ((args->valid & SETATTR_GID) && !cred_has_cap(cred, CAP_CHOWN) &&
	    (cred->fsuid != pi->uid || (args->gid != pi->gid && !cred_in_group(cred, args->gid))))
		return -EPERM;
	if (args->valid & SETATTR_MODE) {
		uint32_t gid = args->valid & SETATTR_GID ? args->gid : pi->gid;

		if (!is_owner_or_capable(cred, pi))
			return -EPERM;
		if (!in_group_or_capable(cred, gid))
			args->mode &= ~(uint32_t)S_ISGID;
	}
	if ((args->valid & times) && (args->valid & times) != touch &&
	    !is_owner_or_capable(cred, pi))
		return -EPERM;
	return 0;
}

void vfs_init_owner(const struct cred *cred, const struct perm_inode *dir, uint32_t *inout_mode,
		    uint32_t *ret_uid, uint32_t *ret_gid)
{
	*ret_uid = cred->fsuid;
	*ret_gid = cred->fsgid;
	if (!(dir->mode & S_ISGID))
		return;
	*ret_gid = dir->gid;
	if (S_ISDIR(*inout_mode))
		*inout_mode |= S_ISGID;
	else if ((*inout_mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) &&
		 !in_group_or_capable(cred, dir->gid))
		*inout_mode &= ~(uint32_t)S_ISGID;
}

uint32_t vfs_kill_priv_mode(const struct cred *cred, uint32_t mode)
{
	if (cred && cred_has_cap(cred, CAP_FSETID))
		return mode;
	mode &= ~(uint32_t)S_ISUID;
	if ((mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP))
		mode &= ~(uint32_t)S_ISGID;
	return mode;
}

uint32_t vfs_kill_priv_mode_gid(const struct cred *cred, uint32_t mode, uint32_t gid)
{
	mode = vfs_kill_priv_mode(cred, mode);
	if ((mode & S_ISGID) && cred && !in_group_or_capable(cred, gid))
		mode &= ~(uint32_t)S_ISGID;
	return mode;
}

static bool has_prefix(const char *name, const char *prefix)
{
	return strncmp(name, prefix, strlen(prefix)) == 0;
}

static int may_xattr(const struct cred *cred, const struct perm_inode *pi, const char *name,
		     bool write)
{
	/* may_write_xattr() */
	if (write && unlikely(pi->flags))
		return -EPERM;
	if (has_prefix(name, "system.")) {
		if (strcmp(name, "system.posix_acl_access") &&
		    strcmp(name, "system.posix_acl_default"))
			return -EOPNOTSUPP;
		if (S_ISLNK(pi->mode))
			return -EOPNOTSUPP;
		return write && !is_owner_or_capable(cred, pi) ? -EPERM : 0;
	}
	if (has_prefix(name, "security.")) {
		int cap = strcmp(name, "security.capability") ? CAP_SYS_ADMIN : CAP_SETFCAP;

		return write && !cred_has_cap(cred, cap) ? -EPERM : 0;
	}
	if (has_prefix(name, "trusted.")) {
		if (!cred_has_cap(cred, CAP_SYS_ADMIN))
			return write ? -EPERM : -ENODATA;
		return 0;
	}
	if (has_prefix(name, "user.")) {
		if (!S_ISREG(pi->mode) && !S_ISDIR(pi->mode))
			return write ? -EPERM : -ENODATA;
		if (S_ISDIR(pi->mode) && (pi->mode & S_ISVTX) && write &&
		    !is_owner_or_capable(cred, pi))
			return -EPERM;
		return vfs_permission(cred, pi, write ? W_OK : R_OK);
	}
	if (vfs_permission(cred, pi, write ? W_OK : R_OK))
		return -EACCES;
	return -EOPNOTSUPP;
}

int vfs_may_xattr(const struct cred *cred, const struct perm_inode *pi, const char *name,
		  bool write)
{
	static const char *const spaces[] = {"user.", "trusted.", "security."};
	int err = may_xattr(cred, pi, name, write);

	/* xattr_resolve_name(): nothing of that space is named. */
	for (size_t i = 0; !err && i < ARRAY_SIZE(spaces); i++)
		if (!strcmp(name, spaces[i]))
			err = -EINVAL;
	return err;
}

bool vfs_nscap_valid(const void *value, size_t size)
{
	__le32 magic;

	if (size != XATTR_CAPS_SZ_2 && size != XATTR_CAPS_SZ_3)
		return false;
	memcpy(&magic, value, sizeof(magic));
	return (magic & ~(uint32_t)VFS_CAP_FLAGS_EFFECTIVE) ==
	       (size == XATTR_CAPS_SZ_2 ? VFS_CAP_REVISION_2 : VFS_CAP_REVISION_3);
}

int vfs_may_set_xattr(const struct cred *cred, const struct perm_inode *pi,
		      const struct xattr_args *args)
{
	if (strcmp(args->name, "security.capability"))
		return vfs_may_xattr(cred, pi, args->name, true);
	/* An empty value is no capabilities', and nobody looks who sets it. */
	if (args->size && !vfs_nscap_valid(args->value, args->size))
		return -EINVAL;
	if (args->size && !cred_has_cap(cred, CAP_SETFCAP))
		return -EPERM;
	return unlikely(pi->flags) ? -EPERM : 0;
}

static bool time_at_or_before(const struct moat_timestamp *a, const struct moat_timestamp *b)
{
	return a->sec < b->sec || (a->sec == b->sec && a->nsec <= b->nsec);
}

bool vfs_atime_due(const struct mount *mnt, unsigned file_flags, bool isdir,
		   const struct moat_timestamp *atime, const struct moat_timestamp *mtime,
		   const struct moat_timestamp *ctime, struct moat_timestamp now)
{
	unsigned flags = mnt ? atomic_load_explicit(&mnt->flags, memory_order_relaxed) : 0;

	if ((file_flags & O_NOATIME) || (flags & MNT_NOATIME_F) ||
	    (isdir && (flags & MNT_NODIRATIME_F)))
		return false;
	if (mnt && ((flags & MNT_RDONLY_F) ||
		    (atomic_load_explicit(&mnt->fs->sb_flags, memory_order_relaxed) & FS_RDONLY)))
		return false;
	if (flags & MNT_RELATIME_F)
		return time_at_or_before(atime, mtime) || time_at_or_before(atime, ctime) ||
		       now.sec - atime->sec >= 24 * 60 * 60;
	return atime->sec != now.sec || atime->nsec != now.nsec;
}
