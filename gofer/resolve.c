/*
 * gofer/resolve.c - from (fid, path) to descriptors and attributes.
 *
 * A symbolic link is never followed. Known prefixes are crossed by one openat2(2) with RESOLVE_BENEATH,
 * RESOLVE_NO_SYMLINKS and RESOLVE_NO_MAGICLINKS; single components, which p9_path_ok() has checked to hold no
 * slash and not to be "..", by openat(O_PATH | O_NOFOLLOW). O_PATH opens nothing: no device, no fifo. What is opened
 * for I/O is looked at first and reopened through /proc/self/fd, so it is the very object that was looked at.
 */
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "base/hash.h"
#include "gofer/server.h"

#define ACL_ACCESS "system.posix_acl_access"

#define RESOLVE_TRIES 8 /* openat2 answers EAGAIN when it raced with a rename */

void fd_name(int fd, char out[16])
{
	snprintf(out, 16, "%d", fd);
}

int dup_fd(int fd)
{
	int ret = fcntl(fd, F_DUPFD_CLOEXEC, 3);

	return ret < 0 ? -errno : ret;
}

int copy_name(char out[P9_NAME_MAX + 1], const struct p9_str *name)
{
	if (!p9_name_ok(name->data, name->len))
		return -EINVAL;
	memcpy(out, name->data, name->len);
	out[name->len] = '\0';
	return 0;
}

int stat_fd(int fd, const char *name, struct statx *ret)
{
	int flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT;

	if (!*name)
		flags |= AT_EMPTY_PATH;
	return statx(fd, name, flags, STATX_BASIC_STATS | STATX_BTIME, ret) < 0 ? -errno : 0;
}

/* Small numbers for devices, in order of appearance; the attach's own tree is nearly always 0. */
static unsigned dev_index(struct server *srv, uint64_t dev)
{
	unsigned count = atomic_load_explicit(&srv->dev_count, memory_order_acquire), i;

	for (i = 0; i < count; i++)
		if (srv->devs[i] == dev)
			return i;
	mutex_lock(&srv->dev_lock);
	count = atomic_load_explicit(&srv->dev_count, memory_order_relaxed);
	for (i = 0; i < count; i++)
		if (srv->devs[i] == dev)
			break;
	if (i == count && count < SERVER_DEVS_MAX) {
		srv->devs[i] = dev;
		atomic_store_explicit(&srv->dev_count, count + 1, memory_order_release);
	}
	mutex_unlock(&srv->dev_lock);
	return i;
}

uint64_t ino_to_path(struct server *srv, uint64_t dev, uint64_t ino)
{
	return ino ^ ((uint64_t)dev_index(srv, dev) << 48);
}

void stat_to_qid(struct server *srv, const struct statx *stx, struct p9_qid *ret)
{
	ret->type = S_ISDIR(stx->stx_mode)   ? P9_QTDIR
		    : S_ISLNK(stx->stx_mode) ? P9_QTSYMLINK
					     : P9_QTFILE;
	ret->version = (uint32_t)stx->stx_ctime.tv_sec ^ (stx->stx_ctime.tv_nsec << 2);
	ret->path = ino_to_path(srv, makedev(stx->stx_dev_major, stx->stx_dev_minor), stx->stx_ino);
}

static struct p9_time to_time(const struct statx_timestamp *t)
{
	return (struct p9_time){(uint64_t)t->tv_sec, t->tv_nsec};
}

void stat_to_node(struct server *srv, const struct statx *stx, struct p9_node *ret)
{
	stat_to_qid(srv, stx, &ret->qid);
	ret->mode = stx->stx_mode;
	ret->uid = stx->stx_uid;
	ret->gid = stx->stx_gid;
	ret->nlink = stx->stx_nlink;
	ret->rdev_major = stx->stx_rdev_major;
	ret->rdev_minor = stx->stx_rdev_minor;
	ret->blksize = stx->stx_blksize;
	ret->size = stx->stx_size;
	ret->blocks = stx->stx_blocks;
	ret->atime = to_time(&stx->stx_atime);
	ret->mtime = to_time(&stx->stx_mtime);
	ret->ctime = to_time(&stx->stx_ctime);
	ret->btime = (stx->stx_mask & STATX_BTIME) ? to_time(&stx->stx_btime) : (struct p9_time){0};
}

static int open_beneath(const struct attach *attach, int fd, const char *path, uint64_t flags)
{
	struct open_how how = {.flags = flags | O_CLOEXEC, .resolve = attach->resolve};

	for (unsigned i = 0; i < RESOLVE_TRIES; i++) {
		long ret = syscall(SYS_openat2, fd, path, &how, sizeof(how));

		if (ret >= 0)
			return (int)ret;
		if (errno != EAGAIN)
			return -errno;
	}
	return -EAGAIN;
}

/* fid's O_PATH descriptor, or -EBADF for fids that have none. */
static int fid_path_fd(const struct fid *f)
{
	return f->path_fd >= 0 ? f->path_fd : f->io_fd >= 0 ? f->io_fd : -EBADF;
}

static int copy_path(const struct p9_str *path, char *out, unsigned *ret_count)
{
	if (!p9_path_ok(path->data, path->len, ret_count))
		return path->len > P9_PATH_MAX ? -ENAMETOOLONG : -EINVAL;
	if (path->len)
		memcpy(out, path->data, path->len);
	out[path->len] = '\0';
	return 0;
}

int resolve_path(struct worker *w, struct fid *f, const struct p9_str *path, char *scratch,
		 int *ret_fd, bool *ret_owned)
{
	unsigned count;
	int fd = fid_path_fd(f), err;

	(void)w;
	if (fd < 0)
		return fd;
	err = copy_path(path, scratch, &count);
	if (err)
		return err;
	*ret_owned = count > 0;
	if (count > 0)
		fd = open_beneath(f->attach, fd, scratch, O_PATH | O_NOFOLLOW);
	if (fd < 0)
		return fd;
	*ret_fd = fd;
	return 0;
}

int resolve_parent(struct worker *w, struct fid *f, const struct p9_str *path, char *scratch,
		   int *ret_fd, bool *ret_owned, const char **ret_name)
{
	unsigned count;
	char *slash;
	int fd = fid_path_fd(f), err;

	(void)w;
	if (fd < 0)
		return fd;
	err = copy_path(path, scratch, &count);
	if (err)
		return err;
	if (count == 0)
		return -EINVAL;
	*ret_owned = false;
	*ret_name = scratch;
	slash = strrchr(scratch, '/');
	if (slash) {
		*slash = '\0';
		*ret_name = slash + 1;
		*ret_owned = true;
		fd = open_beneath(f->attach, fd, scratch, O_PATH | O_DIRECTORY);
	}
	if (fd < 0)
		return fd;
	*ret_fd = fd;
	return 0;
}

/* Through /proc/self/fd. Pre: it is a fifo, a regular file or a directory: an inode's type does not change. */
static int reopen_any(struct worker *w, int path_fd, int flags)
{
	char name[16];
	int fd;

	fd_name(path_fd, name);
	/* NONBLOCK: an open that meets a lease would wait for its holder, one of a fifo for its other end. */
	fd = openat(w->srv->proc_fd, name, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | O_LARGEFILE);
	return fd < 0 ? -errno : fd;
}

int reopen_fifo(struct worker *w, int path_fd, uint32_t accmode)
{
	return reopen_any(w, path_fd, (int)accmode);
}

int reopen_looked_at(struct worker *w, int path_fd, uint32_t flags)
{
	return reopen_any(w, path_fd, (int)(flags & ~(unsigned)(O_CREAT | O_EXCL | O_NOFOLLOW)));
}

int reopen(struct worker *w, int path_fd, uint32_t flags)
{
	struct statx stx;
	int err = stat_fd(path_fd, "", &stx);

	if (err)
		return err;
	if (!S_ISREG(stx.stx_mode) && !S_ISDIR(stx.stx_mode))
		return -ENXIO;
	return reopen_looked_at(w, path_fd, flags);
}

/* ---- walks ---- */

int walk_begin(struct walk *wk, struct worker *w, uint32_t fid, const struct p9_str *path,
	       unsigned skip, uint32_t want)
{
	unsigned count;
	char *rest;
	int err;

	*wk = (struct walk){.w = w, .fd = -1, .want_acl = want & P9_WANT_ACL};
	wk->fid = fid_get(w->srv, fid);
	if (!wk->fid)
		return -EBADF;
	err = copy_path(path, w->path, &count);
	if (err)
		return err;
	if (skip > count)
		return -EINVAL;
	rest = w->path;
	for (unsigned i = 0; i < skip; i++) {
		char *slash = strchr(rest, '/');

		rest = slash ? slash + 1 : rest + strlen(rest);
	}
	wk->fd = fid_path_fd(wk->fid);
	if (wk->fd < 0)
		return wk->fd;
	if (skip) {
		if (count > skip)
			rest[-1] = '\0';
		wk->fd = open_beneath(wk->fid->attach, wk->fd, w->path, O_PATH | O_NOFOLLOW);
		if (wk->fd < 0)
			return wk->fd;
		wk->owned = true;
	}
	wk->left = count - skip;
	wk->next = rest;
	for (char *p = rest; *p; p++)
		if (*p == '/')
			*p = '\0';
	if (want & P9_WANT_SELF) {
		err = walk_add_node(wk, wk->fd, "", NULL);
		if (err)
			return err;
	}
	return 0;
}

void walk_end(struct walk *wk)
{
	if (wk->owned && wk->fd >= 0)
		worker_close_late(wk->w, wk->fd);
	if (wk->fid)
		fid_put(wk->fid);
}

static int walk_read_target(struct walk *wk, int fd, const char *name)
{
	ssize_t len = readlinkat(fd, name, wk->w->target, sizeof(wk->w->target));

	if (len < 0)
		return -errno;
	if ((size_t)len >= sizeof(wk->w->target))
		return -ENAMETOOLONG;
	wk->target.data = wk->w->target;
	wk->target.len = (uint16_t)len;
	return 0;
}

/* getxattrat(2) of Linux 6.13: no way through /proc. */
struct getxattrat_args {
	uint64_t value;
	uint32_t size, flags;
};

/* Of an entry of a directory. -ENOSYS: there is no such call. */
static long acl_size_at(int dirfd, const char *name)
{
	static _Atomic bool missing;
	const struct getxattrat_args args = {0};
	long got;

	if (atomic_load_explicit(&missing, memory_order_relaxed))
		return -ENOSYS;
	got = syscall(MOAT_SYS_getxattrat, dirfd, name, AT_SYMLINK_NOFOLLOW, ACL_ACCESS, &args,
		      sizeof(args));
	if (got >= 0)
		return got;
	/* EPERM: a filter around us, older than the call. */
	if (errno != ENOSYS && errno != EPERM)
		return -errno;
	atomic_store_explicit(&missing, true, memory_order_relaxed);
	return -ENOSYS;
}

static long acl_size_by_path(int fd, const char *name)
{
	char path[P9_NAME_MAX + 20];
	long got;

	fd_name(fd, path);
	if (*name) {
		strcat(path, "/");
		strncat(path, name, P9_NAME_MAX);
		got = syscall(SYS_lgetxattr, path, ACL_ACCESS, NULL, 0);
	} else {
		got = syscall(SYS_getxattr, path, ACL_ACCESS, NULL, 0);
	}
	return got < 0 ? -errno : got;
}

uint8_t acl_bits(int fd, const char *name, uint32_t mode, bool *ret_unsupported)
{
	long got = -ENOSYS;

	/* Without a mask it decides nothing. */
	if (S_ISLNK(mode) || !(mode & S_IRWXG))
		return P9_QTACL_ASKED;
	if (*name || S_ISDIR(mode))
		got = acl_size_at(fd, *name ? name : ".");
	if (got == -ENOSYS)
		got = acl_size_by_path(fd, name);
	if (got == -EOPNOTSUPP && ret_unsupported)
		*ret_unsupported = true;
	/* Any other failure says nothing of it: the client asks, and hears of the failure, before it decides. */
	if (got == -ENODATA || got == -EOPNOTSUPP)
		return P9_QTACL_ASKED;
	return P9_QTACL_ASKED | P9_QTACL;
}

bool has_no_xattrs(int dirfd, const char *name, uint32_t mode)
{
	char path[P9_NAME_MAX + 20];

	if (S_ISLNK(mode))
		return false;
	fd_name(dirfd, path);
	strcat(path, "/");
	strncat(path, name, P9_NAME_MAX);
	return syscall(SYS_llistxattr, path, NULL, 0) == 0;
}

/* Of a file's state: its ctime changes with its ACL. Never 0. */
static uint64_t state_key(const struct statx *stx)
{
	const struct {
		uint64_t ino;
		int64_t sec;
		uint32_t nsec, major, minor, mode;
	} state = {.ino = stx->stx_ino,
		   .sec = stx->stx_ctime.tv_sec,
		   .nsec = stx->stx_ctime.tv_nsec,
		   .major = stx->stx_dev_major,
		   .minor = stx->stx_dev_minor,
		   .mode = stx->stx_mode};

	return hash_bytes(&state, sizeof(state)) | 1;
}

/*
 * acl_bits(), not asked again of a file that had no ACL and has not changed since. Only where another change would have another time: the
 * last one is longer ago than any filesystem's clock is coarse, or the filesystem gives what was looked at a time of its own. Not so where it keeps whole
 * seconds (ext2, and ext4 with small inodes, look like any ext4), which a time with a fraction rules out.
 */
static uint8_t acl_bits_known(const struct walk *wk, int fd, const char *name,
			      const struct statx *stx)
{
	struct server *srv = wk->w->srv;
	const struct attach *attach = wk->fid->attach;
	bool fine = attach->fine_ctime && stx->stx_ctime.tv_nsec != 0 &&
		    attach->dev == makedev(stx->stx_dev_major, stx->stx_dev_minor);

	uint64_t key = state_key(stx);
	/* Two, so that two files in use at once do not drive each other out. */
	_Atomic uint64_t *slot = &srv->no_acl[(key >> 32) % (SERVER_NO_ACL_SLOTS / 2) * 2];
	struct timespec now;
	uint8_t bits;

	if (atomic_load_explicit(slot, memory_order_relaxed) == key ||
	    atomic_load_explicit(slot + 1, memory_order_relaxed) == key)
		return P9_QTACL_ASKED;
	bits = acl_bits(fd, name, stx->stx_mode, NULL);
	if (!fine) {
		clock_gettime(CLOCK_REALTIME, &now);
		fine = now.tv_sec - stx->stx_ctime.tv_sec >= SERVER_NO_ACL_AGE_S;
	}
	if (bits == P9_QTACL_ASKED && fine)
		atomic_store_explicit(slot + 1,
				      atomic_exchange_explicit(slot, key, memory_order_relaxed),
				      memory_order_relaxed);
	return bits;
}

int walk_add_node(struct walk *wk, int fd, const char *name, struct statx *ret_stx)
{
	struct p9_node node;
	struct statx stx;
	int err = stat_fd(fd, name, &stx);

	if (err)
		return err;
	if (S_ISLNK(stx.stx_mode)) {
		err = walk_read_target(wk, fd, name);
		if (err)
			return err;
	}
	assert(wk->nodes < P9_NODES_MAX);
	stat_to_node(wk->w->srv, &stx, &node);
	if (wk->want_acl)
		node.qid.type |= acl_bits_known(wk, fd, name, &stx);
	p9_node_put(&node, wk->w->nodes + (size_t)wk->nodes * P9_NODE_SIZE);
	wk->nodes++;
	if (ret_stx)
		*ret_stx = stx;
	return 0;
}

void walk_refresh_node(struct walk *wk, unsigned i)
{
	struct p9_node node;
	struct statx stx;

	/* Cannot fail for an open descriptor, short of I/O errors: then the older attributes stand. */
	if (stat_fd(wk->fd, "", &stx) < 0)
		return;
	stat_to_node(wk->w->srv, &stx, &node);
	p9_node_put(&node, wk->w->nodes + (size_t)i * P9_NODE_SIZE);
}

void walk_nodes(const struct walk *wk, struct p9_nodes *ret)
{
	ret->data = wk->w->nodes;
	ret->count = (uint16_t)wk->nodes;
}

void walk_dirs(struct walk *wk, unsigned keep)
{
	while (wk->left > keep && !wk->stopped) {
		struct statx stx;
		int fd, err;

		/* Two nodes stay free for what the operation itself adds. */
		if (wk->nodes >= P9_NODES_MAX - 2) {
			wk->stopped = true;
			return;
		}
		fd = openat(wk->fd, wk->next, O_PATH | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0) {
			wk->err = -errno;
			wk->stopped = true;
			return;
		}
		err = walk_add_node(wk, fd, "", &stx);
		if (err || !S_ISDIR(stx.stx_mode)) {
			close(fd);
			wk->err = err;
			wk->stopped = true;
			return;
		}
		if (wk->owned)
			worker_close_late(wk->w, wk->fd);
		wk->fd = fd;
		wk->owned = true;
		wk->next += strlen(wk->next) + 1;
		wk->left--;
	}
}
