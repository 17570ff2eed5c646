/*
 * sentry/ipc/sem.c - semaphore sets.
 *
 * An operation is an array that happens as a whole or waits as a whole. Who changes a value completes the waiters that it
 * lets pass, first come first served, on their behalf and under the set's lock: a woken task finds its result
 * ready and takes no lock twice. Adjustments (SEM_UNDO) hang on the set, whose lock guards them,
 * and on the list of the task (or of those that share it by CLONE_SYSVSEM), which undoes them at its end.
 */
#include "sentry/ipc/internal.h"
#include "sentry/pidns.h"

struct sem_value {
	int32_t value, pid;
};

struct sem_set {
	struct ipc_object object;
	unsigned count; /* immutable */
	/* guarded by object.lock: */
	int64_t otime;
	TAILQ_HEAD(, sem_waiter) waiters;
	LIST_HEAD(, sem_undo) undos;
	struct sem_value sems[];
};

/* One list's adjustments of one set. */
struct sem_undo {
	LIST_ENTRY(sem_undo) set_link; /* guarded by the set's lock */
	LIST_ENTRY(sem_undo) list_link; /* guarded by the list's lock */
	struct sem_set *set; /* immutable; a reference */
	int16_t adjust[]; /* guarded by the set's lock */
};

struct sem_undo_list {
	struct ref ref;
	struct mutex lock; /* LOCK_IPC_UNDO */
	LIST_HEAD(, sem_undo) undos; /* guarded by lock */
};

enum { SEM_PENDING = 1 };

/* An operation; on its task's stack while it waits. */
struct sem_waiter {
	TAILQ_ENTRY(sem_waiter) link;
	struct sleeper *sleeper;
	const struct sembuf *ops;
	unsigned count;
	unsigned blocking; /* the operation that cannot go on */
	struct sem_undo *undo; /* NULL: none has SEM_UNDO */
	int32_t pid;
	int status; /* SEM_PENDING, 0, -errno */
};

static REF_TYPE(set_type, "semaphore set");
static REF_TYPE(undo_list_type, "semaphore undo list");

static struct sem_set *set_of(struct ipc_object *o)
{
	return container_of(o, struct sem_set, object);
}

static void finish(struct sem_set *set, struct sem_waiter *w, int status)
{
	TAILQ_REMOVE(&set->waiters, w, link);
	w->status = status;
	/* The waiter's stack is its own again once the set is unlocked. */
	sleeper_wake(w->sleeper);
}

static void set_removing(struct ipc_object *o)
{
	struct sem_set *set = set_of(o);

	while (!TAILQ_EMPTY(&set->waiters))
		finish(set, TAILQ_FIRST(&set->waiters), -EIDRM);
	atomic_fetch_sub(&o->ids->used, set->count);
}

static void set_free(unused_arg struct ipc_object *o)
{
}

const struct ipc_kind sem_kind = {
	.type = &set_type,
	.free = set_free,
	.removing = set_removing,
};

/* ---- semget ---- */

static int set_make(const struct ipc_get *g, struct ipc_ids *ids, struct ipc_object **ret)
{
	struct sem_set *set;

	if (!g->size)
		return -EINVAL;
	if (atomic_load(&ids->used) + g->size > ipc_limit(ids->ns, IPC_LIMIT_SEMMNS))
		return -ENOSPC;
	set = calloc(1, sizeof(*set) + g->size * sizeof(set->sems[0]));
	if (!set)
		return -ENOMEM;
	set->count = (unsigned)g->size;
	TAILQ_INIT(&set->waiters);
	LIST_INIT(&set->undos);
	ipc_object_init(&set->object, ids, g->key, g->flags);
	atomic_fetch_add(&ids->used, g->size);
	*ret = &set->object;
	return 0;
}

static int set_check(const struct ipc_get *g, struct ipc_object *o)
{
	return g->size > set_of(o)->count ? -EINVAL : 0;
}

int64_t sem_get(struct ipc_namespace *ns, int32_t key, int count, int flags)
{
	const struct ipc_get g = {
		.key = key,
		.flags = flags,
		.size = (uint64_t)count,
		.make = set_make,
		.check = set_check,
	};

	if (count < 0 || (uint64_t)count > ipc_limit(ns, IPC_LIMIT_SEMMSL))
		return -EINVAL;
	return ipc_get(&ns->sem, &g);
}

/* ---- operations ---- */

static int16_t undo_of(const struct sem_waiter *w, const struct sembuf *op)
{
	return op->sem_flg & SEM_UNDO ? w->undo->adjust[op->sem_num] : 0;
}

/* One step, applied: 0, SEM_PENDING, -EAGAIN, -ERANGE and then nothing is changed. */
static int apply_one(struct sem_set *set, const struct sem_waiter *w, const struct sembuf *op)
{
	struct sem_value *sem = &set->sems[op->sem_num];
	int32_t value = sem->value + op->sem_op;

	if (op->sem_op ? value < 0 : sem->value != 0)
		return op->sem_flg & IPC_NOWAIT ? -EAGAIN : SEM_PENDING;
	if (value > IPC_SEM_VALUE_MAX)
		return -ERANGE;
	if (op->sem_flg & SEM_UNDO) {
		int32_t adjust = undo_of(w, op) - op->sem_op;

		if (adjust < -IPC_SEM_VALUE_MAX - 1 || adjust > IPC_SEM_VALUE_MAX)
			return -ERANGE;
		w->undo->adjust[op->sem_num] = (int16_t)adjust;
	}
	sem->value = value;
	return 0;
}

static void revert(struct sem_set *set, const struct sem_waiter *w, unsigned done)
{
	while (done--) {
		const struct sembuf *op = &w->ops[done];

		set->sems[op->sem_num].value -= op->sem_op;
		if (op->sem_flg & SEM_UNDO)
			w->undo->adjust[op->sem_num] += op->sem_op;
	}
}

/* All or nothing. Return: 0, SEM_PENDING with w->blocking, -EAGAIN, -ERANGE. Set locked. */
static int apply(struct sem_set *set, struct sem_waiter *w)
{
	for (unsigned i = 0; i < w->count; i++) {
		int ret = apply_one(set, w, &w->ops[i]);

		if (ret) {
			w->blocking = i;
			revert(set, w, i);
			return ret;
		}
	}
	for (unsigned i = 0; i < w->count; i++)
		set->sems[w->ops[i].sem_num].pid = w->pid;
	set->otime = ipc_seconds();
	return 0;
}

static bool alters(const struct sem_waiter *w)
{
	for (unsigned i = 0; i < w->count; i++)
		if (w->ops[i].sem_op)
			return true;
	return false;
}

/* Values changed: completes whoever can go on, in order, as often as that changes more. Set locked. */
static void serve_waiters(struct sem_set *set)
{
	struct sem_waiter *w = TAILQ_FIRST(&set->waiters), *next;

	while (w) {
		int ret = apply(set, w);
		bool changed = !ret && alters(w);

		next = TAILQ_NEXT(w, link);
		if (ret != SEM_PENDING)
			finish(set, w, ret);
		w = changed ? TAILQ_FIRST(&set->waiters) : next;
	}
}

static int wait_for_turn(struct sem_set *set, struct sem_waiter *w, int64_t deadline)
{
	int err;

	w->sleeper = sleeper_current();
	w->status = SEM_PENDING;
	TAILQ_INSERT_TAIL(&set->waiters, w, link);
	sleeper_set_what(w->sleeper, "semop");
	do {
		mutex_unlock(&set->object.lock);
		err = sleeper_wait(w->sleeper, SLEEP_INTERRUPTIBLE, deadline);
		mutex_lock(&set->object.lock);
	} while (w->status == SEM_PENDING && !err);
	sleeper_set_what(w->sleeper, NULL);
	if (w->status != SEM_PENDING)
		return w->status;
	TAILQ_REMOVE(&set->waiters, w, link);
	return err == -ETIMEDOUT ? -EAGAIN : err;
}

/* ---- adjustments ---- */

void sem_undo_ref(struct sem_undo_list *list)
{
	ref_get(&list->ref);
}

struct sem_undo_list *sem_undo_list_get(struct task *t)
{
	struct sem_undo_list *list = t->sem_undo;

	if (list)
		return list;
	list = calloc(1, sizeof(*list));
	if (!list)
		return NULL;
	ref_init(&list->ref, &undo_list_type);
	mutex_init(&list->lock, LOCK_IPC_UNDO, "semaphore undo list");
	LIST_INIT(&list->undos);
	t->sem_undo = list;
	return list;
}

static void undo_free(struct sem_undo *u)
{
	ipc_object_unref(&u->set->object);
	free(u);
}

/* List locked. Those of removed sets go: a list that lives long would grow for ever. */
static struct sem_undo *undo_find(struct sem_undo_list *list, const struct sem_set *set)
{
	struct sem_undo *u, *next, *found = NULL;

	for (u = LIST_FIRST(&list->undos); u; u = next) {
		bool removed;

		next = LIST_NEXT(u, list_link);
		if (u->set == set)
			found = u;
		mutex_lock(&u->set->object.lock);
		removed = u->set->object.removed && u->set != set;
		if (removed)
			LIST_REMOVE(u, set_link);
		mutex_unlock(&u->set->object.lock);
		if (removed) {
			LIST_REMOVE(u, list_link);
			undo_free(u);
		}
	}
	return found;
}

/* No locks held; the caller holds a reference on the set. */
static int undo_get(struct task *t, struct sem_set *set, struct sem_undo **ret)
{
	struct sem_undo_list *list = sem_undo_list_get(t);
	struct sem_undo *u;

	if (!list)
		return -ENOMEM;
	mutex_lock(&list->lock);
	u = undo_find(list, set);
	if (!u) {
		u = calloc(1, sizeof(*u) + set->count * sizeof(u->adjust[0]));
		if (u) {
			u->set = set;
			ipc_object_ref(&set->object);
			LIST_INSERT_HEAD(&list->undos, u, list_link);
			mutex_lock(&set->object.lock);
			LIST_INSERT_HEAD(&set->undos, u, set_link);
			mutex_unlock(&set->object.lock);
		}
	}
	mutex_unlock(&list->lock);
	*ret = u;
	return u ? 0 : -ENOMEM;
}

static void undo_apply(struct sem_undo *u)
{
	struct sem_set *set = u->set;

	mutex_lock(&set->object.lock);
	LIST_REMOVE(u, set_link);
	for (unsigned i = 0; i < set->count && !set->object.removed; i++) {
		struct sem_value *sem = &set->sems[i];

		if (!u->adjust[i])
			continue;
		/* Out of range is cut off: nobody is left to tell. */
		sem->value = MAX(0, MIN(sem->value + u->adjust[i], (int32_t)IPC_SEM_VALUE_MAX));
		sem->pid = ipc_caller();
	}
	if (!set->object.removed)
		serve_waiters(set);
	mutex_unlock(&set->object.lock);
}

void sem_undo_unref(struct sem_undo_list *list)
{
	struct sem_undo *u;

	if (!list || !ref_put(&list->ref))
		return;
	while ((u = LIST_FIRST(&list->undos))) {
		LIST_REMOVE(u, list_link);
		undo_apply(u);
		undo_free(u);
	}
	ref_fini(&list->ref, &undo_list_type);
	free(list);
}

static void clear_adjustments(struct sem_set *set, unsigned num)
{
	struct sem_undo *u;

	LIST_FOREACH (u, &set->undos, set_link)
		u->adjust[num] = 0;
}

/* ---- semop ---- */

static bool any_undo(const struct sembuf *ops, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (ops[i].sem_flg & SEM_UNDO)
			return true;
	return false;
}

/* Set locked, and stays so. */
static int operate_locked(struct sem_set *set, struct sem_waiter *w, int64_t deadline)
{
	int err;

	for (unsigned i = 0; i < w->count; i++)
		if (w->ops[i].sem_num >= set->count)
			return -EFBIG;
	err = ipc_may(&set->object, alters(w) ? IPC_WRITE : IPC_READ);
	if (err)
		return err;
	err = apply(set, w);
	if (!err && alters(w))
		serve_waiters(set);
	return err == SEM_PENDING ? wait_for_turn(set, w, deadline) : err;
}

int64_t sem_operate(struct task *t, int id, const struct sembuf *ops, unsigned count,
		    int64_t deadline)
{
	struct sem_waiter w = {.ops = ops, .count = count, .pid = t->group->tgid};
	struct ipc_object *o;
	int err = ipc_lock_id(&t->ipc_ns->sem, id, &o);

	if (err)
		return err;
	if (any_undo(ops, count)) {
		mutex_unlock(&o->lock);
		err = undo_get(t, set_of(o), &w.undo);
		if (err) {
			ipc_object_unref(o);
			return err;
		}
		mutex_lock(&o->lock);
		if (o->removed) {
			ipc_unlock(o);
			return -EIDRM;
		}
	}
	err = operate_locked(set_of(o), &w, deadline);
	ipc_unlock(o);
	return err;
}

/* ---- semctl ---- */

int64_t sem_stat(struct ipc_namespace *ns, int id, bool index_not_id, bool any,
		 struct semid_ds *ret)
{
	struct ipc_object *o;
	int err = ipc_lock_to_stat(&ns->sem, id, index_not_id, any, &o);

	if (err)
		return err;
	*ret = (struct semid_ds){
		.sem_otime = set_of(o)->otime,
		.sem_ctime = o->ctime,
		.sem_nsems = set_of(o)->count,
	};
	ipc_fill_perm(o, &ret->sem_perm);
	err = index_not_id ? o->id : 0;
	ipc_unlock(o);
	return err;
}

int64_t sem_set(struct ipc_namespace *ns, int id, const struct semid_ds *ds)
{
	struct ipc_object *o;
	int err = ipc_lock_to_control(&ns->sem, id, &o);

	if (err)
		return err;
	ipc_set_perm(o, &ds->sem_perm);
	ipc_unlock(o);
	return 0;
}

int64_t sem_remove(struct ipc_namespace *ns, int id)
{
	return ipc_remove_id(&ns->sem, id);
}

/* Tasks whose wait is for this semaphore: to grow, or to become zero. */
static int count_waiters(const struct sem_set *set, unsigned num, bool zero)
{
	const struct sem_waiter *w;
	int n = 0;

	TAILQ_FOREACH (w, &set->waiters, link) {
		const struct sembuf *op = &w->ops[w->blocking];

		if (op->sem_num == num && !op->sem_op == zero)
			n++;
	}
	return n;
}

static int64_t get_one(const struct sem_set *set, unsigned num, int cmd)
{
	switch (cmd) {
	case GETVAL:
		return set->sems[num].value;
	case GETPID:
		return pid_current_vnr(set->sems[num].pid);
	default:
		return count_waiters(set, num, cmd == GETZCNT);
	}
}

int64_t sem_get_one(struct ipc_namespace *ns, int id, int num, int cmd)
{
	struct ipc_object *o;
	int64_t ret = ipc_lock_id(&ns->sem, id, &o);

	if (ret)
		return ret;
	ret = ipc_may(o, IPC_READ);
	if (!ret && (num < 0 || (unsigned)num >= set_of(o)->count))
		ret = -EINVAL;
	if (!ret)
		ret = get_one(set_of(o), (unsigned)num, cmd);
	ipc_unlock(o);
	return ret;
}

/* SETVAL and SETALL forget what was to be undone. Set locked. */
static void set_value(struct sem_set *set, unsigned num, int32_t value)
{
	set->sems[num].value = value;
	set->sems[num].pid = ipc_caller();
	clear_adjustments(set, num);
}

static void values_changed(struct sem_set *set)
{
	set->object.ctime = ipc_seconds();
	serve_waiters(set);
}

int64_t sem_set_one(struct task *t, int id, int num, int value)
{
	struct ipc_object *o;
	int err;

	if (value < 0 || value > IPC_SEM_VALUE_MAX)
		return -ERANGE;
	err = ipc_lock_id(&t->ipc_ns->sem, id, &o);
	if (err)
		return err;
	if (num < 0 || (unsigned)num >= set_of(o)->count)
		err = -EINVAL;
	if (!err)
		err = ipc_may(o, IPC_WRITE);
	if (!err) {
		set_value(set_of(o), (unsigned)num, value);
		values_changed(set_of(o));
	}
	ipc_unlock(o);
	return err;
}

int64_t sem_count(struct ipc_namespace *ns, int id, bool to_write)
{
	struct ipc_object *o;
	int64_t ret = ipc_lock_id(&ns->sem, id, &o);

	if (ret)
		return ret;
	ret = ipc_may(o, to_write ? IPC_WRITE : IPC_READ);
	if (!ret)
		ret = set_of(o)->count;
	ipc_unlock(o);
	return ret;
}

int64_t sem_get_all(struct ipc_namespace *ns, int id, uint16_t *values, unsigned count)
{
	struct ipc_object *o;
	int err = ipc_lock_id(&ns->sem, id, &o);

	if (err)
		return err;
	/* The id may be another set's by now. */
	if (set_of(o)->count != count)
		err = -EIDRM;
	else
		err = ipc_may(o, IPC_READ);
	for (unsigned i = 0; i < count && !err; i++)
		values[i] = (uint16_t)set_of(o)->sems[i].value;
	ipc_unlock(o);
	return err;
}

int64_t sem_set_all(struct task *t, int id, const uint16_t *values, unsigned count)
{
	struct ipc_object *o;
	int err;

	for (unsigned i = 0; i < count; i++)
		if (values[i] > IPC_SEM_VALUE_MAX)
			return -ERANGE;
	err = ipc_lock_id(&t->ipc_ns->sem, id, &o);
	if (err)
		return err;
	if (set_of(o)->count != count)
		err = -EIDRM;
	else
		err = ipc_may(o, IPC_WRITE);
	for (unsigned i = 0; i < count && !err; i++)
		set_value(set_of(o), i, values[i]);
	if (!err)
		values_changed(set_of(o));
	ipc_unlock(o);
	return err;
}

int64_t sem_limits(struct ipc_namespace *ns, bool in_use, struct seminfo *ret)
{
	*ret = (struct seminfo){
		.semmap = (int)ipc_limit(ns, IPC_LIMIT_SEMMNS),
		.semmni = (int)ipc_limit(ns, IPC_LIMIT_SEMMNI),
		.semmns = (int)ipc_limit(ns, IPC_LIMIT_SEMMNS),
		.semmnu = (int)ipc_limit(ns, IPC_LIMIT_SEMMNS),
		.semmsl = (int)ipc_limit(ns, IPC_LIMIT_SEMMSL),
		.semopm = (int)ipc_limit(ns, IPC_LIMIT_SEMOPM),
		.semume = (int)ipc_limit(ns, IPC_LIMIT_SEMOPM),
		.semusz = 20,
		.semvmx = IPC_SEM_VALUE_MAX,
		.semaem = IPC_SEM_VALUE_MAX,
	};
	if (in_use) {
		ret->semusz = ns->sem.count;
		ret->semaem = (int)atomic_load(&ns->sem.used);
	}
	return ipc_highest_index(&ns->sem);
}

void sem_show(struct ipc_namespace *ns, struct buf *b)
{
	struct ipc_object *o;
	int32_t index = 0;

	buf_printf(b, "       key      semid perms      nsems   uid   gid  cuid  cgid      otime"
		      "      ctime\n");
	while ((o = ipc_next(&ns->sem, &index))) {
		mutex_lock(&o->lock);
		buf_printf(b, "%10d %10d  %4o %10u %5u %5u %5u %5u %10lld %10lld\n", o->key, o->id,
			   o->mode, set_of(o)->count, o->uid, o->gid, o->cuid, o->cgid,
			   (long long)set_of(o)->otime, (long long)o->ctime);
		mutex_unlock(&o->lock);
		ipc_object_unref(o);
	}
}
