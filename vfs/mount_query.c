/* vfs/mount_query.c - what statmount(2) and listmount(2) ask of the mount table. */
#include <stdlib.h>
#include <sys/mount.h>

#include "vfs/mount_internal.h"

static struct mount_private *find_in_ns(struct mount_namespace *ns, uint64_t id)
{
	struct mount_private *p;

	TAILQ_FOREACH (p, &ns->mounts, in_ns)
		if (p->mount->unique_id == id)
			break;
	return p;
}

static uint64_t propagation_of(const struct mount_private *p)
{
	uint64_t flags = (p->group ? MS_SHARED : 0) | (p->master ? MS_SLAVE : 0) |
			 (p->base == PROP_UNBINDABLE ? MS_UNBINDABLE : 0);

	return flags ? flags : MS_PRIVATE;
}

static void facts_fill_locked(struct mount_private *p, const struct vfs_path *root,
			      struct mount_facts *ret)
{
	struct mount *m = p->mount, *parent = mount_parent_of(m);
	struct mount_namespace *ns = mount_ns_of(m);

	*ret = (struct mount_facts){
		.fs = m->fs,
		.at = {.mount = m, .dentry = m->root},
		.flags = atomic_load_explicit(&m->flags, memory_order_relaxed),
		.id = m->unique_id,
		.old_id = m->id,
		.parent_id = parent ? parent->unique_id : m->unique_id,
		/* As mountinfo says of a namespace's root. */
		.old_parent_id = parent ? parent->id : 1,
		.ns_id = ns->unique,
		.propagation = propagation_of(p),
		.group = p->group,
		.master = p->master ? p->master->group : 0,
		.from = p->master ? mount_dominating_group_locked(p, ns, root) : 0,
	};
	filesystem_ref(m->fs);
	vfs_path_ref(&ret->at);
}

int vfs_mount_facts(struct mount_namespace *ns, uint64_t id, const struct vfs_path *root,
		    bool privileged, struct mount_facts *ret)
{
	struct mount_private *p;
	int err = 0;

	mutex_lock(&mount_lock);
	p = find_in_ns(ns, id);
	if (!p)
		err = -ENOENT;
	else if (!privileged && !mount_reachable_locked(p->mount, p->mount->root, root))
		err = -EPERM;
	else
		facts_fill_locked(p, root, ret);
	mutex_unlock(&mount_lock);
	return err;
}

void mount_facts_fini(struct mount_facts *f)
{
	vfs_path_unref(&f->at);
	filesystem_unref(f->fs);
}

static ssize_t list_locked(struct mount_namespace *ns, const struct mount *skip,
			   const struct vfs_path *under, uint64_t last, bool reverse, uint64_t *ret,
			   size_t count)
{
	struct mount_private *p =
		reverse ? TAILQ_LAST(&ns->mounts, mount_list) : TAILQ_FIRST(&ns->mounts);
	size_t n = 0;

	for (; p && n < count;
	     p = reverse ? TAILQ_PREV(p, mount_list, in_ns) : TAILQ_NEXT(p, in_ns)) {
		uint64_t id = p->mount->unique_id;

		if (last && (reverse ? id >= last : id <= last))
			continue;
		if (p->mount != skip && mount_reachable_locked(p->mount, p->mount->root, under))
			ret[n++] = id;
	}
	return (ssize_t)n;
}

ssize_t vfs_list_mounts(struct mount_namespace *ns, uint64_t under, uint64_t last, bool reverse,
			const struct vfs_path *root, bool privileged, uint64_t *ret, size_t count)
{
	struct mount_private *p = NULL;
	struct vfs_path at = *root;
	ssize_t n = 0;

	mutex_lock(&mount_lock);
	if (under) {
		p = find_in_ns(ns, under);
		if (!p)
			n = -ENOENT;
		else if (!privileged && !mount_reachable_locked(p->mount, p->mount->root, root))
			n = -EPERM;
		else
			at = (struct vfs_path){.mount = p->mount, .dentry = p->mount->root};
	}
	if (!n)
		n = list_locked(ns, p ? p->mount : NULL, &at, last, reverse, ret, count);
	mutex_unlock(&mount_lock);
	return n;
}
