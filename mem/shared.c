/*
 * mem/shared.c - memory files that are shared with one other process: a virtio-fs daemon.
 *
 * One sparse memfd of a fixed, sealed size, mapped whole into the window at creation, so that offset and pointer are arithmetic. To the
 * platforms it is a host file like any other. Chunks are counted as private memory's are: a freed one is
 * punched out and given again only after a grace period, when no reader can have it in hand.
 * A page that both processes have mapped costs neither a fault: up to SHARED_WARM_MAX chunks that have all their pages are cleared instead of punched,
 * and given again first. A page cache that lets go of one file and reads the next takes those; unused for SHARED_WARM_IDLE_NS they are punched
 * after all, but for SHARED_WARM_KEEP.
 * The other process may write anything there at any time; nothing in it is believed.
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

#define CHUNKS_ROUND 4096u /* chunk_map's granularity: 256 MiB */
#define SHARED_WARM_MAX 640u /* chunks: 40 MiB a file */
#define SHARED_WARM_IDLE_NS 500000000l
#define SHARED_WARM_KEEP \
	64u /* not punched: what one who reads a file through goes round in (fsimpl/virtiofs/ahead.c) */
#define CHUNK_PAGES (MEM_CHUNK_SIZE >> MOAT_PAGE_SHIFT)

struct mem_shared {
	char *base; /* immutable */
	uint32_t window_at, chunks; /* immutable */
	_Atomic uint32_t *refs;
	struct mutex lock; /* LOCK_MEMFILE: all below */
	struct chunk_map map;
	uint32_t *next; /* of a freed chunk: the next one + 1 */
	uint32_t waiting,
		late; /* freed before, and since, the grace period under way began: first + 1 */
	uint32_t warm, warm_count; /* cleared and nobody's, not in the map's free ones: first + 1 */
	bool warm_used, trim_armed; /* warm ones were taken since the timer looked; it will look */
	struct ktimer trim_timer;
	struct rcu_cb trim_rcu;
	bool cb_active;
	struct rcu_cb rcu;
	struct memfile *mf;
};

static void trim_timeout(struct ktimer *t);

static void *sparse_u32(size_t count)
{
	void *p = mmap(NULL, count * sizeof(uint32_t), PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static int shared_memfd(uint64_t size)
{
	int fd = memfd_create("moat-shared", MFD_CLOEXEC | MFD_ALLOW_SEALING), err;

	if (fd < 0)
		return -errno;
	/* Sealed, or the other process could make our own accesses SIGBUS. */
	if (ftruncate(fd, (off_t)size) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
		err = -errno;
		close(fd);
		return err;
	}
	return fd;
}

int shared_create(uint64_t size, struct memfile *mf)
{
	struct mem_shared *s = calloc(1, sizeof(*s));
	int err = -ENOMEM;

	if (!s)
		return -ENOMEM;
	s->mf = mf;
	s->chunks = (uint32_t)(round_up_u64(size, (uint64_t)CHUNKS_ROUND << MEM_CHUNK_SHIFT) >>
			       MEM_CHUNK_SHIFT);
	mutex_init(&s->lock, LOCK_MEMFILE, "shared memfile");
	ktimer_init(&s->trim_timer, trim_timeout);
	s->refs = sparse_u32(s->chunks);
	s->next = sparse_u32(s->chunks);
	if (!s->refs || !s->next || chunk_map_init(&s->map, s->chunks))
		goto out_free;
	mf->fd = shared_memfd((uint64_t)s->chunks << MEM_CHUNK_SHIFT);
	if (mf->fd < 0) {
		err = mf->fd;
		goto out_free;
	}
	err = window_map_whole(mf->fd, s->chunks, &s->window_at, &s->base);
	if (err)
		goto out_close;
	(void)madvise(s->base, (uint64_t)s->chunks << MEM_CHUNK_SHIFT, MADV_DONTDUMP);
	mf->shared = s;
	return 0;
out_close:
	close(mf->fd);
out_free:
	if (s->refs)
		munmap((void *)s->refs, s->chunks * sizeof(uint32_t));
	if (s->next)
		munmap(s->next, s->chunks * sizeof(uint32_t));
	if (s->map.count)
		chunk_map_fini(&s->map);
	free(s);
	return err;
}

/* After a grace period without references. */
void shared_destroy(struct mem_shared *s)
{
	ktimer_cancel_sync(&s->trim_timer);
	window_unmap_whole(s->window_at, s->chunks);
	munmap((void *)s->refs, s->chunks * sizeof(uint32_t));
	munmap(s->next, s->chunks * sizeof(uint32_t));
	chunk_map_fini(&s->map);
	free(s);
}

void *shared_ptr(const struct mem_shared *s, uint64_t off)
{
	assert(off < shared_size(s));
	return s->base + off;
}

uint64_t shared_size(const struct mem_shared *s)
{
	return (uint64_t)s->chunks << MEM_CHUNK_SHIFT;
}

/* The warm ones are free as all others. */
static void give_warm_locked(struct mem_shared *s)
{
	for (; s->warm; s->warm = s->next[s->warm - 1])
		chunk_map_give(&s->map, s->warm - 1, 1);
	s->warm_count = 0;
}

static uint32_t take_locked(struct mem_shared *s, uint32_t len, uint64_t near)
{
	uint32_t first, want = near ? chunk_first(near) : CHUNK_NONE;

	if (len == 1 && !near && s->warm) {
		first = s->warm - 1;
		s->warm = s->next[first];
		s->warm_count--;
		s->warm_used = true;
		return first;
	}
	first = chunk_map_take(&s->map, len, 1, want);
	if (first != CHUNK_NONE || !s->warm)
		return first;
	give_warm_locked(s);
	return chunk_map_take(&s->map, len, 1, want);
}

int shared_alloc(struct mem_shared *s, uint64_t size, uint64_t near, uint64_t *ret_off)
{
	uint32_t first, len;

	if (!size || size > shared_size(s))
		return -ENOMEM;
	len = chunk_end(0, size);
	mutex_lock(&s->lock);
	first = take_locked(s, len, near);
	mutex_unlock(&s->lock);
	if (first == CHUNK_NONE)
		return -ENOMEM;
	for (uint32_t i = 0; i < len; i++) {
		atomic_store_explicit(&s->refs[first + i], 1, memory_order_relaxed);
		memfile_ref(s->mf);
	}
	*ret_off = (uint64_t)first << MEM_CHUNK_SHIFT;
	return 0;
}

static noreturn_fn void chunk_bug(uint32_t chunk, const char *what)
{
	log_error("shared memfile: chunk %u: %s", chunk, what);
	abort();
}

void shared_ref(struct mem_shared *s, uint64_t off, uint64_t size)
{
	assert(off <= shared_size(s) && size <= shared_size(s) - off);
	for (uint32_t i = chunk_first(off); i < chunk_end(off, size); i++)
		if (!atomic_fetch_add_explicit(&s->refs[i], 1, memory_order_relaxed))
			chunk_bug(i, "reference to a free chunk");
}

/* Clears a chunk of which every page is there. False: punch it. */
static bool clear_whole(struct mem_shared *s, uint32_t chunk)
{
	char *p = s->base + ((uint64_t)chunk << MEM_CHUNK_SHIFT);
	unsigned char present[CHUNK_PAGES];

	if (mincore(p, MEM_CHUNK_SIZE, present) < 0)
		return false;
	for (unsigned i = 0; i < CHUNK_PAGES; i++)
		if (!(present[i] & 1))
			return false;
	return !guard_zero(p, MEM_CHUNK_SIZE);
}

static void punch(struct mem_shared *s, uint32_t chunk)
{
	off_t off = (off_t)chunk << MEM_CHUNK_SHIFT;

	if (fallocate(s->mf->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, MEM_CHUNK_SIZE) <
	    0)
		memset(s->base + off, 0, MEM_CHUNK_SIZE);
}

static void shared_reuse(struct rcu_cb *cb)
{
	struct mem_shared *s = container_of(cb, struct mem_shared, rcu);
	uint32_t chunk, next, freed = 0, warm = 0, last_warm = 0, warm_count = 0, cold = 0, room;
	struct memfile *mf = s->mf;
	bool again, arm = false;

	mutex_lock(&s->lock);
	room = SHARED_WARM_MAX - s->warm_count; /* only this thread adds any */
	mutex_unlock(&s->lock);
	for (chunk = s->waiting; chunk; chunk = next, freed++) {
		uint32_t *to = &cold;

		next = s->next[chunk - 1];
		if (warm_count < room && clear_whole(s, chunk - 1)) {
			last_warm = warm_count++ ? last_warm : chunk;
			to = &warm;
		} else {
			punch(s, chunk - 1);
		}
		s->next[chunk - 1] = *to;
		*to = chunk;
	}
	mutex_lock(&s->lock);
	for (chunk = cold; chunk; chunk = s->next[chunk - 1])
		chunk_map_give(&s->map, chunk - 1, 1);
	if (warm) {
		s->next[last_warm - 1] = s->warm;
		s->warm = warm;
		s->warm_count += warm_count;
		arm = !s->trim_armed;
		s->trim_armed = true;
	}
	s->waiting = s->late;
	s->late = 0;
	again = s->cb_active = s->waiting != 0;
	mutex_unlock(&s->lock);
	if (again)
		rcu_call(&s->rcu, shared_reuse);
	if (arm)
		ktimer_arm(&s->trim_timer, time_monotonic_ns() + SHARED_WARM_IDLE_NS);
	while (freed--)
		memfile_unref(mf);
}

/* On the RCU thread, as all that gives chunks back; with a reference on the file. */
static void trim(struct rcu_cb *cb)
{
	struct mem_shared *s = container_of(cb, struct mem_shared, trim_rcu);
	struct memfile *mf = s->mf;
	uint32_t idle = 0;
	bool again;

	mutex_lock(&s->lock);
	while (!s->warm_used && s->warm_count > SHARED_WARM_KEEP) {
		uint32_t chunk = s->warm;

		s->warm = s->next[chunk - 1];
		s->warm_count--;
		s->next[chunk - 1] = idle;
		idle = chunk;
	}
	s->warm_used = false;
	again = s->trim_armed = s->warm_count > SHARED_WARM_KEEP;
	mutex_unlock(&s->lock);
	for (uint32_t chunk = idle; chunk; chunk = s->next[chunk - 1])
		punch(s, chunk - 1);
	mutex_lock(&s->lock);
	for (uint32_t chunk = idle, next; chunk; chunk = next) {
		next = s->next[chunk - 1];
		chunk_map_give(&s->map, chunk - 1, 1);
	}
	mutex_unlock(&s->lock);
	if (again)
		ktimer_arm(&s->trim_timer, time_monotonic_ns() + SHARED_WARM_IDLE_NS);
	memfile_unref(mf);
}

static void trim_timeout(struct ktimer *t)
{
	struct mem_shared *s = container_of(t, struct mem_shared, trim_timer);

	/* A file that is on its end takes all along. */
	if (ref_tryget(&s->mf->ref))
		rcu_call(&s->trim_rcu, trim);
}

static void chunk_free(struct mem_shared *s, uint32_t chunk)
{
	bool start;

	mutex_lock(&s->lock);
	start = !s->cb_active;
	if (start) {
		s->next[chunk] = s->waiting;
		s->waiting = chunk + 1;
		s->cb_active = true;
	} else {
		s->next[chunk] = s->late;
		s->late = chunk + 1;
	}
	mutex_unlock(&s->lock);
	if (start)
		rcu_call(&s->rcu, shared_reuse);
}

void shared_unref(struct mem_shared *s, uint64_t off, uint64_t size)
{
	for (uint32_t i = chunk_first(off); i < chunk_end(off, size); i++) {
		uint32_t old = atomic_fetch_sub_explicit(&s->refs[i], 1, memory_order_acq_rel);

		if (!old)
			chunk_bug(i, "reference dropped twice");
		if (old == 1)
			chunk_free(s, i);
	}
}

bool shared_exclusive(struct mem_shared *s, uint64_t off, uint64_t size)
{
	for (uint32_t i = chunk_first(off); i < chunk_end(off, size); i++)
		if (atomic_load_explicit(&s->refs[i], memory_order_acquire) != 1)
			return false;
	return true;
}
