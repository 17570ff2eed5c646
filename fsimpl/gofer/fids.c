/*
 * fsimpl/gofer/fids.c - the numbers of fids: 31 bits, given out in turn, so that one that was given back is not used again while requests that name it may
 * still be under way. After 2^31 of them the turn begins anew, and numbers that are still held are left out: the root's, open files', far directories'.
 */
#include <stdlib.h>

#include "fsimpl/gofer/conn.h"

struct p9_held {
	LIST_ENTRY(p9_held) link; /* guarded by fid_lock */
	uint32_t fid;
};

static struct p9_held *find_locked(struct p9_conn *c, uint32_t fid)
{
	struct p9_held *h;

	LIST_FOREACH (h, &c->held[fid % P9_HELD_BUCKETS], link)
		if (h->fid == fid)
			return h;
	return NULL;
}

uint32_t p9_fid_alloc(struct p9_conn *c)
{
	uint32_t fid;
	bool used;

	do {
		fid = atomic_fetch_add_explicit(&c->next_fid, 1, memory_order_relaxed) & INT32_MAX;
		mutex_lock(&c->fid_lock);
		used = fid == 0 || find_locked(c, fid);
		mutex_unlock(&c->fid_lock);
	} while (used);
	return fid;
}

/* What a request that succeeded has bound, or P9_NOFID. */
static uint32_t bound_by(const struct p9_msg *t, const struct p9_msg *r)
{
	switch (t->type) {
	case P9_Tattach:
		return t->Tattach.fid;
	case P9_Twalk:
		return r->Rwalk.qids.count == t->Twalk.names.count ? t->Twalk.newfid : P9_NOFID;
	case P9_Txattrwalk:
		return t->Txattrwalk.newfid;
	case P9_Tmwalk:
		return r->Rmwalk.bound ? t->Tmwalk.newfid : P9_NOFID;
	case P9_Tmopen:
		return r->Rmopen.bound ? t->Tmopen.newfid : P9_NOFID;
	case P9_Tmcreate:
		return r->Rmcreate.bound ? t->Tmcreate.newfid : P9_NOFID;
	case P9_Tmunlink:
		return r->Rmunlink.bound ? t->Tmunlink.keepfid : P9_NOFID;
	case P9_Tmrename:
		return r->Rmrename.bound ? t->Tmrename.keepfid : P9_NOFID;
	case P9_Tmreaddir:
		return r->Rmreaddir.bound ? t->Tmreaddir.newfid : P9_NOFID;
	case P9_Tmwatch:
		return t->Tmwatch.newfid;
	default:
		return P9_NOFID;
	}
}

void p9_fids_replied(struct p9_conn *c, const struct p9_msg *t, const struct p9_msg *r)
{
	uint32_t fid = bound_by(t, r);
	struct p9_held *h;

	if (fid == P9_NOFID)
		return;
	/* Without memory for it the number comes again in 2^31, and the server refuses it then. */
	h = malloc(sizeof(*h));
	if (!h)
		return;
	h->fid = fid;
	mutex_lock(&c->fid_lock);
	if (!find_locked(c, fid)) {
		LIST_INSERT_HEAD(&c->held[fid % P9_HELD_BUCKETS], h, link);
		h = NULL;
	}
	mutex_unlock(&c->fid_lock);
	free(h);
}

void p9_fid_forget(struct p9_conn *c, uint32_t fid)
{
	struct p9_held *h;

	mutex_lock(&c->fid_lock);
	h = find_locked(c, fid);
	if (h)
		LIST_REMOVE(h, link);
	mutex_unlock(&c->fid_lock);
	free(h);
}

void p9_fids_asked(struct p9_conn *c, const struct p9_msg *t)
{
	if (t->type == P9_Tclunk)
		p9_fid_forget(c, t->Tclunk.fid);
	else if (t->type == P9_Tremove)
		p9_fid_forget(c, t->Tremove.fid);
}

void p9_fids_fini(struct p9_conn *c)
{
	for (unsigned i = 0; i < P9_HELD_BUCKETS; i++) {
		struct p9_held *h;

		while ((h = LIST_FIRST(&c->held[i]))) {
			LIST_REMOVE(h, link);
			free(h);
		}
	}
}
