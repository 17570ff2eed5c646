/*
 * fsimpl/overlay/internal.h - what the files of overlay/ share.
 *
 * tree.c   dentries: which exist, parents, names; inodes    layers.c  looking a name up in the layers; marks on upper files
 * copyup.c from a lower layer to the upper one             ops.c, xattr.c, create.c, rename.c  path operations
 * file.c   open files                                      dir.c     merged directories
 * mount.c  options, layers, creation
 *
 * walk.c   the lock-free walk and what cached paths ask    missing.c  names that no layer has
 *
 * Locks
 *	fs->change (op_lock, sleeps)   every change of names and every copy-up in the filesystem, one at a time
 *	  dir->lock (LOCK_FS_DIR)      dir's table of live children, for changes; dir->changes
 *	    fs->inodes_lock (LOCK_FS_INODE)  the table of inodes by their upper file
 * Live children, names and parents are read under RCU. A lookup that finds no live child asks the layers without any lock and inserts
 * what it found only if dir->changes did not move; after OVERLAY_LOOKUP_TRIES it takes fs->change. Attributes are never
 * cached here: the layers' are the truth. Where every layer is nobody else's (filesystem.exclusive), missing names are
 * remembered and paths are cached; a layer that is changed behind the overlay's back then shows late, as on Linux.
 */
#ifndef MOAT_FSIMPL_OVERLAY_INTERNAL_H
#define MOAT_FSIMPL_OVERLAY_INTERNAL_H

#include <sys/stat.h>

#include "base/tree.h"
#include "fsimpl/overlay/overlay.h"
#include "vfs/acl.h"
#include "vfs/inotify.h"
#include "vfs/names.h"
#include "vfs/op_lock.h"
#include "vfs/perm.h"
#include "vfs/resolving_path.h"

#define OVERLAY_LOOKUP_TRIES 3
#define OVERLAY_MISSING_MAX 4096u /* missing names that are remembered */
#define OVERLAY_MAGIC 0x794c7630
/* With layers of several filesystems the top byte of an inode number says which. */
#define OVERLAY_INO_SHIFT 56
#define OVERLAY_STATX_MASK 0xfffu /* STATX_BASIC_STATS | STATX_BTIME */
#define OVERLAY_REDIRECT_MAX 256 /* longer: -EXDEV, as Linux */

RB_HEAD(overlay_inodes, overlay_inode);

/* What hard links in the upper layer share, and what stays when a file is copied up: the identity. */
struct overlay_inode {
	struct ref ref; /* dentries */
	RB_ENTRY(overlay_inode) node; /* fs->inodes; guarded by fs->inodes_lock */
	bool hashed; /* guarded by fs->inodes_lock */
	uint64_t upper_key; /* inode_key of the upper file; guarded by fs->inodes_lock */
	_Atomic uint64_t ino;
	struct rcu_cb rcu;
};

struct overlay_dentry {
	struct dentry base;
	/* Its name and parent (a reference; NULL: the root), in the parent's children. Changed under fs->change; read under RCU. */
	struct name_node at;
	uint64_t id; /* immutable; never again another's in this filesystem */
	uint32_t type; /* S_IFMT; immutable */
	struct overlay_inode *inode; /* immutable; a reference */
	struct dentry *_Atomic upper; /* a reference; NULL until copied up; then immutable */
	struct vfs_path *
		lowers; /* references; immutable. Not a directory: at most one, dropped never. Freed by RCU */
	unsigned nlowers;
	char *redirect; /* where the lowers are found; NULL: by the name. Guarded by fs->change */
	_Atomic bool
		impure; /* the upper directory is marked so; set under fs->change, asked by listings without */
	struct mutex lock; /* LOCK_FS_DIR; directories */
	struct names children; /* no references: a child pins its parent */
	struct seqcount
		changes; /* odd while a name below changes; written under fs->change and lock */
	_Atomic int32_t cache_slot; /* in fs->cache, or -1 */
	struct rcu_cb rcu;
};

enum overlay_redirect { REDIRECT_FOLLOW, REDIRECT_NOFOLLOW, REDIRECT_ON };

/* Immutable after the mount. Strings as given, for /proc/mounts. */
struct overlay_config {
	char *lowerdir, *upperdir, *workdir;
	enum overlay_redirect redirect;
	bool userxattr, is_volatile;
	const char *xino; /* "on", "auto" or NULL */
};

/* A lower layer. */
struct overlay_lower {
	struct mount *mount; /* a reference; internal */
	unsigned fsid; /* which of the filesystems below, for inode numbers */
	_Atomic bool xwhiteouts; /* readdir looks for whiteouts in the form of an xattr */
};

struct overlay_fs {
	struct filesystem base;
	struct overlay_config config;
	struct cred *cred; /* immutable: the mounter's; layers are worked on with it */
	struct mount *upper_mount; /* NULL: read-only */
	struct dentry *
		work; /* the directory for what is not finished; a reference; on upper_mount's filesystem */
	unsigned upper_fsid;
	_Atomic uint32_t work_next; /* names in work */
	bool one_fs; /* all layers are on one filesystem: inode numbers are its own */
	unsigned depth; /* overlays below this one */
	struct overlay_lower *lower; /* nlower, topmost first */
	unsigned nlower;
	struct overlay_dentry *root; /* a reference */
	struct op_lock change;
	struct mutex inodes_lock;
	struct overlay_inodes inodes; /* guarded by inodes_lock; no references */
	struct overlay_dentry *_Atomic cache[OVERLAY_CACHE_MAX]; /* references */
	_Atomic uint32_t cache_next;
	_Atomic uint64_t next_id;
	struct overlay_missing *_Atomic missing[OVERLAY_MISSING_MAX]; /* RCU */
};

extern struct filesystem_ops overlay_filesystem_ops;
extern struct filesystem_type overlay_type;

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
/* RCU, or fs->change. */
static inline const struct name *overlay_name(const struct overlay_dentry *d)
{
	return name_of(&d->at);
}
static inline struct overlay_dentry *overlay_parent(const struct overlay_dentry *d)
{
	return name_of(&d->at)->parent;
}
static inline struct dentry *overlay_upper(struct overlay_dentry *d)
{
	return atomic_load_explicit(&d->upper, memory_order_acquire);
}

/* ---- tree.c ---- */

/* A name too long: in a removed directory nothing is looked up at all. */
static inline int overlay_name_error(const struct overlay_dentry *dir)
{
	return atomic_load_explicit(&dir->base.flags, memory_order_acquire) & DENTRY_DEAD
		       ? -ENOENT
		       : -ENAMETOOLONG;
}

/* What a lookup in the layers found. Owned references. */
struct overlay_found {
	struct dentry *upper;
	struct vfs_path lowers[OVERLAY_LAYERS_MAX];
	unsigned nlowers;
	uint32_t type;
	uint64_t ino;
	uint64_t upper_key; /* of a file that is no directory */
	char *redirect; /* owned */
	bool impure;
};
void overlay_found_fini(struct overlay_found *f);
/* Takes f's references on success. `parent` gains one. *ret: a reference. Not in any table. */
must_check int overlay_dentry_create(struct overlay_fs *fs, struct overlay_dentry *parent,
				     const char *name, size_t len, struct overlay_found *f,
				     struct overlay_dentry **ret);
/* The live child, with a reference, or NULL: there may be one all the same. */
struct overlay_dentry *overlay_child_find(struct overlay_dentry *dir, const char *name, size_t len);
/* Inserts unless dir->changes differs from `changes` (NULL: changed) or a live one exists (then that one, referenced, and d is dropped). Takes d's reference. */
struct overlay_dentry *overlay_child_insert(struct overlay_dentry *dir, struct overlay_dentry *d,
					    uint32_t changes);
/* d was copied up: its inode is found by the upper file from now on. */
void overlay_inode_set_upper(struct overlay_fs *fs, struct overlay_dentry *d, struct dentry *upper,
			     uint64_t ino);
/* d leaves its directory's table and the cache. Pre: within a change of the directory; if d is removed, it is DENTRY_DEAD already. */
void overlay_child_unlink(struct overlay_dentry *d);
/* d is at `name` (taken; it has a reference on its parent) from now on. Pre: within a change of both directories. */
void overlay_child_move(struct overlay_dentry *d, struct name *name);
/*
 * Around every change of a name in dir, from before the layers show it until the tables do: lookups meanwhile wait for it. Pre:
 * fs->change held, and not yet begun for dir.
 */
void overlay_dir_change_begin(struct overlay_dentry *dir);
void overlay_dir_change_end(struct overlay_dentry *dir);
bool overlay_is_descendant(struct dentry *d, struct dentry *ancestor);
void overlay_dentry_release(struct dentry *d);
void *overlay_inode_hold(struct dentry *d);
void overlay_inode_drop(struct filesystem *fs, void *inode);
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
/* "trusted.overlay.SUFFIX", or user.overlay. with userxattr, into buf. */
#define OVERLAY_XATTR_NAME_SIZE 64
const char *overlay_xattr_name(const struct overlay_fs *fs, const char *suffix, char *buf);
/* The overlay's own mark on a file of a layer: bytes, -ENODATA, -errno. */
ssize_t overlay_mark_get(struct overlay_fs *fs, const struct vfs_path *place, const char *suffix,
			 void *value, size_t size);
must_check int overlay_mark_set(struct overlay_fs *fs, const struct vfs_path *place,
				const char *suffix, const void *value, size_t size);
/* The overlay's number of an inode of the layer whose filesystem is fsid. */
uint64_t overlay_map_ino(const struct overlay_fs *fs, unsigned fsid, uint64_t ino);
/* The number of an upper file: what it had below if it was copied up. */
uint64_t overlay_upper_ino(struct overlay_fs *fs, const struct vfs_path *place, uint64_t ino);
/* The layer that `m` is; NULL: the upper. */
struct overlay_lower *overlay_lower_of(struct overlay_fs *fs, const struct mount *m);
/* Is the file at `place` a whiteout in either form: a 0:0 device, or an empty file with an xattr? */
bool overlay_is_whiteout(struct overlay_fs *fs, const struct vfs_path *place,
			 const struct moat_statx *st);
must_check int overlay_whiteout_make(struct overlay_fs *fs, struct overlay_dentry *dir,
				     const char *name);
/* Removes a whiteout of that name from the upper directory, if there is one. 1 there was, 0, -errno. */
must_check int overlay_whiteout_remove(struct overlay_fs *fs, struct overlay_dentry *dir,
				       const char *name);
must_check int overlay_stat_place(struct overlay_fs *fs, const struct vfs_path *place,
				  struct moat_statx *ret);
/* d, which just lost a name, has none left: for inotify. */
bool overlay_gone(struct overlay_fs *fs, struct overlay_dentry *d);
must_check int overlay_stat_real(struct overlay_fs *fs, struct overlay_dentry *d,
				 struct moat_statx *ret);
/* What checks look at. ret->acl is a reference: overlay_perm_put(). */
must_check int overlay_perm(struct overlay_fs *fs, struct overlay_dentry *d,
			    struct perm_inode *ret);
void overlay_perm_put(struct perm_inode *pi);
/* May cred use d so? vfs_permission() on the topmost layer's attributes. */
must_check int overlay_may(struct overlay_fs *fs, struct overlay_dentry *d, const struct cred *cred,
			   int mask);
/* Child `name` of dir, live or from the layers. *ret: a reference. 0, -ENOENT, -errno. */
must_check int overlay_lookup(struct overlay_fs *fs, struct overlay_dentry *dir, const char *name,
			      size_t len, struct overlay_dentry **ret);
/* The overlay's own identity instead of the layer's. */
void overlay_attr(struct overlay_fs *fs, struct overlay_dentry *d, struct moat_statx *inout);

/* ---- copyup.c ---- */

/* d and all its ancestors are in the upper layer after it. data: false if the contents are about to be truncated away. Takes fs->change. */
must_check int overlay_copy_up(struct overlay_fs *fs, struct overlay_dentry *d, bool data);
/* Credentials for creating in the upper layer: everything allowed, owned by `caller`. Returns a reference. */
must_check int overlay_create_cred(struct overlay_fs *fs, const struct cred *caller,
				   struct cred **ret);
/* A fresh name in the work directory. */
#define OVERLAY_WORK_NAME_SIZE 16
struct vfs_lookup overlay_work_lookup(struct overlay_fs *fs, char *name);
/* Removes a directory of the upper filesystem that holds nothing but whiteouts. */
must_check int overlay_clear_dir(struct overlay_fs *fs, const struct vfs_lookup *lk);
/* The upper part of dir holds files whose numbers are not the upper's. fs->change held. */
must_check int overlay_set_impure(struct overlay_fs *fs, struct overlay_dentry *dir);

/* ---- missing.c ---- */

/* Is `name` known to be missing in dir while dir->changes is `changes`? RCU read section. */
bool overlay_missing_find(struct overlay_fs *fs, const struct overlay_dentry *dir, uint32_t hash,
			  const char *name, size_t len, uint32_t changes);
/* No layer had it, and dir->changes was `changes` before and after. Does nothing unless the layers are exclusive. */
void overlay_missing_enter(struct overlay_fs *fs, const struct overlay_dentry *dir,
			   const char *name, size_t len, uint32_t changes);
void overlay_missing_fini(struct overlay_fs *fs);

/* ---- walk.c ---- */

/*
 * In the VFS's read section, nothing referenced: on to the end, or with to_parent to the directory of the final component, or to where
 * a layer must be asked. Return: 0 with *ret the end, OVERLAY_ASK with *ret where to go on, -errno, a restart.
 */
#define OVERLAY_ASK 1
must_check int overlay_walk_quick(struct overlay_fs *fs, struct resolving_path *rp, bool to_parent,
				  struct overlay_dentry **ret);
/* To reference mode, standing at d. 0, RP_RESTART_REFWALK. */
must_check int overlay_settle(struct resolving_path *rp, struct overlay_dentry *d);
/* For the end of a walk. RCU read section; false: ask. */
bool overlay_peek_perm(struct dentry *d, struct perm_inode *ret);
bool overlay_peek_stat(struct dentry *d, struct moat_statx *ret);
const char *overlay_peek_link(struct dentry *d, size_t *ret_len);
void overlay_link_followed(struct dentry *d, struct mount *m);
/* Between path_change_begin() and path_change_end(): cached paths to d and through it are forgotten. */
void overlay_paths_forget(struct overlay_dentry *d);
/* Both, if d's mode, owner or access ACL decide about paths. */
void overlay_perm_change_begin(struct overlay_dentry *d);
void overlay_perm_change_end(struct overlay_dentry *d);

/* ---- walks (ops.c) ---- */

/* To the end of the path: *ret is a reference. 0, -errno, restart. */
must_check int overlay_walk(struct overlay_fs *fs, struct resolving_path *rp,
			    struct overlay_dentry **ret);
/* The symlink `link` at the current component, in dir: as rp_follow_symlink(). */
must_check int overlay_follow(struct overlay_fs *fs, struct resolving_path *rp,
			      struct overlay_dentry *dir, struct overlay_dentry *link);
/* To the parent of the final component: a directory that the caller may search; *ret is a reference. */
must_check int overlay_walk_parent(struct overlay_fs *fs, struct resolving_path *rp,
				   struct overlay_dentry **ret);

/* ---- xattr.c ---- */

ssize_t overlay_get_xattr_at(struct filesystem *fs, struct resolving_path *rp,
			     const struct xattr_args *args);
int overlay_set_xattr_at(struct filesystem *fs, struct resolving_path *rp,
			 const struct xattr_args *args);
int overlay_remove_xattr_at(struct filesystem *fs, struct resolving_path *rp, const char *name);
ssize_t overlay_list_xattr_at(struct filesystem *fs, struct resolving_path *rp, char *buf,
			      size_t size);
/* Is `name` (of a layer) one of the overlay's own marks, that nobody sees? */
bool overlay_is_mark(const struct overlay_fs *fs, const char *name);

/* ---- mount.c ---- */

void overlay_show_options(struct filesystem *fs, struct buf *b);
void overlay_release(struct filesystem *fs);

/* ops.c: open(2) with O_TRUNC, allowed already, on what is copied up. */
must_check int overlay_truncate(struct overlay_fs *fs, struct resolving_path *rp,
				struct overlay_dentry *d);

/* ---- create.c, rename.c, file.c, dir.c: operations ---- */

struct overlay_dirent;

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
/* Is the merged directory empty? 0, -ENOTEMPTY, -errno. */
must_check int overlay_dir_empty(struct overlay_fs *fs, struct overlay_dentry *dir);
/* The names in one directory of a layer, whatever they are: whiteouts too. */
must_check int overlay_list_layer(struct overlay_fs *fs, const struct vfs_path *place,
				  struct overlay_dirent **ret, size_t *ret_count);
void overlay_dirents_free(struct overlay_dirent *entries, size_t count);
int overlay_dir_iterate(struct file *f, struct dir_emit *ctx);
struct overlay_file;
void overlay_dir_forget(struct overlay_file *of);

struct overlay_dirent {
	uint64_t ino;
	unsigned type; /* DT_* */
	const struct overlay_lower *layer; /* where it was found; NULL: the upper */
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
