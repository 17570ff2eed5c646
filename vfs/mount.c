/*
 * vfs/mount.c - mounts, the mount table, mount namespaces.
 *
 * A dentry is never replaced by what is mounted on it: a walk that steps on a dentry with DENTRY_MAYBE_MOUNTPOINT looks (current
 * mount, dentry) up in one hash table. The same dentry seen through two mounts (a bind, another namespace) is two keys, so
 * binds and namespaces are exact. A second table by dentry alone answers "is anything mounted on this?" when it is to be removed.
 *
 * Lookups run under RCU: chains are singly linked, entries leave by unlinking and are freed after a grace period. An
 * entry that moves between chains may make a reader miss; mount_seq tells it to look again.
 *
 * References: being attached is one reference, owned by the tree. A mount holds its root dentry and its filesystem until
 * a grace period after its last reference; those are then dropped by vfs_run_deferred() (they may sleep). An
 * attached mount holds its mount point dentry. The flag on a dentry is never cleared: a dentry that once was a mount
 * point pays one table lookup.
 *
 * Watch: /proc/PID/mountinfo; reference types "mount" and "mount namespace". Cannot do: locked mounts of user namespaces.
 */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "vfs/inotify.h"
#include "vfs/mount_internal.h"

#define MOUNT_BUCKETS 4096u

static REF_TYPE(mount_type, "mount");
static REF_TYPE(namespace_type, "mount namespace");

struct mutex mount_lock = MUTEX_INIT(LOCK_MOUNT, "mount table");
struct seqcount mount_seq;
_Atomic uint64_t vfs_mount_epoch = 1;

static struct mount *_Atomic mount_table[MOUNT_BUCKETS];
static struct mount *_Atomic point_table[MOUNT_BUCKETS];
static struct mount_list all_mounts =
	TAILQ_HEAD_INITIALIZER(all_mounts); /* guarded by mount_lock */
static int32_t mount_last_id =
	1; /* guarded by mount_lock; 1 is the parent of every namespace's root */
static uint64_t mount_last_unique =
	1ull << 31; /* guarded by mount_lock; above every mnt_id, as in Linux */
static _Atomic uint64_t namespace_last_id = 0xf0000000;
static uint64_t namespace_last_unique; /* guarded by mount_lock */
static TAILQ_HEAD(namespace_list, mount_namespace)
	all_namespaces = TAILQ_HEAD_INITIALIZER(all_namespaces); /* guarded by mount_lock */

struct mount_entry {
	struct mount mount;
	struct mount_private priv;
};

/* ---- the tables ---- */

static struct mount *_Atomic *mount_bucket(const struct mount *parent, const struct dentry *d)
{
	uint64_t key = ((uintptr_t)parent >> 5) * 0x9e3779b97f4a7c15ull + ((uintptr_t)d >> 4);

	key *= 0x9e3779b97f4a7c15ull;
	return &mount_table[key >> 52];
}

static struct mount *_Atomic *point_bucket(const struct dentry *d)
{
	return &point_table[((uintptr_t)d >> 4) * 0x9e3779b97f4a7c15ull >> 52];
}

struct mount *mount_lookup(struct mount *parent, struct dentry *d)
{
	struct mount *m;
	uint32_t seq;

	do {
		seq = seqcount_read_begin(&mount_seq);
		for (m = rcu_load(*mount_bucket(parent, d)); m; m = rcu_load(m->priv->hash_next))
			if (atomic_load_explicit(&m->parent, memory_order_acquire) == parent &&
			    atomic_load_explicit(&m->mountpoint, memory_order_acquire) == d)
				return m;
	} while (seqcount_read_retry_acquired(&mount_seq, seq));
	return NULL;
}

bool mount_dentry_is_mountpoint(struct mount_namespace *ns, struct dentry *d)
{
	bool found = false;
	struct mount *m;

	rcu_read_begin();
	for (m = rcu_load(*point_bucket(d)); m && !found; m = rcu_load(m->priv->point_next))
		found = atomic_load_explicit(&m->mountpoint, memory_order_acquire) == d &&
			atomic_load_explicit(&m->ns, memory_order_acquire) == ns;
	rcu_read_end();
	return found;
}

static void table_insert(struct mount *m, struct mount *parent, struct dentry *at)
{
	struct mount *_Atomic *bucket = mount_bucket(parent, at),
			      *_Atomic *point = point_bucket(at);

	rcu_store(m->parent, parent);
	rcu_store(m->mountpoint, at);
	rcu_store(m->priv->hash_next, atomic_load_explicit(bucket, memory_order_relaxed));
	rcu_store(m->priv->point_next, atomic_load_explicit(point, memory_order_relaxed));
	rcu_store(*bucket, m);
	rcu_store(*point, m);
}

static void table_remove(struct mount *m)
{
	struct mount *parent = atomic_load_explicit(&m->parent, memory_order_relaxed);
	struct dentry *at = atomic_load_explicit(&m->mountpoint, memory_order_relaxed);
	struct mount *_Atomic *link, *entry;

	for (link = mount_bucket(parent, at); (entry = rcu_load(*link)) != m;
	     link = &entry->priv->hash_next)
		assert(entry);
	rcu_store(*link, rcu_load(m->priv->hash_next));
	for (link = point_bucket(at); (entry = rcu_load(*link)) != m;
	     link = &entry->priv->point_next)
		assert(entry);
	rcu_store(*link, rcu_load(m->priv->point_next));
}

/* ---- trash ---- */

void mount_trash_init(struct mount_trash *t)
{
	t->entries = t->inline_entries;
	t->count = 0;
	t->alloc = TRASH_INLINE;
}

void mount_trash_add(struct mount_trash *t, struct mount *m, struct dentry *d)
{
	if (t->count == t->alloc) {
		size_t alloc = t->alloc * 2;
		struct mount_trash_entry *grown = malloc(alloc * sizeof(*grown));

		if (!grown) /* a leak is better than a use after free */
			return;
		memcpy(grown, t->entries, t->count * sizeof(*grown));
		if (t->entries != t->inline_entries)
			free(t->entries);
		t->entries = grown;
		t->alloc = alloc;
	}
	if (d)
		filesystem_ref(d->fs);
	t->entries[t->count++] =
		(struct mount_trash_entry){.mount = m, .dentry = d, .fs = d ? d->fs : NULL};
}

void mount_trash_empty(struct mount_trash *t)
{
	for (size_t i = 0; i < t->count; i++) {
		struct mount_trash_entry *e = &t->entries[i];

		dentry_unref(e->dentry);
		mount_unref(e->mount);
		if (e->fs)
			filesystem_unref(e->fs);
	}
	if (t->entries != t->inline_entries)
		free(t->entries);
	mount_trash_init(t);
}

/* ---- mounts ---- */

static bool has_parent(struct dentry *d)
{
	struct dentry *parent = NULL;
	char name[VFS_NAME_MAX + 1];

	(void)!d->fs->ops->get_parent(d, &parent, name, sizeof(name));
	if (parent)
		dentry_unref(parent); /* never the last: d holds one */
	return parent != NULL;
}

int mount_create_locked(struct filesystem *fs, struct dentry *root, unsigned flags,
			struct mount **ret)
{
	struct mount_entry *e = aligned_alloc(_Alignof(struct mount_entry), sizeof(*e));
	struct mount_private *p;

	if (!e)
		return -ENOMEM;
	memset(e, 0, sizeof(*e));
	p = &e->priv;
	p->mount = &e->mount;
	TAILQ_INIT(&p->children);
	LIST_INIT(&p->slaves);
	p->next_peer = p;
	p->base = PROP_PRIVATE;
	e->mount.priv = p;
	e->mount.fs = fs;
	e->mount.root = root;
	e->mount.partial = has_parent(root);
	filesystem_ref(fs);
	atomic_fetch_add_explicit(&fs->mounts, 1, memory_order_relaxed);
	dentry_ref(root);
	atomic_init(&e->mount.flags, flags);
	ref_init(&e->mount.ref, &mount_type);
	mutex_assert_held(&mount_lock);
	e->mount.id = ++mount_last_id;
	e->mount.unique_id = ++mount_last_unique;
	TAILQ_INSERT_TAIL(&all_mounts, p, all);
	*ret = &e->mount;
	return 0;
}

static void mount_free_later(struct deferred_work *w)
{
	struct mount_private *p = container_of(w, struct mount_private, work_free);
	struct mount *m = p->mount;

	dentry_unref(m->root);
	filesystem_unref(m->fs);
	ref_fini(&m->ref, &mount_type);
	free(container_of(m, struct mount_entry, mount));
}

static void mount_free_cb(struct rcu_cb *cb)
{
	struct mount *m = container_of(cb, struct mount, rcu);

	m->priv->work_free.run = mount_free_later;
	vfs_defer_global(&m->priv->work_free);
}

void mount_release(struct mount_private *p)
{
	mutex_lock(&mount_lock);
	assert(!p->attached && TAILQ_EMPTY(&p->children));
	mount_leave_groups_locked(p);
	TAILQ_REMOVE(&all_mounts, p, all);
	mutex_unlock(&mount_lock);
	if (atomic_fetch_sub_explicit(&p->mount->fs->mounts, 1, memory_order_acq_rel) == 1)
		vfs_notify_unmount(p->mount->fs);
	rcu_call(&p->mount->rcu, mount_free_cb);
}

void vfs_path_ref(const struct vfs_path *p)
{
	mount_ref(p->mount);
	dentry_ref(p->dentry);
}

void vfs_path_unref(struct vfs_path *p)
{
	struct mount *m = p->mount;
	struct dentry *d = p->dentry;

	p->mount = NULL;
	p->dentry = NULL;
	dentry_unref(d);
	mount_unref(m);
}

int mount_set_flags_locked(struct mount *m, unsigned flags)
{
	bool freeze = (flags & MNT_RDONLY_F) &&
		      !(atomic_load_explicit(&m->flags, memory_order_relaxed) & MNT_RDONLY_F);
	int err = freeze ? mount_freeze(m) : 0;

	if (err)
		return err;
	mount_epoch_bump_locked();
	atomic_store_explicit(&m->flags, flags, memory_order_release);
	mount_epoch_bump_locked();
	if (freeze)
		mount_thaw(m);
	return 0;
}

/* The whole filesystem becomes read-only: none of its mounts may have a writer. */
int mount_fs_set_readonly_locked(struct filesystem *fs, bool readonly)
{
	struct mount_private *p, *q;
	int err = 0;

	if (!readonly) {
		atomic_fetch_and_explicit(&fs->sb_flags, ~(unsigned)FS_RDONLY,
					  memory_order_release);
		return 0;
	}
	TAILQ_FOREACH (p, &all_mounts, all) {
		if (p->mount->fs != fs)
			continue;
		err = mount_freeze(p->mount);
		if (err)
			break;
	}
	if (!err)
		atomic_fetch_or_explicit(&fs->sb_flags, FS_RDONLY, memory_order_release);
	TAILQ_FOREACH (q, &all_mounts, all) {
		if (q == p)
			break;
		if (q->mount->fs == fs)
			mount_thaw(q->mount);
	}
	return err;
}

int mount_create_internal(struct filesystem *fs, struct dentry *root, struct mount **ret)
{
	int err;

	mutex_lock(&mount_lock);
	err = mount_create_locked(fs, root, 0, ret);
	if (!err)
		(*ret)->priv->internal = true;
	mutex_unlock(&mount_lock);
	return err;
}

/* ---- attaching and detaching ---- */

void mount_ns_changed_locked(struct mount_namespace *ns)
{
	if (!ns)
		return;
	atomic_fetch_add_explicit(&ns->event, 1, memory_order_release);
	wait_queue_wake(&ns->changed, POLLERR | POLLPRI);
}

void mount_ns_add_locked(struct mount_namespace *ns, struct mount *m)
{
	struct mount_private *after = TAILQ_LAST(&ns->mounts, mount_list);

	rcu_store(m->ns, ns);
	atomic_store_explicit(&m->owned, true, memory_order_release);
	/* In order of ids: nearly always the last. */
	while (after && after->mount->unique_id > m->unique_id)
		after = TAILQ_PREV(after, mount_list, in_ns);
	if (after)
		TAILQ_INSERT_AFTER(&ns->mounts, after, m->priv, in_ns);
	else
		TAILQ_INSERT_HEAD(&ns->mounts, m->priv, in_ns);
	ns->count++;
}

struct mount_private *mount_next_in_tree(struct mount_private *p, struct mount_private *top)
{
	struct mount_private *next = TAILQ_FIRST(&p->children);

	while (!next && p != top) {
		next = TAILQ_NEXT(p, sibling);
		if (!next)
			p = atomic_load_explicit(&p->mount->parent, memory_order_relaxed)->priv;
	}
	return next;
}

void mount_attach_locked(struct mount *m, struct mount *parent, struct dentry *at,
			 struct mount_namespace *ns)
{
	struct mount_private *p;

	mutex_assert_held(&mount_lock);
	dentry_ref(at);
	atomic_fetch_or_explicit(&at->flags, DENTRY_MAYBE_MOUNTPOINT, memory_order_seq_cst);
	if (ns)
		for (p = m->priv; p; p = mount_next_in_tree(p, m->priv))
			if (!atomic_load_explicit(&p->mount->ns, memory_order_relaxed))
				mount_ns_add_locked(ns, p->mount);
	mount_epoch_bump_locked();
	seqcount_write_begin(&mount_seq);
	table_insert(m, parent, at);
	seqcount_write_end(&mount_seq);
	mount_epoch_bump_locked();
	TAILQ_INSERT_TAIL(&parent->priv->children, m->priv, sibling);
	m->priv->attached = true;
	mount_ns_changed_locked(ns);
}

void mount_unhook_locked(struct mount *m, struct mount_trash *trash)
{
	struct mount *parent = atomic_load_explicit(&m->parent, memory_order_relaxed);
	struct dentry *at = atomic_load_explicit(&m->mountpoint, memory_order_relaxed);

	mutex_assert_held(&mount_lock);
	if (!m->priv->attached)
		return;
	mount_epoch_bump_locked();
	seqcount_write_begin(&mount_seq);
	table_remove(m);
	rcu_store(m->parent, NULL);
	rcu_store(m->mountpoint, NULL);
	seqcount_write_end(&mount_seq);
	mount_epoch_bump_locked();
	TAILQ_REMOVE(&parent->priv->children, m->priv, sibling);
	m->priv->attached = false;
	mount_trash_add(trash, NULL, at);
}

static void mount_ns_remove_locked(struct mount *m)
{
	struct mount_namespace *ns = atomic_load_explicit(&m->ns, memory_order_relaxed);

	if (!ns)
		return;
	mount_disown_locked(m);
	TAILQ_REMOVE(&ns->mounts, m->priv, in_ns);
	ns->count--;
	rcu_store(m->ns, NULL);
	mount_ns_changed_locked(ns);
}

void mount_tree_set_ns_locked(struct mount *m, struct mount_namespace *ns)
{
	for (struct mount_private *p = m->priv; p; p = mount_next_in_tree(p, m->priv)) {
		if (mount_ns_of(p->mount) == ns)
			continue;
		mount_ns_remove_locked(p->mount);
		mount_ns_add_locked(ns, p->mount);
	}
	mount_ns_changed_locked(ns);
}

bool mount_may_use(struct mount *m, const struct mount_namespace *ns)
{
	const struct mount_namespace *at = mount_ns_of(m);

	return at && (at == ns || (at->anon && (!at->origin || at->origin == ns->id)));
}

void mount_detach_tree_locked(struct mount *m, struct mount_trash *trash)
{
	struct mount_private *p = m->priv, *first;

	mutex_assert_held(&mount_lock);
	/* Leaves first; each gives up its groups, its place and the tree's reference. */
	for (;;) {
		while ((first = TAILQ_FIRST(&p->children)))
			p = first;
		first = p == m->priv ? NULL
				     : atomic_load_explicit(&p->mount->parent, memory_order_relaxed)
					       ->priv;
		mount_unhook_locked(p->mount, trash);
		mount_ns_remove_locked(p->mount);
		mount_leave_groups_locked(p);
		mount_trash_add(trash, p->mount, NULL);
		if (!first)
			break;
		p = first;
	}
}

void mount_drop_tree_locked(struct mount *m, struct mount_trash *trash)
{
	mount_detach_tree_locked(m, trash);
}

void mount_detach_dentry(struct dentry *d)
{
	struct mount_trash trash;
	struct mount *m;

	mount_trash_init(&trash);
	mutex_lock(&mount_lock);
	do {
		for (m = rcu_load(*point_bucket(d)); m; m = rcu_load(m->priv->point_next))
			if (atomic_load_explicit(&m->mountpoint, memory_order_relaxed) == d)
				break;
		if (m)
			mount_detach_tree_locked(m, &trash);
	} while (m);
	mutex_unlock(&mount_lock);
	mount_trash_empty(&trash);
}

/* ---- removal of a dentry ---- */

int vfs_dentry_delete_begin(struct resolving_path *rp, struct dentry *d)
{
	if (likely(!(atomic_load_explicit(&d->flags, memory_order_acquire) &
		     DENTRY_MAYBE_MOUNTPOINT)))
		return 0;
	return mount_dentry_is_mountpoint(rp->lk->ns, d) ? -EBUSY : 0;
}

struct detach_work {
	struct deferred_work work;
	struct dentry *dentry;
};

static void detach_work_run(struct deferred_work *w)
{
	struct detach_work *dw = container_of(w, struct detach_work, work);

	mount_detach_dentry(dw->dentry);
	dentry_unref(dw->dentry);
	free(dw);
}

void vfs_dentry_delete_end(struct dentry *d)
{
	uint32_t old = atomic_fetch_or_explicit(&d->flags, DENTRY_DEAD, memory_order_seq_cst);
	struct detach_work *dw;

	dentry_path_changed(d);
	if (unlikely(old & DENTRY_CONTENDED))
		dentry_disown(d);
	if (likely(!(old & DENTRY_MAYBE_MOUNTPOINT)))
		return;
	dw = malloc(sizeof(*dw));
	if (!dw) /* mounts of other namespaces stay until they are unmounted */
		return;
	dentry_ref(d);
	dw->dentry = d;
	dw->work.run = detach_work_run;
	vfs_defer(&dw->work);
}

/* ---- namespaces ---- */

int mount_namespace_alloc(bool anon, uint64_t family, struct mount_namespace **ret)
{
	struct mount_namespace *ns = calloc(1, sizeof(*ns));

	if (!ns)
		return -ENOMEM;
	ref_init(&ns->ref, &namespace_type);
	ns->id = atomic_fetch_add_explicit(&namespace_last_id, 1, memory_order_relaxed);
	TAILQ_INIT(&ns->mounts);
	wait_queue_init(&ns->changed);
	ns->anon = anon;
	if (!anon) {
		mutex_lock(&mount_lock);
		ns->unique = ++namespace_last_unique;
		ns->family = family ? family : ns->unique;
		TAILQ_INSERT_TAIL(&all_namespaces, ns, all);
		mutex_unlock(&mount_lock);
	}
	*ret = ns;
	return 0;
}

void mount_namespace_free(struct mount_namespace *ns)
{
	if (!ref_put(&ns->ref))
		return;
	mutex_lock(&mount_lock);
	if (!ns->anon)
		TAILQ_REMOVE(&all_namespaces, ns, all);
	mutex_unlock(&mount_lock);
	wait_queue_fini(&ns->changed);
	ref_fini(&ns->ref, &namespace_type);
	free(ns);
}

_Atomic int64_t vfs_mounts_max = 100000;

int mount_namespace_create(struct filesystem *rootfs, struct dentry *root, unsigned mnt_flags,
			   struct mount_namespace **ret)
{
	struct mount_namespace *ns;
	int err;

	err = mount_namespace_alloc(false, 0, &ns);
	if (err)
		return err;
	mutex_lock(&mount_lock);
	err = mount_create_locked(rootfs, root, mnt_flags, &ns->root);
	if (!err)
		mount_ns_add_locked(ns, ns->root);
	mutex_unlock(&mount_lock);
	if (err) {
		mount_namespace_free(ns);
		return err;
	}
	*ret = ns;
	return 0;
}

int mount_namespace_copy(struct mount_namespace *ns, struct mount_namespace **ret,
			 struct vfs_path **inout_paths, size_t count)
{
	struct mount_namespace *copy;
	struct mount_private *p;
	struct mount_trash trash;
	int err;

	err = mount_namespace_alloc(false, ns->family, &copy);
	if (err)
		return err;
	mount_trash_init(&trash);
	mutex_lock(&mount_lock);
	err = mount_copy_tree_locked(ns->root, ns->root->root,
				     COPY_RECURSIVE | COPY_UNBINDABLE | COPY_NAMESPACE, &copy->root,
				     &trash);
	if (!err) {
		for (p = copy->root->priv; p; p = mount_next_in_tree(p, copy->root->priv))
			mount_ns_add_locked(copy, p->mount);
		for (size_t i = 0; i < count; i++) {
			struct mount *old = inout_paths[i]->mount;

			if (!old || atomic_load_explicit(&old->ns, memory_order_relaxed) != ns ||
			    !old->priv->copy)
				continue;
			inout_paths[i]->mount = old->priv->copy->mount;
			mount_ref(inout_paths[i]->mount);
			mount_trash_add(&trash, old, NULL);
		}
		TAILQ_FOREACH (p, &ns->mounts, in_ns)
			p->copy = NULL;
	}
	mutex_unlock(&mount_lock);
	mount_trash_empty(&trash);
	if (err) {
		mount_namespace_free(copy);
		return err;
	}
	*ret = copy;
	return 0;
}

void mount_namespace_ref(struct mount_namespace *ns)
{
	ref_get(&ns->ref);
}

void mount_namespace_unref(struct mount_namespace *ns)
{
	struct mount_trash trash;

	if (!ns || !ref_put(&ns->ref))
		return;
	mount_trash_init(&trash);
	mutex_lock(&mount_lock);
	if (!ns->anon)
		TAILQ_REMOVE(&all_namespaces, ns, all);
	/* move_mount(2) may have left an anonymous one without a tree. */
	if (ns->root)
		mount_detach_tree_locked(ns->root, &trash);
	assert(TAILQ_EMPTY(&ns->mounts));
	mutex_unlock(&mount_lock);
	mount_trash_empty(&trash);
	wait_queue_fini(&ns->changed);
	ref_fini(&ns->ref, &namespace_type);
	/* A lock-free reader may still compare the pointer, but not follow it. */
	free(ns);
}

void mount_namespace_root(struct mount_namespace *ns, struct vfs_path *ret)
{
	struct mount *m, *up;

	mutex_lock(&mount_lock);
	m = ns->root;
	rcu_read_begin();
	while ((up = mount_lookup(m, m->root)))
		m = up;
	rcu_read_end();
	ret->mount = m;
	ret->dentry = m->root;
	vfs_path_ref(ret);
	mutex_unlock(&mount_lock);
}

uint64_t mount_namespace_unique(const struct mount_namespace *ns)
{
	return ns->unique;
}

uint32_t mount_namespace_count(struct mount_namespace *ns)
{
	uint32_t n;

	mutex_lock(&mount_lock);
	n = ns->count;
	mutex_unlock(&mount_lock);
	return n;
}

struct mount_namespace *mount_namespace_next(const struct mount_namespace *family, uint64_t id,
					     bool reverse)
{
	struct mount_namespace *ns;

	mutex_lock(&mount_lock);
	/* One whose last reference just went is still on the list, but not for us. */
	if (reverse) {
		TAILQ_FOREACH_REVERSE(ns, &all_namespaces, namespace_list, all)
		if (ns->unique < id && ns->family == family->family && ref_tryget(&ns->ref))
			break;
	} else {
		TAILQ_FOREACH (ns, &all_namespaces, all)
			if (ns->unique > id && ns->family == family->family && ref_tryget(&ns->ref))
				break;
	}
	mutex_unlock(&mount_lock);
	return ns;
}

struct mount_namespace *mount_namespace_find(const struct mount_namespace *family, uint64_t id)
{
	struct mount_namespace *ns;

	mutex_lock(&mount_lock);
	TAILQ_FOREACH (ns, &all_namespaces, all)
		if (ns->unique == id)
			break;
	if (ns && (ns->family != family->family || !ref_tryget(&ns->ref)))
		ns = NULL;
	mutex_unlock(&mount_lock);
	return ns;
}

uint64_t mount_namespace_id(struct mount_namespace *ns)
{
	return ns->id;
}

struct wait_queue *mount_namespace_wait_queue(struct mount_namespace *ns)
{
	return &ns->changed;
}

uint64_t mount_namespace_event(struct mount_namespace *ns)
{
	return atomic_load_explicit(&ns->event, memory_order_acquire);
}

int vfs_init(void)
{
	return 0;
}
