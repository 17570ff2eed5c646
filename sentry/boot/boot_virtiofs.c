/*
 * sentry/boot/boot_virtiofs.c - the virtio-fs devices and 9P servers of a container: connections that its command line made, each of them the container's alone.
 *
 * The first container's are taken before the confinement, those of further ones by a confined sentry, whose filter allows what the handshake takes; its steps
 * are bounded in time. To a virtio-fs daemon another connection is made after its restart: a confined sentry can open no socket, so it asks the container's monitor,
 * which knows the daemons' places, over a socket of their own. When that monitor is gone, all of a further container's connections end: whoever waits for a server that
 * hangs goes on, with EIO.
 */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/hostpoll.h"
#include "base/io.h"
#include "base/log.h"
#include "base/timer.h"
#include "fsimpl/gofer/gofer_fs.h"
#include "fsimpl/virtiofs/virtiofs.h"
#include "sentry/boot/internal.h"
#include "vfs/op_lock.h"

#define AGAIN_TIMEOUT_NS 2000000000ll /* the monitor does not wait for anybody */
#define PATIENCE_NS 4000000000ll /* with one that owes an answer to a container that ends */
#define PATIENCE_STEP_NS 1000000000ll
#define SERVER_TIMEOUT_NS 10000000000ll /* a 9P server's, for its version */

/* One of both. */
struct boot_device {
	struct boot_devices *all;
	struct virtiofs_device *dev; /* a reference */
	struct p9_conn *conn; /* a reference */
};

struct boot_devices {
	struct op_lock again_lock; /* one asks at a time */
	int again_fd; /* immutable; owned */
	uint32_t again_seq; /* guarded by again_lock */
	struct hostpoll monitor; /* of a further container */
	_Atomic bool gone; /* nobody wants them any more */
	struct ktimer patience; /* armed once the container ends */
	_Atomic bool hurried;
	/* Immutable once they are there. */
	unsigned count;
	struct boot_device list[];
};

/* ---- a daemon that was started again ---- */

/* One packet. *ret_fd: what came along, or -1. Return: 0, -EAGAIN: of an earlier request, whose asker gave up; -EIO. */
static int take_answer(const struct boot_devices *all, const struct boot_virtiofs_again *ask,
		       int *ret_fd)
{
	struct boot_virtiofs_again answer;
	size_t count = 1;
	bool cut;
	ssize_t n;

	*ret_fd = -1;
	n = io_recv_fds_flags(all->again_fd, &answer, sizeof(answer), MSG_DONTWAIT, ret_fd, &count,
			      &cut);
	if (n < 0)
		return n == -EAGAIN ? -EAGAIN : -EIO;
	if (n == sizeof(answer) && !memcmp(&answer, ask, sizeof(answer)))
		return 0;
	if (*ret_fd >= 0)
		close(*ret_fd);
	return n ? -EAGAIN : -EIO;
}

/* virtiofs_device_options.reconnect; arg: the device. Not after it was retired. */
static int reconnect(void *arg)
{
	const struct boot_device *d = arg;
	struct boot_devices *all = d->all;
	int64_t end = time_monotonic_ns() + AGAIN_TIMEOUT_NS, now;
	struct boot_virtiofs_again ask = {.index = (uint32_t)(d - all->list)};
	int err = -EAGAIN, fd = -1;

	op_lock(&all->again_lock);
	ask.seq = ++all->again_seq;
	if (atomic_load(&all->gone) ||
	    send(all->again_fd, &ask, sizeof(ask), MSG_NOSIGNAL | MSG_DONTWAIT) != sizeof(ask))
		err = -EIO;
	while (err == -EAGAIN && (now = time_monotonic_ns()) < end) {
		struct pollfd p = {.fd = all->again_fd, .events = POLLIN};

		if (poll(&p, 1, (int)((end - now) / 1000000) + 1) > 0)
			err = take_answer(all, &ask, &fd);
	}
	op_unlock(&all->again_lock);
	return err ? err : fd >= 0 ? fd : -ECONNREFUSED;
}

/* ---- connecting ---- */

/* The first mount that names the server; NULL: none, it is the root's. */
static const struct boot_mount *mount_of(const struct boot_spec *s, const char *type,
					 const char *tag)
{
	for (unsigned i = 0; i < s->nmounts; i++)
		if ((!type || !strcmp(s->mounts[i].type, type)) && s->mounts[i].source &&
		    !strcmp(s->mounts[i].source, tag))
			return &s->mounts[i];
	return NULL;
}

/* Takes fd. */
static int connect_one(struct boot_container *b, struct boot_device *d, int fd, const char *tag)
{
	const struct virtiofs_device_options options = {
		.queues = 2, .reconnect = reconnect, .reconnect_arg = d};
	/* The first is the root's where that has one, whatever mounts say of the same socket. */
	bool is_root = b->spec.rootfs == BOOT_ROOTFS_VIRTIOFS && d == d->all->list;
	bool is_9p = !is_root && mount_of(&b->spec, "9p", tag);
	const struct boot_mount *m =
		is_root ? NULL : mount_of(&b->spec, is_9p ? "9p" : "virtiofs", tag);
	int err = is_9p ? p9_conn_create_within(fd, SERVER_TIMEOUT_NS, &d->conn)
			: virtiofs_device_connect(fd, &options, &d->dev);

	if (!err)
		return 0;
	return boot_fail(&b->error, 1, "mount %s: %s %s: %s; %s", m ? m->destination : "/",
			 is_9p ? "9p server" : "virtio-fs device", tag, strerror(-err),
			 is_9p ? "does it speak 9P2000.L?" : "is it a vhost-user-fs daemon?");
}

/* What is there stays until the container lets go of it, which waits for this. */
static void kill_all(struct boot_devices *all)
{
	atomic_store(&all->gone, true);
	for (unsigned i = 0; i < all->count; i++) {
		if (all->list[i].dev)
			virtiofs_device_kill(all->list[i].dev, "its container ends");
		if (all->list[i].conn)
			p9_conn_kill(all->list[i].conn, "its container ends");
	}
}

static void note_age(void *arg, const char *what unused_arg, uint64_t id unused_arg, int64_t age_ns)
{
	int64_t *oldest = arg;

	*oldest = MAX(*oldest, age_ns);
}

/* Slow is not dead: only who has owed an answer for long is given up. */
static void look_at_ages(struct ktimer *t)
{
	struct boot_devices *all = container_of(t, struct boot_devices, patience);

	for (unsigned i = 0; i < all->count; i++) {
		struct boot_device *d = &all->list[i];
		int64_t oldest = 0;

		if (d->dev)
			vdev_in_flight(d->dev, note_age, &oldest);
		else if (d->conn)
			p9_conn_in_flight(d->conn, note_age, &oldest);
		if (oldest < PATIENCE_NS)
			continue;
		atomic_store(&all->gone, true);
		if (d->dev)
			virtiofs_device_kill(d->dev, "its container ends and it does not answer");
		else
			p9_conn_kill(d->conn, "its container ends and it does not answer");
	}
	ktimer_arm(t, time_monotonic_ns() + PATIENCE_STEP_NS);
}

void boot_hurry_devices(struct boot_container *b)
{
	if (b->devices && !atomic_exchange(&b->devices->hurried, true))
		ktimer_arm(&b->devices->patience, time_monotonic_ns() + PATIENCE_STEP_NS);
}

static void on_monitor_gone(struct hostpoll *hp, uint32_t events)
{
	if (events & (POLLHUP | POLLRDHUP | POLLERR))
		kill_all(container_of(hp, struct boot_devices, monitor));
}

int boot_connect_devices(struct boot_container *b, int *fds)
{
	struct boot_devices *all;
	unsigned count = 0;
	int err = 0;

	while (b->spec.virtiofs && b->spec.virtiofs[count])
		count++;
	if (!count)
		return 0;
	all = calloc(1, sizeof(*all) + count * sizeof(*all->list));
	if (!all)
		return boot_fail(&b->error, 1, "sentry: out of memory");
	op_lock_init(&all->again_lock);
	ktimer_init(&all->patience, look_at_ages);
	all->monitor.fd = -1;
	all->again_fd = fds ? fds[count] : b->spec.virtiofs_fd + (int)count;
	if (fds)
		fds[count] = -1;
	b->devices = all;
	for (unsigned i = 0; i < count && !err; i++) {
		int fd = fds ? fds[i] : b->spec.virtiofs_fd + (int)i;

		if (fds)
			fds[i] = -1;
		all->list[i].all = all;
		all->count = i + 1;
		err = connect_one(b, &all->list[i], fd, b->spec.virtiofs[i]);
	}
	/* Of the first container the monitor's end is everybody's. */
	if (!err && !b->first &&
	    hostpoll_add(&all->monitor, all->again_fd, POLLRDHUP, on_monitor_gone))
		err = boot_fail(&b->error, 1, "sentry: out of memory");
	return err;
}

int boot_name_devices(struct boot_container *b)
{
	const struct boot_spec *s = &b->spec;
	int err = 0;

	for (unsigned i = 0; b->devices && i < b->devices->count && !err; i++) {
		const struct boot_device *d = &b->devices->list[i];

		if (d->dev)
			err = virtiofs_add_tag(b->cgroup, s->virtiofs[i], d->dev);
		for (unsigned k = 0; d->conn && k < s->nmounts && !err; k++) {
			const struct boot_mount *m = &s->mounts[k];

			if (!strcmp(m->type, "9p") && m->source &&
			    !strcmp(m->source, s->virtiofs[i]))
				err = p9_add_tag(b->cgroup, s->virtiofs[i], d->conn, m->data,
						 m->flags & MS_RDONLY);
		}
		if (err)
			return boot_fail(&b->error, 1, "device %s: %s", s->virtiofs[i],
					 strerror(-err));
	}
	return 0;
}

struct virtiofs_device *boot_root_device(const struct boot_container *b)
{
	return b->devices->list[0].dev;
}

/* Who still has a file of theirs, passed on to another container, has EIO from now on, as with those of the container's gofer. */
void boot_release_devices(struct boot_container *b)
{
	struct boot_devices *all = b->devices;

	if (!all)
		return;
	hostpoll_remove(&all->monitor);
	ktimer_cancel_sync(&all->patience);
	virtiofs_drop_tags(b->cgroup);
	p9_drop_tags(b->cgroup);
	atomic_store(&all->gone, true);
	for (unsigned i = 0; i < all->count; i++) {
		struct boot_device *d = &all->list[i];

		if (d->dev) {
			virtiofs_device_retire(d->dev);
			virtiofs_device_unref(d->dev);
		}
		if (d->conn) {
			p9_conn_kill(d->conn, NULL);
			p9_conn_unref(d->conn);
		}
	}
	close(all->again_fd);
	free(all);
	b->devices = NULL;
}

void boot_show_devices(struct boot_container *b, struct buf *out)
{
	for (unsigned i = 0; b->devices && i < b->devices->count; i++) {
		const struct boot_device *d = &b->devices->list[i];

		buf_printf(out, "requests to %s %.100s%s%.100s:\n",
			   d->dev ? "virtio-fs device" : "9p server", b->spec.virtiofs[i],
			   b->first ? "" : " of ", b->first ? "" : b->spec.id);
		if (d->dev)
			vdev_in_flight(d->dev, boot_emit_request, out);
		else
			p9_conn_in_flight(d->conn, boot_emit_request, out);
	}
}
