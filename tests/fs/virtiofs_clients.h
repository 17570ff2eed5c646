/*
 * tests/fs/virtiofs_clients.h - a daemon of ours and any number of clients, for the virtiofs_*.c that need several, or the host, beside one.
 *
 * The daemon is the program executed anew (`--serve DIR SOCKET`), which listens and serves each connection in a process of its own.
 */
#ifndef MOAT_TESTS_FS_VIRTIOFS_CLIENTS_H
#define MOAT_TESTS_FS_VIRTIOFS_CLIENTS_H

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

#define SEEN_MS 20000
#define WINDOW (16ul << 20)
#define RANGE (2ul << 20)
#define NOFILE_OF_DAEMON 700

/* Define it before for a daemon with the host's locks. */
#ifndef DAEMON_LOCKS
#define DAEMON_LOCKS false
#endif
/* The same for so many queues of a device's; 0: one a CPU. */
#ifndef CLIENT_QUEUES
#define CLIENT_QUEUES 0
#endif

/* ---- the daemon ---- */

__attribute__((constructor)) static void serve(int argc, char **argv, char **envp)
{
	struct virtiofsd_config config = {.sock_fd = -1,
					  .dax_window = WINDOW,
					  .posix_lock = DAEMON_LOCKS,
					  .flock = DAEMON_LOCKS,
					  .no_namespaces = geteuid() != 0};
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

static inline const char *host_path(const char *name)
{
	static char path[2][160];
	static int turn;

	turn ^= 1;
	snprintf(path[turn], sizeof(path[turn]), "%s/%s", tree, name);
	return path[turn];
}

static inline int start_daemon(void)
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

static inline int connect_daemon(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(addr.sun_path, sock_path, sizeof(sock_path));
	for (unsigned tries = 0; tries < 12000; tries++) {
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

static inline int create(struct filesystem **ret_fs, struct dentry **ret_root)
{
	const struct virtiofs_device_options device = {.memory = 1ul << 28,
						       .queues = CLIENT_QUEUES};
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

static inline void client_start(struct client *c, const char *options)
{
	next_options = options;
	assert_int_equal(fs_env_init(&c->env), 0);
	c->dev = next_dev;
}

static inline void client_stop(struct client *c)
{
	fs_env_fini(&c->env);
	virtiofs_device_unref(c->dev);
}

/* To be called before calls of c. */
static inline struct fs_env *as(struct client *c)
{
	vfs_run_deferred();
	cred_set_current(c->env.cred);
	return &c->env;
}

static inline void put_host(const char *name, const char *text)
{
	int fd = open(host_path(name), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static inline void put_client(struct client *c, const char *name, const char *text, int flags)
{
	struct file *f;

	assert_int_equal(fs_open(as(c), name, flags | O_CREAT | O_WRONLY, 0644, &f), 0);
	assert_int_equal(fs_write(f, text, strlen(text)), strlen(text));
	fs_close(f);
}

static inline struct moat_statx stat_of(struct client *c, const char *name)
{
	struct moat_statx st;

	assert_int_equal(fs_lstat(as(c), name, &st), 0);
	return st;
}

static inline int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ll + ts.tv_nsec / 1000000;
}

static inline void remove_all(void)
{
	char cmd[128];

	snprintf(cmd, sizeof(cmd), "rm -rf %s/*", tree);
	assert_int_equal(system(cmd), 0);
}

static inline int set_up(void **state)
{
	(void)state;
	if (hostpoll_start() || guard_install() || fs_env_process_init())
		return -1;
	virtiofs_register();
	return 0;
}

static inline int tear_down(void **state)
{
	char cmd[128];

	(void)state;
	kill(daemon_pid, SIGTERM);
	waitpid(daemon_pid, NULL, 0);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", top);
	return system(cmd);
}

/* Until a sees the name. at_once: the very first look. */
static inline void expect_there(struct client *a, const char *name, bool at_once)
{
	int64_t end = now_ms() + SEEN_MS;
	struct moat_statx st;

	while (fs_lstat(as(a), name, &st)) {
		assert_false(at_once);
		assert_true(now_ms() < end);
		usleep(500);
	}
}

#endif
