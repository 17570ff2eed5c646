/*
 * fsimpl/gofer/plain_io.c - files of a server that donates no descriptors: reads and writes are requests on an open fid.
 *
 * Nothing is cached but attributes, so what one sandbox wrote the next read of another sees. A fid of diod's means a path, and what
 * was unlinked cannot be asked for any more: the size that is known here grows with our own writes, and stays when asking fails.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fsimpl/gofer/walk.h"

static uint32_t payload_max(const struct p9_conn *c)
{
	return c->msize - P9_IO_OVERHEAD;
}

ssize_t gofer_plain_read(struct gofer_inode *in, int fd, struct io_iter *it, int64_t off)
{
	struct p9_conn *c = in->fs->conn;
	ssize_t done = 0;

	while (it->remaining) {
		struct p9_msg t = {.type = P9_Tread};
		struct p9_call call;
		size_t got, put;
		int err;

		t.Tread.fid = (uint32_t)fd;
		t.Tread.offset = (uint64_t)(off + done);
		t.Tread.count = (uint32_t)MIN(it->remaining, (uint64_t)payload_max(c));
		err = p9_rpc(c, &call, &t);
		if (err)
			return done ? done : err;
		got = call.r.Rread.data.size;
		if (got > t.Tread.count) {
			p9_call_fini(&call);
			return done ? done : -EIO;
		}
		put = io_iter_put(it, call.r.Rread.data.data, got);
		p9_call_fini(&call);
		done += (ssize_t)put;
		if (put < got)
			return done ? done : -EFAULT;
		if (got < t.Tread.count)
			break;
	}
	atomic_store(&in->io_dirty, true);
	return done;
}

static void grow_to(struct gofer_inode *in, uint64_t end)
{
	mutex_lock(&in->lock);
	in->attr.size = MAX(in->attr.size, end);
	mutex_unlock(&in->lock);
	atomic_store(&in->io_dirty, true);
}

/* One request's worth. Return: bytes written, less than asked only if the server wrote less. */
static ssize_t write_one(struct p9_conn *c, int fd, const uint8_t *data, uint32_t size, int64_t off)
{
	struct p9_msg t = {.type = P9_Twrite};
	struct p9_call call;
	ssize_t ret;

	t.Twrite.fid = (uint32_t)fd;
	t.Twrite.offset = (uint64_t)off;
	t.Twrite.data = (struct p9_blob){data, size};
	ret = p9_rpc(c, &call, &t);
	if (ret)
		return ret;
	ret = call.r.Rwrite.count <= size ? (ssize_t)call.r.Rwrite.count : -EIO;
	p9_call_fini(&call);
	return ret;
}

ssize_t gofer_plain_write(struct gofer_inode *in, int fd, struct io_iter *it, int64_t off)
{
	struct p9_conn *c = in->fs->conn;
	uint8_t *buf = malloc((size_t)MIN(it->remaining, (uint64_t)payload_max(c)) + 1);
	ssize_t done = 0, ret = 0;

	if (!buf)
		return -ENOMEM;
	while (it->remaining) {
		size_t want = (size_t)MIN(it->remaining, (uint64_t)payload_max(c));
		size_t size = io_iter_get(it, buf, want);

		if (!size) {
			ret = -EFAULT;
			break;
		}
		ret = write_one(c, fd, buf, (uint32_t)size, off + done);
		if (ret < 0)
			io_iter_revert(it, size);
		if (ret < 0)
			break;
		done += ret;
		io_iter_revert(it, size - (size_t)ret);
		if ((size_t)ret < want)
			break;
	}
	free(buf);
	if (done)
		grow_to(in, (uint64_t)(off + done));
	return done ? done : ret;
}

int gofer_plain_fsync(struct p9_conn *c, uint32_t fid, bool data_only)
{
	struct p9_msg t = {.type = P9_Tfsync};
	struct p9_call call;
	int err;

	t.Tfsync.fid = fid;
	t.Tfsync.datasync = data_only;
	err = p9_rpc(c, &call, &t);
	if (!err)
		p9_call_fini(&call);
	return err;
}

int gofer_plain_fsync_dir(struct remote_dentry *d, bool data_only)
{
	struct gofer_fs *fs = gofer_fs_of(d->d.fs);
	struct p9_msg t = {.type = P9_Tmopen};
	struct gofer_where where;
	struct p9_call call;
	int err;

	err = rwlock_read_lock_killable(&fs->tree_lock);
	if (err)
		return err;
	err = gofer_where(d, &where);
	if (err)
		goto out_unlock;
	t.Tmopen.fid = where.fid;
	t.Tmopen.newfid = p9_fid_alloc(fs->conn);
	t.Tmopen.skip = where.depth;
	t.Tmopen.path = gofer_where_path(&where);
	err = p9_rpc(fs->conn, &call, &t);
	if (err)
		goto out_unlock;
	err = call.r.Rmopen.bound ? gofer_plain_fsync(fs->conn, t.Tmopen.newfid, data_only)
	      : call.r.Rmopen.err - 1 < 4095 ? -(int)call.r.Rmopen.err
					     : -EIO;
	if (call.r.Rmopen.bound)
		p9_fid_clunk(fs->conn, t.Tmopen.newfid);
	p9_call_fini(&call);
out_unlock:
	rwlock_read_unlock(&fs->tree_lock);
	return err;
}

int gofer_plain_truncate(struct remote_dentry *d, uint64_t size)
{
	const struct setattr_args a = {.valid = SETATTR_SIZE, .size = size};

	return gofer_setattr(gofer_fs_of(d->d.fs), d, &a);
}

int64_t gofer_plain_seek(struct gofer_inode *in, int64_t off, int whence)
{
	uint64_t size = gofer_inode_size(in);

	if (off < 0 || (uint64_t)off >= size)
		return -ENXIO;
	return whence == SEEK_DATA ? off : (int64_t)size;
}

void gofer_plain_freshen(struct remote_dentry *d)
{
	struct gofer_inode *in = gofer_inode_of(d);

	if (!gofer_is_plain(in) || (!in->fs->shared && !atomic_load(&in->io_dirty)))
		return;
	/* Killed: what is known stays, and is asked for the next time. */
	if (rwlock_read_lock_killable(&in->fs->tree_lock))
		return;
	/* Cleared first: I/O meanwhile sets it again. */
	atomic_store(&in->io_dirty, false);
	if (gofer_refresh(in->fs, d))
		atomic_store(&in->io_dirty, true);
	rwlock_read_unlock(&in->fs->tree_lock);
}
