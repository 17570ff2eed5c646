/*
 * vfs/mount_ref.c - who uses a mount, and who writes to it. Both are counted by thread, for every open and every creation counts.
 *
 * References: a mount of a namespace has one of the tree's, so those that threads let go of may be kept for the next taker (vfs/ref_cache.h); what asks
 * whether a mount is busy has them given back first.
 *
 * Writers: a write begins and ends in any thread, and each counts where it is. Who makes the mount read-only sets `frozen` and then adds up.
 */
#include "vfs/mount_internal.h"
#include "vfs/ref_cache.h"

static struct ref_cache mount_refs;

void mount_ref(struct mount *m)
{
	if (!ref_cache_take(&mount_refs, m))
		ref_get(&m->ref);
}

bool mount_tryref(struct mount *m)
{
	return ref_cache_take(&mount_refs, m) || ref_tryget(&m->ref);
}

static void mount_put_many(struct mount *m, uint32_t n)
{
	if (n && ref_put_many(&m->ref, (int32_t)n))
		mount_release(m->priv);
}

/* True: the reference is kept, or gone. */
static bool mount_keep(struct mount *m)
{
	uint32_t n = 0;
	bool kept;

	rcu_read_begin();
	kept = ref_cache_give(&mount_refs, m);
	if (kept && unlikely(!atomic_load_explicit(&m->owned, memory_order_seq_cst)))
		n = ref_cache_withdraw(&mount_refs, m);
	rcu_read_end();
	mount_put_many(m, n);
	return kept;
}

void mount_unref_keep_mark(struct mount *m)
{
	if (!m)
		return;
	if (atomic_load_explicit(&m->owned, memory_order_relaxed) && mount_keep(m))
		return;
	if (ref_put(&m->ref))
		mount_release(m->priv);
}

void mount_disown_locked(struct mount *m)
{
	uint32_t n;

	mutex_assert_held(&mount_lock);
	atomic_store_explicit(&m->owned, false, memory_order_seq_cst);
	n = ref_cache_withdraw(&mount_refs, m);
	if (n && ref_put_many(&m->ref, (int32_t)n))
		ref_bug(&m->ref, "an owned mount dropped");
}

void mount_own(struct mount *m)
{
	atomic_store_explicit(&m->owned, true, memory_order_release);
}

void mount_disown(struct mount *m)
{
	mutex_lock(&mount_lock);
	mount_disown_locked(m);
	mutex_unlock(&mount_lock);
}

int32_t mount_refs_locked(struct mount *m)
{
	int32_t n;

	mount_disown_locked(m);
	n = ref_read(&m->ref);
	if (atomic_load_explicit(&m->ns, memory_order_relaxed))
		atomic_store_explicit(&m->owned, true, memory_order_relaxed);
	return n;
}

void mount_unref(struct mount *m)
{
	/* Whoever lets go of it has used it: MNT_EXPIRE begins again. */
	if (m && unlikely(atomic_load_explicit(&m->expiring, memory_order_relaxed)))
		atomic_store_explicit(&m->expiring, false, memory_order_relaxed);
	mount_unref_keep_mark(m);
}

/* ---- writers ---- */

static bool mount_is_readonly(struct mount *m)
{
	return (atomic_load_explicit(&m->flags, memory_order_acquire) & MNT_RDONLY_F) ||
	       (atomic_load_explicit(&m->fs->sb_flags, memory_order_acquire) & FS_RDONLY);
}

int mount_begin_write(struct mount *m)
{
	unsigned shard = shard_mine() % MOUNT_WRITER_SHARDS;

	/* Pairs with mount_freeze(): either it sees this writer or this sees the mark. */
	for (;;) {
		atomic_fetch_add_explicit(&m->priv->writers[shard].begins, 1, memory_order_seq_cst);
		if (likely(!atomic_load_explicit(&m->frozen, memory_order_seq_cst)))
			break;
		mount_end_write(m);
		/* The freezer holds mount_lock for a moment. */
		mutex_lock(&mount_lock);
		mutex_unlock(&mount_lock);
	}
	if (mount_is_readonly(m)) {
		mount_end_write(m);
		return -EROFS;
	}
	return 0;
}

void mount_end_write(struct mount *m)
{
	unsigned shard = shard_mine() % MOUNT_WRITER_SHARDS;

	atomic_fetch_add_explicit(&m->priv->writers[shard].ends, 1, memory_order_release);
}

static bool mount_has_writers(struct mount *m)
{
	uint64_t ends = 0, begins = 0;

	/* A write that began and ended between the two loops must not hide one that goes on: ends first. */
	for (unsigned i = 0; i < MOUNT_WRITER_SHARDS; i++)
		ends += atomic_load_explicit(&m->priv->writers[i].ends, memory_order_acquire);
	for (unsigned i = 0; i < MOUNT_WRITER_SHARDS; i++)
		begins += atomic_load_explicit(&m->priv->writers[i].begins, memory_order_seq_cst);
	return begins != ends;
}

int mount_freeze(struct mount *m)
{
	atomic_store_explicit(&m->frozen, true, memory_order_seq_cst);
	if (!mount_has_writers(m))
		return 0;
	mount_thaw(m);
	return -EBUSY;
}

void mount_thaw(struct mount *m)
{
	atomic_store_explicit(&m->frozen, false, memory_order_release);
}
