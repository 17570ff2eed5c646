/*
 * mem/chunk_map.h - which chunks of a fixed range are free: a bitmap and a summary of it.
 *
 * Address-ordered by construction, coalescing is free, and giving chunks back cannot fail. A
 * search skips 64 full words a step, so its cost is that of the fragments, not of the range.
 * Locks: the owner's.
 */
#ifndef MOAT_MEM_CHUNK_MAP_H
#define MOAT_MEM_CHUNK_MAP_H

#include "base/compiler.h"

#define CHUNK_NONE UINT32_MAX

struct chunk_map {
	uint64_t *busy; /* one bit a chunk, set: taken; sparse */
	uint64_t *full; /* one bit a word of `busy`, set: the word is all ones */
	uint32_t count; /* immutable: chunks, a multiple of 4096 */
	uint32_t taken; /* chunks with their bit set */
	uint32_t lowest; /* no free chunk below it */
};

must_check int chunk_map_init(struct chunk_map *map, uint32_t count);
void chunk_map_fini(struct chunk_map *map);
/*
 * Takes `len` contiguous chunks: at `near` if they are free, else the lowest that begin at a
 * multiple of `align` (a power of two). Return: the first, or CHUNK_NONE.
 */
must_check uint32_t chunk_map_take(struct chunk_map *map, uint32_t len, uint32_t align,
				   uint32_t near);
/* Gives [first, first + len) back. */
void chunk_map_give(struct chunk_map *map, uint32_t first, uint32_t len);

#endif
