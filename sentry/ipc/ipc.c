/*
 * sentry/ipc/ipc.c - namespaces, ids and keys, permissions.
 *
 * An id is a sequence number and an index into the table; the sequence advances whenever indices are reused, so an
 * old id finds nothing rather than a stranger. Objects go away in two steps: ipc_object_remove() takes
 * the id and the key, marks it removed and drops the table's reference; whoever still sleeps in it or
 * has it attached holds a reference of his own.
 */
#include "sentry/ipc/internal.h"
#include "sentry/ipc/mq.h"

#include <linux/capability.h>

static REF_TYPE(ns_type, "ipc namespace");

static int key_compare(const struct ipc_object *a, const struct ipc_object *b)
{
	return a->key < b->key ? -1 : a->key > b->key;
}

RB_GENERATE_LOCAL(ipc_keys, ipc_object, key_node, key_compare)

/* What a namespace starts with, and what each may be raised to. */
static const struct {
	uint64_t initial, max;
} limit_table[IPC_LIMIT_COUNT] = {
	[IPC_LIMIT_SHMMAX] = {IPC_SHM_SIZE_MAX, UINT64_MAX},
	[IPC_LIMIT_SHMALL] = {IPC_SHM_SIZE_MAX, UINT64_MAX},
	[IPC_LIMIT_SHMMNI] = {4096, IPC_OBJECTS_MAX},
	[IPC_LIMIT_MSGMAX] = {8192, IPC_MSG_SIZE_MAX},
	[IPC_LIMIT_MSGMNB] = {16384, IPC_MSG_BYTES_MAX},
	[IPC_LIMIT_MSGMNI] = {32000, IPC_OBJECTS_MAX},
	[IPC_LIMIT_SEMMSL] = {32000, IPC_SEMS_PER_SET_MAX},
	[IPC_LIMIT_SEMMNS] = {IPC_SEMS_MAX, IPC_SEMS_MAX},
	[IPC_LIMIT_SEMOPM] = {500, IPC_SEM_OPS_MAX},
	[IPC_LIMIT_SEMMNI] = {32000, IPC_OBJECTS_MAX},
};

uint64_t ipc_limit(const struct ipc_namespace *ns, enum ipc_limit which)
{
	return atomic_load_explicit(&ns->limits[which], memory_order_relaxed);
}

int ipc_set_limit(struct ipc_namespace *ns, enum ipc_limit which, uint64_t value)
{
	if (value > limit_table[which].max)
		return -EINVAL;
	atomic_store_explicit(&ns->limits[which], value, memory_order_relaxed);
	return 0;
}

static void ids_init(struct ipc_ids *ids, struct ipc_namespace *ns, const struct ipc_kind *kind,
		     enum ipc_limit max)
{
	ids->kind = kind;
	ids->ns = ns;
	ids->max = max;
	ids->last_index = -1;
	mutex_init(&ids->lock, LOCK_IPC_TABLE, "ipc table");
	idr_init(&ids->objects, 0, IPC_INDEX_MAX, "ipc ids");
	RB_INIT(&ids->keys);
	ids->next_id = -1;
}

int ipc_namespace_create(struct ipc_namespace **ret)
{
	static _Atomic uint64_t next_id = 0xefffffff; /* /proc/PID/ns/ipc of the first one */
	struct ipc_namespace *ns = calloc(1, sizeof(*ns));

	if (!ns)
		return -ENOMEM;
	if (mq_space_create(&ns->mq)) {
		free(ns);
		return -ENOMEM;
	}
	ref_init(&ns->ref, &ns_type);
	atomic_init(&ns->users, 1);
	ns->id = atomic_fetch_add(&next_id, 1);
	for (unsigned i = 0; i < IPC_LIMIT_COUNT; i++)
		atomic_init(&ns->limits[i], limit_table[i].initial);
	ids_init(&ns->shm, ns, &shm_kind, IPC_LIMIT_SHMMNI);
	ids_init(&ns->sem, ns, &sem_kind, IPC_LIMIT_SEMMNI);
	ids_init(&ns->msg, ns, &msg_kind, IPC_LIMIT_MSGMNI);
	*ret = ns;
	return 0;
}

static struct ipc_ids *ids_of(struct ipc_namespace *ns, enum ipc_table which)
{
	return which == IPC_TABLE_SHM ? &ns->shm : which == IPC_TABLE_SEM ? &ns->sem : &ns->msg;
}

int32_t ipc_next_id(struct ipc_namespace *ns, enum ipc_table which)
{
	struct ipc_ids *ids = ids_of(ns, which);
	int32_t id;

	mutex_lock(&ids->lock);
	id = ids->next_id;
	mutex_unlock(&ids->lock);
	return id;
}

void ipc_set_next_id(struct ipc_namespace *ns, enum ipc_table which, int32_t id)
{
	struct ipc_ids *ids = ids_of(ns, which);

	mutex_lock(&ids->lock);
	ids->next_id = id;
	mutex_unlock(&ids->lock);
}

void ipc_namespace_ref(struct ipc_namespace *ns)
{
	ref_get(&ns->ref);
}

static void ids_fini(struct ipc_ids *ids)
{
	struct ipc_object *o;
	int32_t index = 0;

	while ((o = ipc_next(ids, &index))) {
		ipc_object_remove(o);
		ipc_object_unref(o);
	}
	idr_fini(&ids->objects);
}

static void namespace_leave(struct ipc_namespace *ns)
{
	if (atomic_fetch_sub(&ns->users, 1) == 1)
		free(ns);
}

void ipc_namespace_unref(struct ipc_namespace *ns)
{
	if (!ns || !ref_put(&ns->ref))
		return;
	mq_space_close(ns->mq);
	ids_fini(&ns->shm);
	ids_fini(&ns->sem);
	ids_fini(&ns->msg);
	ref_fini(&ns->ref, &ns_type);
	namespace_leave(ns);
}

struct mq_space *ipc_namespace_mq(const struct ipc_namespace *ns)
{
	return ns->mq;
}

uint64_t ipc_namespace_id(const struct ipc_namespace *ns)
{
	return ns->id;
}

/* ---- objects ---- */

void ipc_object_init(struct ipc_object *o, struct ipc_ids *ids, int32_t key, int mode)
{
	const struct cred *c = cred_current();

	ref_init(&o->ref, ids->kind->type);
	mutex_init(&o->lock, LOCK_IPC_OBJECT, "ipc object");
	o->kind = ids->kind;
	o->ids = ids;
	o->key = key;
	o->mode = (uint16_t)(mode & 0777);
	o->uid = o->cuid = c->euid;
	o->gid = o->cgid = c->egid;
	o->ctime = ipc_seconds();
	atomic_fetch_add(&ids->ns->users, 1);
}

void ipc_object_ref(struct ipc_object *o)
{
	ref_get(&o->ref);
}

static void object_free(struct rcu_cb *cb)
{
	struct ipc_object *o = container_of(cb, struct ipc_object, rcu);

	free(o);
}

void ipc_object_unref(struct ipc_object *o)
{
	const struct ipc_kind *kind;

	if (!ref_put(&o->ref))
		return;
	kind = o->kind;
	kind->free(o);
	namespace_leave(o->ids->ns);
	ref_fini(&o->ref, kind->type);
	rcu_call(&o->rcu, object_free);
}

static void key_forget(struct ipc_object *o)
{
	if (o->key == IPC_PRIVATE)
		return;
	RB_REMOVE(ipc_keys, &o->ids->keys, o);
	o->key = IPC_PRIVATE;
}

bool ipc_object_remove(struct ipc_object *o)
{
	struct ipc_ids *ids = o->ids;
	bool gone;

	mutex_lock(&ids->lock);
	mutex_lock(&o->lock);
	gone = o->removed;
	if (!gone) {
		o->removed = true;
		key_forget(o);
		idr_remove(&ids->objects, o->id & IPC_INDEX_MAX);
		ids->count--;
		if (ids->kind->removing)
			ids->kind->removing(o);
	}
	mutex_unlock(&o->lock);
	mutex_unlock(&ids->lock);
	if (!gone)
		ipc_object_unref(o);
	return !gone;
}

void ipc_object_hide(struct ipc_object *o)
{
	struct ipc_ids *ids = o->ids;

	mutex_lock(&ids->lock);
	mutex_lock(&o->lock);
	if (!o->removed)
		key_forget(o);
	mutex_unlock(&o->lock);
	mutex_unlock(&ids->lock);
}

/* ---- finding ---- */

/* The index that next_id asks for, or the next that is free. Return: it, -ENOSPC, -ENOMEM. */
static int32_t alloc_wanted(struct ipc_ids *ids, struct ipc_object *o)
{
	int32_t index = ids->next_id & IPC_INDEX_MAX;
	int err = -EEXIST;

	for (; index <= IPC_INDEX_MAX && err == -EEXIST; index++)
		err = idr_alloc_at(&ids->objects, index, o);
	return err == -EEXIST ? -ENOSPC : err ? err : index - 1;
}

static int enter(struct ipc_ids *ids, struct ipc_object *o)
{
	bool wanted = ids->next_id >= 0;
	int32_t index = wanted ? alloc_wanted(ids, o) : idr_alloc_lowest(&ids->objects, o);
	uint32_t seq;

	if (index < 0)
		return index == -EAGAIN ? -ENOSPC : index;
	if (wanted) {
		seq = (uint32_t)ids->next_id >> IPC_INDEX_BITS;
		ids->next_id = -1;
	} else {
		if (index <= ids->last_index)
			ids->seq++;
		ids->last_index = index;
		seq = ids->seq;
	}
	/* Positive: 31 bits, of which 15 are the index. */
	o->id = (int32_t)((seq << IPC_INDEX_BITS | (uint32_t)index) & INT32_MAX);
	ids->count++;
	if (o->key != IPC_PRIVATE)
		RB_INSERT(ipc_keys, &ids->keys, o);
	return 0;
}

static int64_t make_locked(struct ipc_ids *ids, const struct ipc_get *g)
{
	struct ipc_object *o;
	int err;

	if ((uint64_t)ids->count >= ipc_limit(ids->ns, ids->max))
		return -ENOSPC;
	err = g->make(g, ids, &o);
	if (err)
		return err;
	err = enter(ids, o);
	if (err) {
		if (ids->kind->removing)
			ids->kind->removing(o);
		ipc_object_unref(o);
		return err;
	}
	return o->id;
}

int64_t ipc_get(struct ipc_ids *ids, const struct ipc_get *g)
{
	struct ipc_object probe = {.key = g->key}, *o = NULL;
	int64_t ret;

	mutex_lock(&ids->lock);
	if (g->key != IPC_PRIVATE)
		o = RB_FIND(ipc_keys, &ids->keys, &probe);
	if (!o) {
		ret = g->key == IPC_PRIVATE || (g->flags & IPC_CREAT) ? make_locked(ids, g)
								      : -ENOENT;
	} else if ((g->flags & IPC_CREAT) && (g->flags & IPC_EXCL)) {
		ret = -EEXIST;
	} else {
		mutex_lock(&o->lock);
		ret = g->check(g, o);
		if (!ret)
			ret = ipc_may(o, g->flags);
		if (!ret)
			ret = o->id;
		mutex_unlock(&o->lock);
	}
	mutex_unlock(&ids->lock);
	return ret;
}

static int lock_found(struct ipc_ids *ids, int index, struct ipc_object **ret)
{
	struct ipc_object *o;

	rcu_read_begin();
	o = idr_find(&ids->objects, index);
	if (o && !ref_tryget(&o->ref))
		o = NULL;
	rcu_read_end();
	if (!o)
		return -EINVAL;
	mutex_lock(&o->lock);
	if (o->removed) {
		ipc_unlock(o);
		return -EIDRM;
	}
	*ret = o;
	return 0;
}

int ipc_lock_id(struct ipc_ids *ids, int id, struct ipc_object **ret)
{
	int err;

	if (id < 0)
		return -EINVAL;
	err = lock_found(ids, id & IPC_INDEX_MAX, ret);
	if (err)
		return err;
	if ((*ret)->id == id)
		return 0;
	/* The index belongs to a later object. */
	ipc_unlock(*ret);
	return -EINVAL;
}

int ipc_lock_index(struct ipc_ids *ids, int index, struct ipc_object **ret)
{
	return index < 0 ? -EINVAL : lock_found(ids, index & IPC_INDEX_MAX, ret);
}

void ipc_unlock(struct ipc_object *o)
{
	mutex_unlock(&o->lock);
	ipc_object_unref(o);
}

struct ipc_object *ipc_next(struct ipc_ids *ids, int32_t *index)
{
	struct ipc_object *o;

	rcu_read_begin();
	for (;;) {
		o = idr_next(&ids->objects, index);
		if (!o || ref_tryget(&o->ref))
			break;
		++*index;
	}
	rcu_read_end();
	++*index;
	return o;
}

int ipc_highest_index(struct ipc_ids *ids)
{
	int32_t index = 0;
	int highest = 0;

	rcu_read_begin();
	for (; idr_next(&ids->objects, &index); index++)
		highest = index;
	rcu_read_end();
	return highest;
}

/* ---- permissions ---- */

int ipc_may(const struct ipc_object *o, int want)
{
	const struct cred *c = cred_current();
	int asked = (want >> 6) | (want >> 3) | want, granted = o->mode;

	if (c->euid == o->cuid || c->euid == o->uid)
		granted >>= 6;
	else if (cred_in_group(c, o->cgid) || cred_in_group(c, o->gid))
		granted >>= 3;
	if ((asked & ~granted & 7) && !cred_has_cap(c, CAP_IPC_OWNER))
		return -EACCES;
	return 0;
}

static int may_control(const struct ipc_object *o)
{
	const struct cred *c = cred_current();

	if (c->euid == o->cuid || c->euid == o->uid || cred_has_cap(c, CAP_SYS_ADMIN))
		return 0;
	return -EPERM;
}

int ipc_lock_to_stat(struct ipc_ids *ids, int id, bool index_not_id, bool any,
		     struct ipc_object **ret)
{
	int err = index_not_id ? ipc_lock_index(ids, id, ret) : ipc_lock_id(ids, id, ret);

	if (err)
		return err;
	err = any ? 0 : ipc_may(*ret, IPC_READ);
	if (err)
		ipc_unlock(*ret);
	return err;
}

int ipc_lock_to_control(struct ipc_ids *ids, int id, struct ipc_object **ret)
{
	int err = ipc_lock_id(ids, id, ret);

	if (err)
		return err;
	err = may_control(*ret);
	if (err)
		ipc_unlock(*ret);
	return err;
}

int ipc_remove_id(struct ipc_ids *ids, int id)
{
	struct ipc_object *o;
	int err = ipc_lock_to_control(ids, id, &o);

	if (err)
		return err;
	mutex_unlock(&o->lock);
	if (!ipc_object_remove(o))
		err = -EIDRM;
	ipc_object_unref(o);
	return err;
}

void ipc_fill_perm(const struct ipc_object *o, struct ipc_perm *ret)
{
	*ret = (struct ipc_perm){
		.__key = o->key,
		.uid = o->uid,
		.gid = o->gid,
		.cuid = o->cuid,
		.cgid = o->cgid,
		.mode = o->mode,
		.__seq = (unsigned short)(o->id >> IPC_INDEX_BITS),
	};
}

void ipc_set_perm(struct ipc_object *o, const struct ipc_perm *perm)
{
	o->uid = perm->uid;
	o->gid = perm->gid;
	o->mode = (uint16_t)((o->mode & ~0777) | (perm->mode & 0777));
	o->ctime = ipc_seconds();
}

int64_t ipc_seconds(void)
{
	return time_realtime_ns() / 1000000000;
}

int32_t ipc_caller(void)
{
	const struct task *t = task_current();

	return t ? t->group->tgid : 0;
}
