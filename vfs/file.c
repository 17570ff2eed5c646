/*
 * vfs/file.c - open file descriptions: life, blocking I/O, and the defaults of absent operations.
 *
 * A filesystem's read or write never waits for readiness: it answers -EAGAIN, and the loops here register
 * with the file's queue, ask again and sleep. So a blocking call, poll and epoll see one truth.
 */
#include <fcntl.h>
#include <linux/fs.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/inotify.h"
#include "vfs/resolving_path.h"
#include "vfs/vfs_internal.h"
#include "vfs/write_access.h"

static REF_TYPE(file_type, "file");
#define ID_BATCH 256u
static _Atomic uint64_t file_id_batch = ID_BATCH;
static _Thread_local uint64_t file_next_id; /* a multiple of ID_BATCH: the batch is used up */

/* ---- life ---- */

/* Threads take numbers by the batch, so that opens share nothing. */
static uint64_t file_new_id(void)
{
	if (!(file_next_id % ID_BATCH))
		file_next_id =
			atomic_fetch_add_explicit(&file_id_batch, ID_BATCH, memory_order_relaxed);
	return file_next_id++;
}

void file_init(struct file *f, const struct file_ops *ops, const struct vfs_path *path,
	       unsigned flags, unsigned mode)
{
	const struct cred *cred = cred_current();

	*f = (struct file){.ops = ops, .path = *path, .mode = mode};
	if (flags & O_PATH) {
		f->mode |= FILE_PATH_ONLY;
	} else {
		if ((flags & O_ACCMODE) == O_RDONLY || (flags & O_ACCMODE) == O_RDWR)
			f->mode |= FILE_READ;
		if ((flags & O_ACCMODE) == O_WRONLY || (flags & O_ACCMODE) == O_RDWR)
			f->mode |= FILE_WRITE;
	}
	ref_init(&f->ref, &file_type);
	atomic_init(&f->flags,
		    flags & ~(unsigned)(O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_CLOEXEC));
	op_lock_init(&f->pos_lock);
	f->id = file_new_id();
	if (cred)
		f->cred = cred_ref(cred);
	if (path->mount)
		mount_ref(path->mount);
	if (path->dentry)
		dentry_ref_kept(path->dentry);
}

void file_fini(struct file *f)
{
	/* An open that failed still holds its one reference. */
	if (ref_read(&f->ref) == 1) {
		bool last = ref_put(&f->ref);

		assert(last);
		(void)last;
	}
	vfs_write_access_gone(f);
	if (f->mode & FILE_WRITER)
		mount_end_write(f->path.mount);
	vfs_path_unref(&f->path);
	cred_unref(f->cred);
	ref_fini(&f->ref, &file_type);
}

static void file_free_rcu(struct rcu_cb *cb)
{
	free(container_of(cb, struct file, rcu));
}

void file_free(struct file *f)
{
	file_fini(f);
	if (atomic_load_explicit(&f->looked_up, memory_order_relaxed))
		rcu_call_local(&f->rcu, file_free_rcu);
	else
		free(f);
}

struct file *file_ref(struct file *f)
{
	ref_get(&f->ref);
	return f;
}

bool file_tryref(struct file *f)
{
	return ref_tryget(&f->ref);
}

static void file_last_unref(struct file *f)
{
	if (vfs_notify_wanted() && !(f->mode & (FILE_PATH_ONLY | FILE_NO_NOTIFY)))
		vfs_notify_file(f, f->mode & FILE_WRITE ? IN_CLOSE_WRITE : IN_CLOSE_NOWRITE);
	vfs_file_gone(f);
	f->ops->release(f);
}

void file_unref(struct file *f)
{
	if (f && ref_put(&f->ref))
		file_last_unref(f);
}

static void file_deferred_run(struct deferred_work *w)
{
	struct file *f = container_of(w, struct file, deferred);

	file_last_unref(f);
}

void file_unref_later(struct file *f)
{
	if (!f || !ref_put(&f->ref))
		return;
	f->deferred.run = file_deferred_run;
	vfs_defer(&f->deferred);
}

/* ---- blocking ---- */

static bool file_may_block(const struct file *f, int rwf)
{
	return !(file_flags(f) & O_NONBLOCK) && !(rwf & RWF_NOWAIT);
}

static void file_poll_add(struct file *f, struct waiter *w)
{
	if (f->ops->poll_add)
		f->ops->poll_add(f, w);
}

static void file_poll_remove(struct file *f, struct waiter *w)
{
	if (f->ops->poll_remove)
		f->ops->poll_remove(f, w);
	else
		wait_queue_remove(w);
}

/* When a blocking call gives up; TIME_FOREVER for most files. */
static int64_t file_io_deadline(struct file *f, bool write)
{
	int64_t ns = f->ops->io_timeout_ns ? f->ops->io_timeout_ns(f, write) : 0;

	return ns > 0 ? time_monotonic_ns() + ns : TIME_FOREVER;
}

static int file_io_sleep(struct sleeper *s, int64_t deadline)
{
	int err = sleeper_wait(s, SLEEP_INTERRUPTIBLE, deadline);

	return err == -ETIMEDOUT ? -EAGAIN : err;
}

int file_wait(struct file *f, uint32_t events, int64_t deadline_ns)
{
	struct sleeper *s = sleeper_current();
	struct waiter w;
	int err = 0;

	events |= POLLERR | POLLHUP;
	if (file_poll(f) & events)
		return 0;
	waiter_init_sleeper(&w, s, events);
	file_poll_add(f, &w);
	while (!(file_poll(f) & events)) {
		err = sleeper_wait(s, SLEEP_INTERRUPTIBLE, deadline_ns);
		if (err)
			break;
	}
	file_poll_remove(f, &w);
	return err;
}

static ssize_t read_once(struct file *f, struct io_iter *it, int64_t off, int rwf)
{
	ssize_t ret = f->ops->read_iter(f, it, off, rwf);

	return ret == 0 && it->error && it->remaining ? it->error : ret;
}

static ssize_t read_blocking(struct file *f, struct io_iter *it, int64_t off, int rwf)
{
	struct sleeper *s = sleeper_current();
	struct waiter w;
	int64_t deadline;
	ssize_t ret;
	int err;

	ret = read_once(f, it, off, rwf);
	if (ret != -EAGAIN || !file_may_block(f, rwf))
		return ret;
	deadline = file_io_deadline(f, false);
	waiter_init_sleeper(&w, s, POLLIN | POLLRDNORM | POLLRDHUP | POLLPRI | POLLERR | POLLHUP);
	file_poll_add(f, &w);
	for (;;) {
		ret = read_once(f, it, off, rwf);
		if (ret != -EAGAIN || !file_may_block(f, rwf))
			break;
		err = file_io_sleep(s, deadline);
		if (err) {
			ret = err;
			break;
		}
	}
	file_poll_remove(f, &w);
	return ret;
}

/* A stream's blocking write goes on until all is written, as pipes and sockets do. */
static bool write_goes_on(struct file *f, const struct io_iter *it, ssize_t ret, int rwf)
{
	if (ret == -EAGAIN)
		return file_may_block(f, rwf);
	return ret > 0 && (f->mode & FILE_STREAM) && it->remaining && !it->error &&
	       file_may_block(f, rwf);
}

static ssize_t write_once(struct file *f, struct io_iter *it, int64_t *off, int rwf)
{
	ssize_t ret = f->ops->write_iter(f, it, off, rwf);

	return ret == 0 && it->error && it->remaining ? it->error : ret;
}

static ssize_t write_blocking(struct file *f, struct io_iter *it, int64_t *off, int rwf)
{
	struct sleeper *s = sleeper_current();
	ssize_t ret, done = 0;
	struct waiter w;
	int64_t deadline;
	int err = 0;

	ret = write_once(f, it, off, rwf);
	if (!write_goes_on(f, it, ret, rwf))
		return ret;
	deadline = file_io_deadline(f, true);
	waiter_init_sleeper(&w, s, POLLOUT | POLLWRNORM | POLLERR | POLLHUP);
	file_poll_add(f, &w);
	for (;;) {
		if (ret > 0)
			done += ret;
		else if (ret == -EAGAIN)
			err = file_io_sleep(s, deadline);
		if (err)
			break;
		ret = write_once(f, it, off, rwf);
		if (!write_goes_on(f, it, ret, rwf)) {
			if (ret > 0)
				done += ret;
			else if (ret < 0)
				err = (int)ret;
			break;
		}
	}
	file_poll_remove(f, &w);
	return done ? done : err;
}

/* ---- read and write ---- */

bool file_appends(const struct file *f, int rwf)
{
	return !(rwf & RWF_NOAPPEND) && ((file_flags(f) & O_APPEND) || (rwf & RWF_APPEND));
}

/* Return: 0, -EINVAL: it is never read, or written; -EISDIR; -EOPNOTSUPP. */
static int check_op(const struct file *f, bool reads, int rwf)
{
	bool can = reads ? f->ops->read_iter != NULL : f->ops->write_iter != NULL;

	if (unlikely(!can && !f->ops->iterate))
		return -EINVAL;
	if (unlikely(rwf)) {
		bool plain =
			f->ops->iterate || (reads ? f->ops->no_read_flags : f->ops->no_write_flags);

		if (rwf & ~(plain ? RWF_HIPRI : FILE_RWF))
			return -EOPNOTSUPP;
		if ((rwf & RWF_APPEND) && (rwf & RWF_NOAPPEND))
			return -EINVAL;
	}
	return can ? 0 : -EISDIR;
}

/* Nothing reaches behind the largest offset. */
static int check_end(int64_t off, uint64_t size)
{
	return (uint64_t)off + size > INT64_MAX ? -EINVAL : 0;
}

int file_verify_area(struct file *f, const int64_t *off, uint64_t size)
{
	int64_t at;
	int err;

	if ((int64_t)size < 0)
		return -EINVAL;
	if (!(f->mode & FILE_SEEKABLE))
		return 0;
	if (off)
		return *off < 0 ? -EINVAL : check_end(*off, size);
	err = op_lock_killable(&f->pos_lock);
	if (err)
		return err;
	at = f->pos;
	op_unlock(&f->pos_lock);
	return check_end(at, size);
}

/* Checks that read and write share; trims to MAX_RW_COUNT. */
static int file_check_io(struct file *f, struct io_iter *it, const int64_t *off, unsigned need,
			 int rwf)
{
	int err;

	if (f->mode & FILE_PATH_ONLY)
		return -EBADF;
	if (off) {
		if (*off < 0)
			return -EINVAL;
		if (!(f->mode & FILE_SEEKABLE) && !f->ops->iterate)
			return -ESPIPE;
	}
	if (!(f->mode & need))
		return -EBADF;
	err = check_op(f, need == FILE_READ, rwf);
	if (err)
		return err;
	io_iter_truncate(it, FILE_IO_MAX);
	return off ? check_end(*off, it->remaining) : 0;
}

/* The offset belongs to one call at a time; a description that nobody shares needs no lock. */
static int file_lock_pos(struct file *f, bool *ret_locked)
{
	*ret_locked = false;
	if (!(f->mode & FILE_SEEKABLE) && !f->ops->iterate)
		return 0;
	*ret_locked = true;
	return op_lock_killable(&f->pos_lock);
}

static void file_unlock_pos(struct file *f, bool locked)
{
	if (locked)
		op_unlock(&f->pos_lock);
}

ssize_t file_read_iter(struct file *f, struct io_iter *it, const int64_t *off, int rwf)
{
	bool locked;
	ssize_t ret;
	int err;

	err = file_check_io(f, it, off, FILE_READ, rwf);
	if (err)
		return err;
	if (off) {
		ret = read_blocking(f, it, *off, rwf);
	} else {
		err = file_lock_pos(f, &locked);
		if (err)
			return err;
		ret = locked ? check_end(f->pos, it->remaining) : 0;
		if (!ret)
			ret = read_blocking(f, it, f->pos, rwf);
		if (ret > 0 && locked)
			f->pos += ret;
		file_unlock_pos(f, locked);
	}
	if (ret > 0)
		vfs_notify_file(f, IN_ACCESS);
	return ret;
}

ssize_t file_write_iter(struct file *f, struct io_iter *it, const int64_t *off, int rwf)
{
	int64_t at;
	bool locked;
	ssize_t ret;
	int err;

	err = file_check_io(f, it, off, FILE_WRITE, rwf);
	if (err)
		return err;
	if (off) {
		at = *off;
		ret = write_blocking(f, it, &at, rwf);
	} else {
		err = file_lock_pos(f, &locked);
		if (err)
			return err;
		at = f->pos;
		ret = locked ? check_end(at, it->remaining) : 0;
		if (!ret)
			ret = write_blocking(f, it, &at, rwf);
		/* The file moves `at` to where it began (O_APPEND); the offset ends after what was written. */
		if (ret > 0 && locked)
			f->pos = at + ret;
		file_unlock_pos(f, locked);
	}
	if (ret > 0)
		vfs_notify_file(f, IN_MODIFY);
	if (ret > 0 && (f->mode & FILE_SEEKABLE) && f->ops->fsync &&
	    ((rwf & (RWF_SYNC | RWF_DSYNC)) || (file_flags(f) & O_DSYNC))) {
		err = file_fsync(f, !(rwf & RWF_SYNC), 0, INT64_MAX);
		if (err)
			return err;
	}
	return ret;
}

ssize_t file_copy_range(struct file *in, int64_t off_in, struct file *out, int64_t off_out,
			size_t size)
{
	ssize_t ret;
	int err;

	if (in->ops != out->ops || !out->ops->copy_range)
		return -EOPNOTSUPP;
	ret = out->ops->copy_range(in, off_in, out, off_out, size);
	if (ret <= 0)
		return ret;
	vfs_notify_file(in, IN_ACCESS);
	vfs_notify_file(out, IN_MODIFY);
	err = file_flags(out) & O_DSYNC ? file_fsync(out, true, 0, INT64_MAX) : 0;
	return err ? err : ret;
}

ssize_t file_read_kernel(struct file *f, void *buf, size_t size, uint64_t off)
{
	size_t done = 0;

	while (done < size) {
		int64_t at = (int64_t)(off + done);
		struct io_iter it;
		ssize_t ret;

		io_iter_init_kernel(&it, (char *)buf + done, size - done, true);
		ret = f->ops->read_iter ? read_blocking(f, &it, at, 0) : -EINVAL;
		io_iter_fini(&it);
		if (ret < 0)
			return done ? (ssize_t)done : ret;
		if (ret == 0)
			break;
		done += (size_t)ret;
	}
	return (ssize_t)done;
}

ssize_t file_write_kernel(struct file *f, const void *buf, size_t size, uint64_t off)
{
	size_t done = 0;

	while (done < size) {
		int64_t at = (int64_t)(off + done);
		struct io_iter it;
		ssize_t ret;

		io_iter_init_kernel(&it, (char *)buf + done, size - done, false);
		ret = f->ops->write_iter ? write_blocking(f, &it, &at, 0) : -EINVAL;
		io_iter_fini(&it);
		if (ret < 0)
			return done ? (ssize_t)done : ret;
		if (ret == 0)
			break;
		done += (size_t)ret;
	}
	return (ssize_t)done;
}

struct mappable *file_mappable(struct file *f)
{
	return f->ops->mappable ? f->ops->mappable(f) : NULL;
}

/* ---- seek and directories ---- */

static int64_t seek_default(struct file *f, int64_t off, int whence)
{
	struct moat_statx st;
	int64_t base = 0, size = 0;
	int err;

	if (!(f->mode & FILE_SEEKABLE))
		return -ESPIPE;
	if (whence == SEEK_END || whence == SEEK_DATA || whence == SEEK_HOLE) {
		err = file_stat(f, &(struct stat_args){.mask = STATX_SIZE}, &st);
		if (err)
			return err;
		size = (int64_t)st.size;
	}
	switch (whence) {
	case SEEK_SET:
		break;
	case SEEK_CUR:
		base = f->pos;
		break;
	case SEEK_END:
		base = size;
		break;
	case SEEK_DATA:
		if (off < 0 || off >= size)
			return -ENXIO;
		break;
	case SEEK_HOLE:
		if (off < 0 || off >= size)
			return -ENXIO;
		off = size;
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

int64_t file_seek_cookie(struct file *f, int64_t off, int whence)
{
	if (whence != SEEK_SET && whence != SEEK_CUR)
		return -EINVAL;
	if (whence == SEEK_CUR && __builtin_add_overflow(off, f->pos, &off))
		return -EINVAL;
	if (off < 0)
		return -EINVAL;
	f->pos = off;
	return off;
}

int64_t file_seek(struct file *f, int64_t off, int whence)
{
	int64_t ret;
	int err;

	if (f->mode & FILE_PATH_ONLY)
		return -EBADF;
	if (whence < 0 || whence > SEEK_HOLE)
		return -EINVAL;
	if (!(f->mode & FILE_SEEKABLE) && !f->ops->seek)
		return -ESPIPE;
	err = op_lock_killable(&f->pos_lock);
	if (err)
		return err;
	ret = f->ops->seek ? f->ops->seek(f, off, whence) : seek_default(f, off, whence);
	op_unlock(&f->pos_lock);
	return ret;
}

int file_iterate(struct file *f, struct dir_emit *ctx)
{
	int err;

	if (f->mode & FILE_PATH_ONLY)
		return -EBADF;
	if (!f->ops->iterate)
		return -ENOTDIR;
	err = op_lock_killable(&f->pos_lock);
	if (err)
		return err;
	err = f->ops->iterate(f, ctx);
	op_unlock(&f->pos_lock);
	if (!err)
		vfs_notify_file(f, IN_ACCESS);
	return err;
}

uint32_t file_poll(struct file *f)
{
	return f->ops->poll ? f->ops->poll(f) : POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM;
}

/* ---- attributes: the file's own operation, or its dentry's ---- */

#define AT_FILE(f, rp, lk, ret, call)                              \
	do {                                                       \
		rp_init_at(&(rp), &(lk), &(f)->path, (f)->cred);   \
		do {                                               \
			struct filesystem *fs = rp_enter(&(rp));   \
                                                                   \
			(ret) = fs ? (ssize_t)(call) : (rp).error; \
		} while (rp_again(&(rp), &(ret)));                 \
		rp_end(&(rp));                                     \
	} while (0)

int file_stat(struct file *f, const struct stat_args *args, struct moat_statx *ret)
{
	struct resolving_path rp;
	struct vfs_lookup lk;
	ssize_t err;

	if (f->ops->stat && !(f->mode & FILE_PATH_ONLY))
		err = f->ops->stat(f, args, ret);
	else
		AT_FILE(f, rp, lk, err, fs->ops->stat_at(fs, &rp, args, ret));
	if (!err && f->path.mount) {
		vfs_stat_add_mount(f->path.mount, args, ret);
		ret->attributes_mask |= STATX_ATTR_MOUNT_ROOT;
		if (f->path.mount->root == f->path.dentry)
			ret->attributes |= STATX_ATTR_MOUNT_ROOT;
	}
	return (int)err;
}

int file_set_stat(struct file *f, const struct setattr_args *args)
{
	const struct cred *cred = cred_current();
	struct resolving_path rp;
	struct vfs_lookup lk;
	ssize_t err;

	if (f->ops->set_stat && !(f->mode & FILE_PATH_ONLY))
		return f->ops->set_stat(f, args);
	rp_init_at(&rp, &lk, &f->path, cred ? cred : f->cred);
	do {
		struct filesystem *fs = rp_enter(&rp);

		err = fs ? (ssize_t)fs->ops->set_stat_at(fs, &rp, args) : rp.error;
	} while (rp_again(&rp, &err));
	rp_end(&rp);
	return (int)err;
}

int file_truncate(struct file *f, uint64_t size)
{
	struct setattr_args args = {.valid = SETATTR_SIZE | SETATTR_FILE, .size = size};
	int err;

	if ((f->mode & FILE_PATH_ONLY))
		return -EBADF;
	if (size > INT64_MAX || !(f->mode & FILE_WRITE))
		return -EINVAL;
	err = f->ops->truncate ? f->ops->truncate(f, size) : file_set_stat(f, &args);
	if (!err && f->path.dentry)
		vfs_notify_change(f->path.dentry, SETATTR_SIZE);
	return err;
}

int file_fallocate(struct file *f, int mode, uint64_t off, uint64_t size)
{
	int err;

	if ((f->mode & FILE_PATH_ONLY))
		return -EBADF;
	if (off > INT64_MAX || size > INT64_MAX || !size)
		return -EINVAL;
	if (mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_COLLAPSE_RANGE |
		     FALLOC_FL_ZERO_RANGE | FALLOC_FL_INSERT_RANGE | FALLOC_FL_UNSHARE_RANGE))
		return -EOPNOTSUPP;
	if ((mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) ==
	    (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		return -EOPNOTSUPP;
	if ((mode & FALLOC_FL_PUNCH_HOLE) && !(mode & FALLOC_FL_KEEP_SIZE))
		return -EOPNOTSUPP;
	if (((mode & FALLOC_FL_COLLAPSE_RANGE) && (mode & ~FALLOC_FL_COLLAPSE_RANGE)) ||
	    ((mode & FALLOC_FL_INSERT_RANGE) && (mode & ~FALLOC_FL_INSERT_RANGE)))
		return -EINVAL;
	if (!(f->mode & FILE_WRITE))
		return -EBADF;
	if (f->mode & FILE_STREAM)
		return -ESPIPE;
	if (off + size > INT64_MAX)
		return -EFBIG;
	if (f->ops->iterate)
		return -EISDIR;
	if (!f->ops->fallocate)
		return f->mode & FILE_SEEKABLE ? -EOPNOTSUPP : -ENODEV;
	err = f->ops->fallocate(f, mode, off, size);
	if (!err)
		vfs_notify_file(f, IN_MODIFY);
	return err;
}

int file_fsync(struct file *f, bool data_only, uint64_t start, uint64_t end)
{
	if (f->mode & FILE_PATH_ONLY)
		return -EBADF;
	return f->ops->fsync ? f->ops->fsync(f, data_only, start, end) : -EINVAL;
}

int64_t file_ioctl(struct file *f, unsigned cmd, uint64_t arg)
{
	if (f->mode & FILE_PATH_ONLY)
		return -EBADF;
	return f->ops->ioctl ? f->ops->ioctl(f, cmd, arg) : -ENOTTY;
}
