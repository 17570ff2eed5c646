/*
 * vfs/cred.c - credentials and their interned ids.
 *
 * Every committed cred sits in a hash table by its contents; one that equals a live one shares its
 * id. Ids are never reused, so a path cache entry of a set of credentials that died cannot match.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "base/hash.h"
#include "base/lock.h"
#include "vfs/cred.h"

#define CRED_BUCKETS 256u

static REF_TYPE(cred_type, "cred");
static struct mutex cred_lock = MUTEX_INIT(LOCK_CRED, "cred table");
static _Thread_local const struct cred *cred_of_thread;
/* References on cred_of_thread that this thread let go of and will want again: each open takes one, and they are few threads' that share a cred. */
#define CRED_SPARE_MAX 64u
static _Thread_local uint32_t cred_spare;

/* What interning adds to a cred; the public struct comes first. */
struct cred_entry {
	struct cred cred;
	LIST_ENTRY(cred_entry) link; /* guarded by cred_lock; valid when cred.id != 0 */
	uint64_t hash;
};

static LIST_HEAD(, cred_entry) cred_table[CRED_BUCKETS]; /* guarded by cred_lock */
static uint64_t cred_last_id; /* guarded by cred_lock */

static struct cred_entry *entry_of(struct cred *c)
{
	return container_of(c, struct cred_entry, cred);
}

int cred_create_root(struct cred **ret)
{
	struct cred_entry *e = calloc(1, sizeof(*e));

	if (!e)
		return -ENOMEM;
	ref_init(&e->cred.ref, &cred_type);
	e->cred.cap_permitted = CAP_FULL;
	e->cred.cap_effective = CAP_FULL;
	e->cred.cap_bounding = CAP_FULL;
	cred_commit(&e->cred);
	*ret = &e->cred;
	return 0;
}

int cred_prepare(const struct cred *old, struct cred **ret)
{
	struct cred_entry *e = malloc(sizeof(*e));
	struct cred *c;

	if (!e)
		return -ENOMEM;
	memset(e, 0, sizeof(*e));
	c = &e->cred;
	/* Not its reference count, which others are changing, nor what RCU will need. */
	memcpy((char *)c + offsetof(struct cred, id), (const char *)old + offsetof(struct cred, id),
	       sizeof(*c) - offsetof(struct cred, id));
	c->id = 0;
	c->groups = NULL;
	c->ngroups = 0;
	if (cred_set_groups(c, old->groups, old->ngroups)) {
		free(e);
		return -ENOMEM;
	}
	ref_init(&c->ref, &cred_type);
	*ret = c;
	return 0;
}

static int group_compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

int cred_set_groups(struct cred *c, const uint32_t *groups, uint32_t count)
{
	uint32_t *copy = NULL;

	assert(c->id == 0);
	if (count > CRED_GROUPS_MAX)
		return -EINVAL;
	if (count) {
		copy = malloc(count * sizeof(*copy));
		if (!copy)
			return -ENOMEM;
		memcpy(copy, groups, count * sizeof(*copy));
		qsort(copy, count, sizeof(*copy), group_compare);
	}
	free(c->groups);
	c->groups = copy;
	c->ngroups = count;
	return 0;
}

/* The bytes between `uid` and `user_ns` have no padding but after no_new_privs; compare by field. */
static bool cred_equal(const struct cred *a, const struct cred *b)
{
	return a->uid == b->uid && a->euid == b->euid && a->suid == b->suid &&
	       a->fsuid == b->fsuid && a->gid == b->gid && a->egid == b->egid &&
	       a->sgid == b->sgid && a->fsgid == b->fsgid && a->cap_permitted == b->cap_permitted &&
	       a->cap_effective == b->cap_effective && a->cap_inheritable == b->cap_inheritable &&
	       a->cap_bounding == b->cap_bounding && a->cap_ambient == b->cap_ambient &&
	       a->securebits == b->securebits && a->no_new_privs == b->no_new_privs &&
	       a->user_ns == b->user_ns && a->ngroups == b->ngroups &&
	       (!a->ngroups || !memcmp(a->groups, b->groups, a->ngroups * sizeof(*a->groups)));
}

static uint64_t cred_hash(const struct cred *c)
{
	uint64_t key[4] = {c->fsuid | (uint64_t)c->fsgid << 32, c->cap_effective,
			   c->uid | (uint64_t)c->gid << 32,
			   c->ngroups ? hash_bytes(c->groups, c->ngroups * sizeof(*c->groups)) : 0};

	return hash_bytes(key, sizeof(key));
}

void cred_commit(struct cred *c)
{
	struct cred_entry *e = entry_of(c), *other;

	assert(c->id == 0);
	e->hash = cred_hash(c);
	mutex_lock(&cred_lock);
	LIST_FOREACH (other, &cred_table[e->hash % CRED_BUCKETS], link)
		if (other->hash == e->hash && cred_equal(&other->cred, c))
			break;
	c->id = other ? other->cred.id : ++cred_last_id;
	LIST_INSERT_HEAD(&cred_table[e->hash % CRED_BUCKETS], e, link);
	mutex_unlock(&cred_lock);
}

struct cred *cred_ref(const struct cred *c)
{
	struct cred *mut = (struct cred *)c;

	if (likely(c == cred_of_thread) && cred_spare)
		cred_spare--;
	else
		ref_get(&mut->ref);
	return mut;
}

static void cred_free_cb(struct rcu_cb *cb)
{
	struct cred *c = container_of(cb, struct cred, rcu);

	free(c->groups);
	free(entry_of(c));
}

static void cred_release(struct cred *c)
{
	if (c->id) {
		mutex_lock(&cred_lock);
		LIST_REMOVE(entry_of(c), link);
		mutex_unlock(&cred_lock);
	}
	ref_fini(&c->ref, &cred_type);
	rcu_call(&c->rcu, cred_free_cb);
}

void cred_unref(const struct cred *cc)
{
	struct cred *c = (struct cred *)cc;

	if (!c)
		return;
	if (likely(c == cred_of_thread) && cred_spare < CRED_SPARE_MAX)
		cred_spare++;
	else if (ref_put(&c->ref))
		cred_release(c);
}

static bool group_search(const struct cred *c, uint32_t gid)
{
	uint32_t low = 0, high = c->ngroups;

	while (low < high) {
		uint32_t mid = low + (high - low) / 2;

		if (c->groups[mid] == gid)
			return true;
		if (c->groups[mid] < gid)
			low = mid + 1;
		else
			high = mid;
	}
	return false;
}

bool cred_in_group(const struct cred *c, uint32_t gid)
{
	return c->fsgid == gid || group_search(c, gid);
}

bool cred_in_egroup(const struct cred *c, uint32_t gid)
{
	return c->egid == gid || group_search(c, gid);
}

const struct cred *cred_current(void)
{
	return cred_of_thread;
}

void cred_set_current(const struct cred *c)
{
	struct cred *old = (struct cred *)cred_of_thread;
	uint32_t spare = cred_spare;

	cred_of_thread = c;
	if (old == c || !spare)
		return;
	cred_spare = 0;
	if (ref_put_many(&old->ref, (int32_t)spare))
		cred_release(old);
}
