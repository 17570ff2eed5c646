/*
 * vfs/inotify.h - inotify(7): watches on dentries, events from VFS operations.
 *
 * A watch is on an inode (filesystem_ops.inode_key, inode_hold) of a filesystem. The VFS reports what happens to open files; filesystems report what
 * happens to names with vfs_notify_name() and its kin, after their locks are dropped or under LOCK_FS_DIR (LOCK_INOTIFY is above it).
 * While no watch exists anywhere each report costs one load.
 */
#ifndef MOAT_VFS_INOTIFY_H
#define MOAT_VFS_INOTIFY_H

#include <sys/inotify.h>

#include "vfs/vfs.h"

/* fs.inotify: events that wait in a file; files and watches of a user. Root may change them. */
extern _Atomic int64_t inotify_queued_max, inotify_instances_max, inotify_watches_max;

/* ALL_INOTIFY_BITS: any of them is a mask, those that ask for no event too. */
#define INOTIFY_MASK                                                                             \
	(IN_ALL_EVENTS | IN_UNMOUNT | IN_Q_OVERFLOW | IN_IGNORED | IN_ONLYDIR | IN_DONT_FOLLOW | \
	 IN_EXCL_UNLINK | IN_MASK_CREATE | IN_MASK_ADD | IN_ISDIR | IN_ONESHOT)

extern _Atomic uint32_t vfs_watch_count; /* watches, and those that still let go of their inodes */

/* Pairs with watch_enter_locked(): after DENTRY_DEAD was set, and before a dentry is released. */
static inline bool vfs_notify_wanted(void)
{
	return unlikely(atomic_load_explicit(&vfs_watch_count, memory_order_seq_cst) != 0);
}

/* To watchers of `d` itself. */
void vfs_notify_self_slow(struct dentry *d, uint32_t mask, bool isdir);
/* To watchers of directory `dir` about its entry `name`. */
void vfs_notify_child_slow(struct dentry *dir, uint32_t mask, uint32_t cookie, const char *name,
			   size_t len, bool isdir);
/*
 * To watchers of d and of its parent. by_file: through an open file, which IN_EXCL_UNLINK leaves out once the name is gone; a change of
 * the inode it does not.
 */
void vfs_notify_both_slow(struct dentry *d, uint32_t mask, bool by_file);
/* valid: SETATTR_*. */
void vfs_notify_change_slow(struct dentry *d, unsigned valid);
bool vfs_notify_watched(struct dentry *d); /* is there a watch on d's inode? */
uint32_t vfs_notify_cookie(void); /* ties IN_MOVED_FROM to IN_MOVED_TO */

static inline void vfs_notify_self(struct dentry *d, uint32_t mask, bool isdir)
{
	if (vfs_notify_wanted())
		vfs_notify_self_slow(d, mask, isdir);
}

/* IN_CREATE, IN_DELETE, IN_MOVED_FROM, IN_MOVED_TO. */
static inline void vfs_notify_name(struct dentry *dir, uint32_t mask, uint32_t cookie,
				   const char *name, size_t len, bool isdir)
{
	if (vfs_notify_wanted())
		vfs_notify_child_slow(dir, mask, cookie, name, len, isdir);
}

/* IN_ATTRIB of an extended attribute. */
static inline void vfs_notify_attrib(struct dentry *d)
{
	if (vfs_notify_wanted())
		vfs_notify_both_slow(d, IN_ATTRIB, false);
}

/* fsnotify_change(): set_stat_at has set these SETATTR_*. With SETATTR_FILE the VFS says what happened to the size. */
static inline void vfs_notify_change(struct dentry *d, unsigned valid)
{
	if (vfs_notify_wanted())
		vfs_notify_change_slow(d, valid);
}

/*
 * unlink, rmdir: d lost its name in dir and is DENTRY_DEAD. Takes the caller's reference on d, so that the inode's end, if nobody else has one,
 * is told before the name's. `name` is not d's own. No locks held.
 */
void vfs_notify_removed_slow(struct dentry *dir, struct dentry *d, const char *name, size_t len,
			     bool isdir);
static inline void vfs_notify_removed(struct dentry *dir, struct dentry *d, const char *name,
				      size_t len, bool isdir)
{
	if (vfs_notify_wanted())
		vfs_notify_removed_slow(dir, d, name, len, isdir);
	else
		dentry_unref(d);
}

/*
 * In dentry_release, while inode_key(d) still answers: the inode has no name left. IN_DELETE_SELF, and its watches end: as in Linux with the
 * first dentry that goes then, whatever other names' dentries are still in use.
 */
void vfs_notify_gone_slow(struct dentry *d);

/* rename. What it replaced is DENTRY_DEAD; the caller drops its reference on that afterwards. */
struct vfs_moved {
	struct dentry *from_dir, *to_dir;
	const char *from, *to;
	size_t from_len, to_len;
	struct dentry *d; /* NULL: nobody watches what nothing knows */
	bool isdir; /* d, and what it replaced */
	struct dentry *replaced; /* or NULL */
	struct dentry *exchanged; /* RENAME_EXCHANGE: what went the other way; or NULL */
};
void vfs_notify_moved(const struct vfs_moved *m);

static inline void vfs_notify_file(struct file *f, uint32_t mask)
{
	if (vfs_notify_wanted() && f->path.dentry)
		vfs_notify_both_slow(f->path.dentry, mask, true);
}

static inline void vfs_notify_open(struct file *f)
{
	vfs_notify_file(f, IN_OPEN);
}

/* The last mount of fs is gone: IN_UNMOUNT to every watch in it, which ends. */
void vfs_notify_unmount_slow(struct filesystem *fs);
static inline void vfs_notify_unmount(struct filesystem *fs)
{
	if (vfs_notify_wanted())
		vfs_notify_unmount_slow(fs);
}

/*
 * Somebody outside the sandbox did this to the inode of that key: a filesystem_ops.watch_begin asked to know. mask: IN_ALL_EVENTS and IN_ISDIR; IN_DELETE_SELF
 * ends its watches. Any thread; locks up to LOCK_INOTIFY may be held.
 */
void vfs_notify_outside(struct filesystem *fs, uint64_t inode_key, uint32_t mask, uint32_t cookie,
			const char *name, size_t len);
/* Some of that was lost: IN_Q_OVERFLOW to whoever watches anything in fs. */
void vfs_notify_lost(struct filesystem *fs);

/* ---- inotify descriptors ---- */

/* flags: O_NONBLOCK (IN_CLOEXEC is the descriptor's). A description on the caller's internal mount `place`. */
must_check int inotify_file_create(const struct vfs_path *place, unsigned flags, struct file **ret);
/* Return: the watch descriptor, -EINVAL (not an inotify file), -ENOSPC, -ENOMEM, -EEXIST (IN_MASK_CREATE). */
must_check int inotify_file_add_watch(struct file *f, const struct vfs_path *p, uint32_t mask);
must_check int inotify_file_rm_watch(struct file *f, int wd);
/* fcntl(F_NOTIFY) on a directory's description: DN_* bits; 0 ends it. -ENOTDIR, -ENOMEM. */
must_check int dnotify_set(struct file *f, uint32_t arg);
/* f's last reference is gone. */
void dnotify_gone_slow(struct file *f);
bool file_is_inotify(const struct file *f);

#endif
