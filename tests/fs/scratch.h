/* tests/fs/scratch.h - directories of the host for a test's servers, below one that goes with the process. */
#ifndef MOAT_TESTS_FS_SCRATCH_H
#define MOAT_TESTS_FS_SCRATCH_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

static char scratch_top[64];

static inline void scratch_remove(void)
{
	char cmd[128];

	snprintf(cmd, sizeof(cmd), "rm -rf %s", scratch_top);
	(void)!system(cmd);
}

/* A new directory, its name in path[size]. Return: 0, -errno. */
static inline int scratch_dir(char *path, size_t size)
{
	static unsigned count;

	if (!scratch_top[0]) {
		const char *tmp = getenv("TMPDIR");

		snprintf(scratch_top, sizeof(scratch_top), "%.40s/moat-fs.XXXXXX",
			 tmp ? tmp : "/tmp");
		if (!mkdtemp(scratch_top))
			return -errno;
		atexit(scratch_remove);
	}
	snprintf(path, size, "%s/%u", scratch_top, count++);
	return mkdir(path, 0755) < 0 ? -errno : 0;
}

#endif
