/* gofer/virtiofs/ops.c - requests on names and attributes. */
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "gofer/virtiofs/server.h"

#define RENAME_FLAGS (RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT)

/* Copies the fixed argument: requests are not aligned. */
#define ARG(r, type)                                      \
	({                                                \
		type arg_;                                \
		memcpy(&arg_, (r)->in.arg, sizeof(arg_)); \
		arg_;                                     \
	})

int check_name(const char *name, size_t len)
{
	if (!len || len > FUSE_NAME_BYTES_MAX)
		return len ? -ENAMETOOLONG : -EINVAL;
	if (memchr(name, '/', len) || !strcmp(name, ".") || !strcmp(name, ".."))
		return -EINVAL;
	return 0;
}

void attr_from_statx(const struct statx *stx, struct fuse_attr *ret)
{
	*ret = (struct fuse_attr){
		.ino = stx->stx_ino,
		.size = stx->stx_size,
		.blocks = stx->stx_blocks,
		.atime = (uint64_t)stx->stx_atime.tv_sec,
		.mtime = (uint64_t)stx->stx_mtime.tv_sec,
		.ctime = (uint64_t)stx->stx_ctime.tv_sec,
		.atimensec = stx->stx_atime.tv_nsec,
		.mtimensec = stx->stx_mtime.tv_nsec,
		.ctimensec = stx->stx_ctime.tv_nsec,
		.mode = stx->stx_mode,
		.nlink = stx->stx_nlink,
		.uid = stx->stx_uid,
		.gid = stx->stx_gid,
		.rdev = (stx->stx_rdev_minor & 0xff) | (stx->stx_rdev_major << 8) |
			((stx->stx_rdev_minor & ~0xffu) << 12),
		.blksize = stx->stx_blksize,
	};
}

/* Attributes as the client is told: with what is to be mapped, where it asked. */
static void fill_attr(const struct daemon *d, const struct statx *stx, struct fuse_attr *ret)
{
	attr_from_statx(stx, ret);
	if (d->inode_dax && S_ISREG(stx->stx_mode) && stx->stx_size >= DAX_FILE_MIN)
		ret->flags |= FUSE_ATTR_DAX;
}

/* How long the client may believe it, where no version says. */
static uint64_t valid_seconds(const struct daemon *d)
{
	switch (d->config.cache) {
	case VIRTIOFSD_NONE:
		return 0;
	case VIRTIOFSD_ALWAYS:
		return 86400;
	default:
		return 1;
	}
}

static int stat_node(struct daemon *d, uint64_t id, struct statx *ret)
{
	struct node *n = node_get(d, id);
	int err = n ? stat_fd_now(n->fd, ret) : -ESTALE;

	if (n)
		node_put(d, n);
	return err;
}

int enter_entry(struct daemon *d, const struct node *dir, int fd, uint64_t name_version,
		struct fuse_entry_out *ret)
{
	struct statx stx;
	int err = stat_fd_now(fd, &stx);

	if (err) {
		close(fd);
		return err;
	}
	*ret = (struct fuse_entry_out){0};
	err = node_enter(d, fd, &stx, ret);
	if (err)
		return err;
	if (d->versions_on) {
		ret->entry_valid = name_version;
		/* The version is older than what it stands for: the file is looked at again behind it. */
		err = stat_node(d, ret->nodeid, &stx);
		if (err) {
			node_forget(d, ret->nodeid, 1);
			return err;
		}
	} else {
		ret->entry_valid = ret->attr_valid = valid_seconds(d);
	}
	fill_attr(d, &stx, &ret->attr);
	if (d->submounts && S_ISDIR(stx.stx_mode) && dev_of(&stx) != dir->dev)
		ret->attr.flags |= FUSE_ATTR_SUBMOUNT;
	return 0;
}

int lookup_entry(struct daemon *d, const struct node *dir, const char *name,
		 struct fuse_entry_out *ret)
{
	uint64_t name_version = d->versions_on ? version_of_name(d, dir, name) : 0;
	int fd = openat(dir->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

	return fd < 0 ? -errno : enter_entry(d, dir, fd, name_version, ret);
}

static int reply_entry(struct request *r, const struct node *dir, const char *name)
{
	struct fuse_entry_out out;
	int err = lookup_entry(r->d, dir, name, &out);

	if (err)
		return err;
	memcpy(r->reply, &out, sizeof(out));
	r->reply_size = sizeof(out);
	return 0;
}

static int reply_attr(struct request *r, const struct node *n)
{
	struct fuse_attr_out out = {
		.attr_valid = r->d->versions_on ? version_of(r->d, n) : valid_seconds(r->d),
	};
	struct statx stx;
	int err = stat_fd_now(n->fd, &stx);

	if (err)
		return err;
	fill_attr(r->d, &stx, &out.attr);
	memcpy(r->reply, &out, sizeof(out));
	r->reply_size = sizeof(out);
	return 0;
}

static int do_lookup(struct request *r, struct node *n)
{
	return reply_entry(r, n, r->in.name[0]);
}

static int do_getattr(struct request *r, struct node *n)
{
	return reply_attr(r, n);
}

/* ---- SETATTR ---- */

static int set_mode(struct daemon *d, int fd, uint32_t mode)
{
	char path[16];

	fd_path(fd, path);
	return fchmodat(d->proc_fd, path, mode & 07777, 0) < 0 ? -errno : 0;
}

void kill_privileges(struct daemon *d, int fd)
{
	struct statx stx;

	/* The host's kernel takes away file capabilities at any write; these, not from root. */
	if (stat_fd_now(fd, &stx) || !S_ISREG(stx.stx_mode))
		return;
	if ((stx.stx_mode & S_ISUID) || (stx.stx_mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP))
		(void)set_mode(d, fd,
			       stx.stx_mode & ~(S_ISUID | (stx.stx_mode & S_IXGRP ? S_ISGID : 0u)));
}

static int set_size(struct request *r, struct node *n, const struct fuse_setattr_in *a)
{
	struct handle *h = a->valid & FATTR_FH ? handle_get(r->d, a->fh, false) : NULL;
	int fd, err = 0;

	if (r->d->killpriv && (a->valid & FATTR_KILL_SUIDGID))
		kill_privileges(r->d, n->fd);
	if (h) {
		err = ftruncate(h->fd, (off_t)a->size) < 0 ? -errno : 0;
		handle_put(r->d, h);
		return err;
	}
	fd = node_open(r->d, n, O_WRONLY);
	if (fd < 0)
		return fd;
	if (ftruncate(fd, (off_t)a->size) < 0)
		err = -errno;
	close(fd);
	return err;
}

static int set_times(struct request *r, struct node *n, const struct fuse_setattr_in *a)
{
	struct timespec ts[2] = {
		{.tv_sec = (time_t)a->atime, .tv_nsec = a->atimensec},
		{.tv_sec = (time_t)a->mtime, .tv_nsec = a->mtimensec},
	};

	if (!(a->valid & FATTR_ATIME))
		ts[0].tv_nsec = UTIME_OMIT;
	else if (a->valid & FATTR_ATIME_NOW)
		ts[0].tv_nsec = UTIME_NOW;
	else if (a->atimensec >= 1000000000)
		return -EINVAL;
	if (!(a->valid & FATTR_MTIME))
		ts[1].tv_nsec = UTIME_OMIT;
	else if (a->valid & FATTR_MTIME_NOW)
		ts[1].tv_nsec = UTIME_NOW;
	else if (a->mtimensec >= 1000000000)
		return -EINVAL;
	(void)r;
	return utimensat(n->fd, "", ts, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

static int do_setattr(struct request *r, struct node *n)
{
	const struct fuse_setattr_in a = ARG(r, struct fuse_setattr_in);
	int err = 0;

	/* Owner before mode: changing the owner takes setuid bits away. */
	if (a.valid & (FATTR_UID | FATTR_GID))
		err = fchownat(n->fd, "", a.valid & FATTR_UID ? a.uid : (uid_t)-1,
			       a.valid & FATTR_GID ? a.gid : (gid_t)-1,
			       AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0
			      ? -errno
			      : 0;
	if (!err && (a.valid & FATTR_SIZE))
		err = set_size(r, n, &a);
	if (!err && (a.valid & FATTR_MODE))
		err = n->type == S_IFLNK ? -EOPNOTSUPP : set_mode(r->d, n->fd, a.mode);
	if (!err && (a.valid & (FATTR_ATIME | FATTR_MTIME)))
		err = set_times(r, n, &a);
	/* What was done before it failed, too. */
	version_changed(r->d, n);
	return err ? err : reply_attr(r, n);
}

/* ---- creation ---- */

void set_umask(uint32_t mask)
{
	static _Thread_local uint32_t now; /* 0: daemon_confine() */

	if (now == (mask & 0777))
		return;
	now = mask & 0777;
	umask(now);
}

/*
 * New objects are made by root, and then given away: supplementary groups and the rights of the caller are the client's to check. They are made with the
 * caller's umask, by a thread that has one of its own, so that the host applies it, or the directory's default ACL in its place. In a
 * setgid directory they take its group, and directories the bit. chown(2) takes setuid and setgid away: they come last.
 */
int give_to_caller(const struct request *r, const struct node *dir, int fd, uint32_t mode)
{
	uint32_t gid = r->in.head.gid, special = mode & (S_ISUID | S_ISGID | S_ISVTX);
	struct statx parent, made;
	int err = stat_fd_now(dir->fd, &parent);

	if (!err)
		err = stat_fd_now(fd, &made);
	if (err)
		return err;
	if (parent.stx_mode & S_ISGID) {
		gid = parent.stx_gid;
		if (S_ISDIR(mode))
			special |= S_ISGID;
	}
	if ((made.stx_uid != r->in.head.uid || made.stx_gid != gid) &&
	    fchownat(fd, "", r->in.head.uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (S_ISLNK(mode) || (made.stx_mode & 07000u) == special)
		return 0;
	return set_mode(r->d, fd, (made.stx_mode & 0777) | special);
}

int remove_name(struct daemon *d, const struct node *dir, const char *name, int flags)
{
	int held = version_hold(d, dir, name),
	    err = unlinkat(dir->fd, name, flags) < 0 ? -errno : 0;

	version_name_changed(d, dir, name);
	version_drop_held(d, held);
	return err;
}

/* `name` was just made in dir. On an error it goes again. */
static int finish_new(struct request *r, struct node *dir, const char *name, uint32_t mode)
{
	int fd = openat(dir->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC), err;

	if (fd < 0)
		return -errno;
	err = give_to_caller(r, dir, fd, mode);
	version_fd_changed(r->d, fd);
	version_name_changed(r->d, dir, name);
	close(fd);
	if (!err)
		err = reply_entry(r, dir, name);
	if (err)
		(void)remove_name(r->d, dir, name, S_ISDIR(mode) ? AT_REMOVEDIR : 0);
	return err;
}

static int do_mkdir(struct request *r, struct node *n)
{
	const struct fuse_mkdir_in a = ARG(r, struct fuse_mkdir_in);

	set_umask(a.umask);
	if (mkdirat(n->fd, r->in.name[0], a.mode & 0777) < 0)
		return -errno;
	return finish_new(r, n, r->in.name[0], (a.mode & 07777) | S_IFDIR);
}

static int do_mknod(struct request *r, struct node *n)
{
	const struct fuse_mknod_in a = ARG(r, struct fuse_mknod_in);
	uint32_t minor_bits = (a.rdev & 0xff) | ((a.rdev >> 12) & 0xfff00);

	set_umask(a.umask);
	if (mknodat(n->fd, r->in.name[0], a.mode & (S_IFMT | 0777),
		    makedev((a.rdev >> 8) & 0xfff, minor_bits)) < 0)
		return -errno;
	return finish_new(r, n, r->in.name[0], a.mode);
}

static int do_symlink(struct request *r, struct node *n)
{
	int err = check_name(r->in.name[0], r->in.name_len[0]);

	if (err)
		return err;
	if (symlinkat(r->in.name[1], n->fd, r->in.name[0]) < 0)
		return -errno;
	return finish_new(r, n, r->in.name[0], S_IFLNK | 0777);
}

static int do_link(struct request *r, struct node *n)
{
	const struct fuse_link_in a = ARG(r, struct fuse_link_in);
	struct node *old = node_get(r->d, a.oldnodeid);
	char path[16];
	int err = 0;

	if (!old)
		return -ESTALE;
	fd_path(old->fd, path);
	if (linkat(r->d->proc_fd, path, n->fd, r->in.name[0], AT_SYMLINK_FOLLOW) < 0)
		err = -errno;
	version_changed(r->d, old);
	version_name_changed(r->d, n, r->in.name[0]);
	node_put(r->d, old);
	return err ? err : reply_entry(r, n, r->in.name[0]);
}

static int do_readlink(struct request *r, struct node *n)
{
	ssize_t len = readlinkat(n->fd, "", (char *)r->reply, FUSE_PATH_BYTES_MAX + 1);

	if (len < 0)
		return -errno;
	r->reply_size = (size_t)len;
	return 0;
}

/* ---- removal, renaming ---- */

static int do_unlink(struct request *r, struct node *n)
{
	return remove_name(r->d, n, r->in.name[0], 0);
}

static int do_rmdir(struct request *r, struct node *n)
{
	return remove_name(r->d, n, r->in.name[0], AT_REMOVEDIR);
}

/* The host's whiteout in the place of what was renamed is the daemon's; it is to be the caller's. The renaming is done: an error has nobody to tell. */
static void give_whiteout(const struct request *r, const struct node *dir, const char *name)
{
	int fd = openat(dir->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	struct statx stx;

	if (fd < 0)
		return;
	/* Not what somebody else has put there meanwhile. */
	if (!stat_fd_now(fd, &stx) && S_ISCHR(stx.stx_mode) && !stx.stx_rdev_major &&
	    !stx.stx_rdev_minor && stx.stx_nlink == 1)
		(void)!give_to_caller(r, dir, fd, S_IFCHR);
	close(fd);
}

static int rename_to(struct request *r, struct node *n, uint64_t newdir, uint32_t flags)
{
	struct node *to = node_get(r->d, newdir);
	int err = 0;

	if (!to)
		return -ESTALE;
	if (flags & ~RENAME_FLAGS) {
		err = -EINVAL;
	} else {
		int moved = version_hold(r->d, n, r->in.name[0]);
		int replaced = version_hold(r->d, to, r->in.name[1]);

		if (renameat2(n->fd, r->in.name[0], to->fd, r->in.name[1], flags) < 0)
			err = -errno;
		else if (flags & RENAME_WHITEOUT)
			give_whiteout(r, n, r->in.name[0]);
		version_name_changed(r->d, n, r->in.name[0]);
		version_name_changed(r->d, to, r->in.name[1]);
		version_drop_held(r->d, moved);
		version_drop_held(r->d, replaced);
	}
	node_put(r->d, to);
	return err;
}

static int do_rename(struct request *r, struct node *n)
{
	return rename_to(r, n, ARG(r, struct fuse_rename_in).newdir, 0);
}

static int do_rename2(struct request *r, struct node *n)
{
	const struct fuse_rename2_in a = ARG(r, struct fuse_rename2_in);

	return rename_to(r, n, a.newdir, a.flags);
}

/* ---- the rest ---- */

static int do_statfs(struct request *r, struct node *n)
{
	struct fuse_statfs_out out = {0};
	struct statfs st;

	if (fstatfs(n->fd, &st) < 0)
		return -errno;
	out.st = (struct fuse_kstatfs){
		.blocks = st.f_blocks,
		.bfree = st.f_bfree,
		.bavail = st.f_bavail,
		.files = st.f_files,
		.ffree = st.f_ffree,
		.bsize = (uint32_t)st.f_bsize,
		.namelen = (uint32_t)st.f_namelen,
		.frsize = (uint32_t)st.f_frsize,
	};
	memcpy(r->reply, &out, sizeof(out));
	r->reply_size = sizeof(out);
	return 0;
}

/*
 * Extended attributes, by calls that take a path. The working directory is /proc/self/fd, and such a link leads to the file itself, whatever it is: a fifo or a
 * device is not opened, and a symbolic link not followed.
 */

/* What getxattr(2) or listxattr(2) gave, -1: errno; asked with room of `size`, 0: only how much there is. */
static int reply_xattr(struct request *r, uint32_t size, ssize_t got)
{
	const struct fuse_getxattr_out out = {.size = (uint32_t)got};

	if (got < 0)
		return -errno;
	r->reply_size = size ? (size_t)got : sizeof(out);
	if (!size)
		memcpy(r->reply, &out, sizeof(out));
	return 0;
}

static int do_getxattr(struct request *r, struct node *n)
{
	const struct fuse_getxattr_in a = ARG(r, struct fuse_getxattr_in);
	char path[16];
	ssize_t got;

	fd_path(n->fd, path);
	got = getxattr(path, r->in.name[0], a.size ? r->reply : NULL, MIN(a.size, 65536u));
	return reply_xattr(r, a.size, got);
}

static int do_listxattr(struct request *r, struct node *n)
{
	const struct fuse_getxattr_in a = ARG(r, struct fuse_getxattr_in);
	char path[16];
	ssize_t got;

	fd_path(n->fd, path);
	got = listxattr(path, a.size ? (char *)r->reply : NULL, MIN(a.size, 65536u));
	return reply_xattr(r, a.size, got);
}

/* An ACL was set by somebody who is not in the file's group. */
static int drop_sgid(struct daemon *d, const struct node *n)
{
	struct statx stx;
	int err = stat_fd_now(n->fd, &stx);

	return err || !(stx.stx_mode & S_ISGID) ? err : set_mode(d, n->fd, stx.stx_mode & ~S_ISGID);
}

/* SETXATTR's long form, decoded as if it were the short one: the name begins 8 bytes later. */
static int long_setxattr(struct request *r, struct fuse_setxattr_in *ret)
{
	const char *at = r->in.arg, *end = (const char *)r->in.data + r->in.data_size, *nul;

	if ((size_t)(end - at) < sizeof(*ret))
		return -EINVAL;
	memcpy(ret, at, sizeof(*ret));
	at += sizeof(*ret);
	nul = memchr(at, '\0', (size_t)(end - at));
	if (!nul)
		return -EINVAL;
	r->in.name[0] = at;
	r->in.name_len[0] = (size_t)(nul - at);
	r->in.data = nul + 1;
	r->in.data_size = (size_t)(end - nul - 1);
	return 0;
}

static int do_setxattr(struct request *r, struct node *n)
{
	struct fuse_setxattr_in a = {0};
	char path[16];
	int err = 0;

	fd_path(n->fd, path);
	if (r->d->setxattr_ext)
		err = long_setxattr(r, &a);
	else
		memcpy(&a, r->in.arg, FUSE_COMPAT_SETXATTR_IN_SIZE);
	if (err)
		return err;
	if (a.size != r->in.data_size)
		return -EINVAL;
	err = setxattr(path, r->in.name[0], r->in.data, a.size, (int)a.flags) < 0 ? -errno : 0;
	if (!err && (a.setxattr_flags & FUSE_SETXATTR_ACL_KILL_SGID))
		err = drop_sgid(r->d, n);
	version_changed(r->d, n);
	return err;
}

static int do_removexattr(struct request *r, struct node *n)
{
	char path[16];
	int err;

	fd_path(n->fd, path);
	err = removexattr(path, r->in.name[0]) < 0 ? -errno : 0;
	version_changed(r->d, n);
	return err;
}

static const request_fn table[] = {
	[FUSE_LOOKUP] = do_lookup,
	[FUSE_GETATTR] = do_getattr,
	[FUSE_SETATTR] = do_setattr,
	[FUSE_READLINK] = do_readlink,
	[FUSE_SYMLINK] = do_symlink,
	[FUSE_MKNOD] = do_mknod,
	[FUSE_MKDIR] = do_mkdir,
	[FUSE_UNLINK] = do_unlink,
	[FUSE_RMDIR] = do_rmdir,
	[FUSE_RENAME] = do_rename,
	[FUSE_LINK] = do_link,
	[FUSE_OPEN] = do_open,
	[FUSE_READ] = do_read,
	[FUSE_WRITE] = do_write,
	[FUSE_STATFS] = do_statfs,
	[FUSE_RELEASE] = do_release,
	[FUSE_FSYNC] = do_fsync,
	[FUSE_SETXATTR] = do_setxattr,
	[FUSE_GETXATTR] = do_getxattr,
	[FUSE_LISTXATTR] = do_listxattr,
	[FUSE_REMOVEXATTR] = do_removexattr,
	[FUSE_FLUSH] = do_flush,
	[FUSE_GETLK] = do_getlk,
	[FUSE_SETLK] = do_setlk,
	[FUSE_SETLKW] = do_setlk,
	[FUSE_OPENDIR] = do_opendir,
	[FUSE_READDIR] = do_readdir,
	[FUSE_RELEASEDIR] = do_release,
	[FUSE_FSYNCDIR] = do_fsyncdir,
	[FUSE_CREATE] = do_create,
	[FUSE_FALLOCATE] = do_fallocate,
	[FUSE_READDIRPLUS] = do_readdirplus,
	[FUSE_RENAME2] = do_rename2,
	[FUSE_LSEEK] = do_lseek,
	[FUSE_COPY_FILE_RANGE] = do_copy_file_range,
	[FUSE_SETUPMAPPING] = do_setupmapping,
	[FUSE_REMOVEMAPPING] = do_removemapping,
	[FUSE_TMPFILE] = do_tmpfile,
	[FUSE_MOAT_WALK] = do_walk,
};

request_fn request_find(uint32_t opcode)
{
	return opcode < ARRAY_SIZE(table) ? table[opcode] : NULL;
}
