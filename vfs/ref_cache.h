/*
 * vfs/ref_cache.h - references that threads keep for the next one who wants them, so that an open and a close write nothing shared.
 *
 * Everybody who opens something below a mount takes a reference on the mount, and a file that several threads open has one count for all of them.
 * Here who lets go of a reference leaves it, still counted, in a slot of the thread's shard, and the next taker of the same shard finds it there.
 * A word of a slot is the object's address and how many references on it are kept; taking and giving are a compare-and-exchange
 * on a line that other threads seldom touch. An object's count is thus at least what is in use, and never less than one while a slot has some.
 *
 * So the last reference must not lie here. An object that may be kept has an owner's reference (a namespace's on a mount, the tree's on a
 * dentry), and a mark that says that it is still owned:
 *
 *	giver					owner who ends
 *	1 put into a slot (seq_cst)		1 clear the mark (seq_cst)
 *	2 read the mark (seq_cst)		2 ref_cache_withdraw()
 *	3 cleared? withdraw again		3 drop the owner's reference
 *
 * Either the giver's 1 comes before the owner's 2, which finds it, or its 2 comes after the owner's 1. The giver's 1 and 2 are in one RCU read
 * section, and the object is freed by RCU: after 1 nothing else keeps it.
 *
 * What is kept stays until it is taken or withdrawn. Nobody drops it to make room: it could be the last reference by then, dropped where an end is
 * not expected. Who finds no room keeps to the count.
 */
#ifndef MOAT_VFS_REF_CACHE_H
#define MOAT_VFS_REF_CACHE_H

#include "base/shard.h"

#define REF_CACHE_LINES 4u /* a shard's; an object may be in one of them */
#define REF_CACHE_SLOTS 8u /* of a line */
#define REF_CACHE_COUNT_BITS 16

struct ref_cache {
	struct {
		_Alignas(SHARD_LINE) _Atomic uint64_t slots[REF_CACHE_SLOTS];
	} lines[SHARDS][REF_CACHE_LINES];
};

struct ref_cache_kept {
	void *object;
	uint32_t n; /* references */
};

static inline unsigned ref_cache_line(const void *object)
{
	return (unsigned)((uintptr_t)object * 0x9e3779b97f4a7c15ull >> 62);
}

static inline struct ref_cache_kept ref_cache_word(uint64_t w)
{
	return (struct ref_cache_kept){(void *)(uintptr_t)(w >> REF_CACHE_COUNT_BITS),
				       (uint32_t)(w & ((1u << REF_CACHE_COUNT_BITS) - 1))};
}

/* One of object's kept references, the caller's from now on. False: there is none here. */
static inline must_check bool ref_cache_take(struct ref_cache *c, const void *object)
{
	_Atomic uint64_t *slots = c->lines[shard_mine()][ref_cache_line(object)].slots;

	for (unsigned i = 0; i < REF_CACHE_SLOTS; i++) {
		uint64_t w = atomic_load_explicit(&slots[i], memory_order_relaxed);

		while (ref_cache_word(w).object == object && ref_cache_word(w).n)
			if (atomic_compare_exchange_weak_explicit(&slots[i], &w, w - 1,
								  memory_order_acquire,
								  memory_order_relaxed))
				return true;
	}
	return false;
}

/*
 * Keeps the caller's reference on object. False: there is no room, the reference stays the caller's. Else the caller, still in the read section in
 * which it called this, reads the mark (above).
 */
must_check bool ref_cache_give(struct ref_cache *c, void *object);
/* All that are kept of object: how many, the caller's from now on. */
must_check uint32_t ref_cache_withdraw(struct ref_cache *c, const void *object);
/*
 * The same of all objects that are `of` something, which the caller has ended for all but who keeps: drop is called with each, in a read section, and never with the
 * last reference.
 */
void ref_cache_withdraw_all(struct ref_cache *c, bool (*is_of)(const void *object, const void *of),
			    const void *of, void (*drop)(struct ref_cache_kept kept));

#endif
