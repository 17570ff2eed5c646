/* runtime/virtiofs.c - connections to file servers that were there before: virtio-fs daemons, and 9P servers such as diod. */
#include "runtime/virtiofs.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "runtime/cli.h"

static int connect_to(const char *path, bool is_9p)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd, err;

	if (strlen(path) >= sizeof(addr.sun_path)) {
		cli_error("virtio-fs socket %s: the path is longer than %zu bytes", path,
			  sizeof(addr.sun_path) - 1);
		return -ENAMETOOLONG;
	}
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		err = -errno;
		cli_error("virtio-fs socket: %m");
		return err;
	}
	memcpy(addr.sun_path, path, strlen(path));
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		err = -errno;
		if (is_9p)
			cli_error("9p socket %s: %m; start the server first, for example "
				  "diod -f -n -e DIR -l %s",
				  path, path);
		else
			cli_error("virtio-fs socket %s: %m; start the daemon first: "
				  "moat gofer --virtiofs --shared-dir DIR --socket %s",
				  path, path);
		close(fd);
		return err;
	}
	return fd;
}

/* Appends path to spec->virtiofs and its connection to fds, unless it is there. */
static int add(struct boot_spec *spec, const char *path, bool is_9p, int *fds,
	       unsigned *inout_count)
{
	unsigned n = *inout_count;
	int fd;

	for (unsigned i = 0; i < n; i++)
		if (!strcmp(spec->virtiofs[i], path))
			return 0;
	if (n == VIRTIOFS_DEVICES_MAX) {
		cli_error("more than %d virtio-fs devices", VIRTIOFS_DEVICES_MAX);
		return -E2BIG;
	}
	fd = connect_to(path, is_9p);
	if (fd < 0)
		return fd;
	fds[n] = fd;
	spec->virtiofs[n] = strdup(path);
	*inout_count = n + 1;
	return spec->virtiofs[n] ? 0 : -ENOMEM;
}

int virtiofs_connect(struct boot_spec *spec, const char *rootfs_socket, int **ret_fds,
		     unsigned *ret_count)
{
	int *fds = calloc(VIRTIOFS_DEVICES_MAX, sizeof(*fds)), err = 0;

	*ret_count = 0;
	*ret_fds = fds;
	spec->virtiofs = calloc(VIRTIOFS_DEVICES_MAX + 1, sizeof(*spec->virtiofs));
	if (!fds || !spec->virtiofs)
		return -ENOMEM;
	if (rootfs_socket) {
		spec->rootfs = BOOT_ROOTFS_VIRTIOFS;
		err = add(spec, rootfs_socket, false, fds, ret_count);
	}
	for (unsigned i = 0; i < spec->nmounts && !err; i++) {
		const struct boot_mount *m = &spec->mounts[i];

		if (strcmp(m->type, "virtiofs") != 0 && strcmp(m->type, "9p") != 0)
			continue;
		if (!m->source || m->source[0] != '/') {
			cli_error("mount %s of type %s: its source must be the absolute path of a "
				  "daemon's socket",
				  m->destination, m->type);
			return -EINVAL;
		}
		err = add(spec, m->source, !strcmp(m->type, "9p"), fds, ret_count);
	}
	return err;
}
