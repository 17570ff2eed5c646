/* fsimpl/synth/internal.h - shared by the files of fsimpl/synth/. */
#ifndef MOAT_FSIMPL_SYNTH_INTERNAL_H
#define MOAT_FSIMPL_SYNTH_INTERNAL_H

#include "fsimpl/synth/synth.h"
#include "vfs/perm.h"

struct synth_fs {
	struct filesystem fs; /* base */
	struct mutex lock; /* LOCK_FS_DIR: changes of every node's `live`, and of `permanent` */
	SLIST_HEAD(, synth_node)
	permanent; /* newest first, so children before their parents; a reference each */
	void *priv;
	void (*release)(void *priv);
};

static inline struct synth_fs *synth_fs_of(struct filesystem *fs)
{
	return (struct synth_fs *)fs;
}
static inline bool synth_is_dir(const struct synth_node *n)
{
	return S_ISDIR(atomic_load_explicit(&n->mode, memory_order_relaxed));
}
static inline bool synth_is_link(const struct synth_node *n)
{
	return S_ISLNK(atomic_load_explicit(&n->mode, memory_order_relaxed));
}

/* node.c */
must_check int synth_lookup(struct synth_node *dir, const char *name, size_t len,
			    struct synth_node **ret);
must_check int synth_root_create(struct filesystem *fs, const struct synth_entry *root, void *priv,
				 struct synth_node **ret);
void synth_dentry_release(struct dentry *d);
/* The filesystem goes: its references on nodes. */
void synth_drop_permanent(struct synth_fs *fs);
/* The directory has no such row now. */
static inline bool synth_leaves_out(const struct synth_node *dir, const struct synth_entry *e)
{
	return dir->ops->leaves_out && e && dir->ops->leaves_out(dir, e);
}
const struct synth_entry *synth_find_entry(struct synth_node *dir, const char *name, size_t len);
must_check int synth_getattr(struct synth_node *n, struct synth_attr *ret);
must_check int synth_permission(struct synth_node *n, const struct cred *cred, int mask);

/* walk.c */
/* Walks to the end, or to the parent of the final component. Returns a reference on success; rp is in reference mode then. */
must_check int synth_walk(struct resolving_path *rp, bool to_parent, struct synth_node **ret);
#define SYNTH_ASK (-4096) /* no errno: what is asked for needs reference mode */
/*
 * The lock-free part of it: 0 with the place in *ret, without a reference; SYNTH_ASK with where it stands in *ret; a restart; -errno. In a
 * read section.
 */
must_check int synth_walk_quick(struct resolving_path *rp, bool to_parent, struct synth_node **ret);
/* From *n, where a quick walk stands, on in reference mode. 0: *n is pinned by rp. */
must_check int synth_settle(struct resolving_path *rp, struct synth_node *n);
/* The same with a whole walk done: the rest of it, or just a reference. */
must_check int synth_walk_on(struct resolving_path *rp, bool to_parent, struct synth_node **ret);
must_check int synth_follow(struct resolving_path *rp, struct synth_node *link);

/* file.c */
must_check int synth_open_node(struct synth_node *n, struct resolving_path *rp,
			       const struct open_args *args, struct file **ret);
int synth_stat_node(struct synth_node *n, const struct stat_args *args, struct moat_statx *ret);

#endif
