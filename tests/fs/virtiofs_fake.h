/*
 * tests/fs/virtiofs_fake.h - what a daemon that lies serves: a tree of three files from its imagination, and which reply it makes wrong in which way.
 *
 * Include it in one file of a program. start_fake() makes the daemon's thread, which ends with its connection.
 */
#ifndef MOAT_TESTS_FS_VIRTIOFS_FAKE_H
#define MOAT_TESTS_FS_VIRTIOFS_FAKE_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "wire/fuse.h"
#include "wire/vhost_user.h"
#include "wire/virtqueue.h"

#define QUEUES 2
#define REPLY_MAX 8192
#define LIVE_TICK_MS 2
#define WRITE_HEAD_BYTES (sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in))

/* clang-format off */
#define ATTACKS(X) \
	X(NONE) \
	X(TRUNCATED) \
	X(EMPTY) \
	X(UNIQUE) \
	X(LENGTH) \
	X(RESTART) \
	X(POSITIVE) \
	X(NODE_0) \
	X(NODE_1) \
	X(TYPE) \
	X(SIZE) \
	X(GARBAGE) \
	X(USED_INDEX) \
	X(USED_ID) \
	X(USED_LENGTH) \
	X(TWICE) \
	X(CLOSE) \
	X(WALK_MORE) \
	X(WALK_FEWER) \
	X(WALK_LOOP) \
	X(WALK_OPENED) \
	X(WALK_ERROR)
/* clang-format on */
#define X(name) A_##name,
enum attack { ATTACKS(X) ATTACK_COUNT };
#undef X
#define X(name) #name,
static const char *const attack_names[] = {ATTACKS(X)};
#undef X

static const uint32_t targets[] = {
	FUSE_INIT,	  FUSE_GETATTR,	    FUSE_LOOKUP,
	FUSE_OPEN,	  FUSE_READ,	    FUSE_WRITE,
	FUSE_FLUSH,	  FUSE_FSYNC,	    FUSE_RELEASE,
	FUSE_SETATTR,	  FUSE_OPENDIR,	    FUSE_READDIR,
	FUSE_READDIRPLUS, FUSE_RELEASEDIR,  FUSE_READLINK,
	FUSE_CREATE,	  FUSE_MKDIR,	    FUSE_MKNOD,
	FUSE_SYMLINK,	  FUSE_LINK,	    FUSE_RENAME,
	FUSE_UNLINK,	  FUSE_RMDIR,	    FUSE_STATFS,
	FUSE_DESTROY,	  FUSE_SETXATTR,    FUSE_GETXATTR,
	FUSE_LISTXATTR,	  FUSE_REMOVEXATTR, FUSE_FALLOCATE,
	FUSE_LSEEK,	  FUSE_FSYNCDIR,    FUSE_RENAME2,
	FUSE_SYNCFS,	  FUSE_GETLK,	    FUSE_SETLK,
	FUSE_TMPFILE,	  FUSE_FORGET,	    FUSE_BATCH_FORGET,
	FUSE_MOAT_WALK, /* granted only where it is the target */
};

struct fake {
	pthread_t thread;
	int sock;
	_Atomic(enum attack) attack;
	uint32_t target;
	struct virtq_region region;
	uint8_t *_Atomic
		scribbled; /* the same memory at another place, for who scribbles over it (live) */
	struct virtq_memory mem;
	uint64_t user_base;
	struct virtq_device rings[QUEUES];
	struct vhost_user_vring_addr addrs[QUEUES];
	unsigned nums[QUEUES];
	int kick[QUEUES], call[QUEUES];
	bool ready[QUEUES], closed;
	_Atomic bool serving; /* every ring is known */
	_Atomic unsigned hits;
	bool silent; /* connected, and answers no request */
	_Atomic bool stalled; /* answers nothing meanwhile */
	bool live; /* somebody scribbles over the rings: it does what it can, and gives up on what makes no sense */
	bool deaf; /* reads no kick and sees to it that they block, if that can be; looks at its rings now and then */
	int unread[QUEUES]; /* bytes of kicks, at the end */
	_Atomic unsigned tables; /* LOOKUPs that had one of their own */
	unsigned drip_us; /* between bytes of what it answers in the handshake */
	bool submounts; /* a filesystem of its own in every directory */
	bool direct; /* no indirect descriptors, and calls only who asks for it */
	_Atomic uint32_t dir_mode; /* of d, in place of 0755 */
	_Atomic int64_t
		looked_up; /* nodes that LOOKUP and MKDIR answered, less what was forgotten */
	/* what failing and torn writes are tested with */
	_Atomic int write_error; /* of the next WRITE */
	_Atomic unsigned writes;
	char written[4096]; /* the last one's first page */
};
static struct fake fake;

/* ---- the tree ---- */

static struct fuse_attr attr_of(uint64_t node)
{
	static const uint32_t modes[] = {
		0, S_IFDIR | 0755, S_IFREG | 0644, S_IFDIR | 0755, S_IFLNK | 0777, S_IFIFO | 0644};

	return (struct fuse_attr){.ino = node,
				  .mode = node == 3 && fake.dir_mode ? S_IFDIR | fake.dir_mode
								     : modes[node],
				  .nlink = 1,
				  .size = S_ISREG(modes[node]) ? 10000 : 0,
				  .blksize = 4096};
}

static void lie_about(struct fuse_attr *a)
{
	if (fake.attack == A_TYPE)
		a->mode = (a->mode & 07777) | (S_ISSOCK(a->mode) ? S_IFREG : S_IFSOCK);
	else if (fake.attack == A_SIZE)
		a->size = UINT64_MAX - 5;
}

static size_t put_entry(uint8_t *p, uint64_t node, bool lie)
{
	struct fuse_entry_out e = {.nodeid = node, .attr = attr_of(node)};

	if (fake.submounts && S_ISDIR(e.attr.mode))
		e.attr.flags |= FUSE_ATTR_SUBMOUNT;
	if (lie) {
		lie_about(&e.attr);
		if (fake.attack == A_NODE_0)
			e.nodeid = 0;
		else if (fake.attack == A_NODE_1)
			e.nodeid = 1;
	}
	memcpy(p, &e, sizeof(e));
	return sizeof(e);
}

static size_t put_dir(uint8_t *p, uint64_t off, bool plus)
{
	size_t size = 0;

	for (uint64_t i = off; i < 3; i++) {
		struct fuse_entry e = {.name = &"fdl"[i], .len = 1, .ino = i + 2, .off = i + 1};

		e.node.nodeid = i + 2;
		e.node.attr = attr_of(i + 2);
		if (!fuse_put_entry(p, REPLY_MAX, &size, plus, &e))
			abort();
	}
	return size;
}

static uint64_t node_of(const char *name)
{
	return name[0] == 'f' ? 2 : name[0] == 'd' ? 3 : name[0] == 'l' ? 4 : 0;
}

static void lie_about_walk(struct fuse_walk_reply *r)
{
	if (fake.attack == A_WALK_MORE)
		r->out.count += 20;
	else if (fake.attack == A_WALK_FEWER)
		r->out.count--;
	else if (fake.attack == A_WALK_OPENED)
		r->out.flags ^= FUSE_WALK_OPENED | FUSE_WALK_CREATED;
	else if (fake.attack == A_WALK_ERROR)
		r->out.error = r->out.error ? -4000 : -EACCES;
	else if (fake.attack == A_WALK_LOOP)
		for (unsigned i = 1; i < r->out.count; i++)
			r->entries[i].nodeid = r->entries[0].nodeid;
}

static ssize_t reply_to_walk(const struct fuse_decoded *in, uint8_t *p, bool lie)
{
	struct fuse_walk_reply r = {0};
	const char *path = in->name[0], *name;
	size_t left = in->name_len[0], len;
	struct fuse_walk_in arg;

	memcpy(&arg, in->arg, sizeof(arg));
	while (!r.out.error && r.out.count < FUSE_WALK_ENTRIES_MAX &&
	       fuse_walk_next(&path, &left, &name, &len) == 1) {
		uint64_t node = node_of(name);

		if (r.out.count && !S_ISDIR(r.entries[r.out.count - 1].attr.mode))
			break;
		if (!node && !left && (arg.flags & FUSE_WALK_CREATE)) {
			node = 2;
			r.out.flags = FUSE_WALK_OPENED | FUSE_WALK_CREATED;
		} else if (node == 2 && !left && (arg.flags & FUSE_WALK_OPEN)) {
			r.out.flags = FUSE_WALK_OPENED;
		}
		if (node)
			put_entry((uint8_t *)&r.entries[r.out.count++], node, lie && !left);
		else
			r.out.error = -ENOENT;
	}
	len = sizeof(r.out) + r.out.count * sizeof(r.entries[0]);
	if (lie)
		lie_about_walk(&r);
	memcpy(p, &r, len);
	return (ssize_t)len;
}

static ssize_t put_xattr(const struct fuse_decoded *in, uint8_t *p)
{
	static const char value[] = "user.a"; /* and a name, for the list */
	const struct fuse_getxattr_out size = {.size = sizeof(value)};
	struct fuse_getxattr_in arg;

	memcpy(&arg, in->arg, sizeof(arg));
	if (arg.size && arg.size < sizeof(value))
		return -ERANGE;
	memcpy(p, arg.size ? (const void *)value : &size, arg.size ? sizeof(value) : sizeof(size));
	return arg.size ? sizeof(value) : sizeof(size);
}

/* FORGET or BATCH_FORGET: what it gives back. */
static void count_forgotten(const uint8_t *request, size_t size, uint32_t opcode)
{
	size_t at = sizeof(struct fuse_in_header);
	struct fuse_batch_forget_in batch;
	struct fuse_forget_one one;
	struct fuse_forget_in single;

	if (opcode == FUSE_FORGET) {
		memcpy(&single, request + at, sizeof(single));
		atomic_fetch_sub(&fake.looked_up, (int64_t)single.nlookup);
		return;
	}
	memcpy(&batch, request + at, sizeof(batch));
	for (at += sizeof(batch); batch.count-- && at + sizeof(one) <= size; at += sizeof(one)) {
		memcpy(&one, request + at, sizeof(one));
		atomic_fetch_sub(&fake.looked_up, (int64_t)one.nlookup);
	}
}

/* Return: payload bytes, -errno. */
static ssize_t reply_to(const struct fuse_decoded *in, uint8_t *p, bool lie)
{
	struct fuse_init_out init = {.major = 7, .minor = 31, .max_write = 131072};
	struct fuse_attr_out attr = {0};
	struct fuse_write_in wr;
	struct fuse_read_in rd;

	switch (in->head.opcode) {
	case FUSE_INIT:
		init.flags =
			FUSE_DO_READDIRPLUS | FUSE_MAX_PAGES | FUSE_POSIX_LOCKS | FUSE_FLOCK_LOCKS;
		init.max_pages = 32;
		if (fake.submounts)
			init.flags |= FUSE_SUBMOUNTS;
		if (fake.target == FUSE_MOAT_WALK) {
			init.flags |= FUSE_INIT_EXT;
			init.flags2 = FUSE_HAS_MOAT_WALK >> 32;
		}
		memcpy(p, &init, sizeof(init));
		return sizeof(init);
	case FUSE_LOOKUP:
		if (!node_of(in->name[0]))
			return -ENOENT;
		atomic_fetch_add(&fake.looked_up, 1);
		return (ssize_t)put_entry(p, node_of(in->name[0]), lie);
	case FUSE_MOAT_WALK:
		return reply_to_walk(in, p, lie);
	case FUSE_GETATTR:
	case FUSE_SETATTR:
		attr.attr = attr_of(in->head.nodeid <= 5 ? in->head.nodeid : 2);
		if (lie)
			lie_about(&attr.attr);
		memcpy(p, &attr, sizeof(attr));
		return sizeof(attr);
	case FUSE_MKDIR:
		atomic_fetch_add(&fake.looked_up, 1);
		return (ssize_t)put_entry(p, 3, lie);
	case FUSE_SYMLINK:
		return (ssize_t)put_entry(p, 4, lie);
	case FUSE_MKNOD:
		return (ssize_t)put_entry(p, 5, lie);
	case FUSE_LINK:
		return (ssize_t)put_entry(p, 2, lie);
	case FUSE_CREATE:
	case FUSE_TMPFILE:
		memset(p + sizeof(struct fuse_entry_out), 0, sizeof(struct fuse_open_out));
		return (ssize_t)(put_entry(p, 2, lie) + sizeof(struct fuse_open_out));
	case FUSE_OPEN:
	case FUSE_OPENDIR:
		memset(p, 0, sizeof(struct fuse_open_out));
		return sizeof(struct fuse_open_out);
	case FUSE_READ:
		memcpy(&rd, in->arg, sizeof(rd));
		memset(p, 'd', 4096);
		return rd.offset < 10000 ? (ssize_t)MIN(rd.size, 4096u) : 0;
	case FUSE_WRITE:
		memcpy(&wr, in->arg, sizeof(wr));
		atomic_fetch_add(&fake.writes, 1);
		if (atomic_load(&fake.write_error))
			return atomic_exchange(&fake.write_error, 0);
		memset(p, 0, sizeof(struct fuse_write_out));
		memcpy(p, &wr.size, sizeof(wr.size));
		return sizeof(struct fuse_write_out);
	case FUSE_READDIR:
	case FUSE_READDIRPLUS:
		memcpy(&rd, in->arg, sizeof(rd));
		return (ssize_t)put_dir(p, rd.offset, in->head.opcode == FUSE_READDIRPLUS);
	case FUSE_READLINK:
		memcpy(p, "f", 1);
		return 1;
	case FUSE_GETXATTR:
	case FUSE_LISTXATTR:
		return put_xattr(in, p);
	case FUSE_GETLK:
		memset(p, 0, sizeof(struct fuse_lk_out));
		((struct fuse_lk_out *)(void *)p)->lk.type = F_UNLCK;
		return sizeof(struct fuse_lk_out);
	case FUSE_LSEEK:
		memset(p, 0, sizeof(struct fuse_lseek_out));
		return sizeof(struct fuse_lseek_out);
	case FUSE_STATFS:
		memset(p, 0, sizeof(struct fuse_statfs_out));
		return sizeof(struct fuse_statfs_out);
	default:
		return 0;
	}
}

/* ---- rings ---- */

static size_t gather(const struct virtq_chain *c, uint8_t *buf, size_t size)
{
	size_t done = 0;

	for (unsigned i = 0; i < c->out_count && done < size; i++) {
		size_t n = MIN(c->out[i].iov_len, size - done);

		memcpy(buf + done, c->out[i].iov_base, n);
		done += n;
	}
	return done;
}

static uint32_t scatter(const struct virtq_chain *c, const uint8_t *buf, size_t size)
{
	size_t done = 0;

	for (unsigned i = 0; i < c->in_count && done < size; i++) {
		size_t n = MIN(c->in[i].iov_len, size - done);

		memcpy(c->in[i].iov_base, buf + done, n);
		done += n;
	}
	return (uint32_t)done;
}

static void push(struct virtq_device *q, const struct virtq_chain *c, uint32_t len, bool lie)
{
	if (lie && fake.attack == A_USED_LENGTH)
		len = UINT32_MAX;
	if (lie && fake.attack == A_USED_INDEX)
		q->used_idx = (uint16_t)(q->used_idx + 5000);
	virtq_device_push(q, lie && fake.attack == A_USED_ID ? 60000 : c->head, len);
	if (lie && fake.attack == A_TWICE)
		virtq_device_push(q, c->head, len);
}

static void serve(struct virtq_device *q, const struct virtq_chain *c)
{
	static uint8_t request[FUSE_REQUEST_ARG_MAX + 4096], reply[REPLY_MAX + 64];
	struct fuse_out_header head = {0};
	struct fuse_decoded in;
	ssize_t payload;
	size_t size = gather(c, request, sizeof(request));
	bool lie;

	while (atomic_load(&fake.stalled))
		usleep(1000);
	if (fuse_decode(request, size, c->out_size, &in)) {
		push(q, c, 0, false);
		return;
	}
	if (in.head.opcode == FUSE_WRITE && size >= WRITE_HEAD_BYTES + sizeof(fake.written))
		memcpy(fake.written, request + WRITE_HEAD_BYTES, sizeof(fake.written));
	if (in.head.opcode == FUSE_LOOKUP)
		fake.tables += (q->desc[c->head].flags & VRING_DESC_F_INDIRECT) != 0;
	lie = in.head.opcode == fake.target;
	fake.hits += lie;
	if (fake.silent)
		return;
	if (lie && fake.attack == A_CLOSE) {
		fake.closed = true;
		return;
	}
	if (in.head.opcode == FUSE_FORGET || in.head.opcode == FUSE_BATCH_FORGET)
		count_forgotten(request, size, in.head.opcode);
	if (!c->in_count) {
		push(q, c, 0, lie);
		return;
	}
	payload = reply_to(&in, reply + sizeof(head), lie);
	head.unique = in.head.unique;
	head.error = payload < 0 ? (int32_t)payload : 0;
	payload = MAX(payload, (ssize_t)0);
	if (lie && fake.attack == A_GARBAGE)
		memset(reply + sizeof(head), 0xff, (size_t)payload);
	if (lie && fake.attack == A_TRUNCATED)
		payload -= payload > 1 ? payload / 2 : payload;
	if (lie && fake.attack == A_UNIQUE)
		head.unique += 2;
	if (lie && fake.attack == A_RESTART)
		head.error = -516, payload = 0;
	if (lie && fake.attack == A_POSITIVE)
		head.error = 17, payload = 0;
	head.len = (uint32_t)(sizeof(head) + (size_t)payload);
	if (lie && fake.attack == A_LENGTH)
		head.len += 8;
	memcpy(reply, &head, sizeof(head));
	size = lie && fake.attack == A_EMPTY ? 0 : sizeof(head) + (size_t)payload;
	push(q, c, scatter(c, reply, size), lie);
}

static void serve_ring(unsigned i)
{
	static struct virtq_chain chain;
	const uint64_t one = 1;
	int got = 0;

	do {
		while (!fake.closed &&
		       (got = virtq_device_pop(&fake.rings[i], &fake.mem, &chain)) == 1) {
			serve(&fake.rings[i], &chain);
			if (!fake.direct || virtq_device_should_call(&fake.rings[i]))
				(void)!write(fake.call[i], &one, sizeof(one));
		}
		/* Somebody scribbles (live), or the connection has ended and its rings' memory is empty: it would find the same for ever. */
		if (got < 0)
			fake.closed = true;
	} while (!fake.closed && virtq_device_arm(&fake.rings[i]));
}

/* What was written over is put right: a daemon that answers everything, if late. */
static void serve_again(unsigned i)
{
	struct virtq_device *q = &fake.rings[i];
	const uint64_t one = 1;

	if (!fake.ready[i])
		return;
	serve_ring(i);
	__atomic_store_n(&q->used->idx, q->used_idx, __ATOMIC_SEQ_CST);
	(void)!write(fake.call[i], &one, sizeof(one));
}

/* ---- messages ---- */

static ssize_t receive(struct vhost_user_msg *m, int *fd)
{
	struct iovec iov = {m, VHOST_USER_HEADER_SIZE};
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.buf,
			     .msg_controllen = sizeof(control.buf)};
	ssize_t n = recvmsg(fake.sock, &msg, MSG_WAITALL);
	struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;

	*fd = -1;
	if (c)
		memcpy(fd, CMSG_DATA(c), sizeof(int));
	if (n > 0 && m->size && recv(fake.sock, &m->u64, m->size, MSG_WAITALL) != (ssize_t)m->size)
		return -1;
	return n;
}

static void answer_u64(const struct vhost_user_msg *request, uint64_t v)
{
	struct vhost_user_msg m;
	size_t size, n;

	vhost_user_reply_init(&m, request, false);
	m.u64 = v;
	size = VHOST_USER_HEADER_SIZE + m.size;
	for (size_t at = 0; at < size; at += n) {
		n = fake.drip_us ? 1 : size;
		if (fake.drip_us)
			usleep(fake.drip_us);
		if (send(fake.sock, (const char *)&m + at, n, MSG_NOSIGNAL) != (ssize_t)n)
			break;
	}
}

static void map_memory(const struct vhost_user_msg *m, int fd)
{
	const struct vhost_user_region r = m->mem.regions[0];
	void *p = mmap(NULL, r.size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);

	if (p == MAP_FAILED)
		abort();
	fake.region = (struct virtq_region){r.guest_addr, r.size, p};
	fake.mem = (struct virtq_memory){&fake.region, 1};
	fake.user_base = r.user_addr;
	if (fake.live) {
		p = mmap(NULL, r.size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
		if (p == MAP_FAILED)
			abort();
		fake.scribbled = p;
	}
	close(fd);
}

static void start_ring(unsigned i)
{
	uint8_t *host = fake.region.host;
	const struct vhost_user_vring_addr *a = &fake.addrs[i];

	virtq_device_init(&fake.rings[i], fake.nums[i], true, !fake.direct,
			  host + (a->desc - fake.user_base), host + (a->avail - fake.user_base),
			  host + (a->used - fake.user_base), 0);
	fake.ready[i] = true;
	if (i == QUEUES - 1)
		atomic_store(&fake.serving, true);
}

/* As full as it can be, and blocking where that is for both sides. */
static void clog_up(int fd)
{
	const uint64_t most = UINT64_MAX - 1;
	int flags = fcntl(fd, F_GETFL);

	(void)!write(fd, &most, sizeof(most));
	(void)fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
}

static bool message(void)
{
	const uint64_t features =
		1ull << VIRTIO_F_VERSION_1_BIT | 1ull << VHOST_USER_F_PROTOCOL_FEATURES |
		1ull << VIRTIO_F_EVENT_IDX | (fake.direct ? 0 : 1ull << VIRTIO_F_INDIRECT_DESC);
	struct vhost_user_msg m = {0};
	int fd;

	if (receive(&m, &fd) <= 0)
		return false;
	switch (m.request) {
	case VHOST_USER_GET_FEATURES:
		answer_u64(&m, features);
		break;
	case VHOST_USER_GET_PROTOCOL_FEATURES:
		answer_u64(&m, 0);
		break;
	case VHOST_USER_SET_MEM_TABLE:
		map_memory(&m, fd);
		break;
	case VHOST_USER_SET_VRING_NUM:
		fake.nums[m.state.index] = m.state.num;
		break;
	case VHOST_USER_SET_VRING_ADDR:
		fake.addrs[m.addr.index] = m.addr;
		break;
	case VHOST_USER_SET_VRING_KICK:
		fake.kick[m.u64 & 0xff] = fd;
		if (fake.deaf)
			clog_up(fd);
		break;
	case VHOST_USER_SET_VRING_CALL:
		fake.call[m.u64 & 0xff] = fd;
		break;
	case VHOST_USER_SET_VRING_ENABLE:
		start_ring(m.state.index);
		break;
	default:
		break;
	}
	return true;
}

static void *fake_main(void *arg)
{
	bool go = true, ticks = fake.live || fake.deaf;

	(void)arg;
	while (go && !fake.closed) {
		struct pollfd p[1 + QUEUES] = {{.fd = fake.sock, .events = POLLIN}};
		uint64_t count;

		for (unsigned i = 0; i < QUEUES; i++)
			p[1 + i] = (struct pollfd){.fd = fake.ready[i] && !fake.deaf ? fake.kick[i]
										     : -1,
						   .events = POLLIN};
		if (poll(p, 1 + QUEUES, ticks ? LIVE_TICK_MS : -1) < 0)
			continue;
		for (unsigned i = 0; i < QUEUES; i++)
			if (p[1 + i].revents) {
				(void)!read(fake.kick[i], &count, sizeof(count));
				serve_ring(i);
			} else if (ticks) {
				serve_again(i);
			}
		if (p[0].revents && !fake.closed)
			go = message();
	}
	for (unsigned i = 0; i < QUEUES; i++)
		if (fake.kick[i] >= 0)
			(void)ioctl(fake.kick[i], FIONREAD, &fake.unread[i]);
	close(fake.sock);
	for (unsigned i = 0; i < QUEUES; i++) {
		if (fake.kick[i] >= 0)
			close(fake.kick[i]);
		if (fake.call[i] >= 0)
			close(fake.call[i]);
	}
	if (fake.region.host)
		munmap(fake.region.host, fake.region.size);
	return NULL;
}

/* Return: our end of the connection, -errno. */
static int start_fake(void)
{
	int sv[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
		return -errno;
	fake.sock = sv[1];
	fake.kick[0] = fake.kick[1] = fake.call[0] = fake.call[1] = -1;
	return pthread_create(&fake.thread, NULL, fake_main, NULL) ? -EAGAIN : sv[0];
}

#endif
