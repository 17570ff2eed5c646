/*
 * fsimpl/anon/anon.h - files without a name: pipefs, sockfs, anon_inodefs, and the event files.
 *
 * A pipe, a socket, an eventfd or a passed-in host descriptor has a place (mount, dentry) like every other file, in a
 * filesystem that is mounted nowhere. The dentry carries what fstat, fchmod and /proc/PID/fd show of it.
 *
 * Locks: anon_dentry.lock (LOCK_LEAF) guards its attributes; nothing is taken inside.
 */
#ifndef MOAT_FSIMPL_ANON_H
#define MOAT_FSIMPL_ANON_H

#include "vfs/vfs.h"

enum anon_kind { ANON_PIPE, ANON_SOCKET, ANON_INODE, ANON_HOST, ANON_NS, ANON_KINDS };

struct anon_dentry {
	struct dentry d;
	enum anon_kind kind; /* immutable */
	uint64_t ino; /* immutable */
	const char *
		name; /* immutable, static: "[eventfd]" of "anon_inode:[eventfd]", "pipe" of "pipe:[1]", or a path */
	struct mutex lock; /* LOCK_LEAF */
	uint32_t mode, uid, gid; /* guarded by lock */
	struct moat_timestamp atime, mtime, ctime; /* guarded by lock */
	/* open(2) of /proc/PID/fd/N. NULL: -ENXIO. `place` is borrowed. Immutable. */
	int (*reopen)(struct anon_dentry *ad, const struct vfs_path *place, unsigned flags,
		      struct file **ret);
	/* The dentry dies: drops priv. May be NULL. Immutable. */
	void (*drop)(void *priv);
	void *priv;
};

struct anon_args {
	enum anon_kind kind;
	const char *name; /* static */
	uint64_t ino; /* 0: a fresh one */
	uint32_t mode; /* with type bits */
	int (*reopen)(struct anon_dentry *ad, const struct vfs_path *place, unsigned flags,
		      struct file **ret);
	void (*drop)(void *priv);
	void *priv; /* taken on success */
};

/* The internal mounts. Idempotent; after vfs_init(). Return 0, -ENOMEM. */
must_check int anon_init(void);
/* A new nameless inode. *ret gets references: vfs_path_unref(). Return 0, -ENOMEM. */
must_check int anon_path_create(const struct anon_args *args, struct vfs_path *ret);
/* file_init() on a new nameless inode; `flags`, `mode` as there. */
must_check int anon_file_init(struct file *f, const struct file_ops *ops,
			      const struct anon_args *args, unsigned flags, unsigned mode);
bool anon_is_anon(const struct dentry *d);
static inline struct anon_dentry *anon_dentry_of(struct dentry *d)
{
	return (struct anon_dentry *)d;
}
static inline uint64_t anon_file_ino(struct file *f)
{
	return anon_dentry_of(f->path.dentry)->ino;
}
/* What readlink of /proc/PID/fd/N shows: "pipe:[12]", "anon_inode:[eventfd]". False if d is no nameless inode. */
bool anon_name(struct dentry *d, char *buf, size_t size);

/* file_ops slots for files made by anon_file_init(). */
int anon_file_stat(struct file *f, const struct stat_args *args, struct moat_statx *ret);
int anon_file_set_stat(struct file *f, const struct setattr_args *args);

/*
 * ---- eventfd(2) ---- flags: EFD_SEMAPHORE | EFD_NONBLOCK (EFD_CLOEXEC is the descriptor's). Returns a reference. -EINVAL, -ENOMEM.
 */
must_check int eventfd_create(uint32_t initial, unsigned flags, struct file **ret);
bool eventfd_is(struct file *f);
/* Adds to the counter without blocking (saturates): kernel-side signalling (AIO, vhost). */
void eventfd_signal(struct file *f, uint64_t n);

/*
 * ---- timerfd ---- The sandbox's clocks are the host's, which nobody inside can set: TFD_TIMER_CANCEL_ON_SET never cancels.
 */
struct itimerspec;
must_check int timerfd_create_file(int clockid, unsigned flags, struct file **ret);
bool timerfd_is(struct file *f);
/* flags: TFD_TIMER_ABSTIME, TFD_TIMER_CANCEL_ON_SET. ret_old may be NULL. -EINVAL. */
must_check int timerfd_settime_file(struct file *f, int flags, const struct itimerspec *value,
				    struct itimerspec *ret_old);
void timerfd_gettime_file(struct file *f, struct itimerspec *ret);

/*
 * ---- signalfd ---- The queue of signals is the sentry's: it installs these once. All act for the calling task.
 */
struct signalfd_hooks {
	/* One signal of mask as a struct signalfd_siginfo (128 bytes). False if none is pending. */
	bool (*dequeue)(uint64_t mask, void *ret_siginfo);
	/* Some signal of mask is pending. */
	bool (*pending)(uint64_t mask);
	/* Woken on every new signal of the calling task; borrowed, lives as long as the task's sighand. */
	struct wait_queue *(*wait_queue)(void);
};
void signalfd_install(const struct signalfd_hooks *hooks);
must_check int signalfd_create(uint64_t mask, unsigned flags, struct file **ret);
bool signalfd_is(struct file *f);
void signalfd_set_mask(struct file *f, uint64_t mask);

#endif
