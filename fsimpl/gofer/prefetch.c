/*
 * fsimpl/gofer/prefetch.c - directories whose names are asked for one after another, without a listing: all entries are asked for in place of a name.
 *
 * git looks at all files of its index, make at what it depends on. The third name of a directory that costs a request of its own asks for its entries with
 * their attributes, GOFER_PREFETCH_BYTES of them, once in the directory's life. Each file of a listing that is looked at gives credit; with enough of it the first
 * unknown name of a known directory does so, which spends some.
 *
 * Who goes through one directory like this and then through another of the same parent goes through more of them, and mostly in the order of their names. So
 * the next ones by name are asked for together with it: requests that are under way at once, all of which are waited for (ahead.c says why).
 * GOFER_SIBLINGS_MIN of them, then twice as many, up to GOFER_SIBLINGS_MAX. A debt bounds what was in vain: the files that came so; each file of a listing that is
 * looked at takes one off, and beyond GOFER_SIBLINGS_DEBT there are no more.
 *
 * What comes goes into the caches only: whoever looks is checked at each step. Only directories that the program at hand may search are asked for, and atimes stay. Trees
 * that nobody else changes only.
 */
#include <dirent.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fsimpl/gofer/internal.h"

/* A request that is planned, then under way. */
struct asked {
	struct remote_dentry *d; /* a reference; the first is the caller's */
	struct p9_call *call; /* owned; NULL: it could not be sent */
};

/* ---- what it may cost ---- */

void gofer_dir_well_spent(struct gofer_fs *fs)
{
	int credit = atomic_load_explicit(&fs->prefetch_credit, memory_order_relaxed);
	uint32_t debt = atomic_load_explicit(&fs->sibling_debt, memory_order_relaxed);

	/* Two at once may count as one: they are estimates. */
	if (credit < GOFER_PREFETCH_CREDIT_MAX)
		atomic_store_explicit(&fs->prefetch_credit, credit + 1, memory_order_relaxed);
	if (debt)
		atomic_store_explicit(&fs->sibling_debt, debt - 1, memory_order_relaxed);
}

/* What a reply has brought is paid for; of a directory that is larger than a reply, with all there is. */
static void spend(struct gofer_fs *fs, unsigned entries, bool eof)
{
	if (eof)
		atomic_fetch_sub_explicit(&fs->prefetch_credit,
					  1 + (int)(entries / GOFER_PREFETCH_PRICE),
					  memory_order_relaxed);
	else
		atomic_store_explicit(&fs->prefetch_credit, 0, memory_order_relaxed);
}

static unsigned count_entries(const struct p9_blob *data)
{
	unsigned ret = 0;
	struct p9_dirent e;
	size_t off = 0;

	while (p9_dirent_get(data->data, data->size, &off, true, &e) == 1)
		ret++;
	return ret;
}

/* Is a name of it the last that is asked for by itself? */
static bool is_worth_it(const struct gofer_fs *fs, const struct gofer_inode *in)
{
	if (fs->shared || fs->conn->plain ||
	    atomic_load_explicit(&in->prefetched, memory_order_relaxed))
		return false;
	if (atomic_load_explicit(&in->told_singly, memory_order_relaxed) >= GOFER_PREFETCH_AFTER)
		return true;
	/* Of what a light listing left out light.c sees to. */
	return atomic_load_explicit(&fs->prefetch_credit, memory_order_relaxed) >=
		       GOFER_PREFETCH_CREDIT &&
	       atomic_load_explicit(&in->light, memory_order_relaxed) == GOFER_LIGHT_NOT;
}

/* ---- which siblings ---- */

/* May cred search it, as far as is known without a request? In an RCU read section. */
static bool may_search(const struct cred *cred, struct gofer_inode *in)
{
	struct perm_inode pi;
	bool known;

	mutex_lock(&in->lock);
	known = gofer_acl_is_known_locked(in);
	mutex_unlock(&in->lock);
	if (!known && !cred_has_cap(cred, CAP_DAC_OVERRIDE))
		return false;
	gofer_inode_perm(in, &pi);
	return vfs_permission(cred, &pi, X_OK) == 0;
}

/* The subdirectory of which nothing is known or was asked yet; borrowed within the RCU read section. */
static struct remote_dentry *unknown_dir_rcu(struct gofer_fs *fs, const struct cred *cred,
					     struct remote_dentry *parent,
					     const struct p9_dirent *e)
{
	struct remote_dentry *d = remote_find_rcu(&fs->dcache, parent, e->name.data, e->name.len);
	struct gofer_inode *in;
	bool unknown = false;

	if (!d || !d->inode || !remote_is_dir(d) ||
	    (atomic_load(&d->d.flags) & (DENTRY_DEAD | DENTRY_MAYBE_MOUNTPOINT)))
		return NULL;
	in = gofer_inode_of(d);
	if (atomic_load_explicit(&in->prefetched, memory_order_relaxed) ||
	    atomic_load_explicit(&in->too_much, memory_order_relaxed))
		return NULL;
	/* Who has it is just learning something of it. */
	if (mutex_trylock(&in->lock)) {
		unknown = !in->listing;
		mutex_unlock(&in->lock);
	}
	return unknown && may_search(cred, in) ? d : NULL;
}

static int compare(const struct p9_str *a, const struct p9_str *b)
{
	int ret = memcmp(a->data, b->data, MIN(a->len, b->len));

	return ret ? ret : (int)a->len - (int)b->len;
}

/* The next `max` by name behind d's, with references. Return: how many. */
static unsigned collect(struct gofer_fs *fs, const struct cred *cred, struct remote_dentry *d,
			const struct gofer_listing *l, unsigned max, struct asked *ret)
{
	const struct remote_key *key;
	struct p9_str names[GOFER_SIBLINGS_MAX];
	unsigned count = 0, held = 0, i;
	struct p9_dirent e;
	struct p9_str own;
	size_t off = 0;

	rcu_read_begin();
	key = rcu_load(d->key);
	own = (struct p9_str){key->name, key->len};
	while (p9_dirent_get(l->data, l->size, &off, true, &e) == 1) {
		struct remote_dentry *other;

		if (e.type != DT_DIR || compare(&e.name, &own) <= 0 ||
		    (count == max && compare(&e.name, &names[count - 1]) >= 0))
			continue;
		other = unknown_dir_rcu(fs, cred, key->parent, &e);
		if (!other)
			continue;
		count += count < max;
		for (i = count - 1; i && compare(&e.name, &names[i - 1]) < 0; i--) {
			names[i] = names[i - 1];
			ret[i].d = ret[i - 1].d;
		}
		names[i] = e.name;
		ret[i].d = other;
	}
	for (i = 0; i < count; i++)
		if (ref_tryget(&ret[i].d->d.ref))
			ret[held++] = (struct asked){.d = ret[i].d};
	rcu_read_end();
	return held;
}

/* d is asked for; what else? */
static unsigned plan(struct gofer_fs *fs, const struct cred *cred, struct remote_dentry *d,
		     struct asked *ret)
{
	struct remote_dentry *parent = remote_parent(d);
	struct gofer_listing *l;
	struct gofer_inode *in;
	unsigned window, count;

	if (!parent || remote_is_dead(d))
		return 0;
	in = gofer_inode_of(parent);
	window = atomic_load_explicit(&in->sibling_window, memory_order_relaxed);
	atomic_store_explicit(&in->sibling_window,
			      MIN(MAX(window * 2, GOFER_SIBLINGS_MIN), GOFER_SIBLINGS_MAX),
			      memory_order_relaxed);
	if (!window ||
	    atomic_load_explicit(&fs->sibling_debt, memory_order_relaxed) > GOFER_SIBLINGS_DEBT ||
	    atomic_load(&fs->listing_bytes) > GOFER_LISTINGS_MAX)
		return 0;
	l = gofer_listing_of(in);
	if (!l)
		return 0;
	count = collect(fs, cred, d, l, window, ret);
	gofer_listing_unref(l);
	return count;
}

/* ---- asking ---- */

static void fill_request(struct p9_msg *t, const struct gofer_fs *fs,
			 const struct gofer_where *where)
{
	*t = (struct p9_msg){.type = P9_Tmreaddir};
	t->Tmreaddir.fid = where->fid;
	t->Tmreaddir.path = gofer_where_path(where);
	t->Tmreaddir.newfid = P9_NOFID;
	t->Tmreaddir.count = MIN(GOFER_PREFETCH_BYTES, fs->conn->msize - P9_IO_OVERHEAD);
	t->Tmreaddir.want = P9_WANT_NODES | gofer_acl_want(fs) | gofer_xattr_want(fs) |
			    P9_WANT_QUIET | P9_WANT_TARGETS;
}

static void start(struct gofer_fs *fs, struct asked *asked)
{
	struct gofer_where where;
	struct p9_msg t;

	if (!gofer_where_known(asked->d, &where))
		return;
	fill_request(&t, fs, &where);
	if (p9_call_start(fs->conn, &t, &asked->call))
		asked->call = NULL;
}

/* Return: the entries that came. */
static unsigned take(struct gofer_fs *fs, struct remote_dentry *d, const struct p9_Rmreaddir *r,
		     uint32_t want)
{
	unsigned entries = count_entries(&r->data);

	gofer_dir_told(d, &r->data, want, r->eof);
	spend(fs, entries, r->eof);
	return entries;
}

/* Return: it was answered. */
static bool finish(struct gofer_fs *fs, struct asked *asked, unsigned *ret_entries)
{
	static const struct gofer_where none;
	struct p9_call *call = asked->call;
	struct p9_msg t;

	if (!call)
		return false;
	fill_request(&t, fs, &none);
	if (p9_call_wait(fs->conn, call, &t))
		return false;
	*ret_entries = take(fs, asked->d, &call->r.Rmreaddir, t.Tmreaddir.want);
	p9_call_fini(call);
	free(call);
	return true;
}

bool gofer_dir_ask(struct gofer_fs *fs, struct remote_dentry *d)
{
	struct gofer_where where;
	struct p9_call call;
	struct p9_msg t;

	if (gofer_where(d, &where))
		return false;
	fill_request(&t, fs, &where);
	if (p9_rpc(fs->conn, &call, &t))
		return false;
	(void)take(fs, d, &call.r.Rmreaddir, t.Tmreaddir.want);
	p9_call_fini(&call);
	return true;
}

bool gofer_dir_prefetch(struct gofer_fs *fs, const struct cred *cred, struct remote_dentry *d)
{
	struct asked asked[1 + GOFER_SIBLINGS_MAX];
	unsigned count, entries;
	bool ret;

	if (!is_worth_it(fs, gofer_inode_of(d)) ||
	    atomic_exchange(&gofer_inode_of(d)->prefetched, true))
		return false;
	/* What goes wrong here goes wrong again, and is reported, where the one name is asked for. */
	count = plan(fs, cred, d, asked + 1);
	if (!count)
		return gofer_dir_ask(fs, d);
	asked[0] = (struct asked){.d = d};
	for (unsigned i = 0; i <= count; i++)
		if (!i || !atomic_exchange(&gofer_inode_of(asked[i].d)->prefetched, true))
			start(fs, &asked[i]);
	ret = finish(fs, &asked[0], &entries);
	for (unsigned i = 1; i <= count; i++) {
		if (finish(fs, &asked[i], &entries))
			atomic_fetch_add_explicit(&fs->sibling_debt, entries, memory_order_relaxed);
		remote_dentry_unref(asked[i].d);
	}
	return ret || (!asked[0].call && gofer_dir_ask(fs, d));
}
