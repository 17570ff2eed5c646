/*
 * fsimpl/memfs/map.c - a radix tree from chunk numbers to slots, as high as the largest number needs.
 *
 * A file of one chunk (64 KiB) has no node at all.
 */
#include <stdlib.h>

#include "fsimpl/memfs/data.h"

#define MAP_BITS 6
#define MAP_WAYS 64u

/* Chunk numbers below this fit a tree of that height. */
static uint64_t map_span(unsigned height)
{
	return height * MAP_BITS >= 64 ? UINT64_MAX : 1ull << (height * MAP_BITS);
}

static unsigned way_at(uint64_t index, unsigned height)
{
	return (index >> ((height - 1) * MAP_BITS)) & (MAP_WAYS - 1);
}

static uint64_t *node_of(uint64_t slot)
{
	return (uint64_t *)(uintptr_t)slot;
}

static int map_grow(struct memfs_map *map, uint64_t index)
{
	while (index >= map_span(map->height)) {
		uint64_t *up = calloc(MAP_WAYS, sizeof(*up));

		if (!up)
			return -ENOMEM;
		up[0] = map->height ? (uint64_t)(uintptr_t)map->root : map->direct;
		map->direct = 0;
		map->root = up;
		map->height++;
	}
	return 0;
}

uint64_t *memfs_map_slot(struct memfs_map *map, uint64_t index)
{
	uint64_t *node;

	if (map_grow(map, index))
		return NULL;
	if (!map->height)
		return &map->direct;
	node = map->root;
	for (unsigned h = map->height; h > 1; h--) {
		uint64_t *slot = &node[way_at(index, h)];

		if (!*slot) {
			uint64_t *child = calloc(MAP_WAYS, sizeof(*child));

			if (!child)
				return NULL;
			*slot = (uint64_t)(uintptr_t)child;
		}
		node = node_of(*slot);
	}
	return &node[way_at(index, 1)];
}

uint64_t memfs_map_get(const struct memfs_map *map, uint64_t index)
{
	const uint64_t *node = map->root;

	if (index >= map_span(map->height))
		return 0;
	if (!map->height)
		return map->direct;
	for (unsigned h = map->height; h > 1; h--) {
		uint64_t slot = node[way_at(index, h)];

		if (!slot)
			return 0;
		node = node_of(slot);
	}
	return node[way_at(index, 1)];
}

static uint64_t node_next(const uint64_t *node, unsigned height, uint64_t index)
{
	uint64_t span = map_span(height - 1), rest = index & (span - 1);

	for (unsigned i = way_at(index, height); i < MAP_WAYS; i++, rest = 0) {
		uint64_t below = 0;

		if (!node[i])
			continue;
		if (height > 1) {
			below = node_next(node_of(node[i]), height - 1, rest);
			if (below == UINT64_MAX)
				continue;
		}
		return i * span + below;
	}
	return UINT64_MAX;
}

uint64_t memfs_map_next(const struct memfs_map *map, uint64_t index)
{
	if (index >= map_span(map->height))
		return UINT64_MAX;
	if (!map->height)
		return map->direct ? 0 : UINT64_MAX;
	return node_next(map->root, map->height, index);
}

static void node_free(uint64_t *node, unsigned height)
{
	for (unsigned i = 0; height > 1 && i < MAP_WAYS; i++)
		if (node[i])
			node_free(node_of(node[i]), height - 1);
	free(node);
}

void memfs_map_fini(struct memfs_map *map)
{
	if (map->height)
		node_free(map->root, map->height);
	*map = (struct memfs_map){0};
}
