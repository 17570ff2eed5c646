/* base/sysctl.c - see sysctl.h. */
#include "base/sysctl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

bool sysctl_is_network(const char *line)
{
	return strncmp(line, "net.", 4) == 0 || strncmp(line, "net/", 4) == 0;
}

bool sysctl_is_sentrys(const char *name)
{
	return strcmp(name, SYSCTL_PORT_START) == 0 || strcmp(name, SYSCTL_PING_RANGE) == 0;
}

int sysctl_network_split(const char *line, char *ret_name, size_t size, const char **ret_value)
{
	const char *value = strchr(line, '=');
	size_t len;

	if (!value || value < line + 4)
		return -EINVAL;
	len = (size_t)(value - line) - 4;
	if (len >= size)
		return -ENAMETOOLONG;
	memcpy(ret_name, line + 4, len);
	ret_name[len] = '\0';
	for (char *p = ret_name; line[3] == '.' && *p; p++)
		*p = *p == '.' ? '/' : *p == '/' ? '.' : *p;
	if (strstr(ret_name, ".."))
		return -EINVAL;
	*ret_value = value + 1;
	return 0;
}

int sysctl_network_write(const char *name, const char *value)
{
	char path[256];
	ssize_t n;
	int fd, err = 0, len = snprintf(path, sizeof(path), "/proc/sys/net/%s", name);

	if (len < 0 || (size_t)len >= sizeof(path))
		return -ENAMETOOLONG;
	fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	n = write(fd, value, strlen(value));
	if (n < 0)
		err = -errno;
	close(fd);
	return err;
}
