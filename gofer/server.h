/*
 * gofer/server.h - inside the file server: fids, workers, resolution, operations.
 *
 * Locks: watches.window (LOCK_CONTROL) -> reader_lock (LOCK_BOOT: who reads the socket, which tags are in flight) -> fid_lock (LOCK_FS_DIR: the
 * fid table) -> fid->lock (LOCK_FILE_POS is a directory stream's position; taken alone) ; send_lock (LOCK_RPC) is a leaf
 * and is held across sendmsg(2).
 */
#ifndef MOAT_GOFER_SERVER_H
#define MOAT_GOFER_SERVER_H

#include <fcntl.h>
#include <pthread.h>
#include <sys/queue.h>
#include <sys/stat.h>

#include "base/io.h"
#include "base/lock.h"
#include "base/ref.h"
#include "base/spin.h"
#include "gofer/gofer.h"
#include "wire/p9.h"

#define SERVER_FIDS_MAX 16384
#define SERVER_FID_BUCKETS 4096
#define SERVER_DEVS_MAX 256
#define SERVER_XATTR_MAX 65536u
#define SERVER_XATTRS_MAX (16u << 20) /* bytes of values that fids hold between requests */
#define SERVER_FLUSHES_MAX 8
#define SERVER_DENTS_SIZE 32768
#define SERVER_LOCK_WAITS_MAX 64
#define SERVER_WATCHES_MAX \
	4096 /* inotify watches, of at least 8192 that the host's user has for all: ENOSPC past it */
#define SERVER_WATCH_BUCKETS 1024
#define SERVER_EVENTS_MAX 4096 /* that wait to be told; then one IN_Q_OVERFLOW */
#define SERVER_EVENT_BUF (16u << 10)
#define SERVER_SPIN_NS 40000 /* for how long the reader looks for a request before it sleeps */
#define SERVER_GROWN_IDLE_S 10 /* then a worker ends that was made because others waited */
#define SERVER_WORKER_STACK (256u << 10)
#define SERVER_ASIDE_MAX \
	512 /* requests without a worker; a client of ours has 256 tags, and as many to flush them */
#define SERVER_ASIDE_BYTES (64u << 20)
#define SERVER_LATE_FDS_MAX 16
#define SERVER_STALL_MS 50 /* a reader that serves a request for longer is relieved of reading */
#define SERVER_NO_ACL_SLOTS 4096
#define MOAT_SYS_getxattrat 464
#define SERVER_NO_ACL_AGE_S 4 /* the coarsest clock of a filesystem's ticks every 2 s */

struct attach {
	int fd; /* O_PATH of its root; immutable */
	bool readonly, is_file, fifos, uds_open, uds_create;
	bool fine_ctime; /* on its device every change that was seen has a time of its own */
	uint64_t resolve; /* RESOLVE_* for openat2 */
	dev_t dev; /* of the root */
	ino_t ino;
	char *real_path; /* as /proc/self/fd shows the root; owned */
};

struct fid {
	struct ref ref; /* the table's and one per request that uses it */
	LIST_ENTRY(fid) link; /* guarded by fid_lock */
	struct server *srv; /* immutable */
	uint32_t id; /* immutable */
	const struct attach *attach; /* immutable */
	uint32_t uid; /* immutable: plain creations belong to it */
	int path_fd; /* O_PATH; -1 for a fid that a compound open bound */
	struct mutex lock; /* guards what follows; LOCK_FILE_POS */
	int io_fd; /* opened: -1 or a descriptor */
	uint32_t open_flags;
	bool is_dir;
	int64_t dir_pos; /* where io_fd's directory stream stands */
	/* between Txattrwalk/Txattrcreate and Tclunk: the value */
	enum { FID_NO_XATTR, FID_XATTR_READ, FID_XATTR_WRITE } xattr;
	char xattr_name[256];
	uint8_t *xattr_data; /* owned; fid_value_alloc() */
	size_t xattr_size, xattr_done;
	int xattr_flags;
	int watch; /* immutable: 0, or the inotify watch that lives as long */
};

struct server;

/* One thread: its buffers and the request that it serves. */
struct worker {
	struct server *srv;
	pthread_t thread;
	uint8_t *rx; /* the request */
	uint8_t *tx; /* the reply's fixed part */
	uint8_t *data; /* the reply's payload, msize bytes */
	uint8_t *dents; /* SERVER_DENTS_SIZE */
	uint8_t *nodes; /* P9_NODES_MAX raw nodes */
	char path[P9_PATH_MAX + 1]; /* the request's path, NULs for slashes */
	char path2[P9_PATH_MAX + 1];
	char target[P9_PATH_MAX + 1];
	mode_t umask; /* this thread's own: it unshared CLONE_FS */
	int donate_fd; /* -1, or sent with the reply and closed */
	int late_fds
		[SERVER_LATE_FDS_MAX]; /* closed when the reply is sent: nobody waits for that */
	unsigned late_count;
	bool grown; /* guarded by reader_lock: made while others waited (share.c); its thread is detached */
	unsigned share; /* guarded by reader_lock: of which attach point is what it serves */
	/* guarded by reader_lock. Replying: the client may see the reply, and use the tag again, at any moment. */
	enum { WORKER_IDLE, WORKER_SERVING, WORKER_REPLYING } state;
	uint16_t tag;
	bool droppable; /* nobody needs the reply of what it serves */
	bool dropped; /* it was flushed: there will be none */
	bool relieved; /* another reads in its place */
	uint16_t flush_tags[SERVER_FLUSHES_MAX];
	unsigned flushes;
};

/* A lock that is waited for. */
struct lock_wait {
	/* guarded by lock_lock */
	enum { LOCK_WAIT_FREE, LOCK_WAIT_BUSY, LOCK_WAIT_DONE, LOCK_WAIT_CLAIMED } state;
	/* set before the thread starts */
	struct server *srv;
	struct fid *fid; /* a reference, the thread's */
	uint64_t id;
	int flock; /* LOCK_SH, LOCK_EX; 0: lk */
	struct flock lk;
	pthread_t thread;
	_Atomic bool interrupted;
	int result; /* the thread's; read by who joined it */
};

/* share.c: a request for which there is no worker yet. Guarded by reader_lock. */
struct aside {
	TAILQ_ENTRY(aside) link;
	uint16_t tag;
	unsigned share;
	size_t size;
	uint8_t raw[];
};

struct server_watch;
struct server_event;

/* watch.c */
struct server_watches {
	/*
	 * Held across each request that inotify would tell of, so that what it tells of them is known; guards what is read from inotify and waits to be
	 * told. Only while something is watched.
	 */
	struct mutex window; /* LOCK_CONTROL */
	_Atomic int fd; /* inotify's, -1; set once under window */
	_Atomic bool started; /* the thread; under window */
	pthread_t thread;
	int wake[2]; /* [1]: something has to be told */
	uint8_t *buf; /* SERVER_EVENT_BUF, guarded by window */
	TAILQ_HEAD(, server_event) events; /* guarded by window */
	unsigned event_count; /* guarded by window */
	struct server_event
		*spare; /* guarded by window: the one of IN_Q_OVERFLOW, unless it is among events */
	int64_t drained_ns; /* guarded by window: inotify had nothing more then */
	struct mutex lock; /* LOCK_LEAF */
	LIST_HEAD(, server_watch) table[SERVER_WATCH_BUCKETS]; /* guarded by lock */
	_Atomic unsigned count; /* changed under lock */
};

struct server {
	int sock;
	_Atomic int notify_sock; /* -1, or where notices go; set once */
	int proc_fd; /* /proc/self/fd, and the working directory: "N" names descriptor N */
	struct attach *attaches; /* immutable */
	size_t attach_count;
	uint32_t uid, gid; /* whom files belong to that we create */

	struct mutex reader_lock;
	_Atomic uint32_t reader_word; /* futex: changes when the reader's role is free */
	bool reader; /* guarded by reader_lock */
	_Atomic uint32_t ready; /* futex: worker threads that have set themselves up */
	unsigned idle; /* guarded by reader_lock: workers that wait for the role */
	int stop; /* guarded by reader_lock: 0, 1 (closed) or -errno */
	/* guarded by reader_lock: the reader while it serves a request itself; how many such there were; the watching thread sleeps until there is one */
	struct worker *kept;
	unsigned kept_count;
	bool watch_sleeps;
	_Atomic uint32_t watch_word; /* futex of the watching thread */
	pthread_t watch_thread; /* only where there are several workers */
	/* owned by the reader */
	struct spin spin;
	uint8_t *rx;
	size_t rx_len, rx_start;

	struct mutex send_lock;
	_Atomic uint32_t msize;
	_Atomic bool moat; /* the extension was negotiated */

	struct mutex fid_lock;
	LIST_HEAD(, fid) fids[SERVER_FID_BUCKETS];
	unsigned fid_count;
	_Atomic size_t xattr_bytes; /* of all fids' values; at most SERVER_XATTRS_MAX */

	struct mutex dev_lock; /* LOCK_LEAF */
	_Atomic unsigned dev_count;
	uint64_t devs[SERVER_DEVS_MAX]; /* append-only */

	_Atomic uint64_t no_acl
		[SERVER_NO_ACL_SLOTS]; /* resolve.c: 0, or a file's state in which it had no ACL */

	struct mutex lock_lock; /* LOCK_LEAF */
	struct lock_wait lock_waits[SERVER_LOCK_WAITS_MAX];

	struct server_watches watches;

	struct worker workers[GOFER_THREADS_MAX];
	unsigned worker_count; /* guarded by reader_lock: of these some may have no thread */
	unsigned thread_count; /* immutable: the first ones, which stay */
	/* share.c. Guarded by reader_lock but for grown, which is a futex, and grow_failed, the watching thread's. */
	unsigned busy,
		*busy_of; /* workers that serve: all, those of each attach point (and of none) */
	TAILQ_HEAD(, aside) asides;
	unsigned aside_count;
	size_t aside_bytes;
	_Atomic uint32_t grown;
	bool grow_failed;
};

/* ---- conn.c ---- */

must_check int worker_init(struct worker *w, struct server *srv); /* worker_fini() in any case */
void worker_fini(struct worker *w);

/* ---- share.c; _locked: reader_lock ---- */

must_check int shares_init(struct server *srv);
void shares_fini(struct server *srv);
/* Whose share the request counts for; raw: its bytes. */
must_check unsigned share_of(struct server *srv, const struct p9_msg *t, const uint8_t *raw,
			     size_t size);
/* It has as many workers as it may. */
must_check bool share_is_used_locked(const struct server *srv, unsigned share);
/* Puts a request aside. 0, -EAGAIN: too many. */
must_check int aside_add_locked(struct server *srv, const struct p9_msg *t, unsigned share,
				const uint8_t *raw, size_t size);
/* By who served one of that share and ended: the next that may be served now, for free(); NULL. */
must_check struct aside *aside_take_locked(struct server *srv, unsigned share);
must_check bool aside_has_locked(const struct server *srv, uint16_t tag);
/* It is not served any more. False: there is none of that tag. */
must_check bool aside_drop_locked(struct server *srv, uint16_t tag);
/* The watching thread's: another worker, if that can be; body ends with share_give_place(). */
void share_grow(struct server *srv, void *(*body)(void *worker));
void share_give_place(struct worker *w);
/* Until all of those have ended. Pre: the server stops. */
void share_await_grown(struct server *srv);

/* ---- fid.c ---- */

/* A reference, or NULL. */
struct fid *fid_get(struct server *srv, uint32_t id);
const struct attach *fid_attach(struct server *srv, uint32_t id); /* NULL: no such fid */
void fid_put(struct fid *f);
/* A new fid; takes path_fd and io_fd (closed on error). Return: 0, -EBADF (id in use or NOFID), -EMFILE, -ENOMEM. */
must_check int fid_add(struct server *srv, uint32_t id, const struct attach *attach, uint32_t uid,
		       int path_fd, int io_fd, uint32_t open_flags, bool is_dir);
/* The same of an inotify watch, whose reference it takes over, also on error. */
must_check int fid_add_watch(struct server *srv, uint32_t id, const struct fid *like, int wd);
must_check int fid_remove(struct server *srv, uint32_t id); /* -EBADF */
void fid_remove_all(struct server *srv);
/* f's value of `size` bytes, uninitialised. Pre: f->lock; it has none. Return: 0, -EBUSY, -ENOMEM (also when all are too much). */
must_check int fid_value_alloc(struct fid *f, size_t size);

#define auto_fid __attribute__((cleanup(fid_put_cleanup)))
static inline void fid_put_cleanup(struct fid **f)
{
	if (*f)
		fid_put(*f);
}

/* ---- resolve.c ---- */

/* A walk along the components of one request's path. */
struct walk {
	struct worker *w;
	struct fid *fid; /* a reference */
	int fd; /* where it stands: O_PATH, borrowed from the fid unless owned */
	bool owned;
	char *next; /* the next component, terminated; NULL at the end */
	unsigned left; /* components from `next` on */
	unsigned nodes; /* in w->nodes */
	bool want_acl;
	bool stopped; /* a symlink (w->target), a non-directory or an error ended it early */
	int err; /* 0 or the -errno that ended it */
	struct p9_str target;
};

/*
 * walk_begin - takes the fid, checks the path, goes past the first `skip` components at once. want: P9_WANT_SELF, P9_WANT_ACL.
 * Return: 0, -EBADF, -EINVAL (bad path, skip), or what resolving the skipped part gave.
 */
must_check int walk_begin(struct walk *wk, struct worker *w, uint32_t fid,
			  const struct p9_str *path, unsigned skip, uint32_t want);
void walk_end(struct walk *wk);
/* Steps into directories, a node each, until `keep` components are left or it stopped. */
void walk_dirs(struct walk *wk, unsigned keep);
/* Adds the node of name in wk->fd (or of wk->fd itself when name is ""). Sets target for a symlink. Return 0 or -errno. */
must_check int walk_add_node(struct walk *wk, int fd, const char *name, struct statx *ret_stx);
/* Puts the node of wk->fd (the parent, changed by now) at index i. */
void walk_refresh_node(struct walk *wk, unsigned i);
void walk_nodes(const struct walk *wk, struct p9_nodes *ret);
#define auto_walk __attribute__((cleanup(walk_end)))

/*
 * resolve_path - an O_PATH descriptor of (fid, path); the last component is not followed. *ret_owned: close it.
 */
must_check int resolve_path(struct worker *w, struct fid *f, const struct p9_str *path,
			    char *scratch, int *ret_fd, bool *ret_owned);
/* The directory of the last component, which is left in *ret_name (points into scratch). -EINVAL for an empty path. */
must_check int resolve_parent(struct worker *w, struct fid *f, const struct p9_str *path,
			      char *scratch, int *ret_fd, bool *ret_owned, const char **ret_name);
/* A fresh descriptor for what an O_PATH one names: only regular files and directories (-ENXIO). */
must_check int reopen(struct worker *w, int path_fd, uint32_t flags);
/* The same of what was looked at, and is one of these. */
must_check int reopen_looked_at(struct worker *w, int path_fd, uint32_t flags);
/* The same of what is a fifo, without waiting for its other end. */
must_check int reopen_fifo(struct worker *w, int path_fd, uint32_t accmode);
void fd_name(int fd, char out[16]); /* the relative path that names it */
must_check int stat_fd(int fd, const char *name, struct statx *ret);
/* Has the entry no extended attribute that can be seen? Of symlinks that is not told. */
bool has_no_xattrs(int dirfd, const char *name, uint32_t mode);
/* P9_QTACL* of name in fd (fd itself when name is ""). *ret_unsupported (or NULL): its filesystem has none. */
uint8_t acl_bits(int fd, const char *name, uint32_t mode, bool *ret_unsupported);
void stat_to_qid(struct server *srv, const struct statx *stx, struct p9_qid *ret);
void stat_to_node(struct server *srv, const struct statx *stx, struct p9_node *ret);
uint64_t ino_to_path(struct server *srv, uint64_t dev, uint64_t ino);
/* A terminated copy of one name. -EINVAL if p9_name_ok() refuses it. */
must_check int copy_name(char out[P9_NAME_MAX + 1], const struct p9_str *name);

/* ---- operations: reply in *r (its type is set); 0 or -errno (Rlerror) ---- */

typedef int op_fn(struct worker *w, const struct p9_msg *t, struct p9_msg *r);

struct op {
	op_fn *fn;
	bool slow; /* may take long: another thread reads meanwhile */
	bool moat; /* needs the extension */
	uint32_t events; /* IN_*: what inotify may tell of it */
};
extern const struct op server_ops[P9_TYPE_MAX];

op_fn op_version, op_auth, op_attach, op_walk, op_clunk, op_remove, op_getattr, op_setattr,
	op_statfs, op_lopen, op_lcreate, op_read, op_write, op_readdir, op_fsync, op_readlink,
	op_symlink, op_mknod, op_mkdir, op_link, op_rename, op_renameat, op_unlinkat, op_xattrwalk,
	op_xattrcreate, op_lock, op_getlock;
op_fn op_mwalk, op_mopen, op_mcreate, op_mmkdir, op_msymlink, op_mmknod, op_mlink, op_munlink,
	op_mrename, op_msetattr, op_mreaddir, op_mclunk, op_mgetxattr, op_msetxattr, op_mlistxattr,
	op_mremovexattr, op_mfallocate, op_mseek, op_mnotify, op_mlock, op_mlockcancel, op_mwatch,
	op_mconnect;

/* ---- create.c: what plain and compound operations share ---- */

struct new_owner {
	uint32_t uid, gid, umask;
};

void worker_umask(struct worker *w, uint32_t mask);
/* Opens a new file. Return: a descriptor, -errno (-EEXIST: was there). */
must_check int create_file(struct worker *w, int dirfd, const char *name, uint32_t flags,
			   uint32_t mode, const struct new_owner *o);
must_check int create_dir(struct worker *w, int dirfd, const char *name, uint32_t mode,
			  const struct new_owner *o);
must_check int create_node(struct worker *w, int dirfd, const char *name, uint32_t mode,
			   uint32_t major, uint32_t minor, const struct new_owner *o);
/* What was made there as this process's gets its owner; it is removed when that fails. */
must_check int created_node_owner(struct worker *w, int dirfd, const char *name, uint32_t mode,
				  const struct new_owner *o);
/* ops_socket.c: a Unix socket of that SOCK_* type, bound to a new file. -EEXIST, -ENAMETOOLONG (some 100 bytes), -EINVAL. */
must_check int create_socket(struct worker *w, int dirfd, const char *name, uint32_t mode,
			     uint32_t type, const struct new_owner *o, int *ret_fd);
must_check int create_symlink(struct worker *w, int dirfd, const char *name,
			      const struct p9_str *target, const struct new_owner *o);
must_check int link_fd(struct worker *w, int fd, int dirfd, const char *name);

struct setattr {
	uint32_t valid, mode, uid, gid;
	uint64_t size;
	struct p9_time atime, mtime;
};
/* fd: O_PATH. io_fd: an open descriptor of the same file, or -1. */
must_check int apply_setattr(struct worker *w, int fd, int io_fd, const struct setattr *sa);
/* Directory entries from offset on. Fills w->data up to max. f's lock is held. */
must_check int read_dents(struct worker *w, const struct attach *attach, int fd, int64_t *inout_pos,
			  int64_t offset, size_t max, bool moat, uint32_t want, size_t *ret_size,
			  bool *ret_eof);
must_check int dup_fd(int fd);

/* ---- lock.c ---- */

void locks_init(struct server *srv);
/* Ends all waits. No worker serves any more. */
void locks_fini(struct server *srv);
/* f is no more: who waits for a lock of it gets none, and is not told. */
void locks_fid_gone(struct server *srv, const struct fid *f);

/* ---- watch.c ---- */

void watches_init(struct server *srv);
/* No worker serves any more. */
void watches_fini(struct server *srv);
/* A fid that was bound to it is gone. */
void watch_put(struct server *srv, int wd);
/*
 * watch_window_begin, _end - around a request, if it causes `events` and something is watched (true). What inotify
 * tells of the request itself is left out: the client knows. No other lock held.
 */
bool watch_window_begin(struct server *srv, const struct p9_msg *t, uint32_t events);
/*
 * Before the reply: nobody reacts to it within the window. donates: true is returned and watch_window_end_donated() follows when the
 * descriptor was sent and closed: the client may have closed its own before, and ours is then what inotify tells of.
 */
bool watch_window_end(struct server *srv, const struct p9_msg *t, uint32_t events, bool donates);
void watch_window_end_donated(struct server *srv);

/* ---- conn.c ---- */

/* Takes fd: it is closed once the reply is on its way. */
void worker_close_late(struct worker *w, int fd);

/* Serves until the socket closes. Return: 0 or -errno. The workers are started by server_start(), blocked. */
must_check int server_start(struct server *srv, unsigned threads);
int server_run(struct server *srv);

/* ---- confine.c ---- */

must_check int confine_mounts(struct server *srv, const struct gofer_config *config);
must_check int confine_seccomp(const struct gofer_config *config, int sock);
/* All but standard ones and the configuration's. Return: 0, -errno: what was inherited is still open. */
must_check int confine_close_fds(const struct gofer_config *config);

#endif
