/*
 * fsimpl/virtiofs/fs.c - the filesystem: a host tree behind a virtio-fs daemon.
 *
 * Names are looked up one by one (walk.c) and believed as long as the cache mode says; changes are one request each (change.c); data goes through
 * the mount's page cache, which lies in the memory shared with the daemon (data.c), or past it (cache=none). Every node that the server told
 * of holds a descriptor there, so unused dentries are few and FORGET goes out in batches (rpc.c).
 *
 * Performs: a cold stat is one LOOKUP a component, or one request; a warm one within its timeout asks nothing and takes no lock (quick.c). One tree_lock per filesystem: a change keeps
 * lookups waiting for the length of its request. Watch: virtiofs_device_requests(), ref_report().
 * Cannot: keep locks that somebody else got while a daemon was started anew (lock.c).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "fsimpl/virtiofs/internal.h"

static uint32_t virtiofs_dentry_type(struct dentry *d)
{
	return remote_dentry_of(d)->inode->type;
}

static uint64_t virtiofs_inode_key(struct dentry *d)
{
	return virtiofs_inode_of(remote_dentry_of(d))->key;
}

static void virtiofs_dentry_release(struct dentry *d)
{
	remote_dentry_release(&virtiofs_fs_of(d->fs)->dcache, remote_dentry_of(d));
}

static void virtiofs_inode_drop(struct filesystem *fs unused_arg, void *inode)
{
	virtiofs_inode_unref(inode);
}

static bool inode_gone(struct remote_inode *base)
{
	struct virtiofs_inode *in = container_of(base, struct virtiofs_inode, base);
	bool gone;

	mutex_lock(&in->lock);
	gone = !in->attr.nlink;
	mutex_unlock(&in->lock);
	return gone;
}

/* An inode of the bucket with data to write: a reference; NULL. after: the one before, whose reference is given back. */
static struct virtiofs_inode *next_dirty(struct virtiofs_fs *fs, unsigned bucket,
					 struct virtiofs_inode *after)
{
	struct virtiofs_inode *in;

	mutex_lock(&fs->inode_lock);
	in = after ? LIST_NEXT(after, hash_link) : LIST_FIRST(&fs->inodes[bucket]);
	while (in && ((!atomic_load(&in->dirty_pages) && !atomic_load(&in->writing)) ||
		      !ref_tryget(&in->base.ref)))
		in = LIST_NEXT(in, hash_link);
	mutex_unlock(&fs->inode_lock);
	if (after)
		virtiofs_inode_unref(after);
	return in;
}

/* What the guest wrote into the cache. Return: 0, the first error. */
static int write_all_back(struct virtiofs_fs *fs)
{
	int err = 0;

	for (unsigned i = 0; i < VIRTIOFS_INODE_BUCKETS; i++) {
		struct virtiofs_inode *in = NULL;

		while ((in = next_dirty(fs, i, in))) {
			int one = virtiofs_data_writeback(in, 0, UINT64_MAX);

			if (!err)
				err = one;
		}
	}
	return err;
}

static int virtiofs_sync(struct filesystem *base)
{
	struct virtiofs_fs *fs = virtiofs_fs_of(base);
	const struct fuse_syncfs_in arg = {0};
	struct vdev_call call = {
		.req = {.opcode = FUSE_SYNCFS,
			.nodeid = virtiofs_inode_of(fs->root)->nodeid,
			.arg = &arg},
	};
	int err = write_all_back(fs);
	ssize_t got = virtiofs_call(fs, &call);

	return err ? err : got < 0 && got != -ENOSYS ? (int)got : 0;
}

static void virtiofs_show_options(struct filesystem *base, struct buf *b)
{
	static const char *const names[] = {"auto", "none", "always"};
	const struct virtiofs_options *o = &virtiofs_fs_of(base)->options;

	buf_printf(b, ",cache=%s", names[o->cache]);
	if (o->dax)
		buf_printf(b, ",dax=%s", o->dax == VIRTIOFS_DAX_ALWAYS ? "always" : "inode");
	if (o->coherence)
		buf_printf(b, ",coherence=%s",
			   o->coherence == VIRTIOFS_COHERENCE_STRICT ? "strict" : "versions");
	if (o->timeout_ns >= 0)
		buf_printf(b, ",timeout=%lld", (long long)(o->timeout_ns / 1000000000));
	if (o->writeback)
		buf_puts(b, ",writeback");
}

static void fs_free_rcu(struct rcu_cb *cb)
{
	free(virtiofs_fs_of(container_of(cb, struct filesystem, rcu)));
}

/* Sockets' dentries are pinned for their endpoints' sake. */
static void drop_endpoints(struct virtiofs_fs *fs)
{
	for (unsigned i = 0; i < VIRTIOFS_INODE_BUCKETS; i++) {
		struct remote_dentry *d;

		do {
			struct virtiofs_inode *in;

			d = NULL;
			mutex_lock(&fs->inode_lock);
			LIST_FOREACH (in, &fs->inodes[i], hash_link)
				if (in->endpoint_dentry) {
					d = in->endpoint_dentry;
					in->endpoint_dentry = NULL;
					break;
				}
			mutex_unlock(&fs->inode_lock);
			remote_dentry_unref(d);
		} while (d);
	}
}

/* What only the device's filesystem does at its end. */
static void device_end(struct virtiofs_fs *fs)
{
	struct vdev_call destroy = {.req = {.opcode = FUSE_DESTROY}};

	/* RELEASEs and FORGETs, which nobody waited for: after DESTROY they would make no sense. */
	vdev_drain(fs->dev, VIRTIOFS_DRAIN_NS);
	(void)!virtiofs_call(fs, &destroy);
	virtiofs_device_release(fs->dev);
}

static void virtiofs_release(struct filesystem *base)
{
	struct virtiofs_fs *fs = virtiofs_fs_of(base);

	if (fs->top)
		virtiofs_submount_unlink(fs);
	else
		vdev_set_restore(fs->dev, NULL, NULL);
	drop_endpoints(fs);
	remote_shrink(&fs->dcache);
	remote_dentry_unref(fs->root);
	virtiofs_forget_flush(fs);
	if (!fs->top)
		device_end(fs);
	while (fs->bounce_count)
		memfile_range_unref(virtiofs_device_memory(fs->dev),
				    fs->bounces[--fs->bounce_count], VIRTIOFS_READ_MAX);
	virtiofs_device_unref(fs->dev);
	if (fs->top)
		virtiofs_submount_fini(fs);
	filesystem_fini(base);
	rcu_call(&base->rcu, fs_free_rcu);
}

static struct filesystem_ops virtiofs_ops = {
	.get_dentry_at = virtiofs_get_dentry_at,
	.open_at = virtiofs_open_at,
	.stat_at = virtiofs_stat_at,
	.set_stat_at = virtiofs_set_stat_at,
	.access_at = virtiofs_access_at,
	.mkdir_at = virtiofs_mkdir_at,
	.mknod_at = virtiofs_mknod_at,
	.link_at = virtiofs_link_at,
	.symlink_at = virtiofs_symlink_at,
	.readlink_at = virtiofs_readlink_at,
	.rename_at = virtiofs_rename_at,
	.unlink_at = virtiofs_unlink_at,
	.rmdir_at = virtiofs_rmdir_at,
	.statfs = virtiofs_statfs,
	.get_xattr_at = virtiofs_get_xattr_at,
	.set_xattr_at = virtiofs_set_xattr_at,
	.list_xattr_at = virtiofs_list_xattr_at,
	.remove_xattr_at = virtiofs_remove_xattr_at,
	.get_endpoint_at = virtiofs_get_endpoint_at,
	.automount = virtiofs_automount,
	.get_acl = virtiofs_get_acl,
	.get_parent = remote_get_parent,
	.dentry_type = virtiofs_dentry_type,
	.inode_key = virtiofs_inode_key,
	.inode_hold = remote_inode_hold,
	.inode_drop = virtiofs_inode_drop,
	.dentry_release = virtiofs_dentry_release,
	.sync = virtiofs_sync,
	.show_options = virtiofs_show_options,
	.release = virtiofs_release,
};

/* ---- mounting ---- */

/* All immutable. */
struct virtiofs_tag {
	LIST_ENTRY(virtiofs_tag) link; /* guarded by tag_lock */
	const void *container; /* whose mount(2) knows it */
	struct virtiofs_device *dev; /* a reference */
	char name[]; /* a virtio-fs tag, or the path of a socket */
};

static struct mutex tag_lock = MUTEX_INIT(LOCK_LEAF, "virtiofs tags");
static LIST_HEAD(, virtiofs_tag) tags = LIST_HEAD_INITIALIZER(tags);

static struct virtiofs_tag *find_tag_locked(const void *container, const char *name)
{
	struct virtiofs_tag *t;

	LIST_FOREACH (t, &tags, link)
		if (t->container == container && !strcmp(t->name, name))
			break;
	return t;
}

/* The calling thread's container's: a reference; NULL. */
static struct virtiofs_device *find_device(const char *name)
{
	const void *container = vfs_container();
	struct virtiofs_tag *t;
	struct virtiofs_device *dev;

	mutex_lock(&tag_lock);
	t = find_tag_locked(container, name);
	dev = t ? t->dev : NULL;
	if (dev)
		virtiofs_device_ref(dev);
	mutex_unlock(&tag_lock);
	return dev;
}

int virtiofs_add_tag(const void *container, const char *tag, struct virtiofs_device *dev)
{
	struct virtiofs_tag *t;
	size_t len = strlen(tag);
	int err = 0;

	if (!len || len >= VFS_PATH_MAX)
		return -EINVAL;
	t = calloc(1, sizeof(*t) + len + 1);
	if (!t)
		return -ENOMEM;
	memcpy(t->name, tag, len);
	t->container = container;
	t->dev = dev;
	mutex_lock(&tag_lock);
	if (find_tag_locked(container, tag)) {
		err = -EEXIST;
	} else {
		virtiofs_device_ref(dev);
		LIST_INSERT_HEAD(&tags, t, link);
	}
	mutex_unlock(&tag_lock);
	if (err)
		free(t);
	return err;
}

void virtiofs_drop_tags(const void *container)
{
	LIST_HEAD(, virtiofs_tag) dropped = LIST_HEAD_INITIALIZER(dropped);
	struct virtiofs_tag *t, *next;

	mutex_lock(&tag_lock);
	for (t = LIST_FIRST(&tags); t; t = next) {
		next = LIST_NEXT(t, link);
		if (t->container != container)
			continue;
		LIST_REMOVE(t, link);
		LIST_INSERT_HEAD(&dropped, t, link);
	}
	mutex_unlock(&tag_lock);
	/* The last reference ends a thread of the device's. */
	while ((t = LIST_FIRST(&dropped))) {
		LIST_REMOVE(t, link);
		virtiofs_device_unref(t->dev);
		free(t);
	}
}

static int parse_cache(const char *v, size_t len, struct virtiofs_options *o)
{
	if (len == 4 && !memcmp(v, "auto", 4))
		o->cache = VIRTIOFS_CACHE_AUTO;
	else if (len == 4 && !memcmp(v, "none", 4))
		o->cache = VIRTIOFS_CACHE_NONE;
	else if (len == 6 && !memcmp(v, "always", 6))
		o->cache = VIRTIOFS_CACHE_ALWAYS;
	else
		return -EINVAL;
	return 0;
}

/* One of `names`, whose order is the enum's. Return: which; -EINVAL. */
static int parse_word(const char *v, size_t len, const char *const *names, int count)
{
	for (int i = 0; i < count; i++)
		if (strlen(names[i]) == len && !memcmp(v, names[i], len))
			return i;
	return -EINVAL;
}

static int parse_dax(const char *v, size_t len, struct virtiofs_options *o)
{
	static const char *const names[] = {"never", "always", "inode"};
	int which = parse_word(v, len, names, 3);

	if (which >= 0)
		o->dax = (enum virtiofs_dax)which;
	return MIN(which, 0);
}

static int parse_coherence(const char *v, size_t len, struct virtiofs_options *o)
{
	static const char *const names[] = {"time", "versions", "strict"};
	int which = parse_word(v, len, names, 3);

	if (which >= 0)
		o->coherence = (enum virtiofs_coherence)which;
	return MIN(which, 0);
}

static int parse_option(const char *opt, size_t len, struct virtiofs_options *o)
{
	char *end;

	if (len > 6 && !memcmp(opt, "cache=", 6))
		return parse_cache(opt + 6, len - 6, o);
	if (len > 4 && !memcmp(opt, "dax=", 4))
		return parse_dax(opt + 4, len - 4, o);
	if (len == 3 && !memcmp(opt, "dax", 3))
		return parse_dax("always", 6, o);
	if (len > 10 && !memcmp(opt, "coherence=", 10))
		return parse_coherence(opt + 10, len - 10, o);
	if (len > 8 && len < 18 && !memcmp(opt, "timeout=", 8)) {
		unsigned long v = strtoul(opt + 8, &end, 10);

		if (end != opt + len || v > 1000000000)
			return -EINVAL;
		o->timeout_ns = (int64_t)v * 1000000000;
		return 0;
	}
	if (len == 9 && !memcmp(opt, "writeback", 9))
		o->writeback = true;
	else if (len == 12 && !memcmp(opt, "no_writeback", 12))
		o->writeback = false;
	else
		return -EINVAL;
	return 0;
}

int virtiofs_parse_options(const char *text, struct virtiofs_options *ret)
{
	*ret = (struct virtiofs_options){.timeout_ns = -1};
	while (text && *text) {
		size_t len = strcspn(text, ",");

		if (len && parse_option(text, len, ret))
			return -EINVAL;
		text += len + (text[len] == ',');
	}
	return 0;
}

static int virtiofs_mount(const struct filesystem_type *type, const char *source, unsigned ms_flags,
			  const char *data, void *kernel_data, struct filesystem **ret_fs,
			  struct dentry **ret_root)
{
	struct virtiofs_options options;
	struct virtiofs_device *dev;
	int err = virtiofs_parse_options(data, &options);

	(void)type;
	(void)ms_flags;
	(void)kernel_data;
	if (err)
		return err;
	dev = source ? find_device(source) : NULL;
	/* As Linux: no device has this tag. */
	if (!dev)
		return -EINVAL;
	err = virtiofs_create(dev, &options, source, ret_fs, ret_root);
	virtiofs_device_unref(dev);
	return err;
}

static struct filesystem_type virtiofs_type = {
	.name = "virtiofs",
	.flags = FS_NODEV | FS_NO_ACL,
	.mount = virtiofs_mount,
	.ops = &virtiofs_ops,
};

void virtiofs_register(void)
{
	static _Atomic bool registered;

	if (!atomic_exchange(&registered, true))
		vfs_register_type(&virtiofs_type);
}

static int create_root(struct virtiofs_fs *fs)
{
	struct virtiofs_inode *in;
	struct fuse_attr_out out;
	int err = virtiofs_inode_create_root(fs, &in);

	if (err)
		return err;
	err = virtiofs_getattr_rpc(in, &out);
	if (!err && !S_ISDIR(out.attr.mode))
		err = -ENOTDIR;
	if (err) {
		virtiofs_inode_unref(in);
		return err;
	}
	virtiofs_inode_update(in, &out.attr, out.attr_valid, out.attr_valid_nsec, VIRTIOFS_FORCED);
	fs->root = remote_dentry_create(&fs->dcache, NULL, "", 0, &in->base);
	return fs->root ? 0 : -ENOMEM;
}

int virtiofs_fs_alloc(struct virtiofs_device *dev, const struct virtiofs_options *options,
		      const char *source, struct virtiofs_fs **ret)
{
	/* The buckets are empty lists: a submount of few files touches few of their pages. */
	struct virtiofs_fs *fs = calloc(1, sizeof(*fs));
	int err = fs ? filesystem_init(&fs->fs, &virtiofs_type, &virtiofs_ops, source) : -ENOMEM;

	if (err) {
		free(fs);
		return err;
	}
	fs->dev = dev;
	fs->options = *options;
	fs->fs.magic = VIRTIOFS_MAGIC;
	/* Where nothing is believed there is nothing to walk over. */
	fs->fs.rcu_walk = options->cache != VIRTIOFS_CACHE_NONE || options->coherence;
	if (options->readonly)
		atomic_fetch_or(&fs->fs.sb_flags, FS_RDONLY);
	rwlock_init(&fs->tree_lock, LOCK_FS_OP, "virtiofs tree");
	mutex_init(&fs->inode_lock, LOCK_FS_SUPER, "virtiofs inodes");
	virtiofs_listings_init(&fs->listings);
	mutex_init(&fs->forget_lock, LOCK_FS_SUPER, "virtiofs forget");
	remote_dcache_init(&fs->dcache, &fs->fs, virtiofs_inode_unref_base, inode_gone,
			   options->max_dentries ? options->max_dentries : VIRTIOFS_DENTRIES_MAX);
	fs->dcache.inode_perm = virtiofs_inode_perm_base;
	TAILQ_INIT(&fs->subs);
	atomic_init(&fs->next_key, 1);
	*ret = fs;
	return 0;
}

int virtiofs_create(struct virtiofs_device *dev, const struct virtiofs_options *options,
		    const char *source, struct filesystem **ret_fs, struct dentry **ret_root)
{
	struct virtiofs_fs *fs;
	unsigned epoch;
	int err;

	if (!virtiofs_device_claim(dev))
		return -EBUSY;
	err = virtiofs_fs_alloc(dev, options, source ? source : "none", &fs);
	if (err) {
		virtiofs_device_release(dev);
		return err;
	}
	virtiofs_device_ref(dev);
	epoch = vdev_epoch(dev);
	err = virtiofs_init_rpc(fs, false);
	if (!err)
		err = create_root(fs);
	if (!err)
		vdev_set_restore(dev, virtiofs_restore, fs);
	/* Another daemon, which knows nothing of the INIT. */
	if (!err && vdev_epoch(dev) != epoch)
		err = -EIO;
	if (err) {
		log_error("virtio-fs: the file system could not be mounted: %s", strerror(-err));
		filesystem_unref(&fs->fs); /* gives the device back too */
		return err;
	}
	remote_dentry_ref(fs->root);
	*ret_fs = &fs->fs;
	*ret_root = &fs->root->d;
	return 0;
}

void virtiofs_shrink(struct filesystem *base)
{
	virtiofs_listings_drop(virtiofs_fs_of(base));
	remote_shrink(&virtiofs_fs_of(base)->dcache);
	virtiofs_forget_flush(virtiofs_fs_of(base));
}
