// LINK: moat_vfs moat_memfs moat_mem
/* epoll: triggering modes, nesting, removal, threads; inotify: events of a directory. */
#include "tests/unit/check.h"

#include <pthread.h>
#include <sys/inotify.h>

#include "base/rcu.h"
#include "fsimpl/memfs/memfs.h"
#include "mem/memfile.h"
#include "vfs/epoll.h"
#include "vfs/inotify.h"

/* A file whose readiness the test sets. */
struct fake {
	struct file file;
	_Atomic uint32_t ready;
	struct wait_queue queue;
};

static uint32_t fake_poll(struct file *f)
{
	return atomic_load(&((struct fake *)f)->ready);
}
static void fake_add(struct file *f, struct waiter *w)
{
	wait_queue_add(&((struct fake *)f)->queue, w);
}
static void fake_remove(struct file *f, struct waiter *w)
{
	(void)f;
	wait_queue_remove(w);
}
static void fake_release(struct file *f)
{
	wait_queue_fini(&((struct fake *)f)->queue);
	file_free(f);
}
static const struct file_ops fake_ops = {.release = fake_release,
					 .poll = fake_poll,
					 .poll_add = fake_add,
					 .poll_remove = fake_remove};

static struct fake *fake_create(void)
{
	struct fake *k = calloc(1, sizeof(*k));
	struct vfs_path none = {0};

	wait_queue_init(&k->queue);
	file_init(&k->file, &fake_ops, &none, O_RDWR, FILE_STREAM);
	return k;
}
static void fake_set(struct fake *k, uint32_t ready)
{
	atomic_store(&k->ready, ready);
	wait_queue_wake(&k->queue, ready);
}

static struct file *ep_create(void)
{
	struct vfs_path none = {0};
	struct file *f;

	assert_int_equal(epoll_file_create(&none, 0, &f), 0);
	return f;
}
static int ctl(struct file *ep, int op, struct file *f, uint32_t events, uint64_t data)
{
	struct epoll_event ev = {.events = events, .data.u64 = data};

	return epoll_file_ctl(ep, op, f, 5, &ev);
}
static struct epoll_event got[8];
static int wait_now(struct file *ep)
{
	return epoll_file_wait(ep, got, 8, 0);
}

static void test_modes(void **state)
{
	struct file *ep = ep_create();
	struct fake *k = fake_create();

	(void)state;
	assert_int_equal(ctl(ep, EPOLL_CTL_ADD, &k->file, EPOLLIN, 7), 0);
	assert_int_equal(ctl(ep, EPOLL_CTL_ADD, &k->file, EPOLLIN, 7), -EEXIST);
	assert_int_equal(wait_now(ep), 0);
	fake_set(k, POLLIN | POLLOUT);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(wait_now(ep), 1);
		assert_int_equal(got[0].events, EPOLLIN);
		assert_int_equal(got[0].data.u64, 7);
	}
	assert_int_equal(ctl(ep, EPOLL_CTL_MOD, &k->file, EPOLLIN | EPOLLET, 8), 0);
	assert_int_equal(wait_now(ep), 1);
	assert_int_equal(got[0].data.u64, 8);
	assert_int_equal(wait_now(ep), 0);
	fake_set(k, POLLIN);
	assert_int_equal(wait_now(ep), 1);
	assert_int_equal(wait_now(ep), 0);
	assert_int_equal(ctl(ep, EPOLL_CTL_MOD, &k->file, EPOLLIN | EPOLLONESHOT, 9), 0);
	assert_int_equal(wait_now(ep), 1);
	fake_set(k, POLLIN | POLLHUP);
	assert_int_equal(wait_now(ep), 0);
	assert_int_equal(ctl(ep, EPOLL_CTL_MOD, &k->file, EPOLLIN, 9), 0);
	assert_int_equal(wait_now(ep), 1);
	assert_int_equal(got[0].events, EPOLLIN | EPOLLHUP);
	assert_int_equal(ctl(ep, EPOLL_CTL_DEL, &k->file, 0, 0), 0);
	assert_int_equal(ctl(ep, EPOLL_CTL_DEL, &k->file, 0, 0), -ENOENT);
	assert_int_equal(wait_now(ep), 0);
	/* A closed file leaves by itself. */
	assert_int_equal(ctl(ep, EPOLL_CTL_ADD, &k->file, EPOLLIN, 1), 0);
	file_unref(&k->file);
	assert_int_equal(wait_now(ep), 0);
	k = fake_create();
	assert_int_equal(ctl(ep, EPOLL_CTL_ADD, &k->file, EPOLLIN | EPOLLEXCLUSIVE, 1), 0);
	assert_int_equal(ctl(ep, EPOLL_CTL_MOD, &k->file, EPOLLIN, 1), -EINVAL);
	file_unref(ep);
	file_unref(&k->file);
}

static void test_nesting(void **state)
{
	struct file *ep[8];
	struct fake *k = fake_create();

	(void)state;
	for (int i = 0; i < 8; i++)
		ep[i] = ep_create();
	assert_int_equal(ctl(ep[0], EPOLL_CTL_ADD, ep[0], EPOLLIN, 0), -EINVAL);
	assert_int_equal(ctl(ep[0], EPOLL_CTL_ADD, &k->file, EPOLLIN, 0), 0);
	for (int i = 1; i <= 4; i++)
		assert_int_equal(ctl(ep[i], EPOLL_CTL_ADD, ep[i - 1], EPOLLIN, (uint64_t)i), 0);
	assert_int_equal(ctl(ep[0], EPOLL_CTL_ADD, ep[4], EPOLLIN, 0), -ELOOP);
	assert_int_equal(ctl(ep[1], EPOLL_CTL_ADD, ep[1], EPOLLIN, 0), -EINVAL);
	assert_int_equal(wait_now(ep[4]), 0);
	fake_set(k, POLLIN);
	assert_int_equal(wait_now(ep[4]), 1);
	assert_int_equal(got[0].data.u64, 4);
	fake_set(k, 0);
	assert_int_equal(wait_now(ep[4]), 0);
	for (int i = 0; i < 8; i++)
		file_unref(ep[i]);
	file_unref(&k->file);
}

struct shared {
	struct file *ep;
	struct fake *fakes[4];
	_Atomic int seen, stop;
};

static void *waiter_thread(void *arg)
{
	struct shared *s = arg;
	struct epoll_event ev[2];

	rcu_thread_begin();
	while (!atomic_load(&s->stop)) {
		int n = epoll_file_wait(s->ep, ev, 2, time_monotonic_ns() + 20000000);

		for (int i = 0; i < n; i++) {
			atomic_store(&s->fakes[ev[i].data.u64]->ready, 0);
			atomic_fetch_add(&s->seen, 1);
		}
	}
	rcu_thread_end();
	return NULL;
}

static void *churn_thread(void *arg)
{
	struct shared *s = arg;

	rcu_thread_begin();
	for (int i = 0; i < 3000; i++) {
		struct fake *k = fake_create();

		assert_int_equal(ctl(s->ep, EPOLL_CTL_ADD, &k->file, EPOLLIN | EPOLLET,
				     (uint64_t)(i & 3)),
				 0);
		fake_set(k, POLLIN);
		if (i & 1)
			assert_int_equal(ctl(s->ep, EPOLL_CTL_DEL, &k->file, 0, 0), 0);
		file_unref(&k->file);
	}
	rcu_thread_end();
	return NULL;
}

static void test_threads(void **state)
{
	struct shared s = {.ep = ep_create()};
	pthread_t waiters[2], churn;

	(void)state;
	for (int i = 0; i < 4; i++) {
		s.fakes[i] = fake_create();
		assert_int_equal(ctl(s.ep, EPOLL_CTL_ADD, &s.fakes[i]->file, EPOLLIN, (uint64_t)i),
				 0);
	}
	for (int i = 0; i < 2; i++)
		pthread_create(&waiters[i], NULL, waiter_thread, &s);
	pthread_create(&churn, NULL, churn_thread, &s);
	for (int i = 0; i < 20000; i++)
		fake_set(s.fakes[i & 3], POLLIN);
	pthread_join(churn, NULL);
	/* Nothing that was set stays unseen. */
	for (int i = 0; i < 6000; i++) {
		int left = 0;

		for (int j = 0; j < 4; j++)
			left += atomic_load(&s.fakes[j]->ready) != 0;
		if (!left)
			break;
		usleep(10000);
	}
	for (int i = 0; i < 4; i++)
		assert_int_equal(atomic_load(&s.fakes[i]->ready), 0);
	atomic_store(&s.stop, 1);
	for (int i = 0; i < 2; i++)
		pthread_join(waiters[i], NULL);
	assert_true(atomic_load(&s.seen) > 0);
	file_unref(s.ep);
	for (int i = 0; i < 4; i++)
		file_unref(&s.fakes[i]->file);
}

static void test_inotify(void **state)
{
	struct memfs_options opts = {.mode = 0755};
	struct mount_namespace *ns;
	struct filesystem *fs;
	struct dentry *root;
	struct vfs_path top, none = {0};
	struct vfs_lookup lk;
	struct file *in, *f;
	struct io_iter it;
	char buf[512];
	struct inotify_event *ev = (struct inotify_event *)buf;
	int wd;

	(void)state;
	assert_int_equal(memfs_create_fs("tmpfs", &opts, &fs, &root), 0);
	assert_int_equal(mount_namespace_create(fs, root, 0, &ns), 0);
	dentry_unref(root);
	filesystem_unref(fs);
	mount_namespace_root(ns, &top);
	assert_int_equal(inotify_file_create(&none, O_NONBLOCK, &in), 0);
	wd = inotify_file_add_watch(in, &top, IN_CREATE | IN_MODIFY | IN_CLOSE_WRITE | IN_DELETE);
	assert_int_equal(wd, 1);
	lk = (struct vfs_lookup){
		.cred = cred_current(), .ns = ns, .root = top, .start = top, .path = "/file"};
	assert_int_equal(
		vfs_open(&lk, &(struct open_args){.flags = O_CREAT | O_WRONLY, .mode = 0644}, &f),
		0);
	io_iter_init_kernel(&it, (void *)"x", 1, false);
	assert_int_equal(file_write_iter(f, &it, NULL, 0), 1);
	file_unref(f);
	assert_int_equal(vfs_unlink(&lk), 0);
	static const uint32_t expect[] = {IN_CREATE, IN_MODIFY, IN_CLOSE_WRITE, IN_DELETE};
	for (unsigned i = 0; i < 4; i++) {
		io_iter_init_kernel(&it, buf, 32, true);
		assert_int_equal(file_read_iter(in, &it, NULL, 0), 32);
		assert_int_equal(ev->mask, expect[i]);
		assert_string_equal(ev->name, "file");
	}
	io_iter_init_kernel(&it, buf, sizeof(buf), true);
	assert_int_equal(file_read_iter(in, &it, NULL, 0), -EAGAIN);
	assert_int_equal(inotify_file_rm_watch(in, wd), 0);
	assert_int_equal(inotify_file_rm_watch(in, wd), -EINVAL);
	io_iter_init_kernel(&it, buf, sizeof(buf), true);
	assert_int_equal(file_read_iter(in, &it, NULL, 0), 16);
	assert_int_equal(ev->mask, IN_IGNORED);
	file_unref(in);
	vfs_path_unref(&top);
	mount_namespace_unref(ns);
	rcu_drain();
	vfs_run_deferred();
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_modes),
					   cmocka_unit_test(test_nesting),
					   cmocka_unit_test(test_threads),
					   cmocka_unit_test(test_inotify)};
	struct cred *root;

	rcu_thread_begin();
	if (mem_init(0) || vfs_init() || cred_create_root(&root))
		return 1;
	cred_set_current(root);
	if (memfs_register())
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
