#include <stdlib.h>

#include "base/log.h"
#include "base/ref.h"

static struct ref_type *_Atomic ref_types; /* push-only list */

static void ref_register(struct ref_type *type)
{
	struct ref_type *head;

	if (atomic_exchange_explicit(&type->registered, true, memory_order_acq_rel))
		return;
	head = atomic_load_explicit(&ref_types, memory_order_relaxed);
	do
		atomic_store_explicit(&type->next, head, memory_order_relaxed);
	while (!atomic_compare_exchange_weak_explicit(&ref_types, &head, type, memory_order_release,
						      memory_order_relaxed));
}

/* The calling thread's part; a debug build has one, to see a count that would go below zero. */
static inline _Atomic int64_t *live_part(struct ref_type *type)
{
#ifdef MOAT_DEBUG
	return &type->live[0].n;
#else
	return &type->live[shard_mine()].n;
#endif
}

void ref_init(struct ref *ref, struct ref_type *type)
{
	if (unlikely(!atomic_load_explicit(&type->registered, memory_order_acquire)))
		ref_register(type);
	atomic_fetch_add_explicit(live_part(type), 1, memory_order_relaxed);
	atomic_store_explicit(&ref->count, 1, memory_order_relaxed);
}

void ref_fini(struct ref *ref, struct ref_type *type)
{
#ifdef MOAT_DEBUG
	int64_t live = atomic_fetch_sub_explicit(live_part(type), 1, memory_order_relaxed);

	if (unlikely(live <= 0)) {
		log_error("reference bug: more %s freed than were made", type->name);
		ref_bug(ref, "type count underflow");
	}
	if (ref_read(ref) != 0)
		ref_bug(ref, "freed while referenced");
	/* A later ref_get() or ref_put() of the freed object sees a count below zero. */
	atomic_store_explicit(&ref->count, INT32_MIN / 2, memory_order_relaxed);
#else
	(void)ref;
	atomic_fetch_sub_explicit(live_part(type), 1, memory_order_relaxed);
#endif
}

noreturn_fn void ref_bug(const struct ref *ref, const char *what)
{
	log_fatal("reference bug: %s of %p (count %d)", what, (const void *)ref, ref_read(ref));
}

void ref_report(void (*emit)(void *arg, const char *name, int64_t live), void *arg)
{
	struct ref_type *type;

	for (type = atomic_load_explicit(&ref_types, memory_order_acquire); type;
	     type = atomic_load_explicit(&type->next, memory_order_relaxed))
		emit(arg, type->name, ref_live(type));
}
