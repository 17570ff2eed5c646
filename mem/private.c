/*
 * mem/private.c - the private memory file: a sparse memfd, mapped once and whole.
 *
 * A chunk is free (its bit in the map is clear), held (count > 0) or pending (bit set, count 0): freed, but a
 * reader in an RCU section may still look at it, or even write to it, so it is punched out and
 * becomes free only in the callback after a grace period. Pending runs are linked through sparse
 * arrays indexed by chunk, so freeing needs no memory.
 *
 * A fresh page costs 3 us here and a punched one 1 us, clearing one that is there 0.2 us. So a few freed chunks are
 * cleared instead of punched and kept warm, last in first out, for the next single chunk: what a
 * fork, a small program's heap or its stack takes. Unused for WARM_IDLE_NS, they are punched after all.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/lock.h"
#include "base/log.h"
#include "base/sleep.h"
#include "base/timer.h"
#include "mem/chunk_map.h"
#include "mem/guard.h"
#include "mem/internal.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

#define PRIVATE_CHUNKS ((uint32_t)(MEMFILE_PRIVATE_MAX >> MEM_CHUNK_SHIFT))
#define CHUNKS_2M ((uint32_t)((2ul << 20) >> MEM_CHUNK_SHIFT))

/* Chunks kept warm, and how long a run may be to be kept. */
#define WARM_MAX 128u
#define WARM_RUN_MAX 8u
#define WARM_IDLE_NS 500000000l

char *mem_private_base;

static struct {
	int fd;
	_Atomic uint32_t *refs; /* one a chunk, sparse; atomic */
	struct mutex lock; /* LOCK_MEMFILE: all below */
	struct chunk_map map;
	uint32_t *run_next; /* of a pending run's first chunk: the next run's first chunk + 1 */
	uint32_t *run_len;
	uint32_t waiting; /* runs in the grace period under way: first chunk + 1, 0 for none */
	uint32_t late; /* runs freed since it began */
	bool cb_active;
	uint64_t held, pending; /* chunks */
	uint64_t limit; /* chunks; 0 for none */
	struct rcu_cb rcu;
	uint32_t warm[WARM_MAX],
		warm_count; /* cleared chunks; their bits are set, their counts 0 */
	bool warm_used; /* taken from since the timer looked */
	bool trim_armed; /* the timer or its callback is under way */
	struct ktimer trim_timer;
	struct rcu_cb trim_rcu;
} priv;

static void trim_timeout(struct ktimer *t);

static void *sparse(size_t count)
{
	void *p = mmap(NULL, count * sizeof(uint32_t), PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

int private_init(struct memfile *mf, uint64_t limit)
{
	void *base;
	int err;

	mutex_init(&priv.lock, LOCK_MEMFILE, "memfile");
	ktimer_init(&priv.trim_timer, trim_timeout);
	priv.limit = limit >> MEM_CHUNK_SHIFT;
	priv.refs = sparse(PRIVATE_CHUNKS);
	priv.run_next = sparse(PRIVATE_CHUNKS);
	priv.run_len = sparse(PRIVATE_CHUNKS);
	if (!priv.refs || !priv.run_next || !priv.run_len)
		return -ENOMEM;
	err = chunk_map_init(&priv.map, PRIVATE_CHUNKS);
	if (err)
		return err;
	/* Offset 0 is never given out: `near` 0 means none, and a stray zero is noticed. */
	if (chunk_map_take(&priv.map, 1, 1, 0) != 0)
		return -ENOMEM;
	priv.fd = memfd_create("moat-private", MFD_CLOEXEC | MFD_NOEXEC_SEAL);
	if (priv.fd < 0 && errno == EINVAL) /* before Linux 6.3 */
		priv.fd = memfd_create("moat-private", MFD_CLOEXEC);
	if (priv.fd < 0)
		return -errno;
	if (ftruncate(priv.fd, (off_t)MEMFILE_PRIVATE_MAX) < 0) {
		err = -errno;
		goto out_close;
	}
	base = mmap(NULL, MEMFILE_PRIVATE_MAX, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
		    priv.fd, 0);
	if (base == MAP_FAILED) {
		err = -errno;
		goto out_close;
	}
	/* Not in core dumps of the sentry, nor in a stray fork. */
	(void)madvise(base, MEMFILE_PRIVATE_MAX, MADV_DONTDUMP);
	mf->fd = priv.fd;
	mem_private_base = base;
	return 0;
out_close:
	close(priv.fd);
	return err;
}

static noreturn_fn void chunk_bug(uint32_t chunk, const char *what)
{
	log_error("memfile: chunk %u: %s", chunk, what);
	abort();
}

int memfile_alloc(struct memfile *mf, uint64_t size, unsigned flags, uint64_t near,
		  uint64_t *ret_off)
{
	uint32_t len, first, i, want;

	if (mf->shared)
		return shared_alloc(mf->shared, size, near, ret_off);
	assert(mf->kind == MEMFILE_PRIVATE);
	if (!size || size > MEMFILE_PRIVATE_MAX)
		return -ENOMEM;
	len = chunk_end(0, size);
	want = near ? chunk_first(near + MEM_CHUNK_SIZE - 1) : CHUNK_NONE;
	mutex_lock(&priv.lock);
	if (priv.limit && priv.held + len > priv.limit) {
		first = CHUNK_NONE;
	} else if (len == 1 && priv.warm_count) {
		first = priv.warm[--priv.warm_count];
		priv.warm_used = true;
		priv.held++;
	} else {
		first = CHUNK_NONE;
		if (flags & MEMFILE_ALLOC_ALIGN_2M)
			first = chunk_map_take(&priv.map, len, CHUNKS_2M, want);
		if (first == CHUNK_NONE)
			first = chunk_map_take(&priv.map, len, 1, want);
		if (first != CHUNK_NONE)
			priv.held += len;
	}
	mutex_unlock(&priv.lock);
	if (first == CHUNK_NONE)
		return -ENOMEM;
	for (i = 0; i < len; i++)
		atomic_store_explicit(&priv.refs[first + i], 1, memory_order_relaxed);
	*ret_off = (uint64_t)first << MEM_CHUNK_SHIFT;
	return 0;
}

void private_ref(uint64_t off, uint64_t size)
{
	uint32_t i, end = chunk_end(off, size);

	for (i = chunk_first(off); i < end; i++)
		if (!atomic_fetch_add_explicit(&priv.refs[i], 1, memory_order_relaxed))
			chunk_bug(i, "reference to a free chunk");
}

static void punch(uint32_t first, uint32_t len)
{
	if (fallocate(priv.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		      (off_t)first << MEM_CHUNK_SHIFT, (off_t)len << MEM_CHUNK_SHIFT) < 0)
		memset(mem_private_base + ((uint64_t)first << MEM_CHUNK_SHIFT), 0,
		       (size_t)len << MEM_CHUNK_SHIFT);
}

/* Clears the pages of a chunk that exist. */
static void chunk_clear(uint32_t chunk)
{
	char *p = mem_private_base + ((uint64_t)chunk << MEM_CHUNK_SHIFT);
	unsigned char present[MEM_CHUNK_SIZE >> MOAT_PAGE_SHIFT];
	unsigned i;

	if (mincore(p, MEM_CHUNK_SIZE, present) < 0)
		memset(present, 1, sizeof(present));
	for (i = 0; i < ARRAY_SIZE(present); i++)
		/* Pages that exist do not fault for good; guarded like every touch of guest memory. */
		if ((present[i] & 1) &&
		    guard_zero(p + ((size_t)i << MOAT_PAGE_SHIFT), MOAT_PAGE_SIZE))
			chunk_bug(chunk, "cannot be cleared");
}

/* Keeps what it can of a run of nobody's chunks warm. Return: how many of its first chunks. */
static uint32_t keep_warm(uint32_t first, uint32_t len)
{
	uint32_t room, i;
	bool arm = false;

	if (len > WARM_RUN_MAX)
		return 0;
	mutex_lock(&priv.lock);
	room = WARM_MAX - priv.warm_count;
	mutex_unlock(&priv.lock);
	len = MIN(len, room);
	for (i = 0; i < len; i++)
		chunk_clear(first + i);
	mutex_lock(&priv.lock);
	/* Only this thread adds, so the room is still there. */
	for (i = 0; i < len; i++)
		priv.warm[priv.warm_count++] = first + i;
	priv.pending -= len;
	if (len && !priv.trim_armed) {
		priv.trim_armed = true;
		arm = true;
	}
	mutex_unlock(&priv.lock);
	if (arm)
		ktimer_arm(&priv.trim_timer, time_monotonic_ns() + WARM_IDLE_NS);
	return len;
}

/* On the RCU thread, as all that gives chunks back. */
static void trim_rcu(struct rcu_cb *cb)
{
	uint32_t idle[WARM_MAX], count, i;
	bool again;

	(void)cb;
	mutex_lock(&priv.lock);
	count = priv.warm_used ? 0 : priv.warm_count;
	priv.warm_used = false;
	memcpy(idle, priv.warm, count * sizeof(idle[0]));
	priv.warm_count -= count;
	again = priv.warm_count != 0;
	priv.trim_armed = again;
	mutex_unlock(&priv.lock);
	for (i = 0; i < count; i++) {
		punch(idle[i], 1);
		mutex_lock(&priv.lock);
		chunk_map_give(&priv.map, idle[i], 1);
		mutex_unlock(&priv.lock);
	}
	if (again)
		ktimer_arm(&priv.trim_timer, time_monotonic_ns() + WARM_IDLE_NS);
}

static void trim_timeout(struct ktimer *t)
{
	(void)t;
	rcu_call(&priv.trim_rcu, trim_rcu);
}

/* Punches what its grace period has freed, and starts the next one if more has come. */
static void private_free_rcu(struct rcu_cb *cb)
{
	uint32_t run, next, kept;

	mutex_lock(&priv.lock);
	run = priv.waiting;
	mutex_unlock(&priv.lock);
	for (; run; run = next) {
		uint32_t first = run - 1;
		uint32_t len = priv.run_len[first];

		/* The run is nobody's until its bits are cleared: no lock for the host call. */
		next = priv.run_next[first];
		kept = keep_warm(first, len);
		first += kept;
		len -= kept;
		if (!len)
			continue;
		punch(first, len);
		mutex_lock(&priv.lock);
		chunk_map_give(&priv.map, first, len);
		priv.pending -= len;
		mutex_unlock(&priv.lock);
	}
	mutex_lock(&priv.lock);
	priv.waiting = priv.late;
	priv.late = 0;
	priv.cb_active = priv.waiting != 0;
	next = priv.waiting;
	mutex_unlock(&priv.lock);
	if (next)
		rcu_call(cb, private_free_rcu);
}

static void free_run(uint32_t first, uint32_t len)
{
	bool start;

	mutex_lock(&priv.lock);
	priv.held -= len;
	priv.pending += len;
	start = !priv.cb_active;
	priv.run_len[first] = len;
	if (start) {
		priv.run_next[first] = priv.waiting;
		priv.waiting = first + 1;
		priv.cb_active = true;
	} else {
		priv.run_next[first] = priv.late;
		priv.late = first + 1;
	}
	mutex_unlock(&priv.lock);
	if (start)
		rcu_call(&priv.rcu, private_free_rcu);
}

void private_unref(uint64_t off, uint64_t size)
{
	uint32_t i, end = chunk_end(off, size), len = 0;

	for (i = chunk_first(off); i < end; i++) {
		uint32_t old = atomic_fetch_sub_explicit(&priv.refs[i], 1, memory_order_acq_rel);

		if (!old)
			chunk_bug(i, "reference underflow");
		if (old == 1) {
			len++;
		} else if (len) {
			free_run(i - len, len);
			len = 0;
		}
	}
	if (len)
		free_run(i - len, len);
}

bool memfile_range_exclusive(struct memfile *mf, uint64_t off, uint64_t size)
{
	uint32_t i, end = chunk_end(off, size);

	if (mf->shared)
		return shared_exclusive(mf->shared, off, size);
	if (mf->kind != MEMFILE_PRIVATE)
		return false;
	/* Acquire: what a former sharer wrote before its unref is seen before we write in place. */
	for (i = chunk_first(off); i < end; i++)
		if (atomic_load_explicit(&priv.refs[i], memory_order_acquire) != 1)
			return false;
	return true;
}

void memfile_decommit(struct memfile *mf, uint64_t off, uint64_t size)
{
	assert(mf->kind == MEMFILE_PRIVATE);
	assert(!((off | size) & (MOAT_PAGE_SIZE - 1)));
	if (size && fallocate(priv.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off,
			      (off_t)size) < 0)
		memset(mem_private_base + off, 0, size);
}

void private_stats(struct mem_stats *stats)
{
	mutex_lock(&priv.lock);
	stats->private_bytes = priv.held << MEM_CHUNK_SHIFT;
	stats->private_free_pending = priv.pending << MEM_CHUNK_SHIFT;
	stats->limit_bytes = priv.limit << MEM_CHUNK_SHIFT;
	mutex_unlock(&priv.lock);
}
