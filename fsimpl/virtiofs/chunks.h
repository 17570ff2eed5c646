/*
 * fsimpl/virtiofs/chunks.h - which chunks of a file are in the page cache: a radix tree of nodes of 64, as high as the file is long.
 *
 * A file of up to 4 MiB has one node; a byte written at the end of 128 TiB costs six. No locks: the caller's (map.data_lock).
 */
#ifndef MOAT_FSIMPL_VIRTIOFS_CHUNKS_H
#define MOAT_FSIMPL_VIRTIOFS_CHUNKS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

#define CHUNKS_NODE_BITS 6
#define CHUNKS_INDEX_BITS 31 /* 128 TiB of 64 KiB */

/* One chunk of a file in the cache. */
struct virtiofs_chunk {
	uint64_t off; /* in the device's memory; 0: none */
	uint16_t valid, dirty; /* a bit a page */
	bool mapped; /* since it has this memory, perhaps not any more */
};

struct virtiofs_chunks {
	void *root; /* NULL: empty */
	unsigned levels; /* above the leaves */
};

/* The chunk, with memory; NULL. */
struct virtiofs_chunk *chunks_find(const struct virtiofs_chunks *t, uint64_t index);
/* The place of a chunk, perhaps without memory yet. NULL: no memory. Pre: index below 1 << CHUNKS_INDEX_BITS. */
struct virtiofs_chunk *chunks_make(struct virtiofs_chunks *t, uint64_t index);
/* The first chunk with memory from *inout_index on. NULL: none. */
struct virtiofs_chunk *chunks_next(const struct virtiofs_chunks *t, uint64_t *inout_index);
/* Frees the nodes. */
void chunks_free(struct virtiofs_chunks *t);

#endif
