/*
 * fsimpl/synth/node.c - nodes: made by lookups, kept while referenced, found again by name in their directory's table of live children.
 *
 * A directory's table holds what is permanent, open, mounted on, or being walked right now. A node whose count
 * has reached zero may still be in it for a moment; lookups skip it by tryref.
 *
 * Permanent are the root and what a static table names below a permanent directory, if neither a visible() nor a revalidate() can take
 * it away: as many as the tables have rows, so they are never too many. The filesystem's own references on them go with it.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "fsimpl/synth/internal.h"

static const struct synth_node_ops no_ops;

static struct mutex *dir_lock_of(struct synth_node *n)
{
	return &synth_fs_of(n->dentry.fs)->lock;
}

uint64_t synth_ino(const struct synth_node *dir, const char *name, size_t len)
{
	/* Deterministic in one sandbox, and far from the small numbers that roots have. */
	return ((hash_bytes(name, len) ^ hash_u64(dir->ino)) & 0xffffffffull) | 0x10000000;
}

static int node_alloc(struct filesystem *fs, struct synth_node *dir, const char *name, size_t len,
		      uint32_t mode, const struct synth_node_ops *ops, void *priv,
		      struct synth_node **ret)
{
	struct synth_node *n;

	struct name *at;
	int err;

	if (len > VFS_NAME_MAX)
		return -ENAMETOOLONG;
	n = calloc(1, sizeof(*n));
	if (!n)
		return -ENOMEM;
	err = name_create(dir, name, len, &at);
	if (err) {
		free(n);
		return err;
	}
	dentry_init(&n->dentry, fs);
	atomic_init(&n->at.name, at);
	n->name = at->s;
	n->parent = dir;
	n->ops = ops ? ops : &no_ops;
	n->priv = priv;
	atomic_init(&n->mode, mode);
	n->ino = dir ? synth_ino(dir, name, len) : 1;
	atomic_init(&n->time_ns,
		    vfs_hooks.realtime_ns ? vfs_hooks.realtime_ns() : time_realtime_ns());
	n->name_len = (uint16_t)len;
	if (dir)
		dentry_ref(&dir->dentry);
	*ret = n;
	return 0;
}

int synth_node_create(struct synth_node *dir, const char *name, size_t len, uint32_t mode,
		      const struct synth_node_ops *ops, void *priv, struct synth_node **ret)
{
	return node_alloc(dir->dentry.fs, dir, name, len, mode, ops, priv, ret);
}

int synth_root_create(struct filesystem *fs, const struct synth_entry *root, void *priv,
		      struct synth_node **ret)
{
	int err = node_alloc(fs, NULL, "", 0, root->mode, root->ops, priv, ret);

	if (err)
		return err;
	(*ret)->children = root->children;
	/* A mount holds it, and each permanent child. */
	(*ret)->permanent = true;
	return 0;
}

static void node_free_cb(struct rcu_cb *cb)
{
	struct synth_node *n = container_of(cb, struct synth_node, rcu);

	free(name_of(&n->at));
	free(n);
}

void synth_dentry_release(struct dentry *d)
{
	struct synth_node *n = synth_node_of(d), *parent = n->parent;

	if (parent) {
		mutex_lock(dir_lock_of(n));
		names_remove(&parent->live, &n->at);
		mutex_unlock(dir_lock_of(n));
	}
	if (n->ops->destroy)
		n->ops->destroy(n);
	/* Its children are gone: each pinned it. */
	names_fini(&n->live);
	dentry_fini(d);
	rcu_call(&n->rcu, node_free_cb);
	if (parent)
		dentry_unref(&parent->dentry);
}

void synth_drop_permanent(struct synth_fs *fs)
{
	struct synth_node *n;

	for (;;) {
		mutex_lock(&fs->lock);
		n = SLIST_FIRST(&fs->permanent);
		if (n)
			SLIST_REMOVE_HEAD(&fs->permanent, kept);
		mutex_unlock(&fs->lock);
		if (!n)
			break;
		synth_node_unref(n);
	}
}

/* The live child of that name, referenced, or NULL. One that is on its way out leaves the table now. The filesystem's lock held. */
static struct synth_node *live_find_locked(struct synth_node *dir, const char *name, size_t len)
{
	uint32_t hash = vfs_name_hash(name, len);
	struct name_node *at;

	mutex_assert_held(dir_lock_of(dir));
	while ((at = names_find(&dir->live, dir, hash, name, len))) {
		struct synth_node *n = container_of(at, struct synth_node, at);

		if (ref_tryget(&n->dentry.ref))
			return n;
		names_remove(&dir->live, at);
	}
	return NULL;
}

const struct synth_entry *synth_find_entry(struct synth_node *dir, const char *name, size_t len)
{
	const struct synth_entry *e;

	for (e = dir->children; e && e->name; e++)
		if (!strncmp(e->name, name, len) && !e->name[len])
			return (!e->visible || e->visible(dir, e)) && !synth_leaves_out(dir, e)
				       ? e
				       : NULL;
	return NULL;
}

static int node_from_entry(struct synth_node *dir, const struct synth_entry *e,
			   struct synth_node **ret)
{
	int err = synth_node_create(dir, e->name, strlen(e->name), e->mode, e->ops, dir->priv, ret);

	if (err)
		return err;
	(*ret)->entry = e;
	(*ret)->children = e->children;
	(*ret)->permanent = dir->permanent && !e->visible && !(*ret)->ops->revalidate;
	return 0;
}

/* Out of the table: a later lookup asks the directory again. */
static void node_unhash(struct synth_node *n)
{
	bool was;

	path_change_begin(n->dentry.fs);
	dentry_path_changed(&n->dentry);
	mutex_lock(dir_lock_of(n));
	was = n->at.linked;
	if (was)
		names_remove(&n->parent->live, &n->at);
	mutex_unlock(dir_lock_of(n));
	path_change_end(n->dentry.fs);
	if (was)
		vfs_dentry_delete_end(&n->dentry);
}

void synth_node_forget(struct synth_node *n)
{
	node_unhash(n);
	vfs_run_deferred();
}

/* What a lookup found, by who may know of it. Takes n. */
static int lookup_found(struct synth_node *dir, struct synth_node *n, struct synth_node **ret)
{
	if (synth_leaves_out(dir, n->entry) || (n->ops->hidden && n->ops->hidden(n))) {
		synth_node_unref(n);
		return -ENOENT;
	}
	*ret = n;
	return 0;
}

int synth_lookup(struct synth_node *dir, const char *name, size_t len, struct synth_node **ret)
{
	const struct synth_entry *e;
	struct synth_node *n, *other;
	int err;

	if (atomic_load_explicit(&dir->dentry.flags, memory_order_relaxed) & DENTRY_DEAD)
		return -ENOENT;
	/* Reached by a descriptor, not by name: what it stands for may be gone all the same. */
	if (dir->ops->revalidate && !dir->ops->revalidate(dir))
		return -ENOENT;
	mutex_lock(dir_lock_of(dir));
	n = live_find_locked(dir, name, len);
	mutex_unlock(dir_lock_of(dir));
	if (n && (!n->ops->revalidate || n->ops->revalidate(n)))
		return lookup_found(dir, n, ret);
	if (n) {
		node_unhash(n);
		synth_node_unref(n);
	}
	e = synth_find_entry(dir, name, len);
	if (e)
		err = node_from_entry(dir, e, &n);
	else
		err = dir->ops->lookup ? dir->ops->lookup(dir, name, len, &n) : -ENOENT;
	if (err)
		return err;
	mutex_lock(dir_lock_of(dir));
	other = live_find_locked(dir, name, len);
	if (!other) {
		if (n->permanent) {
			dentry_ref(&n->dentry);
			SLIST_INSERT_HEAD(&synth_fs_of(dir->dentry.fs)->permanent, n, kept);
		}
		names_insert(&dir->live, &n->at);
	}
	mutex_unlock(dir_lock_of(dir));
	if (other) {
		synth_node_unref(n);
		n = other;
	}
	return lookup_found(dir, n, ret);
}

int synth_child(struct synth_node *dir, const char *name, struct synth_node **ret)
{
	return synth_lookup(dir, name, strlen(name), ret);
}

/* ---- attributes ---- */

int synth_getattr(struct synth_node *n, struct synth_attr *ret)
{
	int64_t ns = atomic_load_explicit(&n->time_ns, memory_order_relaxed);
	struct moat_timestamp t = {.sec = ns / 1000000000, .nsec = (uint32_t)(ns % 1000000000)};

	*ret = (struct synth_attr){
		.mode = atomic_load_explicit(&n->mode, memory_order_relaxed),
		.uid = atomic_load_explicit(&n->uid, memory_order_relaxed),
		.gid = atomic_load_explicit(&n->gid, memory_order_relaxed),
		.nlink = synth_is_dir(n) ? 2 : 1,
		.size = n->size,
		.rdev_major = n->rdev_major,
		.rdev_minor = n->rdev_minor,
		.atime = t,
		.mtime = t,
		.ctime = t,
	};
	if (S_ISDIR(ret->mode))
		for (const struct synth_entry *e = n->children; e && e->name; e++)
			if (S_ISDIR(e->mode))
				ret->nlink++;
	return n->ops->getattr ? n->ops->getattr(n, ret) : 0;
}

int synth_permission_default(struct synth_node *n, const struct cred *cred, int mask)
{
	struct synth_attr attr;
	struct perm_inode pi;
	int err;

	err = synth_getattr(n, &attr);
	if (err)
		return err == -ESRCH ? -ENOENT : err;
	pi = (struct perm_inode){.mode = attr.mode, .uid = attr.uid, .gid = attr.gid};
	return vfs_permission(cred, &pi, mask);
}

int synth_permission(struct synth_node *n, const struct cred *cred, int mask)
{
	return n->ops->permission ? n->ops->permission(n, cred, mask)
				  : synth_permission_default(n, cred, mask);
}

int synth_setattr_eperm(struct synth_node *n unused_arg, const struct setattr_args *args unused_arg)
{
	return -EPERM;
}

/* ---- parsing what was written ---- */

static size_t skip_space(const char *data, size_t size, size_t at)
{
	while (at < size && (isspace((unsigned char)data[at]) || !data[at]))
		at++;
	return at;
}

static int parse_digits(const char *data, size_t size, size_t at, uint64_t *ret)
{
	unsigned base = 10;
	uint64_t v = 0;
	size_t start;

	if (size - at > 2 && data[at] == '0' && (data[at + 1] | 0x20) == 'x') {
		base = 16;
		at += 2;
	} else if (size - at > 1 && data[at] == '0' && isdigit((unsigned char)data[at + 1])) {
		base = 8;
		at++;
	}
	for (start = at; at < size; at++) {
		unsigned c = (unsigned char)data[at], digit;

		if (c >= '0' && c <= '9')
			digit = c - '0';
		else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
			digit = (c | 0x20) - 'a' + 10;
		else
			break;
		if (digit >= base)
			return -EINVAL;
		if (__builtin_mul_overflow(v, base, &v) || __builtin_add_overflow(v, digit, &v))
			return -ERANGE;
	}
	if (at == start || skip_space(data, size, at) != size)
		return -EINVAL;
	*ret = v;
	return 0;
}

int synth_parse_u64(const char *data, size_t size, uint64_t max, uint64_t *ret)
{
	size_t at = skip_space(data, size, 0);
	uint64_t v;
	int err;

	if (at < size && data[at] == '+')
		at++;
	err = parse_digits(data, size, at, &v);
	if (err)
		return err;
	if (v > max)
		return -ERANGE;
	*ret = v;
	return 0;
}

int synth_parse_i64(const char *data, size_t size, int64_t min, int64_t max, int64_t *ret)
{
	size_t at = skip_space(data, size, 0);
	bool negative = at < size && data[at] == '-';
	uint64_t v;
	int64_t s;
	int err;

	if (at < size && (data[at] == '-' || data[at] == '+'))
		at++;
	err = parse_digits(data, size, at, &v);
	if (err)
		return err;
	if (v > (uint64_t)INT64_MAX + (negative ? 1 : 0))
		return -ERANGE;
	s = negative ? (int64_t)(0 - v) : (int64_t)v;
	if (s < min || s > max)
		return -ERANGE;
	*ret = s;
	return 0;
}
