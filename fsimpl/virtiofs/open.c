/*
 * fsimpl/virtiofs/open.c - open(2): existing places, O_CREAT, O_TMPFILE, and what is not a regular file.
 *
 * A name to be created is asked for with O_CREAT|O_EXCL without being looked up first: one request where it is new, and what is there already is
 * looked up and opened after that. (A stock daemon dies of O_CREAT without O_EXCL on what exists.) A directory whose names turned out to exist has
 * them looked up first until one does not.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fsimpl/virtiofs/internal.h"
#include "vfs/inotify.h"
#include "vfs/write_access.h"

#define CREATE_TRIES 16

static bool wants_write(unsigned flags)
{
	return (flags & O_ACCMODE) != O_RDONLY;
}

/* What a new file is opened for: who writes may have to read, to complete a page. */
static unsigned created_access(unsigned flags)
{
	return wants_write(flags) ? O_RDWR : flags & O_ACCMODE;
}

unsigned virtiofs_open_access(const struct virtiofs_fs *fs, unsigned flags)
{
	if ((flags & O_TRUNC) || (flags & O_CREAT))
		return flags & O_TRUNC ? O_RDWR : created_access(flags);
	return virtiofs_server_flags(fs, flags) & O_ACCMODE;
}

/* O_TRUNC on an existing file, after all checks. */
static int truncate_at_open(struct resolving_path *rp, struct virtiofs_inode *in,
			    const struct virtiofs_handle *h)
{
	struct setattr_args a = {.valid = SETATTR_SIZE | SETATTR_OPEN};
	struct perm_inode pi;
	int err;

	virtiofs_inode_perm(in, &pi);
	a.mode = vfs_kill_priv_mode_gid(rp_cred(rp), pi.mode, pi.gid);
	if (a.mode != pi.mode)
		a.valid |= SETATTR_MODE;
	a.mode &= 07777;
	op_lock(&in->write_lock);
	err = virtiofs_truncate(in, &a, h);
	op_unlock(&in->write_lock);
	return err;
}

static int open_regular(struct resolving_path *rp, struct remote_dentry *d,
			const struct open_args *args, int64_t since, struct virtiofs_hint *hint,
			struct file **ret)
{
	struct virtiofs_inode *in = virtiofs_inode_of(d);
	bool trunc = args->flags & O_TRUNC;
	struct virtiofs_handle *h;
	unsigned flags = args->flags;
	int err;

	if (trunc && !wants_write(flags))
		flags = (flags & ~(unsigned)O_ACCMODE) | O_RDWR;
	err = virtiofs_hint_take(hint, d, &h);
	if (!err)
		err = virtiofs_handle_open(in, flags, &h);
	if (err < 0)
		return err;
	err = 0;
	/* Close-to-open: what is cached must be what is there now. Who never looks needs not ask. */
	if (trunc)
		err = truncate_at_open(rp, in, h);
	else if (in->fs->options.cache != VIRTIOFS_CACHE_ALWAYS && !virtiofs_inode_asked(in, since))
		atomic_store_explicit(&h->unchecked, true, memory_order_release);
	else if (!(h->open_flags & FOPEN_KEEP_CACHE))
		virtiofs_data_revalidate(in);
	if (err) {
		virtiofs_handle_unref(h);
		return err;
	}
	return virtiofs_file_create(rp, d, h, args->flags, ret);
}

static int open_special(struct resolving_path *rp, struct remote_dentry *d,
			const struct open_args *args, struct file **ret)
{
	struct virtiofs_inode *in = virtiofs_inode_of(d);
	struct moat_statx st;
	struct vfs_path place;

	if (in->base.type == S_IFSOCK || !vfs_hooks.open_special)
		return -ENXIO;
	virtiofs_inode_stat(in, &st);
	rp_place(rp, &d->d, &place);
	return vfs_hooks.open_special(&place, in->base.type, st.rdev_major, st.rdev_minor, in->key,
				      args->flags, ret);
}

/* d is what the path leads to. sticky_dir: O_CREAT found it there. hint: its handle may be there already. */
static int open_existing(struct resolving_path *rp, struct remote_dentry *d,
			 const struct perm_inode *sticky_dir, const struct open_args *args,
			 int64_t since, struct virtiofs_hint *hint, struct file **ret)
{
	struct virtiofs_inode *in = virtiofs_inode_of(d);
	struct perm_inode pi;
	int err = 0;

	if (args->flags & O_PATH)
		return remote_path_file_create(rp, d, args->flags, ret);
	virtiofs_inode_perm(in, &pi);
	if (sticky_dir && S_ISDIR(pi.mode))
		err = -EISDIR;
	if (!err && sticky_dir && (S_ISREG(pi.mode) || S_ISFIFO(pi.mode)))
		err = vfs_may_create_in_sticky(rp_cred(rp), sticky_dir, &pi);
	if (!err && (args->flags & O_DIRECTORY) && !S_ISDIR(pi.mode))
		err = -ENOTDIR;
	/* As do_open(): a mount that cannot be written to is told of before the rights, where the file is cut. */
	if (!err && S_ISREG(pi.mode) && (args->flags & O_TRUNC))
		err = rp_begin_write(rp);
	if (!err)
		err = virtiofs_acl_ensure(rp_cred(rp), in);
	if (!err) {
		rcu_read_begin();
		virtiofs_inode_perm_acl(in, &pi);
		err = vfs_may_open(rp_cred(rp), rp_mount(rp), &pi, args->flags, args->exec);
		rcu_read_end();
	}
	if (!err && S_ISREG(pi.mode) && (wants_write(args->flags) || (args->flags & O_TRUNC)))
		err = rp_begin_write(rp);
	if (!err && (args->flags & O_TRUNC))
		err = vfs_may_truncate(&d->d);
	if (err)
		return err;
	if (S_ISREG(pi.mode))
		return open_regular(rp, d, args, since, hint, ret);
	if (S_ISDIR(pi.mode))
		return virtiofs_dir_create(rp, d, args->flags, ret);
	return open_special(rp, d, args, ret);
}

static int open_plain(struct virtiofs_fs *fs, struct resolving_path *rp,
		      const struct open_args *args, struct file **ret)
{
	int64_t since = virtiofs_now(fs).time;
	struct virtiofs_hint hint = {.args = args};
	struct remote_dentry *d;
	int err = virtiofs_begin(fs, rp, false);

	if (err)
		return err;
	rwlock_read_lock(&fs->tree_lock);
	err = virtiofs_walk_hinted(fs, rp, false, since, args->flags & O_PATH ? NULL : &hint, &d);
	rwlock_read_unlock(&fs->tree_lock);
	if (!err) {
		err = open_existing(rp, d, NULL, args, since, &hint, ret);
		remote_dentry_unref(d);
	}
	virtiofs_hint_fini(&hint);
	return err;
}

/* ---- creation ---- */

static int may_create(struct resolving_path *rp, struct remote_dentry *dir,
		      struct perm_inode *ret_pi)
{
	int err = rp_begin_write(rp);

	if (err)
		return err;
	if (remote_is_dead(dir))
		return -ENOENT;
	virtiofs_inode_perm(virtiofs_inode_of(dir), ret_pi);
	return virtiofs_permission(rp_cred(rp), virtiofs_inode_of(dir), W_OK | X_OK);
}

struct newfile {
	struct remote_dentry *d; /* a reference */
	struct virtiofs_handle *h; /* a reference: it was created */
};

/* What CREATE and MKNOD answer. */
struct create_reply {
	struct fuse_entry_out e;
	struct fuse_open_out o; /* CREATE's only */
};

/* A new file asked for: by CREATE, MKNOD or TMPFILE, with the owner and mode that the guest's rules give it. Return: 0, -errno. */
static int create_rpc(struct virtiofs_fs *fs, struct resolving_path *rp, struct remote_dentry *dir,
		      const struct perm_inode *pi, const struct open_args *args, uint32_t opcode,
		      struct create_reply *reply)
{
	bool named = opcode != FUSE_TMPFILE, by_mknod = opcode == FUSE_MKNOD;
	uint32_t mode = virtiofs_masked(fs, args->mode & 07777, args->umask) | S_IFREG, uid, gid;
	struct fuse_create_in create = {.umask = args->umask};
	struct fuse_mknod_in mknod = {.umask = args->umask};
	struct vdev_call call = {
		.req = {.opcode = opcode,
			.nodeid = virtiofs_inode_of(dir)->nodeid,
			.arg = by_mknod ? (const void *)&mknod : &create,
			.name = {named ? rp_component(rp) : "tmpfile"},
			.name_len = {named ? rp_component_len(rp) : 7}},
		.reply = reply,
		.reply_size = by_mknod ? sizeof(reply->e) : sizeof(*reply),
	};
	ssize_t got;

	vfs_init_owner(rp_cred(rp), pi, &mode, &uid, &gid);
	create.mode = mknod.mode = mode;
	create.flags = created_access(args->flags) | (args->flags & O_EXCL);
	create.flags |= named ? O_CREAT | O_EXCL : O_TMPFILE;
	got = virtiofs_create_call(fs, &call, S_IFREG, uid, gid, &reply->e);
	return got < 0 ? (int)got : 0;
}

/* CREATE, or MKNOD and OPEN for a server without it. Pre: tree_lock for writing, everything allowed. */
static int create_open(struct virtiofs_fs *fs, struct resolving_path *rp, struct remote_dentry *dir,
		       const struct perm_inode *pi, const struct open_args *args,
		       struct newfile *ret)
{
	const struct virtiofs_when when = virtiofs_now(fs);
	unsigned epoch = vdev_epoch(fs->dev);
	struct create_reply reply;
	bool by_mknod = false;
	int err = create_rpc(fs, rp, dir, pi, args, FUSE_CREATE, &reply);

	if (err == -ENOSYS) {
		by_mknod = true;
		err = create_rpc(fs, rp, dir, pi, args, FUSE_MKNOD, &reply);
	}
	/* It may have been made, and not be given to its owner then. */
	if (err != -EEXIST)
		virtiofs_inode_touched(virtiofs_inode_of(dir));
	if (err) {
		remote_forget_negative(&fs->dcache, dir, rp_component(rp), rp_component_len(rp));
		return err;
	}
	err = virtiofs_enter(fs, dir, rp_component(rp), rp_component_len(rp), &reply.e, when,
			     &ret->d);
	if (err)
		return err;
	err = by_mknod ? virtiofs_handle_open(virtiofs_inode_of(ret->d), args->flags, &ret->h)
		       : virtiofs_handle_adopt(virtiofs_inode_of(ret->d),
					       created_access(args->flags), epoch, &reply.o,
					       &ret->h);
	if (err)
		remote_dentry_unref(ret->d);
	return err;
}

/* A file without a name. A server that has no TMPFILE is a filesystem without O_TMPFILE. */
static int open_tmpfile(struct virtiofs_fs *fs, struct resolving_path *rp,
			const struct open_args *args, struct file **ret)
{
	const struct virtiofs_when when = virtiofs_now(fs);
	unsigned epoch = vdev_epoch(fs->dev);
	struct remote_dentry *dir, *d = NULL;
	struct create_reply reply;
	struct virtiofs_handle *h;
	struct virtiofs_inode *in;
	struct perm_inode pi;
	char name[32]; /* Linux shows "#ino (deleted)" */
	int err = virtiofs_begin(fs, rp, false);

	if (err)
		return err;
	rwlock_read_lock(&fs->tree_lock);
	err = virtiofs_walk(fs, rp, false, when.time, &dir);
	if (err) {
		rwlock_read_unlock(&fs->tree_lock);
		return err;
	}
	err = remote_is_dir(dir) ? may_create(rp, dir, &pi) : -ENOTDIR;
	if (!err)
		err = create_rpc(fs, rp, dir, &pi, args, FUSE_TMPFILE, &reply);
	if (!err)
		err = virtiofs_inode_get(fs, &reply.e, when, &in);
	rwlock_read_unlock(&fs->tree_lock);
	if (!err) {
		snprintf(name, sizeof(name), "#%llu", (unsigned long long)reply.e.attr.ino);
		d = remote_dentry_create(&fs->dcache, dir, name, strlen(name), &in->base);
		err = d ? virtiofs_handle_adopt(in, created_access(args->flags), epoch, &reply.o,
						&h)
			: -ENOMEM;
	}
	if (!err)
		err = virtiofs_file_create(rp, d, h, args->flags & ~(unsigned)O_TMPFILE, ret);
	remote_dentry_unref(d);
	remote_dentry_unref(dir);
	return err == -ENOSYS ? -EOPNOTSUPP : err;
}

/*
 * O_CREAT of a name of which nothing is known. Return: 0: made; -EEXIST: it is there, look it up; 1: not to be tried, because a refusal
 * must not hide what is there, or because it was mostly there lately.
 */
static int create_unseen(struct virtiofs_fs *fs, struct resolving_path *rp,
			 struct remote_dentry *dir, const struct open_args *args,
			 struct newfile *ret)
{
	struct virtiofs_inode *in = virtiofs_inode_of(dir);
	struct remote_dentry *d;
	struct perm_inode pi;
	int err;

	d = virtiofs_believed(fs, dir, rp_component(rp), rp_component_len(rp));
	err = d && d->inode;
	remote_dentry_unref(d);
	if (err || may_create(rp, dir, &pi))
		return 1;
	if (!d && !(args->flags & O_EXCL) &&
	    atomic_load_explicit(&in->creates_exist, memory_order_relaxed))
		return 1;
	err = create_open(fs, rp, dir, &pi, args, ret);
	if (err == -EEXIST) {
		atomic_store_explicit(&in->creates_exist, true, memory_order_relaxed);
		/* Somebody else was faster, on the host. */
		remote_forget_negative(&fs->dcache, dir, rp_component(rp), rp_component_len(rp));
	}
	return err;
}

/* What the walk's request opened or made, if it is the final component in dir: a reference. */
static struct remote_dentry *found_by_hint(const struct virtiofs_hint *hint,
					   const struct remote_dentry *dir,
					   const struct resolving_path *rp)
{
	const struct remote_key *key = hint->child ? rcu_load(hint->child->key) : NULL;

	if (!key || key->parent != dir || key->len != rp_component_len(rp) ||
	    memcmp(key->name, rp_component(rp), key->len) != 0)
		return NULL;
	return remote_dentry_ref(hint->child);
}

/*
 * The final component of an O_CREAT walk, which stands at dir. tree_lock is held for writing.
 * Return: 0: *ret; RP_STAY: a symlink was followed, walk on; -errno; a restart.
 */
static int create_or_find(struct virtiofs_fs *fs, struct resolving_path *rp,
			  struct remote_dentry *dir, const struct open_args *args,
			  struct virtiofs_hint *hint, struct newfile *ret)
{
	struct virtiofs_inode *in = virtiofs_inode_of(dir);
	struct remote_dentry *d = found_by_hint(hint, dir, rp);
	struct perm_inode pi;
	int err = rp_check_name(rp);

	if (!err && d && hint->created) {
		err = virtiofs_hint_take(hint, d, &ret->h);
		ret->d = d;
		return MIN(err, 0);
	}
	for (unsigned tries = 0; !err && !d && tries < CREATE_TRIES; tries++) {
		err = create_unseen(fs, rp, dir, args, ret);
		if (err <= 0 && err != -EEXIST)
			return err;
		err = virtiofs_lookup(fs, dir, rp_component(rp), rp_component_len(rp), &d);
		if (err != -ENOENT)
			break;
		atomic_store_explicit(&in->creates_exist, false, memory_order_relaxed);
		err = may_create(rp, dir, &pi);
	}
	if (!err && !d)
		err = -EEXIST; /* it comes and goes */
	if (err)
		return err;
	err = rp_check_mount(rp, &d->d);
	if (!err && (args->flags & O_EXCL))
		err = -EEXIST;
	if (!err && d->inode->type == S_IFLNK && rp_should_follow(rp)) {
		err = virtiofs_follow(rp, dir, d);
		if (!err)
			err = RP_STAY;
	}
	if (err) {
		remote_dentry_unref(d);
		return err;
	}
	ret->d = d;
	return 0;
}

/* One pass of O_CREAT: to the parent, then its final name. RP_STAY: again. */
static int create_pass(struct virtiofs_fs *fs, struct resolving_path *rp,
		       const struct open_args *args, struct file **ret)
{
	int64_t since = virtiofs_now(fs).time;
	struct virtiofs_hint hint = {.args = args};
	struct newfile nf = {0};
	struct remote_dentry *dir;
	struct perm_inode pi;
	int err = virtiofs_begin(fs, rp, true);

	if (err)
		return err;
	rwlock_write_lock(&fs->tree_lock);
	err = virtiofs_walk_hinted(fs, rp, true, since, &hint, &dir);
	if (err) {
		rwlock_write_unlock(&fs->tree_lock);
		virtiofs_hint_fini(&hint);
		return err;
	}
	err = rp_check_open_create(rp, args->flags);
	/* No name left: the root of a mount, which may be a file. */
	if (!err && rp_done(rp))
		nf.d = remote_dentry_ref(dir);
	else if (!err)
		err = create_or_find(fs, rp, dir, args, &hint, &nf);
	if (err == RP_STAY) {
		/* The walk goes on from the link's directory: the rp keeps it. */
		rp_hold(rp, &remote_dentry_ref(dir)->d);
		rp->start = &dir->d;
	}
	rwlock_write_unlock(&fs->tree_lock);
	if (!err && nf.h) {
		const struct remote_key *key = rcu_load(nf.d->key);

		vfs_notify_name(&dir->d, IN_CREATE, 0, key->name, key->len, false);
		err = virtiofs_file_create(rp, nf.d, nf.h, args->flags, ret);
		if (!err)
			(*ret)->mode |= FILE_CREATED;
	} else if (!err) {
		virtiofs_inode_perm(virtiofs_inode_of(dir), &pi);
		err = open_existing(rp, nf.d, &pi, args, since, &hint, ret);
	}
	virtiofs_hint_fini(&hint);
	remote_dentry_unref(nf.d);
	remote_dentry_unref(dir);
	return err;
}

int virtiofs_open_at(struct filesystem *base, struct resolving_path *rp,
		     const struct open_args *args, struct file **ret_file)
{
	struct virtiofs_fs *fs = virtiofs_fs_of(base);
	int err;

	if (!(args->flags & O_PATH)) {
		if ((args->flags & O_TMPFILE) == O_TMPFILE)
			return open_tmpfile(fs, rp, args, ret_file);
		if (args->flags & O_CREAT) {
			do
				err = create_pass(fs, rp, args, ret_file);
			while (err == RP_STAY);
			return err;
		}
	}
	return open_plain(fs, rp, args, ret_file);
}
