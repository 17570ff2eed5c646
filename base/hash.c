#include <stdlib.h>
#include <sys/random.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/hash.h"

static uint64_t seed; /* immutable after start */

/* Early: other constructors derive theirs. */
__attribute__((constructor(101))) static void hash_choose_seed(void)
{
	/* At start, before any filter: eight bytes never come short. */
	if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
		abort();
}

uint64_t hash_seed(void)
{
	return seed;
}

uint64_t hash_bytes(const void *data, size_t size)
{
	return XXH3_64bits_withSeed(data, size, seed);
}

uint64_t hash_u64(uint64_t v)
{
	return XXH3_64bits_withSeed(&v, sizeof(v), seed);
}
