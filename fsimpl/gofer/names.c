/*
 * fsimpl/gofer/names.c - what the server said about names and files: entered in the dentry cache (fsimpl/remote/dcache.h) and the inode table.
 *
 * One gofer_inode stands for a host file, whatever its names: the table finds it by qid.path while anything uses it.
 */
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "fsimpl/gofer/internal.h"

struct remote_dentry *gofer_cache_find(struct gofer_fs *fs, struct remote_dentry *dir,
				       const char *name, size_t len, bool *ret_negative)
{
	struct remote_dentry *d = remote_find(&fs->dcache, dir, name, len);

	*ret_negative = d && !d->inode;
	if (!*ret_negative)
		return d;
	remote_dentry_unref(d);
	return NULL;
}

/* ---- the inode table ---- */

/* An inode number may come back with another type, or as a symlink to elsewhere. */
static bool is_same_file(const struct gofer_inode *in, const struct p9_node *node,
			 const struct p9_str *target)
{
	if (in->qid_path != node->qid.path || in->base.type != (node->mode & S_IFMT))
		return false;
	return in->base.type != S_IFLNK || !target ||
	       (in->target_len == target->len &&
		memcmp(in->target, target->data, target->len) == 0);
}

/* A reference, or NULL. Pre: inode_lock. */
static struct gofer_inode *table_find(struct gofer_fs *fs, unsigned bucket,
				      const struct p9_node *node, const struct p9_str *target)
{
	struct gofer_inode *in;

	LIST_FOREACH (in, &fs->inodes[bucket], hash_link)
		if (is_same_file(in, node, target) && ref_tryget(&in->base.ref))
			break;
	return in;
}

/* Where in its page one is differs from page to page: whoever chooses numbers cannot choose that many have one bucket. */
static unsigned bucket_of(uint64_t path)
{
	uint64_t place = hash_u64(path / GOFER_INODES_NEAR) ^ (path % GOFER_INODES_NEAR);

	return place % GOFER_INODE_BUCKETS;
}

/* The inode for a node: the one that is known, or a new one. A reference. */
static int inode_for(struct gofer_fs *fs, const struct p9_node *node, const struct p9_str *target,
		     struct gofer_inode **ret)
{
	unsigned b = bucket_of(node->qid.path);
	struct gofer_inode *in, *fresh;
	int err;

	mutex_lock(&fs->inode_lock);
	in = table_find(fs, b, node, target);
	mutex_unlock(&fs->inode_lock);
	if (in) {
		gofer_inode_update(in, node);
		*ret = in;
		return 0;
	}
	err = gofer_inode_create(fs, node, target, &fresh);
	if (err)
		return err;
	mutex_lock(&fs->inode_lock);
	in = table_find(fs, b, node, target);
	if (!in) {
		LIST_INSERT_HEAD(&fs->inodes[b], fresh, hash_link);
		fresh->hashed = true;
		in = fresh;
		fresh = NULL;
	}
	mutex_unlock(&fs->inode_lock);
	if (fresh)
		gofer_inode_unref(fresh);
	*ret = in;
	return 0;
}

void gofer_inode_unhash(struct gofer_inode *in)
{
	mutex_lock(&in->fs->inode_lock);
	if (in->hashed) {
		LIST_REMOVE(in, hash_link);
		in->hashed = false;
	}
	mutex_unlock(&in->fs->inode_lock);
}

/* ---- entering ---- */

int gofer_cache_enter(struct gofer_fs *fs, struct remote_dentry *dir, const char *name, size_t len,
		      const struct p9_node *node, const struct p9_str *target,
		      struct remote_dentry **ret)
{
	struct remote_dentry *d = remote_find(&fs->dcache, dir, name, len);
	struct gofer_inode *in;
	int err;

	/* What is known already costs no look into the table. */
	if (d && d->inode && is_same_file(gofer_inode_of(d), node, target)) {
		gofer_inode_update(gofer_inode_of(d), node);
		*ret = d;
		return 0;
	}
	remote_dentry_unref(d);
	err = inode_for(fs, node, target, &in);
	return err ? err : remote_enter(&fs->dcache, dir, name, len, &in->base, INT64_MAX, ret);
}

void gofer_cache_enter_negative(struct gofer_fs *fs, struct remote_dentry *dir, const char *name,
				size_t len)
{
	struct remote_dentry *d;

	/* In a directory that is gone it would only hold that. */
	if (!fs->shared && !remote_is_dead(dir) &&
	    !remote_enter(&fs->dcache, dir, name, len, NULL, INT64_MAX, &d))
		remote_dentry_unref(d);
}

void gofer_cache_vanished(struct gofer_fs *fs, struct remote_dentry *dir, const char *name,
			  size_t len)
{
	struct remote_dentry *d = remote_find(&fs->dcache, dir, name, len);

	if (!d)
		return;
	remote_forget(&fs->dcache, d);
	/* Open files keep it: by its old name another file might be reached. */
	atomic_fetch_or(&d->d.flags, DENTRY_DEAD);
	remote_dentry_unref(d);
}

void gofer_cache_remove(struct gofer_fs *fs, struct remote_dentry *d)
{
	const struct remote_key *key = rcu_load(d->key);

	remote_forget(&fs->dcache, d);
	gofer_cache_enter_negative(fs, key->parent, key->name, key->len);
}

int gofer_dentry_create_root(struct gofer_fs *fs, const struct p9_node *node)
{
	struct gofer_inode *in;
	int err = inode_for(fs, node, NULL, &in);

	if (err)
		return err;
	fs->root = remote_dentry_create(&fs->dcache, NULL, "", 0, &in->base);
	return fs->root ? 0 : -ENOMEM;
}

int gofer_dentry_create_unnamed(struct gofer_fs *fs, struct remote_dentry *dir,
				const struct p9_node *node, struct remote_dentry **ret)
{
	struct gofer_inode *in;
	char name[32];
	int err = inode_for(fs, node, NULL, &in);

	if (err)
		return err;
	/* Linux shows "#ino (deleted)". */
	snprintf(name, sizeof(name), "#%llu", (unsigned long long)node->qid.path);
	*ret = remote_dentry_create(&fs->dcache, dir, name, strlen(name), &in->base);
	return *ret ? 0 : -ENOMEM;
}
