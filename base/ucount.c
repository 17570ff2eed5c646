/* base/ucount.c - see ucount.h. */
#include <stdlib.h>
#include <sys/queue.h>

#include "base/lock.h"
#include "base/ucount.h"

#define UCOUNT_BUCKETS 64

struct ucount {
	uint32_t uid; /* immutable */
	uint32_t refs; /* guarded by table_lock */
	_Atomic int64_t counts[UCOUNT_KINDS];
	LIST_ENTRY(ucount) link; /* guarded by table_lock */
};

static struct mutex table_lock = MUTEX_INIT(LOCK_LEAF, "ucounts");
static LIST_HEAD(, ucount) table[UCOUNT_BUCKETS]; /* guarded by table_lock */

struct ucount *ucount_get(uint32_t uid)
{
	struct ucount *u;

	mutex_lock(&table_lock);
	LIST_FOREACH (u, &table[uid % UCOUNT_BUCKETS], link)
		if (u->uid == uid)
			break;
	if (!u) {
		u = calloc(1, sizeof(*u));
		if (u) {
			u->uid = uid;
			LIST_INSERT_HEAD(&table[uid % UCOUNT_BUCKETS], u, link);
		}
	}
	if (u)
		u->refs++;
	mutex_unlock(&table_lock);
	return u;
}

struct ucount *ucount_ref(struct ucount *u)
{
	mutex_lock(&table_lock);
	u->refs++;
	mutex_unlock(&table_lock);
	return u;
}

void ucount_put(struct ucount *u)
{
	bool last;

	if (!u)
		return;
	mutex_lock(&table_lock);
	last = --u->refs == 0;
	if (last)
		LIST_REMOVE(u, link);
	mutex_unlock(&table_lock);
	if (last)
		free(u);
}

int64_t ucount_charge(struct ucount *u, enum ucount_kind kind, int64_t n)
{
	return atomic_fetch_add_explicit(&u->counts[kind], n, memory_order_relaxed) + n;
}

void ucount_uncharge(struct ucount *u, enum ucount_kind kind, int64_t n)
{
	int64_t had = atomic_fetch_sub_explicit(&u->counts[kind], n, memory_order_relaxed);

	assert(had >= n);
	(void)had;
}

bool ucount_try_charge(struct ucount *u, enum ucount_kind kind, int64_t n, int64_t limit)
{
	int64_t have = ucount_read(u, kind);

	do {
		if (have > limit || n > limit - have)
			return false;
	} while (!atomic_compare_exchange_weak_explicit(
		&u->counts[kind], &have, have + n, memory_order_relaxed, memory_order_relaxed));
	return true;
}

int64_t ucount_read(const struct ucount *u, enum ucount_kind kind)
{
	return atomic_load_explicit(&u->counts[kind], memory_order_relaxed);
}
