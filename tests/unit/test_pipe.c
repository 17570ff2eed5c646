// LINK: moat_pipe moat_anon moat_hostfd moat_vfs moat_mem moat_base
/* Pipes, FIFO opening, splice helpers, eventfd: semantics that programs rely on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/rcu.h"
#include "fsimpl/anon/anon.h"
#include "fsimpl/pipe/pipe.h"
#include "tests/unit/file_rw.h"

static int raised;

static void on_signal(int signo)
{
	raised = signo;
}

static void make(struct file *p[2], unsigned flags)
{
	assert_int_equal(pipe_create(flags, p), 0);
}

static void test_basic(void **state)
{
	struct file *p[2];
	char buf[64];

	(void)state;
	make(p, O_NONBLOCK);
	assert_int_equal(file_rd(p[0], buf, sizeof(buf)), -EAGAIN);
	assert_int_equal(file_poll(p[0]) & POLLIN, 0);
	assert_true(file_poll(p[1]) & POLLOUT);
	assert_int_equal(file_wr(p[1], "hello", 5), 5);
	assert_int_equal(file_wr(p[1], " you", 4), 4);
	assert_int_equal(pipe_bytes(p[0]), 9);
	assert_int_equal(file_rd(p[0], buf, 3), 3);
	assert_memory_equal(buf, "hel", 3);
	assert_int_equal(file_rd(p[0], buf, sizeof(buf)), 6);
	assert_memory_equal(buf, "lo you", 6);
	assert_int_equal(file_rd(p[1], buf, 1), -EBADF);
	assert_int_equal(file_wr(p[0], buf, 1), -EBADF);
	file_unref(p[1]);
	assert_int_equal(file_rd(p[0], buf, 1), 0);
	assert_true(file_poll(p[0]) & POLLHUP);
	file_unref(p[0]);
}

static void test_broken(void **state)
{
	struct file *p[2];

	(void)state;
	make(p, 0);
	file_unref(p[0]);
	raised = 0;
	assert_int_equal(file_wr(p[1], "x", 1), -EPIPE);
	assert_int_equal(raised, SIGPIPE);
	assert_true(file_poll(p[1]) & POLLERR);
	file_unref(p[1]);
}

static void test_full_and_atomic(void **state)
{
	char *big = malloc(1 << 20), page[4096];
	struct file *p[2];

	(void)state;
	memset(big, 'a', 1 << 20);
	make(p, O_NONBLOCK);
	assert_int_equal(pipe_get_size(p[0]), 65536);
	assert_int_equal(file_wr(p[1], big, 1 << 20), 65536);
	assert_int_equal(file_wr(p[1], big, 1), -EAGAIN);
	assert_int_equal(file_poll(p[1]) & POLLOUT, 0);
	assert_int_equal(file_rd(p[0], page, 100), 100);
	/* A slot is only free once its page is empty. */
	assert_int_equal(file_wr(p[1], big, 1), -EAGAIN);
	assert_int_equal(file_rd(p[0], page, 3996), 3996);
	assert_int_equal(file_wr(p[1], big, 4096), 4096);
	assert_int_equal(pipe_set_size(p[0], 4096), -EBUSY);
	assert_int_equal(pipe_set_size(p[0], 100000), 131072);
	cred_set_current(&(struct cred){.uid = 1000});
	assert_int_equal(pipe_set_size(p[0], 2 << 20), -EPERM);
	assert_int_equal(file_rd(p[0], big, 1 << 20), 65536);
	assert_int_equal(pipe_set_size(p[0], 1), 4096);
	cred_set_current(NULL);
	file_unref(p[0]);
	file_unref(p[1]);
	free(big);
}

static void test_packets(void **state)
{
	struct file *p[2];
	char buf[16];

	(void)state;
	make(p, O_DIRECT | O_NONBLOCK);
	assert_int_equal(file_wr(p[1], "one", 3), 3);
	assert_int_equal(file_wr(p[1], "second", 6), 6);
	assert_int_equal(file_rd(p[0], buf, sizeof(buf)), 3);
	assert_int_equal(file_rd(p[0], buf, 2), 2); /* the rest of the packet is lost */
	assert_int_equal(file_rd(p[0], buf, 2), -EAGAIN);
	file_unref(p[0]);
	file_unref(p[1]);
}

#define STREAM_BYTES (4u << 20)

static void *writer(void *arg)
{
	unsigned char *data = malloc(STREAM_BYTES);

	rcu_thread_begin();
	for (size_t i = 0; i < STREAM_BYTES; i++)
		data[i] = (unsigned char)(i * 7 + (i >> 12));
	for (size_t done = 0; done < STREAM_BYTES;) {
		size_t size = MIN((size_t)(done % 9000 + 1), STREAM_BYTES - done);
		ssize_t n = file_wr(arg, data + done, size);

		if (n != (ssize_t)size)
			abort(); /* a blocking write is whole */
		done += size;
	}
	free(data);
	file_unref(arg);
	rcu_thread_end();
	return NULL;
}

static void test_blocking_stream(void **state)
{
	unsigned char buf[5000];
	struct file *p[2];
	size_t done = 0;
	pthread_t t;
	ssize_t n;

	(void)state;
	make(p, 0);
	pthread_create(&t, NULL, writer, p[1]);
	while ((n = file_rd(p[0], buf, 1 + done % sizeof(buf))) > 0)
		for (ssize_t i = 0; i < n; i++, done++)
			assert_int_equal(buf[i], (unsigned char)(done * 7 + (done >> 12)));
	assert_int_equal(n, 0);
	assert_int_equal(done, STREAM_BYTES);
	pthread_join(t, NULL);
	file_unref(p[0]);
}

static void test_splice(void **state)
{
	struct file *a[2], *b[2], *c[2];
	char buf[32];

	(void)state;
	make(a, O_NONBLOCK);
	make(b, O_NONBLOCK);
	make(c, O_NONBLOCK);
	assert_int_equal(pipe_splice_pipe(a[0], b[1], 10), -EAGAIN);
	assert_int_equal(file_wr(a[1], "abcdefgh", 8), 8);
	assert_int_equal(pipe_tee(a[0], b[1], 100), 8);
	/* The shared page must not grow into the other ring. */
	assert_int_equal(file_wr(a[1], "IJ", 2), 2);
	assert_int_equal(file_rd(b[0], buf, sizeof(buf)), 8);
	assert_memory_equal(buf, "abcdefgh", 8);
	assert_int_equal(pipe_splice_pipe(a[0], b[1], 3), 3);
	assert_int_equal(file_rd(b[0], buf, sizeof(buf)), 3);
	assert_memory_equal(buf, "abc", 3);
	assert_int_equal(pipe_splice_to(a[0], c[1], NULL, 100), 7);
	assert_int_equal(file_rd(c[0], buf, sizeof(buf)), 7);
	assert_memory_equal(buf, "defghIJ", 7);
	assert_int_equal(file_wr(c[1], "xyz", 3), 3);
	assert_int_equal(pipe_splice_from(c[0], NULL, a[1], 100), 3);
	assert_int_equal(file_rd(a[0], buf, sizeof(buf)), 3);
	assert_int_equal(pipe_splice_pipe(a[0], a[1], 1), -EINVAL);
	file_unref(a[1]);
	assert_int_equal(pipe_splice_pipe(a[0], b[1], 1), 0);
	for (int i = 0; i < 2; i++) {
		if (!i)
			file_unref(a[i]);
		file_unref(b[i]);
		file_unref(c[i]);
	}
}

static int fifo(unsigned flags, struct vfs_path *place, struct file **ret)
{
	return pipe_fifo_open(place, 77, flags, ret);
}

static void *fifo_writer(void *arg)
{
	struct file *f;

	rcu_thread_begin();
	usleep(20000);
	if (fifo(O_WRONLY, arg, &f) || pipe_open_wait(f))
		abort();
	file_wr(f, "hi", 2);
	file_unref(f);
	rcu_thread_end();
	return NULL;
}

static void test_fifo(void **state)
{
	struct anon_args args = {.kind = ANON_PIPE, .mode = S_IFIFO | 0600};
	struct vfs_path place;
	struct file *r, *w;
	pthread_t t;
	char buf[8];

	(void)state;
	assert_int_equal(anon_path_create(&args, &place), 0);
	assert_int_equal(fifo(O_WRONLY | O_NONBLOCK, &place, &w), -ENXIO);
	assert_int_equal(fifo(O_RDONLY | O_NONBLOCK, &place, &r), 0);
	assert_int_equal(pipe_open_wait(r), 0);
	assert_int_equal(file_poll(r) & POLLHUP, 0); /* no writer yet is no hang-up */
	assert_int_equal(file_rd(r, buf, 1), 0);
	assert_int_equal(fifo(O_WRONLY | O_NONBLOCK, &place, &w), 0);
	assert_int_equal(file_wr(w, "ab", 2), 2);
	file_unref(w);
	assert_true(file_poll(r) & POLLHUP);
	assert_int_equal(file_rd(r, buf, 8), 2);
	file_unref(r);
	/* The data went with the last file. */
	assert_int_equal(fifo(O_RDWR, &place, &r), 0);
	assert_int_equal(pipe_open_wait(r), 0);
	assert_int_equal(pipe_bytes(r), 0);
	file_unref(r);
	pthread_create(&t, NULL, fifo_writer, &place);
	assert_int_equal(fifo(O_RDONLY, &place, &r), 0);
	assert_int_equal(pipe_open_wait(r), 0);
	assert_int_equal(file_rd(r, buf, 8), 2);
	pthread_join(t, NULL);
	assert_int_equal(file_rd(r, buf, 8), 0);
	file_unref(r);
	vfs_path_unref(&place);
}

/* open(2) of /proc/self/fd/N of a pipe whose writer is gone does not wait. */
static void test_reopen(void **state)
{
	struct file *p[2], *again;
	struct vfs_path place;
	char buf[8];

	(void)state;
	make(p, 0);
	assert_int_equal(file_wr(p[1], "left", 4), 4);
	file_unref(p[1]);
	place = p[0]->path;
	assert_int_equal(anon_dentry_of(place.dentry)
				 ->reopen(anon_dentry_of(place.dentry), &place, O_RDONLY, &again),
			 0);
	assert_int_equal(pipe_open_wait(again), 0);
	assert_int_equal(file_rd(again, buf, 8), 4);
	assert_int_equal(file_rd(again, buf, 8), 0);
	file_unref(again);
	file_unref(p[0]);
}

static void test_eventfd(void **state)
{
	uint64_t v = 5;
	struct file *f;

	(void)state;
	assert_int_equal(eventfd_create(3, EFD_NONBLOCK, &f), 0);
	assert_int_equal(file_wr(f, &v, 8), 8);
	assert_int_equal(file_rd(f, &v, 8), 8);
	assert_int_equal(v, 8);
	assert_int_equal(file_rd(f, &v, 8), -EAGAIN);
	assert_int_equal(file_rd(f, &v, 4), -EINVAL);
	v = UINT64_MAX;
	assert_int_equal(file_wr(f, &v, 8), -EINVAL);
	v = UINT64_MAX - 1;
	assert_int_equal(file_wr(f, &v, 8), 8);
	v = 1;
	assert_int_equal(file_wr(f, &v, 8), -EAGAIN);
	assert_int_equal(file_poll(f), POLLIN);
	file_unref(f);
	assert_int_equal(eventfd_create(2, EFD_SEMAPHORE | EFD_NONBLOCK, &f), 0);
	assert_int_equal(file_rd(f, &v, 8), 8);
	assert_int_equal(v, 1);
	file_unref(f);
}

static void test_names(void **state)
{
	struct file *p[2];
	char name[64], want[64];
	struct moat_statx st;
	struct stat_args args = {.mask = 0x7ff};

	(void)state;
	make(p, 0);
	assert_int_equal(file_stat(p[0], &args, &st), 0);
	assert_int_equal(st.mode, S_IFIFO | 0600);
	assert_true(anon_name(p[0]->path.dentry, name, sizeof(name)));
	snprintf(want, sizeof(want), "pipe:[%llu]", (unsigned long long)st.ino);
	assert_string_equal(name, want);
	file_unref(p[0]);
	file_unref(p[1]);
}

static int setup(void **state)
{
	struct cred *root;

	(void)state;
	rcu_thread_begin();
	if (vfs_init() || anon_init() || cred_create_root(&root))
		return -1;
	cred_set_current(root);
	vfs_hooks.raise_signal = on_signal;
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_basic),
		cmocka_unit_test(test_broken),
		cmocka_unit_test(test_full_and_atomic),
		cmocka_unit_test(test_packets),
		cmocka_unit_test(test_blocking_stream),
		cmocka_unit_test(test_splice),
		cmocka_unit_test(test_fifo),
		cmocka_unit_test(test_eventfd),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_reopen),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
