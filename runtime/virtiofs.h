/*
 * runtime/virtiofs.h - virtio-fs daemons that a container's mounts name by their sockets, and our own as a verb.
 *
 * The command line connects, before anything of the sandbox exists, so that a daemon that is not there is an error with its path; the
 * connections go to the sentry, which speaks vhost-user on them before it is confined. The monitor keeps the sockets' directories, to connect again for a
 * sentry whose daemon was restarted: by then the monitor may be in the container's own tree, where the paths mean nothing.
 */
#ifndef MOAT_RUNTIME_VIRTIOFS_H
#define MOAT_RUNTIME_VIRTIOFS_H

#include "runtime/oci.h"
#include "wire/control.h"

#define VIRTIOFS_DEVICES_MAX CONTROL_DEVICES_MAX
#define VIRTIOFS_KEPT_MAX (2 * VIRTIOFS_DEVICES_MAX)

/* The daemons of a container. */
struct virtiofs_sockets {
	unsigned count;
	int *fds; /* connections, in the monitor the latest; owned */
	struct virtiofs_place *places; /* for connecting again; owned */
	int again; /* the monitor's end of where the sentry asks for that; -1 */
};

/*
 * Fills spec->virtiofs with the sockets of mounts {"type": "virtiofs", "source": "/path"} and connects to them; rootfs_socket, unless NULL, serves the
 * root. The connections are in that order. Prints its error. Return: 0, -errno; virtiofs_sockets_fini() in any case.
 */
must_check int virtiofs_connect(struct boot_spec *spec, const char *rootfs_socket,
				struct virtiofs_sockets *ret);
void virtiofs_sockets_fini(struct virtiofs_sockets *v);
/* The descriptors that belong to them, at most VIRTIOFS_KEPT_MAX, into ret (-1: none). Return their count. */
size_t virtiofs_sockets_kept(const struct virtiofs_sockets *v, int *ret);
/*
 * The monitor's: the sentry has asked on v->again for a connection to a daemon that went away (sentry/boot/boot.h). A daemon that is not there is
 * an answer without a descriptor, and so is one that is bound to another name, or another user's, than the first. The connection before is shut down.
 * v->again is closed when the sentry is gone. Does not block.
 */
void virtiofs_connect_again(struct virtiofs_sockets *v);

#endif
