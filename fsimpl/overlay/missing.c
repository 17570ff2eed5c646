/*
 * fsimpl/overlay/missing.c - names that no layer has, as far as is known.
 *
 * A table of single places: a newer name takes an older one's. An entry counts as long as its directory's count of changes is what it
 * was when the layers were asked, so creations and renames need not look for it. Directories are named by numbers that are never
 * given again.
 */
#include <stdlib.h>
#include <string.h>

#include "fsimpl/overlay/internal.h"

struct overlay_missing {
	struct rcu_cb rcu;
	uint64_t dir;
	uint32_t hash, changes;
	uint16_t len;
	char name[];
};

static struct overlay_missing *_Atomic *slot_of(struct overlay_fs *fs, uint64_t dir, uint32_t hash)
{
	return &fs->missing[(hash ^ (uint32_t)(dir * 0x9e3779b1u)) % OVERLAY_MISSING_MAX];
}

static bool is_it(const struct overlay_missing *m, uint64_t dir, uint32_t hash, const char *name,
		  size_t len, uint32_t changes)
{
	return m && m->dir == dir && m->hash == hash && m->len == len && m->changes == changes &&
	       !memcmp(m->name, name, len);
}

bool overlay_missing_find(struct overlay_fs *fs, const struct overlay_dentry *dir, uint32_t hash,
			  const char *name, size_t len, uint32_t changes)
{
	return is_it(rcu_load(*slot_of(fs, dir->id, hash)), dir->id, hash, name, len, changes);
}

static void free_cb(struct rcu_cb *cb)
{
	free(container_of(cb, struct overlay_missing, rcu));
}

void overlay_missing_enter(struct overlay_fs *fs, const struct overlay_dentry *dir,
			   const char *name, size_t len, uint32_t changes)
{
	uint32_t hash = vfs_name_hash(name, len);
	struct overlay_missing *m, *old;

	if (!fs->base.exclusive)
		return;
	m = malloc(sizeof(*m) + len);
	if (!m)
		return;
	m->dir = dir->id;
	m->hash = hash;
	m->changes = changes;
	m->len = (uint16_t)len;
	memcpy(m->name, name, len);
	old = atomic_exchange_explicit(slot_of(fs, dir->id, hash), m, memory_order_acq_rel);
	if (old)
		rcu_call(&old->rcu, free_cb);
}

void overlay_missing_fini(struct overlay_fs *fs)
{
	for (unsigned i = 0; i < OVERLAY_MISSING_MAX; i++) {
		struct overlay_missing *m =
			atomic_exchange_explicit(&fs->missing[i], NULL, memory_order_acq_rel);

		if (m)
			rcu_call(&m->rcu, free_cb);
	}
}
