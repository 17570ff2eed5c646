/*
 * fsimpl/gofer/acl.c - POSIX ACLs: the host keeps them and inherits them, the guest's rights are checked here.
 *
 * A node says whether its file has an access ACL (the server looked, P9_WANT_ACL); only then is it asked for, and only when it could decide: not
 * for the owner, not for who may override, and not where the group's bits (which are the ACL's mask) are empty. It is kept with the
 * inode until a change of mode or ACL; in a shared tree until the next node.
 *
 * To look costs the server a host call a file, a third of what its listings take. So it is not asked to before somebody comes for whom an ACL could
 * decide (gofer_acl_wanted_by()), nor do containers ever ask in which all is root's. What was told without is asked for by file then, and
 * the third file of a directory asks for its entries once more.
 */
#include <errno.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>

#include "fsimpl/gofer/internal.h"

#define ACL_ACCESS "system.posix_acl_access"
#define ACL_DEFAULT "system.posix_acl_default"
#define ACL_SIZE_MAX 8192

/* Takes the reference. Pre: in->lock. */
static void set_locked(struct gofer_inode *in, struct vfs_acl *acl, enum gofer_acl_state state)
{
	struct vfs_acl *old = atomic_exchange_explicit(&in->acl, acl, memory_order_acq_rel);

	in->acl_state = state;
	vfs_acl_unref(old);
}

void gofer_acl_node_locked(struct gofer_inode *in, const struct p9_node *node)
{
	if (!(node->qid.type & P9_QTACL_ASKED)) {
		if (in->fs->shared)
			in->acl_state = GOFER_ACL_UNKNOWN;
	} else if (!(node->qid.type & P9_QTACL)) {
		set_locked(in, NULL, GOFER_ACL_KNOWN);
	} else if (in->fs->shared || !atomic_load_explicit(&in->acl, memory_order_relaxed)) {
		in->acl_state = GOFER_ACL_UNKNOWN;
	}
}

void gofer_acl_forget(struct gofer_inode *in)
{
	mutex_lock(&in->lock);
	in->acl_state = GOFER_ACL_UNKNOWN;
	mutex_unlock(&in->lock);
}

void gofer_acl_wanted_by(struct gofer_fs *fs, const struct cred *cred)
{
	if (unlikely(!atomic_load_explicit(&fs->acl_wanted, memory_order_relaxed)) &&
	    !cred_has_cap(cred, CAP_DAC_OVERRIDE))
		atomic_store_explicit(&fs->acl_wanted, true, memory_order_relaxed);
}

/* Asks. *ret: a reference, or NULL. Pre: tree_lock. */
static int fetch(struct gofer_fs *fs, struct remote_dentry *d, const char *name,
		 struct vfs_acl **ret)
{
	struct p9_msg t = {.type = P9_Tmgetxattr};
	const struct p9_Rmgetxattr *r;
	struct gofer_where where;
	struct p9_call call;
	int err = gofer_where(d, &where);

	*ret = NULL;
	if (err)
		return err;
	t.Tmgetxattr.fid = where.fid;
	t.Tmgetxattr.path = gofer_where_path(&where);
	t.Tmgetxattr.name = p9_str(name);
	t.Tmgetxattr.size = ACL_SIZE_MAX;
	err = p9_rpc(fs->conn, &call, &t);
	if (err == -ENODATA || err == -EOPNOTSUPP)
		return 0;
	if (err)
		return err;
	r = &call.r.Rmgetxattr;
	err = r->size == r->data.size ? vfs_acl_parse(r->data.data, r->data.size, ret) : -EIO;
	p9_call_fini(&call);
	return err == -ENOMEM ? err : err ? -EIO : 0;
}

/* Could an ACL, if there is one, decide? Pre: in->lock. */
static bool could_decide_locked(const struct gofer_inode *in)
{
	return in->base.type != S_IFLNK && (in->attr.mode & S_IRWXG);
}

bool gofer_acl_is_known_locked(const struct gofer_inode *in)
{
	return in->acl_state == GOFER_ACL_KNOWN || !could_decide_locked(in);
}

static bool is_known(struct gofer_inode *in)
{
	bool ret;

	mutex_lock(&in->lock);
	ret = gofer_acl_is_known_locked(in);
	mutex_unlock(&in->lock);
	return ret;
}

/* Of d nothing was told. For one of several in its directory all entries are asked for, once. Return: d's may be known now. */
static bool ask_around(struct gofer_fs *fs, struct remote_dentry *d)
{
	struct remote_dentry *dir = remote_parent(d);

	return dir && !fs->shared && !fs->conn->plain && !remote_is_dead(d) &&
	       atomic_fetch_add(&gofer_inode_of(dir)->acls_singly, 1) == GOFER_PREFETCH_AFTER &&
	       gofer_dir_ask(fs, dir);
}

int gofer_acl_load(struct remote_dentry *d)
{
	struct gofer_inode *in = gofer_inode_of(d);
	struct vfs_acl *acl;
	int err;

	if (is_known(in) || (ask_around(in->fs, d) && is_known(in)))
		return 0;
	err = fetch(in->fs, d, ACL_ACCESS, &acl);
	/* Gone meanwhile: whoever holds it open goes by the mode. */
	if (err == -ENOENT)
		return 0;
	if (err)
		return err;
	mutex_lock(&in->lock);
	set_locked(in, acl, GOFER_ACL_KNOWN);
	mutex_unlock(&in->lock);
	return 0;
}

int gofer_acl_ensure(const struct cred *cred, struct remote_dentry *d)
{
	struct gofer_inode *in = gofer_inode_of(d);
	bool known;

	if (cred_has_cap(cred, CAP_DAC_OVERRIDE))
		return 0;
	mutex_lock(&in->lock);
	known = gofer_acl_is_known_locked(in) || cred->fsuid == in->attr.uid;
	mutex_unlock(&in->lock);
	return known ? 0 : gofer_acl_load(d);
}

/* For a filesystem that stacks on this one. */
int gofer_get_acl(struct dentry *base, bool is_default, struct vfs_acl **ret)
{
	struct remote_dentry *d = remote_dentry_of(base);
	struct gofer_inode *in = gofer_inode_of(d);
	struct gofer_fs *fs = in->fs;
	int err;

	*ret = NULL;
	atomic_store_explicit(&fs->acl_wanted, true, memory_order_relaxed);
	err = rwlock_read_lock_killable(&fs->tree_lock);
	if (err)
		return err;
	err = is_default ? fetch(fs, d, ACL_DEFAULT, ret) : gofer_acl_load(d);
	rwlock_read_unlock(&fs->tree_lock);
	if (err || is_default)
		return err;
	mutex_lock(&in->lock);
	*ret = atomic_load_explicit(&in->acl, memory_order_relaxed);
	if (*ret)
		vfs_acl_ref(*ret);
	mutex_unlock(&in->lock);
	return 0;
}
