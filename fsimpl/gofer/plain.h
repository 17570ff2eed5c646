/* fsimpl/gofer/plain.h - compound requests by plain ones: plain.c walks and looks, plain_change.c changes. */
#ifndef MOAT_FSIMPL_GOFER_PLAIN_H
#define MOAT_FSIMPL_GOFER_PLAIN_H

#include "fsimpl/gofer/internal.h"

/* One compound request under way. */
struct plain {
	struct p9_conn *c;
	const struct p9_msg *t;
	struct p9_msg r; /* the reply that is made up; fields may point into what follows */
	uint8_t *nodes; /* P9_NODES_MAX of them */
	uint16_t count;
	char target[P9_PATH_MAX + 1];
	uint16_t target_len; /* 0: the walk met no symlink */
	uint8_t *blob; /* owned: a payload, or NULL */
	uint32_t blob_size;
	int open_fid; /* -1, or what takes a donated descriptor's place */
	/* the walk */
	uint32_t fid; /* where it stands */
	bool own; /* fid is the walk's: give it back */
	struct p9_node at; /* what is there, if looked is set */
	bool looked;
	const char *next; /* what is left of the path */
	size_t left;
	bool stopped;
	int err; /* that ended it */
};

/*
 * From t's fid along path, past `skip` names without looking, then a node each until `keep` names are left.
 * Return: 0, also when it stopped early; -errno for what the skipped part gave.
 */
must_check int plain_walk(struct plain *p, uint32_t fid, struct p9_str path, unsigned skip,
			  bool self, unsigned keep);
/* Puts the walk back to the state of none. */
void plain_walk_end(struct plain *p);
must_check int plain_look(struct p9_conn *c, uint32_t fid, enum p9_wait wait, struct p9_node *ret);
/* newfid is the file of that name below fid, or fid's own file without a name. */
must_check int plain_step(struct p9_conn *c, uint32_t fid, uint32_t newfid,
			  const struct p9_str *name, enum p9_wait wait);
/* Sends a request whose reply says nothing. */
must_check int plain_do(struct p9_conn *c, struct p9_msg *t, enum p9_wait wait);
/* Another node of the reply. */
void plain_add(struct plain *p, const struct p9_node *node);
/* The last name of a walk that kept it. */
struct p9_str plain_last(const struct plain *p);
/* Opens fid's file for Tmopen and Tmcreate: bound to newfid, or as *p's open_fid. */
must_check int plain_open(struct plain *p, uint32_t fid, const struct p9_node *node,
			  uint32_t newfid, uint32_t want, uint32_t flags, uint8_t *ret_bound,
			  uint8_t *ret_donated);
must_check int plain_readlink(struct plain *p, uint32_t fid);

/* plain_change.c, plain_xattr.c: one compound request each; the reply in p->r. */
int plain_mcreate(struct plain *p);
int plain_make(struct plain *p); /* Tmmkdir, Tmmknod, Tmsymlink, Tmlink */
int plain_munlink(struct plain *p);
int plain_mrename(struct plain *p);
int plain_msetattr(struct plain *p);
int plain_mgetxattr(struct plain *p);
int plain_mlistxattr(struct plain *p);
int plain_msetxattr(struct plain *p);
int plain_mremovexattr(struct plain *p);

#endif
