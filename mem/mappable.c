/* mem/mappable.c - the reverse map of one file; see mappable.h. */
#include "mem/mappable.h"

void mappable_init(struct mappable *m, const struct mappable_ops *ops)
{
	m->ops = ops;
	rwlock_init(&m->data_lock, LOCK_FILE_DATA, "file data");
	LIST_INIT(&m->mappings);
	atomic_init(&m->writable_mappings, 0);
}

void mappable_fini(struct mappable *m)
{
	/* A mapping holds a reference on the object, so none can be left. */
	assert(LIST_EMPTY(&m->mappings));
	(void)m;
}

/* One more shared writable mapping, unless a seal denies it. */
static int writable_get(struct mappable *m)
{
	int32_t old = atomic_load_explicit(&m->writable_mappings, memory_order_relaxed);

	do {
		if (old < 0)
			return -EPERM;
	} while (!atomic_compare_exchange_weak_explicit(
		&m->writable_mappings, &old, old + 1, memory_order_acq_rel, memory_order_relaxed));
	return 0;
}

static void tell_mapped(struct mappable *m, int delta)
{
	if (m->ops->mapped)
		m->ops->mapped(m, delta);
}

int mappable_add(struct mappable *m, struct mapping *map)
{
	int err = map->writable_shared ? writable_get(m) : 0;

	if (err)
		return err;
	rwlock_write_lock(&m->data_lock);
	LIST_INSERT_HEAD(&m->mappings, map, link);
	rwlock_write_unlock(&m->data_lock);
	tell_mapped(m, 1);
	return 0;
}

void mappable_remove(struct mappable *m, struct mapping *map)
{
	rwlock_write_lock(&m->data_lock);
	LIST_REMOVE(map, link);
	rwlock_write_unlock(&m->data_lock);
	if (map->writable_shared)
		atomic_fetch_sub_explicit(&m->writable_mappings, 1, memory_order_release);
	tell_mapped(m, -1);
}

void mappable_add_after(struct mappable *m, struct mapping *parent, struct mapping *child)
{
	rwlock_write_lock(&m->data_lock);
	LIST_INSERT_AFTER(parent, child, link);
	/* The parent's count keeps seals away, so there is nothing to deny. */
	if (child->writable_shared)
		atomic_fetch_add_explicit(&m->writable_mappings, 1, memory_order_relaxed);
	rwlock_write_unlock(&m->data_lock);
	tell_mapped(m, 1);
}

void mappable_split(struct mappable *m, struct mapping *map, struct mapping *upper, uint64_t size)
{
	assert(size < map->size);
	rwlock_write_lock(&m->data_lock);
	*upper = *map;
	upper->addr += size;
	upper->size -= size;
	upper->off += size;
	map->size = size;
	LIST_INSERT_AFTER(map, upper, link);
	if (upper->writable_shared)
		atomic_fetch_add_explicit(&m->writable_mappings, 1, memory_order_relaxed);
	rwlock_write_unlock(&m->data_lock);
	tell_mapped(m, 1);
}

void mappable_join(struct mappable *m, struct mapping *map, struct mapping *upper)
{
	assert(map->addr + map->size == upper->addr && map->off + map->size == upper->off);
	rwlock_write_lock(&m->data_lock);
	map->size += upper->size;
	LIST_REMOVE(upper, link);
	rwlock_write_unlock(&m->data_lock);
	if (upper->writable_shared)
		atomic_fetch_sub_explicit(&m->writable_mappings, 1, memory_order_release);
	tell_mapped(m, -1);
}

void mappable_resize(struct mappable *m, struct mapping *map, uint64_t addr, uint64_t size,
		     uint64_t off)
{
	rwlock_write_lock(&m->data_lock);
	map->addr = addr;
	map->size = size;
	map->off = off;
	rwlock_write_unlock(&m->data_lock);
}

void mappable_invalidate(struct mappable *m, uint64_t off, uint64_t size, bool private_too)
{
	uint64_t end = size > UINT64_MAX - off ? UINT64_MAX : off + size;
	struct mapping *map;

	LIST_FOREACH (map, &m->mappings, link) {
		uint64_t from = MAX(off, map->off), to = MIN(end, map->off + map->size);

		if (from < to)
			map->space->ops->invalidate(map->space, map->addr + (from - map->off),
						    to - from, private_too);
	}
}

bool mappable_is_mapped(struct mappable *m)
{
	bool mapped;

	rwlock_read_lock(&m->data_lock);
	mapped = !LIST_EMPTY(&m->mappings);
	rwlock_read_unlock(&m->data_lock);
	return mapped;
}
