/*
 * fsimpl/virtiofs/walk.c - walking a path: each component from the cache while it is to be believed, else by one LOOKUP, or by one request
 * for all that remains where the daemon has that (walk_ask.c).
 *
 * A reply brings the child's attributes, so that a walk asks once a component and never for attributes besides, but for the place it
 * starts from, and for that only if the caller has no right to search everything. A node that changed under its name is another dentry.
 */
#include <stdlib.h>
#include <string.h>

#include <linux/capability.h>

#include "base/sleep.h"
#include "fsimpl/virtiofs/internal.h"

bool virtiofs_name_holds(struct virtiofs_fs *fs, const struct virtiofs_inode *dir, const char *name,
			 size_t len, const struct remote_dentry *d, struct virtiofs_clock *c)
{
	int64_t until = atomic_load_explicit(&d->valid_until, memory_order_relaxed);
	uint64_t key;

	if (!fs->versions)
		return virtiofs_time_holds(until, c);
	/* With versions it is the name's. */
	key = atomic_load_explicit(&dir->generation, memory_order_relaxed);
	return key && virtiofs_version_holds(fs->versions, version_name_key(key, name, len),
					     (uint64_t)until);
}

int virtiofs_enter(struct virtiofs_fs *fs, struct remote_dentry *dir, const char *name, size_t len,
		   const struct fuse_entry_out *e, struct virtiofs_when when,
		   struct remote_dentry **ret)
{
	struct virtiofs_inode *in;
	int err = virtiofs_inode_get(fs, e, when, &in);

	if (err)
		return err;
	return remote_enter(&fs->dcache, dir, name, len, &in->base,
			    fs->versions
				    ? (int64_t)e->entry_valid
				    : virtiofs_valid_until(fs, e->entry_valid, e->entry_valid_nsec),
			    ret);
}

/* The name is not there. */
void virtiofs_enter_negative(struct virtiofs_fs *fs, struct remote_dentry *dir, const char *name,
			     size_t len, uint64_t version)
{
	int64_t until = fs->versions ? (int64_t)version : INT64_MAX;
	struct remote_dentry *d;

	if ((fs->options.cache == VIRTIOFS_CACHE_ALWAYS || fs->versions) && !remote_is_dead(dir)) {
		/* Failure to remember it is no error. In a directory that is gone it would only hold that. */
		if (!remote_enter(&fs->dcache, dir, name, len, NULL, until, &d))
			remote_dentry_unref(d);
		return;
	}
	d = remote_find(&fs->dcache, dir, name, len);
	if (!d)
		return;
	remote_forget(&fs->dcache, d);
	if (d->inode)
		remote_dentry_lost(d);
	remote_dentry_unref(d);
}

struct remote_dentry *virtiofs_believed(struct virtiofs_fs *fs, struct remote_dentry *dir,
					const char *name, size_t len)
{
	struct remote_dentry *d = remote_find(&fs->dcache, dir, name, len);
	struct virtiofs_clock clock = {0};

	virtiofs_dir_looked_up(virtiofs_inode_of(dir));
	if (!d || virtiofs_name_holds(fs, virtiofs_inode_of(dir), name, len, d, &clock))
		return d;
	remote_dentry_unref(d);
	return NULL;
}

int virtiofs_lookup_ask(struct virtiofs_fs *fs, struct remote_dentry *dir, const char *name,
			size_t len, struct remote_dentry **ret)
{
	const struct virtiofs_name n = {
		.dir = virtiofs_inode_of(dir)->nodeid, .name = name, .len = len};
	struct virtiofs_lookup l;
	struct fuse_entry_out e;
	uint64_t version = 0;
	int err;

	/* An answer that there is nothing brings no version. */
	if (fs->versions)
		version = version_load(fs->versions->table,
				       version_name_key(virtiofs_inode_of(dir)->generation, name,
							len));
	err = virtiofs_lookup_begin(fs, &n, true, &l);
	if (!err)
		err = virtiofs_lookup_end(&l, &e);
	if (err == -ENOENT)
		virtiofs_enter_negative(fs, dir, name, len, version);
	return err ? err : virtiofs_enter(fs, dir, name, len, &e, l.when, ret);
}

/* From the cache: 0 and a reference, -ENOENT; 1: it is to be asked for. */
static int lookup_cached(struct virtiofs_fs *fs, struct remote_dentry *dir, const char *name,
			 size_t len, struct remote_dentry **ret)
{
	struct remote_dentry *d = virtiofs_believed(fs, dir, name, len);

	if (d && d->inode) {
		*ret = d;
		return 0;
	}
	remote_dentry_unref(d);
	return d ? -ENOENT : 1;
}

int virtiofs_lookup(struct virtiofs_fs *fs, struct remote_dentry *dir, const char *name, size_t len,
		    struct remote_dentry **ret)
{
	int err = lookup_cached(fs, dir, name, len, ret);

	return err == 1 ? virtiofs_lookup_ask(fs, dir, name, len, ret) : err;
}

static int read_target(struct virtiofs_inode *in)
{
	struct vdev_call call = {.req = {.opcode = FUSE_READLINK, .nodeid = in->nodeid}};
	char buf[VDEV_REPLY_MAX], *copy;
	ssize_t len;

	call.reply = buf;
	call.reply_size = sizeof(buf);
	len = virtiofs_call(in->fs, &call);
	if (len < 0)
		return (int)len;
	if (!len || len >= VFS_PATH_MAX || memchr(buf, '\0', (size_t)len))
		return -EIO;
	copy = malloc((size_t)len + 1);
	if (!copy)
		return -ENOMEM;
	memcpy(copy, buf, (size_t)len);
	copy[len] = '\0';
	mutex_lock(&in->lock);
	if (!in->target) {
		in->target_len = (size_t)len;
		in->target = copy;
		copy = NULL;
	}
	mutex_unlock(&in->lock);
	free(copy);
	return 0;
}

/* A symlink's text never changes while it lives. */
int virtiofs_target(struct virtiofs_inode *in, const char **ret, size_t *ret_len)
{
	int err = 0;
	bool known;

	mutex_lock(&in->lock);
	known = in->target != NULL;
	mutex_unlock(&in->lock);
	if (!known)
		err = read_target(in);
	if (err)
		return err;
	mutex_lock(&in->lock);
	*ret = in->target;
	*ret_len = in->target_len;
	mutex_unlock(&in->lock);
	return 0;
}

int virtiofs_follow(struct resolving_path *rp, struct remote_dentry *dir,
		    struct remote_dentry *link)
{
	struct perm_inode dir_pi, pi;
	const char *target;
	size_t len;
	int err;

	virtiofs_inode_perm(virtiofs_inode_of(dir), &dir_pi);
	virtiofs_inode_perm(virtiofs_inode_of(link), &pi);
	err = rp_trailing(rp) ? vfs_may_follow_link(rp_cred(rp), &dir_pi, &pi) : 0;
	if (!err)
		err = virtiofs_target(virtiofs_inode_of(link), &target, &len);
	return err ? err : rp_follow_symlink(rp, target, len);
}

static int check_dir(struct virtiofs_fs *fs, struct resolving_path *rp, struct remote_dentry *d,
		     int64_t since)
{
	int err = 0;

	/* Who may search everything is told by no attributes. */
	if (remote_is_dir(d) && !cred_has_cap(rp_cred(rp), CAP_DAC_OVERRIDE) &&
	    !cred_has_cap(rp_cred(rp), CAP_DAC_READ_SEARCH))
		err = virtiofs_inode_refresh_perm(virtiofs_inode_of(d), since);
	if (!err)
		err = virtiofs_acl_ensure(rp_cred(rp), virtiofs_inode_of(d));
	return err ? err : remote_check_dir(&fs->dcache, rp, d);
}

/* The current name: from the last request, the cache, or a request. */
static int find_child(struct virtiofs_walk *wk, struct remote_dentry **ret)
{
	const char *name = rp_component(wk->rp);
	size_t len = rp_component_len(wk->rp);
	int err = virtiofs_walk_told(wk, ret);

	if (err == 1)
		err = lookup_cached(wk->fs, wk->cur, name, len, ret);
	if (err != 1) {
		virtiofs_walk_drop_next(wk);
		return err;
	}
	err = virtiofs_walk_ask(wk);
	if (!err)
		err = virtiofs_walk_told(wk, ret);
	return err == 1 ? virtiofs_walk_lookup(wk, ret) : err;
}

static int step(struct virtiofs_walk *wk)
{
	struct resolving_path *rp = wk->rp;
	struct remote_dentry *child;
	/* ".." from the root of a mount: what covers cur was searched, not cur. */
	int err = rp->climbing ? 0 : check_dir(wk->fs, rp, wk->cur, wk->since);

	if (err)
		return err;
	if (rp_is_dotdot(rp))
		return remote_step_up(rp, &wk->cur);
	err = rp_check_name(rp);
	if (err && remote_is_dead(wk->cur))
		err = -ENOENT;
	if (!err)
		err = find_child(wk, &child);
	if (err)
		return err;
	err = rp_check_mount(rp, &child->d);
	if (!err && child->inode->type == S_IFLNK && rp_should_follow(rp)) {
		err = virtiofs_follow(rp, wk->cur, child);
	} else if (!err) {
		rp_advance(rp);
		remote_dentry_unref(wk->cur);
		wk->cur = child;
		return 0;
	}
	remote_dentry_unref(child);
	return err;
}

int virtiofs_walk_hinted(struct virtiofs_fs *fs, struct resolving_path *rp, bool to_parent,
			 int64_t since, struct virtiofs_hint *hint, struct remote_dentry **ret)
{
	struct virtiofs_walk wk;
	struct virtiofs_inode *in;
	int err = 0;

	/* Not all of it: what it is told of is long. */
	wk.fs = fs;
	wk.rp = rp;
	wk.since = since;
	wk.hint = hint;
	wk.told_next = wk.told_count = 0;
	wk.fail_dir = NULL;
	wk.to_parent = to_parent;
	wk.next_cost = 0;
	wk.cur = remote_dentry_ref(remote_dentry_of(rp_start(rp)));
	virtiofs_versions_settle(fs->versions);
	while (!err && !rp_done(rp) && !(to_parent && rp_final(rp)))
		err = step(&wk);
	in = virtiofs_inode_of(wk.cur);
	if (!err && to_parent)
		err = virtiofs_walk_ask_last(&wk);
	/* What the caller decides, it decides from attributes. No request but where the walk did not just bring them. What is made is decided. */
	if (!err && !(hint && hint->created))
		err = virtiofs_inode_refresh_perm(in, since);
	if (!err)
		err = virtiofs_acl_ensure(rp_cred(rp), in);
	if (!err)
		err = remote_walk_finish(&fs->dcache, rp, wk.cur, to_parent);
	/* After that: of the directory's attributes, those that decide are as they were. */
	if (hint && hint->created)
		virtiofs_inode_touched(virtiofs_inode_of(remote_parent(hint->child)));
	virtiofs_walk_fini(&wk);
	if (err) {
		remote_dentry_unref(wk.cur);
		return err;
	}
	rp->place = &wk.cur->d;
	*ret = wk.cur;
	return 0;
}

int virtiofs_walk(struct virtiofs_fs *fs, struct resolving_path *rp, bool to_parent, int64_t since,
		  struct remote_dentry **ret)
{
	return virtiofs_walk_hinted(fs, rp, to_parent, since, NULL, ret);
}
