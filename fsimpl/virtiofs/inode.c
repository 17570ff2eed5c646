/* fsimpl/virtiofs/inode.c - one node of the server's: attributes, how long they hold, its life. */
#include <stdlib.h>
#include <string.h>
#include <linux/stat.h>
#include <sys/sysmacros.h>

#include "base/hash.h"
#include "base/sleep.h"
#include "fsimpl/virtiofs/internal.h"

static REF_TYPE(inode_type, "virtiofs_inode");

/* No file is longer than an off_t says, whatever the server says. */
static bool size_ok(const struct fuse_attr *attr)
{
	return attr->size <= INT64_MAX;
}

int64_t virtiofs_valid_until(const struct virtiofs_fs *fs, uint64_t sec, uint32_t nsec)
{
	int64_t span;

	if (fs->versions)
		return INT64_MAX; /* as long as its version does */
	switch (fs->options.cache) {
	case VIRTIOFS_CACHE_ALWAYS:
		return INT64_MAX;
	case VIRTIOFS_CACHE_NONE:
		return 0;
	default:
		break;
	}
	span = fs->options.timeout_ns;
	if (span < 0)
		span = sec > 86400ull * 365 || nsec >= 1000000000u
			       ? 86400ll * 365 * 1000000000
			       : (int64_t)(sec * 1000000000ull + nsec);
	return span ? time_monotonic_ns() + span : 0;
}

static struct virtiofs_inode *inode_create(struct virtiofs_fs *fs, const struct fuse_entry_out *e,
					   int64_t asked)
{
	struct virtiofs_inode *in = calloc(1, sizeof(*in));

	if (!in)
		return NULL;
	ref_init(&in->base.ref, &inode_type);
	in->base.type = e->attr.mode & S_IFMT;
	/* Whether INIT's answer had FUSE_SUBMOUNTS says nothing: the stock daemon's never does. */
	if ((e->attr.flags & FUSE_ATTR_SUBMOUNT) && in->base.type == S_IFDIR)
		in->base.dentry_flags = DENTRY_AUTOMOUNT;
	in->fs = fs;
	in->nodeid = e->nodeid;
	in->generation = e->generation;
	in->key = atomic_fetch_add(&fs->next_key, 1);
	in->rdev = e->attr.rdev;
	mutex_init(&in->lock, LOCK_FS_INODE, "virtiofs_inode");
	LIST_INIT(&in->handles);
	op_lock_init(&in->write_lock);
	op_lock_init(&in->fill_lock);
	virtiofs_owner_init(&in->filler, in, NULL, true);
	in->dax.on = in->base.type == S_IFREG &&
		     (fs->options.dax == VIRTIOFS_DAX_ALWAYS ||
		      (fs->options.dax == VIRTIOFS_DAX_INODE && (e->attr.flags & FUSE_ATTR_DAX)));
	mappable_init(&in->map, in->dax.on ? &virtiofs_dax_mappable_ops : &virtiofs_mappable_ops);
	in->attr = e->attr;
	atomic_init(&in->size, e->attr.size);
	in->attr_seen = e->attr_valid;
	in->attr_valid_until = virtiofs_valid_until(fs, e->attr_valid, e->attr_valid_nsec);
	in->perm_valid_until = in->attr_valid_until;
	in->attr_asked = asked;
	return in;
}

/* Node 1, or a submount's, of which nothing is known yet but that it is a directory. It counts no lookups: the inode above does. */
int virtiofs_inode_create_root(struct virtiofs_fs *fs, struct virtiofs_inode **ret)
{
	struct fuse_entry_out e = {
		.nodeid = FUSE_ROOT,
		.generation = fs->versions ? fs->versions->root_key : 0,
		.attr.mode = S_IFDIR | 0755,
	};

	if (fs->over) {
		e.nodeid = virtiofs_inode_of(fs->over)->nodeid;
		e.generation = virtiofs_inode_of(fs->over)->generation;
	}
	*ret = inode_create(fs, &e, 0);
	if (!*ret)
		return -ENOMEM;
	(*ret)->attr_valid_until = (*ret)->perm_valid_until = 0;
	return 0;
}

/* The table's inode for the entry, if it still stands for the same file; counts the lookup. Pre: inode_lock. */
static struct virtiofs_inode *table_get(struct virtiofs_fs *fs, const struct fuse_entry_out *e)
{
	struct virtiofs_inode *in;

	LIST_FOREACH (in, &fs->inodes[hash_u64(e->nodeid) % VIRTIOFS_INODE_BUCKETS], hash_link) {
		if (in->nodeid != e->nodeid || in->generation != e->generation ||
		    in->base.type != (e->attr.mode & S_IFMT) || !ref_tryget(&in->base.ref))
			continue;
		atomic_fetch_add_explicit(&in->nlookup, 1, memory_order_relaxed);
		return in;
	}
	return NULL;
}

int virtiofs_inode_get(struct virtiofs_fs *fs, const struct fuse_entry_out *e,
		       struct virtiofs_when when, struct virtiofs_inode **ret)
{
	struct virtiofs_inode *in, *fresh;

	if (!fuse_entry_ok(e))
		return -EIO;
	if (!size_ok(&e->attr)) {
		virtiofs_forget(fs, e->nodeid, 1);
		return -EIO;
	}
	mutex_lock(&fs->inode_lock);
	in = table_get(fs, e);
	mutex_unlock(&fs->inode_lock);
	if (!in) {
		fresh = inode_create(fs, e, when.time);
		if (!fresh) {
			virtiofs_forget(fs, e->nodeid, 1);
			return -ENOMEM;
		}
		mutex_lock(&fs->inode_lock);
		in = table_get(fs, e);
		if (!in) {
			fresh->nlookup = 1;
			LIST_INSERT_HEAD(&fs->inodes[hash_u64(e->nodeid) % VIRTIOFS_INODE_BUCKETS],
					 fresh, hash_link);
			fresh->hashed = true;
			in = fresh;
			fresh = NULL;
		}
		mutex_unlock(&fs->inode_lock);
		if (!fresh) {
			*ret = in;
			return 0;
		}
		virtiofs_inode_unref(fresh);
	}
	virtiofs_inode_update(in, &e->attr, e->attr_valid, e->attr_valid_nsec, when);
	*ret = in;
	return 0;
}

void virtiofs_inode_rehash(struct virtiofs_inode *in, uint64_t node, uint64_t generation)
{
	struct virtiofs_fs *fs = in->fs;

	if (in->hashed)
		LIST_REMOVE(in, hash_link);
	/* Last, for who sees it sees the handles of the same daemon. */
	in->generation = generation;
	atomic_store(&in->nlookup, 1);
	atomic_store(&in->nodeid, node);
	LIST_INSERT_HEAD(&fs->inodes[hash_u64(node) % VIRTIOFS_INODE_BUCKETS], in, hash_link);
	in->hashed = true;
}

uint64_t virtiofs_inode_ino(struct virtiofs_inode *in)
{
	uint64_t ino;

	mutex_lock(&in->lock);
	ino = in->attr.ino;
	mutex_unlock(&in->lock);
	return ino;
}

static void inode_free_rcu(struct rcu_cb *cb)
{
	struct virtiofs_inode *in = container_of(cb, struct virtiofs_inode, rcu);

	free(in->target);
	free(in);
}

/* What it takes on the host, at most or nearly: blocks are as of the last look. */
static uint64_t file_bytes(const struct fuse_attr *a)
{
	return MAX(MIN(a->blocks, (uint64_t)VIRTIOFS_FORGET_BYTES) * 512, a->size);
}

void virtiofs_inode_unref(struct virtiofs_inode *in)
{
	struct virtiofs_fs *fs = in->fs;

	if (!ref_put(&in->base.ref))
		return;
	mutex_lock(&fs->inode_lock);
	if (in->hashed)
		LIST_REMOVE(in, hash_link);
	mutex_unlock(&fs->inode_lock);
	virtiofs_listing_forget(in);
	virtiofs_lock_owners_free(in);
	virtiofs_data_free(in);
	virtiofs_acl_free(in);
	mappable_fini(&in->map);
	virtiofs_forget_file(fs, in->nodeid, atomic_load(&in->nlookup),
			     in->base.type == S_IFREG ? file_bytes(&in->attr) : 0);
	if (in->endpoint && ref_put(&in->endpoint->ref))
		in->endpoint->release(in->endpoint);
	ref_fini(&in->base.ref, &inode_type);
	rcu_call(&in->rcu, inode_free_rcu);
}

void virtiofs_inode_unref_base(struct remote_inode *base)
{
	virtiofs_inode_unref(container_of(base, struct virtiofs_inode, base));
}

void virtiofs_inode_perm_base(struct remote_inode *base, struct perm_inode *ret)
{
	virtiofs_inode_perm_acl(container_of(base, struct virtiofs_inode, base), ret);
}

/* ---- requests that killed callers left ---- */

static void owner_leave(struct vdev_owner *base)
{
	struct virtiofs_owner *o = container_of(base, struct virtiofs_owner, base);

	/* The reply may come after the last unmount: what it gives back needs the filesystem. */
	filesystem_ref(&o->in->fs->fs);
	ref_get(o->h ? &o->h->ref : &o->in->base.ref);
	if (o->fills)
		atomic_fetch_add(&o->in->fill_holders, 1);
}

static void owner_work(struct deferred_work *w)
{
	struct virtiofs_owner *o = container_of(w, struct virtiofs_owner, work);
	uint32_t drops = atomic_exchange(&o->drops, 0);
	struct virtiofs_inode *in = o->in;
	struct virtiofs_handle *h = o->h;
	struct virtiofs_fs *fs = in->fs;

	/* The last one frees the owner too. */
	while (drops--) {
		if (h)
			virtiofs_handle_unref(h);
		else
			virtiofs_inode_unref(in);
		filesystem_unref(&fs->fs);
	}
}

static void owner_left(struct vdev_owner *base, int err)
{
	struct virtiofs_owner *o = container_of(base, struct virtiofs_owner, base);

	(void)err;
	if (o->fills)
		virtiofs_fill_left(o->in);
	if (atomic_fetch_add(&o->drops, 1) == 0)
		vfs_defer(&o->work);
}

void virtiofs_owner_init(struct virtiofs_owner *o, struct virtiofs_inode *in,
			 struct virtiofs_handle *h, bool fills)
{
	o->base = (struct vdev_owner){owner_leave, owner_left};
	o->in = in;
	o->h = h;
	o->fills = fills;
	o->work.run = owner_work;
}

/* ---- attributes ---- */

struct virtiofs_when virtiofs_now(struct virtiofs_fs *fs)
{
	return (struct virtiofs_when){atomic_load(&fs->clock), time_monotonic_ns()};
}

/* Pre: in->lock. */
static void changed_locked(struct virtiofs_inode *in)
{
	in->attr_version = atomic_fetch_add(&in->fs->clock, 1) + 1;
}

void virtiofs_inode_update(struct virtiofs_inode *in, const struct fuse_attr *attr, uint64_t valid,
			   uint32_t valid_nsec, struct virtiofs_when when)
{
	int64_t until = virtiofs_valid_until(in->fs, valid, valid_nsec);
	bool ours;

	if ((attr->mode & S_IFMT) != in->base.type || !size_ok(attr))
		return;
	mutex_lock(&in->lock);
	/* With data that the server does not know yet, size and times are ours. */
	ours = atomic_load(&in->writing) || atomic_load(&in->dirty_pages);
	if (when.version >= in->attr_version) {
		struct fuse_attr old = in->attr;

		in->attr = *attr;
		in->attr_seen = valid;
		in->attr_valid_until = in->perm_valid_until = until;
		in->attr_asked = when.time;
		if (ours)
			in->attr.size = MAX(old.size, attr->size);
		/* That of a write by memory is ours until it was pushed. */
		if (ours || (atomic_load(&in->dax.times) && when.version != UINT64_MAX)) {
			in->attr.mtime = old.mtime;
			in->attr.mtimensec = old.mtimensec;
		}
		atomic_store(&in->size, in->attr.size);
	}
	mutex_unlock(&in->lock);
}

void virtiofs_inode_stale(struct virtiofs_inode *in)
{
	mutex_lock(&in->lock);
	changed_locked(in);
	in->attr_valid_until = in->perm_valid_until = 0;
	in->attr_asked = 0;
	mutex_unlock(&in->lock);
}

void virtiofs_inode_touched(struct virtiofs_inode *in)
{
	mutex_lock(&in->lock);
	changed_locked(in);
	in->attr_valid_until = 0;
	in->attr_asked = 0;
	/* Writing takes these away, on the server too. */
	if (in->base.type == S_IFREG && (in->attr.mode & (S_ISUID | S_ISGID)))
		in->perm_valid_until = 0;
	mutex_unlock(&in->lock);
}

bool virtiofs_inode_asked(struct virtiofs_inode *in, int64_t since)
{
	bool asked;

	mutex_lock(&in->lock);
	asked = in->attr_asked && in->attr_asked >= since;
	mutex_unlock(&in->lock);
	return asked;
}

/* Pre: in->lock. */
static bool version_holds(struct virtiofs_inode *in)
{
	struct virtiofs_versions *v = in->fs->versions;

	return !v || virtiofs_version_holds(v, in->generation, in->attr_seen);
}

static int refresh(struct virtiofs_inode *in, int64_t since, bool perm_only)
{
	struct virtiofs_when when;
	struct fuse_attr_out out;
	int64_t until;
	bool valid;
	int err;

	/* Most often the walk has just asked: told without reading the clock. */
	if (since && since != VIRTIOFS_ASK && virtiofs_inode_asked(in, since))
		return 0;
	when = virtiofs_now(in->fs);
	mutex_lock(&in->lock);
	until = perm_only ? in->perm_valid_until : in->attr_valid_until;
	valid = since != VIRTIOFS_ASK && until > when.time && version_holds(in);
	mutex_unlock(&in->lock);
	if (valid)
		return 0;
	err = virtiofs_getattr_rpc(in, &out);
	if (err)
		return err;
	if ((out.attr.mode & S_IFMT) != in->base.type || !size_ok(&out.attr))
		return -EIO;
	virtiofs_inode_update(in, &out.attr, out.attr_valid, out.attr_valid_nsec, when);
	return 0;
}

int virtiofs_inode_refresh(struct virtiofs_inode *in, int64_t since)
{
	/* So that the answer has them. */
	if (unlikely(atomic_load_explicit(&in->dax.times, memory_order_relaxed)))
		virtiofs_dax_push_times(in);
	return refresh(in, since, false);
}

int virtiofs_inode_refresh_perm(struct virtiofs_inode *in, int64_t since)
{
	return refresh(in, since, true);
}

void virtiofs_inode_perm(struct virtiofs_inode *in, struct perm_inode *ret)
{
	mutex_lock(&in->lock);
	ret->flags = 0;
	ret->mode = in->attr.mode;
	ret->uid = in->attr.uid;
	ret->gid = in->attr.gid;
	mutex_unlock(&in->lock);
	ret->acl = NULL;
}

/* Locks in if its attributes are to be believed. until: when they expire, as `in` has it. */
static bool peek(struct virtiofs_inode *in, const int64_t *until, struct virtiofs_clock *c)
{
	if (unlikely(!mutex_trylock(&in->lock)))
		return false;
	if (likely(virtiofs_time_holds(*until, c) && version_holds(in)))
		return true;
	mutex_unlock(&in->lock);
	return false;
}

bool virtiofs_peek_perm(struct virtiofs_inode *in, struct virtiofs_clock *c, struct perm_inode *ret)
{
	/* What an ACL says may have to be asked for. */
	if (virtiofs_has_acls(in->fs) || !peek(in, &in->perm_valid_until, c))
		return false;
	*ret = (struct perm_inode){.mode = in->attr.mode, .uid = in->attr.uid, .gid = in->attr.gid};
	mutex_unlock(&in->lock);
	return true;
}

uint64_t virtiofs_inode_size(struct virtiofs_inode *in)
{
	return atomic_load(&in->size);
}

void virtiofs_inode_cut(struct virtiofs_inode *in, uint64_t size)
{
	mutex_lock(&in->lock);
	in->attr.size = size;
	atomic_store(&in->size, size);
	changed_locked(in);
	mutex_unlock(&in->lock);
}

void virtiofs_inode_grown(struct virtiofs_inode *in, uint64_t size)
{
	int64_t now = time_realtime_ns();

	mutex_lock(&in->lock);
	if (size > in->attr.size) {
		in->attr.size = size;
		atomic_store(&in->size, size);
	}
	in->attr.mtime = in->attr.ctime = (uint64_t)(now / 1000000000);
	in->attr.mtimensec = in->attr.ctimensec = (uint32_t)(now % 1000000000);
	changed_locked(in);
	mutex_unlock(&in->lock);
}

static struct moat_timestamp stamp(uint64_t sec, uint32_t nsec)
{
	return (struct moat_timestamp){.sec = (int64_t)sec, .nsec = nsec < 1000000000u ? nsec : 0};
}

static void fill_stat(const struct virtiofs_inode *in, const struct fuse_attr *a, uint64_t blocks,
		      struct moat_statx *ret)
{
	*ret = (struct moat_statx){
		.mask = STATX_BASIC_STATS,
		.blksize = a->blksize ? a->blksize : 4096,
		.nlink = a->nlink,
		.uid = a->uid,
		.gid = a->gid,
		.mode = (uint16_t)a->mode,
		.ino = a->ino,
		.size = a->size,
		.blocks = blocks,
		.atime = stamp(a->atime, a->atimensec),
		.ctime = stamp(a->ctime, a->ctimensec),
		.mtime = stamp(a->mtime, a->mtimensec),
		.rdev_major = (in->rdev >> 8) & 0xfff,
		.rdev_minor = (in->rdev & 0xff) | ((in->rdev >> 12) & 0xfff00),
		.dev_minor = in->fs->fs.dev_minor,
	};
}

bool virtiofs_peek_stat(struct virtiofs_inode *in, struct virtiofs_clock *c, struct moat_statx *ret)
{
	/* What only the slow way knows to tell: times that are to be sent first, pages that wait. */
	if (unlikely(atomic_load_explicit(&in->dax.times, memory_order_relaxed) ||
		     atomic_load_explicit(&in->dirty_pages, memory_order_relaxed)) ||
	    !peek(in, &in->attr_valid_until, c))
		return false;
	fill_stat(in, &in->attr, in->attr.blocks, ret);
	mutex_unlock(&in->lock);
	return true;
}

void virtiofs_inode_stat(struct virtiofs_inode *in, struct moat_statx *ret)
{
	uint32_t dirty = atomic_load(&in->dirty_pages);
	struct fuse_attr a;
	uint64_t blocks;

	mutex_lock(&in->lock);
	a = in->attr;
	mutex_unlock(&in->lock);
	blocks = a.blocks;
	/* Data that the server does not know yet will take room: as much as the file is long, at most. */
	if (dirty)
		blocks = MAX(blocks, MIN(blocks + dirty * (MOAT_PAGE_SIZE / 512),
					 round_up_u64(a.size, MOAT_PAGE_SIZE) / 512));
	fill_stat(in, &a, blocks, ret);
}
