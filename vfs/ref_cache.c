#include "vfs/ref_cache.h"

_Static_assert(REF_CACHE_SLOTS == 8, "ref_cache_index() gives three bits");

bool ref_cache_give(struct ref_cache *c, void *object, struct ref_cache_kept *ret_old)
{
	_Atomic uint64_t *slot = &c->shards[shard_mine()].slots[ref_cache_index(object)];
	uint64_t w = atomic_load_explicit(slot, memory_order_relaxed), new;
	struct ref_cache_kept old;

	do {
		old = ref_cache_word(w);
		if (old.object == object) {
			if (old.n + 1 == 1u << REF_CACHE_COUNT_BITS)
				return false;
			new = w + 1;
			old.n = 0;
		} else {
			new = (uint64_t)(uintptr_t)object << REF_CACHE_COUNT_BITS | 1;
		}
	} while (!atomic_compare_exchange_weak_explicit(slot, &w, new, memory_order_seq_cst,
							memory_order_relaxed));
	*ret_old = old;
	return true;
}

uint32_t ref_cache_withdraw(struct ref_cache *c, const void *object)
{
	unsigned index = ref_cache_index(object);
	uint32_t n = 0;

	for (unsigned i = 0; i < SHARDS; i++) {
		_Atomic uint64_t *slot = &c->shards[i].slots[index];
		uint64_t w = atomic_load_explicit(slot, memory_order_seq_cst);

		while (ref_cache_word(w).object == object)
			if (atomic_compare_exchange_weak_explicit(slot, &w, 0, memory_order_seq_cst,
								  memory_order_seq_cst)) {
				n += ref_cache_word(w).n;
				break;
			}
	}
	return n;
}

void ref_cache_empty(struct ref_cache *c, void (*drop)(struct ref_cache_kept kept))
{
	for (unsigned i = 0; i < SHARDS; i++)
		for (unsigned s = 0; s < REF_CACHE_SLOTS; s++) {
			_Atomic uint64_t *slot = &c->shards[i].slots[s];
			struct ref_cache_kept old;

			if (!atomic_load_explicit(slot, memory_order_relaxed))
				continue;
			old = ref_cache_word(
				atomic_exchange_explicit(slot, 0, memory_order_acquire));
			if (old.n)
				drop(old);
		}
}
