/* vfs/handle.c - the table of file handles. */
#include "vfs/handle.h"

#include <stdlib.h>

#include "base/hash.h"
#include "base/lock.h"

#define HANDLE_BUCKETS 1024u

struct handle {
	LIST_ENTRY(handle) by_inode, by_id, by_dentry; /* guarded by handle_lock */
	struct dentry *d; /* weak: vfs_handle_forget() */
	uint64_t key;
	uint64_t id; /* what the handle says: nothing of the sentry's memory */
};

static struct mutex handle_lock = MUTEX_INIT(LOCK_LEAF, "file handles");
/* All guarded by handle_lock. */
static LIST_HEAD(, handle) table[HANDLE_BUCKETS], ids[HANDLE_BUCKETS], dentries[HANDLE_BUCKETS];
static uint64_t last_id;

static unsigned bucket_of(const struct filesystem *fs, uint64_t key)
{
	return (unsigned)(hash_u64(key ^ (uintptr_t)fs) % HANDLE_BUCKETS);
}

static unsigned dentry_bucket(const struct dentry *d)
{
	return (unsigned)(hash_u64((uintptr_t)d) % HANDLE_BUCKETS);
}

int vfs_handle_encode(struct dentry *d, uint32_t ret[VFS_HANDLE_WORDS])
{
	struct handle *h, *fresh;
	uint64_t key;
	unsigned b;

	if (!(d->fs->type->flags & FS_HANDLES))
		return -EOPNOTSUPP;
	key = d->fs->ops->inode_key(d);
	b = bucket_of(d->fs, key);
	fresh = malloc(sizeof(*fresh));
	if (!fresh)
		return -ENOMEM;
	mutex_lock(&handle_lock);
	/* Any name of the inode has its handle already. */
	LIST_FOREACH (h, &table[b], by_inode)
		if (h->d->fs == d->fs && h->key == key)
			break;
	if (!h) {
		h = fresh;
		fresh = NULL;
		*h = (struct handle){.d = d, .key = key, .id = ++last_id};
		LIST_INSERT_HEAD(&table[b], h, by_inode);
		LIST_INSERT_HEAD(&ids[h->id % HANDLE_BUCKETS], h, by_id);
		LIST_INSERT_HEAD(&dentries[dentry_bucket(d)], h, by_dentry);
		atomic_fetch_or_explicit(&d->flags, DENTRY_HANDLE, memory_order_release);
	}
	ret[0] = 0;
	ret[1] = (uint32_t)h->id;
	ret[2] = (uint32_t)(h->id >> 32);
	mutex_unlock(&handle_lock);
	free(fresh);
	return 0;
}

int vfs_handle_decode(struct filesystem *fs, const uint32_t words[VFS_HANDLE_WORDS],
		      struct dentry **ret)
{
	uint64_t id = words[1] | (uint64_t)words[2] << 32;
	struct handle *h;
	int err = -ESTALE;

	mutex_lock(&handle_lock);
	LIST_FOREACH (h, &ids[id % HANDLE_BUCKETS], by_id)
		if (h->d->fs == fs && h->id == id && !words[0])
			break;
	if (h && !(atomic_load_explicit(&h->d->flags, memory_order_acquire) & DENTRY_DEAD) &&
	    ref_tryget(&h->d->ref)) {
		*ret = h->d;
		err = 0;
	}
	mutex_unlock(&handle_lock);
	return err;
}

void vfs_handle_forget(struct dentry *d)
{
	struct handle *h;

	mutex_lock(&handle_lock);
	LIST_FOREACH (h, &dentries[dentry_bucket(d)], by_dentry)
		if (h->d == d)
			break;
	if (h) {
		LIST_REMOVE(h, by_inode);
		LIST_REMOVE(h, by_id);
		LIST_REMOVE(h, by_dentry);
		free(h);
	}
	mutex_unlock(&handle_lock);
}
