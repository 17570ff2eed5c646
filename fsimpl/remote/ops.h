/*
 * fsimpl/remote/ops.h - what path operations of all remote filesystems do alike: checks, a rename's rules and notices, O_PATH files.
 *
 * The filesystem supplies remote_dcache.inode_perm before it uses any of these.
 */
#ifndef MOAT_FSIMPL_REMOTE_OPS_H
#define MOAT_FSIMPL_REMOTE_OPS_H

#include "fsimpl/remote/dcache.h"
#include "vfs/perm.h"
#include "vfs/resolving_path.h"

/* RENAME_* of linux/fs.h, which clashes with glibc's headers. */
#define REMOTE_RENAME_NOREPLACE 1u
#define REMOTE_RENAME_EXCHANGE 2u
#define REMOTE_RENAME_WHITEOUT 4u

/* A directory that rp's credentials may search: 0, -ENOTDIR, -EACCES. */
must_check int remote_check_dir(struct remote_dcache *c, struct resolving_path *rp,
				const struct remote_dentry *d);
/* The end of a walk at `cur`: what trailing slashes and dots ask of it. 0, -ENOTDIR, -EACCES. */
must_check int remote_walk_finish(struct remote_dcache *c, struct resolving_path *rp,
				  const struct remote_dentry *cur, bool to_parent);
/* ".." of *inout_cur, which is replaced with its reference. Return: 0, -errno, a restart. Pre: the tree lock. */
must_check int remote_step_up(struct resolving_path *rp, struct remote_dentry **inout_cur);
/* access(2) of what a walk found. */
must_check int remote_access(struct resolving_path *rp, const struct perm_inode *pi, int mask);

/* A rename under way. */
struct remote_renaming {
	struct remote_dcache *c;
	struct resolving_path *rp;
	struct remote_dentry *olddir, *newdir; /* borrowed, a reference */
	const char *old_name;
	size_t old_len;
	char new_name[VFS_NAME_MAX + 1];
	size_t new_len;
	struct remote_dentry *old, *new_; /* references; new_ may be NULL */
	unsigned flags;
	bool old_must_be_dir;
};

/* Takes the new name from rp's last component. -ENAMETOOLONG, -ENOENT (a removed directory), ... Pre: newdir. */
must_check int remote_rename_names(struct remote_renaming *r);
/* Shapes: what must be a directory, what exists, loops. As do_renameat2(). */
must_check int remote_rename_shape(const struct remote_renaming *r);
/* The guest's rights, and mount points. */
must_check int remote_rename_rights(const struct remote_renaming *r);
/* is_dir: old's type. old may be NULL: nobody watches what nothing knows. */
void remote_rename_notify(const struct remote_renaming *r, bool is_dir);
/* Drops old, new_ and newdir. */
void remote_rename_fini(struct remote_renaming *r);

/* What O_PATH opens. */
must_check int remote_path_file_create(struct resolving_path *rp, struct remote_dentry *d,
				       unsigned flags, struct file **ret);

#endif
