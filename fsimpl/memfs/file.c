/*
 * fsimpl/memfs/file.c - open regular files: read, write, seek, fallocate, seals, mmap; files without a name.
 *
 * A write holds the file's write_lock from its first look at the size to its last byte, across user copies: writes are whole, and O_APPEND
 * does not overlap. A read takes the data lock only to find pages; it copies with a reference on their chunk. So neither holds a
 * ranked lock over a copy that may fault, on this very file too.
 */
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/stat.h>
#include <stdlib.h>
#include <string.h>

#include "fsimpl/memfs/data.h"

#define LARGEFILE 0100000 /* the guest's O_LARGEFILE, which the headers have as 0 */

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif
#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x0020
#endif
#define SEALS_ALL                                                                         \
	(F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE | \
	 F_SEAL_EXEC)

static struct memfs_dentry *file_dentry(struct file *f)
{
	return memfs_dentry_of(f->path.dentry);
}

static struct memfs_reg *file_reg(struct file *f)
{
	return memfs_reg_of(file_dentry(f)->inode);
}

static uint64_t reg_size(const struct memfs_reg *r)
{
	return atomic_load_explicit(&r->size, memory_order_acquire);
}

/* ---- read ---- */

/*
 * The next run at `off` of at most `want` bytes: either pages with data, whose chunk gets a reference, or a hole (*ret_mf_off 0).
 * Return: its length, 0 at the end.
 */
static uint64_t find_run(struct memfs_data *d, uint64_t off, uint64_t want, bool *ret_hole,
			 uint64_t *ret_mf_off)
{
	uint64_t in_chunk = off & (MEM_CHUNK_SIZE - 1), size, slot, len;
	unsigned page = (unsigned)(in_chunk >> MOAT_PAGE_SHIFT), last = page;
	bool present;

	rwlock_read_lock(&d->m.data_lock);
	size = atomic_load_explicit(&d->reg->size, memory_order_relaxed);
	if (off >= size) {
		rwlock_read_unlock(&d->m.data_lock);
		return 0;
	}
	slot = memfs_map_get(&d->map, off >> MEM_CHUNK_SHIFT);
	present = (slot_bits(slot) >> page) & 1;
	while (last + 1 < CHUNK_PAGES && (((slot_bits(slot) >> (last + 1)) & 1) == present))
		last++;
	len = MIN(want, size - off);
	len = MIN(len, ((uint64_t)last + 1) * MOAT_PAGE_SIZE - in_chunk);
	*ret_hole = !present;
	if (present) {
		int err;

		*ret_mf_off = slot_mf_off(slot) + in_chunk;
		err = memfile_range_ref(mem_private(), *ret_mf_off, len);
		assert(!err);
		(void)err;
	}
	rwlock_read_unlock(&d->m.data_lock);
	return len;
}

static ssize_t memfs_read_iter(struct file *f, struct io_iter *it, int64_t off, int rwf)
{
	struct memfs_reg *r = file_reg(f);
	struct memfs_data *d = atomic_load_explicit(&r->inode.data, memory_order_acquire);
	uint64_t at = (uint64_t)off, len, mf_off = 0;
	size_t got;
	bool hole;

	/* As tmpfs, which may always have to wait for a page. */
	if (rwf & RWF_NOWAIT)
		return -EOPNOTSUPP;
	if (!d) /* nothing was ever written, and no size set */
		return 0;
	while (it->remaining && !it->error) {
		len = find_run(d, at, it->remaining, &hole, &mf_off);
		if (!len)
			break;
		if (hole) {
			got = io_iter_zero(it, len);
		} else {
			got = io_iter_put(it, memfile_ptr(mem_private(), mf_off), len);
			memfile_range_unref(mem_private(), mf_off, len);
		}
		at += got;
		if (got < len)
			break;
	}
	if (at > (uint64_t)off)
		memfs_update_atime(&r->inode, f->path.mount, file_flags(f));
	return (ssize_t)(at - (uint64_t)off);
}

/* ---- write ---- */

/* Pages for [off, off + len) of one chunk, with a reference on it. */
static int write_prepare(struct memfs_data *d, uint64_t off, uint64_t len, uint64_t *ret_mf_off)
{
	uint64_t index = off >> MEM_CHUNK_SHIFT, in_chunk = off & (MEM_CHUNK_SIZE - 1);
	unsigned first = (unsigned)(in_chunk >> MOAT_PAGE_SHIFT);
	unsigned last = (unsigned)((in_chunk + len - 1) >> MOAT_PAGE_SHIFT);
	int err;

	rwlock_write_lock(&d->m.data_lock);
	err = memfs_data_fill_chunk(d, index, first, last);
	if (!err) {
		*ret_mf_off = slot_mf_off(memfs_map_get(&d->map, index)) + in_chunk;
		err = memfile_range_ref(mem_private(), *ret_mf_off, len);
	}
	rwlock_write_unlock(&d->m.data_lock);
	return err;
}

static void extend(struct memfs_data *d, uint64_t end)
{
	if (end <= reg_size(d->reg))
		return;
	rwlock_write_lock(&d->m.data_lock);
	if (end > atomic_load_explicit(&d->reg->size, memory_order_relaxed))
		atomic_store_explicit(&d->reg->size, end, memory_order_release);
	rwlock_write_unlock(&d->m.data_lock);
}

/* write_lock held. Return: bytes written, or -errno if none. */
static ssize_t write_locked(struct memfs_data *d, struct io_iter *it, uint64_t off)
{
	uint64_t at = off, len, mf_off;
	size_t got;
	int err = 0;

	while (it->remaining && !it->error) {
		len = MIN(it->remaining, MEM_CHUNK_SIZE - (at & (MEM_CHUNK_SIZE - 1)));
		err = write_prepare(d, at, len, &mf_off);
		/* Near a limit less may still fit: go by pages. */
		if (err == -ENOSPC && len > MOAT_PAGE_SIZE - (at & (MOAT_PAGE_SIZE - 1))) {
			len = MOAT_PAGE_SIZE - (at & (MOAT_PAGE_SIZE - 1));
			err = write_prepare(d, at, len, &mf_off);
		}
		if (err)
			break;
		got = io_iter_get(it, memfile_ptr(mem_private(), mf_off), len);
		memfile_range_unref(mem_private(), mf_off, len);
		at += got;
		if (got < len)
			break;
	}
	extend(d, at);
	return at > off ? (ssize_t)(at - off) : err;
}

static int write_check_seals(struct memfs_data *d, uint64_t off, struct io_iter *it)
{
	unsigned seals = atomic_load_explicit(&d->seals, memory_order_relaxed);
	uint64_t size = reg_size(d->reg);

	if (likely(!(seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE | F_SEAL_GROW))))
		return 0;
	if (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE))
		return -EPERM;
	return off + it->remaining > size ? -EPERM : 0;
}

static ssize_t memfs_write_iter(struct file *f, struct io_iter *it, int64_t *inout_off, int rwf)
{
	struct memfs_reg *r = file_reg(f);
	struct memfs_data *d;
	ssize_t ret;
	int err;

	if (rwf & RWF_NOWAIT)
		return -EOPNOTSUPP;
	err = memfs_data_get(r, &d);
	if (!err)
		err = op_lock_killable(&d->write_lock);
	if (err)
		return err;
	if (file_appends(f, rwf))
		*inout_off = (int64_t)reg_size(r);
	ret = 0;
	if (!it->remaining)
		goto out_unlock;
	if (*inout_off == INT64_MAX)
		ret = -EFBIG;
	else if (vfs_hooks.check_fsize)
		ret = vfs_hooks.check_fsize(*inout_off, it);
	if (!ret)
		ret = write_check_seals(d, (uint64_t)*inout_off, it);
	if (ret)
		goto out_unlock;
	memfs_kill_priv(&r->inode, cred_current());
	ret = write_locked(d, it, (uint64_t)*inout_off);
	if (ret > 0)
		memfs_touch(&r->inode, MEMFS_MTIME | MEMFS_CTIME, memfs_now());
out_unlock:
	op_unlock(&d->write_lock);
	return ret;
}

/* ---- seek ---- */

/* The first offset >= off whose page's state is `data`; the size when there is none. data_lock held. */
static uint64_t seek_state_locked(struct memfs_data *d, uint64_t off, uint64_t size, bool data)
{
	while (off < size) {
		uint64_t index = off >> MEM_CHUNK_SHIFT;
		uint64_t slot = memfs_map_get(&d->map, index);
		unsigned page = (unsigned)((off & (MEM_CHUNK_SIZE - 1)) >> MOAT_PAGE_SHIFT);

		if (!slot && data) {
			uint64_t next = memfs_map_next(&d->map, index);

			if (next == UINT64_MAX)
				return size;
			off = next << MEM_CHUNK_SHIFT;
			continue;
		}
		if (((slot_bits(slot) >> page) & 1) == data)
			return off;
		off = (off & MOAT_PAGE_MASK) + MOAT_PAGE_SIZE;
	}
	return size;
}

static int64_t seek_data_hole(struct memfs_reg *r, int64_t off, bool data)
{
	struct memfs_data *d = atomic_load_explicit(&r->inode.data, memory_order_acquire);
	uint64_t size = reg_size(r), found;

	if (off < 0 || (uint64_t)off >= size)
		return -ENXIO;
	if (!d) /* a size without data cannot be: truncation makes the object */
		return data ? -ENXIO : off;
	rwlock_read_lock(&d->m.data_lock);
	size = atomic_load_explicit(&r->size, memory_order_relaxed);
	found = seek_state_locked(d, (uint64_t)off, size, data);
	rwlock_read_unlock(&d->m.data_lock);
	return data && found >= size ? -ENXIO : (int64_t)found;
}

static int64_t memfs_seek(struct file *f, int64_t off, int whence)
{
	struct memfs_reg *r = file_reg(f);

	switch (whence) {
	case SEEK_SET:
		break;
	case SEEK_CUR:
		if (__builtin_add_overflow(off, f->pos, &off))
			return -EINVAL;
		break;
	case SEEK_END:
		if (__builtin_add_overflow(off, (int64_t)reg_size(r), &off))
			return -EINVAL;
		break;
	case SEEK_DATA:
	case SEEK_HOLE:
		off = seek_data_hole(r, off, whence == SEEK_DATA);
		if (off < 0)
			return off;
		break;
	default:
		return -EINVAL;
	}
	if (off < 0)
		return -EINVAL;
	f->pos = off;
	return off;
}

/* ---- fallocate ---- */

static int punch_hole(struct memfs_data *d, uint64_t off, uint64_t size)
{
	uint64_t first = round_up_u64(off, MOAT_PAGE_SIZE), last = (off + size) & MOAT_PAGE_MASK;

	if (atomic_load_explicit(&d->seals, memory_order_relaxed) &
	    (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE))
		return -EPERM;
	rwlock_write_lock(&d->m.data_lock);
	if (first < last)
		mappable_invalidate(&d->m, first, last - first, false);
	memfs_data_punch(d, off, off + size);
	rwlock_write_unlock(&d->m.data_lock);
	return 0;
}

static int allocate(struct memfs_data *d, uint64_t off, uint64_t size, bool keep_size)
{
	uint64_t end = off + size, at;
	int err = 0;

	if ((atomic_load_explicit(&d->seals, memory_order_relaxed) & F_SEAL_GROW) &&
	    end > reg_size(d->reg))
		return -EPERM;
	for (at = off; at < end && !err;) {
		uint64_t stop = MIN(end, round_down_u64(at, MEM_CHUNK_SIZE) + MEM_CHUNK_SIZE);

		rwlock_write_lock(&d->m.data_lock);
		err = memfs_data_allocate(d, at, stop);
		rwlock_write_unlock(&d->m.data_lock);
		if (!err)
			at = stop;
	}
	if (!err && !keep_size)
		extend(d, end);
	return err;
}

static int memfs_fallocate(struct file *f, int mode, uint64_t off, uint64_t size)
{
	struct memfs_reg *r = file_reg(f);
	struct memfs_data *d;
	uint32_t flags;
	uint64_t before;
	int err;

	if (mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE))
		return -EOPNOTSUPP;
	flags = atomic_load_explicit(&r->inode.flags, memory_order_relaxed);
	if ((flags & PERM_IMMUTABLE) || ((flags & PERM_APPEND) && (mode & ~FALLOC_FL_KEEP_SIZE)))
		return -EPERM;
	err = memfs_data_get(r, &d);
	if (!err)
		err = op_lock_killable(&d->write_lock);
	if (err)
		return err;
	memfs_kill_priv(&r->inode, cred_current());
	before = memfs_data_pages(r);
	if (mode & FALLOC_FL_PUNCH_HOLE) {
		err = punch_hole(d, off, size);
	} else {
		uint64_t limit = memfs_limit(r->inode.fs, MEMFS_PAGES);

		/* What can never fit is refused before it is tried. */
		if (limit && (size >> MOAT_PAGE_SHIFT) > limit)
			err = -ENOSPC;
		else
			err = allocate(d, off, size, (mode & FALLOC_FL_KEEP_SIZE) != 0);
	}
	if (!err || memfs_data_pages(r) != before)
		memfs_touch(&r->inode, MEMFS_MTIME | MEMFS_CTIME, memfs_now());
	op_unlock(&d->write_lock);
	return err;
}

/* ---- seals ---- */

static int memfs_get_seals(struct file *f)
{
	struct memfs_data *d = atomic_load_explicit(&file_reg(f)->inode.data, memory_order_acquire);

	return d ? (int)atomic_load_explicit(&d->seals, memory_order_relaxed) : F_SEAL_SEAL;
}

/* Writers through mappings are kept out from here on, or there are some: -EBUSY. */
static int deny_writable_mappings(struct mappable *m)
{
	int32_t none = 0;

	if (atomic_compare_exchange_strong_explicit(&m->writable_mappings, &none, INT32_MIN / 2,
						    memory_order_acq_rel, memory_order_relaxed))
		return 0;
	return none < 0 ? 0 : -EBUSY;
}

static int memfs_add_seals(struct file *f, unsigned seals)
{
	struct memfs_reg *r = file_reg(f);
	struct memfs_data *d;
	unsigned old;
	int err;

	if (!(f->mode & FILE_WRITE))
		return -EPERM;
	if (seals & ~(unsigned)SEALS_ALL)
		return -EINVAL;
	err = memfs_data_get(r, &d);
	if (!err)
		err = op_lock_killable(&d->write_lock);
	if (err)
		return err;
	old = atomic_load_explicit(&d->seals, memory_order_relaxed);
	if (old & F_SEAL_SEAL)
		err = -EPERM;
	else if ((seals & F_SEAL_WRITE) && !(old & F_SEAL_WRITE))
		err = deny_writable_mappings(&d->m);
	/* An executable file that may not change its x bits is sealed against writing as well. */
	if (!err && (seals & F_SEAL_EXEC) && (memfs_mode(&r->inode) & 0111))
		seals |= F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE;
	if (!err)
		atomic_store_explicit(&d->seals, old | seals, memory_order_release);
	op_unlock(&d->write_lock);
	return err;
}

/* ---- the rest ---- */

static struct mappable *memfs_file_mappable(struct file *f)
{
	struct memfs_data *d;

	return memfs_data_get(file_reg(f), &d) ? NULL : &d->m;
}

static int memfs_file_stat(struct file *f, const struct stat_args *args unused_arg,
			   struct moat_statx *ret)
{
	memfs_inode_stat(file_dentry(f)->inode, ret);
	return 0;
}

static int memfs_file_truncate(struct file *f, uint64_t size)
{
	struct setattr_args args = {.valid = SETATTR_SIZE | SETATTR_FILE, .size = size};
	const struct cred *cred = cred_current();

	return memfs_inode_setattr(file_dentry(f), cred ? cred : f->cred, &args);
}

static int memfs_fsync(struct file *f unused_arg, bool data_only unused_arg,
		       uint64_t start unused_arg, uint64_t end unused_arg)
{
	return 0;
}

static void memfs_file_release(struct file *f)
{
	file_free(f);
}

static const struct file_ops memfs_file_ops = {
	.name = "memfs",
	.release = memfs_file_release,
	.read_iter = memfs_read_iter,
	.write_iter = memfs_write_iter,
	.seek = memfs_seek,
	.mappable = memfs_file_mappable,
	.stat = memfs_file_stat,
	.truncate = memfs_file_truncate,
	.fallocate = memfs_fallocate,
	.fsync = memfs_fsync,
	.ioctl = memfs_ioctl,
	.set_flags = memfs_set_file_flags,
	.append_only = memfs_append_only,
	.get_seals = memfs_get_seals,
	.add_seals = memfs_add_seals,
};

int memfs_open_reg(struct memfs_dentry *d unused_arg, const struct vfs_path *place, unsigned flags,
		   unsigned mode, struct file **ret)
{
	struct file *f = malloc(sizeof(*f));

	if (!f)
		return -ENOMEM;
	file_init(f, &memfs_file_ops, place, flags, mode);
	*ret = f;
	return 0;
}

int memfs_create_unlinked_file(struct mount *m, const char *name, unsigned flags, struct file **ret)
{
	const struct cred *cred = cred_current();
	uint32_t mode = flags & MEMFS_FILE_NOEXEC ? 0666 : 0777;
	struct memfs_new how = {.mode = S_IFREG | mode, .cred = cred};
	struct memfs_fs *fs = memfs_of(m->fs);
	struct memfs_inode *inode;
	struct memfs_dentry *d;
	struct memfs_data *data;
	struct vfs_path place;
	int err;

	assert(cred);
	err = memfs_inode_create(fs, &how, &inode);
	if (err)
		return err;
	err = memfs_dentry_create(fs, fs->root, name, MIN(strlen(name), (size_t)VFS_NAME_MAX),
				  inode, &d);
	if (err) {
		memfs_inode_unref(inode);
		return err;
	}
	atomic_store_explicit(&inode->nlink, 0, memory_order_relaxed);
	atomic_fetch_or_explicit(&d->d.flags, DENTRY_DEAD, memory_order_release);
	err = memfs_data_get(memfs_reg_of(inode), &data);
	if (err)
		goto out;
	if (flags & MEMFS_FILE_SEALABLE)
		atomic_store_explicit(&data->seals, 0, memory_order_relaxed);
	if (flags & MEMFS_FILE_NOEXEC)
		atomic_store_explicit(&data->seals, F_SEAL_EXEC, memory_order_relaxed);
	place = (struct vfs_path){.mount = m, .dentry = &d->d};
	err = memfs_open_reg(d, &place, O_RDWR | LARGEFILE, FILE_SEEKABLE, ret);
out:
	dentry_unref(&d->d);
	return err;
}
