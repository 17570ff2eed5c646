/*
 * sentry/loader/vdso.c - the vDSO's pages, and the clock parameters in the first of them.
 *
 * One chunk of private memory: the data page, then the image. Both are mapped as a file would be; the data page shared
 * and for good read-only, so that a debugger cannot copy it away from the clock.
 *
 * A clock's line is continuous: each update starts where the old line is now, or where it ended, and gets the slope
 * that meets the host's clock in a second. Only a step of more than VDSO_STEP_NS jumps: REALTIME either
 * way, MONOTONIC forward.
 *
 * A line ends after a second. The first who asks for the time after that makes the system call, which draws the next one and answers
 * from it: nobody asks, and no thread wakes up. Every such call answers by a line, also when another thread has drawn it meanwhile: the host's clock
 * may be behind what the caller has read.
 *
 * The counter may jump: set back by the host's suspend, or going on while CLOCK_MONOTONIC stands (suspend to idle, a host that is a paused virtual machine). What
 * was measured across that says nothing of its rate. Where it happens again and again, counters differ by CPU: then everybody makes the call.
 */
#include <cpuid.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <x86intrin.h>

#include "base/lock.h"
#include "base/sleep.h"
#include "sentry/loader.h"
#include "sentry/loader/vdso/data.h"

#define VDSO_STEP_NS 1000000l
#define VDSO_PERIOD_NS 1000000000l
#define VDSO_FIRST_NS 2000000l /* the first calibration's length, at least */
#define VDSO_JUMP_NS 10000000l /* so far apart, and an eighth: more than any clock is slewed */
#define VDSO_JUMPS_MAX 16
#define VDSO_TRIES 4
#define VDSO_IMAGE_MAX (MEM_CHUNK_SIZE - MOAT_PAGE_SIZE)

extern const char vdso_image_start[], vdso_image_end[];

struct clock_sample {
	uint64_t tsc;
	int64_t ns[VDSO_CLOCKS];
};

static struct {
	uint64_t mf_off; /* immutable: the chunk */
	size_t image_size; /* immutable: bytes, page multiple */
	struct vdso_data *data; /* in the chunk */
	struct mappable mappable;
	_Atomic bool tsc_ok; /* goes once, under lock */
	struct mutex lock; /* LOCK_LEAF: below */
	struct clock_sample first; /* calibration starts here */
	struct clock_sample last; /* the lines start here */
	uint64_t rate; /* ns per cycle, 32.32 */
	unsigned jumps; /* of the counter */
	_Atomic bool started;
} vdso;

static const clockid_t vdso_host_clock[VDSO_CLOCKS] = {CLOCK_REALTIME, CLOCK_MONOTONIC};

/* Reads counter and clocks close together: the shortest of a few tries counts. */
static void sample_clocks(struct clock_sample *ret)
{
	uint64_t best = UINT64_MAX;
	int i, k;

	for (i = 0; i < 8; i++) {
		struct clock_sample s;
		uint64_t before = __rdtsc(), after;

		for (k = 0; k < VDSO_CLOCKS; k++) {
			struct timespec ts;

			clock_gettime(vdso_host_clock[k], &ts);
			s.ns[k] = ts.tv_sec * 1000000000l + ts.tv_nsec;
		}
		after = __rdtsc();
		if (after - before < best) {
			best = after - before;
			s.tsc = before + best / 2;
			*ret = s;
		}
	}
}

static bool tsc_is_invariant(void)
{
	unsigned a, b, c, d;

	return __get_cpuid(0x80000007, &a, &b, &c, &d) && (d & (1u << 8));
}

static uint64_t rate_between(const struct clock_sample *from, const struct clock_sample *to)
{
	uint64_t cycles = to->tsc - from->tsc;
	uint64_t ns = (uint64_t)(to->ns[VDSO_MONOTONIC] - from->ns[VDSO_MONOTONIC]);

	return cycles ? (uint64_t)(((unsigned __int128)ns << 32) / cycles) : 0;
}

/* What the application computes for `tsc` now. */
static int64_t line_at(const struct vdso_clock *c, uint64_t tsc)
{
	return (int64_t)(c->base_ns +
			 (uint64_t)(((unsigned __int128)(tsc - c->base_tsc) * c->mult) >> 32));
}

/* How a line is drawn. */
enum line_start {
	LINE_FRESH, /* there is none before */
	LINE_NEXT,
	LINE_JUMPED, /* the old line's cycles are not today's */
};

/* The next line of one clock, from where the old one is at s: nobody has read it beyond its end. */
static struct vdso_clock next_line(const struct vdso_clock *old, const struct clock_sample *s,
				   int which, enum line_start how)
{
	struct vdso_clock c = {
		.base_tsc = s->tsc, .base_ns = (uint64_t)s->ns[which], .mult = vdso.rate};
	uint64_t end = old->base_tsc + vdso.data->valid;
	bool ended = how == LINE_JUMPED || s->tsc > end;
	int64_t behind, at;

	if (how == LINE_FRESH)
		return c;
	at = line_at(old, ended ? end : s->tsc);
	/* How far it was read nobody knows; it was not that far ahead of the host's clock. */
	if (how == LINE_JUMPED)
		at = MIN(at, s->ns[which] + VDSO_STEP_NS);
	behind = s->ns[which] - at;
	/* Forward after its end nobody sees a jump; whoever slept until then must not read that it is earlier. */
	if (behind > 0 && ended)
		return c;
	if (behind > VDSO_STEP_NS || (which == VDSO_REALTIME && behind < -VDSO_STEP_NS))
		return c;
	if (behind < -VDSO_PERIOD_NS / 2)
		behind = -VDSO_PERIOD_NS / 2;
	c.base_ns = (uint64_t)at;
	c.mult = (uint64_t)((unsigned __int128)vdso.rate * (uint64_t)(VDSO_PERIOD_NS + behind) /
			    VDSO_PERIOD_NS);
	return c;
}

static void publish_locked(const struct clock_sample *s, enum line_start how)
{
	struct vdso_data *d = vdso.data;
	struct vdso_clock next[VDSO_CLOCKS];
	/* A slope of a few milliseconds is not to be trusted for a second. */
	int64_t known = s->ns[VDSO_MONOTONIC] - vdso.first.ns[VDSO_MONOTONIC];
	uint64_t valid_ns = known < VDSO_PERIOD_NS / 10 ? VDSO_PERIOD_NS / 10 : VDSO_PERIOD_NS;
	uint64_t valid = (uint64_t)(((unsigned __int128)valid_ns << 32) / vdso.rate);
	int k;

	for (k = 0; k < VDSO_CLOCKS; k++)
		next[k] = next_line(&d->clock[k], s, k, how);
	/* Pairs with read_clock() in vdso/vdso.c: odd before the words, even after. x86 keeps stores in order. */
	__atomic_store_n(&d->seq, d->seq + 1, __ATOMIC_SEQ_CST);
	for (k = 0; k < VDSO_CLOCKS; k++) {
		__atomic_store_n(&d->clock[k].base_tsc, next[k].base_tsc, __ATOMIC_RELAXED);
		__atomic_store_n(&d->clock[k].base_ns, next[k].base_ns, __ATOMIC_RELAXED);
		__atomic_store_n(&d->clock[k].mult, next[k].mult, __ATOMIC_RELAXED);
	}
	__atomic_store_n(&d->valid, valid, __ATOMIC_RELAXED);
	__atomic_store_n(&d->usable, 1, __ATOMIC_RELAXED);
	__atomic_store_n(&d->seq, d->seq + 1, __ATOMIC_RELEASE);
	vdso.last = *s;
}

/* Nobody reads a line again; when this returns the host's clock is where the last one ended, or near. Pre: vdso.lock. */
static void give_up_locked(const struct clock_sample *s)
{
	const struct vdso_clock *c = &vdso.data->clock[VDSO_MONOTONIC];
	int64_t end = MIN(line_at(c, c->base_tsc + vdso.data->valid),
			  s->ns[VDSO_MONOTONIC] + VDSO_STEP_NS);

	vdso.tsc_ok = false;
	vdso.started = false;
	__atomic_store_n(&vdso.data->seq, vdso.data->seq + 1, __ATOMIC_SEQ_CST);
	__atomic_store_n(&vdso.data->usable, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&vdso.data->seq, vdso.data->seq + 1, __ATOMIC_RELEASE);
	while (time_monotonic_ns() < end)
		_mm_pause();
}

static bool counter_jumped(const struct clock_sample *from, const struct clock_sample *to)
{
	uint64_t cycles = to->tsc - from->tsc;
	int64_t ns = to->ns[VDSO_MONOTONIC] - from->ns[VDSO_MONOTONIC];
	unsigned __int128 counted = ((unsigned __int128)cycles * vdso.rate) >> 32;

	if ((int64_t)cycles < 0 || counted > INT64_MAX)
		return true;
	return labs((int64_t)counted - ns) > ns / 8 + VDSO_JUMP_NS;
}

/* Pre: vdso.lock. */
static void update_locked(void)
{
	enum line_start how = vdso.data->usable ? LINE_NEXT : LINE_FRESH;
	struct clock_sample s;
	int64_t known;
	bool idle;

	if (!vdso.tsc_ok)
		return;
	sample_clocks(&s);
	idle = s.ns[VDSO_MONOTONIC] - vdso.last.ns[VDSO_MONOTONIC] > 2 * VDSO_PERIOD_NS;
	if (how == LINE_NEXT && counter_jumped(&vdso.last, &s))
		how = LINE_JUMPED;
	if (how == LINE_JUMPED && !idle && ++vdso.jumps > VDSO_JUMPS_MAX) {
		give_up_locked(&s);
		return;
	}
	/* Nor over a while in which nobody looked whether it jumped. */
	if (how == LINE_JUMPED || (how == LINE_NEXT && idle))
		vdso.first = s;
	known = s.ns[VDSO_MONOTONIC] - vdso.first.ns[VDSO_MONOTONIC];
	/* Sooner its rate is not to be known, but from before. */
	if (known >= VDSO_FIRST_NS)
		vdso.rate = rate_between(&vdso.first, &s);
	if (vdso.rate)
		publish_locked(&s, how);
	/* The rate over the last while, not over a lifetime in which the host slewed its clock. */
	if (known > 64 * VDSO_PERIOD_NS) {
		vdso.first = s;
		vdso.jumps = 0;
	}
}

void vdso_update_time(void)
{
	mutex_lock(&vdso.lock);
	update_locked();
	mutex_unlock(&vdso.lock);
}

/* As read_clock() in vdso/vdso.c, which never waits: false also if somebody writes. */
static bool line_read(int which, int64_t *ret_ns)
{
	const struct vdso_data *d = vdso.data;
	unsigned seq = __atomic_load_n(&d->seq, __ATOMIC_ACQUIRE);
	bool usable = __atomic_load_n(&d->usable, __ATOMIC_RELAXED);
	struct vdso_clock c = {
		.base_tsc = __atomic_load_n(&d->clock[which].base_tsc, __ATOMIC_RELAXED),
		.base_ns = __atomic_load_n(&d->clock[which].base_ns, __ATOMIC_RELAXED),
		.mult = __atomic_load_n(&d->clock[which].mult, __ATOMIC_RELAXED),
	};
	uint64_t valid = __atomic_load_n(&d->valid, __ATOMIC_RELAXED), tsc;

	_mm_lfence();
	tsc = __rdtsc();
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	if (!usable || (seq & 1) || seq != __atomic_load_n(&d->seq, __ATOMIC_RELAXED))
		return false;
	if (c.base_tsc - tsc < VDSO_SKEW_CYCLES)
		tsc = c.base_tsc;
	if (tsc - c.base_tsc > valid)
		return false;
	*ret_ns = line_at(&c, tsc);
	return true;
}

bool vdso_clock_read(bool monotonic, int64_t *ret_ns)
{
	int which = monotonic ? VDSO_MONOTONIC : VDSO_REALTIME;
	bool held;

	if (!atomic_load_explicit(&vdso.started, memory_order_relaxed))
		return false;
	if (line_read(which, ret_ns))
		return true;
	mutex_lock(&vdso.lock);
	held = line_read(which, ret_ns);
	/* Who is frozen meanwhile may find that the new one has ended, too. */
	for (int i = 0; !held && i < VDSO_TRIES; i++) {
		update_locked();
		held = line_read(which, ret_ns);
	}
	mutex_unlock(&vdso.lock);
	return held;
}

/* The first program waits out the rest of the first calibration, so the first call costs no exit. */
static void vdso_start(void)
{
	int64_t ready = vdso.first.ns[VDSO_MONOTONIC] + VDSO_FIRST_NS;
	bool start;

	if (!vdso.tsc_ok)
		return;
	mutex_lock(&vdso.lock);
	start = !vdso.started;
	vdso.started = true;
	mutex_unlock(&vdso.lock);
	if (!start)
		return;
	while (time_monotonic_ns() < ready)
		_mm_pause();
	vdso_update_time();
}

static int vdso_translate(struct mappable *m, uint64_t off, uint64_t hint_start, uint64_t hint_end,
			  unsigned access, struct mem_trans *ret)
{
	uint64_t size = MOAT_PAGE_SIZE + vdso.image_size;

	(void)m;
	(void)access;
	if (off >= size)
		return -EFAULT;
	ret->mf = mem_private();
	ret->mf_off = vdso.mf_off + hint_start;
	ret->start = hint_start;
	ret->size = MIN(hint_end, size) - hint_start;
	ret->access = MEM_READ | MEM_EXEC;
	return memfile_range_ref(ret->mf, ret->mf_off, ret->size);
}

/* Lives as long as the process. */
static void vdso_ref(struct mappable *m)
{
	(void)m;
}

static const struct mappable_ops vdso_ops = {
	.translate = vdso_translate,
	.ref = vdso_ref,
	.unref = vdso_ref,
};

int vdso_init(void)
{
	size_t size = (size_t)(vdso_image_end - vdso_image_start);
	char *chunk;
	int err;

	if (vdso.data)
		return 0;
	if (size > VDSO_IMAGE_MAX)
		return -E2BIG;
	err = memfile_alloc(mem_private(), MEM_CHUNK_SIZE, 0, 0, &vdso.mf_off);
	if (err)
		return err;
	chunk = memfile_ptr(mem_private(), vdso.mf_off);
	memcpy(chunk + MOAT_PAGE_SIZE, vdso_image_start, size);
	vdso.image_size = round_up_u64(size, MOAT_PAGE_SIZE);
	vdso.data = (struct vdso_data *)(void *)chunk;
	mappable_init(&vdso.mappable, &vdso_ops);
	mutex_init(&vdso.lock, LOCK_LEAF, "vdso");
	vdso.tsc_ok = tsc_is_invariant();
	sample_clocks(&vdso.first);
	return 0;
}

int vdso_map(struct mm *mm, uint64_t *ret_base)
{
	const struct mm_limits none = {UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX};
	struct mm_map_args map = {
		.size = MOAT_PAGE_SIZE + vdso.image_size,
		.prot = PROT_READ,
		.max_prot = PROT_READ,
		.shared = true,
		.mappable = &vdso.mappable,
		.name = "[vvar]",
	};
	uint64_t base;
	int err;

	if (!vdso.data) {
		*ret_base = 0;
		return 0;
	}
	vdso_start();
	err = mm_map(mm, &map, &none, &base);
	if (err)
		return err;
	map.addr = base + MOAT_PAGE_SIZE;
	map.fixed = true;
	map.size = vdso.image_size;
	map.off = MOAT_PAGE_SIZE;
	map.prot = PROT_READ | PROT_EXEC;
	map.max_prot = PROT_READ | PROT_WRITE | PROT_EXEC;
	map.shared = false;
	map.name = "[vdso]";
	err = mm_map(mm, &map, &none, ret_base);
	return err;
}
