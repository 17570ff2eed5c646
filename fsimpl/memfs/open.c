/*
 * fsimpl/memfs/open.c - open(2): existing files, O_CREAT, O_TMPFILE, O_PATH. Errors in the order of Linux's open_last_lookups() and do_open().
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "fsimpl/memfs/internal.h"
#include "vfs/write_access.h"

/* ---- O_PATH ---- */

static void path_only_release(struct file *f)
{
	file_free(f);
}

static const struct file_ops path_only_ops = {.name = "path", .release = path_only_release};

int memfs_open_path_only(const struct vfs_path *place, unsigned flags, struct file **ret)
{
	struct file *f = malloc(sizeof(*f));

	if (!f)
		return -ENOMEM;
	file_init(f, &path_only_ops, place, flags, 0);
	*ret = f;
	return 0;
}

/* ---- opening what is there ---- */

static int open_special(struct memfs_dentry *d, const struct vfs_path *place, unsigned flags,
			struct file **ret)
{
	struct memfs_special *s = memfs_special_of(d->inode);
	uint32_t mode = memfs_mode(d->inode);

	if (S_ISSOCK(mode) || !vfs_hooks.open_special)
		return -ENXIO;
	/* 0/0 is overlayfs's whiteout: no driver. */
	if (S_ISCHR(mode) && !s->rdev_major && !s->rdev_minor)
		return -ENXIO;
	return vfs_hooks.open_special(place, mode & S_IFMT, s->rdev_major, s->rdev_minor,
				      (uint64_t)(uintptr_t)d->inode, flags, ret);
}

static int open_reg(struct resolving_path *rp, struct memfs_dentry *d, const struct vfs_path *place,
		    unsigned flags, bool created, struct file **ret)
{
	/* Access mode 3 asks for both permissions and gives neither. */
	bool write = (flags & O_ACCMODE) == O_WRONLY || (flags & O_ACCMODE) == O_RDWR;
	unsigned mode = FILE_SEEKABLE;
	int err;

	if (write) {
		err = mount_begin_write(place->mount);
		if (err)
			return err;
		mode |= FILE_WRITER;
	}
	if ((flags & O_TRUNC) && !created) {
		struct setattr_args args = {.valid = SETATTR_SIZE | SETATTR_OPEN};

		err = vfs_may_truncate(&d->d);
		if (!err)
			err = memfs_inode_setattr(d, rp_cred(rp), &args);
		if (err)
			goto out_write;
	}
	err = memfs_open_reg(d, place, flags, mode, ret);
	if (!err)
		return 0;
out_write:
	if (write)
		mount_end_write(place->mount);
	return err;
}

/* d is referenced for the call, rp in reference mode. */
static int open_dentry(struct resolving_path *rp, struct memfs_dentry *d,
		       const struct open_args *args, bool created, struct file **ret)
{
	unsigned flags = args->flags;
	struct perm_inode pi;
	struct vfs_path place;
	uint32_t mode;
	int err;

	rp_place(rp, &d->d, &place);
	mode = memfs_mode(d->inode);
	if ((flags & O_DIRECTORY) && !S_ISDIR(mode))
		return -ENOTDIR;
	if (flags & O_PATH)
		return memfs_open_path_only(&place, flags, ret);
	if (!created) {
		if ((flags & O_TRUNC) && S_ISREG(mode)) {
			err = rp_begin_write(rp);
			if (err)
				return err;
		}
		rcu_read_begin();
		pi = memfs_perm(d->inode);
		err = vfs_may_open(rp_cred(rp), rp_mount(rp), &pi, flags, args->exec);
		rcu_read_end();
		if (err)
			return err;
	}
	switch (mode & S_IFMT) {
	case S_IFDIR:
		return memfs_open_dir(d, &place, flags, ret);
	case S_IFREG:
		return open_reg(rp, d, &place, flags, created, ret);
	default:
		return open_special(d, &place, flags, ret);
	}
}

/* ---- O_TMPFILE ---- */

static int open_tmpfile(struct resolving_path *rp, const struct open_args *args, struct file **ret)
{
	struct memfs_dentry *dir, *d;
	struct memfs_inode *inode;
	struct memfs_new how;
	struct vfs_path place;
	char name[32];
	int err, len;

	err = memfs_resolve(rp, false, &dir);
	if (err)
		return err;
	if (!memfs_is_dir(dir))
		return -ENOTDIR;
	err = rp_begin_write(rp);
	if (!err)
		err = memfs_permission(dir->inode, rp_cred(rp), W_OK | X_OK);
	if (err)
		return err;
	how = (struct memfs_new){.mode = S_IFREG | (args->mode & 07777),
				 .umask = args->umask,
				 .cred = rp_cred(rp),
				 .dir = dir};
	err = memfs_inode_create(memfs_of(dir->d.fs), &how, &inode);
	if (err)
		return err;
	len = snprintf(name, sizeof(name), "#%llu", (unsigned long long)inode->ino);
	err = memfs_dentry_create(memfs_of(dir->d.fs), dir, name, (size_t)len, inode, &d);
	if (err) {
		memfs_inode_unref(inode);
		return err;
	}
	atomic_store_explicit(&inode->nlink, 0, memory_order_relaxed);
	atomic_fetch_or_explicit(&d->d.flags,
				 DENTRY_DEAD | (args->flags & O_EXCL ? 0 : DENTRY_LINKABLE),
				 memory_order_release);
	rp_place(rp, &d->d, &place);
	err = open_reg(rp, d, &place, args->flags & ~(unsigned)(O_TMPFILE | O_TRUNC), true, ret);
	dentry_unref(&d->d);
	return err;
}

/* ---- O_CREAT ---- */

/* Makes the file. Return: 0 with a reference, -EEXIST if somebody was faster. */
static int create(struct resolving_path *rp, struct memfs_dentry *dir, const struct open_args *args,
		  struct memfs_dentry **ret)
{
	const char *name = rp_component(rp);
	unsigned len = rp_component_len(rp);
	struct memfs_inode *inode;
	struct memfs_dentry *d;
	struct memfs_new how;
	int err;

	err = memfs_is_dead(dir) ? -ENOENT : rp_begin_write(rp);
	if (!err)
		err = memfs_permission(dir->inode, rp_cred(rp), W_OK | X_OK);
	if (err)
		return err;
	how = (struct memfs_new){.mode = S_IFREG | (args->mode & 07777),
				 .umask = args->umask,
				 .cred = rp_cred(rp),
				 .dir = dir};
	err = memfs_inode_create(memfs_of(dir->d.fs), &how, &inode);
	if (err)
		return err;
	err = memfs_dir_enter(dir, name, len, inode, &d);
	if (err)
		return err;
	vfs_notify_name(&dir->d, IN_CREATE, 0, name, len, false);
	*ret = d;
	return 0;
}

/* An existing final component: 0 with *ret referenced, RP_STAY: a symlink was followed, go on; restarts, -errno. */
static int open_found(struct resolving_path *rp, struct memfs_dentry *dir, struct memfs_dentry *d,
		      const struct open_args *args)
{
	struct perm_inode dir_perm, pi;
	uint32_t mode;
	int err;

	/* Where a mount may not be crossed that is said first. */
	if ((args->flags & O_EXCL) && !(rp->flags & LOOKUP_NO_XDEV))
		return -EEXIST;
	err = rp_check_mount(rp, &d->d);
	if (err)
		return err;
	if (args->flags & O_EXCL)
		return -EEXIST;
	mode = memfs_mode(d->inode);
	rcu_read_begin();
	dir_perm = memfs_perm(dir->inode);
	pi = memfs_perm(d->inode);
	if (S_ISDIR(mode))
		err = -EISDIR;
	else if (S_ISLNK(mode) && rp_should_follow(rp))
		err = vfs_may_follow_link(rp_cred(rp), &dir_perm, &pi);
	else
		err = vfs_may_create_in_sticky(rp_cred(rp), &dir_perm, &pi);
	if (!err && S_ISLNK(mode) && !rp_should_follow(rp))
		err = -ELOOP;
	rcu_read_end();
	if (err || !S_ISLNK(mode))
		return err;
	memfs_update_atime(d->inode, rp_mount(rp), 0);
	err = rp_follow_symlink(rp, memfs_link_of(d->inode)->target, memfs_link_of(d->inode)->len);
	return err ? err : RP_STAY;
}

static int open_create(struct resolving_path *rp, const struct open_args *args, struct file **ret)
{
	struct memfs_dentry *dir, *d;
	bool created;
	int err;

	for (;;) {
		err = memfs_resolve(rp, true, &dir);
		if (!err)
			err = rp_check_open_create(rp, args->flags);
		if (err)
			return err;
		if (rp_done(rp)) { /* the start, or what ".." led to: it exists */
			if (memfs_is_dir(dir))
				return -EISDIR;
			return open_dentry(rp, dir, args, false, ret);
		}
		if (rp_check_name(rp))
			return memfs_name_error(dir);
		rcu_read_begin();
		d = memfs_dir_find(dir, rp_component(rp), rp_component_len(rp));
		if (d && !ref_tryget(&d->d.ref)) {
			rcu_read_end();
			continue; /* removed just now */
		}
		rcu_read_end();
		created = !d;
		err = d ? open_found(rp, dir, d, args) : create(rp, dir, args, &d);
		if (created && err == -EEXIST && !(args->flags & O_EXCL))
			continue;
		if (created && err)
			return err;
		if (!err)
			err = open_dentry(rp, d, args, created, ret);
		if (!err && created)
			(*ret)->mode |= FILE_CREATED;
		dentry_unref(&d->d);
		if (err != RP_STAY)
			return err;
	}
}

int memfs_open_at(struct filesystem *fs unused_arg, struct resolving_path *rp,
		  const struct open_args *args, struct file **ret)
{
	struct memfs_dentry *d;
	int err;

	if (!(args->flags & O_PATH)) {
		if ((args->flags & O_TMPFILE) == O_TMPFILE)
			return open_tmpfile(rp, args, ret);
		if (args->flags & O_CREAT)
			return open_create(rp, args, ret);
	}
	err = memfs_resolve(rp, false, &d);
	return err ? err : open_dentry(rp, d, args, false, ret);
}
