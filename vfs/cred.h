/*
 * vfs/cred.h - credentials: immutable, reference counted, interned by id.
 *
 * A struct cred never changes after cred_commit(); a task changes credentials by replacing its pointer. `id` is equal
 * for equal contents (path cache key). User namespaces: ids are kuids (the sandbox's own numbering);
 * mapping is done at the system call boundary.
 */
#ifndef MOAT_VFS_CRED_H
#define MOAT_VFS_CRED_H

#include "base/rcu.h"
#include "base/ref.h"

#define CRED_GROUPS_MAX 65536
#define CAP_LAST 40 /* CAP_CHECKPOINT_RESTORE */
#define CAP_FULL ((1ull << (CAP_LAST + 1)) - 1)

struct user_namespace; /* sentry's; NULL is the initial one */

struct cred {
	struct ref ref;
	struct rcu_cb rcu;
	uint64_t id; /* interned; 0 until committed */
	uint32_t uid, euid, suid, fsuid;
	uint32_t gid, egid, sgid, fsgid;
	uint64_t cap_permitted, cap_effective, cap_inheritable, cap_bounding, cap_ambient;
	uint32_t securebits;
	bool no_new_privs;
	struct user_namespace *user_ns;
	uint32_t ngroups;
	uint32_t *groups; /* sorted; owned */
};

/* root with every capability. Returns a reference. */
must_check int cred_create_root(struct cred **ret);
/* A private copy to change, then cred_commit(). */
must_check int cred_prepare(const struct cred *old, struct cred **ret);
must_check int cred_set_groups(struct cred *c, const uint32_t *groups,
			       uint32_t count); /* prepared only; sorts */
void cred_commit(struct cred *c); /* gives it its id; immutable from here */
struct cred *cred_ref(const struct cred *c);
void cred_unref(const struct cred *c);

static inline bool cred_has_cap(const struct cred *c, int cap)
{
	return (c->cap_effective >> cap) & 1;
}
bool cred_in_group(const struct cred *c, uint32_t gid); /* fsgid or supplementary */
bool cred_in_egroup(const struct cred *c, uint32_t gid);

/* The credentials of the calling thread for code that has no rp (file ops). Set by the sentry per task; borrowed. */
const struct cred *cred_current(void);
void cred_set_current(const struct cred *c);

#endif
