/*
 * platform/systrap/systrap.h - what the files of the systrap platform share. systrap.c opens with the essay.
 *
 * Lock order
 *   address_space.lock (LOCK_AS; a fork nests the unpublished child's)
 *     systrap_platform.lock (LOCK_PLATFORM): stubs and areas that are free or ready, the pristine process's socket
 *     systrap_platform.bind_lock (LOCK_PLATFORM): which context has which thread
 *       systrap_turns.lock (LOCK_LEAF): who has a turn, who waits for one
 *     systrap_retire.lock (LOCK_LEAF): address spaces that end in the background
 * A context that is bound, in an address space with nothing to map, takes neither.
 */
#ifndef MOAT_PLATFORM_SYSTRAP_SYSTRAP_H
#define MOAT_PLATFORM_SYSTRAP_SYSTRAP_H

#include <pthread.h>
#include <sys/queue.h>

#include "base/lock.h"
#include "base/tree.h"
#include "platform/common/cores.h"
#include "platform/patch/patch.h"
#include "platform/platform.h"
#include "platform/systrap/pristine.h"

/* Stubs and areas of a sandbox; both bound what is mapped from the shared file. */
#define SYSTRAP_STUBS_MAX 8192u
#define SYSTRAP_AREAS_MAX 16384u
/* Stubs that wait for an address space. */
#define SYSTRAP_POOL 4u
#define SYSTRAP_POOL_LOW 1u
/* Address spaces that end in the background at once. */
#define SYSTRAP_RETIRED_MAX 8u
/* max_map_count is 65,530: with more mappings than this all are dropped and fault in again. */
#define SYSTRAP_PIECES_MAX 50000u
/* A batch that goes with a context's start; what is beyond it faults in. */
#define SYSTRAP_BATCH_MAX 1024u
/* How long a stub may take to carry out orders, or to answer a kick, in rounds of waiting. */
#define SYSTRAP_PATIENCE 300u
/* A wait for the pristine process is given up after so many rounds (of 5 ms) that lasted. */
#define SYSTRAP_REPLY_ROUNDS 4000u
/* A thread whose making failed so often is not tried again: it may exist in spite of what its area says. */
#define SYSTRAP_FAILURES_MAX 4u
#define SYSTRAP_ROUND_NS 10000000l
#define SYSTRAP_IDLE_ROUND_NS 500000000l
/* An application spins this long for its answer (pauses, about 25 ns each), and while the sentry has to be woken first. */
#define SYSTRAP_APP_SPINS 800u
#define SYSTRAP_APP_SPINS_WAKE 2400u
/* The sentry spins this long for an event: what waking an idle core twice costs on a virtual machine. */
#define SYSTRAP_SPIN_US 50u
/* An event that a sleeper gets within this was worth spinning for; an answer after more is not. */
#define SYSTRAP_SOON_US 90u
#define SYSTRAP_REPLY_US 30u
/* So many in a row that were not: no spinning until one was. */
#define SYSTRAP_LATE_MAX 3u
/* So many quick events of a thread on the sentry's own core: it is moved. In vain: four times as many. */
#define SYSTRAP_STACKED_MIN 4u
#define SYSTRAP_STACKED_MAX 16384u
/* So many events of a thread on another core while nobody spins: it is moved to the sentry's. In vain: likewise. */
#define SYSTRAP_APART_MIN 2u
/* Looks of a trampoline for its answer, about 50 ns each. */
#define SYSTRAP_TRAMPOLINE_SPINS 300u
/* A gap like this between two looks at the clock: somebody else had the core. */
#define SYSTRAP_STOLEN_US 60u
#define SYSTRAP_CPU_NONE UINT32_MAX
/* Pairs of cores that are handed out, and for how long while others wait. */
#define SYSTRAP_TURNS_MAX 32u
#define SYSTRAP_TURN_US 1000u
#define SYSTRAP_TURN_WAIT_NS 2000000l
/* Events in a row that came within this: the thread waits for a turn. */
#define SYSTRAP_QUICK_US 500u
#define SYSTRAP_QUICK_MIN 8u
#define SYSTRAP_QUICK_MAX 32u
/* Events between two sleeps, usually, counted up to the latter: threads with fewer take no turns if all are like that. */
#define SYSTRAP_BURST_MIN 8u
#define SYSTRAP_BURST_MAX 64u

struct systrap_platform;

/* A translation that the application may have. Guarded by the address space's lock. */
struct systrap_region {
	RB_ENTRY(systrap_region) node;
	TAILQ_ENTRY(systrap_region) dirty_link; /* while !installed */
	uint64_t va, size, off;
	struct memfile *mf; /* borrowed: who mapped it holds the memory */
	uint32_t
		pieces; /* of how many mappings the stub has it, at most: the host does not join those of an overlay's file */
	uint8_t access;
	uint8_t rights; /* what the stub may have of it, in places at least; 0: nothing */
	bool shared; /* PLATFORM_MAP_SHARED */
	bool installed; /* the stub has it, or has been told to */
	bool whole; /* all of it is mapped: rights are all that may be wrong */
	bool populate;
};
RB_HEAD(systrap_regions, systrap_region);

/* Where a thread is: in the application, or on its way there or back, unless RUN_NOT. */
enum {
	RUN_NOT,
	RUN_PATCHED, /* it may be in a trampoline, or have a mailbox's address as gs base */
	RUN_CLAIMED, /* it may not: it set out when trampolines were gone for good */
};

/* A thread of a stub. Never freed: a late interruption may look at one that is somebody else's by then. */
struct systrap_thread {
	LIST_ENTRY(systrap_thread)
	link; /* the stub's; guarded by the address space's lock; joins under the platform's */
	struct systrap_stub *stub;
	struct platform_context *ctx; /* bound to; guarded by the platform's bind_lock */
	uint8_t *mem; /* immutable: the area */
	_Atomic pid_t pid;
	_Atomic pid_t
		tid; /* once it has reported; only a stub's first one's is the kernel's word */
	_Atomic uint32_t cpu; /* where it was last, as it says; SYSTRAP_CPU_NONE */
	uint32_t index; /* where in the stub its area is mapped */
	/* For patched sites, while the stub lives; NULL: none. The bound context's thread. */
	struct patch_mailbox *mb;
	struct patch_range mb_range;
	int mb_index;
	bool mb_tried;
	_Atomic uint32_t run; /* RUN_* */
	/* The hot ones, by thread; they outlive the stub's. */
	struct {
		_Atomic uint64_t syscalls, posted, spins_hit;
	} counts;
	_Atomic uint32_t
		kickers; /* who interrupt a context that may have gone from it; recycle.c */
	bool failed; /* the host had no thread for it, last time; guarded likewise */
	unsigned failures; /* how often that was so; guarded likewise */
	_Atomic bool
		reported; /* it has its filter and waits; set by the context that it is bound to */
	bool in_use; /* guarded by platform lock */
};

/* A stub process. Guarded by the lock of the address space that has it; by the platform's lock before and after. */
struct systrap_stub {
	SLIST_ENTRY(systrap_stub) link; /* pool */
	struct address_space *as;
	LIST_HEAD(, systrap_thread) threads;
	uint8_t *orders, *hints; /* immutable */
	_Atomic uint64_t posted; /* orders */
	_Atomic uint64_t acked; /* proven to be done */
	uint32_t slot; /* immutable */
	pid_t pid;
	int socket;
	uint32_t nthreads;
	uint32_t cpu; /* where the order thread has to run; SYSTRAP_CPU_NONE: anywhere */
	_Atomic bool dead; /* it is known to be, or has been killed */
	bool in_use, reaped, released; /* platform lock */
};

struct address_space {
	struct systrap_platform *p; /* immutable */
	struct mutex lock; /* LOCK_AS */
	struct systrap_regions regions;
	TAILQ_HEAD(, systrap_region) dirty;
	unsigned npieces; /* sum of the regions' pieces */
	unsigned ndirty;
	struct systrap_stub *stub; /* NULL: nothing has run in it yet */
	_Atomic bool has_dirty;

	/* patching.c. Guarded by lock, but for what is atomic, and heat. */
	struct patch_space *patches;
	/* live: sites are patched; known: they are or were; threads that are RUN_PATCHED may be in its trampolines. */
	struct patch_space *_Atomic patch_live, *_Atomic patch_known;
	bool own_mapped, traced;
	bool in_company; /* a second context had a thread in it: for good */
	_Atomic bool patch_refused; /* for good: the range is the application's */
	_Atomic bool patch_gone; /* refused, and proven to be mapped no more */
	struct patch_heat heat;

	/* retire.c: it ends in the background. */
	STAILQ_ENTRY(address_space) retire_link;
	void (*retired)(void *arg);
	void *retired_arg;
};

/* What waiting was good for lately: wait.c. Belongs to the context's thread. */
struct systrap_pace {
	uint64_t started, returned; /* ticks: the application went on; the caller got its event */
	uint8_t late_events, late_replies; /* in a row, up to SYSTRAP_LATE_MAX */
	uint8_t quick; /* events within SYSTRAP_QUICK_US, halved by one that was not */
	uint32_t blocks, events,
		burst; /* sleeps of its thread; events since the last; usually between two */
	bool turn; /* this wait: it has one */
	bool aside; /* this wait: it sleeps too often to take turns */
	bool spin; /* this wait */
	bool move, gather; /* the application's thread, when it is woken: off this core, onto it */
	bool hit; /* the last event came while we span */
	uint32_t stacked, stacked_limit, hits;
	uint32_t apart, apart_limit, together;
};

struct platform_context {
	struct systrap_platform *p; /* immutable */
	_Atomic bool interrupt; /* sticky */
	struct systrap_thread *_Atomic running; /* while in context_switch() */
	/* The rest belongs to the context's thread, but an address space that ends takes its thread back: bind_lock. */
	struct address_space *as; /* where `thread` is */
	struct systrap_thread *thread;
	bool fresh; /* thread's FPU state is not in a frame: what fpu_buf says, or the reset state */
	bool force; /* segments and bases must be set whatever they seem to be */
	uint64_t fpu_va, fpu_mask; /* !fresh: the frame's XSAVE image */
	void *fpu_buf; /* fresh */
	bool held; /* a posted call was taken: the thread is in its trampoline, or has trapped there */
	struct arch_regs taken; /* held: its registers */
	struct systrap_pace pace;
	struct {
		TAILQ_ENTRY(platform_context)
		link; /* in the queue; guarded by systrap_turns.lock */
		_Atomic uint32_t state; /* turn.c; its thread sleeps on it while it waits */
		/* Set by whoever grants it, under that lock; for the context's thread after that. */
		unsigned slot;
		uint64_t generation, since;
		_Atomic uint64_t seen; /* ticks: last heard of */
		bool waited; /* for this one; the context's thread's */
	} turn;
	uint16_t segs[4]; /* as the stub's thread has them */
	uint64_t fs_base, gs_base;
};

struct systrap_stats {
	_Atomic uint64_t faults, exceptions, interrupts, not_run, kicks, spins_missed, spins_stolen,
		moves, gathers, orders, acks, batches, drops, stubs_made, stubs_recycled,
		stubs_died, threads_made, spaces, pool_empty, patches, left, turns_waited,
		turns_taken;
};
#define SYSTRAP_STAT_ADD(p, field, n) \
	atomic_fetch_add_explicit(&(p)->stats.field, (n), memory_order_relaxed)

struct systrap_turn {
	struct platform_context *holder; /* NULL: it is free */
	uint64_t generation; /* of this holder's turn; never the same again */
};

/* turn.c. Guarded by lock, but for what is atomic. */
struct systrap_turns {
	struct mutex lock; /* LOCK_LEAF */
	unsigned count; /* immutable */
	int64_t wait_ns; /* immutable: who waits looks for silent holders that often */
	_Atomic unsigned held, nwaiting;
	/* Ticks: somebody who had one slept; somebody ran who has many events between two sleeps. */
	_Atomic uint64_t blocked_at, long_at;
	struct systrap_turn slots[SYSTRAP_TURNS_MAX];
	TAILQ_HEAD(, platform_context) waiting;
};

/* retire.c. Guarded by lock, but for what is atomic. */
struct systrap_retire {
	struct mutex lock; /* LOCK_LEAF */
	STAILQ_HEAD(, address_space) queue;
	/* Ever; ended is a futex, too. The difference: in the queue, and the one that is being ended. */
	_Atomic uint32_t queued, ended;
	bool started, failed, quit;
	pthread_t thread;
	_Atomic uint32_t word; /* its futex: 1: look */
};

struct systrap_platform {
	struct platform base;
	/* immutable */
	int control_fd, shared_fd;
	pid_t pristine_pid;
	uint8_t *shared;
	size_t fpu_size; /* XSAVE image in standard format */
	uint64_t xcr0, mxcsr_mask;
	unsigned reply_rounds; /* SYSTRAP_REPLY_ROUNDS; a test's, fewer */
	uint64_t shared_size, spin_ticks, stolen_ticks, soon_ticks, reply_ticks, turn_ticks,
		quick_ticks;

	struct cores cores;
	_Atomic int
		busy; /* application threads that run without a turn, and not for a moment only */
	_Atomic int
		running; /* application threads that run, and sentry threads that spin for them */
	struct systrap_turns turns;
	struct systrap_retire retire;

	struct mutex bind_lock; /* LOCK_PLATFORM; never together with the next */
	struct mutex lock; /* LOCK_PLATFORM */
	struct systrap_stub *stubs; /* SYSTRAP_STUBS_MAX */
	struct systrap_thread *threads; /* SYSTRAP_AREAS_MAX */
	SLIST_HEAD(, systrap_stub) pool;
	/* pool_count, and those that join it: SYSTRAP_POOL at most, and one for who waits. */
	unsigned pool_count, making, recycling, slots_used, areas_used;
	/* Below them all are in use: the lowest are taken first, so that what was ever touched stays small. */
	unsigned free_slot, free_area;
	bool pristine_dead;

	struct systrap_stats stats;
};

static inline struct systrap_platform *systrap_of(struct platform *p)
{
	return container_of(p, struct systrap_platform, base);
}

static inline uint64_t systrap_area_va(const struct systrap_thread *t)
{
	return STUB_AREAS + (uint64_t)t->index * STUB_AREA_SIZE;
}

static inline bool systrap_reserved(uint64_t va, uint64_t size)
{
	return va < STUB_END && va + size > STUB_BASE;
}

#define MAILBOX_FIELD(name, offset, type)                          \
	static inline type *name(const struct systrap_thread *t)   \
	{                                                          \
		return (type *)(t->mem + AREA_MAILBOX + (offset)); \
	}
MAILBOX_FIELD(mb_state, AREA_STATE, _Atomic uint32_t)
MAILBOX_FIELD(mb_sentry_asleep, AREA_SENTRY_ASLEEP, _Atomic uint32_t)
MAILBOX_FIELD(mb_app_asleep, AREA_APP_ASLEEP, _Atomic uint32_t)
MAILBOX_FIELD(mb_interrupt, AREA_INTERRUPT, _Atomic uint32_t)
MAILBOX_FIELD(mb_tid, AREA_TID, _Atomic uint32_t)
MAILBOX_FIELD(mb_signo, AREA_SIGNO, _Atomic uint32_t)
MAILBOX_FIELD(mb_segs, AREA_SEGS, _Atomic uint64_t)
MAILBOX_FIELD(mb_fs_base, AREA_FS_BASE, _Atomic uint64_t)
MAILBOX_FIELD(mb_gs_base, AREA_GS_BASE, _Atomic uint64_t)
MAILBOX_FIELD(mb_ucontext, AREA_UCONTEXT, _Atomic uint64_t)
MAILBOX_FIELD(mb_flags, AREA_FLAGS, _Atomic uint32_t)
MAILBOX_FIELD(mb_reset, AREA_RESET, _Atomic uint64_t)
MAILBOX_FIELD(mb_cpu, AREA_CPU, _Atomic uint32_t)
MAILBOX_FIELD(mb_spins, AREA_SPINS, _Atomic uint32_t)
MAILBOX_FIELD(mb_yield, AREA_YIELD, _Atomic uint32_t)
MAILBOX_FIELD(mb_set_segs, AREA_SET_SEGS, _Atomic uint64_t)
MAILBOX_FIELD(mb_set_fs_base, AREA_SET_FS_BASE, _Atomic uint64_t)
MAILBOX_FIELD(mb_set_gs_base, AREA_SET_GS_BASE, _Atomic uint64_t)
MAILBOX_FIELD(mb_set_fpu, AREA_SET_FPU, _Atomic uint64_t)
MAILBOX_FIELD(mb_set_fpu_mask, AREA_SET_FPU_MASK, _Atomic uint64_t)
#undef MAILBOX_FIELD

int64_t systrap_now_ns(void);
/* futex(2), shared; wait: 0, -EAGAIN, -EINTR, -ETIMEDOUT. */
int systrap_futex_wait(_Atomic uint32_t *word, uint32_t val, int64_t timeout_ns);
void systrap_futex_wake(_Atomic uint32_t *word);

/* filter.c: the constants of every stub. */
void systrap_data_build(struct stub_data *data, const char *blob);

/* stub.c */
must_check int systrap_pristine_start(struct systrap_platform *p);
void systrap_pristine_stop(struct systrap_platform *p);
/* A ready stub with one thread, for `as`. Return: 0, -EAGAIN. */
must_check int systrap_stub_get(struct systrap_platform *p, struct address_space *as,
				struct systrap_stub **ret_stub);
/* Its address space ends; nobody of the application's memory is mapped, or it is dead. */
void systrap_stub_put(struct systrap_platform *p, struct systrap_stub *stub);
/* Its address space has ended: kills it, waits until nothing of it is left, and gives back what it had; orders new ones. */
void systrap_stub_end(struct systrap_platform *p, struct systrap_stub *stub);
/* The pool lacks one: then it is kept a place, until one of the next two. */
bool systrap_pool_reserve(struct systrap_platform *p);
void systrap_pool_cancel(struct systrap_platform *p);
/* A stub that is as good as new. */
void systrap_pool_return(struct systrap_platform *p, struct systrap_stub *stub);
/* Kills it and waits until nothing of it is left. */
void systrap_stub_kill(struct systrap_platform *p, struct systrap_stub *stub);
/* Has it died? One host call. */
bool systrap_stub_gone(struct systrap_stub *stub);
/* An area for one more thread, not mapped yet. Return: NULL if there is none. */
struct systrap_thread *systrap_thread_new(struct systrap_platform *p, struct systrap_stub *stub);
/* The orders that make it. must: or the process ends; otherwise its number stays 0. */
void systrap_thread_orders(struct systrap_platform *p, struct systrap_thread *t, bool must);

/* Orders. The lock of the stub's address space is held (or the stub is not published). */
struct systrap_order {
	uint32_t nr, flags;
	uint64_t args[6];
	uint64_t extra;
};
/* Nothing is under way, as far as the stub says. It proves that it is done before it says so. */
static inline bool systrap_orders_idle(const struct systrap_stub *stub)
{
	uint64_t posted = atomic_load(&stub->posted);

	return atomic_load(&stub->acked) == posted ||
	       atomic_load((_Atomic uint32_t *)(stub->hints + HINT_DONE)) == (uint32_t)posted;
}
void systrap_order_post(struct systrap_platform *p, struct systrap_stub *stub,
			const struct systrap_order *order);
/* Is `at` at most so long ago? Another thread noted it, perhaps after this one looked at the clock. */
static inline bool systrap_within(uint64_t now, uint64_t at, uint64_t ticks)
{
	return (int64_t)(now - at) <= (int64_t)ticks;
}

/* turn.c */
void systrap_turns_init(struct systrap_platform *p);
void systrap_turns_fini(struct systrap_platform *p);
/*
 * Before ctx runs: may the two threads spin for one another? quick: it waits for its turn, some milliseconds perhaps, if quick
 * threads have all; an interruption ends that. The calling thread owns ctx.
 */
bool systrap_turn_take(struct platform_context *ctx, bool quick, uint64_t now);
/* The turn, if ctx has one, goes to whoever waits. */
void systrap_turn_give(struct platform_context *ctx);
/* The same for a context that ends: nobody looks at it after this. */
void systrap_turn_drop(struct platform_context *ctx);
/* The same for the calling thread, which is going to sleep. */
void systrap_turn_blocked(void);
/* How often the calling thread has been asleep. */
uint32_t systrap_turn_blocks(void);
/* Threads of ours that sleep since a moment ago, at most: the host may count them as runnable still. */
unsigned systrap_turns_asleep(struct systrap_platform *p);
/* ctx was interrupted: any thread. */
void systrap_turn_poke(struct platform_context *ctx);

/* The order thread looks at what was posted. */
void systrap_orders_start(struct systrap_platform *p, struct systrap_stub *stub);
/* Starts, and returns when all that was posted is proven to be done, or the stub is dead and gone. */
void systrap_orders_sync(struct systrap_platform *p, struct systrap_stub *stub);

/* as.c */
must_check int systrap_as_create(struct platform *base, struct address_space **ret_as);
void systrap_as_destroy(struct address_space *as);
/* No context has a thread in it any more. */
void systrap_as_leave(struct address_space *as);
/* A second context is about to have a thread in it. Lock held. */
void systrap_as_company(struct address_space *as);
/* Its stub is no more. */
void systrap_as_free(struct address_space *as);
must_check int systrap_as_map(struct address_space *as, uint64_t va, uint64_t size,
			      struct memfile *mf, uint64_t mf_off, unsigned access, unsigned flags);
void systrap_as_unmap(struct address_space *as, uint64_t va, uint64_t size);
void systrap_as_protect(struct address_space *as, uint64_t va, uint64_t size, unsigned access);
void systrap_as_clear(struct address_space *as);
must_check int systrap_as_fork(struct address_space *parent, struct address_space *child);
/* Orders that nothing of the application is mapped; lock held, as->stub is there. */
void systrap_as_post_unmap_all(struct address_space *as);
/* Posts what is not installed yet; lock held, as->stub is there. */
void systrap_as_install(struct address_space *as);

/* What should be at va; NULL: nothing. */
const struct systrap_region *systrap_region_at(struct address_space *as, uint64_t va);
/* The stub gets the page at va as the region has it. */
void systrap_region_restore(struct address_space *as, uint64_t va);

/* retire.c */
void systrap_retire_init(struct systrap_platform *p);
void systrap_retire_fini(struct systrap_platform *p);
void systrap_as_retire(struct address_space *as, void (*done)(void *arg), void *arg);
/*
 * Waits for one of the first `queued` (as retire.queued was) that were retired to have ended, the oldest. Locks of address spaces
 * that live may be held. Return: false: all have.
 */
bool systrap_retire_await(struct systrap_platform *p, uint32_t queued);
void systrap_settle(struct platform *base);

/* recycle.c */
/*
 * as has ended and no context has a thread in it: its stub, empty as a new one, goes to those that wait for an address space, and
 * as has none. Return: false: it does not, and is to be killed; as still has it, if it had.
 */
bool systrap_recycle(struct address_space *as);

/* patching.c */
void systrap_patch_note(struct address_space *as, const struct arch_regs *regs);
/* Lock held: is a copy mapped in the range? It is about to be replaced: forget it, and patch_reap() after that. */
bool systrap_patched(struct address_space *as, uint64_t va, uint64_t size);
void systrap_patch_drop(struct address_space *as, uint64_t va, uint64_t size);
/* Lock held: no longer one thread runs in it. at_rest: none runs just now, nor begins to before the lock is free. */
void systrap_patch_company(struct address_space *as, bool at_rest);
void systrap_as_claim(struct address_space *as, uint64_t va, uint64_t size);
void systrap_as_set_traced(struct address_space *as, bool on);
/* Any event, of an address space that has patches or had. */
void systrap_patch_resolve(struct platform_context *ctx, struct address_space *as,
			   struct arch_regs *regs, struct platform_event *ev);
/* Lock held: who runs may be in a copy in the range, at bytes that are not the page's: that is not replaced under it. */
bool systrap_patch_has_detours(struct address_space *as, uint64_t va, uint64_t size);
/* A thread is about to go on. */
void systrap_patch_settle(struct address_space *as);
void systrap_mailbox_attach(struct systrap_thread *t, struct address_space *as);

/* fpu.c */
must_check int systrap_fpu_init(struct systrap_platform *p);
must_check int systrap_context_create(struct platform *base, struct platform_context *from,
				      struct platform_context **ret_ctx);
void systrap_context_destroy(struct platform_context *ctx);
size_t systrap_fpu_size(struct platform *base);
int systrap_fpu_get(struct platform_context *ctx, void *buf, size_t size);
int systrap_fpu_set(struct platform_context *ctx, const void *buf, size_t size);
void systrap_fpu_reset(struct platform_context *ctx);
/* Moves the state from the thread into ctx's own buffer: the thread is given up. */
void systrap_fpu_detach(struct platform_context *ctx);
/* Where the thread finds the state that ctx has. */
void systrap_fpu_load(struct platform_context *ctx);

/* wait.c */
/* Before the context runs, and before it says that it does: may it spin? Waits for its turn, while that is soon. */
void systrap_wait_turn(struct platform_context *ctx);
/* The caller is about to start ctx's thread: how it will wait for the event, and the thread for the next answer. */
void systrap_wait_prepare(struct platform_context *ctx, struct systrap_thread *t);
/* Its state says that it may go on: wakes it, on another core if that is what systrap_wait_prepare() found best. */
void systrap_wake(struct platform_context *ctx, struct systrap_thread *t);
/* Until something has come: an event, or, into regs, a posted call, which is taken then. Return: 0, -EAGAIN: it is dead. */
must_check int systrap_wait(struct platform_context *ctx, struct systrap_thread *t,
			    struct arch_regs *regs);
/* Waits until the thread has published something, which it must do soon. Return: 0, -EAGAIN: the stub is dead. */
must_check int systrap_wait_event(struct platform_context *ctx, struct systrap_thread *t);
void systrap_kick(struct systrap_platform *p, struct systrap_thread *t);
/* Only the thread that runs the context counts; anyone reads. */
static inline void systrap_count(_Atomic uint64_t *counter)
{
	uint64_t n = atomic_load_explicit(counter, memory_order_relaxed);

	atomic_store_explicit(counter, n + 1, memory_order_relaxed);
}

/* run.c */
must_check int systrap_context_prepare(struct platform_context *ctx, struct address_space *as);
must_check int systrap_context_switch(struct platform_context *ctx, struct address_space *as,
				      struct arch_regs *regs, struct platform_event *ret_event);
void systrap_context_interrupt(struct platform_context *ctx);
void systrap_thread_exit(struct platform *base);
/* The thread leaves its trampoline: its registers are in a frame, and are the sentry's to set. Does nothing if !held. */
void systrap_leave(struct platform_context *ctx);
/* ctx has no thread any more. _locked: bind_lock is held. */
void systrap_unbind(struct platform_context *ctx);
void systrap_unbind_locked(struct platform_context *ctx);

#endif
