/*
 * fsimpl/gofer/walk.c - walking a path: over cached dentries, and over what one request tells of the rest (ask.c).
 *
 * The walk steps through the cache. At the first component of which nothing is known, everything that remains of the path is asked for; the
 * reply's nodes are entered and the walk goes on over them, checking the guest's search permission on each as if it had always
 * been there.
 *
 * In a shared tree cached dentries are not believed: the request covers the whole path and the attributes of where it starts, and its
 * answer holds for this walk only.
 */
#include <string.h>
#include <unistd.h>

#include "fsimpl/gofer/walk.h"

#define WALK_TRIES 16 /* lookups of one name whose entry is evicted under us */

static int find_child(struct gwalk *wk, struct remote_dentry **ret)
{
	const char *name = rp_component(wk->rp);
	size_t len = rp_component_len(wk->rp);
	/* An operation's own request goes along with the walk. */
	bool single = !wk->hint && rp_final(wk->rp), asked = false;

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
			if (d && single && asked)
				atomic_fetch_add(&gofer_inode_of(wk->cur)->told_singly, 1);
			*ret = d;
			return d ? 0 : negative ? -ENOENT : wk->fail_err;
		}
		if (single && (gofer_light_lookup(wk->fs, wk->cur, name, len) ||
			       gofer_dir_prefetch(wk->fs, rp_cred(wk->rp), wk->cur)))
			continue;
		err = gofer_walk_ask(wk);
		if (err)
			return err;
		asked = true;
	}
	return -EIO;
}

/* A shared tree: the attributes of the place where the walk stands, and with them all that follows. */
static int freshen(struct gwalk *wk)
{
	struct resolving_path *rp = wk->rp;

	wk->stale = false;
	/* What is no directory has nothing below: its type does not change. */
	if (!rp_done(rp) && !remote_is_dir(wk->cur))
		return 0;
	if (!rp_done(rp) && !rp_is_dot(rp) && !rp_is_dotdot(rp) && !rp_check_name(rp))
		return gofer_walk_ask(wk);
	/* A plain server cannot be asked for what has no name: what is known stays. */
	if (wk->fs->conn->plain && remote_is_dead(wk->cur))
		return 0;
	return gofer_refresh(wk->fs, wk->cur);
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
	err = rp_trailing(wk->rp) ? vfs_may_follow_link(rp_cred(wk->rp), &dir, &pi) : 0;
	if (err)
		return err;
	wk->fresh = 0;
	return rp_follow_symlink(wk->rp, gofer_inode_of(link)->target,
				 gofer_inode_of(link)->target_len);
}

static int step(struct gwalk *wk)
{
	struct remote_dentry *child;
	int err = wk->stale ? freshen(wk) : 0;

	/* ".." from the root of a mount: what covers cur was searched, not cur. */
	if (!err && !wk->rp->climbing)
		err = gofer_acl_ensure(rp_cred(wk->rp), wk->cur);
	if (!err && !wk->rp->climbing)
		err = remote_check_dir(&wk->fs->dcache, wk->rp, wk->cur);
	if (err)
		return err;
	if (rp_is_dotdot(wk->rp)) {
		wk->fresh = 0;
		wk->stale = wk->fs->shared;
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

int gofer_walk(struct gofer_fs *fs, struct resolving_path *rp, bool to_parent,
	       struct gofer_hint *hint, struct remote_dentry **ret)
{
	struct gwalk wk = {.fs = fs, .rp = rp, .hint = hint, .stale = fs->shared};
	int err = 0;

	gofer_acl_wanted_by(fs, rp_cred(rp));
	wk.cur = remote_dentry_ref(remote_dentry_of(rp_start(rp)));
	while (!err && !rp_done(rp) && !(to_parent && rp_final(rp)))
		err = step(&wk);
	if (!err && wk.stale && !(hint && hint->lazy && gofer_may_all(rp)))
		err = freshen(&wk);
	if (!err)
		err = gofer_acl_ensure(rp_cred(rp), wk.cur);
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

void gofer_hint_fini(struct gofer_hint *h)
{
	if (h->fd >= 0)
		p9_fd_put(h->plain, h->fd);
	if (h->done && h->call)
		p9_call_fini(h->call);
	remote_dentry_unref(h->child);
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
	t.Tmwalk.want = gofer_acl_want(fs);
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
