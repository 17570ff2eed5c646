/*
 * A daemon that lies, for each request and in each way: every call must come back within a second with a result or an errno of Linux's, and nothing may crash.
 *
 * The daemon is a thread that speaks vhost-user over a socketpair and serves a tree of three files from its imagination. At the opcode `target` it makes its reply
 * wrong as `attack` says.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include <cmocka.h>

#include "base/hostpoll.h"
#include "base/log.h"
#include "base/sleep.h"
#include "fsimpl/virtiofs/virtiofs.h"
#include "tests/fs/env.h"
#include "tests/fs/virtiofs_fake.h"
#include "wire/fuse.h"
#include "wire/vhost_user.h"
#include "wire/virtqueue.h"

#define CALL_SECONDS_MAX 1.0
#define TEST_SECONDS_MAX 200
#define BUSY_WRITES 2000

static const char *mount_options = "cache=auto";
static bool reconnects;
static _Atomic unsigned again; /* times that it was connected to anew */

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
	lie = in.head.opcode == fake.target;
	fake.hits += lie;
	if (fake.silent)
		return;
	if (lie && fake.attack == A_CLOSE) {
		fake.closed = true;
		return;
	}
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

	do {
		while (!fake.closed && virtq_device_pop(&fake.rings[i], &fake.mem, &chain) == 1) {
			serve(&fake.rings[i], &chain);
			(void)!write(fake.call[i], &one, sizeof(one));
		}
	} while (!fake.closed && virtq_device_arm(&fake.rings[i]));
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

	vhost_user_reply_init(&m, request, false);
	m.u64 = v;
	(void)!send(fake.sock, &m, VHOST_USER_HEADER_SIZE + m.size, MSG_NOSIGNAL);
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
	close(fd);
}

static void start_ring(unsigned i)
{
	uint8_t *host = fake.region.host;
	const struct vhost_user_vring_addr *a = &fake.addrs[i];

	virtq_device_init(&fake.rings[i], fake.nums[i], true, true,
			  host + (a->desc - fake.user_base), host + (a->avail - fake.user_base),
			  host + (a->used - fake.user_base), 0);
	fake.ready[i] = true;
}

static bool message(void)
{
	const uint64_t features = 1ull << VIRTIO_F_VERSION_1_BIT |
				  1ull << VHOST_USER_F_PROTOCOL_FEATURES |
				  1ull << VIRTIO_F_EVENT_IDX | 1ull << VIRTIO_F_INDIRECT_DESC;
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
	bool go = true;

	(void)arg;
	while (go && !fake.closed) {
		struct pollfd p[1 + QUEUES] = {{.fd = fake.sock, .events = POLLIN}};
		uint64_t count;

		for (unsigned i = 0; i < QUEUES; i++)
			p[1 + i] = (struct pollfd){.fd = fake.ready[i] ? fake.kick[i] : -1,
						   .events = POLLIN};
		if (poll(p, 1 + QUEUES, -1) < 0)
			continue;
		for (unsigned i = 0; i < QUEUES; i++)
			if (p[1 + i].revents) {
				(void)!read(fake.kick[i], &count, sizeof(count));
				serve_ring(i);
			}
		if (p[0].revents && !fake.closed)
			go = message();
	}
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

/* The first one after the first answers nothing. */
static int start_again(void *arg)
{
	(void)arg;
	/* It sees its end, whether it ended or was given up. */
	pthread_join(fake.thread, NULL);
	memset(&fake, 0, sizeof(fake));
	fake.silent = again++ == 0;
	return start_fake();
}

static int create(struct filesystem **ret_fs, struct dentry **ret_root)
{
	const struct virtiofs_device_options device_options = {
		.memory = 1 << 28,
		.reconnect = reconnects ? start_again : NULL,
	};
	struct virtiofs_options options;
	struct virtiofs_device *dev;
	int sock = start_fake(), err;

	if (sock < 0)
		return sock;
	err = virtiofs_device_connect(sock, &device_options, &dev);
	if (!err)
		err = virtiofs_parse_options(mount_options, &options);
	if (err)
		return err;
	err = virtiofs_create(dev, &options, "fake", ret_fs, ret_root);
	virtiofs_device_unref(dev);
	return err;
}

const struct fs_backend fs_backend = {.name = "virtiofs-hostile", .create = create};

/* ---- what a guest does ---- */

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Every call ends, and soon, with an errno that programs know. */
#define CALL(expression)                                                                     \
	do {                                                                                 \
		double began = now();                                                        \
		int64_t ret = (expression);                                                  \
                                                                                             \
		if (ret <= -512 || now() - began > CALL_SECONDS_MAX)                         \
			fail_msg("%s, %s: %s gave %lld in %.3f s",                           \
				 fuse_op_info(fake.target)->name, attack_names[fake.attack], \
				 #expression, (long long)ret, now() - began);                \
	} while (0)

static void guest(struct fs_env *e)
{
	static char buf[70000];
	struct moat_statx st;
	struct file *f;

	CALL(fs_stat(e, "/f", &st));
	CALL(fs_stat(e, "/nothing", &st));
	CALL(fs_stat(e, "/l", &st));
	CALL(fs_readlink(e, "/l", buf, sizeof(buf)));
	f = NULL;
	CALL(fs_open(e, "/f", O_RDWR, 0, &f));
	if (f) {
		CALL(fs_pread(f, buf, 5000, 100));
		CALL(fs_pread(f, buf, 5000, INT64_MAX - 10000));
		CALL(fs_pwrite(f, buf, 5000, 200));
		CALL(file_seek(f, 0, SEEK_END));
		CALL(file_truncate(f, 77));
		CALL(file_fsync(f, false, 0, UINT64_MAX));
		CALL(fs_close(f));
	}
	CALL(fs_list(e, "/d", buf, sizeof(buf)));
	for (unsigned i = 0; i < 3; i++) {
		f = NULL;
		CALL(fs_open(e, i == 2 ? "/d/f" : "/d/new", i ? O_CREAT | O_RDWR : O_RDONLY, 0644,
			     &f));
		if (f)
			CALL(fs_close(f));
	}
	CALL(fs_stat(e, "/d/l/x", &st));
	CALL(fs_stat(e, "/d/d/d/f", &st)); /* a loop */
	CALL(fs_stat(e, "/d/f", &st));
	CALL(fs_list(e, "/d", buf, sizeof(buf)));
	f = NULL;
	CALL(fs_open(e, "/new", O_CREAT | O_RDWR, 0644, &f));
	if (f) {
		CALL(fs_write(f, "x", 1));
		CALL(fs_close(f));
	}
	CALL(fs_mkdir(e, "/newdir", 0755));
	CALL(fs_mknod(e, "/newfifo", S_IFIFO | 0644, 0, 0));
	CALL(fs_symlink(e, "f", "/newlink"));
	CALL(fs_link(e, "/f", "/newhard", false));
	CALL(fs_rename(e, "/f", "/other", 0));
	CALL(fs_chmod(e, "/f", 0600));
	CALL(fs_truncate(e, "/f", 100));
	CALL(fs_unlink(e, "/f"));
	CALL(fs_rmdir(e, "/d"));
}

static void one(enum attack attack, uint32_t target)
{
	struct fs_env e;
	int err;

	memset(&fake, 0, sizeof(fake));
	fake.attack = attack;
	fake.target = target;
	err = fs_env_init(&e);
	if (!err) {
		guest(&e);
		fs_env_fini(&e);
	} else {
		assert_true(err > -512);
		assert_true(target == FUSE_INIT || target == FUSE_GETATTR);
		cred_set_current(NULL);
		cred_unref(e.cred);
	}
	pthread_join(fake.thread, NULL);
	if (attack == A_NONE && (target == FUSE_LOOKUP || target == FUSE_MOAT_WALK))
		assert_true(!err && fake.hits > 5);
}

static void test_lies(void **state)
{
	(void)state;
	alarm(TEST_SECONDS_MAX);
	for (unsigned a = 0; a < ATTACK_COUNT; a++)
		for (size_t t = 0; t < ARRAY_SIZE(targets); t++)
			if (a < A_WALK_MORE || targets[t] == FUSE_MOAT_WALK)
				one((enum attack)a, targets[t]);
}

/* ---- writing back ---- */

static void start(struct fs_env *e)
{
	memset(&fake, 0, sizeof(fake));
	mount_options = "cache=auto,writeback";
	alarm(TEST_SECONDS_MAX);
	assert_int_equal(fs_env_init(e), 0);
}

static void stop(struct fs_env *e)
{
	fs_env_fini(e);
	pthread_join(fake.thread, NULL);
}

static struct file *must_open(struct fs_env *e, int flags)
{
	struct file *f = NULL;

	assert_int_equal(fs_open(e, "/f", flags, 0, &f), 0);
	return f;
}

static int sync_file(struct file *f)
{
	return file_fsync(f, false, 0, UINT64_MAX);
}

/* A reader's close(2) meets the error of what another wrote: every writer is told by its fsync(2), once. */
static void test_lost_write(void **state)
{
	struct file *writer, *reader, *later, *last;
	char page[4096] = {0};
	struct fs_env e;

	(void)state;
	start(&e);
	writer = must_open(&e, O_RDWR);
	reader = must_open(&e, O_RDONLY);
	assert_int_equal(fs_pwrite(writer, page, sizeof(page), 0), sizeof(page));
	atomic_store(&fake.write_error, -ENOSPC);
	assert_int_equal(reader->ops->flush(reader), -ENOSPC);
	assert_int_equal(fs_close(reader), 0);
	later = must_open(&e, O_RDWR);
	assert_int_equal(sync_file(writer), -ENOSPC);
	assert_int_equal(sync_file(writer), 0);
	assert_int_equal(sync_file(later), -ENOSPC);
	last = must_open(&e, O_RDWR);
	assert_int_equal(sync_file(last), 0);
	assert_int_equal(fs_close(last), 0);
	assert_int_equal(fs_close(later), 0);
	assert_int_equal(fs_close(writer), 0);
	stop(&e);
}

/* An application's buffer whose second half is not there. */
static int half_fill(struct io_iter *it)
{
	static char half[2048] = {'x'};

	if (it->consumed)
		return -EFAULT;
	it->segs[0] = (struct iovec){half, sizeof(half)};
	it->nsegs = 1;
	it->cur = 0;
	it->seg_off = 0;
	return 0;
}

static void half_release(struct io_iter *it)
{
	it->nsegs = 0;
}

static void half_seek(struct io_iter *it, uint64_t consumed)
{
	it->consumed = consumed;
	it->nsegs = it->cur = 0;
	it->seg_off = 0;
}

/* The rest of the page stays what the file has. */
static void test_torn_write(void **state)
{
	static const struct io_iter_ops ops = {half_fill, half_release, half_seek};
	struct io_iter it = {.ops = &ops, .remaining = 4096};
	int64_t off = 0;
	struct file *f;
	struct fs_env e;

	(void)state;
	start(&e);
	f = must_open(&e, O_RDWR);
	assert_int_equal(file_write_iter(f, &it, &off, 0), 2048);
	assert_int_equal(sync_file(f), 0);
	assert_int_equal(fake.writes, 1);
	assert_int_equal(fake.written[0], 'x');
	assert_int_equal(fake.written[2047], 0);
	for (unsigned i = 2048; i < 4096; i++)
		assert_int_equal(fake.written[i], 'd');
	assert_int_equal(fs_close(f), 0);
	stop(&e);
}

struct busy {
	struct file *f;
	struct cred *cred;
};

static void *busy_main(void *arg)
{
	struct busy *b = arg;
	char page[4096] = {0};

	rcu_thread_begin();
	cred_set_current(b->cred);
	for (unsigned i = 0; i < BUSY_WRITES; i++)
		if (fs_pwrite(b->f, page, sizeof(page), 0) != sizeof(page))
			abort();
	cred_set_current(NULL);
	rcu_thread_end();
	return NULL;
}

/* fsync(2) writes what was dirty when it began, not what is made dirty behind it for as long as that goes on. */
static void test_busy_writer(void **state)
{
	char page[4096] = {0};
	pthread_t thread;
	struct fs_env e;
	struct busy b;

	(void)state;
	start(&e);
	b = (struct busy){must_open(&e, O_RDWR), e.cred};
	assert_int_equal(fs_pwrite(b.f, page, sizeof(page), 0), sizeof(page));
	assert_int_equal(pthread_create(&thread, NULL, busy_main, &b), 0);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(sync_file(b.f), 0);
	assert_true(atomic_load(&fake.writes) <= 5);
	pthread_join(thread, NULL);
	assert_int_equal(fs_close(b.f), 0);
	stop(&e);
}

/* ---- a full ring ---- */

#define HANDLES 200 /* more than a ring has room for */

static void *unstall_main(void *arg)
{
	(void)arg;
	usleep(200000);
	atomic_store(&fake.stalled, false);
	return NULL;
}

/* The files of who was killed are closed while the daemon is behind: it is told of each. */
static void test_killed_with_full_ring(void **state)
{
	struct file *files[HANDLES];
	struct sleeper killed;
	pthread_t thread;
	struct fs_env e;

	(void)state;
	memset(&fake, 0, sizeof(fake));
	fake.target = FUSE_RELEASE;
	mount_options = "cache=auto";
	alarm(TEST_SECONDS_MAX);
	assert_int_equal(fs_env_init(&e), 0);
	for (unsigned i = 0; i < HANDLES; i++)
		files[i] = must_open(&e, O_RDWR);
	atomic_store(&fake.stalled, true);
	assert_int_equal(pthread_create(&thread, NULL, unstall_main, NULL), 0);
	sleeper_init(&killed);
	sleeper_set_current(&killed);
	sleeper_interrupt(&killed, true);
	for (unsigned i = 0; i < HANDLES; i++)
		assert_int_equal(fs_close(files[i]), 0);
	vfs_run_deferred();
	sleeper_set_current(NULL);
	pthread_join(thread, NULL);
	stop(&e);
	assert_int_equal(fake.hits, HANDLES);
}

/* ---- submounts ---- */

#define TASK_STACK_BYTES (256 << 10) /* of a guest's thread: TASK_STACK_SIZE */
#define SUBMOUNT_DEPTH_MAX 64 /* VIRTIOFS_SUBMOUNT_DEPTH_MAX */
#define SUBMOUNTS_ASKED 2000 /* as many as a path has room for */

struct depths {
	struct fs_env e;
	int deep, too_deep, deepest, below;
};

static void *dive_main(void *arg)
{
	static char path[2 * SUBMOUNTS_ASKED + 2];
	struct depths *ret = arg;
	struct fs_env *e = &ret->e;
	struct moat_statx st;

	rcu_thread_begin();
	cred_set_current(e->cred);
	for (unsigned i = 0; i < SUBMOUNTS_ASKED; i++)
		memcpy(path + 2 * (size_t)i, "/d", 2);
	path[2 * SUBMOUNTS_ASKED] = '/';
	ret->deepest = fs_stat(e, path, &st);
	path[2 * SUBMOUNT_DEPTH_MAX] = '\0';
	ret->deep = fs_chdir(e, path);
	ret->below = fs_stat(e, "f", &st);
	ret->too_deep = fs_stat(e, "d/f", &st);
	/* Each goes with the one in it. */
	fs_env_fini(e);
	rcu_thread_end();
	return NULL;
}

/* A daemon in whose every directory another filesystem begins: no stack is long enough. */
static void test_deep_submounts(void **state)
{
	struct depths got = {.deep = 1, .too_deep = 1, .deepest = 1, .below = 1};
	pthread_attr_t attr;
	pthread_t thread;

	(void)state;
	memset(&fake, 0, sizeof(fake));
	fake.submounts = true;
	mount_options = "cache=auto";
	alarm(TEST_SECONDS_MAX);
	assert_int_equal(fs_env_init(&got.e), 0);
	cred_set_current(NULL);
	pthread_attr_init(&attr);
	assert_int_equal(pthread_attr_setstacksize(&attr, TASK_STACK_BYTES), 0);
	assert_int_equal(pthread_create(&thread, &attr, dive_main, &got), 0);
	pthread_join(thread, NULL);
	pthread_attr_destroy(&attr);
	pthread_join(fake.thread, NULL);
	assert_int_equal(got.deepest, -ELOOP);
	assert_int_equal(got.deep, 0);
	assert_int_equal(got.below, 0);
	assert_int_equal(got.too_deep, -ELOOP);
}

/* ---- reconnecting ---- */

/* A daemon that hangs before the file system is brought back is given up, and the next one is tried. */
static void test_silent_restore(void **state)
{
	struct moat_statx st;
	struct fs_env e;
	struct file *f;
	double began;

	(void)state;
	reconnects = true;
	memset(&fake, 0, sizeof(fake));
	fake.target = FUSE_FSYNC;
	fake.attack = A_CLOSE;
	mount_options = "cache=auto";
	alarm(TEST_SECONDS_MAX);
	assert_int_equal(fs_env_init(&e), 0);
	f = must_open(&e, O_RDWR);
	assert_int_equal(sync_file(f), -EIO);
	for (began = now(); sync_file(f) && now() - began < TEST_SECONDS_MAX / 2;)
		usleep(10000);
	assert_int_equal(sync_file(f), 0);
	assert_true(again >= 2);
	assert_int_equal(fs_stat(&e, "/f", &st), 0);
	assert_int_equal(fs_close(f), 0);
	stop(&e);
	reconnects = false;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lies),
		cmocka_unit_test(test_lost_write),
		cmocka_unit_test(test_torn_write),
		cmocka_unit_test(test_busy_writer),
		cmocka_unit_test(test_killed_with_full_ring),
		cmocka_unit_test(test_deep_submounts),
		cmocka_unit_test(test_silent_restore),
	};

	signal(SIGPIPE, SIG_IGN);
	log_init(-1, LOG_ERROR_LEVEL, "test");
	if (hostpoll_start() || fs_env_process_init())
		return 1;
	virtiofs_register();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
