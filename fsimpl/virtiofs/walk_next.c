/*
 * fsimpl/virtiofs/walk_next.c - a walk's LOOKUPs, each sent as soon as the number of the node is known that it goes to.
 *
 * With a daemon that has no request for walks, a path of which nothing is known is a row of LOOKUPs. Of the answer before, the next one needs the node's
 * number and nothing else: so it is sent before the client makes an inode and a dentry of that answer, and the daemon, which would go to sleep meanwhile,
 * has work. An answer that comes for nothing (something is mounted there, the name behind it is known after all) is forgotten again.
 *
 * Sent ahead is what everybody may look for in that directory, or this caller anywhere: by the time that a refusal takes nobody is to learn what is in it.
 */
#include <linux/capability.h>

#include "fsimpl/remote/rest.h"
#include "fsimpl/virtiofs/internal.h"

/* The name behind the current one, if it is to be asked for next; but for its node. While the current one is under way. */
static bool find_next(const struct virtiofs_walk *wk, struct virtiofs_name *ret)
{
	struct virtiofs_clock clock = {0};
	struct remote_rest rest;
	bool found;

	rcu_read_begin();
	remote_rest_begin(&rest, &wk->fs->dcache, wk->cur, wk->rp);
	/* Behind what may be a mount point there is none. */
	found = remote_rest_next(&rest) && remote_rest_next(&rest);
	if (found && rest.dir)
		found = !virtiofs_time_holds(
			atomic_load_explicit(&rest.dir->valid_until, memory_order_relaxed), &clock);
	*ret = (struct virtiofs_name){
		.name = rest.name, .len = rest.len, .more = !rest.last || wk->hint};
	/* What is made or removed in a directory is not looked for. */
	if (found && wk->to_parent)
		found = remote_rest_next(&rest);
	rcu_read_end();
	return found;
}

static bool may_look_into(const struct virtiofs_walk *wk, const struct fuse_attr *attr)
{
	const struct cred *cred = rp_cred(wk->rp);

	if (!S_ISDIR(attr->mode) || (attr->flags & FUSE_ATTR_SUBMOUNT))
		return false;
	if (cred_has_cap(cred, CAP_DAC_OVERRIDE) || cred_has_cap(cred, CAP_DAC_READ_SEARCH))
		return true;
	/* An ACL may say less than the mode. */
	return (attr->mode & 0111) == 0111 && !(wk->fs->init_flags & FUSE_POSIX_ACL);
}

/* It needs no place that others could wait for: without one it is sent when its turn comes. */
static void send_next(struct virtiofs_walk *wk, const struct virtiofs_name *n)
{
	unsigned cost = vdev_ahead_take(wk->fs->dev, 0);

	if (!cost)
		return;
	if (virtiofs_lookup_begin(wk->fs, n, false, &wk->next)) {
		vdev_ahead_give(wk->fs->dev, cost);
		return;
	}
	wk->next_cost = cost;
	wk->next_dir = n->dir;
	wk->next_name = n->name;
}

static int end_next(struct virtiofs_walk *wk, struct fuse_entry_out *ret)
{
	int err = virtiofs_lookup_end(&wk->next, ret);

	vdev_ahead_give(wk->fs->dev, wk->next_cost);
	wk->next_cost = 0;
	return err;
}

void virtiofs_walk_drop_next(struct virtiofs_walk *wk)
{
	struct fuse_entry_out e;

	if (wk->next_cost && end_next(wk, &e) == 0 && fuse_entry_ok(&e))
		virtiofs_forget(wk->fs, e.nodeid, 1);
}

int virtiofs_walk_lookup(struct virtiofs_walk *wk, struct remote_dentry **ret)
{
	const char *name = rp_component(wk->rp);
	const size_t len = rp_component_len(wk->rp);
	struct virtiofs_name n = {
		.dir = virtiofs_inode_of(wk->cur)->nodeid,
		.name = name,
		.len = len,
		.more = !rp_final(wk->rp) || wk->hint,
	};
	struct virtiofs_lookup l;
	struct fuse_entry_out e;
	bool next;
	int err;

	/* A daemon that knows walks is asked for single names only; one with versions is ours. */
	if ((wk->fs->init_flags & FUSE_HAS_MOAT_WALK) || wk->fs->versions)
		return virtiofs_lookup_ask(wk->fs, wk->cur, name, len, ret);
	if (wk->next_cost && (wk->next_dir != n.dir || wk->next_name != name))
		virtiofs_walk_drop_next(wk);
	if (!wk->next_cost) {
		err = virtiofs_lookup_begin(wk->fs, &n, true, &l);
		if (err)
			return err;
	}
	next = find_next(wk, &n);
	if (wk->next_cost) {
		l = wk->next;
		err = end_next(wk, &e);
	} else {
		err = virtiofs_lookup_end(&l, &e);
	}
	if (!err && next && fuse_entry_ok(&e) && may_look_into(wk, &e.attr)) {
		n.dir = e.nodeid;
		send_next(wk, &n);
	}
	if (err == -ENOENT)
		virtiofs_enter_negative(wk->fs, wk->cur, name, len, 0);
	return err ? err : virtiofs_enter(wk->fs, wk->cur, name, len, &e, l.when, ret);
}
