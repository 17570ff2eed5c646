/* fsimpl/virtiofs/listing.c - see listing.h. */
#include "fsimpl/virtiofs/listing.h"

#include <stdlib.h>
#include <string.h>

#include "base/sleep.h"
#include "fsimpl/virtiofs/internal.h"

#define SAMPLES 8 /* names that stand for all */

static REF_TYPE(listing_type, "virtiofs_listing");

static struct virtiofs_listings *listings_of(struct virtiofs_fs *fs)
{
	return fs->top ? &fs->top->listings : &fs->listings;
}

void virtiofs_listings_init(struct virtiofs_listings *all)
{
	mutex_init(&all->lock, LOCK_FS_SUPER, "virtiofs listings");
	TAILQ_INIT(&all->used);
}

void virtiofs_listing_unref(struct virtiofs_listing *l)
{
	if (!l || !ref_put(&l->ref))
		return;
	ref_fini(&l->ref, &listing_type);
	free(l);
}

/* ---- what is known of a directory ---- */

/* What is compared of a time that the server gave, which may be any number. */
static struct virtiofs_stamp stamp(uint64_t sec, uint32_t nsec)
{
	return (struct virtiofs_stamp){sec, nsec};
}

static bool same_stamp(struct virtiofs_stamp a, struct virtiofs_stamp b)
{
	return a.sec == b.sec && a.nsec == b.nsec;
}

static void look(struct virtiofs_inode *in, struct virtiofs_listed_state *ret)
{
	struct virtiofs_versions *v = in->fs->versions;

	*ret = (struct virtiofs_listed_state){.epoch = vdev_epoch(in->fs->dev)};
	mutex_lock(&in->lock);
	ret->changes = in->attr_version;
	ret->key = in->generation;
	ret->known = in->attr_asked != 0;
	/* Our own changes are told by attr_version. */
	ret->until = in->perm_valid_until;
	ret->mtime = stamp(in->attr.mtime, in->attr.mtimensec);
	ret->ctime = stamp(in->attr.ctime, in->attr.ctimensec);
	mutex_unlock(&in->lock);
	if (v)
		ret->version = version_load(v->table, ret->key);
}

/* Is nothing known that was not so then? */
static bool same(const struct virtiofs_listed_state *then, const struct virtiofs_listed_state *now)
{
	return then->changes == now->changes && then->key == now->key &&
	       then->epoch == now->epoch &&
	       (!then->known || !now->known ||
		(same_stamp(then->mtime, now->mtime) && same_stamp(then->ctime, now->ctime)));
}

static bool holds(struct virtiofs_inode *in, const struct virtiofs_listed_state *then)
{
	struct virtiofs_fs *fs = in->fs;
	struct virtiofs_listed_state now;

	if (fs->versions)
		virtiofs_versions_settle(fs->versions);
	look(in, &now);
	if (!same(then, &now))
		return false;
	if (fs->versions)
		return virtiofs_version_holds(fs->versions, then->key, then->version);
	/* Later, the same times would not tell that nothing was changed: directories of procfs and of many FUSE file systems of the host always have the same. */
	return fs->options.cache == VIRTIOFS_CACHE_ALWAYS || time_monotonic_ns() < then->until;
}

/* ---- gathering ---- */

/* Not kept any more. Pre: lock. The caller drops the reference when it has the lock no longer. */
static void unkeep_locked(struct virtiofs_listings *all, struct virtiofs_listing *l)
{
	TAILQ_REMOVE(&all->used, l, link);
	all->bytes -= l->size;
	l->in->listing = NULL;
	l->in = NULL;
}

/* Room for `more` bytes, for which those go that were not used for the longest. */
static bool reserve(struct virtiofs_listings *all, size_t more)
{
	struct virtiofs_listing *l;

	mutex_lock(&all->lock);
	while (all->bytes + more > VIRTIOFS_LISTINGS_BYTES && (l = TAILQ_FIRST(&all->used))) {
		unkeep_locked(all, l);
		mutex_unlock(&all->lock);
		virtiofs_listing_unref(l);
		mutex_lock(&all->lock);
	}
	if (all->bytes + more > VIRTIOFS_LISTINGS_BYTES)
		more = 0;
	all->bytes += more;
	mutex_unlock(&all->lock);
	return more != 0;
}

static void give_back(struct virtiofs_listings *all, size_t bytes)
{
	mutex_lock(&all->lock);
	all->bytes -= bytes;
	mutex_unlock(&all->lock);
}

void virtiofs_gather_drop(struct virtiofs_gathering *g, struct virtiofs_inode *in)
{
	if (!g->l)
		return;
	give_back(listings_of(in->fs), g->room);
	virtiofs_listing_unref(g->l);
	*g = (struct virtiofs_gathering){0};
}

void virtiofs_gather_begin(struct virtiofs_gathering *g, struct virtiofs_inode *in)
{
	const struct virtiofs_fs *fs = in->fs;

	virtiofs_gather_drop(g, in);
	if (!fs->versions && fs->options.cache == VIRTIOFS_CACHE_NONE)
		return;
	g->l = calloc(1, sizeof(*g->l));
	if (!g->l)
		return;
	ref_init(&g->l->ref, &listing_type);
	look(in, &g->l->state);
	/* Nobody would tell of its changes. */
	if (fs->versions && !g->l->state.key)
		virtiofs_gather_drop(g, in);
}

/* Room for `size` bytes more. */
static bool gather_room(struct virtiofs_gathering *g, struct virtiofs_inode *in, size_t size)
{
	size_t need = g->l->size + size, room = MAX(g->room, (size_t)1024);
	struct virtiofs_listing *l;

	if (need <= g->room)
		return true;
	while (room < need)
		room *= 2;
	if (room > VIRTIOFS_LISTING_BYTES || !reserve(listings_of(in->fs), room - g->room))
		return false;
	l = realloc(g->l, sizeof(*l) + room);
	if (!l) {
		give_back(listings_of(in->fs), room - g->room);
		return false;
	}
	g->l = l;
	g->room = room;
	return true;
}

void virtiofs_gather_add(struct virtiofs_gathering *g, struct virtiofs_inode *in, int64_t pos,
			 const uint8_t *data, size_t size, bool plus)
{
	struct fuse_entry e;
	size_t at = 0;

	if (!g->l)
		return;
	/* Without the attributes they are shorter. */
	if (pos != g->next || !gather_room(g, in, size)) {
		virtiofs_gather_drop(g, in);
		return;
	}
	while (fuse_next_entry(data, size, &at, plus, &e) == 1) {
		if (!fuse_put_entry(g->l->data, g->room, &g->l->size, false, &e))
			break;
		g->l->count++;
		g->next = (int64_t)e.off;
	}
}

void virtiofs_gather_end(struct virtiofs_gathering *g, struct virtiofs_inode *in, int64_t pos)
{
	struct virtiofs_listings *all = listings_of(in->fs);
	struct virtiofs_listing *l = g->l, *old;
	struct virtiofs_listed_state now;

	if (!l)
		return;
	look(in, &now);
	/* An empty directory has at least itself. */
	if (pos != g->next || !l->count || !same(&l->state, &now)) {
		virtiofs_gather_drop(g, in);
		return;
	}
	l = realloc(l, sizeof(*l) + l->size);
	if (!l)
		l = g->l;
	mutex_lock(&all->lock);
	all->bytes -= g->room;
	old = in->listing;
	if (old)
		unkeep_locked(all, old);
	l->in = in;
	in->listing = l;
	all->bytes += l->size;
	TAILQ_INSERT_TAIL(&all->used, l, link);
	mutex_unlock(&all->lock);
	virtiofs_listing_unref(old);
	*g = (struct virtiofs_gathering){0};
}

/* ---- use ---- */

/* Are the attributes of most of its names known, going by some of them? */
static bool names_known(struct remote_dentry *d, const struct virtiofs_listing *l)
{
	struct virtiofs_inode *in = virtiofs_inode_of(d);
	uint32_t step = l->count / SAMPLES + 1, asked = 0, known = 0, i = 0;
	struct virtiofs_clock clock = {0};
	struct fuse_entry e;
	size_t at = 0;

	rwlock_read_lock(&in->fs->tree_lock);
	while (fuse_next_entry(l->data, l->size, &at, false, &e) == 1) {
		struct remote_dentry *child;

		if (i++ % step || (e.len <= 2 && !memcmp(e.name, "..", e.len)))
			continue;
		child = remote_find(&in->fs->dcache, d, e.name, e.len);
		asked++;
		known += child && virtiofs_name_holds(in->fs, in, e.name, e.len, child, &clock);
		remote_dentry_unref(child);
	}
	rwlock_read_unlock(&in->fs->tree_lock);
	return known + (asked > 2) >= asked;
}

struct virtiofs_listing *virtiofs_listing_get(struct remote_dentry *d, bool attributes)
{
	struct virtiofs_inode *in = virtiofs_inode_of(d);
	struct virtiofs_listings *all = listings_of(in->fs);
	struct virtiofs_listing *l;

	mutex_lock(&all->lock);
	l = in->listing;
	if (l) {
		ref_get(&l->ref);
		TAILQ_REMOVE(&all->used, l, link);
		TAILQ_INSERT_TAIL(&all->used, l, link);
	}
	mutex_unlock(&all->lock);
	if (!l || (holds(in, &l->state) && (!attributes || names_known(d, l))))
		return l;
	virtiofs_listing_unref(l);
	return NULL;
}

void virtiofs_listing_forget(struct virtiofs_inode *in)
{
	struct virtiofs_listings *all = listings_of(in->fs);
	struct virtiofs_listing *l;

	mutex_lock(&all->lock);
	l = in->listing;
	if (l)
		unkeep_locked(all, l);
	mutex_unlock(&all->lock);
	virtiofs_listing_unref(l);
}

void virtiofs_listings_drop(struct virtiofs_fs *fs)
{
	struct virtiofs_listings *all = listings_of(fs);
	struct virtiofs_listing *l, *next;
	TAILQ_HEAD(, virtiofs_listing) gone = TAILQ_HEAD_INITIALIZER(gone);

	mutex_lock(&all->lock);
	for (l = TAILQ_FIRST(&all->used); l; l = next) {
		next = TAILQ_NEXT(l, link);
		if (l->in->fs != fs)
			continue;
		unkeep_locked(all, l);
		TAILQ_INSERT_TAIL(&gone, l, link);
	}
	mutex_unlock(&all->lock);
	while ((l = TAILQ_FIRST(&gone))) {
		TAILQ_REMOVE(&gone, l, link);
		virtiofs_listing_unref(l);
	}
}
