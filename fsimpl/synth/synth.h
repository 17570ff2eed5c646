/*
 * fsimpl/synth/synth.h - synthetic filesystems: proc, sys, devpts, cgroup, and what else shows state as files.
 *
 * A filesystem is a tree of nodes (struct synth_node: the dentry and what it means). Directories have a static table of
 * entries, a lookup/iterate pair for what changes (pids, descriptors), or both: the table is asked first. Nodes are made when a walk
 * first reaches them and live while somebody refers to them (an open file, a mount, a child), so anything, also a dynamic
 * name, can be a mount point. A child pins its parent: a child may use parent->priv without a reference of its own.
 * What the tables name below the root is there for good: those nodes, once made, stay as long as the filesystem, walks meet them
 * without a lock, and their paths are cached (fsimpl/synth/walk.c).
 *
 *	static const struct synth_node_ops uptime_ops = { .show = uptime_show };
 *	static const struct synth_node_ops self_ops = { .readlink = self_readlink };
 *	static const struct synth_node_ops root_ops = { .lookup = pid_lookup, .iterate = pid_iterate };
 *	static const struct synth_entry root_entries[] = {
 *		{ .name = "uptime", .mode = S_IFREG | 0444, .ops = &uptime_ops },
 *		{ .name = "self", .mode = S_IFLNK | 0777, .ops = &self_ops },
 *		{ .name = "sys", .mode = S_IFDIR | 0555, .children = sys_entries },
 *		{ 0 },
 *	};
 *	...
 *	err = synth_fs_create(type, source, PROC_SUPER_MAGIC, &(struct synth_entry){ .mode = S_IFDIR | 0555,
 *		.ops = &root_ops, .children = root_entries }, priv, ret_fs, ret_root);
 *
 * Callbacks are called with no lock held, on the thread of the caller (cred_current(), the sentry's `current`). They may take any lock and sleep;
 * a walk that needs one turns to reference mode first.
 * Locks: one LOCK_FS_DIR mutex per filesystem around changes of the tables of live children, which are read under RCU; a leaf here.
 */
#ifndef MOAT_FSIMPL_SYNTH_H
#define MOAT_FSIMPL_SYNTH_H

#include "vfs/names.h"
#include "vfs/resolving_path.h"
#include "vfs/vfs.h"

#define SYNTH_FILE_MAX (64ul << 20) /* bytes that one show() may render */
#define SYNTH_STORE_MAX \
	(1ul << 20) /* bytes that one write(2) hands to store(); more is written short */

struct synth_node;
struct synth_file;
struct synth_iter;
struct synth_entry;

/* What stat shows; filled from the node's fields before getattr() may change it. */
struct synth_attr {
	uint32_t mode, uid, gid, nlink;
	uint64_t size;
	uint32_t rdev_major, rdev_minor;
	struct moat_timestamp atime, mtime, ctime;
};

/* Every slot may be NULL; what that means stands with it. */
struct synth_node_ops {
	/* ---- every node ---- */
	/* Current attributes (a task's owner ...). NULL: the node's fields. -ENOENT, -ESRCH: the thing is gone. */
	int (*getattr)(struct synth_node *n, struct synth_attr *inout);
	/* getattr() leaves mode and owner as the node's fields have them: who only passes through the directory need not ask it. */
	bool fixed_perm;
	/* R_OK|W_OK|X_OK. NULL: mode bits of getattr() with capabilities. Called after nothing else; must do the whole check (synth_permission_default()). */
	int (*permission)(struct synth_node *n, const struct cred *cred, int mask);
	/* chmod, chown, utimes. NULL: mode, uid, gid are changed in the node after the usual checks (devpts, cgroup); set synth_setattr_eperm to refuse (proc). Size is ignored. */
	int (*setattr)(struct synth_node *n, const struct setattr_args *args);
	/* Still valid? Asked whenever a walk meets a cached node. false: forgotten; the directory is asked again. NULL: yes. */
	bool (*revalidate)(struct synth_node *n);
	/* revalidate() takes no lock, does not sleep, and bears a node whose destroy() has run: walks ask it in a read section. */
	bool quick_revalidate;
	/*
	 * The calling thread may not know of it: a walk finds no such name, and the node stays for others. Asked after revalidate(), which a node
	 * of this kind has, and not a quick one. NULL: no.
	 */
	bool (*hidden)(struct synth_node *n);
	/* The last reference is gone: release priv. NULL: nothing. */
	void (*destroy)(struct synth_node *n);

	/* ---- directories ---- */
	/*
	 * A dynamic child: makes it with synth_node_create(dir, name, ...). Return 0, -ENOENT, ... Called when the static table has
	 * no such name and no live node exists.
	 */
	int (*lookup)(struct synth_node *dir, const char *name, size_t len,
		      struct synth_node **ret);
	/*
	 * Dynamic entries in ascending `key` order, from key `from` on: call synth_emit() until it returns false.
	 * "." and ".." and the static table were emitted before. Keys: 0 .. INT64_MAX / 2. Return 0 or -errno.
	 */
	int (*iterate)(struct synth_node *dir, int64_t from, struct synth_iter *it);
	/*
	 * Rows of the static table that are not there now, for anybody. NULL: none. Takes no lock; a change stands between path_change_begin() and
	 * path_change_end(), with filesystem_paths_changed().
	 */
	bool (*leaves_out)(const struct synth_node *dir, const struct synth_entry *e);
	/* mkdir/rmdir (cgroup). NULL: -EPERM. mkdir creates the thing; the next lookup finds it. The child is gone after rmdir (revalidate says so). */
	int (*mkdir)(struct synth_node *dir, const char *name, size_t len, uint32_t mode);
	int (*rmdir)(struct synth_node *dir, struct synth_node *child);
	/* unlink and rename of a child (mqueue, devpts' none). NULL: -EPERM. */
	int (*unlink)(struct synth_node *dir, struct synth_node *child);
	int (*rename)(struct synth_node *dir, struct synth_node *child, struct synth_node *new_dir,
		      const char *new_name, size_t len);
	/* creat of a regular file (mqueue). NULL: -EACCES as proc gives... -EPERM for sysfs alike. */
	int (*create)(struct synth_node *dir, const char *name, size_t len, uint32_t mode);

	/* ---- regular files ---- */
	/*
	 * The whole content, appended to b. Rendered at the first read and again at each read at offset 0. Errors fail the read(2).
	 * sf gives per-open state and the file. NULL: reads give -EIO (write-only) unless read_at is there.
	 */
	int (*show)(struct synth_node *n, struct synth_file *sf, struct buf *b);
	/* One write(2): data is NUL-terminated past size. Return bytes taken or -errno. NULL: writes give -EIO (mode bits usually forbid the open). */
	ssize_t (*store)(struct synth_node *n, struct synth_file *sf, const char *data, size_t size,
			 int64_t off);
	/* Instead of show/store: positional I/O of one's own (/proc/PID/mem, pagemap). */
	ssize_t (*read_at)(struct synth_node *n, struct synth_file *sf, struct io_iter *it,
			   int64_t off);
	ssize_t (*write_at)(struct synth_node *n, struct synth_file *sf, struct io_iter *it,
			    int64_t off);
	/* At open, after permission checks, before the file is visible; may set sf->priv. NULL: nothing. */
	int (*open)(struct synth_node *n, struct synth_file *sf);
	void (*close)(struct synth_node *n, struct synth_file *sf);
	/* close(2) of one descriptor of it. NULL: nothing. */
	void (*flush)(struct synth_node *n, struct synth_file *sf);
	/* A file object of one's own instead of a synth_file (e.g. /proc/PID/ns/x, device nodes, ptys): returns it through ret. NULL: synth_file, or vfs_hooks.open_special for devices and fifos. */
	int (*open_file)(struct synth_node *n, const struct vfs_path *place, unsigned flags,
			 struct file **ret);
	/*
	 * poll mask (NULL: always readable and writable) and where its changes are announced (NULL: never). no_poll: the file has no such
	 * operation, so epoll refuses it, as Linux's files of /proc/PID.
	 */
	bool no_poll;
	/*
	 * splice(2) and sendfile(2) from and to the file, or what is below the directory where that does not say: what in Linux has read and write
	 * alone refuses them, and the flags of preadv2(2) and pwritev2(2).
	 */
	enum { SYNTH_SPLICE_INHERIT, SYNTH_SPLICE_YES, SYNTH_SPLICE_NO } splice;
	uint32_t (*poll)(struct synth_node *n, struct synth_file *sf);
	struct wait_queue *(*poll_queue)(struct synth_node *n, struct synth_file *sf);
	int64_t (*ioctl)(struct synth_node *n, struct synth_file *sf, unsigned cmd, uint64_t arg);
	/* What mmap maps. NULL: -ENODEV. */
	struct mappable *(*mappable)(struct synth_node *n, struct synth_file *sf);

	/* ---- symlinks ---- */
	/* The text, appended to b. */
	int (*readlink)(struct synth_node *n, struct buf *b);
	/* A magic link: where following it leads, with references. NULL: an ordinary symlink, followed by its text. May check ptrace access: -EACCES. */
	int (*jump)(struct synth_node *n, struct vfs_path *ret_place);
};

struct synth_entry {
	const char *name; /* NULL ends a table */
	uint32_t mode; /* with S_IFMT */
	const struct synth_node_ops *ops; /* NULL: no callbacks */
	const struct synth_entry *children; /* directories: static table, or NULL */
	const void *data; /* whatever the callbacks want: n->entry->data */
	bool (*visible)(struct synth_node *dir, const struct synth_entry *e); /* NULL: always */
};

struct synth_node {
	struct dentry dentry; /* base */
	struct synth_node *parent; /* immutable; a reference; NULL for the root */
	const struct synth_node_ops *ops; /* immutable; never NULL */
	const struct synth_entry *entry; /* immutable; NULL for dynamic nodes */
	const struct synth_entry *
		children; /* immutable; static table or NULL; a dynamic directory's creator may set it before returning the node */
	void *priv; /* the creator's; static children inherit the parent's (borrowed: the parent is pinned) */
	_Atomic uint32_t mode, uid, gid;
	uint32_t rdev_major, rdev_minor; /* devices; immutable once returned */
	uint64_t ino; /* immutable once returned; stable for (parent, name) by default */
	uint64_t size; /* st_size; 0 unless the creator sets it */
	_Atomic int64_t time_ns; /* atime = mtime = ctime */
	const char *name; /* immutable; at's */
	uint16_t name_len;
	/* the library's */
	bool permanent; /* immutable once in a table: the filesystem keeps a reference */
	struct name_node at; /* in parent->live; changed under the filesystem's lock */
	struct names live; /* children that exist now; likewise */
	SLIST_ENTRY(synth_node) kept; /* synth_fs.permanent; guarded by the filesystem's lock */
	struct rcu_cb rcu;
};

/* An open synthetic file or directory. */
struct synth_file {
	struct file file; /* base */
	struct synth_node *node; /* immutable; pinned by file.path */
	void *priv; /* owner: the open() callback's */
	struct op_lock lock; /* around content; sleeps */
	struct buf content; /* what show() rendered; guarded by lock */
	bool rendered;
};

static inline struct synth_node *synth_node_of(struct dentry *d)
{
	return (struct synth_node *)d;
}
static inline struct synth_file *synth_file_of(struct file *f)
{
	return (struct synth_file *)f;
}

/*
 * The complete operations table: give it as filesystem_type.ops, or copy it and change slots (statfs, show_options, remount ...) before vfs_register_type().
 */
extern const struct filesystem_ops synth_filesystem_ops;

/*
 * A filesystem with a root made from `root` (mode, ops, children; copied by pointer: static storage for children). `priv` becomes the root node's.
 * Returns one reference on each. `release` (may be NULL) is called with priv when the filesystem goes.
 */
must_check int synth_fs_create(const struct filesystem_type *type, const char *source,
			       uint64_t magic, const struct synth_entry *root, void *priv,
			       void (*release)(void *priv), struct filesystem **ret_fs,
			       struct dentry **ret_root);
void *synth_fs_priv(struct filesystem *fs);

/*
 * A node below dir, for lookup(). mode with S_IFMT; owner root. The caller may set fields (priv, uid, gid, ino, children, size, rdev) before returning it.
 * On failure of the caller afterwards: synth_node_unref(). Returns a reference.
 */
must_check int synth_node_create(struct synth_node *dir, const char *name, size_t len,
				 uint32_t mode, const struct synth_node_ops *ops, void *priv,
				 struct synth_node **ret);
static inline void synth_node_unref(struct synth_node *n)
{
	dentry_unref(&n->dentry);
}
/* The child that a walk would find under the name: a reference. Return: 0, -ENOENT, -ENOMEM. No locks held. */
must_check int synth_child(struct synth_node *dir, const char *name, struct synth_node **ret);
/* The thing behind the node went away: lookups no longer find it, mounts on it are detached. Safe at any time; no locks held. */
void synth_node_forget(struct synth_node *n);

/* For iterate(): false when the caller's buffer is full. `type` is S_IFMT bits; ino 0: the default of synth_ino(). */
bool synth_emit(struct synth_iter *it, const char *name, size_t len, uint32_t type, uint64_t ino,
		int64_t key);
/* The default inode number of `name` in dir. */
uint64_t synth_ino(const struct synth_node *dir, const char *name, size_t len);
/* Mode bits, owner and capabilities on getattr()'s result. */
must_check int synth_permission_default(struct synth_node *n, const struct cred *cred, int mask);
int synth_setattr_eperm(struct synth_node *n, const struct setattr_args *args); /* -EPERM */
/* Parses what was written, as sysctl handlers do: surrounding white space is skipped. -EINVAL, -ERANGE. */
must_check int synth_parse_u64(const char *data, size_t size, uint64_t max, uint64_t *ret);
must_check int synth_parse_i64(const char *data, size_t size, int64_t min, int64_t max,
			       int64_t *ret);

#endif
