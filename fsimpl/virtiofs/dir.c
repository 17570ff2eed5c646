/*
 * fsimpl/virtiofs/dir.c - open directories and O_PATH files.
 *
 * Entries come in batches of up to 64 KiB. READDIRPLUS costs the server a lookup an entry, so it is asked for when attributes will be wanted: when
 * a quarter of what was listed of the directory was looked up, from the cache or not. For a directory not listed before, what was done after other
 * listings of the mount decides.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fsimpl/virtiofs/internal.h"

#define BATCH_BYTES MEM_CHUNK_SIZE
#define ADVICE_ENTRIES_MIN 64 /* fewer say nothing */
#define ADVICE_ENTRIES_MAX 16384 /* of the mount: older ones count half */

struct virtiofs_dir {
	struct file f;
	/* guarded by f.pos_lock */
	uint64_t fh;
	bool open; /* the server has a handle */
	unsigned epoch; /* the connection on which it has */
	bool plus; /* of the batch */
	uint8_t *data; /* owned: BATCH_BYTES, a copy of one reply */
	struct virtiofs_listing *kept; /* a reference: instead of data, and all there is */
	struct virtiofs_gathering gathering;
	size_t size, at; /* bytes; parsed so far */
	int64_t pos; /* the cookie of what is at `at` */
	bool filled, eof;
};

static struct virtiofs_dir *dir_of(struct file *f)
{
	return container_of(f, struct virtiofs_dir, f);
}

static int open_dir(struct virtiofs_dir *dir, struct virtiofs_inode *in)
{
	const struct fuse_open_in arg = {.flags = O_RDONLY | O_DIRECTORY};
	struct fuse_open_out out;
	struct vdev_call call = {
		.req = {.opcode = FUSE_OPENDIR, .nodeid = in->nodeid, .arg = &arg},
		.reply = &out,
		.reply_size = sizeof(out),
		.epoch_set = true,
	};
	ssize_t got;

	if (dir->open && dir->epoch == vdev_epoch(in->fs->dev))
		return 0;
	/* Another daemon's, after a reconnection: positions in the directory are the host's and hold. */
	dir->open = false;
	dir->epoch = call.epoch = vdev_epoch(in->fs->dev);
	got = virtiofs_call(in->fs, &call);
	if (got == -ENOSYS)
		return 0;
	if (got < 0)
		return (int)got;
	dir->fh = out.fh;
	dir->open = true;
	return 0;
}

/* Each entry with a node counts as a lookup: it is entered, or forgotten. Pre: tree_lock, since before the request. */
static void enter_entries(struct virtiofs_fs *fs, struct remote_dentry *d, const uint8_t *data,
			  size_t size, struct virtiofs_when when, unsigned epoch)
{
	struct fuse_entry e;
	size_t off = 0;

	while (fuse_next_entry(data, size, &off, true, &e) == 1) {
		struct remote_dentry *child;

		if (!e.node.nodeid || (e.len <= 2 && !memcmp(e.name, "..", e.len)))
			continue;
		if (virtiofs_entry_named(&e.node, epoch))
			continue;
		if (!virtiofs_enter(fs, d, e.name, e.len, &e.node, when, &child))
			remote_dentry_unref(child);
	}
}

/* ---- advice: counts that races may lose, which does no harm ---- */

static uint32_t get(const _Atomic uint32_t *v)
{
	return atomic_load_explicit(v, memory_order_relaxed);
}

static void set(_Atomic uint32_t *v, uint32_t to)
{
	atomic_store_explicit(v, to, memory_order_relaxed);
}

void virtiofs_dir_looked_up(struct virtiofs_inode *dir)
{
	uint32_t now = get(&dir->looked_up) + 1;

	set(&dir->looked_up, now);
	if (now - get(&dir->list_mark) <= get(&dir->list_count))
		set(&dir->fs->wanted, get(&dir->fs->wanted) + 1);
}

/* The batch has so many entries. */
static void note_listed(struct virtiofs_inode *in, uint32_t count)
{
	struct virtiofs_fs *fs = in->fs;

	set(&in->list_count, get(&in->list_count) + count);
	set(&fs->listed, get(&fs->listed) + count);
	if (get(&fs->listed) > ADVICE_ENTRIES_MAX) {
		set(&fs->listed, get(&fs->listed) / 2);
		set(&fs->wanted, get(&fs->wanted) / 2);
	}
}

/* Will the next batch's attributes be wanted? */
static bool want_plus(struct virtiofs_inode *in, bool first)
{
	uint32_t count = get(&in->list_count), hits = get(&in->looked_up) - get(&in->list_mark);
	bool wanted = atomic_load_explicit(&in->plus_wanted, memory_order_relaxed);

	if (first && count)
		wanted = hits * 4 >= count;
	else if (first)
		wanted = get(&in->fs->listed) >= ADVICE_ENTRIES_MIN &&
			 get(&in->fs->wanted) * 4 >= get(&in->fs->listed);
	else if (count >= ADVICE_ENTRIES_MIN && hits * 4 >= count)
		/* It looks while it reads. (One that does not may yet do so when it has read all.) */
		wanted = true;
	if (first) {
		set(&in->list_mark, get(&in->looked_up));
		set(&in->list_count, 0);
	}
	atomic_store_explicit(&in->plus_wanted, wanted, memory_order_relaxed);
	return wanted && (in->fs->init_flags & FUSE_DO_READDIRPLUS) &&
	       in->fs->options.cache != VIRTIOFS_CACHE_NONE &&
	       !virtiofs_lacks(in->fs, FUSE_READDIRPLUS);
}

/* plus: that the entries' attributes are to come along. */
static int fetch(struct virtiofs_dir *dir, struct remote_dentry *d, int64_t pos, bool plus)
{
	struct virtiofs_inode *in = virtiofs_inode_of(d);
	struct virtiofs_fs *fs = in->fs;
	struct memfile *mf = virtiofs_device_memory(fs->dev);
	struct fuse_read_in arg = {.offset = (uint64_t)pos, .size = BATCH_BYTES};
	struct vdev_data data = {.size = BATCH_BYTES};
	struct vdev_call call = {
		.req = {.nodeid = in->nodeid, .arg = &arg},
		.receive = &data,
		.receive_count = 1,
		.epoch_set = true,
	};
	struct virtiofs_when when;
	ssize_t got;
	/* Of the connection that the node is of, or that is refused. */
	int err = open_dir(dir, in);

	if (err)
		return err;
	arg.fh = dir->fh;
	call.epoch = dir->epoch;
	if (!dir->data)
		dir->data = malloc(BATCH_BYTES);
	if (!dir->data || memfile_alloc(mf, BATCH_BYTES, 0, 0, &data.off))
		return -ENOMEM;
	dir->plus = plus;
	call.req.opcode = dir->plus ? FUSE_READDIRPLUS : FUSE_READDIR;
	if (!pos)
		virtiofs_gather_begin(&dir->gathering, in);
	/* A removal between the reply and its entering would be undone by it. */
	if (dir->plus)
		rwlock_read_lock(&fs->tree_lock);
	when = virtiofs_now(fs);
	got = virtiofs_call(fs, &call);
	if (got > 0)
		memcpy(dir->data, memfile_ptr(mf, data.off), (size_t)got);
	if (got > 0 && dir->plus)
		enter_entries(fs, d, dir->data, (size_t)got, when, dir->epoch);
	if (dir->plus)
		rwlock_read_unlock(&fs->tree_lock);
	memfile_range_unref(mf, data.off, data.size);
	if (got < 0)
		return (int)got;
	dir->size = (size_t)got;
	dir->at = 0;
	dir->pos = pos;
	dir->eof = !got;
	dir->filled = true;
	if (dir->eof)
		virtiofs_gather_end(&dir->gathering, in, pos);
	else
		virtiofs_gather_add(&dir->gathering, in, pos, dir->data, dir->size, dir->plus);
	note_listed(in, dir->size / (dir->plus ? FUSE_NAME_OFFSET_DIRENTPLUS + 16
					       : FUSE_NAME_OFFSET + 16));
	return 0;
}

/* From a position that is not where the batch stands: what is there now is to be seen. */
static int begin(struct virtiofs_dir *dir, struct remote_dentry *d, int64_t pos)
{
	struct virtiofs_inode *in = virtiofs_inode_of(d);
	bool plus = want_plus(in, !pos);

	virtiofs_listing_unref(dir->kept);
	dir->kept = pos ? NULL : virtiofs_listing_get(d, plus);
	if (!dir->kept)
		return fetch(dir, d, pos, plus);
	dir->size = dir->kept->size;
	dir->at = 0;
	dir->pos = 0;
	dir->plus = false;
	dir->filled = dir->eof = true;
	note_listed(in, dir->kept->count);
	return 0;
}

static int virtiofs_iterate(struct file *f, struct dir_emit *ctx)
{
	struct remote_dentry *d = remote_dentry_of(f->path.dentry);
	struct virtiofs_dir *dir = dir_of(f);
	int err = 0;

	if (remote_is_dead(d))
		return -ENOENT;
	virtiofs_await(virtiofs_inode_of(d)->fs);
	if (!dir->filled || dir->pos != f->pos)
		err = begin(dir, d, f->pos);
	while (!err) {
		const uint8_t *data = dir->kept ? dir->kept->data : dir->data;
		size_t next = dir->at;
		struct fuse_entry e;
		int got = fuse_next_entry(data, dir->size, &next, dir->plus, &e);

		if (got < 0)
			return -EIO;
		if (!got) {
			if (dir->eof)
				return 0;
			err = fetch(dir, d, dir->pos, want_plus(virtiofs_inode_of(d), !dir->pos));
			/* Bytes that hold no entry would be asked for again for ever. */
			next = 0;
			if (!err && !dir->eof &&
			    fuse_next_entry(dir->data, dir->size, &next, dir->plus, &e) != 1)
				err = -EIO;
			continue;
		}
		if (!ctx->emit(ctx, e.name, e.len, e.ino, e.type, (int64_t)e.off))
			return 0;
		dir->at = next;
		dir->pos = (int64_t)e.off;
		f->pos = dir->pos;
	}
	return err;
}

static int64_t virtiofs_dir_seek(struct file *f, int64_t off, int whence)
{
	/* rewinddir(3) shows what came since. */
	dir_of(f)->filled = false;
	return file_seek_cookie(f, off, whence);
}

static int virtiofs_dir_fsync(struct file *f, bool data_only, uint64_t start, uint64_t end)
{
	struct virtiofs_inode *in = virtiofs_inode_of(remote_dentry_of(f->path.dentry));
	struct fuse_fsync_in arg = {.fsync_flags = data_only};
	struct vdev_call call = {
		.req = {.opcode = FUSE_FSYNCDIR, .nodeid = in->nodeid, .arg = &arg},
		.epoch_set = true,
	};
	ssize_t got;
	int err;

	(void)start;
	(void)end;
	op_lock(&f->pos_lock);
	err = open_dir(dir_of(f), in);
	arg.fh = dir_of(f)->fh;
	call.epoch = dir_of(f)->epoch;
	op_unlock(&f->pos_lock);
	if (err)
		return err;
	got = virtiofs_call(in->fs, &call);
	return got < 0 && got != -ENOSYS ? (int)got : 0;
}

static void dir_free_rcu(struct rcu_cb *cb)
{
	free(container_of(cb, struct virtiofs_dir, f.rcu));
}

static void virtiofs_dir_release(struct file *f)
{
	struct virtiofs_inode *in = virtiofs_inode_of(remote_dentry_of(f->path.dentry));
	struct virtiofs_dir *dir = dir_of(f);
	const struct fuse_release_in arg = {.fh = dir->fh, .flags = O_RDONLY | O_DIRECTORY};
	struct vdev_call call = {
		.req = {.opcode = FUSE_RELEASEDIR, .nodeid = in->nodeid, .arg = &arg},
		.epoch = dir->epoch,
		.epoch_set = true,
		.unkillable = true, /* or the daemon keeps it for good */
	};

	if (dir->open && vdev_begin_unwaited(in->fs->dev, &call) == -EAGAIN)
		(void)!virtiofs_call(in->fs, &call); /* nobody is left to tell */
	virtiofs_gather_drop(&dir->gathering, in);
	virtiofs_listing_unref(dir->kept);
	free(dir->data);
	file_fini(f);
	rcu_call(&dir->f.rcu, dir_free_rcu);
}

static const struct file_ops virtiofs_dir_ops = {
	.release = virtiofs_dir_release,
	.iterate = virtiofs_iterate,
	.seek = virtiofs_dir_seek,
	.fsync = virtiofs_dir_fsync,
};

int virtiofs_dir_create(struct resolving_path *rp, struct remote_dentry *d, unsigned flags,
			struct file **ret)
{
	struct virtiofs_dir *dir = calloc(1, sizeof(*dir));
	struct vfs_path place;

	if (!dir)
		return -ENOMEM;
	rp_place(rp, &d->d, &place);
	file_init(&dir->f, &virtiofs_dir_ops, &place, flags, 0);
	*ret = &dir->f;
	return 0;
}
