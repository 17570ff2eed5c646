/* fsimpl/virtiofs/device_life.c - a device and its queues, from the connection to the last reference. */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/log.h"
#include "fsimpl/virtiofs/internal_device.h"

static REF_TYPE(device_type, "virtiofs_device");

static void memory_free(struct virtiofs_device *dev, struct vdev_queue_memory *m)
{
	if (m->ring_size)
		memfile_range_unref(dev->mf, m->ring_off, m->ring_size);
	if (m->slots_size)
		memfile_range_unref(dev->mf, m->slots_off, m->slots_size);
	*m = (struct vdev_queue_memory){0};
}

static int memory_alloc(struct virtiofs_device *dev, unsigned size, unsigned descs,
			struct vdev_queue_memory *ret)
{
	struct vdev_queue_memory m = {0};
	struct virtq_layout layout;
	int err;

	virtq_layout(descs, &layout);
	err = memfile_alloc(dev->mf, layout.size, 0, 0, &m.ring_off);
	if (!err) {
		m.ring_size = layout.size;
		err = memfile_alloc(dev->mf, (uint64_t)size * SLOT_BYTES, 0, 0, &m.slots_off);
	}
	if (!err)
		m.slots_size = (uint64_t)size * SLOT_BYTES;
	else
		memory_free(dev, &m);
	*ret = m;
	return err;
}

int vdev_queue_renew(struct vdev_queue *q, unsigned size)
{
	struct virtiofs_device *dev = q->dev;
	const unsigned descs = dev->indirect ? VDEV_SLOT_DESCS * size : size;
	struct vdev_queue_memory fresh, oldest;
	int err = memory_alloc(dev, size, descs, &fresh);

	if (err)
		return err;
	mutex_lock(&q->lock);
	oldest = q->retired[q->retire_next];
	q->retired[q->retire_next] = q->memory;
	q->retire_next = (q->retire_next + 1) % VDEV_RETIRED_MAX;
	q->memory = fresh;
	q->slot_mem = memfile_ptr(dev->mf, fresh.slots_off);
	memset(memfile_ptr(dev->mf, fresh.ring_off), 0, fresh.ring_size);
	memset(q->ring_slots, 0, descs * sizeof(*q->ring_slots));
	virtq_driver_init(&q->ring, descs, dev->event_idx, memfile_ptr(dev->mf, fresh.ring_off),
			  q->ring_slots);
	mutex_unlock(&q->lock);
	memory_free(dev, &oldest);
	return 0;
}

int vdev_doorbells_make(struct vdev_doorbells *ret)
{
	struct vdev_doorbells bells = {-1, -1, -1};
	const int least = 1;
	int sv[2], err;

	bells.call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (bells.call < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0) {
		err = -errno;
		vdev_doorbells_close(&bells);
		return err;
	}
	bells.kick = sv[0];
	bells.kick_theirs = sv[1];
	/* A device that reads none of them keeps a handful; what it writes itself goes nowhere. */
	(void)setsockopt(bells.kick, SOL_SOCKET, SO_SNDBUF, &least, sizeof(least));
	(void)shutdown(bells.kick, SHUT_RD);
	*ret = bells;
	return 0;
}

void vdev_doorbells_close(struct vdev_doorbells *bells)
{
	int *fds[] = {&bells->kick, &bells->kick_theirs, &bells->call};

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		if (*fds[i] >= 0)
			close(*fds[i]);
		*fds[i] = -1;
	}
}

static int queue_init(struct virtiofs_device *dev, struct vdev_queue *q, unsigned size)
{
	int err;

	q->dev = dev;
	q->poll.fd = -1;
	mutex_init(&q->lock, LOCK_RPC, "virtio-fs queue");
	err = vdev_doorbells_make(&q->bells);
	if (err)
		return err;
	q->slot_count = size;
	q->slots = calloc(size, sizeof(*q->slots));
	q->ring_slots = calloc((size_t)VDEV_SLOT_DESCS * size, sizeof(*q->ring_slots));
	if (!q->slots || !q->ring_slots)
		return -ENOMEM;
	err = vdev_queue_renew(q, size);
	if (err)
		return err;
	for (unsigned i = size; i-- > 0;) {
		q->slots[i].index = i;
		q->slots[i].next_free = q->free_slots;
		q->free_slots = &q->slots[i];
	}
	return hostpoll_add(&q->poll, q->bells.call, POLLIN, vdev_call_ready);
}

static void queue_fini(struct vdev_queue *q)
{
	if (!q->dev)
		return;
	if (q->poll.fd >= 0)
		hostpoll_remove(&q->poll);
	vdev_doorbells_close(&q->bells);
	/* Requests whose callers were killed still hold their data; the device is gone by now. */
	for (unsigned i = 0; q->slots && i < q->slot_count; i++)
		if (q->slots[i].data_count)
			vdev_pin_data(q->dev, q->slots[i].data, q->slots[i].data_count, false);
	memory_free(q->dev, &q->memory);
	for (unsigned i = 0; i < VDEV_RETIRED_MAX; i++)
		memory_free(q->dev, &q->retired[i]);
	free(q->slots);
	free(q->ring_slots);
}

void virtiofs_device_ref(struct virtiofs_device *dev)
{
	ref_get(&dev->ref);
}

static void device_free(struct virtiofs_device *dev)
{
	vdev_reconnect_stop(dev);
	if (dev->sock_poll.fd >= 0)
		hostpoll_remove(&dev->sock_poll);
	/* All before the first queue goes: a call on one that makes no sense kills, which looks at every queue. */
	for (unsigned i = 0; i < dev->queue_count; i++)
		if (dev->queues[i].dev && dev->queues[i].poll.fd >= 0)
			hostpoll_remove(&dev->queues[i].poll);
	/* Closing the connection makes the device let go of the memory; before the kicks' ends, which are readable from then on. */
	close(dev->sock);
	for (unsigned i = 0; i < dev->queue_count; i++)
		queue_fini(&dev->queues[i]);
	dax_window_destroy(dev->dax);
	virtiofs_versions_destroy(dev->versions);
	if (dev->mf)
		memfile_unref(dev->mf);
	ref_fini(&dev->ref, &device_type);
	free(dev);
}

void virtiofs_device_unref(struct virtiofs_device *dev)
{
	if (dev && ref_put(&dev->ref))
		device_free(dev);
}

/* Nothing comes on this socket after the handshake but its end. */
void vdev_sock_ready(struct hostpoll *hp, uint32_t events)
{
	struct virtiofs_device *dev = container_of(hp, struct virtiofs_device, sock_poll);

	(void)events;
	virtiofs_device_kill(dev, "the daemon has closed the connection");
}

int virtiofs_device_connect(int sock, const struct virtiofs_device_options *options,
			    struct virtiofs_device **ret)
{
	struct virtiofs_device *dev = calloc(1, sizeof(*dev));
	unsigned size = options->queue_size ? options->queue_size : VDEV_QUEUE_SIZE_DEFAULT;
	int err;

	if (!dev) {
		close(sock);
		return -ENOMEM;
	}
	ref_init(&dev->ref, &device_type);
	dev->sock = sock;
	dev->sock_poll.fd = -1;
	dev->unique = 2;
	dev->queue_size = size;
	dev->reconnect = options->reconnect;
	dev->reconnect_arg = options->reconnect_arg;
	sleeper_init(&dev->reconnector_sleeper);
	op_lock_init(&dev->restore_lock);
	dev->may_spin = get_nprocs() > 1;
	err = memfile_create_shared(options->memory ? options->memory : VDEV_MEMORY_DEFAULT,
				    &dev->mf);
	if (!err)
		err = vdev_negotiate(dev,
				     options->queues ? options->queues : (unsigned)get_nprocs(),
				     &dev->queue_count);
	for (unsigned i = 0; !err && i < dev->queue_count; i++) {
		dev->queues[i].bells = (struct vdev_doorbells){-1, -1, -1};
		err = queue_init(dev, &dev->queues[i], size);
	}
	if (!err)
		err = vdev_start(dev);
	if (!err)
		err = dev->dax ? dax_window_start(dev->dax) : 0;
	if (!err)
		err = hostpoll_add(&dev->sock_poll, sock, POLLIN | POLLRDHUP, vdev_sock_ready);
	if (!err && dev->reconnect)
		err = vdev_reconnect_start(dev);
	if (err) {
		log_error("virtio-fs device: the handshake failed: %s", strerror(-err));
		virtiofs_device_unref(dev);
		return err;
	}
	*ret = dev;
	return 0;
}

/* ---- what it is like ---- */

bool virtiofs_device_alive(const struct virtiofs_device *dev)
{
	int state = atomic_load(&dev->state);

	return state == VDEV_ALIVE ||
	       (state == VDEV_RESTORING && pthread_equal(dev->reconnector, pthread_self()));
}

#define AWAIT_STEP_NS 2000000ll

void virtiofs_device_await(struct virtiofs_device *dev)
{
	struct sleeper *s = sleeper_current();
	int64_t now;

	if (likely(atomic_load_explicit(&dev->state, memory_order_relaxed) == VDEV_ALIVE) ||
	    !dev->reconnect || virtiofs_device_alive(dev))
		return;
	sleeper_set_what(s, "virtio-fs daemon");
	while (!virtiofs_device_alive(dev) &&
	       (now = time_monotonic_ns()) < atomic_load(&dev->died) + VDEV_GRACE_NS)
		if (sleeper_wait(s, SLEEP_KILLABLE, now + AWAIT_STEP_NS) == -EINTR)
			break;
	sleeper_set_what(s, NULL);
}

bool virtiofs_device_settle(struct virtiofs_device *dev, enum sleep_mode mode)
{
	while (atomic_load(&dev->state) == VDEV_RESTORING && !virtiofs_device_alive(dev))
		if (sleeper_wait(sleeper_current(), mode, time_monotonic_ns() + AWAIT_STEP_NS) ==
		    -EINTR)
			break;
	return virtiofs_device_alive(dev);
}

bool virtiofs_device_restoring(const struct virtiofs_device *dev)
{
	return atomic_load(&dev->state) == VDEV_RESTORING;
}

bool virtiofs_device_claim(struct virtiofs_device *dev)
{
	return !atomic_exchange(&dev->claimed, true);
}

void virtiofs_device_release(struct virtiofs_device *dev)
{
	atomic_store(&dev->claimed, false);
}

struct memfile *virtiofs_device_memory(struct virtiofs_device *dev)
{
	return dev->mf;
}

struct dax_window *virtiofs_device_dax(struct virtiofs_device *dev)
{
	return dev->dax;
}

struct virtiofs_versions *virtiofs_device_versions(struct virtiofs_device *dev)
{
	return dev->versions;
}

uint64_t virtiofs_device_requests(const struct virtiofs_device *dev)
{
	return atomic_load(&dev->requests);
}

/* ---- epochs ---- */

unsigned vdev_epoch(const struct virtiofs_device *dev)
{
	return atomic_load(&dev->epoch);
}

static uint64_t epoch_tag(unsigned epoch)
{
	return (uint64_t)(epoch & VDEV_EPOCH_MAX) << VDEV_EPOCH_SHIFT;
}

uint64_t vdev_node(uint64_t nodeid, unsigned epoch)
{
	return nodeid == FUSE_ROOT ? nodeid : nodeid | epoch_tag(epoch);
}

bool vdev_node_current(const struct virtiofs_device *dev, uint64_t node)
{
	return node == FUSE_ROOT ||
	       (node & ~vdev_server_node(UINT64_MAX)) == epoch_tag(vdev_epoch(dev));
}
