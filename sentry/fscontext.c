/* sentry/fscontext.c - root, working directory and umask, as CLONE_FS shares them. */
#include <stdlib.h>

#include "base/lock.h"
#include "sentry/fdtable.h"

struct fs_context {
	struct ref ref;
	struct mutex lock; /* LOCK_FSCONTEXT */
	struct vfs_path root, cwd; /* guarded by lock; references */
	_Atomic uint32_t umask;
};

static REF_TYPE(fs_context_type, "fs_context");

int fs_context_create(const struct vfs_path *root, const struct vfs_path *cwd, uint32_t umask,
		      struct fs_context **ret)
{
	struct fs_context *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	ref_init(&c->ref, &fs_context_type);
	mutex_init(&c->lock, LOCK_FSCONTEXT, "fs_context");
	c->root = *root;
	c->cwd = *cwd;
	vfs_path_ref(&c->root);
	vfs_path_ref(&c->cwd);
	atomic_init(&c->umask, umask & 0777);
	*ret = c;
	return 0;
}

int fs_context_fork(struct fs_context *old, struct fs_context **ret)
{
	struct vfs_path root, cwd;
	int err;

	mutex_lock(&old->lock);
	root = old->root;
	cwd = old->cwd;
	vfs_path_ref(&root);
	vfs_path_ref(&cwd);
	mutex_unlock(&old->lock);
	err = fs_context_create(&root, &cwd, fs_context_umask(old), ret);
	vfs_path_unref(&root);
	vfs_path_unref(&cwd);
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
	vfs_path_unref(&c->cwd);
	vfs_path_unref(&c->root);
	ref_fini(&c->ref, &fs_context_type);
	free(c);
}

bool fs_context_shared(struct fs_context *c)
{
	return ref_read(&c->ref) > 1;
}

static void get_path(struct fs_context *c, const struct vfs_path *p, struct vfs_path *ret)
{
	mutex_lock(&c->lock);
	*ret = *p;
	vfs_path_ref(ret);
	mutex_unlock(&c->lock);
}

void fs_context_get_root(struct fs_context *c, struct vfs_path *ret)
{
	get_path(c, &c->root, ret);
}

void fs_context_get_cwd(struct fs_context *c, struct vfs_path *ret)
{
	get_path(c, &c->cwd, ret);
}

static void set_path(struct fs_context *c, struct vfs_path *field, const struct vfs_path *p)
{
	struct vfs_path old;

	vfs_path_ref(p);
	mutex_lock(&c->lock);
	old = *field;
	*field = *p;
	mutex_unlock(&c->lock);
	vfs_path_unref(&old);
}

void fs_context_set_root(struct fs_context *c, const struct vfs_path *p)
{
	set_path(c, &c->root, p);
}

void fs_context_set_cwd(struct fs_context *c, const struct vfs_path *p)
{
	set_path(c, &c->cwd, p);
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
	struct vfs_path drop[2];
	unsigned n = 0;

	mutex_lock(&c->lock);
	if (vfs_path_equal(&c->root, old)) {
		vfs_path_ref(now);
		drop[n++] = c->root;
		c->root = *now;
	}
	if (vfs_path_equal(&c->cwd, old)) {
		vfs_path_ref(now);
		drop[n++] = c->cwd;
		c->cwd = *now;
	}
	mutex_unlock(&c->lock);
	while (n)
		vfs_path_unref(&drop[--n]);
}
