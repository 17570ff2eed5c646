/*
 * Two clients on one daemon of ours, and the host: who sees what when, DAX, and what a client that breaks the rules is told.
 *
 * The daemon is this program executed anew (`--serve DIR SOCKET`), which listens and serves each connection in a process of its own. Timing: a change on the host
 * is to be seen within milliseconds; on a loaded machine the test gives it SEEN_MS.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>

#include <cmocka.h>

#include "base/hostpoll.h"
#include "base/log.h"
#include "fsimpl/virtiofs/virtiofs.h"
#include "gofer/virtiofs/virtiofsd.h"
#include "mem/guard.h"
#include "mem/mappable.h"
#include "tests/fs/env.h"

#define SEEN_MS 2000
#define WINDOW (16ul << 20)
#define RANGE (2ul << 20)
#define NOFILE_OF_DAEMON 700

/* ---- the daemon ---- */

__attribute__((constructor)) static void serve(int argc, char **argv, char **envp)
{
	struct virtiofsd_config config = {
		.sock_fd = -1, .dax_window = WINDOW, .no_namespaces = geteuid() != 0};
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct rlimit files = {NOFILE_OF_DAEMON, NOFILE_OF_DAEMON};

	(void)envp;
	if (argc != 4 || strcmp(argv[1], "--serve"))
		return;
	config.shared_dir = argv[2];
	config.listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", argv[3]);
	if (setrlimit(RLIMIT_NOFILE, &files) < 0 ||
	    bind(config.listen_fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
	    listen(config.listen_fd, 8) < 0)
		_exit(2);
	log_init(2, LOG_ERROR_LEVEL, "daemon");
	_exit(virtiofsd_main(&config) ? 1 : 0);
}

static char top[64], tree[80], sock_path[80];
static pid_t daemon_pid;

static const char *host_path(const char *name)
{
	static char path[2][160];
	static int turn;

	turn ^= 1;
	snprintf(path[turn], sizeof(path[turn]), "%s/%s", tree, name);
	return path[turn];
}

static int start_daemon(void)
{
	char *argv[] = {program_invocation_name, (char *)"--serve", tree, sock_path, NULL};
	const char *tmp = getenv("TMPDIR");

	snprintf(top, sizeof(top), "%.40s/moat-shared.XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(top))
		return -errno;
	snprintf(tree, sizeof(tree), "%s/tree", top);
	snprintf(sock_path, sizeof(sock_path), "%s/s", top);
	if (mkdir(tree, 0755) < 0)
		return -errno;
	return -posix_spawn(&daemon_pid, "/proc/self/exe", NULL, NULL, argv, environ);
}

static int connect_daemon(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(addr.sun_path, sock_path, sizeof(sock_path));
	for (unsigned tries = 0; tries < 1000; tries++) {
		if (connect(sock, (struct sockaddr *)&addr, sizeof(addr)) == 0)
			return sock;
		usleep(5000);
	}
	close(sock);
	return -ETIMEDOUT;
}

/* ---- clients ---- */

struct client {
	struct fs_env env;
	struct virtiofs_device *dev;
};

static const char *next_options;
static struct virtiofs_device *next_dev;

static int create(struct filesystem **ret_fs, struct dentry **ret_root)
{
	const struct virtiofs_device_options device = {.memory = 1ul << 28};
	struct virtiofs_options options;
	int err = virtiofs_parse_options(next_options, &options), sock;

	if (err)
		return err;
	sock = connect_daemon();
	if (sock < 0)
		return sock;
	err = virtiofs_device_connect(sock, &device, &next_dev);
	return err ? err : virtiofs_create(next_dev, &options, "shared", ret_fs, ret_root);
}

const struct fs_backend fs_backend = {.name = "shared", .create = create};

static void client_start(struct client *c, const char *options)
{
	next_options = options;
	assert_int_equal(fs_env_init(&c->env), 0);
	c->dev = next_dev;
}

static void client_stop(struct client *c)
{
	fs_env_fini(&c->env);
	virtiofs_device_unref(c->dev);
}

/* To be called before calls of c. */
static struct fs_env *as(struct client *c)
{
	vfs_run_deferred();
	cred_set_current(c->env.cred);
	return &c->env;
}

static void put_host(const char *name, const char *text)
{
	int fd = open(host_path(name), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static void put_client(struct client *c, const char *name, const char *text, int flags)
{
	struct file *f;

	assert_int_equal(fs_open(as(c), name, flags | O_CREAT | O_WRONLY, 0644, &f), 0);
	assert_int_equal(fs_write(f, text, strlen(text)), strlen(text));
	fs_close(f);
}

static struct moat_statx stat_of(struct client *c, const char *name)
{
	struct moat_statx st;

	assert_int_equal(fs_lstat(as(c), name, &st), 0);
	return st;
}

static void remove_all(void)
{
	char cmd[128];

	snprintf(cmd, sizeof(cmd), "rm -rf %s/*", tree);
	assert_int_equal(system(cmd), 0);
}

/* ---- versions ---- */

/* After each kind of change by b, a's next look. a has everything cached before. */
static void changes_are_seen(struct client *a, struct client *b)
{
	struct moat_statx st;
	struct file *f;
	char buf[16] = "";

	put_host("f", "one");
	assert_int_equal(stat_of(a, "f").size, 3);
	assert_int_equal(fs_chmod(as(b), "f", 0600), 0);
	assert_int_equal(stat_of(a, "f").mode & 07777, 0600);
	assert_int_equal(fs_chown(as(b), "f", 7, 8), 0);
	assert_int_equal(stat_of(a, "f").uid, 7);
	put_client(b, "f", "four", O_TRUNC);
	assert_int_equal(stat_of(a, "f").size, 4);
	assert_int_equal(fs_truncate(as(b), "f", 100), 0);
	assert_int_equal(stat_of(a, "f").size, 100);
	/* names: new, renamed, exchanged, removed, linked */
	assert_int_equal(fs_stat(as(a), "new", &st), -ENOENT);
	assert_int_equal(fs_creat(as(b), "new", 0640), 0);
	assert_int_equal(stat_of(a, "new").mode & 07777, 0640);
	assert_int_equal(fs_rename(as(b), "new", "newer", 0), 0);
	assert_int_equal(fs_stat(as(a), "new", &st), -ENOENT);
	assert_int_equal(fs_stat(as(a), "newer", &st), 0);
	assert_int_equal(fs_link(as(b), "f", "hard", false), 0);
	assert_int_equal(stat_of(a, "f").nlink, 2);
	assert_int_equal(fs_unlink(as(b), "hard"), 0);
	assert_int_equal(stat_of(a, "f").nlink, 1);
	assert_int_equal(fs_rename(as(b), "newer", "f", 0), 0);
	assert_int_equal(stat_of(a, "f").size, 0);
	assert_int_equal(fs_unlink(as(b), "f"), 0);
	assert_int_equal(fs_stat(as(a), "f", &st), -ENOENT);
	assert_int_equal(fs_mkdir(as(b), "d", 0755), 0);
	assert_int_equal(stat_of(a, "d").mode & 07777, 0755);
	assert_int_equal(fs_creat(as(b), "d/x", 0644), 0);
	assert_int_equal(fs_stat(as(a), "d/x", &st), 0);
	assert_int_equal(fs_rename(as(b), "d", "e", 0), 0);
	assert_int_equal(fs_stat(as(a), "d/x", &st), -ENOENT);
	assert_int_equal(fs_stat(as(a), "e/x", &st), 0);
	assert_int_equal(fs_symlink(as(b), "x", "e/l"), 0);
	assert_int_equal(fs_stat(as(a), "e/l", &st), 0);
	assert_int_equal(fs_unlink(as(b), "e/l"), 0);
	assert_int_equal(fs_lstat(as(a), "e/l", &st), -ENOENT);
	assert_int_equal(fs_unlink(as(b), "e/x"), 0);
	assert_int_equal(fs_rmdir(as(b), "e"), 0);
	assert_int_equal(fs_stat(as(a), "e", &st), -ENOENT);
	/* data, of a file that a has open and cached */
	put_host("data", "old");
	assert_int_equal(fs_open(as(a), "data", O_RDONLY, 0, &f), 0);
	assert_int_equal(fs_pread(f, buf, 3, 0), 3);
	put_client(b, "data", "new", 0);
	as(a);
	assert_int_equal(fs_pread(f, buf, 3, 0), 3);
	assert_memory_equal(buf, "new", 3);
	put_client(b, "data", "longer", 0);
	as(a);
	assert_int_equal(fs_pread(f, buf, 16, 0), 6);
	fs_close(f);
	remove_all();
}

static void another_client_sees(void **state)
{
	static const char *const options[] = {"coherence=versions",
					      "coherence=strict",
					      "cache=always,coherence=versions",
					      "coherence=versions,dax=always",
					      "cache=always,writeback,coherence=versions",
					      "cache=none"};
	struct client a, b;

	(void)state;
	for (unsigned i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
		client_start(&a, options[i]);
		client_start(&b, options[i]);
		changes_are_seen(&a, &b);
		changes_are_seen(&b, &a);
		client_stop(&a);
		client_stop(&b);
	}
}

/* Nothing is asked while nothing changes; a client's own changes cost at most one question each. */
static void nothing_is_asked(void **state)
{
	struct moat_statx st;
	struct client a, b;
	uint64_t sent;

	(void)state;
	put_host("f", "x");
	assert_int_equal(mkdir(host_path("d"), 0755), 0);
	put_host("d/g", "x");
	client_start(&a, "coherence=versions");
	client_start(&b, "coherence=versions");
	stat_of(&a, "f");
	stat_of(&a, "d/g");
	assert_int_equal(fs_stat(as(&a), "none", &st), -ENOENT);
	sent = virtiofs_device_requests(a.dev);
	for (int i = 0; i < 1000; i++) {
		stat_of(&a, "f");
		stat_of(&a, "d/g");
		assert_int_equal(fs_stat(as(&a), "none", &st), -ENOENT);
	}
	assert_int_equal(virtiofs_device_requests(a.dev), sent);
	/* What another file's change costs: nothing, but for those that share its slot. */
	assert_int_equal(fs_chmod(as(&b), "d/g", 0600), 0);
	stat_of(&a, "f");
	assert_int_equal(virtiofs_device_requests(a.dev), sent);
	stat_of(&a, "d/g");
	assert_int_equal(virtiofs_device_requests(a.dev), sent + 1);
	/* Its own are in the answers. */
	assert_int_equal(fs_chmod(as(&a), "f", 0600), 0);
	sent = virtiofs_device_requests(a.dev);
	usleep(20000);
	stat_of(&a, "f");
	assert_int_equal(virtiofs_device_requests(a.dev), sent);
	client_stop(&a);
	client_stop(&b);
	remove_all();
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ll + ts.tv_nsec / 1000000;
}

/* Until the mode that a sees is what it is to be. at_once: the very first look. */
static void expect_mode(struct client *a, const char *name, unsigned mode, bool at_once)
{
	int64_t end = now_ms() + SEEN_MS;

	while ((stat_of(a, name).mode & 07777u) != mode) {
		assert_false(at_once);
		assert_true(now_ms() < end);
		usleep(500);
	}
}

static void expect_gone(struct client *a, const char *name, bool at_once)
{
	int64_t end = now_ms() + SEEN_MS;
	struct moat_statx st;
	int err;

	while ((err = fs_lstat(as(a), name, &st)) != -ENOENT) {
		assert_int_equal(err, 0);
		assert_false(at_once);
		assert_true(now_ms() < end);
		usleep(500);
	}
}

static void expect_there(struct client *a, const char *name, bool at_once)
{
	int64_t end = now_ms() + SEEN_MS;
	struct moat_statx st;

	while (fs_lstat(as(a), name, &st)) {
		assert_false(at_once);
		assert_true(now_ms() < end);
		usleep(500);
	}
}

static void host_changes(struct client *a, bool strict)
{
	for (int i = 0; i < 20; i++) {
		put_host("f", "abc");
		expect_there(a, "f", strict);
		assert_int_equal(chmod(host_path("f"), 0600), 0);
		expect_mode(a, "f", 0600, strict);
		assert_int_equal(chmod(host_path("f"), 0644), 0);
		expect_mode(a, "f", 0644, strict);
		assert_int_equal(rename(host_path("f"), host_path("g")), 0);
		expect_gone(a, "f", strict);
		expect_there(a, "g", strict);
		assert_int_equal(mkdir(host_path("d"), 0755), 0);
		expect_there(a, "d", strict);
		assert_int_equal(symlink("g", host_path("d/l")), 0);
		expect_there(a, "d/l", strict);
		assert_int_equal(unlink(host_path("d/l")), 0);
		expect_gone(a, "d/l", strict);
		assert_int_equal(rmdir(host_path("d")), 0);
		expect_gone(a, "d", strict);
		assert_int_equal(unlink(host_path("g")), 0);
		expect_gone(a, "g", strict);
	}
}

static void the_host_is_seen(void **state)
{
	struct client a;

	(void)state;
	client_start(&a, "cache=always,coherence=versions");
	host_changes(&a, false);
	client_stop(&a);
	client_start(&a, "cache=always,coherence=strict");
	host_changes(&a, true);
	client_stop(&a);
	remove_all();
}

/* A connection's process that is killed takes nobody with it. */
static void a_killed_neighbour(void **state)
{
	struct client a, b;

	(void)state;
	put_host("f", "x");
	client_start(&a, "coherence=strict");
	client_start(&b, "coherence=strict");
	stat_of(&a, "f");
	stat_of(&b, "f");
	client_stop(&b);
	assert_int_equal(chmod(host_path("f"), 0600), 0);
	expect_mode(&a, "f", 0600, true);
	client_stop(&a);
	remove_all();
}

/* ---- DAX ---- */

static void dax_reads_and_writes(void **state)
{
	struct file *fa, *fb;
	static char buf[RANGE], page[4096];
	struct client a, b;
	uint64_t sent;

	(void)state;
	put_host("f", "");
	assert_int_equal(truncate(host_path("f"), 3 * RANGE), 0);
	client_start(&a, "dax=always,timeout=100");
	client_start(&b, "dax=always,timeout=100");
	assert_int_equal(fs_open(as(&a), "f", O_RDWR, 0, &fa), 0);
	assert_int_equal(fs_open(as(&b), "f", O_RDWR, 0, &fb), 0);
	/* across ranges */
	memset(buf, 'a', sizeof(buf));
	as(&a);
	assert_int_equal(fs_pwrite(fa, buf, sizeof(buf), RANGE / 2), sizeof(buf));
	as(&b);
	assert_int_equal(fs_pread(fb, page, sizeof(page), RANGE - 100), sizeof(page));
	assert_memory_equal(page, buf, sizeof(page));
	/* warm: no message, whatever another writes */
	sent = virtiofs_device_requests(b.dev);
	for (int i = 0; i < 100; i++) {
		page[0] = (char)i;
		as(&a);
		assert_int_equal(fs_pwrite(fa, page, 1, RANGE - 100), 1);
		as(&b);
		assert_int_equal(fs_pread(fb, page, sizeof(page), RANGE - 100), sizeof(page));
		assert_int_equal(page[0], i);
	}
	assert_int_equal(virtiofs_device_requests(b.dev), sent);
	/* and the host */
	put_host("g", "host");
	assert_int_equal(truncate(host_path("g"), 8192), 0);
	fs_close(fa);
	assert_int_equal(fs_open(as(&a), "g", O_RDWR, 0, &fa), 0);
	assert_int_equal(fs_pread(fa, page, sizeof(page), 0), sizeof(page));
	assert_memory_equal(page, "host", 4);
	fs_close(fa);
	fs_close(fb);
	client_stop(&a);
	client_stop(&b);
	remove_all();
}

/* Growth by either end, and the file cut short by the host under what is mapped. */
static void dax_sizes(void **state)
{
	static char buf[3 * 4096];
	struct client a;
	struct file *f;

	(void)state;
	assert_int_equal(guard_install(), 0); /* cmocka has its own handlers */
	put_host("f", "");
	client_start(&a, "dax=always,timeout=100");
	assert_int_equal(fs_open(as(&a), "f", O_RDWR, 0, &f), 0);
	memset(buf, 'x', sizeof(buf));
	assert_int_equal(fs_pwrite(f, buf, sizeof(buf), 0), sizeof(buf));
	assert_int_equal(stat_of(&a, "f").size, sizeof(buf));
	assert_int_equal(fs_pwrite(f, buf, 100, 4000), 100);
	assert_int_equal(fs_pread(f, buf, sizeof(buf), 0), sizeof(buf));
	/* cut by the host: a believes the old size for 100 s more */
	assert_int_equal(truncate(host_path("f"), 5000), 0);
	assert_int_equal(fs_pread(f, buf, sizeof(buf), 0), 5000);
	assert_int_equal(fs_pread(f, buf, sizeof(buf), 8192), 0);
	assert_int_equal(truncate(host_path("f"), 0), 0);
	assert_int_equal(fs_pread(f, buf, sizeof(buf), 0), 0);
	/* written to what is gone: it is there again, as on Linux's own file systems */
	assert_int_equal(truncate(host_path("f"), sizeof(buf)), 0);
	assert_int_equal(fs_pread(f, buf, sizeof(buf), 0), 0); /* believed to be empty */
	fs_close(f);
	assert_int_equal(fs_open(as(&a), "f", O_RDWR, 0, &f), 0);
	assert_int_equal(fs_pread(f, buf, sizeof(buf), 0), sizeof(buf));
	assert_int_equal(truncate(host_path("f"), 0), 0);
	memset(buf, 'y', sizeof(buf));
	assert_int_equal(fs_pwrite(f, buf, 4096, 4096), 4096);
	assert_int_equal(stat_of(&a, "f").size, 8192);
	assert_int_equal(fs_truncate(as(&a), "f", 10), 0);
	assert_int_equal(fs_pread(f, buf, sizeof(buf), 0), 10);
	fs_close(f);
	client_stop(&a);
	remove_all();
}

/* More ranges than the window has. */
static void dax_pressure(void **state)
{
	const unsigned ranges = 3 * WINDOW / RANGE;
	struct client a;
	struct file *f;

	(void)state;
	put_host("big", "");
	assert_int_equal(truncate(host_path("big"), ranges * RANGE), 0);
	client_start(&a, "dax=always,timeout=100");
	assert_int_equal(fs_open(as(&a), "big", O_RDWR, 0, &f), 0);
	for (unsigned round = 0; round < 2; round++)
		for (unsigned i = 0; i < ranges; i++) {
			uint32_t v = i + 1000 * round, got = 0;

			if (round) {
				assert_int_equal(fs_pread(f, &got, 4, i * RANGE + 4), 4);
				assert_int_equal(got, i);
			}
			assert_int_equal(fs_pwrite(f, &v, 4, i * RANGE + 4), 4);
			assert_int_equal(fs_pread(f, &got, 4, i * RANGE + 4), 4);
			assert_int_equal(got, v);
		}
	fs_close(f);
	client_stop(&a);
	remove_all();
}

/* A space that only counts what it is asked to drop. */
static unsigned dropped;
static void count_invalidate(struct mapping_space *s, uint64_t addr, uint64_t size,
			     bool private_too)
{
	(void)s;
	(void)addr;
	(void)size;
	(void)private_too;
	dropped++;
}

static int translate(struct mappable *m, uint64_t off, unsigned access, struct mem_trans *ret)
{
	int err = -EAGAIN;

	for (int i = 0; i < 3 && err == -EAGAIN; i++) {
		rwlock_read_lock(&m->data_lock);
		err = m->ops->translate(m, off, 0, UINT64_MAX & ~4095ull, access, ret);
		rwlock_read_unlock(&m->data_lock);
		if (err == -EAGAIN && m->ops->populate(m, off, 4096, access))
			return -EIO;
	}
	return err;
}

static void dax_mappings(void **state)
{
	static const struct mapping_space_ops ops = {.invalidate = count_invalidate};
	struct mapping_space space = {&ops};
	struct mapping map = {.space = &space, .addr = 0x10000000, .size = 4 * RANGE};
	struct mem_trans t;
	struct mappable *m;
	struct client a;
	struct file *f;
	uint32_t v = 0;

	(void)state;
	assert_int_equal(guard_install(), 0);
	put_host("f", "");
	assert_int_equal(truncate(host_path("f"), 3 * RANGE), 0);
	client_start(&a, "dax=always,timeout=100");
	assert_int_equal(fs_open(as(&a), "f", O_RDWR, 0, &f), 0);
	m = f->ops->mappable(f);
	m->ops->ref(m);
	assert_int_equal(mappable_add(m, &map), 0);
	assert_int_equal(translate(m, RANGE + 4096, MEM_READ, &t), 0);
	assert_false(t.access & MEM_WRITE);
	memfile_range_unref(t.mf, t.mf_off, t.size);
	/* For writing: what was mapped for reading goes first. */
	dropped = 0;
	assert_int_equal(translate(m, RANGE + 4096, MEM_READ | MEM_WRITE, &t), 0);
	assert_true(t.access & MEM_WRITE);
	assert_true(dropped > 0);
	*(volatile uint32_t *)((char *)memfile_ptr(t.mf, t.mf_off) + (RANGE + 4096 - t.start)) = 77;
	assert_int_equal(fs_pread(f, &v, 4, RANGE + 4096), 4);
	assert_int_equal(v, 77);
	/* The file ends under it: the access fails, we do not. */
	assert_int_equal(truncate(host_path("f"), 4096), 0);
	assert_int_equal(guard_probe((char *)memfile_ptr(t.mf, t.mf_off) + (RANGE + 4096 - t.start),
				     true),
			 -EFAULT);
	memfile_range_unref(t.mf, t.mf_off, t.size);
	assert_int_equal(translate(m, RANGE + 4096, MEM_READ, &t), -EFAULT);
	mappable_remove(m, &map);
	m->ops->unref(m);
	fs_close(f);
	client_stop(&a);
	remove_all();
}

/* ---- a client that breaks the rules ---- */

static int64_t raw(struct client *c, struct fuse_request req, const void *data, size_t size,
		   void *reply, size_t reply_size)
{
	struct vdev_call call = {.req = req,
				 .inline_data = data,
				 .inline_size = size,
				 .reply = reply,
				 .reply_size = reply_size};

	as(c);
	return vdev_call(c->dev, &call);
}

static int64_t raw_lookup(struct client *c, uint64_t dir, const char *name,
			  struct fuse_entry_out *ret)
{
	return raw(c,
		   (struct fuse_request){.opcode = FUSE_LOOKUP,
					 .nodeid = dir,
					 .name = {name},
					 .name_len = {strlen(name)}},
		   NULL, 0, ret, sizeof(*ret));
}

static int64_t raw_setup(struct client *c, uint64_t node, uint64_t foffset, uint64_t moffset,
			 uint64_t len, uint64_t flags)
{
	const struct fuse_setupmapping_in arg = {.fh = UINT64_MAX,
						 .foffset = foffset,
						 .len = len,
						 .flags = flags,
						 .moffset = moffset};

	return raw(c,
		   (struct fuse_request){.opcode = FUSE_SETUPMAPPING, .nodeid = node, .arg = &arg},
		   NULL, 0, NULL, 0);
}

static void bad_mappings(void **state)
{
	struct fuse_removemapping_in rm = {.count = 1};
	struct fuse_removemapping_one one = {.moffset = WINDOW, .len = RANGE};
	struct fuse_entry_out f, l;
	struct client a;
	const uint64_t rw = 3;

	(void)state;
	put_host("f", "x");
	assert_int_equal(symlink("f", host_path("l")), 0);
	client_start(&a, "dax=always");
	assert_true(raw_lookup(&a, FUSE_ROOT, "f", &f) > 0);
	assert_true(raw_lookup(&a, FUSE_ROOT, "l", &l) > 0);
	assert_int_equal(raw_setup(&a, f.nodeid, 0, WINDOW, RANGE, rw), -EINVAL);
	assert_int_equal(raw_setup(&a, f.nodeid, 0, WINDOW - 4096, RANGE, rw), -EINVAL);
	assert_int_equal(raw_setup(&a, f.nodeid, 0, 0, WINDOW + 4096, rw), -EINVAL);
	assert_int_equal(raw_setup(&a, f.nodeid, 0, UINT64_MAX - 4095, RANGE, rw), -EINVAL);
	assert_int_equal(raw_setup(&a, f.nodeid, 0, 4096, UINT64_MAX - 4095, rw), -EINVAL);
	assert_int_equal(raw_setup(&a, f.nodeid, 1, 0, RANGE, rw), -EINVAL);
	assert_int_equal(raw_setup(&a, f.nodeid, 0, 1, RANGE, rw), -EINVAL);
	assert_int_equal(raw_setup(&a, f.nodeid, 0, 0, 0, rw), -EINVAL);
	assert_int_equal(raw_setup(&a, f.nodeid, UINT64_MAX & ~4095ull, 0, RANGE, rw), -EINVAL);
	assert_int_equal(raw_setup(&a, f.nodeid, 0, 0, RANGE, 0), -EINVAL);
	assert_int_equal(raw_setup(&a, f.nodeid, 0, 0, RANGE, 8), -EINVAL);
	assert_int_equal(raw_setup(&a, l.nodeid, 0, 0, RANGE, rw), -EINVAL);
	assert_int_equal(raw_setup(&a, FUSE_ROOT, 0, 0, RANGE, rw), -EISDIR);
	assert_int_equal(raw_setup(&a, 12345, 0, 0, RANGE, rw), -ESTALE);
	/* Well-formed, but this client (the window's code) did not ask: refused there. */
	assert_int_equal(raw_setup(&a, f.nodeid, 0, 0, RANGE, rw), -ENOSPC);
	assert_int_equal(raw(&a,
			     (struct fuse_request){
				     .opcode = FUSE_REMOVEMAPPING, .nodeid = FUSE_ROOT, .arg = &rm},
			     &one, sizeof(one), NULL, 0),
			 -EINVAL);
	rm.count = 1000;
	assert_int_equal(raw(&a,
			     (struct fuse_request){
				     .opcode = FUSE_REMOVEMAPPING, .nodeid = FUSE_ROOT, .arg = &rm},
			     &one, sizeof(one), NULL, 0),
			 -EINVAL);
	assert_int_equal(stat_of(&a, "f").size, 1);
	client_stop(&a);
	remove_all();
}

static void bad_names(void **state)
{
	static const char *const names[] = {"..", ".", "a/b", "/etc", "../x", ""};
	struct fuse_open_in open_in = {.flags = O_RDONLY};
	struct fuse_open_out out;
	struct fuse_entry_out e;
	struct client a;

	(void)state;
	assert_int_equal(symlink("/proc/self/root/etc/passwd", host_path("l")), 0);
	client_start(&a, "");
	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		assert_int_equal(raw_lookup(&a, FUSE_ROOT, names[i], &e), -EINVAL);
	assert_true(raw_lookup(&a, FUSE_ROOT, "l", &e) > 0);
	assert_int_equal(e.attr.mode & S_IFMT, S_IFLNK);
	assert_int_equal(
		raw(&a,
		    (struct fuse_request){.opcode = FUSE_OPEN, .nodeid = e.nodeid, .arg = &open_in},
		    NULL, 0, &out, sizeof(out)),
		-ENXIO);
	/* below a file, a link */
	assert_int_equal(raw_lookup(&a, e.nodeid, "passwd", &e), -ENOTDIR);
	client_stop(&a);
	remove_all();
}

/* Nodes and handles until there are no more; the neighbour does not notice, and giving back helps. */
static void exhaustion(void **state)
{
	struct fuse_open_in open_in = {.flags = O_RDONLY};
	struct fuse_open_out out = {0};
	struct fuse_entry_out e, first;
	struct client a, b;
	char name[16];
	int64_t got = 0;
	unsigned n;

	(void)state;
	for (n = 0; n < NOFILE_OF_DAEMON; n++) {
		snprintf(name, sizeof(name), "f%u", n);
		put_host(name, "x");
	}
	client_start(&a, "");
	client_start(&b, "");
	for (n = 0; n < NOFILE_OF_DAEMON && got >= 0; n++) {
		snprintf(name, sizeof(name), "f%u", n);
		got = raw_lookup(&a, FUSE_ROOT, name, &e);
		if (!n)
			first = e;
	}
	assert_int_equal(got, -ENFILE);
	assert_int_equal(raw(&a,
			     (struct fuse_request){
				     .opcode = FUSE_OPEN, .nodeid = first.nodeid, .arg = &open_in},
			     NULL, 0, &out, sizeof(out)),
			 -ENFILE);
	stat_of(&b, "f5");
	client_stop(&a);
	client_start(&a, "");
	assert_true(raw_lookup(&a, FUSE_ROOT, "f0", &first) > 0);
	for (n = 0, got = 0; n < NOFILE_OF_DAEMON && got >= 0; n++)
		got = raw(&a,
			  (struct fuse_request){
				  .opcode = FUSE_OPEN, .nodeid = first.nodeid, .arg = &open_in},
			  NULL, 0, &out, sizeof(out));
	assert_int_equal(got, -ENFILE);
	stat_of(&b, "f6");
	client_stop(&a);
	client_stop(&b);
	remove_all();
}

static _Atomic bool renamer_stop;

/* d goes out of the tree and back, a link to the outside takes its place. */
static void *renamer(void *arg)
{
	char in[100], out[100];

	snprintf(in, sizeof(in), "%s/d", tree);
	snprintf(out, sizeof(out), "%s/away", top);
	while (!atomic_load(&renamer_stop)) {
		if (rename(in, out) == 0) {
			(void)!symlink(top, in);
			(void)unlink(in);
			(void)!rename(out, in);
		}
	}
	return arg;
}

/* Nothing that is found at d/secret is ever the file of that name outside. */
static void racing_renamer(void **state)
{
	struct client a;
	struct moat_statx st;
	pthread_t thread;
	struct file *f;
	char path[100];
	unsigned found = 0;
	int fd;

	(void)state;
	snprintf(path, sizeof(path), "%s/secret", top);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_int_equal(write(fd, "outside", 7), 7);
	close(fd);
	assert_int_equal(mkdir(host_path("d"), 0755), 0);
	put_host("d/secret", "in");
	client_start(&a, "cache=none");
	atomic_store(&renamer_stop, false);
	assert_int_equal(pthread_create(&thread, NULL, renamer, NULL), 0);
	for (int64_t end = now_ms() + 1500; now_ms() < end;) {
		if (fs_stat(as(&a), "d/secret", &st) == 0) {
			assert_int_equal(st.size, 2);
			found++;
		}
		if (fs_open(as(&a), "d/secret", O_RDONLY, 0, &f) == 0) {
			char buf[16];

			assert_in_range(fs_read(f, buf, sizeof(buf)), 0, 2);
			fs_close(f);
		}
	}
	atomic_store(&renamer_stop, true);
	pthread_join(thread, NULL);
	assert_true(found > 0);
	client_stop(&a);
	remove_all();
}

/* ---- */

static int set_up(void **state)
{
	(void)state;
	if (hostpoll_start() || guard_install() || fs_env_process_init())
		return -1;
	virtiofs_register();
	return 0;
}

static int tear_down(void **state)
{
	char cmd[128];

	(void)state;
	kill(daemon_pid, SIGTERM);
	waitpid(daemon_pid, NULL, 0);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", top);
	return system(cmd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(another_client_sees),	cmocka_unit_test(nothing_is_asked),
		cmocka_unit_test(the_host_is_seen),	cmocka_unit_test(a_killed_neighbour),
		cmocka_unit_test(dax_reads_and_writes), cmocka_unit_test(dax_sizes),
		cmocka_unit_test(dax_pressure),		cmocka_unit_test(dax_mappings),
		cmocka_unit_test(bad_mappings),		cmocka_unit_test(bad_names),
		cmocka_unit_test(exhaustion),		cmocka_unit_test(racing_renamer),
	};

	/* Before there are threads. */
	if (start_daemon())
		return 1;
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
