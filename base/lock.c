/*
 * base/lock.c - mutex and rwlock over futex(2), and the debug build's order checker.
 *
 * Mutex: Drepper's third ("Futexes Are Tricky"): 0 free, 1 held, 2 held and somebody may sleep. An
 * uncontended lock or unlock is one atomic and no call. A contender spins only if more than one
 * CPU is ours and nobody sleeps yet: with sleepers the holder is slow or the CPUs are full.
 *
 * Rwlock: the word holds the readers (or WRITE_LOCKED) and two bits, "readers sleep" and "writers
 * sleep". Readers sleep on the word itself, writers on wait_seq, so an unlock wakes one writer
 * without waking the readers. A new reader goes behind a sleeping writer: writers are preferred, and a thread
 * must not take a read lock twice (the rank checker aborts on it). The state machine is that of
 * Rust's std::sys::sync::rwlock::futex.
 *
 * A killable wait looks now and then whether it was killed: it leaves within a tick, and not before it has waited one. A writer that leaves
 * wakes whoever waits: they may have waited behind it.
 *
 * Watch: lock_held_names() from a debug build. Not here: priority inheritance, timeouts,
 * cross-process locks, fairness between writers.
 */
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "base/futex.h"
#include "base/lock.h"
#include "base/lock_waits.h"
#include "base/log.h"
#include "base/rcu.h"
#include "base/sleep.h"

#define SPIN_MAX 100

/* How often a contender looks before it sleeps: 0 on one CPU. Immutable after start. */
static int spin_limit;

__attribute__((constructor)) static void lock_count_cpus(void)
{
	cpu_set_t set;

	if (!sched_getaffinity(0, sizeof(set), &set) && CPU_COUNT(&set) > 1)
		spin_limit = SPIN_MAX;
}

#ifdef MOAT_DEBUG

#define HELD_MAX 64

struct held_lock {
	const void *lock;
	const char *name;
	int rank;
};

static _Thread_local struct held_lock held[HELD_MAX];
static _Thread_local int held_count;

static noreturn_fn void held_abort(const char *what, const void *lock, const char *name, int rank)
{
	char names[1024];

	lock_held_names(names, sizeof(names));
	log_fatal("lock bug: %s: %s (rank %d, %p); this thread holds: %s", what,
		  name ? name : "(unnamed)", rank, lock, names);
}

/* Before an acquisition that may block: would it be out of order? */
static void held_check(const void *lock, const char *name, int rank, bool nested)
{
	for (int i = held_count - 1; i >= 0; i--) {
		if (held[i].lock == lock)
			held_abort("taken twice", lock, name, rank);
		if (rank == LOCK_NONE || held[i].rank == LOCK_NONE)
			continue;
		if (held[i].rank > rank || (held[i].rank == rank && !nested))
			held_abort("taken out of order", lock, name, rank);
	}
}

static void held_push(const void *lock, const char *name, int rank)
{
	if (held_count == HELD_MAX)
		held_abort("too many locks held", lock, name, rank);
	held[held_count++] = (struct held_lock){.lock = lock, .name = name, .rank = rank};
}

static int held_find(const void *lock)
{
	for (int i = held_count - 1; i >= 0; i--)
		if (held[i].lock == lock)
			return i;
	return -1;
}

static void held_pop(const void *lock, const char *name, int rank)
{
	int i = held_find(lock);

	if (i < 0)
		held_abort("unlocked but not held", lock, name, rank);
	held_count--;
	memmove(&held[i], &held[i + 1], (size_t)(held_count - i) * sizeof(held[0]));
}

#define HELD_CHECK(l, nested) held_check((l), (l)->name, (l)->rank, (nested))
#define HELD_PUSH(l) held_push((l), (l)->name, (l)->rank)
#define HELD_POP(l) held_pop((l), (l)->name, (l)->rank)
#define LOCK_NAME(l) ((l)->name)

#else

#define HELD_CHECK(l, nested) ((void)(l), (void)(nested))
#define HELD_PUSH(l) ((void)(l))
#define HELD_POP(l) ((void)(l))
#define LOCK_NAME(l) NULL

#endif

size_t lock_held_names(char *buf, size_t size)
{
	size_t len = 0;

	if (size)
		buf[0] = '\0';
#ifdef MOAT_DEBUG
	for (int i = 0; i < held_count; i++) {
		int n = snprintf(buf + len, size - len, "%s (rank %d, %p)\n",
				 held[i].name ? held[i].name : "(unnamed)", held[i].rank,
				 held[i].lock);

		if (n < 0 || (size_t)n >= size - len)
			break;
		len += (size_t)n;
	}
#endif
	return len;
}

void lock_assert_may_sleep(void)
{
#ifdef MOAT_DEBUG
	for (int i = 0; i < held_count; i++)
		if (held[i].rank != LOCK_FS_OP)
			held_abort("held across a sleep", held[i].lock, held[i].name, held[i].rank);
	if (rcu_read_ongoing())
		log_fatal("rcu bug: sleep inside a read section");
#endif
}

/* ---- mutex ---- */

enum { MUTEX_FREE, MUTEX_HELD, MUTEX_WAITERS };

void mutex_init(struct mutex *m, enum lock_rank rank, const char *name)
{
	atomic_init(&m->word, MUTEX_FREE);
#ifdef MOAT_DEBUG
	m->rank = (uint16_t)rank;
	m->name = name;
#else
	(void)rank;
	(void)name;
#endif
}

static bool mutex_cmpxchg(struct mutex *m, uint32_t *old, uint32_t new)
{
	return atomic_compare_exchange_strong_explicit(&m->word, old, new, memory_order_acquire,
						       memory_order_relaxed);
}

static __attribute__((noinline)) void mutex_lock_slow(struct mutex *m)
{
	uint32_t old;
	int wait;

	for (int i = 0; i < spin_limit; i++) {
		old = atomic_load_explicit(&m->word, memory_order_relaxed);
		if (old == MUTEX_FREE && mutex_cmpxchg(m, &old, MUTEX_HELD))
			return;
		if (old == MUTEX_WAITERS)
			break;
		cpu_relax();
	}
	/* From here the lock is taken as WAITERS: others may sleep that only our unlock will wake. */
	if (atomic_exchange_explicit(&m->word, MUTEX_WAITERS, memory_order_acquire) == MUTEX_FREE)
		return;
	wait = lock_wait_begin(m, LOCK_NAME(m), __builtin_return_address(0));
	do
		futex_wait(&m->word, MUTEX_WAITERS, NULL);
	while (atomic_exchange_explicit(&m->word, MUTEX_WAITERS, memory_order_acquire) !=
	       MUTEX_FREE);
	lock_wait_end(wait);
}

static void mutex_acquire(struct mutex *m)
{
	uint32_t old = MUTEX_FREE;

	if (unlikely(!mutex_cmpxchg(m, &old, MUTEX_HELD)))
		mutex_lock_slow(m);
	HELD_PUSH(m);
}

void mutex_lock(struct mutex *m)
{
	HELD_CHECK(m, false);
	mutex_acquire(m);
}

void mutex_lock_nested(struct mutex *m)
{
	HELD_CHECK(m, true);
	mutex_acquire(m);
}

bool mutex_trylock(struct mutex *m)
{
	uint32_t old = MUTEX_FREE;

	if (!mutex_cmpxchg(m, &old, MUTEX_HELD))
		return false;
	HELD_PUSH(m);
	return true;
}

void mutex_unlock(struct mutex *m)
{
	uint32_t old;

	HELD_POP(m);
	old = atomic_exchange_explicit(&m->word, MUTEX_FREE, memory_order_release);
	assert(old != MUTEX_FREE);
	if (unlikely(old == MUTEX_WAITERS))
		futex_wake(&m->word, 1);
}

void mutex_lock_pair(struct mutex *a, struct mutex *b)
{
	if (a == b) {
		mutex_lock(a);
		return;
	}
	if ((uintptr_t)a > (uintptr_t)b) {
		struct mutex *tmp = a;

		a = b;
		b = tmp;
	}
	mutex_lock(a);
	mutex_lock_nested(b);
}

void mutex_unlock_pair(struct mutex *a, struct mutex *b)
{
	mutex_unlock(a);
	if (a != b)
		mutex_unlock(b);
}

void mutex_assert_held(const struct mutex *m)
{
#ifdef MOAT_DEBUG
	if (held_find(m) < 0)
		held_abort("should be held", m, m->name, m->rank);
#else
	(void)m;
#endif
}

/* ---- rwlock ---- */

#define RW_MASK ((1u << 30) - 1)
#define RW_WRITE_LOCKED RW_MASK
#define RW_READERS_MAX (RW_MASK - 1)
#define KILLABLE_TICK_NS 250000000ll /* how often who waits killably looks whether it was killed */
#define RW_READERS_WAIT (1u << 30)
#define RW_WRITERS_WAIT (1u << 31)

void rwlock_init(struct rwlock *l, enum lock_rank rank, const char *name)
{
	atomic_init(&l->word, 0);
	atomic_init(&l->wait_seq, 0);
#ifdef MOAT_DEBUG
	l->rank = (uint16_t)rank;
	l->name = name;
#else
	(void)rank;
	(void)name;
#endif
}

static bool rw_cmpxchg(struct rwlock *l, uint32_t *old, uint32_t new)
{
	return atomic_compare_exchange_strong_explicit(&l->word, old, new, memory_order_acquire,
						       memory_order_relaxed);
}

static bool rw_unlocked(uint32_t word)
{
	return (word & RW_MASK) == 0;
}

static bool rw_readable(uint32_t word)
{
	return (word & RW_MASK) < RW_READERS_MAX && !(word & (RW_READERS_WAIT | RW_WRITERS_WAIT));
}

/*
 * After rwlock_downgrade() woke us: the lock is in read mode and no reader sleeps. A waiting
 * writer does not hold us back, or the downgrade would have let nobody in.
 */
static bool rw_readable_after_wake(uint32_t word)
{
	return !rw_unlocked(word) && (word & RW_MASK) < RW_READERS_MAX && !(word & RW_READERS_WAIT);
}

static uint32_t rw_spin_read(struct rwlock *l)
{
	uint32_t word = atomic_load_explicit(&l->word, memory_order_relaxed);

	/* Stop when it is not write-locked, or when somebody sleeps already. */
	for (int i = 0; i < spin_limit && word == RW_WRITE_LOCKED; i++) {
		cpu_relax();
		word = atomic_load_explicit(&l->word, memory_order_relaxed);
	}
	return word;
}

static uint32_t rw_spin_write(struct rwlock *l)
{
	uint32_t word = atomic_load_explicit(&l->word, memory_order_relaxed);

	for (int i = 0; i < spin_limit && !rw_unlocked(word) && !(word & RW_WRITERS_WAIT); i++) {
		cpu_relax();
		word = atomic_load_explicit(&l->word, memory_order_relaxed);
	}
	return word;
}

/*
 * Sleeps on *word. killable: a tick at most, then a fatal signal ends the wait; no wake-up has counted this thread then, so none is lost. Return: 0,
 * -EINTR.
 */
static int rw_sleep(struct rwlock *l, _Atomic uint32_t *word, uint32_t expected, bool killable,
		    const void *caller)
{
	int wait = lock_wait_begin(l, LOCK_NAME(l), caller), err;
	struct timespec deadline;

	if (killable) {
		int64_t end = time_monotonic_ns() + KILLABLE_TICK_NS;

		deadline = (struct timespec){end / 1000000000, end % 1000000000};
	}
	err = futex_wait(word, expected, killable ? &deadline : NULL);
	lock_wait_end(wait);
	return err == -ETIMEDOUT && sleeper_was_killed() ? -EINTR : 0;
}

/* A writer has left: what waited behind it, and other writers, look again. */
static void rw_leave(struct rwlock *l)
{
	uint32_t word = atomic_load_explicit(&l->word, memory_order_relaxed);

	/* Free with waiters: whoever unlocked it wakes them. */
	while (!rw_unlocked(word) && (word & RW_WRITERS_WAIT))
		if (rw_cmpxchg(l, &word, word & RW_MASK)) {
			atomic_fetch_add_explicit(&l->wait_seq, 1, memory_order_release);
			futex_wake(&l->wait_seq, INT_MAX);
			futex_wake(&l->word, INT_MAX);
			return;
		}
}

/* Return: 0; -EINTR: killable, and killed. */
static __attribute__((noinline)) int rw_read_slow(struct rwlock *l, bool killable)
{
	uint32_t word = rw_spin_read(l);
	bool slept = false;

	for (;;) {
		if (rw_readable(word) || (slept && rw_readable_after_wake(word))) {
			if (rw_cmpxchg(l, &word, word + 1))
				return 0;
			continue;
		}
		assert((word & RW_MASK) != RW_READERS_MAX);
		if (!(word & RW_READERS_WAIT) && !rw_cmpxchg(l, &word, word | RW_READERS_WAIT))
			continue;
		if (rw_sleep(l, &l->word, word | RW_READERS_WAIT, killable,
			     __builtin_return_address(0)))
			return -EINTR;
		slept = true;
		word = rw_spin_read(l);
	}
}

/* Return: true if a writer was really asleep. */
static bool rw_wake_writer(struct rwlock *l)
{
	atomic_fetch_add_explicit(&l->wait_seq, 1, memory_order_release);
	return futex_wake(&l->wait_seq, 1) > 0;
}

/* The lock has just become free with waiters. Whoever changes the word first takes over the duty. */
static __attribute__((noinline)) void rw_wake(struct rwlock *l, uint32_t word)
{
	assert(rw_unlocked(word));
	if (word == RW_WRITERS_WAIT) {
		if (rw_cmpxchg(l, &word, 0)) {
			rw_wake_writer(l);
			return;
		}
	}
	if (word == (RW_READERS_WAIT | RW_WRITERS_WAIT)) {
		if (!rw_cmpxchg(l, &word, RW_READERS_WAIT))
			return;
		if (rw_wake_writer(l))
			return;
		word = RW_READERS_WAIT;
	}
	if (word == RW_READERS_WAIT && rw_cmpxchg(l, &word, 0))
		futex_wake(&l->word, INT_MAX);
}

static __attribute__((noinline)) int rw_write_slow(struct rwlock *l, bool killable)
{
	uint32_t word = rw_spin_write(l);
	uint32_t others = 0;

	for (;;) {
		uint32_t seq;

		if (rw_unlocked(word)) {
			if (rw_cmpxchg(l, &word, word | RW_WRITE_LOCKED | others))
				return 0;
			continue;
		}
		if (!(word & RW_WRITERS_WAIT) && !rw_cmpxchg(l, &word, word | RW_WRITERS_WAIT))
			continue;
		/* We may be one of several sleepers: keep the bit when we get the lock. */
		others = RW_WRITERS_WAIT;
		seq = atomic_load_explicit(&l->wait_seq, memory_order_acquire);
		word = atomic_load_explicit(&l->word, memory_order_relaxed);
		if (rw_unlocked(word) || !(word & RW_WRITERS_WAIT))
			continue;
		if (rw_sleep(l, &l->wait_seq, seq, killable, __builtin_return_address(0))) {
			rw_leave(l);
			return -EINTR;
		}
		word = rw_spin_write(l);
	}
}

void rwlock_read_lock(struct rwlock *l)
{
	uint32_t word = atomic_load_explicit(&l->word, memory_order_relaxed);

	HELD_CHECK(l, false);
	if (unlikely(!rw_readable(word) || !rw_cmpxchg(l, &word, word + 1)))
		(void)rw_read_slow(l, false);
	HELD_PUSH(l);
}

int rwlock_read_lock_killable(struct rwlock *l)
{
	uint32_t word = atomic_load_explicit(&l->word, memory_order_relaxed);

	HELD_CHECK(l, false);
	if (unlikely(!rw_readable(word) || !rw_cmpxchg(l, &word, word + 1)) &&
	    rw_read_slow(l, true))
		return -EINTR;
	HELD_PUSH(l);
	return 0;
}

void rwlock_read_unlock(struct rwlock *l)
{
	uint32_t word;

	HELD_POP(l);
	word = atomic_fetch_sub_explicit(&l->word, 1, memory_order_release) - 1;
	assert((word & RW_MASK) < RW_READERS_MAX);
	/* Readers sleep on a read-locked lock only behind a writer. */
	if (unlikely(rw_unlocked(word) && (word & RW_WRITERS_WAIT)))
		rw_wake(l, word);
}

static void rw_write_acquire(struct rwlock *l)
{
	uint32_t word = 0;

	if (unlikely(!rw_cmpxchg(l, &word, RW_WRITE_LOCKED)))
		(void)rw_write_slow(l, false);
	HELD_PUSH(l);
}

int rwlock_write_lock_killable(struct rwlock *l)
{
	uint32_t word = 0;

	HELD_CHECK(l, false);
	if (unlikely(!rw_cmpxchg(l, &word, RW_WRITE_LOCKED)) && rw_write_slow(l, true))
		return -EINTR;
	HELD_PUSH(l);
	return 0;
}

void rwlock_write_lock(struct rwlock *l)
{
	HELD_CHECK(l, false);
	rw_write_acquire(l);
}

void rwlock_write_lock_nested(struct rwlock *l)
{
	HELD_CHECK(l, true);
	rw_write_acquire(l);
}

void rwlock_write_unlock(struct rwlock *l)
{
	uint32_t word;

	HELD_POP(l);
	word = atomic_fetch_sub_explicit(&l->word, RW_WRITE_LOCKED, memory_order_release);
	assert((word & RW_MASK) == RW_WRITE_LOCKED);
	word -= RW_WRITE_LOCKED;
	if (unlikely(word))
		rw_wake(l, word);
}

void rwlock_downgrade(struct rwlock *l)
{
	uint32_t word;

	word = atomic_fetch_sub_explicit(&l->word, RW_WRITE_LOCKED - 1, memory_order_acq_rel);
	assert((word & RW_MASK) == RW_WRITE_LOCKED);
	if (word & RW_READERS_WAIT) {
		atomic_fetch_and_explicit(&l->word, ~RW_READERS_WAIT, memory_order_relaxed);
		futex_wake(&l->word, INT_MAX);
	}
}
