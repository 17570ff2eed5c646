/*
 * runtime/notify.h - NOTIFY_SOCKET: what the container's program tells a service manager by sd_notify(3).
 *
 *	config.json's environment has it	an engine's: the file is a socket below a bind mount, which the engine reads
 *						(podman --sdnotify=container). The sandbox gets a descriptor that is connected to it.
 *	moat's own environment has it		a unit of systemd's runs us: as runc, the container gets /run/notify/notify.sock, and
 *						READY= goes on to the host's socket with the monitor's pid as MAINPID.
 */
#ifndef MOAT_RUNTIME_NOTIFY_H
#define MOAT_RUNTIME_NOTIFY_H

#include <sys/types.h>

#include "runtime/oci.h"

#define NOTIFY_MESSAGE_MAX 4096 /* as runc reads */

struct notify {
	int guest_fd; /* the sentry's end; -1: the container has none */
	int in_fd; /* what the container sent; -1: goes to its reader directly */
	int host_fd; /* connected to the service manager's */
	pid_t main_pid; /* as the host sees it */
	bool ready; /* has been passed on */
};

void notify_init(struct notify *n);
/* Changes the configuration (a mount, a variable) where it is ours to serve. Nobody listens: a warning, and none. Prints its errors. */
must_check int notify_prepare(struct notify *n, struct oci_config *c);
void notify_close(struct notify *n);
/* in_fd is readable: passes on what is to be passed on. */
void notify_forward(struct notify *n);

#endif
