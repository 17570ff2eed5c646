/*
 * fsimpl/gofer/walk.c - walking a path: from the cache, and in one request for all that is not there.
 *
 * The walk steps through cached dentries. At the first component of which nothing is known, everything that remains of the
 * path (up to "..", whose meaning only the VFS knows, or the end of a symlink's text) is asked for in one Tmwalk; the reply's
 * nodes are entered and the walk goes on over them, checking the guest's search permission on each as if it had always
 * been there. What is unknown cannot hold a mount point, since a mount pins its dentry and all above it in the cache: the request
 * need not be cut for mounts.
 *
 * In a shared tree cached dentries are not believed: the request covers the whole path from where the walk starts, up to the
 * first mount point, and its answer holds for this walk only.
 */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "fsimpl/gofer/internal.h"

#define WHERE_MIN_ROOM (VFS_NAME_MAX + 2) /* kept free in a path for one more name */
#define WALK_TRIES 16 /* lookups of one name whose entry is evicted under us */

struct gwalk {
	struct gofer_fs *fs;
	struct resolving_path *rp;
	struct remote_dentry *cur; /* a reference */
	/* what the last request could not find: name lookups in `fail_dir` give fail_err */
	struct remote_dentry *fail_dir; /* borrowed: compared only */
	int fail_err;
	unsigned fresh; /* shared: components ahead that were just asked for */
	struct gofer_open_hint *hint; /* NULL: not for open(2) */
};

/* What Rmwalk and Rmopen have in common. */
struct walk_reply {
	uint32_t err;
	struct p9_nodes nodes;
	struct p9_str target;
};

/* ---- where ---- */

/*
 * Builds the path upwards to the root or the first directory that has a fid.
 * Return: 0; -ENAMETOOLONG with *ret_anchor an ancestor about half way up.
 */
static int build_where(struct remote_dentry *d, struct gofer_where *ret,
		       struct remote_dentry **ret_anchor)
{
	struct gofer_fs *fs = gofer_fs_of(d->d.fs);
	size_t at = sizeof(ret->path);

	ret->depth = 0;
	ret->path[--at] = '\0';
	*ret_anchor = NULL;
	for (; d != fs->root; d = remote_parent(d)) {
		const struct remote_key *key = rcu_load(d->key);

		if (atomic_load(&gofer_inode_of(d)->fid) != P9_NOFID)
			break;
		/* Another object may have its old place. */
		if (remote_is_dead(d))
			return -ENOENT;
		if (key->len + 1u + WHERE_MIN_ROOM > at)
			return -ENAMETOOLONG;
		if (!*ret_anchor && at < sizeof(ret->path) / 2 && remote_is_dir(d))
			*ret_anchor = d;
		if (ret->depth)
			ret->path[--at] = '/';
		at -= key->len;
		memcpy(ret->path + at, key->name, key->len);
		ret->depth++;
	}
	ret->fid = d == fs->root ? fs->root_fid : atomic_load(&gofer_inode_of(d)->fid);
	ret->len = (uint16_t)(sizeof(ret->path) - 1 - at);
	memmove(ret->path, ret->path + at, ret->len + 1u);
	return 0;
}

/* Gives the directory a fid of its own, so that paths below it begin there. Pre: its own path is short enough. */
static int bind_fid(struct remote_dentry *d)
{
	struct p9_conn *c = gofer_fs_of(d->d.fs)->conn;
	struct p9_msg t = {.type = P9_Tmwalk};
	struct remote_dentry *unused;
	struct gofer_where where;
	uint32_t none = P9_NOFID;
	struct p9_call call;
	int err = build_where(d, &where, &unused);

	if (err)
		return err;
	t.Tmwalk.fid = where.fid;
	t.Tmwalk.newfid = p9_fid_alloc(c);
	t.Tmwalk.skip = where.depth;
	t.Tmwalk.path = gofer_where_path(&where);
	err = p9_rpc(c, &call, &t);
	if (err)
		return err;
	if (!call.r.Rmwalk.bound)
		err = -EIO;
	else if (!atomic_compare_exchange_strong(&gofer_inode_of(d)->fid, &none, t.Tmwalk.newfid))
		p9_fid_clunk(c, t.Tmwalk.newfid);
	p9_call_fini(&call);
	return err;
}

int gofer_where(struct remote_dentry *d, struct gofer_where *ret)
{
	struct remote_dentry *anchor;
	int err;

	/* Each round makes the path at least a third shorter. */
	while ((err = build_where(d, ret, &anchor)) == -ENAMETOOLONG && anchor) {
		err = bind_fid(anchor);
		if (err)
			return err;
	}
	return err;
}

int gofer_where_child(struct remote_dentry *dir, const char *name, size_t len,
		      struct gofer_where *ret)
{
	int err = gofer_where(dir, ret);

	if (err)
		return err;
	if (ret->len + len + 1 > P9_PATH_MAX)
		return -ENAMETOOLONG;
	if (ret->len)
		ret->path[ret->len++] = '/';
	memcpy(ret->path + ret->len, name, len);
	ret->len += (uint16_t)len;
	ret->path[ret->len] = '\0';
	ret->depth++;
	return 0;
}

/* ---- asking ---- */

/*
 * The names that remain from rp's current component on, in the text that it stands in, joined behind `where`.
 * Stops before "..", and in a shared tree behind a mount point. Return: how many; *ret_all: that is the whole rest of the path.
 */
static unsigned add_names(struct gwalk *wk, struct gofer_where *where, bool *ret_all)
{
	struct resolving_path *rp = wk->rp;
	const char *name = rp_component(rp), *end;
	size_t len = rp_component_len(rp);
	struct remote_dentry *dir = wk->cur;
	unsigned count = 0;

	*ret_all = false;
	/* Behind the last component no text is left. */
	end = rp->nparts ? rp->parts[rp->nparts - 1].end : name + len;
	for (;;) {
		if (len > VFS_NAME_MAX || (len == 2 && name[0] == '.' && name[1] == '.'))
			break;
		if (!(len == 1 && name[0] == '.')) {
			if (where->len + len + 1 > P9_PATH_MAX)
				break;
			if (where->len)
				where->path[where->len++] = '/';
			memcpy(where->path + where->len, name, len);
			where->len += (uint16_t)len;
			count++;
			if (dir && wk->fs->shared) {
				rcu_read_begin();
				dir = remote_find_rcu(&wk->fs->dcache, dir, name, len);
				rcu_read_end();
				if (dir && (atomic_load(&dir->d.flags) & DENTRY_MAYBE_MOUNTPOINT))
					break;
			}
		}
		name += len;
		while (name < end && *name == '/')
			name++;
		if (name >= end) {
			*ret_all = rp->nparts <= 1;
			break;
		}
		len = 0;
		while (name + len < end && name[len] != '/')
			len++;
	}
	where->path[where->len] = '\0';
	return count;
}

/* The n-th component of what add_names() added. */
static const char *next_name(const char *p, size_t *ret_len)
{
	*ret_len = strcspn(p, "/");
	return p + *ret_len + (p[*ret_len] == '/');
}

/* Enters the reply's nodes below wk->cur. */
static int enter_nodes(struct gwalk *wk, const struct walk_reply *r, const char *names,
		       unsigned asked)
{
	struct remote_dentry *dir = remote_dentry_ref(wk->cur);
	unsigned i;
	int err = 0;

	for (i = 0; i < r->nodes.count && i < asked && !err; i++) {
		struct remote_dentry *child;
		const char *name = names;
		struct p9_node node;
		size_t len;

		names = next_name(names, &len);
		p9_nodes_get(&r->nodes, i, &node);
		if (!remote_is_dir(dir)) {
			err = -EIO;
			break;
		}
		err = gofer_cache_enter(wk->fs, dir, name, len, &node, &r->target, &child);
		if (err)
			break;
		remote_dentry_unref(dir);
		dir = child;
	}
	wk->fresh = i;
	if (!err && r->err && i < asked) {
		size_t len;

		(void)next_name(names, &len);
		wk->fail_dir = dir;
		wk->fail_err = r->err < 4096 ? -(int)r->err : -EIO;
		wk->fresh++;
		if (r->err == ENOENT)
			gofer_cache_enter_negative(wk->fs, dir, names, len);
		if (r->err == ENOENT && wk->fs->shared)
			gofer_cache_vanished(wk->fs, dir, names, len);
	}
	remote_dentry_unref(dir);
	return err;
}

/* Asks for the walk and, at its end, a descriptor. */
static void fill_open(struct p9_msg *t, const struct gofer_where *where, uint16_t skip,
		      const struct gofer_open_hint *hint)
{
	t->type = P9_Tmopen;
	t->Tmopen.fid = where->fid;
	t->Tmopen.newfid = P9_NOFID;
	t->Tmopen.want = P9_WANT_FD;
	t->Tmopen.flags = hint->write ? O_RDWR : O_RDONLY;
	t->Tmopen.skip = skip;
	t->Tmopen.path = gofer_where_path(where);
}

static void fill_walk(struct p9_msg *t, const struct gofer_where *where, uint16_t skip)
{
	t->type = P9_Tmwalk;
	t->Tmwalk.fid = where->fid;
	t->Tmwalk.newfid = P9_NOFID;
	t->Tmwalk.skip = skip;
	t->Tmwalk.path = gofer_where_path(where);
}

/* The common part; keeps a descriptor for the one who opens. */
static void read_reply(struct gwalk *wk, struct p9_call *call, unsigned asked,
		       struct walk_reply *ret)
{
	const struct p9_Rmopen *o = &call->r.Rmopen;
	struct p9_node last;

	if (call->r.type == P9_Rmwalk) {
		*ret = (struct walk_reply){call->r.Rmwalk.err, call->r.Rmwalk.nodes,
					   call->r.Rmwalk.target};
		return;
	}
	*ret = (struct walk_reply){o->err, o->nodes, o->target};
	/* The walk was complete, it only could not be opened: open(2) finds out why after its checks. */
	if (o->nodes.count == asked)
		ret->err = 0;
	if (call->fd < 0 || o->nodes.count != asked)
		return;
	if (wk->hint->fd >= 0)
		close(wk->hint->fd);
	p9_nodes_get(&o->nodes, asked - 1, &last);
	wk->hint->fd = call->fd;
	wk->hint->qid_path = last.qid.path;
	call->fd = -1;
}

static int ask(struct gwalk *wk)
{
	struct gofer_where where;
	struct walk_reply reply;
	struct p9_msg t = {0};
	struct p9_call call;
	size_t base_len;
	unsigned asked;
	uint16_t skip;
	bool all;
	int err;

	err = gofer_where(wk->cur, &where);
	if (err)
		return err;
	base_len = where.len;
	skip = where.depth;
	asked = add_names(wk, &where, &all);
	if (!asked)
		return -ENAMETOOLONG;
	if (wk->hint && all)
		fill_open(&t, &where, skip, wk->hint);
	else
		fill_walk(&t, &where, skip);
	err = p9_rpc(wk->fs->conn, &call, &t);
	if (err)
		return err;
	wk->fail_dir = NULL;
	read_reply(wk, &call, asked, &reply);
	if (!reply.nodes.count && !reply.err)
		err = -EIO;
	else
		err = enter_nodes(wk, &reply, where.path + base_len + (base_len != 0), asked);
	p9_call_fini(&call);
	return err;
}

/* A shared tree's starting point: its attributes anew. */
static int refresh(struct gofer_fs *fs, struct remote_dentry *d)
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

/* ---- stepping ---- */

static int find_child(struct gwalk *wk, struct remote_dentry **ret)
{
	const char *name = rp_component(wk->rp);
	size_t len = rp_component_len(wk->rp);

	for (unsigned i = 0; i < WALK_TRIES; i++) {
		bool believe = !wk->fs->shared || wk->fresh;
		struct remote_dentry *d = NULL;
		bool negative = false;
		int err;

		if (believe)
			d = gofer_cache_find(wk->fs, wk->cur, name, len, &negative);
		if (d || negative || (wk->fail_dir == wk->cur && wk->fail_err && believe)) {
			if (wk->fresh)
				wk->fresh--;
			*ret = d;
			return d ? 0 : negative ? -ENOENT : wk->fail_err;
		}
		err = ask(wk);
		if (err)
			return err;
	}
	return -EIO;
}

static void step_to(struct gwalk *wk, struct remote_dentry *d)
{
	remote_dentry_unref(wk->cur);
	wk->cur = d;
}

static int follow(struct gwalk *wk, struct remote_dentry *link)
{
	struct perm_inode dir, pi;
	int err;

	gofer_inode_perm(gofer_inode_of(wk->cur), &dir);
	gofer_inode_perm(gofer_inode_of(link), &pi);
	err = vfs_may_follow_link(rp_cred(wk->rp), &dir, &pi);
	if (err)
		return err;
	wk->fresh = 0;
	return rp_follow_symlink(wk->rp, gofer_inode_of(link)->target,
				 gofer_inode_of(link)->target_len);
}

static int step(struct gwalk *wk)
{
	struct remote_dentry *child;
	/* ".." from the root of a mount: what covers cur was searched, not cur. */
	int err = wk->rp->climbing ? 0 : remote_check_dir(&wk->fs->dcache, wk->rp, wk->cur);

	if (err)
		return err;
	if (rp_is_dotdot(wk->rp)) {
		wk->fresh = 0;
		return remote_step_up(wk->rp, &wk->cur);
	}
	err = rp_check_name(wk->rp);
	if (err && remote_is_dead(wk->cur))
		err = -ENOENT;
	if (!err)
		err = find_child(wk, &child);
	if (err)
		return err;
	err = rp_check_mount(wk->rp, &child->d);
	if (!err && child->inode->type == S_IFLNK && rp_should_follow(wk->rp)) {
		err = follow(wk, child);
	} else if (!err) {
		rp_advance(wk->rp);
		step_to(wk, child);
		return 0;
	}
	remote_dentry_unref(child);
	return err;
}

static int walk(struct gofer_fs *fs, struct resolving_path *rp, bool to_parent,
		struct gofer_open_hint *hint, struct remote_dentry **ret)
{
	struct gwalk wk = {.fs = fs, .rp = rp, .hint = hint};
	int err = 0;

	wk.cur = remote_dentry_ref(remote_dentry_of(rp_start(rp)));
	if (fs->shared)
		err = refresh(fs, wk.cur);
	while (!err && !rp_done(rp) && !(to_parent && rp_final(rp)))
		err = step(&wk);
	if (!err)
		err = remote_walk_finish(&fs->dcache, rp, wk.cur, to_parent);
	if (err) {
		remote_dentry_unref(wk.cur);
		return err;
	}
	rp->place = &wk.cur->d;
	*ret = wk.cur;
	return 0;
}

int gofer_walk(struct gofer_fs *fs, struct resolving_path *rp, bool to_parent,
	       struct remote_dentry **ret)
{
	return walk(fs, rp, to_parent, NULL, ret);
}

int gofer_walk_open(struct gofer_fs *fs, struct resolving_path *rp, struct gofer_open_hint *hint,
		    struct remote_dentry **ret)
{
	return walk(fs, rp, false, hint, ret);
}

int gofer_lookup(struct gofer_fs *fs, struct remote_dentry *dir, const char *name, size_t len,
		 struct remote_dentry **ret)
{
	struct p9_msg t = {.type = P9_Tmwalk};
	struct gofer_where where;
	struct p9_call call;
	struct p9_node node;
	bool negative = false;
	int err;

	*ret = NULL;
	if (!fs->shared)
		*ret = gofer_cache_find(fs, dir, name, len, &negative);
	if (*ret || negative)
		return *ret ? 0 : -ENOENT;
	err = gofer_where_child(dir, name, len, &where);
	if (err)
		return err;
	t.Tmwalk.fid = where.fid;
	t.Tmwalk.newfid = P9_NOFID;
	t.Tmwalk.skip = (uint16_t)(where.depth - 1);
	t.Tmwalk.path = gofer_where_path(&where);
	err = p9_rpc(fs->conn, &call, &t);
	if (err)
		return err;
	if (call.r.Rmwalk.nodes.count) {
		p9_nodes_get(&call.r.Rmwalk.nodes, 0, &node);
		err = gofer_cache_enter(fs, dir, name, len, &node, &call.r.Rmwalk.target, ret);
	} else {
		err = call.r.Rmwalk.err && call.r.Rmwalk.err < 4096 ? -(int)call.r.Rmwalk.err
								    : -EIO;
		if (err == -ENOENT)
			gofer_cache_enter_negative(fs, dir, name, len);
	}
	p9_call_fini(&call);
	return err;
}
