/*
 * sentry/mm/shm.c - MAP_SHARED|MAP_ANONYMOUS: memory with no file, shared by whoever inherits the mapping.
 *
 * A table of chunks, filled on first touch without a lock: who loses the race for an entry gives its chunk
 * back. The object lives as long as a VMA (or a futex key) refers to it; its size never changes.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "sentry/mm/internal.h"

struct shm {
	struct mappable mappable;
	struct ref ref;
	uint64_t size; /* immutable: bytes, page multiple */
	_Atomic uint64_t *chunks; /* memory-file offsets; 0: untouched. Set once */
	_Atomic uint64_t low, high; /* entries that may be set: [low, high) */
};

static REF_TYPE(shm_type, "shared anonymous memory");

static struct shm *shm_of(struct mappable *m)
{
	return container_of(m, struct shm, mappable);
}

/* A huge mapping of which little is touched must not cost a walk over its table in the end. */
static void shm_widen(struct shm *shm, uint64_t first, uint64_t end)
{
	uint64_t low = atomic_load_explicit(&shm->low, memory_order_relaxed);
	uint64_t high = atomic_load_explicit(&shm->high, memory_order_relaxed);

	while (first < low && !atomic_compare_exchange_weak(&shm->low, &low, first))
		;
	while (end > high && !atomic_compare_exchange_weak(&shm->high, &high, end))
		;
}

/* Fills the untouched entries of [first, end) that follow each other from `first`. */
static int shm_fill(struct shm *shm, uint64_t first, uint64_t end)
{
	uint64_t off, i, near = 0;
	int err;

	for (i = first + 1; i < end; i++)
		if (atomic_load_explicit(&shm->chunks[i], memory_order_relaxed))
			break;
	end = i;
	if (first)
		near = atomic_load_explicit(&shm->chunks[first - 1], memory_order_relaxed);
	err = memfile_alloc(mem_private(), (end - first) << MEM_CHUNK_SHIFT, 0,
			    near ? near + MEM_CHUNK_SIZE : 0, &off);
	if (err)
		return err;
	shm_widen(shm, first, end);
	for (i = first; i < end; i++, off += MEM_CHUNK_SIZE) {
		uint64_t none = 0;

		if (!atomic_compare_exchange_strong_explicit(&shm->chunks[i], &none, off,
							     memory_order_acq_rel,
							     memory_order_acquire))
			memfile_range_unref(mem_private(), off, MEM_CHUNK_SIZE);
	}
	return 0;
}

static int shm_translate(struct mappable *m, uint64_t off, uint64_t hint_start, uint64_t hint_end,
			 unsigned access, struct mem_trans *ret)
{
	struct shm *shm = shm_of(m);
	uint64_t at = off >> MEM_CHUNK_SHIFT, lo = at, hi = at + 1, base, first, end;

	(void)access;
	if (off >= shm->size)
		return -EFAULT;
	hint_end = MIN(hint_end, shm->size);
	first = hint_start >> MEM_CHUNK_SHIFT;
	end = round_up_u64(hint_end, MEM_CHUNK_SIZE) >> MEM_CHUNK_SHIFT;
	if (!atomic_load_explicit(&shm->chunks[at], memory_order_acquire)) {
		uint64_t from = at;
		int err;

		while (from > first &&
		       !atomic_load_explicit(&shm->chunks[from - 1], memory_order_relaxed))
			from--;
		err = shm_fill(shm, from, end);
		if (err)
			return err;
	}
	base = atomic_load_explicit(&shm->chunks[at], memory_order_acquire);
	/* Another thread took an entry between: the one asked for is filled by now, or next time. */
	if (!base)
		return shm_translate(m, off, off, off + MOAT_PAGE_SIZE, access, ret);
	while (hi < end && atomic_load_explicit(&shm->chunks[hi], memory_order_acquire) ==
				   base + ((hi - at) << MEM_CHUNK_SHIFT))
		hi++;
	while (lo > first && atomic_load_explicit(&shm->chunks[lo - 1], memory_order_acquire) ==
				     base - ((at - lo + 1) << MEM_CHUNK_SHIFT))
		lo--;
	ret->start = MAX(lo << MEM_CHUNK_SHIFT, hint_start);
	ret->size = MIN(hi << MEM_CHUNK_SHIFT, hint_end) - ret->start;
	ret->mf = mem_private();
	ret->mf_off = base - (at << MEM_CHUNK_SHIFT) + ret->start;
	ret->access = MEM_READ | MEM_WRITE | MEM_EXEC;
	return memfile_range_ref(ret->mf, ret->mf_off, ret->size);
}

static void shm_resident(struct mappable *m, uint64_t off, uint64_t size, unsigned char *vec)
{
	struct shm *shm = shm_of(m);

	for (uint64_t end = off + size; off < end; off += MOAT_PAGE_SIZE, vec++) {
		uint64_t chunk = 0;

		*vec = 0;
		if (off < shm->size)
			chunk = atomic_load_explicit(&shm->chunks[off >> MEM_CHUNK_SHIFT],
						     memory_order_acquire);
		/* The host has the pages that were touched. */
		if (chunk && mincore(memfile_ptr(mem_private(), chunk + off % MEM_CHUNK_SIZE),
				     MOAT_PAGE_SIZE, vec) < 0)
			*vec = 1;
		*vec &= 1;
	}
}

static void shm_ref(struct mappable *m)
{
	ref_get(&shm_of(m)->ref);
}

static void shm_unref(struct mappable *m)
{
	struct shm *shm = shm_of(m);
	uint64_t i;

	if (!ref_put(&shm->ref))
		return;
	mappable_fini(m);
	for (i = shm->low; i < shm->high; i++) {
		uint64_t off = atomic_load_explicit(&shm->chunks[i], memory_order_relaxed);

		if (off)
			memfile_range_unref(mem_private(), off, MEM_CHUNK_SIZE);
	}
	free(shm->chunks);
	ref_fini(&shm->ref, &shm_type);
	free(shm);
}

static const struct mappable_ops shm_ops = {
	.translate = shm_translate,
	.resident = shm_resident,
	.ref = shm_ref,
	.unref = shm_unref,
};

int mm_shared_memory_create(uint64_t size, struct mappable **ret)
{
	struct shm *shm = calloc(1, sizeof(*shm));

	if (!shm)
		return -ENOMEM;
	shm->chunks =
		calloc(round_up_u64(size, MEM_CHUNK_SIZE) >> MEM_CHUNK_SHIFT, sizeof(*shm->chunks));
	if (!shm->chunks) {
		free(shm);
		return -ENOMEM;
	}
	ref_init(&shm->ref, &shm_type);
	shm->size = size;
	atomic_init(&shm->low, UINT64_MAX);
	atomic_init(&shm->high, 0);
	mappable_init(&shm->mappable, &shm_ops);
	*ret = &shm->mappable;
	return 0;
}

uint64_t mm_shared_memory_resident(struct mappable *m)
{
	struct shm *shm = shm_of(m);
	uint64_t chunks = 0;

	for (uint64_t i = atomic_load(&shm->low); i < atomic_load(&shm->high); i++)
		if (atomic_load_explicit(&shm->chunks[i], memory_order_relaxed))
			chunks++;
	return MIN(chunks << MEM_CHUNK_SHIFT, shm->size);
}
