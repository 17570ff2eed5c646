/*
 * fsimpl/memfs/account.c - what a filesystem's limits are about: inodes and pages; and inode numbers.
 *
 * Creating and removing files must not make threads share a cache line, and a limit must be met exactly. So `taken` counts what is in use and what
 * lies in the shards as spare: a thread takes from its own shard's spare and refills it by SPARE_REFILL, and gives back there until it has
 * SPARE_MAX. Near the limit nothing becomes spare, and before the answer is ENOSPC every shard's spare is called in.
 *
 * Why that answer is true: what moves between `taken` and a shard moves under the limit's lock, and so does the call-in, which leaves each word
 * as SPARE_FROZEN until the answer is found. With all of them frozen nothing is spare or on its way, and `taken` is what is in use.
 * Only calling in waits for the lock: who wants to refill or spill and finds it held does without.
 */
#include "fsimpl/memfs/internal.h"

#define SPARE_REFILL 32u
#define SPARE_MAX (2 * SPARE_REFILL)
/* So close to the limit that all shards' spares together matter. */
#define SPARE_MARGIN (SHARDS * SPARE_MAX)
/* A shard's word while its spare is called in. */
#define SPARE_FROZEN (1ull << 63)
#define INO_BATCH 64u /* a power of two */

static struct shard_count total_pages[SHARDS];

static _Atomic uint64_t *spare_mine(struct memfs_fs *fs, enum memfs_limited which)
{
	return &fs->shards[shard_mine()].spare[which];
}

static bool is_near(uint64_t max, uint64_t taken, uint64_t n)
{
	return max && (taken + n > max || max - taken - n < SPARE_MARGIN);
}

/* taken += n, if the limit allows it. */
static bool take(struct memfs_limit *l, uint64_t n)
{
	uint64_t max = atomic_load_explicit(&l->max, memory_order_relaxed);
	uint64_t taken = atomic_load_explicit(&l->taken, memory_order_relaxed);

	do
		if (max && (n > max || taken > max - n))
			return false;
	while (!atomic_compare_exchange_weak_explicit(&l->taken, &taken, taken + n,
						      memory_order_relaxed, memory_order_relaxed));
	return true;
}

/* Call-in, with the limit's lock: from here to thaw_spares() `taken` is what is in use. */
static void freeze_spares(struct memfs_fs *fs, enum memfs_limited which)
{
	struct memfs_limit *l = &fs->limits[which];
	uint64_t sum = 0;

	mutex_assert_held(&l->lock);
	for (unsigned i = 0; i < SHARDS; i++)
		sum += atomic_exchange_explicit(&fs->shards[i].spare[which], SPARE_FROZEN,
						memory_order_relaxed);
	atomic_fetch_sub_explicit(&l->taken, sum, memory_order_relaxed);
}

static void thaw_spares(struct memfs_fs *fs, enum memfs_limited which)
{
	for (unsigned i = 0; i < SHARDS; i++)
		atomic_store_explicit(&fs->shards[i].spare[which], 0, memory_order_relaxed);
}

/* n, and as much again for `spare` as makes the next calls cheap. False: not now. */
static bool take_and_refill(struct memfs_limit *l, _Atomic uint64_t *spare, uint64_t n)
{
	bool ok;

	if (!mutex_trylock(&l->lock))
		return false;
	ok = take(l, n + SPARE_REFILL);
	if (ok)
		atomic_fetch_add_explicit(spare, SPARE_REFILL, memory_order_relaxed);
	mutex_unlock(&l->lock);
	return ok;
}

/* What is over SPARE_REFILL in `spare` goes back with n. False: not now. */
static bool give_and_spill(struct memfs_limit *l, _Atomic uint64_t *spare, uint64_t n)
{
	uint64_t have;

	if (!mutex_trylock(&l->lock))
		return false;
	have = atomic_load_explicit(spare, memory_order_relaxed);
	while (have > SPARE_REFILL)
		if (atomic_compare_exchange_weak_explicit(spare, &have, SPARE_REFILL,
							  memory_order_relaxed,
							  memory_order_relaxed)) {
			n += have - SPARE_REFILL;
			break;
		}
	atomic_fetch_sub_explicit(&l->taken, n, memory_order_relaxed);
	mutex_unlock(&l->lock);
	return true;
}

/* There was no room: is there with what is spare? */
static noinline_fn int charge_at_limit(struct memfs_fs *fs, enum memfs_limited which, uint64_t n)
{
	struct memfs_limit *l = &fs->limits[which];
	bool ok;

	mutex_lock(&l->lock);
	ok = take(l, n);
	if (!ok) {
		freeze_spares(fs, which);
		ok = take(l, n);
		thaw_spares(fs, which);
	}
	mutex_unlock(&l->lock);
	return ok ? 0 : -ENOSPC;
}

int memfs_charge(struct memfs_fs *fs, enum memfs_limited which, uint64_t n)
{
	struct memfs_limit *l = &fs->limits[which];
	_Atomic uint64_t *spare = spare_mine(fs, which);
	uint64_t have = atomic_load_explicit(spare, memory_order_relaxed);

	while (have >= n && have != SPARE_FROZEN)
		if (atomic_compare_exchange_weak_explicit(
			    spare, &have, have - n, memory_order_relaxed, memory_order_relaxed))
			return 0;
	if (!is_near(atomic_load_explicit(&l->max, memory_order_relaxed),
		     atomic_load_explicit(&l->taken, memory_order_relaxed), n) &&
	    take_and_refill(l, spare, n))
		return 0;
	return take(l, n) ? 0 : charge_at_limit(fs, which, n);
}

void memfs_uncharge(struct memfs_fs *fs, enum memfs_limited which, uint64_t n)
{
	struct memfs_limit *l = &fs->limits[which];
	_Atomic uint64_t *spare = spare_mine(fs, which);
	uint64_t have = atomic_load_explicit(spare, memory_order_relaxed);

	if (n <= SPARE_REFILL &&
	    !is_near(atomic_load_explicit(&l->max, memory_order_relaxed),
		     atomic_load_explicit(&l->taken, memory_order_relaxed), 0)) {
		/* SPARE_FROZEN is too much, too. */
		while (have + n <= SPARE_MAX)
			if (atomic_compare_exchange_weak_explicit(spare, &have, have + n,
								  memory_order_relaxed,
								  memory_order_relaxed))
				return;
		if (give_and_spill(l, spare, n))
			return;
	}
	atomic_fetch_sub_explicit(&l->taken, n, memory_order_relaxed);
}

uint64_t memfs_used(struct memfs_fs *fs, enum memfs_limited which)
{
	struct memfs_limit *l = &fs->limits[which];
	uint64_t taken, spare = 0;

	/* So no word is SPARE_FROZEN. */
	mutex_lock(&l->lock);
	taken = atomic_load_explicit(&l->taken, memory_order_relaxed);
	for (unsigned i = 0; i < SHARDS; i++)
		spare += atomic_load_explicit(&fs->shards[i].spare[which], memory_order_relaxed);
	mutex_unlock(&l->lock);
	return taken > spare ? taken - spare : 0;
}

uint64_t memfs_limit(const struct memfs_fs *fs, enum memfs_limited which)
{
	return atomic_load_explicit(&fs->limits[which].max, memory_order_relaxed);
}

int memfs_limit_change(struct memfs_fs *fs, enum memfs_limited which, uint64_t max)
{
	struct memfs_limit *l = &fs->limits[which];
	int err = 0;

	if (!memfs_limit(fs, which) && max)
		return -EINVAL;
	mutex_lock(&l->lock);
	/* What is spare under the old limit must not be taken under the new one. */
	freeze_spares(fs, which);
	if (max && max < atomic_load_explicit(&l->taken, memory_order_relaxed))
		err = -EINVAL;
	else
		atomic_store_explicit(&l->max, max, memory_order_relaxed);
	thaw_spares(fs, which);
	mutex_unlock(&l->lock);
	return err;
}

/* ---- pages, which all filesystems together count too ---- */

int memfs_charge_pages(struct memfs_fs *fs, uint64_t pages)
{
	int err = memfs_charge(fs, MEMFS_PAGES, pages);

	if (!err)
		shard_add(total_pages, (int64_t)pages);
	return err;
}

void memfs_uncharge_pages(struct memfs_fs *fs, uint64_t pages)
{
	memfs_uncharge(fs, MEMFS_PAGES, pages);
	shard_add(total_pages, -(int64_t)pages);
}

uint64_t memfs_total_pages(void)
{
	int64_t sum = shard_sum(total_pages);

	return sum > 0 ? (uint64_t)sum : 0;
}

/* ---- inode numbers ---- */

/* A shard's next number; at the end of a batch it is a multiple of INO_BATCH. */
uint64_t memfs_next_ino(struct memfs_fs *fs)
{
	_Atomic uint64_t *next = &fs->shards[shard_mine()].next_ino;
	uint64_t ino = atomic_load_explicit(next, memory_order_relaxed), batch;

	while (ino % INO_BATCH)
		if (atomic_compare_exchange_weak_explicit(next, &ino, ino + 1, memory_order_relaxed,
							  memory_order_relaxed))
			return ino;
	batch = atomic_fetch_add_explicit(&fs->next_batch, INO_BATCH, memory_order_relaxed);
	/* The rest of the batch is lost to a thread of the same shard that was faster. */
	(void)atomic_compare_exchange_strong_explicit(next, &ino, batch + 1, memory_order_relaxed,
						      memory_order_relaxed);
	return batch;
}

void memfs_account_init(struct memfs_fs *fs, uint64_t pages_max, uint64_t inodes_max)
{
	atomic_init(&fs->limits[MEMFS_PAGES].max, pages_max);
	atomic_init(&fs->limits[MEMFS_INODES].max, inodes_max);
	for (int i = 0; i < MEMFS_LIMITED; i++)
		mutex_init(&fs->limits[i].lock, LOCK_LEAF, "memfs limit");
	/* The root, which comes first, is 1. */
	atomic_init(&fs->shards[shard_mine()].next_ino, 1);
	atomic_init(&fs->next_batch, INO_BATCH);
}
