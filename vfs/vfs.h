/*
 * vfs/vfs.h - the VFS: filesystems, dentries, mounts, namespaces, path operations.
 *
 * The VFS has no inodes and keeps no tree. A path operation is one call into a filesystem, which walks the components
 * through struct resolving_path and asks it what only the VFS knows (vfs/resolving_path.h). Mounts are a separate
 * lookup keyed by (parent mount, mount point dentry).
 *
 * Every vfs_* path function takes a struct vfs_lookup: who asks (cred), from where (root, cwd or a directory), flags.
 * They take no locks that the caller may hold below LOCK_VFS_RENAME and return 0/-errno (restart codes never leave the VFS).
 *
 * Lifetime: dentry before mount; a mount pins its filesystem and root dentry; a filesystem outlives its dentries.
 * Lock order: LOCK_VFS_RENAME -> LOCK_MOUNT -> LOCK_FS_OP -> LOCK_FS_DIR -> LOCK_FS_INODE.
 */
#ifndef MOAT_VFS_VFS_H
#define MOAT_VFS_VFS_H

#include <bsd/sys/queue.h>
#include <sys/statfs.h>

#include "base/buf.h"
#include "base/rcu.h"
#include "base/ref.h"
#include "vfs/cred.h"
#include "vfs/file.h"

#define VFS_NAME_MAX 255
#define VFS_PATH_MAX 4096 /* with the terminator */
#define VFS_SYMLINK_MAX 40
#define VFS_XATTR_NAME_MAX 255
#define VFS_XATTR_SIZE_MAX 65536

extern _Atomic int64_t vfs_mounts_max; /* fs.mount-max: per namespace; root may change it */

struct filesystem;
struct fs_config;
struct fs_param;
struct fs_param_spec;
struct resolving_path;
struct mount_namespace;

/* ---- dentries ---- */

enum {
	DENTRY_MAYBE_MOUNTPOINT = 1u << 0, /* some namespace may have something mounted here */
	DENTRY_DEAD = 1u << 1, /* removed from its tree: nothing can be mounted or created here */
	DENTRY_WATCHED = 1u << 2, /* inotify */
	DENTRY_LINKABLE =
		1u << 3, /* O_TMPFILE without O_EXCL: dead, but linkat(2) may give it a name */
	DENTRY_PATH_CACHED = 1u << 4, /* some cached path depends on this dentry itself */
	DENTRY_PATH_BELOW = 1u << 5, /* some cached path goes through this directory */
	DENTRY_HANDLE = 1u << 6, /* name_to_handle_at(2) gave a handle for it: vfs/handle.h */
	DENTRY_NO_MOUNT = 1u << 7, /* nothing can be mounted here: links of /proc/PID/fd */
	DENTRY_RELEASED = 1u << 8, /* its last reference is gone: dentry_release_begin() */
	DENTRY_AUTOMOUNT =
		1u
		<< 9, /* another filesystem begins here: who walks on has it mounted (ops->automount) */
	DENTRY_CONTENDED =
		1u << 10, /* threads met at its count: references are kept (vfs/ref_cache.h) */
};

struct dentry {
	struct ref ref;
	_Atomic uint32_t flags;
	struct filesystem *fs; /* immutable; borrowed (a mount or file pins it) */
};

/* F_SET_RW_HINT's value, in the flags' top bits. */
#define DENTRY_RW_HINT_SHIFT 29
static inline unsigned dentry_rw_hint(struct dentry *d)
{
	return atomic_load_explicit(&d->flags, memory_order_relaxed) >> DENTRY_RW_HINT_SHIFT;
}
void dentry_set_rw_hint(struct dentry *d, unsigned hint);

/* Base initialisation, count one. */
void dentry_init(struct dentry *d, struct filesystem *fs);
static inline void dentry_ref(struct dentry *d)
{
	ref_get(&d->ref);
}
/* The same, from those that are kept of a d that many threads use. */
void dentry_ref_kept(struct dentry *d);
/* RCU: false when d is going away. */
must_check bool dentry_tryref(struct dentry *d);
/* Calls fs->ops->dentry_release on the last one. May sleep. */
void dentry_unref(struct dentry *d);
/*
 * In dentry_release, before a d that lock-free walks may still meet leaves its parent's table: no path to it is cached from here on, so
 * a change above d, which no longer finds it, cannot leave one behind.
 */
void dentry_release_begin(struct dentry *d);
/* In dentry_release, once d will not be used again and before it is freed (by RCU). */
void dentry_fini(struct dentry *d);
/*
 * Something on d that decides what paths through it mean is about to change (name, parent, removal; a directory's mode, owner, ACL).
 * Only d itself: what lies below is the filesystem's to find (vfs/path_cache.h).
 */
void dentry_paths_gone(struct dentry *d);
static inline void dentry_path_changed(struct dentry *d)
{
	if (atomic_load_explicit(&d->flags, memory_order_seq_cst) &
	    (DENTRY_PATH_CACHED | DENTRY_PATH_BELOW))
		dentry_paths_gone(d);
}
static inline void dentry_mark_path(struct dentry *d, uint32_t marks)
{
	if ((atomic_load_explicit(&d->flags, memory_order_seq_cst) & marks) != marks)
		atomic_fetch_or_explicit(&d->flags, marks, memory_order_seq_cst);
}
/*
 * The filesystem is about to remove or replace d (unlink, rmdir, rename over). vfs_dentry_delete_begin fails with -EBUSY
 * if something is mounted on it in the caller's namespace; _end marks it dead and detaches mounts of other namespaces (as Linux does).
 * Called with the filesystem's directory locks held; mount lock is taken inside (LOCK_MOUNT is above LOCK_FS_DIR: implemented
 * by a flag test and a deferred detach).
 */
must_check int vfs_dentry_delete_begin(struct resolving_path *rp, struct dentry *d);
void vfs_dentry_delete_end(struct dentry *d);

/* ---- filesystems ---- */

struct perm_inode;
struct vfs_acl;

struct open_args {
	unsigned
		flags; /* O_*, already checked; O_CREAT, O_EXCL, O_TRUNC, O_TMPFILE, O_PATH handled by the filesystem through helpers */
	uint32_t mode; /* creation mode with the umask NOT yet applied: see umask */
	uint32_t umask; /* applied unless the directory has a default ACL */
	bool exec; /* opened by execve: needs x permission and a regular file (-EACCES) */
};
struct mkdir_args {
	uint32_t mode, umask;
	bool for_sync;
};
struct mknod_args {
	uint32_t mode, umask;
	uint32_t rdev_major, rdev_minor;
	struct vfs_endpoint
		*endpoint; /* S_IFSOCK by bind(2): a reference the fs keeps; NULL otherwise */
};
struct rename_args {
	unsigned flags; /* RENAME_* */
};
struct xattr_args {
	const char *name;
	void *value;
	size_t size;
	int flags; /* XATTR_CREATE/REPLACE */
};

struct vfs_host_socket;
/* What a path-bound Unix socket's dentry holds. The socket layer embeds it. */
struct vfs_endpoint {
	struct ref ref;
	void (*release)(struct vfs_endpoint *e);
	/*
	 * NULL: the guest's. A host's, of a filesystem's own making: a new socket of that SOCK_* type, connected to it and non-blocking; the caller takes
	 * the descriptor. -EAGAIN: its queue is full; -ECONNREFUSED, -EPROTOTYPE, ...
	 */
	int (*connect_host)(struct vfs_endpoint *e, int type, struct vfs_host_socket *ret);
	int type; /* immutable: SOCK_* of what is bound here */
	int host_fd; /* -1, or where the filesystem bound one on the host too: whoever called mknod_at takes it */
};
struct vfs_host_socket {
	int fd;
	uint32_t uid, gid; /* of whoever listens */
};

/*
 * The contract of path operations (slots that take rp):
 *  - rp stands at its start; the op walks with vfs/resolving_path.h and acts on the final place (..._at on the parent of it for creations, and removals).
 *  - Return 0, -errno, or an rp_restart (> 0) at a place where only the VFS can go on; rp says where.
 *  - Permission checks are the filesystem's, with the helpers in vfs/perm.h; errors in Linux's order. Read-only mounts: rp_begin_write().
 *  - An rp with no components left (rp_done at once) means the start dentry itself (AT_EMPTY_PATH, a mount's root).
 *  - creations with a trailing slash, final "." or "..", "/": see rp_check_create_name(), rp_check_remove_name().
 */
struct filesystem_ops {
	/* The final place: *ret_dentry gets a reference. For directories asked (rp flag) -ENOTDIR otherwise. */
	int (*get_dentry_at)(struct filesystem *fs, struct resolving_path *rp,
			     struct dentry **ret_dentry);
	/* open(2), with O_CREAT etc. *ret_file is a new description on rp's mount. */
	int (*open_at)(struct filesystem *fs, struct resolving_path *rp,
		       const struct open_args *args, struct file **ret_file);
	int (*stat_at)(struct filesystem *fs, struct resolving_path *rp,
		       const struct stat_args *args, struct moat_statx *ret);
	int (*set_stat_at)(struct filesystem *fs, struct resolving_path *rp,
			   const struct setattr_args *args);
	/* mask: R_OK|W_OK|X_OK; 0 is existence. */
	int (*access_at)(struct filesystem *fs, struct resolving_path *rp, int mask);
	int (*mkdir_at)(struct filesystem *fs, struct resolving_path *rp,
			const struct mkdir_args *args);
	int (*mknod_at)(struct filesystem *fs, struct resolving_path *rp,
			const struct mknod_args *args);
	/* `old` is the place to link (same filesystem and mount were checked by the VFS). */
	int (*link_at)(struct filesystem *fs, struct resolving_path *rp, struct dentry *old);
	int (*symlink_at)(struct filesystem *fs, struct resolving_path *rp, const char *target);
	/* The target into buf (not terminated); *ret_len. -EINVAL if no symlink. */
	int (*readlink_at)(struct filesystem *fs, struct resolving_path *rp, char *buf, size_t size,
			   size_t *ret_len);
	/* rp is at the new parent's path; old_parent/old_name were resolved by the VFS (same mount). Names without slashes; `old_must_be_dir`: a trailing slash. */
	int (*rename_at)(struct filesystem *fs, struct resolving_path *rp,
			 struct dentry *old_parent, const char *old_name, bool old_must_be_dir,
			 const struct rename_args *args);
	int (*unlink_at)(struct filesystem *fs, struct resolving_path *rp);
	int (*rmdir_at)(struct filesystem *fs, struct resolving_path *rp);
	int (*statfs)(struct filesystem *fs, struct dentry *d, struct statfs *ret);
	/* xattrs: name is a checked, namespaced name; size 0 asks for the size. Return bytes or -errno. Defaults: -EOPNOTSUPP (list: 0). */
	ssize_t (*get_xattr_at)(struct filesystem *fs, struct resolving_path *rp,
				const struct xattr_args *args);
	int (*set_xattr_at)(struct filesystem *fs, struct resolving_path *rp,
			    const struct xattr_args *args);
	ssize_t (*list_xattr_at)(struct filesystem *fs, struct resolving_path *rp, char *buf,
				 size_t size);
	int (*remove_xattr_at)(struct filesystem *fs, struct resolving_path *rp, const char *name);
	/* connect(2) to a path: the endpoint bound there (a reference). -ECONNREFUSED when it is no live socket. */
	int (*get_endpoint_at)(struct filesystem *fs, struct resolving_path *rp,
			       struct vfs_endpoint **ret);

	/* ---- not path operations ---- */
	/* d's parent and its name there, for getcwd, /proc links, mountinfo: a consistent pair. parent NULL for the root; a reference. -ENOENT when unlinked (name still given). */
	int (*get_parent)(struct dentry *d, struct dentry **ret_parent, char *name, size_t size);
	/* Is `d` a descendant of (or the same as) `ancestor`? Default walks get_parent. */
	bool (*is_descendant)(struct dentry *d, struct dentry *ancestor);
	/* S_IFMT bits of d now. */
	uint32_t (*dentry_type)(struct dentry *d);
	/* A key for comparing inodes: same file <=> same key (hard links). */
	uint64_t (*inode_key)(struct dentry *d);
	/* A reference that keeps inode_key(d) its inode's own, but not d, whose end inotify wants to see; and its end. Default: d itself. */
	void *(*inode_hold)(struct dentry *d);
	void (*inode_drop)(struct filesystem *fs, void *inode);
	/*
	 * inotify begins, or wants more of what it has (IN_ALL_EVENTS) of d: a filesystem that others change too sees to it that it hears of that, and tells
	 * with vfs_notify_outside(). watch_end: one such call's end. -ENOSPC, -ENOMEM, -EINTR. No locks held. Default: 0, nothing.
	 */
	int (*watch_begin)(struct dentry *d, uint32_t mask);
	void (*watch_end)(struct filesystem *fs, uint64_t inode_key);
	/* The filesystem that begins at d, which has DENTRY_AUTOMOUNT: references in both results. No locks held. Default: -ENOSYS. */
	int (*automount)(struct dentry *d, struct filesystem **ret_fs, struct dentry **ret_root);
	/* d's access or default ACL, for a filesystem that stacks on this one: a reference, or NULL when there is none (the default). */
	int (*get_acl)(struct dentry *d, bool is_default, struct vfs_acl **ret);
	void (*dentry_release)(
		struct dentry *d); /* count reached zero; frees by RCU or caches it */
	/* A cached path went through the symlink d on m: its access time. In a read section. Default: nothing. */
	void (*link_followed)(struct dentry *d, struct mount *m);
	/*
	 * What is known without a lock that sleeps, for a filesystem that stacks on this one: in a read section, which keeps what
	 * they give alive. False, NULL (the defaults): ask in reference mode.
	 */
	bool (*peek_perm)(struct dentry *d, struct perm_inode *ret);
	bool (*peek_stat)(struct dentry *d, struct moat_statx *ret); /* all but the mount */
	const char *(*peek_link)(struct dentry *d, size_t *ret_len); /* a symlink's target */
	int (*sync)(struct filesystem *fs);
	int (*remount)(struct filesystem *fs, unsigned ms_flags, const char *data);
	/* mountinfo's super options, with a leading comma each. */
	void (*show_options)(struct filesystem *fs, struct buf *b);
	void (*release)(struct filesystem *fs); /* last reference; frees */
};

enum {
	FS_NODEV = 1 << 0, /* shows as nodev in /proc/filesystems */
	FS_RDONLY = 1 << 1, /* SB_RDONLY; in filesystem.sb_flags */
	/* filesystem.sb_flags: shown by mountinfo and statmount, and kept; memory has nothing to make synchronous. */
	FS_SYNC = 1 << 8,
	FS_DIRSYNC = 1 << 9,
	FS_LAZYTIME = 1 << 10,
	FS_MANDLOCK = 1 << 11,
	FS_NO_ACL = 1 << 2,
	FS_USERNS_MOUNT = 1 << 3,
	FS_MAGIC_LINKS = 1 << 4, /* has magic links: never path-cached */
	FS_RCU_WALK = 1 << 5, /* path operations may begin lock-free: see rp_unlazy() */
	FS_HANDLES =
		1 << 12, /* its dentries live as long as their files do: file handles find them */
	FS_KEEP_REFS =
		1 << 13, /* a dentry has a reference of its tree's until vfs_dentry_delete_end() */
	FS_NO_MOUNT = 1 << 6, /* internal: mount(2) answers -EINVAL... never listed */
	FS_PATH_CACHE =
		1
		<< 7, /* with FS_RCU_WALK: keeps the promises of vfs/path_cache.h, so its paths are cached */
};

struct filesystem_type {
	const char *name; /* "tmpfs", "proc" */
	unsigned flags;
	/* mount(2): data is the option string; returns the fs with one reference and its root dentry (a reference). */
	int (*mount)(const struct filesystem_type *type, const char *source, unsigned ms_flags,
		     const char *data, void *kernel_data, struct filesystem **ret_fs,
		     struct dentry **ret_root);
	/* How it is configured, all optional: vfs/fs_config.h. */
	const struct fs_param_spec *params;
	int (*parse_param)(struct fs_config *c, const struct fs_param *p);
	/* In place of mount: c->priv, c->source, c->sb_flags say what. References in both results. */
	int (*get_tree)(struct fs_config *c, struct filesystem **ret_fs, struct dentry **ret_root);
	int (*reconfigure)(struct fs_config *c); /* in place of ops->remount */
	void (*config_free)(struct fs_config *c);
	struct filesystem_ops *ops; /* missing slots filled by vfs_register_type */
	SLIST_ENTRY(filesystem_type) link;
};

struct filesystem {
	struct ref ref;
	const struct filesystem_ops *ops; /* complete: every slot set by fs_ops_complete */
	const struct filesystem_type *type;
	uint32_t dev_minor; /* anonymous device number, major 0 */
	uint64_t magic;
	_Atomic unsigned sb_flags; /* FS_RDONLY, FS_SYNC ... */
	bool rcu_walk; /* immutable: FS_RCU_WALK of the type, or set when it is made */
	/* Set before anybody looks paths up; from FS_PATH_CACHE of the type. `exclusive`: nobody changes what it shows but through it. */
	bool path_cache, exclusive;
	struct mutex rename_lock; /* LOCK_VFS_RENAME */
	_Atomic uint32_t mounts; /* that exist; the last one's end is IN_UNMOUNT to who watches */
	char *source;
	struct rcu_cb rcu;
};

/* Fills NULL slots with the documented defaults: -EROFS-like or -EPERM for creations as Linux gives for a directory without the operation. */
void fs_ops_complete(struct filesystem_ops *ops);
void vfs_register_type(struct filesystem_type *type);
const struct filesystem_type *vfs_find_type(const char *name, size_t len);
void vfs_for_each_type(void (*emit)(void *arg, const struct filesystem_type *t), void *arg);
must_check int filesystem_init(struct filesystem *fs, const struct filesystem_type *type,
			       const struct filesystem_ops *ops, const char *source);
void filesystem_ref(struct filesystem *fs);
void filesystem_unref(struct filesystem *fs);
void filesystem_fini(struct filesystem *fs); /* in ops->release, before freeing */
/* Around each change that cached paths may depend on (vfs/path_cache.h). Any locks. */
void path_change_begin(struct filesystem *fs);
void path_change_end(struct filesystem *fs);
/* Every cached path through fs is forgotten. */
void filesystem_paths_changed(struct filesystem *fs);

/* ---- mounts ---- */

enum {
	MNT_RDONLY_F = 1 << 0,
	MNT_NOSUID_F = 1 << 1,
	MNT_NODEV_F = 1 << 2,
	MNT_NOEXEC_F = 1 << 3,
	MNT_NOATIME_F = 1 << 4,
	MNT_NODIRATIME_F = 1 << 5,
	MNT_RELATIME_F = 1 << 6,
	MNT_NOSYMFOLLOW_F = 1 << 7,
	MNT_LOCKED_F = 1 << 8,
	/* What a more privileged namespace set, and the copy of a less privileged one may not change. */
	MNT_LOCK_READONLY_F = 1 << 9,
	MNT_LOCK_NODEV_F = 1 << 10,
	MNT_LOCK_NOSUID_F = 1 << 11,
	MNT_LOCK_NOEXEC_F = 1 << 12,
	MNT_LOCK_ATIME_F = 1 << 13,
	MNT_LOCKS_F = 0x3f << 8,
	MNT_SHRINKABLE_F =
		1
		<< 14, /* a walk has mounted it: it goes with what it is mounted on, when nobody uses it */
};

enum mount_propagation { PROP_PRIVATE, PROP_SHARED, PROP_SLAVE, PROP_UNBINDABLE };

struct mount {
	struct ref ref;
	struct filesystem *fs; /* immutable; a reference */
	struct dentry *root; /* immutable; a reference */
	bool partial; /* immutable: root is not the filesystem's root, so places may be moved out from under it */
	_Atomic unsigned flags; /* MNT_*_F */
	int32_t id; /* unique, reused late; mountinfo */
	uint64_t unique_id; /* statx STATX_MNT_ID_UNIQUE */
	_Atomic bool expiring; /* MNT_EXPIRE was asked once and nothing used it since */
	_Atomic bool frozen; /* about to become read-only: no new writers */
	_Atomic bool owned; /* by a namespace: references may be kept (vfs/ref_cache.h) */
	/* guarded by the mount lock (write), read under RCU: */
	struct mount *_Atomic parent; /* NULL: a namespace's root or detached */
	struct dentry *_Atomic mountpoint;
	struct mount_namespace *_Atomic ns; /* NULL when unmounted */
	/* vfs/mount.c's own */
	struct mount_private *priv;
	struct rcu_cb rcu;
};

/* Lock-free and, while m is in a namespace and the thread's shard keeps references on it (vfs/ref_cache.h), without a shared line. */
void mount_ref(struct mount *m);
void mount_unref(struct mount *m);
/* As mount_unref(), but no use in the sense of MNT_EXPIRE: umount's own. */
void mount_unref_keep_mark(struct mount *m);
void vfs_path_ref(const struct vfs_path *p);
void vfs_path_unref(struct vfs_path *p); /* NULLs it */
static inline bool vfs_path_equal(const struct vfs_path *a, const struct vfs_path *b)
{
	return a->mount == b->mount && a->dentry == b->dentry;
}
/* Write access to a mount: -EROFS. Pairs. */
must_check int mount_begin_write(struct mount *m);
void mount_end_write(struct mount *m);

/* A kernel-internal mount of fs (pipes, memfds, anon files): in no namespace. Returns a reference. */
must_check int mount_create_internal(struct filesystem *fs, struct dentry *root,
				     struct mount **ret);

must_check int mount_namespace_create(struct filesystem *rootfs, struct dentry *root,
				      unsigned mnt_flags, struct mount_namespace **ret);
/* CLONE_NEWNS: a copy; translates root/cwd given in inout (array of paths whose mounts are mapped to their copies). */
must_check int mount_namespace_copy(struct mount_namespace *ns, struct mount_namespace **ret,
				    struct vfs_path **inout_paths, size_t count);
void mount_namespace_ref(struct mount_namespace *ns);
void mount_namespace_unref(struct mount_namespace *ns); /* the last one unmounts everything */
/* Root path of the namespace: a reference. */
void mount_namespace_root(struct mount_namespace *ns, struct vfs_path *ret);
uint64_t mount_namespace_id(struct mount_namespace *ns);

/* ---- lookups ---- */

enum {
	LOOKUP_FOLLOW = 1 << 0, /* follow a final symlink */
	LOOKUP_DIRECTORY = 1 << 1, /* the result must be a directory */
	LOOKUP_EMPTY = 1 << 2, /* AT_EMPTY_PATH */
	LOOKUP_BENEATH = 1 << 3,
	LOOKUP_IN_ROOT = 1 << 4,
	LOOKUP_NO_XDEV = 1 << 5,
	LOOKUP_NO_MAGICLINKS = 1 << 6,
	LOOKUP_NO_SYMLINKS = 1 << 7,
	LOOKUP_CACHED = 1 << 8,
	LOOKUP_NO_AUTOMOUNT = 1 << 9,
};

struct vfs_lookup {
	const struct cred *cred;
	struct mount_namespace *ns;
	struct vfs_path root; /* borrowed for the call */
	struct vfs_path start; /* cwd or dirfd's place; used when the path is relative */
	const char *path; /* NUL-terminated, at most VFS_PATH_MAX with the terminator (checked) */
	unsigned flags; /* LOOKUP_* */
};

must_check int vfs_get_path(const struct vfs_lookup *lk, struct vfs_path *ret); /* references */
must_check int vfs_open(const struct vfs_lookup *lk, const struct open_args *args,
			struct file **ret_file);
must_check int vfs_stat(const struct vfs_lookup *lk, const struct stat_args *args,
			struct moat_statx *ret);
must_check int vfs_set_stat(const struct vfs_lookup *lk, const struct setattr_args *args);
must_check int vfs_access(const struct vfs_lookup *lk, int mask);
must_check int vfs_mkdir(const struct vfs_lookup *lk, const struct mkdir_args *args);
must_check int vfs_mknod(const struct vfs_lookup *lk, const struct mknod_args *args);
must_check int vfs_link(const struct vfs_lookup *old, const struct vfs_lookup *new_);
must_check int vfs_symlink(const struct vfs_lookup *lk, const char *target);
must_check int vfs_readlink(const struct vfs_lookup *lk, char *buf, size_t size, size_t *ret_len);
must_check int vfs_rename(const struct vfs_lookup *old, const struct vfs_lookup *new_,
			  const struct rename_args *args);
must_check int vfs_unlink(const struct vfs_lookup *lk);
must_check int vfs_rmdir(const struct vfs_lookup *lk);
must_check int vfs_statfs(const struct vfs_path *p, struct statfs *ret);
ssize_t vfs_get_xattr(const struct vfs_lookup *lk, const struct xattr_args *args);
must_check int vfs_set_xattr(const struct vfs_lookup *lk, const struct xattr_args *args);
ssize_t vfs_list_xattr(const struct vfs_lookup *lk, char *buf, size_t size);
must_check int vfs_remove_xattr(const struct vfs_lookup *lk, const char *name);
must_check int vfs_get_endpoint(const struct vfs_lookup *lk, struct vfs_endpoint **ret);

/* mount(2) and kin. Capability checks are the caller's. */
/* The superblock: -EBUSY while somebody writes through one of its mounts. */
must_check int vfs_fs_set_readonly(struct filesystem *fs, bool readonly);
must_check int vfs_mount_new(const struct vfs_lookup *target, const char *type, const char *source,
			     unsigned long ms_flags, const char *data, void *kernel_data);
must_check int vfs_mount_fs(const struct vfs_lookup *target, struct filesystem *fs,
			    struct dentry *root,
			    unsigned mnt_flags); /* takes no references of the caller's */
must_check int vfs_bind(const struct vfs_lookup *source, const struct vfs_lookup *target,
			bool recursive);
must_check int vfs_move_mount(const struct vfs_lookup *source, const struct vfs_lookup *target);
must_check int vfs_remount(const struct vfs_lookup *target, unsigned long ms_flags,
			   const char *data, bool bind_only);
must_check int vfs_set_propagation(const struct vfs_lookup *target, enum mount_propagation prop,
				   bool recursive);
must_check int vfs_umount(const struct vfs_lookup *target,
			  int flags); /* MNT_DETACH, MNT_FORCE, MNT_EXPIRE, UMOUNT_NOFOLLOW */
must_check int vfs_pivot_root(const struct vfs_lookup *new_root, const struct vfs_lookup *put_old);

/*
 * The absolute path of `p` as seen from `root` into b: getcwd, /proc/PID/fd, maps. Unreachable places get "(unreachable)" and
 * removed ones " (deleted)" appended as Linux does when `decorate`. Return: 0, -ENOENT (deleted, not decorated), -ENAMETOOLONG.
 */
must_check int vfs_path_to_string(const struct vfs_path *root, const struct vfs_path *p,
				  bool decorate, struct buf *b);
/* /proc/PID/{mounts,mountinfo,mountstats}. */
enum mount_show { MOUNT_SHOW_MOUNTS, MOUNT_SHOW_MOUNTINFO, MOUNT_SHOW_MOUNTSTATS };
void vfs_show_mounts(struct mount_namespace *ns, const struct vfs_path *root, enum mount_show what,
		     struct buf *b);
struct wait_queue *
mount_namespace_wait_queue(struct mount_namespace *ns); /* POLLERR|POLLPRI on change */

uint64_t mount_namespace_event(struct mount_namespace *ns); /* one more with every change */

/* ---- hooks that layers above install once at boot (function pointers; NULL is the documented default) ---- */

struct vfs_hooks {
	/* Opens a character/block device or fifo found in any filesystem. Default: -ENXIO. Returns a new file. */
	int (*open_special)(const struct vfs_path *place, uint32_t type, uint32_t major,
			    uint32_t minor, uint64_t inode_key, unsigned flags, struct file **ret);
	/* A descriptor of the host's, taken on success, as a file at `place`. Default (NULL): such files are not opened. */
	int (*open_host)(int fd, uint32_t type, unsigned flags, const struct vfs_path *place,
			 struct file **ret);
	/* Per-task RLIMIT_FSIZE; raises SIGXFSZ and returns -EFBIG when off is at or past it, else trims. */
	int (*check_fsize)(int64_t off, struct io_iter *it);
	/* Copies for ioctl and friends: the calling task's memory. */
	int (*copy_in)(void *dst, uint64_t addr, size_t size);
	int (*copy_out)(uint64_t addr, const void *src, size_t size);
	/* CLOCK_REALTIME of the sandbox, ns. Default: the host's. */
	int64_t (*realtime_ns)(void);
	/* A magic link may be followed by the caller? ... */
	/* Is f's inode open through another description (writers: for writing)? Default: no. */
	bool (*opened_elsewhere)(struct file *f, bool writers);
	/* Sends SIGIO/F_SETSIG to f's owner. */
	void (*send_sigio)(struct file *f, uint32_t events);
	/* lease/lock owner: the thread group of the caller (fl_owner is its fd table). */
	void *(*lock_owner)(int32_t *ret_pid);
	/* A lock's pid as the caller sees it, who may be in another pid namespace; 0: not there. NULL: as it is. */
	int32_t (*pid_seen)(int32_t pid);
	/* pivot_root(2): tasks whose root or cwd is `old` get `new_` (borrowed). */
	void (*replace_root)(const struct vfs_path *old, const struct vfs_path *new_);
	/* The unique id of the mount namespace that d is the file of; 0: none. Default: 0. */
	uint64_t (*mount_ns_file)(struct dentry *d);
	/* What stands for the container that the calling thread acts for: it may mount the devices and servers that were named to that, no others. Default: NULL. */
	const void *(*container)(void);
	/* Raises a signal for the calling thread (SIGPIPE on a broken pipe or socket, SIGXFSZ). */
	void (*raise_signal)(int signo);
};
extern struct vfs_hooks vfs_hooks;

static inline int vfs_user_copy_in(void *dst, uint64_t addr, size_t size)
{
	return vfs_hooks.copy_in ? vfs_hooks.copy_in(dst, addr, size) : -EFAULT;
}
static inline int vfs_user_copy_out(uint64_t addr, const void *src, size_t size)
{
	return vfs_hooks.copy_out ? vfs_hooks.copy_out(addr, src, size) : -EFAULT;
}

static inline const void *vfs_container(void)
{
	return vfs_hooks.container ? vfs_hooks.container() : NULL;
}

/* Once per process. */
must_check int vfs_init(void);

/* The current time for timestamps, at 1 ns granularity. */
struct moat_timestamp vfs_now(void);

#endif
