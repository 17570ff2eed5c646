/*
 * platform/systrap/turn.c - who spins when more threads are quick than there are pairs of cores.
 *
 * A thread whose events follow one another quickly costs a microsecond an event while it and the sentry's thread have a core
 * each, and ten and more when both sleep at every event because others want the cores as well. So quick threads take turns: there
 * is one for every two cores. Who has a turn spins; the others wait for theirs, at an event, which is where a thread may be kept
 * waiting like anybody who wants a core. A turn ends when
 *  - its holder blocks in a system call (systrap_turn_blocked(), from the sleeper, before that looks for its wake-up);
 *  - the application computes: a spin was in vain, and the core is counted in `busy`;
 *  - somebody waits and it has lasted SYSTRAP_TURN_US;
 *  - nothing was heard of the holder for that long: it is in a host call. Who waits takes it away.
 * Who computes does not wait, and does not make others wait: threads go on without spinning while those that compute leave no two
 * cores. A thread that was not quick lately spins if there is a turn, and does not wait for one. Threads that sleep after a few
 * events leave turns alone (wait.c: worth_a_turn()).
 *
 * A turn is taken from its holder under the lock only. The thread's own note of it (`mine`) says which one, by a generation: it may
 * outlive the context.
 */
#include "base/sleep.h"
#include "platform/systrap/systrap.h"

enum {
	TURN_NONE,
	TURN_HELD,
	TURN_WAITING,
	TURN_POKED, /* waiting, and to look whether it is interrupted */
};

static _Thread_local struct {
	struct systrap_platform *p;
	struct systrap_thread *thread; /* which may be another context's by now: for a hint only */
	unsigned slot;
	uint64_t generation;
} mine;
static _Thread_local uint32_t blocks;

/* Whose turns threads may have; a thread's note may be of one that is no more. */
static struct systrap_platform *_Atomic present;
static _Atomic uint64_t generations;

void systrap_turns_init(struct systrap_platform *p)
{
	mutex_init(&p->turns.lock, LOCK_LEAF, "systrap turns");
	TAILQ_INIT(&p->turns.waiting);
	p->turns.count = MIN(p->cores.count / 2, SYSTRAP_TURNS_MAX);
	p->turns.wait_ns = SYSTRAP_TURN_WAIT_NS;
	atomic_store(&present, p);
	sleeper_on_block(SLEEPER_BLOCK_PLATFORM, systrap_turn_blocked);
}

void systrap_turns_fini(struct systrap_platform *p)
{
	if (atomic_load(&present) != p)
		return;
	sleeper_on_block(SLEEPER_BLOCK_PLATFORM, NULL);
	atomic_store(&present, NULL);
}

static bool fits(struct systrap_platform *p, unsigned held)
{
	return held <= p->turns.count &&
	       atomic_load_explicit(&p->busy, memory_order_relaxed) + 2 * (int)held <=
		       (int)p->cores.count;
}

static void grant_locked(struct systrap_platform *p, struct platform_context *ctx, uint64_t now)
{
	struct systrap_turns *turns = &p->turns;
	unsigned i = 0;

	while (turns->slots[i].holder)
		i++;
	assert(i < turns->count);
	turns->slots[i].holder = ctx;
	turns->slots[i].generation = atomic_fetch_add(&generations, 1) + 1;
	atomic_fetch_add_explicit(&turns->held, 1, memory_order_relaxed);
	ctx->turn.slot = i;
	ctx->turn.generation = turns->slots[i].generation;
	ctx->turn.since = now;
	atomic_store_explicit(&ctx->turn.seen, now, memory_order_relaxed);
	atomic_store(&ctx->turn.state, TURN_HELD);
}

static void leave_queue_locked(struct systrap_platform *p, struct platform_context *ctx)
{
	TAILQ_REMOVE(&p->turns.waiting, ctx, turn.link);
	atomic_fetch_sub_explicit(&p->turns.nwaiting, 1, memory_order_relaxed);
}

/* Who is first gets a turn that is free; if there can be none, nobody waits for one. */
static void pass_locked(struct systrap_platform *p, uint64_t now)
{
	struct platform_context *first;

	while ((first = TAILQ_FIRST(&p->turns.waiting))) {
		bool fit = fits(p, p->turns.held + 1);

		if (!fit && p->turns.held)
			return;
		leave_queue_locked(p, first);
		if (fit)
			grant_locked(p, first, now);
		else
			atomic_store(&first->turn.state, TURN_NONE);
		systrap_futex_wake(&first->turn.state);
	}
}

static void give_locked(struct systrap_platform *p, struct platform_context *ctx, uint64_t now)
{
	struct systrap_turn *slot = &p->turns.slots[ctx->turn.slot];

	slot->holder = NULL;
	atomic_fetch_sub_explicit(&p->turns.held, 1, memory_order_relaxed);
	atomic_store(&ctx->turn.state, TURN_NONE);
	pass_locked(p, now);
}

void systrap_turn_give(struct platform_context *ctx)
{
	struct systrap_platform *p = ctx->p;

	if (atomic_load_explicit(&ctx->turn.state, memory_order_relaxed) != TURN_HELD)
		return;
	mutex_lock(&p->turns.lock);
	if (atomic_load(&ctx->turn.state) == TURN_HELD)
		give_locked(p, ctx, cores_now());
	mutex_unlock(&p->turns.lock);
}

void systrap_turn_drop(struct platform_context *ctx)
{
	struct systrap_platform *p = ctx->p;

	/* Always: whoever took its turn away, or woke it, holds the lock while it looks at ctx. */
	mutex_lock(&p->turns.lock);
	if (atomic_load(&ctx->turn.state) == TURN_HELD)
		give_locked(p, ctx, cores_now());
	mutex_unlock(&p->turns.lock);
}

void systrap_turn_blocked(void)
{
	struct systrap_platform *p = mine.p;
	struct systrap_turn *slot;

	blocks++;
	if (!p)
		return;
	mine.p = NULL;
	if (p != atomic_load(&present))
		return;
	mutex_lock(&p->turns.lock);
	slot = &p->turns.slots[mine.slot];
	if (slot->holder && slot->generation == mine.generation) {
		/* Its core is wanted. */
		if (!TAILQ_EMPTY(&p->turns.waiting) && mine.thread)
			atomic_store_explicit(mb_yield(mine.thread), 1, memory_order_relaxed);
		atomic_store_explicit(&p->turns.blocked_at, cores_now(), memory_order_relaxed);
		give_locked(p, slot->holder, cores_now());
	}
	mutex_unlock(&p->turns.lock);
}

uint32_t systrap_turn_blocks(void)
{
	return blocks;
}

unsigned systrap_turns_asleep(struct systrap_platform *p)
{
	unsigned n = atomic_load_explicit(&p->turns.nwaiting, memory_order_relaxed);
	uint64_t at = atomic_load_explicit(&p->turns.blocked_at, memory_order_relaxed);

	return 2 * (n + systrap_within(cores_now(), at, 2 * p->turn_ticks));
}

void systrap_turn_poke(struct platform_context *ctx)
{
	uint32_t waiting = TURN_WAITING;

	if (atomic_compare_exchange_strong(&ctx->turn.state, &waiting, TURN_POKED))
		systrap_futex_wake(&ctx->turn.state);
}

/* Turns whose holders have not been heard of. */
static void take_away_locked(struct systrap_platform *p, uint64_t now)
{
	for (unsigned i = 0; i < p->turns.count; i++) {
		struct platform_context *holder = p->turns.slots[i].holder;

		if (holder &&
		    !systrap_within(now,
				    atomic_load_explicit(&holder->turn.seen, memory_order_relaxed),
				    p->turn_ticks)) {
			SYSTRAP_STAT_ADD(p, turns_taken, 1);
			give_locked(p, holder, now);
		}
	}
}

/* Pre: in the queue. Return: it has a turn; otherwise there is none, or it is interrupted. */
static bool wait_for_turn(struct platform_context *ctx)
{
	struct systrap_platform *p = ctx->p;
	uint32_t state;

	SYSTRAP_STAT_ADD(p, turns_waited, 1);
	/* Two that wake one another, and wait for the other's turn instead, sleep as often. */
	blocks++;
	for (;;) {
		int ret = 0;

		/* Pairs with systrap_context_interrupt(): either its poke finds WAITING, or this sees `interrupt`. */
		if (!atomic_load(&ctx->interrupt))
			ret = systrap_futex_wait(&ctx->turn.state, TURN_WAITING, p->turns.wait_ns);
		state = atomic_load(&ctx->turn.state);
		if (state == TURN_HELD || state == TURN_NONE)
			return state == TURN_HELD;
		if (ret != -ETIMEDOUT && !atomic_load(&ctx->interrupt)) {
			/* A late poke may be of an interruption that this thread has answered already. */
			uint32_t poked = TURN_POKED;

			atomic_compare_exchange_strong(&ctx->turn.state, &poked, TURN_WAITING);
			continue;
		}
		mutex_lock(&p->turns.lock);
		take_away_locked(p, cores_now());
		state = atomic_load(&ctx->turn.state);
		if (atomic_load(&ctx->interrupt) && state != TURN_HELD && state != TURN_NONE) {
			leave_queue_locked(p, ctx);
			atomic_store(&ctx->turn.state, TURN_NONE);
		}
		mutex_unlock(&p->turns.lock);
	}
}

bool systrap_turn_take(struct platform_context *ctx, bool quick, uint64_t now)
{
	struct systrap_platform *p = ctx->p;
	struct systrap_turns *turns = &p->turns;
	bool wait = false, held;

	if (likely(atomic_load_explicit(&ctx->turn.state, memory_order_relaxed) == TURN_HELD)) {
		atomic_store_explicit(&ctx->turn.seen, now, memory_order_relaxed);
		if (likely(mine.p &&
			   (!atomic_load_explicit(&turns->nwaiting, memory_order_relaxed) ||
			    systrap_within(now, ctx->turn.since, p->turn_ticks)) &&
			   fits(p, atomic_load_explicit(&turns->held, memory_order_relaxed))))
			return true;
		systrap_turn_give(ctx);
	}
	mutex_lock(&turns->lock);
	if (TAILQ_EMPTY(&turns->waiting) && fits(p, turns->held + 1)) {
		grant_locked(p, ctx, now);
	} else if (quick && turns->held && !atomic_load(&ctx->interrupt)) {
		atomic_store(&ctx->turn.state, TURN_WAITING);
		TAILQ_INSERT_TAIL(&turns->waiting, ctx, turn.link);
		atomic_fetch_add_explicit(&turns->nwaiting, 1, memory_order_relaxed);
		wait = true;
	}
	mutex_unlock(&turns->lock);
	ctx->turn.waited = wait;
	held = wait ? wait_for_turn(ctx)
		    : atomic_load_explicit(&ctx->turn.state, memory_order_relaxed) == TURN_HELD;
	if (held) {
		mine.p = p;
		mine.thread = ctx->thread;
		mine.slot = ctx->turn.slot;
		mine.generation = ctx->turn.generation;
	}
	return held;
}
