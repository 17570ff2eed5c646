/*
 * vfs/write_access.c - counts of writers and of those who deny them, by inode.
 *
 * The VFS has no inodes: an entry is found by (filesystem, inode key) in a hash of chains, each with its lock. It lives while a
 * struct file refers to it, so that an mm which is forked or ends needs no memory and no search.
 *
 * An open with O_TRUNC asks vfs_may_truncate() before it cuts and counts itself after: an execve between the two runs a file that is then cut.
 */
#include "vfs/write_access.h"

#include <stdlib.h>

#include "base/hash.h"

#define WRITE_ACCESS_BUCKETS 256u

struct write_access {
	LIST_ENTRY(write_access) link;
	struct filesystem *fs; /* identity: the files that refer to us pin it */
	uint64_t key;
	uint32_t files; /* refer to this */
	uint32_t writers, deniers;
};

struct bucket {
	_Alignas(64) struct mutex lock;
	LIST_HEAD(, write_access) list;
};

static struct bucket buckets[WRITE_ACCESS_BUCKETS];

__attribute__((constructor)) static void write_access_init(void)
{
	for (unsigned i = 0; i < WRITE_ACCESS_BUCKETS; i++) {
		mutex_init(&buckets[i].lock, LOCK_LEAF, "write_access");
		LIST_INIT(&buckets[i].list);
	}
}

static struct bucket *bucket_of(const struct filesystem *fs, uint64_t key)
{
	return &buckets[hash_u64((uintptr_t)fs ^ key) % WRITE_ACCESS_BUCKETS];
}

static struct write_access *find_locked(struct bucket *b, const struct filesystem *fs, uint64_t key)
{
	struct write_access *w;

	LIST_FOREACH (w, &b->list, link)
		if (w->fs == fs && w->key == key)
			break;
	return w;
}

static bool is_regular(struct dentry *d)
{
	return d && S_ISREG(d->fs->ops->dentry_type(d));
}

/* f's entry, which it refers to from now on, with its bucket locked. NULL: no memory, nothing locked. */
static struct write_access *get_locked(struct file *f, struct bucket **ret_bucket)
{
	struct filesystem *fs = f->path.dentry->fs;
	struct write_access *w, *fresh = NULL;
	uint64_t key;

	w = atomic_load_explicit(&f->write_access, memory_order_acquire);
	key = w ? w->key : fs->ops->inode_key(f->path.dentry);
	if (!w) {
		fresh = malloc(sizeof(*fresh));
		if (!fresh)
			return NULL;
	}
	*ret_bucket = bucket_of(fs, key);
	mutex_lock(&(*ret_bucket)->lock);
	w = atomic_load_explicit(&f->write_access, memory_order_relaxed);
	if (!w) {
		w = find_locked(*ret_bucket, fs, key);
		if (!w) {
			w = fresh;
			fresh = NULL;
			*w = (struct write_access){.fs = fs, .key = key};
			LIST_INSERT_HEAD(&(*ret_bucket)->list, w, link);
		}
		w->files++;
		atomic_store_explicit(&f->write_access, w, memory_order_release);
	}
	free(fresh);
	return w;
}

static int count_writer(struct file *f)
{
	struct write_access *w;
	struct bucket *b;
	int err;

	w = get_locked(f, &b);
	if (!w)
		return -ENOMEM;
	err = w->deniers ? -ETXTBSY : 0;
	if (!err)
		w->writers++;
	mutex_unlock(&b->lock);
	if (!err)
		f->mode |= FILE_COUNTED; /* nobody else has f yet */
	return err;
}

/* Has the inode writers (or deniers) now? */
static bool is_counted(struct dentry *d, bool writers)
{
	uint64_t key = d->fs->ops->inode_key(d);
	struct bucket *b = bucket_of(d->fs, key);
	struct write_access *w;
	bool ret;

	mutex_lock(&b->lock);
	w = find_locked(b, d->fs, key);
	ret = w && (writers ? w->writers : w->deniers);
	mutex_unlock(&b->lock);
	return ret;
}

int vfs_write_access_open(struct file *f, bool exec)
{
	struct dentry *d = f->path.dentry;

	if ((f->mode & FILE_PATH_ONLY) || !((f->mode & FILE_WRITE) || exec) || !is_regular(d))
		return 0;
	if (f->mode & FILE_WRITE)
		return count_writer(f);
	return is_counted(d, true) ? -ETXTBSY : 0;
}

int vfs_may_truncate(struct dentry *d)
{
	return is_regular(d) && is_counted(d, false) ? -ETXTBSY : 0;
}

/* The entry that f refers to, with its bucket locked. NULL: none, nothing locked. */
static struct write_access *own_locked(struct file *f, struct bucket **ret_bucket)
{
	struct write_access *w = atomic_load_explicit(&f->write_access, memory_order_acquire);

	if (!w)
		return NULL;
	*ret_bucket = bucket_of(w->fs, w->key);
	mutex_lock(&(*ret_bucket)->lock);
	return w;
}

void vfs_write_access_gone(struct file *f)
{
	struct bucket *b;
	struct write_access *w = own_locked(f, &b);

	if (!w)
		return;
	if (f->mode & FILE_COUNTED)
		w->writers--;
	if (--w->files)
		w = NULL;
	else
		LIST_REMOVE(w, link);
	mutex_unlock(&b->lock);
	free(w);
}

/* `though_written`: who counts already counts once more. */
static int deny(struct file *f, bool though_written)
{
	struct write_access *w;
	struct bucket *b;
	int err;

	if (!f->path.dentry)
		return 0;
	w = get_locked(f, &b);
	if (!w)
		return -ENOMEM;
	err = w->writers && !though_written ? -ETXTBSY : 0;
	if (!err)
		w->deniers++;
	mutex_unlock(&b->lock);
	return err;
}

int vfs_deny_write(struct file *f)
{
	return deny(f, false);
}

bool vfs_deny_write_again(struct file *f)
{
	return !deny(f, true);
}

void vfs_allow_write(struct file *f)
{
	struct bucket *b;
	struct write_access *w = own_locked(f, &b);

	if (!w)
		return;
	assert(w->deniers);
	w->deniers--;
	mutex_unlock(&b->lock);
}
