// LINK: moat_gofer moat_gofer_fs moat_vfs moat_mem moat_wire seccomp
/* gofer and fsimpl/gofer together: many threads at once, and a gofer that dies. */
#include <sys/resource.h>

#include "tests/unit/p9_gofer_fixture.h"

/* ---- many at once ---- */

#define THREADS 4
#define OPS 600

static void random_op(unsigned *seed)
{
	char p[32], q[32], buf[64];
	struct moat_statx st;
	struct file *f;

	snprintf(p, sizeof(p), "par/%d", rand_r(seed) % 12);
	snprintf(q, sizeof(q), "par/%d", rand_r(seed) % 12);
	switch (rand_r(seed) % 10) {
	case 0:
	case 1:
		if (do_open(p, O_CREAT | O_RDWR, 0644, &f) == 0) {
			(void)!do_pwrite(f, "some text", 9, rand_r(seed) % 100);
			(void)!do_pread(f, buf, sizeof(buf), 0);
			file_unref(f);
		}
		break;
	case 2:
		(void)!do_unlink(p);
		break;
	case 3:
		(void)!do_rename(p, q, 0);
		break;
	case 4:
		(void)!do_mkdir(p, 0755);
		break;
	case 5:
		(void)!do_rmdir(p);
		break;
	case 6:
		(void)!do_link(p, q);
		break;
	case 7:
		gofer_fs_shrink(fx.fs);
		break;
	case 8:
		(void)!do_rename(p, q, 2);
		break;
	default:
		(void)!do_stat(p, &st);
		break;
	}
	vfs_run_deferred();
}

static void *parallel_thread(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;

	rcu_thread_begin();
	cred_set_current(fx.cred);
	for (int i = 0; i < OPS; i++)
		random_op(&seed);
	cred_set_current(NULL);
	rcu_thread_end();
	return NULL;
}

/* What the cache says afterwards is what the host has. */
static void parallel(void **state)
{
	pthread_t threads[THREADS];

	(void)state;
	assert_int_equal(do_mkdir("par", 0755), 0);
	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(
			pthread_create(&threads[i], NULL, parallel_thread, (void *)(i + 1)), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < 12; i++) {
		struct moat_statx st;
		struct stat hs;
		char p[32];
		int err;

		snprintf(p, sizeof(p), "par/%d", i);
		err = do_stat(p, &st);
		if (lstat(host(p), &hs) < 0) {
			assert_int_equal(err, -ENOENT);
			continue;
		}
		assert_int_equal(err, 0);
		assert_int_equal(st.ino, hs.st_ino);
		assert_int_equal(st.mode, hs.st_mode);
		assert_int_equal(st.nlink, hs.st_nlink);
		assert_int_equal(st.size, hs.st_size);
	}
}

/* ---- opened in order, while others change what is opened ---- */

#define ORDER_FILES 120u
#define ORDER_ROUNDS 15

static char order_names[ORDER_FILES][32];
static unsigned order_count;

static bool order_keep(struct dir_emit *ctx, const char *name, size_t len, uint64_t ino,
		       unsigned type, int64_t next)
{
	(void)ctx;
	(void)ino;
	(void)type;
	(void)next;
	if (name[0] != '.' && order_count < ORDER_FILES)
		snprintf(order_names[order_count++], sizeof(order_names[0]), "order/%.*s", (int)len,
			 name);
	return true;
}

static void order_list(void)
{
	struct file *f;

	order_count = 0;
	assert_int_equal(do_open("order", O_RDONLY | O_DIRECTORY, 0, &f), 0);
	assert_int_equal(file_iterate(f, &(struct dir_emit){order_keep}), 0);
	file_unref(f);
}

static bool any_name(struct dir_emit *ctx, const char *name, size_t len, uint64_t ino,
		     unsigned type, int64_t next)
{
	(void)ctx;
	(void)name;
	(void)len;
	(void)ino;
	(void)type;
	(void)next;
	return true;
}

/* What is read at a name is what the host has there. */
static void order_check(int host_dir, const char *name)
{
	char got[64] = "", want[64] = "";
	int fd = openat(host_dir, name, O_RDONLY), err;
	struct file *f;

	err = do_open(name, O_RDONLY, 0, &f);
	assert_int_equal(err, fd < 0 ? -ENOENT : 0);
	if (err)
		return;
	assert_true(do_pread(f, got, sizeof(got) - 1, 0) >= 0);
	assert_true(pread(fd, want, sizeof(want) - 1, 0) >= 0);
	assert_string_equal(got, want);
	close(fd);
	file_unref(f);
}

static void *order_opener(void *arg)
{
	struct file *f;

	rcu_thread_begin();
	cred_set_current(fx.cred);
	for (int i = 0; i < ORDER_ROUNDS; i++) {
		if (do_open("order", O_RDONLY | O_DIRECTORY, 0, &f) == 0) {
			(void)!file_iterate(f, &(struct dir_emit){any_name});
			file_unref(f);
		}
		for (unsigned n = 0; n < order_count; n++)
			if (do_open(order_names[n], O_RDONLY, 0, &f) == 0)
				file_unref(f);
		if (arg)
			gofer_fs_shrink(fx.fs);
		vfs_run_deferred();
	}
	cred_set_current(NULL);
	rcu_thread_end();
	return NULL;
}

static void *order_changer(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;
	struct file *f;

	rcu_thread_begin();
	cred_set_current(fx.cred);
	for (unsigned i = 0; i < ORDER_ROUNDS * 20; i++) {
		const char *a = order_names[(unsigned)rand_r(&seed) % order_count];
		const char *b = order_names[(unsigned)rand_r(&seed) % order_count];
		char text[16];

		switch (rand_r(&seed) % 3) {
		case 0:
			(void)!do_unlink(a);
			break;
		case 1:
			(void)!do_rename(a, b, 0);
			break;
		default:
			if (do_open(a, O_CREAT | O_RDWR | O_TRUNC, 0644, &f))
				break;
			snprintf(text, sizeof(text), "text %u", i);
			(void)!do_pwrite(f, text, strlen(text), 0);
			file_unref(f);
		}
		vfs_run_deferred();
	}
	cred_set_current(NULL);
	rcu_thread_end();
	return NULL;
}

static void opened_in_order(void **state)
{
	int dir = open(fx.dir, O_RDONLY | O_DIRECTORY);
	pthread_t threads[THREADS];
	char name[32];

	(void)state;
	mkdir(host("order"), 0755);
	for (unsigned i = 0; i < ORDER_FILES; i++) {
		snprintf(name, sizeof(name), "order/%u", i);
		write_host(name, name);
	}
	order_list();
	assert_int_equal(order_count, ORDER_FILES);
	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL,
						i == 3 ? order_changer : order_opener,
						(void *)(i == 3 ? 7 : i)),
				 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	for (unsigned i = 0; i < ORDER_FILES; i++)
		order_check(dir, order_names[i]);
	close(dir);
}

#define FEW_FILES 200
#define FEW_LEFT 40 /* descriptors that may be had */

/* As many as can be open. Return: how many there were. */
static unsigned open_many(struct file **files)
{
	char name[32];
	unsigned n;
	int err = 0;

	for (n = 0; n < FEW_FILES && !err; n++) {
		snprintf(name, sizeof(name), "few/%u", n);
		err = do_open(name, O_RDONLY, 0, &files[n]);
		if (err)
			break;
	}
	if (err)
		assert_int_equal(err, -ENFILE);
	return n;
}

/* Where the process may have fewer descriptors than are kept, idle ones make room, and what has none is refused; no more than that. */
static void few_descriptors(void **state)
{
	static struct file *files[FEW_FILES];
	struct rlimit old, few;
	char name[32], buf[8];
	struct file *f;
	unsigned n;
	int free_fd;

	(void)state;
	mkdir(host("few"), 0755);
	for (unsigned i = 0; i < FEW_FILES; i++) {
		snprintf(name, sizeof(name), "few/%u", i);
		write_host(name, name);
	}
	free_fd = dup(0);
	assert_true(free_fd >= 0);
	close(free_fd);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	few = old;
	few.rlim_cur = (rlim_t)free_fd + FEW_LEFT;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	for (unsigned i = 0; i < FEW_FILES; i++) {
		snprintf(name, sizeof(name), "few/%u", i);
		assert_int_equal(do_open(name, O_RDONLY, 0, &f), 0);
		memset(buf, 0, sizeof(buf));
		assert_int_equal(do_pread(f, buf, sizeof(buf) - 1, 0), strlen(name));
		assert_string_equal(buf, name);
		file_unref(f);
	}
	for (unsigned i = 0; i < FEW_FILES; i++) {
		snprintf(name, sizeof(name), "few/new%u", i);
		assert_int_equal(do_open(name, O_RDWR | O_CREAT | O_EXCL, 0, &f), 0);
		assert_int_equal(do_pwrite(f, "new", 3, 0), 3);
		file_unref(f);
	}
	n = open_many(files);
	assert_in_range(n, FEW_LEFT / 2, FEW_LEFT);
	assert_int_equal(do_open("few/new", O_RDWR | O_CREAT, 0600, &f), -ENFILE);
	for (unsigned i = 0; i < n; i++)
		file_unref(files[i]);
	assert_int_equal(do_open("few/new", O_RDWR | O_CREAT, 0600, &f), 0);
	file_unref(f);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	n = open_many(files);
	assert_int_equal(n, FEW_FILES);
	for (unsigned i = 0; i < n; i++)
		file_unref(files[i]);
}

static void dead_gofer(void **state)
{
	struct moat_statx st;
	struct file *f;
	int sock;
	pid_t pid;

	(void)state;
	write_host("f", "x");
	assert_int_equal(do_stat("f", &st), 0);
	kill(fx.pid, SIGKILL);
	waitpid(fx.pid, NULL, 0);
	assert_int_equal(do_stat("unknown", &st), -EIO);
	assert_int_equal(do_mkdir("d", 0755), -EIO);
	assert_int_equal(do_open("f", O_RDONLY, 0, &f), -EIO);
	assert_false(p9_conn_alive(fx.conn));
	/* For the teardown. */
	pid = start_gofer(fx.dir, &sock);
	close(sock);
	fx.pid = pid;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(parallel),
		TEST(opened_in_order),
		TEST(few_descriptors),
		TEST(dead_gofer),
	};
	int ret = cmocka_run_group_tests_name("exclusive", tests, init, NULL);

	shared_mode = true;
	return ret + cmocka_run_group_tests_name("shared", tests, NULL, NULL);
}
