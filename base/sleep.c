#include <limits.h>
#include <time.h>

#include "base/futex.h"
#include "base/lock.h"
#include "base/sleep.h"

#define NSEC_PER_SEC 1000000000ll

/* Looking for a wake-up instead of sleeping: for so long, ... */
#define SPIN_NS 160000
/* ... by whom so many waits in a row (a longer one halves the count) ... */
#define SPIN_BRIEF_MIN 8u
#define SPIN_BRIEF_MAX 16u
/* ... ended within that and this, which is what waking up may take. */
#define SPIN_WAKE_NS 40000
/* How often the machine is asked whether there is a core. */
#define SPIN_LOOK_NS 500000

static struct {
	unsigned (*_Atomic runnable)(int fd);
	_Atomic int fd;
	_Atomic unsigned cores, machine, limit;
	_Atomic unsigned spinners;
	_Atomic int64_t looked_ns;
	_Atomic bool core_free; /* when it was asked */
} spin = {.limit = UINT_MAX};

static void (*_Atomic on_block[SLEEPER_BLOCK_NR])(void);

static _Thread_local struct sleeper sleeper_own;
static _Thread_local struct sleeper *sleeper_installed;

void sleeper_init(struct sleeper *s)
{
	atomic_init(&s->word, 0);
	atomic_init(&s->waits, false);
	atomic_init(&s->what, NULL);
	s->brief = 0;
}

struct sleeper *sleeper_current(void)
{
	return sleeper_installed ? sleeper_installed : &sleeper_own;
}

void sleeper_set_current(struct sleeper *s)
{
	sleeper_installed = s;
}

static void sleeper_post(struct sleeper *s, uint32_t bits)
{
	/* Release pairs with the acquire in sleeper_wait(): what the waker wrote is seen. */
	uint32_t old = atomic_fetch_or_explicit(&s->word, bits, memory_order_acq_rel);

	/*
	 * Without ASLEEP the owner has not yet compared the word, and will see the bits. With it the
	 * owner either sleeps or finds that the word has changed.
	 */
	if ((old & SLEEPER_ASLEEP) && (old & bits) != bits)
		futex_wake(&s->word, 1);
}

void sleeper_wake(struct sleeper *s)
{
	sleeper_post(s, SLEEPER_WOKEN);
}

void sleeper_interrupt(struct sleeper *s, bool killed)
{
	sleeper_post(s, killed ? SLEEPER_INTERRUPTED | SLEEPER_KILLED : SLEEPER_INTERRUPTED);
}

void sleeper_clear_interrupt(struct sleeper *s)
{
	/* KILLED stays: nothing takes a fatal signal back. */
	atomic_fetch_and_explicit(&s->word, ~SLEEPER_INTERRUPTED, memory_order_acq_rel);
}

bool sleeper_was_killed(void)
{
	return atomic_load_explicit(&sleeper_current()->word, memory_order_relaxed) &
	       SLEEPER_KILLED;
}

static uint32_t sleeper_interrupt_bits(enum sleep_mode mode)
{
	switch (mode) {
	case SLEEP_INTERRUPTIBLE:
		return SLEEPER_INTERRUPTED | SLEEPER_KILLED;
	case SLEEP_KILLABLE:
		return SLEEPER_KILLED;
	case SLEEP_UNINTERRUPTIBLE:
		break;
	}
	return 0;
}

void sleeper_allow_spin(unsigned (*runnable)(int fd), int fd, unsigned cores, unsigned machine)
{
	atomic_store(&spin.cores, 0);
	atomic_store(&spin.runnable, runnable);
	atomic_store(&spin.fd, fd);
	atomic_store(&spin.machine, machine);
	atomic_store(&spin.cores, cores);
}

void sleeper_on_block(enum sleeper_block who, void (*fn)(void))
{
	atomic_store(&on_block[who], fn);
}

static void about_to_block(void)
{
	for (unsigned i = 0; i < SLEEPER_BLOCK_NR; i++) {
		void (*block)(void) = atomic_load_explicit(&on_block[i], memory_order_acquire);

		if (block)
			block();
	}
}

void sleeper_limit_spin(unsigned cores)
{
	atomic_store(&spin.limit, cores);
}

/* What may be used: with one nobody looks. */
static unsigned spin_cores(void)
{
	return MIN(atomic_load_explicit(&spin.cores, memory_order_relaxed),
		   atomic_load_explicit(&spin.limit, memory_order_relaxed));
}

static bool spin_may(int64_t now)
{
	if (now - atomic_load_explicit(&spin.looked_ns, memory_order_relaxed) > SPIN_LOOK_NS) {
		unsigned n = atomic_load(&spin.runnable)(atomic_load(&spin.fd));

		atomic_store_explicit(&spin.core_free, n && n <= atomic_load(&spin.machine),
				      memory_order_relaxed);
		atomic_store_explicit(&spin.looked_ns, now, memory_order_relaxed);
	}
	return atomic_load_explicit(&spin.core_free, memory_order_relaxed);
}

/* Until one of `bits` is in *at, or for `ns` from `now`. Return: what is there. */
static uint32_t spin_for(const _Atomic uint32_t *at, uint32_t bits, uint8_t brief, int64_t now,
			 int64_t ns)
{
	uint32_t word = atomic_load_explicit(at, memory_order_acquire);
	int64_t until = now + ns;

	if (brief < SPIN_BRIEF_MIN || !spin_may(now))
		return word;
	/* One core at least is left for who is to wake us. */
	if (atomic_fetch_add_explicit(&spin.spinners, 1, memory_order_relaxed) + 1 < spin_cores()) {
		while (!(word & bits) && time_monotonic_ns() < until) {
			cpu_relax();
			word = atomic_load_explicit(at, memory_order_acquire);
		}
	}
	atomic_fetch_sub_explicit(&spin.spinners, 1, memory_order_relaxed);
	return word;
}

/* The wait that began at `start`, in which one looked for `ns` at most, is over. */
static void spin_learn(uint8_t *brief, int64_t start, int64_t ns)
{
	if (time_monotonic_ns() - start > ns + SPIN_WAKE_NS)
		*brief /= 2;
	else if (*brief < SPIN_BRIEF_MAX)
		++*brief;
}

uint32_t sleep_until_set(_Atomic uint32_t *at, uint8_t *inout_brief, int64_t spin_ns)
{
	uint32_t word = atomic_load_explicit(at, memory_order_acquire);
	int64_t start = 0;

	if (!word && spin_cores() > 1) {
		start = time_monotonic_ns();
		word = spin_for(at, UINT32_MAX, *inout_brief, start, spin_ns);
	}
	while (!word) {
		(void)futex_wait(at, 0, NULL);
		word = atomic_load_explicit(at, memory_order_acquire);
	}
	if (start)
		spin_learn(inout_brief, start, spin_ns);
	return word;
}

int sleeper_wait(struct sleeper *s, enum sleep_mode mode, int64_t deadline_ns)
{
	uint32_t intr = sleeper_interrupt_bits(mode);
	struct timespec ts, *deadline = NULL;
	int64_t start = 0;
	bool expired = false;
	uint32_t word;
	int err;

	lock_assert_may_sleep();
	if (deadline_ns != TIME_FOREVER) {
		if (deadline_ns < 0)
			deadline_ns = 0;
		ts.tv_sec = deadline_ns / NSEC_PER_SEC;
		ts.tv_nsec = deadline_ns % NSEC_PER_SEC;
		deadline = &ts;
	}
	/* Look before announcing a sleep: a wake-up that came first costs one atomic. */
	word = atomic_load_explicit(&s->word, memory_order_acquire);
	if (!(word & (SLEEPER_WOKEN | intr))) {
		atomic_store_explicit(&s->waits, true, memory_order_relaxed);
		about_to_block();
	}
	if (!(word & (SLEEPER_WOKEN | intr)) && spin_cores() > 1) {
		start = time_monotonic_ns();
		if (deadline_ns > start + SPIN_NS)
			word = spin_for(&s->word, SLEEPER_WOKEN | intr, s->brief, start, SPIN_NS);
	}
	if (!(word & (SLEEPER_WOKEN | intr)))
		word = atomic_fetch_or_explicit(&s->word, SLEEPER_ASLEEP, memory_order_acq_rel) |
		       SLEEPER_ASLEEP;
	while (!(word & (SLEEPER_WOKEN | intr)) && !expired) {
		expired = futex_wait(&s->word, word, deadline) == -ETIMEDOUT;
		word = atomic_load_explicit(&s->word, memory_order_acquire);
	}
	atomic_store_explicit(&s->waits, false, memory_order_relaxed);
	if (start)
		spin_learn(&s->brief, start, SPIN_NS);
	if (word & SLEEPER_WOKEN)
		err = 0;
	else if (word & intr)
		err = -EINTR;
	else
		err = -ETIMEDOUT;
	/* Only the wake-up that this wait reports is consumed. */
	atomic_fetch_and_explicit(&s->word,
				  err ? ~SLEEPER_ASLEEP : ~(SLEEPER_ASLEEP | SLEEPER_WOKEN),
				  memory_order_acq_rel);
	return err;
}

static int64_t time_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return ts.tv_sec * NSEC_PER_SEC + ts.tv_nsec;
}

int64_t time_monotonic_ns(void)
{
	return time_ns(CLOCK_MONOTONIC);
}

int64_t time_realtime_ns(void)
{
	return time_ns(CLOCK_REALTIME);
}
