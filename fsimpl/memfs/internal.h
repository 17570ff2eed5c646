/*
 * fsimpl/memfs/internal.h - memfs's objects, shared by its files.
 *
 * Lock order (vfs/vfs.h and base/lock.h hold the ranks):
 *
 *	memfs_data.write_lock (an op_lock: no ranked lock held)
 *	filesystem.rename_lock -> memfs_dir.lock (ancestor first, then by address; a victim directory after its parent)
 *		-> memfs_inode.lock
 *	mappable.data_lock (data and size)  -> memory file
 *	memfs_limit.lock (a leaf)
 */
#ifndef MOAT_FSIMPL_MEMFS_INTERNAL_H
#define MOAT_FSIMPL_MEMFS_INTERNAL_H

#include "base/lock.h"
#include "base/shard.h"
#include "base/tree.h"
#include "fsimpl/memfs/memfs.h"
#include "mem/mappable.h"
#include "vfs/acl.h"
#include "vfs/inotify.h"
#include "vfs/perm.h"
#include "vfs/resolving_path.h"

#define MEMFS_XATTRS_SIZE_MAX (1u << 20) /* per inode, names and values */
#define MEMFS_LINKS_MAX UINT32_MAX
#define MEMFS_DIRENT_SIZE 20 /* what a directory's size grows by, as Linux's BOGO_DIRENT_SIZE */
#define MEMFS_COOKIE_FIRST 3 /* 0 to 2 are positions of ".", ".." and the start */

struct memfs_dentry;

enum memfs_limited { MEMFS_PAGES, MEMFS_INODES, MEMFS_LIMITED };

struct memfs_limit {
	_Atomic uint64_t taken; /* in use, or spare in a shard */
	_Atomic uint64_t max; /* 0: no limit */
	struct mutex lock; /* LOCK_LEAF: moves between `taken` and the shards */
};

/* What threads with one shard number take from first (account.c). */
struct memfs_shard {
	_Alignas(SHARD_LINE) _Atomic uint64_t spare[MEMFS_LIMITED];
	_Atomic uint64_t next_ino;
};

struct memfs_fs {
	struct filesystem fs; /* base */
	struct memfs_dentry *root; /* immutable; a reference */
	struct rcu_cb rcu;
	struct memfs_limit limits[MEMFS_LIMITED];
	_Atomic uint64_t next_batch; /* of inode numbers */
	uint64_t
		nominal_pages; /* immutable: what statfs says of an instance of the sentry's own without a limit; else 0 */
	/* immutable, for show_options */
	uint32_t root_mode, root_uid, root_gid;
	bool show_size, show_inodes, mode_given, uid_given, gid_given;
	bool noswap; /* immutable */
	_Atomic uint8_t huge, policy; /* hints.c's */
	struct memfs_shard shards[SHARDS];
};

/* A name and whose child it is: replaced as one pointer, so lock-free readers see a pair that belongs together. */
struct memfs_name {
	struct memfs_dentry *parent; /* NULL for the root; the dentry holds the reference */
	uint32_t hash;
	uint16_t len;
	bool inlined; /* part of the dentry */
	char s[]; /* NUL-terminated, and zeroes up to eight bytes: short names are compared as one word */
};

struct memfs_dentry {
	struct dentry d; /* base */
	struct memfs_inode *inode; /* immutable; a reference */
	struct memfs_name *_Atomic name;
	struct memfs_dentry *_Atomic hash_next; /* guarded by the parent's lock; read under RCU */
	struct memfs_dentry *_Atomic older; /* the next entry of a listing: as hash_next */
	_Atomic uint64_t cookie; /* as hash_next */
	union {
		RB_ENTRY(memfs_dentry) order; /* guarded by the parent's lock */
		struct rcu_cb rcu;
	};
	/* struct memfs_name of the first name follows */
};

RB_HEAD(memfs_order, memfs_dentry);

struct memfs_xattr {
	struct memfs_xattr *next;
	size_t size;
	char *value; /* points behind the name */
	char name[];
};

/* What a walk reads of a directory comes first; a directory's inode starts on a cache line. */
struct memfs_inode {
	struct ref ref; /* dentries, and mappings of its data */
	_Atomic uint32_t mode, uid, gid, nlink; /* changed under lock */
	struct mutex lock; /* LOCK_FS_INODE */
	_Atomic uint32_t flags; /* FS_*_FL; changed under lock */
	struct seqcount seq; /* around changes of what stat shows; writers hold lock */
	struct seqcount children_seq; /* directories: misses are valid only if it did not change */
	struct vfs_acl *_Atomic acl; /* access ACL; changed under lock; freed by RCU */
	union {
		struct memfs_table
			*_Atomic table; /* directories: NULL while empty from the start */
		struct memfs_data *_Atomic
			data; /* regular files: NULL until first needed; set once under lock */
	};
	struct memfs_fs *fs; /* immutable; borrowed */
	uint64_t ino; /* immutable */
	_Atomic int64_t atime, mtime, ctime, btime; /* ns; changed under lock */
	struct memfs_xattr *xattrs; /* guarded by lock */
	struct rcu_cb rcu;
};

struct memfs_reg {
	struct memfs_inode inode; /* base */
	_Atomic uint64_t
		size; /* changed under data->m.data_lock (write), or inode.lock while there is no data */
};

struct memfs_table {
	struct rcu_cb rcu;
	uint32_t mask;
	struct memfs_dentry *_Atomic buckets[];
};

struct memfs_dir {
	struct memfs_inode inode; /* base */
	struct mutex lock; /* LOCK_FS_DIR: table, order, newest, count, next_cookie */
	struct memfs_order order; /* by cookie */
	struct memfs_dentry *_Atomic newest; /* the first entry of a listing; read under RCU */
	_Atomic uint32_t count;
	uint64_t next_cookie;
	struct vfs_acl *_Atomic default_acl; /* changed under inode.lock */
};

struct memfs_link {
	struct memfs_inode inode; /* base */
	uint32_t len; /* immutable */
	char target[]; /* immutable, NUL-terminated */
};

struct memfs_special {
	struct memfs_inode inode; /* base */
	uint32_t rdev_major, rdev_minor; /* immutable */
	struct vfs_endpoint *endpoint; /* immutable; a reference; sockets */
};

static inline struct memfs_fs *memfs_of(struct filesystem *fs)
{
	return (struct memfs_fs *)fs;
}
static inline struct memfs_dentry *memfs_dentry_of(struct dentry *d)
{
	return (struct memfs_dentry *)d;
}
static inline uint32_t memfs_mode(const struct memfs_inode *i)
{
	return atomic_load_explicit(&i->mode, memory_order_acquire);
}
static inline bool memfs_is_dir(const struct memfs_dentry *d)
{
	return S_ISDIR(memfs_mode(d->inode));
}
static inline struct memfs_dir *memfs_dir_of(const struct memfs_dentry *d)
{
	return (struct memfs_dir *)d->inode;
}
static inline struct memfs_reg *memfs_reg_of(struct memfs_inode *i)
{
	return (struct memfs_reg *)i;
}
static inline struct memfs_link *memfs_link_of(struct memfs_inode *i)
{
	return (struct memfs_link *)i;
}
static inline struct memfs_special *memfs_special_of(struct memfs_inode *i)
{
	return (struct memfs_special *)i;
}
/* RCU, or the parent's lock. */
static inline struct memfs_name *memfs_name_of(const struct memfs_dentry *d)
{
	return atomic_load_explicit(&d->name, memory_order_acquire);
}
static inline bool memfs_is_dead(const struct memfs_dentry *d)
{
	return (atomic_load_explicit(&d->d.flags, memory_order_acquire) & DENTRY_DEAD) != 0;
}
/* A name too long: in a removed directory nothing is looked up at all. */
static inline int memfs_name_error(const struct memfs_dentry *dir)
{
	return memfs_is_dead(dir) ? -ENOENT : -ENAMETOOLONG;
}
/* The snapshot that permission checks take. RCU read section or inode.lock for the ACL. */
static inline struct perm_inode memfs_perm(const struct memfs_inode *i)
{
	return (struct perm_inode){.mode = memfs_mode(i),
				   .uid = atomic_load_explicit(&i->uid, memory_order_acquire),
				   .gid = atomic_load_explicit(&i->gid, memory_order_acquire),
				   .flags = atomic_load_explicit(&i->flags, memory_order_acquire) &
					    (PERM_IMMUTABLE | PERM_APPEND),
				   .acl = atomic_load_explicit(&i->acl, memory_order_acquire)};
}
/* As vfs_permission(), with its own read section. */
must_check int memfs_permission(const struct memfs_inode *i, const struct cred *cred, int mask);

/* ---- inode.c ---- */
struct memfs_new {
	uint32_t mode; /* with type bits, umask and ACL not applied */
	uint32_t umask;
	const struct cred *cred;
	struct memfs_dentry *dir; /* whose gid and default ACL count; NULL: none */
	const char *target; /* symlinks */
	uint32_t rdev_major, rdev_minor;
	struct vfs_endpoint *endpoint;
};
must_check int memfs_inode_create(struct memfs_fs *fs, const struct memfs_new *how,
				  struct memfs_inode **ret);
void memfs_inode_ref(struct memfs_inode *i);
void memfs_inode_unref(struct memfs_inode *i);
void memfs_inode_stat(struct memfs_inode *i, struct moat_statx *ret);
must_check int memfs_inode_setattr(struct memfs_dentry *d, const struct cred *cred,
				   const struct setattr_args *args);
/* flags.c: file_ops of regular files and directories. */
uint32_t memfs_flags_inherited(const struct memfs_inode *dir);
int64_t memfs_ioctl(struct file *f, unsigned cmd, uint64_t arg);
int memfs_set_file_flags(struct file *f, unsigned new_flags);
bool memfs_append_only(struct file *f);
int64_t memfs_now(void);
enum { MEMFS_ATIME = 1, MEMFS_MTIME = 2, MEMFS_CTIME = 4 };
void memfs_touch(struct memfs_inode *i, unsigned which, int64_t now);
/* nlink += delta and ctime. */
void memfs_add_links(struct memfs_inode *i, int delta, int64_t now);
void memfs_update_atime(struct memfs_inode *i, struct mount *m, unsigned file_flags);
/* A write by cred happened: setuid and setgid go. */
void memfs_kill_priv(struct memfs_inode *i, const struct cred *cred);

/* ---- account.c ---- */
void memfs_account_init(struct memfs_fs *fs, uint64_t pages_max, uint64_t inodes_max);
/* -ENOSPC */
must_check int memfs_charge(struct memfs_fs *fs, enum memfs_limited which, uint64_t n);
void memfs_uncharge(struct memfs_fs *fs, enum memfs_limited which, uint64_t n);
must_check int memfs_charge_pages(struct memfs_fs *fs, uint64_t pages);
void memfs_uncharge_pages(struct memfs_fs *fs, uint64_t pages);
uint64_t memfs_used(struct memfs_fs *fs, enum memfs_limited which);
uint64_t memfs_limit(const struct memfs_fs *fs, enum memfs_limited which); /* 0: none */
/* A remount's: not below what is in use, nor from none to one. -EINVAL. */
must_check int memfs_limit_change(struct memfs_fs *fs, enum memfs_limited which, uint64_t max);
uint64_t memfs_total_pages(void); /* of all filesystems */
uint64_t memfs_next_ino(struct memfs_fs *fs);

/* ---- dir.c ---- */
/* RCU read section. */
struct memfs_dentry *memfs_dir_find(struct memfs_dentry *dir, const char *name, size_t len);
/* The same for rp's current component, for what memfs_dir_find_quick() did not find. */
struct memfs_dentry *memfs_dir_find_again(struct memfs_dentry *dir,
					  const struct resolving_path *rp);
/* One look, without a word on misses: NULL says nothing. Inline, since it is most of a walk. RCU read section. */
static inline struct memfs_dentry *memfs_dir_find_quick(struct memfs_dentry *dir,
							const struct resolving_path *rp)
{
	struct memfs_table *t = rcu_load(dir->inode->table);
	uint32_t hash = rp_component_hash(rp);
	unsigned len = rp_component_len(rp);
	struct memfs_dentry *c;

	if (unlikely(!t))
		return NULL;
	for (c = rcu_load(t->buckets[hash & t->mask]); c; c = rcu_load(c->hash_next)) {
		const struct memfs_name *n = atomic_load_explicit(&c->name, memory_order_acquire);

		if (n->hash != hash || n->len != len || n->parent != dir)
			continue;
		if (likely(len <= 8) ? name_word(n->s) == rp->comp_word
				     : name_equal_long(n->s, rp->comp, len))
			return c;
	}
	return NULL;
}
/* dir's lock held. */
struct memfs_dentry *memfs_dir_find_locked(struct memfs_dir *dir, const char *name, size_t len);
/* A dentry for inode (takes the caller's reference), not yet in a directory. Returns a reference. */
must_check int memfs_dentry_create(struct memfs_fs *fs, struct memfs_dentry *dir, const char *name,
				   size_t len, struct memfs_inode *inode,
				   struct memfs_dentry **ret);
void memfs_dentry_release(struct dentry *d);
/* Room for one more entry: the only part of an insertion that can fail. dir's lock held. */
must_check int memfs_dir_reserve_locked(struct memfs_dir *dir);
/*
 * Around insertions and removals: readers that miss a name meanwhile look again, so a rename's two halves are one to them.
 * Not around a reserve. dir's lock held.
 */
static inline void memfs_dir_change_begin(struct memfs_dir *dir)
{
	seqcount_write_begin(&dir->inode.children_seq);
}
static inline void memfs_dir_change_end(struct memfs_dir *dir)
{
	seqcount_write_end(&dir->inode.children_seq);
}
/* Enters c under its name, as the newest; the tree takes a reference. After a reserve. */
void memfs_dir_insert_locked(struct memfs_dir *dir, struct memfs_dentry *c);
/* The same, where something was that just left. */
void memfs_dir_insert_at_locked(struct memfs_dir *dir, struct memfs_dentry *c, uint64_t cookie);
/*
 * A new entry, with the directory's times and links; nobody is notified. Takes the inode's reference, also on failure. Return: 0 with a reference in *ret;
 * -ENOENT: the directory was removed, -EEXIST, -ENOMEM, -ENOSPC.
 */
must_check int memfs_dir_enter(struct memfs_dentry *dir, const char *name, size_t len,
			       struct memfs_inode *inode, struct memfs_dentry **ret);
/* Takes c out; the tree's reference goes to the caller. Return: its place in listings. */
uint64_t memfs_dir_remove_locked(struct memfs_dir *dir, struct memfs_dentry *c);
/* Gives c another name and parent. Both directories' locks held, c in neither; takes `name`; returns the old parent's reference in *ret_old. */
void memfs_dentry_rename(struct memfs_dentry *c, struct memfs_name *name,
			 struct memfs_dentry **ret_old);
must_check int memfs_name_create(struct memfs_dentry *parent, const char *s, size_t len,
				 struct memfs_name **ret);
void memfs_name_free(struct memfs_name *name); /* never published, or after a grace period */
must_check int memfs_open_dir(struct memfs_dentry *d, const struct vfs_path *place, unsigned flags,
			      struct file **ret);
void memfs_tree_destroy(struct memfs_fs *fs);
int memfs_get_parent(struct dentry *d, struct dentry **ret_parent, char *name, size_t size);
bool memfs_is_descendant(struct dentry *d, struct dentry *ancestor);

/* ---- walk.c ---- */
/*
 * Walks to the final place, or with to_parent to the directory of the final component (or the place itself when nothing is left).
 * In a read section (the VFS's, or begun by the caller in reference mode); the result is pinned only by it.
 */
must_check int memfs_walk(struct resolving_path *rp, bool to_parent, struct memfs_dentry **ret);
/* The same, ending in reference mode: *ret stays referenced until the end of the call, and is rp_start(rp). No read section. */
must_check int memfs_resolve(struct resolving_path *rp, bool to_parent, struct memfs_dentry **ret);
/*
 * Between path_change_begin() and path_change_end(), before d's name, place, or as a directory its permissions change: cached
 * paths to it and through it are forgotten. A directory that is about to go in or out of a locked parent may be given.
 */
void memfs_paths_forget(struct memfs_dentry *d);
void memfs_link_followed(struct dentry *d, struct mount *m);
bool memfs_peek_perm(struct dentry *d, struct perm_inode *ret);
bool memfs_peek_stat(struct dentry *d, struct moat_statx *ret);
const char *memfs_peek_link(struct dentry *d, size_t *ret_len);
/* For operations that only look: begins a read section if the VFS has none, and says so. */
static inline bool memfs_look_begin(const struct resolving_path *rp)
{
	if (!rp_locked(rp))
		return false;
	rcu_read_begin();
	return true;
}
static inline void memfs_look_end(bool began)
{
	if (began)
		rcu_read_end();
}

/* ---- ops.c, open.c, rename.c, xattr.c ---- */
int memfs_open_at(struct filesystem *fs, struct resolving_path *rp, const struct open_args *args,
		  struct file **ret);
int memfs_rename_at(struct filesystem *fs, struct resolving_path *rp, struct dentry *old_parent,
		    const char *old_name, bool old_must_be_dir, const struct rename_args *args);
ssize_t memfs_get_xattr_at(struct filesystem *fs, struct resolving_path *rp,
			   const struct xattr_args *args);
int memfs_set_xattr_at(struct filesystem *fs, struct resolving_path *rp,
		       const struct xattr_args *args);
ssize_t memfs_list_xattr_at(struct filesystem *fs, struct resolving_path *rp, char *buf,
			    size_t size);
int memfs_remove_xattr_at(struct filesystem *fs, struct resolving_path *rp, const char *name);
int memfs_remount(struct filesystem *fs, unsigned ms_flags, const char *data);
void memfs_show_options(struct filesystem *fs, struct buf *b);

/* ---- hints.c ---- */

/* Return: 0, -EINVAL. */
must_check int memfs_parse_huge(const char *s, const char *end, uint8_t *ret);
must_check int memfs_parse_policy(const char *s, const char *end, uint8_t *ret);
bool memfs_huge_fits(const char *s);
bool memfs_policy_fits(const char *s);
void memfs_show_hints(struct memfs_fs *fs, struct buf *b);
void memfs_release(struct filesystem *fs);
void memfs_xattrs_free(struct memfs_inode *i);
extern struct filesystem_ops memfs_ops;

/* ---- data.c, file.c ---- */
struct memfs_data;
/* The data object, made on first use. -ENOMEM. */
must_check int memfs_data_get(struct memfs_reg *r, struct memfs_data **ret);
void memfs_data_destroy(struct memfs_data *data);
uint64_t memfs_data_pages(const struct memfs_reg *r);
must_check int memfs_truncate(struct memfs_reg *r, uint64_t size);
must_check int memfs_open_reg(struct memfs_dentry *d, const struct vfs_path *place, unsigned flags,
			      unsigned mode, struct file **ret);
must_check int memfs_open_path_only(const struct vfs_path *place, unsigned flags,
				    struct file **ret);

#endif
