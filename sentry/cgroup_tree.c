/* sentry/cgroup_tree.c - see cgroup_tree.h. */
#include "sentry/cgroup_tree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sentry/task_internal.h"

#define KILL_PASSES_MAX 64u

static REF_TYPE(tree_type, "cgroup_group");
static _Atomic int64_t last_id;

static void tree_lock(const struct cgroup_group *c)
{
	mutex_lock(&c->root->lock);
}

static void tree_unlock(const struct cgroup_group *c)
{
	mutex_unlock(&c->root->lock);
}

void cgroup_group_ref(struct cgroup_group *c)
{
	ref_get(&c->ref);
}

void cgroup_group_unref(struct cgroup_group *c)
{
	while (c && ref_put(&c->ref)) {
		struct cgroup_group *parent = c->parent;

		wait_queue_fini(&c->wait);
		ref_fini(&c->ref, &tree_type);
		free(c->name);
		free(c);
		c = parent;
	}
}

/* ---- what is told of ---- */

/*
 * A view that does not know of this turn yet, and counts as told now: its file system, a reference; NULL: all do. *ret_dir: its directory, a
 * reference; NULL: that is on its way out.
 */
static struct filesystem *next_view(struct cgroup_group *c, uint32_t turn, struct dentry **ret_dir,
				    void (**ret_changed)(struct dentry *))
{
	struct filesystem *fs = NULL;
	struct cgroup_view *v;

	tree_lock(c);
	while ((v = TAILQ_FIRST(&c->views)) && (int32_t)(v->turn - turn) < 0) {
		v->turn = atomic_load(&c->events);
		TAILQ_REMOVE(&c->views, v, link);
		TAILQ_INSERT_TAIL(&c->views, v, link);
		/*
		 * Dentries borrow their file system. One that has no reference left drops its nodes, and so this view, before it is freed:
		 * it is not to be held up by one of its dentries.
		 */
		if (!ref_tryget(&v->dir->fs->ref))
			continue;
		fs = v->dir->fs;
		*ret_dir = ref_tryget(&v->dir->ref) ? v->dir : NULL;
		*ret_changed = v->changed;
		break;
	}
	tree_unlock(c);
	return fs;
}

static void tell_run(struct deferred_work *w)
{
	struct cgroup_group *c = container_of(w, struct cgroup_group, tell);
	void (*changed)(struct dentry *);
	struct filesystem *fs;
	struct dentry *dir;
	uint32_t turn;

	atomic_store(&c->telling, false);
	turn = atomic_load(&c->events);
	while ((fs = next_view(c, turn, &dir, &changed))) {
		if (dir)
			changed(dir);
		dentry_unref(dir);
		filesystem_unref(fs);
	}
	cgroup_group_unref(c);
}

/* Pre: the root's lock. */
static void changed_locked(struct cgroup_group *c)
{
	atomic_fetch_add(&c->events, 1);
	wait_queue_wake(&c->wait, POLLPRI | POLLERR);
	if (atomic_exchange(&c->telling, true))
		return;
	cgroup_group_ref(c);
	vfs_defer(&c->tell);
}

void cgroup_view_add(struct cgroup_view *v)
{
	tree_lock(v->group);
	v->turn = atomic_load(&v->group->events);
	TAILQ_INSERT_TAIL(&v->group->views, v, link);
	tree_unlock(v->group);
}

void cgroup_view_drop(struct cgroup_view *v)
{
	tree_lock(v->group);
	TAILQ_REMOVE(&v->group->views, v, link);
	tree_unlock(v->group);
	cgroup_group_unref(v->group);
}

/* ---- the tree ---- */

/* root: whose lock is its tree's; NULL: itself. */
static struct cgroup_group *tree_alloc(struct task_cgroup *cg, struct cgroup_group *root,
				       const char *name, size_t len)
{
	struct cgroup_group *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->name = strndup(name, len);
	if (!c->name) {
		free(c);
		return NULL;
	}
	ref_init(&c->ref, &tree_type);
	c->cg = cg;
	c->root = root ? root : c;
	mutex_init(&c->lock, LOCK_CGROUP, "cgroup tree");
	c->max_depth = c->max_descendants = UINT32_MAX;
	TAILQ_INIT(&c->children);
	TAILQ_INIT(&c->views);
	wait_queue_init(&c->wait);
	c->tell.run = tell_run;
	return c;
}

int cgroup_root_create(struct task_cgroup *cg, struct cgroup_group **ret)
{
	*ret = tree_alloc(cg, NULL, "", 0);
	return *ret ? 0 : -ENOMEM;
}

/* c leaves its directory, whose reference the caller drops. Pre: the root's lock. */
static void unlink_locked(struct cgroup_group *c)
{
	TAILQ_REMOVE(&c->parent->children, c, sibling);
	c->removed = true;
	for (struct cgroup_group *up = c->parent; up; up = up->parent)
		up->descendants--;
}

void cgroup_root_destroy(struct cgroup_group *root)
{
	struct cgroup_group *c;

	if (!root)
		return;
	/* From the deepest on: a path down to one that has none below it. */
	for (;;) {
		tree_lock(root);
		for (c = root; !TAILQ_EMPTY(&c->children); c = TAILQ_FIRST(&c->children))
			;
		if (c != root)
			unlink_locked(c);
		else
			root->removed = true;
		tree_unlock(root);
		cgroup_group_unref(c);
		if (c == root)
			break;
	}
}

static struct cgroup_group *find_locked(struct cgroup_group *dir, const char *name, size_t len)
{
	struct cgroup_group *c;

	TAILQ_FOREACH (c, &dir->children, sibling)
		if (strlen(c->name) == len && !memcmp(c->name, name, len))
			return c;
	return NULL;
}

/* May dir have one more below it? Pre: the root's lock. */
static bool has_room(const struct cgroup_group *dir)
{
	uint32_t level = 1;

	if (dir->depth >= CGROUP_DEPTH_MAX)
		return false;
	for (; dir; dir = dir->parent, level++) {
		if (dir->descendants >= dir->max_descendants || level > dir->max_depth)
			return false;
		if (!dir->parent && dir->descendants >= CGROUP_GROUPS_MAX)
			return false;
	}
	return true;
}

static int insert_locked(struct cgroup_group *dir, struct cgroup_group *c)
{
	if (dir->removed)
		return -ENODEV;
	if (find_locked(dir, c->name, strlen(c->name)))
		return -EEXIST;
	if (!has_room(dir))
		return -EAGAIN;
	c->parent = dir;
	c->depth = dir->depth + 1;
	c->id = atomic_fetch_add(&last_id, 1) + 1;
	cgroup_group_ref(dir);
	TAILQ_INSERT_TAIL(&dir->children, c, sibling);
	for (; dir; dir = dir->parent) {
		dir->descendants++;
		atomic_store_explicit(&dir->some, true, memory_order_release);
	}
	return 0;
}

int cgroup_group_create(struct cgroup_group *dir, const char *name, size_t len,
			const struct cgroup_owner *owner)
{
	struct cgroup_group *c = tree_alloc(dir->cg, dir->root, name, len);
	int err;

	if (!c)
		return -ENOMEM;
	for (unsigned i = 0; i < CGROUP_FILES_MAX; i++)
		c->owners[i] = (struct cgroup_owner){.uid = owner->uid, .gid = owner->gid};
	c->owners[0].mode = owner->mode;
	tree_lock(dir);
	err = insert_locked(dir, c);
	tree_unlock(dir);
	if (err)
		cgroup_group_unref(c);
	return err;
}

int cgroup_group_remove(struct cgroup_group *c)
{
	int err = 0;

	tree_lock(c);
	if (c->removed)
		err = -ENODEV;
	else if (!c->parent || c->populated || !TAILQ_EMPTY(&c->children))
		err = -EBUSY;
	else
		unlink_locked(c);
	tree_unlock(c);
	if (!err)
		cgroup_group_unref(c);
	return err;
}

bool cgroup_group_removed(struct cgroup_group *c)
{
	bool removed;

	tree_lock(c);
	removed = c->removed;
	tree_unlock(c);
	return removed;
}

struct cgroup_group *cgroup_group_find(struct cgroup_group *dir, const char *name, size_t len)
{
	struct cgroup_group *c;

	tree_lock(dir);
	c = find_locked(dir, name, len);
	if (c)
		cgroup_group_ref(c);
	tree_unlock(dir);
	return c;
}

struct cgroup_group *cgroup_group_next(struct cgroup_group *dir, int64_t *id)
{
	struct cgroup_group *c;

	tree_lock(dir);
	TAILQ_FOREACH (c, &dir->children, sibling)
		if (c->id >= *id)
			break;
	if (c) {
		*id = c->id;
		cgroup_group_ref(c);
	}
	tree_unlock(dir);
	return c;
}

uint32_t cgroup_group_descendants(struct cgroup_group *c)
{
	uint32_t n;

	tree_lock(c);
	n = c->descendants;
	tree_unlock(c);
	return n;
}

bool cgroup_group_populated(struct cgroup_group *c)
{
	bool populated;

	tree_lock(c);
	populated = c->populated;
	tree_unlock(c);
	return populated;
}

void cgroup_group_owner(struct cgroup_group *c, unsigned file, struct cgroup_owner *ret)
{
	tree_lock(c);
	*ret = c->owners[file];
	tree_unlock(c);
}

void cgroup_group_set_owner(struct cgroup_group *c, unsigned file, const struct cgroup_owner *o,
			    unsigned valid)
{
	struct cgroup_owner *own = &c->owners[file];

	tree_lock(c);
	if (valid & SETATTR_MODE)
		own->mode = o->mode;
	if (valid & SETATTR_UID)
		own->uid = o->uid;
	if (valid & SETATTR_GID)
		own->gid = o->gid;
	tree_unlock(c);
}

void cgroup_group_limits(struct cgroup_group *c, uint32_t *ret_depth, uint32_t *ret_descendants)
{
	tree_lock(c);
	*ret_depth = c->max_depth;
	*ret_descendants = c->max_descendants;
	tree_unlock(c);
}

void cgroup_group_set_limits(struct cgroup_group *c, const uint32_t *depth,
			     const uint32_t *descendants)
{
	tree_lock(c);
	if (depth)
		c->max_depth = *depth;
	if (descendants)
		c->max_descendants = *descendants;
	tree_unlock(c);
}

struct cgroup_group *cgroup_group_common(struct cgroup_group *a, struct cgroup_group *b)
{
	/* Parents do not change. */
	while (a != b) {
		struct cgroup_group **deeper = a->depth >= b->depth ? &a : &b;

		*deeper = (*deeper)->parent;
	}
	cgroup_group_ref(a);
	return a;
}

/* ---- processes ---- */

/* c has a live process more, or one fewer. Pre: the root's lock. */
static void count_locked(struct cgroup_group *c, bool more)
{
	c->members += more ? 1 : -1u;
	if (c->members != (more ? 1 : 0))
		return;
	/* What a group adds to the one above is whether it has any. */
	for (; c; c = c->parent) {
		c->populated += more ? 1 : -1u;
		if (c->populated != (more ? 1 : 0))
			return;
		changed_locked(c);
	}
}

static struct cgroup_group *in_locked(const struct thread_group *g)
{
	return g->group ? g->group : g->cgroup->root;
}

struct cgroup_group *cgroup_group_of(struct thread_group *g)
{
	struct cgroup_group *c;

	tree_lock(g->cgroup->root);
	c = in_locked(g);
	cgroup_group_ref(c);
	tree_unlock(g->cgroup->root);
	return c;
}

bool cgroup_group_has(const struct cgroup_group *c, const struct thread_group *g)
{
	bool has;

	tree_lock(c);
	has = in_locked(g) == c;
	tree_unlock(c);
	return has;
}

int cgroup_group_move(struct cgroup_group *c, const struct cgroup_group *from,
		      struct thread_group *g)
{
	struct cgroup_group *old = NULL;
	int err = 0;

	if (g->cgroup != c->cg)
		return -ENOENT;
	rwlock_read_lock(&kernel.taskset_lock);
	tree_lock(c);
	if (c->removed) {
		err = -ENODEV;
	} else if (in_locked(g) != from) {
		err = -EAGAIN;
	} else if (!g->announced && !g->reaped && from != c) {
		old = g->group;
		g->group = c->parent ? c : NULL;
		g->group_counts = c->parent != NULL;
		if (g->group) {
			cgroup_group_ref(c);
			count_locked(c, true);
		}
		/* After the new one: what is above both is not empty meanwhile, and has no news. */
		if (old)
			count_locked(old, false);
	}
	tree_unlock(c);
	rwlock_read_unlock(&kernel.taskset_lock);
	cgroup_group_unref(old);
	return err;
}

static bool within(const struct cgroup_group *c, const struct cgroup_group *top)
{
	while (c && c != top)
		c = c->parent;
	return c != NULL;
}

/* Return: it lives, and ends now. */
static bool kill_one(struct thread_group *g)
{
	/* As kill(2), so an init does not end by who is inside. */
	const struct moat_siginfo info = {.si_signo = SIGKILL, .si_code = 0 /* SI_USER */};

	if (group_is_dying(g))
		return false;
	(void)!signal_send_group(g, &info);
	return group_is_dying(g);
}

static bool kill_all(struct cgroup_group *c)
{
	struct thread_group *g;
	bool found = false;
	int32_t id = 1;

	while ((g = task_cgroup_next_group(c->cg, &id))) {
		struct cgroup_group *in = cgroup_group_of(g);

		if (within(in, c))
			found |= kill_one(g);
		cgroup_group_unref(in);
		group_unref(g);
		id++;
	}
	return found;
}

void cgroup_group_kill(struct cgroup_group *c)
{
	/* Who was found may have forked past us meanwhile, but does no more (clone_link()). Others may put processes here for ever. */
	for (unsigned i = 0; i < KILL_PASSES_MAX && kill_all(c); i++)
		;
}

int cgroup_fork(const struct thread_group *parent, struct thread_group *g, struct cgroup_group *c)
{
	const struct cgroup_group *root = parent->cgroup->root;
	int err = 0;

	/* There is none to be in. */
	if (likely(!atomic_load_explicit(&root->some, memory_order_acquire)))
		return 0;
	tree_lock(root);
	c = c ? c : parent->group;
	if (c && c->removed) {
		err = -ENODEV;
	} else if (c && c->parent) {
		g->group = c;
		cgroup_group_ref(c);
		count_locked(c, true);
		g->group_counts = true;
	}
	tree_unlock(root);
	return err;
}

void cgroup_left(struct thread_group *g)
{
	/* Nobody moves it meanwhile: taskset_lock, or the last reference. */
	if (likely(!g->group_counts))
		return;
	tree_lock(g->cgroup->root);
	count_locked(g->group, false);
	g->group_counts = false;
	tree_unlock(g->cgroup->root);
}

void cgroup_forget(struct thread_group *g)
{
	cgroup_left(g);
	cgroup_group_unref(g->group);
	g->group = NULL;
}

static void put_path(const struct cgroup_group *c, struct buf *b)
{
	if (!c->parent)
		return;
	put_path(c->parent, b);
	buf_printf(b, "/%s", c->name);
}

void cgroup_path_of(struct thread_group *g, struct buf *b)
{
	struct cgroup_group *c = cgroup_group_of(g);
	char path[CGROUP_PATH_MAX];
	size_t len;

	task_cgroup_path(g->cgroup, path);
	len = strlen(path);
	/* "/" is not doubled. */
	if (c->parent && len && path[len - 1] == '/')
		len--;
	buf_printf(b, "%.*s", (int)len, path);
	put_path(c, b);
	if (cgroup_group_removed(c))
		buf_puts(b, " (deleted)");
	cgroup_group_unref(c);
}
