/* runtime/cgroup_files.h - reading and writing the files of a cgroup's directory; for cgroup*.c. */
#ifndef MOAT_RUNTIME_CGROUP_FILES_H
#define MOAT_RUNTIME_CGROUP_FILES_H

#include "runtime/cgroup.h"

must_check int cgroup_file_write(const char *dir, const char *file, const char *value);
/* Without the newlines at its end; malloc'd. NULL: there is none, or it cannot be read. */
char *cgroup_file_read(const char *dir, const char *file);
/* Is `name` in the comma-separated list? */
bool cgroup_list_has(const char *list, const char *name);

/* The directory of the hierarchy with this controller, borrowed; NULL: there is none. */
const char *cgroup_dir_of(const struct cgroup *cg, const char *controller);
/* Of that directory, as cgroup_file_read(). */
char *cgroup_read(const struct cgroup *cg, const char *controller, const char *file);

#endif
