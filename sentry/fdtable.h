/*
 * sentry/fdtable.h - descriptor tables, and the fs context (root, cwd, umask).
 *
 * fd_get() takes no lock: what the caller alone holds is read as it is, what is shared under RCU. Changes take the table's (LOCK_FDTABLE).
 * Nothing is closed under the lock: replaced files are released after it.
 */
#ifndef MOAT_SENTRY_FDTABLE_H
#define MOAT_SENTRY_FDTABLE_H

#include "vfs/vfs.h"

#define FD_TABLE_MAX (1 << 20)
extern _Atomic int64_t fd_nr_open; /* fs.nr_open: at most FD_TABLE_MAX; root may change it */

struct fd_table;
struct task;

must_check int fd_table_create(struct fd_table **ret);
must_check int fd_table_fork(struct fd_table *old, struct fd_table **ret,
			     unsigned max_fds); /* copies descriptors < max_fds */
unsigned fd_table_size(struct fd_table *t); /* slots: FDSize of /proc/PID/status */
void fd_table_ref(struct fd_table *t);
void fd_table_unref(struct fd_table *t); /* the last one closes all */
bool fd_table_shared(struct fd_table *t);
struct file *fd_get(struct fd_table *t, int fd); /* a reference or NULL */
struct file *fd_get_flags(struct fd_table *t, int fd, bool *ret_cloexec);
/* Lowest free descriptor >= min and < limit. Takes nothing: refs the file. Return fd, -EMFILE, -ENOMEM. */
must_check int fd_install(struct fd_table *t, struct file *f, int min, unsigned limit,
			  bool cloexec);
/* dup2/dup3: replaces. Return fd, -EBADF (>= limit), -EBUSY. */
must_check int fd_install_at(struct fd_table *t, struct file *f, int fd, unsigned limit,
			     bool cloexec);
must_check int fd_close(struct fd_table *t, int fd); /* -EBADF; flush's error */
/*
 * In two steps, so that -EMFILE comes before the work that makes the file (open, accept, pipe): reserve marks a descriptor taken
 * (others see -EBADF, dup2 onto it -EBUSY); commit refs f and publishes it; cancel gives it back.
 */
must_check int fd_reserve(struct fd_table *t, int min, unsigned limit, bool cloexec);
void fd_commit(struct fd_table *t, int fd, struct file *f);
void fd_cancel(struct fd_table *t, int fd);
int fd_close_range(struct fd_table *t, unsigned first, unsigned last, bool cloexec_only);
must_check int fd_set_cloexec(struct fd_table *t, int fd, bool cloexec);
void fd_close_on_exec(struct fd_table *t);
/* First open descriptor >= fd with a file reference; -1 at the end. */
int fd_next(struct fd_table *t, int fd, struct file **ret);
void *fd_table_owner(struct fd_table *t); /* lock owner identity */

/*
 * Root and working directory. A call pins the pair that is current with one count on memory that only the context's tasks
 * share, and borrows both from it: no reference on mounts and dentries that the whole sandbox stands on.
 */
struct fs_places {
	struct ref ref;
	struct vfs_path root, cwd; /* immutable; references */
	struct rcu_cb rcu;
};

struct fs_context;
struct fs_places *fs_context_pin(struct fs_context *c);
void fs_places_unpin(struct fs_places *p);
must_check int fs_context_create(const struct vfs_path *root, const struct vfs_path *cwd,
				 uint32_t umask, struct fs_context **ret);
must_check int fs_context_fork(struct fs_context *old, struct fs_context **ret);
void fs_context_ref(struct fs_context *c);
void fs_context_unref(struct fs_context *c);
bool fs_context_shared(struct fs_context *c);
void fs_context_get_root(struct fs_context *c, struct vfs_path *ret); /* references */
void fs_context_get_cwd(struct fs_context *c, struct vfs_path *ret);
void fs_context_set_root(struct fs_context *c, const struct vfs_path *p);
void fs_context_set_cwd(struct fs_context *c, const struct vfs_path *p);
uint32_t fs_context_umask(struct fs_context *c);
uint32_t fs_context_set_umask(struct fs_context *c, uint32_t mask); /* returns the old one */
/* pivot_root: every fs context at `old` moves. */
void fs_context_replace(struct fs_context *c, const struct vfs_path *old,
			const struct vfs_path *now);

#endif
