/*
 * sentry/futex_pi.c - PI futexes: the word holds the owner's tid (in its own pid namespace), and the sentry hands ownership over.
 *
 * Task threads are scheduled by the host, so no priority is inherited; what programs see is kept: the owner's identity, FIFO hand-over,
 * EDEADLK, ESRCH and EPERM, owners that die. While a task waits, the word has FUTEX_WAITERS, so the owner must unlock by a call; only the
 * owner may change the tid then, which is what makes the compare-and-exchange outside the bucket's lock right:
 *
 *	unlock: pick the first waiter, mark it `granting`  ->  word := its tid | WAITERS  ->  granted, wake
 *
 * A waiter that gives up (signal, timeout) while it is being granted waits for the outcome. A waiter counts itself in its owner's
 * pi_waiters, so that an owner's exit knows to look; PI_EXITED in that count tells late-comers that nobody will look again.
 *
 * WAIT_REQUEUE_PI: CMP_REQUEUE_PI wakes the waiters, each of which then takes the PI futex itself, in the same call.
 */
#include <sched.h>

#include "sentry/futex_internal.h"

#define PI_EXITED (1 << 30)

/* ---- who waits for whom ---- */

/* False if the owner has ended: nobody will wake us on its behalf. */
static bool pi_set_owner(struct futex_waiter *w, struct task *owner)
{
	bool alive = !(atomic_fetch_add_explicit(&owner->pi_waiters, 1, memory_order_acq_rel) &
		       PI_EXITED);

	task_ref(owner);
	w->pi_owner = owner;
	return alive;
}

static struct task *pi_take_owner(struct futex_waiter *w)
{
	struct task *owner = w->pi_owner;

	w->pi_owner = NULL;
	if (owner)
		atomic_fetch_sub_explicit(&owner->pi_waiters, 1, memory_order_acq_rel);
	return owner;
}

static void pi_drop_owner(struct futex_waiter *w)
{
	struct task *owner = pi_take_owner(w);

	if (owner)
		task_unref(owner);
}

static struct futex_waiter *pi_first(struct futex_bucket *b, const struct futex_key *key)
{
	struct futex_waiter *w;

	TAILQ_FOREACH (w, &b->waiters, link)
		if (futex_key_equal(&w->key, key))
			return w;
	return NULL;
}

static bool pi_has_waiters(const struct futex_key *key)
{
	struct futex_bucket *b = futex_bucket_of(key);
	bool any;

	mutex_lock(&b->lock);
	any = pi_first(b, key) != NULL;
	mutex_unlock(&b->lock);
	return any;
}

/* ---- lock ---- */

/* Off the queue, whatever happened. Return: true if the lock is ours. */
static bool pi_leave_queue(struct task *t, struct futex_waiter *w)
{
	struct futex_bucket *b;
	bool granting;

	while ((b = futex_lock_waiter(w))) {
		granting = w->granting;
		if (!granting) {
			TAILQ_REMOVE(&b->waiters, w, link);
			atomic_store_explicit(&w->bucket, NULL, memory_order_release);
		}
		mutex_unlock(&b->lock);
		if (!granting)
			break;
		(void)!sleeper_wait(&t->sleeper, SLEEP_UNINTERRUPTIBLE, TIME_FOREVER);
	}
	return w->granted;
}

enum pi_try { PI_GOT, PI_AGAIN, PI_MUST_WAIT, PI_ERROR };

/* Takes a free word, or one whose owner is known to be dead. */
static enum pi_try pi_try_take(struct task *t, struct futex_waiter *w, uint64_t uaddr,
			       uint32_t *inout_val, int *ret_err)
{
	uint32_t val = *inout_val, owner = val & FUTEX_TID_MASK_, new;

	if (owner == (uint32_t)t->vtid) {
		*ret_err = -EDEADLK;
		return PI_ERROR;
	}
	if (owner && owner != (uint32_t)w->dead_owner)
		return PI_MUST_WAIT;
	new = (uint32_t)t->vtid | (val & FUTEX_OWNER_DIED_) | (owner ? FUTEX_OWNER_DIED_ : 0);
	if (owner || pi_has_waiters(&w->key))
		new |= FUTEX_WAITERS_;
	*ret_err = mm_cmpxchg_u32(t->mm, uaddr, inout_val, new);
	if (!*ret_err)
		return PI_GOT;
	return *ret_err == -EAGAIN ? PI_AGAIN : PI_ERROR;
}

/* Queues behind the owner whose tid is in the word. Return: 0 queued, -EAGAIN look again, or an error. */
static int pi_enqueue(struct task *t, struct futex_waiter *w, uint64_t uaddr, uint32_t val)
{
	uint32_t now = val;
	struct task *owner;
	bool alive;
	int err;

	if (!(val & FUTEX_WAITERS_)) {
		err = mm_cmpxchg_u32(t->mm, uaddr, &now, val | FUTEX_WAITERS_);
		if (err)
			return err;
		val |= FUTEX_WAITERS_;
	}
	owner = task_find_v(t, (int32_t)(val & FUTEX_TID_MASK_));
	alive = owner && pi_set_owner(w, owner);
	if (owner)
		task_unref(owner);
	if (!alive) {
		/* Gone: if the word still says so, it was never unlocked and no list of the owner told us. */
		pi_drop_owner(w);
		err = mm_load_u32(t->mm, uaddr, &now);
		return err ? err : now == val ? -ESRCH : -EAGAIN;
	}
	futex_enqueue(w);
	err = mm_load_u32(t->mm, uaddr, &now);
	if (!err && now == val)
		return 0;
	/* It moved before we were seen in the queue. */
	if (pi_leave_queue(t, w))
		return 0;
	pi_drop_owner(w);
	return err ? err : -EAGAIN;
}

static int64_t pi_lock_key(struct task *t, struct futex_waiter *w, uint64_t uaddr, int64_t deadline,
			   bool try_only)
{
	enum pi_try got;
	uint32_t val;
	int err;

	err = mm_load_u32(t->mm, uaddr, &val);
	while (!err) {
		got = pi_try_take(t, w, uaddr, &val, &err);
		if (got == PI_GOT)
			return 0;
		if (got == PI_ERROR)
			return err;
		if (got == PI_AGAIN) {
			err = 0;
			continue;
		}
		if (try_only)
			return -EAGAIN;
		w->dead_owner = 0;
		err = pi_enqueue(t, w, uaddr, val);
		if (!err && !w->granted) {
			err = futex_sleep(t, w, deadline);
			if (pi_leave_queue(t, w))
				err = 0;
		}
		pi_drop_owner(w);
		if (w->granted)
			return 0;
		if (err == -EINTR)
			return -ERESTARTNOINTR_;
		if (err && err != -EAGAIN)
			return err;
		if (signal_pending(t))
			return -ERESTARTNOINTR_;
		err = mm_load_u32(t->mm, uaddr, &val);
	}
	return err;
}

int64_t futex_op_lock_pi(struct task *t, uint64_t uaddr, unsigned flags, int64_t deadline,
			 bool try_only)
{
	struct futex_waiter w = {.bitset = FUTEX_BITSET_ANY, .task = t, .pi = true};
	int64_t ret;
	int err;

	err = futex_get_key(t, uaddr, flags & FUTEX_F_SHARED, true, &w.key);
	if (err)
		return err;
	ret = pi_lock_key(t, &w, uaddr, deadline, try_only);
	futex_key_fini(&w.key);
	return ret;
}

/* ---- unlock ---- */

/* Those that stay in the queue wait for the new owner from now on. The bucket's lock is held. */
static void pi_change_owner_locked(struct futex_bucket *b, const struct futex_key *key,
				   struct futex_waiter *heir)
{
	struct futex_waiter *w;

	TAILQ_FOREACH (w, &b->waiters, link) {
		struct task *old;

		if (w == heir || !futex_key_equal(&w->key, key))
			continue;
		old = pi_take_owner(w);
		(void)pi_set_owner(w, heir->task);
		/* The heir, or the calling owner, holds the task: never the last reference. */
		if (old && ref_put(&old->ref))
			ref_bug(&old->ref, "last reference of a PI owner");
	}
}

/* Writes the heir's tid into the word. */
static int pi_hand_over(struct task *t, uint64_t uaddr, uint32_t val, int32_t tid)
{
	int err;

	do {
		if ((val & FUTEX_TID_MASK_) != (uint32_t)t->vtid)
			return -EINVAL;
		err = mm_cmpxchg_u32(t->mm, uaddr, &val, (uint32_t)tid | FUTEX_WAITERS_);
	} while (err == -EAGAIN);
	return err;
}

static int pi_unlock_to(struct task *t, uint64_t uaddr, uint32_t val, struct futex_bucket *b,
			struct futex_waiter *w, const struct futex_key *key)
{
	int32_t tid = w->task->vtid;
	int err;

	w->granting = true;
	mutex_unlock(&b->lock);
	err = pi_hand_over(t, uaddr, val, tid);
	mutex_lock(&b->lock);
	w->granting = false;
	if (err) {
		sleeper_wake(&w->task->sleeper); /* it may want to leave */
	} else {
		pi_change_owner_locked(b, key, w);
		w->granted = true;
		futex_wake_locked(w);
	}
	mutex_unlock(&b->lock);
	return err;
}

int64_t futex_op_unlock_pi(struct task *t, uint64_t uaddr, unsigned flags)
{
	struct futex_bucket *b;
	struct futex_waiter *w;
	struct futex_key key;
	uint32_t val;
	int err;

	err = futex_get_key(t, uaddr, flags & FUTEX_F_SHARED, true, &key);
	if (err)
		return err;
	b = futex_bucket_of(&key);
	err = mm_load_u32(t->mm, uaddr, &val);
	while (!err) {
		if ((val & FUTEX_TID_MASK_) != (uint32_t)t->vtid) {
			err = -EPERM;
			break;
		}
		mutex_lock(&b->lock);
		w = pi_first(b, &key);
		if (w && !w->pi) {
			mutex_unlock(&b->lock);
			err = -EINVAL;
			break;
		}
		if (w) {
			err = pi_unlock_to(t, uaddr, val, b, w, &key);
			break;
		}
		mutex_unlock(&b->lock);
		/* Nobody is queued; who is about to will see the word change. */
		err = mm_cmpxchg_u32(t->mm, uaddr, &val, 0);
		if (err != -EAGAIN)
			break;
		err = 0;
	}
	futex_key_fini(&key);
	return err;
}

/* ---- the owner ends ---- */

static void pi_wake_orphans(struct futex_bucket *b, struct task *t)
{
	struct futex_waiter *w, *next;

	mutex_lock(&b->lock);
	for (w = TAILQ_FIRST(&b->waiters); w; w = next) {
		next = TAILQ_NEXT(w, link);
		if (w->pi_owner != t || w->granting)
			continue;
		/* It takes the word over, or finds that another one did. */
		w->dead_owner = t->vtid;
		futex_wake_locked(w);
	}
	mutex_unlock(&b->lock);
}

void futex_pi_owner_exit(struct task *t)
{
	if (!(atomic_fetch_or_explicit(&t->pi_waiters, PI_EXITED, memory_order_acq_rel) &
	      (PI_EXITED - 1)))
		return;
	futex_for_each_bucket(pi_wake_orphans, t);
}

/* After execve: the task lives on, with no futex of its old life. */
void futex_pi_revive(struct task *t)
{
	atomic_fetch_and_explicit(&t->pi_waiters, ~PI_EXITED, memory_order_acq_rel);
}

/* ---- condition variables with a PI mutex ---- */

int64_t futex_op_wait_requeue_pi(struct task *t, uint64_t uaddr, unsigned flags, uint32_t val,
				 uint32_t bitset, int64_t deadline, uint64_t uaddr2)
{
	bool shared = flags & FUTEX_F_SHARED;
	struct futex_waiter w = {.bitset = bitset, .task = t, .requeue_pi = true};
	struct futex_key key2;
	uint32_t now;
	int64_t ret;
	int err;

	if (uaddr == uaddr2 || !bitset)
		return -EINVAL;
	err = futex_get_key(t, uaddr2, shared, true, &key2);
	if (err)
		return err;
	ret = err = futex_get_key(t, uaddr, shared, false, &w.key);
	if (err)
		goto out_key2;
	w.requeue_key = &key2;
	futex_enqueue(&w);
	err = mm_load_u32(t->mm, uaddr, &now);
	if (!err && now != val)
		err = -EAGAIN;
	if (!err)
		err = futex_sleep(t, &w, deadline);
	if (futex_dequeue(&w)) {
		/* A signal or the timeout came before the requeue. */
		ret = err == -EINTR ? -ERESTARTNOINTR_ : err;
	} else {
		ret = futex_op_lock_pi(t, uaddr2, flags, deadline, false);
		/* The condition was consumed: the call cannot start over. */
		if (ret == -ERESTARTNOINTR_)
			ret = -EAGAIN;
	}
	futex_key_fini(&w.key);
out_key2:
	futex_key_fini(&key2);
	return ret;
}

static int requeue_pi_locked(struct futex_bucket *b, const struct futex_key *k1,
			     const struct futex_key *k2, int max)
{
	struct futex_waiter *w, *next;
	int done = 0;

	for (w = TAILQ_FIRST(&b->waiters); w && done < max; w = next) {
		next = TAILQ_NEXT(w, link);
		if (!futex_key_equal(&w->key, k1))
			continue;
		if (!w->requeue_pi || !futex_key_equal(w->requeue_key, k2))
			return done ? done : -EINVAL;
		w->requeued = true;
		futex_wake_locked(w);
		done++;
	}
	return done;
}

int64_t futex_op_cmp_requeue_pi(struct task *t, uint64_t uaddr, unsigned flags, int wake,
				int requeue, uint64_t uaddr2, uint32_t cmpval)
{
	bool shared = flags & FUTEX_F_SHARED;
	struct futex_key k1, k2;
	struct futex_bucket *b;
	uint32_t now;
	int ret;

	if (wake != 1 || requeue < 0 || uaddr == uaddr2)
		return -EINVAL;
	ret = futex_get_key(t, uaddr, shared, false, &k1);
	if (ret)
		return ret;
	ret = futex_get_key(t, uaddr2, shared, true, &k2);
	if (ret)
		goto out_k1;
	ret = mm_load_u32(t->mm, uaddr, &now);
	if (!ret && now != cmpval)
		ret = -EAGAIN;
	if (!ret) {
		b = futex_bucket_of(&k1);
		mutex_lock(&b->lock);
		ret = requeue_pi_locked(b, &k1, &k2, requeue == INT32_MAX ? requeue : requeue + 1);
		mutex_unlock(&b->lock);
	}
	futex_key_fini(&k2);
out_k1:
	futex_key_fini(&k1);
	return ret;
}
