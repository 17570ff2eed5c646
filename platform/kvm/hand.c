/*
 * platform/kvm/hand.c - hand-offs: a companion sits in KVM_RUN, the task's thread serves what the trampolines post.
 *
 * Roles. The companion belongs to a vCPU; it obeys one order, "run what is loaded until there is an event", and
 * then waits for the next. The task's thread gives the order, then looks at the mailbox and at `busy`. States:
 *
 *	not held	the companion is idle; kvm_context_switch() runs the vCPU on the task's thread
 *	running		companion in KVM_RUN, task's thread inside hand_wait()
 *	held		a posted call was taken: the application waits in its trampoline, or has given up there, which
 *			ended the order; the task's thread is above, with the call. Its registers are the truth:
 *			whatever the companion brings meanwhile is thrown away.
 *
 * From held: only rax differs, and the companion is still there: the reply is two stores. Other registers differ as well
 * (a signal's handler): the trampoline loads them all. Segments differ, or its patience has ended: the companion
 * comes out and all registers are loaded. FPU state that is asked for is written down by the trampoline. When nothing is posted for SPIN_US the companion is kicked out, and the
 * task's thread runs the vCPU itself: so the application's own work is done, and accounted, on its thread. patch_pace
 * decides whether to try again. Nobody spins for longer than SPIN_US, and nobody sleeps while it is waited for.
 *
 * A hand-off needs two cores, one for each of the two threads. Without a free one there is none: before a companion is
 * given anything, and every HITS_A_LOOK calls after that, core_is_free() asks how many threads of the machine want one now
 * (not a mean over a time: others that come for a few microseconds and go do not end a hand-off, see core_was_taken()).
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/futex.h"
#include "base/log.h"
#include "base/sleep.h"
#include "base/spin.h"
#include "platform/kvm/kvm.h"

#define HAND_STACK_SIZE (256ul << 10)
/* The task's thread looks this long for the next call, the companion for the next order. */
#define SPIN_US 60u
/* A companion that has not begun by then has no core: the order is withdrawn. */
#define BEGIN_SPIN_US 100u
/* The first call of a hand-off may take as much longer: the vCPU has come to another core. */
#define ENTER_SPIN_US 60u
#define ORDER_SPIN_US 30u
/* How long the application leaves the companion alone before it is kicked out. */
#define LEAVE_SPIN_US 60u
/* Looks of the trampoline for the answer, about 50 ns each. */
#define TRAMPOLINE_SPINS 800u
/* The host has no thread for us: as bad as a hand-off that cost this. */
#define NO_COMPANION_NS 100000000
#define STOP_RETRY_NS 10000000l
#define HITS_A_LOOK 64u
/* Others wanted a core for so long: a hand-off ends. What is shorter would not have let us have one either. */
#define SHORT_NS 300000
/* What an event that needed an exit all the same costs besides it: a second core was held for nothing. */
#define EXIT_FEE_NS 5000
/* What a call that outlasted the trampoline's patience cost besides traps: a core that spun until then. */
#define ABANDONED_NS 40000

enum hand_busy {
	HAND_IDLE,
	HAND_GIVEN, /* there is an order; who gave it may withdraw it */
	HAND_RUNS,
};

struct kvm_hand {
	struct kvm_vcpu *v; /* immutable */
	pthread_t thread; /* immutable */
	int away_from; /* the task's thread's: the core that the companion is kept off, or -1 */
	_Atomic uint32_t order; /* futex: a count; changes when there is an order */
	_Atomic bool asleep; /* the companion waits for `order` by futex */
	_Atomic bool end;
	_Atomic uint32_t busy; /* futex: enum hand_busy */
	_Atomic uint32_t waiters; /* for busy */
	struct address_space *_Atomic as; /* of the last order */
	/* The order, and its outcome: whose turn it is owns them. */
	struct platform_context *ctx;
	struct arch_regs regs;
	struct platform_event ev;
	const struct patch_space *space;
	int err;
	/* The task's thread's: calls since the order; since when others have wanted the core, 0: they do not. */
	uint32_t hits;
	int64_t short_since_ns;
};

static uint64_t tsc(void)
{
	return __builtin_ia32_rdtsc();
}

static int64_t tsc_to_ns(const struct kvm_platform *p, uint64_t ticks)
{
	return (int64_t)(ticks * 1000 / p->tsc_per_us);
}

/* ---- the companion ---- */

static bool order_wait(struct kvm_hand *h, uint32_t seen)
{
	uint64_t until = tsc() + ORDER_SPIN_US * h->v->p->tsc_per_us;

	while (atomic_load_explicit(&h->order, memory_order_acquire) == seen && tsc() < until)
		cpu_relax();
	while (atomic_load(&h->order) == seen && !atomic_load(&h->end)) {
		/* Pairs with order_give(): one of the two sees the other's store. */
		atomic_store(&h->asleep, true);
		if (atomic_load(&h->order) == seen && !atomic_load(&h->end))
			(void)futex_wait(&h->order, seen, NULL);
		atomic_store(&h->asleep, false);
	}
	return !atomic_load(&h->end);
}

static void *companion(void *arg)
{
	struct kvm_hand *h = arg;
	uint32_t seen = 0;

	while (order_wait(h, seen)) {
		uint32_t given = HAND_GIVEN;

		seen = atomic_load_explicit(&h->order, memory_order_acquire);
		if (!atomic_compare_exchange_strong(&h->busy, &given, HAND_RUNS))
			continue;
		/* Not before: an order that came too late was withdrawn, and the vCPU is the task's thread's then. */
		kvm_vcpu_adopt(h->v);
		h->err = kvm_run_until_event(h->v, h->ctx, atomic_load(&h->as), &h->regs, &h->ev,
					     &h->space);
		atomic_store(&h->busy, HAND_IDLE);
		if (unlikely(atomic_load(&h->waiters)))
			futex_wake(&h->busy, INT32_MAX);
	}
	return NULL;
}

static struct kvm_hand *hand_create(struct kvm_vcpu *v)
{
	struct kvm_hand *h = calloc(1, sizeof(*h));
	pthread_attr_t attr;
	sigset_t all, old;
	int err;

	if (!h)
		return NULL;
	h->v = v;
	h->away_from = -1;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, HAND_STACK_SIZE);
	/* It takes no signal but the kick, which it lets in itself. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(&h->thread, &attr, companion, h);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	if (err) {
		log_info("kvm: no companion for vCPU %u: %s", v->id, strerror(err));
		free(h);
		return NULL;
	}
	atomic_store(&v->hand, h);
	return h;
}

void kvm_hand_destroy(struct kvm_vcpu *v)
{
	struct kvm_hand *h = atomic_load(&v->hand);

	if (!h)
		return;
	atomic_store(&h->end, true);
	atomic_fetch_add(&h->order, 1);
	futex_wake(&h->order, 1);
	pthread_join(h->thread, NULL);
	atomic_store(&v->hand, NULL);
	free(h);
}

/* ---- the task's thread ---- */

/* Is there a core for one more thread than those that run now? `more`: 1, or 0 when the companion is one of them. */
static bool core_is_free(const struct kvm_vcpu *v, unsigned more)
{
	struct kvm_platform *p = v->p;
	unsigned running = 2; /* the task's thread and the companion */

	/* Other vCPUs that run, each on a thread of ours: our share of the machine may be a part of it. */
	for (unsigned id = 0; id < atomic_load(&p->nvcpus) && running <= p->cores; id++) {
		struct kvm_vcpu *other = atomic_load(&p->vcpus[id]);

		if (other && other != v &&
		    (atomic_load_explicit(&other->gen, memory_order_relaxed) & 1))
			running++;
	}
	return running <= p->cores && spin_running(p->load_fd) + more <= p->machine_cores;
}

/* In a hand-off: have others wanted our second core for some time? */
static bool core_was_taken(struct kvm_hand *h)
{
	int64_t now;

	if (likely(++h->hits % HITS_A_LOOK))
		return false;
	if (likely(core_is_free(h->v, 0))) {
		h->short_since_ns = 0;
		return false;
	}
	now = time_monotonic_ns();
	if (!h->short_since_ns)
		h->short_since_ns = now;
	return now - h->short_since_ns > SHORT_NS;
}

/*
 * The companion is about to be woken: on another core than this one, where it would have to wait for us while we wait for
 * it. The scheduler does not know that, and prefers the core of who wakes.
 */
static void keep_away(struct kvm_hand *h)
{
	int here = sched_getcpu();
	cpu_set_t cpus;

	if (likely(here == h->away_from) || here < 0 || here >= CPU_SETSIZE)
		return;
	cpus = h->v->p->cpus;
	CPU_CLR(here, &cpus);
	/* Where it may not be moved it stays where it is. */
	if (CPU_COUNT(&cpus))
		(void)pthread_setaffinity_np(h->thread, sizeof(cpus), &cpus);
	h->away_from = here;
}

static void order_give(struct kvm_hand *h, struct platform_context *ctx, struct address_space *as)
{
	h->ctx = ctx;
	atomic_store(&h->as, as);
	atomic_store(&h->v->stop, false);
	atomic_store(&h->busy, HAND_GIVEN);
	atomic_fetch_add(&h->order, 1);
	if (atomic_load(&h->asleep))
		futex_wake(&h->order, 1);
}

static bool hand_idle(struct kvm_hand *h)
{
	return atomic_load_explicit(&h->busy, memory_order_acquire) == HAND_IDLE;
}

/* Any thread. The order ends soon, whatever the application does. */
static void hand_stop(struct kvm_hand *h)
{
	uint32_t busy;

	atomic_store(&h->v->stop, true);
	atomic_fetch_add(&h->waiters, 1);
	while ((busy = atomic_load(&h->busy)) != HAND_IDLE) {
		int64_t at = time_monotonic_ns() + STOP_RETRY_NS;
		struct timespec deadline = {at / 1000000000, at % 1000000000};

		kvm_vcpu_kick(h->v);
		(void)futex_wait(&h->busy, busy, &deadline);
	}
	atomic_fetch_sub(&h->waiters, 1);
}

/* The application is in its trampoline: it leaves by itself, if it is honest. */
static void hand_leave(struct kvm_hand *h, struct platform_context *ctx)
{
	uint64_t until = tsc() + LEAVE_SPIN_US * h->v->p->tsc_per_us;

	if (ctx->mb)
		patch_mailbox_leave(ctx->mb);
	while (!hand_idle(h) && tsc() < until)
		cpu_relax();
	if (!hand_idle(h))
		hand_stop(h);
}

static void hand_over(struct kvm_hand *h, struct platform_context *ctx)
{
	if (ctx->mb)
		patch_mailbox_listen(ctx->mb, false, TRAMPOLINE_SPINS);
	h->ctx = NULL;
	ctx->held = false;
	atomic_store(&ctx->running, NULL);
	kvm_vcpu_adopt(h->v);
}

/* The order has ended with an event. Return: as kvm_hand_run(). */
static int hand_collect(struct kvm_hand *h, struct platform_context *ctx, struct arch_regs *regs,
			struct platform_event *ev)
{
	struct address_space *as = atomic_load(&h->as);

	*regs = h->regs;
	*ev = h->ev;
	hand_over(h, ctx);
	if (unlikely(h->err))
		return h->err;
	/* Here, not by the companion: whether the call in the trampoline was answered before it left is known only now. */
	if (h->space && (patch_rip_inside(regs->r.rip) || kvm_in_lstar(h->v, regs->r.rip)))
		kvm_patch_resolve(h->space, regs->r.gs_base ? NULL : ctx->mb, regs, ev);
	if (ev->kind == PLATFORM_SYSCALL)
		kvm_patch_note(as, regs);
	return 0;
}

/* Nothing came since `start`. The companion comes out; unless it brings an event the caller runs on here. */
static int hand_give_up(struct kvm_hand *h, struct platform_context *ctx, struct arch_regs *regs,
			struct platform_event *ev, uint64_t start)
{
	int err;

	KVM_STAT_ADD(ctx->p, handoff_misses, 1);
	patch_mailbox_listen(ctx->mb, false, TRAMPOLINE_SPINS);
	hand_stop(h);
	patch_pace_miss(&ctx->pace, tsc_to_ns(h->v->p, tsc() - start), time_monotonic_ns());
	err = hand_collect(h, ctx, regs, ev);
	if (!err && ev->kind == PLATFORM_INTERRUPTED && !atomic_load(&ctx->interrupt))
		return 1;
	return err;
}

static void hand_came(struct kvm_hand *h, struct platform_context *ctx, uint64_t start,
		      int64_t fee_ns)
{
	int64_t ns = tsc_to_ns(h->v->p, tsc() - start) + fee_ns;

	/* The clock is read only where it may matter. */
	patch_pace_hit(&ctx->pace, ns, ns < ctx->pace.trap_ns ? 0 : time_monotonic_ns());
}

/* Until the companion has begun. Return: 0; 1: it has no core, and does not know of the order any more. */
static int hand_begin(struct kvm_hand *h, struct platform_context *ctx, uint64_t start)
{
	const uint64_t until = tsc() + BEGIN_SPIN_US * h->v->p->tsc_per_us;
	uint32_t given = HAND_GIVEN;

	while (atomic_load_explicit(&h->busy, memory_order_acquire) == HAND_GIVEN) {
		cpu_relax();
		if (tsc() > until && atomic_compare_exchange_strong(&h->busy, &given, HAND_IDLE)) {
			KVM_STAT_ADD(ctx->p, handoff_misses, 1);
			patch_pace_miss(&ctx->pace, tsc_to_ns(h->v->p, tsc() - start),
					time_monotonic_ns());
			hand_over(h, ctx);
			return 1;
		}
	}
	return 0;
}

/*
 * Since `start`, which is before the wake-up that it took: that is part of what a hand-off costs. Looks for `spin_us` at
 * most.
 */
static int hand_wait(struct kvm_hand *h, struct platform_context *ctx, struct arch_regs *regs,
		     struct platform_event *ev, uint64_t start, unsigned spin_us)
{
	const uint64_t until = tsc() + spin_us * h->v->p->tsc_per_us;

	while (!patch_mailbox_take(ctx->mb, regs)) {
		if (hand_idle(h)) {
			hand_came(h, ctx, start, EXIT_FEE_NS);
			return hand_collect(h, ctx, regs, ev);
		}
		cpu_relax();
		if (tsc() > until)
			return hand_give_up(h, ctx, regs, ev, start);
	}
	KVM_STAT_ADD(ctx->p, handoffs, 1);
	hand_came(h, ctx, start, 0);
	ctx->held = true;
	ctx->taken = *regs;
	*ev = (struct platform_event){.kind = PLATFORM_SYSCALL};
	return 0;
}

int kvm_hand_run(struct kvm_vcpu *v, struct platform_context *ctx, struct address_space *as,
		 struct arch_regs *regs, struct platform_event *ev)
{
	struct kvm_hand *h = atomic_load(&v->hand);
	uint64_t start;

	/* A companion that still looks for the next order is one of those that run. */
	if (!core_is_free(v, !h || atomic_load_explicit(&h->asleep, memory_order_relaxed))) {
		KVM_STAT_ADD(ctx->p, handoff_no_core, 1);
		patch_pace_defer(&ctx->pace, time_monotonic_ns());
		return 1;
	}
	if (!h)
		h = hand_create(v);
	if (!h) {
		patch_pace_miss(&ctx->pace, NO_COMPANION_NS, time_monotonic_ns());
		return 1;
	}
	start = tsc();
	h->hits = 0;
	h->short_since_ns = 0;
	h->regs = *regs;
	h->space = NULL;
	kvm_choose_lstar(v, as, regs, kvm_mailbox_va(ctx, as));
	kvm_load_regs(v, regs, kvm_mailbox_va(ctx, as));
	patch_mailbox_reset(ctx->mb);
	patch_mailbox_listen(ctx->mb, true, TRAMPOLINE_SPINS);
	KVM_STAT_ADD(ctx->p, handoff_starts, 1);
	atomic_store(&ctx->running, v);
	keep_away(h);
	order_give(h, ctx, as);
	if (unlikely(hand_begin(h, ctx, start)))
		return 1;
	return hand_wait(h, ctx, regs, ev, start, ENTER_SPIN_US + SPIN_US);
}

/* The trampoline's answer, if one that it can give suffices. */
static bool answer(struct platform_context *ctx, const struct arch_regs *regs)
{
	if (likely(patch_only_rax_changed(&ctx->taken, regs))) {
		ctx->held = false;
		patch_mailbox_reply(ctx->mb, regs->r.rax);
	} else if (patch_can_switch(&ctx->taken, regs)) {
		/* A signal's handler is about to be called, mostly. */
		ctx->held = false;
		patch_mailbox_switch(ctx->mb, regs);
	} else {
		return false;
	}
	return true;
}

bool kvm_hand_fpu(struct platform_context *ctx, void *buf, size_t size)
{
	struct kvm_hand *h;
	uint64_t until;

	if (!ctx->held || !ctx->p->has_xsave || ctx->p->fpu_size > MB_XSAVE_SIZE)
		return false;
	h = atomic_load(&atomic_load(&ctx->running)->hand);
	until = tsc() + LEAVE_SPIN_US * ctx->p->tsc_per_us;
	patch_mailbox_save_fpu(ctx->mb);
	while (!patch_mailbox_saved(ctx->mb)) {
		/* It gave up before it saw the order, or never looks. */
		if (hand_idle(h) || tsc() > until)
			return false;
		cpu_relax();
	}
	patch_mailbox_fpu(ctx->mb, buf, MIN(size, ctx->p->fpu_size));
	return true;
}

int kvm_hand_resume(struct platform_context *ctx, struct address_space *as, struct arch_regs *regs,
		    struct platform_event *ev)
{
	struct kvm_hand *h = atomic_load(&atomic_load(&ctx->running)->hand);
	bool abandoned;

	if (unlikely(atomic_load(&ctx->interrupt))) {
		/* It stays where it is; the answer can wait. */
		*ev = (struct platform_event){.kind = PLATFORM_INTERRUPTED};
		return 0;
	}
	if (unlikely(core_was_taken(h))) {
		KVM_STAT_ADD(ctx->p, handoff_no_core, 1);
		patch_pace_defer(&ctx->pace, time_monotonic_ns());
		kvm_hand_end(ctx);
		return 1;
	}
	abandoned = hand_idle(h);
	if (likely(as == atomic_load(&h->as) && !abandoned && answer(ctx, regs))) {
		uint64_t start = tsc();

		return hand_wait(h, ctx, regs, ev, start, SPIN_US);
	}
	/*
	 * It gave up waiting for a slow call, or needs new registers: a trap has been made after all, and another is
	 * needed to come back here. Calls that block give up each time: whoever was to wake them had no core.
	 */
	patch_pace_miss(&ctx->pace, 2 * ctx->pace.trap_ns + (abandoned ? ABANDONED_NS : 0),
			time_monotonic_ns());
	kvm_hand_end(ctx);
	return 1;
}

void kvm_hand_end(struct platform_context *ctx)
{
	struct kvm_hand *h;

	if (likely(!ctx->held))
		return;
	h = atomic_load(&atomic_load(&ctx->running)->hand);
	hand_leave(h, ctx);
	hand_over(h, ctx);
}

void kvm_hand_reclaim(struct kvm_vcpu *v)
{
	struct kvm_hand *h = atomic_load(&v->hand);

	if (h && h->ctx)
		kvm_hand_end(h->ctx);
}

void kvm_hands_leave(struct address_space *as)
{
	struct kvm_platform *p = as->p;

	for (unsigned id = 0; id < atomic_load(&p->nvcpus); id++) {
		struct kvm_vcpu *v = atomic_load(&p->vcpus[id]);
		struct kvm_hand *h = v ? atomic_load(&v->hand) : NULL;

		if (h && atomic_load(&h->as) == as && !hand_idle(h))
			hand_stop(h);
	}
}
