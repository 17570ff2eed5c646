/*
 * fsimpl/virtiofs/internal.h - the virtio-fs client inside.
 *
 * Lock order:
 *
 *	inode->write_lock (vfs/op_lock.h; not on the fault path): writers, truncation
 *	  tree_lock (LOCK_FS_OP, rwlock): held over requests. Read: the tree is walked and entered into the cache. Write: it is changed.
 *	    dcache.lock (LOCK_FS_DIR): names
 *	    inode->lock (LOCK_FS_INODE): attributes, handles
 *	    inode_lock (LOCK_FS_SUPER): the inode table; not with inode->lock
 *	    listings.lock (LOCK_FS_SUPER): which listings are kept; nothing else with it
 *	map.data_lock (LOCK_FILE_DATA): which pages are cached, valid, dirty; never with a request
 *
 * A node's lookup count (nlookup) is what the server holds for us: FORGET gives it back when the inode goes.
 */
#ifndef MOAT_FSIMPL_VIRTIOFS_INTERNAL_H
#define MOAT_FSIMPL_VIRTIOFS_INTERNAL_H

#include "fsimpl/remote/ops.h"
#include "fsimpl/virtiofs/chunks.h"
#include "fsimpl/virtiofs/dax.h"
#include "fsimpl/virtiofs/listing.h"
#include "fsimpl/virtiofs/version.h"
#include "fsimpl/virtiofs/virtiofs.h"
#include "mem/mappable.h"
#include "vfs/op_lock.h"
#include "vfs/perm.h"
#include "vfs/resolving_path.h"

#define VIRTIOFS_MAGIC 0x65735546 /* FUSE_SUPER_MAGIC: what Linux's virtiofs shows */
#define VIRTIOFS_INODE_BUCKETS 16384
#define VIRTIOFS_FORGET_BATCH 64
#define VIRTIOFS_FORGET_BYTES (1u << 20) /* of files, which may have been removed */
#define VIRTIOFS_DRAIN_NS 500000000ll /* at the end of a mount, for what is still under way */
#define VIRTIOFS_READ_MAX (1ul << 20)
#define VIRTIOFS_BOUNCES_MAX 4
#define VIRTIOFS_AHEAD_DEPTH 4 /* of an inode */
/* Who reads on for longer than that gets the memory of what lies so far behind him instead of fresh one: ahead.c. */
#define VIRTIOFS_STREAM_BYTES (4ul << 20)
/* Submounts in each other; the one above goes with the one in it, on the stack of whoever drops the last. */
#define VIRTIOFS_SUBMOUNT_DEPTH_MAX 64
#define VIRTIOFS_PAGES_PER_CHUNK (MEM_CHUNK_SIZE >> MOAT_PAGE_SHIFT)
#define VIRTIOFS_PAGE_BIT(off) \
	((uint16_t)(1u << (((off) >> MOAT_PAGE_SHIFT) % VIRTIOFS_PAGES_PER_CHUNK)))

/*
 * What keeps a request's file as it is when its caller was killed: a reference on the handle (so RELEASE comes after it) or the inode, and
 * fill_lock if the request was made under it (so nothing that touches the same data overtakes it).
 */
struct virtiofs_owner {
	struct vdev_owner base;
	struct virtiofs_inode *in;
	struct virtiofs_handle *h; /* NULL: only the inode */
	bool fills;
	_Atomic uint32_t drops; /* references that work gives back */
	struct deferred_work work;
};

/* An open file of the server's. Shared by our file and by mappings, which read and write back through it. */
struct virtiofs_handle {
	struct ref ref;
	struct virtiofs_inode *in; /* a reference */
	_Atomic uint64_t
		fh; /* read after the inode's nodeid: both are new after a reconnection, or the nodeid is refused */
	uint32_t open_flags; /* FOPEN_* */
	unsigned flags; /* O_* it was opened with */
	_Atomic bool none; /* the server needs no handles (ENOSYS to OPEN) */
	_Atomic bool
		unchecked; /* what is cached may be of before the open: asked at the first use */
	struct virtiofs_owner user, filler; /* of its requests; filler: under fill_lock */
	LIST_ENTRY(virtiofs_handle) link; /* inode->handles; guarded by inode->lock */
};

/* One open file's advice: where a reader that reads on comes next, how much is read ahead of it, and how far that is. Bytes. */
struct virtiofs_readahead {
	_Atomic uint64_t next, window, asked;
};

struct virtiofs_inode {
	struct remote_inode base;
	struct virtiofs_fs *fs; /* immutable; borrowed */
	LIST_ENTRY(virtiofs_inode) hash_link; /* guarded by fs->inode_lock */
	bool hashed; /* guarded by fs->inode_lock */
	_Atomic uint64_t nodeid; /* vdev_node(); changed by reconnection only */
	_Atomic uint64_t
		generation; /* changed by reconnection only, under fs->inode_lock; with versions the key of its own */
	uint64_t key; /* immutable: what locks and watches know it by */
	uint32_t rdev; /* immutable: Linux's encoding */
	_Atomic uint64_t nlookup; /* raised under fs->inode_lock or by whoever holds a reference */
	struct mutex lock; /* LOCK_FS_INODE */
	struct fuse_attr attr; /* guarded by lock */
	_Atomic uint64_t
		size; /* attr.size; written under lock, read without it where a mapping is translated */
	int64_t attr_valid_until; /* guarded by lock: host CLOCK_MONOTONIC */
	int64_t perm_valid_until; /* guarded by lock: of mode and owner, which our data and names do not change */
	int64_t attr_asked; /* guarded by lock: when the request that brought them was made; 0: stale */
	uint64_t
		attr_version; /* guarded by lock: fs->clock at the last change: replies to requests from before are too old to enter */
	char *target; /* guarded by lock: a symlink's, once read; owned; freed with the inode */
	size_t target_len;
	LIST_HEAD(, virtiofs_handle) handles; /* guarded by lock */
	/* A directory: names looked up in it, known or not; as many when it was listed last, and how many entries it had. Advice only. */
	_Atomic uint32_t looked_up, list_mark, list_count;
	_Atomic bool plus_wanted;
	struct virtiofs_listing *
		listing; /* guarded by the device's listings' lock: what is kept of it; a reference */
	_Atomic bool
		creates_exist; /* a directory: the last O_CREAT without O_EXCL found what it names */
	/* acl.c: the access ACL, and the ctime and version with which it was asked for; guarded by lock, acl is freed by RCU */
	struct vfs_acl *_Atomic acl;
	struct fuse_attr acl_attr;
	uint64_t acl_seen;
	bool acl_known;
	struct vfs_endpoint *endpoint; /* guarded by lock; a reference: a socket bound here */
	struct remote_dentry *endpoint_dentry; /* guarded by tree_lock (write); keeps it cached */

	LIST_HEAD(, virtiofs_lock_owner) lock_owners; /* guarded by lock */
	_Atomic bool locked; /* there was an owner of locks once */
	_Atomic unsigned locks_lost; /* owners whose locks went with a daemon */

	struct op_lock write_lock;
	/* Around READs into the cache and what must not happen meanwhile: WRITEs, truncation. Inside write_lock. */
	struct op_lock fill_lock;
	_Atomic uint32_t fill_holders; /* of fill_lock: its taker, and requests of killed callers */
	struct virtiofs_owner filler; /* of requests under fill_lock without a handle */
	/* Guarded by fill_lock: READs under way that nobody waits for, in the file's order; owned. */
	struct virtiofs_ahead *ahead[VIRTIOFS_AHEAD_DEPTH];
	unsigned ahead_count;
	struct virtiofs_ahead
		*ahead_gone; /* the same: not under way, their handles go with fill_end */
	struct virtiofs_handle *_Atomic ahead_of; /* their handle, to compare with */
	struct mappable map; /* regular files */
	struct virtiofs_dax_inode dax; /* regular files: instead of the page cache */
	_Atomic int pass; /* pass.c */
	uint64_t
		attr_seen; /* guarded by lock: the version that came with attr; with fs->versions */
	/* The page cache; guarded by map.data_lock */
	struct virtiofs_chunks chunks;
	int64_t cached_mtime, cached_ctime; /* ns: the data is of this version */
	uint64_t cached_size, cached_seen; /* seen: attr_seen then; with fs->versions */
	_Atomic uint32_t dirty_pages;
	_Atomic uint32_t
		writing; /* writebacks under way: their pages count as clean, but the server does not know them */
	/*
	 * Data that could not be written back: how often, the last error, and up to which of them somebody was told by fsync(2). Each open file
	 * remembers what it knows of (file.c), so that every writer is told, whosever request it was that failed.
	 */
	_Atomic uint32_t lost_seq, lost_told;
	_Atomic int lost_err;
	_Atomic uint32_t map_drops; /* mappings' references that map_work gives back */
	struct deferred_work map_work;
	struct rcu_cb rcu;
};

/*
 * A directory where another filesystem of the host begins (FUSE_ATTR_SUBMOUNT) is the root of a virtiofs_fs of its own, with its own device number
 * and tables, over the same device: submount.c. It holds its mount point, and with it the filesystem above.
 */
struct virtiofs_fs {
	struct filesystem fs;
	struct virtiofs_fs *
		top; /* immutable: the device's filesystem, which that above pins; NULL: it is that itself */
	struct remote_dentry *
		over; /* immutable: where it begins; a reference, and one on the filesystem above, whose it is */
	unsigned depth; /* immutable: how many filesystems are above */
	TAILQ_HEAD(, virtiofs_fs) subs; /* of top, those above first; guarded by its inode_lock */
	TAILQ_ENTRY(virtiofs_fs) sub_link; /* guarded by top's inode_lock */
	bool in_subs; /* guarded by top's inode_lock: in top's subs */
	struct deferred_work put_work; /* gives `puts` references back */
	_Atomic uint32_t puts;
	struct virtiofs_device *dev; /* a reference */
	struct virtiofs_options options; /* immutable */
	struct remote_dcache dcache;
	struct remote_dentry *root; /* a reference */
	struct rwlock tree_lock; /* LOCK_FS_OP */
	struct mutex inode_lock; /* LOCK_FS_SUPER */
	_Atomic uint64_t next_key;
	_Atomic unsigned lock_waits; /* of the top: locks that the daemon waits for */
	LIST_HEAD(, virtiofs_inode) inodes[VIRTIOFS_INODE_BUCKETS]; /* guarded by inode_lock */
	/* What INIT settled; immutable */
	uint32_t max_write, max_read;
	uint64_t init_flags; /* with INIT_EXT's in the upper half */
	struct virtiofs_versions
		*versions; /* the device's; NULL: what is cached holds as long as the mode says */
	_Atomic uint64_t clock; /* counts changes of attributes by us */
	_Atomic uint32_t listed,
		wanted; /* entries lately, and how many of them were looked up after */
	_Atomic uint64_t absent; /* a bit an opcode below 64 that gave ENOSYS */
	struct virtiofs_listings listings; /* of the top */
	struct mutex forget_lock; /* LOCK_FS_SUPER: all below */
	uint64_t bounces
		[VIRTIOFS_BOUNCES_MAX]; /* buffers kept for the next, VIRTIOFS_READ_MAX each */
	unsigned bounce_count;
	/* FORGETs not sent yet */
	struct fuse_forget_one forgets[VIRTIOFS_FORGET_BATCH];
	unsigned forget_count;
	uint64_t forget_bytes; /* of the files among them */
};

static inline struct virtiofs_fs *virtiofs_fs_of(struct filesystem *fs)
{
	return container_of(fs, struct virtiofs_fs, fs);
}

static inline struct virtiofs_inode *virtiofs_inode_of(const struct remote_dentry *d)
{
	return container_of(d->inode, struct virtiofs_inode, base);
}

/* Taken before a request: what it brings is as new as this. */
struct virtiofs_when {
	uint64_t version; /* fs->clock */
	int64_t time; /* host CLOCK_MONOTONIC */
};
#define VIRTIOFS_FORCED \
	((struct virtiofs_when){UINT64_MAX, 0}) /* entered whatever changed meanwhile */

/* ---- rpc.c: one function a request, all with the caller's ids ---- */

/* call->req.opcode, nodeid, arg, names ... Return: as vdev_call(); -ENOSYS at once for what the server lacks. */
must_check ssize_t virtiofs_call(struct virtiofs_fs *fs, struct vdev_call *call);
bool virtiofs_lacks(const struct virtiofs_fs *fs, uint32_t opcode);
must_check int virtiofs_lookup_rpc(struct virtiofs_fs *fs, uint64_t parent, const char *name,
				   size_t len, struct fuse_entry_out *ret);
/* The same in two steps. */
struct virtiofs_name {
	uint64_t dir; /* its node */
	const char *name; /* borrowed by begin */
	size_t len;
	bool more; /* vdev_call.more */
};
struct virtiofs_lookup {
	struct vdev_pending pending;
	struct virtiofs_when when; /* virtiofs_now() before it was sent */
	unsigned epoch;
};
/* Return: as vdev_begin(). */
must_check int virtiofs_lookup_begin(struct virtiofs_fs *fs, const struct virtiofs_name *n,
				     bool may_wait, struct virtiofs_lookup *ret);
must_check int virtiofs_lookup_end(struct virtiofs_lookup *l, struct fuse_entry_out *ret);
/* A reply's entry: its node gets the device's name. -EIO: no node that the device could name. epoch: vdev_epoch() before the request. */
must_check int virtiofs_entry_named(struct fuse_entry_out *e, unsigned epoch);
/* Before an operation on an open file takes locks: a daemon that was started anew a moment ago is waited for. */
static inline void virtiofs_await(struct virtiofs_fs *fs)
{
	virtiofs_device_await(fs->dev);
}
must_check int virtiofs_getattr_rpc(struct virtiofs_inode *in, struct fuse_attr_out *ret);
/* Some time soon: the daemon holds a file until then, and the host its room. bytes: that the file may take; soon, where that is much. */
void virtiofs_forget(struct virtiofs_fs *fs, uint64_t nodeid, uint64_t nlookup);
void virtiofs_forget_file(struct virtiofs_fs *fs, uint64_t nodeid, uint64_t nlookup,
			  uint64_t bytes);
void virtiofs_forget_flush(struct virtiofs_fs *fs);
/* again: after a reconnection. */
must_check int virtiofs_init_rpc(struct virtiofs_fs *fs, bool again);

/* ---- inode.c ---- */

/*
 * The inode of a reply, which counts as one lookup of it: the known one or a new one. A reference. when: virtiofs_now() before the request.
 * -EIO for nonsense, -ENOMEM (the lookup is forgotten).
 */
must_check int virtiofs_inode_get(struct virtiofs_fs *fs, const struct fuse_entry_out *e,
				  struct virtiofs_when when, struct virtiofs_inode **ret);
must_check int virtiofs_inode_create_root(struct virtiofs_fs *fs, struct virtiofs_inode **ret);
void virtiofs_inode_unref(struct virtiofs_inode *in);
void virtiofs_inode_unref_base(struct remote_inode *base);
void virtiofs_inode_perm_base(struct remote_inode *base, struct perm_inode *ret);
/* Takes attributes of a reply; when: virtiofs_now() before the request, or VIRTIOFS_FORCED. */
void virtiofs_inode_update(struct virtiofs_inode *in, const struct fuse_attr *attr, uint64_t valid,
			   uint32_t valid_nsec, struct virtiofs_when when);
struct virtiofs_when virtiofs_now(struct virtiofs_fs *fs);
/* Attributes are not to be believed any more; our own request changes them. */
void virtiofs_inode_stale(struct virtiofs_inode *in);
/* Only sizes, times and counts: an entry of it, or data, was changed by us. */
void virtiofs_inode_touched(struct virtiofs_inode *in);
/*
 * Asks unless they have not expired or were asked for at `since` (an operation's beginning, virtiofs_now(); 0: none) or later.
 * VIRTIOFS_ASK: in any case. Return: 0, -errno.
 */
must_check int virtiofs_inode_refresh(struct virtiofs_inode *in, int64_t since);
#define VIRTIOFS_ASK INT64_MAX
/* As much, when only mode and owner are wanted. */
must_check int virtiofs_inode_refresh_perm(struct virtiofs_inode *in, int64_t since);
/* Were they asked for at `since` or later? */
bool virtiofs_inode_asked(struct virtiofs_inode *in, int64_t since);
/* After a reconnection it is another node. Pre: inode_lock. */
void virtiofs_inode_rehash(struct virtiofs_inode *in, uint64_t node, uint64_t generation);
uint64_t virtiofs_inode_ino(struct virtiofs_inode *in);
/* reconnect.c: finds everything again that is in use. arg: the filesystem. */
must_check int virtiofs_restore(void *arg);
/* A new owner of requests. */
void virtiofs_owner_init(struct virtiofs_owner *o, struct virtiofs_inode *in,
			 struct virtiofs_handle *h, bool fills);
void virtiofs_inode_perm(struct virtiofs_inode *in, struct perm_inode *ret);
void virtiofs_inode_stat(struct virtiofs_inode *in, struct moat_statx *ret);
uint64_t virtiofs_inode_size(struct virtiofs_inode *in);
/* A truncation of ours happened; what was dirty beyond is gone. */
void virtiofs_inode_cut(struct virtiofs_inode *in, uint64_t size);
/* The file has grown by a write of ours (writeback: nobody else knows yet). */
void virtiofs_inode_grown(struct virtiofs_inode *in, uint64_t size);
/* When an entry or attributes of a reply stop to be believed. */
int64_t virtiofs_valid_until(const struct virtiofs_fs *fs, uint64_t sec, uint32_t nsec);

/* ---- acl.c ---- */

#define VIRTIOFS_ACL_ACCESS "system.posix_acl_access"
bool virtiofs_has_acls(const struct virtiofs_fs *fs);
/* Before the rights of cred: the ACL is known where it could decide. Return: 0, -errno. */
must_check int virtiofs_acl_ensure(const struct cred *cred, struct virtiofs_inode *in);
void virtiofs_acl_forget(struct virtiofs_inode *in);
void virtiofs_acl_free(struct virtiofs_inode *in);
/* Does setting this attribute take setgid away? */
bool virtiofs_acl_kills_sgid(struct virtiofs_inode *in, const struct cred *cred, const char *name);
/* cred has set or removed one. */
void virtiofs_acl_changed(struct virtiofs_inode *in, const struct cred *cred, const char *name);
/* As virtiofs_inode_perm(), with the ACL: in an RCU read section, which keeps it. Pre: virtiofs_acl_ensure(). */
void virtiofs_inode_perm_acl(struct virtiofs_inode *in, struct perm_inode *ret);
must_check int virtiofs_permission(const struct cred *cred, struct virtiofs_inode *in, int mask);
/* filesystem_ops.get_acl */
int virtiofs_get_acl(struct dentry *d, bool is_default, struct vfs_acl **ret);
/* GETXATTR or LISTXATTR (name NULL). size 0 asks for the size. Return: bytes, -errno. */
must_check ssize_t virtiofs_xattr_get(struct virtiofs_inode *in, uint32_t opcode, const char *name,
				      void *buf, size_t size);
/* The mode of a new file as it is sent: a server that says so applies the umask, where default ACLs may say otherwise. */
static inline uint32_t virtiofs_masked(const struct virtiofs_fs *fs, uint32_t mode, uint32_t umask)
{
	const uint64_t both = FUSE_POSIX_ACL | FUSE_DONT_MASK;

	return (fs->init_flags & both) == both ? mode : mode & ~(umask & 0777);
}

/* ---- quick.c: in the VFS's read section, without locks ---- */

#define VIRTIOFS_QUICK_ASK 1 /* no errno, no restart */
/* The time, read when it is first needed. coarse: cheaper, and late rather than early. */
struct virtiofs_clock {
	int64_t now;
	bool coarse;
};
int64_t virtiofs_clock_read(bool coarse);
static inline int64_t virtiofs_clock_now(struct virtiofs_clock *c)
{
	if (!c->now)
		c->now = virtiofs_clock_read(c->coarse);
	return c->now;
}
/* Is what expires at `until` (as virtiofs_valid_until() has it) to be believed? */
static inline bool virtiofs_time_holds(int64_t until, struct virtiofs_clock *c)
{
	return until == INT64_MAX || (until && until > virtiofs_clock_now(c));
}
/*
 * Walks as far as what is known goes; *ret is where it stands then, for as long as the read section lasts. Return: 0: at the end; VIRTIOFS_QUICK_ASK: the
 * rest is the slow walk's; -errno, a restart.
 */
must_check int virtiofs_quick_walk(struct virtiofs_fs *fs, struct resolving_path *rp,
				   bool to_parent, struct virtiofs_clock *clock,
				   struct remote_dentry **ret);
/*
 * What every path operation begins with, before it takes locks: rp goes to reference mode, as far along its path as is known, and a daemon that was
 * started anew a moment ago is waited for. Return: 0, -errno, a restart.
 */
must_check int virtiofs_begin(struct virtiofs_fs *fs, struct resolving_path *rp, bool to_parent);
/* The whole operation, if it can be done so. VIRTIOFS_QUICK_ASK: not, rp is as after virtiofs_begin() but for the daemon. */
must_check int virtiofs_quick_stat(struct virtiofs_fs *fs, struct resolving_path *rp,
				   const struct stat_args *args, struct moat_statx *ret);
must_check int virtiofs_quick_access(struct virtiofs_fs *fs, struct resolving_path *rp, int mask);
/* inode.c: what is known and to be believed, in a read section. False: unknown, or somebody is changing it. */
bool virtiofs_peek_perm(struct virtiofs_inode *in, struct virtiofs_clock *c,
			struct perm_inode *ret);
bool virtiofs_peek_stat(struct virtiofs_inode *in, struct virtiofs_clock *c,
			struct moat_statx *ret);

/* ---- submount.c ---- */

/* fs.c: tables and locks, nothing asked yet. Takes no reference on the device. Return: 0, -ENOMEM, -EMFILE. */
must_check int virtiofs_fs_alloc(struct virtiofs_device *dev,
				 const struct virtiofs_options *options, const char *source,
				 struct virtiofs_fs **ret);
/* filesystem_ops.automount */
int virtiofs_automount(struct dentry *base, struct filesystem **ret_fs, struct dentry **ret_root);
/* A release's beginning, when nobody is to find it any more, and its end. */
void virtiofs_submount_unlink(struct virtiofs_fs *fs);
void virtiofs_submount_fini(struct virtiofs_fs *fs);
/* The one after `fs` (NULL: the first): a reference; that on fs is given back later, by deferred work. NULL at the end. */
struct virtiofs_fs *virtiofs_submount_next(struct virtiofs_fs *top, struct virtiofs_fs *fs);
void virtiofs_submount_put_later(struct virtiofs_fs *fs);

/* ---- walk.c; walk_ask.c: what one MOAT_WALK (wire/fuse_walk.h) tells of ---- */

/* What open(2) wants done where its path ends, along with the request for the path, and what came of it. */
struct virtiofs_hint {
	const struct open_args *args; /* in; O_CREAT: a new file may be made */
	struct remote_dentry
		*child; /* what the path ends in: a reference; NULL: nobody was asked */
	bool opened, created;
	unsigned flags, epoch; /* of the handle: what virtiofs_handle_adopt() takes */
	struct fuse_open_out out;
};
/* Gives back what nobody took. NULL is ignored. */
void virtiofs_hint_fini(struct virtiofs_hint *h);
/* The handle, if it is d's: consumed. Return: 1; 0: there is none; -errno. */
must_check int virtiofs_hint_take(struct virtiofs_hint *h, struct remote_dentry *d,
				  struct virtiofs_handle **ret);

struct virtiofs_told {
	const char *name; /* in the text that the walk goes through */
	struct remote_dentry *d; /* a reference */
};
struct virtiofs_walk {
	struct virtiofs_fs *fs;
	struct resolving_path *rp;
	int64_t since;
	struct virtiofs_hint *hint; /* NULL */
	struct remote_dentry *cur; /* a reference */
	/* Of the last request: names that follow each other, believed by this walk if by nobody else. */
	struct virtiofs_told told[FUSE_WALK_ENTRIES_MAX];
	unsigned told_next, told_count;
	const char *fail_name; /* behind them, in fail_dir */
	const struct remote_dentry *fail_dir;
	int fail_err;
	bool to_parent;
	/* Of the name behind the last answer's, which was sent already: walk_next.c. */
	struct virtiofs_lookup next;
	unsigned next_cost; /* as vdev_ahead_take() said; 0: there is none */
	uint64_t next_dir;
	const char *next_name;
};
/*
 * The current name, of which nothing is to be believed: asks for it, and when that is answered for the one behind it at once. Return: 0 and a reference,
 * -ENOENT, -errno. Pre: tree_lock.
 */
must_check int virtiofs_walk_lookup(struct virtiofs_walk *wk, struct remote_dentry **ret);
/* What was sent ahead is not wanted. Waits for it. */
void virtiofs_walk_drop_next(struct virtiofs_walk *wk);
/* Asks for what remains of the path. Return: 0: told; 1: not worth it, LOOKUP will do; -errno. Pre: tree_lock. */
must_check int virtiofs_walk_ask(struct virtiofs_walk *wk);
/*
 * The walk is at the parent: O_CREAT in a directory whose attributes would have to be asked for first (with versions each new name changes them) has its
 * last name asked for, and made, instead, for credentials that are told nothing by them. Return: 0, -errno. Pre: tree_lock.
 */
must_check int virtiofs_walk_ask_last(struct virtiofs_walk *wk);
/* The current name if the last request told of it. Return: 0 and a reference, -errno; 1: it did not. */
must_check int virtiofs_walk_told(struct virtiofs_walk *wk, struct remote_dentry **ret);
void virtiofs_walk_fini(struct virtiofs_walk *wk); /* all but cur */
/* As virtiofs_walk(), with a hint. */
must_check int virtiofs_walk_hinted(struct virtiofs_fs *fs, struct resolving_path *rp,
				    bool to_parent, int64_t since, struct virtiofs_hint *hint,
				    struct remote_dentry **ret);
/* since: when the operation began; what is asked for from then on is not asked for again. */
must_check int virtiofs_walk(struct virtiofs_fs *fs, struct resolving_path *rp, bool to_parent,
			     int64_t since, struct remote_dentry **ret);
/* Does d stand for its name in dir? */
bool virtiofs_name_holds(struct virtiofs_fs *fs, const struct virtiofs_inode *dir, const char *name,
			 size_t len, const struct remote_dentry *d, struct virtiofs_clock *c);
/* One name in dir, believed or asked for. Return: 0 and a reference, -ENOENT, -errno. Pre: tree_lock. */
must_check int virtiofs_lookup(struct virtiofs_fs *fs, struct remote_dentry *dir, const char *name,
			       size_t len, struct remote_dentry **ret);
/* The same where nothing is believed: asks. */
must_check int virtiofs_lookup_ask(struct virtiofs_fs *fs, struct remote_dentry *dir,
				   const char *name, size_t len, struct remote_dentry **ret);
/* The name was not there. version: the name's, from before the look; with fs->versions. */
void virtiofs_enter_negative(struct virtiofs_fs *fs, struct remote_dentry *dir, const char *name,
			     size_t len, uint64_t version);
/* What the cache has under the name and is to be believed, positive or negative: a reference; NULL: to be asked. */
struct remote_dentry *virtiofs_believed(struct virtiofs_fs *fs, struct remote_dentry *dir,
					const char *name, size_t len);
/* Enters a request's entry. when: virtiofs_now() before the request. Return: 0 and a reference. */
must_check int virtiofs_enter(struct virtiofs_fs *fs, struct remote_dentry *dir, const char *name,
			      size_t len, const struct fuse_entry_out *e, struct virtiofs_when when,
			      struct remote_dentry **ret);
/* A name in dir was asked for: advice for READDIRPLUS. */
void virtiofs_dir_looked_up(struct virtiofs_inode *dir);
/* A symlink's text; lives as long as the inode. */
must_check int virtiofs_target(struct virtiofs_inode *in, const char **ret, size_t *ret_len);
must_check int virtiofs_follow(struct resolving_path *rp, struct remote_dentry *dir,
			       struct remote_dentry *link);

/* ---- change.c: a creation under way ---- */

struct virtiofs_creation {
	struct virtiofs_fs *fs;
	struct resolving_path *rp;
	struct remote_dentry *dir; /* a reference */
	struct perm_inode pi; /* dir's */
	struct virtiofs_inode *linked; /* link(2): what gets another name; borrowed; else NULL */
	struct remote_dentry *old; /* link(2): the name that it has; borrowed; else NULL */
	struct virtiofs_when when; /* before the request */
	char name[VFS_NAME_MAX + 1];
	size_t len;
	bool is_dir;
};
/* Takes tree_lock for writing; on success the caller ends with virtiofs_end_creation(). */
must_check int virtiofs_begin_creation(struct virtiofs_creation *c, struct filesystem *base,
				       struct resolving_path *rp, bool is_dir);
/* Makes the request for a file of `type` with its owner; e: where call->reply's entry lies. Return: as virtiofs_call(). */
must_check ssize_t virtiofs_create_call(struct virtiofs_fs *fs, struct vdev_call *call,
					uint32_t type, uint32_t uid, uint32_t gid,
					struct fuse_entry_out *e);
/* Enters the entry if err is 0. Return: err, or what went wrong then. */
must_check int virtiofs_end_creation(struct virtiofs_creation *c, int err,
				     const struct fuse_entry_out *e, struct vfs_endpoint *endpoint);

/* ---- ops: path_ops.c, change.c, open.c, xattr.c ---- */

int virtiofs_get_dentry_at(struct filesystem *fs, struct resolving_path *rp, struct dentry **ret);
int virtiofs_stat_at(struct filesystem *fs, struct resolving_path *rp, const struct stat_args *args,
		     struct moat_statx *ret);
int virtiofs_access_at(struct filesystem *fs, struct resolving_path *rp, int mask);
int virtiofs_readlink_at(struct filesystem *fs, struct resolving_path *rp, char *buf, size_t size,
			 size_t *ret_len);
int virtiofs_set_stat_at(struct filesystem *fs, struct resolving_path *rp,
			 const struct setattr_args *args);
int virtiofs_statfs(struct filesystem *fs, struct dentry *d, struct statfs *ret);
int virtiofs_get_endpoint_at(struct filesystem *fs, struct resolving_path *rp,
			     struct vfs_endpoint **ret);
int virtiofs_open_at(struct filesystem *fs, struct resolving_path *rp, const struct open_args *args,
		     struct file **ret_file);
int virtiofs_mkdir_at(struct filesystem *fs, struct resolving_path *rp,
		      const struct mkdir_args *args);
int virtiofs_mknod_at(struct filesystem *fs, struct resolving_path *rp,
		      const struct mknod_args *args);
int virtiofs_symlink_at(struct filesystem *fs, struct resolving_path *rp, const char *target);
int virtiofs_link_at(struct filesystem *fs, struct resolving_path *rp, struct dentry *old);
int virtiofs_unlink_at(struct filesystem *fs, struct resolving_path *rp);
int virtiofs_rmdir_at(struct filesystem *fs, struct resolving_path *rp);
int virtiofs_rename_at(struct filesystem *fs, struct resolving_path *rp, struct dentry *old_parent,
		       const char *old_name, bool old_must_be_dir, const struct rename_args *args);
ssize_t virtiofs_get_xattr_at(struct filesystem *fs, struct resolving_path *rp,
			      const struct xattr_args *args);
int virtiofs_set_xattr_at(struct filesystem *fs, struct resolving_path *rp,
			  const struct xattr_args *args);
ssize_t virtiofs_list_xattr_at(struct filesystem *fs, struct resolving_path *rp, char *buf,
			       size_t size);
int virtiofs_remove_xattr_at(struct filesystem *fs, struct resolving_path *rp, const char *name);

/* Sends a change of attributes that was allowed; handle: for a truncation by descriptor, or NULL. */
must_check int virtiofs_setattr(struct virtiofs_inode *in, const struct setattr_args *args,
				const struct virtiofs_handle *handle);

/*
 * Is the server asked to take setuid and setgid away with a change of data by the caller (FUSE_HANDLE_KILLPRIV_V2)? It then looks at the mode that the
 * file has, not at the one that is remembered here.
 */
bool virtiofs_kills_priv(struct virtiofs_inode *in);

/* A new size, allowed. Pre: write_lock. */
must_check int virtiofs_truncate(struct virtiofs_inode *in, const struct setattr_args *args,
				 const struct virtiofs_handle *handle);

/* ---- file.c, dir.c ---- */

must_check int virtiofs_handle_open(struct virtiofs_inode *in, unsigned flags,
				    struct virtiofs_handle **ret);
/* A handle that a CREATE brought. */
/* out: NULL, or OPEN's answer. epoch: vdev_epoch() before the request. */
must_check int virtiofs_handle_adopt(struct virtiofs_inode *in, unsigned flags, unsigned epoch,
				     const struct fuse_open_out *out, struct virtiofs_handle **ret);
void virtiofs_handle_unref(struct virtiofs_handle *h);
/* OPEN's flags: what the server is asked for. */
unsigned virtiofs_server_flags(const struct virtiofs_fs *fs, unsigned flags);
/* What a file that open(2) wants is opened for, when nothing but the access counts: O_TRUNC writes, and who writes may have to read. */
unsigned virtiofs_open_access(const struct virtiofs_fs *fs, unsigned flags);
/* The first use after an open: what is cached is compared with what is there now. Return: 0, -errno. */
must_check int virtiofs_handle_check(struct virtiofs_handle *h);
/* The open handles one after the other: a reference, which the next call takes back; NULL at the end. */
struct virtiofs_handle *virtiofs_handle_next(struct virtiofs_inode *in,
					     struct virtiofs_handle *after);
/* One that can write (or read): a reference, or NULL. */
struct virtiofs_handle *virtiofs_handle_any(struct virtiofs_inode *in, bool write);
/* Takes the handle, also on failure. */
must_check int virtiofs_file_create(struct resolving_path *rp, struct remote_dentry *d,
				    struct virtiofs_handle *h, unsigned flags, struct file **ret);
must_check int virtiofs_dir_create(struct resolving_path *rp, struct remote_dentry *d,
				   unsigned flags, struct file **ret);

/* A file's of ours; borrowed. */
struct virtiofs_handle *virtiofs_file_handle(struct file *f);

/* ---- lock.c: file_ops ---- */

struct file_lock;
int virtiofs_remote_lock(struct file *f, const struct file_lock *req, bool wait);
unsigned virtiofs_remote_lock_epoch(struct file *f);
int virtiofs_remote_lock_test(struct file *f, const struct file_lock *req, struct file_lock *ret);
void virtiofs_remote_lock_drop(struct file *f, const void *owner, bool posix);
/* At the end of an inode's life. */
void virtiofs_lock_owners_free(struct virtiofs_inode *in);
/* reconnect.c: takes the locks on the inode, which is the new daemon's `node`, there again. until: host CLOCK_MONOTONIC. */
void virtiofs_relock(struct virtiofs_inode *in, uint64_t node, int64_t until);
bool virtiofs_lock_is_lost(struct file *f);
/* Before data is read or written through f: -EIO while a lock with which it would be is lost. */
static inline int virtiofs_lock_check(struct file *f, const struct virtiofs_inode *in)
{
	if (likely(!atomic_load_explicit(&in->locks_lost, memory_order_relaxed)))
		return 0;
	return virtiofs_lock_is_lost(f) ? -EIO : 0;
}

/* ---- data.c: the page cache; ahead.c: reads through it; write.c: writes ---- */

/* The chunk that `off` lies in; NULL. Pre: map.data_lock. */
static inline struct virtiofs_chunk *virtiofs_chunk_at(struct virtiofs_inode *in, uint64_t off)
{
	return chunks_find(&in->chunks, off >> MEM_CHUNK_SHIFT);
}

static inline bool virtiofs_page_valid(struct virtiofs_inode *in, uint64_t off)
{
	struct virtiofs_chunk *c = virtiofs_chunk_at(in, off);

	return c && (c->valid & VIRTIOFS_PAGE_BIT(off));
}

/* VIRTIOFS_READ_MAX bytes of shared memory for a while. killed: the device may still use them. */
must_check int virtiofs_bounce_get(struct virtiofs_fs *fs, uint64_t *ret_off);
void virtiofs_bounce_put(struct virtiofs_fs *fs, uint64_t off, bool killed);
/* Memory for every chunk of [off, end). Return: 0, -ENOMEM, -EFBIG. */
must_check int virtiofs_data_provide(struct virtiofs_inode *in, uint64_t off, uint64_t end);
/* The same for who reads on: memory that lies VIRTIOFS_STREAM_BYTES behind is used again where that can be. */
must_check int virtiofs_data_provide_stream(struct virtiofs_inode *in, uint64_t off, uint64_t end);
/*
 * A run of pages that are not valid, from *inout_off (which moves up to its beginning) on and below end, as pieces of memory with references. Their
 * memory must be provided. Return: pieces, 0: none.
 */
unsigned virtiofs_data_collect(struct virtiofs_inode *in, uint64_t *inout_off, uint64_t end,
			       struct vdev_data *data, unsigned max);
/* A READ of such a run brought `got` bytes: its pages are valid now, and what the file did not have of them reads as zeros. */
void virtiofs_data_arrived(struct virtiofs_inode *in, uint64_t off, const struct vdev_data *data,
			   unsigned count, uint64_t got);
/* Sends a READ into such a run, if there is room for it. Pre: fill_lock. Return: as vdev_begin(). */
must_check int virtiofs_data_read_begin(struct virtiofs_inode *in, struct virtiofs_handle *h,
					uint64_t off, const struct vdev_data *data, unsigned count,
					struct vdev_pending *ret);
/* Makes the pages of [off, end) valid. Pre: fill_lock. Return: 0, -errno. */
must_check int virtiofs_data_fill_locked(struct virtiofs_inode *in, struct virtiofs_handle *h,
					 uint64_t off, uint64_t end);
/* ---- pass.c: long reads past the page cache ---- */

#define VIRTIOFS_PASS_BYTES (64ul << 10) /* a shorter one takes its READ along with others */

/* Does the host copy what is read through h in long pieces? ask: the daemon, if it was not asked yet. Takes fill_lock. */
bool virtiofs_pass_ready(const struct virtiofs_handle *h, bool ask);
/* It does, and nothing of [off, end) is cached. Return: bytes; 0: a READ must bring it; -EFAULT. */
ssize_t virtiofs_pass_read(struct virtiofs_inode *in, struct io_iter *it, uint64_t off,
			   uint64_t end);
/* Nobody has the file open any more, or another daemon has it. */
void virtiofs_pass_end(struct virtiofs_inode *in);

/* The handle is about to go: what is read ahead through it is taken in. */
void virtiofs_ahead_stop(struct virtiofs_handle *h);

extern const struct mappable_ops virtiofs_mappable_ops;
/* Written data that the server will not have: the next fsync(2) of each open file tells. */
void virtiofs_data_lost(struct virtiofs_inode *in, int err);
/* Everything dirty in [off, end) to the server. No locks held but write_lock; takes fill_lock. Return: 0, -errno. */
must_check int virtiofs_data_writeback(struct virtiofs_inode *in, uint64_t off, uint64_t end);
/* Pages of [off, end) are not to be believed (dirty ones are dropped too). */
void virtiofs_data_drop(struct virtiofs_inode *in, uint64_t off, uint64_t end);
/* The file is `size` long from now on: pages beyond go, the tail of the last is zeroed. */
void virtiofs_data_truncated(struct virtiofs_inode *in, uint64_t size);
/*
 * The file is about to reach to `to`: what a mapping wrote into its last page behind its end is zeros, as on the host. filling: fill_lock is held, so a
 * clean page is asked for again.
 */
void virtiofs_data_extended(struct virtiofs_inode *in, uint64_t to, bool filling);
/* Data of another version than `attr` says goes. */
void virtiofs_data_revalidate(struct virtiofs_inode *in);
/* fill_lock. begin_killable: -EINTR. end: let go once requests of killed callers are through. */
void virtiofs_fill_begin(struct virtiofs_inode *in);
must_check int virtiofs_fill_begin_killable(struct virtiofs_inode *in);
void virtiofs_fill_end(struct virtiofs_inode *in);
/* As much, for a request that its killed caller left. Takes no other locks, never sleeps. */
void virtiofs_fill_left(struct virtiofs_inode *in);
ssize_t virtiofs_data_read(struct virtiofs_inode *in, struct virtiofs_handle *h,
			   struct virtiofs_readahead *ra, struct io_iter *it, uint64_t off);
/* Into the cache, dirty. Pre: write_lock. */
ssize_t virtiofs_data_write_back(struct virtiofs_inode *in, struct virtiofs_handle *h,
				 struct io_iter *it, uint64_t off);
/* Straight to the server; what is cached of the range is brought up to date. Pre: write_lock. */
ssize_t virtiofs_data_write_through(struct virtiofs_inode *in, struct virtiofs_handle *h,
				    struct io_iter *it, uint64_t off);
ssize_t virtiofs_data_read_direct(struct virtiofs_inode *in, struct virtiofs_handle *h,
				  struct io_iter *it, uint64_t off);
void virtiofs_data_free(struct virtiofs_inode *in);

#endif
