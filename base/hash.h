/* base/hash.h - seeded 64-bit hashes (xxHash XXH3). The seed is random per process. */
#ifndef MOAT_BASE_HASH_H
#define MOAT_BASE_HASH_H

#include "base/compiler.h"

uint64_t hash_bytes(const void *data, size_t size);
uint64_t hash_u64(uint64_t v);
uint64_t hash_seed(void);

#endif
