/*
 * vfs/mount_prop.c - propagation: peer groups, slaves, and copies of mount trees (Documentation/filesystems/sharedsubtree.rst).
 *
 * A shared mount sits on a ring of peers with one group id. A slave hangs on some member of its master group; when
 * that member leaves, its slaves go to another. A mount event at (parent, place) is repeated at
 * every member of parent's group and, as slaves of the new mount, at every group that is a slave of it, and so on down.
 */
#include "base/idr.h"
#include "vfs/mount_internal.h"

static struct idr group_ids;
static uint32_t visit_mark; /* guarded by mount_lock */

__attribute__((constructor)) static void group_ids_init(void)
{
	idr_init(&group_ids, 1, INT32_MAX, "peer groups");
}

/* ---- groups ---- */

static void set_shared(struct mount_private *p)
{
	int32_t id;

	p->base = PROP_PRIVATE;
	if (p->group)
		return;
	id = idr_alloc_lowest(&group_ids, p);
	/* Without memory for an id it stays private: nothing is propagated that was not promised to a reader. */
	if (id > 0)
		p->group = (uint32_t)id;
}

static void join_peers(struct mount_private *p, struct mount_private *peer)
{
	assert(!p->group && peer->group);
	p->group = peer->group;
	p->next_peer = peer->next_peer;
	peer->next_peer = p;
	idr_replace(&group_ids, (int32_t)p->group, peer);
}

static void become_slave(struct mount_private *p, struct mount_private *master)
{
	if (p->master)
		LIST_REMOVE(p, slave);
	p->master = master;
	if (master)
		LIST_INSERT_HEAD(&master->slaves, p, slave);
}

/* Out of its peer group; slaves go to a peer, or else to p's own master. Stays p's slave relation, or gets one to a peer. */
static void leave_peers(struct mount_private *p)
{
	struct mount_private *peer = NULL, *heir, *s;

	if (p->next_peer != p) {
		for (peer = p->next_peer; peer->next_peer != p; peer = peer->next_peer)
			;
		peer->next_peer = p->next_peer;
		p->next_peer = p;
	} else if (p->group) {
		idr_remove(&group_ids, (int32_t)p->group);
	}
	p->group = 0;
	heir = peer ? peer : p->master;
	while ((s = LIST_FIRST(&p->slaves)))
		become_slave(s, heir);
	if (peer)
		become_slave(p, peer);
}

void mount_leave_groups_locked(struct mount_private *p)
{
	leave_peers(p);
	become_slave(p, NULL);
	p->base = PROP_PRIVATE;
}

void mount_set_propagation_locked(struct mount_private *p, enum mount_propagation prop)
{
	if (prop == PROP_SHARED) {
		set_shared(p);
		return;
	}
	leave_peers(p);
	if (prop == PROP_SLAVE)
		return;
	become_slave(p, NULL);
	p->base = prop;
}

void mount_inherit_propagation_locked(struct mount_private *clone, struct mount_private *origin)
{
	if (origin->group)
		join_peers(clone, origin);
	if (origin->master)
		become_slave(clone, origin->master);
	clone->base = origin->base;
}

/* ---- copies ---- */

static int clone_one(struct mount *m, struct dentry *root, unsigned how, struct mount **ret)
{
	unsigned flags = atomic_load_explicit(&m->flags, memory_order_relaxed);
	int err;

	err = mount_create_locked(m->fs, root, flags & ~(unsigned)MNT_LOCKED_F, ret);
	if (err)
		return err;
	if (how & COPY_SLAVE)
		become_slave((*ret)->priv, m->priv->group ? m->priv : m->priv->master);
	else if (!(how & COPY_PRIVATE))
		mount_inherit_propagation_locked((*ret)->priv, m->priv);
	return 0;
}

int mount_copy_tree_locked(struct mount *m, struct dentry *root, unsigned how, struct mount **ret,
			   struct mount_trash *trash)
{
	struct mount_private *p;
	struct mount *top, *copy;
	int err;

	err = clone_one(m, root, how, &top);
	if (err)
		return err;
	m->priv->copy = top->priv;
	for (p = mount_next_in_tree(m->priv, m->priv); p && (how & COPY_RECURSIVE);
	     p = mount_next_in_tree(p, m->priv)) {
		struct mount *parent =
			atomic_load_explicit(&p->mount->parent, memory_order_relaxed);
		struct dentry *at =
			atomic_load_explicit(&p->mount->mountpoint, memory_order_relaxed);

		p->copy = NULL;
		if (!parent->priv->copy)
			continue;
		if (p->base == PROP_UNBINDABLE && !(how & COPY_UNBINDABLE))
			continue;
		/* Like Linux, a new namespace leaves out bound mount namespaces, which might hold it. */
		if ((how & COPY_NAMESPACE) && vfs_hooks.mount_ns_file &&
		    vfs_hooks.mount_ns_file(p->mount->root))
			continue;
		if (parent == m && !m->fs->ops->is_descendant(at, root))
			continue;
		err = clone_one(p->mount, p->mount->root, how, &copy);
		if (err) {
			mount_drop_tree_locked(top, trash);
			return err;
		}
		p->copy = copy->priv;
		mount_attach_locked(copy, parent->priv->copy->mount, at, NULL);
	}
	*ret = top;
	return 0;
}

uint32_t mount_tree_size(struct mount_private *top)
{
	uint32_t n = 0;

	for (struct mount_private *p = top; p; p = mount_next_in_tree(p, top))
		n++;
	return n;
}

/* ---- mount events ---- */

struct propagation {
	struct dentry *at;
	struct mount_list made; /* copies attached so far, by `work` */
	struct mount_trash *trash;
};

static struct mount_namespace *suitable(struct mount_private *q, struct dentry *at)
{
	struct mount_namespace *ns = atomic_load_explicit(&q->mount->ns, memory_order_relaxed);

	return ns && q->mount->fs == at->fs && at->fs->ops->is_descendant(at, q->mount->root)
		       ? ns
		       : NULL;
}

static void share_tree(struct mount *m)
{
	for (struct mount_private *p = m->priv; p; p = mount_next_in_tree(p, m->priv))
		set_shared(p);
}

/* Attaches c at (q, at); what is mounted there already goes on top of it. */
static void attach_copy(struct propagation *pr, struct mount *c, struct mount_private *q,
			struct mount_namespace *ns)
{
	struct mount *over;

	rcu_read_begin();
	over = mount_lookup(q->mount, pr->at);
	rcu_read_end();
	if (over)
		mount_unhook_locked(over, pr->trash);
	mount_attach_locked(c, q->mount, pr->at, ns);
	if (over)
		mount_attach_locked(over, c, c->root, ns);
	TAILQ_INSERT_TAIL(&pr->made, c->priv, work);
}

/*
 * One group: `start` is a member. `skip` is the member where the event itself happens (its copy is `from`), or NULL for
 * a group of slaves, whose first copy is a slave of `from`.
 */
static int propagate_ring(struct propagation *pr, struct mount_private *start,
			  struct mount_private *skip, struct mount *from)
{
	struct mount *ours = skip ? from : NULL;
	struct mount_private *q = start, *s;
	struct mount_namespace *ns;
	struct mount *c;
	int err;

	do {
		q->visited = visit_mark;
		ns = q == skip ? NULL : suitable(q, pr->at);
		if (ns) {
			err = mount_copy_tree_locked(ours ? ours : from, from->root,
						     COPY_RECURSIVE | COPY_UNBINDABLE |
							     (ours ? 0 : COPY_SLAVE),
						     &c, pr->trash);
			if (err)
				return err;
			if (!ours && start->group)
				share_tree(c);
			if (!ours)
				ours = c;
			attach_copy(pr, c, q, ns);
		}
		q = q->next_peer;
	} while (q != start);
	do {
		LIST_FOREACH (s, &q->slaves, slave) {
			if (s->visited == visit_mark)
				continue;
			err = propagate_ring(pr, s, NULL, ours ? ours : from);
			if (err)
				return err;
		}
		q = q->next_peer;
	} while (q != start);
	return 0;
}

int mount_propagate_attach_locked(struct mount *m, struct mount *parent, struct dentry *at,
				  struct mount_trash *trash)
{
	struct propagation pr = {.at = at, .trash = trash};
	struct mount_private *p;
	int err;

	if (!mount_is_shared(parent->priv))
		return 0;
	TAILQ_INIT(&pr.made);
	share_tree(m);
	visit_mark++;
	err = propagate_ring(&pr, parent->priv, parent->priv, m);
	if (!err)
		return 0;
	while ((p = TAILQ_FIRST(&pr.made))) {
		TAILQ_REMOVE(&pr.made, p, work);
		mount_detach_tree_locked(p->mount, trash);
	}
	return err;
}

static void collect_group(struct mount_private *start, struct mount_list *list)
{
	struct mount_private *q = start, *s;

	do {
		q->visited = visit_mark;
		TAILQ_INSERT_TAIL(list, q, work);
		q = q->next_peer;
	} while (q != start);
	do {
		LIST_FOREACH (s, &q->slaves, slave)
			if (s->visited != visit_mark)
				collect_group(s, list);
		q = q->next_peer;
	} while (q != start);
}

/* The copy `child` of an unmounted mount goes as well, unless something of its own hangs below it. */
static void detach_copy(struct mount *child, bool lazy, struct mount_trash *trash)
{
	struct mount *parent = atomic_load_explicit(&child->parent, memory_order_relaxed);
	struct dentry *at = atomic_load_explicit(&child->mountpoint, memory_order_relaxed);
	struct mount_private *only = TAILQ_FIRST(&child->priv->children);

	if (only && !TAILQ_NEXT(only, sibling) &&
	    atomic_load_explicit(&only->mount->mountpoint, memory_order_relaxed) == child->root) {
		/* It covers the whole of child: it takes child's place. */
		dentry_ref(at);
		mount_unhook_locked(only->mount, trash);
		mount_detach_tree_locked(child, trash);
		mount_attach_locked(only->mount, parent, at,
				    atomic_load_explicit(&parent->ns, memory_order_relaxed));
		/* The attachment has its own reference; never the last one. */
		ref_put(&at->ref) ? ref_bug(&at->ref, "mount point dropped") : (void)0;
		return;
	}
	if (!only || lazy)
		mount_detach_tree_locked(child, trash);
}

void mount_propagate_detach_locked(struct mount *m, bool lazy, struct mount_trash *trash)
{
	struct mount *parent = atomic_load_explicit(&m->parent, memory_order_relaxed);
	struct dentry *at = atomic_load_explicit(&m->mountpoint, memory_order_relaxed);
	struct mount_list list;
	struct mount_private *q;
	struct mount *child;

	if (!parent || !mount_is_shared(parent->priv))
		return;
	TAILQ_INIT(&list);
	visit_mark++;
	collect_group(parent->priv, &list);
	while ((q = TAILQ_FIRST(&list))) {
		TAILQ_REMOVE(&list, q, work);
		if (q->mount == parent)
			continue;
		rcu_read_begin();
		child = mount_lookup(q->mount, at);
		rcu_read_end();
		if (child && child != m && child->fs == m->fs && child->root == m->root)
			detach_copy(child, lazy, trash);
	}
}

/* ---- questions ---- */

/* Another reference than the tree's, and those of what only covers it, is in use. */
static bool copy_busy(struct mount *child)
{
	struct mount_private *only = TAILQ_FIRST(&child->priv->children);

	/* Exactly one mount that covers all of it takes its place; with others below, this copy stays. */
	if (only &&
	    (TAILQ_NEXT(only, sibling) ||
	     atomic_load_explicit(&only->mount->mountpoint, memory_order_relaxed) != child->root))
		return false;
	return mount_refs_locked(child) > 1;
}

bool mount_propagate_busy_locked(struct mount *m)
{
	struct mount *parent = atomic_load_explicit(&m->parent, memory_order_relaxed), *child;
	struct dentry *at = atomic_load_explicit(&m->mountpoint, memory_order_relaxed);
	struct mount_list list;
	struct mount_private *q;
	bool busy = false;

	if (!parent || !mount_is_shared(parent->priv))
		return false;
	TAILQ_INIT(&list);
	visit_mark++;
	collect_group(parent->priv, &list);
	while ((q = TAILQ_FIRST(&list))) {
		TAILQ_REMOVE(&list, q, work);
		rcu_read_begin();
		child = q->mount == parent ? NULL : mount_lookup(q->mount, at);
		rcu_read_end();
		busy |= child && child != m && copy_busy(child);
	}
	return busy;
}

bool mount_reachable_locked(struct mount *m, struct dentry *d, const struct vfs_path *root)
{
	struct mount *parent;

	while (m != root->mount &&
	       (parent = atomic_load_explicit(&m->parent, memory_order_relaxed))) {
		d = atomic_load_explicit(&m->mountpoint, memory_order_relaxed);
		m = parent;
	}
	return m == root->mount &&
	       (d == root->dentry || d->fs->ops->is_descendant(d, root->dentry));
}

uint32_t mount_dominating_group_locked(struct mount_private *p, struct mount_namespace *ns,
				       const struct vfs_path *root)
{
	for (struct mount_private *m = p->master; m; m = m->master) {
		struct mount_private *q = m;

		do {
			if (atomic_load_explicit(&q->mount->ns, memory_order_relaxed) == ns &&
			    mount_reachable_locked(q->mount, q->mount->root, root))
				return q->group;
			q = q->next_peer;
		} while (q != m);
	}
	return 0;
}
