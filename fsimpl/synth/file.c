/*
 * fsimpl/synth/file.c - open synthetic files and directories.
 *
 * A file's content is rendered whole by show() when a read at offset 0 (or the first read) comes, and served from
 * there, so a reader sees one state however small its reads are.
 */
#include <fcntl.h>
#include <linux/stat.h>
#include <stdlib.h>
#include <string.h>

#include "fsimpl/synth/internal.h"

/* Cookies of directories: "." and "..", the static table, then the dynamic entries' keys. */
#define DIR_STATIC 2
#define DIR_DYNAMIC (1ll << 20)

int synth_stat_node(struct synth_node *n, const struct stat_args *args unused_arg,
		    struct moat_statx *ret)
{
	struct synth_attr attr;
	int err;

	err = synth_getattr(n, &attr);
	if (err)
		return err == -ESRCH ? -ENOENT : err;
	*ret = (struct moat_statx){
		.mask = STATX_BASIC_STATS,
		.blksize = MOAT_PAGE_SIZE,
		.nlink = attr.nlink,
		.uid = attr.uid,
		.gid = attr.gid,
		.mode = (uint16_t)attr.mode,
		.ino = n->ino,
		.size = attr.size,
		.atime = attr.atime,
		.mtime = attr.mtime,
		.ctime = attr.ctime,
		.rdev_major = attr.rdev_major,
		.rdev_minor = attr.rdev_minor,
		.dev_major = 0,
		.dev_minor = n->dentry.fs->dev_minor,
	};
	if (S_ISREG(attr.mode))
		ret->blksize = 1024;
	return 0;
}

static void synth_file_release(struct file *f)
{
	struct synth_file *sf = synth_file_of(f);

	if (sf->node->ops->close)
		sf->node->ops->close(sf->node, sf);
	buf_fini(&sf->content);
	file_free(f);
}

static int synth_flush(struct file *f)
{
	struct synth_file *sf = synth_file_of(f);

	if (sf->node->ops->flush)
		sf->node->ops->flush(sf->node, sf);
	return 0;
}

static ssize_t synth_read_iter(struct file *f, struct io_iter *it, int64_t off, int rwf)
{
	struct synth_file *sf = synth_file_of(f);
	struct synth_node *n = sf->node;
	ssize_t ret = 0;
	int err;

	if (rwf & RWF_NOWAIT)
		return -EOPNOTSUPP;
	if (n->ops->read_at)
		return n->ops->read_at(n, sf, it, off);
	if (!n->ops->show)
		return -EIO;
	err = op_lock_killable(&sf->lock);
	if (err)
		return err;
	if (!sf->rendered || off == 0) {
		buf_reset(&sf->content);
		err = n->ops->show(n, sf, &sf->content);
		if (!err)
			err = buf_error(&sf->content);
		sf->rendered = !err;
	}
	if (err)
		ret = err;
	else if ((uint64_t)off < sf->content.len)
		ret = (ssize_t)io_iter_put(it, sf->content.data + off,
					   sf->content.len - (size_t)off);
	op_unlock(&sf->lock);
	return ret;
}

static ssize_t synth_write_iter(struct file *f, struct io_iter *it, int64_t *inout_off, int rwf)
{
	struct synth_file *sf = synth_file_of(f);
	struct synth_node *n = sf->node;
	size_t size, got;
	ssize_t ret;
	char *data;

	if (rwf & RWF_NOWAIT)
		return -EOPNOTSUPP;
	if (n->ops->write_at)
		return n->ops->write_at(n, sf, it, *inout_off);
	if (!n->ops->store)
		return -EIO;
	size = MIN(it->remaining, (uint64_t)SYNTH_STORE_MAX);
	data = malloc(size + 1);
	if (!data)
		return -ENOMEM;
	got = io_iter_get(it, data, size);
	if (got < size) {
		free(data);
		return -EFAULT;
	}
	data[size] = '\0';
	ret = n->ops->store(n, sf, data, size, *inout_off);
	free(data);
	if (ret >= 0 && (size_t)ret < got)
		io_iter_revert(it, got - (size_t)ret);
	return ret;
}

static uint32_t synth_poll(struct file *f)
{
	struct synth_file *sf = synth_file_of(f);

	return sf->node->ops->poll ? sf->node->ops->poll(sf->node, sf)
				   : POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM;
}

static void synth_poll_add(struct file *f, struct waiter *w)
{
	struct synth_file *sf = synth_file_of(f);
	struct wait_queue *q =
		sf->node->ops->poll_queue ? sf->node->ops->poll_queue(sf->node, sf) : NULL;

	if (q)
		wait_queue_add(q, w);
}

static void synth_poll_remove(struct file *f unused_arg, struct waiter *w)
{
	wait_queue_remove(w);
}

static int64_t synth_ioctl(struct file *f, unsigned cmd, uint64_t arg)
{
	struct synth_file *sf = synth_file_of(f);

	return sf->node->ops->ioctl ? sf->node->ops->ioctl(sf->node, sf, cmd, arg) : -ENOTTY;
}

static struct mappable *synth_mappable(struct file *f)
{
	struct synth_file *sf = synth_file_of(f);

	return sf->node->ops->mappable ? sf->node->ops->mappable(sf->node, sf) : NULL;
}

static int synth_truncate(struct file *f unused_arg, uint64_t size unused_arg)
{
	return 0;
}

#define SYNTH_FILE_OPS                                                                      \
	.name = "synth", .release = synth_file_release, .flush = synth_flush,               \
	.read_iter = synth_read_iter, .write_iter = synth_write_iter, .ioctl = synth_ioctl, \
	.mappable = synth_mappable, .truncate = synth_truncate

#define SYNTH_POLL_OPS \
	.poll = synth_poll, .poll_add = synth_poll_add, .poll_remove = synth_poll_remove

#define SYNTH_NO_SPLICE                                                         \
	.no_splice_read = true, .no_splice_write = true, .no_read_flags = true, \
	.no_write_flags = true

/* By whether they are polled and spliced. */
static const struct file_ops synth_file_ops[2][2] = {
	{{SYNTH_FILE_OPS, SYNTH_NO_SPLICE}, {SYNTH_FILE_OPS}},
	{{SYNTH_FILE_OPS, SYNTH_POLL_OPS, SYNTH_NO_SPLICE}, {SYNTH_FILE_OPS, SYNTH_POLL_OPS}},
};

/* ---- directories ---- */

struct synth_iter {
	struct dir_emit *ctx;
	struct synth_node *dir;
	struct file *file;
	bool full;
};

static bool iter_emit(struct synth_iter *it, const char *name, size_t len, uint64_t ino,
		      uint32_t type, int64_t next)
{
	if (!it->ctx->emit(it->ctx, name, len, ino, (type & S_IFMT) >> 12, next)) {
		it->full = true;
		return false;
	}
	it->file->pos = next;
	return true;
}

bool synth_emit(struct synth_iter *it, const char *name, size_t len, uint32_t type, uint64_t ino,
		int64_t key)
{
	return iter_emit(it, name, len, ino ? ino : synth_ino(it->dir, name, len), type,
			 DIR_DYNAMIC + key + 1);
}

static bool iter_dots(struct synth_iter *it)
{
	struct synth_node *dir = it->dir, *up = dir->parent ? dir->parent : dir;

	if (it->file->pos == 0 && !iter_emit(it, ".", 1, dir->ino, S_IFDIR, 1))
		return false;
	return it->file->pos != 1 || iter_emit(it, "..", 2, up->ino, S_IFDIR, DIR_STATIC);
}

static int synth_iterate(struct file *f, struct dir_emit *ctx)
{
	struct synth_file *sf = synth_file_of(f);
	struct synth_node *dir = sf->node;
	struct synth_iter it = {.ctx = ctx, .dir = dir, .file = f};

	if (dir->ops->revalidate && !dir->ops->revalidate(dir))
		return -ENOENT;
	if (f->pos < 0)
		return -EINVAL;
	if (!iter_dots(&it))
		return 0;
	for (const struct synth_entry *e = dir->children; e && e->name; e++) {
		int64_t cookie = DIR_STATIC + (e - dir->children);
		size_t len = strlen(e->name);

		if (f->pos > cookie || (e->visible && !e->visible(dir, e)) ||
		    synth_leaves_out(dir, e))
			continue;
		if (!iter_emit(&it, e->name, len, synth_ino(dir, e->name, len), e->mode,
			       cookie + 1))
			return 0;
	}
	if (!dir->ops->iterate)
		return 0;
	return dir->ops->iterate(dir, f->pos > DIR_DYNAMIC ? f->pos - DIR_DYNAMIC : 0, &it);
}

static int synth_fsync(struct file *f unused_arg, bool data_only unused_arg,
		       uint64_t start unused_arg, uint64_t end unused_arg)
{
	return 0;
}

static const struct file_ops synth_dir_ops = {
	.name = "synth directory",
	.release = synth_file_release,
	.iterate = synth_iterate,
	.seek = file_seek_cookie,
	.fsync = synth_fsync,
	.ioctl = synth_ioctl,
};

/* ---- open ---- */

static int open_special(struct synth_node *n, const struct vfs_path *place, unsigned flags,
			struct file **ret)
{
	uint32_t mode = atomic_load_explicit(&n->mode, memory_order_relaxed);

	if (S_ISSOCK(mode) || !vfs_hooks.open_special)
		return -ENXIO;
	return vfs_hooks.open_special(place, mode & S_IFMT, n->rdev_major, n->rdev_minor, n->ino,
				      flags, ret);
}

/* Yes, unless something says no. */
static bool may_splice(const struct synth_node *n)
{
	while (n && n->ops->splice == SYNTH_SPLICE_INHERIT)
		n = n->parent;
	return !n || n->ops->splice == SYNTH_SPLICE_YES;
}

static const struct file_ops *ops_of(const struct synth_node *n)
{
	bool polled = !n->ops->no_poll || n->ops->poll;

	return synth_is_dir(n) ? &synth_dir_ops : &synth_file_ops[polled][may_splice(n)];
}

static int file_create(struct synth_node *n, const struct vfs_path *place, unsigned flags,
		       struct file **ret)
{
	struct synth_file *sf = calloc(1, sizeof(*sf));
	bool path_only = (flags & O_PATH) != 0;
	int err;

	if (!sf)
		return -ENOMEM;
	sf->node = n;
	op_lock_init(&sf->lock);
	buf_init(&sf->content, SYNTH_FILE_MAX);
	file_init(&sf->file, ops_of(n), place, flags, synth_is_dir(n) ? 0 : FILE_SEEKABLE);
	err = !path_only && n->ops->open ? n->ops->open(n, sf) : 0;
	if (err) {
		file_fini(&sf->file);
		buf_fini(&sf->content);
		free(sf);
		return err;
	}
	*ret = &sf->file;
	return 0;
}

int synth_open_node(struct synth_node *n, struct resolving_path *rp, const struct open_args *args,
		    struct file **ret)
{
	unsigned flags = args->flags;
	struct vfs_path place;
	struct synth_attr attr;
	int mask = 0, err;

	rp_place(rp, &n->dentry, &place);
	if ((flags & O_DIRECTORY) && !synth_is_dir(n))
		return -ENOTDIR;
	if (flags & O_PATH)
		return file_create(n, &place, flags, ret);
	err = synth_getattr(n, &attr);
	if (err)
		return err == -ESRCH ? -ENOENT : err;
	/* What open asks besides permission: made with a caller for whom bits do not matter. */
	if (S_ISLNK(attr.mode))
		return -ELOOP;
	if ((flags & O_ACCMODE) != O_WRONLY)
		mask |= R_OK;
	if ((flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC))
		mask |= W_OK;
	if (S_ISDIR(attr.mode) && ((mask & W_OK) || (flags & O_TMPFILE) == O_TMPFILE))
		return -EISDIR;
	if (args->exec) {
		if (!S_ISREG(attr.mode) ||
		    (atomic_load_explicit(&place.mount->flags, memory_order_relaxed) &
		     MNT_NOEXEC_F))
			return -EACCES;
		mask = X_OK;
	}
	if ((S_ISCHR(attr.mode) || S_ISBLK(attr.mode)) &&
	    (atomic_load_explicit(&place.mount->flags, memory_order_relaxed) & MNT_NODEV_F))
		return -EACCES;
	err = synth_permission(n, rp_cred(rp), mask);
	if (!err && (mask & W_OK) && S_ISREG(attr.mode))
		err = rp_begin_write(rp);
	if (err)
		return err;
	if (n->ops->open_file)
		return n->ops->open_file(n, &place, flags, ret);
	if (!S_ISREG(attr.mode) && !S_ISDIR(attr.mode))
		return open_special(n, &place, flags, ret);
	return file_create(n, &place, flags, ret);
}
