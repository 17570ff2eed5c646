/*
 * sentry/fscontext.c - root, working directory and umask, as CLONE_FS shares them.
 *
 * The pair of places is one object, replaced as a whole: readers find it under RCU and count themselves in it; what it
 * refers to is let go when the last of them is done.
 */
#include <sched.h>
#include <stdlib.h>

#include "base/lock.h"
#include "sentry/fdtable.h"

struct fs_context {
	struct ref ref;
	struct mutex lock; /* LOCK_FSCONTEXT: changes of places */
	struct fs_places *_Atomic places; /* a reference; never NULL */
	_Atomic uint32_t umask;
};

static REF_TYPE(fs_context_type, "fs_context");
static REF_TYPE(fs_places_type, "fs_places");

/* Takes references of its own. */
static struct fs_places *places_create(const struct vfs_path *root, const struct vfs_path *cwd)
{
	struct fs_places *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	ref_init(&p->ref, &fs_places_type);
	p->root = *root;
	p->cwd = *cwd;
	vfs_path_ref(&p->root);
	vfs_path_ref(&p->cwd);
	return p;
}

static void places_free_cb(struct rcu_cb *cb)
{
	free(container_of(cb, struct fs_places, rcu));
}

void fs_places_unpin(struct fs_places *p)
{
	if (!ref_put(&p->ref))
		return;
	vfs_path_unref(&p->cwd);
	vfs_path_unref(&p->root);
	ref_fini(&p->ref, &fs_places_type);
	rcu_call(&p->rcu, places_free_cb);
}

struct fs_places *fs_context_pin(struct fs_context *c)
{
	struct fs_places *p;

	rcu_read_begin();
	/* One that is going away has been replaced. */
	do
		p = rcu_load(c->places);
	while (!ref_tryget(&p->ref));
	rcu_read_end();
	return p;
}

int fs_context_create(const struct vfs_path *root, const struct vfs_path *cwd, uint32_t umask,
		      struct fs_context **ret)
{
	struct fs_context *c = calloc(1, sizeof(*c));
	struct fs_places *p = c ? places_create(root, cwd) : NULL;

	if (!p) {
		free(c);
		return -ENOMEM;
	}
	ref_init(&c->ref, &fs_context_type);
	mutex_init(&c->lock, LOCK_FSCONTEXT, "fs_context");
	atomic_init(&c->places, p);
	atomic_init(&c->umask, umask & 0777);
	*ret = c;
	return 0;
}

int fs_context_fork(struct fs_context *old, struct fs_context **ret)
{
	struct fs_places *p = fs_context_pin(old);
	int err = fs_context_create(&p->root, &p->cwd, fs_context_umask(old), ret);

	fs_places_unpin(p);
	return err;
}

void fs_context_ref(struct fs_context *c)
{
	ref_get(&c->ref);
}

void fs_context_unref(struct fs_context *c)
{
	if (!ref_put(&c->ref))
		return;
	fs_places_unpin(rcu_load(c->places));
	ref_fini(&c->ref, &fs_context_type);
	free(c);
}

bool fs_context_shared(struct fs_context *c)
{
	return ref_read(&c->ref) > 1;
}

void fs_context_get_root(struct fs_context *c, struct vfs_path *ret)
{
	struct fs_places *p = fs_context_pin(c);

	*ret = p->root;
	vfs_path_ref(ret);
	fs_places_unpin(p);
}

void fs_context_get_cwd(struct fs_context *c, struct vfs_path *ret)
{
	struct fs_places *p = fs_context_pin(c);

	*ret = p->cwd;
	vfs_path_ref(ret);
	fs_places_unpin(p);
}

/* What becomes of the current pair. */
struct places_change {
	const struct vfs_path *old; /* only what equals it; NULL: whatever is there */
	const struct vfs_path *root, *cwd; /* NULL: stays */
};

static void change_places(struct fs_context *c, const struct places_change *how)
{
	struct fs_places *old, *now;

	/* Held: nobody else drops the context's reference on the current pair. */
	mutex_lock(&c->lock);
	old = rcu_load(c->places);
	for (;;) {
		bool root = how->root && (!how->old || vfs_path_equal(&old->root, how->old));
		bool cwd = how->cwd && (!how->old || vfs_path_equal(&old->cwd, how->old));

		if (!root && !cwd) {
			mutex_unlock(&c->lock);
			return;
		}
		now = places_create(root ? how->root : &old->root, cwd ? how->cwd : &old->cwd);
		if (now)
			break;
		/* chdir(2) and its kin have no error for this: until there is memory. */
		mutex_unlock(&c->lock);
		sched_yield();
		mutex_lock(&c->lock);
		old = rcu_load(c->places);
	}
	rcu_store(c->places, now);
	mutex_unlock(&c->lock);
	fs_places_unpin(old);
}

void fs_context_set_root(struct fs_context *c, const struct vfs_path *p)
{
	change_places(c, &(struct places_change){.root = p});
}

void fs_context_set_cwd(struct fs_context *c, const struct vfs_path *p)
{
	change_places(c, &(struct places_change){.cwd = p});
}

uint32_t fs_context_umask(struct fs_context *c)
{
	return atomic_load_explicit(&c->umask, memory_order_relaxed);
}

uint32_t fs_context_set_umask(struct fs_context *c, uint32_t mask)
{
	return atomic_exchange_explicit(&c->umask, mask & 0777, memory_order_relaxed);
}

void fs_context_replace(struct fs_context *c, const struct vfs_path *old,
			const struct vfs_path *now)
{
	change_places(c, &(struct places_change){.old = old, .root = now, .cwd = now});
}
