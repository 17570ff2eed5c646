/*
 * fsimpl/virtiofs/quick.c - the walk without locks, references or requests: over what the cache knows and the mount's mode lets one believe.
 *
 * It runs in the VFS's RCU read section, which keeps dentries, keys and inodes, and gives up (VIRTIOFS_QUICK_ASK) at the first thing that it does not know
 * for sure: a name or attributes that have expired, a lock that somebody holds, an ACL. The walk goes on from there in reference mode (walk.c).
 * With versions each use is a load of the word; with time it is compared with a coarse clock, taken to be as late as it can be, so that nothing is believed
 * for longer than by the exact one. A rename that goes on meanwhile only makes names missed: what has not been there is told by
 * negative entries, never by a miss.
 *
 * Paths are not in the path cache (vfs/path_cache.h): what it knows of directories on the way would have to be told of changes, and nobody tells.
 */
#include <linux/capability.h>
#include <linux/fcntl.h>
#include <time.h>
#include <unistd.h>

#include "fsimpl/virtiofs/internal.h"

#define COARSE_NS_MAX 10000000ll /* how far the coarse clock may be behind: a tick at 100 Hz */

int64_t virtiofs_clock_read(bool coarse)
{
	struct timespec ts;

	if (!coarse)
		return time_monotonic_ns();
	clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	return ts.tv_sec * 1000000000ll + ts.tv_nsec + COARSE_NS_MAX;
}

struct quick {
	struct virtiofs_fs *fs;
	struct resolving_path *rp;
	struct virtiofs_clock clock;
	struct remote_dentry *cur;
};

/* Return: 0, -ENOTDIR, -EACCES, VIRTIOFS_QUICK_ASK. */
static int may_search(struct quick *q)
{
	const struct cred *cred = rp_cred(q->rp);
	struct perm_inode pi;

	if (unlikely(!remote_is_dir(q->cur)))
		return -ENOTDIR;
	/* Who may search everything is told by no attributes. */
	if (likely(cred_has_cap(cred, CAP_DAC_OVERRIDE) || cred_has_cap(cred, CAP_DAC_READ_SEARCH)))
		return 0;
	if (!virtiofs_peek_perm(virtiofs_inode_of(q->cur), &q->clock, &pi))
		return VIRTIOFS_QUICK_ASK;
	return vfs_permission(cred, &pi, X_OK);
}

static int step_up(struct quick *q)
{
	int err = rp_check_root(q->rp, &q->cur->d);
	struct remote_dentry *parent;

	if (err && err != RP_STAY)
		return err;
	parent = remote_parent(q->cur);
	if (!err && parent) {
		err = rp_check_mount(q->rp, &parent->d);
		if (err)
			return err;
		q->cur = parent;
	}
	rp_advance(q->rp);
	return 0;
}

static int follow(struct quick *q, struct remote_dentry *link)
{
	struct virtiofs_inode *in = virtiofs_inode_of(link);
	const char *target = NULL;
	size_t len = 0;

	/* What fs.protected_symlinks asks is about the last one. */
	if (rp_final(q->rp) || !mutex_trylock(&in->lock))
		return VIRTIOFS_QUICK_ASK;
	target = in->target;
	len = in->target_len;
	mutex_unlock(&in->lock);
	return target ? rp_follow_symlink(q->rp, target, len) : VIRTIOFS_QUICK_ASK;
}

static int step(struct quick *q)
{
	struct resolving_path *rp = q->rp;
	const char *name = rp_component(rp);
	size_t len = rp_component_len(rp);
	struct virtiofs_inode *dir;
	struct remote_dentry *child;
	/* ".." from the root of a mount: what covers cur was searched, not cur. */
	int err = rp->climbing ? 0 : may_search(q);

	if (unlikely(err))
		return err;
	if (unlikely(rp_is_dotdot(rp)))
		return step_up(q);
	if (unlikely(len > VFS_NAME_MAX))
		return VIRTIOFS_QUICK_ASK;
	child = remote_find_rcu(&q->fs->dcache, q->cur, name, len);
	dir = virtiofs_inode_of(q->cur);
	if (!child || !virtiofs_name_holds(q->fs, dir, name, len, child, &q->clock))
		return VIRTIOFS_QUICK_ASK;
	if (unlikely(atomic_load_explicit(&dir->list_count, memory_order_relaxed)))
		virtiofs_dir_looked_up(dir);
	if (!child->inode)
		return -ENOENT;
	err = unlikely(atomic_load_explicit(&child->d.flags, memory_order_acquire) &
		       (DENTRY_MAYBE_MOUNTPOINT | DENTRY_AUTOMOUNT))
		      ? rp_check_mount(rp, &child->d)
		      : 0;
	if (unlikely(err))
		return err;
	if (unlikely(child->inode->type == S_IFLNK) && rp_should_follow(rp))
		return follow(q, child);
	rp_advance(rp);
	q->cur = child;
	return 0;
}

static int check_end(struct quick *q, bool to_parent)
{
	struct resolving_path *rp = q->rp;

	if (to_parent && !rp_done(rp))
		return may_search(q);
	if (likely(!rp_must_dir(rp)))
		return 0;
	return !remote_is_dir(q->cur) ? -ENOTDIR : rp->final_dot ? may_search(q) : 0;
}

int virtiofs_quick_walk(struct virtiofs_fs *fs, struct resolving_path *rp, bool to_parent,
			struct virtiofs_clock *clock, struct remote_dentry **ret)
{
	struct quick q = {.fs = fs, .rp = rp, .clock = {.coarse = true}};
	int err = 0;

	q.cur = remote_dentry_of(rp_start(rp));
	if (unlikely(!virtiofs_device_alive(fs->dev)) ||
	    (fs->versions && !virtiofs_versions_settled(fs->versions)))
		err = VIRTIOFS_QUICK_ASK;
	while (!err && !rp_done(rp) && !(to_parent && rp_final(rp)))
		err = step(&q);
	if (!err)
		err = check_end(&q, to_parent);
	if (!err)
		rp->place = &q.cur->d;
	*clock = q.clock;
	*ret = q.cur;
	return err;
}

/* From a quick walk to references, where it stands. */
static int settle(struct resolving_path *rp, struct remote_dentry *d)
{
	int err = rp_unlazy(rp, &d->d);

	if (!err)
		rp->start = &d->d;
	return err;
}

int virtiofs_begin(struct virtiofs_fs *fs, struct resolving_path *rp, bool to_parent)
{
	struct virtiofs_clock clock;
	struct remote_dentry *d;

	if (!rp_locked(rp)) {
		int err = virtiofs_quick_walk(fs, rp, to_parent, &clock, &d);

		if (!err || err == VIRTIOFS_QUICK_ASK)
			err = settle(rp, d);
		if (err)
			return err;
	}
	virtiofs_device_await(fs->dev);
	return 0;
}

/* The walk to the end. *ret_known: it got there. Return: 0, and who does not know enough goes on with ask_from(); else the answer. */
static int walk_to_end(struct virtiofs_fs *fs, struct resolving_path *rp,
		       struct virtiofs_clock *clock, struct remote_dentry **ret, bool *ret_known)
{
	int err;

	if (rp_locked(rp))
		return VIRTIOFS_QUICK_ASK;
	err = virtiofs_quick_walk(fs, rp, false, clock, ret);
	*ret_known = !err;
	return err == VIRTIOFS_QUICK_ASK ? 0 : err;
}

/* The rest is the slow walk's. */
static int ask_from(struct resolving_path *rp, struct remote_dentry *d)
{
	int err = settle(rp, d);

	return err ? err : VIRTIOFS_QUICK_ASK;
}

int virtiofs_quick_stat(struct virtiofs_fs *fs, struct resolving_path *rp,
			const struct stat_args *args, struct moat_statx *ret)
{
	struct virtiofs_clock clock;
	struct remote_dentry *d;
	bool known;
	int err = walk_to_end(fs, rp, &clock, &d, &known);

	if (err)
		return err;
	if (known && !(args->flags & AT_STATX_FORCE_SYNC) &&
	    virtiofs_peek_stat(virtiofs_inode_of(d), &clock, ret))
		return 0;
	return ask_from(rp, d);
}

int virtiofs_quick_access(struct virtiofs_fs *fs, struct resolving_path *rp, int mask)
{
	struct virtiofs_clock clock;
	struct remote_dentry *d;
	struct perm_inode pi;
	bool known;
	int err = walk_to_end(fs, rp, &clock, &d, &known);

	if (err)
		return err;
	if (known && !(mask & W_OK) && virtiofs_peek_perm(virtiofs_inode_of(d), &clock, &pi))
		return remote_access(rp, &pi, mask);
	return ask_from(rp, d);
}
