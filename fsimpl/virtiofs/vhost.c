/* fsimpl/virtiofs/vhost.c - the vhost-user handshake, as the front end. */
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/sleep.h"
#include "fsimpl/virtiofs/internal_device.h"
#include "wire/vhost_user.h"

#define DAX_FEATURES                                                                             \
	(1ull << VHOST_USER_PROTOCOL_BACKEND_REQ | 1ull << VHOST_USER_PROTOCOL_BACKEND_SEND_FD | \
	 1ull << VHOST_USER_PROTOCOL_SHMEM)

#define AWAIT_STEP_MS 100

static int send_message(struct virtiofs_device *dev, const struct vhost_user_msg *m, const int *fds,
			unsigned fd_count)
{
	ssize_t size = (ssize_t)(VHOST_USER_HEADER_SIZE + m->size);
	ssize_t n = io_send_fds(dev->sock, m, (size_t)size, fds, fd_count);

	dev->answer_by = time_monotonic_ns() + VDEV_CONNECT_TIMEOUT_MS * 1000000ll;
	return n == size ? 0 : n < 0 ? (int)n : -EIO;
}

/*
 * Until something has come. A daemon may send its answers byte by byte: all of one has the time, and who does not want the device any more
 * is heard before each. Return: 0, -ETIMEDOUT, -errno; -ECANCELED: nobody wants it.
 */
static int await_bytes(struct virtiofs_device *dev)
{
	struct pollfd p = {.fd = dev->sock, .events = POLLIN};

	while (!atomic_load(&dev->closing)) {
		int ready;

		if (time_monotonic_ns() >= dev->answer_by)
			return -ETIMEDOUT;
		ready = poll(&p, 1, AWAIT_STEP_MS);
		if (ready > 0)
			return 0;
		if (ready < 0 && errno != EINTR)
			return -errno;
	}
	return -ECANCELED;
}

static int receive_bytes(struct virtiofs_device *dev, void *buf, size_t size)
{
	uint8_t *at = buf;

	while (size) {
		int err = await_bytes(dev);
		ssize_t n;

		if (err)
			return err;
		/* Descriptors that come along are not taken: the kernel drops them. */
		n = recv(dev->sock, at, size, MSG_DONTWAIT);
		if (n == 0)
			return -EIO;
		if (n < 0) {
			if (errno == EAGAIN || errno == EINTR)
				continue;
			return -errno;
		}
		at += n;
		size -= (size_t)n;
	}
	return 0;
}

/* A whole answer with the descriptors that come with it, at most two. */
static int receive_with_fds(struct virtiofs_device *dev, struct vhost_user_msg *ret, int *fds,
			    unsigned *ret_count)
{
	size_t count = 2;
	ssize_t n;
	bool cut;
	int err = await_bytes(dev);

	if (err)
		return err;
	n = io_recv_fds_flags(dev->sock, ret, VHOST_USER_HEADER_SIZE, MSG_DONTWAIT, fds, &count,
			      &cut);
	*ret_count = (unsigned)count;
	if (n != VHOST_USER_HEADER_SIZE)
		return -EPROTO;
	err = cut ? -EPROTO : vhost_user_check_header(ret);
	return err ? err : receive_bytes(dev, (uint8_t *)ret + VHOST_USER_HEADER_SIZE, ret->size);
}

static int receive_reply(struct virtiofs_device *dev, uint32_t request, bool need_reply,
			 struct vhost_user_msg *ret)
{
	int err = receive_bytes(dev, ret, VHOST_USER_HEADER_SIZE);

	if (!err)
		err = vhost_user_check_header(ret);
	if (!err)
		err = receive_bytes(dev, (uint8_t *)ret + VHOST_USER_HEADER_SIZE, ret->size);
	if (!err)
		err = vhost_user_check_reply(ret, request, need_reply);
	if (err)
		log_error("virtio-fs device: %s was answered with nonsense or not at all: %s",
			  vhost_user_name(request), strerror(-err));
	return err;
}

/* A request with its acknowledgement, where that was negotiated. */
static int set(struct virtiofs_device *dev, struct vhost_user_msg *m, const int *fds,
	       unsigned fd_count)
{
	uint32_t request = m->request;
	int err;

	if (dev->reply_ack)
		m->flags |= VHOST_USER_FLAG_NEED_REPLY;
	err = send_message(dev, m, fds, fd_count);
	if (err || !dev->reply_ack)
		return err;
	err = receive_reply(dev, request, true, m);
	if (!err && m->u64) {
		log_error("virtio-fs device: it refused %s", vhost_user_name(request));
		err = -EPROTO;
	}
	return err;
}

static int set_u64(struct virtiofs_device *dev, uint32_t request, uint64_t v, const int *fds,
		   unsigned fd_count)
{
	struct vhost_user_msg m;

	vhost_user_request_init(&m, request, false);
	m.u64 = v;
	return set(dev, &m, fds, fd_count);
}

static int set_state(struct virtiofs_device *dev, uint32_t request, uint32_t index, uint32_t num)
{
	struct vhost_user_msg m;

	vhost_user_request_init(&m, request, false);
	m.state = (struct vhost_user_vring_state){index, num};
	return set(dev, &m, NULL, 0);
}

static int get_u64(struct virtiofs_device *dev, uint32_t request, uint64_t *ret)
{
	struct vhost_user_msg m;
	int err;

	vhost_user_request_init(&m, request, false);
	err = send_message(dev, &m, NULL, 0);
	if (!err)
		err = receive_reply(dev, request, false, &m);
	if (!err)
		*ret = m.u64;
	return err;
}

static bool has_bit(uint64_t v, unsigned bit)
{
	return v >> bit & 1;
}

/* The back channel and the size of its window. What cannot be had is gone without. */
static int negotiate_dax(struct virtiofs_device *dev)
{
	struct vhost_user_msg m;
	int sv[2], err;

	vhost_user_request_init(&m, VHOST_USER_GET_SHMEM_CONFIG, false);
	err = send_message(dev, &m, NULL, 0);
	if (!err)
		err = receive_reply(dev, VHOST_USER_GET_SHMEM_CONFIG, false, &m);
	if (err)
		return err;
	if (!m.shmem_config.count || m.shmem_config.sizes[0] < VIRTIOFS_DAX_RANGE) {
		if (dev->dax)
			dax_window_gone(dev->dax);
		return 0;
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
		return -errno;
	if (dev->dax)
		dax_window_restart(dev->dax, sv[0], m.shmem_config.sizes[0]);
	else
		err = dax_window_create(dev, sv[0], m.shmem_config.sizes[0], &dev->dax);
	if (!err)
		err = set_u64(dev, VHOST_USER_SET_BACKEND_REQ_FD, 0, &sv[1], 1);
	close(sv[1]);
	return err;
}

static void drop_fds(const int *fds, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		close(fds[i]);
}

/* The table of versions, and what tells of changes on the host. A daemon that cannot give them says so with a size of 0. */
static int negotiate_versions(struct virtiofs_device *dev)
{
	struct vhost_user_versions versions;
	int fds[2] = {-1, -1}, err;
	struct vhost_user_msg m;
	unsigned count = 0;

	vhost_user_request_init(&m, VHOST_USER_GET_VERSIONS, false);
	err = send_message(dev, &m, NULL, 0);
	if (!err)
		err = receive_with_fds(dev, &m, fds, &count);
	if (!err)
		err = vhost_user_check_reply(&m, VHOST_USER_GET_VERSIONS, false);
	if (err || !m.versions.size) {
		drop_fds(fds, count);
		return err;
	}
	versions = m.versions;
	return dev->versions ? virtiofs_versions_restart(dev->versions, &versions, fds, count)
			     : virtiofs_versions_create(&versions, fds, count, &dev->versions);
}

/* again: after a reconnection. */
static int negotiate_protocol(struct virtiofs_device *dev, bool again, uint64_t *ret_accepted)
{
	uint64_t known = 1ull << VHOST_USER_PROTOCOL_MQ | 1ull << VHOST_USER_PROTOCOL_REPLY_ACK;
	uint64_t offered;
	int err = get_u64(dev, VHOST_USER_GET_PROTOCOL_FEATURES, &offered);

	if (err)
		return err;
	/* What the first daemon did not have is not begun with the next. */
	if ((offered & DAX_FEATURES) == DAX_FEATURES && (!again || dev->dax))
		known |= DAX_FEATURES;
	if (!again || dev->versions)
		known |= 1ull << VHOST_USER_PROTOCOL_MOAT_VERSIONS;
	err = set_u64(dev, VHOST_USER_SET_PROTOCOL_FEATURES, offered & known, NULL, 0);
	*ret_accepted = offered & known;
	dev->reply_ack = has_bit(offered & known, VHOST_USER_PROTOCOL_REPLY_ACK);
	dev->multiqueue = has_bit(offered & known, VHOST_USER_PROTOCOL_MQ);
	return err;
}

int vdev_negotiate(struct virtiofs_device *dev, unsigned queues_wanted, unsigned *ret_queues)
{
	uint64_t offered, accepted = 1ull << VIRTIO_F_VERSION_1_BIT, queues = 2, protocol = 0;
	int err = get_u64(dev, VHOST_USER_GET_FEATURES, &offered);

	if (err)
		return err;
	if (!has_bit(offered, VIRTIO_F_VERSION_1_BIT) ||
	    !has_bit(offered, VHOST_USER_F_PROTOCOL_FEATURES)) {
		log_error("virtio-fs device: it is older than virtio 1.0 or has no protocol "
			  "features");
		return -EPROTO;
	}
	dev->event_idx = has_bit(offered, VIRTIO_F_EVENT_IDX);
	dev->indirect = has_bit(offered, VIRTIO_F_INDIRECT_DESC);
	accepted |= 1ull << VHOST_USER_F_PROTOCOL_FEATURES;
	accepted |= offered & (1ull << VIRTIO_F_EVENT_IDX | 1ull << VIRTIO_F_INDIRECT_DESC);
	err = negotiate_protocol(dev, dev->queue_count != 0, &protocol);
	if (!err && dev->multiqueue)
		err = get_u64(dev, VHOST_USER_GET_QUEUE_NUM, &queues);
	if (!err)
		err = set_u64(dev, VHOST_USER_SET_OWNER, 0, NULL, 0);
	if (!err)
		err = set_u64(dev, VHOST_USER_SET_FEATURES, accepted, NULL, 0);
	if (!err && (protocol & DAX_FEATURES))
		err = negotiate_dax(dev);
	else if (!err && dev->dax)
		dax_window_gone(dev->dax);
	if (!err && has_bit(protocol, VHOST_USER_PROTOCOL_MOAT_VERSIONS))
		err = negotiate_versions(dev);
	if (err)
		return err;
	/* Daemons differ in whether they count the high-priority queue: two are always there. */
	queues = MIN(MAX(queues, 2ul), (uint64_t)queues_wanted + 1);
	*ret_queues = (unsigned)MIN(queues, (uint64_t)VDEV_QUEUES_MAX);
	return 0;
}

static int set_memory(struct virtiofs_device *dev)
{
	int fd = memfile_fd(dev->mf);
	struct vhost_user_msg m;

	vhost_user_request_init(&m, VHOST_USER_SET_MEM_TABLE, false);
	m.size = 8 + sizeof(struct vhost_user_region);
	m.mem.count = 1;
	m.mem.regions[0] = (struct vhost_user_region){
		.guest_addr = VDEV_GUEST_BASE,
		.size = memfile_ptr_len(dev->mf, 0, UINT64_MAX),
		.user_addr = (uintptr_t)memfile_ptr(dev->mf, 0),
	};
	return set(dev, &m, &fd, 1);
}

static int start_queue(struct virtiofs_device *dev, unsigned index)
{
	struct vdev_queue *q = &dev->queues[index];
	struct vhost_user_msg m;
	int err = set_state(dev, VHOST_USER_SET_VRING_NUM, index, q->ring.num);

	if (!err)
		err = set_state(dev, VHOST_USER_SET_VRING_BASE, index, 0);
	if (err)
		return err;
	vhost_user_request_init(&m, VHOST_USER_SET_VRING_ADDR, false);
	m.addr = (struct vhost_user_vring_addr){
		.index = index,
		.desc = (uintptr_t)q->ring.desc,
		.used = (uintptr_t)q->ring.used,
		.avail = (uintptr_t)q->ring.avail,
	};
	err = set(dev, &m, NULL, 0);
	if (!err)
		err = set_u64(dev, VHOST_USER_SET_VRING_CALL, index, &q->bells.call, 1);
	/* The kick starts the ring: last but for the enabling. */
	if (!err)
		err = set_u64(dev, VHOST_USER_SET_VRING_KICK, index, &q->bells.kick_theirs, 1);
	if (!err) {
		close(q->bells.kick_theirs);
		q->bells.kick_theirs = -1;
		err = set_state(dev, VHOST_USER_SET_VRING_ENABLE, index, 1);
	}
	return err;
}

int vdev_start(struct virtiofs_device *dev)
{
	int err = set_memory(dev);

	for (unsigned i = 0; i < dev->queue_count && !err; i++)
		err = start_queue(dev, i);
	return err;
}
