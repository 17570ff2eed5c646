/*
 * fsimpl/gofer/light.c - listings with attributes, or without those of files.
 *
 * Who lists a directory often looks at each entry next (ls -l, du, tar), and then attributes that come with the listing save a request each. find
 * and ls want types only, and attributes are most of what a listing costs the server. So each filesystem learns which it serves, as Linux's NFS client
 * does with READDIRPLUS: after GOFER_LIGHT_AFTER directories with files in a row whose listings were asked for, and of whose files nobody asked for an
 * attribute, listings are *light*: they bring attributes of directories only, which are needed to go on below them.
 *
 * Files of a light listing have no dentries: nothing is known of them but what getdents shows. The first look at one, by name, turns the filesystem back
 * and asks for the whole directory again with all attributes (relist()), unless most of its files are known. A light listing that is kept does for who lists
 * the directory again only while listings are light; else it is asked for again, and so are those that follow (ahead.c).
 *
 * A directory whose listing took several replies, and so is not kept, may be larger than what is wanted of it: there the third look that costs a request
 * asks for all, as of a directory that was never listed. GOFER_RELIST_MAX requests at most, about as many entries as the cache keeps: they are
 * made under the tree lock, once for a listing.
 *
 * Exclusive trees of the gofer only: in shared ones no attributes come with listings, and plain servers have none to give.
 */
#include <dirent.h>
#include <string.h>

#include "fsimpl/gofer/internal.h"

static bool is_light(const struct gofer_fs *fs)
{
	return atomic_load_explicit(&fs->unasked, memory_order_relaxed) >= GOFER_LIGHT_AFTER;
}

uint32_t gofer_light_want(const struct gofer_fs *fs)
{
	if (fs->shared)
		return 0;
	return P9_WANT_NODES | gofer_acl_want(fs) |
	       (is_light(fs) && !fs->conn->plain ? P9_WANT_DIR_NODES
						 : P9_WANT_TARGETS | gofer_xattr_want(fs));
}

void gofer_light_program_listed(struct gofer_fs *fs, const struct gofer_listing *l)
{
	unsigned unasked = atomic_load_explicit(&fs->unasked, memory_order_relaxed);

	/* Two at once may count as one: it is an estimate. */
	if (l->files && unasked < GOFER_LIGHT_AFTER)
		atomic_store_explicit(&fs->unasked, unasked + 1, memory_order_relaxed);
}

void gofer_light_asked(struct gofer_inode *in)
{
	atomic_store_explicit(&in->listed, false, memory_order_relaxed);
	gofer_dir_well_spent(in->fs);
	/* What was known before listings were light is no reason to change that. */
	if (!is_light(in->fs))
		atomic_store_explicit(&in->fs->unasked, 0, memory_order_relaxed);
}

/* Is it a file of which a light listing says nothing? */
static bool is_left_out(const struct p9_dirent *e)
{
	return e->type != DT_DIR && e->type != DT_LNK;
}

void gofer_light_entered(struct gofer_fs *fs, struct remote_dentry *d, const struct p9_blob *data,
			 uint32_t want, bool first)
{
	struct gofer_inode *in = gofer_inode_of(d);
	enum gofer_light light = GOFER_LIGHT_NOT;
	unsigned files = 0, unknown = 0;
	struct p9_dirent e;
	size_t off = 0;

	while ((want & P9_WANT_DIR_NODES) &&
	       p9_dirent_get(data->data, data->size, &off, true, &e) == 1) {
		if (!is_left_out(&e))
			continue;
		files++;
		rcu_read_begin();
		unknown += !remote_find_rcu(&fs->dcache, d, e.name.data, e.name.len);
		rcu_read_end();
	}
	if (unknown)
		light = unknown * 2 > files ? GOFER_LIGHT_MOST : GOFER_LIGHT_SOME;
	if (first || light > atomic_load_explicit(&in->light, memory_order_relaxed))
		atomic_store_explicit(&in->light, light, memory_order_relaxed);
}

bool gofer_light_misses(const struct gofer_inode *in)
{
	return atomic_load_explicit(&in->light, memory_order_relaxed) == GOFER_LIGHT_MOST &&
	       !is_light(in->fs);
}

/* Does what is known of in's entries say that this is a file? Where that is not kept (*ret_kept), it may be. */
static bool may_be_file(struct gofer_inode *in, const char *name, size_t len, bool *ret_kept)
{
	struct gofer_listing *l;
	struct p9_dirent e;
	bool found = false;
	size_t off = 0;

	l = gofer_listing_of(in);
	*ret_kept = l;
	if (!l)
		return true;
	while (!found && p9_dirent_get(l->data, l->size, &off, true, &e) == 1)
		found = is_left_out(&e) && e.name.len == len && !memcmp(e.name.data, name, len);
	gofer_listing_unref(l);
	return found;
}

/* The cookie behind the last entry. Return: there is one, and all are well-formed. */
static bool last_offset(const struct p9_blob *data, uint64_t *ret)
{
	struct p9_dirent e;
	size_t off = 0;
	int got;

	while ((got = p9_dirent_get(data->data, data->size, &off, true, &e)) == 1)
		*ret = e.offset;
	return got == 0 && off;
}

/* All entries of d with their attributes, those of GOFER_RELIST_MAX replies at most. Return: some came. */
static bool relist(struct gofer_fs *fs, struct remote_dentry *d)
{
	struct p9_msg t = {.type = P9_Tmreaddir};
	struct p9_Tmreaddir *a = &t.Tmreaddir;
	uint32_t fid = P9_NOFID;
	struct gofer_where where;
	struct p9_call call;
	bool more = true;
	unsigned n;

	if (gofer_where(d, &where))
		return false;
	a->fid = where.fid;
	a->path = gofer_where_path(&where);
	a->newfid = p9_fid_alloc(fs->conn);
	a->count = fs->conn->msize - P9_IO_OVERHEAD;
	a->want = P9_WANT_NODES | gofer_acl_want(fs) | gofer_xattr_want(fs) | P9_WANT_QUIET |
		  P9_WANT_TARGETS;
	/* What goes wrong here goes wrong again, and is reported, where the one name is asked for. */
	for (n = 0; more && n < GOFER_RELIST_MAX && !p9_rpc(fs->conn, &call, &t); n++) {
		const struct p9_Rmreaddir *r = &call.r.Rmreaddir;

		if (n == 0 && r->bound)
			fid = a->newfid;
		more = last_offset(&r->data, &a->offset) && !r->eof && fid != P9_NOFID;
		gofer_dir_enter(fs, d, &r->data, a->want);
		p9_call_fini(&call);
		a->fid = fid;
		a->path = p9_str("");
		a->newfid = P9_NOFID;
	}
	p9_fid_clunk(fs->conn, fid);
	return n != 0;
}

bool gofer_light_lookup(struct gofer_fs *fs, struct remote_dentry *d, const char *name, size_t len)
{
	struct gofer_inode *in = gofer_inode_of(d);
	enum gofer_light light = atomic_load_explicit(&in->light, memory_order_relaxed);
	bool kept;

	if (likely(light == GOFER_LIGHT_NOT) || !may_be_file(in, name, len, &kept))
		return false;
	atomic_store_explicit(&fs->unasked, 0, memory_order_relaxed);
	if (!kept && atomic_load(&in->told_singly) < GOFER_PREFETCH_AFTER)
		return false;
	/* Only one asks. */
	light = atomic_exchange(&in->light, GOFER_LIGHT_NOT);
	return light == GOFER_LIGHT_MOST && relist(fs, d);
}
