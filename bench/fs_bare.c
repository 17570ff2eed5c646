/* bench/fs_bare.c - see fs_bare.h. */
#include "bench/fs_bare.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/compiler.h"
#include "base/futex.h"
#include "base/io.h"
#include "wire/vhost_user.h"
#include "wire/virtqueue.h"

#define QUEUES 2 /* the first is the high-priority one */
#define RING 128u
#define RING_BYTES 16384u
#define REQUEST_AT (QUEUES * RING_BYTES)
#define REQUEST_BYTES 4096u
#define REPLY_AT (REQUEST_AT + REQUEST_BYTES)
#define MEMORY (REPLY_AT + 4096u)
#define GUEST_BASE (1ull << 32) /* no address of ours */
#define ANSWER_S 5

struct bare {
	int sock; /* borrowed */
	bool ack; /* the daemon acknowledges what has no answer */
	int fd;
	uint8_t *mem;
	struct virtq_driver ring[QUEUES];
	struct virtq_driver_slot slots[QUEUES][RING];
	int kick[QUEUES], kick_theirs[QUEUES], call[QUEUES];
	uint64_t unique;
};

/* ---- the handshake ---- */

/* m: the request, then its answer. */
static int ask(struct bare *b, struct vhost_user_msg *m, const int *fds, unsigned count)
{
	const uint32_t request = m->request;
	const bool ack = b->ack && !vhost_user_has_reply(request);
	ssize_t size = (ssize_t)(VHOST_USER_HEADER_SIZE + m->size);
	int err;

	if (ack)
		m->flags |= VHOST_USER_FLAG_NEED_REPLY;
	if (io_send_fds(b->sock, m, (size_t)size, fds, count) != size)
		return -EIO;
	if (!ack && !vhost_user_has_reply(request))
		return 0;
	if (recv(b->sock, m, VHOST_USER_HEADER_SIZE, MSG_WAITALL) != VHOST_USER_HEADER_SIZE)
		return -EIO;
	err = vhost_user_check_header(m);
	if (err)
		return err;
	size = (ssize_t)m->size;
	if (recv(b->sock, (uint8_t *)m + VHOST_USER_HEADER_SIZE, m->size, MSG_WAITALL) != size)
		return -EIO;
	err = vhost_user_check_reply(m, request, ack);
	return !err && ack && m->u64 ? -EPROTO : err;
}

static int ask_u64(struct bare *b, uint32_t request, uint64_t value, const int *fds,
		   uint64_t *ret_value)
{
	struct vhost_user_msg m;
	int err;

	vhost_user_request_init(&m, request, false);
	if (!ret_value)
		m.u64 = value;
	err = ask(b, &m, fds, fds ? 1 : 0);
	if (!err && ret_value)
		*ret_value = m.u64;
	return err;
}

static int ask_state(struct bare *b, uint32_t request, unsigned index, unsigned num)
{
	struct vhost_user_msg m;

	vhost_user_request_init(&m, request, false);
	m.state = (struct vhost_user_vring_state){index, num};
	return ask(b, &m, NULL, 0);
}

static int negotiate(struct bare *b)
{
	uint64_t features = 0, protocol = 0;
	int err = ask_u64(b, VHOST_USER_GET_FEATURES, 0, NULL, &features);

	features &= 1ull << VIRTIO_F_VERSION_1_BIT | 1ull << VHOST_USER_F_PROTOCOL_FEATURES;
	if (!err)
		err = ask_u64(b, VHOST_USER_GET_PROTOCOL_FEATURES, 0, NULL, &protocol);
	protocol &= 1ull << VHOST_USER_PROTOCOL_MQ | 1ull << VHOST_USER_PROTOCOL_REPLY_ACK;
	if (!err)
		err = ask_u64(b, VHOST_USER_SET_PROTOCOL_FEATURES, protocol, NULL, NULL);
	b->ack = protocol >> VHOST_USER_PROTOCOL_REPLY_ACK & 1;
	if (!err)
		err = ask_u64(b, VHOST_USER_SET_OWNER, 0, NULL, NULL);
	return err ? err : ask_u64(b, VHOST_USER_SET_FEATURES, features, NULL, NULL);
}

static int set_memory(struct bare *b)
{
	struct vhost_user_msg m;

	vhost_user_request_init(&m, VHOST_USER_SET_MEM_TABLE, false);
	m.size = 8 + sizeof(struct vhost_user_region);
	m.mem.count = 1;
	m.mem.regions[0] = (struct vhost_user_region){
		.guest_addr = GUEST_BASE, .size = MEMORY, .user_addr = (uintptr_t)b->mem};
	return ask(b, &m, &b->fd, 1);
}

static int start_queue(struct bare *b, unsigned i)
{
	const struct virtq_driver *q = &b->ring[i];
	struct vhost_user_msg m;
	int err = ask_state(b, VHOST_USER_SET_VRING_NUM, i, RING);

	if (!err)
		err = ask_state(b, VHOST_USER_SET_VRING_BASE, i, 0);
	vhost_user_request_init(&m, VHOST_USER_SET_VRING_ADDR, false);
	m.addr = (struct vhost_user_vring_addr){.index = i,
						.desc = (uintptr_t)q->desc,
						.used = (uintptr_t)q->used,
						.avail = (uintptr_t)q->avail};
	if (!err)
		err = ask(b, &m, NULL, 0);
	if (!err)
		err = ask_u64(b, VHOST_USER_SET_VRING_CALL, i, &b->call[i], NULL);
	if (!err)
		err = ask_u64(b, VHOST_USER_SET_VRING_KICK, i, &b->kick_theirs[i], NULL);
	return err ? err : ask_state(b, VHOST_USER_SET_VRING_ENABLE, i, 1);
}

/* ---- requests ---- */

static int64_t seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	return ts.tv_sec;
}

/* Looks until the answer is there. */
static int await_answer(struct virtq_driver *q, uint32_t *ret_used)
{
	const int64_t end = seconds() + ANSWER_S;
	void *cookie;

	do {
		for (unsigned i = 0; i < 100000; i++) {
			if (virtq_driver_ready(q))
				return virtq_driver_take(q, &cookie, ret_used) == 1 ? 0 : -EPROTO;
			cpu_relax();
		}
	} while (seconds() < end);
	return -ETIMEDOUT;
}

/* ret: reply_size bytes. */
static int call(struct bare *b, const struct fuse_request *req, void *ret, size_t reply_size)
{
	struct virtq_driver *q = &b->ring[QUEUES - 1];
	ssize_t size = fuse_encode(req, ++b->unique, b->mem + REQUEST_AT, REQUEST_BYTES);
	const uint32_t head_size = sizeof(struct fuse_in_header);
	const struct virtq_buf out[2] = {{GUEST_BASE + REQUEST_AT, head_size},
					 {GUEST_BASE + REQUEST_AT + head_size,
					  (uint32_t)MAX(size, 0) - head_size}};
	const struct virtq_buf in[2] = {{GUEST_BASE + REPLY_AT, sizeof(struct fuse_out_header)},
					{GUEST_BASE + REPLY_AT + sizeof(struct fuse_out_header),
					 (uint32_t)reply_size}};
	const uint64_t one = 1;
	struct fuse_out_header head;
	bool broken = false;
	uint32_t used = 0;
	int err = size < 0 ? (int)size : virtq_driver_add(q, out, 2, in, 2, NULL, 0, b);

	if (err)
		return err;
	if (virtq_driver_publish(q) && write(b->kick[QUEUES - 1], &one, sizeof(one)) != sizeof(one))
		return -EIO;
	err = await_answer(q, &used);
	if (err)
		return err;
	memcpy(&head, b->mem + REPLY_AT, sizeof(head));
	size = fuse_check_reply(req->opcode, b->unique, &head, used, reply_size, &broken);
	if (size > 0)
		memcpy(ret, b->mem + REPLY_AT + sizeof(head), (size_t)size);
	return (int)MIN(size, 0);
}

static int init(struct bare *b)
{
	const struct fuse_init_in arg = {.major = FUSE_KERNEL_VERSION, .minor = FUSE_WIRE_MINOR};
	const struct fuse_request req = {.opcode = FUSE_INIT, .arg = &arg, .arg_size = sizeof(arg)};
	struct fuse_init_out out;

	return call(b, &req, &out, sizeof(out));
}

int bare_lookup(struct bare *b, uint64_t dir, const char *name, struct fuse_entry_out *ret)
{
	const struct fuse_request req = {
		.opcode = FUSE_LOOKUP, .nodeid = dir, .name = {name}, .name_len = {strlen(name)}};

	return call(b, &req, ret, sizeof(*ret));
}

/* ---- life ---- */

static int make_kick(struct bare *b, unsigned i, enum bare_kick kind)
{
	int sv[2];

	if (kind == BARE_EVENTFD) {
		b->kick[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		b->kick_theirs[i] = b->kick[i] < 0 ? -1 : dup(b->kick[i]);
		return b->kick_theirs[i] < 0 ? -errno : 0;
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
		return -errno;
	b->kick[i] = sv[0];
	b->kick_theirs[i] = sv[1];
	return 0;
}

static int make_queues(struct bare *b, enum bare_kick kind)
{
	int err = 0;

	for (unsigned i = 0; i < QUEUES && !err; i++) {
		virtq_driver_init(&b->ring[i], RING, false, b->mem + (size_t)i * RING_BYTES,
				  b->slots[i]);
		virtq_driver_disarm(&b->ring[i]);
		b->call[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		err = b->call[i] < 0 ? -errno : make_kick(b, i, kind);
	}
	return err;
}

static int start(struct bare *b, enum bare_kick kind)
{
	const struct timeval limit = {.tv_sec = ANSWER_S};
	int err;

	b->fd = memfd_create("bench-fs-bare", MFD_CLOEXEC);
	if (b->fd < 0 || ftruncate(b->fd, MEMORY) < 0 ||
	    setsockopt(b->sock, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0)
		return -errno;
	b->mem = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, b->fd, 0);
	if (b->mem == MAP_FAILED)
		return -errno;
	err = make_queues(b, kind);
	if (!err)
		err = negotiate(b);
	if (!err)
		err = set_memory(b);
	for (unsigned i = 0; i < QUEUES && !err; i++)
		err = start_queue(b, i);
	return err ? err : init(b);
}

int bare_create(int sock, enum bare_kick kick, struct bare **ret)
{
	struct bare *b = calloc(1, sizeof(*b));
	int err;

	if (!b)
		return -ENOMEM;
	b->sock = sock;
	b->fd = -1;
	b->mem = MAP_FAILED;
	for (unsigned i = 0; i < QUEUES; i++)
		b->kick[i] = b->kick_theirs[i] = b->call[i] = -1;
	err = start(b, kick);
	if (err) {
		bare_destroy(b);
		return err;
	}
	*ret = b;
	return 0;
}

void bare_destroy(struct bare *b)
{
	if (!b)
		return;
	/* Before the kicks' ends, which are readable from then on. */
	(void)shutdown(b->sock, SHUT_RDWR);
	for (unsigned i = 0; i < QUEUES; i++) {
		const int fds[] = {b->kick[i], b->kick_theirs[i], b->call[i]};

		for (size_t k = 0; k < ARRAY_SIZE(fds); k++)
			if (fds[k] >= 0)
				close(fds[k]);
	}
	if (b->mem != MAP_FAILED)
		munmap(b->mem, MEMORY);
	if (b->fd >= 0)
		close(b->fd);
	free(b);
}
