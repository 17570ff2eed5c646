/* fsimpl/memfs/xattr.c - extended attributes: a short list per inode, and POSIX ACLs, which are kept parsed. */
#include <linux/capability.h>
#include <linux/xattr.h>
#include <stdlib.h>
#include <string.h>

#include "fsimpl/memfs/internal.h"

static struct vfs_acl *_Atomic *acl_slot(struct memfs_inode *i, const char *name)
{
	if (!strcmp(name, XATTR_NAME_POSIX_ACL_ACCESS))
		return &i->acl;
	return S_ISDIR(memfs_mode(i)) ? &((struct memfs_dir *)i)->default_acl : NULL;
}

static bool is_acl_name(const char *name)
{
	return !strcmp(name, XATTR_NAME_POSIX_ACL_ACCESS) ||
	       !strcmp(name, XATTR_NAME_POSIX_ACL_DEFAULT);
}

static struct memfs_xattr **find_locked(struct memfs_inode *i, const char *name)
{
	struct memfs_xattr **link = &i->xattrs;

	while (*link && strcmp((*link)->name, name))
		link = &(*link)->next;
	return link;
}

void memfs_xattrs_free(struct memfs_inode *i)
{
	struct memfs_xattr *x, *next;

	for (x = i->xattrs; x; x = next) {
		next = x->next;
		free(x);
	}
	i->xattrs = NULL;
}

/* set: what is to be set, or NULL. */
static int may_xattr(struct memfs_inode *i, const struct cred *cred, const char *name, bool write,
		     const struct xattr_args *set)
{
	struct perm_inode pi;
	int err;

	rcu_read_begin();
	pi = memfs_perm(i);
	err = set ? vfs_may_set_xattr(cred, &pi, set) : vfs_may_xattr(cred, &pi, name, write);
	rcu_read_end();
	return err;
}

/* A prefix alone names nothing. */
static int check_suffix(const char *name)
{
	const char *dot = strchr(name, '.');

	return dot && !dot[1] ? -EINVAL : 0;
}

static ssize_t get_acl_locked(struct memfs_inode *i, const struct xattr_args *args)
{
	struct vfs_acl *_Atomic *slot = acl_slot(i, args->name);
	struct vfs_acl *acl = slot ? atomic_load_explicit(slot, memory_order_relaxed) : NULL;

	return acl ? vfs_acl_format(acl, args->value, args->size) : -ENODATA;
}

ssize_t memfs_get_xattr_at(struct filesystem *fs unused_arg, struct resolving_path *rp,
			   const struct xattr_args *args)
{
	struct memfs_dentry *d;
	struct memfs_xattr *x;
	ssize_t ret;

	ret = memfs_resolve(rp, false, &d);
	if (!ret)
		ret = may_xattr(d->inode, rp_cred(rp), args->name, false, NULL);
	if (!ret)
		ret = check_suffix(args->name);
	if (ret)
		return ret;
	mutex_lock(&d->inode->lock);
	if (is_acl_name(args->name)) {
		ret = get_acl_locked(d->inode, args);
	} else if (!(x = *find_locked(d->inode, args->name))) {
		ret = -ENODATA;
	} else {
		ret = (ssize_t)x->size;
		if (args->size && args->size < x->size)
			ret = -ERANGE;
		else if (args->size)
			memcpy(args->value, x->value, x->size);
	}
	mutex_unlock(&d->inode->lock);
	return ret;
}

static void changed_locked(struct memfs_inode *i)
{
	seqcount_write_begin(&i->seq);
	atomic_store_explicit(&i->ctime, memfs_now(), memory_order_release);
	seqcount_write_end(&i->seq);
}

/* The new ACL (NULL: none) in its slot; takes the reference. */
static int set_acl(struct memfs_dentry *d, const struct cred *cred, const char *name,
		   struct vfs_acl *acl)
{
	struct memfs_inode *i = d->inode;
	struct vfs_acl *_Atomic *slot = acl_slot(i, name);
	struct vfs_acl *old;
	uint32_t mode;

	if (!slot) {
		vfs_acl_unref(acl);
		return acl ? -EACCES : 0;
	}
	path_change_begin(d->d.fs);
	memfs_paths_forget(d);
	mutex_lock(&i->lock);
	mode = memfs_mode(i);
	seqcount_write_begin(&i->seq);
	if (slot == &i->acl) {
		bool equivalent = acl && vfs_acl_to_mode(acl, &mode);

		/* Also when the ACL is taken away, as posix_acl_update_mode() does. */
		if (!cred_in_group(cred, atomic_load_explicit(&i->gid, memory_order_relaxed)) &&
		    !cred_has_cap(cred, CAP_FSETID))
			mode &= ~(uint32_t)S_ISGID;
		atomic_store_explicit(&i->mode, mode, memory_order_release);
		if (equivalent) {
			vfs_acl_unref(acl);
			acl = NULL;
		}
	}
	old = atomic_exchange_explicit(slot, acl, memory_order_acq_rel);
	atomic_store_explicit(&i->ctime, memfs_now(), memory_order_release);
	seqcount_write_end(&i->seq);
	mutex_unlock(&i->lock);
	vfs_acl_unref(old);
	path_change_end(d->d.fs);
	return 0;
}

static struct memfs_xattr *xattr_create(const struct xattr_args *args)
{
	size_t name_size = strlen(args->name) + 1;
	struct memfs_xattr *x = malloc(sizeof(*x) + name_size + args->size);

	if (!x)
		return NULL;
	memcpy(x->name, args->name, name_size);
	x->value = x->name + name_size;
	x->size = args->size;
	if (args->size)
		memcpy(x->value, args->value, args->size);
	return x;
}

static size_t total_size_locked(const struct memfs_inode *i)
{
	size_t total = 0;

	for (const struct memfs_xattr *x = i->xattrs; x; x = x->next)
		total += strlen(x->name) + 1 + x->size;
	return total;
}

static int set_plain(struct memfs_inode *i, const struct xattr_args *args)
{
	struct memfs_xattr *x = xattr_create(args), *old, **link;
	int err = 0;

	if (!x)
		return -ENOMEM;
	mutex_lock(&i->lock);
	link = find_locked(i, args->name);
	old = *link;
	if (old && (args->flags & XATTR_CREATE))
		err = -EEXIST;
	else if (!old && (args->flags & XATTR_REPLACE))
		err = -ENODATA;
	else if (total_size_locked(i) + args->size > MEMFS_XATTRS_SIZE_MAX)
		err = -ENOSPC;
	if (!err) {
		x->next = old ? old->next : NULL;
		*link = x;
		x = old;
		changed_locked(i);
	}
	mutex_unlock(&i->lock);
	free(x);
	return err;
}

/* A default ACL is a directory's: elsewhere none can be set, and taking it away is fine, whoever asks. */
static bool no_default_acl(struct memfs_inode *i, const char *name)
{
	return is_acl_name(name) && !S_ISLNK(memfs_mode(i)) && !acl_slot(i, name);
}

int memfs_set_xattr_at(struct filesystem *fs unused_arg, struct resolving_path *rp,
		       const struct xattr_args *args)
{
	struct memfs_dentry *d;
	struct vfs_acl *acl = NULL;
	int err;

	err = memfs_resolve(rp, false, &d);
	if (!err)
		err = rp_begin_write(rp);
	if (!err && is_acl_name(args->name) && args->size)
		err = vfs_acl_parse(args->value, args->size, &acl);
	if (!err && no_default_acl(d->inode, args->name)) {
		vfs_acl_unref(acl);
		return acl ? -EACCES : 0;
	}
	if (!err)
		err = may_xattr(d->inode, rp_cred(rp), args->name, true, args);
	if (!err)
		err = check_suffix(args->name);
	if (!err)
		err = vfs_acl_check(acl);
	if (err) {
		vfs_acl_unref(acl);
		return err;
	}
	err = is_acl_name(args->name) ? set_acl(d, rp_cred(rp), args->name, acl)
				      : set_plain(d->inode, args);
	if (!err)
		vfs_notify_attrib(&d->d);
	return err;
}

/* One name of the list; counts even when there is no buffer. */
static int list_add(const char *name, char *buf, size_t size, size_t *inout_len)
{
	size_t n = strlen(name) + 1;

	if (size) {
		if (*inout_len + n > size)
			return -ERANGE;
		memcpy(buf + *inout_len, name, n);
	}
	*inout_len += n;
	return 0;
}

ssize_t memfs_list_xattr_at(struct filesystem *fs unused_arg, struct resolving_path *rp, char *buf,
			    size_t size)
{
	static const char *const acl_names[] = {XATTR_NAME_POSIX_ACL_ACCESS,
						XATTR_NAME_POSIX_ACL_DEFAULT};
	struct memfs_dentry *d;
	size_t len = 0;
	int err;

	err = memfs_resolve(rp, false, &d);
	if (err)
		return err;
	mutex_lock(&d->inode->lock);
	for (unsigned i = 0; i < ARRAY_SIZE(acl_names) && !err; i++) {
		struct vfs_acl *_Atomic *slot = acl_slot(d->inode, acl_names[i]);

		if (slot && atomic_load_explicit(slot, memory_order_relaxed))
			err = list_add(acl_names[i], buf, size, &len);
	}
	for (struct memfs_xattr *x = d->inode->xattrs; x && !err; x = x->next) {
		if (!strncmp(x->name, XATTR_TRUSTED_PREFIX, XATTR_TRUSTED_PREFIX_LEN) &&
		    !cred_has_cap(rp_cred(rp), CAP_SYS_ADMIN))
			continue;
		err = list_add(x->name, buf, size, &len);
	}
	mutex_unlock(&d->inode->lock);
	return err ? err : (ssize_t)len;
}

int memfs_remove_xattr_at(struct filesystem *fs unused_arg, struct resolving_path *rp,
			  const char *name)
{
	struct memfs_xattr *x, **link;
	struct memfs_dentry *d;
	int err;

	err = memfs_resolve(rp, false, &d);
	if (!err)
		err = rp_begin_write(rp);
	if (!err && no_default_acl(d->inode, name))
		return 0;
	if (!err)
		err = may_xattr(d->inode, rp_cred(rp), name, true, NULL);
	if (!err)
		err = check_suffix(name);
	if (err)
		return err;
	if (is_acl_name(name)) {
		err = set_acl(d, rp_cred(rp), name, NULL);
		goto out_notify;
	}
	mutex_lock(&d->inode->lock);
	link = find_locked(d->inode, name);
	x = *link;
	if (x) {
		*link = x->next;
		changed_locked(d->inode);
	} else {
		err = -ENODATA;
	}
	mutex_unlock(&d->inode->lock);
	free(x);
out_notify:
	if (!err)
		vfs_notify_attrib(&d->d);
	return err;
}
