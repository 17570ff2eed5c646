/*
 * fsimpl/remote/dcache.h - the dentry cache of a filesystem whose names are a server's to know.
 *
 * A hash table keyed by (parent dentry, name), read under RCU without a lock, changed under its lock. The cache holds one reference on every
 * dentry in it, and a dentry one on its parent, so cached directories stay while anything below them does. A clock hand goes round the
 * unused ones when there are more than `max`. A dentry leaves the table by eviction only when the cache's reference is the last: nobody
 * can have two dentries for one place. A negative dentry (no inode) is the cache's alone.
 *
 * A dentry's place (its key) changes only under the filesystem's own tree lock held for writing; whoever holds that for reading sees a
 * still tree. How long an entry may be believed is the filesystem's to say (`valid_until`).
 *
 *	the filesystem's tree lock (LOCK_FS_OP) -> dcache lock (LOCK_FS_DIR)
 */
#ifndef MOAT_FSIMPL_REMOTE_DCACHE_H
#define MOAT_FSIMPL_REMOTE_DCACHE_H

#include <sys/queue.h>

#include "base/rcu.h"
#include "vfs/vfs.h"

#define REMOTE_DENTRY_BUCKETS 16384

struct perm_inode;

/* What the filesystem's inodes begin with. */
struct remote_inode {
	struct ref ref;
	uint32_t type; /* immutable: S_IFMT bits */
	uint32_t
		dentry_flags; /* immutable: what its dentries have from the beginning: DENTRY_AUTOMOUNT */
};

/* Where a dentry is. Replaced as a whole, freed by RCU, so readers see a consistent pair. */
struct remote_key {
	struct remote_dentry *parent; /* a reference; NULL: the root */
	uint64_t hash;
	uint16_t len;
	struct rcu_cb rcu;
	char name[]; /* terminated */
};

struct remote_dentry {
	struct dentry d; /* the cache holds one reference while hashed */
	struct remote_inode *inode; /* immutable; a reference; NULL: negative */
	struct remote_key *_Atomic key; /* RCU; changed under the tree lock (write) */
	struct remote_dentry *_Atomic hash_next; /* RCU; changed under the cache's lock */
	TAILQ_ENTRY(remote_dentry) clock; /* guarded by the cache's lock */
	bool hashed; /* guarded by the cache's lock */
	_Atomic bool recent; /* used since the clock's hand came by */
	_Atomic int64_t valid_until; /* host CLOCK_MONOTONIC, ns */
	struct rcu_cb rcu;
};

struct remote_dcache {
	struct filesystem *fs; /* immutable; embeds this */
	void (*inode_unref)(struct remote_inode *in); /* immutable */
	bool (*inode_gone)(struct remote_inode *in); /* immutable: it has no name left */
	void (*inode_perm)(
		struct remote_inode *in,
		struct perm_inode *ret); /* immutable; for remote/ops.h; in a read section */
	struct mutex lock; /* LOCK_FS_DIR */
	struct remote_dentry *_Atomic buckets[REMOTE_DENTRY_BUCKETS];
	TAILQ_HEAD(, remote_dentry) clock; /* guarded by lock */
	_Atomic unsigned count; /* changed under lock */
	unsigned max; /* immutable: cached and unused */
};

static inline struct remote_dentry *remote_dentry_of(struct dentry *d)
{
	return container_of(d, struct remote_dentry, d);
}

static inline struct remote_dentry *remote_parent(const struct remote_dentry *d)
{
	return rcu_load(d->key)->parent;
}

static inline bool remote_is_dir(const struct remote_dentry *d)
{
	return d->inode->type == S_IFDIR;
}

static inline bool remote_is_dead(const struct remote_dentry *d)
{
	return atomic_load_explicit(&d->d.flags, memory_order_acquire) & DENTRY_DEAD;
}

/* The server has something else under its name. What a walk has mounted there goes. */
static inline void remote_dentry_lost(struct remote_dentry *d)
{
	if (d->inode->dentry_flags & DENTRY_AUTOMOUNT)
		vfs_dentry_delete_end(&d->d);
	else
		atomic_fetch_or(&d->d.flags, DENTRY_DEAD);
}

void remote_dcache_init(struct remote_dcache *c, struct filesystem *fs,
			void (*inode_unref)(struct remote_inode *in),
			bool (*inode_gone)(struct remote_inode *in), unsigned max);
struct remote_dentry *remote_dentry_ref(struct remote_dentry *d);
void remote_dentry_unref(struct remote_dentry *d); /* NULL is ignored */
/* filesystem_ops.inode_hold. */
void *remote_inode_hold(struct dentry *d);
/* filesystem_ops.dentry_release; cache_of tells the cache from the filesystem. */
void remote_dentry_release(struct remote_dcache *c, struct remote_dentry *d);
/* A dentry outside the table (a root: dir NULL; O_TMPFILE). Takes the inode's reference, also on failure. NULL: no memory. */
struct remote_dentry *remote_dentry_create(struct remote_dcache *c, struct remote_dentry *dir,
					   const char *name, size_t len, struct remote_inode *in);
/* What the table has under the name, positive or negative, with a reference; NULL. */
struct remote_dentry *remote_find(struct remote_dcache *c, struct remote_dentry *dir,
				  const char *name, size_t len);
/* The same within an RCU read section, without a reference. */
struct remote_dentry *remote_find_rcu(struct remote_dcache *c, struct remote_dentry *dir,
				      const char *name, size_t len);
/*
 * Enters that `name` in dir is `in` (NULL: does not exist). What the table had there goes, dead, unless it is the same inode already, which
 * is then kept. Takes the inode's reference, also on failure. Return: 0 and a reference, -ENOMEM. Pre: the tree lock.
 */
must_check int remote_enter(struct remote_dcache *c, struct remote_dentry *dir, const char *name,
			    size_t len, struct remote_inode *in, int64_t valid_until,
			    struct remote_dentry **ret);
/* Takes d out of the table: nothing is known of its name any more. Paths through it change. */
void remote_forget(struct remote_dcache *c, struct remote_dentry *d);
/*
 * The directory `dir` was removed, so it was empty. Where inotify waits for its end, all that the cache has below it goes, which would hold it:
 * names that are known not to be there, and dead, what others have removed. Pre: no locks.
 */
void remote_watched_gone(struct remote_dcache *c, struct remote_dentry *dir);
/* As remote_forget(), by name and only what is negative. */
void remote_forget_negative(struct remote_dcache *c, struct remote_dentry *dir, const char *name,
			    size_t len);
/* d is now `name` in dir; what was there goes. On -ENOMEM d is only forgotten. Pre: the tree lock for writing. */
void remote_move(struct remote_dcache *c, struct remote_dentry *d, struct remote_dentry *dir,
		 const char *name, size_t len);
/* The two have changed places. */
void remote_exchange(struct remote_dcache *c, struct remote_dentry *a, struct remote_dentry *b);
/* Drops every dentry that nothing uses. */
void remote_shrink(struct remote_dcache *c);
/* filesystem_ops.get_parent. */
int remote_get_parent(struct dentry *base, struct dentry **ret_parent, char *name, size_t size);

#endif
