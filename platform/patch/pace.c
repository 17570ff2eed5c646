/*
 * platform/patch/pace.c - which calls are hot enough to be patched, and when listening for posted ones pays.
 */
#include "platform/patch/patch.h"

/* ---- heat ---- */

#define HEAT_HOT 64u
#define HEAT_COLD (1u << 31)
#define HEAT_PATCHED (1u << 30)
#define HEAT_COUNT (HEAT_PATCHED - 1)

static unsigned heat_index(uint64_t rip)
{
	return (unsigned)((rip * 0x9e3779b97f4a7c15ull) >> 58) % PATCH_HEAT_SLOTS;
}

bool patch_heat_note(struct patch_heat *heat, uint64_t rip)
{
	unsigned i = heat_index(rip);
	uint64_t has = atomic_load_explicit(&heat->slots[i].rip, memory_order_relaxed);
	uint32_t count = atomic_load_explicit(&heat->slots[i].count, memory_order_relaxed);

	if (likely(has == rip)) {
		if (count & HEAT_COLD)
			return false;
		atomic_store_explicit(&heat->slots[i].count, count + 1, memory_order_relaxed);
		return (count + 1) % (heat->hot ? heat->hot : HEAT_HOT) == 0;
	}
	/* Whoever holds the slot cools down before it is taken over. */
	if (has && (count & HEAT_COUNT)) {
		atomic_store_explicit(&heat->slots[i].count, count - 1, memory_order_relaxed);
		return false;
	}
	atomic_store_explicit(&heat->slots[i].rip, rip, memory_order_relaxed);
	atomic_store_explicit(&heat->slots[i].count, 1, memory_order_relaxed);
	return false;
}

static void heat_mark(struct patch_heat *heat, uint64_t rip, uint32_t mark)
{
	unsigned i = heat_index(rip);

	if (atomic_load_explicit(&heat->slots[i].rip, memory_order_relaxed) == rip)
		atomic_store_explicit(&heat->slots[i].count, mark | HEAT_HOT, memory_order_relaxed);
}

void patch_heat_cold(struct patch_heat *heat, uint64_t rip)
{
	heat_mark(heat, rip, HEAT_COLD);
}

void patch_heat_patched(struct patch_heat *heat, uint64_t rip)
{
	heat_mark(heat, rip, HEAT_COLD | HEAT_PATCHED);
}

bool patch_heat_is_patched(const struct patch_heat *heat, uint64_t rip)
{
	unsigned i = heat_index(rip);

	return atomic_load_explicit(&heat->slots[i].rip, memory_order_relaxed) == rip &&
	       (atomic_load_explicit(&heat->slots[i].count, memory_order_relaxed) & HEAT_PATCHED);
}

void patch_heat_reset(struct patch_heat *heat)
{
	for (unsigned i = 0; i < PATCH_HEAT_SLOTS; i++)
		atomic_store_explicit(&heat->slots[i].count, 0, memory_order_relaxed);
}

/* ---- when to listen ---- */

#define PACE_SCORE_ON 12u
#define PACE_SOON_NS 60000
/* What hand-offs may have gained at most when one fails: so that the recent past decides. */
#define PACE_CREDIT_MAX_NS 400000
/* What a series may cost before it is in the red: to begin one costs a wake-up, which the calls to come repay. */
#define PACE_STAKE_NS 200000
/* A series that lost so much keeps hand-offs off for PACE_REST times as long, doubled while they go on failing. */
#define PACE_REST 24
#define PACE_REST_MAX_NS 500000000
#define PACE_TRAP_MAX_NS 40000
/* Without a core: asked again after the first, then ever later, up to the second. */
#define PACE_DEFER_MIN_NS 50000
#define PACE_DEFER_MAX_NS 4000000

void patch_pace_trapped(struct patch_pace *p, int64_t ns, int64_t now_ns)
{
	/* One that the scheduler made long says nothing of what a trap costs. */
	if (ns < PACE_TRAP_MAX_NS)
		p->trap_ns += (ns - p->trap_ns) / 16;
	p->score = ns < PACE_SOON_NS ? p->score + 1 : p->score / 2;
	if (p->score < PACE_SCORE_ON << p->patience || now_ns < p->rest_until_ns)
		return;
	p->on = true;
	p->score = 0;
	p->credit_ns = 0;
}

bool patch_pace_on(const struct patch_pace *p)
{
	return p->on;
}

void patch_pace_defer(struct patch_pace *p, int64_t now_ns)
{
	/* So that whenever a core becomes free, we are late by a quarter of the time that there was none. */
	p->defer_ns = MIN(MAX(p->defer_ns + p->defer_ns / 4, PACE_DEFER_MIN_NS), PACE_DEFER_MAX_NS);
	p->rest_until_ns = MAX(p->rest_until_ns, now_ns + p->defer_ns);
	/* It has not become less hot. */
	p->score = PACE_SCORE_ON << p->patience;
	p->on = false;
}

static void pace_settle(struct patch_pace *p, int64_t now_ns)
{
	if (p->credit_ns >= -PACE_STAKE_NS)
		return;
	p->rest_ns = MIN(MAX(p->rest_ns * 2, -p->credit_ns * PACE_REST), PACE_REST_MAX_NS);
	p->rest_until_ns = now_ns + p->rest_ns;
	p->credit_ns = 0;
	p->score = 0;
	p->on = false;
}

void patch_pace_hit(struct patch_pace *p, int64_t ns, int64_t now_ns)
{
	p->credit_ns += p->trap_ns - ns;
	if (p->credit_ns > PACE_CREDIT_MAX_NS) {
		p->credit_ns = PACE_CREDIT_MAX_NS;
		p->rest_ns -= p->rest_ns / 64;
		p->defer_ns = 0;
	} else if (ns > p->trap_ns) {
		pace_settle(p, now_ns);
	}
}

void patch_pace_miss(struct patch_pace *p, int64_t lost_ns, int64_t now_ns)
{
	p->credit_ns -= lost_ns;
	pace_settle(p, now_ns);
}
