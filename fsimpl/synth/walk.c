/*
 * fsimpl/synth/walk.c - walks through synthetic filesystems.
 *
 * Lock-free as far as it goes: live children are found in their directory's table under RCU, modes and owners are the nodes' own
 * fields, a name that a directory of nothing but a static table does not have is missing. A repeated path is found in the path cache: a
 * recording walk goes on through permanent nodes only (node.c), which nothing but the filesystem's end takes away, and a
 * directory's chmod or chown forgets all paths of its filesystem.
 *
 * Where a callback has to be asked, the walk takes references on where it stands and goes on from there. That is so for
 * the first walk to a node, for the text of symlinks and where magic links lead, and for everything below /proc/PID: which task a number
 * means, whether it still exists and who owns what is below it are the task table's to say, under its locks, at that moment; a cached
 * answer would have to be withdrawn by every exec, setuid and exit. What does not sleep may be asked on the way
 * (quick_revalidate: devpts).
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fsimpl/synth/internal.h"

/* A directory's missing name stays missing: what entries of the path cache compare. */
static const struct seqcount never_changes;

/* ---- lock-free ---- */

/* May the caller go through dir? 0, -ENOTDIR, -EACCES, SYNTH_ASK. */
static int may_search(const struct resolving_path *rp, const struct synth_node *dir)
{
	struct perm_inode pi = {.mode = atomic_load_explicit(&dir->mode, memory_order_relaxed)};

	if (!S_ISDIR(pi.mode))
		return -ENOTDIR;
	if (rp->climbing)
		return 0;
	if (dir->ops->permission || (dir->ops->getattr && !dir->ops->fixed_perm))
		return SYNTH_ASK;
	pi.uid = atomic_load_explicit(&dir->uid, memory_order_relaxed);
	pi.gid = atomic_load_explicit(&dir->gid, memory_order_relaxed);
	return vfs_permission(rp_cred(rp), &pi, X_OK);
}

static bool still_valid(struct synth_node *n)
{
	return !n->ops->revalidate || (n->ops->quick_revalidate && n->ops->revalidate(n));
}

/* No live child has the name. -ENOENT if the static table, which is all there is, does not know it either. */
static int look_missing(struct resolving_path *rp, struct synth_node *dir)
{
	if (!dir->permanent || dir->ops->lookup)
		return SYNTH_ASK;
	for (const struct synth_entry *e = dir->children; e && e->name; e++)
		if (e->visible || (!strncmp(e->name, rp_component(rp), rp_component_len(rp)) &&
				   !e->name[rp_component_len(rp)]))
			return SYNTH_ASK;
	if (rp->recording)
		path_record_miss(rp, &dir->dentry, &never_changes, 0);
	rp->recording = false;
	return -ENOENT;
}

static int step_up(struct resolving_path *rp, struct synth_node *n, struct synth_node **ret)
{
	int err;

	if (rp->recording)
		path_record_witness(rp, &n->dentry);
	err = rp_check_root(rp, &n->dentry);
	if (err)
		return err;
	/* No parent: the filesystem's root, reached through a mount of something below it. */
	*ret = n->parent ? n->parent : n;
	return 0;
}

/* One step down or up. 0 with *ret, RP_STAY, SYNTH_ASK (nothing was changed), a restart, -errno. */
static int step_quick(struct resolving_path *rp, struct synth_node *dir, struct synth_node **ret)
{
	struct synth_node *n;
	struct name_node *at;
	int err = may_search(rp, dir);

	if (!err)
		err = rp_check_name(rp);
	if (err)
		return err;
	if (rp_is_dotdot(rp))
		return step_up(rp, dir, ret);
	if ((atomic_load_explicit(&dir->dentry.flags, memory_order_relaxed) & DENTRY_DEAD) ||
	    !still_valid(dir))
		return SYNTH_ASK;
	at = names_find(&dir->live, dir, rp_component_hash(rp), rp_component(rp),
			rp_component_len(rp));
	if (!at)
		return look_missing(rp, dir);
	n = container_of(at, struct synth_node, at);
	if (!still_valid(n) || synth_leaves_out(dir, n->entry))
		return SYNTH_ASK;
	if (!n->permanent)
		rp->recording = false;
	*ret = n;
	return 0;
}

/* What is asked of the place itself. */
static int check_end(const struct resolving_path *rp, bool to_parent, const struct synth_node *n)
{
	if (to_parent)
		return rp_done(rp) ? 0 : may_search(rp, n);
	if (!rp_must_dir(rp))
		return 0;
	if (!synth_is_dir(n))
		return -ENOTDIR;
	return rp->final_dot ? may_search(rp, n) : 0;
}

int synth_walk_quick(struct resolving_path *rp, bool to_parent, struct synth_node **ret)
{
	struct synth_node *n = synth_node_of(rp_start(rp)), *child;
	int err;

	*ret = n;
	while (!rp_done(rp) && !(to_parent && rp_final(rp))) {
		err = step_quick(rp, n, &child);
		if (err == RP_STAY) {
			rp_advance(rp);
			continue;
		}
		if (err)
			return err;
		/* Before a mount is looked for, which may move the walk past the component. */
		if (synth_is_link(child) && rp_should_follow(rp))
			return SYNTH_ASK;
		err = rp_check_mount(rp, &child->dentry);
		if (err) {
			if (err == RP_RESTART_MOUNT && rp->recording)
				path_record_witness(rp, &child->dentry);
			return err;
		}
		rp_advance(rp);
		*ret = n = child;
	}
	err = check_end(rp, to_parent, n);
	if (err)
		return err;
	rp->place = &n->dentry;
	if (rp->recording)
		path_record_end(rp, &n->dentry);
	return 0;
}

int synth_settle(struct resolving_path *rp, struct synth_node *n)
{
	int err;

	rp->recording = false;
	err = rp_unlazy(rp, &n->dentry);
	if (!err)
		rp->start = &n->dentry;
	return err;
}

/* ---- in reference mode ---- */

static int permission_to_search(const struct resolving_path *rp, struct synth_node *dir)
{
	return rp->climbing ? 0 : synth_permission(dir, rp_cred(rp), X_OK);
}

/* The node at the current ".." or name below n. Return: 0 with a reference, RP_STAY, a restart, -errno. */
static int step(struct resolving_path *rp, struct synth_node *n, struct synth_node **ret)
{
	int err;

	if (!synth_is_dir(n))
		return -ENOTDIR;
	err = permission_to_search(rp, n);
	if (err)
		return err;
	err = rp_check_name(rp);
	if (err)
		return err;
	if (!rp_is_dotdot(rp))
		return synth_lookup(n, rp_component(rp), rp_component_len(rp), ret);
	err = step_up(rp, n, ret);
	if (!err)
		dentry_ref(&(*ret)->dentry);
	return err;
}

int synth_follow(struct resolving_path *rp, struct synth_node *link)
{
	struct vfs_path place;
	struct buf b;
	int err;

	if (link->ops->jump) {
		err = link->ops->jump(link, &place);
		return err ? err : rp_jump(rp, &place);
	}
	if (!link->ops->readlink)
		return -EINVAL;
	buf_init(&b, VFS_PATH_MAX);
	err = link->ops->readlink(link, &b);
	if (!err)
		err = buf_error(&b);
	if (!err)
		err = rp_follow_symlink(rp, b.len ? b.data : "", b.len);
	buf_fini(&b);
	return err;
}

int synth_walk_on(struct resolving_path *rp, bool to_parent, struct synth_node **ret)
{
	struct synth_node *n = synth_node_of(rp_start(rp)), *child;
	int err;

	dentry_ref(&n->dentry);
	while (!rp_done(rp) && !(to_parent && rp_final(rp))) {
		err = step(rp, n, &child);
		if (err == RP_STAY) {
			rp_advance(rp);
			continue;
		}
		if (err)
			goto out;
		err = rp_check_mount(rp, &child->dentry);
		if (err) {
			synth_node_unref(child);
			goto out;
		}
		if (synth_is_link(child) && rp_should_follow(rp)) {
			err = synth_follow(rp, child);
			synth_node_unref(child);
			if (err)
				goto out;
			continue;
		}
		rp_advance(rp);
		synth_node_unref(n);
		n = child;
	}
	err = 0;
	if (to_parent ? !synth_is_dir(n) : rp_must_dir(rp) && !synth_is_dir(n))
		err = -ENOTDIR;
	if (!err && (to_parent || rp->final_dot))
		err = permission_to_search(rp, n);
	if (!err) {
		rp->place = &n->dentry;
		*ret = n;
		return 0;
	}
out:
	synth_node_unref(n);
	return err;
}

int synth_walk(struct resolving_path *rp, bool to_parent, struct synth_node **ret)
{
	int err;

	if (!rp_locked(rp)) {
		err = synth_walk_quick(rp, to_parent, ret);
		if (err && err != SYNTH_ASK)
			return err;
		err = synth_settle(rp, *ret);
		if (err)
			return err;
	}
	/* What is left of it: nothing, after a quick walk to the end. */
	return synth_walk_on(rp, to_parent, ret);
}
