/*
 * runtime/virtiofs.h - virtio-fs daemons that a container's mounts name by their sockets, and our own as a verb.
 *
 * The command line connects, before anything of the sandbox exists, so that a daemon that is not there is an error with its path; the
 * connections go to the sentry, which speaks vhost-user on them before it is confined.
 */
#ifndef MOAT_RUNTIME_VIRTIOFS_H
#define MOAT_RUNTIME_VIRTIOFS_H

#include "runtime/oci.h"

#define VIRTIOFS_DEVICES_MAX 64

/*
 * Fills spec->virtiofs with the sockets of mounts {"type": "virtiofs", "source": "/path"} and connects to them; rootfs_socket, unless NULL, serves the
 * root. *ret_fds has *ret_count connections, in that order. Prints its error. Return: 0, -errno.
 */
must_check int virtiofs_connect(struct boot_spec *spec, const char *rootfs_socket, int **ret_fds,
				unsigned *ret_count);

#endif
