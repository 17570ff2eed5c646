/* fsimpl/gofer/walk.h - a walk under way: walk.c steps, ask.c asks. */
#ifndef MOAT_FSIMPL_GOFER_WALK_H
#define MOAT_FSIMPL_GOFER_WALK_H

#include "fsimpl/gofer/internal.h"

struct gwalk {
	struct gofer_fs *fs;
	struct resolving_path *rp;
	struct remote_dentry *cur; /* a reference */
	/* what the last request could not find: name lookups in `fail_dir` give fail_err */
	struct remote_dentry *fail_dir; /* borrowed: compared only */
	int fail_err;
	bool stale; /* shared: cur's attributes were not asked for yet */
	unsigned fresh; /* components ahead that were just asked for */
	struct gofer_hint *hint; /* NULL: the walk only looks */
};

/*
 * Asks for all that remains of the path, from wk->cur and its current component on, and enters what comes. In a shared tree the answer
 * has wk->cur's attributes too. Pre: tree_lock. Return: 0, -ESTALE (wk->cur is another by now), -errno.
 */
must_check int gofer_walk_ask(struct gwalk *wk);
/* A shared tree's starting point when nothing else is asked: its attributes anew. */
must_check int gofer_refresh(struct gofer_fs *fs, struct remote_dentry *d);

#endif
