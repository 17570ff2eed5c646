/*
 * base/ref.h - embedded reference counts.
 *
 * An object starts with one reference, owned by its creator. ref_put() returns true to the one
 * caller who dropped the last; that caller frees (through RCU when lock-free readers exist).
 * ref_tryget() is for lock-free readers: it fails on an object whose count has reached zero.
 * A debug build (MOAT_DEBUG) aborts on underflow and on resurrection, and counts live objects by
 * type: ref_report() writes the table (moat debug, and at exit).
 */
#ifndef MOAT_BASE_REF_H
#define MOAT_BASE_REF_H

#include "base/shard.h"

#define REF_NAME_MAX 32

/* One per object type; counted in every build because `moat debug` shows it. */
struct ref_type {
	/* immutable. No pointer: a relocation would make each process, also one that has no such object, write to its page of these. */
	char name[REF_NAME_MAX];
	struct ref_type *_Atomic next; /* registry link; set once by the first ref_init */
	_Atomic bool registered;
	struct shard_count live[SHARDS]; /* together, the objects that exist now */
};

/* Together, so that pages that relocations write to are few. */
#define REF_TYPE(var, type_name) \
	struct ref_type var __attribute__((section("ref_types"))) = {.name = type_name}

struct ref {
	_Atomic int32_t count; /* atomic */
};

/* Starts at one; counts the object under `type` (never NULL). */
void ref_init(struct ref *ref, struct ref_type *type);
/* The object of `type` is about to be freed: takes it off the count. Call once, after ref_put() said true. */
void ref_fini(struct ref *ref, struct ref_type *type);
noreturn_fn void ref_bug(const struct ref *ref, const char *what);

static inline void ref_get(struct ref *ref)
{
	int32_t old = atomic_fetch_add_explicit(&ref->count, 1, memory_order_relaxed);

	if (unlikely(old <= 0))
		ref_bug(ref, "resurrection");
}

/* False when the object is already dying. */
static inline must_check bool ref_tryget(struct ref *ref)
{
	int32_t old = atomic_load_explicit(&ref->count, memory_order_relaxed);

	while (old > 0)
		if (atomic_compare_exchange_weak_explicit(
			    &ref->count, &old, old + 1, memory_order_acquire, memory_order_relaxed))
			return true;
	return false;
}

/* True when this was the last reference. */
static inline must_check bool ref_put(struct ref *ref)
{
	int32_t old = atomic_fetch_sub_explicit(&ref->count, 1, memory_order_acq_rel);

	if (unlikely(old <= 0))
		ref_bug(ref, "underflow");
	return old == 1;
}

/* Drops n of them at once, n > 0: true when the last was among them. */
static inline must_check bool ref_put_many(struct ref *ref, int32_t n)
{
	int32_t old = atomic_fetch_sub_explicit(&ref->count, n, memory_order_acq_rel);

	if (unlikely(old < n))
		ref_bug(ref, "underflow");
	return old == n;
}

static inline int32_t ref_read(const struct ref *ref)
{
	return atomic_load_explicit(&ref->count, memory_order_relaxed);
}

/* How many objects of `type` exist now. */
static inline int64_t ref_live(const struct ref_type *type)
{
	return shard_sum(type->live);
}

/* Calls `emit` for every type ever used: its name and how many objects are live. */
void ref_report(void (*emit)(void *arg, const char *name, int64_t live), void *arg);

#endif
