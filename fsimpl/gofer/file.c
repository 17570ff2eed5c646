/*
 * fsimpl/gofer/file.c - regular files: reads, writes and mappings of the donated descriptor.
 *
 * Bytes go straight between the host's page cache and the guest's pages (io_iter windows), and a mapping maps the host's page cache itself:
 * there is one cache, the host's, and it is always coherent. Writers of one file take its write_lock, as Linux takes i_rwsem, so
 * that appends find the end that their write then gets.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fsimpl/gofer/internal.h"

struct gofer_file {
	struct file f;
	int fd; /* the inode's, pinned: immutable */
	bool writable; /* fd may write */
};

#define WINDOW_MAX (16ul << 20)
/* An append up to this is one write on the host, in however many pieces it lies. */
#define APPEND_MAX (1ul << 20)

static struct gofer_file *gofer_file_of(struct file *f)
{
	return container_of(f, struct gofer_file, f);
}

static struct gofer_inode *file_inode(struct file *f)
{
	return gofer_inode_of(remote_dentry_of(f->path.dentry));
}

/* ---- reads and writes ---- */

static ssize_t read_windows(int fd, struct io_iter *it, int64_t off, int rwf)
{
	ssize_t done = 0;

	while (it->remaining) {
		struct iovec iov[IO_ITER_SEGS];
		size_t asked = 0;
		ssize_t got;
		int count = io_iter_window(it, MIN(it->remaining, WINDOW_MAX), iov, IO_ITER_SEGS);

		if (count < 0)
			return done ? done : count;
		for (int i = 0; i < count; i++)
			asked += iov[i].iov_len;
		got = preadv2(fd, iov, count, off + done, rwf & RWF_NOWAIT);
		if (got < 0)
			return done ? done : -errno;
		io_iter_advance(it, (uint64_t)got);
		done += got;
		if ((size_t)got < asked)
			break;
	}
	return done;
}

static ssize_t gofer_read_iter(struct file *f, struct io_iter *it, int64_t off, int rwf)
{
	struct gofer_inode *in = file_inode(f);
	int fd = gofer_file_of(f)->fd;
	struct gofer_own_io *own;
	ssize_t ret;

	if (gofer_is_plain(in))
		return gofer_plain_read(in, fd, it, off);
	own = gofer_own_begin(in, fd, IN_ACCESS);
	ret = read_windows(fd, it, off, rwf);
	gofer_own_end(in->fs, own);
	return ret;
}

/* Writing takes setuid and setgid away from who may not keep them; the host has done it for everybody. */
static void fix_priv_after_write(struct file *f, const struct perm_inode *pi)
{
	struct remote_dentry *d = remote_dentry_of(f->path.dentry);
	struct setattr_args a = {.valid = SETATTR_MODE,
				 .mode = vfs_kill_priv_mode_gid(cred_current(), pi->mode, pi->gid) &
					 07777};

	/* The data is written: a failure here has nobody to tell. */
	(void)!gofer_setattr(gofer_inode_of(d)->fs, d, &a);
}

/* off: -1: where the file ends on the host at that time, whoever else writes to it. */
static ssize_t write_windows(int fd, struct io_iter *it, int64_t off, int rwf)
{
	int flags = (rwf & RWF_NOWAIT) | (off < 0 ? RWF_APPEND : 0);
	ssize_t done = 0;

	while (it->remaining) {
		struct iovec iov[IO_ITER_SEGS];
		size_t asked = 0;
		ssize_t put;
		int count = io_iter_window(it, MIN(it->remaining, WINDOW_MAX), iov, IO_ITER_SEGS);

		if (count < 0)
			return done ? done : count;
		for (int i = 0; i < count; i++)
			asked += iov[i].iov_len;
		put = pwritev2(fd, iov, count, off < 0 ? -1 : off + done, flags);
		if (put < 0)
			return done ? done : -errno;
		io_iter_advance(it, (uint64_t)put);
		done += put;
		if ((size_t)put < asked)
			break;
	}
	return done;
}

/* Does what is left lie in more pieces than one call takes? */
static bool is_scattered(struct io_iter *it)
{
	struct iovec iov[IO_ITER_SEGS];
	int count = io_iter_window(it, it->remaining, iov, IO_ITER_SEGS);
	uint64_t size = 0;

	for (int i = 0; i < count; i++)
		size += iov[i].iov_len;
	return count > 0 && size < it->remaining;
}

/* By a copy, all in one call: of two, others' bytes might come between. */
static ssize_t append_gathered(int fd, struct io_iter *it, int rwf)
{
	struct iovec iov = {malloc(it->remaining), 0};
	ssize_t put;

	if (!iov.iov_base)
		return -ENOMEM;
	iov.iov_len = io_iter_get(it, iov.iov_base, it->remaining);
	put = iov.iov_len ? pwritev2(fd, &iov, 1, -1, (rwf & RWF_NOWAIT) | RWF_APPEND) : 0;
	if (put < 0)
		put = -errno;
	io_iter_revert(it, iov.iov_len - (size_t)MAX(put, 0));
	free(iov.iov_base);
	return put;
}

/* Other programs append to it too: only the host knows the end. *ret_off: where it was. Pre: write_lock. */
static ssize_t append_windows(int fd, struct io_iter *it, int rwf, int64_t *ret_off)
{
	bool gathers = it->remaining <= APPEND_MAX && is_scattered(it);
	ssize_t done = gathers ? append_gathered(fd, it, rwf) : write_windows(fd, it, -1, rwf);
	off_t end = done > 0 ? lseek(fd, 0, SEEK_CUR) : -1;

	if (end >= done)
		*ret_off = end - done;
	return done;
}

static ssize_t gofer_write_iter(struct file *f, struct io_iter *it, int64_t *inout_off, int rwf)
{
	bool append = file_appends(f, rwf);
	struct gofer_inode *in = file_inode(f);
	int fd = gofer_file_of(f)->fd;
	struct gofer_own_io *own;
	struct perm_inode pi;
	ssize_t ret;

	ret = op_lock_killable(&in->write_lock);
	if (ret)
		return ret;
	if (append) {
		gofer_plain_freshen(remote_dentry_of(f->path.dentry));
		*inout_off = (int64_t)gofer_inode_size(in);
	}
	if (vfs_hooks.check_fsize)
		ret = vfs_hooks.check_fsize(*inout_off, it);
	gofer_inode_perm_fresh(in, &pi);
	if (!ret && gofer_is_plain(in))
		ret = gofer_plain_write(in, fd, it, *inout_off);
	own = gofer_own_begin(in, fd, IN_MODIFY);
	if (!ret && !gofer_is_plain(in))
		ret = append && in->fs->shared ? append_windows(fd, it, rwf, inout_off)
					       : write_windows(fd, it, *inout_off, rwf);
	gofer_own_end(in->fs, own);
	op_unlock(&in->write_lock);
	if (ret > 0 && (pi.mode & (S_ISUID | S_ISGID)))
		fix_priv_after_write(f, &pi);
	return ret;
}

/* Can the host not do that? Two of its filesystems, one that has no such thing, or a filter around us that is older than the call. */
static bool host_cannot_copy(int err)
{
	if (err == EPERM) /* of a filter, whatever the arguments; else of the file */
		return copy_file_range(-1, NULL, -1, NULL, 0, 0) < 0 && errno == EPERM;
	return err == EXDEV || err == EINVAL || err == ENOSYS || err == EOPNOTSUPP;
}

/* The host copies: from descriptor to descriptor, no data and no request. */
static ssize_t gofer_copy_range(struct file *in, int64_t off_in, struct file *out, int64_t off_out,
				size_t size)
{
	struct gofer_inode *to = file_inode(out);
	struct gofer_own_io *own_in, *own_out;
	struct perm_inode pi;
	struct io_iter limit;
	ssize_t ret;
	char none;

	if (gofer_is_plain(to) || gofer_is_plain(file_inode(in)))
		return -EOPNOTSUPP;
	ret = op_lock_killable(&to->write_lock);
	if (ret)
		return ret;
	/* Only its length is used. */
	io_iter_init_kernel(&limit, &none, size, false);
	if (vfs_hooks.check_fsize)
		ret = vfs_hooks.check_fsize(off_out, &limit);
	gofer_inode_perm_fresh(to, &pi);
	own_in = gofer_own_begin(file_inode(in), gofer_file_of(in)->fd, IN_ACCESS);
	own_out = gofer_own_begin(to, gofer_file_of(out)->fd, IN_MODIFY);
	if (!ret) {
		ret = copy_file_range(gofer_file_of(in)->fd, &off_in, gofer_file_of(out)->fd,
				      &off_out, limit.remaining, 0);
		if (ret < 0)
			ret = -errno;
		if (ret < 0 && host_cannot_copy((int)-ret))
			ret = -EOPNOTSUPP;
	}
	gofer_own_end(to->fs, own_out);
	gofer_own_end(file_inode(in)->fs, own_in);
	io_iter_fini(&limit);
	op_unlock(&to->write_lock);
	if (ret > 0 && (pi.mode & (S_ISUID | S_ISGID)))
		fix_priv_after_write(out, &pi);
	return ret;
}

/* SEEK_DATA, SEEK_HOLE. All I/O says where it goes, but appends, which ask the descriptor where they went. */
static int64_t seek_host(struct file *f, int64_t off, int whence)
{
	struct gofer_inode *in = file_inode(f);
	int err;

	if (gofer_is_plain(in))
		return gofer_plain_seek(in, off, whence);
	err = op_lock_killable(&in->write_lock);
	if (err)
		return err;
	off = lseek(gofer_file_of(f)->fd, off, whence);
	if (off < 0)
		off = -errno;
	op_unlock(&in->write_lock);
	return off;
}

static int64_t gofer_seek(struct file *f, int64_t off, int whence)
{
	int64_t base = 0;

	switch (whence) {
	case SEEK_SET:
		break;
	case SEEK_CUR:
		base = f->pos;
		break;
	case SEEK_END:
		gofer_plain_freshen(remote_dentry_of(f->path.dentry));
		base = (int64_t)gofer_inode_size(file_inode(f));
		break;
	case SEEK_DATA:
	case SEEK_HOLE:
		off = seek_host(f, off, whence);
		if (off < 0)
			return off;
		break;
	default:
		return -EINVAL;
	}
	if (__builtin_add_overflow(base, off, &off))
		return -EINVAL;
	if (off < 0)
		return -EINVAL;
	f->pos = off;
	return off;
}

/* ---- size ---- */

void gofer_inode_truncated(struct gofer_inode *in, uint64_t size)
{
	rwlock_write_lock(&in->map.data_lock);
	mappable_invalidate(&in->map, round_up_u64(size, MOAT_PAGE_SIZE), UINT64_MAX, true);
	rwlock_write_unlock(&in->map.data_lock);
}

int gofer_inode_truncate(struct remote_dentry *d, int rw_fd, uint64_t size)
{
	struct gofer_own_io *own;
	int err;

	if (gofer_is_plain(gofer_inode_of(d)))
		return gofer_plain_truncate(d, size);
	own = gofer_own_begin(gofer_inode_of(d), rw_fd, IN_MODIFY);
	/* translate() looks at the size under data_lock: what it gave out before this is dropped after it. */
	err = ftruncate(rw_fd, (off_t)size) < 0 ? -errno : 0;
	gofer_own_end(gofer_inode_of(d)->fs, own);
	if (err)
		return err;
	gofer_inode_truncated(gofer_inode_of(d), size);
	return 0;
}

static int gofer_truncate(struct file *f, uint64_t size)
{
	struct gofer_inode *in = file_inode(f);
	struct perm_inode pi;
	int err;

	if (!gofer_file_of(f)->writable)
		return -EINVAL;
	gofer_plain_freshen(remote_dentry_of(f->path.dentry));
	gofer_inode_perm_fresh(in, &pi);
	err = op_lock_killable(&in->write_lock);
	if (err)
		return err;
	err = gofer_inode_truncate(remote_dentry_of(f->path.dentry), gofer_file_of(f)->fd, size);
	op_unlock(&in->write_lock);
	if (!err && (pi.mode & (S_ISUID | S_ISGID)))
		fix_priv_after_write(f, &pi);
	return err;
}

static int gofer_fallocate(struct file *f, int mode, uint64_t off, uint64_t size)
{
	struct gofer_inode *in = file_inode(f);
	struct gofer_own_io *own;
	int err;

	err = op_lock_killable(&in->write_lock);
	if (err)
		return err;
	own = gofer_own_begin(in, gofer_file_of(f)->fd, IN_MODIFY);
	if (gofer_is_plain(in))
		err = -EOPNOTSUPP;
	else if (fallocate(gofer_file_of(f)->fd, mode, (off_t)off, (off_t)size) < 0)
		err = -errno;
	gofer_own_end(in->fs, own);
	op_unlock(&in->write_lock);
	return err;
}

static int gofer_fsync(struct file *f, bool data_only, uint64_t start, uint64_t end)
{
	int fd = gofer_file_of(f)->fd;

	(void)start;
	(void)end;
	if (gofer_is_plain(file_inode(f)))
		return gofer_plain_fsync(file_inode(f)->fs->conn, (uint32_t)fd, data_only);
	return (data_only ? fdatasync(fd) : fsync(fd)) < 0 ? -errno : 0;
}

static int gofer_file_stat(struct file *f, const struct stat_args *args, struct moat_statx *ret)
{
	(void)args;
	gofer_plain_freshen(remote_dentry_of(f->path.dentry));
	gofer_inode_stat(file_inode(f), ret);
	return 0;
}

/* ---- mappings ---- */

static struct gofer_inode *inode_of_map(struct mappable *m)
{
	return container_of(m, struct gofer_inode, map);
}

/*
 * The memory file of in's pages, with writing allowed if this file may write. A first writer replaces a read-only one: what is mapped
 * is dropped and faults again, so that one page has one (memory file, offset).
 */
static int need_memfile(struct gofer_inode *in, int fd, bool writable)
{
	struct memfile *mf, *old = NULL;
	int err, own;
	bool enough;

	rwlock_read_lock(&in->map.data_lock);
	enough = in->mf && (in->mf_writable || !writable);
	rwlock_read_unlock(&in->map.data_lock);
	if (enough)
		return 0;
	own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (own < 0)
		return -errno;
	err = memfile_create_host(own, MEM_READ | MEM_EXEC | (writable ? MEM_WRITE : 0), &mf);
	if (err)
		return err;
	rwlock_write_lock(&in->map.data_lock);
	if (in->mf && (in->mf_writable || !writable)) {
		old = mf;
	} else {
		old = in->mf;
		in->mf = mf;
		in->mf_writable = writable;
		if (old)
			mappable_invalidate(&in->map, 0, UINT64_MAX, false);
	}
	rwlock_write_unlock(&in->map.data_lock);
	if (old)
		memfile_unref(old);
	else
		atomic_fetch_add(&in->fs->conn->host_fds, 1);
	return 0;
}

static struct mappable *gofer_mappable(struct file *f)
{
	struct gofer_file *gf = gofer_file_of(f);
	struct gofer_inode *in = file_inode(f);

	/* There is no page of the host's to map. */
	if (gofer_is_plain(in))
		return NULL;
	return need_memfile(in, gf->fd, gf->writable) ? NULL : &in->map;
}

static int gofer_map_translate(struct mappable *m, uint64_t off, uint64_t hint_start,
			       uint64_t hint_end, unsigned access, struct mem_trans *ret)
{
	struct gofer_inode *in = inode_of_map(m);
	uint64_t start, end, file_end;
	struct stat st;
	int err;

	if (!in->mf)
		return -EFAULT;
	if ((access & MEM_WRITE) && !in->mf_writable)
		return -EACCES;
	if (fstat(memfile_fd(in->mf), &st) < 0)
		return -EFAULT;
	file_end = round_up_u64((uint64_t)st.st_size, MOAT_PAGE_SIZE);
	if (off >= file_end)
		return -EFAULT;
	/* The window maps host files in aligned spans of this size: one host mapping answers it all. */
	start = MAX(hint_start, round_down_u64(off, MEM_HOST_SPAN));
	end = round_down_u64(off, MEM_HOST_SPAN) + MEM_HOST_SPAN;
	end = MIN(end, file_end);
	end = MIN(end, hint_end);
	err = memfile_range_ref(in->mf, start, end - start);
	if (err)
		return err;
	*ret = (struct mem_trans){
		.mf = in->mf,
		.mf_off = start,
		.start = start,
		.size = end - start,
		.access = MEM_READ | MEM_EXEC | (in->mf_writable ? MEM_WRITE : 0),
	};
	return 0;
}

static int gofer_map_sync(struct mappable *m, uint64_t off, uint64_t size)
{
	struct gofer_inode *in = inode_of_map(m);
	int fd;

	(void)off;
	(void)size;
	mutex_lock(&in->lock);
	fd = in->rw_fd;
	mutex_unlock(&in->lock);
	/* Pinned by the mapping. */
	return fd < 0 || fdatasync(fd) == 0 ? 0 : -errno;
}

/* The caller holds an open file or another reference: the pin is there. May be called under any lock. */
static void gofer_map_ref(struct mappable *m)
{
	struct gofer_inode *in = inode_of_map(m);

	if (atomic_fetch_add(&in->map_refs, 1) == 0) {
		gofer_inode_pin_again(in);
		gofer_inode_ref(in);
	}
}

static void gofer_map_work(struct deferred_work *w)
{
	struct gofer_inode *in = container_of(w, struct gofer_inode, map_work);
	uint32_t drops = atomic_exchange(&in->map_drops, 0);

	while (drops--) {
		gofer_inode_unpin(in);
		gofer_inode_unref(in);
	}
}

static void gofer_map_unref(struct mappable *m)
{
	struct gofer_inode *in = inode_of_map(m);

	if (atomic_fetch_sub(&in->map_refs, 1) != 1)
		return;
	if (atomic_fetch_add(&in->map_drops, 1) == 0) {
		in->map_work.run = gofer_map_work;
		vfs_defer(&in->map_work);
	}
}

const struct mappable_ops gofer_mappable_ops = {
	.translate = gofer_map_translate,
	.sync = gofer_map_sync,
	.ref = gofer_map_ref,
	.unref = gofer_map_unref,
};

/* ---- life ---- */

static void file_free_rcu(struct rcu_cb *cb)
{
	free(container_of(cb, struct gofer_file, f.rcu));
}

static void gofer_file_release(struct file *f)
{
	struct gofer_file *gf = gofer_file_of(f);

	gofer_inode_unpin(file_inode(f));
	file_fini(f);
	rcu_call(&gf->f.rcu, file_free_rcu);
}

static const struct file_ops gofer_file_ops = {
	.release = gofer_file_release,
	.read_iter = gofer_read_iter,
	.write_iter = gofer_write_iter,
	.seek = gofer_seek,
	.mappable = gofer_mappable,
	.stat = gofer_file_stat,
	.truncate = gofer_truncate,
	.fallocate = gofer_fallocate,
	.copy_range = gofer_copy_range,
	.fsync = gofer_fsync,
	.remote_lock = gofer_remote_lock,
	.remote_lock_test = gofer_remote_lock_test,
	.remote_lock_drop = gofer_remote_lock_drop,
};

int gofer_file_create(struct resolving_path *rp, struct remote_dentry *d, int fd, unsigned flags,
		      struct file **ret)
{
	bool write = (flags & O_ACCMODE) == O_WRONLY || (flags & O_ACCMODE) == O_RDWR;
	struct gofer_file *gf = calloc(1, sizeof(*gf));
	struct vfs_path place;
	int err = gf ? 0 : -ENOMEM;

	if (!err && write)
		err = mount_begin_write(rp_mount(rp));
	if (err) {
		gofer_inode_unpin(gofer_inode_of(d));
		free(gf);
		return err;
	}
	rp_place(rp, &d->d, &place);
	file_init(&gf->f, &gofer_file_ops, &place, flags,
		  FILE_SEEKABLE | (write ? FILE_WRITER : 0));
	gf->fd = fd;
	gf->writable = write;
	*ret = &gf->f;
	return 0;
}
