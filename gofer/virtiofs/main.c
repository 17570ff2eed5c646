/*
 * gofer/virtiofs/main.c - the daemon: one connection after another.
 *
 * One directory tree, served over vhost-user and FUSE 7.38. Each request queue has a thread; requests of one queue are served in order. Performs: a LOOKUP is
 * one openat and one statx; data is read and written in the client's memory. Watch: the log. Cannot yet: DAX, the version table, locks, POSIX ACLs,
 * O_TMPFILE, changes of xattrs on links and devices.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gofer/virtiofs/server.h"

static int serve_connection(struct daemon *d, int sock)
{
	int err = session_start(d);

	if (err) {
		log_error("virtiofs: the shared directory cannot be opened: %s", strerror(-err));
		close(sock);
		return err;
	}
	d->sock = sock;
	err = vhost_serve(d);
	if (err)
		log_warn("virtiofs: the connection ends: %s", strerror(-err));
	session_end(d);
	close(sock);
	return err;
}

static int serve_all(struct daemon *d)
{
	for (;;) {
		int sock = accept4(d->config.listen_fd, NULL, NULL, SOCK_CLOEXEC), err;

		if (sock < 0) {
			if (errno == EINTR || errno == ECONNABORTED)
				continue;
			return -errno;
		}
		err = serve_connection(d, sock);
		if (d->config.once)
			return err;
	}
}

int virtiofsd_main(const struct virtiofsd_config *config)
{
	unsigned queues = config->queues ? config->queues : VIRTIOFSD_QUEUES_DEFAULT;
	struct daemon *d = calloc(1, sizeof(*d));
	int err;

	if (!d)
		return -ENOMEM;
	d->config = *config;
	d->queue_count = 1 + MIN(queues, (unsigned)VIRTIOFSD_QUEUES_MAX);
	mutex_init(&d->nodes_lock, LOCK_LEAF, "nodes");
	mutex_init(&d->handles_lock, LOCK_LEAF, "handles");
	vhost_signals(d);
	err = daemon_confine(d);
	if (err)
		log_error("virtiofs: %s cannot become the root of the daemon: %s; it must be a "
			  "directory, and "
			  "the daemon be started as root",
			  config->shared_dir, strerror(-err));
	if (!err)
		err = daemon_seccomp(d);
	if (!err)
		err = config->listen_fd >= 0 ? serve_all(d) : serve_connection(d, config->sock_fd);
	free(d);
	return err;
}
