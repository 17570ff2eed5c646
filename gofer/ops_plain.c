/* gofer/ops_plain.c - 9P2000.L as diod and Linux speak it: sessions, walks, attributes, names. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "gofer/server.h"

static bool str_equal(const struct p9_str *s, const char *want)
{
	return s->len == strlen(want) && memcmp(s->data, want, s->len) == 0;
}

int op_version(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	uint32_t msize = MIN(t->Tversion.msize, P9_MSIZE_DEFAULT);
	const char *version = "unknown";

	if (msize < P9_MSIZE_MIN)
		return -EINVAL;
	if (str_equal(&t->Tversion.version, P9_VERSION_MOAT))
		version = P9_VERSION_MOAT;
	else if (t->Tversion.version.len >= 8 &&
		 memcmp(t->Tversion.version.data, P9_VERSION_PLAIN, 8) == 0)
		version = P9_VERSION_PLAIN;
	/* A new session: every fid of the old one is gone. */
	fid_remove_all(w->srv);
	if (version[0] == '9') {
		atomic_store(&w->srv->msize, msize);
		atomic_store(&w->srv->moat, strcmp(version, P9_VERSION_MOAT) == 0);
	}
	r->Rversion.msize = msize;
	r->Rversion.version = p9_str(version);
	return 0;
}

int op_auth(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	(void)w;
	(void)t;
	(void)r;
	return -EOPNOTSUPP; /* the socket is the authority */
}

int op_attach(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	const struct p9_str *aname = &t->Tattach.aname;
	const struct attach *a;
	struct statx stx;
	unsigned long index = 0;
	int fd, err;

	if (t->Tattach.afid != P9_NOFID)
		return -EINVAL;
	if (aname->len && !str_equal(aname, "/")) {
		char num[8] = "";
		char *end;

		if (aname->len >= sizeof(num) || aname->data[0] < '0' || aname->data[0] > '9')
			return -ENOENT;
		memcpy(num, aname->data, aname->len);
		index = strtoul(num, &end, 10);
		if (*end)
			return -ENOENT;
	}
	if (index >= w->srv->attach_count)
		return -ENOENT;
	a = &w->srv->attaches[index];
	err = stat_fd(a->fd, "", &stx);
	if (err)
		return err;
	fd = dup_fd(a->fd);
	if (fd < 0)
		return fd;
	stat_to_qid(w->srv, &stx, &r->Rattach.qid);
	return fid_add(w->srv, t->Tattach.fid, a,
		       t->Tattach.n_uname == P9_NONUNAME ? w->srv->uid : t->Tattach.n_uname, fd, -1,
		       0, S_ISDIR(stx.stx_mode));
}

/* One step of Twalk; ".." stays at the attach point. Return: a descriptor or -errno. */
static int walk_step(const struct attach *a, int fd, const struct p9_str *name)
{
	char buf[P9_NAME_MAX + 1] = "..";
	int ret;

	if (name->len == 2 && memcmp(name->data, "..", 2) == 0) {
		struct stat st;

		if (fstat(fd, &st) < 0)
			return -errno;
		if (st.st_dev == a->dev && st.st_ino == a->ino)
			return dup_fd(fd);
	} else if (name->len == 1 && name->data[0] == '.') {
		return dup_fd(fd);
	} else {
		ret = copy_name(buf, name);
		if (ret)
			return ret;
	}
	ret = openat(fd, buf, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	return ret < 0 ? -errno : ret;
}

int op_walk(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	auto_fid struct fid *f = fid_get(w->srv, t->Twalk.fid);
	auto_close int fd = -1;
	struct statx stx;
	unsigned i;
	int err = 0, take;

	if (!f || f->path_fd < 0)
		return -EBADF;
	fd = dup_fd(f->path_fd);
	if (fd < 0)
		return fd;
	err = stat_fd(fd, "", &stx);
	if (err)
		return err;
	for (i = 0; i < t->Twalk.names.count; i++) {
		int next = walk_step(f->attach, fd, &t->Twalk.names.name[i]);

		if (next < 0) {
			err = next;
			break;
		}
		close(fd);
		fd = next;
		err = stat_fd(fd, "", &stx);
		if (err)
			break;
		stat_to_qid(w->srv, &stx, &r->Rwalk.qids.qid[i]);
	}
	if (i == 0 && err)
		return err;
	r->Rwalk.qids.count = (uint16_t)i;
	if (i < t->Twalk.names.count)
		return 0; /* a partial walk binds nothing */
	if (t->Twalk.newfid == t->Twalk.fid) {
		err = fid_remove(w->srv, t->Twalk.fid);
		if (err)
			return err;
	}
	take = fd;
	fd = -1;
	return fid_add(w->srv, t->Twalk.newfid, f->attach, f->uid, take, -1, 0,
		       S_ISDIR(stx.stx_mode));
}

/* Txattrcreate's value is applied when its fid goes. */
static int finish_xattr(struct worker *w, struct fid *f)
{
	char name[16];
	int ret = 0;

	mutex_lock(&f->lock);
	if (f->xattr == FID_XATTR_WRITE) {
		fd_name(f->path_fd, name);
		if (f->xattr_done != f->xattr_size)
			ret = -EINVAL;
		else if (f->xattr_size == 0 && f->xattr_flags == 0)
			ret = syscall(SYS_removexattr, name, f->xattr_name) < 0 ? -errno : 0;
		else if (syscall(SYS_setxattr, name, f->xattr_name, f->xattr_data, f->xattr_size,
				 f->xattr_flags) < 0)
			ret = -errno;
		f->xattr = FID_NO_XATTR;
	}
	mutex_unlock(&f->lock);
	(void)w;
	return ret;
}

int op_clunk(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	auto_fid struct fid *f = fid_get(w->srv, t->Tclunk.fid);
	int err, xattr_err;

	(void)r;
	if (!f)
		return -EBADF;
	xattr_err = finish_xattr(w, f);
	err = fid_remove(w->srv, t->Tclunk.fid);
	return err ? err : xattr_err;
}

/*
 * The directory and name of a fid, from what /proc says, checked to be the same object: plain 9P removes and renames by
 * fid alone. *ret_dir is owned.
 */
static int parent_of(struct worker *w, struct fid *f, int *ret_dir, char name[P9_NAME_MAX + 1])
{
	const char *real = f->attach->real_path;
	size_t root_len = strlen(real);
	struct statx want, got;
	char num[16], *slash;
	struct p9_str rel;
	const char *last;
	bool owned;
	ssize_t len;
	int err;

	if (f->path_fd < 0)
		return -EBADF;
	fd_name(f->path_fd, num);
	len = readlinkat(w->srv->proc_fd, num, w->path, P9_PATH_MAX);
	if (len < 0)
		return -errno;
	w->path[len] = '\0';
	if (root_len == 1)
		root_len = 0;
	slash = strrchr(w->path, '/');
	if (!slash || strncmp(w->path, real, root_len) != 0 || w->path[root_len] != '/')
		return -EBUSY; /* the attach point itself, or no longer below it */
	rel = p9_str(w->path + root_len + 1);
	err = resolve_parent(w, f, &(struct p9_str){0}, w->path2, ret_dir, &owned, &last);
	if (err != -EINVAL)
		return -EINVAL;
	{
		struct fid root = {.attach = f->attach, .path_fd = f->attach->fd, .io_fd = -1};

		err = resolve_parent(w, &root, &rel, w->path2, ret_dir, &owned, &last);
	}
	if (err)
		return err;
	if (!owned) {
		*ret_dir = dup_fd(*ret_dir);
		if (*ret_dir < 0)
			return *ret_dir;
	}
	err = stat_fd(*ret_dir, last, &got);
	if (!err)
		err = stat_fd(f->path_fd, "", &want);
	if (!err && (got.stx_ino != want.stx_ino || got.stx_dev_minor != want.stx_dev_minor ||
		     got.stx_dev_major != want.stx_dev_major))
		err = -ESTALE;
	if (err)
		close(*ret_dir);
	else
		snprintf(name, P9_NAME_MAX + 1, "%s", last);
	return err;
}

int op_remove(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	auto_fid struct fid *f = fid_get(w->srv, t->Tremove.fid);
	char name[P9_NAME_MAX + 1];
	auto_close int dir = -1;
	int err;

	(void)r;
	if (!f)
		return -EBADF;
	err = f->attach->readonly ? -EROFS : parent_of(w, f, &dir, name);
	if (!err && unlinkat(dir, name, f->is_dir ? AT_REMOVEDIR : 0) < 0)
		err = -errno;
	/* The fid goes either way. */
	if (fid_remove(w->srv, t->Tremove.fid) < 0 && !err)
		err = -EBADF;
	return err;
}

int op_getattr(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	auto_fid struct fid *f = fid_get(w->srv, t->Tgetattr.fid);
	struct p9_Rgetattr *a = &r->Rgetattr;
	struct p9_node n;
	struct statx stx;
	int err;

	if (!f)
		return -EBADF;
	err = stat_fd(f->io_fd >= 0 ? f->io_fd : f->path_fd, "", &stx);
	if (err)
		return err;
	stat_to_node(w->srv, &stx, &n);
	*a = (struct p9_Rgetattr){
		.valid = P9_GETATTR_BASIC | (n.btime.sec ? P9_GETATTR_BTIME : 0),
		.qid = n.qid,
		.mode = n.mode,
		.uid = n.uid,
		.gid = n.gid,
		.nlink = n.nlink,
		.rdev = makedev(n.rdev_major, n.rdev_minor),
		.size = n.size,
		.blksize = n.blksize,
		.blocks = n.blocks,
		.atime_sec = n.atime.sec,
		.atime_nsec = n.atime.nsec,
		.mtime_sec = n.mtime.sec,
		.mtime_nsec = n.mtime.nsec,
		.ctime_sec = n.ctime.sec,
		.ctime_nsec = n.ctime.nsec,
		.btime_sec = n.btime.sec,
		.btime_nsec = n.btime.nsec,
	};
	return 0;
}

int op_setattr(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	const struct p9_Tsetattr *a = &t->Tsetattr;
	auto_fid struct fid *f = fid_get(w->srv, a->fid);
	struct setattr sa = {
		.valid = a->valid,
		.mode = a->mode,
		.uid = a->uid,
		.gid = a->gid,
		.size = a->size,
		.atime = {a->atime_sec, (uint32_t)a->atime_nsec},
		.mtime = {a->mtime_sec, (uint32_t)a->mtime_nsec},
	};

	(void)r;
	if (!f || f->path_fd < 0)
		return -EBADF;
	return f->attach->readonly ? -EROFS : apply_setattr(w, f->path_fd, f->io_fd, &sa);
}

int op_statfs(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	auto_fid struct fid *f = fid_get(w->srv, t->Tstatfs.fid);
	struct statfs st;
	uint64_t fsid;

	if (!f)
		return -EBADF;
	if (fstatfs(f->path_fd >= 0 ? f->path_fd : f->io_fd, &st) < 0)
		return -errno;
	_Static_assert(sizeof(st.f_fsid) == sizeof(fsid), "fsid is two words");
	memcpy(&fsid, &st.f_fsid, sizeof(fsid));
	r->Rstatfs = (struct p9_Rstatfs){
		.type = (uint32_t)st.f_type,
		.bsize = (uint32_t)st.f_bsize,
		.blocks = st.f_blocks,
		.bfree = st.f_bfree,
		.bavail = st.f_bavail,
		.files = st.f_files,
		.ffree = st.f_ffree,
		.fsid = fsid,
		.namelen = (uint32_t)st.f_namelen,
	};
	return 0;
}

int op_readlink(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	auto_fid struct fid *f = fid_get(w->srv, t->Treadlink.fid);
	ssize_t len;

	if (!f || f->path_fd < 0)
		return -EBADF;
	len = readlinkat(f->path_fd, "", w->target, sizeof(w->target));
	if (len < 0)
		return errno == ENOENT ? -EINVAL : -errno;
	r->Rreadlink.target = (struct p9_str){w->target, (uint16_t)len};
	return 0;
}

/* What plain creations begin with: the directory's fid and a checked name. */
static int plain_parent(struct worker *w, uint32_t fid, const struct p9_str *name, struct fid **ret,
			char out[P9_NAME_MAX + 1])
{
	int err = copy_name(out, name);

	if (err)
		return err;
	*ret = fid_get(w->srv, fid);
	if (!*ret || (*ret)->path_fd < 0)
		return -EBADF;
	return (*ret)->attach->readonly ? -EROFS : 0;
}

static int qid_of(struct worker *w, int dirfd, const char *name, struct p9_qid *ret)
{
	struct statx stx;
	int err = stat_fd(dirfd, name, &stx);

	if (!err)
		stat_to_qid(w->srv, &stx, ret);
	return err;
}

int op_symlink(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	auto_fid struct fid *f = NULL;
	char name[P9_NAME_MAX + 1];
	int err = plain_parent(w, t->Tsymlink.fid, &t->Tsymlink.name, &f, name);

	if (err)
		return err;
	err = create_symlink(w, f->path_fd, name, &t->Tsymlink.target,
			     &(struct new_owner){f->uid, t->Tsymlink.gid, 0});
	return err ? err : qid_of(w, f->path_fd, name, &r->Rsymlink.qid);
}

int op_mknod(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	auto_fid struct fid *f = NULL;
	char name[P9_NAME_MAX + 1];
	int err = plain_parent(w, t->Tmknod.fid, &t->Tmknod.name, &f, name);

	if (err)
		return err;
	err = create_node(w, f->path_fd, name, t->Tmknod.mode, t->Tmknod.major, t->Tmknod.minor,
			  &(struct new_owner){f->uid, t->Tmknod.gid, 0});
	return err ? err : qid_of(w, f->path_fd, name, &r->Rmknod.qid);
}

int op_mkdir(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	auto_fid struct fid *f = NULL;
	char name[P9_NAME_MAX + 1];
	int err = plain_parent(w, t->Tmkdir.fid, &t->Tmkdir.name, &f, name);

	if (err)
		return err;
	err = create_dir(w, f->path_fd, name, t->Tmkdir.mode,
			 &(struct new_owner){f->uid, t->Tmkdir.gid, 0});
	return err ? err : qid_of(w, f->path_fd, name, &r->Rmkdir.qid);
}

int op_link(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	auto_fid struct fid *dir = NULL;
	auto_fid struct fid *f = NULL;
	char name[P9_NAME_MAX + 1];
	int err = plain_parent(w, t->Tlink.dfid, &t->Tlink.name, &dir, name);

	(void)r;
	if (err)
		return err;
	f = fid_get(w->srv, t->Tlink.fid);
	if (!f || f->path_fd < 0)
		return -EBADF;
	return link_fd(w, f->path_fd, dir->path_fd, name);
}

int op_rename(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	char name[P9_NAME_MAX + 1], oldname[P9_NAME_MAX + 1];
	auto_fid struct fid *dir = NULL;
	auto_fid struct fid *f = NULL;
	auto_close int olddir = -1;
	int err = plain_parent(w, t->Trename.dfid, &t->Trename.name, &dir, name);

	(void)r;
	if (err)
		return err;
	f = fid_get(w->srv, t->Trename.fid);
	if (!f)
		return -EBADF;
	if (f->attach != dir->attach)
		return -EXDEV;
	err = parent_of(w, f, &olddir, oldname);
	if (err)
		return err;
	return renameat(olddir, oldname, dir->path_fd, name) < 0 ? -errno : 0;
}

int op_renameat(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	char name[P9_NAME_MAX + 1], oldname[P9_NAME_MAX + 1];
	auto_fid struct fid *olddir = NULL;
	auto_fid struct fid *dir = NULL;
	int err = plain_parent(w, t->Trenameat.newfid, &t->Trenameat.newname, &dir, name);

	(void)r;
	if (!err)
		err = plain_parent(w, t->Trenameat.oldfid, &t->Trenameat.oldname, &olddir, oldname);
	if (err)
		return err;
	if (olddir->attach != dir->attach)
		return -EXDEV;
	return renameat(olddir->path_fd, oldname, dir->path_fd, name) < 0 ? -errno : 0;
}

int op_unlinkat(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	auto_fid struct fid *f = NULL;
	char name[P9_NAME_MAX + 1];
	int err = plain_parent(w, t->Tunlinkat.fid, &t->Tunlinkat.name, &f, name);

	(void)r;
	if (err)
		return err;
	return unlinkat(f->path_fd, name, (int)(t->Tunlinkat.flags & AT_REMOVEDIR)) < 0 ? -errno
											: 0;
}
