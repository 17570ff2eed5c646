/*
 * fsimpl/gofer/where.c - the way to a dentry for a request: a fid and a path below it.
 *
 * The fid is the root's, or that of a directory on the way that was given one because the path would not fit a request.
 */
#include <string.h>

#include "fsimpl/gofer/internal.h"

#define WHERE_MIN_ROOM (VFS_NAME_MAX + 2) /* kept free in a path for one more name */

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

bool gofer_where_known(struct remote_dentry *d, struct gofer_where *ret)
{
	struct remote_dentry *anchor;

	return build_where(d, ret, &anchor) == 0;
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
