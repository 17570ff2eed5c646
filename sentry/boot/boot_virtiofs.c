/*
 * sentry/boot/boot_virtiofs.c - the virtio-fs devices and 9P servers of a container: connections made before confinement; to a virtio-fs
 * daemon also after its restart.
 *
 * A confined sentry can open no socket: it asks the monitor, which knows the daemons' places, over a socket of their own.
 */
#include <poll.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "fsimpl/gofer/gofer_fs.h"
#include "fsimpl/virtiofs/virtiofs.h"
#include "sentry/boot/internal.h"
#include "vfs/op_lock.h"

#define AGAIN_TIMEOUT_NS 2000000000ll /* the monitor does not wait for anybody */

static struct {
	struct op_lock lock; /* one asks at a time */
	int fd; /* immutable after boot */
	uint32_t seq; /* guarded by lock */
} again;

/* One packet. *ret_fd: what came along, or -1. Return: 0, -EAGAIN: of an earlier request, whose asker gave up; -EIO. */
static int take_answer(const struct boot_virtiofs_again *ask, int *ret_fd)
{
	struct boot_virtiofs_again answer;
	size_t count = 1;
	bool cut;
	ssize_t n;

	*ret_fd = -1;
	n = io_recv_fds_flags(again.fd, &answer, sizeof(answer), MSG_DONTWAIT, ret_fd, &count,
			      &cut);
	if (n < 0)
		return n == -EAGAIN ? -EAGAIN : -EIO;
	if (n == sizeof(answer) && !memcmp(&answer, ask, sizeof(answer)))
		return 0;
	if (*ret_fd >= 0)
		close(*ret_fd);
	return n ? -EAGAIN : -EIO;
}

/* virtiofs_device_options.reconnect; arg: the device's index. */
static int reconnect(void *arg)
{
	int64_t end = time_monotonic_ns() + AGAIN_TIMEOUT_NS, now;
	struct boot_virtiofs_again ask = {.index = (uint32_t)(uintptr_t)arg};
	int err = -EAGAIN, fd = -1;

	op_lock(&again.lock);
	ask.seq = ++again.seq;
	if (send(again.fd, &ask, sizeof(ask), MSG_NOSIGNAL | MSG_DONTWAIT) != sizeof(ask))
		err = -EIO;
	while (err == -EAGAIN && (now = time_monotonic_ns()) < end) {
		struct pollfd p = {.fd = again.fd, .events = POLLIN};

		if (poll(&p, 1, (int)((end - now) / 1000000) + 1) > 0)
			err = take_answer(&ask, &fd);
	}
	op_unlock(&again.lock);
	return err ? err : fd >= 0 ? fd : -ECONNREFUSED;
}

/* Is the socket named by mounts of type 9p? */
static bool is_9p(const struct boot_container *b, const char *tag)
{
	for (unsigned i = 0; i < b->spec.nmounts; i++)
		if (!strcmp(b->spec.mounts[i].type, "9p") && b->spec.mounts[i].source &&
		    !strcmp(b->spec.mounts[i].source, tag))
			return true;
	return false;
}

static int connect_9p(struct boot_container *b, int fd, const char *tag)
{
	struct p9_conn *c;
	int err = p9_conn_create(fd, &c);

	if (!err) {
		for (unsigned i = 0; !err && i < b->spec.nmounts; i++) {
			const struct boot_mount *m = &b->spec.mounts[i];

			if (!strcmp(m->type, "9p") && m->source && !strcmp(m->source, tag))
				err = p9_add_tag(tag, c, m->data, m->flags & MS_RDONLY);
		}
		p9_conn_unref(c);
	}
	return err ? boot_fail(&b->error, 1, "9p server %s: %s; does it speak 9P2000.L?", tag,
			       strerror(-err))
		   : 0;
}

int boot_connect_virtiofs(struct boot_container *b)
{
	struct virtiofs_device_options options = {.queues = 2, .reconnect = reconnect};
	unsigned count = 0;

	while (b->spec.virtiofs && b->spec.virtiofs[count])
		count++;
	op_lock_init(&again.lock);
	again.fd = b->spec.virtiofs_fd + (int)count;
	for (unsigned i = 0; i < count; i++) {
		const char *tag = b->spec.virtiofs[i];
		struct virtiofs_device *dev;
		int err;

		if (is_9p(b, tag)) {
			err = connect_9p(b, b->spec.virtiofs_fd + (int)i, tag);
			if (err)
				return err;
			continue;
		}
		options.reconnect_arg = (void *)(uintptr_t)i;
		err = virtiofs_device_connect(b->spec.virtiofs_fd + (int)i, &options, &dev);
		if (!err) {
			err = virtiofs_add_tag(tag, dev);
			virtiofs_device_unref(dev);
		}
		if (err)
			return boot_fail(&b->error, 1,
					 "virtio-fs device %s: %s; is it a vhost-user-fs daemon?",
					 tag, strerror(-err));
	}
	return 0;
}
