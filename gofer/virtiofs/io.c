/* gofer/virtiofs/io.c - requests on open files and directories. File data goes straight between the rings and the files. */
#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "gofer/virtiofs/server.h"

#define ARG(r, type)                                      \
	({                                                \
		type arg_;                                \
		memcpy(&arg_, (r)->in.arg, sizeof(arg_)); \
		arg_;                                     \
	})
#define PIECES_MAX 256
#define DENTS_BYTES 32768

struct linux_dirent64 {
	uint64_t ino;
	int64_t off;
	uint16_t reclen;
	uint8_t type;
	char name[];
};

/* Who holds data back reads what it writes only parts of, whatever it opened the file for. */
int open_flags(const struct daemon *d, uint32_t wanted)
{
	int flags = (int)wanted & (O_ACCMODE | O_TRUNC | O_EXCL | O_NOATIME | O_DSYNC | O_SYNC);

	return d->writeback && (flags & O_ACCMODE) == O_WRONLY ? (flags & ~O_ACCMODE) | O_RDWR
							       : flags;
}

int add_open(struct daemon *d, int fd, struct fuse_open_out *ret)
{
	int64_t fh = handle_add(d, fd, false);

	if (fh < 0)
		return (int)fh;
	*ret = (struct fuse_open_out){.fh = (uint64_t)fh};
	if (d->config.cache == VIRTIOFSD_ALWAYS)
		ret->open_flags = FOPEN_KEEP_CACHE;
	else if (d->config.cache == VIRTIOFSD_NONE)
		ret->open_flags = FOPEN_DIRECT_IO;
	return 0;
}

/* Takes fd. */
static int reply_open(struct request *r, int fd)
{
	struct fuse_open_out out;
	int err = add_open(r->d, fd, &out);

	if (err)
		return err;
	memcpy(r->reply + r->reply_size, &out, sizeof(out));
	r->reply_size += sizeof(out);
	return 0;
}

int do_open(struct request *r, struct node *n)
{
	const struct fuse_open_in a = ARG(r, struct fuse_open_in);
	int flags = open_flags(r->d, a.flags) & ~O_EXCL, fd;

	if (n->type != S_IFREG)
		return n->type == S_IFDIR ? -EISDIR : -ENXIO;
	if (r->d->config.readonly && ((flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC)))
		return -EROFS;
	if (r->d->killpriv && (flags & O_TRUNC) && (a.open_flags & FUSE_OPEN_KILL_SUIDGID))
		kill_privileges(r->d, n->fd);
	fd = node_open(r->d, n, flags);
	if (fd < 0)
		return fd;
	if (flags & O_TRUNC)
		version_changed(r->d, n);
	return reply_open(r, fd);
}

int file_make(struct request *r, const struct node *dir, const char *name, int flags, uint32_t mode,
	      uint32_t mask, struct fuse_entry_out *ret)
{
	int fd, err;

	set_umask(mask);
	fd = openat(dir->fd, name, flags | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode & 0777);
	if (fd < 0)
		return -errno;
	err = give_to_caller(r, dir, fd, (mode & 07777) | S_IFREG);
	version_fd_changed(r->d, fd);
	version_name_changed(r->d, dir, name);
	if (!err)
		err = lookup_entry(r->d, dir, name, ret);
	if (!err)
		return fd;
	close(fd);
	(void)remove_name(r->d, dir, name, 0);
	return err;
}

/* `name` is there: looked at before it is opened, for it may be anything. Return: a descriptor and its entry, -errno. */
static int open_there(struct request *r, const struct node *dir, const char *name, int flags,
		      bool kill, struct fuse_entry_out *ret)
{
	int err = lookup_entry(r->d, dir, name, ret), fd;
	struct node *n;

	if (err)
		return err;
	n = node_get(r->d, ret->nodeid);
	if (n && r->d->killpriv && (flags & O_TRUNC) && kill)
		kill_privileges(r->d, n->fd);
	fd = n ? node_open(r->d, n, flags & ~O_EXCL) : -ESTALE;
	if (n)
		node_put(r->d, n);
	if (fd >= 0 && (flags & O_TRUNC))
		version_fd_changed(r->d, fd);
	if (fd < 0)
		node_forget(r->d, ret->nodeid, 1);
	return fd;
}

int do_create(struct request *r, struct node *n)
{
	const struct fuse_create_in a = ARG(r, struct fuse_create_in);
	int flags = open_flags(r->d, a.flags), fd, err;
	const char *name = r->in.name[0];
	struct fuse_entry_out out;
	bool existed = false;

	fd = file_make(r, n, name, flags, a.mode, a.umask, &out);
	if (fd == -EEXIST && !(flags & O_EXCL)) {
		existed = true;
		fd = open_there(r, n, name, flags, a.open_flags & FUSE_OPEN_KILL_SUIDGID, &out);
	}
	if (fd < 0)
		return fd;
	memcpy(r->reply, &out, sizeof(out));
	r->reply_size = sizeof(out);
	err = reply_open(r, fd);
	if (err) {
		node_forget(r->d, out.nodeid, 1);
		if (!existed)
			(void)remove_name(r->d, n, name, 0);
	}
	return err;
}

/* A file without a name. The client's name for it says nothing: Linux's sends "/". LINK gives it one, but after O_EXCL. */
int do_tmpfile(struct request *r, struct node *n)
{
	const struct fuse_create_in a = ARG(r, struct fuse_create_in);
	int flags = open_flags(r->d, a.flags & ~(uint32_t)O_TRUNC), fd, path_fd, err;
	struct fuse_entry_out out;
	char path[16];

	if (n->type != S_IFDIR)
		return -ENOTDIR;
	set_umask(a.umask);
	fd = openat(n->fd, ".", flags | O_TMPFILE | O_CLOEXEC, a.mode & 0777);
	if (fd < 0)
		return -errno;
	fd_path(fd, path);
	path_fd = openat(r->d->proc_fd, path, O_PATH | O_CLOEXEC);
	err = path_fd < 0 ? -errno : give_to_caller(r, n, fd, (a.mode & 07777) | S_IFREG);
	if (err && path_fd >= 0)
		close(path_fd);
	if (!err)
		err = enter_entry(r->d, n, path_fd, 0, &out);
	if (err) {
		close(fd);
		return err;
	}
	memcpy(r->reply, &out, sizeof(out));
	r->reply_size = sizeof(out);
	err = reply_open(r, fd);
	if (err)
		node_forget(r->d, out.nodeid, 1);
	return err;
}

int do_release(struct request *r, struct node *n)
{
	const struct fuse_release_in a = ARG(r, struct fuse_release_in);

	/* A node that is gone took its locks along. */
	if (n && (a.release_flags & FUSE_RELEASE_FLUSH))
		locks_drop_owner(r->d, n, a.lock_owner);
	handle_remove(r->d, a.fh);
	return 0;
}

int do_read(struct request *r, struct node *n)
{
	const struct fuse_read_in a = ARG(r, struct fuse_read_in);
	uint64_t size = MIN((uint64_t)MIN(a.size, MAX_IO),
			    r->chain->in_size - MIN(r->chain->in_size,
						    (uint64_t)sizeof(struct fuse_out_header)));
	struct handle *h = handle_get(r->d, a.fh, false);
	struct iovec iov[PIECES_MAX];
	unsigned count;
	ssize_t got;

	(void)n;
	if (!h)
		return -EBADF;
	count = request_slice(r->chain->in, r->chain->in_count, sizeof(struct fuse_out_header),
			      size, iov, PIECES_MAX);
	front_end_begin();
	got = count ? preadv(h->fd, iov, (int)count, (off_t)a.offset) : 0;
	if (got < 0)
		got = -errno;
	front_end_end();
	handle_put(r->d, h);
	if (got < 0)
		return (int)got;
	r->in_place = (size_t)got;
	return 0;
}

int do_write(struct request *r, struct node *n)
{
	const struct fuse_write_in a = ARG(r, struct fuse_write_in);
	struct handle *h = handle_get(r->d, a.fh, false);
	struct fuse_write_out out = {0};
	struct iovec iov[PIECES_MAX];
	unsigned count;
	ssize_t put;

	if (!h)
		return -EBADF;
	count = request_slice(r->chain->out, r->chain->out_count, r->data_at, MIN(a.size, MAX_IO),
			      iov, PIECES_MAX);
	if (r->d->killpriv && (a.write_flags & FUSE_WRITE_KILL_SUIDGID))
		kill_privileges(r->d, h->fd);
	front_end_begin();
	put = count ? pwritev(h->fd, iov, (int)count, (off_t)a.offset) : 0;
	if (put < 0)
		put = -errno;
	front_end_end();
	version_changed(r->d, n);
	handle_put(r->d, h);
	if (put < 0)
		return (int)put;
	out.size = (uint32_t)put;
	memcpy(r->reply, &out, sizeof(out));
	r->reply_size = sizeof(out);
	return 0;
}

static int sync_handle(struct request *r, bool is_dir)
{
	const struct fuse_fsync_in a = ARG(r, struct fuse_fsync_in);
	struct handle *h = handle_get(r->d, a.fh, is_dir);
	int err = 0;

	if (!h)
		return -EBADF;
	if ((a.fsync_flags & 1 ? fdatasync(h->fd) : fsync(h->fd)) < 0)
		err = -errno;
	handle_put(r->d, h);
	return err;
}

int do_fsync(struct request *r, struct node *n)
{
	(void)n;
	return sync_handle(r, false);
}

int do_fsyncdir(struct request *r, struct node *n)
{
	(void)n;
	return sync_handle(r, true);
}

/* Nothing is held back here; a close(2) lets go of what its owner has locked. */
int do_flush(struct request *r, struct node *n)
{
	const struct fuse_flush_in a = ARG(r, struct fuse_flush_in);
	struct handle *h = handle_get(r->d, a.fh, false);

	if (!h)
		return -EBADF;
	locks_drop_owner(r->d, n, a.lock_owner);
	handle_put(r->d, h);
	return 0;
}

int do_fallocate(struct request *r, struct node *n)
{
	const struct fuse_fallocate_in a = ARG(r, struct fuse_fallocate_in);
	struct handle *h = handle_get(r->d, a.fh, false);
	int err = 0;

	if (!h)
		return -EBADF;
	if (fallocate(h->fd, (int)a.mode, (off_t)a.offset, (off_t)a.length) < 0)
		err = -errno;
	version_changed(r->d, n);
	handle_put(r->d, h);
	return err;
}

int do_lseek(struct request *r, struct node *n)
{
	const struct fuse_lseek_in a = ARG(r, struct fuse_lseek_in);
	struct handle *h = handle_get(r->d, a.fh, false);
	struct fuse_lseek_out out = {0};
	off_t at = -1;

	(void)n;
	if (!h)
		return -EBADF;
	errno = EINVAL;
	if (a.whence == SEEK_DATA || a.whence == SEEK_HOLE)
		at = lseek(h->fd, (off_t)a.offset, (int)a.whence);
	handle_put(r->d, h);
	if (at < 0)
		return -errno;
	out.offset = (uint64_t)at;
	memcpy(r->reply, &out, sizeof(out));
	r->reply_size = sizeof(out);
	return 0;
}

int do_copy_file_range(struct request *r, struct node *n)
{
	const struct fuse_copy_file_range_in a = ARG(r, struct fuse_copy_file_range_in);
	struct handle *in = handle_get(r->d, a.fh_in, false),
		      *out = handle_get(r->d, a.fh_out, false);
	loff_t off_in = (loff_t)a.off_in, off_out = (loff_t)a.off_out;
	struct fuse_write_out reply = {0};
	ssize_t got = -EBADF;

	(void)n;
	if (in && out && !a.flags) {
		got = copy_file_range(in->fd, &off_in, out->fd, &off_out,
				      MIN(a.len, (uint64_t)UINT32_MAX / 2), 0);
		if (got < 0)
			got = -errno;
		version_fd_changed(r->d, out->fd);
	}
	if (in)
		handle_put(r->d, in);
	if (out)
		handle_put(r->d, out);
	if (got < 0)
		return (int)got;
	reply.size = (uint32_t)got;
	memcpy(r->reply, &reply, sizeof(reply));
	r->reply_size = sizeof(reply);
	return 0;
}

/* ---- directories ---- */

int do_opendir(struct request *r, struct node *n)
{
	struct fuse_open_out out = {0};
	int64_t fh;
	int fd;

	if (n->type != S_IFDIR)
		return -ENOTDIR;
	fd = node_open(r->d, n, O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		return fd;
	fh = handle_add(r->d, fd, true);
	if (fh < 0)
		return (int)fh;
	out.fh = (uint64_t)fh;
	memcpy(r->reply, &out, sizeof(out));
	r->reply_size = sizeof(out);
	return 0;
}

/* One entry of the host's onto the reply. Return: 1, 0: no room. */
static int put_entry(struct request *r, struct node *dir, const struct linux_dirent64 *de,
		     bool plus, size_t room)
{
	struct fuse_entry e = {
		.name = de->name,
		.len = (uint32_t)strlen(de->name),
		.type = de->type,
		.ino = de->ino,
		.off = (uint64_t)de->off,
	};
	bool dots = !strcmp(de->name, ".") || !strcmp(de->name, "..");

	/* The client need not learn what lies above the tree. */
	if (!strcmp(de->name, "..") && dir == r->d->root)
		e.ino = dir->ino;
	if (plus && !dots && lookup_entry(r->d, dir, de->name, &e.node))
		memset(&e.node, 0,
		       sizeof(e.node)); /* gone, or no descriptors: a name without a node */
	if (fuse_put_entry(r->reply, room, &r->reply_size, plus, &e))
		return 1;
	if (e.node.nodeid)
		node_forget(r->d, e.node.nodeid, 1);
	return 0;
}

static int read_dir(struct request *r, struct node *n, bool plus)
{
	const struct fuse_read_in a = ARG(r, struct fuse_read_in);
	struct handle *h = handle_get(r->d, a.fh, true);
	size_t room = MIN((size_t)a.size, (size_t)REPLY_BYTES_MAX);
	char buf[DENTS_BYTES] __attribute__((aligned(8)));
	bool full = false;
	int err = 0;

	if (!h)
		return -EBADF;
	room = MIN(room, r->chain->in_size -
				 MIN(r->chain->in_size, (uint64_t)sizeof(struct fuse_out_header)));
	mutex_lock(&h->lock);
	if (h->pos != (int64_t)a.offset && lseek(h->fd, (off_t)a.offset, SEEK_SET) < 0)
		err = -errno;
	h->pos = (int64_t)a.offset;
	while (!err && !full) {
		long got = syscall(SYS_getdents64, h->fd, buf, sizeof(buf));

		if (got < 0)
			err = -errno;
		if (got <= 0)
			break;
		for (long at = 0; at < got && !full;) {
			const struct linux_dirent64 *de = (const void *)(buf + at);

			if (put_entry(r, n, de, plus, room))
				h->pos = de->off;
			else
				full = true;
			at += de->reclen;
		}
	}
	/* The descriptor read ahead of what was sent. */
	if (!err && full && lseek(h->fd, (off_t)h->pos, SEEK_SET) < 0)
		err = -errno;
	mutex_unlock(&h->lock);
	handle_put(r->d, h);
	return r->reply_size ? 0 : err;
}

int do_readdir(struct request *r, struct node *n)
{
	return read_dir(r, n, false);
}

int do_readdirplus(struct request *r, struct node *n)
{
	return read_dir(r, n, true);
}
