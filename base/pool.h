/*
 * base/pool.h - recycled memory for small objects that another thread frees than the one that makes them: what RCU callbacks free.
 *
 * malloc() serves those badly: each free takes the lock of the arena that the maker works in, and merges chunks that are taken apart
 * again a moment later. Here each thread has one list for each pool to take from and to give to; whole lists go through the pool's depot, under a lock
 * taken once in POOL_BATCH objects.
 *
 * RCU callbacks come in bursts, some ten milliseconds' worth of them, so a depot must hold what makers take in that time: at most POOL_DEPOT_MAX lists
 * wait there, the rest goes back to malloc(). Lists that nobody needed for POOL_IDLE_NS go back too, and from malloc() to the host, by a timer
 * that runs only while a depot has some (and where there is a timer thread). A thread keeps up to POOL_BATCH objects a pool until it ends.
 *
 * Built with a sanitizer or MOAT_DEBUG a pool is malloc() and free(), so that uses after free are seen; unless POOL_IS_REAL is defined, as it is for
 * the unit test, which includes pool.c.
 */
#ifndef MOAT_BASE_POOL_H
#define MOAT_BASE_POOL_H

#include "base/lock.h"
#include "base/rcu.h"
#include "base/timer.h"

#define POOL_BATCH 64u /* objects a list */
#define POOL_DEPOT_MAX 256u /* lists that wait for a taker */
#define POOL_IDLE_NS 500000000l
#define POOL_TRIM_MIN 16u /* lists that malloc() is asked to give back: some 128 KiB */
#define POOLS_MAX 8u /* that a program may have; more are malloc() */

/* Objects of one size; static. */
struct pool {
	size_t size; /* immutable */
	_Atomic unsigned index; /* of the threads' lists, plus one; given at the first use */
	struct mutex lock; /* LOCK_LEAF: the next four, and index */
	struct pool_object *lists;
	unsigned nlists;
	unsigned unused; /* so many of them nobody needed since the timer looked */
	bool trim_armed; /* the timer will look */
	struct ktimer trim_timer;
	struct rcu_cb trim_rcu;
};

/* At least two pointers an object. */
#define POOL_INIT(pool_size, pool_name)                                        \
	{                                                                      \
		.size = (pool_size), .lock = MUTEX_INIT(LOCK_LEAF, pool_name), \
	}

/* Memory of pool->size bytes, not cleared; NULL without memory. Locks: none of LOCK_LEAF or above. */
must_check void *pool_alloc(struct pool *pool);
/* Takes what pool_alloc() gave, or NULL. Any thread. Locks: none of LOCK_TIMER or above. */
void pool_free(struct pool *pool, void *object);
/* Gives back at once what waits in the depots and in the calling thread's lists (tests that count memory). */
void pool_trim(void);

#endif
