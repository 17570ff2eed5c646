#include "base/rcu.h"
#include "vfs/ref_cache.h"

_Static_assert(REF_CACHE_LINES == 4, "ref_cache_line() gives two bits");

/* In this slot: done, or it is another object's. */
static bool give_here(_Atomic uint64_t *slot, void *object, bool or_empty)
{
	uint64_t w = atomic_load_explicit(slot, memory_order_relaxed), new;
	struct ref_cache_kept old;

	do {
		old = ref_cache_word(w);
		if (old.object == object && old.n) {
			if (old.n + 1 == 1u << REF_CACHE_COUNT_BITS)
				return false;
			new = w + 1;
		} else if (!old.n && (or_empty || old.object == object)) {
			new = (uint64_t)(uintptr_t)object << REF_CACHE_COUNT_BITS | 1;
		} else {
			return false;
		}
	} while (!atomic_compare_exchange_weak_explicit(slot, &w, new, memory_order_seq_cst,
							memory_order_relaxed));
	return true;
}

bool ref_cache_give(struct ref_cache *c, void *object)
{
	_Atomic uint64_t *slots = c->lines[shard_mine()][ref_cache_line(object)].slots;

	for (unsigned i = 0; i < REF_CACHE_SLOTS; i++)
		if (give_here(&slots[i], object, false))
			return true;
	for (unsigned i = 0; i < REF_CACHE_SLOTS; i++)
		if (give_here(&slots[i], object, true))
			return true;
	return false;
}

static uint32_t withdraw_here(_Atomic uint64_t *slot, const void *object)
{
	uint64_t w = atomic_load_explicit(slot, memory_order_seq_cst);

	while (ref_cache_word(w).object == object)
		if (atomic_compare_exchange_weak_explicit(slot, &w, 0, memory_order_seq_cst,
							  memory_order_seq_cst))
			return ref_cache_word(w).n;
	return 0;
}

uint32_t ref_cache_withdraw(struct ref_cache *c, const void *object)
{
	unsigned line = ref_cache_line(object);
	uint32_t n = 0;

	for (unsigned i = 0; i < SHARDS; i++)
		for (unsigned s = 0; s < REF_CACHE_SLOTS; s++)
			n += withdraw_here(&c->lines[i][line].slots[s], object);
	return n;
}

void ref_cache_withdraw_all(struct ref_cache *c, bool (*is_of)(const void *object, const void *of),
			    const void *of, void (*drop)(struct ref_cache_kept kept))
{
	_Atomic uint64_t *slots = c->lines[0][0].slots;

	for (unsigned i = 0; i < SHARDS * REF_CACHE_LINES * REF_CACHE_SLOTS; i++) {
		struct ref_cache_kept kept;

		/* What has a reference here is there, and its memory until the section ends. */
		rcu_read_begin();
		kept = ref_cache_word(atomic_load_explicit(&slots[i], memory_order_seq_cst));
		if (kept.n && is_of(kept.object, of)) {
			kept.n = withdraw_here(&slots[i], kept.object);
			if (kept.n)
				drop(kept);
		}
		rcu_read_end();
	}
}
