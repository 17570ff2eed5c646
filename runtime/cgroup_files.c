/* runtime/cgroup_files.c - reading and writing the files of cgroups. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "runtime/cgroup_files.h"

#define CGROUP_FILE_MAX (4u << 20)

int cgroup_file_write(const char *dir, const char *file, const char *value)
{
	char path[4600];
	int fd, err = 0;

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (write(fd, value, strlen(value)) < 0)
		err = -errno;
	close(fd);
	return err;
}

char *cgroup_file_read(const char *dir, const char *file)
{
	char path[4600], *text = NULL;
	size_t size;

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	if (io_read_file_at(AT_FDCWD, path, CGROUP_FILE_MAX, &text, &size))
		return NULL;
	while (size && text[size - 1] == '\n')
		text[--size] = '\0';
	return text;
}

bool cgroup_list_has(const char *list, const char *name)
{
	size_t len = strlen(name);

	while (*list) {
		size_t n = strcspn(list, ",");

		if (n == len && memcmp(list, name, len) == 0)
			return true;
		list += n + (list[n] == ',');
	}
	return false;
}

const char *cgroup_dir_of(const struct cgroup *cg, const char *controller)
{
	for (unsigned i = 0; i < cg->ndirs; i++)
		if (cg->version == 2 || cgroup_list_has(cg->dirs[i].controllers, controller))
			return cg->dirs[i].path;
	return NULL;
}

char *cgroup_read(const struct cgroup *cg, const char *controller, const char *file)
{
	const char *dir = cgroup_dir_of(cg, controller);

	return dir ? cgroup_file_read(dir, file) : NULL;
}
