/*
 * platform/kvm/as_internal.h - entries and flushes, for as.c and patching.c. All under the address space's lock.
 */
#ifndef MOAT_PLATFORM_KVM_AS_INTERNAL_H
#define MOAT_PLATFORM_KVM_AS_INTERNAL_H

#include "platform/kvm/kvm.h"

#define LEAF_SPAN (1ul << 21)
#define LEAF_INDEX(va) ((va) >> MOAT_PAGE_SHIFT & 511)
#define FLUSH_EXTENTS_MAX 64u

/* What rule (a) still has to drop, batched by contiguous host address. */
struct kvm_flush {
	struct address_space *as;
	struct {
		uint8_t *start, *end;
	} extents[FLUSH_EXTENTS_MAX];
	unsigned count;
	uint64_t pages, cost;
	bool rebuild; /* a fresh tree instead: madvise refused, or it is cheaper */
};

static inline uint64_t pte_load(const uint64_t *entry)
{
	return __atomic_load_n(entry, __ATOMIC_RELAXED);
}

static inline void pte_store(uint64_t *entry, uint64_t val)
{
	__atomic_store_n(entry, val, __ATOMIC_RELEASE);
}

void kvm_flush_init(struct kvm_flush *f, struct address_space *as);
/* The entry that led to `gpa` has been overwritten. */
void kvm_flush_page(struct kvm_flush *f, uint64_t gpa);
/* Nothing that was taken away is usable when this returns. */
void kvm_flush_end_locked(struct address_space *as, struct kvm_flush *f);
/* The entry for va becomes val. */
void kvm_install(uint64_t *entry, uint64_t va, uint64_t val, struct kvm_flush *f);

#endif
