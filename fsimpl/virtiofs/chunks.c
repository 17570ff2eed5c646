/* fsimpl/virtiofs/chunks.c - see chunks.h. */
#include "fsimpl/virtiofs/chunks.h"

#include <stdlib.h>

#define NODE_SLOTS (1u << CHUNKS_NODE_BITS)

/* A leaf is NODE_SLOTS chunks, a node above NODE_SLOTS pointers. */
static unsigned shift_of(unsigned level)
{
	return level * CHUNKS_NODE_BITS;
}

static unsigned slot_of(uint64_t index, unsigned level)
{
	return (unsigned)(index >> shift_of(level)) & (NODE_SLOTS - 1);
}

/* Indices below the root. */
static uint64_t capacity(const struct virtiofs_chunks *t)
{
	return t->root ? 1ull << shift_of(t->levels + 1) : 0;
}

struct virtiofs_chunk *chunks_find(const struct virtiofs_chunks *t, uint64_t index)
{
	void *node = index < capacity(t) ? t->root : NULL;
	struct virtiofs_chunk *c;

	for (unsigned level = t->levels; node && level; level--)
		node = ((void **)node)[slot_of(index, level)];
	if (!node)
		return NULL;
	c = (struct virtiofs_chunk *)node + slot_of(index, 0);
	return c->off ? c : NULL;
}

static void *new_node(unsigned level)
{
	return calloc(NODE_SLOTS, level ? sizeof(void *) : sizeof(struct virtiofs_chunk));
}

struct virtiofs_chunk *chunks_make(struct virtiofs_chunks *t, uint64_t index)
{
	void **at;

	if (!t->root) {
		t->root = new_node(0);
		t->levels = 0;
	}
	while (t->root && index >= capacity(t)) {
		void **up = new_node(t->levels + 1);

		if (!up)
			return NULL;
		up[0] = t->root;
		t->root = up;
		t->levels++;
	}
	at = &t->root;
	for (unsigned level = t->levels; *at && level; level--) {
		at = (void **)*at + slot_of(index, level);
		if (!*at)
			*at = new_node(level - 1);
	}
	return *at ? (struct virtiofs_chunk *)*at + slot_of(index, 0) : NULL;
}

struct virtiofs_chunk *chunks_next(const struct virtiofs_chunks *t, uint64_t *inout_index)
{
	uint64_t index = *inout_index, end = capacity(t);

	while (index < end) {
		void *node = t->root;
		unsigned level = t->levels;
		struct virtiofs_chunk *c;

		while (node && level) {
			node = ((void **)node)[slot_of(index, level)];
			if (node)
				level--;
		}
		if (!node) {
			/* Nothing below this slot: on to the next one of its level. */
			index = ((index >> shift_of(level)) + 1) << shift_of(level);
			continue;
		}
		c = node;
		for (unsigned i = slot_of(index, 0); i < NODE_SLOTS; i++, index++)
			if (c[i].off) {
				*inout_index = index;
				return &c[i];
			}
	}
	return NULL;
}

static void free_node(void *node, unsigned level)
{
	for (unsigned i = 0; level && i < NODE_SLOTS; i++)
		if (((void **)node)[i])
			free_node(((void **)node)[i], level - 1);
	free(node);
}

void chunks_free(struct virtiofs_chunks *t)
{
	if (t->root)
		free_node(t->root, t->levels);
	*t = (struct virtiofs_chunks){0};
}
