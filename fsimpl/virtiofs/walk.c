/*
 * fsimpl/virtiofs/walk.c - walking a path: each component from the cache while it is to be believed, else by one LOOKUP.
 *
 * A LOOKUP's reply brings the child's attributes, so that a walk asks once a component and never for attributes besides, but for the place it
 * starts from, and for that only if the caller has no right to search everything. A node that changed under its name is another dentry.
 */
#include <stdlib.h>
#include <string.h>

#include <linux/capability.h>

#include "base/sleep.h"
#include "fsimpl/virtiofs/internal.h"

static bool believed(struct virtiofs_fs *fs, const struct virtiofs_inode *dir, const char *name,
		     size_t len, const struct remote_dentry *d)
{
	int64_t until = atomic_load_explicit(&d->valid_until, memory_order_relaxed);

	/* With versions it is the name's. */
	if (fs->versions)
		return dir->generation &&
		       virtiofs_version_holds(fs->versions,
					      version_name_key(dir->generation, name, len),
					      (uint64_t)until);

	return until == INT64_MAX || (until && until > time_monotonic_ns());
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
static void enter_negative(struct virtiofs_fs *fs, struct remote_dentry *dir, const char *name,
			   size_t len, int64_t until)
{
	struct remote_dentry *d;

	if (fs->options.cache == VIRTIOFS_CACHE_ALWAYS || fs->versions) {
		/* Failure to remember it is no error. */
		if (!remote_enter(&fs->dcache, dir, name, len, NULL, until, &d))
			remote_dentry_unref(d);
		return;
	}
	d = remote_find(&fs->dcache, dir, name, len);
	if (!d)
		return;
	remote_forget(&fs->dcache, d);
	if (d->inode)
		atomic_fetch_or(&d->d.flags, DENTRY_DEAD);
	remote_dentry_unref(d);
}

struct remote_dentry *virtiofs_believed(struct virtiofs_fs *fs, struct remote_dentry *dir,
					const char *name, size_t len)
{
	struct remote_dentry *d = remote_find(&fs->dcache, dir, name, len);

	virtiofs_dir_looked_up(virtiofs_inode_of(dir));
	if (!d || believed(fs, virtiofs_inode_of(dir), name, len, d))
		return d;
	remote_dentry_unref(d);
	return NULL;
}

int virtiofs_lookup(struct virtiofs_fs *fs, struct remote_dentry *dir, const char *name, size_t len,
		    struct remote_dentry **ret)
{
	struct remote_dentry *d = virtiofs_believed(fs, dir, name, len);
	int64_t until = INT64_MAX;
	struct virtiofs_when when;
	struct fuse_entry_out e;
	int err;

	if (d && d->inode) {
		*ret = d;
		return 0;
	}
	remote_dentry_unref(d);
	if (d)
		return -ENOENT;
	when = virtiofs_now(fs);
	/* An answer that there is nothing brings no version. */
	if (fs->versions)
		until = (int64_t)version_load(fs->versions->table,
					      version_name_key(virtiofs_inode_of(dir)->generation,
							       name, len));
	err = virtiofs_lookup_rpc(fs, virtiofs_inode_of(dir)->nodeid, name, len, &e);
	if (err == -ENOENT)
		enter_negative(fs, dir, name, len, until);
	return err ? err : virtiofs_enter(fs, dir, name, len, &e, when, ret);
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
	err = vfs_may_follow_link(rp_cred(rp), &dir_pi, &pi);
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

static int step(struct virtiofs_fs *fs, struct resolving_path *rp, int64_t since,
		struct remote_dentry **inout_cur)
{
	struct remote_dentry *cur = *inout_cur, *child;
	/* ".." from the root of a mount: what covers cur was searched, not cur. */
	int err = rp->climbing ? 0 : check_dir(fs, rp, cur, since);

	if (err)
		return err;
	if (rp_is_dotdot(rp))
		return remote_step_up(rp, inout_cur);
	err = rp_check_name(rp);
	if (err && remote_is_dead(cur))
		err = -ENOENT;
	if (!err)
		err = virtiofs_lookup(fs, cur, rp_component(rp), rp_component_len(rp), &child);
	if (err)
		return err;
	err = rp_check_mount(rp, &child->d);
	if (!err && child->inode->type == S_IFLNK && rp_should_follow(rp)) {
		err = virtiofs_follow(rp, cur, child);
	} else if (!err) {
		rp_advance(rp);
		*inout_cur = child;
		remote_dentry_unref(cur);
		return 0;
	}
	remote_dentry_unref(child);
	return err;
}

int virtiofs_walk(struct virtiofs_fs *fs, struct resolving_path *rp, bool to_parent, int64_t since,
		  struct remote_dentry **ret)
{
	struct remote_dentry *cur = remote_dentry_ref(remote_dentry_of(rp_start(rp)));
	int err = 0;

	virtiofs_versions_settle(fs->versions);
	while (!err && !rp_done(rp) && !(to_parent && rp_final(rp)))
		err = step(fs, rp, since, &cur);
	/* What the caller decides, it decides from attributes. No request but where the walk did not just bring them. */
	if (!err)
		err = virtiofs_inode_refresh_perm(virtiofs_inode_of(cur), since);
	if (!err)
		err = virtiofs_acl_ensure(rp_cred(rp), virtiofs_inode_of(cur));
	if (!err)
		err = remote_walk_finish(&fs->dcache, rp, cur, to_parent);
	if (err) {
		remote_dentry_unref(cur);
		return err;
	}
	rp->place = &cur->d;
	*ret = cur;
	return 0;
}
