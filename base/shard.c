#include "base/shard.h"

static _Atomic unsigned next_number;
_Thread_local unsigned shard_number;

unsigned shard_choose(void)
{
	unsigned n = atomic_fetch_add_explicit(&next_number, 1, memory_order_relaxed) % SHARDS;

	shard_number = n + 1;
	return n;
}

int64_t shard_sum(const struct shard_count counts[SHARDS])
{
	int64_t sum = 0;

	for (unsigned i = 0; i < SHARDS; i++)
		sum += atomic_load_explicit(&counts[i].n, memory_order_relaxed);
	return sum;
}
