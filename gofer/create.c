/*
 * gofer/create.c - changes to the tree that plain and compound requests share.
 *
 * A new object is made with this process's ids and then given to its owner; the descriptor or a comparison of
 * the result says what still has to be changed, so that for a client who creates root's files nothing more
 * is called. The umask is the worker thread's own (it unshared CLONE_FS): the host then applies it, or the
 * directory's default ACL in its place, as Linux does.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "gofer/server.h"

void worker_umask(struct worker *w, uint32_t mask)
{
	if (w->umask == (mask & 0777))
		return;
	w->umask = mask & 0777;
	umask(w->umask);
}

/* The ids and special bits that a new object should have and may not. fd: the object. */
static int give_to_owner(struct worker *w, int fd, uint32_t mode, const struct new_owner *o)
{
	struct statx stx;
	int err = stat_fd(fd, "", &stx);
	char name[16];

	if (err)
		return err;
	if (stx.stx_uid != o->uid || stx.stx_gid != o->gid) {
		if (fchownat(fd, "", o->uid, o->gid, AT_EMPTY_PATH) < 0)
			return -errno;
	}
	/* chown(2) clears these; mkdir(2) and open(2) may refuse to set them. */
	if (!S_ISLNK(stx.stx_mode) && (mode & (S_ISUID | S_ISGID | S_ISVTX))) {
		uint32_t bits = (stx.stx_mode & 0777) | (mode & (S_ISUID | S_ISGID | S_ISVTX));

		fd_name(fd, name);
		if (fchmodat(w->srv->proc_fd, name, bits, 0) < 0)
			return -errno;
	}
	return 0;
}

int create_file(struct worker *w, int dirfd, const char *name, uint32_t flags, uint32_t mode,
		const struct new_owner *o)
{
	unsigned open_flags = O_CREAT | O_EXCL;
	int fd, err;

	if ((flags & O_TMPFILE) == O_TMPFILE)
		open_flags = O_TMPFILE | (flags & O_EXCL);
	worker_umask(w, o->umask);
	fd = openat(dirfd, name,
		    (int)(open_flags | (flags & O_ACCMODE) | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY |
			  O_NONBLOCK | O_LARGEFILE),
		    mode & 07777);
	if (fd < 0)
		return -errno;
	err = give_to_owner(w, fd, mode, o);
	if (err) {
		close(fd);
		if (!(flags & O_TMPFILE & ~O_DIRECTORY))
			unlinkat(dirfd, name, 0);
		return err;
	}
	return fd;
}

/* Opens what was just made to hand it over; removes it when that fails. */
static int finish_new(struct worker *w, int dirfd, const char *name, uint32_t mode,
		      const struct new_owner *o, int rm_flags)
{
	auto_close int fd = -1;
	int err;

	if (o->uid == w->srv->uid && o->gid == w->srv->gid &&
	    !(mode & (S_ISUID | S_ISGID | S_ISVTX))) {
		struct statx stx;

		/* A setgid directory gave it its own group. */
		err = stat_fd(dirfd, name, &stx);
		if (!err && stx.stx_uid == o->uid && stx.stx_gid == o->gid)
			return 0;
	}
	fd = openat(dirfd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	err = fd < 0 ? -errno : give_to_owner(w, fd, mode, o);
	if (err)
		unlinkat(dirfd, name, rm_flags);
	return err;
}

int created_node_owner(struct worker *w, int dirfd, const char *name, uint32_t mode,
		       const struct new_owner *o)
{
	return finish_new(w, dirfd, name, mode & 07777, o, 0);
}

int create_dir(struct worker *w, int dirfd, const char *name, uint32_t mode,
	       const struct new_owner *o)
{
	worker_umask(w, o->umask);
	if (mkdirat(dirfd, name, mode & 07777) < 0)
		return -errno;
	return finish_new(w, dirfd, name, mode & 07777, o, AT_REMOVEDIR);
}

int create_node(struct worker *w, int dirfd, const char *name, uint32_t mode, uint32_t major,
		uint32_t minor, const struct new_owner *o)
{
	worker_umask(w, o->umask);
	if (mknodat(dirfd, name, mode, makedev(major, minor)) < 0)
		return -errno;
	return finish_new(w, dirfd, name, mode & 07777, o, 0);
}

int create_symlink(struct worker *w, int dirfd, const char *name, const struct p9_str *target,
		   const struct new_owner *o)
{
	if (target->len == 0 || target->len > P9_PATH_MAX ||
	    memchr(target->data, '\0', target->len))
		return target->len ? -ENAMETOOLONG : -ENOENT;
	memcpy(w->target, target->data, target->len);
	w->target[target->len] = '\0';
	if (symlinkat(w->target, dirfd, name) < 0)
		return -errno;
	return finish_new(w, dirfd, name, 0, o, 0);
}

int link_fd(struct worker *w, int fd, int dirfd, const char *name)
{
	char num[16];

	/* Through /proc rather than AT_EMPTY_PATH, which wants CAP_DAC_READ_SEARCH. */
	fd_name(fd, num);
	return linkat(w->srv->proc_fd, num, dirfd, name, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
}

static struct timespec to_timespec(uint32_t valid, uint32_t now_bit, uint32_t set_bit,
				   const struct p9_time *t)
{
	if (!(valid & now_bit))
		return (struct timespec){.tv_nsec = UTIME_OMIT};
	if (!(valid & set_bit))
		return (struct timespec){.tv_nsec = UTIME_NOW};
	return (struct timespec){.tv_sec = (time_t)t->sec, .tv_nsec = t->nsec};
}

static int apply_size(struct worker *w, int fd, int io_fd, uint64_t size)
{
	auto_close int tmp = -1;

	if (size > INT64_MAX)
		return -EINVAL;
	if (io_fd >= 0 && ftruncate(io_fd, (off_t)size) == 0)
		return 0;
	/* Closed, or open for reading only. */
	tmp = reopen(w, fd, O_WRONLY);
	if (tmp < 0)
		return tmp;
	return ftruncate(tmp, (off_t)size) < 0 ? -errno : 0;
}

int apply_setattr(struct worker *w, int fd, int io_fd, const struct setattr *sa)
{
	const uint32_t ids = P9_SETATTR_UID | P9_SETATTR_GID;
	int err;

	if (sa->valid & P9_SETATTR_SIZE) {
		err = apply_size(w, fd, io_fd, sa->size);
		if (err)
			return err;
	}
	/* Owner before mode: chown clears setuid and setgid. */
	if (sa->valid & ids) {
		uid_t uid = (sa->valid & P9_SETATTR_UID) ? sa->uid : (uid_t)-1;
		gid_t gid = (sa->valid & P9_SETATTR_GID) ? sa->gid : (gid_t)-1;

		if (fchownat(fd, "", uid, gid, AT_EMPTY_PATH) < 0)
			return -errno;
	}
	if (sa->valid & P9_SETATTR_MODE) {
		char name[16];

		fd_name(fd, name);
		if (fchmodat(w->srv->proc_fd, name, sa->mode & 07777, 0) < 0)
			return -errno;
	}
	if (sa->valid & (P9_SETATTR_ATIME | P9_SETATTR_MTIME)) {
		struct timespec ts[2] = {
			to_timespec(sa->valid, P9_SETATTR_ATIME, P9_SETATTR_ATIME_SET, &sa->atime),
			to_timespec(sa->valid, P9_SETATTR_MTIME, P9_SETATTR_MTIME_SET, &sa->mtime)};

		if (utimensat(fd, "", ts, AT_EMPTY_PATH) < 0)
			return -errno;
	} else if (sa->valid == P9_SETATTR_CTIME) {
		/* Linux's client asks for a new ctime only: an owner that stays does that. */
		if (fchownat(fd, "", (uid_t)-1, (gid_t)-1, AT_EMPTY_PATH) < 0)
			return -errno;
	}
	return 0;
}

/* ---- directories ---- */

struct host_dirent { /* linux_dirent64 */
	uint64_t ino;
	int64_t off;
	uint16_t reclen;
	uint8_t type;
	char name[];
};

/* One request's look at a directory. */
struct dents {
	struct worker *w;
	const struct attach *attach;
	int fd;
	uint64_t dev; /* the directory's */
	bool at_root; /* it is the attach point's root */
	bool no_acls; /* an entry of that device said so */
	uint32_t want;
	char target[P9_DIRENT_TARGET_MAX + 1]; /* of the entry at hand */
};

/* Does the client use attributes of what has this DT_*? A symlink's are worth nothing without its target. */
static bool wants_node(uint32_t want, unsigned type)
{
	if (!(want & P9_WANT_NODES) || (type == DT_LNK && !(want & P9_WANT_TARGETS)))
		return false;
	return type == DT_DIR || type == DT_UNKNOWN || !(want & P9_WANT_DIR_NODES);
}

/* Return: false: it is longer than such a reply has it, or gone. */
static bool read_target(struct dents *x, const char *name, struct p9_str *ret)
{
	ssize_t len = readlinkat(x->fd, name, x->target, sizeof(x->target));

	if (len <= 0 || (size_t)len > P9_DIRENT_TARGET_MAX)
		return false;
	*ret = (struct p9_str){x->target, (uint16_t)len};
	return true;
}

static uint8_t entry_acl_bits(struct dents *x, const char *name, const struct statx *stx)
{
	bool same_dev = makedev(stx->stx_dev_major, stx->stx_dev_minor) == x->dev;

	/* A filesystem has them or not: one entry tells for the rest of the request. */
	if (same_dev && x->no_acls)
		return P9_QTACL_ASKED;
	return acl_bits(x->fd, name, stx->stx_mode, same_dev ? &x->no_acls : NULL);
}

static void fill_dirent(struct dents *x, const struct host_dirent *h, struct p9_dirent *d)
{
	bool dots = h->name[0] == '.' && (!h->name[1] || (h->name[1] == '.' && !h->name[2]));
	struct server *srv = x->w->srv;
	struct statx stx;

	d->offset = (uint64_t)h->off;
	d->type = h->type;
	d->name = p9_str(h->name);
	d->has_node = false;
	d->target = (struct p9_str){0};
	d->qid.version = 0;
	d->qid.type = h->type == DT_DIR ? P9_QTDIR : h->type == DT_LNK ? P9_QTSYMLINK : P9_QTFILE;
	d->qid.path = ino_to_path(srv, x->dev, h->ino);
	/* What lies above the attach point is nobody's business. */
	if (dots && h->name[1] && x->at_root)
		d->qid.path = ino_to_path(srv, x->attach->dev, x->attach->ino);
	if (dots || !wants_node(x->want, h->type) || stat_fd(x->fd, h->name, &stx) < 0)
		return;
	stat_to_node(srv, &stx, &d->node);
	d->qid = d->node.qid;
	d->type = (uint8_t)IFTODT(stx.stx_mode);
	/* Some filesystems do not say types with names. */
	if (!wants_node(x->want, d->type))
		return;
	if (S_ISLNK(stx.stx_mode) && !read_target(x, h->name, &d->target))
		return;
	if ((x->want & P9_WANT_XATTRS) && has_no_xattrs(x->fd, h->name, stx.stx_mode))
		d->node.qid.type |= P9_QTNO_XATTRS;
	if (x->want & P9_WANT_ACL)
		d->node.qid.type |= entry_acl_bits(x, h->name, &stx);
	d->qid = d->node.qid;
	d->has_node = true;
}

int read_dents(struct worker *w, const struct attach *attach, int fd, int64_t *inout_pos,
	       int64_t offset, size_t max, bool moat, uint32_t want, size_t *ret_size,
	       bool *ret_eof)
{
	struct dents x = {.w = w, .attach = attach, .fd = fd, .want = want};
	struct stat st;

	*ret_size = 0;
	*ret_eof = false;
	if (fstat(fd, &st) < 0)
		return -errno;
	x.dev = st.st_dev;
	x.at_root = st.st_dev == attach->dev && st.st_ino == attach->ino;
	if (offset != *inout_pos && lseek(fd, offset, SEEK_SET) < 0)
		return -errno;
	*inout_pos = offset;
	for (;;) {
		long got = syscall(SYS_getdents64, fd, w->dents, SERVER_DENTS_SIZE);

		if (got < 0)
			return *ret_size ? 0 : -errno;
		if (got == 0) {
			*ret_eof = true;
			return 0;
		}
		for (long off = 0; off < got;) {
			const struct host_dirent *h = (const void *)(w->dents + off);
			struct p9_dirent d;

			fill_dirent(&x, h, &d);
			if (p9_dirent_put(w->data, max, ret_size, &d, moat) < 0) {
				/* The stream is past what was taken: the next call seeks. */
				lseek(fd, *inout_pos, SEEK_SET);
				return *ret_size ? 0 : -EINVAL;
			}
			*inout_pos = h->off;
			off += h->reclen;
		}
	}
}
