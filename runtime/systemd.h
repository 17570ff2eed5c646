/*
 * runtime/systemd.h - the systemd cgroup manager: a container's cgroup as a transient scope of systemd's.
 *
 * systemd makes the unit, with the monitor as its first process, and knows its limits; what lies below is the container's (Delegate=yes),
 * so the same files are written as by the cgroupfs manager, and survive `systemctl daemon-reload`. The calls, their properties and their order are
 * runc's. libsystemd is loaded when the first call is made: nobody else pays for it.
 */
#ifndef MOAT_RUNTIME_SYSTEMD_H
#define MOAT_RUNTIME_SYSTEMD_H

#include <jansson.h>

#include "runtime/cgroup.h"

#define SYSTEMD_PATH_MAX 1024

/*
 * "slice:prefix:name" (NULL or "": system.slice, or a user's user.slice, "moat", the id) to the slice and the unit, both malloc'd, and
 * the unit's path below the manager's own cgroup. Return 0, -EINVAL with `why`, -ENOMEM. Pure.
 */
must_check int systemd_names(const char *cgroups_path, const char *id, bool user, char **ret_slice,
			     char **ret_unit, char **ret_below, char *why);
/* The cgroup of the user's own manager ("/user.slice/user-1000.slice/user@1000.service"), malloc'd. Return 0 or -errno with `why`. */
must_check int systemd_user_group(char **ret, char *why);
/* Is systemd the host's init? */
bool systemd_runs(void);
/*
 * StartTransientUnit, and waits for its job. `annotations` (or NULL): what org.systemd.property.NAME says. Return 0 or -errno with `why`:
 * -EEXIST if systemd refused, and a unit of that name, if there is one, is somebody else's.
 */
must_check int systemd_start_scope(const struct cgroup *cg, int pid, const json_t *annotations,
				   char *why);
/* SetUnitProperties, for this boot, from linux.resources. Return 0 or -errno with `why`. */
must_check int systemd_set_resources(const struct cgroup *cg, const json_t *resources, char *why);
/* AttachProcessesToUnit, a process of the caller's user. Return 0 or -errno. */
must_check int systemd_attach(const struct cgroup *cg, int pid);
/* StopUnit and its end; a unit that is not there is none to stop. Return 0 or -errno. */
must_check int systemd_stop_scope(const struct cgroup *cg);

#endif
