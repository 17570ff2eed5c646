/*
 * base/shard.h - which of SHARDS parts of a counter is the calling thread's, for counters that many threads change and few read.
 *
 * Threads take numbers in turn for life: up to SHARDS of them share nothing, more share a part, so parts are atomics.
 */
#ifndef MOAT_BASE_SHARD_H
#define MOAT_BASE_SHARD_H

#include "base/compiler.h"

#define SHARDS 32u
#define SHARD_LINE 64 /* bytes from one part to the next */

extern _Thread_local unsigned shard_number; /* plus one; 0: none yet */
unsigned shard_choose(void);

/* Below SHARDS. */
static inline unsigned shard_mine(void)
{
	return likely(shard_number) ? shard_number - 1 : shard_choose();
}

/* One part of a sum. */
struct shard_count {
	_Alignas(SHARD_LINE) _Atomic int64_t n;
};

static inline void shard_add(struct shard_count counts[SHARDS], int64_t n)
{
	atomic_fetch_add_explicit(&counts[shard_mine()].n, n, memory_order_relaxed);
}
/* While others add: a value that was true of each part at some moment. */
int64_t shard_sum(const struct shard_count counts[SHARDS]);

#endif
