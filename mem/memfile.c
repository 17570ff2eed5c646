/*
 * mem/memfile.c - memory files; memfile.h is the manual.
 *
 * Organised: private.c is the one memfd of a sandbox, with a bitmap allocator (chunk_map.c), a flat
 * sparse array of 4-byte counts, and the queue of chunks that wait for a grace period. window.c maps host
 * files piecewise, in segments of up to 2 MiB, into one reserved range. This file is the common face.
 *
 * Performs: taking or dropping a reference on private memory is one atomic a chunk (64 KiB), no
 * lock. Allocation is one short critical section. A host range costs the window's lock and one tree
 * look-up a segment; callers that copy often keep the pointer as long as they hold the reference.
 * Freed chunks are punched out in batches on the RCU thread, never in the caller.
 *
 * Watch: mem_get_stats(); `private_free_pending` is what waits for its grace period.
 *
 * Cannot do: private memory is never swapped or compacted; a private chunk is all allocated or all
 * free (pages of it never touched cost nothing on the host, but count towards the limit).
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mem/internal.h"

REF_TYPE(memfile_type, "memfile");

static struct memfile private_file;

int mem_init(uint64_t limit)
{
	int err;

	if (mem_private_base)
		return -EALREADY;
	err = window_init();
	if (err)
		return err;
	ref_init(&private_file.ref, &memfile_type);
	private_file.kind = MEMFILE_PRIVATE;
	private_file.max_access = MEM_READ | MEM_WRITE | MEM_EXEC;
	return private_init(&private_file, limit);
}

void mem_set_limit(uint64_t limit, uint64_t total)
{
	private_set_limit(limit, total);
}

struct memfile *mem_private(void)
{
	return &private_file;
}

void mem_get_stats(struct mem_stats *ret_stats)
{
	memset(ret_stats, 0, sizeof(*ret_stats));
	private_stats(ret_stats);
	window_stats(ret_stats);
}

int memfile_create_host(int fd, unsigned access, struct memfile **ret_mf)
{
	struct memfile *mf = calloc(1, sizeof(*mf));

	if (!mf)
		return -ENOMEM;
	ref_init(&mf->ref, &memfile_type);
	mf->kind = MEMFILE_HOST;
	mf->fd = fd;
	mf->max_access = access;
	RB_INIT(&mf->segments);
	*ret_mf = mf;
	return 0;
}

int memfile_create_shared(uint64_t size, struct memfile **ret_mf)
{
	struct memfile *mf = calloc(1, sizeof(*mf));
	int err;

	if (!mf)
		return -ENOMEM;
	ref_init(&mf->ref, &memfile_type);
	/* To everybody else it is a host file that is mapped already. */
	mf->kind = MEMFILE_HOST;
	mf->max_access = MEM_READ | MEM_WRITE | MEM_EXEC;
	RB_INIT(&mf->segments);
	err = shared_create(size, mf);
	if (err) {
		ref_fini(&mf->ref, &memfile_type);
		free(mf);
		return err;
	}
	*ret_mf = mf;
	return 0;
}

void memfile_ref(struct memfile *mf)
{
	ref_get(&mf->ref);
}

static void memfile_free_rcu(struct rcu_cb *cb)
{
	struct memfile *mf = container_of(cb, struct memfile, rcu);

	if (mf->shared)
		shared_destroy(mf->shared);
	free(mf);
}

void memfile_unref(struct memfile *mf)
{
	if (!ref_put(&mf->ref))
		return;
	assert(mf->kind == MEMFILE_HOST);
	window_drop_file(mf);
	close(mf->fd);
	ref_fini(&mf->ref, &memfile_type);
	rcu_call(&mf->rcu, memfile_free_rcu);
}

enum memfile_kind memfile_kind(const struct memfile *mf)
{
	return mf->kind;
}

int memfile_fd(const struct memfile *mf)
{
	return mf->fd;
}

unsigned memfile_max_access(const struct memfile *mf)
{
	return mf->max_access;
}

int memfile_range_ref(struct memfile *mf, uint64_t off, uint64_t size)
{
	if (mf->shared) {
		shared_ref(mf->shared, off, size);
		return 0;
	}
	if (mf->kind == MEMFILE_HOST)
		return window_ref(mf, off, size);
	private_ref(off, size);
	return 0;
}

void memfile_range_unref(struct memfile *mf, uint64_t off, uint64_t size)
{
	if (mf->shared)
		shared_unref(mf->shared, off, size);
	else if (mf->kind == MEMFILE_HOST)
		window_unref(mf, off, size);
	else
		private_unref(off, size);
}

void *memfile_ptr(struct memfile *mf, uint64_t off)
{
	uint64_t len;

	if (mf->shared)
		return shared_ptr(mf->shared, off);
	if (mf->kind == MEMFILE_HOST)
		return window_ptr(mf, off, 1, &len);
	assert(off < MEMFILE_PRIVATE_MAX);
	return mem_private_base + off;
}

uint64_t memfile_ptr_len(struct memfile *mf, uint64_t off, uint64_t size)
{
	uint64_t len = 0;

	if (mf->shared)
		return MIN(size, shared_size(mf->shared) - off);
	if (mf->kind == MEMFILE_HOST)
		return window_ptr(mf, off, size, &len) ? len : 0;
	return MIN(size, MEMFILE_PRIVATE_MAX - off);
}
