/*
 * vfs/file.h - open file descriptions.
 *
 * struct file is the base object that filesystems embed first. It holds its mount and dentry (vfs_path) for life.
 * Operations never block for readiness: a read, write or accept that would wait answers -EAGAIN, whether O_NONBLOCK is set or not, and
 * file_read_iter()/file_write_iter() below do the waiting (register, retry, sleep interruptibly). So poll, epoll and blocking calls see the same thing.
 * They may sleep for I/O (an RPC).
 *
 * Locks: pos_lock (an op_lock: it is held while the operation sleeps) around operations that use the offset. `flags` atomic.
 */
#ifndef MOAT_VFS_FILE_H
#define MOAT_VFS_FILE_H

#include <sys/stat.h>

#include "abi/stat.h"
#include "base/lock.h"
#include "base/ref.h"
#include "mem/io_iter.h"
#include "mem/mappable.h"
#include "vfs/cred.h"
#include "vfs/op_lock.h"
#include "vfs/wait.h"

struct file;
struct vfs_path;
struct mount;
struct dentry;
struct fs_xattr_args;
struct file_lock;
struct file_lock_context;
struct file_async;
struct write_access;
struct buf;

/* Work put off to a safe point; see vfs_run_deferred(). */
struct deferred_work {
	struct deferred_work *next;
	void (*run)(struct deferred_work *w); /* may sleep; may free w */
};

struct vfs_path {
	struct mount *mount;
	struct dentry *dentry;
};

/* getdents: return false to stop (the entry was not taken). `next` is the cookie to resume after this entry. */
struct dir_emit {
	bool (*emit)(struct dir_emit *ctx, const char *name, size_t len, uint64_t ino,
		     unsigned type, int64_t next);
};

#ifndef RWF_NOAPPEND
#define RWF_NOAPPEND 0x20
#endif
#ifndef RWF_NOSIGNAL
#define RWF_NOSIGNAL 0x100 /* Linux 6.18: no SIGPIPE */
#endif
/* What preadv2, pwritev2 and io_submit take. */
#define FILE_RWF \
	(RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_NOWAIT | RWF_APPEND | RWF_NOAPPEND | RWF_NOSIGNAL)

struct file_ops {
	const char *
		name; /* for /proc/PID/fd of anonymous files: "anon_inode:[eventfd]", "pipe", "socket" */

	/* The last reference is gone. Frees the embedding object. */
	void (*release)(struct file *f);
	/* close(2) of one descriptor: flush; POSIX locks are dropped by the VFS. Default: 0. */
	int (*flush)(struct file *f);

	/*
	 * Positional I/O. `off` is where; a stream ignores it (and FILE_STREAM is set). Return: bytes moved (0 at the end), -errno.
	 * A short count with it->error set means a fault cut it. Default: -EINVAL; -EISDIR is the directory's own. rwf: RWF_*.
	 */
	ssize_t (*read_iter)(struct file *f, struct io_iter *it, int64_t off, int rwf);
	/* Linux's has no splice_read, or splice_write: splice(2) and sendfile(2) from it, or to it, are -EINVAL, though it is read or written. */
	bool no_splice_read, no_splice_write;
	/* Linux's has read, or write, but not read_iter, or write_iter: preadv2(2), pwritev2(2) know no flag but RWF_HIPRI there. */
	bool no_read_flags, no_write_flags;
	/* O_APPEND: f's flags say so; the file writes at its end and stores where in *inout_off. */
	ssize_t (*write_iter)(struct file *f, struct io_iter *it, int64_t *inout_off, int rwf);
	/* Default: generic on size for FILE_SEEKABLE, -ESPIPE otherwise. Called with pos_lock. */
	int64_t (*seek)(struct file *f, int64_t off, int whence);
	/* Directories. Continues at f->pos, which it updates through the cookies. Return: 0, -errno (-ENOENT when removed). Default: -ENOTDIR. */
	int (*iterate)(struct file *f, struct dir_emit *ctx);

	/* Level-triggered POLL* mask now. Default: POLLIN|POLLOUT|POLLRDNORM|POLLWRNORM. */
	uint32_t (*poll)(struct file *f);
	/* Adds/removes a waiter; default: never woken. A file with several queues picks by w->events. */
	void (*poll_add)(struct file *f, struct waiter *w);
	void (*poll_remove)(struct file *f, struct waiter *w);

	/* NULL: -ENODEV for mmap. Returns a borrowed mappable that lives as long as the file('s inode). */
	struct mappable *(*mappable)(struct file *f);

	/* On the open file rather than a path; defaults go through the dentry (filesystem_ops with an empty path). */
	int (*stat)(struct file *f, const struct stat_args *args, struct moat_statx *ret);
	int (*set_stat)(struct file *f, const struct setattr_args *args);
	int (*truncate)(struct file *f, uint64_t size); /* ftruncate */
	int (*fallocate)(struct file *f, int mode, uint64_t off, uint64_t size); /* -EOPNOTSUPP */
	int (*fsync)(struct file *f, bool data_only, uint64_t start, uint64_t end);
	/*
	 * copy_file_range(2) between two files of these ops, without the data coming here. Checked: modes, limits of the file, overlaps. Return: bytes,
	 * fewer than asked perhaps, -errno; -EOPNOTSUPP (also where it is NULL): the caller reads and writes.
	 */
	ssize_t (*copy_range)(struct file *in, int64_t off_in, struct file *out, int64_t off_out,
			      size_t size);
	/* ioctl: arg is a guest address; memory is reached through vfs_user_* (vfs/vfs.h). Default: -ENOTTY. */
	int64_t (*ioctl)(struct file *f, unsigned cmd, uint64_t arg);
	/* How long a blocking read(2) or write(2) waits (SO_RCVTIMEO, SO_SNDTIMEO), ns; 0: for ever, also the default. */
	int64_t (*io_timeout_ns)(struct file *f, bool write);
	/* A change of O_NONBLOCK, O_APPEND, O_ASYNC, O_DIRECT is allowed? Default: 0. */
	int (*set_flags)(struct file *f, unsigned new_flags);
	bool fasync; /* O_ASYNC means something: vfs/async.h does it with poll_add */
	/* F_ADD_SEALS etc. live in memfs; -EINVAL by default. */
	int (*get_seals)(struct file *f);
	int (*add_seals)(struct file *f, unsigned seals);
	/* FS_APPEND_FL is on: whoever may write may not map it shared. NULL: it never is. */
	bool (*append_only)(struct file *f);
	/* Extra lines of /proc/PID/fdinfo. */
	void (*show_fdinfo)(struct file *f, struct buf *b);

	/*
	 * Locks of a file that others than this sandbox lock too (vfs/locks.h): who may have one is decided there. NULL: only we do. Sets, or with
	 * F_UNLCK clears, req's range for req's owner; wait: until it is free. May sleep; no locks held.
	 * Return: 0, -EAGAIN (taken, !wait), -EINTR, -ENOLCK, -EIO, -EOPNOTSUPP: nobody else sees this file's locks.
	 */
	int (*remote_lock)(struct file *f, const struct file_lock *req, bool wait);
	/*
	 * Another value than before remote_lock() granted something: who granted it may be gone, and another may not have been asked for it. It is asked for
	 * again before it is entered. Does not sleep; under a leaf's lock. NULL: grants stay.
	 */
	unsigned (*remote_lock_epoch)(struct file *f);
	/* *ret: what req would meet of somebody else's (pid 0: nobody of this sandbox), or type F_UNLCK. Return: as above. With remote_lock. */
	int (*remote_lock_test)(struct file *f, const struct file_lock *req, struct file_lock *ret);
	/* All of owner's locks of f's inode go: posix: its record locks; else OFD and flock. Cheap where there is none. With remote_lock. */
	void (*remote_lock_drop)(struct file *f, const void *owner, bool posix);
};

enum {
	FILE_READ = 1 << 0, /* FMODE_READ */
	FILE_WRITE = 1 << 1,
	FILE_SEEKABLE = 1 << 2, /* pos matters; pread and pwrite work */
	FILE_STREAM = 1 << 3, /* no offset at all */
	FILE_PATH_ONLY = 1 << 4, /* O_PATH */
	FILE_EXEC = 1 << 5, /* opened for execution */
	FILE_WRITER = 1 << 6, /* holds a write access on the mount */
	FILE_NOWAIT_RETRY = 1 << 7, /* internal: see file_read_iter */
	FILE_NOCMTIME = 1 << 8,
	FILE_CREATED = 1 << 9, /* this open made the file: F_CREATED_QUERY */
	FILE_COUNTED = 1 << 10, /* a writer in vfs/write_access.h */
	FILE_NO_NOTIFY = 1 << 11, /* its open was refused after all: nobody hears of its end */
};

struct file {
	struct ref ref;
	const struct file_ops *ops; /* immutable */
	struct vfs_path path; /* immutable; references */
	struct cred *cred; /* immutable: the opener's; a reference */
	unsigned mode; /* FILE_*; immutable after open */
	_Atomic unsigned flags; /* O_* status flags (O_APPEND, O_NONBLOCK, ...) and access mode */
	struct op_lock pos_lock; /* around I/O at pos; sleeps */
	int64_t pos; /* guarded by pos_lock; directories: cookie */
	/* fcntl F_SETOWN/F_SETSIG; guarded by LOCK_LEAF in vfs/file.c */
	int32_t owner_type, owner_id;
	int signum;
	int32_t sigio_fd; /* the descriptor that O_ASYNC or a lease was set through: si_fd */
	struct file_async
		*async; /* O_ASYNC was set once; guarded by LOCK_FILE_LOCKS in vfs/async.c */
	uint64_t id; /* unique, in no order: kcmp */
	struct write_access *_Atomic write_access; /* once set for life; vfs/write_access.c */
	void *epoll_links; /* epoll's list of watches on this file; guarded by epoll */
	void *priv; /* the filesystem's, when it does not embed */
	_Atomic bool
		looked_up; /* by readers of a shared descriptor table, perhaps: its memory outlives them */
	/* Once the last reference is gone: */
	union {
		struct rcu_cb rcu;
		struct deferred_work deferred; /* vfs/deferred.c */
	};
};

#define FILE_IO_MAX 0x7ffff000ul /* MAX_RW_COUNT */

/* Initialises the base: takes references on path's parts and cred. `flags` are O_* as opened; computes mode bits FILE_READ/FILE_WRITE. */
void file_init(struct file *f, const struct file_ops *ops, const struct vfs_path *path,
	       unsigned flags, unsigned mode);
struct file *file_ref(struct file *f);
must_check bool file_tryref(struct file *f);
void file_unref(
	struct
	file *f); /* may sleep (release); no locks held. Delayed to a safe point by file_unref_later() */
void file_unref_later(
	struct file *f); /* from a context that holds locks: queued, run by vfs_run_deferred() */
/* Own work for the same point: for objects whose last reference may be dropped under a lock. */
void vfs_defer(struct deferred_work *w);
/* The same for what somebody sleeps for: not put off past the caller's next sleep. run() does not sleep: its file_unref()s are "later" too. */
void vfs_defer_wake(struct deferred_work *w);
/* From now on threads are made for deferred work that no task would come by for soon. */
void vfs_workers_allow(void);
void vfs_run_deferred(void); /* the task loop calls it before returning to the application */
/* Undo of file_init for an open that failed before it was shared. */
void file_fini(struct file *f);
/* The end of release(): file_fini(), and the memory that begins with f, after a grace period if readers may look at its count. */
void file_free(struct file *f);

/*
 * Blocking I/O with the checks of vfs_read/vfs_write: mode, MAX_RW_COUNT, pos locking when off == NULL.
 * Return: bytes, -EBADF, -EINVAL, -EAGAIN (non-blocking), -EINTR (nothing moved yet; caller turns it into a restart), ...
 */
ssize_t file_read_iter(struct file *f, struct io_iter *it, const int64_t *off, int rwf);
ssize_t file_write_iter(struct file *f, struct io_iter *it, const int64_t *off, int rwf);
/* rw_verify_area(): whether `size` bytes from *off (NULL: from the file's own offset) lie below the largest offset; of a stream, any. Return: 0, -EINVAL. */
must_check int file_verify_area(struct file *f, const int64_t *off, uint64_t size);
/* The sentry's own reads (loader, overlay copy-up): whole or short at the end. */
ssize_t file_read_kernel(struct file *f, void *buf, size_t size, uint64_t off);
ssize_t file_write_kernel(struct file *f, const void *buf, size_t size, uint64_t off);
struct mappable *file_mappable(struct file *f); /* NULL: cannot be mapped */
int64_t file_seek(struct file *f, int64_t off, int whence);
/* For directories' ops->seek, where positions are cookies: SEEK_SET and SEEK_CUR. Return: the position or -EINVAL. */
int64_t file_seek_cookie(struct file *f, int64_t off, int whence);
int file_iterate(struct file *f, struct dir_emit *ctx);
uint32_t file_poll(struct file *f);
int file_stat(struct file *f, const struct stat_args *args, struct moat_statx *ret);
int file_set_stat(struct file *f, const struct setattr_args *args);
int file_truncate(struct file *f, uint64_t size);
int file_fallocate(struct file *f, int mode, uint64_t off, uint64_t size);
/* file_ops.copy_range of both, and what reading and writing are besides. Return: as there. */
must_check ssize_t file_copy_range(struct file *in, int64_t off_in, struct file *out,
				   int64_t off_out, size_t size);
int file_fsync(struct file *f, bool data_only, uint64_t start, uint64_t end);
int64_t file_ioctl(struct file *f, unsigned cmd, uint64_t arg);

static inline unsigned file_flags(const struct file *f)
{
	return atomic_load_explicit(&f->flags, memory_order_relaxed);
}

/* Does a write with `rwf` go to the end? */
bool file_appends(const struct file *f, int rwf);

/* Waits until file_poll(f) & events. Return 0, -EINTR, -ETIMEDOUT. */
must_check int file_wait(struct file *f, uint32_t events, int64_t deadline_ns);

#endif
