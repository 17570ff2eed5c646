/*
 * sentry/futex.c - futex(2) without priority inheritance: wait, wake, requeue, wake_op, waitv; and the robust lists.
 *
 * Linux compares the word under the hash bucket's lock. Here no lock is held over a copy from user memory, so:
 *
 *  - A waiter queues itself, then looks at the word, and leaves if it differs. A waker that changed the word first is seen by that look;
 *    one that changes it later finds the waiter. If a wake-up hit the waiter in between although it would not have waited, the wake-up is
 *    handed to another waiter of the same futex: a FUTEX_WAKE of one must not be lost on somebody who was never asleep.
 *  - CMP_REQUEUE compares between two looks at the bucket's count of enqueues: if it did not change, the comparison was as good as one under the lock.
 *
 * Keys: private (mm, address); shared (memory file page or mappable, offset). A waiter's key holds a reference on a mappable.
 *
 * Cannot do: NUMA and FUTEX2 sizes other than 32 bits (Linux has none either).
 */
#include "base/hash.h"
#include "sentry/futex_internal.h"

#define FUTEX_BUCKETS 512

static struct futex_bucket buckets[FUTEX_BUCKETS];

void futex_tables_init(void)
{
	for (int i = 0; i < FUTEX_BUCKETS; i++) {
		mutex_init(&buckets[i].lock, LOCK_FUTEX, "futex bucket");
		TAILQ_INIT(&buckets[i].waiters);
	}
}

void futex_for_each_bucket(void (*fn)(struct futex_bucket *b, struct task *t), struct task *t)
{
	for (int i = 0; i < FUTEX_BUCKETS; i++)
		fn(&buckets[i], t);
}

/* ---- keys and queues ---- */

struct futex_bucket *futex_bucket_of(const struct futex_key *key)
{
	return &buckets[hash_u64(key->a ^ hash_u64(key->b ^ ((uint64_t)key->off << 40))) %
			FUTEX_BUCKETS];
}

bool futex_key_equal(const struct futex_key *a, const struct futex_key *b)
{
	return a->a == b->a && a->b == b->b && a->off == b->off && a->mm == b->mm &&
	       a->mappable == b->mappable;
}

int futex_get_key(struct task *t, uint64_t uaddr, bool shared, bool write, struct futex_key *ret)
{
	if (uaddr % sizeof(uint32_t))
		return -EINVAL;
	return mm_futex_key(t->mm, uaddr, shared, write, ret);
}

void futex_key_copy(struct futex_key *dst, const struct futex_key *src)
{
	*dst = *src;
	if (dst->mappable)
		dst->mappable->ops->ref(dst->mappable);
}

static void bucket_insert(struct futex_bucket *b, struct futex_waiter *w)
{
	TAILQ_INSERT_TAIL(&b->waiters, w, link);
	b->seq++;
	atomic_store_explicit(&w->bucket, b, memory_order_release);
}

static void bucket_remove(struct futex_bucket *b, struct futex_waiter *w)
{
	TAILQ_REMOVE(&b->waiters, w, link);
	atomic_store_explicit(&w->bucket, NULL, memory_order_release);
}

void futex_enqueue(struct futex_waiter *w)
{
	struct futex_bucket *b = futex_bucket_of(&w->key);

	mutex_lock(&b->lock);
	bucket_insert(b, w);
	mutex_unlock(&b->lock);
}

/* The bucket that the waiter is on, locked; NULL: on none. Requeueing moves it meanwhile. */
struct futex_bucket *futex_lock_waiter(struct futex_waiter *w)
{
	struct futex_bucket *b;

	for (;;) {
		b = atomic_load_explicit(&w->bucket, memory_order_acquire);
		if (!b)
			return NULL;
		mutex_lock(&b->lock);
		if (b == atomic_load_explicit(&w->bucket, memory_order_relaxed))
			return b;
		mutex_unlock(&b->lock);
	}
}

bool futex_dequeue(struct futex_waiter *w)
{
	struct futex_bucket *b = futex_lock_waiter(w);

	if (!b)
		return false;
	bucket_remove(b, w);
	mutex_unlock(&b->lock);
	return true;
}

/* After the store to w->bucket the waiter may return and be gone: RCU keeps the task's memory for the wake-up. */
void futex_wake_locked(struct futex_waiter *w)
{
	struct futex_bucket *b = atomic_load_explicit(&w->bucket, memory_order_relaxed);
	struct task *t = w->task;

	TAILQ_REMOVE(&b->waiters, w, link);
	rcu_read_begin();
	atomic_store_explicit(&w->bucket, NULL, memory_order_release);
	sleeper_wake(&t->sleeper);
	rcu_read_end();
}

int futex_sleep(struct task *t, struct futex_waiter *w, int64_t deadline)
{
	int err = 0;

	sleeper_set_what(&t->sleeper, "futex");
	while (!err && atomic_load_explicit(&w->bucket, memory_order_acquire))
		err = sleeper_wait(&t->sleeper, SLEEP_INTERRUPTIBLE, deadline);
	sleeper_set_what(&t->sleeper, NULL);
	return err;
}

/* ---- wake ---- */

static int wake_key(const struct futex_key *key, int count, uint32_t bitset)
{
	struct futex_bucket *b = futex_bucket_of(key);
	struct futex_waiter *w, *next;
	int woken = 0;

	mutex_lock(&b->lock);
	for (w = TAILQ_FIRST(&b->waiters); w && woken < count; w = next) {
		next = TAILQ_NEXT(w, link);
		if (!futex_key_equal(&w->key, key) || !(w->bitset & bitset))
			continue;
		if (w->pi || w->requeue_pi) {
			/* Mixing plain wakes with PI waiters is the application's error. */
			woken = woken ? woken : -EINVAL;
			break;
		}
		w->woken_bitset = bitset;
		futex_wake_locked(w);
		woken++;
	}
	mutex_unlock(&b->lock);
	return woken;
}

int64_t futex_op_wake(struct task *t, uint64_t uaddr, unsigned flags, int count, uint32_t bitset)
{
	struct futex_key key;
	int ret;

	if (!bitset)
		return -EINVAL;
	ret = futex_get_key(t, uaddr, flags & FUTEX_F_SHARED, false, &key);
	if (ret)
		return ret;
	ret = wake_key(&key, count < 1 ? 1 : count, bitset);
	futex_key_fini(&key);
	return ret;
}

/* ---- wait ---- */

/* The word differs: the caller does not sleep. If it was woken all the same, somebody else is owed that. */
static void wait_give_back(struct futex_waiter *w)
{
	if (!futex_dequeue(w))
		wake_key(&w->key, 1, w->woken_bitset);
}

int64_t futex_op_wait(struct task *t, uint64_t uaddr, unsigned flags, uint32_t val, uint32_t bitset,
		      int64_t deadline)
{
	struct futex_waiter w = {.bitset = bitset, .task = t};
	uint32_t now;
	int err;

	if (!bitset)
		return -EINVAL;
	err = futex_get_key(t, uaddr, flags & FUTEX_F_SHARED, false, &w.key);
	if (err)
		return err;
	futex_enqueue(&w);
	err = mm_load_u32(t->mm, uaddr, &now);
	if (!err && now != val)
		err = -EAGAIN;
	if (err) {
		wait_give_back(&w);
		goto out_key;
	}
	err = futex_sleep(t, &w, deadline);
	/* Woken and interrupted at once: woken counts. */
	if (!futex_dequeue(&w))
		err = 0;
out_key:
	futex_key_fini(&w.key);
	return err;
}

/* ---- requeue ---- */

static int requeue_locked(struct futex_bucket *b1, struct futex_bucket *b2,
			  const struct futex_key *k1, const struct futex_key *k2, int wake,
			  int requeue)
{
	struct futex_waiter *w, *next;
	int done = 0;

	for (w = TAILQ_FIRST(&b1->waiters); w && done - wake < requeue; w = next) {
		next = TAILQ_NEXT(w, link);
		if (!futex_key_equal(&w->key, k1))
			continue;
		if (w->pi || w->requeue_pi)
			return done ? done : -EINVAL;
		if (done < wake) {
			w->woken_bitset = FUTEX_BITSET_ANY;
			futex_wake_locked(w);
		} else if (!futex_key_equal(k1, k2)) {
			struct futex_key old = w->key;

			TAILQ_REMOVE(&b1->waiters, w, link);
			futex_key_copy(&w->key, k2);
			bucket_insert(b2, w);
			futex_key_fini(
				&old); /* never the last reference: the caller's k1 is the same */
		}
		done++;
	}
	return done;
}

static uint32_t bucket_seq(struct futex_bucket *b)
{
	uint32_t seq;

	mutex_lock(&b->lock);
	seq = b->seq;
	mutex_unlock(&b->lock);
	return seq;
}

#define FUTEX_CMP_TRIES \
	64 /* against waiters that keep coming; then the comparison counts as it was */

int64_t futex_op_requeue(struct task *t, uint64_t uaddr, unsigned flags, int wake, int requeue,
			 uint64_t uaddr2, const uint32_t *cmpval)
{
	bool shared = flags & FUTEX_F_SHARED, same;
	struct futex_bucket *b1, *b2;
	struct futex_key k1, k2;
	uint32_t now, seq = 0;
	int ret;

	if (wake < 0 || requeue < 0)
		return -EINVAL;
	ret = futex_get_key(t, uaddr, shared, false, &k1);
	if (ret)
		return ret;
	ret = futex_get_key(t, uaddr2, shared, false, &k2);
	if (ret)
		goto out_k1;
	b1 = futex_bucket_of(&k1);
	b2 = futex_bucket_of(&k2);
	for (int tries = 0;; tries++) {
		if (cmpval) {
			seq = bucket_seq(b1);
			ret = mm_load_u32(t->mm, uaddr, &now);
			if (!ret && now != *cmpval)
				ret = -EAGAIN;
			if (ret)
				break;
		}
		mutex_lock_pair(&b1->lock, &b2->lock);
		same = !cmpval || b1->seq == seq || tries >= FUTEX_CMP_TRIES;
		if (same)
			ret = requeue_locked(b1, b2, &k1, &k2, wake, requeue);
		mutex_unlock_pair(&b1->lock, &b2->lock);
		if (same)
			break;
	}
	futex_key_fini(&k2);
out_k1:
	futex_key_fini(&k1);
	return ret;
}

/* ---- wake_op ---- */

static int wake_op_apply(uint32_t op, uint32_t old, uint32_t *ret_new)
{
	int32_t oparg = (int32_t)(op << 8) >> 20;
	unsigned kind = (op >> 28) & 7;

	if (op & (8u << 28)) { /* FUTEX_OP_OPARG_SHIFT */
		oparg = (int32_t)(1u << (oparg & 31));
	}
	switch (kind) {
	case 0:
		*ret_new = (uint32_t)oparg;
		return 0;
	case 1:
		*ret_new = old + (uint32_t)oparg;
		return 0;
	case 2:
		*ret_new = old | (uint32_t)oparg;
		return 0;
	case 3:
		*ret_new = old & ~(uint32_t)oparg;
		return 0;
	case 4:
		*ret_new = old ^ (uint32_t)oparg;
		return 0;
	default:
		return -ENOSYS;
	}
}

static int wake_op_compare(uint32_t op, uint32_t old)
{
	int32_t cmparg = (int32_t)(op << 20) >> 20, v = (int32_t)old;

	switch ((op >> 24) & 15) {
	case 0:
		return v == cmparg;
	case 1:
		return v != cmparg;
	case 2:
		return v < cmparg;
	case 3:
		return v <= cmparg;
	case 4:
		return v > cmparg;
	case 5:
		return v >= cmparg;
	default:
		return -ENOSYS;
	}
}

int64_t futex_op_wake_op(struct task *t, uint64_t uaddr, unsigned flags, int wake, int wake2,
			 uint64_t uaddr2, uint32_t op)
{
	bool shared = flags & FUTEX_F_SHARED;
	struct futex_key k1, k2;
	uint32_t old, new;
	int ret, more;

	ret = futex_get_key(t, uaddr, shared, false, &k1);
	if (ret)
		return ret;
	ret = futex_get_key(t, uaddr2, shared, true, &k2);
	if (ret)
		goto out_k1;
	ret = mm_load_u32(t->mm, uaddr2, &old);
	do {
		if (!ret)
			ret = wake_op_apply(op, old, &new);
		if (ret)
			goto out_k2;
		ret = mm_cmpxchg_u32(t->mm, uaddr2, &old, new);
		if (ret == -EAGAIN) {
			ret = 0;
			continue;
		}
		break;
	} while (true);
	if (!ret)
		ret = wake_op_compare(op, old);
	if (ret < 0)
		goto out_k2;
	more = ret;
	ret = wake_key(&k1, wake < 1 ? 1 : wake, FUTEX_BITSET_ANY);
	if (ret >= 0 && more) {
		more = wake_key(&k2, wake2 < 1 ? 1 : wake2, FUTEX_BITSET_ANY);
		ret = more < 0 ? more : ret + more;
	}
out_k2:
	futex_key_fini(&k2);
out_k1:
	futex_key_fini(&k1);
	return ret;
}

/* ---- waitv ---- */

static int waitv_sleep(struct task *t, struct futex_waiter *ws, unsigned count, int64_t deadline)
{
	int err = 0;

	sleeper_set_what(&t->sleeper, "futex");
	while (!err) {
		for (unsigned i = 0; i < count; i++)
			if (!atomic_load_explicit(&ws[i].bucket, memory_order_acquire))
				goto out;
		err = sleeper_wait(&t->sleeper, SLEEP_INTERRUPTIBLE, deadline);
	}
out:
	sleeper_set_what(&t->sleeper, NULL);
	return err;
}

int64_t futex_op_waitv(struct task *t, const struct futex_waitv_k *v, unsigned count,
		       int64_t deadline)
{
	struct futex_waiter *ws = calloc(count, sizeof(*ws));
	unsigned queued = 0;
	int64_t woken = -1;
	uint32_t now;
	int err = 0;

	if (!ws)
		return -ENOMEM;
	for (; queued < count && !err; queued++) {
		struct futex_waiter *w = &ws[queued];

		w->task = t;
		w->bitset = FUTEX_BITSET_ANY;
		err = futex_get_key(t, v[queued].uaddr,
				    !(v[queued].flags & 128 /* FUTEX2_PRIVATE */), false, &w->key);
		if (err)
			break;
		futex_enqueue(w);
		err = mm_load_u32(t->mm, v[queued].uaddr, &now);
		if (!err && now != (uint32_t)v[queued].val)
			err = -EAGAIN;
	}
	if (!err)
		err = waitv_sleep(t, ws, count, deadline);
	for (unsigned i = 0; i < queued; i++)
		if (!futex_dequeue(&ws[i])) {
			if (woken < 0)
				woken = i;
			else
				wake_key(
					&ws[i].key, 1,
					ws[i].woken_bitset); /* one answer only: pass the others on */
		}
	for (unsigned i = 0; i < queued; i++)
		futex_key_fini(&ws[i].key);
	free(ws);
	return woken >= 0 ? woken : err;
}

/* ---- the end of a task ---- */

static void robust_death(struct task *t, uint64_t uaddr, bool pi, bool pending)
{
	uint32_t val, new;
	int err;

	if (uaddr % sizeof(uint32_t))
		return;
	do {
		if (mm_load_u32(t->mm, uaddr, &val))
			return;
		/* The dying task had just unlocked, or not yet locked: a waiter may have missed its wake-up. */
		if (pending && !pi && !val) {
			(void)futex_op_wake(t, uaddr, FUTEX_F_SHARED, 1, FUTEX_BITSET_ANY);
			(void)futex_op_wake(t, uaddr, 0, 1, FUTEX_BITSET_ANY);
			return;
		}
		if ((val & FUTEX_TID_MASK_) != (uint32_t)t->vtid)
			return;
		new = (val & FUTEX_WAITERS_) | FUTEX_OWNER_DIED_;
		err = mm_cmpxchg_u32(t->mm, uaddr, &val, new);
		if (err && err != -EAGAIN)
			return;
	} while (err);
	if (!pi && (val & FUTEX_WAITERS_)) {
		(void)futex_op_wake(t, uaddr, FUTEX_F_SHARED, 1, FUTEX_BITSET_ANY);
		(void)futex_op_wake(t, uaddr, 0, 1, FUTEX_BITSET_ANY);
	}
}

struct robust_head {
	uint64_t next;
	int64_t offset;
	uint64_t pending;
};

static void robust_walk(struct task *t)
{
	struct robust_head head;
	uint64_t entry, next, pending;

	if (task_copy_in(t, &head, t->robust_list, sizeof(head)))
		return;
	entry = head.next;
	pending = head.pending & ~1ull;
	/* Bit 0 marks PI futexes. A list that was tampered with must not keep us for ever. */
	for (int left = ROBUST_LIST_MAX; left && (entry & ~1ull) != t->robust_list; left--) {
		int err = task_copy_in(t, &next, entry & ~1ull, sizeof(next));

		if ((entry & ~1ull) != pending)
			robust_death(t, (entry & ~1ull) + (uint64_t)head.offset, entry & 1, false);
		if (err)
			return;
		entry = next;
	}
	if (pending)
		robust_death(t, pending + (uint64_t)head.offset, head.pending & 1, true);
}

void task_futex_exit(struct task *t)
{
	if (t->robust_list)
		robust_walk(t);
	futex_pi_owner_exit(t);
}
