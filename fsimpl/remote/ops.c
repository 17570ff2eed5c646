/* fsimpl/remote/ops.c - see ops.h. */
#include "fsimpl/remote/ops.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vfs/inotify.h"

/* ---- walking ---- */

int remote_check_dir(struct remote_dcache *c, struct resolving_path *rp,
		     const struct remote_dentry *d)
{
	struct perm_inode pi;
	int err;

	if (!remote_is_dir(d))
		return -ENOTDIR;
	rcu_read_begin();
	c->inode_perm(d->inode, &pi);
	err = vfs_permission(rp_cred(rp), &pi, X_OK);
	rcu_read_end();
	return err;
}

int remote_walk_finish(struct remote_dcache *c, struct resolving_path *rp,
		       const struct remote_dentry *cur, bool to_parent)
{
	if (to_parent)
		return rp_done(rp) ? 0 : remote_check_dir(c, rp, cur);
	if (rp_must_dir(rp) && !remote_is_dir(cur))
		return -ENOTDIR;
	return rp->final_dot ? remote_check_dir(c, rp, cur) : 0;
}

int remote_step_up(struct resolving_path *rp, struct remote_dentry **inout_cur)
{
	struct remote_dentry *cur = *inout_cur, *parent;
	int err = rp_check_root(rp, &cur->d);

	if (err && err != RP_STAY)
		return err;
	parent = remote_parent(cur);
	if (err == 0 && parent) {
		err = rp_check_mount(rp, &parent->d);
		if (err)
			return err;
		*inout_cur = remote_dentry_ref(parent);
		remote_dentry_unref(cur);
	}
	rp_advance(rp);
	return 0;
}

int remote_access(struct resolving_path *rp, const struct perm_inode *pi, int mask)
{
	int err;

	/* A no-exec mount refuses X_OK on files; a read-only one W_OK on what is stored there. */
	if ((mask & X_OK) && S_ISREG(pi->mode) &&
	    (atomic_load_explicit(&rp_mount(rp)->flags, memory_order_relaxed) & MNT_NOEXEC_F))
		return -EACCES;
	err = vfs_permission(rp_cred(rp), pi, mask);
	if (!err && (mask & W_OK) && (S_ISREG(pi->mode) || S_ISDIR(pi->mode) || S_ISLNK(pi->mode)))
		err = rp_begin_write(rp);
	return err;
}

/* ---- rename ---- */

int remote_rename_names(struct remote_renaming *r)
{
	int err = remote_is_dead(r->newdir) ? -ENOENT : rp_check_name(r->rp);

	if (err)
		return err;
	r->new_len = rp_component_len(r->rp);
	memcpy(r->new_name, rp_component(r->rp), r->new_len);
	r->new_name[r->new_len] = '\0';
	return 0;
}

static bool is_below(const struct remote_dentry *d, const struct remote_dentry *top)
{
	for (; d; d = remote_parent(d))
		if (d == top)
			return true;
	return false;
}

int remote_rename_shape(const struct remote_renaming *r)
{
	bool exchange = r->flags & REMOTE_RENAME_EXCHANGE;

	if ((r->flags & REMOTE_RENAME_NOREPLACE) && r->new_)
		return -EEXIST;
	if (exchange && !r->new_)
		return -ENOENT;
	if (exchange && !remote_is_dir(r->new_) && r->rp->trailing_slash)
		return -ENOTDIR;
	if (!remote_is_dir(r->old) && (r->old_must_be_dir || (!exchange && r->rp->trailing_slash)))
		return -ENOTDIR;
	if (is_below(r->newdir, r->old))
		return -EINVAL;
	if (r->new_ && is_below(r->olddir, r->new_))
		return exchange ? -EINVAL : -ENOTEMPTY;
	return 0;
}

/* In a read section, which keeps ACLs. */
static int rename_rights(const struct remote_renaming *r)
{
	bool exchange = r->flags & REMOTE_RENAME_EXCHANGE, moves = r->olddir != r->newdir;
	const struct cred *cred = rp_cred(r->rp);
	struct perm_inode olddir, newdir, old, new_;
	int err;

	r->c->inode_perm(r->olddir->inode, &olddir);
	r->c->inode_perm(r->newdir->inode, &newdir);
	r->c->inode_perm(r->old->inode, &old);
	err = vfs_may_delete(cred, &olddir, &old, remote_is_dir(r->old));
	if (err)
		return err;
	if (!r->new_) {
		err = remote_is_dead(r->newdir) ? -ENOENT
						: vfs_permission(cred, &newdir, W_OK | X_OK);
	} else {
		r->c->inode_perm(r->new_->inode, &new_);
		err = vfs_may_delete(cred, &newdir, &new_,
				     remote_is_dir(exchange ? r->new_ : r->old));
	}
	/* Its ".." changes. */
	if (!err && moves && remote_is_dir(r->old))
		err = vfs_permission(cred, &old, W_OK);
	if (!err && moves && exchange && remote_is_dir(r->new_))
		err = vfs_permission(cred, &new_, W_OK);
	return err;
}

int remote_rename_rights(const struct remote_renaming *r)
{
	int err;

	rcu_read_begin();
	err = rename_rights(r);
	rcu_read_end();
	if (!err)
		err = vfs_dentry_delete_begin(r->rp, &r->old->d);
	if (!err && r->new_)
		err = vfs_dentry_delete_begin(r->rp, &r->new_->d);
	return err;
}

void remote_rename_notify(const struct remote_renaming *r, bool is_dir)
{
	bool exchange = r->flags & REMOTE_RENAME_EXCHANGE;
	const struct vfs_moved m = {.from_dir = &r->olddir->d,
				    .to_dir = &r->newdir->d,
				    .from = r->old_name,
				    .from_len = r->old_len,
				    .to = r->new_name,
				    .to_len = r->new_len,
				    .d = r->old ? &r->old->d : NULL,
				    .replaced = r->new_ && !exchange ? &r->new_->d : NULL,
				    .exchanged = r->new_ && exchange ? &r->new_->d : NULL,
				    .isdir = is_dir};

	if (m.replaced && is_dir)
		remote_watched_gone(r->c, r->new_);
	vfs_notify_moved(&m);
}

void remote_rename_fini(struct remote_renaming *r)
{
	remote_dentry_unref(r->new_);
	remote_dentry_unref(r->old);
	remote_dentry_unref(r->newdir);
}

/* ---- files ---- */

static void path_file_free_rcu(struct rcu_cb *cb)
{
	free(container_of(cb, struct file, rcu));
}

static void path_file_release(struct file *f)
{
	file_fini(f);
	rcu_call(&f->rcu, path_file_free_rcu);
}

static const struct file_ops path_file_ops = {
	.release = path_file_release,
};

int remote_path_file_create(struct resolving_path *rp, struct remote_dentry *d, unsigned flags,
			    struct file **ret)
{
	struct file *f = calloc(1, sizeof(*f));
	struct vfs_path place;

	if (!f)
		return -ENOMEM;
	rp_place(rp, &d->d, &place);
	file_init(f, &path_file_ops, &place, flags, 0);
	*ret = f;
	return 0;
}
