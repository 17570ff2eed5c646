/* wire/version_table.c - keys of the version table; see version_table.h. */
#include "wire/version_table.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

_Static_assert(offsetof(struct version_table, watchers) == 1024, "watchers");
_Static_assert(offsetof(struct version_table, slots) == VERSION_HEADER_BYTES, "slots");
_Static_assert(sizeof(struct version_table) == VERSION_TABLE_BYTES, "table");

/* 0 is nobody's key. */
static uint64_t not_zero(uint64_t key)
{
	return key ? key : 1;
}

uint64_t version_handle_key(int type, const void *handle, size_t size)
{
	return not_zero(XXH3_64bits_withSeed(handle, size, (uint64_t)(uint32_t)type));
}

uint64_t version_name_key(uint64_t dir, const char *name, size_t len)
{
	return not_zero(XXH3_64bits_withSeed(name, len, dir));
}

void version_bump_all(struct version_table *t)
{
	for (unsigned i = 0; i < VERSION_SLOTS; i++)
		version_bump(t, i);
}
