/*
 * platform/systrap/recycle.c - a stub whose address space has ended becomes one that waits for the next.
 *
 * Making a stub and killing it cost the host several times what emptying one costs. What a process can leave in its stub, since its
 * threads may call futex() and nothing else: mappings, the contents of its area and of the hints' page, registers, and code of its own
 * that still runs although its mailbox says otherwise. No handler, mask, alternate stack, restartable sequence, robust list,
 * descriptor or process attribute: none of them can be asked for.
 *
 *  - Mappings go by orders that must not fail, with proof. Whatever was ordered before is done then as well: a thread that
 *    forges its event leaves under way the order that lets it go, which must not come after its answer to the next.
 *  - That the thread runs code of the stub's is proven by the kernel: a signal carries a number that nobody can guess. The
 *    handler, which does not go back from this one, writes the number's complement to the mailbox as its last word. Had the frame
 *    itself been made to lie there, the number would be what it is. A process that has forged an event and goes on runs nothing of
 *    its own after that.
 *  - So from then on the area is the sentry's: it is cleared, but for what the waiting thread looks at. The same for hints and orders.
 *  - Registers, FPU state and segments are set before a fresh context runs, whatever they were.
 *
 * Only for a process with one thread. All others, and those that do not answer in time, are killed.
 *
 * What the host keeps for the process lives on: its page tables' root, so a host that separates processes' branch predictors when it
 * switches address spaces does not separate these; the sentry has run in between.
 */
#include <linux/futex.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "platform/systrap/systrap.h"

/* How long the thread may take to answer, in rounds. */
#define RESET_ROUNDS 8u
#define RESET_ROUND_NS 1000000
#define RESET_LOOKS 4000u
/* What a waiting thread looks at. */
#define KEPT AREA_STATE
#define KEPT_END AREA_TID

/* The siginfo of SI_QUEUE, as the kernel takes it. */
struct reset_info {
	int32_t signo, err, code, pad, pid, uid;
	uint64_t value;
	uint8_t rest[96];
};

static bool reset_send(const struct systrap_thread *t, uint64_t nonce)
{
	struct reset_info info = {.signo = STUB_RESET_SIGNAL, .code = SI_QUEUE, .value = nonce};
	pid_t tid = atomic_load(&t->tid);

	static_assert(sizeof(info) == 128, "siginfo_t");
	static_assert(offsetof(struct reset_info, value) == 24, "siginfo_t");
	return tid > 0 && syscall(SYS_rt_tgsigqueueinfo, atomic_load(&t->pid), tid,
				  STUB_RESET_SIGNAL, &info) == 0;
}

/* Return: the kernel has given the thread the number, and it waits for its next start. */
static bool reset_await(struct systrap_thread *t, uint64_t nonce)
{
	unsigned rounds = 0;
	bool done;

	for (unsigned looks = 0; looks < RESET_LOOKS && rounds < RESET_ROUNDS; looks++) {
		uint32_t state;

		done = atomic_load(mb_reset(t)) == ~nonce;
		if (done)
			break;
		atomic_store(mb_sentry_asleep(t), 1);
		state = atomic_load(mb_state(t));
		if (state == STUB_STATE_EVENT)
			__builtin_ia32_pause();
		else if (systrap_futex_wait(mb_state(t), state, RESET_ROUND_NS) == -ETIMEDOUT)
			rounds++;
	}
	return atomic_load(mb_reset(t)) == ~nonce;
}

/*
 * Somebody found the thread running, has not kicked it yet, and may do so at any time: its handler would find a frame that was cleared
 * under it. A kick that was sent is pending with the number, or handled before it.
 */
static bool kicked_late(struct systrap_thread *t)
{
	/* An addition, so that who comes after it sees what was before it. */
	return atomic_fetch_add(&t->kickers, 0) != 0;
}

/* Whole pages of the area: what is often written is kept and cleared, the rest given back. */
static void area_clear(const struct systrap_platform *p, uint8_t *mem)
{
	/* The image that the sentry wrote; the application's frame: state of that size and less than a page. */
	size_t low = (p->fpu_size + MOAT_PAGE_SIZE - 1) & MOAT_PAGE_MASK;
	size_t high = STUB_AREA_SIZE - MIN(low + MOAT_PAGE_SIZE, (size_t)AREA_FPU_SIZE);
	uint8_t *mailbox = mem + AREA_MAILBOX, *after = mailbox + MOAT_PAGE_SIZE;

	memset(mem, 0, low);
	if (madvise(mem + low, AREA_MAILBOX - low, MADV_REMOVE))
		memset(mem + low, 0, AREA_MAILBOX - low);
	memset(mailbox, 0, KEPT);
	memset(mailbox + KEPT_END, 0, MOAT_PAGE_SIZE - KEPT_END);
	if (madvise(after, (size_t)(mem + high - after), MADV_REMOVE))
		memset(after, 0, (size_t)(mem + high - after));
	memset(mem + high, 0, STUB_AREA_SIZE - high);
}

/* Pre: the thread has answered, all orders are proven to be done. */
static void clear(struct systrap_platform *p, struct systrap_stub *stub, struct systrap_thread *t)
{
	area_clear(p, t->mem);
	atomic_store(mb_interrupt(t), 0);
	atomic_store(mb_sentry_asleep(t), 0);
	/* It might spin for as long as it was told to. */
	atomic_store(mb_yield(t), 1);
	atomic_store(mb_tid(t), (uint32_t)atomic_load(&t->tid));
	memset(stub->orders + ORDERS_RING, 0,
	       MIN(stub->posted, (uint64_t)ORDERS_COUNT) * ORDER_SIZE);
	/* Its first word is the order thread's: how many are done. */
	memset(stub->hints + HINT_RESULT, 0, STUB_HINTS_SIZE - HINT_RESULT);
	stub->as = NULL;
	t->mb = NULL;
	t->mb_tried = false;
}

/* Lock of as held. Return: the stub is empty, and its thread waits. */
static bool empty_locked(struct address_space *as, struct systrap_thread *t)
{
	struct systrap_stub *stub = as->stub;
	uint64_t nonce;

	if (getrandom(&nonce, sizeof(nonce), 0) != sizeof(nonce))
		return false;
	/* Not together with the signal: STATE_APP may be under way. */
	systrap_as_post_unmap_all(as);
	systrap_orders_sync(as->p, stub);
	if (atomic_load(&stub->dead))
		return false;
	/* Whatever the thread says from now on, it changes this word. */
	atomic_store(mb_spins(t), 0);
	atomic_store(mb_sentry_asleep(t), 1);
	atomic_store(mb_reset(t), 0);
	atomic_store(mb_state(t), STUB_STATE_STARTING);
	return !kicked_late(t) && reset_send(t, nonce) && reset_await(t, nonce);
}

bool systrap_recycle(struct address_space *as)
{
	struct systrap_platform *p = as->p;
	struct systrap_stub *stub = as->stub;
	struct systrap_thread *t;
	bool done;

	if (atomic_load(&stub->dead) || stub->nthreads != 1)
		return false;
	t = LIST_FIRST(&stub->threads);
	if (!atomic_load(&t->reported) || !systrap_pool_reserve(p))
		return false;
	mutex_lock(&as->lock);
	done = empty_locked(as, t);
	if (done) {
		clear(p, stub, t);
		as->stub = NULL;
	}
	mutex_unlock(&as->lock);
	if (done)
		systrap_pool_return(p, stub);
	else
		systrap_pool_cancel(p);
	return done;
}
