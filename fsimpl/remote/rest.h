/* fsimpl/remote/rest.h - what remains of a path, for one request about all of it. */
#ifndef MOAT_FSIMPL_REMOTE_REST_H
#define MOAT_FSIMPL_REMOTE_REST_H

#include "fsimpl/remote/dcache.h"
#include "vfs/resolving_path.h"

/*
 * The names from rp's current one on, in the text that it stands in (the path, or a symlink's), as far as they say where they lead: up to "..",
 * to a name that is too long, and to a cached child that may be a mount point, which is the last. "." is skipped.
 */
struct remote_rest {
	const char *name; /* not terminated */
	size_t len;
	bool last; /* the path ends with it, with no slash nor "." behind it, and it is no mount point */
	/* its own */
	struct remote_dcache *c;
	struct remote_dentry *dir; /* what the cache has of the way so far; NULL: nothing */
	const char *next, *end;
	bool outer; /* the text is the path's end, not a symlink's before it */
};
/* Pre: a component is left. In an RCU read section until the last remote_rest_next(). */
void remote_rest_begin(struct remote_rest *r, struct remote_dcache *c, struct remote_dentry *dir,
		       const struct resolving_path *rp);
/* False: no more. */
bool remote_rest_next(struct remote_rest *r);

#endif
