/*
 * tests/virtiofs_front.h - a vhost-user front end that sends any FUSE request, for tests of the daemon alone.
 *
 * One region of memory, at different guest and user addresses; QUEUES rings, the first of high priority; SLOTS requests in flight on each, answered in
 * any order. One thread a queue. Whatever goes wrong with the device itself ends the test. The daemon is the program executed anew, with every
 * option that a client may ask for. Include it in one file of a program.
 */
#ifndef MOAT_TESTS_VIRTIOFS_FRONT_H
#define MOAT_TESTS_VIRTIOFS_FRONT_H

#include <errno.h>
#include <poll.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "gofer/virtiofs/virtiofsd.h"
#include "wire/fuse.h"
#include "wire/vhost_user.h"
#include "wire/virtqueue.h"

#define FRONT_SERVE_ARG "--serve-raw"
#define FRONT_QUEUES 3
#define FRONT_NUM 256
#define FRONT_SLOTS 80
#define FRONT_OUT 12288
#define FRONT_IN 12288
#define FRONT_RING 16384
#define FRONT_QUEUE_BYTES (FRONT_RING + FRONT_SLOTS * (FRONT_OUT + FRONT_IN))
#define FRONT_BYTES (FRONT_QUEUES * FRONT_QUEUE_BYTES)
#define FRONT_GUEST 0x10000000ull
#define FRONT_USER 0x70000000ull
#define FRONT_WAIT_MS 20000 /* for an answer that must come */

struct front_slot {
	bool busy, done;
	uint32_t len; /* written by the daemon */
	uint64_t unique;
	uint32_t opcode;
	uint8_t *out, *in;
};

struct front_queue {
	struct virtq_driver ring;
	struct virtq_driver_slot ring_slots[FRONT_NUM];
	struct front_slot slots[FRONT_SLOTS];
	int kick, call;
	unsigned submitted;
};

struct front {
	int sock, memfd;
	uint8_t *mem;
	_Atomic uint64_t unique;
	struct front_queue q[FRONT_QUEUES];
};

static inline void front_fail(const char *what)
{
	fprintf(stderr, "front end: %s: %s\n", what, strerror(errno));
	abort();
}

/* ---- messages ---- */

static inline void front_send(struct front *f, struct vhost_user_msg *m, int fd)
{
	struct iovec iov = {m, VHOST_USER_HEADER_SIZE + m->size};
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (fd >= 0) {
		msg.msg_control = control.buf;
		msg.msg_controllen = sizeof(control.buf);
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.align), &fd, sizeof(fd));
	}
	if (sendmsg(f->sock, &msg, MSG_NOSIGNAL) != (ssize_t)iov.iov_len)
		front_fail("a message");
}

static inline void front_receive(struct front *f, struct vhost_user_msg *m)
{
	memset(m, 0, sizeof(*m));
	if (recv(f->sock, m, VHOST_USER_HEADER_SIZE, MSG_WAITALL) != VHOST_USER_HEADER_SIZE ||
	    m->size > VHOST_USER_PAYLOAD_MAX ||
	    (m->size && recv(f->sock, &m->u64, m->size, MSG_WAITALL) != (ssize_t)m->size))
		front_fail("an answer");
}

/* Return: what the daemon said, 0 or 1. */
static inline uint64_t front_tell(struct front *f, struct vhost_user_msg *m, int fd)
{
	uint32_t request = m->request;

	front_send(f, m, fd);
	front_receive(f, m);
	if (vhost_user_check_reply(m, request, true))
		front_fail("the form of an answer");
	return m->u64;
}

static inline void front_set(struct front *f, uint32_t request, uint64_t value, int fd)
{
	struct vhost_user_msg m;

	vhost_user_request_init(&m, request, true);
	m.u64 = value;
	if (front_tell(f, &m, fd))
		front_fail(vhost_user_name(request));
}

static inline uint64_t front_get(struct front *f, uint32_t request, uint64_t value)
{
	struct vhost_user_msg m;

	vhost_user_request_init(&m, request, false);
	m.u64 = value;
	return front_tell(f, &m, -1);
}

static inline uint64_t front_state(uint32_t index, uint32_t num)
{
	return (uint64_t)num << 32 | index;
}

static inline uint8_t *front_queue_mem(struct front *f, unsigned qi)
{
	return f->mem + (size_t)qi * FRONT_QUEUE_BYTES;
}

static inline uint64_t front_guest(const struct front *f, const void *p)
{
	return FRONT_GUEST + (uint64_t)((const uint8_t *)p - f->mem);
}

static inline void front_queue_start(struct front *f, unsigned qi)
{
	struct front_queue *q = &f->q[qi];
	uint64_t user = FRONT_USER + (uint64_t)(front_queue_mem(f, qi) - f->mem);
	struct virtq_layout at;
	struct vhost_user_msg m;

	memset(front_queue_mem(f, qi), 0, FRONT_RING);
	memset(q->ring_slots, 0, sizeof(q->ring_slots));
	virtq_layout(FRONT_NUM, &at);
	virtq_driver_init(&q->ring, FRONT_NUM, true, front_queue_mem(f, qi), q->ring_slots);
	q->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	q->call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	for (unsigned i = 0; i < FRONT_SLOTS; i++) {
		q->slots[i].out = front_queue_mem(f, qi) + FRONT_RING + i * (FRONT_OUT + FRONT_IN);
		q->slots[i].in = q->slots[i].out + FRONT_OUT;
	}
	front_set(f, VHOST_USER_SET_VRING_NUM, front_state(qi, FRONT_NUM), -1);
	front_set(f, VHOST_USER_SET_VRING_BASE, front_state(qi, 0), -1);
	vhost_user_request_init(&m, VHOST_USER_SET_VRING_ADDR, true);
	m.addr = (struct vhost_user_vring_addr){.index = qi,
						.desc = user + at.desc,
						.used = user + at.used,
						.avail = user + at.avail};
	if (front_tell(f, &m, -1))
		front_fail("SET_VRING_ADDR");
	front_set(f, VHOST_USER_SET_VRING_CALL, qi, q->call);
	front_set(f, VHOST_USER_SET_VRING_KICK, qi, q->kick);
	front_set(f, VHOST_USER_SET_VRING_ENABLE, front_state(qi, 1), -1);
}

/* The queue's end: how many requests the daemon took. */
static inline uint64_t front_queue_stop(struct front *f, unsigned qi)
{
	return front_get(f, VHOST_USER_GET_VRING_BASE, front_state(qi, 0)) >> 32;
}

/* sock: taken. */
static inline void front_connect(struct front *f, int sock)
{
	struct vhost_user_msg m;

	memset(f, 0, sizeof(*f));
	f->sock = sock;
	f->memfd = memfd_create("front", MFD_CLOEXEC);
	if (f->memfd < 0 || ftruncate(f->memfd, FRONT_BYTES) < 0)
		front_fail("memory");
	f->mem = mmap(NULL, FRONT_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, f->memfd, 0);
	if (f->mem == MAP_FAILED)
		front_fail("memory");
	(void)front_get(f, VHOST_USER_GET_FEATURES, 0);
	vhost_user_request_init(&m, VHOST_USER_SET_FEATURES, false);
	m.u64 = 1ull << VIRTIO_F_VERSION_1_BIT | 1ull << VHOST_USER_F_PROTOCOL_FEATURES |
		1ull << VIRTIO_F_EVENT_IDX;
	front_send(f, &m, -1);
	vhost_user_request_init(&m, VHOST_USER_SET_PROTOCOL_FEATURES, false);
	m.u64 = 1ull << VHOST_USER_PROTOCOL_REPLY_ACK;
	front_send(f, &m, -1);
	vhost_user_request_init(&m, VHOST_USER_SET_MEM_TABLE, true);
	m.mem.count = 1;
	m.mem.regions[0] = (struct vhost_user_region){FRONT_GUEST, FRONT_BYTES, FRONT_USER, 0};
	m.size = 8 + sizeof(m.mem.regions[0]);
	if (front_tell(f, &m, f->memfd))
		front_fail("SET_MEM_TABLE");
	for (unsigned i = 0; i < FRONT_QUEUES; i++)
		front_queue_start(f, i);
}

static inline void front_close(struct front *f)
{
	close(f->sock);
	for (unsigned i = 0; i < FRONT_QUEUES; i++) {
		close(f->q[i].kick);
		close(f->q[i].call);
	}
	munmap(f->mem, FRONT_BYTES);
	close(f->memfd);
}

/* Runs before main: `PROGRAM --serve-raw DIR FD` is the daemon of DIR on the socket FD, and nothing else. */
__attribute__((constructor)) static void front_serve(int argc, char **argv, char **envp)
{
	struct virtiofsd_config config = {
		.listen_fd = -1,
		.posix_lock = true,
		.flock = true,
		.posix_acl = true,
		.submounts = true,
		.once = true,
		.no_namespaces = geteuid() != 0,
	};

	(void)envp;
	if (argc != 4 || strcmp(argv[1], FRONT_SERVE_ARG))
		return;
	config.shared_dir = argv[2];
	config.sock_fd = atoi(argv[3]);
	log_init(2, LOG_ERROR_LEVEL, "daemon");
	_exit(virtiofsd_main(&config) ? 1 : 0);
}

/* A daemon of dir's own, connected. */
static inline int front_spawn(struct front *f, char *dir, pid_t *ret_pid)
{
	posix_spawn_file_actions_t actions;
	char fd_arg[16];
	char *argv[] = {program_invocation_name, (char *)FRONT_SERVE_ARG, dir, fd_arg, NULL};
	int sv[2], err;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
		return -errno;
	snprintf(fd_arg, sizeof(fd_arg), "%d", sv[1]);
	posix_spawn_file_actions_init(&actions);
	/* Onto itself: the descriptor loses its close-on-exec flag. */
	posix_spawn_file_actions_adddup2(&actions, sv[1], sv[1]);
	err = posix_spawn(ret_pid, "/proc/self/exe", &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	close(sv[1]);
	if (err)
		return -err;
	front_connect(f, sv[0]);
	return 0;
}

/* ---- requests ---- */

struct front_request {
	uint32_t opcode;
	uint64_t nodeid;
	const void *arg;
	size_t arg_size;
	const char *name[2];
	const void *data;
	size_t data_size;
	uint32_t uid, gid;
};

/* The request as it stands in slot->out. Return: its bytes. */
static inline size_t front_encode(struct front *f, struct front_slot *s,
				  const struct front_request *r)
{
	struct fuse_request req = {
		.opcode = r->opcode,
		.nodeid = r->nodeid,
		.uid = r->uid,
		.gid = r->gid,
		.arg = r->arg,
		.arg_size = r->arg_size,
		.data_size = r->data_size,
	};
	ssize_t size;

	for (int i = 0; i < 2; i++) {
		req.name[i] = r->name[i];
		req.name_len[i] = r->name[i] ? strlen(r->name[i]) : 0;
	}
	s->unique = ++f->unique;
	s->opcode = r->opcode;
	size = fuse_encode(&req, s->unique, s->out, FRONT_OUT);
	if (size < 0 || (size_t)size + r->data_size > FRONT_OUT)
		front_fail("a request too long");
	if (r->data_size)
		memcpy(s->out + size, r->data, r->data_size);
	return (size_t)size + r->data_size;
}

/* Return: a slot, not answered yet. */
static inline struct front_slot *front_submit(struct front *f, unsigned qi,
					      const struct front_request *r)
{
	struct front_queue *q = &f->q[qi];
	struct front_slot *s = NULL;
	struct virtq_buf out, in;
	const uint64_t one = 1;

	for (unsigned i = 0; i < FRONT_SLOTS && !s; i++)
		if (!q->slots[i].busy)
			s = &q->slots[i];
	if (!s)
		front_fail("no slot");
	s->busy = true;
	s->done = false;
	out = (struct virtq_buf){front_guest(f, s->out), (uint32_t)front_encode(f, s, r)};
	in = (struct virtq_buf){front_guest(f, s->in), FRONT_IN};
	if (virtq_driver_add(&q->ring, &out, 1, &in, 1, NULL, 0, s))
		front_fail("no room in the ring");
	q->submitted++;
	if (virtq_driver_publish(&q->ring) && write(q->kick, &one, sizeof(one)) != sizeof(one))
		front_fail("a kick");
	return s;
}

static inline int64_t front_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ll + ts.tv_nsec / 1000000;
}

/* True: slot was answered within `ms`. */
static inline bool front_wait(struct front *f, unsigned qi, struct front_slot *s, int ms)
{
	struct front_queue *q = &f->q[qi];
	int64_t end = front_now_ms() + ms;

	while (!s->done) {
		struct pollfd p = {.fd = q->call, .events = POLLIN};
		int64_t left = end - front_now_ms();
		struct front_slot *got;
		void *cookie;
		uint64_t count;
		uint32_t len;
		int n = virtq_driver_take(&q->ring, &cookie, &len);

		if (n < 0)
			front_fail("a ring that makes no sense");
		if (n) {
			got = cookie;
			got->done = true;
			got->len = len;
			continue;
		}
		if (left <= 0)
			return false;
		if (virtq_driver_arm(&q->ring))
			continue;
		if (poll(&p, 1, (int)left) > 0)
			(void)!read(q->call, &count, sizeof(count));
	}
	return true;
}

/* The answer. Return: payload bytes (copied to reply as far as there is room), -errno. */
static inline ssize_t front_collect(struct front *f, unsigned qi, struct front_slot *s, void *reply,
				    size_t room)
{
	struct fuse_out_header head;
	bool broken = false;
	ssize_t got;

	if (!front_wait(f, qi, s, FRONT_WAIT_MS)) {
		errno = ETIMEDOUT;
		front_fail(fuse_op_info(s->opcode)->name);
	}
	s->busy = false;
	memcpy(&head, s->in, sizeof(head));
	got = fuse_check_reply(s->opcode, s->unique, &head, s->len, FRONT_IN - sizeof(head),
			       &broken);
	if (broken)
		front_fail("an answer that makes no sense");
	if (got > 0 && reply)
		memcpy(reply, s->in + sizeof(head), MIN((size_t)got, room));
	return got;
}

static inline ssize_t front_call(struct front *f, unsigned qi, const struct front_request *r,
				 void *reply, size_t room)
{
	return front_collect(f, qi, front_submit(f, qi, r), reply, room);
}

/* A request that has no answer. */
static inline void front_post(struct front *f, unsigned qi, const struct front_request *r)
{
	struct front_slot *s = front_submit(f, qi, r);

	if (!front_wait(f, qi, s, FRONT_WAIT_MS))
		front_fail("a request without an answer");
	s->busy = false;
}

/* wanted: flags of both words. Return: those granted. */
static inline uint64_t front_init(struct front *f, uint64_t wanted)
{
	const struct fuse_init_in in = {
		.major = FUSE_KERNEL_VERSION,
		.minor = FUSE_WIRE_MINOR,
		.max_readahead = 131072,
		.flags = (uint32_t)wanted | FUSE_INIT_EXT,
		.flags2 = (uint32_t)(wanted >> 32),
	};
	const struct front_request r = {.opcode = FUSE_INIT, .arg = &in, .arg_size = sizeof(in)};
	struct fuse_init_out out = {0};

	if (front_call(f, 1, &r, &out, sizeof(out)) < 0)
		front_fail("INIT");
	return out.flags | (uint64_t)out.flags2 << 32;
}

/* Return: the node's id, -errno. */
static inline int64_t front_lookup(struct front *f, uint64_t dir, const char *name,
				   struct fuse_entry_out *ret)
{
	const struct front_request r = {.opcode = FUSE_LOOKUP, .nodeid = dir, .name = {name}};
	struct fuse_entry_out e = {0};
	ssize_t got = front_call(f, 1, &r, &e, sizeof(e));

	if (got >= 0 && ret)
		*ret = e;
	return got < 0 ? got : (int64_t)e.nodeid;
}

/* Return: the handle, -errno. */
static inline int64_t front_open(struct front *f, uint64_t node, uint32_t flags,
				 uint32_t open_flags)
{
	const struct fuse_open_in in = {.flags = flags, .open_flags = open_flags};
	const struct front_request r = {.opcode = FUSE_OPEN, .nodeid = node, .arg = &in};
	struct fuse_open_out out = {0};
	ssize_t got = front_call(f, 1, &r, &out, sizeof(out));

	return got < 0 ? got : (int64_t)out.fh;
}

#endif
