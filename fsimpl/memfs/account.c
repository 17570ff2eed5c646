/*
 * fsimpl/memfs/account.c - what a filesystem's limits are about: inodes and pages; and inode numbers.
 *
 * Creating and removing files must not make threads share a cache line, and a limit must be met exactly. So `taken` counts what is in use and what
 * lies in the shards as spare: a thread takes from its own shard's spare and refills it by SPARE_REFILL, and gives back there until it has
 * SPARE_MAX. Near the limit nothing becomes spare, and before the answer is ENOSPC every shard's spare is called in.
 */
#include "fsimpl/memfs/internal.h"

#define SPARE_REFILL 32u
#define SPARE_MAX (2 * SPARE_REFILL)
/* So close to the limit that all shards' spares together matter. */
#define SPARE_MARGIN (SHARDS * SPARE_MAX)
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

/* True if there was any. */
static bool call_in_spares(struct memfs_fs *fs, enum memfs_limited which)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < SHARDS; i++)
		sum += atomic_exchange_explicit(&fs->shards[i].spare[which], 0,
						memory_order_relaxed);
	atomic_fetch_sub_explicit(&fs->limits[which].taken, sum, memory_order_relaxed);
	return sum != 0;
}

int memfs_charge(struct memfs_fs *fs, enum memfs_limited which, uint64_t n)
{
	struct memfs_limit *l = &fs->limits[which];
	_Atomic uint64_t *spare = spare_mine(fs, which);
	uint64_t have = atomic_load_explicit(spare, memory_order_relaxed);

	while (have >= n)
		if (atomic_compare_exchange_weak_explicit(
			    spare, &have, have - n, memory_order_relaxed, memory_order_relaxed))
			return 0;
	if (!is_near(atomic_load_explicit(&l->max, memory_order_relaxed),
		     atomic_load_explicit(&l->taken, memory_order_relaxed), n) &&
	    take(l, n + SPARE_REFILL)) {
		atomic_fetch_add_explicit(spare, SPARE_REFILL, memory_order_relaxed);
		return 0;
	}
	while (!take(l, n))
		if (!call_in_spares(fs, which))
			return -ENOSPC;
	return 0;
}

void memfs_uncharge(struct memfs_fs *fs, enum memfs_limited which, uint64_t n)
{
	struct memfs_limit *l = &fs->limits[which];
	_Atomic uint64_t *spare = spare_mine(fs, which);
	uint64_t have;

	if (n > SPARE_REFILL || is_near(atomic_load_explicit(&l->max, memory_order_relaxed),
					atomic_load_explicit(&l->taken, memory_order_relaxed), 0)) {
		atomic_fetch_sub_explicit(&l->taken, n, memory_order_relaxed);
		return;
	}
	have = atomic_fetch_add_explicit(spare, n, memory_order_relaxed) + n;
	while (have > SPARE_MAX)
		if (atomic_compare_exchange_weak_explicit(spare, &have, SPARE_REFILL,
							  memory_order_relaxed,
							  memory_order_relaxed)) {
			atomic_fetch_sub_explicit(&l->taken, have - SPARE_REFILL,
						  memory_order_relaxed);
			return;
		}
}

uint64_t memfs_used(struct memfs_fs *fs, enum memfs_limited which)
{
	uint64_t taken = atomic_load_explicit(&fs->limits[which].taken, memory_order_relaxed);
	uint64_t spare = 0;

	for (unsigned i = 0; i < SHARDS; i++)
		spare += atomic_load_explicit(&fs->shards[i].spare[which], memory_order_relaxed);
	return taken > spare ? taken - spare : 0;
}

uint64_t memfs_limit(const struct memfs_fs *fs, enum memfs_limited which)
{
	return atomic_load_explicit(&fs->limits[which].max, memory_order_relaxed);
}

int memfs_limit_change(struct memfs_fs *fs, enum memfs_limited which, uint64_t max)
{
	uint64_t old = memfs_limit(fs, which);

	if ((!old && max) || (max && max < memfs_used(fs, which)))
		return -EINVAL;
	atomic_store_explicit(&fs->limits[which].max, max, memory_order_relaxed);
	/* What is spare under the old limit must not be taken under the new one. */
	(void)call_in_spares(fs, which);
	return 0;
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
	/* The root, which comes first, is 1. */
	atomic_init(&fs->shards[shard_mine()].next_ino, 1);
	atomic_init(&fs->next_batch, INO_BATCH);
}
