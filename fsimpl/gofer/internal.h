/*
 * fsimpl/gofer/internal.h - the 9P filesystem client inside.
 *
 * Lock order:
 *
 *	op_lock of an inode's data (vfs/op_lock.h; not on the fault path)
 *	  tree_lock (LOCK_FS_OP, rwlock): held over RPCs. Read: paths are built and walked; what replies say is entered in
 *	    |       the cache. Write: the tree is changed.
 *	    dcache.lock (LOCK_FS_DIR): names
 *	    gofer_ahead.lock (LOCK_FS_DIR): which directories will be listed next; not with dcache.lock
 *	    open_ahead.lock (LOCK_FS_DIR): which files will be opened next; with neither
 *	    inode->lock (LOCK_FS_INODE): attributes, host descriptors
 *	    inode_lock (LOCK_FS_SUPER): the inode table; not with inode->lock
 *	      conn->fd_lock, conn->lock (leaves)
 *	mappable data_lock (LOCK_FILE_DATA): what the mappable's pages are; never with an RPC
 *
 * So a reply is entered before anybody can change what it told about, and no cached path is stale.
 */
#ifndef MOAT_FSIMPL_GOFER_INTERNAL_H
#define MOAT_FSIMPL_GOFER_INTERNAL_H

#include <sys/queue.h>

#include "base/rcu.h"
#include "fsimpl/gofer/conn.h"
#include "fsimpl/remote/ops.h"
#include "mem/mappable.h"
#include "vfs/acl.h"
#include "vfs/op_lock.h"
#include "vfs/perm.h"
#include "vfs/resolving_path.h"
#include "vfs/vfs.h"

#define GOFER_INODE_BUCKETS 16384
/* Inodes with numbers that follow one another, as those of files that were made together, have buckets on one page. */
#define GOFER_INODES_NEAR 512u
/* After so many names of a directory that were asked for one at a time, so many bytes of its entries are. */
#define GOFER_PREFETCH_AFTER 2u
#define GOFER_PREFETCH_BYTES (32u << 10)
/*
 * Files of listings that are looked at, each once, give credit; with so much of it a directory's entries are asked for at once, which costs 1, and
 * 1 for each GOFER_PREFETCH_PRICE of them, or all where that is more than one reply.
 */
#define GOFER_PREFETCH_CREDIT 16
#define GOFER_PREFETCH_CREDIT_MAX 64
#define GOFER_PREFETCH_PRICE 8u
/* Siblings of such a directory that are asked for with it; not while so many more files came with them than were looked at. */
#define GOFER_SIBLINGS_MAX 16u
#define GOFER_SIBLINGS_MIN 4u
#define GOFER_SIBLINGS_DEBT 1024u
/* After so many directories of whose files nobody wants to know more than the names, listings bring no attributes of them. */
#define GOFER_LIGHT_AFTER 8u
#define GOFER_RELIST_MAX \
	72u /* requests for the attributes that one listing left out: 65,536 of 131 bytes and a name */
/* xattr.c: listings tell which files have extended attributes, of so many files more than were asked for them */
#define GOFER_XATTR_CREDIT 256
#define GOFER_XATTRS_AFTER 8u
#define GOFER_LISTINGS_MAX (8u << 20) /* bytes kept of directories' entries, per filesystem */
/* ahead.c */
#define GOFER_AHEAD_MAX \
	32u /* directories asked for ahead that nobody has listed yet, per filesystem */
#define GOFER_AHEAD_MIN 4u
#define GOFER_AHEAD_BYTES (32u << 10) /* of one */
#define GOFER_AHEAD_ITEMS_MAX 128u
#define GOFER_AHEAD_LEVELS 16u
#define GOFER_AHEAD_LOOK 1024u /* entries, for where a directory stands in its parent's listing */
/* open_ahead.c */
#define GOFER_OPEN_AHEAD_MAX 32u /* descriptors asked for ahead at once */
#define GOFER_OPEN_AHEAD_MIN 4u
#define GOFER_OPEN_AHEAD_NEAR 4u /* files that a program may leave out */
#define GOFER_OPEN_AHEAD_LOOK 256u /* entries looked at for them */
#define V9FS_MAGIC 0x01021997

struct gofer_fs;

/* What stat shows; guarded by inode->lock. */
struct gofer_attr {
	uint32_t mode, uid, gid, nlink, blksize;
	uint64_t size, blocks;
	struct moat_timestamp atime, mtime, ctime, btime;
};

/* All entries of a directory as one reply brought them, without their attributes. Immutable. */
struct gofer_listing {
	struct ref ref;
	struct gofer_fs *fs; /* borrowed: whoever has a reference has a dentry of it */
	uint32_t size;
	uint32_t files; /* entries but directories and symlinks */
	uint8_t data[];
};

/* Is gofer_inode.acl what the file has (NULL: none)? */
enum gofer_acl_state { GOFER_ACL_UNKNOWN, GOFER_ACL_KNOWN };

/* Did a directory's listing leave out attributes of files that are not in the cache: none, some, most? */
enum gofer_light { GOFER_LIGHT_NOT, GOFER_LIGHT_SOME, GOFER_LIGHT_MOST };

/* One file of the host, whatever its names. */
struct gofer_inode {
	struct remote_inode base;
	struct gofer_fs *fs; /* immutable; borrowed: dentries pin the filesystem through mounts */
	LIST_ENTRY(gofer_inode) hash_link; /* guarded by inode_lock */
	bool hashed; /* guarded by inode_lock */
	uint64_t qid_path; /* immutable */
	uint32_t rdev_major, rdev_minor; /* immutable */
	char *target; /* immutable: a symlink's; owned */
	size_t target_len;

	struct mutex lock; /* LOCK_FS_INODE */
	struct gofer_attr attr;
	enum gofer_acl_state acl_state; /* guarded by lock */
	struct vfs_acl *_Atomic acl; /* the access ACL; changed under lock, freed by RCU */
	struct gofer_listing
		*listing; /* guarded by lock; a reference: exclusive, until the directory changes */
	_Atomic uint32_t
		fid; /* set once: holds an object without a name, or a directory far down; else P9_NOFID */
	/* donated descriptors (plain servers: open fids); guarded by lock, and do not change while pins > 0 once set */
	int rd_fd, rw_fd;
	uint64_t rd_place,
		rw_place; /* guarded by lock: by which name the host opened them; kept after them, for the mapping's */
	_Atomic bool
		io_dirty; /* plain: read or written through a fid since the server told its attributes */
	_Atomic uint32_t pins; /* open files and mappings; from 0 only under lock */
	bool on_idle; /* guarded by conn->fd_lock */
	TAILQ_ENTRY(gofer_inode) idle_link;
	bool no_xattrs; /* guarded by lock: known to have none (exclusive only) */
	struct vfs_endpoint *endpoint; /* guarded by lock; a reference: a socket bound here */
	struct remote_dentry *
		endpoint_dentry; /* guarded by tree_lock (write); a reference that keeps it cached */

	/* a directory: its names that were asked for one at a time; all were asked for together after that */
	_Atomic uint32_t told_singly;
	_Atomic bool prefetched;
	_Atomic uint32_t xattrs_singly; /* entries whose attributes' names were asked for */
	_Atomic bool xattrs_asked; /* then those of all were, or told */
	_Atomic uint32_t acls_singly; /* ACLs of its entries that were asked for */
	_Atomic uint32_t
		sibling_window; /* so many of its subdirectories are asked for with the next; an estimate */
	_Atomic enum gofer_light light; /* light.c */
	_Atomic bool too_much; /* asked for ahead, it was more than one reply: not again */
	_Atomic bool
		ahead; /* it was asked for ahead, and nobody has listed it yet; changed under gofer_ahead.lock */

	uint32_t
		open_off; /* what follows the files asked for last; guarded by fs->open_ahead.lock */

	/* no directory: its attributes came with a listing, and nobody has asked for them yet */
	_Atomic bool listed;
	_Atomic bool
		open_ahead; /* nor has anybody opened it since a descriptor was asked for ahead */
	/* Where a listing that told of it has it: a hint, since it may have other names and the listing be another. */
	_Atomic uint32_t listed_at;

	LIST_HEAD(, gofer_lock_owner) lock_owners; /* guarded by lock */
	_Atomic bool locked; /* there was an owner of locks once */
	struct gofer_watch *_Atomic watch; /* changed under conn->watch_lock; owned: watch.c */

	struct op_lock write_lock; /* appends, truncation: i_rwsem */
	struct mappable map; /* regular files */
	struct memfile *mf; /* guarded by map.data_lock; a reference */
	bool mf_writable; /* guarded by map.data_lock */
	_Atomic uint32_t
		map_refs; /* the mm's references; together they hold one pin and one reference */
	_Atomic uint32_t map_drops; /* such pairs that map_work gives back */
	struct deferred_work map_work;
	struct rcu_cb rcu;
};

/* open_ahead.c */
struct gofer_open_ahead {
	struct mutex lock; /* LOCK_FS_DIR */
	/* guarded by lock */
	unsigned window; /* so many are asked for next */
	unsigned asked; /* so many were asked for last */
	_Atomic unsigned unused; /* of those, which nobody has opened */
};

struct gofer_fs {
	struct filesystem fs;
	struct p9_conn *conn; /* a reference */
	uint32_t root_fid;
	bool shared;
	bool host_fifo, uds_open, uds_create; /* immutable */
	bool held_readonly; /* immutable: no remount makes it writable */
	struct remote_dentry *root; /* a reference */
	struct rwlock tree_lock; /* LOCK_FS_OP */
	struct remote_dcache dcache;
	_Atomic size_t listing_bytes; /* of all gofer_listings */
	_Atomic unsigned
		unasked; /* light.c: directories listed since a file's attributes were wanted */
	_Atomic bool acl_wanted; /* acl.c: there was somebody for whom ACLs could decide */
	_Atomic int xattr_credit; /* xattr.c */
	_Atomic uint32_t xattrs_singly;
	_Atomic int prefetch_credit;
	_Atomic uint32_t sibling_debt;
	struct gofer_ahead *ahead; /* immutable; owned; NULL: nothing is asked for ahead */
	struct gofer_open_ahead open_ahead;
	_Atomic unsigned
		watch_count; /* gofer_watch_begin() calls that have no end yet; only in shared trees */
	struct mutex inode_lock; /* LOCK_FS_SUPER */
	LIST_HEAD(, gofer_inode)
	inodes[GOFER_INODE_BUCKETS]; /* guarded by inode_lock; zeros are empty: pages without inodes are not there */
};

static inline struct gofer_fs *gofer_fs_of(struct filesystem *fs)
{
	return container_of(fs, struct gofer_fs, fs);
}

bool gofer_fs_is(const struct filesystem *fs);

static inline struct gofer_inode *gofer_inode_of(const struct remote_dentry *d)
{
	return container_of(d->inode, struct gofer_inode, base);
}

/* ---- names.c ---- */

/* The child of that name, positive (a reference, *ret_negative false), or *ret_negative, or neither: unknown. */
struct remote_dentry *gofer_cache_find(struct gofer_fs *fs, struct remote_dentry *dir,
				       const char *name, size_t len, bool *ret_negative);
/*
 * Enters what a reply said: the child `name` of dir is `node`. Pre: tree_lock held. target: of a symlink.
 * Return: 0 and a reference; -ENOMEM, -EIO (nonsense).
 */
must_check int gofer_cache_enter(struct gofer_fs *fs, struct remote_dentry *dir, const char *name,
				 size_t len, const struct p9_node *node,
				 const struct p9_str *target, struct remote_dentry **ret);
/* The name does not exist. Failure to remember that is no error. */
void gofer_cache_enter_negative(struct gofer_fs *fs, struct remote_dentry *dir, const char *name,
				size_t len);
/* Somebody else removed the name. */
void gofer_cache_vanished(struct gofer_fs *fs, struct remote_dentry *dir, const char *name,
			  size_t len);
/* d is not there any more (tree_lock held for writing): leaves a negative entry. */
void gofer_cache_remove(struct gofer_fs *fs, struct remote_dentry *d);
must_check int gofer_dentry_create_root(struct gofer_fs *fs, const struct p9_node *node);
/* A dentry without a place (O_TMPFILE): below dir for getcwd's sake, not in the table. */
must_check int gofer_dentry_create_unnamed(struct gofer_fs *fs, struct remote_dentry *dir,
					   const struct p9_node *node, struct remote_dentry **ret);
/* The host may give the number to a new file from here on. */
void gofer_inode_unhash(struct gofer_inode *in);

/* ---- inode.c ---- */

must_check int gofer_inode_create(struct gofer_fs *fs, const struct p9_node *node,
				  const struct p9_str *target, struct gofer_inode **ret);
void gofer_inode_ref(struct gofer_inode *in);
void gofer_inode_unref(struct gofer_inode *in);
void gofer_inode_update(struct gofer_inode *in, const struct p9_node *node);
/* ret->acl lives as long as the RCU read section that this is called in. Pre: gofer_acl_ensure(), where the ACL could decide. */
void gofer_inode_perm(struct gofer_inode *in, struct perm_inode *ret);
/* The same before a write: setuid and setgid are given back after it, so they must not be what a write before took away. */
void gofer_inode_perm_fresh(struct gofer_inode *in, struct perm_inode *ret);
/* Size and times from a donated descriptor, if there is one. Pre: in->lock. */
void gofer_inode_refresh_locked(struct gofer_inode *in);
/* Attributes now: a donated descriptor is asked where there is one. */
void gofer_inode_stat(struct gofer_inode *in, struct moat_statx *ret);
uint64_t gofer_inode_size(struct gofer_inode *in);
bool gofer_peek_perm(struct dentry *d, struct perm_inode *ret);
bool gofer_peek_stat(struct dentry *d, struct moat_statx *ret);
const char *gofer_peek_link(struct dentry *d, size_t *ret_len);

/* ---- where.c, ask.c, walk.c ---- */

/* The way to a dentry for a request: a fid and a path below it. */
struct gofer_where {
	uint32_t fid;
	uint16_t depth; /* components */
	uint16_t len;
	char path[P9_PATH_MAX + 1];
};
/* Pre: tree_lock. May send a request (for a place far down). Return: 0, -ENOENT (removed), -EIO, ... */
must_check int gofer_where(struct remote_dentry *d, struct gofer_where *ret);
/* The same, sending none. Return: false: then it cannot be told. */
must_check bool gofer_where_known(struct remote_dentry *d, struct gofer_where *ret);
must_check int gofer_where_child(struct remote_dentry *dir, const char *name, size_t len,
				 struct gofer_where *ret);
static inline struct p9_str gofer_where_path(const struct gofer_where *w)
{
	return (struct p9_str){w->path, w->len};
}

/* What the request that completes a walk also does, and what it found. All zero but for fd -1: only looks. */
struct gofer_hint {
	bool open, write; /* ask for a descriptor of what is at the end */
	int fd; /* -1, or a descriptor of qid_path: gofer_hint_fini() closes it */
	struct p9_conn *plain; /* p9_call.plain of it */
	uint64_t qid_path;
	/*
	 * A change, complete but for its place. It is sent only for credentials that may do it whatever the walk meets (gofer_may_all()), and
	 * once. NULL: none.
	 */
	struct p9_msg *t;
	struct p9_call *call; /* where its reply is kept (not Tmcreate's) */
	bool done; /* it was sent and came as far as the last name's directory; its reply says what happened there */
	int err; /* then: 0, or why nothing was changed */
	bool created; /* Tmcreate: the file is new */
	bool lazy; /* who may do anything needs no fresh attributes of where the walk ends */
	/* What was seen at the path's end, if all of it was asked for. */
	struct remote_dentry *dir; /* borrowed: its directory, compared only */
	struct remote_dentry *child; /* a reference, or NULL */
	bool absent;
};
void gofer_hint_fini(struct gofer_hint *h);
/* May rp's credentials change any place? */
bool gofer_may_all(const struct resolving_path *rp);
/* Sets the place of a compound request. */
void gofer_place_request(struct p9_msg *t, uint32_t fid, uint16_t skip, struct p9_str path);

/*
 * gofer_walk - along rp to its end, or with to_parent to the directory of the final component. hint: NULL, or gofer_hint_fini() must follow.
 * Pre: tree_lock held (for writing if the hint has a change), rp in reference mode.
 * Return: 0 and a reference, -errno, a restart.
 */
must_check int gofer_walk(struct gofer_fs *fs, struct resolving_path *rp, bool to_parent,
			  struct gofer_hint *hint, struct remote_dentry **ret);
/* One name in dir: asks the server if nothing is known. Pre: tree_lock. Return: 0 and a reference, -ENOENT, -errno. */
must_check int gofer_lookup(struct gofer_fs *fs, struct remote_dentry *dir, const char *name,
			    size_t len, struct remote_dentry **ret);

/* ---- acl.c ---- */

/* Somebody walks the tree: are ACLs of use from now on? */
void gofer_acl_wanted_by(struct gofer_fs *fs, const struct cred *cred);
/* P9_WANT_ACL, if they are. */
static inline uint32_t gofer_acl_want(const struct gofer_fs *fs)
{
	return atomic_load_explicit(&fs->acl_wanted, memory_order_relaxed) ? P9_WANT_ACL : 0;
}
/* What a node says of its file's ACL. Pre: in->lock. */
void gofer_acl_node_locked(struct gofer_inode *in, const struct p9_node *node);
/* Mode or ACL change by our own request. */
void gofer_acl_forget(struct gofer_inode *in);
bool gofer_acl_is_known_locked(const struct gofer_inode *in);
/* The access ACL is there for checks, if it could decide anything (_ensure: for cred). Pre: tree_lock. Return: 0, -errno. */
must_check int gofer_acl_load(struct remote_dentry *d);
must_check int gofer_acl_ensure(const struct cred *cred, struct remote_dentry *d);
int gofer_get_acl(struct dentry *d, bool is_default, struct vfs_acl **ret);

/* ---- path_ops.c, change.c, open.c, xattr.c: filesystem_ops ---- */

int gofer_get_dentry_at(struct filesystem *fs, struct resolving_path *rp,
			struct dentry **ret_dentry);
int gofer_stat_at(struct filesystem *fs, struct resolving_path *rp, const struct stat_args *args,
		  struct moat_statx *ret);
int gofer_access_at(struct filesystem *fs, struct resolving_path *rp, int mask);
int gofer_readlink_at(struct filesystem *fs, struct resolving_path *rp, char *buf, size_t size,
		      size_t *ret_len);
int gofer_set_stat_at(struct filesystem *fs, struct resolving_path *rp,
		      const struct setattr_args *args);
int gofer_statfs(struct filesystem *fs, struct dentry *d, struct statfs *ret);
int gofer_get_endpoint_at(struct filesystem *fs, struct resolving_path *rp,
			  struct vfs_endpoint **ret);
int gofer_open_at(struct filesystem *fs, struct resolving_path *rp, const struct open_args *args,
		  struct file **ret_file);
int gofer_mkdir_at(struct filesystem *fs, struct resolving_path *rp, const struct mkdir_args *args);
int gofer_mknod_at(struct filesystem *fs, struct resolving_path *rp, const struct mknod_args *args);
int gofer_symlink_at(struct filesystem *fs, struct resolving_path *rp, const char *target);
int gofer_link_at(struct filesystem *fs, struct resolving_path *rp, struct dentry *old);
int gofer_unlink_at(struct filesystem *fs, struct resolving_path *rp);
int gofer_rmdir_at(struct filesystem *fs, struct resolving_path *rp);
int gofer_rename_at(struct filesystem *fs, struct resolving_path *rp, struct dentry *old_parent,
		    const char *old_name, bool old_must_be_dir, const struct rename_args *args);
ssize_t gofer_get_xattr_at(struct filesystem *fs, struct resolving_path *rp,
			   const struct xattr_args *args);
int gofer_set_xattr_at(struct filesystem *fs, struct resolving_path *rp,
		       const struct xattr_args *args);
ssize_t gofer_list_xattr_at(struct filesystem *fs, struct resolving_path *rp, char *buf,
			    size_t size);
int gofer_remove_xattr_at(struct filesystem *fs, struct resolving_path *rp, const char *name);

/* P9_WANT_XATTRS, if somebody asks for them now. */
static inline uint32_t gofer_xattr_want(const struct gofer_fs *fs)
{
	return atomic_load_explicit(&fs->xattr_credit, memory_order_relaxed) > 0 ? P9_WANT_XATTRS
										 : 0;
}
/* What a node says of its file's extended attributes. Pre: in->lock. */
static inline void gofer_xattr_node_locked(struct gofer_inode *in, const struct p9_node *node)
{
	if ((node->qid.type & P9_QTNO_XATTRS) && !in->fs->shared)
		in->no_xattrs = true;
}
/* A reply to P9_WANT_XATTRS told of so many. */
void gofer_xattr_told(struct gofer_inode *dir, unsigned entries);

/* Applies a change that was allowed. Takes tree_lock for writing. */
must_check int gofer_setattr(struct gofer_fs *fs, struct remote_dentry *d,
			     const struct setattr_args *args);
/* Sends it; tree_lock is held for writing. */
must_check int gofer_setattr_locked(struct gofer_fs *fs, struct remote_dentry *d,
				    const struct setattr_args *args);

/* ---- lock.c: file_ops ---- */

struct file_lock;
int gofer_remote_lock(struct file *f, const struct file_lock *req, bool wait);
int gofer_remote_lock_test(struct file *f, const struct file_lock *req, struct file_lock *ret);
void gofer_remote_lock_drop(struct file *f, const void *owner, bool posix);
/* At the end of an inode's life. */
void gofer_lock_owners_free(struct gofer_inode *in);

/* ---- watch.c: inotify on the host, for shared trees ---- */

int gofer_watch_begin(struct dentry *d, uint32_t mask);
void gofer_watch_end(struct filesystem *fs, uint64_t inode_key);
/* Where the host sees d: its directory and name. */
uint64_t gofer_place_of(struct remote_dentry *d);
/* d, whose place was `old`, was moved by us: its descriptors bear the new name. */
void gofer_place_moved(struct remote_dentry *d, uint64_t old);
/*
 * Around what this side does with a donated descriptor itself, so that it is not told twice: reads and writes (IN_ACCESS, IN_MODIFY), and the closing of
 * one that was donated for `place`. Cost a load while nothing in the tree is watched. The result goes to gofer_own_end().
 */
struct gofer_own_io;
struct gofer_own_io *gofer_own_begin_slow(struct gofer_inode *in, int fd, uint32_t mask);
struct gofer_own_io *gofer_own_close_slow(struct gofer_inode *in, uint64_t place, bool write);
void gofer_own_end_slow(struct gofer_fs *fs, struct gofer_own_io *own);
static inline bool gofer_is_watched(const struct gofer_fs *fs)
{
	return unlikely(atomic_load_explicit(&fs->watch_count, memory_order_acquire) != 0);
}
static inline struct gofer_own_io *gofer_own_begin(struct gofer_inode *in, int fd, uint32_t mask)
{
	return gofer_is_watched(in->fs) ? gofer_own_begin_slow(in, fd, mask) : NULL;
}
static inline struct gofer_own_io *gofer_own_close(struct gofer_inode *in, uint64_t place,
						   bool write)
{
	return gofer_is_watched(in->fs) ? gofer_own_close_slow(in, place, write) : NULL;
}
static inline void gofer_own_end(struct gofer_fs *fs, struct gofer_own_io *own)
{
	if (unlikely(own != NULL))
		gofer_own_end_slow(fs, own);
}

/* ---- fifo.c ---- */

/* A fifo of the host's: waits for the other end as open(2) does. -EINTR, -ENXIO, -errno. */
must_check int gofer_open_host_fifo(struct remote_dentry *d, unsigned flags,
				    const struct vfs_path *place, struct file **ret);

/* ---- socket.c ---- */

/* The endpoint of a socket file that the host may have a listener for: a reference. -ENOMEM. */
must_check int gofer_host_endpoint(struct remote_dentry *d, struct vfs_endpoint **ret);
/* A descriptor that a server donated: is it a Unix socket of that SOCK_* type? fd may be -1. */
bool gofer_is_unix_socket(int fd, int type);

/* ---- hostfd.c: donated descriptors ---- */

/* A donated descriptor (plain servers: an open fid) of what is at d. want: more P9_WANT_*. Pre: tree_lock. Return: it, or -errno. */
must_check int gofer_ask_fd(struct remote_dentry *d, uint32_t want, uint32_t accmode);
/* Pins a descriptor for reading (or reading and writing); fetches one if needed. Pre: tree_lock. Return: 0, -errno. */
must_check int gofer_inode_pin(struct remote_dentry *d, bool write, int *ret_fd);
/* One more pin of an inode that is pinned. */
void gofer_inode_pin_again(struct gofer_inode *in);
void gofer_inode_unpin(struct gofer_inode *in);
/* A descriptor of what is at d that came with a reply; pins it. Takes fd. */
int gofer_inode_take_fd(struct remote_dentry *d, int fd, bool write);
/* At the end of an inode's life. */
void gofer_inode_close_fds(struct gofer_inode *in);
/* It is watched: a descriptor that nothing uses would keep the host from seeing its end. */
void gofer_inode_close_idle(struct gofer_inode *in);
/* Closes idle descriptors down to `keep`. */
void gofer_host_fds_trim(struct p9_conn *c, unsigned keep);

/* A descriptor for reading of d that nobody needs yet: idle. Takes fd. Pre: none is known to be there; tree_lock. */
void gofer_inode_keep_fd(struct remote_dentry *d, int fd);
/* Tmopen for a descriptor of what is there. */
void gofer_fill_open(struct p9_msg *t, const struct gofer_where *where, uint32_t want,
		     uint32_t accmode);
/* The reply's descriptor, or -errno; -ENFILE: it was lost. */
must_check int gofer_take_opened(struct p9_call *call);

/* ---- open_ahead.c ---- */

/* A descriptor of d for reading, and those of what will be opened next, which are kept. Pre: tree_lock. Return: it or -errno. */
must_check int gofer_open_ahead(struct remote_dentry *d);
/* Somebody opens it. */
void gofer_open_ahead_used(struct gofer_inode *in);

/* ---- plain_io.c: files of a server that donates no descriptors; fd is an open fid ---- */

must_check ssize_t gofer_plain_read(struct gofer_inode *in, int fd, struct io_iter *it,
				    int64_t off);
/* The size that is known grows along. */
must_check ssize_t gofer_plain_write(struct gofer_inode *in, int fd, struct io_iter *it,
				     int64_t off);
must_check int gofer_plain_fsync(struct p9_conn *c, uint32_t fid, bool data_only);
must_check int gofer_plain_fsync_dir(struct remote_dentry *d, bool data_only);
must_check int gofer_plain_truncate(struct remote_dentry *d, uint64_t size);
/* SEEK_DATA, SEEK_HOLE where nothing is known of holes. */
int64_t gofer_plain_seek(struct gofer_inode *in, int64_t off, int whence);
/* Asks for the attributes if I/O has changed them (or, in a shared tree, anybody may have); what cannot be asked for stays. */
void gofer_plain_freshen(struct remote_dentry *d);
static inline bool gofer_is_plain(const struct gofer_inode *in)
{
	return unlikely(in->fs->conn->plain);
}

/* ---- file.c, dir.c ---- */

/* fd is pinned; the file takes the pin over, also on failure. flags: O_*. */
must_check int gofer_file_create(struct resolving_path *rp, struct remote_dentry *d, int fd,
				 unsigned flags, struct file **ret);
must_check int gofer_dir_create(struct resolving_path *rp, struct remote_dentry *d, unsigned flags,
				struct file **ret);
/* Its entries have changed: the next listing asks. */
void gofer_dir_changed(struct gofer_inode *in);
void gofer_listing_unref(struct gofer_listing *l); /* NULL is ignored */
/* What is kept of a directory's entries: a reference or NULL. */
struct gofer_listing *gofer_listing_of(struct gofer_inode *dir);
/* in's entry, if the listing has it where one had it that told of in; *ret_end is behind it. Its name may be another of in's. */
bool gofer_listing_at(const struct gofer_listing *l, const struct gofer_inode *in,
		      struct p9_dirent *ret, size_t *ret_end);
/* What a reply to a request with `want` has just said of d: its first entries; eof: all of them. Pre: tree_lock, since it was asked for. */
void gofer_dir_told(struct remote_dentry *d, const struct p9_blob *data, uint32_t want, bool eof);
/* Its nodes, as far as they were wanted, into the cache. Pre: tree_lock. */
void gofer_dir_enter(struct gofer_fs *fs, struct remote_dentry *d, const struct p9_blob *data,
		     uint32_t want);
/* New size through a descriptor that may write. Pages beyond go. */
must_check int gofer_inode_truncate(struct remote_dentry *d, int rw_fd, uint64_t size);
/* After the size was changed by a request. */
void gofer_inode_truncated(struct gofer_inode *in, uint64_t size);
extern const struct mappable_ops gofer_mappable_ops;

/* ---- prefetch.c: directories whose names are asked for one after another ---- */

/*
 * A name of d is to be asked for. If several were asked for one by one before, or if that was well spent in other directories, asks for the entries
 * of d with their attributes instead, once in d's life, and enters them; where d's siblings were looked through so before, for those of the next few
 * that cred may search as well. Pre: tree_lock. Return: it did; the name may be known now.
 */
bool gofer_dir_prefetch(struct gofer_fs *fs, const struct cred *cred, struct remote_dentry *d);
/* Asks for the first entries of d with their attributes, and enters them. Pre: tree_lock. Return: some came. */
bool gofer_dir_ask(struct gofer_fs *fs, struct remote_dentry *d);
/* A file that a listing told of is looked at. */
void gofer_dir_well_spent(struct gofer_fs *fs);

/* ---- light.c: which attributes listings bring ---- */

/* P9_WANT_* of a listing. */
uint32_t gofer_light_want(const struct gofer_fs *fs);
/* A program lists a directory, which cost a request. */
void gofer_light_program_listed(struct gofer_fs *fs, const struct gofer_listing *l);
/* Entries of d were entered from a reply to `want`: what was left out? first: they are the first of d. Pre: tree_lock. */
void gofer_light_entered(struct gofer_fs *fs, struct remote_dentry *d, const struct p9_blob *data,
			 uint32_t want, bool first);
/* A listing of this directory that is kept is not enough: attributes are wanted, and most of its files' are not there. */
bool gofer_light_misses(const struct gofer_inode *in);
/*
 * A name of d is to be asked for. If a light listing left it out, listings bring all attributes from now on, and those of d are asked for.
 * Pre: tree_lock. Return: they were; the name may be known now.
 */
bool gofer_light_lookup(struct gofer_fs *fs, struct remote_dentry *d, const char *name, size_t len);
void gofer_light_asked(struct gofer_inode *in);
/* Somebody asks for its attributes. */
static inline void gofer_attr_asked(struct gofer_inode *in)
{
	if (unlikely(atomic_load_explicit(&in->listed, memory_order_relaxed)))
		gofer_light_asked(in);
}

/* ---- ahead.c: directories that will be listed next ---- */

must_check int gofer_ahead_create(struct gofer_ahead **ret);
/* NULL is ignored. Pre: gofer_ahead_drop(). */
void gofer_ahead_destroy(struct gofer_ahead *a);
/* A program lists d, whose entries are known now: asks for what it will list next. Pre: tree_lock. */
void gofer_ahead_listed(struct gofer_fs *fs, struct remote_dentry *d);
/* Nobody walks here any more, as far as this knows. Pre: tree_lock for writing, or nobody uses the filesystem. */
void gofer_ahead_drop(struct gofer_fs *fs);
/* Takes tree_lock for writing: something in the tree is changed. */
void gofer_change_lock(struct gofer_fs *fs);
/* Its holder may wait for a slow server: who is killed leaves, -EINTR. Nothing has happened yet. */
static inline must_check int gofer_change_lock_killable(struct gofer_fs *fs)
{
	int err = rwlock_write_lock_killable(&fs->tree_lock);

	if (!err)
		gofer_ahead_drop(fs);
	return err;
}

#endif
