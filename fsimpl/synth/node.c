/*
 * fsimpl/synth/node.c - nodes: made by lookups, kept while referenced, found again by name in their directory's list of live children.
 *
 * A directory's live list is short: it holds what is open, mounted on, or being walked right now. A node whose count
 * has reached zero may still be on it for a moment; lookups skip it by tryref.
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

	if (len > VFS_NAME_MAX)
		return -ENAMETOOLONG;
	n = calloc(1, sizeof(*n) + len + 1);
	if (!n)
		return -ENOMEM;
	dentry_init(&n->dentry, fs);
	n->parent = dir;
	n->ops = ops ? ops : &no_ops;
	n->priv = priv;
	atomic_init(&n->mode, mode);
	n->ino = dir ? synth_ino(dir, name, len) : 1;
	atomic_init(&n->time_ns,
		    vfs_hooks.realtime_ns ? vfs_hooks.realtime_ns() : time_realtime_ns());
	LIST_INIT(&n->live);
	n->name_len = (uint16_t)len;
	memcpy(n->name, name, len);
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
	return 0;
}

static void node_free_cb(struct rcu_cb *cb)
{
	free(container_of(cb, struct synth_node, rcu));
}

void synth_dentry_release(struct dentry *d)
{
	struct synth_node *n = synth_node_of(d), *parent = n->parent;

	mutex_lock(dir_lock_of(n));
	if (n->hashed) {
		LIST_REMOVE(n, sibling);
		n->hashed = false;
	}
	mutex_unlock(dir_lock_of(n));
	if (n->ops->destroy)
		n->ops->destroy(n);
	dentry_fini(d);
	rcu_call(&n->rcu, node_free_cb);
	if (parent)
		dentry_unref(&parent->dentry);
}

static bool name_is(const struct synth_node *n, const char *name, size_t len)
{
	return n->name_len == len && !memcmp(n->name, name, len);
}

/* The live child of that name, referenced, or NULL. Directory lock held. */
static struct synth_node *live_find_locked(struct synth_node *dir, const char *name, size_t len)
{
	struct synth_node *n;

	LIST_FOREACH (n, &dir->live, sibling)
		if (name_is(n, name, len) && ref_tryget(&n->dentry.ref))
			return n;
	return NULL;
}

const struct synth_entry *synth_find_entry(struct synth_node *dir, const char *name, size_t len)
{
	const struct synth_entry *e;

	for (e = dir->children; e && e->name; e++)
		if (!strncmp(e->name, name, len) && !e->name[len])
			return !e->visible || e->visible(dir, e) ? e : NULL;
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
	return 0;
}

/* Out of the live list: a later lookup asks the directory again. */
static void node_unhash(struct synth_node *n)
{
	bool was;

	mutex_lock(dir_lock_of(n));
	was = n->hashed;
	if (was) {
		LIST_REMOVE(n, sibling);
		n->hashed = false;
	}
	mutex_unlock(dir_lock_of(n));
	if (was)
		vfs_dentry_delete_end(&n->dentry);
}

void synth_node_forget(struct synth_node *n)
{
	node_unhash(n);
	vfs_run_deferred();
}

void synth_dir_forget(struct synth_node *dir, const char *name, size_t len)
{
	struct synth_node *n;

	mutex_lock(dir_lock_of(dir));
	n = live_find_locked(dir, name, len);
	mutex_unlock(dir_lock_of(dir));
	if (!n)
		return;
	synth_node_forget(n);
	synth_node_unref(n);
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
	if (n && (!n->ops->revalidate || n->ops->revalidate(n))) {
		*ret = n;
		return 0;
	}
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
		LIST_INSERT_HEAD(&dir->live, n, sibling);
		n->hashed = true;
	}
	mutex_unlock(dir_lock_of(dir));
	if (other) {
		synth_node_unref(n);
		n = other;
	}
	*ret = n;
	return 0;
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
