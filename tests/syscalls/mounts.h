/* tests/syscalls/mounts.h - for tests that mount: a namespace of their own, and its mountinfo. */
#ifndef MOAT_TESTS_SYSCALLS_MOUNTS_H
#define MOAT_TESTS_SYSCALLS_MOUNTS_H

#include <linux/mount.h>
#include <sched.h>

#include "t.h"

/* sys/mount.h and linux/mount.h exclude each other in this glibc. */
int mount(const char *source, const char *target, const char *type, unsigned long flags,
	  const void *data);
int umount(const char *target);
int umount2(const char *target, int flags);

static inline void own_namespace(void)
{
	if (unshare(CLONE_NEWNS) < 0)
		SKIP("no mount namespaces");
	CHECK_OK(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
}

/* The line of the file that mentions `what`, or "". */
static inline const char *line_in(const char *file, const char *what)
{
	static char line[1024];
	const char *all = t_read(file), *hit = strstr(all, what), *end;

	if (!hit)
		return "";
	while (hit > all && hit[-1] != '\n')
		hit--;
	end = strchrnul(hit, '\n');
	snprintf(line, sizeof(line), "%.*s", (int)(end - hit), hit);
	return line;
}

/* The same of mountinfo. */
static inline const char *line_of(const char *what)
{
	return line_in("/proc/self/mountinfo", what);
}

#endif
