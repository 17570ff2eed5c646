#include "base/pool.h"

#include <limits.h>
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/sleep.h"

#ifdef POOL_IS_REAL
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(MOAT_DEBUG)
#define POOL_IS_MALLOC
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define POOL_IS_MALLOC
#endif
#endif

#ifdef POOL_IS_MALLOC

void *pool_alloc(struct pool *pool)
{
	return malloc(pool->size);
}

void pool_free(struct pool *pool unused_arg, void *object)
{
	free(object);
}

void pool_trim(void)
{
}

#else

/* What a free object holds. */
struct pool_object {
	struct pool_object *next;
	union {
		struct pool_object *next_list; /* in the depot */
		unsigned n; /* in a thread's list: how many from here on */
	};
};

/* A thread's lists; those in the depot have POOL_BATCH objects. */
static _Thread_local struct pool_object *mine[POOLS_MAX];
static _Thread_local bool will_leave; /* pools_leave() runs when this thread ends */

static struct mutex pools_lock = MUTEX_INIT(LOCK_LEAF, "pools");
static struct pool *pools[POOLS_MAX]; /* guarded by pools_lock; entries never go */
static unsigned npools; /* guarded by pools_lock */
static pthread_key_t leave_key;
static bool leave_key_made; /* guarded by pools_lock */

static void trim_timeout(struct ktimer *t);

static void list_free(struct pool_object *o)
{
	while (o) {
		struct pool_object *next = o->next;

		free(o);
		o = next;
	}
}

static void mine_free(void)
{
	for (unsigned i = 0; i < POOLS_MAX; i++) {
		list_free(mine[i]);
		mine[i] = NULL;
	}
}

static void pools_leave(void *arg unused_arg)
{
	will_leave = false;
	mine_free();
}

/* A number for a pool that has none, and a destructor for a thread's lists. False: it stays malloc(). */
static noinline_fn bool pool_enter(struct pool *pool)
{
	bool ok;

	mutex_lock(&pools_lock);
	if (!leave_key_made)
		leave_key_made = !pthread_key_create(&leave_key, pools_leave);
	ok = leave_key_made;
	if (ok && !atomic_load_explicit(&pool->index, memory_order_relaxed)) {
		ok = npools < POOLS_MAX;
		if (ok) {
			ktimer_init(&pool->trim_timer, trim_timeout);
			pools[npools++] = pool;
			atomic_store_explicit(&pool->index, npools, memory_order_release);
		}
	}
	mutex_unlock(&pools_lock);
	if (ok && !will_leave)
		ok = will_leave = !pthread_setspecific(leave_key, mine);
	return ok;
}

static inline struct pool_object **pool_mine(struct pool *pool)
{
	unsigned index = atomic_load_explicit(&pool->index, memory_order_acquire);

	if (unlikely(!index || !will_leave)) {
		if (!pool_enter(pool))
			return NULL;
		index = atomic_load_explicit(&pool->index, memory_order_relaxed);
	}
	return &mine[index - 1];
}

static struct pool_object *depot_take(struct pool *pool)
{
	struct pool_object *o;

	mutex_lock(&pool->lock);
	o = pool->lists;
	if (o) {
		pool->lists = o->next_list;
		pool->nlists--;
		pool->unused = MIN(pool->unused, pool->nlists);
	}
	mutex_unlock(&pool->lock);
	if (o)
		o->n = POOL_BATCH;
	return o;
}

/* n of the depot's lists, or all. */
static struct pool_object *depot_take_many_locked(struct pool *pool, unsigned n)
{
	struct pool_object *many = NULL, *o;

	mutex_assert_held(&pool->lock);
	for (; n && (o = pool->lists); n--) {
		pool->lists = o->next_list;
		pool->nlists--;
		o->next_list = many;
		many = o;
	}
	pool->unused = MIN(pool->unused, pool->nlists);
	return many;
}

static void lists_free(struct pool_object *many)
{
	while (many) {
		struct pool_object *next = many->next_list;

		list_free(many);
		many = next;
	}
}

/* What was unused for a whole period goes; the next period begins if there is more. */
static void trim_idle(struct rcu_cb *cb)
{
	struct pool *pool = container_of(cb, struct pool, trim_rcu);
	struct pool_object *many;
	unsigned unused;
	bool again;

	mutex_lock(&pool->lock);
	unused = pool->unused;
	many = depot_take_many_locked(pool, unused);
	pool->unused = pool->nlists;
	again = pool->trim_armed = pool->nlists != 0;
	mutex_unlock(&pool->lock);
	lists_free(many);
	/* malloc() keeps what was freed in its arenas, unless it is asked. */
	if (unused >= POOL_TRIM_MIN)
		malloc_trim(0);
	if (again)
		ktimer_arm(&pool->trim_timer, time_monotonic_ns() + POOL_IDLE_NS);
}

/* Thousands of free()s would make other timers late: RCU's thread, which fills the depots, empties them too. */
static void trim_timeout(struct ktimer *t)
{
	rcu_call(&container_of(t, struct pool, trim_timer)->trim_rcu, trim_idle);
}

static void depot_give(struct pool *pool, struct pool_object *list)
{
	bool arm = false;

	mutex_lock(&pool->lock);
	if (pool->nlists < POOL_DEPOT_MAX) {
		list->next_list = pool->lists;
		pool->lists = list;
		pool->nlists++;
		list = NULL;
		arm = !pool->trim_armed;
		pool->trim_armed = true;
	}
	mutex_unlock(&pool->lock);
	list_free(list);
	if (arm)
		ktimer_arm(&pool->trim_timer, time_monotonic_ns() + POOL_IDLE_NS);
}

void *pool_alloc(struct pool *pool)
{
	struct pool_object **list = pool_mine(pool), *o;

	if (!list)
		return malloc(pool->size);
	o = *list;
	if (!o) {
		o = depot_take(pool);
		if (!o)
			return malloc(pool->size);
	}
	*list = o->next;
	if (o->next)
		o->next->n = o->n - 1;
	return o;
}

void pool_free(struct pool *pool, void *object)
{
	struct pool_object **list = pool_mine(pool), *o = object;

	if (!list) {
		free(object);
		return;
	}
	if (!o)
		return;
	if (*list && (*list)->n == POOL_BATCH) {
		depot_give(pool, *list);
		*list = NULL;
	}
	o->n = *list ? (*list)->n + 1 : 1;
	o->next = *list;
	*list = o;
}

void pool_trim(void)
{
	mine_free();
	for (unsigned i = 0; i < POOLS_MAX; i++) {
		struct pool_object *many;
		struct pool *pool;

		mutex_lock(&pools_lock);
		pool = pools[i];
		mutex_unlock(&pools_lock);
		if (!pool)
			return;
		mutex_lock(&pool->lock);
		many = depot_take_many_locked(pool, UINT_MAX);
		mutex_unlock(&pool->lock);
		lists_free(many);
	}
}

#endif
