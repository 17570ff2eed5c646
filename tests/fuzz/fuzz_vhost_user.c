// LINK: moat_gofer moat_wire seccomp
/*
 * vhost-user in both directions, and the daemon that serves it.
 *
 * Even first byte: any bytes as a message of either side's, through the checks of wire/vhost_user. Odd: a front end that does what the input says, a
 * command a byte: messages with sensible or random payloads and any kind of descriptor, rings and requests written into its memory, rings started
 * and stopped; the daemon's own code serves it, threads and all, on a small tree of its own. It may end the connection at any
 * time, and must neither touch what is not its own nor stay.
 */
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gofer/virtiofs/server.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MEMORY (256u << 10)
#define GUEST 0x10000u
#define USER 0x70000u
#define NUM 16
#define RING_BYTES 8192
#define FILE_BYTES_MAX (1u << 20)
#define SERVE_US 1500 /* for the rings, behind each start of one */
#define MESSAGES_MAX 64
#define OPCODES 64 /* MOAT_WALK is the last one */

struct input {
	const uint8_t *at, *end;
};

static unsigned take(struct input *in)
{
	return in->at < in->end ? *in->at++ : 0;
}

static void take_bytes(struct input *in, void *to, size_t size)
{
	size_t n = MIN((size_t)(in->end - in->at), size);

	memset(to, 0, size);
	memcpy(to, in->at, n);
	in->at += n;
}

/* ---- the checks alone ---- */

static void fuzz_message(struct input *in)
{
	unsigned fds = take(in) % 12, backend = take(in) & 1, request = take(in);
	struct vhost_user_msg m;

	take_bytes(in, &m, sizeof(m));
	if (vhost_user_check_header(&m) == 0 && m.size > VHOST_USER_PAYLOAD_MAX)
		abort();
	if (vhost_user_check_request(&m, fds, backend) == 0) {
		struct vhost_user_msg reply;

		if (fds > VHOST_USER_FDS_MAX)
			abort();
		if (!backend && m.request == VHOST_USER_SET_MEM_TABLE &&
		    (m.mem.count > VHOST_USER_REGIONS_MAX || m.mem.count != fds))
			abort();
		/* What is answered to it is an answer to it. */
		vhost_user_reply_init(&reply, &m, backend);
		if (backend ? vhost_user_check_backend_reply(&reply, m.request)
			    : vhost_user_check_reply(&reply, m.request, true))
			abort();
	}
	(void)vhost_user_check_reply(&m, request, backend);
	(void)vhost_user_check_backend_reply(&m, request);
	(void)vhost_user_name(m.request);
}

/* ---- the front end ---- */

static struct daemon *d;
static char dir[64];
static uint8_t *memory;
static int memfd = -1;
static const struct fuse_op_info *ops_at(unsigned i)
{
	return fuse_op_info(i % OPCODES);
}

static void send_message(int sock, struct vhost_user_msg *m, const int *fds, unsigned count)
{
	struct iovec iov = {m,
			    VHOST_USER_HEADER_SIZE + MIN((size_t)m->size, VHOST_USER_PAYLOAD_MAX)};
	union {
		char buf[CMSG_SPACE(VHOST_USER_FDS_MAX * sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (count) {
		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(count * sizeof(int));
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(&control.align), fds, count * sizeof(int));
	}
	(void)sendmsg(sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* A descriptor of any kind. */
static int any_fd(struct input *in)
{
	int sv[2];

	switch (take(in) % 6) {
	case 0:
	case 1:
		return eventfd(0, EFD_CLOEXEC);
	case 2:
		return fcntl(memfd, F_DUPFD_CLOEXEC, 0);
	case 3:
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
			abort();
		close(sv[0]);
		return sv[1];
	case 4:
		return open("/dev/null", O_RDWR | O_CLOEXEC);
	default:
		if (pipe2(sv, O_CLOEXEC) < 0)
			abort();
		close(sv[0]);
		return sv[1];
	}
}

static void any_message(struct input *in, int sock)
{
	static const uint32_t numbers[] = {
#define X(name, number, ...) number,
		VHOST_USER_REQUESTS(X)
#undef X
	};
	struct vhost_user_msg m;
	int fds[VHOST_USER_FDS_MAX];
	unsigned count = take(in) % (VHOST_USER_FDS_MAX + 1), how = take(in);

	vhost_user_request_init(&m, numbers[take(in) % ARRAY_SIZE(numbers)], how & 1);
	if (how & 2)
		count = MIN(count, 1u);
	take_bytes(in, &m.u64, how & 4 ? m.size : 8);
	if (how & 8)
		m.size = take(in);
	for (unsigned i = 0; i < count; i++)
		fds[i] = any_fd(in);
	send_message(sock, &m, fds, count);
	for (unsigned i = 0; i < count; i++)
		close(fds[i]);
}

static void tell(int sock, uint32_t request, uint64_t value, int fd)
{
	struct vhost_user_msg m;

	vhost_user_request_init(&m, request, false);
	m.u64 = value;
	send_message(sock, &m, &fd, fd >= 0);
	if (fd >= 0)
		close(fd);
}

static void begin(int sock, uint64_t features)
{
	struct vhost_user_msg m;

	tell(sock, VHOST_USER_SET_FEATURES, features, -1);
	tell(sock, VHOST_USER_SET_PROTOCOL_FEATURES, ~0ull, -1);
	vhost_user_request_init(&m, VHOST_USER_SET_MEM_TABLE, false);
	m.mem.count = 1;
	m.mem.regions[0] = (struct vhost_user_region){GUEST, MEMORY, USER, 0};
	m.size = 8 + sizeof(m.mem.regions[0]);
	send_message(sock, &m, &memfd, 1);
}

static void start_ring(int sock, unsigned index)
{
	struct vhost_user_msg m;
	struct virtq_layout at;
	uint64_t user = USER + index * RING_BYTES;

	virtq_layout(NUM, &at);
	tell(sock, VHOST_USER_SET_VRING_NUM, (uint64_t)NUM << 32 | index, -1);
	vhost_user_request_init(&m, VHOST_USER_SET_VRING_ADDR, false);
	m.addr = (struct vhost_user_vring_addr){
		.index = index, .desc = user, .avail = user + at.avail, .used = user + at.used};
	send_message(sock, &m, NULL, 0);
	tell(sock, VHOST_USER_SET_VRING_CALL, index, eventfd(0, EFD_CLOEXEC));
	tell(sock, VHOST_USER_SET_VRING_KICK, index, eventfd(0, EFD_CLOEXEC));
	tell(sock, VHOST_USER_SET_VRING_ENABLE, 1ull << 32 | index, -1);
}

/* Few owners, handles and places, so that locks meet; what a walk asks for. */
static void make_sensible(uint32_t opcode, uint8_t *arg)
{
	struct fuse_lk_in lk;
	struct fuse_walk_in walk;

	if (opcode == FUSE_GETLK || opcode == FUSE_SETLK || opcode == FUSE_SETLKW) {
		memcpy(&lk, arg, sizeof(lk));
		lk.fh %= 4;
		lk.owner %= 3;
		lk.lk_flags &= FUSE_LK_FLOCK;
		lk.lk.type %= 3;
		lk.lk.start %= 8;
		lk.lk.end = lk.lk.end & 8 ? INT64_MAX : lk.lk.start + lk.lk.end % 8;
		memcpy(arg, &lk, sizeof(lk));
	} else if (opcode == FUSE_MOAT_WALK) {
		memcpy(&walk, arg, sizeof(walk));
		walk.flags &= FUSE_WALK_OPEN | FUSE_WALK_CREATE;
		walk.open_flags &= O_ACCMODE;
		walk.mode &= 07777;
		memcpy(arg, &walk, sizeof(walk));
	}
}

/* A request on a ring: well-formed as far as the input wants it. */
static void put_request(struct input *in, unsigned index)
{
	static const char *const names[] = {"f",   "d", "..",	  ".",	   "a/b",  "",
					    "new", "l", "user.x", "d/new", "d//f", "d/../f"};
	uint8_t *ring = memory + (size_t)index * RING_BYTES;
	struct vring_desc *desc = (void *)ring;
	struct virtq_layout at;
	unsigned slot = take(in) % (NUM / 2), how = take(in);
	uint8_t *buf = memory + 65536 + (size_t)(index * NUM + slot) * 4096;
	const struct fuse_op_info *op;
	uint32_t opcode = take(in);
	size_t size = sizeof(struct fuse_in_header);
	struct vring_avail *avail;
	struct fuse_in_header head = {.nodeid = 1 + take(in) % 6, .unique = slot};

	op = ops_at(opcode);
	head.opcode = opcode % OPCODES;
	take_bytes(in, buf + size, op->in_size);
	if (how & 4)
		make_sensible(head.opcode, buf + size);
	size += op->in_size;
	for (unsigned i = 0; i < op->strings; i++) {
		const char *name = names[take(in) % ARRAY_SIZE(names)];

		memcpy(buf + size, name, strlen(name) + 1);
		size += strlen(name) + 1;
	}
	if (op->in_data) {
		size_t n = take(in);

		take_bytes(in, buf + size, n);
		size += n;
	}
	head.len = (uint32_t)size + (how & 1 ? take(in) : 0);
	memcpy(buf, &head, sizeof(head));
	virtq_layout(NUM, &at);
	desc[2 * slot] = (struct vring_desc){.addr = GUEST + (uint64_t)(buf - memory),
					     .len = (uint32_t)size,
					     .flags = VRING_DESC_F_NEXT,
					     .next = (uint16_t)(2 * slot + 1)};
	desc[2 * slot + 1] = (struct vring_desc){.addr = GUEST + (uint64_t)(buf - memory) + 2048,
						 .len = 2048,
						 .flags = VRING_DESC_F_WRITE};
	if (how & 2)
		take_bytes(in, &desc[2 * slot + (how >> 7)], sizeof(*desc));
	avail = (void *)(ring + at.avail);
	avail->ring[avail->idx % NUM] = (uint16_t)(2 * slot);
	__atomic_store_n(&avail->idx, (uint16_t)(avail->idx + 1), __ATOMIC_RELEASE);
}

static void scribble(struct input *in)
{
	unsigned count = take(in) % 16;

	while (count--) {
		size_t at = (take(in) | take(in) << 8) % (3 * RING_BYTES);

		memory[at] = (uint8_t)take(in);
	}
}

static void play(struct input *in, int sock)
{
	for (unsigned i = 0; i < MESSAGES_MAX && in->at < in->end; i++)
		switch (take(in) % 8) {
		case 0:
		case 1:
			any_message(in, sock);
			break;
		case 2:
			begin(sock,
			      in->at < in->end && take(in) & 1 ? 0x170000000ull : 0x140000000ull);
			break;
		case 3:
			start_ring(sock, take(in) % 3);
			(void)poll(NULL, 0, 0);
			usleep(SERVE_US);
			break;
		case 4:
			tell(sock, VHOST_USER_GET_VRING_BASE, take(in) % 3, -1);
			break;
		case 5:
			scribble(in);
			break;
		default:
			put_request(in, take(in) % 3);
		}
}

/* ---- the daemon ---- */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	return ftw->level ? remove(path) : 0;
}

static void empty_dir(void)
{
	(void)nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void remove_dir(void)
{
	empty_dir();
	(void)rmdir(dir);
}

static void start_daemon(void)
{
	const struct rlimit files = {FILE_BYTES_MAX, FILE_BYTES_MAX};
	const char *tmp = getenv("TMPDIR");

	snprintf(dir, sizeof(dir), "%.40s/moat-fuzz.XXXXXX", tmp ? tmp : "/tmp");
	d = calloc(1, sizeof(*d));
	memfd = memfd_create("fuzz", MFD_CLOEXEC);
	if (!d || memfd < 0 || !mkdtemp(dir) || ftruncate(memfd, MEMORY) < 0 ||
	    setrlimit(RLIMIT_FSIZE, &files) < 0)
		abort();
	atexit(remove_dir);
	memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
	d->config = (struct virtiofsd_config){.shared_dir = dir,
					      .dax_window = 1ul << 30,
					      .posix_lock = true,
					      .flock = true,
					      .posix_acl = true,
					      .submounts = true,
					      .no_namespaces = true,
					      .no_seccomp = true};
	d->queue_count = 3;
	d->fd_max = 256;
	d->back_fd = d->notify_fd = d->notify_epoll = d->versions_fd = d->proc_root = -1;
	d->proc_fd = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
	mutex_init(&d->nodes_lock, LOCK_LEAF, "nodes");
	mutex_init(&d->handles_lock, LOCK_LEAF, "handles");
	mutex_init(&d->waits_lock, LOCK_LEAF, "waits");
	pthread_mutex_init(&d->back_lock, NULL);
	vhost_signals(d);
	signal(SIGPIPE, SIG_IGN);
	log_init(open("/dev/null", O_WRONLY | O_CLOEXEC), LOG_ERROR_LEVEL, "fuzz");
}

/* The working directory is /proc/self/fd: this thread's, and of those that it makes. */
static void *serve(void *arg)
{
	d->sock = *(int *)arg;
	if (unshare(CLONE_FS) < 0 || fchdir(d->proc_fd) < 0 || session_start(d))
		abort();
	/* INIT is one of the requests; the others need not wait until one is found that is right. */
	d->walks = true;
	atomic_store(&d->initialised, true);
	(void)vhost_serve(d);
	session_end(d);
	shutdown(d->sock, SHUT_RDWR);
	return NULL;
}

static void fuzz_daemon(struct input *in)
{
	pthread_t thread;
	char path[80];
	int sv[2], fd;

	if (!d)
		start_daemon();
	memset(memory, 0, MEMORY);
	snprintf(path, sizeof(path), "%s/f", dir);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
	if (fd >= 0)
		close(fd);
	snprintf(path, sizeof(path), "%s/d", dir);
	(void)mkdir(path, 0755);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0 ||
	    pthread_create(&thread, NULL, serve, &sv[1]))
		abort();
	play(in, sv[0]);
	/* Answers are not read: the daemon's next one must not wait for room. */
	shutdown(sv[0], SHUT_RDWR);
	pthread_join(thread, NULL);
	close(sv[0]);
	close(sv[1]);
	if (atomic_load(&d->fd_count))
		abort();
	empty_dir();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, data + size};

	if (take(&in) & 1)
		fuzz_daemon(&in);
	else
		fuzz_message(&in);
	return 0;
}
