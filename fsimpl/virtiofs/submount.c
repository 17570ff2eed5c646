/*
 * fsimpl/virtiofs/submount.c - directories where another filesystem of the host begins.
 *
 * A daemon that was asked to (FUSE_SUBMOUNTS) marks them. As under Linux such a directory is a mount of its own as soon as somebody walks through it, with a
 * device number of its own, so that device and inode number tell files apart and a link or rename across it is EXDEV; the mount goes with the one that it
 * is on. Its filesystem has its own names, inodes and locks, and shares device, options and what INIT settled with the one above. The node that is its
 * root is counted by the inode of its mount point, which it holds.
 *
 * Each has tables of its own, and the daemon a descriptor for each cached name: VIRTIOFS_DENTRIES_MAX bounds them one by one.
 * A daemon may announce one in the other without end: those deeper than VIRTIOFS_SUBMOUNT_DEPTH_MAX are ELOOP.
 */
#include <stdlib.h>

#include "fsimpl/virtiofs/internal.h"

/* In `over`'s place. Return: 0, -errno. */
static int create_root(struct virtiofs_fs *fs)
{
	struct virtiofs_inode *in;
	int err = virtiofs_inode_create_root(fs, &in);

	if (err)
		return err;
	err = virtiofs_inode_refresh(in, VIRTIOFS_ASK);
	if (err) {
		virtiofs_inode_unref(in);
		return err;
	}
	fs->root = remote_dentry_create(&fs->dcache, NULL, "", 0, &in->base);
	return fs->root ? 0 : -ENOMEM;
}

static void put_work(struct deferred_work *w)
{
	struct virtiofs_fs *fs = container_of(w, struct virtiofs_fs, put_work);

	for (uint32_t n = atomic_exchange(&fs->puts, 0); n; n--)
		filesystem_unref(&fs->fs);
}

/* The last reference may end the device's filesystem, which waits for who looks at its submounts. */
void virtiofs_submount_put_later(struct virtiofs_fs *fs)
{
	if (atomic_fetch_add(&fs->puts, 1) == 0)
		vfs_defer(&fs->put_work);
}

/* The one that somebody made there already, walking through another mount: a reference. One whose node the daemon does not know is none. */
static struct virtiofs_fs *find_sub(struct virtiofs_fs *top, const struct remote_dentry *over)
{
	const struct virtiofs_inode *in = virtiofs_inode_of(over);
	struct virtiofs_fs *fs;

	mutex_lock(&top->inode_lock);
	TAILQ_FOREACH (fs, &top->subs, sub_link)
		if (virtiofs_inode_of(fs->over) == in &&
		    vdev_node_current(top->dev, virtiofs_inode_of(fs->root)->nodeid) &&
		    ref_tryget(&fs->fs.ref))
			break;
	mutex_unlock(&top->inode_lock);
	return fs;
}

int virtiofs_automount(struct dentry *base, struct filesystem **ret_fs, struct dentry **ret_root)
{
	struct remote_dentry *over = remote_dentry_of(base);
	struct virtiofs_fs *above = virtiofs_fs_of(base->fs),
			   *top = above->top ? above->top : above;
	struct virtiofs_fs *fs;
	unsigned epoch;
	int err;

	if (above->depth >= VIRTIOFS_SUBMOUNT_DEPTH_MAX)
		return -ELOOP;
	virtiofs_await(top);
	fs = find_sub(top, over);
	if (fs) {
		*ret_fs = &fs->fs;
		*ret_root = &remote_dentry_ref(fs->root)->d;
		return 0;
	}
	epoch = vdev_epoch(top->dev);
	err = virtiofs_fs_alloc(top->dev, &top->options, top->fs.source, &fs);
	if (err)
		return err;
	virtiofs_device_ref(top->dev);
	filesystem_ref(&above->fs);
	fs->top = top;
	fs->depth = above->depth + 1;
	fs->over = remote_dentry_ref(over);
	fs->put_work.run = put_work;
	fs->max_write = top->max_write;
	fs->max_read = top->max_read;
	fs->init_flags = top->init_flags;
	fs->versions = top->versions;
	atomic_fetch_or(&fs->fs.sb_flags, atomic_load(&top->fs.sb_flags) & FS_RDONLY);
	err = create_root(fs);
	if (!err) {
		mutex_lock(&top->inode_lock);
		TAILQ_INSERT_TAIL(&top->subs, fs, sub_link);
		fs->in_subs = true;
		mutex_unlock(&top->inode_lock);
	}
	/* Another daemon, which was not told of it: the next walk makes another. */
	if (!err && vdev_epoch(top->dev) != epoch)
		err = -EIO;
	if (err) {
		filesystem_unref(&fs->fs);
		return err;
	}
	*ret_fs = &fs->fs;
	*ret_root = &remote_dentry_ref(fs->root)->d;
	return 0;
}

void virtiofs_submount_unlink(struct virtiofs_fs *fs)
{
	mutex_lock(&fs->top->inode_lock);
	if (fs->in_subs)
		TAILQ_REMOVE(&fs->top->subs, fs, sub_link);
	mutex_unlock(&fs->top->inode_lock);
}

void virtiofs_submount_fini(struct virtiofs_fs *fs)
{
	struct filesystem *above = fs->over->d.fs;

	remote_dentry_unref(fs->over);
	filesystem_unref(above);
}

struct virtiofs_fs *virtiofs_submount_next(struct virtiofs_fs *top, struct virtiofs_fs *fs)
{
	struct virtiofs_fs *next;

	mutex_lock(&top->inode_lock);
	next = fs ? TAILQ_NEXT(fs, sub_link) : TAILQ_FIRST(&top->subs);
	while (next && !ref_tryget(&next->fs.ref))
		next = TAILQ_NEXT(next, sub_link);
	mutex_unlock(&top->inode_lock);
	if (fs)
		virtiofs_submount_put_later(fs);
	return next;
}
