// LINK: moat_virtiofs moat_remote moat_vfs moat_wire moat_mem
/* The DAX window's back channel against a daemon that lies: nothing is mapped that was not asked for, and nonsense ends the channel, not us. */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "fsimpl/virtiofs/internal_dax.h"
#include "fsimpl/virtiofs/internal_device.h"

static struct dax_window *w;
static int daemon_end;

static int setup(void **state)
{
	int sv[2];

	(void)state;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
		return -1;
	daemon_end = sv[1];
	return dax_window_create(NULL, sv[0], 8ul << VIRTIOFS_DAX_SHIFT, &w) || dax_window_start(w);
}

static int teardown(void **state)
{
	(void)state;
	dax_window_destroy(w);
	close(daemon_end);
	return 0;
}

static int some_file(int flags)
{
	char path[] = "/tmp/moat-dax.XXXXXX";
	int fd = mkstemp(path), again;

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 1 << 21), 0);
	again = open(path, flags | O_CLOEXEC);
	assert_true(again >= 0);
	unlink(path);
	close(fd);
	return again;
}

/* Return: what the window answered; -1: the channel has ended. fds: descriptors that go along, closed. */
static int64_t say(const void *bytes, size_t size, const int *fds, unsigned count)
{
	struct iovec iov = {(void *)bytes, size};
	union {
		char buf[CMSG_SPACE(4 * sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	struct vhost_user_msg reply;
	ssize_t n;

	if (count) {
		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(count * sizeof(int));
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(&control.align), fds, count * sizeof(int));
	}
	assert_int_equal(sendmsg(daemon_end, &msg, MSG_NOSIGNAL), size);
	for (unsigned i = 0; i < count; i++)
		close(fds[i]);
	n = recv(daemon_end, &reply, VHOST_USER_HEADER_SIZE + 8, MSG_WAITALL);
	if (n <= 0)
		return -1;
	assert_int_equal(n, VHOST_USER_HEADER_SIZE + 8);
	return (int64_t)reply.u64;
}

static struct vhost_user_msg map_message(uint64_t range, uint64_t index, bool write)
{
	struct vhost_user_msg m;

	vhost_user_backend_request_init(&m, VHOST_USER_BACKEND_SHMEM_MAP);
	m.shmem_map = (struct vhost_user_shmem_map){
		.fd_offset = index << VIRTIOFS_DAX_SHIFT,
		.shm_offset = range << VIRTIOFS_DAX_SHIFT,
		.size = VIRTIOFS_DAX_RANGE,
		.flags = write ? VHOST_USER_SHMEM_RW : 0,
	};
	return m;
}

static int64_t say_map(struct vhost_user_msg m, int fd)
{
	return say(&m, VHOST_USER_HEADER_SIZE + m.size, &fd, 1);
}

static void only_what_was_asked_for(void **state)
{
	struct vhost_user_msg m;

	(void)state;
	/* nothing was */
	assert_int_equal(say_map(map_message(2, 5, false), some_file(O_RDONLY)), EINVAL);
	mutex_lock(&w->lock);
	w->ranges[2].state = DAX_SETUP;
	w->ranges[2].index = 5;
	mutex_unlock(&w->lock);
	assert_int_equal(say_map(map_message(2, 6, false), some_file(O_RDONLY)), EINVAL);
	assert_int_equal(say_map(map_message(3, 5, false), some_file(O_RDONLY)), EINVAL);
	assert_int_equal(say_map(map_message(2, 5, true), some_file(O_RDWR)), EINVAL);
	assert_int_equal(say_map(map_message(2, 5, false), some_file(O_RDWR)), EINVAL);
	assert_int_equal(say_map(map_message(8, 5, false), some_file(O_RDONLY)), EINVAL);
	assert_int_equal(say_map(map_message(1ull << 42, 5, false), some_file(O_RDONLY)), EINVAL);
	m = map_message(2, 5, false);
	m.shmem_map.size = 4096;
	assert_int_equal(say_map(m, some_file(O_RDONLY)), EINVAL);
	m = map_message(2, 5, false);
	m.shmem_map.id = 1;
	assert_int_equal(say_map(m, some_file(O_RDONLY)), EINVAL);
	/* not an open one */
	assert_int_equal(say_map(map_message(2, 5, false), open("/etc/passwd", O_PATH)), EINVAL);
	/* as asked, and once */
	assert_int_equal(say_map(map_message(2, 5, false), some_file(O_RDONLY)), 0);
	assert_int_equal(say_map(map_message(2, 5, false), some_file(O_RDONLY)), EINVAL);
	/* a range that is in use is not given up */
	vhost_user_backend_request_init(&m, VHOST_USER_BACKEND_SHMEM_UNMAP);
	m.shmem_map = (struct vhost_user_shmem_map){.shm_offset = 2ul << VIRTIOFS_DAX_SHIFT,
						    .size = VIRTIOFS_DAX_RANGE};
	assert_int_equal(say(&m, VHOST_USER_HEADER_SIZE + m.size, NULL, 0), EINVAL);
	m.shmem_map.shm_offset = 0;
	assert_int_equal(say(&m, VHOST_USER_HEADER_SIZE + m.size, NULL, 0), 0);
	assert_false(atomic_load(&w->broken));
}

/* What it is of is found out by the range's owner, who may wait for it. */
static void regular_files_only(void **state)
{
	static const char *const paths[] = {"/dev/zero", "/tmp", NULL};
	struct dax_range *r = &w->ranges[4];
	struct stat st;

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		mutex_lock(&w->lock);
		r->state = DAX_SETUP;
		r->index = 5;
		mutex_unlock(&w->lock);
		assert_int_equal(dax_range_look(w, r, &st), -EIO);
		assert_int_equal(say_map(map_message(4, 5, false),
					 paths[i] ? open(paths[i], O_RDONLY) : some_file(O_RDONLY)),
				 0);
		assert_int_equal(dax_range_look(w, r, &st), paths[i] ? -EIO : 0);
		memfile_unref(r->fresh);
		r->fresh = NULL;
	}
}

/* Bytes that come one by one are a message, too. */
static void in_pieces(void **state)
{
	struct vhost_user_msg m;

	(void)state;
	vhost_user_backend_request_init(&m, VHOST_USER_BACKEND_SHMEM_UNMAP);
	m.shmem_map.size = VIRTIOFS_DAX_RANGE;
	for (size_t i = 0; i + 1 < VHOST_USER_HEADER_SIZE + m.size; i++)
		assert_int_equal(send(daemon_end, (char *)&m + i, 1, 0), 1);
	assert_int_equal(say((char *)&m + VHOST_USER_HEADER_SIZE + m.size - 1, 1, NULL, 0), 0);
}

static void nonsense(void **state)
{
	struct vhost_user_msg m = map_message(0, 0, false);
	int two[2] = {some_file(O_RDONLY), some_file(O_RDONLY)};
	uint32_t kind = *(uint32_t *)*state;

	switch (kind) {
	case 0: /* too many descriptors */
		assert_int_equal(say(&m, VHOST_USER_HEADER_SIZE + m.size, two, 2), -1);
		two[0] = -1;
		break;
	case 1: /* none */
		assert_int_equal(say(&m, VHOST_USER_HEADER_SIZE + m.size, NULL, 0), -1);
		break;
	case 2: /* a size that no message has */
		m.size = 0x7fffffff;
		assert_int_equal(say(&m, VHOST_USER_HEADER_SIZE, NULL, 0), -1);
		break;
	case 3: /* a number that no request has */
		m.request = 77;
		assert_int_equal(say(&m, VHOST_USER_HEADER_SIZE + m.size, NULL, 0), -1);
		break;
	default: /* nothing at all in it */
		m.size = 0;
		assert_int_equal(say(&m, VHOST_USER_HEADER_SIZE, NULL, 0), -1);
		break;
	}
	assert_true(atomic_load(&w->broken));
	if (two[0] >= 0) {
		close(two[0]);
		close(two[1]);
	}
}

static _Atomic bool looking_over;

static void *look_main(void *arg)
{
	rcu_thread_begin();
	while (!atomic_load(&looking_over))
		dax_window_look(arg);
	rcu_thread_end();
	return NULL;
}

/* Who waits for a message takes it as well as the housekeeping thread; each is answered once, whoever was there, and nonsense ends the channel for both. */
static void taken_by_who_waits(void **state)
{
	struct vhost_user_msg m;
	pthread_t threads[2];

	(void)state;
	atomic_store(&looking_over, false);
	for (unsigned i = 0; i < ARRAY_SIZE(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, look_main, w), 0);
	for (unsigned i = 0; i < 300; i++) {
		mutex_lock(&w->lock);
		w->ranges[i % 8].state = DAX_SETUP;
		w->ranges[i % 8].index = i;
		mutex_unlock(&w->lock);
		m = map_message(i % 8, i, false);
		assert_int_equal(say_map(m, some_file(O_RDONLY)), 0);
		assert_int_equal(say_map(m, some_file(O_RDONLY)), EINVAL);
		mutex_lock(&w->lock);
		memfile_unref(w->ranges[i % 8].fresh);
		w->ranges[i % 8].fresh = NULL;
		w->ranges[i % 8].state = DAX_FREE;
		mutex_unlock(&w->lock);
	}
	vhost_user_backend_request_init(&m, VHOST_USER_BACKEND_SHMEM_MAP);
	m.size = 1;
	assert_int_equal(say(&m, VHOST_USER_HEADER_SIZE + m.size, NULL, 0), -1);
	atomic_store(&looking_over, true);
	for (unsigned i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(threads[i], NULL);
	assert_true(atomic_load(&w->broken));
}

/* Another daemon comes, and another channel, while somebody is late who waited for the one before: the housekeeping thread hears of what is said on it. */
static void another_while_one_looks(void **state)
{
	pthread_t threads[2];

	(void)state;
	for (unsigned i = 0; i < 30; i++) {
		int sv[2];

		atomic_store(&looking_over, false);
		for (unsigned k = 0; k < ARRAY_SIZE(threads); k++)
			assert_int_equal(pthread_create(&threads[k], NULL, look_main, w), 0);
		assert_int_equal(say_map(map_message(1, 1, false), some_file(O_RDONLY)), EINVAL);
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
		dax_window_gone(w);
		dax_window_restart(w, sv[0], 8ul << VIRTIOFS_DAX_SHIFT);
		assert_int_equal(dax_window_start(w), 0);
		close(daemon_end);
		daemon_end = sv[1];
		atomic_store(&looking_over, true);
		for (unsigned k = 0; k < ARRAY_SIZE(threads); k++)
			pthread_join(threads[k], NULL);
		assert_int_equal(say_map(map_message(1, 1, false), some_file(O_RDONLY)), EINVAL);
		assert_false(atomic_load(&w->broken));
	}
}

static int group_setup(void **state)
{
	(void)state;
	rcu_thread_begin();
	return mem_init(0) || hostpoll_start();
}

/* Another daemon, without a window: the old one's is not begun again. */
static void daemon_without(void **state)
{
	(void)state;
	dax_window_gone(w);
	assert_true(w->broken);
	assert_int_equal(dax_window_start(w), 0);
}

/* A node of an earlier connection is never one of this. */
static void epochs(void **state)
{
	static struct virtiofs_device dev;
	uint64_t node = vdev_node(7, 1);

	(void)state;
	for (dev.epoch = 1; dev.epoch <= VDEV_EPOCH_MAX; dev.epoch++)
		assert_int_equal(vdev_node_current(&dev, node), dev.epoch == 1);
	assert_true(vdev_node_current(&dev, vdev_node(FUSE_ROOT, 1)));
	assert_int_equal(vdev_server_node(node), 7);
}

int main(void)
{
	static uint32_t kinds[] = {0, 1, 2, 3, 4};
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(only_what_was_asked_for, setup, teardown),
		cmocka_unit_test_setup_teardown(regular_files_only, setup, teardown),
		cmocka_unit_test_setup_teardown(in_pieces, setup, teardown),
		cmocka_unit_test_prestate_setup_teardown(nonsense, setup, teardown, &kinds[0]),
		cmocka_unit_test_prestate_setup_teardown(nonsense, setup, teardown, &kinds[1]),
		cmocka_unit_test_prestate_setup_teardown(nonsense, setup, teardown, &kinds[2]),
		cmocka_unit_test_prestate_setup_teardown(nonsense, setup, teardown, &kinds[3]),
		cmocka_unit_test_prestate_setup_teardown(nonsense, setup, teardown, &kinds[4]),
		cmocka_unit_test_setup_teardown(taken_by_who_waits, setup, teardown),
		cmocka_unit_test_setup_teardown(another_while_one_looks, setup, teardown),
		cmocka_unit_test_setup_teardown(daemon_without, setup, teardown),
		cmocka_unit_test(epochs),
	};

	return cmocka_run_group_tests(tests, group_setup, NULL);
}
