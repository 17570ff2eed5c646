/*
 * A gofer that dies, or answers nonsense, at each kind of request: the call gives EIO at once, so does every later one, and nothing hangs or
 * crashes. A thread stands between the client and a real gofer and spoils one reply.
 */
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include <cmocka.h>

#include "base/log.h"
#include "tests/fs/backend_gofer.h"
#include "tests/fs/env.h"
#include "wire/p9.h"

#define FRAME_MAX (P9_MSIZE_DEFAULT + 64)
#define SLOW_S 60 /* an answer is due within a second; the machine may be busy */

enum fault { NONE, DIES, TRUNCATED, SHORT, WRONG_TAG, WRONG_TYPE, HUGE_SIZE, TWICE, FAULTS };
static const char *const fault_names[] = {"none",      "dies",	     "truncated", "short",
					  "wrong tag", "wrong type", "huge size", "twice"};

static struct fs_env e;
static _Atomic enum fault armed;
static _Atomic bool
	other_want; /* listings are asked for with attributes of files where they should not be, and the reverse */

/* ---- the thread between ---- */

struct between {
	int client, server;
	uint8_t buf[FRAME_MAX];
	size_t len;
	int fds[16]; /* that came with what is in buf */
	unsigned fd_count;
};

static void put(struct between *b, const uint8_t *data, size_t size)
{
	union {
		struct cmsghdr hdr;
		char buf[CMSG_SPACE(sizeof(b->fds))];
	} control = {0};
	struct iovec iov = {(void *)data, size};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (b->fd_count) {
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(b->fd_count * sizeof(int));
		control.hdr = (struct cmsghdr){.cmsg_level = SOL_SOCKET,
					       .cmsg_type = SCM_RIGHTS,
					       .cmsg_len = CMSG_LEN(b->fd_count * sizeof(int))};
		memcpy(CMSG_DATA(&control.hdr), b->fds, b->fd_count * sizeof(int));
	}
	(void)!sendmsg(b->client, &msg, MSG_NOSIGNAL);
	for (unsigned i = 0; i < b->fd_count; i++)
		close(b->fds[i]);
	b->fd_count = 0;
}

/* Sends one frame on, spoilt. False: the connection is over. */
static bool spoil(struct between *b, enum fault fault, uint32_t size)
{
	uint32_t claim = size;

	switch (fault) {
	case DIES:
		return false;
	case TRUNCATED:
		put(b, b->buf, size / 2);
		return false;
	case SHORT:
		claim = size > P9_HEADER_SIZE ? size - 1 : size;
		memcpy(b->buf, &claim, sizeof(claim));
		put(b, b->buf, claim);
		return true;
	case WRONG_TAG:
		b->buf[5] ^= 0x55;
		break;
	case WRONG_TYPE:
		b->buf[4] = b->buf[4] == P9_Rstatfs ? P9_Rgetattr : P9_Rstatfs;
		break;
	case HUGE_SIZE:
		claim = 0xfffffff0u;
		memcpy(b->buf, &claim, sizeof(claim));
		break;
	case TWICE:
		put(b, b->buf, size);
		break;
	default:
		break;
	}
	put(b, b->buf, size);
	return true;
}

static bool from_server(struct between *b)
{
	union {
		struct cmsghdr hdr;
		char buf[CMSG_SPACE(sizeof(b->fds))];
	} control;
	struct iovec iov = {b->buf + b->len, sizeof(b->buf) - b->len};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = sizeof(control)};
	ssize_t got = recvmsg(b->server, &msg, MSG_CMSG_CLOEXEC);
	struct cmsghdr *c = got > 0 ? CMSG_FIRSTHDR(&msg) : NULL;
	uint32_t size;

	if (got <= 0)
		return false;
	if (c) {
		b->fd_count = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(b->fds, CMSG_DATA(c), b->fd_count * sizeof(int));
	}
	b->len += (size_t)got;
	while (b->len >= 4 && (memcpy(&size, b->buf, 4), b->len >= size)) {
		enum fault fault = b->buf[4] == P9_Rmclunk ? NONE : atomic_exchange(&armed, NONE);

		if (!spoil(b, fault, size))
			return false;
		memmove(b->buf, b->buf + size, b->len - size);
		b->len -= size;
	}
	return true;
}

/* Whole requests, one behind the other, as the client sends them. */
static void change_want(uint8_t *raw, size_t size)
{
	uint32_t len, want;

	for (; size >= P9_HEADER_SIZE; raw += len, size -= len) {
		memcpy(&len, raw, 4);
		if (len < P9_HEADER_SIZE || len > size)
			return;
		if (raw[4] != P9_Tmreaddir)
			continue;
		memcpy(&want, raw + len - 4, 4);
		want ^= want & P9_WANT_NODES ? P9_WANT_DIR_NODES : 0;
		memcpy(raw + len - 4, &want, 4);
	}
}

static void *between_run(void *arg)
{
	struct between *b = arg;
	static __thread uint8_t raw[65536];

	for (;;) {
		struct pollfd fds[] = {{.fd = b->client, .events = POLLIN},
				       {.fd = b->server, .events = POLLIN}};
		ssize_t got;

		poll(fds, 2, -1);
		if (fds[1].revents && !from_server(b))
			break;
		if (!fds[0].revents)
			continue;
		got = recv(b->client, raw, sizeof(raw), 0);
		if (got > 0 && atomic_load(&other_want))
			change_want(raw, (size_t)got);
		if (got <= 0 || send(b->server, raw, (size_t)got, MSG_NOSIGNAL) != got)
			break;
	}
	close(b->client);
	close(b->server);
	for (unsigned i = 0; i < b->fd_count; i++)
		close(b->fds[i]);
	free(b);
	return NULL;
}

/* backend_gofer_wrap: the client's end of a connection to the thread. */
static int wrap(int sock)
{
	struct between *b = calloc(1, sizeof(*b));
	pthread_t thread;
	int sv[2];

	assert_non_null(b);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	b->client = sv[1];
	b->server = sock;
	assert_int_equal(pthread_create(&thread, NULL, between_run, b), 0);
	pthread_detach(thread);
	return sv[0];
}

/* ---- the requests ---- */

static int try_open(int flags)
{
	struct file *f;
	int err = fs_open(&e, "/file", flags, 0644, &f);

	return err ? err : fs_close(f);
}

static int op_walk(void)
{
	struct moat_statx st;

	return fs_stat(&e, "/dir/sub", &st);
}

static int op_open(void)
{
	return try_open(O_RDONLY);
}

static int op_create(void)
{
	return fs_creat(&e, "/new", 0644);
}

static int op_mkdir(void)
{
	return fs_mkdir(&e, "/dir/new", 0755);
}

static int op_mknod(void)
{
	return fs_mknod(&e, "/fifo", S_IFIFO | 0600, 0, 0);
}

static int op_symlink(void)
{
	return fs_symlink(&e, "x", "/link");
}

static int op_unlink(void)
{
	return fs_unlink(&e, "/file");
}

static int op_rmdir(void)
{
	return fs_rmdir(&e, "/dir/sub");
}

static int op_rename(void)
{
	return fs_rename(&e, "/file", "/moved", 0);
}

static int op_list(void)
{
	char buf[1024];
	int count = fs_list(&e, "/", buf, sizeof(buf));

	return count < 0 ? count : 0;
}

static char ahead_names[256], *ahead_next;

/* The next file in the order of the listing. */
static int open_next(void)
{
	char path[64], *name = strtok_r(NULL, "\n", &ahead_next);
	struct file *f;
	int err;

	if (!name)
		return -ENOENT;
	snprintf(path, sizeof(path), "/dir/sub/%s", name);
	err = fs_open(&e, path, O_RDONLY, 0, &f);
	return err ? err : fs_close(f);
}

/* A file of a directory was opened: the next one comes with those behind it. */
static int prepare_ahead(void)
{
	char path[256];
	int err = 0;

	for (unsigned i = 0; i < 12 && !err; i++) {
		snprintf(path, sizeof(path), "%s/dir/sub/f%u", backend_gofer_dir(), i);
		err = close(creat(path, 0644));
	}
	if (!err && fs_list(&e, "/dir/sub", ahead_names, sizeof(ahead_names)) != 12)
		err = -EBADMSG;
	strtok_r(ahead_names, "\n", &ahead_next);
	return err ? err : open_next();
}

static int op_open_ahead(void)
{
	int err = open_next();

	/* Those that came along are open; what follows is asked for. */
	for (unsigned i = 0; i < 6 && !err; i++)
		err = open_next();
	return err;
}

static int op_statfs(void)
{
	struct statfs st;

	return vfs_statfs(&e.root, &st);
}

static const struct {
	const char *name;
	int (*run)(void);
	int (*prepare)(void); /* before the fault */
} ops[] = {
	{"walk", op_walk},     {"open", op_open},     {"create", op_create},
	{"mkdir", op_mkdir},   {"mknod", op_mknod},   {"symlink", op_symlink},
	{"unlink", op_unlink}, {"rmdir", op_rmdir},   {"rename", op_rename},
	{"readdir", op_list},  {"statfs", op_statfs}, {"open ahead", op_open_ahead, prepare_ahead},
};

static void one_case(unsigned op, enum fault fault)
{
	struct moat_statx st;
	char path[256];
	time_t start;
	int err;

	assert_int_equal(fs_env_init(&e), 0);
	snprintf(path, sizeof(path), "%s/dir", backend_gofer_dir());
	assert_int_equal(mkdir(path, 0755), 0);
	strcat(path, "/sub");
	assert_int_equal(mkdir(path, 0755), 0);
	snprintf(path, sizeof(path), "%s/file", backend_gofer_dir());
	assert_int_equal(close(creat(path, 0644)), 0);
	if (ops[op].prepare)
		assert_int_equal(ops[op].prepare(), 0);
	start = time(NULL);
	atomic_store(&armed, fault);
	err = ops[op].run();
	/* The second copy may come before what else is waited for. */
	if (fault == TWICE && ops[op].prepare && err == -EIO)
		err = 0;
	if (err != (fault == TWICE || fault == NONE ? 0 : -EIO))
		fail_msg("%s, %s: %s", ops[op].name, fault_names[fault], strerror(-err));
	err = fs_stat(&e, "/nowhere", &st);
	/* After a listing that may be known, and the second copy not there yet: who asks hears of it. */
	if (fault == TWICE && err == -ENOENT)
		err = op_statfs();
	if (fault == NONE && err != -ENOENT)
		fail_msg("%s: nothing is wrong, but: %s", ops[op].name, strerror(-err));
	if (fault != NONE && err != -EIO)
		fail_msg("after %s, %s: %s", ops[op].name, fault_names[fault], strerror(-err));
	if (time(NULL) - start > SLOW_S)
		fail_msg("%s, %s: too slow", ops[op].name, fault_names[fault]);
	fs_env_fini(&e);
}

/* A server that sends attributes of files where those of directories were wanted, and none where they were. */
static void test_other_nodes(void **state)
{
	char path[256], names[1024];
	struct moat_statx st;

	(void)state;
	assert_int_equal(fs_env_init(&e), 0);
	for (unsigned d = 0; d < 30; d++) {
		snprintf(path, sizeof(path), "%s/d%u", backend_gofer_dir(), d);
		assert_int_equal(mkdir(path, 0755), 0);
		for (unsigned f = 0; f < 4; f++) {
			snprintf(path, sizeof(path), "%s/d%u/f%u", backend_gofer_dir(), d, f);
			assert_int_equal(close(creat(path, 0600)), 0);
			assert_int_equal(chmod(path, 0600 + d), 0);
		}
	}
	atomic_store(&other_want, true);
	/* Some are only listed, then some looked at, twice: all kinds of listings. */
	for (unsigned d = 0; d < 30; d++) {
		snprintf(path, sizeof(path), "/d%u", d);
		assert_int_equal(fs_list(&e, path, names, sizeof(names)), 4);
		for (unsigned f = 0; f < 4 && d % 14 > 10; f++) {
			snprintf(path, sizeof(path), "/d%u/f%u", d, f);
			assert_int_equal(fs_stat(&e, path, &st), 0);
			assert_int_equal(st.mode, S_IFREG | (0600 + d));
		}
	}
	atomic_store(&other_want, false);
	for (unsigned d = 0; d < 30; d++) {
		snprintf(path, sizeof(path), "/d%u/f%u", d, d % 4);
		assert_int_equal(fs_stat(&e, path, &st), 0);
		assert_int_equal(st.mode, S_IFREG | (0600 + d));
		snprintf(path, sizeof(path), "/d%u", d);
		assert_int_equal(fs_list(&e, path, names, sizeof(names)), 4);
	}
	fs_env_fini(&e);
}

static void test_faults(void **state)
{
	(void)state;
	for (unsigned op = 0; op < ARRAY_SIZE(ops); op++)
		for (enum fault fault = NONE; fault < FAULTS; fault++)
			one_case(op, fault);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_other_nodes),
		cmocka_unit_test(test_faults),
	};

	backend_gofer_wrap = wrap;
	log_init(-1, LOG_ERROR_LEVEL, "test");
	if (fs_env_process_init())
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
