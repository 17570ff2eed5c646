/* fsimpl/virtiofs/file.c - regular files: handles, and the choice between the page cache and the server. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fsimpl/virtiofs/internal.h"

static REF_TYPE(handle_type, "virtiofs_handle");

struct virtiofs_file {
	struct file f;
	struct virtiofs_handle *h; /* immutable; a reference */
	struct virtiofs_readahead ra;
	_Atomic uint32_t lost_seen; /* inode->lost_seq: failures that this file was told of */
};

static struct virtiofs_file *file_of(struct file *f)
{
	return container_of(f, struct virtiofs_file, f);
}

struct virtiofs_handle *virtiofs_file_handle(struct file *f)
{
	return file_of(f)->h;
}

static struct virtiofs_inode *file_inode(struct file *f)
{
	return virtiofs_inode_of(remote_dentry_of(f->path.dentry));
}

/* ---- handles ---- */

/* What the server is asked for: no creation, no appending (the client knows the end), reading too where a page may have to be completed. */
unsigned virtiofs_server_flags(const struct virtiofs_fs *fs, unsigned flags)
{
	flags &= (unsigned)(O_ACCMODE | O_NOATIME | O_DSYNC | O_SYNC);
	if (fs->options.writeback && (flags & O_ACCMODE) == O_WRONLY)
		flags = (flags & ~(unsigned)O_ACCMODE) | O_RDWR;
	return flags;
}

int virtiofs_handle_adopt(struct virtiofs_inode *in, unsigned flags, unsigned epoch,
			  const struct fuse_open_out *out, struct virtiofs_handle **ret)
{
	struct virtiofs_handle *h = calloc(1, sizeof(*h));

	if (!h)
		return -ENOMEM;
	ref_init(&h->ref, &handle_type);
	ref_get(&in->base.ref);
	h->in = in;
	h->flags = flags;
	virtiofs_owner_init(&h->user, in, h, false);
	virtiofs_owner_init(&h->filler, in, h, true);
	if (out) {
		h->fh = out->fh;
		h->open_flags = out->open_flags;
	} else {
		h->none = true;
		h->open_flags = FOPEN_KEEP_CACHE;
	}
	mutex_lock(&in->lock);
	/* The daemon that gave it is gone, and who opens anew what is in the list may have been here. */
	if (epoch != vdev_epoch(in->fs->dev))
		h->fh = UINT64_MAX;
	LIST_INSERT_HEAD(&in->handles, h, link);
	mutex_unlock(&in->lock);
	*ret = h;
	return 0;
}

int virtiofs_handle_open(struct virtiofs_inode *in, unsigned flags, struct virtiofs_handle **ret)
{
	const struct fuse_open_in arg = {.flags = virtiofs_server_flags(in->fs, flags)};
	struct fuse_open_out out;
	struct vdev_call call = {
		.req = {.opcode = FUSE_OPEN, .nodeid = in->nodeid, .arg = &arg},
		.reply = &out,
		.reply_size = sizeof(out),
	};
	unsigned epoch = vdev_epoch(in->fs->dev);
	ssize_t got = virtiofs_call(in->fs, &call);

	/* A server that needs no handles says so once. */
	if (got == -ENOSYS)
		return virtiofs_handle_adopt(in, arg.flags, epoch, NULL, ret);
	return got < 0 ? (int)got : virtiofs_handle_adopt(in, arg.flags, epoch, &out, ret);
}

/* All requests on the handle are through: they hold references. Nobody waits for the answer. */
static void release_rpc(struct virtiofs_handle *h)
{
	uint64_t node = h->in->nodeid;
	const struct fuse_release_in arg = {.fh = h->fh, .flags = h->flags};
	struct vdev_call call = {
		.req = {.opcode = FUSE_RELEASE, .nodeid = node, .arg = &arg},
		.unkillable = true, /* or the daemon keeps it, and its flock, for good */
	};

	if (vdev_begin_unwaited(h->in->fs->dev, &call) == -EAGAIN)
		(void)!virtiofs_call(h->in->fs, &call); /* nobody is left to tell */
}

void virtiofs_handle_unref(struct virtiofs_handle *h)
{
	struct virtiofs_inode *in = h->in;
	bool last;

	if (!ref_put(&h->ref))
		return;
	mutex_lock(&in->lock);
	LIST_REMOVE(h, link);
	last = LIST_EMPTY(&in->handles);
	mutex_unlock(&in->lock);
	if (last)
		virtiofs_pass_end(in);
	if (!h->none)
		release_rpc(h);
	virtiofs_inode_unref(in);
	ref_fini(&h->ref, &handle_type);
	free(h);
}

int virtiofs_handle_check(struct virtiofs_handle *h)
{
	int err;

	if (likely(!atomic_load_explicit(&h->unchecked, memory_order_acquire)))
		return 0;
	err = virtiofs_inode_refresh(h->in, VIRTIOFS_ASK);
	if (err)
		return err;
	virtiofs_data_revalidate(h->in);
	atomic_store_explicit(&h->unchecked, false, memory_order_release);
	return 0;
}

struct virtiofs_handle *virtiofs_handle_next(struct virtiofs_inode *in,
					     struct virtiofs_handle *after)
{
	struct virtiofs_handle *h;

	mutex_lock(&in->lock);
	h = after ? LIST_NEXT(after, link) : LIST_FIRST(&in->handles);
	while (h && !ref_tryget(&h->ref))
		h = LIST_NEXT(h, link);
	mutex_unlock(&in->lock);
	if (after)
		virtiofs_handle_unref(after);
	return h;
}

struct virtiofs_handle *virtiofs_handle_any(struct virtiofs_inode *in, bool write)
{
	struct virtiofs_handle *h;

	mutex_lock(&in->lock);
	LIST_FOREACH (h, &in->handles, link) {
		unsigned acc = h->flags & O_ACCMODE;

		if ((write ? acc != O_RDONLY : acc != O_WRONLY) && ref_tryget(&h->ref))
			break;
	}
	mutex_unlock(&in->lock);
	return h;
}

/* ---- reads and writes ---- */

static bool is_direct(struct file *f)
{
	return (file_of(f)->h->open_flags & FOPEN_DIRECT_IO) ||
	       file_inode(f)->fs->options.cache == VIRTIOFS_CACHE_NONE;
}

/* What is there is what is mapped; only where it ends is asked for. */
static ssize_t dax_read_iter(struct file *f, struct io_iter *it, uint64_t off)
{
	struct virtiofs_inode *in = file_inode(f);
	struct virtiofs_handle *h = file_of(f)->h;
	int err;

	virtiofs_versions_settle(in->fs->versions);
	err = virtiofs_handle_check(h);
	if (!err && (in->fs->versions || in->fs->options.cache == VIRTIOFS_CACHE_NONE ||
		     off + it->remaining > virtiofs_inode_size(in)))
		err = virtiofs_inode_refresh(in, 0);
	return err ? err : virtiofs_dax_read(in, h, it, off);
}

/* Data is as new as its attributes, and these as their version. */
static int check_versioned(struct file *f)
{
	struct virtiofs_inode *in = file_inode(f);
	int err;

	virtiofs_versions_settle(in->fs->versions);
	err = virtiofs_inode_refresh(in, 0);
	if (err)
		return err;
	virtiofs_data_revalidate(in);
	return 0;
}

/* Past the cache; what a mapping of ours wrote comes first. */
static ssize_t direct_read_iter(struct file *f, struct io_iter *it, uint64_t off)
{
	struct virtiofs_inode *in = file_inode(f);
	struct virtiofs_file *vf = file_of(f);
	uint64_t end = off + it->remaining;
	bool on = atomic_load_explicit(&vf->ra.next, memory_order_relaxed) == off;
	ssize_t got = 0;

	atomic_store_explicit(&vf->ra.next, end, memory_order_relaxed);
	if (it->remaining >= VIRTIOFS_PASS_BYTES &&
	    virtiofs_pass_ready(vf->h, on && end >= VIRTIOFS_READ_MAX)) {
		got = virtiofs_data_writeback(in, off, end);
		if (!got)
			got = virtiofs_pass_read(in, it, off, end);
	}
	return got ? got : virtiofs_data_read_direct(in, vf->h, it, off);
}

static ssize_t read_once(struct file *f, struct io_iter *it, int64_t off)
{
	struct virtiofs_inode *in = file_inode(f);
	int err;

	if (in->dax.on)
		return dax_read_iter(f, it, (uint64_t)off);
	if (is_direct(f))
		return direct_read_iter(f, it, (uint64_t)off);
	err = in->fs->versions ? check_versioned(f) : virtiofs_handle_check(file_of(f)->h);
	/* The end may have moved: nobody reads past what is known. */
	if (!err && (uint64_t)off + it->remaining > virtiofs_inode_size(in))
		err = virtiofs_inode_refresh(in, 0);
	if (err)
		return err;
	return virtiofs_data_read(in, file_of(f)->h, &file_of(f)->ra, it, (uint64_t)off);
}

static ssize_t virtiofs_read_iter(struct file *f, struct io_iter *it, int64_t off, int rwf)
{
	struct virtiofs_device *dev = file_inode(f)->fs->dev;
	unsigned epoch = vdev_epoch(dev);
	ssize_t ret;

	if (rwf & RWF_NOWAIT)
		return -EAGAIN; /* a request would be waited for */
	virtiofs_device_await(dev);
	ret = virtiofs_lock_check(f, file_inode(f));
	if (unlikely(ret))
		return ret;
	ret = read_once(f, it, off);
	/* A daemon that died under it: what a read does can be done again. */
	if (unlikely(ret == -EIO) && (epoch != vdev_epoch(dev) || !virtiofs_device_alive(dev))) {
		virtiofs_device_await(dev);
		ret = virtiofs_lock_check(f, file_inode(f));
		if (!ret)
			ret = read_once(f, it, off);
	}
	return ret;
}

/* Writing takes setuid and setgid away from who may not keep them. by_request: it was a request that says so, and its server did what Linux always did. */
static void kill_priv(struct file *f, bool by_request)
{
	struct virtiofs_inode *in = file_inode(f);
	struct setattr_args a = {.valid = SETATTR_MODE};
	struct perm_inode pi;

	virtiofs_inode_perm(in, &pi);
	a.mode = vfs_kill_priv_mode_gid(cred_current(), pi.mode, pi.gid) & 07777;
	if (by_request && virtiofs_kills_priv(in))
		pi.mode = vfs_kill_priv_mode(cred_current(), pi.mode);
	/* The data is written: a failure here has nobody to tell. */
	if (a.mode != (pi.mode & 07777))
		(void)!virtiofs_setattr(in, &a, NULL);
}

/* Pre: write_lock. */
static ssize_t dax_write_iter(struct virtiofs_inode *in, struct virtiofs_handle *h,
			      struct io_iter *it, uint64_t off)
{
	int err = 0;

	virtiofs_versions_settle(in->fs->versions);
	if (in->fs->versions || in->fs->options.cache == VIRTIOFS_CACHE_NONE)
		err = virtiofs_inode_refresh(in, 0);
	return err ? err : virtiofs_dax_write(in, h, it, off);
}

/* Takes write_lock. A lock that was lost while it was waited for counts. Return: 0, -EINTR, -EIO. */
static int write_begin(struct file *f)
{
	struct virtiofs_inode *in = file_inode(f);
	int err;

	virtiofs_await(in->fs);
	err = op_lock_killable(&in->write_lock);
	if (err)
		return err;
	err = virtiofs_lock_check(f, in);
	if (err)
		op_unlock(&in->write_lock);
	return err;
}

static ssize_t virtiofs_write_iter(struct file *f, struct io_iter *it, int64_t *inout_off, int rwf)
{
	bool append = file_appends(f, rwf);
	struct virtiofs_inode *in = file_inode(f);
	struct virtiofs_handle *h = file_of(f)->h;
	bool through = !in->dax.on && (!in->fs->options.writeback || is_direct(f));
	ssize_t ret;

	if (rwf & RWF_NOWAIT)
		return -EAGAIN;
	ret = write_begin(f);
	if (ret)
		return ret;
	if (append) {
		virtiofs_versions_settle(in->fs->versions);
		ret = virtiofs_inode_refresh(
			in, in->fs->options.cache == VIRTIOFS_CACHE_ALWAYS ? 0 : VIRTIOFS_ASK);
		*inout_off = (int64_t)virtiofs_inode_size(in);
	}
	if (!ret && vfs_hooks.check_fsize)
		ret = vfs_hooks.check_fsize(*inout_off, it);
	if (!ret)
		ret = virtiofs_handle_check(h);
	if (!ret && in->dax.on)
		ret = dax_write_iter(in, h, it, (uint64_t)*inout_off);
	else if (!ret && !through)
		ret = virtiofs_data_write_back(in, h, it, (uint64_t)*inout_off);
	else if (!ret)
		ret = virtiofs_data_write_through(in, h, it, (uint64_t)*inout_off);
	op_unlock(&in->write_lock);
	if (ret > 0)
		kill_priv(f, through);
	return ret;
}

/* Pre: what is dirty was written, which may have waited for another daemon: the node's and the handle's names are read after that. */
static int64_t lseek_rpc(struct virtiofs_inode *in, struct virtiofs_handle *h, int64_t off,
			 int whence)
{
	uint64_t node = in->nodeid;
	const struct fuse_lseek_in arg = {
		.fh = h->fh, .offset = (uint64_t)off, .whence = (uint32_t)whence};
	struct fuse_lseek_out out;
	struct vdev_call call = {
		.req = {.opcode = FUSE_LSEEK, .nodeid = node, .arg = &arg},
		.owner = &h->user.base,
		.reply = &out,
		.reply_size = sizeof(out),
	};
	ssize_t got = virtiofs_call(in->fs, &call);

	if (got == -ENOSYS) {
		/* All data, as Linux says of a file whose holes are not known. */
		if (off < 0 || (uint64_t)off >= virtiofs_inode_size(in))
			return -ENXIO;
		return whence == SEEK_DATA ? off : (int64_t)virtiofs_inode_size(in);
	}
	return got < 0 ? got : (int64_t)out.offset;
}

static int64_t virtiofs_seek(struct file *f, int64_t off, int whence)
{
	struct virtiofs_inode *in = file_inode(f);
	int64_t base = 0;
	int err;

	switch (whence) {
	case SEEK_SET:
		break;
	case SEEK_CUR:
		base = f->pos;
		break;
	case SEEK_END:
		virtiofs_await(in->fs);
		virtiofs_versions_settle(in->fs->versions);
		err = virtiofs_handle_check(file_of(f)->h);
		if (!err)
			err = virtiofs_inode_refresh(in, 0);
		if (err)
			return err;
		base = (int64_t)virtiofs_inode_size(in);
		break;
	case SEEK_DATA:
	case SEEK_HOLE:
		virtiofs_await(in->fs);
		err = virtiofs_data_writeback(in, 0, UINT64_MAX);
		off = err ? err : lseek_rpc(in, file_of(f)->h, off, whence);
		if (off < 0)
			return off;
		break;
	default:
		return -EINVAL;
	}
	if (__builtin_add_overflow(base, off, &off) || off < 0)
		return -EINVAL;
	f->pos = off;
	return off;
}

/* mmap(2): mappings show what is there now, as reads do. */
static struct mappable *virtiofs_mappable(struct file *f)
{
	/* Without an answer what is cached is all that can be mapped; what is not gives SIGBUS. */
	(void)!virtiofs_handle_check(file_of(f)->h);
	return &file_inode(f)->map;
}

/* ---- size, sync ---- */

static int virtiofs_file_truncate(struct file *f, uint64_t size)
{
	struct virtiofs_inode *in = file_inode(f);
	struct setattr_args a = {.valid = SETATTR_SIZE | SETATTR_FILE, .size = size};
	int err;

	if ((file_of(f)->h->flags & O_ACCMODE) == O_RDONLY)
		return -EINVAL;
	err = write_begin(f);
	if (err)
		return err;
	err = virtiofs_truncate(in, &a, file_of(f)->h);
	op_unlock(&in->write_lock);
	if (!err)
		kill_priv(f, true);
	return err;
}

/* Pre: fill_lock; waited for the daemon, as for lseek_rpc(). */
static ssize_t fallocate_rpc(struct virtiofs_handle *h, int mode, uint64_t off, uint64_t size)
{
	uint64_t node = h->in->nodeid;
	const struct fuse_fallocate_in arg = {
		.fh = h->fh,
		.offset = off,
		.length = size,
		.mode = (uint32_t)mode,
	};
	struct vdev_call call = {
		.req = {.opcode = FUSE_FALLOCATE, .nodeid = node, .arg = &arg},
		.owner = &h->filler.base,
	};

	return virtiofs_call(h->in->fs, &call);
}

static int virtiofs_file_fallocate(struct file *f, int mode, uint64_t off, uint64_t size)
{
	struct virtiofs_inode *in = file_inode(f);
	ssize_t got;
	int err;

	err = write_begin(f);
	if (err)
		return err;
	err = virtiofs_data_writeback(in, 0, UINT64_MAX);
	virtiofs_fill_begin(in);
	if (!(mode & FALLOC_FL_KEEP_SIZE))
		virtiofs_data_extended(in, off + size, true);
	got = err ? err : fallocate_rpc(file_of(f)->h, mode, off, size);
	if (got >= 0) {
		/* Whatever the mode did to the range, the server's is the truth. */
		virtiofs_data_drop(in, round_down_u64(off, MOAT_PAGE_SIZE), UINT64_MAX);
		virtiofs_inode_stale(in);
	}
	virtiofs_fill_end(in);
	op_unlock(&in->write_lock);
	if (got >= 0) {
		got = virtiofs_inode_refresh(in, VIRTIOFS_ASK);
		kill_priv(f, false);
	}
	return got == -ENOSYS ? -EOPNOTSUPP : got < 0 ? (int)got : 0;
}

/*
 * Did data of the file get lost since it was told last? told: it is from now on, as fsync(2) does and close(2) does not. A failure that no fsync
 * told of is news for a file opened later, too. Return: 0, -errno.
 */
static int lost_error(struct virtiofs_file *vf, struct virtiofs_inode *in, bool told)
{
	uint32_t seq = atomic_load(&in->lost_seq);

	if (likely(atomic_load(&vf->lost_seen) == seq))
		return 0;
	if (told) {
		atomic_store(&in->lost_told, seq);
		if (atomic_exchange(&vf->lost_seen, seq) == seq)
			return 0;
	}
	return atomic_load(&in->lost_err);
}

/* As lseek_rpc(). */
static ssize_t fsync_rpc(struct virtiofs_handle *h, bool data_only)
{
	uint64_t node = h->in->nodeid;
	const struct fuse_fsync_in arg = {.fh = h->fh, .fsync_flags = data_only};
	struct vdev_call call = {
		.req = {.opcode = FUSE_FSYNC, .nodeid = node, .arg = &arg},
		.owner = &h->user.base,
	};

	return virtiofs_call(h->in->fs, &call);
}

static int fsync_now(struct file *f, bool data_only, uint64_t start, uint64_t end)
{
	struct virtiofs_inode *in = file_inode(f);
	int err = virtiofs_data_writeback(in, start, end == UINT64_MAX ? end : end + 1), lost;
	ssize_t got;

	virtiofs_dax_push_times(in);
	got = fsync_rpc(file_of(f)->h, data_only);
	lost = lost_error(file_of(f), in, true);
	err = err ? err : lost;
	return err ? err : got < 0 && got != -ENOSYS ? (int)got : 0;
}

static int virtiofs_file_fsync(struct file *f, bool data_only, uint64_t start, uint64_t end)
{
	virtiofs_await(file_inode(f)->fs);
	return fsync_now(f, data_only, start, end);
}

/*
 * close(2) of one descriptor. The server needs not be told: data went out as it was written, or goes now, and WRITE has its own answer; what
 * FLUSH does besides, dropping record locks, is nothing where there are none of ours.
 */
static int virtiofs_file_flush(struct file *f)
{
	int err;

	virtiofs_await(file_inode(f)->fs);
	virtiofs_dax_push_times(file_inode(f));
	err = virtiofs_data_writeback(file_inode(f), 0, UINT64_MAX);
	if (!err && (file_of(f)->h->flags & O_ACCMODE) != O_RDONLY)
		err = lost_error(file_of(f), file_inode(f), false);
	return err;
}

static int virtiofs_file_stat(struct file *f, const struct stat_args *args, struct moat_statx *ret)
{
	struct virtiofs_inode *in = file_inode(f);
	int err = 0;

	virtiofs_await(in->fs);
	virtiofs_versions_settle(in->fs->versions);
	if (!(args->flags & AT_STATX_DONT_SYNC))
		err = virtiofs_handle_check(file_of(f)->h);
	if (!err && !(args->flags & AT_STATX_DONT_SYNC))
		err = virtiofs_inode_refresh(in,
					     args->flags & AT_STATX_FORCE_SYNC ? VIRTIOFS_ASK : 0);
	if (!err)
		virtiofs_inode_stat(in, ret);
	return err;
}

/* ---- life ---- */

static void file_free_rcu(struct rcu_cb *cb)
{
	free(container_of(cb, struct virtiofs_file, f.rcu));
}

static void virtiofs_file_release(struct file *f)
{
	struct virtiofs_file *vf = file_of(f);
	int err = 0;

	/* What a mapping wrote after the last close(2). */
	if ((vf->h->flags & O_ACCMODE) != O_RDONLY)
		err = virtiofs_data_writeback(file_inode(f), 0, UINT64_MAX);
	/* Kept for another daemon, but nobody is left to be told by. */
	if (err && atomic_load(&file_inode(f)->dirty_pages))
		virtiofs_data_lost(file_inode(f), err);
	virtiofs_ahead_stop(vf->h);
	virtiofs_handle_unref(vf->h);
	file_fini(f);
	rcu_call(&vf->f.rcu, file_free_rcu);
}

static const struct file_ops virtiofs_file_ops = {
	.release = virtiofs_file_release,
	.flush = virtiofs_file_flush,
	.read_iter = virtiofs_read_iter,
	.write_iter = virtiofs_write_iter,
	.seek = virtiofs_seek,
	.mappable = virtiofs_mappable,
	.stat = virtiofs_file_stat,
	.truncate = virtiofs_file_truncate,
	.fallocate = virtiofs_file_fallocate,
	.fsync = virtiofs_file_fsync,
	.remote_lock = virtiofs_remote_lock,
	.remote_lock_epoch = virtiofs_remote_lock_epoch,
	.remote_lock_test = virtiofs_remote_lock_test,
	.remote_lock_drop = virtiofs_remote_lock_drop,
};

int virtiofs_file_create(struct resolving_path *rp, struct remote_dentry *d,
			 struct virtiofs_handle *h, unsigned flags, struct file **ret)
{
	bool write = (flags & O_ACCMODE) != O_RDONLY;
	struct virtiofs_file *vf = calloc(1, sizeof(*vf));
	struct vfs_path place;
	int err = vf ? 0 : -ENOMEM;

	if (!err && write)
		err = mount_begin_write(rp_mount(rp));
	if (err) {
		virtiofs_handle_unref(h);
		free(vf);
		return err;
	}
	rp_place(rp, &d->d, &place);
	file_init(&vf->f, &virtiofs_file_ops, &place, flags,
		  FILE_SEEKABLE | (write ? FILE_WRITER : 0));
	vf->h = h;
	vf->lost_seen = atomic_load(&h->in->lost_told);
	*ret = &vf->f;
	return 0;
}
