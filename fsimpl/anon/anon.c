/*
 * fsimpl/anon/anon.c - the filesystems of files without a name.
 *
 * One struct filesystem for each kind (pipefs, sockfs, anon_inodefs, and hostfs for descriptors that came with the
 * container), each with an internal mount that is in no namespace. There is no tree: every inode is a
 * dentry of its own that dies with its last file. A path operation reaches one only with no components left, through
 * AT_EMPTY_PATH or a magic link of /proc/PID/fd, so an op serves the start dentry or says -ENOTDIR.
 *
 * Cannot do: mount(2) of these types (as on Linux), inotify watches by path.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "fsimpl/anon/anon.h"
#include "vfs/perm.h"
#include "vfs/resolving_path.h"

struct anon_fs {
	struct filesystem fs;
	struct mount *mount; /* immutable; lives as long as the process */
	struct dentry *root;
};

static struct anon_fs *anon_fs[ANON_KINDS];
static _Atomic uint64_t anon_next_ino = 1;

static struct moat_timestamp anon_now(void)
{
	return vfs_now();
}

static struct anon_dentry *anon_dentry_create(struct filesystem *fs, const struct anon_args *args)
{
	struct anon_dentry *ad = calloc(1, sizeof(*ad));
	const struct cred *cred = cred_current();

	if (!ad)
		return NULL;
	dentry_init(&ad->d, fs);
	mutex_init(&ad->lock, LOCK_LEAF, "anon_dentry");
	ad->kind = args->kind;
	ad->name = args->name;
	ad->ino = args->ino;
	if (!ad->ino)
		ad->ino = atomic_fetch_add_explicit(&anon_next_ino, 1, memory_order_relaxed);
	ad->mode = args->mode;
	ad->uid = cred ? cred->fsuid : 0;
	ad->gid = cred ? cred->fsgid : 0;
	ad->atime = ad->mtime = ad->ctime = anon_now();
	ad->reopen = args->reopen;
	ad->drop = args->drop;
	ad->priv = args->priv;
	return ad;
}

static void anon_dentry_release(struct dentry *d)
{
	struct anon_dentry *ad = anon_dentry_of(d);

	if (ad->drop)
		ad->drop(ad->priv);
	dentry_fini(d);
	free(ad);
}

static int anon_get_dentry_at(unused_arg struct filesystem *fs, struct resolving_path *rp,
			      struct dentry **ret)
{
	if (!rp_done(rp) || rp_must_dir(rp))
		return -ENOTDIR;
	dentry_ref(rp_start(rp));
	*ret = rp_start(rp);
	return 0;
}

static int anon_open_at(unused_arg struct filesystem *fs, struct resolving_path *rp,
			const struct open_args *args, struct file **ret_file)
{
	struct anon_dentry *ad = anon_dentry_of(rp_start(rp));
	struct vfs_path place;
	struct perm_inode pi;
	int err;

	if (!rp_done(rp) || rp_must_dir(rp))
		return -ENOTDIR;
	rp_place(rp, rp_start(rp), &place);
	if (args->exec)
		return -EACCES;
	if (!ad->reopen)
		return -ENXIO;
	mutex_lock(&ad->lock);
	pi = (struct perm_inode){.mode = ad->mode, .uid = ad->uid, .gid = ad->gid};
	mutex_unlock(&ad->lock);
	err = vfs_may_open(rp_cred(rp), rp_mount(rp), &pi, args->flags, false);
	if (err)
		return err;
	return ad->reopen(ad, &place, args->flags, ret_file);
}

static void anon_fill_stat(struct anon_dentry *ad, struct moat_statx *st)
{
	memset(st, 0, sizeof(*st));
	st->mask = STATX_BASIC_STATS;
	st->blksize = 4096;
	st->nlink = 1;
	st->ino = ad->ino;
	mutex_lock(&ad->lock);
	st->mode = (uint16_t)ad->mode;
	st->uid = ad->uid;
	st->gid = ad->gid;
	st->atime = ad->atime;
	st->mtime = ad->mtime;
	st->ctime = ad->ctime;
	mutex_unlock(&ad->lock);
	st->dev_major = 0;
	st->dev_minor = ad->d.fs->dev_minor;
}

static int anon_change(struct anon_dentry *ad, const struct cred *cred,
		       const struct setattr_args *args)
{
	struct setattr_args a = *args;
	struct perm_inode pi;
	int err;

	if (a.valid & SETATTR_SIZE)
		return -EINVAL;
	mutex_lock(&ad->lock);
	pi = (struct perm_inode){.mode = ad->mode, .uid = ad->uid, .gid = ad->gid};
	mutex_unlock(&ad->lock);
	err = vfs_may_setattr(cred, &pi, &a);
	if (err)
		return err;
	mutex_lock(&ad->lock);
	if (a.valid & SETATTR_MODE)
		ad->mode = (ad->mode & S_IFMT) | (a.mode & 07777);
	if (a.valid & SETATTR_UID)
		ad->uid = a.uid;
	if (a.valid & SETATTR_GID)
		ad->gid = a.gid;
	if (a.valid & (SETATTR_ATIME | SETATTR_ATIME_NOW))
		ad->atime = a.valid & SETATTR_ATIME_NOW ? anon_now() : a.atime;
	if (a.valid & (SETATTR_MTIME | SETATTR_MTIME_NOW))
		ad->mtime = a.valid & SETATTR_MTIME_NOW ? anon_now() : a.mtime;
	ad->ctime = anon_now();
	mutex_unlock(&ad->lock);
	return 0;
}

static int anon_stat_at(unused_arg struct filesystem *fs, struct resolving_path *rp,
			unused_arg const struct stat_args *args, struct moat_statx *ret)
{
	if (!rp_done(rp) || rp_must_dir(rp))
		return -ENOTDIR;
	anon_fill_stat(anon_dentry_of(rp_start(rp)), ret);
	return 0;
}

static int anon_set_stat_at(unused_arg struct filesystem *fs, struct resolving_path *rp,
			    const struct setattr_args *args)
{
	if (!rp_done(rp) || rp_must_dir(rp))
		return -ENOTDIR;
	return anon_change(anon_dentry_of(rp_start(rp)), rp_cred(rp), args);
}

static int anon_access_at(unused_arg struct filesystem *fs, struct resolving_path *rp, int mask)
{
	struct anon_dentry *ad = anon_dentry_of(rp_start(rp));
	struct perm_inode pi;

	if (!rp_done(rp) || rp_must_dir(rp))
		return -ENOTDIR;
	mutex_lock(&ad->lock);
	pi = (struct perm_inode){.mode = ad->mode, .uid = ad->uid, .gid = ad->gid};
	mutex_unlock(&ad->lock);
	return mask ? vfs_permission(rp_cred(rp), &pi, mask) : 0;
}

static int anon_statfs(struct filesystem *fs, unused_arg struct dentry *d, struct statfs *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->f_type = (__fsword_t)fs->magic;
	ret->f_bsize = 4096;
	ret->f_frsize = 4096;
	ret->f_namelen = VFS_NAME_MAX;
	return 0;
}

static int anon_get_parent(struct dentry *d, struct dentry **ret_parent, char *name, size_t size)
{
	*ret_parent = NULL;
	if (!anon_name(d, name, size))
		return -ENOENT;
	return 0;
}

static uint32_t anon_dentry_type(struct dentry *d)
{
	struct anon_dentry *ad = anon_dentry_of(d);
	uint32_t mode;

	mutex_lock(&ad->lock);
	mode = ad->mode;
	mutex_unlock(&ad->lock);
	return mode & S_IFMT;
}

static uint64_t anon_inode_key(struct dentry *d)
{
	return anon_dentry_of(d)->ino;
}

static void anon_fs_release(struct filesystem *fs)
{
	filesystem_fini(fs);
	free(fs);
}

static struct filesystem_ops anon_ops = {
	.get_dentry_at = anon_get_dentry_at,
	.open_at = anon_open_at,
	.stat_at = anon_stat_at,
	.set_stat_at = anon_set_stat_at,
	.access_at = anon_access_at,
	.statfs = anon_statfs,
	.get_parent = anon_get_parent,
	.dentry_type = anon_dentry_type,
	.inode_key = anon_inode_key,
	.dentry_release = anon_dentry_release,
	.release = anon_fs_release,
};

static int anon_mount(unused_arg const struct filesystem_type *type, unused_arg const char *source,
		      unused_arg unsigned ms_flags, unused_arg const char *data,
		      unused_arg void *kernel_data, unused_arg struct filesystem **ret_fs,
		      unused_arg struct dentry **ret_root)
{
	return -EINVAL; /* SB_NOUSER */
}

static struct filesystem_type anon_types[ANON_KINDS] = {
	[ANON_PIPE] = {.name = "pipefs", .flags = FS_NODEV | FS_MAGIC_LINKS},
	[ANON_SOCKET] = {.name = "sockfs", .flags = FS_NODEV | FS_MAGIC_LINKS},
	[ANON_INODE] = {.name = "anon_inodefs", .flags = FS_NODEV | FS_MAGIC_LINKS},
	[ANON_HOST] = {.name = "hostfd", .flags = FS_NODEV | FS_MAGIC_LINKS},
	[ANON_NS] = {.name = "nsfs", .flags = FS_NODEV | FS_MAGIC_LINKS},
};

static const uint64_t anon_magics[ANON_KINDS] = {
	[ANON_PIPE] = 0x50495045, /* PIPEFS_MAGIC */
	[ANON_SOCKET] = 0x534f434b, /* SOCKFS_MAGIC */
	[ANON_INODE] = 0x09041934, /* ANON_INODE_FS_MAGIC */
	[ANON_HOST] = 0x50495045,   [ANON_NS] = 0x6e736673, /* NSFS_MAGIC */
};

static int anon_fs_create(enum anon_kind kind, struct anon_fs **ret)
{
	struct filesystem_type *type = &anon_types[kind];
	struct anon_args root_args = {.kind = kind, .mode = S_IFDIR | 0500};
	struct anon_fs *afs = calloc(1, sizeof(*afs));
	struct anon_dentry *root;
	int err = -ENOMEM;

	if (!afs)
		return -ENOMEM;
	type->mount = anon_mount;
	type->ops = &anon_ops;
	vfs_register_type(type);
	err = filesystem_init(&afs->fs, type, &anon_ops, type->name);
	if (err)
		goto out_free;
	afs->fs.magic = anon_magics[kind];
	root = anon_dentry_create(&afs->fs, &root_args);
	if (!root) {
		err = -ENOMEM;
		goto out_fs;
	}
	afs->root = &root->d;
	err = mount_create_internal(&afs->fs, afs->root, &afs->mount);
	if (err)
		goto out_root;
	*ret = afs;
	return 0;
out_root:
	dentry_unref(afs->root);
out_fs:
	filesystem_fini(&afs->fs);
out_free:
	free(afs);
	return err;
}

static int anon_init_error;

static void anon_init_once(void)
{
	for (int k = 0; k < ANON_KINDS && !anon_init_error; k++)
		anon_init_error = anon_fs_create((enum anon_kind)k, &anon_fs[k]);
}

int anon_init(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, anon_init_once);
	return anon_init_error;
}

bool anon_is_anon(const struct dentry *d)
{
	return d->fs->ops->get_dentry_at == anon_get_dentry_at;
}

bool anon_name(struct dentry *d, char *buf, size_t size)
{
	static const char *const prefix[ANON_KINDS] = {
		[ANON_PIPE] = "pipe", [ANON_SOCKET] = "socket", [ANON_INODE] = "anon_inode",
		[ANON_HOST] = "host", [ANON_NS] = "ns",
	};
	struct anon_dentry *ad = anon_dentry_of(d);

	if (!anon_is_anon(d))
		return false;
	if (ad->kind == ANON_INODE && ad->name)
		snprintf(buf, size, "anon_inode:%s", ad->name);
	else if (ad->name && ad->name[0] == '/')
		snprintf(buf, size, "%s", ad->name);
	else
		snprintf(buf, size, "%s:[%llu]", ad->name ? ad->name : prefix[ad->kind],
			 (unsigned long long)ad->ino);
	return true;
}

int anon_path_create(const struct anon_args *args, struct vfs_path *ret)
{
	struct anon_dentry *ad;
	int err = anon_init();

	if (err)
		return err;
	ad = anon_dentry_create(&anon_fs[args->kind]->fs, args);
	if (!ad)
		return -ENOMEM;
	ret->mount = anon_fs[args->kind]->mount;
	mount_ref(ret->mount);
	ret->dentry = &ad->d;
	return 0;
}

int anon_file_init(struct file *f, const struct file_ops *ops, const struct anon_args *args,
		   unsigned flags, unsigned mode)
{
	struct vfs_path path;
	int err = anon_path_create(args, &path);

	if (err)
		return err;
	file_init(f, ops, &path, flags, mode);
	vfs_path_unref(&path);
	return 0;
}

int anon_file_stat(struct file *f, unused_arg const struct stat_args *args, struct moat_statx *ret)
{
	anon_fill_stat(anon_dentry_of(f->path.dentry), ret);
	return 0;
}

int anon_file_set_stat(struct file *f, const struct setattr_args *args)
{
	return anon_change(anon_dentry_of(f->path.dentry), cred_current(), args);
}
