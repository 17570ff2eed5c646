/*
 * runtime/userns.h - the user namespace that a sandbox runs in.
 *
 * None of its own for a caller with CAP_SYS_ADMIN whose configuration asks for none. Otherwise one is made together with the monitor's
 * other namespaces, which it then owns:
 *
 *	linux.namespaces has "user"        with linux.uidMappings and gidMappings, or the namespace of `path`
 *	the caller has no CAP_SYS_ADMIN    with the caller's own ids as root's (or the configuration's mappings)
 *
 * The gofer is root there, so the host translates the owners of files. The monitor stays who it was: state directory
 * and cgroup are the caller's. More ids than the caller's own need CAP_SETUID, or newuidmap(1) and newgidmap(1).
 */
#ifndef MOAT_RUNTIME_USERNS_H
#define MOAT_RUNTIME_USERNS_H

#include <sys/types.h>

#include "base/compiler.h"
#include "runtime/oci.h"

#define USERNS_MAPS_MAX 340 /* the kernel's own limit */

struct id_map {
	uint32_t inside, outside, count;
};

struct userns {
	bool create;
	bool unprivileged; /* the caller has no CAP_SYS_ADMIN */
	const char *path; /* of the configuration; NULL */
	struct id_map *uids, *gids; /* nuids, ngids: of a created one */
	unsigned nuids, ngids;
};

/* Has the caller CAP_SYS_ADMIN in its user namespace? */
must_check bool userns_privileged(void);
/* The caller's /proc/self/uid_map or gid_map, malloc'd; NULL if it cannot be read. */
char *userns_map_text(const char *file);
/* Is the caller in the user namespace that the host began with? */
must_check bool userns_is_initial(void);
/* What this caller needs for this configuration. Prints its error. */
must_check int userns_plan(const struct oci_config *c, struct userns *ret);
void userns_fini(struct userns *u);
/* The caller writes the mappings of its new child. Prints its error. */
must_check int userns_write_maps(const struct userns *u, pid_t pid);
/* Enters an existing one, if it is not the caller's already. Return 0 or -errno. */
must_check int userns_enter(const char *path);
/* What to say when the namespaces cannot be made. */
void userns_explain(const struct userns *u, int err);
/* In a child: becomes root of its user namespace (if it is not), with a primary group only. Return 0 or -errno. */
must_check int userns_become_root(void);
/* In a child that is not root there: its capabilities outlive execve(2). */
must_check int userns_keep_caps(void);

#endif
