/* gofer/ops_io.c - plain 9P2000.L on open fids: data, directories, extended attributes. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "gofer/server.h"

/* 9P2000.L's open flags are Linux's own (x86) numbers; what only this side decides is dropped. */
#define LOPEN_FLAGS (O_ACCMODE | O_APPEND | O_TRUNC | O_DSYNC | O_SYNC | O_NOATIME | O_DIRECTORY)

static uint32_t io_unit(const struct worker *w)
{
	return atomic_load(&w->srv->msize) - P9_IO_OVERHEAD;
}

int op_lopen(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	auto_fid struct fid *f = fid_get(w->srv, t->Tlopen.fid);
	uint32_t flags = t->Tlopen.flags & LOPEN_FLAGS;
	struct statx stx;
	int fd, err;

	if (!f || f->path_fd < 0)
		return -EBADF;
	if (f->attach->readonly && ((flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC)))
		return -EROFS;
	fd = reopen(w, f->path_fd, flags);
	if (fd < 0)
		return fd;
	err = stat_fd(fd, "", &stx);
	mutex_lock(&f->lock);
	if (!err && f->io_fd >= 0)
		err = -EBUSY;
	if (!err) {
		f->io_fd = fd;
		f->open_flags = flags;
		f->dir_pos = 0;
	}
	mutex_unlock(&f->lock);
	if (err) {
		close(fd);
		return err;
	}
	stat_to_qid(w->srv, &stx, &r->Rlopen.qid);
	r->Rlopen.iounit = io_unit(w);
	return 0;
}

int op_lcreate(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	auto_fid struct fid *f = fid_get(w->srv, t->Tlcreate.fid);
	struct new_owner owner;
	char name[P9_NAME_MAX + 1];
	auto_close int path_fd = -1;
	struct statx stx;
	int fd, err, take;

	if (!f || f->path_fd < 0 || f->io_fd >= 0)
		return -EBADF;
	err = copy_name(name, &t->Tlcreate.name);
	if (!err && f->attach->readonly)
		err = -EROFS;
	if (err)
		return err;
	owner = (struct new_owner){f->uid, t->Tlcreate.gid, 0};
	fd = create_file(w, f->path_fd, name, t->Tlcreate.flags & O_ACCMODE, t->Tlcreate.mode,
			 &owner);
	path_fd = openat(f->path_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (path_fd < 0) {
		err = fd < 0 ? fd : -errno;
		goto out_close;
	}
	if (fd == -EEXIST && !(t->Tlcreate.flags & O_EXCL))
		fd = reopen(w, path_fd, t->Tlcreate.flags & LOPEN_FLAGS);
	if (fd < 0)
		return fd;
	err = stat_fd(fd, "", &stx);
	if (err)
		goto out_close;
	/* The directory's fid becomes the file's. */
	err = fid_remove(w->srv, f->id);
	if (err)
		goto out_close;
	take = path_fd;
	path_fd = -1;
	stat_to_qid(w->srv, &stx, &r->Rlcreate.qid);
	r->Rlcreate.iounit = io_unit(w);
	return fid_add(w->srv, f->id, f->attach, f->uid, take, fd, t->Tlcreate.flags & LOPEN_FLAGS,
		       false);
out_close:
	if (fd >= 0)
		close(fd);
	return err;
}

static int read_xattr_fid(struct worker *w, struct fid *f, const struct p9_Tread *t,
			  struct p9_blob *ret)
{
	size_t size = 0;

	mutex_lock(&f->lock);
	if (t->offset < f->xattr_size)
		size = MIN(f->xattr_size - t->offset, (size_t)t->count);
	if (size)
		memcpy(w->data, f->xattr_data + t->offset, size);
	mutex_unlock(&f->lock);
	ret->size = (uint32_t)size;
	return 0;
}

int op_read(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	auto_fid struct fid *f = fid_get(w->srv, t->Tread.fid);
	size_t count = MIN(t->Tread.count, io_unit(w));
	ssize_t got;

	if (!f)
		return -EBADF;
	r->Rread.data.data = NULL;
	if (f->xattr == FID_XATTR_READ) {
		struct p9_Tread x = t->Tread;

		x.count = (uint32_t)count;
		return read_xattr_fid(w, f, &x, &r->Rread.data);
	}
	if (f->io_fd < 0)
		return -EBADF;
	got = pread(f->io_fd, w->data, count, (off_t)t->Tread.offset);
	if (got < 0)
		return -errno;
	r->Rread.data.size = (uint32_t)got;
	return 0;
}

static int write_xattr_fid(struct fid *f, const struct p9_Twrite *t, uint32_t *ret)
{
	int err = 0;

	mutex_lock(&f->lock);
	if (t->offset != f->xattr_done || t->data.size > f->xattr_size - f->xattr_done) {
		err = -EINVAL;
	} else {
		if (t->data.size)
			memcpy(f->xattr_data + f->xattr_done, t->data.data, t->data.size);
		f->xattr_done += t->data.size;
		*ret = t->data.size;
	}
	mutex_unlock(&f->lock);
	return err;
}

int op_write(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	auto_fid struct fid *f = fid_get(w->srv, t->Twrite.fid);
	ssize_t done;

	if (!f)
		return -EBADF;
	if (f->xattr == FID_XATTR_WRITE)
		return write_xattr_fid(f, &t->Twrite, &r->Rwrite.count);
	if (f->io_fd < 0)
		return -EBADF;
	done = pwrite(f->io_fd, t->Twrite.data.data, t->Twrite.data.size, (off_t)t->Twrite.offset);
	if (done < 0)
		return -errno;
	r->Rwrite.count = (uint32_t)done;
	return 0;
}

int op_readdir(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	auto_fid struct fid *f = fid_get(w->srv, t->Treaddir.fid);
	size_t size;
	bool eof;
	int err;

	if (!f || f->io_fd < 0)
		return -EBADF;
	if (!f->is_dir)
		return -ENOTDIR;
	mutex_lock(&f->lock);
	err = read_dents(w, f->attach, f->io_fd, &f->dir_pos, (int64_t)t->Treaddir.offset,
			 MIN(t->Treaddir.count, io_unit(w)), false, false, &size, &eof);
	mutex_unlock(&f->lock);
	if (err)
		return err;
	r->Rreaddir.data = (struct p9_blob){NULL, (uint32_t)size};
	return 0;
}

int op_fsync(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	auto_fid struct fid *f = fid_get(w->srv, t->Tfsync.fid);
	auto_close int tmp = -1;
	int fd, ret;

	(void)r;
	if (!f)
		return -EBADF;
	fd = f->io_fd;
	if (fd < 0) {
		tmp = reopen(w, f->path_fd, O_RDONLY);
		if (tmp < 0)
			return tmp;
		fd = tmp;
	}
	ret = t->Tfsync.datasync ? fdatasync(fd) : fsync(fd);
	return ret < 0 ? -errno : 0;
}

int op_xattrwalk(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	auto_fid struct fid *f = fid_get(w->srv, t->Txattrwalk.fid);
	char name[P9_NAME_MAX + 1] = "", num[16];
	struct fid *nf;
	ssize_t size;
	int err, fd;

	if (!f || f->path_fd < 0)
		return -EBADF;
	if (t->Txattrwalk.name.len) {
		if (t->Txattrwalk.name.len > P9_NAME_MAX)
			return -ERANGE;
		memcpy(name, t->Txattrwalk.name.data, t->Txattrwalk.name.len);
	}
	fd_name(f->path_fd, num);
	size = name[0] ? syscall(SYS_getxattr, num, name, w->data, SERVER_XATTR_MAX)
		       : syscall(SYS_listxattr, num, w->data, SERVER_XATTR_MAX);
	err = size < 0 ? -errno : 0;
	fd = err ? err : dup_fd(f->path_fd);
	if (!err && fd < 0)
		err = fd;
	if (!err)
		err = fid_add(w->srv, t->Txattrwalk.newfid, f->attach, f->uid, fd, -1, 0, false);
	nf = err ? NULL : fid_get(w->srv, t->Txattrwalk.newfid);
	if (!nf)
		return err ? err : -EBADF;
	mutex_lock(&nf->lock);
	err = nf->xattr == FID_NO_XATTR ? fid_value_alloc(nf, (size_t)size) : -EBUSY;
	if (!err) {
		nf->xattr = FID_XATTR_READ;
		memcpy(nf->xattr_data, w->data, (size_t)size);
	}
	mutex_unlock(&nf->lock);
	fid_put(nf);
	if (err) {
		(void)!fid_remove(w->srv, t->Txattrwalk.newfid);
		return err;
	}
	r->Rxattrwalk.size = (uint64_t)size;
	return 0;
}

int op_xattrcreate(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	const struct p9_Txattrcreate *x = &t->Txattrcreate;
	auto_fid struct fid *f = fid_get(w->srv, x->fid);
	int err = 0;

	(void)r;
	if (!f || f->path_fd < 0 || f->io_fd >= 0)
		return -EBADF;
	if (f->attach->readonly)
		return -EROFS;
	if (x->name.len == 0 || x->name.len > P9_NAME_MAX || memchr(x->name.data, 0, x->name.len))
		return -ERANGE;
	if (x->size > SERVER_XATTR_MAX)
		return -E2BIG;
	mutex_lock(&f->lock);
	if (f->xattr != FID_NO_XATTR)
		err = -EBUSY;
	else
		err = fid_value_alloc(f, x->size);
	if (!err) {
		f->xattr = FID_XATTR_WRITE;
		f->xattr_done = 0;
		f->xattr_flags = (int)x->flags;
		memcpy(f->xattr_name, x->name.data, x->name.len);
		f->xattr_name[x->name.len] = '\0';
	}
	mutex_unlock(&f->lock);
	return err;
}
