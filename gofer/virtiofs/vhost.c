/*
 * gofer/virtiofs/vhost.c - the vhost-user back end: the front end's messages, its memory, its queues.
 *
 * The main thread reads messages; each queue that was given a kick and enabled has a thread that serves its ring. Memory and ring addresses
 * only change while no queue runs: a front end that tries otherwise is refused and its connection ends.
 */
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "gofer/virtiofs/server.h"

#define SPIN_NS 30000
#define KICKS_AT_ONCE 64 /* of a front end with a socket to kick by; an eventfd has one */
/* A front end that ends closes its descriptors one by one. */
#define LEAVE_MS 1000
#define LEAVE_STEP_MS 10
#define YIELD_NS 1000000
#define STOP_RETRY_NS 5000000

#define FEATURES                                                                   \
	(1ull << VIRTIO_F_VERSION_1_BIT | 1ull << VHOST_USER_F_PROTOCOL_FEATURES | \
	 1ull << VIRTIO_F_EVENT_IDX | 1ull << VIRTIO_F_INDIRECT_DESC)
#define PROTOCOL_FEATURES                                                         \
	(1ull << VHOST_USER_PROTOCOL_MQ | 1ull << VHOST_USER_PROTOCOL_REPLY_ACK | \
	 1ull << VHOST_USER_PROTOCOL_CONFIGURE_MEM_SLOTS)
#define DAX_FEATURES                                                                             \
	(1ull << VHOST_USER_PROTOCOL_BACKEND_REQ | 1ull << VHOST_USER_PROTOCOL_BACKEND_SEND_FD | \
	 1ull << VHOST_USER_PROTOCOL_SHMEM)

/* ---- queues ---- */

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ll + ts.tv_nsec;
}

void queue_complete(struct queue *q, uint16_t head, uint32_t len)
{
	const uint64_t one = 1;

	mutex_lock(&q->done_lock);
	virtq_device_push(&q->ring, head, len);
	if (virtq_device_should_call(&q->ring) && q->call_fd >= 0)
		(void)!write(q->call_fd, &one, sizeof(one));
	mutex_unlock(&q->done_lock);
}

/* Sleeps until there is a kick, or the queue shall stop. Return: false: there will be none, its other end is closed or it is nothing that can be read. */
static bool sleep_for_kick(struct queue *q)
{
	struct pollfd p = {.fd = q->kick_fd, .events = POLLIN};
	uint64_t counts[KICKS_AT_ONCE];
	ssize_t got;

	while (!atomic_load(&q->stop)) {
		/* The descriptor blocks or not as the front end made it. */
		if (poll(&p, 1, -1) <= 0)
			continue;
		got = read(q->kick_fd, counts, sizeof(counts));
		return got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR));
	}
	return true;
}

/* Until the ring has something, or the queue shall stop. Return: as sleep_for_kick(). */
static bool wait_for_kick(struct queue *q)
{
	int64_t end = now_ns() + SPIN_NS, yielded;
	bool ok;

	/* A client that polls sends its next request within microseconds. */
	while (now_ns() < end && !atomic_load(&q->stop)) {
		for (int i = 0; i < 32; i++) {
			if (__atomic_load_n(&q->ring.avail->idx, __ATOMIC_ACQUIRE) !=
			    q->ring.last_avail)
				return true;
			__builtin_ia32_pause();
		}
		/* It may be on this very CPU. Where others are too, who sleeps has it sooner than who yields. */
		yielded = now_ns();
		sched_yield();
		if (now_ns() - yielded > YIELD_NS)
			break;
	}
	if (virtq_device_arm(&q->ring))
		return true;
	ok = sleep_for_kick(q);
	virtq_device_disarm(&q->ring);
	return ok;
}

/* Nothing more can come of it: the front end sees the connection's end, if it has not left itself, or is about to. */
static void give_up(struct queue *q, const char *why)
{
	struct pollfd p = {.fd = q->d->sock, .events = POLLRDHUP};

	for (int ms = 0; ms < LEAVE_MS; ms += LEAVE_STEP_MS)
		if (atomic_load(&q->stop) || poll(&p, 1, LEAVE_STEP_MS) > 0)
			return;
	log_error("virtiofs: queue %u: %s; it stops", q->index, why);
	shutdown(q->d->sock, SHUT_RDWR);
}

static void *queue_main(void *arg)
{
	struct queue *q = arg;
	struct request_buffers *buffers = malloc(sizeof(*buffers));
	struct virtq_chain *chain = malloc(sizeof(*chain));

	/* Its umask is that of the request. The working directory stays the same. */
	if (unshare(CLONE_FS) < 0)
		log_error("virtiofs: queue %u: no umask of its own: %s", q->index, strerror(errno));
	virtq_device_disarm(&q->ring);
	while (buffers && chain && !atomic_load(&q->stop)) {
		int got = virtq_device_pop(&q->ring, &q->d->mem, chain);
		uint32_t len;

		if (got < 0) {
			give_up(q, "its ring makes no sense");
			break;
		}
		if (got == 0) {
			if (!wait_for_kick(q)) {
				give_up(q, "its kick descriptor tells nothing any more");
				break;
			}
			continue;
		}
		if (request_serve(q, chain, buffers, &len))
			queue_complete(q, chain->head, len);
	}
	q->base = q->ring.last_avail;
	free(buffers);
	free(chain);
	return NULL;
}

/* The host's address of a part of a ring, all of it in one region. */
static void *ring_part(struct daemon *d, uint64_t user_addr, uint64_t size, unsigned align)
{
	for (unsigned i = 0; i < d->mem.count; i++) {
		uint64_t off = user_addr - d->user_base[i];

		if (user_addr >= d->user_base[i] && off <= d->regions[i].size &&
		    size <= d->regions[i].size - off &&
		    ((uintptr_t)d->regions[i].host + off) % align == 0)
			return d->regions[i].host + off;
	}
	return NULL;
}

static int queue_start(struct queue *q)
{
	struct daemon *d = q->d;
	void *desc, *avail, *used;

	if (q->running || !q->enabled || q->kick_fd < 0 || !q->num)
		return 0;
	desc = ring_part(d, q->desc_addr, q->num * sizeof(struct vring_desc), 16);
	avail = ring_part(d, q->avail_addr, 6 + 2ull * q->num, 2);
	used = ring_part(d, q->used_addr, 6 + 8ull * q->num, 4);
	if (!desc || !avail || !used)
		return -EINVAL;
	virtq_device_init(&q->ring, q->num, d->features >> VIRTIO_F_EVENT_IDX & 1,
			  d->features >> VIRTIO_F_INDIRECT_DESC & 1, desc, avail, used, q->base);
	atomic_store(&q->stop, false);
	if (pthread_create(&q->thread, NULL, queue_main, q))
		return -EAGAIN;
	q->running = true;
	return 0;
}

/* By signals, again and again, not by the descriptors: whoever sent those can make them block, and the thread with them. */
void thread_stop(pthread_t thread)
{
	struct timespec end;

	do {
		pthread_kill(thread, SIGUSR1);
		clock_gettime(CLOCK_REALTIME, &end);
		end.tv_nsec += STOP_RETRY_NS;
		end.tv_sec += end.tv_nsec / 1000000000;
		end.tv_nsec %= 1000000000;
	} while (pthread_timedjoin_np(thread, NULL, &end));
}

static void queue_stop(struct queue *q)
{
	if (!q->running)
		return;
	atomic_store(&q->stop, true);
	thread_stop(q->thread);
	/* Then every request is answered, and one number tells where the ring stands. */
	locks_end_waits(q->d, q);
	q->running = false;
}

static bool any_running(const struct daemon *d)
{
	for (unsigned i = 0; i < d->queue_count; i++)
		if (d->queues[i].running)
			return true;
	return false;
}

/* ---- memory ---- */

static struct daemon *mapped_by; /* for the signal's handler: the one daemon of this process */

/*
 * A client that shortens its memory file takes pages away from under us: zeros take their place, for the rest of the connection, and its rings or requests
 * make no sense any more. Seals are not asked for: memory of QEMU's may be a plain file.
 */
static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	uintptr_t at = (uintptr_t)info->si_addr & ~(uintptr_t)4095;

	(void)context;
	for (unsigned i = 0; mapped_by && i < mapped_by->mem.count; i++) {
		uintptr_t base = (uintptr_t)mapped_by->map_base[i];

		if (at >= base && at - base < mapped_by->map_size[i] &&
		    mmap((void *)at, 4096, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED)
			return;
	}
	signal(sig, SIG_DFL);
}

static void on_stop(int sig)
{
	(void)sig;
}

void vhost_signals(struct daemon *d)
{
	struct sigaction bus = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO};
	struct sigaction stop = {.sa_handler = on_stop};

	mapped_by = d;
	sigaction(SIGBUS, &bus, NULL);
	sigaction(SIGUSR1, &stop, NULL);
	/* A host's limit on file sizes is the client's error, not our end. */
	signal(SIGXFSZ, SIG_IGN);
}

static void memory_drop(struct daemon *d)
{
	for (unsigned i = 0; i < d->mem.count; i++)
		munmap(d->map_base[i], d->map_size[i]);
	d->mem.count = 0;
}

static int region_add(struct daemon *d, const struct vhost_user_region *r, int fd)
{
	unsigned i = d->mem.count;
	uint64_t size;
	struct stat st;
	uint8_t *base;

	if (i == VHOST_USER_REGIONS_MAX)
		return -ENOSPC;
	if (!r->size || r->size > UINT64_MAX - r->mmap_offset ||
	    r->guest_addr > UINT64_MAX - r->size || r->user_addr > UINT64_MAX - r->size)
		return -EINVAL;
	size = r->mmap_offset + r->size;
	/* A shorter file would kill this process with SIGBUS. */
	if (fstat(fd, &st) < 0 || (uint64_t)st.st_size < size)
		return -EINVAL;
	base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (base == MAP_FAILED)
		return -errno;
	d->map_base[i] = base;
	d->map_size[i] = size;
	d->user_base[i] = r->user_addr;
	d->regions[i] = (struct virtq_region){r->guest_addr, r->size, base + r->mmap_offset};
	d->mem.count++;
	return 0;
}

static int set_mem_table(struct daemon *d, const struct vhost_user_msg *m, const int *fds)
{
	int err = 0;

	if (any_running(d))
		return -EBUSY;
	memory_drop(d);
	for (uint32_t i = 0; i < m->mem.count && !err; i++) {
		const struct vhost_user_region region = m->mem.regions[i];

		err = region_add(d, &region, fds[i]);
	}
	return err;
}

/* ---- messages ---- */

struct answer_fds {
	int fd[2]; /* borrowed */
	unsigned count;
};

static struct queue *queue_at(struct daemon *d, uint64_t index)
{
	return index < d->queue_count ? &d->queues[index] : NULL;
}

/*
 * An eventfd or its like: no fifo, file or terminal, on which reads and writes do other things than to count. Our own client's kicks come by
 * a socket, which is only read. Never blocking.
 */
static int check_event_fd(int fd, bool kick)
{
	struct stat st;
	int flags;

	if (fstat(fd, &st) < 0)
		return -errno;
	if ((st.st_mode & S_IFMT) && !(kick && S_ISSOCK(st.st_mode)))
		return -EINVAL;
	flags = fcntl(fd, F_GETFL);
	return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? -errno : 0;
}

/* KICK, CALL: the descriptor, or none. */
static int set_fd(struct daemon *d, const struct vhost_user_msg *m, int *fds, unsigned count)
{
	struct queue *q = queue_at(d, m->u64 & VHOST_USER_VRING_INDEX);
	bool none = m->u64 & VHOST_USER_VRING_NOFD;
	const uint64_t one = 1;
	int *at, err;

	if (!q || none == (count != 0))
		return -EINVAL;
	if (m->request == VHOST_USER_SET_VRING_ERR)
		return 0;
	err = none ? 0 : check_event_fd(fds[0], m->request == VHOST_USER_SET_VRING_KICK);
	if (err)
		return err;
	at = m->request == VHOST_USER_SET_VRING_KICK ? &q->kick_fd : &q->call_fd;
	if (q->running && at == &q->kick_fd)
		return -EBUSY;
	/* Virtual machines change a ring's call while it runs, as they mask interrupts. */
	mutex_lock(&q->done_lock);
	if (*at >= 0)
		close(*at);
	*at = none ? -1 : fds[0];
	if (!none)
		fds[0] = -1;
	if (q->running && !none)
		(void)!write(q->call_fd, &one, sizeof(one)); /* one that is owed may be lost */
	mutex_unlock(&q->done_lock);
	return at == &q->kick_fd ? queue_start(q) : 0;
}

static int set_vring(struct daemon *d, const struct vhost_user_msg *m)
{
	struct queue *q = queue_at(d, m->state.index);

	if (!q)
		return -EINVAL;
	switch (m->request) {
	case VHOST_USER_SET_VRING_ENABLE:
		q->enabled = m->state.num;
		if (!q->enabled)
			queue_stop(q);
		return queue_start(q);
	case VHOST_USER_SET_VRING_NUM:
		if (q->running || !m->state.num || m->state.num > VIRTQ_SIZE_MAX ||
		    (m->state.num & (m->state.num - 1)))
			return -EINVAL;
		q->num = m->state.num;
		return 0;
	case VHOST_USER_SET_VRING_BASE:
		if (q->running || m->state.num > UINT16_MAX)
			return -EINVAL;
		q->base = (uint16_t)m->state.num;
		return 0;
	default:
		if (q->running)
			return -EBUSY;
		q->desc_addr = m->addr.desc;
		q->avail_addr = m->addr.avail;
		q->used_addr = m->addr.used;
		return 0;
	}
}

static uint64_t protocol_features(const struct daemon *d)
{
	return PROTOCOL_FEATURES | (d->config.dax_window ? DAX_FEATURES : 0) |
	       (d->versions ? 1ull << VHOST_USER_PROTOCOL_MOAT_VERSIONS : 0);
}

static void get_shmem_config(const struct daemon *d, struct vhost_user_msg *m)
{
	if (!dax_on(d))
		return;
	m->shmem_config.count = 1;
	m->shmem_config.sizes[0] = d->config.dax_window;
}

/* The table goes along if this connection can have it; a size of 0: it cannot. fds: what the answer brings. */
static void get_versions(struct daemon *d, struct vhost_user_msg *m, struct answer_fds *fds)
{
	int err = version_watch_start(d);

	if (err) {
		log_warn("virtiofs: no versions for this client: %s", strerror(-err));
		return;
	}
	m->versions = (struct vhost_user_versions){VERSION_TABLE_BYTES, d->watcher, 1};
	fds->fd[fds->count++] = d->versions_fd;
	fds->fd[fds->count++] = d->notify_epoll;
}

/* Return: 0, -errno; *ret_reply: m is the answer now. */
static int handle(struct daemon *d, struct vhost_user_msg *m, int *fds, unsigned fd_count,
		  bool *ret_reply, struct answer_fds *answer_fds)
{
	struct vhost_user_msg request = *m;
	struct vhost_user_region region;
	struct queue *q;

	*ret_reply = vhost_user_has_reply(m->request);
	if (*ret_reply)
		vhost_user_reply_init(m, &request, false);
	switch (request.request) {
	case VHOST_USER_GET_FEATURES:
		m->u64 = FEATURES;
		return 0;
	case VHOST_USER_SET_FEATURES:
		if (request.u64 & ~FEATURES)
			return -EINVAL;
		d->features = request.u64;
		return 0;
	case VHOST_USER_GET_PROTOCOL_FEATURES:
		m->u64 = protocol_features(d);
		return 0;
	case VHOST_USER_SET_PROTOCOL_FEATURES:
		d->protocol_features = request.u64 & protocol_features(d);
		return 0;
	case VHOST_USER_GET_QUEUE_NUM:
		m->u64 = d->queue_count;
		return 0;
	case VHOST_USER_GET_MAX_MEM_SLOTS:
		m->u64 = VHOST_USER_REGIONS_MAX;
		return 0;
	case VHOST_USER_SET_OWNER:
	case VHOST_USER_RESET_OWNER:
		return 0;
	case VHOST_USER_SET_BACKEND_REQ_FD:
		return any_running(d) ? -EBUSY : back_set(d, &fds[0]);
	case VHOST_USER_GET_SHMEM_CONFIG:
		get_shmem_config(d, m);
		return 0;
	case VHOST_USER_GET_VERSIONS:
		if (!(d->protocol_features >> VHOST_USER_PROTOCOL_MOAT_VERSIONS & 1) ||
		    any_running(d))
			return -EINVAL;
		get_versions(d, m, answer_fds);
		return 0;
	case VHOST_USER_SET_MEM_TABLE:
		return set_mem_table(d, &request, fds);
	case VHOST_USER_ADD_MEM_REG:
		region = request.slot.region;
		return region_add(d, &region, fds[0]);
	case VHOST_USER_SET_VRING_KICK:
	case VHOST_USER_SET_VRING_CALL:
	case VHOST_USER_SET_VRING_ERR:
		return set_fd(d, &request, fds, fd_count);
	case VHOST_USER_SET_VRING_NUM:
	case VHOST_USER_SET_VRING_ADDR:
	case VHOST_USER_SET_VRING_BASE:
	case VHOST_USER_SET_VRING_ENABLE:
		return set_vring(d, &request);
	case VHOST_USER_GET_VRING_BASE:
		q = queue_at(d, request.state.index);
		if (!q)
			return -EINVAL;
		queue_stop(q);
		m->state = (struct vhost_user_vring_state){q->index, q->base};
		return 0;
	default:
		return -EOPNOTSUPP;
	}
}

static int receive(struct daemon *d, struct vhost_user_msg *m, int *fds, unsigned *ret_fds)
{
	size_t count = VHOST_USER_FDS_MAX;
	bool cut;
	ssize_t n = io_recv_fds_flags(d->sock, m, VHOST_USER_HEADER_SIZE, MSG_WAITALL, fds, &count,
				      &cut);

	*ret_fds = (unsigned)count;
	if (n == 0)
		return -ENOTCONN;
	if (n != VHOST_USER_HEADER_SIZE || cut)
		return -EPROTO;
	if (vhost_user_check_header(m))
		return -EPROTO;
	if (m->size) {
		do
			n = recv(d->sock, (uint8_t *)m + VHOST_USER_HEADER_SIZE, m->size,
				 MSG_WAITALL);
		while (n < 0 && errno == EINTR);
		if (n != (ssize_t)m->size)
			return -EPROTO;
	}
	return vhost_user_check_request(m, *ret_fds, false);
}

static int answer(struct daemon *d, const struct vhost_user_msg *m, const struct answer_fds *fds)
{
	ssize_t size = (ssize_t)(VHOST_USER_HEADER_SIZE + m->size);

	return io_send_fds(d->sock, m, (size_t)size, fds->fd, fds->count) == size ? 0 : -EIO;
}

static int serve_message(struct daemon *d)
{
	int fds[VHOST_USER_FDS_MAX];
	struct vhost_user_msg m = {0}, request;
	struct answer_fds answer_fds = {0};
	unsigned count = 0;
	bool reply = false;
	int err = receive(d, &m, fds, &count), result = err;

	if (!err || err == -EOPNOTSUPP) {
		request = m;
		if (!err)
			result = handle(d, &m, fds, count, &reply, &answer_fds);
		err = 0;
		if (!reply && (request.flags & VHOST_USER_FLAG_NEED_REPLY) &&
		    (d->protocol_features >> VHOST_USER_PROTOCOL_REPLY_ACK & 1)) {
			vhost_user_reply_init(&m, &request, false);
			m.u64 = result ? 1 : 0;
			reply = true;
		}
		if (result)
			log_warn("virtiofs: %s refused: %s", vhost_user_name(request.request),
				 strerror(-result));
		if (reply)
			err = answer(d, &m, &answer_fds);
		else
			err = result;
	}
	for (unsigned i = 0; i < count; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	return err;
}

int vhost_serve(struct daemon *d)
{
	int err;

	for (unsigned i = 0; i < d->queue_count; i++) {
		d->queues[i] = (struct queue){.d = d, .index = i, .kick_fd = -1, .call_fd = -1};
		mutex_init(&d->queues[i].done_lock, LOCK_LEAF, "done");
	}
	d->mem = (struct virtq_memory){.regions = d->regions};
	d->features = d->protocol_features = 0;
	do
		err = serve_message(d);
	while (!err);
	for (unsigned i = 0; i < d->queue_count; i++) {
		struct queue *q = &d->queues[i];

		queue_stop(q);
		if (q->kick_fd >= 0)
			close(q->kick_fd);
		if (q->call_fd >= 0)
			close(q->call_fd);
	}
	memory_drop(d);
	back_close(d);
	version_watch_stop(d);
	return err == -ENOTCONN ? 0 : err;
}
