/*
 * sentry/boot/boot_notify.c - NOTIFY_SOCKET: sd_notify(3) from inside the container.
 *
 * The runtime (runtime/notify.c) connected a datagram socket of the host's and hands it over. Where the container's own path names a socket that the
 * host bound (podman mounts a directory with one), that file gets our endpoint; where nothing is there, one is made.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "fsimpl/gofer/gofer_fs.h"
#include "fsimpl/socket/socket.h"
#include "sentry/boot/internal.h"

static int attach(struct boot_container *b, const char *path, struct vfs_endpoint *e)
{
	struct vfs_lookup lk = boot_lookup(b, path, LOOKUP_FOLLOW);
	struct vfs_path p;
	int err = vfs_get_path(&lk, &p);

	if (!err) {
		err = gofer_fs_set_endpoint(p.dentry, e);
		vfs_path_unref(&p);
		return err;
	}
	if (err != -ENOENT)
		return err;
	lk.flags = 0;
	return vfs_mknod(&lk, &(struct mknod_args){.mode = S_IFSOCK | 0777, .endpoint = e});
}

void boot_make_notify(struct boot_container *b)
{
	const char *path = boot_env_value(b->spec.envp, "NOTIFY_SOCKET");
	struct vfs_endpoint *e = NULL;
	int err;

	if (b->spec.notify_fd < 0)
		return;
	err = path && path[0] == '/' ? socket_relay_create(b->spec.notify_fd, &e) : -EINVAL;
	if (!err) {
		err = attach(b, path, e);
		if (ref_put(&e->ref))
			e->release(e);
	} else {
		close(b->spec.notify_fd);
	}
	if (err)
		log_error("NOTIFY_SOCKET %s: %s", path ? path : "", strerror(-err));
}
