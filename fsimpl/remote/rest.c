/* fsimpl/remote/rest.c - see rest.h. */
#include "fsimpl/remote/rest.h"

void remote_rest_begin(struct remote_rest *r, struct remote_dcache *c, struct remote_dentry *dir,
		       const struct resolving_path *rp)
{
	const char *name = rp_component(rp);

	*r = (struct remote_rest){.c = c, .dir = dir, .next = name, .outer = rp->nparts <= 1};
	/* Behind the last component no text is left. */
	r->end = rp->nparts ? rp->parts[rp->nparts - 1].end : name + rp_component_len(rp);
	/* A component's text ends before its slash. */
	if (rp_final(rp) && rp->trailing_slash)
		r->outer = false;
}

/* Steps to the cached child, if there is one, without a reference. */
static void step_cached(struct remote_rest *r)
{
	struct remote_dentry *d = r->dir ? remote_find_rcu(r->c, r->dir, r->name, r->len) : NULL;

	r->dir = d && d->inode ? d : NULL;
	if (!r->dir || !(atomic_load(&d->d.flags) & (DENTRY_MAYBE_MOUNTPOINT | DENTRY_AUTOMOUNT)))
		return;
	r->next = r->end;
	r->last = false;
}

bool remote_rest_next(struct remote_rest *r)
{
	const char *at = r->next;
	bool spaced;

	do {
		while (at < r->end && *at == '/')
			at++;
		r->name = at;
		while (at < r->end && *at != '/')
			at++;
		r->len = (size_t)(at - r->name);
	} while (r->len == 1 && r->name[0] == '.');
	if (!r->len || r->len > VFS_NAME_MAX ||
	    (r->len == 2 && r->name[0] == '.' && r->name[1] == '.')) {
		r->next = r->end;
		return false;
	}
	spaced = at < r->end;
	r->next = at;
	r->last = !spaced && r->outer;
	step_cached(r);
	return true;
}
