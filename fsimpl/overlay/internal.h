/*
 * fsimpl/overlay/internal.h - what the files of overlay/ share.
 *
 * tree.c   dentries: which exist, parents, names          layers.c  looking a name up in the layers; whiteouts
 * copyup.c from a lower layer to the upper one             ops.c, create.c, rename.c  path operations
 * file.c   open files                                      dir.c     merged directories
 *
 * Locks
 *	fs->change (op_lock, sleeps)   every change of names and every copy-up in the filesystem, one at a time
 *	  base.rename_lock (LOCK_VFS_RENAME)  parent and name of a dentry, for readers that have neither change nor ...
 *	    dir->lock (LOCK_FS_DIR)    dir's table of live children; dir->gen
 * A lookup that finds no live child asks the layers without any lock and inserts what it found only if dir->gen did not
 * move; after OVERLAY_LOOKUP_TRIES it takes fs->change. Attributes are never cached here: the layers' are the truth.
 */
#ifndef MOAT_FSIMPL_OVERLAY_INTERNAL_H
#define MOAT_FSIMPL_OVERLAY_INTERNAL_H

#include <sys/stat.h>

#include "base/tree.h"
#include "fsimpl/overlay/overlay.h"
#include "vfs/op_lock.h"
#include "vfs/perm.h"
#include "vfs/resolving_path.h"

#define OVERLAY_LOOKUP_TRIES 3
#define OVERLAY_OPAQUE_XATTR "trusted.overlay.opaque"
#define OVERLAY_ORIGIN_XATTR "trusted.overlay.origin"
#define OVERLAY_XATTR_PREFIX "trusted.overlay."
/* Inode numbers born in the upper layer are told from the lower's by this bit. */
#define OVERLAY_UPPER_INO (1ull << 56)
#define OVERLAY_STATX_MASK 0xfffu /* STATX_BASIC_STATS | STATX_BTIME */

RB_HEAD(overlay_children, overlay_dentry);

struct overlay_dentry {
	struct dentry base;
	RB_ENTRY(overlay_dentry) node; /* in the parent's children; guarded by parent->lock */
	bool linked; /* is in there; guarded by parent->lock */
	struct overlay_dentry
		*parent; /* a reference; NULL: the root. Changed under fs->change and rename_lock */
	char *name; /* as parent */
	size_t name_len;
	uint32_t type; /* S_IFMT; immutable */
	uint64_t ino; /* immutable */
	struct dentry *_Atomic upper; /* a reference; NULL until copied up; then immutable */
	struct vfs_path
		*lowers; /* references; immutable. Not a directory: at most one, dropped never */
	unsigned nlowers;
	struct mutex lock; /* LOCK_FS_DIR; directories */
	struct overlay_children
		children; /* guarded by lock; no references: a child pins its parent */
	_Atomic uint64_t gen; /* bumped under lock by every change of a name below */
	_Atomic int32_t cache_slot; /* in fs->cache, or -1 */
	struct rcu_cb rcu;
};

struct overlay_fs {
	struct filesystem base;
	struct cred *cred; /* immutable: all capabilities; layers are worked on with it */
	struct mount *upper_mount; /* NULL: read-only */
	struct overlay_dentry *root; /* a reference */
	struct op_lock change;
	struct overlay_dentry *_Atomic cache[OVERLAY_CACHE_MAX]; /* references */
	_Atomic uint32_t cache_next;
};

extern const struct filesystem_ops overlay_ops;

static inline struct overlay_dentry *overlay_of(struct dentry *d)
{
	return (struct overlay_dentry *)d;
}
static inline struct overlay_fs *overlay_fs_of(struct filesystem *fs)
{
	return (struct overlay_fs *)fs;
}
static inline struct overlay_fs *overlay_fs_of_dentry(struct overlay_dentry *d)
{
	return (struct overlay_fs *)d->base.fs;
}
static inline struct dentry *overlay_upper(struct overlay_dentry *d)
{
	return atomic_load_explicit(&d->upper, memory_order_acquire);
}

/* ---- tree.c ---- */

/* What a lookup in the layers found. Owned references. */
struct overlay_found {
	struct dentry *upper;
	struct vfs_path lowers[OVERLAY_LAYERS_MAX];
	unsigned nlowers;
	uint32_t type;
	uint64_t ino;
};
void overlay_found_fini(struct overlay_found *f);
/* Takes f's references on success. `parent` gains one. *ret: a reference. Not in any table. */
must_check int overlay_dentry_create(struct overlay_fs *fs, struct overlay_dentry *parent,
				     const char *name, size_t len, struct overlay_found *f,
				     struct overlay_dentry **ret);
/* The live child, with a reference, or NULL. Takes dir->lock. */
struct overlay_dentry *overlay_child_find(struct overlay_dentry *dir, const char *name, size_t len);
/* Inserts unless dir->gen differs from gen (NULL: changed) or a live one exists (then that one, referenced, and d is dropped). Takes d's reference. */
struct overlay_dentry *overlay_child_insert(struct overlay_dentry *dir, struct overlay_dentry *d,
					    uint64_t gen);
/* d leaves its directory's table and the cache. Pre: fs->change held. */
void overlay_child_unlink(struct overlay_dentry *d);
/* d is `name` in dir from now on. Pre: fs->change held. name is taken. */
void overlay_child_move(struct overlay_dentry *d, struct overlay_dentry *dir, char *name,
			size_t len);
void overlay_dir_changed(struct overlay_dentry *dir);
void overlay_dentry_release(struct dentry *d);
int overlay_get_parent(struct dentry *d, struct dentry **ret_parent, char *name, size_t size);

/* ---- layers.c ---- */

/* The topmost layer's place of d. Borrowed. */
struct vfs_path overlay_real(struct overlay_dentry *d);
/* A lookup of `name` below `place` ("" with LOOKUP_EMPTY: place itself) with the filesystem's own credentials. */
struct vfs_lookup overlay_layer_lookup(struct overlay_fs *fs, const struct vfs_path *place,
				       const char *name, unsigned flags);
/* name in dir's layers: 0 with *ret filled, -ENOENT, -errno. */
must_check int overlay_layers_find(struct overlay_fs *fs, struct overlay_dentry *dir,
				   const char *name, struct overlay_found *ret);
/* Is `name` in one of dir's lower layers (must a removal leave a whiteout)? 1, 0, -errno. */
must_check int overlay_in_lower(struct overlay_fs *fs, struct overlay_dentry *dir,
				const char *name);
must_check int overlay_whiteout_make(struct overlay_fs *fs, struct overlay_dentry *dir,
				     const char *name);
/* Removes a whiteout of that name from the upper directory, if there is one. 1 there was, 0, -errno. */
must_check int overlay_whiteout_remove(struct overlay_fs *fs, struct overlay_dentry *dir,
				       const char *name);
must_check int overlay_set_opaque(struct overlay_fs *fs, const struct vfs_path *upper_dir);
bool overlay_is_whiteout(const struct moat_statx *st);
must_check int overlay_stat_real(struct overlay_fs *fs, struct overlay_dentry *d,
				 struct moat_statx *ret);
must_check int overlay_perm(struct overlay_fs *fs, struct overlay_dentry *d,
			    struct perm_inode *ret);
/* Child `name` of dir, live or from the layers. *ret: a reference. 0, -ENOENT, -errno. */
must_check int overlay_lookup(struct overlay_fs *fs, struct overlay_dentry *dir, const char *name,
			      size_t len, struct overlay_dentry **ret);

/* ---- copyup.c ---- */

/* d and all its ancestors are in the upper layer after it. data: false if the contents are about to be truncated away. Takes fs->change. */
must_check int overlay_copy_up(struct overlay_fs *fs, struct overlay_dentry *d, bool data);
/* Credentials for creating in the upper layer: everything allowed, owned by `caller`. Returns a reference. */
must_check int overlay_create_cred(struct overlay_fs *fs, const struct cred *caller,
				   struct cred **ret);
void overlay_attr(struct overlay_fs *fs, struct overlay_dentry *d, struct moat_statx *inout);

/* ---- walk (ops.c) ---- */

/* To the end of the path: *ret is a reference. 0, -errno, restart. */
must_check int overlay_walk(struct overlay_fs *fs, struct resolving_path *rp,
			    struct overlay_dentry **ret);
/* To the parent of the final component: a directory that the caller may search; *ret is a reference. */
must_check int overlay_walk_parent(struct overlay_fs *fs, struct resolving_path *rp,
				   struct overlay_dentry **ret);

/* ---- create.c, rename.c, file.c, dir.c: operations ---- */

int overlay_mkdir_at(struct filesystem *fs, struct resolving_path *rp,
		     const struct mkdir_args *args);
int overlay_mknod_at(struct filesystem *fs, struct resolving_path *rp,
		     const struct mknod_args *args);
int overlay_symlink_at(struct filesystem *fs, struct resolving_path *rp, const char *target);
int overlay_link_at(struct filesystem *fs, struct resolving_path *rp, struct dentry *old);
int overlay_unlink_at(struct filesystem *fs, struct resolving_path *rp);
int overlay_rmdir_at(struct filesystem *fs, struct resolving_path *rp);
int overlay_rename_at(struct filesystem *fs, struct resolving_path *rp, struct dentry *old_parent,
		      const char *old_name, bool old_must_be_dir, const struct rename_args *args);
int overlay_open_at(struct filesystem *fs, struct resolving_path *rp, const struct open_args *args,
		    struct file **ret_file);
/* create.c, for open_at: makes `name` in dir (copied up by it) and opens it. */
must_check int overlay_create_file(struct overlay_fs *fs, struct resolving_path *rp,
				   struct overlay_dentry *dir, const struct open_args *args,
				   struct overlay_dentry **ret_d, struct file **ret_real);
/* Is the merged directory empty? 0, -ENOTEMPTY, -errno. Removes leftover whiteouts from its upper part if `clean`. */
must_check int overlay_dir_empty(struct overlay_fs *fs, struct overlay_dentry *dir, bool clean);
int overlay_dir_iterate(struct file *f, struct dir_emit *ctx);
struct overlay_file;
void overlay_dir_forget(struct overlay_file *of);

struct overlay_dirent {
	uint64_t ino;
	unsigned type;
	size_t len;
	char *name;
};

struct overlay_file {
	struct file base;
	struct op_lock lock; /* around `real` being replaced and the directory snapshot */
	struct file *_Atomic real; /* a reference; NULL for directories and O_PATH */
	struct file
		*old_real; /* replaced after a copy-up; kept until release: readers may use it */
	bool real_is_upper; /* guarded by lock */
	struct overlay_dirent *entries; /* directories: the snapshot, guarded by lock */
	size_t nentries;
	bool have_entries;
};

#endif
