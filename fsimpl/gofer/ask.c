/*
 * fsimpl/gofer/ask.c - one request for all that a walk does not know, and for what is done at its end.
 *
 * Everything that remains of the path (up to "..", whose meaning only the VFS knows, or the end of a symlink's text) is asked for at
 * once. What is unknown cannot hold a mount point, since a mount pins its dentry and all above it in the cache: only a shared tree, where
 * known names are asked for again, has requests cut behind mount points.
 *
 * A hint makes the request open, create, or change what the path ends in. Opening has no effect that anybody could see, so its
 * descriptor is asked for before the guest's rights are known and closed if it has none. A creation or another change is sent along only
 * for credentials that may do it whatever the walk meets.
 */
#include <fcntl.h>
#include <linux/capability.h>
#include <string.h>
#include <unistd.h>

#include "fsimpl/gofer/walk.h"

/* What the replies have in common. */
struct walk_reply {
	uint32_t err;
	struct p9_nodes nodes;
	struct p9_str target;
};

/* The names of a request. */
struct asked {
	struct gofer_where where;
	uint16_t skip; /* known components in where */
	const char *names; /* in where.path, behind them */
	unsigned count;
	bool all; /* the whole rest of the path */
	bool ends; /* the same, or behind it are only the ends of symlinks' texts that were followed */
	bool plain_end; /* which ends in a name, with no slash or "." behind it */
	bool self; /* the place itself comes first in the reply */
};

bool gofer_may_all(const struct resolving_path *rp)
{
	const struct cred *cred = rp_cred(rp);

	return cred_has_cap(cred, CAP_DAC_OVERRIDE) && cred_has_cap(cred, CAP_FOWNER) &&
	       cred_has_cap(cred, CAP_FSETID);
}

/* ---- the request ---- */

/* Joins one name behind what is there. false: no room. */
static bool add_name(struct asked *a, const char *name, size_t len)
{
	struct gofer_where *w = &a->where;

	if (w->len + len + 1 > P9_PATH_MAX)
		return false;
	if (w->len)
		w->path[w->len++] = '/';
	memcpy(w->path + w->len, name, len);
	w->len += (uint16_t)len;
	w->path[w->len] = '\0';
	a->count++;
	return true;
}

/* Steps to the cached child, if there is one, without a reference. */
static struct remote_dentry *cached_child(struct gofer_fs *fs, struct remote_dentry *dir,
					  const char *name, size_t len)
{
	struct remote_dentry *d;

	if (!dir)
		return NULL;
	/* tree_lock keeps what is below a used directory only as long as it is not evicted: compared, and its flags read, within the section. */
	d = remote_find_rcu(&fs->dcache, dir, name, len);
	return d && d->inode ? d : NULL;
}

/* Is nothing left of the texts around the one that rp stands in? */
static bool outer_is_done(const struct resolving_path *rp)
{
	for (unsigned i = 0; i + 1 < rp->nparts; i++)
		if (rp->parts[i].pos < rp->parts[i].end)
			return false;
	return true;
}

/*
 * The names that remain from rp's current component on, in the text that it stands in. Stops before "..", and in a shared tree behind a
 * mount point.
 */
static void add_names(struct gwalk *wk, struct asked *a)
{
	struct resolving_path *rp = wk->rp;
	const char *name = rp_component(rp), *end;
	size_t len = rp_component_len(rp);
	struct remote_dentry *dir = wk->fs->shared ? wk->cur : NULL;

	/* Behind the last component no text is left. */
	end = rp->nparts ? rp->parts[rp->nparts - 1].end : name + len;
	rcu_read_begin();
	for (;;) {
		bool dot = len == 1 && name[0] == '.';

		if (len > VFS_NAME_MAX || (len == 2 && name[0] == '.' && name[1] == '.'))
			break;
		if (!dot && !add_name(a, name, len))
			break;
		if (!dot)
			dir = cached_child(wk->fs, dir, name, len);
		if (!dot && dir && (atomic_load(&dir->d.flags) & DENTRY_MAYBE_MOUNTPOINT))
			break;
		name += len;
		a->plain_end = !dot && name >= end;
		while (name < end && *name == '/')
			name++;
		if (name >= end) {
			a->all = rp->nparts <= 1;
			a->ends = outer_is_done(rp);
			break;
		}
		len = 0;
		while (name + len < end && name[len] != '/')
			len++;
	}
	rcu_read_end();
}

/* May the hint's change go along with the walk? */
static bool takes_change(const struct gwalk *wk, const struct asked *a)
{
	const struct gofer_hint *h = wk->hint;

	if (!h || !h->t || h->done || !a->all || !a->plain_end || !gofer_may_all(wk->rp))
		return false;
	/* The last component's text ends before its slash. */
	if (rp_final(wk->rp) && wk->rp->trailing_slash)
		return false;
	return rp_begin_write(wk->rp) == 0;
}

/* The walk goes on elsewhere, perhaps in another mount. */
static void end_write(struct resolving_path *rp)
{
	if (!rp->writing)
		return;
	rp->writing = false;
	mount_end_write(rp->write_mount);
}

void gofer_place_request(struct p9_msg *t, uint32_t fid, uint16_t skip, struct p9_str path)
{
#define PLACE(name)                     \
	case P9_T##name:                \
		t->T##name.fid = fid;   \
		t->T##name.skip = skip; \
		t->T##name.path = path; \
		break
	switch (t->type) {
		PLACE(mwalk);
		PLACE(mopen);
		PLACE(mcreate);
		PLACE(mmkdir);
		PLACE(msymlink);
		PLACE(mmknod);
		PLACE(mlink);
		PLACE(munlink);
	default:
		assert(false);
	}
#undef PLACE
}

static void fill_look(struct p9_msg *t, const struct gwalk *wk, const struct asked *a)
{
	const struct gofer_hint *h = wk->hint;

	*t = (struct p9_msg){.type = P9_Tmwalk};
	t->Tmwalk.newfid = P9_NOFID;
	t->Tmwalk.want = gofer_acl_want(wk->fs) | (a->self ? P9_WANT_SELF : 0);
	if (!h || !h->open || !a->ends)
		return;
	*t = (struct p9_msg){.type = P9_Tmopen};
	t->Tmopen.newfid = P9_NOFID;
	t->Tmopen.want = P9_WANT_FD | gofer_acl_want(wk->fs) | (a->self ? P9_WANT_SELF : 0);
	t->Tmopen.flags = h->write ? O_RDWR : O_RDONLY;
}

/* ---- the reply ---- */

static void read_reply(const struct p9_msg *r, struct walk_reply *ret)
{
#define READ(name)                             \
	case P9_R##name:                       \
		ret->err = r->R##name.err;     \
		ret->nodes = r->R##name.nodes; \
		break
	*ret = (struct walk_reply){0};
	switch (r->type) {
		READ(mwalk);
		READ(mopen);
		READ(mcreate);
		READ(mmkdir);
		READ(msymlink);
		READ(mmknod);
		READ(mlink);
		READ(munlink);
	default:
		break;
	}
#undef READ
	if (r->type == P9_Rmwalk)
		ret->target = r->Rmwalk.target;
	else if (r->type == P9_Rmopen)
		ret->target = r->Rmopen.target;
	else if (r->type == P9_Rmcreate)
		ret->target = r->Rmcreate.target;
}

/* The n-th component of what add_names() added. */
static const char *next_name(const char *p, size_t *ret_len)
{
	*ret_len = strcspn(p, "/");
	return p + *ret_len + (p[*ret_len] == '/');
}

/* The name at which the walk failed. */
static void enter_failure(struct gwalk *wk, struct remote_dentry *dir, const char *name, size_t len,
			  uint32_t err)
{
	wk->fail_dir = dir;
	wk->fail_err = err < 4096 ? -(int)err : -EIO;
	wk->fresh++;
	if (err != ENOENT)
		return;
	gofer_cache_enter_negative(wk->fs, dir, name, len);
	if (wk->fs->shared)
		gofer_cache_vanished(wk->fs, dir, name, len);
}

/* Enters the nodes first..last of the reply below wk->cur. *ret_last: the last of them, a reference. */
static int enter_nodes(struct gwalk *wk, const struct walk_reply *r, const struct asked *a,
		       unsigned first, unsigned end, struct remote_dentry **ret_last)
{
	struct remote_dentry *dir = remote_dentry_ref(wk->cur);
	const char *names = a->names;
	unsigned i;
	int err = 0;

	for (i = first; i < end; i++) {
		struct remote_dentry *child;
		const char *name = names;
		struct p9_node node;
		size_t len;

		names = next_name(names, &len);
		p9_nodes_get(&r->nodes, i, &node);
		/* What the reply has no target for is asked for again. */
		if (S_ISLNK(node.mode) && !r->target.data)
			break;
		err = remote_is_dir(dir)
			      ? gofer_cache_enter(wk->fs, dir, name, len, &node, &r->target, &child)
			      : -EIO;
		if (err)
			break;
		remote_dentry_unref(dir);
		dir = child;
	}
	wk->fresh = i - first;
	if (!err && r->err && i == end && i - first < a->count) {
		size_t len;

		(void)next_name(names, &len);
		enter_failure(wk, dir, names, len, r->err);
	}
	*ret_last = dir;
	return err;
}

/* A descriptor that came along. */
static void keep_fd(struct gofer_hint *h, struct p9_call *call, const struct p9_nodes *nodes)
{
	struct p9_node last;

	if (call->fd < 0)
		return;
	if (h->fd >= 0)
		p9_fd_put(call->plain, h->fd);
	p9_nodes_get(nodes, nodes->count - 1u, &last);
	h->fd = call->fd;
	h->plain = call->plain;
	h->qid_path = last.qid.path;
	call->fd = -1;
}

/* What is at the end of the path, if the reply came that far. Consumes last. */
static void keep_end(struct gwalk *wk, const struct asked *a, const struct walk_reply *r,
		     bool complete, struct remote_dentry *last)
{
	struct gofer_hint *h = wk->hint;

	if (h && a->all) {
		remote_dentry_unref(h->child);
		h->child = complete && wk->fresh == a->count ? remote_dentry_ref(last) : NULL;
		h->absent = !complete && r->err == ENOENT && wk->fresh == a->count &&
			    wk->fail_dir == last;
		/* Its parent: where the walk will stand. */
		h->dir = h->child ? remote_parent(h->child) : last;
	}
	remote_dentry_unref(last);
}

/* The place itself, first in the reply. */
static int update_self(struct gwalk *wk, const struct walk_reply *r)
{
	struct gofer_inode *in = gofer_inode_of(wk->cur);
	struct p9_node node;

	if (!r->nodes.count)
		return -EIO;
	p9_nodes_get(&r->nodes, 0, &node);
	if (node.qid.path != in->qid_path || (node.mode & S_IFMT) != in->base.type)
		return -ESTALE;
	gofer_inode_update(in, &node);
	return 0;
}

static int take_reply(struct gwalk *wk, struct p9_call *call, struct asked *a, bool change)
{
	unsigned first = a->self ? 1 : 0, end;
	struct gofer_hint *h = wk->hint;
	struct walk_reply r;
	struct remote_dentry *last;
	bool complete;
	int err = 0;

	read_reply(&call->r, &r);
	end = MIN((unsigned)r.nodes.count, a->count + first);
	complete = end == a->count + first;
	/* What could only not be opened: open(2) finds out why after its checks. */
	if (complete && (call->r.type == P9_Rmopen || call->r.type == P9_Rmcreate))
		r.err = 0;
	if (!r.nodes.count && !r.err)
		return -EIO;
	if (a->self)
		err = update_self(wk, &r);
	if (err)
		return err;
	if (complete && h)
		keep_fd(h, call, &r.nodes);
	if (change) {
		h->done = complete || (r.err && end == a->count);
		h->err = complete ? 0 : r.err < 4096 ? -(int)r.err : -EIO;
		h->created = call->r.type == P9_Rmcreate && call->r.Rmcreate.created && complete;
		/* The operation enters what it did itself. */
		if (call->r.type != P9_Rmcreate && complete)
			end--;
		if (h->done && call->r.type != P9_Rmcreate)
			r.err = 0;
	}
	err = enter_nodes(wk, &r, a, first, end, &last);
	keep_end(wk, a, &r, complete && !err, last);
	return err;
}

int gofer_walk_ask(struct gwalk *wk)
{
	struct gofer_hint *h = wk->hint;
	struct asked a = {0};
	struct p9_msg look, *t = &look;
	struct p9_call own, *call = &own;
	bool change;
	int err;

	err = gofer_where(wk->cur, &a.where);
	if (err)
		return err;
	a.names = a.where.path + a.where.len + (a.where.len != 0);
	a.skip = a.where.depth;
	add_names(wk, &a);
	if (!a.count)
		return -ENAMETOOLONG;
	change = takes_change(wk, &a);
	a.self = wk->fs->shared || change;
	if (change)
		t = h->t;
	else
		fill_look(&look, wk, &a);
	/* A change's reply stays for the operation. */
	if (change && h->call)
		call = h->call;
	gofer_place_request(t, a.where.fid, a.skip, gofer_where_path(&a.where));
	err = p9_rpc(wk->fs->conn, call, t);
	if (err == -ENOENT && a.self)
		return -ESTALE;
	if (err)
		return err;
	wk->fail_dir = NULL;
	err = take_reply(wk, call, &a, change);
	if (change && !h->done) {
		end_write(wk->rp);
		/* A symlink or the like: the rest of the walk only looks. */
		if (h->call)
			h->t = NULL;
	}
	if (err || !(change && h->call && h->done))
		p9_call_fini(call);
	if (err && h)
		h->done = false;
	return err;
}

int gofer_refresh(struct gofer_fs *fs, struct remote_dentry *d)
{
	struct p9_msg t = {.type = P9_Tmsetattr};
	struct gofer_where where;
	struct p9_call call;
	int err = gofer_where(d, &where);

	if (err)
		return err;
	t.Tmsetattr.fid = where.fid;
	t.Tmsetattr.path = gofer_where_path(&where);
	err = p9_rpc(fs->conn, &call, &t);
	if (err)
		return err == -ENOENT ? -ESTALE : err;
	if (call.r.Rmsetattr.node.qid.path == gofer_inode_of(d)->qid_path)
		gofer_inode_update(gofer_inode_of(d), &call.r.Rmsetattr.node);
	else
		err = -ESTALE;
	p9_call_fini(&call);
	return err;
}
