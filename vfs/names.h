/*
 * vfs/names.h - a directory's live children by name, for filesystems whose dentries come and go (overlay, synth).
 *
 * A hash table that readers look at under RCU, without a lock and without writing anything. It is changed under the directory's lock.
 * A lookup that finds nothing says nothing: the table may just be growing. What is found may be on its way out: tryref, or the
 * read section, is what makes it usable. A name and the directory that it is in are one pointer, replaced as a whole.
 */
#ifndef MOAT_VFS_NAMES_H
#define MOAT_VFS_NAMES_H

#include "base/lock.h"
#include "base/rcu.h"
#include "vfs/resolving_path.h"

struct name {
	struct rcu_cb rcu;
	void *parent; /* the directory; NULL: a root. Who embeds the node says what keeps it alive */
	uint32_t hash;
	uint16_t len;
	char s[]; /* NUL-terminated, and zeroes up to eight bytes */
};

/* In the child. Freed after a grace period by whoever embeds it, with its name. */
struct name_node {
	struct name_node *_Atomic next; /* RCU; changed under the directory's lock */
	struct name *_Atomic name; /* RCU; never NULL */
	bool linked; /* guarded by the directory's lock */
};

struct name_buckets;

struct names {
	struct name_buckets *_Atomic table; /* NULL: one chain, `first` */
	struct name_node *_Atomic first;
	uint32_t count; /* guarded by the directory's lock */
	struct seqcount moved; /* changes when nodes change chains or leave */
};

must_check int name_create(void *parent, const char *s, size_t len, struct name **ret);
/* After a grace period. */
void name_free_later(struct name *n);

static inline struct name *name_of(const struct name_node *n)
{
	return rcu_load(n->name);
}

/* RCU read section. vfs_name_hash() gives `hash`. */
struct name_node *names_find(const struct names *t, const void *parent, uint32_t hash,
			     const char *s, size_t len);
/* The directory's lock is held; then what is not found is not there. */
void names_insert(struct names *t, struct name_node *n);
/* Nothing if it is not in there. */
void names_remove(struct names *t, struct name_node *n);
/*
 * each(arg, node) on every node until it returns false. RCU read section. False if it did, or if nodes moved meanwhile, so that
 * some may have been missed; those that were inserted meanwhile may be.
 */
must_check bool names_each(struct names *t, bool (*each)(void *arg, struct name_node *n),
			   void *arg);
void names_fini(struct names *t); /* empty; readers may still be there */

#endif
