/*
 * vfs/fs.c - filesystem types, filesystems and dentries: their lives, and the defaults of absent operations.
 *
 * A filesystem lives as long as a mount (or an open internal user) refers to it; its dentries borrow it. Types are
 * registered at boot and never removed, so the list is read without a lock.
 */
#include <stdlib.h>
#include <string.h>

#include "base/lock.h"
#include "vfs/resolving_path.h"
#include "vfs/handle.h"
#include "vfs/ref_cache.h"
#include "vfs/vfs.h"
#include "vfs/vfs_internal.h"

#define VFS_PARENT_WALK_MAX (1u << 20)

static REF_TYPE(dentry_type, "dentry");
static REF_TYPE(filesystem_type_ref, "filesystem");

struct vfs_hooks vfs_hooks;

static struct mutex types_lock = MUTEX_INIT(LOCK_LEAF, "filesystem types");
static struct filesystem_type *_Atomic types_head; /* push-only */

/* Minor numbers of anonymous devices (major 0), given out lowest first. Guarded by types_lock. */
#define VFS_ANON_DEVS_MAX 65536u
static uint64_t anon_devs[VFS_ANON_DEVS_MAX / 64];

void dentry_init(struct dentry *d, struct filesystem *fs)
{
	ref_init(&d->ref, &dentry_type);
	atomic_init(&d->flags, 0);
	d->fs = fs;
}

void dentry_set_rw_hint(struct dentry *d, unsigned hint)
{
	uint32_t old = atomic_load_explicit(&d->flags, memory_order_relaxed), now;

	do
		now = (old & ((1u << DENTRY_RW_HINT_SHIFT) - 1)) | hint << DENTRY_RW_HINT_SHIFT;
	while (!atomic_compare_exchange_weak(&d->flags, &old, now));
}

static struct ref_cache dentry_refs;
static _Atomic bool dentry_refs_used; /* some dentry is DENTRY_CONTENDED, or was */

static void dentry_put_many(struct dentry *d, uint32_t n)
{
	if (n && ref_put_many(&d->ref, (int32_t)n))
		d->fs->ops->dentry_release(d);
}

static bool dentry_is_of(const void *d, const void *fs)
{
	return ((const struct dentry *)d)->fs == fs;
}

static void dentry_drop_kept(struct ref_cache_kept kept)
{
	struct dentry *d = kept.object;

	if (ref_put_many(&d->ref, (int32_t)kept.n))
		ref_bug(&d->ref, "a dentry of a tree dropped");
}

static uint32_t dentry_flags(const struct dentry *d, memory_order order)
{
	return atomic_load_explicit(&d->flags, order);
}

/* Two threads met at d's count. */
static noinline_fn void dentry_contended(struct dentry *d)
{
	if (!(d->fs->type->flags & FS_KEEP_REFS) ||
	    (dentry_flags(d, memory_order_relaxed) & (DENTRY_CONTENDED | DENTRY_DEAD)))
		return;
	atomic_store_explicit(&dentry_refs_used, true, memory_order_relaxed);
	atomic_fetch_or_explicit(&d->flags, DENTRY_CONTENDED, memory_order_seq_cst);
}

bool dentry_tryref(struct dentry *d)
{
	int32_t n;

	if (unlikely(dentry_flags(d, memory_order_relaxed) & DENTRY_CONTENDED) &&
	    ref_cache_take(&dentry_refs, d))
		return true;
	n = ref_read(&d->ref);
	if (n > 0 && likely(atomic_compare_exchange_strong_explicit(
			     &d->ref.count, &n, n + 1, memory_order_acquire, memory_order_relaxed)))
		return true;
	if (!ref_tryget(&d->ref))
		return false;
	dentry_contended(d);
	return true;
}

void dentry_ref_kept(struct dentry *d)
{
	if (likely(!(dentry_flags(d, memory_order_relaxed) & DENTRY_CONTENDED)) ||
	    !ref_cache_take(&dentry_refs, d))
		dentry_ref(d);
}

/* True: the reference is kept, or gone. */
static noinline_fn bool dentry_keep(struct dentry *d)
{
	uint32_t n = 0;
	bool kept;

	/* A filesystem that ends takes its tree apart. */
	if (!ref_read(&d->fs->ref))
		return false;
	rcu_read_begin();
	kept = ref_cache_give(&dentry_refs, d);
	if (kept && unlikely(dentry_flags(d, memory_order_seq_cst) & DENTRY_DEAD))
		n = ref_cache_withdraw(&dentry_refs, d);
	rcu_read_end();
	dentry_put_many(d, n);
	return kept;
}

void dentry_disown(struct dentry *d)
{
	uint32_t n = ref_cache_withdraw(&dentry_refs, d);

	if (n && ref_put_many(&d->ref, (int32_t)n))
		ref_bug(&d->ref, "a dentry of a tree dropped");
}

void dentry_unref(struct dentry *d)
{
	if (!d)
		return;
	if (unlikely((dentry_flags(d, memory_order_relaxed) & (DENTRY_CONTENDED | DENTRY_DEAD)) ==
		     DENTRY_CONTENDED) &&
	    dentry_keep(d))
		return;
	if (ref_put(&d->ref))
		d->fs->ops->dentry_release(d);
}

void dentry_release_begin(struct dentry *d)
{
	/* The flag first: who records a path reads the cell before it looks at the flag. */
	atomic_fetch_or_explicit(&d->flags, DENTRY_RELEASED, memory_order_seq_cst);
	dentry_paths_gone(d);
}

void dentry_fini(struct dentry *d)
{
	if (unlikely(atomic_load_explicit(&d->flags, memory_order_acquire) & DENTRY_HANDLE))
		vfs_handle_forget(d);
	/* Before it can be freed: cached paths hold no references. */
	dentry_path_changed(d);
	ref_fini(&d->ref, &dentry_type);
}

/* ---- defaults ---- */

static int get_dentry_at_default(struct filesystem *fs unused_arg, struct resolving_path *rp,
				 struct dentry **ret_dentry)
{
	if (!rp_done(rp))
		return -ENOTDIR;
	if (!rp_locked(rp)) {
		int err = rp_unlazy(rp, rp_start(rp));

		if (err)
			return err;
	}
	dentry_ref(rp_start(rp));
	*ret_dentry = rp_start(rp);
	return 0;
}

/* A filesystem with no tree below its root: any name in it is missing. */
static int walk_default(struct resolving_path *rp)
{
	return rp_done(rp) ? 0 : -ENOTDIR;
}

static int open_at_default(struct filesystem *fs unused_arg, struct resolving_path *rp,
			   const struct open_args *args unused_arg, struct file **ret unused_arg)
{
	int err = walk_default(rp);

	return err ? err : -ENXIO;
}

static int stat_at_default(struct filesystem *fs unused_arg, struct resolving_path *rp,
			   const struct stat_args *args unused_arg,
			   struct moat_statx *ret unused_arg)
{
	int err = walk_default(rp);

	return err ? err : -EOPNOTSUPP;
}

static int set_stat_at_default(struct filesystem *fs unused_arg, struct resolving_path *rp,
			       const struct setattr_args *args unused_arg)
{
	int err = walk_default(rp);

	return err ? err : -EPERM;
}

static int access_at_default(struct filesystem *fs unused_arg, struct resolving_path *rp,
			     int mask unused_arg)
{
	return walk_default(rp);
}

/* Finds out, by the filesystem's own walk, which error a creation or removal meets before "not supported". */
static int parent_op_default(struct filesystem *fs, struct resolving_path *rp, bool create,
			     bool is_dir)
{
	struct dentry *d;
	int err;

	err = create ? rp_check_create_name(rp, is_dir) : rp_check_remove_name(rp, is_dir);
	if (err && rp_done(rp))
		return err;
	err = fs->ops->get_dentry_at(fs, rp, &d);
	if (err > 0)
		return err;
	if (!err) {
		dentry_unref(d);
		return create ? -EEXIST : -EPERM;
	}
	return err == -ENOENT && create ? -EPERM : err;
}

static int mkdir_at_default(struct filesystem *fs, struct resolving_path *rp,
			    const struct mkdir_args *args unused_arg)
{
	return parent_op_default(fs, rp, true, true);
}

static int mknod_at_default(struct filesystem *fs, struct resolving_path *rp,
			    const struct mknod_args *args unused_arg)
{
	return parent_op_default(fs, rp, true, false);
}

static int link_at_default(struct filesystem *fs, struct resolving_path *rp,
			   struct dentry *old unused_arg)
{
	return parent_op_default(fs, rp, true, false);
}

static int symlink_at_default(struct filesystem *fs, struct resolving_path *rp,
			      const char *target unused_arg)
{
	return parent_op_default(fs, rp, true, false);
}

static int readlink_at_default(struct filesystem *fs unused_arg, struct resolving_path *rp,
			       char *buf unused_arg, size_t size unused_arg,
			       size_t *ret_len unused_arg)
{
	int err = walk_default(rp);

	return err ? err : -EINVAL;
}

static int rename_at_default(struct filesystem *fs, struct resolving_path *rp,
			     struct dentry *old_parent unused_arg, const char *old_name unused_arg,
			     bool old_must_be_dir unused_arg,
			     const struct rename_args *args unused_arg)
{
	int err = parent_op_default(fs, rp, true, false);

	return err == -EEXIST ? -EPERM : err;
}

static int unlink_at_default(struct filesystem *fs, struct resolving_path *rp)
{
	return parent_op_default(fs, rp, false, false);
}

static int rmdir_at_default(struct filesystem *fs, struct resolving_path *rp)
{
	return parent_op_default(fs, rp, false, true);
}

static int statfs_default(struct filesystem *fs, struct dentry *d unused_arg, struct statfs *ret)
{
	*ret = (struct statfs){.f_type = (long)fs->magic,
			       .f_bsize = MOAT_PAGE_SIZE,
			       .f_frsize = MOAT_PAGE_SIZE,
			       .f_namelen = VFS_NAME_MAX};
	return 0;
}

static ssize_t get_xattr_at_default(struct filesystem *fs, struct resolving_path *rp,
				    const struct xattr_args *args unused_arg)
{
	struct dentry *d;
	int err = fs->ops->get_dentry_at(fs, rp, &d);

	if (err)
		return err;
	dentry_unref(d);
	return -EOPNOTSUPP;
}

static int set_xattr_at_default(struct filesystem *fs, struct resolving_path *rp,
				const struct xattr_args *args unused_arg)
{
	return (int)get_xattr_at_default(fs, rp, NULL);
}

static ssize_t list_xattr_at_default(struct filesystem *fs, struct resolving_path *rp,
				     char *buf unused_arg, size_t size unused_arg)
{
	ssize_t ret = get_xattr_at_default(fs, rp, NULL);

	return ret == -EOPNOTSUPP ? 0 : ret;
}

static int remove_xattr_at_default(struct filesystem *fs, struct resolving_path *rp,
				   const char *name unused_arg)
{
	return (int)get_xattr_at_default(fs, rp, NULL);
}

static int get_endpoint_at_default(struct filesystem *fs, struct resolving_path *rp,
				   struct vfs_endpoint **ret unused_arg)
{
	ssize_t err = get_xattr_at_default(fs, rp, NULL);

	return err == -EOPNOTSUPP ? -ECONNREFUSED : (int)err;
}

static int get_parent_default(struct dentry *d unused_arg, struct dentry **ret_parent, char *name,
			      size_t size)
{
	*ret_parent = NULL;
	if (size)
		name[0] = '\0';
	return 0;
}

static bool is_descendant_default(struct dentry *d, struct dentry *ancestor)
{
	struct dentry *at = d;
	bool found;

	dentry_ref(at);
	for (unsigned depth = 0; at && at != ancestor && depth < VFS_PARENT_WALK_MAX; depth++) {
		char name[VFS_NAME_MAX + 1];
		struct dentry *parent = NULL;
		int err = at->fs->ops->get_parent(at, &parent, name, sizeof(name));

		dentry_unref(at);
		/* -ENOENT: it was removed, from there. */
		if (err && err != -ENOENT && parent) {
			dentry_unref(parent);
			parent = NULL;
		}
		at = parent;
	}
	found = at == ancestor;
	dentry_unref(at);
	return found;
}

static uint32_t dentry_type_default(struct dentry *d unused_arg)
{
	return S_IFREG;
}

static uint64_t inode_key_default(struct dentry *d)
{
	return (uint64_t)(uintptr_t)d;
}

static int watch_begin_default(struct dentry *d unused_arg, uint32_t mask unused_arg)
{
	return 0;
}

static void watch_end_default(struct filesystem *fs unused_arg, uint64_t key unused_arg)
{
}

static void *inode_hold_default(struct dentry *d)
{
	dentry_ref(d);
	return d;
}

static void inode_drop_default(struct filesystem *fs unused_arg, void *inode)
{
	dentry_unref(inode);
}

static void dentry_release_default(struct dentry *d)
{
	dentry_fini(d);
	free(d);
}

static int automount_default(struct dentry *d unused_arg, struct filesystem **ret_fs unused_arg,
			     struct dentry **ret_root unused_arg)
{
	return -ENOSYS;
}

static int get_acl_default(struct dentry *d unused_arg, bool is_default unused_arg,
			   struct vfs_acl **ret)
{
	*ret = NULL;
	return 0;
}

static void link_followed_default(struct dentry *d unused_arg, struct mount *m unused_arg)
{
}

static bool peek_perm_default(struct dentry *d unused_arg, struct perm_inode *ret unused_arg)
{
	return false;
}

static bool peek_stat_default(struct dentry *d unused_arg, struct moat_statx *ret unused_arg)
{
	return false;
}

static const char *peek_link_default(struct dentry *d unused_arg, size_t *ret_len unused_arg)
{
	return NULL;
}

static int sync_default(struct filesystem *fs unused_arg)
{
	return 0;
}

static int remount_default(struct filesystem *fs unused_arg, unsigned ms_flags unused_arg,
			   const char *data unused_arg)
{
	return 0;
}

static void show_options_default(struct filesystem *fs unused_arg, struct buf *b unused_arg)
{
}

static void release_default(struct filesystem *fs)
{
	filesystem_fini(fs);
	free(fs);
}

#define FS_DEFAULT(slot)                            \
	do {                                        \
		if (!ops->slot)                     \
			ops->slot = slot##_default; \
	} while (0)

void fs_ops_complete(struct filesystem_ops *ops)
{
	FS_DEFAULT(get_dentry_at);
	FS_DEFAULT(open_at);
	FS_DEFAULT(stat_at);
	FS_DEFAULT(set_stat_at);
	FS_DEFAULT(access_at);
	FS_DEFAULT(mkdir_at);
	FS_DEFAULT(mknod_at);
	FS_DEFAULT(link_at);
	FS_DEFAULT(symlink_at);
	FS_DEFAULT(readlink_at);
	FS_DEFAULT(rename_at);
	FS_DEFAULT(unlink_at);
	FS_DEFAULT(rmdir_at);
	FS_DEFAULT(statfs);
	FS_DEFAULT(get_xattr_at);
	FS_DEFAULT(set_xattr_at);
	FS_DEFAULT(list_xattr_at);
	FS_DEFAULT(remove_xattr_at);
	FS_DEFAULT(get_endpoint_at);
	FS_DEFAULT(get_parent);
	FS_DEFAULT(is_descendant);
	FS_DEFAULT(dentry_type);
	FS_DEFAULT(inode_key);
	FS_DEFAULT(inode_hold);
	FS_DEFAULT(inode_drop);
	FS_DEFAULT(watch_begin);
	FS_DEFAULT(watch_end);
	FS_DEFAULT(automount);
	FS_DEFAULT(get_acl);
	FS_DEFAULT(dentry_release);
	FS_DEFAULT(link_followed);
	FS_DEFAULT(peek_perm);
	FS_DEFAULT(peek_stat);
	FS_DEFAULT(peek_link);
	FS_DEFAULT(sync);
	FS_DEFAULT(remount);
	FS_DEFAULT(show_options);
	FS_DEFAULT(release);
}

/* ---- types ---- */

void vfs_register_type(struct filesystem_type *type)
{
	if (type->ops)
		fs_ops_complete(type->ops);
	mutex_lock(&types_lock);
	SLIST_NEXT(type, link) = atomic_load_explicit(&types_head, memory_order_relaxed);
	atomic_store_explicit(&types_head, type, memory_order_release);
	mutex_unlock(&types_lock);
}

const struct filesystem_type *vfs_find_type(const char *name, size_t len)
{
	struct filesystem_type *t;

	for (t = atomic_load_explicit(&types_head, memory_order_acquire); t;
	     t = SLIST_NEXT(t, link))
		if (strlen(t->name) == len && !memcmp(t->name, name, len))
			return t;
	return NULL;
}

void vfs_for_each_type(void (*emit)(void *arg, const struct filesystem_type *t), void *arg)
{
	struct filesystem_type *t;

	for (t = atomic_load_explicit(&types_head, memory_order_acquire); t;
	     t = SLIST_NEXT(t, link))
		emit(arg, t);
}

/* ---- filesystems ---- */

/* Return: a minor number > 0, or 0 when all are taken. */
static uint32_t anon_dev_alloc(void)
{
	uint32_t minor = 0;

	mutex_lock(&types_lock);
	anon_devs[0] |= 1; /* 0 is no device */
	for (unsigned i = 0; i < ARRAY_SIZE(anon_devs) && !minor; i++) {
		if (~anon_devs[i]) {
			int bit = __builtin_ctzll(~anon_devs[i]);

			anon_devs[i] |= 1ull << bit;
			minor = i * 64 + (uint32_t)bit;
		}
	}
	mutex_unlock(&types_lock);
	return minor;
}

static void anon_dev_free(uint32_t minor)
{
	mutex_lock(&types_lock);
	anon_devs[minor / 64] &= ~(1ull << (minor % 64));
	mutex_unlock(&types_lock);
}

int filesystem_init(struct filesystem *fs, const struct filesystem_type *type,
		    const struct filesystem_ops *ops, const char *source)
{
	assert(ops->open_at && ops->release);
	*fs = (struct filesystem){.ops = ops,
				  .type = type,
				  .rcu_walk = (type->flags & FS_RCU_WALK) != 0,
				  .path_cache = (type->flags & FS_PATH_CACHE) != 0,
				  .exclusive = (type->flags & FS_PATH_CACHE) != 0};
	fs->dev_minor = anon_dev_alloc();
	if (!fs->dev_minor)
		return -EMFILE;
	fs->source = strdup(source ? source : "none");
	if (!fs->source) {
		anon_dev_free(fs->dev_minor);
		return -ENOMEM;
	}
	ref_init(&fs->ref, &filesystem_type_ref);
	mutex_init(&fs->rename_lock, LOCK_VFS_RENAME, "rename");
	return 0;
}

void filesystem_ref(struct filesystem *fs)
{
	ref_get(&fs->ref);
}

void filesystem_unref(struct filesystem *fs)
{
	if (!fs || !ref_put(&fs->ref))
		return;
	/* Its dentries borrow it. */
	if (atomic_load_explicit(&dentry_refs_used, memory_order_relaxed) &&
	    (fs->type->flags & FS_KEEP_REFS))
		ref_cache_withdraw_all(&dentry_refs, dentry_is_of, fs, dentry_drop_kept);
	fs->ops->release(fs);
}

void filesystem_fini(struct filesystem *fs)
{
	ref_fini(&fs->ref, &filesystem_type_ref);
	anon_dev_free(fs->dev_minor);
	free(fs->source);
}

struct moat_timestamp vfs_now(void)
{
	int64_t ns = vfs_hooks.realtime_ns ? vfs_hooks.realtime_ns() : time_realtime_ns();

	return (struct moat_timestamp){.sec = ns / 1000000000, .nsec = (uint32_t)(ns % 1000000000)};
}
