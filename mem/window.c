/*
 * mem/window.c - host files mapped piecewise into one reserved range, the window.
 *
 * A segment is one mapping of [first, first + count) chunks of a file, at most SEGMENT_CHUNKS and within one
 * aligned span of that size. It is made when a chunk of it is first referenced, as long as the file is
 * then (a file that grows gets further segments). Segments with no references are idle: kept, newest
 * last, up to WINDOW_IDLE_MAX, because the next exec of the same program wants them again.
 * A retired segment leaves its file's tree at once and the window after a grace period.
 *
 *   window.lock (LOCK_MEMFILE)
 *
 * A file with referenced segments is itself referenced; one with only idle segments is not.
 */
#include <bsd/sys/queue.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/lock.h"
#include "base/log.h"
#include "mem/chunk_map.h"
#include "mem/internal.h"

#define WINDOW_CHUNKS ((uint32_t)(MEM_WINDOW_SIZE >> MEM_CHUNK_SHIFT))
#define SEGMENT_CHUNKS ((uint32_t)(MEM_HOST_SPAN >> MEM_CHUNK_SHIFT))
#define WINDOW_IDLE_MAX 4096
/* Each is a mapping of the sentry: stay well below vm.max_map_count (65,530). */
#define WINDOW_SEGMENTS_MAX 40000
/* What mem_window_unmap() looks at under the lock. An idle sandbox of more works with files: it wants them again. */
#define WINDOW_UNMAP_MAX 1024
/* Chunk numbers are 32 bits: no host file is mapped past this. */
#define HOST_FILE_MAX ((uint64_t)(UINT32_MAX - SEGMENT_CHUNKS) << MEM_CHUNK_SHIFT)

struct mem_segment {
	RB_ENTRY(mem_segment) node;
	TAILQ_ENTRY(mem_segment) idle;
	LIST_ENTRY(mem_segment) all;
	struct memfile *mf;
	uint32_t first, count; /* chunks of the file; immutable */
	uint32_t at; /* window chunk; immutable */
	uint64_t refs; /* chunk references */
	struct rcu_cb rcu;
};

TAILQ_HEAD(segment_list, mem_segment);

static struct {
	char *base; /* immutable */
	struct mutex lock; /* all below, and every file's tree */
	struct chunk_map map;
	struct segment_list idle;
	LIST_HEAD(, mem_segment) all;
	uint32_t idle_count, segments, files;
} window;

static int segment_cmp(const struct mem_segment *a, const struct mem_segment *b)
{
	return a->first < b->first ? -1 : a->first > b->first;
}

RB_GENERATE_LOCAL(mem_segment_tree, mem_segment, node, segment_cmp)

int window_init(void)
{
	void *base = mmap(NULL, MEM_WINDOW_SIZE, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (base == MAP_FAILED)
		return -errno;
	window.base = base;
	mutex_init(&window.lock, LOCK_MEMFILE, "mem window");
	TAILQ_INIT(&window.idle);
	return chunk_map_init(&window.map, WINDOW_CHUNKS);
}

void *mem_window_base(void)
{
	return window.base;
}

static void *segment_addr(const struct mem_segment *seg)
{
	return window.base + ((uint64_t)seg->at << MEM_CHUNK_SHIFT);
}

static uint64_t segment_size(const struct mem_segment *seg)
{
	return (uint64_t)seg->count << MEM_CHUNK_SHIFT;
}

static void segment_free_rcu(struct rcu_cb *cb)
{
	struct mem_segment *seg = container_of(cb, struct mem_segment, rcu);
	void *p = mmap(segment_addr(seg), segment_size(seg), PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);

	mutex_lock(&window.lock);
	/* If the host refuses, the file stays visible there: the chunks are never used again. */
	if (p != MAP_FAILED)
		chunk_map_give(&window.map, seg->at, seg->count);
	window.segments--;
	LIST_REMOVE(seg, all);
	mutex_unlock(&window.lock);
	free(seg);
}

/* An idle segment goes. Pre: window.lock. */
static void segment_retire_locked(struct mem_segment *seg)
{
	assert(!seg->refs);
	TAILQ_REMOVE(&window.idle, seg, idle);
	window.idle_count--;
	RB_REMOVE(mem_segment_tree, &seg->mf->segments, seg);
	if (RB_EMPTY(&seg->mf->segments))
		window.files--;
	seg->mf = NULL;
	rcu_call(&seg->rcu, segment_free_rcu);
}

/* The last segment that begins at or before `chunk`. Pre: window.lock. */
static struct mem_segment *segment_floor(struct memfile *mf, uint32_t chunk)
{
	struct mem_segment *seg = RB_ROOT(&mf->segments), *best = NULL;

	while (seg) {
		if (seg->first <= chunk) {
			best = seg;
			seg = RB_RIGHT(seg, node);
		} else {
			seg = RB_LEFT(seg, node);
		}
	}
	return best;
}

static struct mem_segment *segment_find(struct memfile *mf, uint32_t chunk)
{
	struct mem_segment *seg = segment_floor(mf, chunk);

	return seg && chunk - seg->first < seg->count ? seg : NULL;
}

/* Maps a segment around `chunk`, which no segment covers; `end` is what the caller wants. */
static int segment_create_locked(struct memfile *mf, uint32_t chunk, uint32_t end,
				 struct mem_segment **ret_seg)
{
	struct mem_segment *prev = segment_floor(mf, chunk), *next, *seg;
	uint32_t span = chunk / SEGMENT_CHUNKS * SEGMENT_CHUNKS;
	int prot = PROT_READ | (mf->max_access & MEM_WRITE ? PROT_WRITE : 0);
	struct stat st;
	uint32_t eof;

	if (RB_EMPTY(&mf->segments) && window.files >= MEMFILE_HOST_MAX)
		return -ENFILE;
	if (window.segments >= WINDOW_SEGMENTS_MAX)
		return -ENOMEM;
	if (fstat(mf->fd, &st) < 0)
		return -errno;
	eof = (uint64_t)st.st_size < HOST_FILE_MAX ? chunk_end(0, (uint64_t)st.st_size)
						   : UINT32_MAX;
	seg = calloc(1, sizeof(*seg));
	if (!seg)
		return -ENOMEM;
	next = prev ? RB_NEXT(mem_segment_tree, &mf->segments, prev)
		    : RB_MIN(mem_segment_tree, &mf->segments);
	end = MAX(end, eof);
	end = MIN(end, span + SEGMENT_CHUNKS);
	if (next)
		end = MIN(end, next->first);
	seg->mf = mf;
	seg->first = prev ? MAX(span, prev->first + prev->count) : span;
	seg->count = end - seg->first;
	seg->at = chunk_map_take(&window.map, seg->count, 1, CHUNK_NONE);
	if (seg->at == CHUNK_NONE) {
		free(seg);
		return -ENOMEM;
	}
	if (mmap(segment_addr(seg), segment_size(seg), prot, MAP_SHARED | MAP_FIXED, mf->fd,
		 (off_t)seg->first << MEM_CHUNK_SHIFT) == MAP_FAILED) {
		int err = -errno;

		chunk_map_give(&window.map, seg->at, seg->count);
		free(seg);
		return err;
	}
	if (RB_EMPTY(&mf->segments))
		window.files++;
	window.segments++;
	LIST_INSERT_HEAD(&window.all, seg, all);
	RB_INSERT(mem_segment_tree, &mf->segments, seg);
	*ret_seg = seg;
	return 0;
}

static void segment_put_locked(struct mem_segment *seg, uint64_t count, unsigned *inout_files)
{
	assert(seg && seg->refs >= count);
	seg->refs -= count;
	if (seg->refs)
		return;
	TAILQ_INSERT_TAIL(&window.idle, seg, idle);
	window.idle_count++;
	(*inout_files)++;
}

static void window_trim_locked(uint32_t keep)
{
	while (window.idle_count > keep)
		segment_retire_locked(TAILQ_FIRST(&window.idle));
}

/* Drops references of [chunk, end). Return: how many references to the file the caller must drop. */
static unsigned window_unref_locked(struct memfile *mf, uint32_t chunk, uint32_t end)
{
	unsigned files = 0;

	while (chunk < end) {
		struct mem_segment *seg = segment_find(mf, chunk);
		uint32_t n;

		assert(seg);
		n = MIN(end, seg->first + seg->count) - chunk;
		segment_put_locked(seg, n, &files);
		chunk += n;
	}
	return files;
}

int window_ref(struct memfile *mf, uint64_t off, uint64_t size)
{
	uint32_t first, end, chunk;
	unsigned files = 0;
	int err = 0;

	if (!size || off >= HOST_FILE_MAX || size > HOST_FILE_MAX - off)
		return -ENOMEM;
	first = chunk_first(off);
	end = chunk_end(off, size);
	mutex_lock(&window.lock);
	for (chunk = first; chunk < end;) {
		struct mem_segment *seg = segment_find(mf, chunk);
		uint32_t n;

		if (!seg) {
			err = segment_create_locked(mf, chunk, end, &seg);
			if (err)
				break;
			memfile_ref(mf);
		} else if (!seg->refs) {
			TAILQ_REMOVE(&window.idle, seg, idle);
			window.idle_count--;
			memfile_ref(mf);
		}
		n = MIN(end, seg->first + seg->count) - chunk;
		seg->refs += n;
		chunk += n;
	}
	if (err) {
		files = window_unref_locked(mf, first, chunk);
		/* Idle segments give their place back after a grace period; a retry may find it. */
		window_trim_locked(window.idle_count / 2);
	}
	mutex_unlock(&window.lock);
	while (files--)
		memfile_unref(mf);
	return err;
}

void window_unref(struct memfile *mf, uint64_t off, uint64_t size)
{
	unsigned files;

	mutex_lock(&window.lock);
	files = window_unref_locked(mf, chunk_first(off), chunk_end(off, size));
	window_trim_locked(WINDOW_IDLE_MAX);
	mutex_unlock(&window.lock);
	while (files--)
		memfile_unref(mf);
}

void *window_ptr(struct memfile *mf, uint64_t off, uint64_t size, uint64_t *ret_len)
{
	struct mem_segment *seg;
	char *p = NULL;

	if (off >= HOST_FILE_MAX)
		return NULL;
	mutex_lock(&window.lock);
	seg = segment_find(mf, chunk_first(off));
	if (seg) {
		uint64_t skip = off - ((uint64_t)seg->first << MEM_CHUNK_SHIFT);

		p = (char *)segment_addr(seg) + skip;
		*ret_len = MIN(size, segment_size(seg) - skip);
	}
	mutex_unlock(&window.lock);
	return p;
}

void window_drop_file(struct memfile *mf)
{
	struct mem_segment *seg;

	mutex_lock(&window.lock);
	while ((seg = RB_MIN(mem_segment_tree, &mf->segments)))
		segment_retire_locked(seg);
	mutex_unlock(&window.lock);
}

void mem_window_unmap(void)
{
	struct mem_segment *seg;

	mutex_lock(&window.lock);
	if (window.segments <= WINDOW_UNMAP_MAX)
		LIST_FOREACH (seg, &window.all, all)
			/* Shared: nothing is lost. Where it has just become a reservation there is nothing to lose. */
			if (madvise(segment_addr(seg), segment_size(seg), MADV_DONTNEED) < 0)
				log_debug("memfile: unmapping the window: %s", strerror(errno));
	mutex_unlock(&window.lock);
}

int window_map_whole(int fd, uint32_t chunks, uint32_t *ret_at, char **ret_base)
{
	uint64_t size = (uint64_t)chunks << MEM_CHUNK_SHIFT;
	uint32_t at;
	char *base;
	int err;

	mutex_lock(&window.lock);
	at = chunk_map_take(&window.map, chunks, SEGMENT_CHUNKS, CHUNK_NONE);
	mutex_unlock(&window.lock);
	if (at == CHUNK_NONE)
		return -ENOMEM;
	base = window.base + ((uint64_t)at << MEM_CHUNK_SHIFT);
	if (mmap(base, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd,
		 0) == MAP_FAILED) {
		err = -errno;
		mutex_lock(&window.lock);
		chunk_map_give(&window.map, at, chunks);
		mutex_unlock(&window.lock);
		return err;
	}
	*ret_at = at;
	*ret_base = base;
	return 0;
}

void window_unmap_whole(uint32_t at, uint32_t chunks)
{
	char *base = window.base + ((uint64_t)at << MEM_CHUNK_SHIFT);

	/* As segment_free_rcu(): what cannot be taken away is never used again. */
	if (mmap(base, (uint64_t)chunks << MEM_CHUNK_SHIFT, PROT_NONE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
		return;
	mutex_lock(&window.lock);
	chunk_map_give(&window.map, at, chunks);
	mutex_unlock(&window.lock);
}

void window_stats(struct mem_stats *stats)
{
	mutex_lock(&window.lock);
	stats->window_bytes = (uint64_t)window.map.taken << MEM_CHUNK_SHIFT;
	mutex_unlock(&window.lock);
}
