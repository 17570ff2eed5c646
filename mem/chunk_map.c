/* mem/chunk_map.c - see chunk_map.h. */
#include "mem/chunk_map.h"

#include <sys/mman.h>

static void *sparse_array(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

int chunk_map_init(struct chunk_map *map, uint32_t count)
{
	assert(count && count % 4096 == 0);
	map->busy = sparse_array(count / 8);
	if (!map->busy)
		return -ENOMEM;
	map->full = sparse_array(count / 512);
	if (!map->full) {
		munmap(map->busy, count / 8);
		return -ENOMEM;
	}
	map->count = count;
	map->taken = 0;
	map->lowest = 0;
	return 0;
}

void chunk_map_fini(struct chunk_map *map)
{
	munmap(map->busy, map->count / 8);
	munmap(map->full, map->count / 512);
}

static bool chunk_is_busy(const struct chunk_map *map, uint32_t i)
{
	return map->busy[i / 64] >> (i % 64) & 1;
}

/* The first free chunk at or after `from`; `count` if none. */
static uint32_t next_free(const struct chunk_map *map, uint32_t from)
{
	uint32_t word = from / 64;
	uint64_t bits;

	if (from >= map->count)
		return map->count;
	bits = ~map->busy[word] & (UINT64_MAX << (from % 64));
	while (!bits) {
		word++;
		while (word < map->count / 64) {
			uint64_t open = ~map->full[word / 64] & (UINT64_MAX << (word % 64));

			if (open) {
				word = word / 64 * 64 + (uint32_t)__builtin_ctzll(open);
				break;
			}
			word = word / 64 * 64 + 64;
		}
		if (word >= map->count / 64)
			return map->count;
		bits = ~map->busy[word];
	}
	return word * 64 + (uint32_t)__builtin_ctzll(bits);
}

/* The first busy chunk in [from, limit); `limit` if none. */
static uint32_t next_busy(const struct chunk_map *map, uint32_t from, uint32_t limit)
{
	while (from < limit) {
		uint64_t bits = map->busy[from / 64] & (UINT64_MAX << (from % 64));

		if (bits)
			return MIN(from / 64 * 64 + (uint32_t)__builtin_ctzll(bits), limit);
		from = from / 64 * 64 + 64;
	}
	return limit;
}

static void set_range(struct chunk_map *map, uint32_t first, uint32_t len, bool busy)
{
	uint32_t end = first + len;

	while (first < end) {
		uint32_t word = first / 64;
		uint32_t n = MIN(64 - first % 64, end - first);
		uint64_t mask = (n == 64 ? UINT64_MAX : (1ull << n) - 1) << (first % 64);

		if (busy) {
			assert(!(map->busy[word] & mask));
			map->busy[word] |= mask;
			if (map->busy[word] == UINT64_MAX)
				map->full[word / 64] |= 1ull << (word % 64);
		} else {
			assert((map->busy[word] & mask) == mask);
			map->busy[word] &= ~mask;
			map->full[word / 64] &= ~(1ull << (word % 64));
		}
		first += n;
	}
}

uint32_t chunk_map_take(struct chunk_map *map, uint32_t len, uint32_t align, uint32_t near)
{
	uint32_t pos;

	if (!len || len > map->count)
		return CHUNK_NONE;
	if (near < map->count && len <= map->count - near && !chunk_is_busy(map, near) &&
	    next_busy(map, near, near + len) == near + len) {
		pos = near;
		goto take;
	}
	map->lowest = next_free(map, map->lowest);
	pos = map->lowest;
	for (;;) {
		uint32_t clash;

		if (pos % align)
			pos = next_free(map, (pos + align - 1) / align * align);
		if (pos >= map->count || len > map->count - pos)
			return CHUNK_NONE;
		if (pos % align)
			continue;
		clash = next_busy(map, pos, pos + len);
		if (clash == pos + len)
			break;
		pos = next_free(map, clash);
	}
take:
	set_range(map, pos, len, true);
	map->taken += len;
	if (pos == map->lowest)
		map->lowest = pos + len;
	return pos;
}

void chunk_map_give(struct chunk_map *map, uint32_t first, uint32_t len)
{
	set_range(map, first, len, false);
	map->taken -= len;
	if (first < map->lowest)
		map->lowest = first;
}
