/*
 * mem/private.c - the private memory file: a sparse memfd, mapped once and whole.
 *
 * A chunk is free (its bit in the map is clear), held (count > 0) or pending (bit set, count 0): freed, but a
 * reader in an RCU section may still look at it, or even write to it, so it is punched out and
 * becomes free only in the callback after a grace period. Pending runs are linked through sparse
 * arrays indexed by chunk, so freeing needs no memory.
 *
 * A fresh page costs 3 us here and a punched one 1 us, clearing one that is there 0.2 us. So some freed runs are
 * cleared instead of punched and kept warm for the next allocation that fits: what a fork, a small program's heap
 * or its stack takes, and a big buffer that comes and goes. Unused for WARM_IDLE_NS, they are punched after all.
 */
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/futex.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/sleep.h"
#include "base/timer.h"
#include "mem/chunk_map.h"
#include "mem/guard.h"
#include "mem/internal.h"
#include "mem/pressure.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

#define PRIVATE_CHUNKS ((uint32_t)(MEMFILE_PRIVATE_MAX >> MEM_CHUNK_SHIFT))
#define CHUNKS_2M ((uint32_t)((2ul << 20) >> MEM_CHUNK_SHIFT))

/* Of the limit, for mem_piece. */
#define PIECE_LIMIT_PART 128u

/* Chunks kept warm (or a part of the limit, if that is less), and in how many runs. */
#define WARM_MAX 512u
#define WARM_LIMIT_PART 16u
#define WARM_RUNS_MAX 64u
#define WARM_IDLE_NS 500000000l
/* Long runs are kept or not in pieces like this; beyond WARM_SPARSE_MAX only those with most of their pages. */
#define WARM_PIECE 32u
#define WARM_SPARSE_MAX 8u

/* Cleared chunks that are nobody's: their bits are set, their counts 0. */
struct warm_run {
	uint32_t first, len;
};

char *mem_private_base;
_Thread_local bool mem_hurried;
_Atomic bool mem_tight;
_Atomic uint64_t mem_piece = MEM_PIECE_MAX;

/* Little is left (less than a quarter) and much is under way to the host (more than a sixteenth): 1. Written under the lock. */
static _Atomic uint32_t pressed;

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
	uint64_t limit, total; /* chunks; 0 for none; guarded by lock */
	struct rcu_cb rcu;
	struct warm_run warm[WARM_RUNS_MAX];
	uint32_t warm_runs, warm_count; /* of warm[], and their chunks */
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
	priv.limit = priv.total = limit >> MEM_CHUNK_SHIFT;
	priv.refs = sparse(PRIVATE_CHUNKS);
	priv.run_next = sparse(PRIVATE_CHUNKS);
	priv.run_len = sparse(PRIVATE_CHUNKS);
	if (!priv.refs || !priv.run_next || !priv.run_len)
		return -ENOMEM;
	err = chunk_map_init(&priv.map, PRIVATE_CHUNKS);
	if (!err)
		err = account_init(PRIVATE_CHUNKS);
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

static void press_locked(void)
{
	bool now = priv.total && priv.pending > priv.total / 16 &&
		   priv.held + priv.pending + priv.warm_count > priv.total / 4 * 3;

	if (atomic_load_explicit(&pressed, memory_order_relaxed) == now)
		return;
	atomic_store(&pressed, now);
	if (!now)
		futex_wake(&pressed, INT_MAX);
}

static void set_piece_locked(void)
{
	uint64_t most =
		priv.total ? (priv.total << MEM_CHUNK_SHIFT) / PIECE_LIMIT_PART : MEM_PIECE_MAX;
	uint64_t piece = MEM_CHUNK_SIZE;

	while (!atomic_load(&mem_tight) && piece < MEM_PIECE_MAX && piece * 2 <= most)
		piece *= 2;
	atomic_store(&mem_piece, piece);
}

void private_set_limit(uint64_t limit, uint64_t total)
{
	mutex_lock(&priv.lock);
	priv.limit = limit >> MEM_CHUNK_SHIFT;
	priv.total = total >> MEM_CHUNK_SHIFT;
	set_piece_locked();
	press_locked();
	mutex_unlock(&priv.lock);
}

static noreturn_fn void chunk_bug(uint32_t chunk, const char *what)
{
	log_error("memfile: chunk %u: %s", chunk, what);
	abort();
}

/* ---- warm runs: all under the lock ---- */

static uint32_t warm_room(void)
{
	uint32_t max = WARM_MAX;

	if (atomic_load_explicit(&mem_tight, memory_order_relaxed))
		return 0;
	if (priv.total)
		max = (uint32_t)MIN((uint64_t)WARM_MAX, priv.total / WARM_LIMIT_PART);
	return priv.warm_runs < WARM_RUNS_MAX && max > priv.warm_count ? max - priv.warm_count : 0;
}

/* Pre: warm_room(). */
static void warm_put(uint32_t first, uint32_t len)
{
	uint32_t i;

	priv.warm_count += len;
	for (i = 0; i < priv.warm_runs; i++) {
		struct warm_run *r = &priv.warm[i];

		if (r->first + r->len != first && first + len != r->first)
			continue;
		r->first = MIN(r->first, first);
		r->len += len;
		return;
	}
	priv.warm[priv.warm_runs++] = (struct warm_run){first, len};
}

/* Takes [at, at + len) out of run i, which has it. */
static void warm_carve(uint32_t i, uint32_t at, uint32_t len)
{
	struct warm_run *r = &priv.warm[i];
	uint32_t end = r->first + r->len, left = at - r->first, right = end - (at + len);

	priv.warm_count -= len;
	if (left && right)
		priv.warm[priv.warm_runs++] = (struct warm_run){at + len, right};
	if (left)
		r->len = left;
	else if (right)
		*r = (struct warm_run){at + len, right};
	else
		*r = priv.warm[--priv.warm_runs];
}

/* `len` warm chunks at `want` if they are, else out of the shortest run that has them, the latest first. */
static uint32_t warm_take(uint32_t len, uint32_t want, bool align_2m)
{
	uint32_t best = WARM_RUNS_MAX, best_at = CHUNK_NONE, i;
	bool split = priv.warm_runs < WARM_RUNS_MAX;

	for (i = priv.warm_runs; i-- > 0;) {
		const struct warm_run *r = &priv.warm[i];
		uint32_t at = r->first, up = (at + CHUNKS_2M - 1) / CHUNKS_2M * CHUNKS_2M;

		if (r->len < len)
			continue;
		if (want >= at && want - at <= r->len - len && (split || want == at)) {
			best = i;
			best_at = want;
			break;
		}
		if (align_2m && split && up - at <= r->len - len)
			at = up;
		if (best < WARM_RUNS_MAX && priv.warm[best].len <= r->len)
			continue;
		best = i;
		best_at = at;
	}
	if (best_at != CHUNK_NONE)
		warm_carve(best, best_at, len);
	return best_at;
}

int memfile_alloc(struct memfile *mf, uint64_t size, unsigned flags, uint64_t near,
		  uint64_t *ret_off)
{
	bool warm;

	return memfile_alloc_warm(mf, size, flags, near, ret_off, &warm);
}

int memfile_alloc_warm(struct memfile *mf, uint64_t size, unsigned flags, uint64_t near,
		       uint64_t *ret_off, bool *ret_warm)
{
	uint32_t len, first, i, want;

	*ret_warm = false;
	if (mf->shared)
		return shared_alloc(mf->shared, size, near, ret_off);
	assert(mf->kind == MEMFILE_PRIVATE);
	if (!size || size > MEMFILE_PRIVATE_MAX)
		return -ENOMEM;
	len = chunk_end(0, size);
	want = near ? chunk_first(near + MEM_CHUNK_SIZE - 1) : CHUNK_NONE;
	mutex_lock(&priv.lock);
	if ((priv.limit && priv.held + len > priv.limit) || account_is_full(len)) {
		first = CHUNK_NONE;
	} else if ((first = warm_take(len, want, flags & MEMFILE_ALLOC_ALIGN_2M)) != CHUNK_NONE) {
		*ret_warm = priv.warm_used = true;
		priv.held += len;
	} else {
		if (flags & MEMFILE_ALLOC_ALIGN_2M)
			first = chunk_map_take(&priv.map, len, CHUNKS_2M, want);
		if (first == CHUNK_NONE)
			first = chunk_map_take(&priv.map, len, 1, want);
		if (first != CHUNK_NONE)
			priv.held += len;
	}
	if (first != CHUNK_NONE) {
		account_charge(first, len);
		press_locked();
		mem_hurried = mem_hurried || atomic_load_explicit(&pressed, memory_order_relaxed);
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

bool memfile_private_has_data(uint64_t off, uint64_t size)
{
	off_t at = lseek(priv.fd, (off_t)off, SEEK_DATA);

	return at < 0 ? errno != ENXIO : (uint64_t)at < off + size;
}

/* Clears the pages of a run that exist. Return: false: it has too few of them to be worth its place. */
static bool run_clear(uint32_t first, uint32_t len)
{
	char *p = mem_private_base + ((uint64_t)first << MEM_CHUNK_SHIFT);
	size_t pages = (size_t)len << (MEM_CHUNK_SHIFT - MOAT_PAGE_SHIFT), i, end, there = 0;
	unsigned char present[WARM_PIECE << (MEM_CHUNK_SHIFT - MOAT_PAGE_SHIFT)];

	assert(pages <= ARRAY_SIZE(present));
	if (mincore(p, pages << MOAT_PAGE_SHIFT, present) < 0)
		memset(present, 1, pages);
	for (i = 0; i < pages; i++)
		there += present[i] & 1;
	if (len > WARM_SPARSE_MAX && there * 4 < pages * 3)
		return false;
	for (i = 0; i < pages; i = end) {
		uint64_t size;

		for (end = i + 1; end < pages && !((present[end] ^ present[i]) & 1); end++)
			;
		size = (end - i) << MOAT_PAGE_SHIFT;
		if (!(present[i] & 1) &&
		    !memfile_private_has_data(
			    ((uint64_t)first << MEM_CHUNK_SHIFT) + (i << MOAT_PAGE_SHIFT), size))
			continue;
		/* Pages that exist do not fault for good; guarded like every touch of guest memory. */
		if (guard_zero(p + (i << MOAT_PAGE_SHIFT), size))
			chunk_bug(first, "cannot be cleared");
	}
	return true;
}

/* Keeps what it can of a run of nobody's chunks warm. Return: how many of its first chunks. */
static uint32_t keep_warm(uint32_t first, uint32_t len)
{
	bool arm = false;

	mutex_lock(&priv.lock);
	len = MIN(len, warm_room());
	mutex_unlock(&priv.lock);
	if (!len || !run_clear(first, len))
		return 0;
	mutex_lock(&priv.lock);
	/* Only this thread adds chunks; a run that was carved in two meanwhile may have taken the last place. */
	if (!warm_room()) {
		mutex_unlock(&priv.lock);
		return 0;
	}
	warm_put(first, len);
	priv.pending -= len;
	press_locked();
	if (!priv.trim_armed) {
		priv.trim_armed = true;
		arm = true;
	}
	mutex_unlock(&priv.lock);
	if (arm)
		ktimer_arm(&priv.trim_timer, time_monotonic_ns() + WARM_IDLE_NS);
	return len;
}

/* Takes all warm runs out, for give_back(). Lock held. Return: how many. */
static uint32_t warm_take_all(struct warm_run runs[WARM_RUNS_MAX])
{
	uint32_t count = priv.warm_runs;

	memcpy(runs, priv.warm, count * sizeof(runs[0]));
	priv.warm_runs = priv.warm_count = 0;
	return count;
}

static void give_back(const struct warm_run *runs, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		punch(runs[i].first, runs[i].len);
		mutex_lock(&priv.lock);
		chunk_map_give(&priv.map, runs[i].first, runs[i].len);
		mutex_unlock(&priv.lock);
	}
}

/* On the RCU thread, as nearly all that gives chunks back. */
static void trim_rcu(struct rcu_cb *cb)
{
	struct warm_run idle[WARM_RUNS_MAX] = {0};
	uint32_t count;
	bool again;

	(void)cb;
	mutex_lock(&priv.lock);
	count = priv.warm_used ? 0 : warm_take_all(idle);
	priv.warm_used = false;
	again = priv.warm_count != 0;
	priv.trim_armed = again;
	mutex_unlock(&priv.lock);
	give_back(idle, count);
	if (again)
		ktimer_arm(&priv.trim_timer, time_monotonic_ns() + WARM_IDLE_NS);
}

void mem_set_tight(bool tight)
{
	struct warm_run warm[WARM_RUNS_MAX] = {0};
	uint32_t count = 0;

	mutex_lock(&priv.lock);
	atomic_store(&mem_tight, tight);
	set_piece_locked();
	if (tight)
		count = warm_take_all(warm);
	mutex_unlock(&priv.lock);
	/* Their grace period is over: nobody has them. */
	give_back(warm, count);
}

void mem_private_unmap(void)
{
	/* Shared memory: nothing of it is lost. */
	if (madvise(mem_private_base, MEMFILE_PRIVATE_MAX, MADV_DONTNEED) < 0)
		log_debug("memfile: unmapping: %s", strerror(errno));
}

uint64_t mem_private_resident(void)
{
	struct stat st;

	return fstat(priv.fd, &st) < 0 ? 0 : (uint64_t)st.st_blocks * 512;
}

static void trim_timeout(struct ktimer *t)
{
	(void)t;
	rcu_call(&priv.trim_rcu, trim_rcu);
}

static void punch_free(uint32_t first, uint32_t len)
{
	if (!len)
		return;
	punch(first, len);
	mutex_lock(&priv.lock);
	chunk_map_give(&priv.map, first, len);
	priv.pending -= len;
	press_locked();
	mutex_unlock(&priv.lock);
}

void mem_wait_drained(int64_t deadline_ns)
{
	struct timespec until = {.tv_sec = deadline_ns / 1000000000,
				 .tv_nsec = deadline_ns % 1000000000};

	mem_hurried = false;
	while (atomic_load(&pressed) && time_monotonic_ns() < deadline_ns)
		(void)futex_wait(&pressed, 1, &until);
}

/* A run of nobody's: kept warm piece by piece, what is not kept in between is punched. */
static void run_give_back(uint32_t first, uint32_t len)
{
	uint32_t from = first, end = first + len, kept;

	for (; first < end; first += MIN(end - first, WARM_PIECE)) {
		kept = keep_warm(first, MIN(end - first, WARM_PIECE));
		if (!kept)
			continue;
		punch_free(from, first - from);
		from = first + kept;
	}
	punch_free(from, end - from);
}

/* Punches what its grace period has freed, and starts the next one if more has come. */
static void private_free_rcu(struct rcu_cb *cb)
{
	uint32_t run, next;

	mutex_lock(&priv.lock);
	run = priv.waiting;
	mutex_unlock(&priv.lock);
	for (; run; run = next) {
		uint32_t first = run - 1;
		uint32_t len = priv.run_len[first];

		/* The run is nobody's until its bits are cleared: no lock for the host call. */
		next = priv.run_next[first];
		run_give_back(first, len);
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
	account_uncharge(first, len);
	priv.held -= len;
	priv.pending += len;
	press_locked();
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

void memfile_commit(struct memfile *mf, uint64_t off, uint64_t size)
{
	/* Not const: in .bss, where reads are of the host's one zero page, and not in the file. */
	static char zeros[MEM_CHUNK_SIZE];
	uint64_t n;

	assert(mf->kind == MEMFILE_PRIVATE);
	for (; size; off += n, size -= n) {
		n = MIN(size, sizeof(zeros));
		/* Not through libc, whose TSan interceptor would see an access. */
		if (syscall(SYS_pwrite64, priv.fd, zeros, n, off) != (long)n)
			return;
	}
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
