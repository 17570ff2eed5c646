/* tests/fs/lock_line.h - who waits on the host for a lock of a file, by /proc/locks. */
#ifndef MOAT_TESTS_FS_LOCK_LINE_H
#define MOAT_TESTS_FS_LOCK_LINE_H

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/*
 * Waits for fd's inode's [0, end]. The device's number there is not always stat(2)'s: let `end` be one that nobody else has.
 * UINT_MAX: /proc/locks is not to be read.
 */
static inline unsigned lock_waiters(int fd, unsigned long end)
{
	char line[256], tail[64];
	unsigned count = 0;
	struct stat st;
	FILE *f;

	f = fopen("/proc/locks", "re");
	if (!f || fstat(fd, &st) < 0)
		return ~0u;
	snprintf(tail, sizeof(tail), ":%llu 0 %lu\n", (unsigned long long)st.st_ino, end);
	while (fgets(line, sizeof(line), f))
		count += strstr(line, "->") && strstr(line, tail);
	fclose(f);
	return count;
}

#endif
